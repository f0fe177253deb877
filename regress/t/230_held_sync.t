#!/usr/bin/python3
"""230_held_sync.t - nothing shows before it is durable (invariant I1), through the API.

The server's test hook holds the sync thread: what is written is evaluated, but not durable.
Meanwhile a failed compare, an empty delete, a read, a watch, a grant, a keepalive and errors show
nothing of the held writes - they wait, or answer from the state before.  On release all arrive.

SPDX-License-Identifier: Apache-2.0
"""

import os
import signal
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "lib"))

import storetest  # noqa: E402
import t4test  # noqa: E402

TAP = t4test.Tap()


def tell(server, number, text):
    """Sends a signal and waits for the line that says it took effect."""
    before = server.log().count(text)
    server.process.send_signal(number)
    deadline = time.monotonic() + 20
    while server.log().count(text) == before:
        if time.monotonic() > deadline:
            raise t4test.StartError("no line %r in the log" % text)
        time.sleep(0.01)


def main():
    if not os.path.exists(t4test.T4.binary):
        TAP.skip_all("t4 was not built")
    import etcdclient
    api = etcdclient.api
    with t4test.T4(environment={"T4_TEST_HOLD_SYNC": "1"}) as server:
        server.start()
        client = etcdclient.Client(server.address)
        base = client.put(b"before", b"1").header.revision
        client.lease_grant(1000, 5)
        watch = client.watch_stream()
        watch.created(b"\0", b"\0")
        keepalive = client.keep_alive()
        TAP.equal(keepalive.ask(5).TTL, 1000, "a keepalive before")

        tell(server, signal.SIGUSR1, "sync is held")
        held = {"a put": client.begin("KV/Put", api.PutRequest(key=b"held", value=b"2"))}
        # the put is evaluated when its effect holds up an answer that saw it
        held["a failed compare"] = client.begin("KV/Txn", api.TxnRequest(
            compare=[api.Compare(key=b"held", target=api.Compare.VERSION, version=0)],
            success=[api.RequestOp(request_put=api.PutRequest(key=b"never", value=b"3"))],
            failure=[api.RequestOp(request_range=api.RangeRequest(key=b"held"))]))
        held["an empty delete"] = client.begin(
            "KV/DeleteRange", api.DeleteRangeRequest(key=b"nothing"))
        held["a grant"] = client.begin("Lease/LeaseGrant", api.LeaseGrantRequest(TTL=99, ID=6))
        held["time to live"] = client.begin(
            "Lease/LeaseTimeToLive", api.LeaseTimeToLiveRequest(ID=6))
        held["an error"] = client.begin(
            "KV/Compact", api.CompactionRequest(revision=base + 50))
        # A stream and a call have no order: first the grant is seen to be evaluated.
        lease_requests = 't4_requests_total{op="lease"}'
        storetest.until(lambda: storetest.metric(server, lease_requests) >= 2)
        keepalive.send(api.LeaseKeepAliveRequest(ID=6))

        for _ in range(20):  # reads go on meanwhile, at what is durable
            got = client.range(b"\0", b"\0")
        TAP.equal([kv.key for kv in got.kvs], [b"before"], "a read shows nothing of it")
        TAP.equal(got.header.revision, base, "nor does its header")
        for name, call in held.items():
            TAP.ok(not call.done(), "%s waits" % name)
        TAP.equal(watch.next(0.2), None, "a watch shows nothing")
        TAP.equal(keepalive.next(0.2), None, "a keepalive of the held lease waits")

        tell(server, signal.SIGUSR2, "sync is released")
        TAP.equal(held["a put"].result(20).header.revision, base + 1, "released: the put")
        answer = held["a failed compare"].result(20)
        TAP.equal((answer.succeeded, answer.responses[0].response_range.kvs[0].value),
                  (False, b"2"), "the failed compare has seen it")
        TAP.equal(held["an empty delete"].result(20).deleted, 0, "the empty delete")
        TAP.equal(held["a grant"].result(20).TTL, 99, "the grant")
        TAP.equal(held["time to live"].result(20).grantedTTL, 99, "its time to live")
        TAP.equal(held["an error"].exception(20).code().name, "OUT_OF_RANGE", "the error")
        TAP.equal(keepalive.next(20).TTL, 99, "the keepalive")
        events = watch.events(1, 20)
        TAP.equal([event.kv.key for _, event in events], [b"held"], "the watch")
        client.close()
        TAP.equal(server.stop(), 0, "clean stop")
    TAP.done()


main()

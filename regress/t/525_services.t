#!/usr/bin/python3
"""525_services.t - health, RangeStream, and what the small services do when the lead changes.

Health runs on a real etcd first.  RangeStream, which etcd has since 3.7, is compared with Range of
the same server: all its pieces put together must be the same answer.

SPDX-License-Identifier: Apache-2.0
"""

import os
import queue
import sys
import threading
import time

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "lib"))

import grpc  # noqa: E402

import t4test  # noqa: E402
from storetest import DirStore, server as store_server, until  # noqa: E402

TAP = t4test.Tap()
SECONDS = 20

if not isinstance(t4test.subject(), t4test.T4):
    TAP.skip_all("t4 was not built")

from etcdclient import Client, api, status_of  # noqa: E402

import health_pb2  # noqa: E402

SERVING, NOT_SERVING, SERVICE_UNKNOWN = 1, 2, 3


def status(call):
    try:
        return call()
    except grpc.RpcError as error:
        return status_of(error)


class Told:
    """What a stream says, as it comes; the end as (code, text)."""

    def __init__(self, stream):
        self.stream = stream
        self.said = queue.Queue()
        threading.Thread(target=self.read, daemon=True).start()

    def read(self):
        try:
            for message in self.stream:
                self.said.put(message)
            self.said.put(("OK", ""))
        except grpc.RpcError as error:
            self.said.put(status_of(error))

    def next(self, seconds=SECONDS):
        try:
            return self.said.get(timeout=seconds)
        except queue.Empty:
            return None


# ---- health -----------------------------------------------------------------------------------

class Health:
    def __init__(self, server):
        self.channel = grpc.insecure_channel(server.address, options=t4test.CHANNEL_OPTIONS)

    def method(self, name, kind, answer):
        return getattr(self.channel, kind)(
            "/grpc.health.v1.Health/" + name,
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=answer.FromString)

    def check(self, service=""):
        return status(lambda: self.method("Check", "unary_unary", health_pb2.HealthCheckResponse)(
            health_pb2.HealthCheckRequest(service=service), timeout=SECONDS).status)

    def listed(self):
        answer = self.method("List", "unary_unary", health_pb2.HealthListResponse)(
            health_pb2.HealthListRequest(), timeout=SECONDS)
        return {name: answer.statuses[name].status for name in answer.statuses}

    def watch(self, service=""):
        return Told(one.status for one in self.method(
            "Watch", "unary_stream", health_pb2.HealthCheckResponse)(
                health_pb2.HealthCheckRequest(service=service), timeout=60))

    def watch_of(self, requests):
        stream = self.channel.stream_stream("/grpc.health.v1.Health/Watch")
        return status(lambda: next(stream(iter(requests), timeout=SECONDS)))


def health(server):
    asked = Health(server)
    name = server.name
    TAP.equal((asked.check(), asked.check("etcdserverpb.KV")),
              (SERVING, ("NOT_FOUND", "unknown service")), name + ": the server as a whole serves")
    TAP.equal(asked.listed(), {"": SERVING}, name + ": that is all the list has")
    watch, unknown = asked.watch(), asked.watch("etcdserverpb.KV")
    TAP.equal((watch.next(), unknown.next()), (SERVING, SERVICE_UNKNOWN),
              name + ": a watch begins with the present status")
    code, text = asked.watch_of([])
    TAP.ok(code == "INTERNAL" and text.startswith("cardinality violation"),
           name + ": a stream without a request is refused", code, text)
    TAP.equal(asked.watch_of([b"\xff"])[0], "INTERNAL", name + ": so is a malformed one")
    if isinstance(server, t4test.T4):   # etcd takes its time, and cuts the connection
        TAP.equal((server.stop(), watch.next(), unknown.next()),
                  (0,) + (("UNAVAILABLE", "etcdserver: server stopped"),) * 2,
                  name + ": a stop ends the watches")


# ---- the lead changes ---------------------------------------------------------------------------

def deposed(store):
    """Another server takes the store over: everybody who waits is told."""
    with store_server(store, "--take-over-now") as old, \
            store_server(store, "--take-over-now") as new:
        old.start()
        client = Client(old.address)
        watch = Health(old).watch()
        TAP.equal(watch.next(), SERVING, "a leader serves")
        for lease in (1, 2):
            client.lease_grant(600, lease)
        client.call("Lock/Lock", api.LockRequest(name=b"l", lease=1))
        candidate = client.call("Election/Campaign", api.CampaignRequest(name=b"e", lease=1))
        TAP.equal(candidate.leader.key, b"e/1", "a candidate is elected on an object store")
        observer = Told(client.call("Election/Observe", api.LeaderRequest(name=b"e")))
        observer.next()
        waiting = client.begin("Lock/Lock", api.LockRequest(name=b"l", lease=2), timeout=60)
        until(lambda: client.prefix(b"l/").count == 2)
        new.start()
        status(lambda: client.put(b"x"))   # now the old one must find out
        TAP.equal(watch.next(), NOT_SERVING, "a deposed server says that it does not")
        no_leader = ("UNAVAILABLE", "etcdserver: no leader")
        TAP.equal(status(waiting.result), no_leader, "a waiting Lock is told why")
        TAP.equal(observer.next(), no_leader, "so is an observer")
        TAP.equal(Health(old).check(), NOT_SERVING, "the deposed server is not healthy")
        TAP.equal(status(lambda: client.call("Election/Leader", api.LeaderRequest(name=b"e"))),
                  no_leader, "and does not say who leads an election")
        TAP.equal(status(lambda: client.call("Lock/Lock", api.LockRequest(name=b"m", lease=1))),
                  no_leader, "it gives no lock")
        TAP.equal(status(lambda: client.call("Cluster/MemberList",
                                             api.MemberListRequest(linearizable=True))),
                  no_leader, "a linearizable list of members is not answered")
        TAP.equal(len(client.member_list().members), 1, "another one is")
        stream = client.call("KV/RangeStream", api.RangeRequest(key=b"l/", range_end=b"l0"))
        TAP.equal(Told(stream).next(), no_leader, "no range is streamed that may be old")
        stream = client.call("KV/RangeStream", api.RangeRequest(key=b"l/", range_end=b"l0",
                                                                serializable=True))
        TAP.equal(Told(stream).next().range_response.count, 2, "unless that is asked for")
        TAP.equal(status(lambda: client.call("Maintenance/MoveLeader", api.MoveLeaderRequest(
            targetID=1))), ("FAILED_PRECONDITION", "etcdserver: not leader"),
            "nor can it give the lead to anybody")
        taken = Client(new.address)
        TAP.equal(taken.call("Election/Leader", api.LeaderRequest(name=b"e")).kv.key, b"e/1",
                  "the new leader knows who leads the election")
        taken.close()
        client.close()


def seeking(store):
    """A start without an answer of the store: health tells when the server begins to lead."""
    with store_server(store, "--take-over-now") as instance:
        instance.start()
        instance.stop()
        store.control("outage")
        instance.start(wait=False)
        asked = Health(instance)
        TAP.ok(until(lambda: asked.check() == NOT_SERVING),
               "a server that does not lead yet does not serve", asked.check())
        watch = asked.watch()
        TAP.equal(watch.next(), NOT_SERVING, "a watch tells that")
        store.control()
        TAP.equal(watch.next(), SERVING, "and when it leads")


# ---- RangeStream ----------------------------------------------------------------------------------

def streamed(client, request, timeout=60):
    """(all pieces merged, number of pieces)"""
    merged, pieces = api.RangeResponse(), 0
    for piece in client.call("KV/RangeStream", request, timeout=timeout):
        merged.MergeFrom(piece.range_response)
        pieces += 1
    return merged, pieces


def memory(server):
    with open("/proc/%d/status" % server.process.pid) as lines:
        for line in lines:
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
    return 0


def fill(client, first, end):
    big = os.urandom(50000)
    for i in range(first, end):
        client.put(b"r/%04d" % i, big if i % 2 else b"small")


def range_stream(server):
    client = Client(server.address)
    fill(client, 0, 200)
    everything = dict(key=b"r/", range_end=b"r0")
    for fields in ({}, {"limit": 199}, {"limit": 200}, {"limit": 3}, {"keys_only": True},
                   {"count_only": True}, {"count_only": True, "limit": 2}, {"limit": -1},
                   {"sort_order": 1}, {"revision": 100}, {"serializable": True},
                   {"revision": 100, "limit": 7}):
        request = api.RangeRequest(**everything, **fields)
        merged, pieces = streamed(client, request)
        want = client.call("KV/Range", request)
        TAP.ok(merged == want, "RangeStream %s: together the answer of Range" % fields,
               "%d keys in %d pieces" % (len(merged.kvs), pieces), merged.count, want.count)
    TAP.ok(streamed(client, api.RangeRequest(**everything))[1] >= 10,
           "5 MB come in pieces")
    for key, end in ((b"r/0001", b""), (b"missing", b""), (b"r0", b"r/"), (b"r/0190", b"\0"),
                     (b"\0", b"\0")):
        request = api.RangeRequest(key=key, range_end=end)
        TAP.ok(streamed(client, request)[0] == client.call("KV/Range", request),
               "the same from %r to %r" % (key, end))
    refused = [({"key": b""}, ("INVALID_ARGUMENT", "etcdserver: key is not provided")),
               ({"sort_order": 7}, ("INVALID_ARGUMENT", "etcdserver: invalid sort option")),
               ({"revision": 1 << 40}, ("OUT_OF_RANGE", "etcdserver: mvcc: required revision is a "
                                                        "future revision")),
               ({"sort_order": 2}, ("UNIMPLEMENTED",
                                    "RangeStream does not support custom sort orders")),
               ({"sort_target": 3}, ("UNIMPLEMENTED",
                                     "RangeStream does not support custom sort orders"))]
    refused += [({field: 1}, ("UNIMPLEMENTED", "RangeStream does not support revision filters"))
                for field in ("min_mod_revision", "max_mod_revision", "min_create_revision",
                              "max_create_revision")]
    for fields, want in refused:
        request = api.RangeRequest(**dict(everything, **fields))
        TAP.equal(status(lambda: streamed(client, request)), want, "refused: %s" % fields)
    fill(client, 200, 1600)
    one_revision(client, everything)
    compacted(client, everything)
    bounded(server, client, everything)
    client.close()


def one_revision(client, everything):
    """Writes while it is read do not show."""
    before = client.call("KV/Range", api.RangeRequest(**everything))
    stream = client.call("KV/RangeStream", api.RangeRequest(**everything), timeout=60)
    merged = api.RangeResponse()
    merged.MergeFrom(next(stream).range_response)
    client.delete(b"r/1599")
    client.put(b"r/1598", b"new")
    client.put(b"r/1598x", b"new")
    for piece in stream:
        merged.MergeFrom(piece.range_response)
    TAP.ok(merged == before, "a stream shows one revision, whatever is written meanwhile",
           merged.header, before.header, merged.count)


def compacted(client, everything):
    """A client that has not read to the end when its revision is compacted is told so."""
    stream = client.call("KV/RangeStream", api.RangeRequest(**everything), timeout=60)
    next(stream)
    revision = client.put(b"r/0000", b"newer").header.revision
    client.compact(revision)

    def rest():
        for _ in stream:
            pass
        return "read to the end"

    TAP.equal(status(rest), ("OUT_OF_RANGE",
                             "etcdserver: mvcc: required revision has been compacted"),
              "a compaction above its revision ends a stream")


def bounded(server, client, everything):
    """Streams that nobody reads cost pieces, not ranges: 20 of 40 MB each."""
    clients = [Client(server.address) for _ in range(20)]
    before = memory(server)
    streams = [one.call("KV/RangeStream", api.RangeRequest(**everything), timeout=60)
               for one in clients]
    for stream in streams:
        next(stream)
    client.range(b"r/", b"r0", count_only=True)
    grown = memory(server) - before
    TAP.ok(grown < 100 << 20, "streams that are not read take little memory", grown)
    started = time.monotonic()
    client.put(b"other", b"x")
    TAP.diag("%.1f MB for 20 streams; a put beside them: %.1f ms" % (
        grown / 1e6, (time.monotonic() - started) * 1e3))
    for stream in streams:
        stream.cancel()
    for one in clients:
        one.close()


def main():
    reference, subject = t4test.reference(), t4test.subject()
    if reference is not None and not reference.is_34():
        with reference.start():
            health(reference)
    with subject.start():
        range_stream(subject)
        health(subject)
    for part in (deposed, seeking):
        with DirStore() as store:
            part(store)
    TAP.done()


main()

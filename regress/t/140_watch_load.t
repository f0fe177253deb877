#!/usr/bin/python3
"""140_watch_load.t - clients that watch and do not read: the server's memory, and what they get.

A hundred streams stop reading, then 50 MB are written in five families of keys, of which each
stream watches one; a client that reads has all of it meanwhile.  What waits in the server is
bounded per stream, whatever is written: 1 MiB of events and one revision more.  Then they read on,
and each gets every event of its family exactly once and in order.

SPDX-License-Identifier: Apache-2.0
"""

import os
import queue
import re
import sys
import threading
import urllib.request

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "lib"))

import grpc  # noqa: E402

import t4test  # noqa: E402

TAP = t4test.Tap()
STREAMS = 100
FAMILIES = 5
PUTS = 5000
VALUE = 10 * 1024
AT_ONCE = 50
MIB = 1 << 20
# Of each stream: the hub's bound and its last revision, a message under way, gRPC's windows and
# write buffers.  Of the server: three memtables of 32 MiB and as much again for what is around.
STREAM_BYTES = int(2.5 * MIB)
SERVER_BYTES = 192 * MIB


# A client library that takes what it was not asked for would hide what is tested: without these
# its windows grow to the size of what is sent.
NARROW = [("grpc.http2.bdp_probe", 0), ("grpc.http2.lookahead_bytes", 65536)]


class Sleeper:
    """A watch whose responses are taken only when asked for; nothing reads in the background."""

    def __init__(self, etcdclient, client, family):
        self.family = family
        self.requests = queue.Queue()
        self.call = client.method("Watch/Watch")(iter(self.requests.get, None))
        key = b"%d/" % family
        self.requests.put(etcdclient.api.WatchRequest(
            create_request=etcdclient.api.WatchCreateRequest(
                key=key, range_end=etcdclient.prefix_end(key))))
        self.created = next(self.call).created
        self.got = []
        self.why = None

    def read(self, number):
        """Until so many events are there."""
        try:
            while len(self.got) < number:
                response = next(self.call)
                if response.canceled:
                    raise ValueError("canceled")
                self.got += [(event.kv.mod_revision, event.kv.key, len(event.kv.value))
                             for event in response.events]
        except Exception as error:  # told by the main thread
            self.why = repr(error)

    def end(self):
        self.requests.put(None)
        self.call.cancel()


def memory(server, field):
    with open("/proc/%d/status" % server.process.pid) as status:
        return int(re.search(field + r":\s+(\d+) kB", status.read()).group(1)) * 1024


def metric(server, name):
    with urllib.request.urlopen("http://%s/metrics" % server.metrics_address) as page:
        text = page.read().decode()
    return int(float(re.search("^%s (.*)$" % name, text, re.M).group(1)))


def write(etcdclient, client):
    """[(revision, key, length)] of all that was put."""
    written = []
    for first in range(0, PUTS, AT_ONCE):
        calls = []
        for i in range(first, min(PUTS, first + AT_ONCE)):
            key = b"%d/%05d" % (i % FAMILIES, i % 700)
            calls.append((key, client.begin("KV/Put", etcdclient.api.PutRequest(
                key=key, value=b"%d " % i + os.urandom(16) * (VALUE // 16)))))
        for key, call in calls:
            written.append((call.result().header.revision, key))
    return sorted(written)


def main():
    if not os.path.exists(t4test.T4.binary):
        TAP.skip_all("t4 was not built")
    import etcdclient
    with t4test.T4() as server:
        server.start()
        clients = [etcdclient.Client(server.address) for _ in range(5)]
        for client in clients[1:]:
            client.channel.close()
            client.channel = grpc.insecure_channel(
                server.address, options=list(t4test.CHANNEL_OPTIONS) + NARROW)
        sleepers = [Sleeper(etcdclient, clients[1 + i % 4], i % FAMILIES)
                    for i in range(STREAMS)]
        TAP.ok(all(s.created for s in sleepers), "%d streams watch" % STREAMS)
        reader = clients[0].watch_stream()
        reader.created(b"\0", b"\0")
        before = memory(server, "VmRSS")

        written = write(etcdclient, clients[0])
        TAP.equal(len(reader.events(PUTS, 60)), PUTS, "a client that reads has all of it")
        backlog = metric(server, "t4_watch_backlog_bytes")
        grown = memory(server, "VmHWM") - before
        TAP.diag("written %d MiB; waiting for clients %.1f MiB, unsynced %d; memory grew by "
                 "%.1f MiB" % (PUTS * VALUE // MIB, backlog / MIB,
                               metric(server, "t4_watchers_unsynced"), grown / MIB))
        TAP.ok(backlog <= STREAMS * (MIB + 2 * VALUE), "what waits is bounded", backlog)
        TAP.ok(metric(server, "t4_watchers_unsynced") > STREAMS // 2,
               "streams were full, so most watchers are to read the log")
        if not os.environ.get("T4_SANITIZER"):  # which has a memory of its own
            TAP.ok(grown <= STREAMS * STREAM_BYTES + SERVER_BYTES, "so is the server's memory",
                   grown)

        threads = [threading.Thread(target=s.read, args=(PUTS // FAMILIES,), daemon=True)
                   for s in sleepers]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(120)
        # nothing more may come: one event, and it is the next
        for family in range(FAMILIES):
            last = clients[0].put(b"%d/last" % family, b"x").header.revision
            written.append((last, b"%d/last" % family))
        for s in sleepers:
            s.read(PUTS // FAMILIES + 1)
        TAP.equal([s.why for s in sleepers if s.why], [], "all read on")
        wrong = [s.family for s in sleepers if [(r, k) for r, k, _ in s.got] !=
                 [(r, k) for r, k in written if k.startswith(b"%d/" % s.family)]]
        TAP.equal(wrong, [], "each gets every event of its keys once and in order")
        TAP.ok(all(n >= VALUE for s in sleepers for _, _, n in s.got[:-1]), "with its value")
        TAP.equal(metric(server, "t4_watch_backlog_bytes"), 0, "nothing waits any more")
        for s in sleepers:
            s.end()
        for client in clients:
            client.close()
        TAP.equal(server.stop(), 0, "clean stop")
    TAP.done()


main()

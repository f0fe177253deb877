#!/usr/bin/python3
"""440_snapshot_load.t - snapshots and hashes beside everything else.

Under writers and compactions each snapshot is of one revision.  A client that does not read holds
neither writers nor a thread, and when it goes its file goes; so many at a time are taken and no more.  What a
crash leaves of temporary files is removed by the next start.  On a disk that is still being filled the calls
wait for it.

SPDX-License-Identifier: Apache-2.0
"""

import os
import shutil
import sys
import tempfile
import threading

import grpc

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "lib"))

import t4test  # noqa: E402
import etcdclient  # noqa: E402
import historytest  # noqa: E402
from storetest import DirStore, metric, server, until  # noqa: E402

TAP = t4test.Tap()
api = etcdclient.api
STREAMS_MAX = 8


def stream(client):
    return client.call("Maintenance/Snapshot", api.SnapshotRequest(), timeout=60)


class Writer(threading.Thread):
    """Each revision puts a and b to its own number; compactions stay close behind."""

    def __init__(self, address):
        super().__init__()
        self.client = etcdclient.Client(address)
        self.over = threading.Event()
        self.wrong = None
        self.revisions = 0

    def run(self):
        try:
            number = 0
            while not self.over.is_set():
                number += 1
                text = b"%d" % number
                answer = self.client.txn(success=[
                    historytest.put(b"a", text), historytest.put(b"pad/%d" % (number % 50),
                                                                 text * 20),
                    historytest.put(b"b", text)])
                self.revisions = answer.header.revision
                if number % 5 == 0:
                    back = 3 if number % 10 else 0  # also the newest revision itself
                    self.client.compact(answer.header.revision - back)
        except grpc.RpcError as error:
            self.wrong = error

    def end(self):
        self.over.set()
        self.join()
        self.client.close()


def under_load(directory):
    with t4test.T4() as source:
        source.start()
        client = etcdclient.Client(source.address)
        writer = Writer(source.address)
        writer.start()
        paths = []
        for number in range(4):
            begun = writer.revisions
            until(lambda: writer.revisions > begun + 20 or not writer.is_alive())
            paths.append(historytest.save(source.address, os.path.join(directory, "load-%d" % number)))
            historytest.hash_kv(client, 0)
        writer.end()
        TAP.ok(writer.wrong is None, "writers and compactions go on", writer.wrong)
        client.close()
    for path in paths:
        with t4test.T4(options=["--from-snapshot", path]) as copy:
            copy.start()
            client = etcdclient.Client(copy.address)
            a, b = client.range(b"a"), client.range(b"b")
            TAP.ok(a.kvs[0].value == b.kvs[0].value and a.header.revision == a.kvs[0].mod_revision
                   and a.kvs[0].mod_revision == b.kvs[0].mod_revision,
                   "a snapshot under load is of one revision", a, b)
            client.close()


def temporary_files(instance):
    """Open files of the server's that have no name any more."""
    folder = "/proc/%d/fd" % instance.process.pid
    found = 0
    for name in os.listdir(folder):
        try:
            found += "/tmp/tmp-" in os.readlink(os.path.join(folder, name))
        except FileNotFoundError:
            pass
    return found


# A client takes in what its window has room for, and lets the window grow to fit the line: on a
# slow machine to all of this snapshot, which then is no stream that waits.
SMALL_WINDOW = [("grpc.http2.bdp_probe", 0)]


def slow_clients():
    with t4test.T4() as instance:
        instance.start()
        client = etcdclient.Client(instance.address, SMALL_WINDOW)
        for number in range(24):
            client.put(b"large/%d" % number, os.urandom(1000000))
        streams = []
        for _ in range(STREAMS_MAX):
            streams.append(stream(client))
            TAP.ok(next(streams[-1]).remaining_bytes > 20000000, "a stream begins")
        TAP.ok(until(lambda: temporary_files(instance) == STREAMS_MAX),
               "each has its file, and nothing else is left", temporary_files(instance))
        TAP.equal(os.listdir(os.path.join(instance.data_dir, "tmp")), [], "without a name")
        try:
            next(stream(client))
            TAP.ok(False, "one more is refused")
        except grpc.RpcError as error:
            TAP.equal(etcdclient.status_of(error),
                      ("RESOURCE_EXHAUSTED", "etcdserver: too many requests"),
                      "one more is refused")
        revision = client.put(b"beside", b"1").header.revision
        TAP.ok(historytest.hash_kv(client, 0)[1] == revision, "writes and hashes go on")
        streams[0].cancel()
        TAP.ok(until(lambda: temporary_files(instance) == STREAMS_MAX - 1),
               "a canceled one has freed its file")
        parts = list(stream(client))
        TAP.ok(parts[-1].remaining_bytes == 0 and len(parts[-1].blob) == 32 and
               {p.version for p in parts} == {"3.6.0"}, "and another one is taken, to its end")
        client.close()
        TAP.ok(until(lambda: temporary_files(instance) == 0), "lost connections: all are freed")
        folder = os.path.join(instance.data_dir, "tmp")
        instance.kill()
        for name in ("tmp-0123456789abcdef", "other"):
            with open(os.path.join(folder, name), "wb"):
                pass
        instance.start()
        TAP.equal(os.listdir(folder), ["other"], "a start removes what a crash left")
        client = etcdclient.Client(instance.address, SMALL_WINDOW)
        held = stream(client)
        next(held)
        instance.stop()
        try:
            list(held)
            TAP.ok(False, "a stop ends the stream")
        except grpc.RpcError as error:
            # A status waits behind the piece that the client has not taken yet; when the grace is
            # over without that, the call is cancelled.
            TAP.ok(etcdclient.status_of(error) in (("UNAVAILABLE", "etcdserver: server stopped"),
                                                   ("UNAVAILABLE", "Cancelling all calls")),
                   "a stop ends the stream", etcdclient.status_of(error))


def while_the_disk_is_filled():
    with DirStore() as store:
        with server(store, "--checkpoint-interval=100ms") as first:
            first.start()
            client = etcdclient.Client(first.address)
            for number in range(200):
                client.put(b"k/%d" % number, b"v" * 200)
            wanted = historytest.hash_kv(client, 0)
            until(lambda: metric(first, "t4_checkpoints_total") > 0)
            first.stop()
        with server(store) as second:
            store.control("hold get sst/")
            second.start(wait=False)
            client = etcdclient.Client(second.address)
            channel_is_there = until(lambda: client.begin(
                "Maintenance/Status", api.StatusRequest(), wait_for_ready=True).result())
            waiting = client.begin("Maintenance/HashKV", api.HashKVRequest())
            other = client.begin("Maintenance/Status", api.StatusRequest()).result()
            TAP.ok(channel_is_there and other.header.revision == wanted[1] and
                   not waiting.done(), "a hash waits for the disk to be filled")
            store.control()
            got = waiting.result()
            TAP.equal((got.hash, got.hash_revision), wanted[:2], "and comes out right")


WORK = tempfile.mkdtemp(prefix="t4test-snapshot-")
try:
    under_load(WORK)
    slow_clients()
    while_the_disk_is_filled()
finally:
    shutil.rmtree(WORK, ignore_errors=True)
TAP.done()

#!/usr/bin/python3
"""531_slow_watchers.t - clients that stop reading their sockets while much is written.

Readers, each with a connection of its own and one family of keys to watch, stop: two thirds at
the beginning, a third in the middle.  Meanwhile transactions of two keys are written, and clients
that go on reading get all of it.  The memory of the server grows by no more than
sql-like-docs/guide/watches.md says.  Then they read on, in three groups: those of the middle
from the log; a half of the others from the versions in the engine, as the log does not reach back
to them any more; the rest after a compaction, which cancels them.  Each gets every event
once, in order, and a revision in one piece.
  T4_SLOW_READERS, T4_SLOW_MB   how many, and how much is written (make check-slow-watchers: 1,000
                                and 1,000; otherwise 200 and 100)

SPDX-License-Identifier: Apache-2.0
"""

import os
import re
import sys
import threading

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "lib"))

import storetest  # noqa: E402
import t4test  # noqa: E402

TAP = t4test.Tap()
MIB = 1 << 20
READERS = int(os.environ.get("T4_SLOW_READERS", "200"))
WRITTEN = int(os.environ.get("T4_SLOW_MB", "100")) * MIB
FAMILIES = min(READERS // 5, WRITTEN // (5 * MIB))
VALUE = 10 * 1024
AT_ONCE = 50
SEGMENT = 4 * MIB
KEPT = WRITTEN * 6 // 10  # of the log: what is written last
SECONDS = 60 + WRITTEN // MIB  # of each wait: a deadline, nothing is measured
# As the guide says: of watches, and of each stream: its share, a message, a connection.
WATCH_BYTES = 64 * MIB
SHARE_BYTES = 16 * 1024
MESSAGE_BYTES = 64 * 1024
CONNECTION_BYTES = 32 * 1024
# Of the rest of the server: memtables, the engine's work, buffers of uploads and checkpoints.
SERVER_BYTES = 192 * MIB


class Expected:
    """What is written: [(revision, [keys])] of each family, in order."""

    def __init__(self):
        self.families = [[] for _ in range(FAMILIES)]
        self.all = []

    def add(self, family, revision, keys):
        self.families[family].append((revision, keys))

    def sort(self):
        for family in self.families:
            family.sort()
        self.all = sorted(item for family in self.families for item in family)


class Follower:
    """Compares what one watch gets with what it should, revision by revision."""

    def __init__(self, expected, family, start=0):
        self.expected, self.family, self.start = expected, family, start
        self.created = False
        self.compacted = 0
        self.got = []   # (revision, [keys]); compared when all is known
        self.wrong = None

    def take(self, response):
        if response.created:
            self.created = True
        elif response.canceled:
            self.compacted = response.compact_revision or -1
        elif self.compacted:
            self.wrong = "a response behind the cancellation"
        elif not response.events:
            self.wrong = "an empty response"
        last = 0
        for event in response.events:
            if event.kv.key.endswith(b"/last"):  # see Test.write_last()
                continue
            revision = event.kv.mod_revision
            if len(event.kv.value) < VALUE:
                self.wrong = "an event without its value"
            if revision == last:
                self.got[-1][1].append(event.kv.key)
            else:
                self.got.append((revision, [event.kv.key]))
            last = revision

    def should(self):
        items = (self.expected.all if self.family is None
                 else self.expected.families[self.family])
        return [item for item in items if item[0] >= self.start]

    def complaint(self):
        """None: it got all it should, or the beginning of that before it was canceled."""
        should = self.should()
        if self.compacted:
            should = should[:len(self.got)]
            if should and should[-1][0] >= self.compacted:
                return "canceled, although it had what was not compacted"
        if self.wrong or self.got == should:
            return self.wrong
        for number, (got, wanted) in enumerate(zip(self.got, should)):
            if got != wanted:
                return "item %d is %s, not %s" % (number, got, wanted)
        return "%d revisions, not %d" % (len(self.got), len(should))


def resident(server):
    """Memory of the process's own: pages of the engine's file are the kernel's to take back."""
    with open("/proc/%d/status" % server.process.pid) as status:
        return int(re.search(r"RssAnon:\s+(\d+) kB", status.read()).group(1)) * 1024


class Test:
    def __init__(self, server):
        import etcdclient
        import http2client
        self.api, self.http2 = etcdclient.api, http2client
        self.prefix_end = etcdclient.prefix_end
        self.server = server
        self.client = etcdclient.Client(server.address)
        self.expected = Expected()
        self.number = 0
        self.most = self.most_resident = 0

    def reader(self, family, start=0, small=True):
        follower = Follower(self.expected, family, start)
        key = b"\0" if family is None else b"%03d/" % family
        end = b"\0" if family is None else self.prefix_end(key)
        reader = self.http2.Reader(self.server.address, self.api.WatchCreateRequest(
            key=key, range_end=end, start_revision=start), follower.take, small)
        reader.follower = follower
        return reader

    def readers(self, number, start=0):
        """That many, created, and reading no more."""
        found = [self.reader(i % FAMILIES, start) for i in range(number)]
        self.http2.read(found, lambda reader: reader.follower.created, SECONDS)
        TAP.ok(all(reader.follower.created for reader in found),
               "%d clients watch, and stop reading" % number,
               [reader.why for reader in found if reader.why])
        return found

    def write(self, size):
        for _ in range(size // (2 * VALUE * AT_ONCE)):
            calls = []
            for _ in range(AT_ONCE):
                family = self.number % FAMILIES
                keys = [b"%03d/%04d" % (family, (self.number + i) % 500) for i in range(2)]
                value = b"%d " % self.number + os.urandom(16) * (VALUE // 16)
                calls.append((family, keys, self.client.begin("KV/Txn", self.api.TxnRequest(
                    success=[self.api.RequestOp(request_put=self.api.PutRequest(
                        key=key, value=value)) for key in keys]))))
                self.number += 1
            for family, keys, call in calls:
                self.expected.add(family, call.result().header.revision, keys)
            self.look()

    def look(self):
        self.most = max(self.most, storetest.metric(self.server, "t4_watch_memory_bytes"))
        self.most_resident = max(self.most_resident, resident(self.server))

    def check(self, readers, name):
        wrong = ["family %s: %s" % (reader.follower.family, reader.why or
                                    reader.follower.complaint())
                 for reader in readers if reader.why or reader.follower.complaint()]
        TAP.ok(not wrong, name, *wrong[:5])

    def has_all(self, reader):
        got, should = reader.follower.got, reader.follower.should_end
        return bool(got) and got[-1][0] >= should

    def read_all(self, readers):
        for reader in readers:
            reader.follower.should_end = reader.follower.should()[-1][0]
        return self.http2.read(readers, self.has_all, SECONDS)

    def run(self):
        before = resident(self.server)
        slow = self.readers(READERS * 2 // 3)
        healthy = [self.reader(None, small=False), self.reader(0, small=False)]
        self.http2.read(healthy, lambda reader: reader.follower.created, SECONDS)
        over = threading.Event()
        for reader in healthy:
            reader.follower.should_end = 1 << 62
        thread = threading.Thread(target=self.http2.read, args=(
            healthy, lambda reader: over.is_set() and self.has_all(reader), 4 * SECONDS))
        thread.start()
        self.write(WRITTEN // 2)
        middle = self.readers(READERS - len(slow),
                              self.client.range(b"x").header.revision + 1)
        self.write(WRITTEN - WRITTEN // 2)
        self.expected.sort()
        for reader in healthy:
            reader.follower.should_end = reader.follower.should()[-1][0]
        over.set()
        # what wakes them if they had everything before
        self.write_last()
        thread.join()
        self.check(healthy, "clients that read have everything, while %d do not" % READERS)

        grown = self.most_resident - before
        events = WATCH_BYTES + READERS * SHARE_BYTES
        bound = (events + READERS * (MESSAGE_BYTES + CONNECTION_BYTES) + SERVER_BYTES)
        TAP.diag("%d MiB written, %d readers; events took %.1f MiB at most; the server grew by "
                 "%.1f MiB, allowed %.1f" % (WRITTEN // MIB, READERS, self.most / MIB,
                                             grown / MIB, bound / MIB))
        # The readers of a family share what waits for them, and so what may go over the bound.
        TAP.ok(self.most <= events + FAMILIES * (MESSAGE_BYTES + 2 * 2 * VALUE),
               "the memory of watches is bounded", self.most)
        if not os.environ.get("T4_SANITIZER"):  # which has a memory of its own
            TAP.ok(grown <= bound, "and so is the server's", grown)
        unsynced = storetest.metric(self.server, "t4_watchers_unsynced")
        TAP.ok(unsynced > READERS // 2, "most have to catch up", unsynced)
        TAP.equal(storetest.metric(self.server, "etcd_debugging_mvcc_slow_watcher_total"),
                  unsynced, "etcd's metric says the same")
        TAP.ok(storetest.metric(self.server, "etcd_debugging_mvcc_events_total") >=
               2 * len(self.expected.all) and storetest.metric(
                   self.server, "etcd_debugging_mvcc_pending_events_total") > READERS,
               "others tell how many events were sent, and how many wait")

        scans = storetest.metric(self.server, "t4_watch_scans_total")
        self.read_all(middle)
        self.check(middle, "who stopped in the middle gets each event once, from the log")
        TAP.equal(storetest.metric(self.server, "t4_watch_scans_total"), scans,
                  "without a scan")
        past, rest = slow[::2], slow[1::2]
        TAP.ok(storetest.until(lambda: storetest.metric(self.server, "t4_wal_segments")
                               <= KEPT // SEGMENT + 2), "the log is shorter now")
        self.read_all(past)
        self.check(past, "who stopped at the beginning, too")
        TAP.ok(storetest.metric(self.server, "t4_watch_scans_total") > scans,
               "from the versions in the engine, as the log begins later")

        compacted = self.expected.all[-1][0]
        self.client.compact(compacted)
        self.http2.read(rest, lambda reader: reader.follower.compacted, SECONDS)
        self.check(rest, "who is behind a compaction gets what was waiting, and is canceled")
        TAP.equal({reader.follower.compacted for reader in rest}, {compacted},
                  "with the compacted revision")
        for reader in healthy + slow + middle:
            reader.close()
        TAP.ok(storetest.until(lambda: set(self.left().values()) == {0}),
               "when they are gone, nothing of them is left", self.left())
        self.client.close()

    def left(self):
        """What the metrics say of watches after one more has come and gone."""
        stream = self.client.watch_stream()
        stream.created(b"x")
        stream.cancel()
        names = ["etcd_debugging_mvcc_" + name for name in (
            "watch_stream_total", "watcher_total", "slow_watcher_total", "pending_events_total")]
        storetest.until(lambda: storetest.metric(self.server, names[0]) == 0, 5)
        return {name: storetest.metric(self.server, name)
                for name in names + ["t4_watch_memory_bytes", "t4_watch_backlog_bytes"]}

    def write_last(self):
        """An event for every reader that does not count any more."""
        for family in range(FAMILIES):
            self.client.put(b"%03d/last" % family, bytes(VALUE))


def main():
    if not os.path.exists(t4test.T4.binary):
        TAP.skip_all("t4 was not built")
    # else, as with etcd, a connection that takes nothing for 20 s is closed
    options = ["--grpc-keepalive-timeout=10m", "--checkpoint-interval=500ms",
               "--segment-max-size-mb=%d" % (SEGMENT // MIB), "--wal-keep-bytes=%d" % KEPT]
    with t4test.T4(options) as server:
        server.start()
        Test(server).run()
        TAP.equal(server.stop(), 0, "clean stop")
    TAP.done()


main()

#!/usr/bin/python3
"""430_hash_kv.t - HashKV and Hash: what a real etcd 3.6 with the same history answers.

The same seeded requests go to t4 and to etcd: puts, deletes of keys and ranges, transactions of
several operations, leases that are revoked with their keys, compactions.  HashKV must agree at
every revision from the compacted one to the current one, and in its errors; also where no key is
left, where the newest revision was compacted, after restarts, after compactions that t4 has not
carried out yet.  (The compacted revision itself is compared where etcd was started again: otherwise it
answers from a cache of its compaction, with the compacted revision from before it.)

SPDX-License-Identifier: Apache-2.0
"""

import os
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "lib"))

import t4test  # noqa: E402

TAP = t4test.Tap()
SEED = int(os.environ.get("T4_TEST_SEED", "20240308"))
STEPS = int(os.environ.get("T4_TEST_STEPS", "60"))


class Pair:
    """Both servers with one history."""

    def __init__(self, seed, options=()):
        self.t4 = t4test.T4(options=list(options)).start()
        self.etcd = t4test.Etcd(historytest.QUICK).start()
        self.clients = [etcdclient.Client(s.address) for s in (self.t4, self.etcd)]
        self.history = historytest.History(self.clients, seed)
        self.fresh = True  # etcd has no cache of a compaction

    def restart(self):
        for server in (self.t4, self.etcd):
            server.stop()
            server.start()
        self.fresh = True

    def compact(self, revision):
        self.history.compact(revision)
        self.fresh = False

    def close(self):
        for server in (self.t4, self.etcd):
            server.close()

    def compare(self, name):
        history = self.history
        first = max(1, history.compacted + (not self.fresh))
        wrong = []
        for revision in [-1, 0] + list(range(first, history.revision + 1)):
            ours, theirs = [historytest.hash_kv(c, revision) for c in self.clients]
            if ours != theirs:
                wrong.append("at %d: t4 %s, etcd %s" % (revision, ours, theirs))
        TAP.ok(not wrong, "%s: %d hashes agree" % (name, history.revision - first + 3),
               *wrong[:5])
        for revision in (history.compacted - 1, history.revision + 1):
            if revision > 0:
                ours, theirs = [historytest.hash_kv(c, revision) for c in self.clients]
                TAP.equal(ours, theirs, "%s: revision %s" % (
                    name, "below" if revision < history.compacted else "above"))


def random_histories():
    for seed, options in ((SEED, []), (SEED + 1, ["--storage-engine", "memory"])):
        pair = Pair(seed, options)
        history = pair.history
        history.steps(STEPS)
        pair.compare("never compacted")
        for share in (0.3, 0.7, 0.95):
            base = max(history.compacted, 1)
            pair.compact(base + 1 + int((history.revision - base - 1) * share))
            history.steps(STEPS // 3)
            pair.compare("compacted at %d of %d" % (history.compacted, history.revision))
        pair.compact(history.revision)
        pair.restart()
        pair.compare("compacted to the newest")
        pair.close()


def edges():
    pair = Pair(SEED + 2)
    history = pair.history
    pair.compare("empty")
    history.steps(30)
    history.delete_all()
    pair.compare("no key left")
    middle = history.revision - 8
    pair.compact(middle)
    pair.compare("no key left, compacted")
    pair.compact(history.revision)
    pair.restart()
    pair.compare("a tombstone compacted")
    history.steps(5)
    pair.compare("keys again")
    pair.close()


def unflushed():
    """What compaction does not have taken away yet must not count."""
    pair = Pair(SEED + 3)
    history = pair.history
    history.steps(60)
    at = history.revision - 20
    history.everywhere(lambda c: c.compact(at))
    history.compacted = at
    history.steps(20)
    pair.fresh = False
    pair.compare("compacted, not carried out")
    first, second = [pair.clients[0].call("Maintenance/Hash", etcdclient.api.HashRequest())
                     for _ in range(2)]
    TAP.ok(first.hash == second.hash and first.header.revision == history.revision,
           "Hash: the same of the same state")
    pair.t4.kill()
    pair.t4.start()
    again = pair.clients[0].call("Maintenance/Hash", etcdclient.api.HashRequest())
    TAP.equal(again.hash, first.hash, "Hash: the same after kill -9")
    history.steps(1)
    later = pair.clients[0].call("Maintenance/Hash", etcdclient.api.HashRequest())
    TAP.ok(later.hash != first.hash, "Hash: another after a step")
    pair.close()


if t4test.Etcd.find() is None or t4test.Etcd().is_34():
    TAP.skip_all("no etcd 3.6 was built")

import etcdclient  # noqa: E402
import historytest  # noqa: E402

random_histories()
edges()
unflushed()
TAP.done()

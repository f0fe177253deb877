#!/usr/bin/python3
"""335_store_model.t - process, disk and store fail in turn; every acknowledged write must be there.

A seeded walk.  The store answers some requests with errors before or after their effect, loses
some answers, carries some requests out late, stalls.  Meanwhile clients write, and at random:
the server is killed; killed and its disk thrown away; stopped; a second server on another disk
takes over while the first still runs; the store is out for a while; it is started again without
its storage engine, its log, or both; history is compacted.  Checkpoints are made all the time, folded, the log
archived, and what is not needed removed, so that disks are filled from them.  After each step whoever
leads is read completely: what was acknowledged in synchronous mode is there with its revision,
revisions never go back, and what was once read at a revision is read there again until it is
compacted.  The seed chooses how many segments may be in flight and how long history is kept, too.  T4_MODEL_STEPS (14) and T4_MODEL_SEED
set the length; the seed is printed.

SPDX-License-Identifier: Apache-2.0
"""

import os
import random
import shutil
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "lib"))

import t4test  # noqa: E402
from storetest import DirStore, Load, server  # noqa: E402

TAP = t4test.Tap()
STEPS = int(os.environ.get("T4_MODEL_STEPS") or 14)
SEED = int(os.environ.get("T4_MODEL_SEED") or time.time_ns() % 1000000)
FAULTS = ["fault.error_before=0.01", "fault.error_after=0.02", "fault.lost=0.01",
          "fault.late=0.02", "fault.late_ms=400", "fault.throttle=0.01", "fault.stall=0.02",
          "fault.stall_ms=150"]


class Walk:
    def __init__(self, store, chance):
        self.store, self.chance = store, chance
        self.acked = {}
        self.revision = 0
        self.compacted = 0  # or perhaps so far
        self.snapshots = {}  # revision: everything as it was read there
        self.retention = chance.choice(("0", "1h"))
        self.number = 0
        self.server = self.fresh().start()

    def fresh(self):
        return server(self.store, "--take-over-now", "--leadership-lease=1s",
                      "--object-store-timeout=2s", "--log-level=warn",
                      "--checkpoint-interval=150ms", "--checkpoint-bytes=64KiB",
                      "--history-retention=" + self.retention, "--wal-keep-bytes=0",
                      fault=FAULTS + ["fault.seed=%d" % self.chance.randrange(1, 1 << 30)])

    def load(self):
        self.number += 1
        load = Load(self.server.address, "s%d" % self.number, writers=3)
        load.wait(self.chance.randrange(1, 60), 60)
        self.churn()
        return load

    def churn(self):
        """A few keys that are written and deleted again and again; answers may be lost."""
        import etcdclient
        client = etcdclient.Client(self.server.address)
        for _ in range(self.chance.randrange(5, 25)):
            key = b"churn/%02d" % self.chance.randrange(12)
            try:
                if self.chance.random() < 0.3:
                    client.delete(key)
                else:
                    client.put(key, self.chance.randbytes(self.chance.randrange(600)))
            except etcdclient.grpc.RpcError:
                break
        client.close()

    def keep(self, load):
        load.join()
        self.acked.update(load.acked)

    # ---- steps: each ends with one server that should lead

    def kill(self):
        load = self.load()
        self.server.kill()
        self.keep(load)
        for name in self.chance.choice(([], ["engine"], ["wal"], ["engine", "wal"])):
            shutil.rmtree(os.path.join(self.server.data_dir, name), ignore_errors=True)
        self.server.start()

    def compact(self):
        import etcdclient
        load = self.load()
        client = etcdclient.Client(self.server.address)
        at = self.chance.randrange(self.compacted, self.revision + 1)
        try:
            client.compact(at, physical=self.chance.random() < 0.5)
        except etcdclient.grpc.RpcError:
            pass  # also when there is nothing to compact
        self.compacted = max(self.compacted, at)
        client.close()
        load.finish()
        self.keep(load)

    def lose_disk(self):
        load = self.load()
        self.server.kill()
        self.keep(load)
        self.server.close()
        self.server = self.fresh().start()

    def stop(self):
        load = self.load()
        self.server.stop(60)
        self.keep(load)
        self.server.start()

    def take_over(self):
        load = self.load()
        other = self.fresh().start()
        self.keep(load)
        old, self.server = self.server, other
        if self.chance.random() < 0.5:  # the old disk comes back, and leads again
            old.kill()
            other_load = self.load()
            self.server.kill()
            self.keep(other_load)
            self.server.close()
            self.server = old.start()
        else:
            old.close()

    def outage(self):
        load = self.load()
        self.store.control("outage")
        if self.chance.random() < 0.5:
            self.server.kill()
            self.server.start(wait=False)
        self.store.control()
        self.server.wait_ready()
        load.finish()
        self.acked.update(load.acked)

    # ---- what must hold

    def check(self):
        import etcdclient
        client = etcdclient.Client(self.server.address)
        whole = Load.__new__(Load)
        whole.acked = self.acked
        wrong = whole.missing(client)
        revision = client.range(b"x").header.revision
        if revision < self.revision:
            wrong.append("revision %d after %d" % (revision, self.revision))
        self.revision = revision
        for past in [r for r in self.snapshots if r < self.compacted]:
            del self.snapshots[past]
        for past in sorted(self.snapshots):
            now = self.everything(client, past)
            wrong += ["at revision %d: %r differs" % (past, key)
                      for key in set(now) | set(self.snapshots[past])
                      if now.get(key) != self.snapshots[past].get(key)]
        self.snapshots[revision] = self.everything(client, revision)
        client.close()
        return wrong

    @staticmethod
    def everything(client, revision):
        found, key = {}, b"\0"
        while True:
            page = client.range(key, b"\0", limit=500, revision=revision)
            found.update({kv.key: (kv.value, kv.create_revision, kv.mod_revision, kv.version)
                          for kv in page.kvs})
            if not page.more:
                return found
            key = page.kvs[-1].key + b"\0"


def main():
    if not os.path.exists(t4test.T4.binary):
        TAP.skip_all("t4 was not built")
    chance = random.Random(SEED)
    window = chance.choice((1, 2, 4))
    TAP.diag("seed %d, %d steps, %d segments in flight" % (SEED, STEPS, window))
    with DirStore() as store:
        store.window = window
        walk = Walk(store, chance)
        steps = [walk.kill, walk.lose_disk, walk.stop, walk.take_over, walk.outage, walk.compact]
        taken = []
        for number in range(STEPS):
            step = steps[number] if number < len(steps) else chance.choice(steps)
            taken.append(step.__name__)
            step()
            wrong = walk.check()
            if wrong:
                TAP.ok(False, "after %s" % taken, *(wrong[:8] + [walk.server.log_tail()]))
                break
        else:
            TAP.ok(True, "%d steps: nothing acknowledged is lost (%d writes, %d revisions read "
                   "again)" % (STEPS, len(walk.acked), len(walk.snapshots)))
        TAP.diag(" ".join(taken))
        walk.server.stop(60)
        walk.server.close()
        proof = subprocess.run([t4test.T4.binary, "verify", "--deep",
                                "--object-store=" + store.plain_url], text=True, timeout=300,
                               stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        TAP.ok(proof.returncode == 0, "t4 verify --deep proves what is in the store",
               proof.stdout[-3000:])
    TAP.done()


main()

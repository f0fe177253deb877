#!/usr/bin/python3
"""335_store_model.t - process, disk and store fail in turn; every acknowledged write must be there.

A seeded walk.  The store answers some requests with errors before or after their effect, loses
some answers, carries some requests out late, stalls.  Meanwhile clients write, and at random:
the server is killed; killed and its disk thrown away; stopped; a second server on another disk
takes over while the first still runs; the store is out for a while; it is started again without
its storage engine.  After each step whoever leads is read completely: what was acknowledged in
synchronous mode is there with its revision, and revisions never go back.
The seed chooses how many segments may be in flight, too.  T4_MODEL_STEPS (14) and T4_MODEL_SEED
set the length; the seed is printed.

SPDX-License-Identifier: Apache-2.0
"""

import os
import random
import shutil
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
        self.number = 0
        self.server = self.fresh().start()

    def fresh(self):
        return server(self.store, "--take-over-now", "--leadership-lease=1s",
                      "--object-store-timeout=2s", "--log-level=warn",
                      fault=FAULTS + ["fault.seed=%d" % self.chance.randrange(1, 1 << 30)])

    def load(self):
        self.number += 1
        load = Load(self.server.address, "s%d" % self.number, writers=3)
        load.wait(self.chance.randrange(1, 60), 60)
        return load

    def keep(self, load):
        load.join()
        self.acked.update(load.acked)

    # ---- steps: each ends with one server that should lead

    def kill(self):
        load = self.load()
        self.server.kill()
        self.keep(load)
        if self.chance.random() < 0.5:
            shutil.rmtree(os.path.join(self.server.data_dir, "engine"), ignore_errors=True)
        self.server.start()

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
        client.close()
        return wrong


def main():
    if not os.path.exists(t4test.T4.binary):
        TAP.skip_all("t4 was not built")
    chance = random.Random(SEED)
    window = chance.choice((1, 2, 4))
    TAP.diag("seed %d, %d steps, %d segments in flight" % (SEED, STEPS, window))
    with DirStore() as store:
        store.window = window
        walk = Walk(store, chance)
        steps = [walk.kill, walk.lose_disk, walk.stop, walk.take_over, walk.outage]
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
            TAP.ok(True, "%d steps: nothing acknowledged is lost (%d writes)" % (
                STEPS, len(walk.acked)))
        TAP.diag(" ".join(taken))
        walk.server.close()
    TAP.done()


main()

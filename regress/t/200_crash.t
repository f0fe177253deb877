#!/usr/bin/python3
"""200_crash.t - kill -9 in a loop, under load by several clients.

In each round four clients write (puts with small and large values, transactions over three keys,
deletes, lease grants) until the server is killed at a random number of acknowledged writes; then
it is started again, every fifth time without its engine's folder, and these must hold:
  - every acknowledged write is there, with the revision of its answer;
  - what was unanswered is there whole or not at all (the three keys of a transaction agree);
  - the revisions have no hole: a watch from the round's beginning shows each of them;
  - each acknowledged write appears in the watch exactly once, no write that was never sent does.
T4_CRASH_ROUNDS (30) and T4_CRASH_SEED set the length; the seed is printed.

SPDX-License-Identifier: Apache-2.0
"""

import os
import random
import shutil
import sys
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "lib"))

import t4test  # noqa: E402

TAP = t4test.Tap()
ROUNDS = int(os.environ.get("T4_CRASH_ROUNDS") or 30)
SEED = int(os.environ.get("T4_CRASH_SEED") or time.time_ns() % 1000000)
CLIENTS = 4
# Small segments, so that rolling, and large values, so that flushing, happen all the time.
OPTIONS = ["--segment-max-size-mb", "1", "--log-level", "warn"]


class Count:
    """Acknowledged writes of a round; the killer waits for a number of them."""

    def __init__(self):
        self.changed = threading.Condition()
        self.n = 0

    def add(self):
        with self.changed:
            self.n += 1
            self.changed.notify_all()

    def wait(self, n, seconds=60):
        with self.changed:
            return self.changed.wait_for(lambda: self.n >= n, seconds)


class Writer(threading.Thread):
    """One client.  Its keys are its own, so it knows what each must hold."""

    def __init__(self, name, address, count, state, seed):
        super().__init__(daemon=True)
        self.name, self.address, self.count = name, address, count
        self.state = state        # key -> (value or None, revision): acknowledged
        self.maybe = {}           # key -> value or None: sent, unanswered
        self.acked = []           # (revision, {key: value or None}) of this round
        self.random = random.Random(seed)
        self.error = None

    def run(self):
        import etcdclient
        import grpc
        client = etcdclient.Client(self.address)
        try:
            while True:
                self.step(client, etcdclient.api)
        except grpc.RpcError as error:
            if error.code().name not in ("UNAVAILABLE", "CANCELLED", "UNKNOWN"):
                self.error = "%s %s" % (error.code(), error.details())
        finally:
            client.close()

    def value(self):
        self.serial = getattr(self, "serial", 0) + 1
        head = b"%s %d %d " % (self.name.encode(), self.serial, self.random.getrandbits(40))
        size = self.random.choice((0, 50, 300, 300, 3000, 60000))
        return head + b"x" * size

    def step(self, client, api):
        kind = self.random.randrange(10)
        name = self.name.encode()
        if kind < 6:
            key = b"%s/%d" % (name, self.random.randrange(40))
            self.maybe = {key: self.value()}
            header = client.put(key, self.maybe[key]).header
        elif kind < 8:
            value = self.value()
            self.maybe = {b"%s/t/%s" % (name, part): value for part in (b"a", b"b", b"c")}
            header = client.txn(success=[
                api.RequestOp(request_put=api.PutRequest(key=key, value=value))
                for key, value in self.maybe.items()]).header
        elif kind == 8:
            key = b"%s/%d" % (name, self.random.randrange(40))
            if self.state.get(key, (None,))[0] is None:
                return
            self.maybe = {key: None}
            header = client.delete(key).header
        else:
            client.lease_grant(3600)
            self.count.add()
            return
        for key, value in self.maybe.items():
            self.state[key] = (value, header.revision)
        self.acked.append((header.revision, self.maybe))
        self.maybe = {}
        self.count.add()


def read_all(client):
    """{key: (value, mod_revision)} and the revision, by pages as the apiserver does."""
    found, key, revision = {}, b"\0", 0
    while True:
        page = client.range(key, b"\0", limit=200, revision=revision)
        revision = revision or page.header.revision
        for kv in page.kvs:
            found[kv.key] = (kv.value, kv.mod_revision)
        if not page.more:
            return found, revision
        key = page.kvs[-1].key + b"\0"


def check_state(writers, found):
    """What each key holds against what was acknowledged and what may have happened."""
    wrong = []
    for writer in writers:
        applied = set()
        for key, value in writer.maybe.items():
            applied.add(found.get(key, (None, 0))[0] == value and
                        found.get(key, (None, 0)) != writer.state.get(key, (None, 0)))
        if len(applied) > 1:
            wrong.append("half of a transaction: %r" % sorted(writer.maybe))
        for key, (value, revision) in writer.state.items():
            if key in writer.maybe and True in applied:
                continue
            got = found.get(key, (None, revision))
            if got[0] != value or (value is not None and got[1] != revision):
                wrong.append("%r: acknowledged at revision %d, found %r" % (
                    key, revision, (got[0] or b"")[:40]))
        if True in applied:
            for key, value in writer.maybe.items():
                writer.state[key] = found.get(key, (None, 0))
    known = {key for writer in writers for key in writer.state}
    wrong += ["%r was never written" % key for key in found if key not in known]
    return wrong


def check_watch(client, writers, base, last):
    """All revisions in (base, last], each write where it was acknowledged."""
    stream = client.watch_stream()
    stream.create(b"\0", b"\0", start_revision=base + 1)
    seen = {}
    deadline = time.monotonic() + 60
    while (not seen or max(seen) < last) and last > base and time.monotonic() < deadline:
        response = stream.next(deadline - time.monotonic())
        for event in response.events if response is not None else ():
            value = event.kv.value if event.type == 0 else None
            keys = seen.setdefault(event.kv.mod_revision, {})
            if event.kv.key in keys:
                return ["%r twice at revision %d" % (event.kv.key, event.kv.mod_revision)]
            keys[event.kv.key] = value
    stream.cancel()
    wrong = ["revision %d is missing" % r for r in range(base + 1, last + 1) if r not in seen]
    unexplained = dict(seen)
    for writer in writers:
        for revision, keys in writer.acked:
            if unexplained.pop(revision, None) != keys:
                wrong.append("revision %d: acknowledged %r, watched %r" % (
                    revision, sorted(keys), sorted(seen.get(revision, ()))))
    allowed = [writer.maybe for writer in writers if writer.maybe]
    wrong += ["revision %d was never sent: %r" % (r, sorted(keys))
              for r, keys in unexplained.items() if keys not in allowed]
    return wrong


def one_round(number, server, states, chance, base):
    import etcdclient
    count = Count()
    writers = [Writer("%s%d" % ("w", i), server.address, count, states[i],
                      chance.getrandbits(32)) for i in range(CLIENTS)]
    for writer in writers:
        writer.serial = number * 1000000
        writer.start()
    if not count.wait(chance.randrange(1, 600)):
        return 0, base, ["the server stopped answering: " + server.log_tail()]
    server.kill()
    for writer in writers:
        writer.join(30)
    wrong = [writer.error for writer in writers if writer.error]
    if number % 5 == 4:
        shutil.rmtree(os.path.join(server.data_dir, "engine"))
    server.start()
    client = etcdclient.Client(server.address)
    found, revision = read_all(client)
    wrong += check_watch(client, writers, base, revision)
    wrong += check_state(writers, found)
    if number % 7 == 6:
        client.compact(revision, physical=True)
    client.close()
    return count.n, revision, wrong


def main():
    if not os.path.exists(t4test.T4.binary):
        TAP.skip_all("t4 was not built")
    TAP.diag("seed %d, %d rounds" % (SEED, ROUNDS))
    chance = random.Random(SEED)
    states = [{} for _ in range(CLIENTS)]
    total, base = 0, 1
    with t4test.T4(OPTIONS) as server:
        server.start()
        for number in range(ROUNDS):
            acknowledged, base, wrong = one_round(number, server, states, chance, base)
            total += acknowledged
            if wrong:
                TAP.ok(False, "round %d" % number, *wrong[:10])
                TAP.diag(server.log_tail())
                break
        else:
            TAP.ok(True, "%d rounds of kill -9: nothing acknowledged is lost" % ROUNDS)
        TAP.diag("%d acknowledged writes, revision %d" % (total, base))
        TAP.equal(server.stop(), 0, "the last stop is clean")
    TAP.done()


main()

#!/usr/bin/python3
"""520_locks.t - the services Lock and Election: the same assertions on a real etcd and on t4.

Order of waiting calls, keys of calls whose client went away, leases that end, a server that
stops, a thousand waiting calls.  What t4 does differently stands in t4_only() and in Subject's
fields, each with the reason in sql-like-docs/guide/differences.md.

SPDX-License-Identifier: Apache-2.0
"""

import os
import queue
import signal
import subprocess
import sys
import threading
import time

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "lib"))

import grpc  # noqa: E402

import t4test  # noqa: E402

TAP = t4test.Tap()
SECONDS = 20
LONG = 60

if t4test.subject() is None:
    TAP.skip_all("the server was not built")

from etcdclient import Client, api, prefix_end, status_of  # noqa: E402


def until(condition, what):
    """Waits for it; the value at last."""
    deadline = time.monotonic() + SECONDS
    while True:
        value = condition()
        if value or time.monotonic() > deadline:
            if not value:
                TAP.diag("waited in vain: " + what)
            return value
        time.sleep(0.005)


def result(future):
    """The answer of a call that was begun, or (code, text)."""
    try:
        return future.result()
    except grpc.RpcError as error:
        return status_of(error)


class Locks:
    def __init__(self, server):
        self.server = server
        self.is_t4 = isinstance(server, t4test.T4)
        self.client = Client(server.address)
        self.next_lease = 1000

    def ok(self, good, name, *details):
        return TAP.ok(good, "%s: %s" % (self.server.name, name), *details)

    def equal(self, got, want, name):
        return TAP.equal(got, want, "%s: %s" % (self.server.name, name))

    # ---- calls -------------------------------------------------------------------------------

    def lease(self, ttl=600):
        self.next_lease += 1
        self.client.lease_grant(ttl, self.next_lease)
        return self.next_lease

    def lock(self, name, lease, client=None):
        return (client or self.client).begin(
            "Lock/Lock", api.LockRequest(name=name, lease=lease), timeout=LONG)

    def campaign(self, name, lease, value=b""):
        return self.client.begin("Election/Campaign", api.CampaignRequest(
            name=name, lease=lease, value=value), timeout=LONG)

    def unlock(self, key):
        return self.client.call("Lock/Unlock", api.UnlockRequest(key=key))

    def resign(self, leader):
        return self.client.call("Election/Resign", api.ResignRequest(leader=leader))

    def failure(self, name, request):
        try:
            return self.client.call(name, request)
        except grpc.RpcError as error:
            return status_of(error)

    def keys(self, name):
        kvs = self.client.range(name + b"/", prefix_end(name + b"/")).kvs
        return [kv.key for kv in sorted(kvs, key=lambda kv: kv.create_revision)]

    def count(self, name):
        return self.client.range(name + b"/", prefix_end(name + b"/"), count_only=True).count

    def waiting(self, name, number):
        """Waits until so many keys are there."""
        return until(lambda: self.count(name) == number,
                     "%d keys below %s" % (number, name.decode()))

    # ---- locks -------------------------------------------------------------------------------

    def lock_alone(self):
        held = self.lock(b"alone", 0).result()
        name, _, number = held.key.rpartition(b"/")
        lease = int(number, 16)
        left = self.client.time_to_live(lease, keys=True)
        kv = self.client.range(held.key).kvs[0]
        self.equal((name, left.grantedTTL, list(left.keys), kv.lease, kv.value,
                    held.header.revision), (b"alone", 60, [held.key], lease, b"",
                                            kv.create_revision),
                   "without a lease the server makes one of 60 s, which holds the key")
        again = self.lock(b"alone", lease).result()
        self.equal((again.key, again.header.revision), (held.key, held.header.revision),
                   "who holds the lock gets it again")
        gone = self.unlock(held.key)
        self.equal((gone.header.revision, self.keys(b"alone")),
                   (held.header.revision + 1, []), "unlocked: the key is gone")
        self.equal(self.unlock(held.key).header.revision, gone.header.revision,
                   "unlocking once more changes nothing")
        self.client.lease_grant(600, -255)
        self.equal(self.lock(b"", -255).result().key, b"/-ff",
                   "an empty name and a negative lease make a key")
        self.client.lease_revoke(-255)

    def lock_errors(self):
        missing = ("UNKNOWN", "etcdserver: requested lease not found")
        self.equal([self.failure("Lock/Lock", api.LockRequest(name=b"e", lease=7777)),
                    self.failure("Lock/Unlock", api.UnlockRequest()),
                    self.failure("Election/Campaign",
                                 api.CampaignRequest(name=b"e", lease=7777))],
                   [missing, ("UNKNOWN", "etcdserver: key is not provided"), missing],
                   "errors have etcd's words and the code UNKNOWN")
        value = b"v" * 1572864
        self.equal(self.failure("Election/Campaign", api.CampaignRequest(
            name=b"e", lease=self.lease(), value=value)),
            ("UNKNOWN", "etcdserver: request is too large"), "so has a value that is too large")
        self.equal(self.keys(b"e"), [], "and nothing is left of them")

    def lock_order(self):
        """Each waits for the one before it, whatever that one does."""
        name = b"order"
        calls = []
        for number in range(6):
            calls.append(self.lock(name, self.lease()))
            self.waiting(name, number + 1)
        keys = self.keys(name)
        self.equal(calls[0].result().key, keys[0], "the first one has the lock")
        self.ok(not any(call.done() for call in calls[1:]), "the others wait")
        calls[3].cancel()
        self.ok(until(lambda: keys[3] not in self.keys(name), "the key of the cancelled one"),
                "a waiting call that is cancelled takes its key down")
        self.client.lease_revoke(int(keys[0].rpartition(b"/")[2], 16))
        self.equal(calls[1].result().key, keys[1], "the holder's lease ends: the next one has it")
        self.client.delete(keys[2])
        self.unlock(keys[1])
        self.equal(calls[4].result().key, keys[4],
                   "unlocked: the next one whose key is there has it")
        self.equal(result(calls[2]), ("UNKNOWN", "mutex: session is expired"),
                   "the one whose key was deleted is told so")
        self.client.put(b"elsewhere", b"x")
        revision = self.unlock(keys[4]).header.revision
        last = calls[5].result()
        self.ok(last.header.revision >= revision, "the header is of when the lock was got",
                last, revision)
        self.unlock(last.key)

    def lock_expires(self):
        name = b"expires"
        holder = self.lock(name, self.lease(2)).result()
        waiter = self.lock(name, self.lease())
        self.ok(waiter.result().key != holder.key, "a lease that runs out gives the lock on")
        self.equal(self.keys(name), [waiter.result().key], "and takes its key with it")

    def lock_compacted(self):
        name = b"compacted"
        holder = self.lock(name, self.lease()).result()
        waiter = self.lock(name, self.lease())
        self.waiting(name, 2)
        for _ in range(3):
            revision = self.client.put(b"elsewhere", b"x").header.revision
            self.client.compact(revision, physical=True)
        self.unlock(holder.key)
        self.equal(result(waiter).key, self.keys(name)[0], "a compaction disturbs no waiting call")

    def client_killed(self):
        """A client that is gone without a word, in the middle of waiting."""
        name = b"killed"
        holder = self.lock(name, self.lease()).result()
        script = ("from etcdclient import Client, api\n"
                  "client = Client(%r)\n"
                  "client.call('Lock/Lock', api.LockRequest(name=%r), timeout=60)\n"
                  % (self.server.address, name))
        environment = dict(os.environ, PYTHONPATH=os.path.join(HERE, "..", "lib"),
                           PYTHONDONTWRITEBYTECODE="1")
        process = subprocess.Popen([sys.executable, "-c", script], env=environment)
        self.waiting(name, 2)
        process.send_signal(signal.SIGKILL)
        process.wait()
        self.ok(until(lambda: self.keys(name) == [holder.key], "the key of the killed one"),
                "kill -9 of a waiting client: its key goes", self.keys(name))
        self.unlock(holder.key)

    def many(self, number):
        """So many calls wait at once, on few connections, and are served in order."""
        name = b"many"
        clients = [Client(self.server.address) for _ in range(4)]
        holder = self.lock(name, self.lease(3600)).result()
        served = queue.Queue()
        calls = []
        for i in range(number):
            call = self.lock(name, self.lease(3600), clients[i % len(clients)])
            calls.append(call)
            call.add_done_callback(lambda done, i=i: served.put((i, done)))
            if i % 50 == 49 or i == number - 1:
                self.waiting(name, i + 2)
        order = {key: place for place, key in enumerate(self.keys(name))}
        self.unlock(holder.key)
        places = []
        for _ in range(number):
            try:
                _, done = served.get(timeout=SECONDS)
            except queue.Empty:
                break
            key = result(done).key
            places.append(order[key])
            if self.count(name) != number + 1 - len(places):
                break
            self.unlock(key)
        self.equal(places, list(range(1, number + 1)),
                   "%d waiting calls get the lock one after the other, in order" % number)
        for client in clients:
            client.close()

    def all_cancelled(self, number):
        """Clients that all go at once.  (etcd keeps a key now and then, and its watches falter.)"""
        name = b"cancelled"
        client = Client(self.server.address)
        leases = [self.lease() for _ in range(number)]
        calls = [self.lock(name, lease, client) for lease in leases]
        self.waiting(name, number)
        holder = self.keys(name)[0]
        client.close()
        self.ok(until(lambda: self.keys(name) == [holder], "the keys of all but the holder"),
                "a connection with %d waiting calls ends: their keys go" % (number - 1))
        self.ok(sum(isinstance(result(call), tuple) for call in calls) == number - 1,
                "and they all fail")
        self.unlock(holder)

    # ---- elections ---------------------------------------------------------------------------

    def election(self):
        name = b"boss"
        request = api.LeaderRequest(name=name)
        self.equal(self.failure("Election/Leader", request),
                   ("UNKNOWN", "election: no leader"), "nobody leads at first")
        leases = [self.lease(), self.lease()]
        first = self.campaign(name, leases[0], b"one").result()
        self.equal((first.leader.name, first.leader.key, first.leader.rev, first.leader.lease,
                    first.header.revision),
                   (name, name + b"/%x" % leases[0], first.header.revision, leases[0],
                    first.leader.rev), "the first candidate is elected")
        second = self.campaign(name, leases[1], b"two")
        self.waiting(name, 2)
        self.equal(self.client.call("Election/Leader", request).kv.value, b"one",
                   "the leader is the one with the oldest key")
        self.ok(not second.done(), "the second candidate waits")
        self.client.call("Election/Proclaim", api.ProclaimRequest(leader=first.leader,
                                                                  value=b"one more"))
        leader = self.client.call("Election/Leader", request)
        self.equal((leader.kv.value, leader.kv.create_revision, leader.header.revision),
                   (b"one more", first.leader.rev, leader.kv.mod_revision),
                   "what the leader proclaims is told")
        again = self.campaign(name, leases[0], b"changed").result()
        self.equal((again.leader.rev, self.client.call("Election/Leader", request).kv.value),
                   (first.leader.rev, b"changed"), "a leader that campaigns again proclaims")
        stale = api.LeaderKey()
        stale.CopyFrom(first.leader)
        stale.rev += 1
        self.equal(self.failure("Election/Proclaim", api.ProclaimRequest(leader=stale)),
                   ("UNKNOWN", "election: not leader"), "a leader of another time is none")
        self.resign(stale)
        self.ok(not second.done(), "and nobody resigns for another one")
        self.resign(first.leader)
        self.equal(second.result().leader.key, name + b"/%x" % leases[1],
                   "the leader resigns: the next one is elected")
        self.equal(self.failure("Election/Proclaim", api.ProclaimRequest(leader=first.leader)),
                   ("UNKNOWN", "election: not leader"), "who resigned does not lead")
        self.resign(first.leader)
        self.resign(second.result().leader)
        self.equal(self.failure("Election/Leader", request),
                   ("UNKNOWN", "election: no leader"), "nobody leads at last")
        missing = ("UNKNOWN", '"leader" field must be provided')
        self.equal([self.failure("Election/Proclaim", api.ProclaimRequest()),
                    self.failure("Election/Resign", api.ResignRequest())], [missing, missing],
                   "a leader's key must be given")

    def proclaim_without_lease(self):
        leader = self.campaign(b"fresh", self.lease(), b"v").result().leader
        leader.lease = 0
        self.client.call("Election/Proclaim", api.ProclaimRequest(leader=leader, value=b"w"))
        kv = self.client.range(leader.key).kvs[0]
        self.equal((kv.value, self.client.time_to_live(kv.lease).grantedTTL), (b"w", 60),
                   "a proclamation without a lease gets one of 60 s")
        self.resign(leader)

    def election_cancelled(self):
        name = b"gives-up"
        leader = self.campaign(name, self.lease()).result().leader
        candidate = self.campaign(name, self.lease())
        self.waiting(name, 2)
        candidate.cancel()
        self.ok(until(lambda: self.keys(name) == [leader.key], "the candidate's key"),
                "a candidate that is cancelled takes its key down")
        self.resign(leader)

    def observe(self):
        name = b"seen"
        stream = self.client.call("Election/Observe", api.LeaderRequest(name=name), timeout=LONG)
        seen = queue.Queue()

        def read():
            try:
                for response in stream:
                    seen.put(response)
            except grpc.RpcError as error:
                seen.put(error)

        threading.Thread(target=read, daemon=True).start()
        leases = [self.lease(), self.lease()]
        first = self.campaign(name, leases[0], b"one").result().leader
        response = seen.get(timeout=SECONDS)
        self.equal((response.kv.key, response.kv.value, response.kv.lease,
                    response.header.revision), (first.key, b"one", leases[0], first.rev),
                   "an observer is told of the first leader")
        for value in (b"two", b"three"):
            self.client.call("Election/Proclaim", api.ProclaimRequest(leader=first, value=value))
        told = [seen.get(timeout=SECONDS) for _ in range(2)]
        self.equal([t.kv.value for t in told], [b"two", b"three"], "of all it proclaims")
        self.ok(all(t.header.revision >= t.kv.mod_revision for t in told)
                and told[0].kv.create_revision == first.rev, "with revisions", told)
        second = self.campaign(name, leases[1], b"next")
        self.waiting(name, 2)
        self.resign(first)
        response = seen.get(timeout=SECONDS)
        self.equal((response.kv.value, response.kv.key), (b"next", second.result().leader.key),
                   "and of the next leader")
        self.resign(second.result().leader)
        self.client.put(name + b"/by-hand", b"any")
        self.equal(seen.get(timeout=SECONDS).kv.value, b"any",
                   "any key below the name that is put leads")
        late = self.client.call("Election/Observe", api.LeaderRequest(name=name), timeout=LONG)
        self.equal(next(late).kv.value, b"any", "a late observer begins with the leader")
        late.cancel()
        stream.cancel()
        self.equal(seen.get(timeout=SECONDS).code().name, "CANCELLED", "until it has enough")
        self.client.delete(name + b"/by-hand")

    # ---- the server's end --------------------------------------------------------------------

    def stop(self):
        """Waiting calls and observers are told, and their keys do not stay."""
        name = b"stop"
        holder = self.lock(name, self.lease()).result()
        waiter = self.lock(name, self.lease())
        candidate_of = self.campaign(b"stop-e", self.lease()).result()
        candidate = self.campaign(b"stop-e", self.lease())
        observer = self.client.call("Election/Observe", api.LeaderRequest(name=b"stop-e"),
                                    timeout=LONG)
        next(observer)
        self.waiting(name, 2)
        self.waiting(b"stop-e", 2)
        status = self.server.stop()
        codes = [result(call)[0] for call in (waiter, candidate)]
        try:
            next(observer)
            codes.append("told more")
        except grpc.RpcError as error:
            codes.append(error.code().name)
        self.equal(codes, ["UNAVAILABLE"] * 3, "a stop ends waiting calls: UNAVAILABLE")
        if self.is_t4:
            self.equal([status, result(waiter)[1], result(candidate)[1]],
                       [0] + ["etcdserver: server stopped"] * 2, "in words, and it ends well")
        self.server.start()
        self.client = Client(self.server.address)
        self.equal(self.keys(name), [holder.key], "after a start only the holder's key is there")
        self.equal(self.keys(b"stop-e"), [candidate_of.leader.key], "and the leader's")

    def t4_only(self):
        """Where t4 does better than etcd, see guide/differences.md."""
        self.lock_compacted()
        self.all_cancelled(100)
        name = b"lost"
        leader = self.campaign(name, self.lease()).result().leader
        lease = self.lease()
        candidate = self.campaign(name, lease)
        self.waiting(name, 2)
        self.client.lease_revoke(lease)
        self.resign(leader)
        self.equal(result(candidate), ("UNKNOWN", "election: session is expired"),
                   "a candidate whose lease ended is not elected")
        self.equal(self.failure("Lock/Lock", api.LockRequest(name=b"k" * 20000, lease=1)),
                   ("UNKNOWN", "t4: key is too long: at most 16384 bytes (16 KiB) are stored"),
                   "a name that makes too long a key is refused")

    def run(self, number):
        self.lock_alone()
        self.lock_errors()
        self.lock_order()
        self.lock_expires()
        self.client_killed()
        self.many(number)
        self.election()
        self.proclaim_without_lease()
        self.election_cancelled()
        self.observe()
        if self.is_t4:
            self.t4_only()
            self.stop()     # true of etcd, too, which takes 7 s for it
        self.client.close()


def main():
    reference, subject = t4test.reference(), t4test.subject()
    if reference is not None and not reference.is_34():
        with reference.start():
            Locks(reference).run(100)
    with subject.start():
        started = time.monotonic()
        Locks(subject).run(1000)
        TAP.diag("%.1f s" % (time.monotonic() - started))
    TAP.done()


main()

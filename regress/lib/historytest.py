"""historytest.py - one history for several servers: seeded requests of every kind that changes keys.

Responsible for giving the same requests to each server it is told of, and for asking them what
they hold.  Entry points: History, hash_kv(), state_of().

SPDX-License-Identifier: Apache-2.0
"""

import os
import random
import subprocess

import etcdclient
import grpc
import t4test

api = etcdclient.api
ALL = {"key": b"\0", "range_end": b"\0"}


def put(key, value=b"", lease=0):
    return api.RequestOp(request_put=api.PutRequest(key=key, value=value, lease=lease))


def delete(key, range_end=b""):
    return api.RequestOp(request_delete_range=api.DeleteRangeRequest(
        key=key, range_end=range_end))


# An etcd that elects itself at once.
QUICK = ["--heartbeat-interval=10", "--election-timeout=100"]


def tools_are_there():
    return t4test.Etcd.find() is not None and not t4test.Etcd().is_34() and \
        os.path.exists(os.path.join(t4test.ETCD36_DIR, "etcdutl"))


def tool(name, *arguments):
    """etcdctl or etcdutl of the real etcd, run to its end."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("ETCD")}
    return subprocess.run([os.path.join(t4test.ETCD36_DIR, name)] + list(arguments),
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          env=environment)


def save(address, path):
    """The stream of a snapshot into a file."""
    client = etcdclient.Client(address)
    with open(path, "wb") as out:
        for part in client.call("Maintenance/Snapshot", api.SnapshotRequest()):
            out.write(part.blob)
    client.close()
    return path


class History:
    """Each step is made once, by chance, and given to every client; answers must agree."""

    def __init__(self, clients, seed, keys=40, value=200):
        self.clients = clients
        self.chance = random.Random(seed)
        self.keys = keys
        self.value = value
        self.leases = []
        self.next_lease = 1000
        self.revision = 1
        self.compacted = -1

    def everywhere(self, call):
        answers = [call(c) for c in self.clients]
        revisions = {a.header.revision for a in answers}
        if len(revisions) != 1:
            raise AssertionError("revisions differ: %s" % revisions)
        self.revision = revisions.pop()
        return answers[0]

    def key(self):
        number = self.chance.randrange(self.keys)
        return [b"k/%02d" % number, b"k/\0\xff%d" % number, b"m/" + b"x" * number][number % 3]

    def bytes(self):
        return self.chance.randbytes(self.chance.randrange(self.value))

    def grant(self):
        lease = self.next_lease = self.next_lease + self.chance.randrange(1, 1 << 40)
        ttl = self.chance.randrange(600, 100000)
        self.everywhere(lambda c: c.lease_grant(ttl, lease))
        self.leases.append(lease)

    def transaction(self):
        number = self.chance.randrange(2, 10)
        ops, seen = [], set()
        for _ in range(number):
            key, value = self.key(), self.bytes()
            if key in seen:
                continue
            seen.add(key)
            lease = self.chance.choice(self.leases) if self.leases and \
                self.chance.randrange(4) == 0 else 0
            ops.append(delete(key) if self.chance.randrange(4) == 0 else put(key, value, lease))
        self.everywhere(lambda c: c.txn(success=ops))

    def step(self):
        what = self.chance.randrange(20)
        key, value = self.key(), self.bytes()
        if what == 0:
            self.grant()
        elif what == 1 and self.leases:
            lease = self.leases.pop(self.chance.randrange(len(self.leases)))
            self.everywhere(lambda c: c.lease_revoke(lease))
        elif what == 2:
            end = key + bytes([self.chance.randrange(256)])
            self.everywhere(lambda c: c.delete(key, end))
        elif what <= 5:
            self.everywhere(lambda c: c.delete(key))
        elif what <= 9:
            self.transaction()
        elif what <= 11 and self.leases:
            lease = self.chance.choice(self.leases)
            self.everywhere(lambda c: c.put(key, value, lease=lease))
        else:
            self.everywhere(lambda c: c.put(key, value))

    def steps(self, number):
        for _ in range(number):
            self.step()

    def compact(self, revision):
        self.everywhere(lambda c: c.compact(revision, physical=True))
        self.compacted = revision

    def delete_all(self):
        self.everywhere(lambda c: c.delete(**ALL))


def hash_kv(client, revision):
    """(hash, hashed revision, compacted revision, current revision), or the error's text."""
    try:
        a = client.call("Maintenance/HashKV", api.HashKVRequest(revision=revision))
    except grpc.RpcError as e:
        return etcdclient.status_of(e)
    return a.hash, a.hash_revision, a.compact_revision, a.header.revision


def pairs_of(answer):
    return [(kv.key, kv.value, kv.create_revision, kv.mod_revision, kv.version, kv.lease)
            for kv in answer.kvs]


def state_of(client, compacted, revisions):
    """Everything a client can see: keys at the revisions, leases with their keys, HashKV."""
    state = {}
    for revision in revisions:
        state["keys at %d" % revision] = pairs_of(client.range(revision=revision, **ALL))
    state["keys"] = pairs_of(client.range(**ALL))
    state["revision"] = client.range(b"none").header.revision
    leases = sorted(lease.ID for lease in client.leases().leases)
    state["leases"] = leases
    for lease in leases:
        answer = client.time_to_live(lease, keys=True)
        state["lease %d" % lease] = (answer.grantedTTL, sorted(answer.keys))
    state["hash"] = hash_kv(client, 0)[:3]
    try:
        client.range(b"none", revision=compacted - 1)
        state["below"] = "served"
    except grpc.RpcError as e:
        state["below"] = etcdclient.status_of(e)
    return state

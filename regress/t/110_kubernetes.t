#!/usr/bin/python3
"""110_kubernetes.t - what kube-apiserver relies on, request by request.

The same assertions run against a real etcd first, which shows that the expectation is right, and
then against the server under test.

SPDX-License-Identifier: Apache-2.0
"""

import os
import re
import sys

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "lib"))

import t4test  # noqa: E402

TAP = t4test.Tap()


class Kube:
    """The requests that the apiserver's storage layer sends, against one server."""

    def __init__(self, server):
        import etcdclient
        import grpc
        self.server = server
        self.api = etcdclient.api
        self.tools = etcdclient
        self.rpc_error = grpc.RpcError
        self.client = etcdclient.Client(server.address)

    def ok(self, good, name, *details):
        TAP.ok(good, "%s: %s" % (self.server.name, name), *details)

    def equal(self, got, want, name):
        TAP.equal(got, want, "%s: %s" % (self.server.name, name))

    def error(self, name, want, call, *arguments, **fields):
        """The call fails with exactly that code and text."""
        try:
            answer = call(*arguments, **fields)
            self.ok(False, name, "no error, but:", answer)
        except self.rpc_error as error:
            self.equal(self.tools.status_of(error), want, name)

    # The three transactions of the storage layer.

    def mod_is(self, key, revision):
        return self.api.Compare(key=key, target=2, result=0, mod_revision=revision)

    def op_put(self, key, value, lease=0):
        return self.api.RequestOp(request_put=self.api.PutRequest(
            key=key, value=value, lease=lease))

    def op_get(self, key):
        return self.api.RequestOp(request_range=self.api.RangeRequest(key=key))

    def op_delete(self, key):
        return self.api.RequestOp(request_delete_range=self.api.DeleteRangeRequest(key=key))

    def create(self, key, value, lease=0):
        return self.client.txn([self.mod_is(key, 0)], [self.op_put(key, value, lease)])

    def update(self, key, value, revision, lease=0):
        return self.client.txn([self.mod_is(key, revision)], [self.op_put(key, value, lease)],
                               [self.op_get(key)])

    def remove(self, key, revision):
        return self.client.txn([self.mod_is(key, revision)], [self.op_delete(key)],
                               [self.op_get(key)])

    # ---- tests -------------------------------------------------------------------------------

    def test_transactions(self):
        key = b"/registry/pods/default/web"
        before = self.client.range(b"/registry/health").header.revision

        made = self.create(key, b"v1")
        self.ok(made.succeeded and made.responses[0].HasField("response_put"),
                "an object that is not there is created", made)
        self.equal(made.header.revision, before + 1, "the create takes one revision")
        again = self.create(key, b"v2")
        self.ok(not again.succeeded and not again.responses,
                "an object that is there is not created again", again)
        self.equal(again.header.revision, made.header.revision,
                   "a failed create takes no revision")

        changed = self.update(key, b"v2", made.header.revision)
        self.ok(changed.succeeded, "an update at the object's revision succeeds", changed)
        stale = self.update(key, b"v3", made.header.revision)
        kvs = stale.responses[0].response_range.kvs if stale.responses else []
        self.ok(not stale.succeeded and len(kvs) == 1 and kvs[0].value == b"v2"
                and kvs[0].mod_revision == changed.header.revision
                and kvs[0].create_revision == made.header.revision and kvs[0].version == 2,
                "an update at a stale revision fails and shows the newest object", stale)
        self.equal(stale.header.revision, changed.header.revision,
                   "a failed update takes no revision")

        kept = self.remove(key, made.header.revision)
        self.ok(not kept.succeeded and kept.responses[0].response_range.kvs[0].value == b"v2",
                "a delete at a stale revision fails and shows the newest object", kept)
        gone = self.remove(key, changed.header.revision)
        self.ok(gone.succeeded and gone.responses[0].response_delete_range.deleted == 1,
                "a delete at the object's revision succeeds", gone)
        missing = self.remove(key, changed.header.revision)
        self.ok(not missing.succeeded and missing.responses[0].HasField("response_range")
                and missing.responses[0].response_range.count == 0,
                "a delete of what is gone fails and shows nothing", missing)
        missing = self.update(key, b"v4", changed.header.revision)
        self.ok(not missing.succeeded and not missing.responses[0].response_range.kvs,
                "an update of what is gone fails and shows nothing", missing)

    def test_paging(self):
        prefix = b"/registry/configmaps/"
        end = self.tools.prefix_end(prefix)
        names = [prefix + b"ns/%04d" % number for number in range(1203)]
        for start in range(0, len(names), 100):
            self.client.txn(success=[self.op_put(name, b"data of " + name)
                                     for name in names[start:start + 100]])
        pinned = 0
        found = []
        pages = []
        key = prefix
        while True:
            page = self.client.range(key, end, limit=500, revision=pinned)
            if not pinned:
                pinned = page.header.revision
                # What happens now must not show in the later pages.
                self.client.delete(names[700])
                self.client.put(prefix + b"ns/0800a", b"too late")
                self.client.put(names[900], b"changed")
            found += [(kv.key, kv.value) for kv in page.kvs]
            pages.append((len(page.kvs), page.more, page.count))
            if not page.more:
                break
            key = page.kvs[-1].key + b"\0"
        self.equal(pages, [(500, True, 1203), (500, True, 703), (203, False, 203)],
                   "pages of 500 have the right length, more and count")
        self.ok(found == [(name, b"data of " + name) for name in names],
                "pages at a pinned revision are one consistent list",
                "%d objects" % len(found))
        self.equal(self.client.range(prefix, end, count_only=True).count, 1203,
                   "count_only counts the objects of now")
        counted = self.client.range(prefix, end, count_only=True, revision=pinned)
        self.ok(counted.count == 1203 and not counted.kvs and not counted.more,
                "count_only gives no objects", counted)

        self.client.compact(self.client.put(b"/registry/x", b"").header.revision)
        self.error("a page of a compacted list gets the error that becomes 410 Gone",
                   ("OUT_OF_RANGE", "etcdserver: mvcc: required revision has been compacted"),
                   self.client.range, key, end, limit=500, revision=pinned)
        self.error("a list from the future gets its own error",
                   ("OUT_OF_RANGE", "etcdserver: mvcc: required revision is a future revision"),
                   self.client.range, key, end, limit=500, revision=1 << 40)

    def test_watch(self):
        prefix = b"/registry/secrets/"
        end = self.tools.prefix_end(prefix)
        old = self.create(prefix + b"a", b"1").header.revision
        listed = self.client.range(prefix, end).header.revision
        second = self.update(prefix + b"a", b"2", old).header.revision
        third = self.create(prefix + b"b", b"1").header.revision

        stream = self.client.watch_stream(metadata=(("hasleader", "true"),))
        created = stream.created(prefix, end, start_revision=listed + 1, prev_kv=True,
                                 progress_notify=True)
        self.ok(created.created and not created.canceled and created.watch_id == 0,
                "a watch with hasleader metadata is created", created)
        fourth = self.remove(prefix + b"a", second).header.revision
        self.client.put(b"/registry/other", b"not watched")
        got = [(event.type, event.kv.key, event.kv.value, event.kv.mod_revision,
                event.kv.create_revision == event.kv.mod_revision, event.prev_kv.value,
                event.prev_kv.mod_revision) for _, event in stream.events(3)]
        self.equal(got, [
            (0, prefix + b"a", b"2", second, False, b"1", old),
            (0, prefix + b"b", b"1", third, True, b"", 0),
            (1, prefix + b"a", b"", fourth, False, b"2", second)],
            "a watch from the list's revision on gives update, create and delete, each with "
            "the object before it")

        revision = self.client.put(b"/registry/other", b"moves the revision on").header.revision
        stream.progress()
        answer = stream.next()
        if not (isinstance(self.server, t4test.Etcd) and self.server.is_34()):
            self.ok(answer is not None and answer.watch_id == -1 and not answer.events
                    and not answer.created and not answer.canceled
                    and answer.compact_revision == 0,
                    "a progress request is answered for the whole stream", answer)
        self.equal(answer.header.revision, revision,
                   "progress is reported up to writes that the watch does not see")
        stream.cancel_watch(0)
        answer = stream.next()
        self.ok(answer.canceled and answer.watch_id == 0 and answer.compact_revision == 0,
                "a watch is cancelled on request", answer)

        self.client.compact(revision)
        self.client.put(b"/registry/other", b"")
        created = stream.created(prefix, end, start_revision=listed + 1)
        answer = stream.next()
        self.ok(created.created and not created.canceled and answer.canceled
                and answer.compact_revision == revision and not answer.events,
                "a watch from a compacted revision is cancelled and told the compacted one",
                created, answer)
        stream.cancel()

    def test_compaction_loop(self):
        """Several apiservers: who moves compact_rev_key on compacts, the others learn."""
        key = b"compact_rev_key"

        def turn(time, revision):
            version = self.api.Compare(key=key, target=0, result=0, version=time)
            answer = self.client.txn([version], [self.op_put(key, b"%d" % revision)],
                                     [self.op_get(key)])
            if answer.succeeded:
                return True, time + 1, answer.header.revision
            kv = answer.responses[0].response_range.kvs[0]
            return False, kv.version, int(kv.value)

        won, time, revision = turn(0, 0)
        self.ok(won, "the first turn of the compaction loop finds no key and wins")
        other = turn(0, 0)
        self.equal(other, (False, time, 0), "the second apiserver loses and learns the turn")
        for number in range(5):
            self.client.put(b"/registry/busy", b"%d" % number)
        won, time, now = turn(time, revision)
        self.ok(won, "the next turn wins")
        self.client.compact(revision)
        self.equal(turn(time - 1, 0), (False, time, revision),
                   "who is late learns the revision that was compacted")
        self.error("compacting the same revision again is refused",
                   ("OUT_OF_RANGE", "etcdserver: mvcc: required revision has been compacted"),
                   self.client.compact, revision)
        self.equal(self.client.range(b"/registry/busy", revision=revision).count, 0,
                   "the compacted revision itself can still be read")
        self.ok(now > revision, "the revision has moved on")

    def test_version_gate(self):
        status = self.client.status()
        match = re.match(r"^(\d+)\.(\d+)\.(\d+)(-[0-9A-Za-z.-]+)?(\+[0-9A-Za-z.-]+)?$",
                         status.version)
        self.ok(match, "Status.version is a semantic version", status)
        version = tuple(int(part) for part in match.groups()[:3]) if match else ()
        if not (isinstance(self.server, t4test.Etcd) and self.server.is_34()):
            self.ok(version >= (3, 5, 13), "Status.version passes the gate for progress requests",
                    status.version)
        self.ok(status.dbSize > 0 and status.leader == status.header.member_id
                and not status.isLearner and not status.errors,
                "Status tells a size, a leader and no errors", status)
        members = self.client.member_list()
        self.ok(len(members.members) == 1 and members.members[0].clientURLs
                and members.members[0].ID == members.header.member_id,
                "MemberList tells a member with client URLs", members)

    def test_events(self):
        """Events share a lease; one that is too large is refused and harms nothing."""
        granted = self.client.lease_grant(3600)
        self.ok(granted.ID > 0 and granted.TTL == 3600, "a lease for events is granted", granted)
        names = [b"/registry/events/%d" % number for number in range(10)]
        created = [self.create(name, b"event", granted.ID).succeeded for name in names]
        self.ok(all(created), "events are created with the shared lease")
        answer = self.client.time_to_live(granted.ID, keys=True)
        self.ok(sorted(answer.keys) == names and answer.grantedTTL == 3600
                and 3590 <= answer.TTL <= 3600, "the lease knows its events", answer)
        before = self.client.range(b"x").header.revision
        self.error("an object over 1.5 MiB is refused",
                   ("INVALID_ARGUMENT", "etcdserver: request is too large"),
                   self.create, b"/registry/events/large", b"e" * (1572864 + 1), granted.ID)
        try:
            self.create(b"/registry/events/huge", b"e" * (3 << 20), granted.ID)
            self.ok(False, "an object over 2 MiB is refused")
        except self.rpc_error as error:
            self.ok(error.code().name == "RESOURCE_EXHAUSTED", "an object over 2 MiB is refused",
                    error)
        self.ok(self.create(b"/registry/events/big", b"e" * 1500000, granted.ID).succeeded,
                "an object of 1.5 MB is taken")
        self.equal(self.client.range(b"x").header.revision, before + 1,
                   "what was refused left no trace")
        self.error("a lease that is not there is refused",
                   ("NOT_FOUND", "etcdserver: requested lease not found"),
                   self.create, b"/registry/events/none", b"", 424242)
        revoked = self.client.lease_revoke(granted.ID)
        self.equal(revoked.header.revision, before + 2, "a revoke deletes in one revision")
        self.equal(self.client.prefix(b"/registry/events/").count, 0,
                   "with the lease its events are gone")

    def test_metadata(self):
        metadata = (("hasleader", "true"), ("client-api-version", "3.6.4"))
        answer = self.client.call("KV/Range", self.api.RangeRequest(key=b"/registry/health"),
                                  metadata=metadata)
        self.ok(answer.header.revision > 0, "a read with client metadata is answered", answer)
        answer = self.client.txn([self.mod_is(b"m", 0)], [self.op_put(b"m", b"1")],
                                 metadata=metadata)
        self.ok(answer.succeeded, "a transaction with client metadata is answered", answer)


def main():
    servers = [t4test.reference(), t4test.subject()]
    if servers[1] is None:
        TAP.skip_all("no t4 in " + t4test.BUILD_DIR)
    if servers[0] is None:
        TAP.skip_all("no etcd was built to check the expectations with")
    for server in servers:
        with server.start():
            kube = Kube(server)
            for name in sorted(dir(kube)):
                if name.startswith("test_"):
                    try:
                        getattr(kube, name)()
                    except (kube.rpc_error, AttributeError, IndexError) as error:
                        kube.ok(False, name + " ran to its end", repr(error))
            kube.client.close()
    TAP.done()


main()

#!/usr/bin/python3
"""500_alarms.t - alarms and the quota.

First the same requests to the server under test and to a real etcd, with every alarm there is up
or down: each answer must be the same.  Then what only t4 has: alarms that survive kill -9 and the
loss of the disk, the quota from the first refusal to the next accepted put, and the alarm of a full
disk, which is another one.

SPDX-License-Identifier: Apache-2.0
"""

import os
import shutil
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "lib"))

import t4test  # noqa: E402
from diskfault import FULL, Disk, error_of, put_until_refused  # noqa: E402
from storetest import DirStore, metric, until  # noqa: E402

TAP = t4test.Tap()
GET, ACTIVATE, DEACTIVATE = 0, 1, 2
NOSPACE, CORRUPT, STRANGE = 1, 2, 7


def alarm(client, action=GET, member=0, kind=0):
    from etcdclient import api
    return client.call("Maintenance/Alarm", api.AlarmRequest(
        action=action, memberID=member, alarm=kind))


class Side:
    """One server, its own id written MEMBER."""

    def __init__(self, server):
        self.server = server.start()
        self.connect()

    def connect(self):
        import etcdclient
        self.client = etcdclient.Client(self.server.address)
        self.member = self.client.status().header.member_id

    def restart(self):
        self.client.close()
        self.server.restart()
        self.connect()

    def answer(self, call):
        """What the call says, as text, or its error."""
        import etcdclient
        import grpc
        try:
            result = call(self)
        except grpc.RpcError as error:
            return "%s: %s" % etcdclient.status_of(error)
        if isinstance(result, list):
            return sorted(text.replace(str(self.member), "MEMBER") for text in result)
        header = getattr(result, "header", None)
        if header is not None:
            header.cluster_id = header.member_id = header.raft_term = 0
        alarms = sorted(str(part).replace(str(self.member), "MEMBER").replace("\n", " ")
                        for part in getattr(result, "alarms", []))
        if alarms:
            del result.alarms[:]
        if hasattr(result, "TTL"):
            result.TTL = (result.TTL + 50) // 100  # a granted one counts down
        return str(result) + " ".join(alarms)


def probes():
    """(name, call): everything that an alarm may or may not stand in the way of."""
    from etcdclient import api
    operation, txn = api.RequestOp, api.TxnRequest
    put = operation(request_put=api.PutRequest(key=b"k", value=b"v"))
    get = operation(request_range=api.RangeRequest(key=b"k"))
    delete = operation(request_delete_range=api.DeleteRangeRequest(key=b"zz"))
    future = operation(request_range=api.RangeRequest(key=b"k", revision=99999))
    never = [api.Compare(key=b"k", target=0, result=0, version=12345)]

    def keep_alive(side, lease):
        stream = side.client.keep_alive()
        try:
            return stream.ask(lease)
        finally:
            stream.cancel()

    def watch(side):
        stream = side.client.watch_stream()
        try:
            stream.create(b"k")
            return stream.next(10)
        finally:
            stream.cancel()

    return [
        ("Status' errors", lambda s: list(s.client.status().errors)),
        ("get", lambda s: s.client.range(b"k")),
        ("serializable get", lambda s: s.client.range(b"k", serializable=True)),
        ("put", lambda s: s.client.put(b"k", b"v")),
        ("put of an empty key", lambda s: s.client.put(b"", b"v")),
        ("put with a missing lease", lambda s: s.client.put(b"k", b"v", lease=77)),
        ("put that is too large", lambda s: s.client.put(b"k", b"v" * 1600000)),
        ("put that keeps a missing value", lambda s: s.client.put(b"no", ignore_value=True)),
        ("delete", lambda s: s.client.delete(b"missing")),
        ("txn with a put", lambda s: s.client.txn(success=[put])),
        ("txn with a put not taken", lambda s: s.client.txn(never, [put], [get])),
        ("txn that reads", lambda s: s.client.txn(success=[get])),
        ("txn that deletes", lambda s: s.client.txn(success=[delete])),
        ("txn with a nested put", lambda s: s.client.txn(
            success=[operation(request_txn=txn(success=[put]))])),
        ("txn with a nested put not taken", lambda s: s.client.txn(
            success=[get, operation(request_txn=txn(success=[get], failure=[put]))])),
        ("txn that puts twice", lambda s: s.client.txn(success=[put, put])),
        ("txn that puts and reads the future", lambda s: s.client.txn(success=[put, future])),
        ("txn that reads the future", lambda s: s.client.txn(success=[future])),
        ("grant", lambda s: s.client.lease_grant(100, 5)),
        ("grant of one that exists", lambda s: s.client.lease_grant(100, 1001)),
        ("grant of too long a lease", lambda s: s.client.lease_grant(9000000001, 6)),
        ("time to live", lambda s: s.client.time_to_live(1001)),
        ("leases", lambda s: [str(lease.ID) for lease in s.client.leases().leases]),
        ("keepalive", lambda s: keep_alive(s, 1001)),
        ("keepalive of a missing lease", lambda s: keep_alive(s, 9)),
        ("revoke of a missing lease", lambda s: s.client.lease_revoke(7)),
        ("revoke", lambda s: s.client.lease_revoke(1002)),
        ("compaction", lambda s: s.client.compact(s.client.status().header.revision)),
        ("compaction once more", lambda s: s.client.compact(1)),
        ("watch", watch),
        ("member list", lambda s: [str(len(s.client.member_list().members))]),
        ("defragmentation", lambda s: s.client.call("Maintenance/Defragment",
                                                    api.DefragmentRequest())),
        ("alarms", lambda s: alarm(s.client)),
    ]


def beside_etcd():
    sides = [Side(t4test.reference()), Side(t4test.subject())]

    def same(name, call):
        answers = [side.answer(call) for side in sides]
        TAP.ok(answers[0] == answers[1], name,
               *("%s: %s" % (side.server.name, text) for side, text in zip(sides, answers)))

    def act(action, member, kind):
        """An action on an alarm, then the list and Status; member None: the server's own."""
        name = "%s of %s of member %s" % (("GET", "ACTIVATE", "DEACTIVATE")[action],
                                          {0: "NONE", 1: "NOSPACE", 2: "CORRUPT"}.get(kind, kind),
                                          "itself" if member is None else member)
        same(name, lambda s: alarm(s.client, action, s.member if member is None else member, kind))
        same("- and then the list", lambda s: alarm(s.client))
        same("- and Status", lambda s: list(s.client.status().errors))

    def all_probes(name):
        for what, call in probes():
            same("%s: %s" % (name, what), call)

    for side in sides:
        side.client.put(b"k", b"v0")
        for lease in (1001, 1002):
            side.client.lease_grant(1000, lease)
        side.client.put(b"leased", b"x", lease=1002)
    for member in (0, None):
        for kind in (0, NOSPACE, CORRUPT, STRANGE):
            act(GET, member, kind)
            act(DEACTIVATE, member, kind)
        act(ACTIVATE, member, 0)
    act(ACTIVATE, 0, STRANGE)
    act(ACTIVATE, 0, -3)
    same("an alarm of no meaning forbids nothing", lambda s: s.client.put(b"k", b"v"))
    act(GET, 0, STRANGE)
    act(DEACTIVATE, 0, -3)
    act(DEACTIVATE, 0, STRANGE)
    act(ACTIVATE, 0, NOSPACE)
    for member, kind in ((0, 0), (None, 0), (0, NOSPACE), (0, CORRUPT), (42, NOSPACE)):
        act(GET, member, kind)
    same("another member's alarm counts", lambda s: s.client.put(b"k", b"v"))
    act(ACTIVATE, 0, NOSPACE)
    act(ACTIVATE, 42, NOSPACE)
    act(DEACTIVATE, None, NOSPACE)
    act(DEACTIVATE, 42, NOSPACE)
    act(ACTIVATE, None, NOSPACE)
    act(DEACTIVATE, 0, NOSPACE)
    all_probes("NOSPACE")
    for side in sides:
        side.restart()
    all_probes("NOSPACE after a restart")
    act(DEACTIVATE, None, NOSPACE)
    act(DEACTIVATE, None, NOSPACE)
    same("and it is over", lambda s: s.client.put(b"k", b"v"))
    for side in sides:
        side.client.lease_grant(1000, 1002)
    act(ACTIVATE, None, CORRUPT)
    all_probes("CORRUPT")
    act(ACTIVATE, None, NOSPACE)
    all_probes("both")
    for side in sides:
        side.restart()
    all_probes("both after a restart")
    act(DEACTIVATE, None, CORRUPT)
    same("the other one is still up", lambda s: s.client.put(b"k", b"v"))
    act(DEACTIVATE, None, NOSPACE)
    all_probes("none")
    for side in sides:
        side.client.close()
        side.server.close()


def leases_under_corrupt():
    """Nothing changes under CORRUPT, not even by expiry; afterwards the lease ends."""
    import etcdclient
    with t4test.T4() as server:
        client = etcdclient.Client(server.start().address)
        member = client.status().header.member_id
        client.lease_grant(2, 9)
        client.put(b"leased", b"x", lease=9)
        alarm(client, ACTIVATE, member, CORRUPT)
        until(lambda: client.time_to_live(9).TTL == 0)
        error = error_of(lambda: client.call("Lease/LeaseRevoke",
                                             etcdclient.api.LeaseRevokeRequest(ID=9)))
        TAP.equal(error and error.code().name, "DATA_LOSS", "under CORRUPT no lease is revoked")
        TAP.equal(client.range(b"leased").count, 1, "and none expires")
        TAP.equal(metric(server, "t4_corrupt"), 1.0, "t4_corrupt is 1")
        TAP.equal(probe(server, "/health"), (503, '{"health":"false","reason":"ALARM CORRUPT"}'),
                  "/health says so, in etcd's words")
        status, text = probe(server, "/readyz")
        TAP.ok(status == 503 and "[-]data_corruption failed: alarm activated: CORRUPT" in text,
               "and so does /readyz", status, text)
        alarm(client, DEACTIVATE, member, CORRUPT)
        TAP.ok(until(lambda: client.range(b"leased").count == 0), "afterwards it expires")
        client.close()


def odd_requests():
    import etcdclient
    with t4test.T4() as server:
        client = etcdclient.Client(server.start().address)
        error = error_of(lambda: alarm(client, 9, 0, NOSPACE))
        TAP.equal(error and error.code().name, "INVALID_ARGUMENT",
                  "an unknown action is refused (etcd ends with a panic)")
        for kind in range(10, 42):
            alarm(client, ACTIVATE, 1 << 63, kind)
        error = error_of(lambda: alarm(client, ACTIVATE, 0, NOSPACE))
        TAP.equal(error and (error.code().name, "as many alarms" in error.details()),
                  ("RESOURCE_EXHAUSTED", True), "there are at most 32 alarms")
        TAP.equal(len(alarm(client).alarms), 32, "and 32 are kept")
        alarm(client, DEACTIVATE, 1 << 63, 17)
        TAP.equal(len(alarm(client, ACTIVATE, 0, NOSPACE).alarms), 1, "one down, one up")
        server.restart()
        TAP.equal(len(alarm(client).alarms), 32, "kill -9 loses none")
        client.close()


def lost_disk():
    """Alarms are in the log: they are there when the disk is not, with checkpoints or without."""
    import etcdclient
    with DirStore() as store:
        options = store.options() + ["--checkpoint-interval=100ms"]
        with t4test.T4(options) as server:
            client = etcdclient.Client(server.start().address)
            member = client.status().header.member_id
            client.put(b"k", b"v")
            alarm(client, ACTIVATE, member, NOSPACE)
            alarm(client, ACTIVATE, 42, STRANGE)
            error = error_of(lambda: client.put(b"k", b"w"))
            TAP.equal(error and error.details(), FULL, "a put is refused")
            index = metric(server, "t4_log_index")
            until(lambda: metric(server, "t4_checkpoint_index") >= index)
            alarm(client, DEACTIVATE, 42, STRANGE)
            server.kill()
            shutil.rmtree(server.data_dir)
            server.options.append("--take-over-now")
            server.start()
            TAP.equal([(one.memberID, one.alarm) for one in alarm(client).alarms],
                      [(member, NOSPACE)], "the alarms are there without the disk")
            error = error_of(lambda: client.put(b"k", b"w"))
            TAP.equal(error and error.details(), FULL, "and mean what they meant")
            alarm(client, DEACTIVATE, member, NOSPACE)
            TAP.equal(error_of(lambda: client.put(b"k", b"w")), None, "until they are taken down")
            client.close()


def quota():
    """The operator's way: refused, delete, compact, (defragment,) disarm, go on."""
    import etcdclient
    from etcdclient import api
    stored, size = {}, 8 << 20
    with t4test.T4(["--quota-backend-bytes=8MiB", "--segment-max-size-mb=4"]) as server:
        client = etcdclient.Client(server.start().address)
        member = client.status().header.member_id
        TAP.equal(client.status().dbSizeQuota, size, "Status tells the quota")
        TAP.equal(metric(server, "etcd_server_quota_backend_bytes"), float(size),
                  "and so does etcd's metric")
        error = put_until_refused(client, stored)
        TAP.equal(error and (error.code().name, error.details()), ("RESOURCE_EXHAUSTED", FULL),
                  "beyond it puts are refused as in etcd")
        TAP.ok(size // 2 < len(stored) * 50000 <= size, "at the quota (%d puts)" % len(stored))
        TAP.equal(metric(server, "t4_nospace"), 1.0, "the metric is 1")
        TAP.ok("quota is used up" in server.log(), "the log says so, and what to do")
        for name, call in (
                ("a grant", lambda: client.lease_grant(60)),
                ("a put that would make it smaller", lambda: client.put(b"key-0", b""))):
            error = error_of(call)
            TAP.equal(error and error.details(), FULL, name + " is refused, too")
        TAP.equal([(one.memberID, one.alarm) for one in alarm(client).alarms],
                  [(member, NOSPACE)], "the alarm is up")
        server.restart()
        TAP.equal(len(alarm(client).alarms), 1, "also after kill -9")
        alarm(client, DEACTIVATE, member, NOSPACE)
        error = error_of(lambda: client.put(b"new", b"x" * 100000))
        TAP.equal(error and error.details(), FULL, "taken down without room: refused again")
        TAP.equal(len(alarm(client).alarms), 1, "and up again")
        TAP.equal(client.delete(b"key-", b"key-\xff").deleted, len(stored), "deletes go on")
        client.compact(client.status().header.revision)
        client.call("Maintenance/Defragment", api.DefragmentRequest())
        status = client.status()
        TAP.ok(status.dbSize < size // 8, "compacted and defragmented: %d bytes" % status.dbSize)
        error = error_of(lambda: client.put(b"new", b"x"))
        TAP.equal(error and error.details(), FULL, "room alone does not take the alarm down")
        alarm(client, DEACTIVATE, member, NOSPACE)
        for number in range(40):
            client.put(b"new-%d" % number, os.urandom(50000))
        TAP.equal(len(alarm(client).alarms), 0, "taken down it stays down")
        client.close()
    # Without a defragmentation the pages that compaction freed are there for the next.
    with t4test.T4(["--quota-backend-bytes=4MiB", "--segment-max-size-mb=4"]) as server:
        client = etcdclient.Client(server.start().address)
        for _ in range(3):
            stored = {}
            put_until_refused(client, stored)
            TAP.ok(len(stored) > 40, "%d puts fit" % len(stored))
            client.delete(b"key-", b"key-\xff")
            client.compact(client.status().header.revision, True)
            alarm(client, DEACTIVATE, client.status().header.member_id, NOSPACE)
        TAP.ok(client.status().dbSize < 9 << 20, "the file has grown to twice the quota at most",
               client.status())
        client.close()
    with t4test.T4(["--quota-backend-bytes=-1"]) as server:
        client = etcdclient.Client(server.start().address)
        TAP.equal((client.status().dbSizeQuota, metric(server, "etcd_server_quota_backend_bytes")),
                  (-1, -1.0), "a negative quota is none, and shown as in etcd")
        client.close()


def full_disk():
    """That alarm is the disk's: listed, not in the log, and it goes with its cause only."""
    import etcdclient
    stored = {}
    with t4test.T4(["--segment-max-size-mb", "1"]) as server:
        disk = Disk(server)
        client = etcdclient.Client(server.start().address)
        member = client.status().header.member_id
        reserve = os.path.join(server.data_dir, "wal", "reserve")
        until(lambda: os.path.exists(reserve))
        disk.says("free 3000000")
        TAP.ok(put_until_refused(client, stored) is not None, "the disk is full")
        TAP.equal([(one.memberID, one.alarm) for one in alarm(client).alarms],
                  [(member, NOSPACE)], "its alarm is listed")
        TAP.equal(len(alarm(client, DEACTIVATE, member, NOSPACE).alarms), 0,
                  "it cannot be taken down")
        TAP.equal(len(alarm(client).alarms), 1, "and is up as before")
        alarm(client, ACTIVATE, member, NOSPACE)
        TAP.equal(len(alarm(client).alarms), 1, "the log's alarm beside it is the same in the list")
        disk.good()
        TAP.ok(until(lambda: '"disk_full":false' in page(server)), "there is room again")
        error = error_of(lambda: client.put(b"k", b"v"))
        TAP.equal(error and error.details(), FULL, "the log's alarm is up still")
        alarm(client, DEACTIVATE, member, NOSPACE)
        TAP.equal(error_of(lambda: client.put(b"k", b"v")), None, "until it is taken down")
        client.close()


def probe(server, path):
    import urllib.error
    import urllib.request
    try:
        with urllib.request.urlopen("http://" + server.metrics_address + path) as answer:
            return answer.status, answer.read().decode().strip()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode().strip()


def page(server):
    import urllib.request
    with urllib.request.urlopen("http://%s/status" % server.metrics_address) as answer:
        return answer.read().decode().replace('": ', '":')


def main():
    if t4test.subject() is None:
        TAP.skip_all("no t4 in " + t4test.BUILD_DIR)
    if t4test.reference() is None:
        TAP.skip_all("no etcd was built to compare with")
    beside_etcd()
    leases_under_corrupt()
    odd_requests()
    lost_disk()
    quota()
    full_disk()
    TAP.done()


main()

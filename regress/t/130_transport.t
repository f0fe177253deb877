#!/usr/bin/python3
"""130_transport.t - what the gRPC layer itself does: limits, refusals, streams, the stop.

Where etcd has an opinion the same assertions run against a real etcd first, which shows that
the expectation is right; then against the server under test.  What etcd does not have (bounds
on nesting and on items, t4-durability) is asked of the server under test alone.

SPDX-License-Identifier: Apache-2.0
"""

import os
import socket
import sys
import threading

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "lib"))

import t4test  # noqa: E402
from http2 import varint  # noqa: E402

TAP = t4test.Tap()
MIB = 1024 * 1024


def field(number, content):
    """A length-delimited field."""
    return varint(number << 3 | 2) + varint(len(content)) + content


class Transport:
    """One server, spoken to in bytes where the stubs would be too polite."""

    def __init__(self, server):
        import etcdclient
        import grpc
        self.server = server
        self.grpc = grpc
        self.api = etcdclient.api
        self.tools = etcdclient
        self.client = etcdclient.Client(server.address)

    def close(self):
        self.client.close()

    def ok(self, good, name, *details):
        TAP.ok(good, "%s: %s" % (self.server.name, name), *details)

    def equal(self, got, want, name):
        TAP.equal(got, want, "%s: %s" % (self.server.name, name))

    def raw(self, path, message, **options):
        """Status of a unary call with these bytes: (code, text), or ("OK", answer)."""
        call = self.client.channel.unary_unary(path)
        try:
            return "OK", call(message, timeout=60, **options)
        except self.grpc.RpcError as error:
            return self.tools.status_of(error)

    def refused(self, want, path, message, name, **options):
        self.equal(self.raw(path, message, **options), want, name)

    # ---- unary calls ------------------------------------------------------------------------

    def unknown_paths(self):
        for path, text in (
                ("/etcdserverpb.KV/Nope", "unknown method Nope for service etcdserverpb.KV"),
                ("/etcdserverpb.Watch/Nope",
                 "unknown method Nope for service etcdserverpb.Watch"),
                ("/foo.Bar/Baz", "unknown service foo.Bar"),
                ("/etcdserverpb.KVs/Range", "unknown service etcdserverpb.KVs"),
                ("/a/b/c", "unknown service a/b"),
                ("/nope", 'malformed method name: "/nope"')):
            self.refused(("UNIMPLEMENTED", text), path, b"", "%s is refused in words" % path)

    def malformed(self):
        for name, message in (("cut off", b"\x0a\x05ab"), ("wire type 7", b"\x07"),
                              ("a number for a key", b"\x08\x01")):
            code, text = self.raw("/etcdserverpb.KV/Range", message)
            self.ok(code == "INTERNAL" and
                    str(text).startswith("grpc: error unmarshalling request: "),
                    "a malformed request is named so: " + name, code, text)

    def no_message(self):
        call = self.client.channel.stream_unary("/etcdserverpb.KV/Range")
        try:
            self.equal(call(iter([]), timeout=30), None, "a call without a message is refused")
        except self.grpc.RpcError as error:
            self.equal(error.code().name in ("UNKNOWN", "INTERNAL"), True,
                       "a call without a message is refused")

    def sizes(self):
        put = "/etcdserverpb.KV/Put"
        too_large = ("INVALID_ARGUMENT", "etcdserver: request is too large")
        limit = int(1.5 * MIB)
        code, _ = self.raw(put, field(1, b"size") + field(2, b"v" * (limit - 100)))
        self.equal(code, "OK", "a put just below the request limit is taken")
        for size in (limit + 1, 2 * MIB - 64):
            self.refused(too_large, put, field(1, b"size") + field(2, b"v" * size),
                         "a put with a value of %d bytes is too large" % size)
        self.refused(("INVALID_ARGUMENT", "etcdserver: key is not provided"), put,
                     field(2, b"v" * (limit + 1)), "what is wrong besides is said first")
        for size in (2 * MIB + 64, 3 * MIB):
            message = field(1, b"size") + field(2, b"v" * size)
            self.refused(("RESOURCE_EXHAUSTED",
                          "grpc: received message larger than max (%d vs. %d)" %
                          (len(message), 2 * MIB)),
                         put, message, "a message of %d bytes is not received" % len(message))
        code, _ = self.raw(put, field(1, b"size") + field(2, b"v" * 8 * MIB))
        self.equal(code, "RESOURCE_EXHAUSTED", "a message of 8 MiB is not received")
        code, _ = self.raw("/etcdserverpb.KV/Range",
                           field(1, b"a") + field(2, b"b" * (limit + 1000)))
        self.equal(code, "OK", "the request limit is one of writes")

    def compressed(self):
        call = self.client.channel.unary_unary("/etcdserverpb.KV/Put")
        try:
            call(field(1, b"zip") + field(2, b"v" * 10000), timeout=30,
                 compression=self.grpc.Compression.Gzip)
            answer = self.client.range(b"zip").kvs[0].value
            self.equal(answer, b"v" * 10000, "a compressed request is understood")
        except self.grpc.RpcError as error:
            self.ok(False, "a compressed request is understood", error)

    def metadata(self):
        for key, value in (("hasleader", "true"), ("client-api-version", "3.6.4"),
                           ("client-api-version", ""), ("x-anything", "x" * 9000)):
            code, text = self.raw("/etcdserverpb.KV/Range", field(1, b"k"),
                                  metadata=((key, value),))
            self.equal(code, "OK", "metadata %s of %d bytes is accepted" % (key, len(value)))

    def health(self):
        path = "/grpc.health.v1.Health/Check"
        self.equal(self.raw(path, b""), ("OK", b"\x08\x01"), "the server says it serves")
        self.refused(("NOT_FOUND", "unknown service"), path, field(1, b"nope"),
                     "the health of an unknown service is not found")

    def information(self):
        api, status = self.api, self.client.status()
        header = status.header
        self.ok(header.cluster_id and header.member_id and header.raft_term >= 2,
                "the header has ids and a term", header)
        self.equal(status.leader, header.member_id, "a single member leads")
        self.ok(status.version.startswith("3.6."), "the version is an etcd 3.6", status.version)
        self.equal(status.storageVersion, "3.6.0", "the storage version is there")
        self.ok(status.HasField("downgradeInfo"), "downgradeInfo is there", status)
        self.equal(status.dbSizeQuota, 2147483648, "the quota is there")
        self.ok(status.raftIndex >= status.raftAppliedIndex > 0, "the indexes are there", status)
        members = self.client.member_list()
        self.equal(members.header.revision, 0, "the header of MemberList has no revision")
        self.equal([m.ID for m in members.members], [header.member_id], "one member")
        self.ok(members.members[0].name and members.members[0].clientURLs and
                members.members[0].peerURLs, "with a name and URLs", members)
        alarms = self.client.call("Maintenance/Alarm", api.AlarmRequest())
        self.ok(not alarms.alarms and alarms.header.revision > 0, "no alarm", alarms)

    def many_at_once(self):
        """Answers of long and short reads, and of puts, each to its own question."""
        value = b"x" * 300
        for i in range(30):
            self.client.txn(success=[self.api.RequestOp(request_put=self.api.PutRequest(
                key=b"many/%04d" % (100 * i + j), value=value)) for j in range(100)])
        calls = []
        for i in range(200):
            calls.append((b"many/%04d" % i, self.client.begin(
                "KV/Range", self.api.RangeRequest(key=b"many/%04d" % i))))
            if i % 20 == 0:
                calls.append((None, self.client.begin("KV/Range", self.api.RangeRequest(
                    key=b"many/", range_end=b"many0"))))
            self.client.begin("KV/Put", self.api.PutRequest(key=b"other/%d" % i))
        good = True
        for key, call in calls:
            answer = call.result()
            if key is None:
                good = good and answer.count == 3000 and len(answer.kvs) == 3000 and all(
                    kv.value == value for kv in answer.kvs)
            else:
                good = good and [kv.key for kv in answer.kvs] == [key]
        self.ok(good, "each of many calls at once gets its own answer")

    # ---- streams ----------------------------------------------------------------------------

    def watch_requests(self):
        path = "/etcdserverpb.Watch/Watch"
        response = self.api.WatchResponse.FromString
        create = field(1, field(1, b"w"))
        unknown = field(9, b"")
        packed = field(1, field(1, b"w") + b"\x2a\x01\x00")   # filters [NOPUT]
        unpacked = field(1, field(1, b"w") + b"\x28\x00")
        stream = self.tools.Stream.__new__(self.tools.Stream)
        stream._requests, stream._responses = (self.tools.queue.Queue() for _ in range(2))
        call = self.client.channel.stream_stream(path, response_deserializer=response)
        stream._call = call(iter(stream._requests.get, None))
        stream._reader = threading.Thread(target=stream._read, daemon=True)
        stream._reader.start()
        for message in (unknown, b"", create, packed, unpacked):
            stream.send(message)
        created = [stream.next() for _ in range(3)]
        self.equal([(c.created, c.watch_id) for c in created],
                   [(True, 0), (True, 1), (True, 2)],
                   "requests of an unknown kind are passed over, creates answered in order")
        self.client.put(b"w", b"1")
        self.client.delete(b"w")
        seen = {0: [], 1: [], 2: []}
        while sum(len(events) for events in seen.values()) < 4:
            answer = stream.next()
            if answer is None:
                break
            seen[answer.watch_id] += [event.type for event in answer.events]
        self.equal(seen, {0: [0, 1], 1: [1], 2: [1]}, "filters count, packed or not")
        stream.end()
        self.client.put(b"w", b"2")
        answer = stream.next()
        self.equal(answer and [event.kv.value for event in answer.events], [b"2"],
                   "a half-closed watch stream goes on")
        stream.cancel()

    def flood(self, path, request, answer, count):
        """Sends count requests; reads nothing before most of what fits on the way is sent."""
        under_way = threading.Event()

        def requests():
            for i in range(count):
                if i == 3500:
                    under_way.set()
                yield request(i)

        # With a window that does not grow, what is not read holds up the server.
        channel = self.grpc.insecure_channel(self.server.address,
                                             options=[("grpc.http2.bdp_probe", 0)])
        call = channel.stream_stream(path, lambda message: message.SerializeToString(),
                                     answer.FromString)(requests(), timeout=60)
        under_way.wait(30)
        answers = []
        try:
            while len(answers) < count:
                answers.append(next(call))
        except (self.grpc.RpcError, StopIteration) as error:
            TAP.diag(error)
        call.cancel()
        channel.close()
        return answers

    def late_reader(self):
        """A client that asks much and reads late gets every answer, in order."""
        answers = self.flood("/etcdserverpb.Watch/Watch", lambda i: self.api.WatchRequest(
            create_request=self.api.WatchCreateRequest(key=b"flood/%d" % i)),
            self.api.WatchResponse, 20000)
        self.equal([(a.created, a.watch_id) for a in answers] ==
                   [(True, i) for i in range(20000)], True,
                   "20000 creates whose answers are read late")
        answers = self.flood("/etcdserverpb.Lease/LeaseKeepAlive",
                             lambda i: self.api.LeaseKeepAliveRequest(ID=1000000 + i),
                             self.api.LeaseKeepAliveResponse, 20000)
        self.equal([a.ID for a in answers] == list(range(1000000, 1020000)), True,
                   "20000 keepalives whose answers are read late")

    def keepalive_order(self):
        leases = [self.client.lease_grant(60 + i).ID for i in range(3)]
        stream = self.client.keep_alive()
        sent = [leases[i % 3] if i % 7 else 4242 for i in range(2000)]
        puts = []
        for i, lease in enumerate(sent):
            if i % 10 == 0:  # a keepalive behind a write waits for the log, others do not
                puts.append(self.client.begin("KV/Put", self.api.PutRequest(key=b"order")))
            stream.send(self.api.LeaseKeepAliveRequest(ID=lease))
        stream.end()
        got = []
        try:
            while len(got) <= len(sent):
                got.append(stream.next())
        except self.tools.Closed as closed:
            self.equal(closed.error, None, "a half-closed keepalive stream ends well")
        self.equal([answer.ID for answer in got], sent, "2000 keepalives are answered in order")
        want = [0 if lease == 4242 else 60 + leases.index(lease) for lease in sent]
        self.equal([answer.TTL for answer in got], want, "with the lease's TTL, 0 if it is gone")
        for put in puts:
            put.result()

    def shared(self):
        self.unknown_paths()
        self.malformed()
        self.no_message()
        self.sizes()
        self.compressed()
        self.metadata()
        self.health()
        self.information()
        self.many_at_once()
        self.watch_requests()
        self.late_reader()
        self.keepalive_order()

    # ---- what only t4 has -------------------------------------------------------------------

    def bounds(self):
        txn = "/etcdserverpb.KV/Txn"
        nested = b""
        for _ in range(10000):
            nested = field(2, field(4, nested))
        code, text = self.raw(txn, nested)
        self.ok(code == "INVALID_ARGUMENT" and "nested too deep" in str(text),
                "a transaction nested 10,000 deep is refused", code, text)
        before = self.peak_kib()
        for message in (b"\x12\x00" * MIB, b"\x0a\x00" * MIB,
                        field(2, field(4, b"\x1a\x00" * 500000))):
            self.refused(("INVALID_ARGUMENT", "etcdserver: too many operations in txn request"),
                         txn, message, "%d bytes of empty operations are refused" % len(message))
        code, _ = self.raw("/etcdserverpb.KV/Range", b"\x18\x01" * (MIB - 10))
        self.equal(code, "INTERNAL", "a field repeated a million times is refused")
        grown = self.peak_kib() - before
        self.ok(grown < 32 * 1024 or os.environ.get("T4_SANITIZER"),
                "and none of them takes much memory", "%d KiB" % grown)

    def peak_kib(self):
        with open("/proc/%d/status" % self.server.process.pid) as status:
            for line in status:
                if line.startswith("VmHWM:"):
                    return int(line.split()[1])
        return 0

    def durability(self):
        put = "/etcdserverpb.KV/Put"
        code, _ = self.raw(put, field(1, b"dur"), metadata=(("t4-durability", "local"),))
        self.equal(code, "OK", "t4-durability: local is what there is")
        code, text = self.raw(put, field(1, b"dur2"), metadata=(("t4-durability", "object"),))
        self.ok(code == "INVALID_ARGUMENT" and "local" in text,
                "t4-durability: object is refused, with what there is", code, text)
        self.equal(self.client.range(b"dur2").count, 0, "before anything is written")

    def stop(self):
        watch, keepalive = self.client.watch_stream(), self.client.keep_alive()
        watch.created(b"stop")
        keepalive.ask(1)
        status = self.server.stop()
        for name, stream in (("watch", watch), ("keepalive", keepalive)):
            try:
                self.equal(stream.next(), None, "a stop ends the %s stream" % name)
            except self.tools.Closed as closed:
                self.equal(closed.error and self.tools.status_of(closed.error),
                           ("UNAVAILABLE", "etcdserver: server stopped"),
                           "a stop ends the %s stream in words" % name)
        self.equal(status, 0, "and the server ends well")

    def stop_without_help(self):
        """A client that answers nothing holds the stop up for the grace time and no longer."""
        server = t4test.T4(["--shutdown-grace", "1s"]).start()
        silent = socket.create_connection(("127.0.0.1", server.port))
        silent.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0]))
        silent.recv(1)  # the server's own settings: it has taken the connection
        self.equal(server.stop(), 0, "a client that answers nothing does not keep it from ending")
        silent.close()
        server.close()

    def port_taken(self):
        second = t4test.T4()
        second.address = self.server.address
        second.start(wait=False)
        self.ok(second.wait() != 0, "a second server on the same port does not start")
        self.ok(self.server.address in second.log() and "in use" in second.log(),
                "and says which port is taken", second.log())
        second.close()


def main():
    reference, subject = t4test.reference(), t4test.subject()
    if subject is None:
        TAP.skip_all("the server was not built")
    if reference is not None and not reference.is_34():
        with reference.start():
            transport = Transport(reference)
            transport.shared()
            transport.close()
    with subject.start():
        transport = Transport(subject)
        transport.shared()
        if isinstance(subject, t4test.T4):
            transport.bounds()
            transport.durability()
            transport.port_taken()
            transport.stop()
            transport.stop_without_help()
        transport.close()
    TAP.done()


main()

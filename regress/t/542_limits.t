#!/usr/bin/python3
"""542_limits.t - limits of requests and of connections, and what breaks them.

What etcd has is compared with a real etcd that got the same flags: both limits of a request at
the byte, operations of a transaction, streams of a connection, pings.  Then the server alone is
treated badly: garbage, frames cut off, silence, floods.  It lives, serves others and does not grow.

SPDX-License-Identifier: Apache-2.0
"""

import os
import random
import struct
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "lib"))

import t4test  # noqa: E402
import http2  # noqa: E402
from abused import Abused  # noqa: E402
from http2 import varint  # noqa: E402
from storetest import until  # noqa: E402

TAP = t4test.Tap()
MIB = 1024 * 1024
LIMIT = 256 * 1024
OPTIONS = ["--max-request-bytes=%d" % LIMIT, "--max-txn-ops=5", "--max-concurrent-streams=7",
           "--grpc-keepalive-interval=1s", "--grpc-keepalive-timeout=1s",
           "--grpc-keepalive-min-time=100ms"]
CORE_LIMIT = 16 * MIB   # above it the text is that of the gRPC core
GREETING_SECONDS = 10   # how long a connection may be silent


def put_of(total):
    """A PutRequest of exactly so many bytes."""
    for size in range(total - 12, total):
        body = b"\x0a\x01k\x12" + varint(size) + b"v" * size
        if len(body) == total:
            return body
    raise AssertionError(total)


def unary(client, path, body):
    import grpc
    try:
        client.channel.unary_unary(path)(body, timeout=60)
        return "OK", ""
    except grpc.RpcError as error:
        return error.code().name, error.details()


# ---- compared with etcd ---------------------------------------------------------------------

def sizes(reference, subject):
    """Both limits, byte by byte around them; the larger one up to where the core's begins."""
    import etcdclient
    clients = [etcdclient.Client(server.address) for server in (reference, subject)]
    first = []
    for client in clients:
        total = LIMIT - 40
        while unary(client, "/etcdserverpb.KV/Put", put_of(total))[0] == "OK":
            total += 1
        first.append(total)
    # Of the proposal's id etcd counts the bytes that it takes, mostly 9 or 10: it begins with
    # digits of the member's.  t4 counts 10.
    TAP.ok(first[1] <= first[0] <= first[1] + 2, "the first put that is too large", first)
    seen = ["OK"]
    for total in [LIMIT - 40, first[1] - 1, first[0], first[0] + 1, LIMIT, LIMIT + 1,
                  LIMIT + 512 * 1024 - 1, LIMIT + 512 * 1024, LIMIT + 512 * 1024 + 1,
                  4 * MIB, 4 * MIB + 1, CORE_LIMIT - 1, CORE_LIMIT]:
        answers = [unary(client, "/etcdserverpb.KV/Put", put_of(total)) for client in clients]
        TAP.equal(answers[1], answers[0], "a put of %d bytes" % total)
        seen.append(answers[1][0])
    TAP.equal([seen.count(code) > 0 for code in ("OK", "INVALID_ARGUMENT", "RESOURCE_EXHAUSTED")],
              [True] * 3, "both limits were met")
    codes = [unary(client, "/etcdserverpb.KV/Put", put_of(CORE_LIMIT + 1))[0]
             for client in clients]
    TAP.equal(codes[1], codes[0], "above 16 MiB the code is etcd's, and the text the core's")
    for n in (5, 6):
        txn = b"".join(b"\x12" + varint(len(op)) + op for op in
                       [b"\x12\x05\x0a\x03op%d" % i for i in range(n)])
        answers = [unary(client, "/etcdserverpb.KV/Txn", txn) for client in clients]
        TAP.equal(answers[1], answers[0], "a transaction with %d operations" % n)
    for client in clients:
        client.close()


def streams(reference, subject):
    told = []
    for server in (reference, subject):
        connection = http2.Connection(server.port)
        told.append(http2.settings_of(connection.wait(http2.SETTINGS)).get(
            http2.MAX_CONCURRENT_STREAMS))
        connection.close()
    TAP.equal(told, [7, 7], "both tell clients how many streams there may be")


def open_watch(connection):
    connection.send(http2.frame(http2.HEADERS, http2.END_HEADERS, 1,
                                http2.request("/etcdserverpb.Watch/Watch")))


def ping(connection, server, pause, stream):
    """What the server says to eight pings: "too_many_pings", or nothing."""
    if stream:
        open_watch(connection)
    for i in range(8):
        if not connection.send(http2.frame(http2.PING, 0, 0, struct.pack(">Q", i))):
            break
        time.sleep(pause)  # what is tested is how often a client pings
    connection.send(http2.frame(http2.PING, 0, 0, struct.pack(">Q", 99)))
    answered, deadline = False, time.monotonic() + 20
    while True:
        found = connection.next(max(deadline - time.monotonic(), 0))
        if found is None:
            return "answered" if answered else "closed"
        if found[0] == http2.PING and not found[1] & http2.ACK:
            connection.send(http2.frame(http2.PING, http2.ACK, 0, found[3]))
        elif found[0] == http2.PING and found[3] == struct.pack(">Q", 99):
            # What a server has against pings it may say behind its answers to them.
            answered, deadline = True, time.monotonic() + 0.5
        elif found[0] == http2.GOAWAY:
            code = struct.unpack(">I", found[3][4:8])[0]
            return "%d %s" % (code, found[3][8:].decode())


def pings(reference, subject):
    calm = "%d too_many_pings" % http2.ENHANCE_YOUR_CALM
    for name, pause, stream, want in (
            ("too often, with a stream", 0, True, (calm, calm)),
            ("too often, without one", 0, False, (calm, calm)),
            ("seldom enough, with a stream", 0.15, True, ("answered", "answered")),
            # etcd takes one in two hours then; t4 has --grpc-keepalive-permit-without-stream
            ("seldom enough, without one", 0.15, False, (calm, "answered"))):
        got = []
        for server in (reference, subject):
            connection = http2.Connection(server.port)
            got.append(ping(connection, server, pause, stream))
            connection.close()
        TAP.equal(tuple(got), want, "pings %s" % name)


def unanswered(reference, subject):
    """A client that does not answer the server's own ping is gone for it."""
    for server in (reference, subject):
        connection = http2.Connection(server.port)
        TAP.ok(connection.wait(http2.PING) is not None, "%s pings a silent client" % server.name)
        TAP.ok(connection.is_closed(), "%s: and closes when no answer comes" % server.name)
        connection.close()


# ---- bad behaviour --------------------------------------------------------------------------

def garbage(abused):
    port, F, H = abused.server.port, http2.frame, http2
    good = F(H.HEADERS, H.END_HEADERS, 1, H.request("/etcdserverpb.KV/Put"))
    put = b"\x0a\x01a\x12\x01b"
    rng = random.Random(540)
    raw = [b"\0" * 100, b"\xff" * 5000, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"x" * 600,
           b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n", H.PREFACE + b"\0" * 60, b"get / HTTP/1.1\r\n\r\n",
           b"GET " + b"/" * 100000, b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 20000,
           b"GET / HTTP/9.9\r\n\r\n", b"GARBAGE\r\n\r\n", b"\r\n\r\n"]
    raw += [bytes(rng.randrange(256) for _ in range(rng.randrange(1, 400))) for _ in range(40)]
    for data in raw:
        connection = http2.Connection(port, greeting=data)
        connection.close()
    abused.serves("bytes that are no protocol")
    after = [F(H.DATA, 0, 0, b"x"), F(H.DATA, 0, 5, b"x"), F(H.HEADERS, H.END_HEADERS, 0, b"x"),
             F(H.HEADERS, H.END_HEADERS, 2, b"\x80"), F(H.HEADERS, H.END_HEADERS, 1, b"\xff" * 50),
             F(H.CONTINUATION, 0, 1, b"x"), F(H.SETTINGS, 0, 0, b"12345"),
             F(H.SETTINGS, 0, 0, b"\0\4\xff\xff\xff\xff"), F(H.SETTINGS, 0, 0, b"\0\5\0\0\0\1"),
             F(H.WINDOW_UPDATE, 0, 0, b"\0\0\0\0"), F(H.WINDOW_UPDATE, 0, 0, b"\x7f\xff\xff\xff") * 3,
             F(H.RST_STREAM, 0, 7, b"\0\0\0\0"), F(H.PING, 0, 0, b"123"), F(99, 255, 1, b"what"),
             b"\xff\xff\xff" + bytes([H.DATA, 0]) + struct.pack(">I", 1) + b"x" * 1000,
             F(H.GOAWAY, 0, 0, b"\0" * 8), F(H.HEADERS, H.END_HEADERS, 1, H.headers([(b"a", b"b")])),
             F(H.HEADERS, H.END_HEADERS, 1, H.request("x" * 100)),
             # messages of gRPC: cut off, lying about their length, with unknown flags
             good + F(H.DATA, H.END_STREAM, 1, H.message(put)[:4]),
             good + F(H.DATA, H.END_STREAM, 1, H.message(put)[:-1]),
             good + F(H.DATA, H.END_STREAM, 1, b"\0\xff\xff\xff\xff" + put),
             good + F(H.DATA, H.END_STREAM, 1, b"\0\0\0\0\1" + put),
             good + F(H.DATA, H.END_STREAM, 1, H.message(put, 1)),
             good + F(H.DATA, H.END_STREAM, 1, H.message(put, 2)),
             good + F(H.DATA, H.END_STREAM, 1, H.message(put) * 3),
             good + F(H.DATA, 0, 1, H.message(put) + b"\0\0"), good + F(H.DATA, 0, 1, b"\0")]
    for frames in after:
        connection = http2.Connection(port)
        connection.send(frames)
        connection.send(F(H.PING, 0, 0, b"12345678"))
        connection.next(0.2)
        connection.close()
    for cut in range(1, len(good), 7):
        connection = http2.Connection(port)
        connection.send(good[:cut])
        connection.close()
    for _ in range(200):
        connection = http2.Connection(port)
        connection.send(bytes(rng.randrange(256) for _ in range(rng.randrange(1, 200))))
        connection.close()
    abused.serves("frames that are none, or cut off")


# A server under a sanitizer takes a millisecond and more for each.
FLOOD = 2000 if os.environ.get("T4_SANITIZER") else 10000


def reset_flood(abused):
    """Calls that are opened and reset at once, as many as fit on one connection."""
    before = None
    for path in ("/etcdserverpb.KV/Put", "/etcdserverpb.Watch/Watch") * 2:
        connection = http2.Connection(abused.server.port)
        open_and_reset = b"".join(
            http2.frame(http2.HEADERS, http2.END_HEADERS, stream, http2.request(path)) +
            http2.frame(http2.RST_STREAM, 0, stream, struct.pack(">I", 8))
            for stream in range(1, 2 * FLOOD, 2))
        for at in range(0, len(open_and_reset), 65536):
            if not connection.send(open_and_reset[at:at + 65536]):
                break
        abused.serves("%d calls of %s reset at once" % (FLOOD, path))
        connection.send(http2.frame(http2.PING, 0, 0, b"12345678"))
        while (connection.next() or [http2.PING])[0] != http2.PING:
            pass  # until it has worked them off
        connection.close()
        if path.endswith("Watch") and before is None:
            before = abused.resident_kib()
    TAP.ok(until(lambda: abused.metric("t4_watch_streams") == 0), "no watch stream is left")
    abused.grown(before, 160, "more of the same")  # as much as one flood, at most


def frame_flood(abused):
    """Frames that ask for an answer each, by a client that reads none."""
    before = abused.resident_kib()
    for name, one in (("settings", http2.frame(http2.SETTINGS)),
                      ("pings", http2.frame(http2.PING, 0, 0, b"12345678"))):
        connection = http2.Connection(abused.server.port)
        connection.socket.settimeout(2)
        for _ in range(100):
            if not connection.send(one * 2000):
                break
        abused.serves("200,000 %s at once" % name)
        connection.close()
    abused.grown(before, 64, "floods of frames")


class Hoarder:
    """Sends messages on many calls and completes none, as fast as the windows allow."""

    def __init__(self, port, calls, size):
        self.connection = http2.Connection(port)
        self.window, self.first, self.sent, self.reset = {0: 65535}, 65535, 0, 0
        self.left = {}
        for stream in range(1, 2 * calls, 2):
            self.connection.send(http2.frame(http2.HEADERS, http2.END_HEADERS, stream,
                                             http2.request("/etcdserverpb.KV/Put")))
            self.window[stream] = self.first
            self.send(stream, b"\0" + struct.pack(">I", size))
            self.left[stream] = size - 100

    def send(self, stream, data):
        self.window[0] -= len(data)
        self.window[stream] -= len(data)
        self.sent += len(data)
        return self.connection.send(http2.frame(http2.DATA, 0, stream, data))

    def listen(self, seconds):
        found = self.connection.next(seconds)
        if found is None:
            return False
        kind, flags, stream, payload = found
        if kind == http2.WINDOW_UPDATE and stream in self.window:
            self.window[stream] += struct.unpack(">I", payload)[0]
        elif kind == http2.SETTINGS and not flags & http2.ACK:
            first = http2.settings_of(payload).get(4, self.first)
            for open_stream in self.window:
                self.window[open_stream] += first - self.first if open_stream else 0
            self.first = first
        elif kind == http2.RST_STREAM:
            self.reset += struct.unpack(">I", payload)[0] == http2.ENHANCE_YOUR_CALM
            self.left.pop(stream, None)
        return True

    def work(self, seconds):
        """Until nothing more is taken, or all is sent that there is."""
        deadline = time.monotonic() + seconds
        while self.left and time.monotonic() < deadline:
            ready = [s for s, left in self.left.items()
                     if min(left, self.window[0], self.window[s]) >= min(left, 16384)]
            for stream in ready:
                n = min(16384, self.left[stream])
                if self.window[0] < n or not self.send(stream, b"x" * n):
                    break
                self.left[stream] -= n
                if self.left[stream] <= 0:
                    del self.left[stream]
            if not self.listen(0.001 if ready else 3) and not ready:
                return


def hoarding():
    with t4test.T4(["--max-request-memory=64MiB", "--max-connections=64"]) as server:
        server.start()
        abused = Abused(TAP, server)
        abused.serves("before")
        before = abused.resident_kib()
        hoarder = Hoarder(server.port, 16, 15 * MIB)
        hoarder.work(60)
        TAP.ok(hoarder.sent > 70 * MIB and hoarder.reset > 5,
               "calls that fill the memory for requests are cut off",
               "%d MiB sent, %d calls reset" % (hoarder.sent / MIB, hoarder.reset))
        abused.serves("meanwhile", patient=True)
        abused.grown(before, 110, "240 MiB on the way")
        hoarder.connection.close()
        abused.client.close()


def silent(abused, connections, began):
    """Connections that never say what they want do not stay."""
    closed = [connection.is_closed(max(began + GREETING_SECONDS + 20 - time.monotonic(), 1))
              for connection in connections]
    TAP.ok(all(closed), "silent connections are closed", closed)
    TAP.ok(time.monotonic() - began > GREETING_SECONDS - 1, "but not before their time")
    TAP.ok(abused.metric("t4_connections_silent_total") >= len(connections), "and counted")


def bounded():
    """--max-connections: silent ones make room; others are refused, and it is said."""
    with t4test.T4(["--max-connections=40"]) as server:
        server.start()
        abused = Abused(TAP, server)
        abused.serves("before")
        quiet = [http2.Connection(server.port, greeting=b"PRI") for _ in range(100)]
        abused.serves("100 silent connections where 40 may be")
        for connection in quiet:
            connection.close()
        busy = []
        for _ in range(60):
            connection = http2.Connection(server.port)
            busy.append((connection, connection.wait(http2.SETTINGS) is not None))
        good = sum(1 for _, served in busy if served)
        TAP.ok(30 <= good < 40, "as many are served as may be", good)
        abused.serves("all connections taken")
        TAP.ok("connections are refused" in server.log() and "40" in server.log(),
               "the log says why others are not", server.log_tail())
        for connection, _ in busy:
            connection.close()

        def again():
            connection = http2.Connection(server.port)
            served = connection.wait(http2.SETTINGS) is not None
            connection.close()
            return served
        TAP.ok(until(again), "when they are gone, there is room again")
        # The first one that has gone made room for one: whoever asks now may still be refused.
        TAP.ok(until(lambda: abused.metric("t4_connections") < 20), "for others, too")
        TAP.ok(abused.metric("t4_connections_refused_total") >= 60 - good, "refusals are counted")
        TAP.equal(abused.metric("t4_connections_max"), 40, "so is how many there may be")
        abused.client.close()


def descriptors():
    """The limit of open files is looked at before anything else."""
    for limit, option, words in (
            (200, [], ["limit of open files is 200", "320 are needed", "ulimit -n 320",
                       "LimitNOFILE=320"]),
            (500, ["--max-connections=300"], ["limit of open files is 500", "556 are needed"])):
        with t4test.T4(option) as server:
            argv = server.argv()
            server.argv = lambda: ["/bin/sh", "-c", "ulimit -n %d; exec \"$0\" \"$@\"" % limit] + argv
            server.start(wait=False)
            TAP.equal(server.wait(), 1, "a limit of %d files %s: no start" % (limit, option))
            TAP.equal([w for w in words if w not in server.log()], [], "it says what is needed")
            TAP.ok(not os.path.exists(server.data_dir), "and has touched nothing")
    with t4test.T4() as server:
        argv = server.argv()
        server.argv = lambda: ["/bin/sh", "-c", "ulimit -n 400; exec \"$0\" \"$@\""] + argv
        server.start()
        TAP.ok("room for few connections connections=144" in server.log(),
               "a limit of 400 files is warned about", server.log())
        TAP.equal(Abused(TAP, server).metric("t4_connections_max"), 144, "and leaves room for 144")


def main():
    reference, subject = t4test.reference(OPTIONS), t4test.subject(OPTIONS)
    if subject is None:
        TAP.skip_all("the server was not built")
    if reference is None or reference.is_34():
        TAP.skip_all("there is no etcd 3.6 to compare with")
    with t4test.T4(["--max-concurrent-streams=1000000"]) as server:
        server.start()
        abused = Abused(TAP, server)
        began = time.monotonic()
        quiet = [http2.Connection(server.port, greeting=greeting) for greeting in
                 (b"", b"P", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r", http2.PREFACE,
                  http2.PREFACE + b"\0\0\0\4")]
        with reference.start(), subject.start():
            sizes(reference, subject)
            streams(reference, subject)
            pings(reference, subject)
            unanswered(reference, subject)
        garbage(abused)
        reset_flood(abused)
        frame_flood(abused)
        hoarding()
        bounded()
        descriptors()
        silent(abused, quiet, began)
        abused.serves("at the end")
        abused.client.close()
        TAP.equal(server.stop(), 0, "and the server ends well")
    TAP.done()


main()

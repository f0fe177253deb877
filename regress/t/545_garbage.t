#!/usr/bin/python3
"""545_garbage.t - one server, much garbage: it lives, answers the good requests in between, holds
nothing back and does not fill its log.

Pipelined requests whose messages are garbage, among good ones; content types that are none of
gRPC's; lists of headers that are huge, compressed or otherwise; frames by chance behind a good
beginning; HTTP/1.1 pipelined, broken and cut off, on both ports; connections that end in the middle
of everything, politely or by a reset.  (Single bad frames and floods: 542_limits.t.)

SPDX-License-Identifier: Apache-2.0
"""

import os
import random
import socket
import struct
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "lib"))

import t4test  # noqa: E402
import http2 as H  # noqa: E402
from abused import Abused  # noqa: E402
from storetest import until  # noqa: E402

TAP = t4test.Tap()
SEED = 545
PUT = "/etcdserverpb.KV/Put"
PIPELINED = 600
LOG_LINES = 60  # that all of this together may cost


def bytes_by_chance(rng, most):
    return bytes(rng.randrange(256) for _ in range(rng.randrange(most)))


def put_message(key):
    return b"\x0a" + H.varint(len(key)) + key + b"\x12\x01v"


# ---- messages that are none, among good ones ------------------------------------------------------

def pipelined(abused):
    """All on one connection, none waited for; each must get its own answer."""
    import etcdclient
    rng = random.Random(SEED)
    channel = etcdclient.Client(abused.server.address).channel
    # Truncated in a field, a field of a wrong type, a group's end: none of these is a message.
    broken = (b"\x0a\x7f", b"\x0a\x05abc", b"\x0b", b"\xff" * 12, b"\x08\x80\x80\x80\x80\x80",
              b"\x0a\x01k\x12\xff\xff\xff\xff\x0f", b"\x07")
    methods = [PUT, "/etcdserverpb.KV/Txn", "/etcdserverpb.KV/Range",
               "/etcdserverpb.Lease/LeaseGrant", "/etcdserverpb.KV/Compact"]
    calls = []
    for i in range(PIPELINED):
        kind = rng.randrange(4)
        if kind == 0:
            path, body, want = PUT, put_message(b"good/%d" % i), "OK"
        elif kind == 1:
            path, body, want = rng.choice(methods), rng.choice(broken), "INTERNAL"
        elif kind == 2:
            path, body, want = "/etcdserverpb.KV/No%d" % i, b"x", "UNIMPLEMENTED"
        else:
            path, body, want = rng.choice(methods), bytes_by_chance(rng, 200), None
        calls.append((want, body, channel.unary_unary(path).future(body, timeout=30)))
    wrong = []
    for want, body, call in calls:
        got = call.code().name if call.exception() is not None else "OK"
        if want is not None and got != want or got in ("UNAVAILABLE", "DEADLINE_EXCEEDED",
                                                       "DATA_LOSS", "CANCELLED"):
            wrong.append((want, got, body[:40]))
    TAP.equal(wrong, [], "%d requests pipelined, most of them garbage: each has its answer"
              % PIPELINED)
    good = sum(1 for want, _, _ in calls if want == "OK")
    TAP.equal(abused.client.prefix(b"good/").count, good, "and the %d good puts are there" % good)
    channel.close()
    abused.serves("pipelined garbage")


# ---- what a request says of itself ------------------------------------------------------------------

def post(path, more):
    return H.headers([(b":method", b"POST"), (b":scheme", b"http"), (b":path", path.encode()),
                      (b":authority", b"t4")] + list(more))


def ended(connection, streams, seconds=20):
    """Waits until each of these streams was ended by the server; those that were not."""
    left, deadline = set(streams), time.monotonic() + seconds
    while left and time.monotonic() < deadline:
        found = connection.next(max(deadline - time.monotonic(), 0))
        if found is None:
            break
        kind, flags, stream, _ = found
        if kind == H.GOAWAY:
            return set()
        if kind == H.RST_STREAM or kind in (H.HEADERS, H.DATA) and flags & H.END_STREAM:
            left.discard(stream)
    return left


def content_types(abused):
    """Whatever the type says, the call ends, and the connection goes on."""
    kinds = [b"text/plain", b"application/json", b"application/grpc-web", b"application/grpcx",
             b"application/grpc+json", b"application/grpc;", b"", b"\xff\xfe", b"a" * 120, None]
    connection = H.Connection(abused.server.port)
    streams = range(1, 2 * len(kinds), 2)
    for stream, kind in zip(streams, kinds):
        more = [(b"content-type", kind)] if kind is not None else []
        connection.send(
            H.frame(H.HEADERS, H.END_HEADERS, stream, post(PUT, more + [(b"te", b"trailers")])),
            H.frame(H.DATA, H.END_STREAM, stream, H.message(put_message(b"type"))))
    TAP.equal(ended(connection, streams), set(), "requests of other content types end")
    connection.send(H.frame(H.PING, 0, 0, b"12345678"))
    TAP.ok(until(lambda: (connection.next(1) or [None])[0] == H.PING, 20),
           "and their connection goes on")
    connection.close()
    abused.serves("other content types")


def huge_headers(abused):
    before = abused.resident_kib()
    field = b"\x00" + b"\x05x-bin" + b"\x7e" + b"v" * 126
    # 128 bytes in the table of the connection, named once, asked for a hundred thousand times.
    stored = b"\x40" + b"\x01x" + b"\x7e" + b"v" * 126
    blocks = {
        "100 KB of headers": [H.request(PUT) + field * 750],
        "a header without an end": [H.request(PUT) + b"\x00\x7f\xff\xff\xff\x0f"],
        "an index that does not exist": [H.request(PUT) + b"\xff\xff\xff\x7f"],
        "a table of 4 GB": [b"\x3f\xe1\xff\xff\xff\x0f" + H.request(PUT)],
        "2,000 continuations": [H.request(PUT)] + [field * 100] * 2000,
        "20,000 empty continuations": [H.request(PUT)] + [b""] * 20000,
        # The core's limit is one of each frame (api/grpc/README.md).
        "a compressed list of 12 MB": [H.request(PUT) + stored] + [b"\xbe" * 16000] * 6,
    }
    for name, parts in blocks.items():
        connection = H.Connection(abused.server.port)
        connection.socket.settimeout(5)
        frames = [H.frame(H.HEADERS, 0, 1, parts[0][:16384])]
        rest = [parts[0][at:at + 16384] for at in range(16384, len(parts[0]), 16384)]
        frames += [H.frame(H.CONTINUATION, 0, 1, part) for part in rest + parts[1:]]
        frames.append(H.frame(H.CONTINUATION, H.END_HEADERS, 1, b""))
        frames.append(H.frame(H.DATA, H.END_STREAM, 1, H.message(put_message(b"huge/" +
                                                                             name.encode()))))
        for at in range(0, len(frames), 200):
            if not connection.send(*frames[at:at + 200]):
                break
        connection.send(H.frame(H.PING, 0, 0, b"12345678"))
        left = ended(connection, [1])
        TAP.ok(not left or connection.is_closed(5), "%s: the call or its connection ends" % name)
        connection.close()
    # The last ones are requests like any other, in more frames than usual.
    legal = {b"huge/a compressed list of 12 MB", b"huge/20,000 empty continuations"}
    done = {kv.key for kv in abused.client.prefix(b"huge/").kvs}
    TAP.ok(done <= legal, "and no other call did anything", done)
    abused.grown(before, 64, "huge headers")
    abused.serves("huge headers")


# ---- frames by chance ---------------------------------------------------------------------------------

def frame_by_chance(rng):
    kind = rng.choice((0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 200))
    payload = rng.choice((b"", b"\0" * 4, b"\0" * 8, bytes_by_chance(rng, 60),
                          H.request(PUT), H.message(put_message(b"chance"))))
    return H.frame(kind, rng.randrange(256), rng.choice((0, 1, 3, 5, 2, 0x7fffffff)), payload)


def frames(abused):
    rng = random.Random(SEED)
    for i in range(300):
        connection = H.Connection(abused.server.port)
        data = b"".join(frame_by_chance(rng) for _ in range(1 + rng.randrange(30)))
        connection.send(data[:rng.randrange(len(data) + 1)] if i % 3 == 0 else data)
        if i % 4 == 0:  # half of a request, and half of the connection
            connection.socket.shutdown(socket.SHUT_WR)
            connection.next(0.01)
        leave(connection.socket, i % 2 == 0)
    abused.serves("300 connections of frames by chance")


def leave(sock, by_reset):
    if by_reset:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


# ---- HTTP/1.1 -------------------------------------------------------------------------------------------

def http1(abused):
    get = b"GET /health HTTP/1.1\r\nHost: t4\r\n\r\n"
    bad = [b"GET\r\n\r\n", b"GET /health\r\n\r\n", b"get /health HTTP/1.1\r\n\r\n",
           b"GET /health HTTP/1.1\r\nHost\r\n\r\n", b"GET /health HTTP/1.1\r\n: x\r\n\r\n",
           b"GET /" + b"a" * 70000 + b" HTTP/1.1\r\n\r\n",
           b"GET /health HTTP/1.1\r\n" + b"X: y\r\n" * 20000 + b"\r\n",
           b"GET /health HTTP/1.1\r\nX: " + b"y" * 200000 + b"\r\n\r\n",
           b"POST /health HTTP/1.1\r\nContent-Length: -1\r\n\r\nxx",
           b"POST /health HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n\r\nxx",
           b"POST /health HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 9\r\n\r\nxx",
           b"POST /health HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\nxx",
           b"POST /health HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n\r\n",
           b"POST /health HTTP/1.1\r\nContent-Length: 1000000\r\n\r\n" + b"x" * 1000000,
           b"GET /health?" + b"%" * 2000 + b" HTTP/1.1\r\nHost: t4\r\n\r\n",
           b"GET /\0health HTTP/1.1\r\nHost: t4\r\n\r\n", b"\x80" * 3000,
           b"PRI * HTTP/1.1\r\n\r\n", b"GET /health HTTP/1.1\r\nUpgrade: h2c\r\n\r\n",
           b"CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n"]
    before = abused.resident_kib()
    for port in (abused.server.port, abused.server.metrics_port):
        answered = 0
        for data in bad:
            # Good ones before it, one behind it, all at once.
            connection = socket.create_connection(("127.0.0.1", port), 20)
            try:
                connection.sendall(get * 20 + data + get)
            except OSError:
                pass
            connection.settimeout(1)
            got = b""
            try:
                while got.count(b"HTTP/1.1 200") < 20:
                    more = connection.recv(65536)
                    if not more:
                        break
                    got += more
            except OSError:
                pass
            answered += got.count(b"HTTP/1.1 200") >= 20
            leave(connection, len(data) % 2 == 0)
            half = socket.create_connection(("127.0.0.1", port), 20)
            try:
                half.sendall(data[:len(data) // 2])
            except OSError:
                pass
            leave(half, len(data) % 2 == 1)
        TAP.ok(answered >= len(bad) - 2, "HTTP/1.1: 20 good requests before garbage are answered",
               "%d of %d" % (answered, len(bad)))
    abused.grown(before, 64, "HTTP/1.1")
    abused.serves("HTTP/1.1 garbage")


def main():
    if not os.path.exists(t4test.T4.binary):
        TAP.skip_all("t4 was not built")
    with t4test.T4() as server:
        server.start()
        abused = Abused(TAP, server)
        abused.serves("before")
        abused.metric("t4_watch_streams")
        descriptors, lines = abused.descriptors(), server.log().count("\n")
        pipelined(abused)
        content_types(abused)
        huge_headers(abused)
        frames(abused)
        silent = abused.metric("t4_connections_silent_total")
        TAP.ok(until(lambda: abused.descriptors() <= descriptors + 2, 30),
               "no connection is left open", "%d, before %d" % (abused.descriptors(), descriptors))
        TAP.equal(abused.metric("t4_connections_silent_total"), silent,
                  "and none had to be given up for its silence: all had been closed")
        http1(abused)
        # Its library gives half a request ten seconds, whether the client is still there or not.
        TAP.ok(until(lambda: abused.descriptors() <= descriptors + 20, 30),
               "nearly none of HTTP/1.1's 80 is", abused.descriptors())
        TAP.ok(until(lambda: abused.metric("t4_watch_streams") == 0), "no stream is")
        said = server.log().count("\n") - lines
        TAP.ok(said <= LOG_LINES, "the log is not filled", "%d lines, such as" % said,
               server.log_tail(20))
        abused.serves("at the end")
        abused.client.close()
        TAP.equal(server.stop(), 0, "and the server ends well")
    TAP.done()


main()

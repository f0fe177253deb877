"""http2client.py - watches over plain HTTP/2, whose socket is read only while the test says so.

Responsible for: clients that stop reading as a hung process does.  A gRPC library goes on taking
bytes off its socket and only stops giving them to the application; here nothing is read, so what
the server sends stays in the socket's buffers and then in the server.

Entry points: Reader (one connection, one watch), read() (many readers at once, on one thread).
Threads: a Reader belongs to one thread at a time.

Only what a client of such a server needs is there: one request with literal headers, flow
control, settings and pings answered; the server's headers are not decoded.

SPDX-License-Identifier: Apache-2.0
"""

import selectors
import socket
import struct
import time

from etcdclient import api

DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
END_STREAM, ACK, END_HEADERS, PADDED = 1, 1, 4, 8
WINDOW = 65535
CHUNK = 256 * 1024


def framed(kind, flags, stream, payload=b""):
    return struct.pack(">I", len(payload) << 8 | kind) + struct.pack(
        ">BI", flags, stream) + payload


def _literal(index, value):
    """A header of the static table's name, not to be indexed."""
    head = bytes([index]) if index < 15 else bytes([15, index - 15])
    return head + bytes([len(value)]) + value


class Closed(Exception):
    """The server ended the stream or the connection."""


class Reader:
    """A watch; `taken` is called with each response as it is read.

    small: the kernel's buffers are as small as they can be, so that the server holds what waits.
    """

    def __init__(self, address, create, taken, small=True):
        host, port = address.split(":")
        self.taken = taken
        self.why = None
        self.socket = socket.socket()
        if small:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self.socket.connect((host, int(port)))
        self.bytes = bytearray()
        self.message = bytearray()
        self.eaten = 0
        headers = (b"\x83\x86" + _literal(4, b"/etcdserverpb.Watch/Watch")
                   + _literal(1, address.encode()) + _literal(31, b"application/grpc")
                   + b"\x00\x02te\x08trailers")
        request = api.WatchRequest(create_request=create).SerializeToString()
        self.socket.sendall(
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + framed(SETTINGS, 0, 0)
            + framed(HEADERS, END_HEADERS, 1, headers)
            + framed(DATA, 0, 1, struct.pack(">BI", 0, len(request)) + request))

    def close(self):
        self.socket.close()

    def take(self):
        """Reads what is there, at least a byte: waits for that."""
        try:
            got = self.socket.recv(CHUNK)
            if not got:
                raise Closed("the connection is closed")
            self.bytes += got
            self._frames()
        except (OSError, Closed, ValueError) as error:
            self.why = repr(error)

    def _frames(self):
        at, bytes_ = 0, self.bytes
        while len(bytes_) - at >= 9:
            word, flags, stream = struct.unpack_from(">IBI", bytes_, at)
            length = word >> 8
            if len(bytes_) - at < 9 + length:
                break
            self._frame(word & 0xff, flags, stream, bytes_[at + 9:at + 9 + length])
            at += 9 + length
        del bytes_[:at]
        if self.eaten >= WINDOW // 2:
            more = struct.pack(">I", self.eaten)
            self.eaten = 0
            self.socket.sendall(framed(WINDOW_UPDATE, 0, 0, more)
                                + framed(WINDOW_UPDATE, 0, 1, more))

    def _frame(self, kind, flags, stream, payload):
        if kind == DATA:
            self.eaten += len(payload)
            if flags & PADDED:
                payload = payload[1:len(payload) - payload[0]]
            self.message += payload
            self._messages()
        elif kind == SETTINGS and not flags & ACK:
            self.socket.sendall(framed(SETTINGS, ACK, 0))
        elif kind == PING and not flags & ACK:
            self.socket.sendall(framed(PING, ACK, 0, payload))
        elif kind in (RST_STREAM, GOAWAY):
            raise Closed("frame %d" % kind)
        if kind in (DATA, HEADERS) and flags & END_STREAM:
            raise Closed("the stream has ended")

    def _messages(self):
        while len(self.message) >= 5:
            length, = struct.unpack_from(">I", self.message, 1)
            if len(self.message) < 5 + length:
                return
            response = api.WatchResponse.FromString(bytes(self.message[5:5 + length]))
            del self.message[:5 + length]
            self.taken(response)


def read(readers, done, seconds):
    """Lets them read until done(reader) holds for each, or it failed; False: not in time."""
    deadline = time.monotonic() + seconds
    with selectors.DefaultSelector() as selector:
        left = 0
        for reader in readers:
            if not done(reader):
                selector.register(reader.socket, selectors.EVENT_READ, reader)
                left += 1
        while left > 0:
            for key, _ in selector.select(max(0, deadline - time.monotonic())):
                key.data.take()
                if key.data.why or done(key.data):
                    selector.unregister(key.fileobj)
                    left -= 1
            if time.monotonic() > deadline:
                return left == 0
    return True

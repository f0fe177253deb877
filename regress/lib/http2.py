"""http2.py - HTTP/2 spoken by hand, as politely or impolitely as a test wants.

Entry points: Connection, frame(), headers(), request(), and the numbers of RFC 9113 below.  No
header that comes is decoded: what calls answer is for a real client to see.

SPDX-License-Identifier: Apache-2.0
"""

import socket
import struct
import time

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = \
    0, 1, 3, 4, 6, 7, 8, 9
END_STREAM, ACK, END_HEADERS = 1, 1, 4
MAX_CONCURRENT_STREAMS = 3
ENHANCE_YOUR_CALM = 11


def frame(kind, flags=0, stream=0, payload=b""):
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + \
        struct.pack(">I", stream) + payload


def headers(fields):
    """Literal fields, none of them indexed; each text has less than 127 bytes."""
    return b"".join(b"\x00" + bytes([len(name)]) + name + bytes([len(value)]) + value
                    for name, value in fields)


def request(path, more=()):
    return headers([(b":method", b"POST"), (b":scheme", b"http"), (b":path", path.encode()),
                    (b":authority", b"t4"), (b"content-type", b"application/grpc"),
                    (b"te", b"trailers")] + list(more))


def message(content, flags=0):
    """A message as gRPC frames it."""
    return bytes([flags]) + struct.pack(">I", len(content)) + content


def varint(number):
    """A number as protobuf writes it."""
    out = b""
    while number > 127:
        out += bytes([number & 127 | 128])
        number >>= 7
    return out + bytes([number])


class Connection:
    """One connection that has sent the preface and its settings."""

    def __init__(self, port, seconds=20, greeting=PREFACE + frame(SETTINGS)):
        self.socket = socket.create_connection(("127.0.0.1", port), seconds)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.read = b""
        self.send(greeting)

    def send(self, *frames):
        """False: the other side is gone."""
        try:
            self.socket.sendall(b"".join(frames))
            return True
        except OSError:
            return False

    def next(self, seconds=20):
        """(kind, flags, stream, payload) of the next frame; None: closed, or the time is over."""
        deadline = time.monotonic() + seconds
        while True:
            if len(self.read) >= 9:
                length = struct.unpack(">I", b"\0" + self.read[:3])[0]
                if len(self.read) >= 9 + length:
                    kind, flags, stream = struct.unpack(">BBI", self.read[3:9])
                    payload = self.read[9:9 + length]
                    self.read = self.read[9 + length:]
                    return kind, flags, stream & 0x7fffffff, payload
            left = deadline - time.monotonic()
            if left <= 0:
                return None
            self.socket.settimeout(left)
            try:
                more = self.socket.recv(65536)
            except OSError:
                return None
            if not more:
                return None
            self.read += more

    def wait(self, kind, seconds=20):
        """The payload of the next frame of this kind that is no acknowledgement; None: none came."""
        deadline = time.monotonic() + seconds
        while True:
            found = self.next(max(deadline - time.monotonic(), 0))
            if found is None:
                return None
            if found[0] == kind and not (kind in (SETTINGS, PING) and found[1] & ACK):
                return found[3]

    def is_closed(self, seconds=20):
        """Whether the other side closes within this time."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self.socket.settimeout(max(deadline - time.monotonic(), 0.01))
            try:
                if not self.socket.recv(65536):
                    return True
            except TimeoutError:
                return False
            except OSError:
                return True
        return False

    def close(self):
        self.socket.close()


def settings_of(payload):
    return {struct.unpack(">H", payload[i:i + 2])[0]: struct.unpack(">I", payload[i + 2:i + 6])[0]
            for i in range(0, len(payload), 6)}

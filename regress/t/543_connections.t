#!/usr/bin/python3
"""543_connections.t - thousands of idle connections: what each takes, and that it does not matter.

T4_CONNECTIONS says how many (default 2,000; `make check-connections`: 10,000), if the limit of
open files allows so many.  Each has sent HTTP/2's preface and settings and got the server's.

SPDX-License-Identifier: Apache-2.0
"""

import os
import re
import resource
import selectors
import socket
import sys
import time
import urllib.request

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "lib"))

import t4test  # noqa: E402
import http2  # noqa: E402
from storetest import metric, until  # noqa: E402

TAP = t4test.Tap()
LEAST = 2000
SECONDS = 120
WINDOW = 200       # connections under way at a time
KIB_EACH = 40      # of the server's memory; measured: 22
AT_ONCE = 5        # seconds that an answer may take on a busy machine


def wanted():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    room = (2000000 if hard == resource.RLIM_INFINITY else hard) - 400
    return min(int(os.environ.get("T4_CONNECTIONS") or LEAST), room)


def resident_kib(server):
    with open("/proc/%d/status" % server.process.pid) as status:
        return int(re.search(r"VmRSS:\s+(\d+)", status.read()).group(1))


def connect(port, number):
    """So many connections, each greeted by the server; fewer if it does not greet all."""
    selector, ready, begun = selectors.DefaultSelector(), [], 0
    deadline = time.monotonic() + SECONDS
    while len(ready) < number and time.monotonic() < deadline:
        while begun < number and begun - len(ready) < WINDOW:
            s = socket.create_connection(("127.0.0.1", port), 20)
            s.sendall(http2.PREFACE + http2.frame(http2.SETTINGS) +
                      http2.frame(http2.SETTINGS, http2.ACK))
            selector.register(s, selectors.EVENT_READ)
            begun += 1
        for key, _ in selector.select(1):
            selector.unregister(key.fileobj)
            if key.fileobj.recv(4096):
                ready.append(key.fileobj)
            else:
                return ready
    return ready


def main():
    if not os.path.exists(t4test.T4.binary):
        TAP.skip_all("t4 was not built")
    import etcdclient
    number = wanted()
    TAP.ok(number >= LEAST, "the limit of open files allows %d connections" % LEAST, number)
    with t4test.T4() as server:
        server.start()
        client = etcdclient.Client(server.address)
        client.put(b"c", b"0")
        before = resident_kib(server)
        connections = connect(server.port, number)
        TAP.equal(len(connections), number, "%d connections are greeted" % number)
        each = (resident_kib(server) - before) / number
        TAP.diag("%.1f KiB of memory for each of %d idle connections" % (each, number))
        TAP.ok(each < KIB_EACH or os.environ.get("T4_SANITIZER"), "each takes little memory", each)
        began = time.monotonic()
        for i in range(100):
            client.put(b"c", b"%d" % i)
        TAP.equal(client.range(b"c").kvs[0].value, b"99", "the server answers beside them")
        fresh = etcdclient.Client(server.address)
        TAP.equal(fresh.range(b"c").count, 1, "a new client, too")
        with urllib.request.urlopen("http://%s/health" % server.address, timeout=20) as page:
            TAP.equal(page.status, 200, "and a probe")
        took = time.monotonic() - began
        TAP.diag("102 answers in %.3f s" % took)
        TAP.ok(took < AT_ONCE * 10, "at once", took)
        TAP.ok(number <= metric(server, "t4_connections") <= number + 10, "all are counted",
               metric(server, "t4_connections"))
        for connection in connections:
            connection.close()
        TAP.ok(until(lambda: metric(server, "t4_connections") <= 10, SECONDS),
               "and forgotten when they are closed",
               metric(server, "t4_connections"))
        fresh.close()
        client.close()
        TAP.equal(server.stop(), 0, "the server ends well")
    TAP.done()


main()

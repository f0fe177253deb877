"""abused.py - a server that is treated badly, and must serve somebody else all the time.

Entry points: Abused.  Threads: the caller's.

SPDX-License-Identifier: Apache-2.0
"""

import os
import re
import time

from storetest import metric


class Abused:
    """The server under test, and a client that must be served all the time."""

    def __init__(self, tap, server):
        import etcdclient
        self.tap, self.server = tap, server
        self.client = etcdclient.Client(server.address)
        self.count = 0

    def serves(self, what, patient=False):
        """patient: its idle connection may have been closed, as it is when memory is short."""
        import etcdclient
        self.count += 1
        deadline = time.monotonic() + 20
        while True:
            try:
                self.client.put(b"abused", b"%d" % self.count)
                break
            except etcdclient.grpc.RpcError as error:
                if not patient or error.code() != etcdclient.grpc.StatusCode.UNAVAILABLE or \
                        time.monotonic() > deadline:
                    raise
        found = self.client.range(b"abused").kvs[0].value
        self.tap.ok(self.server.running() and found == b"%d" % self.count,
                    "%s: others are served" % what)

    def resident_kib(self):
        with open("/proc/%d/status" % self.server.process.pid) as status:
            return int(re.search(r"VmRSS:\s+(\d+)", status.read()).group(1))

    def metric(self, name):
        return metric(self.server, name)

    def grown(self, before, most_mib, what):
        grown = (self.resident_kib() - before) / 1024
        self.tap.ok(grown < most_mib or os.environ.get("T4_SANITIZER"),
                    "%s: memory is bounded" % what, "grew by %.1f MiB" % grown)

    def descriptors(self):
        return len(os.listdir("/proc/%d/fd" % self.server.process.pid))

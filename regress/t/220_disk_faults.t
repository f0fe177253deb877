#!/usr/bin/python3
"""220_disk_faults.t - a full disk and a failing disk, end to end.

Full: puts and grants are refused with etcd's error, nothing acknowledged is lost, reads, deletes
and compaction go on, a kill -9 in that state is survived, and the alarm clears by itself when
there is space again.  Failing (EIO of a sync): the server stops with a message and a failure
status, says nothing it does not know, and everything acknowledged is there after the restart.

SPDX-License-Identifier: Apache-2.0
"""

import os
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "lib"))

import t4test  # noqa: E402
from diskfault import FULL, Disk, error_of, lost, put_until_refused  # noqa: E402
from storetest import metric, until  # noqa: E402

TAP = t4test.Tap()


def full_disk():
    import etcdclient
    stored = {}
    with t4test.T4(["--segment-max-size-mb", "1"]) as server:
        disk = Disk(server)
        server.start()
        client = etcdclient.Client(server.address)
        client.put(b"before", b"x")
        # The reserve is made in the background; without it the disk counts as full at once.
        reserve = os.path.join(server.data_dir, "wal", "reserve")
        until(lambda: os.path.exists(reserve))
        disk.says("free 3000000")
        error = put_until_refused(client, stored)
        TAP.equal(error and error.details(), FULL, "puts are refused when the disk is full")
        TAP.equal(error and error.code().name, "RESOURCE_EXHAUSTED", "with etcd's code")
        TAP.ok(len(stored) > 10, "after what fitted (%d puts)" % len(stored))
        TAP.equal(lost(client, stored), [], "everything acknowledged is readable")
        error = error_of(lambda: client.lease_grant(60))
        TAP.equal(error and error.details(), FULL, "grants are refused")
        TAP.ok(any("NOSPACE" in text for text in client.status().errors),
               "Status names the alarm")
        TAP.equal(metric(server, "t4_nospace"), 1.0, "the metric is 1")
        key, _ = stored.popitem()
        TAP.equal(client.delete(key).deleted, 1, "a delete goes on")
        TAP.equal(error_of(lambda: client.compact(client.status().header.revision)), None,
                  "a compaction goes on")
        server.kill()
        server.start()
        TAP.equal(lost(client, stored), [], "kill -9 on the full disk loses nothing")
        TAP.equal(client.range(key).count, 0, "and the delete stays")
        disk.good()
        # The alarm clears at the keeper's next attempt.
        until(lambda: error_of(lambda: client.put(b"after", b"y")) is None)
        TAP.equal(client.range(b"after").count, 1, "with space again the alarm clears by itself")
        # The metric is set a moment after the alarm is cleared.
        TAP.ok(until(lambda: metric(server, "t4_nospace") == 0.0), "the metric is 0")
        TAP.equal(server.stop(), 0, "clean stop")
        client.close()


def failing_disk():
    import etcdclient
    stored = {}
    with t4test.T4(["--segment-max-size-mb", "1"]) as server:
        disk = Disk(server)
        server.start()
        client = etcdclient.Client(server.address)
        for i in range(20):
            stored[b"k%d" % i] = b"v%d" % i
            client.put(b"k%d" % i, b"v%d" % i)
        disk.says("eio")
        error = error_of(lambda: client.put(b"unknown", b"z"))
        TAP.ok(error is not None, "a put whose sync fails is not acknowledged",
               str(error and error.details()))
        TAP.ok(server.wait() not in (0, None), "the server stops with a failure")
        TAP.ok("log" in server.log() and "error" in server.log().lower(), "and says why")
        disk.good()
        server.start()
        TAP.equal(lost(client, stored), [], "everything acknowledged is there")
        client.close()


def main():
    if not os.path.exists(t4test.T4.binary):
        TAP.skip_all("t4 was not built")
    full_disk()
    failing_disk()
    TAP.done()


main()

#!/usr/bin/python3
"""221_disk_kinds.t - other ways in which a disk fails than 220's, end to end.

A sync that fails once and then claims success (what Linux does with pages it could not write): it is
not tried again as if nothing had been.  Writes that fail, a folder that has become read-only, at work
and at the start; a log or engine that cannot be read at the start; a full or failing disk under the
storage engine alone, and under the temporary files alone.  Each time: what the client is told and
what the log says, and after the repair everything acknowledged is there.

SPDX-License-Identifier: Apache-2.0
"""

import hashlib
import os
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "lib"))

import t4test  # noqa: E402
from diskfault import FULL, Disk, error_of, lost  # noqa: E402
from storetest import Load, until  # noqa: E402

TAP = t4test.Tap()
EIO, EROFS = "Input/output error", "Read-only file system"


def api():
    import etcdclient
    return etcdclient.api


class Bed:
    """A server on a disk of the test's; `folder` of its data directory is what fails."""

    def __init__(self, folder=""):
        self.server = t4test.T4(["--segment-max-size-mb", "1", "--storage-engine=lmdb"],
                                {"T4_PLUGIN_DIR": os.path.join(t4test.BUILD_DIR, "plugins")})
        self.disk = Disk(self.server, os.path.join(self.server.data_dir, folder))
        self.client, self.stored = None, {}

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *exception):
        self.client.close()
        self.server.close()

    def start(self):
        import etcdclient
        if self.client is not None:
            self.client.close()
        self.server.start()
        self.client = etcdclient.Client(self.server.address)

    def put(self, number=20):
        for _ in range(number):
            key = b"k%d" % len(self.stored)
            self.client.put(key, b"v" + key)
            self.stored[key] = b"v" + key

    def flush(self):
        """Asks for what makes the engine write; the error, if there is one."""
        return error_of(lambda: self.client.compact(self.client.status().header.revision, True))

    def stops(self, what, *words):
        status = self.server.wait(60)
        said = self.server.log_tail(5)
        TAP.ok(status == 1 and all(word in said for word in words),
               "%s: the process ends with status 1, naming file and reason" % what, status, said)

    def recovers(self, what, unknown=()):
        self.start()
        TAP.equal(lost(self.client, self.stored), [], "%s: after the repair all that was "
                  "acknowledged is there" % what)
        found = {kv.key for kv in self.client.range(b"k", b"l").kvs}
        TAP.ok(found <= set(self.stored) | set(unknown), "%s: and nothing else" % what, found)
        self.put(1)

    def refuses(self, what, *words):
        """A start that must fail.  Returns the files that it has changed nevertheless."""
        before = files(self.server.data_dir)
        self.server.start(wait=False)
        status = self.server.wait()
        said = self.server.log_tail(5)
        TAP.ok(status == 1 and all(word in said for word in words),
               "%s: no start, which file and why" % what, status, said)
        after = files(self.server.data_dir)
        return sorted(name for name in set(before) | set(after)
                      if before.get(name) != after.get(name))


def files(folder):
    """Name -> hash; but for the lock's, which every process that looks may touch."""
    found = {}
    for path, _, names in os.walk(folder):
        for name in names:
            if not name.startswith("lock"):
                with open(os.path.join(path, name), "rb") as content:
                    found[os.path.join(path, name)] = hashlib.sha256(content.read()).hexdigest()
    return found


# ---- the log -----------------------------------------------------------------------------------

def log_fails():
    for fault, reason in (("once", EIO), ("write", EIO), ("readonly", EROFS)):
        with Bed("wal") as bed:
            bed.put()
            bed.disk.says(fault)
            error = error_of(lambda: bed.client.put(b"kunknown", b"z"))
            TAP.equal(error and error.code().name, "UNAVAILABLE",
                      "log, %s: the put is not acknowledged" % fault)
            bed.stops("log, " + fault, bed.server.data_dir + "/wal/", reason)
            bed.disk.good()
            bed.recovers("log, " + fault, [b"kunknown"])


def sync_fails_once_under_load():
    """Of many writers nobody is told that all is well by the sync after the one that failed."""
    with Bed("wal") as bed:
        load = Load(bed.server.address, "load")
        enough = load.wait(100)
        bed.disk.says("once")
        bed.stops("once, under load", EIO)
        load.join()
        TAP.ok(enough and {code for code, _ in load.failures} == {"UNAVAILABLE"},
               "once, under load: clients are told that the outcome is not known", load.failures)
        bed.disk.good()
        bed.start()
        wrong = load.missing(bed.client)
        TAP.ok(not wrong, "once, under load: all %d acknowledged writes are there" %
               len(load.acked), *wrong[:5])


# ---- the start ---------------------------------------------------------------------------------

def starts():
    with Bed() as bed:
        bed.put()
        bed.flush()
        bed.put()
        bed.server.kill()
        bed.disk.says("readonly")
        bed.refuses("start, read-only", bed.server.data_dir, EROFS)
        bed.disk.good()
        bed.recovers("start, read-only")
    for folder in ("wal", "engine", "identity", "store-memory"):
        with Bed(folder) as bed:
            bed.put()
            bed.flush()
            bed.put()
            bed.server.kill()
            bed.disk.says("read")
            changed = bed.refuses("start, unreadable " + folder, bed.server.data_dir, EIO)
            TAP.equal(changed, [], "start, unreadable %s: and nothing is changed" % folder)
            bed.disk.good()
            bed.recovers("start, unreadable " + folder)


# ---- the engine alone ----------------------------------------------------------------------------

def engine_full():
    with Bed("engine") as bed:
        bed.put()
        bed.disk.says("free 0")
        big = os.urandom(40000).hex().encode()
        for i in range(40):  # what its file has no free pages for
            bed.client.put(b"big%d" % i, big)
        waiting = bed.client.begin("KV/Compact", api().CompactionRequest(
            revision=bed.client.status().header.revision, physical=True))
        TAP.ok(until(lambda: any("NOSPACE" in text for text in bed.client.status().errors)),
               "engine full: the alarm is raised", bed.client.status().errors)
        error = error_of(lambda: bed.client.put(b"refused", b"x"))
        TAP.equal(error and (error.code().name, error.details()), ("RESOURCE_EXHAUSTED", FULL),
                  "engine full: puts are refused")
        TAP.equal(lost(bed.client, bed.stored), [], "engine full: reads go on")
        TAP.equal(bed.client.delete(b"big0").deleted, 1, "engine full: deletes do")
        bed.disk.good()
        TAP.equal(error_of(waiting.result), None,
                  "engine full: with room again what waited is done")
        TAP.ok(until(lambda: error_of(lambda: bed.client.put(b"after", b"y")) is None),
               "engine full: and puts are taken")
        bed.server.kill()
        bed.recovers("engine full")
        TAP.equal([bed.client.range(b"big%d" % i).count for i in (0, 1, 39)], [0, 1, 1],
                  "engine full: so is what came while it was")


def engine_fails():
    for fault, reason in (("eio", EIO), ("once", EIO), ("write", EIO), ("readonly", EROFS)):
        with Bed("engine") as bed:
            bed.put()
            bed.disk.says(fault)
            error = bed.flush()
            TAP.equal(error and error.code().name, "UNAVAILABLE",
                      "engine, %s: the compaction is not said to be done" % fault)
            bed.stops("engine, " + fault, bed.server.data_dir + "/engine", reason)
            bed.disk.good()
            bed.recovers("engine, " + fault)
            TAP.equal(bed.flush(), None, "engine, %s: and it can be written again" % fault)


# ---- temporary files -----------------------------------------------------------------------------

def temporary_files():
    calls = (("Snapshot", lambda bed: list(bed.client.call("Maintenance/Snapshot",
                                                           api().SnapshotRequest()))),)
    with Bed("tmp") as bed:
        bed.put()
        for name, call in calls:
            for fault, code in (("free 0", "RESOURCE_EXHAUSTED"), ("write", "INTERNAL"),
                                ("read", "INTERNAL"), ("readonly", "INTERNAL")):
                bed.disk.says(fault)
                error = error_of(lambda: call(bed))
                TAP.equal(error and error.code().name, code,
                          "%s, temporary files, %s: the call fails" % (name, fault))
                TAP.ok(error is not None and error.details().startswith("t4: ")
                       and "tmp" in bed.server.log_tail(2), "and the log has the reason",
                       error and error.details(), bed.server.log_tail(2))
                bed.put(1)
            bed.disk.good()
            TAP.equal(error_of(lambda: call(bed)), None, "%s: and works again" % name)
        TAP.equal(bed.server.stop(), 0, "temporary files: a clean stop")


def main():
    if not os.path.exists(t4test.T4.binary):
        TAP.skip_all("t4 was not built")
    log_fails()
    sync_fails_once_under_load()
    starts()
    engine_full()
    engine_fails()
    temporary_files()
    TAP.done()


main()

#!/usr/bin/python3
"""300_object_stores.t - t4 plugin check: bundled stores pass, faulty ones do not.

1. file:// and fault+file:// keep the contract, alone and with latency.
2. regress/plugins/test_store.c breaks one rule at a time: the kit names it.
3. contrib/hello_store is built out of tree, by its own Makefile, and passes.
4. The directory store syncs in the right order: the file, then its name, then the folders.
5. t4 plugin list; wrong words on the command line.

SPDX-License-Identifier: Apache-2.0
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "lib"))

import enginetest  # noqa: E402
import t4test  # noqa: E402
from enginetest import lines, t4  # noqa: E402

TAP = t4test.Tap()
if not os.path.exists(t4test.T4.binary):
    TAP.skip_all("t4 was not built")
TEST_PLUGINS = os.path.join(t4test.BUILD_DIR, "regress", "plugins")
SECONDS = 300

FOLDER = tempfile.mkdtemp(prefix="t4-300-")
# Where no disk has to sync: for what is not about the directory store.
MEMORY = tempfile.mkdtemp(prefix="t4-300-",
                          dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None)
count = 0


def url(wrapper="", folder=FOLDER):
    global count
    count += 1
    return "%sfile://%s/%d" % (wrapper, folder, count)


def passes(what, least, *words):
    enginetest.passes(TAP, what, least, *words)


def left(folder):
    return [os.path.join(at, name) for at, _, names in os.walk(folder) for name in names
            if name != ".lock"]


def bundled():
    passes("file://", 250, url())
    TAP.equal(left(FOLDER), [], "nothing is left in the directory")
    passes("fault+file://", 250, url("fault+"))
    status, output, _ = t4("check", "--rounds=2", "--set", "fault.latency=50:1 99:3",
                           url("fault+"))
    TAP.ok(status == 0 and "# SKIP settings of fault are given" in output,
           "fault+file:// with latency keeps it, too", *lines(output, "not ok"))
    TAP.equal(left(FOLDER), [], "nothing is left in the directory")


FAULTS = {
    "ignore absent": "create-if-absent, the second time",
    "ignore stale": "if-match with a stale tag",
    "retry": "create-if-absent",
    "no tag": "put gives a tag of 1 to 128 bytes",
    "same tag": "and the tag changes",
    "short get": "get gives the bytes of the put",
    "long get": "range of 1 bytes from 1 gives 1 of 100000",
    "list twice": "gives all of them in bytewise order",
    "list skips": "gives all of them in bytewise order",
    "list more": "behind one in the depth",
    "list from the start": "... give each object once",
    "remove one": "leaves the others (1049)",
    "timeout after": "and says truly what became of it",
    "leak": "no memory of host->alloc() is left",
}


def faulty():
    for fault, line in sorted(FAULTS.items()):
        status, output, _ = t4("check", "--rounds=2", "--plugin-dir=" + TEST_PLUGINS,
                               "--set=test_store.fault=" + fault, url("test_store+", MEMORY))
        failed = lines(output, "not ok")
        TAP.ok(status == 1 and any(line in text for text in failed),
               "a store with the fault \"%s\" is noticed" % fault, status, *failed)
    status, output, _ = t4("check", "--plugin-dir=" + TEST_PLUGINS,
                           "--set=test_store.fault=open", url("test_store+"))
    TAP.ok(status == 1 and "# object store \"test_store\": cannot open: the door is shut" in output
           and "# knock" in output, "a store that does not open: its own words", output)


def hello():
    folder = enginetest.copy("hello_store", FOLDER)
    enginetest.make(TAP, "contrib/hello_store", folder,
                    "T4_CFLAGS=-I" + os.path.join(t4test.SRC_DIR, "src", "include"))
    passes("hello_store://", 250, "--plugin-dir", folder, "hello_store://x")
    source = open(os.path.join(folder, "hello_store.c")).read()
    TAP.equal(re.findall(r'#include "(.*)"', source), ["t4_plugin.h"],
              "it includes nothing else of t4")


def syncs():
    """Per thread: a file is synced before it gets a name; then, before anything else, the
    folder of the name and all above it are."""
    trace = os.path.join(FOLDER, "trace")
    where = url()
    root = where[len("file://"):]
    preload = os.path.join(t4test.BUILD_DIR, "regress", "preload", "trace_io.so")
    environment = dict(os.environ, T4_TRACE_IO=trace, LD_PRELOAD=(
        os.environ.get("LD_PRELOAD", "") + " " + preload).strip())
    run = subprocess.run([t4test.T4.binary, "plugin", "check", "--rounds=2", where],
                         stdout=subprocess.PIPE, text=True, timeout=SECONDS, env=environment)
    TAP.ok(run.returncode == 0, "a check is traced", *lines(run.stdout, "not ok"))
    calls = {}
    with open(trace) as source:
        for line in source:
            thread, call, paths = line.rstrip("\n").split(" ", 2)
            calls.setdefault(thread, []).append((call, paths.split(" ")))
    named = removed = 0
    wrong = []
    for thread in calls.values():
        synced, owed = set(), set()
        for call, paths in thread:
            if call == "sync":
                synced.add(paths[0])
                owed.discard(paths[0])
                continue
            if call == "unlink" and paths[0].startswith(root + "/.tmp/"):
                if owed:
                    wrong.append("%s, and not synced: %s" % (paths, owed))
                continue
            if call == "name" and paths[0] not in synced:
                wrong.append("%s has a name and was not synced" % paths)
            if call == "name" and owed:
                wrong.append("%s, and not synced: %s" % (paths, owed))
            named += call == "name"
            removed += call == "unlink"
            folder = os.path.dirname(paths[-1])
            while len(folder) >= len(root):
                owed.add(folder)
                folder = os.path.dirname(folder)
        if owed:
            wrong.append("never synced: %s" % owed)
    TAP.ok(named > 1000 and removed > 1000, "puts and removes were traced", named, removed)
    TAP.equal(wrong[:5], [], "the directory store syncs file, name and folders in order")


def listing():
    status, output, _ = t4("list")
    TAP.equal(status, 0, "t4 plugin list")
    for text in ("\ndir 0.1.0 ", "  object store: file://...", "\nfault 0.1.0 ",
                 "  object store, a wrapper: fault+URL", "  storage engine: lmdb",
                 "  lmdb.map_size=SIZE (default 128 GB)"):
        TAP.ok(text in output, "it has \"%s\"" % text.strip(), output)
    status, output, errors = t4("list", "--plugin-dir=" + FOLDER)
    TAP.ok(status == 1 and "no plugin in " + FOLDER in errors, "an empty folder", errors)


def wrong_words():
    for words, text in (
            (("frob",), 'there is no "frob"'),
            (("check",), "is missing"),
            (("check", "--rounds=0", "x://"), '--rounds takes no "0"'),
            (("check", "--rounds", "many", "x://"), '--rounds takes no "many"'),
            (("check", "--set=region=x", "x://"), "--set=PLUGIN.NAME=VALUE"),
            (("check", "--set=s3.secret", "x://"), "--set=PLUGIN.NAME=VALUE"),
            (("check", "--set=s3.key=@/no/file", "x://"), 'cannot read the file "/no/file"'),
            (("check", "--frob", "x://"), 'there is no flag "--frob"'),
            (("check", "a", "b"), 'a word too many, "b"'),
            (("list", "b"), 'a word too many, "b"'),
            (("check", "--seed=-1", "x"), '--seed takes no "-1"'),
            (("check", "--dir=tmp", "x"), '--dir takes no "tmp"'),
            (("check", "./lmdb"), 'no plugin is called "./lmdb"'),
            (("check", "--plugin-dir=/x", "./lmdb.so"), "a folder is given twice")):
        status, _, errors = t4(*words)
        TAP.ok(status == 2 and text in errors, "t4 plugin " + " ".join(words), status, errors)
    for words in (("--help",), ("list", "--help"), ("check", "--help")):
        status, output, _ = t4(*words)
        TAP.ok(status == 0 and output.startswith("t4 plugin"), "t4 plugin " + " ".join(words))
    status, output, _ = t4("check", "--set=s3.region=x", url())
    TAP.ok(status == 1 and "setting s3.region belongs to a plugin of the URL"
           in "".join(lines(output, "not ok")), "a setting of another plugin")


def main():
    try:
        for part in (bundled, faulty, hello, syncs, listing, wrong_words):
            part()
    finally:
        shutil.rmtree(FOLDER, ignore_errors=True)
        shutil.rmtree(MEMORY, ignore_errors=True)
    TAP.done()


main()

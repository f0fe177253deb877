#!/usr/bin/python3
"""600_engines.t - t4 plugin check of storage engines: bundled ones pass, faulty ones do not.

1. lmdb, the built-in memory engine and contrib/hello_engine keep the contract.
2. regress/plugins/test_engine.c breaks one rule at a time: the kit names it.
3. The same seed is the same history; the scratch folder is gone at the end.

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

TAP = t4test.Tap()
if not os.path.exists(t4test.T4.binary):
    TAP.skip_all("t4 was not built")
FOLDER = tempfile.mkdtemp(prefix="t4-600-")
# Where no disk has to sync.  Killed processes are what is tested, not power failures.
MEMORY = tempfile.mkdtemp(prefix="t4-600-",
                          dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None)
SEED = os.environ.get("T4_TEST_SEED") or "20240229"


def bundled():
    enginetest.passes(TAP, "lmdb", 41, "--seed=" + SEED, "--dir=" + MEMORY, "lmdb")
    enginetest.passes(TAP, "memory", 20, "--seed=" + SEED, "--dir=" + MEMORY, "memory")
    TAP.equal(os.listdir(MEMORY), [], "nothing is left in the folder")


def hello():
    folder = enginetest.copy("hello_engine", FOLDER)
    include = os.path.join(t4test.SRC_DIR, "src", "include")
    enginetest.make(TAP, "contrib/hello_engine", folder, "T4_CFLAGS=-I" + include)
    enginetest.passes(TAP, "hello_engine", 40, "--dir=" + MEMORY, folder + "/hello_engine.so")
    page = open(os.path.join(t4test.SRC_DIR, "sql-like-docs", "guide", "storage-plugin.md")).read()
    source = open(os.path.join(folder, "hello_engine.c")).read()
    pieces = re.findall(r"^```c\n(.*?)^```", page, re.M | re.S)
    TAP.ok(len(pieces) >= 4, "the guide shows the example", len(pieces))
    for piece in pieces:
        TAP.ok(piece in source, "the guide's text is that of the example: %s" %
               piece.split("\n")[1], piece)


FAULTS = {
    "unordered": "seek, next and prev inside and at both ends, just written",
    "end is final": "seek, next and prev inside and at both ends, just written",
    "seek behind": "seek, next and prev inside and at both ends, just written",
    "living snapshot": "a snapshot does not change, nor do iterators and slices of it",
    "value moves": "values stay until snap_end(), an iterator's key until it moves",
    "empty write": "flushed() is the number of the last write",
    "wrong flushed": "flushed() is the number of the last write",
    "miscounts": "stats() counts records",
    "two halves": "readers beside a writer of 40 writes",
    "forgetful sync": "with all before the last sync()",
    "crash without memory": "faults: memory, folders, disks: the engine goes through it",
    "leak": "no memory of host->alloc() is left",
    "leaves a file open": "no file is left open",
    "leaves a thread": "no thread is left running",
    "writes elsewhere": "nothing is written outside of the engine's folder",
    "reading creates": "open_reading() beside a process that writes",
    "load": "plugin test_engine loads",
}


def faulty():
    plugin = os.path.join(t4test.BUILD_DIR, "regress", "plugins", "test_engine.so")
    check = ["--rounds=10", "--seed=" + SEED, "--dir=" + MEMORY]
    enginetest.passes(TAP, "test_engine without a fault", 40, *check, plugin)
    for fault, line in sorted(FAULTS.items()):
        status, output, errors = enginetest.t4(
            "check", *check, "--set=test_engine.fault=" + fault, plugin)
        failed = enginetest.lines(output, "not ok")
        TAP.ok(status == 1 and any(line in text for text in failed),
               "an engine with the fault \"%s\" is noticed" % fault, status, *failed, errors)
    TAP.equal(os.listdir(MEMORY), [], "nothing is left in the folder")


def seeds():
    histories = []
    for seed in ("5", "5", "6"):
        _, output, _ = enginetest.t4("check", "--rounds=5", "--seed=" + seed, "memory")
        TAP.ok("# storage engine memory, seed " + seed in output, "the seed is printed")
        histories.append(re.findall(r"^ok \d+ - (30 writes of .*)$", output, re.M))
    TAP.ok(histories[0] and histories[0] == histories[1], "the same seed, the same history",
           *histories)
    TAP.ok(histories[0] != histories[2], "another seed, another one", *histories)
    status, output, _ = enginetest.t4("check", "--dir=/no/such/folder", "memory")
    TAP.ok(status == 1 and "--dir names another one" in output, "a folder that is not there",
           output)


def main():
    try:
        for part in (bundled, hello, faulty, seeds):
            part()
    finally:
        shutil.rmtree(FOLDER, ignore_errors=True)
        shutil.rmtree(MEMORY, ignore_errors=True)
    TAP.done()


main()

#!/usr/bin/python3
"""602_rocksdb.t - an engine on RocksDB, built out of tree: contract, server, kill -9.

1. t4 is installed somewhere; contrib/rocksdb_engine is built with its own Makefile by what
   pkg-config says of that place, and with t4_plugin.h only.
2. It keeps the contract, by the installed t4.
3. A server runs on it: puts and deletes are there after kill -9, at old revisions, too, those
   that a compaction brought to the engine and those that only the log holds.

SPDX-License-Identifier: Apache-2.0
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import urllib.request

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "lib"))

import enginetest  # noqa: E402
import etcdclient  # noqa: E402
import t4test  # noqa: E402

TAP = t4test.Tap()
if not os.path.exists(t4test.T4.binary):
    TAP.skip_all("t4 was not built")
if not os.path.exists("/usr/include/rocksdb/c.h"):
    TAP.skip_all("there is no librocksdb-dev")
FOLDER = tempfile.mkdtemp(prefix="t4-602-")
MEMORY = tempfile.mkdtemp(prefix="t4-602-",
                          dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None)
ROOT = os.path.join(FOLDER, "root")
ROUNDS = 3
KEYS = 200


def install():
    """Installs below ROOT; the environment in which pkg-config finds it there, and the prefix."""
    # DESTDIR, not prefix: another prefix would compile the build of all tests anew.
    run = subprocess.run(["make", "-s", "-C", t4test.BUILD_DIR, "install", "DESTDIR=" + ROOT],
                         stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=300)
    TAP.ok(run.returncode == 0, "t4 is installed", run.stdout)
    found = [at for at, _, names in os.walk(ROOT) if "t4.pc" in names]
    environment = {"PKG_CONFIG_PATH": "".join(found[:1]), "PKG_CONFIG_SYSROOT_DIR": ROOT}
    said = [subprocess.run(["pkg-config"] + words.split() + ["t4"], stdout=subprocess.PIPE, text=True,
                           env=dict(os.environ, **environment)).stdout.strip()
            for words in ("--variable=prefix", "--cflags", "--modversion")]
    version = subprocess.run([t4test.T4.binary, "version"], stdout=subprocess.PIPE, text=True).stdout
    prefix = said[0] # with ROOT before it
    TAP.ok(prefix.startswith(ROOT + "/") and said[1] == "-I%s/include" % prefix and version.startswith("t4 %s\n" % said[2]),
           "pkg-config knows t4", said, version)
    TAP.ok(os.path.exists(os.path.join(prefix, "include", "t4_plugin.h")), "with its header")
    return environment, prefix


def build(environment, prefix):
    folder = enginetest.copy("rocksdb_engine", FOLDER)
    enginetest.make(TAP, "contrib/rocksdb_engine", folder, environment=environment)
    with open(os.path.join(folder, "rocksdb_engine.c")) as source:
        TAP.equal(re.findall(r'#include "(.*)"', source.read()), ["t4_plugin.h"],
                  "it includes nothing else of t4")
    enginetest.make(TAP, "make install: the engine", folder, "install",
                    environment=environment)
    installed = os.path.join(prefix, "lib", "t4", "rocksdb.so")
    TAP.ok(os.path.exists(installed), "it is installed beside t4's own plugins")
    return os.path.dirname(installed)


class Writer:
    """Writes in rounds that can be told from the answers; keeps what must be there."""

    def __init__(self):
        self.there, self.past = {}, {}
        self.revision = 0

    def round(self, client, number):
        for i in range(KEYS):
            key = b"key%03d" % ((i * 7 + number) % KEYS)
            if (i + number) % 5 == 0:
                self.revision = client.delete(key).header.revision
                self.there.pop(key, None)
                continue
            value = b"%d of %d " % (i, number) + b"v" * (i * 53 % 9000)
            self.revision = client.put(key, value).header.revision
            self.there[key] = value
        self.past[self.revision] = dict(self.there)

    def compact(self, client):
        """To the newest revision; a physical one waits until the engine has everything."""
        client.compact(self.revision, physical=True)
        self.past = {self.revision: dict(self.there)}

    def compare(self, client, what):
        TAP.equal(contents(client, 0), digest(self.there), "%s: every acknowledged write" % what)
        for revision, then in sorted(self.past.items()):
            TAP.equal(contents(client, revision), digest(then),
                      "%s: at revision %d" % (what, revision))


def digest(pairs):
    return len(pairs), hash(tuple(sorted(pairs.items())))


def contents(client, revision):
    answer = client.range(b"key", range_end=b"kez", revision=revision)
    return digest({kv.key: kv.value for kv in answer.kvs})


def flushed_index(server):
    with urllib.request.urlopen("http://%s/metrics" % server.metrics_address) as answer:
        text = answer.read().decode()
    return int(re.search(r"^t4_engine_flushed_index (\d+)$", text, re.M).group(1))


def server_on(plugins):
    server = t4test.T4(["--storage-engine=rocksdb", "--plugin-dir=" + plugins,
                        "--plugin-option=rocksdb.write_buffer=256 kB",
                        "--segment-max-size-mb=1", "--log-level=warn"])
    writer = Writer()
    with server:
        for number in range(ROUNDS):
            TAP.ok(server.start(), "round %d: the server starts on rocksdb" % number,
                   server.log_tail())
            client = etcdclient.Client(server.address)
            if number > 0:
                writer.compare(client, "after kill -9 (%d)" % number)
            writer.round(client, number)
            if number % 2 == 0:
                writer.compact(client)
            TAP.ok(number > 0 or flushed_index(server) > KEYS / 2, "the engine holds what was written")
            writer.round(client, number + 100)
            client.close()
            server.kill()
        files = os.listdir(os.path.join(server.data_dir, "engine"))
        TAP.ok("CURRENT" in files, "the folder is RocksDB's", sorted(files))
        server.start()
        client = etcdclient.Client(server.address)
        writer.compare(client, "in the end")
        client.close()
        server.stop()
        TAP.equal([line for line in server.log().splitlines() if "ERROR" in line or
                   "left" in line], [], "no error, and nothing left behind, in the log")


def main():
    try:
        environment, prefix = install()
        plugins = build(environment, prefix)
        enginetest.passes(TAP, "rocksdb", 41, "--dir=" + MEMORY,
                          os.path.join(plugins, "rocksdb.so"),
                          binary=os.path.join(prefix, "bin", "t4"))
        TAP.equal(os.listdir(MEMORY), [], "nothing is left in the folder")
        server_on(plugins)
    finally:
        shutil.rmtree(FOLDER, ignore_errors=True)
        shutil.rmtree(MEMORY, ignore_errors=True)
    TAP.done()


main()

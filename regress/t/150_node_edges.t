#!/usr/bin/python3
"""150_node_edges.t - data directories that cannot be served: every refusal names the thing and
the way out, and none of them harms what is there.

A second server on the directory, a copy of it (with and without --moved), a damaged identity, a
lost log, an engine of another server, directories that cannot be made or written.

SPDX-License-Identifier: Apache-2.0
"""

import os
import shutil
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "lib"))

import t4test  # noqa: E402

TAP = t4test.Tap()
ENGINE = ["--storage-engine=lmdb"]


def refused(data_dir, *options):
    """Starts a server that must not come up; returns what it says."""
    port, metrics = t4test.free_port(), t4test.free_port()
    argv = [t4test.T4.binary, "run", "--data-dir", data_dir, "--listen", "127.0.0.1:%d" % port,
            "--metrics-addr", "127.0.0.1:%d" % metrics] + ENGINE + list(options)
    environment = {name: value for name, value in os.environ.items()
                   if not name.startswith("T4_")}
    environment["T4_PLUGIN_DIR"] = os.path.join(t4test.BUILD_DIR, "plugins")
    ended = subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                           stderr=subprocess.STDOUT, env=environment, text=True,
                           timeout=t4test.START_SECONDS)
    return ended.returncode, ended.stdout


def refusal(data_dir, what, *words, options=()):
    status, text = refused(data_dir, *options)
    TAP.equal(status, 1, "%s: refused" % what)
    missing = [word for word in words if word not in text]
    TAP.ok(not missing, "%s: says what and what to do" % what,
           "missing: %r in:" % missing, text)


def server_on(directory=None):
    server = t4test.T4(ENGINE, {"T4_PLUGIN_DIR": os.path.join(t4test.BUILD_DIR, "plugins")})
    if directory is not None:
        server.data_dir = directory
    return server


def value_of(server, key):
    import etcdclient
    client = etcdclient.Client(server.address)
    got = client.range(key)
    client.close()
    return [kv.value for kv in got.kvs]


def ids_of(data_dir):
    with open(os.path.join(data_dir, "identity")) as text:
        return dict(line.split(None, 1) for line in text.read().splitlines())


def main():
    if t4test.subject() is None or os.environ.get("T4_SUBJECT", "t4") != "t4":
        TAP.skip_all("no t4 in " + t4test.BUILD_DIR)
    import etcdclient

    with server_on() as server:
        data = server.data_dir
        server.start()
        client = etcdclient.Client(server.address)
        client.put(b"a", b"1")

        # one server per directory
        refusal(data, "a second server", "another server uses the data directory " + data,
                "--data-dir")
        client.put(b"a", b"2")
        client.close()
        TAP.equal(server.stop(), 0, "the first one was not disturbed")

        # a copy
        copy = os.path.join(server.directory, "copy")
        shutil.copytree(data, copy)
        refusal(copy, "a copy", "the data directory " + copy + " is a copy", "--moved")
        TAP.equal(ids_of(copy), ids_of(data), "the refusal has written nothing")
        with server_on(copy) as moved:
            moved.options.append("--moved")
            moved.start()
            TAP.equal(value_of(moved, b"a"), [b"2"], "--moved: the copy serves")
            moved.stop()
            before, after = ids_of(data), ids_of(copy)
            TAP.equal((after["cluster"], after["lineage"]), (before["cluster"], before["lineage"]),
                      "it is the same cluster")
            TAP.ok(after["incarnation"] != before["incarnation"], "in another directory")
            moved.options.remove("--moved")
            moved.start()
            TAP.equal(value_of(moved, b"a"), [b"2"], "the next start needs no --moved")
            moved.stop()
            # a rename is no copy
            os.rename(data, data + ".renamed")
            server.data_dir = data = data + ".renamed"
            server.start()
            TAP.equal(value_of(server, b"a"), [b"2"], "a directory may be renamed")
            server.stop()

            # another server's engine
            with server_on() as other:
                other.start()
                client = etcdclient.Client(other.address)
                client.put(b"b", b"other")
                client.compact(2, physical=True)  # its engine says whose it is
                client.close()
                other.stop()
                own = os.path.join(data, "engine")
                os.rename(own, own + ".own")
                shutil.copytree(os.path.join(other.data_dir, "engine"), own)
                refusal(data, "another server's engine", "belongs to cluster",
                        before["cluster"].strip(), "delete it and the log brings everything back")
                shutil.rmtree(own)
                os.rename(own + ".own", own)

        # the identity
        path = os.path.join(data, "identity")
        with open(path) as text:
            good = text.read()
        for what, bad in (
                ("cut", good[:len(good) // 2]), ("empty", ""),
                ("one digit", good.replace("lineage ", "lineage 1", 1)),
                ("not text", "\0\xff" * 700)):
            with open(path, "r+", encoding="latin-1") as text:  # the same inode
                text.truncate(0)
                text.write(bad)
            refusal(data, "identity damaged (%s)" % what, path + " is damaged", "restore it")
        with open(path, "r+") as text:
            text.truncate(0)
            text.write(good.replace("t4-identity 2", "t4-identity 9", 1))
        refusal(data, "identity of a newer version", "has format 9", "or a later one")
        with open(path, "r+") as text:
            text.truncate(0)
            text.write(good)

        # the log
        server.start()
        client = etcdclient.Client(server.address)
        client.compact(client.put(b"a", b"3").header.revision, physical=True)
        client.close()
        server.stop()
        wal = os.path.join(data, "wal")
        os.rename(wal, wal + ".lost")
        server.start()
        TAP.equal(value_of(server, b"a"), [b"3"], "the log is lost: the store brings it back")
        TAP.ok("beginning without the engine" in server.log(), "and the log says what was missing")
        TAP.equal(server.stop(), 0, "clean stop")

        # directories that cannot be
        plain = os.path.join(server.directory, "plain")
        with open(plain, "w"):
            pass
        refusal(plain, "a file in its place", plain, "a file is in its place", "--data-dir")
        below = os.path.join(plain, "below")
        refusal(below, "below a file", below, "--data-dir")
        absent = os.path.join(server.directory, "no", "such")
        refusal(absent, "no parent", absent, "create the directory", "--data-dir")
        # /proc takes no new files, whoever asks
        refusal("/proc/self", "not writable", "/proc/self", "--data-dir")
    TAP.done()


main()

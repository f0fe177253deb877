#!/usr/bin/python3
"""510_upgrade.t - data directories of earlier versions, and of later ones.

regress/upgrade holds a data directory for each older format, written by the last version of that
format (see make.py there), with what its clients saw.  It is started by this version, which must
show all of that, go on with it, and mark it as its own.  A directory of a later version is refused
with a text that says who wrote it, and left as it is.

SPDX-License-Identifier: Apache-2.0
"""

import glob
import json
import os
import shutil
import subprocess
import sys
import tarfile

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "lib"))

import t4test  # noqa: E402

TAP = t4test.Tap()
ARCHIVES = sorted(glob.glob(os.path.join(HERE, "..", "upgrade", "format*.tar.xz")))
FORMAT = 2
VERSION = subprocess.run([t4test.T4.binary, "version"], stdout=subprocess.PIPE, text=True,
                         check=True).stdout.split()[1] if t4test.subject() else None


def unpack(archive, server):
    """Puts the archive's data directory where the server's is; returns what its clients saw."""
    with tarfile.open(archive) as content:
        content.extractall(server.directory, filter="data") if sys.version_info >= (3, 12) \
            else content.extractall(server.directory)
    with open(os.path.join(server.directory, "expected.json")) as expected:
        return json.load(expected)


def identity(server):
    with open(os.path.join(server.data_dir, "identity")) as text:
        return text.read().splitlines()


def rewrite(server, text):
    """Puts a text with its checksum into the identity, in the same inode."""
    with open(os.path.join(server.data_dir, "identity"), "r+b") as out:
        out.truncate(0)
        out.write(text + b"crc %08x\n" % t4test.crc32c(text))


def settle(server):
    """The unpacked directory is no copy any more, but the original where it always was."""
    path = os.path.join(server.data_dir, "identity")
    device = os.statvfs(path).f_fsid or os.stat(path).st_dev
    lines = identity(server)[:-3] + ["inode %d" % os.stat(path).st_ino, "device %016x" % device]
    rewrite(server, ("\n".join(lines) + "\n").encode())


def refusal(server):
    try:
        server.start()
    except t4test.StartError as error:
        server.kill()
        return str(error)
    server.kill()
    return "it started"


def differences(seen, expected):
    """The first few places where they are not the same, and nothing more."""
    found = ["%s: %s, not %s" % (name, t4test.short(seen[name], 300),
                                 t4test.short(expected[name], 300))
             for name in ("revision", "oldest", "leases", "events")
             if seen[name] != expected[name]]
    return found + ["at revision %s: %s, not %s" % (
        at, t4test.short(seen["kvs"].get(at), 300), t4test.short(kvs, 300))
        for at, kvs in expected["kvs"].items() if seen["kvs"].get(at) != kvs][:3]


def verify(server):
    result = subprocess.run([server.binary, "verify", "--deep", "--data-dir", server.data_dir],
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    return result.returncode, result.stdout[-2000:]


def see(server):
    import etcdclient
    from upgrade import everything
    client = etcdclient.Client(server.address)
    seen = everything(client)
    client.close()
    return seen


def upgraded(archive):
    import etcdclient
    name = os.path.basename(archive)[:-len(".tar.xz")]
    with t4test.T4(["--segment-max-size-mb=1"]) as server:
        expected = unpack(archive, server)
        before = identity(server)
        TAP.ok("is a copy" in refusal(server), "%s: a copied directory is refused" % name)
        TAP.equal(identity(server), before, "and left as it is")
        settle(server)
        server.start()
        TAP.equal(differences(see(server), expected), [],
                  "started, it shows %d revisions, %d events, %d leases as before" % (
                      len(expected["kvs"]), len(expected["events"]), len(expected["leases"])))
        TAP.equal(identity(server)[:2], ["t4-identity %d" % FORMAT, "version " + VERSION],
                  "the directory is of this version now")
        TAP.ok("earlier versions refuse it" in server.log(), "the log says so")
        client = etcdclient.Client(server.address)
        revision = client.put(b"new", b"1").header.revision
        TAP.equal(revision, expected["revision"] + 1, "revisions go on")
        from etcdclient import api
        client.call("Maintenance/Alarm", api.AlarmRequest(action=1, memberID=5, alarm=2))
        client.call("Maintenance/Alarm", api.AlarmRequest(action=2, memberID=5, alarm=2))
        client.call("Maintenance/Defragment", api.DefragmentRequest())
        client.close()
        server.restart()
        seen = see(server)
        seen["events"] = seen["events"][:len(expected["events"])]
        seen["revision"] -= 1
        TAP.equal(differences(seen, expected), [], "and all is there after kill -9")
        TAP.equal(server.stop(), 0, "clean stop")
        status, text = verify(server)
        TAP.equal(status, 0, "t4 verify finds the built-in store whole") or TAP.diag(text)
    with t4test.T4(["--segment-max-size-mb=1"]) as server:
        expected = unpack(archive, server)
        settle(server)
        status, text = verify(server)
        TAP.equal(status, 0, "%s: t4 verify reads the old store as it is" % name) or TAP.diag(text)
        shutil.rmtree(os.path.join(server.data_dir, "engine"))
        server.start()
        TAP.equal(differences(see(server), expected), [],
                  "without its storage engine the log brings everything back")


def listing(server):
    found = {}
    for folder, _, names in os.walk(server.data_dir):
        for name in names:
            path = os.path.join(folder, name)
            found[path] = (os.stat(path).st_mtime_ns, os.stat(path).st_size)
    return found


def later_version():
    with t4test.T4() as server:
        server.start()
        server.stop()
        TAP.equal(identity(server)[:2], ["t4-identity %d" % FORMAT, "version " + VERSION],
                  "a new directory says format and version")
        path = os.path.join(server.data_dir, "identity")
        with open(path) as text:
            good = text.read()
        rewrite(server, b"t4-identity 99\nversion 9.8.7\nsomething nobody knows yet\n")
        before = listing(server)
        said = refusal(server)
        TAP.ok(all(part in said for part in (
            server.data_dir + " has format 99", "written by t4 9.8.7", "this is t4 " + VERSION,
            "formats up to %d" % FORMAT, "start t4 9.8.7 or a later one")),
            "a later version's directory is refused: who wrote it, who reads it, what to do", said)
        TAP.equal(listing(server), before, "and nothing in it was touched")
        with open(path, "r+b") as out:
            out.truncate(0)
            out.write(good.encode())
        server.start()
        TAP.equal(server.stop(), 0, "it was the format only")


def main():
    if t4test.subject() is None:
        TAP.skip_all("no t4 in " + t4test.BUILD_DIR)
    TAP.equal([os.path.basename(path) for path in ARCHIVES],
              ["format%d.tar.xz" % number for number in range(1, FORMAT)],
              "there is a directory of each older format")
    for archive in ARCHIVES:
        upgraded(archive)
    later_version()
    TAP.done()


main()

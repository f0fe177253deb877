#!/usr/bin/python3
"""435_snapshot.t - snapshots: t4's to a real etcd, a real etcd's to t4, and back.

  to etcd      etcdctl snapshot save from t4, etcdutl snapshot status and restore, etcd started on
               it: the same keys at every revision kept, leases with their keys, HashKV
  from etcd    etcdctl snapshot save, and the database file of a member as it lies there ->
               t4 run --from-snapshot, into the built-in store and into a given one

SPDX-License-Identifier: Apache-2.0
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "lib"))

import t4test  # noqa: E402
import etcdclient  # noqa: E402
import historytest  # noqa: E402
from historytest import QUICK, tool  # noqa: E402

TAP = t4test.Tap()
SEED = int(os.environ.get("T4_TEST_SEED", "20240309"))


def save(server, path):
    done = tool("etcdctl", "--endpoints", server.address, "snapshot", "save", path)
    if done.returncode != 0:
        TAP.diag(done.stdout)
    return done.returncode == 0


def same_status(path, name):
    """t4 snapshot status says what etcdutl says."""
    ours = subprocess.run([t4test.T4.binary, "snapshot", "status", path, "--json"],
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    theirs = tool("etcdutl", "snapshot", "status", path, "-w", "json")
    try:
        TAP.equal(json.loads(ours.stdout), json.loads(theirs.stdout.splitlines()[-1]),
                  name + ": t4 snapshot status")
    except (ValueError, IndexError):
        TAP.ok(False, name + ": t4 snapshot status", ours.stdout, theirs.stdout)


def restore_etcd(path, *flags):
    """A real etcd on what etcdutl made of the file."""
    server = t4test.Etcd(QUICK)
    done = tool("etcdutl", "snapshot", "restore", path, "--data-dir", server.data_dir,
                "--name", "reference", "--initial-cluster", "reference=" + server.peer,
                "--initial-advertise-peer-urls", server.peer, *flags)
    if done.returncode != 0:
        TAP.diag(done.stdout)
        return None
    return server.start()


def state(server, history, extra=()):
    revisions = range(max(1, history.compacted), history.revision + 1, 7)
    client = etcdclient.Client(server.address)
    try:
        return historytest.state_of(client, history.compacted, list(revisions) + list(extra))
    finally:
        client.close()


def compare(got, want, name):
    wrong = [key for key in sorted(set(got) | set(want)) if got.get(key) != want.get(key)]
    TAP.ok(not wrong, name, *["%s: got %s, want %s" % (
        key, t4test.short(got.get(key), 300), t4test.short(want.get(key), 300))
        for key in wrong[:4]])


def to_etcd(directory):
    server = t4test.T4().start()
    history = historytest.History([etcdclient.Client(server.address)], SEED)
    for name, steps, compact in (("empty", 0, False), ("some history", 150, False),
                                 ("compacted", 60, True), ("all compacted", 0, True)):
        history.steps(steps)
        if name == "compacted":
            history.clients[0].put(b"large", b"x" * 1000000)  # pages that overflow
            history.revision += 1
        if compact:
            history.compact(history.revision - steps // 3)
        path = os.path.join(directory, name.replace(" ", "-"))
        TAP.ok(save(server, path), name + ": etcdctl snapshot save")
        status = tool("etcdutl", "snapshot", "status", path, "-w", "json")
        try:
            said = json.loads(status.stdout.splitlines()[-1])
        except (ValueError, IndexError):
            said = {"error": status.stdout}
        wanted = history.revision if history.revision > 1 else 0
        TAP.ok(said.get("revision") == wanted and said.get("version") == "3.6.0" and
               said.get("totalSize") == os.path.getsize(path) - 32,
               name + ": etcdutl snapshot status", said)
        same_status(path, name)
        done = subprocess.run([server.binary, "snapshot", "save", path + "-again", "--endpoints",
                               server.address], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        with open(path, "rb") as first, open(path + "-again", "rb") as second:
            TAP.ok(first.read() == second.read(), name + ": t4 snapshot save gives the same bytes",
                   done.stdout)
        other = restore_etcd(path)
        if TAP.ok(other is not None, name + ": etcdutl snapshot restore"):
            compare(state(other, history), state(server, history), name + ": etcd has the same")
            with_etcd = etcdclient.Client(other.address)
            answer = with_etcd.put(b"after", b"1")
            TAP.equal(answer.header.revision, history.revision + 1, name + ": and goes on")
            other.close()
    server.close()


def run_t4(directory, *flags):
    """A `t4 run` that is expected to refuse: its log."""
    server = t4test.T4(options=list(flags))
    if directory is not None:
        server.data_dir = directory
    try:
        server.start()
        TAP.diag("it started")
        return ""
    except t4test.StartError:
        with open(server.log_path, encoding="utf-8") as log:
            return log.read()
    finally:
        server.close()


def verify(server, *flags):
    done = subprocess.run([server.binary, "verify", "--deep", "--data-dir", server.data_dir,
                           *flags], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    return done.returncode == 0, done.stdout


def from_etcd(directory):
    etcd = t4test.Etcd(QUICK).start()
    history = historytest.History([etcdclient.Client(etcd.address)], SEED + 1)
    for name, steps, compact, store in (
            ("empty", 0, False, False), ("some history", 150, False, True),
            ("compacted", 60, True, False), ("all deleted", 0, True, True)):
        history.steps(steps)
        if name == "all deleted":
            history.delete_all()
        if compact:
            history.compact(history.revision - steps // 3)
        path = os.path.join(directory, "etcd-" + name.replace(" ", "-"))
        save(etcd, path)
        same_status(path, name)
        flags = ["--from-snapshot", path]
        if store:
            flags += ["--object-store", "file://" + os.path.join(directory, "store-" + name[:4])]
        server = t4test.T4(options=flags).start()
        wanted = state(etcd, history)
        if history.compacted > 0:  # etcd's cache of the compacted revision, see 430
            wanted["hash"] = historytest.hash_kv(etcdclient.Client(etcd.address), 0)[:3]
        compare(state(server, history), wanted, name + ": t4 has what etcd has")
        client = etcdclient.Client(server.address)
        answer = client.put(b"after", b"1")
        TAP.equal(answer.header.revision, history.revision + 1, name + ": and goes on")
        server.kill()
        server.start()
        answer = client.range(b"after")
        TAP.ok(answer.header.revision == history.revision + 1 and answer.count == 1,
               name + ": also after kill -9, the flag still given", answer)
        lease = history.leases[0] if history.leases else 0
        if lease:
            keys = client.time_to_live(lease, keys=True).keys
            revoked = client.lease_revoke(lease)
            left = [k for k in keys if client.range(k).count]
            TAP.ok(not left and revoked.header.revision == answer.header.revision +
                   bool(keys), name + ": a lease takes its keys with it", left)
        server.stop()
        good, text = verify(server, *(flags[2:] if store else []))
        TAP.ok(good, name + ": t4 verify --deep", text)
        server.close()
    etcd.close()


if not historytest.tools_are_there():
    TAP.skip_all("no etcd 3.6 with its tools was built")
WORK = tempfile.mkdtemp(prefix="t4test-snapshot-")
try:
    to_etcd(WORK)
    from_etcd(WORK)
finally:
    shutil.rmtree(WORK, ignore_errors=True)
TAP.done()

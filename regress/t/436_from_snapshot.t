#!/usr/bin/python3
"""436_from_snapshot.t - t4 run --from-snapshot: what it refuses, and kill -9 at every step.

Refused, with the way out, and nothing left behind: a directory or store that is not empty, files of
other kinds, cut and damaged ones, authentication, a second restore.  Killed behind each object that a
restore makes: whoever starts without the flag is refused and told why, and the same command
finishes.  A member's database file is taken with --skip-hash-check; so is a snapshot of etcd 3.4.

SPDX-License-Identifier: Apache-2.0
"""

import os
import shutil
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "lib"))

import t4test  # noqa: E402
import etcdclient  # noqa: E402
import historytest  # noqa: E402
from historytest import QUICK, save, tool  # noqa: E402
from storetest import DirStore, server, until  # noqa: E402

TAP = t4test.Tap()
SEED = int(os.environ.get("T4_TEST_SEED", "20240310"))


def state(instance, history):
    client = etcdclient.Client(instance.address)
    try:
        return historytest.state_of(client, history.compacted,
                                    range(max(1, history.compacted), history.revision + 1, 9))
    finally:
        client.close()


def refused(name, wanted, *flags, instance=None, hint=""):
    """A start that must fail, and say why."""
    one = instance or t4test.T4(options=list(flags))
    try:
        one.start()
        TAP.ok(False, name, "it started")
    except t4test.StartError as error:
        TAP.ok(wanted in str(error) and hint in str(error), name, error)
    finally:
        one.kill()
        if instance is None:
            one.close()


def files_of(store):
    return sorted(os.path.join(folder, name)[len(store.path) + 1:]
                  for folder, _, names in os.walk(store.path) for name in names
                  if not name.startswith(".") and "/.tmp" not in folder)


def write(path, data):
    with open(path, "wb") as out:
        out.write(data)
    return path


def other_files(snapshot, directory):
    with open(snapshot, "rb") as source:
        good = source.read()
    path = os.path.join(directory, "other")
    for name, data, wanted, hint in (
            ("empty", b"", "it is no bbolt database", "etcdctl snapshot save"),
            ("text", b"hello\n" * 2000, "it is no bbolt database", "etcdctl snapshot save"),
            ("cut to half", good[:len(good) // 2], "cut short", ""),
            ("without its hash", good[:-32], "it has no hash at its end", "--skip-hash-check"),
            ("another hash", good[:-32] + bytes(32), "do not have the hash", "another copy"),
            ("a byte changed", good[:20000] + bytes([good[20000] ^ 1]) + good[20001:],
             "do not have the hash", "another copy"),
            ("both metas damaged", good[:20] + b"x" + good[21:4116] + b"x" + good[4117:],
             "both meta pages", "")):
        refused("refused: " + name, wanted, "--from-snapshot", write(path, data), hint=hint)
    refused("refused: no such file", "cannot open", "--from-snapshot", path + "-none")
    refused("refused: a directory", "", "--from-snapshot", directory)
    return good


def not_empty(snapshot, other):
    with DirStore() as store:
        with server(store) as used:
            used.start()
            etcdclient.Client(used.address).put(b"a", b"1")
            used.stop()
            before = files_of(store)
            used.options += ["--from-snapshot", snapshot]
            refused("refused: a directory in use", "is not empty",
                    hint="leave out --from-snapshot", instance=used)
        with server(store, "--from-snapshot", snapshot) as fresh:
            refused("refused: a store in use", "is not empty", hint="leave out --from-snapshot",
                    instance=fresh)
            TAP.equal(files_of(store), before, "and the store is as it was")
    begun = t4test.T4(options=["--from-snapshot", snapshot]).start()
    begun.stop()
    begun.options = ["--from-snapshot", other]
    refused("refused: begun from another snapshot", "was begun from another snapshot",
            instance=begun)
    begun.options = ["--from-snapshot", snapshot + "-gone"]
    begun.start()
    TAP.ok(True, "begun before, and the file is gone: starts")
    begun.close()
    with DirStore() as store:
        with server(store) as used:
            used.start()
            used.stop()
        for name in ("cluster", "leader-lock"):
            os.unlink(os.path.join(store.path, name))
        with server(store, "--from-snapshot", snapshot) as fresh:
            refused("refused: objects without a lock", "is not empty", instance=fresh)


def authentication(directory):
    etcd = t4test.Etcd(QUICK).start()

    def ctl(*words):
        done = tool("etcdctl", "--endpoints", etcd.address, *words)
        if done.returncode != 0:
            TAP.diag(done.stdout)

    ctl("put", "a", "1")
    ctl("user", "add", "root:secret")
    ctl("auth", "enable")
    path = os.path.join(directory, "auth")
    ctl("--user", "root:secret", "snapshot", "save", path)
    refused("refused: authentication enabled", "authentication is enabled", "--from-snapshot",
            path, hint="auth disable")
    ctl("--user", "root:secret", "auth", "disable")
    ctl("snapshot", "save", path)
    instance = t4test.T4(options=["--from-snapshot", path]).start()
    with open(instance.log_path, encoding="utf-8") as log:
        TAP.ok("has users and roles" in log.read(), "disabled: taken, and a warning")
    instance.close()
    etcd.stop()
    member = shutil.copy(os.path.join(etcd.data_dir, "member", "snap", "db"),
                         os.path.join(directory, "db"))
    etcd.close()
    refused("refused: a member's file", "it has no hash", "--from-snapshot", member,
            hint="--skip-hash-check")
    instance = t4test.T4(options=["--from-snapshot", member, "--skip-hash-check"]).start()
    TAP.equal(etcdclient.Client(instance.address).range(b"a").kvs[0].value, b"1",
              "a member's file with --skip-hash-check")
    instance.close()


def etcd_34(directory):
    if not os.path.exists(t4test.ETCD_DEBIAN):
        TAP.skip("no etcd 3.4 here")
        return
    etcd = t4test.Etcd(QUICK, debian=True).start()
    history = historytest.History([etcdclient.Client(etcd.address)], SEED + 2)
    history.steps(80)
    history.compact(history.revision - 20)
    path = os.path.join(directory, "etcd34")
    save(etcd.address, path)
    instance = t4test.T4(options=["--from-snapshot", path]).start()
    ours, theirs = state(instance, history), state(etcd, history)
    ours.pop("hash")
    theirs.pop("hash")  # 3.4 has no field for the hashed revision
    TAP.equal(ours, theirs, "etcd 3.4's snapshot")
    instance.close()
    etcd.close()


# Each object that a restore makes: the request, and how its effect is seen.
POINTS = [("put restoring", "restoring"), ("put sst/", "sst"), ("put run/", "run"),
          ("put checkpoint/", "checkpoint"), ("put leader-lock", "leader-lock"),
          ("put manifest/", "manifest"), ("put cluster", "cluster"), ("remove *", None)]


def has_effect(store, what):
    files = files_of(store)
    if what is None:
        return "cluster" in files and "restoring" not in files
    return any(name.startswith(what) for name in files)


def killed(snapshot, other, wanted, history):
    for request, effect in POINTS:
        name = "killed behind " + request
        with DirStore() as store:
            instance = server(store, "--from-snapshot", snapshot)
            store.control("hold-answer " + request)
            instance.start(wait=False)
            TAP.ok(until(lambda: has_effect(store, effect)), name)
            instance.kill()
            store.control()
            if effect not in ("cluster", None):
                with server(store) as stranger:
                    refused(name + ": an ordinary start is refused", "is not finished",
                            hint="same file", instance=stranger)
                with server(store, "--from-snapshot", other) as stranger:
                    refused(name + ": another snapshot is refused", "another snapshot",
                            hint="that file again", instance=stranger)
            if effect == "checkpoint":
                with t4test.T4() as stranger:
                    os.makedirs(stranger.data_dir)
                    shutil.copytree(store.path, os.path.join(stranger.data_dir, "store"))
                    refused(name + ": in the built-in store, too", "is not finished",
                            hint="same file", instance=stranger)
            instance.start()
            got = state(instance, history)
            TAP.ok(got == wanted and "restoring" not in files_of(store),
                   name + ": the same command finishes", files_of(store))
            instance.close()


def cut_built_in(snapshot, wanted, history):
    """The built-in store: killed at any time."""
    for number in range(6):
        instance = t4test.T4(options=["--from-snapshot", snapshot])
        instance.start(wait=False)
        store = os.path.join(instance.data_dir, "store")
        names = ["restoring", "sst+", "run+", "checkpoint+", "leader-lock", "cluster"]
        until(lambda: os.path.exists(os.path.join(store, names[number])))
        instance.kill()
        instance.start()
        TAP.ok(state(instance, history) == wanted, "built-in store: killed about %s" %
               names[number])
        instance.close()


if not historytest.tools_are_there():
    TAP.skip_all("no etcd 3.6 with its tools was built")

WORK = tempfile.mkdtemp(prefix="t4test-snapshot-")
try:
    SOURCE = t4test.T4().start()
    HISTORY = historytest.History([etcdclient.Client(SOURCE.address)], SEED)
    HISTORY.steps(10)
    OTHER = os.path.join(WORK, "first")
    save(SOURCE.address, OTHER)
    HISTORY.steps(120)
    HISTORY.compact(HISTORY.revision - 40)
    SNAPSHOT = os.path.join(WORK, "second")
    save(SOURCE.address, SNAPSHOT)
    WANTED = state(SOURCE, HISTORY)
    SOURCE.close()
    other_files(SNAPSHOT, WORK)
    not_empty(SNAPSHOT, OTHER)
    authentication(WORK)
    etcd_34(WORK)
    killed(SNAPSHOT, OTHER, WANTED, HISTORY)
    cut_built_in(SNAPSHOT, WANTED, HISTORY)
finally:
    shutil.rmtree(WORK, ignore_errors=True)
TAP.done()

#!/usr/bin/python3
"""345_wal_export.t - t4 wal export shows what was written, names damage, and touches nothing.

Writes by etcdctl, the log exported beside the running server and after its stop, compared with
what was written; frames, files and saved divergent entries damaged.

SPDX-License-Identifier: Apache-2.0
"""

import base64
import json
import os
import re
import shutil
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "lib"))

import t4test  # noqa: E402
from storetest import DirStore, server  # noqa: E402

TAP = t4test.Tap()


def export(*words, **variables):
    """(status, standard output, standard error)"""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("T4_")}
    run = subprocess.run([t4test.T4.binary, "wal", "export"] + list(words), text=True,
                         stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=60,
                         env=dict(environment, **variables))
    return run.returncode, run.stdout, run.stderr


def rows(out):
    return [json.loads(line) for line in out.splitlines()]


def bytes_of(row, name):
    if name in row:
        return row[name].encode()
    return base64.b64decode(row[name + "_base64"]) if name + "_base64" in row else None


def changes(out):
    """(revision, op, key, value) of the user's keys."""
    return [(row["revision"], row["op"], bytes_of(row, "key"), bytes_of(row, "value"))
            for row in rows(out) if row.get("space") == "keys"]


def tree(folder):
    """Everything that a write would change: names, inodes, sizes, times."""
    found = {}
    for place, folders, names in os.walk(folder):
        for path in [place] + [os.path.join(place, name) for name in names]:
            state = os.stat(path)
            found[path] = (state.st_ino, state.st_size, state.st_mtime_ns, state.st_ctime_ns)
    return found


def segment(instance):
    return os.path.join(instance.data_dir, "wal", "%016x.wal" % 1)


def flip(path, offset):
    with open(path, "r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 0x40]))


# ---- what was written ------------------------------------------------------------------------

def written_by_etcdctl(instance):
    """Runs etcdctl; returns what the log must say."""
    _, etcdctl = t4test.etcdctl_binaries()[0]

    def run(*words, value=None):
        return subprocess.run([etcdctl, "--endpoints", instance.address] + list(words),
                              input=value, stdout=subprocess.PIPE, check=True,
                              env=dict(os.environ, ETCDCTL_API="3")).stdout.decode()

    want = []
    for number in range(5):
        run("put", "key%d" % number, "value %d" % number)
        want.append((2 + number, "put", b"key%d" % number, b"value %d" % number))
    for key, value in (("b\u00fccher/\u65e5", "\u20ac\n\"\\".encode()), ("bytes", b"\xff\x00\xfe")):
        run("put", key, value=value)
        want.append((len(want) + 2, "put", key.encode(), value))
    run("del", "key", "--prefix")
    want += [(9, "delete", b"key%d" % number, None) for number in range(5)]
    lease = run("lease", "grant", "600").split()[1]
    run("put", "leased", "x", "--lease=" + lease)
    want.append((10, "put", b"leased", b"x"))
    run("compact", "8")
    return want, int(lease, 16)


def what_was_written():
    with t4test.T4() as instance:
        instance.start()
        want, lease = written_by_etcdctl(instance)
        TAP.equal(instance.stop(), 0, "a clean stop")
        before = tree(instance.data_dir)
        code, out, err = export("--data-dir", instance.data_dir)
        TAP.equal((code, err), (0, ""), "t4 wal export after the stop")
        TAP.equal(changes(out), want, "it shows what was written")
        TAP.equal(tree(instance.data_dir), before, "and nothing in the directory changed")
        instance.start()
        code, out, err = export("--data-dir", instance.data_dir)
        TAP.ok(code == 0 and changes(out) == want, "the same beside the running server", out, err)
        TAP.equal(instance.stop(), 0, "which never noticed")

        found = rows(out)
        TAP.equal(sorted({row["index"] for row in found}),
                  list(range(1, found[-1]["index"] + 1)), "entries without a hole")
        TAP.ok(all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", row["time"])
                   and row["term"] > 0 for row in found), "with time and term")
        leased = [row for row in found if row.get("lease") == lease]
        TAP.equal([(row["space"], row["key"], row.get("create_revision"), row.get("version"))
                   for row in leased],
                  [("keys", "leased", 10, 1), ("attachments", "leased", None, None)],
                  "a leased key with its lease, and the attachment")
        TAP.equal([row["compact_revision"] for row in found if row["kind"] == "compaction"], [8],
                  "the compaction")

        code, out, err = export("--from=3", "--to=4", T4_DATA_DIR=instance.data_dir)
        TAP.equal((code, changes(out)), (0, want[2:4]), "a range of it, by T4_DATA_DIR")
        code, out, err = export("--data-dir", instance.data_dir, "--keys=base64")
        TAP.ok(changes(out) == want and not any("key" in row for row in rows(out)),
               "everything in base64", out)
        code, out, err = export("--data-dir", instance.data_dir, "--format=text", "--to=1")
        TAP.ok(code == 0 and re.fullmatch(
            r'index=1 term=\d+ revision=2 time=\S+ kind=normal space=keys op=put key="key0" '
            r'create_revision=2 version=1 lease=0 value="value 0"\n', out), "as text", out, err)
        code, out, err = export("--data-dir", instance.data_dir, "--from=1000")
        TAP.ok(code == 0 and out == "" and "indexes 1 to %d" % found[-1]["index"] in err,
               "a range that is not there is told", out, err)
        damaged_frame(instance, want)


def damaged_frame(instance, want):
    path = segment(instance)
    with open(path, "rb") as file:
        at = file.read().index(b"value 3")
    flip(path, at)
    before = tree(instance.data_dir)
    code, out, err = export("--data-dir", instance.data_dir)
    named = re.search(r"%s .*damaged at offset (\d+): entries 4 to 4 " % re.escape(path), err)
    TAP.ok(code == 1 and named and at - 100 < int(named.group(1)) < at,
           "a damaged frame is named by file and offset", at, err)
    TAP.equal(changes(out), want[:3] + want[4:], "what is around it is shown")
    TAP.equal(tree(instance.data_dir), before, "and nothing is mended")
    flip(path, at)
    os.rename(path, path + ".away")
    code, out, err = export("--data-dir", instance.data_dir)
    TAP.ok(code == 0 and out == "" and "no entry to show" in err,
           "a directory with a spare segment only has no entries", out, err)
    flip(path.replace("%016x" % 1, "%016x" % 2), 100)
    code, out, err = export("--data-dir", instance.data_dir)
    TAP.ok(code == 1 and "%016x.wal of the log: the header" % 2 in err,
           "a damaged header is named", out, err)


# ---- divergent tails ---------------------------------------------------------------------------

def made_divergent(store):
    """A stopped server whose last two acknowledged writes history went on without."""
    import etcdclient
    old = server(store, "--wal-sync-upload=false", "--upload-max-age=1h", "--take-over-now")
    old.start()
    client = etcdclient.Client(old.address)
    client.put(b"only-here", b"1")
    client.put(b"only-here", b"2")
    client.close()
    old.kill()
    with server(store, "--take-over-now") as new:
        new.start()
        new.stop()
    return old


def divergent():
    with DirStore() as store, made_divergent(store) as old:
        old.start(wait=False)
        TAP.equal(old.wait(60), 1, "the start with a divergent tail is refused")
        hint = re.search(r"t4 (wal export --data-dir=\S+ --from=\d+)", old.log())
        TAP.ok(hint, "the refusal says how to see the writes", old.log_tail())
        words = hint.group(1).split()[2:] if hint else ["--data-dir", old.data_dir]
        code, out, err = export(*words)
        want = [(2, "put", b"only-here", b"1"), (3, "put", b"only-here", b"2")]
        TAP.equal((code, changes(out)), (0, want), "and so they are seen")
        first = out
        old.options.append("--discard-divergent-tail")
        old.start()
        old.kill()
        name = [name for name in os.listdir(old.data_dir) if name.startswith("divergent-")][0]
        code, out, err = export("--data-dir", old.data_dir)
        TAP.ok(code == 0 and b"only-here" not in [key for _, _, key, _ in changes(out)],
               "once cut they are no part of the log", out, err)
        before = tree(old.data_dir)
        code, out, err = export("--data-dir", old.data_dir, "--file", name)
        TAP.equal((code, out, err), (0, first, ""), "the saved file shows the same")
        TAP.equal(tree(old.data_dir), before, "nothing changed")
        path = os.path.join(old.data_dir, name)
        code, out, err = export("--file", path, "--from=2")
        TAP.equal((code, changes(out)), (0, want[1:]), "by its path, in part")
        damaged_saved(path, want)


def damaged_saved(path, want):
    with open(path, "rb") as file:
        good = file.read()
    second = 4 + int.from_bytes(good[:4], "little")
    cases = [
        ("cut short", good[:-3], second, want[:1]),
        ("cut in a length", good[:second + 2], second, want[:1]),
        ("a length that is too long", good[:second] + b"\xff" * 4 + good[second + 4:], second,
         want[:1]),
        ("no entry", good[:4] + b"?" + good[5:], 0, want[1:]),
        ("an entry twice", good[:second] * 2, second, want[:1] * 2),
    ]
    for name, content, offset, left in cases:
        with open(path, "wb") as file:
            file.write(content)
        code, out, err = export("--file", path)
        TAP.ok(code == 1 and "%s is damaged at offset %d:" % (path, offset) in err
               and changes(out) == left, "a saved file with %s" % name, out, err)


# ---- the command ------------------------------------------------------------------------------

def failures():
    with t4test.T4() as none:
        os.mkdir(none.data_dir)
        cases = [
            ([], 2, "of which data directory?"),
            (["--data-dir", none.data_dir, "--format=xml"], 2, "json or text"),
            (["--data-dir", none.data_dir], 1, "there is no log in " + none.data_dir),
            (["--data-dir", none.data_dir, "--file=divergent-1-2.log"], 1,
             none.data_dir + "/divergent-1-2.log"),
        ]
        for words, code, text in cases:
            got, out, err = export(*words)
            TAP.ok(got == code and out == "" and text in err, "t4 wal export %s" % words, got, err)
        TAP.equal(os.listdir(none.data_dir), [], "nothing was created")
        shutil.rmtree(none.data_dir)
    run = subprocess.run([t4test.T4.binary, "wal", "import"], stdout=subprocess.PIPE,
                         stderr=subprocess.PIPE, text=True)
    TAP.ok(run.returncode == 2 and "t4 wal export" in run.stderr, "t4 wal import", run.stderr)
    texts = [subprocess.run([t4test.T4.binary] + words, stdout=subprocess.PIPE,
                            text=True).stdout
             for words in (["help", "wal"], ["wal", "--help"], ["wal", "export", "--help"])]
    TAP.ok(len(set(texts)) == 1 and "--data-dir=DIR" in texts[0], "the help, in three ways")


def main():
    if not os.path.exists(t4test.T4.binary):
        TAP.skip_all("t4 was not built")
    if not t4test.etcdctl_binaries():
        TAP.skip_all("no etcdctl here; Debian package etcd-client")
    what_was_written()
    divergent()
    failures()
    TAP.done()


main()

#!/usr/bin/python3
"""552_inspect.t - t4 inspect shows what is there: of a directory, beside a server, of a server.

A history of puts, deletes and transactions on keys of any bytes is kept in a model.  What list, get,
count, history and diff print is compared with it: of the directory while the server writes the
log, after flushes and compaction, after kill -9, and through --endpoint, also of a real etcd.
Beside a server that writes the listing is one moment, nothing on the disk is written by it, and
one that is killed does not hold pages for ever.  A disk that is not filled yet is not shown.

SPDX-License-Identifier: Apache-2.0
"""

import base64
import concurrent.futures
import json
import os
import random
import shutil
import signal
import struct
import subprocess
import sys
import threading

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "lib"))

import t4test  # noqa: E402
from storetest import DirStore, metric, server, until  # noqa: E402

TAP = t4test.Tap()
SECONDS = 60
POOL = concurrent.futures.ThreadPoolExecutor(4)
ENVIRONMENT = {name: value for name, value in os.environ.items()
               if not name.startswith(("ETCD", "T4_")) or name == "T4_PLUGIN_DIR"}


def start(*words):
    return [t4test.T4.binary, "inspect", *words]


def run(*words):
    """(status, standard output, standard error)"""
    done = subprocess.run(start(*words), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          env=ENVIRONMENT, timeout=SECONDS)
    return done.returncode, done.stdout, done.stderr.decode(errors="replace")


def rows(*words):
    """The JSON lines of a command that must succeed."""
    status, out, err = run(*words, "--json")
    if status != 0:
        TAP.diag("%s: %d %s" % (" ".join(words), status, err))
        return None
    return [json.loads(line) for line in out.decode().splitlines()]


def text(data):
    return base64.b64encode(data).decode()


def bytes_of(row, name):
    data = base64.b64decode(row[name + "_base64"])
    if name in row and row[name].encode() != data:
        TAP.ok(False, "%s and %s_base64 are the same" % (name, name), row)
    return data


# ---- the model ------------------------------------------------------------------------------

class Model:
    """Every version that ever was: key -> [(revision, None or (value, create, version, lease))]"""

    def __init__(self):
        self.versions = {}
        self.revision = 1
        self.compacted = 0

    def at(self, key, revision):
        state = None
        for number, what in self.versions.get(key, ()):
            if number <= revision:
                state = what
        return state

    def put(self, key, value, revision, lease=0):
        before = self.at(key, revision)
        create, version = (before[1], before[2] + 1) if before else (revision, 1)
        self.versions.setdefault(key, []).append((revision, (value, create, version, lease)))
        self.revision = max(self.revision, revision)

    def delete(self, key, revision):
        self.versions[key].append((revision, None))
        self.revision = max(self.revision, revision)

    def list(self, prefix, revision):
        found = []
        for key in sorted(self.versions):
            state = self.at(key, revision)
            if state and key.startswith(prefix):
                last = max(number for number, _ in self.versions[key] if number <= revision)
                found.append((key, last) + state)
        return found

    def history(self, key):
        found = []
        for number, what in reversed(self.versions.get(key, [])):
            if number > self.compacted:
                found.append((number, what))
            elif what is not None:
                found.append((number, what))
                break
            else:
                break
        return found

    def diff(self, prefix, first, last):
        found = []
        for key in sorted(self.versions):
            changes = [(number, what) for number, what in self.versions[key]
                       if first < number <= last]
            if not changes or not key.startswith(prefix):
                continue
            before, after = self.at(key, first), self.at(key, last)
            if not before:
                kind = "created" if after else "created+deleted"
            elif not after:
                kind = "deleted"
            else:
                kind = "updated" if before[1] == after[1] else "recreated"
            found.append((key, kind, changes[0][0], changes[-1][0], len(changes),
                          before and before[0], after and after[0]))
        return found


KEYS = [b"a", b"a/1", b"a/2", b"a\0b", b"\xff\xfe", b"\xff", b"b\n", b"quote\"", "schlüssel".encode(),
        b"b", b"c" * 700, b"z"]


def write(client, model, chance, number, size=40):
    """So many random requests, the same for every server with the same chance."""
    import etcdclient
    api = etcdclient.api
    for _ in range(number):
        key = chance.choice(KEYS)
        value = chance.randbytes(chance.randrange(size))
        what = chance.randrange(10)
        if what < 6:
            model.put(key, value, client.put(key, value).header.revision)
        elif what < 8:
            if model.at(key, model.revision):
                model.delete(key, client.delete(key).header.revision)
        else:
            keys = chance.sample(KEYS, 3)
            there = [k for k in keys[:2] if model.at(k, model.revision)]
            answer = client.txn(success=[
                api.RequestOp(request_delete_range=api.DeleteRangeRequest(key=k))
                for k in keys[:2]] + [api.RequestOp(request_put=api.PutRequest(
                    key=keys[2], value=value))])
            for k in there:
                model.delete(k, answer.header.revision)
            model.put(keys[2], value, answer.header.revision)


# ---- comparisons -----------------------------------------------------------------------------

def compare(name, source, model):
    """Everything of this source is as in the model."""
    lists = [(prefix, revision) for prefix, revision in (
        (b"", 0), (b"a", 0), (b"\xff", 0), (b"", max(model.compacted, model.revision - 7)),
        (b"", model.compacted))]
    keys = (KEYS[0], KEYS[3], KEYS[4], KEYS[10])
    first = max(model.compacted, 1)
    middle = (first + model.revision) // 2
    diffs = ((first, 0, b""), (middle, 0, b"a"), (first, middle, b""), (middle, middle, b""),
             (middle, middle + 1, b""))
    todo = [(command, source, "--base64", "--prefix=" + text(prefix), "--rev=%d" % revision)
            + (("--limit=0",) if command == "list" else ())
            for prefix, revision in lists for command in ("list", "count")]
    todo += [("history", source, "--limit=%d" % limit, "--base64", text(key))
             for key in keys for limit in (0, 2)]
    todo += [("diff", source, "--limit=0", "--from-rev=%d" % low, "--to-rev=%d" % high,
              "--base64", "--prefix=" + text(prefix)) for low, high, prefix in diffs]
    todo += [("meta", source)]
    results = iter(list(POOL.map(lambda words: rows(*words), todo)))
    for prefix, revision in lists:
        got = next(results)
        got = got and [(bytes_of(r, "key"), r["revision"], bytes_of(r, "value"),
                        r["create_revision"], r["version"], r["lease"]) for r in got]
        want = model.list(prefix, revision or model.revision)
        TAP.equal(got, want, "%s: list %r at %d" % (name, prefix, revision))
        TAP.equal(next(results), [{"count": len(want), "revision": revision or model.revision}],
                  "%s: count %r at %d" % (name, prefix, revision))
    for key in keys:
        got = next(results)
        got = got and [(r["revision"], None if r["op"] == "delete" else (
            bytes_of(r, "value"), r["create_revision"], r["version"], r["lease"])) for r in got]
        TAP.equal(got or [], model.history(key), "%s: history of %r" % (name, key[:10]))
        TAP.equal([r["revision"] for r in next(results) or []],
                  [n for n, _ in model.history(key)][:2], "%s: its newest two" % name)
    for low, high, prefix in diffs:
        got = next(results)
        got = got if got is None else [
            (bytes_of(r, "key"), r["type"], r["first_revision"], r["last_revision"],
             r["operations"], bytes_of(r, "before") if "before_base64" in r else None,
             bytes_of(r, "after") if "after_base64" in r else None) for r in got]
        TAP.equal(got, model.diff(prefix, low, high or model.revision),
                  "%s: diff %d to %d of %r" % (name, low, high, prefix))
    meta = (next(results) or [{}])[0]
    TAP.equal((meta.get("revision"), meta.get("compacted_revision"), meta.get("keys")),
              (model.revision, model.compacted, len(model.list(b"", model.revision))),
              "%s: meta" % name)
    return meta


def refusals(name, source, model):
    """What cannot be shown is said, with status 1."""
    for words, wanted in (
            (["list", "--rev=%d" % (model.revision + 1)], "in the future"),
            (["list", "--rev=%d" % (model.compacted - 1)], "is compacted"),
            (["diff", "--from-rev=%d" % (model.compacted - 1)], "is compacted"),
            (["diff", "--to-rev=%d" % (model.revision + 5)], "in the future"),
            (["diff", "--from-rev=%d" % model.revision, "--to-rev=%d" % (model.revision - 1)],
             "is above"),
            (["get", "no such key"], "there is no key")):
        status, out, err = run(*words, source)
        TAP.ok(status == 1 and wanted in err and out == b"", "%s: %s: %s" % (name, " ".join(words),
                                                                             wanted),
               status, out, err)


def files_of(folder):
    """What a reader must not change: contents and times of all files but LMDB's lock file."""
    found = {}
    for base, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(base, name)
            if name != "lock.mdb":
                st = os.stat(path)
                found[path] = (st.st_size, st.st_mtime_ns, st.st_ino)
    return found


# ---- parts -------------------------------------------------------------------------------------

def sources():
    """One history, seen from everywhere."""
    import etcdclient
    model = Model()
    with t4test.T4() as one:
        one.start()
        directory, endpoint = "--data-dir=" + one.data_dir, "--endpoint=" + one.address
        client = etcdclient.Client(one.address)
        write(client, model, random.Random(1), 150)
        compare("beside a server, log only", directory, model)
        compare("of a server", endpoint, model)
        # What is compacted may still be there; it is not shown all the same.
        model.compacted = model.revision - 100
        client.compact(model.compacted)
        compare("beside a server, just compacted", directory, model)
        lease = client.lease_grant(1000).ID
        model.put(b"leased", b"with a lease",
                  client.put(b"leased", b"with a lease", lease=lease).header.revision, lease)
        # Enough for a flush, and then a tail that is in the log only.
        big = b"x" * 500000
        for number in range(100):
            model.put(b"big/%d" % (number % 3), big,
                      client.put(b"big/%d" % (number % 3), big).header.revision)
        TAP.ok(until(lambda: rows("meta", directory)[0]["engine_index"] > 0),
               "the engine got something")
        write(client, model, random.Random(2), 60)
        meta = compare("beside a server, engine and log", directory, model)
        TAP.ok(0 < meta["engine_index"] < meta["index"], "engine and log both hold something", meta)
        TAP.ok(meta["versions"] > meta["keys"] and meta["object_store"] == "built in"
               and meta["engine"] == "lmdb" and meta["complete"] is True, "meta has the rest", meta)
        model.compacted = model.revision - 40
        client.compact(model.compacted, physical=True)
        compare("beside a server, compacted", directory, model)
        compare("of a server, compacted", endpoint, model)
        refusals("beside a server", directory, model)
        refusals("of a server", endpoint, model)
        tables(directory, model)
        write(client, model, random.Random(3), 20)
        client.close()
        one.kill()
        before = files_of(one.data_dir)
        compare("after kill -9", directory, model)
        TAP.equal(files_of(one.data_dir), before, "nothing in the directory was written")
        one.start()
        compare("and after the next start", directory, model)
        one.stop()
        compare("after a stop", directory, model)
        broken(one.data_dir)
    return model


def real_etcd():
    import etcdclient
    model = Model()
    with t4test.reference().start() as etcd:
        client = etcdclient.Client(etcd.address)
        write(client, model, random.Random(1), 150)
        compare("of a real etcd", "--endpoint=http://" + etcd.address, model)
        model.compacted = model.revision - 40
        client.compact(model.compacted, physical=True)
        compare("of a real etcd, compacted", "--endpoint=" + etcd.address, model)
        client.close()


def tables(source, model):
    """The tables: what is not printable is escaped, long values are cut."""
    status, out, _ = run("list", source, "--limit=0")
    lines = out.decode().splitlines()
    TAP.ok(status == 0 and lines[0].split() == ["KEY", "REVISION", "CREATED", "VERSION", "LEASE",
                                                "VALUE"], "list has a heading", lines[:2])
    TAP.equal(len(lines), 1 + len(model.list(b"", model.revision)), "and a line for each key")
    TAP.ok(any(line.startswith("big/0") and line.endswith("... (500000 bytes)")
               for line in lines), "a long value is cut", [line[:150] for line in lines])
    status, out, err = run("list", source, "--limit=1")
    TAP.ok(status == 0 and len(out.splitlines()) == 2 and "there is more" in err,
           "--limit says that there is more", out, err)
    status, out, _ = run("get", source, "leased")
    TAP.ok(status == 0 and out.endswith(b"value\nwith a lease\n") and b"lease" in out, "get", out)
    status, out, _ = run("diff", source)
    TAP.ok(status == 0 and out.decode().split()[:7] == ["KEY", "TYPE", "FIRST_REV", "LAST_REV",
                                                        "OPS", "BEFORE", "AFTER"]
           and len(out.splitlines()) == 1 + len(model.diff(b"", model.compacted, model.revision)),
           "diff", out)


def broken(data_dir):
    """Directories that cannot be shown, and words that are wrong."""
    copy = data_dir + "-copy"
    shutil.copytree(data_dir, copy)
    shutil.rmtree(os.path.join(copy, "engine"))
    status, _, err = run("list", "--data-dir=" + copy)
    TAP.ok(status == 1 and "has a log only" in err, "a directory without an engine", err)
    shutil.copytree(os.path.join(data_dir, "engine"), os.path.join(copy, "engine"))
    status, out, err = run("meta", "--data-dir=" + copy)
    TAP.ok(status == 0 and b"is a copy" in out, "a copy is said to be one", out, err)
    for name in os.listdir(os.path.join(copy, "wal")):
        path = os.path.join(copy, "wal", name)
        with open(path, "r+b") as segment:
            data = segment.read()
            first = data.find(b"schl")
            if first > 0:
                for at in range(first, len(data), 4096):
                    segment.seek(at)
                    segment.write(b"damage")
    status, _, err = run("list", "--data-dir=" + copy)
    TAP.ok(status == 1 and "damaged" in err and "t4 wal export" in err, "a damaged log", err)
    shutil.rmtree(os.path.join(copy, "wal"))
    status, _, err = run("list", "--data-dir=" + copy)
    TAP.ok(status == 1 and "there is no log" in err, "a directory without a log", err)
    for words, status, wanted in (
            (["list", "--data-dir=/nonexistent"], 1, "there is no directory"),
            (["list", "--data-dir=/usr"], 1, "no data directory of t4"),
            (["list", "--endpoint=127.0.0.1:1"], 1, "is a server running there"),
            (["list", "--endpoint=nonsense"], 2, "is no endpoint"),
            (["list"], 2, "of what?"), (["list", "--data-dir=a", "--endpoint=b:1"], 2, "exclude"),
            (["get", "--data-dir=" + data_dir], 2, "of which KEY?"),
            (["get", "--data-dir=" + data_dir, "--base64", "?"], 2, "is not base64"),
            (["list", "--data-dir=" + data_dir, "--limit=-1"], 2, "--limit takes no"),
            (["count", "--data-dir=" + data_dir, "x"], 2, "takes no"), (["nothing"], 2, "there is no")):
        got, _, err = run(*words)
        TAP.ok(got == status and wanted in err, "t4 inspect %s: %s" % (" ".join(words)[:40], wanted),
               got, err)


def beside_a_writer():
    """Every listing is one moment; the server does not notice."""
    import etcdclient
    api = etcdclient.api
    with t4test.T4() as one:
        one.start()
        directory = "--data-dir=" + one.data_dir
        stop, failed = threading.Event(), []

        def writer():
            client, number = etcdclient.Client(one.address), 0
            try:
                while not stop.is_set():
                    number += 1
                    value = b"%d " % number + b"v" * 100000
                    answer = client.txn(success=[
                        api.RequestOp(request_put=api.PutRequest(key=key, value=value))
                        for key in (b"x", b"y", b"z")])
                    if number % 50 == 0:
                        client.compact(answer.header.revision - 5)
            except Exception as error:  # pylint: disable=broad-except
                failed.append(error)
            client.close()

        thread = threading.Thread(target=writer)
        thread.start()
        wrong, last, flushed = [], 0, set()
        until(lambda: rows("count", directory) == [{"count": 3, "revision": 0}] or
              rows("count", directory)[0]["count"] == 3)
        deadline = threading.Timer(SECONDS, stop.set)
        deadline.start()
        looks = 0
        while not stop.is_set() and (len(flushed) < 3 or looks < 10):
            looks += 1
            flushed.add(rows("meta", directory)[0]["engine_index"])
            got = rows("list", directory)
            values = {row["value"] for row in got or []}
            if got is None or len(got) != 3 or len(values) != 1 or got[0]["revision"] < last:
                wrong.append((looks, len(got or []), [v[:9] for v in values]))
            last = got[0]["revision"] if got else last
        stop.set()
        deadline.cancel()
        thread.join()
        TAP.equal((wrong, failed), ([], []), "%d listings beside a writer, each one moment" % looks)
        TAP.ok(len(flushed) >= 3, "the engine moved on meanwhile", flushed)
        killed(one, directory)


def slots(one):
    """Process ids in the reader table of LMDB's lock file: 64 bytes each, behind the head."""
    with open(os.path.join(one.data_dir, "engine", "lock.mdb"), "rb") as lock:
        data = lock.read()
    return {struct.unpack_from("<i", data, at + 8)[0] for at in range(128, len(data) - 63, 64)}


def killed(one, directory):
    """A reader that is killed in the middle does not keep its snapshot for ever."""
    import etcdclient
    client = etcdclient.Client(one.address)
    for number in range(30):  # more than a pipe holds
        client.put(b"pipe/%d" % number, b"p" * 100000)
    reader = subprocess.Popen(start("list", directory, "--json", "--limit=0"),
                              stdout=subprocess.PIPE, env=ENVIRONMENT)
    TAP.ok(until(lambda: reader.pid in slots(one)), "a reader has a slot in the lock file")
    reader.send_signal(signal.SIGKILL)
    reader.wait()
    reader.stdout.close()
    TAP.ok(reader.pid in slots(one), "kill -9 leaves it there")

    def cleared():
        client.put(b"fill", b"f" * 1000000)
        return reader.pid not in slots(one)
    TAP.ok(until(cleared), "the next flush of the server takes it away")
    client.close()
    TAP.equal(one.stop(), 0, "the server stops in order")


def hydrating():
    """A disk that is being filled from a checkpoint: facts are shown, keys are not."""
    import etcdclient
    often = ["--checkpoint-interval=1s", "--checkpoint-bytes=1MiB"]
    with DirStore() as store:
        with server(store, "--take-over-now", *often) as first:
            first.start()
            client = etcdclient.Client(first.address)
            for number in range(40):
                revision = client.put(b"h/%02d" % number, b"v" * 100000).header.revision
            TAP.ok(until(lambda: metric(first, "t4_checkpoint_revision") >= revision - 10),
                   "there is a checkpoint")
            client.close()
            first.kill()
        with server(store, "--take-over-now") as second:
            store.control("hold get sst/")
            second.start()
            source = "--data-dir=" + second.data_dir
            meta = rows("meta", source)[0]
            TAP.ok(meta["complete"] is False and meta["parts_there"] < meta["parts"]
                   and meta["object_store"].startswith("fault+file:"),
                   "meta says that the disk is not filled yet", meta)
            for command in (["list"], ["count"], ["get", "h/01"], ["history", "h/01"], ["diff"]):
                status, out, err = run(*command, source)
                TAP.ok(status == 1 and out == b"" and "still being filled" in err,
                       "%s is refused" % command[0], status, out, err)
            store.control()
            TAP.ok(until(lambda: rows("meta", source)[0]["complete"]), "later it is filled")
            TAP.equal(rows("count", source, "--prefix=h/"), [{"count": 40, "revision": revision}],
                      "and shown")


def main():
    if t4test.subject() is None or t4test.reference() is None:
        TAP.skip_all("no t4, or no etcd to compare with")
    sources()
    real_etcd()
    beside_a_writer()
    hydrating()
    TAP.done()


main()

#!/usr/bin/python3
"""405_hydration.t - an empty disk answers at once: checkpoints, lazy hydration, lost engines.

With every file of the checkpoint held back by the store the server starts, leads, lists and reads
what the log's tail holds, writes, and keeps its leases; a read of what only the checkpoint has waits,
and is answered when the store is.  Killed while it is filled it goes on where it was.  A file that
is gone or damaged is made again from the log, byte for byte; where that is gone as well it fails the
keys in it and nothing else.  An engine that was deleted, a log that was
deleted, and both, come back from the newest checkpoint and the log above it.

SPDX-License-Identifier: Apache-2.0
"""

import json
import os
import random
import shutil
import subprocess
import sys
import urllib.request

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "lib"))

import t4test  # noqa: E402
from storetest import DirStore, metric, server, until  # noqa: E402

TAP = t4test.Tap()
KEYS = 12000
OFTEN = ["--checkpoint-interval=1s", "--checkpoint-bytes=1MiB"]
NEVER = ["--checkpoint-interval=1h", "--checkpoint-bytes=1GiB"]


def client_of(instance):
    import etcdclient
    return etcdclient.Client(instance.address)


def key_of(number):
    return b"base/%06d" % number


def reading(client, key, range_end=b"", **fields):
    import etcdclient
    return client.call("KV/Range", etcdclient.api.RangeRequest(key=key, range_end=range_end,
                                                               **fields), timeout=120)


class Content:
    """What was written, as {key: (value, mod_revision, version)}."""

    def __init__(self, seed):
        self.chance = random.Random(seed)
        self.keys = {}

    def write(self, client, keys, most=100):
        """Puts in transactions."""
        import etcdclient
        api = etcdclient.api
        keys = list(keys)
        for start in range(0, len(keys), most):
            some = keys[start:start + most]
            values = [self.chance.randbytes(self.chance.randrange(200, 1200)) for _ in some]
            answer = client.txn(success=[
                api.RequestOp(request_put=api.PutRequest(key=key, value=value))
                for key, value in zip(some, values)])
            for key, value in zip(some, values):
                version = self.keys[key][2] + 1 if key in self.keys else 1
                self.keys[key] = (value, answer.header.revision, version)

    def delete(self, client, key):
        client.delete(key)
        self.keys.pop(key, None)

    def wrong(self, client, keys=None):
        """Keys that are not as they were written; those too many."""
        if keys is not None:
            found = {}
            for key in keys:
                for kv in reading(client, key).kvs:
                    found[kv.key] = (kv.value, kv.mod_revision, kv.version)
            return [key for key in keys if found.get(key) != self.keys.get(key)]
        found, key = {}, b"\0"
        while True:
            page = reading(client, key, b"\0", limit=1000)
            found.update({kv.key: (kv.value, kv.mod_revision, kv.version) for kv in page.kvs})
            if not page.more:
                break
            key = page.kvs[-1].key + b"\0"
        return [key for key in set(found) | set(self.keys) if found.get(key) != self.keys.get(key)]


def status(instance):
    with urllib.request.urlopen("http://%s/status" % instance.metrics_address, timeout=10) as page:
        return json.load(page)


def hydrated(instance):
    return status(instance).get("hydrated") is True


def checkpointed(instance, revision):
    return until(lambda: metric(instance, "t4_checkpoint_revision") >= revision)


def objects(store, kind):
    """Paths of all objects below a folder of the store."""
    found = []
    for folder, _, names in os.walk(store.path):
        if os.path.relpath(folder, store.path).split(os.sep)[0].rstrip("+") == kind:
            found += [os.path.join(folder, name) for name in names]
    return sorted(found)


def fill(store, content, options=()):
    """A server that has a checkpoint of everything, and a tail above it; killed."""
    with server(store, "--take-over-now", *OFTEN, *options) as instance:
        instance.start()
        client = client_of(instance)
        content.lease = client.lease_grant(3600).ID
        content.write(client, [key_of(n) for n in range(KEYS)])
        content.write(client, [key_of(n) for n in range(0, KEYS, 7)])
        for number in range(0, KEYS, 100):
            content.delete(client, key_of(number))
        client.put(b"leased", b"x", lease=content.lease)
        revision = client.range(b"leased").header.revision
        content.keys[b"leased"] = (b"x", revision, 1)
        TAP.ok(checkpointed(instance, revision), "a checkpoint has all of it")
        client.close()
        instance.stop()
        content.files = objects(store, "sst")
        instance.options = [o for o in instance.options if o not in OFTEN] + NEVER
        instance.start()
        client = client_of(instance)
        content.write(client, [b"tail/%03d" % n for n in range(50)])
        content.write(client, [key_of(8), key_of(15)])
        client.close()
        instance.kill()


def held_back():
    import etcdclient
    content = Content(1)
    with DirStore() as store:
        fill(store, content)
        TAP.ok(len(objects(store, "sst")) >= 3, "the checkpoint has several files", objects(store, "sst"))
        with server(store, "--take-over-now", *NEVER) as instance:
            store.control("hold get sst/")
            before = len(store.requests())
            instance.start()
            client = client_of(instance)
            tail = client.prefix(b"tail/")
            TAP.equal(({kv.key: (kv.value, kv.mod_revision, kv.version) for kv in tail.kvs},
                       tail.count),
                      ({k: v for k, v in content.keys.items() if k.startswith(b"tail/")}, 50),
                      "no file can be read: it leads and lists what the log's tail holds")
            TAP.equal(content.wrong(client, [key_of(8), key_of(15), b"tail/007"]), [],
                      "and reads it, with the versions that the checkpoint began")
            content.write(client, [b"tail/%03d" % n for n in range(40, 60)])
            TAP.equal(content.wrong(client, [b"tail/%03d" % n for n in range(60)]), [],
                      "and writes, what is there and what is new")
            TAP.ok(client.time_to_live(content.lease).TTL > 3000, "leases are there")
            TAP.equal(status(instance)["hydrated"], False, "the status says that it is not filled")
            waiting = client.begin("KV/Range", etcdclient.api.RangeRequest(key=key_of(77)), timeout=60)
            putting = client.begin("KV/Put", etcdclient.api.PutRequest(key=key_of(78), value=b"new"), timeout=60)
            ranging = client.begin("KV/Range", etcdclient.api.RangeRequest(key=key_of(200), range_end=key_of(240)), timeout=60)
            TAP.equal([line for line in store.requests()[before:] if "get sst/" in line], [],
                      "nothing was read from a file")
            TAP.ok(not waiting.done() and not putting.done() and not ranging.done(),
                   "what needs one waits")
            store.control()
            TAP.equal([kv.value for kv in waiting.result().kvs], [content.keys[key_of(77)][0]],
                      "the read is answered when the store is")
            revision = putting.result().header.revision
            content.keys[key_of(78)] = (b"new", revision, content.keys[key_of(78)][2] + 1)
            TAP.equal(ranging.result().count, 39, "and the range")
            TAP.ok(until(lambda: hydrated(instance)), "then all of it is fetched",
                   status(instance))
            TAP.equal(content.wrong(client), [], "and everything is as it was")
            TAP.equal(client.time_to_live(content.lease, keys=True).keys, [b"leased"],
                      "the keys of leases, too")
            client.lease_revoke(content.lease)
            content.keys.pop(b"leased")
            TAP.equal(content.wrong(client), [], "which go with them")
            client.close()
            instance.stop()
        # Without the engine, the log, and both: the directory is as good as empty.
        for lost in (["engine"], ["wal"], ["engine", "wal"]):
            with server(store, "--take-over-now", *NEVER) as instance:
                instance.start()
                until(lambda: status(instance).get("hydrated") is not False)
                client = client_of(instance)
                content.write(client, [b"again/%s" % "+".join(lost).encode()])
                client.close()
                instance.kill()
                for name in lost:
                    shutil.rmtree(os.path.join(instance.data_dir, name))
                instance.start()
                client = client_of(instance)
                TAP.equal(content.wrong(client), [], "%s deleted: everything comes back"
                          % " and ".join(lost))
                client.close()
                instance.stop()


def killed():
    """kill -9 while it is filled, again and again."""
    content = Content(2)
    chance = random.Random(3)
    with DirStore() as store:
        fill(store, content)
        with server(store, "--take-over-now", *NEVER) as instance:
            store.control("latency 30")
            for number in range(5):
                instance.start()
                client = client_of(instance)
                some = [key_of(chance.randrange(KEYS)) for _ in range(6)]
                TAP.equal(content.wrong(client, some), [], "life %d: single reads" % number)
                content.write(client, [chance.choice(some), b"life/%d" % number])
                client.close()
                instance.kill()
            store.control()
            instance.start()
            TAP.ok(until(lambda: status(instance).get("hydrated") is not False), "filled at last")
            client = client_of(instance)
            TAP.equal(content.wrong(client), [], "everything is there")
            client.close()
            instance.stop()


def held_while_checkpoints_come_and_go():
    """Checkpoints go on while the engine is filled from an older one, with next to no history kept."""
    content = Content(5)
    with DirStore() as store:
        with server(store, *NEVER) as instance:
            instance.start()
            client = client_of(instance)
            content.write(client, [key_of(n) for n in range(KEYS)])
            client.close()
            instance.stop()
            instance.options = [o for o in instance.options if o not in NEVER] + OFTEN
            instance.start()
            client = client_of(instance)
            content.write(client, [b"last"])
            checkpointed(instance, content.keys[b"last"][1])
            client.close()
            instance.stop()
        largest = max(objects(store, "sst"), key=os.path.getsize)
        with server(store, "--checkpoint-interval=100ms", "--history-retention=0") as instance:
            store.control("hold get sst/" + os.path.basename(largest))
            instance.start()
            client = client_of(instance)
            for number in range(5):
                content.write(client, [b"round/%d" % number])
                TAP.ok(checkpointed(instance, content.keys[b"round/%d" % number][1]),
                       "checkpoint %d while the engine is filled" % number)
            TAP.equal(status(instance)["hydrated"], False, "which it still is")
            TAP.ok(os.path.exists(largest), "what it needs is still there")
            store.control()
            TAP.ok(until(lambda: hydrated(instance)), "then it is complete")
            TAP.equal(content.wrong(client), [], "and nothing is missing")
            client.close()
            instance.stop()


def move_aside(store, paths):
    """Takes objects away; returns how to bring them back."""
    aside = os.path.join(store.folder, "aside")
    os.makedirs(aside)
    for number, path in enumerate(paths):
        os.rename(path, os.path.join(aside, str(number)))

    def back():
        for number, path in enumerate(paths):
            os.rename(os.path.join(aside, str(number)), path)
    return back


def body_of(path):
    """Of an object: its file without the trailer of 32 bytes."""
    with open(path, "rb") as file:
        return file.read()[:-32]


def largest_files(content):
    """The largest file of each checkpoint: one of them is in the newest one, whatever was folded."""
    return [max((path for path in content.files if path.endswith(index)), key=os.path.getsize)
            for index in {path[-20:] for path in content.files}]


def forget_the_log(store):
    """Takes away what a file could be made of again: older checkpoints and the log's beginning."""
    checkpoints = sorted(objects(store, "checkpoint"), key=lambda path: path.split("-")[-1])
    archives = objects(store, "log")
    TAP.ok(archives, "the log's beginning is in archives")
    for path in checkpoints[:-1] + archives:
        os.remove(path)


def made_again():
    content = Content(4)
    with DirStore() as store:
        fill(store, content)
        bodies = {path: body_of(path) for path in content.files}
        for number, path in enumerate(largest_files(content)):
            with open(path, "rb") as file:
                trailer = file.read()[-32:]
            os.remove(path)
            if number % 2:
                with open(path, "wb") as file:
                    file.write(bytes([bodies[path][0] ^ 1]) + bodies[path][1:] + trailer)
        with server(store, "--take-over-now", *NEVER) as instance:
            instance.start()
            client = client_of(instance)
            TAP.equal(content.wrong(client), [], "files are gone or damaged: nothing is missing")
            TAP.ok(until(lambda: hydrated(instance)), "and the disk is filled")
            TAP.ok("it was made again from the log" in instance.log(), "for they were made again")
            named = [path for path in bodies if "sst/" + os.path.basename(path) in instance.log()]
            TAP.ok(named and all(body_of(path) == bodies[path] for path in named),
                   "byte for byte, and put back into the store", named)
            client.close()
            instance.stop()


def lost_index():
    """The newest checkpoint has lost a run's index: an older one and the log serve, and heal the store."""
    content = Content(5)
    with DirStore() as store:
        fill(store, content)
        runs = objects(store, "run")
        newest = max(path[-20:] for path in runs)
        for path in runs:
            if path.endswith(newest):
                os.remove(path)
        verify = [t4test.T4.binary, "verify", "--object-store=" + store.plain_url]
        TAP.equal(subprocess.run(verify, capture_output=True).returncode, 1,
                  "the newest checkpoint has lost an index")
        with server(store, "--take-over-now", *OFTEN) as instance:
            instance.start()
            client = client_of(instance)
            TAP.ok("beginning from an older one" in instance.log(), "the server begins from an older")
            TAP.equal(content.wrong(client), [], "nothing is missing")
            content.write(client, [b"tail/more"])
            TAP.ok(until(lambda: "going on from an older one" in instance.log()),
                   "the damaged one goes off the list")
            content.write(client, [b"tail/again"])
            TAP.ok(until(lambda: subprocess.run(verify, capture_output=True).returncode == 0),
                   "then the store is whole again")
            client.close()
            instance.stop()
        with server(store, "--take-over-now", *NEVER) as instance:
            instance.start()
            client = client_of(instance)
            TAP.equal(content.wrong(client), [], "and has everything")
            client.close()
            instance.stop()


def watched_below_the_log(client, content, keys):
    """Watches whose keys are there get their events although the rest of the checkpoint never comes."""
    wrong = []
    for key in keys[:20]:
        value, revision, _ = content.keys[key]
        stream = client.watch_stream()
        stream.created(key, start_revision=revision)
        events = stream.events(1)
        if [(e.kv.value, e.kv.mod_revision) for _, e in events] != [(value, revision)]:
            wrong.append(key)
        stream.cancel()
    TAP.equal((bool(keys), wrong), (True, []), "watches below the log wait for their own keys only")


def damaged():
    import etcdclient
    content = Content(4)
    with DirStore() as store:
        fill(store, content)
        forget_the_log(store)
        victims = largest_files(content)
        back = move_aside(store, victims)
        with server(store, "--take-over-now", *NEVER) as instance:
            instance.start()
            client = client_of(instance)
            failed, good, fine = [], [], []
            for number in range(3, KEYS, 53):
                try:
                    found = reading(client, key_of(number))
                    good.append([kv.value for kv in found.kvs] ==
                                [content.keys[key][0] for key in [key_of(number)]
                                 if key in content.keys])
                    fine += [key_of(number)] if found.kvs else []
                except etcdclient.grpc.RpcError as error:
                    failed.append((error.code().name, error.details()))
            TAP.ok(failed and good and all(good), "files are gone, and what they were made of: some "
                   "keys fail, others do not", len(failed), len(good))
            TAP.equal(set(failed), {("DATA_LOSS", "t4: an object of the checkpoint is missing or "
                                     "damaged; the server's log names it")}, "with an error")
            TAP.ok(any("the object sst/" + os.path.basename(path) in instance.log()
                       for path in victims) and "is missing" in instance.log(),
                   "and the log names it", victims)
            content.write(client, [b"tail/more"])
            TAP.equal(content.wrong(client, [b"tail/more", b"tail/003"]), [], "writes go on")
            watched_below_the_log(client, content, fine)
            back()
            TAP.equal(content.wrong(client), [], "with the files back all of it is there")
            client.close()
            instance.stop()


def main():
    if not os.path.exists(t4test.T4.binary):
        TAP.skip_all("t4 was not built")
    held_back()
    killed()
    held_while_checkpoints_come_and_go()
    made_again()
    lost_index()
    damaged()
    TAP.done()


main()

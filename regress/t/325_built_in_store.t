#!/usr/bin/python3
"""325_built_in_store.t - the store in the data directory, which is there without --object-store.

It writes nothing while nobody writes; it brings the log back when log and engine are deleted;
what a lost log had acknowledged above it is never given out again under the same revisions;
copies, emptied stores and other stores are refused with the way out; kill -9 under load.

SPDX-License-Identifier: Apache-2.0
"""

import json
import os
import random
import shutil
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "lib"))

import t4test  # noqa: E402
from storetest import DirStore, Load, server, until  # noqa: E402

TAP = t4test.Tap()
GAP = 1 << 36
LATE = "--upload-max-age=1h"


def status_of(data_dir):
    run = subprocess.run([t4test.T4.binary, "status", "--data-dir", data_dir, "--json"],
                         stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                         env=dict(os.environ), timeout=60)
    return json.loads(run.stdout) if run.returncode == 0 else run.stderr


def objects(data_dir):
    found = []
    for folder, _, names in os.walk(os.path.join(data_dir, "store")):
        found += [name for name in names if name != ".lock"]
    return found


def lose_log(instance):
    for name in ("wal", "engine"):
        shutil.rmtree(os.path.join(instance.data_dir, name))


def state(instance):
    """(revision, {key: mod_revision})"""
    import etcdclient
    client = etcdclient.Client(instance.address)
    answer = client.range(b"\0", b"\0")
    client.close()
    return answer.header.revision, {kv.key: kv.mod_revision for kv in answer.kvs}


def put(instance, *keys):
    import etcdclient
    client = etcdclient.Client(instance.address)
    revisions = [client.put(key, key).header.revision for key in keys]
    client.close()
    return revisions


def refusal(instance, name, *texts):
    try:
        instance.start()
        TAP.ok(False, name + " is refused")
    except t4test.StartError as error:
        TAP.ok(all(text in str(error) for text in texts), name + " is refused", error)
    instance.kill()


def ordinary_life():
    with t4test.T4([LATE]) as instance:
        instance.start()
        instance.stop()
        instance.start()
        instance.stop()
        TAP.equal(objects(instance.data_dir), [], "nobody wrote: two starts put no object")
        instance.start()
        put(instance, b"a", b"b")
        TAP.equal(objects(instance.data_dir), [], "it is not in the way of a write")
        instance.stop()
        held = status_of(instance.data_dir)
        TAP.equal((held["durable_revision"], held["released"], held["commit_rule"]),
                  (3, True, "local"), "after a stop the store has everything")
        before = objects(instance.data_dir)
        instance.start()
        instance.stop()
        TAP.equal(objects(instance.data_dir), before, "an idle start puts nothing")
        lose_log(instance)
        instance.start()
        TAP.equal(state(instance), (3, {b"a": 2, b"b": 3}),
                  "log and engine deleted: the store brings them back")
        TAP.equal(put(instance, b"c"), [4], "and revisions go on")
        instance.kill()
        instance.start()
        TAP.equal(state(instance), (4, {b"a": 2, b"b": 3, b"c": 4}), "kill -9: the log has it")
        instance.kill()
        lose_log(instance)
        instance.start()
        revision, found = state(instance)
        TAP.equal(found, {b"a": 2, b"b": 3}, "a log lost with what only it had: the rest is back")
        TAP.ok(revision > GAP, "and revisions go on above all that was given out", revision)
        TAP.ok("writes it had acknowledged" in instance.log(), "the log says so")
        instance.kill()
        instance.start()
        TAP.equal(state(instance)[0], revision, "once")
        instance.stop()


def takes_puts(instance):
    import etcdclient
    try:
        put(instance, b"c")
        return True
    except etcdclient.grpc.RpcError:
        return False


def copies():
    with t4test.T4([LATE]) as instance, t4test.T4([LATE, "--moved"]) as other:
        instance.start()
        put(instance, b"a")
        instance.stop()
        shutil.copytree(instance.data_dir, other.data_dir)
        other.start()
        TAP.equal(state(other), (2, {b"a": 2}),
                  "a copy made after a stop, with --moved: as it was")
        other.stop()
        shutil.rmtree(other.data_dir)
        instance.start()
        put(instance, b"b")
        instance.kill()
        shutil.copytree(instance.data_dir, other.data_dir)
        other.start()
        revision, found = state(other)
        TAP.equal(found, {b"a": 2, b"b": 3}, "a copy of a killed server has what it had")
        TAP.ok(revision > GAP, "and gives out none of the original's later revisions", revision)
        TAP.ok(until(lambda: takes_puts(other)), "and takes writes, for the store knows of the gap")
        revision, _ = state(other)
        other.kill()
        other.options.remove("--moved")
        other.start()
        TAP.equal(state(other)[0], revision, "the next start is an ordinary one")
        other.stop()


def other_stores():
    with DirStore() as store, t4test.T4() as instance:
        instance.start()
        put(instance, b"a")
        instance.stop()
        instance.options = ["--object-store=" + store.plain_url]
        refusal(instance, "an empty store for a directory with a built-in one",
                "keeps its log in the store (built-in)", store.path)
        instance.options = []
        shutil.move(os.path.join(instance.data_dir, "store"), instance.directory)
        refusal(instance, "a directory whose store is gone", "the lock's counter is 0, but was",
                instance.data_dir + "/store")
        shutil.rmtree(os.path.join(instance.data_dir, "store"))
        shutil.move(os.path.join(instance.directory, "store"), instance.data_dir)
        instance.start()
        TAP.equal(state(instance), (2, {b"a": 2}), "with its store back it serves")
        instance.stop()
        TAP.ok("there is no store in" in status_of(instance.directory), "t4 status of no data directory")
    with DirStore() as store, server(store) as instance:
        instance.start()
        put(instance, b"a")
        instance.stop()
        instance.options = []
        refusal(instance, "a directory of another store, started without it",
                "keeps its log in the store fault+" + store.plain_url, "--object-store")


def under_load(rounds):
    import etcdclient
    chance = random.Random(7)
    with t4test.T4(["--upload-max-age=10ms", "--segment-max-size-mb", "1"]) as instance:
        loads = []
        for number in range(rounds):
            instance.start()
            load = Load(instance.address, "r%d" % number)
            loads.append(load)
            TAP.ok(load.wait(chance.randrange(20, 300)), "round %d: writes are acknowledged" % number)
            instance.kill()
            load.join()
            if number % 2 == 1:
                shutil.rmtree(os.path.join(instance.data_dir, "engine"))
        instance.start()
        TAP.ok(until(lambda: objects(instance.data_dir)), "the store is in use")
        client = etcdclient.Client(instance.address)
        for number, load in enumerate(loads):
            TAP.equal(load.missing(client), [], "round %d: all of it is there" % number)
        client.close()
        instance.stop()
        held = status_of(instance.data_dir)
        lose_log(instance)
        instance.start()
        client = etcdclient.Client(instance.address)
        TAP.equal(client.status().header.revision, held["durable_revision"],
                  "log and engine deleted after the stop: the same revision")
        TAP.equal([wrong for load in loads for wrong in load.missing(client)], [],
                  "and everything from the store")
        client.close()
        instance.stop()


def main():
    if not os.path.exists(t4test.T4.binary):
        TAP.skip_all("t4 was not built")
    ordinary_life()
    copies()
    other_stores()
    under_load(6)
    TAP.done()


main()

#!/usr/bin/python3
"""502_defragment.t - Defragment makes the engine's file small, and nobody notices.

It runs beside writers, physical compactions (which flush), readers and a watch; is killed again
and again in the middle; finds no room; and has nothing to do for the engine in memory.  What is
copied at a time is made small, so that a small file takes many steps.

SPDX-License-Identifier: Apache-2.0
"""

import os
import random
import sys
import threading

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "lib"))

import t4test  # noqa: E402
from diskfault import Disk, error_of  # noqa: E402
from storetest import Load, metric, until  # noqa: E402

TAP = t4test.Tap()
SMALL_STEPS = "--plugin-option=lmdb.copy_step=16kB"
COUNT = "etcd_disk_backend_defrag_duration_seconds_count"


def defragment(client):
    from etcdclient import api
    return client.call("Maintenance/Defragment", api.DefragmentRequest(), timeout=120)


def fill(client, keys=6000, size=1000, keep=10):
    """Keys of which every tenth is left, the rest compacted away; {key: value} of those left."""
    from etcdclient import api
    left, batch = {}, 100
    for first in range(0, keys, batch):
        puts = []
        for number in range(first, first + batch):
            key, value = b"fill/%06d" % number, os.urandom(size // 2).hex().encode()
            if number % keep == 0:
                left[key] = value
            puts.append(api.RequestOp(request_put=api.PutRequest(key=key, value=value)))
        client.txn(success=puts)
    client.compact(client.status().header.revision, True)  # all of it is in the engine
    for number in range(0, keys, keep):
        client.delete(b"fill/%06d\0" % number, b"fill/%06d" % (number + keep))
    return left


def check(client, left, name):
    found = {kv.key: kv.value for kv in client.prefix(b"fill/").kvs}
    TAP.ok(found == left, "%s: all %d keys are there" % (name, len(left)),
           "%d are" % len(found))


class Churn:
    """Physical compactions, so that memtables are flushed all the time, and reads of everything."""

    def __init__(self, address, left):
        self.address, self.left = address, left
        self.ended, self.rounds, self.wrong = False, 0, []
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self):
        import etcdclient
        import grpc
        client = etcdclient.Client(self.address)
        try:
            while not self.ended:
                client.compact(client.put(b"churn", b"c").header.revision, True)
                found = {kv.key: kv.value for kv in client.prefix(b"fill/").kvs}
                if found != self.left:
                    self.wrong.append("round %d: %d keys" % (self.rounds, len(found)))
                self.rounds += 1
        except grpc.RpcError as error:
            if not self.ended:
                self.wrong.append(str(error.details()))
        client.close()

    def finish(self):
        self.ended = True
        self.thread.join(60)


def online():
    import etcdclient
    with t4test.T4(["--segment-max-size-mb=4", SMALL_STEPS]) as server:
        client = etcdclient.Client(server.start().address)
        left = fill(client)
        before = client.status()
        watch = client.watch_stream()
        watch.created(b"load/", b"load0")
        load, churn = Load(server.address, "load"), Churn(server.address, left)
        load.wait(20)
        rounds, acked, at = churn.rounds, len(load.acked), client.status().header.revision
        defragment(client)
        acked, rounds = len(load.acked) - acked, churn.rounds - rounds
        after = client.status()
        TAP.ok(acked > 0 and rounds > 0, "meanwhile %d writes were acknowledged, and %d times "
               "everything was compacted, flushed and read" % (acked, rounds))
        TAP.ok(after.dbSize < before.dbSize // 3, "the file is smaller: %d bytes, %d before" % (
            after.dbSize, before.dbSize))
        defragment(client)
        load.finish()
        churn.finish()
        TAP.equal(churn.wrong, [], "every read saw everything")
        TAP.equal(load.failures, [], "no write failed")
        events = watch.events(len(load.acked))
        TAP.equal({event.kv.key: (event.kv.value, event.kv.mod_revision) for _, event in events},
                  load.acked, "the watch saw each of %d writes" % len(load.acked))
        watch.cancel()
        defragment(client)
        status = client.status()
        TAP.ok(status.dbSizeInUse <= status.dbSize <= status.dbSizeInUse + (256 << 10),
               "at rest the file has what is in use: %d bytes, %d" % (
                   status.dbSize, status.dbSizeInUse))
        TAP.equal(metric(server, COUNT), 3.0, "etcd's metric counts it")
        TAP.equal(metric(server, "etcd_mvcc_db_total_size_in_bytes"), float(status.dbSize),
                  "and tells the size")
        TAP.ok("was defragmented" in server.log(), "the log tells sizes and time")
        for name in ("in this process", "after kill -9"):
            TAP.equal(load.missing(client), [], name + ": nothing acknowledged is missing")
            check(client, left, name)
            server.restart()
        TAP.ok(at > 0 and client.status().dbSize <= status.dbSize + (256 << 10),
               "and the file is the small one")
        client.close()


def killed(rounds=14):
    """kill -9 at any moment of a defragmentation; the next start has everything."""
    import etcdclient
    chance = random.Random(7)
    with t4test.T4(["--segment-max-size-mb=4", SMALL_STEPS]) as server:
        client = etcdclient.Client(server.start().address)
        left = fill(client, 3000)
        client.compact(client.status().header.revision, True)
        found, wrong, unfinished = [], [], 0
        name = os.path.join(server.data_dir, "engine", "data.mdb.new")
        for number in range(rounds):
            load = Load(server.address, "load%d" % number, 2)
            churn = Churn(server.address, left)
            running = threading.Thread(target=lambda: error_of(lambda: defragment(client)),
                                       daemon=True)
            running.start()
            if number % 2 == 0:
                until(lambda: os.path.exists(name) or not running.is_alive())
            load.wait(chance.randrange(1, 60))
            churn.ended = True
            server.kill()
            unfinished += os.path.exists(name)
            load.join()
            churn.finish()
            running.join()
            found += load.acked.items()
            server.start()
            client.close()
            client = etcdclient.Client(server.address)
            load.acked = dict(found)
            wrong += load.missing(client)[:3] + churn.wrong
            if {kv.key: kv.value for kv in client.prefix(b"fill/").kvs} != left:
                wrong.append("round %d: a key is missing" % number)
            if os.path.exists(name):
                wrong.append("round %d: the copy was not removed" % number)
        TAP.equal(wrong, [], "killed %d times, %d of them within the copy, %d writes survived" % (
            rounds, unfinished, len(found)))
        TAP.ok(unfinished > 0, "some kills came before the rename")
        defragment(client)
        check(client, left, "at the end")
        client.close()


def no_room():
    import etcdclient
    with t4test.T4(["--segment-max-size-mb=4", SMALL_STEPS]) as server:
        engine = os.path.join(server.data_dir, "engine")
        disk = Disk(server, engine)
        client = etcdclient.Client(server.start().address)
        left = fill(client, 3000)
        client.compact(client.status().header.revision, True)
        size = client.status().dbSize
        disk.says("free 300000")
        error = error_of(lambda: defragment(client))
        TAP.equal(error and (error.code().name, "no room" in error.details()),
                  ("RESOURCE_EXHAUSTED", True), "no room for the copy: an error that says so")
        TAP.ok("could not be defragmented" in server.log() and "make room" in server.log(),
               "the log says what to do")
        TAP.equal([name for name in os.listdir(engine) if "new" in name], [],
                  "the unfinished copy is removed")
        TAP.equal(client.status().dbSize, size, "the file is as it was")
        disk.good()
        client.put(b"k", b"v")
        check(client, left, "everything goes on")
        defragment(client)
        TAP.ok(client.status().dbSize < size // 2, "with room it is done")
        check(client, left, "and then")
        client.close()


def other_engines():
    import etcdclient
    with t4test.T4(["--storage-engine=memory"]) as server:
        client = etcdclient.Client(server.start().address)
        client.put(b"k", b"v")
        answer = defragment(client)
        TAP.equal(answer.HasField("header"), False, "the answer has no header, as in etcd")
        status = client.status()
        TAP.ok(status.dbSize == status.dbSizeInUse > 0,
               "the engine in memory has nothing to do, and its size is what it holds")
        client.close()


def main():
    if t4test.subject() is None:
        TAP.skip_all("no t4 in " + t4test.BUILD_DIR)
    online()
    killed()
    no_room()
    other_engines()
    TAP.done()


main()

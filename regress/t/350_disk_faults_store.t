#!/usr/bin/python3
"""350_disk_faults_store.t - local disks that are full or fail, under a server with an object store.

Local disk full: refused before anything is evaluated, what was acknowledged survives the disk's
loss, the alarm clears by itself.  EIO of the log's sync: the process stops, and an empty disk has
everything acknowledged.  The store's own folder full or failing while the local disk is fine: an
outage of the store like any other, in both modes.

SPDX-License-Identifier: Apache-2.0
"""

import json
import os
import re
import shutil
import subprocess
import sys
import urllib.request

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "lib"))

import t4test  # noqa: E402
from diskfault import FULL, Disk, error_of, lost, put_until_refused  # noqa: E402
from storetest import DirStore, Load, metric, server, until  # noqa: E402

TAP = t4test.Tap()


def api():
    import etcdclient
    return etcdclient


def put(client, key, timeout=20):
    return client.call("KV/Put", api().api.PutRequest(key=key, value=b"v"), timeout=timeout)


def status_page(instance):
    with urllib.request.urlopen("http://%s/status" % instance.metrics_address,
                                timeout=10) as page:
        return json.loads(page.read())


def t4_status(instance):
    """What t4 status prints of a server, as a table."""
    return subprocess.run([t4test.T4.binary, "status", "--endpoint", instance.metrics_address],
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True).stdout


def another_disk(instance):
    """kill -9, rm -rf, and a start on the empty disk."""
    instance.kill()
    shutil.rmtree(instance.data_dir)
    return instance.start()


# ---- the local disk is full ---------------------------------------------------------------------

def local_disk_full(store):
    stored = {}
    with server(store, "--take-over-now") as instance:
        disk = Disk(instance)
        instance.start()
        client = api().Client(instance.address)
        client.put(b"before", b"x")
        reserve = os.path.join(instance.data_dir, "wal", "reserve")
        until(lambda: os.path.exists(reserve))  # without it the disk counts as full at once
        disk.says("free 3000000")
        error = put_until_refused(client, stored)
        TAP.equal(error and (error.code().name, error.details()), ("RESOURCE_EXHAUSTED", FULL),
                  "sync mode, local disk full: puts are refused with etcd's error")
        TAP.ok(len(stored) > 10, "after what fitted (%d puts)" % len(stored))
        refused = b"key-%d" % len(stored)
        seen = client.range(refused)
        TAP.equal((seen.header.revision, len(seen.kvs)), (len(stored) + 2, 0),
                  "no revision was taken, nothing is to be seen of it")
        error = error_of(lambda: client.put(b"x", b"y", lease=404))
        TAP.equal(error and error.details(), FULL,
                  "before evaluation: nobody looks whether the put's lease exists")
        TAP.equal(status_page(instance)["durable_revision"], len(stored) + 2,
                  "the store holds everything acknowledged and nothing else")
        TAP.equal(lost(client, stored), [], "linearizable reads go on")
        TAP.ok(any("NOSPACE" in text for text in client.status().errors),
               "Status names the alarm", client.status().errors)
        TAP.ok(status_page(instance)["nospace"] is True
               and status_page(instance)["degraded"] is False,
               "so does /status, which does not blame the store", status_page(instance))
        gone, _ = stored.popitem()
        TAP.equal(client.delete(gone).deleted, 1, "a delete goes on, into the store")
        disk.good()
        TAP.ok(until(lambda: error_of(lambda: client.put(b"after", b"y")) is None),
               "with room again the alarm clears by itself")
        stored[b"after"] = b"y"
        TAP.ok(until(lambda: status_page(instance)["nospace"] is False), "/status says so")
        disk.says("free 3000000")
        error = put_until_refused(client, stored)
        TAP.equal(error and error.details(), FULL, "it fills up a second time")
        refused = b"key-%d" % len(stored)
        client.close()
        disk.good()
        another_disk(instance)
        client = api().Client(instance.address)
        TAP.equal(lost(client, stored), [],
                  "all %d acknowledged writes survive the full disk's loss" % len(stored))
        TAP.equal([client.range(key).count for key in (gone, refused)], [0, 0],
                  "the deleted one is deleted, the refused one never was")
        client.close()
        TAP.equal(instance.stop(), 0, "a clean stop")


# ---- the local disk fails ----------------------------------------------------------------------

def local_disk_fails(store):
    with server(store, "--take-over-now") as instance:
        disk = Disk(instance)
        instance.start()
        client = api().Client(instance.address)
        put(client, b"kept")
        disk.says("eio")
        error = error_of(lambda: put(client, b"unknown"))
        TAP.equal(error and error.code().name, "UNAVAILABLE",
                  "EIO of the log's sync: the put is not acknowledged")
        stopped(instance)
        client.close()
        disk.good()
        shutil.rmtree(instance.data_dir)

        instance.start()
        load = Load(instance.address, "eio")
        enough = load.wait(100)
        disk.says("eio")
        stopped(instance)
        load.join()
        TAP.ok(enough and {code for code, _ in load.failures} == {"UNAVAILABLE"},
               "under load: clients are told that the outcome is not known", load.failures)
        disk.good()
        shutil.rmtree(instance.data_dir)
        instance.start()
        client = api().Client(instance.address)
        wrong = load.missing(client)
        TAP.ok(not wrong and client.range(b"kept").count == 1,
               "all %d acknowledged writes are there on an empty disk" % (len(load.acked) + 1),
               *wrong[:5])
        found = {kv.key for kv in client.range(b"eio/", b"eio0").kvs}
        TAP.ok(found <= load.sent, "and nothing that nobody sent")
        client.close()
        TAP.equal(instance.stop(), 0, "a clean stop")


def stopped(instance):
    """The process ends by itself, and says why."""
    status = instance.wait(60)
    last = instance.log_tail(5)
    TAP.ok(status == 1 and re.search(r"%s/wal/\S+: Input/output error" %
                                     re.escape(instance.data_dir), last),
           "the process ends with status 1, naming file and reason", status, last)


# ---- the store's folder is full, or fails -------------------------------------------------------

SICK = (("full", "free 0", "No space left on device"), ("failing", "eio", "Input/output error"))


def store_sick_sync(store):
    with server(store, "--take-over-now") as instance:
        disk = Disk(instance, store.path)
        instance.start()
        client = api().Client(instance.address)
        kept = []
        for name, fault, words in SICK:
            before = b"before-" + name.encode()
            put(client, before)
            disk.says(fault)
            error = error_of(lambda: put(client, b"late-" + name.encode(), timeout=2))
            TAP.equal(error and error.code().name, "DEADLINE_EXCEEDED",
                      "sync mode, store %s: a write waits, and fails at its deadline" % name)
            waits = b"waits-" + name.encode()
            waiting = client.begin("KV/Put", api().api.PutRequest(key=waits, value=b"v"),
                                   timeout=60)
            TAP.ok(until(lambda: words in status_page(instance).get("reason", "")),
                   "%s: /status names the store's words" % name, status_page(instance))
            text = t4_status(instance)
            TAP.ok("degraded              yes\n" in text and words in text,
                   "%s: so does t4 status" % name, text)
            TAP.equal([kv.value for kv in client.range(before, serializable=True).kvs], [b"v"],
                      "%s: serializable reads go on" % name)
            TAP.equal(client.range(waits, serializable=True).count, 0,
                      "%s: nothing that is not committed is shown" % name)
            TAP.equal(status_page(instance)["nospace"], False,
                      "%s: no alarm: the local disk is fine" % name)
            disk.good()
            TAP.equal(error_of(waiting.result), None,
                      "%s: what waited is acknowledged when the store is well again" % name)
            TAP.ok(until(lambda: status_page(instance)["degraded"] is False),
                   "%s: it is no longer degraded" % name, status_page(instance))
            put(client, b"after-" + name.encode())
            kept += [before, waits, b"after-" + name.encode()]
        client.close()
        another_disk(instance)
        client = api().Client(instance.address)
        TAP.equal([key for key in kept if client.range(key).count != 1], [],
                  "all that was acknowledged is there on another disk")
        client.close()
        TAP.equal(instance.stop(), 0, "a clean stop")


def store_sick_async(store):
    with server(store, "--take-over-now", "--wal-sync-upload=false",
                "--upload-max-age=100ms") as instance:
        disk = Disk(instance, store.path)
        instance.start()
        client = api().Client(instance.address)
        loads = []
        for name, fault, words in SICK:
            disk.says(fault)
            load = Load(instance.address, name)
            loads.append(load)
            TAP.ok(load.wait(300), "async mode, store %s: writes go on" % name, load.failures)
            TAP.ok(until(lambda: words in status_page(instance).get("reason", "")),
                   "%s: /status names the store's words" % name, status_page(instance))
            load.finish()
            TAP.ok(status_page(instance)["lag_entries"] >= 300 and not load.failures,
                   "%s: and the lag; no writer was stopped" % name, status_page(instance),
                   load.failures)
            disk.good()
            TAP.ok(until(lambda: metric(instance, "t4_store_lag_entries") == 0),
                   "%s: it is caught up by itself" % name, status_page(instance))
            TAP.equal(status_page(instance)["degraded"], False, "%s: and well" % name)
        client.close()
        another_disk(instance)
        client = api().Client(instance.address)
        wrong = [line for load in loads for line in load.missing(client)]
        TAP.ok(not wrong, "all that was uploaded is there on another disk", *wrong[:5])
        client.close()
        TAP.equal(instance.stop(), 0, "a clean stop")


def main():
    if not os.path.exists(t4test.T4.binary):
        TAP.skip_all("t4 was not built")
    for part in (local_disk_full, local_disk_fails, store_sick_sync, store_sick_async):
        with DirStore() as store:
            part(store)
    TAP.done()


main()

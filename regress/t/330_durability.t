#!/usr/bin/python3
"""330_durability.t - what is acknowledged survives its disk: t4 run on an object store.

Load by several clients, kill -9, the data directory removed, start with --take-over-now: every
acknowledged write is there, with its revision; over a directory, S3 and Google Cloud Storage.
A second server on the prefix fences the first.  Outages in both modes, a restart in an outage,
keys that are withdrawn, old disks that return, copied directories, stores that were set back.
T4_DURABILITY_ROUNDS (2) rounds for each kind of store; T4_OUTAGE_SECONDS (6) the outages' length
(make check-outage: two minutes).

SPDX-License-Identifier: Apache-2.0
"""

import os
import shutil
import sys
import threading
import time
import urllib.error
import urllib.request

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "lib"))

import t4test  # noqa: E402
import storetest  # noqa: E402
from storetest import DirStore, GcsStore, Load, S3Store, metric, server, until  # noqa: E402

TAP = t4test.Tap()
ROUNDS = int(os.environ.get("T4_DURABILITY_ROUNDS") or 2)
GAP = 1 << 36
OUTAGE_SECONDS = float(os.environ.get("T4_OUTAGE_SECONDS") or 6)


def api():
    import etcdclient
    return etcdclient


def status_of(call):
    """(code, text) of a call that fails; ("OK", "") if it does not."""
    import grpc
    try:
        call()
        return "OK", ""
    except grpc.RpcError as error:
        return error.code().name, error.details()


def put(client, key, value=b"v", timeout=20, metadata=()):
    return client.call("KV/Put", api().api.PutRequest(key=key, value=value), timeout=timeout,
                       metadata=metadata)


def get(client, key, serializable=False, timeout=20):
    return client.call("KV/Range", api().api.RangeRequest(key=key, serializable=serializable),
                       timeout=timeout)


def readyz(instance):
    try:
        with urllib.request.urlopen("http://%s/readyz" % instance.metrics_address,
                                    timeout=10) as page:
            return page.status, page.read().decode().strip()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode().strip()


def fails_to_start(instance, *words):
    """The server ends by itself with status 1 and says all of the words."""
    instance.start(wait=False)
    status = instance.wait(60)
    text = instance.log()
    return status == 1 and all(word in text for word in words), "status %s" % status, text[-1500:]


# ---- the promise ----------------------------------------------------------------------------------

def lost_disks(store):
    """Sync mode: kill -9, rm -rf, another empty disk."""
    for number in range(ROUNDS):
        with server(store, "--take-over-now") as instance:
            instance.start()
            load = Load(instance.address, "%s%d" % (store.name, number))
            enough = load.wait(150)
            instance.kill()
            load.join()
        # close() has removed the directory
        with server(store, "--take-over-now") as instance:
            instance.start()
            client = api().Client(instance.address)
            wrong = load.missing(client)
            client.close()
            TAP.ok(enough and not wrong,
                   "%s: %d acknowledged writes survive kill -9 and the loss of the disk" % (
                       store.name, len(load.acked)), *wrong[:5])
            TAP.equal(instance.stop(), 0, "%s: a clean stop" % store.name)


def watched_until_the_end(stream):
    """(its events and progress messages in order, how it ended)"""
    found = []
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        stream.progress()
        try:
            response = stream.next()
        except api().Closed as closed:
            return found, (closed.error.code().name, closed.error.details())
        if response is None:
            return found, "nothing for long"
        found += [(event.kv.mod_revision, event.kv.key) for event in response.events]
        if not response.events and not response.created:
            found.append((response.header.revision, None))
    return found, "no end"


def watches_of_the_deposed(store, found, end, old_client, client):
    """A watch shows nothing that the store did not accept, and ends when another leads."""
    TAP.equal(end, ("UNAVAILABLE", "etcdserver: no leader"),
              "%s: a watch of the deposed server ends" % store.name)
    events = [item for item in found if item[1]]
    revisions = [revision for revision, _ in found]
    TAP.ok(events and len(events) < len(found) and revisions == sorted(revisions),
           "%s: until then it had events, and progress that did not run ahead" % store.name,
           found[-5:])
    there = client.watch_stream()
    there.created(b"\0", b"\0", start_revision=events[0][0])
    both = [(event.kv.mod_revision, event.kv.key)
            for _, event in there.events(len(events))][:len(events)]
    TAP.ok(both == events, "%s: all of them are in the history that goes on" % store.name,
           *[pair for pair in zip(both, events) if pair[0] != pair[1]][:1])
    there.cancel()
    late = old_client.watch_stream()
    late.create(b"\0", b"\0")
    TAP.equal(watched_until_the_end(late), ([], end),
              "%s: so does a new one, without an answer" % store.name)


def fencing(store):
    """A second server takes the prefix: the first acknowledges nothing more, and says why."""
    with server(store, "--take-over-now") as old, server(store, "--take-over-now") as new:
        old.start()
        old_client = api().Client(old.address)
        stream = old_client.watch_stream()
        stream.created(b"\0", b"\0")
        seen = []
        watching = threading.Thread(target=lambda: seen.append(watched_until_the_end(stream)))
        watching.start()
        load = Load(old.address, "fence-" + store.name)
        load.wait(50)
        new.start()
        load.join()
        client = api().Client(new.address)
        wrong = load.missing(client)
        TAP.ok(not wrong, "%s: what the first server acknowledged is on the second" % store.name,
               *wrong[:5])
        TAP.ok(load.failures and all(code == "UNAVAILABLE" for code, _ in load.failures),
               "%s: its clients are told that it does not lead" % store.name, load.failures)
        put(client, b"after", b"new")
        watching.join()
        watches_of_the_deposed(store, *seen[0], old_client, client)
        TAP.equal(status_of(lambda: put(old_client, b"x"))[0], "UNAVAILABLE",
                  "%s: the deposed server takes no write" % store.name)
        TAP.equal(status_of(lambda: get(old_client, b"after"))[0], "UNAVAILABLE",
                  "%s: and answers no linearizable read" % store.name)
        TAP.equal(len(get(old_client, b"after", serializable=True).kvs), 0,
                  "%s: a serializable read shows its old state" % store.name)
        code, text = readyz(old)
        TAP.ok(code == 503 and "another server leads" in text,
               "%s: /readyz of the deposed says why" % store.name, code, text)
        TAP.ok("deposed" in old.log(), "%s: so does its log" % store.name)
        client.close()
        old_client.close()


# ---- outages ------------------------------------------------------------------------------------------

def outage_sync(store):
    with server(store, "--take-over-now", "--leadership-lease=1s") as instance:
        instance.start()
        client = api().Client(instance.address)
        put(client, b"before", b"1")
        lease = client.lease_grant(5).ID
        client.call("KV/Put", api().api.PutRequest(key=b"leased", value=b"1", lease=lease))
        store.control("outage")
        TAP.equal(status_of(lambda: put(client, b"during", timeout=2))[0], "DEADLINE_EXCEEDED",
                  "sync, outage: a write waits, and fails at its deadline")
        TAP.ok(until(lambda: readyz(instance)[1].startswith("degraded")),
               "sync, outage: /readyz says degraded", readyz(instance))
        TAP.equal(get(client, b"before", serializable=True).kvs[0].value, b"1",
                  "sync, outage: serializable reads go on")
        TAP.ok(until(lambda: status_of(
            lambda: get(client, b"before", timeout=20))[0] == "UNAVAILABLE"),
               "sync, outage: linearizable reads end with the leadership lease")
        TAP.equal(len(get(client, b"during", serializable=True).kvs), 0,
                  "sync, outage: nothing uncommitted is shown")
        boot = metric(instance, "t4_leases_expired_total")
        until(lambda: False, OUTAGE_SECONDS)  # past the lease's five seconds
        store.control()
        TAP.ok(until(lambda: status_of(lambda: put(client, b"after"))[0] == "OK"),
               "sync: writes go on by themselves after the outage")
        until(lambda: metric(instance, "t4_leases_expired_total") > boot, 1.5)
        TAP.equal(len(get(client, b"leased").kvs), 1, "sync: no lease was lost to the outage")
        TAP.equal(metric(instance, "t4_leases_expired_total"), boot, "sync: none expired in it")
        TAP.ok(until(lambda: readyz(instance) == (200, "ok")), "sync: /readyz is ok again")
        TAP.ok(until(lambda: metric(instance, "t4_leases_expired_total") > boot),
               "sync: the lease expires later, when its time is over")
        client.close()
        TAP.equal(instance.stop(), 0, "sync: a clean stop")


def outage_async(store):
    with server(store, "--take-over-now", "--wal-sync-upload=false",
                "--upload-max-age=200ms") as instance:
        instance.start()
        client = api().Client(instance.address)
        put(client, b"before", b"1")
        store.control("outage")
        load = Load(instance.address, "async")
        TAP.ok(load.wait(300), "async, outage: writes are acknowledged")
        if OUTAGE_SECONDS > 10:
            until(lambda: bool(load.failures), OUTAGE_SECONDS)
            TAP.equal(load.failures, [], "async: a long outage stops no writer")
        TAP.equal(get(client, b"before").kvs[0].value, b"1", "async, outage: reads go on")
        load.finish()
        TAP.ok(until(lambda: metric(instance, "t4_store_lag_entries") >= 300),
               "async, outage: the lag is shown", metric(instance, "t4_store_lag_entries"))
        store.control()
        TAP.ok(until(lambda: metric(instance, "t4_store_lag_entries") == 0),
               "async: it is caught up by itself")
        instance.kill()
        shutil.rmtree(instance.data_dir)
        good, *details = fails_to_start(
            server(store, "--wal-sync-upload=false"), "asynchronous upload", "--take-over-now")
        TAP.ok(good, "async: another disk must be told to take over", *details)
        instance.start()
        found = get(client, b"before", timeout=20)
        TAP.ok(found.header.revision > GAP, "async: revisions go on above all that was given out",
               found.header.revision)
        TAP.ok(not load.missing(client), "async: what was uploaded is there")
        stream = client.watch_stream()
        stream.create(b"before", start_revision=2)
        first = stream.next(20)
        while first is not None and not first.canceled:
            first = stream.next(20)
        TAP.ok(first is not None and first.compact_revision > GAP,
               "async: a watch from before is told that history was cut", first)
        stream.cancel()
        put(client, b"on")
        client.close()
        TAP.equal(instance.stop(), 0, "async: a clean stop")
    with server(store, "--wal-sync-upload=false") as instance:
        instance.start()
        client = api().Client(instance.address)
        TAP.equal(get(client, b"on").header.revision, get(client, b"on").kvs[0].mod_revision,
                  "async: after a clean stop an empty disk goes on without a gap")
        client.close()


def refusals_in_between(store):
    """Whatever the store refuses for a while is an outage like any other."""
    with server(store, "--take-over-now") as instance:
        instance.start()
        client = api().Client(instance.address)
        for kind in ("readonly", "denied", "throttle", "full"):
            put(client, b"before-" + kind.encode())
            store.control(kind)
            waiting = client.begin("KV/Put", api().api.PutRequest(key=b"during"), timeout=60)
            seen = until(lambda: metric(instance, "t4_store_degraded") == 1)
            running = instance.running()
            store.control()
            TAP.ok(seen and running and waiting.result().header.revision > 0,
                   "%s: the write waits, and is acknowledged afterwards" % kind,
                   instance.log_tail())
        client.close()
        TAP.equal(instance.stop(), 0, "a clean stop after all of them")


def invalid_keys():
    """Keys that are withdrawn, a session that ends, while the server runs."""
    import object_servers
    if os.path.exists(object_servers.Versitygw.path):
        with S3Store() as store:
            gateway, good = store.server, store.server.keys

            def restart(keys):
                gateway.kill()
                gateway.keys = keys
                gateway.start()
            # First nobody is there, then somebody who knows no such keys: the newest reason counts.
            withdrawn(store, "withdrawn keys", "XAdminUserNotFound", gateway.kill,
                      lambda: restart(("somebody", "else/0123456789")), lambda: restart(good))
            withdrawn(store, "a new secret", "SignatureDoesNotMatch",
                      lambda: restart((good[0], "other/0123456789")), lambda: None,
                      lambda: restart(good))
    else:
        TAP.skip("no versitygw here; regress/object-servers/build makes it")
    with object_servers.Amazon() as amazon, AmazonStore(amazon) as store:
        expired = amazon.status(403, "ExpiredToken", "The provided token has expired.")
        withdrawn(store, "a session that has ended", "ExpiredToken",
                  lambda: amazon.rule("", expired, 1 << 30), lambda: None, amazon.clear)


class AmazonStore(storetest.Store):
    """s3:// with temporary credentials, on an Amazon of our own."""

    def __init__(self, amazon):
        super().__init__("s3://bucket/some/prefix",
                         ["s3.endpoint=" + amazon.url, "s3.region=us-east-1"])
        key, secret, token, _ = amazon.give()
        self.environment = dict(storetest.NOBODY, T4_S3_ACCESS_KEY_ID=key,
                                T4_S3_SECRET_ACCESS_KEY=secret, T4_S3_SESSION_TOKEN=token)


def withdrawn(store, name, words, take_away, take_more, give_back):
    before, waits = b"before " + words.encode(), b"waits " + words.encode()
    with server(store, "--take-over-now") as instance:
        instance.start()
        client = api().Client(instance.address)
        put(client, before)
        take_away()
        waiting = client.begin("KV/Put", api().api.PutRequest(key=waits, value=b"v"),
                               timeout=60)
        until(lambda: metric(instance, "t4_store_degraded") == 1)
        take_more()
        TAP.ok(until(lambda: words in readyz(instance)[1]),
               "%s: /readyz names the store's words" % name, readyz(instance))
        with urllib.request.urlopen("http://%s/status" % instance.metrics_address) as page:
            status = page.read().decode()
        TAP.ok('"degraded":true' in status and words in status,
               "%s: so does /status" % name, status)
        TAP.equal(status_of(lambda: put(client, b"late", timeout=2))[0], "DEADLINE_EXCEEDED",
                  "%s: a write waits, and fails at its deadline" % name)
        TAP.equal([len(get(client, key, serializable=True).kvs) for key in (before, waits)],
                  [1, 0], "%s: what was committed can be read, and nothing else" % name)
        shown = readyz(instance)[1] + status
        give_back()
        TAP.equal(status_of(waiting.result), ("OK", ""),
                  "%s: what waited is acknowledged once they are valid again" % name)
        TAP.ok(until(lambda: readyz(instance) == (200, "ok")), "%s: all is well" % name,
               readyz(instance))
        TAP.equal(status_of(lambda: put(client, b"after"))[0], "OK", "%s: and goes on" % name)
        secrets = [store.environment[variable] for variable in
                   ("T4_S3_SECRET_ACCESS_KEY", "T4_S3_SESSION_TOKEN")
                   if variable in store.environment]
        TAP.ok("does not answer as it should" in instance.log() and not [
            secret for secret in secrets if secret in instance.log() + shown],
               "%s: the log has it, and no secret is shown" % name, instance.log_tail())
        client.close()
        TAP.equal(instance.stop(), 0, "%s: a clean stop" % name)


def refused_stores():
    """Stores that ignore conditions are found out before anything is written."""
    import gcs_servers
    import object_servers
    if os.path.exists(object_servers.S3rver.path):
        with object_servers.S3rver().start() as other:
            one = t4test.T4(["--object-store=s3://bucket/p", "--s3-endpoint=" + other.url],
                            dict(storetest.NOBODY, T4_S3_ACCESS_KEY_ID="S3RVER",
                                 T4_S3_SECRET_ACCESS_KEY="S3RVER"))
            good, *details = fails_to_start(one, "does not honour conditions")
            TAP.ok(good, "s3rver is refused by the probe", *details)
            one.close()
    if os.path.exists(gcs_servers.Emulator.path):
        with gcs_servers.Emulator().start() as other:
            other.make_bucket("bucket")
            one = t4test.T4(["--object-store=gs://bucket/p"],
                            dict(storetest.NOBODY, STORAGE_EMULATOR_HOST=other.address))
            good, *details = fails_to_start(one, "does not honour conditions")
            TAP.ok(good, "gcp-storage-emulator is refused by the probe", *details)
            one.close()


def restart_in_outage(store):
    with server(store, "--take-over-now") as instance:
        instance.start()
        client = api().Client(instance.address)
        put(client, b"kept", b"1")
        put(client, b"later", b"1")  # its frame says that the store holds all before it
        instance.kill()
        store.control("outage")
        instance.start(wait=False)
        TAP.ok(until(lambda: status_of(
            lambda: get(client, b"kept", serializable=True, timeout=2))[0] == "OK"),
               "a restart in an outage serves serializable reads", instance.log_tail())
        TAP.equal([kv.value for kv in get(client, b"kept", serializable=True).kvs], [b"1"],
                  "... of what was committed")
        TAP.equal(status_of(lambda: put(client, b"x"))[0], "UNAVAILABLE", "... and no writes")
        TAP.equal(readyz(instance)[0], 503, "... and is not ready")
        store.control()
        TAP.ok(until(lambda: status_of(lambda: put(client, b"x"))[0] == "OK"),
               "... and leads by itself when the store is back", instance.log_tail())
        TAP.equal(get(client, b"kept").kvs[0].value, b"1", "... with everything")
        client.close()
        TAP.equal(instance.stop(), 0, "... and stops cleanly")


def uploads_for_a_reason(store):
    """Async: what comes while an upload is under way waits for a reason of its own, or a server
    that is written to all the time would upload all the time."""
    def uploads():
        return sum(line.startswith("put wal/") for line in store.requests())

    with server(store, "--wal-sync-upload=false", "--upload-max-age=1h") as instance:
        instance.start()
        client = api().Client(instance.address)
        store.control("latency 20")
        load = Load(instance.address, "all-the-time")
        load.wait(50)
        put(client, b"durable", metadata=(("t4-durability", "object"),))
        before = uploads()
        load.wait(300)
        TAP.equal(uploads(), before, "async: a put with t4-durability: object uploads no more "
                  "than it needs")
        for _ in range(5):
            put(client, b"large", b"x" * 900000)
        TAP.ok(until(lambda: uploads() > before), "async: 4 MiB are uploaded")
        load.wait(300)
        TAP.equal(uploads(), before + 1, "... once")
        TAP.equal(load.finish().failures, [], "... and stop no writer")
        client.close()


# ---- disks that come back ---------------------------------------------------------------------------

def old_disk(store):
    """Async: a disk with acknowledged writes that history went on without."""
    with server(store, "--wal-sync-upload=false", "--upload-max-age=1h",
                "--take-over-now") as old:
        old.start()
        client = api().Client(old.address)
        put(client, b"only-here", b"1")
        client.close()
        old.kill()
        with server(store, "--take-over-now") as new:
            new.start()
            client = api().Client(new.address)
            TAP.equal(len(get(client, b"only-here").kvs), 0,
                      "what was not uploaded is lost with its disk")
            good, *details = fails_to_start(old, "1 acknowledged writes",
                                            "--discard-divergent-tail")
            TAP.ok(good, "the old disk is refused: it holds acknowledged writes", *details)
            TAP.equal(status_of(lambda: put(client, b"still"))[0], "OK",
                      "and a start that is refused deposes nobody")
            client.close()
            new.stop()
        old.options.append("--discard-divergent-tail")
        old.start()
        client = api().Client(old.address)
        TAP.equal(len(get(client, b"only-here").kvs), 0, "told to, it goes on without them")
        put(client, b"next")
        client.close()
        TAP.ok([name for name in os.listdir(old.data_dir) if name.startswith("divergent-")],
               "and keeps them in a file", os.listdir(old.data_dir))
        old.options.remove("--discard-divergent-tail")
        old.restart(crash=False)
        client = api().Client(old.address)
        TAP.equal(len(get(client, b"next").kvs), 1, "the next start is an ordinary one")
        client.close()


def failed_take_over(store):
    """A take-over that fails behind its compare-and-swap forgets nothing."""
    with server(store, "--wal-sync-upload=false", "--upload-max-age=50ms") as lost:
        lost.start()
        client = api().Client(lost.address)
        revision = put(client, b"a").header.revision
        client.close()
        TAP.ok(until(lambda: metric(lost, "t4_store_revision") >= revision),
               "the first is uploaded")
        lost.kill()
    damaged = os.path.join(store.path, "wal+", "%020d" % 1)
    with open(damaged, "rb") as file:
        good_bytes = file.read()
    with open(damaged, "wb") as file:
        file.write(b"?" + good_bytes[1:])
    with server(store, "--wal-sync-upload=false", "--take-over-now") as instance:
        good, *details = fails_to_start(instance, "%020d" % 1, "damaged")
        TAP.ok(good, "a damaged segment stops the take-over", *details)
        with open(damaged, "wb") as file:
            file.write(good_bytes)
        instance.options.remove("--take-over-now")
        instance.start()
        client = api().Client(instance.address)
        TAP.ok(get(client, b"a").header.revision > GAP,
               "the next try knows whom it took over from: no revision is given out twice")
        client.close()


def own_disk(store):
    """Async and kill -9, the same disk: nothing is lost, no gap."""
    with server(store, "--wal-sync-upload=false", "--upload-max-age=1h") as instance:
        instance.start()
        for number in range(3):
            load = Load(instance.address, "own%d" % number)
            load.wait(100)
            instance.kill()
            load.join()
            if number == 1:
                shutil.rmtree(os.path.join(instance.data_dir, "engine"))
            instance.start()
            client = api().Client(instance.address)
            wrong = load.missing(client)
            revision = get(client, b"x").header.revision
            TAP.ok(not wrong and revision < GAP,
                   "async: a restart on its own disk has everything (%d)" % number, *wrong[:5])
            client.close()
        instance.kill()
        shutil.rmtree(os.path.join(instance.data_dir, "wal"))
        instance.start()
        client = api().Client(instance.address)
        TAP.ok(get(client, b"x").header.revision > GAP,
               "async: a disk that lost its log takes no revision twice")
        client.close()


def copied_disk(store):
    with server(store) as instance, server(store) as copy:
        instance.start()
        client = api().Client(instance.address)
        put(client, b"a", b"1")
        client.close()
        instance.kill()
        shutil.copytree(instance.data_dir, copy.data_dir)
        good, *details = fails_to_start(copy, "is a copy", "--moved")
        TAP.ok(good, "a copied directory is refused", *details)
        instance.start()
        client = api().Client(instance.address)
        put(client, b"b", b"2")
        client.close()
        instance.kill()
        copy.options += ["--moved", "--take-over-now"]
        copy.start()
        client = api().Client(copy.address)
        TAP.equal([get(client, key).kvs[0].value for key in (b"a", b"b")], [b"1", b"2"],
                  "told that it was moved it has the store's history")
        client.close()


def other_stores(store):
    with server(store) as instance:
        instance.start()
        client = api().Client(instance.address)
        put(client, b"a", b"1")
        client.close()
        instance.kill()
        kept = store.path + ".kept"
        os.rename(store.path, kept)
        good, *details = fails_to_start(instance, "is older than this data directory knows it")
        TAP.ok(good, "a store that was emptied is refused", *details)
        with DirStore() as other, server(other) as stranger:
            stranger.start()
            stranger.stop()
            stranger.options = store.options()
            shutil.rmtree(store.path, ignore_errors=True)
            os.rename(kept, store.path)
            good, *details = fails_to_start(stranger, "belongs to cluster")
            TAP.ok(good, "a directory of another cluster is refused", *details)
        instance.start()
        client = api().Client(instance.address)
        TAP.equal(get(client, b"a").kvs[0].value, b"1", "the right store is taken again")
        client.close()


def per_request(store):
    """t4-durability: object under asynchronous upload."""
    with server(store, "--wal-sync-upload=false", "--upload-max-age=1h",
                "--take-over-now") as instance:
        instance.start()
        client = api().Client(instance.address)
        put(client, b"here", b"1")
        put(client, b"there", b"1", metadata=(("t4-durability", "object"),))
        TAP.equal(metric(instance, "t4_store_lag_entries"), 0,
                  "a put with t4-durability: object is answered when the store has it")
        put(client, b"lost", b"1")
        code, text = status_of(lambda: put(client, b"x", metadata=(("t4-durability", "best"),)))
        TAP.equal((code, "local, object" in text), ("INVALID_ARGUMENT", True),
                  "another level is refused")
        instance.kill()
        shutil.rmtree(instance.data_dir)
        instance.start()
        TAP.equal([len(get(client, key).kvs) for key in (b"here", b"there", b"lost")], [1, 1, 0],
                  "and survives the disk, with all before it")
        client.close()
    with t4test.T4() as instance:
        instance.start()
        client = api().Client(instance.address)
        code, text = status_of(
            lambda: put(client, b"x", metadata=(("t4-durability", "object"),)))
        TAP.equal(code, "INVALID_ARGUMENT", "without a store the level is refused")
        client.close()


def main():
    if not os.path.exists(t4test.T4.binary):
        TAP.skip_all("t4 was not built")
    windows = {DirStore: 4, S3Store: 2, GcsStore: 1}
    for kind in windows if not os.environ.get("T4_DURABILITY_ONLY") else ():
        with kind() as store:
            store.window = windows[kind]
            lost_disks(store)
            fencing(store)
    only = os.environ.get("T4_DURABILITY_ONLY", "").split()
    for part in (outage_sync, outage_async, refusals_in_between, restart_in_outage,
                 uploads_for_a_reason, old_disk, failed_take_over, own_disk, copied_disk,
                 other_stores, per_request):
        if only and part.__name__ not in only:
            continue
        with DirStore() as store:
            part(store)
    for part in (invalid_keys, refused_stores):
        if not only or part.__name__ in only:
            part()
    TAP.done()


main()

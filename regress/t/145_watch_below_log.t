#!/usr/bin/python3
"""145_watch_below_log.t - watches that begin below what the local log still holds.

A history of puts, deletes and transactions over several segments of the log; watches from the
past are answered, with the log whole.  Then the server is stopped, all segments but the newest
two are taken away, and the same watches must bring the same events: of one key, of a range, of
everything, with previous values, without puts or deletes, in fragments, from the compacted
revision on.  Events that come afterwards follow; below the compacted revision a watch is canceled.

SPDX-License-Identifier: Apache-2.0
"""

import glob
import os
import random
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "lib"))

import storetest  # noqa: E402
import t4test  # noqa: E402

TAP = t4test.Tap()
SEED = int(os.environ.get("T4_TEST_SEED", "20240229"))
STEPS = 1500
KEYS = 60
VALUE = 8192


def write(etcdclient, client, chance):
    """Revisions that deleted a key, in order."""
    api = etcdclient.api
    deletions = []
    for i in range(STEPS):
        key = b"key/%02d" % chance.randrange(KEYS)
        value = b"%d " % i + chance.randbytes(chance.randrange(VALUE))
        what = chance.randrange(10)
        if what == 0:
            answer = client.delete(key)
            if answer.deleted:
                deletions.append(answer.header.revision)
        elif what == 1:
            first = chance.randrange(KEYS - 8)  # keys not in their order, one deleted
            keys = [b"key/%02d" % k for k in range(first, first + 8)]
            chance.shuffle(keys)
            client.txn(success=[api.RequestOp(request_put=api.PutRequest(
                key=k, value=value[:100])) for k in keys[1:]] + [api.RequestOp(
                    request_delete_range=api.DeleteRangeRequest(key=keys[0]))])
        else:
            client.put(key, value)
    return deletions


def watches(etcdclient, compacted, newest):
    """{name: fields of the create request}"""
    api = etcdclient.api.WatchCreateRequest
    everything = {"key": b"\0", "range_end": b"\0"}
    return {
        "everything": dict(everything, start_revision=compacted),
        "everything, with previous values": dict(
            everything, start_revision=compacted, prev_kv=True),
        "everything, later": dict(everything, start_revision=compacted + 200),
        "one key": {"key": b"key/07", "start_revision": compacted + 1, "prev_kv": True},
        "a key that never was": {"key": b"key/xx", "start_revision": compacted},
        "a range": {"key": b"key/10", "range_end": b"key/20", "start_revision": compacted},
        "deletions": dict(everything, start_revision=compacted, filters=[api.NOPUT]),
        "puts": dict(everything, start_revision=compacted, filters=[api.NODELETE]),
        "fragments": dict(everything, start_revision=compacted, fragment=True),
        "the newest": dict(everything, start_revision=newest),
    }


def collect(etcdclient, client, compacted, newest):
    """{name: the events up to `newest`}: one that comes behind them tells that it was all."""
    found = {}
    for name, fields in watches(etcdclient, compacted, newest).items():
        key = b"key/15a" if "range_end" in fields else fields["key"]
        stream = client.watch_stream()
        if not stream.created(**fields).created:
            found[name] = ["not created"]
            continue
        client.put(key, b"behind")
        client.delete(key)
        got = []
        while not got or got[-1].kv.mod_revision <= newest:
            response = stream.next()
            if response is None or response.canceled:
                break
            got += response.events
        stream.end()
        found[name] = [e.SerializeToString() for e in got if e.kv.mod_revision <= newest]
        if not got or got[-1].kv.mod_revision <= newest:
            found[name].append("ends with %s" % response)
    return found


def main():
    if not os.path.exists(t4test.T4.binary):
        TAP.skip_all("t4 was not built")
    import etcdclient
    chance = random.Random(SEED)
    TAP.diag("seed %d" % SEED)
    with t4test.T4(["--segment-max-size-mb=1"]) as server:
        server.start()
        client = etcdclient.Client(server.address)
        deletions = write(etcdclient, client, chance)
        newest = client.status().header.revision
        compacted = deletions[len(deletions) // 4]  # a watch from there gets the deletion
        client.compact(compacted, physical=True)  # the engine holds all of it then
        before = collect(etcdclient, client, compacted, newest)
        TAP.equal(storetest.metric(server, "t4_watch_scans_total"), 0, "the log has all of it")
        client.close()
        TAP.equal(server.stop(), 0, "clean stop")
        segments = sorted(glob.glob(os.path.join(server.data_dir, "wal", "*.wal")))
        TAP.ok(len(segments) > 4, "several segments", segments, os.listdir(server.data_dir))
        for path in segments[:-2]:
            os.unlink(path)

        server.start()
        client = etcdclient.Client(server.address)
        after = collect(etcdclient, client, compacted, newest)
        scans = storetest.metric(server, "t4_watch_scans_total")
        TAP.ok(scans > 5, "the log does not have all of it any more", scans)
        TAP.diag("%d scans, %d records looked at" % (
            scans, storetest.metric(server, "t4_watch_scanned_records_total")))
        for name, events in before.items():
            TAP.ok(after[name] == events, "%s: the same %d events" % (name, len(events)),
                   len(after[name]))
        stream = client.watch_stream()
        stream.created(b"\0", b"\0", start_revision=compacted - 1)
        response = stream.next()
        TAP.ok(response.canceled and response.compact_revision == compacted,
               "below the compacted revision it is canceled", response)
        stream.end()
        client.close()
        TAP.equal(server.stop(), 0, "clean stop")
    TAP.done()


main()

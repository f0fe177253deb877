#!/usr/bin/python3
"""130_python_etcd3.t - the python3-etcd3 client, unchanged, does its work against the server.

SPDX-License-Identifier: Apache-2.0
"""

import os
import queue
import sys
import threading
import time

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "lib"))

import t4test  # noqa: E402

TAP = t4test.Tap()
SECONDS = 20


def test_keys(client):
    client.put("/keys/a", "1")
    client.put("/keys/b", b"\x00\xff")
    value, about = client.get("/keys/a")
    TAP.equal(value, b"1", "get gives what was put")
    TAP.equal((about.key, about.version, about.create_revision == about.mod_revision),
              (b"/keys/a", 1, True), "get tells key, version and revisions")
    TAP.equal(client.get("/keys/none"), (None, None), "get of a missing key gives nothing")
    TAP.equal(client.put("/keys/a", "2", prev_kv=True).prev_kv.value, b"1",
              "put gives the previous value when asked")
    TAP.equal([value for value, _ in client.get_prefix("/keys/")], [b"2", b"\x00\xff"],
              "get_prefix gives the values in key order")
    TAP.equal([about.key for _, about in client.get_prefix("/keys/", sort_order="descend",
                                                           keys_only=True)],
              [b"/keys/b", b"/keys/a"], "get_prefix sorts and leaves the values out")
    TAP.equal([value for value, _ in client.get_range("/keys/a", "/keys/b")], [b"2"],
              "get_range leaves its end out")
    TAP.ok(any(about.key == b"/keys/a" for _, about in client.get_all()),
           "get_all finds the key")
    TAP.equal(client.delete("/keys/a"), True, "delete of a key says so")
    TAP.equal(client.delete("/keys/a"), False, "delete of a missing key says so")
    TAP.equal(client.delete_prefix("/keys/").deleted, 1, "delete_prefix counts")
    TAP.equal(client.put_if_not_exists("/keys/once", "x"), True, "put_if_not_exists, first time")
    TAP.equal(client.put_if_not_exists("/keys/once", "y"), False,
              "put_if_not_exists, second time")
    TAP.equal(client.replace("/keys/once", "x", "z"), True, "replace with the right value")
    TAP.equal(client.replace("/keys/once", "x", "w"), False, "replace with a wrong value")
    TAP.equal(client.get("/keys/once")[0], b"z", "only the right replace had an effect")


def test_transactions(client):
    done, answers = client.transaction(
        compare=[client.transactions.version("/txn/a") == 0],
        success=[client.transactions.put("/txn/a", "1"), client.transactions.get("/txn/a")],
        failure=[client.transactions.get("/txn/a")])
    TAP.ok(done and answers[1][0][0] == b"1", "a transaction sees its own write", answers)
    done, answers = client.transaction(
        compare=[client.transactions.value("/txn/a") == "2",
                 client.transactions.create("/txn/a") > "0"],
        success=[client.transactions.delete("/txn/a")],
        failure=[client.transactions.get("/txn/a"), client.transactions.put("/txn/b", "3")])
    TAP.ok(not done and answers[0][0][0] == b"1", "a failed compare takes the other branch",
           answers)
    TAP.equal(client.get("/txn/b")[0], b"3", "the other branch writes")


def test_watch(client):
    got = queue.Queue()
    watch = client.add_watch_prefix_callback(
        "/watch/", lambda answer: [got.put(event) for event in answer.events], prev_kv=True)
    client.put("/watch/a", "1")
    client.put("/watch/a", "2")
    client.put("/watched", "not")
    client.delete("/watch/a")
    events = [got.get(timeout=SECONDS) for _ in range(3)]
    TAP.equal([(type(event).__name__, event.key, event.value, event.prev_value)
               for event in events],
              [("PutEvent", b"/watch/a", b"1", b""), ("PutEvent", b"/watch/a", b"2", b"1"),
               ("DeleteEvent", b"/watch/a", b"", b"2")], "a watch gives events in order")
    client.cancel_watch(watch)

    first = events[0].mod_revision
    iterator, cancel = client.watch_prefix("/watch/", start_revision=first)
    again = [next(iterator) for _ in range(3)]
    cancel()
    TAP.equal([event.mod_revision for event in again], [event.mod_revision for event in events],
              "a watch from the past gives the same events")


def test_compaction(client, etcd3):
    client.put("/compact", "1")
    revision = client.get("/compact")[1].mod_revision
    client.put("/compact", "2")
    client.put("/compact", "3")
    client.compact(revision + 2)
    try:
        iterator, _ = client.watch("/compact", start_revision=revision)
        next(iterator)
        TAP.ok(False, "a watch from a compacted revision fails")
    except etcd3.exceptions.RevisionCompactedError as error:
        TAP.equal(error.compacted_revision, revision + 2,
                  "a watch from a compacted revision fails and tells the compacted one")
    TAP.equal(client.get("/compact")[0], b"3", "compaction keeps the newest value")


def test_leases(client):
    lease = client.lease(1000)
    client.put("/lease/a", "1", lease)
    client.put("/lease/b", "2", lease)
    TAP.equal((lease.granted_ttl, sorted(lease.keys)), (1000, [b"/lease/a", b"/lease/b"]),
              "a lease knows its time and its keys")
    TAP.ok(0 < lease.remaining_ttl <= 1000, "a lease has time left", lease.remaining_ttl)
    TAP.equal([answer.TTL for answer in lease.refresh()], [1000], "a refresh gives all of it back")
    TAP.equal(client.get("/lease/a")[1].lease_id, lease.id, "a key knows its lease")
    lease.revoke()
    TAP.equal(client.get("/lease/a"), (None, None), "a revoked lease takes its keys along")
    chosen = client.lease(1000, lease_id=4711)
    TAP.equal(chosen.id, 4711, "a lease may have a chosen id")
    chosen.revoke()

    gone = queue.Queue()
    watch = client.add_watch_callback("/lease/short",
                                      lambda answer: [gone.put(event) for event in answer.events])
    client.put("/lease/short", "1", client.lease(1))
    gone.get(timeout=SECONDS)
    TAP.equal(type(gone.get(timeout=SECONDS)).__name__, "DeleteEvent",
              "a lease that is not refreshed takes its key along by itself")
    client.cancel_watch(watch)


def test_locks(etcd3, server):
    """Threads with clients of their own add one under a lock; nothing is lost."""
    failures = []

    def work():
        try:
            with etcd3.client(port=server.port) as client:
                for _ in range(5):
                    lock = client.lock("counter", ttl=60)
                    # Not acquire(timeout=N): Debian's etcd3 does not fit Debian's tenacity and
                    # fails when it has to wait.
                    deadline = time.monotonic() + 60
                    while not lock.acquire(timeout=0):
                        if time.monotonic() > deadline:
                            raise TimeoutError("the lock was never free")
                    number = int(client.get("/counter")[0] or b"0")
                    client.put("/counter", str(number + 1))
                    lock.release()
        except Exception as error:  # reported by the assertion below
            failures.append(repr(error))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with etcd3.client(port=server.port) as client:
        TAP.equal((failures, client.get("/counter")[0]), ([], b"20"),
                  "a lock excludes: no increment is lost")
        lock = client.lock("alone", ttl=60)
        TAP.ok(lock.acquire() and lock.is_acquired(), "a free lock is acquired")
        with etcd3.client(port=server.port) as other:
            TAP.ok(not other.lock("alone", ttl=60).acquire(timeout=0),
                   "a held lock is not acquired by another")
        TAP.ok(lock.release() and not lock.is_acquired(), "a lock is released")


def test_cluster(client):
    status = client.status()
    TAP.ok(status.version.startswith("3.") and status.db_size > 0 and status.leader is not None,
           "status tells version, size and leader", status)
    TAP.equal(len(list(client.members)), 1, "there is one member")


def quiet_at_close(failure):
    """The client's watch thread runs into the channel that its own close() has closed."""
    if not (isinstance(failure.exc_value, ValueError) and "closed" in str(failure.exc_value)):
        threading.__excepthook__(failure)


def main():
    threading.excepthook = quiet_at_close
    try:
        import etcd3
    except ImportError:
        TAP.skip_all("no python3-etcd3")
    server = t4test.subject()
    if server is None:
        TAP.skip_all("no t4 in " + t4test.BUILD_DIR)
    with server.start(), etcd3.client(port=server.port) as client:
        for test in (test_keys, test_transactions, test_watch, test_leases, test_compaction,
                     test_cluster):
            try:
                test(client, etcd3) if test is test_compaction else test(client)
            except (etcd3.exceptions.Etcd3Exception, queue.Empty) as error:
                TAP.ok(False, test.__name__ + " ran to its end", repr(error))
        test_locks(etcd3, server)
    TAP.done()


main()

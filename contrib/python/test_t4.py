"""test_t4.py - every function of the binding, against a real database.

SPDX-License-Identifier: Apache-2.0
"""

import os
import select
import shutil
import tempfile
import threading
import unittest

import t4

SECONDS = 20


class DatabaseTest(unittest.TestCase):
    def setUp(self):
        self.root = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, self.root)
        self.path = os.path.join(self.root, "data")
        self.db = t4.open(self.path)
        self.addCleanup(self.db.close)

    def test_keys(self):
        db = self.db
        self.assertEqual(db.put("a", b"1"), 2)
        revision, before = db.put("a", "2", prev_kv=True)
        self.assertEqual((revision, before.value), (3, b"1"))
        self.assertEqual(db.get("a"), t4.KeyValue(b"a", b"2", 2, 3, 2, 0))
        self.assertEqual(db.get("a", revision=2).value, b"1")
        self.assertIsNone(db.get("b"))
        db["b"] = "x\0y"
        self.assertEqual(db[b"b"], b"x\0y")
        self.assertTrue("b" in db and "c" not in db)
        with self.assertRaises(KeyError):
            db["c"]
        self.assertEqual(db.delete(prefix="a"), 1)
        del db["b"]
        with self.assertRaises(KeyError):
            del db["b"]
        self.assertEqual(db.count(), 0)
        self.assertEqual(db.revision, 6)
        db.barrier()

    def test_iteration(self):
        db = self.db
        for i in range(1500):
            db.transaction(success=[t4.put("k%04d" % i, b"v" * 500)] + (
                [t4.put("other", "1")] if i % 100 == 0 else []))
        revision = db.revision
        seen = []
        for kv in db.range(prefix="k", revision=revision):
            if not seen:
                db.delete(start="k0500", end="k1000")
            seen.append(kv.key)
        self.assertEqual(seen, [b"k%04d" % i for i in range(1500)])
        self.assertEqual(db.count(prefix="k"), 1000)
        self.assertEqual(len(list(db.range(start="k14", limit=5))), 5)
        self.assertEqual([kv.key for kv in db.range(start="o")], [b"other"])
        self.assertEqual(len(list(db)), 1001)
        self.assertEqual({kv.value for kv in db.range(keys_only=True)}, {b""})
        unfinished = db.range()
        next(unfinished)
        db.close()
        with self.assertRaises(t4.Closed):
            list(unfinished)
        with self.assertRaises(t4.Closed):
            db.get("k")

    def test_snapshots(self):
        db = self.db
        db["a"] = "old"
        with db.snapshot() as snapshot:
            db["a"] = "new"
            self.assertEqual(snapshot.get("a").value, b"old")
            self.assertEqual([kv.value for kv in snapshot], [b"old"])
            self.assertEqual(snapshot.revision, 2)
            db.compact(3, physical=True)
            db.defragment()
            with self.assertRaises(t4.Compacted) as caught:
                snapshot.get("a")
            self.assertIn("compacted", str(caught.exception))
        with self.assertRaises(t4.FutureRevision):
            db.get("a", revision=100)

    def test_transactions(self):
        db = self.db

        def claim(who):
            return db.transaction(compare=[t4.version("owner") == 0],
                                  success=[t4.put("owner", who)], failure=[t4.get("owner")])

        self.assertTrue(claim("me").succeeded)
        lost = claim("you")
        self.assertFalse(lost.succeeded)
        self.assertEqual(lost.results[0].kvs[0].value, b"me")
        self.assertTrue(db.transaction(
            compare=[t4.value("owner") == "me", t4.mod_revision("owner") < 100,
                     t4.create_revision("owner") != 0, t4.lease("owner") == 0],
            success=[t4.delete("owner")]).succeeded)
        with self.assertRaises(t4.Invalid):
            db.transaction(success=[t4.put("x", ""), t4.put("x", "")])

    def test_leases(self):
        db = self.db
        with db.lease(60) as lease:
            self.assertEqual(lease.granted_ttl, 60)
            db.put("a", "1", lease=lease)
            self.assertEqual(lease.time_to_live()[1], [b"a"])
            self.assertEqual(lease.keep_alive(), 60)
            self.assertEqual(db.leases(), [lease.id])
        self.assertNotIn("a", db)
        with self.assertRaises(t4.NotFound):
            lease.keep_alive()

    def test_watch(self):
        db = self.db
        db["a"] = "0"
        with db.watch(prefix="a", prev_kv=True) as watch:
            db["a"] = "1"
            event = next(watch)
            self.assertEqual((event.type, event.key, event.value, event.prev.value),
                             ("put", b"a", b"1", b"0"))
            with self.assertRaises(t4.Timeout):
                watch.get(timeout=0)
            del db["a"]
            readable, _, _ = select.select([watch], [], [], SECONDS)
            self.assertEqual(readable, [watch])
            self.assertEqual(watch.get(0).type, "delete")
        with db.watch(start_revision=2) as past:
            self.assertEqual([next(past).type for _ in range(3)], ["put", "put", "delete"])
            db.close()
            with self.assertRaises(t4.Closed):
                next(past)

    def test_watch_with_callback(self):
        came, done = [], threading.Event()

        def on_event(event):
            came.append(event.value)
            self.db.get("a")  # a callback may call
            if len(came) == 100:
                done.set()

        watch = self.db.watch("a", callback=on_event)
        for i in range(100):
            self.db["a"] = str(i)
        self.assertTrue(done.wait(SECONDS))
        self.assertEqual(came, [b"%d" % i for i in range(100)])
        self.db.close()
        self.assertIsInstance(watch.failure, t4.Closed)

    def test_two_databases_and_logs(self):
        logs = [[], []]
        path = os.path.join(self.root, "second")
        with self.assertRaises(t4.Busy):
            t4.open(self.path)
        with t4.open(path, log=lambda level, event: logs[0].append((level, event)),
                     log_level="debug", storage_engine="memory") as second:
            second["a"] = "second"
            self.db["a"] = "first"
            self.assertEqual((self.db["a"], second["a"]), (b"first", b"second"))
            self.assertNotEqual(self.db.info()["cluster_id"], second.info()["cluster_id"])
            self.assertIn("t4_", second.metrics())
        self.assertTrue(any(path in event for _, event in logs[0]) or logs[0])
        self.assertTrue({level for level, _ in logs[0]} <= {"error", "warn", "info", "debug"})

    def test_mistakes(self):
        with self.assertRaises(t4.Invalid) as caught:
            t4.open(os.path.join(self.root, "other"), storage_enjin="x")
        self.assertEqual(caught.exception.message, 'there is no option "storage_enjin"')
        self.assertIn("storage_engine", caught.exception.hint)
        with self.assertRaises(t4.Invalid):
            self.db.put("", "x")
        with self.assertRaises(ValueError):
            self.db.delete("a", prefix="b")

    def test_threads(self):
        def work(number):
            for i in range(50):
                self.db.put("t%d" % number, str(i))

        threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(self.db.revision, 201)
        self.assertEqual([kv.version for kv in self.db], [50] * 4)


if __name__ == "__main__":
    unittest.main()

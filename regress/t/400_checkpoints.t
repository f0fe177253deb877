#!/usr/bin/python3
"""400_checkpoints.t - checkpoints, folds, archives and removal under load, and kill -9 in each.

At each point of the checkpointer's work a request is held, the server killed, and started again:
what was acknowledged is there, and the state that the store gives by checkpoint and log alone
(store_state) is what a client reads.  An idle server puts nothing.  The local log gets shorter.

SPDX-License-Identifier: Apache-2.0
"""

import json
import os
import random
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "lib"))

import t4test  # noqa: E402
from storetest import DirStore, Load, metric, server, until  # noqa: E402

TAP = t4test.Tap()
TOOLS = os.path.join(t4test.BUILD_DIR, "regress", "tools")
SHORT = ["--checkpoint-interval=100ms", "--checkpoint-bytes=64KiB"]


def run(*words, text=None):
    environment = {k: v for k, v in os.environ.items() if not k.startswith("T4_")}
    environment["T4_PLUGIN_DIR"] = os.environ.get(
        "T4_PLUGIN_DIR", os.path.join(t4test.BUILD_DIR, "plugins"))
    done = subprocess.run(list(words), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                          input=text, env=environment, timeout=120)
    return done.returncode, done.stdout, done.stderr


def store_state(store, *words):
    """({key: (value, mod_revision)}, index of the checkpoint) from the store alone."""
    code, out, err = run(os.path.join(TOOLS, "store_state"), "file://" + store.path, *words)
    if code != 0:
        return err, 0
    lines = out.splitlines()
    state = {}
    for line in lines[1:]:
        key, value, revision = line.split(" ")
        state[bytes.fromhex(key)] = (bytes.fromhex(value.replace("-", "")), int(revision))
    return state, int(lines[0].split(" ")[5])


def client_state(instance):
    import etcdclient
    client = etcdclient.Client(instance.address)
    found, key = {}, b"\0"
    while True:
        page = client.range(key, b"\0", limit=500)
        for kv in page.kvs:
            found[kv.key] = (kv.value, kv.mod_revision)
        if not page.more:
            break
        key = page.kvs[-1].key + b"\0"
    client.close()
    return found


def status_of(instance):
    code, out, err = run(t4test.T4.binary, "status", "--endpoint", instance.metrics_address,
                         "--json")
    return json.loads(out) if code == 0 else {}


def covered(instance):
    """Everything that was written is in a checkpoint."""
    seen = status_of(instance)
    return seen.get("checkpoint_index", 0) == seen.get("index", -1)


def agree(instance, store, name):
    want = client_state(instance)
    got, _ = store_state(store)
    TAP.ok(got == want, name + ": checkpoint and log give what a client reads",
           "%d keys, want %d; %s" % (len(got), len(want), got if isinstance(got, str) else ""))


POINTS = ["put sst/", "put run/", "put checkpoint/", "put manifest/", "put log/", "get log/",
          "get wal/", "get sst/", "get run/", "remove *", "list sst/", "list branches/"]


def killed_at_every_point():
    import etcdclient
    chance = random.Random(int(os.environ.get("T4_TEST_SEED", "5")))
    with DirStore() as store, server(store, "--history-retention=1s", *SHORT) as instance:
        acked = {}
        for point in POINTS:
            for how in ("hold", "hold-answer"):
                name = "killed with %s %s" % (how, point)
                instance.start()
                client = etcdclient.Client(instance.address)
                client.put(b"before", b"")
                store.control("%s %s" % (how, point))
                load = Load(instance.address, "%s %s" % (how, point))
                load.wait(100 + chance.randrange(300))
                instance.kill()
                load.join()
                client.close()
                store.control()
                acked.update(load.acked)
                instance.start()
                found = client_state(instance)
                wrong = [key for key, value in acked.items() if found.get(key) != value]
                TAP.equal(wrong, [], name + ": every acknowledged write is there")
                agree(instance, store, name)
                instance.kill()
        instance.start()
        TAP.ok(until(lambda: covered(instance)), "afterwards a checkpoint holds everything")
        agree(instance, store, "in the end")
        got, _ = store_state(store, "first")
        TAP.ok(got == client_state(instance), "and so does the oldest one that is kept")
        TAP.ok(metric(instance, "t4_checkpoint_failures_total") == 0, "without a failure")


def killed_anywhere():
    chance = random.Random(int(os.environ.get("T4_TEST_SEED", "6")))
    with DirStore() as store, server(store, "--history-retention=0s", *SHORT) as instance:
        acked = {}
        for turn in range(12):
            instance.start()
            load = Load(instance.address, "turn%d" % turn)
            load.wait(50 + chance.randrange(800))
            instance.kill()
            load.join()
            acked.update(load.acked)
        instance.start()
        found = client_state(instance)
        TAP.equal([key for key, value in acked.items() if found.get(key) != value], [],
                  "killed at any time: %d acknowledged writes are there" % len(acked))
        agree(instance, store, "killed at any time")
        TAP.ok(until(lambda: covered(instance)), "checkpoints go on")
        TAP.ok(until(lambda: status_of(instance)["checkpoints_kept"] == 2),
               "without retention two are kept")
        TAP.ok(until(lambda: sum(len(names) for _, _, names in os.walk(store.path)) < 150),
               "and what is not needed goes")


def idle():
    with DirStore() as store, server(store, *SHORT) as instance:
        import etcdclient
        instance.start()
        client = etcdclient.Client(instance.address)
        for number in range(100):
            client.put(b"key%d" % number, b"x" * 1000)
        TAP.ok(until(lambda: covered(instance)), "a checkpoint comes by time")
        before = [line for line in store.requests() if line.startswith(("put", "remove"))]
        for _ in range(40):
            client.range(b"key1", serializable=True)
            status_of(instance)
        after = [line for line in store.requests() if line.startswith(("put", "remove"))]
        # The leadership lease is renewed, and given back, for the linearizable reads before.
        new = [line for line in after[len(before):]
               if not line.startswith("put leader-lock") and not line.startswith("remove")]
        TAP.equal(new, [], "an idle server puts nothing")
        client.close()


def by_hand():
    with DirStore() as store, server(store, *SHORT) as instance:
        instance.start()
        load = Load(instance.address, "a")
        load.wait(500)
        until(lambda: metric(instance, "t4_checkpoints_total") >= 4)
        load.finish()
        TAP.ok(until(lambda: covered(instance)), "everything is in a checkpoint")
        seen = status_of(instance)
        TAP.ok(seen["checkpoint_runs"] >= 1 and seen["checkpoints_kept"] >= 2 and
               seen["archived_slots"] > 0, "the server shows checkpoints and archives", seen)
        instance.stop()
        plain = "--object-store=file://" + store.path
        code, out, err = run(t4test.T4.binary, "status", plain, "--json")
        held = json.loads(out)
        TAP.ok(code == 0 and held["checkpoint_index"] == seen["checkpoint_index"] and
               held["ssts_objects"] > 0 and held["runs_objects"] > 0 and
               held["archives_objects"] > 0 and held["durable_index"] == seen["index"],
               "t4 status shows those of the store", held)
        code, out, err = run(t4test.T4.binary, "gc", plain, "--dry-run",
                             "--history-retention=0s")
        lines = out.splitlines()
        TAP.ok(code == 0 and any(line.startswith("would take off the list") for line in lines),
               "t4 gc --dry-run shows what a round would take off", out, err)
        again = run(t4test.T4.binary, "status", plain, "--json")[1]
        TAP.equal(json.loads(again), held, "and deletes nothing")
        before, _ = store_state(store)
        code, out, err = run(t4test.T4.binary, "gc", plain)
        TAP.ok(code == 0 and "deleted" in out, "t4 gc deletes", out, err)
        after, _ = store_state(store)
        TAP.ok(before == after and len(before) == len(load.acked), "nothing that is needed")
        run(os.path.join(TOOLS, "object_tool"), "file://" + store.path,
            text="put any branches/b 3 1\n")
        code, out, err = run(t4test.T4.binary, "gc", plain)
        TAP.ok(code == 0 and "branches" in out, "with a branch registered it deletes nothing", out,
               err)
        code, out, err = run(t4test.T4.binary, "gc", "--object-store=file:///nonexistent-t4")
        TAP.ok(code == 1 and "t4 gc: " in err, "without a store it says so", out, err)


def shorter_log():
    import etcdclient
    with DirStore() as store, server(store, "--wal-keep-bytes=2MiB", "--wal-sync-upload=false",
                                     "--upload-max-age=50ms", *SHORT) as instance:
        def segments():
            return len([name for name in os.listdir(os.path.join(instance.data_dir, "wal"))
                        if name.endswith(".wal")])
        instance.start()
        client = etcdclient.Client(instance.address)
        for number in range(400):
            client.put(b"key%d" % (number % 50), os.urandom(100000))
        TAP.ok(until(lambda: metric(instance, "t4_engine_flushed_index") > 0 and
                     segments() < 32), "the local log gets shorter", segments())
        client.close()
        want = client_state(instance)
        for crash in (True, False):
            instance.restart(crash)
            TAP.ok(client_state(instance) == want, "and can be started with, %s" %
                   ("killed" if crash else "stopped"))
        agree(instance, store, "a shorter log")


def main():
    if not os.path.exists(t4test.T4.binary):
        TAP.skip_all("t4 was not built")
    killed_at_every_point()
    killed_anywhere()
    idle()
    by_hand()
    shorter_log()
    TAP.done()


main()

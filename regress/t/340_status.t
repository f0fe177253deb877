#!/usr/bin/python3
"""340_status.t - t4 status: of a store, of a live server, in both modes, for people and programs.

SPDX-License-Identifier: Apache-2.0
"""

import json
import os
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "lib"))

import t4test  # noqa: E402
from storetest import DirStore, server, until  # noqa: E402

TAP = t4test.Tap()


def status(*words, **variables):
    environment = {k: v for k, v in os.environ.items() if not k.startswith("T4_")}
    plugins = os.environ.get("T4_PLUGIN_DIR")
    environment.update({"T4_PLUGIN_DIR": plugins} if plugins else {}, **variables)
    run = subprocess.run([t4test.T4.binary, "status"] + list(words), stdout=subprocess.PIPE,
                         stderr=subprocess.PIPE, text=True, env=environment, timeout=60)
    return run.returncode, run.stdout, run.stderr


def of_server(instance):
    code, out, err = status("--endpoint", instance.metrics_address, "--json")
    return json.loads(out) if code == 0 else {"failed": err}


def live_and_store():
    import etcdclient
    with DirStore() as store, server(store, "--wal-sync-upload=false",
                                     "--upload-max-age=1h") as instance:
        plain = "file://" + store.path
        instance.start()
        client = etcdclient.Client(instance.address)
        for number in range(5):
            client.put(b"key%d" % number)
        seen = of_server(instance)
        TAP.equal((seen.get("state"), seen.get("commit_rule"), seen.get("revision"),
                   seen.get("durable_revision"), seen.get("lag_entries"),
                   seen.get("lag_revisions")), ("leading", "local", 6, 1, 5, 5),
                  "a server in async mode shows what is not uploaded")
        TAP.ok("would lose 5 writes (revisions 2 to 6)" in seen["at_stake"],
               "and says what a lost disk would lose", seen["at_stake"])
        code, out, err = status("--object-store", plain, "--json")
        held = json.loads(out)
        TAP.equal((code, held["commit_rule"], held["durable_index"], held["released"]),
                  (0, "local", 0, False), "the store does not have it yet")
        instance.stop()
        code, out, err = status("--json", T4_OBJECT_STORE=plain)
        held = json.loads(out)
        TAP.equal((held["durable_revision"], held["durable_index"], held["released_revision"],
                   held["lock_objects"], held["segments_objects"], held["slots"]),
                  (6, 5, 6, 1, 2, 2), "after the stop it has everything, and the lock is released")
        code, out, err = status("--object-store=" + plain)
        TAP.ok(code == 0 and "durable revision      6\n" in out and "gave the lock back" in out,
               "the same as a table", out, err)
        client.close()
    with DirStore() as store, server(store) as instance:
        instance.start()
        client = etcdclient.Client(instance.address)
        client.put(b"key")
        seen = of_server(instance)
        TAP.equal((seen["commit_rule"], seen["durable_revision"], seen["lag_entries"],
                   seen["at_stake"]),
                  ("object", 2, 0, "a disk lost now would lose nothing that was acknowledged"),
                  "a server in sync mode")
        store.control("outage")
        client.begin("KV/Put", etcdclient.api.PutRequest(key=b"waits"), timeout=60)
        TAP.ok(until(lambda: of_server(instance).get("degraded") is True),
               "an outage shows as degraded", of_server(instance))
        code, out, _ = status("--endpoint=http://" + instance.metrics_address)
        TAP.ok(code == 0 and "\nreason " in out, "with the reason, as a table", out)
        store.control()
        client.close()
    with t4test.T4() as instance:
        instance.start()
        seen = of_server(instance)
        TAP.ok(seen["built_in"] is True and "everything" in seen["at_stake"],
               "a server with the built-in store says so", seen)


def failures():
    with DirStore() as store:
        cases = [
            (["--data-dir=" + store.folder + "/none"], 2, "there is no store in"),
            (["--object-store=nonsense"], 2, "--object-store"),
            (["--endpoint=nonsense"], 2, "--endpoint"),
            (["--endpoint=127.0.0.1:1"], 1, "no answer"),
            (["--frobnicate"], 2, "--frobnicate"),
            (["--object-store=file://" + store.folder + "/none"], 1, "is empty"),
        ]
        for words, code, text in cases:
            got, out, err = status(*words)
            TAP.ok(got == code and out == "" and text in err, "t4 status %s" % words, got, err)
        with server(store) as instance:
            instance.start()
            instance.stop()
        lock = os.path.join(store.path, "leader-lock")
        with open(lock, "r+b") as file:
            file.seek(20)
            file.write(b"?")
        got, out, err = status("--object-store=file://" + store.path)
        TAP.ok(got == 1 and "leader-lock is damaged" in err, "a damaged lock is named", got, err)
        os.unlink(lock)
        got, out, err = status("--object-store=file://" + store.path)
        TAP.ok(got == 1 and "no leader-lock" in err, "a missing lock is named", got, err)


def main():
    if not os.path.exists(t4test.T4.binary):
        TAP.skip_all("t4 was not built")
    live_and_store()
    failures()
    TAP.done()


main()

#!/usr/bin/python3
"""615_bench.t - the load client (contrib/bench/t4-bench): it does what it says and notices what is wrong.

Each mode runs with a few operations, and what it reports is compared with what the server then has: keys,
versions, leases.  Then what it must not pass over: keys that are not there, leases that are gone, somebody
else's events, and a command line that makes no sense.

SPDX-License-Identifier: Apache-2.0
"""

import json
import os
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "lib"))

import t4test  # noqa: E402

TAP = t4test.Tap()
CLIENT = os.path.join(t4test.BUILD_DIR, "contrib", "bench", "t4-bench")
SECONDS = 30


def begin(mode, address, **options):
    return subprocess.Popen(
        [CLIENT, "--json"] + ["--%s=%s" % (name.replace("_", "-"), value)
                              for name, value in options.items()] + [mode, address],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def end(process):
    """Exit status, figures (or None), what it said."""
    try:
        out, complaint = process.communicate(timeout=SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        return None, None, "it does not end"
    return process.returncode, json.loads(out) if out else None, complaint


def run(mode, address, **options):
    return end(begin(mode, address, **options))


def good(mode, address, **options):
    status, figures, complaint = run(mode, address, **options)
    if not TAP.ok(status == 0 and figures["failed"] == 0 and complaint == "",
                  "%s %s" % (mode, options or ""), "status %s" % status, complaint, figures):
        TAP.done()
    TAP.ok(figures["mode"] == mode and figures["ops_per_s"] > 0 and
           0 < figures["p50_us"] <= figures["p99_us"] and figures["client_cpu_us_per_op"] > 0,
           "%s: its figures make sense" % mode, figures)
    return figures


def versions(client, prefix):
    """The sum of the versions of all keys: how many puts there were."""
    return sum(kv.version for kv in client.prefix(prefix, keys_only=True).kvs)


def keys_and_values(server, client):
    address = server.address
    TAP.equal(good("fill", address, keys=1200, value_size=100)["operations"], 1200,
              "fill: as many operations as keys")
    found = client.prefix(b"k")
    TAP.equal((len(found.kvs), {(len(kv.key), len(kv.value), kv.version) for kv in found.kvs}),
              (1200, {(64, 100, 1)}), "the keys are there, of the sizes asked for, put once")
    good("seq-get", address, keys=1200, operations=20)
    good("par-get", address, keys=1200, operations=200)
    figures = good("range", address, keys=1200, operations=30)
    TAP.equal((figures["range_keys"], figures["operations"]), (1000, 30), "ranges of 1,000 keys")
    TAP.equal(versions(client, b"k"), 1200, "reading has changed nothing")

    good("seq-put", address, keys=1200, operations=20, value_size=4096, values="random")
    good("par-put", address, keys=1200, operations=300, connections=3, in_flight=7)
    TAP.equal(versions(client, b"k"), 1520, "each put has been done once")
    figures = good("mixed", address, keys=1200, operations=400)
    TAP.equal(versions(client, b"k"), 1520 + figures["puts"], "the puts of mixed, too")
    TAP.ok(100 < figures["puts"] < 300, "these are about half of it", figures)
    figures = good("par-put", address, keys=1200, operations=20, rate=100)
    TAP.ok(figures["seconds"] >= 0.18, "a rate bounds how many begin in a second", figures)
    figures = good("par-put", address, keys=1200, seconds=1)
    TAP.ok(figures["seconds"] >= 1 and figures["operations"] > 10, "or the time", figures)


def compare_and_swap(server, client):
    good("fill", server.address, keys=2, prefix="cas")
    figures = good("txn-cas", server.address, keys=2, prefix="cas", operations=500)
    # 64 begin knowing the same two revisions, so two of them win.
    TAP.ok(figures["lost_races"] >= 62, "races are lost where many want the same key", figures)
    TAP.equal(versions(client, b"cas"), 2 + 500 - figures["lost_races"],
              "each transaction that won has put its key, no other has")
    figures = good("txn-cas", server.address, keys=2, prefix="cas", operations=50, connections=1,
                   in_flight=1)
    TAP.equal(figures["lost_races"], 0, "and none where there is nobody to lose against")


def watches(server, client):
    figures = good("watch", server.address, keys=10, operations=30, watchers=1000, in_flight=4)
    TAP.equal((figures["operations"], figures["puts"], figures["watchers"]), (30000, 30, 1000),
              "each of 1,000 watchers has every event")
    figures = good("watch", server.address, keys=10, operations=10, watchers=3, watch_connections=2)
    TAP.equal(figures["operations"], 30, "watchers need not share connections evenly")


def keepalives(server, client):
    figures = good("keepalive", server.address, leases=100, operations=500)
    TAP.equal(figures["operations"], 500, "keepalives are answered")
    TAP.equal(len(client.leases().leases), 0, "its leases are revoked behind it")


def of_the_server(server):
    figures = good("par-put", server.address, keys=100, operations=2000,
                   server_pid=server.process.pid,
                   metrics="http://%s/metrics" % server.metrics_address)
    TAP.ok(figures["server_cpu_us_per_op"] > 0 and figures["server_total_cpu_us_per_op"] > 0 and
           figures["server_wakeups_per_op"] > 0 and
           figures["server_rss_mib"] >= figures["server_rss_anon_mib"] > 1,
           "CPU time, wake-ups and memory of the server", figures)
    TAP.ok(0 < figures["syncs"] <= 2000 and figures["puts_per_sync"] >= 1, "syncs of its log",
           figures)


def refused(text, mode, address, **options):
    status, figures, complaint = run(mode, address, **options)
    TAP.ok(status == 2 and figures is None and text in complaint, "refused: %s" % text,
           "status %s" % status, complaint)


def meddled_with(server, client):
    watch = begin("watch", server.address, seconds=1, watchers=2, watch_connections=1)
    keepalive = begin("keepalive", server.address, seconds=1, leases=100)
    deadline = time.monotonic() + SECONDS
    while watch.poll() is None and time.monotonic() < deadline:  # some come while it counts
        client.put(b"k1", b"of somebody else")
        for lease in client.leases().leases[:1]:
            client.lease_revoke(lease.ID)
    status, _, complaint = end(watch)
    TAP.ok(status == 2 and "does somebody else write?" in complaint,
           "a watcher that gets more than was put is noticed", status, complaint)
    status, _, complaint = end(keepalive)
    TAP.ok(status != 0 and "leases are gone" in complaint, "leases that are gone are noticed",
           status, complaint)


def what_is_wrong(server, client):
    address = server.address
    refused("has 0 of these 10 keys: fill it first", "par-get", address, keys=10, prefix="none")
    client.delete(b"k%063d" % 5)
    refused("has 1199 of these 1200 keys", "range", address, keys=1200)
    refused("--range-keys is more than --keys", "range", address, keys=999)
    refused("--keys must be a number", "fill", address, keys="many")
    refused("there is no mode \"puts\"", "puts", address)
    refused("exclude each other", "par-put", address, operations=1, seconds=1)
    refused("one request in flight", "seq-put", address, in_flight=2)
    refused("is no endpoint", "fill", "nowhere")
    refused("is a server running there?", "fill", "127.0.0.1:%d" % t4test.free_port())
    refused("there is no process", "fill", address, server_pid=2 ** 22 + 1)
    refused("nobody answers", "fill", address, metrics="http://127.0.0.1:%d/metrics" %
            t4test.free_port())


def main():
    if not os.path.exists(t4test.T4.binary) or not os.path.exists(CLIENT):
        TAP.skip_all("%s or %s was not built" % (t4test.T4.binary, CLIENT))
    import etcdclient
    with t4test.T4() as server:
        server.start()
        client = etcdclient.Client(server.address)
        keys_and_values(server, client)
        compare_and_swap(server, client)
        watches(server, client)
        keepalives(server, client)
        of_the_server(server)
        meddled_with(server, client)
        what_is_wrong(server, client)
        client.close()
        TAP.equal(server.stop(), 0, "the server stops in order")
    TAP.done()


main()

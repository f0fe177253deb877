#!/usr/bin/python3
"""420_verify.t - t4 verify on stores that servers made: whole ones, beside a server, and damaged.

A server makes checkpoints, folds, archives and garbage as fast as it can while clients write and
t4 verify --deep runs again and again; another one takes over from it; never a false alarm.  Then
an object of each kind is removed, cut, has a bit flipped, is exchanged for another of its kind: it
is named.  Nothing in the store ever changes.

SPDX-License-Identifier: Apache-2.0
"""

import json
import os
import random
import re
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "lib"))

import t4test  # noqa: E402
from storetest import DirStore, Load, S3Store, metric, server, until  # noqa: E402

TAP = t4test.Tap()
SEED = int(os.environ.get("T4_TEST_SEED", "1"))
FAST = ["--checkpoint-interval=100ms", "--checkpoint-bytes=64KiB", "--history-retention=0s"]
KEPT = ["--checkpoint-interval=300ms", "--checkpoint-bytes=64KiB", "--history-retention=1h"]
TRAILER = 32  # bytes that the directory store puts behind an object


def verify(*words, **variables):
    """(status, standard output, standard error)"""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("T4_")}
    plugins = os.environ.get("T4_PLUGIN_DIR")
    environment.update({"T4_PLUGIN_DIR": plugins} if plugins else {}, **variables)
    run = subprocess.run([t4test.T4.binary, "verify"] + list(words), stdout=subprocess.PIPE,
                         stderr=subprocess.PIPE, text=True, env=environment, timeout=300)
    return run.returncode, run.stdout, run.stderr


def store_words(store):
    return ["--object-store=" + store.plain_url] + ["--plugin-option=" + s
                                                    for s in store.settings]


def summary(store, *words):
    code, out, err = verify(*store_words(store), "--json", *words, **store.environment)
    try:
        return code, json.loads(out)
    except ValueError:
        return code, {"failed": err}


def tree(folder):
    """Everything that a write would change: names, inodes, sizes, times."""
    found = {}
    for place, _, names in os.walk(folder):
        for path in [place] + [os.path.join(place, name) for name in names]:
            state = os.stat(path)
            found[path] = (state.st_ino, state.st_size, state.st_mtime_ns)
    return found


def objects(store):
    """{key: path}"""
    found = {}
    for place, _, names in os.walk(store.path):
        for name in names:
            path = os.path.join(place, name)
            key = os.path.relpath(path, store.path).replace("+/", "/")
            if not key.startswith("."):
                found[key] = path
    return found


# ---- beside a server ---------------------------------------------------------------------------

def alarms(store, times, *words):
    """What t4 verify says wrongly, in so many runs; the last summary."""
    wrong, last = [], {}
    if os.environ.get("T4_SANITIZER"):  # what is written meanwhile makes each run longer
        times = 1
    for number in range(times):
        code, last = summary(store, "--deep", "--parallel=%d" % (1 + number % 5), *words)
        if code != 0:
            wrong.append((code, last))
    return wrong, last


def beside(store, name, options, times, take_over=True):
    """Verified while servers write; returns the revision at the end, with the store at rest."""
    import etcdclient
    with server(store, "--take-over-now", *options) as one, \
            server(store, "--take-over-now", *options) as two:
        one.start()
        load = Load(one.address, "one")
        TAP.ok(load.wait(200), "%s: a server, and clients that write" % name, one.log_tail())
        until(lambda: metric(one, "t4_checkpoints_total") >= 3)
        wrong, _ = alarms(store, times)
        TAP.equal(wrong, [], "%s: verified again and again: no false alarm" % name)
        last = one
        if take_over:
            two.start()
            other = Load(two.address, "two")
            wrong, _ = alarms(store, max(1, times // 2))
            TAP.equal(wrong, [], "%s: nor while another server takes over" % name)
            load.join()
            one.kill()
            last, load = two, other
        load.finish()
        client = etcdclient.Client(last.address)
        client.compact(client.range(b"x").header.revision - 100)
        for number in range(50):
            client.put(b"last/%d" % number, lease=client.lease_grant(600).ID)
        client.delete(b"last/1", b"last/2")
        answer = client.range(b"\0", b"\0", count_only=True)
        client.close()
        last.stop()
    return answer.header.revision, answer.count


def at_rest(store, name, revision, keys):
    code, found = summary(store, "--deep")
    TAP.ok(code == 0 and found["good"] and not found["problems"], "%s: at rest" % name, found)
    TAP.equal((found["final_revision"], found["final_keys"]), (revision, keys),
              "%s: the log replayed ends at the servers' revision and keys" % name)
    TAP.ok(found["checkpoints"] >= 2 and found["replayed"] >= 1 and found["ssts"] >= 2
           and found["entries"] > 0,
           "%s: with checkpoints, and replayed" % name, found)
    return found


# ---- damage ---------------------------------------------------------------------------------------

def write(path, body, trailer):
    with open(path, "wb") as file:
        file.write(body + trailer[:8] + len(body).to_bytes(8, "little") + trailer[16:])


def flipped(body, chance):
    at = chance.randrange(len(body))
    return body[:at] + bytes([body[at] ^ 1 << chance.randrange(8)]) + body[at + 1:]


def named(store, keys):
    """Is one of them among the problems, and the status 1?"""
    code, found = summary(store)
    told = [p["object"].split(" ")[0] for p in found.get("problems", [])]
    return code == 1 and any(key in told for key in keys), (code, found)


def damaged(store, key, chance, missing):
    """One object in all ways; another of its kind in its place."""
    every = objects(store)
    path = every[key]
    with open(path, "rb") as file:
        content = file.read()
    body, trailer = content[:-TRAILER], content[-TRAILER:]
    state = os.stat(path)
    os.rename(path, path + "%away")  # no name that a key gives
    good, found = named(store, missing)
    TAP.ok(good, "%s removed is named" % key, missing, found)
    os.rename(path + "%away", path)
    kind = key.split("/")[0] + "/"
    others = [k for k in sorted(every) if k.startswith(kind) and k != key and "/" in k]
    changes = [("cut", body[:len(body) // 2]), ("with a bit flipped", flipped(body, chance))]
    if others:
        with open(every[chance.choice(others)], "rb") as file:
            changes.append(("exchanged", file.read()[:-TRAILER]))
    for name, changed in changes:
        write(path, changed, trailer)
        # A segment of a lower term is a leftover to readers: what comes behind misses its own.
        others = missing + raw_slots(store) if name == "exchanged" and kind == "wal/" else []
        good, found = named(store, [key] + others)
        TAP.ok(good, "%s %s is named" % (key, name), found)
    with open(path, "wb") as file:
        file.write(content)
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))


def raw_slots(store):
    """Keys of the segments above the floor: no archive holds them."""
    with open(objects(store)["manifest/latest"], "rb") as file:
        floor = int(re.search(rb"^floor-slot (\d+)$", file.read(), re.M).group(1))
    return [k for k in sorted(objects(store)) if k.startswith("wal/") and int(k[4:]) >= floor]


def with_a_tail(store):
    """Writes until a few segments lie above the floor."""
    import etcdclient
    while len(raw_slots(store)) < 6:
        with server(store, "--take-over-now", *KEPT) as instance:
            instance.start()
            client = etcdclient.Client(instance.address)
            for number in range(7):
                client.put(b"tail/%d" % number)
            client.close()
            instance.stop()


def content_of(store, key):
    with open(objects(store)[key], "rb") as file:
        return file.read()


def newest_checkpoint(store):
    """Its key, that of its newest run, that of one of the run's files."""
    keys = sorted(objects(store), key=lambda k: k.split("-")[-1])
    checkpoint = [k for k in keys if k.startswith("checkpoint/")][-1]
    text = content_of(store, checkpoint)
    run = [k for k in keys if k.startswith("run/") and k[4:68].encode() in text][-1]
    index = content_of(store, run)
    return checkpoint, run, [k for k in keys if k.startswith("sst/")
                             and bytes.fromhex(k[4:68]) in index][-1]


def reached(store):
    """One object of each kind that something needs, and what may be named if it is missing."""
    _, found = summary(store)
    slots = raw_slots(store)
    archives = sorted(k for k in objects(store) if k.startswith("log/"))
    chosen = [(k, [k]) for k in ("cluster", "leader-lock", "manifest/latest")]
    chosen.append((slots[-3], [slots[-3]]))
    chosen.append((slots[-1], [slots[-1], "leader-lock"]))
    if archives:
        chosen.append((archives[-1], [archives[-1], "log/"]))
    return chosen + [(k, [k]) for k in newest_checkpoint(store)], found


def damage(store):
    chance = random.Random(SEED)
    chosen, found = reached(store)
    TAP.ok(found["archives"] >= 1 and found["orphan_objects"] < found["ssts"],
           "there are archives, too", found)
    for key, missing in chosen:
        damaged(store, key, chance, missing)
    code, found = summary(store, "--deep")
    TAP.ok(code == 0 and found["good"], "mended, all is good again", found)
    path = objects(store)[chosen[3][0]]
    with open(path, "rb") as file:
        content = file.read()
    with open(path, "wb") as file:
        file.write(content[:-1])
    code, out, err = verify(*store_words(store))
    TAP.ok(code == 1 and chosen[3][0] in out + err, "a file that is no object is named", out, err)
    with open(path, "wb") as file:
        file.write(content)


def for_people(store):
    before = tree(store.path)
    code, out, err = verify(*store_words(store))
    TAP.ok(code == 0 and err == "" and out.endswith("everything is as it must be\n"),
           "the table for people", out, err)
    TAP.equal(tree(store.path), before, "nothing in the store has changed")
    key = newest_checkpoint(store)[2]
    path = objects(store)[key]
    os.rename(path, path + "%away")
    code, out, err = verify(*store_words(store))
    TAP.ok(code == 1 and "BAD                   %s is missing" % key in out
           and "problems: see the lines BAD above" in out, "BAD names what is missing", out, err)
    os.rename(path + "%away", path)


# ---- the command ----------------------------------------------------------------------------------

def one_checkpoint(store):
    revisions = sorted(int(re.match(r"checkpoint/\d+/(\d+)-", key).group(1))
                       for key in objects(store) if key.startswith("checkpoint/"))
    code, found = summary(store, "--deep", "--checkpoint=%d" % revisions[-2])
    TAP.ok(code == 0 and found["replayed"] == 1 and "final_keys" not in found,
           "one checkpoint to the next", found)
    code, found = summary(store, "--deep", "--checkpoint=%d" % revisions[-1])
    TAP.ok(code == 0 and found["replayed"] == 0 and found["final_keys"] > 0,
           "the newest one to the end", found)
    code, out, err = verify(*store_words(store), "--deep", "--checkpoint=1000000")
    TAP.ok(code == 1 and "keeps no checkpoint of revision 1000000" in err
           and "to %d" % revisions[-1] in err, "a revision that is not there", err)


def moved(store):
    with DirStore() as other:
        run = subprocess.run([t4test.T4.binary, "store", "move", "--to=" + other.plain_url]
                             + store_words(store), stdout=subprocess.PIPE,
                             stderr=subprocess.STDOUT, text=True)
        _, before = summary(store)
        TAP.ok("this store was moved to " + other.plain_url in before.get("failed", ""),
               "of a store that was moved the new place is told", run.stdout, before)
        code, found = summary(other, "--deep")
        TAP.ok(code == 0 and found["good"] and found["final_keys"] > 0,
               "and there everything is", found)


def wrong_words():
    with DirStore() as store:
        url = "--object-store=" + store.plain_url
        cases = [
            ([url, "--parallel=0"], 2, "--parallel takes no \"0\""),
            ([url, "--parallel=65"], 2, "--parallel takes no \"65\""),
            ([url, "--checkpoint=5"], 2, "give --deep, too"),
            ([url, "--deep", "--checkpoint=x"], 2, "--checkpoint takes no \"x\""),
            ([url, "--deep", "--tmp="], 2, "a value is missing behind --tmp"),
            ([url, "--no-such-flag"], 2, "no-such-flag"),
            ([url], 1, "is empty"),
            (["--data-dir=/nonexistent"], 2, "there is no store in /nonexistent/store"),
        ]
        for words, code, text in cases:
            got, out, err = verify(*words)
            TAP.ok(got == code and out == "" and text in err, "t4 verify %s" % words[1:], got, err)
    texts = [subprocess.run([t4test.T4.binary] + words, stdout=subprocess.PIPE, text=True).stdout
             for words in (["help", "verify"], ["verify", "--help"])]
    TAP.ok(texts[0] == texts[1] and "--deep" in texts[0], "the help, in two ways")


def built_in():
    import etcdclient
    with t4test.T4() as instance:
        instance.start()
        client = etcdclient.Client(instance.address)
        for number in range(20):
            client.put(b"key%d" % number)
        client.close()
        instance.stop()
        code, out, err = verify("--data-dir", instance.data_dir, "--deep", "--json")
        TAP.ok(code == 0 and json.loads(out)["final_keys"] == 20, "the built-in store", out, err)
        code, out, err = verify("--data-dir", instance.data_dir, "--deep",
                                "--tmp=" + instance.data_dir + "/none")
        TAP.ok(code == 1 and "by --tmp" in err, "no folder for temporary files", out, err)


def main():
    if not os.path.exists(t4test.T4.binary):
        TAP.skip_all("t4 was not built")
    wrong_words()
    built_in()
    with DirStore() as store:
        at_rest(store, "nothing kept", *beside(store, "nothing kept", FAST, 10))
    with DirStore() as store:
        at_rest(store, "all kept", *beside(store, "all kept", KEPT, 6))
        for_people(store)
        one_checkpoint(store)
        with_a_tail(store)
        damage(store)
        moved(store)
    try:
        s3 = S3Store()
    except (OSError, RuntimeError) as why:
        TAP.skip("no S3 server here: %s" % why)
    else:
        with s3 as store:
            # versitygw gives the tag of a newer version with an older body, so that of two
            # leaders the older one may win: none of what S3 promises.
            at_rest(store, "S3", *beside(store, "S3", FAST, 3, take_over=False))
    TAP.done()


main()

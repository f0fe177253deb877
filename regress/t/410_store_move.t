#!/usr/bin/python3
"""410_store_move.t - t4 store move: a store in another place, with everything that was in it.

Built-in store to a directory, to S3, and S3 to Google Cloud Storage, under load before, with kill
-9 of the command at every step and at random, and answers lost on the way; afterwards a server at
the target has every key, old revision and lease, and none can use the source.  Moves that race
with each other, with a server at the target, and with --abort.  Wrong uses, with their words.
T4_MOVE_ROUNDS (4): how often a move at random is killed.

SPDX-License-Identifier: Apache-2.0
"""

import hashlib
import os
import random
import re
import shutil
import subprocess
import sys
import types

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "lib"))

import gcs_servers  # noqa: E402
import object_servers  # noqa: E402
import t4test  # noqa: E402
from storetest import DirStore, GcsStore, Load, S3Store, server, until  # noqa: E402

TAP = t4test.Tap()
ROUNDS = int(os.environ.get("T4_MOVE_ROUNDS") or 4)
SECONDS = 120


# ---- the command ----------------------------------------------------------------------------

def environment_of(source, target):
    """Credentials of both stores; the target's settings are its own."""
    settings = list(target.settings) + ["fault.control=" + target.control_path,
                                        "fault.log=" + target.log_path]
    if target.name == "s3":
        settings += ["s3.access_key_id=" + object_servers.ID,
                     "s3.secret_access_key=" + object_servers.SECRET]
    found = {k: v for k, v in os.environ.items() if not k.startswith(("T4_", "ETCD"))}
    if os.environ.get("T4_PLUGIN_DIR"):
        found["T4_PLUGIN_DIR"] = os.environ["T4_PLUGIN_DIR"]
    for store in (source, target):
        found.update(getattr(store, "environment", {}))
    found["T4_TO_PLUGIN_OPTION"] = ",".join(settings)
    return found


def place(store):
    return "fault+" + store.plain_url


def words(source, target, *more):
    """source: a store, or a server with a built-in one."""
    from_words = source.options() if isinstance(source, DirStore.__mro__[1]) \
        else ["--data-dir=" + source.data_dir]
    return [t4test.T4.binary, "store", "move", "--to=" + place(target)] + from_words + list(more)


def move(source, target, *more):
    run = subprocess.run(words(source, target, *more), stdout=subprocess.PIPE,
                         stderr=subprocess.PIPE, text=True, timeout=SECONDS,
                         env=environment_of(source, target))
    return run.returncode, run.stdout, run.stderr


class Running:
    """The command, under way."""

    def __init__(self, source, target, *more):
        self.process = subprocess.Popen(
            words(source, target, *more), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env=environment_of(source, target))

    def ended(self):
        return self.process.poll() is not None

    def kill(self):
        self.process.kill()
        self.process.communicate()

    def result(self):
        out, err = self.process.communicate(timeout=SECONDS)
        return self.process.returncode, out, err


def plain(*arguments, **variables):
    """The command as it is given by hand."""
    found = {k: v for k, v in os.environ.items() if not k.startswith(("T4_", "ETCD"))}
    if os.environ.get("T4_PLUGIN_DIR"):
        found["T4_PLUGIN_DIR"] = os.environ["T4_PLUGIN_DIR"]
    found.update(variables)
    run = subprocess.run([t4test.T4.binary, "store"] + list(arguments), stdout=subprocess.PIPE,
                         stderr=subprocess.PIPE, text=True, env=found, timeout=SECONDS)
    return run.returncode, run.stdout, run.stderr


# ---- servers and what they hold ---------------------------------------------------------------

def client_of(instance):
    import etcdclient
    return etcdclient.Client(instance.address)


def fill(instance, tag=b"", revisions=40):
    """Keys with history, deletions, a transaction, leases; a compaction in the middle."""
    import etcdclient
    api = etcdclient.api
    client = client_of(instance)
    for number in range(revisions):
        client.put(b"%skey/%02d" % (tag, number % 13), b"value %d" % number)
    client.delete(tag + b"key/03")
    client.txn(success=[api.RequestOp(request_put=api.PutRequest(key=tag + b"txn/a", value=b"1")),
                        api.RequestOp(request_put=api.PutRequest(key=tag + b"txn/b", value=b"2"))])
    lease = client.lease_grant(3600).ID
    client.put(tag + b"leased", b"x", lease=lease)
    newest = client.put(tag + b"large", b"L" * 300000).header.revision
    client.compact(newest - revisions // 2)
    client.close()


def content(instance):
    """Everything that must not change by a move."""
    client = client_of(instance)
    now = client.range(b"\0", b"\0")
    revision = now.header.revision
    past = {}
    for old in range(max(revision - 15, 2), revision):
        try:
            past[old] = [(kv.key, kv.mod_revision)
                         for kv in client.range(b"\0", b"\0", revision=old).kvs]
        except Exception as error:  # compacted in the one place and not in the other: a difference
            past[old] = str(error)[:80]
    leases = {lease.ID: (client.time_to_live(lease.ID, keys=True).grantedTTL,
                         list(client.time_to_live(lease.ID, keys=True).keys))
              for lease in client.leases().leases}
    found = (now.header.cluster_id, revision, past, leases,
             [(kv.key, kv.value, kv.create_revision, kv.mod_revision, kv.version, kv.lease)
              for kv in now.kvs])
    client.close()
    return found


def refusal(instance, name, *texts):
    instance.start(wait=False)
    status = instance.wait(60)
    text = instance.log_tail(3)
    TAP.ok(status == 1 and all(part in text for part in texts), name + " is refused", status, text)


def refused_with(result, status, error, name):
    """The exact words of a refusal: its message, and its hint if one is given."""
    code, out, err = result
    err = re.sub(r"\A(?:\d+ of \d+ objects, .*\n)+", "", err)  # said of a move that takes long
    TAP.ok(code == status and out == "" and err.startswith("t4 store move: " + error), name,
           code, out, err, "wanted: t4 store move: " + error)


def put_once(instance, key):
    client = client_of(instance)
    revision = client.put(key).header.revision
    client.close()
    return revision


def listing(store):
    """{key: bytes} of a store, by its plugin."""
    found, after = {}, "-"
    tool = tool_of(store)
    while True:
        tool.run("list - %s 1000" % after)
        for line in tool.listed:
            key, _, rest = line.partition(" ")
            found[key] = int(rest.split("length=")[1].split(" ")[0])
        if len(tool.listed) < 1000:
            break
        after = tool.listed[-1].split(" ")[0]
    tool.close()
    return found


def tool_of(store):
    settings = list(store.settings)
    if store.name == "s3":
        settings += ["s3.access_key_id=" + object_servers.ID,
                     "s3.secret_access_key=" + object_servers.SECRET]
    return gcs_servers.Tool(store.plain_url, settings, store.environment)


def file_store(instance):
    """The built-in store of a server, for tool_of()."""
    return types.SimpleNamespace(name="dir", settings=[], environment={},
                                 plain_url="file://%s/store" % instance.data_dir)


def add_objects(store, number):
    """Of a kind that this version knows nothing of: more objects than a small log has."""
    tool = tool_of(store)
    for i in range(number):
        tool.run("put any later/%05d %d %d" % (i, i * 37 % 5000, i))
    tool.close()


def equal_stores(source, target, name):
    at_source, at_target = listing(source), listing(target)
    for found in (at_source, at_target):
        found.pop("leader-lock", None)
    TAP.equal(at_target, at_source, name)


def serves(target, want, name, data_dir=None):
    """A server at the target has what the source had, and goes on; it is stopped afterwards."""
    with server(target) as instance:
        if data_dir is not None:
            shutil.rmtree(instance.data_dir, ignore_errors=True)
            instance.data_dir = data_dir
        instance.start()
        TAP.equal(content(instance), want, name)
        TAP.equal(put_once(instance, b"after the move"), want[1] + 1, "and its revisions go on")
        instance.stop()


# ---- the built-in store -------------------------------------------------------------------------

def built_in():
    with DirStore() as target, t4test.T4(["--upload-max-age=10ms"]) as instance:
        directory = instance.data_dir
        from_url, to_url = "file://%s/store" % directory, place(target)
        instance.start()
        fill(instance)
        refused_with(move(instance, target), 1,
                     "the data directory %s is in use, by a server or another move\n"
                     "  stop the server in order (SIGTERM)\n" % directory, "a running server")
        instance.kill()
        refused_with(move(instance, target), 1,
                     "the server of the store %s was not stopped in order: its log may hold writes "
                     "that the store does not\n  start the server once and stop it (SIGTERM)\n"
                     % from_url, "a server that was killed")
        instance.start()
        want = content(instance)
        instance.stop()
        TAP.ok(not os.path.exists(target.path) or listing(target) == {},
               "what is refused puts nothing at the target")
        code, out, err = move(instance, target, "--dry-run")
        number = len(listing_of_folder(directory)) - 3
        TAP.ok(code == 0 and out.startswith("would copy %d objects, " % number)
               and out.endswith(" from %s to %s; 0 of them are there\n" % (from_url, to_url)),
               "--dry-run says how much", code, out, err, number)
        TAP.ok(not os.path.exists(target.path) or listing(target) == {}, "and puts nothing")
        code, out, err = move(instance, target)
        TAP.ok(code == 0 and out.startswith("moved %d objects, " % number) and out.endswith(
            " from %s to %s\nstart the server with --object-store=%s\nthe folder %s/store is not "
            "used any more: it may be deleted\n" % (from_url, to_url, to_url, directory)),
            "it is moved", code, out, err)
        TAP.equal(move(instance, target), (
            0, "%s was moved to %s: nothing is left to do\nstart the server with --object-store=%s\n"
            "the folder %s/store is not used any more: it may be deleted\n"
            % (from_url, to_url, to_url, directory), ""), "the same again: nothing to do")
        TAP.equal(move(instance, target, "--dry-run")[:2],
                  (0, "%s was moved to %s\n" % (from_url, to_url)), "--dry-run says so, too")
        with DirStore() as other:
            refused_with(move(instance, other), 1, "the store %s was moved to %s\n  move it on from "
                         "there\n" % (from_url, to_url), "the same to another place")
        refused_with(move(instance, target, "--abort"), 1,
                     "the store %s was moved to %s: that cannot be taken back\n" % (from_url, to_url),
                     "--abort of what is done")
        refusal(instance, "a server on the old store", "the store %s was moved to %s" %
                (from_url, to_url), "start with --object-store=" + to_url)
        serves(target, want, "its data directory, started at the target, has everything", directory)
        refusal(instance, "and the old store is", "was moved to " + to_url)
        shutil.rmtree(os.path.join(directory, "store"))
        refusal(instance, "without the old folder a start without --object-store",
                "keeps its log in the store " + to_url)
        with server(target) as fresh:
            fresh.start()
            client = client_of(fresh)
            TAP.equal(client.range(b"after the move").count, 1, "an empty disk has everything, too")
            client.close()
            fresh.stop()


def listing_of_folder(data_dir):
    return [name for _, _, names in os.walk(os.path.join(data_dir, "store")) for name in names
            if name != ".lock"]


def built_in_at_rest():
    """The lock need not be released: the directory knows whether its store has everything."""
    with DirStore() as target, t4test.T4(["--upload-max-age=10ms"]) as instance:
        instance.start()
        put_once(instance, b"a")
        TAP.ok(until(lambda: "%020d" % 1 in listing_of_folder(instance.data_dir)), "it is uploaded")
        instance.kill()
        instance.start()
        instance.stop()
        lock = open(os.path.join(instance.data_dir, "store", "leader-lock"), "rb").read()
        TAP.ok(b"\nreleased no\n" in lock, "a server with nothing to put there puts nothing", lock)
        code, out, err = move(instance, target)
        TAP.ok(code == 0, "stopped in order, lock not released: it is moved", code, out, err)
        lock = open(os.path.join(target.path, "leader-lock"), "rb").read()
        TAP.ok(b"\nreleased yes\nreleased-index 1\nreleased-revision 2\nmoved \n" in lock,
               "and released at the target", lock)
        with server(target) as fresh:
            fresh.start()
            client = client_of(fresh)
            TAP.equal(client.range(b"a").header.revision, 2, "another disk needs no reset")
            client.close()
            fresh.stop()
    with DirStore() as target, t4test.T4() as instance:
        instance.start()
        instance.stop()
        empty = move(instance, target)
        refused_with(empty, 1, "the store file://%s/store is empty: there is nothing to move\n  start "
                     "the server with --object-store: what its log holds is put there\n"
                     % instance.data_dir, "a store that nobody has written to")
        instance.options = ["--upload-max-age=1h"]
        instance.start()
        put_once(instance, b"a")
        instance.kill()
        TAP.ok("is empty" in move(instance, target)[2], "nor one whose log was not uploaded yet")
        serves_as_told(instance, target)
    with DirStore() as target, t4test.T4() as instance, t4test.T4() as copy:
        instance.start()
        put_once(instance, b"a")
        instance.stop()
        shutil.copytree(instance.data_dir, copy.data_dir)
        refused_with(move(copy, target), 1, "the data directory %s is a copy" % copy.data_dir,
                     "a copied data directory")
        older = os.path.join(instance.directory, "older")
        shutil.copytree(os.path.join(instance.data_dir, "store"), older)
        instance.start()
        put_once(instance, b"b")
        instance.stop()
        shutil.rmtree(os.path.join(instance.data_dir, "store"))
        shutil.move(older, os.path.join(instance.data_dir, "store"))
        refused_with(move(instance, target), 1, "the store file://%s/store is older than its data "
                     "directory knows it\n" % instance.data_dir, "a store that was set back")


def serves_as_told(instance, target):
    instance.options = ["--object-store=" + target.plain_url]
    instance.start()
    client = client_of(instance)
    TAP.equal(client.range(b"a").header.revision, 2, "started there, as the hint says, it is")
    client.close()
    instance.stop()


# ---- refusals -------------------------------------------------------------------------------

def wrong_words():
    with DirStore() as store:
        folder, none = store.folder, "file://" + store.folder + "/none"
        to = "--to=file://%s/to" % folder
        cases = [
            (["move"], 2, "--to: the place to move to is missing\n  write --to=s3://bucket/prefix, "
             "gs://bucket/prefix or file:///path\n"),
            (["move", "--to"], 2, "--to: the place to move to is missing\n"),
            (["move", "--to=nonsense"], 2, "--to: is no URL of at most 1000 bytes\n"),
            (["move", "--to=file:///" + 1000 * "x"], 2, "--to: is no URL of at most 1000 bytes\n"),
            (["move", to, "--dry-run", "--abort"], 2, "--dry-run and --abort exclude each other\n"),
            (["move", to, "--frobnicate"], 2, "there is no flag --frobnicate\n"),
            (["move", to, "--to-plugin-option=nonsense"], 2,
             "--to-plugin-option: not of the form PLUGIN.NAME=VALUE\n"),
            (["move", to, "--to-plugin-option=s3.region=secret"], 2, "--to-plugin-option: file://%s/to "
             "does not use plugin s3\n  settings of the source are given by --plugin-option\n"
             % folder),
            (["move", to, "--data-dir=" + folder], 2, "there is no store in %s/store\n  give --data-dir="
             "DIR for a built-in store, or --object-store=URL for another one\n" % folder),
            (["move", to, "--object-store=file://%s/to/" % folder], 2, "--to: file://%s/to is the "
             "source, or one is inside the other\n" % folder),
            (["move", to, "--object-store=file://%s/to/b" % folder], 2, "--to: file://%s/to is the "
             "source" % folder),
            (["move", to + "/b///", "--object-store=fault+file://%s/to" % folder], 2, "--to: file://%s/"
             "to/b is the source" % folder),
            (["move", to, "--object-store=" + none], 1, "the store %s is empty: there is nothing to "
             "move\n  check bucket and prefix\n" % none),
            (["move", "--to=nothing+file:///x", "--object-store=" + none], 1, "no plugin for nothing"),
        ]
        for arguments, code, text in cases:
            refused_with(plain(*arguments), code, text, "t4 store %s" % " ".join(arguments)[:90])
        code, out, err = plain("move", to + "b", "--object-store=file://%s/to" % folder)
        TAP.ok("is empty" in err, "a name that only begins like the source's is another place", err)
        code, out, err = plain("sell")
        TAP.equal((code, out, err), (2, "", "t4 store: there is no \"sell\"\n  t4 store move; t4 store "
                                     "--help says more\n"), "t4 store sell")
        help_text = plain("--help")
        TAP.ok(help_text[0] == 0 and "t4 store move --to=URL" in help_text[1], "t4 store --help")
        TAP.equal(plain("move", "--help"), help_text, "t4 store move --help")
        TAP.equal(plain("move", "--to=x", "--to-plugin-option=s3.secret_access_key=hidden",
                        T4_S3_ENDPOINT="")[2].count("hidden"), 0, "a setting's value is not repeated")


def source_in_use():
    with DirStore() as source, DirStore() as target, server(source) as instance:
        instance.start()
        put_once(instance, b"a")
        error = ("the store %s is led by http://%s (term 2), which has not given it back\n  stop that "
                 "server in order (SIGTERM); if it was killed, start it once and stop it\n"
                 % (place(source), instance.address))
        refused_with(move(source, target), 1, error, "a store whose server runs")
        refused_with(move(source, target, "--dry-run"), 1, error, "the same with --dry-run")
        instance.kill()
        refused_with(move(source, target), 1, error, "a store whose server was killed")
        instance.start()
        instance.stop()
        refused_with(move(source, target, "--abort"), 1, "no move of %s to %s is under way\n  there is "
                     "nothing to take back\n" % (place(source), place(target)), "--abort of nothing")
        TAP.equal(move(source, target)[0], 0, "after a stop in order it can be moved")


def bad_targets():
    with DirStore() as source, server(source) as instance:
        instance.start()
        put_once(instance, b"a")
        instance.stop()
        with DirStore() as target:
            tool = tool_of(target)
            tool.run("put any some/thing 3 1")
            refused_with(move(source, target), 1, "%s is not empty: it has an object some/thing\n  move to "
                         "an empty prefix\n" % place(target), "a target that is not empty")
            tool.run("remove some/thing")
            tool.run("put any probe/left-behind 3 1")
            tool.close()
            TAP.equal(move(source, target, "--dry-run")[0], 0, "what a probe left is no obstacle")
        with DirStore() as target, server(target) as other:
            other.start()
            cluster = content(other)[0]
            other.stop()
            refused_with(move(source, target), 1, "%s is a store already (cluster %016x)\n  move to an "
                         "empty prefix\n" % (place(target), cluster), "a target that is a store")
        target = S3Store()
        target.server.close()
        target.server = object_servers.Amazon()
        target.server.conditions = False
        target.settings[0] = "s3.endpoint=" + target.server.url
        code, out, err = move(source, target)
        TAP.ok(code == 1 and "does not honour conditions" in err,
               "a target that ignores conditions", code, err)
        target.close()
        instance.start()
        TAP.equal(put_once(instance, b"b"), 3, "after all of these the source is as it was")
        instance.stop()


# ---- every step -----------------------------------------------------------------------------

def text_of(path):
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError:
        return b""


# Where the command is killed: whose request is held after its effect, which, how that shows.
STEPS = [
    ("source marked", "source", "put leader-lock",
     lambda s, t: b"\nmove begun\n" in text_of(s.path + "/leader-lock")),
    ("target claimed", "target", "put moving", lambda s, t: text_of(t.path + "/moving")),
    ("first segments", "target", "put wal/", lambda s, t: os.path.isdir(t.path + "/wal+")
     and os.listdir(t.path + "/wal+")),
    ("manifest", "target", "put manifest/latest", lambda s, t: text_of(t.path + "/manifest+/latest")),
    ("lock", "target", "put leader-lock", lambda s, t: text_of(t.path + "/leader-lock")),
    ("decided", "source", "put leader-lock",
     lambda s, t: b"\nmove done\n" in text_of(s.path + "/leader-lock")),
    ("cluster", "target", "put cluster", lambda s, t: text_of(t.path + "/cluster")),
    ("claim removed", "target", "remove moving", lambda s, t: text_of(t.path + "/cluster")
     and not text_of(t.path + "/moving")),
]
DECIDED = [name for name, _, _, _ in STEPS].index("decided")


def kill_behind(source, target, step):
    """Runs the command until the step has had its effect, and kills it there."""
    name, where, request, happened = STEPS[step]
    held = source if where == "source" else target
    if name == "decided":  # the second of two such requests
        target.control("hold-answer put leader-lock")
        running = Running(source, target)
        good = until(lambda: text_of(target.path + "/leader-lock") or running.ended())
        source.control("hold-answer put leader-lock")
        target.control()
    else:
        held.control("hold-answer " + request)
        running = Running(source, target)
        good = True
    good = good and until(lambda: happened(source, target) or running.ended()) \
        and not running.ended()
    if running.ended():
        TAP.diag(running.result())
    running.kill()
    source.control()
    target.control()
    return good


def each_step():
    for step, (name, _, _, _) in enumerate(STEPS):
        for take_back in (False, True):
            with DirStore() as source, DirStore() as target, server(source) as instance:
                instance.start()
                fill(instance, revisions=5)
                want = content(instance)
                instance.stop()
                TAP.ok(kill_behind(source, target, step), "killed behind: " + name)
                if step < DECIDED:
                    refusal(instance, "%s: a server on the source" % name, "the store %s is being moved "
                            "to %s" % (place(source), place(target)), "t4 store move again")
                    with DirStore() as other:
                        refused_with(move(source, other), 1, "the store %s is being moved to %s\n"
                                     % (place(source), place(target)), "a move to another place")
                        refused_with(move(source, other, "--abort"), 1, "the store %s is being moved "
                                     "to %s\n" % (place(source), place(target)), "--abort of another")
                else:
                    refusal(instance, "%s: a server on the source" % name, "the store %s was moved "
                            "to %s" % (place(source), place(target)))
                if 1 <= step <= DECIDED:
                    with server(target) as early:
                        refusal(early, "%s: a server at the target" % name, "the move of the store %s to "
                                "%s is not finished" % (place(source), place(target)))
                if not take_back:
                    resumed(name, source, target, want)
                elif step < DECIDED:
                    taken_back(name, source, target, instance, want)
                else:
                    refused_with(move(source, target, "--abort"), 1, "the store %s was moved to %s: that "
                                 "cannot be taken back\n" % (place(source), place(target)),
                                 name + ": --abort")
                    resumed(name, source, target, want)


def counter(store):
    return int(text_of(store.path + "/leader-lock").split(b"\ncounter ")[1].split(b"\n")[0])


def resumed(name, source, target, want):
    code, out, err = move(source, target)
    TAP.ok(code == 0, name + ": the same command goes on", code, out, err)
    equal_stores(source, target, name + ": every object is there")
    lock = text_of(target.path + "/leader-lock")
    TAP.ok(b"t4-lock 1\n" in lock and b"\nmoved \n" in lock, name + ": the lock is not marked", lock)
    TAP.ok(counter(target) >= counter(source), name + ": its counter is not below the source's",
           counter(target), counter(source))
    serves(target, want, name + ": the server at the target has everything")


def taken_back(name, source, target, instance, want):
    code, out, err = move(source, target, "--abort")
    removed = "" if " objects were removed" not in out else out.splitlines()[1] + "\n"
    TAP.ok(code == 0 and out == "%s can be used again\n%s" % (place(source), removed),
           name + ": --abort", code, out, err)
    TAP.equal(listing(target) if os.path.exists(target.path) else {}, {}, "nothing is left there")
    instance.start()
    TAP.equal(content(instance), want, name + ": the source serves as before")
    put_once(instance, b"goes on")
    instance.stop()
    TAP.equal(move(source, target)[0], 0, "and can be moved later")


# ---- at random ------------------------------------------------------------------------------

def at_random(name, source_kind, target_kind, seed):
    """Data written under load, the command killed again and again, the target answering badly."""
    chance = random.Random(seed)
    with target_kind() as target:
        source = source_kind() if source_kind else None
        options = ["--upload-max-age=10ms", "--checkpoint-interval=100ms"]
        instance = server(source, *options) if source else t4test.T4(options)
        moved = source or instance
        instance.start()
        fill(instance)
        load = Load(instance.address, name)
        TAP.ok(load.wait(300), name + ": load")
        load.finish()
        TAP.ok(until(lambda: {"checkpoint", "run", "sst"} <= {
            key.split("/")[0] for key in listing(source or file_store(instance))}),
            name + ": there are checkpoints")
        want = content(instance)
        instance.stop()
        add_objects(source or file_store(instance), 100)
        kills = 0
        for number in range(ROUNDS):
            target.control("latency 2", "fail put * %d after" % chance.randrange(1, 4),
                           "fail put wal/ %d lost" % chance.randrange(1, 4),
                           "fail put * %d late 30" % chance.randrange(1, 3),
                           "fail any * %d busy # %d" % (chance.randrange(1, 4), number))
            count = len(target.requests()) + chance.randrange(1, 100)
            running = Running(moved, target)
            until(lambda: len(target.requests()) >= count or running.ended())
            if running.ended():
                code, out, err = running.result()
                TAP.ok(code == 0 or "probing" in err, "%s: round %d ends by itself" % (name, number),
                       code, out, err)
            else:
                running.kill()
                kills += 1
        TAP.ok(kills > 0, "%s: killed %d times" % (name, kills))
        code, out, err = move(moved, target)
        TAP.ok(code == 0, name + ": and finished", code, out, err)
        if source:
            equal_stores(source, target, name + ": every object is there")
            refusal(instance, name + ": a server on the source", "was moved to " + place(target))
        target.control()
        serves(target, want, name + ": everything is at the target",
               None if source else instance.data_dir)
        with server(target) as fresh:
            fresh.start()
            client = client_of(fresh)
            TAP.equal(load.missing(client), [], name + ": an empty disk has what was acknowledged")
            client.close()
            fresh.stop()
        instance.close()
        if source:
            source.close()


def built_in_to_dir():
    at_random("built-in to dir", None, DirStore, 1)


def built_in_to_s3():
    at_random("built-in to s3", None, S3Store, 2)


def s3_to_gcs():
    at_random("s3 to gcs", S3Store, GcsStore, 3)


# ---- races ----------------------------------------------------------------------------------

def stopped_source(source):
    with server(source) as instance:
        instance.start()
        fill(instance, revisions=5)
        want = content(instance)
        instance.stop()
    return want


def two_moves():
    with DirStore() as source, DirStore() as target, DirStore() as other:
        want = stopped_source(source)
        target.control("hold put wal/")
        first = Running(source, target)
        TAP.ok(until(lambda: text_of(target.path + "/moving")), "a move is under way")
        refused_with(move(source, other), 1, "the store %s is being moved to %s\n  finish that move "
                     "(--to=%s) or take it back (the same with --abort)\n" % (
                         place(source), place(target), place(target)), "a second one elsewhere")
        TAP.ok(not first.ended(), "the first goes on")
        second = Running(source, target)
        target.control()
        results = [first.result(), second.result()]
        TAP.equal([result[0] for result in results], [0, 0], "two at once to one place: both succeed")
        equal_stores(source, target, "every object is there")
        serves(target, want, "the server at the target has everything")
        TAP.equal(move(source, target)[0], 0, "and a third one finds nothing to do")


def a_late_run():
    """One run is held while another finishes and the server at the target is in use."""
    with DirStore() as source, DirStore() as target:
        want = stopped_source(source)
        target.control("hold put manifest/latest")
        late = Running(source, target)
        TAP.ok(until(lambda: any("wal/" in line for line in target.requests())), "a run is held")
        unheld = environment_of(source, target)
        unheld["T4_TO_PLUGIN_OPTION"] = "fault.log=" + target.log_path
        run = subprocess.run(words(source, target), env=unheld, stdout=subprocess.PIPE, timeout=SECONDS)
        TAP.equal(run.returncode, 0, "another one finishes")
        with t4test.T4(["--object-store=" + target.plain_url]) as instance:
            instance.start()
            TAP.equal(content(instance), want, "the server at the target has everything")
            fill(instance, tag=b"new/", revisions=5)
            now = content(instance)
            target.control()
            code, out, err = late.result()
            TAP.ok(code == 0 and "was moved to" in out, "the late one finds that it is done",
                   code, out, err)
            instance.kill()
            instance.start()
            TAP.equal(content(instance), now, "and has done no harm")
            instance.stop()


def abort_under_way():
    with DirStore() as source, DirStore() as target:
        want = stopped_source(source)
        target.control("hold put wal/")
        running = Running(source, target)
        TAP.ok(until(lambda: text_of(target.path + "/moving")), "a move is under way")
        code, out, err = move(source, target, "--abort")
        TAP.ok(code == 0 and out.startswith("%s can be used again\n" % place(source)),
               "it is taken back from another terminal", code, out, err)
        target.control()
        refused_with(running.result(), 1, "the move of %s to %s was taken back while it ran\n"
                     % (place(source), place(target)), "its run ends with that")
        TAP.ok(not text_of(target.path + "/cluster"), "the target never became a store")
        with server(source) as instance:
            instance.start()
            TAP.equal(content(instance), want, "the source serves as before")
            instance.stop()
        code, out, err = move(source, target)
        TAP.ok(code == 1 and "is not empty" in err, "leftovers of that run are in the way", err)
        with DirStore() as other:
            TAP.equal(move(source, other)[0], 0, "another prefix is free")


def abort_at_the_last_moment():
    """Everything is copied and compared; the CAS that decides is held, and loses."""
    with DirStore() as source, DirStore() as target:
        want = stopped_source(source)
        target.control("hold-answer put leader-lock")
        running = Running(source, target)
        TAP.ok(until(lambda: text_of(target.path + "/leader-lock")), "all is copied")
        source.control("hold put leader-lock")
        before = len(target.requests())
        target.control()
        TAP.ok(until(lambda: sum(line.startswith("list ")
                                 for line in target.requests()[before:]) >= 1), "and compared")
        lines = words(source, target, "--abort")
        run = subprocess.run([word for word in lines if "fault.control" not in word],
                             env=environment_of(source, target), stdout=subprocess.PIPE, text=True,
                             timeout=SECONDS)
        TAP.ok(run.returncode == 0 and "can be used again" in run.stdout, "it is taken back", run.stdout)
        source.control()
        refused_with(running.result(), 1, "the move of %s to %s was taken back while it ran\n"
                     % (place(source), place(target)), "its run ends with that")
        TAP.equal(listing(target), {}, "nothing is at the target")
        with server(source) as instance:
            instance.start()
            TAP.equal(content(instance), want, "the source serves as before")
            instance.stop()


def abort_left_behind():
    """Killed between mark and target: the next --abort removes what the first one left."""
    with DirStore() as source, DirStore() as target:
        want = stopped_source(source)
        TAP.ok(kill_behind(source, target, 4), "a move is killed")
        target.control("hold any *")
        running = Running(source, target, "--abort")
        TAP.ok(until(lambda: b"\nmoved \n" in text_of(source.path + "/leader-lock")),
               "its --abort is killed, too")
        running.kill()
        target.control()
        with server(source) as instance:
            instance.start()
            TAP.equal(content(instance), want, "the source serves as before")
            instance.stop()
        refused_with(move(source, target), 1, "%s holds what is left of a move of %s that was taken "
                     "back\n  --abort removes it; then move again\n" % (place(target), place(source)),
                     "the target is not taken for another move's")
        code, out, err = move(source, target, "--abort")
        TAP.ok(code == 0 and " objects were removed from " in out, "--abort removes it", out, err)
        TAP.equal(listing(target), {}, "all of it")
        with DirStore() as stranger:
            stopped_source(stranger)
            TAP.ok(kill_behind(stranger, target, 4), "a move of another store begins there")
            before = listing(target)
            refused_with(move(source, target), 1, "the move of the store %s to %s is not finished\n  "
                         "move to an empty prefix\n" % (place(stranger), place(target)),
                         "a target that is another store's")
            TAP.equal(move(source, target, "--abort")[0], 1, "nor does --abort touch it")
            TAP.equal(listing(target), before, "it is still there")


def abort_leaves_alone():
    """What is not certainly of this move stays, whatever its name."""
    with DirStore() as source, DirStore() as target:
        stopped_source(source)
        TAP.ok(kill_behind(source, target, 1), "a move is killed")
        old = os.path.join(target.folder, "old-moving")
        shutil.copyfile(target.path + "/moving", old)
        TAP.equal(move(source, target, "--abort")[0], 0, "and taken back")
        TAP.ok(kill_behind(source, target, 0), "the next one is killed before it claims the target")
        tool = tool_of(target)
        tool.run("put any wal/00000000000000000000 20 1")
        refused_with(move(source, target), 1, "%s is not empty: it has an object wal/00000000000000000000\n"
                     % place(target), "it does not go on where somebody has begun something")
        shutil.copyfile(old, target.path + "/moving")
        refused_with(move(source, target), 1, "%s holds what is left of a move of %s that was taken back\n"
                     % (place(target), place(source)), "nor where an earlier claim has arrived late")
        os.unlink(target.path + "/moving")
        code, out, err = move(source, target, "--abort")
        TAP.ok(code == 0 and out.endswith("1 objects were left at %s: they are not certainly this "
                                          "move's\n" % place(target)), "--abort leaves it", out, err)
        TAP.equal(len(listing(target)), 1, "there it is")
        tool.close()


def a_server_at_the_target():
    """A server and a move meet at an empty prefix: one of them gives way."""
    with DirStore() as source, DirStore() as target:
        want = stopped_source(source)
        target.control("hold put moving")
        running = Running(source, target)
        TAP.ok(until(lambda: b"\nmove begun\n" in text_of(source.path + "/leader-lock")),
               "a move has found the target empty")
        with t4test.T4(["--object-store=" + target.plain_url]) as instance:
            instance.start()
            revision = put_once(instance, b"its own")
            target.control()
            code, out, err = running.result()
            TAP.ok(code == 1 and ("is not empty: it has an object" in err
                                  or "that this move has not put there" in err),
                   "the move gives way to a server that has begun a store there", code, err)
            TAP.ok(not text_of(target.path + "/moving"), "and leaves nothing")
            instance.kill()
            instance.start()
            TAP.equal(put_once(instance, b"more"), revision + 1, "that server goes on")
            instance.stop()
        with server(source) as instance:
            instance.start()
            TAP.equal(content(instance), want, "the source serves as before")
            instance.stop()
    with DirStore() as source, DirStore() as target, server(target) as instance:
        stopped_source(source)
        target.control("hold put leader-lock", "hold put wal/")
        instance.start(wait=False)
        TAP.ok(until(lambda: any(line.startswith("list") for line in target.requests()[-1:])),
               "a server has found the target empty")
        running = Running(source, target)
        TAP.ok(until(lambda: text_of(target.path + "/moving")), "a move claims it")
        target.control("hold put wal/")
        TAP.equal(instance.wait(60), 1, "the server gives way")
        TAP.ok("is not finished" in instance.log(), "and says why", instance.log_tail(3))
        target.control()
        code, out, err = running.result()
        # Seen when the move looks for it at its begin, or when it comes to put its own.
        early = "that this move has not put there" in err
        TAP.ok(code == 1 and (early or "leader-lock already, with other bytes than the source" in err),
               "its lock stops the move", code, err)
        code, out, err = (0, "", "") if early else move(source, target, "--abort")
        TAP.ok(code == 0 and (not text_of(target.path + "/moving") if early else
                              "objects were left at" in out), "which is taken back", code, out, err)
        TAP.ok(text_of(target.path + "/leader-lock"), "without touching that lock")


# ---- objects --------------------------------------------------------------------------------

def kinds_of_objects():
    """More than a page of them, all kinds, hashes in their names looked at."""
    with DirStore() as source, DirStore() as target:
        want = stopped_source(source)
        add_objects(source, 1100)
        tool = tool_of(source)
        tool.run("put any branches/b 100 1")
        tool.run("put any of-a-later-version 10 1")
        tool.run("put any sst/x 1500 7")
        body = text_of(source.path + "/sst+/x")[:1500]
        tool.run("remove sst/x")
        name = "%s-0000000001-00000000000000000007" % hashlib.sha256(body).hexdigest()
        tool.run("put any sst/%s 1500 7" % name)
        tool.run("put any run/%s 1500 7" % name)
        tool.run("put any run/%s 1500 8" % name.replace("-0000000001-", "-0000000002-"))
        bad = "run/" + name.replace("-0000000001-", "-0000000002-")
        refused_with(move(source, target), 1, "the object %s of %s is damaged\n" % (bad, place(source)),
                     "an object that is not what its name says")
        tool.run("remove " + bad)
        tool.run("put any wal/00000000000000000099 200 1")
        refused_with(move(source, target), 1, "the object wal/00000000000000000099 of %s is damaged\n"
                     % place(source), "a segment that is none")
        tool.run("remove wal/00000000000000000099")
        for kind in ("log/%020d-%020d" % (900, 901), "checkpoint/0000000001/x/manifest"):
            tool.run("put any %s 200 1" % kind)
            refused_with(move(source, target), 1, "the object %s of %s is damaged\n"
                         % (kind, place(source)), "so is " + kind.split("/")[0] + "/")
            tool.run("remove " + kind)
        tool.close()
        other = tool_of(target)
        other.run("remove later/00007")
        other.run("put any later/00007 7 8")
        code, out, err = move(source, target)
        TAP.ok(code == 1 and "%s has an object later/00007 already, with other bytes than the source\n"
               % place(target) in err, "an object that somebody changed at the target", code, err)
        other.run("remove later/00007")
        other.run("put any foreign 7 8")
        refused_with(move(source, target), 1, "%s is not empty: it has an object foreign\n" % place(target),
                     "an object that somebody put there")
        other.run("remove foreign")
        other.close()
        code, out, err = move(source, target)
        TAP.ok(code == 0 and out.startswith("moved 11"), "afterwards all are moved", code, out, err)
        equal_stores(source, target, "every object is there")
        serves(target, want, "the server at the target has everything")


def lost_at_the_target():
    """What is gone from the target when the places are compared keeps the move from being decided."""
    with DirStore() as source, DirStore() as target:
        want = stopped_source(source)
        target.control("hold-answer put leader-lock")
        running = Running(source, target)
        TAP.ok(until(lambda: text_of(target.path + "/leader-lock")), "all is copied")
        tool = tool_of(target)
        tool.run("remove wal/%020d" % 1)
        tool.close()
        target.control()
        refused_with(running.result(), 1, "after copying, %s and %s differ in the object wal/%020d\n"
                     % (place(source), place(target), 1), "an object that vanished is noticed")
        TAP.equal(move(source, target)[0], 0, "the same command copies it again")
        equal_stores(source, target, "every object is there")
        serves(target, want, "the server at the target has everything")


def outage():
    with DirStore() as source, DirStore() as target:
        stopped_source(source)
        target.control("fail put wal/ 1000 denied")
        code, out, err = move(source, target)
        TAP.ok(code == 1 and "cannot put" in err, "a target that refuses ends the command", code, err)
        target.control()
        TAP.equal(move(source, target)[0], 0, "and the same command goes on")


def main():
    if not os.path.exists(t4test.T4.binary):
        TAP.skip_all("t4 was not built")
    parts = [wrong_words, built_in, built_in_at_rest, source_in_use, bad_targets, each_step, two_moves,
             a_late_run, abort_under_way, abort_at_the_last_moment,
             abort_left_behind, abort_leaves_alone, a_server_at_the_target,
             kinds_of_objects, lost_at_the_target, outage, built_in_to_dir, built_in_to_s3, s3_to_gcs]
    chosen = sys.argv[1:]
    for part in parts:
        if not chosen or part.__name__ in chosen:
            part()
    TAP.done()


main()

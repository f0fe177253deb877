#!/usr/bin/python3
"""225_no_memory.t - memory runs out in the middle of a request.

For n = 1, 2, 3, ... the n-th allocation that the server makes for a request fails, until there are
fewer.  Either the request is answered, rightly or with a clear error, or the process ends and says
that memory is exhausted (src/base/memory.h).  Whatever happened: what the request was to change is
changed as a whole or not at all, as its answer says; what was acknowledged is there, also after the
restart; and the server goes on.  Where one failure is survived, it is tried again with all later
allocations of the request failing, too.  Every kind of request, both engines; libt4's calls by
regress/tools/lib_calls.c.

T4_NOMEM_ROUNDS=all (make check-memory) tries every n up to 200; else n grows faster from 3 on.

SPDX-License-Identifier: Apache-2.0
"""

import concurrent.futures
import hashlib
import http.client
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "lib"))

import t4test  # noqa: E402
from nomemory import NoMemory  # noqa: E402

TAP = t4test.Tap()
EVERY = os.environ.get("T4_NOMEM_ROUNDS") == "all"
LEASE, KEYS, CORRUPT = 77, 1000, 2
READY = "ready endpoints="
# The last words of a process: the core's, or in order, with a reason.
ENDS = re.compile("t4: out of memory|std::bad_alloc|t4: ended by abort")
STOPS = re.compile("ERROR .*(no memory|not allocate memory)")
# What a client may be told: the process ended, or this request found no memory.
CODES = ("UNAVAILABLE", "RESOURCE_EXHAUSTED")


def api():
    import etcdclient
    return etcdclient.api


def grpc_error():
    import etcdclient
    return etcdclient.grpc.RpcError


class Failed(Exception):
    """A request got no answer, or an error: its code and text."""

    def __init__(self, code, text):
        super().__init__("%s: %s" % (code, text))
        self.code, self.text = code, text


class State:
    """What the requests below change; a key's value and lease."""

    def __init__(self, keys=(), leases=(), alarms=()):
        self.keys, self.leases, self.alarms = dict(keys), set(leases), set(alarms)

    def copy(self):
        return State(self.keys, self.leases, self.alarms)

    def __eq__(self, other):
        return vars(self) == vars(other)

    def __repr__(self):
        return repr(vars(self))


class Bed:
    """A server whose memory can run out, and what it must hold."""

    def __init__(self, engine, *objects):
        self.server = t4test.T4(["--storage-engine=" + engine])
        self.memory = NoMemory(self.server.directory, *objects)
        self.server.environment.update(self.memory.environment(),
                                       T4_PLUGIN_DIR=os.path.join(t4test.BUILD_DIR, "plugins"))
        self.client, self.round, self.deaths, self.revision = None, 0, 0, 0
        self.state = State()
        self.start()

    def start(self):
        """As Server.start(), but without the waits of a client that reconnects."""
        import etcdclient
        if self.client is not None:
            self.client.close()
        self.log_began = len(self.server.log())
        self.server.start(wait=False)
        deadline = time.monotonic() + t4test.START_SECONDS
        while READY not in self.said():
            if not self.server.running() or time.monotonic() > deadline:
                raise t4test.StartError(self.said())
            time.sleep(0.002)
        self.client = etcdclient.Client(self.server.address)

    def said(self):
        """What this process logged."""
        return self.server.log()[self.log_began:]

    @property
    def word(self):
        """The value of this round."""
        return b"word-%d" % self.round

    def read(self):
        """What the server holds of a State."""
        found = State()
        kvs = self.client.range(b"k/", b"k0")
        found.keys = {kv.key: (kv.value, kv.lease) for kv in kvs.kvs}
        found.leases = {lease.ID for lease in self.client.leases().leases}
        found.alarms = {alarm.alarm for alarm in
                        self.client.call("Maintenance/Alarm", api().AlarmRequest()).alarms}
        if kvs.header.revision < self.revision:
            raise AssertionError("revision %d after %d" % (kvs.header.revision, self.revision))
        self.revision = kvs.header.revision
        return found

    def attempt(self, call):
        """The answer of a request; Failed."""
        import etcdclient
        try:
            return call(self)
        except grpc_error() as error:
            raise Failed(error.code().name, error.details())
        except etcdclient.Closed as closed:
            if closed.error is None:
                raise Failed("OK", "the stream ended")
            raise Failed(closed.error.code().name, closed.error.details())
        except (OSError, http.client.HTTPException) as error:  # over HTTP there is no more to say
            raise Failed("UNAVAILABLE", repr(error))

    def ended(self):
        """Whether the process ended for lack of memory; then it is started again."""
        try:
            self.client.range(b"\0")
            if not ENDS.search(self.said()):
                return False
        except grpc_error():
            pass  # then it ends, or wait() complains
        self.deaths += 1
        status = self.server.wait()
        if not (status == -signal.SIGABRT and ENDS.search(self.said())
                or status == 1 and STOPS.search(self.said())):
            raise AssertionError("ended with status %d: %s" % (status, self.said()[-2000:]))
        self.start()
        return True


# ---- the requests ---------------------------------------------------------------------------
# Each: name, what it needs first, the call, what it changes of a State, what is right of its answer.

def nothing(*_):
    pass


def puts(key, value=None):
    def effect(bed, state):
        state.keys[key] = (bed.word if value is None else value, 0)
    return effect


def removes(prefix):
    def effect(_, state):
        state.keys = {k: v for k, v in state.keys.items() if not k.startswith(prefix)}
    return effect


def with_keys(prefix, number, lease=0):
    """Prepares: that many keys, with a value of the round before."""
    def prepare(bed):
        for i in range(number):
            bed.client.put(prefix + b"%03d" % i, b"x", lease=lease)
    return prepare


def without(prefix):
    def prepare(bed):
        bed.client.delete(prefix, prefix[:-1] + b"0")
    return prepare


def lease_exists(bed, lease=LEASE):
    if lease not in {one.ID for one in bed.client.leases().leases}:
        bed.client.lease_grant(3600, lease)


def lease_is_gone(bed):
    if LEASE + 1 in {one.ID for one in bed.client.leases().leases}:
        bed.client.lease_revoke(LEASE + 1)


def leased_keys(bed):
    lease_exists(bed, LEASE + 1)
    with_keys(b"k/leased/", 3, LEASE + 1)(bed)


def revoked(_, state):
    state.leases.discard(LEASE + 1)
    removes(b"k/leased/")(None, state)


def granted(_, state):
    state.leases.add(LEASE + 1)


def nested(bed):
    """A transaction of four operations, one of which is a transaction."""
    a = api()
    put = lambda key: a.RequestOp(request_put=a.PutRequest(key=key, value=bed.word))  # noqa: E731
    inner = a.TxnRequest(
        compare=[a.Compare(result=a.Compare.EQUAL, target=a.Compare.VERSION, key=b"k/none",
                           version=0)],
        success=[put(b"k/txn/2"), a.RequestOp(request_delete_range=a.DeleteRangeRequest(
            key=b"k/txnd/", range_end=b"k/txnd0"))])
    return bed.client.txn(
        [a.Compare(result=a.Compare.GREATER, target=a.Compare.MOD, key=b"big/0001",
                   mod_revision=0)],
        [put(b"k/txn/1"), a.RequestOp(request_txn=inner), put(b"k/txn/3"),
         a.RequestOp(request_range=a.RangeRequest(key=b"big/0002"))])


def nested_changes(bed, state):
    removes(b"k/txnd/")(bed, state)
    for i in b"123":
        state.keys[b"k/txn/%c" % i] = (bed.word, 0)


def nested_is_right(_, answer):
    inner = answer.responses[1].response_txn
    return (answer.succeeded and inner.succeeded
            and inner.responses[1].response_delete_range.deleted == 3
            and [kv.key for kv in answer.responses[3].response_range.kvs] == [b"big/0002"])


def watched(bed):
    """Create, an event, cancel."""
    stream = bed.client.watch_stream()
    try:
        created = stream.created(b"k/watched", prev_kv=True)
        bed.client.put(b"k/watched", bed.word)
        events = [event for _, event in stream.events(1)]
        stream.cancel_watch(created.watch_id)
        return created, events, stream.next()
    finally:
        stream.cancel()


def watched_is_right(bed, answer):
    created, events, canceled = answer
    return (created.created and canceled.canceled
            and [event.kv.value for event in events] == [bed.word])


def catch_up(bed):
    stream = bed.client.watch_stream()
    try:
        stream.create(b"new/", b"new0", start_revision=bed.first_new)
        return [event.kv.key for _, event in stream.events(KEYS)]
    finally:
        stream.cancel()


def keep_alive(bed):
    stream = bed.client.keep_alive()
    try:
        return stream.ask(LEASE)
    finally:
        stream.cancel()


def lock_key(name):
    return name + b"/%x" % LEASE


def locks(name):
    return lambda bed: bed.client.call("Lock/Lock", api().LockRequest(name=name, lease=LEASE))


def held(name, value=b""):
    def effect(_, state):
        state.keys[lock_key(name)] = (value, LEASE)
    return effect


def lock_first(bed):
    lease_exists(bed)
    locks(b"k/lock")(bed)


def campaign(bed):
    return bed.client.call("Election/Campaign", api().CampaignRequest(
        name=b"k/vote", lease=LEASE, value=b"me"))


def campaign_first(bed):
    lease_exists(bed)
    bed.leader = campaign(bed).leader


def says(method, request):
    return lambda bed: bed.client.call(method, request(bed))


def first_of(method, request):
    """The first message of a stream."""
    def call(bed):
        stream = bed.client.call(method, request(bed))
        try:
            return next(stream)
        finally:
            stream.cancel()
    return call


def all_of(method, request):
    return lambda bed: list(bed.client.call(method, request(bed)))


def snapshot(bed):
    return b"".join(part.blob for part in bed.client.call("Maintenance/Snapshot",
                                                          api().SnapshotRequest()))


def alarm(action):
    return says("Maintenance/Alarm", lambda _: api().AlarmRequest(
        action=action, alarm=CORRUPT))


def alarm_first(bed):
    alarm(api().AlarmRequest.ACTIVATE)(bed)


def alarm_gone(bed):
    alarm(api().AlarmRequest.DEACTIVATE)(bed)


def page(path):
    def call(bed):
        connection = http.client.HTTPConnection(bed.server.metrics_address, timeout=20)
        connection.request("GET", path)
        answer = connection.getresponse()
        body = answer.read()
        connection.close()
        if answer.status == 503:
            raise Failed("UNAVAILABLE", body)
        return answer.status, len(body)
    return call


def compact(physical):
    def call(bed):
        return bed.client.compact(bed.client.put(b"k/compact", b"c").header.revision, physical)
    return call


def some(_, answer):
    return bool(answer)


def equal(want):
    return lambda _, answer: answer == want


SAME = object()  # the answer is that of the same request without a failure


def requests():
    a = api()
    big = dict(key=b"big/", range_end=b"big0")
    return (
        ("put", nothing, lambda bed: bed.client.put(b"k/put", bed.word, prev_kv=True),
         puts(b"k/put"), some),
        ("put of 100 KB", nothing,
         lambda bed: bed.client.put(b"k/large", bed.word * 12000),
         lambda bed, state: puts(b"k/large", bed.word * 12000)(bed, state), some),
        ("get", nothing, lambda bed: bed.client.range(b"big/0500"), nothing, SAME),
        ("range in the engine", nothing, lambda bed: bed.client.range(**big), nothing, SAME),
        ("range in the memtables", nothing, lambda bed: bed.client.range(b"new/", b"new0"),
         nothing, SAME),
        ("range, sorted", nothing, lambda bed: bed.client.range(
            sort_target=a.RangeRequest.VALUE, sort_order=a.RangeRequest.DESCEND, limit=10, **big),
         nothing, SAME),
        ("range stream", nothing, all_of("KV/RangeStream", lambda _: a.RangeRequest(**big)),
         nothing, SAME),
        ("delete range", with_keys(b"k/d/", 100),
         lambda bed: bed.client.delete(b"k/d/", b"k/d0", prev_kv=True), removes(b"k/d/"),
         lambda _, answer: answer.deleted == len(answer.prev_kvs) == 100),
        ("nested transaction", with_keys(b"k/txnd/", 3), nested, nested_changes, nested_is_right),
        ("compact", nothing, compact(False), puts(b"k/compact", b"c"), some),
        ("compact, physical", nothing, compact(True), puts(b"k/compact", b"c"), some),
        ("lease grant", lease_is_gone, lambda bed: bed.client.lease_grant(3600, LEASE + 1),
         granted, some),
        ("lease revoke", leased_keys, lambda bed: bed.client.lease_revoke(LEASE + 1), revoked,
         some),
        ("lease keepalive", lease_exists, keep_alive, nothing, lambda _, a: a.TTL == 3600),
        ("lease time to live", leased_keys,
         lambda bed: bed.client.time_to_live(LEASE + 1, keys=True), nothing,
         lambda _, answer: len(answer.keys) == 3),
        ("leases", lease_exists, lambda bed: bed.client.leases(), nothing, some),
        ("watch", nothing, watched, puts(b"k/watched"), watched_is_right),
        ("watch, catching up", nothing, catch_up, nothing, SAME),
        ("lock", lambda bed: (lease_exists(bed), without(b"k/lock/")(bed)), locks(b"k/lock"),
         held(b"k/lock"), lambda _, answer: answer.key == lock_key(b"k/lock")),
        ("unlock", lock_first, says("Lock/Unlock", lambda _: a.UnlockRequest(
            key=lock_key(b"k/lock"))), removes(b"k/lock/"), some),
        ("campaign", lambda bed: (lease_exists(bed), without(b"k/vote/")(bed)), campaign,
         held(b"k/vote", b"me"), some),
        ("proclaim", campaign_first, says("Election/Proclaim", lambda bed: a.ProclaimRequest(
            leader=bed.leader, value=b"word")), held(b"k/vote", b"word"), some),
        ("leader", campaign_first, says("Election/Leader", lambda _: a.LeaderRequest(
            name=b"k/vote")), nothing, SAME),
        ("observe", campaign_first, first_of("Election/Observe", lambda _: a.LeaderRequest(
            name=b"k/vote")), nothing, SAME),
        ("resign", campaign_first, says("Election/Resign", lambda bed: a.ResignRequest(
            leader=bed.leader)), removes(b"k/vote/"), some),
        ("alarm", alarm_gone, alarm(a.AlarmRequest.ACTIVATE),
         lambda _, state: state.alarms.add(CORRUPT), some),
        ("alarm, taken down", alarm_first, alarm(a.AlarmRequest.DEACTIVATE),
         lambda _, state: state.alarms.discard(CORRUPT), some),
        ("status", nothing, lambda bed: bed.client.status().header.revision, nothing, SAME),
        ("member list", nothing, lambda bed: bed.client.member_list(), nothing, some),
        ("hash", nothing, says("Maintenance/Hash", lambda _: a.HashRequest()), nothing, SAME),
        ("hash kv", nothing, says("Maintenance/HashKV", lambda _: a.HashKVRequest()), nothing,
         SAME),
        ("defragment", nothing, says("Maintenance/Defragment", lambda _: a.DefragmentRequest()),
         nothing, some),
        ("snapshot", nothing, snapshot, nothing,
         lambda _, file: hashlib.sha256(file[:-32]).digest() == file[-32:] and len(file) > 200000),
        ("/metrics", nothing, page("/metrics"), nothing, lambda _, answer: answer[0] == 200),
        ("/status", nothing, page("/status"), nothing, lambda _, answer: answer[0] == 200),
        ("/health", nothing, page("/health"), nothing, lambda _, answer: answer[0] == 200),
    )


# ---- the loop -------------------------------------------------------------------------------

def one_failure(bed, request, nth, all_later):
    """The nth allocation of the request fails.  (False: there were fewer; did the process end?)"""
    name, prepare, call, effect, right = request
    bed.round += 1
    prepare(bed)
    before = bed.read()
    after = before.copy()
    effect(bed, after)
    want = bed.attempt(call) if right is SAME else None
    failure = answer = None
    bed.memory.fail(nth, all_later)
    try:
        answer = bed.attempt(call)
    except Failed as caught:
        failure = caught
    finally:
        _, failed = bed.memory.good()
    ended = failed > 0 and bed.ended()
    now = bed.read()
    where = "%s, allocation %d%s" % (name, nth, " and all later ones" if all_later else "")
    if failure is None:
        if not (answer == want if right is SAME else right(bed, answer)):
            raise AssertionError("%s: a wrong answer: %s" % (where, t4test.short(answer)))
        possible = (after,)
    elif failed == 0:
        raise AssertionError("%s: nothing failed, but: %s" % (where, failure))
    elif failure.code not in CODES:
        raise AssertionError("%s: %s" % (where, failure))
    else:
        possible = (before, after) if failure.code == "UNAVAILABLE" else (before,)
    if now not in possible:
        raise AssertionError("%s: %s\nfound: %s\npossible: %s" % (
            where, failure or "answered", now, possible))
    return failed > 0, ended


def step(nth):
    """To the next n; what takes more than 200 allocations takes the same one for each key."""
    return 1 if EVERY and nth < 200 else 1 + nth // 3


def exhaust(bed, request):
    """All n.  Returns how many there were, and how many were survived."""
    nth, tried, survived = 1, 0, 0
    while True:
        failed, ended = one_failure(bed, request, nth, False)
        if not failed:
            return tried, survived
        tried += 1
        if not ended:
            survived += 1
            one_failure(bed, request, nth, True)
        nth += step(nth)


def try_one(bed, request):
    """(whether all is well, what is said of it)"""
    try:
        tried, survived = exhaust(bed, request)
        return tried > 0, "%s: %d allocations fail, %d of them are survived" % (
            request[0], tried, survived)
    except (AssertionError, Failed, t4test.StartError) as error:
        return False, str(error)


def fill(client, prefix, value):
    for first in range(0, KEYS, 100):
        client.txn(success=[api().RequestOp(request_put=api().PutRequest(
            key=prefix + b"%04d" % i, value=value(i))) for i in range(first, first + 100)])


def server(engine):
    """One engine: lines for TAP."""
    bed = Bed(engine)
    client = bed.client
    fill(client, b"big/", lambda i: b"v%03d" % (i % 321) * 25)
    # Into the engine: a physical compaction flushes.
    client.compact(client.status().header.revision, True)
    bed.first_new = client.status().header.revision + 1
    fill(client, b"new/", lambda i: b"n" * 100)
    # What is compacted cannot be caught up with, so compactions come last.
    order = sorted(requests(), key=lambda request: request[0].startswith("compact"))
    lines = [try_one(bed, request) for request in order]
    counts = [bed.client.range(p + b"/", p + b"0", count_only=True).count for p in (b"big", b"new")]
    lines.append((counts == [KEYS, KEYS], "%d ends for lack of memory later every key is there"
                  % bed.deaths))
    lines.append((bed.server.stop() == 0, "and the server ends well"))
    bed.client.close()
    bed.server.close()
    return lines


# gRPC's library and that of C++ have no answer but to end the process; three of each.
GRPC = ("put", "get", "lock", "watch")


def grpc():
    """Lines for TAP."""
    lines = []
    for objects in ("libgpr", "libstdc++"):
        bed = Bed("memory", objects)
        for request in (request for request in requests() if request[0] in GRPC):
            try:
                bed.client.put(b"big/0500", b"x")
                ends = [one_failure(bed, request, nth, False) for nth in (1, 2, 4)]
                lines.append((ends[0][0] and all(failed == ended for failed, ended in ends),
                              "%s, %s: the process ends, with words" % (objects, request[0])))
            except (AssertionError, Failed, t4test.StartError) as error:
                lines.append((False, "%s: %s" % (objects, error)))
        bed.client.close()
        bed.server.close()
    return lines


# ---- libt4 ----------------------------------------------------------------------------------

def put_of(*keys):
    return lambda state, word: dict(state, **{key: word for key in keys})


def deleted(state, *_):
    return {key: value for key, value in state.items() if not key.startswith("k/d")}


def leases(by):
    return lambda state, word: dict(state, leases=str(int(state["leases"]) + by))


def no_change(state, _):
    return state


# Call of regress/tools/lib_calls.c -> what it makes of a state.
CALLS = {
    "put": put_of("k/put"), "delete": deleted,
    "txn": lambda state, word: put_of("k/t1", "k/t2")(deleted(state), word),
    "get": no_change, "range": no_change, "iterator": no_change, "compact": no_change,
    "defragment": no_change, "metrics": no_change, "lease_grant": leases(1),
    "lease_keep_alive": no_change, "lease_time_to_live": no_change,
    "lease_revoke": lambda state, word: leases(-1)(deleted(state), word),
    "watch": put_of("k/w")}


class Library:
    """A directory, and processes that make one call on it each."""

    def __init__(self, engine):
        self.engine, self.round, self.found = engine, 0, None
        self.directory = tempfile.mkdtemp(prefix="t4-225-")
        self.memory = NoMemory(self.directory)
        self.environment = dict(os.environ, T4_PLUGIN_DIR=os.path.join(t4test.BUILD_DIR, "plugins"),
                                **self.memory.environment())

    def call(self, name, nth, all_later):
        """One process.  (How many allocations failed; whether it lived.)"""
        self.round += 1
        word = "word-%d" % self.round
        self.memory.fail(nth, all_later)
        self.memory.good()  # the process arms it
        done = subprocess.run(
            [os.path.join(t4test.BUILD_DIR, "regress", "tools", "lib_calls"),
             os.path.join(self.directory, "db"), self.engine, name, word],
            env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            timeout=60)
        _, failed = self.memory.good()
        said = dict(line.split(": ", 1) for line in done.stdout.splitlines())
        where = "%s, allocation %d%s: status %d, %s%s" % (
            name, nth, " and all later ones" if all_later else "", done.returncode, done.stdout,
            done.stderr)
        states = {when: dict(pair.split("=") for pair in said[when].split())
                  for when in ("at open", "before", "after") if when in said}
        if "before" not in states:
            raise AssertionError(where)
        if self.found is not None and states["at open"] not in self.found:
            raise AssertionError("%s\npossible at the open: %s" % (where, self.found))
        after = CALLS[name](states["before"], word)
        if done.returncode == 0:
            self.found = (states["before"],) if said["status"] != "ok" else (after,)
            if states["after"] not in self.found or said["status"] not in ("ok", "out of memory") \
                    or said["status"] != "ok" and not failed:
                raise AssertionError(where)
            return failed, True
        if done.returncode != -signal.SIGABRT or not ENDS.search(done.stderr) or not failed:
            raise AssertionError(where)
        self.found = (states["before"], after)
        return failed, False

    def exhaust(self, name):
        nth, tried, survived = 1, 0, 0
        while True:
            failed, lived = self.call(name, nth, False)
            if not failed:
                return "libt4, %s: %d allocations fail, %d of them are survived" % (
                    name, tried, survived)
            tried += 1
            if lived:
                survived += 1
                self.call(name, nth, True)
            nth += step(nth)


def library(engine):
    """One engine: lines for TAP."""
    bed, lines = Library(engine), []
    for name in CALLS:
        try:
            lines.append((True, bed.exhaust(name)))
        except AssertionError as error:
            bed.found = None
            lines.append((False, str(error)))
    shutil.rmtree(bed.directory)
    return lines


def main():
    if not os.path.exists(t4test.T4.binary):
        TAP.skip_all("t4 was not built")
    if "thread" in os.environ.get("T4_SANITIZER", ""):
        TAP.skip_all("the allocator stands between the gRPC library and ThreadSanitizer, which then reports the "
                     "library's own accesses")
    engines = ("memory", "lmdb")
    with concurrent.futures.ThreadPoolExecutor(len(engines)) as side_by_side:
        for engine, lines in zip(engines, side_by_side.map(
                lambda engine: server(engine) + library(engine), engines)):
            for good, text in lines:
                TAP.ok(good, "%s: %s" % (engine, text))
    for good, text in grpc():
        TAP.ok(good, text)
    TAP.done()


main()

#!/usr/bin/python3
"""530_watch_sessions.t - watch sessions on the server under test and on a real etcd.

Every response of every stream is compared (sessions.py says how): written scenarios of what
clients can ask for, and a random walk.
  T4_SESSION_STEPS  steps of the walk (default 250)
  T4_SESSION_SEED   its seed (default: fixed; "random" draws one)

SPDX-License-Identifier: Apache-2.0
"""

import os
import random
import re
import sys
import time
import urllib.request

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [os.path.join(HERE, "..", "lib"), os.path.join(HERE, "..", "differential")]

import storetest  # noqa: E402
import t4test  # noqa: E402

TAP = t4test.Tap()
STEPS = int(os.environ.get("T4_SESSION_STEPS", "250"))
SEED = os.environ.get("T4_SESSION_SEED", "3")
INTERVAL = "--watch-progress-notify-interval=100ms"
NOPUT, NODELETE = 0, 1
EVERYTHING = {"key": b"\0", "range_end": b"\0"}


# ---- scenarios ------------------------------------------------------------------------------

def ids(play):
    """Chosen by server and client, taken, given back, unknown."""
    s = play.stream()
    for watch_id in (0, 1, 0, 5, 5, 0, 0, -7, 3, 1 << 62, -7, 0):
        play.create(s, b"id", watch_id=watch_id)
    play.barrier()
    play.put(b"id", b"to all")
    play.barrier()
    for watch_id in (5, 0, -7, 77, -1):
        play.cancel(s, watch_id)
        play.barrier()
    play.cancel(s, 5)
    play.barrier()
    for watch_id in (5, 0, 0, -7):
        play.create(s, b"id", watch_id=watch_id)
    play.barrier()
    play.put(b"id", b"to those that are left")
    play.progress(s)


def ranges(play):
    """Empty and reversed ones, from a key on, everything, the empty key."""
    s = play.stream()
    for key, end in ((b"r", b""), (b"r", b"r"), (b"r", b"q"), (b"r", b"\0"), (b"", b""),
                     (b"", b"\0"), (b"\0", b"\0"), (b"", b"r"), (b"\0", b""), (b"\0", b"\0\0"),
                     (b"r", b"r\0"), (b"r", b"s"), (b"\xff", b"\0"), (b"\xff", b"\xff\xff"),
                     (b"r\0", b"\0")):
        play.create(s, key, end)
    play.barrier()
    for key in (b"r", b"\0", b"q", b"r\0", b"ra", b"s", b"\xff", b"\xff\xff"):
        play.put(key, b"1")
    play.delete(b"q", b"s")
    play.txn((b"r", b"2"), (b"\0", None), (b"ra", b"2"), (b"\xff", None))
    play.progress(s)


def starts(play):
    """Now, the past, this moment, the future, never, and impossible ones."""
    s = play.stream()
    play.put(b"start", b"before")
    play.put(b"start", b"before, too")
    for start in (0, 1, play.revision - 1, play.revision, play.revision + 1, play.revision + 3,
                  -1, -(1 << 63), (1 << 63) - 1):
        play.create(s, b"start", start_revision=start, prev_kv=True)
    play.barrier()
    for i in range(4):
        play.put(b"start", b"%d" % i)
        play.barrier()
    play.delete(b"start")


def filters(play):
    """Packed and not, twice, unknown ones; progress behind events that all were filtered."""
    s, t = play.stream(), play.stream()
    for chosen in ([], [NOPUT], [NODELETE], [NOPUT, NODELETE], [NODELETE, NODELETE], [5],
                   [5, NOPUT]):
        play.create(s, b"f", b"g", filters=chosen, prev_kv=True)
        play.create(s, raw=b"\x0a\x01f\x12\x01g" + b"".join(b"\x28" + bytes([one])
                                                           for one in chosen))
    play.create(s, raw=b"\x0a\x01f\x12\x01g\x2a\x02\x00\x01\x28\x00")
    play.create(t, b"f", b"g", filters=[NOPUT, NODELETE], progress_notify=True)
    play.create(t, b"f", b"g", filters=[NOPUT, NODELETE], start_revision=1)
    play.barrier()
    play.put(b"f", b"1")
    play.txn((b"f", b"2"), (b"f1", b"new"))
    play.txn((b"f", None), (b"f1", b"changed"))
    play.delete(b"f", b"g")
    play.progress(s)
    play.progress(t)
    play.notifications(t)


def progress(play):
    """Answered when everything is there, for all watches of the stream, and only then."""
    s = play.stream()
    play.ask_progress(s)
    play.barrier()  # no watch: no answer
    play.create(s, b"p")
    play.progress(s)
    play.progress_row(s, 5)
    play.put(b"p", b"1")
    play.progress(s)
    play.put(b"elsewhere", b"1")
    play.progress(s)
    play.create(s, b"p", watch_id=9, start_revision=play.revision + 3)
    play.barrier()
    play.ask_progress(s)
    play.put(b"p", b"2")
    play.ask_progress(s)
    play.put(b"p", b"3")
    play.barrier()
    play.ask_progress(s)  # one revision before the start: no answer yet
    play.put(b"p", b"4")
    play.progress(s)
    play.create(s, b"p", watch_id=10, start_revision=play.revision + 100)
    play.barrier()
    play.ask_progress(s)
    play.barrier()
    play.cancel(s, 10)  # whose start was to come
    play.progress(s)
    play.create(s, b"p", start_revision=1)
    play.barrier()
    play.put(b"p", b"5")
    play.progress(s)
    for watch_id in (0, 9, 1):
        play.cancel(s, watch_id)
        play.barrier()
    play.ask_progress(s)  # again no watch
    play.barrier()
    play.create(s, b"p")
    play.progress(s)


def progress_at_once(play):
    """Asked for while watches are created and catch up: if answered, then honestly."""
    s = play.stream()
    for i in range(40):
        play.create(s, start_revision=max(play.compacted, 1) + i % 3, prev_kv=True, **EVERYTHING)
        play.ask_progress(s, chance=True)
        play.put(b"q%d" % (i % 4), b"%d" % i)
        play.ask_progress(s, chance=True)
    play.barrier()
    for i in range(40):
        play.cancel(s, i)
        play.ask_progress(s, chance=True)
    play.barrier()


def notifications(play):
    """To those who asked, and have reached their start, while they are idle."""
    s, t = play.stream(), play.stream()
    play.create(s, b"n", progress_notify=True)
    play.create(s, b"n", b"o", progress_notify=True, start_revision=1)
    play.create(s, b"other", progress_notify=True, filters=[NODELETE])
    play.create(s, b"n")
    play.create(s, b"n", progress_notify=True, start_revision=play.revision + 4, watch_id=50)
    play.create(t, b"n", progress_notify=True, watch_id=7)
    play.notifications(s)
    play.put(b"n", b"1")
    play.notifications(s)
    play.put(b"elsewhere", b"1")
    play.notifications(s)
    play.notifications(t)
    play.cancel(s, 0)
    play.cancel(t, 7)
    play.put(b"n", b"2")
    play.put(b"n", b"3")
    play.notifications(s)  # now of the one from the future, too
    play.progress(s)


def fragments(play):
    """What is larger than a message may be: whole without `fragment`, in the same pieces with."""
    s = play.stream()
    for fields in ({"fragment": True}, {"fragment": True, "prev_kv": True}, {"prev_kv": True},
                   {"fragment": True, "prev_kv": True, "filters": [NOPUT]}):
        play.create(s, b"g", b"h", **fields)
    play.barrier()
    for i in range(0, 900, 100):
        play.txn(*[(b"g%03d" % k, b"v" * 5000) for k in range(i, i + 100)])
    play.barrier()
    play.delete(b"g010", b"g850")  # one revision of 4.2 MB, with what was there before
    play.barrier()
    play.delete(b"g", b"h")        # of less than a message
    play.put(b"g", b"x" * 1400000)
    play.put(b"g", b"y" * 1400000)  # one event of 2.8 MB
    play.barrier()
    pieces = [life.pieces for life in play.streams[s][0].lives]
    TAP.equal([len(each) for each in pieces], [0, 1, 0, 1], "etcd splits one of them in pieces")
    for fields in ({"fragment": True, "prev_kv": True}, {"prev_kv": True}):
        t = play.stream()
        play.create(t, b"g", b"h", start_revision=1, **fields)
        play.barrier()
        for side in play.streams[t]:  # how much a response takes while catching up is timing
            side.lives[0].pieces = []
    play.delete(b"g")


def compactions(play):
    """Watches below, at and above the compacted revision, then a compaction beside them."""
    s = play.stream()
    for i in range(6):
        play.txn((b"c1", b"%d" % i), (b"c2", b"%d" % i))
    play.delete(b"c2")
    at = play.revision
    play.put(b"c1", b"behind")
    play.put(b"c2", b"behind")
    play.compact(at)
    for start in (1, at - 1, at, at + 1, 0):
        play.create(s, b"c1", b"c3", start_revision=start, prev_kv=True)
    play.create(s, b"nothing", start_revision=at - 1)
    play.barrier()
    play.put(b"c1", b"later")
    play.put(b"c2", b"later")
    t = play.stream()
    play.create(t, b"c1", start_revision=at + 1, prev_kv=True)
    play.create(t, b"c1", prev_kv=True)
    play.compact()  # to this moment: nobody is behind it
    play.put(b"c1", b"last")
    play.progress(t)


def odd_requests(play):
    """Empty and unknown ones are ignored; a client that closes its side goes on to get events."""
    from sessions import Raw
    s = play.stream()
    play.send(s, Raw(b""))
    play.send(s, Raw(b"\x7a\x01x"))    # field 15
    play.create(s, b"odd")
    play.send(s, Raw(b"\x12\x00"))     # cancels watch 0, as etcd takes it
    for side in play.streams[s]:
        side.cancels += 1
    play.barrier()
    play.send(s, Raw(b"\x0a\x00"))     # the empty key
    for side in play.streams[s]:
        from etcdclient import api
        side.pending.append(api.WatchCreateRequest())
    play.create(s, b"odd")
    play.barrier()
    for side in play.streams[s]:
        side.stream.end()
    play.put(b"odd", b"1")
    play.put(b"\0", b"1")
    for side in play.streams[s]:
        life = side.lives[-1]
        play.wait(side, lambda: life.events == 1 and side.lives[-2].events == 1,
                  "no event behind the half-close")
    play.end_streams()


def metrics(play):
    """etcd's metrics of watches mean the same."""
    def values(side):
        server = play.servers[side]
        address = getattr(server, "metrics_address", server.address)
        with urllib.request.urlopen("http://%s/metrics" % address) as page:
            found = re.findall(r"^etcd_debugging_mvcc_(\w+) (\S+)$", page.read().decode(), re.M)
        return {name: float(value) for name, value in found}

    def changes(names):
        found = [values(side) for side in (0, 1)]
        return [{name: found[side][name] - before[side][name] for name in names}
                for side in (0, 1)]
    gauges = ["watch_stream_total", "watcher_total", "slow_watcher_total", "pending_events_total"]
    before = [values(side) for side in (0, 1)]
    s, t = play.stream(), play.stream()
    for stream in (s, s, t):
        play.create(stream, b"m", b"n")
    play.barrier()
    for i in range(5):
        play.txn((b"m1", b"%d" % i), (b"m2", b"%d" % i))
    play.barrier()
    want = dict(zip(gauges, (2, 3, 0, 0)))
    TAP.ok(storetest.until(lambda: changes(gauges) == [want, want], 10),
           "streams, watches, slow ones, events that wait", want, *changes(gauges))
    events = [each["events_total"] for each in changes(["events_total"])]
    # The reference has one watch more, which records the history.
    TAP.equal(events, [4 * 10, 3 * 10], "events sent")
    play.finish()
    want = dict.fromkeys(gauges, 0)
    TAP.ok(storetest.until(lambda: changes(gauges) == [want, want], 10),
           "none is left", want, *changes(gauges))


# ---- the walk -------------------------------------------------------------------------------

class Walk:
    KEYS = [b"a", b"a/", b"a/1", b"a/2", b"a0", b"b", b"c", b"\0", b"\xff"]
    STREAMS = 3

    def __init__(self, play, seed):
        self.play = play
        self.random = random.Random(seed)
        self.number = 0
        self.streams = [play.stream() for _ in range(self.STREAMS)]
        self.below = play.stream()  # etcd leaves the ids of canceled watches in use

    def value(self):
        self.number += 1
        return b"%d" % self.number

    def write(self):
        rnd, play = self.random, self.play
        for _ in range(rnd.choice([1, 1, 2, 6])):
            what = rnd.randrange(4)
            if what == 0:
                play.delete(rnd.choice(self.KEYS), rnd.choice([b"", b"", b"\0", b"b"]))
            elif what == 1:
                keys = rnd.sample(self.KEYS, 3)
                play.txn(*[(key, rnd.choice([None, self.value()])) for key in keys])
            else:
                play.put(rnd.choice(self.KEYS), self.value())

    def create(self):
        rnd, play = self.random, self.play
        key = rnd.choice(self.KEYS + [b""])
        start = rnd.choice([0, 0, max(play.compacted, 1), play.revision, play.revision + 1,
                            play.revision + 5, rnd.randint(max(play.compacted, 1), play.revision),
                            -1])
        filters = rnd.choice([[], [], [], [NOPUT], [NODELETE]])
        play.create(rnd.choice(self.streams), key,
                    rnd.choice([b"", b"\0", b"b", key + b"\0"]), start_revision=start,
                    filters=filters, prev_kv=rnd.random() < .5, fragment=rnd.random() < .2,
                    watch_id=rnd.choice([0, 0, 0, 1, 2, 5, 1000, -3]),
                    progress_notify=rnd.random() < .3)

    def cancel(self):
        stream = self.random.choice(self.streams)
        known = sorted(self.play.streams[stream][0].open)
        self.play.cancel(stream, self.random.choice(known + [77]))

    def progress(self):
        stream = self.random.choice(self.streams)
        self.play.barrier()
        open_ = self.play.streams[stream][0].open.values()
        if open_ and all(life.request.start_revision <= self.play.revision for life in open_):
            self.play.progress(stream)
        else:
            self.play.ask_progress(stream)
            self.play.barrier()  # before a write makes one due

    def compact(self):
        play = self.play
        play.compact(self.random.randint(max(play.compacted + 1, play.revision - 30),
                                         play.revision))
        if play.compacted > 2:
            play.create(self.below, start_revision=self.random.randint(1, play.compacted - 1),
                        **EVERYTHING)

    def notifications(self):
        self.play.notifications(self.random.choice(self.streams))

    def run(self, steps):
        makers = [self.write, self.create, self.cancel, self.progress, self.compact,
                  self.notifications]
        for _ in range(steps):
            self.random.choices(makers, [40, 30, 15, 12, 2, 1])[0]()
            if self.random.random() < .8:
                self.play.barrier()


def main():
    reference, subject = t4test.reference([INTERVAL]), t4test.subject([INTERVAL])
    if reference is None or reference.is_34():
        TAP.skip_all("no etcd 3.6 in %s; contrib/quickstart puts it there" % t4test.BUILD_DIR)
    if subject is None:
        TAP.skip_all("no t4 in " + t4test.BUILD_DIR)
    from sessions import Broken, Play

    seed = random.SystemRandom().randrange(1 << 32) if SEED == "random" else int(SEED)
    with reference.start(), subject.start():
        play = Play(reference, subject)

        def part(name, run):
            started, before = time.monotonic(), play.responses
            try:
                run()
                if play.streams:
                    play.finish()
                TAP.ok(True, name)
            except Broken as broken:
                TAP.ok(False, name, str(broken))
                play.end_streams()
            TAP.diag("%d responses, %.1f s" % (play.responses - before,
                                               time.monotonic() - started))

        for scenario in (ids, ranges, starts, filters, progress, progress_at_once, notifications,
                         fragments, compactions, odd_requests, metrics):
            part("%s: %s" % (scenario.__name__, scenario.__doc__.splitlines()[0].lower()),
                 lambda: scenario(play))
        part("a walk of %d steps, T4_SESSION_SEED=%d" % (STEPS, seed),
             lambda: Walk(play, seed).run(STEPS))
        play.close()
    TAP.done()


main()

"""sessions.py - watch sessions on two servers: all responses of each stream are compared.

Responsible for: streams opened alike on a reference and a subject with the same history; doing
the same on both; waiting until both have sent what is due; comparing, response by response, all
that came.  run.py compares answers of all kinds of requests and merges what watches send; here
the order and the form of responses count.

Entry points: Play, with a method for each thing that a client can do, and barrier(); Broken.

What is compared at a barrier, of each stream:
  - answers to creates and cancels: all fields, in order
  - of each watch everything from created to canceled, in order; events with all their fields
  - progress messages: revisions in order, equal neighbours as one
What each side must keep by itself, as it depends on timing:
  - a revision in one response, or in fragments with nothing between them; fragments only where
    asked for, below the limit unless of one event
  - header.revision of events not below them, nor above the store's revision
  - no progress message or notification that speaks of an event that has not come
  - nothing of a watch before created or behind canceled

SPDX-License-Identifier: Apache-2.0
"""

import bisect
import time

from compare import differences
from etcdclient import Client, api
from generate import covers
from run import History, show

DUE_SECONDS = 20
AGAIN_SECONDS = 0.3
FRAGMENT_BYTES = 1536 * 1024 + 512 * 1024


class Broken(Exception):
    """The servers differ, or one broke a rule; the text tells what."""


class Raw:
    """A request as bytes, for what this protobuf library would write otherwise."""

    def __init__(self, message):
        self.message = message

    def SerializeToString(self):  # noqa: N802 (the library's name)
        return self.message


class Life:
    """One watch on one server, from created on."""

    def __init__(self, request, created):
        self.request = request
        self.id = created.watch_id
        self.start = request.start_revision or created.header.revision + 1
        self.range = (request.key or b"\0", request.range_end)
        self.log = []           # events, and the cancellation by a compaction
        self.events = 0
        self.pieces = []        # number of events of each fragment, [] where there was one piece
        self.newest = 0         # revision of the last event
        self.canceled = False
        self.compacted = False  # canceled by that
        self.below = False      # this is due from the beginning
        self.due = []           # revisions of the events that it must get
        self.looked = 0         # at so many events of the history

    def learn(self, history):
        for event in history.events[self.looked:]:
            revision = event.kv.mod_revision
            if (revision >= self.start and event.type not in self.request.filters
                    and covers(self.range, event.kv.key)):
                self.due.append(revision)
        self.looked = len(history.events)

    def lacks(self, revision):
        """Events up to this revision that have not come."""
        return bisect.bisect_right(self.due, revision) - self.events


class Stream:
    """One stream of one server."""

    def __init__(self, play, server, client):
        self.play, self.server = play, server
        self.stream = client.watch_stream()
        self.pending = []       # creates not answered yet
        self.answers = []       # to creates and cancels
        self.cancels = 0        # answers to cancels that are due and have not come
        self.lives = []
        self.open = {}          # by id
        self.progress = []
        self.number = 0         # of progress messages
        self.by_chance = False  # whether there are some is chance
        self.notified = {}      # id -> revision of the newest notification
        self.fragment = None    # the life whose fragments are under way

    def break_(self, what, response):
        raise Broken("%s sent %s:\n%s" % (self.server.name, what, show(response)))

    def take(self, seconds):
        response = self.stream.next(seconds)
        if response is None:
            return False
        self.play.look(self, response)
        if self.fragment and (response.watch_id != self.fragment.id or not response.events):
            self.break_("something between fragments", response)
        if response.created:
            self.answers.append(response)
            request = self.pending.pop(0)
            if not response.canceled:
                life = Life(request, response)
                life.below = life.start < self.play.compacted
                self.lives.append(life)
                self.open[life.id] = life
        elif response.canceled:
            life = self.open.pop(response.watch_id, None)
            if life is None:
                self.break_("a cancellation of nothing", response)
            life.canceled = True
            if response.compact_revision:
                life.compacted = True
                life.log.append(response)
            else:
                self.answers.append(response)
                self.cancels -= 1
        elif response.events:
            self.take_events(response)
        elif response.watch_id == -1 and -1 not in self.open:
            self.take_progress(response)
        else:
            self.take_notification(response)
        return True

    def take_events(self, response):
        life = self.open.get(response.watch_id)
        if life is None:
            self.break_("events of no watch", response)
        first, last = response.events[0].kv.mod_revision, response.events[-1].kv.mod_revision
        if response.header.revision < last:
            self.break_("events above the header's revision", response)
        if self.fragment is None and first <= life.newest:
            self.break_("a revision in two responses, or twice", response)
        if response.fragment and not life.request.fragment:
            self.break_("fragments that nobody asked for", response)
        if (life.request.fragment and len(response.events) > 1
                and response.ByteSize() >= FRAGMENT_BYTES):
            self.break_("a fragment that is too large", response)
        if self.fragment or response.fragment:
            if not self.fragment:
                life.pieces.append([])
            life.pieces[-1].append(len(response.events))
        self.fragment = life if response.fragment else None
        life.newest = last
        life.events += len(response.events)
        life.log.extend(response.events)

    def take_progress(self, response):
        revision = response.header.revision
        for life in self.open.values():
            # etcd's answer to a create may overtake a progress message (it has two channels).
            if self.by_chance and self.server.name.startswith("etcd") and not life.events:
                continue
            if life.request.start_revision > revision or life.lacks(revision) > 0:
                self.break_("progress before %s had everything" % show(life.request), response)
        self.number += 1
        if self.progress[-1:] != [revision]:
            self.progress.append(revision)

    def take_notification(self, response):
        revision = response.header.revision
        life = self.open.get(response.watch_id)
        if life is None or not life.request.progress_notify:
            self.break_("a notification that nobody asked for", response)
        if life.request.start_revision > revision or life.lacks(revision) > 0:
            self.break_("a notification before it had everything", response)
        self.notified[life.id] = revision


class Play:
    """What is done to both servers."""

    def __init__(self, reference, subject):
        self.servers = [reference, subject]
        self.clients = [Client(server.address) for server in self.servers]
        self.history = History(self.clients[0], False)
        self.revision = self.history.revision
        self.compacted = 0
        self.streams = []       # [(of the reference, of the subject)]
        self.responses = 0
        self.identities = [client.range(b"\0").header for client in self.clients]

    def close(self):
        self.end_streams()
        self.history.stream.cancel()
        for client in self.clients:
            client.close()

    def look(self, stream, response):
        """At the header, which is compared from here on without ids and term."""
        self.responses += 1
        mine = self.identities[self.servers.index(stream.server)]
        header = response.header
        if (header.cluster_id, header.member_id) != (mine.cluster_id, mine.member_id):
            stream.break_("another server's ids", response)
        if header.revision > self.revision:
            stream.break_("a revision that is not there yet", response)
        for field in ("cluster_id", "member_id", "raft_term"):
            header.ClearField(field)
        self.history.catch_up(header.revision)
        for life in stream.open.values():
            life.learn(self.history)

    # ---- the store ---------------------------------------------------------------------------

    def call(self, name, request):
        self.wait_answers()  # which tell the revision
        answers = [client.call(name, request) for client in self.clients]
        revisions = [answer.header.revision for answer in answers]
        if revisions[0] != revisions[1]:
            raise Broken("%s: revision %d and %d" % ((name,) + tuple(revisions)))
        self.revision = revisions[0]

    def put(self, key, value=b"", **fields):
        self.call("KV/Put", api.PutRequest(key=key, value=value, **fields))

    def delete(self, key, range_end=b""):
        self.call("KV/DeleteRange", api.DeleteRangeRequest(key=key, range_end=range_end))

    def txn(self, *operations):
        """Puts (key, value) and deletions (key, None) in one revision."""
        self.call("KV/Txn", api.TxnRequest(success=[
            api.RequestOp(request_delete_range=api.DeleteRangeRequest(key=key))
            if value is None else
            api.RequestOp(request_put=api.PutRequest(key=key, value=value))
            for key, value in operations]))

    def compact(self, revision=None):
        """Every watch is brought up to date before: chance would decide what is canceled."""
        self.synchronize()
        self.compacted = self.revision if revision is None else revision
        self.call("KV/Compact", api.CompactionRequest(revision=self.compacted, physical=True))

    def synchronize(self):
        """etcd looks at watches from the past every 100 ms: an event shows that it did."""
        for pair in self.streams:
            for life in pair[0].lives:
                if not life.canceled and life.request.start_revision > 0:
                    self.put(life.range[0], b"in the past?")
                    if 0 in life.request.filters:
                        self.delete(life.range[0])
        self.barrier()

    # ---- streams -----------------------------------------------------------------------------

    def stream(self):
        """Its number."""
        self.streams.append([Stream(self, server, client)
                             for server, client in zip(self.servers, self.clients)])
        return len(self.streams) - 1

    def end_streams(self):
        for pair in self.streams:
            for side in pair:
                side.stream.cancel()
        self.streams = []

    def send(self, number, request):
        for side in self.streams[number]:
            side.stream.send(request)

    def create(self, number, key=b"", range_end=b"", raw=None, **fields):
        """Only sends; the answers come at the next barrier().  raw: the request's bytes."""
        request = api.WatchCreateRequest(key=key, range_end=range_end, **fields)
        if raw is not None:
            request = api.WatchCreateRequest.FromString(raw)
        for side in self.streams[number]:
            side.pending.append(request)
        if raw is None:
            self.send(number, api.WatchRequest(create_request=request))
        else:  # field 1 of a WatchRequest
            self.send(number, Raw(b"\x0a" + bytes([len(raw)]) + raw))

    def cancel(self, number, watch_id):
        self.barrier()  # then it is known what comes before, and whether there is an answer
        for side in self.streams[number]:
            side.cancels += watch_id in side.open
        self.send(number, api.WatchRequest(
            cancel_request=api.WatchCancelRequest(watch_id=watch_id)))

    def ask_progress(self, number, chance=False):
        """Only sends.  chance: that decides whether there is an answer."""
        for side in self.streams[number]:
            side.by_chance |= chance
        self.send(number, api.WatchRequest(progress_request=api.WatchProgressRequest()))

    def progress(self, number):
        """An answer is due; asked for again as clients do, see synchronize()."""
        self.barrier()
        deadline = time.monotonic() + DUE_SECONDS
        for side in self.streams[number]:
            while side.progress[-1:] != [self.revision]:
                side.stream.progress()
                side.take(AGAIN_SECONDS)
                if time.monotonic() > deadline:
                    raise Broken("%s does not report progress to revision %d" % (
                        side.server.name, self.revision))

    def progress_row(self, number, times):
        """Several requests at once, where progress() had an answer: one for each."""
        before = [side.number for side in self.streams[number]]
        for _ in range(times):
            self.ask_progress(number)
        for side, first in zip(self.streams[number], before):
            self.wait(side, lambda: side.number >= first + times, "a progress message is missing")
        self.barrier()
        for side, first in zip(self.streams[number], before):
            if side.number != first + times:
                raise Broken("%s sent %d progress messages, not %d" % (
                    side.server.name, side.number - first, times))

    def notifications(self, number):
        """Of each watch that asked for them, at this revision."""
        self.barrier()
        for side in self.streams[number]:
            for life in list(side.open.values()):
                if (life.request.progress_notify
                        and life.request.start_revision <= self.revision):
                    self.wait(side, lambda: side.notified.get(life.id) == self.revision,
                              "no notification of\n%s" % life.request)

    # ---- comparing ---------------------------------------------------------------------------

    def wait(self, side, condition, what):
        deadline = time.monotonic() + DUE_SECONDS
        while not condition():
            if not side.take(deadline - time.monotonic()):
                raise Broken("%s: %s" % (side.server.name, what))

    def wait_answers(self):
        for pair in self.streams:
            for side in pair:
                self.wait(side, lambda: not side.pending and side.cancels == 0,
                          "no answer to a create or a cancel")

    def barrier(self):
        """Waits for what is due, and compares all that came."""
        self.history.catch_up(self.revision)
        for number, pair in enumerate(self.streams):
            # A refused create: its answer comes behind the answers to all others.
            self.create(number, b"b", b"a")
        self.wait_answers()
        for number, pair in enumerate(self.streams):
            for side in pair:
                for life in side.lives:
                    life.learn(self.history)
                    self.wait(side, lambda: life.canceled or not life.below
                              and life.lacks(self.revision) <= 0,
                              "%d of %d events of\n%s" % (life.events, len(life.due),
                                                          show(life.request)))
            self.compare(number, pair)

    def compare(self, number, pair):
        self.same("answers of stream %d" % number, *[side.answers for side in pair])
        one, two = pair
        if len(one.lives) != len(two.lives):
            raise Broken("%d watches and %d" % (len(one.lives), len(two.lives)))
        for left, right in zip(one.lives, two.lives):
            what = "watch %d of stream %d\n%s" % (left.id, number, show(left.request))
            self.same(what, left.log, right.log)
            if (left.canceled, left.compacted) != (right.canceled, right.compacted):
                raise Broken("only one is canceled: " + what)

    def same(self, what, one, two):
        for index, (left, right) in enumerate(zip(one, two)):
            found = ([("kind", type(left).__name__, type(right).__name__)]
                     if type(left) is not type(right) else differences(left, right))
            if found:
                raise Broken("%s\nitem %d differs: %s\n%s: %s\n%s: %s" % (
                    what, index, found, self.servers[0].name, show(left),
                    self.servers[1].name, show(right)))
        if len(one) != len(two):
            longer = max(one, two, key=len)
            raise Broken("%s\n%d items and %d; the first one more is\n%s" % (
                what, len(one), len(two), show(longer[min(len(one), len(two))])))

    def finish(self):
        """Compares once more and closes all streams."""
        self.barrier()
        for number, (one, two) in enumerate(self.streams):
            if one.progress != two.progress and not one.by_chance:
                raise Broken("progress of stream %d: %s and %s" % (
                    number, one.progress, two.progress))
            for left, right in zip(one.lives, two.lives):
                if left.pieces != right.pieces:
                    raise Broken("fragments: %s and %s" % (left.pieces, right.pieces))
        self.end_streams()

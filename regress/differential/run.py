"""run.py - sends the generator's steps to both servers in lock step and compares the answers.

Responsible for: one reference and one subject with their streams; waiting until both have given
what is due; stopping at the first difference with the step and both whole answers.

Entry points: Pair (connects two running servers), Pair.run(), Difference.

What is due on a watch is known from a recorder, one watch on the reference that sees every
event from its start on: so a missing event is found without waiting for silence.

Invariants:
 (1) A step is answered by both before the next one is sent.
 (2) Events are compared per watch as one sequence, however the servers batch them.

SPDX-License-Identifier: Apache-2.0
"""

import hashlib
import re
import time

import grpc

from compare import Failure, Ids, differences, normalise
from etcdclient import Client, api, status_of
from generate import STREAMS, covers

DUE_SECONDS = 20
PROGRESS_SECONDS = 3


class Difference(Exception):
    """The servers differ; the text tells the step, the fields and both answers."""


class Watched:
    """One watch on one server: what it has sent and was not compared yet."""

    def __init__(self, request, created_at):
        self.request = request
        self.start = request.start_revision or created_at + 1
        self.end = request.range_end
        self.key = request.key or b"\0"
        self.filters = set(request.filters)
        self.compacted_start = False
        self.canceled = False
        self.counted = 0        # of the history's events
        self.due = 0            # number of them that it must send
        self.due_revision = 0   # of the last of those
        self.newest = 0         # revision of the last event that came
        self.log = []           # events, and cancellations as WatchResponse
        self.compared = 0

    def wants(self, event):
        if event.type in self.filters or event.kv.mod_revision < self.start:
            return False
        if self.end and self.end != b"\0" and self.end <= self.key:
            return False
        return covers((self.key, self.end), event.kv.key)


class Streams:
    """The watch streams of one server, sorted into creates, progress and watches."""

    def __init__(self, client, translate, history):
        self.streams = [client.watch_stream() for _ in range(STREAMS)]
        self.translate = translate
        self.history = history
        self.created = [[] for _ in range(STREAMS)]
        self.progress = [[] for _ in range(STREAMS)]
        self.watches = [{} for _ in range(STREAMS)]
        self.pending = [None] * STREAMS
        self.complaints = []
        self.longest_wait = 0.0

    def pump(self, stream, seconds=0):
        """Takes in one response; False if there was none in time."""
        started = time.monotonic()
        response = self.streams[stream].next(seconds)
        self.longest_wait = max(self.longest_wait, time.monotonic() - started)
        if response is None:
            return False
        response = self.translate(response)
        watches = self.watches[stream]
        if response.created:
            self.created[stream].append(response)
            if not response.canceled:
                watches[response.watch_id] = Watched(self.pending[stream],
                                                     response.header.revision)
        elif response.events or response.canceled:
            watch = watches.get(response.watch_id)
            if watch is None:
                self.complaints.append("a response for no watch:\n%s" % response)
                return True
            if response.events and (response.events[-1].kv.mod_revision
                                    > response.header.revision):
                self.complaints.append("events above header.revision:\n%s" % response)
            if response.events:
                self.history.catch_up(response.events[-1].kv.mod_revision)
            for event in response.events:
                if not self.history.coalesced(event):
                    watch.log.append(event)
                    watch.newest = event.kv.mod_revision
            if response.canceled:
                bare = api.WatchResponse()
                bare.CopyFrom(response)
                del bare.events[:]
                watch.log.append(bare)
                watch.canceled = True
        elif response.watch_id == -1:
            if response.header.revision not in self.progress[stream]:
                self.progress[stream].append(response.header.revision)
        # Else: a progress notification that came by itself, when a watch was idle for long.
        return True

    def pump_all(self):
        for stream in range(STREAMS):
            while self.pump(stream):
                pass


class History:
    """Every event of the store in order, as the recorder saw them."""

    def __init__(self, client, may_coalesce):
        self.may_coalesce = may_coalesce
        self.events = []
        self.superseded = set()
        self.vanished = set()
        self.last = {}
        self.stream = client.watch_stream()
        self.revision = self.stream.created(b"\0", b"\0").header.revision

    def remember(self, before):
        """Takes over what an earlier recorder saw of this store."""
        self.superseded = before.superseded
        self.vanished = before.vanished

    def catch_up(self, revision):
        deadline = time.monotonic() + DUE_SECONDS
        while self.revision < revision:
            response = self.stream.next(deadline - time.monotonic())
            if response is None or response.canceled:
                raise Difference("the reference's own watch stays at revision %d of %d"
                                 % (self.revision, revision))
            for event in response.events:
                self.add(event)

    def add(self, event):
        revision, key = event.kv.mod_revision, event.kv.key
        self.revision = revision
        before = self.last.get(key)
        if before is not None and before[0] == revision:
            # Two versions of a key in one revision: put, then deleted by a later sibling.
            self.superseded.add((revision, key, before[1]))
            if before[2]:
                self.vanished.add((revision, key))
        new = event.type == 0 and event.kv.create_revision == revision
        self.last[key] = (revision, event.type, new)
        self.events.append(event)

    def coalesced(self, event):
        """Whether the event is one that exceptions.txt drops from both sides' sequences."""
        if not self.superseded or not self.may_coalesce:
            return False
        place = event.kv.mod_revision, event.kv.key
        return place in self.vanished or place + (event.type,) in self.superseded

    def due(self, watch):
        """Which of the events so far the watch must have sent, at least."""
        for event in self.events[watch.counted:]:
            if watch.wants(event) and not self.coalesced(event):
                # The event at a compacted revision may be gone: both or none, seen later.
                if not (watch.compacted_start and event.kv.mod_revision == watch.start):
                    watch.due += 1
                    watch.due_revision = event.kv.mod_revision
        watch.counted = len(self.events)


class Pair:
    def __init__(self, reference, subject, generator, exceptions, before=None):
        """before: the Pair of the time before the same stores were started again."""
        self.clients = [Client(reference.address), Client(subject.address)]
        self.servers = [reference, subject]
        self.generator = generator
        self.exceptions = exceptions
        self.ids = before.ids if before else Ids()
        self.number = 0
        self.calls = {}
        self.methods = set(before.methods) if before else set()     # "Service/Method"
        self.noted = None       # a dictionary: note differing answers and go on
        self.errors = 0
        self.events = 0
        self.open_streams()
        if before:
            self.history.remember(before.history)
        headers = [client.range(b"\0").header for client in self.clients]
        for header in headers:
            if not header.cluster_id or not header.member_id:
                raise Difference("cluster_id or member_id is 0:\n%s" % header)
        self.ids.learn_identity(*headers)
        members = [client.member_list().members[0] for client in self.clients]
        self.ids.learn_member(*members)
        generator.services.learn_member(members[0])

    def open_streams(self):
        self.history = History(self.clients[0], "coalesced" in self.exceptions.sequences)
        self.streams = [Streams(self.clients[0], lambda message: message, self.history),
                        Streams(self.clients[1], self.ids.from_subject, self.history)]
        self.keep_alive = [client.keep_alive() for client in self.clients]

    def close(self):
        self.history.stream.cancel()
        for side in self.streams:
            for stream in side.streams:
                stream.cancel()
        for stream in self.keep_alive:
            stream.cancel()
        for client in self.clients:
            client.close()

    # ---- one step ----------------------------------------------------------------------------

    def run(self, step):
        if step.counts():
            self.number += 1
            label = step.name if step.kind == "call" else step.name + " " + step.kind
            self.calls[label] = self.calls.get(label, 0) + 1
            self.methods.add("Watch/Watch" if step.name == "Watch" else step.name)
        answer = getattr(self, "step_" + step.kind)(step)
        self.generator.learn(step, answer)

    def step_call(self, step):
        requests = [step.request, self.ids.to_subject(step.request)]
        futures = [client.begin(step.name, request)
                   for client, request in zip(self.clients, requests)]
        answers = []
        for future in futures:
            try:
                answers.append(future.result())
            except grpc.RpcError as error:
                answers.append(Failure(*status_of(error)))
        reference, subject = answers
        if isinstance(reference, Failure):
            self.errors += 1
        if (step.name == "Lease/LeaseGrant" and step.request.ID == 0
                and not any(isinstance(answer, Failure) for answer in answers)):
            self.check(step, reference, subject, subject.ID > 0, "a lease id must be positive")
            self.ids.learn_lease(reference.ID, subject.ID)
        return self.compare(step, reference, subject)

    def step_range_stream(self, step):
        """The subject's pieces put together against the reference's Range: 3.6 has no pieces."""
        try:
            reference = self.clients[0].call("KV/Range", step.request)
        except grpc.RpcError as error:
            reference = Failure(*status_of(error))
        subject, pieces = api.RangeResponse(), []
        try:
            for piece in self.clients[1].call("KV/RangeStream", step.request):
                pieces.append(piece.range_response)
                subject.MergeFrom(piece.range_response)
        except grpc.RpcError as error:
            subject = Failure(*status_of(error))
        early = [piece for piece in pieces[:-1]
                 if piece.HasField("header") or piece.more or piece.count]
        self.check(step, reference, subject, not early,
                   "header, more and count stand in the last piece alone")
        return self.compare(step, reference, subject)

    def step_first(self, step):
        """The first message of a stream that the server goes on with when there is news."""
        answers = []
        for client, request in zip(self.clients, (step.request, self.ids.to_subject(step.request))):
            stream = client.call(step.name, request)
            try:
                answers.append(next(stream))
            except grpc.RpcError as error:
                answers.append(Failure(*status_of(error)))
            stream.cancel()
        return self.compare(step, *answers)

    def step_snapshot(self, step):
        """The databases differ by nature; the form of the stream, and its hash, do not."""
        for client in self.clients:
            parts = list(client.call(step.name, step.request))
            data = b"".join(part.blob for part in parts)
            left = [part.remaining_bytes + len(part.blob) for part in parts[:-1]]
            before = [len(data) - 32] + [part.remaining_bytes for part in parts[:-2]]
            self.check(step, parts[0], parts[-1], left == before
                       and parts[-1].remaining_bytes == 0
                       and {part.version for part in parts} == {"3.6.0"}
                       and not any(part.HasField("header") for part in parts)
                       and hashlib.sha256(data[:-32]).digest() == data[-32:],
                       "a snapshot counts down, ends with its SHA-256, and tells its version")
        return None

    def step_keepalive(self, step):
        requests = [step.request, self.ids.to_subject(step.request)]
        for stream, request in zip(self.keep_alive, requests):
            stream.send(request)
        answers = [stream.next(DUE_SECONDS) for stream in self.keep_alive]
        self.check(step, *answers, None not in answers, "no answer on the keepalive stream")
        return self.compare(step, *answers)

    def compare(self, step, reference, subject):
        """Compares two answers to one request; returns the reference's, None for an error."""
        failed = isinstance(reference, Failure)
        original = subject
        if not isinstance(subject, Failure):
            subject = self.ids.from_subject(subject)
        if not failed and not isinstance(subject, Failure):
            normalise(step.request, reference)
            normalise(step.request, subject)
        found = differences(reference, subject)
        left = self.exceptions.remaining(step.name, step.request, found) if found else []
        if left:
            self.fail(step, left, reference, original)
        return None if failed else reference

    # ---- watches -----------------------------------------------------------------------------

    def step_create(self, step):
        compacted = self.generator.compacted
        answers = []
        for side, request in zip(self.streams, (step.request,) * 2):
            side.pending[step.stream] = request
            side.streams[step.stream].send(api.WatchRequest(create_request=request))
        for side in self.streams:
            deadline = time.monotonic() + DUE_SECONDS
            while not side.created[step.stream]:
                if not side.pump(step.stream, deadline - time.monotonic()):
                    break
            answers.append((side.created[step.stream] or [None]).pop())
        self.check(step, *answers, None not in answers, "no answer to the create request")
        answer = self.compare(step, *answers)
        if not answer.canceled:
            for side in self.streams:
                watch = side.watches[step.stream][answer.watch_id]
                watch.compacted_start = watch.start == compacted
                if watch.start < compacted:
                    self.wait_canceled(step, side, watch)
        return answer

    def wait_canceled(self, step, side, watch):
        deadline = time.monotonic() + DUE_SECONDS
        while not watch.canceled:
            if not side.pump(step.stream, deadline - time.monotonic()):
                name = self.servers[self.streams.index(side)].name
                raise Difference("%s\n%s sent no cancellation of\n%s" % (
                    self.where(step), name, watch.request))

    def step_cancel(self, step):
        known = step.request in self.streams[0].watches[step.stream]
        watches = [side.watches[step.stream].get(step.request) for side in self.streams]
        for side in self.streams:
            side.streams[step.stream].send(api.WatchRequest(
                cancel_request=api.WatchCancelRequest(watch_id=step.request)))
        if known:
            for side, watch in zip(self.streams, watches):
                self.wait_canceled(step, side, watch)
            self.compare_logs(step)
            for side in self.streams:
                del side.watches[step.stream][step.request]
        return api.WatchResponse()

    def step_progress(self, step):
        """An answer is due or not; repeated as clients do, lest a slow machine loses one."""
        revision = self.generator.revision
        due = self.generator.progress_due(step.stream)
        for side in self.streams:
            deadline = time.monotonic() + DUE_SECONDS
            while True:
                side.streams[step.stream].send(api.WatchRequest(
                    progress_request=api.WatchProgressRequest()))
                again = time.monotonic() + PROGRESS_SECONDS
                while due and revision not in side.progress[step.stream]:
                    if not side.pump(step.stream, again - time.monotonic()):
                        break
                if not due or revision in side.progress[step.stream]:
                    break
                if time.monotonic() > deadline:
                    name = self.servers[self.streams.index(side)].name
                    raise Difference("%s\n%s does not report progress to revision %d" % (
                        self.where(step), name, revision))
        return None

    def step_barrier(self, step):
        """Waits until both have sent all events there are to send, and compares them."""
        self.history.catch_up(self.generator.revision)
        for stream in range(STREAMS):
            for watch_id in list(self.streams[0].watches[stream]):
                for side in self.streams:
                    watch = side.watches[stream][watch_id]
                    if watch.canceled:
                        continue
                    self.history.due(watch)
                    deadline = time.monotonic() + DUE_SECONDS
                    # Older events than the history knows may come before the ones due.
                    while len(watch.log) < watch.due or watch.newest < watch.due_revision:
                        if not side.pump(stream, deadline - time.monotonic()):
                            name = self.servers[self.streams.index(side)].name
                            raise Difference(
                                "%s\n%s sent %d of %d events of watch %d on stream %d\n%s" % (
                                    self.where(step), name, len(watch.log), watch.due, watch_id,
                                    stream, watch.request))
        for side in self.streams:
            side.pump_all()
        self.compare_logs(step)
        return None

    def compare_logs(self, step):
        for side, server in zip(self.streams, self.servers):
            if side.complaints:
                raise Difference("%s\n%s sent %s" % (self.where(step), server.name,
                                                     side.complaints[0]))
        for stream in range(STREAMS):
            for watch_id, watch in self.streams[0].watches[stream].items():
                other = self.streams[1].watches[stream][watch_id]
                for index in range(watch.compared, min(len(watch.log), len(other.log))):
                    self.compare_item(step, stream, watch_id, index, watch, other)
                    self.events += 1
                    watch.compared = other.compared = index + 1

    def compare_item(self, step, stream, watch_id, index, watch, other):
        one, two = watch.log[index], other.log[index]
        if type(one) is type(two):
            name = "Watch/event" if isinstance(one, api.Event) else "Watch/cancel"
            found = self.exceptions.remaining(name, watch.request, differences(one, two))
            if not found:
                return
        else:
            found = [("kind", type(one).__name__, type(two).__name__)]
        self.tell("Watch", found, "%s\nitem %d of watch %d on stream %d differs\n%s\n%s" % (
            self.where(step), index, watch_id, stream, watch.request,
            self.both(found, one, two)))

    # ---- leases ------------------------------------------------------------------------------

    def step_expire(self, step):
        """Waits until the lease is gone on both; its keys' deletion is one new revision."""
        for client in self.clients:
            deadline = time.monotonic() + DUE_SECONDS
            while client.time_to_live(step.request).TTL >= 0:
                if time.monotonic() > deadline:
                    raise Difference("%s\nthe lease does not expire" % self.where(step))
        self.generator.forget_lease(step.request)
        return self.clients[0].range(b"a")

    def finish(self):
        """Nothing may be left over: same length of every sequence, same progress."""
        step = Finish()
        self.step_barrier(step)
        for stream in range(STREAMS):
            for watch_id, watch in self.streams[0].watches[stream].items():
                other = self.streams[1].watches[stream][watch_id]
                deadline = time.monotonic() + 2
                while len(watch.log) != len(other.log) and time.monotonic() < deadline:
                    for side in self.streams:
                        side.pump(stream, 0.01)
                if len(watch.log) != len(other.log):
                    longer = watch if len(watch.log) > len(other.log) else other
                    extra = longer.log[min(len(watch.log), len(other.log))]
                    raise Difference("watch %d on stream %d: %d items on %s, %d on %s\n%s\n%s"
                                     % (watch_id, stream, len(watch.log), self.servers[0].name,
                                        len(other.log), self.servers[1].name, watch.request,
                                        extra))
            progress = [side.progress[stream] for side in self.streams]
            if progress[0] != progress[1]:
                raise Difference("progress on stream %d: revisions %s on %s, %s on %s" % (
                    stream, progress[0], self.servers[0].name, progress[1],
                    self.servers[1].name))
        self.compare_logs(step)

    # ---- telling -----------------------------------------------------------------------------

    def where(self, step):
        return "request %d: %s" % (self.number, show(step))

    def both(self, found, reference, subject):
        lines = ["differing fields (%s / %s):" % tuple(s.name for s in self.servers)]
        lines += ["  %s: %s / %s" % (path, clip(repr(one), 200), clip(repr(two), 200))
                  for path, one, two in found[:20]]
        for server, answer in zip(self.servers, (reference, subject)):
            lines.append("whole answer of %s:" % server.name)
            lines.append(clip(show(answer), 8000))
        return "\n".join(lines)

    def fail(self, step, found, reference, subject):
        self.tell(step.name, found, "%s\n%s" % (self.where(step),
                                                self.both(found, reference, subject)))

    def tell(self, name, found, text):
        """Ends the run with this difference; or notes the first of its kind, if that is on."""
        if self.noted is None:
            raise Difference(text)
        kind = (name,) + tuple(sorted({re.sub(r"\[\d+\]", "", path) for path, _, _ in found}))
        self.noted.setdefault(kind, text)

    def check(self, step, reference, subject, good, text):
        if not good:
            self.fail(step, [(text, "", "")], reference, subject)


def show(message):
    """The message as text, long keys and values shortened."""
    return re.sub(r'"(?:[^"\\]|\\.){150,}"',
                  lambda found: '%s..." (%d characters)' % (found[0][:80], len(found[0]) - 2),
                  str(message))


class Finish:
    """The step that finish() reports as."""

    kind = "finish"
    stream = 0

    def __str__(self):
        return "after the last one"


def clip(text, limit):
    if len(text) <= limit:
        return text
    return "%s... (%d characters)" % (text[:limit], len(text))

"""generate.py - the seeded generator of the differential test's requests.

Responsible for: choosing requests that visit every corner of the API, valid and invalid ones,
around a small pool of keys so that they meet each other.  It learns the state of the store
(revision, compacted revision, leases, watches) from the reference's answers only, so that a seed
gives one sequence.  Sending is run.py's work, comparing compare.py's.

Entry points: Generator.next() gives a Step, Generator.learn() takes the reference's answer.

Invariants:
 (1) Nothing the generator asks for depends on time: leases either outlive the run, or are
     revoked at once, or are waited for by an "expire" step.
 (2) Before a cancel, the events due are waited for ("barrier"), and before a compaction every
     watch that looks back gets an event, too: until it has caught up, which etcd does some
     time within 100 ms, chance decides whether the compaction cancels it (and whether a
     progress request is answered).

SPDX-License-Identifier: Apache-2.0
"""

import random

from etcdclient import api, prefix_end
from services import Services

BIG = 1572864
STREAMS = 4
COMPACTED_STREAM = 3    # watches below the compacted revision: etcd leaves their ids in use

LONG = b"long/" + b"k" * 600
KEYS = ([b"a", b"a/", b"a/0", b"a/1", b"a/10", b"a/2", b"a0", b"b", b"b/0", b"b/1", b"b/2", b"c"]
        + [b"n/%d" % i for i in range(12)]
        + [b"\x00", b"\x00\x00", b"\x00a", b"\x01", b"a\x00", b"a\x00b", b"a\xff", b"a\xff\xff",
           b"\xff", b"\xff\x00", b"\xff\xff", b"\xff\xffz", b"\x7f\x80", "schl\u00fcssel".encode()]
        + [LONG, LONG + b"\x00", LONG + b"1", LONG + b"2", b"K" * 9000])
BIG_KEYS = [b"big/0", b"big/1", b"big/2"]
SMALL_VALUES = [b"", b"0", b"1", b"10", b"\x00", b"\xff\xfe", b"same"]
LEASES = [1, 2, 3, 7, 10, 99, 1000, 65536, -5]
COUNTERS = [-1, 0, 1, 2, 3, 5, 1 << 40, -(1 << 62), (1 << 63) - 1]


class Step:
    """One thing to do on both servers.

    kind is "call" (name and request), "keepalive" (request), "create", "cancel" or "progress"
    on watch stream number `stream` (request: the create request or the id), "range_stream"
    (compared with the reference's Range), "first" (the first message of a stream), "snapshot",
    "barrier" (wait for all due events) or "expire" (wait for the end of a lease).
    """

    def __init__(self, kind, name="", request=None, stream=0):
        self.kind = kind
        self.name = name
        self.request = request
        self.stream = stream

    def counts(self):
        return self.kind != "barrier"

    def __str__(self):
        where = " on stream %d" % self.stream if self.kind in ("create", "cancel",
                                                               "progress") else ""
        return "%s %s%s:\n%s" % (self.kind, self.name, where, self.request)


def call(name, request):
    return Step("call", name, request)


class Generator:
    def __init__(self, seed, avoid=()):
        """avoid: names of things not to ask for, see exceptions.txt."""
        self.random = random.Random(seed)
        self.avoid = avoid
        self.revision = 1
        self.compacted = 0
        self.leases = []            # known to exist
        self.server_leases = []     # of them, those whose id the server chose
        self.watches = [{} for _ in range(STREAMS)]  # id -> start revision
        self.compacted_watches = 0
        self.looking_back = []      # keys of watches that may not have caught up
        self.counter = 0
        self.queue = []
        self.makers = [
            (30, self.make_range), (26, self.make_put), (10, self.make_delete),
            (26, self.make_txn), (2, self.make_compact), (14, self.make_lease),
            (14, self.make_watch), (1, self.make_scene), (1, self.make_alarm)]
        self.services = Services(self)
        if "services" not in avoid:
            self.makers.append((22, self.make_service))

    # ---- what has become of the store --------------------------------------------------------

    def learn(self, step, response):
        """Takes the reference's answer to a step (None: it was an error)."""
        if response is None:
            return
        revision = getattr(getattr(response, "header", None), "revision", 0)
        self.revision = max(self.revision, revision)
        if step.kind == "create":
            if not response.canceled:
                start = step.request.start_revision
                self.watches[step.stream][response.watch_id] = start
                if 0 < start <= revision and step.stream != COMPACTED_STREAM:
                    self.looking_back.append(step.request.key or b"\0")
        elif step.kind == "cancel":
            self.watches[step.stream].pop(step.request, None)
        elif step.name == "KV/Compact":
            self.compacted = max(self.compacted, step.request.revision)
        elif step.name == "Lease/LeaseGrant":
            self.leases.append(response.ID)
            if step.request.ID == 0:
                self.server_leases.append(response.ID)
        elif step.name == "Lease/LeaseRevoke":
            self.forget_lease(step.request.ID)
        self.services.learn(step, response)

    def forget_lease(self, lease):
        for known in (self.leases, self.server_leases):
            if lease in known:
                known.remove(lease)

    def next(self):
        while not self.queue:
            makers = self.makers
            weights = [weight for weight, _ in makers]
            made = self.random.choices([maker for _, maker in makers], weights)[0]()
            self.queue = made if isinstance(made, list) else [made]
        return self.queue.pop(0)

    # ---- ingredients -------------------------------------------------------------------------

    def chance(self, probability):
        return self.random.random() < probability

    def key(self, empty=0.01):
        if self.chance(empty):
            return b""
        if self.chance(0.03):
            return self.random.choice(BIG_KEYS)
        if self.chance(0.03):
            return bytes(self.random.choice(b"\x00\x01a/\xfe\xff")
                         for _ in range(self.random.randint(1, 4)))
        return self.random.choice(KEYS)

    def range_end(self, key):
        choice = self.random.random()
        if choice < 0.35:
            return b""
        if choice < 0.60:
            return prefix_end(key)
        if choice < 0.75:
            return b"\0"
        if choice < 0.80:
            return key + b"\0"
        if choice < 0.83:
            return key
        return self.random.choice(KEYS)

    def key_range(self, empty=0.01):
        if self.chance(0.12):
            return b"\0", b"\0"
        key = self.key(empty)
        return key, self.range_end(key)

    def value(self, key=b""):
        self.counter += 1
        if key in BIG_KEYS and self.chance(0.5):
            return b"%d:" % self.counter + b"x" * self.random.randint(1000, 100000)
        if self.chance(0.25):
            return self.random.choice(SMALL_VALUES)
        if self.chance(0.05):
            return bytes(self.random.randrange(256) for _ in range(200))
        return b"value %d" % self.counter

    def some_revision(self):
        """A revision to read at: of now, of the past, of the future, gone, and odd ones."""
        choice = self.random.random()
        if choice < 0.60:
            return self.random.randint(max(self.compacted, 1), self.revision)
        if choice < 0.70:
            return self.compacted
        if choice < 0.76:
            return max(self.compacted - 1, 0)
        if choice < 0.82:
            return self.random.randint(0, max(self.compacted, 1))
        if choice < 0.90:
            return self.revision + self.random.randint(0, 3)
        if choice < 0.95:
            return -self.random.randint(1, 5)
        return self.random.choice([1, 1 << 40, (1 << 63) - 1])

    def lease(self, missing=0.1):
        if not self.leases or self.chance(missing):
            return self.random.choice(LEASES + [123456])
        return self.random.choice(self.leases)

    # ---- KV ----------------------------------------------------------------------------------

    def range_request(self):
        rnd = self.random
        key, end = self.key_range()
        request = api.RangeRequest(key=key, range_end=end)
        if self.chance(0.35):
            request.limit = rnd.choice([1, 1, 2, 3, 5, 10, 100, -1])
        if self.chance(0.35):
            request.revision = self.some_revision()
        if self.chance(0.45):
            request.sort_order = rnd.randrange(3)
            request.sort_target = rnd.randrange(5)
            if self.chance(0.03) and "sort-enum" not in self.avoid:
                request.sort_order = rnd.choice([3, 77, -1])
            if self.chance(0.03) and "sort-enum" not in self.avoid:
                request.sort_target = rnd.choice([5, 200, -2])
        request.serializable = self.chance(0.2)
        request.keys_only = self.chance(0.12)
        request.count_only = self.chance(0.10)
        if self.chance(0.25):
            for field in ("min_mod_revision", "max_mod_revision", "min_create_revision",
                          "max_create_revision"):
                if self.chance(0.35):
                    setattr(request, field, rnd.choice(
                        [rnd.randint(1, self.revision + 1), rnd.randint(1, self.revision + 1),
                         rnd.randint(1, self.revision + 1), -1, 1 << 40]))
        return request

    def make_service(self):
        return Step(*self.services.make())

    def every_service(self):
        """Every request of the services that has few forms; nothing if they are avoided."""
        if "services" not in self.avoid:
            for kind, name, request in self.services.every():
                yield Step(kind, name, request)

    def make_range(self):
        return call("KV/Range", self.range_request())

    def put_request(self):
        key = self.key()
        request = api.PutRequest(key=key, value=self.value(key))
        if self.chance(0.25):
            request.lease = self.lease()
        request.prev_kv = self.chance(0.3)
        if self.chance(0.08):
            request.ignore_value = True
            if self.chance(0.8):
                request.value = b""
        if self.chance(0.08):
            request.ignore_lease = True
            if self.chance(0.8):
                request.lease = 0
        return request

    def make_put(self):
        return call("KV/Put", self.put_request())

    def delete_request(self):
        if self.chance(0.55):
            key, end = self.key(), b""
        else:
            key, end = self.key_range()
            if end == b"\0" and self.chance(0.7):
                end = prefix_end(key)
        return api.DeleteRangeRequest(key=key, range_end=end, prev_kv=self.chance(0.4))

    def make_delete(self):
        return call("KV/DeleteRange", self.delete_request())

    def make_compact(self):
        return self.catch_up() + [self.compact_request()]

    def compact_request(self):
        choice = self.random.random()
        if choice < 0.6:
            revision = self.random.randint(max(self.compacted, 1), self.revision)
            # Keep some history: most reads of the past shall find something.
            revision = max(self.compacted + 1, min(revision, self.revision - 40))
        elif choice < 0.65:
            revision = self.revision
        else:
            revision = self.random.choice([0, self.compacted, self.compacted - 1, -3,
                                           self.revision + 1, 1 << 50])
        return call("KV/Compact", api.CompactionRequest(revision=revision,
                                                        physical=self.chance(0.5)))

    def catch_up(self):
        steps = []
        for key in sorted(set(self.looking_back)):
            steps += [call("KV/Put", api.PutRequest(key=key, value=self.value(key))),
                      call("KV/DeleteRange", api.DeleteRangeRequest(key=key))]
        self.looking_back = []
        return steps + [Step("barrier")]

    # ---- transactions ------------------------------------------------------------------------

    def compare(self):
        rnd = self.random
        compare = api.Compare(result=rnd.randrange(4), target=rnd.randrange(5))
        if self.chance(0.15):
            compare.key, compare.range_end = self.key_range(0.02)
        else:
            compare.key = self.key(0.01)
        # Half of them hold by design, or the success branch would hardly ever be seen.
        if self.chance(0.5):
            compare.result, compare.target = rnd.choice([(1, 2), (2, 2), (3, 0), (3, 3), (2, 1)])
        target = compare.target
        if self.chance(0.02):
            target = rnd.randrange(5)
        if self.chance(0.04):
            return compare
        if target == 0:
            compare.version = rnd.choice([0, 1, 1, 2, 3] + COUNTERS)
        elif target in (1, 2):
            value = rnd.choice([0, 0, self.revision, rnd.randint(1, self.revision + 1),
                                self.revision + 1, rnd.choice(COUNTERS)])
            if target == 1:
                compare.create_revision = value
            else:
                compare.mod_revision = value
        elif target == 3:
            compare.value = rnd.choice(SMALL_VALUES + [b"value", b"value 5"])
        else:
            compare.lease = self.lease(0.5)
            if compare.lease in self.server_leases and compare.target == 4:
                # Which of two ids that the servers chose is greater is theirs to choose.
                compare.result = rnd.choice([0, 3])
        if self.chance(0.01):
            if self.chance(0.5):
                compare.result = 9
            else:
                compare.target = 9
        return compare

    def operation(self, depth):
        choice = self.random.random()
        if choice < 0.30:
            return api.RequestOp(request_range=self.range_request())
        if choice < 0.68:
            return api.RequestOp(request_put=self.put_request())
        if choice < 0.82:
            return api.RequestOp(request_delete_range=self.delete_request())
        if choice < 0.83:
            return api.RequestOp()
        if depth == 0:
            return api.RequestOp(request_put=self.put_request())
        return api.RequestOp(request_txn=self.transaction(depth - 1))

    def transaction(self, depth):
        rnd = self.random
        request = api.TxnRequest()
        request.compare.extend(self.compare() for _ in range(rnd.choice([0, 1, 1, 1, 2, 3])))
        for branch in (request.success, request.failure):
            branch.extend(self.operation(depth) for _ in range(rnd.choice([0, 1, 1, 2, 3, 4])))
        return request

    def make_txn(self):
        careless = self.chance(0.12)
        for _ in range(40):
            request = self.transaction(self.random.choice([0, 0, 0, 1, 1, 2, 4]))
            if careless or not spoiled(request, self.compacted, self.revision, self.leases):
                break
        return call("KV/Txn", request)

    # ---- leases ------------------------------------------------------------------------------

    def make_lease(self):
        rnd = self.random
        choice = rnd.random()
        if choice < 0.30:
            lease = 0 if self.chance(0.3) else rnd.choice(LEASES)
            ttl = rnd.choice([600, 1200, 5000, 100000, 9000000000])
            if len(self.leases) > 12 and lease == 0:
                lease = LEASES[0]
            return call("Lease/LeaseGrant", api.LeaseGrantRequest(TTL=ttl, ID=lease))
        if choice < 0.34:
            return call("Lease/LeaseGrant", api.LeaseGrantRequest(
                TTL=rnd.choice([9000000001, 1 << 40, (1 << 63) - 1]), ID=rnd.choice(LEASES)))
        if choice < 0.38:
            # The smallest granted time, gone before it passes (invariant 1).
            lease = 4000 + self.counter
            self.counter += 1
            return [call("Lease/LeaseGrant", api.LeaseGrantRequest(
                        TTL=rnd.choice([0, -1, -100, 1, 2]), ID=lease)),
                    call("Lease/LeaseRevoke", api.LeaseRevokeRequest(ID=lease))]
        if choice < 0.50:
            return call("Lease/LeaseRevoke", api.LeaseRevokeRequest(ID=self.lease(0.3)))
        if choice < 0.68:
            return Step("keepalive", "Lease/LeaseKeepAlive",
                        api.LeaseKeepAliveRequest(ID=self.lease(0.3)))
        if choice < 0.90:
            return call("Lease/LeaseTimeToLive", api.LeaseTimeToLiveRequest(
                ID=self.lease(0.2), keys=self.chance(0.7)))
        return call("Lease/LeaseLeases", api.LeaseLeasesRequest())

    # ---- alarms ------------------------------------------------------------------------------

    def alarm(self, action=None, kind=None, member=None):
        rnd = self.random
        return call("Maintenance/Alarm", api.AlarmRequest(
            action=rnd.choice([0, 0, 1, 2]) if action is None else action,
            alarm=rnd.choice([0, 1, 2, 9]) if kind is None else kind,
            memberID=rnd.choice([0, 42, (1 << 64) - 1]) if member is None else member))

    def make_alarm(self):
        """Requests of all kinds while some alarm is up; none is left."""
        rnd = self.random
        kinds = rnd.choice([[1], [1], [2], [1, 2], [9]])
        status = call("Maintenance/Status", api.StatusRequest())
        # Before: what lets watches catch up is refused under the alarm.
        steps = self.catch_up() + [self.alarm(0), status]
        steps += [self.alarm(1, kind, rnd.choice([0, 42])) for kind in kinds]
        reads = api.TxnRequest(success=[api.RequestOp(request_range=api.RangeRequest(key=b"a"))])
        steps += [call("KV/Txn", reads), call("KV/Txn", api.TxnRequest(
            success=[api.RequestOp(request_txn=reads)]))]
        for _ in range(rnd.randint(3, 12)):
            made = rnd.choice([self.make_range, self.make_put, self.make_txn, self.make_delete,
                               self.make_lease, self.compact_request])()
            steps += made if isinstance(made, list) else [made]
        steps += [self.alarm(rnd.choice([0, 2]), 0), status]
        steps += [self.alarm(2, kind, member) for kind in kinds for member in (0, 42)]
        return steps + [self.alarm(0, 0), status]

    # ---- watches -----------------------------------------------------------------------------

    def watch_request(self):
        rnd = self.random
        key, end = self.key_range(0.1)
        if not key and self.chance(0.5):
            end = b"\0"
        request = api.WatchCreateRequest(key=key, range_end=end)
        choice = rnd.random()
        if choice < 0.35:
            request.start_revision = 0
        elif choice < 0.70:
            request.start_revision = rnd.randint(max(self.compacted, 1), self.revision)
        elif choice < 0.76:
            request.start_revision = self.compacted
        elif choice < 0.90:
            request.start_revision = self.revision + rnd.randint(0, 3)
        elif choice < 0.96:
            request.start_revision = self.revision + rnd.randint(4, 30)
        elif "negative-start" not in self.avoid:
            request.start_revision = -rnd.randint(1, 3)
        if self.chance(0.3):
            both = [[0, 1]] if request.start_revision == 0 else []
            request.filters.extend(rnd.choice([[0], [1], [1, 1], [5]] + both))
        request.prev_kv = self.chance(0.5)
        request.progress_notify = self.chance(0.2)
        request.fragment = self.chance(0.2)
        if self.chance(0.3):
            request.watch_id = rnd.choice([1, 2, 3, 5, 8, 1000, 1 << 40, -1, -7])
        return request

    def make_watch(self):
        rnd = self.random
        stream = rnd.randrange(STREAMS)
        if stream == COMPACTED_STREAM:
            if self.compacted < 2 or self.compacted_watches >= 10:
                return self.make_range()
            self.compacted_watches += 1
            key, end = self.key_range(0)
            return Step("create", "Watch", api.WatchCreateRequest(
                key=key, range_end=end, start_revision=rnd.randint(1, self.compacted - 1)),
                stream)
        watches = self.watches[stream]
        choice = rnd.random()
        if choice < 0.55 or not watches:
            if len(watches) >= 8:
                return self.cancel(stream, rnd.choice(sorted(watches)))
            return Step("create", "Watch", self.watch_request(), stream)
        if choice < 0.75:
            return self.cancel(stream, rnd.choice(sorted(watches)))
        if choice < 0.80:
            return self.cancel(stream, rnd.choice([77, -9, 1 << 50]))
        if "progress" in self.avoid:
            return self.make_range()
        # The refused create makes sure that the progress request was taken before anything else.
        # The range tells the newest revision, which the answer to a repeated campaign does not.
        return self.catch_up() + [
            call("KV/Range", api.RangeRequest(key=b"a", count_only=True)),
            Step("progress", "Watch", None, stream),
            Step("create", "Watch", api.WatchCreateRequest(key=b"b", range_end=b"a"), stream)]

    def progress_due(self, stream):
        """Whether a progress request on the stream must be answered now, or must not."""
        watches = self.watches[stream]
        return bool(watches) and all(start <= self.revision for start in watches.values())

    @staticmethod
    def cancel(stream, watch_id):
        return [Step("barrier"), Step("cancel", "Watch", watch_id, stream)]

    # ---- longer stories ----------------------------------------------------------------------

    def make_scene(self):
        return self.random.choice([
            self.scene_too_large, self.scene_many_operations, self.scene_sibling_put_delete,
            self.scene_nested_budget, self.scene_lease_moves, self.scene_ignore_flags])()

    def scene_too_large(self):
        key = self.random.choice(BIG_KEYS)
        put = api.PutRequest(key=key, value=b"y" * (BIG + 4096))
        return [call("KV/Put", put),
                call("KV/Txn", api.TxnRequest(success=[api.RequestOp(request_put=put)])),
                call("KV/Put", api.PutRequest(key=key, value=b"y" * (2 * 1024 * 1024 + 4096))),
                call("KV/Put", api.PutRequest(key=key, value=b"y" * (BIG - 4096))),
                call("KV/Range", api.RangeRequest(key=key)),
                call("KV/Put", api.PutRequest(key=key, value=b"small again", prev_kv=True)),
                call("KV/DeleteRange", api.DeleteRangeRequest(key=b"q" * (BIG + 4096)))]

    def scene_many_operations(self):
        """128 operations are taken, 129 are not; whichever list they stand in."""
        steps = []
        for number in (128, 129):
            puts = [api.RequestOp(request_put=api.PutRequest(
                key=b"many/%03d" % i, value=self.value())) for i in range(number)]
            steps.append(call("KV/Txn", api.TxnRequest(success=puts)))
            compares = [api.Compare(key=b"a", target=0, result=1, version=-1)
                        for _ in range(number)]
            steps.append(call("KV/Txn", api.TxnRequest(compare=compares)))
            ranges = [api.RequestOp(request_range=api.RangeRequest(key=b"a"))] * number
            steps.append(call("KV/Txn", api.TxnRequest(failure=ranges)))
        steps.append(call("KV/DeleteRange", api.DeleteRangeRequest(
            key=b"many/", range_end=prefix_end(b"many/"))))
        return steps

    def scene_nested_budget(self):
        """A nested transaction has what its parent's lists leave of the 128."""
        steps = []
        for inner in (126, 127):
            gets = [api.RequestOp(request_range=api.RangeRequest(key=b"a", count_only=True))
                    for _ in range(inner)]
            nested = api.RequestOp(request_txn=api.TxnRequest(success=gets))
            other = api.RequestOp(request_range=api.RangeRequest(key=b"b"))
            steps.append(call("KV/Txn", api.TxnRequest(success=[nested, other])))
        return steps

    def scene_sibling_put_delete(self):
        key = self.key(0)
        put = api.RequestOp(request_txn=api.TxnRequest(success=[
            api.RequestOp(request_put=api.PutRequest(key=key, value=self.value()))]))
        delete = api.RequestOp(request_txn=api.TxnRequest(success=[
            api.RequestOp(request_delete_range=api.DeleteRangeRequest(key=key, prev_kv=True)),
            api.RequestOp(request_range=api.RangeRequest(key=key))]))
        other = api.RequestOp(request_put=api.PutRequest(key=b"c", value=self.value()))
        if key == b"c":
            other = api.RequestOp(request_range=api.RangeRequest(key=b"c"))
        return [call("KV/Txn", api.TxnRequest(success=[put, delete, other])),
                call("KV/Txn", api.TxnRequest(success=[put, delete])),
                call("KV/Txn", api.TxnRequest(success=[delete, put])),
                call("KV/Range", api.RangeRequest(key=key)),
                call("KV/Put", api.PutRequest(key=key, value=b"after", prev_kv=True))]

    def scene_lease_moves(self):
        """A key goes from lease to lease; the one it left has it no more."""
        first, second = 5001, 5002
        keys = [b"n/1", b"n/2", b"n/3"]
        grant = [call("Lease/LeaseGrant", api.LeaseGrantRequest(TTL=3000, ID=lease))
                 for lease in (first, second)]
        puts = [call("KV/Put", api.PutRequest(key=key, value=b"l", lease=first)) for key in keys]
        moves = [call("KV/Put", api.PutRequest(key=keys[0], value=b"m", lease=second)),
                 call("KV/Put", api.PutRequest(key=keys[1], value=b"m", ignore_lease=True)),
                 call("KV/DeleteRange", api.DeleteRangeRequest(key=keys[2]))]
        look = [call("Lease/LeaseTimeToLive", api.LeaseTimeToLiveRequest(ID=lease, keys=True))
                for lease in (first, second)]
        revoke = [call("Lease/LeaseRevoke", api.LeaseRevokeRequest(ID=lease))
                  for lease in (first, second)]
        return grant + puts + look + moves + look + revoke + look

    def scene_ignore_flags(self):
        key = self.random.choice(KEYS)
        return [call("KV/Put", api.PutRequest(key=key, value=b"kept")),
                call("KV/Put", api.PutRequest(key=key, ignore_value=True, prev_kv=True)),
                call("KV/Put", api.PutRequest(key=key, ignore_value=True, ignore_lease=True)),
                call("KV/Range", api.RangeRequest(key=key)),
                call("KV/Txn", api.TxnRequest(success=[
                    api.RequestOp(request_put=api.PutRequest(key=key, ignore_value=True,
                                                             prev_kv=True)),
                    api.RequestOp(request_range=api.RangeRequest(key=key))])),
                call("KV/DeleteRange", api.DeleteRangeRequest(key=key)),
                call("KV/Put", api.PutRequest(key=key, ignore_value=True)),
                call("KV/Put", api.PutRequest(key=key, value=b"x", ignore_lease=True)),
                call("KV/Txn", api.TxnRequest(success=[
                    api.RequestOp(request_put=api.PutRequest(key=b"b", value=b"not kept")),
                    api.RequestOp(request_put=api.PutRequest(key=key + b"0",
                                                             ignore_value=True))]))]

    def opening(self):
        """What is asked of the empty store, before the random part."""
        compact = [call("KV/Compact", api.CompactionRequest(revision=revision))
                   for revision in (2, -1, 0, 0, 1, 1)]
        return [call("KV/Range", api.RangeRequest(key=b"\0", range_end=b"\0")),
                call("KV/DeleteRange", api.DeleteRangeRequest(key=b"\0", range_end=b"\0")),
                call("KV/Txn", api.TxnRequest()),
                call("Lease/LeaseLeases", api.LeaseLeasesRequest()),
                Step("create", "Watch", api.WatchCreateRequest(key=b"a", start_revision=1), 0),
                call("KV/Put", api.PutRequest(key=b"a", value=b"first")),
                Step("barrier")] + compact

    def ending(self):
        """After the random part: keys that die with their lease, then every revision once."""
        steps = [call("Lease/LeaseGrant", api.LeaseGrantRequest(TTL=2, ID=6001)),
                 Step("create", "Watch", api.WatchCreateRequest(
                     key=b"n/", range_end=prefix_end(b"n/"), prev_kv=True), 0)]
        steps += [call("KV/Put", api.PutRequest(key=key, value=b"dies", lease=6001))
                  for key in (b"n/3", b"n/1", b"n/2")]
        steps += [call("KV/DeleteRange", api.DeleteRangeRequest(key=b"n/2")),
                  Step("expire", "Lease", 6001),
                  call("Lease/LeaseTimeToLive", api.LeaseTimeToLiveRequest(ID=6001, keys=True))]
        # A history for one watcher that is larger than a message may be without fragments.
        steps += [call("KV/Put", api.PutRequest(key=b"big/f", value=b"%02d" % i + b"f" * 90000))
                  for i in range(30)]
        for fragment in (False, True):
            steps.append(Step("create", "Watch", api.WatchCreateRequest(
                key=b"big/f", start_revision=self.revision, prev_kv=True, fragment=fragment), 1))
        steps.append(Step("barrier"))
        return steps

    def sweep(self, number):
        """Reads of everything at up to that many revisions, the oldest and newest included."""
        first = max(self.compacted, 1)
        step = max(1, (self.revision - first) // number)
        revisions = sorted(set(range(first, self.revision + 1, step))
                           | {first, self.revision, first - 1, self.revision + 1})
        return [call("KV/Range", api.RangeRequest(key=b"\0", range_end=b"\0",
                                                  revision=revision))
                for revision in revisions if revision > 0]

    def after_restart(self):
        """The store is as it was; leases have their whole time again; watches find the past."""
        steps = self.sweep(50)
        first = max(self.compacted, 1) + 1
        for number in range(8):
            start = self.random.randint(first, self.revision)
            steps.append(Step("create", "Watch", api.WatchCreateRequest(
                key=b"\0", range_end=b"\0", start_revision=start, prev_kv=number % 2 == 0),
                number % COMPACTED_STREAM))
        steps += [call("Lease/LeaseTimeToLive", api.LeaseTimeToLiveRequest(ID=lease, keys=True))
                  for lease in sorted(self.leases)]
        steps.append(call("KV/Put", api.PutRequest(key=b"a", value=b"again", prev_kv=True)))
        steps.append(Step("barrier"))
        return steps


def spoiled(request, compacted, revision, leases):
    """Whether the transaction is (nearly) sure to be refused as a whole.

    Random ones mostly are: by a duplicate key, a missing lease, a revision that is gone.  Most
    of those are thrown away here, so that transactions change something; the careless ones keep
    the errors in the test.
    """
    puts = []
    deletes = []

    def look(branch):
        for operation in branch:
            kind = operation.WhichOneof("request")
            if kind is None:
                return True
            if kind == "request_txn":
                if look(operation.request_txn.success) or look(operation.request_txn.failure):
                    return True
                continue
            one = getattr(operation, kind)
            if not one.key:
                return True
            if kind == "request_put":
                if one.key in puts or (one.lease and one.lease not in leases):
                    return True
                if one.ignore_lease or one.ignore_value:
                    return True
                puts.append(one.key)
            elif kind == "request_delete_range":
                deletes.append((one.key, one.range_end))
            elif one.revision > revision or 0 < one.revision < compacted:
                return True
            elif one.sort_order not in range(3) or one.sort_target not in range(5):
                return True
        return False

    if any(not compare.key for compare in request.compare):
        return True
    if look(request.success):
        return True
    in_success = puts
    puts = []
    if look(request.failure):
        return True
    return any(covers(delete, key) for delete in deletes for key in puts + in_success)


def covers(key_range, key):
    first, end = key_range
    if not end:
        return key == first
    return key >= first and (end == b"\0" or key < end)

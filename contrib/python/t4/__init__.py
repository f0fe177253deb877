"""t4: a t4 database inside a Python program, over libt4.

    with t4.open("/tmp/data") as db:
        db.put("a", "1")
        db.get("a").value                                   # b"1", None without the key
        [kv.key for kv in db.range(prefix="a")]
        db.transaction(compare=[t4.version("a") == 1],
                       success=[t4.put("a", "2")], failure=[t4.get("a")]).succeeded

Keys and values are bytes (str: UTF-8).  A range is a key, or start= and end= (without end; None:
no upper bound), or prefix=; nothing at all: every key.

Threads: a Database, and everything it has made, may be used by several threads; a Watch and an
iteration by one at a time.  After os.fork() a child must open a database of its own.

SPDX-License-Identifier: Apache-2.0
"""

import collections
import os
import sys
import weakref

from t4 import _where
from t4._t4 import ffi

_lib = ffi.dlopen(os.environ.get("T4_LIBRARY") or _where.LIBRARY)

__all__ = ["open", "Database", "Snapshot", "Watch", "Lease", "KeyValue", "Event", "Result",
           "Error", "put", "get", "delete", "version", "mod_revision", "create_revision", "value",
           "lease", "library_version"]


# ---- errors ---------------------------------------------------------------------------------

class Error(Exception):
    """What the library said: status (an int), message, hint."""

    def __init__(self, status, message, hint=""):
        super().__init__(message + (" (%s)" % hint if hint else ""))
        self.status, self.message, self.hint = status, message, hint


class NotFound(Error, LookupError):
    """There is no such key, lease or plugin."""


class Exists(Error):
    """The lease exists already."""


class Busy(Error):
    """Too much is under way, or the directory is open elsewhere: nothing was done."""


class Timeout(Error, TimeoutError):
    """Nothing came in time."""


class UnknownOutcome(Error):
    """The write may or may not have happened."""


class Unavailable(Error):
    """The object store does not answer, or another process leads."""


class Invalid(Error, ValueError):
    """An argument is impossible."""


class Corrupt(Error):
    """Something that is stored is damaged."""


class NoSpace(Error):
    """The disk is full."""


class Failed(Error):
    """Log or storage failed; the database is to be closed."""


class Compacted(Error):
    """The revision was compacted."""


class FutureRevision(Error):
    """The revision does not exist yet."""


class Closed(Error):
    """The database or the watch was closed."""


_ERRORS = {_lib.T4_E_NOTFOUND: NotFound, _lib.T4_E_EXISTS: Exists, _lib.T4_E_BUSY: Busy,
           _lib.T4_E_TIMEOUT: Timeout, _lib.T4_E_UNKNOWN: UnknownOutcome,
           _lib.T4_E_UNAVAILABLE: Unavailable, _lib.T4_E_INVALID: Invalid,
           _lib.T4_E_CORRUPT: Corrupt, _lib.T4_E_NOSPACE: NoSpace, _lib.T4_E_IO: Failed,
           _lib.T4_E_COMPACTED: Compacted, _lib.T4_E_FUTURE: FutureRevision,
           _lib.T4_E_CLOSED: Closed}


def _text(chars):
    return ffi.string(chars).decode("utf-8", "replace")


def _error(status, error):
    kind = _ERRORS.get(status, Error)
    if error == ffi.NULL or error.status != status:
        return kind(status, _text(_lib.t4_status_text(status)))
    return kind(status, _text(error.message), _text(error.hint))


def _check(status, error=ffi.NULL):
    if status < 0:
        raise _error(status, error)
    return status


def library_version():
    return _text(_lib.t4_version())


# ---- bytes, ranges, results -----------------------------------------------------------------

class _Call:
    """The C values of one call, kept alive as long as this is."""

    def __init__(self):
        self.kept = []
        self.error = ffi.new("t4_error *")

    def slice(self, data):
        if isinstance(data, str):
            data = data.encode()
        buffer = ffi.from_buffer("uint8_t[]", data if data else b"")
        self.kept.append(buffer)
        return ffi.new("struct t4_slice *", {"data": buffer, "len": len(data)})[0]

    def range(self, key=None, start=None, end=None, prefix=None):
        if sum(x is not None for x in (key, start if start is not None else end, prefix)) > 1:
            raise ValueError("give one of key, start and end, prefix")
        if key is not None:
            return self.slice(key), self.slice(b"")
        if prefix is not None and len(prefix) > 0:
            first = self.slice(prefix)
            room = ffi.new("uint8_t[]", first.len + 1)
            self.kept.append(room)
            return first, _lib.t4_prefix_end(first, room)
        return (self.slice(start if start else b"\0"),
                self.slice(b"\0" if end is None else end))

    def struct(self, name, **members):
        made = ffi.new(name + " *")
        made.size = ffi.sizeof(name)
        for member, given in members.items():
            setattr(made, member, given)
        self.kept.append(made)
        return made

    def check(self, status):
        return _check(status, self.error)


KeyValue = collections.namedtuple(
    "KeyValue", "key value create_revision mod_revision version lease")
Event = collections.namedtuple("Event", "type key value kv prev")
Event.__doc__ = "type: 'put' or 'delete'; kv, and prev if it was asked for, are KeyValues."
Result = collections.namedtuple("Result", "revision succeeded count more kvs results")
Result.__doc__ = "results: of a transaction's operations."


def _bytes(s):
    return ffi.buffer(s.data, s.len)[:] if s.len else b""


def _kv(kv):
    return KeyValue(_bytes(kv.key), _bytes(kv.value), kv.create_revision, kv.mod_revision,
                    kv.version, kv.lease)


def _result(r):
    return Result(r.revision, bool(r.succeeded), r.count, bool(r.more),
                  [_kv(r.kvs[i]) for i in range(r.n_kvs)],
                  [_result(r.results[i]) for i in range(r.n_results)])


def _take(pointer, convert):
    """Converts what the library has given, and frees it."""
    try:
        return convert(pointer[0])
    finally:
        _lib.t4_free(pointer[0])


def _event(e):
    kv = _kv(e.kv)
    return Event("delete" if e.type == _lib.T4_EVENT_DELETE else "put", kv.key, kv.value, kv,
                 _kv(e.prev) if e.prev != ffi.NULL else None)


def _events(events):
    return events.revision, [_event(events.events[i]) for i in range(events.n_events)]


# ---- transactions ---------------------------------------------------------------------------

_RELATIONS = {"==": _lib.T4_EQUAL, "!=": _lib.T4_NOT_EQUAL, ">": _lib.T4_GREATER,
              "<": _lib.T4_LESS}
Comparison = collections.namedtuple("Comparison", "key target relation operand")


class _Target:
    def __init__(self, key, target):
        self.key, self.target = key, target

    def _compare(self, relation, operand):
        return Comparison(self.key, self.target, _RELATIONS[relation], operand)

    def __eq__(self, operand):
        return self._compare("==", operand)

    def __ne__(self, operand):
        return self._compare("!=", operand)

    def __gt__(self, operand):
        return self._compare(">", operand)

    def __lt__(self, operand):
        return self._compare("<", operand)

    __hash__ = None


def version(key):
    """t4.version(key) == 0: the key is not there."""
    return _Target(key, _lib.T4_COMPARE_VERSION)


def mod_revision(key):
    return _Target(key, _lib.T4_COMPARE_MOD)


def create_revision(key):
    return _Target(key, _lib.T4_COMPARE_CREATE)


def lease(key):
    return _Target(key, _lib.T4_COMPARE_LEASE)


def value(key):
    return _Target(key, None)


def put(key, value, lease=0, prev_kv=False):
    """An operation of a transaction, as get() and delete()."""
    def add(call, txn, branch):
        options = call.struct("t4_write_options", lease=getattr(lease, "id", lease),
                              flags=_lib.T4_PREV_KV if prev_kv else 0)
        _lib.t4_txn_put(txn, branch, call.slice(key), call.slice(value), options)
    return add


def get(key=None, limit=0, keys_only=False, **where):
    def add(call, txn, branch):
        options = call.struct("t4_read_options", limit=limit,
                              flags=_lib.T4_KEYS_ONLY if keys_only else 0)
        _lib.t4_txn_range(txn, branch, *call.range(key, **where), options)
    return add


def delete(key=None, prev_kv=False, **where):
    def add(call, txn, branch):
        options = call.struct("t4_write_options", flags=_lib.T4_PREV_KV if prev_kv else 0)
        _lib.t4_txn_delete(txn, branch, *call.range(key, **where), options)
    return add


# ---- the database ---------------------------------------------------------------------------

_LEVELS = {"error": _lib.T4_LOG_ERROR, "warn": _lib.T4_LOG_WARN, "info": _lib.T4_LOG_INFO,
           "debug": _lib.T4_LOG_DEBUG}
_open_file = open


def open(path, log=None, log_level="info", on_failure=None, **options):
    """Opens the database in a directory, which is made if it is not there.

    Options are those of libt4, with __ for the dot: storage_engine="memory",
    object_store="s3://bucket/prefix", lmdb__map_size="1 GB".  log(level, event) is called on
    any thread; on_failure(error) once, if the database fails for good.
    """
    return Database(path, log, log_level, on_failure, options)


class Database:
    def __init__(self, path, log, log_level, on_failure, options):
        call = _Call()
        out = ffi.new("t4_db **")
        self._callbacks = []
        self._open = weakref.WeakSet()
        given = _lib.t4_options_new()
        try:
            for name, text in options.items():
                text = str(text).lower() if isinstance(text, bool) else str(text)
                _lib.t4_options_set(given, name.replace("__", ".").encode(), text.encode())
            if log is not None:
                names = {number: name for name, number in _LEVELS.items()}
                self._keep("t4_log_fn", lambda _, level, event: log(
                    names.get(level, str(level)), _text(event)))
                _lib.t4_options_set_log(given, _LEVELS[log_level], self._callbacks[-1], ffi.NULL)
            if on_failure is not None:
                self._keep("t4_failed_fn", lambda _, error: on_failure(
                    _error(error.status, error)))
                _lib.t4_options_set_failed(given, self._callbacks[-1], ffi.NULL)
            call.check(_lib.t4_open(os.fsencode(path), given, out, call.error))
        finally:
            _lib.t4_options_free(given)
        self._db = out[0]

    def _keep(self, kind, function):
        self._callbacks.append(ffi.callback(kind + " *", function))
        return self._callbacks[-1]

    @property
    def _handle(self):
        if self._db is None:
            raise Closed(_lib.T4_E_CLOSED, "the database is closed")
        return self._db

    def close(self):
        """Ends everything; not from within a callback.  May be called again."""
        if self._db is None:
            return
        _check(_lib.t4_close(self._db))
        self._db = None

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.close()

    def __del__(self):
        if getattr(self, "_db", None) is not None and not sys.is_finalizing():
            _lib.t4_close(self._db)
            self._db = None

    # -- writes

    def _write(self, function, a, b, lease, flags, call):
        out = ffi.new("t4_result **")
        options = call.struct("t4_write_options", lease=getattr(lease, "id", lease), flags=flags)
        call.check(function(self._handle, a, b, options, out, call.error))
        return _take(out, _result)

    def put(self, key, value, lease=0, prev_kv=False, object_durable=False):
        """Durable when it returns.  Gives the revision; with prev_kv (revision, KeyValue)."""
        call = _Call()
        flags = (_lib.T4_PREV_KV * prev_kv) | (_lib.T4_OBJECT_DURABLE * object_durable)
        r = self._write(_lib.t4_put, call.slice(key), call.slice(value), lease, flags, call)
        return (r.revision, r.kvs[0] if r.kvs else None) if prev_kv else r.revision

    def delete(self, key=None, object_durable=False, **where):
        """Gives how many keys were deleted."""
        call = _Call()
        first, end = call.range(key, **where)
        flags = _lib.T4_OBJECT_DURABLE * object_durable
        return self._write(_lib.t4_delete, first, end, 0, flags, call).count

    def __setitem__(self, key, value):
        self.put(key, value)

    def __delitem__(self, key):
        if self.delete(key) == 0:
            raise KeyError(key)

    def transaction(self, compare=(), success=(), failure=(), object_durable=False):
        """compare: t4.version(k) == 1 ...; success, failure: t4.put(), get(), delete()."""
        call = _Call()
        txn = _lib.t4_txn_new(self._handle)
        out = ffi.new("t4_result **")
        try:
            for c in compare:
                first, end = call.slice(c.key), call.slice(b"")
                if c.target is None:
                    _lib.t4_txn_compare_value(txn, first, end, c.relation, call.slice(c.operand))
                else:
                    _lib.t4_txn_compare(txn, first, end, c.target, c.relation,
                                        getattr(c.operand, "id", c.operand))
            for branch, operations in ((_lib.T4_SUCCESS, success), (_lib.T4_FAILURE, failure)):
                for add in operations:
                    add(call, txn, branch)
            flags = _lib.T4_OBJECT_DURABLE * object_durable
            call.check(_lib.t4_txn_commit(txn, flags, out, call.error))
        finally:
            _lib.t4_txn_free(txn)
        return _take(out, _result)

    def barrier(self, object_durable=False):
        call = _Call()
        flags = _lib.T4_OBJECT_DURABLE * object_durable
        call.check(_lib.t4_barrier(self._handle, flags, call.error))

    def compact(self, revision, physical=False):
        call = _Call()
        flags = _lib.T4_PHYSICAL * physical
        call.check(_lib.t4_compact(self._handle, revision, flags, call.error))

    def defragment(self):
        """Gives back to the file system what the storage engine's file does not use."""
        call = _Call()
        call.check(_lib.t4_defragment(self._handle, call.error))

    # -- reads

    def get(self, key, revision=0, default=None, snapshot=None):
        """The KeyValue, or `default` if there is no such key."""
        call = _Call()
        out = ffi.new("t4_kv **")
        options = call.struct("t4_read_options", revision=revision)
        if snapshot is not None:
            options.snapshot = snapshot._handle
        status = _lib.t4_get(self._handle, call.slice(key), options, out, call.error)
        if status == _lib.T4_E_NOTFOUND:
            return default
        call.check(status)
        return _take(out, _kv)

    def __getitem__(self, key):
        kv = self.get(key)
        if kv is None:
            raise KeyError(key)
        return kv.value

    def __contains__(self, key):
        return self.count(key) > 0

    def count(self, key=None, revision=0, **where):
        call = _Call()
        out = ffi.new("t4_result **")
        options = call.struct("t4_read_options", flags=_lib.T4_COUNT_ONLY, revision=revision)
        call.check(_lib.t4_range(self._handle, *call.range(key, **where), options, out,
                                 call.error))
        return _take(out, _result).count

    def range(self, key=None, limit=0, keys_only=False, revision=0, snapshot=None, **where):
        """Iterates over KeyValues at one revision, in the order of the keys, in pieces."""
        call = _Call()
        out = ffi.new("t4_iterator **")
        options = call.struct("t4_read_options", limit=limit, revision=revision,
                              flags=_lib.T4_KEYS_ONLY if keys_only else 0)
        if snapshot is not None:
            options.snapshot = snapshot._handle
        call.check(_lib.t4_iterator_open(self._handle, *call.range(key, **where), options, out,
                                         call.error))
        return self._iterate(ffi.gc(out[0], _lib.t4_iterator_close), call)

    @staticmethod
    def _iterate(iterator, call):
        kv = ffi.new("t4_kv **")
        while call.check(_lib.t4_iterator_next(iterator, kv, call.error)) != _lib.T4_DONE:
            yield _kv(kv[0])

    def __iter__(self):
        return self.range()

    def snapshot(self, revision=0):
        return Snapshot(self, revision)

    # -- leases, watches, and what it says of itself

    def lease(self, ttl, id=0):
        """Grants; as a context manager the lease is revoked at the end."""
        return Lease(self, ttl, id)

    def leases(self):
        call = _Call()
        out = ffi.new("t4_result **")
        call.check(_lib.t4_lease_list(self._handle, out, call.error))
        return [kv.lease for kv in _take(out, _result).kvs]

    def watch(self, key=None, start_revision=0, prev_kv=False, callback=None, **where):
        """Iterates over Events; with a callback, callback(event) on the library's thread."""
        return Watch(self, key, start_revision, prev_kv, callback, where)

    def info(self):
        """revision, compacted_revision, cluster_id, member_id, db_bytes, ... as a dict."""
        call = _Call()
        made = call.struct("t4_info")
        call.check(_lib.t4_get_info(self._handle, made, call.error))
        return {name: getattr(made, name) for name, _ in ffi.typeof("t4_info").fields
                if name != "size"}

    @property
    def revision(self):
        return self.info()["revision"]

    def metrics(self):
        call = _Call()
        out = ffi.new("char **")
        call.check(_lib.t4_get_metrics(self._handle, out, call.error))
        return _take(out, _text)


class Snapshot:
    """Reads at one revision; pins nothing: Compacted when that was compacted."""

    def __init__(self, db, revision):
        call = _Call()
        out = ffi.new("t4_snapshot **")
        call.check(_lib.t4_snapshot_open(db._handle, revision, out, call.error))
        self._db, self._handle = db, ffi.gc(out[0], _lib.t4_snapshot_close)
        self.revision = _lib.t4_snapshot_revision(out[0])

    def get(self, key, default=None):
        return self._db.get(key, default=default, snapshot=self)

    def range(self, key=None, **where):
        return self._db.range(key, snapshot=self, **where)

    def __iter__(self):
        return self.range()

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        ffi.release(self._handle)


class Lease:
    def __init__(self, db, ttl, id):
        call = _Call()
        number, granted = ffi.new("int64_t *", id), ffi.new("int64_t *")
        call.check(_lib.t4_lease_grant(db._handle, ttl, number, granted, call.error))
        self._db, self.id, self.granted_ttl = db, number[0], granted[0]

    def keep_alive(self):
        """Starts its time again; gives the seconds it has.  NotFound: it is over."""
        call = _Call()
        ttl = ffi.new("int64_t *")
        call.check(_lib.t4_lease_keep_alive(self._db._handle, self.id, ttl, call.error))
        return ttl[0]

    def revoke(self):
        call = _Call()
        call.check(_lib.t4_lease_revoke(self._db._handle, self.id, call.error))

    def time_to_live(self):
        """(seconds left, attached keys)."""
        call = _Call()
        out = ffi.new("t4_result **")
        call.check(_lib.t4_lease_time_to_live(self._db._handle, self.id, out, call.error))
        return _take(out, lambda r: (r.ttl, [_bytes(r.kvs[i].key) for i in range(r.n_kvs)]))

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        try:
            self.revoke()
        except (NotFound, Closed):
            pass


class Watch:
    """An iterator of Events that never ends by itself; fileno() for select and asyncio."""

    def __init__(self, db, key, start_revision, prev_kv, callback, where):
        call = _Call()
        out = ffi.new("t4_watch **")
        options = call.struct("t4_watch_options", start_revision=start_revision,
                              flags=_lib.T4_PREV_KV if prev_kv else 0)
        self._db, self._waiting, self.revision = db, collections.deque(), 0
        self.failure = None  # with a callback: the Error that ended the watch
        if callback is not None:
            self._function = ffi.callback("t4_watch_fn *", self._called)
            self._callback = callback
            options.callback = self._function
        call.check(_lib.t4_watch_open(db._handle, *call.range(key, **where), options, out,
                                      call.error))
        self._handle = out[0]

    def _called(self, _, status, events, error):
        if status != _lib.T4_OK:
            self.failure = _error(status, error)
            return
        self.revision, taken = _take([events], _events)
        for event in taken:
            self._callback(event)

    def fileno(self):
        return _lib.t4_watch_fd(self._handle)

    def get(self, timeout=None):
        """The next Event; Timeout after so many seconds (0: what is there)."""
        call = _Call()
        out = ffi.new("t4_events **")
        while not self._waiting:
            if self._handle is None:
                raise Closed(_lib.T4_E_CLOSED, "the watch is closed")
            ms = -1 if timeout is None else int(timeout * 1000)
            call.check(_lib.t4_watch_next(self._handle, ms, out, call.error))
            self.revision, events = _take(out, _events)
            self._waiting.extend(events)
        return self._waiting.popleft()

    def __iter__(self):
        return self

    def __next__(self):
        return self.get()

    def close(self):
        if self._handle is not None:
            handle, self._handle = self._handle, None
            _lib.t4_watch_close(handle)

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.close()

    def __del__(self):
        if getattr(self, "_handle", None) is not None and not sys.is_finalizing():
            self.close()

/*
 * t4.h - a t4 database inside a program: libt4.
 *
 * The same database as behind `t4 run`, without a server: keys with revisions, transactions,
 * leases, watches, a log on the disk and, if wanted, in an object store.  The data model is
 * etcd's, version 3.  Guide: sql-like-docs/guide/embedding.md, reference: ref/libt4.md.
 *
 * Handles.  t4_db is one open database; the other handles belong to it.  A process may have any
 * number of databases open, each with a data directory of its own; they share nothing.  A data
 * directory is open in one process at a time.
 *
 * Threads.  Every function of a t4_db may be called from any thread, many at once.  A t4_txn, a
 * t4_iterator and a t4_options belong to one thread at a time.  A t4_watch: see there.  The
 * library has threads of its own, with all signals blocked; it sets no signal handler, and
 * changes neither locale nor environment.  User functions (callbacks) are called by one library
 * thread per database, one after the other, with no lock held; they may call everything but
 * t4_close().  The log callback is the exception, see there.
 *
 * fork().  A child must not use a database of its parent: functions refuse with T4_E_INVALID there,
 * and t4_close() does nothing.  The child does not hold the data directory's lock once it has
 * called exec(); before, it does: open a database after a fork, not before it.
 *
 * Ownership.  Slices and structs that go in are borrowed for the call, with the exceptions that
 * are named.  What comes out by a pointer to a pointer belongs to the caller: results go to
 * t4_free(), handles to their close function.  Everything that a result points to lives and ends
 * with it.
 *
 * Errors.  A function that can fail returns a t4_status: T4_OK (0), or T4_DONE (1) where that is
 * said, or one of T4_E_*, negative.  `error` takes the words, may be NULL, and is changed by a
 * failure only.  There is no errno and no last error.  The list is open: take an unknown value as
 * T4_E_INTERNAL.  Any function of a t4_db may give, besides what stands with it:
 *   T4_E_INVALID      an argument is impossible, or the handle came through a fork
 *   T4_E_CLOSED       t4_close() was called
 *   T4_E_IO           log or storage failed: close the database, look at the disk, open again
 *   T4_E_CORRUPT      something stored is damaged; the message names it
 *   T4_E_NOMEM        the storage engine had no memory; nothing was done: try again
 *   T4_E_UNAVAILABLE  with an object store: it does not answer, or another process leads now
 * and one that writes:
 *   T4_E_UNKNOWN      the write may or may not have happened: read to find out
 *   T4_E_NOSPACE      the disk is full; reads and deletes go on
 *   T4_E_BUSY         too much is under way; certainly nothing was done: try again
 * All others say that nothing was done.  When memory is exhausted the process is ended (as a
 * server would be); acknowledged writes survive that, as they survive kill -9 and power failure.
 *
 * Versions.  Structs that go in begin with `size`, to be set to sizeof: later versions append
 * members, zero always means the default.  Use the T4_*_INIT macros, or set all else to zero.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef T4_H
#define T4_H

#include <stddef.h>
#include <stdint.h>

/* t4_status, T4_OK, T4_E_*, struct t4_slice; the rest of it is for plugins. */
#include "t4_plugin.h"

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define T4_API __attribute__((visibility("default")))
#else
#define T4_API
#endif

/* --- status, errors, bytes ----------------------------------------------------------------- */

/* Beyond those of t4_plugin.h. */
#define T4_DONE 1            /* nothing follows; not an error */
#define T4_E_COMPACTED (-64) /* the revision was compacted: its past is gone */
#define T4_E_FUTURE (-65)    /* the revision does not exist yet */
#define T4_E_CLOSED (-66)    /* the database or the watch was closed */

typedef struct t4_error {
    t4_status status;
    char message[512]; /* what happened, to which object */
    char hint[512];    /* the way out; may be empty */
} t4_error;

/* "not found", "compacted", ...: never NULL, static. */
T4_API const char *t4_status_text(t4_status status);
/* The library's version, "0.1.0"; static. */
T4_API const char *t4_version(void);

/* Of a NUL-terminated text, without the terminator; of bytes.  Borrows. */
T4_API struct t4_slice t4_text(const char *text);
T4_API struct t4_slice t4_bytes(const void *data, size_t len);

/*
 * Ranges.  Functions that take `key` and `end` mean the keys from key to end, without end;
 * an empty end: that one key.  T4_END as end: no upper bound.  All keys: t4_all_keys(&key, &end).
 */
#define T4_END (t4_bytes("", 1))
T4_API void t4_all_keys(struct t4_slice *key, struct t4_slice *end);
/*
 * The end of the range of all keys that begin with `prefix` (as key).  Needs room for
 * prefix.len bytes (at least 1), which the slice borrows.
 */
T4_API struct t4_slice t4_prefix_end(struct t4_slice prefix, void *room);

/* Frees what a function has given as a result; NULL is allowed. */
T4_API void t4_free(void *result);

/* --- options ------------------------------------------------------------------------------- */

typedef struct t4_options t4_options;

/* Never NULL; t4_options_free() frees.  May be freed as soon as t4_open() has returned. */
T4_API t4_options *t4_options_new(void);
T4_API void t4_options_free(t4_options *options);
/*
 * Sets an option by name, as ref/libt4.md lists them: "storage_engine" to "memory", or a plugin's:
 * "lmdb.map_size" to "1 GB".  The last value counts.  Both texts are copied; they are looked at by
 * t4_open(), which refuses an unknown name and an impossible value.
 */
T4_API void t4_options_set(t4_options *options, const char *name, const char *value);

/* Levels are T4_LOG_ERROR to T4_LOG_DEBUG; `event` is one line without its end. */
typedef void t4_log_fn(void *arg, int32_t level, const char *event);
/*
 * What the database logs, up to `level`.  Without this it logs nothing.  Called on any thread, the
 * caller's included, several at once, and possibly with locks held: it must not block for long nor
 * call the library.  May be called until t4_close() has returned.
 */
T4_API void t4_options_set_log(t4_options *options, int32_t level, t4_log_fn *fn,
                               void *arg);

typedef void t4_failed_fn(void *arg, const t4_error *error);
/*
 * Called once, as a callback, if the database fails for good (the log's disk failed, something is
 * damaged) or another process takes its object store over.  After a failure every call gives
 * that error, and nothing more is written; after a take-over old state can be read (T4_SERIALIZABLE).
 */
T4_API void t4_options_set_failed(t4_options *options, t4_failed_fn *fn, void *arg);

/* --- the database -------------------------------------------------------------------------- */

typedef struct t4_db t4_db;

/*
 * Opens the database in a directory, which is made if it is not there, and recovers.  options may
 * be NULL.  *out is NULL after an error.
 *   T4_E_BUSY         another process, or another handle, has the directory open
 *   T4_E_INVALID      an option; a copied or moved directory (the hint says what to do)
 *   T4_E_NOTFOUND     there is no such plugin
 *   T4_E_NOSPACE, T4_E_DENIED, T4_E_UNAVAILABLE   disk or object store
 */
T4_API t4_status t4_open(const char *data_dir, const t4_options *options, t4_db **out,
                         t4_error *error);
/*
 * Ends everything: calls under way on other threads get T4_E_CLOSED (a write that is already being
 * logged gets its outcome), watches end, callbacks that are due are made, what is committed is on
 * the disk, uploads are finished as far as the store answers.  db is gone then; iterators, snapshots,
 * transactions and watches that are left give T4_E_CLOSED and are still to be closed.  NULL is
 * allowed.  T4_E_INVALID: called by a callback, or in a forked child; nothing was done.
 */
T4_API t4_status t4_close(t4_db *db);

typedef struct t4_info {
    size_t size;                /* set by the caller */
    int64_t revision;           /* newest */
    int64_t compacted_revision; /* reads below it fail; 0: never compacted */
    uint64_t cluster_id, member_id;
    uint64_t db_bytes, db_bytes_in_use; /* of the storage engine's file */
    int32_t leads;                      /* writes are taken */
    int32_t no_space;                   /* the disk is full */
} t4_info;
/* Fills *info up to info->size. */
T4_API t4_status t4_get_info(t4_db *db, t4_info *info, t4_error *error);
/* The metrics of this database in Prometheus' text format; *text is for t4_free(). */
T4_API t4_status t4_get_metrics(t4_db *db, char **text, t4_error *error);

/* --- results ------------------------------------------------------------------------------- */

typedef struct t4_kv {
    struct t4_slice key, value;
    int64_t create_revision, mod_revision;
    int64_t version; /* 1 for a new key, 1 more with each put */
    int64_t lease;   /* 0: none */
} t4_kv;

#define T4_RESULT_RANGE 1
#define T4_RESULT_PUT 2
#define T4_RESULT_DELETE 3
#define T4_RESULT_TXN 4
#define T4_RESULT_LEASE 5

/* The answer to a request, whatever it was; members that it does not speak of are zero. */
typedef struct t4_result {
    int32_t kind;     /* T4_RESULT_* */
    int32_t more;     /* RANGE: there are keys beyond the limit */
    int64_t revision; /* of the database after a write, or at which was read */
    int64_t
        count; /* RANGE: keys in the range, whatever the limit; DELETE: keys deleted */
    /* RANGE: what was found.  PUT, DELETE with T4_PREV_KV: what was there before. */
    size_t n_kvs;
    const t4_kv *kvs;
    /* TXN: whether all comparisons held; a result for each operation of the branch taken */
    int32_t succeeded;
    int32_t reserved;
    size_t n_results;
    const struct t4_result *results;
    /* LEASE: its number, seconds left, seconds granted; kvs: attached keys, without values */
    int64_t lease, ttl, granted_ttl;
} t4_result;

/* --- writes -------------------------------------------------------------------------------- */

#define T4_PREV_KV 1u /* the result has what was there before */
#define T4_IGNORE_VALUE                                                                  \
    2u /* put: keep the value, change the lease; T4_E_NOTFOUND without a key */
#define T4_IGNORE_LEASE 4u /* put: keep the lease; T4_E_NOTFOUND without a key */
/*
 * Return when the write is in the object store, too, whatever the commit rule is.  T4_E_INVALID
 * without an object_store.
 */
#define T4_OBJECT_DURABLE 8u

typedef struct t4_write_options {
    size_t size;
    uint32_t flags; /* T4_PREV_KV ... */
    uint32_t reserved;
    int64_t lease; /* put: the key goes when this lease ends; 0: none */
} t4_write_options;
#define T4_WRITE_OPTIONS_INIT                                                            \
    {                                                                                    \
        sizeof(t4_write_options), 0, 0, 0                                                \
    }

/*
 * Both return when the write is durable.  options and result may be NULL.
 *   T4_E_NOTFOUND   there is no such lease; see T4_IGNORE_VALUE
 *   T4_E_INVALID    empty key, key above 16 KiB, request above max_request_bytes
 */
T4_API t4_status t4_put(t4_db *db, struct t4_slice key, struct t4_slice value,
                        const t4_write_options *options, t4_result **result,
                        t4_error *error);
/* Deletes a range in one revision; nothing to delete is no error: result->count is 0. */
T4_API t4_status t4_delete(t4_db *db, struct t4_slice key, struct t4_slice end,
                           const t4_write_options *options, t4_result **result,
                           t4_error *error);

/*
 * The end of an asynchronous write.  status T4_OK: result is not NULL and belongs to the function.
 * Else error tells why, valid during the call.
 */
typedef void t4_done_fn(void *arg, t4_status status, t4_result *result,
                        const t4_error *error);
/*
 * As above, without waiting: key and value are copied, and `done` is called as a callback exactly
 * once if T4_OK is returned, never otherwise.  Writes of one thread take effect in the order of the
 * calls.
 */
T4_API t4_status t4_put_async(t4_db *db, struct t4_slice key, struct t4_slice value,
                              const t4_write_options *options, t4_done_fn *done,
                              void *arg, t4_error *error);
T4_API t4_status t4_delete_async(t4_db *db, struct t4_slice key, struct t4_slice end,
                                 const t4_write_options *options, t4_done_fn *done,
                                 void *arg, t4_error *error);

/*
 * Returns when everything that was acknowledged before is durable: on the disk, and with
 * T4_OBJECT_DURABLE in the object store.
 */
T4_API t4_status t4_barrier(t4_db *db, uint32_t flags, t4_error *error);

#define T4_PHYSICAL                                                                      \
    1u /* return only when the old versions are gone from the storage engine */
/*
 * Forgets the versions below `revision` that are not the newest of their key there.  Reads below
 * it, and watches from below it, then give T4_E_COMPACTED.  Nothing is compacted unless this is
 * called, or the option auto_compaction_retention is set.  T4_E_COMPACTED: it was already;
 * T4_E_FUTURE.
 */
T4_API t4_status t4_compact(t4_db *db, int64_t revision, uint32_t flags, t4_error *error);

/*
 * Gives back to the file system what the storage engine's file does not use any more; takes as
 * long as copying what is used, while everything else goes on.
 */
T4_API t4_status t4_defragment(t4_db *db, t4_error *error);

/* --- reads --------------------------------------------------------------------------------- */

/*
 * A revision to read at, held by a handle.  It pins nothing: when that revision is compacted, reads
 * give T4_E_COMPACTED.  Only t4_compact() compacts (and the option auto_compaction_retention), so a
 * program that wants its snapshots whole compacts below the oldest of them.
 */
typedef struct t4_snapshot t4_snapshot;
/* revision 0: the newest one.  T4_E_COMPACTED, T4_E_FUTURE. */
T4_API t4_status t4_snapshot_open(t4_db *db, int64_t revision, t4_snapshot **out,
                                  t4_error *error);
T4_API int64_t t4_snapshot_revision(const t4_snapshot *snapshot);
T4_API void t4_snapshot_close(t4_snapshot *snapshot); /* NULL is allowed */

#define T4_KEYS_ONLY 16u  /* without values */
#define T4_COUNT_ONLY 32u /* range: only the count */
#define T4_SERIALIZABLE                                                                  \
    64u /* with an object store: do not prove that this process still leads */
#define T4_DESCEND 128u /* range: sorted, largest first */

#define T4_SORT_KEY 0
#define T4_SORT_VERSION 1
#define T4_SORT_CREATE 2
#define T4_SORT_MOD 3
#define T4_SORT_VALUE 4

typedef struct t4_read_options {
    size_t size;
    uint32_t flags;              /* T4_KEYS_ONLY ... */
    int32_t sort_by;             /* range: T4_SORT_*; ascending, or as T4_DESCEND says */
    const t4_snapshot *snapshot; /* read there; NULL: */
    int64_t revision;            /* read there; 0: at the newest revision */
    int64_t limit;               /* range, iterator: at most so many keys; 0: no limit */
    /* range: only keys within these bounds, which are inclusive; 0: no bound */
    int64_t min_mod_revision, max_mod_revision, min_create_revision, max_create_revision;
} t4_read_options;
#define T4_READ_OPTIONS_INIT                                                             \
    {                                                                                    \
        sizeof(t4_read_options), 0, 0, NULL, 0, 0, 0, 0, 0, 0                            \
    }

/*
 * One key.  *out is for t4_free(), NULL after an error.  T4_E_NOTFOUND: there is no such key (then
 * error is not filled: this is an answer); T4_E_COMPACTED, T4_E_FUTURE.
 */
T4_API t4_status t4_get(t4_db *db, struct t4_slice key, const t4_read_options *options,
                        t4_kv **out, t4_error *error);
/* A range, all in memory at once: give a limit, or take an iterator, where it may be large. */
T4_API t4_status t4_range(t4_db *db, struct t4_slice key, struct t4_slice end,
                          const t4_read_options *options, t4_result **out,
                          t4_error *error);

/*
 * A range in the order of its keys, at one revision, fixed by the open; fetched in pieces of about
 * 256 KiB, so that memory does not grow with the range.  Takes of the options: flags
 * T4_KEYS_ONLY and T4_SERIALIZABLE, snapshot, revision, limit.
 */
typedef struct t4_iterator t4_iterator;
T4_API t4_status t4_iterator_open(t4_db *db, struct t4_slice key, struct t4_slice end,
                                  const t4_read_options *options, t4_iterator **out,
                                  t4_error *error);
/*
 * The next key, in *out: valid until the next call for this iterator.  T4_DONE: there is none, *out
 * is NULL.  T4_E_COMPACTED: the revision was compacted meanwhile; every later call says so.
 */
T4_API t4_status t4_iterator_next(t4_iterator *iterator, const t4_kv **out,
                                  t4_error *error);
T4_API int64_t t4_iterator_revision(const t4_iterator *iterator);
T4_API void t4_iterator_close(t4_iterator *iterator); /* NULL is allowed */

/* --- transactions -------------------------------------------------------------------------- */

/*
 * etcd's model: if all comparisons hold, the operations of the success branch are carried out, else
 * those of the failure branch; atomically, in one revision.  A key is put at most once in a branch.
 * The functions that add copy what they are given; a mistake in one is told by the commit.
 */
typedef struct t4_txn t4_txn;
T4_API t4_txn *t4_txn_new(t4_db *db); /* never NULL */
T4_API void t4_txn_free(t4_txn *txn); /* NULL is allowed */

#define T4_COMPARE_VERSION 0 /* targets; of a key that is not there all numbers are 0 */
#define T4_COMPARE_CREATE 1  /* the revision that created it */
#define T4_COMPARE_MOD 2     /* the revision that changed it last */
#define T4_COMPARE_LEASE 4
#define T4_EQUAL 0 /* relations: of the key's number or value to the given one */
#define T4_GREATER 1
#define T4_LESS 2
#define T4_NOT_EQUAL 3

/* The comparison must hold for every key of the range. */
T4_API void t4_txn_compare(t4_txn *txn, struct t4_slice key, struct t4_slice end,
                           int32_t target, int32_t relation, int64_t number);
/* Never holds for a key that is not there. */
T4_API void t4_txn_compare_value(t4_txn *txn, struct t4_slice key, struct t4_slice end,
                                 int32_t relation, struct t4_slice value);

#define T4_SUCCESS 0 /* branches */
#define T4_FAILURE 1
/* options may be NULL; T4_OBJECT_DURABLE, T4_SERIALIZABLE and snapshots mean nothing here */
T4_API void t4_txn_put(t4_txn *txn, int32_t branch, struct t4_slice key,
                       struct t4_slice value, const t4_write_options *options);
T4_API void t4_txn_delete(t4_txn *txn, int32_t branch, struct t4_slice key,
                          struct t4_slice end, const t4_write_options *options);
T4_API void t4_txn_range(t4_txn *txn, int32_t branch, struct t4_slice key,
                         struct t4_slice end, const t4_read_options *options);
/* A transaction as an operation; `nested` is taken over. */
T4_API void t4_txn_nest(t4_txn *txn, int32_t branch, t4_txn *nested);

/*
 * Carries it out, durable when it returns; may be repeated.  flags: T4_OBJECT_DURABLE or 0.  That a
 * comparison fails is no error: see result->succeeded.  result may be NULL.
 *   T4_E_INVALID   a key is put twice, too many operations (max_txn_ops), empty key, too large
 *   T4_E_NOTFOUND  a lease; a key with T4_IGNORE_VALUE, T4_IGNORE_LEASE
 */
T4_API t4_status t4_txn_commit(t4_txn *txn, uint32_t flags, t4_result **result,
                               t4_error *error);
/* As t4_put_async().  Takes the transaction over, also when it fails. */
T4_API t4_status t4_txn_commit_async(t4_txn *txn, uint32_t flags, t4_done_fn *done,
                                     void *arg, t4_error *error);

/* --- leases -------------------------------------------------------------------------------- */

/*
 * A lease ends `ttl` seconds after its grant or its last keep-alive, and takes the keys with it
 * that were put with it.  After a restart every lease has what it had left.
 * *lease: a number to have, or 0: one is chosen and given back.  granted_ttl may be NULL.
 * T4_E_EXISTS: that number is in use; T4_E_INVALID: ttl too large.
 */
T4_API t4_status t4_lease_grant(t4_db *db, int64_t ttl, int64_t *lease,
                                int64_t *granted_ttl, t4_error *error);
/* Starts its time again.  ttl (may be NULL): seconds that it has now.  T4_E_NOTFOUND: it is over. */
T4_API t4_status t4_lease_keep_alive(t4_db *db, int64_t lease, int64_t *ttl,
                                     t4_error *error);
/* Ends it now.  T4_E_NOTFOUND. */
T4_API t4_status t4_lease_revoke(t4_db *db, int64_t lease, t4_error *error);
/* ttl, granted_ttl, and the attached keys as kvs.  T4_E_NOTFOUND: it is over. */
T4_API t4_status t4_lease_time_to_live(t4_db *db, int64_t lease, t4_result **out,
                                       t4_error *error);
/* All leases: a kv with nothing but `lease` for each. */
T4_API t4_status t4_lease_list(t4_db *db, t4_result **out, t4_error *error);

/* --- watches ------------------------------------------------------------------------------- */

#define T4_EVENT_PUT 0
#define T4_EVENT_DELETE                                                                  \
    1 /* kv has the key and, as mod_revision, the revision of the delete */

typedef struct t4_event {
    int32_t type;
    int32_t reserved;
    t4_kv kv;
    const t4_kv
        *prev; /* with T4_PREV_KV: what was there before; NULL: nothing, or compacted */
} t4_event;

/* Events in order; those of one revision are never torn apart. */
typedef struct t4_events {
    int64_t revision; /* everything up to here that matches has been delivered */
    size_t n_events;  /* 0: progress */
    const t4_event *events;
} t4_events;

#define T4_NO_PUT 256u    /* without puts */
#define T4_NO_DELETE 512u /* without deletes */
#define T4_PROGRESS                                                                      \
    1024u /* idle watches tell the revision from time to time, without events */

typedef struct t4_watch t4_watch;
/*
 * status T4_OK: events, which belong to the function.  Else the watch has ended (error says why,
 * valid during the call), and this is the last call; it is not made when t4_watch_close() ended it.
 * The first call may come before t4_watch_open() has returned.
 */
typedef void t4_watch_fn(void *arg, t4_status status, t4_events *events,
                         const t4_error *error);

typedef struct t4_watch_options {
    size_t size;
    uint32_t flags; /* T4_PREV_KV, T4_NO_PUT, T4_NO_DELETE, T4_PROGRESS */
    uint32_t reserved;
    int64_t start_revision; /* the first one to be seen; 0: what is written from now on */
    t4_watch_fn *callback;  /* NULL: take events with t4_watch_next() */
    void *callback_arg;
} t4_watch_options;
#define T4_WATCH_OPTIONS_INIT                                                            \
    {                                                                                    \
        sizeof(t4_watch_options), 0, 0, 0, NULL, NULL                                    \
    }

/*
 * Watches a range.  Returns when the watch is in place: what is written from then on is seen.
 * Nothing is dropped for a slow consumer: it catches up from the log, and what waits for it in
 * memory is bounded (about 1 MiB).  T4_E_COMPACTED: start_revision was compacted.
 */
T4_API t4_status t4_watch_open(t4_db *db, struct t4_slice key, struct t4_slice end,
                               const t4_watch_options *options, t4_watch **out,
                               t4_error *error);
/*
 * A file descriptor that is readable while t4_watch_next() has something to say: for poll, epoll.
 * It is the watch's; only ever poll it.  -1 for a watch with a callback.
 */
T4_API int t4_watch_fd(const t4_watch *watch);
/*
 * The next events; *out is for t4_free().  Waits up to timeout_ms, -1: without a limit.  One
 * thread at a time.
 *   T4_E_TIMEOUT    nothing came (error is not filled)
 *   T4_E_COMPACTED  the watch fell below the compacted revision and has ended
 *   T4_E_CLOSED     the database was closed
 */
T4_API t4_status t4_watch_next(t4_watch *watch, int timeout_ms, t4_events **out,
                               t4_error *error);
/* Asks for a progress message behind everything that is published now. */
T4_API t4_status t4_watch_progress(t4_watch *watch, t4_error *error);
/*
 * Ends the watch.  When it returns, its callback is not running and will not be called any more;
 * called from within the callback it returns at once, and that call is the last.  No other thread
 * may be in a function of this watch.  NULL is allowed.
 */
T4_API void t4_watch_close(t4_watch *watch);

#ifdef __cplusplus
}
#endif
#endif

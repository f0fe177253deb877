/*
 * watch.h - the watch hub: filters the log for many watchers.
 *
 * A watch is a filter over the log.  One hub thread owns all watchers: it tails the log once
 * for all watchers that are *synced* (caught up) and finds the matching ones through an index
 * by key range, so that an event costs in proportion to its matching watchers; a watcher that
 * starts in the past, or fell behind because its client does not read, is *unsynced* and
 * catches up by reading older parts of the log, together with others that are as far behind;
 * where the log does not reach back that far, by a scan of the versions of its keys.  An event
 * is encoded once and shared.
 *
 * Threads: everything here may be called from any thread; calls only queue work for the hub
 * thread, which calls the stream's functions.
 *
 * Invariants
 *  (1) the answer to a create precedes every event of that watcher; answers to the requests of
 *      one stream go out in the order of the requests
 *  (2) events of a watcher go out in the order (revision, sub), each exactly once; those of
 *      one revision stay in one message unless the watcher asked for fragments
 *  (3) nothing is sent of an entry that is not published (I1)
 *  (4) a progress message for revision R follows every event with mod_revision <= R of the
 *      watchers it speaks for
 *  (5) at most one message per stream is with the transport; what waits behind it is bounded
 *      per stream, and a watcher beyond the bound becomes unsynced (nothing is dropped)
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef WATCH_WATCH_H
#define WATCH_WATCH_H

#include "base/metrics.h"
#include "mvcc/mvcc.h"
#include "wal/wal.h"
#include "wire/encode.h"

struct watch_hub;
struct watch_stream;

/* What one stream may hold whatever all of them do: see watch_hub_options.memory_bytes. */
#define WATCH_STREAM_SHARE (16u * 1024)

struct watch_hub_options {
    struct wal *wal;
    struct mvcc *mvcc;
    struct response_header header; /* ids and term; revision is filled in */
    uint64_t progress_interval_ns; /* of progress_notify; etcd: 10 min */
    uint32_t fragment_bytes; /* size at which a fragmenting watcher's message is split */
    uint32_t watchers_per_stream;  /* bound; a create beyond it is refused in words */
    uint32_t stream_backlog_bytes; /* bound of what waits for one stream, e.g. 1 MiB */
    /*
     * Bound of what events take in memory, for all streams, waiting and being sent; besides it
     * each stream may hold WATCH_STREAM_SHARE and its message.  Above half of it streams whose client
     * does not read have only their share.
     */
    size_t memory_bytes;
    uint32_t scan_bytes;   /* bound of what a scan below the log keeps at once, 4 MiB */
    uint32_t scan_records; /* looked at in a turn of the hub, e.g. 2,000; at least 2 */
    struct env *env;
    struct metrics *metrics;
    /*
     * While the engine is not complete: brings what it lacks of this key at this revision onto
     * the disk, however long that takes.  Returns early when it cannot: the object is lost (the
     * event then has no previous value), or the server stops.  NULL: nothing is ever lacking.
     */
    void (*fetch)(void *arg, struct t4_slice key, int64_t revision);
    /*
     * While the engine is not complete: does it hold all of this range of internal keys?  If not,
     * the range is fetched, and watch_hub_wake() follows.  Does not block.  NULL: as if not.
     */
    bool (*range_ready)(void *arg, struct t4_slice lo, struct t4_slice hi);
    void *fetch_arg; /* of both */
    /*
     * Called on the hub's thread, once, when log or engine cannot be read (damaged); all
     * streams have been ended with ETCD_READ_FAILED then.
     */
    void (*failed)(void *arg, const struct error *error);
    void *failed_arg;
};

struct watch_hub *watch_hub_new(const struct watch_hub_options *options);
/* The term that answers show from now on.  Any thread. */
void watch_hub_set_term(struct watch_hub *h, uint64_t term);
/* Starts the thread; the state given by the first watch_hub_publish() must be there before. */
void watch_hub_start(struct watch_hub *h);
/*
 * Ends all streams through end() with `error` (an enum etcd_error, not ETCD_OK) and returns
 * when that is done; log and mvcc are not read any more.  The thread goes on to let go of
 * streams that are closed; those opened from now on are ended at once, and other calls for
 * streams do nothing.
 */
void watch_hub_stop(struct watch_hub *h, int error);
/* Joins the thread.  All streams must have been let go of (closed() was called). */
void watch_hub_free(struct watch_hub *h);

/*
 * Entries up to `index` are committed and published; the newest revision and compacted
 * revision.  Cheap: no lock of the hub is held for long, the hub is woken only if somebody
 * watches.  Called by the sync thread.
 */
void watch_hub_publish(struct watch_hub *h, uint64_t index, int64_t revision,
                       int64_t compacted);

/*
 * The engine has become complete (mvcc_hydrated()), or has got a range that watchers below the log
 * have waited for.  Any thread.
 */
void watch_hub_wake(struct watch_hub *h);

/* What the hub needs of a transport.  Called on the hub's thread, never with a lock held. */
struct watch_transport {
    /*
     * Sends one WatchResponse.  `more`: another message follows as soon as this one is
     * reported sent (a hint for batching writes).  The transport takes over the chain's
     * content.  It answers with watch_stream_sent() when it can take the next one.
     */
    void (*send)(void *arg, struct chain *message, bool more);
    /*
     * Ends the stream with an enum etcd_error; nothing is sent afterwards.  The transport
     * still has to call watch_stream_close().
     */
    void (*end)(void *arg, int error);
    /*
     * The hub has let go of the stream: the last call for it.  When this returns no call for
     * the stream may be under way in another thread (watch_stream_sent() can be late: guard
     * it and watch_stream_close() by a lock, or wait here).
     */
    void (*closed)(void *arg);
};

struct watch_stream *watch_stream_open(struct watch_hub *h,
                                       const struct watch_transport *transport,
                                       void *arg);
/* The transport can take the next message.  May be called from within send(). */
void watch_stream_sent(struct watch_stream *s);
/* The client or the connection is gone; closed() follows. */
void watch_stream_close(struct watch_stream *s);

struct watch_create {
    struct t4_slice key, range_end; /* as in the request; copied */
    int64_t start_revision, watch_id;
    bool progress_notify, prev_kv, fragment, no_put, no_delete;
};
/*
 * Requests; their answers are messages.  A client that sends them faster than the hub carries
 * them out, or does not read the answers, has its stream ended (ETCD_TOO_MANY_REQUESTS).
 */
void watch_stream_create(struct watch_stream *s, const struct watch_create *request);
void watch_stream_cancel(struct watch_stream *s, int64_t watch_id);
void watch_stream_progress(struct watch_stream *s);

#endif

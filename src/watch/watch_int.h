/*
 * watch_int.h - what the files of this folder share.
 *
 * hub.c      the thread, its commands, the interface of the folder
 * follow.c   reading the log: the tail for the synced watchers, passes for the others
 * scan.c     below the log: events out of the versions of keys
 * event.c    an entry of the log -> events, each encoded once
 * index.c    which watchers match a key
 * stream.c   streams and watchers: what requests do
 * queue.c    what waits to be sent on a stream, and sending it
 *
 * Everything belongs to the hub's thread but what is marked [lock] or atomic.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef WATCH_WATCH_INT_H
#define WATCH_WATCH_INT_H

#include <stdatomic.h>

#include "env/thread.h"
#include "fmt/entry.h"
#include "watch/watch.h"

struct watcher;
struct batch;

/* --- index.c ------------------------------------------------------------------------------ */

/* Single keys in a hash, ranges in a treap with the largest end below each node. */
struct watch_index {
    uint64_t seed, buckets, singles;
    struct watcher **bucket;
    struct watcher *root;
};

void watch_index_init(struct watch_index *ix, uint64_t seed);
void watch_index_free(struct watch_index *ix);
bool watch_index_empty(const struct watch_index *ix);
void watch_index_add(struct watch_index *ix, struct watcher *w);
void watch_index_remove(struct watch_index *ix, struct watcher *w);
/* Calls fn for each watcher whose range holds the key.  fn may not change the index. */
void watch_index_match(struct watch_index *ix, struct t4_slice key,
                       void (*fn)(struct watcher *w, void *arg), void *arg);

/* --- watchers and streams ----------------------------------------------------------------- */

enum watcher_place {
    PLACE_SYNCED,  /* in hub.synced: has been given everything up to hub.done */
    PLACE_STALLED, /* in stream.stalled: behind, and its stream's backlog is full */
    PLACE_WAITING, /* in hub.waiting: behind, waits for a pass over the log */
    PLACE_PASS,    /* in a pass: is being given what it misses */
    PLACE_BELOW,   /* in hub.below: the log does not reach back to it, waits for a scan */
};

struct watcher {
    struct watch_stream *stream;
    struct watcher *stream_next, **stream_link; /* all of the stream */
    struct watcher *id_next;                    /* bucket of hub.ids */
    struct watcher *place_next, **place_link;   /* where it is, unless synced */
    struct pass *pass;                          /* PLACE_PASS */
    struct watcher *refused_next;               /* hub.refused */
    int64_t id, start;                          /* as requested; start 0: from then on */
    int64_t next;               /* first revision not yet given to it, or more */
    struct batch *first, *last; /* its batches in the stream's queue */
    struct item *notice;        /* its progress notification in the queue */
    uint64_t idle_since_ns;     /* for progress_notify */
    struct watcher *left,
        *right;               /* index; single keys: next and previous in the bucket */
    struct t4_slice key, end; /* in `bytes`; end empty: a single key, or `open` */
    struct t4_slice max_end;  /* of the subtree; valid unless max_open */
    uint32_t priority;
    uint8_t place;       /* enum watcher_place */
    bool open, max_open; /* no upper bound: the watcher, the subtree */
    bool progress_notify, prev_kv, fragment, no_put, no_delete;
    bool refused; /* in hub.refused: had no room for the entry that is being given out */
    uint8_t bytes[];
};
/* 100,000 idle ones are to fit in 30 MB, hash tables included. */
_Static_assert(sizeof(struct watcher) <= 264, "an idle watcher has become larger");

enum item_kind {
    ITEM_CREATED,
    ITEM_REFUSED,
    ITEM_CANCELED,
    ITEM_COMPACTED,
    ITEM_PROGRESS,
    ITEM_NOTICE,
    ITEM_EVENTS
};

/* One thing to send, in the queue of its stream. */
struct item {
    struct item *next, **link;
    enum item_kind kind;
    int64_t watch_id;
    int64_t revision; /* of the header; ITEM_EVENTS: of the newest event */
    union {
        const char *reason;      /* ITEM_REFUSED; static */
        struct watcher *watcher; /* ITEM_NOTICE */
    };
    int64_t compacted; /* ITEM_COMPACTED */
};

/* Events of one watcher, whole revisions, that go in one message. */
struct batch {
    struct item item;
    struct batch *next;      /* of the same watcher */
    struct watcher *watcher; /* NULL: it is gone */
    struct chain events;     /* one link for each event */
    uint32_t revisions;
    /* as it was before its newest revision */
    uint32_t links_before;
    int64_t revision_before;
    size_t charge_before;
    bool fragment;
    uint64_t seal; /* takes further revisions while this is the stream's */
    size_t charge; /* in the stream's backlog */
};

enum { STREAM_IDLE, STREAM_BUSY, STREAM_BUSY_MORE };

struct command {
    enum {
        COMMAND_OPEN,
        COMMAND_CREATE,
        COMMAND_CANCEL,
        COMMAND_PROGRESS,
        COMMAND_SENT,
        COMMAND_FLOOD,
        COMMAND_CLOSE
    } kind;
    struct command *next;
    struct watch_stream *stream;
    size_t size;      /* of a request, for the bound; 0: part of its stream */
    int64_t watch_id; /* to cancel */
    struct watch_create create;
    uint8_t bytes[];
};

struct watch_stream {
    struct watch_hub *hub;
    const struct watch_transport *transport;
    void *arg;
    struct watch_stream *next, **link; /* all streams of the hub */
    struct watch_stream *dirty_next;
    bool dirty; /* in hub.dirty: perhaps something can be sent */
    bool ended; /* end() was called: nothing is sent any more */
    struct watcher *watchers, *stalled;
    uint32_t n_watchers, n_unsynced;
    int64_t next_id;
    int64_t latest_start;  /* no watcher's start is above it */
    bool latest_left;      /* whoever had it has left */
    struct watcher *owner; /* the first that was given an event of the entry, */
    uint64_t owner_entry;  /* hub.entries then */
    struct item *queue, **queue_end;
    uint32_t n_answers;   /* items that are no events */
    uint32_t n_progress;  /* of them, ITEM_PROGRESS */
    uint64_t seal;        /* changes when batches may not take further revisions */
    struct batch *pieces; /* being sent in fragments, no longer in the queue */
    uint32_t piece;       /* its next event */
    size_t backlog; /* bytes of events in queue and pieces, with what they take around */
    /*
     * IDLE: nothing is with the transport.  BUSY: a message is.  BUSY_MORE: and the hub wants
     * to hear when it is sent.
     */
    _Atomic int state;
    _Atomic size_t requests, request_bytes; /* queued and not yet carried out */
    /* Each of these is queued at most once at a time, so needs no memory of its own. */
    _Atomic bool sent_queued, flood_queued;
    struct command open, sent, flood, close;
};

/* A reading of older parts of the log, or of versions, for unsynced watchers. */
struct pass {
    struct wal_reader *reader; /* NULL: not in use, or a scan's */
    struct scan *scan;         /* whose pass it is; NULL: it reads the log */
    struct watch_index index;
    struct watcher *members;
    int64_t done; /* has given out everything up to here */
};
#define PASSES 4

/* One slice of reading, so that neither requests nor live events wait long for it. */
#define SLICE_BYTES (1u << 20)
/* How far behind a watcher's start a pass may be for the watcher to join it. */
#define NEAR 4096

/* A version that a scan found: an event to be. */
struct found {
    int64_t revision; /* here, as most comparisons need nothing else */
    struct found_key *key;
};

/* A search for events among the versions of a range of keys.  See scan.c. */
struct scan {
    struct pass pass; /* its members, and how far they have been brought */
    enum { SCAN_UNUSED, SCAN_COLLECTS, SCAN_GIVES } state;
    struct buffer lo, hi;    /* internal keys; hi empty: to the end of the space */
    struct buffer position;  /* COLLECTS: goes on with the versions of this key, */
    uint64_t position_stamp; /* of this stamp and below */
    int64_t to;              /* newest revision that the window may hold */
    int64_t lowest;          /* in the window */
    struct found *window;    /* from `given` on; COLLECTS: a heap, GIVES: as in the log */
    size_t n, capacity, given, bytes;
    uint64_t parked; /* without members: when it lost the last one */
};
#define SCANS 4

struct watch_hub {
    struct watch_hub_options options;
    uint64_t seed;
    struct thread thread;
    _Atomic uint64_t term; /* of answers */
    bool started;          /* [whoever starts and frees] */

    struct mutex lock;
    struct condition wake;                     /* [lock] there is something to do */
    struct condition over;                     /* [lock] `stopped` */
    struct command *head, **tail;              /* [lock] */
    bool sleeping, stopping, stopped, exiting; /* [lock] */
    int stop_error;                            /* [lock] */
    struct mutex published_lock;               /* leaf: the three belong together */
    struct {
        uint64_t index;
        int64_t revision, compacted;
    } published;             /* [published_lock] */
    _Atomic uint64_t index;  /* the same, to look at without the lock */
    _Atomic bool interested; /* somebody watches: publish() wakes the hub */

    /* hub's thread */
    uint64_t limit;                 /* index published at the beginning of the turn */
    int64_t revision, compacted;    /* and the revisions that go with it */
    struct wal_reader *tail_reader; /* NULL: nobody is synced */
    uint64_t entries;               /* given out, to whatever index */
    uint64_t tail_entries;          /* of them, in this turn to synced watchers */
    int64_t done;        /* synced watchers were given all events up to here, */
    uint64_t done_index; /* between turns: all of the log up to here */
    struct watch_index synced;
    struct watcher *waiting;
    struct pass pass[PASSES];
    uint32_t next_pass;       /* whose turn it is */
    int64_t passes_compacted; /* compacted revision that members were compared with */
    int64_t
        log_missing; /* the log is known not to reach back to this revision; 0: none */
    struct watcher *below, **below_end;
    struct scan scan[SCANS];
    uint32_t next_scan; /* whose turn it is */
    uint64_t n_parked;  /* times that a scan lost its last member */
    struct watch_stream *streams, *dirty;
    struct watcher **ids; /* hash of (stream, id) */
    uint64_t id_buckets;
    uint64_t n_streams, n_watchers, n_unsynced;
    struct block_account *memory; /* of events, waiting or on their way */
    size_t backlog;               /* of all streams */
    uint64_t n_events;            /* in it, and in messages that are being made */
    uint64_t n_sent;              /* events given to the transport */
    uint64_t n_notified;          /* watchers with progress_notify */
    uint64_t next_tick_ns;
    struct watcher *refused;   /* had no room for the current entry; stalled behind it */
    struct mvcc_reader reader; /* for values, within one slice of entries */
    bool reads_all;            /* ... and the engine was complete then */
    bool reading;
    uint64_t bytes_read;  /* of values, for scans */
    struct chain scratch; /* an event while it is encoded, or a message's head */
    struct buffer ikey;
    int ended; /* error that streams get (stopped, or failed); 0: running */
};

/* stream.c */
void stream_command(struct watch_hub *h, struct command *c);
void stream_open(struct watch_stream *s);
void stream_free(struct watch_stream *s);
/* Ends all streams with an error, and all that come. */
void streams_end(struct watch_hub *h, int error);
/*
 * Ends a watcher because what it would have to be given next is not there any more; what it
 * was given before is sent first.
 */
void watcher_compacted(struct watcher *w, int64_t compacted);
/* Messages without events to those that asked for progress_notify and were idle. */
void streams_notify(struct watch_hub *h, uint64_t now_ns);

/* queue.c */
struct item *queue_answer(struct watch_stream *s, enum item_kind kind, int64_t watch_id,
                          int64_t revision);
/* True: the watcher may be given the events of another revision. */
bool queue_has_room(const struct watch_stream *s);
/* True: the watcher was already given an event of this revision. */
bool queue_has_revision(const struct watcher *w, int64_t revision);
/* Adds an encoded event to what waits for the watcher. */
void queue_event(struct watcher *w, int64_t revision, struct block *event);
/* Takes back the events of the newest revision that the watcher was given. */
void queue_undo(struct watcher *w);
/* Brings the metrics to what the hub has come to. */
void queues_tell(struct watch_hub *h);
/* What waits for a watcher that ends: dropped (but begun fragments), or still sent. */
void queue_drop(struct watcher *w);
void queue_orphan(struct watcher *w);
void queue_free(struct watch_stream *s);
/* Sends what can be sent on all dirty streams. */
void queues_pump(struct watch_hub *h);
void queue_mark_dirty(struct watch_stream *s);

/* follow.c */
/* Adds a watcher to where it belongs; takes it out before it is freed. */
void follow_place(struct watch_hub *h, struct watcher *w, enum watcher_place place);
void follow_displace(struct watch_hub *h, struct watcher *w);
/* The same for one that has a place already. */
void follow_move(struct watch_hub *h, struct watcher *w, enum watcher_place place);
void follow_join(struct watch_hub *h, struct watcher *w, struct pass *p);
/* Moves those that had no room for the entry just given out. */
void follow_stall_refused(struct watch_hub *h);
/* The backlog of a stream has been worked off. */
void follow_unstall(struct watch_stream *s);
/* Gives the synced watchers everything up to hub.limit. */
void follow_tail(struct watch_hub *h);
/* A slice of one pass; more while the log grows fast. */
void follow_passes(struct watch_hub *h);
/* True if follow_passes() has something to do. */
bool follow_has_passes(struct watch_hub *h);
void follow_close(struct watch_hub *h);
/* Log or engine cannot be read: reports it and ends all streams. */
void follow_failed(struct watch_hub *h, const struct error *error);

/* scan.c */
/* A waiting watcher to which the log does not reach back: into a scan, or to those that wait. */
void scans_take(struct watch_hub *h, struct watcher *w);
/* A slice of work; more while the log grows fast. */
void scans_run(struct watch_hub *h);
/* True if scans_run() has something to do. */
bool scans_have_work(struct watch_hub *h);
/* hub.compacted has grown. */
void scans_overtaken(struct watch_hub *h);
/* The last member of a scan has left it. */
void scan_left(struct watch_hub *h, struct scan *s);
/* No watcher may be left in a scan. */
void scans_close(struct watch_hub *h);

/* event.c */
/*
 * Gives the entry's events to the watchers of an index.  *revision: the store's after it.
 * CORRUPT: it cannot be decoded; else what reading a previous value failed with.
 */
t4_status events_of_entry(struct watch_hub *h, struct watch_index *ix,
                          struct t4_slice entry, int64_t *revision, struct error *error);
/* The same for one version of a user key that is in mvcc: the change that made it. */
t4_status events_of_version(struct watch_hub *h, struct watch_index *ix,
                            struct t4_slice key, int64_t revision, bool deleted,
                            struct error *error);
/* Begins the reading of values, if that was not done; else the first one that is needed does. */
t4_status events_begin_slice(struct watch_hub *h, struct error *error);
/* Ends it; to be called before anything is sent. */
void events_end_slice(struct watch_hub *h);

#endif

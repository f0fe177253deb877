/*
 * watch_int.h - what the files of this folder share.
 *
 * hub.c     the thread: commands, tail of the log, catching up, timers
 * stream.c  streams and watchers: requests, what waits to be sent, sending
 * event.c   an entry of the log -> events, encoded once
 * index.c   which watchers match a key
 *
 * Everything but the command queue belongs to the hub's thread.
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

/* --- index.c ------------------------------------------------------------------------------ */

/* Single keys in a hash, ranges in a treap with the largest end below each node. */
struct watch_index {
    uint64_t seed, buckets, singles;
    struct watcher **bucket;
    struct watcher *root;
};

void watch_index_init(struct watch_index *ix, uint64_t seed);
void watch_index_free(struct watch_index *ix);
void watch_index_add(struct watch_index *ix, struct watcher *w);
void watch_index_remove(struct watch_index *ix, struct watcher *w);
/* Calls fn for each watcher whose range holds the key.  fn may not change the index. */
void watch_index_match(struct watch_index *ix, struct t4_slice key,
                       void (*fn)(struct watcher *w, void *arg), void *arg);

/* --- watchers and streams -------------------------------------------------------------------- */

enum watcher_place {
    PLACE_SYNCED,  /* in hub.synced: has everything up to hub.done */
    PLACE_WAITING, /* in hub.waiting: behind, waits for a pass over the log */
    PLACE_PASS,    /* in the pass that is running */
};

struct watcher {
    struct watch_stream *stream;
    struct watcher *stream_next; /* list of the stream */
    struct watcher **stream_link;
    struct watcher *queue_next, **queue_link; /* waiting or pass list */
    int64_t id, start; /* as requested; start <= 0: from then on */
    int64_t next;      /* first revision not yet given to it */
    int64_t queued;   /* newest revision in `pending` */
    struct chain pending; /* encoded events, whole revisions */
    uint32_t *length;     /* of each event in it; for watchers that asked for fragments */
    uint32_t n_lengths, lengths_capacity;
    uint64_t idle_since_ns; /* for progress_notify */
    enum watcher_place place;
    bool ready;           /* in the stream's list of those with pending events */
    bool owes_progress;   /* a progress message waits for its pending events */
    bool progress_notify, prev_kv, fragment, no_put, no_delete;
    bool refused;         /* no room for the current revision: in hub.overflow */
    struct watcher *ready_next, *overflow_next;
    /* index */
    struct watcher *left, *right; /* or, for single keys, left = next in the bucket */
    uint64_t priority;
    struct t4_slice key, end; /* end empty: a single key */
    bool open;                /* no upper bound */
    struct t4_slice max_end;  /* of the subtree; valid unless max_open */
    bool max_open;
    uint8_t bytes[];
};

struct message {
    struct message *next;
    struct chain chain;
};

struct watch_stream {
    struct watch_hub *hub;
    const struct watch_transport *transport;
    void *arg;
    struct watch_stream *next, **link;  /* all streams of the hub */
    struct watch_stream *dirty_next;
    bool dirty, ended, chosen_ids; /* chosen_ids: the client gave ids of its own */
    struct watcher *watchers;
    uint32_t n_watchers;
    int64_t next_id;
    struct message *control, **control_tail; /* answers, before any events */
    struct watcher *ready, **ready_tail;     /* watchers with pending events */
    size_t backlog;                          /* bytes in pending chains */
    uint32_t owing;         /* watchers that owe before the progress message may go */
    uint32_t progress_wanted; /* answers to progress requests that wait for `owing` */
    int64_t progress_revision;
    struct {                /* what is left of a message that is sent in pieces */
        int64_t watch_id;   /* n == 0: nothing */
        struct buffer bytes;
        size_t at;
        uint32_t *length, i, n; /* of events */
    } fragments;
    /*
     * IDLE: nothing is with the transport.  BUSY: a message is.  BUSY_MORE: and the hub wants
     * to hear when it is sent.
     */
    _Atomic int state;
};
enum { STREAM_IDLE, STREAM_BUSY, STREAM_BUSY_MORE };

struct command {
    enum { COMMAND_OPEN, COMMAND_CREATE, COMMAND_CANCEL, COMMAND_PROGRESS, COMMAND_SENT,
           COMMAND_CLOSE } kind;
    struct command *next;
    struct watch_stream *stream;
    int64_t watch_id; /* to cancel */
    struct watch_create create;
    uint8_t bytes[];
};

struct watch_hub {
    struct watch_hub_options options;
    uint64_t seed;
    struct thread thread;

    struct mutex lock;
    struct condition wake;
    struct command *head, **tail; /* [lock] */
    bool sleeping, stopping, stopped; /* [lock] */
    int stop_error;               /* [lock] */
    struct mutex published_lock;  /* leaf: the three belong together */
    struct {
        uint64_t index;
        int64_t revision, compacted;
    } published;                  /* [published_lock] */
    _Atomic uint64_t index;       /* the same, to look at without the lock */
    int64_t revision, compacted;  /* [hub's thread] of the turn */
    _Atomic bool interested;      /* somebody watches: publish() wakes the hub */

    /* hub's thread */
    struct wal_reader *tail_reader; /* NULL: nobody is synced */
    int64_t done;                   /* synced watchers have all events up to here */
    struct watch_index synced;
    uint64_t n_watchers, n_unsynced;
    struct watcher *waiting;        /* unsynced, not in the pass */
    struct {                        /* one pass over older parts of the log */
        struct wal_reader *reader;  /* NULL: none is running */
        struct watch_index index;
        struct watcher *members;
        int64_t done;
    } pass;
    struct watch_stream *streams, *dirty;
    struct watcher *overflow;  /* refused the current entry; moved to waiting behind it */
    struct mvcc_reader reader; /* for prev_kv, within one batch of entries */
    bool reading;
    uint64_t n_notified;    /* watchers with progress_notify */
    uint64_t next_tick_ns;
    bool failed;            /* the log could not be read: the server is about to stop */
};

/* stream.c */
void stream_command(struct watch_hub *h, const struct command *c);
void stream_free(struct watch_stream *s);
void stream_mark_dirty(struct watch_stream *s);
/* Sends what can be sent on all dirty streams. */
void streams_pump(struct watch_hub *h);
/* True: the watcher may take the events of another revision. */
bool stream_has_room(const struct watch_stream *s);
/* Adds an encoded event to what waits for the watcher. */
void watcher_pend(struct watcher *w, int64_t revision, const struct chain *event);
/* Ends it: what it would have to be sent next has been compacted.  Frees w. */
void watcher_compacted(struct watcher *w, int64_t compacted);
/* Messages without events to those that asked for progress_notify and were idle. */
void streams_notify(struct watch_hub *h, uint64_t now_ns);
/* Ends all streams with an error. */
void streams_end(struct watch_hub *h, int error);

/* hub.c: adds a new watcher to where it belongs; takes one out before it is freed */
void hub_place(struct watch_hub *h, struct watcher *w, enum watcher_place place);
void hub_displace(struct watch_hub *h, struct watcher *w);

/* event.c: gives the entry's events to the watchers of an index. */
bool events_of_entry(struct watch_hub *h, struct watch_index *ix, struct t4_slice entry,
                     int64_t *revision);
void events_end_batch(struct watch_hub *h);

#endif

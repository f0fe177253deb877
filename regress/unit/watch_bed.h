/*
 * watch_bed.h - for tests of the watch hub: a store to watch, and clients that check all they
 * get.
 *
 * The store is a real log in a folder of its own and real versions over the memory engine.  A
 * plain array of all events is the reference.  A client is a transport: it decodes every
 * message and compares it at once with the reference and with what was sent before:
 *
 *   - events: those of the range and filters from the start on, each once, in order, a
 *     revision never in two messages (but in fragments, with nothing in between), none that is
 *     not published, none behind a cancel; every field of them
 *   - header: ids; a revision below which nothing is missing
 *   - answers: in the order of the requests; a progress message behind everything it speaks of
 *   - the transport never has two messages
 *
 * The first violation is kept in `why`; the bed's functions end the test with it.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef WATCH_BED_H
#define WATCH_BED_H

#include <limits.h>

#include "engine_bed.h"
#include "env/thread.h"
#include "pb/etcd/rpc.pb-c.h"
#include "watch/watch.h"
#include "wire/etcd_error.h"

#define BED_KEYS 48 /* "k00" to "k47" */
#define BED_EVENTS 200000
#define BED_CLUSTER 0xc1u
#define BED_MEMBER 0x3eu
#define BED_TERM 7u

struct past {
    int64_t revision;
    int key;
    bool deleted;
    struct t4_slice value;
    int64_t create_revision, version, lease;
    const struct past *before; /* of the same key; NULL or deleted: there was none */
};

struct watch_bed {
    char dir[PATH_MAX];
    struct bed engine;
    struct wal *wal;
    struct mvcc *mvcc;
    struct watch_hub *hub;
    struct watch_hub_options options;
    struct metrics metrics;
    struct wal_group group; /* entries not yet written */
    uint64_t group_index[64];
    int64_t group_revision[64];
    struct chance chance;

    struct mutex lock;
    struct condition changed;
    char why[400];                    /* [lock] */
    struct past *past;                /* [lock] BED_EVENTS */
    size_t n_past;                    /* [lock] */
    const struct past *now[BED_KEYS]; /* [lock] newest event of each key */
    int64_t revision;                 /* [lock] of the newest entry made */
    uint64_t index;                   /* [lock] */
    int64_t written;                  /* [lock] revision in the log */
    uint64_t written_index;           /* [lock] */
    int64_t published, compacted; /* [lock] being given to the hub: never more is sent */
    int64_t told; /* [lock] the hub has it: what begins now begins there or above */
    int64_t next_compacted; /* [lock] compaction in an entry not yet published */
    int64_t largest;        /* [lock] bytes of the events of one revision, at most */
    uint64_t failures;      /* [lock] calls of failed() */
    int64_t most_backlog;   /* [lock] */
    bool saw_unsynced;      /* [lock] */
};

enum watched_state {
    WATCHED_ASKED,
    WATCHED_REFUSED,
    WATCHED_CREATED,
    WATCHED_CANCELED,
    WATCHED_COMPACTED
};

/* A watch as its client sees it. */
struct watched {
    struct watched *next;
    struct t4_slice key, end;
    struct watch_create request;
    const char *refusal; /* text of the answer that is expected, or NULL */
    enum watched_state state;
    bool cancel_asked;
    int64_t id, from; /* first revision */
    int64_t asked_at; /* told then */
    int64_t newest;   /* revision of the newest event */
    int64_t progress; /* newest progress message that speaks for it */
    size_t at;        /* position in the reference */
    uint64_t events, messages, fragments, notices, with_prev, without_prev;
};

struct client {
    struct watch_bed *bed;
    struct watch_stream *stream;
    struct watched *watched, **end; /* in order of request */
    struct watched *open_fragment;
    bool reading;   /* takes messages as they come; else one, which it holds */
    bool owes;      /* a message was not yet reported sent */
    bool unchecked; /* [const] its messages are not looked at */
    int ended;      /* error, 0: not */
    bool closed;
    int64_t progress_asked[256], progress_newest;
    uint64_t n_asked, n_progress;
    uint64_t messages;
};

#define FROM(n) (&(struct watch_create){.start_revision = (n)})

/* Fills in defaults; change b->options and b->engine.ops before watch_bed_start(). */
struct watch_bed *watch_bed_new(void);
void watch_bed_start(struct watch_bed *b);
/*
 * A restart that finds no log: it begins behind everything that there is, and what was before
 * can only be found among the versions.  No client may be open, all must be published.
 */
void bed_lose_log(struct watch_bed *b);
/* Drops what segments it can of the log, while everything goes on. */
void bed_drop_segments(struct watch_bed *b);
void watch_bed_free(struct watch_bed *b);
/* Ends the test if a check has failed. */
void watch_bed_check(struct watch_bed *b);

struct change {
    int key;
    bool delete;
    size_t bytes; /* of the value */
};
/* An entry of n changes (0: one that changes no key); written by bed_write(). */
void bed_entry(struct watch_bed *b, const struct change *changes, size_t n);
void bed_compaction(struct watch_bed *b, int64_t revision);
void bed_write(struct watch_bed *b);   /* writes and syncs; nobody may see it yet */
void bed_publish(struct watch_bed *b); /* what is written */
void bed_put(struct watch_bed *b, int key, size_t bytes); /* all of that */
/* A random entry. */
void bed_random_entry(struct watch_bed *b, struct chance *c);
/* Brings everything into the engine and compacts there. */
void bed_flush(struct watch_bed *b);

struct client *client_open(struct watch_bed *b, bool reading);
/* range: "k", "k end" or "k *" (no upper bound); the rest as in *options (may be NULL). */
struct watched *client_watch(struct client *c, const char *range,
                             const struct watch_create *options);
struct watched *client_watch_range(struct client *c, struct t4_slice key,
                                   struct t4_slice end,
                                   const struct watch_create *options,
                                   const char *refusal);
void client_cancel(struct client *c, struct watched *w);
void client_progress(struct client *c);
void client_stop_reading(struct client *c);
void client_read(struct client *c);   /* goes on reading */
void client_report(struct client *c); /* reports one message as sent, if there is one */
/* Waits until every request is answered and every watch has all that is published. */
void client_settle(struct client *c);
/* Waits for an answer that comes behind everything asked before (a refused create). */
void client_barrier(struct client *c);
void client_close(struct client *c);
/* Waits until it is so.  [condition]: called with the bed's lock. */
void bed_wait(struct watch_bed *b, const char *what, bool (*condition)(void *arg),
              void *arg);

#endif

/*
 * objectlog_int.h - what the files of this folder share.
 *
 * store.c   one request with its retries; the two conditional writes with their outcomes
 * open.c    what stands in the store, bootstrap
 * take.c    take-over; changes of the lock by its holder
 * log.c     reading the chain
 * append.c  appending to it, several segments in flight
 * archive.c reading and making archives
 *
 * Locks: objectlog.lock is a leaf; note_lock is held in the callback `degraded`, and nothing
 * else is locked in here under it.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef OBJECTLOG_OBJECTLOG_INT_H
#define OBJECTLOG_OBJECTLOG_INT_H

#include <stdatomic.h>

#include "codec/codec.h"
#include "env/thread.h"
#include "fmt/archive.h"
#include "objectlog/objectlog.h"

/* An object that is changed by compare-and-swap: its tag as received. */
struct tag {
    uint32_t length;
    char bytes[T4_TAG_MAX];
};

/* A segment on its way into a slot. */
struct flight {
    struct objectlog *chain;
    struct thread thread; /* puts what is in this place, one after the other */
    bool has_thread;
    bool is_queued;  /* [lock] the thread has it to do, or does it */
    bool is_decided; /* [lock] status, error */
    uint64_t slot;   /* [lock] */
    uint64_t last;   /* index */
    uint8_t put_id[PUT_ID_BYTES], hash[HASH_BYTES];
    struct buffer body, there; /* there: what stands in a slot instead */
    t4_status status;
    struct error error;
};

struct objectlog {
    struct objectlog_options options;
    struct mutex lock;
    struct condition wake; /* of pauses */
    bool stop;             /* [lock] */
    struct mutex note_lock;
    bool is_degraded;  /* [note_lock] */
    unsigned repeated; /* [note_lock] requests that failed and are being repeated */
    struct buffer scratch, object, raw;

    struct lock_object leader;
    struct tag leader_tag;
    bool has_leader;
    struct manifest_object manifest;
    struct tag manifest_tag;
    bool has_manifest;
    struct cluster_object cluster;
    bool has_cluster;

    struct chain_floor begin; /* of the next read; zeros: the beginning of the log */
    uint64_t seen_term;       /* highest in the chain as it was read */
    uint64_t term;            /* ours; 0: not taken over */
    uint64_t fence_slot;
    uint64_t ahead_to; /* slots below it were asked for ahead */
    uint64_t
        settled;     /* no object of a lower term can get into this slot or a later one */
    bool positioned; /* objectlog_read() has brought the tail to the fence */
    struct chain_floor place; /* what was accepted ends here */
    struct chain_floor end;   /* with what is in flight; next_slot: [lock] */

    struct flight flights[WINDOW_MAX];
    unsigned oldest, n_flights;      /* [lock] a ring */
    struct condition work, decision; /* a flight is queued; decided */
};

/*
 * How long a request is repeated.  SETTLE: until it is decided, whatever it takes (a leader's
 * slot).  TRY: as long as its outcome is open; a certain failure comes back after a few.
 */
enum persistence { TRY, SETTLE };

/* Reads a whole object; NOTFOUND is an answer. */
t4_status objectlog_get(struct objectlog *c, const char *key, size_t limit,
                        struct buffer *out, struct tag *tag, enum persistence how,
                        struct error *error);
/*
 * Stores `body` under a condition (tag NULL: if absent).  OK: stored, *new_tag is its tag.
 * PRECONDITION: lost; *current holds what is there instead.  `mine` recognises our own body
 * by its put id.
 */
t4_status objectlog_put(struct objectlog *c, const char *key, struct t4_slice body,
                        const struct tag *tag,
                        bool (*mine)(struct t4_slice object, void *arg), void *arg,
                        enum persistence how, struct buffer *current, struct tag *new_tag,
                        struct error *error);

/* As object_list(), tried a few times: `fn` may be told of a key twice. */
t4_status objectlog_list(struct objectlog *c, const char *prefix, const char *after,
                         uint32_t max, t4_list_fn *fn, void *arg, struct error *error);

/* For objectlog_put(): the object carries this put id. */
bool objectlog_is_my_lock(struct t4_slice object, void *put_id);
bool objectlog_is_my_manifest(struct t4_slice object, void *put_id);
bool objectlog_is_my_segment(struct t4_slice object, void *put_id);
void objectlog_new_put_id(struct objectlog *c, uint8_t id[PUT_ID_BYTES]);
/* What a move has marked is nobody's to take: INVALID, and where it went. */
t4_status objectlog_refuse_marked(struct objectlog *c, struct error *error);
t4_status objectlog_read_lock(struct objectlog *c, struct error *error);
t4_status objectlog_read_manifest(struct objectlog *c, struct error *error);
/* CAS of the lock to `next`; on success it becomes the current one. */
t4_status objectlog_swap_lock(struct objectlog *c, const struct lock_object *next,
                              enum persistence how, struct error *error);
/*
 * One object of the chain against what was accepted before it (*t): an accepted segment's entries
 * go to fn, what is to be passed over is counted.  CORRUPT, or PRECONDITION (a higher term).
 */
t4_status objectlog_accept(struct objectlog *c, const char *key, struct t4_slice object,
                           objectlog_entry_fn *fn, void *arg, struct objectlog_tail *t,
                           struct error *error);
/* Reads archives from t->next_slot to the manifest's floor at least. */
t4_status objectlog_read_archives(struct objectlog *c, objectlog_entry_fn *fn, void *arg,
                                  struct objectlog_tail *t, struct error *error);
t4_status objectlog_damaged(const char *key, t4_status status, struct error *error);
t4_status objectlog_broken(const char *key, struct error *error, const char *what);
t4_status objectlog_led_by(const char *key, uint64_t term, struct error *error);
/* append.c: ends the threads.  Waits for the requests that they have under way. */
void objectlog_end_flights(struct objectlog *c);

#endif

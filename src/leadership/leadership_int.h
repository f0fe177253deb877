/*
 * leadership_int.h - what the files of this folder share.
 *
 * memory.c     what the data directory remembers of the store
 * acquire.c    from a URL to a term: probe, bootstrap, waiting, take-over
 * built_in.c   the same for the store in the data directory
 * joint.c      the local log and the chain become one; reset entry
 * upload.c     the leader's loop: segments, rule, lease, watch over the lock, release
 * leadership.c the handle: threads, waits, views
 *
 * Lock: leadership.lock is a leaf; nothing is called with it held.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef LEADERSHIP_LEADERSHIP_INT_H
#define LEADERSHIP_LEADERSHIP_INT_H

#include <stdatomic.h>

#include "env/thread.h"
#include "leadership/leadership.h"
#include "objectlog/objectlog.h"

#define SECOND UINT64_C(1000000000)
#define MILLISECOND UINT64_C(1000000)
#define PATH_MAX_BYTES 4200
#define BUILT_IN_URL "(built-in)" /* in the memory: it moves with the directory */

/* The entries of one segment. */
struct batch {
    uint64_t first, last;
    uint32_t entries, raw_bytes;
    uint64_t bytes;              /* as leadership_synced() counts them */
    int64_t revision, compacted; /* after the last one */
    uint64_t began_ns;
};

/* What stood in the lock before it was taken. */
struct joint {
    bool was_ours; /* it named this directory with the last term it asked for or led */
    bool released; /* it was given back with everything in the chain */
    uint64_t released_index;
    uint32_t rule; /* in force */
};

/* What the directory remembers, <data>/store-memory. */
struct memory {
    uint64_t incarnation; /* of the directory that wrote this */
    char url[LOCATION_BYTES];
    bool probed; /* the store of this URL passed the probe */
    uint64_t cluster_id, lineage;
    uint64_t lock_counter, manifest_counter; /* highest seen */
    uint64_t term;                           /* last asked for */
    uint64_t led_term;        /* last one that the local log was started with */
    uint32_t rule;            /* led by; 0: never led */
    bool joining;             /* a take-over was begun and not completed: */
    struct joint taken;       /* ... from a lock that said this */
    struct chain_floor place; /* read and accepted up to here */
};

struct leadership {
    struct leadership_options options;
    char *data_dir, *address;
    struct leadership_ids ids;
    struct objectlog *chain; /* [store thread, or before it starts] */
    enum objectlog_found found;
    struct memory memory; /* [store thread, or before it starts] */
    struct memory stored; /* as it stands on the disk */
    uint64_t stored_ns;

    struct wal *wal;
    uint64_t local_end; /* [store thread] of the log at start, then as joined */
    bool log_is_whole;  /* it was found to hold everything this directory acknowledged */
    uint64_t recovered_term;  /* newest in the local log at start */
    uint64_t log_begins;      /* and there is no engine; 0: there is one */
    struct chain_floor begun; /* place of the checkpoint that this process began from */
    uint64_t base_term, base_index; /* of the checkpoint that the engine needs; 0: none */
    bool probed; /* [store thread, or before it starts] in this process */
    /* The probe takes ten requests, one by one, while reading goes on. */
    struct thread probing;
    bool probe_runs; /* [store thread, or before it starts] */
    t4_status probe_status;
    struct error probe_error;
    bool
        opened; /* [store thread, or before it starts] a moment ago, by leadership_identify() */

    /* [store thread] the built-in store */
    uint64_t built_in_term; /* led by, also while it is not taken */
    bool taken;             /* it stands in the lock */
    uint64_t retry_ns;      /* taking it failed: not before this again; 0: never failed */

    struct mutex lock;
    struct condition wake;         /* the store thread */
    struct condition changed;      /* whoever waits for the state */
    enum leadership_state state;   /* [lock] */
    struct error why;              /* [lock] */
    bool degraded;                 /* [lock] */
    char degraded_why[512];        /* [lock] */
    bool stopping, finish;         /* [lock] finish: upload, release, end */
    bool sleeping, woken;          /* [lock] */
    bool started, thread_ended;    /* [lock] */
    struct leadership_wait *waits; /* [lock] */
    uint32_t n_waits;              /* [lock] */
    uint64_t synced, synced_ns;    /* [lock] last index, and since when */
    uint64_t waiting_bytes;        /* [lock] of entries not uploaded ... */
    uint64_t waiting_since_ns;     /* [lock] of the oldest of them; 0: none */
    uint64_t unsent_bytes;         /* [lock] of those in no segment yet ... */
    uint64_t unsent_since_ns;      /* [lock] */
    uint64_t object_index;         /* [lock] */
    int64_t object_revision;       /* [lock] */
    uint64_t hurry_to;             /* [lock] an index whose upload somebody waits for */
    uint64_t term_shown;           /* [lock] */

    struct thread thread;
    _Atomic bool leads;
    _Atomic uint64_t lease_until_ns;
    _Atomic bool renew_wanted;
    _Atomic uint64_t remembered; /* memory.place.last_index as it stands on the disk */
    _Atomic bool remember;       /* write the memory behind the next segment */
    _Atomic uint64_t unproven_since_ns;

    /* [store thread] the newest uploaded entry */
    uint64_t uploaded;
    int64_t revision, compacted;
    uint64_t time_ms;
    uint64_t renewed_ns, polled_ns;
    uint64_t put_ns;                       /* how long the last segment's PUT took */
    uint32_t last_entries, entries_before; /* of it, of the one before */
    uint64_t answered_ns;                  /* when its clients were */

    /* [store thread] segments in flight, a ring, and the log read for them */
    uint64_t sent; /* the newest entry in one, or uploaded */
    struct batch flights[WINDOW_MAX];
    unsigned oldest, n_flights;
    struct buffer raw;
    struct wal_reader *reader; /* stands behind `sent` */
};

/* memory.c */
t4_status memory_read(struct leadership *l, struct error *error);
t4_status memory_write(struct leadership *l, struct error *error);

/* acquire.c: until this server leads, or OK is impossible.  CANCELLED: stopped. */
t4_status acquire(struct leadership *l, struct leadership_acquired *out,
                  struct error *error);
/* Will asking the store again help? */
bool acquire_is_passing(t4_status status);
t4_status acquire_open(struct leadership *l, struct error *error);
/* Sleeps ns, or until stopped (then CANCELLED). */
t4_status leadership_pause(struct leadership *l, uint64_t ns, struct error *error);
/*
 * Waits for the probe, and says what it found; OK also where none is needed.  To be asked before the
 * first conditional write (I9).
 */
t4_status acquire_probe_result(struct leadership *l, struct error *error);
/* Is this the store that the directory knows? */
t4_status acquire_check_store(struct leadership *l, struct error *error);
/* Writes down what the store showed: its counters, and that it is this directory's. */
t4_status acquire_note_counters(struct leadership *l, struct error *error);
/* The store does not answer as it should (NULL: it does again). */
void leadership_note_degraded(struct leadership *l, const char *why);
/* Says what is waited for. */
void leadership_seek(struct leadership *l, const char *why);

/* joint.c */
/* Before a term is taken: would our tail be refused? */
t4_status check_tail(struct leadership *l, struct error *error);
t4_status join_logs(struct leadership *l, const struct joint *j, uint64_t term,
                    struct leadership_acquired *out, struct error *error);

/* built_in.c: one attempt, which only reads the store. */
t4_status acquire_built_in(struct leadership *l, struct leadership_acquired *out,
                           struct error *error);
/*
 * Takes the term in the store, before anything is put there.  BUSY: its disk is full or fails;
 * try again at l->retry_ns.
 */
t4_status built_in_take(struct leadership *l, struct error *error);

/* leadership.c: the store thread is to look what is due; any thread. */
void leadership_wake(void *leadership);

/* upload.c */
t4_status lead(struct leadership *l, struct error *error);
/* The chain ends with this entry; nothing is in flight. */
void upload_from(struct leadership *l, uint64_t uploaded);
/* Uploads the log up to `last`; nobody is told. */
t4_status upload_all(struct leadership *l, uint64_t last, struct error *error);

#endif

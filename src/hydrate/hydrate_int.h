/*
 * hydrate_int.h - what the files of this folder share.
 *
 * map.c      units and intervals: what is ready; the mark
 * fetch.c    objects of the store, a cache of them, one task's records out of them
 * hydrate.c  the handle: threads, asks, waits, progress
 *
 * Lock: hydration.lock is a leaf; requests to the store, merging and callbacks happen without it.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef HYDRATE_HYDRATE_INT_H
#define HYDRATE_HYDRATE_INT_H

#include <stdatomic.h>

#include "env/thread.h"
#include "hydrate/hydrate.h"
#include "sst/sst.h"

#define UNIT_BYTES (3u << 20) /* records, uncompressed */

/* A piece of the key space that is installed as a whole in the background. */
struct unit {
    struct buffer lo; /* smallest internal key; up to the next unit's */
    uint64_t bytes;   /* of the files that begin in it, uncompressed */
    bool done, failed;
    struct task *task; /* the one for all of it, or NULL */
    struct interval
        *interval; /* parts that are ready, by lo; an overlap hides one at worst */
    uint32_t n, capacity;
};

struct interval {
    uint8_t *lo; /* its own, hi behind it */
    uint32_t lo_bytes, hi_bytes;
};

/* A wait that hangs on a task. */
struct wait_link {
    struct hydration_wait *wait;
    struct wait_link *next;
};

struct task {
    struct mvcc_piece piece;
    struct hydration *h;
    uint32_t unit;
    bool whole, point; /* the whole unit; or one key */
    struct buffer lo, hi;
    struct wait_link *waits;           /* [lock] */
    struct task *next;                 /* [lock] in the queue */
    struct task *all_next, **all_link; /* [lock] */
    bool background;
};

enum file_state { FILE_ABSENT, FILE_FETCHING, FILE_READY };

/* A file of a run, with its bytes while they are wanted. */
struct file {
    const struct run_sst *sst;
    enum file_state state;      /* [lock] */
    struct buffer object;       /* while READY */
    uint32_t users;             /* [lock] */
    uint64_t hopeless_until_ns; /* [lock] not made again before this */
    struct file *newer, *older; /* [lock] READY and unused: a list by age */
};

struct hydration {
    struct hydration_options options;
    struct checkpoint_object checkpoint;
    struct run_index run[CHECKPOINT_RUNS_MAX]; /* constant once loaded */
    struct file *file[CHECKPOINT_RUNS_MAX];
    struct buffer mark_bits; /* of the mark resumed from; until loaded */
    uint32_t mark_units;

    struct mutex lock;
    struct condition work; /* for the threads */
    struct condition came; /* a file did, or did not */
    _Atomic bool complete;
    bool loaded, loading, stopping;    /* [lock] */
    struct unit *unit;                 /* [lock] */
    uint32_t n_units, n_done, next;    /* [lock] next: where the background goes on */
    struct task *urgent, **urgent_end; /* [lock] */
    struct task *all;                  /* [lock] every task there is */
    uint32_t n_tasks, n_background;    /* [lock] */
    uint64_t installing;               /* [lock] bytes handed to the engine thread */
    struct wait_link *loading_waits;   /* [lock] */
    struct file *prefetch[256];        /* [lock] a ring */
    uint32_t prefetch_first, n_prefetch;
    struct file *newest, *oldest; /* [lock] unused files */
    uint64_t cached;              /* [lock] bytes of READY files */
    uint64_t bytes, bytes_done, fetched, began_ns, told_ns; /* [lock] */
    char why[512];                                          /* [lock] */
    bool why_passes;                                        /* [lock] */
    struct thread *thread;
    uint32_t n_threads;
};

/* map.c */
/* Makes the units out of the run indexes, and takes the bits of a mark over.  False: they do not fit. */
bool map_build(struct hydration *h);
void map_free(struct hydration *h);
uint32_t map_unit_of(const struct hydration *h, struct t4_slice ikey);
/* The internal key that ends the unit (exclusive). */
struct t4_slice map_unit_end(const struct hydration *h, uint32_t unit);
/* Is [lo, hi) (hi.len 0: lo alone) within one interval of the unit?  [lock] */
bool map_covers(const struct unit *u, struct t4_slice lo, struct t4_slice hi);
void map_add_interval(struct unit *u, struct t4_slice lo,
                      struct t4_slice hi);              /* [lock] */
void map_unit_done(struct hydration *h, uint32_t unit); /* [lock] */
/* The mark with `extra` (UINT32_MAX: none) done as well.  [lock] */
void mark_encode(const struct hydration *h, uint32_t extra, struct buffer *out);
bool mark_decode(struct hydration *h, struct t4_slice mark);

/* fetch.c */
/* Reads the run indexes. */
t4_status fetch_runs(struct hydration *h, struct error *error);
/* Could the checkpoint hold anything of [lo, hi) (hi.len 0: of lo)? */
bool fetch_may_hold(const struct hydration *h, struct t4_slice lo, struct t4_slice hi);
/* Fills the task's piece. */
t4_status fetch_task(struct hydration *h, struct task *task, struct error *error);
/* One of the files that somebody will want soon.  [lock], which it gives up meanwhile. */
void fetch_prefetched(struct hydration *h);
/* The system records of all runs, merged. */
t4_status fetch_system(struct hydration *h, struct mvcc_piece *out, struct error *error);
void fetch_free(struct hydration *h);

#endif

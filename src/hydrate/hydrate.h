/*
 * hydrate.h - what the storage engine does not hold yet of the checkpoint it began with.
 *
 * A server on an empty disk serves as soon as it knows the newest checkpoint's run indexes and
 * has the log above it: files of the checkpoint are fetched when somebody touches a range that
 * is missing, and all others in the background.  What was fetched is verified, merged and
 * installed by the engine thread (mvcc.h, pieces); until then nobody may read there.
 *
 * Whoever is about to read asks first: hydration_ask() for each key or range, between
 * hydration_wait_begin() and _end().  Ready once is ready for ever.  A key that no run may hold
 * (bounds, filter) is ready at once.
 *
 * Threads: asks, tick and look from any; the rest as it says.  done() of a wait is called on any
 * thread, with no lock held, never from within a call of the asker.
 *
 * Invariants
 *  (1) a range is ready only when everything the checkpoint holds of it is in the engine
 *  (2) the mark in the engine says which units are, written with their last records
 *  (3) nothing is installed that was not verified: the object against its hash, each record
 *      against its checksum
 *  (4) "gone" is never taken for "empty": a missing or damaged object that cannot be made again
 *      fails its range, by name
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef HYDRATE_HYDRATE_H
#define HYDRATE_HYDRATE_H

#include "base/metrics.h"
#include "env/env.h"
#include "fmt/objects.h"
#include "mvcc/mvcc.h"
#include "object/object.h"

struct hydration;
struct run_index;

struct hydration_options {
    struct env *env;
    struct object_store *store;
    struct mvcc *mvcc;
    uint64_t timeout_ns; /* of one request to the store */
    uint32_t threads;    /* requests to the store at once */
    bool only_asked;     /* no background: for tests */
    struct metrics *metrics;
    void *arg;
    /*
     * Makes a file that is missing or damaged again: bytes with the hash that the run says.  Called
     * without a lock, on any of the threads, once a minute for a file that cannot be made.  NULL:
     * nobody can.
     */
    t4_status (*rebuild)(void *arg, const struct run_index *run, size_t which,
                         struct buffer *object, struct error *error);
    void (*poke)(void *arg);     /* wakes the engine thread */
    void (*complete)(void *arg); /* the engine holds everything; on the engine thread */
};

/*
 * For a new, empty engine: reads the run indexes of checkpoint `c` (all at once, a round trip),
 * seeds the engine with its system records (mvcc_seed()).  Errors: the store's; CORRUPT names
 * the object.
 */
t4_status hydration_begin(const struct hydration_options *options,
                          const struct checkpoint_object *c, struct hydration **out,
                          struct error *error);
/*
 * For an engine with this mark; sends nothing: the run indexes are read in the background.
 * CORRUPT: the mark is damaged.
 */
t4_status hydration_resume(const struct hydration_options *options, struct t4_slice mark,
                           struct hydration **out, struct error *error);
const struct checkpoint_object *hydration_checkpoint(const struct hydration *h);
/* Starts the threads; the engine thread runs, or will. */
void hydration_start(struct hydration *h);
/* Ends the threads; who waits is told CANCELLED.  The store was cancelled (object_cancel()). */
void hydration_stop(struct hydration *h);
/* The engine thread has ended. */
void hydration_free(struct hydration *h);

/* --- asking ------------------------------------------------------------------------------ */

struct hydration_wait {
    /*
     * OK: ask again, it may be ready.  CORRUPT: an object is missing or damaged.  Else the store
     * does not answer in time, or the server stops.
     */
    void (*done)(struct hydration_wait *w, t4_status status);
    uint32_t pending; /* the rest is the hydration's */
    t4_status status;
    uint64_t until_ns;
};

static inline void
hydration_wait_begin(struct hydration_wait *w)
{
    w->pending = 1;
    w->status = T4_OK;
    w->until_ns = 0;
}
/* The internal key `lo` (hi.len 0), or those in [lo, hi), within one space. */
void hydration_ask(struct hydration *h, struct hydration_wait *w, struct t4_slice lo,
                   struct t4_slice hi);
/*
 * READY: everything asked for is there.  WAITS: done() will be called, about `ns` from now at the
 * latest.  REFUSED: too many wait, or the server stops; done() will not be called.
 */
enum hydration_answer { HYDRATION_READY, HYDRATION_WAITS, HYDRATION_REFUSED };
enum hydration_answer hydration_wait_end(struct hydration *h, struct hydration_wait *w,
                                         uint64_t ns);
bool hydration_is_complete(struct hydration *h); /* any thread; cheap */
/* Ends waits whose time is over.  To be called a few times a second. */
void hydration_tick(struct hydration *h);

/* What a mark says without any store: which checkpoint, units done and all of them. */
struct hydration_mark {
    int64_t revision; /* the checkpoint's */
    uint64_t units, done;
};
/* False: it is damaged. */
bool hydration_mark_read(struct t4_slice mark, struct hydration_mark *out);

struct hydration_view {
    bool complete, loaded;
    uint64_t units, units_done;
    uint64_t bytes, bytes_done; /* of the checkpoint's records, uncompressed */
    uint64_t fetched;           /* bytes read from the store */
    uint64_t failed;            /* units with a missing or damaged object */
    uint64_t elapsed_ns;
    char why[512]; /* the newest failure; "" */
};
void hydration_look(struct hydration *h, struct hydration_view *out);

#endif

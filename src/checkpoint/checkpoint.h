/*
 * checkpoint.h - the leader's checkpointer: runs out of the log, checkpoints, folding, archives,
 * and the removal of what is not needed any more.
 *
 * One thread of its own, t4-checkpoint, does all of it in turn, so that one hand writes the
 * manifest and no other thing of this server does while it runs.  Writers never wait for it.  It
 * reads the local log and the object store, never the storage engine (design, I11).
 *
 * Threads: checkpointer_mark() by the store thread; checkpointer_look() and checkpointer_stop() from
 * any; the rest by the thread that made it.
 *
 * Invariants
 *  (1) a checkpoint ends at an accepted segment: everything in it is in the chain and committed
 *  (2) the same interval of the log gives the same objects on every node
 *  (3) what a manifest names was stored before it; an object of an earlier life is named only if
 *      the manifest that is replaced reaches it
 *  (4) the list of the manifest is the mark: what it does not reach is never named again, so
 *      deleting it may come late, twice, or from a deposed leader (pin.pml)
 *  (5) nothing is deleted unless every listing and every object that says what is needed was
 *      read whole (I8); fences and ignored leftovers are never deleted (I6)
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef CHECKPOINT_CHECKPOINT_H
#define CHECKPOINT_CHECKPOINT_H

#include "base/metrics.h"
#include "env/env.h"
#include "fmt/objects.h"
#include "object/object.h"
#include "sst/sst.h"
#include "wal/wal.h"

struct checkpointer;

/* An accepted segment: the chain holds the log up to `index`, and goes on at `place`. */
struct checkpoint_mark {
    uint64_t index;
    uint64_t bytes; /* of its entries, before compression */
    struct chain_floor place;
};

struct checkpointer_options {
    struct env *env;
    struct object_store *store; /* stays the caller's */
    uint64_t incarnation;       /* of this data directory */
    const char *address;        /* of this server; stays the caller's */
    uint64_t timeout_ns;        /* of one request */
    uint64_t first_pause_ns;    /* before the second try; 0: 50 ms */
    uint64_t term, generation;  /* led by */
    struct wal
        *wal; /* NULL, or if it does not reach back: entries are read from the chain */

    uint64_t interval_ns;    /* most time that an entry waits for a checkpoint */
    uint64_t interval_bytes; /* ... and most log */
    uint64_t
        least_interval_ns; /* between two checkpoints; 0: the lesser of 60 s and the interval */
    uint64_t retention_ns; /* how far back states can be restored; 0: two checkpoints */
    uint64_t fold_runs;    /* fold when there are that many; 0: 16 */
    uint64_t
        build_bytes; /* log that makes one run: 32 MiB everywhere (0), but in tests */
    struct metrics *metrics;

    /* Called on the checkpointer's thread, with no lock held. */
    void *arg;
    /* A checkpoint that holds everything up to `index` is in the manifest. */
    void (*covered)(void *arg, uint64_t index);
    /*
     * Index up to which this data directory remembers durably to have read the chain: the log
     * above it is kept in the store, so that this directory's own restart finds its place.  NULL:
     * nobody needs to.
     */
    uint64_t (*remembered)(void *arg);
    /*
     * Does this server still fill its engine from a checkpoint?  While it does none is taken off
     * the list.  NULL: it never does.
     */
    bool (*filling)(void *arg);
    /* The manifest is of another term: the thread ends. */
    void (*deposed)(void *arg, const struct error *why);
};

struct checkpointer *checkpointer_new(const struct checkpointer_options *options);
/* `mark`: where the chain stands now. */
void checkpointer_start(struct checkpointer *c, const struct checkpoint_mark *mark);
void checkpointer_mark(struct checkpointer *c, const struct checkpoint_mark *mark);
/* Asks the thread to end; a request under way ends at its timeout, or by object_cancel(). */
void checkpointer_stop(struct checkpointer *c);
void checkpointer_free(struct checkpointer *c); /* stops and waits; NULL is fine */

struct checkpoint_view {
    uint64_t index; /* of the newest checkpoint; 0: none */
    int64_t revision;
    uint64_t time_ms, runs, bytes; /* of its runs' files */
    uint64_t kept;                 /* checkpoints on the list */
    uint64_t archived;             /* slots of the chain that lie in archives */
    bool failing;
    char why[512]; /* of the newest failure that is not made good yet */
};
void checkpointer_look(struct checkpointer *c, struct checkpoint_view *out);

/* --- what is damaged -------------------------------------------------------------------------- */

struct run_index;
struct rebuild_options {
    struct env *env;
    struct object_store *store;
    uint64_t incarnation, timeout_ns;
};
/*
 * Makes file number `which` of a run again from the log that the store still has, without the
 * file itself; *object has the hash that its name says, so it is put back whoever leads (a
 * failure of that is only logged).  Any thread; reads the log since a listed checkpoint, so it
 * may take long.  Errors: INVALID, CORRUPT: what it would need is not there any more, or does
 * not give those bytes; NOMEM: too much was written to its keys; the store's.
 */
t4_status checkpoint_rebuild(const struct rebuild_options *options,
                             const struct run_index *run, size_t which,
                             struct buffer *object, struct error *error);

/* --- a store that begins with a checkpoint ------------------------------------------------- */

/*
 * Makes an empty store, which `log` was opened on for a restore, into one whose first checkpoint
 * holds the records (sst_merge order, of spaces k, l and s, stamps in l and s 1).  The same records and
 * values give the same objects, so it may be done again after any failure.
 */
struct checkpoint_seed {
    uint64_t cluster_id, lineage, holder, time_ms;
    enum commit_rule rule;
    int64_t revision, compacted; /* compacted: in force; -1: never */
};
#define CHECKPOINT_SEED_INDEX 1 /* the entry that the records are said to come from */
struct objectlog;
t4_status checkpoint_seed(struct objectlog *log, const struct checkpoint_seed *seed,
                          struct sst_source records, struct error *error);

/* --- t4 gc -------------------------------------------------------------------------------- */

/* One removal by hand. */
struct gc_options {
    struct env *env;
    struct object_store *store;
    uint64_t timeout_ns;
    bool dry_run;
    uint64_t retention_ns; /* of a round whose retirements are shown; dry_run only */
    void *arg;
    /* An object that is (or would be) deleted. */
    void (*removing)(void *arg, const char *key, uint64_t bytes);
    /* A checkpoint that a round of the leader would take off the list. */
    void (*retiring)(void *arg, const struct checkpoint_name *checkpoint);
};
struct gc_result {
    uint64_t objects, bytes;   /* deleted, or that would be */
    uint64_t kept, kept_bytes; /* of these kinds: reached, or not old enough to tell */
    bool pinned;               /* something lies below branches/: nothing is deleted */
};
/*
 * Deletes what the manifest does not reach and is older than its newest checkpoint, or of a lower
 * term.  Takes no lock and writes no object.  NOTFOUND: no complete store; CORRUPT; PRECONDITION:
 * another server has taken over meanwhile.
 */
t4_status checkpoint_gc(const struct gc_options *options, struct gc_result *result,
                        struct error *error);

#endif

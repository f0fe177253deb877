/*
 * leadership.h - who leads a prefix of the object store, and how the local log and the chain
 * there become one.
 *
 * One thread per data directory, the store thread, does all of it in turn (only the PUTs of
 * segments go on beside it, in threads of objectlog's): it takes the term
 * (waiting where somebody else may lead), joins the local log with the chain, and from then on
 * uploads what the log has synced, renews the leadership lease when somebody asks for it,
 * notices when another server takes over, and gives the lock back at the end.
 *
 * Two commit rules.  OBJECT: an entry is committed when it is in the chain; the events tell
 * when.  LOCAL: it is committed when it is synced here and is uploaded later; what a lost disk
 * would take with it is bounded by age and shown.
 *
 * Invariants
 *  (1) only what is durable in the local log is uploaded, in order, without a hole
 *  (2) nothing is reported as uploaded before its segment, and every one before it, is accepted
 *      in the chain
 *  (3) after joining, the local log holds everything the chain holds, entry for entry
 *  (4) an acknowledged write is cut off the local log only when told to (discard)
 *  (5) the term is written to the directory before it is asked for: a restarted process knows
 *      whether the lock that names it is the one it asked for last (design, I5)
 *  (6) a lease counts from before its renewal was sent; nobody is told that it is valid later
 *      than lease_ms after that (lease.pml)
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef LEADERSHIP_LEADERSHIP_H
#define LEADERSHIP_LEADERSHIP_H

#include "base/metrics.h"
#include "env/env.h"
#include "fmt/objects.h"
#include "object/object.h"
#include "wal/wal.h"

struct leadership;

enum leadership_state {
    LEADERSHIP_SEEKING, /* not (yet) the leader: the store is not reached or must be waited for */
    LEADERSHIP_LEADING,
    LEADERSHIP_DEPOSED, /* another server has taken over; final */
    LEADERSHIP_ENDED    /* stopped, or failed */
};

struct leadership_acquired {
    uint64_t term, generation;
    uint64_t object_frontier; /* index up to which the chain holds the log */
    int64_t object_revision;  /* of that entry */
    struct chain_floor place; /* where the chain goes on behind it */
    bool all_leases_full; /* a reset entry was appended: every lease gets its full time */
};

struct leadership_options {
    struct env *env;
    struct object_store *store; /* stays the caller's */
    const char *data_dir;
    const char *address;   /* of this server, for the words that others print */
    enum commit_rule rule; /* that this server is to lead by */
    uint64_t incarnation;
    uint64_t lease_ms;      /* of the leadership lease under OBJECT */
    uint64_t upload_age_ns; /* LOCAL: longest time that an entry waits for its upload */
    uint32_t window;        /* segments under way at once, 1 to WINDOW_MAX */
    uint32_t segment_bytes; /* of entries, before compression: a segment is full */
    uint64_t timeout_ns;    /* of one request to the store */
    bool take_over_now, discard_divergent_tail, unsafe_store;
    /*
     * The store is a folder of the data directory: who holds the directory's lock leads, and
     * nothing waits for the store.  Rule LOCAL only.
     */
    bool built_in;
    struct metrics *metrics;

    /* All are called on the store thread, with no lock held. */
    void *arg;
    /*
     * The local log lacks so much that this server begins from the newest checkpoint: its engine
     * is to be made anew from it, before the log is started.  Then `acquired` follows.
     */
    t4_status (*rebase)(void *arg, const struct checkpoint_object *c,
                        struct error *error);
    /*
     * The term is ours, the log is joined and started.  Returning anything but OK ends the
     * leadership with `failed`.
     */
    t4_status (*acquired)(void *arg, const struct leadership_acquired *a,
                          struct error *error);
    /* The chain holds everything up to `index`; the revisions are those after that entry. */
    void (*uploaded)(void *arg, uint64_t index, int64_t revision, int64_t compacted);
    /*
     * The same, after everything else that is done with it: `bytes` of entries were accepted, the
     * chain goes on at `place`.  For what follows the chain (checkpoints).
     */
    void (*accepted)(void *arg, uint64_t index, uint64_t bytes,
                     const struct chain_floor *place);
    /* Another server leads.  Nothing may be acknowledged any more. */
    void (*deposed)(void *arg, const struct error *why);
    /* The store is damaged, refuses us for good, or the log failed. */
    void (*failed)(void *arg, const struct error *error);
    /* `ns` of time in which leadership could not be proven are over (no lease may expire by). */
    void (*unproven)(void *arg, uint64_t ns);
};

/* What a store says of itself. */
struct leadership_ids {
    bool found; /* false: the prefix is empty */
    uint64_t cluster_id, lineage, generation;
};

/*
 * Reads the directory's memory of the store and makes the handle; no request is sent.  The
 * directory exists and is locked.  CORRUPT: the memory is damaged.
 */
t4_status leadership_new(const struct leadership_options *options,
                         struct leadership **out, struct error *error);
void leadership_free(struct leadership *l);
/* Asks the store, some seconds long; for a directory that has no identity yet. */
t4_status leadership_identify(struct leadership *l, struct leadership_ids *ids,
                              struct error *error);
/* The directory was here before: this is who it is. */
void leadership_set_ids(struct leadership *l, const struct leadership_ids *ids,
                        uint64_t incarnation);
/* The commit rule this directory last led by; 0: it never led. */
enum commit_rule leadership_last_rule(const struct leadership *l);

/*
 * The engine was begun from this checkpoint and is not complete: it is of no use once the store
 * does not list it any more.
 */
void leadership_set_base(struct leadership *l, const struct checkpoint_object *c);
/* The engine is lost, and the local log begins at entry `begins`: a checkpoint is needed below it. */
void leadership_need_base(struct leadership *l, uint64_t begins);
/*
 * Starts the store thread on a log that was opened and not started.  whole: nothing that was
 * looked at says that the log has lost its end.
 */
void leadership_start(struct leadership *l, struct wal *wal,
                      const struct wal_recovered *recovered, bool whole);
/*
 * Waits until the outcome is known, or at most ns; returns the state.  SEEKING: not yet, *why
 * says what is waited for.  ENDED: *why is the failure.
 */
enum leadership_state leadership_wait(struct leadership *l, uint64_t ns,
                                      struct error *why);
enum leadership_state leadership_state(struct leadership *l);

/* The log is durable here up to `index`; `bytes` more than at the last call.  Sync thread. */
void leadership_synced(struct leadership *l, uint64_t index, size_t bytes);
/*
 * Index up to which the directory's memory says, durably, that the chain was read: a start reads
 * on from there.  leadership_remember(): bring it up to date with the next segment.  Any thread.
 */
uint64_t leadership_remembered(struct leadership *l);
void leadership_remember(struct leadership *l);
/* Somebody waits for the upload of `index`, synced or about to be: do it now.  Any thread. */
void leadership_hurry(struct leadership *l, uint64_t index);
/*
 * True if this server certainly leads at this moment.  Under OBJECT that is the lease; asking
 * is what keeps it renewed.  Any thread; cheap.
 */
bool leadership_is_proven(struct leadership *l);

/* A wait for proven leadership.  done() is called once, on any thread, never from within. */
struct leadership_wait {
    void (*done)(struct leadership_wait *w, bool proven);
    struct leadership_wait *next;
    uint64_t until_ns;
};
/* False: not the leader, or too many wait; done() will not be called. */
bool leadership_when_proven(struct leadership *l, struct leadership_wait *w);
/* Ends the waits whose time is over.  To be called a few times a second. */
void leadership_tick(struct leadership *l);

/*
 * Uploads what is left, gives the lock back and ends the thread; after timeout_ns it gives up
 * waiting for the store.  The log's sync thread has ended.
 */
void leadership_stop(struct leadership *l, uint64_t timeout_ns);

/* For status and metrics.  Any thread. */
struct leadership_view {
    enum leadership_state state;
    enum commit_rule rule;
    uint64_t term, synced_index, object_index, waiting_bytes;
    int64_t object_revision;
    uint64_t waiting_ns; /* age of the oldest entry that is not in the store; 0: none */
    bool degraded;
    char url[1024], why[512]; /* why: of degraded, seeking or deposed */
};
void leadership_look(struct leadership *l, struct leadership_view *out);

/* What a data directory, which the caller holds, remembers of its store. */
struct leadership_recollection {
    char url[1024]; /* "": nothing is remembered */
    bool built_in;
    /* Of the built-in store: the last server stopped in order, nothing is in the log only. */
    bool all_in_store;
    uint64_t lock_counter, manifest_counter; /* highest seen */
    uint32_t rule; /* enum commit_rule of its own newest term; 0: it never led */
};
/* CORRUPT: the memory is damaged. */
t4_status leadership_recall(struct env *env, const char *data_dir,
                            struct leadership_recollection *out, struct error *error);

#endif

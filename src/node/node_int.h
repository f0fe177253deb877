/*
 * node_int.h - what the files of this folder share.
 *
 * node.c        assembly, reads, status
 * identity.c    who this data directory is: lock, ids, copied-directory check
 * engine.c      the storage engine's folder
 * recover.c     engine and log -> evaluation state
 * commit.c      queue, commit role, sync thread, publication, release of answers
 * evaluate.c    one request -> effects, applied to log buffer, memtable and lease table
 * lead.c        the object store: identity from it, joining, commit by upload, being deposed
 * base.c        the checkpoint that the engine began with
 * background.c  engine thread (flush, compaction), keeper thread (expiry, segments, space)
 * alarm.c       alarms and the quota
 * defragment.c  making the engine's file smaller
 * compactor.c   when history is compacted by itself
 * state.c       calls about the whole state: hashes, snapshots
 *
 * Lock order: role -> log.lock -> publish.lock.  queue.lock is taken alone but for the pool's
 * own lock.  No callback is called with any of them held except that evaluation happens within
 * the role.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef NODE_NODE_INT_H
#define NODE_NODE_INT_H

#include <stdatomic.h>

#include "env/thread.h"
#include "fmt/entry.h"
#include "lease/lease.h"
#include "mvcc/mvcc.h"
#include "node/node.h"
#include "txn/txn.h"
#include "wal/wal.h"

/* Requests that only the node makes, beyond enum node_op. */
enum {
    NODE_INTERNAL = 100,
    NODE_INTERNAL_EXPIRE = NODE_INTERNAL,
    NODE_INTERNAL_REMAINDERS,
    NODE_INTERNAL_FREEZE
};

struct identity {
    uint64_t cluster_id, lineage, generation;
    uint64_t incarnation; /* of this data directory */
    uint64_t member_id;
    unsigned format; /* of the directory as it was found; 0: none */
    bool fresh;      /* not written yet */
    bool copied;     /* the directory is a copy: its engine is not trusted */
};

struct alarm {
    uint64_t member;
    int32_t kind;
    uint64_t since; /* log index */
};

/* What an evaluation wants to have happen. */
struct effects {
    const struct mutation *mutation, *extra; /* extra: records of space 's' */
    size_t n, n_extra;
    bool new_revision;
    int64_t compact_to; /* > 0: this is a compaction */
    bool urgent;        /* may use the reserve under NOSPACE */
};

/* A group of entries with what will be published when it is durable. */
struct commit_group {
    struct wal_group wal;
    int64_t revision, compacted;
    size_t bytes; /* counted in unsynced_bytes */
};

struct snapshot {
    uint64_t index;
    int64_t revision, compacted; /* compacted: -1 if never */
};

/* A lease whose grant or keepalive was published long after its evaluation. */
struct late_lease {
    int64_t id;
    uint64_t published_ns;
};

struct node {
    struct node_options options;
    char *data_dir, *name, *advertise_urls;
    struct identity identity;
    struct env_file *lock_file;
    struct engine *engine;
    struct wal *wal;
    struct mvcc *mvcc;
    struct watch_hub *hub;
    struct workers *workers; /* for the transports: long reads */
    struct workers
        *role_worker; /* one thread, so that no long read keeps writes waiting */
    struct workers *state_worker; /* one thread; state.c */
    _Atomic uint32_t state_jobs;  /* queued or at work there */
    char *temporary_dir;
    struct metrics metrics;
    _Atomic uint64_t term;

    struct hydration *hydration; /* base.c; NULL: the engine holds everything */

    /* The object store; see lead.c.  Without one: lead NULL, leading from the start. */
    struct leadership *lead;
    struct checkpointer
        *_Atomic checkpoints; /* from the first segment of this leader on */
    _Atomic uint64_t covered; /* index up to which a checkpoint holds everything */
    _Atomic bool leading;     /* writes may be evaluated; set by node_set_leading() */
    struct {
        struct mutex lock;
        void (*fn)(void *arg); /* [lock] and called with it */
        void *arg;
    } lead_change;
    _Atomic bool hub_stopped;
    _Atomic bool threads_run; /* the engine thread flushes, not recovery */
    struct wal_recovered recovered;
    bool was_fresh, lead_started, log_was_short;
    _Atomic bool hub_waits; /* for a range of the checkpoint */
    _Atomic uint64_t
        hub_pause_ns; /* it asks for none before this: the last could not be had */
    bool needs_base;  /* there is nothing to show before a checkpoint was begun from */
    _Atomic bool lead_reports;
    uint64_t replayed;      /* index up to which the log is in the memtables */
    uint64_t replay_commit; /* ... and up to which it may be published */
    _Atomic int64_t object_revision;
    _Atomic uint64_t object_index; /* the store holds the log up to here */
    _Atomic uint64_t unproven_ns;  /* to be added to every lease's time */

    /* requests on their way to evaluation */
    struct {
        struct mutex lock;
        struct node_request *head, **tail; /* [lock] */
        uint32_t n;                        /* [lock] */
        uint64_t bytes;                    /* [lock] of encoded requests */
        bool closed;                       /* [lock] stopping: nothing more is taken */
    } queue;
    struct mutex role;
    struct job drain; /* runs the role on its worker */
    _Atomic bool drain_queued;
    _Atomic bool stalled; /* the queue waits for a flush: commit_resume() */

    /* evaluation state [role]: everything evaluated, durable or not */
    uint64_t index;
    int64_t revision, compacted;
    uint64_t time_ms;
    uint64_t clock_start_wall_ms,
        clock_start_boot_ns; /* bound of the wall clock, see now_ms */
    bool clock_clamped;
    uint64_t leases_index; /* published index as of the newest lease evaluation */
    struct lease_table *leases;
    struct txn *txn;
    struct buffer entry;             /* the entry being built */
    _Atomic uint64_t next_expiry_ns; /* of the lease that expires first; 0: none */

    /* the log buffer */
    struct {
        struct mutex lock;
        struct condition filled;
        struct commit_group *filling, *writing; /* swapped under lock */
        bool sleeping;                          /* [lock] the sync thread waits */
        bool hold;                              /* [lock] test hook */
        bool stop;                              /* [lock] */
    } log;
    struct thread sync_thread;
    uint64_t segment_began_ns; /* [sync thread] boot clock; segments roll by age, too */
    _Atomic uint64_t unsynced_bytes; /* in filling and writing */

    /* the published snapshot, and answers that wait for it */
    struct {
        struct mutex lock;
        struct snapshot now;               /* [lock] */
        struct node_request *head, **tail; /* [lock] in order of release_index */
        struct node_request *durable, **durable_tail; /* [lock] wait for the store, too */
        bool deposed;                 /* [lock] nothing is published any more */
        struct late_lease *late;      /* [lock] */
        size_t n_late, late_capacity; /* [lock] */
    } publish;

    /* physical compactions that wait; [compact.lock] */
    struct {
        struct mutex lock;
        struct node_request *waiting;
    } compact;

    struct {
        struct mutex lock;
        struct node_request *waiting; /* [lock] */
        /* [engine thread] */
        struct node_request *served; /* by what is under way */
        uint64_t index;              /* the engine must hold the log up to here before */
        int64_t compacted;           /* ... and be compacted to here */
        bool running;
        uint32_t turn;
        uint64_t began_ns, bytes_before;
    } defragment;

    struct {
        struct mutex lock;
        struct condition wake;
        struct condition flushed; /* a flush or compaction got on (engine_work) */
        bool stop, poked, idle;   /* [lock] */
    } engine_work, keeper_work;
    struct thread engine_thread, keeper_thread;

    struct {
        struct mutex lock;
        struct alarm list[NODE_ALARMS_MAX]; /* [lock] changed by the role only */
        uint32_t n;                         /* [lock] */
    } alarms;
    _Atomic bool alarm_nospace, alarm_corrupt; /* of any member, in the list above */
    _Atomic uint64_t engine_measure; /* bytes it held, less those flushed until then */

    _Atomic bool disk_full;            /* alarm: writes are refused before evaluation */
    _Atomic bool engine_full;          /* the last flush found no space */
    _Atomic bool wal_full;             /* the log could not prepare a segment */
    _Atomic bool stopping, dead;       /* dead: the fatal callback was called */
    _Atomic uint32_t internal_pending; /* bits: see background.c */
    _Atomic bool expire_failed;        /* the last try found no space */
    struct node_request expire_request, remainders_request, freeze_request;
    struct node_request compact_request;
    struct compactor compactor;   /* [keeper thread] */
    _Atomic int64_t compacted_to; /* an automatic compaction that is done */
    uint64_t last_remainders_ns;  /* [keeper thread] */
    uint64_t last_index_seen;     /* [keeper thread] of the log: do writers come? */
};

/* identity.c */
/* Reads it, or makes up a fresh one (identity.fresh), which identity_write() keeps. */
t4_status identity_open(struct node *n, struct error *error);
t4_status identity_write(struct node *n, struct error *error);
/* A directory of an earlier version becomes one of this: before anything new is written. */
t4_status identity_upgrade(struct node *n, struct error *error);
void identity_close(struct node *n);

/*
 * recover.c: engine and log -> evaluation state and published snapshot.  Without a store the
 * log is started and whole; with one it is replayed as far as it is known to be committed, and
 * the store thread does the rest.
 */
t4_status node_recover(struct node *n, struct error *error);
/* Replays what follows, up to `last`; publishable up to `commit`.  [role] */
t4_status recover_more(struct node *n, uint64_t last, uint64_t commit,
                       struct error *error);
/* Tells who asked with node_on_lead_change().  node.c */
void node_set_leading(struct node *n, bool leading);
/* engine.c: opens the storage engine, empty if `drop`, or if it is damaged. */
t4_status node_open_engine(struct node *n, bool drop, struct error *error);
/* arg: the node.  A record is damaged: the process must end, and the next start empty it. */
void node_engine_damaged(void *arg);

/* Everything anew, with an empty engine; the log stays. */
t4_status recover_without_engine(struct node *n, struct error *error);
/* The engine was seeded with this checkpoint: takes its state over.  [role] */
t4_status recover_at_checkpoint(struct node *n, const struct checkpoint_object *c,
                                struct error *error);

/* base.c */
/* Drops the engine and begins from a checkpoint.  Before anything is served.  [role] */
t4_status base_begin(struct node *n, const struct checkpoint_object *c,
                     struct error *error);
/* The engine may say that it is not complete yet. */
t4_status base_resume(struct node *n, struct error *error);
void base_start(struct node *n);
void base_stop(struct node *n);
void base_free(struct node *n);
/* As node_range_ready(), for a request on its way to evaluation. */
enum hydration_answer base_request_ready(struct node *n, struct node_request *r);
/* For the watch hub: waits until a key is here (watch.h). */
void base_fetch(void *arg, struct t4_slice key, int64_t revision);
/*
 * Waits until all user keys are here, as long as a read would.  CORRUPT: an object is missing or
 * damaged; else the store does not answer in time, or the server stops.  Any thread that may block.
 */
t4_status base_fetch_all(struct node *n);
/* Is everything here that the end of this lease needs?  If not, it is asked for.  [role] */
bool base_lease_ready(struct node *n, int64_t id);
/* For the watch hub, one range at a time; arg: the node. */
bool base_range_ready(void *arg, struct t4_slice lo, struct t4_slice hi);

/* lead.c */
t4_status lead_identify(struct node *n, struct error *error);
/* Starts the store thread and waits for it as node_open() promises. */
t4_status lead_start(struct node *n, struct error *error);
void lead_stop(struct node *n);

/* commit.c */
void commit_init(struct node *n);
void commit_start(struct node *n);
/* Writes and syncs what is left, ends the sync thread; queued requests are refused. */
void commit_stop(struct node *n);
/* Refuses what could not be committed: its outcome is not known.  After lead_stop(). */
void commit_refuse(struct node *n);
/* Nothing will be published any more, for another server leads. */
void commit_depose(struct node *n);
/* Everything up to index is committed.  [sync thread, or store thread: by the rule] */
void commit_publish(struct node *n, uint64_t index, int64_t revision, int64_t compacted);
/* Everything up to index is in the store.  [store thread] */
void commit_uploaded(struct node *n, uint64_t index);
void commit_free(struct node *n);
void commit_drain(struct node *n, bool worker);
/* Appends the entry in n->entry to the log buffer.  [role] */
void commit_append(struct node *n);
/*
 * Gives the request its answer once everything evaluated so far is published.  Comes before
 * commit_append() of the request's own entry, and after it r may be gone.  [role]
 */
void commit_answer(struct node *n, struct node_request *r, enum etcd_error error);
struct snapshot commit_published(struct node *n);
/* What invariant (5) waits for may have come: the queue goes on if it stood still. */
void commit_resume(struct node *n);
/*
 * The published index, and the leases published late since the last call (mem_free()): those
 * of its grants and keepalives that were late are in this or an earlier answer.  [role]
 */
struct late_lease *commit_late_leases(struct node *n, uint64_t *published, size_t *count);
void node_fatal(struct node *n, const struct error *error);

/* evaluate.c */
void evaluate(struct node *n, struct node_request *r);
/*
 * Builds the entry in n->entry and inserts the versions; NO_SPACE: nothing happened.  The
 * caller then answers and calls commit_append().  [role]
 */
enum etcd_error evaluate_apply(struct node *n, const struct effects *f);
/* commit_answer(), and commit_append() if an entry was built and there is no error.  [role] */
void evaluate_answer(struct node *n, struct node_request *r, enum etcd_error error,
                     bool logged);
/* True if revisions may come of it. */
bool evaluate_needs_revision(const struct node_request *r);
/* True if it may take long, so that a polling thread leaves it to a worker. */
bool evaluate_is_heavy(const struct node_request *r);
/* The lease table was changed otherwise than by evaluate() (recovery). */
void evaluate_leases_changed(struct node *n);
/*
 * I10: so many revisions that no store has heard of, and whoever takes over from this disk
 * would not know where to go on.  [role]
 */
bool evaluate_store_is_behind(struct node *n);

/* alarm.c */
void alarm_init(struct node *n);
void alarm_free(struct node *n);
void alarm_forget(struct node *n); /* recovery begins again */
bool alarm_is_key(struct t4_slice key);
/* A record of space 's' with such a key (value NULL: its end); false: damaged.  [recovery] */
bool alarm_record(struct node *n, struct t4_slice key, const struct t4_slice *value);
/* True: the request is refused, because of an alarm or of the quota, and answered.  [role] */
bool alarm_refuses(struct node *n, struct node_request *r);
void evaluate_alarm(struct node *n, struct node_request *r);
/* Is it worth while to flush at a compaction, to make the room that somebody waits for? */
bool alarm_wants_flush(struct node *n);
void alarm_show(struct node *n); /* brings the metrics up to date */
/* Measures the engine for the quota.  [engine thread, or before it runs] */
void alarm_measure(struct node *n);
uint64_t alarm_quota_used(struct node *n);
/* What is up, of that raised at or below log index `published`; how many.  Any thread. */
uint32_t alarm_look(struct node *n, uint64_t published,
                    struct node_alarm out[NODE_ALARMS_MAX + 1]);

/* defragment.c */
void defragment_init(struct node *n);
void defragment_free(struct node *n);
/* The request is answered when the engine is defragmented.  Any thread. */
void defragment_wait(struct node *n, struct node_request *r);
/*
 * One step, if somebody waits and the flush leaves the time; true: something was done.  `well`:
 * the flush has not just failed.  *waiting is raised if a memtable is to be frozen before.
 * [engine thread]
 */
bool defragment_step(struct node *n, bool well, unsigned *waiting);
/* As background_refuse_compactions(). */
void defragment_refuse(struct node *n);

/* state.c */
/* Makes the folder of temporary files and removes what a crash left there. */
void state_open(struct node *n);

/* background.c */
void background_start(struct node *n);
void background_stop(struct node *n);
/* After commit_stop(): answers the physical compactions that nobody will do any more. */
void background_refuse_compactions(struct node *n);
void background_poke_engine(struct node *n);
/* Waits a moment for the engine thread to flush. */
void background_wait_flush(struct node *n);
/* Raises or clears the NOSPACE alarm as its causes say. */
void background_space(struct node *n);
/* A physical compaction waits for its end; answered by the engine thread. */
void background_wait_compaction(struct node *n, struct node_request *r);

#endif

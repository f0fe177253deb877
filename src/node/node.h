/*
 * node.h - one database: recovery, the commit pipeline, leases, watches, assembled.
 *
 * The only thing the API layers see.  A request comes in as a struct node_request, knows no
 * transport, and is answered by its callback with a complete encoded response message or an
 * error.
 *
 * Invariant I1 of the design: nothing is visible to a read, a watch, a lease or another
 * client's answer before it is committed; no answer leaves before everything that its
 * evaluation has seen is committed, also when it writes nothing.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef NODE_NODE_H
#define NODE_NODE_H

#include "base/metrics.h"
#include "checkpoint/checkpoint.h"
#include "env/env.h"
#include "env/workers.h"
#include "hydrate/hydrate.h"
#include "leadership/leadership.h"
#include "node/compactor.h"
#include "txn/request.h"
#include "txn/txn.h"
#include "watch/watch.h"
#include "wire/chain.h"
#include "wire/etcd_error.h"

#define NODE_ETCD_VERSION                                                                \
    "3.6.16" /* the etcd whose behaviour is reproduced (Status.version) */

/* The quota if none is given: etcd's. */
#define NODE_QUOTA_BYTES INT64_C(2147483648)

struct node;

struct node_options {
    struct env *env;
    const char *data_dir;
    const char *name;           /* --node-id, shown as the member's name */
    const char *advertise_urls; /* comma separated client URLs of this member */
    const struct t4_engine_ops *engine_ops; /* adopted table; NULL: the memory engine */
    void *engine_plugin;
    const char *engine_name;
    bool moved; /* --moved: the directory was moved, keep its identity */
    /*
     * Where the log is kept besides the disk; stays the caller's and is of no use afterwards
     * (node_stop() cancels it).  NULL: nowhere.
     */
    struct object_store *store;
    bool store_is_built_in;       /* a folder of the data directory; rule LOCAL */
    enum commit_rule commit_rule; /* with a store: what makes an entry committed */
    bool take_over_now, discard_divergent_tail, unsafe_store;
    uint64_t lease_ms, upload_age_ns, store_timeout_ns;
    uint32_t upload_window, upload_segment_bytes; /* see leadership_options */
    /* Checkpoints, as struct checkpointer_options; retention 0: two checkpoints are kept. */
    uint64_t checkpoint_interval_ns, checkpoint_bytes, history_retention_ns;
    /*
     * The local log is kept down to so many bytes, for watches, of what a checkpoint and the
     * storage engine hold.
     */
    uint64_t wal_keep_bytes;
    uint64_t store_grace_ns; /* how long a start waits for a store that does not answer */
    /* Called once, on any thread: another server leads now; only old state can be read here. */
    void (*deposed)(void *arg, const struct error *why);
    void *deposed_arg;
    uint64_t segment_bytes;
    uint64_t segment_age_ns; /* 0: no limit */
    uint64_t memtable_bytes;
    uint64_t reserve_bytes; /* filled file given up when the disk is full */
    uint64_t backlog_bytes; /* bound of uncommitted work */
    int64_t quota_bytes;    /* of what the engine holds; negative: none */
    enum compactor_mode auto_compaction;
    uint64_t auto_compaction_retention; /* nanoseconds, or revisions; 0: off */
    uint32_t max_request_bytes, max_txn_ops;
    uint32_t workers; /* threads for long reads and heavy transactions */
    uint64_t watch_progress_ns;
    /*
     * Called once, on any thread, when the node must stop: the log's disk failed (I2), or
     * log or engine are damaged.  The process has to exit with a failure.
     */
    void (*fatal)(void *arg, const struct error *error);
    void *fatal_arg;
};

/* Fills in the defaults; env, data_dir, fatal are left to the caller. */
void node_options_default(struct node_options *o);

/*
 * Locks the data directory, recovers, and starts.  Errors say which file and what to do:
 * BUSY (another process has the directory), CORRUPT, INVALID (copied directory, other
 * format), NOSPACE, IO.
 *
 * With a store the log is joined with what is there, and OK means that this server leads, or
 * that the store does not answer (or somebody else's lease must run out) and the directory has
 * something to show: then it serves serializable reads and watches only, and leads as soon as
 * it can (node_status.leadership).
 */
t4_status node_open(const struct node_options *o, struct node **out, struct error *error);
/*
 * Refuses new requests (STOPPED), answers what is committed, ends watch streams, writes the
 * log's closing mark.  Requests that were evaluated and cannot be committed any more get
 * UNKNOWN_OUTCOME, and so do physical compactions that are committed and not yet done.
 * node_close() frees; no request may be outstanding.
 */
void node_stop(struct node *n);
void node_close(struct node *n);

/* --- requests ------------------------------------------------------------------------------ */

enum node_op {
    NODE_PUT,
    NODE_DELETE_RANGE,
    NODE_TXN,
    NODE_COMPACT,
    NODE_LEASE_GRANT,
    NODE_LEASE_REVOKE,
    NODE_LEASE_KEEPALIVE,
    NODE_LEASE_TIME_TO_LIVE,
    NODE_LEASE_LEASES,
    NODE_BARRIER, /* does nothing: answered once everything evaluated before is committed */
    NODE_ALARM,
    /*
     * Makes the storage engine's file as small as what it holds, while everything goes on.
     * Compactions asked for before are done first.  Needs no leadership.
     */
    NODE_DEFRAGMENT
};

/* etcd's numbers; others are possible */
enum node_alarm_kind { ALARM_NONE = 0, ALARM_NOSPACE = 1, ALARM_CORRUPT = 2 };
enum node_alarm_action {
    NODE_ALARM_GET = 0,
    NODE_ALARM_ACTIVATE = 1,
    NODE_ALARM_DEACTIVATE = 2
};

struct node_request {
    enum node_op op;
    union {
        struct put_request put;
        struct delete_range_request delete_range;
        struct txn_request txn;
        struct {
            int64_t revision;
            bool physical;
        } compact;
        struct {
            int64_t id, ttl;
        } lease_grant;
        struct {
            int64_t id;
            bool keys;
        } lease;
        struct {
            enum node_alarm_action action;
            uint64_t member;
            int32_t kind;
        } alarm;
    };
    uint32_t bytes; /* size of the encoded request, for the backlog's bound */
    bool
        object_durable; /* answer only when everything seen is in the object store, too */
    /*
     * Called exactly once, on any thread, perhaps before node_submit() returns.  May submit
     * again and may free the request.
     */
    void (*done)(struct node_request *r);

    /* The answer: on ETCD_OK a complete response message, which the callback takes over. */
    enum etcd_error error;
    struct chain response;

    /* private to the node */
    struct node_request *next;
    uint64_t release_index, evaluated_ns;
    struct node *node;
    struct leadership_wait wait;
    struct hydration_wait hydration;
};

/*
 * True: this server certainly leads.  To be asked *after* a linearizable read was made: if it
 * is false the read may be old, and is to be repeated after node_when_proven() says so.
 */
bool node_is_proven(struct node *n);
/* As leadership_when_proven(). */
bool node_when_proven(struct node *n, struct leadership_wait *w);
/* Can a request ask for object durability here? */
bool node_has_store(const struct node *n);

/* The request must have been validated (txn_validate_*()).  Any thread; does not block. */
void node_submit(struct node *n, struct node_request *r);

/*
 * Reads at the published state.  max_keys and *too_long as range_read(): pass 1,000 on a
 * polling thread and repeat with 0 on a worker.  Any thread.
 */
enum etcd_error node_range(struct node *n, const struct range_request *r,
                           uint32_t max_keys, bool *too_long, struct chain *out);
/*
 * The next chunk of a range, see range_read_chunk(): the first call (p is all zero but for
 * what the caller adds) fixes the revision, *header is then the answer's.  Any thread.
 */
enum etcd_error node_range_chunk(struct node *n, const struct range_request *r,
                                 size_t max_bytes, uint32_t max_keys,
                                 struct range_progress *p, struct response_header *header,
                                 struct chain *out);
/* A read-only transaction, at the published state.  Any thread. */
enum etcd_error node_txn_read_only(struct node *n, const struct txn_request *r,
                                   struct chain *out);

/*
 * Whether what is to be read is on this disk, or must be fetched from the checkpoint first.
 * WAITS: w->done() tells when to ask again, or with what status it failed.  REFUSED: w->status.
 * To be asked before the two functions above; node_submit() does so by itself.  Any thread.
 */
enum hydration_answer node_range_ready(struct node *n, const struct range_request *r,
                                       struct hydration_wait *w);
enum hydration_answer node_txn_ready(struct node *n, const struct txn_request *r,
                                     struct hydration_wait *w);
enum etcd_error node_hydration_error(t4_status status);

/*
 * fn is called after each change of what node_leads() says, on any thread; it must not call
 * back here.  NULL: nobody; when this returns no call is under way.
 */
void node_on_lead_change(struct node *n, void (*fn)(void *arg), void *arg);
/* This server leads as far as it knows (writes are taken).  Any thread. */
bool node_leads(const struct node *n);

/* --- the whole state -------------------------------------------------------------------------- */

/*
 * Calls about all of it read everything there is: on a thread of their own, one after the other.
 * They wait, as long as a read does, for what is not on this disk yet.
 */
struct node_state_job {
    struct job job; /* run: what is to be done; calls node_state_job_over() at its end */
    _Atomic bool cancelled; /* to be set by anybody; the work ends soon */
};
/* False: too many wait.  Any thread. */
bool node_state_submit(struct node *n, struct node_state_job *job);
/* The first thing that run() has done when it is through; the job may be gone afterwards. */
void node_state_job_over(struct node *n);

struct node_kv_hash {
    struct response_header header; /* with the current revision */
    uint32_t hash;
    int64_t revision, compacted; /* hashed; in force, -1: never */
};
/* HashKV and Hash of etcd; revision 0: the current one, below 0: of nothing.  On the job's thread. */
enum etcd_error node_hash_kv(struct node *n, struct node_state_job *job, int64_t revision,
                             struct node_kv_hash *out);
enum etcd_error node_hash(struct node *n, struct node_state_job *job,
                          struct node_kv_hash *out);
/*
 * etcd's database with this state, as a file without a name that the caller closes (through the
 * env of the node's options).  On the job's thread.
 */
enum etcd_error node_snapshot(struct node *n, struct node_state_job *job,
                              struct env_file **file, uint64_t *size);
struct env *node_env(struct node *n);

struct workers *node_workers(struct node *n);
struct watch_hub *node_watch_hub(struct node *n);
struct metrics *node_metrics(struct node *n);

#define NODE_ALARMS_MAX 32u /* raised at once; more are refused */
struct node_alarm {
    uint64_t member_id;
    int32_t kind;
};

struct node_status {
    uint64_t cluster_id, member_id, term, index, applied_index;
    int64_t revision, compacted_revision;
    uint64_t db_bytes, db_in_use_bytes, db_records; /* of the engine, its own included */
    bool nospace;   /* some NOSPACE alarm is up; disk_full: that of a full disk */
    bool disk_full; /* clears by itself, the others when they are taken down */
    bool corrupt;   /* some CORRUPT alarm is up */
    bool stopping;
    struct node_alarm alarm[NODE_ALARMS_MAX + 1]; /* all that are up */
    uint32_t n_alarms;
    int64_t quota_bytes; /* negative: none */
    uint64_t
        quota_used_bytes; /* what counts for it: the engine's in use, and memtables */
    bool has_store, store_is_built_in;
    struct leadership_view leadership; /* with a store */
    bool began_from_checkpoint; /* in this life, or before and not complete then: */
    struct hydration_view hydration;
    struct checkpoint_view checkpoint; /* while it leads one */
    const char *name, *advertise_urls; /* valid as long as the node */
    const char *engine_name;
};
void node_status(struct node *n, struct node_status *out);
/* Header with ids, term and the published revision. */
void node_header(struct node *n, struct response_header *out);
/* Brings the gauges (revision, sizes, queue) up to date before metrics are rendered. */
void node_refresh_metrics(struct node *n);

/*
 * Test hook: while held, the sync thread takes no group, so that nothing new is committed.
 * Used by the I1 test through the environment variable T4_TEST_HOLD_SYNC (see the server).
 */
void node_hold_sync(struct node *n, bool hold);

/*
 * A data directory held as a server holds it, by a command that works on its built-in store.
 * BUSY: it is in use; INVALID: it is a copy.
 */
struct node_directory {
    struct env *env;
    struct env_file *lock;
    struct leadership_recollection memory; /* of its store */
};
t4_status node_directory_hold(struct env *env, const char *data_dir,
                              struct node_directory *out, struct error *error);
void node_directory_release(struct node_directory *d);

/*
 * What a data directory says of itself, for who only looks: nothing is locked or written.
 * NOTFOUND: there is no such directory, or it is none of t4's.
 */
struct node_directory_view {
    uint64_t cluster_id, lineage, generation, incarnation, member_id;
    bool copied;                           /* its identity was written to another file */
    struct leadership_recollection memory; /* of its store */
};
t4_status node_directory_look(struct env *env, const char *data_dir,
                              struct node_directory_view *out, struct error *error);

#endif

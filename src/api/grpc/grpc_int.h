/*
 * grpc_int.h - what the files of api/grpc share.
 *
 *   server.c     the server's life: polling threads, connections, stop; the core's log
 *   methods.c    the table of methods
 *   call.c       unary calls: request slots, guards, answers
 *   decode.c     bytes -> protobuf-c message -> struct *_request; metadata
 *   message.c    bytes out of and into the core's buffers, without copying what is large
 *   read.c       what a read waits for: proof of leadership, a part of the checkpoint
 *   kv.c         KV, Lease and some of Maintenance: calls that end at the node
 *   info.c       Maintenance: calls answered from node_status()
 *   downgrade.c  Maintenance: MoveLeader, Downgrade
 *   cluster.c    Cluster                  auth.c        Auth, with authentication off
 *   counts.c     calls counted by method, status and client, for /metrics
 *   maintenance.c  Maintenance: hashes of the whole state, and the Snapshot stream
 *   unknown.c    paths that are no method
 *   stream.c     what streams have in common
 *   watch.c      the Watch stream         keepalive.c   the LeaseKeepAlive stream
 *   range_stream.c  RangeStream           health.c      the health service
 *   recipe.c     calls of several steps, which can wait; with them:
 *   contend.c    what Lock and Campaign have in common
 *   lock.c       Lock                     election.c    Election    observe.c  its Observe
 *
 * Locks, in this order: grpc_api.lock, then a stream kind's own lock, then stream.lock.  None
 * is held while the node, the hub or a worker is called, but for watch_call.lock (see there).
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef API_GRPC_GRPC_INT_H
#define API_GRPC_GRPC_INT_H

#include <stdatomic.h>

#include <grpc/byte_buffer.h>
#include <grpc/grpc.h>
#include <grpc/slice.h>
#include <grpc/slice_buffer.h>
#include <protobuf-c/protobuf-c.h>

#include "api/grpc/grpc.h"
#include "base/metrics.h"
#include "env/thread.h"
#include "env/workers.h"
#include "node/node.h"
#include "txn/request.h"
#include "wire/encode.h"
#include "wire/etcd_error.h"

/* gRPC's limit on a message is etcd's: the request limit and this. */
#define RECEIVE_OVERHEAD (512u * 1024)
/* Items of a whole transaction, nested lists included, per operation allowed in one list. */
#define TXN_ITEMS_PER_OP 64u
/* Fields of any other message; the longest real one has 13. */
#define FLAT_ITEMS_MAX 1024u
/* A read of up to this many keys is answered on the polling thread. */
#define INLINE_KEYS 1000u
/* How often a linearizable read is made again because leadership ran out meanwhile. */
#define READ_REPEATS_MAX 3u

/* --- completion queue ------------------------------------------------------------------- */

/* Every event's tag is one of these, embedded in what the event is about. */
struct tag {
    void (*run)(struct tag *tag, bool ok);
};

/*
 * What one thread wrote before it started a batch is seen by the one that polls its event: the
 * core's queue sees to that.  ThreadSanitizer does not see into the core, so it is told.
 */
#ifdef __SANITIZE_THREAD__
#include <sanitizer/tsan_interface.h>
#define TAG_STARTS(tag) __tsan_release(tag)
#define TAG_ARRIVED(tag) __tsan_acquire(tag)
#else
#define TAG_STARTS(tag) ((void)0)
#define TAG_ARRIVED(tag) ((void)0)
#endif

struct call;
struct method;
struct stream;
#define METHODS_MAX 64

/* --- counts.c ------------------------------------------------------------------------------ */

#define STATUS_CODES 17
#define HANDLING_BUCKETS 11
#define VERSIONS_MAX 16
#define VERSION_BYTES 24
#define VERSION_OTHER "other"

/* Of one method on one queue.  Written by the queue's poller alone. */
struct method_counts {
    _Atomic uint64_t started, received, sent, handled[STATUS_CODES];
    _Atomic uint64_t bucket[HANDLING_BUCKETS + 1], sum_ns; /* with --metrics=extensive */
};

struct version_count {
    char name[VERSION_BYTES];
    _Atomic uint64_t n[2]; /* unary calls, streams */
};

/* Adds to a count that only the calling thread writes. */
static inline void
count(_Atomic uint64_t *n, uint64_t more)
{
    atomic_store_explicit(n, atomic_load_explicit(n, memory_order_relaxed) + more,
                          memory_order_relaxed);
}

/* A completion queue and the one thread that polls it. */
struct queue {
    struct grpc_api *api;
    grpc_completion_queue *core;
    struct thread thread;
    uint32_t n_slots;   /* [poller] waiting in the core; 0 only once the server is shut */
    uint32_t n_calls;   /* [poller] unary calls at work */
    struct call *spare; /* [poller] */
    uint32_t n_spare;   /* [poller] */
    struct method_counts counts[METHODS_MAX];    /* [written by the poller] ... */
    _Atomic uint64_t received_bytes, sent_bytes; /* of messages */
    struct version_count versions[VERSIONS_MAX]; /* the first is VERSION_OTHER */
    _Atomic uint32_t n_versions;
    bool drained; /* [api.lock] no slots: no handler runs or will run */
    bool idle;    /* [api.lock] no slots and no calls */
};

struct grpc_api {
    struct grpc_api_options options; /* [const after start] */
    struct node *node;
    struct metrics *metrics;
    grpc_server *core;
    grpc_server_credentials *credentials; /* of connections: none is asked for */
    struct queue *queues;
    uint32_t n_queues;
    void *registered[METHODS_MAX]; /* the core's handles, in the order of the table */

    struct mutex lock;
    struct condition changed; /* shut, drained, idle or n_streams */
    struct stream *streams;   /* [lock] accepted and not yet released */
    uint32_t n_streams;       /* [lock] */
    bool stopping, shut;      /* [lock] shut: the core has let go of everything */
    struct tag on_shut;

    _Atomic uint32_t worker_jobs;
    _Atomic uint32_t snapshots; /* Snapshot streams that were accepted and not released */
    _Atomic uint64_t response_bytes;
};

/* --- methods.c ----------------------------------------------------------------------------- */

struct stream_kind;

struct method {
    const char *path;
    uint32_t slots; /* requests that the core can hand over without waiting for us */
    bool write;     /* goes into the log: etcd's request limit applies */
    const ProtobufCMessageDescriptor *type;
    const struct wire_schema *schema;
    void (*handle)(struct call *call, const ProtobufCMessage *message); /* unary */
    const struct stream_kind *kind;                                     /* stream */
};

extern const struct method methods[];
extern const uint32_t n_methods;

static inline uint32_t
method_index(const struct method *m)
{
    return (uint32_t)(m - methods);
}

/* "unary", "server_stream", "bidi_stream": what clients see, however it is served. */
const char *method_grpc_type(const struct method *m);

static inline struct method_counts *
counts_of(struct queue *q, const struct method *m)
{
    return &q->counts[method_index(m)];
}

/* counts.c.  The time for count_handled(); 0 unless --metrics=extensive. */
uint64_t count_now(const struct grpc_api *api);
void count_handled(struct queue *q, const struct method *m, uint32_t code,
                   uint64_t began_ns);
/* `version` is the metadata client-api-version; its data is NULL if there is none. */
void count_version(struct queue *q, bool is_stream, struct t4_slice version);

/* --- decode.c ------------------------------------------------------------------------------ */

/* Memory of one request: taken in pieces, given back all at once.  Starts within itself. */
struct arena_block;
#define ARENA_FIRST 1024
struct arena {
    ProtobufCAllocator allocator; /* for protobuf-c; frees nothing */
    struct arena_block *blocks;
    uint8_t *next, *end;
    _Alignas(16) uint8_t first[ARENA_FIRST];
};
void arena_init(struct arena *a);
void *arena_alloc(struct arena *a, size_t n); /* aligned to 16 */
void arena_reset(struct arena *a);

enum decode_result { DECODE_OK, DECODE_MALFORMED, DECODE_TOO_DEEP, DECODE_TOO_MANY };
/*
 * Looks at the bytes within bounds, then unpacks them into the arena.  The message does not
 * refer to `bytes`.
 */
enum decode_result decode_message(const struct method *method, struct t4_slice bytes,
                                  uint32_t max_txn_ops, struct arena *arena,
                                  ProtobufCMessage **out);

/* Unpacked messages to requests, which borrow from them and from the arena. */
void decode_range(const ProtobufCMessage *m, struct range_request *out);
void decode_put(const ProtobufCMessage *m, struct put_request *out);
void decode_delete_range(const ProtobufCMessage *m, struct delete_range_request *out);
void decode_txn(const ProtobufCMessage *m, struct arena *arena, struct txn_request *out);

/*
 * What a request's metadata asks for that this server must refuse; *object_durable (may be NULL):
 * it asks to be answered only when the object store holds what it has seen or done.  Counts the
 * client's version.  [poller]
 */
enum etcd_error check_metadata(const grpc_metadata_array *metadata, struct queue *q,
                               bool is_stream, bool *object_durable);

/* --- message.c ----------------------------------------------------------------------------- */

/*
 * The bytes of a received message.  When it came in pieces they are put together in *copy,
 * which the caller frees with mem_free(); else *copy is NULL.  Valid while `b` is.
 */
struct t4_slice message_bytes(const grpc_byte_buffer *b, void **copy);

/* An outgoing message that lives in its call. */
void message_init(grpc_byte_buffer *b);
/* Moves a chain's content into b, which is empty; c is left empty. */
void message_take(grpc_byte_buffer *b, struct chain *c);
void message_clear(grpc_byte_buffer *b); /* frees all; as after message_init() */

/* --- read.c -------------------------------------------------------------------------------- */

/* The waits of one read; part of whoever makes it.  Both functions may come on any thread. */
struct read_wait {
    struct node *node;
    void (*again)(struct read_wait *w); /* the read is to be made (again), on a worker */
    void (*refused)(struct read_wait *w, enum etcd_error error); /* perhaps from within */
    struct leadership_wait proof;
    struct hydration_wait hydration;
    uint32_t repeated;
};
void read_wait_init(struct read_wait *w, struct node *node,
                    void (*again)(struct read_wait *w),
                    void (*refused)(struct read_wait *w, enum etcd_error error));
/*
 * Before the read: is what it reads (one of range and txn is NULL) on this disk?  False: one of
 * the functions is called.
 */
bool read_is_ready(struct read_wait *w, const struct range_request *range,
                   const struct txn_request *txn);
/*
 * After a linearizable read: was it true?  False: `out` was emptied, one of the functions is
 * called.
 */
bool read_is_proven(struct read_wait *w, struct chain *out);

/* --- call.c -------------------------------------------------------------------------------- */

struct call {
    struct tag requested, answered;
    struct call *next; /* spare */
    struct queue *queue;
    const struct method *method;
    grpc_call *core;
    gpr_timespec deadline;
    grpc_metadata_array metadata;
    grpc_byte_buffer *payload;
    uint32_t message_bytes; /* of the request */
    uint32_t code;          /* of the answer */
    uint64_t began_ns;      /* see count_now() */
    int cancelled;
    grpc_byte_buffer out;
    size_t out_bytes;
    struct job job;
    bool object_durable;          /* t4-durability: object */
    struct chain held;            /* a read that waits for the store */
    struct read_wait reading;     /* a read that waits, */
    void (*repeat)(struct job *); /* and is then made again so */
    struct node_request node;     /* what is with the node; also the txn of a read */
    struct range_request range;
    struct node_state_job state; /* a hash of the whole state, ... */
    int64_t hash_revision;       /* ... at this revision */
    struct arena arena;          /* last: large */
};

/* Puts one request slot of a unary method into the queue.  [poller, or before it starts] */
void call_post(struct queue *q, const struct method *method);
void call_free_spares(struct queue *q);

/*
 * Each of these answers the call, exactly once, from any thread; the call must not be touched
 * afterwards.  call_reply() takes over the chain's content, which is only sent on ETCD_OK.
 */
void call_reply(struct call *c, enum etcd_error error, struct chain *body);
void call_refuse(struct call *c, grpc_status_code code, const char *static_text);
void call_fail(struct call *c, enum etcd_error error);
void call_refuse_formatted(struct call *c, grpc_status_code code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* Hands the call to a worker, or refuses it when too many wait.  [poller] */
void call_on_worker(struct call *c, void (*run)(struct job *job));
/* The first thing that such a run() does. */
struct call *call_of_job(struct job *job);

/* Is the message larger than etcd would accept for its log? */
bool call_is_too_large(const struct call *c);
/* False: too many wait already; true: the job runs, and calls api_job_began() first of all. */
bool api_submit_job(struct grpc_api *api, struct job *job);
void api_job_began(struct grpc_api *api);

/* --- handlers named in the table ------------------------------------------- */

void kv_range(struct call *c, const ProtobufCMessage *m);
void kv_put(struct call *c, const ProtobufCMessage *m);
void kv_delete_range(struct call *c, const ProtobufCMessage *m);
void kv_txn(struct call *c, const ProtobufCMessage *m);
void kv_compact(struct call *c, const ProtobufCMessage *m);
void lease_grant(struct call *c, const ProtobufCMessage *m);
void lease_revoke(struct call *c, const ProtobufCMessage *m);
void lease_time_to_live(struct call *c, const ProtobufCMessage *m);
void lease_leases(struct call *c, const ProtobufCMessage *m);
void maintenance_status(struct call *c, const ProtobufCMessage *m);
void maintenance_alarm(struct call *c, const ProtobufCMessage *m);
void maintenance_defragment(struct call *c, const ProtobufCMessage *m);
void maintenance_hash(struct call *c, const ProtobufCMessage *m);
void maintenance_hash_kv(struct call *c, const ProtobufCMessage *m);
void cluster_member_list(struct call *c, const ProtobufCMessage *m);
void maintenance_move_leader(struct call *c, const ProtobufCMessage *m);
void maintenance_downgrade(struct call *c, const ProtobufCMessage *m);
void cluster_member_add(struct call *c, const ProtobufCMessage *m);
void cluster_member_remove(struct call *c, const ProtobufCMessage *m);
void cluster_member_update(struct call *c, const ProtobufCMessage *m);
void cluster_member_promote(struct call *c, const ProtobufCMessage *m);
void auth_enable(struct call *c, const ProtobufCMessage *m);
void auth_disable(struct call *c, const ProtobufCMessage *m);
void auth_status(struct call *c, const ProtobufCMessage *m);
void auth_authenticate(struct call *c, const ProtobufCMessage *m);
void auth_list(struct call *c, const ProtobufCMessage *m);
void auth_user_add(struct call *c, const ProtobufCMessage *m);
void auth_user_change_password(struct call *c, const ProtobufCMessage *m);
void auth_user_missing(struct call *c, const ProtobufCMessage *m);
void auth_role_add(struct call *c, const ProtobufCMessage *m);
void auth_role_grant(struct call *c, const ProtobufCMessage *m);
void auth_role_missing(struct call *c, const ProtobufCMessage *m);
void health_check(struct call *c, const ProtobufCMessage *m);
void health_list(struct call *c, const ProtobufCMessage *m);

/* --- unknown.c ----------------------------------------------------------------------------- */

/* One slot for a path that is no method.  [poller, or before it starts] */
void unknown_post(struct queue *q);

/* --- stream.c ------------------------------------------------------------------------------ */

/*
 * One stream.  A call with a single request can be one, too: where it has many answers, or one
 * that may take long, so that it must hear that its client is gone.  Its message() returns
 * false and its half_closed() is stream_no_request().  Each outstanding batch of operations
 * holds a reference, and so does whoever else may call it (the hub, a request at the node).
 *
 * Invariants
 *  (1) at most one receive and one send are outstanding; the close operation is started once,
 *      at once; the status is sent once, after the last send
 *  (2) kind->end() is called once, before the stream is released, by whoever finishes it first
 */
struct stream {
    struct tag opened, received, sent, closed, finished;
    struct queue *queue;
    const struct method *method;
    struct stream *next, *previous; /* [api.lock] */
    grpc_call *core;
    gpr_timespec deadline;
    grpc_metadata_array metadata;
    grpc_byte_buffer *in; /* of the outstanding receive */
    grpc_byte_buffer out; /* of the outstanding send */
    size_t out_bytes;     /* [lock] */
    uint64_t began_ns;    /* see count_now() */
    int cancelled;        /* filled in by the close operation */
    bool object_durable;  /* t4-durability: object; for kinds that write */
    struct arena arena;   /* [poller] of the message at hand */

    struct mutex lock;
    uint32_t references;   /* [lock] */
    bool metadata_sent;    /* [lock] */
    bool sending;          /* [lock] */
    bool finishing;        /* [lock] nothing is sent any more but the status */
    bool status_sent;      /* [lock] */
    grpc_status_code code; /* [lock] */
    const char *text;      /* [lock] lives as long as the stream */
    char own_text[160];    /* [poller] for a text with numbers in it */
};

struct stream_kind {
    const char *grpc_type; /* what the metrics call it; NULL: bidi_stream */
    size_t size;           /* of the struct that begins with struct stream */
    /* The stream is open; first call of all.  [poller] */
    void (*start)(struct stream *s);
    /* A message came.  False: do not read on, stream_receive() follows later.  [poller] */
    bool (*message)(struct stream *s, const ProtobufCMessage *m);
    /* The client will send nothing more.  [poller] */
    void (*half_closed)(struct stream *s);
    /* What stream_send() took is gone, the next may come.  [poller] */
    void (*sent)(struct stream *s);
    /* The stream is over: stream_send() does nothing from now on.  Any thread. */
    void (*end)(struct stream *s);
    /* The last reference is gone.  Any thread. */
    void (*release)(struct stream *s);
};

void stream_post(struct queue *q, const struct method *method); /* as call_post() */
void stream_ref(struct stream *s);
void stream_unref(struct stream *s);
/* Reads the next message; does nothing once the stream finishes. */
void stream_receive(struct stream *s);
/*
 * Sends one message and takes over the chain's content; kind->sent() tells when the next may
 * come.  False: the stream is over, the content is dropped.  Any thread.  `more`: another
 * message certainly follows, the core may wait for it before it writes.
 */
bool stream_send(struct stream *s, struct chain *message, bool more);
/* Ends the stream with this status once the outstanding send is through.  Any thread. */
void stream_finish(struct stream *s, grpc_status_code code, const char *text);
void stream_fail(struct stream *s, enum etcd_error error);

/* The half_closed() of a kind with a single request: it did not come. */
void stream_no_request(struct stream *s);

extern const struct stream_kind watch_stream_kind, keepalive_stream_kind;
extern const struct stream_kind range_stream_kind, health_stream_kind,
    snapshot_stream_kind;
/* recipe.h; lock.c, election.c, observe.c */
extern const struct stream_kind lock_lock_kind, lock_unlock_kind;
extern const struct stream_kind election_campaign_kind, election_proclaim_kind,
    election_leader_kind, election_resign_kind, election_observe_kind;

/* --- health.c ------------------------------------------------------------------------------ */

/* Tells the client of a health stream if the status is another one now.  Any thread. */
void health_tell(struct stream *s);

/* --- server.c ------------------------------------------------------------------------------ */

/*
 * Adds a started stream to the list of those that a stop ends.  STOPPED, TOO_MANY_REQUESTS: it
 * is on the list, and the caller ends it.
 */
enum etcd_error api_add_stream(struct grpc_api *api, struct stream *s);
/* Forgets a stream whose memory and call have been freed. */
void api_remove_stream(struct grpc_api *api, struct stream *s);
/* A slot, or a unary call, of the queue is gone.  [poller] */
void queue_slot_gone(struct queue *q);
void queue_call_gone(struct queue *q);

#endif

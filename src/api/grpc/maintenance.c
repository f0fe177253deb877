/*
 * maintenance.c - calls about the whole state: Hash, HashKV, and the Snapshot stream.
 *
 * The node makes the answer on a thread of its own (node/state.c).  A snapshot is a temporary file
 * by then, which is sent piece by piece: a worker reads a piece when the one before it has left,
 * so a client that does not read holds its file and one piece, and no thread.
 *
 * Lock: snapshot_call.lock, held while something is submitted to the node: once the stream has
 * ended, which is before the node stops, nothing is.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "api/grpc/grpc_int.h"
#include "base/memory.h"
#include "codec/codec.h"
#include "pb/etcd/rpc.pb-c.h"

/* --- hashes ------------------------------------------------------------------------------- */

static void
hash_came(struct call *c, enum etcd_error e, const struct node_kv_hash *h, bool of_keys)
{
    struct chain out;

    chain_init(&out);
    if (e == ETCD_OK) {
        wire_header_field(&out, 1, &h->header);
        wire_varint_field(&out, 2, h->hash);
    }
    if (e == ETCD_OK && of_keys) {
        wire_varint_field(&out, 3, (uint64_t)h->compacted);
        wire_varint_field(&out, 4, (uint64_t)h->revision);
    }
    node_state_job_over(c->queue->api->node);
    call_reply(c, e, &out);
}

static void
hash_kv(struct job *job)
{
    struct call *c = container_of(job, struct call, state.job);
    struct node_kv_hash h = {.hash = 0};
    enum etcd_error e =
        node_hash_kv(c->queue->api->node, &c->state, c->hash_revision, &h);

    hash_came(c, e, &h, true);
}

static void
hash_all(struct job *job)
{
    struct call *c = container_of(job, struct call, state.job);
    struct node_kv_hash h = {.hash = 0};
    enum etcd_error e = node_hash(c->queue->api->node, &c->state, &h);

    hash_came(c, e, &h, false);
}

static void
submit(struct call *c, void (*run)(struct job *job))
{
    c->state.job.run = run;
    atomic_store(&c->state.cancelled, false);
    if (!node_state_submit(c->queue->api->node, &c->state))
        call_refuse(c, (grpc_status_code)etcd_error_code(ETCD_TOO_MANY_REQUESTS),
                    etcd_error_text(ETCD_TOO_MANY_REQUESTS));
}

void
maintenance_hash(struct call *c, const ProtobufCMessage *m)
{
    (void)m;
    submit(c, hash_all);
}

void
maintenance_hash_kv(struct call *c, const ProtobufCMessage *message)
{
    const Etcdserverpb__HashKVRequest *m = (const void *)message;

    c->hash_revision = m->revision;
    submit(c, hash_kv);
}

/* --- snapshots ---------------------------------------------------------------------------- */

#define SNAPSHOTS_MAX 8u   /* that are made or sent at a time: each has its file */
#define PIECE_BYTES 32768u /* as etcd's; clients make their own guesses from it */

struct snapshot_call {
    struct stream stream;
    struct node_state_job build;
    struct job send;
    bool begun;   /* [poller] */
    bool counted; /* [poller] among api.snapshots */
    struct mutex lock;
    bool over; /* [lock] nothing is submitted any more */
    /* of whoever makes the next message: the build, then one job at a time */
    struct env_file *file;
    uint64_t size, sent;
    struct sha256_stream *hash;
    bool complete; /* the last message was sent */
};

static struct snapshot_call *
snapshot_of(struct stream *s)
{
    return container_of(s, struct snapshot_call, stream);
}

static void
send_message(struct snapshot_call *s, const uint8_t *blob, size_t n)
{
    struct chain out;

    chain_init(&out);
    wire_varint_field(&out, 2, s->size - s->sent);
    wire_bytes_field(&out, 3, slice_of(blob, n));
    wire_bytes_field(&out, 4, slice_str(ETCD_STORAGE_VERSION));
    stream_send(&s->stream, &out, false);
}

static void
send_hash(struct snapshot_call *s)
{
    uint8_t digest[SHA256_BYTES];

    sha256_end(s->hash, digest);
    s->complete = true;
    send_message(s, digest, sizeof digest);
}

static void
send_next(struct snapshot_call *s)
{
    struct env *env = node_env(s->stream.queue->api->node);
    uint64_t left = s->size - s->sent;
    size_t n = left < PIECE_BYTES ? (size_t)left : PIECE_BYTES, got = 0;
    uint8_t *piece;

    if (left == 0) {
        send_hash(s);
        return;
    }
    piece = mem_alloc(n);
    if (env->pread(env->state, s->file, piece, n, s->sent, &got, NULL) == T4_OK &&
        got == n) {
        sha256_add(s->hash, slice_of(piece, n));
        s->sent += n;
        send_message(s, piece, n);
    } else {
        stream_fail(&s->stream, ETCD_TEMPORARY_FAILED);
    }
    mem_free(piece);
}

static void
send_on_worker(struct job *job)
{
    struct snapshot_call *s = container_of(job, struct snapshot_call, send);

    send_next(s);
    stream_unref(&s->stream);
}

static void
build(struct job *job)
{
    struct snapshot_call *s = container_of(job, struct snapshot_call, build.job);
    struct node *node = s->stream.queue->api->node;
    enum etcd_error e = node_snapshot(node, &s->build, &s->file, &s->size);

    node_state_job_over(node);
    if (e == ETCD_OK) {
        s->hash = sha256_stream_new();
        send_next(s);
    } else {
        stream_fail(&s->stream, e);
    }
    stream_unref(&s->stream);
}

static void
snapshot_start(struct stream *stream)
{
    struct snapshot_call *s = snapshot_of(stream);

    mutex_init(&s->lock);
    s->build.job.run = build;
    s->send.run = send_on_worker;
}

static bool
snapshot_message(struct stream *stream, const ProtobufCMessage *m)
{
    struct snapshot_call *s = snapshot_of(stream);
    struct grpc_api *api = stream->queue->api;
    bool accepted;

    (void)m;
    if (s->begun)
        return false;
    s->begun = s->counted = true;
    accepted = atomic_fetch_add(&api->snapshots, 1) < SNAPSHOTS_MAX;
    if (!accepted) {
        stream_fail(stream, ETCD_TOO_MANY_REQUESTS);
        return false;
    }
    mutex_lock(&s->lock);
    if (!s->over) {
        stream_ref(stream); /* the build's */
        accepted = node_state_submit(api->node, &s->build);
    }
    mutex_unlock(&s->lock);
    if (!accepted) {
        stream_fail(stream, ETCD_TOO_MANY_REQUESTS);
        stream_unref(stream);
    }
    return false; /* the client has nothing more to say */
}

static void
snapshot_sent(struct stream *stream)
{
    struct snapshot_call *s = snapshot_of(stream);

    if (s->complete) {
        stream_finish(stream, GRPC_STATUS_OK, "");
        return;
    }
    mutex_lock(&s->lock);
    if (!s->over) {
        stream_ref(stream); /* the job's */
        workers_submit(node_workers(stream->queue->api->node), &s->send);
    }
    mutex_unlock(&s->lock);
}

static void
snapshot_end(struct stream *stream)
{
    struct snapshot_call *s = snapshot_of(stream);

    atomic_store(&s->build.cancelled, true);
    mutex_lock(&s->lock);
    s->over = true;
    mutex_unlock(&s->lock);
}

static void
snapshot_release(struct stream *stream)
{
    struct snapshot_call *s = snapshot_of(stream);
    struct env *env = node_env(stream->queue->api->node);

    if (s->counted)
        atomic_fetch_sub(&stream->queue->api->snapshots, 1);
    if (s->file != NULL)
        env->close(env->state, s->file);
    sha256_stream_free(s->hash);
    mutex_destroy(&s->lock);
}

const struct stream_kind snapshot_stream_kind = {
    .size = sizeof(struct snapshot_call),
    .start = snapshot_start,
    .message = snapshot_message,
    .half_closed = stream_no_request,
    .sent = snapshot_sent,
    .end = snapshot_end,
    .release = snapshot_release,
};

/*
 * range_stream.c - RangeStream: a range as a stream of pieces, as etcd 3.7 has it.
 *
 * Each piece is a short read of its own, by a worker, at the revision that the first one fixed;
 * a compaction above it ends the stream.  The next piece is read when HTTP/2's flow control has
 * let this one pass: a stream holds one piece, however large its range is.  The first read is
 * proven as any linearizable one; what a revision holds does not change afterwards.
 *
 * Threads: one at a time per stream: a worker reads and sends, then the polling thread hands
 * it to a worker again.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "api/grpc/grpc_int.h"
#include "base/memory.h"
#include "pb/etcd/rpc.pb-c.h"
#include "txn/txn.h"

#define PIECE_BYTES (256u * 1024) /* until it is reached: one value may go over it */
#define PIECE_KEYS 10000u         /* looked at in one turn of a worker */

struct range_stream {
    struct stream stream;
    struct mutex lock;
    bool over; /* [lock] no worker is asked any more */
    struct job job;
    struct read_wait wait;
    struct range_request request;
    struct buffer bytes; /* of its key and range_end */
    struct range_progress progress;
    struct response_header header;
    bool proven;
    size_t sent_bytes; /* of the piece that is under way */
};

static struct range_stream *
range_of(struct stream *s)
{
    return container_of(s, struct range_stream, stream);
}

static struct grpc_api *
api_of(const struct range_stream *r)
{
    return r->stream.queue->api;
}

/*
 * Has the next piece read.  Nothing is asked of the workers once the stream has ended: a stop
 * waits for that.
 */
static void
read_on(struct range_stream *r)
{
    struct grpc_api *api = api_of(r);
    bool taken;

    stream_ref(&r->stream); /* the job's */
    mutex_lock(&r->lock);
    taken = !r->over &&
            atomic_load(&api->response_bytes) <= api->options.max_response_bytes &&
            api_submit_job(api, &r->job);
    mutex_unlock(&r->lock);
    if (!taken) { /* a stream that has ended is not ended again */
        stream_fail(&r->stream, ETCD_TOO_MANY_REQUESTS);
        stream_unref(&r->stream);
    }
}

static void
read_again(struct read_wait *w)
{
    struct range_stream *r = container_of(w, struct range_stream, wait);

    read_on(r);
    stream_unref(&r->stream); /* of the job that had to wait */
}

static void
read_refused(struct read_wait *w, enum etcd_error error)
{
    struct range_stream *r = container_of(w, struct range_stream, wait);

    stream_fail(&r->stream, error);
    stream_unref(&r->stream);
}

/* Takes over the chain's content. */
static void
send_piece(struct range_stream *r, struct chain *kvs)
{
    struct chain out;

    if (r->progress.done) {
        wire_header_field(kvs, 1, &r->header);
        wire_varint_field(kvs, 3, r->progress.more);
        wire_varint_field(kvs, 4, (uint64_t)r->progress.count);
    }
    chain_init(&out);
    wire_message_field(&out, 1, kvs);
    r->sent_bytes = out.length;
    atomic_fetch_add(&api_of(r)->response_bytes, r->sent_bytes);
    stream_send(&r->stream, &out, false);
}

/* The first piece may have been old: it is forgotten, and read again once leadership is proven. */
static void
read_first_again(struct range_stream *r, struct chain *kvs)
{
    buffer_free(&r->progress.next);
    r->progress = (struct range_progress){0};
    if (!read_is_proven(&r->wait, kvs))
        return; /* the wait has the job's reference */
    chain_free(kvs);
    read_again(&r->wait);
}

static void
range_job(struct job *job)
{
    struct range_stream *r = container_of(job, struct range_stream, job);
    struct grpc_api *api = api_of(r);
    struct chain kvs;
    enum etcd_error e;

    api_job_began(api);
    if (!read_is_ready(&r->wait, &r->request, NULL))
        return;
    chain_init(&kvs);
    e = node_range_chunk(api->node, &r->request, PIECE_BYTES, PIECE_KEYS, &r->progress,
                         &r->header, &kvs);
    if (!r->proven && !node_is_proven(api->node)) {
        read_first_again(r, &kvs);
        return;
    }
    r->proven = true;
    if (e != ETCD_OK) {
        chain_free(&kvs);
        stream_fail(&r->stream, e);
    } else if (kvs.length > 0 || r->progress.done) {
        send_piece(r, &kvs);
    } else {
        read_on(r); /* counting what is beyond the limit */
    }
    stream_unref(&r->stream); /* the job's */
}

/* --- the stream's kind ------------------------------------------------------------------ */

static void
range_start(struct stream *s)
{
    struct range_stream *r = range_of(s);

    mutex_init(&r->lock);
    r->job.run = range_job;
}

static enum etcd_error
validate(const struct range_request *q)
{
    enum etcd_error e = txn_validate_range(q);

    if (e != ETCD_OK)
        return e;
    /* etcd takes another target without an order, too, and then ignores it: Range sorts by it. */
    if (q->sort_target != SORT_KEY || q->sort_order == SORT_DESCEND)
        return ETCD_STREAM_SORT;
    if (q->min_mod_revision != 0 || q->max_mod_revision != 0 ||
        q->min_create_revision != 0 || q->max_create_revision != 0)
        return ETCD_STREAM_FILTER;
    return ETCD_OK;
}

static bool
range_message(struct stream *s, const ProtobufCMessage *message)
{
    struct range_stream *r = range_of(s);
    struct grpc_api *api = api_of(r);
    struct range_request *q = &r->request;
    size_t key;
    enum etcd_error e;

    decode_range(message, q);
    e = validate(q);
    if (e != ETCD_OK) {
        stream_fail(s, e);
        return false;
    }
    key = q->key.len;
    buffer_append_slice(&r->bytes, q->key);
    buffer_append_slice(&r->bytes, q->range_end);
    q->key = slice_of(r->bytes.data, key);
    q->range_end = slice_of(r->bytes.data + key, q->range_end.len);
    r->proven = q->serializable || api->options.serializable_reads; /* not asked for */
    read_wait_init(&r->wait, api->node, read_again, read_refused);
    read_on(r);
    return false;
}

static void
piece_is_gone(struct range_stream *r)
{
    atomic_fetch_sub(&api_of(r)->response_bytes, r->sent_bytes);
    r->sent_bytes = 0;
}

static void
range_sent(struct stream *s)
{
    struct range_stream *r = range_of(s);

    piece_is_gone(r);
    if (r->progress.done)
        stream_finish(s, GRPC_STATUS_OK, "");
    else
        read_on(r);
}

static void
range_end(struct stream *s)
{
    struct range_stream *r = range_of(s);

    mutex_lock(&r->lock);
    r->over = true;
    mutex_unlock(&r->lock);
}

static void
range_release(struct stream *s)
{
    struct range_stream *r = range_of(s);

    piece_is_gone(r);
    buffer_free(&r->bytes);
    buffer_free(&r->progress.next);
    mutex_destroy(&r->lock);
}

const struct stream_kind range_stream_kind = {
    .grpc_type = "server_stream",
    .size = sizeof(struct range_stream),
    .start = range_start,
    .message = range_message,
    .half_closed = stream_no_request,
    .sent = range_sent,
    .end = range_end,
    .release = range_release,
};

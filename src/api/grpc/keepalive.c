/*
 * keepalive.c - the LeaseKeepAlive stream: each request is answered, in order.
 *
 * Requests go to the node as they come and may come back in another order (one that waited
 * for the log is overtaken by one that did not have to), so answers wait in a list for those
 * before them.  The list is bounded: reading stops while IN_FLIGHT_MAX are on it.
 *
 * Lock: keepalive.lock guards the list; nothing is called with it held.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "api/grpc/grpc_int.h"
#include "base/memory.h"
#include "pb/etcd/rpc.pb-c.h"

#define IN_FLIGHT_MAX 256u

struct keepalive;

/* One request and, once done, its answer. */
struct beat {
    struct node_request request;
    struct keepalive *owner;
    struct beat *next; /* [owner.lock] */
    bool done;         /* [owner.lock] */
};

struct keepalive {
    struct stream stream;
    struct mutex lock;
    struct beat *head, **tail; /* [lock] in the order of the requests */
    uint32_t n;                /* [lock] on the list */
    bool sending;              /* [lock] */
    bool paused;               /* [lock] not reading */
    bool half_closed;          /* [lock] */
};

static struct keepalive *
keepalive_of(struct stream *s)
{
    return container_of(s, struct keepalive, stream);
}

static void
beat_free(struct beat *b)
{
    chain_free(&b->request.response);
    mem_free(b);
}

/* Sends the first answer if it is there and nothing is being sent. */
static void
pump(struct keepalive *k)
{
    struct beat *b;
    bool more, resume, finished;

    mutex_lock(&k->lock);
    b = k->sending || k->head == NULL || !k->head->done ? NULL : k->head;
    if (b != NULL) {
        k->head = b->next;
        if (k->head == NULL)
            k->tail = &k->head;
        k->n--;
        k->sending = true;
    }
    more = k->head != NULL && k->head->done && k->head->request.error == ETCD_OK;
    resume = k->paused && k->n < IN_FLIGHT_MAX;
    if (resume)
        k->paused = false;
    finished = b == NULL && !k->sending && k->head == NULL && k->half_closed;
    mutex_unlock(&k->lock);

    if (b != NULL) {
        if (b->request.error == ETCD_OK)
            stream_send(&k->stream, &b->request.response, more);
        else
            stream_fail(&k->stream, b->request.error);
        beat_free(b);
    }
    if (resume)
        stream_receive(&k->stream);
    if (finished)
        stream_finish(&k->stream, GRPC_STATUS_OK, "");
}

static void
on_done(struct node_request *r)
{
    struct beat *b = container_of(r, struct beat, request);
    struct keepalive *k = b->owner;

    mutex_lock(&k->lock);
    b->done = true;
    mutex_unlock(&k->lock);
    pump(k);
    stream_unref(&k->stream);
}

/* --- the stream's kind ---------------------------------------------------------------------- */

static void
keepalive_start(struct stream *s)
{
    struct keepalive *k = keepalive_of(s);

    mutex_init(&k->lock);
    k->tail = &k->head;
}

static bool
keepalive_message(struct stream *s, const ProtobufCMessage *message)
{
    const Etcdserverpb__LeaseKeepAliveRequest *m = (const void *)message;
    struct keepalive *k = keepalive_of(s);
    struct beat *b = mem_zalloc(sizeof *b);
    bool read_on;

    b->owner = k;
    b->request.op = NODE_LEASE_KEEPALIVE;
    b->request.lease.id = m->id;
    b->request.bytes = (uint32_t)sizeof *b;
    b->request.done = on_done;
    chain_init(&b->request.response);
    stream_ref(s); /* the request's, until done() */
    mutex_lock(&k->lock);
    *k->tail = b;
    k->tail = &b->next;
    read_on = ++k->n < IN_FLIGHT_MAX;
    k->paused = !read_on;
    mutex_unlock(&k->lock);
    node_submit(s->queue->api->node, &b->request);
    return read_on;
}

static void
keepalive_half_closed(struct stream *s)
{
    struct keepalive *k = keepalive_of(s);

    mutex_lock(&k->lock);
    k->half_closed = true;
    mutex_unlock(&k->lock);
    pump(k);
}

static void
keepalive_sent(struct stream *s)
{
    struct keepalive *k = keepalive_of(s);

    mutex_lock(&k->lock);
    k->sending = false;
    mutex_unlock(&k->lock);
    pump(k);
}

static void
keepalive_end(struct stream *s)
{
    (void)s; /* requests at the node hold references; what they bring is dropped */
}

static void
keepalive_release(struct stream *s)
{
    struct keepalive *k = keepalive_of(s);

    while (k->head != NULL) {
        struct beat *b = k->head;

        k->head = b->next;
        beat_free(b);
    }
    mutex_destroy(&k->lock);
}

const struct stream_kind keepalive_stream_kind = {
    .size = sizeof(struct keepalive),
    .start = keepalive_start,
    .message = keepalive_message,
    .half_closed = keepalive_half_closed,
    .sent = keepalive_sent,
    .end = keepalive_end,
    .release = keepalive_release,
};

/*
 * watch.c - the Watch stream: requests to the hub, the hub's messages to the client.
 *
 * The hub does all the work (watch/watch.h); this is its transport.  The hub keeps at most one
 * message per stream under way, which fits stream_send(); what waits behind it is bounded by
 * the hub for events and here for answers.
 *
 * Lock: watch_call.lock guards the handle of the hub's stream: a stop, a lost connection and a
 * request may come together, and after watch_stream_close() the handle must not be used.  It
 * is held while the hub is called, which only queues work; the hub calls back without a lock
 * of its own, and closed() takes only the stream's lock.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "api/grpc/grpc_int.h"
#include "base/memory.h"
#include "pb/etcd/rpc.pb-c.h"

/* Creates that may wait for their answer: a client that asks and does not read is not read. */
#define OWED_MAX 1024u

struct watch_call {
    struct stream stream;
    struct mutex lock;
    struct watch_stream *hub; /* [lock] NULL: not open yet, or let go of */
    uint32_t owed;            /* [lock] creates not answered yet, at most */
    bool paused;              /* [lock] not reading */
};

static struct watch_call *
watch_of(struct stream *s)
{
    return container_of(s, struct watch_call, stream);
}

/* --- the hub's transport (hub's thread) --------------------------------------------------- */

static void
hub_send(void *arg, struct chain *message, bool more)
{
    struct watch_call *w = arg;
    bool resume;

    mutex_lock(&w->lock);
    if (w->owed > 0) /* answers go out before events: an event means that none waits */
        w->owed--;
    resume = w->paused && w->owed < OWED_MAX / 2;
    if (resume)
        w->paused = false;
    mutex_unlock(&w->lock);
    /* When the stream is over, the hub has been told or is being told: nobody waits for it. */
    stream_send(&w->stream, message, more);
    if (resume)
        stream_receive(&w->stream);
}

static void
hub_end(void *arg, int error)
{
    struct watch_call *w = arg;

    stream_fail(&w->stream, (enum etcd_error)error);
}

static void
hub_closed(void *arg)
{
    struct watch_call *w = arg;

    stream_unref(&w->stream);
}

static const struct watch_transport transport = {hub_send, hub_end, hub_closed};

/* --- the stream's kind ---------------------------------------------------------------------- */

static void
watch_start(struct stream *s)
{
    struct watch_call *w = watch_of(s);
    struct watch_hub *hub = node_watch_hub(s->queue->api->node);

    mutex_init(&w->lock);
    stream_ref(s); /* the hub's, until closed() */
    mutex_lock(&w->lock);
    w->hub = watch_stream_open(hub, &transport, w);
    mutex_unlock(&w->lock);
}

static void
create(struct watch_stream *hub, const Etcdserverpb__WatchCreateRequest *m)
{
    struct watch_create request = {
        .key = slice_of(m->key.data, m->key.len),
        .range_end = slice_of(m->range_end.data, m->range_end.len),
        .start_revision = m->start_revision,
        .watch_id = m->watch_id,
        .progress_notify = m->progress_notify,
        .prev_kv = m->prev_kv,
        .fragment = m->fragment,
    };

    for (size_t i = 0; i < m->n_filters; i++) {
        switch (m->filters[i]) {
        case ETCDSERVERPB__WATCH_CREATE_REQUEST__FILTER_TYPE__NOPUT:
            request.no_put = true;
            break;
        case ETCDSERVERPB__WATCH_CREATE_REQUEST__FILTER_TYPE__NODELETE:
            request.no_delete = true;
            break;
        default: break; /* unknown filters filter nothing, as in etcd */
        }
    }
    watch_stream_create(hub, &request);
}

static bool
watch_message(struct stream *s, const ProtobufCMessage *message)
{
    const Etcdserverpb__WatchRequest *m = (const void *)message;
    struct watch_call *w = watch_of(s);
    bool read_on;

    mutex_lock(&w->lock);
    if (w->hub != NULL) {
        switch (m->request_union_case) {
        case ETCDSERVERPB__WATCH_REQUEST__REQUEST_UNION_CREATE_REQUEST:
            create(w->hub, m->create_request);
            w->paused = ++w->owed >= OWED_MAX;
            break;
        case ETCDSERVERPB__WATCH_REQUEST__REQUEST_UNION_CANCEL_REQUEST:
            watch_stream_cancel(w->hub, m->cancel_request->watch_id);
            break;
        case ETCDSERVERPB__WATCH_REQUEST__REQUEST_UNION_PROGRESS_REQUEST:
            watch_stream_progress(w->hub);
            break;
        default: break; /* a request of a later version: ignored, as in etcd */
        }
    }
    read_on = !w->paused;
    mutex_unlock(&w->lock);
    return read_on;
}

static void
watch_half_closed(struct stream *s)
{
    /* As in etcd the watches go on: a JSON gateway sends its request, then listens. */
    (void)s;
}

static void
watch_sent(struct stream *s)
{
    struct watch_call *w = watch_of(s);

    mutex_lock(&w->lock);
    if (w->hub != NULL)
        watch_stream_sent(w->hub);
    mutex_unlock(&w->lock);
}

static void
watch_end(struct stream *s)
{
    struct watch_call *w = watch_of(s);

    stream_ref(s); /* closed() may come from within, and would free what is locked */
    mutex_lock(&w->lock);
    if (w->hub != NULL)
        watch_stream_close(w->hub);
    w->hub = NULL;
    mutex_unlock(&w->lock);
    stream_unref(s);
}

static void
watch_release(struct stream *s)
{
    mutex_destroy(&watch_of(s)->lock);
}

const struct stream_kind watch_stream_kind = {
    .size = sizeof(struct watch_call),
    .start = watch_start,
    .message = watch_message,
    .half_closed = watch_half_closed,
    .sent = watch_sent,
    .end = watch_end,
    .release = watch_release,
};

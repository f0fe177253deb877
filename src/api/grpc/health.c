/*
 * health.c - grpc.health.v1: the server as a whole, which is the service named "".
 *
 * SERVING while this server leads; a server that only shows what it knows (another one leads,
 * or it does not yet) is NOT_SERVING, so that balancers and probes look elsewhere.
 *
 * Threads: polling threads; health_tell() any.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "api/grpc/grpc_int.h"
#include "base/memory.h"
#include "pb/grpc/health.pb-c.h"

#define STATUS(name) GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__##name

struct health {
    struct stream stream;
    struct mutex lock;
    bool asked;     /* [lock] the request was for ""; else nothing ever changes */
    bool sending;   /* [lock] */
    uint32_t shown; /* [lock] what the client was told last; 0: nothing */
};

static uint32_t
present_status(const struct node *node)
{
    return node_leads(node) ? STATUS(SERVING) : STATUS(NOT_SERVING);
}

static bool
is_whole_server(const Grpc__Health__V1__HealthCheckRequest *m)
{
    return m->service == NULL || m->service[0] == 0;
}

void
health_check(struct call *c, const ProtobufCMessage *message)
{
    struct chain out;

    if (!is_whole_server((const void *)message)) {
        call_fail(c, ETCD_UNKNOWN_SERVICE);
        return;
    }
    chain_init(&out);
    wire_varint_field(&out, 1, present_status(c->queue->api->node));
    call_reply(c, ETCD_OK, &out);
}

void
health_list(struct call *c, const ProtobufCMessage *message)
{
    struct chain out, entry, status;

    (void)message;
    chain_init(&out);
    chain_init(&entry);
    chain_init(&status);
    wire_message_head(&entry, 1, 0); /* the name: empty, and there */
    wire_varint_field(&status, 1, present_status(c->queue->api->node));
    wire_message_field(&entry, 2, &status);
    wire_message_field(&out, 1, &entry);
    call_reply(c, ETCD_OK, &out);
}

/* --- Watch ---------------------------------------------------------------------------- */

static struct health *
health_of(struct stream *s)
{
    return container_of(s, struct health, stream);
}

static void
show(struct health *h, uint32_t status)
{
    struct chain out;

    chain_init(&out);
    wire_varint_field(&out, 1, status);
    stream_send(&h->stream, &out, false);
}

void
health_tell(struct stream *s)
{
    struct health *h = health_of(s);
    uint32_t status;
    bool send;

    mutex_lock(&h->lock);
    status = present_status(s->queue->api->node);
    send = h->asked && !h->sending && status != h->shown;
    if (send) {
        h->shown = status;
        h->sending = true;
    }
    mutex_unlock(&h->lock);
    if (send)
        show(h, status);
}

static void
health_start(struct stream *s)
{
    mutex_init(&health_of(s)->lock);
}

static bool
health_message(struct stream *s, const ProtobufCMessage *message)
{
    struct health *h = health_of(s);
    bool known = is_whole_server((const void *)message);

    mutex_lock(&h->lock);
    h->asked = known;
    mutex_unlock(&h->lock);
    if (known)
        health_tell(s);
    else
        show(h, STATUS(SERVICE_UNKNOWN));
    return false;
}

static void
health_sent(struct stream *s)
{
    struct health *h = health_of(s);

    mutex_lock(&h->lock);
    h->sending = false;
    mutex_unlock(&h->lock);
    health_tell(s); /* it may have changed meanwhile */
}

static void
health_end(struct stream *s)
{
    (void)s;
}

static void
health_release(struct stream *s)
{
    mutex_destroy(&health_of(s)->lock);
}

const struct stream_kind health_stream_kind = {
    .grpc_type = "server_stream",
    .size = sizeof(struct health),
    .start = health_start,
    .message = health_message,
    .half_closed = stream_no_request,
    .sent = health_sent,
    .end = health_end,
    .release = health_release,
};

/*
 * stream.c - what streams have in common: one operation of each kind at a time,
 * an orderly end whoever wants it, and the lifetime.
 *
 * Events, and how they come: a half-close gives a receive without a message; a cancelled call
 * or lost connection gives the same, and then the close event with cancelled set.  A status
 * may be sent in every case, so whoever ends the stream does the same thing.  Back-pressure:
 * a send's event comes when HTTP/2's flow control let the message pass, so a client that does
 * not read holds one message here and nothing more.
 *
 * Entry points: stream_post(), stream_receive(), stream_send(), stream_finish(),
 * stream_fail(), stream_ref(), stream_unref().
 *
 * Invariants: see struct stream in grpc_int.h.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <stdio.h>
#include <string.h>

#include "api/grpc/grpc_int.h"
#include "base/log.h"
#include "base/memory.h"

static void on_opened(struct tag *tag, bool ok);
static void on_received(struct tag *tag, bool ok);
static void on_sent(struct tag *tag, bool ok);
static void on_closed(struct tag *tag, bool ok);
static void on_finished(struct tag *tag, bool ok);

/* --- lifetime --------------------------------------------------------------------------- */

static void
slot_free(struct stream *s)
{
    grpc_metadata_array_destroy(&s->metadata);
    mutex_destroy(&s->lock);
    mem_free(s);
}

void
stream_post(struct queue *q, const struct method *method)
{
    struct stream *s = mem_zalloc(method->kind->size);
    grpc_call_error e;

    s->opened.run = on_opened;
    s->received.run = on_received;
    s->sent.run = on_sent;
    s->closed.run = on_closed;
    s->finished.run = on_finished;
    s->queue = q;
    s->method = method;
    grpc_metadata_array_init(&s->metadata);
    message_init(&s->out);
    arena_init(&s->arena);
    mutex_init(&s->lock);
    q->n_slots++;
    e = grpc_server_request_registered_call(
        q->api->core, q->api->registered[method_index(method)], &s->core, &s->deadline,
        &s->metadata, NULL, q->core, q->core, &s->opened);
    if (e != GRPC_CALL_OK) { /* cannot happen with these arguments */
        LOG_ERROR("gRPC refused a request slot", "method", method->path, "reason",
                  grpc_call_error_to_string(e), NULL);
        slot_free(s);
        queue_slot_gone(q);
    }
}

void
stream_ref(struct stream *s)
{
    mutex_lock(&s->lock);
    s->references++;
    mutex_unlock(&s->lock);
}

void
stream_unref(struct stream *s)
{
    struct grpc_api *api = s->queue->api;
    bool last;

    mutex_lock(&s->lock);
    last = --s->references == 0;
    mutex_unlock(&s->lock);
    if (!last)
        return;
    s->method->kind->release(s);
    arena_reset(&s->arena);
    grpc_call_unref(s->core);
    api_remove_stream(api, s); /* frees; the API may be gone right after */
}

/* --- operations ----------------------------------------------------------------------------- */

/* Starts a batch, which holds a reference until its event.  With the lock held. */
static bool
start(struct stream *s, const grpc_op *ops, size_t n, struct tag *tag)
{
    grpc_call_error e = grpc_call_start_batch(s->core, ops, n, tag, NULL);

    if (e == GRPC_CALL_OK)
        s->references++;
    else /* a bug of ours */
        LOG_ERROR("gRPC refused a stream's operation", "method", s->method->path,
                  "reason", grpc_call_error_to_string(e), NULL);
    return e == GRPC_CALL_OK;
}

/* Sends the status when it is due.  With the lock held. */
static void
send_status(struct stream *s)
{
    grpc_op ops[2], *o = ops;
    grpc_slice details;

    if (!s->finishing || s->sending || s->status_sent)
        return;
    s->status_sent = true;
    memset(ops, 0, sizeof ops);
    if (!s->metadata_sent)
        (o++)->op = GRPC_OP_SEND_INITIAL_METADATA;
    details = grpc_slice_from_copied_string(s->text);
    o->op = GRPC_OP_SEND_STATUS_FROM_SERVER;
    o->data.send_status_from_server.status = s->code;
    (o++)->data.send_status_from_server.status_details = &details;
    start(s, ops, (size_t)(o - ops), &s->finished);
    grpc_slice_unref(details);
}

void
stream_receive(struct stream *s)
{
    grpc_op op;

    memset(&op, 0, sizeof op);
    op.op = GRPC_OP_RECV_MESSAGE;
    op.data.recv_message.recv_message = &s->in;
    mutex_lock(&s->lock);
    if (!s->finishing)
        start(s, &op, 1, &s->received);
    mutex_unlock(&s->lock);
}

bool
stream_send(struct stream *s, struct chain *message, bool more)
{
    grpc_op ops[2], *o = ops;

    memset(ops, 0, sizeof ops);
    mutex_lock(&s->lock);
    if (s->finishing) {
        mutex_unlock(&s->lock);
        chain_free(message);
        return false;
    }
    s->out_bytes = message->length;
    message_take(&s->out, message);
    /*
     * The hint lets the core collect messages before it writes.  Not on the first one: with
     * the initial metadata in its batch the core reports it sent only once it is written,
     * which it would never be.
     */
    if (!s->metadata_sent) {
        (o++)->op = GRPC_OP_SEND_INITIAL_METADATA;
        more = false;
    }
    s->metadata_sent = true;
    o->op = GRPC_OP_SEND_MESSAGE;
    o->flags = more ? GRPC_WRITE_BUFFER_HINT : 0;
    (o++)->data.send_message.send_message = &s->out;
    s->sending = start(s, ops, (size_t)(o - ops), &s->sent);
    mutex_unlock(&s->lock);
    return true;
}

void
stream_finish(struct stream *s, grpc_status_code code, const char *text)
{
    bool first;

    mutex_lock(&s->lock);
    first = !s->finishing;
    if (first) {
        s->finishing = true;
        s->code = code;
        s->text = text;
        send_status(s);
    }
    mutex_unlock(&s->lock);
    if (first)
        s->method->kind->end(s);
}

void
stream_no_request(struct stream *s)
{
    stream_finish(s, GRPC_STATUS_INTERNAL,
                  "cardinality violation: received no request message from "
                  "non-client-streaming RPC");
}

void
stream_fail(struct stream *s, enum etcd_error error)
{
    stream_finish(s, (grpc_status_code)etcd_error_code(error), etcd_error_text(error));
}

/* --- events --------------------------------------------------------------------------------- */

static void
on_opened(struct tag *tag, bool ok)
{
    struct stream *s = container_of(tag, struct stream, opened);
    struct queue *q = s->queue;
    enum etcd_error error;
    grpc_op op;

    if (!ok) { /* the server is shut: the slot comes back empty */
        slot_free(s);
        queue_slot_gone(q);
        return;
    }
    stream_post(q, s->method);
    count(&counts_of(q, s->method)->started, 1);
    s->began_ns = count_now(q->api);
    s->references = 1; /* this function's */
    memset(&op, 0, sizeof op);
    op.op = GRPC_OP_RECV_CLOSE_ON_SERVER;
    op.data.recv_close_on_server.cancelled = &s->cancelled;
    mutex_lock(&s->lock);
    start(s, &op, 1, &s->closed);
    mutex_unlock(&s->lock);

    s->method->kind->start(s);
    error = api_add_stream(q->api, s);
    if (error == ETCD_OK)
        error = check_metadata(&s->metadata, q,
                               strcmp(method_grpc_type(s->method), "unary") != 0,
                               &s->object_durable);
    if (error == ETCD_OK)
        stream_receive(s);
    else
        stream_fail(s, error);
    stream_unref(s);
    queue_slot_gone(q); /* from here on the API counts the stream, not the queue */
}

/* Decodes the message that came and gives it to the stream's kind; true: read on. */
static bool
handle_message(struct stream *s, grpc_byte_buffer *in)
{
    const struct grpc_api_options *o = &s->queue->api->options;
    size_t length = grpc_byte_buffer_length(in);
    size_t limit = (size_t)o->max_request_bytes + RECEIVE_OVERHEAD;
    ProtobufCMessage *m;
    enum decode_result result;
    void *copy;
    bool read_on;

    if (length > limit) {
        snprintf(s->own_text, sizeof s->own_text,
                 "grpc: received message larger than max (%zu vs. %zu)", length, limit);
        stream_finish(s, GRPC_STATUS_RESOURCE_EXHAUSTED, s->own_text);
        return false;
    }
    count(&s->queue->received_bytes, length);
    result = decode_message(s->method, message_bytes(in, &copy), o->max_txn_ops,
                            &s->arena, &m);
    mem_free(copy);
    if (result != DECODE_OK) {
        snprintf(s->own_text, sizeof s->own_text,
                 "grpc: error unmarshalling request: malformed %s",
                 s->method->type->name);
        stream_finish(s, GRPC_STATUS_INTERNAL, s->own_text);
        return false;
    }
    read_on = s->method->kind->message(s, m);
    arena_reset(&s->arena);
    return read_on;
}

static void
on_received(struct tag *tag, bool ok)
{
    struct stream *s = container_of(tag, struct stream, received);
    grpc_byte_buffer *in = s->in; /* the kind may start the next receive by itself */
    bool read_on;

    (void)ok;
    s->in = NULL;
    count(&counts_of(s->queue, s->method)->received, 1); /* the end, too: as in etcd */
    if (in == NULL) {
        s->method->kind->half_closed(s);
    } else {
        read_on = handle_message(s, in);
        grpc_byte_buffer_destroy(in);
        if (read_on)
            stream_receive(s);
    }
    stream_unref(s);
}

static void
on_sent(struct tag *tag, bool ok)
{
    struct stream *s = container_of(tag, struct stream, sent);
    bool over;

    mutex_lock(&s->lock);
    count(&counts_of(s->queue, s->method)->sent, 1);
    count(&s->queue->sent_bytes, s->out_bytes);
    message_clear(&s->out);
    s->sending = false;
    over = s->finishing;
    send_status(s);
    mutex_unlock(&s->lock);
    if (!ok)
        stream_finish(s, GRPC_STATUS_CANCELLED, "");
    else if (!over)
        s->method->kind->sent(s);
    stream_unref(s);
}

static void
on_closed(struct tag *tag, bool ok)
{
    struct stream *s = container_of(tag, struct stream, closed);

    (void)ok;
    if (s->cancelled)
        stream_finish(s, GRPC_STATUS_CANCELLED, "");
    stream_unref(s);
}

static void
on_finished(struct tag *tag, bool ok)
{
    struct stream *s = container_of(tag, struct stream, finished);

    (void)ok; /* false: the client was gone already */
    count_handled(s->queue, s->method, s->code, s->began_ns);
    stream_unref(s);
}

/*
 * stream.c - streams of messages in both directions.  See client.h.
 *
 * The status of the call is asked for at the beginning and comes at the end.  One message at a
 * time is waited for; a wait that was given up is taken up by the next receive.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <grpc/byte_buffer.h>
#include <grpc/slice.h>
#include <grpc/support/alloc.h>
#include <string.h>

#include "base/memory.h"
#include "client/client_int.h"

struct client_stream {
    struct client *client;
    grpc_call *call;
    grpc_metadata_array initial, trailing;
    grpc_status_code status;
    grpc_slice details;
    const char *error_text;
    grpc_byte_buffer *received;
    struct operation begin, receive, end;
    bool receiving;
    void *tag;
};

static void
batch(struct client_stream *s, grpc_op *ops, size_t n, struct operation *op)
{
    *op = (struct operation){0};
    if (grpc_call_start_batch(s->call, ops, n, op, NULL) != GRPC_CALL_OK)
        op->done = true; /* not good: the call has ended */
}

/* The server's verdict; the call has ended, or ends now. */
static int
verdict(struct client_stream *s, struct error *error)
{
    queue_wait(s->client->queue, &s->end, CLIENT_FOREVER);
    return failure(s->client, s->status, s->details, error);
}

int
client_stream_open(struct client *c, const char *method, uint64_t timeout_ns,
                   struct client_stream **out, struct error *error)
{
    struct client_stream *s = mem_zalloc(sizeof *s);
    grpc_op ops[2];
    int code;

    *out = NULL;
    s->client = c;
    grpc_metadata_array_init(&s->initial);
    grpc_metadata_array_init(&s->trailing);
    s->call = grpc_channel_create_registered_call(
        c->channel, NULL, GRPC_PROPAGATE_DEFAULTS, queue_core(c->queue),
        client_method(c, method), deadline_in(timeout_ns), NULL);
    memset(ops, 0, sizeof ops);
    ops[0].op = GRPC_OP_RECV_STATUS_ON_CLIENT;
    ops[0].data.recv_status_on_client.trailing_metadata = &s->trailing;
    ops[0].data.recv_status_on_client.status = &s->status;
    ops[0].data.recv_status_on_client.status_details = &s->details;
    ops[0].data.recv_status_on_client.error_string = &s->error_text;
    batch(s, ops, 1, &s->end);
    memset(ops, 0, sizeof ops);
    ops[0].op = GRPC_OP_SEND_INITIAL_METADATA;
    ops[1].op = GRPC_OP_RECV_INITIAL_METADATA;
    ops[1].data.recv_initial_metadata.recv_initial_metadata = &s->initial;
    batch(s, ops, 2, &s->begin);
    *out = s;
    if (!s->end.done)
        return 0;
    code = verdict(s, error);
    client_stream_close(s);
    *out = NULL;
    return code;
}

static int
send_op(struct client_stream *s, grpc_op *op, struct error *error)
{
    struct operation sent;

    batch(s, op, 1, &sent);
    queue_wait(s->client->queue, &sent, CLIENT_FOREVER);
    return sent.good ? 0 : verdict(s, error);
}

int
client_stream_send(struct client_stream *s, const void *request, struct error *error)
{
    grpc_byte_buffer *bytes = pack(request);
    grpc_op op;
    int code;

    memset(&op, 0, sizeof op);
    op.op = GRPC_OP_SEND_MESSAGE;
    op.data.send_message.send_message = bytes;
    code = send_op(s, &op, error);
    grpc_byte_buffer_destroy(bytes);
    return code;
}

int
client_stream_send_end(struct client_stream *s, struct error *error)
{
    grpc_op op;

    memset(&op, 0, sizeof op);
    op.op = GRPC_OP_SEND_CLOSE_FROM_CLIENT;
    return send_op(s, &op, error);
}

void
client_stream_ask(struct client_stream *s, void *tag)
{
    grpc_op op;

    memset(&op, 0, sizeof op);
    op.op = GRPC_OP_RECV_MESSAGE;
    op.data.recv_message.recv_message = &s->received;
    s->received = NULL;
    s->receiving = true;
    batch(s, &op, 1, &s->receive);
    s->receive.receiver = s;
    s->tag = tag;
}

void *
client_stream_tag(const struct client_stream *s)
{
    return s->tag;
}

grpc_byte_buffer *
client_stream_take(struct client_stream *s)
{
    grpc_byte_buffer *message = s->received;

    s->receiving = false;
    s->received = NULL;
    return message;
}

int
client_stream_receive(struct client_stream *s, const ProtobufCMessageDescriptor *answer,
                      uint64_t timeout_ns, void *out, struct error *error)
{
    grpc_byte_buffer *received;
    void *message = NULL;

    memcpy(out, &message, sizeof message);
    if (!s->receiving)
        client_stream_ask(s, NULL);
    if (!queue_wait(s->client->queue, &s->receive, timeout_ns)) {
        error_set(error, T4_E_TIMEOUT, "nothing came from %s in time",
                  s->client->endpoint);
        return CLIENT_TIMEOUT;
    }
    received = client_stream_take(s);
    if (received == NULL)
        return verdict(s, error);
    message = unpack(received, answer);
    grpc_byte_buffer_destroy(received);
    memcpy(out, &message, sizeof message);
    if (message != NULL)
        return 0;
    error_set(error, T4_E_INTERNAL, "%s sent something else than was asked for",
              s->client->endpoint);
    return GRPC_STATUS_INTERNAL;
}

bool
client_stream_ended(const struct client_stream *s)
{
    return s->end.done;
}

void
client_stream_close(struct client_stream *s)
{
    struct client_queue *q;

    if (s == NULL)
        return;
    q = s->client->queue;
    grpc_call_cancel(s->call, NULL);
    queue_wait(q, &s->begin, CLIENT_FOREVER);
    if (s->receiving)
        queue_wait(q, &s->receive, CLIENT_FOREVER);
    queue_wait(q, &s->end, CLIENT_FOREVER);
    grpc_byte_buffer_destroy(s->received);
    grpc_slice_unref(s->details);
    gpr_free((void *)(uintptr_t)s->error_text);
    grpc_metadata_array_destroy(&s->initial);
    grpc_metadata_array_destroy(&s->trailing);
    grpc_call_unref(s->call);
    mem_free(s);
}

/*
 * call.c - unary calls: request slots, guards, answers.
 *
 * A slot is a struct call that waits in the core for the next request of its method.  The
 * handler posts the next slot first, checks and decodes the message, and hands the call to
 * the method's handler, which answers it at once or later, from any thread.  The answer is
 * one batch of operations, whose event gives the call back to the queue's spare list.
 *
 * Entry points: call_post(), call_reply(), call_refuse*(), call_on_worker().
 *
 * Invariants
 *  (1) a call is answered exactly once; from then on only its event touches it
 *  (2) RECV_CLOSE_ON_SERVER is started exactly once: in the answer's batch
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "api/grpc/grpc_int.h"
#include "base/log.h"
#include "base/memory.h"

#define SPARE_MAX 512u /* calls kept per queue for the next burst */

static void on_requested(struct tag *tag, bool ok);
static void on_answered(struct tag *tag, bool ok);

/* --- slots ------------------------------------------------------------------------------ */

static struct call *
call_new(struct queue *q)
{
    struct call *c = q->spare;

    if (c != NULL) {
        q->spare = c->next;
        q->n_spare--;
        return c;
    }
    c = mem_alloc(sizeof *c);
    c->requested.run = on_requested;
    c->answered.run = on_answered;
    c->queue = q;
    message_init(&c->out);
    arena_init(&c->arena);
    return c;
}

static void
call_free(struct call *c)
{
    struct queue *q = c->queue;

    grpc_metadata_array_destroy(&c->metadata);
    if (q->n_spare < SPARE_MAX) {
        c->next = q->spare;
        q->spare = c;
        q->n_spare++;
    } else {
        mem_free(c);
    }
}

void
call_free_spares(struct queue *q)
{
    while (q->spare != NULL) {
        struct call *c = q->spare;

        q->spare = c->next;
        mem_free(c);
    }
    q->n_spare = 0;
}

void
call_post(struct queue *q, const struct method *method)
{
    struct call *c = call_new(q);
    grpc_call_error e;

    c->method = method;
    c->payload = NULL;
    c->core = NULL;
    grpc_metadata_array_init(&c->metadata);
    q->n_slots++;
    e = grpc_server_request_registered_call(
        q->api->core, q->api->registered[method_index(method)], &c->core, &c->deadline,
        &c->metadata, &c->payload, q->core, q->core, &c->requested);
    if (e != GRPC_CALL_OK) { /* cannot happen with these arguments */
        LOG_ERROR("gRPC refused a request slot", "method", method->path, "reason",
                  grpc_call_error_to_string(e), NULL);
        call_free(c);
        queue_slot_gone(q);
    }
}

/* --- answers ------------------------------------------------------------------------------ */

/* c->out is the message, if there is one. */
static void
answer(struct call *c, grpc_status_code code, grpc_slice *details)
{
    /* The call may be gone, and be another one, before start_batch() returns. */
    struct tag *tag = &c->answered;
    grpc_call *core = c->core;
    grpc_op ops[4], *o = ops;
    grpc_call_error e;

    memset(ops, 0, sizeof ops);
    (o++)->op = GRPC_OP_SEND_INITIAL_METADATA;
    if (code == GRPC_STATUS_OK) {
        o->op = GRPC_OP_SEND_MESSAGE;
        (o++)->data.send_message.send_message = &c->out;
    }
    o->op = GRPC_OP_SEND_STATUS_FROM_SERVER;
    o->data.send_status_from_server.status = code;
    (o++)->data.send_status_from_server.status_details = details;
    o->op = GRPC_OP_RECV_CLOSE_ON_SERVER;
    (o++)->data.recv_close_on_server.cancelled = &c->cancelled;
    c->code = code;
    TAG_STARTS(tag);
    e = grpc_call_start_batch(core, ops, (size_t)(o - ops), tag, NULL);
    if (e != GRPC_CALL_OK) /* a bug of ours: the call would hang, and so would the stop */
        LOG_ERROR("gRPC refused an answer", "reason", grpc_call_error_to_string(e), NULL);
}

void
call_reply(struct call *c, enum etcd_error error, struct chain *body)
{
    struct grpc_api *api = c->queue->api;

    if (error != ETCD_OK) { /* the node has counted it */
        grpc_slice details = grpc_slice_from_static_string(etcd_error_text(error));

        chain_free(body);
        answer(c, (grpc_status_code)etcd_error_code(error), &details);
        return;
    }
    c->out_bytes = body->length;
    message_take(&c->out, body);
    atomic_fetch_add_explicit(&api->response_bytes, c->out_bytes, memory_order_relaxed);
    answer(c, GRPC_STATUS_OK, NULL);
}

void
call_refuse(struct call *c, grpc_status_code code, const char *static_text)
{
    grpc_slice details = grpc_slice_from_static_string(static_text);

    metric_add(c->queue->api->metrics, METRIC_REQUESTS_FAILED, 1);
    answer(c, code, &details);
}

void
call_refuse_formatted(struct call *c, grpc_status_code code, const char *format, ...)
{
    char text[512];
    grpc_slice details;
    va_list args;

    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    details = grpc_slice_from_copied_string(text);
    metric_add(c->queue->api->metrics, METRIC_REQUESTS_FAILED, 1);
    answer(c, code, &details);
    grpc_slice_unref(details);
}

void
call_fail(struct call *c, enum etcd_error error)
{
    call_refuse(c, (grpc_status_code)etcd_error_code(error), etcd_error_text(error));
}

static void
on_answered(struct tag *tag, bool ok)
{
    struct call *c = container_of(tag, struct call, answered);
    struct queue *q = c->queue;

    (void)ok; /* false: the client is gone, and nobody is left to tell */
    count_handled(q, c->method, c->code, c->began_ns);
    count(&counts_of(q, c->method)->sent, 1); /* errors, too: as in etcd */
    count(&q->sent_bytes, c->out_bytes);
    if (c->out_bytes > 0)
        atomic_fetch_sub_explicit(&q->api->response_bytes, c->out_bytes,
                                  memory_order_relaxed);
    message_clear(&c->out);
    arena_reset(&c->arena);
    grpc_call_unref(c->core);
    call_free(c);
    queue_call_gone(q);
}

/* --- workers -------------------------------------------------------------------------------- */

bool
api_submit_job(struct grpc_api *api, struct job *job)
{
    if (atomic_fetch_add(&api->worker_jobs, 1) >= api->options.max_worker_jobs) {
        atomic_fetch_sub(&api->worker_jobs, 1);
        return false;
    }
    workers_submit(node_workers(api->node), job);
    return true;
}

void
api_job_began(struct grpc_api *api)
{
    atomic_fetch_sub(&api->worker_jobs, 1);
}

void
call_on_worker(struct call *c, void (*run)(struct job *job))
{
    c->job.run = run;
    if (!api_submit_job(c->queue->api, &c->job))
        call_fail(c, ETCD_TOO_MANY_REQUESTS);
}

struct call *
call_of_job(struct job *job)
{
    struct call *c = container_of(job, struct call, job);

    api_job_began(c->queue->api);
    return c;
}

/* --- requests ------------------------------------------------------------------------------- */

static void
refuse_decoded(struct call *c, enum decode_result result)
{
    if (result == DECODE_MALFORMED) {
        call_refuse_formatted(c, GRPC_STATUS_INTERNAL,
                              "grpc: error unmarshalling request: malformed %s",
                              c->method->type->name);
        return;
    }
    if (c->method->schema != wire_schema_txn) {
        call_refuse_formatted(
            c, GRPC_STATUS_INTERNAL,
            "grpc: error unmarshalling request: more than %u fields in %s",
            FLAT_ITEMS_MAX, c->method->type->name);
        return;
    }
    call_fail(c, result == DECODE_TOO_DEEP ? ETCD_NESTING_TOO_DEEP : ETCD_TOO_MANY_OPS);
}

/*
 * What etcd's limit is compared with is the proposal it would send to its log: the request
 * as a field of InternalRaftRequest (a tag of one byte and the length) behind a header with
 * the request's id, 14 bytes in all.
 */
bool
call_is_too_large(const struct call *c)
{
    return 14 + 1 + varint_size(c->message_bytes) + (size_t)c->message_bytes >
           c->queue->api->options.max_request_bytes;
}

static bool
overloaded(const struct queue *q)
{
    const struct grpc_api *api = q->api;

    return q->n_calls > api->options.max_calls / api->n_queues ||
           atomic_load_explicit(&api->response_bytes, memory_order_relaxed) >
               api->options.max_response_bytes;
}

/* Decodes the payload, which is done with afterwards; false: the call has been answered. */
static bool
take_message(struct call *c, ProtobufCMessage **message)
{
    const struct grpc_api *api = c->queue->api;
    enum decode_result result;
    size_t length, limit = (size_t)api->options.max_request_bytes + RECEIVE_OVERHEAD;
    void *copy;

    if (c->payload == NULL) { /* half-closed without a message */
        call_refuse(c, GRPC_STATUS_UNKNOWN, "EOF");
        return false;
    }
    length = grpc_byte_buffer_length(c->payload);
    if (length > limit) {
        grpc_byte_buffer_destroy(c->payload);
        call_refuse_formatted(c, GRPC_STATUS_RESOURCE_EXHAUSTED,
                              "grpc: received message larger than max (%zu vs. %zu)",
                              length, limit);
        return false;
    }
    count(&c->queue->received_bytes, length);
    c->message_bytes = (uint32_t)length;
    result = decode_message(c->method, message_bytes(c->payload, &copy),
                            api->options.max_txn_ops, &c->arena, message);
    mem_free(copy);
    grpc_byte_buffer_destroy(c->payload);
    if (result != DECODE_OK) {
        refuse_decoded(c, result);
        return false;
    }
    count(&counts_of(c->queue, c->method)->received, 1);
    return true;
}

static void
on_requested(struct tag *tag, bool ok)
{
    struct call *c = container_of(tag, struct call, requested);
    struct queue *q = c->queue;
    ProtobufCMessage *message;
    enum etcd_error error;

    if (!ok) { /* the server is shut: the slot comes back empty */
        call_free(c);
        queue_slot_gone(q);
        return;
    }
    call_post(q, c->method); /* first: requests without a slot queue in the core */
    q->n_calls++;
    queue_slot_gone(q);
    count(&counts_of(q, c->method)->started, 1);
    c->began_ns = count_now(q->api);
    c->out_bytes = 0;
    c->object_durable = false;
    if (!take_message(c, &message))
        return;
    error = overloaded(q) ? ETCD_TOO_MANY_REQUESTS
                          : check_metadata(&c->metadata, q, false, &c->object_durable);
    if (error != ETCD_OK) {
        call_fail(c, error);
        return;
    }
    c->method->handle(c, message);
}

/*
 * client.c - queue, connections and calls.  See client.h; streams: stream.c.
 *
 * Calls are never tried again here: whether a write that was not answered may be repeated only
 * its author knows.  So gRPC's own retries are off, too.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <grpc/byte_buffer.h>
#include <grpc/byte_buffer_reader.h>
#include <grpc/grpc_security.h>
#include <grpc/slice.h>
#include <grpc/support/alloc.h>
#include <grpc/support/time.h>
#include <stdio.h>
#include <string.h>

#include "base/memory.h"
#include "client/client_int.h"

struct client_queue {
    grpc_completion_queue *core;
};

/* --- the queue --------------------------------------------------------------------------- */

struct client_queue *
client_queue_new(void)
{
    struct client_queue *q = mem_zalloc(sizeof *q);

    grpc_init();
    q->core = grpc_completion_queue_create_for_next(NULL);
    return q;
}

void
client_queue_free(struct client_queue *q)
{
    grpc_event e;

    if (q == NULL)
        return;
    grpc_completion_queue_shutdown(q->core);
    do
        e = grpc_completion_queue_next(q->core, gpr_inf_future(GPR_CLOCK_MONOTONIC),
                                       NULL);
    while (e.type != GRPC_QUEUE_SHUTDOWN);
    grpc_completion_queue_destroy(q->core);
    mem_free(q);
    grpc_shutdown_blocking();
}

grpc_completion_queue *
queue_core(struct client_queue *q)
{
    return q->core;
}

gpr_timespec
deadline_in(uint64_t timeout_ns)
{
    if (timeout_ns > INT64_MAX / 2)
        return gpr_inf_future(GPR_CLOCK_MONOTONIC);
    return gpr_time_add(gpr_now(GPR_CLOCK_MONOTONIC),
                        gpr_time_from_nanos((int64_t)timeout_ns, GPR_TIMESPAN));
}

/*
 * The tag of a call is the call itself with the lowest bit set: those of a benchmark need no
 * memory but their own.
 */
static void *
tag_of_call(struct client_call *call)
{
    return (void *)((uintptr_t)call | 1);
}

/*
 * One event.  *call: the call that came back, or NULL; *receiver: the stream that has a message
 * or has ended, or NULL.  False: the time is over.
 */
static bool
next_event(struct client_queue *q, gpr_timespec until, struct client_call **call,
           struct client_stream **receiver)
{
    grpc_event e = grpc_completion_queue_next(q->core, until, NULL);

    *call = NULL;
    *receiver = NULL;
    if (e.type != GRPC_OP_COMPLETE)
        return false;
    if ((uintptr_t)e.tag & 1) {
        *call = (struct client_call *)((uintptr_t)e.tag & ~(uintptr_t)1);
        (*call)->code = (*call)->status;
        (*call)->done = true;
    } else {
        struct operation *op = e.tag;

        op->done = true;
        op->good = e.success != 0;
        *receiver = op->receiver;
    }
    return true;
}

bool
queue_wait(struct client_queue *q, const struct operation *op, uint64_t timeout_ns)
{
    gpr_timespec until = deadline_in(timeout_ns);

    while (!op->done) {
        struct client_call *call;
        struct client_stream *receiver;

        if (!next_event(q, until, &call, &receiver))
            return false;
    }
    return true;
}

struct client_call *
client_queue_next(struct client_queue *q, uint64_t timeout_ns)
{
    gpr_timespec until = deadline_in(timeout_ns);
    struct client_stream *receiver;
    struct client_call *call;

    while (next_event(q, until, &call, &receiver))
        if (call != NULL)
            return call;
    return NULL;
}

struct client_stream *
client_queue_next_stream(struct client_queue *q, uint64_t timeout_ns)
{
    gpr_timespec until = deadline_in(timeout_ns);
    struct client_stream *receiver;
    struct client_call *call;

    while (next_event(q, until, &call, &receiver))
        if (receiver != NULL)
            return receiver;
    return NULL;
}

/* --- connections ---------------------------------------------------------------------------- */

/* What the core calls this endpoint: without a scheme of ours.  NULL: it is none. */
static const char *
core_target(const char *endpoint, struct error *error)
{
    const char *target = endpoint, *colon;

    if (strncmp(endpoint, "https://", 8) == 0 || strncmp(endpoint, "unixs:", 6) == 0) {
        error_set(
            error, T4_E_INVALID,
            "the endpoint \"%.200s\" asks for TLS, which this client does not speak",
            endpoint);
        error_hint(error, "use http://host:port on the server's own machine, or etcdctl");
        return NULL;
    }
    if (strncmp(endpoint, "unix:", 5) == 0 && endpoint[5] != '\0')
        return endpoint;
    if (strncmp(endpoint, "http://", 7) == 0)
        target += 7;
    colon = strrchr(target, ':');
    if (colon != NULL && colon != target && colon[1] != '\0' &&
        colon[1 + strspn(colon + 1, "0123456789")] == '\0' && strchr(target, '/') == NULL)
        return target;
    error_set(error, T4_E_INVALID, "\"%.200s\" is no endpoint", endpoint);
    error_hint(error, "it is written host:port, http://host:port or unix:PATH");
    return NULL;
}

t4_status
client_make(struct client_queue *q, const char *endpoint, struct client **out,
            struct error *error)
{
    const char *target = core_target(endpoint, error);
    static const struct {
        const char *name;
        int value;
    } setting[] = {
        {GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1}, /* a connection of its own */
        {GRPC_ARG_ENABLE_RETRIES, 0},
        {GRPC_ARG_ENABLE_HTTP_PROXY, 0},
        {GRPC_ARG_MAX_RECEIVE_MESSAGE_LENGTH, -1},
        {GRPC_ARG_MAX_SEND_MESSAGE_LENGTH, -1},
    };
    grpc_arg list[sizeof setting / sizeof setting[0]];
    grpc_channel_args args = {sizeof setting / sizeof setting[0], list};
    grpc_channel_credentials *credentials;
    struct client *c;

    *out = NULL;
    if (target == NULL)
        return T4_E_INVALID;
    c = mem_zalloc(sizeof *c);
    for (size_t i = 0; i < args.num_args; i++) {
        list[i].type = GRPC_ARG_INTEGER;
        list[i].key = (char *)(uintptr_t)setting[i].name;
        list[i].value.integer = setting[i].value;
    }
    c->queue = q;
    c->endpoint = mem_strdup(endpoint);
    credentials = grpc_insecure_credentials_create();
    c->channel = grpc_channel_create(target, credentials, &args);
    grpc_channel_credentials_release(credentials);
    *out = c;
    return T4_OK;
}

void
client_free(struct client *c)
{
    if (c == NULL)
        return;
    grpc_channel_destroy(c->channel);
    mem_free(c->endpoint);
    mem_free(c);
}

const char *
client_endpoint(const struct client *c)
{
    return c->endpoint;
}

bool
client_connect(struct client *c, uint64_t timeout_ns)
{
    gpr_timespec until = deadline_in(timeout_ns);

    for (;;) {
        grpc_connectivity_state state =
            grpc_channel_check_connectivity_state(c->channel, 1);
        struct operation changed = {0};

        if (state == GRPC_CHANNEL_READY)
            return true;
        if (state == GRPC_CHANNEL_TRANSIENT_FAILURE || state == GRPC_CHANNEL_SHUTDOWN)
            return false;
        grpc_channel_watch_connectivity_state(c->channel, state, until, c->queue->core,
                                              &changed);
        queue_wait(c->queue, &changed, CLIENT_FOREVER); /* it has its own deadline */
        if (!changed.good)
            return false;
    }
}

/* --- messages --------------------------------------------------------------------------------- */

static grpc_byte_buffer *
wrap(grpc_slice bytes)
{
    grpc_byte_buffer *b = grpc_raw_byte_buffer_create(&bytes, 1);

    grpc_slice_unref(bytes);
    return b;
}

grpc_byte_buffer *
pack(const void *message)
{
    size_t n = protobuf_c_message_get_packed_size(message);
    grpc_slice bytes = grpc_slice_malloc(n);

    protobuf_c_message_pack(message, GRPC_SLICE_START_PTR(bytes));
    return wrap(bytes);
}

void *
unpack(grpc_byte_buffer *bytes, const ProtobufCMessageDescriptor *descriptor)
{
    grpc_byte_buffer_reader reader;
    grpc_slice whole;
    void *message = NULL;

    if (bytes == NULL || !grpc_byte_buffer_reader_init(&reader, bytes))
        return NULL;
    whole = grpc_byte_buffer_reader_readall(&reader);
    message = protobuf_c_message_unpack(descriptor, NULL, GRPC_SLICE_LENGTH(whole),
                                        GRPC_SLICE_START_PTR(whole));
    grpc_slice_unref(whole);
    grpc_byte_buffer_reader_destroy(&reader);
    return message;
}

static t4_status
status_of(grpc_status_code code)
{
    switch (code) {
    case GRPC_STATUS_OK: return T4_OK;
    case GRPC_STATUS_CANCELLED: return T4_E_CANCELLED;
    case GRPC_STATUS_INVALID_ARGUMENT:
    case GRPC_STATUS_OUT_OF_RANGE: return T4_E_INVALID;
    case GRPC_STATUS_DEADLINE_EXCEEDED: return T4_E_TIMEOUT;
    case GRPC_STATUS_NOT_FOUND: return T4_E_NOTFOUND;
    case GRPC_STATUS_ALREADY_EXISTS: return T4_E_EXISTS;
    case GRPC_STATUS_PERMISSION_DENIED:
    case GRPC_STATUS_UNAUTHENTICATED: return T4_E_DENIED;
    case GRPC_STATUS_RESOURCE_EXHAUSTED: return T4_E_NOSPACE;
    case GRPC_STATUS_FAILED_PRECONDITION: return T4_E_PRECONDITION;
    case GRPC_STATUS_UNIMPLEMENTED: return T4_E_UNSUPPORTED;
    case GRPC_STATUS_UNAVAILABLE: return T4_E_UNAVAILABLE;
    case GRPC_STATUS_DATA_LOSS: return T4_E_CORRUPT;
    default: return T4_E_INTERNAL;
    }
}

int
failure(const struct client *c, grpc_status_code code, grpc_slice details,
        struct error *error)
{
    int n = (int)GRPC_SLICE_LENGTH(details);

    if (code == GRPC_STATUS_OK)
        return 0;
    error_set(error, status_of(code), "%.*s", n,
              (const char *)GRPC_SLICE_START_PTR(details));
    if (n == 0)
        error_set(error, status_of(code), "the server answers with code %d", (int)code);
    if (c == NULL)
        return code;
    if (code == GRPC_STATUS_UNAVAILABLE)
        error_hint(error, "asked was %s; is a server running there?", c->endpoint);
    else if (code == GRPC_STATUS_DEADLINE_EXCEEDED)
        error_hint(error,
                   "%s gave no answer in time; a write may have been done all the same",
                   c->endpoint);
    return code;
}

/* --- calls -------------------------------------------------------------------------------------- */

void *
client_method(struct client *c, const char *method)
{
    return grpc_channel_register_call(c->channel, method, NULL, NULL);
}

static void
start(struct client *c, void *method, grpc_byte_buffer *request, uint64_t timeout_ns,
      struct client_call *call)
{
    grpc_op ops[6];

    call->done = false;
    call->request = request;
    call->answer = NULL;
    call->error_text = NULL;
    grpc_metadata_array_init(&call->initial);
    grpc_metadata_array_init(&call->trailing);
    call->call = grpc_channel_create_registered_call(
        c->channel, NULL, GRPC_PROPAGATE_DEFAULTS, c->queue->core, method,
        deadline_in(timeout_ns), NULL);
    memset(ops, 0, sizeof ops);
    ops[0].op = GRPC_OP_SEND_INITIAL_METADATA;
    ops[1].op = GRPC_OP_SEND_MESSAGE;
    ops[1].data.send_message.send_message = call->request;
    ops[2].op = GRPC_OP_SEND_CLOSE_FROM_CLIENT;
    ops[3].op = GRPC_OP_RECV_INITIAL_METADATA;
    ops[3].data.recv_initial_metadata.recv_initial_metadata = &call->initial;
    ops[4].op = GRPC_OP_RECV_MESSAGE;
    ops[4].data.recv_message.recv_message = &call->answer;
    ops[5].op = GRPC_OP_RECV_STATUS_ON_CLIENT;
    ops[5].data.recv_status_on_client.trailing_metadata = &call->trailing;
    ops[5].data.recv_status_on_client.status = &call->status;
    ops[5].data.recv_status_on_client.status_details = &call->details;
    ops[5].data.recv_status_on_client.error_string = &call->error_text;
    grpc_call_start_batch(call->call, ops, 6, tag_of_call(call), NULL);
}

void
client_call_start(struct client *c, void *method, struct t4_slice message,
                  uint64_t timeout_ns, struct client_call *call)
{
    start(c, method,
          wrap(grpc_slice_from_copied_buffer((const char *)message.data, message.len)),
          timeout_ns, call);
}

int
client_call_code(const struct client_call *call, struct error *error)
{
    return failure(NULL, call->status, call->details, error);
}

void
client_call_end(struct client_call *call)
{
    grpc_slice_unref(call->details);
    gpr_free((void *)(uintptr_t)call->error_text);
    grpc_metadata_array_destroy(&call->initial);
    grpc_metadata_array_destroy(&call->trailing);
    grpc_byte_buffer_destroy(call->request);
    grpc_byte_buffer_destroy(call->answer);
    grpc_call_unref(call->call);
}

int
client_ask(struct client *c, const char *method, const void *request,
           const ProtobufCMessageDescriptor *answer, uint64_t timeout_ns, void *out,
           struct error *error)
{
    struct client_call call = {0};
    void *message = NULL;
    int code;

    start(c, client_method(c, method), pack(request), timeout_ns, &call);
    while (!call.done)
        client_queue_next(c->queue, CLIENT_FOREVER); /* the call has its own deadline */
    code = failure(c, call.status, call.details, error);
    if (code == 0) {
        message = unpack(call.answer, answer);
        if (message == NULL) {
            code = GRPC_STATUS_INTERNAL;
            error_set(error, T4_E_INTERNAL, "%s answered %s with something else",
                      c->endpoint, method);
        }
    }
    client_call_end(&call);
    memcpy(out, &message, sizeof message);
    return code;
}

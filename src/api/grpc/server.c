/*
 * server.c - the gRPC server's life: polling threads, connections, the polite stop.
 *
 * Each queue is one completion queue of the core and one thread that polls it; what the
 * handlers of one queue share (slots, spare calls, counts) belongs to that thread.  An answer
 * may be started by any thread; its event comes to the queue of its call.
 *
 * The core has no way to put an event of our own into a queue (its C interface has no
 * alarms), and none is needed: a stop is told by the events it causes.  Order of a stop:
 * streams get their status; the core is shut (no new connections, empty slots come back,
 * GOAWAY); after the grace time it cancels what still runs; when it has let go of everything,
 * every slot, call and stream is gone, and only then the queues are shut and joined.
 *
 * Entry points: grpc_api_*() (grpc.h), api_add_stream(), api_remove_stream(),
 * queue_*_gone().
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <string.h>
#include <time.h>

#include <grpc/grpc_posix.h>
#include <grpc/grpc_security.h>
#include <grpc/support/log.h>

#include "api/grpc/grpc_int.h"
#include "base/log.h"
#include "base/memory.h"

#define MILLISECOND 1000000u
#define SECOND (1000u * (uint64_t)MILLISECOND)

/*
 * The core refuses larger messages before it buffers them, in its own words; up to here they are
 * taken to be refused in etcd's.  What clients make it hold in all is bounded by its quota.
 */
#define CORE_RECEIVE_MIN (16u << 20)
#define CORE_RECEIVE_EXTRA (8u << 20)
#define METADATA_BYTES 65536
#define UNKNOWN_SLOTS 8

void
grpc_api_options_default(struct grpc_api_options *o)
{
    *o = (struct grpc_api_options){
        .threads = 1,
        .max_request_bytes = 1572864,
        .max_txn_ops = 128,
        .keepalive_min_time_ns = 5 * SECOND,
        .keepalive_interval_ns = 7200 * SECOND,
        .keepalive_timeout_ns = 20 * SECOND,
        .permit_without_stream = true,
        .max_concurrent_streams = UINT32_MAX,
        .max_calls = 65536,
        .max_streams = 65536,
        .max_worker_jobs = 1024,
        .max_response_bytes = (uint64_t)1 << 30,
        .memory_bytes = (uint64_t)1 << 30,
    };
}

/* --- the core's log ------------------------------------------------------------------------- */

/* Lines of the core are about single connections: none of them is an error of the server. */
static void
core_log(gpr_log_func_args *line)
{
    if (line->severity == GPR_LOG_SEVERITY_ERROR)
        LOG_WARN("gRPC library", "text", line->message, NULL);
    else
        LOG_DEBUG("gRPC library", "text", line->message, NULL);
}

/* --- connections ---------------------------------------------------------------------------- */

void
grpc_api_connect(struct grpc_api *api, int fd)
{
    grpc_server_add_channel_from_fd(api->core, fd, api->credentials);
}

/* --- queues --------------------------------------------------------------------------------- */

static void *
poll_main(void *arg)
{
    struct queue *q = arg;

    for (;;) {
        grpc_event e =
            grpc_completion_queue_next(q->core, gpr_inf_future(GPR_CLOCK_REALTIME), NULL);

        if (e.type == GRPC_QUEUE_SHUTDOWN)
            return NULL;
        if (e.type == GRPC_OP_COMPLETE) {
            struct tag *tag = e.tag;

            TAG_ARRIVED(tag);
            tag->run(tag, e.success != 0);
        }
    }
}

static void
tell(struct queue *q, bool *what)
{
    mutex_lock(&q->api->lock);
    *what = true;
    condition_broadcast(&q->api->changed);
    mutex_unlock(&q->api->lock);
}

void
queue_slot_gone(struct queue *q)
{
    if (--q->n_slots > 0)
        return;
    tell(q, &q->drained);
    if (q->n_calls == 0)
        tell(q, &q->idle);
}

void
queue_call_gone(struct queue *q)
{
    if (--q->n_calls == 0 && q->n_slots == 0)
        tell(q, &q->idle);
}

static void
post_slots(struct queue *q)
{
    for (uint32_t m = 0; m < n_methods; m++) {
        for (uint32_t i = 0; i < methods[m].slots; i++) {
            if (methods[m].kind != NULL)
                stream_post(q, &methods[m]);
            else
                call_post(q, &methods[m]);
        }
    }
    for (uint32_t i = 0; i < UNKNOWN_SLOTS; i++)
        unknown_post(q);
}

/* --- streams -------------------------------------------------------------------------------- */

enum etcd_error
api_add_stream(struct grpc_api *api, struct stream *s)
{
    enum etcd_error error = ETCD_OK;

    mutex_lock(&api->lock);
    if (api->stopping)
        error = ETCD_STOPPED;
    else if (api->n_streams >= api->options.max_streams)
        error = ETCD_TOO_MANY_REQUESTS;
    s->previous = NULL;
    s->next = api->streams;
    if (s->next != NULL)
        s->next->previous = s;
    api->streams = s;
    api->n_streams++;
    mutex_unlock(&api->lock);
    return error;
}

void
api_remove_stream(struct grpc_api *api, struct stream *s)
{
    mutex_lock(&api->lock);
    if (s->previous != NULL)
        s->previous->next = s->next;
    else
        api->streams = s->next;
    if (s->next != NULL)
        s->next->previous = s->previous;
    grpc_metadata_array_destroy(&s->metadata);
    mutex_destroy(&s->lock);
    mem_free(s);
    if (--api->n_streams == 0)
        condition_broadcast(&api->changed);
    mutex_unlock(&api->lock);
}

/* A reference for whoever found the stream on the list; false: it is being released. */
static bool
try_ref(struct stream *s)
{
    bool alive;

    mutex_lock(&s->lock);
    alive = s->references > 0;
    if (alive)
        s->references++;
    mutex_unlock(&s->lock);
    return alive;
}

/* All streams, or those of one kind, each with a reference; stopping: there will be no more. */
static struct stream **
find_streams(struct grpc_api *api, const struct stream_kind *kind, bool stopping,
             uint32_t *n)
{
    struct stream **found;

    *n = 0;
    mutex_lock(&api->lock);
    api->stopping |= stopping; /* streams that open from now on end by themselves */
    found = mem_alloc((api->n_streams + 1) * sizeof *found);
    for (struct stream *s = api->streams; s != NULL; s = s->next)
        if ((kind == NULL || s->method->kind == kind) && try_ref(s))
            found[(*n)++] = s;
    mutex_unlock(&api->lock);
    return found;
}

static void
end_streams(struct grpc_api *api)
{
    uint32_t n;
    struct stream **found = find_streams(api, NULL, true, &n);

    for (uint32_t i = 0; i < n; i++) {
        stream_fail(found[i], ETCD_STOPPED);
        stream_unref(found[i]);
    }
    mem_free(found);
}

/* [whoever takes or loses the lead] */
static void
lead_changed(void *arg)
{
    uint32_t n;
    struct stream **found = find_streams(arg, &health_stream_kind, false, &n);

    for (uint32_t i = 0; i < n; i++) {
        health_tell(found[i]);
        stream_unref(found[i]);
    }
    mem_free(found);
}

/* --- start ---------------------------------------------------------------------------------- */

static int
milliseconds(uint64_t ns)
{
    uint64_t ms = ns / MILLISECOND;

    return ms < 1 ? 1 : ms > INT32_MAX ? INT32_MAX : (int)ms;
}

static int
core_receive_limit(uint32_t max_request_bytes)
{
    uint64_t n = (uint64_t)max_request_bytes + CORE_RECEIVE_EXTRA;

    return n < CORE_RECEIVE_MIN ? (int)CORE_RECEIVE_MIN
           : n > INT32_MAX      ? INT32_MAX
                                : (int)n;
}

static grpc_arg
integer(const char *key, int value)
{
    grpc_arg a;

    memset(&a, 0, sizeof a);
    a.type = GRPC_ARG_INTEGER;
    a.key = (char *)(uintptr_t)key; /* the core only reads it */
    a.value.integer = value;
    return a;
}

static grpc_server *
create_core(const struct grpc_api_options *o)
{
    grpc_resource_quota *quota = grpc_resource_quota_create("t4");
    grpc_arg list[] = {
        integer(GRPC_ARG_ENABLE_CHANNELZ, 0),
        integer(GRPC_ARG_HTTP2_BDP_PROBE, 0),
        integer(GRPC_ARG_MAX_METADATA_SIZE, METADATA_BYTES),
        integer(GRPC_ARG_MAX_RECEIVE_MESSAGE_LENGTH,
                core_receive_limit(o->max_request_bytes)),
        integer(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS,
                milliseconds(o->keepalive_min_time_ns)),
        integer(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, o->permit_without_stream),
        integer(GRPC_ARG_KEEPALIVE_TIME_MS, o->keepalive_interval_ns == 0
                                                ? INT32_MAX
                                                : milliseconds(o->keepalive_interval_ns)),
        integer(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, milliseconds(o->keepalive_timeout_ns)),
        {.type = GRPC_ARG_POINTER,
         .key = (char *)(uintptr_t)GRPC_ARG_RESOURCE_QUOTA,
         .value.pointer = {quota, grpc_resource_quota_arg_vtable()}},
        /* Last: beyond what the core can be told it has no bound, which is what that means. */
        integer(GRPC_ARG_MAX_CONCURRENT_STREAMS, (int)o->max_concurrent_streams),
    };
    size_t n = sizeof list / sizeof list[0];
    grpc_channel_args args = {o->max_concurrent_streams > INT32_MAX ? n - 1 : n, list};
    grpc_server *core;

    grpc_resource_quota_resize(quota, o->memory_bytes);
    core = grpc_server_create(&args, NULL);
    grpc_resource_quota_unref(quota);
    return core;
}

static void
on_shut(struct tag *tag, bool ok)
{
    struct grpc_api *api = container_of(tag, struct grpc_api, on_shut);

    (void)ok;
    mutex_lock(&api->lock);
    api->shut = true;
    condition_broadcast(&api->changed);
    mutex_unlock(&api->lock);
}

/* Frees what grpc_api_start() made; the core is shut. */
static void
destroy(struct grpc_api *api)
{
    for (uint32_t i = 0; i < api->n_queues; i++) {
        grpc_completion_queue_shutdown(api->queues[i].core);
        poll_main(&api->queues[i]); /* drains; returns at once when its thread did it */
        call_free_spares(&api->queues[i]);
    }
    grpc_server_destroy(api->core);
    for (uint32_t i = 0; i < api->n_queues; i++)
        grpc_completion_queue_destroy(api->queues[i].core);
    grpc_shutdown_blocking();
    grpc_server_credentials_release(api->credentials);
    mem_free(api->queues);
    condition_destroy(&api->changed);
    mutex_destroy(&api->lock);
    mem_free(api);
}

struct grpc_api *
grpc_api_start(const struct grpc_api_options *o)
{
    struct grpc_api *api = mem_zalloc(sizeof *api);

    gpr_set_log_function(core_log);
    grpc_init();
    gpr_set_log_verbosity(log_enabled(LOG_LEVEL_DEBUG) ? GPR_LOG_SEVERITY_INFO
                                                       : GPR_LOG_SEVERITY_ERROR);
    api->options = *o;
    api->node = o->node;
    api->metrics = node_metrics(o->node);
    api->on_shut.run = on_shut;
    mutex_init(&api->lock);
    condition_init(&api->changed);
    api->n_queues = o->threads < 1 ? 1 : o->threads > 64 ? 64 : o->threads;
    api->queues = mem_zalloc(api->n_queues * sizeof *api->queues);
    api->core = create_core(o);
    for (uint32_t i = 0; i < api->n_queues; i++) {
        api->queues[i].api = api;
        memcpy(api->queues[i].versions[0].name, VERSION_OTHER, sizeof VERSION_OTHER);
        atomic_init(&api->queues[i].n_versions, 1);
        api->queues[i].core = grpc_completion_queue_create_for_next(NULL);
        grpc_server_register_completion_queue(api->core, api->queues[i].core, NULL);
    }
    for (uint32_t i = 0; i < n_methods; i++)
        api->registered[i] = grpc_server_register_method(
            api->core, methods[i].path, NULL,
            methods[i].kind != NULL ? GRPC_SRM_PAYLOAD_NONE
                                    : GRPC_SRM_PAYLOAD_READ_INITIAL_BYTE_BUFFER,
            0);
    api->credentials = grpc_insecure_server_credentials_create();
    node_on_lead_change(api->node, lead_changed, api);
    grpc_server_start(api->core);
    for (uint32_t i = 0; i < api->n_queues; i++) {
        post_slots(&api->queues[i]);
        thread_start(&api->queues[i].thread, "t4-grpc", poll_main, &api->queues[i]);
    }
    return api;
}

/* --- stop ----------------------------------------------------------------------------------- */

static uint64_t
monotonic_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * SECOND + (uint64_t)now.tv_nsec;
}

static bool
drained(const struct grpc_api *api)
{
    for (uint32_t i = 0; i < api->n_queues; i++)
        if (!api->queues[i].drained)
            return false;
    return true;
}

void
grpc_api_stop(struct grpc_api *api, uint64_t grace_ns)
{
    uint64_t at = monotonic_ns(), end = at + grace_ns;
    bool shut;

    node_on_lead_change(api->node, NULL, NULL);
    end_streams(api);
    grpc_server_shutdown_and_notify(api->core, api->queues[0].core, &api->on_shut);
    mutex_lock(&api->lock);
    for (; !api->shut && at < end; at = monotonic_ns())
        condition_wait_for(&api->changed, &api->lock, end - at);
    shut = api->shut;
    mutex_unlock(&api->lock);
    if (!shut)
        grpc_server_cancel_all_calls(api->core);
    /* Handlers do not block: soon no thread of ours is in the node, and none will be. */
    mutex_lock(&api->lock);
    while (!drained(api))
        condition_wait(&api->changed, &api->lock);
    mutex_unlock(&api->lock);
}

static bool
quiet(const struct grpc_api *api)
{
    for (uint32_t i = 0; i < api->n_queues; i++)
        if (!api->queues[i].idle)
            return false;
    return api->shut && api->n_streams == 0;
}

void
grpc_api_free(struct grpc_api *api)
{
    bool stopped;

    mutex_lock(&api->lock);
    stopped = api->stopping;
    mutex_unlock(&api->lock);
    if (!stopped)
        grpc_api_stop(api, 0);
    mutex_lock(&api->lock);
    while (!quiet(api))
        condition_wait(&api->changed, &api->lock);
    mutex_unlock(&api->lock);
    for (uint32_t i = 0; i < api->n_queues; i++)
        grpc_completion_queue_shutdown(api->queues[i].core);
    for (uint32_t i = 0; i < api->n_queues; i++)
        thread_join(&api->queues[i].thread);
    destroy(api);
}

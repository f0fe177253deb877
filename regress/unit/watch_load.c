/*
 * watch_load.c - connections that watch everything.  See watch_load.h.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "watch_load.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <grpc/byte_buffer.h>
#include <grpc/byte_buffer_reader.h>
#include <grpc/grpc.h>
#include <grpc/grpc_security.h>
#include <grpc/slice.h>

#include "base/buffer.h"
#include "base/memory.h"
#include "env/thread.h"

struct watch {
    grpc_channel *channel;
    grpc_call *call;
    grpc_byte_buffer *response;
    grpc_metadata_array initial;
    bool created;
    uint64_t events, responses;
};

struct watch_load {
    grpc_completion_queue *queue;
    struct watch *watch;
    uint32_t n;
    uint64_t wanted; /* events of each */
    struct thread thread;
};

/* A channel with a connection of its own. */
static grpc_channel *
connect_one(const char *endpoint)
{
    grpc_channel_credentials *credentials = grpc_insecure_credentials_create();
    grpc_arg own = {.type = GRPC_ARG_INTEGER};
    grpc_channel_args args = {1, &own};
    grpc_channel *channel;

    own.key = (char *)(uintptr_t)GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL;
    own.value.integer = 1;
    channel = grpc_channel_create(endpoint, credentials, &args);
    grpc_channel_credentials_release(credentials);
    return channel;
}

/* Events of a response: fields 11; other fields are passed over. */
static uint64_t
count_events(grpc_byte_buffer *response)
{
    grpc_byte_buffer_reader reader;
    struct byte_reader r;
    uint64_t events = 0;
    grpc_slice all;

    grpc_byte_buffer_reader_init(&reader, response);
    all = grpc_byte_buffer_reader_readall(&reader);
    r = reader_of(slice_of(GRPC_SLICE_START_PTR(all), GRPC_SLICE_LENGTH(all)));
    while (reader_left(&r) > 0 && !r.bad) {
        uint64_t tag = reader_varint(&r), n = reader_varint(&r);

        events += tag == (11 << 3 | 2);
        if ((tag & 7) == 2)
            reader_bytes(&r, n);
    }
    grpc_slice_unref(all);
    grpc_byte_buffer_reader_destroy(&reader);
    return events;
}

static void
receive(struct watch *w, bool first)
{
    static const uint8_t everything[] = {0x0a, 6, 0x0a, 1, 0, 0x12, 1, 0};
    grpc_slice message = grpc_slice_from_static_buffer(everything, sizeof everything);
    grpc_byte_buffer *request = grpc_raw_byte_buffer_create(&message, 1);
    grpc_op ops[4], *o = ops;

    memset(ops, 0, sizeof ops);
    o->op = GRPC_OP_RECV_MESSAGE;
    (o++)->data.recv_message.recv_message = &w->response;
    if (first) {
        (o++)->op = GRPC_OP_SEND_INITIAL_METADATA;
        o->op = GRPC_OP_SEND_MESSAGE;
        (o++)->data.send_message.send_message = request;
        o->op = GRPC_OP_RECV_INITIAL_METADATA;
        (o++)->data.recv_initial_metadata.recv_initial_metadata = &w->initial;
    }
    grpc_call_start_batch(w->call, ops, (size_t)(o - ops), w, NULL);
    grpc_byte_buffer_destroy(request);
}

static struct watch *
take_response(struct watch_load *l)
{
    grpc_event e =
        grpc_completion_queue_next(l->queue, gpr_inf_future(GPR_CLOCK_REALTIME), NULL);
    struct watch *w = e.tag;

    if (w->response == NULL) {
        fprintf(stderr, "a watch has ended\n");
        exit(1);
    }
    w->events += count_events(w->response);
    w->responses += w->created; /* all but the first */
    w->created = true;
    grpc_byte_buffer_destroy(w->response);
    receive(w, false);
    return w;
}

static void *
count_main(void *arg)
{
    struct watch_load *l = arg;
    uint32_t left = l->n;

    while (left > 0)
        left -= take_response(l)->events == l->wanted;
    return NULL;
}

struct watch_load *
watch_load_start(const char *endpoint, uint32_t n, uint64_t events)
{
    grpc_slice method = grpc_slice_from_static_string("/etcdserverpb.Watch/Watch");
    struct watch_load *l = mem_zalloc(sizeof *l);

    grpc_init();
    l->n = n;
    l->wanted = events;
    l->queue = grpc_completion_queue_create_for_next(NULL);
    l->watch = mem_zalloc(n * sizeof *l->watch);
    for (uint32_t i = 0; i < n; i++) {
        struct watch *w = &l->watch[i];

        w->channel = connect_one(endpoint);
        w->call = grpc_channel_create_call(w->channel, NULL, GRPC_PROPAGATE_DEFAULTS,
                                           l->queue, method, NULL,
                                           gpr_inf_future(GPR_CLOCK_REALTIME), NULL);
        grpc_metadata_array_init(&w->initial);
        receive(w, true);
    }
    for (uint32_t i = 0; i < n; i++)
        take_response(l); /* created */
    thread_start(&l->thread, "watches", count_main, l);
    return l;
}

void
watch_load_wait(struct watch_load *l)
{
    thread_join(&l->thread);
}

uint64_t
watch_load_end(struct watch_load *l)
{
    uint64_t responses = 0;
    grpc_event e;

    for (uint32_t i = 0; i < l->n; i++) {
        responses += l->watch[i].responses;
        grpc_call_cancel(l->watch[i].call, NULL);
        grpc_call_unref(l->watch[i].call);
        grpc_channel_destroy(l->watch[i].channel);
    }
    grpc_completion_queue_shutdown(l->queue);
    do
        e = grpc_completion_queue_next(l->queue, gpr_inf_future(GPR_CLOCK_REALTIME),
                                       NULL);
    while (e.type != GRPC_QUEUE_SHUTDOWN);
    grpc_completion_queue_destroy(l->queue);
    for (uint32_t i = 0; i < l->n; i++) {
        if (l->watch[i].response != NULL)
            grpc_byte_buffer_destroy(l->watch[i].response);
        grpc_metadata_array_destroy(&l->watch[i].initial);
    }
    mem_free(l->watch);
    mem_free(l);
    grpc_shutdown();
    return responses;
}

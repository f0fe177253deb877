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
#include <grpc/slice.h>

#include "base/memory.h"
#include "client/client.h"
#include "env/thread.h"
#include "pb/etcd/rpc.pb-c.h"

struct watch {
    struct client *client;
    struct client_stream *stream;
    bool created;
    uint64_t events, responses;
};

struct watch_load {
    struct client_queue
        *queue; /* the main thread's, then the counting one's, then again */
    struct watch *watch;
    uint32_t n;
    uint64_t wanted; /* events of each */
    struct thread thread;
};

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
fail(const struct error *error)
{
    fprintf(stderr, "a watch has ended: %s\n", error->message);
    exit(1);
}

static void
watch_everything(struct watch_load *l, struct watch *w, const char *endpoint)
{
    static uint8_t zero[1];
    Etcdserverpb__WatchRequest request = ETCDSERVERPB__WATCH_REQUEST__INIT;
    Etcdserverpb__WatchCreateRequest create = ETCDSERVERPB__WATCH_CREATE_REQUEST__INIT;
    struct error error = {0};

    create.key = create.range_end = (ProtobufCBinaryData){1, zero};
    request.request_union_case =
        ETCDSERVERPB__WATCH_REQUEST__REQUEST_UNION_CREATE_REQUEST;
    request.create_request = &create;
    if (client_make(l->queue, endpoint, &w->client, &error) != T4_OK ||
        client_stream_open(w->client, "/etcdserverpb.Watch/Watch", CLIENT_FOREVER,
                           &w->stream, &error) != 0 ||
        client_stream_send(w->stream, &request, &error) != 0)
        fail(&error);
}

static struct watch *
take_response(struct watch_load *l)
{
    struct client_stream *stream = client_queue_next_stream(l->queue, CLIENT_FOREVER);
    grpc_byte_buffer *response = client_stream_take(stream);
    struct watch *w = client_stream_tag(stream);

    if (response == NULL)
        fail(&(struct error){.message = "the server has nothing more to say"});
    w->events += count_events(response);
    w->responses += w->created; /* all but the first */
    w->created = true;
    grpc_byte_buffer_destroy(response);
    client_stream_ask(stream, w);
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
    struct watch_load *l = mem_zalloc(sizeof *l);

    l->n = n;
    l->wanted = events;
    l->queue = client_queue_new();
    l->watch = mem_zalloc(n * sizeof *l->watch);
    for (uint32_t i = 0; i < n; i++)
        watch_everything(l, &l->watch[i], endpoint);
    for (uint32_t i = 0; i < n; i++)
        client_stream_ask(l->watch[i].stream, &l->watch[i]);
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

    for (uint32_t i = 0; i < l->n; i++) {
        responses += l->watch[i].responses;
        client_stream_close(l->watch[i].stream);
        client_free(l->watch[i].client);
    }
    client_queue_free(l->queue);
    mem_free(l->watch);
    mem_free(l);
    return responses;
}

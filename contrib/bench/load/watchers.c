/*
 * watchers.c - see watchers.h.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "watchers.h"

#include <inttypes.h>
#include <stdatomic.h>

#include "base/memory.h"
#include "client/client.h"
#include "env/thread.h"
#include "loop.h"
#include "message.h"
#include "pb/etcd/rpc.pb-c.h"

#define LOOK_NS 20000000u /* between two looks whether the number of events is known */

struct connection {
    struct client *client;
    struct client_stream *stream;
};

struct watchers {
    const struct settings *settings;
    struct client_queue
        *queue; /* the main thread's, the counting one's, the main one's */
    struct connection *connection;
    uint64_t *events; /* of each watcher, by its id - 1 */
    uint64_t responses, complete, last_ns;
    _Atomic uint64_t wanted; /* events of each; UINT64_MAX: not known yet */
    struct thread thread;
};

/* Watcher n is on connection n % watch_connections, with the id n + 1. */
static void
watch(struct watchers *w, uint64_t n)
{
    const struct settings *s = w->settings;
    Etcdserverpb__WatchRequest request = ETCDSERVERPB__WATCH_REQUEST__INIT;
    Etcdserverpb__WatchCreateRequest create = ETCDSERVERPB__WATCH_CREATE_REQUEST__INIT;
    struct buffer first = {0}, end = {0};
    struct error error = {0};

    key_space(s, &first, &end);
    create.key = (ProtobufCBinaryData){first.len, first.data};
    create.range_end = (ProtobufCBinaryData){end.len, end.data};
    create.watch_id = (int64_t)n + 1;
    request.request_union_case =
        ETCDSERVERPB__WATCH_REQUEST__REQUEST_UNION_CREATE_REQUEST;
    request.create_request = &create;
    if (client_stream_send(w->connection[n % s->watch_connections].stream, &request,
                           &error) != 0)
        give_up_for(&error);
    buffer_free(&first);
    buffer_free(&end);
}

static void
count(struct watchers *w, uint64_t id, uint64_t events)
{
    uint64_t wanted = atomic_load(&w->wanted), before;

    if (id == 0 || id > w->settings->watchers)
        give_up("events for watcher %" PRIu64 ", which there is not", id);
    before = w->events[id - 1];
    w->events[id - 1] += events;
    if (w->events[id - 1] > wanted)
        give_up("watcher %" PRIu64 " has %" PRIu64 " events of %" PRIu64
                ": does somebody else write?",
                id, w->events[id - 1], wanted);
    w->complete += before < wanted && w->events[id - 1] == wanted;
}

/* Counts the events of a response; true: it says that a watcher was created. */
static bool
take(struct watchers *w, struct t4_slice response)
{
    struct byte_reader r = reader_of(response);
    uint64_t id = 0, events = 0;
    bool created = false;
    struct field f;

    while (next_field(&r, &f)) {
        if (f.number == 2)
            id = f.varint;
        else if (f.number == 3)
            created = f.varint != 0;
        else if (f.number == 4 && f.varint != 0)
            give_up("the server has ended watcher %" PRIu64, id);
        else if (f.number == 11)
            events++;
    }
    if (r.bad)
        give_up("a watch response is malformed");
    if (events > 0) {
        count(w, id, events);
        w->responses++;
        w->last_ns = now_ns();
    }
    return created;
}

/* The next response; -1: none within timeout_ns; else whether it says "created". */
static int
next_response(struct watchers *w, uint64_t timeout_ns)
{
    struct client_stream *stream = client_queue_next_stream(w->queue, timeout_ns);
    grpc_byte_buffer *response;
    grpc_slice bytes;
    bool created;

    if (stream == NULL)
        return -1;
    response = client_stream_take(stream);
    if (response == NULL)
        give_up("the server has ended a stream of watchers");
    bytes = message_bytes(response);
    grpc_byte_buffer_destroy(response);
    client_stream_ask(stream, NULL);
    created = take(w, slice_of_core(&bytes));
    grpc_slice_unref(bytes);
    return created;
}

static void
give_up_waiting(const struct watchers *w)
{
    uint64_t i = 0;

    while (i + 1 < w->settings->watchers && w->events[i] >= w->wanted)
        i++;
    give_up("nothing comes any more, and watcher %" PRIu64 " has %" PRIu64 " of %" PRIu64
            " events",
            i + 1, w->events[i], w->wanted);
}

/* Once the number of events is known: how many watchers have them already. */
static void
look_who_is_complete(struct watchers *w, uint64_t wanted)
{
    w->complete = 0;
    for (uint64_t i = 0; i < w->settings->watchers; i++) {
        count(w, i + 1, 0); /* too many? */
        w->complete += w->events[i] == wanted;
    }
}

static void *
count_main(void *arg)
{
    struct watchers *w = arg;
    uint64_t silent_since = now_ns();
    bool known = false;

    while (!known || w->complete < w->settings->watchers) {
        if (next_response(w, LOOK_NS) >= 0)
            silent_since = now_ns();
        if (!known && w->wanted != UINT64_MAX) {
            known = true;
            silent_since = now_ns();
            look_who_is_complete(w, w->wanted);
        }
        if (known && now_ns() - silent_since > LOAD_PATIENCE_NS / 2)
            give_up_waiting(w);
    }
    return NULL;
}

struct watchers *
watchers_start(const struct settings *s)
{
    struct watchers *w = mem_zalloc(sizeof *w);
    struct error error = {0};
    uint64_t created = 0;

    w->settings = s;
    w->wanted = UINT64_MAX;
    w->queue = client_queue_new();
    w->events = mem_zalloc(s->watchers * sizeof *w->events);
    w->connection = mem_zalloc(s->watch_connections * sizeof *w->connection);
    for (uint64_t i = 0; i < s->watch_connections; i++) {
        struct connection *c = &w->connection[i];

        if (client_make(w->queue, s->endpoint, &c->client, &error) != T4_OK ||
            client_stream_open(c->client, "/etcdserverpb.Watch/Watch", CLIENT_FOREVER,
                               &c->stream, &error) != 0)
            give_up_for(&error);
    }
    for (uint64_t i = 0; i < s->watchers; i++)
        watch(w, i);
    for (uint64_t i = 0; i < s->watch_connections; i++)
        client_stream_ask(w->connection[i].stream, NULL);
    while (created < s->watchers) {
        int response = next_response(w, LOAD_PATIENCE_NS);

        if (response < 0)
            give_up("only %" PRIu64 " of %" PRIu64 " watchers are there after 60 s",
                    created, s->watchers);
        created += (uint64_t)response;
    }
    thread_start(&w->thread, "watchers", count_main, w);
    return w;
}

uint64_t
watchers_wait(struct watchers *w, uint64_t events)
{
    atomic_store(&w->wanted, events);
    thread_join(&w->thread);
    return w->last_ns;
}

uint64_t
watchers_responses(const struct watchers *w)
{
    return w->responses;
}

void
watchers_end(struct watchers *w)
{
    for (uint64_t i = 0; i < w->settings->watch_connections; i++) {
        client_stream_close(w->connection[i].stream);
        client_free(w->connection[i].client);
    }
    client_queue_free(w->queue);
    mem_free(w->connection);
    mem_free(w->events);
    mem_free(w);
}

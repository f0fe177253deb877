/*
 * keepalives.c - see keepalives.h.
 *
 * A thread and a completion queue for each stream: what is sent on one is waited for, and what
 * comes on another meanwhile must not be lost (client/client.h).
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "keepalives.h"

#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>

#include "base/memory.h"
#include "client/client.h"
#include "env/thread.h"
#include "pb/etcd/rpc.pb-c.h"

struct common {
    const struct settings *settings;
    const struct requests *requests;
    uint64_t *sent_ns;        /* of each lease's keepalive under way; 0: none is */
    _Atomic uint64_t started; /* over all streams */
    uint64_t stop_ns;
};

/* Has the leases whose number is `first` modulo the number of connections. */
struct keeper {
    struct common *common;
    uint64_t first, next, under_way;
    struct client_queue *queue;
    struct client *client;
    struct client_stream *stream;
    struct result result;
    struct thread thread;
};

static void
open_stream(struct keeper *k)
{
    struct error error = {0};

    k->queue = client_queue_new();
    if (client_make(k->queue, k->common->settings->endpoint, &k->client, &error) !=
            T4_OK ||
        client_stream_open(k->client, "/etcdserverpb.Lease/LeaseKeepAlive",
                           CLIENT_FOREVER, &k->stream, &error) != 0)
        give_up_for(&error);
}

static void
send_next(struct keeper *k)
{
    Etcdserverpb__LeaseKeepAliveRequest request =
        ETCDSERVERPB__LEASE_KEEP_ALIVE_REQUEST__INIT;
    const struct settings *s = k->common->settings;
    uint64_t number = k->next;
    struct error error = {0};

    k->next += s->connections;
    if (k->next >= s->leases)
        k->next = k->first;
    request.id = (int64_t)lease_id(k->common->requests, number);
    k->common->sent_ns[number] = now_ns();
    k->under_way++;
    if (client_stream_send(k->stream, &request, &error) != 0)
        give_up_for(&error);
}

static void
receive(struct keeper *k)
{
    Etcdserverpb__LeaseKeepAliveResponse *answer;
    struct error error = {0};
    uint64_t number, *sent;

    if (client_stream_receive(k->stream,
                              &etcdserverpb__lease_keep_alive_response__descriptor,
                              LOAD_PATIENCE_NS, &answer, &error) != 0)
        give_up_for(&error);
    if (answer == NULL)
        give_up("the server has ended a stream of keepalives");
    number = lease_number(k->common->requests, (uint64_t)answer->id);
    if (number == UINT64_MAX || number % k->common->settings->connections != k->first ||
        k->common->sent_ns[number] == 0)
        give_up("a keepalive was answered for lease %" PRId64 ", which was not asked for",
                answer->id);
    sent = &k->common->sent_ns[number];
    if (answer->ttl > 0) {
        histogram_add(&k->result.latency, now_ns() - *sent);
        k->result.done++;
    } else {
        k->result.failed++;
    }
    *sent = 0;
    k->under_way--;
    protobuf_c_message_free_unpacked(&answer->base, NULL);
}

static bool
may_send(struct keeper *k)
{
    const struct settings *s = k->common->settings;

    /* Each lease has one keepalive under way at most. */
    if (k->under_way == s->in_flight || k->common->sent_ns[k->next] != 0)
        return false;
    if (s->operations == 0)
        return now_ns() < k->common->stop_ns;
    return atomic_fetch_add(&k->common->started, 1) < s->operations;
}

static void *
keeper_main(void *arg)
{
    struct keeper *k = arg;

    for (;;) {
        while (may_send(k))
            send_next(k);
        if (k->under_way == 0)
            return NULL;
        receive(k);
    }
}

static void
close_stream(struct keeper *k)
{
    client_stream_close(k->stream);
    client_free(k->client);
    client_queue_free(k->queue);
}

void
keepalives_run(const struct settings *s, const struct requests *q, struct result *result)
{
    struct common common = {.settings = s, .requests = q};
    struct keeper *keeper = mem_zalloc(s->connections * sizeof *keeper);

    common.sent_ns = mem_zalloc(s->leases * sizeof *common.sent_ns);
    for (uint64_t i = 0; i < s->connections; i++) {
        keeper[i].common = &common;
        keeper[i].first = keeper[i].next = i;
        open_stream(&keeper[i]);
    }
    result->began_ns = now_ns();
    common.stop_ns = result->began_ns + s->seconds * 1000000000u;
    for (uint64_t i = 0; i < s->connections; i++)
        thread_start(&keeper[i].thread, "keeper", keeper_main, &keeper[i]);
    for (uint64_t i = 0; i < s->connections; i++)
        thread_join(&keeper[i].thread);
    result->ended_ns = now_ns();
    for (uint64_t i = 0; i < s->connections; i++) {
        result->done += keeper[i].result.done;
        result->failed += keeper[i].result.failed;
        histogram_merge(&result->latency, &keeper[i].result.latency);
        close_stream(&keeper[i]);
    }
    if (result->failed > 0)
        fprintf(stderr, "t4-bench: leases are gone\n");
    mem_free(common.sent_ns);
    mem_free(keeper);
}

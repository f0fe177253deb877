/*
 * counts.c - counts of calls, by method, status and version of the client, as etcd's library of
 * gRPC has them, rendered for /metrics.
 *
 * Each queue counts for itself and only its poller writes, so that a count costs a load and a
 * store and no line of memory moves between threads.  What is read while it is counted may be
 * one behind.
 *
 * Entry points: grpc_api_render_metrics(), count_version(), count_handling().
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "api/grpc/grpc_int.h"

#define NS_PER_S UINT64_C(1000000000)

/* The words of gRPC's library for Go, by code. */
static const char *const code_text[STATUS_CODES] = {
    "OK",
    "Canceled",
    "Unknown",
    "InvalidArgument",
    "DeadlineExceeded",
    "NotFound",
    "AlreadyExists",
    "PermissionDenied",
    "ResourceExhausted",
    "FailedPrecondition",
    "Aborted",
    "OutOfRange",
    "Unimplemented",
    "Internal",
    "Unavailable",
    "DataLoss",
    "Unauthenticated",
};

/* Prometheus' usual buckets, in milliseconds. */
static const uint32_t bucket_ms[HANDLING_BUCKETS] = {5,   10,   25,   50,   100,  250,
                                                     500, 1000, 2500, 5000, 10000};

/* --- counting ------------------------------------------------------------------------ */

uint64_t
count_now(const struct grpc_api *api)
{
    struct timespec now;

    if (!api->options.extensive_metrics)
        return 0;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * NS_PER_S + (uint64_t)now.tv_nsec;
}

void
count_handled(struct queue *q, const struct method *m, uint32_t code, uint64_t began_ns)
{
    struct method_counts *c = &q->counts[method_index(m)];
    uint64_t took;
    uint32_t i = 0;

    count(&c->handled[code < STATUS_CODES ? code : GRPC_STATUS_UNKNOWN], 1);
    if (began_ns == 0)
        return;
    took = count_now(q->api) - began_ns;
    while (i < HANDLING_BUCKETS && took > bucket_ms[i] * (NS_PER_S / 1000))
        i++;
    count(&c->bucket[i], 1);
    count(&c->sum_ns, took);
}

/* A version is what a client says; only what looks like one becomes a label. */
static bool
is_version(struct t4_slice v)
{
    if (v.len == 0 || v.len >= VERSION_BYTES)
        return false;
    for (size_t i = 0; i < v.len; i++) {
        uint8_t c = v.data[i];

        if (!((c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') ||
              (c >= 'A' && c <= 'Z') || c == '.' || c == '-' || c == '+' || c == '_'))
            return false;
    }
    return true;
}

const char *
method_grpc_type(const struct method *m)
{
    if (m->kind == NULL)
        return "unary";
    return m->kind->grpc_type != NULL ? m->kind->grpc_type : "bidi_stream";
}

void
count_version(struct queue *q, bool is_stream, struct t4_slice version)
{
    uint32_t n = atomic_load_explicit(&q->n_versions, memory_order_relaxed), i = 0;

    if (version.data == NULL)
        version = slice_str("unknown");
    else if (!is_version(version))
        version = slice_str(VERSION_OTHER);
    while (i < n && !(memcmp(q->versions[i].name, version.data, version.len) == 0 &&
                      q->versions[i].name[version.len] == '\0'))
        i++;
    if (i == n && n < VERSIONS_MAX) {
        memcpy(q->versions[i].name, version.data, version.len); /* zeros follow */
        atomic_store_explicit(&q->n_versions, n + 1, memory_order_release);
    } else if (i == n) {
        i = 0; /* no room: VERSION_OTHER, which stands first */
    }
    count(&q->versions[i].n[is_stream], 1);
}

/* --- rendering ----------------------------------------------------------------------- */

/* Sum over the queues of the count that lies `offset` bytes into a method's counts. */
static uint64_t
total(const struct grpc_api *api, uint32_t method, size_t offset)
{
    uint64_t sum = 0;

    for (uint32_t i = 0; i < api->n_queues; i++) {
        const char *counts = (const char *)&api->queues[i].counts[method];

        sum += atomic_load_explicit(
            (const _Atomic uint64_t *)(const void *)(counts + offset),
            memory_order_relaxed);
    }
    return sum;
}

/* grpc_method="Put",grpc_service="etcdserverpb.KV",grpc_type="unary" */
static void
format_labels(const struct method *m, char *out, size_t n)
{
    const char *service = m->path + 1, *name = strchr(service, '/');

    snprintf(out, n, "grpc_method=\"%s\",grpc_service=\"%.*s\",grpc_type=\"%s\"",
             name + 1, (int)(name - service), service, method_grpc_type(m));
}

static void
render_counter(const struct grpc_api *api, const char *name, size_t offset,
               struct buffer *out)
{
    char labels[160];

    for (uint32_t i = 0; i < n_methods; i++) {
        format_labels(&methods[i], labels, sizeof labels);
        metrics_append(out, "%s{%s} %" PRIu64 "\n", name, labels, total(api, i, offset));
    }
}

static void
render_handled(const struct grpc_api *api, struct buffer *out)
{
    char labels[160];

    metrics_head(out, "grpc_server_handled_total", "counter",
                 "Calls answered, by status");
    for (uint32_t i = 0; i < n_methods; i++) {
        format_labels(&methods[i], labels, sizeof labels);
        for (uint32_t code = 0; code < STATUS_CODES; code++) {
            metrics_append(
                out, "grpc_server_handled_total{grpc_code=\"%s\",%s} %" PRIu64 "\n",
                code_text[code], labels,
                total(api, i,
                      offsetof(struct method_counts, handled) + code * sizeof(uint64_t)));
        }
    }
}

static void
render_handling(const struct grpc_api *api, struct buffer *out)
{
    char labels[160];

    metrics_head(out, "grpc_server_handling_seconds", "histogram",
                 "Time until a call was answered");
    for (uint32_t i = 0; i < n_methods; i++) {
        uint64_t n = 0, sum = total(api, i, offsetof(struct method_counts, sum_ns));

        format_labels(&methods[i], labels, sizeof labels);
        for (uint32_t b = 0; b <= HANDLING_BUCKETS; b++) {
            char bound[16] = "+Inf";

            n += total(api, i,
                       offsetof(struct method_counts, bucket) + b * sizeof(uint64_t));
            if (b < HANDLING_BUCKETS)
                snprintf(bound, sizeof bound, "%g", bucket_ms[b] / 1000.0);
            metrics_append(
                out, "grpc_server_handling_seconds_bucket{%s,le=\"%s\"} %" PRIu64 "\n",
                labels, bound, n);
        }
        metrics_append(out, "grpc_server_handling_seconds_sum{%s} %.9g\n", labels,
                       (double)sum / (double)NS_PER_S);
        metrics_append(out, "grpc_server_handling_seconds_count{%s} %" PRIu64 "\n",
                       labels, n);
    }
}

struct version_sum {
    const char *name;
    uint64_t n[2];
};

static void
render_versions(const struct grpc_api *api, struct buffer *out)
{
    static const char *const type[2] = {"unary", "stream"};
    struct version_sum sums[4 * VERSIONS_MAX];
    uint32_t n_sums = 0;

    for (uint32_t i = 0; i < api->n_queues; i++) {
        const struct queue *q = &api->queues[i];
        uint32_t n = atomic_load_explicit(&q->n_versions, memory_order_acquire);

        for (uint32_t v = 0; v < n; v++) {
            uint32_t at = 0;

            while (at < n_sums && strcmp(sums[at].name, q->versions[v].name) != 0)
                at++;
            if (at == n_sums && n_sums < 4 * VERSIONS_MAX)
                sums[n_sums++] = (struct version_sum){q->versions[v].name, {0, 0}};
            else if (at == n_sums)
                at = 0; /* the first queue's first, VERSION_OTHER */
            for (int kind = 0; kind < 2; kind++)
                sums[at].n[kind] +=
                    atomic_load_explicit(&q->versions[v].n[kind], memory_order_relaxed);
        }
    }
    metrics_head(out, "etcd_server_client_requests_total", "counter",
                 "Calls by the version that the client says it has");
    for (uint32_t i = 0; i < 2 * n_sums; i++) {
        if (sums[i / 2].n[i % 2] == 0)
            continue;
        metrics_append(
            out,
            "etcd_server_client_requests_total{client_api_version=\"%s\",type=\"%s\"} "
            "%" PRIu64 "\n",
            sums[i / 2].name, type[i % 2], sums[i / 2].n[i % 2]);
    }
}

void
grpc_api_render_metrics(void *arg, struct buffer *out)
{
    struct grpc_api *api = arg;
    uint64_t received = 0, sent = 0;

    for (uint32_t i = 0; i < api->n_queues; i++) {
        received +=
            atomic_load_explicit(&api->queues[i].received_bytes, memory_order_relaxed);
        sent += atomic_load_explicit(&api->queues[i].sent_bytes, memory_order_relaxed);
    }
    metric_set(api->metrics, METRIC_GRPC_RECEIVED, (int64_t)received);
    metric_set(api->metrics, METRIC_GRPC_SENT, (int64_t)sent);
    metrics_head(out, "grpc_server_started_total", "counter", "Calls that came");
    render_counter(api, "grpc_server_started_total",
                   offsetof(struct method_counts, started), out);
    metrics_head(out, "grpc_server_msg_received_total", "counter", "Messages of clients");
    render_counter(api, "grpc_server_msg_received_total",
                   offsetof(struct method_counts, received), out);
    metrics_head(out, "grpc_server_msg_sent_total", "counter", "Messages to clients");
    render_counter(api, "grpc_server_msg_sent_total",
                   offsetof(struct method_counts, sent), out);
    render_handled(api, out);
    if (api->options.extensive_metrics)
        render_handling(api, out);
    render_versions(api, out);
}

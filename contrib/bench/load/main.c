/*
 * main.c - t4-bench: a load client for t4 and etcd, cheap enough to share a machine with what it
 * measures.  t4-bench --help says what it does and prints.
 *
 *   settings.c    the command line            server.c     CPU time, wake-ups, memory, syncs
 *   requests.c    requests and their answers  watchers.c   watchers that count their events
 *   loop.c        connections, the loop       keepalives.c leases kept alive over streams
 *   message.c     protobuf by hand            histogram.h  latencies
 *
 * One thread, and one completion queue of src/client; watchers have one more, each stream of
 * keepalives, too.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <inttypes.h>
#include <stdio.h>
#include <time.h>

#include "base/memory.h"
#include "keepalives.h"
#include "loop.h"
#include "server.h"
#include "watchers.h"

#define FIGURES_MOST 40

struct figure {
    const char *name;
    double value;
    int decimals;
};

struct bench {
    struct settings settings;
    struct requests *requests;
    struct load *load;
    struct watchers *watchers;
    struct result result;
    uint64_t client_cpu_ns;
    struct figure figure[FIGURES_MOST];
    int figures;
};

/* The server before the load, at its end, and when it was idle again. */
struct measure {
    struct server_usage before, after;
    double idle; /* part of one CPU */
    uint64_t syncs;
};

static uint64_t
own_cpu_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* --- before and behind the load ------------------------------------------------------------ */

/* Does each of n numbers once, for what the load needs or leaves behind. */
static void
do_each(struct bench *b, enum request kind, uint64_t n)
{
    struct plan plan = {.kind = kind, .in_order = true, .operations = n};
    struct result *result = mem_zalloc(sizeof *result);

    load_run(b->load, &plan, result);
    if (result->failed > 0)
        give_up("%" PRIu64 " of %" PRIu64 " calls before or after the load failed",
                result->failed, n);
    mem_free(result);
}

static void
want_keys(struct bench *b)
{
    const struct settings *s = &b->settings;

    do_each(b, REQUEST_COUNT, 1);
    if (requests_counted(b->requests) != s->keys)
        give_up("the server has %" PRIu64 " of these %" PRIu64
                " keys: fill it first, by t4-bench --keys=%" PRIu64
                " --prefix=%s --key-size=%" PRIu64 " fill %s",
                requests_counted(b->requests), s->keys, s->keys, s->prefix, s->key_size,
                s->endpoint);
}

static void
prepare(struct bench *b)
{
    const struct settings *s = &b->settings;

    switch (s->mode) {
    case MODE_SEQ_GET:
    case MODE_PAR_GET:
    case MODE_MIXED:
    case MODE_RANGE: want_keys(b); break;
    case MODE_TXN_CAS:
        want_keys(b);
        do_each(b, REQUEST_GET, s->keys); /* learns the revisions */
        break;
    case MODE_KEEPALIVE: do_each(b, REQUEST_GRANT, s->leases); break;
    case MODE_WATCH: b->watchers = watchers_start(s); break;
    default: break;
    }
}

/* --- the load ----------------------------------------------------------------------------------- */

static void
run_load(struct bench *b)
{
    static const enum request kinds[MODES] = {
        [MODE_FILL] = REQUEST_PUT,    [MODE_SEQ_PUT] = REQUEST_PUT,
        [MODE_PAR_PUT] = REQUEST_PUT, [MODE_SEQ_GET] = REQUEST_GET,
        [MODE_PAR_GET] = REQUEST_GET, [MODE_MIXED] = REQUEST_GET,
        [MODE_TXN_CAS] = REQUEST_CAS, [MODE_RANGE] = REQUEST_RANGE,
        [MODE_WATCH] = REQUEST_PUT,
    };
    const struct settings *s = &b->settings;
    struct plan plan = {.kind = kinds[s->mode],
                        .mixed = s->mode == MODE_MIXED,
                        .in_order = s->mode == MODE_FILL,
                        .operations = s->operations,
                        .seconds = s->seconds,
                        .rate = s->rate};
    uint64_t cpu = own_cpu_ns(), last;

    if (s->mode == MODE_KEEPALIVE)
        keepalives_run(s, b->requests, &b->result);
    else
        load_run(b->load, &plan, &b->result);
    if (b->watchers != NULL) {
        last = watchers_wait(b->watchers, b->result.writes);
        if (last > b->result.ended_ns)
            b->result.ended_ns = last;
    }
    b->client_cpu_ns = own_cpu_ns() - cpu;
}

/* --- figures -------------------------------------------------------------------------------------- */

static void
add(struct bench *b, const char *name, double value, int decimals)
{
    b->figure[b->figures++] = (struct figure){name, value, decimals};
}

/* What counts as operations: answers; of a watch the events. */
static double
operations(const struct bench *b)
{
    return (double)b->result.done *
           (b->watchers != NULL ? (double)b->settings.watchers : 1);
}

static void
add_load(struct bench *b)
{
    const struct settings *s = &b->settings;
    const struct result *r = &b->result;
    double seconds = (double)(r->ended_ns - r->began_ns) / 1e9;

    add(b, "connections", (double)s->connections, 0);
    add(b, "in_flight", (double)s->in_flight, 0);
    add(b, "key_size", (double)s->key_size, 0);
    add(b, "value_size", (double)s->value_size, 0);
    if (s->mode == MODE_KEEPALIVE)
        add(b, "leases", (double)s->leases, 0);
    else
        add(b, "keys", (double)s->keys, 0);
    if (s->mode == MODE_RANGE)
        add(b, "range_keys", (double)s->range_keys, 0);
    add(b, "operations", operations(b), 0);
    add(b, "failed", (double)r->failed, 0);
    if (s->mode == MODE_TXN_CAS)
        add(b, "lost_races", (double)r->lost, 0);
    if (s->mode == MODE_MIXED || s->mode == MODE_WATCH)
        add(b, "puts", (double)r->writes, 0);
    if (b->watchers != NULL) {
        add(b, "watchers", (double)s->watchers, 0);
        add(b, "watch_connections", (double)s->watch_connections, 0);
        add(b, "events_per_response",
            operations(b) / (double)watchers_responses(b->watchers), 2);
    }
    add(b, "seconds", seconds, 3);
    add(b, "ops_per_s", operations(b) / seconds, 0);
    add(b, "p50_us", (double)histogram_part(&r->latency, 0.5) / 1e3, 1);
    add(b, "p99_us", (double)histogram_part(&r->latency, 0.99) / 1e3, 1);
    add(b, "client_cpu_us_per_op", (double)b->client_cpu_ns / 1e3 / operations(b), 2);
    add(b, "client_cpu_percent", (double)b->client_cpu_ns / 1e7 / seconds, 0);
}

/* CPU until the server is idle again, without what it uses in that time when it is idle. */
static void
add_background(struct bench *b, const struct measure *m)
{
    const struct settings *s = &b->settings;
    double all, total;

    if (!server_settle(s->server_pid, m->idle, s->settle))
        fprintf(stderr, "t4-bench: the server does not become idle\n");
    all = (double)(now_ns() - m->before.at_ns);
    total = (double)(server_cpu_ns(s->server_pid) - m->before.cpu_ns) - m->idle * all;
    add(b, "server_total_cpu_us_per_op", total / 1e3 / operations(b), 2);
    add(b, "server_idle_cpu_percent", m->idle * 100, 2);
    add(b, "server_settled_after_s", (double)(now_ns() - m->after.at_ns) / 1e9, 1);
}

static void
add_process(struct bench *b, const struct measure *m)
{
    const struct settings *s = &b->settings;
    double during = (double)(m->after.at_ns - m->before.at_ns);
    double foreground = (double)(m->after.cpu_ns - m->before.cpu_ns) - m->idle * during;
    uint64_t ended, wakeups = server_wakeups(&m->before, &m->after, &ended);
    struct server_memory memory;

    add(b, "server_cpu_us_per_op", foreground / 1e3 / operations(b), 2);
    if (s->settle > 0)
        add_background(b, m);
    add(b, "server_wakeups_per_op", (double)wakeups / operations(b), 3);
    if (ended > 0)
        add(b, "server_threads_ended", (double)ended, 0);
    memory = server_memory(s->server_pid);
    add(b, "server_rss_mib", (double)memory.resident / 1048576, 1);
    add(b, "server_rss_anon_mib", (double)memory.anonymous / 1048576, 1);
}

static void
add_syncs(struct bench *b, uint64_t before)
{
    uint64_t syncs = server_syncs(b->settings.metrics) - before;

    add(b, "syncs", (double)syncs, 0);
    if (b->result.writes > 0 && syncs > 0)
        add(b, "puts_per_sync", (double)b->result.writes / (double)syncs, 2);
}

static void
print(const struct bench *b)
{
    const char *line = b->settings.json ? ",\"%s\":%.*f" : "%-27s %.*f\n";

    printf(b->settings.json ? "{\"mode\":\"%s\"" : "mode                        %s\n",
           mode_name(b->settings.mode));
    for (int i = 0; i < b->figures; i++)
        printf(line, b->figure[i].name, b->figure[i].decimals, b->figure[i].value);
    if (b->settings.json)
        printf("}\n");
}

/* --- main -------------------------------------------------------------------------------------------- */

static void
measure(struct bench *b)
{
    const struct settings *s = &b->settings;
    struct measure m = {0};

    prepare(b);
    if (s->server_pid != 0 && s->settle > 0)
        m.idle = server_idle_cpu(s->server_pid);
    if (s->metrics != NULL)
        m.syncs = server_syncs(s->metrics);
    if (s->server_pid != 0)
        m.before = server_usage(s->server_pid);
    run_load(b);
    if (s->server_pid != 0)
        m.after = server_usage(s->server_pid);
    if (b->result.done == 0)
        give_up("nothing was done");
    add_load(b);
    if (s->metrics != NULL)
        add_syncs(b, m.syncs);
    if (s->server_pid != 0)
        add_process(b, &m);
    server_usage_free(&m.before);
    server_usage_free(&m.after);
}

int
main(int argc, char **argv)
{
    static struct bench b;

    settings_read(&b.settings, argc, argv);
    b.requests = requests_new(&b.settings);
    b.load = load_new(&b.settings, b.requests);
    measure(&b);
    if (b.watchers != NULL)
        watchers_end(b.watchers);
    if (b.settings.mode == MODE_KEEPALIVE)
        do_each(&b, REQUEST_REVOKE, b.settings.leases);
    print(&b);
    load_free(b.load);
    requests_free(b.requests);
    return b.result.failed > 0;
}

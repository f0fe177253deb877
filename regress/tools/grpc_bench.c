/*
 * grpc_bench.c - a load client for t4 and etcd, cheap enough to share a machine with what it
 * measures: src/client, one queue, one thread, requests encoded by hand.
 *
 *   grpc_bench [--server-pid PID] [--rate PER_SECOND] [--values same|random] ENDPOINT
 *              get|put|mixed|range|watch CONNECTIONS IN_FLIGHT OPS [KEY_BYTES [VALUE_BYTES [KEYS]]]
 *
 * Writes KEYS keys first when it is going to read them, then does OPS operations on keys drawn
 * by a fixed seed, IN_FLIGHT at a time over all CONNECTIONS, and prints one line: operations
 * per second, latency p50 and p99, errors and, with --server-pid, the CPU time that the server
 * used per operation (all its threads, user and system).  With --rate operations begin at even
 * distances, never more than IN_FLIGHT at a time.  Exit status 1 if a call failed.
 *
 * mixed: half gets, half puts.  range: each reads 1,000 keys with their values.
 * watch: OPS puts on one connection, while each of CONNECTIONS others watches all keys and
 * gets an event for each.  The run ends with the last event; ops_per_s and the CPU time are those of
 * events delivered, the puts in them, the latency that of the puts.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <dirent.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/buffer.h"
#include "base/memory.h"
#include "client/client.h"
#include "watch_load.h"

#define RANDOM_POOL (16u << 20)
#define RANGE_KEYS 1000u

struct settings {
    const char *endpoint;
    bool put;
    uint32_t watches; /* connections that watch */
    uint32_t connections, in_flight;
    uint64_t ops;
    uint32_t key_bytes, value_bytes;
    bool random_values;
    const char *op;
    bool mixed;      /* every other operation is a put, by chance */
    uint32_t window; /* keys that an operation reads; 0: one */
    uint64_t keys;
    long server_pid; /* 0: not asked for */
    uint64_t rate;   /* operations begun per second; 0: as fast as answers come */
};

/* One operation under way; reused for the next. */
struct operation {
    struct client_call call;
    uint64_t began_ns;
    uint32_t connection;
};

struct bench {
    const struct settings *settings;
    struct client_queue *queue;
    struct client **client;
    void **range_method, **put_method; /* handles, one per connection */
    struct buffer message, value;
    uint64_t random; /* state of the key generator */
    uint64_t failed;
    uint64_t *latency_ns; /* of each operation of the run */
};

static uint64_t
now_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* --- requests ----------------------------------------------------------------------------- */

static void
append_bytes_field(struct buffer *b, uint32_t field, const void *data, size_t n)
{
    buffer_append_varint(b, field << 3 | 2);
    buffer_append_varint(b, n);
    buffer_append(b, data, n);
}

/* The key's number in decimal, padded to its length with leading zeros: "k" + digits. */
static void
append_key_field(struct buffer *b, const struct settings *s, uint32_t field,
                 uint64_t number)
{
    char *key = mem_alloc(s->key_bytes + 1);

    snprintf(key, s->key_bytes + 1, "k%0*" PRIu64, (int)s->key_bytes - 1, number);
    append_bytes_field(b, field, key, s->key_bytes);
    mem_free(key);
}

static uint64_t
chance(struct bench *b, uint64_t n)
{
    /* splitmix64 */
    uint64_t z = b->random += 0x9e3779b97f4a7c15u;

    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return (z ^ z >> 31) % n;
}

static void
make_request(struct bench *b, bool put, uint64_t key)
{
    const struct settings *s = b->settings;
    size_t at = s->random_values ? (size_t)(chance(b, RANDOM_POOL)) : 0;

    buffer_clear(&b->message);
    append_key_field(&b->message, s, 1, key);
    if (put)
        append_bytes_field(&b->message, 2, b->value.data + at, s->value_bytes);
    else if (s->window > 0)
        append_key_field(&b->message, s, 2, key + s->window);
}

static void
start_operation(struct bench *b, struct operation *o, bool put, uint64_t key)
{
    void *method = put ? b->put_method[o->connection] : b->range_method[o->connection];

    make_request(b, put, key);
    o->call.tag = o;
    o->began_ns = now_ns();
    client_call_start(b->client[o->connection], method, buffer_slice(&b->message),
                      CLIENT_FOREVER, &o->call);
}

static void
finish_operation(struct bench *b, struct operation *o)
{
    struct error error = {0};

    if (o->call.code != 0 && b->failed++ == 0) {
        client_call_code(&o->call, &error);
        fprintf(stderr, "grpc_bench: status %d: %s\n", o->call.code, error.message);
    }
    client_call_end(&o->call);
}

/* --- the run -------------------------------------------------------------------------------- */

/* One run of n operations: how far it is. */
struct progress {
    uint64_t n, started, ended, began_ns;
    bool put, in_order; /* in_order: keys 0, 1, 2, ... instead of drawn ones */
    uint64_t rate;
};

/* When the next operation is due; 0: at once. */
static uint64_t
due_ns(const struct progress *p)
{
    return p->rate == 0 ? 0 : p->began_ns + p->started * 1000000000u / p->rate;
}

static void
start_next(struct bench *b, struct progress *p, struct operation *o)
{
    const struct settings *s = b->settings;
    bool put = p->put || (s->mixed && chance(b, 2) == 0);

    start_operation(b, o, put, p->in_order ? p->started : chance(b, s->keys - s->window));
    p->started++;
}

/* Waits for an answer, or until the next operation is due when one may be started. */
static struct operation *
next_answer(struct bench *b, const struct progress *p, bool may_start)
{
    uint64_t timeout_ns = CLIENT_FOREVER;
    struct client_call *call;

    if (may_start) {
        uint64_t due = due_ns(p), now = now_ns();

        timeout_ns = due > now ? due - now : 0;
    }
    call = client_queue_next(b->queue, timeout_ns);
    return call == NULL ? NULL : call->tag;
}

/* Does n operations, rate (0: any number) of them begun per second. */
static void
run(struct bench *b, bool put, uint64_t n, bool in_order, uint64_t rate)
{
    uint32_t width = b->settings->in_flight < n ? b->settings->in_flight : (uint32_t)n;
    struct operation *operation = mem_zalloc(width * sizeof *operation);
    struct operation **idle = mem_alloc(width * sizeof *idle);
    struct progress p = {.n = n, .put = put, .in_order = in_order, .rate = rate};
    uint32_t idles = width;

    for (uint32_t i = 0; i < width; i++) {
        operation[i].connection = (width - 1 - i) % b->settings->connections;
        idle[i] = &operation[i];
    }
    p.began_ns = now_ns();
    while (p.ended < n) {
        bool may_start = idles > 0 && p.started < n;
        struct operation *o;

        if (may_start && due_ns(&p) <= now_ns()) {
            start_next(b, &p, idle[--idles]);
            continue;
        }
        o = next_answer(b, &p, may_start);
        if (o == NULL)
            continue;
        if (b->latency_ns != NULL)
            b->latency_ns[p.ended] = now_ns() - o->began_ns;
        finish_operation(b, o);
        p.ended++;
        idle[idles++] = o;
    }
    mem_free(idle);
    mem_free(operation);
}

static void
connect_all(struct bench *b)
{
    uint32_t n = b->settings->connections;

    b->client = mem_zalloc(n * sizeof *b->client);
    b->range_method = mem_zalloc(n * sizeof *b->range_method);
    b->put_method = mem_zalloc(n * sizeof *b->put_method);
    for (uint32_t i = 0; i < n; i++) {
        struct error error;

        if (client_make(b->queue, b->settings->endpoint, &b->client[i], &error) !=
            T4_OK) {
            fprintf(stderr, "grpc_bench: %s\n", error.message);
            exit(2);
        }
        b->range_method[i] = client_method(b->client[i], "/etcdserverpb.KV/Range");
        b->put_method[i] = client_method(b->client[i], "/etcdserverpb.KV/Put");
    }
}

static void
disconnect_all(struct bench *b)
{
    for (uint32_t i = 0; i < b->settings->connections; i++)
        client_free(b->client[i]);
    client_queue_free(b->queue);
    mem_free(b->client);
    mem_free(b->range_method);
    mem_free(b->put_method);
}

/* --- the server's CPU time -------------------------------------------------------------------- */

/* First number of a file of /proc; 0 if there is none. */
static uint64_t
first_number(const char *path)
{
    FILE *f = fopen(path, "r");
    uint64_t n = 0;

    if (f == NULL)
        return 0;
    if (fscanf(f, "%" SCNu64, &n) != 1)
        n = 0;
    fclose(f);
    return n;
}

/* Nanoseconds on a CPU of all threads that the process has now. */
static uint64_t
cpu_ns(long pid)
{
    char path[64 + 256];
    struct dirent *entry;
    uint64_t sum = 0;
    DIR *dir;

    snprintf(path, sizeof path, "/proc/%ld/task", pid);
    dir = opendir(path);
    if (dir == NULL) {
        fprintf(stderr, "grpc_bench: there is no process %ld\n", pid);
        exit(2);
    }
    while ((entry = readdir(dir)) != NULL) {
        if (entry->d_name[0] == '.')
            continue;
        snprintf(path, sizeof path, "/proc/%ld/task/%s/schedstat", pid, entry->d_name);
        sum += first_number(path);
    }
    closedir(dir);
    return sum;
}

/* --- main -------------------------------------------------------------------------------------- */

static int
by_size(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return x < y ? -1 : x > y;
}

/* What values are taken from: the same letters, or bytes that do not compress. */
static void
make_values(struct bench *b)
{
    const struct settings *s = b->settings;
    size_t n = s->value_bytes + (s->random_values ? RANDOM_POOL : 1);

    memset(buffer_reserve(&b->value, n), 'v', n);
    b->value.len = n;
    for (size_t i = 0; s->random_values && i < n; i++)
        b->value.data[i] = (uint8_t)chance(b, 256);
}

static int
measure(const struct settings *s)
{
    struct bench b = {.settings = s, .random = 1};
    uint64_t began, ended, cpu = 0, done = s->ops * (s->watches > 0 ? s->watches : 1);
    struct watch_load *watches = NULL;

    b.queue = client_queue_new();
    make_values(&b);
    connect_all(&b);
    if (!s->put)
        run(&b, true, s->keys, true, 0);
    run(&b, s->put, 10 * s->connections, false, 0); /* every connection is up and warm */

    b.latency_ns = mem_alloc(s->ops * sizeof *b.latency_ns);
    if (s->watches > 0)
        watches = watch_load_start(s->endpoint, s->watches, s->ops);
    if (s->server_pid != 0)
        cpu = cpu_ns(s->server_pid);
    began = now_ns();
    run(&b, s->put, s->ops, false, s->rate);
    if (watches != NULL)
        watch_load_wait(watches);
    ended = now_ns();
    if (s->server_pid != 0)
        cpu = cpu_ns(s->server_pid) - cpu;

    qsort(b.latency_ns, s->ops, sizeof *b.latency_ns, by_size);
    printf("%s connections=%u in_flight=%u ops=%" PRIu64 " ops_per_s=%.0f p50_us=%.0f "
           "p99_us=%.0f failed=%" PRIu64,
           s->op, s->watches > 0 ? s->watches : s->connections, s->in_flight, s->ops,
           (double)done * 1e9 / (double)(ended - began),
           (double)b.latency_ns[s->ops / 2] / 1e3,
           (double)b.latency_ns[s->ops - 1 - s->ops / 100] / 1e3, b.failed);
    if (s->server_pid != 0)
        printf(" server_cpu_us_per_op=%.2f", (double)cpu / 1e3 / (double)done);
    if (watches != NULL)
        printf(" events_per_response=%.2f",
               (double)done / (double)watch_load_end(watches));
    printf("\n");
    mem_free(b.latency_ns);
    disconnect_all(&b);
    buffer_free(&b.message);
    buffer_free(&b.value);
    return b.failed > 0;
}

static uint64_t
number(const char *name, const char *text, uint64_t least, uint64_t most)
{
    char *end;
    uint64_t n = strtoull(text, &end, 10);

    if (*text < '0' || *text > '9' || *end != 0 || n < least || n > most) {
        fprintf(stderr,
                "grpc_bench: %s must be a number from %" PRIu64 " to %" PRIu64
                ", not \"%s\"\n",
                name, least, most, text);
        exit(2);
    }
    return n;
}

int
main(int argc, char **argv)
{
    struct settings s = {.key_bytes = 64, .value_bytes = 256, .keys = 10000};

    for (; argc > 2 && strncmp(argv[1], "--", 2) == 0; argc -= 2, argv += 2) {
        if (strcmp(argv[1], "--server-pid") == 0)
            s.server_pid = (long)number("PID", argv[2], 1, INT32_MAX);
        else if (strcmp(argv[1], "--rate") == 0)
            s.rate = number("PER_SECOND", argv[2], 1, 1000000);
        else if (strcmp(argv[1], "--values") == 0 &&
                 (strcmp(argv[2], "random") == 0 || strcmp(argv[2], "same") == 0))
            s.random_values = argv[2][0] == 'r';
        else
            break;
    }
    if (argc < 6 || argc > 9 || strstr(" get put mixed range watch ", argv[2]) == NULL) {
        fprintf(stderr,
                "usage: grpc_bench [--server-pid PID] [--rate PER_SECOND] [--values "
                "same|random]\n"
                "                  ENDPOINT get|put|mixed|range|watch CONNECTIONS "
                "IN_FLIGHT OPS\n"
                "                  [KEY_BYTES [VALUE_BYTES [KEYS]]]\n");
        return 2;
    }
    s.endpoint = argv[1];
    s.op = argv[2];
    s.put = strcmp(s.op, "put") == 0 || strcmp(s.op, "watch") == 0;
    s.mixed = strcmp(s.op, "mixed") == 0;
    s.window = strcmp(s.op, "range") == 0 ? RANGE_KEYS : 0;
    s.connections = (uint32_t)number("CONNECTIONS", argv[3], 1, 10000);
    if (strcmp(argv[2], "watch") == 0) {
        s.watches = s.connections;
        s.connections = 1;
    }
    s.in_flight = (uint32_t)number("IN_FLIGHT", argv[4], 1, 100000);
    s.ops = number("OPS", argv[5], 1, 1000000000);
    if (argc > 6)
        s.key_bytes = (uint32_t)number("KEY_BYTES", argv[6], 12, 16384);
    if (argc > 7)
        s.value_bytes = (uint32_t)number("VALUE_BYTES", argv[7], 0, 1500000);
    if (argc > 8)
        s.keys = number("KEYS", argv[8], 1, 10000000000);
    if (s.keys <= s.window)
        s.keys = s.window + 1;
    return measure(&s);
}

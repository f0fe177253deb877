/*
 * loop.c - see loop.h.
 *
 * Each place in flight belongs to a connection; places that are free wait in a ring, so that a
 * bounded rate uses all connections in turn.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "loop.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

#include "base/memory.h"
#include "message.h"

#define CONNECT_NS (10u * UINT64_C(1000000000))
#define FAILED_MOST 1000u /* then nothing is to be measured here */

/* One operation under way; reused for the next. */
struct operation {
    struct client_call call;
    enum request kind;
    uint64_t number, began_ns;
    uint32_t connection;
};

struct load {
    const struct settings *settings;
    struct requests *requests;
    struct client_queue *queue;
    struct client **client;
    void **method[REQUESTS]; /* handles, one per connection */
    struct buffer message;
};

/* One run: how far it is. */
struct run {
    struct load *load;
    const struct plan *plan;
    struct result *result;
    uint64_t started, ended, began_ns, stop_ns;
    uint64_t full_until_ns; /* when a place became free after there had been none */
    struct operation *operation, **idle;
    uint64_t places, first_idle, idles;
};

uint64_t
now_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

void
give_up(const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    fprintf(stderr, "t4-bench: ");
    vfprintf(stderr, format, arguments);
    fprintf(stderr, "\n");
    va_end(arguments);
    _exit(2); /* other threads go on: nothing is taken down under them */
}

void
give_up_for(const struct error *error)
{
    give_up("%s%s%s", error->message, error->hint[0] != '\0' ? "\nt4-bench: hint: " : "",
            error->hint);
}

/* --- connections --------------------------------------------------------------------------- */

struct load *
load_new(const struct settings *s, struct requests *q)
{
    struct load *l = mem_zalloc(sizeof *l);
    struct error error = {0};

    l->settings = s;
    l->requests = q;
    l->queue = client_queue_new();
    l->client = mem_zalloc(s->connections * sizeof *l->client);
    for (int k = 0; k < REQUESTS; k++)
        l->method[k] = mem_zalloc(s->connections * sizeof *l->method[k]);
    for (uint64_t i = 0; i < s->connections; i++) {
        if (client_make(l->queue, s->endpoint, &l->client[i], &error) != T4_OK)
            give_up_for(&error);
        if (!client_connect(l->client[i], CONNECT_NS))
            give_up("no connection to %s: is a server running there?", s->endpoint);
        for (int k = 0; k < REQUESTS; k++)
            l->method[k][i] =
                client_method(l->client[i], request_method((enum request)k));
    }
    return l;
}

void
load_free(struct load *l)
{
    for (uint64_t i = 0; i < l->settings->connections; i++)
        client_free(l->client[i]);
    client_queue_free(l->queue);
    for (int k = 0; k < REQUESTS; k++)
        mem_free(l->method[k]);
    mem_free(l->client);
    buffer_free(&l->message);
    mem_free(l);
}

/* --- operations ----------------------------------------------------------------------------- */

/* When the next operation is due; 0: at once. */
static uint64_t
due_ns(const struct run *r)
{
    return r->plan->rate == 0 ? 0
                              : r->began_ns + r->started * 1000000000u / r->plan->rate;
}

static enum request
choose_kind(struct run *r)
{
    if (!r->plan->mixed)
        return r->plan->kind;
    return requests_draw(r->load->requests, 2) == 0 ? REQUEST_PUT : REQUEST_GET;
}

static uint64_t
choose_number(struct run *r, enum request kind)
{
    const struct settings *s = r->load->settings;
    uint64_t window = kind == REQUEST_RANGE ? s->range_keys : 1;

    if (r->plan->in_order)
        return r->started;
    return requests_draw(r->load->requests, s->keys - window + 1);
}

static void
start_next(struct run *r)
{
    struct load *l = r->load;
    struct operation *o = r->idle[r->first_idle];
    uint64_t due = due_ns(r);

    r->first_idle = (r->first_idle + 1) % r->places;
    r->idles--;
    o->kind = choose_kind(r);
    o->number = choose_number(r, o->kind);
    request_encode(l->requests, o->kind, o->number, &l->message);
    o->call.tag = o;
    o->began_ns = now_ns();
    /* Held up by what is in flight, not by this client's own clock: that counts. */
    if (due > 0 && due < r->full_until_ns)
        o->began_ns = due;
    r->started++;
    client_call_start(l->client[o->connection], l->method[o->kind][o->connection],
                      buffer_slice(&l->message), CLIENT_FOREVER, &o->call);
}

static void
finish(struct run *r, struct operation *o)
{
    struct result *result = r->result;
    struct error error = {0};
    enum outcome outcome = OUTCOME_WRONG;
    uint64_t now = now_ns();
    grpc_slice answer;

    if (client_call_code(&o->call, &error) == 0) {
        answer = message_bytes(o->call.answer);
        outcome = request_check(r->load->requests, o->kind, o->number,
                                slice_of_core(&answer), &error);
        grpc_slice_unref(answer);
    }
    if (outcome == OUTCOME_WRONG) {
        if (result->failed++ == 0)
            fprintf(stderr, "t4-bench: %s: %s\n", request_method(o->kind), error.message);
        if (result->failed == FAILED_MOST)
            give_up("given up after %u failures", FAILED_MOST);
    } else {
        histogram_add(&result->latency, now - o->began_ns);
        result->done++;
        result->lost += outcome == OUTCOME_LOST;
        result->writes += outcome == OUTCOME_DONE && o->kind != REQUEST_GET &&
                          o->kind != REQUEST_RANGE && o->kind != REQUEST_COUNT;
    }
    client_call_end(&o->call);
    if (r->idles == 0)
        r->full_until_ns = now;
    r->idle[(r->first_idle + r->idles++) % r->places] = o;
    r->ended++;
}

static bool
may_start(const struct run *r, uint64_t now)
{
    if (r->idles == 0)
        return false;
    return r->plan->operations > 0 ? r->started < r->plan->operations : now < r->stop_ns;
}

/* Starts what is due, or waits for an answer; false: all is done. */
static bool
step(struct run *r)
{
    uint64_t now = now_ns(), timeout = LOAD_PATIENCE_NS;
    struct client_call *call;

    if (may_start(r, now)) {
        uint64_t due = due_ns(r);

        if (due <= now) {
            start_next(r);
            return true;
        }
        timeout = due - now;
    } else if (r->idles == r->places) {
        return false;
    }
    call = client_queue_next(r->load->queue, timeout);
    if (call != NULL)
        finish(r, call->tag);
    else if (timeout == LOAD_PATIENCE_NS)
        give_up("%s answers nothing for 60 s", r->load->settings->endpoint);
    return true;
}

void
load_run(struct load *l, const struct plan *plan, struct result *result)
{
    const struct settings *s = l->settings;
    struct run r = {.load = l, .plan = plan, .result = result};

    r.places = r.idles = s->connections * s->in_flight;
    r.operation = mem_zalloc(r.places * sizeof *r.operation);
    r.idle = mem_alloc(r.places * sizeof *r.idle);
    for (uint64_t i = 0; i < r.places; i++) {
        r.operation[i].connection = (uint32_t)(i % s->connections);
        r.idle[i] = &r.operation[i];
    }
    r.began_ns = result->began_ns = now_ns();
    r.stop_ns = r.began_ns + plan->seconds * 1000000000u;
    while (step(&r))
        ;
    result->ended_ns = now_ns();
    mem_free(r.idle);
    mem_free(r.operation);
}

/*
 * compactor.c - automatic compaction: the rules.  See compactor.h; carried out in background.c.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "node/compactor.h"

#include "base/memory.h"

#define MINUTE UINT64_C(60000000000)
#define HOUR (60 * MINUTE)
#define SAMPLES 10u /* in each period, or hour */
#define REVISION_INTERVAL (5 * MINUTE)

/* Between two compactions. */
static uint64_t
interval(const struct compactor *c)
{
    return c->period_ns < HOUR ? c->period_ns : HOUR;
}

/* Between two looks. */
static uint64_t
pause(const struct compactor *c)
{
    uint64_t ns = interval(c) / SAMPLES;

    if (c->mode == COMPACTOR_REVISION)
        return REVISION_INTERVAL;
    return ns > 0 ? ns : 1;
}

/* Adds the newest sample; the oldest goes once a whole period is in. */
static void
add_sample(struct compactor *c, int64_t revision)
{
    if (c->samples == c->capacity) {
        c->first = (c->first + 1) % c->capacity;
        c->samples--;
    }
    c->sample[(c->first + c->samples++) % c->capacity] = revision;
}

void
compactor_init(struct compactor *c, enum compactor_mode mode, uint64_t retention,
               uint64_t now_ns, int64_t revision)
{
    *c = (struct compactor){.mode = retention > 0 ? mode : COMPACTOR_OFF,
                            .success_ns = now_ns};
    if (c->mode == COMPACTOR_REVISION)
        c->keep = (int64_t)retention;
    if (c->mode == COMPACTOR_PERIODIC) {
        c->period_ns = retention;
        c->capacity = (uint32_t)(c->period_ns / pause(c)) + 1;
        c->sample = mem_alloc(c->capacity * sizeof *c->sample);
        add_sample(c, revision);
    }
    c->due_ns = now_ns + pause(c);
}

void
compactor_free(struct compactor *c)
{
    mem_free(c->sample);
    c->sample = NULL;
}

int64_t
compactor_tick(struct compactor *c, uint64_t now_ns, int64_t revision, bool leading)
{
    int64_t to;

    if (c->mode == COMPACTOR_OFF || now_ns < c->due_ns)
        return 0;
    c->due_ns = now_ns + pause(c);
    if (c->mode == COMPACTOR_REVISION) {
        to = revision - c->keep;
        return leading && to > 0 && to != c->done_to ? to : 0;
    }
    to = c->sample[c->first];
    add_sample(c, revision);
    if (!leading || to == c->done_to ||
        now_ns - c->success_ns < (c->once ? interval(c) : c->period_ns))
        return 0;
    c->once = true;
    return to;
}

void
compactor_done(struct compactor *c, uint64_t now_ns, int64_t revision)
{
    c->done_to = revision;
    c->success_ns = now_ns;
}

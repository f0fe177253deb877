/*
 * loop.h - connections, and one thread that keeps requests in flight on them.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef LOAD_LOOP_H
#define LOAD_LOOP_H

#include "client/client.h"
#include "histogram.h"
#include "requests.h"

/* A server that answers nothing for so long is given up. */
#define LOAD_PATIENCE_NS (60u * UINT64_C(1000000000))

struct load;

struct plan {
    enum request kind;
    bool mixed;             /* half gets, half puts, by chance, instead of `kind` */
    bool in_order;          /* keys 0, 1, 2, ... instead of drawn ones */
    uint64_t operations;    /* 0: until `seconds` are over */
    uint64_t seconds, rate; /* rate: 0: as fast as answers come */
};

struct result {
    uint64_t done, failed, lost,
        writes; /* done: answered rightly; some of them lost a race */
    uint64_t began_ns, ended_ns;
    struct histogram latency;
};

uint64_t now_ns(void);
/* Writes "t4-bench: ..." and ends the process with status 2. */
void give_up(const char *format, ...) __attribute__((format(printf, 1, 2), noreturn));
/* The same for an error of the client, with its hint. */
void give_up_for(const struct error *error) __attribute__((noreturn));

/* Connects all connections; a server that is not there ends the process. */
struct load *load_new(const struct settings *s, struct requests *q);
void load_free(struct load *l);
/* Does what the plan says; adds to *result, of which the caller zeroes what it wants to. */
void load_run(struct load *l, const struct plan *plan, struct result *result);

#endif

/*
 * fault.h - what the files of the fault wrapper share.
 *
 * What it does and the language of the control file: README.md.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef FAULT_FAULT_H
#define FAULT_FAULT_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "t4_plugin.h"

#define FAULT_MAX_POINTS 16
#define FAULT_MAX_RULES 64
#define FAULT_MAX_PATH 4096

/* Kinds of calls, as bits: a rule may be for several. */
#define FAULT_PUT 1u
#define FAULT_GET 2u
#define FAULT_HEAD 4u
#define FAULT_REMOVE 8u
#define FAULT_LIST 16u
#define FAULT_LATE 32u /* a late request's carrying out */
#define FAULT_WRITES (FAULT_PUT | FAULT_REMOVE)

/* Milliseconds by percentile, ascending; n 0: none. */
struct fault_latency {
    unsigned n;
    struct {
        double percent, ms;
    } point[FAULT_MAX_POINTS];
};

enum fault_mode { /* what becomes of one request */
                  FAULT_NORMAL,
                  FAULT_BEFORE, /* no effect, UNAVAILABLE */
                  FAULT_BUSY,   /* no effect, BUSY */
                  FAULT_DENIED,
                  FAULT_NOSPACE,
                  FAULT_AFTER,     /* done, UNKNOWN */
                  FAULT_LOST,      /* no effect, UNKNOWN */
                  FAULT_LATE_MODE, /* UNKNOWN, done later */
};

/* --- the control file (script.c) ---------------------------------------------------- */

struct fault_rule {
    enum { RULE_HOLD, RULE_HOLD_ANSWER, RULE_FAIL } kind;
    unsigned calls;       /* FAULT_* */
    char prefix[256];     /* of keys */
    unsigned count;       /* RULE_FAIL: how many calls */
    enum fault_mode mode; /* RULE_FAIL */
    int64_t late_ms;      /* < 0: the option's */
    uint64_t line;        /* hash of the line, by which its calls are counted */
};

/* One reading of the file. */
struct fault_script {
    bool outage, readonly, denied, full, throttle, drain;
    bool has_skew, has_latency;
    int64_t skew_ms;
    struct fault_latency latency;
    unsigned n_rules;
    struct fault_rule rules[FAULT_MAX_RULES];
};

struct fault_counter {
    uint64_t line;
    unsigned used;
};

struct fault_plugin {
    const struct t4_host *host;
    int64_t seed, late_ms, stall_ms, skew_ms;
    double error_before, error_after, lost, late, stall, throttle;
    struct fault_latency latency;
    bool outage;
    char control[FAULT_MAX_PATH], log[FAULT_MAX_PATH];
};

struct fault_job; /* a late request, see late.c */

struct t4_store {
    const struct fault_plugin *plugin;     /* [const] */
    const struct t4_host *host;            /* [const] */
    const struct t4_object_ops *inner_ops; /* [const] */
    struct t4_store *inner;                /* [const] */
    int log;                               /* [const] -1: none */

    pthread_mutex_t mutex;
    pthread_cond_t changed; /* CLOCK_MONOTONIC: jobs, their end, stopping */
    uint64_t random;        /* [mutex] */
    struct fault_counter counters[FAULT_MAX_RULES]; /* [mutex] */
    unsigned n_counters;                            /* [mutex] */
    struct fault_job *jobs;                         /* [mutex] in order of coming */
    bool started, stopping, applying;               /* [mutex] */
    pthread_t thread;                               /* [mutex] if started */
};

bool fault_read_latency(const char *text, struct fault_latency *out);
double fault_latency_ms(const struct fault_latency *l, double percent);
/*
 * Reads the control file; without one the script is empty.  INVALID: a line that cannot be
 * understood, named to the call. What lines that are gone had used up is
 * forgotten.
 */
t4_status fault_read_script(struct t4_store *s, struct t4_call *call,
                            struct fault_script *out);
/* The rule of this kind for a call; RULE_FAIL uses up one of its count.  NULL: none. */
const struct fault_rule *fault_match(struct t4_store *s,
                                     const struct fault_script *script, int kind,
                                     unsigned call_kind, struct t4_slice key);

/* --- late requests (late.c) --------------------------------------------------------- */

/* Copies the request and carries it out later. */
t4_status fault_put_later(struct t4_store *s, const struct t4_put *put, int64_t ms);
t4_status fault_remove_later(struct t4_store *s, const struct t4_slice *keys, size_t n,
                             int64_t ms);
/* Waits until all late requests are carried out, due or not. */
t4_status fault_drain(struct t4_store *s, struct t4_call *call);
void fault_stop(struct t4_store *s); /* what is not carried out yet never will be */

/* --- fault.c ------------------------------------------------------------------------ */

t4_status fault_wait_ms(struct t4_store *s, struct t4_call *call, double ms);
/* One line of the log: "put key OK". */
void fault_log(struct t4_store *s, const char *what, struct t4_slice key, t4_status st);

#endif

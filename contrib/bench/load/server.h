/*
 * server.h - what the server under load uses, by its process and its page of metrics.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef LOAD_SERVER_H
#define LOAD_SERVER_H

#include "settings.h"

/* Counters of the process at one moment. */
struct server_usage {
    uint64_t at_ns, cpu_ns;         /* CPU: user and system, of ended threads, too */
    struct thread_wakeups *threads; /* wake-ups by thread */
    uint64_t n_threads;
};

/* pid that is not there ends the process. */
struct server_usage server_usage(uint64_t pid);
void server_usage_free(struct server_usage *u);
uint64_t server_cpu_ns(uint64_t pid);
/*
 * Times that a thread went to sleep of itself between the two; those of threads that ended
 * meanwhile are not known, and *ended says how many.
 */
uint64_t server_wakeups(const struct server_usage *before,
                        const struct server_usage *after, uint64_t *ended);

/*
 * Before the load: waits until the CPU that the server uses when nobody asks it anything is the
 * same in two seconds that follow each other.  Returns it, as part of one CPU.
 */
double server_idle_cpu(uint64_t pid);
/* Behind the load: waits until it uses no more than that for `seconds`; false: it goes on. */
bool server_settle(uint64_t pid, double idle, uint64_t seconds);

struct server_memory {
    uint64_t resident, anonymous; /* bytes; the latter is what is no file's page */
};
struct server_memory server_memory(uint64_t pid);

/* Syncs of the log's files, from the page of metrics. */
uint64_t server_syncs(const char *metrics);

#endif

/*
 * workers.h - a small pool of threads for work that may take long or block.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef ENV_WORKERS_H
#define ENV_WORKERS_H

#include <stdint.h>

struct workers;

/* Embedded in what is to be done; belongs to the pool from submit until run() begins. */
struct job {
    void (*run)(struct job *job);
    struct job *next;
};

/* n threads named `name`. */
struct workers *workers_new(const char *name, uint32_t n);
/* Any thread.  First in, first out; never blocks. */
void workers_submit(struct workers *w, struct job *job);
/* Runs what is queued, then joins the threads and frees the pool. */
void workers_free(struct workers *w);

#endif

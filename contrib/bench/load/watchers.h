/*
 * watchers.h - watchers of the whole key space, and whether each gets every event.
 *
 * Watchers share connections, one stream on each.  Their responses are counted on a thread and a
 * completion queue of their own, so that the load beside them is not kept waiting.  What
 * goes wrong ends the process with the reason.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef LOAD_WATCHERS_H
#define LOAD_WATCHERS_H

#include "settings.h"

struct watchers;

/* Returns when all watch. */
struct watchers *watchers_start(const struct settings *s);
/* Waits until each has had so many events, and no more; when the last one came, in ns. */
uint64_t watchers_wait(struct watchers *w, uint64_t events);
/* After that: the number of responses that they came in. */
uint64_t watchers_responses(const struct watchers *w);
void watchers_end(struct watchers *w); /* frees it */

#endif

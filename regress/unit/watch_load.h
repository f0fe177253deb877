/*
 * watch_load.h - connections that watch everything, for the load client (regress/tools).
 *
 * Each has one watch of all keys; its responses are counted on a thread and a completion queue
 * of their own, so that the load beside them is not kept waiting.  What goes wrong ends the
 * process with the reason.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef WATCH_LOAD_H
#define WATCH_LOAD_H

#include <stdint.h>

struct watch_load;

/* Returns when all n watch; each is to get so many events. */
struct watch_load *watch_load_start(const char *endpoint, uint32_t n, uint64_t events);
/* Waits until all have them. */
void watch_load_wait(struct watch_load *l);
/* After that: frees it; the number of responses that they came in. */
uint64_t watch_load_end(struct watch_load *l);

#endif

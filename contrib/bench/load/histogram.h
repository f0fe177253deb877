/*
 * histogram.h - latencies: how many took how long, to within 1 %, in a fixed amount of memory.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef LOAD_HISTOGRAM_H
#define LOAD_HISTOGRAM_H

#include <stdint.h>

/* Below 256 ns a bucket each; above it 128 for each power of two. */
#define HISTOGRAM_BUCKETS (256 + 56 * 128)

struct histogram {
    uint64_t count, bucket[HISTOGRAM_BUCKETS];
};

static inline void
histogram_add(struct histogram *h, uint64_t ns)
{
    int power = ns < 256 ? 0 : 63 - __builtin_clzll(ns);

    h->bucket[ns < 256 ? ns
                       : 256 + (uint64_t)(power - 8) * 128 + (ns >> (power - 7)) % 128]++;
    h->count++;
}

static inline void
histogram_merge(struct histogram *into, const struct histogram *from)
{
    for (int i = 0; i < HISTOGRAM_BUCKETS; i++)
        into->bucket[i] += from->bucket[i];
    into->count += from->count;
}

/* What the given part of them (0.5: half) did not take longer than; 0: there are none. */
static inline uint64_t
histogram_part(const struct histogram *h, double part)
{
    uint64_t wanted = (uint64_t)(part * (double)h->count), seen = 0;
    uint64_t i = 0;

    while (i < HISTOGRAM_BUCKETS && (seen += h->bucket[i]) <= wanted)
        i++;
    if (i < 256 || i == HISTOGRAM_BUCKETS)
        return i < 256 ? i * (h->count > 0) : UINT64_MAX;
    return (128 + (i - 256) % 128) << (1 + (i - 256) / 128);
}

#endif

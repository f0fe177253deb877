/*
 * metrics.h - counters, gauges and histograms of one server, listed once in metrics.tbl.
 *
 * A struct metrics belongs to one store (two stores in one process do not mix).  Updates are
 * relaxed atomics and may come from any thread; reading gives each value as of some recent
 * instant.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef BASE_METRICS_H
#define BASE_METRICS_H

#include <stdatomic.h>
#include <stdint.h>

#include "base/buffer.h"

enum metric {
#define METRIC(id, kind, name, labels, help) METRIC_##id,
#define ALIAS(id, kind, name, labels, help)
#include "base/metrics.tbl"
#undef METRIC
#undef ALIAS
    METRIC_COUNT
};

/* 1 ms (of kind histogram_long: 100 ms) * 2^n, n = 0..13, as etcd's disk histograms */
#define HISTOGRAM_BUCKETS 14

struct histogram {
    _Atomic uint64_t bucket[HISTOGRAM_BUCKETS + 1]; /* the last one is +Inf */
    _Atomic uint64_t sum_ns, count;
};

struct metrics {
    _Atomic int64_t value[METRIC_COUNT]; /* counters and gauges */
    struct histogram histogram[METRIC_COUNT];
};

static inline void
metric_add(struct metrics *m, enum metric id, int64_t n)
{
    atomic_fetch_add_explicit(&m->value[id], n, memory_order_relaxed);
}

/*
 * The same for a counter that one thread at a time writes, such as whoever has the commit role:
 * costs a load and a store.
 */
static inline void
metric_add_alone(struct metrics *m, enum metric id, int64_t n)
{
    atomic_store_explicit(&m->value[id],
                          atomic_load_explicit(&m->value[id], memory_order_relaxed) + n,
                          memory_order_relaxed);
}

static inline void
metric_set(struct metrics *m, enum metric id, int64_t n)
{
    atomic_store_explicit(&m->value[id], n, memory_order_relaxed);
}

static inline int64_t
metric_get(const struct metrics *m, enum metric id)
{
    return atomic_load_explicit(&m->value[id], memory_order_relaxed);
}

/*
 * For metrics that are counted elsewhere: the two lines above a metric's first one, and a line of
 * short names and numbers (what is longer than METRICS_LINE_BYTES is cut off).
 */
#define METRICS_LINE_BYTES 512
void metrics_head(struct buffer *out, const char *name, const char *kind,
                  const char *help);
void metrics_append(struct buffer *out, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

void metric_observe(struct metrics *m, enum metric id, uint64_t ns);
/* Appends all metrics in Prometheus' text format. */
void metrics_render(const struct metrics *m, struct buffer *out);

#endif

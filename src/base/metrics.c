/*
 * metrics.c - observing histograms and rendering all metrics.  See metrics.h.
 *
 * Output: Prometheus' text format 0.0.4; HELP and TYPE once per name, before its first line.
 * Lines of one name stand together in metrics.tbl, so a change of name is all that has to be
 * noticed.
 *
 * Invariant: within one histogram the +Inf bucket equals _count, also while others observe,
 * because both are the sum of the same reading of the buckets.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "base/metrics.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum kind { KIND_counter, KIND_gauge, KIND_histogram, KIND_histogram_long };

static const struct {
    enum metric id; /* whose value it is */
    const char *name, *labels, *help;
    enum kind kind;
} metric_table[] = {
#define METRIC(id, kind, name, labels, help)                                             \
    {METRIC_##id, name, labels, help, KIND_##kind},
#define ALIAS METRIC
#include "base/metrics.tbl"
#undef METRIC
#undef ALIAS
};

#define MS UINT64_C(1000000)
#define NS_PER_S UINT64_C(1000000000)

/* Of the first bucket: 1 ms, or as etcd has it for what takes long. */
static uint64_t
first_bucket_ms(enum metric id)
{
    static const enum kind kinds[METRIC_COUNT] = {
#define METRIC(id, kind, name, labels, help) [METRIC_##id] = KIND_##kind,
#define ALIAS(id, kind, name, labels, help)
#include "base/metrics.tbl"
#undef METRIC
#undef ALIAS
    };

    return kinds[id] == KIND_histogram_long ? 100 : 1;
}

void
metric_observe(struct metrics *m, enum metric id, uint64_t ns)
{
    struct histogram *h = &m->histogram[id];
    uint32_t i = 0;

    while (i < HISTOGRAM_BUCKETS && ns > (first_bucket_ms(id) * MS) << i)
        i++;
    atomic_fetch_add_explicit(&h->bucket[i], 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&h->sum_ns, ns, memory_order_relaxed);
    atomic_fetch_add_explicit(&h->count, 1, memory_order_relaxed);
}

void
metrics_append(struct buffer *out, const char *format, ...)
{
    char text[METRICS_LINE_BYTES];
    va_list ap;

    va_start(ap, format);
    vsnprintf(text, sizeof text, format, ap);
    va_end(ap);
    buffer_append(out, text, strlen(text));
}

void
metrics_head(struct buffer *out, const char *name, const char *kind, const char *help)
{
    metrics_append(out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, kind);
}

static void
render_histogram(const struct histogram *h, uint64_t first_ms, const char *name,
                 const char *labels, struct buffer *out)
{
    /* {op="put"} becomes {op="put",le="..."}. */
    int inside = labels[0] != '\0' ? (int)strlen(labels) - 2 : 0;
    const char *open = inside > 0 ? labels + 1 : "", *comma = inside > 0 ? "," : "";
    uint64_t sum = atomic_load_explicit(&h->sum_ns, memory_order_relaxed), count = 0;

    for (int i = 0; i < HISTOGRAM_BUCKETS; i++) {
        uint64_t ms = first_ms << i;

        count += atomic_load_explicit(&h->bucket[i], memory_order_relaxed);
        metrics_append(out,
                       "%s_bucket{%.*s%sle=\"%" PRIu64 ".%03" PRIu64 "\"} %" PRIu64 "\n",
                       name, inside, open, comma, ms / 1000, ms % 1000, count);
    }
    count += atomic_load_explicit(&h->bucket[HISTOGRAM_BUCKETS], memory_order_relaxed);
    metrics_append(out, "%s_bucket{%.*s%sle=\"+Inf\"} %" PRIu64 "\n", name, inside, open,
                   comma, count);
    metrics_append(out, "%s_sum%s %" PRIu64 ".%09" PRIu64 "\n", name, labels,
                   sum / NS_PER_S, sum % NS_PER_S);
    metrics_append(out, "%s_count%s %" PRIu64 "\n", name, labels, count);
}

void
metrics_render(const struct metrics *m, struct buffer *out)
{
    static const char *const kind_text[] = {"counter", "gauge", "histogram", "histogram"};
    const char *last = "";

    for (size_t i = 0; i < sizeof metric_table / sizeof metric_table[0]; i++) {
        enum metric id = metric_table[i].id;
        const char *name = metric_table[i].name, *labels = metric_table[i].labels;

        if (strcmp(name, last) != 0) {
            metrics_head(out, name, kind_text[metric_table[i].kind],
                         metric_table[i].help);
            last = name;
        }
        if (metric_table[i].kind >= KIND_histogram)
            render_histogram(&m->histogram[id], first_bucket_ms(id), name, labels, out);
        else
            metrics_append(out, "%s%s %" PRId64 "\n", name, labels, metric_get(m, id));
    }
}

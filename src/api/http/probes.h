/*
 * probes.h - etcd's /livez, /readyz and /health: what is checked, and the answers' forms.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef API_HTTP_PROBES_H
#define API_HTTP_PROBES_H

#include "api/http/http.h"

/* What there is to say at the moment. */
struct probe_view {
    enum http_state state;
    const char *reason; /* of the state; "" if there is none */
    bool nospace, corrupt;
};

/* What a request asks for, of its query. */
struct probe_query {
    bool verbose, serializable;
    bool (*excludes)(void *arg, const char *name);
    void *arg;
};

struct probe_counts;
struct probe_counts *probe_counts_new(void);
void probe_counts_free(struct probe_counts *c);

/* /health, /livez, /readyz, and below the latter two the names of their checks. */
bool probe_is_path(const char *path);
/*
 * Appends the answer to such a path and returns its HTTP status.  One thread at a time on one
 * *counts.
 */
unsigned probe_answer(const char *path, const struct probe_view *v,
                      const struct probe_query *q, struct probe_counts *counts,
                      struct buffer *out);
/* The metrics etcd_server_health*. */
void probe_render_metrics(const struct probe_counts *counts, struct buffer *out);

#endif

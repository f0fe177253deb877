/*
 * probes.c - /livez, /readyz and their checks, /health: bodies and codes as etcd's.
 *
 * A check is a function of the view.  /livez says whether the process should be left alone, so
 * its only check holds while the server starts or stops, too: a restart would not help.  What
 * works less well than it should without failing a check is said in /readyz all the same, with
 * the status 200.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "api/http/probes.h"

#include <inttypes.h>
#include <string.h>

#include "base/memory.h"
#include "base/metrics.h"

static const char *const state_text[] = {"starting", "ready", "degraded", "stopping",
                                         "not leading"};

enum { OK = 200, UNAVAILABLE = 503 };

static void
append(struct buffer *out, const char *text)
{
    buffer_append(out, text, strlen(text));
}

/* A JSON string; reasons are our own words, so only what JSON itself asks for is escaped. */
static void
append_json(struct buffer *out, const char *text)
{
    append(out, "\"");
    for (; *text != '\0'; text++) {
        if (*text == '"' || *text == '\\')
            buffer_append_u8(out, '\\');
        buffer_append_u8(out, (unsigned char)*text < ' ' ? ' ' : (uint8_t)*text);
    }
    append(out, "\"");
}

static void
append_state(struct buffer *out, const struct probe_view *v)
{
    append(out, state_text[v->state]);
    if (v->reason[0] != '\0') {
        append(out, ": ");
        append(out, v->reason);
    }
}

/* --- checks -------------------------------------------------------------------------- */

/* Each appends why it fails, or nothing. */
static void
check_alive(const struct probe_view *v, struct buffer *why)
{
    (void)v;
    (void)why;
}

static void
check_serializable(const struct probe_view *v, struct buffer *why)
{
    if (v->state == HTTP_STARTING || v->state == HTTP_STOPPING)
        append_state(why, v);
}

static void
check_linearizable(const struct probe_view *v, struct buffer *why)
{
    if (v->state == HTTP_NOT_LEADING)
        append_state(why, v);
    else
        check_serializable(v, why);
}

static void
check_corruption(const struct probe_view *v, struct buffer *why)
{
    if (v->corrupt)
        append(why, "alarm activated: CORRUPT");
}

static const struct check {
    const char *path, *name;
    void (*run)(const struct probe_view *v, struct buffer *why);
} checks[] = {
    {"/livez", "serializable_read", check_alive},
    {"/readyz", "data_corruption", check_corruption},
    {"/readyz", "serializable_read", check_serializable},
    {"/readyz", "linearizable_read", check_linearizable},
    {"/readyz", "non_learner", check_alive}, /* there are no learners */
};

#define N_CHECKS (sizeof checks / sizeof checks[0])

struct probe_counts {
    uint64_t succeeded[N_CHECKS], failed[N_CHECKS];
    bool last_failed[N_CHECKS];
    uint64_t healthy, unhealthy;
};

struct probe_counts *
probe_counts_new(void)
{
    return mem_zalloc(sizeof(struct probe_counts));
}

void
probe_counts_free(struct probe_counts *c)
{
    mem_free(c);
}

/* "/readyz" names all its checks, "/readyz/NAME" one. */
static bool
is_named(const struct check *check, const char *path)
{
    size_t n = strlen(check->path);

    return strncmp(path, check->path, n) == 0 &&
           (path[n] == '\0' ||
            (path[n] == '/' && strcmp(path + n + 1, check->name) == 0));
}

/* Runs one check and appends its line; true: it holds. */
static bool
run(size_t i, const struct probe_view *v, struct probe_counts *counts, struct buffer *out)
{
    struct buffer why = {0};
    bool failed;

    checks[i].run(v, &why);
    failed = why.len > 0;
    counts->last_failed[i] = failed;
    if (failed)
        counts->failed[i]++;
    else
        counts->succeeded[i]++;
    append(out, failed ? "[-]" : "[+]");
    append(out, checks[i].name);
    append(out, failed ? " failed: " : " ok");
    buffer_append_slice(out, buffer_slice(&why));
    append(out, "\n");
    buffer_free(&why);
    return !failed;
}

/* Lines are shown when something fails, or when they are asked for. */
static unsigned
answer_checks(const char *path, const struct probe_view *v, const struct probe_query *q,
              struct probe_counts *counts, struct buffer *out)
{
    struct buffer lines = {0};
    bool good = true;

    for (size_t i = 0; i < N_CHECKS; i++)
        if (is_named(&checks[i], path) && !q->excludes(q->arg, checks[i].name))
            good = run(i, v, counts, &lines) && good;
    if (!good || q->verbose)
        buffer_append_slice(out, buffer_slice(&lines));
    buffer_free(&lines);
    if (good && v->state == HTTP_DEGRADED && strcmp(path, "/readyz") == 0)
        append_state(out, v);
    else if (good)
        append(out, "ok");
    append(out, "\n");
    return good ? OK : UNAVAILABLE;
}

/* --- /health ------------------------------------------------------------------------- */

static unsigned
answer_health(const struct probe_view *v, const struct probe_query *q,
              struct probe_counts *counts, struct buffer *out)
{
    struct buffer reason = {0};
    bool good;

    if (v->nospace && !q->excludes(q->arg, "NOSPACE"))
        append(&reason, "ALARM NOSPACE");
    else if (v->corrupt && !q->excludes(q->arg, "CORRUPT"))
        append(&reason, "ALARM CORRUPT");
    else if (v->state == HTTP_NOT_LEADING && !q->serializable)
        append(&reason, "RAFT NO LEADER");
    else
        check_serializable(v, &reason);
    good = reason.len == 0;
    if (good)
        counts->healthy++;
    else
        counts->unhealthy++;
    buffer_append_u8(&reason, '\0');
    append(out, good ? "{\"health\":\"true\",\"reason\":"
                     : "{\"health\":\"false\",\"reason\":");
    append_json(out, (const char *)reason.data);
    append(out, good ? "}" : "}\n"); /* as etcd's library of HTTP ends an error */
    buffer_free(&reason);
    return good ? OK : UNAVAILABLE;
}

bool
probe_is_path(const char *path)
{
    for (size_t i = 0; i < N_CHECKS; i++)
        if (is_named(&checks[i], path))
            return true;
    return strcmp(path, "/health") == 0;
}

unsigned
probe_answer(const char *path, const struct probe_view *v, const struct probe_query *q,
             struct probe_counts *counts, struct buffer *out)
{
    if (strcmp(path, "/health") == 0)
        return answer_health(v, q, counts, out);
    return answer_checks(path, v, q, counts, out);
}

/* --- metrics ------------------------------------------------------------------------- */

static void
render_total(struct buffer *out, size_t i, const char *status, uint64_t n)
{
    if (n == 0)
        return; /* as in etcd: there from the first time on */
    metrics_append(
        out,
        "etcd_server_healthchecks_total{name=\"%s\",status=\"%s\",type=\"%s\"} "
        "%" PRIu64 "\n",
        checks[i].name, status, checks[i].path + 1, n);
}

void
probe_render_metrics(const struct probe_counts *c, struct buffer *out)
{
    metrics_head(out, "etcd_server_health_success", "counter",
                 "/health answered with 200");
    metrics_append(out, "etcd_server_health_success %" PRIu64 "\n", c->healthy);
    metrics_head(out, "etcd_server_health_failures", "counter",
                 "/health answered with 503");
    metrics_append(out, "etcd_server_health_failures %" PRIu64 "\n", c->unhealthy);
    metrics_head(out, "etcd_server_healthcheck", "gauge",
                 "1 if the check held when it was last asked for");
    for (size_t i = 0; i < N_CHECKS; i++) {
        if (c->succeeded[i] + c->failed[i] == 0)
            continue;
        metrics_append(out, "etcd_server_healthcheck{name=\"%s\",type=\"%s\"} %d\n",
                       checks[i].name, checks[i].path + 1, !c->last_failed[i]);
    }
    metrics_head(out, "etcd_server_healthchecks_total", "counter",
                 "Times that a check was asked for, by how it ended");
    for (size_t i = 0; i < N_CHECKS; i++) {
        render_total(out, i, "success", c->succeeded[i]);
        render_total(out, i, "error", c->failed[i]);
    }
}

/*
 * status.c - the page /status: who leads, how far the log has got, what a lost disk would lose.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "api/http/status.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/report.h"
#include "node/node.h"

#define BAR 40 /* characters of a progress bar */

static const char *
state_of(const struct node_status *s)
{
    if (!s->has_store)
        return "leading (no object store)";
    switch (s->leadership.state) {
    case LEADERSHIP_LEADING: return "leading";
    case LEADERSHIP_DEPOSED: return "deposed";
    case LEADERSHIP_SEEKING: return "not leading yet";
    default: return "stopped";
    }
}

/* The sentence that operators look for. */
static void
at_stake(const struct node_status *s, char *out, size_t n)
{
    const struct leadership_view *v = &s->leadership;
    uint64_t entries =
        v->synced_index > v->object_index ? v->synced_index - v->object_index : 0;

    if (!s->has_store || s->store_is_built_in)
        snprintf(out, n,
                 "a disk lost now would lose everything: there is no object store but "
                 "the one on it");
    else if (v->rule == RULE_OBJECT)
        snprintf(out, n, "a disk lost now would lose nothing that was acknowledged");
    else if (entries == 0)
        snprintf(out, n, "a disk lost now would lose nothing");
    else
        snprintf(out, n,
                 "a disk lost now would lose %" PRIu64 " writes (revisions %" PRId64
                 " to %" PRId64 "), the oldest %.1f s old",
                 entries, v->object_revision + 1, s->revision,
                 (double)v->waiting_ns / 1e9);
}

static void
store(struct report *r, const struct node_status *s)
{
    const struct leadership_view *v = &s->leadership;
    uint64_t entries =
        v->synced_index > v->object_index ? v->synced_index - v->object_index : 0;
    char seconds[32];

    report_text(r, "object_store", "object store", v->url);
    report_bool(r, "built_in", "built-in store", s->store_is_built_in);
    report_text(r, "commit_rule", "commit rule",
                v->rule == RULE_OBJECT ? "object" : "local");
    report_i64(r, "durable_revision", "durable revision", v->object_revision);
    report_u64(r, "durable_index", "durable index", v->object_index);
    report_u64(r, "lag_entries", "lag, entries", entries);
    report_i64(r, "lag_revisions", "lag, revisions",
               entries > 0 && s->revision > v->object_revision
                   ? s->revision - v->object_revision
                   : 0);
    report_u64(r, "lag_bytes", "lag, bytes", v->waiting_bytes);
    snprintf(seconds, sizeof seconds, "%.1f", (double)v->waiting_ns / 1e9);
    report_u64(r, "lag_milliseconds", NULL, v->waiting_ns / 1000000);
    report_text(r, "lag_seconds", "lag, seconds", seconds);
    report_u64(r, "checkpoint_index", "checkpoint, index", s->checkpoint.index);
    report_i64(r, "checkpoint_revision", "checkpoint, revision", s->checkpoint.revision);
    report_u64(r, "checkpoint_runs", "checkpoint, runs", s->checkpoint.runs);
    report_u64(r, "checkpoint_bytes", "checkpoint, bytes", s->checkpoint.bytes);
    report_u64(r, "checkpoints_kept", "checkpoints kept", s->checkpoint.kept);
    report_u64(r, "archived_slots", "slots in archives", s->checkpoint.archived);
    if (s->checkpoint.failing)
        report_text(r, "checkpoint_reason", "checkpoints fail", s->checkpoint.why);
    report_bool(r, "degraded", "degraded", v->degraded);
    if (v->why[0] != '\0')
        report_text(r, "reason", "reason", v->why);
}

static void
progress_bar(const struct hydration_view *v, char *out, size_t n)
{
    char bar[BAR + 1];
    size_t done = v->bytes > 0 ? v->bytes_done * BAR / v->bytes : 0;

    memset(bar, '.', BAR);
    memset(bar, '#', done < BAR ? done : BAR);
    bar[BAR] = '\0';
    snprintf(out, n, "[%s] %" PRIu64 " of %" PRIu64 " MiB", bar, v->bytes_done >> 20,
             v->bytes >> 20);
}

/* What of the checkpoint that this server began with is not on its disk yet. */
static void
hydration(struct report *r, const struct hydration_view *v)
{
    char text[BAR + 64];

    report_bool(r, "hydrated", "hydrated", v->complete);
    if (v->complete)
        return;
    progress_bar(v, text, sizeof text);
    report_u64(r, "hydration_percent", "hydration, percent",
               v->bytes > 0 ? v->bytes_done * 100 / v->bytes : 0);
    report_text(r, "hydration_progress", "hydration", text);
    report_u64(r, "hydration_bytes", NULL, v->bytes);
    report_u64(r, "hydration_done_bytes", NULL, v->bytes_done);
    report_u64(r, "hydration_fetched_bytes", NULL, v->fetched);
    report_u64(r, "hydration_milliseconds", NULL, v->elapsed_ns / 1000000);
    report_u64(r, "hydration_failed_units", NULL, v->failed);
    if (v->bytes_done > 0)
        report_u64(
            r, "hydration_seconds_left", "hydration, seconds left",
            (uint64_t)((double)v->elapsed_ns / 1e9 * (double)(v->bytes - v->bytes_done) /
                       (double)v->bytes_done));
    if (v->why[0] != '\0')
        report_text(r, "hydration_reason", "hydration, reason", v->why);
}

void
status_render(struct node *node, bool text, struct buffer *out)
{
    struct report r = {0};
    struct node_status s;
    char sentence[200];

    node_status(node, &s);
    at_stake(&s, sentence, sizeof sentence);
    report_text(&r, "version", "version", T4_VERSION);
    report_text(&r, "name", "name", s.name);
    report_hex(&r, "cluster_id", "cluster", s.cluster_id);
    report_hex(&r, "member_id", "member", s.member_id);
    report_text(&r, "state", "state", state_of(&s));
    report_u64(&r, "term", "term", s.term);
    report_i64(&r, "revision", "revision", s.revision);
    report_i64(&r, "compacted_revision", "compacted revision",
               s.compacted_revision > 0 ? s.compacted_revision : 0);
    report_u64(&r, "index", "index", s.index);
    if (s.has_store)
        store(&r, &s);
    if (s.began_from_checkpoint)
        hydration(&r, &s.hydration);
    report_text(&r, "engine", "engine", s.engine_name);
    report_u64(&r, "engine_bytes", "engine, bytes", s.db_bytes);
    report_u64(&r, "engine_in_use_bytes", "engine, bytes in use", s.db_in_use_bytes);
    report_u64(&r, "engine_records", "engine, records", s.db_records);
    report_i64(&r, "quota_bytes", "quota, bytes", s.quota_bytes);
    report_u64(&r, "quota_used_bytes", "quota, bytes used", s.quota_used_bytes);
    report_u64(&r, "alarms", "alarms", s.n_alarms);
    report_bool(&r, "nospace", "NOSPACE alarm", s.nospace);
    report_bool(&r, "disk_full", "disk full", s.disk_full);
    report_text(&r, "at_stake", NULL, sentence);
    report_line(&r, sentence);
    report_end(&r);
    buffer_append_slice(out, buffer_slice(text ? &r.lines : &r.json));
    report_free(&r);
}

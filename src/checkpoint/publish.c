/*
 * publish.c - from a mark to a checkpoint in the manifest.
 *
 * Order: files, run indexes, the checkpoint's object, then the manifest that names it by
 * compare-and-swap.  If that fails, the objects are orphans, which are removed when a newer
 * checkpoint stands (or a newer leader).
 *
 * A fold is made between two checkpoints, for the runs of the newest one, and is named by the
 * next.  Its objects bear an index above the newest checkpoint's, so that nobody takes them for
 * orphans meanwhile; so no checkpoint is published while a fold is being written.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <inttypes.h>
#include <stdio.h>

#include "base/log.h"
#include "checkpoint/checkpoint_int.h"

t4_status
publish_manifest(struct checkpointer *c, struct manifest_object *next,
                 struct error *error)
{
    next->term = c->options.term;
    if (next->generation < c->options.generation)
        next->generation = c->options.generation;
    return objectlog_write_manifest(c->log, c->options.term, next, error);
}

t4_status
publish_survey(struct checkpointer *c, uint64_t last, struct error *error)
{
    return log_read(c->log, c->options.wal, &objectlog_manifest(c->log)->newest.place,
                    c->survey.index, last, survey_entry, &c->survey, error);
}

/* The runs of the newest checkpoint, those that were folded replaced by what became of them. */
static void
begin_list(const struct checkpointer *c, struct run_list *list)
{
    const struct checkpoint_object *newest = &objectlog_manifest(c->log)->newest;

    *list = (struct run_list){.n = newest->n_runs};
    memcpy(list->run, newest->run, newest->n_runs * sizeof list->run[0]);
    if (!c->has_fold || c->fold_inputs != list->n ||
        memcmp(list->run, c->folded_run, list->n * sizeof list->run[0]) != 0)
        return;
    list->n = !c->fold_is_empty;
    list->run[0] = c->fold;
}

static t4_status
build(struct checkpointer *c, struct run_list *list, uint64_t last, struct error *error)
{
    const struct checkpoint_object *newest = &objectlog_manifest(c->log)->newest;
    struct run_target target = {.log = c->log,
                                .term = c->options.term,
                                .index = last,
                                .metrics = c->options.metrics,
                                .between = checkpointer_between,
                                .arg = c};
    struct chain_floor place = newest->place;
    struct builder b;
    t4_status status;

    builder_begin(&b, &target, list, newest->index, last, c->survey.compacted,
                  c->options.build_bytes);
    status = log_read(c->log, c->options.wal, &place, newest->index, last, builder_entry,
                      &b, error);
    if (status == T4_OK)
        status = builder_end(&b, error);
    builder_free(&b);
    return status;
}

static void
fill(const struct checkpointer *c, const struct checkpoint_mark *mark,
     const struct run_list *list, struct checkpoint_object *o)
{
    const struct manifest_object *m = objectlog_manifest(c->log);

    *o = (struct checkpoint_object){.cluster_id = m->cluster_id,
                                    .lineage = m->lineage,
                                    .generation = c->options.generation > m->generation
                                                      ? c->options.generation
                                                      : m->generation,
                                    .term = c->options.term,
                                    .index = mark->index,
                                    .revision = c->survey.revision,
                                    .compacted = c->survey.compacted,
                                    .time_ms = c->survey.time_ms,
                                    .place = mark->place,
                                    .n_runs = list->n};
    memcpy(o->run, list->run, list->n * sizeof o->run[0]);
}

t4_status
checkpoint_put(struct objectlog *log, const struct checkpoint_object *o,
               uint8_t sha[SHA256_BYTES], struct error *error)
{
    struct buffer object = {0};
    char key[CHECKPOINT_KEY_BYTES];
    t4_status status;

    checkpoint_encode(&object, o);
    sha256(buffer_slice(&object), sha);
    checkpoint_key(key, o->term, o->revision, o->index);
    status = objectlog_create(log, key, buffer_slice(&object), error);
    buffer_free(&object);
    return status;
}

static void
report(struct checkpointer *c, const struct checkpoint_object *o, uint64_t began)
{
    struct metrics *m = c->options.metrics;
    char index[24], revision[24], runs[24];

    snprintf(index, sizeof index, "%" PRIu64, o->index);
    snprintf(revision, sizeof revision, "%" PRId64, o->revision);
    snprintf(runs, sizeof runs, "%" PRIu32, o->n_runs);
    LOG_INFO("checkpoint", "index", index, "revision", revision, "runs", runs, NULL);
    if (m != NULL) {
        metric_add(m, METRIC_CHECKPOINTS, 1);
        metric_observe(m, METRIC_CHECKPOINT_SECONDS, checkpointer_now(c) - began);
    }
}

t4_status
publish(struct checkpointer *c, const struct checkpoint_mark *mark, struct error *error)
{
    uint64_t began = checkpointer_now(c);
    struct checkpoint_object o;
    struct manifest_object next;
    struct run_list list;
    uint8_t sha[SHA256_BYTES];
    t4_status status = publish_survey(c, mark->index, error);

    if (status != T4_OK)
        return status;
    begin_list(c, &list);
    status = build(c, &list, mark->index, error);
    if (status != T4_OK)
        return error_wrap(error, "the checkpoint at entry %" PRIu64, mark->index), status;
    fill(c, mark, &list, &o);
    status = checkpoint_put(c->log, &o, sha, error);
    if (status != T4_OK)
        return status;
    next = *objectlog_manifest(c->log);
    list_add(&next, &o, sha);
    status = publish_manifest(c, &next, error);
    if (status != T4_OK)
        return status;
    c->has_fold = false;
    c->dirty = true;
    c->survey = (struct survey){.index = o.index,
                                .revision = o.revision,
                                .compacted = o.compacted,
                                .time_ms = o.time_ms};
    report(c, &o, began);
    return T4_OK;
}

t4_status
publish_fold(struct checkpointer *c, struct error *error)
{
    const struct checkpoint_object *newest = &objectlog_manifest(c->log)->newest;
    struct run_target target = {.log = c->log,
                                .term = c->options.term,
                                .index = newest->index + 1,
                                .metrics = c->options.metrics,
                                .between = checkpointer_between_archiving,
                                .arg = c};
    uint64_t began = checkpointer_now(c);
    t4_status status;

    c->fold_inputs = newest->n_runs;
    memcpy(c->folded_run, newest->run, newest->n_runs * sizeof newest->run[0]);
    status = fold_runs(&target, c->folded_run, c->fold_inputs, &c->fold, error);
    if (status != T4_OK && status != T4_E_NOTFOUND)
        return error_wrap(error, "folding the runs of the newest checkpoint"), status;
    c->fold_is_empty = status == T4_E_NOTFOUND;
    c->has_fold = true;
    if (c->options.metrics != NULL) {
        metric_add(c->options.metrics, METRIC_CHECKPOINT_FOLDS, 1);
        metric_add(c->options.metrics, METRIC_CHECKPOINT_REUSED, (int64_t)target.reused);
        metric_observe(c->options.metrics, METRIC_CHECKPOINT_SECONDS,
                       checkpointer_now(c) - began);
    }
    return T4_OK;
}

/* OK: every run's index is there.  CORRUPT: one is missing or damaged. */
static t4_status
look_at_runs(struct checkpointer *c, const struct checkpoint_object *o,
             struct error *error)
{
    t4_status status = T4_OK;

    for (uint32_t i = 0; i < o->n_runs && status == T4_OK; i++) {
        struct run_index run;

        status = run_fetch(c->log, &o->run[i], &run, error);
        if (status == T4_OK)
            run_index_free(&run);
    }
    return status;
}

t4_status
publish_without_damaged(struct checkpointer *c, struct error *error)
{
    const struct manifest_object *m = objectlog_manifest(c->log);
    struct manifest_object next = *m;
    struct checkpoint_object o = m->newest;
    struct error reason;
    char revision[24];
    uint32_t i = 0;
    t4_status status = look_at_runs(c, &o, &reason);

    if (status == T4_OK)
        return T4_OK;
    while (status == T4_E_CORRUPT && ++i < m->n_checkpoints) {
        status = objectlog_fetch_checkpoint(c->log, &m->checkpoint[i], &o, error);
        if (status == T4_OK)
            status = o.place.next_slot >= m->archive.next_slot
                         ? look_at_runs(c, &o, error)
                         : T4_E_CORRUPT;
    }
    if (status == T4_E_CORRUPT)
        return T4_OK; /* nothing to begin with: whoever needs it says what is damaged */
    if (status != T4_OK)
        return status;
    snprintf(revision, sizeof revision, "%" PRId64, o.revision);
    LOG_WARN("the newest checkpoint is damaged; going on from an older one", "reason",
             reason.message, "revision", revision, NULL);
    list_begin_at(&next, i, &o);
    return publish_manifest(c, &next, error);
}

t4_status
publish_retirement(struct checkpointer *c, struct error *error)
{
    struct manifest_object next = *objectlog_manifest(c->log);
    uint64_t now_ms =
        c->survey.time_ms > next.newest.time_ms ? c->survey.time_ms : next.newest.time_ms;
    uint64_t retention_ms = c->options.retention_ns / 1000000;
    struct checkpoint_object oldest;
    bool changed;
    t4_status status;

    if (c->options.filling != NULL && c->options.filling(c->options.arg)) {
        c->dirty = true; /* in a later round */
        return T4_OK;
    }
    changed = list_retire(&next, now_ms, retention_ms);
    if (list_oldest_serves(&next, now_ms, retention_ms)) {
        const struct chain_floor *place = &oldest.place;

        status = objectlog_fetch_checkpoint(
            c->log, &next.checkpoint[next.n_checkpoints - 1], &oldest, error);
        if (status != T4_OK)
            return status;
        if (place->next_slot > next.floor.next_slot)
            place = &next.floor;
        if (c->options.remembered != NULL &&
            c->options.remembered(c->options.arg) < place->last_index)
            c->dirty = true; /* in the next round */
        else if (place->next_slot > next.archive.next_slot) {
            next.archive = *place;
            changed = true;
        }
    }
    if (!changed)
        return T4_OK;
    status = publish_manifest(c, &next, error);
    c->dirty |= status == T4_OK;
    return status;
}

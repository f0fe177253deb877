/*
 * checkpoint.c - the checkpointer's thread: what is due when, and what becomes of failures.
 *
 * The thread sleeps until an accepted segment makes something due: enough log for a checkpoint, an
 * entry that is old enough, enough raw slots for an archive.  Where nothing is written nothing is
 * due, but for one look at the store a day.  A failure is shown, counted and tried again after a
 * pause: nothing that is served depends on this thread.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "checkpoint/checkpoint.h"

#include <inttypes.h>
#include <stdio.h>

#include "base/log.h"
#include "base/memory.h"
#include "checkpoint/checkpoint_int.h"

#define LEAST_NS (60 * SECOND)
#define COLLECT_EVERY 4u /* least intervals between two rounds */
#define DAY_NS (86400 * SECOND)
#define RETRY_NS (10 * SECOND)
#define RETRY_MAX_NS (300 * SECOND)

uint64_t
checkpointer_now(const struct checkpointer *c)
{
    return c->options.env->boot_ns(c->options.env->state);
}

/* --- what others ask ------------------------------------------------------------------------- */

struct checkpointer *
checkpointer_new(const struct checkpointer_options *options)
{
    struct checkpointer *c = mem_zalloc(sizeof *c);

    c->options = *options;
    if (c->options.least_interval_ns == 0)
        c->options.least_interval_ns =
            options->interval_ns < LEAST_NS ? options->interval_ns : LEAST_NS;
    if (c->options.fold_runs == 0)
        c->options.fold_runs = FOLD_RUNS;
    if (c->options.build_bytes == 0)
        c->options.build_bytes = BUILD_BYTES;
    mutex_init(&c->lock);
    condition_init(&c->wake);
    return c;
}

void
checkpointer_mark(struct checkpointer *c, const struct checkpoint_mark *mark)
{
    uint64_t now = checkpointer_now(c);

    mutex_lock(&c->lock);
    c->mark = *mark;
    c->bytes += mark->bytes;
    c->raw_bytes += mark->bytes;
    if (c->first_ns == 0)
        c->first_ns = now;
    condition_signal(&c->wake);
    mutex_unlock(&c->lock);
}

void
checkpointer_stop(struct checkpointer *c)
{
    mutex_lock(&c->lock);
    c->stop = true;
    if (c->log != NULL)
        objectlog_stop(c->log);
    condition_signal(&c->wake);
    mutex_unlock(&c->lock);
}

void
checkpointer_look(struct checkpointer *c, struct checkpoint_view *out)
{
    mutex_lock(&c->lock);
    *out = c->view;
    mutex_unlock(&c->lock);
}

/* --- what is due ------------------------------------------------------------------------------- */

static void
earlier(uint64_t *next, uint64_t at)
{
    if (at < *next)
        *next = at;
}

/* [lock] When the next checkpoint is due; UINT64_MAX: there is nothing to put into one. */
static uint64_t
checkpoint_at(const struct checkpointer *c, uint64_t now)
{
    uint64_t at, least = c->published_ns + c->options.least_interval_ns;

    if (c->first_ns == 0)
        return UINT64_MAX;
    at = c->bytes >= c->options.interval_bytes ? now
                                               : c->first_ns + c->options.interval_ns;
    return c->published_ns != 0 && at < least ? least : at;
}

/* [lock] When the next round of removal is due. */
static uint64_t
collect_at(const struct checkpointer *c)
{
    uint64_t day = c->listed_ns + DAY_NS;
    uint64_t at = c->collected_ns + COLLECT_EVERY * c->options.least_interval_ns;

    return c->dirty && at < day ? at : day;
}

/* [lock] */
static unsigned
due(const struct checkpointer *c, uint64_t now, uint64_t *sleep_ns)
{
    const struct checkpoint_object *newest;
    uint64_t next = UINT64_MAX, at;
    unsigned work = 0;

    if (c->stop)
        return WORK_STOP;
    if (c->retry_ns > now) {
        *sleep_ns = c->retry_ns - now;
        return 0;
    }
    if (c->log == NULL)
        return WORK_OPEN;
    newest = &objectlog_manifest(c->log)->newest;
    if (archive_is_due_locked(c))
        work |= WORK_ARCHIVE;
    at = checkpoint_at(c, now);
    earlier(&next, at);
    if (at <= now)
        work |= WORK_CHECKPOINT;
    /* Named by the next checkpoint: where nothing is written there is none. */
    if (!c->has_fold && c->first_ns != 0 &&
        fold_is_due(newest->run, newest->n_runs, (uint32_t)c->options.fold_runs))
        work |= WORK_FOLD;
    at = collect_at(c);
    earlier(&next, at);
    if (at <= now)
        work |= WORK_COLLECT;
    *sleep_ns = next - now;
    return work;
}

static unsigned
wait_for_work(struct checkpointer *c)
{
    unsigned work;
    uint64_t sleep_ns = 0;

    mutex_lock(&c->lock);
    while ((work = due(c, checkpointer_now(c), &sleep_ns)) == 0)
        condition_wait_for(&c->wake, &c->lock, sleep_ns);
    mutex_unlock(&c->lock);
    return work;
}

/* --- opening -------------------------------------------------------------------------------------- */

static void
show(struct checkpointer *c)
{
    const struct manifest_object *m = objectlog_manifest(c->log);
    const struct checkpoint_object *newest = &m->newest;
    struct metrics *metrics = c->options.metrics;
    uint64_t bytes = 0;

    for (uint32_t i = 0; i < newest->n_runs; i++)
        bytes += newest->run[i].bytes;
    mutex_lock(&c->lock);
    c->view.index = newest->index;
    c->view.revision = newest->revision;
    c->view.time_ms = newest->time_ms;
    c->view.runs = newest->n_runs;
    c->view.bytes = bytes;
    c->view.kept = m->n_checkpoints;
    c->view.archived = m->floor.next_slot;
    mutex_unlock(&c->lock);
    if (metrics == NULL)
        return;
    metric_set(metrics, METRIC_CHECKPOINT_INDEX, (int64_t)newest->index);
    metric_set(metrics, METRIC_CHECKPOINT_REVISION, newest->revision);
    metric_set(metrics, METRIC_CHECKPOINT_RUNS, newest->n_runs);
    metric_set(metrics, METRIC_CHECKPOINT_BYTES, (int64_t)bytes);
    metric_set(metrics, METRIC_CHECKPOINTS_KEPT, m->n_checkpoints);
}

/* What came since the newest checkpoint, before this process looked. */
static t4_status
look_back(struct checkpointer *c, struct error *error)
{
    const struct manifest_object *m = objectlog_manifest(c->log);
    const struct checkpoint_object *newest = &m->newest;
    struct env *env = c->options.env;
    uint64_t now = checkpointer_now(c), wall_ms, age_ns = 0, bytes, raw_bytes;
    struct checkpoint_mark mark;
    t4_status status = T4_OK;

    c->survey = m->n_checkpoints > 0 ? (struct survey){newest->index,
                                                       newest->revision,
                                                       newest->compacted,
                                                       newest->time_ms,
                                                       0,
                                                       0,
                                                       false}
                                     : (struct survey){.revision = 1, .compacted = -1};
    mutex_lock(&c->lock);
    mark = c->mark;
    bytes = c->bytes;
    raw_bytes = c->raw_bytes;
    c->floor_slot = m->floor.next_slot;
    mutex_unlock(&c->lock);
    if (mark.index > newest->index)
        status = publish_survey(c, mark.index, error);
    if (status != T4_OK)
        return status;
    wall_ms = env->wall_ns(env->state) / 1000000;
    if (c->survey.bytes > 0 && wall_ms > c->survey.first_time_ms)
        age_ns = (wall_ms - c->survey.first_time_ms) * 1000000;
    if (age_ns > c->options.interval_ns || age_ns >= now)
        age_ns = c->options.interval_ns < now ? c->options.interval_ns : now - 1;
    mutex_lock(&c->lock); /* marks that came meanwhile count on top */
    c->bytes += c->survey.bytes - bytes;
    c->raw_bytes += c->survey.bytes - raw_bytes;
    if (c->survey.bytes > 0)
        c->first_ns = now - age_ns;
    mutex_unlock(&c->lock);
    if (m->n_checkpoints == 0 && m->floor.next_slot == 0) {
        c->listed_ns = now; /* nothing that could have become garbage */
        c->collector.slots_are_known = true;
    } else {
        c->dirty = true;
    }
    return T4_OK;
}

static t4_status
open_log(struct checkpointer *c, struct error *error)
{
    struct objectlog_options options = {.env = c->options.env,
                                        .store = c->options.store,
                                        .incarnation = c->options.incarnation,
                                        .address = c->options.address,
                                        .timeout_ns = c->options.timeout_ns,
                                        .first_pause_ns = c->options.first_pause_ns};
    enum objectlog_found found;
    struct objectlog *log;
    t4_status status = objectlog_open(&options, &log, &found, error);

    if (status != T4_OK)
        return status;
    mutex_lock(&c->lock);
    c->log = log;
    if (c->stop)
        objectlog_stop(log);
    mutex_unlock(&c->lock);
    c->collector.log = log;
    c->collector.term = c->options.term;
    if (found != OBJECTLOG_COMPLETE || objectlog_manifest(log)->term != c->options.term)
        return error_set(error, T4_E_PRECONDITION,
                         "the manifest of %s is of term %" PRIu64
                         ", not of ours (%" PRIu64 "): another server leads",
                         object_url(c->options.store), objectlog_manifest(log)->term,
                         c->options.term);
    if (c->suspect)
        status = publish_without_damaged(c, error);
    if (status == T4_OK)
        status = look_back(c, error);
    if (status != T4_OK)
        return status;
    c->suspect = false;
    show(c);
    if (objectlog_manifest(log)->newest.index > 0 && c->options.covered != NULL)
        c->options.covered(c->options.arg, objectlog_manifest(log)->newest.index);
    return T4_OK;
}

static void
close_log(struct checkpointer *c)
{
    struct objectlog *log = c->log;

    mutex_lock(&c->lock);
    c->log = NULL;
    mutex_unlock(&c->lock);
    objectlog_close(log);
    c->collector.log = NULL;
}

/* --- working ------------------------------------------------------------------------------------------ */

t4_status
checkpointer_between(void *arg, struct error *error)
{
    struct checkpointer *c = arg;
    bool stop;

    mutex_lock(&c->lock);
    stop = c->stop;
    mutex_unlock(&c->lock);
    return stop ? error_set(error, T4_E_CANCELLED, "stopped") : T4_OK;
}

t4_status
checkpointer_between_archiving(void *arg, struct error *error)
{
    struct checkpointer *c = arg;
    t4_status status = checkpointer_between(c, error);

    while (status == T4_OK && archive_is_due(c))
        status = archive_step(c, error);
    return status;
}

static t4_status
checkpoint(struct checkpointer *c, struct error *error)
{
    struct checkpoint_mark mark;
    uint64_t bytes;
    bool by_time;
    t4_status status;

    mutex_lock(&c->lock);
    mark = c->mark;
    bytes = c->bytes;
    by_time = bytes < c->options.interval_bytes;
    mutex_unlock(&c->lock);
    status = publish_survey(c, mark.index, error);
    if (status != T4_OK)
        return status;
    if (!c->survey.worthy && by_time) {
        mutex_lock(&c->lock); /* looked at again an interval after the next segment */
        c->first_ns = c->mark.index > mark.index ? checkpointer_now(c) : 0;
        mutex_unlock(&c->lock);
        return T4_OK;
    }
    status = publish(c, &mark, error);
    if (status != T4_OK)
        return status;
    c->published_ns = checkpointer_now(c);
    mutex_lock(&c->lock);
    c->bytes -= bytes;
    c->first_ns = c->mark.index > mark.index ? c->published_ns : 0;
    mutex_unlock(&c->lock);
    show(c);
    if (c->options.covered != NULL)
        c->options.covered(c->options.arg, mark.index);
    return T4_OK;
}

static t4_status
collect_round(struct checkpointer *c, struct error *error)
{
    uint64_t now = checkpointer_now(c);
    bool all = c->listed_ns == 0 || now - c->listed_ns >= DAY_NS;
    struct gc_result before = c->collector.result;
    t4_status status;

    c->dirty = false;
    status = collect(&c->collector, all, error);
    if (status == T4_OK && !c->collector.result.pinned)
        status = publish_retirement(c, error);
    if (status != T4_OK) {
        c->dirty = true;
        return error_wrap(error, "removing what is not needed any more"), status;
    }
    c->collected_ns = now;
    if (all)
        c->listed_ns = now;
    if (c->options.metrics != NULL)
        metric_add(c->options.metrics, METRIC_CHECKPOINT_REMOVED,
                   (int64_t)(c->collector.result.objects - before.objects));
    show(c);
    return T4_OK;
}

t4_status
checkpointer_do(struct checkpointer *c, unsigned work, struct error *error)
{
    if (work & WORK_OPEN)
        return open_log(c, error);
    if (work & WORK_ARCHIVE)
        return archive_step(c, error);
    if (work & WORK_CHECKPOINT)
        return checkpoint(c, error);
    if (work & WORK_FOLD)
        return publish_fold(c, error);
    return collect_round(c, error);
}

/* --- outcomes ----------------------------------------------------------------------------------------- */

static void
note_failure(struct checkpointer *c, t4_status status, const struct error *error)
{
    uint64_t pause = RETRY_NS;

    for (unsigned i = 0; i < c->failures && pause < RETRY_MAX_NS; i++)
        pause *= 2;
    c->failures++;
    c->suspect |= status == T4_E_CORRUPT;
    c->retry_ns = checkpointer_now(c) + (pause < RETRY_MAX_NS ? pause : RETRY_MAX_NS);
    mutex_lock(&c->lock);
    c->view.failing = true;
    snprintf(c->view.why, sizeof c->view.why, "%s", error->message);
    mutex_unlock(&c->lock);
    if (c->options.metrics != NULL)
        metric_add(c->options.metrics, METRIC_CHECKPOINT_FAILURES, 1);
    LOG_WARN("checkpointing does not get on; trying again", "reason", error->message,
             "hint", error->hint, NULL);
    /* What it knew may be wrong now: begin again with what the store says. */
    close_log(c);
}

static void
note_success(struct checkpointer *c)
{
    if (c->failures == 0)
        return;
    c->failures = 0;
    mutex_lock(&c->lock);
    c->view.failing = false;
    c->view.why[0] = '\0';
    mutex_unlock(&c->lock);
}

static void *
checkpoint_main(void *arg)
{
    struct checkpointer *c = arg;
    unsigned work;

    thread_yield_to_others();
    while (((work = wait_for_work(c)) & WORK_STOP) == 0) {
        struct error error = {0};
        t4_status status = checkpointer_do(c, work, &error);

        if (status == T4_E_PRECONDITION) {
            if (c->options.deposed != NULL)
                c->options.deposed(c->options.arg, &error);
            break;
        }
        if (status == T4_OK && !(work & WORK_OPEN))
            note_success(c);
        else if (status != T4_OK && checkpointer_between(c, NULL) == T4_OK)
            note_failure(c, status, &error);
    }
    return NULL;
}

/* --- life ------------------------------------------------------------------------------------------------ */

void
checkpointer_start(struct checkpointer *c, const struct checkpoint_mark *mark)
{
    c->mark = *mark;
    c->mark.bytes = 0;
    c->started = true;
    thread_start(&c->thread, "t4-checkpoint", checkpoint_main, c);
}

void
checkpointer_free(struct checkpointer *c)
{
    if (c == NULL)
        return;
    checkpointer_stop(c);
    if (c->started)
        thread_join(&c->thread);
    objectlog_close(c->log);
    collector_free(&c->collector);
    condition_destroy(&c->wake);
    mutex_destroy(&c->lock);
    mem_free(c);
}

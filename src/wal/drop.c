/*
 * drop.c - deleting the oldest segments of the log.
 *
 * The files go one by one, the oldest first, and the directory is synced after each: a crash
 * leaves a log without some of its oldest segments, never one with a hole, which recovery would
 * take for a loss.  In memory a dropped segment keeps its place, so that positions stay what
 * they are.
 *
 * A segment that a reader stands in, or has still to come to, is not dropped.
 *
 * Entry point: wal_drop_below().  Runs on: any one thread at a time.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "base/memory.h"
#include "wal/wal_int.h"

/*
 * [w->lock] The oldest segment if it may go, and nobody finds it any more; else NULL.  One that
 * could not be deleted before is given again.
 */
static struct segment *
take_oldest(struct wal *w, uint64_t index, uint64_t keep_bytes)
{
    struct segment *s;
    uint64_t bytes = 0;

    if (w->active == SIZE_MAX || w->dropped >= w->active)
        return NULL;
    for (const struct wal_reader *r = w->readers; r != NULL; r = r->next_reader)
        if (r->position <= w->dropped)
            return NULL;
    for (size_t i = w->dropped + 1; i <= w->active; i++)
        bytes += w->segments[i]->bytes;
    s = w->segments[w->dropped];
    if (index > atomic_load(&w->synced))
        index = atomic_load(&w->synced); /* the sync thread still has its file open */
    /* The newest entry stays, whatever is known of it: starts look at its revision. */
    if (bytes < keep_bytes ||
        (s->live && (s->last_index > index || s->last_index >= atomic_load(&w->written))))
        return NULL;
    s->live = false;
    s->points.count = 0;
    return s;
}

t4_status
wal_drop_below(struct wal *w, uint64_t index, uint64_t keep_bytes, struct error *error)
{
    struct env *env = w->env;
    char path[PATH_BYTES];

    for (;;) {
        struct segment *s;
        t4_status status;
        size_t left;

        mutex_lock(&w->lock);
        s = take_oldest(w, index, keep_bytes);
        mutex_unlock(&w->lock);
        if (s == NULL)
            return T4_OK;
        segment_path(w, s->number, path);
        status = env->unlink(env->state, path, error);
        if (status == T4_OK || status == T4_E_NOTFOUND)
            status = env->sync_dir(env->state, w->options.dir, error);
        if (status != T4_OK)
            return status;
        mutex_lock(&w->lock);
        w->dropped++;
        if (w->region < w->dropped)
            w->region = w->dropped;
        mem_free(s->points.at);
        s->points = (struct points){0};
        left = w->count - w->dropped;
        mutex_unlock(&w->lock);
        if (w->options.metrics != NULL)
            metric_set(w->options.metrics, METRIC_WAL_SEGMENTS, (int64_t)left);
    }
}

/*
 * space.c - room for what is going to be written: promises, the segment ahead, the
 * reserve.
 *
 * Life of NOSPACE: the next segment (or the reserve file) cannot be created -> the state
 * is raised and the reserve file removed, which gives log and engine room for deletes and
 * compactions -> every wal_prepare() tries again: first the segment, then the reserve
 * file -> when both are there the state ends.  While it lasts, promises are given to
 * urgent requests only, and only for room in segments that exist.
 *
 * Entry points: wal_reserve(), wal_release(), wal_nospace(), wal_give_up_reserve(),
 * wal_wants_segment(), wal_prepare(), wal_segments(); segment_ready() for the sync thread.
 * Runs on: any thread; files are made with create_lock held.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <inttypes.h>
#include <stdio.h>

#include "base/memory.h"
#include "wal/wal_int.h"

#define RESERVE_NAME "reserve"
#define MIN_BYTES (SEGMENT_HEADER_BYTES + START_FRAME_BYTES + MARK_FRAME_BYTES)

/* --- promises --- */

/* Bytes for frames in the current segment, and in the one ahead (0: there is none). */
static void
room(struct wal *w, uint64_t *current, uint64_t *ahead)
{
    const struct segment *s;

    mutex_lock(&w->lock);
    s = w->segments[w->active];
    *current = s->bytes - s->end - MARK_FRAME_BYTES;
    if (*current > s->bytes)
        *current = 0; /* a mark stands at the very end */
    *ahead = 0;
    if (w->active + 1 < w->count && w->segments[w->active + 1]->clean)
        *ahead = w->segments[w->active + 1]->bytes - SEGMENT_HEADER_BYTES -
                 START_FRAME_BYTES - MARK_FRAME_BYTES;
    mutex_unlock(&w->lock);
}

t4_status
wal_reserve(struct wal *w, size_t bytes, bool urgent)
{
    size_t largest = atomic_load(&w->largest_promised), sum;
    uint64_t current, ahead;

    if (atomic_load(&w->dead))
        return T4_E_IO;
    while (bytes > largest &&
           !atomic_compare_exchange_weak(&w->largest_promised, &largest, bytes))
        ;
    if (!atomic_load(&w->nospace)) {
        atomic_fetch_add(&w->promised, bytes);
        return T4_OK;
    }
    if (!urgent)
        return T4_E_NOSPACE;
    room(w, &current, &ahead);
    sum = atomic_fetch_add(&w->promised, bytes) + bytes;
    /* A frame that does not fit the rest of a segment leaves it empty. */
    if (sum <= current ||
        (ahead > 0 && sum + atomic_load(&w->largest_promised) <= current + ahead))
        return T4_OK;
    wal_release(w, bytes);
    return T4_E_NOSPACE;
}

void
wal_release(struct wal *w, size_t bytes)
{
    size_t promised = atomic_load(&w->promised), left;

    do
        left = promised > bytes ? promised - bytes : 0;
    while (!atomic_compare_exchange_weak(&w->promised, &promised, left));
    if (left == 0)
        atomic_store(&w->largest_promised, 0);
}

bool
wal_nospace(struct wal *w)
{
    return atomic_load(&w->nospace);
}

/* --- segments --- */

static void
install(struct wal *w, size_t position, struct segment *s)
{
    struct segment *replaced = NULL; /* nobody but the holder of create_lock knows it */
    size_t count;

    mutex_lock(&w->lock);
    if (position == w->count) {
        if (w->count == w->capacity) {
            w->capacity = w->capacity * 2 + 16;
            w->segments = mem_realloc(w->segments, w->capacity * sizeof *w->segments);
        }
        w->count++;
    } else {
        replaced = w->segments[position];
    }
    w->segments[position] = s;
    count = w->count - w->dropped;
    mutex_unlock(&w->lock);
    segment_free(w, replaced);
    if (w->options.metrics != NULL)
        metric_set(w->options.metrics, METRIC_WAL_SEGMENTS, (int64_t)count);
}

/*
 * [create_lock] position SIZE_MAX: the one behind the current segment.  Which one that is
 * and whether it is spare is looked at under one hold of the lock: a moment later the
 * sync thread may have moved into it, and a segment in use must never be replaced.
 */
static t4_status
make_ready(struct wal *w, size_t position, uint64_t bytes, struct segment **out,
           struct error *error)
{
    struct segment *s = NULL;
    bool ready = false;
    uint64_t number;
    t4_status status;

    if (bytes < MIN_BYTES)
        bytes = MIN_BYTES;
    mutex_lock(&w->lock);
    if (position == SIZE_MAX)
        position = w->active + 1;
    WAL_ASSERT(position <= w->count);
    if (position < w->count) {
        s = w->segments[position];
        ready = s->clean && s->bytes >= bytes;
    }
    number = w->count > 0 ? w->segments[0]->number + position : 1;
    mutex_unlock(&w->lock);
    *out = s;
    if (ready)
        return T4_OK;
    if (bytes < w->options.segment_bytes)
        bytes = w->options.segment_bytes;
    status = segment_create(w, number, bytes, &s, error);
    if (status == T4_OK) {
        install(w, position, s);
        *out = s;
    }
    return status;
}

/*
 * For the sync thread, without create_lock, which wal_prepare() may hold for seconds: a
 * spare segment that is ready is replaced by nobody else.
 */
static bool
find_ready(struct wal *w, size_t position, uint64_t bytes, struct segment **out)
{
    bool ready = false;

    mutex_lock(&w->lock);
    if (position < w->count) {
        *out = w->segments[position];
        ready = (*out)->clean && (*out)->bytes >= (bytes > MIN_BYTES ? bytes : MIN_BYTES);
    }
    mutex_unlock(&w->lock);
    return ready;
}

t4_status
segment_ready(struct wal *w, size_t position, uint64_t bytes, struct segment **out,
              struct error *error)
{
    t4_status status;

    if (find_ready(w, position, bytes, out))
        return segment_open(w, *out, error);
    mutex_lock(&w->create_lock);
    status = make_ready(w, position, bytes, out, error);
    if (status == T4_E_NOSPACE && reserve_give_up(w))
        status = make_ready(w, position, bytes, out, error);
    if (status == T4_OK)
        status = segment_open(w, *out, error);
    mutex_unlock(&w->create_lock);
    if (status == T4_E_NOSPACE)
        error_hint(error, "free space on the disk of %s, or delete keys and compact",
                   w->options.dir);
    return status;
}

uint64_t
wal_segments(struct wal *w)
{
    uint64_t n;

    mutex_lock(&w->lock);
    n = w->count - w->dropped;
    mutex_unlock(&w->lock);
    return n;
}

/* --- the reserve file --- */

void
reserve_check(struct wal *w)
{
    char path[PATH_BYTES];
    struct env_stat st;

    wal_path(w, path, RESERVE_NAME);
    atomic_store(&w->reserve_present,
                 w->options.reserve_bytes > 0 &&
                     w->env->stat(w->env->state, path, &st, NULL) == T4_OK &&
                     st.size >= w->options.reserve_bytes);
}

bool
reserve_give_up(struct wal *w)
{
    char path[PATH_BYTES];

    atomic_store(&w->nospace, true);
    atomic_store(&w->wants, true);
    if (!atomic_exchange(&w->reserve_present, false))
        return false;
    wal_path(w, path, RESERVE_NAME);
    return w->env->unlink(w->env->state, path, NULL) == T4_OK;
}

void
wal_give_up_reserve(struct wal *w)
{
    mutex_lock(&w->create_lock);
    reserve_give_up(w);
    mutex_unlock(&w->create_lock);
}

/* [create_lock] */
static t4_status
fill_reserve(struct wal *w, struct error *error)
{
    struct env *env = w->env;
    char path[PATH_BYTES], temporary[PATH_BYTES];
    struct env_file *file;
    uint64_t bytes;
    t4_status status;

    /* A try that must fail would take the room that the engine needs for deletes. */
    if (atomic_load(&w->nospace)) {
        status = env->free_space(env->state, w->options.dir, &bytes, error);
        if (status != T4_OK)
            return status;
        if (bytes < w->options.reserve_bytes + w->options.segment_bytes)
            return error_set(error, T4_E_NOSPACE,
                             "the disk of %s has %" PRIu64
                             " bytes left, too few for the reserve file",
                             w->options.dir, bytes);
    }
    wal_path(w, path, RESERVE_NAME);
    wal_path(w, temporary, RESERVE_NAME ".tmp");
    status = env->open(env->state, temporary, ENV_CREATE, &file, error);
    if (status != T4_OK)
        return status;
    status = fill_zeros(w, file, 0, w->options.reserve_bytes, error);
    if (status == T4_OK)
        status = env->sync(env->state, file, error);
    env->close(env->state, file);
    if (status == T4_OK)
        status = env->rename(env->state, temporary, path, error);
    if (status != T4_OK) {
        env->unlink(env->state, temporary, NULL);
        return status;
    }
    atomic_store(&w->reserve_present, true);
    return T4_OK;
}

/* --- ahead of need --- */

bool
wal_wants_segment(struct wal *w)
{
    return atomic_load(&w->wants) && !atomic_load(&w->dead);
}

/* [create_lock] */
static t4_status
prepare(struct wal *w, struct error *error)
{
    struct segment *s;
    t4_status status;

    status = make_ready(w, SIZE_MAX, 0, &s, error);
    if (status == T4_OK && w->options.reserve_bytes > 0 &&
        !atomic_load(&w->reserve_present))
        status = fill_reserve(w, error);
    return status;
}

t4_status
wal_prepare(struct wal *w, struct error *error)
{
    t4_status status;

    status = wal_check_alive(w, error);
    if (status != T4_OK)
        return status;
    mutex_lock(&w->create_lock);
    /* Before looking, so that a roll in the meantime sets it again. */
    atomic_store(&w->wants, false);
    status = prepare(w, error);
    if (status == T4_OK)
        atomic_store(&w->nospace, false);
    else if (status == T4_E_NOSPACE)
        reserve_give_up(w);
    else
        status = wal_dead(w, error);
    mutex_unlock(&w->create_lock);
    if (status == T4_E_NOSPACE)
        error_hint(error, "free space on the disk of %s, or delete keys and compact",
                   w->options.dir);
    return status;
}

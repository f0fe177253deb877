/*
 * append.c - beginning to append, writing groups, syncing, marks.
 *
 * A group is planned first: which of its frames go to which segment, and are those
 * segments there?  Only then is anything written, so that a full disk, which shows when a
 * segment is created, leaves the log as it was.  Should writing itself meet a full disk
 * (a file system that copies on write), what was written is overwritten with zeros and
 * synced: nothing of a group that was refused may come back.
 *
 * Entry points: wal_start(), wal_group_*(), wal_write(), wal_sync(), wal_mark(),
 * wal_roll(), wal_close().  Runs on the sync thread (wal_group_*: the owner of the
 * group).
 *
 * Invariants
 *  (1) synced_through in a frame is an index that was durable before it was written
 *  (2) a frame is written only at a place where everything from there on is zero or was
 *      written by this process since wal_start()
 *  (3) room for a mark is left in every segment
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <inttypes.h>
#include <stdio.h>

#include "base/memory.h"
#include "fmt/entry.h"
#include "wal/wal_int.h"

t4_status
wal_dead(struct wal *w, struct error *error)
{
    if (atomic_exchange(&w->dead, true)) {
        if (error != NULL)
            error->status = T4_E_IO;
        return T4_E_IO;
    }
    if (error != NULL) {
        error->status = T4_E_IO;
        error_wrap(error, "the log cannot go on");
        error_hint(error,
                   "after a failed write or sync nothing about the file is known any "
                   "more: check the disk and start again");
    }
    return T4_E_IO;
}

t4_status
wal_check_alive(struct wal *w, struct error *error)
{
    t4_status status;

    if (!atomic_load(&w->dead))
        return T4_OK;
    status = error_set(error, T4_E_IO, "the log in %s failed before", w->options.dir);
    error_hint(error, "check the disk and start again");
    return status;
}

/* --- starting --- */

struct leftovers {
    char **names;
    size_t count;
};

static void
take_leftover(void *arg, const char *name)
{
    struct leftovers *l = arg;
    size_t n = strlen(name);
    uint64_t number;
    char stem[32];

    if (n < 4 || n >= sizeof stem || strcmp(name + n - 4, ".tmp") != 0)
        return;
    memcpy(stem, name, n - 4);
    stem[n - 4] = '\0';
    if (!segment_name_parse(stem, &number) && strcmp(stem, "reserve") != 0)
        return;
    l->names = mem_realloc(l->names, (l->count + 1) * sizeof *l->names);
    l->names[l->count++] = mem_strdup(name);
}

/* Half-made files of an earlier life. */
static t4_status
remove_leftovers(struct wal *w, struct error *error)
{
    struct leftovers l = {0};
    char path[PATH_BYTES];
    t4_status status;

    status = w->env->list(w->env->state, w->options.dir, take_leftover, &l, error);
    for (size_t i = 0; i < l.count; i++) {
        wal_path(w, path, l.names[i]);
        if (status == T4_OK)
            status = w->env->unlink(w->env->state, path, error);
        mem_free(l.names[i]);
    }
    mem_free(l.names);
    return status;
}

static t4_status
prepare_dir(struct wal *w, struct error *error)
{
    char parent[PATH_BYTES];
    char *slash;
    t4_status status;

    status = w->env->mkdir(w->env->state, w->options.dir, error);
    if (status != T4_OK)
        return status;
    snprintf(parent, sizeof parent, "%s", w->options.dir);
    slash = strrchr(parent, '/');
    if (slash == NULL)
        strcpy(parent, ".");
    else
        slash[slash == parent] = '\0';
    /* Also when it was there: an earlier life may have ended before it came to this. */
    status = w->env->sync_dir(w->env->state, parent, error);
    if (status != T4_OK)
        return wal_dead(w, error);
    return remove_leftovers(w, error);
}

/* Writes and syncs the start frame in a segment that is open. */
static t4_status
write_start(struct wal *w, struct segment *s, uint64_t offset, const struct frame *start,
            struct error *error)
{
    t4_status status;

    buffer_clear(&w->scratch);
    frame_append_start(&w->scratch, start);
    frame_finish(w->scratch.data, s->salt, offset, start->first_index - 1,
                 w->object_frontier);
    status = w->env->pwrite(w->env->state, s->file, w->scratch.data, w->scratch.len,
                            offset, error);
    if (status == T4_E_NOSPACE)
        return status;
    if (status == T4_OK)
        status = w->env->datasync(w->env->state, s->file, error);
    return status == T4_OK ? T4_OK : wal_dead(w, error);
}

static void
begin_segment(struct wal *w, struct segment *s, const struct frame *start)
{
    s->started = s->live = s->indexed = true;
    s->clean = false;
    s->generation = w->generation;
    s->term = w->term;
    s->log_end = start->log_end;
    s->first_index = start->first_index;
    s->before_revision = start->revision;
    s->last_index = start->first_index - 1;
}

t4_status
wal_start(struct wal *w, uint64_t generation, uint64_t term, struct error *error)
{
    uint64_t last = atomic_load(&w->written), offset = SEGMENT_HEADER_BYTES;
    bool gap = w->flushed > last, begins = gap || !w->continues;
    size_t position = w->active;
    struct segment *s = NULL;
    struct frame start;
    t4_status status;

    status = wal_check_alive(w, error);
    if (status == T4_OK)
        status = prepare_dir(w, error);
    if (status != T4_OK)
        return status;
    reserve_check(w);
    if (!begins) {
        s = w->segments[position];
        offset = s->end;
        begins = offset + START_FRAME_BYTES + MARK_FRAME_BYTES > s->bytes;
    }
    if (begins) {
        offset = SEGMENT_HEADER_BYTES;
        position = position == SIZE_MAX ? 0 : position + 1;
        status = segment_ready(w, position, 0, &s, error);
    } else {
        status = segment_open(w, s, error);
    }
    if (status != T4_OK)
        return status;

    start = (struct frame){.generation = generation,
                           .term = term,
                           .log_end = last,
                           .first_index = gap ? w->flushed + 1 : last + 1,
                           .revision = gap ? -1 : w->last_revision};
    w->generation = generation;
    w->term = term;
    status = write_start(w, s, offset, &start, error);
    if (status != T4_OK)
        return status;

    mutex_lock(&w->lock);
    if (begins)
        begin_segment(w, s, &start);
    if (gap)
        w->region = position;
    s->end = offset + START_FRAME_BYTES;
    w->active = position;
    mutex_unlock(&w->lock);
    w->last_revision = start.revision;
    w->marked = true;
    w->continues = false; /* started again (another term): in a segment of its own */
    atomic_store(&w->written, start.first_index - 1);
    atomic_store(&w->synced, start.first_index - 1);
    atomic_store(&w->wants, true);
    return T4_OK;
}

void
wal_close(struct wal *w)
{
    if (w == NULL)
        return;
    for (size_t i = 0; i < w->count; i++)
        segment_free(w, w->segments[i]);
    mem_free(w->segments);
    mem_free(w->unsynced);
    mem_free(w->parts);
    buffer_free(&w->scratch);
    mutex_destroy(&w->lock);
    mutex_destroy(&w->create_lock);
    mem_free((char *)w->options.dir);
    mem_free(w);
}

/* --- groups --- */

void
wal_group_add(struct wal_group *g, uint64_t index, int64_t revision,
              struct t4_slice entry)
{
    WAL_ASSERT(index > 0 && (g->last_index == 0 || index == g->last_index + 1));
    if (g->last_index == 0) {
        g->first_index = index;
        g->first_revision = revision;
    }
    g->last_index = index;
    g->entries++;
    frame_append_entry(&g->frames, entry);
}

void
wal_group_clear(struct wal_group *g)
{
    buffer_clear(&g->frames);
    g->first_index = g->last_index = 0;
    g->first_revision = 0;
    g->entries = 0;
}

void
wal_group_free(struct wal_group *g)
{
    buffer_free(&g->frames);
    *g = (struct wal_group){0};
}

/* --- writing --- */

static bool
decode_head(const uint8_t *frame, struct entry *e)
{
    struct byte_reader r =
        reader_of(slice_of(frame + FRAME_HEADER_BYTES + 1, get_u32le(frame) - 1));

    return entry_decode_head(&r, e);
}

static struct part *
add_part(struct wal *w, struct segment *s, size_t position, uint64_t offset, size_t from)
{
    struct part *p;

    if (w->part_count == w->part_capacity) {
        w->part_capacity = w->part_capacity * 2 + 4;
        w->parts = mem_realloc(w->parts, w->part_capacity * sizeof *w->parts);
    }
    p = &w->parts[w->part_count++];
    *p = (struct part){.segment = s,
                       .position = position,
                       .from = from,
                       .to = from,
                       .offset = offset,
                       .end = offset};
    return p;
}

/* Continues the plan in the next segment, which is created if need be. */
static t4_status
plan_roll(struct wal *w, uint64_t last, int64_t revision, size_t from, size_t frame,
          struct part **out, struct error *error)
{
    size_t position = (*out)->position + 1;
    struct segment *s;
    struct part *p;
    t4_status status;

    status = segment_ready(
        w, position, SEGMENT_HEADER_BYTES + START_FRAME_BYTES + frame + MARK_FRAME_BYTES,
        &s, error);
    if (status != T4_OK)
        return status;
    p = add_part(w, s, position, SEGMENT_HEADER_BYTES + START_FRAME_BYTES, from);
    p->starts = true;
    p->log_end = last;
    p->before_revision = revision;
    *out = p;
    return T4_OK;
}

/* *revision: in and out, of the newest entry. */
static t4_status
plan(struct wal *w, const struct wal_group *g, bool roll, int64_t *revision,
     struct error *error)
{
    uint64_t last = atomic_load(&w->written);
    size_t position = w->active;
    struct segment *active;
    struct part *p;

    mutex_lock(&w->lock);
    active = w->segments[position];
    mutex_unlock(&w->lock);
    w->part_count = 0;
    p = add_part(w, active, position, active->end, 0);
    roll = roll && active->last_index >= active->first_index;
    for (size_t at = 0, size; at < g->frames.len; at += size) {
        const uint8_t *frame = g->frames.data + at;
        struct entry e;

        size = frame_size_at(frame);
        if (!decode_head(frame, &e) || e.index != last + 1)
            return error_set(error, T4_E_INVALID,
                             "the log ends at index %" PRIu64
                             ", but what is to be written does not follow it",
                             last);
        if (roll || p->end + size + MARK_FRAME_BYTES > p->segment->bytes) {
            t4_status status = plan_roll(w, last, *revision, at, size, &p, error);

            if (status != T4_OK)
                return status;
            roll = false;
        }
        p->to = at + size;
        p->end += size;
        p->last_index = last = e.index;
        *revision = e.revision;
    }
    return T4_OK;
}

static t4_status
write_part(struct wal *w, struct wal_group *g, const struct part *p, struct error *error)
{
    struct segment *s = p->segment;
    uint64_t synced = atomic_load(&w->synced);
    t4_status status;

    if (p->starts) {
        struct frame start = {.generation = w->generation,
                              .term = w->term,
                              .log_end = p->log_end,
                              .first_index = p->log_end + 1,
                              .revision = p->before_revision};

        buffer_clear(&w->scratch);
        frame_append_start(&w->scratch, &start);
        frame_finish(w->scratch.data, s->salt, SEGMENT_HEADER_BYTES, synced,
                     w->object_frontier);
        status = w->env->pwrite(w->env->state, s->file, w->scratch.data, w->scratch.len,
                                SEGMENT_HEADER_BYTES, error);
        if (status != T4_OK)
            return status;
    }
    if (p->from == p->to)
        return T4_OK;
    for (size_t at = p->from; at < p->to; at += frame_size_at(g->frames.data + at))
        frame_finish(g->frames.data + at, s->salt, p->offset + (at - p->from), synced,
                     w->object_frontier);
    return w->env->pwrite(w->env->state, s->file, g->frames.data + p->from,
                          p->to - p->from, p->offset, error);
}

/* The disk was full in the middle of a group: leaves no trace of its first n parts. */
static t4_status
undo(struct wal *w, size_t n, struct error *error)
{
    for (size_t i = 0; i < n; i++) {
        const struct part *p = &w->parts[i];
        uint64_t from = p->starts ? SEGMENT_HEADER_BYTES : p->offset;
        struct error own;
        t4_status status;

        status = fill_zeros(w, p->segment->file, from, p->end - from, &own);
        if (status == T4_OK)
            status = w->env->datasync(w->env->state, p->segment->file, &own);
        if (status != T4_OK) {
            if (error != NULL)
                *error = own;
            return wal_dead(w, error);
        }
    }
    return T4_E_NOSPACE;
}

static void
add_points(struct segment *s, const struct part *p, const struct wal_group *g)
{
    uint64_t offset = p->offset;

    for (size_t at = p->from, size; at < p->to; at += size, offset += size) {
        const struct points *known = &s->points;
        struct entry e;

        size = frame_size_at(g->frames.data + at);
        if (offset <
            (known->count > 0 ? known->at[known->count - 1].offset : 0) + POINT_DISTANCE)
            continue;
        if (decode_head(g->frames.data + at, &e))
            points_add(&s->points, offset, e.index, e.revision);
    }
}

/* The group is in the files: readers may see it. */
static void
commit_plan(struct wal *w, const struct wal_group *g)
{
    mutex_lock(&w->lock);
    for (size_t i = 0; i < w->part_count; i++) {
        const struct part *p = &w->parts[i];
        struct segment *s = p->segment;

        if (p->starts) {
            struct frame start = {.log_end = p->log_end,
                                  .first_index = p->log_end + 1,
                                  .revision = p->before_revision};

            begin_segment(w, s, &start);
        }
        if (p->from == p->to)
            continue;
        add_points(s, p, g);
        s->end = p->end;
        s->last_index = p->last_index;
        if (s->before_revision < 0 && g->first_index == s->first_index)
            s->before_revision = g->first_revision;
        if (!s->dirty) {
            if (w->unsynced_count == w->unsynced_capacity) {
                w->unsynced_capacity = w->unsynced_capacity * 2 + 4;
                w->unsynced = mem_realloc(w->unsynced, w->unsynced_capacity *
                                                           sizeof(struct segment *));
            }
            w->unsynced[w->unsynced_count++] = s;
            s->dirty = true;
        }
    }
    if (w->parts[w->part_count - 1].position != w->active) {
        w->active = w->parts[w->part_count - 1].position;
        atomic_store(&w->wants, true);
    }
    mutex_unlock(&w->lock);
    atomic_store_explicit(&w->written, g->last_index, memory_order_release);
}

t4_status
wal_write(struct wal *w, struct wal_group *g, struct error *error)
{
    int64_t revision = w->last_revision;
    struct error local;
    uint64_t begin;
    bool roll;
    t4_status status;

    if (error == NULL)
        error = &local;
    status = wal_check_alive(w, error);
    if (status != T4_OK || g->last_index == 0)
        return status;
    begin = w->options.metrics != NULL ? w->env->boot_ns(w->env->state) : 0;
    roll = atomic_exchange(&w->roll, false);
    status = plan(w, g, roll, &revision, error);
    for (size_t i = 0; i < w->part_count && status == T4_OK; i++) {
        status = write_part(w, g, &w->parts[i], error);
        if (status == T4_E_NOSPACE) {
            reserve_give_up(w);
            status = undo(w, i + 1, error);
        } else if (status != T4_OK) {
            return wal_dead(w, error);
        }
    }
    if (status != T4_OK) {
        if (roll)
            atomic_store(&w->roll, true);
        return status;
    }
    commit_plan(w, g);
    w->last_revision = revision;
    w->marked = false;
    wal_release(w, g->frames.len);
    if (w->options.metrics != NULL) {
        metric_add(w->options.metrics, METRIC_WAL_BYTES, (int64_t)g->frames.len);
        metric_add(w->options.metrics, METRIC_WAL_ENTRIES, g->entries);
        metric_observe(w->options.metrics, METRIC_WAL_WRITE,
                       w->env->boot_ns(w->env->state) - begin);
    }
    return T4_OK;
}

void
wal_set_object_frontier(struct wal *w, uint64_t index)
{
    atomic_store_explicit(&w->object_frontier, index, memory_order_relaxed);
}

void
wal_roll(struct wal *w)
{
    atomic_store(&w->roll, true);
}

/* --- syncing --- */

static t4_status
datasync(struct wal *w, struct segment *s, struct error *error)
{
    uint64_t begin = w->options.metrics != NULL ? w->env->boot_ns(w->env->state) : 0;
    t4_status status = w->env->datasync(w->env->state, s->file, error);

    if (status != T4_OK)
        return wal_dead(w, error);
    if (w->options.metrics != NULL)
        metric_observe(w->options.metrics, METRIC_WAL_FSYNC,
                       w->env->boot_ns(w->env->state) - begin);
    return T4_OK;
}

t4_status
wal_sync(struct wal *w, uint64_t *synced, struct error *error)
{
    uint64_t written = atomic_load(&w->written);
    size_t position = w->active;
    struct segment *active;
    t4_status status;

    status = wal_check_alive(w, error);
    if (status != T4_OK)
        return status;
    mutex_lock(&w->lock);
    active = w->segments[position];
    mutex_unlock(&w->lock);
    for (size_t i = 0; i < w->unsynced_count; i++) {
        struct segment *s = w->unsynced[i];

        status = datasync(w, s, error);
        if (status != T4_OK)
            return status;
        s->dirty = false;
        if (s != active) {
            w->env->close(w->env->state, s->file);
            s->file = NULL;
        }
    }
    w->unsynced_count = 0;
    atomic_store(&w->synced, written);
    if (synced != NULL)
        *synced = written;
    return T4_OK;
}

t4_status
wal_mark(struct wal *w, struct error *error)
{
    struct segment *s;
    t4_status status;

    status = wal_sync(w, NULL, error);
    if (status != T4_OK || w->marked)
        return status;
    mutex_lock(&w->lock);
    s = w->segments[w->active];
    mutex_unlock(&w->lock);
    WAL_ASSERT(s->end + MARK_FRAME_BYTES <= s->bytes);
    buffer_clear(&w->scratch);
    frame_append_mark(&w->scratch);
    frame_finish(w->scratch.data, s->salt, s->end, atomic_load(&w->synced),
                 w->object_frontier);
    status = w->env->pwrite(w->env->state, s->file, w->scratch.data, w->scratch.len,
                            s->end, error);
    if (status == T4_E_NOSPACE)
        return status; /* the next frame overwrites all of what was written */
    if (status != T4_OK)
        return wal_dead(w, error);
    status = datasync(w, s, error);
    if (status != T4_OK)
        return status;
    mutex_lock(&w->lock);
    s->end += MARK_FRAME_BYTES;
    mutex_unlock(&w->lock);
    w->marked = true;
    return T4_OK;
}

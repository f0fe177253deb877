/*
 * recover.c - opening a log: which frames make it up, what is torn, what is corrupt.
 *
 * First pass: every segment's header and first frame; then every frame from the segment
 * that holds `flushed` on.  The scan follows the log (indexes without a hole, segments in
 * order of their numbers) up to the first place where it cannot go on, and from there
 * only searches for valid frames, because a synced_through behind a bad frame tells
 * damage from a torn tail. Nothing is replayed before all of this is known.  Second pass:
 * replay, with a reader.
 *
 * Void: a start frame says at which index the log before it ends (log_end).  Whatever
 * older segments hold above the smallest log_end of all later start frames is garbage
 * that an earlier recovery left behind.  It is not looked at: frames that were durable
 * are never voided, so it cannot hold a synced_through that matters.
 *
 * Entry point: wal_open().  Runs on the caller's thread; no other thread knows the log
 * yet.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <inttypes.h>

#include "base/memory.h"
#include "fmt/entry.h"
#include "wal/wal_int.h"

#define SCAN_CHUNK (1024u * 1024)

struct scan {
    struct wal *w;
    struct error *error;
    struct wal_recovered *found;
    uint64_t *bound; /* by position: entries at or above it are void in that segment */
    size_t first;    /* position where the scan begins */
    uint64_t flushed;
    uint64_t ceiling; /* no index in this log can be as high */
    bool begun;       /* the first start frame was taken */
    uint64_t end;     /* index of the newest entry so far */
    size_t tail;      /* position of the segment that holds it */
    uint64_t synced;  /* largest synced_through seen */
    bool stopped;     /* the log could not be followed any further: */
    uint64_t bad_index, bad_offset;
    size_t bad_position;
};

/* --- which files there are --- */

static t4_status
load_segments(struct wal *w, const uint64_t *numbers, size_t count, struct error *error)
{
    char path[PATH_BYTES];

    w->capacity = count;
    w->segments = mem_zalloc(count * sizeof(struct segment *));
    for (size_t i = 0; i < count; i++) {
        t4_status status;

        if (i > 0 && numbers[i] != numbers[i - 1] + 1) {
            segment_path(w, numbers[i - 1] + 1, path);
            status = error_set(
                error, T4_E_CORRUPT,
                "segment %s of the log is missing, although later ones exist", path);
            error_hint(error, RESTORE_HINT);
            return status;
        }
        status = segment_load(w, numbers[i], &w->segments[i], error);
        if (status != T4_OK)
            return status;
        w->count++;
    }
    return T4_OK;
}

static t4_status
find_segments(struct wal *w, struct error *error)
{
    uint64_t *numbers;
    size_t count;
    t4_status status = segment_numbers(w, &numbers, &count, error);

    if (status == T4_E_NOTFOUND)
        status = T4_OK;
    if (status == T4_OK && count > 0)
        status = load_segments(w, numbers, count, error);
    mem_free(numbers);
    return status;
}

/* --- following the log --- */

static void
note(struct scan *s, const struct frame *f)
{
    if (f->synced_through > s->synced)
        s->synced = f->synced_through;
    if (f->object_frontier > s->found->object_frontier)
        s->found->object_frontier = f->object_frontier;
    if (f->term > s->found->last_term)
        s->found->last_term = f->term;
}

static void
stop(struct scan *s, size_t position, uint64_t offset)
{
    s->stopped = true;
    s->bad_index = s->end + 1;
    s->bad_offset = offset;
    s->bad_position = position;
}

static t4_status
missing_entries(struct scan *s, size_t position, uint64_t from, uint64_t to)
{
    char path[PATH_BYTES];
    t4_status status;

    segment_path(s->w, s->w->segments[position]->number, path);
    status =
        error_set(s->error, T4_E_CORRUPT,
                  "entries %" PRIu64 " to %" PRIu64 " are missing before segment %s of "
                  "the log (offset %u), and the storage engine ends at %" PRIu64,
                  from, to, path, SEGMENT_HEADER_BYTES, s->flushed);
    error_hint(s->error,
               "restore the missing files of the log, or the storage engine's folder, "
               "from a copy of the data directory; do not delete the data directory");
    return status;
}

/* False: the frame cannot follow what came before. */
static bool
take_start(struct scan *s, struct segment *seg, size_t position, const struct frame *f,
           t4_status *status)
{
    uint64_t from = f->log_end + 1;

    if (!s->begun) {
        s->begun = true;
        s->end = f->first_index - 1;
        from = s->first == 0 ? 1 : f->first_index; /* what is older was not looked at */
    } else if (f->log_end != s->end) {
        return false;
    }
    if (f->offset != SEGMENT_HEADER_BYTES &&
        (!seg->live || f->first_index != f->log_end + 1))
        return false;
    if (f->first_index > from && s->flushed < f->first_index - 1 &&
        s->w->options.begins_anywhere) {
        s->flushed = f->first_index - 1;
        s->found->begins = f->first_index;
    }
    if (f->first_index > from && s->flushed < f->first_index - 1) {
        *status = missing_entries(s, position, from, f->first_index - 1);
        return true;
    }
    if (f->first_index > f->log_end + 1)
        s->w->region = position;
    if (f->offset == SEGMENT_HEADER_BYTES)
        seg->live = true;
    s->end = seg->last_index = f->first_index - 1;
    s->tail = position;
    s->found->generation = f->generation;
    s->w->last_revision = f->revision;
    if (f->revision > 0)
        s->found->last_revision = f->revision;
    return true;
}

static bool
take_entry(struct scan *s, struct segment *seg, const struct frame *f)
{
    struct points *p = &seg->points;

    if (!seg->live || f->index != s->end + 1 || f->index >= s->ceiling)
        return false;
    s->end = seg->last_index = f->index;
    s->found->last_revision = s->w->last_revision = f->revision;
    if (seg->before_revision < 0 && f->index == seg->first_index)
        seg->before_revision = f->revision;
    if (f->offset >= (p->count > 0 ? p->at[p->count - 1].offset : 0) + POINT_DISTANCE)
        points_add(p, f->offset, f->index, f->revision);
    return true;
}

/* Takes frames of one segment as long as they make up the log. */
static t4_status
follow(struct scan *s, size_t position, struct cursor *c)
{
    struct segment *seg = s->w->segments[position];
    uint64_t bound = s->bound[position];

    for (;;) {
        struct frame f;
        bool fits;
        t4_status status = cursor_frame(c, &f, &fits, s->error);

        if (status != T4_OK)
            return status;
        if (!fits) {
            bool zero;

            f.kind = 0;
            status = cursor_zero_rest(c, &zero, s->error);
            if (status != T4_OK)
                return status;
            if (zero) {
                seg->clean_tail = true;
                seg->clean = !seg->started;
                return T4_OK;
            }
        } else if (f.kind == FRAME_ENTRY) {
            fits = f.index < bound && take_entry(s, seg, &f);
        } else if (f.kind == FRAME_START) {
            fits = f.first_index <= bound && take_start(s, seg, position, &f, &status);
            if (status != T4_OK)
                return status;
        } else {
            fits = seg->live && f.synced_through <= s->end;
        }
        if (!fits && s->end + 1 >= bound)
            return T4_OK; /* void */
        if (!fits) {
            /* A good start frame that does not fit: frames before it are gone. */
            bool before = s->begun && f.kind == FRAME_START && f.log_end > s->end;
            size_t at = before ? s->tail : position;

            stop(s, at, s->w->segments[at]->end);
            if (f.kind != 0)
                note(s, &f);
            return T4_OK;
        }
        note(s, &f);
        seg->end = c->offset;
    }
}

/* Looks for valid frames behind the place where the log could not be followed. */
static t4_status
gather(struct scan *s, struct cursor *c)
{
    for (;;) {
        struct frame f;
        bool found;
        t4_status status = cursor_search(c, s->ceiling, &f, &found, s->error);

        if (status != T4_OK || !found)
            return status;
        note(s, &f);
        if (s->synced >= s->bad_index)
            return T4_OK;
    }
}

static t4_status
corrupt(struct scan *s)
{
    char path[PATH_BYTES];
    t4_status status;

    segment_path(s->w, s->w->segments[s->bad_position]->number, path);
    status =
        error_set(s->error, T4_E_CORRUPT,
                  "segment %s of the log is damaged at offset %" PRIu64 ": entry %" PRIu64
                  " cannot be read, but was durable (up to %" PRIu64 ")",
                  path, s->bad_offset, s->bad_index,
                  s->synced > s->flushed ? s->synced : s->flushed);
    error_hint(s->error, RESTORE_HINT);
    return status;
}

static t4_status
scan_segment(struct scan *s, size_t position)
{
    struct segment *seg = s->w->segments[position];
    struct cursor c;
    t4_status status;

    status = cursor_open(&c, s->w, seg, SEGMENT_HEADER_BYTES, seg->bytes, SCAN_CHUNK,
                         s->error);
    if (status != T4_OK)
        return status;
    seg->end = SEGMENT_HEADER_BYTES;
    if (!s->stopped) {
        status = follow(s, position, &c);
        seg->indexed = true;
    }
    if (status == T4_OK && s->stopped) {
        bool zero;

        status = cursor_zero_rest(&c, &zero, s->error);
        if (status == T4_OK && zero && c.offset == SEGMENT_HEADER_BYTES)
            seg->clean = true;
        else if (status == T4_OK)
            status = gather(s, &c);
    }
    cursor_close(&c);
    return status;
}

/* --- the whole --- */

/*
 * Bounds of what is void, where the scan begins (the last segment whose first index is at
 * or below `flushed`), and which of the older segments count.
 */
static void
survey(struct scan *s)
{
    struct wal *w = s->w;
    uint64_t bound = UINT64_MAX, bytes = 0, highest = s->flushed;

    s->bound = mem_alloc(w->count * sizeof *s->bound);
    for (size_t i = w->count; i-- > 0;) {
        struct segment *seg = w->segments[i];

        s->bound[i] = bound;
        bytes += seg->bytes;
        if (!seg->started)
            continue;
        if (seg->term > s->found->last_term)
            s->found->last_term = seg->term;
        if (seg->log_end < bound)
            bound = seg->log_end + 1;
        if (seg->first_index > highest)
            highest = seg->first_index;
        if (s->first == SIZE_MAX && seg->first_index <= s->flushed)
            s->first = i;
    }
    if (s->first == SIZE_MAX)
        s->first = 0;
    bytes = bytes / FRAME_MIN_BYTES + 2;
    s->ceiling = highest < UINT64_MAX - bytes ? highest + bytes : UINT64_MAX;

    for (size_t i = 0; i < s->first; i++) {
        struct segment *seg = w->segments[i];

        if (!seg->started || seg->first_index >= s->bound[i])
            continue;
        seg->live = true;
        seg->last_index = s->bound[i] - 1;
        if (seg->first_index > seg->log_end + 1)
            w->region = i;
        s->found->generation = seg->generation;
    }
}

static t4_status
check_all(struct scan *s)
{
    struct wal *w = s->w;
    size_t last = SIZE_MAX;
    t4_status status;

    for (size_t i = s->first; i < w->count; i++) {
        status = scan_segment(s, i);
        if (status != T4_OK)
            return status;
        if (s->stopped &&
            s->bad_index <= (s->synced > s->flushed ? s->synced : s->flushed))
            return corrupt(s);
        if (w->segments[i]->started)
            last = i;
    }
    w->active = last; /* for wal_start(); SIZE_MAX: there is none */
    w->continues =
        last != SIZE_MAX && w->segments[last]->live && w->segments[last]->clean_tail;
    return T4_OK;
}

/*
 * Makes what was found durable before anybody builds on it: the names, and the frames of
 * all segments that were scanned (older ones end below `flushed`, so they were synced).
 */
static t4_status
sync_found(struct scan *s)
{
    struct wal *w = s->w;
    char path[PATH_BYTES];
    t4_status status = T4_OK;

    for (size_t i = s->first; i < w->count && status == T4_OK; i++) {
        struct env_file *file;

        if (!w->segments[i]->live)
            continue;
        segment_path(w, w->segments[i]->number, path);
        status = w->env->open(w->env->state, path, ENV_READONLY, &file, s->error);
        if (status != T4_OK)
            break;
        status = w->env->datasync(w->env->state, file, s->error);
        w->env->close(w->env->state, file);
    }
    if (status == T4_OK)
        status = w->env->sync_dir(w->env->state, w->options.dir, s->error);
    return status;
}

t4_status
wal_replay(struct wal *w, uint64_t after, uint64_t last, wal_replay_fn *replay, void *arg,
           struct error *error)
{
    struct wal_reader *r;
    t4_status status;

    if (last <= after)
        return T4_OK;
    status = wal_reader_open_at(w, after + 1, &r, error);
    if (status != T4_OK)
        return status;
    do {
        struct t4_slice entry;
        uint64_t index;

        status = wal_reader_next(r, last, &index, &entry, error);
        if (status == T4_OK && index > after)
            status = replay(arg, index, entry, error);
        if (status == T4_OK && index == last)
            break;
    } while (status == T4_OK);
    wal_reader_close(r);
    return status;
}

uint64_t
wal_last_index(struct wal *w)
{
    return atomic_load(&w->written);
}

/* --- cutting --- */

static t4_status
note_revision(void *arg, uint64_t index, struct t4_slice bytes, struct error *error)
{
    struct byte_reader r = reader_of(bytes);
    struct entry e;

    (void)index;
    (void)error;
    *(int64_t *)arg = entry_decode_head(&r, &e) ? e.revision : -1;
    return T4_OK;
}

t4_status
wal_cut(struct wal *w, uint64_t index, struct error *error)
{
    int64_t revision = -1;
    t4_status status = T4_OK;

    if (index >= atomic_load(&w->written))
        return T4_OK;
    if (index > 0)
        status = wal_replay(w, index - 1, index, note_revision, &revision, error);
    if (status ==
        T4_E_NOTFOUND) /* older than what the log holds: its revision is not known */
        status = T4_OK;
    if (status != T4_OK)
        return status;
    mutex_lock(&w->lock);
    for (size_t i = 0; i < w->count; i++) {
        struct segment *s = w->segments[i];

        if (!s->live || s->last_index <= index)
            continue;
        if (s->first_index > index)
            s->live = false;
        s->last_index = index;
        while (s->points.count > 0 && s->points.at[s->points.count - 1].index > index)
            s->points.count--;
    }
    mutex_unlock(&w->lock);
    w->continues = false;
    w->last_revision = revision;
    if (w->flushed > index)
        w->flushed = index; /* the caller drops the engine */
    atomic_store(&w->written, index);
    atomic_store(&w->synced, index);
    return T4_OK;
}

void
wal_skip(struct wal *w, uint64_t index)
{
    if (index > w->flushed)
        w->flushed = index;
}

static t4_status
recover(struct wal *w, wal_replay_fn *replay, void *arg, struct wal_recovered *found,
        struct error *error)
{
    struct scan s = {
        .w = w, .error = error, .found = found, .first = SIZE_MAX, .flushed = w->flushed};
    t4_status status;

    status = find_segments(w, error);
    if (status != T4_OK || w->count == 0)
        return status;
    survey(&s);
    status = check_all(&s);
    if (status == T4_OK)
        status = sync_found(&s);
    mem_free(s.bound);
    if (status != T4_OK)
        return status;
    found->last_index = s.end;
    found->torn = s.stopped;
    w->generation = found->generation;
    atomic_store(&w->object_frontier, found->object_frontier);
    atomic_store(&w->written, s.end);
    atomic_store(&w->synced, s.end);
    return replay != NULL ? wal_replay(w, w->flushed, s.end, replay, arg, error) : T4_OK;
}

static t4_status
check_options(const struct wal_options *o, struct error *error)
{
    if (o->segment_bytes < 64u * 1024 || o->segment_bytes > 1024u * 1024 * 1024)
        return error_set(error, T4_E_INVALID,
                         "the size of a segment of the log is %" PRIu64
                         ", but must be from 64 KiB to 1 GiB",
                         o->segment_bytes);
    return wal_check_dir(o->dir, error);
}

t4_status
wal_open(const struct wal_options *options, uint64_t flushed, wal_replay_fn *replay,
         void *arg, struct wal **out, struct wal_recovered *recovered,
         struct error *error)
{
    struct error local;
    struct wal *w;
    t4_status status;

    *recovered = (struct wal_recovered){0};
    if (error == NULL)
        error = &local;
    status = check_options(options, error);
    if (status != T4_OK)
        return status;
    w = mem_zalloc(sizeof *w);
    w->options = *options;
    w->options.dir = mem_strdup(options->dir);
    w->env = options->env;
    w->flushed = flushed;
    w->active = SIZE_MAX;
    mutex_init(&w->lock);
    mutex_init(&w->create_lock);

    status = recover(w, replay, arg, recovered, error);
    if (status != T4_OK) {
        wal_close(w);
        return status;
    }
    if (options->metrics != NULL)
        metric_set(options->metrics, METRIC_WAL_SEGMENTS, (int64_t)w->count);
    *out = w;
    return T4_OK;
}

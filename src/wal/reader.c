/*
 * reader.c - reading entries back from the log, by revision.
 *
 * A reader knows the index it wants next and where its frame is.  It never looks at a
 * place that was not written yet: the end of the current segment is asked for under the
 * lock, so reading and appending need not know of each other.  Every frame up to the
 * segment's last index must be there and valid, so whatever else is met is corruption.
 *
 * A segment's sparse index (a point each 64 KiB) is made while it is written or
 * recovered; an old one gets its index when a reader first needs it.
 *
 * Entry points: wal_reader_open(), wal_reader_open_at(), wal_reader_next(),
 * wal_reader_close().  Any thread.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <inttypes.h>

#include "base/memory.h"
#include "wal/wal_int.h"

#define READ_CHUNK (128u * 1024)

static t4_status
damaged(const struct segment *s, uint64_t offset, uint64_t index, struct wal *w,
        struct error *error)
{
    char path[PATH_BYTES];
    t4_status status;

    segment_path(w, s->number, path);
    status = error_set(error, T4_E_CORRUPT,
                       "segment %s of the log is damaged at offset %" PRIu64
                       ": entry %" PRIu64 " cannot be read",
                       path, offset, index);
    error_hint(error, RESTORE_HINT);
    return status;
}

/* Makes the index of an old segment. */
static t4_status
make_index(struct wal *w, struct segment *s, struct error *error)
{
    uint64_t index, last;
    struct points points = {0};
    struct cursor c;
    int64_t first_revision = -1;
    t4_status status;

    mutex_lock(&w->lock);
    index = s->first_index;
    last = s->last_index;
    mutex_unlock(&w->lock);
    status = cursor_open(&c, w, s, SEGMENT_HEADER_BYTES, s->bytes, READ_CHUNK, error);
    if (status != T4_OK)
        return status;
    while (index <= last) {
        struct frame f;
        bool valid;

        status = cursor_frame(&c, &f, &valid, error);
        if (status == T4_OK && (!valid || (f.kind == FRAME_ENTRY && f.index != index)))
            status = damaged(s, valid ? f.offset : c.offset, index, w, error);
        if (status != T4_OK)
            break;
        if (f.kind != FRAME_ENTRY)
            continue;
        if (index == s->first_index)
            first_revision = f.revision;
        if (f.offset >=
            (points.count > 0 ? points.at[points.count - 1].offset : 0) + POINT_DISTANCE)
            points_add(&points, f.offset, f.index, f.revision);
        index++;
    }
    cursor_close(&c);
    mutex_lock(&w->lock);
    if (status == T4_OK && !s->indexed) {
        s->indexed = true;
        s->points = points;
        points.at = NULL;
        if (s->before_revision < 0)
            s->before_revision = first_revision;
    }
    mutex_unlock(&w->lock);
    mem_free(points.at);
    return status;
}

/* [w->lock] The last point of a segment below `revision`, or where its entries begin. */
static struct point
point_below(const struct segment *s, int64_t revision)
{
    size_t low = 0, high = s->points.count;

    while (low < high) {
        size_t middle = low + (high - low) / 2;

        if (s->points.at[middle].revision < revision)
            low = middle + 1;
        else
            high = middle;
    }
    if (low > 0)
        return s->points.at[low - 1];
    return (struct point){SEGMENT_HEADER_BYTES, s->first_index, s->before_revision};
}

/*
 * [w->lock] The last segment before which all revisions are below `revision`; SIZE_MAX:
 * none. *unknown: that one must be indexed before this can be told.
 */
static size_t
find_segment(struct wal *w, int64_t revision, bool *unknown)
{
    *unknown = false;
    for (size_t i = w->count; i-- > w->region;) {
        struct segment *s = w->segments[i];

        if (!s->live)
            continue;
        if (s->before_revision < 0 && !s->indexed) {
            *unknown = true;
            return i;
        }
        if (s->before_revision >= 0 && s->before_revision < revision)
            return i;
    }
    return SIZE_MAX;
}

/*
 * [w->lock] From here on the segment at `position`, and those behind it, are not dropped.
 */
static void
hold(struct wal_reader *r, size_t position)
{
    struct wal *w = r->w;

    r->position = position;
    if (r->reader_link != NULL)
        return;
    r->next_reader = w->readers;
    r->reader_link = &w->readers;
    if (w->readers != NULL)
        w->readers->reader_link = &r->next_reader;
    w->readers = r;
}

/* Opens the file of the segment that is held, or frees the reader. */
static t4_status
open_in(struct wal_reader *r, struct segment *s, const struct point *at,
        struct wal_reader **out, struct error *error)
{
    /* `end` and last_index are learnt at the first read. */
    t4_status status =
        cursor_open(&r->cursor, r->w, s, at->offset, at->offset, READ_CHUNK, error);

    if (status != T4_OK) {
        wal_reader_close(r);
        return status;
    }
    r->next_index = at->index;
    *out = r;
    return T4_OK;
}

t4_status
wal_reader_open(struct wal *w, int64_t revision, struct wal_reader **out,
                struct error *error)
{
    struct wal_reader *r = mem_zalloc(sizeof *r);
    struct segment *s = NULL;
    struct point at = {0};
    bool ready = false;

    if (revision < 1)
        revision = 1;
    r->w = w;
    r->min_revision = revision;
    while (!ready) {
        t4_status status = T4_OK;
        size_t position;
        bool unknown;

        mutex_lock(&w->lock);
        position = find_segment(w, revision, &unknown);
        if (position != SIZE_MAX) {
            hold(r, position);
            s = w->segments[position];
            ready = s->indexed && !unknown;
        }
        if (ready)
            at = point_below(s, revision);
        mutex_unlock(&w->lock);
        if (position == SIZE_MAX)
            status = error_set(error, T4_E_NOTFOUND,
                               "revision %" PRId64 " is older than the log in %s",
                               revision, w->options.dir);
        else if (!ready)
            status = make_index(w, s, error);
        if (status != T4_OK) {
            wal_reader_close(r);
            return status;
        }
    }
    return open_in(r, s, &at, out, error);
}

t4_status
wal_reader_open_at(struct wal *w, uint64_t index, struct wal_reader **out,
                   struct error *error)
{
    struct wal_reader *r = mem_zalloc(sizeof *r);
    struct segment *s = NULL;
    struct point at = {0};
    size_t position;

    r->w = w;
    r->min_index = index;
    mutex_lock(&w->lock);
    for (position = w->count; position-- > 0;) {
        s = w->segments[position];
        if (!s->live || index < s->first_index)
            continue;
        at = (struct point){SEGMENT_HEADER_BYTES, s->first_index, 0};
        for (size_t k = 0; k < s->points.count && s->points.at[k].index <= index; k++)
            at = s->points.at[k];
        hold(r, position);
        break;
    }
    mutex_unlock(&w->lock);
    if (position == SIZE_MAX) {
        wal_reader_close(r);
        return error_set(error, T4_E_NOTFOUND,
                         "entry %" PRIu64 " is older than the log in %s", index,
                         w->options.dir);
    }
    return open_in(r, s, &at, out, error);
}

/* Learns how far the segment can be read by now, or goes on to that of next_index. */
static t4_status
advance(struct wal_reader *r, struct error *error)
{
    struct wal *w = r->w;
    struct segment *s = NULL;
    struct cursor next;
    bool missing;
    size_t i;
    t4_status status;

    mutex_lock(&w->lock);
    for (i = r->position; i < w->count; i++) {
        s = w->segments[i];
        if (s->live && s->last_index >= r->next_index)
            break;
    }
    missing = i == w->count || s->first_index > r->next_index;
    if (i == r->position) {
        r->last_index = s->last_index;
        r->cursor.end = s->end;
    }
    mutex_unlock(&w->lock);
    if (missing)
        return damaged(r->cursor.segment, r->cursor.offset, r->next_index, w, error);
    if (i == r->position)
        return T4_OK;
    status = cursor_open(&next, w, s, SEGMENT_HEADER_BYTES, SEGMENT_HEADER_BYTES,
                         READ_CHUNK, error);
    if (status != T4_OK)
        return status;
    cursor_close(&r->cursor);
    r->cursor = next;
    mutex_lock(&w->lock);
    r->position = i;
    mutex_unlock(&w->lock);
    return advance(r, error);
}

t4_status
wal_reader_next(struct wal_reader *r, uint64_t limit, uint64_t *index,
                struct t4_slice *entry, struct error *error)
{
    uint64_t written = atomic_load_explicit(&r->w->written, memory_order_acquire);

    if (limit > written)
        limit = written;
    while (r->next_index <= limit) {
        struct frame f;
        bool valid;
        t4_status status = T4_OK;

        if (r->next_index > r->last_index)
            status = advance(r, error);
        if (status == T4_OK)
            status = cursor_frame(&r->cursor, &f, &valid, error);
        if (status != T4_OK)
            return status;
        if (!valid)
            return damaged(r->cursor.segment, r->cursor.offset, r->next_index, r->w,
                           error);
        if (f.kind != FRAME_ENTRY)
            continue;
        if (f.index != r->next_index)
            return damaged(r->cursor.segment, f.offset, r->next_index, r->w, error);
        r->next_index++;
        if (f.revision < r->min_revision || f.index < r->min_index)
            continue;
        r->min_revision = 0;
        *index = f.index;
        *entry = f.entry;
        return T4_OK;
    }
    return T4_E_NOTFOUND;
}

void
wal_reader_close(struct wal_reader *r)
{
    if (r == NULL)
        return;
    mutex_lock(&r->w->lock);
    if (r->reader_link != NULL) {
        *r->reader_link = r->next_reader;
        if (r->next_reader != NULL)
            r->next_reader->reader_link = r->reader_link;
    }
    mutex_unlock(&r->w->lock);
    cursor_close(&r->cursor);
    mem_free(r);
}

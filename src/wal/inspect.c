/*
 * inspect.c - the log as its files show it, for people who want to know what is in it.
 *
 * wal_open() answers whether a server may go on with a log, and says no to the first thing that
 * is wrong.  Here the question is what can still be read, so nothing ends the walk: a file
 * that is missing or not readable, a bad frame, a hole in the indexes are remarked, and the walk
 * goes on with the next frame that is good.  What counts as the log is decided by the rules of
 * recover.c all the same: what a later start frame declares void is left out, and a bad frame
 * above the largest synced_through is a torn tail, which ends the log.
 *
 * Two walks over the files: the first finds what is wrong and where the log ends, the second
 * gives the entries.
 *
 * Beside a running server: frames are written once, into zeros, and checked whole; files get their
 * names when they are complete, and only one without entries is ever replaced.  So the worst
 * that a walk can meet is a frame that is being written, which looks like a torn tail.
 *
 * Entry points: wal_inspect(), wal_inspect_above().  Runs on the caller's thread; no lock is taken.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <inttypes.h>

#include "base/memory.h"
#include "wal/wal_int.h"

#define CHUNK (1024u * 1024)

/* Where the log could not be followed. */
struct place {
    size_t position;
    uint64_t offset;
    bool hole; /* the frame there is good; what should stand before it is not there */
    uint64_t index; /* that should have come */
    uint64_t until; /* last one that is missing; 0: nothing good came behind */
};

struct inspect {
    struct wal w;              /* directory and env; no log is open */
    struct segment **segments; /* NULL: cannot be read */
    bool *unreadable;          /* said so already */
    uint64_t *numbers, *bound; /* by position; entries at or above the bound are void */
    size_t count;
    size_t begin;     /* first segment that is read */
    uint64_t ceiling; /* no index in this log can be as high */

    bool giving;     /* the second walk */
    uint64_t next;   /* index that should come; 0: nothing was read yet */
    size_t open;     /* the place behind which nothing good came yet; SIZE_MAX: none */
    uint64_t synced; /* largest synced_through seen */
    uint64_t end;    /* of the log */
    struct place *places;
    size_t n_places, places_capacity;

    uint64_t from, to;
    wal_replay_fn *take;
    wal_remark_fn *remark;
    void *arg;
    struct wal_inspection *found;
    struct error *error; /* of the call */
};

static void
say(struct inspect *s, bool damage, const struct error *what)
{
    if (damage)
        s->found->damaged++;
    s->remark(s->arg, damage, what);
}

/* --- the files --- */

static void
load(struct inspect *s, size_t i)
{
    char path[PATH_BYTES];
    struct error error = {0};

    if (i > 0 && s->numbers[i] != s->numbers[i - 1] + 1) {
        segment_path(&s->w, s->numbers[i - 1] + 1, path);
        error_set(&error, T4_E_CORRUPT,
                  "segment %s of the log is missing, although later ones exist", path);
        say(s, true, &error);
    }
    /* Twice: a server may just have replaced a spare one by a bigger one. */
    if (segment_load(&s->w, s->numbers[i], &s->segments[i], &error) != T4_OK &&
        segment_load(&s->w, s->numbers[i], &s->segments[i], &error) != T4_OK) {
        s->segments[i] = NULL;
        s->unreadable[i] = true;
        if (error.status != T4_E_NOTFOUND) /* else it was removed since it was listed */
            say(s, true, &error);
    }
}

/* As survey() of recover.c, of all segments. */
static void
find_bounds(struct inspect *s)
{
    uint64_t bound = UINT64_MAX, bytes = 0, highest = 0;

    for (size_t i = s->count; i-- > 0;) {
        const struct segment *seg = s->segments[i];

        s->bound[i] = bound;
        if (seg == NULL)
            continue;
        bytes += seg->bytes;
        if (!seg->started)
            continue;
        if (seg->log_end < bound)
            bound = seg->log_end + 1;
        if (seg->first_index > highest)
            highest = seg->first_index;
    }
    bytes = bytes / FRAME_MIN_BYTES + 2;
    s->ceiling = highest < UINT64_MAX - bytes ? highest + bytes : UINT64_MAX;
}

/*
 * The last segment that begins at or below the entry and is not void there: all that counts above
 * the entry is in it or behind it.
 */
static void
find_begin(struct inspect *s, uint64_t above)
{
    for (size_t i = 0; i < s->count; i++) {
        const struct segment *seg = s->segments[i];

        if (seg != NULL && seg->started && seg->first_index <= above &&
            seg->first_index < s->bound[i])
            s->begin = i;
    }
}

/* --- what is wrong --- */

static void
add_place(struct inspect *s, const struct place *p)
{
    if (s->giving)
        return;
    if (s->n_places == s->places_capacity) {
        s->places_capacity = s->places_capacity * 2 + 4;
        s->places = mem_realloc(s->places, s->places_capacity * sizeof *s->places);
    }
    s->places[s->n_places++] = *p;
}

static void
bad_frame(struct inspect *s, size_t position, uint64_t offset)
{
    if (s->giving || s->open != SIZE_MAX)
        return; /* behind a bad frame another one: one place */
    s->open = s->n_places;
    add_place(s, &(struct place){.position = position,
                                 .offset = offset,
                                 .index = s->next != 0 ? s->next : 1});
}

/* A good frame: all below `index` is before it. */
static void
arrive(struct inspect *s, size_t position, uint64_t offset, uint64_t index)
{
    if (s->open != SIZE_MAX)
        s->places[s->open].until = index - 1;
    else if (s->next != 0 && index > s->next)
        add_place(s, &(struct place){.position = position,
                                     .offset = offset,
                                     .hole = true,
                                     .index = s->next,
                                     .until = index - 1});
    s->open = SIZE_MAX;
}

static void
remark_place(struct inspect *s, const struct place *p, bool torn)
{
    char path[PATH_BYTES];
    struct error what = {0};

    segment_path(&s->w, s->numbers[p->position], path);
    if (torn)
        error_set(&what, T4_OK,
                  "the log ends with entry %" PRIu64 ": segment %s has a frame at offset "
                  "%" PRIu64 " that was not written whole; nothing says that it was "
                  "acknowledged",
                  p->index - 1, path, p->offset);
    else if (p->hole)
        error_set(&what, T4_E_CORRUPT,
                  "entries %" PRIu64 " to %" PRIu64 " are missing before offset %" PRIu64
                  " of segment %s of the log",
                  p->index, p->until, p->offset, path);
    else if (p->until == p->index - 1)
        error_set(&what, T4_E_CORRUPT,
                  "segment %s of the log is damaged at offset %" PRIu64
                  ": no entry is missing there",
                  path, p->offset);
    else
        error_set(&what, T4_E_CORRUPT,
                  "segment %s of the log is damaged at offset %" PRIu64
                  ": entries %" PRIu64 " to %" PRIu64 " cannot be read",
                  path, p->offset, p->index, p->until != 0 ? p->until : s->synced);
    say(s, !torn, &what);
}

/* After the first walk: rule (6) of wal.h for each place. */
static void
settle(struct inspect *s)
{
    s->end = UINT64_MAX;
    for (size_t i = 0; i < s->n_places && s->end == UINT64_MAX; i++) {
        const struct place *p = &s->places[i];
        bool torn = p->index > s->synced;

        if (torn)
            s->end = p->index - 1;
        remark_place(s, p, torn);
    }
    if (s->found->last_index > s->end)
        s->found->last_index = s->end;
    if (s->found->last_index < s->found->first_index)
        s->found->first_index = s->found->last_index = 0;
}

/* --- walking --- */

static void
take_start(struct inspect *s, size_t position, const struct frame *f)
{
    struct error what = {0};

    s->found->generation = f->generation;
    arrive(s, position, f->offset, f->log_end + 1);
    if (f->first_index > f->log_end + 1 && !s->giving) {
        error_set(&what, T4_OK,
                  "entries %" PRIu64 " to %" PRIu64
                  " are not in this log: the storage engine held them already when it "
                  "was begun",
                  f->log_end + 1, f->first_index - 1);
        say(s, false, &what);
    }
    s->next = f->first_index;
}

static t4_status
take_entry(struct inspect *s, size_t position, const struct frame *f)
{
    arrive(s, position, f->offset, f->index);
    s->next = f->index + 1;
    if (s->giving)
        return f->index >= s->from && f->index <= s->to && f->index <= s->end
                   ? s->take(s->arg, f->index, f->entry, s->error)
                   : T4_OK;
    if (s->found->first_index == 0)
        s->found->first_index = f->index;
    s->found->last_index = f->index;
    return T4_OK;
}

/*
 * The frames of one segment.  *why is filled when the file cannot be read any further; other
 * failures are take's.
 */
static t4_status
walk_segment(struct inspect *s, size_t position, struct cursor *c, struct error *why)
{
    uint64_t bound = s->bound[position];
    t4_status status = T4_OK;

    while (status == T4_OK && (s->next < bound || s->next == 0)) {
        struct frame f;
        bool good, zero;

        if (cursor_frame(c, &f, &good, why) != T4_OK)
            break;
        if (!good) {
            if (cursor_zero_rest(c, &zero, why) != T4_OK || zero)
                break;
            bad_frame(s, position, c->offset);
            if (cursor_search(c, s->ceiling, &f, &good, why) != T4_OK || !good)
                break;
        }
        if (f.synced_through > s->synced)
            s->synced = f.synced_through;
        if (f.object_frontier > s->found->object_frontier)
            s->found->object_frontier = f.object_frontier;
        if (f.term > s->found->term)
            s->found->term = f.term;
        if (f.kind == FRAME_START && f.log_end + 1 >= s->next)
            take_start(s, position, &f);
        else if (f.kind == FRAME_ENTRY && f.index >= s->next && f.index < bound)
            status = take_entry(s, position, &f);
        else if (f.kind == FRAME_ENTRY && f.index >= bound)
            break; /* void from here on */
        else if (f.kind != FRAME_MARK)
            bad_frame(s, position, f.offset); /* goes back: not of this log */
    }
    return status;
}

static t4_status
walk(struct inspect *s)
{
    t4_status status = T4_OK;

    s->next = 0;
    s->open = SIZE_MAX;
    for (size_t i = s->begin; i < s->count && status == T4_OK; i++) {
        const struct segment *seg = s->segments[i];
        struct error why = {0};
        struct cursor c;

        if (seg == NULL || (seg->started && seg->first_index >= s->bound[i]))
            continue;
        if (cursor_open(&c, &s->w, seg, SEGMENT_HEADER_BYTES, seg->bytes, CHUNK, &why) ==
            T4_OK) {
            status = walk_segment(s, i, &c, &why);
            cursor_close(&c);
        }
        if (why.status != T4_OK && !s->unreadable[i]) {
            s->unreadable[i] = true;
            say(s, true, &why);
        }
    }
    return status;
}

static t4_status
inspect(struct env *env, const char *dir, uint64_t above, uint64_t from, uint64_t to,
        wal_replay_fn *take, wal_remark_fn *remark, void *arg,
        struct wal_inspection *found, struct error *error)
{
    char copy[PATH_BYTES];
    struct inspect s = {.w = {.env = env, .options.dir = copy, .any_identity = true},
                        .from = from,
                        .to = to,
                        .take = take,
                        .remark = remark,
                        .arg = arg,
                        .found = found,
                        .error = error};
    t4_status status = wal_check_dir(dir, error);

    *found = (struct wal_inspection){0};
    if (status != T4_OK)
        return status;
    memcpy(copy, dir, strlen(dir) + 1);
    status = segment_numbers(&s.w, &s.numbers, &s.count, error);
    if (status == T4_OK) {
        s.segments = mem_zalloc((s.count + 1) * sizeof(struct segment *));
        s.unreadable = mem_zalloc((s.count + 1) * sizeof *s.unreadable);
        s.bound = mem_zalloc((s.count + 1) * sizeof *s.bound);
        for (size_t i = 0; i < s.count; i++) {
            load(&s, i);
            found->segments++;
            found->bytes += s.segments[i] != NULL ? s.segments[i]->bytes : 0;
        }
        find_bounds(&s);
        find_begin(&s, above);
        walk(&s); /* takes nothing, so nothing of it can fail */
        settle(&s);
        s.giving = true;
        status = walk(&s);
        for (size_t i = 0; i < s.count; i++)
            segment_free(&s.w, s.segments[i]);
    }
    mem_free(s.segments);
    mem_free(s.unreadable);
    mem_free(s.bound);
    mem_free(s.numbers);
    mem_free(s.places);
    return status;
}

t4_status
wal_inspect(struct env *env, const char *dir, uint64_t from, uint64_t to,
            wal_replay_fn *take, wal_remark_fn *remark, void *arg,
            struct wal_inspection *found, struct error *error)
{
    return inspect(env, dir, 0, from, to, take, remark, arg, found, error);
}

t4_status
wal_inspect_above(struct env *env, const char *dir, uint64_t above, wal_replay_fn *take,
                  wal_remark_fn *remark, void *arg, struct wal_inspection *found,
                  struct error *error)
{
    return inspect(env, dir, above, above + 1, UINT64_MAX, take, remark, arg, found,
                   error);
}

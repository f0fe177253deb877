/*
 * segment.c - segment files of the log, and the cursor that reads their frames.
 *
 * A segment is made complete under a temporary name: zeros on the disk (writing into them
 * later changes no metadata, which makes fdatasync cheap and ENOSPC unlikely), the header
 * with its salt, one fsync over both; only then is it renamed and the directory synced.
 * So a file named *.wal has a good header, whatever happens.
 *
 * Entry points: segment_load(), segment_create(), segment_open(), cursor_*().
 * Runs on: the caller's thread; segment_create() with create_lock held.
 *
 * Invariants
 *  (1) a segment that has the name *.wal was synced whole, with a salt of its own
 *  (2) nobody writes to a segment before its name is durable
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/memory.h"
#include "wal/wal_int.h"

#define ZERO_CHUNK (256u * 1024)
/*
 * Not more than this lies unsynced behind a commit's fdatasync, which otherwise waits for
 * the write-back of the whole segment.
 */
#define PACE_BYTES (4u * 1024 * 1024)
#define NAME_DIGITS 16
#define NAME_ROOM 64 /* of the longest file name, with slash and end */

t4_status
wal_check_dir(const char *dir, struct error *error)
{
    if (strlen(dir) + NAME_ROOM > PATH_BYTES)
        return error_set(error, T4_E_INVALID,
                         "the path of the log's directory is too long");
    return T4_OK;
}

void
wal_path(const struct wal *w, char *path, const char *name)
{
    snprintf(path, PATH_BYTES, "%s/%s", w->options.dir, name);
}

void
segment_path(const struct wal *w, uint64_t number, char *path)
{
    snprintf(path, PATH_BYTES, "%s/%016" PRIx64 ".wal", w->options.dir, number);
}

bool
segment_name_parse(const char *name, uint64_t *number)
{
    uint64_t v = 0;

    if (strlen(name) != NAME_DIGITS + 4 || strcmp(name + NAME_DIGITS, ".wal") != 0)
        return false;
    for (int i = 0; i < NAME_DIGITS; i++) {
        char c = name[i];

        if (c >= '0' && c <= '9')
            v = v << 4 | (uint64_t)(c - '0');
        else if (c >= 'a' && c <= 'f')
            v = v << 4 | (uint64_t)(c - 'a' + 10);
        else
            return false;
    }
    *number = v;
    return true;
}

struct names {
    uint64_t *numbers;
    size_t count, capacity;
};

static void
take_name(void *arg, const char *name)
{
    struct names *n = arg;
    uint64_t number;

    if (!segment_name_parse(name, &number))
        return;
    if (n->count == n->capacity) {
        n->capacity = n->capacity * 2 + 16;
        n->numbers = mem_realloc(n->numbers, n->capacity * sizeof *n->numbers);
    }
    n->numbers[n->count++] = number;
}

static int
compare_numbers(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return x < y ? -1 : x > y;
}

t4_status
segment_numbers(const struct wal *w, uint64_t **numbers, size_t *count,
                struct error *error)
{
    struct names n = {0};
    t4_status status = w->env->list(w->env->state, w->options.dir, take_name, &n, error);

    if (n.count > 0)
        qsort(n.numbers, n.count, sizeof *n.numbers, compare_numbers);
    *numbers = n.numbers;
    *count = n.count;
    return status;
}

void
points_add(struct points *p, uint64_t offset, uint64_t index, int64_t revision)
{
    if (p->count == p->capacity) {
        p->capacity = p->capacity * 2 + 4;
        p->at = mem_realloc(p->at, p->capacity * sizeof *p->at);
    }
    p->at[p->count++] = (struct point){offset, index, revision};
}

void
segment_free(struct wal *w, struct segment *s)
{
    if (s == NULL)
        return;
    if (s->file != NULL)
        w->env->close(w->env->state, s->file);
    mem_free(s->points.at);
    mem_free(s);
}

static t4_status
check_header(const struct wal *w, const struct segment_header *h, uint64_t number,
             uint64_t size, struct error *error)
{
    t4_status status;

    if (!w->any_identity &&
        (h->cluster_id != w->options.cluster_id || h->lineage != w->options.lineage)) {
        status = error_set(
            error, T4_E_INVALID,
            "it belongs to cluster %016" PRIx64 ", lineage %016" PRIx64
            ", but this server is of cluster %016" PRIx64 ", lineage %016" PRIx64,
            h->cluster_id, h->lineage, w->options.cluster_id, w->options.lineage);
        error_hint(error,
                   "start the server with the data directory that the log belongs to");
        return status;
    }
    if (h->number != number)
        status = error_set(error, T4_E_CORRUPT,
                           "its header (offset 0) says segment %" PRIu64
                           ": the file was renamed",
                           h->number);
    else if (h->bytes != size || size < SEGMENT_HEADER_BYTES)
        status =
            error_set(error, T4_E_CORRUPT,
                      "it is %" PRIu64 " bytes long, its header (offset 0) says %" PRIu64,
                      size, h->bytes);
    else
        return T4_OK;
    error_hint(error, RESTORE_HINT);
    return status;
}

static void
take_start(struct segment *s, const uint8_t *data, size_t n)
{
    struct frame f;

    if (!frame_parse(data, n, s->salt, SEGMENT_HEADER_BYTES, &f) || f.kind != FRAME_START)
        return;
    s->started = true;
    s->generation = f.generation;
    s->term = f.term;
    s->log_end = f.log_end;
    s->first_index = f.first_index;
    s->before_revision = f.revision;
    s->last_index = f.first_index - 1;
}

t4_status
segment_load(struct wal *w, uint64_t number, struct segment **out, struct error *error)
{
    uint8_t data[SEGMENT_HEADER_BYTES + START_FRAME_BYTES];
    struct segment_header h = {0};
    struct env_stat st = {0};
    struct env_file *file;
    struct segment *s;
    char path[PATH_BYTES];
    t4_status status;
    size_t got;

    segment_path(w, number, path);
    status = w->env->stat(w->env->state, path, &st, error);
    if (status == T4_OK)
        status = w->env->open(w->env->state, path, ENV_READONLY, &file, error);
    if (status != T4_OK)
        return status;
    status = w->env->pread(w->env->state, file, data, sizeof data, 0, &got, error);
    w->env->close(w->env->state, file);
    if (status != T4_OK)
        return status;
    memset(data + got, 0, sizeof data - got);
    status = header_decode(data, &h, error);
    if (status == T4_E_CORRUPT)
        error_hint(error, RESTORE_HINT);
    else if (status == T4_E_UNSUPPORTED)
        error_hint(error, "start the version of t4 that wrote it, or a newer one");
    else
        status = check_header(w, &h, number, st.size, error);
    if (status != T4_OK) {
        error_wrap(error, "segment %s of the log", path);
        return status;
    }
    s = mem_zalloc(sizeof *s);
    s->number = number;
    s->bytes = s->end = h.bytes;
    s->salt = h.salt;
    take_start(s, data + SEGMENT_HEADER_BYTES, START_FRAME_BYTES);
    *out = s;
    return T4_OK;
}

t4_status
segment_open(struct wal *w, struct segment *s, struct error *error)
{
    char path[PATH_BYTES];

    if (s->file != NULL)
        return T4_OK;
    segment_path(w, s->number, path);
    return w->env->open(w->env->state, path, 0, &s->file, error);
}

t4_status
fill_zeros(struct wal *w, struct env_file *file, uint64_t offset, uint64_t n,
           struct error *error)
{
    uint8_t *zeros = mem_zalloc(ZERO_CHUNK);
    uint64_t paced = 0;
    t4_status status = T4_OK;

    while (n > 0 && status == T4_OK) {
        size_t chunk = n < ZERO_CHUNK ? (size_t)n : ZERO_CHUNK;

        status = w->env->pwrite(w->env->state, file, zeros, chunk, offset, error);
        offset += chunk;
        n -= chunk;
        paced += chunk;
        if (status == T4_OK && paced >= PACE_BYTES && n > 0) {
            status = w->env->datasync(w->env->state, file, error);
            paced = 0;
        }
    }
    mem_free(zeros);
    return status;
}

static t4_status
fill_segment(struct wal *w, struct env_file *file, const struct segment *s,
             struct error *error)
{
    struct segment_header h = {w->options.cluster_id, w->options.lineage, s->number,
                               s->salt, s->bytes};
    uint8_t *block;
    t4_status status;

    status =
        fill_zeros(w, file, SEGMENT_HEADER_BYTES, s->bytes - SEGMENT_HEADER_BYTES, error);
    if (status != T4_OK)
        return status;
    block = mem_alloc(SEGMENT_HEADER_BYTES);
    header_encode(block, &h);
    status = w->env->pwrite(w->env->state, file, block, SEGMENT_HEADER_BYTES, 0, error);
    mem_free(block);
    if (status != T4_OK)
        return status;
    return w->env->sync(w->env->state, file, error);
}

t4_status
segment_create(struct wal *w, uint64_t number, uint64_t bytes, struct segment **out,
               struct error *error)
{
    struct env *env = w->env;
    char path[PATH_BYTES], temporary[PATH_BYTES + 8];
    struct segment *s;
    t4_status status;

    segment_path(w, number, path);
    snprintf(temporary, sizeof temporary, "%s.tmp", path);
    s = mem_zalloc(sizeof *s);
    s->number = number;
    s->bytes =
        (bytes + SEGMENT_HEADER_BYTES - 1) / SEGMENT_HEADER_BYTES * SEGMENT_HEADER_BYTES;
    s->end = s->bytes;
    s->clean = true;
    env->random(env->state, &s->salt, sizeof s->salt);

    status =
        env->open(env->state, temporary, ENV_CREATE | ENV_EXCLUSIVE, &s->file, error);
    if (status == T4_E_EXISTS && env->unlink(env->state, temporary, error) == T4_OK)
        status =
            env->open(env->state, temporary, ENV_CREATE | ENV_EXCLUSIVE, &s->file, error);
    if (status != T4_OK)
        goto fail_segment;
    status = fill_segment(w, s->file, s, error);
    if (status == T4_OK)
        status = env->rename(env->state, temporary, path, error);
    if (status != T4_OK)
        goto fail_file;
    /* From here on the name may or may not be there: no way back. */
    status = env->sync_dir(env->state, w->options.dir, error);
    if (status != T4_OK) {
        segment_free(w, s);
        return wal_dead(w, error);
    }
    *out = s;
    return T4_OK;

fail_file:
    env->close(env->state, s->file);
    s->file = NULL;
    env->unlink(env->state, temporary, NULL);
fail_segment:
    segment_free(w, s);
    return status == T4_E_NOSPACE ? status : wal_dead(w, error);
}

t4_status
cursor_open(struct cursor *c, struct wal *w, const struct segment *s, uint64_t offset,
            uint64_t end, size_t chunk, struct error *error)
{
    char path[PATH_BYTES];

    *c = (struct cursor){
        .w = w, .segment = s, .offset = offset, .end = end, .chunk = chunk};
    segment_path(w, s->number, path);
    return w->env->open(w->env->state, path, ENV_READONLY, &c->file, error);
}

void
cursor_close(struct cursor *c)
{
    if (c->file != NULL)
        c->w->env->close(c->w->env->state, c->file);
    mem_free(c->data);
    *c = (struct cursor){0};
}

/*
 * Makes the bytes [at, at + n) available and returns how many there are (fewer at the
 * end), and where.
 */
static t4_status
view(struct cursor *c, uint64_t at, size_t n, const uint8_t **p, size_t *available,
     struct error *error)
{
    uint64_t left = at < c->end ? c->end - at : 0;
    size_t want = n, got;
    t4_status status;

    if (left == 0) {
        *available = 0;
        return T4_OK;
    }
    if (want > left)
        want = (size_t)left;
    if (at < c->start || at + want > c->start + c->length) {
        size_t size = want > c->chunk ? want : c->chunk;

        if (size > left)
            size = (size_t)left;
        if (size > c->capacity) {
            mem_free(c->data);
            c->data = mem_alloc(size);
            c->capacity = size;
        }
        c->start = at;
        c->length = 0;
        status =
            c->w->env->pread(c->w->env->state, c->file, c->data, size, at, &got, error);
        if (status != T4_OK)
            return status;
        c->length = got;
    }
    *p = c->data + (at - c->start);
    *available = (size_t)(c->start + c->length - at);
    return T4_OK;
}

t4_status
cursor_frame(struct cursor *c, struct frame *f, bool *valid, struct error *error)
{
    const uint8_t *p;
    size_t available, size;
    t4_status status;

    *valid = false;
    status = view(c, c->offset, FRAME_MIN_BYTES, &p, &available, error);
    if (status != T4_OK || available < FRAME_MIN_BYTES)
        return status;
    size = frame_size_at(p);
    if (size == 0 || size > c->end - c->offset)
        return T4_OK;
    status = view(c, c->offset, size, &p, &available, error);
    if (status != T4_OK || available < size)
        return status;
    *valid = frame_parse(p, size, c->segment->salt, c->offset, f);
    if (*valid)
        c->offset += size;
    return T4_OK;
}

t4_status
cursor_search(struct cursor *c, uint64_t ceiling, struct frame *f, bool *found,
              struct error *error)
{
    const uint8_t *p;
    size_t available;
    t4_status status;

    for (*found = false; c->offset + FRAME_MIN_BYTES <= c->end;
         c->offset += FRAME_ALIGN) {
        status = view(c, c->offset, FRAME_MIN_BYTES, &p, &available, error);
        if (status != T4_OK || available < FRAME_MIN_BYTES)
            return status;
        if (get_u64le(p) == 0 || !frame_plausible(p, ceiling))
            continue;
        status = cursor_frame(c, f, found, error);
        if (status != T4_OK || *found)
            return status;
    }
    return T4_OK;
}

t4_status
cursor_zero_rest(struct cursor *c, bool *zero, struct error *error)
{
    uint64_t at = c->offset;

    *zero = false;
    while (at < c->end) {
        const uint8_t *p;
        size_t n;
        t4_status status = view(c, at, 1, &p, &n, error);

        if (status != T4_OK)
            return status;
        if (n == 0 || p[0] != 0 || memcmp(p, p + 1, n - 1) != 0)
            return T4_OK;
        at += n;
    }
    *zero = true;
    return T4_OK;
}

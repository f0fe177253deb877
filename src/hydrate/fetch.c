/*
 * fetch.c - objects of the checkpoint: run indexes, files and a small cache of them, and the
 * records of one task out of all the files that may hold them.
 *
 * A file is fetched once while several want it at the same time, and kept as long as
 * CACHE_BYTES have room: in the background neighbouring units share the files of upper runs.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <inttypes.h>
#include <stdio.h>

#include "base/log.h"
#include "base/memory.h"
#include "fmt/entry.h"
#include "fmt/record.h"
#include "hydrate/hydrate_int.h"

#define CACHE_BYTES (32u << 20)
#define HOPELESS_NS UINT64_C(60000000000)

/* --- objects --------------------------------------------------------------------------------- */

static t4_status
gone(const char *key, struct hydration *h, struct error *error)
{
    error_set(error, T4_E_CORRUPT, "the object %s of %s is missing", key,
              object_url(h->options.store));
    return error_hint(error, "restore it from a version or a copy that the store keeps; "
                             "t4 verify names everything that is missing or damaged");
}

static t4_status
get(struct hydration *h, const char *key, size_t limit, struct buffer *out,
    struct error *error)
{
    t4_status status;

    buffer_clear(out);
    status = object_get(h->options.store, slice_str(key), 0, T4_TO_THE_END, limit,
                        h->options.timeout_ns, out, NULL, error);
    if (status == T4_E_NOTFOUND)
        return gone(key, h, error);
    if (status == T4_OK) {
        mutex_lock(&h->lock);
        h->fetched += out->len;
        mutex_unlock(&h->lock);
    }
    return status;
}

static t4_status
damaged(const char *key, struct error *error)
{
    error_wrap(error, "the object %s is damaged", key);
    return error_hint(error, "restore it from a version or a copy that the store keeps; "
                             "t4 verify names everything that is missing or damaged");
}

/* --- run indexes ------------------------------------------------------------------------------ */

struct run_read {
    struct hydration *h;
    uint32_t i;
    struct thread thread;
    t4_status status;
    struct error error;
};

static void *
read_run(void *arg)
{
    struct run_read *r = arg;
    const struct checkpoint_run *run = &r->h->checkpoint.run[r->i];
    struct buffer object = {0};
    char key[SST_KEY_BYTES];

    run_key(key, run->sha256, run->term, run->index);
    r->status = get(r->h, key, RUN_OBJECT_MAX, &object, &r->error);
    if (r->status == T4_OK) {
        if (!sha256_is(buffer_slice(&object), run->sha256))
            r->status =
                error_set(&r->error, T4_E_CORRUPT, "it is not what its name says");
        else
            r->status =
                run_index_decode(buffer_slice(&object), &r->h->run[r->i], &r->error);
        if (r->status != T4_OK)
            damaged(key, &r->error);
    }
    buffer_free(&object);
    return NULL;
}

t4_status
fetch_runs(struct hydration *h, struct error *error)
{
    uint32_t n = h->checkpoint.n_runs;
    struct run_read *read = mem_zalloc((n + 1) * sizeof *read);
    t4_status status = T4_OK;

    for (uint32_t i = 0; i < n; i++) {
        read[i].h = h;
        read[i].i = i;
        thread_start(&read[i].thread, "t4-run", read_run, &read[i]);
    }
    for (uint32_t i = 0; i < n; i++) {
        thread_join(&read[i].thread);
        if (read[i].status != T4_OK && status == T4_OK) {
            status = read[i].status;
            *error = read[i].error;
        }
    }
    mem_free(read);
    for (uint32_t r = 0; r < n; r++) {
        if (status != T4_OK) {
            run_index_free(&h->run[r]);
            continue;
        }
        h->file[r] = mem_zalloc((h->run[r].n + 1) * sizeof *h->file[r]);
        for (size_t i = 0; i < h->run[r].n; i++)
            h->file[r][i].sst = &h->run[r].sst[i];
    }
    return status;
}

bool
fetch_may_hold(const struct hydration *h, struct t4_slice lo, struct t4_slice hi)
{
    for (uint32_t r = 0; r < h->checkpoint.n_runs; r++) {
        size_t from, to;

        if (hi.len == 0) {
            if (run_may_hold(&h->run[r], lo))
                return true;
            continue;
        }
        run_find(&h->run[r], lo, hi, &from, &to);
        /* hi itself is not asked for */
        if (to > from && slice_compare(h->run[r].sst[from].info.first, hi) < 0)
            return true;
    }
    return false;
}

/* --- files -------------------------------------------------------------------------------------- */

/* [lock] */
static void
unlist(struct hydration *h, struct file *f)
{
    *(f->newer != NULL ? &f->newer->older : &h->newest) = f->older;
    *(f->older != NULL ? &f->older->newer : &h->oldest) = f->newer;
    f->newer = f->older = NULL;
}

/* [lock] Unused files go, the longest unused first, until there is room. */
static void
make_room(struct hydration *h)
{
    while (h->cached > CACHE_BYTES && h->oldest != NULL) {
        struct file *f = h->oldest;

        unlist(h, f);
        h->cached -= f->object.len;
        buffer_free(&f->object);
        f->state = FILE_ABSENT;
    }
}

static t4_status
get_file(struct hydration *h, const struct run_sst *sst, struct buffer *object,
         struct error *error)
{
    char key[SST_KEY_BYTES];
    t4_status status;

    sst_key(key, sst->info.sha256, sst->term, sst->index);
    status = get(h, key, SST_OBJECT_MAX, object, error);
    if (status != T4_OK)
        return status;
    status = sst_check_object(buffer_slice(object), &sst->info, error);
    return status == T4_OK ? T4_OK : (damaged(key, error), status);
}

/*
 * A file that is missing or damaged is made again, if that can be; else it stays as it is, and
 * nobody tries for a while.  [lock], which it gives up meanwhile
 */
static t4_status
rebuild(struct hydration *h, struct file *f, struct buffer *object)
{
    uint64_t now = h->options.env->boot_ns(h->options.env->state);
    struct error reason = {0};
    t4_status status;
    uint32_t r = 0;

    if (h->options.rebuild == NULL || now < f->hopeless_until_ns)
        return T4_E_CORRUPT;
    while (f < h->file[r] || f >= h->file[r] + h->run[r].n)
        r++;
    mutex_unlock(&h->lock);
    status = h->options.rebuild(h->options.arg, &h->run[r], (size_t)(f - h->file[r]),
                                object, &reason);
    mutex_lock(&h->lock);
    if (status == T4_OK)
        return T4_OK;
    f->hopeless_until_ns = now + HOPELESS_NS;
    mutex_unlock(&h->lock);
    LOG_ERROR("an object of the checkpoint cannot be made again", "reason",
              reason.message, NULL);
    mutex_lock(&h->lock);
    return T4_E_CORRUPT;
}

/* The file's bytes, which stay until let_go().  [lock], which it gives up meanwhile. */
static t4_status
hold(struct hydration *h, struct file *f, struct error *error)
{
    struct buffer object = {0};
    t4_status status;

    while (f->state == FILE_FETCHING)
        condition_wait(&h->came, &h->lock);
    if (f->state == FILE_READY) {
        if (f->users++ == 0)
            unlist(h, f);
        return T4_OK;
    }
    f->state = FILE_FETCHING;
    mutex_unlock(&h->lock);
    status = get_file(h, f->sst, &object, error);
    mutex_lock(&h->lock);
    if (status == T4_E_CORRUPT)
        status = rebuild(h, f, &object);
    f->state = status == T4_OK ? FILE_READY : FILE_ABSENT;
    condition_broadcast(&h->came);
    if (status != T4_OK) {
        buffer_free(&object);
        return status;
    }
    f->object = object;
    f->users = 1;
    h->cached += object.len;
    make_room(h);
    return T4_OK;
}

/* [lock] */
static void
let_go(struct hydration *h, struct file *f)
{
    if (--f->users > 0)
        return;
    f->older = h->newest;
    *(h->newest != NULL ? &h->newest->newer : &h->oldest) = f;
    h->newest = f;
    make_room(h);
}

void
fetch_prefetched(struct hydration *h)
{
    struct file *f = h->prefetch[h->prefetch_first];
    struct error error;

    h->prefetch_first = (h->prefetch_first + 1) % 256;
    h->n_prefetch--;
    if (f->state != FILE_ABSENT)
        return;
    if (hold(h, f, &error) == T4_OK) /* who wants it finds out why not */
        let_go(h, f);
}

/* [lock] All but the first, which the caller fetches itself. */
static void
ask_ahead(struct hydration *h, struct file *const *file, size_t n)
{
    for (size_t i = 1; i < n && h->n_prefetch < 256; i++)
        if (file[i]->state == FILE_ABSENT)
            h->prefetch[(h->prefetch_first + h->n_prefetch++) % 256] = file[i];
    if (n > 1)
        condition_broadcast(&h->work);
}

/* --- one task -------------------------------------------------------------------------------------- */

/* The files that may hold something of the task, newest run first. */
static struct file **
files_of(struct hydration *h, const struct task *t, size_t *n)
{
    struct t4_slice lo = buffer_slice(&t->lo), hi = t->point ? lo : buffer_slice(&t->hi);
    struct file **file = NULL;
    size_t capacity = 0;

    *n = 0;
    for (uint32_t r = 0; r < h->checkpoint.n_runs; r++) {
        size_t from, to;

        if (t->point && !run_may_hold(&h->run[r], lo))
            continue;
        run_find(&h->run[r], lo, hi, &from, &to);
        for (size_t i = from; i < to; i++) {
            if (!t->point && slice_compare(h->run[r].sst[i].info.first, hi) >= 0)
                continue; /* hi itself is not asked for */
            if (*n == capacity) {
                capacity = 2 * capacity + 8;
                file = mem_realloc(file, capacity * sizeof *file);
            }
            file[(*n)++] = &h->file[r][i];
        }
    }
    return file;
}

/* A file's records from one encoded key up to, but not including, another. */
struct part {
    struct sst *sst;
    struct sst_cursor cursor;
    struct t4_slice from, to;
    bool begun;
};

static t4_status
part_next(void *state, struct t4_slice *key, struct t4_slice *value, struct error *error)
{
    struct part *p = state;
    t4_status status = p->begun ? sst_cursor_next(&p->cursor, key, value, error)
                                : sst_cursor_seek(&p->cursor, p->from, key, value, error);

    p->begun = true;
    return status == T4_OK && slice_compare(*key, p->to) >= 0 ? T4_E_NOTFOUND : status;
}

/* What must be in the engine of the records of `n` open parts: appended to *out. */
static t4_status
merge_parts(struct hydration *h, struct part *part, size_t n, struct mvcc_piece *out,
            struct error *error)
{
    struct sst_source *source = mem_zalloc((n + 1) * sizeof *source);
    struct sst_merge *merge;
    struct sst_reduce reduce = {
        .compacted = h->checkpoint.compacted > 0 ? h->checkpoint.compacted : 0};
    uint32_t runs = h->checkpoint.n_runs;
    struct t4_slice key, value;
    t4_status status;

    for (size_t i = 0; i < n; i++)
        source[i] = (struct sst_source){part_next, &part[i]};
    merge = sst_merge_new(source, n);
    reduce.source = sst_merge_source(merge);
    reduce.is_base = runs > 0 && h->checkpoint.run[runs - 1].is_base;
    while ((status = sst_reduce_next(&reduce, &key, &value, error)) == T4_OK)
        mvcc_piece_add(out, key, value);
    sst_reduce_free(&reduce);
    sst_merge_free(merge);
    mem_free(source);
    return status == T4_E_NOTFOUND ? T4_OK : status;
}

static t4_status
open_part(struct part *p, struct t4_slice object, struct t4_slice from,
          struct t4_slice to, struct error *error)
{
    t4_status status = sst_open(object, &p->sst, error);

    if (status != T4_OK)
        return status;
    sst_cursor_init(&p->cursor, p->sst);
    p->from = from;
    p->to = to;
    return T4_OK;
}

static void
close_parts(struct part *part, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (part[i].sst != NULL) {
            sst_cursor_free(&part[i].cursor);
            sst_close(part[i].sst);
        }
}

static t4_status
merge_files(struct hydration *h, struct task *t, struct file *const *file, size_t n,
            struct error *error)
{
    struct part *part = mem_zalloc((n + 1) * sizeof *part);
    struct buffer from = {0}, to = {0};
    t4_status status = T4_OK;

    record_key_encode(&from, buffer_slice(&t->lo), STAMP_NEWEST);
    if (t->point)
        record_key_end(&to, buffer_slice(&t->lo));
    else
        record_key_encode(&to, buffer_slice(&t->hi), STAMP_NEWEST);
    for (size_t i = 0; i < n && status == T4_OK; i++)
        status = open_part(&part[i], buffer_slice(&file[i]->object), buffer_slice(&from),
                           buffer_slice(&to), error);
    if (status == T4_OK)
        status = merge_parts(h, part, n, &t->piece, error);
    if (status != T4_OK) {
        buffer_clear(&t->piece.records);
        error_wrap(error, "merging files of the checkpoint");
    }
    close_parts(part, n);
    mem_free(part);
    buffer_free(&from);
    buffer_free(&to);
    return status;
}

t4_status
fetch_task(struct hydration *h, struct task *t, struct error *error)
{
    size_t n, held = 0;
    struct file **file = files_of(h, t, &n);
    t4_status status = T4_OK;

    mutex_lock(&h->lock);
    ask_ahead(h, file, n);
    while (held < n && (status = hold(h, file[held], error)) == T4_OK)
        held++;
    mutex_unlock(&h->lock);
    if (status == T4_OK)
        status = merge_files(h, t, file, n, error);
    mutex_lock(&h->lock);
    while (held > 0)
        let_go(h, file[--held]);
    mutex_unlock(&h->lock);
    mem_free(file);
    return status;
}

t4_status
fetch_system(struct hydration *h, struct mvcc_piece *out, struct error *error)
{
    uint32_t n = h->checkpoint.n_runs;
    struct part *part = mem_zalloc((n + 1) * sizeof *part);
    t4_status status = T4_OK;
    size_t parts = 0;

    for (uint32_t r = 0; r < n && status == T4_OK; r++)
        if (h->run[r].system.len > 0)
            status = open_part(&part[parts++], buffer_slice(&h->run[r].system),
                               slice_str("s"), slice_str("t"), error);
    if (status == T4_OK)
        status = merge_parts(h, part, parts, out, error);
    if (status != T4_OK)
        error_wrap(error, "the system records of the checkpoint");
    close_parts(part, parts);
    mem_free(part);
    return status;
}

void
fetch_free(struct hydration *h)
{
    for (uint32_t r = 0; r < h->checkpoint.n_runs; r++) {
        for (size_t i = 0; h->file[r] != NULL && i < h->run[r].n; i++)
            buffer_free(&h->file[r][i].object);
        mem_free(h->file[r]);
        h->file[r] = NULL;
        run_index_free(&h->run[r]);
    }
}

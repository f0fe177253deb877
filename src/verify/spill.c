/*
 * spill.c - deep: the records that a stretch of the log makes, sorted, in temporary files.
 *
 * Parts of 32 MiB of log are sorted in memory and written as sorted files (sst/), one behind the other
 * in one temporary file per part, whose name is removed at once: whatever becomes of the process,
 * nothing stays behind.  When there are SPILL_SOURCES_MAX parts they are merged into one.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/memory.h"
#include "verify/verify_int.h"

#define PART_BYTES (32u << 20)
#define PATH_BYTES 4200

/* --- files, one in memory at a time ---------------------------------------------------------- */

void
file_walk_close(struct file_walk *w)
{
    if (w->sst != NULL) {
        sst_cursor_free(&w->cursor);
        sst_close(w->sst);
        w->sst = NULL;
    }
    buffer_free(&w->object);
}

static t4_status
open_next(struct file_walk *w, struct error *error)
{
    t4_status status;

    if (w->sst != NULL) {
        sst_cursor_free(&w->cursor);
        sst_close(w->sst);
        w->sst = NULL;
    }
    status = w->load(w->arg, w->next, &w->object, error);
    if (status == T4_OK)
        status = sst_open(buffer_slice(&w->object), &w->sst, error);
    if (status != T4_OK)
        return status;
    sst_cursor_init(&w->cursor, w->sst);
    w->next++;
    return T4_OK;
}

static t4_status
next_of_files(void *state, struct t4_slice *key, struct t4_slice *value,
              struct error *error)
{
    struct file_walk *w = state;

    for (;;) {
        t4_status status = w->sst != NULL ? sst_cursor_next(&w->cursor, key, value, error)
                                          : T4_E_NOTFOUND;

        if (status == T4_E_NOTFOUND)
            status = open_next(w, error);
        else
            return status;
        if (status != T4_OK)
            return status;
    }
}

struct sst_source
file_walk_source(struct file_walk *w)
{
    return (struct sst_source){next_of_files, w};
}

/* --- a part -------------------------------------------------------------------------------------- */

struct part {
    struct env *env;
    struct env_file *file;
    uint64_t *offset; /* where its files begin, and where the last one ends */
    size_t n;
    struct file_walk walk;
};

struct spill {
    struct verify *v;
    struct sst_sorter sorter; /* the part at hand */
    uint64_t bytes;           /* of log */
    struct part part[SPILL_SOURCES_MAX];
    size_t n_parts;
};

static void
part_close(struct part *p)
{
    file_walk_close(&p->walk);
    if (p->file != NULL)
        p->env->close(p->env->state, p->file);
    mem_free(p->offset);
    *p = (struct part){0};
}

static t4_status
part_load(void *arg, size_t i, struct buffer *object, struct error *error)
{
    struct part *p = arg;
    size_t n, got;
    t4_status status;

    if (i == p->n)
        return T4_E_NOTFOUND;
    n = (size_t)(p->offset[i + 1] - p->offset[i]);
    buffer_clear(object);
    status = p->env->pread(p->env->state, p->file, buffer_reserve(object, n), n,
                           p->offset[i], &got, error);
    object->len = got;
    return status == T4_OK && got < n
               ? error_set(error, T4_E_IO, "a temporary file has become shorter")
               : status;
}

/* The folder's fault, not the store's: IO, whatever it was. */
static t4_status
no_folder(const struct spill *s, struct error *error)
{
    error_wrap(error, "sorting the log in %s", s->v->options->tmp);
    error->status = T4_E_IO;
    return error_hint(error, "name a folder with room by --tmp");
}

static t4_status
part_create(struct spill *s, struct part *p, struct error *error)
{
    struct env *env = s->v->options->env;
    char path[PATH_BYTES];
    uint64_t number;
    t4_status status;

    *p = (struct part){.env = env, .offset = mem_zalloc(sizeof *p->offset)};
    env->random(env->state, &number, sizeof number);
    if (snprintf(path, sizeof path, "%s/t4-verify-%016" PRIx64, s->v->options->tmp,
                 number) >= (int)sizeof path)
        return error_set(error, T4_E_INVALID, "the path of --tmp is too long");
    status = env->open(env->state, path, ENV_CREATE | ENV_EXCLUSIVE, &p->file, error);
    if (status == T4_OK)
        status = env->unlink(env->state, path, error);
    return status == T4_OK ? T4_OK : no_folder(s, error);
}

static t4_status
finish_file(struct spill *s, struct part *p, struct sst_writer *w, struct buffer *object,
            struct error *error)
{
    struct sst_info info;
    t4_status status = sst_writer_finish(w, object, &info, error);

    if (status != T4_OK)
        return status;
    status = p->env->pwrite(p->env->state, p->file, object->data, object->len,
                            p->offset[p->n], error);
    if (status != T4_OK)
        return no_folder(s, error);
    p->n++;
    p->offset = mem_realloc(p->offset, (p->n + 1) * sizeof *p->offset);
    p->offset[p->n] = p->offset[p->n - 1] + object->len;
    return T4_OK;
}

static t4_status
part_write(struct spill *s, struct part *p, struct sst_source source, struct error *error)
{
    struct sst_writer *w = sst_writer_new(NULL);
    struct buffer object = {0};
    struct t4_slice key, value;
    t4_status status = part_create(s, p, error);

    while (status == T4_OK) {
        status = source.next(source.state, &key, &value, error);
        if (status == T4_OK && sst_writer_records(w) > 0 && sst_cut_here(w, key))
            status = finish_file(s, p, w, &object, error);
        if (status == T4_OK)
            status = sst_writer_add(w, key, value, error);
    }
    if (status == T4_E_NOTFOUND)
        status = sst_writer_records(w) > 0 ? finish_file(s, p, w, &object, error) : T4_OK;
    sst_writer_free(w);
    buffer_free(&object);
    return status;
}

/* --- from memory to parts ------------------------------------------------------------------------- */

static void
part_sources(struct spill *s, struct sst_source *source)
{
    for (size_t i = 0; i < s->n_parts; i++) {
        struct part *p = &s->part[i];

        p->walk = (struct file_walk){.load = part_load, .arg = p};
        source[i] = file_walk_source(&p->walk);
    }
}

/* All parts become one. */
static t4_status
merge_parts(struct spill *s, struct error *error)
{
    struct sst_source source[SPILL_SOURCES_MAX];
    struct sst_merge *merge;
    struct part all;
    t4_status status;

    part_sources(s, source);
    merge = sst_merge_new(source, s->n_parts);
    status = part_write(s, &all, sst_merge_source(merge), error);
    sst_merge_free(merge);
    for (size_t i = 0; i < s->n_parts; i++)
        part_close(&s->part[i]);
    s->n_parts = 1;
    s->part[0] = all;
    return status;
}

static t4_status
end_part(struct spill *s, struct error *error)
{
    t4_status status = T4_OK;

    if (s->sorter.n == 0)
        return T4_OK;
    if (s->n_parts == SPILL_SOURCES_MAX)
        status = merge_parts(s, error);
    if (status != T4_OK)
        return status;
    status = part_write(s, &s->part[s->n_parts++], sst_sorter_source(&s->sorter), error);
    sst_sorter_clear(&s->sorter);
    s->bytes = 0;
    /* The same key and stamp twice: no two entries, nor two changes of one, may do that. */
    if (status == T4_E_INVALID)
        return error_set(error, T4_E_CORRUPT, "the log changes a key twice at one stamp");
    return status;
}

/* --- the interface ---------------------------------------------------------------------------------- */

struct spill *
spill_new(struct verify *v)
{
    struct spill *s = mem_zalloc(sizeof *s);

    s->v = v;
    return s;
}

void
spill_free(struct spill *s)
{
    for (size_t i = 0; i < s->n_parts; i++)
        part_close(&s->part[i]);
    sst_sorter_free(&s->sorter);
    mem_free(s);
}

t4_status
spill_entry(void *arg, const struct entry *e, struct t4_slice bytes, struct error *error)
{
    struct spill *s = arg;
    struct byte_reader r = reader_of(bytes);
    struct entry again;
    struct mutation m;
    uint32_t sub = 0;
    uint64_t most = s->v->options->part_bytes;

    entry_decode_head(&r, &again);
    for (uint32_t i = 0; i < e->mutations && entry_next(&r, &m); i++)
        sst_sorter_add(&s->sorter, e, &m, &sub);
    s->bytes += bytes.len;
    return s->bytes >= (most > 0 ? most : PART_BYTES) ? end_part(s, error) : T4_OK;
}

t4_status
spill_sources(struct spill *s, struct sst_source source[SPILL_SOURCES_MAX], size_t *n,
              struct error *error)
{
    t4_status status = end_part(s, error);

    if (status != T4_OK)
        return status;
    part_sources(s, source);
    *n = s->n_parts;
    return T4_OK;
}

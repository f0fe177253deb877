/*
 * spill.c - deep: the records that a stretch of the log makes, sorted on disk (sort/), and
 * sorted files read one behind the other.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <inttypes.h>
#include <stdio.h>

#include "base/memory.h"
#include "verify/verify_int.h"

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

/* --- the log, sorted -------------------------------------------------------------------------- */

struct spill {
    struct verify *v;
    struct sort *sort;
    struct buffer ikey, key, value; /* of the record at hand */
    struct buffer last;             /* key given last */
};

struct spill *
spill_new(struct verify *v)
{
    struct spill *s = mem_zalloc(sizeof *s);

    s->v = v;
    s->sort = sort_new(v->options->env, v->options->tmp, (size_t)v->options->part_bytes);
    return s;
}

void
spill_free(struct spill *s)
{
    sort_free(s->sort);
    buffer_free(&s->ikey);
    buffer_free(&s->key);
    buffer_free(&s->value);
    buffer_free(&s->last);
    mem_free(s);
}

/* The folder's fault, not the store's: IO, whatever it was. */
static t4_status
no_folder(const struct verify *v, struct error *error)
{
    error_wrap(error, "sorting the log in %s", v->options->tmp);
    error->status = T4_E_IO;
    return error_hint(error, "name a folder with room by --tmp");
}

t4_status
spill_check(const struct verify *v, struct error *error)
{
    struct env *env = v->options->env;
    struct env_file *file;

    if (temporary_open(env, v->options->tmp, &file, error) != T4_OK)
        return no_folder(v, error);
    env->close(env->state, file);
    return T4_OK;
}

t4_status
spill_entry(void *arg, const struct entry *e, struct t4_slice bytes, struct error *error)
{
    struct spill *s = arg;
    struct byte_reader r = reader_of(bytes);
    struct entry again;
    struct mutation m;
    struct version v;
    uint32_t sub = 0;

    entry_decode_head(&r, &again);
    for (uint32_t i = 0; i < e->mutations && entry_next(&r, &m); i++) {
        mutation_version(e, &m, &sub, &s->ikey, &v);
        buffer_clear(&s->key);
        record_key_encode(&s->key, buffer_slice(&s->ikey), v.stamp);
        buffer_clear(&s->value);
        record_value_encode(&s->value, buffer_slice(&s->key), &v);
        if (sort_add(s->sort, buffer_slice(&s->key), buffer_slice(&s->value), error) !=
            T4_OK)
            return no_folder(s->v, error);
    }
    return T4_OK;
}

/* The same key and stamp twice: no two entries, nor two changes of one, may do that. */
static t4_status
next_record(void *state, struct t4_slice *key, struct t4_slice *value,
            struct error *error)
{
    struct spill *s = state;
    t4_status status = sort_next(s->sort, key, value, error);

    if (status == T4_E_NOTFOUND)
        return status;
    if (status != T4_OK)
        return no_folder(s->v, error);
    if (slice_equal(*key, buffer_slice(&s->last)))
        return error_set(error, T4_E_CORRUPT, "the log changes a key twice at one stamp");
    buffer_clear(&s->last);
    buffer_append_slice(&s->last, *key);
    return T4_OK;
}

struct sst_source
spill_source(struct spill *s)
{
    return (struct sst_source){next_record, s};
}

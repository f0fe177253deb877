/*
 * run_write.c - sorted records become files and a run index in the store.
 *
 * A file is named by the hash of its bytes and by the checkpoint that first wrote it.  One that
 * comes out with the hash of a file that the replaced manifest reaches is named as that one and not
 * stored again; any other is stored under a name of this checkpoint, which no removal by others
 * can be after (design-review F5).
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <stdlib.h>

#include "base/memory.h"
#include "checkpoint/checkpoint_int.h"
#include "fmt/entry.h"

/* --- sets of files ------------------------------------------------------------------------ */

void
file_set_add(struct file_set *s, const uint8_t hash[SHA256_BYTES], uint64_t term,
             uint64_t index)
{
    if (s->n == s->capacity) {
        s->capacity = s->capacity * 2 + 16;
        s->at = mem_realloc(s->at, s->capacity * sizeof *s->at);
    }
    memcpy(s->at[s->n].sha256, hash, SHA256_BYTES);
    s->at[s->n].term = term;
    s->at[s->n++].index = index;
}

static int
compare(const void *a, const void *b)
{
    const struct file_name *x = a, *y = b;
    int order = memcmp(x->sha256, y->sha256, SHA256_BYTES);

    if (order != 0)
        return order;
    if (x->term != y->term)
        return x->term < y->term ? -1 : 1;
    return x->index < y->index ? -1 : x->index > y->index;
}

void
file_set_sort(struct file_set *s)
{
    if (s->n > 0)
        qsort(s->at, s->n, sizeof *s->at, compare);
}

/* The first that is not below the name. */
static size_t
lower_bound(const struct file_set *s, const struct file_name *name)
{
    size_t low = 0, high = s->n;

    while (low < high) {
        size_t middle = low + (high - low) / 2;

        if (compare(&s->at[middle], name) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

const struct file_name *
file_set_find(const struct file_set *s, const uint8_t hash[SHA256_BYTES])
{
    struct file_name name = {.term = 0};
    size_t i;

    memcpy(name.sha256, hash, SHA256_BYTES);
    i = lower_bound(s, &name);
    return i < s->n && memcmp(s->at[i].sha256, hash, SHA256_BYTES) == 0 ? &s->at[i]
                                                                        : NULL;
}

bool
file_set_has(const struct file_set *s, const uint8_t hash[SHA256_BYTES], uint64_t term,
             uint64_t index)
{
    struct file_name name = {.term = term, .index = index};
    size_t i;

    memcpy(name.sha256, hash, SHA256_BYTES);
    i = lower_bound(s, &name);
    return i < s->n && compare(&s->at[i], &name) == 0;
}

void
file_set_free(struct file_set *s)
{
    mem_free(s->at);
    *s = (struct file_set){0};
}

/* --- writing ------------------------------------------------------------------------------- */

static void
count_upload(struct run_target *t, uint64_t bytes)
{
    t->uploaded += bytes;
    if (t->metrics != NULL)
        metric_add(t->metrics, METRIC_CHECKPOINT_UPLOADED, (int64_t)bytes);
}

/* Under a key that has the hash of these bytes nothing else can stand but something damaged. */
static t4_status
create(struct run_target *t, const char *key, struct t4_slice body, struct error *error)
{
    t4_status status = objectlog_create(t->log, key, body, error);

    return status == T4_E_EXISTS ? objectlog_replace(t->log, key, body, error) : status;
}

/* The file that the writer holds: into the store and into the run. */
static t4_status
finish_file(struct run_target *t, struct sst_writer *w, struct buffer *object,
            struct run_index *run, uint64_t *bytes, struct error *error)
{
    const struct file_name *same;
    char key[SST_KEY_BYTES];
    struct sst_info info;
    t4_status status = sst_writer_finish(w, object, &info, error);

    if (status != T4_OK)
        return status;
    *bytes += info.object_bytes;
    same = t->reuse != NULL ? file_set_find(t->reuse, info.sha256) : NULL;
    if (same != NULL) {
        t->reused += info.object_bytes;
        return run_index_add(run, &info, same->term, same->index, error);
    }
    sst_key(key, info.sha256, t->term, t->index);
    status = create(t, key, buffer_slice(object), error);
    if (status != T4_OK)
        return status;
    count_upload(t, info.object_bytes);
    status = run_index_add(run, &info, t->term, t->index, error);
    if (status == T4_OK && t->between != NULL)
        status = t->between(t->arg, error);
    return status;
}

static t4_status
write_files(struct run_target *t, struct sst_source *records, struct sst_writer *w,
            struct sst_writer *system, struct run_index *run, uint64_t *bytes,
            struct error *error)
{
    struct buffer object = {0};
    struct sst_info info;
    t4_status status;

    for (;;) {
        struct t4_slice key, value;

        status = records->next(records->state, &key, &value, error);
        if (status == T4_OK && key.data[0] == SPACE_SYSTEM) {
            status = sst_writer_add(system, key, value, error);
        } else if (status == T4_OK) {
            if (sst_writer_records(w) > 0 && sst_cut_here(w, key))
                status = finish_file(t, w, &object, run, bytes, error);
            if (status == T4_OK)
                status = sst_writer_add(w, key, value, error);
        }
        if (status != T4_OK)
            break;
    }
    if (status == T4_E_NOTFOUND) /* the end of the records */
        status = sst_writer_records(w) > 0 ? finish_file(t, w, &object, run, bytes, error)
                                           : T4_OK;
    if (status == T4_OK && sst_writer_records(system) > 0)
        status = sst_writer_finish(system, &run->system, &info, error);
    buffer_free(&object);
    return status;
}

static t4_status
put_index(struct run_target *t, const struct run_index *run, struct checkpoint_run *out,
          struct error *error)
{
    struct buffer object = {0};
    char key[SST_KEY_BYTES];
    t4_status status;

    run_index_encode(&object, run);
    sha256(buffer_slice(&object), out->sha256);
    run_key(key, out->sha256, t->term, t->index);
    status = create(t, key, buffer_slice(&object), error);
    if (status == T4_OK)
        count_upload(t, object.len);
    buffer_free(&object);
    return status;
}

t4_status
run_write(struct run_target *t, struct sst_source *records, struct run_index *run,
          struct checkpoint_run *out, struct error *error)
{
    struct sst_filter_builder filter = {0};
    /* A base has every key: its filter would exclude hardly anything. */
    struct sst_writer *w = sst_writer_new(run->is_base ? NULL : &filter);
    struct sst_writer *system = sst_writer_new(NULL);
    t4_status status;

    *out = (struct checkpoint_run){
        .term = t->term, .index = t->index, .is_base = run->is_base};
    status = write_files(t, records, w, system, run, &out->bytes, error);
    sst_writer_free(system);
    sst_writer_free(w);
    if (status == T4_OK && run->n == 0 && run->system.len == 0)
        status = T4_E_NOTFOUND;
    if (status == T4_OK && !run->is_base)
        sst_filter_build(&filter, &run->filter);
    sst_filter_builder_free(&filter);
    return status == T4_OK ? put_index(t, run, out, error) : status;
}

/*
 * fold.c - runs become one base.
 *
 * Every checkpoint reaches back to the first entry of the log, so all of its runs together may
 * become a base: superseded versions and tombstones go that nobody can read any more.  Of each
 * run one file is in memory at a time.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <inttypes.h>

#include "base/memory.h"
#include "checkpoint/checkpoint_int.h"

/*
 * A fold is named one checkpoint later.  So what that one will add, about as much as the newest
 * did, counts already: no checkpoint's runs then weigh half as much again as its base.
 */
bool
fold_is_due(const struct checkpoint_run *run, uint32_t n, uint32_t most)
{
    uint64_t upper = 0, base = 0, newest = 0;

    for (uint32_t i = 0; i < n; i++) {
        *(run[i].is_base ? &base : &upper) += run[i].bytes;
        if (!run[i].is_base && run[i].term == run[0].term && run[i].index == run[0].index)
            newest += run[i].bytes;
    }
    return n >= 2 && (n >= most || (upper + newest) * 2 >= base);
}

/* --- a run, file by file ---------------------------------------------------------------------- */

struct input {
    struct objectlog *log;
    struct run_index run;
    size_t next; /* file; behind the last one come the system records of the index */
    struct buffer object;
    struct sst *sst;
    struct sst_cursor cursor;
};

static void
close_file(struct input *in)
{
    if (in->sst == NULL)
        return;
    sst_cursor_free(&in->cursor);
    sst_close(in->sst);
    in->sst = NULL;
}

static t4_status
open_next(struct input *in, struct error *error)
{
    const struct run_sst *file;
    char key[SST_KEY_BYTES];
    t4_status status;

    close_file(in);
    if (in->next == in->run.n && in->run.system.len > 0) {
        status = sst_open(buffer_slice(&in->run.system), &in->sst, error);
        if (status != T4_OK)
            return error_wrap(error, "the system records of a run"), status;
        sst_cursor_init(&in->cursor, in->sst);
        in->next++;
        return T4_OK;
    }
    if (in->next >= in->run.n)
        return T4_E_NOTFOUND;
    file = &in->run.sst[in->next];
    sst_key(key, file->info.sha256, file->term, file->index);
    status = objectlog_fetch(in->log, key, SST_OBJECT_MAX, &in->object, error);
    if (status == T4_E_NOTFOUND) {
        error_set(error, T4_E_CORRUPT,
                  "the object %s is gone, although a checkpoint needs it", key);
        return error_hint(error,
                          "restore it from a version or a copy that the store keeps");
    }
    if (status != T4_OK)
        return status;
    status = sst_check_object(buffer_slice(&in->object), &file->info, error);
    if (status == T4_OK)
        status = sst_open(buffer_slice(&in->object), &in->sst, error);
    if (status != T4_OK) {
        error_wrap(error, "the object %s", key);
        return error_hint(error,
                          "restore it from a version or a copy that the store keeps");
    }
    sst_cursor_init(&in->cursor, in->sst);
    in->next++;
    return T4_OK;
}

static t4_status
next_record(void *state, struct t4_slice *key, struct t4_slice *value,
            struct error *error)
{
    struct input *in = state;
    t4_status status = T4_OK;

    for (;;) {
        if (in->sst != NULL) {
            status = sst_cursor_next(&in->cursor, key, value, error);
            if (status != T4_E_NOTFOUND)
                return status;
        }
        status = open_next(in, error);
        if (status != T4_OK)
            return status;
    }
}

/* --- the whole -------------------------------------------------------------------------------- */

static t4_status
open_inputs(struct run_target *t, const struct checkpoint_run *runs, uint32_t n,
            struct input *in, struct sst_source *source, struct file_set *files,
            struct error *error)
{
    for (uint32_t i = 0; i < n; i++) {
        t4_status status;

        in[i].log = t->log;
        source[i] = (struct sst_source){next_record, &in[i]};
        status = run_fetch(t->log, &runs[i], &in[i].run, error);
        if (status != T4_OK)
            return status;
        sst_filter_free(&in[i].run.filter);
        for (size_t k = 0; k < in[i].run.n; k++)
            file_set_add(files, in[i].run.sst[k].info.sha256, in[i].run.sst[k].term,
                         in[i].run.sst[k].index);
    }
    file_set_sort(files);
    return T4_OK;
}

t4_status
fold_runs(struct run_target *t, const struct checkpoint_run *runs, uint32_t n,
          struct checkpoint_run *out, struct error *error)
{
    struct input *in = mem_zalloc(n * sizeof *in);
    struct sst_source *source = mem_zalloc(n * sizeof *source);
    struct file_set files = {0};
    const struct file_set *reuse = t->reuse;
    t4_status status = open_inputs(t, runs, n, in, source, &files, error);

    if (status == T4_OK) {
        struct sst_merge *merge = sst_merge_new(source, n);
        struct sst_reduce reduce = {.source = sst_merge_source(merge),
                                    .compacted = in[0].run.compacted,
                                    .is_base = true};
        struct run_index base = {.last_index = in[0].run.last_index,
                                 .last_revision = in[0].run.last_revision,
                                 .compacted = in[0].run.compacted,
                                 .is_base = true};
        struct sst_source records = sst_reduce_source(&reduce);

        t->reuse = &files;
        status = run_write(t, &records, &base, out, error);
        t->reuse = reuse;
        run_index_free(&base);
        sst_reduce_free(&reduce);
        sst_merge_free(merge);
    }
    for (uint32_t i = 0; i < n; i++) {
        close_file(&in[i]);
        buffer_free(&in[i].object);
        run_index_free(&in[i].run);
    }
    file_set_free(&files);
    mem_free(source);
    mem_free(in);
    return status;
}

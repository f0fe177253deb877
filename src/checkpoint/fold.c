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

/* --- the whole -------------------------------------------------------------------------------- */

static t4_status
open_inputs(struct run_target *t, const struct checkpoint_run *runs, uint32_t n,
            struct run_reader *in, struct sst_source *source, struct file_set *files,
            struct error *error)
{
    for (uint32_t i = 0; i < n; i++) {
        t4_status status;

        status = run_reader_open(&in[i], t->log, &runs[i], true, error);
        if (status != T4_OK)
            return status;
        source[i] = run_reader_source(&in[i]);
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
    struct run_reader *in = mem_zalloc(n * sizeof *in);
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
    for (uint32_t i = 0; i < n; i++)
        run_reader_close(&in[i]);
    file_set_free(&files);
    mem_free(source);
    mem_free(in);
    return status;
}

/*
 * rebuild.c - a file of a run that is missing or damaged, made again.
 *
 * What stands in a file follows from the log: for an upper run from the run's interval, for a base
 * from everything up to its end, which is an older checkpoint and the log since, or the log from
 * its first entry.  Where the file is cut follows from where it begins.  So the bytes come out the
 * same, and the hash in the name proves it; what has another hash is thrown away.
 *
 * It needs the log of that time to be in the store still, as archives from the oldest listed
 * checkpoint on are.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <inttypes.h>

#include "base/log.h"
#include "base/memory.h"
#include "checkpoint/checkpoint_int.h"
#include "fmt/entry.h"

/* Changes of one file's keys that are sorted in memory; with more of them it is given up. */
#define SORTED_MAX (UINT64_C(512) << 20)

struct rebuild {
    struct objectlog *log;
    const struct run_index *run;
    const struct run_sst *file;
    struct sst_sorter changes;
    struct buffer ikey;
    struct run_reader *older; /* of the checkpoint that is begun with, newest first */
    uint32_t n_older;
};

/* --- what it is made of --------------------------------------------------------------------- */

static bool
is_within(const struct rebuild *r, struct t4_slice ikey)
{
    return slice_compare(r->file->info.first, ikey) <= 0 &&
           slice_compare(ikey, r->file->info.last) <= 0;
}

static t4_status
take_entry(void *arg, uint64_t index, struct t4_slice bytes, struct error *error)
{
    struct rebuild *r = arg;
    struct byte_reader reader = reader_of(bytes);
    uint32_t sub = 0;
    struct mutation m;
    struct version v;
    struct entry e;

    if (!entry_decode_head(&reader, &e))
        return error_set(error, T4_E_CORRUPT, "log entry %" PRIu64 " cannot be decoded",
                         index);
    for (uint32_t i = 0; i < e.mutations && entry_next(&reader, &m); i++) {
        uint32_t before = sub;

        mutation_version(&e, &m, &sub, &r->ikey, &v);
        if (is_within(r, buffer_slice(&r->ikey)))
            sst_sorter_add(&r->changes, &e, &m, &before);
    }
    return r->changes.arena.len <= SORTED_MAX
               ? T4_OK
               : error_set(error, T4_E_NOMEM, "too much was written to these keys");
}

static void
begin_anew(struct rebuild *r)
{
    for (uint32_t i = 0; i < r->n_older; i++)
        run_reader_close(&r->older[i]);
    r->n_older = 0;
    sst_sorter_clear(&r->changes);
}

/* Opens the runs of an older checkpoint, between the file's first and last key. */
static t4_status
open_older(struct rebuild *r, const struct checkpoint_object *o, struct error *error)
{
    t4_status status = T4_OK;

    for (uint32_t i = 0; i < o->n_runs && status == T4_OK; i++) {
        struct run_reader *reader = &r->older[r->n_older++];

        status = run_reader_open(reader, r->log, &o->run[i], false, error);
        if (status == T4_OK)
            run_reader_limit(reader, r->file->info.first, r->file->info.last);
    }
    return status;
}

/* --- the file --------------------------------------------------------------------------------- */

static t4_status
write_file(struct sst_source *records, struct buffer *object, struct sst_info *info,
           struct error *error)
{
    struct sst_writer *w = sst_writer_new(NULL);
    struct t4_slice key, value;
    t4_status status;

    while ((status = records->next(records->state, &key, &value, error)) == T4_OK &&
           (status = sst_writer_add(w, key, value, error)) == T4_OK)
        ;
    if (status == T4_E_NOTFOUND)
        status = sst_writer_finish(w, object, info, error);
    sst_writer_free(w);
    return status;
}

static t4_status
make_file(struct rebuild *r, struct buffer *object, struct error *error)
{
    struct sst_source *source = mem_zalloc((r->n_older + 1) * sizeof *source);
    struct sst_merge *merge;
    struct sst_reduce reduce = {.compacted = r->run->compacted,
                                .is_base = r->run->is_base};
    struct sst_source records;
    struct sst_info info;
    t4_status status;

    source[0] = sst_sorter_source(&r->changes);
    for (uint32_t i = 0; i < r->n_older; i++)
        source[i + 1] = run_reader_source(&r->older[i]);
    merge = sst_merge_new(source, r->n_older + 1);
    reduce.source = sst_merge_source(merge);
    records = sst_reduce_source(&reduce);
    status = write_file(&records, object, &info, error);
    if (status == T4_OK)
        status = sst_check_object(buffer_slice(object), &r->file->info, error);
    sst_reduce_free(&reduce);
    sst_merge_free(merge);
    mem_free(source);
    return status;
}

/* From one beginning: a checkpoint of the list (its runs, too, if the file is a base's), or none. */
static t4_status
try_from(struct rebuild *r, const struct checkpoint_object *o, struct buffer *object,
         struct error *error)
{
    static const struct chain_floor beginning = {0};
    uint64_t after = r->run->first_index;
    t4_status status = T4_OK;

    begin_anew(r);
    if (r->run->is_base)
        after = o != NULL ? o->index : 0;
    if (r->run->is_base && o != NULL)
        status = open_older(r, o, error);
    if (status == T4_OK)
        status = log_read(r->log, NULL, o != NULL ? &o->place : &beginning, after,
                          r->run->last_index, take_entry, r, error);
    return status == T4_OK ? make_file(r, object, error) : status;
}

/* Every beginning there is, the nearest first; the error is the last one's. */
static t4_status
try_all(struct rebuild *r, struct buffer *object, struct error *error)
{
    const struct manifest_object *m = objectlog_manifest(r->log);
    uint64_t highest = r->run->is_base ? r->run->last_index : r->run->first_index;
    t4_status status = T4_E_CORRUPT;

    for (uint32_t i = 0; i < m->n_checkpoints && status != T4_OK; i++) {
        struct checkpoint_object *o;

        if (m->checkpoint[i].index > highest)
            continue;
        o = mem_alloc(sizeof *o);
        status = objectlog_fetch_checkpoint(r->log, &m->checkpoint[i], o, error);
        if (status == T4_OK)
            status = try_from(r, o, object, error);
        mem_free(o);
        if (status == T4_E_CANCELLED)
            return status;
    }
    return status == T4_OK ? status : try_from(r, NULL, object, error);
}

t4_status
rebuild_file(struct objectlog *log, const struct run_index *run, size_t which,
             struct buffer *object, struct error *error)
{
    struct rebuild r = {.log = log, .run = run, .file = &run->sst[which]};
    char key[SST_KEY_BYTES];
    struct error reason;
    t4_status status;

    sst_key(key, r.file->info.sha256, r.file->term, r.file->index);
    r.older = mem_zalloc(CHECKPOINT_RUNS_MAX * sizeof *r.older);
    status = try_all(&r, object, error);
    begin_anew(&r);
    mem_free(r.older);
    sst_sorter_free(&r.changes);
    buffer_free(&r.ikey);
    if (status != T4_OK) {
        error_wrap(error, "making the object %s again from the log", key);
        return status;
    }
    LOG_WARN("an object of a checkpoint was missing or damaged; it was made again from "
             "the log",
             "object", key, NULL);
    if (objectlog_replace(log, key, buffer_slice(object), &reason) != T4_OK)
        LOG_WARN("it could not be put back into the store", "object", key, "reason",
                 reason.message, NULL);
    return T4_OK;
}

t4_status
checkpoint_rebuild(const struct rebuild_options *options, const struct run_index *run,
                   size_t which, struct buffer *object, struct error *error)
{
    struct objectlog_options o = {.env = options->env,
                                  .store = options->store,
                                  .incarnation = options->incarnation,
                                  .address = "",
                                  .timeout_ns = options->timeout_ns};
    enum objectlog_found found;
    struct objectlog *log;
    t4_status status = objectlog_open(&o, &log, &found, error);

    if (status != T4_OK)
        return status;
    status = rebuild_file(log, run, which, object, error);
    objectlog_close(log);
    return status;
}

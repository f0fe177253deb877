/*
 * run_read.c - a run, record by record: all of it, or what lies between two keys.
 *
 * One file is in memory at a time.  A file that is missing or damaged is made again where the log
 * still has what it was made of (rebuild.c), if the reader asks for that.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "base/memory.h"
#include "checkpoint/checkpoint_int.h"
#include "fmt/record.h"

t4_status
run_fetch(struct objectlog *log, const struct checkpoint_run *name, struct run_index *run,
          struct error *error)
{
    struct buffer object = {0};
    char key[SST_KEY_BYTES];
    t4_status status;

    run_key(key, name->sha256, name->term, name->index);
    status = objectlog_fetch(log, key, RUN_OBJECT_MAX, &object, error);
    if (status == T4_OK) {
        if (!sha256_is(buffer_slice(&object), name->sha256))
            status = error_set(error, T4_E_CORRUPT, "its bytes do not have its hash");
        else
            status = run_index_decode(buffer_slice(&object), run, error);
        if (status != T4_OK) {
            error_wrap(error, "the object %s", key);
            error_hint(error, "restore it from a version or a copy that the store keeps");
        }
    } else if (status == T4_E_NOTFOUND) {
        status = error_set(error, T4_E_CORRUPT,
                           "the object %s is gone, although a checkpoint names it", key);
        error_hint(error, "restore it from a version or a copy that the store keeps");
    }
    buffer_free(&object);
    return status;
}

t4_status
run_reader_open(struct run_reader *r, struct objectlog *log,
                const struct checkpoint_run *name, bool mends, struct error *error)
{
    t4_status status;

    *r = (struct run_reader){.log = log, .mends = mends};
    status = run_fetch(log, name, &r->run, error);
    if (status != T4_OK)
        return status;
    sst_filter_free(&r->run.filter);
    r->end = r->run.n;
    r->system = r->run.system.len > 0;
    return T4_OK;
}

void
run_reader_limit(struct run_reader *r, struct t4_slice first, struct t4_slice last)
{
    run_find(&r->run, first, last, &r->next, &r->end);
    r->system = false;
    record_key_encode(&r->from, first, STAMP_NEWEST);
    record_key_end(&r->to, last);
}

static void
close_file(struct run_reader *r)
{
    if (r->sst == NULL)
        return;
    sst_cursor_free(&r->cursor);
    sst_close(r->sst);
    r->sst = NULL;
}

void
run_reader_close(struct run_reader *r)
{
    close_file(r);
    buffer_free(&r->object);
    buffer_free(&r->from);
    buffer_free(&r->to);
    run_index_free(&r->run);
}

/* The bytes of a file, checked. */
static t4_status
get_file(struct run_reader *r, size_t which, struct error *error)
{
    const struct run_sst *file = &r->run.sst[which];
    char key[SST_KEY_BYTES];
    struct error reason;
    t4_status status;

    sst_key(key, file->info.sha256, file->term, file->index);
    status = objectlog_fetch(r->log, key, SST_OBJECT_MAX, &r->object, error);
    if (status == T4_E_NOTFOUND)
        status = error_set(error, T4_E_CORRUPT,
                           "the object %s is gone, although a checkpoint needs it", key);
    else if (status == T4_OK && (status = sst_check_object(buffer_slice(&r->object),
                                                           &file->info, error)) != T4_OK)
        error_wrap(error, "the object %s", key);
    if (status != T4_E_CORRUPT)
        return status;
    error_hint(error, "restore it from a version or a copy that the store keeps");
    if (!r->mends || rebuild_file(r->log, &r->run, which, &r->object, &reason) != T4_OK)
        return T4_E_CORRUPT;
    return T4_OK;
}

static t4_status
open_next(struct run_reader *r, struct error *error)
{
    t4_status status;

    close_file(r);
    if (r->next == r->end && r->system) {
        r->system = false;
        status = sst_open(buffer_slice(&r->run.system), &r->sst, error);
        if (status != T4_OK)
            return error_wrap(error, "the system records of a run"), status;
    } else if (r->next < r->end) {
        status = get_file(r, r->next, error);
        if (status == T4_OK)
            status = sst_open(buffer_slice(&r->object), &r->sst, error);
        if (status != T4_OK)
            return status;
        r->next++;
    } else {
        return T4_E_NOTFOUND;
    }
    sst_cursor_init(&r->cursor, r->sst);
    return T4_OK;
}

static t4_status
next_record(void *state, struct t4_slice *key, struct t4_slice *value,
            struct error *error)
{
    struct run_reader *r = state;
    bool limited = r->to.len > 0, begins = false;
    t4_status status;

    for (;;) {
        if (r->sst != NULL) {
            status = begins && limited
                         ? sst_cursor_seek(&r->cursor, buffer_slice(&r->from), key, value,
                                           error)
                         : sst_cursor_next(&r->cursor, key, value, error);
            if (status == T4_OK && limited &&
                slice_compare(*key, buffer_slice(&r->to)) >= 0)
                return T4_E_NOTFOUND;
            if (status != T4_E_NOTFOUND)
                return status;
        }
        status = open_next(r, error);
        if (status != T4_OK)
            return status;
        begins = true;
    }
}

struct sst_source
run_reader_source(struct run_reader *r)
{
    return (struct sst_source){next_record, r};
}

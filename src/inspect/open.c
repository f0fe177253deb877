/*
 * open.c - opening a data directory for looking: identity, engine's snapshot, log above it.
 *
 * The order matters beside a running server.  The snapshot comes first, then the log above what
 * the snapshot says it holds: what the server flushes or compacts later changes neither, and the
 * log's files are only deleted up to what the engine holds.  Should files have gone between the
 * two (the snapshot was old by then), all is done again with a new snapshot.
 *
 * The log's entries go into the active memtable of an mvcc of our own, behind the reader's back: a
 * reader sees what is inserted into its memtables, and none is frozen because nothing says that
 * an entry is done.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <stdio.h>

#include "base/memory.h"
#include "env/file.h"
#include "fmt/entry.h"
#include "hydrate/hydrate.h"
#include "inspect/inspect_int.h"
#include "leadership/leadership.h"
#include "wal/wal.h"

#define TRIES 3
#define LOG_BYTES ((uint64_t)1 << 30)
#define MEMTABLE_BYTES ((uint64_t)64 << 20) /* sizes the hash; nothing is frozen */

/* --- the log -------------------------------------------------------------------------------- */

struct reading {
    struct inspection *i;
    uint64_t bytes, first;
    struct buffer ikey;
    struct error damage; /* the first one */
};

static t4_status
take_entry(void *arg, uint64_t index, struct t4_slice bytes, struct error *error)
{
    struct reading *r = arg;
    struct inspection *i = r->i;
    struct byte_reader reader = reader_of(bytes);
    struct mutation m;
    struct entry e;
    uint32_t sub = 0;
    bool good = entry_decode_head(&reader, &e) && e.index == index;

    r->bytes += bytes.len;
    if (r->bytes > i->options.log_bytes) {
        error_set(error, T4_E_NOSPACE,
                  "of the log more than %llu MiB are not in the storage engine yet",
                  (unsigned long long)(i->options.log_bytes >> 20));
        return error_hint(error, "start the server: it brings them there; or ask it with "
                                 "--endpoint");
    }
    if (r->first == 0)
        r->first = index;
    for (uint32_t n = 0; good && n < e.mutations; n++) {
        struct version v;

        good = entry_next(&reader, &m);
        if (good) {
            mutation_version(&e, &m, &sub, &r->ikey, &v);
            mvcc_insert(i->mvcc, buffer_slice(&r->ikey), &v);
        }
    }
    if (!good || !entry_end(&reader)) {
        error_set(error, T4_E_CORRUPT,
                  "log entry %llu has a valid checksum but cannot be decoded",
                  (unsigned long long)index);
        return error_hint(error, "it was written by another version of t4: use that one");
    }
    i->facts.index = index;
    i->facts.term = e.term;
    i->facts.revision = e.revision;
    return T4_OK;
}

static void
take_remark(void *arg, bool damage, const struct error *what)
{
    struct reading *r = arg;

    if (damage && r->damage.status == T4_OK)
        r->damage = *what;
}

static t4_status
damaged(const struct reading *r, struct error *error)
{
    *error = r->damage;
    error->status = T4_E_CORRUPT;
    return error_hint(error, "the state behind the damage is not known; t4 wal export "
                             "shows what can be read of the log");
}

/* From which entry on nothing says that the others agree (RULE_OBJECT). */
static void
note_uncommitted(struct inspection *i, const struct wal_inspection *found)
{
    const struct leadership_recollection *memory = &i->facts.directory.memory;
    uint64_t committed = i->facts.flushed; /* the engine takes nothing else */

    if (found->object_frontier > committed)
        committed = found->object_frontier;
    if (memory->rule == RULE_OBJECT && !memory->built_in && committed < i->facts.index)
        i->facts.uncommitted_from = committed + 1;
}

/* BUSY: entries are missing that may have gone since the snapshot was taken. */
static t4_status
read_log(struct inspection *i, struct error *error)
{
    struct reading r = {.i = i};
    struct wal_inspection found;
    char *dir = env_path(i->options.data_dir, "wal");
    t4_status status = wal_inspect_above(i->options.env, dir, i->facts.flushed,
                                         take_entry, take_remark, &r, &found, error);

    if (status == T4_E_NOTFOUND) {
        error_set(error, status, "there is no log in %s: %s is not there",
                  i->options.data_dir, dir);
        error_hint(error, "--data-dir takes what the server was started with");
    }
    buffer_free(&r.ikey);
    mem_free(dir);
    if (status != T4_OK)
        return status;
    i->facts.log_segments = found.segments;
    i->facts.log_bytes = found.bytes;
    if (found.generation != 0)
        i->facts.generation = found.generation;
    if (found.term > i->facts.term)
        i->facts.term = found.term;
    note_uncommitted(i, &found);
    if (r.first > i->facts.flushed + 1) {
        error_set(error, T4_E_BUSY,
                  "entries %llu to %llu are neither in the storage engine nor in the log",
                  (unsigned long long)i->facts.flushed + 1,
                  (unsigned long long)r.first - 1);
        error_hint(error, "the log does not reach back to what the engine holds: start "
                          "the server, which gets them from the object store");
        return T4_E_BUSY;
    }
    return found.damaged > 0 ? damaged(&r, error) : T4_OK;
}

/* --- the engine ------------------------------------------------------------------------------ */

static t4_status
open_engine(struct inspection *i, struct error *error)
{
    const struct inspection_options *o = &i->options;
    char *dir = env_path(o->data_dir, "engine");
    t4_status status =
        engine_open_reading(o->engine_ops != NULL ? o->engine_ops : engine_memory_ops(),
                            o->engine_plugin, o->engine_name, dir, &i->engine, error);

    if (status == T4_E_NOTFOUND) {
        error_set(error, status, "%s has a log only: the storage engine %s is not there",
                  o->data_dir, dir);
        error_hint(error,
                   "start the server, which makes it from the log; t4 wal export shows "
                   "the log as it is");
    } else if (status == T4_E_UNSUPPORTED || status == T4_E_DENIED) {
        error_hint(error, status == T4_E_DENIED
                              ? "run this as the user that the server runs as"
                              : "ask the server with --endpoint; t4 wal export shows the "
                                "log");
    }
    mem_free(dir);
    return status;
}

/* Parts of a checkpoint may be missing. */
static t4_status
read_mark(struct inspection *i, struct error *error)
{
    struct hydration_mark mark;
    struct buffer bytes = {0};
    t4_status status = mvcc_reader_mark(&i->reader, &bytes, error);

    if (status == T4_OK && hydration_mark_read(buffer_slice(&bytes), &mark)) {
        i->facts.hydrating = true;
        i->facts.checkpoint_revision = mark.revision;
        i->facts.units = mark.units;
        i->facts.units_done = mark.done;
    } else if (status == T4_OK) {
        status = error_set(error, T4_E_CORRUPT,
                           "the storage engine's record of what it lacks is damaged");
        error_hint(error, "start the server: it fills the disk again from the store");
    }
    buffer_free(&bytes);
    return status == T4_E_NOTFOUND ? T4_OK : status;
}

/* A snapshot, and what it says it holds. */
static t4_status
read_engine(struct inspection *i, struct error *error)
{
    struct mvcc_options options = {
        .env = i->options.env,
        .engine = i->engine,
        .cluster_id = i->facts.directory.cluster_id,
        .lineage = i->facts.directory.lineage,
        .memtable_bytes = MEMTABLE_BYTES,
        .flush_slice = 4000,
        .reading = true,
    };
    struct mvcc_state state;
    t4_status status = mvcc_open(&options, &i->mvcc, &state, error);

    if (status != T4_OK)
        return status;
    status = mvcc_read_begin(i->mvcc, &i->reader);
    if (status != T4_OK)
        return error_set(error, status, "cannot read the storage engine: %s",
                         status_text(status));
    i->reading = true;
    status = mvcc_reader_state(&i->reader, &state, error);
    if (status == T4_OK)
        status = read_mark(i, error);
    i->facts.index = i->facts.flushed = state.flushed;
    i->facts.revision = state.revision;
    return status;
}

/* The compacted revision: a record of space 's' (node/recover.c). */
static t4_status
read_compacted(struct inspection *i, struct error *error)
{
    struct version v;
    struct byte_reader r;
    t4_status status = mvcc_get(&i->reader, slice_str("scompacted"), STAMP_NEWEST, &v);

    i->facts.compacted = -1;
    if (status == T4_E_NOTFOUND)
        return T4_OK;
    if (status == T4_OK) {
        r = reader_of(v.value);
        i->facts.compacted = (int64_t)reader_varint(&r);
        if (!r.bad)
            return T4_OK;
        status = T4_E_CORRUPT;
    }
    return error_set(error, status, "the record of the compacted revision: %s",
                     status_text(status));
}

static void
end_reading(struct inspection *i)
{
    if (i->reading)
        mvcc_read_end(&i->reader);
    i->reading = false;
    mvcc_free(i->mvcc);
    i->mvcc = NULL;
}

t4_status
inspection_open(const struct inspection_options *options, struct inspection **out,
                struct error *error)
{
    struct inspection *i = mem_zalloc(sizeof *i);
    t4_status status;

    *out = NULL;
    i->options = *options;
    if (i->options.log_bytes == 0)
        i->options.log_bytes = LOG_BYTES;
    i->facts.engine.size = sizeof i->facts.engine;
    status =
        node_directory_look(options->env, options->data_dir, &i->facts.directory, error);
    if (status == T4_OK)
        status = open_engine(i, error);
    i->facts.generation = i->facts.directory.generation;
    for (int tries = 0; status == T4_OK; tries++) {
        status = read_engine(i, error);
        if (status == T4_OK)
            status = read_log(i, error);
        /* What looks damaged may be a file that the server has just deleted. */
        if ((status != T4_E_BUSY && status != T4_E_CORRUPT) || tries == TRIES)
            break;
        end_reading(i);
        status = T4_OK;
    }
    if (status == T4_OK)
        status = read_compacted(i, error);
    if (status == T4_OK && engine_stats(i->engine, &i->facts.engine) != T4_OK)
        i->facts.engine = (struct t4_engine_stats){.size = sizeof i->facts.engine};
    if (status == T4_OK)
        *out = i;
    else
        inspection_close(i);
    return status;
}

void
inspection_close(struct inspection *i)
{
    if (i == NULL)
        return;
    end_reading(i);
    engine_close(i->engine);
    mem_free(i);
}

const struct inspection_facts *
inspection_facts(const struct inspection *i)
{
    return &i->facts;
}

/*
 * recover.c - from the engine and the log to a node that can serve.
 *
 * The engine holds everything up to its flushed index; the log's entries above it are
 * replayed into memtables exactly as they were inserted when they were new.  Leases and the
 * compacted revision are read from space 's' first and brought up to date by the replay.
 * Entries carry effects, so replay evaluates nothing.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "base/log.h"
#include "base/memory.h"
#include "fmt/entry.h"
#include "node/node_int.h"

#include <stdio.h>

/* A record of space 's' (or its absence) -> evaluation state. */
static bool
system_record(struct node *n, struct t4_slice key, const struct t4_slice *value)
{
    int64_t id, ttl, remaining;

    if (slice_equal(key, slice_str(COMPACTED_KEY))) {
        struct byte_reader r;

        if (value == NULL)
            return false;
        r = reader_of(*value);
        n->compacted = (int64_t)reader_varint(&r);
        return !r.bad;
    }
    if (lease_key_decode(key, &id)) {
        struct lease *l = lease_find(n->leases, id);

        if (l != NULL)
            lease_remove(n->leases, l);
        if (value == NULL)
            return true;
        if (!lease_value_decode(*value, &ttl, &remaining))
            return false;
        lease_add(n->leases, id, ttl, remaining, 0);
        return true;
    }
    if (alarm_is_key(key))
        return alarm_record(n, key, value);
    return false; /* written by a newer version */
}

static t4_status
read_system_space(struct node *n, struct error *error)
{
    struct mvcc_reader reader;
    struct mvcc_walk walk;
    struct t4_slice ikey;
    struct version v;
    t4_status status = mvcc_read_begin(n->mvcc, &reader);

    if (status != T4_OK)
        return error_set(error, status, "cannot read the storage engine: %s",
                         status_text(status));
    mvcc_walk_begin(&walk, &reader, slice_str("s"), slice_of(NULL, 0), STAMP_NEWEST);
    while ((status = mvcc_walk_next(&walk, &ikey, &v)) == T4_OK)
        if (!system_record(n, slice_of(ikey.data + 1, ikey.len - 1), &v.value)) {
            status = T4_E_CORRUPT;
            break;
        }
    mvcc_walk_end(&walk);
    mvcc_read_end(&reader);
    if (status == T4_E_NOTFOUND)
        return T4_OK;
    error_set(error, status, "the storage engine's system records cannot be read: %s",
              status_text(status));
    return error_hint(error,
                      "stop the server and delete the engine's folder: the log brings "
                      "everything back");
}

static t4_status
damaged(uint64_t index, struct error *error)
{
    error_set(error, T4_E_CORRUPT,
              "log entry %llu has a valid checksum but cannot be decoded",
              (unsigned long long)index);
    return error_hint(error,
                      "it was written by another version of t4: start that version");
}

/* Replay of a long log in bounded memory.  What is not committed cannot be flushed. */
static t4_status
make_room(struct node *n, struct error *error)
{
    while (mvcc_frozen_count(n->mvcc) >= 3 && n->replayed <= n->replay_commit &&
           !atomic_load(&n->stopping)) {
        uint64_t pause;
        t4_status status;

        if (atomic_load(&n->threads_run)) { /* the engine thread's work */
            background_wait_flush(n);
            continue;
        }
        status = mvcc_work(n->mvcc, &pause, error);
        /*
         * A full disk must not keep from starting: what was accepted when it was full fits
         * in memory again.  (Without the engine's folder the log may be longer than that.)
         */
        if (status == T4_E_NOSPACE &&
            mvcc_held_bytes(n->mvcc) <=
                n->options.backlog_bytes + 2 * n->options.memtable_bytes)
            break;
        if (status != T4_OK && status != T4_E_NOTFOUND)
            return status;
    }
    return T4_OK;
}

static t4_status
replay(void *arg, uint64_t index, struct t4_slice bytes, struct error *error)
{
    struct node *n = arg;
    struct byte_reader r = reader_of(bytes);
    struct buffer ikey = {0};
    struct mutation m;
    struct entry e;
    uint32_t sub = 0;

    if (!entry_decode_head(&r, &e) || e.index != index)
        return damaged(index, error);
    for (uint32_t i = 0; i < e.mutations; i++) {
        struct version v;

        if (!entry_next(&r, &m) ||
            (m.space == SPACE_SYSTEM &&
             !system_record(n, m.key, m.flags & MUTATION_TOMBSTONE ? NULL : &m.value))) {
            buffer_free(&ikey);
            return damaged(index, error);
        }
        mutation_version(&e, &m, &sub, &ikey, &v);
        mvcc_insert(n->mvcc, buffer_slice(&ikey), &v);
    }
    buffer_free(&ikey);
    if (!entry_end(&r))
        return damaged(index, error);
    n->index = n->replayed = index;
    n->revision = e.revision;
    n->time_ms = e.time_ms > n->time_ms ? e.time_ms : n->time_ms;
    if (index <= n->replay_commit)
        mvcc_publish(n->mvcc, index, n->compacted);
    if (!mvcc_entry_done(n->mvcc, index, e.revision, n->time_ms))
        return T4_OK;
    return make_room(n, error);
}

t4_status
recover_more(struct node *n, uint64_t last, uint64_t commit, struct error *error)
{
    t4_status status;

    n->replay_commit = commit;
    status = wal_replay(n->wal, n->replayed, last, replay, n, error);
    if (status == T4_OK) /* of entries that were replayed before they were committed */
        mvcc_publish(n->mvcc, commit < n->replayed ? commit : n->replayed, n->compacted);
    return status;
}

static t4_status
open_log(struct node *n, struct wal_recovered *recovered, struct error *error)
{
    size_t size = strlen(n->data_dir) + 5;
    char *dir = mem_alloc(size);
    struct wal_options options = {
        .env = n->options.env,
        .cluster_id = n->identity.cluster_id,
        .lineage = n->identity.lineage,
        .segment_bytes = n->options.segment_bytes,
        .reserve_bytes = n->options.reserve_bytes,
        .metrics = &n->metrics,
        .begins_anywhere = n->lead != NULL && n->index == 0,
    };
    t4_status status;

    snprintf(dir, size, "%s/wal", n->data_dir);
    options.dir = dir;
    status = wal_open(&options, n->index, NULL, NULL, &n->wal, recovered, error);
    mem_free(dir);
    if (status == T4_OK && recovered->torn)
        LOG_INFO(
            "the log ended in a torn tail (never acknowledged), which was left behind",
            NULL);
    return status;
}

/*
 * The engine takes only what the log has synced.  So entries are missing here, and maybe more
 * than the engine holds: acknowledged ones.
 */
static t4_status
log_is_short(struct node *n, uint64_t last, struct error *error)
{
    error_set(
        error, T4_E_CORRUPT,
        "the log in %s/wal ends at entry %llu, but the storage engine holds entries "
        "up to %llu: segments of the log are missing",
        n->data_dir, (unsigned long long)last, (unsigned long long)n->index);
    return error_hint(error,
                      "put the missing segments back; or delete the engine's folder "
                      "to go on with what the log has, and lose the rest");
}

static t4_status
open_versions(struct node *n, struct error *error)
{
    struct mvcc_options options = {
        .env = n->options.env,
        .engine = n->engine,
        .cluster_id = n->identity.cluster_id,
        .lineage = n->identity.lineage,
        .memtable_bytes = n->options.memtable_bytes,
        .flush_slice = 4000,
        .flush_pause_ns = 5000000,
        .metrics = &n->metrics,
        .damaged = node_engine_damaged,
        .damaged_arg = n,
    };
    struct mvcc_state state;
    t4_status status = mvcc_open(&options, &n->mvcc, &state, error);

    if (status != T4_OK)
        return status;
    n->index = n->replayed = state.flushed;
    n->revision = state.revision;
    n->time_ms = state.time_ms;
    n->compacted = -1;
    status = read_system_space(n, error);
    if (status == T4_OK)
        mvcc_publish(n->mvcc, n->index, n->compacted);
    return status;
}

t4_status
recover_without_engine(struct node *n, struct error *error)
{
    t4_status status;

    base_free(n);
    mvcc_free(n->mvcc);
    n->mvcc = NULL;
    lease_table_free(n->leases);
    n->leases = lease_table_new(n->identity.incarnation);
    alarm_forget(n);
    status = node_open_engine(n, true, error);
    return status == T4_OK ? open_versions(n, error) : status;
}

t4_status
recover_at_checkpoint(struct node *n, const struct checkpoint_object *c,
                      struct error *error)
{
    t4_status status;

    n->index = n->replayed = c->index;
    n->revision = c->revision;
    n->time_ms = c->time_ms;
    n->compacted = -1;
    status = read_system_space(n, error);
    if (status == T4_OK)
        mvcc_publish(n->mvcc, n->index, n->compacted);
    return status;
}

/* How far the log is known to be committed before the store has been asked. */
static uint64_t
committed_here(const struct node *n, const struct wal_recovered *recovered)
{
    uint64_t known = recovered->object_frontier;

    if (!n->identity.copied && !n->options.discard_divergent_tail &&
        leadership_last_rule(n->lead) != RULE_OBJECT)
        known = recovered->last_index;
    if (known > recovered->last_index)
        known = recovered->last_index;
    return known > n->index ? known : n->index;
}

t4_status
node_recover(struct node *n, struct error *error)
{
    struct wal_recovered recovered;
    t4_status status = open_versions(n, error);

    if (status == T4_OK)
        status = base_resume(n, error);
    if (status == T4_E_CORRUPT && n->lead != NULL) {
        LOG_ERROR("the storage engine is damaged; beginning without it: log and object "
                  "store bring everything back",
                  "reason", error->message, NULL);
        status = recover_without_engine(n, error);
    }
    if (status == T4_OK)
        status = open_log(n, &recovered, error);
    if (status == T4_OK && recovered.last_index < n->index && n->lead != NULL) {
        LOG_WARN(
            "the local log ends before what the storage engine holds; beginning without "
            "the engine: log and object store bring everything back",
            NULL);
        /* An engine that was just begun is ahead of a log that has not been started yet. */
        n->log_was_short = n->hydration == NULL;
        wal_close(n->wal);
        n->wal = NULL;
        status = recover_without_engine(n, error);
        if (status == T4_OK)
            status = open_log(n, &recovered, error);
    }
    if (status != T4_OK)
        return status;
    if (recovered.last_index < n->index)
        return log_is_short(n, recovered.last_index, error);
    n->recovered = recovered;
    if (recovered.begins > 0) {
        LOG_WARN("the storage engine is missing, and the log does not reach back to the "
                 "beginning: beginning from the newest checkpoint of the object store",
                 NULL);
        n->needs_base = true;
        atomic_store(&n->term, recovered.last_term);
    } else if (n->lead != NULL) {
        uint64_t committed = committed_here(n, &recovered);

        atomic_store(&n->term, recovered.last_term);
        status = recover_more(n, committed, committed, error);
    } else {
        status = recover_more(n, recovered.last_index, recovered.last_index, error);
        /* A term is never resumed; etcd's first term on a fresh single node is 2. */
        atomic_store(&n->term, recovered.last_term < 1 ? 2 : recovered.last_term + 1);
        if (status == T4_OK)
            status = wal_start(n->wal, n->identity.generation, n->term, error);
    }
    if (status != T4_OK)
        return status;
    lease_restart_all(n->leases, n->options.env->boot_ns(n->options.env->state));
    n->publish.now = (struct snapshot){n->index, n->revision, n->compacted};
    if (n->compacted > 0)
        mvcc_compact(n->mvcc, n->compacted);
    return T4_OK;
}

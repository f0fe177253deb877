/*
 * mvcc.c - opening, writing, views and point reads.  Walks: walk.c; flush and compaction:
 * work.c.  See mvcc.h.
 *
 * State record: engine key 0x01 "state" (below every space), written with the last slice of
 * each flush; value: u8 format (1) · u64 index · i64 revision · u64 time_ms · u64 cluster id
 * · u64 lineage · u32 CRC-32C of what precedes.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "base/crc32c.h"
#include "base/hash.h"
#include "base/memory.h"
#include "mvcc/mvcc_int.h"

#define STATE_FORMAT 1
#define STATE_BYTES (1 + 5 * 8 + 4)

struct t4_slice
mvcc_state_key(void)
{
    return slice_of("\1state", 6);
}

void
mvcc_state_encode(struct buffer *out, const struct mvcc *m, uint64_t index,
                  int64_t revision, uint64_t time_ms)
{
    size_t start = out->len;

    buffer_append_u8(out, STATE_FORMAT);
    buffer_append_u64(out, index);
    buffer_append_u64(out, (uint64_t)revision);
    buffer_append_u64(out, time_ms);
    buffer_append_u64(out, m->options.cluster_id);
    buffer_append_u64(out, m->options.lineage);
    buffer_append_u32(out, crc32c(0, out->data + start, out->len - start));
}

static t4_status
state_decode(struct mvcc *m, struct t4_slice value, struct mvcc_state *state,
             struct error *error)
{
    struct byte_reader r = reader_of(value);
    uint64_t cluster_id, lineage;

    if (value.len != STATE_BYTES || reader_u8(&r) != STATE_FORMAT ||
        crc32c(0, value.data, STATE_BYTES - 4) !=
            get_u32le(value.data + STATE_BYTES - 4)) {
        error_set(error, T4_E_CORRUPT, "the storage engine's state record is damaged");
        return error_hint(error,
                          "stop the server and delete the engine's folder: the log "
                          "brings everything back");
    }
    state->flushed = reader_u64(&r);
    state->revision = (int64_t)reader_u64(&r);
    state->time_ms = reader_u64(&r);
    cluster_id = reader_u64(&r);
    lineage = reader_u64(&r);
    if (cluster_id != m->options.cluster_id || lineage != m->options.lineage) {
        error_set(
            error, T4_E_INVALID,
            "the storage engine belongs to cluster %016llx (lineage %016llx), the data "
            "directory to %016llx (%016llx)",
            (unsigned long long)cluster_id, (unsigned long long)lineage,
            (unsigned long long)m->options.cluster_id,
            (unsigned long long)m->options.lineage);
        return error_hint(error,
                          "the engine's folder was copied from another data directory: "
                          "delete it and the log brings everything back");
    }
    return T4_OK;
}

/* What a snapshot of the engine holds. */
static t4_status
state_in(struct mvcc *m, struct t4_snap *snap, struct mvcc_state *state,
         struct error *error)
{
    struct t4_slice value;
    t4_status status = engine_get(m->options.engine, snap, mvcc_state_key(), &value);

    *state = (struct mvcc_state){.revision = 1};
    if (status == T4_OK)
        return state_decode(m, value, state, error);
    if (status == T4_E_NOTFOUND)
        return T4_OK;
    return error_set(error, status, "cannot read the storage engine's state: %s",
                     status_text(status));
}

t4_status
mvcc_reader_state(struct mvcc_reader *r, struct mvcc_state *state, struct error *error)
{
    return state_in(r->mvcc, r->snap, state, error);
}

static t4_status
state_read(struct mvcc *m, struct mvcc_state *state, struct error *error)
{
    struct t4_snap *snap;
    t4_status status;
    uint64_t flushed;

    *state = (struct mvcc_state){.revision = 1};
    status = engine_snap(m->options.engine, &snap);
    if (status != T4_OK)
        return error_set(error, status, "cannot read the storage engine: %s",
                         status_text(status));
    status = state_in(m, snap, state, error);
    engine_snap_end(m->options.engine, snap);
    if (status == T4_OK && !m->options.reading &&
        engine_flushed(m->options.engine, &flushed) == T4_OK &&
        flushed != state->flushed) {
        status =
            error_set(error, T4_E_CORRUPT,
                      "the storage engine says it holds the log up to %llu, its state "
                      "record says %llu",
                      (unsigned long long)flushed, (unsigned long long)state->flushed);
        error_hint(error,
                   "stop the server and delete the engine's folder: the log brings "
                   "everything back");
    }
    return status;
}

t4_status
mvcc_open(const struct mvcc_options *options, struct mvcc **out, struct mvcc_state *state,
          struct error *error)
{
    struct mvcc *m = mem_zalloc(sizeof *m);
    t4_status status;

    *out = NULL;
    m->options = *options;
    if (m->options.env == NULL)
        m->options.env = env_posix();
    m->options.env->random(m->options.env->state, &m->hash_seed, sizeof m->hash_seed);
    status = state_read(m, state, error);
    if (status != T4_OK) {
        mem_free(m);
        return status;
    }
    mutex_init(&m->view_lock);
    install_init(m);
    atomic_init(&m->flushed, state->flushed);
    atomic_init(&m->flushed_revision, state->revision);
    m->active = memtable_new(options->memtable_bytes, m->hash_seed);
    m->view = mem_zalloc(sizeof *m->view);
    atomic_init(&m->view->references, 1);
    m->view->n = 1;
    m->view->table[0] = m->active;
    *out = m;
    return T4_OK;
}

void
memtable_unref(struct memtable *t)
{
    if (atomic_fetch_sub_explicit(&t->references, 1, memory_order_acq_rel) == 1)
        memtable_delete(t);
}

static void
view_unref(struct mvcc_view *v)
{
    if (atomic_fetch_sub_explicit(&v->references, 1, memory_order_acq_rel) != 1)
        return;
    for (uint32_t i = 0; i < v->n; i++)
        memtable_unref(v->table[i]);
    mem_free(v);
}

void
mvcc_free(struct mvcc *m)
{
    if (m == NULL)
        return;
    if (m->job.flushing != NULL)
        memtable_unref(m->job.flushing);
    view_unref(m->view);
    buffer_free(&m->job.position);
    buffer_free(&m->job.keys);
    buffer_free(&m->job.values);
    mem_free(m->job.op);
    install_free(m);
    mutex_destroy(&m->view_lock);
    mem_free(m);
}

void
mvcc_view_change(struct mvcc *m, struct memtable *newest, struct memtable *gone)
{
    struct mvcc_view *v = mem_zalloc(sizeof *v), *old;

    atomic_init(&v->references, 1);
    mutex_lock(&m->view_lock);
    old = m->view;
    if (newest != NULL)
        v->table[v->n++] = newest;
    for (uint32_t i = 0; i < old->n; i++) {
        if (old->table[i] == gone)
            continue;
        atomic_fetch_add_explicit(&old->table[i]->references, 1, memory_order_relaxed);
        v->table[v->n++] = old->table[i];
    }
    m->view = v;
    mutex_unlock(&m->view_lock);
    view_unref(old);
}

struct memtable *
mvcc_oldest_frozen(struct mvcc *m)
{
    struct memtable *t = NULL;

    mutex_lock(&m->view_lock);
    if (m->view->n > 1) {
        t = m->view->table[m->view->n - 1];
        atomic_fetch_add_explicit(&t->references, 1, memory_order_relaxed);
    }
    mutex_unlock(&m->view_lock);
    return t;
}

void
mvcc_insert(struct mvcc *m, struct t4_slice ikey, const struct version *v)
{
    memtable_insert(m->active, ikey, v);
}

static void
freeze(struct mvcc *m)
{
    struct memtable *next;

    if (m->active->last_index == 0 || mvcc_frozen_count(m) + 1 >= TABLES_MAX)
        return;
    next = memtable_new(m->options.memtable_bytes, m->hash_seed);
    atomic_fetch_add(&m->bytes_frozen, memtable_bytes(m->active));
    atomic_fetch_add(&m->frozen_count, 1);
    mvcc_view_change(m, next, NULL);
    m->active = next;
    atomic_store(&m->active_bytes, memtable_bytes(next));
}

void
mvcc_freeze(struct mvcc *m)
{
    if (mvcc_frozen_count(m) < TABLES_MAX / 2) /* the other half is for full ones */
        freeze(m);
}

bool
mvcc_entry_done(struct mvcc *m, uint64_t index, int64_t revision, uint64_t time_ms)
{
    struct memtable *before = m->active;

    m->active->last_index = index;
    m->active->last_revision = revision;
    m->active->time_ms = time_ms;
    atomic_store_explicit(&m->active_bytes, memtable_bytes(m->active),
                          memory_order_relaxed);
    if (memtable_bytes(m->active) >= m->options.memtable_bytes)
        freeze(m);
    return m->active != before;
}

uint64_t
mvcc_frozen_bytes(struct mvcc *m)
{
    uint64_t flushed = atomic_load(&m->bytes_flushed); /* first: it never leads */

    return atomic_load(&m->bytes_frozen) - flushed;
}

uint32_t
mvcc_frozen_count(struct mvcc *m)
{
    return atomic_load(&m->frozen_count);
}

uint64_t
mvcc_held_bytes(struct mvcc *m)
{
    return mvcc_frozen_bytes(m) + atomic_load(&m->active_bytes);
}

uint64_t
mvcc_inserted_bytes(struct mvcc *m)
{
    return atomic_load(&m->bytes_frozen) + atomic_load(&m->active_bytes);
}

uint64_t
mvcc_flushed_bytes(struct mvcc *m)
{
    return atomic_load(&m->bytes_flushed);
}

void
mvcc_publish(struct mvcc *m, uint64_t index, int64_t compacted)
{
    /* compacted first: whoever sees the index has the compacted revision that goes with it */
    atomic_store_explicit(&m->compacted, compacted, memory_order_release);
    atomic_store_explicit(&m->committed, index, memory_order_release);
}

int64_t
mvcc_compacted(struct mvcc *m)
{
    return atomic_load_explicit(&m->compacted, memory_order_acquire);
}

uint64_t
mvcc_flushed_index(struct mvcc *m)
{
    return atomic_load_explicit(&m->flushed, memory_order_acquire);
}

t4_status
mvcc_read_begin(struct mvcc *m, struct mvcc_reader *r)
{
    t4_status status;

    *r = (struct mvcc_reader){.mvcc = m};
    mutex_lock(&m->view_lock);
    r->view = m->view;
    atomic_fetch_add_explicit(&r->view->references, 1, memory_order_relaxed);
    mutex_unlock(&m->view_lock);
    status = engine_snap(m->options.engine, &r->snap);
    if (status != T4_OK) {
        r->snap = NULL;
        mvcc_read_end(r);
    }
    return status;
}

void
mvcc_read_end(struct mvcc_reader *r)
{
    if (r->iter != NULL)
        engine_iter_end(r->mvcc->options.engine, r->iter);
    if (r->get_iter != NULL)
        engine_iter_end(r->mvcc->options.engine, r->get_iter);
    if (r->snap != NULL)
        engine_snap_end(r->mvcc->options.engine, r->snap);
    if (r->view != NULL)
        view_unref(r->view);
    buffer_free(&r->scratch);
    buffer_free(&r->key);
    *r = (struct mvcc_reader){0};
}

t4_status
mvcc_record_decode(struct mvcc *m, struct t4_slice key, struct t4_slice value,
                   struct version *v)
{
    if (record_verify(key, value) && record_value_decode(value, v))
        return T4_OK;
    if (m->options.damaged != NULL)
        m->options.damaged(m->options.damaged_arg);
    return T4_E_CORRUPT;
}

/* Newest version of ikey at or below `stamp` in the engine. */
static t4_status
engine_version(struct mvcc_reader *r, struct t4_slice ikey, uint64_t stamp,
               struct version *v)
{
    struct engine *e = r->mvcc->options.engine;
    struct t4_slice key, value, found;
    t4_status status;

    if (r->get_iter == NULL) {
        status = engine_iter(e, r->snap, &r->get_iter);
        if (status != T4_OK)
            return status;
    }
    buffer_clear(&r->scratch);
    record_key_encode(&r->scratch, ikey, stamp);
    status = engine_seek(e, r->get_iter, buffer_slice(&r->scratch), &key, &value);
    if (status != T4_OK)
        return status;
    /* The record is this key's iff it equals the sought key but for the stamp. */
    found = slice_of(r->scratch.data, r->scratch.len - 8);
    if (key.len != r->scratch.len || !slice_has_prefix(key, found))
        return T4_E_NOTFOUND;
    v->stamp = ~get_u64be(key.data + key.len - 8);
    return mvcc_record_decode(r->mvcc, key, value, v);
}

t4_status
mvcc_get(struct mvcc_reader *r, struct t4_slice ikey, uint64_t stamp, struct version *v)
{
    if (r->overlay != NULL && memtable_get(r->overlay, ikey, stamp, v))
        return T4_OK;
    for (uint32_t i = 0; i < r->view->n; i++)
        if (memtable_get(r->view->table[i], ikey, stamp, v))
            return T4_OK;
    return engine_version(r, ikey, stamp, v);
}

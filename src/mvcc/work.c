/*
 * work.c - the engine thread's work: flushing memtables and removing what compaction allows,
 * one slice at a time.  (Filling an engine from a checkpoint: install.c.)
 *
 * Why slices: one large engine transaction was measured to take 312 MB of memory and to stall
 * the log's fdatasync for 148 ms.  A crash between slices is harmless: replay inserts the same
 * versions again.
 *
 * In the spaces 's' and 'l' only the newest version is ever read, so the flush of such a key
 * replaces what the engine holds of it, and its tombstone removes it; history is kept in space
 * 'k' only.  (Where the engine does not hold everything below the flushed index yet, see
 * install.c, the tombstone stays.)
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "base/memory.h"
#include "fmt/entry.h"
#include "mvcc/mvcc_int.h"

#define SLICE_BYTES (4u * 1024 * 1024)
#define SLOW_NS UINT64_C(100000000) /* what etcd calls a slow apply: 100 ms */
#define COMPACT_SCAN 20000u         /* records looked at per slice of a compaction */

/* --- a slice's operations --------------------------------------------------------------- */

void
mvcc_slice_clear(struct mvcc_job *job)
{
    job->n_ops = 0;
    buffer_clear(&job->keys);
    buffer_clear(&job->values);
}

/*
 * Keys and values are collected in growing buffers, so operations hold offsets (in `data`)
 * until the slice is written.
 */
static struct t4_op *
slice_add(struct mvcc_job *job, uint32_t kind)
{
    if (job->n_ops == job->op_capacity) {
        job->op_capacity = job->op_capacity > 0 ? 2 * job->op_capacity : 1024;
        job->op = mem_realloc(job->op, job->op_capacity * sizeof *job->op);
    }
    job->op[job->n_ops] = (struct t4_op){
        .kind = kind,
        .key = {(const uint8_t *)job->keys.len, 0},
        .value = {(const uint8_t *)job->values.len, 0},
    };
    return &job->op[job->n_ops++];
}

static void
slice_put(struct mvcc_job *job, struct t4_slice ikey, const struct version *v)
{
    struct t4_op *op = slice_add(job, T4_OP_PUT);
    size_t at = job->keys.len;

    record_key_encode(&job->keys, ikey, v->stamp);
    op->key.len = job->keys.len - at;
    at = job->values.len;
    record_value_encode(
        &job->values, slice_of(job->keys.data + (uintptr_t)op->key.data, op->key.len), v);
    op->value.len = job->values.len - at;
}

void
mvcc_slice_put(struct mvcc_job *job, struct t4_slice key, struct t4_slice value)
{
    struct t4_op *op = slice_add(job, T4_OP_PUT);

    buffer_append_slice(&job->keys, key);
    op->key.len = key.len;
    buffer_append_slice(&job->values, value);
    op->value.len = value.len;
}

void
mvcc_slice_delete(struct mvcc_job *job, struct t4_slice encoded_key)
{
    struct t4_op *op = slice_add(job, T4_OP_DELETE);

    buffer_append_slice(&job->keys, encoded_key);
    op->key.len = encoded_key.len;
}

bool
mvcc_slice_full(const struct mvcc *m)
{
    return m->job.n_ops >= m->options.flush_slice ||
           m->job.keys.len + m->job.values.len >= SLICE_BYTES;
}

t4_status
mvcc_slice_write_unsynced(struct mvcc *m, uint64_t flushed, struct error *error)
{
    struct mvcc_job *job = &m->job;
    t4_status status;

    for (size_t i = 0; i < job->n_ops; i++) {
        job->op[i].key.data = job->keys.data + (uintptr_t)job->op[i].key.data;
        job->op[i].value.data = job->values.data + (uintptr_t)job->op[i].value.data;
    }
    status = engine_write(m->options.engine, job->op, job->n_ops, flushed, error);
    mvcc_slice_clear(job);
    return status;
}

t4_status
mvcc_slice_write(struct mvcc *m, uint64_t flushed, struct error *error)
{
    struct env *env = m->options.env;
    uint64_t begin = env->boot_ns(env->state), took;
    t4_status status = mvcc_slice_write_unsynced(m, flushed, error);

    if (status == T4_OK)
        status = engine_sync(m->options.engine, error);
    if (m->options.metrics == NULL)
        return status;
    took = env->boot_ns(env->state) - begin;
    metric_observe(m->options.metrics, METRIC_ENGINE_COMMIT, took);
    if (took > SLOW_NS)
        metric_add(m->options.metrics, METRIC_SLOW_APPLY, 1);
    return status;
}

/* --- flush -------------------------------------------------------------------------------- */

/* Deletes what the engine holds of a key of space 's' or 'l' that is about to be replaced. */
static t4_status
replace_in_engine(struct mvcc *m, struct t4_snap *snap, struct t4_slice ikey)
{
    struct buffer from = {0};
    struct t4_iter *it;
    struct t4_slice key, value, prefix;
    t4_status status = engine_iter(m->options.engine, snap, &it);

    if (status != T4_OK)
        return status;
    record_key_encode(&from, ikey, STAMP_NEWEST);
    prefix = slice_of(from.data, from.len - 8);
    status = engine_seek(m->options.engine, it, buffer_slice(&from), &key, &value);
    while (status == T4_OK && key.len == from.len && slice_has_prefix(key, prefix)) {
        mvcc_slice_delete(&m->job, key);
        status = engine_next(m->options.engine, it, &key, &value);
    }
    engine_iter_end(m->options.engine, it);
    buffer_free(&from);
    return status == T4_E_NOTFOUND ? T4_OK : status;
}

/* Adds what must go into the engine of one key of the memtable. */
static t4_status
flush_key(struct mvcc *m, struct t4_snap *snap, const struct memtable_key *k)
{
    struct t4_slice ikey = memtable_key_slice(k);
    const struct memtable_version *v = memtable_version_at(k, STAMP_NEWEST);
    int64_t compacted = mvcc_compacted(m);
    uint64_t last = 0;

    if (ikey.data[0] != SPACE_KEYS) {
        t4_status status = replace_in_engine(m, snap, ikey);

        /* A tombstone hides what is still to come from the checkpoint. */
        if (status == T4_OK &&
            (!(v->v.flags & VERSION_TOMBSTONE) || !engine_holds(m, ikey)))
            slice_put(&m->job, ikey, &v->v);
        return status;
    }
    for (bool first = true; v != NULL; v = v->older, first = false) {
        if (!first && v->v.stamp == last)
            continue; /* replaced within one transaction */
        last = v->v.stamp;
        slice_put(&m->job, ikey, &v->v);
        if ((int64_t)v->v.stamp <= compacted)
            break; /* what is older was superseded at or below the compacted revision */
    }
    return T4_OK;
}

static t4_status
flush_done(struct mvcc *m)
{
    struct memtable *t = m->job.flushing;

    atomic_store_explicit(&m->flushed_revision, t->last_revision, memory_order_release);
    atomic_store_explicit(&m->flushed, t->last_index, memory_order_release);
    mvcc_view_change(m, NULL, t);
    atomic_fetch_add(&m->bytes_flushed, memtable_bytes(t));
    atomic_fetch_sub(&m->frozen_count, 1);
    memtable_unref(t);
    m->job.flushing = NULL;
    m->job.compaction_next = true;
    if (m->options.metrics != NULL) {
        metric_add(m->options.metrics, METRIC_FLUSHES, 1);
        metric_observe(m->options.metrics, METRIC_FLUSH_SECONDS,
                       m->options.env->boot_ns(m->options.env->state) -
                           m->job.flush_began_ns);
    }
    return T4_OK;
}

/*
 * *wanted: the revision, read once: it may grow beyond what is flushed at any time.  While the
 * flush finds no space, what the engine holds is compacted as far as it goes.
 */
static bool
compaction_is_due(struct mvcc *m, int64_t *wanted)
{
    int64_t flushed = atomic_load(&m->flushed_revision);

    *wanted = atomic_load(&m->compact_wanted);
    if (atomic_load(&m->incomplete)) /* what it must not bring back is not all here */
        return false;
    if (m->job.flush_stuck && *wanted > flushed)
        *wanted = flushed;
    return *wanted > atomic_load(&m->compact_done) && *wanted <= flushed;
}

static t4_status
flush_slice(struct mvcc *m, struct error *error)
{
    struct mvcc_job *job = &m->job;
    struct memtable *t = job->flushing;
    const struct memtable_key *k = job->next;
    struct t4_snap *snap;
    uint64_t flushed = mvcc_flushed_index(m);
    int64_t wanted;
    t4_status status = engine_snap(m->options.engine, &snap);

    mvcc_slice_clear(job);
    while (status == T4_OK && k != NULL && !mvcc_slice_full(m)) {
        status = flush_key(m, snap, k);
        k = memtable_key_next(k);
    }
    if (snap != NULL)
        engine_snap_end(m->options.engine, snap);
    if (status != T4_OK)
        return error_set(error, status,
                         "cannot read the storage engine during a flush: %s",
                         status_text(status));
    if (k == NULL) {
        struct buffer state = {0};

        mvcc_state_encode(&state, m, t->last_index, t->last_revision, t->time_ms);
        mvcc_slice_put(job, mvcc_state_key(), buffer_slice(&state));
        buffer_free(&state);
        flushed = t->last_index;
    }
    status = mvcc_slice_write(m, flushed, error);
    job->flush_stuck = status == T4_E_NOSPACE;
    if (job->flush_stuck && compaction_is_due(m, &wanted)) {
        /* It may make room.  The flush is given up as by a crash and begins again later. */
        memtable_unref(t);
        job->flushing = NULL;
        job->compaction_next = true;
    }
    if (status != T4_OK)
        return status; /* job->next still names the first key of this slice */
    job->next = k;
    return k == NULL ? flush_done(m) : T4_OK;
}

/* --- compaction ---------------------------------------------------------------------------- */

/* The versions of one key that a compaction met, newest first: stamps to delete. */
struct doomed {
    uint64_t *stamp;
    size_t n, capacity;
};

static void
doomed_add(struct doomed *d, uint64_t stamp)
{
    if (d->n == d->capacity) {
        d->capacity = d->capacity > 0 ? 2 * d->capacity : 64;
        d->stamp = mem_realloc(d->stamp, d->capacity * sizeof *d->stamp);
    }
    d->stamp[d->n++] = stamp;
}

/*
 * Oldest first, the tombstone last: cut anywhere, no reader and no crash sees an older
 * version come back.
 */
static t4_status
doomed_delete(struct mvcc *m, struct doomed *d, struct t4_slice ikey, struct error *error)
{
    struct buffer key = {0};
    t4_status status = T4_OK;

    if (m->options.metrics != NULL)
        metric_add(m->options.metrics, METRIC_COMPACTED_VERSIONS, (int64_t)d->n);
    while (status == T4_OK && d->n > 0) {
        buffer_clear(&key);
        record_key_encode(&key, ikey, d->stamp[--d->n]);
        mvcc_slice_delete(&m->job, buffer_slice(&key));
        if (mvcc_slice_full(m))
            status = mvcc_slice_write(m, mvcc_flushed_index(m), error);
    }
    buffer_free(&key);
    return status;
}

struct compact_scan {
    struct engine *engine;
    struct t4_snap *snap;
    struct t4_iter *it;
    struct buffer ikey, scratch;
    struct doomed doomed;
    bool kept; /* the version in force at the target was met and stays */
};

/*
 * One record: remembers it if it may go.  Records come newest first within a key.  A tombstone
 * of the target revision itself stays (as in etcd): a watch may begin there.
 */
static t4_status
scan_record(struct mvcc *m, struct compact_scan *s, struct t4_slice key,
            struct t4_slice value, struct error *error)
{
    struct t4_slice ikey;
    uint64_t stamp;
    struct version v;

    if (mvcc_record_decode(m, key, value, &v) != T4_OK ||
        !record_key_decode(key, &s->scratch, &ikey, &stamp)) {
        error_set(error, T4_E_CORRUPT,
                  "a record of the storage engine is damaged "
                  "(found by compaction)");
        return error_hint(error,
                          "stop the server and delete the engine's folder: the log "
                          "brings everything back");
    }
    if (!slice_equal(ikey, buffer_slice(&s->ikey))) {
        t4_status status = doomed_delete(m, &s->doomed, buffer_slice(&s->ikey), error);

        if (status != T4_OK)
            return status;
        buffer_clear(&s->ikey);
        buffer_append_slice(&s->ikey, ikey);
        s->kept = false;
    }
    if (stamp > (uint64_t)m->job.compact_to)
        return T4_OK;
    if (s->kept || (v.flags & VERSION_TOMBSTONE && stamp < (uint64_t)m->job.compact_to))
        doomed_add(&s->doomed, stamp);
    s->kept = true;
    return T4_OK;
}

/* Scans from the job's position; *end: reached the end of space 'k'. */
static t4_status
scan_slice(struct mvcc *m, struct compact_scan *s, bool *end, struct error *error)
{
    struct t4_slice key, value;
    t4_status status = engine_snap(s->engine, &s->snap);

    if (status == T4_OK)
        status = engine_iter(s->engine, s->snap, &s->it);
    if (status == T4_OK)
        status =
            engine_seek(s->engine, s->it, buffer_slice(&m->job.position), &key, &value);
    *end = false;
    for (uint32_t seen = 0; status == T4_OK; seen++) {
        if (key.data[0] != SPACE_KEYS) {
            status = T4_E_NOTFOUND;
            break;
        }
        /* Stop only between two keys: the next slice begins with a whole one. */
        if ((seen >= COMPACT_SCAN || mvcc_slice_full(m)) && s->ikey.len > 0) {
            struct t4_slice ikey;
            uint64_t stamp;

            if (record_key_decode(key, &s->scratch, &ikey, &stamp) &&
                !slice_equal(ikey, buffer_slice(&s->ikey))) {
                buffer_clear(&m->job.position);
                buffer_append_slice(&m->job.position, key);
                return T4_OK;
            }
        }
        status = scan_record(m, s, key, value, error);
        if (status != T4_OK)
            return status;
        status = engine_next(s->engine, s->it, &key, &value);
    }
    *end = status == T4_E_NOTFOUND;
    if (*end)
        return T4_OK;
    return error_set(error, status,
                     "cannot read the storage engine during a compaction: %s",
                     status_text(status));
}

static t4_status
compact_slice(struct mvcc *m, struct error *error)
{
    struct compact_scan s = {.engine = m->options.engine};
    struct buffer from = {0};
    bool end = false;
    t4_status status;

    buffer_append_slice(&from, buffer_slice(&m->job.position));
    mvcc_slice_clear(&m->job);
    status = scan_slice(m, &s, &end, error);
    if (status == T4_OK)
        status = doomed_delete(m, &s.doomed, buffer_slice(&s.ikey), error);
    if (s.it != NULL)
        engine_iter_end(s.engine, s.it);
    if (s.snap != NULL)
        engine_snap_end(s.engine, s.snap);
    if (status == T4_OK && m->job.n_ops > 0)
        status = mvcc_slice_write(m, mvcc_flushed_index(m), error);
    if (status != T4_OK) { /* without room or memory: the whole slice again, later */
        buffer_clear(&m->job.position);
        buffer_append_slice(&m->job.position, buffer_slice(&from));
    }
    buffer_free(&from);
    buffer_free(&s.ikey);
    buffer_free(&s.scratch);
    mem_free(s.doomed.stamp);
    if (status == T4_OK && end) {
        m->job.compacting = false;
        atomic_store(&m->compact_done, m->job.compact_to);
    }
    return status;
}

/* --- choosing what to do ------------------------------------------------------------------- */

void
mvcc_compact(struct mvcc *m, int64_t revision)
{
    if (revision > atomic_load(&m->compact_wanted))
        atomic_store(&m->compact_wanted, revision);
}

int64_t
mvcc_compacted_physically(struct mvcc *m)
{
    return atomic_load(&m->compact_done);
}

static bool
flush_is_due(struct mvcc *m)
{
    struct memtable *t = mvcc_oldest_frozen(m);
    bool due = t != NULL && t->last_index <= atomic_load(&m->committed);

    if (t != NULL)
        memtable_unref(t);
    return due;
}

bool
mvcc_has_work(struct mvcc *m)
{
    int64_t wanted;

    return flush_is_due(m) || m->job.compacting || install_is_due(m) ||
           compaction_is_due(m, &wanted);
}

t4_status
mvcc_work(struct mvcc *m, uint64_t *pause_ns, struct error *error)
{
    struct mvcc_job *job = &m->job;
    int64_t wanted = 0;
    t4_status status;
    bool compact;

    *pause_ns = m->options.flush_pause_ns;
    compact = job->compacting || compaction_is_due(m, &wanted);
    /*
     * A running flush goes on before anything else; compaction waits for its end, and has one
     * slice after each, so that writers who keep the flush busy do not starve it.
     */
    if (job->flushing == NULL && !(compact && job->compaction_next) && flush_is_due(m)) {
        job->flushing = mvcc_oldest_frozen(m);
        job->next = memtable_seek(job->flushing, slice_of("", 0));
        job->flush_began_ns = m->options.env->boot_ns(m->options.env->state);
    }
    if (job->flushing != NULL)
        return flush_slice(m, error);
    if (install_is_due(m))
        return install_slice(m, pause_ns, error);
    job->compaction_next = false;
    if (!compact)
        return T4_E_NOTFOUND;
    if (!job->compacting) {
        job->compacting = true;
        job->compact_to = wanted;
        buffer_clear(&job->position);
        buffer_append_u8(&job->position, SPACE_KEYS);
    }
    status = compact_slice(m, error);
    /* While the flush finds no room all of it comes first. */
    job->compaction_next = job->flush_stuck && status == T4_OK;
    return status;
}

bool
mvcc_flush_is_stuck(const struct mvcc *m)
{
    return m->job.flush_stuck;
}

bool
mvcc_is_flushing(const struct mvcc *m)
{
    return m->job.flushing != NULL;
}

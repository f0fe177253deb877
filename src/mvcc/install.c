/*
 * install.c - filling an engine from a checkpoint: seeding it, then pieces, a slice at a time.
 *
 * The engine thread writes pieces between its flushes, never between two slices of one, so the
 * engine's flushed index says the same before and after.  Records are written as they are: they
 * are versions of the log at or below the checkpoint, and the same version twice is harmless.
 * In 's' and 'l', where only the newest version of a key counts, a newer one that is there
 * hides them; flush leaves a tombstone there for that reason.
 *
 * Only the last slice of a piece is synced: what a crash takes of the others has no mark, and
 * engines keep writes in order (t4_plugin.h).  Beside writers each is, and small: else what
 * gathers for one sync would keep the log's waiting.
 *
 * Mark: engine key 0x01 "hydration" (below every space); its value is the caller's.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "base/memory.h"
#include "fmt/entry.h"
#include "mvcc/mvcc_int.h"

#define GENTLE_BYTES (512u * 1024)

void
install_init(struct mvcc *m)
{
    mutex_init(&m->pieces_lock);
    m->pieces_tail = &m->pieces;
}

void
install_free(struct mvcc *m)
{
    mutex_destroy(&m->pieces_lock);
}

static struct t4_slice
mark_key(void)
{
    return slice_of("\1hydration", 10);
}

/* --- pieces ------------------------------------------------------------------------------ */

void
mvcc_piece_add(struct mvcc_piece *p, struct t4_slice key, struct t4_slice value)
{
    buffer_append_u32(&p->records, (uint32_t)key.len);
    buffer_append_u32(&p->records, (uint32_t)value.len);
    buffer_append_slice(&p->records, key);
    buffer_append_slice(&p->records, value);
}

/* The record at *position, which moves behind it; false: there is none. */
static bool
next_record(const struct mvcc_piece *p, size_t *position, struct t4_slice *key,
            struct t4_slice *value)
{
    const uint8_t *at = p->records.data + *position;

    if (*position == p->records.len)
        return false;
    *key = slice_of(at + 8, get_u32le(at));
    *value = slice_of(at + 8 + key->len, get_u32le(at + 4));
    *position += 8 + key->len + value->len;
    return true;
}

/* --- seeding -------------------------------------------------------------------------------- */

t4_status
mvcc_seed(struct mvcc *m, const struct mvcc_state *state,
          const struct mvcc_piece *records, struct t4_slice mark, struct error *error)
{
    struct mvcc_job *job = &m->job;
    struct buffer encoded = {0};
    struct t4_slice key, value;
    size_t position = 0;
    t4_status status = T4_OK;

    mvcc_slice_clear(job);
    while (status == T4_OK && next_record(records, &position, &key, &value)) {
        mvcc_slice_put(job, key, value);
        if (mvcc_slice_full(m))
            status = mvcc_slice_write(m, 0, error);
    }
    mvcc_state_encode(&encoded, m, state->flushed, state->revision, state->time_ms);
    if (status == T4_OK) {
        mvcc_slice_put(job, mvcc_state_key(), buffer_slice(&encoded));
        mvcc_slice_put(job, mark_key(), mark);
        status = mvcc_slice_write(m, state->flushed, error);
    }
    buffer_free(&encoded);
    if (status != T4_OK)
        return status;
    atomic_store(&m->flushed, state->flushed);
    atomic_store(&m->flushed_revision, state->revision);
    return T4_OK;
}

t4_status
mvcc_reader_mark(struct mvcc_reader *r, struct buffer *out, struct error *error)
{
    struct t4_slice value;
    t4_status status = engine_get(r->mvcc->options.engine, r->snap, mark_key(), &value);

    if (status == T4_OK)
        buffer_append_slice(out, value);
    else if (status != T4_E_NOTFOUND)
        error_set(error, status, "cannot read the storage engine: %s",
                  status_text(status));
    return status;
}

t4_status
mvcc_read_mark(struct mvcc *m, struct buffer *out, struct error *error)
{
    struct mvcc_reader r;
    t4_status status = mvcc_read_begin(m, &r);

    if (status != T4_OK)
        return error_set(error, status, "cannot read the storage engine: %s",
                         status_text(status));
    status = mvcc_reader_mark(&r, out, error);
    mvcc_read_end(&r);
    return status;
}

void
mvcc_hydrate(struct mvcc *m, bool (*holds)(void *arg, struct t4_slice ikey), void *arg)
{
    m->holds = holds;
    m->holds_arg = arg;
    atomic_store(&m->incomplete, true);
}

void
mvcc_hydrated(struct mvcc *m)
{
    atomic_store(&m->incomplete, false);
}

bool
mvcc_is_complete(struct mvcc *m)
{
    return !atomic_load_explicit(&m->incomplete, memory_order_acquire);
}

/* --- installing -------------------------------------------------------------------------------- */

void
mvcc_install(struct mvcc *m, struct mvcc_piece *p)
{
    p->position = 0;
    p->next = NULL;
    mutex_lock(&m->pieces_lock);
    *m->pieces_tail = p;
    m->pieces_tail = &p->next;
    mutex_unlock(&m->pieces_lock);
}

struct mvcc_piece *
mvcc_take_pieces(struct mvcc *m)
{
    struct mvcc_piece *all;

    mutex_lock(&m->pieces_lock);
    all = m->pieces;
    m->pieces = NULL;
    m->pieces_tail = &m->pieces;
    mutex_unlock(&m->pieces_lock);
    return all;
}

static struct mvcc_piece *
first_piece(struct mvcc *m)
{
    struct mvcc_piece *p;

    mutex_lock(&m->pieces_lock);
    p = m->pieces;
    mutex_unlock(&m->pieces_lock);
    return p;
}

bool
install_is_due(struct mvcc *m)
{
    return first_piece(m) != NULL;
}

void
mvcc_install_gently(struct mvcc *m, bool gently)
{
    atomic_store_explicit(&m->gently, gently, memory_order_relaxed);
}

/* Collects the next slice of a piece; returns where it ends. */
static size_t
collect(struct mvcc *m, struct mvcc_piece *p, bool gently)
{
    struct t4_slice key, value;
    size_t end = p->position;

    mvcc_slice_clear(&m->job);
    while (!mvcc_slice_full(m) && !(gently && end - p->position >= GENTLE_BYTES) &&
           next_record(p, &end, &key, &value))
        mvcc_slice_put(&m->job, key, value);
    return end;
}

static void
piece_done(struct mvcc *m, struct mvcc_piece *p)
{
    mutex_lock(&m->pieces_lock);
    m->pieces = p->next;
    if (m->pieces == NULL)
        m->pieces_tail = &m->pieces;
    mutex_unlock(&m->pieces_lock);
    p->done(p);
}

t4_status
install_slice(struct mvcc *m, uint64_t *pause_ns, struct error *error)
{
    struct mvcc_piece *p = first_piece(m);
    struct buffer mark = {0};
    bool gently = atomic_load_explicit(&m->gently, memory_order_relaxed);
    size_t end = collect(m, p, gently);
    bool last = end == p->records.len;
    t4_status status = T4_OK;

    if (!gently)
        *pause_ns /= 5;
    if (last)
        switch (p->mark(p, &mark)) {
        case MVCC_MARK_PUT:
            mvcc_slice_put(&m->job, mark_key(), buffer_slice(&mark));
            break;
        case MVCC_MARK_DELETE: mvcc_slice_delete(&m->job, mark_key()); break;
        default: break;
        }
    buffer_free(&mark);
    if (m->job.n_ops > 0)
        status = last || gently
                     ? mvcc_slice_write(m, mvcc_flushed_index(m), error)
                     : mvcc_slice_write_unsynced(m, mvcc_flushed_index(m), error);
    if (status != T4_OK)
        return status; /* NOSPACE: the same slice again later */
    p->position = end;
    if (last)
        piece_done(m, p);
    return T4_OK;
}

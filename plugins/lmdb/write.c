/*
 * write.c - the write transaction: one for each write(), committed and synced before it
 * returns.
 *
 * LMDB's commit writes the changed pages, syncs them, then writes the page that makes
 * them valid through a descriptor opened with O_DSYNC.  That order is what makes a crash
 * leave whole transactions only, so it is never relaxed (no MDB_NOSYNC, MDB_NOMETASYNC or
 * MDB_WRITEMAP), and sync() has nothing left to do.
 *
 * A key longer than CHUNK goes down link by link (store.h); a put makes the links that
 * are missing, a delete takes those away that lead to nothing any more.
 *
 * Entry points: store_write(); writer_*(), for the copy, too.  Runs on: one thread at a time.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "store.h"

int
state_load(const struct environment *environment, MDB_txn *txn, struct state *out)
{
    MDB_val key = {sizeof STATE_KEY - 1, (void *)(uintptr_t)STATE_KEY}, value;
    int rc = mdb_get(txn, environment->state, &key, &value);
    const uint8_t *p = value.mv_data;

    if (rc != 0)
        return rc;
    if (value.mv_size != STATE_SIZE)
        return MDB_CORRUPTED;
    *out =
        (struct state){load_u64(p), load_u64(p + 8), load_u64(p + 16), load_u64(p + 24)};
    return 0;
}

int
state_save(const struct environment *environment, MDB_txn *txn, const struct state *s)
{
    MDB_val key = {sizeof STATE_KEY - 1, (void *)(uintptr_t)STATE_KEY}, value;
    uint8_t bytes[STATE_SIZE];

    store_u64(bytes, s->format);
    store_u64(bytes + 8, s->flushed);
    store_u64(bytes + 16, s->next_layer);
    store_u64(bytes + 24, s->layers);
    value = (MDB_val){sizeof bytes, bytes};
    return mdb_put(txn, environment->state, &key, &value, 0);
}

/* --- one operation ------------------------------------------------------------------ */

static MDB_cursor *
cursor_at(const struct writer *w, unsigned level)
{
    return level == 0 ? w->keys : w->layers;
}

/* Where the link `r` leads to. */
static int
follow(const struct writer *w, unsigned level, struct record *r, uint64_t *layer)
{
    MDB_val key = r->key, value;
    int rc = mdb_cursor_get(cursor_at(w, level), &key, &value, MDB_SET);

    if (rc != 0)
        return rc;
    if (value.mv_size != ID_SIZE)
        return MDB_CORRUPTED;
    *layer = load_u64(value.mv_data);
    return 0;
}

static int
make_link(struct writer *w, unsigned level, struct record *r, uint64_t *layer)
{
    uint8_t id[ID_SIZE];
    MDB_val value = {sizeof id, id};

    *layer = w->state.next_layer++; /* (3) */
    w->state.layers++;
    store_u64(id, *layer);
    return mdb_cursor_put(cursor_at(w, level), &r->key, &value,
                          level == 0 ? w->append : 0);
}

int
writer_put(struct writer *w, struct t4_slice key, struct t4_slice value)
{
    MDB_val v = {value.len, (void *)(uintptr_t)value.data};
    struct record r;
    uint64_t layer = 0;
    unsigned level = 0;

    if (key.len > MAX_KEY)
        return MDB_BAD_VALSIZE;
    while (record_set(&r, level, layer, key.data, key.len)) {
        int rc = follow(w, level, &r, &layer);

        if (rc == MDB_NOTFOUND)
            rc = make_link(w, level, &r, &layer);
        if (rc != 0)
            return rc;
        key.data += CHUNK;
        key.len -= CHUNK;
        level++;
    }
    return mdb_cursor_put(cursor_at(w, level), &r.key, &v, level == 0 ? w->append : 0);
}

/* Takes one record away; MDB_NOTFOUND: it is not there. */
static int
erase(struct writer *w, unsigned level, struct record *r)
{
    MDB_val key = r->key, value;
    int rc = mdb_cursor_get(cursor_at(w, level), &key, &value, MDB_SET);

    return rc != 0 ? rc : mdb_cursor_del(cursor_at(w, level), 0);
}

static int
layer_is_empty(struct writer *w, uint64_t layer, bool *empty)
{
    struct record r;
    MDB_val key, value;
    int rc;

    record_set(&r, 1, layer, (const uint8_t *)"", 0);
    key = r.key;
    rc = mdb_cursor_get(w->layers, &key, &value, MDB_SET_RANGE);
    *empty = rc == MDB_NOTFOUND || (rc == 0 && !record_in_layer(&key, layer));
    return rc == MDB_NOTFOUND ? 0 : rc;
}

int
writer_delete(struct writer *w, struct t4_slice key)
{
    uint64_t layers[MAX_DEPTH + 1] = {0}; /* layers[n]: the one that level n is in */
    const uint8_t *part = key.data;
    size_t len = key.len;
    unsigned level = 0;
    struct record r;
    int rc;

    if (key.len > MAX_KEY)
        return MDB_BAD_VALSIZE;
    while (record_set(&r, level, layers[level], part, len)) {
        rc = follow(w, level, &r, &layers[level + 1]);
        if (rc != 0)
            return rc == MDB_NOTFOUND ? 0 : rc;
        part += CHUNK;
        len -= CHUNK;
        level++;
    }
    rc = erase(w, level, &r);
    if (rc != 0)
        return rc == MDB_NOTFOUND ? 0 : rc;

    for (; level > 0; level--) { /* (2) */
        bool empty;

        rc = layer_is_empty(w, layers[level], &empty);
        if (rc != 0 || !empty)
            return rc;
        part -= CHUNK;
        record_set(&r, level - 1, layers[level - 1], part, LINK_SIZE);
        rc = erase(w, level - 1, &r);
        if (rc != 0)
            return rc == MDB_NOTFOUND ? MDB_CORRUPTED : rc;
        w->state.layers--;
    }
    return 0;
}

/* --- the transaction ---------------------------------------------------------------- */

int
writer_begin(struct writer *w, struct environment *environment, const struct state *state)
{
    int rc;

    *w = (struct writer){.environment = environment, .state = *state};
    rc = mdb_txn_begin(environment->env, NULL, 0, &w->txn);
    if (rc == 0)
        rc = mdb_cursor_open(w->txn, environment->keys, &w->keys);
    if (rc == 0)
        rc = mdb_cursor_open(w->txn, environment->layers, &w->layers);
    if (rc != 0)
        writer_abort(w);
    return rc;
}

int
writer_commit(struct writer *w)
{
    int rc = state_save(w->environment, w->txn, &w->state);

    if (rc != 0) {
        writer_abort(w);
        return rc;
    }
    return mdb_txn_commit(w->txn);
}

void
writer_abort(struct writer *w)
{
    if (w->txn != NULL)
        mdb_txn_abort(w->txn); /* frees its cursors, too, as commit does */
    w->txn = NULL;
}

t4_status
store_write(struct t4_engine *e, struct t4_call *call, const struct t4_op *ops, size_t n,
            uint64_t flushed)
{
    struct environment *environment = e->current;
    struct writer w;
    int rc, dead;

    /* Now and then: a reader of another process that was killed would hold pages for ever. */
    if (flushed != e->committed.flushed)
        mdb_reader_check(environment->env, &dead);
    rc = writer_begin(&w, environment, &e->committed);
    if (rc != 0)
        return store_fail(e, environment, call, rc, "cannot begin a write transaction");
    for (size_t i = 0; rc == 0 && i < n; i++)
        rc = ops[i].kind == T4_OP_PUT ? writer_put(&w, ops[i].key, ops[i].value)
                                      : writer_delete(&w, ops[i].key);
    if (rc != 0) {
        writer_abort(&w);
        return store_fail(e, environment, call, rc, "cannot store a record");
    }
    w.state.flushed = flushed;
    rc = writer_commit(&w);
    if (rc != 0)
        return store_fail(e, environment, call, rc, "cannot commit");
    e->committed = w.state;
    atomic_store_explicit(&e->flushed, flushed, memory_order_release);
    if (e->copy != NULL)
        copy_follow(e, ops, n);
    return T4_OK;
}

/*
 * read.c - snapshots, get and iterators.
 *
 * A snapshot is a read transaction, on the file that was current when it began: it holds a
 * reference on that environment.  Ended ones are kept, reset, with their reader slot
 * and cursors, so that snap + get or snap + iter + seek of short keys allocates nothing:
 * renewing costs some ten nanoseconds.
 *
 * An iterator has two cursors: one in `keys`, which stays at the link while the iterator
 * is below it, and one in `layers` for all levels below.  On the way up from a deeper
 * layer the second one is put back on the link it came through, whose key is still in the
 * iterator's buffer.  Short keys are given straight from the map.
 *
 * Entry points: store_snap(), store_get(), store_iter(), store_seek(), ...
 * Runs on: any thread, one at a time per snapshot.
 *
 * Invariants:
 *  (1) at == AT: `depth` is the number of links above the current record, ids[i] the
 *      layer that link i leads to, key[i * CHUNK ...] that link's chunk
 *  (2) depth > 0: the cursor in `keys` is on link 0
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "store.h"

#include <errno.h>

#define MAX_IDLE 64 /* snapshots kept for the next */

struct t4_iter {
    struct t4_snap *snap;
    MDB_cursor *keys, *layers;       /* opened at first use, then renewed */
    uint64_t keys_turn, layers_turn; /* snap->turn for which they are valid */
    enum { BEFORE, AT, BEHIND } at;
    unsigned depth;
    uint64_t ids[MAX_DEPTH];
    uint8_t *key; /* of host->alloc; NULL until a long key is met */
};

struct t4_snap {
    struct t4_engine *engine;
    struct environment *environment;
    MDB_txn *txn;
    struct t4_snap *next; /* idle */
    uint64_t turn;    /* counts the uses: a cursor of an earlier one must be renewed */
    bool first_taken; /* is `first` in use? */
    struct t4_iter first; /* the iterator that costs nothing */
};

/* --- snapshots ---------------------------------------------------------------------- */

static void
iter_close(struct t4_iter *it)
{
    const struct t4_host *host = it->snap->engine->store->host;

    if (it->keys != NULL)
        mdb_cursor_close(it->keys);
    if (it->layers != NULL)
        mdb_cursor_close(it->layers);
    host->free(host, it->key);
}

static void
snap_close(struct t4_snap *s)
{
    const struct t4_host *host = s->engine->store->host;

    iter_close(&s->first);
    if (s->txn != NULL)
        mdb_txn_abort(s->txn);
    environment_release(s->engine, s->environment);
    host->free(host, s);
}

/* An idle snapshot, or NULL and the current environment, held, for a new one. */
static struct t4_snap *
take_idle(struct t4_engine *e, struct environment **environment)
{
    struct t4_snap *s;

    pthread_mutex_lock(&e->lock);
    s = e->idle;
    if (s != NULL) {
        e->idle = s->next;
        e->n_idle--;
    } else {
        *environment = e->current;
        e->current->references++;
    }
    pthread_mutex_unlock(&e->lock);
    return s;
}

t4_status
store_snap(struct t4_engine *e, struct t4_snap **out)
{
    const struct t4_host *host = e->store->host;
    struct environment *environment = NULL;
    struct t4_snap *s = take_idle(e, &environment);
    int rc;

    if (s != NULL) {
        rc = mdb_txn_renew(s->txn);
    } else {
        s = host->alloc(host, sizeof *s);
        if (s == NULL) {
            environment_release(e, environment);
            return T4_E_NOMEM;
        }
        memset(s, 0, sizeof *s);
        s->engine = e;
        s->environment = environment;
        s->first.snap = s;
        rc = mdb_txn_begin(environment->env, NULL, MDB_RDONLY, &s->txn);
    }
    if (rc != 0) {
        snap_close(s);
        return store_status(rc);
    }
    s->turn++;
    *out = s;
    return T4_OK;
}

void
store_snap_end(struct t4_snap *s)
{
    struct t4_engine *e = s->engine;

    mdb_txn_reset(s->txn);
    pthread_mutex_lock(&e->lock);
    if (e->n_idle < MAX_IDLE && s->environment == e->current) {
        s->next = e->idle;
        e->idle = s;
        e->n_idle++;
        s = NULL;
    }
    pthread_mutex_unlock(&e->lock);
    if (s != NULL)
        snap_close(s);
}

void
store_snaps_close(struct t4_snap *idle)
{
    while (idle != NULL) {
        struct t4_snap *s = idle;

        idle = s->next;
        snap_close(s);
    }
}

t4_status
store_get(struct t4_snap *s, struct t4_slice key, struct t4_slice *value)
{
    const struct environment *environment = s->environment;
    struct record r;
    uint64_t layer = 0;
    MDB_val v;
    int rc;

    if (key.len == 0 || key.len > MAX_KEY)
        return T4_E_NOTFOUND;
    for (unsigned level = 0;; level++) {
        bool link = record_set(&r, level, layer, key.data, key.len);

        rc = mdb_get(s->txn, level == 0 ? environment->keys : environment->layers, &r.key,
                     &v);
        if (rc != 0)
            return store_status(rc);
        if (!link)
            break;
        if (v.mv_size != ID_SIZE)
            return T4_E_CORRUPT;
        layer = load_u64(v.mv_data);
        key.data += CHUNK;
        key.len -= CHUNK;
    }
    *value = (struct t4_slice){v.mv_data, v.mv_size};
    return T4_OK;
}

/* --- cursors ------------------------------------------------------------------------ */

static int
ready(struct t4_iter *it, MDB_cursor **cursor, uint64_t *turn, MDB_dbi dbi)
{
    struct t4_snap *s = it->snap;
    int rc;

    if (*turn == s->turn)
        return 0;
    rc = *cursor == NULL ? mdb_cursor_open(s->txn, dbi, cursor)
                         : mdb_cursor_renew(s->txn, *cursor);
    if (rc == 0)
        *turn = s->turn;
    return rc;
}

/* Moves the cursor of the current level. */
static int
move(struct t4_iter *it, MDB_val *key, MDB_val *value, MDB_cursor_op op)
{
    return mdb_cursor_get(it->depth == 0 ? it->keys : it->layers, key, value, op);
}

/* At the end of this level: no record at all, or one of another layer. */
static bool
left_level(const struct t4_iter *it, int rc, const MDB_val *key)
{
    return rc == MDB_NOTFOUND ||
           (rc == 0 && it->depth > 0 && !record_in_layer(key, it->ids[it->depth - 1]));
}

static size_t
id_size(const struct t4_iter *it)
{
    return it->depth == 0 ? 0 : ID_SIZE;
}

/* The record is a link: notes it and enters its layer, where the cursor is to be put. */
static int
descend(struct t4_iter *it, const MDB_val *key, const MDB_val *value)
{
    const struct t4_host *host = it->snap->engine->store->host;

    if (value->mv_size != ID_SIZE || it->depth >= MAX_DEPTH)
        return MDB_CORRUPTED;
    if (it->key == NULL) {
        it->key = host->alloc(host, (MAX_DEPTH + 1) * CHUNK);
        if (it->key == NULL)
            return ENOMEM;
    }
    memcpy(it->key + it->depth * CHUNK, (const uint8_t *)key->mv_data + id_size(it),
           CHUNK);
    it->ids[it->depth++] = load_u64(value->mv_data);
    return ready(it, &it->layers, &it->layers_turn, it->snap->environment->layers);
}

/* Leaves a layer: the cursor of the level above is on the link again. */
static int
ascend(struct t4_iter *it)
{
    struct record r;
    MDB_val key, value;
    int rc;

    it->depth--;
    if (it->depth == 0)
        return 0;
    record_set(&r, it->depth, it->ids[it->depth - 1], it->key + it->depth * CHUNK,
               LINK_SIZE);
    key = r.key;
    rc = move(it, &key, &value, MDB_SET);
    return rc == MDB_NOTFOUND ? MDB_CORRUPTED : rc;
}

static int
layer_first(struct t4_iter *it, MDB_val *key, MDB_val *value)
{
    struct record r;

    record_set(&r, 1, it->ids[it->depth - 1], (const uint8_t *)"", 0);
    *key = r.key;
    return move(it, key, value, MDB_SET_RANGE);
}

static int
layer_last(struct t4_iter *it, MDB_val *key, MDB_val *value)
{
    struct record r;
    int rc;

    record_set(&r, 1, it->ids[it->depth - 1] + 1, (const uint8_t *)"", 0);
    *key = r.key;
    rc = move(it, key, value, MDB_SET_RANGE); /* the first of a later layer */
    if (rc != 0 && rc != MDB_NOTFOUND)
        return rc;
    return move(it, key, value, rc == MDB_NOTFOUND ? MDB_LAST : MDB_PREV);
}

static t4_status
give(struct t4_iter *it, const MDB_val *key, const MDB_val *value,
     struct t4_slice *out_key, struct t4_slice *out_value)
{
    size_t above = it->depth * CHUNK, n = key->mv_size - id_size(it);

    it->at = AT;
    *out_value = (struct t4_slice){value->mv_data, value->mv_size};
    if (it->depth == 0) {
        *out_key = (struct t4_slice){key->mv_data, n};
        return T4_OK;
    }
    memcpy(it->key + above, (const uint8_t *)key->mv_data + ID_SIZE, n);
    *out_key = (struct t4_slice){it->key, above + n};
    return T4_OK;
}

/*
 * From the record that a movement at the current level led to (or from its failure) to
 * the next key in that direction: up where a layer ends, down where there is a link.
 */
static t4_status
settle(struct t4_iter *it, bool forward, int rc, MDB_val *key, MDB_val *value,
       struct t4_slice *out_key, struct t4_slice *out_value)
{
    for (;;) {
        if (left_level(it, rc, key)) {
            if (it->depth == 0) {
                it->at = forward ? BEHIND : BEFORE;
                return T4_E_NOTFOUND;
            }
            rc = ascend(it);
            if (rc == 0)
                rc = move(it, key, value, forward ? MDB_NEXT : MDB_PREV);
        } else if (rc == 0 && key->mv_size - id_size(it) == LINK_SIZE) {
            rc = descend(it, key, value);
            if (rc == 0)
                rc = forward ? layer_first(it, key, value) : layer_last(it, key, value);
        } else if (rc == 0) {
            return give(it, key, value, out_key, out_value);
        } else {
            it->at = BEFORE;
            it->depth = 0;
            return store_status(rc);
        }
    }
}

/* --- iterators ---------------------------------------------------------------------- */

t4_status
store_iter(struct t4_snap *s, struct t4_iter **out)
{
    const struct t4_host *host = s->engine->store->host;
    struct t4_iter *it = &s->first;
    int rc;

    if (s->first_taken) {
        it = host->alloc(host, sizeof *it);
        if (it == NULL)
            return T4_E_NOMEM;
        memset(it, 0, sizeof *it);
        it->snap = s;
    }
    it->at = BEFORE;
    it->depth = 0;
    rc = ready(it, &it->keys, &it->keys_turn, s->environment->keys);
    if (rc != 0) {
        if (it != &s->first)
            host->free(host, it);
        return store_status(rc);
    }
    if (it == &s->first)
        s->first_taken = true;
    *out = it;
    return T4_OK;
}

void
store_iter_end(struct t4_iter *it)
{
    struct t4_snap *s = it->snap;
    const struct t4_host *host = s->engine->store->host;

    if (it == &s->first) {
        s->first_taken = false;
        return;
    }
    iter_close(it);
    host->free(host, it);
}

t4_status
store_seek(struct t4_iter *it, struct t4_slice key, struct t4_slice *out_key,
           struct t4_slice *out_value)
{
    MDB_val k, v;
    int rc;

    it->depth = 0;
    if (key.len == 0) {
        rc = move(it, &k, &v, MDB_FIRST);
        return settle(it, true, rc, &k, &v, out_key, out_value);
    }
    for (;;) {
        struct record r;
        bool link = record_set(&r, it->depth, it->depth == 0 ? 0 : it->ids[it->depth - 1],
                               key.data, key.len);

        k = r.key;
        rc = move(it, &k, &v, MDB_SET_RANGE);
        if (rc != 0 || !link || k.mv_size != r.key.mv_size ||
            memcmp(k.mv_data, r.key.mv_data, k.mv_size) != 0)
            return settle(it, true, rc, &k, &v, out_key, out_value);
        rc = descend(it, &k, &v);
        if (rc != 0)
            return settle(it, true, rc, &k, &v, out_key, out_value);
        key.data += CHUNK;
        key.len -= CHUNK;
    }
}

t4_status
store_next(struct t4_iter *it, struct t4_slice *out_key, struct t4_slice *out_value)
{
    MDB_val k, v;
    int rc;

    if (it->at == BEHIND)
        return T4_E_NOTFOUND;
    rc = move(it, &k, &v, it->at == BEFORE ? MDB_FIRST : MDB_NEXT);
    return settle(it, true, rc, &k, &v, out_key, out_value);
}

t4_status
store_prev(struct t4_iter *it, struct t4_slice *out_key, struct t4_slice *out_value)
{
    MDB_val k, v;
    int rc;

    if (it->at == BEFORE)
        return T4_E_NOTFOUND;
    rc = move(it, &k, &v, it->at == BEHIND ? MDB_LAST : MDB_PREV);
    return settle(it, false, rc, &k, &v, out_key, out_value);
}

/*
 * walk.c - the merge of memtables and engine in key order: one version per key.
 *
 * Sources are the overlay, the memtables newest first, and the engine.  Because newer sources
 * hold only newer versions of a key (invariant 2 of mvcc.h), the first source that has a
 * version at or below the stamp decides.  In the engine superseded versions are passed by
 * `next` three times, then by a seek (measured with 31 versions a key: 1.24 us against 5.0).
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "fmt/entry.h"
#include "mvcc/mvcc_int.h"

#define NEXT_BEFORE_SEEK 3

/* Takes over what the engine's cursor stands on; ends the source outside of the range. */
static t4_status
engine_at(struct mvcc_walk *w, t4_status status, struct t4_slice key,
          struct t4_slice value)
{
    w->engine_ikey = slice_of(NULL, 0);
    if (status == T4_E_NOTFOUND)
        return T4_OK;
    if (status != T4_OK)
        return status;
    if (!record_key_decode(key, &w->reader->key, &w->engine_ikey, &w->engine_stamp))
        return T4_E_CORRUPT;
    w->engine_value = value;
    if (slice_compare(w->engine_ikey, w->hi) >= 0)
        w->engine_ikey = slice_of(NULL, 0);
    return T4_OK;
}

static t4_status
engine_seek_to(struct mvcc_walk *w, struct t4_slice encoded)
{
    struct engine *e = w->reader->mvcc->options.engine;
    struct t4_slice key, value;
    t4_status status = engine_seek(e, w->reader->iter, encoded, &key, &value);

    return engine_at(w, status, key, value);
}

static t4_status
engine_step(struct mvcc_walk *w)
{
    struct engine *e = w->reader->mvcc->options.engine;
    struct t4_slice key, value;
    t4_status status = engine_next(e, w->reader->iter, &key, &value);

    return engine_at(w, status, key, value);
}

void
mvcc_walk_begin(struct mvcc_walk *w, struct mvcc_reader *r, struct t4_slice lo,
                struct t4_slice hi, uint64_t stamp)
{
    *w = (struct mvcc_walk){.reader = r, .hi = hi, .stamp = stamp};
    if (hi.len == 0) /* to the end of lo's space: its byte is one of fmt/entry.h's */
        w->hi = slice_of(lo.data[0] == SPACE_KEYS          ? "l"
                         : lo.data[0] == SPACE_ATTACHMENTS ? "m"
                                                           : "t",
                         1);
    if (r->overlay != NULL)
        w->source[w->sources++] = memtable_seek(r->overlay, lo);
    for (uint32_t i = 0; i < r->view->n; i++)
        w->source[w->sources++] = memtable_seek(r->view->table[i], lo);
    for (uint32_t i = 0; i < w->sources; i++)
        if (w->source[i] != NULL &&
            slice_compare(memtable_key_slice(w->source[i]), w->hi) >= 0)
            w->source[i] = NULL;
    if (r->iter == NULL) {
        w->failed = engine_iter(r->mvcc->options.engine, r->snap, &r->iter);
        if (w->failed != T4_OK)
            return;
    }
    buffer_clear(&r->scratch);
    record_key_encode(&r->scratch, lo, STAMP_NEWEST);
    w->failed = engine_seek_to(w, buffer_slice(&r->scratch));
}

/* The smallest key that any source stands on; data NULL: all are at their end. */
static struct t4_slice
smallest(const struct mvcc_walk *w)
{
    struct t4_slice min = w->engine_ikey;

    for (uint32_t i = 0; i < w->sources; i++) {
        if (w->source[i] == NULL)
            continue;
        if (min.data == NULL || slice_compare(memtable_key_slice(w->source[i]), min) < 0)
            min = memtable_key_slice(w->source[i]);
    }
    return min;
}

/*
 * The engine stands on the first record of w->current: finds its version at the stamp (into
 * *v if `wanted`) and moves to the next key.
 */
static t4_status
engine_pass_key(struct mvcc_walk *w, bool wanted, struct version *v, bool *found)
{
    struct t4_slice ikey = buffer_slice(&w->current);
    struct mvcc_reader *r = w->reader;
    t4_status status = T4_OK;
    uint32_t steps = 0;

    while (wanted && w->engine_stamp > w->stamp) {
        if (++steps <= NEXT_BEFORE_SEEK) {
            status = engine_step(w);
        } else {
            buffer_clear(&r->scratch);
            record_key_encode(&r->scratch, ikey, w->stamp);
            status = engine_seek_to(w, buffer_slice(&r->scratch));
        }
        if (status != T4_OK)
            return status;
        if (w->engine_ikey.data == NULL || !slice_equal(w->engine_ikey, ikey))
            return T4_OK; /* no version that old; already on the next key */
    }
    if (wanted) {
        v->stamp = w->engine_stamp;
        if (!record_value_decode(w->engine_value, v))
            return T4_E_CORRUPT;
        *found = true;
    }
    for (steps = 1;; steps++) {
        if (steps <= NEXT_BEFORE_SEEK) {
            status = engine_step(w);
        } else {
            buffer_clear(&r->scratch);
            record_key_end(&r->scratch, ikey);
            status = engine_seek_to(w, buffer_slice(&r->scratch));
        }
        if (status != T4_OK || w->engine_ikey.data == NULL ||
            !slice_equal(w->engine_ikey, ikey))
            return status;
    }
}

/* One key: its version at the stamp, if any; every source moves behind it. */
static t4_status
pass_key(struct mvcc_walk *w, struct t4_slice *ikey, struct version *v, bool *found)
{
    struct t4_slice min = smallest(w);
    bool in_engine = w->engine_ikey.data != NULL && slice_equal(w->engine_ikey, min);

    *found = false;
    if (min.data == NULL)
        return T4_E_NOTFOUND;
    *ikey = min;
    if (in_engine) { /* the cursor's key dies when it moves */
        buffer_clear(&w->current);
        buffer_append_slice(&w->current, min);
        *ikey = buffer_slice(&w->current);
    }
    for (uint32_t i = 0; i < w->sources; i++) {
        const struct memtable_version *mv;

        if (w->source[i] == NULL || !slice_equal(memtable_key_slice(w->source[i]), *ikey))
            continue;
        mv = *found ? NULL : memtable_version_at(w->source[i], w->stamp);
        if (mv != NULL) {
            *v = mv->v;
            *found = true;
        }
        w->source[i] = memtable_key_next(w->source[i]);
        if (w->source[i] != NULL &&
            slice_compare(memtable_key_slice(w->source[i]), w->hi) >= 0)
            w->source[i] = NULL;
    }
    return in_engine ? engine_pass_key(w, !*found, v, found) : T4_OK;
}

t4_status
mvcc_walk_next(struct mvcc_walk *w, struct t4_slice *ikey, struct version *v)
{
    bool found;

    while (w->failed == T4_OK) {
        w->failed = pass_key(w, ikey, v, &found);
        if (w->failed == T4_OK && found && !(v->flags & VERSION_TOMBSTONE))
            return T4_OK;
    }
    return w->failed;
}

void
mvcc_walk_end(struct mvcc_walk *w)
{
    buffer_free(&w->current);
}

/*
 * walk.c - the merge of memtables and engine in key order: one version per key (a walk), or
 * all of a range of stamps (a scan).
 *
 * Sources are the overlay, the memtables newest first, and the engine.  Because newer
 * memtables hold only newer versions of a key (invariant 2 of mvcc.h), the first source that
 * has a version at or below the stamp decides.  The engine may also hold what a memtable holds (a
 * flush under way), or what is newer (its snapshot is taken later than the view): a scan merges
 * the two by stamp.  In the engine unwanted versions are passed by `next` three times, then by a seek
 * (measured with 31 versions a key: 1.24 us against 5.0).
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
    if (!record_key_decode(key, &w->reader->key, &w->engine_ikey, &w->engine_stamp)) {
        struct version v;

        w->engine_ikey = slice_of(NULL, 0);
        return mvcc_record_decode(w->reader->mvcc, key, slice_of(NULL, 0), &v);
    }
    w->engine_key = key;
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

static void
source_set(struct mvcc_walk *w, uint32_t i, const struct memtable_key *k)
{
    bool in_range = k != NULL && slice_compare(memtable_key_slice(k), w->hi) < 0;

    w->source[i] = in_range ? k : NULL;
}

/* Begins at the versions of lo at or below lo_stamp. */
static void
begin(struct mvcc_walk *w, struct mvcc_reader *r, struct t4_slice lo, uint64_t lo_stamp,
      struct t4_slice hi, uint64_t stamp)
{
    *w = (struct mvcc_walk){.reader = r, .hi = hi, .stamp = stamp};
    if (hi.len == 0) /* to the end of lo's space: its byte is one of fmt/entry.h's */
        w->hi = slice_of(lo.data[0] == SPACE_KEYS          ? "l"
                         : lo.data[0] == SPACE_ATTACHMENTS ? "m"
                                                           : "t",
                         1);
    if (r->overlay != NULL)
        source_set(w, w->sources++, memtable_seek(r->overlay, lo));
    for (uint32_t i = 0; i < r->view->n; i++)
        source_set(w, w->sources++, memtable_seek(r->view->table[i], lo));
    if (r->iter == NULL) {
        w->failed = engine_iter(r->mvcc->options.engine, r->snap, &r->iter);
        if (w->failed != T4_OK)
            return;
    }
    buffer_clear(&r->scratch);
    record_key_encode(&r->scratch, lo, lo_stamp);
    w->failed = engine_seek_to(w, buffer_slice(&r->scratch));
}

void
mvcc_walk_begin(struct mvcc_walk *w, struct mvcc_reader *r, struct t4_slice lo,
                struct t4_slice hi, uint64_t stamp)
{
    begin(w, r, lo, STAMP_NEWEST, hi, stamp);
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

static bool
engine_on(const struct mvcc_walk *w, struct t4_slice ikey)
{
    return w->engine_ikey.data != NULL && slice_equal(w->engine_ikey, ikey);
}

/*
 * The engine stands on a record of ikey: moves to its first one at or below the stamp.  *there
 * false: it has none, and the engine stands on the next key.
 */
static t4_status
engine_to_stamp(struct mvcc_walk *w, struct t4_slice ikey, uint64_t stamp, bool *there)
{
    struct mvcc_reader *r = w->reader;

    *there = true;
    for (uint32_t steps = 1; *there && w->engine_stamp > stamp; steps++) {
        t4_status status;

        if (steps <= NEXT_BEFORE_SEEK) {
            status = engine_step(w);
        } else {
            buffer_clear(&r->scratch);
            record_key_encode(&r->scratch, ikey, stamp);
            status = engine_seek_to(w, buffer_slice(&r->scratch));
        }
        if (status != T4_OK)
            return status;
        *there = engine_on(w, ikey);
    }
    return T4_OK;
}

/* The engine stands on a record of ikey: moves to the next key. */
static t4_status
engine_past_key(struct mvcc_walk *w, struct t4_slice ikey)
{
    struct mvcc_reader *r = w->reader;
    t4_status status;

    for (uint32_t steps = 1;; steps++) {
        if (steps <= NEXT_BEFORE_SEEK) {
            status = engine_step(w);
        } else {
            buffer_clear(&r->scratch);
            record_key_end(&r->scratch, ikey);
            status = engine_seek_to(w, buffer_slice(&r->scratch));
        }
        if (status != T4_OK || !engine_on(w, ikey))
            return status;
    }
}

/* The version that the engine stands on. */
static t4_status
engine_version(const struct mvcc_walk *w, struct version *v)
{
    v->stamp = w->engine_stamp;
    return mvcc_record_decode(w->reader->mvcc, w->engine_key, w->engine_value, v);
}

/*
 * The engine stands on the first record of w->current: finds its version at the stamp (into
 * *v if `wanted`) and moves to the next key.
 */
static t4_status
engine_pass_key(struct mvcc_walk *w, bool wanted, struct version *v, bool *found)
{
    struct t4_slice ikey = buffer_slice(&w->current);

    if (wanted) {
        bool there;
        t4_status status = engine_to_stamp(w, ikey, w->stamp, &there);

        if (status != T4_OK || !there)
            return status;
        status = engine_version(w, v);
        if (status != T4_OK)
            return status;
        *found = true;
    }
    return engine_past_key(w, ikey);
}

/* Keeps the key, whose bytes may be the engine cursor's and die when it moves. */
static struct t4_slice
keep_key(struct mvcc_walk *w, struct t4_slice ikey, bool in_engine)
{
    if (!in_engine)
        return ikey;
    buffer_clear(&w->current);
    buffer_append_slice(&w->current, ikey);
    return buffer_slice(&w->current);
}

/* One key: its version at the stamp, if any; every source moves behind it. */
static t4_status
pass_key(struct mvcc_walk *w, struct t4_slice *ikey, struct version *v, bool *found)
{
    struct t4_slice min = smallest(w);
    bool in_engine = engine_on(w, min);

    *found = false;
    if (min.data == NULL)
        return T4_E_NOTFOUND;
    *ikey = keep_key(w, min, in_engine);
    for (uint32_t i = 0; i < w->sources; i++) {
        const struct memtable_version *mv;

        if (w->source[i] == NULL || !slice_equal(memtable_key_slice(w->source[i]), *ikey))
            continue;
        mv = *found ? NULL : memtable_version_at(w->source[i], w->stamp);
        if (mv != NULL) {
            *v = mv->v;
            *found = true;
        }
        source_set(w, i, memtable_key_next(w->source[i]));
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

/* --- scans --------------------------------------------------------------------------------- */

void
mvcc_scan_begin(struct mvcc_scan *s, struct mvcc_reader *r, struct t4_slice lo,
                uint64_t lo_stamp, struct t4_slice hi, uint64_t from, uint64_t to)
{
    *s = (struct mvcc_scan){
        .from = from > 0 ? from : 1,
        .to = to,
        .lo = lo,
        .lo_stamp = lo_stamp,
        .below = lo_stamp,
    };
    begin(&s->walk, r, lo, lo_stamp, hi, to);
}

void
mvcc_scan_position(const struct mvcc_scan *s, struct buffer *lo, uint64_t *lo_stamp)
{
    struct t4_slice at = s->ikey.data != NULL ? s->ikey : s->lo;
    struct buffer copy = {0};

    buffer_append_slice(&copy, at); /* `at` may be in *lo */
    buffer_free(lo);
    *lo = copy;
    *lo_stamp = s->below;
}

void
mvcc_scan_end(struct mvcc_scan *s)
{
    mvcc_walk_end(&s->walk);
}

/* Moves every source behind the current key. */
static t4_status
leave_key(struct mvcc_scan *s)
{
    struct mvcc_walk *w = &s->walk;

    for (uint32_t i = 0; i < w->sources; i++)
        if (w->source[i] != NULL &&
            slice_equal(memtable_key_slice(w->source[i]), s->ikey))
            source_set(w, i, memtable_key_next(w->source[i]));
    return s->in_engine ? engine_past_key(w, s->ikey) : T4_OK;
}

t4_status
mvcc_scan_key(struct mvcc_scan *s, struct t4_slice *ikey)
{
    struct mvcc_walk *w = &s->walk;
    bool first = s->ikey.data == NULL;
    struct t4_slice min;

    if (w->failed == T4_OK && !first)
        w->failed = leave_key(s);
    if (w->failed != T4_OK)
        return w->failed;
    min = smallest(w);
    if (min.data == NULL)
        return w->failed = T4_E_NOTFOUND;
    s->in_engine = engine_on(w, min);
    *ikey = s->ikey = keep_key(w, min, s->in_engine);
    s->source = 0;
    s->version = NULL;
    s->below = first && slice_equal(s->ikey, s->lo) ? s->lo_stamp : STAMP_NEWEST;
    return T4_OK;
}

/* The newest version at or below s->below that a memtable holds of the key, or NULL. */
static const struct memtable_version *
in_memtables(struct mvcc_scan *s)
{
    struct mvcc_walk *w = &s->walk;

    s->version = memtable_version_from(s->version, s->below);
    while (s->version == NULL && s->source < w->sources) {
        const struct memtable_key *k = w->source[s->source++];

        if (k != NULL && slice_equal(memtable_key_slice(k), s->ikey))
            s->version = memtable_version_at(k, s->below);
    }
    return s->version;
}

t4_status
mvcc_scan_version(struct mvcc_scan *s, struct version *v)
{
    struct mvcc_walk *w = &s->walk;
    const struct memtable_version *mv;

    if (w->failed != T4_OK)
        return w->failed;
    if (s->below > s->to)
        s->below = s->to;
    if (s->below < s->from)
        return T4_E_NOTFOUND;
    mv = in_memtables(s);
    if (s->in_engine)
        w->failed = engine_to_stamp(w, s->ikey, s->below, &s->in_engine);
    if (w->failed == T4_OK && s->in_engine &&
        (mv == NULL || w->engine_stamp > mv->v.stamp)) {
        if (w->engine_stamp < s->from)
            return T4_E_NOTFOUND;
        w->failed = engine_version(w, v);
    } else if (w->failed == T4_OK) {
        if (mv == NULL || mv->v.stamp < s->from)
            return T4_E_NOTFOUND;
        *v = mv->v;
    }
    if (w->failed == T4_OK)
        s->below = v->stamp - 1; /* so none is given twice, whoever holds it */
    return w->failed;
}

/*
 * log_check.c - the whole log that is kept: walked, then compared with what others say of it.
 *
 * Archives, the manifest and each checkpoint name places of the chain (*claims*); the walk remembers
 * where it was there (*marks*).  What archives hold is compared with the raw slots that are still there.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <inttypes.h>
#include <stdlib.h>

#include "base/memory.h"
#include "verify/verify_int.h"

/* --- archives against raw slots ------------------------------------------------------------------- */

static void
name_held(void *arg, struct fetched *f)
{
    const struct log_walk *l = arg;

    slot_key(f->key, l->held[f->i].slot.slot);
    f->limit = SEGMENT_OBJECT_MAX;
}

/* A put of a leader that was deposed, carried out after the slot's own segment was removed. */
static bool
is_late(const struct verify *v, const struct held *h, struct t4_slice object)
{
    struct segment s;

    return !h->slot.skipped && segment_decode(object, &s) == T4_OK &&
           s.cluster_id == v->manifest.cluster_id && s.lineage == v->manifest.lineage &&
           s.term < h->slot.term;
}

static t4_status
take_held(void *arg, struct fetched *f, struct error *error)
{
    struct log_walk *l = arg;
    struct verify *v = l->walk.v;
    const struct held *h = &l->held[f->i];
    char archive[ARCHIVE_KEY_BYTES];
    struct segment s;

    archive_key(archive, h->first, h->last);
    if (f->status == T4_E_NOTFOUND)
        return h->slot.skipped
                   ? walk_wrong(&l->walk, f->key, error,
                                "is missing: %s says that a fence or a leftover stands "
                                "there, which must never be deleted",
                                archive)
                   : T4_OK;
    if (f->status == T4_OK && sha256_is(buffer_slice(&f->object), h->slot.hash)) {
        if (segment_decode(buffer_slice(&f->object), &s) == T4_OK &&
            s.term == h->slot.term)
            return T4_OK;
        return walk_wrong(&l->walk, archive, error,
                          "says that %s is of term %" PRIu64 ", which it is not", f->key,
                          h->slot.term);
    }
    if (f->status == T4_OK && is_late(v, h, buffer_slice(&f->object))) {
        v->result->late++;
        return T4_OK;
    }
    return walk_wrong(&l->walk, f->key, error,
                      "is not the object that %s has of that slot", archive);
}

static t4_status
check_held(struct log_walk *l, struct error *error)
{
    struct fetch_plan plan = {.n = l->n_held,
                              .phase = "segments that archives hold, too",
                              .arg = l,
                              .name = name_held,
                              .take = take_held};
    struct verify *v = l->walk.v;
    t4_status status = fetch_all(v, &plan, error);

    if (v->result->late > 0)
        verify_note(v,
                    "%" PRIu64
                    " slots below the floor hold late puts of deposed leaders: "
                    "nobody reads them, garbage collection removes them",
                    v->result->late);
    return status;
}

/* --- what others say of places ---------------------------------------------------------------------- */

static int
by_slot(const void *a, const void *b)
{
    const struct place_mark *x = a, *y = b;

    return x->slot < y->slot ? -1 : x->slot > y->slot;
}

static const struct place_mark *
find_mark(const struct verify *v, uint64_t slot)
{
    struct place_mark key = {.slot = slot};

    return v->n_marks > 0 ? bsearch(&key, v->mark, v->n_marks, sizeof *v->mark, by_slot)
                          : NULL;
}

static bool
is_no_hash(const uint8_t hash[HASH_BYTES])
{
    static const uint8_t zeros[HASH_BYTES];

    return memcmp(hash, zeros, HASH_BYTES) == 0;
}

/* NULL, or what is wrong. */
static const char *
place_misfit(const struct claim *c, const struct place_mark *m)
{
    const struct checkpoint_object *o = c->checkpoint;

    if (!m->joined) /* behind something that was told */
        return NULL;
    if (m->place.term != c->place.term)
        return "names a place of the chain with another term than the chain has there";
    if (m->place.last_index != c->place.last_index ||
        memcmp(m->place.hash, c->place.hash, HASH_BYTES) != 0)
        return "names a place of the chain with another hash or index than the chain has "
               "there";
    if (o != NULL && m->knows_entry &&
        (m->revision != o->revision || m->time_ms != o->time_ms))
        return "has another revision or time than the log's entry of its index";
    if (o != NULL && m->knows_compacted && m->compacted != o->compacted)
        return "has another compacted revision than the log";
    return NULL;
}

static t4_status
check_claim(struct log_walk *l, const struct claim *c, struct error *error)
{
    struct verify *v = l->walk.v;
    const struct place_mark *m = find_mark(v, c->place.next_slot);
    const char *what;

    if (c->place.next_slot < v->manifest.archive.next_slot) {
        if (c->checkpoint == NULL)
            return T4_OK;
        if (c->checkpoint->index == v->manifest.newest.index)
            return walk_wrong(
                &l->walk, c->key, error,
                "is the newest checkpoint, but the log above it is not kept");
        verify_note(v, "%s: the log right above it is not kept any more", c->key);
        return T4_OK;
    }
    if (m == NULL || !m->reached) {
        if (c->place.next_slot <= l->walk.at.next_slot)
            return T4_OK; /* in a stretch that could not be walked: told */
        return walk_wrong(&l->walk, c->key, error,
                          "names slot %" PRIu64
                          ", but the chain ends before slot %" PRIu64
                          ": its newest segments are missing",
                          c->place.next_slot, l->walk.at.next_slot);
    }
    if (c->place.last_index == 0 && !is_no_hash(c->place.hash))
        what = "names a place without an entry, but with a hash";
    else
        what = place_misfit(c, m);
    return what != NULL ? walk_wrong(&l->walk, c->key, error, "%s", what) : T4_OK;
}

static t4_status
check_claims(struct log_walk *l, struct error *error)
{
    t4_status status = T4_OK;

    for (size_t i = 0; i < l->n_claims && status == T4_OK; i++)
        status = check_claim(l, &l->claim[i], error);
    return status;
}

/* The slots at which the walk is to remember where it is. */
static void
make_marks(struct verify *v, const struct log_walk *l)
{
    size_t n = 0, most = l->n_claims + 2 * v->listing.n_archives;

    v->mark = mem_zalloc((most + 1) * sizeof *v->mark);
    for (size_t i = 0; i < l->n_claims; i++)
        v->mark[v->n_marks++].slot = l->claim[i].place.next_slot;
    for (size_t i = 0; i < v->listing.n_archives; i++) {
        v->mark[v->n_marks++].slot = v->listing.archive[i].first;
        v->mark[v->n_marks++].slot = v->listing.archive[i].last + 1;
    }
    if (v->n_marks > 0)
        qsort(v->mark, v->n_marks, sizeof *v->mark, by_slot);
    for (size_t i = 0; i < v->n_marks; i++)
        if (n == 0 || v->mark[n - 1].slot != v->mark[i].slot)
            v->mark[n++] = v->mark[i];
    v->n_marks = n;
}

/* --- the end ------------------------------------------------------------------------------------------ */

static t4_status
check_end(struct log_walk *l, struct error *error)
{
    struct verify *v = l->walk.v;
    const struct walk *w = &l->walk;
    const struct lock_object *lock = &v->leader;
    t4_status status = T4_OK;

    if (w->at.term > v->manifest.term)
        status = verify_look_again(v, error); /* a take-over since? */
    if (status == T4_OK && w->at.term > v->manifest.term && w->at.term > v->now.term)
        status = walk_wrong(&l->walk, MANIFEST_KEY, error,
                            "is of term %" PRIu64 ", the chain already of term %" PRIu64
                            ": it was set back",
                            v->manifest.term, w->at.term);
    if (status == T4_OK && lock->released && w->joined &&
        (w->at.last_index < lock->released_index ||
         (w->at.last_index == lock->released_index && w->has_entry &&
          w->revision != lock->released_revision)))
        status = walk_wrong(&l->walk, "leader-lock", error,
                            "was given back at entry %" PRIu64 ", revision %" PRId64
                            ", but the chain ends with entry %" PRIu64
                            ", revision %" PRId64 ": its newest segments are missing",
                            lock->released_index, lock->released_revision,
                            w->at.last_index, w->revision);
    if (l->hole != UINT64_MAX && l->behind > 0)
        verify_note(v,
                    "slot %" PRIu64 " is free, with %" PRIu64
                    " fences behind it: of a take-over that was under way",
                    l->hole, l->behind);
    return status;
}

static void
note_span(struct log_walk *l)
{
    struct verify_result *r = l->walk.v->result;
    const struct walk *w = &l->walk;

    l->walk.v->tail = w->at;
    if (l->hole != UINT64_MAX)
        l->walk.v->tail.next_slot = l->hole;
    r->last_index = w->at.last_index;
    r->first_index = r->entries > 0 ? w->first_index : 0;
    r->last_revision = w->has_entry ? w->revision : 1;
}

static t4_status
check_all(struct log_walk *l, struct error *error)
{
    struct verify *v = l->walk.v;
    t4_status status;

    log_claim(l, &v->manifest.floor, MANIFEST_KEY, NULL);
    for (uint32_t i = 0; i < v->manifest.n_checkpoints; i++)
        if (v->kept[i].verdict != RETIRED && v->kept[i].object.index != 0)
            log_claim(l, &v->kept[i].object.place, v->kept[i].key, &v->kept[i].object);
    make_marks(v, l);
    l->walk.mark = v->mark;
    l->walk.n_marks = v->n_marks;
    status = log_walk_go(l, error);
    if (status == T4_OK)
        status = check_held(l, error);
    if (status == T4_OK)
        status = check_claims(l, error);
    return status == T4_OK ? check_end(l, error) : status;
}

t4_status
check_log(struct verify *v, struct error *error)
{
    const struct listing *listing = &v->listing;
    const struct chain_floor *begin = &v->manifest.archive;
    struct log_walk l = {
        .walk = {.v = v,
                 .counts = true,
                 .at = *begin,
                 .joined = true,
                 .compacted = -1,
                 .knows_compacted = begin->next_slot == 0 && begin->last_index == 0}};
    t4_status status;

    l.walk.end = listing->n_slots > 0 ? listing->slot[listing->n_slots - 1] + 1 : 0;
    if (l.walk.end < v->manifest.floor.next_slot)
        l.walk.end = v->manifest.floor.next_slot;
    status = check_all(&l, error);
    note_span(&l);
    v->log_is_good = !l.walk.failed;
    log_walk_free(&l);
    return status;
}

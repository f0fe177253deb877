/*
 * log_walk.c - the chain from place to place, through archives and raw slots.
 *
 * Up to the floor the archives are walked that were listed, from there on the raw slots.  A
 * slot that was listed and is gone, or that was not listed below one that was, is looked for
 * again: if the floor was moved above it, an archive has it by now.  Slots are filled in
 * order, one at a time, so whatever lies below a listed data segment was in the store when it
 * was listed; only a fence may stand behind a free slot (object-log.md, take-over).
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/memory.h"
#include "verify/verify_int.h"

void
log_claim(struct log_walk *l, const struct chain_floor *place, const char *key,
          const struct checkpoint_object *checkpoint)
{
    struct claim *c;

    if (l->n_claims == l->claim_capacity) {
        l->claim_capacity = 2 * l->claim_capacity + 64;
        l->claim = mem_realloc(l->claim, l->claim_capacity * sizeof *l->claim);
    }
    c = &l->claim[l->n_claims++];
    *c = (struct claim){.place = *place, .checkpoint = checkpoint};
    memcpy(c->key, key, strlen(key) + 1);
}

bool
listing_has_slot(const struct listing *l, uint64_t slot, size_t *at)
{
    size_t low = 0, high = l->n_slots;

    while (low < high) {
        size_t middle = low + (high - low) / 2;

        if (l->slot[middle] < slot)
            low = middle + 1;
        else
            high = middle;
    }
    if (at != NULL)
        *at = low;
    return low < l->n_slots && l->slot[low] == slot;
}

/* --- archives ----------------------------------------------------------------------------- */

/* NULL, or what is wrong with the archive as an object. */
static const char *
archive_misfit(const struct walk *w, const struct archive *a, uint64_t first,
               uint64_t last)
{
    if (a->cluster_id != w->v->manifest.cluster_id ||
        a->lineage != w->v->manifest.lineage)
        return "belongs to another cluster or lineage";
    if (a->begin.next_slot != first || a->end.next_slot != last + 1)
        return "holds other slots than its name says";
    return NULL;
}

/* One slot of an archive, by the rules of the chain and by what the archive says of it. */
static t4_status
walk_slot(struct walk *w, const char *key, const struct archive_slot *s,
          struct t4_slice object, struct error *error)
{
    char name[KEY_BYTES];
    uint64_t seen = w->at.term;
    bool accepted, failed = w->failed;
    t4_status status;

    if (s->skipped) {
        walk_skip(w, s->term);
        w->at.next_slot++;
        return T4_OK;
    }
    snprintf(name, sizeof name, "%s (slot %" PRIu64 ")", key, s->slot);
    w->failed = false;
    status = walk_object(w, name, slice_of(object.data + s->offset, (size_t)s->length),
                         &accepted, error);
    if (status == T4_OK && !w->failed && !accepted)
        status =
            walk_wrong(w, name, error,
                       "is of a term below %" PRIu64 ", which was seen before", seen);
    else if (status == T4_OK && !w->failed &&
             (memcmp(w->at.hash, s->hash, HASH_BYTES) != 0 || w->at.term != s->term))
        status = walk_wrong(w, name, error,
                            "has a hash or term that the archive's index does not have");
    w->failed |= failed;
    return status;
}

/* The archive's index says of each segment where it begins; that is looked at here. */
struct firsts {
    const struct archive_slot *slot;
    chain_entry_fn *fn; /* of the walk */
    void *arg;
    bool wrong;
};

static t4_status
note_first(void *arg, const struct entry *e, struct t4_slice bytes, struct error *error)
{
    struct firsts *f = arg;

    if (f->slot != NULL)
        f->wrong =
            e->index != f->slot->first_index || e->revision != f->slot->first_revision;
    f->slot = NULL;
    return f->fn != NULL ? f->fn(f->arg, e, bytes, error) : T4_OK;
}

/* The slots of an open archive from at.next_slot on, which it holds. */
static t4_status
walk_archive(struct walk *w, const char *key, const struct archive *a,
             struct t4_slice object, struct error *error)
{
    struct firsts f = {.fn = w->fn, .arg = w->arg};
    t4_status status = T4_OK;

    w->fn = note_first;
    w->arg = &f;
    for (size_t i = w->at.next_slot - a->begin.next_slot;
         i < a->n && a->slot[i].slot < w->end && status == T4_OK; i++) {
        f.slot = a->slot[i].skipped ? NULL : &a->slot[i];
        f.wrong = false;
        status = walk_slot(w, key, &a->slot[i], object, error);
        if (status == T4_OK && f.wrong)
            status = walk_wrong(w, key, error,
                                "says of slot %" PRIu64
                                " that it begins with another entry or revision",
                                a->slot[i].slot);
        walk_pass_marks(w);
    }
    w->fn = f.fn;
    w->arg = f.arg;
    return status;
}

/* Fences and leftovers must be there for ever; segments may still be. */
static void
hold_slots(struct log_walk *l, const struct archive *a)
{
    struct verify *v = l->walk.v;

    for (size_t i = 0; i < a->n; i++) {
        if (!a->slot[i].skipped && !listing_has_slot(&v->listing, a->slot[i].slot, NULL))
            continue;
        if (l->n_held == l->held_capacity) {
            l->held_capacity = 2 * l->held_capacity + 64;
            l->held = mem_realloc(l->held, l->held_capacity * sizeof *l->held);
        }
        l->held[l->n_held++] =
            (struct held){a->slot[i], a->begin.next_slot, a->end.next_slot - 1};
    }
}

/*
 * What the walk does not need of an archive: by itself, from where it says that it begins to a
 * slot.
 */
static t4_status
walk_beside(struct log_walk *l, const char *key, const struct archive *a,
            struct t4_slice object, uint64_t end, struct error *error)
{
    struct walk w = {.v = l->walk.v, .at = a->begin, .joined = true, .end = end};
    t4_status status = walk_archive(&w, key, a, object, error);

    l->walk.failed |= w.failed;
    walk_free(&w);
    return status;
}

/*
 * The slots up to `to` were removed because their time was over.  Goes on there, or, if the walk is
 * quiet, NOTFOUND.
 */
static t4_status
jump(struct log_walk *l, const struct chain_floor *to, struct error *error)
{
    struct walk *w = &l->walk;

    if (w->quiet)
        return error_set(error, T4_E_NOTFOUND,
                         "the log was removed while it was read: its time was over");
    verify_note(w->v,
                "slots %" PRIu64 " to %" PRIu64
                " of the log were removed while it was read: their time was over",
                w->at.next_slot, to->next_slot - 1);
    w->at = *to;
    w->joined = true;
    w->has_entry = w->knows_compacted = false;
    walk_pass_marks(w);
    return T4_OK;
}

/* Nothing holds the slots from at.next_slot to below `to`, where the walk goes on. */
static t4_status
no_archive(struct log_walk *l, const struct chain_floor *to, struct error *error)
{
    struct walk *w = &l->walk;
    t4_status status = verify_look_again(w->v, error);

    if (status == T4_OK && w->at.next_slot < w->v->now.archive.next_slot)
        return jump(l, to, error);
    if (status == T4_OK && to->next_slot > l->told)
        status = walk_wrong(w, "log/", error,
                            "no archive holds slots %" PRIu64 " to %" PRIu64
                            ", although the manifest's floor is above them",
                            w->at.next_slot, to->next_slot - 1);
    w->at = *to;
    w->joined = true;
    w->has_entry = w->knows_compacted = false;
    walk_pass_marks(w);
    return status;
}

/* An archive that came.  `needed`: the walk goes through it. */
static t4_status
take_open_archive(struct log_walk *l, const char *key, const struct archive *a,
                  struct t4_slice object, bool needed, struct error *error)
{
    struct walk *w = &l->walk;
    t4_status status = T4_OK;

    if (!w->quiet) {
        log_claim(l, &a->begin, key, NULL);
        log_claim(l, &a->end, key, NULL);
        hold_slots(l, a);
        if (w->counts)
            w->v->result->archives++;
    }
    if (!w->quiet && (!needed || a->begin.next_slot < w->at.next_slot))
        status =
            walk_beside(l, key, a, object, needed ? w->at.next_slot : UINT64_MAX, error);
    if (!needed || status != T4_OK)
        return status;
    if (a->begin.next_slot > w->at.next_slot)
        status = no_archive(l, &a->begin, error);
    return status == T4_OK ? walk_archive(w, key, a, object, error) : status;
}

/* An archive that cannot be read; the walk goes on behind it. */
static t4_status
lost_archive(struct log_walk *l, const char *key, uint64_t last, struct error *error,
             const char *what)
{
    if (last + 1 > l->told)
        l->told = last + 1;
    return walk_wrong(&l->walk, key, error, "%s", what);
}

static t4_status
take_listed_archive(void *arg, struct fetched *f, struct error *error)
{
    struct log_walk *l = arg;
    struct walk *w = &l->walk;
    const struct listed_archive *name = &w->v->listing.archive[l->chosen[f->i]];
    bool needed = name->last >= w->at.next_slot && w->at.next_slot < w->end &&
                  name->first < w->v->manifest.floor.next_slot;
    const char *what;
    struct archive a;
    t4_status status;

    if (f->status == T4_E_NOTFOUND) { /* below what is kept by now? */
        status = verify_look_again(w->v, error);
        if (status != T4_OK || name->last < w->v->now.archive.next_slot)
            return status;
        return lost_archive(l, f->key, name->last, error, "was listed, but is missing");
    }
    status =
        f->status == T4_OK ? archive_decode(buffer_slice(&f->object), &a) : f->status;
    if (status != T4_OK)
        return lost_archive(l, f->key, name->last, error,
                            status == T4_E_UNSUPPORTED
                                ? "was written by a newer version of t4: use that one"
                                : "is damaged");
    what = archive_misfit(w, &a, name->first, name->last);
    status = what != NULL ? lost_archive(l, f->key, name->last, error, what)
                          : take_open_archive(l, f->key, &a, buffer_slice(&f->object),
                                              needed, error);
    archive_free(&a);
    return status;
}

static void
name_archive(void *arg, struct fetched *f)
{
    const struct log_walk *l = arg;
    const struct listed_archive *a = &l->walk.v->listing.archive[l->chosen[f->i]];

    archive_key(f->key, a->first, a->last);
    f->limit = ARCHIVE_OBJECT_MAX;
}

/*
 * All that retention has not left behind, or, for a quiet walk, those between here and its end.
 */
static size_t
choose_archives(struct log_walk *l)
{
    const struct walk *w = &l->walk;
    const struct manifest_object *m = &w->v->manifest;
    const struct listing *listing = &w->v->listing;
    size_t n = 0;

    l->chosen = mem_alloc((listing->n_archives + 1) * sizeof *l->chosen);
    for (size_t i = 0; i < listing->n_archives; i++) {
        const struct listed_archive *a = &listing->archive[i];

        if (w->quiet ? a->last >= w->at.next_slot && a->first < w->end &&
                           a->first < m->floor.next_slot
                     : a->last >= m->archive.next_slot)
            l->chosen[n++] = i;
    }
    return n;
}

static t4_status
walk_archives(struct log_walk *l, struct error *error)
{
    struct fetch_plan plan = {.phase = "archives",
                              .n = choose_archives(l),
                              .arg = l,
                              .name = name_archive,
                              .take = take_listed_archive};
    const struct chain_floor *floor = &l->walk.v->manifest.floor;
    t4_status status = fetch_all(l->walk.v, &plan, error);

    mem_free(l->chosen);
    l->chosen = NULL;
    if (status == T4_OK && l->walk.at.next_slot < floor->next_slot &&
        l->walk.at.next_slot < l->walk.end)
        status = no_archive(l, floor, error);
    return status;
}

/* --- slots that moved into archives meanwhile ------------------------------------------------- */

/* The longest archive of the newer listing that holds the slot, or NULL. */
static const struct listed_archive *
holder_of(const struct listing *l, uint64_t slot)
{
    const struct listed_archive *best = NULL;

    for (size_t i = 0; i < l->n_archives && l->archive[i].first <= slot; i++)
        if (l->archive[i].last >= slot &&
            (best == NULL || l->archive[i].last > best->last))
            best = &l->archive[i];
    return best;
}

/* at.next_slot is below the newest floor: on through the archive that has it now. */
static t4_status
follow_floor(struct log_walk *l, struct error *error)
{
    struct walk *w = &l->walk;
    const struct listed_archive *name;
    struct fetched *f;
    struct archive a;
    t4_status status;

    listing_free(&l->newer);
    status = fetch_archives(w->v, &l->newer, error);
    if (status != T4_OK)
        return status;
    name = holder_of(&l->newer, w->at.next_slot);
    if (name == NULL)
        return no_archive(l, &w->v->now.floor, error);
    f = mem_zalloc(sizeof *f);
    archive_key(f->key, name->first, name->last);
    status = fetch_object(w->v, f->key, ARCHIVE_OBJECT_MAX, &f->object, error);
    if (status == T4_OK && archive_decode(buffer_slice(&f->object), &a) == T4_OK) {
        if (archive_misfit(w, &a, name->first, name->last) == NULL)
            status = walk_archive(w, f->key, &a, buffer_slice(&f->object), error);
        else
            status = walk_wrong(w, f->key, error, "is not what its name says");
        archive_free(&a);
    } else if (status == T4_OK || status == T4_E_NOTFOUND || status == T4_E_CORRUPT) {
        status = walk_wrong(w, f->key, error, "is damaged, or missing");
    }
    if (status == T4_OK && w->at.next_slot <= name->last && w->at.next_slot < w->end)
        status = no_archive(l, &w->v->now.floor, error);
    buffer_free(&f->object);
    mem_free(f);
    return status;
}

/* The slots from at.next_slot to below `to` are not there: have they moved, or is this a hole? */
static t4_status
cross_gap(struct log_walk *l, uint64_t to, struct error *error)
{
    struct walk *w = &l->walk;
    t4_status status = T4_OK;

    while (status == T4_OK && w->at.next_slot < to) {
        status = verify_look_again(w->v, error);
        if (status != T4_OK)
            break;
        if (w->at.next_slot >= w->v->now.floor.next_slot) {
            if (l->hole == UINT64_MAX)
                l->hole = w->at.next_slot;
            w->at.next_slot = to;
            return T4_OK;
        }
        if (w->at.next_slot < w->v->now.archive.next_slot)
            status = jump(l, &w->v->now.archive, error);
        else
            status = follow_floor(l, error);
    }
    return status;
}

/* --- raw slots -------------------------------------------------------------------------------- */

/* An object of the next slot, as it was fetched (OK or CORRUPT: longer than the limit). */
static t4_status
take_object(struct walk *w, const char *key, t4_status fetched,
            const struct buffer *object, struct error *error)
{
    t4_status status;
    bool accepted;

    if (fetched == T4_E_CORRUPT) {
        w->joined = false;
        w->at.next_slot++;
        status = walk_wrong(w, key, error, "is longer than a segment can be");
    } else {
        status = walk_object(w, key, buffer_slice(object), &accepted, error);
    }
    walk_pass_marks(w);
    return status;
}

/* The free slot is a loss; the walk goes on from where it is. */
static t4_status
tell_hole(struct log_walk *l, const char *behind, struct error *error)
{
    char key[SLOT_KEY_BYTES];

    slot_key(key, l->hole);
    l->hole = UINT64_MAX;
    l->behind = 0;
    l->walk.joined = false;
    return walk_wrong(&l->walk, key, error, "is missing, although %s is there", behind);
}

/*
 * Data in `slot`, farther behind a free slot than a leader has in flight.  A listing is no snapshot:
 * a slot that was filled while it ran may be missing from it, and later ones may be there.  By now
 * the free slot has its segment, too, and the walk goes on from it; or it was lost.
 */
static t4_status
look_into_hole(struct log_walk *l, uint64_t slot, const char *behind, struct error *error)
{
    struct walk *w = &l->walk;
    struct buffer object = {0};
    char key[SLOT_KEY_BYTES];
    t4_status status = T4_OK;

    w->at.next_slot = l->hole;
    l->hole = UINT64_MAX;
    l->behind = 0;
    while (status == T4_OK && w->at.next_slot < slot) {
        slot_key(key, w->at.next_slot);
        buffer_clear(&object);
        status = fetch_object(w->v, key, SEGMENT_OBJECT_MAX, &object, error);
        if (status == T4_OK || status == T4_E_CORRUPT) {
            status = take_object(w, key, status, &object, error);
        } else if (status == T4_E_NOTFOUND) {
            status = cross_gap(l, slot, error);
            if (status == T4_OK && l->hole != UINT64_MAX)
                status = tell_hole(l, behind, error);
        }
    }
    buffer_free(&object);
    return status;
}

static void
name_raw(void *arg, struct fetched *f)
{
    const struct log_walk *l = arg;

    slot_key(f->key, l->walk.v->listing.slot[l->chosen[f->i]]);
    f->limit = SEGMENT_OBJECT_MAX;
}

static t4_status
take_raw(void *arg, struct fetched *f, struct error *error)
{
    struct log_walk *l = arg;
    struct walk *w = &l->walk;
    uint64_t slot = w->v->listing.slot[l->chosen[f->i]];
    struct segment s;
    t4_status status = T4_OK;

    if (slot < w->at.next_slot || f->status == T4_E_NOTFOUND)
        return T4_OK; /* in an archive that was walked; or the next one finds it missing */
    if (slot > w->at.next_slot)
        status = cross_gap(l, slot, error);
    if (status != T4_OK || slot < w->at.next_slot)
        return status;
    if (l->hole != UINT64_MAX) {
        /* Data may be there as well: segments in flight beside the one that is not there yet. */
        if (segment_decode(buffer_slice(&f->object), &s) == T4_OK &&
            (s.fence || (!w->v->leader.released && slot - l->hole < WINDOW_MAX))) {
            l->behind++;
            w->at.next_slot++;
            return T4_OK;
        }
        status = look_into_hole(l, slot, f->key, error);
        if (status != T4_OK || slot < w->at.next_slot)
            return status;
    }
    return take_object(w, f->key, f->status, &f->object, error);
}

static t4_status
walk_raw(struct log_walk *l, struct error *error)
{
    struct walk *w = &l->walk;
    const struct listing *listing = &w->v->listing;
    struct fetch_plan plan = {
        .phase = "segments", .arg = l, .name = name_raw, .take = take_raw};
    size_t from, to;
    t4_status status = T4_OK;

    listing_has_slot(listing, w->at.next_slot, &from);
    listing_has_slot(listing, w->end, &to);
    plan.n = to > from ? to - from : 0;
    l->chosen = mem_alloc((plan.n + 1) * sizeof *l->chosen);
    for (size_t i = 0; i < plan.n; i++)
        l->chosen[i] = from + i;
    status = fetch_all(w->v, &plan, error);
    mem_free(l->chosen);
    l->chosen = NULL;
    /* Listed last and gone: in an archive by now, or lost. */
    if (status == T4_OK && w->at.next_slot < w->end) {
        char key[SLOT_KEY_BYTES];

        status = cross_gap(l, w->end, error);
        if (status == T4_OK && l->hole != UINT64_MAX && l->behind == 0) {
            slot_key(key, l->hole);
            l->hole = UINT64_MAX;
            status = walk_wrong(w, key, error, "was listed, but is missing");
        }
    }
    return status;
}

t4_status
log_walk_go(struct log_walk *l, struct error *error)
{
    t4_status status;

    l->hole = UINT64_MAX;
    walk_pass_marks(&l->walk);
    status = walk_archives(l, error);
    return status == T4_OK ? walk_raw(l, error) : status;
}

void
log_walk_free(struct log_walk *l)
{
    walk_free(&l->walk);
    listing_free(&l->newer);
    mem_free(l->held);
    mem_free(l->claim);
}

/* --- the entries between two places ------------------------------------------------------------ */

t4_status
read_log(struct verify *v, const struct chain_floor *from, const struct chain_floor *to,
         chain_entry_fn *fn, void *arg, struct error *error)
{
    struct log_walk l = {.walk = {.v = v,
                                  .quiet = true,
                                  .end = to->next_slot,
                                  .at = *from,
                                  .joined = true,
                                  .fn = fn,
                                  .arg = arg}};
    t4_status status = log_walk_go(&l, error);

    if (status == T4_OK &&
        (l.walk.at.next_slot != to->next_slot || !l.walk.joined ||
         (to->last_index != 0 && l.walk.at.last_index != to->last_index)))
        status = error_set(error, T4_E_CORRUPT,
                           "the log does not come to entry %" PRIu64 " in slot %" PRIu64,
                           to->last_index, to->next_slot);
    log_walk_free(&l);
    return status;
}

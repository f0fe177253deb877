/*
 * take.c - take-over, and what a holder does to its lock.
 *
 * Take-over, step by step (contrib/models/chain.pml has the same names):
 *   1 CAS the next term into leader-lock
 *   2 list the slots, and CAS the term into manifest/latest: from now on no older leader can
 *     write a manifest, and whoever is newer swaps it after this: what was listed as filled was
 *     filled before a newer leader's fence was (chain.pml: LISTLATE)
 *   3 from the floor of *that* version on, put a fence into the first free slot, passing over
 *     slots that lower terms hold; a higher term in any of them ends it.  Under load a second
 *     fence, some slots ahead, stops the older leader first (put_fence)
 *   4 read the manifest again: if it no longer carries our term, somebody newer may have
 *     moved the floor past our fence, and our fence fences nothing
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <inttypes.h>
#include <stdio.h>

#include "objectlog/objectlog_int.h"

static t4_status
deposed(struct objectlog *c, uint64_t term, struct error *error)
{
    return error_set(error, T4_E_PRECONDITION,
                     "a server with the higher term %" PRIu64
                     " leads %s (our term is %" PRIu64 ")",
                     term, object_url(c->options.store), c->term);
}

/* --- compare-and-swap ------------------------------------------------------------------------ */

t4_status
objectlog_swap_lock(struct objectlog *c, const struct lock_object *next,
                    enum persistence how, struct error *error)
{
    struct lock_object l = *next;
    t4_status status;

    l.counter = c->leader.counter + 1;
    objectlog_new_put_id(c, l.put_id);
    lock_encode(&c->scratch, &l);
    status = objectlog_put(c, LOCK_KEY, buffer_slice(&c->scratch), &c->leader_tag,
                           objectlog_is_my_lock, l.put_id, how, &c->object,
                           &c->leader_tag, error);
    if (status == T4_OK) {
        c->leader = l;
    } else if (status == T4_E_PRECONDITION) {
        t4_status read = lock_decode(buffer_slice(&c->object), &c->leader);

        if (read != T4_OK)
            return objectlog_damaged(LOCK_KEY, read, error);
        error_set(error, T4_E_PRECONDITION,
                  "the lock of %s was taken by another server (%s, term %" PRIu64 ")",
                  object_url(c->options.store),
                  c->leader.address[0] != '\0' ? c->leader.address : "no address",
                  c->leader.term);
    }
    return status;
}

static t4_status
swap_manifest(struct objectlog *c, const struct manifest_object *next,
              struct error *error)
{
    struct manifest_object m = *next;
    t4_status status;

    m.counter = c->manifest.counter + 1;
    objectlog_new_put_id(c, m.put_id);
    manifest_encode(&c->scratch, &m);
    status = objectlog_put(c, MANIFEST_KEY, buffer_slice(&c->scratch), &c->manifest_tag,
                           objectlog_is_my_manifest, m.put_id, TRY, &c->object,
                           &c->manifest_tag, error);
    if (status == T4_OK) {
        c->manifest = m;
    } else if (status == T4_E_PRECONDITION) {
        t4_status read = manifest_decode(buffer_slice(&c->object), &c->manifest);

        if (read != T4_OK)
            return objectlog_damaged(MANIFEST_KEY, read, error);
    }
    return status;
}

#define BARRIER_AFTER 3u /* slots found filled before a barrier is put ... */
#define BARRIER_AHEAD 8u /* ... so many slots ahead */

/* --- the steps -------------------------------------------------------------------------------- */

static t4_status
take_lock(struct objectlog *c, uint64_t least, struct error *error)
{
    struct lock_object next = c->leader;

    next.term = c->leader.term + 1 > least ? c->leader.term + 1 : least;
    next.holder = c->options.incarnation;
    memset(next.address, 0, sizeof next.address);
    strncpy(next.address, c->options.address, sizeof next.address - 1);
    next.lease_ms = c->options.lease_ms;
    next.released = false;
    c->term = next.term;
    return objectlog_swap_lock(c, &next, TRY, error);
}

struct first_free {
    uint64_t slot; /* lowest that was not listed so far */
};

static t4_status
pass_listed(void *arg, struct t4_slice key, const struct t4_object_info *info)
{
    struct first_free *f = arg;
    uint64_t slot;

    (void)info;
    if (slot_key_parse(key, &slot) && slot == f->slot)
        f->slot++;
    return T4_OK;
}

/* The first slot from `floor` on that is not there, or was not a moment ago. */
static t4_status
find_free_slot(struct objectlog *c, uint64_t floor, uint64_t *slot, struct error *error)
{
    struct first_free f = {floor};
    char after[SLOT_KEY_BYTES] = "wal/";
    uint64_t before;
    t4_status status;

    do {
        before = f.slot;
        if (f.slot > 0)
            slot_key(after, f.slot - 1);
        status = objectlog_list(c, "wal/", after, 1000, pass_listed, &f, error);
    } while (status == T4_OK && f.slot - before >= 1000);
    *slot = f.slot;
    return status;
}

/* *slot: where the fence is to go, if nobody is faster. */
static t4_status
freeze_manifest(struct objectlog *c, uint64_t *slot, struct error *error)
{
    /* As it was read when the store was opened; the swap notices if it has changed since. */
    t4_status status = c->has_manifest ? T4_OK : objectlog_read_manifest(c, error);

    while (status == T4_OK) {
        struct manifest_object next = c->manifest;

        if (next.term > c->term)
            return deposed(c, next.term, error);
        status = find_free_slot(c, next.floor.next_slot, slot, error);
        if (status != T4_OK)
            return status;
        next.term = c->term;
        status = swap_manifest(c, &next, error);
        if (status != T4_E_PRECONDITION)
            return status;
        status = T4_OK; /* an older leader was faster: its version is the base now */
    }
    return status;
}

/* One attempt at one slot.  PRECONDITION: it is filled; *higher: by this higher term, or 0. */
static t4_status
put_fence_at(struct objectlog *c, struct segment *fence, uint64_t slot, uint64_t *higher,
             struct error *error)
{
    char key[SLOT_KEY_BYTES];
    struct segment there;
    t4_status status;

    objectlog_new_put_id(c, fence->put_id);
    buffer_clear(&c->scratch);
    segment_encode(&c->scratch, fence);
    slot_key(key, slot);
    status =
        objectlog_put(c, key, buffer_slice(&c->scratch), NULL, objectlog_is_my_segment,
                      fence->put_id, TRY, &c->object, NULL, error);
    if (status != T4_E_PRECONDITION)
        return status;
    status = segment_decode(buffer_slice(&c->object), &there);
    if (status != T4_OK)
        return objectlog_damaged(key, status, error);
    if (there.term > c->term)
        *higher = there.term;
    if (there.term == c->term && there.fence && there.writer == c->options.incarnation)
        return T4_OK; /* the barrier */
    return T4_E_PRECONDITION;
}

/*
 * A fence `ahead` slots above the first free one, which is announced in the manifest first: a
 * newer leader's swap of it comes after ours, so it knows the slots that our fence may yet get
 * into (chain.pml: SILENT).  *slot: the search goes on here, since what was listed below was
 * there before any newer leader's fence.  PRECONDITION without *higher: it was filled already.
 */
static t4_status
put_barrier(struct objectlog *c, struct segment *fence, uint64_t *slot, uint64_t ahead,
            uint64_t *higher, struct error *error)
{
    struct manifest_object next = c->manifest;
    t4_status status = find_free_slot(c, *slot, slot, error);

    if (status != T4_OK)
        return status;
    next.barrier = *slot + ahead > next.barrier ? *slot + ahead : next.barrier;
    status = swap_manifest(c, &next, error);
    if (status ==
        T4_E_PRECONDITION) /* only a newer leader changes what carries our term */
        *higher = c->manifest.term;
    return status == T4_OK ? put_fence_at(c, fence, *slot + ahead, higher, error)
                           : status;
}

/*
 * The fence goes into the first free slot.  A leader under load fills slots faster than a
 * taker-over finds them filled: after a few of those a fence some slots ahead is a *barrier*
 * that it runs into, so that the search ends.  What it still puts below is read as any other
 * segment, since the search goes on slot by slot; the first fence found free, or the barrier,
 * is the one that counts.
 */
static t4_status
put_fence(struct objectlog *c, uint64_t slot, struct error *error)
{
    struct segment fence = {.cluster_id = c->leader.cluster_id,
                            .lineage = c->leader.lineage,
                            .generation = c->manifest.generation,
                            .term = c->term,
                            .writer = c->options.incarnation,
                            .fence = true};
    uint64_t ahead = BARRIER_AHEAD, higher = 0;
    bool barrier = false;
    unsigned lost = 0;

    for (;; slot++) {
        t4_status status = put_fence_at(c, &fence, slot, &higher, error);

        if (status == T4_OK)
            c->fence_slot = slot;
        if (status != T4_E_PRECONDITION)
            return status;
        if (higher != 0)
            return deposed(c, higher, error);
        if (barrier || ++lost < BARRIER_AFTER)
            continue;
        status = put_barrier(c, &fence, &slot, ahead, &higher, error);
        barrier = status == T4_OK;
        ahead *= 4; /* too near: it was there already */
        slot--;     /* the first that was free a moment ago is the next one to try */
        if (higher != 0)
            return deposed(c, higher, error);
        if (status != T4_OK && status != T4_E_PRECONDITION)
            return status;
    }
}

/*
 * The first slot that no object of a lower term can get into.  An older leader stops at our fence,
 * so what it has in flight lies less than its window above it (ATONCE, SHORT).  An older
 * candidate's fence lies below ours by what it listed before it swapped the manifest (LISTLATE),
 * its barrier where it announced it, and so does our own.
 */
static uint64_t
settled_from(const struct objectlog *c)
{
    uint64_t slot = c->fence_slot + c->cluster.window_max;

    return c->manifest.barrier >= slot ? c->manifest.barrier + 1 : slot;
}

static t4_status
look_again(struct objectlog *c, struct error *error)
{
    t4_status status = objectlog_read_manifest(c, error);

    if (status == T4_OK && c->manifest.term != c->term)
        return deposed(c, c->manifest.term, error);
    return status == T4_E_NOTFOUND ? objectlog_damaged(MANIFEST_KEY, T4_E_CORRUPT, error)
                                   : status;
}

t4_status
objectlog_take_over(struct objectlog *c, uint64_t *term, struct error *error)
{
    uint64_t slot;
    t4_status status;

    c->positioned = false;
    status = objectlog_refuse_marked(c, error); /* marked since it was opened */
    if (status == T4_OK)
        status = take_lock(c, *term, error);
    if (status == T4_OK)
        status = freeze_manifest(c, &slot, error);
    if (status == T4_OK)
        status = put_fence(c, slot, error);
    if (status == T4_OK)
        status = look_again(c, error);
    if (status != T4_OK) {
        c->term = 0;
        return status;
    }
    c->settled = settled_from(c);
    *term = c->term;
    return T4_OK;
}

/* --- the leader's manifests ------------------------------------------------------------------ */

t4_status
objectlog_refresh_manifest(struct objectlog *c, struct error *error)
{
    t4_status status = objectlog_read_manifest(c, error);

    return status == T4_E_NOTFOUND ? objectlog_damaged(MANIFEST_KEY, T4_E_CORRUPT, error)
                                   : status;
}

t4_status
objectlog_write_manifest(struct objectlog *c, uint64_t term,
                         const struct manifest_object *next, struct error *error)
{
    t4_status status = T4_E_PRECONDITION;

    if (c->manifest.term == term)
        status = swap_manifest(c, next, error);
    if (status == T4_E_PRECONDITION)
        error_set(error, T4_E_PRECONDITION,
                  "the manifest of %s is of term %" PRIu64 ", not of ours (%" PRIu64
                  "): another server leads",
                  object_url(c->options.store), c->manifest.term, term);
    return status;
}

/* --- the holder's changes -------------------------------------------------------------------------- */

static t4_status
change(struct objectlog *c, const struct lock_object *next, struct error *error)
{
    if (c->leader.term != c->term || c->leader.holder != c->options.incarnation)
        return deposed(c, c->leader.term, error);
    return objectlog_swap_lock(c, next, SETTLE, error);
}

t4_status
objectlog_look_at_lock(struct objectlog *c, struct error *error)
{
    t4_status status = objectlog_read_lock(c, error);

    if (status == T4_OK && c->term != 0 &&
        (c->leader.term != c->term || c->leader.holder != c->options.incarnation))
        return deposed(c, c->leader.term, error);
    return status;
}

t4_status
objectlog_renew(struct objectlog *c, uint64_t lease_ms, struct error *error)
{
    struct lock_object next = c->leader;

    next.lease_ms = lease_ms;
    return change(c, &next, error);
}

t4_status
objectlog_change_rule(struct objectlog *c, enum commit_rule rule, struct error *error)
{
    struct lock_object next = c->leader;

    next.rule = rule;
    return change(c, &next, error);
}

t4_status
objectlog_release(struct objectlog *c, uint64_t last_index, int64_t last_revision,
                  struct error *error)
{
    struct lock_object next = c->leader;

    next.released = true;
    next.released_index = last_index;
    next.released_revision = last_revision;
    next.lease_ms = 0;
    return change(c, &next, error);
}

t4_status
objectlog_write_lock(struct objectlog *c, const struct lock_object *next,
                     struct error *error)
{
    return objectlog_swap_lock(c, next, TRY, error);
}

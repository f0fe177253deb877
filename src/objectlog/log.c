/*
 * log.c - reading the chain by its rules.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <inttypes.h>
#include <stdio.h>

#include "fmt/entry.h"
#include "objectlog/objectlog_int.h"

#define READ_AHEAD 16u /* slots */

t4_status
objectlog_broken(const char *key, struct error *error, const char *what)
{
    error_set(error, T4_E_CORRUPT, "the chain is broken at %s: %s", key, what);
    return error_hint(error, "restore the object from a version or a copy that the store "
                             "keeps; nothing behind it is used");
}

t4_status
objectlog_led_by(const char *key, uint64_t term, struct error *error)
{
    return error_set(error, T4_E_PRECONDITION,
                     "%s is of the higher term %" PRIu64 ": another server leads", key,
                     term);
}

static t4_status
deliver(struct objectlog *c, const char *key, const struct segment *s,
        objectlog_entry_fn *fn, void *arg, struct error *error)
{
    struct byte_reader r;
    struct t4_slice entry;
    uint64_t index = s->first_index;
    t4_status status = T4_OK;

    buffer_clear(&c->raw);
    if (!decompress_append(&c->raw, s->payload, s->raw_bytes))
        return objectlog_broken(key, error, "its entries cannot be decompressed");
    r = reader_of(buffer_slice(&c->raw));
    for (; status == T4_OK && segment_entry_next(&r, &entry); index++) {
        struct byte_reader head = reader_of(entry);
        struct entry e;

        if (!entry_decode_head(&head, &e) || e.index != index)
            return objectlog_broken(key, error,
                                    "an entry is not the one that must stand there");
        status = fn(arg, index, entry, s, error);
    }
    if (status == T4_OK && (r.bad || r.next != r.end || index != s->last_index + 1))
        return objectlog_broken(key, error, "its entries are not as many as it says");
    return status;
}

t4_status
objectlog_accept(struct objectlog *c, const char *key, struct t4_slice object,
                 objectlog_entry_fn *fn, void *arg, struct objectlog_tail *t,
                 struct error *error)
{
    struct segment s;
    t4_status status = segment_decode(object, &s);

    if (status != T4_OK)
        return objectlog_damaged(key, status, error);
    if (s.cluster_id != c->leader.cluster_id || s.lineage != c->leader.lineage)
        return objectlog_broken(key, error, "it belongs to another cluster or lineage");
    if (c->term != 0 && s.term > c->term)
        return objectlog_led_by(key, s.term, error);
    if (s.term < t->term) { /* a leftover of a fenced leader: chain.pml's term rule */
        t->ignored++;
        return T4_OK;
    }
    t->term = s.term;
    if (s.fence) {
        t->foreign_fence |= s.writer != c->options.incarnation;
        t->ignored++;
        return T4_OK;
    }
    if (memcmp(s.previous, t->hash, HASH_BYTES) != 0)
        return objectlog_broken(key, error, "it does not continue the segment before it");
    if (s.first_index != t->last_index + 1)
        return objectlog_broken(key, error,
                                "its first entry does not follow the last one before it");
    sha256(object, t->hash);
    status = deliver(c, key, &s, fn, arg, error);
    t->last_index = s.last_index;
    t->foreign_fence = false;
    t->segments++;
    return status;
}

/* A slot that is not there: the tail, unless the manifest's floor has moved above it since. */
static t4_status
is_tail(struct objectlog *c, uint64_t slot, bool *tail, struct error *error)
{
    t4_status status = objectlog_read_manifest(c, error);

    *tail = c->manifest.floor.next_slot <= slot;
    return status;
}

/* The raw slots from t->next_slot on.  *tail false: the floor was moved above the slot. */
/*
 * The slots that come next, at once: after a take-over up to our fence; a reader without one begins
 * when it has met two in a row.
 */
static void
look_ahead(struct objectlog *c, uint64_t slot, unsigned met)
{
    uint64_t last = slot + READ_AHEAD;
    char key[SLOT_KEY_BYTES];

    if (c->term != 0 && last > c->fence_slot)
        last = c->fence_slot;
    if (c->term == 0 && met < 2)
        return;
    if (c->ahead_to <= slot)
        c->ahead_to = slot;
    else if (c->ahead_to > slot + READ_AHEAD / 2)
        return;
    while (c->ahead_to <= last) {
        slot_key(key, c->ahead_to++);
        object_ahead(c->options.store, slice_str(key), SEGMENT_OBJECT_MAX);
    }
}

static t4_status
read_slots(struct objectlog *c, objectlog_entry_fn *fn, void *arg,
           struct objectlog_tail *t, bool *tail, struct error *error)
{
    for (unsigned met = 0;; t->next_slot++, met++) {
        char key[SLOT_KEY_BYTES];
        t4_status status;

        if (c->term != 0 && t->next_slot > c->fence_slot) {
            *tail = true; /* nothing behind our own fence counts but what we put there */
            return T4_OK;
        }
        look_ahead(c, t->next_slot, met);
        slot_key(key, t->next_slot);
        status = objectlog_get(c, key, SEGMENT_OBJECT_MAX, &c->object, NULL, TRY, error);
        if (status == T4_E_NOTFOUND) {
            status = is_tail(c, t->next_slot, tail, error);
            if (status == T4_OK && *tail && c->term != 0 && t->next_slot <= c->fence_slot)
                return objectlog_broken(key, error, "it is missing below our own fence");
            return status;
        }
        if (status == T4_OK)
            status =
                objectlog_accept(c, key, buffer_slice(&c->object), fn, arg, t, error);
        if (status != T4_OK)
            return status;
    }
}

t4_status
objectlog_read(struct objectlog *c, objectlog_entry_fn *fn, void *arg,
               struct objectlog_tail *tail, struct error *error)
{
    struct objectlog_tail t = {.next_slot = c->begin.next_slot,
                               .last_index = c->begin.last_index,
                               .term = c->begin.term};
    bool at_tail = false;
    t4_status status = T4_OK;

    memcpy(t.hash, c->begin.hash, HASH_BYTES);
    while (status == T4_OK && !at_tail) {
        if (t.next_slot < c->manifest.floor.next_slot)
            status = objectlog_read_archives(c, fn, arg, &t, error);
        if (status == T4_OK)
            status = read_slots(c, fn, arg, &t, &at_tail, error);
    }
    if (status != T4_OK)
        return status;
    *tail = t;
    object_ahead_end(c->options.store);
    c->place = (struct chain_floor){.next_slot = t.next_slot, .last_index = t.last_index};
    memcpy(c->place.hash, t.hash, HASH_BYTES);
    c->end = c->place;
    c->seen_term = t.term;
    c->positioned = c->term != 0 && c->n_flights == 0;
    return T4_OK;
}

void
objectlog_begin_at(struct objectlog *c, const struct chain_floor *place)
{
    c->begin = *place;
}

void
objectlog_place(const struct objectlog *c, struct chain_floor *place)
{
    *place = c->place;
    place->term = c->term > c->seen_term ? c->term : c->seen_term;
}

/*
 * log.c - reading the chain by its rules, appending to it.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <inttypes.h>
#include <stdio.h>

#include "fmt/entry.h"
#include "objectlog/objectlog_int.h"

#define READ_AHEAD 16u /* slots */

/* --- reading ----------------------------------------------------------------------------------- */

t4_status
objectlog_broken(const char *key, struct error *error, const char *what)
{
    error_set(error, T4_E_CORRUPT, "the chain is broken at %s: %s", key, what);
    return error_hint(error, "restore the object from a version or a copy that the store "
                             "keeps; nothing behind it is used");
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
        return error_set(error, T4_E_PRECONDITION,
                         "%s is of the higher term %" PRIu64 ": another server leads",
                         key, s.term);
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
    c->next_slot = t.next_slot;
    c->last_index = t.last_index;
    memcpy(c->hash, t.hash, HASH_BYTES);
    c->seen_term = t.term;
    c->positioned = c->term != 0;
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
    *place = (struct chain_floor){.next_slot = c->next_slot,
                                  .term = c->term > c->seen_term ? c->term : c->seen_term,
                                  .last_index = c->last_index};
    memcpy(place->hash, c->hash, HASH_BYTES);
}

/* --- appending ------------------------------------------------------------------------------------ */

/*
 * Puts the same bytes into the next slot that no lower term holds.  (chain.pml, put_segment: a 412 by a
 * lower term moves the segment to the next slot.)
 */
static t4_status
put_segment(struct objectlog *c, const struct buffer *body, uint8_t *put_id,
            struct error *error)
{
    for (;;) {
        char key[SLOT_KEY_BYTES];
        struct segment there;
        t4_status status;

        slot_key(key, c->next_slot);
        status = objectlog_put(c, key, buffer_slice(body), NULL, objectlog_is_my_segment,
                               put_id, SETTLE, &c->object, NULL, error);
        if (status == T4_OK) {
            c->next_slot++;
            return T4_OK;
        }
        if (status != T4_E_PRECONDITION)
            return status;
        status = segment_decode(buffer_slice(&c->object), &there);
        if (status != T4_OK)
            return objectlog_damaged(key, status, error);
        if (there.term > c->term)
            return error_set(error, T4_E_PRECONDITION,
                             "%s is of the higher term %" PRIu64 ": another server leads",
                             key, there.term);
        if (there.term == c->term && there.fence &&
            there.writer == c->options.incarnation) { /* our barrier: see put_fence() */
            c->next_slot++;
            continue;
        }
        if (there.term == c->term)
            return objectlog_broken(key, error, "another server writes with our term");
        c->next_slot++;
    }
}

t4_status
objectlog_append(struct objectlog *c, uint64_t first, uint64_t last, uint64_t committed,
                 struct t4_slice raw, struct error *error)
{
    struct segment s = {.cluster_id = c->leader.cluster_id,
                        .lineage = c->leader.lineage,
                        .generation = c->manifest.generation,
                        .term = c->term,
                        .writer = c->options.incarnation,
                        .rule = c->leader.rule,
                        .first_index = first,
                        .last_index = last,
                        .committed = committed,
                        .raw_bytes = (uint32_t)raw.len};
    t4_status status;

    if (!c->positioned || first != c->last_index + 1 || last < first ||
        raw.len > SEGMENT_RAW_MAX)
        return error_set(error, T4_E_INVALID,
                         "entries %" PRIu64 " to %" PRIu64
                         " (%zu bytes) cannot follow entry %" PRIu64 " of the chain",
                         first, last, raw.len, c->last_index);
    memcpy(s.previous, c->hash, HASH_BYTES);
    objectlog_new_put_id(c, s.put_id);
    buffer_clear(&c->raw);
    compress_append(&c->raw, raw);
    s.payload = buffer_slice(&c->raw);
    buffer_clear(&c->scratch);
    segment_encode(&c->scratch, &s);
    status = put_segment(c, &c->scratch, s.put_id, error);
    if (status != T4_OK) {
        c->positioned = false; /* deposed, broken, or stopped with the outcome open */
        return status;
    }
    sha256(buffer_slice(&c->scratch), c->hash);
    c->last_index = last;
    return T4_OK;
}

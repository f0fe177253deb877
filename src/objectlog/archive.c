/*
 * archive.c - archives: stretches of the chain as one object, read and made.
 *
 * A reader whose place lies below the manifest's floor takes the entries from archives.  Which
 * ones, a listing says: any that holds the slot it needs will do, for all of them hold what was
 * accepted there, and every segment is put through the same rules as one from its slot
 * (objectlog_accept()).  So two leaders may have cut the same stretch in different ways.
 *
 * The floor moves only after an archive was read back; segments are deleted only after the floor
 * was moved.  So a reader that misses a slot finds the floor above it, and goes on here.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <inttypes.h>

#include "base/memory.h"
#include "fmt/entry.h"
#include "objectlog/objectlog_int.h"

/* Where a listing begins below the slot that is looked for; archives are hardly ever longer. */
#define SPAN 2048u
#define PAGE 1000u /* keys of a listing */
#define AHEAD 16u  /* slots asked for at once */
/* Stretches tried when an archive of the same name has other bytes. */
#define STRETCHES 8u

/* --- finding ------------------------------------------------------------------------------ */

struct found {
    uint64_t slot;        /* looked for */
    uint64_t first, last; /* the longest that holds it */
    bool any;
    bool behind; /* the listing has come to those that begin above it */
    char newest[ARCHIVE_KEY_BYTES]; /* key listed last */
    uint32_t listed;
};

static t4_status
take_name(void *arg, struct t4_slice key, const struct t4_object_info *info)
{
    struct found *f = arg;
    uint64_t first, last;

    (void)info;
    f->listed++;
    if (!archive_key_parse(key, &first, &last))
        return T4_OK;
    archive_key(f->newest, first, last);
    f->behind = first > f->slot;
    if (f->behind || last < f->slot)
        return T4_OK;
    if (!f->any || last > f->last) {
        f->first = first;
        f->last = last;
    }
    f->any = true;
    return T4_OK;
}

/* Nothing holds the slot: was it below what is kept? */
static t4_status
none_holds(struct objectlog *c, uint64_t slot, struct error *error)
{
    t4_status status = objectlog_read_manifest(c, error);

    if (status != T4_OK)
        return status;
    if (slot < c->manifest.archive.next_slot) {
        error_set(error, T4_E_INVALID,
                  "the log of %s is kept from entry %" PRIu64
                  " on, and entries below it are asked for: they were removed when "
                  "their time was over",
                  object_url(c->options.store), c->manifest.archive.last_index + 1);
        return error_hint(error,
                          "begin at a checkpoint, or with a data directory that holds "
                          "the older entries; --history-retention says how long they "
                          "are kept");
    }
    error_set(error, T4_E_CORRUPT,
              "no archive below log/ in %s holds slot %" PRIu64
              ", although the manifest's floor is above it",
              object_url(c->options.store), slot);
    return error_hint(error, "restore the object from a version or a copy that the store "
                             "keeps; nothing behind it is used");
}

/* Looks at the archives that begin at `from` or above, and not above the slot. */
static t4_status
look_from(struct objectlog *c, uint64_t from, struct found *f, struct error *error)
{
    t4_status status;

    archive_key(f->newest, from, from);
    *strchr(f->newest, '-') = '\0'; /* sorts before any of that first slot */
    do {
        char after[ARCHIVE_KEY_BYTES];

        memcpy(after, f->newest, sizeof after);
        f->listed = 0;
        status = objectlog_list(c, "log/", after, PAGE, take_name, f, error);
    } while (status == T4_OK && f->listed >= PAGE && !f->behind);
    return status;
}

static t4_status
find(struct objectlog *c, uint64_t slot, struct found *f, struct error *error)
{
    t4_status status;

    *f = (struct found){.slot = slot};
    if (slot < c->manifest.archive.next_slot)
        return none_holds(c, slot, error);
    status = look_from(c, slot > SPAN ? slot - SPAN : 0, f, error);
    if (status == T4_OK && !f->any && slot > SPAN)
        status = look_from(c, 0, f, error);
    return status == T4_OK && !f->any ? none_holds(c, slot, error) : status;
}

/* --- reading ------------------------------------------------------------------------------ */

static t4_status
open_archive(struct objectlog *c, const char *key, const struct found *f,
             struct t4_slice object, struct archive *a, struct error *error)
{
    t4_status status = archive_decode(object, a);

    if (status != T4_OK)
        return objectlog_damaged(key, status, error);
    if (a->cluster_id == c->leader.cluster_id && a->lineage == c->leader.lineage &&
        a->begin.next_slot == f->first && a->end.next_slot == f->last + 1)
        return T4_OK;
    archive_free(a);
    return objectlog_broken(key, error,
                            "it belongs to another cluster or lineage, or was renamed");
}

/* The slots of an archive from t->next_slot on. */
static t4_status
read_archive(struct objectlog *c, const char *key, const struct archive *a,
             struct t4_slice object, objectlog_entry_fn *fn, void *arg,
             struct objectlog_tail *t, struct error *error)
{
    t4_status status = T4_OK;

    for (size_t i = t->next_slot - a->begin.next_slot; status == T4_OK && i < a->n; i++) {
        const struct archive_slot *s = &a->slot[i];
        uint64_t accepted = t->segments;

        t->next_slot = s->slot + 1;
        if (s->skipped) {
            t->term = s->term > t->term ? s->term : t->term;
            t->ignored++;
            continue;
        }
        status =
            objectlog_accept(c, key, slice_of(object.data + s->offset, (size_t)s->length),
                             fn, arg, t, error);
        if (status == T4_OK &&
            (t->segments == accepted || memcmp(t->hash, s->hash, HASH_BYTES) != 0))
            status = objectlog_broken(key, error,
                                      "a segment in it is not the one that was accepted");
    }
    return status;
}

t4_status
objectlog_read_archives(struct objectlog *c, objectlog_entry_fn *fn, void *arg,
                        struct objectlog_tail *t, struct error *error)
{
    struct buffer object = {0};
    t4_status status = T4_OK;

    while (status == T4_OK && t->next_slot < c->manifest.floor.next_slot) {
        char key[ARCHIVE_KEY_BYTES];
        struct archive a;
        struct found f;

        status = find(c, t->next_slot, &f, error);
        if (status != T4_OK)
            break;
        archive_key(key, f.first, f.last);
        status = objectlog_get(c, key, ARCHIVE_OBJECT_MAX, &object, NULL, TRY, error);
        if (status == T4_E_NOTFOUND)
            status = none_holds(c, t->next_slot, error);
        if (status == T4_OK)
            status = open_archive(c, key, &f, buffer_slice(&object), &a, error);
        if (status != T4_OK)
            break;
        status = read_archive(c, key, &a, buffer_slice(&object), fn, arg, t, error);
        archive_free(&a);
    }
    buffer_free(&object);
    return status;
}

/* --- making ------------------------------------------------------------------------------- */

static t4_status
note_first(void *arg, uint64_t index, struct t4_slice entry,
           const struct segment *segment, struct error *error)
{
    struct archive_slot *s = arg;
    struct byte_reader r = reader_of(entry);
    struct entry e;

    (void)error;
    if (s->first_index == 0 && entry_decode_head(&r, &e)) {
        s->first_index = index;
        s->first_revision = e.revision;
    }
    (void)segment;
    return T4_OK;
}

/* A stretch of the chain on its way into an archive. */
struct making {
    struct objectlog_tail t;
    struct buffer bytes; /* of the archive */
    size_t slots, len;   /* up to the newest accepted segment */
    struct chain_floor end;
    uint64_t newest;   /* slots below this are there */
    uint64_t ahead_to; /* slots below this were asked for */
};

/*
 * Asks for the slots that will probably find room, some at a time: one after the other would be
 * slower than a leader with several puts under way fills them.
 */
static void
look_ahead(struct objectlog *c, const struct archive *a, struct making *m)
{
    uint64_t to = m->t.next_slot + AHEAD, mean, room;
    char key[SLOT_KEY_BYTES];

    if (m->ahead_to > m->t.next_slot)
        return;
    mean = a->n > 0 ? m->bytes.len / a->n + 1 : ARCHIVE_TARGET / 4;
    room = (ARCHIVE_TARGET - m->bytes.len) / mean + 1;
    if (to > m->t.next_slot + room)
        to = m->t.next_slot + room;
    if (to > m->newest)
        to = m->newest;
    for (m->ahead_to = m->t.next_slot; m->ahead_to < to; m->ahead_to++) {
        slot_key(key, m->ahead_to);
        object_ahead(c->options.store, slice_str(key), SEGMENT_OBJECT_MAX);
    }
}

/* Takes the slot m->t.next_slot, which must be there. */
static t4_status
take_slot(struct objectlog *c, struct archive *a, struct making *m, struct error *error)
{
    struct archive_slot s = {.slot = m->t.next_slot};
    uint64_t accepted = m->t.segments;
    struct segment segment;
    char key[SLOT_KEY_BYTES];
    t4_status status;

    slot_key(key, s.slot);
    look_ahead(c, a, m);
    status = objectlog_get(c, key, SEGMENT_OBJECT_MAX, &c->object, NULL, TRY, error);
    if (status == T4_E_NOTFOUND)
        return objectlog_broken(key, error, "it is missing below its newest segment");
    if (status == T4_OK)
        status = segment_decode(buffer_slice(&c->object), &segment) == T4_OK
                     ? T4_OK
                     : objectlog_damaged(key, T4_E_CORRUPT, error);
    if (status != T4_OK)
        return status;
    s.term = segment.term;
    sha256(buffer_slice(&c->object), s.hash);
    status =
        objectlog_accept(c, key, buffer_slice(&c->object), note_first, &s, &m->t, error);
    if (status != T4_OK)
        return status;
    m->t.next_slot++;
    if (m->t.segments == accepted) {
        archive_add_skipped(a, &s);
        return T4_OK;
    }
    archive_add_segment(&m->bytes, a, &s, buffer_slice(&c->object));
    m->slots = a->n;
    m->len = m->bytes.len;
    m->end = (struct chain_floor){
        .next_slot = m->t.next_slot, .term = m->t.term, .last_index = m->t.last_index};
    memcpy(m->end.hash, m->t.hash, HASH_BYTES);
    return T4_OK;
}

/* Up to `slots` slots from the floor on, at least to the first accepted segment. */
static t4_status
make(struct objectlog *c, const struct chain_floor *newest, uint64_t slots,
     struct archive *a, struct making *m, struct error *error)
{
    const struct chain_floor *floor = &c->manifest.floor;
    t4_status status = T4_OK;

    *a = (struct archive){.cluster_id = c->leader.cluster_id,
                          .lineage = c->leader.lineage,
                          .begin = *floor,
                          .slot = a->slot,
                          .capacity = a->capacity};
    m->t = (struct objectlog_tail){.next_slot = floor->next_slot,
                                   .last_index = floor->last_index,
                                   .term = floor->term};
    memcpy(m->t.hash, floor->hash, HASH_BYTES);
    m->slots = 0;
    m->newest = newest->next_slot;
    m->ahead_to = 0;
    archive_begin(&m->bytes, a);
    while (status == T4_OK && m->t.next_slot < newest->next_slot &&
           m->bytes.len < ARCHIVE_TARGET && (a->n < slots || m->slots == 0))
        status = take_slot(c, a, m, error);
    if (status != T4_OK)
        return status;
    if (m->slots == 0)
        return error_set(error, T4_E_NOTFOUND,
                         "no accepted segment lies between the floor and the newest one");
    a->n = m->slots;
    a->end = m->end;
    m->bytes.len = m->len;
    archive_end(&m->bytes, a);
    return T4_OK;
}

/* Puts it, reads it back and compares. */
static t4_status
put_archive(struct objectlog *c, const struct archive *a, const struct buffer *bytes,
            struct error *error)
{
    char key[ARCHIVE_KEY_BYTES];
    t4_status status;

    archive_key(key, a->begin.next_slot, a->end.next_slot - 1);
    status = objectlog_create(c, key, buffer_slice(bytes), error);
    if (status != T4_OK)
        return status;
    status = objectlog_get(c, key, ARCHIVE_OBJECT_MAX, &c->object, NULL, TRY, error);
    if (status == T4_OK && !slice_equal(buffer_slice(&c->object), buffer_slice(bytes)))
        status = objectlog_damaged(key, T4_E_CORRUPT, error);
    return status;
}

t4_status
objectlog_archive(struct objectlog *c, const struct chain_floor *newest, uint64_t slots,
                  struct archive *a, uint64_t *bytes, struct error *error)
{
    struct making m = {0};
    t4_status status = T4_E_EXISTS;

    *a = (struct archive){0};
    for (unsigned i = 0; i < STRETCHES && status == T4_E_EXISTS; i++) {
        status = make(c, newest, slots, a, &m, error);
        if (status == T4_OK)
            status = put_archive(c, a, &m.bytes, error);
        slots = a->n > 1 ? a->n - 1 : a->n + 1;
    }
    *bytes = m.bytes.len;
    object_ahead_end(c->options.store);
    buffer_free(&m.bytes);
    if (status != T4_OK)
        archive_free(a);
    return status;
}

/*
 * archive.c - encoding of archives.
 *
 * Bytes, integers little endian:
 *    0  8 bytes  "t4log\r\n\032"
 *    8  u32      format (1) · u32 zero
 *   16  u64 cluster id · u64 lineage
 *   32  place in front of it: u64 slot · u64 term · 32 bytes hash · u64 last index
 *   88  the objects of the accepted segments, one behind the other
 *    x  index, a line of 82 bytes for each slot, ascending:
 *         u8 kind (1 segment, 2 skipped) · u8 zero · u64 slot · u64 term · 32 bytes SHA-256 of
 *         the object · u64 offset · u64 length · u64 first index · u64 first revision (these four
 *         zero where skipped)
 *       place behind it, as at 32
 *       u64 x · u64 lines · u32 CRC-32C of everything before
 *
 * Valid: the slots are those between the two places, without a hole; segments lie one behind the
 * other from 88 to x; the last line is a segment, whose hash is that of the place behind it; the
 * checksum is right.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "fmt/archive.h"

#include <inttypes.h>
#include <stdio.h>

#include "base/crc32c.h"
#include "base/memory.h"

#define FORMAT 1
#define HEAD_BYTES 88u
#define LINE_BYTES 82u
#define PLACE_BYTES 56u
#define TAIL_BYTES (PLACE_BYTES + 8u + 8u + 4u)
#define KIND_SEGMENT 1
#define KIND_SKIPPED 2

static const char magic[8] = {'t', '4', 'l', 'o', 'g', '\r', '\n', '\032'};

static void
append_place(struct buffer *out, const struct chain_floor *place)
{
    buffer_append_u64(out, place->next_slot);
    buffer_append_u64(out, place->term);
    buffer_append(out, place->hash, HASH_BYTES);
    buffer_append_u64(out, place->last_index);
}

static void
add_line(struct archive *a, const struct archive_slot *s)
{
    if (a->n == a->capacity) {
        a->capacity = a->capacity * 2 + 64;
        a->slot = mem_realloc(a->slot, a->capacity * sizeof *a->slot);
    }
    a->slot[a->n++] = *s;
}

void
archive_begin(struct buffer *out, struct archive *a)
{
    a->n = 0;
    buffer_clear(out);
    buffer_append(out, magic, sizeof magic);
    buffer_append_u32(out, FORMAT);
    buffer_append_u32(out, 0);
    buffer_append_u64(out, a->cluster_id);
    buffer_append_u64(out, a->lineage);
    append_place(out, &a->begin);
}

void
archive_add_segment(struct buffer *out, struct archive *a, struct archive_slot *s,
                    struct t4_slice object)
{
    s->skipped = false;
    s->offset = out->len;
    s->length = object.len;
    buffer_append_slice(out, object);
    add_line(a, s);
}

void
archive_add_skipped(struct archive *a, const struct archive_slot *s)
{
    struct archive_slot line = {.skipped = true, .slot = s->slot, .term = s->term};

    memcpy(line.hash, s->hash, HASH_BYTES);
    add_line(a, &line);
}

void
archive_end(struct buffer *out, const struct archive *a)
{
    uint64_t index = out->len;

    for (size_t i = 0; i < a->n; i++) {
        const struct archive_slot *s = &a->slot[i];

        buffer_append_u8(out, s->skipped ? KIND_SKIPPED : KIND_SEGMENT);
        buffer_append_u8(out, 0);
        buffer_append_u64(out, s->slot);
        buffer_append_u64(out, s->term);
        buffer_append(out, s->hash, HASH_BYTES);
        buffer_append_u64(out, s->offset);
        buffer_append_u64(out, s->length);
        buffer_append_u64(out, s->first_index);
        buffer_append_u64(out, (uint64_t)s->first_revision);
    }
    append_place(out, &a->end);
    buffer_append_u64(out, index);
    buffer_append_u64(out, a->n);
    buffer_append_u32(out, crc32c(0, out->data, out->len));
}

/* --- decoding --------------------------------------------------------------------------- */

static struct chain_floor
read_place(struct byte_reader *r)
{
    struct chain_floor place = {.next_slot = reader_u64(r), .term = reader_u64(r)};
    struct t4_slice hash = reader_bytes(r, HASH_BYTES);

    if (!r->bad)
        memcpy(place.hash, hash.data, HASH_BYTES);
    place.last_index = reader_u64(r);
    return place;
}

/* *end: where the next segment must begin. */
static bool
read_line(struct byte_reader *r, struct archive_slot *s, uint64_t *end)
{
    uint8_t kind = reader_u8(r), zero = reader_u8(r);
    struct t4_slice hash;

    *s = (struct archive_slot){
        .skipped = kind == KIND_SKIPPED, .slot = reader_u64(r), .term = reader_u64(r)};
    hash = reader_bytes(r, HASH_BYTES);
    if (r->bad)
        return false;
    memcpy(s->hash, hash.data, HASH_BYTES);
    s->offset = reader_u64(r);
    s->length = reader_u64(r);
    s->first_index = reader_u64(r);
    s->first_revision = (int64_t)reader_u64(r);
    if (r->bad || zero != 0 || (kind != KIND_SEGMENT && kind != KIND_SKIPPED) ||
        s->first_revision < 0)
        return false;
    if (s->skipped)
        return s->offset == 0 && s->length == 0 && s->first_index == 0 &&
               s->first_revision == 0;
    if (s->offset != *end || s->length == 0 || s->length > SEGMENT_OBJECT_MAX)
        return false;
    *end += s->length;
    return true;
}

static bool
read_lines(struct byte_reader *r, struct archive *a, uint64_t lines, uint64_t index)
{
    uint64_t end = HEAD_BYTES;
    bool last_is_segment = false;

    for (uint64_t i = 0; i < lines; i++) {
        struct archive_slot s;

        if (!read_line(r, &s, &end) || s.slot != a->begin.next_slot + i || end > index)
            return false;
        add_line(a, &s);
        last_is_segment = !s.skipped && memcmp(s.hash, a->end.hash, HASH_BYTES) == 0;
    }
    return last_is_segment && end == index && r->next == r->end;
}

t4_status
archive_decode(struct t4_slice object, struct archive *a)
{
    struct byte_reader r = reader_of(object), tail, lines;
    struct t4_slice bytes = reader_bytes(&r, sizeof magic);
    uint64_t index, n;
    uint32_t format = reader_u32(&r), zero = reader_u32(&r);

    *a = (struct archive){.cluster_id = reader_u64(&r), .lineage = reader_u64(&r)};
    a->begin = read_place(&r);
    if (r.bad || memcmp(bytes.data, magic, sizeof magic) != 0 || format == 0)
        return T4_E_CORRUPT;
    if (format > FORMAT)
        return T4_E_UNSUPPORTED;
    if (zero != 0 || reader_left(&r) < TAIL_BYTES ||
        crc32c(0, object.data, object.len - 4) != get_u32le(object.data + object.len - 4))
        return T4_E_CORRUPT;
    tail = reader_of(slice_of(object.data + object.len - TAIL_BYTES, TAIL_BYTES - 4));
    a->end = read_place(&tail);
    index = reader_u64(&tail);
    n = reader_u64(&tail);
    if (n == 0 || index < HEAD_BYTES || index > object.len - TAIL_BYTES ||
        (object.len - TAIL_BYTES - index) / LINE_BYTES != n ||
        (object.len - TAIL_BYTES - index) % LINE_BYTES != 0 ||
        a->end.next_slot - a->begin.next_slot != n)
        return T4_E_CORRUPT;
    lines =
        reader_of(slice_of(object.data + index, object.len - TAIL_BYTES - (size_t)index));
    if (!read_lines(&lines, a, n, index)) {
        archive_free(a);
        return T4_E_CORRUPT;
    }
    return T4_OK;
}

void
archive_free(struct archive *a)
{
    mem_free(a->slot);
    *a = (struct archive){0};
}

/* --- names ------------------------------------------------------------------------------ */

void
archive_key(char key[ARCHIVE_KEY_BYTES], uint64_t first, uint64_t last)
{
    snprintf(key, ARCHIVE_KEY_BYTES, "log/%020" PRIu64 "-%020" PRIu64, first, last);
}

bool
archive_key_parse(struct t4_slice key, uint64_t *first, uint64_t *last)
{
    char text[ARCHIVE_KEY_BYTES], again[ARCHIVE_KEY_BYTES];

    if (key.len != ARCHIVE_KEY_BYTES - 1)
        return false;
    memcpy(text, key.data, key.len);
    text[key.len] = '\0';
    if (sscanf(text, "log/%" SCNu64 "-%" SCNu64, first, last) != 2)
        return false;
    archive_key(again, *first, *last);
    return strcmp(again, text) == 0 && *first <= *last;
}

/*
 * record.c - encoding of versions for the storage engine.
 *
 * Key:    space byte · raw key with each 0x00 written as 0x00 0xff · 0x00 0x01 · u64 big
 *         endian of ~stamp.  The terminator sorts below an escaped zero and below every
 *         other byte, so a key stands before its extensions; ~stamp puts newer first.
 * Value:  u8 flags (1 tombstone) · varint sub · without the flag: varint create_revision ·
 *         varint version · varint lease · value bytes · then always u32 CRC-32C of key and
 *         of everything before it.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "fmt/record.h"

#include "base/crc32c.h"

#define TERMINATOR 0x01
#define ESCAPED_ZERO 0xff
#define STAMP_BYTES 8
#define CRC_BYTES 4

static void
escape(struct buffer *out, struct t4_slice ikey)
{
    const uint8_t *p = ikey.data, *end = p + ikey.len;

    while (p < end) {
        const uint8_t *zero = memchr(p, 0, (size_t)(end - p));

        if (zero == NULL) {
            buffer_append(out, p, (size_t)(end - p));
            return;
        }
        buffer_append(out, p, (size_t)(zero - p) + 1);
        buffer_append_u8(out, ESCAPED_ZERO);
        p = zero + 1;
    }
}

void
record_key_encode(struct buffer *out, struct t4_slice ikey, uint64_t stamp)
{
    uint8_t tail[2 + STAMP_BYTES] = {0, TERMINATOR};

    escape(out, ikey);
    put_u64be(tail + 2, ~stamp);
    buffer_append(out, tail, sizeof tail);
}

void
record_key_end(struct buffer *out, struct t4_slice ikey)
{
    escape(out, ikey);
    buffer_append(out, "\0\2", 2);
}

size_t
record_key_size(struct t4_slice ikey)
{
    size_t n = ikey.len + 2 + STAMP_BYTES;

    for (size_t i = 0; i < ikey.len; i++)
        n += ikey.data[i] == 0;
    return n;
}

bool
record_key_decode(struct t4_slice key, struct buffer *scratch, struct t4_slice *ikey,
                  uint64_t *stamp)
{
    const uint8_t *p = key.data, *end;

    if (key.len < 1 + 2 + STAMP_BYTES)
        return false;
    end = p + key.len - STAMP_BYTES - 2;
    if (end[0] != 0 || end[1] != TERMINATOR)
        return false;
    *stamp = ~get_u64be(end + 2);
    if (memchr(p, 0, (size_t)(end - p)) == NULL) {
        *ikey = slice_of(p, (size_t)(end - p));
        return true;
    }
    buffer_clear(scratch);
    buffer_reserve(scratch, (size_t)(end - p));
    while (p < end) {
        if (*p == 0 && (p + 1 == end || p[1] != ESCAPED_ZERO))
            return false;
        scratch->data[scratch->len++] = *p;
        p += *p == 0 ? 2 : 1;
    }
    *ikey = buffer_slice(scratch);
    return true;
}

bool
record_key_is_of(struct t4_slice key, struct t4_slice ikey, uint64_t *stamp)
{
    const uint8_t *tail = key.data + ikey.len;

    if (key.len != ikey.len + 2 + STAMP_BYTES ||
        memcmp(key.data, ikey.data, ikey.len) != 0 || tail[0] != 0 ||
        tail[1] != TERMINATOR)
        return false;
    *stamp = ~get_u64be(tail + 2);
    return true;
}

void
record_value_encode(struct buffer *out, struct t4_slice encoded_key,
                    const struct version *v)
{
    size_t start = out->len;
    uint32_t crc;

    buffer_append_u8(out, v->flags);
    buffer_append_varint(out, v->sub);
    if (!(v->flags & VERSION_TOMBSTONE)) {
        buffer_append_varint(out, (uint64_t)v->create_revision);
        buffer_append_varint(out, (uint64_t)v->version);
        buffer_append_varint(out, (uint64_t)v->lease);
        buffer_append_slice(out, v->value);
    }
    crc = crc32c(0, encoded_key.data, encoded_key.len);
    buffer_append_u32(out, crc32c(crc, out->data + start, out->len - start));
}

bool
record_value_decode(struct t4_slice value, struct version *v)
{
    struct byte_reader r;

    if (value.len < 2 + CRC_BYTES)
        return false;
    value.len -= CRC_BYTES;
    r = reader_of(value);
    v->flags = reader_u8(&r);
    v->sub = (uint32_t)reader_varint(&r);
    if (v->flags & VERSION_TOMBSTONE) {
        v->create_revision = v->version = v->lease = 0;
        v->value = slice_of(NULL, 0);
        return !r.bad && reader_left(&r) == 0;
    }
    v->create_revision = (int64_t)reader_varint(&r);
    v->version = (int64_t)reader_varint(&r);
    v->lease = (int64_t)reader_varint(&r);
    v->value = slice_of(r.next, reader_left(&r));
    return !r.bad && v->flags == 0;
}

bool
record_verify(struct t4_slice encoded_key, struct t4_slice value)
{
    uint32_t crc;

    if (value.len < CRC_BYTES)
        return false;
    crc = crc32c(0, encoded_key.data, encoded_key.len);
    crc = crc32c(crc, value.data, value.len - CRC_BYTES);
    return crc == get_u32le(value.data + value.len - CRC_BYTES);
}

/*
 * buffer.c - growable byte strings and bounded reading.  See buffer.h.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "base/buffer.h"

#include "base/memory.h"

void
buffer_free(struct buffer *b)
{
    mem_free(b->data);
    *b = (struct buffer){0};
}

uint8_t *
buffer_reserve(struct buffer *b, size_t n)
{
    if (b->capacity - b->len < n) {
        size_t capacity = b->capacity * 2;

        if (capacity < b->len + n)
            capacity = b->len + n;
        if (capacity < 64)
            capacity = 64;
        b->data = mem_realloc(b->data, capacity);
        b->capacity = capacity;
    }
    return b->data + b->len;
}

void
buffer_append(struct buffer *b, const void *data, size_t n)
{
    if (n == 0)
        return;
    memcpy(buffer_reserve(b, n), data, n);
    b->len += n;
}

void
buffer_append_varint(struct buffer *b, uint64_t v)
{
    uint8_t *p = buffer_reserve(b, 10);

    while (v >= 0x80) {
        *p++ = (uint8_t)(v | 0x80);
        v >>= 7;
    }
    *p++ = (uint8_t)v;
    b->len = (size_t)(p - b->data);
}

struct t4_slice
reader_bytes(struct byte_reader *r, size_t n)
{
    struct t4_slice s = {r->next, n};

    if (r->bad || (size_t)(r->end - r->next) < n) {
        r->bad = true;
        return (struct t4_slice){NULL, 0};
    }
    r->next += n;
    return s;
}

uint64_t
reader_varint(struct byte_reader *r)
{
    uint64_t v = 0;

    for (int shift = 0; shift < 64; shift += 7) {
        uint8_t byte;

        if (r->bad || r->next == r->end)
            break;
        byte = *r->next++;
        if (shift == 63 && byte > 1)
            break;
        v |= (uint64_t)(byte & 0x7f) << shift;
        if (byte < 0x80)
            return v;
    }
    r->bad = true;
    return 0;
}

uint8_t
reader_u8(struct byte_reader *r)
{
    struct t4_slice s = reader_bytes(r, 1);

    return s.len == 1 ? s.data[0] : 0;
}

uint32_t
reader_u32(struct byte_reader *r)
{
    struct t4_slice s = reader_bytes(r, 4);

    return s.len == 4 ? get_u32le(s.data) : 0;
}

uint64_t
reader_u64(struct byte_reader *r)
{
    struct t4_slice s = reader_bytes(r, 8);

    return s.len == 8 ? get_u64le(s.data) : 0;
}

struct t4_slice
reader_counted(struct byte_reader *r)
{
    uint64_t n = reader_varint(r);

    if (r->bad || n > (uint64_t)(r->end - r->next)) {
        r->bad = true;
        return (struct t4_slice){NULL, 0};
    }
    return reader_bytes(r, (size_t)n);
}

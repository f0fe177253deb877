/*
 * buffer.h - a growable byte string and bounded reading of one.
 *
 * Integers are little endian unless the name says otherwise.  A buffer belongs to one thread
 * at a time.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef BASE_BUFFER_H
#define BASE_BUFFER_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "base/slice.h"

struct buffer {
    uint8_t *data;
    size_t len, capacity;
};

void buffer_free(struct buffer *b);
/* Makes room for n more bytes and returns where they go; len is unchanged. */
uint8_t *buffer_reserve(struct buffer *b, size_t n);
void buffer_append(struct buffer *b, const void *data, size_t n);
void buffer_append_varint(struct buffer *b, uint64_t v); /* LEB128, 1 to 10 bytes */

static inline void
buffer_clear(struct buffer *b)
{
    b->len = 0;
}

static inline struct t4_slice
buffer_slice(const struct buffer *b)
{
    return slice_of(b->data, b->len);
}

static inline void
buffer_append_slice(struct buffer *b, struct t4_slice s)
{
    buffer_append(b, s.data, s.len);
}

static inline void
buffer_append_u8(struct buffer *b, uint8_t v)
{
    *buffer_reserve(b, 1) = v;
    b->len++;
}

static inline void
put_u32le(uint8_t *p, uint32_t v)
{
    for (int i = 0; i < 4; i++)
        p[i] = (uint8_t)(v >> (8 * i));
}

static inline void
put_u64le(uint8_t *p, uint64_t v)
{
    for (int i = 0; i < 8; i++)
        p[i] = (uint8_t)(v >> (8 * i));
}

static inline void
put_u64be(uint8_t *p, uint64_t v)
{
    for (int i = 0; i < 8; i++)
        p[i] = (uint8_t)(v >> (8 * (7 - i)));
}

static inline uint32_t
get_u32le(const uint8_t *p)
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 |
           (uint32_t)p[3] << 24;
}

static inline uint64_t
get_u64le(const uint8_t *p)
{
    return (uint64_t)get_u32le(p) | (uint64_t)get_u32le(p + 4) << 32;
}

static inline uint64_t
get_u64be(const uint8_t *p)
{
    uint64_t v = 0;

    for (int i = 0; i < 8; i++)
        v = v << 8 | p[i];
    return v;
}

static inline void
buffer_append_u32(struct buffer *b, uint32_t v)
{
    put_u32le(buffer_reserve(b, 4), v);
    b->len += 4;
}

static inline void
buffer_append_u64(struct buffer *b, uint64_t v)
{
    put_u64le(buffer_reserve(b, 8), v);
    b->len += 8;
}

/*
 * A reader over bytes that may be damaged: every read is bounds-checked, and after the first
 * failure `bad` stays set and all reads give zero or an empty slice.
 */
struct byte_reader {
    const uint8_t *next, *end;
    bool bad;
};

static inline struct byte_reader
reader_of(struct t4_slice s)
{
    return (struct byte_reader){s.data, s.data + s.len, false};
}

static inline size_t
reader_left(const struct byte_reader *r)
{
    return r->bad ? 0 : (size_t)(r->end - r->next);
}

struct t4_slice reader_bytes(struct byte_reader *r, size_t n);
uint64_t reader_varint(struct byte_reader *r); /* overlong or > 64 bits: bad */
uint8_t reader_u8(struct byte_reader *r);
uint32_t reader_u32(struct byte_reader *r);
uint64_t reader_u64(struct byte_reader *r);
/* A varint length, then that many bytes. */
struct t4_slice reader_counted(struct byte_reader *r);

#endif

/*
 * encode.c - etcd's response messages, written by hand.  See encode.h.
 *
 * The path that counts is wire_key_value_field(): the size is computed first, then one
 * chain_reserve() and plain stores (50-100 ns for a key and 300 bytes).
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "wire/encode.h"

#define VARINT 0u
#define BYTES 2u

/* A KeyValue up to this size is written in one piece; larger ones fill blocks. */
#define CONTIGUOUS_MAX 4096u
/* Tag and length of a message: at most 5 + 10 bytes. */
#define HEAD_MAX 15u

static inline uint8_t *
write_varint(uint8_t *p, uint64_t v)
{
    while (v >= 0x80) {
        *p++ = (uint8_t)(v | 0x80);
        v >>= 7;
    }
    *p++ = (uint8_t)v;
    return p;
}

static inline uint8_t *
write_tag(uint8_t *p, uint32_t field, uint32_t type)
{
    return write_varint(p, field << 3 | type);
}

static inline size_t
tag_size(uint32_t field)
{
    return varint_size(field << 3);
}

/* Fields of these messages have one-byte tags. */
static inline size_t
number_size(uint64_t v)
{
    return v == 0 ? 0 : 1 + varint_size(v);
}

static inline size_t
bytes_size(size_t n)
{
    return n == 0 ? 0 : 1 + varint_size(n) + n;
}

static inline uint8_t *
write_number(uint8_t *p, uint32_t field, uint64_t v)
{
    if (v == 0)
        return p;
    *p++ = (uint8_t)(field << 3 | VARINT);
    return write_varint(p, v);
}

static inline uint8_t *
write_bytes_head(uint8_t *p, uint32_t field, size_t n)
{
    *p++ = (uint8_t)(field << 3 | BYTES);
    return write_varint(p, n);
}

static inline uint8_t *
write_bytes(uint8_t *p, uint32_t field, struct t4_slice s)
{
    if (s.len == 0)
        return p;
    p = write_bytes_head(p, field, s.len);
    memcpy(p, s.data, s.len);
    return p + s.len;
}

void
wire_varint_field(struct chain *c, uint32_t field, uint64_t v)
{
    uint8_t *p, *start;

    if (v == 0)
        return;
    start = chain_reserve(c, HEAD_MAX);
    p = write_varint(write_tag(start, field, VARINT), v);
    chain_commit(c, (size_t)(p - start));
}

void
wire_bytes_field(struct chain *c, uint32_t field, struct t4_slice s)
{
    if (s.len == 0)
        return;
    wire_message_head(c, field, s.len);
    chain_append(c, s.data, s.len);
}

void
wire_message_head(struct chain *c, uint32_t field, size_t length)
{
    uint8_t *start = chain_reserve(c, HEAD_MAX);
    uint8_t *p = write_varint(write_tag(start, field, BYTES), length);

    chain_commit(c, (size_t)(p - start));
}

void
wire_message_field(struct chain *c, uint32_t field, struct chain *inner)
{
    wire_message_head(c, field, inner->length);
    chain_splice(c, inner);
}

/* --- the response header ------------------------------------------------------------ */

static size_t
header_size(const struct response_header *h)
{
    return number_size(h->cluster_id) + number_size(h->member_id) +
           number_size((uint64_t)h->revision) + number_size(h->raft_term);
}

size_t
wire_header_field_size(const struct response_header *h)
{
    return 2 + header_size(h); /* below 128 bytes: a one-byte length */
}

uint8_t *
wire_header_field_write(uint8_t *p, uint32_t field, const struct response_header *h)
{
    p = write_bytes_head(p, field, header_size(h));
    p = write_number(p, 1, h->cluster_id);
    p = write_number(p, 2, h->member_id);
    p = write_number(p, 3, (uint64_t)h->revision);
    return write_number(p, 4, h->raft_term);
}

void
wire_header_field(struct chain *c, uint32_t field, const struct response_header *h)
{
    size_t n = wire_header_field_size(h);

    wire_header_field_write(chain_reserve(c, n), field, h);
    chain_commit(c, n);
}

/* --- key and value ------------------------------------------------------------------ */

static inline size_t
key_value_size(const struct key_value *kv)
{
    return bytes_size(kv->key.len) + bytes_size(kv->value.len) +
           number_size((uint64_t)kv->create_revision) +
           number_size((uint64_t)kv->mod_revision) + number_size((uint64_t)kv->version) +
           number_size((uint64_t)kv->lease);
}

size_t
wire_key_value_size(const struct key_value *kv)
{
    return key_value_size(kv);
}

static inline uint8_t *
write_numbers(uint8_t *p, const struct key_value *kv)
{
    p = write_number(p, 2, (uint64_t)kv->create_revision);
    p = write_number(p, 3, (uint64_t)kv->mod_revision);
    return write_number(p, 4, (uint64_t)kv->version);
}

static inline uint8_t *
write_key_value(uint8_t *p, const struct key_value *kv)
{
    p = write_bytes(p, 1, kv->key);
    p = write_numbers(p, kv);
    p = write_bytes(p, 5, kv->value);
    return write_number(p, 6, (uint64_t)kv->lease);
}

uint8_t *
wire_key_value_write(uint8_t *p, const struct key_value *kv)
{
    return write_key_value(p, kv);
}

/* Too large for one piece: only the small parts are reserved, the bytes are appended. */
static void
append_key_value(struct chain *c, uint32_t field, const struct key_value *kv, size_t size)
{
    uint8_t *start, *p;

    wire_message_head(c, field, size);
    wire_bytes_field(c, 1, kv->key);
    start = chain_reserve(c, 64);
    p = write_numbers(start, kv);
    if (kv->value.len > 0)
        p = write_bytes_head(p, 5, kv->value.len);
    chain_commit(c, (size_t)(p - start));
    chain_append(c, kv->value.data, kv->value.len);
    wire_varint_field(c, 6, (uint64_t)kv->lease);
}

void
wire_key_value_field(struct chain *c, uint32_t field, const struct key_value *kv)
{
    size_t size = key_value_size(kv);
    uint8_t *start, *p;

    if (size > CONTIGUOUS_MAX) {
        append_key_value(c, field, kv, size);
        return;
    }
    start = chain_reserve(c, size + tag_size(field) + varint_size(size));
    p = write_varint(write_tag(start, field, BYTES), size);
    p = write_key_value(p, kv);
    chain_commit(c, (size_t)(p - start));
}

void
wire_event_field(struct chain *c, int type, const struct key_value *kv,
                 const struct key_value *prev)
{
    size_t n = key_value_size(kv), size = 1 + varint_size(n) + n;

    size += number_size((uint64_t)type);
    if (prev != NULL) {
        n = key_value_size(prev);
        size += 1 + varint_size(n) + n;
    }
    wire_message_head(c, 11, size);
    wire_varint_field(c, 1, (uint64_t)type);
    wire_key_value_field(c, 2, kv);
    if (prev != NULL)
        wire_key_value_field(c, 3, prev);
}

/*
 * segment.c - encoding of chain objects.
 *
 * Bytes, integers little endian:
 *    0  8 bytes  "t4chain\n"
 *    8  u32      format (1)
 *   12  u8 kind (1 data, 2 fence) · u8 rule (1 object, 2 local; 0 in a fence) · u8 codec (1
 *       zstd; 0 in a fence) · u8 zero
 *   16  u64 cluster id · u64 lineage · u64 generation · u64 term · u64 writer
 *   56  16 bytes put id
 *   72  u64 first index · u64 last index · u64 committed (zeros in a fence)
 *   96  32 bytes hash of the previous accepted data segment's object (zeros: none, or fence)
 *  128  u32 bytes of the entries before compression · u32 bytes of the payload
 *  136  payload, then u32 CRC-32C of everything before
 *
 * Valid: sizes agree with the object's length, the checksum is right, first <= last in a data
 * segment, everything zero in a fence that must be.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "fmt/segment.h"

#include <inttypes.h>
#include <stdio.h>

#include "base/crc32c.h"

#define FORMAT 1
#define KIND_DATA 1
#define KIND_FENCE 2
#define CODEC_ZSTD 1
#define HEAD_BYTES 136
#define CRC_BYTES 4

static const char magic[8] = {'t', '4', 'c', 'h', 'a', 'i', 'n', '\n'};

void
segment_encode(struct buffer *out, const struct segment *s)
{
    size_t start = out->len;

    buffer_append(out, magic, sizeof magic);
    buffer_append_u32(out, FORMAT);
    buffer_append_u8(out, s->fence ? KIND_FENCE : KIND_DATA);
    buffer_append_u8(out, s->fence ? 0 : (uint8_t)s->rule);
    buffer_append_u8(out, s->fence ? 0 : CODEC_ZSTD);
    buffer_append_u8(out, 0);
    buffer_append_u64(out, s->cluster_id);
    buffer_append_u64(out, s->lineage);
    buffer_append_u64(out, s->generation);
    buffer_append_u64(out, s->term);
    buffer_append_u64(out, s->writer);
    buffer_append(out, s->put_id, PUT_ID_BYTES);
    buffer_append_u64(out, s->first_index);
    buffer_append_u64(out, s->last_index);
    buffer_append_u64(out, s->committed);
    buffer_append(out, s->previous, HASH_BYTES);
    buffer_append_u32(out, s->raw_bytes);
    buffer_append_u32(out, (uint32_t)s->payload.len);
    buffer_append_slice(out, s->payload);
    buffer_append_u32(out, crc32c(0, out->data + start, out->len - start));
}

static bool
all_zero(const uint8_t *p, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (p[i] != 0)
            return false;
    return true;
}

t4_status
segment_decode(struct t4_slice object, struct segment *s)
{
    struct byte_reader r = reader_of(object);
    uint8_t kind, rule, codec;
    uint32_t payload;

    memset(s, 0, sizeof *s);
    if (object.len < HEAD_BYTES + CRC_BYTES || object.len > SEGMENT_OBJECT_MAX ||
        memcmp(object.data, magic, sizeof magic) != 0)
        return T4_E_CORRUPT;
    reader_bytes(&r, sizeof magic);
    if (reader_u32(&r) != FORMAT)
        return T4_E_UNSUPPORTED;
    if (crc32c(0, object.data, object.len - CRC_BYTES) !=
        get_u32le(object.data + object.len - CRC_BYTES))
        return T4_E_CORRUPT;
    kind = reader_u8(&r);
    rule = reader_u8(&r);
    codec = reader_u8(&r);
    if (reader_u8(&r) != 0)
        return T4_E_CORRUPT;
    s->fence = kind == KIND_FENCE;
    s->rule = (enum commit_rule)rule;
    s->cluster_id = reader_u64(&r);
    s->lineage = reader_u64(&r);
    s->generation = reader_u64(&r);
    s->term = reader_u64(&r);
    s->writer = reader_u64(&r);
    memcpy(s->put_id, reader_bytes(&r, PUT_ID_BYTES).data, PUT_ID_BYTES);
    if (s->fence)
        return rule == 0 && codec == 0 && object.len == HEAD_BYTES + CRC_BYTES &&
                       all_zero(r.next, HEAD_BYTES - 72)
                   ? T4_OK
                   : T4_E_CORRUPT;
    s->first_index = reader_u64(&r);
    s->last_index = reader_u64(&r);
    s->committed = reader_u64(&r);
    memcpy(s->previous, reader_bytes(&r, HASH_BYTES).data, HASH_BYTES);
    s->raw_bytes = reader_u32(&r);
    payload = reader_u32(&r);
    if (kind != KIND_DATA || (rule != RULE_OBJECT && rule != RULE_LOCAL) ||
        codec != CODEC_ZSTD || s->first_index == 0 || s->first_index > s->last_index ||
        s->raw_bytes > SEGMENT_RAW_MAX || payload != object.len - HEAD_BYTES - CRC_BYTES)
        return T4_E_CORRUPT;
    s->payload = reader_bytes(&r, payload);
    return T4_OK;
}

void
segment_entry_append(struct buffer *raw, struct t4_slice entry)
{
    buffer_append_varint(raw, entry.len);
    buffer_append_slice(raw, entry);
}

bool
segment_entry_next(struct byte_reader *r, struct t4_slice *entry)
{
    if (r->bad || r->next == r->end)
        return false;
    *entry = reader_counted(r);
    return !r->bad;
}

void
slot_key(char key[SLOT_KEY_BYTES], uint64_t slot)
{
    snprintf(key, SLOT_KEY_BYTES, "wal/%020" PRIu64, slot);
}

bool
slot_key_parse(struct t4_slice key, uint64_t *slot)
{
    uint64_t v = 0;

    if (key.len != SLOT_KEY_BYTES - 1 || memcmp(key.data, "wal/", 4) != 0)
        return false;
    for (size_t i = 4; i < key.len; i++) {
        uint64_t d = (uint64_t)key.data[i] - '0';

        if (d > 9 || v > (UINT64_MAX - d) / 10)
            return false;
        v = v * 10 + d;
    }
    *slot = v;
    return true;
}

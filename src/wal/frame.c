/*
 * frame.c - the bytes of the write-ahead log.
 *
 * A segment is the file <dir>/<number as 16 hex digits>.wal.  Integers are little endian.
 *
 * Header block, 4096 bytes, written and synced before the file gets its name:
 *    0  8 bytes  magic "t4wal\r\n\032"
 *    8  u32      format, 1
 *   12  u32      CRC-32C of the block with this field zero
 *   16  u64      cluster id
 *   24  u64      lineage
 *   32  u64      segment number, the same as in the name
 *   40  u64      salt, random, new for each file
 *   48  u64      size of the file
 *   56  zeros
 *
 * Behind it frames at multiples of 8, then zeros:
 *    0  u32  length of the body
 *    4  u32  checksum: CRC-32C over salt, offset of the frame in the file (u64), length
 *            (u32), and all bytes of the frame from 8 on, padding included
 *    8  u64  synced_through: the log was durable up to this index before this was written
 *   16  u64  object frontier: the log was in the object store up to this index
 *   24  body: u8 kind, payload
 *       zeros up to a multiple of 8
 *
 * Kinds and payloads:
 *   1 entry  the encoded entry (fmt/entry.c)
 *   2 start  u64 generation · u64 term · u64 log_end · u64 first_index · i64 revision
 *            The log before this frame ends at log_end: what older segments hold above is
 *            void.  The next entry is first_index; that is log_end + 1, unless entries
 *            between are only in the storage engine.  revision: that of entry
 *            first_index - 1, -1 when it is not known.  A segment that counts begins with
 *            a start frame; more of them may follow.
 *   3 mark   empty: carries synced_through
 *
 * A frame is valid if its length fits the file, the checksum is right, the kind is known,
 * a start or mark has its exact length, an entry's head decodes, and synced_through is
 * below an entry's index and a start's first_index.  Salt and offset in the checksum keep
 * bytes of another segment, of an earlier life of the disk block, or inside of a value
 * from passing.
 *
 * Pure functions, any thread.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "base/crc32c.h"
#include "fmt/entry.h"
#include "wal/wal_int.h"

#define FORMAT 1u
#define CRC_OFFSET 12
#define START_BODY_BYTES 41u

static const uint8_t magic[8] = {'t', '4', 'w', 'a', 'l', '\r', '\n', 032};

void
header_encode(uint8_t block[SEGMENT_HEADER_BYTES], const struct segment_header *h)
{
    memset(block, 0, SEGMENT_HEADER_BYTES);
    memcpy(block, magic, sizeof magic);
    put_u32le(block + 8, FORMAT);
    put_u64le(block + 16, h->cluster_id);
    put_u64le(block + 24, h->lineage);
    put_u64le(block + 32, h->number);
    put_u64le(block + 40, h->salt);
    put_u64le(block + 48, h->bytes);
    put_u32le(block + CRC_OFFSET, crc32c(0, block, SEGMENT_HEADER_BYTES));
}

t4_status
header_decode(const uint8_t block[SEGMENT_HEADER_BYTES], struct segment_header *h,
              struct error *error)
{
    static const uint8_t zero[4];
    uint32_t crc = crc32c(0, block, CRC_OFFSET);

    crc = crc32c(crc, zero, sizeof zero);
    crc = crc32c(crc, block + CRC_OFFSET + 4, SEGMENT_HEADER_BYTES - CRC_OFFSET - 4);
    if (memcmp(block, magic, sizeof magic) != 0 || crc != get_u32le(block + CRC_OFFSET))
        return error_set(error, T4_E_CORRUPT, "the header (offset 0) is damaged");
    if (get_u32le(block + 8) != FORMAT)
        return error_set(error, T4_E_UNSUPPORTED, "format %u of the log is not known",
                         get_u32le(block + 8));
    h->cluster_id = get_u64le(block + 16);
    h->lineage = get_u64le(block + 24);
    h->number = get_u64le(block + 32);
    h->salt = get_u64le(block + 40);
    h->bytes = get_u64le(block + 48);
    return T4_OK;
}

static size_t
padded(size_t n)
{
    return (n + FRAME_ALIGN - 1) / FRAME_ALIGN * FRAME_ALIGN;
}

size_t
wal_frame_size(size_t n)
{
    return padded(FRAME_HEADER_BYTES + 1 + n);
}

/* Appends header, kind and padding; returns where the payload goes. */
static uint8_t *
append_frame(struct buffer *out, enum frame_kind kind, size_t payload)
{
    size_t size = wal_frame_size(payload);
    uint8_t *p = buffer_reserve(out, size);

    memset(p, 0, FRAME_HEADER_BYTES);
    memset(p + size - FRAME_ALIGN, 0, FRAME_ALIGN);
    put_u32le(p, (uint32_t)(1 + payload));
    p[FRAME_HEADER_BYTES] = (uint8_t)kind;
    out->len += size;
    return p + FRAME_HEADER_BYTES + 1;
}

void
frame_append_entry(struct buffer *out, struct t4_slice entry)
{
    uint8_t *p = append_frame(out, FRAME_ENTRY, entry.len);

    if (entry.len > 0)
        memcpy(p, entry.data, entry.len);
}

void
frame_append_mark(struct buffer *out)
{
    append_frame(out, FRAME_MARK, 0);
}

void
frame_append_start(struct buffer *out, const struct frame *f)
{
    uint8_t *p = append_frame(out, FRAME_START, START_BODY_BYTES - 1);

    put_u64le(p, f->generation);
    put_u64le(p + 8, f->term);
    put_u64le(p + 16, f->log_end);
    put_u64le(p + 24, f->first_index);
    put_u64le(p + 32, (uint64_t)f->revision);
}

size_t
frame_size_at(const uint8_t *p)
{
    size_t length = get_u32le(p);

    return length == 0 ? 0 : padded(FRAME_HEADER_BYTES + length);
}

static uint32_t
checksum(const uint8_t *p, size_t size, uint64_t salt, uint64_t offset)
{
    uint8_t place[20];

    put_u64le(place, salt);
    put_u64le(place + 8, offset);
    memcpy(place + 16, p, 4);
    return crc32c(crc32c(0, place, sizeof place), p + 8, size - 8);
}

void
frame_finish(uint8_t *p, uint64_t salt, uint64_t offset, uint64_t synced_through,
             uint64_t object_frontier)
{
    put_u64le(p + 8, synced_through);
    put_u64le(p + 16, object_frontier);
    put_u32le(p + 4, checksum(p, frame_size_at(p), salt, offset));
}

static bool
parse_entry(struct frame *f, const uint8_t *body, size_t length)
{
    struct byte_reader r;
    struct entry e;

    f->entry = slice_of(body + 1, length - 1);
    r = reader_of(f->entry);
    if (!entry_decode_head(&r, &e) || f->synced_through >= e.index)
        return false;
    f->index = e.index;
    f->term = e.term;
    f->revision = e.revision;
    return true;
}

static bool
parse_start(struct frame *f, const uint8_t *body, size_t length)
{
    if (length != START_BODY_BYTES)
        return false;
    f->generation = get_u64le(body + 1);
    f->term = get_u64le(body + 9);
    f->log_end = get_u64le(body + 17);
    f->first_index = get_u64le(body + 25);
    f->revision = (int64_t)get_u64le(body + 33);
    return f->log_end < f->first_index && f->synced_through < f->first_index;
}

bool
frame_parse(const uint8_t *p, size_t n, uint64_t salt, uint64_t offset, struct frame *f)
{
    const uint8_t *body = p + FRAME_HEADER_BYTES;
    size_t length;

    *f = (struct frame){.offset = offset};
    if (n < FRAME_MIN_BYTES || offset % FRAME_ALIGN != 0)
        return false;
    f->size = frame_size_at(p);
    if (f->size == 0 || f->size > n ||
        get_u32le(p + 4) != checksum(p, f->size, salt, offset))
        return false;
    length = get_u32le(p);
    f->kind = (enum frame_kind)body[0];
    f->synced_through = get_u64le(p + 8);
    f->object_frontier = get_u64le(p + 16);
    switch (body[0]) {
    case FRAME_ENTRY: return parse_entry(f, body, length);
    case FRAME_START: return parse_start(f, body, length);
    case FRAME_MARK: return length == 1;
    }
    return false;
}

bool
frame_plausible(const uint8_t *p, uint64_t ceiling)
{
    uint8_t kind = p[FRAME_HEADER_BYTES];
    uint32_t length = get_u32le(p);

    if (get_u64le(p + 8) >= ceiling || get_u64le(p + 16) >= ceiling)
        return false;
    switch (kind) {
    case FRAME_ENTRY: return length > 1;
    case FRAME_START: return length == START_BODY_BYTES;
    case FRAME_MARK: return length == 1;
    }
    return false;
}

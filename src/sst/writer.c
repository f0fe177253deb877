/*
 * writer.c - making SSTs: blocks, index, footer, and where a file should end.
 *
 * The object, integers little endian:
 *   blocks, one behind the other from offset 0, each zstd (level 1) of its records:
 *       varint length, encoded key, varint length, encoded value (fmt/record.c)
 *   index, for each block:
 *       varint length, encoded key of its first record · varint compressed length · varint
 *       raw length · u32 CRC-32C of the compressed bytes
 *   then the encoded key of the file's last record, after its varint length
 *   footer, 100 bytes:
 *      0  u64 records · u64 raw bytes of all blocks
 *     16  u64 smallest stamp in space 'k' · u64 largest (both 0: no such record)
 *     32  32 bytes SHA-256 of the raw bytes of all blocks, in order
 *     64  u64 offset of the index, which is the sum of the compressed lengths
 *     72  u32 number of blocks · u32 CRC-32C of the index
 *     80  u32 CODEC_VERSION · u32 format (1) · u32 CRC-32C of the footer's first 88 bytes
 *     92  8 bytes "t4sst\r\n\032"
 * The footer keeps its size, its checksum and its magic in later formats.
 *
 * A block ends before the record that would take it above SST_BLOCK_BYTES.  No byte depends on
 * anything but the records.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "base/crc32c.h"
#include "base/memory.h"
#include "fmt/entry.h"
#include "fmt/record.h"
#include "sst/sst_int.h"

/* Raw bytes from where a file may be cut to where it is, on average. */
#define GAP_MEAN (SST_RAW_MEAN - SST_RAW_MIN)

struct sst_writer {
    struct sst_filter_builder *filter; /* the caller's, or NULL */
    struct sha256_stream *content;
    struct buffer object; /* finished blocks */
    struct buffer index;
    struct buffer block;  /* raw records of the block at hand */
    struct buffer first;  /* encoded key of the file's first record */
    struct buffer opener; /* encoded key of the block's first record */
    struct buffer last;   /* encoded key of the newest record */
    struct buffer first_scratch, last_scratch; /* decoded keys of an sst_info */
    uint64_t records;
    uint64_t raw;       /* bytes of all records of the file */
    uint64_t key_hash;  /* of the newest record's key, */
    uint64_t key_bytes; /* and the raw bytes of its records */
    uint64_t min_stamp, max_stamp;
    bool has_stamps; /* a record of space 'k' was there */
    uint32_t blocks;
};

struct sst_writer *
sst_writer_new(struct sst_filter_builder *filter)
{
    struct sst_writer *w = mem_zalloc(sizeof *w);

    w->filter = filter;
    w->content = sha256_stream_new();
    return w;
}

void
sst_writer_free(struct sst_writer *w)
{
    if (w == NULL)
        return;
    sha256_stream_free(w->content);
    buffer_free(&w->object);
    buffer_free(&w->index);
    buffer_free(&w->block);
    buffer_free(&w->first);
    buffer_free(&w->opener);
    buffer_free(&w->last);
    buffer_free(&w->first_scratch);
    buffer_free(&w->last_scratch);
    mem_free(w);
}

static void
assign(struct buffer *b, struct t4_slice s)
{
    buffer_clear(b);
    buffer_append_slice(b, s);
}

static void
append_counted(struct buffer *b, struct t4_slice s)
{
    buffer_append_varint(b, s.len);
    buffer_append_slice(b, s);
}

static size_t
counted_size(size_t len)
{
    size_t n = 1;

    for (size_t v = len; v >= 0x80; v >>= 7)
        n++;
    return n + len;
}

static void
block_end(struct sst_writer *w)
{
    size_t at = w->object.len, packed;

    if (w->block.len == 0)
        return;
    sha256_add(w->content, buffer_slice(&w->block));
    compress_append(&w->object, buffer_slice(&w->block));
    packed = w->object.len - at;
    append_counted(&w->index, buffer_slice(&w->opener));
    buffer_append_varint(&w->index, packed);
    buffer_append_varint(&w->index, w->block.len);
    buffer_append_u32(&w->index, crc32c(0, w->object.data + at, packed));
    w->blocks++;
    buffer_clear(&w->block);
}

static bool
begins_key(const struct sst_writer *w, struct t4_slice key)
{
    return w->records == 0 || key.len < RECORD_KEY_MIN ||
           !slice_equal(key_without_stamp(key),
                        key_without_stamp(buffer_slice(&w->last)));
}

static void
note_stamp(struct sst_writer *w, uint64_t stamp)
{
    if (!w->has_stamps || stamp < w->min_stamp)
        w->min_stamp = stamp;
    if (!w->has_stamps || stamp > w->max_stamp)
        w->max_stamp = stamp;
    w->has_stamps = true;
}

/* Of a refused record: which one, and that it is the caller's fault. */
static t4_status
refused(struct error *error, struct t4_slice key, const char *why)
{
    char text[KEY_TEXT_BYTES];

    sst_key_text(text, key);
    return error_set(error, T4_E_INVALID, "the record of %s cannot be written: %s", text,
                     why);
}

/* What must hold of a record; a key that begins with this record is hashed. */
static t4_status
accept(struct sst_writer *w, struct t4_slice key, struct t4_slice value, size_t size,
       struct error *error)
{
    char text[KEY_TEXT_BYTES];
    struct t4_slice ikey;
    uint64_t stamp;

    if (!record_verify(key, value)) {
        sst_key_text(text, key);
        return sst_damaged(error, "the record of %s fails its checksum", text);
    }
    if (size > SST_BLOCK_MAX)
        return refused(error, key, "it is larger than a sorted file takes (64 MiB)");
    if (w->records > 0 && slice_compare(buffer_slice(&w->last), key) >= 0)
        return refused(error, key, "it does not come after the one before it");
    if (!begins_key(w, key))
        return T4_OK;
    if (!record_key_decode(key, &w->first_scratch, &ikey, &stamp)) {
        sst_key_text(text, key);
        return sst_damaged(error, "the key of a record (%s) is damaged", text);
    }
    w->key_hash = sst_hash(ikey);
    w->key_bytes = 0;
    if (w->filter != NULL)
        sst_filter_add(w->filter, w->key_hash);
    return T4_OK;
}

t4_status
sst_writer_add(struct sst_writer *w, struct t4_slice key, struct t4_slice value,
               struct error *error)
{
    size_t size = counted_size(key.len) + counted_size(value.len);
    t4_status status = accept(w, key, value, size, error);

    if (status != T4_OK)
        return status;
    if (w->block.len > 0 && w->block.len + size > SST_BLOCK_BYTES)
        block_end(w);
    if (w->block.len == 0)
        assign(&w->opener, key);
    if (w->records == 0)
        assign(&w->first, key);
    assign(&w->last, key);
    append_counted(&w->block, key);
    append_counted(&w->block, value);
    if (key.data[0] == SPACE_KEYS)
        note_stamp(w, key_stamp(key));
    w->records++;
    w->raw += size;
    w->key_bytes += size;
    return T4_OK;
}

/*
 * The last key of the file decides, with a chance in proportion to the bytes of its records, so
 * that the mean holds for small records and for large ones.  A file never holds keys of two spaces:
 * its bounds would hide what lies between (a range above the last user key).
 */
bool
sst_cut_here(const struct sst_writer *w, struct t4_slice key)
{
    if (w->records > 0 && w->last.data[0] != key.data[0])
        return true;
    if (w->raw < SST_RAW_MIN || !begins_key(w, key))
        return false;
    return w->raw >= SST_RAW_MAX || w->key_bytes >= GAP_MEAN ||
           w->key_hash < w->key_bytes * (UINT64_MAX / GAP_MEAN);
}

uint64_t
sst_writer_records(const struct sst_writer *w)
{
    return w->records;
}

static void
append_footer(struct sst_writer *w, uint64_t index_at, const struct sst_info *info)
{
    struct buffer *out = &w->object;
    size_t start = out->len;

    buffer_append_u64(out, info->records);
    buffer_append_u64(out, info->raw_bytes);
    buffer_append_u64(out, info->min_stamp);
    buffer_append_u64(out, info->max_stamp);
    buffer_append(out, info->content, sizeof info->content);
    buffer_append_u64(out, index_at);
    buffer_append_u32(out, w->blocks);
    buffer_append_u32(out, crc32c(0, out->data + index_at, start - index_at));
    buffer_append_u32(out, CODEC_VERSION);
    buffer_append_u32(out, SST_FORMAT);
    buffer_append_u32(out, crc32c(0, out->data + start, SST_FOOTER_CRC_AT));
    buffer_append(out, SST_MAGIC, MAGIC_BYTES);
}

static void
writer_clear(struct sst_writer *w)
{
    buffer_clear(&w->object);
    buffer_clear(&w->index);
    w->records = w->raw = 0;
    w->min_stamp = w->max_stamp = 0;
    w->has_stamps = false;
    w->blocks = 0;
}

t4_status
sst_writer_finish(struct sst_writer *w, struct buffer *object, struct sst_info *info,
                  struct error *error)
{
    struct buffer spare = *object;
    uint64_t index_at, stamp;

    if (w->records == 0)
        return error_set(error, T4_E_INVALID, "a sorted file without records");
    block_end(w);
    *info = (struct sst_info){
        .raw_bytes = w->raw,
        .records = w->records,
        .min_stamp = w->min_stamp,
        .max_stamp = w->max_stamp,
    };
    sha256_end(w->content, info->content);
    record_key_decode(buffer_slice(&w->first), &w->first_scratch, &info->first, &stamp);
    record_key_decode(buffer_slice(&w->last), &w->last_scratch, &info->last, &stamp);
    index_at = w->object.len;
    append_counted(&w->index, buffer_slice(&w->last));
    buffer_append_slice(&w->object, buffer_slice(&w->index));
    append_footer(w, index_at, info);
    *object = w->object;
    info->object_bytes = object->len;
    sha256(buffer_slice(object), info->sha256);
    w->object = spare; /* its memory serves the next file */
    writer_clear(w);
    return T4_OK;
}

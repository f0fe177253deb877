/*
 * run.c - run indexes: which files a run consists of, and which of them a key needs.
 *
 * The object, integers little endian:
 *    0  8 bytes  "t4run\r\n\032"
 *    8  u32      format (1) · u32 CODEC_VERSION
 *   16  u8 flags (1: base) · u8 how the bounds are packed (0 as they are, 1 zstd) · u16 zero
 *   20  u32      number of files
 *   24  u64      first index (exclusive) · u64 last index
 *   40  u64      last revision · u64 compacted revision, both below 2^63
 *   56  u64      keys of the filter · u64 bytes of the filter (filter.c)
 *   72  u64      bytes of the bounds before packing · u64 packed
 *   88  u64      bytes of the system records, an SST (writer.c); 0: none
 *   96  for each file, 120 bytes:
 *       32 bytes SHA-256 · 32 bytes SHA-256 of its raw records
 *       u64 term · u64 index of the checkpoint that first wrote it
 *       u64 bytes of the object · u64 raw bytes · u64 records
 *       u64 smallest stamp in space 'k' · u64 largest (both 0: no such record)
 *       then the bounds, packed: for each file varint length, smallest internal key,
 *       varint length, largest internal key
 *       then the filter, then the system records, then u32 CRC-32C of everything before
 *
 * Bounds are packed unless they would unpack to more than BOUNDS_FACTOR times their size, so that a
 * reader may refuse whoever claims more.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <inttypes.h>
#include <stdio.h>

#include "base/crc32c.h"
#include "base/memory.h"
#include "sst/sst_int.h"

#define RUN_MAGIC "t4run\r\n\032"
#define RUN_FORMAT 1u
#define HEAD_BYTES 96u
#define FILE_BYTES 120u
#define FLAG_BASE 1u
#define BOUNDS_PLAIN 0u
#define BOUNDS_ZSTD 1u
#define BOUNDS_FACTOR 32u

t4_status
run_index_add(struct run_index *run, const struct sst_info *info, uint64_t term,
              uint64_t index, struct error *error)
{
    struct run_sst *file;
    uint8_t *keys;

    if (info->records == 0 || info->first.len == 0 ||
        slice_compare(info->first, info->last) > 0 ||
        (run->n > 0 && slice_compare(run->sst[run->n - 1].info.last, info->first) >= 0))
        return error_set(error, T4_E_INVALID,
                         "file %zu of the run does not come after the one before it",
                         run->n);
    if (run->n == run->capacity) {
        run->capacity = run->capacity > 0 ? 2 * run->capacity : 16;
        run->sst = mem_realloc(run->sst, run->capacity * sizeof *run->sst);
    }
    file = &run->sst[run->n++];
    *file = (struct run_sst){*info, term, index};
    keys = mem_alloc(info->first.len + info->last.len); /* freed as first.data */
    memcpy(keys, info->first.data, info->first.len);
    memcpy(keys + info->first.len, info->last.data, info->last.len);
    file->info.first.data = keys;
    file->info.last.data = keys + info->first.len;
    return T4_OK;
}

void
run_index_free(struct run_index *run)
{
    for (size_t i = 0; i < run->n; i++)
        mem_free((void *)run->sst[i].info.first.data);
    mem_free(run->sst);
    sst_filter_free(&run->filter);
    buffer_free(&run->system);
    *run = (struct run_index){0};
}

/* --- encoding ------------------------------------------------------------------------------ */

static void
append_file(struct buffer *out, const struct run_sst *file)
{
    const struct sst_info *info = &file->info;

    buffer_append(out, info->sha256, SHA256_BYTES);
    buffer_append(out, info->content, SHA256_BYTES);
    buffer_append_u64(out, file->term);
    buffer_append_u64(out, file->index);
    buffer_append_u64(out, info->object_bytes);
    buffer_append_u64(out, info->raw_bytes);
    buffer_append_u64(out, info->records);
    buffer_append_u64(out, info->min_stamp);
    buffer_append_u64(out, info->max_stamp);
}

/* *packed: the bounds as they go into the object; returns how. */
static uint8_t
pack_bounds(const struct run_index *run, struct buffer *raw, struct buffer *packed)
{
    for (size_t i = 0; i < run->n; i++) {
        const struct sst_info *info = &run->sst[i].info;

        buffer_append_varint(raw, info->first.len);
        buffer_append_slice(raw, info->first);
        buffer_append_varint(raw, info->last.len);
        buffer_append_slice(raw, info->last);
    }
    if (raw->len > 0)
        compress_append(packed, buffer_slice(raw));
    if (packed->len < raw->len && raw->len <= packed->len * BOUNDS_FACTOR)
        return BOUNDS_ZSTD;
    buffer_clear(packed);
    buffer_append_slice(packed, buffer_slice(raw));
    return BOUNDS_PLAIN;
}

void
run_index_encode(struct buffer *out, const struct run_index *run)
{
    struct buffer raw = {0}, packed = {0};
    uint8_t how = pack_bounds(run, &raw, &packed);
    size_t start = out->len;

    buffer_append(out, RUN_MAGIC, MAGIC_BYTES);
    buffer_append_u32(out, RUN_FORMAT);
    buffer_append_u32(out, CODEC_VERSION);
    buffer_append_u8(out, run->is_base ? FLAG_BASE : 0);
    buffer_append_u8(out, how);
    buffer_append(out, "\0\0", 2);
    buffer_append_u32(out, (uint32_t)run->n);
    buffer_append_u64(out, run->first_index);
    buffer_append_u64(out, run->last_index);
    buffer_append_u64(out, (uint64_t)run->last_revision);
    buffer_append_u64(out, (uint64_t)run->compacted);
    buffer_append_u64(out, run->filter.keys);
    buffer_append_u64(out, run->filter.bits.len);
    buffer_append_u64(out, raw.len);
    buffer_append_u64(out, packed.len);
    buffer_append_u64(out, run->system.len);
    for (size_t i = 0; i < run->n; i++)
        append_file(out, &run->sst[i]);
    buffer_append_slice(out, buffer_slice(&packed));
    buffer_append_slice(out, buffer_slice(&run->filter.bits));
    buffer_append_slice(out, buffer_slice(&run->system));
    buffer_append_u32(out, crc32c(0, out->data + start, out->len - start));
    buffer_free(&raw);
    buffer_free(&packed);
}

/* --- decoding ------------------------------------------------------------------------------ */

/* What stands in the head besides the fields of the run itself. */
struct head {
    uint8_t how;
    uint32_t files;
    uint64_t raw_bounds, packed_bounds, filter_bytes, system_bytes;
};

static t4_status
check_envelope(struct t4_slice object, struct error *error)
{
    uint32_t format, codec;

    if (object.len < HEAD_BYTES + CRC_BYTES ||
        memcmp(object.data, RUN_MAGIC, MAGIC_BYTES) != 0)
        return sst_damaged(error, "this is not the index of a run");
    if (crc32c(0, object.data, object.len - CRC_BYTES) !=
        get_u32le(object.data + object.len - CRC_BYTES))
        return sst_damaged(error, "the index of the run fails its checksum");
    format = get_u32le(object.data + MAGIC_BYTES);
    codec = get_u32le(object.data + MAGIC_BYTES + 4);
    if (format != RUN_FORMAT || codec != CODEC_VERSION)
        return sst_unsupported(error, "index of the run", format, codec);
    return T4_OK;
}

/* `rest`: bytes of the object behind the head, without the checksum. */
static bool
read_head(struct byte_reader *r, size_t rest, struct run_index *run, struct head *h)
{
    uint8_t flags = reader_u8(r);
    uint64_t revision, compacted;

    h->how = reader_u8(r);
    if (reader_u8(r) != 0 || reader_u8(r) != 0 || flags > FLAG_BASE ||
        h->how > BOUNDS_ZSTD)
        return false;
    h->files = reader_u32(r);
    run->is_base = flags == FLAG_BASE;
    run->first_index = reader_u64(r);
    run->last_index = reader_u64(r);
    revision = reader_u64(r);
    compacted = reader_u64(r);
    run->last_revision = (int64_t)revision;
    run->compacted = (int64_t)compacted;
    run->filter.keys = reader_u64(r);
    h->filter_bytes = reader_u64(r);
    h->raw_bounds = reader_u64(r);
    h->packed_bounds = reader_u64(r);
    h->system_bytes = reader_u64(r);
    if (run->first_index > run->last_index || revision > INT64_MAX ||
        compacted > INT64_MAX || h->files > rest / FILE_BYTES)
        return false;
    rest -= (size_t)h->files * FILE_BYTES;
    if (h->filter_bytes > rest || h->system_bytes > rest - h->filter_bytes ||
        h->packed_bounds != rest - h->filter_bytes - h->system_bytes ||
        !sst_filter_size_valid(run->filter.keys, h->filter_bytes))
        return false;
    return h->how == BOUNDS_PLAIN ? h->raw_bounds == h->packed_bounds
                                  : h->raw_bounds <= h->packed_bounds * BOUNDS_FACTOR;
}

static bool
read_file(struct byte_reader *r, struct run_sst *file)
{
    struct sst_info *info = &file->info;

    *file = (struct run_sst){0};
    memcpy(info->sha256, reader_bytes(r, SHA256_BYTES).data, SHA256_BYTES);
    memcpy(info->content, reader_bytes(r, SHA256_BYTES).data, SHA256_BYTES);
    file->term = reader_u64(r);
    file->index = reader_u64(r);
    info->object_bytes = reader_u64(r);
    info->raw_bytes = reader_u64(r);
    info->records = reader_u64(r);
    info->min_stamp = reader_u64(r);
    info->max_stamp = reader_u64(r);
    return !r->bad && info->object_bytes > SST_FOOTER_BYTES && info->records > 0 &&
           info->records <= info->raw_bytes / RECORD_MIN &&
           info->min_stamp <= info->max_stamp;
}

static t4_status
read_files(struct byte_reader *files, struct t4_slice bounds, const struct head *h,
           struct run_index *run, struct error *error)
{
    struct byte_reader b = reader_of(bounds);

    run->capacity = h->files;
    run->sst = mem_alloc(run->capacity * sizeof *run->sst);
    for (uint32_t i = 0; i < h->files; i++) {
        struct run_sst file;

        if (!read_file(files, &file))
            return sst_damaged(error, "the numbers of file %" PRIu32 " are damaged", i);
        file.info.first = reader_counted(&b);
        file.info.last = reader_counted(&b);
        if (b.bad || run_index_add(run, &file.info, file.term, file.index, NULL) != T4_OK)
            return sst_damaged(error, "the bounds of file %" PRIu32 " are damaged", i);
    }
    if (reader_left(&b) != 0)
        return sst_damaged(error, "the bounds of the files are damaged");
    return T4_OK;
}

/* The parts behind the head. */
static t4_status
read_parts(struct byte_reader *r, const struct head *h, struct run_index *run,
           struct error *error)
{
    struct byte_reader files = reader_of(reader_bytes(r, (size_t)h->files * FILE_BYTES));
    struct t4_slice bounds = reader_bytes(r, (size_t)h->packed_bounds);
    struct buffer unpacked = {0};
    t4_status status = T4_OK;

    buffer_append_slice(&run->filter.bits, reader_bytes(r, (size_t)h->filter_bytes));
    buffer_append_slice(&run->system, reader_bytes(r, (size_t)h->system_bytes));
    if (h->how == BOUNDS_ZSTD) {
        if (!decompress_append(&unpacked, bounds, (size_t)h->raw_bounds))
            status = sst_damaged(error, "the bounds of the files do not decompress");
        bounds = buffer_slice(&unpacked);
    }
    if (status == T4_OK)
        status = read_files(&files, bounds, h, run, error);
    buffer_free(&unpacked);
    return status;
}

t4_status
run_index_decode(struct t4_slice object, struct run_index *run, struct error *error)
{
    struct head h = {0};
    struct byte_reader r;
    t4_status status = check_envelope(object, error);

    *run = (struct run_index){0};
    if (status != T4_OK)
        return status;
    r = reader_of(slice_of(object.data, object.len - CRC_BYTES));
    reader_bytes(&r, MAGIC_BYTES + 8);
    if (!read_head(&r, object.len - CRC_BYTES - HEAD_BYTES, run, &h))
        status = sst_damaged(error, "the head of the run's index is damaged");
    if (status == T4_OK)
        status = read_parts(&r, &h, run, error);
    if (status != T4_OK)
        run_index_free(run);
    return status;
}

/* --- looking up ---------------------------------------------------------------------------- */

/* How many files begin at or below ikey (`begin`), or end below it. */
static size_t
files_below(const struct run_index *run, struct t4_slice ikey, bool begin)
{
    size_t low = 0, high = run->n;

    while (low < high) {
        size_t middle = low + (high - low) / 2;
        const struct sst_info *info = &run->sst[middle].info;
        bool below = begin ? slice_compare(info->first, ikey) <= 0
                           : slice_compare(info->last, ikey) < 0;

        if (below)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

void
run_find(const struct run_index *run, struct t4_slice lo, struct t4_slice hi,
         size_t *from, size_t *to)
{
    *from = files_below(run, lo, false);
    *to = files_below(run, hi, true);
    if (*to < *from) /* lo above hi: the caller's mistake, not a crash */
        *to = *from;
}

bool
run_may_hold(const struct run_index *run, struct t4_slice ikey)
{
    size_t from, to;

    run_find(run, ikey, ikey, &from, &to);
    return from < to && !sst_filter_excludes(&run->filter, ikey);
}

/* --- keys of objects ------------------------------------------------------------------------ */

static void
object_key(char key[SST_KEY_BYTES], const char *folder, const uint8_t hash[SHA256_BYTES],
           uint64_t term, uint64_t index)
{
    char hex[2 * SHA256_BYTES + 1];

    sha256_hex(hash, hex);
    snprintf(key, SST_KEY_BYTES, "%s%s-%010" PRIu64 "-%020" PRIu64, folder, hex, term,
             index);
}

/* `digits` decimal digits or, if there are more, none of them a leading zero. */
static bool
read_number(struct byte_reader *r, size_t digits, uint64_t *v)
{
    const uint8_t *start = r->next;
    size_t n;

    *v = 0;
    for (; r->next < r->end && *r->next >= '0' && *r->next <= '9'; r->next++) {
        uint64_t d = (uint64_t)(*r->next - '0');

        if (*v > (UINT64_MAX - d) / 10)
            return false;
        *v = *v * 10 + d;
    }
    n = (size_t)(r->next - start);
    return n == digits || (n > digits && *start != '0');
}

static bool
object_key_parse(struct t4_slice key, const char *folder, uint8_t hash[SHA256_BYTES],
                 uint64_t *term, uint64_t *index)
{
    struct byte_reader r = reader_of(key);
    char hex[2 * SHA256_BYTES + 1] = "";
    struct t4_slice s = reader_bytes(&r, strlen(folder));

    if (r.bad || !slice_equal(s, slice_str(folder)))
        return false;
    s = reader_bytes(&r, 2 * SHA256_BYTES);
    if (r.bad)
        return false;
    memcpy(hex, s.data, s.len);
    return sha256_parse(hex, hash) && reader_u8(&r) == '-' && read_number(&r, 10, term) &&
           reader_u8(&r) == '-' && read_number(&r, 20, index) && reader_left(&r) == 0;
}

void
sst_key(char key[SST_KEY_BYTES], const uint8_t hash[SHA256_BYTES], uint64_t term,
        uint64_t index)
{
    object_key(key, "sst/", hash, term, index);
}

void
run_key(char key[SST_KEY_BYTES], const uint8_t hash[SHA256_BYTES], uint64_t term,
        uint64_t index)
{
    object_key(key, "run/", hash, term, index);
}

bool
sst_key_parse(struct t4_slice key, uint8_t hash[SHA256_BYTES], uint64_t *term,
              uint64_t *index)
{
    return object_key_parse(key, "sst/", hash, term, index);
}

bool
run_key_parse(struct t4_slice key, uint8_t hash[SHA256_BYTES], uint64_t *term,
              uint64_t *index)
{
    return object_key_parse(key, "run/", hash, term, index);
}

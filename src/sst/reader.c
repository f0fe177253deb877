/*
 * reader.c - opening, reading and verifying SSTs.  Layout: top of writer.c.
 *
 * sst_open() believes nothing: every length is checked against what is there before it is used,
 * and after it has succeeded these hold for the index:
 *  (1) the blocks fill the object up to the index, without gaps
 *  (2) no block claims more raw bytes than SST_BLOCK_MAX or than zstd could make of it
 *  (3) first keys ascend, and the last key is not below the last of them
 * The cursor checks block by block that keys ascend and keep to the index's bounds, so a reader
 * sees records in order or an error.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

#include "base/crc32c.h"
#include "base/memory.h"
#include "fmt/entry.h"
#include "fmt/record.h"
#include "sst/sst_int.h"

struct block {
    struct t4_slice first; /* encoded key, in the object */
    uint64_t at;           /* offset */
    uint32_t packed, raw;  /* bytes */
    uint32_t crc;
};

struct sst {
    struct t4_slice object;
    struct block *block;
    uint32_t blocks;
    struct t4_slice last; /* encoded key, in the object */
    uint64_t records, raw_bytes, min_stamp, max_stamp;
    uint8_t content[SHA256_BYTES];
    struct buffer first_scratch, last_scratch;
    struct t4_slice first_ikey, last_ikey;
};

/* --- messages -------------------------------------------------------------------------- */

t4_status
sst_damaged(struct error *error, const char *format, ...)
{
    char text[400];
    va_list ap;

    va_start(ap, format);
    vsnprintf(text, sizeof text, format, ap);
    va_end(ap);
    error_set(error, T4_E_CORRUPT, "%s", text);
    error_hint(error,
               "read the object again; if that does not help it is damaged where it "
               "is stored, and only a copy of it brings it back");
    return T4_E_CORRUPT;
}

t4_status
sst_unsupported(struct error *error, const char *what, uint32_t format, uint32_t codec)
{
    error_set(error, T4_E_UNSUPPORTED,
              "the %s has format %" PRIu32 " and codec %" PRIu32
              ", which this version does not know",
              what, format, codec);
    error_hint(error, "a newer version of t4 wrote it: use that version");
    return T4_E_UNSUPPORTED;
}

void
sst_key_text(char text[KEY_TEXT_BYTES], struct t4_slice key)
{
    const size_t room = KEY_TEXT_BYTES - 56; /* for what follows the key */
    size_t n = 0, at = 1;

    if (key.len < RECORD_KEY_MIN) {
        snprintf(text, KEY_TEXT_BYTES, "a key of %zu bytes", key.len);
        return;
    }
    text[n++] = '"';
    for (; at < key.len - STAMP_BYTES - 2 && n < room; at++) {
        uint8_t c = key.data[at];

        if (c >= ' ' && c < 0x7f && c != '"' && c != '\\')
            text[n++] = (char)c;
        else
            n += (size_t)snprintf(text + n, 5, "\\x%02x", c);
    }
    snprintf(text + n, KEY_TEXT_BYTES - n, "%s\" (space 0x%02x, stamp %" PRIu64 ")",
             at < key.len - STAMP_BYTES - 2 ? "..." : "", key.data[0], key_stamp(key));
}

/* --- opening ---------------------------------------------------------------------------- */

t4_status
sst_check_object(struct t4_slice object, const struct sst_info *info, struct error *error)
{
    if (object.len != info->object_bytes)
        return sst_damaged(error, "%zu bytes instead of %" PRIu64, object.len,
                           info->object_bytes);
    if (!sha256_is(object, info->sha256))
        return sst_damaged(error,
                           "its bytes do not have the SHA-256 that it is named by");
    return T4_OK;
}

/* *index: its bytes. */
static t4_status
read_footer(struct sst *s, struct t4_slice *index, struct error *error)
{
    struct t4_slice object = s->object;
    const uint8_t *footer;
    struct byte_reader r;
    uint64_t index_at;
    uint32_t index_crc, codec, format;

    if (object.len < SST_FOOTER_BYTES)
        return sst_damaged(error, "%zu bytes are too few for a sorted file", object.len);
    footer = object.data + object.len - SST_FOOTER_BYTES;
    if (memcmp(footer + SST_FOOTER_BYTES - MAGIC_BYTES, SST_MAGIC, MAGIC_BYTES) != 0)
        return sst_damaged(error, "this is not a sorted file, or its end is missing");
    if (crc32c(0, footer, SST_FOOTER_CRC_AT) != get_u32le(footer + SST_FOOTER_CRC_AT))
        return sst_damaged(error, "the footer fails its checksum");
    r = reader_of(slice_of(footer, SST_FOOTER_BYTES));
    s->records = reader_u64(&r);
    s->raw_bytes = reader_u64(&r);
    s->min_stamp = reader_u64(&r);
    s->max_stamp = reader_u64(&r);
    memcpy(s->content, reader_bytes(&r, SHA256_BYTES).data, SHA256_BYTES);
    index_at = reader_u64(&r);
    s->blocks = reader_u32(&r);
    index_crc = reader_u32(&r);
    codec = reader_u32(&r);
    format = reader_u32(&r);
    if (format != SST_FORMAT || codec != CODEC_VERSION)
        return sst_unsupported(error, "sorted file", format, codec);
    if (index_at > object.len - SST_FOOTER_BYTES)
        return sst_damaged(error, "the index lies outside of the file");
    *index = slice_of(object.data + index_at,
                      object.len - SST_FOOTER_BYTES - (size_t)index_at);
    if (crc32c(0, index->data, index->len) != index_crc)
        return sst_damaged(error, "the index fails its checksum");
    if (s->blocks == 0 || s->blocks > index->len / INDEX_ENTRY_MIN)
        return sst_damaged(error, "%" PRIu32 " blocks with an index of %zu bytes",
                           s->blocks, index->len);
    if (s->records < s->blocks || s->records > s->raw_bytes / RECORD_MIN ||
        s->min_stamp > s->max_stamp)
        return sst_damaged(error, "the numbers in the footer contradict each other");
    return T4_OK;
}

static t4_status
read_index(struct sst *s, struct t4_slice index, struct error *error)
{
    struct byte_reader r = reader_of(index);
    uint64_t at = 0, raw_bytes = 0, index_at = (uint64_t)(index.data - s->object.data);

    s->block = mem_alloc(s->blocks * sizeof *s->block);
    for (uint32_t i = 0; i < s->blocks; i++) {
        struct t4_slice first = reader_counted(&r);
        uint64_t packed = reader_varint(&r), raw = reader_varint(&r);
        uint32_t crc = reader_u32(&r);

        if (r.bad || packed == 0 || packed > UINT32_MAX || raw == 0 ||
            raw > SST_BLOCK_MAX || raw > packed * UNPACK_FACTOR_MAX)
            return sst_damaged(error, "the index entry of block %" PRIu32 " is damaged",
                               i);
        if (i > 0 && slice_compare(s->block[i - 1].first, first) >= 0)
            return sst_damaged(error,
                               "block %" PRIu32 " does not come after the one before", i);
        s->block[i] = (struct block){first, at, (uint32_t)packed, (uint32_t)raw, crc};
        at += packed;
        raw_bytes += raw;
    }
    s->last = reader_counted(&r);
    if (r.bad || reader_left(&r) != 0 ||
        slice_compare(s->block[s->blocks - 1].first, s->last) > 0)
        return sst_damaged(error, "the end of the index is damaged");
    if (at != index_at || raw_bytes != s->raw_bytes)
        return sst_damaged(error, "blocks, index and footer do not add up");
    return T4_OK;
}

static t4_status
read_bounds(struct sst *s, struct error *error)
{
    uint64_t stamp;

    if (!record_key_decode(s->block[0].first, &s->first_scratch, &s->first_ikey,
                           &stamp) ||
        !record_key_decode(s->last, &s->last_scratch, &s->last_ikey, &stamp))
        return sst_damaged(error, "the first or last key in the index is damaged");
    return T4_OK;
}

t4_status
sst_open(struct t4_slice object, struct sst **out, struct error *error)
{
    struct sst *s = mem_zalloc(sizeof *s);
    struct t4_slice index = {0};
    t4_status status;

    *out = NULL;
    s->object = object;
    status = read_footer(s, &index, error);
    if (status == T4_OK)
        status = read_index(s, index, error);
    if (status == T4_OK)
        status = read_bounds(s, error);
    if (status != T4_OK) {
        sst_close(s);
        return status;
    }
    *out = s;
    return T4_OK;
}

void
sst_close(struct sst *s)
{
    if (s == NULL)
        return;
    mem_free(s->block);
    buffer_free(&s->first_scratch);
    buffer_free(&s->last_scratch);
    mem_free(s);
}

void
sst_get_info(const struct sst *s, struct sst_info *info)
{
    *info = (struct sst_info){
        .object_bytes = s->object.len,
        .raw_bytes = s->raw_bytes,
        .records = s->records,
        .first = s->first_ikey,
        .last = s->last_ikey,
        .min_stamp = s->min_stamp,
        .max_stamp = s->max_stamp,
    };
    sha256(s->object, info->sha256);
    memcpy(info->content, s->content, sizeof info->content);
}

/* --- the cursor -------------------------------------------------------------------------- */

static void
cursor_before(struct sst_cursor *c, uint32_t block)
{
    c->next_block = block;
    buffer_clear(&c->raw);
    c->left = reader_of(slice_of(NULL, 0));
    c->key = slice_of(NULL, 0);
}

void
sst_cursor_init(struct sst_cursor *c, const struct sst *s)
{
    *c = (struct sst_cursor){.sst = s};
    cursor_before(c, 0);
}

void
sst_cursor_free(struct sst_cursor *c)
{
    buffer_free(&c->raw);
}

static t4_status
load_block(struct sst_cursor *c, struct error *error)
{
    uint32_t i = c->next_block;
    const struct block *b = &c->sst->block[i];
    struct t4_slice packed = slice_of(c->sst->object.data + b->at, b->packed);

    cursor_before(c, i);
    if (crc32c(0, packed.data, packed.len) != b->crc)
        return sst_damaged(error, "block %" PRIu32 " fails its checksum", i);
    if (!decompress_append(&c->raw, packed, b->raw))
        return sst_damaged(error, "block %" PRIu32 " does not decompress", i);
    c->next_block = i + 1;
    c->left = reader_of(buffer_slice(&c->raw));
    return T4_OK;
}

/* The next record of the block at hand, which has one. */
static t4_status
read_record(struct sst_cursor *c, struct t4_slice *key, struct t4_slice *value,
            struct error *error)
{
    uint32_t i = c->next_block - 1;

    *key = reader_counted(&c->left);
    *value = reader_counted(&c->left);
    if (c->left.bad)
        return sst_damaged(error, "the records of block %" PRIu32 " are damaged", i);
    if (c->key.data == NULL ? !slice_equal(*key, c->sst->block[i].first)
                            : slice_compare(c->key, *key) >= 0) {
        c->left.bad = true;
        return sst_damaged(error, "the keys of block %" PRIu32 " are not in order", i);
    }
    c->key = *key;
    return T4_OK;
}

/* At the end of the block at hand: that its last key agrees with the index. */
static t4_status
check_block_end(const struct sst_cursor *c, struct error *error)
{
    const struct sst *s = c->sst;
    uint32_t next = c->next_block;
    bool agrees = next < s->blocks ? slice_compare(c->key, s->block[next].first) < 0
                                   : slice_equal(c->key, s->last);

    if (!agrees)
        return sst_damaged(error, "the last key of block %" PRIu32 " is not in order",
                           next - 1);
    return T4_OK;
}

t4_status
sst_cursor_next(struct sst_cursor *c, struct t4_slice *key, struct t4_slice *value,
                struct error *error)
{
    if (c->left.bad)
        return sst_damaged(error, "the records of block %" PRIu32 " are damaged",
                           c->next_block - 1);
    if (reader_left(&c->left) == 0) {
        t4_status status = T4_OK;

        if (c->key.data != NULL)
            status = check_block_end(c, error);
        if (status == T4_OK && c->next_block == c->sst->blocks)
            return T4_E_NOTFOUND;
        if (status == T4_OK)
            status = load_block(c, error);
        if (status != T4_OK)
            return status;
    }
    return read_record(c, key, value, error);
}

/* The last block whose first key is not above `at`; the first one if there is none. */
static uint32_t
block_for(const struct sst *s, struct t4_slice at)
{
    uint32_t low = 0, high = s->blocks;

    while (high - low > 1) {
        uint32_t middle = low + (high - low) / 2;

        if (slice_compare(s->block[middle].first, at) <= 0)
            low = middle;
        else
            high = middle;
    }
    return low;
}

t4_status
sst_cursor_seek(struct sst_cursor *c, struct t4_slice at, struct t4_slice *key,
                struct t4_slice *value, struct error *error)
{
    t4_status status;

    cursor_before(c, block_for(c->sst, at));
    do
        status = sst_cursor_next(c, key, value, error);
    while (status == T4_OK && slice_compare(*key, at) < 0);
    return status;
}

static t4_status
source_next(void *state, struct t4_slice *key, struct t4_slice *value,
            struct error *error)
{
    return sst_cursor_next(state, key, value, error);
}

struct sst_source
sst_cursor_source(struct sst_cursor *c)
{
    return (struct sst_source){source_next, c};
}

/* --- verification -------------------------------------------------------------------------- */

struct totals {
    uint64_t records, min_stamp, max_stamp;
    bool has_stamps;
    struct buffer scratch;
};

static t4_status
verify_record(struct totals *t, struct t4_slice key, struct t4_slice value,
              struct error *error)
{
    char text[KEY_TEXT_BYTES];
    struct t4_slice ikey;
    struct version v;
    uint64_t stamp;

    if (!record_verify(key, value) ||
        !record_key_decode(key, &t->scratch, &ikey, &stamp) ||
        !record_value_decode(value, &v)) {
        sst_key_text(text, key);
        return sst_damaged(error, "the record of %s is damaged", text);
    }
    t->records++;
    if (ikey.data[0] != SPACE_KEYS)
        return T4_OK;
    if (!t->has_stamps || stamp < t->min_stamp)
        t->min_stamp = stamp;
    if (!t->has_stamps || stamp > t->max_stamp)
        t->max_stamp = stamp;
    t->has_stamps = true;
    return T4_OK;
}

static t4_status
verify_blocks(struct sst_cursor *c, struct totals *t, struct sha256_stream *content,
              struct error *error)
{
    t4_status status = T4_OK;

    while (status == T4_OK && c->next_block < c->sst->blocks) {
        status = load_block(c, error);
        if (status == T4_OK)
            sha256_add(content, buffer_slice(&c->raw));
        while (status == T4_OK && reader_left(&c->left) > 0) {
            struct t4_slice key, value;

            status = read_record(c, &key, &value, error);
            if (status == T4_OK)
                status = verify_record(t, key, value, error);
        }
        if (status == T4_OK)
            status = check_block_end(c, error);
    }
    return status;
}

t4_status
sst_verify(const struct sst *s, struct error *error)
{
    struct sha256_stream *stream = sha256_stream_new();
    uint8_t content[SHA256_BYTES];
    struct totals t = {0};
    struct sst_cursor c;
    t4_status status;

    sst_cursor_init(&c, s);
    status = verify_blocks(&c, &t, stream, error);
    sha256_end(stream, content);
    if (status == T4_OK && memcmp(content, s->content, sizeof content) != 0)
        status = sst_damaged(error, "the records do not have the SHA-256 in the footer");
    if (status == T4_OK && (t.records != s->records || t.min_stamp != s->min_stamp ||
                            t.max_stamp != s->max_stamp))
        status = sst_damaged(error, "the numbers in the footer are not those of the "
                                    "records");
    sst_cursor_free(&c);
    sha256_stream_free(stream);
    buffer_free(&t.scratch);
    return status;
}

/*
 * sst_int.h - what the files of sst/ share: the footer of an SST, keys taken apart, messages.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef SST_SST_INT_H
#define SST_SST_INT_H

#include "sst/sst.h"

#define SST_MAGIC "t4sst\r\n\032" /* 8 bytes */
#define SST_FORMAT 1u
#define SST_FOOTER_BYTES 100u
#define SST_FOOTER_CRC_AT 88u
#define MAGIC_BYTES 8u
#define CRC_BYTES 4u

/*
 * zstd makes at most 128 KiB of a block of its own, and that takes at least 4 bytes: whoever claims
 * more than this lies, so nothing is allocated on the strength of it.
 */
#define UNPACK_FACTOR_MAX 32768u

#define STAMP_BYTES 8u
#define RECORD_KEY_MIN (1u + 2u + STAMP_BYTES) /* space, terminator, stamp */
/* varint, shortest key; varint, shortest value: flags, sub, checksum */
#define RECORD_MIN (1u + RECORD_KEY_MIN + 1u + 6u)
/* One entry of an SST's index: varint, key, two varints, checksum. */
#define INDEX_ENTRY_MIN (1u + RECORD_KEY_MIN + 2u + CRC_BYTES)

/* What all versions of one key have in common; the encoded key is at least RECORD_KEY_MIN. */
static inline struct t4_slice
key_without_stamp(struct t4_slice key)
{
    return slice_of(key.data, key.len - STAMP_BYTES);
}

static inline uint64_t
key_stamp(struct t4_slice key)
{
    return ~get_u64be(key.data + key.len - STAMP_BYTES);
}

/* Sets the message and a hint, and returns CORRUPT. */
t4_status sst_damaged(struct error *error, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
/* Sets message and hint for a format or codec that is not known, and returns UNSUPPORTED. */
t4_status sst_unsupported(struct error *error, const char *what, uint32_t format,
                          uint32_t codec);

/* An encoded key for messages: space, key with \x escapes and cut if long, stamp. */
#define KEY_TEXT_BYTES 160
void sst_key_text(char text[KEY_TEXT_BYTES], struct t4_slice key);

/* That `filter`, read from a run index, is as long as its number of keys asks for. */
bool sst_filter_size_valid(uint64_t keys, uint64_t bytes);

#endif

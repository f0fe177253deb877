/*
 * record.h - the bytes of a version in the storage engine: key and value of a record.
 *
 * memcmp on encoded keys gives the order of the whole system: space, key ascending, stamp
 * descending; no user key can reach another space.  The format stands at the top of record.c.
 * Pure functions, any thread.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef FMT_RECORD_H
#define FMT_RECORD_H

#include "base/buffer.h"

#define KEY_BYTES_MAX 16384u /* the longest user key */

#define VERSION_TOMBSTONE 1u

/* A version without its key.  The value is borrowed. */
struct version {
    uint64_t stamp; /* revision in space 'k', log index elsewhere */
    uint32_t sub;   /* position within its entry */
    uint8_t flags;  /* VERSION_TOMBSTONE */
    int64_t create_revision, version, lease;
    struct t4_slice value;
};

#define STAMP_NEWEST UINT64_MAX

/*
 * "Internal key" (ikey): one byte of space, then the raw key.  memcmp order of ikeys equals
 * the order of encoded records of one stamp.
 */

/* Appends the encoded record key of (ikey, stamp). */
void record_key_encode(struct buffer *out, struct t4_slice ikey, uint64_t stamp);
/* Appends the smallest encoded key above every version of ikey. */
void record_key_end(struct buffer *out, struct t4_slice ikey);
/*
 * Splits an encoded key.  *ikey points into `key` when the raw key has no zero byte, else
 * into *scratch, which is overwritten.  False: damaged.
 */
bool record_key_decode(struct t4_slice key, struct buffer *scratch, struct t4_slice *ikey,
                       uint64_t *stamp);
/*
 * Is `key`, an encoded key not before those of ikey, one of ikey?  *stamp: its stamp.  One comparison
 * instead of decoding, for keys without a zero byte; of others it says no.  (With zeros the
 * encoding of ikey is longer than this looks for, and the key that has the bytes looked for is smaller.)
 */
bool record_key_is_of(struct t4_slice key, struct t4_slice ikey, uint64_t *stamp);
/* Length in bytes that record_key_encode() would append. */
size_t record_key_size(struct t4_slice ikey);

/* The checksum at the end covers key and value, so that records cannot change places. */
void record_value_encode(struct buffer *out, struct t4_slice encoded_key,
                         const struct version *v);
/* Decodes; v->stamp is not set.  Does not verify the checksum. */
bool record_value_decode(struct t4_slice value, struct version *v);
bool record_verify(struct t4_slice encoded_key, struct t4_slice value);

#endif

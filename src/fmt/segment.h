/*
 * segment.h - the bytes of a chain object: a data segment or a fence.
 *
 * A segment holds consecutive log entries, compressed, and the hash of the accepted data
 * segment before it, so that the chain proves its own order.  A fence has no entries, no index
 * and no hash: it only raises the term.  Format: top of segment.c.  Pure functions; the
 * compression is the caller's (codec/).
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef FMT_SEGMENT_H
#define FMT_SEGMENT_H

#include "fmt/objects.h"

#define SEGMENT_RAW_MAX                                                                  \
    (64u * 1024 * 1024) /* entries before compression; a single larger
                                               entry makes a segment of its own up to this */
#define SEGMENT_OBJECT_MAX (SEGMENT_RAW_MAX + SEGMENT_RAW_MAX / 128 + 4096)

struct segment {
    uint64_t cluster_id, lineage, generation;
    uint64_t term, writer; /* writer: incarnation of its data directory */
    uint8_t put_id[PUT_ID_BYTES];
    bool fence;
    enum commit_rule rule; /* in force when it was written */
    uint64_t first_index, last_index;
    uint64_t committed; /* index known to be committed to the writer */
    uint8_t
        previous[HASH_BYTES]; /* SHA-256 of the previous accepted data segment's object */
    uint32_t raw_bytes;       /* of the entries before compression */
    struct t4_slice payload;  /* compressed entries */
};

/* `s->payload` is appended as it is. */
void segment_encode(struct buffer *out, const struct segment *s);
/* OK, CORRUPT, or UNSUPPORTED (a newer format).  The payload points into `object`. */
t4_status segment_decode(struct t4_slice object, struct segment *s);

/* Entries before compression: varint length and bytes of each. */
void segment_entry_append(struct buffer *raw, struct t4_slice entry);
/* Next entry; false at the end or when damaged (r->bad tells). */
bool segment_entry_next(struct byte_reader *r, struct t4_slice *entry);

/* "wal/" and the slot, 20 digits. */
#define SLOT_KEY_BYTES 25
void slot_key(char key[SLOT_KEY_BYTES], uint64_t slot);
bool slot_key_parse(struct t4_slice key, uint64_t *slot);

#endif

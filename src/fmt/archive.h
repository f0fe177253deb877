/*
 * archive.h - the bytes of an archive: a stretch of the object chain as one object, `log/`.
 *
 * The accepted segments stand in it byte for byte, so that every hash of the chain can still be
 * checked; of every slot that a reader passes over (fences, ignored leftovers) slot, term and
 * hash are recorded, so that the numbering is provable.  Format: top of archive.c.  Pure
 * functions; hashes are the caller's (codec/).
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef FMT_ARCHIVE_H
#define FMT_ARCHIVE_H

#include "fmt/segment.h"

#define ARCHIVE_TARGET (4u << 20) /* no segment is added to one of this size */
#define ARCHIVE_OBJECT_MAX (ARCHIVE_TARGET + SEGMENT_OBJECT_MAX + (16u << 20))

/* What stood in a slot. */
struct archive_slot {
    bool skipped; /* a fence or an ignored leftover: not in the archive */
    uint64_t slot, term;
    uint8_t hash[HASH_BYTES]; /* SHA-256 of the object in the slot */
    /* of an accepted segment: */
    uint64_t offset, length; /* of its bytes in the archive */
    uint64_t first_index;
    int64_t first_revision; /* of its first entry */
};

/*
 * An archive's index.  Begins as zeros.  Invariant of an encoded one: the slots are those from
 * begin.next_slot to end.next_slot - 1, each once, and the last one is an accepted segment.
 */
struct archive {
    uint64_t cluster_id, lineage;
    struct chain_floor begin, end; /* what a reader knows in front of it and behind it */
    struct archive_slot *slot;
    size_t n, capacity;
};

/* The object, piece by piece, into *out (which is cleared first). */
void archive_begin(struct buffer *out, struct archive *a);
/* s->offset and s->length are set. */
void archive_add_segment(struct buffer *out, struct archive *a, struct archive_slot *s,
                         struct t4_slice object);
void archive_add_skipped(struct archive *a, const struct archive_slot *s);
void archive_end(struct buffer *out, const struct archive *a);

/*
 * OK, CORRUPT, or UNSUPPORTED (a newer format).  *a is overwritten, not freed; on failure there is
 * nothing to free.  The hashes are not looked at.
 */
t4_status archive_decode(struct t4_slice object, struct archive *a);
void archive_free(struct archive *a); /* zeros again */

/* "log/", first and last slot. */
#define ARCHIVE_KEY_BYTES 46
void archive_key(char key[ARCHIVE_KEY_BYTES], uint64_t first, uint64_t last);
bool archive_key_parse(struct t4_slice key, uint64_t *first, uint64_t *last);

#endif

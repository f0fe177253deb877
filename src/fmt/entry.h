/*
 * entry.h - the bytes of a log entry: what one committed request changed.
 *
 * Entries carry effects, never requests: replay evaluates nothing.  The format stands at the
 * top of entry.c.  Pure functions, any thread.
 *
 * Invariants
 *  (1) one entry holds at most one mutation per (space, key); their order is that of the
 *      last write, and the position among those of SPACE_KEYS is the `sub` number
 *  (2) the stamp of a mutation is the entry's revision in SPACE_KEYS, its index elsewhere
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef FMT_ENTRY_H
#define FMT_ENTRY_H

#include "fmt/record.h"

#define SPACE_KEYS 'k'   /* user keys, stamp = revision */
#define SPACE_SYSTEM 's' /* leases, later users, scripts, settings; stamp = index */
#define SPACE_ATTACHMENTS                                                                \
    'l' /* lease id (8 bytes big endian) + user key; stamp = index */

/* The record of space 's' with the compacted revision: a varint. */
#define COMPACTED_KEY "compacted"

#define MUTATION_TOMBSTONE 1u

/*
 * ENTRY_RESET: the log goes on where the tail of a predecessor may have been lost.  Revision
 * and compacted revision jump above every revision that may have been given out (design I10).
 */
enum entry_kind { ENTRY_NORMAL = 1, ENTRY_COMPACTION = 2, ENTRY_RESET = 3 };

struct entry_reset {
    uint64_t generation; /* of the log from here on */
    uint64_t base_index; /* newest entry that was kept */
    int64_t base_revision;
};

struct entry {
    uint64_t index; /* grows by one per entry, the first is 1 */
    uint64_t term;
    int64_t revision; /* of the store after this entry */
    uint64_t time_ms; /* wall clock, never decreasing; serves history only */
    enum entry_kind kind;
    int64_t compact_revision; /* ENTRY_COMPACTION, ENTRY_RESET: new compacted revision */
    struct entry_reset reset; /* ENTRY_RESET */
    uint32_t mutations;       /* how many follow */
};

struct mutation {
    uint8_t space;
    uint8_t flags; /* MUTATION_TOMBSTONE */
    struct t4_slice key, value;
    int64_t create_revision, version,
        lease; /* zero outside of SPACE_KEYS and in tombstones */
};

/* Appends head and mutations; call entry_add() exactly `mutations` times after the head. */
void entry_encode_head(struct buffer *out, const struct entry *e);
void entry_add(struct buffer *out, const struct mutation *m);
/* Upper bound in bytes of what entry_add() appends. */
size_t entry_mutation_bound(const struct mutation *m);

/*
 * Decodes the head and leaves *r before the first mutation; entry_next() then yields them.
 * The slices point into the input.  Both return false when the bytes are damaged (CORRUPT);
 * after the last mutation a reader with bytes left over is damaged, too (entry_end()).
 */
bool entry_decode_head(struct byte_reader *r, struct entry *e);
bool entry_next(struct byte_reader *r, struct mutation *m);
bool entry_end(const struct byte_reader *r);

/*
 * The version that a mutation of entry `e` makes, and the internal key it is of (*ikey is
 * overwritten): invariants (1) and (2).  The value is borrowed.  *sub: 0 before the entry's first
 * mutation.
 */
void mutation_version(const struct entry *e, const struct mutation *m, uint32_t *sub,
                      struct buffer *ikey, struct version *v);

#endif

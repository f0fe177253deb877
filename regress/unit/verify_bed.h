/*
 * verify_bed.h - for tests of t4 verify: a store with everything in it that a store can have.
 *
 * It is made by plain code, not by that of a server: a log in segments of three terms with fences and
 * leftovers, archives (one of them a deposed leader's), raw segments that archives hold, three
 * checkpoints, the newest with a folded base, orphans, an unknown key.  A *lie* bends one thing and
 * seals everything around it with the right hashes and checksums.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef VERIFY_BED_H
#define VERIFY_BED_H

#include "fmt/archive.h"
#include "object/object.h"
#include "scratch.h"
#include "sst_bed.h"
#include "verify/verify.h"

/* Stretches of the log, by number of segment. */
#define SEGMENTS 46
#define CHECKPOINTS 3

enum lie {
    NO_LIE,
    /* the log */
    LIE_ENTRY_INDEX,
    LIE_ENTRY_TERM,
    LIE_ENTRY_REVISION,
    LIE_ENTRY_BYTES,
    LIE_SEGMENT_PREVIOUS,
    LIE_SEGMENT_FIRST,
    LIE_SEGMENT_COUNT,
    LIE_SEGMENT_LAST,
    LIE_SEGMENT_CLUSTER,
    LIE_SEGMENT_LINEAGE,
    LIE_ARCHIVE_HASH,
    LIE_ARCHIVE_FIRST,
    LIE_ARCHIVE_TERM,
    LIE_ARCHIVE_SKIPPED_TERM,
    LIE_ARCHIVE_BEGIN,
    LIE_ARCHIVE_END,
    LIE_ARCHIVE_LINEAGE,
    LIE_ARCHIVE_BESIDE,
    /* runs and their files */
    LIE_RUN_OVERLAP,
    LIE_RUN_BASE,
    LIE_RUN_BYTES,
    LIE_RUN_REVISION,
    LIE_RUN_COMPACTED,
    LIE_RUN_FILTER,
    LIE_RUN_SYSTEM_SPACE,
    LIE_RUN_SYSTEM_STAMP,
    LIE_FILE_SYSTEM,
    LIE_RUN_STAMP,
    LIE_RUN_INTERVAL,
    LIE_FILE_COUNT,
    LIE_FILE_BOUND,
    LIE_FILE_CONTENT,
    LIE_FILE_NEWER,
    LIE_FILE_SHARED,
    /* checkpoints, manifest, lock */
    LIE_PLACE_HASH,
    LIE_PLACE_SLOT,
    LIE_PLACE_TERM,
    LIE_PLACE_INDEX,
    LIE_PLACE_END,
    LIE_TIME,
    LIE_COMPACTED,
    LIE_CHECKPOINT_CLUSTER,
    LIE_CHECKPOINT_REVISION,
    LIE_CHECKPOINT_HASH,
    LIE_INLINED,
    LIE_ORDER,
    LIE_FLOOR,
    LIE_ARCHIVE_ABOVE_FLOOR,
    LIE_LOCK_TERM,
    LIE_LOCK_LINEAGE,
    LIE_LOCK_RELEASED,
    LIE_CLUSTER_ID,
    LIE_MANIFEST_TERM,
    /* what only a replay shows */
    LIE_RECORD_LESS,
    LIE_RECORD_MORE,
    LIE_RECORD_VALUE,
    LIE_TOMBSTONE_LESS,
    LIE_FOLDED_LESS,
    LIE_FIRST_LESS,
    LIE_SYSTEM_LESS,
    LIE_SYSTEM_MORE,
    LIES
};

struct log_segment {
    struct buffer object; /* of the slot */
    bool skipped;
    struct archive_slot slot;
    size_t last_entry; /* of the log up to its end: how many */
};

struct log_entry {
    struct entry head;
    struct records records; /* that it makes */
    struct buffer bytes;
};

struct stock {
    char folder[SCRATCH_ROOM];
    struct object_store *store;
    struct chance chance;
    enum lie lie;

    struct log_entry *entry;
    size_t n_entries;
    uint64_t keys; /* that the newest state has */
    struct log_segment slot[2 * SEGMENTS];
    size_t n_slots;
    struct chain_floor place[2 * SEGMENTS]; /* in front of each slot; one more: the end */

    struct lock_object leader;
    struct manifest_object manifest;
    struct checkpoint_object checkpoint[CHECKPOINTS]; /* newest first */
    char checkpoint_at[CHECKPOINTS][CHECKPOINT_KEY_BYTES];
};

struct stock *stock_new(enum lie lie);
void stock_free(struct stock *w);

/* Objects; failures end the test. */
void stock_put(struct stock *w, const char *key, struct t4_slice body);
void stock_get(struct stock *w, const char *key, struct buffer *out);
void stock_remove(struct stock *w, const char *key);
/* All keys in order, each terminated. */
void stock_keys(struct stock *w, struct buffer *out);
void stock_put_manifest(struct stock *w);
/* Slots first to below `end` as an archive. */
void stock_put_archive(struct stock *w, size_t first, size_t end);

#endif

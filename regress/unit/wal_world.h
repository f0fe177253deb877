/*
 * wal_world.h - a log on a simulated disk together with what must be in it.
 *
 * Every function that uses the log updates the expectation first, and every boot
 * compares: an entry that a completed sync covered is there, byte for byte, in its place;
 * what is beyond is a prefix of what was written; what was refused or lost never comes
 * back; generation and term of a completed start are there.  The first violation is kept
 * in `why`.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef WAL_WORLD_H
#define WAL_WORLD_H

#include "simdisk.h"
#include "wal/wal.h"

#define WORLD_DIR "/wal"
#define WORLD_SEGMENT 65536u

struct world {
    struct simdisk *disk;
    struct wal *wal;
    struct wal_options options;
    struct buffer *entries; /* [i]: entry i + 1 as written last */
    size_t count;
    uint64_t durable;          /* completed syncs cover this index */
    uint64_t marked;           /* a completed mark or start says so */
    uint64_t generation, term; /* of the last completed start */
    uint64_t tried_term;
    uint64_t unique;     /* makes the bytes of each entry its own */
    unsigned torn_boots; /* boots that found a torn tail */
    uint64_t full_from,
        full_to; /* operations of writing a group when the disk was full */
    struct wal_recovered recovered;
    struct error error;
    char why[1200]; /* empty: nothing wrong so far */
};

/* Takes the disk. */
void world_init(struct world *w, struct simdisk *disk);
void world_free(struct world *w);
/* The same expectation on another disk, which is taken; the log is closed there. */
void world_clone(struct world *to, const struct world *from, struct simdisk *disk);

int64_t world_revision(uint64_t index);
/* Appends an encoded entry with a value of `bytes` bytes. */
void world_entry(struct buffer *out, uint64_t index, uint64_t unique, size_t bytes);

/* Opens (and compares), does not start. */
t4_status world_open(struct world *w, uint64_t flushed);
/* Closes, opens, compares, starts. */
t4_status world_boot(struct world *w, uint64_t flushed);
/* The same on another disk, which replaces the one there was. */
t4_status world_reboot(struct world *w, struct simdisk *disk);
/* Writes one group; sizes ends with 0.  NOSPACE: what was not written is not expected. */
t4_status world_write(struct world *w, const size_t *sizes);
t4_status world_sync(struct world *w);
t4_status world_mark(struct world *w);
t4_status world_prepare(struct world *w);
/* Reads everything back from revision 1 with a reader; false: see why. */
bool world_read_all(struct world *w);

#define SIZES(...) ((const size_t[]){__VA_ARGS__, 0})

#endif

/*
 * memtable.h - versions in memory: one writer, any number of lock-free readers.
 *
 * Keys stand in an arena skip list (order) and in a hash (a get never searches: measured
 * 3.1 us against 0.14 us).  The versions of a key hang off its one node, newest first, so that
 * a put to a key that is already here touches neither.  Besides `older` each version has a
 * `jump` to an ancestor chosen as in Myers' random-access stack, so that a read at an old
 * revision takes a logarithmic number of steps however hot the key is.
 *
 * Invariants
 *  (1) a node or version is complete before the release store that makes it reachable
 *  (2) stamps along `older` fall strictly, except that a version may replace one of equal
 *      stamp (same transaction): the first one counts
 *  (3) nothing is removed or moved while the memtable lives
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef MVCC_MEMTABLE_H
#define MVCC_MEMTABLE_H

#include <stdatomic.h>

#include "mvcc/mvcc.h"

#define MEMTABLE_HEIGHT_MAX 12

struct memtable_version {
    struct memtable_version *older, *jump;
    uint64_t depth; /* versions below this one */
    struct version v;
};

struct memtable_key {
    _Atomic(struct memtable_version *) newest;
    _Atomic(struct memtable_key *) hash_next;
    const uint8_t *data; /* the ikey */
    uint32_t length;
    uint32_t height;
    _Atomic(struct memtable_key *) next[]; /* [height] */
};

struct memtable {
    _Atomic uint32_t references;
    uint64_t hash_seed, hash_mask;
    _Atomic(struct memtable_key *) *bucket;
    struct memtable_key *head; /* before the first key, full height */
    _Atomic uint64_t keys;
    _Atomic uint64_t bytes;     /* of arena used */
    uint64_t random;            /* [writer] for heights */
    struct arena_chunk *chunks; /* [writer] newest first */
    /* of the newest entry in it; [writer] until frozen, then constant */
    uint64_t last_index, time_ms;
    int64_t last_revision;
};

static inline struct t4_slice
memtable_key_slice(const struct memtable_key *k)
{
    return slice_of(k->data, k->length);
}

/* First key >= ikey, or NULL. */
const struct memtable_key *memtable_seek(const struct memtable *t, struct t4_slice ikey);
static inline const struct memtable_key *
memtable_key_next(const struct memtable_key *k)
{
    return atomic_load_explicit(&k->next[0], memory_order_acquire);
}
/*
 * Nodes lie in the order of their writing, so each step along the list is a miss of the cache:
 * asks for the next key and for the newest version of this one before they are needed.
 */
static inline void
memtable_key_prefetch(const struct memtable_key *k)
{
    uintptr_t next = (uintptr_t)memtable_key_next(k);

    __builtin_prefetch((const void *)next);
    __builtin_prefetch((const void *)(next + 64));
    __builtin_prefetch(atomic_load_explicit(&k->newest, memory_order_relaxed));
}
/* Newest version with stamp <= `stamp` at or below v (which may be NULL), or NULL. */
const struct memtable_version *memtable_version_from(const struct memtable_version *v,
                                                     uint64_t stamp);
/* The same of a key. */
static inline const struct memtable_version *
memtable_version_at(const struct memtable_key *k, uint64_t stamp)
{
    return memtable_version_from(atomic_load_explicit(&k->newest, memory_order_acquire),
                                 stamp);
}
const struct memtable_key *memtable_find(const struct memtable *t, struct t4_slice ikey);

#endif

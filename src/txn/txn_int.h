/*
 * txn_int.h - what the files of this folder share: the workspace of an evaluation, ranges of
 * internal keys, reading.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef TXN_TXN_INT_H
#define TXN_TXN_INT_H

#include "txn/txn.h"

/* --- validation (intervals.c) ------------------------------------------------------- */

/* True if the operations of one branch put a key twice, or put one that they also delete. */
bool txn_writes_twice(const struct operation *ops, uint32_t n);

/* --- ranges of internal keys (range.c) ---------------------------------------------- */

/* The internal key of a user key; short ones need no allocation. */
struct ikey {
    struct t4_slice s;
    uint8_t small[232];
    uint8_t *large; /* NULL: s is in small[] */
};

/* [lo, hi) of a request.  It points into itself: never moved. */
struct key_range {
    struct ikey lo, hi; /* hi.s.len 0: no upper bound */
    bool empty;         /* no key can be in it */
};

/* For a range_end that is not empty.  The bounds may be longer than any key. */
void key_range_init(struct key_range *k, struct t4_slice key, struct t4_slice range_end);
void key_range_free(struct key_range *k);

/* Newest version of a user key with stamp <= `stamp`; *live false: none, or a tombstone. */
enum etcd_error key_read(struct mvcc_reader *reader, struct t4_slice key, uint64_t stamp,
                         struct version *v, bool *live);

/* --- ranges (range.c) --------------------------------------------------------------- */

struct range_source {
    struct mvcc_reader *reader;
    uint64_t stamp; /* read the newest versions with stamps up to this */
    int64_t
        newest; /* the revision that higher stamps stand for (a transaction's writes) */
};

static inline struct key_value
key_value_of(struct t4_slice key, const struct version *v, int64_t newest)
{
    int64_t stamp = (int64_t)v->stamp;

    return (struct key_value){
        key,        v->value, v->create_revision, stamp < newest ? stamp : newest,
        v->version, v->lease};
}

/* A RangeResponse for a range with a range_end; see range_read() for the rest. */
enum etcd_error range_encode(const struct range_source *source,
                             const struct range_request *r,
                             const struct response_header *header, uint32_t max_keys,
                             bool *too_long, struct chain *out);
/* A RangeResponse for a single key; kv NULL: there is none. */
void range_encode_single(const struct range_request *r, const struct key_value *kv,
                         const struct response_header *header, struct chain *out);

/* --- the workspace (effects.c) ------------------------------------------------------ */

/* What a written key was before the request. */
struct previous {
    int64_t lease;
    bool existed;
    bool superseded; /* the write was followed by another one to the same key */
};

struct arena_piece;

/*
 * Writes stand in mutations[0..n) in the order they were made, each with its `previous`.
 * Invariants
 *  (1) of the writes to one key all but the last one are superseded
 *  (2) write i stands in the overlay, if at all, with stamp revision + 1 + i, so that a walk
 *      up to revision + n sees the last one of each key
 *  (3) slices of mutations point into the request or the arena
 */
struct txn {
    struct mvcc_reader *reader;
    const struct txn_leases *leases;
    int64_t revision, compacted;
    struct response_header header;
    bool wrote;
    bool finished; /* mutations[] has become the answer of txn_mutations() */

    struct mutation *mutations;
    struct previous *previous;
    size_t n, capacity;

    uint32_t *slots; /* hash of user key to number of its last write + 1; 0: free */
    size_t slot_mask;
    size_t hashed; /* writes that are in it */
    uint64_t hash_seed;

    struct memtable *overlay; /* NULL until a walk needs one */
    size_t overlay_bytes;     /* what it was sized for */
    size_t overlaid;          /* writes that are in it */

    struct arena_piece *arena; /* newest first */
    struct buffer ikey;

    bool *path; /* outcomes of the compares, in the order of the transactions met */
    size_t n_path, path_capacity;

    struct chain scratch; /* one operation's response */
};

/* The revision that the request's writes get, and the one that it sees now. */
static inline int64_t
txn_next_revision(const struct txn *t)
{
    return t->revision + 1;
}

static inline int64_t
txn_seen_revision(const struct txn *t)
{
    return t->wrote ? t->revision + 1 : t->revision;
}

static inline struct range_source
txn_source(const struct txn *t)
{
    return (struct range_source){t->reader, (uint64_t)t->revision + t->n,
                                 txn_seen_revision(t)};
}

/* Number of the last write to the key, or -1. */
int64_t txn_find_write(struct txn *t, struct t4_slice key);
/* The key as the request sees it now, its own writes included; *write as txn_find_write(). */
enum etcd_error txn_look(struct txn *t, struct t4_slice key, struct version *v,
                         bool *live, int64_t *write);
/*
 * Adds a write to SPACE_KEYS.  `old` and `live`: what txn_look() said; write: likewise, -1 if
 * the key is known to have none.
 */
void txn_add_write(struct txn *t, const struct mutation *m, const struct version *old,
                   bool live, int64_t write);
/* A copy that lives until the next txn_begin(). */
struct t4_slice txn_keep(struct txn *t, struct t4_slice bytes);
/* Forgets all writes (the request failed). */
void txn_drop_writes(struct txn *t);
/* Brings the overlay up to date and puts it over the reader; txn_walk_end() takes it away. */
void txn_walk_begin(struct txn *t);
void txn_walk_end(struct txn *t);

/* --- compares (compare.c) ----------------------------------------------------------- */

/* Do all of them hold in the state before the request? */
enum etcd_error txn_compares_hold(struct txn *t, const struct compare *c, uint32_t n,
                                  bool *hold);

#endif

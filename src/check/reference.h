/*
 * reference.h - what an ordered store is compared with: a sorted array of keys, and numbers.
 *
 * The array has all keys that a check may use; a state of the store is one number per key
 * (0: absent), from which the value follows.  So a snapshot's expected content is a copy of
 * an array of numbers, and every seek has its answer by binary search.  All of it follows
 * from a seed.  Calls that say "valid until the next call" are for one thread at a time.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef CHECK_REFERENCE_H
#define CHECK_REFERENCE_H

#include <stddef.h>
#include <stdint.h>

#include "include/t4_plugin.h"

/* --- chance ------------------------------------------------------------------------- */

struct chance {
    uint64_t state;
};
uint64_t chance_next(struct chance *c);
uint64_t chance_below(struct chance *c, uint64_t n);

/* --- the reference ------------------------------------------------------------------ */

struct keys {
    struct t4_slice *key; /* sorted, all different */
    size_t n;
};

/*
 * About n keys of 1 byte to 16 KiB: short ones, and families that share prefixes of 479
 * to 1,441 bytes, of zeros, of 0xff and of anything, so that they meet at every boundary.
 */
void keys_make(struct keys *k, size_t n, struct chance *c);
void keys_free(struct keys *k);
/* One of the same kinds, maybe not in any set; valid until the next call. */
struct t4_slice key_make(struct chance *c);
/* Index of the first key >= `key`, n if there is none. */
size_t keys_lower_bound(const struct keys *k, struct t4_slice key);

/* The value that belongs to a number: 0 to 9,000 bytes; valid until the next call. */
struct t4_slice value_make(uint64_t number);

#endif

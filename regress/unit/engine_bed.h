/*
 * engine_bed.h - for tests of storage engines: a place to run one, and a reference.
 *
 * The reference is a sorted array of all keys that a test may use; a state of the store
 * is one number per key (0: absent), from which the value follows.  So a snapshot's
 * expected content is a copy of an array, and every seek has its answer by binary search.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef ENGINE_BED_H
#define ENGINE_BED_H

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "engine/engine.h"
#include "plugin/plugin.h"

/* --- an engine in a folder of its own ----------------------------------------------- */

struct bed {
    const char *kind; /* "memory" or "lmdb" */
    struct plugin *plugin;
    struct t4_engine_ops ops;
    struct engine *engine;
    char dir[PATH_MAX];
};

/* map_size may be NULL (1 GB).  Failures end the test. */
void bed_init(struct bed *b, const char *kind, const char *map_size);
void bed_open(struct bed *b);
void bed_close(struct bed *b);
void bed_destroy(struct bed *b);
/* <build>/<folder>: where the Makefile's plugins are. */
const char *build_folder(const char *folder);

/* --- chance ------------------------------------------------------------------------- */

struct chance {
    uint64_t state;
};
uint64_t chance_next(struct chance *c);
uint64_t chance_below(struct chance *c, uint64_t n);
/* T4_TEST_SEED or a fixed one; printed. */
uint64_t test_seed(void);

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

/* Compares all of the snapshot with `state`, in both directions. */
size_t check_scan(struct engine *e, struct t4_snap *s, const struct keys *k,
                  const uint64_t *state);
/* Random seeks with walks to and fro, and gets; returns how many steps were compared. */
size_t check_walks(struct engine *e, struct t4_snap *s, const struct keys *k,
                   const uint64_t *state, struct chance *c, unsigned seeks);

#endif

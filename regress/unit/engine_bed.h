/*
 * engine_bed.h - for tests of storage engines: a place to run one, a seed, and the reference
 * of the conformance kit (check/reference.h).
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef ENGINE_BED_H
#define ENGINE_BED_H

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "check/reference.h"
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

/* T4_TEST_SEED or a fixed one; printed. */
uint64_t test_seed(void);

#endif

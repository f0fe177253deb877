/*
 * inspect_int.h - what the files of this folder share.
 *
 * open.c  identity, the engine's snapshot, the log above it
 * read.c  keys, history, differences
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef INSPECT_INSPECT_INT_H
#define INSPECT_INSPECT_INT_H

#include "inspect/inspect.h"
#include "mvcc/mvcc.h"

struct inspection {
    struct inspection_options options;
    struct inspection_facts facts;
    struct engine *engine;
    struct mvcc *mvcc; /* its active memtable holds the log above the engine's snapshot */
    struct mvcc_reader reader; /* the one snapshot of everything */
    bool reading;
};

#endif

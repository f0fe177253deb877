/*
 * object_int.h - what the files of this folder share: an open chain of stores.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef OBJECT_OBJECT_INT_H
#define OBJECT_OBJECT_INT_H

#include "object/object.h"

#define OBJECT_MAX_LAYERS 8
#define OBJECT_DEFAULT_TIMEOUT_NS (60 * (uint64_t)1000000000)

/* One plugin of the chain.  Everything is constant after open. */
struct layer {
    char scheme[33];
    struct plugin *plugin;
    struct t4_object_ops ops; /* adopted: every member is set */
    struct t4_store *handle;
};

struct object_store {
    struct env *env;                        /* [const] */
    struct layer layers[OBJECT_MAX_LAYERS]; /* [const] the outermost wrapper first */
    size_t n_layers;                        /* [const] */
    uint64_t caps;                          /* [const] what every layer claims */
    char *url;                              /* [const] without secrets */
    int32_t cancelled;                      /* atomic; set once */
};

/* The clock that the plugins see (host->now_ns), whatever env the store was opened with. */
uint64_t object_now_ns(void);

#endif

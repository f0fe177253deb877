/*
 * object_int.h - what the files of this folder share: an open chain of stores.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef OBJECT_OBJECT_INT_H
#define OBJECT_OBJECT_INT_H

#include "env/thread.h"
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

/* Objects fetched before they are asked for: ahead.c. */
struct ahead_item;
struct ahead {
    struct mutex lock; /* leaf */
    struct condition came;
    struct ahead_item *items; /* [lock] */
    uint32_t n;               /* [lock] */
};

struct object_store {
    struct env *env;                        /* [const] */
    struct layer layers[OBJECT_MAX_LAYERS]; /* [const] the outermost wrapper first */
    size_t n_layers;                        /* [const] */
    uint64_t caps;                          /* [const] what every layer claims */
    char *url;                              /* [const] without secrets */
    int32_t cancelled;                      /* atomic; set once */
    struct ahead ahead;
};

/* object_get() without ahead.c. */
t4_status object_get_now(struct object_store *s, struct t4_slice key, uint64_t offset,
                         uint64_t length, size_t limit, uint64_t timeout_ns,
                         struct buffer *out, struct t4_object_info *info,
                         struct error *error);
void ahead_init(struct ahead *a);
void ahead_free(struct object_store *s);
/* True: the object was fetched ahead; waits for one that is on its way. */
bool ahead_take(struct object_store *s, struct t4_slice key, size_t limit,
                struct buffer *out, struct t4_object_info *info);

/* The clock that the plugins see (host->now_ns), whatever env the store was opened with. */
uint64_t object_now_ns(void);

#endif

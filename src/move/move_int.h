/*
 * move_int.h - what the files of this folder share.
 *
 * move.c      the steps, their order, and where an interrupted move goes on
 * back.c      a move taken back
 * copy.c      objects copied on several threads
 * walk.c      both listings in step
 * request.c   single requests, repeated while the store does not answer
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef MOVE_MOVE_INT_H
#define MOVE_MOVE_INT_H

#include "base/slice.h"
#include "env/thread.h"
#include "fmt/objects.h"
#include "move/move.h"
#include "objectlog/objectlog.h"

/* More than any object of a store has: the largest segment is about a quarter of it. */
#define MOVE_OBJECT_MAX ((uint64_t)256 << 20)

struct move {
    struct move_options options;
    struct move_result *result;
    struct objectlog *chain; /* of the source */
    const char *location;    /* of the target, as it stands in the lock */
    uint8_t
        put_id[PUT_ID_BYTES]; /* of the source's lock as it was marked: names the move */
    struct mutex lock;
    struct condition wake;
    bool stop; /* [lock] waits between tries end: another object has failed */
};

void move_init(struct move *m, const struct move_options *options,
               struct move_result *result);
void move_destroy(struct move *m);
/* Opens the source's chain.  INVALID: nothing is there, or no whole store. */
t4_status move_open_source(struct move *m, struct error *error);
/* INVALID: the lock is marked with another place than ours. */
t4_status move_check_mark(const struct move *m, struct error *error);

/* --- request.c: any thread.  What does not answer is asked again for some ten seconds. --- */

t4_status move_get(struct move *m, struct object_store *s, struct t4_slice key,
                   uint64_t limit, struct buffer *out, struct error *error);
/*
 * Makes sure that the target has `key` with this body: created, unless `there`, or found with the
 * same bytes.  PRECONDITION: it has others.
 */
t4_status move_create(struct move *m, struct t4_slice key, struct t4_slice body,
                      bool there, struct buffer *scratch, struct error *error);
/* From the target. */
t4_status move_remove(struct move *m, const struct t4_slice *keys, size_t n,
                      struct error *error);
/* A page of a listing. */
#define MOVE_PAGE 1000u
struct page {
    struct buffer keys; /* one behind the other */
    struct {
        size_t offset, length; /* of the key */
        uint64_t bytes;        /* of the object */
    } item[MOVE_PAGE];
    size_t n; /* fewer than MOVE_PAGE: the last one */
};
t4_status move_list(struct move *m, struct object_store *s, struct t4_slice after,
                    struct page *out, struct error *error);
/* `moving` at the target; NOTFOUND: there is none. */
t4_status move_get_moving(struct move *m, struct moving_object *out, struct error *error);

/* --- walk.c ------------------------------------------------------------------------------ */

struct pair {
    struct t4_slice key;
    bool at_source, at_target;
    uint64_t source_bytes, target_bytes;
};
typedef t4_status move_pair_fn(void *arg, const struct pair *p, struct error *error);
/* Each key of the two places, in order, but for what probes have left behind. */
t4_status move_walk(struct move *m, move_pair_fn *fn, void *arg, struct error *error);
/* Lock, manifest, `cluster` and `moving` are not copied as the others are. */
bool move_is_special(struct t4_slice key);

/* --- copy.c ------------------------------------------------------------------------------ */

/* Step 3.  m->result has the totals. */
t4_status move_copy(struct move *m, struct error *error);

#endif

/*
 * move.h - a store moved to another place: every object copied, `cluster` last.
 *
 * The steps, each of which may be interrupted; the same call goes on from there:
 *   1 CAS of the source's lock: marked as being moved to the target; nobody takes it any more
 *   2 `moving` is created at the target, which was found empty: the prefix is this move's
 *   3 all objects but the three below are created at the target with the source's bytes
 *   4 `manifest/latest` as it is, then `leader-lock`, released and without the mark
 *   5 both places are listed and compared
 *   6 CAS of the source's lock: moved.  This decides; until here the move can be taken back
 *   7 `cluster` is created at the target: from now on it is a store
 *   8 `moving` is removed
 *
 * Invariants
 *  (1) the source is only read, but for its lock
 *  (2) `cluster` is created at the target only after step 6, and step 6 only succeeds if nobody
 *      has taken the mark back since step 1: at no time can both places be used
 *  (3) nothing at the target is overwritten: what is there must have the same bytes
 *
 * Threads: one call at a time; copying uses threads of its own.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef MOVE_MOVE_H
#define MOVE_MOVE_H

#include "env/env.h"
#include "object/object.h"

/* Of copying, which is all that takes long. */
struct move_progress {
    uint64_t objects, bytes;         /* done, those that were there already included */
    uint64_t all_objects, all_bytes; /* of the source */
};

struct move_options {
    struct env *env;
    struct object_store *source, *target; /* stay the caller's */
    uint64_t timeout_ns;                  /* of one request */
    /*
     * The source is the built-in store of a data directory that the caller holds.  What the
     * directory remembers of it: has it all that was acknowledged, highest counters seen.
     */
    bool built_in;
    bool all_in_store;
    uint64_t lock_counter, manifest_counter;
    /* Some times a second while objects are copied, on the caller's thread; may be NULL. */
    void (*progress)(void *arg, const struct move_progress *p);
    void *arg;
};

struct move_result {
    uint64_t objects,
        bytes;      /* of the source, its lock, manifest and `cluster` not counted */
    uint64_t there; /* of these, already at the target when this call began */
    bool was_done;  /* nothing was left to do */
    /* move_take_back(): */
    bool unmarked;          /* the source's lock had a mark, which is gone */
    uint64_t removed, left; /* objects at the target */
};

/* Looks at both places, writes nothing.  The errors are those of move_store() before step 1. */
t4_status move_plan(const struct move_options *options, struct move_result *out,
                    struct error *error);
/*
 * Moves, or goes on with a move that was interrupted.  INVALID: the source is empty, in use,
 * not stopped in order, or moves elsewhere; the target is not empty.  UNSUPPORTED: the target
 * does not honour conditions.  CORRUPT: an object is damaged or differs.
 */
t4_status move_store(const struct move_options *options, struct move_result *out,
                     struct error *error);
/*
 * Takes the mark off the source's lock, then removes from the target what is certainly this
 * move's.  INVALID: step 6 is done, or there is no such move.  An error with out->unmarked:
 * the source can be used, only the target was not cleaned.
 */
t4_status move_take_back(const struct move_options *options, struct move_result *out,
                         struct error *error);

#endif

/*
 * objects.h - the small objects of a store: `cluster`, `leader-lock`, `manifest/latest`,
 * `moving`, `restoring`, and checkpoints.
 *
 * Text records (fmt/text.h), so that a person can read them.  Every object that is changed by
 * compare-and-swap carries a counter that grows by one per change and a put id that names the
 * attempt: equal bodies may have equal tags in some stores, and after an ambiguous answer only
 * the put id tells whose body is there (I7).  Pure functions, any thread.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef FMT_OBJECTS_H
#define FMT_OBJECTS_H

#include "base/buffer.h"

#define PUT_ID_BYTES 16
#define HASH_BYTES 32
#define ADDRESS_BYTES 256
#define LOCATION_BYTES 1024
#define WINDOW_MAX 4                 /* WMAX of the chain: a constant of the format */
#define OBJECT_TEXT_MAX (64u * 1024) /* no text object is longer */

#define LOCK_KEY "leader-lock"
#define MANIFEST_KEY "manifest/latest"
#define CLUSTER_KEY "cluster"
#define MOVING_KEY "moving"
#define RESTORING_KEY "restoring"

enum commit_rule { RULE_OBJECT = 1, RULE_LOCAL = 2 };

/* A lock that is marked is never taken; a move that is done is never taken back. */
enum move_state { MOVE_NONE, MOVE_BEGUN, MOVE_DONE };

/* `cluster`: created last, the mark that the prefix is complete. */
struct cluster_object {
    uint64_t cluster_id, lineage;
    uint32_t window_max;
};

/* `leader-lock` */
struct lock_object {
    uint64_t cluster_id, lineage;
    uint64_t counter;
    uint8_t put_id[PUT_ID_BYTES];
    uint64_t term;
    uint64_t holder;             /* incarnation of its data directory */
    char address[ADDRESS_BYTES]; /* where clients reach it; for messages only */
    enum commit_rule rule;
    uint64_t lease_ms; /* of the holder; 0: none in use */
    bool released;     /* given up with everything acknowledged in the chain: */
    uint64_t released_index;
    int64_t released_revision;
    enum move_state move;       /* not MOVE_NONE: the store moves, or was moved, to ... */
    char moved[LOCATION_BYTES]; /* ... this place */
};

/*
 * `moving`: the first object that a move puts at its target and the last that it removes there.
 * While it is there and `cluster` is not, nobody but that move may use the prefix.
 */
struct moving_object {
    uint64_t cluster_id, lineage; /* of the source */
    uint8_t put_id
        [PUT_ID_BYTES]; /* of the source's lock when it was marked: names the move */
    char source[LOCATION_BYTES]; /* for messages only */
};

/*
 * `restoring`: the first object that a restore from a snapshot puts into an empty store, and the last
 * that it removes.  As `moving`; and all that is made meanwhile depends on nothing but it and the
 * snapshot, so that whoever gives the command again makes the same objects.
 */
struct restoring_object {
    uint64_t cluster_id, lineage, holder; /* of the store to be */
    uint64_t time_ms;                     /* of its checkpoint */
    uint8_t sha256[HASH_BYTES];           /* of the snapshot's database */
    char source[LOCATION_BYTES];          /* for messages only */
};

/* Where reading of the chain begins, with what a reader must know of what lies below. */
struct chain_floor {
    uint64_t next_slot;
    uint64_t term;            /* highest seen below */
    uint8_t hash[HASH_BYTES]; /* of the last accepted data segment; zeros: none */
    uint64_t last_index;      /* of that segment */
};

/*
 * A checkpoint: the state after entry `index`, as runs (sst/), newest first, the last one a base
 * if it says so.  Written once as an object of its own, checkpoint_key(), and inlined in the
 * manifest while it is the newest.
 */
#define CHECKPOINT_RUNS_MAX 64
struct checkpoint_run {
    uint8_t sha256[HASH_BYTES]; /* of its index object */
    uint64_t term, index; /* of the checkpoint that first wrote it: part of its key */
    uint64_t bytes;       /* of its SSTs, compressed */
    bool is_base;         /* begins at the first entry: tombstones were folded */
};
struct checkpoint_object {
    uint64_t cluster_id, lineage, generation;
    uint64_t term, index;
    int64_t revision, compacted; /* after entry `index`; compacted -1: never */
    uint64_t time_ms;            /* of that entry */
    struct chain_floor place;    /* where reading of the chain goes on from here */
    uint32_t n_runs;
    struct checkpoint_run run[CHECKPOINT_RUNS_MAX];
};

/* A kept checkpoint, as the manifest lists it: what its key is made of, and its object's hash. */
struct checkpoint_name {
    uint64_t term, index, time_ms;
    int64_t revision;
    uint8_t sha256[HASH_BYTES];
};

/*
 * `manifest/latest`.  What it lists exists; what it does not list is on its way out, or never
 * became part of the store (the mark of GC is absence).  The raw chain is kept from floor on;
 * archives (log/) hold it from `archive` to the floor.
 */
#define MANIFEST_CHECKPOINTS_MAX 128
struct manifest_object {
    uint64_t cluster_id, lineage, generation;
    uint64_t counter;
    uint8_t put_id[PUT_ID_BYTES];
    uint64_t term;
    struct chain_floor floor, archive;
    uint64_t barrier; /* highest slot announced for one (objectlog/take.c); 0: none */
    uint32_t n_checkpoints;          /* 0: none yet */
    struct checkpoint_object newest; /* the first of the list, inlined */
    struct checkpoint_name checkpoint[MANIFEST_CHECKPOINTS_MAX]; /* newest first */
};

void cluster_encode(struct buffer *out, const struct cluster_object *c);
void lock_encode(struct buffer *out, const struct lock_object *l);
void manifest_encode(struct buffer *out, const struct manifest_object *m);
void moving_encode(struct buffer *out, const struct moving_object *m);
void restoring_encode(struct buffer *out, const struct restoring_object *r);

/* OK, CORRUPT, or UNSUPPORTED: written by a newer version. */
t4_status cluster_decode(struct t4_slice text, struct cluster_object *c);
t4_status lock_decode(struct t4_slice text, struct lock_object *l);
t4_status manifest_decode(struct t4_slice text, struct manifest_object *m);
t4_status moving_decode(struct t4_slice text, struct moving_object *m);
t4_status restoring_decode(struct t4_slice text, struct restoring_object *r);

void checkpoint_encode(struct buffer *out, const struct checkpoint_object *c);
t4_status checkpoint_decode(struct t4_slice text, struct checkpoint_object *c);

/* checkpoint/{term:010}/{revision:020}-{index:020}/manifest */
#define CHECKPOINT_KEY_BYTES 80
void checkpoint_key(char key[CHECKPOINT_KEY_BYTES], uint64_t term, int64_t revision,
                    uint64_t index);
bool checkpoint_key_parse(struct t4_slice key, uint64_t *term, int64_t *revision,
                          uint64_t *index);

#endif

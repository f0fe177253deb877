/*
 * checkpoint_bed.h - for tests of checkpoints: a leader that appends entries to a store, its
 * checkpointer, and a plain model of what must be in both.
 *
 * The checkpointer's thread is not started: its pieces of work are done one by one.  The model
 * keeps every entry's bytes and every version as a record; what a checkpoint must hold is computed
 * from them by a few lines of another kind than those under test.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef CHECKPOINT_BED_H
#define CHECKPOINT_BED_H

#include <stdatomic.h>

#include "checkpoint/checkpoint_int.h"
#include "fmt/entry.h"
#include "scratch.h"
#include "sst_bed.h"

/* The log, as it must be. */
struct log_model {
    struct buffer *entry;          /* [i]: entry i + 1 */
    int64_t *revision, *compacted; /* after it */
    uint64_t *time_ms;
    size_t *records; /* how many of `all` are of entries up to it */
    uint64_t n;
    size_t capacity;
    struct records all; /* in order of the log */
    unsigned keys;      /* how many different ones are written */
    size_t value_bytes; /* 1 to twice that */
    bool random_values; /* that cannot be compressed */
};

/* Appends an entry of chance: puts, deletes, leases, attachments; now and then a compaction. */
void log_model_entry(struct log_model *m, struct chance *c);
/* Appends an entry that puts one key. */
void log_model_put(struct log_model *m, const char *key, const char *value);
/* Appends one with this kind and these mutations. */
void log_model_add(struct log_model *m, struct entry *e, const struct mutation *mutation,
                   size_t n);
void log_model_free(struct log_model *m);
/* Records that the state after entry `index` consists of, sorted. */
void log_model_state(const struct log_model *m, uint64_t index, struct records *out);

struct lead {
    struct object_store *store;
    struct objectlog_options options;
    struct objectlog *chain;
    struct log_model *model;
    uint64_t term, uploaded;
    struct checkpointer *checkpointer; /* not started */
    struct checkpointer_options check;
    char control[SCRATCH_ROOM + 64]; /* file of the fault plugin */
    _Atomic bool removing;           /* for tests that wait for it */
};

/* The folder of all stores of this program; made by the first call. */
const char *lead_folder(void);
/* A store of this name behind the fault plugin; seed NULL: without faults of chance. */
struct object_store *lead_store(const char *name, const char *seed, const char *control);
void lead_init(struct lead *l, const char *name, const char *seed,
               struct log_model *model, uint64_t incarnation);
/* Takes the term and makes a checkpointer (unless PRECONDITION and others). */
t4_status lead_take(struct lead *l, struct error *error);
/* Uploads the model's entries up to `last` as one segment, and gives the mark. */
t4_status lead_upload(struct lead *l, uint64_t last, struct error *error);
/* One piece of work. */
t4_status lead_work(struct lead *l, unsigned work, struct error *error);
/* All that end OK. */
void lead_do(struct lead *l, unsigned work);
/* Writes the fault plugin's control file. */
void lead_control(const struct lead *l, const char *text);
void lead_free(struct lead *l);

/* Number of objects with the prefix. */
size_t count_objects(struct object_store *s, const char *prefix);
/* Appends all keys with the prefix, one a line. */
void list_objects(struct object_store *s, const char *prefix, struct buffer *out);

/*
 * That everything on the manifest's list can be read and holds what it must; that the chain reads
 * to its end from each of their places, and from the beginning or, if that is gone, is refused.
 */
void assert_store_is_whole(struct lead *l);

#endif

/*
 * mvcc_int.h - what the files of this folder share: struct mvcc, views, the state record.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef MVCC_MVCC_INT_H
#define MVCC_MVCC_INT_H

#include "env/thread.h"
#include "mvcc/memtable.h"

#define TABLES_MAX (MVCC_SOURCES_MAX - 1) /* active and frozen memtables of a view */

/* A constant set of memtables, newest first; each holds one reference of its own. */
struct mvcc_view {
    _Atomic uint32_t references;
    uint32_t n;
    struct memtable *table[TABLES_MAX];
};

/* Progress of the engine thread through one flush or one compaction. */
struct mvcc_job {
    struct memtable *flushing;       /* NULL: none */
    const struct memtable_key *next; /* first key not yet written */
    uint64_t flush_began_ns;
    bool flush_stuck; /* the newest slice of a flush found no space */
    bool compacting;
    bool compaction_next;       /* a flush is done: a compaction has its turn */
    int64_t compact_to;         /* revision of the running compaction */
    struct buffer position;     /* encoded key from which the compaction goes on */
    struct buffer keys, values; /* bytes of the slice's operations */
    struct t4_op *op;
    size_t n_ops, op_capacity;
};

struct mvcc {
    struct mvcc_options options;
    uint64_t hash_seed;
    struct memtable *active;    /* [commit role] newest of view */
    struct mutex view_lock;     /* leaf */
    struct mvcc_view *view;     /* [view_lock] */
    _Atomic uint64_t committed; /* published index */
    _Atomic int64_t compacted;  /* published compacted revision */
    _Atomic uint64_t flushed;   /* engine holds everything up to here */
    _Atomic int64_t flushed_revision;
    _Atomic int64_t compact_wanted; /* revision to compact to, physically */
    _Atomic int64_t compact_done;
    _Atomic uint64_t active_bytes;
    _Atomic uint64_t bytes_frozen, bytes_flushed; /* ever: neither goes back */
    _Atomic uint32_t frozen_count;
    struct mvcc_job job; /* [engine thread] */

    /* install.c */
    _Atomic bool incomplete; /* the engine is being filled from a checkpoint */
    _Atomic bool gently;     /* ... beside writers */
    bool (*holds)(void *arg, struct t4_slice ikey);
    void *holds_arg;
    struct mutex pieces_lock;                 /* leaf */
    struct mvcc_piece *pieces, **pieces_tail; /* [pieces_lock] the first may be begun */
};

/* mvcc.c: a record of the engine, verified; CORRUPT was reported (mvcc_options.damaged). */
t4_status mvcc_record_decode(struct mvcc *m, struct t4_slice key, struct t4_slice value,
                             struct version *v);

/* work.c: a slice's operations */
void mvcc_slice_clear(struct mvcc_job *job);
bool mvcc_slice_full(const struct mvcc *m);
void mvcc_slice_put(struct mvcc_job *job, struct t4_slice key, struct t4_slice value);
void mvcc_slice_delete(struct mvcc_job *job, struct t4_slice key);
t4_status mvcc_slice_write(struct mvcc *m, uint64_t flushed, struct error *error);
t4_status mvcc_slice_write_unsynced(struct mvcc *m, uint64_t flushed,
                                    struct error *error);

/* install.c */
void install_init(struct mvcc *m);
void install_free(struct mvcc *m);
bool install_is_due(struct mvcc *m);
/* Writes one slice of the oldest piece; *pause_ns is that of a flush, and shortened. */
t4_status install_slice(struct mvcc *m, uint64_t *pause_ns, struct error *error);
/* Does the engine hold what is below this key's newest version? */
static inline bool
engine_holds(struct mvcc *m, struct t4_slice ikey)
{
    return !atomic_load_explicit(&m->incomplete, memory_order_acquire) ||
           m->holds(m->holds_arg, ikey);
}

void memtable_unref(struct memtable *t);
/* Replaces the view: adds `newest` in front (or NULL) and drops `gone` (or NULL). */
void mvcc_view_change(struct mvcc *m, struct memtable *newest, struct memtable *gone);
/* The oldest frozen memtable with a reference of the caller's, or NULL. */
struct memtable *mvcc_oldest_frozen(struct mvcc *m);

/* The engine's record of what it holds: key "\x01state", see mvcc.c. */
void mvcc_state_encode(struct buffer *out, const struct mvcc *m, uint64_t index,
                       int64_t revision, uint64_t time_ms);
struct t4_slice mvcc_state_key(void);

#endif

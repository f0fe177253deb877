/*
 * store.h - what the files of the LMDB plugin share (private).
 *
 *   lmdb.c    descriptor, options, open and close, stats
 *   write.c   transactions, long keys on the way in
 *   read.c    snapshots, get, iterators
 *   copy.c    defragmentation: a second file that takes the place of the first
 *
 * Format of dir/data.mdb (README.md says why).  Three databases in one LMDB environment:
 *   keys    <key of 1 to 480 bytes>                      -> value
 *           <first 480 bytes of a longer key> 00         -> layer id, u64 little endian
 *   layers  <layer id, u64 big endian> <1 to 480 bytes>  -> value
 *           <layer id> <next 480 bytes of a longer rest> 00 -> layer id
 *   state   "state" -> struct state, little endian, STATE_SIZE bytes
 *
 * Invariants:
 *  (1) a record of 481 bytes after the id is a link, any shorter one ends a key
 *  (2) exactly one link leads to each layer, and no layer is empty
 *  (3) layer ids are never used again
 *  (4) each transaction that changes anything writes `state`
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef LMDB_STORE_H
#define LMDB_STORE_H

#include <lmdb.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <string.h>

#include "t4_plugin.h"

#define CHUNK 480             /* bytes of a key in one record */
#define ID_SIZE 8             /* of a layer id */
#define LINK_SIZE (CHUNK + 1) /* without the id */
#define RECORD_KEY (ID_SIZE + LINK_SIZE)
#define MAX_KEY 65536
#define MAX_DEPTH (MAX_KEY / CHUNK + 1) /* layers above a key's last record */

#define STATE_KEY "state"
#define STATE_FORMAT 1
#define STATE_SIZE 32

struct state {
    uint64_t format;
    uint64_t flushed;
    uint64_t next_layer; /* first id not used yet */
    uint64_t layers;     /* how many there are = how many links */
};

struct store { /* the plugin's state: what load() gives */
    const struct t4_host *host;
    uint64_t map_size;
    uint64_t copy_step; /* bytes of one step of a defragmentation */
};

/* An open file: the current one, one that snapshots still read, or the copy being made. */
struct environment {
    MDB_env *env;                /* [const] */
    MDB_dbi keys, layers, state; /* [const] */
    unsigned
        references; /* [lock] the engine's, and one of each snapshot, also idle ones */
};

struct copy; /* a defragmentation under way */

struct t4_engine {
    const struct store *store; /* [const] */
    char *dir;                 /* [const] */
    pthread_mutex_t lock;
    struct environment *current; /* [lock] changed by the writer */
    struct t4_snap *idle;        /* [lock] snapshots of `current` to be used again */
    unsigned n_idle;             /* [lock] */
    struct state committed;      /* [writer] as of the last commit */
    struct copy *copy;           /* [writer] NULL: none */
    _Atomic uint64_t flushed;    /* committed.flushed, for any thread */
};

/* A write transaction. */
struct writer {
    struct environment *environment;
    MDB_txn *txn;
    MDB_cursor *keys; /* kept, since sorted operations mostly hit the page it is on */
    MDB_cursor *layers;
    struct state state;
    unsigned append; /* MDB_APPEND: keys come in order, behind all that are there */
};

/* The key of a record at level 0 (keys) or below (layers). */
struct record {
    uint8_t bytes[RECORD_KEY];
    MDB_val key;
};

/* Of the record that `part` of a key, the bytes from this level on, leads to. */
static inline bool
record_set(struct record *r, unsigned level, uint64_t layer, const uint8_t *part,
           size_t len)
{
    bool link = len > CHUNK;
    size_t n = link ? CHUNK : len;
    uint8_t *p = r->bytes;

    if (level == 0 && !link) { /* as it is: nothing to copy */
        r->key = (MDB_val){len, (void *)(uintptr_t)part};
        return false;
    }
    if (level > 0)
        for (int i = 0; i < ID_SIZE; i++)
            *p++ = (uint8_t)(layer >> (8 * (ID_SIZE - 1 - i)));
    memcpy(p, part, n);
    p += n;
    if (link)
        *p++ = 0;
    r->key = (MDB_val){(size_t)(p - r->bytes), r->bytes};
    return link;
}

static inline uint64_t
load_u64(const uint8_t *p)
{
    uint64_t v = 0;

    for (int i = 7; i >= 0; i--)
        v = v << 8 | p[i];
    return v;
}

static inline void
store_u64(uint8_t *p, uint64_t v)
{
    for (int i = 0; i < 8; i++)
        p[i] = (uint8_t)(v >> (8 * i));
}

/* Is the record with this key, found in layer `layer`, in that layer at all? */
static inline bool
record_in_layer(const MDB_val *key, uint64_t layer)
{
    const uint8_t *p = key->mv_data;
    uint64_t id = 0;

    if (key->mv_size <= ID_SIZE)
        return false;
    for (int i = 0; i < ID_SIZE; i++)
        id = id << 8 | p[i];
    return id == layer;
}

/* LMDB's or the system's error number as a status. */
t4_status store_status(int rc);
/*
 * The same with a text: what was attempted (in `environment`, which may be NULL), why it
 * failed, what to do.
 */
t4_status store_fail(const struct t4_engine *e, const struct environment *environment,
                     struct t4_call *call, int rc, const char *what);

/* Opens the file and its tables, made if need be; *out is NULL on failure.  `flags`: LMDB's. */
int environment_open(const struct store *store, const char *path, unsigned flags,
                     struct environment **out, struct state *state);
void environment_close(const struct store *store, struct environment *environment);
/* The current one, with a reference. */
struct environment *environment_hold(struct t4_engine *e);
/* Gives a reference back; the last one closes it. */
void environment_release(struct t4_engine *e, struct environment *environment);
/* Bytes of its file, and of these in use; the number of the host's records. */
int environment_stats(struct environment *environment, uint64_t *file, uint64_t *in_use,
                      uint64_t *records);
/* Makes a folder's entries durable. */
int sync_folder(const char *path);

/* The state record.  MDB_NOTFOUND: the environment is new. */
int state_load(const struct environment *environment, MDB_txn *txn, struct state *out);
int state_save(const struct environment *environment, MDB_txn *txn,
               const struct state *s);

/* Begin, operations, commit; writer_abort() after any failure but a commit's. */
int writer_begin(struct writer *w, struct environment *environment,
                 const struct state *state);
int writer_put(struct writer *w, struct t4_slice key, struct t4_slice value);
int writer_delete(struct writer *w, struct t4_slice key);
int writer_commit(struct writer *w);
void writer_abort(struct writer *w);

/* Removes what a crash left of a copy. */
int copy_clean(const char *dir);
/* What was just committed goes into the part that is copied already, too. */
void copy_follow(struct t4_engine *e, const struct t4_op *ops, size_t n);
void copy_drop(struct t4_engine *e);
t4_status store_defragment(struct t4_engine *e, struct t4_call *call, int32_t *more);

t4_status store_write(struct t4_engine *e, struct t4_call *call, const struct t4_op *ops,
                      size_t n, uint64_t flushed);

t4_status store_snap(struct t4_engine *e, struct t4_snap **out);
void store_snap_end(struct t4_snap *s);
/* Frees idle ones, a list taken off the engine. */
void store_snaps_close(struct t4_snap *idle);
t4_status store_get(struct t4_snap *s, struct t4_slice key, struct t4_slice *value);
t4_status store_iter(struct t4_snap *s, struct t4_iter **out);
void store_iter_end(struct t4_iter *it);
t4_status store_seek(struct t4_iter *it, struct t4_slice key, struct t4_slice *out_key,
                     struct t4_slice *out_value);
t4_status store_next(struct t4_iter *it, struct t4_slice *key, struct t4_slice *value);
t4_status store_prev(struct t4_iter *it, struct t4_slice *key, struct t4_slice *value);

#endif

/*
 * store.h - what the files of the LMDB plugin share (private).
 *
 *   lmdb.c    descriptor, options, open and close, stats
 *   write.c   transactions, long keys on the way in
 *   read.c    snapshots, get, iterators
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
};

struct t4_engine {
    const struct store *store;   /* [const] */
    char *dir;                   /* [const] */
    MDB_env *env;                /* [const] */
    MDB_dbi keys, layers, state; /* [const] */
    struct state committed;      /* [writer] as of the last commit */
    _Atomic uint64_t flushed;    /* committed.flushed, for any thread */
    pthread_mutex_t lock;
    struct t4_snap *idle; /* [lock] snapshots to be used again */
    unsigned n_idle;      /* [lock] */
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
/* The same with a text: what was attempted, why it failed, what to do. */
t4_status store_fail(const struct t4_engine *e, struct t4_call *call, int rc,
                     const char *what);
/* The state record.  MDB_NOTFOUND: the environment is new. */

int state_load(struct t4_engine *e, MDB_txn *txn, struct state *out);
int state_save(struct t4_engine *e, MDB_txn *txn, const struct state *s);

t4_status store_write(struct t4_engine *e, struct t4_call *call, const struct t4_op *ops,
                      size_t n, uint64_t flushed);

t4_status store_snap(struct t4_engine *e, struct t4_snap **out);
void store_snap_end(struct t4_snap *s);
void store_snaps_close(struct t4_engine *e); /* frees the idle ones */
t4_status store_get(struct t4_snap *s, struct t4_slice key, struct t4_slice *value);
t4_status store_iter(struct t4_snap *s, struct t4_iter **out);
void store_iter_end(struct t4_iter *it);
t4_status store_seek(struct t4_iter *it, struct t4_slice key, struct t4_slice *out_key,
                     struct t4_slice *out_value);
t4_status store_next(struct t4_iter *it, struct t4_slice *key, struct t4_slice *value);
t4_status store_prev(struct t4_iter *it, struct t4_slice *key, struct t4_slice *value);

#endif

/*
 * snapshot.h - the whole state of the database: its history in order of revisions, etcd's hash
 * of it, and etcd's snapshot files, written and read.
 *
 * The storage engine holds versions in order of keys; what etcd hashes and saves is in order
 * of revisions.  A *history* is the one in the order of the other: read once, in slices, sorted
 * on disk.  Everything here takes long: it runs on a thread of its own, holds nothing that a write
 * waits for, and asks stop() all the time.
 *
 * What a snapshot file holds: sql-like-docs/internals/formats.md.
 *
 * A history or file belongs to one thread at a time.  Errors: CANCELLED: stop() said so; env's, with
 * the folder named; else as said.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef SNAPSHOT_SNAPSHOT_H
#define SNAPSHOT_SNAPSHOT_H

#include "mvcc/mvcc.h"
#include "wire/encode.h"

/* --- history (history.c) ------------------------------------------------------------------ */

struct history_options {
    struct env *env;
    const char *dir; /* for temporary files; stays the caller's */
    struct mvcc *mvcc;
    size_t memory;  /* sorted at a time; 0: sort/sort.h's */
    uint32_t slice; /* keys and versions looked at with one reader; 0: 4,096 */
    bool (*stop)(void *arg);
    void *arg;
};

struct history;

/*
 * All versions of user keys up to `revision` (published) that a compaction has left, or not yet
 * taken away.  Each slice has a reader of its own, so nothing of the engine is held in between.
 * PRECONDITION: a compaction above `revision` came meanwhile; begin again with a newer one.
 * CORRUPT, IO: the engine's.
 */
t4_status history_open(const struct history_options *options, int64_t revision,
                       struct history **out, struct error *error);
void history_free(struct history *h); /* NULL is fine */
int64_t history_revision(const struct history *h);
/* The compacted revision in force when the last version was read; -1: never compacted. */
int64_t history_compacted(const struct history *h);

struct history_record {
    struct key_value kv; /* of a tombstone the key and mod_revision only; borrowed */
    uint32_t sub;
    bool tombstone;
    int64_t
        superseded; /* revision of the key's next version up to the history's; 0: none */
};
/*
 * The next version in order of (revision, sub), of those that etcd would still have: superseded
 * ones at or below the compacted revision are passed over, and tombstones below it.  NOTFOUND at the
 * end.  Valid until the next call.
 */
t4_status history_next(struct history *h, struct history_record *r, struct error *error);

/* The record as etcd keeps it: 17 bytes, 18 for a tombstone; an mvccpb.KeyValue. */
void history_etcd_record(const struct history_record *r, struct buffer *key,
                         struct buffer *value);

/* HashKV of etcd 3.6 at the history's revision; reads all of it. */
t4_status history_hash(struct history *h, uint32_t *hash, struct error *error);
uint32_t history_hash_of_none(void); /* of a history without versions */

/* --- snapshots (save.c) ------------------------------------------------------------------- */

struct lease_record {
    int64_t id, ttl, remaining; /* seconds */
};

/* What goes into a snapshot beside the history. */
struct snapshot_facts {
    uint64_t member_id, index, term;
    const char *name, *peer_url, *client_urls; /* of the member; comma separated */
    const struct lease_record *lease;          /* by ascending id, taken as unsigned */
    size_t n_leases;
};

/*
 * Writes what a snapshot holds, as a bbolt file, into a temporary file without a name: the
 * caller's to close.
 */
t4_status snapshot_write(struct env *env, const char *dir, struct history *h,
                         const struct snapshot_facts *facts, struct env_file **out,
                         uint64_t *size, struct error *error);
/* CRC-32C of the same, without what differs among etcd's members (schema.h). */
t4_status snapshot_hash(struct history *h, const struct snapshot_facts *facts,
                        uint32_t *hash, struct error *error);

#endif

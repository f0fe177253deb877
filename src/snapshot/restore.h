/*
 * restore.h - etcd's snapshot files read: checked, summed up, and made into a store.
 *
 * A snapshot is a bbolt database with 32 bytes of SHA-256 behind it; a member's database file has
 * none.  Files of etcd 3.4 to 3.6 and of t4.  The format: schema.h.
 *
 * One thread.  Errors do not name the file (error_wrap()).  INVALID: it is no such file, or not
 * one that t4 can take, and why; CORRUPT: it is damaged, and where.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef SNAPSHOT_RESTORE_H
#define SNAPSHOT_RESTORE_H

#include "checkpoint/checkpoint.h"
#include "codec/codec.h"
#include "env/env.h"

struct snapshot_file;

/*
 * Opens a file and reads it once for its hash, which must be there and right unless skip_hash_check
 * says so.
 */
t4_status snapshot_open(struct env *env, const char *path, bool skip_hash_check,
                        struct snapshot_file **out, struct error *error);
void snapshot_close(struct snapshot_file *f); /* NULL is fine */
/* SHA-256 of the database without what stands behind it. */
const uint8_t *snapshot_sha256(const struct snapshot_file *f);

/* As etcdutl snapshot status says it.  dir: for temporary files. */
struct snapshot_status {
    uint32_t hash;    /* CRC-32C of all buckets, keys and values */
    int64_t revision; /* of the newest record */
    uint64_t keys;    /* that exist at it */
    uint64_t bytes;   /* of the database */
    char version[32]; /* of the storage format; "" before etcd 3.6 */
};
t4_status snapshot_status(struct snapshot_file *f, const char *dir,
                          struct snapshot_status *out, struct error *error);

struct snapshot_restore_options {
    struct env *env;
    struct object_store *store; /* stays the caller's */
    const char *dir;            /* for temporary files */
    const char *source;         /* what the snapshot is called in messages */
    const char *address;        /* of this server */
    enum commit_rule rule;
    uint64_t timeout_ns; /* of one request to the store */
    bool noted;          /* stored() came to its end before: the mark may be gone */
    /* The store holds everything; what the caller has to note comes before the restore's mark goes. */
    t4_status (*stored)(void *arg, struct error *error);
    void *arg;
};
struct snapshot_restored {
    int64_t revision, compacted; /* compacted: -1 never */
    uint64_t records, leases;
    bool was_stored; /* an earlier run did it, but for its last steps: the rest is 0 */
    bool had_users;  /* of authentication that is not enabled: they are not taken over */
};
/*
 * Makes an empty store into one with this state.  Given again after any failure, with the same
 * file, it goes on.  INVALID: the store is not empty.
 */
t4_status snapshot_restore(struct snapshot_file *f,
                           const struct snapshot_restore_options *options,
                           struct snapshot_restored *out, struct error *error);

#endif

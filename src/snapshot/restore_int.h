/*
 * restore_int.h - what the readers of snapshot files share.
 *
 * file.c     opening, hash, status
 * load.c     etcd's buckets -> t4's records
 * restore.c  records -> a store; what an interrupted one leaves
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef SNAPSHOT_RESTORE_INT_H
#define SNAPSHOT_RESTORE_INT_H

#include "bolt/bolt.h"
#include "snapshot/restore.h"
#include "sst/sst.h"
#include "wire/encode.h"

struct snapshot_file {
    struct env *env;
    struct env_file *file;
    bool has_hash;
    uint64_t bytes; /* of the database */
    uint8_t sha256[SHA256_BYTES];
    struct bolt_reader *reader;
};

/* The value of a key in a bucket; NOTFOUND: there is none. */
t4_status snapshot_find(struct snapshot_file *f, const char *bucket, const char *key,
                        struct buffer *value, struct error *error);
/* A key of the bucket key.  False: it is none. */
bool snapshot_revision_decode(struct t4_slice key, int64_t *revision, uint64_t *sub,
                              bool *tombstone);

/* --- load.c ------------------------------------------------------------------------------- */

struct load;

/* An mvccpb.KeyValue; its bytes are the message's.  False: damaged. */
bool load_decode_key_value(struct t4_slice message, struct key_value *kv);
/* Reads and checks all of the file; what does not fit into memory goes below `dir`. */
t4_status load_new(struct snapshot_file *f, const char *dir, struct load **out,
                   struct error *error);
void load_free(struct load *l); /* NULL is fine */
void load_describe(const struct load *l, struct snapshot_restored *out);
/* The records of a checkpoint, in order; not reduced by the compacted revision. */
struct sst_source load_source(struct load *l);

#endif

/*
 * seed.c - a store that begins with a checkpoint: records from elsewhere become its base.
 *
 * Order: files, run index, checkpoint, lock, manifest, `cluster`.  Nobody leads the store before
 * `cluster` is there, and the lock says that it was given back, so anybody may then.
 *
 * The checkpoint stands behind an entry 1 that was never written; the chain is empty, and goes on
 * with entry 2.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "checkpoint/checkpoint_int.h"

#define TERM 1u /* as a bootstrap's */

/* Where the chain goes on: at its first slot. */
static const struct chain_floor beginning = {.term = TERM,
                                             .last_index = CHECKPOINT_SEED_INDEX};

static t4_status
write_base(struct objectlog *log, const struct checkpoint_seed *seed,
           struct sst_source records, struct checkpoint_object *o, struct error *error)
{
    int64_t compacted = seed->compacted > 0 ? seed->compacted : 0;
    struct sst_reduce reduce = {
        .source = records, .compacted = compacted, .is_base = true};
    struct run_index run = {.last_index = CHECKPOINT_SEED_INDEX,
                            .last_revision = seed->revision,
                            .compacted = compacted,
                            .is_base = true};
    struct run_target target = {.log = log, .term = TERM, .index = CHECKPOINT_SEED_INDEX};
    struct sst_source reduced = sst_reduce_source(&reduce);
    t4_status status = run_write(&target, &reduced, &run, &o->run[0], error);

    sst_reduce_free(&reduce);
    run_index_free(&run);
    o->n_runs = status == T4_OK;
    return status == T4_E_NOTFOUND ? T4_OK : status;
}

t4_status
checkpoint_seed(struct objectlog *log, const struct checkpoint_seed *seed,
                struct sst_source records, struct error *error)
{
    struct checkpoint_object o = {.cluster_id = seed->cluster_id,
                                  .lineage = seed->lineage,
                                  .generation = 1,
                                  .term = TERM,
                                  .index = CHECKPOINT_SEED_INDEX,
                                  .revision = seed->revision,
                                  .compacted = seed->compacted,
                                  .time_ms = seed->time_ms,
                                  .place = beginning};
    struct lock_object lock = {.cluster_id = seed->cluster_id,
                               .lineage = seed->lineage,
                               .term = TERM,
                               .holder = seed->holder,
                               .rule = seed->rule,
                               .released = true,
                               .released_index = CHECKPOINT_SEED_INDEX,
                               .released_revision = seed->revision};
    struct manifest_object manifest = {.cluster_id = seed->cluster_id,
                                       .lineage = seed->lineage,
                                       .generation = 1,
                                       .term = TERM,
                                       .floor = beginning,
                                       .archive = beginning};
    uint8_t sha[SHA256_BYTES];
    t4_status status = write_base(log, seed, records, &o, error);

    if (status == T4_OK)
        status = checkpoint_put(log, &o, sha, error);
    if (status != T4_OK)
        return status;
    list_add(&manifest, &o, sha);
    return objectlog_bootstrap_as(log, &lock, &manifest, error);
}

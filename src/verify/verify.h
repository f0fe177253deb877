/*
 * verify.h - proves the state in an object store: reads everything, writes nothing.
 *
 * What is checked, in this order: the objects that belong together (`cluster`, `leader-lock`,
 * `manifest/latest`); each kept checkpoint with its runs and files; the chain of segments, in
 * archives and raw slots; what nothing reaches.  With `deep` the log is replayed, too, from
 * checkpoint to checkpoint, and compared with what they say.
 *
 * A leader may write to the store meanwhile.  What is judged is what the manifest says that is
 * read first.  An object that is missing is looked at again in the manifest of that moment: if that
 * one does not need it any more, it was removed in order (README.md).
 *
 * Threads: one caller; `parallel` threads of its own, which only read, hash and decode.  All
 * callbacks come on the caller's thread or one of those, never two at once.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef VERIFY_VERIFY_H
#define VERIFY_VERIFY_H

#include "env/env.h"
#include "object/object.h"

struct verify_options {
    struct env *env;
    struct object_store *store; /* stays the caller's */
    uint64_t timeout_ns;        /* of one request; 0: object.h's */
    uint32_t parallel;          /* requests at once, 1 to VERIFY_PARALLEL_MAX */
    bool deep;
    bool
        one_checkpoint; /* deep: only from the checkpoint of this revision on to the next */
    int64_t revision;
    const char *tmp; /* deep: folder for log that is being sorted */
    uint64_t
        part_bytes; /* deep: records of the log that are sorted in memory; 0: 32 MiB */

    void *arg;
    /* An object that is missing or wrong, in words that continue its name. */
    void (*bad)(void *arg, const char *object, const char *what);
    void (*note)(void *arg, const char *what); /* worth knowing, no damage */
    void (*progress)(void *arg, const char *phase, uint64_t done, uint64_t total);
};
#define VERIFY_PARALLEL_MAX 64

struct verify_result {
    uint64_t bad;            /* problems told */
    uint64_t objects, bytes; /* read */
    uint64_t cluster_id, lineage, term;
    uint64_t checkpoints, runs, files, records; /* that are as they must be */
    uint64_t retired; /* checkpoints that came off the list meanwhile */
    uint64_t archives, segments, skipped,
        entries;                      /* of the chain; skipped: fences, leftovers */
    uint64_t first_index, last_index; /* of the log that is kept; 0: none */
    int64_t last_revision;
    uint64_t late;                  /* puts of deposed leaders below the floor */
    uint64_t orphans, orphan_bytes; /* reached by nothing: for garbage collection */
    uint64_t unfinished, unfinished_bytes; /* ... newer than the newest checkpoint */
    uint64_t unknown;                      /* keys that t4 does not make */
    /* deep */
    uint64_t replayed; /* checkpoints that came out as they are */
    uint64_t compared; /* records */
    uint64_t final_index,
        final_keys; /* of the newest state: the newest checkpoint and the tail */
    int64_t final_revision;
    bool has_final;
};

/*
 * OK: everything was looked at, result->bad says how it is.  NOTFOUND: the store is empty, or has
 * no checkpoint of that revision; INVALID: it was moved, or an option is wrong; else the store, or the
 * folder for temporary files, does not work: nothing is proven.
 */
t4_status verify_store(const struct verify_options *options, struct verify_result *result,
                       struct error *error);

#endif

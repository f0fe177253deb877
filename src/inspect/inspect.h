/*
 * inspect.h - what a data directory holds, for people: keys, their history, differences.
 *
 * Of a directory that a server has open, or none.  Nothing is written, no lock of the server is
 * taken, nothing that it does waits for this: the engine is read through a snapshot of its own
 * process, then the log above what that snapshot holds is read from its files.  So what is shown
 * is the state at one moment of the call of inspection_open().  While it is open the engine cannot
 * use pages of older versions again: its file may grow.
 *
 * The newest entries of a log are not always committed: with an object store and synchronous
 * upload a server may still find that others have gone on without them.  They are shown;
 * inspection_facts tells from which on.
 *
 * Memory: what of the log the engine does not hold yet (inspection_options.log_bytes), and nothing
 * that grows with the database.  Threads: one.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef INSPECT_INSPECT_H
#define INSPECT_INSPECT_H

#include "env/env.h"
#include "include/t4_plugin.h"
#include "node/node.h"

struct inspection;

struct inspection_options {
    struct env *env;
    const char *data_dir;
    const struct t4_engine_ops *engine_ops; /* of the plugin; NULL: the memory engine */
    void *engine_plugin;
    const char *engine_name;
    uint64_t log_bytes; /* refuse when more of the log would have to be held; 0: 1 GiB */
};

struct inspection_facts {
    struct node_directory_view directory;
    uint64_t index, flushed; /* newest entry; what the engine holds */
    uint64_t term, generation;
    int64_t revision, compacted; /* compacted -1: never */
    uint64_t log_segments, log_bytes;
    uint64_t uncommitted_from; /* first entry that may not be committed; 0: none */
    struct t4_engine_stats engine;
    bool
        hydrating; /* the engine lacks parts of a checkpoint: nothing but facts is given */
    int64_t checkpoint_revision;
    uint64_t units, units_done;
};

/*
 * Errors: NOTFOUND (no such directory, none of t4's, no engine in it), UNSUPPORTED (an engine that
 * cannot be read so), CORRUPT (what, and where), NOSPACE (log_bytes), DENIED, IO.
 */
t4_status inspection_open(const struct inspection_options *options,
                          struct inspection **out, struct error *error);
void inspection_close(struct inspection *i);
const struct inspection_facts *inspection_facts(const struct inspection *i);

/* --- what both a directory and a server can be asked ---------------------------------------- */

/* One version of a key.  Borrowed during a call. */
struct inspected_version {
    struct t4_slice key, value;
    int64_t revision, create_revision, version, lease;
    bool deleted;
};

/* The net of all changes of a key between two revisions. */
enum change_kind {
    CHANGE_CREATED,
    CHANGE_DELETED,
    CHANGE_UPDATED,
    CHANGE_RECREATED,           /* deleted, and made again */
    CHANGE_CREATED_AND_DELETED, /* it was not there, and is not */
};
struct inspected_change {
    struct t4_slice key;
    int64_t first, last; /* revisions */
    uint64_t operations;
    bool was, is;                    /* it was there at the beginning, at the end */
    int64_t was_created, is_created; /* create revision of each */
    struct t4_slice before, after;
};
enum change_kind change_kind(const struct inspected_change *c);
const char *change_kind_name(enum change_kind k);

/*
 * Is that a revision that can be asked for?  *revision 0 (or less) becomes the current one.
 * INVALID: it is compacted, or in the future; the words are those of the caller's flag.
 */
t4_status inspect_check_revision(const char *flag, int64_t current, int64_t compacted,
                                 int64_t *revision, struct error *error);

/* Receive one; false: enough. */
typedef bool inspect_version_fn(void *arg, const struct inspected_version *v);
typedef bool inspect_change_fn(void *arg, const struct inspected_change *c);

/*
 * User keys in [lo, hi), hi.len 0: to the last.  All but facts answer UNAVAILABLE while the disk is
 * being filled from a checkpoint.
 *
 * keys: in order, as they were at `revision`, without those that were not there.
 */
t4_status inspection_keys(struct inspection *i, struct t4_slice lo, struct t4_slice hi,
                          int64_t revision, inspect_version_fn *give, void *arg,
                          struct error *error);
/*
 * The versions of one key, newest first, deletions included, down to the one in force at the
 * compacted revision.
 */
t4_status inspection_history(struct inspection *i, struct t4_slice key,
                             inspect_version_fn *give, void *arg, struct error *error);
/* What changed behind revision `from`, up to `to`, by keys in order. */
t4_status inspection_diff(struct inspection *i, struct t4_slice lo, struct t4_slice hi,
                          int64_t from, int64_t to, inspect_change_fn *give, void *arg,
                          struct error *error);
/* Everything that is stored, deletions and what compaction has not removed yet included. */
t4_status inspection_count(struct inspection *i, uint64_t *keys, uint64_t *versions,
                           struct error *error);

#endif

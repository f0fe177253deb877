/*
 * verify_int.h - what the files of this folder share.
 *
 * verify.c       the order of things; cluster, lock, manifest; what nothing reaches
 * fetch.c        requests with their retries, many at once in order, the listing
 * names.c        sets of names
 * checkpoints.c  checkpoints, and what their runs say together
 * run_check.c    a run's index and its files
 * chain.c        the rules of the chain, object by object
 * log_walk.c     the chain from place to place, through archives and raw slots
 * log_check.c    the whole chain, and what others say of it
 * replay.c       deep: from checkpoint to checkpoint along the log
 * spill.c        deep: log sorted in temporary files
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef VERIFY_VERIFY_INT_H
#define VERIFY_VERIFY_INT_H

#include "codec/codec.h"
#include "env/thread.h"
#include "fmt/archive.h"
#include "fmt/entry.h"
#include "sort/sort.h"
#include "sst/sst.h"
#include "verify/verify.h"

#define KEY_BYTES 1025 /* longest key of a store, terminated */
#define WHAT_BYTES 700
#define FILE_OBJECT_MAX (128u << 20) /* one record of the largest size, and the rest */
#define RUN_OBJECT_MAX (256u << 20)
#define MANIFEST_KEY "manifest/latest"

/* --- names.c ------------------------------------------------------------------------------ */

/* An object of sst/ or run/ by its name. */
struct name {
    uint8_t sha256[SHA256_BYTES];
    uint64_t term, index;
    uint64_t facts; /* hash of what was said of it when it was looked at */
    bool used;      /* this place of the table is */
    bool bad;
};

/* Open addressing; begins as zeros. */
struct name_set {
    struct name *at;
    size_t n, capacity;
};

/* The entry of that name, made if need be (*fresh).  Valid until the next call. */
struct name *name_set_put(struct name_set *s, const uint8_t sha256[SHA256_BYTES],
                          uint64_t term, uint64_t index, bool *fresh);
const struct name *name_set_find(const struct name_set *s,
                                 const uint8_t sha256[SHA256_BYTES], uint64_t term,
                                 uint64_t index);
void name_set_free(struct name_set *s);

/* --- what the store holds -------------------------------------------------------------------- */

enum kind { KIND_CHECKPOINT, KIND_RUN, KIND_FILE };

/* An object as it was listed. */
struct listed {
    enum kind kind;
    uint8_t sha256[SHA256_BYTES]; /* not of a checkpoint */
    uint64_t term, index, bytes;
    int64_t revision; /* of a checkpoint */
};
struct listed_archive {
    uint64_t first, last, bytes;
};

/* All keys, listed once, after the manifest was read. */
struct listing {
    struct listed *object;
    size_t n, capacity;
    struct listed_archive *archive; /* by first, the longest of equals first */
    size_t n_archives, archive_capacity;
    uint64_t *slot; /* ascending */
    size_t n_slots, slot_capacity;
    uint64_t all;
};

/* --- checkpoints ------------------------------------------------------------------------------- */

enum verdict { FINE, BAD, RETIRED };

/* A run that was looked at, for the checkpoints that share it. */
struct known_run {
    struct checkpoint_run name;
    enum verdict verdict;
    uint64_t first_index, last_index, bytes;
    int64_t last_revision, compacted;
    uint64_t min_stamp; /* of its records of space 'k'; 0: none */
    bool is_base;
};

struct kept {
    struct checkpoint_object object;
    char key[CHECKPOINT_KEY_BYTES];
    enum verdict verdict;
};

/* --- the handle ---------------------------------------------------------------------------------- */

/* A place of the chain that somebody speaks of, and what stands there. */
struct place_mark {
    uint64_t slot;
    bool reached;
    bool joined; /* hash and index are known */
    struct chain_floor place;
    uint64_t time_ms;
    int64_t revision, compacted;
    bool knows_entry, knows_compacted; /* the entry below was read */
};

struct verify {
    const struct verify_options *options;
    struct verify_result *result;
    struct mutex lock; /* of result->objects, bytes */
    struct condition wake;

    struct cluster_object cluster;
    struct manifest_object manifest; /* that is judged */
    struct manifest_object now;      /* as it was read last */
    struct lock_object leader;
    struct listing listing;
    bool is_empty; /* there is no object at all */

    struct kept *kept; /* as in manifest.checkpoint */
    struct known_run *run;
    size_t n_runs, run_capacity;
    struct name_set runs, files; /* reached */

    struct place_mark *mark; /* ascending by slot, each once */
    size_t n_marks;
    bool log_is_good;        /* nothing of the chain was missing or wrong */
    struct chain_floor tail; /* where it ends */
};

void verify_bad(struct verify *v, const char *object, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
void verify_note(struct verify *v, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
void verify_progress(struct verify *v, const char *phase, uint64_t done, uint64_t total);
/* The manifest, read again into v->now.  Damaged: the one before stays. */
t4_status verify_look_again(struct verify *v, struct error *error);

/* --- fetch.c --------------------------------------------------------------------------------------- */

/*
 * A whole object, tried a few times.  OK, NOTFOUND and CORRUPT (longer than limit) are answers,
 * anything else means that the store cannot be read.
 */
t4_status fetch_object(struct verify *v, const char *key, size_t limit,
                       struct buffer *out, struct error *error);

/* One object of many. */
struct fetched {
    size_t i;
    char key[KEY_BYTES];
    size_t limit;
    struct buffer object;
    t4_status status; /* of fetch_object(), then of look() */
    struct error error;
};

/* Objects 0 to n - 1, fetched by options.parallel threads. */
struct fetch_plan {
    size_t n;
    const char *phase; /* for the progress */
    void *arg;
    void (*name)(void *arg, struct fetched *f); /* key and limit of f->i; any thread */
    void (*look)(void *arg, struct fetched *f); /* if it came; any thread; or NULL */
    /* In order, one at a time.  Anything but OK ends it. */
    t4_status (*take)(void *arg, struct fetched *f, struct error *error);
};
t4_status fetch_all(struct verify *v, const struct fetch_plan *plan, struct error *error);

t4_status fetch_listing(struct verify *v, struct error *error);
/* The archives once more: others may be there by now. */
t4_status fetch_archives(struct verify *v, struct listing *out, struct error *error);
void listing_free(struct listing *l);

/* --- checkpoints.c, run_check.c ---------------------------------------------------------------------- */

t4_status check_checkpoints(struct verify *v, struct error *error);
/* Does the newest manifest still list checkpoint number i?  If not, it is noted as retired. */
t4_status still_listed(struct verify *v, uint32_t i, bool *listed, struct error *error);
/* Looks at a run of kept checkpoint i, or remembers what came of it.  *out is an index of v->run. */
t4_status check_run(struct verify *v, uint32_t i, const struct checkpoint_run *name,
                    size_t *out, struct error *error);

/* --- chain.c -------------------------------------------------------------------------------------------- */

typedef t4_status chain_entry_fn(void *arg, const struct entry *e, struct t4_slice bytes,
                                 struct error *error);

/* A walk along the chain. */
struct walk {
    struct verify *v;
    bool
        quiet; /* nothing is told; the first thing that is wrong ends the walk with CORRUPT */
    bool counts;           /* into the result */
    uint64_t end;          /* slot before which it ends */
    struct chain_floor at; /* next_slot: what comes; the rest: what was accepted below */
    bool joined;           /* hash and index of `at` are known */
    bool has_entry;
    uint64_t first_index; /* of the first entry that was accepted */
    uint64_t time_ms, entry_term;
    int64_t revision, compacted;
    bool knows_compacted;
    bool failed; /* something was wrong */
    chain_entry_fn *fn;
    void *arg;
    struct buffer raw;
    struct place_mark *mark; /* filled when the walk comes by */
    size_t n_marks, next_mark;
};

void walk_free(struct walk *w);
void walk_pass_marks(struct walk *w); /* at each new place */
/* Tells it, or returns CORRUPT if the walk is quiet. */
t4_status walk_wrong(struct walk *w, const char *key, struct error *error,
                     const char *format, ...) __attribute__((format(printf, 4, 5)));
/* The object of slot at.next_slot.  `key` names it in messages.  *accepted: as a data segment. */
t4_status walk_object(struct walk *w, const char *key, struct t4_slice object,
                      bool *accepted, struct error *error);
/* A slot that an archive says to pass over. */
void walk_skip(struct walk *w, uint64_t term);

/* --- log_walk.c, log_check.c ---------------------------------------------------------------------- */

/* A slot of an archive that is, or must be, in the store as a raw object, too. */
struct held {
    struct archive_slot slot;
    uint64_t first, last; /* of the archive */
};

/* What an object says of a place in the chain. */
struct claim {
    struct chain_floor place;
    char key[CHECKPOINT_KEY_BYTES];
    const struct checkpoint_object *checkpoint; /* or NULL */
};

struct log_walk {
    struct walk walk;
    struct listing newer; /* archives, listed again; or none */
    uint64_t hole;        /* a free slot that was met; UINT64_MAX: none */
    uint64_t behind;      /* fences behind it, and what may be in flight */
    uint64_t told;        /* slots below it: that they cannot be read was told */
    size_t *chosen;       /* what is fetched: indexes of the listing */
    /* of the archives as such; only if the walk is not quiet */
    struct held *held;
    size_t n_held, held_capacity;
    struct claim *claim;
    size_t n_claims, claim_capacity;
};

/* To be compared with what the walk finds at that place. */
void log_claim(struct log_walk *l, const struct chain_floor *place, const char *key,
               const struct checkpoint_object *checkpoint);
/* *at (or NULL): the first listed slot that is not below it. */
bool listing_has_slot(const struct listing *l, uint64_t slot, size_t *at);
/* From where the walk stands to its end. */
t4_status log_walk_go(struct log_walk *l, struct error *error);
void log_walk_free(struct log_walk *l);

t4_status check_log(struct verify *v, struct error *error);
/*
 * The entries between two places.  CORRUPT: it cannot be read; NOTFOUND: it was removed in order
 * meanwhile.
 */
t4_status read_log(struct verify *v, const struct chain_floor *from,
                   const struct chain_floor *to, chain_entry_fn *fn, void *arg,
                   struct error *error);

/* --- replay.c, spill.c ---------------------------------------------------------------------------------------- */

t4_status check_deep(struct verify *v, struct error *error);

struct spill;
/* A folder that is none is told before hours are spent. */
t4_status spill_check(const struct verify *v, struct error *error);
struct spill *spill_new(struct verify *v);
void spill_free(struct spill *s);
t4_status spill_entry(void *arg, const struct entry *e, struct t4_slice bytes,
                      struct error *error); /* arg: struct spill */
/* After the last entry: everything that came, in order. */
struct sst_source spill_source(struct spill *s);

/*
 * The files of something, one in memory at a time, as a source of records.
 * load: bytes of file i into *object; NOTFOUND: there are no more.
 */
struct file_walk {
    t4_status (*load)(void *arg, size_t i, struct buffer *object, struct error *error);
    void *arg;
    size_t next;
    struct buffer object;
    struct sst *sst;
    struct sst_cursor cursor;
};
struct sst_source file_walk_source(struct file_walk *w);
void file_walk_close(struct file_walk *w);

#endif

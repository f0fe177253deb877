/*
 * checkpoint_int.h - what the files of this folder share.
 *
 * checkpoint.c  the handle and its thread: what is due when, failures
 * publish.c     from a mark to a checkpoint in the manifest; which one goes when the list is full
 * survey.c      reading the log: what an interval is worth, entries for the builder
 * build.c       an interval of the log becomes runs
 * fold.c        runs become one base
 * run_write.c   sorted records become files and a run index in the store
 * run_read.c    a run, record by record
 * rebuild.c     a file that is missing or damaged, made again from the log
 * archive.c     raw slots of the chain become archives
 * collect.c     what is not reached any more; its removal
 * seed.c        a store that begins with a checkpoint
 * retire.c      which checkpoints come off the list (pure)
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef CHECKPOINT_CHECKPOINT_INT_H
#define CHECKPOINT_CHECKPOINT_INT_H

#include "checkpoint/checkpoint.h"
#include "codec/codec.h"
#include "env/thread.h"
#include "fmt/archive.h"
#include "objectlog/objectlog.h"
#include "sst/sst.h"

#define SECOND UINT64_C(1000000000)
#define BUILD_BYTES                                                                      \
    (32u << 20) /* log that is sorted at a time; part of what makes a run */
#define FOLD_RUNS 16u
#define RUNS_HIGH 48u /* within one checkpoint: folded before it is published */

/* --- what a run is written with ------------------------------------------------------------ */

/* A file by its hash, with the rest of its name. */
struct file_name {
    uint8_t sha256[SHA256_BYTES];
    uint64_t term, index;
};

/* Names in ascending order; begins as zeros. */
struct file_set {
    struct file_name *at;
    size_t n, capacity;
};

void file_set_add(struct file_set *s, const uint8_t hash[SHA256_BYTES], uint64_t term,
                  uint64_t index);
void file_set_sort(struct file_set *s); /* before it is asked */
/* NULL: not in it.  any: by hash alone. */
const struct file_name *file_set_find(const struct file_set *s,
                                      const uint8_t hash[SHA256_BYTES]);
bool file_set_has(const struct file_set *s, const uint8_t hash[SHA256_BYTES],
                  uint64_t term, uint64_t index);
void file_set_free(struct file_set *s);

/* Where new objects go. */
struct run_target {
    struct objectlog *log;
    uint64_t term, index;         /* of the checkpoint they are made for */
    const struct file_set *reuse; /* files that may be named again; NULL: none */
    struct metrics *metrics;      /* NULL: nobody counts */
    uint64_t uploaded, reused;    /* bytes, counted up */
    /* Between two files; anything but OK ends the writing.  NULL: nothing to do */
    t4_status (*between)(void *arg, struct error *error);
    void *arg;
};

/*
 * Writes the records (reduced already) as a run.  `run` says first_index to is_base, and gets the
 * files; *out is what the checkpoint says of it.  NOTFOUND: there are no records, and no run.
 */
t4_status run_write(struct run_target *t, struct sst_source *records,
                    struct run_index *run, struct checkpoint_run *out,
                    struct error *error);
/* --- reading runs: run_read.c ------------------------------------------------------------------ */

/* Begins as zeros; to be closed also after a failed open. */
struct run_reader {
    struct objectlog *log;
    struct run_index run;
    bool mends;             /* files are made again if need be */
    bool system;            /* the index's system records come behind the last file */
    size_t next, end;       /* files */
    struct buffer from, to; /* encoded keys, if limited */
    struct buffer object;
    struct sst *sst;
    struct sst_cursor cursor;
};

t4_status run_reader_open(struct run_reader *r, struct objectlog *log,
                          const struct checkpoint_run *name, bool mends,
                          struct error *error);
/* Only the internal keys from `first` to `last`, both included; no system records. */
void run_reader_limit(struct run_reader *r, struct t4_slice first, struct t4_slice last);
struct sst_source run_reader_source(struct run_reader *r);
void run_reader_close(struct run_reader *r);
/* Fetches and checks a run's index. */
t4_status run_fetch(struct objectlog *log, const struct checkpoint_run *name,
                    struct run_index *run, struct error *error);

/* --- reading the log ------------------------------------------------------------------------ */

/* What the log says after entry `index`, and what came since the newest checkpoint. */
struct survey {
    uint64_t index;
    int64_t revision, compacted;
    uint64_t time_ms, first_time_ms; /* first: of the oldest entry that was looked at */
    uint64_t bytes;
    bool worthy; /* something that a checkpoint is made for by time */
};

typedef t4_status log_entry_fn(void *arg, uint64_t index, struct t4_slice entry,
                               struct error *error);
/* Entries after + 1 to last, from the local log or else from the chain from `place` on. */
t4_status log_read(struct objectlog *log, struct wal *wal,
                   const struct chain_floor *place, uint64_t after, uint64_t last,
                   log_entry_fn *fn, void *arg, struct error *error);
log_entry_fn survey_entry; /* arg: struct survey */

/* --- building and folding ------------------------------------------------------------------- */

/* Runs of a checkpoint in the making, newest first; those that were there before at the end. */
struct run_list {
    struct checkpoint_run run[CHECKPOINT_RUNS_MAX];
    uint32_t n;
};

struct builder {
    struct run_target *target;
    struct run_list *list; /* gets the new runs at its head */
    int64_t compacted;     /* in force at the end */
    uint64_t after, last;  /* the interval */
    uint64_t part_bytes;   /* of log, then a run is complete */

    struct sst_sorter part;
    uint64_t bytes,
        part_first; /* log bytes of the part; the part begins above this entry */
    int64_t revision;
};

/* Begins with the interval (after, last]. */
void builder_begin(struct builder *b, struct run_target *target, struct run_list *list,
                   uint64_t after, uint64_t last, int64_t compacted, uint64_t part_bytes);
log_entry_fn builder_entry; /* arg: struct builder */
/* The last part.  INVALID: not all entries were given. */
t4_status builder_end(struct builder *b, struct error *error);
void builder_free(struct builder *b);

/* Do upper runs weigh so much that they are to be folded? */
bool fold_is_due(const struct checkpoint_run *run, uint32_t n, uint32_t most);
/*
 * Merges all of them (newest first) into one base.  Files that come out as they are keep their
 * names.  NOTFOUND: nothing is left of them.
 */
t4_status fold_runs(struct run_target *t, const struct checkpoint_run *runs, uint32_t n,
                    struct checkpoint_run *out, struct error *error);

/* rebuild.c: checkpoint_rebuild() with a log at hand; moves the place that it reads from. */
t4_status rebuild_file(struct objectlog *log, const struct run_index *run, size_t which,
                       struct buffer *object, struct error *error);

/* --- the list --------------------------------------------------------------------------------- */

/* Entry `i` of the list, which is `o`, becomes the newest: those above it come off. */
void list_begin_at(struct manifest_object *m, uint32_t i,
                   const struct checkpoint_object *o);
/* Puts the checkpoint at the head of the manifest's list; a full one loses one of the middle. */
void list_add(struct manifest_object *m, const struct checkpoint_object *newest,
              const uint8_t sha256[SHA256_BYTES]);
/*
 * Takes off what the window does not need: at least two stay, and of a window at most a quarter
 * goes at a time.  now_ms: time of the newest entry.  True: something changed.
 */
bool list_retire(struct manifest_object *m, uint64_t now_ms, uint64_t retention_ms);
/* The oldest on the list is as old as the window: the log below it is not needed any more. */
bool list_oldest_serves(const struct manifest_object *m, uint64_t now_ms,
                        uint64_t retention_ms);

/* --- garbage ---------------------------------------------------------------------------------- */

/* The files of a run, remembered: run indexes never change. */
struct known_run {
    struct file_name name;
    struct file_set files;
    bool needed;
    struct known_run *next;
};

struct collector {
    struct objectlog *log;
    uint64_t term; /* of the manifest that may be acted on */
    bool dry_run;
    void *arg;
    void (*removing)(void *arg, const char *key,
                     uint64_t bytes); /* NULL: nobody is told */

    struct known_run *known;
    uint64_t *slot; /* accepted ones that archives of ours hold, not deleted yet */
    size_t n_slots, slot_capacity;
    bool slots_are_known; /* wal/ was listed from the beginning in this life */

    struct gc_result result; /* counted up */
};

void collector_free(struct collector *g);
void collector_add_slots(struct collector *g, const struct archive *a);
/*
 * One round of deleting.  all_slots: wal/ is listed from the beginning.  PRECONDITION: the
 * manifest is not of our term.
 */
t4_status collect(struct collector *g, bool all_slots, struct error *error);

/* --- the handle ---------------------------------------------------------------------------------- */

struct checkpointer {
    struct checkpointer_options options;

    struct mutex lock;
    struct condition wake;
    struct checkpoint_mark mark; /* [lock] newest; index 0: none */
    uint64_t bytes;              /* [lock] of log since the newest checkpoint */
    uint64_t raw_bytes;          /* [lock] ... and above the floor */
    uint64_t first_ns;           /* [lock] when the oldest of it came; 0: there is none */
    uint64_t floor_slot;         /* [lock] as in the manifest */
    bool stop;                   /* [lock] */
    struct checkpoint_view view; /* [lock] */
    struct thread thread;
    bool started;

    /* the thread's */
    struct objectlog *log; /* [lock] to change */
    struct survey survey;  /* after the newest checkpoint */
    struct collector collector;
    uint64_t published_ns, collected_ns, listed_ns; /* 0: not yet in this life */
    uint64_t retry_ns;                              /* nothing before this */
    unsigned failures;                              /* in a row */
    bool suspect; /* something of a checkpoint was damaged: the newest one may be */
    bool dirty;   /* something may have become garbage since the last round */
    bool has_fold;
    uint32_t fold_inputs; /* that many of the last runs are in ... */
    struct checkpoint_run folded_run[CHECKPOINT_RUNS_MAX];
    bool fold_is_empty;
    struct checkpoint_run fold; /* ... this one */
};

enum work {
    WORK_OPEN = 1,
    WORK_ARCHIVE = 2,
    WORK_CHECKPOINT = 4,
    WORK_FOLD = 8,
    WORK_COLLECT = 16,
    WORK_STOP = 32
};
/* One piece of the work; the most pressing first.  The thread's. */
t4_status checkpointer_do(struct checkpointer *c, unsigned work, struct error *error);
uint64_t checkpointer_now(const struct checkpointer *c);
/* Between two files of a run.  CANCELLED: told to stop. */
t4_status checkpointer_between(void *c, struct error *error);
/* The same, and archives that are due are made: a fold may take long. */
t4_status checkpointer_between_archiving(void *c, struct error *error);

/* publish.c: the log up to the mark becomes a checkpoint. */
t4_status publish(struct checkpointer *c, const struct checkpoint_mark *mark,
                  struct error *error);
t4_status publish_survey(struct checkpointer *c, uint64_t last, struct error *error);
t4_status publish_fold(struct checkpointer *c, struct error *error);
/* The manifest, with our term and generation, after `next` was changed. */
t4_status publish_manifest(struct checkpointer *c, struct manifest_object *next,
                           struct error *error);

/*
 * A newest checkpoint that has lost its object or a run's index is of no use, and would be in every
 * later one: if an older one of the list is whole, it and what lies between go off the list, and
 * the next checkpoint is made from there.  publish.c
 */
t4_status publish_without_damaged(struct checkpointer *c, struct error *error);

/* The object of a checkpoint; *sha: its hash. */
t4_status checkpoint_put(struct objectlog *log, const struct checkpoint_object *o,
                         uint8_t sha[SHA256_BYTES], struct error *error);

/* retirement of checkpoints and of the log below them, in the manifest.  publish.c */
t4_status publish_retirement(struct checkpointer *c, struct error *error);

/* archive.c */
bool archive_is_due(struct checkpointer *c);
bool archive_is_due_locked(const struct checkpointer *c); /* [lock] */
t4_status archive_step(struct checkpointer *c, struct error *error);

#endif

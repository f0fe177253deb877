/*
 * mvcc.h - versions of keys: memtables over a storage engine, read at any revision.
 *
 * A *view* is {active memtable, frozen memtables, engine}.  Writes go into the active
 * memtable (by the commit role only); the engine thread flushes frozen ones into the engine
 * and removes what compaction allows.  Readers take a view first and the engine's snapshot
 * afterwards: a racing flush can only show a version twice, never not at all.
 *
 * A reader's own limit decides what it sees: published reads pass a stamp that is published,
 * evaluation passes STAMP_NEWEST.
 *
 * Threads: mvcc_insert() and mvcc_freeze() in the commit role; mvcc_work() in the engine
 * thread; mvcc_publish() by whoever advances the frontier, under the node's publication lock;
 * everything else from any thread.
 *
 * Invariants
 *  (1) a version is reachable by readers before its index can be published
 *  (2) newer memtables hold only newer versions of a key than older ones and the engine
 *  (3) a memtable is flushed only when its last index is committed, the oldest first; the
 *      flushed index advances only with the last slice
 *  (4) no slice of a flush or compaction splits the versions of one key, and compaction never
 *      runs between two slices of a flush (one that finds no space is given up before)
 *  (5) compaction removes only versions at or below the state at the flushed index; a
 *      tombstone goes only together with everything older of its key, and nothing while the
 *      engine is being filled from a checkpoint
 *  (6) at and above the compacted revision no version is missing, tombstones included
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef MVCC_MVCC_H
#define MVCC_MVCC_H

#include "base/metrics.h"
#include "engine/engine.h"
#include "env/env.h"
#include "fmt/record.h"

struct mvcc;
struct memtable;
struct memtable_key;
struct memtable_version;
struct mvcc_view;

struct mvcc_options {
    struct env *env;              /* clock and chance; NULL: env_posix() */
    struct engine *engine;        /* stays the caller's */
    uint64_t cluster_id, lineage; /* must match what the engine says of itself */
    uint64_t memtable_bytes;      /* freeze at this size; 16 MiB by default */
    uint32_t flush_slice;         /* versions per slice, 2,000 to 8,000 */
    uint64_t
        flush_pause_ns; /* between slices, so that the log's fdatasync does not suffer */
    struct metrics *metrics;
    /*
     * A record of the engine failed its checksum, which every read and compaction looks at.  Called
     * on the thread that has found it, which then gets CORRUPT.  NULL: nobody wants to know.
     */
    void (*damaged)(void *arg);
    void *damaged_arg;
    /*
     * The engine was opened by engine_open_reading(): another process may be writing it.  What it
     * holds is asked of each reader (mvcc_reader_state()); *state of mvcc_open() is a hint.
     */
    bool reading;
};

/* What the engine holds: everything up to log index `flushed`. */
struct mvcc_state {
    uint64_t flushed; /* 0: an empty engine */
    int64_t revision; /* the store's after that entry; 1 for an empty engine */
    uint64_t time_ms; /* of that entry */
};

/*
 * Opens over an engine.  INVALID: the engine belongs to another cluster or lineage; CORRUPT:
 * its state record is damaged; both name the way out.
 */
t4_status mvcc_open(const struct mvcc_options *options, struct mvcc **out,
                    struct mvcc_state *state, struct error *error);
void mvcc_free(struct mvcc *m); /* no reader may be left */

/* --- writing (commit role, or recovery) ---------------------------------------------------- */

/* Adds a version of ikey (fmt/record.h).  Everything is copied. */
void mvcc_insert(struct mvcc *m, struct t4_slice ikey, const struct version *v);
/*
 * Tells that all versions of entry `index` are in; freezes the active memtable when it is
 * full and takes a new one.  revision: the store's after that entry.  True: it froze one.
 */
bool mvcc_entry_done(struct mvcc *m, uint64_t index, int64_t revision, uint64_t time_ms);
/*
 * Freezes the active memtable now if it holds anything (a physical compaction wants it).  Does
 * nothing while many are frozen already: ask again when they are flushed.
 */
void mvcc_freeze(struct mvcc *m);
/* Bytes in frozen memtables: backpressure for whoever inserts. */
uint64_t mvcc_frozen_bytes(struct mvcc *m);
uint32_t mvcc_frozen_count(struct mvcc *m);
/* Bytes in all memtables, as of the newest entry.  Any thread. */
uint64_t mvcc_held_bytes(struct mvcc *m);
/*
 * Bytes of all memtables since mvcc_open(), and those of them that are flushed.  Any thread;
 * exact for the commit role, and for the engine thread, respectively.
 */
uint64_t mvcc_inserted_bytes(struct mvcc *m);
uint64_t mvcc_flushed_bytes(struct mvcc *m);

/* --- committed state --------------------------------------------------------------------- */

/*
 * Index up to which everything is committed (the flush waits for it) and the compacted
 * revision in force there.  Neither goes back.
 */
void mvcc_publish(struct mvcc *m, uint64_t index, int64_t compacted);
/* The published compacted revision: read it after mvcc_read_begin() (design, section 4). */
int64_t mvcc_compacted(struct mvcc *m);
uint64_t mvcc_flushed_index(struct mvcc *m);

/* --- reading ------------------------------------------------------------------------------ */

struct mvcc_reader {
    struct mvcc *mvcc;
    struct mvcc_view *view;
    struct t4_snap *snap;     /* the engine's, taken after the view */
    struct t4_iter *iter;     /* of the walk, opened at the first need */
    struct t4_iter *get_iter; /* of point reads, so that they do not disturb a walk */
    struct buffer scratch;    /* encoded keys */
    struct buffer key;        /* decoded keys */
    const struct memtable
        *overlay; /* newest of all, or NULL (a transaction's own writes) */
};

/* Begins a read; end it soon: a held reader keeps the engine from reusing space. */
t4_status mvcc_read_begin(struct mvcc *m, struct mvcc_reader *r);
void mvcc_read_end(struct mvcc_reader *r);

/* What the engine held when the reader began. */
t4_status mvcc_reader_state(struct mvcc_reader *r, struct mvcc_state *state,
                            struct error *error);
/* The engine's mark then (see below): appended to *out; NOTFOUND: it has none. */
t4_status mvcc_reader_mark(struct mvcc_reader *r, struct buffer *out,
                           struct error *error);

/*
 * Newest version of ikey with stamp <= `stamp`, tombstones included; NOTFOUND if there is
 * none.  The value is valid until mvcc_read_end().  IO, CORRUPT: the engine's.
 */
t4_status mvcc_get(struct mvcc_reader *r, struct t4_slice ikey, uint64_t stamp,
                   struct version *v);

/*
 * Walks keys in [lo, hi) (internal keys; hi.len 0: to the end of lo's space), each with its
 * newest version with stamp <= `stamp`; tombstones are skipped.  One walk per reader at a
 * time.
 */
#define MVCC_SOURCES_MAX 18 /* overlay, active and frozen memtables */
struct mvcc_walk {
    struct mvcc_reader *reader;
    struct t4_slice hi; /* borrowed */
    uint64_t stamp;
    const struct memtable_key
        *source[MVCC_SOURCES_MAX]; /* current key of each, newest first */
    uint32_t sources;
    struct t4_slice engine_ikey; /* current record of the engine; data NULL: at its end */
    struct t4_slice engine_key, engine_value; /* encoded; of the record it stands on */
    uint64_t engine_stamp;
    struct t4_slice ikey;  /* the current key; data NULL: not begun */
    struct buffer current; /* its bytes, when it came from the engine */
    uint32_t on;           /* a bit for each source that stands on it */
    bool engine_on;        /* so does the engine */
    uint32_t keys_to_seek; /* so many keys the engine passes by a seek at once */
    t4_status failed;
};
void mvcc_walk_begin(struct mvcc_walk *w, struct mvcc_reader *r, struct t4_slice lo,
                     struct t4_slice hi, uint64_t stamp);
/*
 * NOTFOUND at the end.  *ikey is valid until the next call, the value until mvcc_read_end().
 */
t4_status mvcc_walk_next(struct mvcc_walk *w, struct t4_slice *ikey, struct version *v);
void mvcc_walk_end(struct mvcc_walk *w);

/*
 * Scans all versions of user keys (space 'k') in [lo, hi), hi as above: keys ascending, of each
 * the versions with from <= stamp <= to, newest first, tombstones included, none twice.  It
 * begins at the versions of lo at or below lo_stamp (STAMP_NEWEST: all), so a scan can be left
 * anywhere (mvcc_scan_position()) and taken up by another reader.
 *
 * Nothing is missing if the engine is complete (mvcc_is_complete()) and mvcc_compacted(), read
 * after mvcc_read_begin(), is not above `from`.  One scan or walk per reader at a time.
 */
struct mvcc_scan {
    struct mvcc_walk walk; /* its sources */
    uint64_t from, to;     /* `to` may be lowered at any time */
    struct t4_slice lo;    /* borrowed */
    uint64_t lo_stamp;
    uint64_t below; /* what is left of the current key has stamps up to here */
    uint32_t left;  /* a bit for each source that is still to be looked into for it */
    const struct memtable_version *version; /* where the source before them stands */
};
void mvcc_scan_begin(struct mvcc_scan *s, struct mvcc_reader *r, struct t4_slice lo,
                     uint64_t lo_stamp, struct t4_slice hi, uint64_t from, uint64_t to);
/*
 * The next key, also one without a version in the range of stamps: each call takes a few steps,
 * so whoever calls can stop in time.  NOTFOUND at the end.  *ikey is valid until the next call.
 */
t4_status mvcc_scan_key(struct mvcc_scan *s, struct t4_slice *ikey);
/* The key's next version; NOTFOUND: no more.  The value is valid until mvcc_read_end(). */
t4_status mvcc_scan_version(struct mvcc_scan *s, struct version *v);
/* Where a scan goes on that begins with these as lo (written to *lo) and lo_stamp. */
void mvcc_scan_position(const struct mvcc_scan *s, struct buffer *lo, uint64_t *lo_stamp);
void mvcc_scan_end(struct mvcc_scan *s);

/* --- the engine thread -------------------------------------------------------------------- */

/*
 * Asks for physical compaction up to `revision` (committed); mvcc_work() does it when the
 * flushed state allows.
 */
void mvcc_compact(struct mvcc *m, int64_t revision);
/* Revision up to which compaction has been done physically. */
int64_t mvcc_compacted_physically(struct mvcc *m);

/*
 * Does one slice of flush or compaction if there is something to do.  OK: did something, call
 * again; NOTFOUND: nothing to do now; NOSPACE: the engine is full, try later; anything else:
 * the engine failed, *error says how.  `pause_ns`: how long to wait before the next slice.
 */
t4_status mvcc_work(struct mvcc *m, uint64_t *pause_ns, struct error *error);
bool mvcc_has_work(struct mvcc *m);
/* Between two slices of a flush.  [engine thread, or while it does not run] */
bool mvcc_is_flushing(const struct mvcc *m);
/* The last try to flush found no space (compactions may have succeeded since). */
bool mvcc_flush_is_stuck(const struct mvcc *m);

/* --- an engine that is filled from a checkpoint --------------------------------------------- */

/*
 * While it is: what the engine lacks is missing in ranges that somebody else knows of (hydrate/),
 * who asks nobody to read there.  Flush goes on; compaction waits.  What was installed is known
 * by a *mark*, one record of that somebody's, written together with the last slice of a piece.
 */
enum mvcc_mark { MVCC_MARK_KEEP, MVCC_MARK_PUT, MVCC_MARK_DELETE };

/* Records on their way into the engine.  The caller's until handed over, and again in done(). */
struct mvcc_piece {
    struct buffer records; /* mvcc_piece_add() */
    /* Asked by the engine thread just before the last slice is written: the mark from then on. */
    enum mvcc_mark (*mark)(struct mvcc_piece *p, struct buffer *value);
    /* All of it is in the engine.  On the engine thread, with no lock held. */
    void (*done)(struct mvcc_piece *p);
    size_t position; /* the rest is mvcc's */
    struct mvcc_piece *next;
};
/* Records must come in ascending order; a key's versions must not be parted among pieces. */
void mvcc_piece_add(struct mvcc_piece *p, struct t4_slice key, struct t4_slice value);

/*
 * Makes a new, empty engine one that holds the log up to state->flushed, with these records and
 * mark.  Before anything else is done with m.  A crash leaves an engine that says it is empty:
 * drop it.
 */
t4_status mvcc_seed(struct mvcc *m, const struct mvcc_state *state,
                    const struct mvcc_piece *records, struct t4_slice mark,
                    struct error *error);
/* The engine's mark: appended to *out; NOTFOUND: it has none, it is complete. */
t4_status mvcc_read_mark(struct mvcc *m, struct buffer *out, struct error *error);
/*
 * The engine is not complete.  holds(): is this key in a range that was installed?  Called on
 * the engine thread.  Before that thread runs.
 */
void mvcc_hydrate(struct mvcc *m, bool (*holds)(void *arg, struct t4_slice ikey),
                  void *arg);
/* It is complete now.  Engine thread, from a piece's done(). */
void mvcc_hydrated(struct mvcc *m);
/* The engine lacks nothing.  Once true it stays so.  Any thread. */
bool mvcc_is_complete(struct mvcc *m);
/* Queues a piece for mvcc_work(); any thread.  Wake the engine thread afterwards. */
void mvcc_install(struct mvcc *m, struct mvcc_piece *p);
/*
 * Writers wait for the log's disk: pieces go in small slices, each synced, with a pause behind
 * it, as a flush does.  False, as at first: nobody does, and they go as fast as they can.  Any thread.
 */
void mvcc_install_gently(struct mvcc *m, bool gently);
/* Takes back what is queued and not begun; for stopping, when the engine thread has ended. */
struct mvcc_piece *mvcc_take_pieces(struct mvcc *m);

/* --- a memtable on its own (a transaction's overlay) --------------------------------------- */

struct memtable *memtable_new(uint64_t bytes_hint, uint64_t hash_seed);
void memtable_delete(struct memtable *t);
void memtable_reset(struct memtable *t); /* empty again; keeps its memory */
void memtable_insert(struct memtable *t, struct t4_slice ikey, const struct version *v);
uint64_t memtable_bytes(const struct memtable *t);
bool memtable_get(const struct memtable *t, struct t4_slice ikey, uint64_t stamp,
                  struct version *v);

#endif

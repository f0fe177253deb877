/*
 * wal.h - the local write-ahead log: segments, frames, recovery, reading back.
 *
 * The log is the truth; everything else is derived from it.  Entries are appended in
 * groups: the caller fills a struct wal_group, then one thread writes and syncs it.
 * Format of the bytes: top of frame.c.
 *
 * Threads: wal_group_* by the owner of the group; wal_write(), wal_sync(), wal_mark() by
 * one thread at a time (the sync thread); wal_prepare() by one other thread (it creates
 * the segment ahead of need); wal_reader_* by any thread, each reader by one at a time.
 *
 * Invariants (design I2-I4)
 *  (1) a frame is acknowledged only after a datasync of its segment that began after its
 *      write returned OK
 *  (2) after a failed sync, or an I/O error of a write, the log is dead: every later call
 *      that writes returns T4_E_IO and the process must stop
 *  (3) NOSPACE leaves nothing unknown: the group was not written, the log stays usable
 *  (4) nothing is cut in place: a new segment's first frame says at which index the log
 *      before it ends
 *  (5) recovery reads and checks every frame it relies on before it creates or writes a
 *      file
 *  (6) a bad frame at or below the largest synced_through seen is corruption: refuse and
 *      name file and offset; above it, it is a torn tail together with all behind it
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef WAL_WAL_H
#define WAL_WAL_H

#include "base/buffer.h"
#include "base/metrics.h"
#include "env/env.h"

struct wal;
struct wal_reader;

struct wal_options {
    struct env *env;
    const char *dir;     /* created if need be */
    uint64_t cluster_id; /* must match what the segments say, else INVALID */
    uint64_t lineage;
    uint64_t segment_bytes; /* size of a preallocated segment, 64 KiB to 1 GiB */
    uint64_t reserve_bytes; /* size of the reserve file; 0: none.  See wal_nospace(). */
    /*
     * The log need not begin at flushed + 1: what is missing is elsewhere.  Where it does begin
     * stands in wal_recovered.
     */
    bool begins_anywhere;
    struct metrics *metrics; /* may be NULL */
};

/* Called for each entry above `flushed` in order of index; a failure stops recovery. */
typedef t4_status wal_replay_fn(void *arg, uint64_t index, struct t4_slice entry,
                                struct error *error);

struct wal_recovered {
    uint64_t last_index; /* 0: the log is empty */
    uint64_t
        begins; /* with begins_anywhere: first index that is there, above flushed + 1; else 0 */
    uint64_t last_term;       /* largest term in any frame; 0: none */
    uint64_t generation;      /* of the newest start frame */
    int64_t last_revision;    /* of the newest entry; 0: none or not known */
    uint64_t object_frontier; /* highest in any frame */
    bool torn;                /* a torn tail was found (and is left behind) */
};

/*
 * Opens the log and recovers: checks all frames from the segment that holds `flushed` on,
 * syncs them (a kill -9 leaves frames that only the page cache holds, and from now on the
 * engine and clients may be shown them), then replays those above `flushed` (replay NULL: the
 * caller does so by wal_replay()).  Creates and writes no file.  A missing directory is an
 * empty log.
 *
 * recovered->last_index below `flushed` means that the log ends before what the engine
 * holds: the caller decides whether to go on; wal_start() then begins at flushed + 1.
 *
 * Errors: CORRUPT (file, offset, what can be done), INVALID (options; other cluster or
 * lineage), UNSUPPORTED (format of a newer version), IO, and replay's own.
 */
t4_status wal_open(const struct wal_options *options, uint64_t flushed,
                   wal_replay_fn *replay, void *arg, struct wal **out,
                   struct wal_recovered *recovered, struct error *error);

/*
 * Between wal_open() and wal_start(): the log ends at `index` (at least `flushed`, at most
 * last_index).  What stands behind stays in the files; the start frame of the segment that
 * wal_start() begins declares it void.
 */
t4_status wal_cut(struct wal *w, uint64_t index, struct error *error);
/*
 * Between wal_open() and wal_start(): the log goes on above `index`, which is above its end:
 * what lies between is elsewhere (a checkpoint).  From then on wal_open() must be told a
 * `flushed` of at least `index`.
 */
void wal_skip(struct wal *w, uint64_t index);
/*
 * Replays entries after+1 to last (written ones) with `replay`, through a reader.  Any thread.
 */
t4_status wal_replay(struct wal *w, uint64_t after, uint64_t last, wal_replay_fn *replay,
                     void *arg, struct error *error);
/* Index of the newest entry written (after wal_open(): found).  Any thread. */
uint64_t wal_last_index(struct wal *w);
/* From now on frames say that the object chain holds everything up to `index`.  Any thread. */
void wal_set_object_frontier(struct wal *w, uint64_t index);

/*
 * Makes the log ready for appending: continues the last segment if everything behind its
 * last frame is zero, else begins a new one; writes and syncs a start frame with the
 * generation and the term.  The next index is max(last_index, flushed as given to
 * wal_open()) + 1.  NOSPACE: may be called again.
 */
t4_status wal_start(struct wal *w, uint64_t generation, uint64_t term,
                    struct error *error);

void wal_close(struct wal *w);

/* A group of entries on its way to the disk. */
struct wal_group {
    struct buffer frames;             /* frames without checksum and marks */
    uint64_t first_index, last_index; /* last_index 0: empty */
    int64_t first_revision;           /* revision of the first entry */
    uint32_t entries;
};

/* Adds an encoded entry (fmt/entry.h).  Indexes must be consecutive. */
void wal_group_add(struct wal_group *g, uint64_t index, int64_t revision,
                   struct t4_slice entry);
void wal_group_clear(struct wal_group *g);
void wal_group_free(struct wal_group *g);
/* Bytes that an entry of n bytes takes in the log. */
size_t wal_frame_size(size_t n);

/*
 * Promises that `bytes` of frames (sums of wal_frame_size()) more than what was promised
 * and not yet written will find room: in the current segment or the prepared one, or, as
 * long as the disk is not full, in one that wal_write() creates.  Called before
 * evaluation; NOSPACE: the caller must refuse the write.  While wal_nospace() only
 * `urgent` requests (deletes, compactions) get a promise, and only while there is room in
 * segments that exist.  What was promised and is not going to be written is given back by
 * wal_release(); wal_write() takes the length of what it writes off the promises.  Any
 * thread.
 */
t4_status wal_reserve(struct wal *w, size_t bytes, bool urgent);
void wal_release(struct wal *w, size_t bytes);

/*
 * True from when the next segment could not be created for lack of space until both it
 * and the reserve file are there again.  The reserve file (`<dir>/reserve`, filled) is
 * given up when the state begins, so that log and engine have room for deletes and
 * compactions, and taken back before it ends.  While true, call wal_prepare() again from
 * time to time.  Any thread.
 */
bool wal_nospace(struct wal *w);
/* Begins that state: somebody else found the disk full and needs the reserve's room. */
void wal_give_up_reserve(struct wal *w);

/*
 * Writes the group, rolling to the next segment where needed.  Does not sync.  NOSPACE:
 * nothing of it is in the log; it may be written again, or dropped.  INVALID: its first
 * index does not follow the last one.
 */
t4_status wal_write(struct wal *w, struct wal_group *g, struct error *error);
/* Makes everything written durable; *synced is the last index that is. */
t4_status wal_sync(struct wal *w, uint64_t *synced, struct error *error);
/*
 * Syncs, then writes and syncs an empty frame with the final synced_through (shutdown, a
 * quiet second).  Does nothing if the newest frame is such a one.
 */
t4_status wal_mark(struct wal *w, struct error *error);
/* Begins a new segment at the next write (age of a segment).  Any thread. */
void wal_roll(struct wal *w);

/*
 * True if a segment or the reserve file has to be created ahead (any thread);
 * wal_prepare() then creates, fills and syncs them.  NOSPACE: see wal_nospace().
 */
bool wal_wants_segment(struct wal *w);
t4_status wal_prepare(struct wal *w, struct error *error);

uint64_t wal_segments(struct wal *w); /* files */

/*
 * Deletes the oldest segments as far as they hold nothing above `index`, no open reader stands
 * in or before them, and keep_bytes of segments are left.  `index` must not be above what the
 * engine has flushed, nor above what a checkpoint holds: entries at or below it are not read
 * again by recovery.  IO: the rest is kept.  Any one thread at a time.
 */
t4_status wal_drop_below(struct wal *w, uint64_t index, uint64_t keep_bytes,
                         struct error *error);

/*
 * Reads entries back.  Positions at the first entry with revision >= `revision` (entries
 * that do not change the revision included from there on).  NOTFOUND: the log begins
 * above it, or has a gap above it (a start at flushed + 1).
 */
t4_status wal_reader_open(struct wal *w, int64_t revision, struct wal_reader **out,
                          struct error *error);
/*
 * The same by index: at entry `index`, which need not be written yet.  NOTFOUND: the log begins
 * above it.
 */
t4_status wal_reader_open_at(struct wal *w, uint64_t index, struct wal_reader **out,
                             struct error *error);
/*
 * Next entry with index <= `limit` (which the caller knows to be committed).  The slice
 * is valid until the next call.  NOTFOUND (without a text): no such entry yet; call again
 * with a higher limit.  CORRUPT: names file and offset.
 */
t4_status wal_reader_next(struct wal_reader *r, uint64_t limit, uint64_t *index,
                          struct t4_slice *entry, struct error *error);
void wal_reader_close(struct wal_reader *r);

/*
 * What there is to say of a log besides its entries.  damage: something that was durable cannot
 * be read.  Else: a torn tail, or entries that never were in this log.
 */
typedef void wal_remark_fn(void *arg, bool damage, const struct error *what);

struct wal_inspection {
    uint64_t first_index, last_index; /* of the entries that can be read; 0: none */
    uint64_t damaged;                 /* remarks with `damage` */
    uint64_t segments, bytes;         /* files, and their size */
    uint64_t object_frontier;         /* highest in any frame that was read */
    uint64_t generation, term;        /* of the newest start frame that was read */
};

/*
 * Shows the log in `dir` to a person, whatever state it is in: entries `from` to `to`, in order,
 * of any cluster.  Damage is remarked and what can be read behind it is given all the same; a torn
 * tail is not.  All remarks but those of a disk that begins to fail come before the first entry.
 * Opens files for reading only, creates, locks and syncs nothing, and may run beside the server
 * that writes the log: it then shows the log as it was at some moment of the call.
 *
 * Errors: NOTFOUND: there is no such directory; IO: it cannot be listed; and take's own.
 */
t4_status wal_inspect(struct env *env, const char *dir, uint64_t from, uint64_t to,
                      wal_replay_fn *take, wal_remark_fn *remark, void *arg,
                      struct wal_inspection *found, struct error *error);

/*
 * As wal_inspect() of entries above `above`, for who has what is below from elsewhere: segments
 * that hold nothing above it are not read, and nothing is said of them.
 */
t4_status wal_inspect_above(struct env *env, const char *dir, uint64_t above,
                            wal_replay_fn *take, wal_remark_fn *remark, void *arg,
                            struct wal_inspection *found, struct error *error);

#endif

/*
 * objectlog.h - the log in the object store: one sequence of slots shared by all terms.
 *
 * Who holds the lock leads; what makes its predecessors harmless is not the lock but the
 * *fence*: an empty object of the new term in the first free slot, after the new term stands
 * in the manifest.  From then on nothing an older leader puts can be read as part of the log.
 * The protocol is that of design section 6; the code names the lines of contrib/models it
 * implements.
 *
 * Threads: one thread at a time per struct objectlog (the opener, then the uploader);
 * objectlog_stop() and objectlog_append_is_decided() from any.  Segments in flight are put by
 * up to options.window threads of its own, "t4-chain", started when they are first needed and
 * ended by objectlog_close(); they call env, the store, and the callbacks that say so.
 *
 * Invariants
 *  (1) an ambiguous answer is never guessed: the same bytes are sent again until the store
 *      says stored, or the condition is lost and a readable object's put id decides (I7)
 *  (2) a slot has two outcomes for a leader: stored, or deposed; everything else is retried
 *  (3) segments go to slots in order; a slot that a lower term filled is passed over, the
 *      segment goes to the next one
 *  (4) nothing behind a missing slot is used; a missing slot is the tail only if a manifest
 *      read after the miss has its floor at or below it
 *  (5) the manifest is read again after the fence: it must still carry our term
 *  (6) a segment is sent beside an earlier one only if that one cannot be moved any more: it is
 *      in a slot that no object of a lower term can get into (chain.pml: `settled`), since the
 *      later one carries its hash
 *  (7) segments are reported as stored in the order of their slots, none behind one that is not
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef OBJECTLOG_OBJECTLOG_H
#define OBJECTLOG_OBJECTLOG_H

#include "env/env.h"
#include "fmt/segment.h"
#include "object/object.h"

struct objectlog;

struct objectlog_options {
    struct env *env;
    struct object_store *store; /* stays the caller's */
    uint64_t incarnation;       /* of this data directory */
    const char *address;        /* where clients reach this server */
    uint64_t lease_ms;          /* leadership lease to write into the lock; 0: none */
    uint64_t timeout_ns;        /* of one request */
    uint64_t first_pause_ns;    /* before the second try, then doubled; 0: 50 ms */
    bool accept_moved;          /* opens a store that is marked as moving or moved, too */
    bool restoring;  /* ... or that a restore has begun: `restoring` is the caller's */
    uint32_t window; /* segments in flight at most, up to WINDOW_MAX; 0: 1 */
    void *arg;       /* of the callbacks; both come on any thread: */
    /* At each failure, with the reason, and when the store answers again (NULL). */
    void (*degraded)(void *arg, const char *why);
    /* The oldest segment in flight was decided just now; may be NULL.  No lock is held. */
    void (*decided)(void *arg);
};

/* What stands in the store. */
enum objectlog_found {
    OBJECTLOG_EMPTY,      /* nothing at all: objectlog_bootstrap() */
    OBJECTLOG_UNFINISHED, /* a lock, but no `cluster`: a bootstrap was interrupted */
    OBJECTLOG_COMPLETE
};

/*
 * Reads `cluster`, the lock and the manifest.  CORRUPT: a prefix that can be neither empty nor
 * ours - `cluster` without lock or manifest, objects without a lock, damaged objects: the
 * error names which.  INVALID: the store was moved or is being moved (names where), or an
 * unfinished move or restore is to bring something here (names what).
 */
t4_status objectlog_open(const struct objectlog_options *options, struct objectlog **out,
                         enum objectlog_found *found, struct error *error);
/* Waits for requests that are under way (timeout_ns at most; object_cancel() ends them). */
void objectlog_close(struct objectlog *c);
/*
 * For who restores, which gave options.restoring: as objectlog_bootstrap(), but lock and manifest
 * are these (counter and put id are filled in), and whoever holds the lock is lock->holder.
 */
t4_status objectlog_bootstrap_as(struct objectlog *c, const struct lock_object *lock,
                                 const struct manifest_object *manifest,
                                 struct error *error);
/* As they were last read or written. */
const struct lock_object *objectlog_lock(const struct objectlog *c);
const struct manifest_object *objectlog_manifest(const struct objectlog *c);

/* Makes every wait and retry end with CANCELLED; any thread. */
void objectlog_stop(struct objectlog *c);

/*
 * Lock -> manifest -> cluster, each create-only, the first two with term 1 and this
 * incarnation as holder.  Resumes one of our own; PRECONDITION: somebody else was faster.
 */
t4_status objectlog_bootstrap(struct objectlog *c, uint64_t cluster_id, uint64_t lineage,
                              enum commit_rule rule, struct error *error);

/*
 * Takes the next term: CAS of the lock, CAS of the manifest, fence, second look at the
 * manifest.  Whether it may be taken (lease waited for, released, own directory, told to) is
 * the caller's to know.  Rule and released mark are kept as read.  PRECONDITION: somebody
 * else is ahead; the lock has been read again.  *term: at least this (0: the next one), then
 * the new one.
 */
t4_status objectlog_take_over(struct objectlog *c, uint64_t *term, struct error *error);

/* One entry of the chain, in order of index, from the place's last index + 1 on. */
typedef t4_status objectlog_entry_fn(void *arg, uint64_t index, struct t4_slice entry,
                                     const struct segment *segment, struct error *error);
struct objectlog_tail {
    uint64_t next_slot, last_index, term; /* term: highest seen */
    uint8_t hash[HASH_BYTES];
    uint64_t segments, ignored; /* data segments accepted, objects passed over */
    /* Behind the last accepted data segment stands a fence of another data directory. */
    bool foreign_fence;
};
/*
 * Begins the next objectlog_read() at a place that was read up to before, or that a checkpoint
 * names; without it, or with zeros, it begins with the first entry.  Below the manifest's floor
 * the archives are read.
 */
void objectlog_begin_at(struct objectlog *c, const struct chain_floor *place);
/* Where the chain ends after objectlog_read() and each objectlog_append_wait(). */
void objectlog_place(const struct objectlog *c, struct chain_floor *place);
/* Reads the lock again: has anybody taken it?  NOTFOUND: it is gone (nobody may do that). */
t4_status objectlog_look_at_lock(struct objectlog *c, struct error *error);
/*
 * Reads all accepted segments up to the tail.  Afterwards a chain that was taken over goes on
 * at that tail.  CORRUPT names the slot.  INVALID: the log below a kept checkpoint is gone, and the
 * place lies there.
 */
t4_status objectlog_read(struct objectlog *c, objectlog_entry_fn *fn, void *arg,
                         struct objectlog_tail *tail, struct error *error);

/* May another segment be sent now?  Always, if none is in flight. */
bool objectlog_append_fits(struct objectlog *c);
/*
 * Sends a segment of entries that fits: `raw` as segment_entry_append() made it (copied),
 * indexes first to last, first = the last index sent or read + 1.
 */
t4_status objectlog_append_begin(struct objectlog *c, uint64_t first, uint64_t last,
                                 uint64_t committed, struct t4_slice raw,
                                 struct error *error);
/* Will objectlog_append_wait() return at once? */
bool objectlog_append_is_decided(struct objectlog *c);
/*
 * Waits until the oldest segment in flight is stored, and gives its last index; INVALID: there
 * is none.  Or: PRECONDITION - a higher term is there, this leader is deposed and must not
 * acknowledge anything more; CANCELLED - objectlog_stop().  After any of these what is still in
 * flight is given up (it may yet be stored), and nothing can be appended any more.
 */
t4_status objectlog_append_wait(struct objectlog *c, uint64_t *last, struct error *error);
/* Both, for who has nothing in flight and wants one segment stored. */
t4_status objectlog_append(struct objectlog *c, uint64_t first, uint64_t last,
                           uint64_t committed, struct t4_slice raw, struct error *error);

/*
 * The manifest, read again; and its CAS by the leader of `term`, *next being what was read with
 * changes.  PRECONDITION: another term stands in it (this leader is deposed), or somebody was
 * faster: objectlog_manifest() shows what is there.  Needs no take-over on this handle: the
 * checkpointer has one of its own, and nobody else of its server writes the manifest while it
 * runs.
 */
t4_status objectlog_refresh_manifest(struct objectlog *c, struct error *error);
t4_status objectlog_write_manifest(struct objectlog *c, uint64_t term,
                                   const struct manifest_object *next,
                                   struct error *error);

/*
 * Makes the archive of the raw slots from the manifest's floor on: at most `slots` of them or
 * ARCHIVE_TARGET bytes, never at or above newest->next_slot, ended by an accepted segment.  It is
 * put, read back and compared; naming it (the floor becomes a->end) is the caller's next manifest.
 * An archive of that name that is there already is taken if it is the same, else the next longer or
 * shorter stretch is.  NOTFOUND: no accepted segment lies there.
 */
struct archive;
t4_status objectlog_archive(struct objectlog *c, const struct chain_floor *newest,
                            uint64_t slots, struct archive *a, uint64_t *bytes,
                            struct error *error);

/*
 * Objects that are written once (tried a few times; an ambiguous answer until it is decided).
 * fetch: NOTFOUND is an answer.  create: OK also if the very same bytes are there; EXISTS: others
 * are.  walk: every key with the prefix above `after`, once each and in order; only OK means that
 * all were given.  remove: an absent object is fine.  replace: over whatever is there; only for
 * an object that has these bytes' hash in its key, so that any other bytes under it are damaged.
 */
t4_status objectlog_fetch(struct objectlog *c, const char *key, size_t limit,
                          struct buffer *out, struct error *error);
/* A checkpoint that the manifest lists.  CORRUPT: it is not there, or not the one that is listed. */
t4_status objectlog_fetch_checkpoint(struct objectlog *c,
                                     const struct checkpoint_name *name,
                                     struct checkpoint_object *out, struct error *error);
t4_status objectlog_create(struct objectlog *c, const char *key, struct t4_slice body,
                           struct error *error);
t4_status objectlog_replace(struct objectlog *c, const char *key, struct t4_slice body,
                            struct error *error);
t4_status objectlog_walk(struct objectlog *c, const char *prefix, const char *after,
                         t4_list_fn *fn, void *arg, struct error *error);
t4_status objectlog_remove(struct objectlog *c, const struct t4_slice *keys, size_t n,
                           struct error *error);

/*
 * CAS of the lock by its holder.  renew: only the counter grows (a lease renewal); `lease_ms`
 * 0 gives the lease back.  release: everything acknowledged is in the chain up to here.
 * PRECONDITION: deposed.
 */
t4_status objectlog_renew(struct objectlog *c, uint64_t lease_ms, struct error *error);
t4_status objectlog_change_rule(struct objectlog *c, enum commit_rule rule,
                                struct error *error);
t4_status objectlog_release(struct objectlog *c, uint64_t last_index,
                            int64_t last_revision, struct error *error);
/*
 * CAS of the lock by who does not hold it: `t4 store move`.  *next is what was read with changes
 * (counter and put id are filled in).  PRECONDITION: somebody was faster; objectlog_lock()
 * shows what is there.
 */
t4_status objectlog_write_lock(struct objectlog *c, const struct lock_object *next,
                               struct error *error);

#endif

/*
 * txn.h - the state machine: checks a request, reads, and turns it into effects.
 *
 * Evaluation is deterministic: it looks at the newest state (a struct mvcc_reader over
 * everything evaluated so far, durable or not), at its arguments, and at nothing else.  It
 * collects the effects in a struct txn; applying them (log entry, memtable) is the caller's
 * work (node/commit).  Responses are encoded as they arise.
 *
 * txn_validate_*() are pure and run on API threads before the queue, in etcd's order of
 * checks.  Evaluation runs in the commit role.  range_read() runs anywhere.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef TXN_TXN_H
#define TXN_TXN_H

#include "base/buffer.h"
#include "fmt/entry.h"
#include "mvcc/mvcc.h"
#include "txn/request.h"
#include "wire/encode.h"
#include "wire/etcd_error.h"

/* --- checks that need no state ------------------------------------------------------ */

enum etcd_error txn_validate_range(const struct range_request *r);
enum etcd_error txn_validate_put(const struct put_request *r);
enum etcd_error txn_validate_delete_range(const struct delete_range_request *r);
/* max_ops: etcd's --max-txn-ops; nested levels share what the parent left. */
enum etcd_error txn_validate_txn(const struct txn_request *r, uint32_t max_ops);
/* True if nothing in it (both branches, nested ones included) can write. */
bool txn_is_read_only(const struct txn_request *r);
/* True if it is read-only and all its ranges are serializable. */
bool txn_is_serializable(const struct txn_request *r);
/* True if there is a transaction in it. */
bool txn_is_nested(const struct txn_request *r);
/* True if it contains a put anywhere, taken or not (refused under NOSPACE). */
bool txn_has_put(const struct txn_request *r);
/* True if it reads or deletes a range (may take long: evaluated on a worker). */
bool txn_is_heavy(const struct txn_request *r);

/* --- reads -------------------------------------------------------------------------- */

/*
 * Appends a whole RangeResponse to `out`: `header` with the given header's fields, kvs, more,
 * count, in etcd's order of processing.  Reads at r->revision, or at `latest` if it is <= 0.
 * `max_keys` > 0: gives up with *too_long = true and an empty chain once more than that many
 * keys were looked at (so that a polling thread can hand the request to a worker); too_long
 * may be NULL when it is 0.  `out` is empty at the start and on errors.
 * Errors: FUTURE_REVISION; COMPACTED, by mvcc_compacted(), which is read here, after the
 * reader's snapshot; READ_FAILED.  COMPACTED for a read at `latest` means that a compaction
 * overtook the reader: take a newer `latest`, then a new reader, and try again.
 */
enum etcd_error range_read(struct mvcc_reader *reader, const struct range_request *r,
                           int64_t latest, const struct response_header *header,
                           uint32_t max_keys, bool *too_long, struct chain *out);

/*
 * A range read in chunks, without a sort and without filters.  Made by the caller as
 * {.revision = where to read}, and handed from call to call; the last field is to be freed.
 */
struct range_progress {
    int64_t revision;
    int64_t given;      /* keys written to chunks */
    int64_t count;      /* keys seen */
    bool more, done;    /* done: nothing is left to be read; more: beyond the limit */
    struct buffer next; /* empty, or the key to go on at */
};
/*
 * Appends RangeResponse.kvs to `out`, which is empty, until it holds max_bytes or max_keys were
 * seen.  COMPACTED, READ_FAILED as range_read(); `out` is empty then.
 */
enum etcd_error range_read_chunk(struct mvcc_reader *reader,
                                 const struct range_request *r, size_t max_bytes,
                                 uint32_t max_keys, struct range_progress *p,
                                 struct chain *out);

/* --- evaluation --------------------------------------------------------------------- */

/* What evaluation asks of its owner: is there such a lease?  (Its own thread.) */
struct txn_leases {
    bool (*exists)(void *arg, int64_t lease);
    void *arg;
};

/* Reusable workspace of the commit role. */
struct txn;
struct txn *txn_new(uint64_t hash_seed);
void txn_delete(struct txn *t);

/*
 * Begins: forgets what was there.  `reader` sees everything evaluated before; `revision` is
 * the newest evaluated revision, `compacted` the newest evaluated compacted revision; header
 * is that of the response except for its revision, which the evaluation sets.  Keys are read
 * at `revision`, so a read-only txn may also be evaluated at a published revision, on any
 * thread, with a struct txn of its own.
 */
void txn_begin(struct txn *t, struct mvcc_reader *reader, const struct txn_leases *leases,
               int64_t revision, int64_t compacted, const struct response_header *header);

/*
 * Each evaluates a validated request and appends the whole response message to `out`.  On an
 * error nothing of the request has an effect and `out` is empty.
 */
enum etcd_error txn_put(struct txn *t, const struct put_request *r, struct chain *out);
enum etcd_error txn_delete_range(struct txn *t, const struct delete_range_request *r,
                                 struct chain *out);
enum etcd_error txn_txn(struct txn *t, const struct txn_request *r, struct chain *out);
/*
 * Deletes all keys attached to the lease, in key order, as one revision (its record in space
 * 's' is the caller's business).  No response.
 */
enum etcd_error txn_revoke(struct txn *t, int64_t lease);

/*
 * The effects: at most one mutation per (space, key), in order of the last write, attachments
 * ('l') after the keys.  The array and its bytes are valid until the next txn_begin(), those
 * that came with the request as long as the request.
 * *wrote: the request consumes a revision (it put or deleted a key, even if nothing of it is
 * left, which makes an entry without mutations).  After an error: none, and false.
 */
const struct mutation *txn_mutations(struct txn *t, size_t *n, bool *wrote);

#endif

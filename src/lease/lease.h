/*
 * lease.h - the leases alive: time to live, expiry, what was logged of them.
 *
 * The table belongs to the commit role: it is evaluation state, like the newest revision, and
 * has no lock.  Grants and revocations are log entries (records in space 's'); keepalives are
 * not.  Which keys are attached stands in space 'l', not here.
 *
 * Times are nanoseconds of the boot clock, which counts suspend and never goes back.
 *
 * Invariants (design, section 5)
 *  (1) a lease expires late, never early: after a restart it has its logged remainder, which
 *      is rounded up, else its full time to live
 *  (2) remainders are logged for leases above five minutes only; the first keepalive of a
 *      lease with a logged remainder below its full time logs the full time again
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef LEASE_LEASE_H
#define LEASE_LEASE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buffer.h"

#define LEASE_TTL_MIN 2          /* seconds; etcd: 1.5 election timeouts, rounded up */
#define LEASE_TTL_MAX 9000000000 /* seconds, etcd's bound */
#define LEASE_REMAINDER_MIN 300  /* seconds: shorter leases log no remainder */

struct lease {
    int64_t id;
    int64_t ttl;              /* granted, seconds */
    int64_t logged_remaining; /* seconds; equals ttl if nothing less is logged */
    uint64_t expires_ns;
    uint64_t release_index; /* entry up to which all is published when its time begins */
    uint32_t heap_index;
    struct lease *hash_next;
};

struct lease_table;

struct lease_table *lease_table_new(uint64_t hash_seed);
void lease_table_free(struct lease_table *t);
uint64_t lease_table_count(const struct lease_table *t);

struct lease *lease_find(struct lease_table *t, int64_t id);
/* Adds a lease with `remaining` seconds from now_ns; there must be none of this id. */
struct lease *lease_add(struct lease_table *t, int64_t id, int64_t ttl, int64_t remaining,
                        uint64_t now_ns);
void lease_remove(struct lease_table *t, struct lease *l);
/* Gives it its full time again. */
void lease_renew(struct lease_table *t, struct lease *l, uint64_t now_ns);
/* It expires no earlier than its full time after `from_ns`. */
void lease_extend(struct lease_table *t, struct lease *l, uint64_t from_ns);
/* Every lease expires so much later: time that did not count. */
void lease_shift_all(struct lease_table *t, uint64_t ns);
/* Every lease gets its full time from now on. */
void lease_renew_all(struct lease_table *t, uint64_t now_ns);
/* Gives every lease its logged remainder from now on (recovery is over, serving begins). */
void lease_restart_all(struct lease_table *t, uint64_t now_ns);
/* Seconds left, rounded down, as shown; 0 if it has expired. */
int64_t lease_remaining(const struct lease *l, uint64_t now_ns);
/* Seconds left, rounded up, as logged: what is given back at a restart is never too little. */
int64_t lease_remaining_up(const struct lease *l, uint64_t now_ns);

/* The lease that expires first, or NULL. */
struct lease *lease_first(struct lease_table *t);
/* Ids by expiry, soonest first; the caller frees the array with mem_free(). */
int64_t *lease_ids_by_expiry(const struct lease_table *t, uint64_t *n);
/*
 * Collects the leases whose remainder must be logged now: time to live above
 * LEASE_REMAINDER_MIN and the remainder changed by a quarter of it or more since it was
 * logged.  The caller frees the array.
 */
struct lease **lease_due_remainders(struct lease_table *t, uint64_t now_ns, uint64_t *n);

/* --- the record in space 's' ---------------------------------------------------------------- */

#define LEASE_KEY_BYTES (6 + 8)
/* "lease/" and the id, big endian. */
void lease_key_encode(uint8_t key[LEASE_KEY_BYTES], int64_t id);
bool lease_key_decode(struct t4_slice key, int64_t *id);
/* u8 format (1) · varint ttl · varint remaining */
void lease_value_encode(struct buffer *out, int64_t ttl, int64_t remaining);
bool lease_value_decode(struct t4_slice value, int64_t *ttl, int64_t *remaining);

#endif

/*
 * txn_bed.h - for tests of transactions: a store without a log, and responses as text.
 *
 * The store does what the commit role does with the effects of a request: it gives them a
 * revision and an index and inserts them.  Effects are checked against the rules of
 * txn_mutations() on the way.
 *
 * Text of responses: header = [cluster member term revision], or [] when it is absent;
 * key and value = key=value(create mod version lease);
 *   range{[..] kv kv more count}  put{[..] kv}  delete{[..] deleted kv kv}
 *   txn{[..] succeeded response response}
 * Bytes that are not printable stand as \xx, long ones are cut.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef TXN_BED_H
#define TXN_BED_H

#include <stdio.h>

#include "txn/txn.h"

#define STORE_CLUSTER 0xc1u
#define STORE_MEMBER 0x3eu
#define STORE_TERM 2u
#define STORE_LEASES 4 /* leases 1 to 4 can exist */

struct store {
    struct engine *engine;
    struct metrics *metrics;
    struct mvcc *mvcc;
    struct txn *txn;
    struct txn_leases lease_table;
    int64_t revision, compacted;
    uint64_t index;
    bool lease[STORE_LEASES + 1];
    char *effects; /* of the last request, as text; see store_effects() */
};

void store_open(struct store *s);
void store_close(struct store *s);
/* Everything into the engine, so that reads come from there. */
void store_flush(struct store *s);
void store_compact(struct store *s, int64_t revision);

/*
 * Each evaluates a request, applies its effects and gives the response as text, valid until
 * the next call, or the error's text.  The request must be valid.
 */
const char *store_put(struct store *s, const struct put_request *r);
const char *store_delete(struct store *s, const struct delete_range_request *r);
const char *store_txn(struct store *s, const struct txn_request *r);
const char *store_range(struct store *s, const struct range_request *r);
void store_revoke(struct store *s, int64_t lease);

/*
 * What the last request changed: "put key" and "del key" in order, then "attach lease key"
 * and "detach lease key", each followed by a space; "nothing" if it used no revision.
 */
const char *store_effects(const struct store *s);

void print_bytes(FILE *out, struct t4_slice bytes);
void print_key_value(FILE *out, const struct key_value *kv);

#endif

/*
 * txn_model.h - etcd's rules for keys and transactions, once more and as plainly as possible.
 *
 * The whole store at every revision is an array over the few keys that a test uses; every
 * request is answered by looking at all of them.  Answers are the text of txn_bed.h.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef TXN_MODEL_H
#define TXN_MODEL_H

#include "txn_bed.h"

#define MODEL_KEYS 9
#define MODEL_REVISIONS 4096

extern const struct t4_slice model_key[MODEL_KEYS]; /* sorted */

struct model_value {
    int64_t create, mod, version, lease; /* version 0: the key is not there */
    struct t4_slice value;
};

struct model_state {
    struct model_value key[MODEL_KEYS];
};

struct model {
    struct model_state *history; /* by revision */
    int64_t revision, compacted;
    bool lease[STORE_LEASES + 1];
    /* while a request is worked on */
    struct model_state now;
    int written[MODEL_KEYS]; /* order of the last write; 0: none */
    int writes;
    char *text, *effects;
};

void model_open(struct model *m);
void model_close(struct model *m);

/* As their namesakes of txn_bed.h.  The values in requests must live as long as the model. */
const char *model_put(struct model *m, const struct put_request *r);
const char *model_delete(struct model *m, const struct delete_range_request *r);
const char *model_txn(struct model *m, const struct txn_request *r);
const char *model_range(struct model *m, const struct range_request *r);
void model_revoke(struct model *m, int64_t lease);
const char *model_effects(const struct model *m);

/* Puts of the request must be of keys of the model. */
enum etcd_error model_validate(const struct txn_request *r, uint32_t max_ops);

#endif

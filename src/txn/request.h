/*
 * request.h - requests as the server works on them, free of any transport.
 *
 * All slices and arrays are borrowed from whoever made the request and stay valid until it
 * is answered.  Fields mean what etcd's fields of the same name mean.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef TXN_REQUEST_H
#define TXN_REQUEST_H

#include <stdbool.h>
#include <stdint.h>

#include "base/slice.h"

#define TXN_DEPTH_MAX 32u /* nesting of transactions */

enum sort_order { SORT_NONE, SORT_ASCEND, SORT_DESCEND };
enum sort_target { SORT_KEY, SORT_VERSION, SORT_CREATE, SORT_MOD, SORT_VALUE };

struct range_request {
    struct t4_slice key, range_end;
    int64_t limit, revision;
    int32_t sort_order, sort_target; /* unchecked until validated */
    bool serializable, keys_only, count_only;
    int64_t min_mod_revision, max_mod_revision, min_create_revision, max_create_revision;
};

struct put_request {
    struct t4_slice key, value;
    int64_t lease;
    bool prev_kv, ignore_value, ignore_lease;
};

struct delete_range_request {
    struct t4_slice key, range_end;
    bool prev_kv;
};

enum compare_result { COMPARE_EQUAL, COMPARE_GREATER, COMPARE_LESS, COMPARE_NOT_EQUAL };
enum compare_target {
    COMPARE_VERSION,
    COMPARE_CREATE,
    COMPARE_MOD,
    COMPARE_VALUE,
    COMPARE_LEASE
};

struct compare {
    int32_t result, target;
    struct t4_slice key, range_end;
    int64_t number; /* of the union, 0 when the union member is of another target */
    struct t4_slice value; /* likewise */
};

enum operation_kind {
    OPERATION_NONE,
    OPERATION_RANGE,
    OPERATION_PUT,
    OPERATION_DELETE_RANGE,
    OPERATION_TXN
};

struct operation;
struct txn_request {
    const struct compare *compare;
    const struct operation *success, *failure;
    uint32_t n_compare, n_success, n_failure;
};

struct operation {
    enum operation_kind kind;
    union {
        struct range_request range;
        struct put_request put;
        struct delete_range_request delete_range;
        struct txn_request txn;
    };
};

/*
 * Range ends as etcd reads them: empty = the single key, one zero byte = no upper bound,
 * else exclusive.
 */
static inline bool
range_is_single(struct t4_slice range_end)
{
    return range_end.len == 0;
}

static inline bool
range_is_open(struct t4_slice range_end)
{
    return range_end.len == 1 && range_end.data[0] == 0;
}

#endif

/*
 * validate.c - the checks of a request that need no state, in etcd's order.
 *
 * Single requests first, then of a transaction: counts, compare keys, every operation of both
 * branches, nested ones included (txn_validate_txn); then for each branch the rule that no key
 * is written twice (intervals.c).
 *
 * Runs on API threads.  Recursion is bounded by TXN_DEPTH_MAX.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "txn/txn_int.h"

enum etcd_error
txn_validate_range(const struct range_request *r)
{
    if (r->key.len == 0)
        return ETCD_EMPTY_KEY;
    if (r->sort_order < SORT_NONE || r->sort_order > SORT_DESCEND)
        return ETCD_INVALID_SORT_OPTION;
    if (r->sort_target < SORT_KEY || r->sort_target > SORT_VALUE)
        return ETCD_INVALID_SORT_OPTION;
    return ETCD_OK;
}

enum etcd_error
txn_validate_put(const struct put_request *r)
{
    if (r->key.len == 0)
        return ETCD_EMPTY_KEY;
    if (r->ignore_value && r->value.len > 0)
        return ETCD_VALUE_PROVIDED;
    if (r->ignore_lease && r->lease != 0)
        return ETCD_LEASE_PROVIDED;
    /* Only what is stored has a limit; a longer key in a range is a bound like any other. */
    if (r->key.len > KEY_BYTES_MAX)
        return ETCD_KEY_TOO_LONG;
    return ETCD_OK;
}

enum etcd_error
txn_validate_delete_range(const struct delete_range_request *r)
{
    return r->key.len == 0 ? ETCD_EMPTY_KEY : ETCD_OK;
}

static enum etcd_error validate_level(const struct txn_request *r, uint32_t max_ops,
                                      uint32_t depth);

static enum etcd_error
validate_operation(const struct operation *op, uint32_t max_ops, uint32_t depth)
{
    switch (op->kind) {
    case OPERATION_RANGE: return txn_validate_range(&op->range);
    case OPERATION_PUT: return txn_validate_put(&op->put);
    case OPERATION_DELETE_RANGE: return txn_validate_delete_range(&op->delete_range);
    case OPERATION_TXN: return validate_level(&op->txn, max_ops, depth + 1);
    case OPERATION_NONE: break;
    }
    return ETCD_KEY_NOT_FOUND; /* etcd's answer to an empty RequestOp */
}

static enum etcd_error
validate_level(const struct txn_request *r, uint32_t max_ops, uint32_t depth)
{
    uint32_t count = r->n_compare;
    enum etcd_error e = ETCD_OK;

    if (depth > TXN_DEPTH_MAX)
        return ETCD_NESTING_TOO_DEEP;
    if (count < r->n_success)
        count = r->n_success;
    if (count < r->n_failure)
        count = r->n_failure;
    if (count > max_ops)
        return ETCD_TOO_MANY_OPS;
    for (uint32_t i = 0; i < r->n_compare; i++)
        if (r->compare[i].key.len == 0)
            return ETCD_EMPTY_KEY;
    for (uint32_t i = 0; i < r->n_success && e == ETCD_OK; i++)
        e = validate_operation(&r->success[i], max_ops - count, depth);
    for (uint32_t i = 0; i < r->n_failure && e == ETCD_OK; i++)
        e = validate_operation(&r->failure[i], max_ops - count, depth);
    return e;
}

enum etcd_error
txn_validate_txn(const struct txn_request *r, uint32_t max_ops)
{
    enum etcd_error e = validate_level(r, max_ops, 1);

    if (e != ETCD_OK)
        return e;
    if (txn_writes_twice(r->success, r->n_success) ||
        txn_writes_twice(r->failure, r->n_failure))
        return ETCD_DUPLICATE_KEY;
    return ETCD_OK;
}

/* --- what kind of transaction it is ------------------------------------------------- */

/* True if test() holds for any operation below r; a nested txn is passed to it, too. */
static bool
any_operation(const struct txn_request *r, bool (*test)(const struct operation *))
{
    const struct operation *branch[2] = {r->success, r->failure};
    const uint32_t n[2] = {r->n_success, r->n_failure};

    for (int b = 0; b < 2; b++)
        for (uint32_t i = 0; i < n[b]; i++)
            if (test(&branch[b][i]) || (branch[b][i].kind == OPERATION_TXN &&
                                        any_operation(&branch[b][i].txn, test)))
                return true;
    return false;
}

static bool
is_write(const struct operation *op)
{
    return op->kind == OPERATION_PUT || op->kind == OPERATION_DELETE_RANGE;
}

static bool
is_put(const struct operation *op)
{
    return op->kind == OPERATION_PUT;
}

static bool
is_txn(const struct operation *op)
{
    return op->kind == OPERATION_TXN;
}

static bool
is_not_serializable_range(const struct operation *op)
{
    return op->kind != OPERATION_RANGE || !op->range.serializable;
}

static bool
compares_range(const struct txn_request *r)
{
    for (uint32_t i = 0; i < r->n_compare; i++)
        if (!range_is_single(r->compare[i].range_end))
            return true;
    return false;
}

static bool
is_heavy(const struct operation *op)
{
    switch (op->kind) {
    case OPERATION_RANGE: return !range_is_single(op->range.range_end);
    case OPERATION_DELETE_RANGE: return !range_is_single(op->delete_range.range_end);
    case OPERATION_TXN: return compares_range(&op->txn);
    default: return false;
    }
}

bool
txn_is_read_only(const struct txn_request *r)
{
    return !any_operation(r, is_write);
}

bool
txn_is_serializable(const struct txn_request *r)
{
    return !any_operation(r, is_not_serializable_range);
}

bool
txn_is_nested(const struct txn_request *r)
{
    return any_operation(r, is_txn);
}

bool
txn_has_put(const struct txn_request *r)
{
    return any_operation(r, is_put);
}

bool
txn_is_heavy(const struct txn_request *r)
{
    return compares_range(r) || any_operation(r, is_heavy);
}

/*
 * compare.c - the conditions of a transaction, on the state before it.
 *
 * A missing key compares as one with version, revisions and lease 0, except that nothing holds
 * for its value.  Over a range every key must satisfy; an empty range is a missing key.
 *
 * Runs in the commit role, or on any thread for a read-only transaction.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "txn/txn_int.h"

static int
order(int64_t a, int64_t b)
{
    return a < b ? -1 : a > b;
}

/* kv with all zeros stands for a missing key. */
static bool
holds_for(const struct compare *c, const struct key_value *kv)
{
    int o = 0;

    switch (c->target) {
    case COMPARE_VERSION: o = order(kv->version, c->number); break;
    case COMPARE_CREATE: o = order(kv->create_revision, c->number); break;
    case COMPARE_MOD: o = order(kv->mod_revision, c->number); break;
    case COMPARE_VALUE: o = slice_compare(kv->value, c->value); break;
    case COMPARE_LEASE: o = order(kv->lease, c->number); break;
    default: /* an unknown target is equal to everything, as in etcd */ break;
    }
    switch (c->result) {
    case COMPARE_EQUAL: return o == 0;
    case COMPARE_NOT_EQUAL: return o != 0;
    case COMPARE_GREATER: return o > 0;
    case COMPARE_LESS: return o < 0;
    default: /* likewise an unknown relation holds */ return true;
    }
}

static bool
holds_for_none(const struct compare *c)
{
    static const struct key_value missing;

    return c->target != COMPARE_VALUE && holds_for(c, &missing);
}

static enum etcd_error
holds_for_range(struct txn *t, const struct compare *c, bool *hold)
{
    struct mvcc_walk walk;
    struct key_range k;
    struct t4_slice ikey;
    struct version v;
    t4_status status = T4_E_NOTFOUND;
    bool any = false;

    *hold = true;
    key_range_init(&k, c->key, c->range_end);
    if (!k.empty) {
        mvcc_walk_begin(&walk, t->reader, k.lo.s, k.hi.s, (uint64_t)t->revision);
        while (*hold && (status = mvcc_walk_next(&walk, &ikey, &v)) == T4_OK) {
            struct key_value kv = key_value_of(ikey, &v, t->revision);

            any = true;
            *hold = holds_for(c, &kv);
        }
        mvcc_walk_end(&walk);
    }
    key_range_free(&k);
    if (status != T4_OK && status != T4_E_NOTFOUND)
        return etcd_read_error(status);
    if (!any)
        *hold = holds_for_none(c);
    return ETCD_OK;
}

static enum etcd_error
holds_for_key(struct txn *t, const struct compare *c, bool *hold)
{
    struct key_value kv;
    struct version v;
    bool live;
    enum etcd_error e = key_read(t->reader, c->key, (uint64_t)t->revision, &v, &live);

    if (e != ETCD_OK)
        return e;
    if (live) {
        kv = key_value_of(c->key, &v, t->revision);
        *hold = holds_for(c, &kv);
    } else {
        *hold = holds_for_none(c);
    }
    return ETCD_OK;
}

enum etcd_error
txn_compares_hold(struct txn *t, const struct compare *c, uint32_t n, bool *hold)
{
    enum etcd_error e = ETCD_OK;

    *hold = true;
    for (uint32_t i = 0; i < n && *hold && e == ETCD_OK; i++) {
        if (range_is_single(c[i].range_end))
            e = holds_for_key(t, &c[i], hold);
        else
            e = holds_for_range(t, &c[i], hold);
    }
    return e;
}

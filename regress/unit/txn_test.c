/*
 * txn_test.c - requests on keys and transactions do what etcd does.
 *
 * Cases by hand for the rules that are easily got wrong; then random requests, nested ones
 * included, whose responses and effects are compared with a plain model (txn_model.h), with
 * the keys now in memtables, now in the engine, and compactions between.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>

#include "base/memory.h"
#include "engine_bed.h"
#include "txn_model.h"

#define S(text) slice_of(text, sizeof(text) - 1)
#define COUNT(array) (uint32_t)(sizeof(array) / sizeof(array)[0])

/* --- short forms of requests -------------------------------------------------------- */

static struct operation
put_op(const char *key, const char *value)
{
    return (struct operation){.kind = OPERATION_PUT,
                              .put = {.key = slice_str(key), .value = slice_str(value)}};
}

static struct operation
get_op(const char *key, struct t4_slice end)
{
    return (struct operation){.kind = OPERATION_RANGE,
                              .range = {.key = slice_str(key), .range_end = end}};
}

static struct operation
delete_op(const char *key, struct t4_slice end)
{
    return (struct operation){.kind = OPERATION_DELETE_RANGE,
                              .delete_range = {.key = slice_str(key), .range_end = end}};
}

static struct operation
txn_op(const struct compare *compare, uint32_t n_compare, const struct operation *success,
       uint32_t n_success, const struct operation *failure, uint32_t n_failure)
{
    return (struct operation){
        .kind = OPERATION_TXN,
        .txn = {compare, success, failure, n_compare, n_success, n_failure}};
}

static const char *
put(struct store *s, const char *key, const char *value, int64_t lease)
{
    const struct put_request r = {.key = slice_str(key),
                                  .value = slice_str(value),
                                  .lease = lease,
                                  .prev_kv = true};

    return store_put(s, &r);
}

static const char *
get(struct store *s, struct range_request r)
{
    return store_range(s, &r);
}

static const char *
run(struct store *s, const struct operation *ops, uint32_t n)
{
    const struct txn_request r = {.success = ops, .n_success = n};

    return store_txn(s, &r);
}

/* --- by hand ------------------------------------------------------------------------ */

static void
single_requests(void **state)
{
    struct store s;
    struct put_request ignoring = {.key = S("a"), .ignore_value = true, .prev_kv = true};
    struct delete_range_request remove = {
        .key = S("a"), .range_end = S("c"), .prev_kv = true};

    (void)state;
    store_open(&s);
    s.lease[1] = true;
    assert_string_equal(store_put(&s, &ignoring), "etcdserver: key not found");
    assert_string_equal(store_effects(&s), "nothing");
    assert_string_equal(put(&s, "a", "1", 0), "put{[c1 3e 2 2]}");
    assert_string_equal(put(&s, "a", "2", 1), "put{[c1 3e 2 3] a=1(2 2 1 0)}");
    assert_string_equal(store_effects(&s), "put a attach 1 a ");
    assert_string_equal(put(&s, "b", "x", 2), "etcdserver: requested lease not found");
    /* The value stays, the lease goes. */
    assert_string_equal(store_put(&s, &ignoring), "put{[c1 3e 2 4] a=2(2 3 2 1)}");
    assert_string_equal(store_effects(&s), "put a detach 1 a ");
    /* Alone a missing lease is told before a missing key. */
    ignoring = (struct put_request){.key = S("no"), .ignore_value = true, .lease = 2};
    assert_string_equal(store_put(&s, &ignoring),
                        "etcdserver: requested lease not found");
    put(&s, "b", "3", 0);
    put(&s, "c", "4", 0);
    assert_string_equal(
        get(&s, (struct range_request){.key = S("a"), .range_end = S("\0")}),
        "range{[c1 3e 2 6] a=2(2 4 3 0) b=3(5 5 1 0) c=4(6 6 1 0) 0 3}");
    assert_string_equal(store_delete(&s, &remove),
                        "delete{[c1 3e 2 7] 2 a=2(2 4 3 0) b=3(5 5 1 0)}");
    assert_string_equal(store_effects(&s), "del a del b ");
    assert_string_equal(store_delete(&s, &remove), "delete{[c1 3e 2 7] 0}");
    assert_string_equal(store_effects(&s), "nothing");
    assert_string_equal(put(&s, "a", "5", 0), "put{[c1 3e 2 8]}"); /* a new life */
    assert_string_equal(get(&s, (struct range_request){.key = S("a")}),
                        "range{[c1 3e 2 8] a=5(8 8 1 0) 0 1}");
    /* The past is still there, with the present revision in the header. */
    assert_string_equal(get(&s, (struct range_request){.key = S("a"), .revision = 3}),
                        "range{[c1 3e 2 8] a=2(2 3 2 1) 0 1}");
    store_compact(&s, 4);
    assert_string_equal(get(&s, (struct range_request){.key = S("a"), .revision = 3}),
                        "etcdserver: mvcc: required revision has been compacted");
    assert_string_equal(get(&s, (struct range_request){.key = S("a"), .revision = 4}),
                        "range{[c1 3e 2 8] a=2(2 4 3 0) 0 1}");
    assert_string_equal(get(&s, (struct range_request){.key = S("a"), .revision = -7}),
                        "range{[c1 3e 2 8] a=5(8 8 1 0) 0 1}");
    assert_string_equal(get(&s, (struct range_request){.key = S("a"), .revision = 9}),
                        "etcdserver: mvcc: required revision is a future revision");
    store_close(&s);
}

static void
order_of_range_processing(void **state)
{
    struct range_request r = {.key = S("a"), .range_end = S("z")};
    struct store s;

    (void)state;
    store_open(&s);
    put(&s, "a", "3", 0); /* 2 */
    put(&s, "b", "1", 0); /* 3 */
    put(&s, "c", "2", 0); /* 4 */
    put(&s, "a", "0", 0); /* 5: a is (2 5 2) */
    r.limit = 2;
    assert_string_equal(store_range(&s, &r),
                        "range{[c1 3e 2 5] a=0(2 5 2 0) b=1(3 3 1 0) 1 3}");
    r.sort_order = SORT_DESCEND;
    assert_string_equal(store_range(&s, &r),
                        "range{[c1 3e 2 5] c=2(4 4 1 0) b=1(3 3 1 0) 1 3}");
    r.sort_target = SORT_VALUE;
    assert_string_equal(store_range(&s, &r),
                        "range{[c1 3e 2 5] c=2(4 4 1 0) b=1(3 3 1 0) 1 3}");
    r.sort_order = SORT_ASCEND;
    r.sort_target = SORT_MOD;
    assert_string_equal(store_range(&s, &r),
                        "range{[c1 3e 2 5] b=1(3 3 1 0) c=2(4 4 1 0) 1 3}");
    /* Without an order only limit + 1 keys are fetched, and these are sorted. */
    r.sort_order = SORT_NONE;
    r.limit = 1;
    assert_string_equal(store_range(&s, &r), "range{[c1 3e 2 5] b=1(3 3 1 0) 1 3}");
    r.sort_target = SORT_VALUE;
    r.limit = 2;
    r.min_mod_revision =
        4; /* a filter comes before the limit, and all keys are looked at */
    assert_string_equal(store_range(&s, &r),
                        "range{[c1 3e 2 5] a=0(2 5 2 0) c=2(4 4 1 0) 0 3}");
    r.limit = 1;
    r.keys_only = true;
    assert_string_equal(store_range(&s, &r), "range{[c1 3e 2 5] a=(2 5 2 0) 1 3}");
    r.count_only = true;
    assert_string_equal(store_range(&s, &r), "range{[c1 3e 2 5] 0 3}");
    r = (struct range_request){.key = S("b"), .range_end = S("a")}; /* not an error */
    assert_string_equal(store_range(&s, &r), "range{[c1 3e 2 5] 0 0}");
    r = (struct range_request){.key = S("b"), .max_create_revision = 2};
    assert_string_equal(store_range(&s, &r), "range{[c1 3e 2 5] 0 1}");
    store_close(&s);
}

static void
a_transaction_sees_its_own_writes(void **state)
{
    const struct operation inner[] = {delete_op("b", S("\0")), get_op("a", S("z")),
                                      delete_op("x", S("y"))};
    const struct operation ops[] = {
        put_op("a", "2"),
        get_op("a", S("")),
        put_op("b", "1"),
        get_op("a", S("z")),
        txn_op(NULL, 0, inner, 3, NULL, 0),
        get_op("b", S("")),
    };
    struct operation old = get_op("a", S("z"));
    struct store s;

    (void)state;
    store_open(&s);
    put(&s, "a", "1", 0);
    put(&s, "c", "1", 0);
    assert_string_equal(
        run(&s, ops, COUNT(ops)),
        "txn{[c1 3e 2 4] 1 put{[0 0 0 4]} range{[0 0 0 4] a=2(2 4 2 0) 0 1} put{[0 0 0 "
        "4]} "
        "range{[0 0 0 4] a=2(2 4 2 0) b=1(4 4 1 0) c=1(3 3 1 0) 0 3} "
        "txn{[0 0 0 0] 1 delete{[0 0 0 4] 2} range{[0 0 0 4] a=2(2 4 2 0) 0 1} "
        "delete{[0 0 0 4] 0}} range{[0 0 0 4] 0 0}}");
    /* b came and went: one mutation per key, none for what leaves nothing. */
    assert_string_equal(store_effects(&s), "put a del c ");
    /* A transaction that only makes and removes a key uses up a revision all the same. */
    assert_string_equal(
        run(&s, (struct operation[]){put_op("n", ""), ops[4]}, 2),
        "txn{[c1 3e 2 5] 1 put{[0 0 0 5]} txn{[0 0 0 0] 1 delete{[0 0 0 5] 1} "
        "range{[0 0 0 5] a=2(2 4 2 0) 0 1} delete{[0 0 0 5] 0}}}");
    assert_string_equal(store_effects(&s), "");
    /* The past, in the middle of writes. */
    old.range.revision = 3;
    assert_string_equal(run(&s, (struct operation[]){put_op("a", "9"), old}, 2),
                        "txn{[c1 3e 2 6] 1 put{[0 0 0 6]} "
                        "range{[0 0 0 6] a=1(2 2 1 0) c=1(3 3 1 0) 0 2}}");
    store_close(&s);
}

/* More writes than are searched one by one. */
static void
the_last_of_many_writes_counts(void **state)
{
    const struct operation remove_all = delete_op("\1", S("\0")),
                           look = get_op("k3", S(""));
    struct operation ops[24];
    char name[20][16];
    struct store s;

    (void)state;
    store_open(&s);
    for (int i = 0; i < 20; i++) {
        snprintf(name[i], sizeof name[i], "k%d", i);
        ops[i] = put_op(name[i], "old");
    }
    run(&s, ops, 20);
    ops[20] = txn_op(NULL, 0, &look, 1, NULL, 0);
    ops[21] = txn_op(NULL, 0, &remove_all, 1, NULL, 0);
    ops[22] = look;
    assert_non_null(strstr(
        run(&s, ops, 23), "txn{[0 0 0 0] 1 range{[0 0 0 3] k3=old(2 3 2 0) 0 1}} "
                          "txn{[0 0 0 0] 1 delete{[0 0 0 3] 20}} range{[0 0 0 3] 0 0}}"));
    assert_string_equal(get(&s, (struct range_request){.key = S("k3")}),
                        "range{[c1 3e 2 3] 0 0}");
    store_close(&s);
}

static void
checks_come_before_writes(void **state)
{
    struct operation ops[3] = {put_op("a", "1"), put_op("b", "1"), get_op("a", S(""))};
    struct operation nested;
    struct compare exists = {
        .result = COMPARE_GREATER, .target = COMPARE_VERSION, .key = S("a")};
    struct store s;

    (void)state;
    store_open(&s);
    s.lease[1] = true;
    ops[1].put.lease = 2;
    assert_string_equal(run(&s, ops, 3), "etcdserver: requested lease not found");
    /* Here a missing key is told before a missing lease. */
    ops[1].put.ignore_value = true;
    ops[1].put.value = S("");
    assert_string_equal(run(&s, ops, 3), "etcdserver: key not found");
    ops[1] = put_op("b", "1");
    ops[2].range.revision = 2; /* what this transaction would make */
    assert_string_equal(run(&s, ops, 3),
                        "etcdserver: mvcc: required revision is a future revision");
    assert_string_equal(store_effects(&s), "nothing");
    ops[2].range.revision = -1;
    assert_string_equal(run(&s, ops, 3),
                        "txn{[c1 3e 2 2] 1 put{[0 0 0 2]} put{[0 0 0 2]} "
                        "range{[0 0 0 2] a=1(2 2 1 0) 0 1}}");
    store_compact(&s, 1);
    assert_string_equal(run(&s, ops, 3),
                        "etcdserver: mvcc: required revision has been compacted");
    /* A nested compare looks at the state before the whole. */
    ops[0] = delete_op("a", S(""));
    ops[1] = get_op("b", S(""));
    nested = txn_op(&exists, 1, &ops[1], 1, NULL, 0);
    assert_string_equal(run(&s, (struct operation[]){ops[0], nested}, 2),
                        "txn{[c1 3e 2 3] 1 delete{[0 0 0 3] 1} txn{[0 0 0 0] 1 "
                        "range{[0 0 0 3] b=1(2 2 1 0) 0 1}}}");
    assert_string_equal(run(&s, (struct operation[]){nested}, 1),
                        "txn{[c1 3e 2 3] 1 txn{[0 0 0 0] 0}}");
    assert_string_equal(store_effects(&s), "nothing");
    store_close(&s);
}

static void
compares(void **state)
{
    static const struct {
        struct compare c;
        bool holds;
    } cases[] = {
        /* a=m(2 2 1 1) b=n(3 3 1 0), "no" is missing */
        {{COMPARE_EQUAL, COMPARE_VALUE, {(void *)"a", 1}, {0}, 0, {(void *)"m", 1}},
         true},
        {{COMPARE_GREATER, COMPARE_VALUE, {(void *)"a", 1}, {0}, 0, {(void *)"lzz", 3}},
         true},
        {{COMPARE_LESS, COMPARE_VALUE, {(void *)"a", 1}, {0}, 0, {(void *)"m", 1}},
         false},
        {{COMPARE_EQUAL, COMPARE_LEASE, {(void *)"a", 1}, {0}, 1, {0}}, true},
        {{COMPARE_EQUAL, COMPARE_MOD, {(void *)"b", 1}, {0}, 3, {0}}, true},
        {{COMPARE_EQUAL, COMPARE_VERSION, {(void *)"no", 2}, {0}, 0, {0}}, true},
        {{COMPARE_LESS, COMPARE_CREATE, {(void *)"no", 2}, {0}, 1, {0}}, true},
        {{COMPARE_EQUAL, COMPARE_VALUE, {(void *)"no", 2}, {0}, 0, {0}}, false},
        {{COMPARE_NOT_EQUAL, COMPARE_VALUE, {(void *)"no", 2}, {0}, 0, {(void *)"x", 1}},
         false},
        {{COMPARE_EQUAL, COMPARE_VERSION, {(void *)"a", 1}, {(void *)"c", 1}, 1, {0}},
         true},
        {{COMPARE_EQUAL, COMPARE_MOD, {(void *)"a", 1}, {(void *)"\0", 1}, 2, {0}},
         false},
        {{COMPARE_GREATER, COMPARE_MOD, {(void *)"a", 1}, {(void *)"\0", 1}, 1, {0}},
         true},
        {{COMPARE_EQUAL, COMPARE_MOD, {(void *)"x", 1}, {(void *)"z", 1}, 0, {0}}, true},
        {{COMPARE_LESS, COMPARE_VALUE, {(void *)"x", 1}, {(void *)"z", 1}, 0, {0}},
         false},
        {{COMPARE_EQUAL, COMPARE_MOD, {(void *)"b", 1}, {(void *)"a", 1}, 0, {0}}, true},
        {{COMPARE_NOT_EQUAL, COMPARE_VERSION, {(void *)"a", 1}, {(void *)"c", 1}, 1, {0}},
         false},
        {{COMPARE_GREATER, 9, {(void *)"a", 1}, {0}, 0, {0}},
         false}, /* as etcd: all equal */
        {{9, COMPARE_VERSION, {(void *)"a", 1}, {0}, 77, {0}}, true},
    };
    struct store s;

    (void)state;
    store_open(&s);
    s.lease[1] = true;
    put(&s, "a", "m", 1);
    put(&s, "b", "n", 0);
    for (uint32_t i = 0; i < COUNT(cases); i++) {
        const struct txn_request r = {.compare = &cases[i].c, .n_compare = 1};
        const char *expected =
            cases[i].holds ? "txn{[c1 3e 2 3] 1}" : "txn{[c1 3e 2 3] 0}";

        if (strcmp(store_txn(&s, &r), expected) != 0)
            fail_msg("compare %u", i);
    }
    store_close(&s);
}

static void
attachments_follow_the_lease(void **state)
{
    struct operation ops[2], inner;
    struct store s;

    (void)state;
    store_open(&s);
    s.lease[1] = s.lease[2] = s.lease[3] = true;
    put(&s, "b", "", 1);
    put(&s, "a", "", 1);
    put(&s, "c", "", 2);
    put(&s, "a", "again", 1);
    assert_string_equal(store_effects(&s), "put a ");
    put(&s, "c", "", 1);
    assert_string_equal(store_effects(&s), "put c detach 2 c attach 1 c ");
    /* Within a transaction what is left counts. */
    ops[0] = put_op("b", "");
    ops[0].put.lease = 2;
    inner = delete_op("b", S(""));
    ops[1] = txn_op(NULL, 0, &inner, 1, NULL, 0);
    run(&s, ops, 2);
    assert_string_equal(store_effects(&s), "del b detach 1 b ");
    store_flush(&s);
    put(&s, "d", "", 1);
    put(&s, "a", "", 3);
    store_revoke(&s, 1);
    assert_string_equal(store_effects(&s), "del c del d detach 1 c detach 1 d ");
    store_revoke(&s, 2);
    assert_string_equal(store_effects(&s), "nothing");
    assert_string_equal(
        get(&s, (struct range_request){.key = S("\0"), .range_end = S("\0")}),
        "range{[c1 3e 2 10] a=(3 9 3 3) 0 1}");
    store_close(&s);
}

/* --- validation --------------------------------------------------------------------- */

static enum etcd_error
validate(const struct operation *ops, uint32_t n, uint32_t max_ops)
{
    const struct txn_request r = {.success = ops, .n_success = n};

    return txn_validate_txn(&r, max_ops);
}

static void
keys_are_written_once(void **state)
{
    struct operation a = put_op("a", ""), b = put_op("b", ""),
                     remove = delete_op("a", S("c"));
    struct operation remove_a = delete_op("a", S("")), both, left, right, removing;

    (void)state;
    assert_int_equal(validate((struct operation[]){a, b}, 2, 128), ETCD_OK);
    assert_int_equal(validate((struct operation[]){a, b, a}, 3, 128), ETCD_DUPLICATE_KEY);
    assert_int_equal(validate((struct operation[]){b, remove}, 2, 128),
                     ETCD_DUPLICATE_KEY);
    assert_int_equal(validate((struct operation[]){remove, b}, 2, 128),
                     ETCD_DUPLICATE_KEY);
    assert_int_equal(validate((struct operation[]){remove_a, b}, 2, 128), ETCD_OK);
    assert_int_equal(validate((struct operation[]){remove_a, put_op("a\0", "")}, 2, 128),
                     ETCD_DUPLICATE_KEY); /* "a\0" ends at its zero here: it is a */
    assert_int_equal(validate((struct operation[]){remove, put_op("c", "")}, 2, 128),
                     ETCD_OK);
    assert_int_equal(validate((struct operation[]){remove, remove, remove_a}, 3, 128),
                     ETCD_OK);
    /* Quirks of etcd: these intervals are empty to it. */
    assert_int_equal(validate((struct operation[]){delete_op("a", S("\0")), b}, 2, 128),
                     ETCD_OK);
    assert_int_equal(validate((struct operation[]){delete_op("c", S("a")), b}, 2, 128),
                     ETCD_OK);
    /* The same key in both branches: one of them is taken. */
    both = txn_op(NULL, 0, &a, 1, &a, 1);
    assert_int_equal(validate(&both, 1, 128), ETCD_OK);
    assert_int_equal(validate((struct operation[]){both, a}, 2, 128), ETCD_DUPLICATE_KEY);
    assert_int_equal(validate((struct operation[]){both, b}, 2, 128), ETCD_OK);
    left = txn_op(NULL, 0, &a, 1, NULL, 0);
    right = txn_op(NULL, 0, NULL, 0, &a, 1);
    assert_int_equal(validate((struct operation[]){left, right}, 2, 128),
                     ETCD_DUPLICATE_KEY);
    assert_int_equal(validate((struct operation[]){remove, left}, 2, 128),
                     ETCD_DUPLICATE_KEY);
    assert_int_equal(validate((struct operation[]){left, remove}, 2, 128),
                     ETCD_DUPLICATE_KEY);
    /* A nested delete counts for what follows it, not for what precedes. */
    removing = txn_op(NULL, 0, NULL, 0, &remove, 1);
    assert_int_equal(validate((struct operation[]){left, removing}, 2, 128), ETCD_OK);
    assert_int_equal(validate((struct operation[]){removing, left}, 2, 128),
                     ETCD_DUPLICATE_KEY);
    assert_int_equal(validate((struct operation[]){b, removing}, 2, 128),
                     ETCD_DUPLICATE_KEY);
    removing = txn_op(NULL, 0, &remove, 1, &a, 1); /* only one branch is taken */
    assert_int_equal(validate(&removing, 1, 128), ETCD_OK);
}

static void
limits(void **state)
{
    static uint8_t long_key[KEY_BYTES_MAX + 1];
    struct operation ops[129], level[TXN_DEPTH_MAX + 1], child;
    struct txn_request r = {0};
    struct operation empty = {0};
    struct store s;

    (void)state;
    for (int i = 0; i < 129; i++)
        ops[i] = get_op("a", S(""));
    assert_int_equal(validate(ops, 128, 128), ETCD_OK);
    assert_int_equal(validate(ops, 129, 128), ETCD_TOO_MANY_OPS);
    /* What a level uses is not there for the levels below. */
    child = txn_op(NULL, 0, ops, 100, ops, 127);
    assert_int_equal(validate(&child, 1, 128), ETCD_OK);
    child.txn.n_failure = 128;
    assert_int_equal(validate(&child, 1, 128), ETCD_TOO_MANY_OPS);
    child = txn_op(NULL, 0, NULL, 0, &ops[1], 2);
    ops[0] = child;
    assert_int_equal(validate(ops, 127, 128), ETCD_TOO_MANY_OPS);
    assert_int_equal(validate(ops, 126, 128), ETCD_OK);
    assert_int_equal(validate(&empty, 1, 128), ETCD_KEY_NOT_FOUND);
    r.n_compare = 1;
    r.compare = &(struct compare){.target = COMPARE_VALUE};
    assert_int_equal(txn_validate_txn(&r, 128), ETCD_EMPTY_KEY);
    for (uint32_t i = 0; i <= TXN_DEPTH_MAX; i++)
        level[i] = txn_op(NULL, 0, i > 0 ? &level[i - 1] : NULL, i > 0, NULL, 0);
    assert_int_equal(txn_validate_txn(&level[TXN_DEPTH_MAX - 1].txn, 128), ETCD_OK);
    assert_int_equal(txn_validate_txn(&level[TXN_DEPTH_MAX].txn, 128),
                     ETCD_NESTING_TOO_DEEP);

    assert_int_equal(txn_validate_put(&(struct put_request){0}), ETCD_EMPTY_KEY);
    assert_int_equal(txn_validate_put(&(struct put_request){
                         .key = S("a"), .value = S("v"), .ignore_value = true}),
                     ETCD_VALUE_PROVIDED);
    assert_int_equal(txn_validate_put(&(struct put_request){
                         .key = S("a"), .lease = 1, .ignore_lease = true}),
                     ETCD_LEASE_PROVIDED);
    assert_int_equal(
        txn_validate_range(&(struct range_request){.key = S("a"), .sort_order = 3}),
        ETCD_INVALID_SORT_OPTION);
    assert_int_equal(
        txn_validate_range(&(struct range_request){.key = S("a"), .sort_target = -1}),
        ETCD_INVALID_SORT_OPTION);
    assert_int_equal(txn_validate_delete_range(&(struct delete_range_request){0}),
                     ETCD_EMPTY_KEY);

    /* The longest key is stored; a longer one is a bound like any other. */
    memset(long_key, 'k', sizeof long_key);
    store_open(&s);
    assert_int_equal(txn_validate_put(&(struct put_request){
                         .key = slice_of(long_key, sizeof long_key)}),
                     ETCD_KEY_TOO_LONG);
    assert_int_equal(
        txn_validate_put(&(struct put_request){.key = slice_of(long_key, KEY_BYTES_MAX)}),
        ETCD_OK);
    store_put(&s, &(struct put_request){.key = slice_of(long_key, KEY_BYTES_MAX)});
    put(&s, "l", "", 0);
    for (int flushed = 0; flushed < 2; flushed++) {
        assert_non_null(strstr(
            get(&s, (struct range_request){.key = slice_of(long_key, KEY_BYTES_MAX)}),
            " 0 1}"));
        assert_non_null(strstr(
            get(&s, (struct range_request){.key = slice_of(long_key, sizeof long_key)}),
            "] 0 0}"));
        assert_string_equal(
            get(&s, (struct range_request){.key = slice_of(long_key, sizeof long_key),
                                           .range_end = S("z")}),
            "range{[c1 3e 2 3] l=(3 3 1 0) 0 1}");
        assert_non_null(strstr(
            get(&s,
                (struct range_request){.key = S("a"),
                                       .range_end = slice_of(long_key, sizeof long_key)}),
            "...16384=(2 2 1 0) 0 1}"));
        store_flush(&s);
    }
    /* No string above these can be a key. */
    memset(long_key, 0xff, sizeof long_key);
    store_put(&s, &(struct put_request){.key = slice_of(long_key, KEY_BYTES_MAX)});
    assert_string_equal(
        get(&s, (struct range_request){.key = S("l"),
                                       .range_end = slice_of(long_key, sizeof long_key),
                                       .count_only = true}),
        "range{[c1 3e 2 4] 0 2}");
    assert_string_equal(
        get(&s, (struct range_request){.key = slice_of(long_key, sizeof long_key),
                                       .range_end = S("\0")}),
        "range{[c1 3e 2 4] 0 0}");
    store_close(&s);
}

static void
kinds_of_transactions(void **state)
{
    struct operation write = put_op("a", ""), read = get_op("a", S("")), nested;
    struct txn_request r = {.success = &read, .n_success = 1};

    (void)state;
    assert_true(txn_is_read_only(&r) && !txn_has_put(&r) && !txn_is_heavy(&r));
    assert_false(txn_is_serializable(&r));
    read.range.serializable = true;
    assert_true(txn_is_serializable(&r));
    nested = txn_op(NULL, 0, NULL, 0, &write, 1);
    r.failure = &nested;
    r.n_failure = 1;
    assert_true(!txn_is_read_only(&r) && txn_has_put(&r) && !txn_is_serializable(&r));
    write = delete_op("a", S("b"));
    assert_true(!txn_is_read_only(&r) && !txn_has_put(&r) && txn_is_heavy(&r));
    write = delete_op("a", S(""));
    assert_false(txn_is_heavy(&r));
    nested.txn.compare = &(struct compare){.key = S("a"), .range_end = S("b")};
    nested.txn.n_compare = 1;
    assert_true(txn_is_heavy(&r));
    assert_true(txn_is_serializable(&(struct txn_request){0}));
}

/* --- large ones --------------------------------------------------------------------- */

#define MANY 60000u

static void
many_keys(void **state)
{
    static char name[MANY][16];
    struct operation *ops = mem_zalloc((MANY + 3) * sizeof *ops);
    struct range_request all = {.key = S("k"), .range_end = S("l"), .limit = 1};
    struct range_request counted = {
        .key = S("k"), .range_end = S("l"), .count_only = true};
    struct response_header header = {0};
    struct mvcc_reader reader;
    struct store s;
    struct chain c;
    size_t n;
    bool too_long, wrote;

    (void)state;
    store_open(&s);
    for (uint32_t i = 0; i < MANY; i++) {
        snprintf(name[i], sizeof name[i], "k%06u", i * 7919 % MANY);
        ops[i] = put_op(name[i], "v");
    }
    assert_int_equal(validate(ops, MANY, MANY), ETCD_OK);
    ops[MANY] = put_op("k000000", "twice");
    assert_int_equal(validate(ops, MANY + 1, MANY + 1), ETCD_DUPLICATE_KEY);
    /* All of them, deleted again by a walk over the transaction's own writes. */
    ops[MANY] = (struct operation){.kind = OPERATION_RANGE, .range = counted};
    ops[MANY + 1] = delete_op("k", S("k03"));
    ops[MANY + 2] = (struct operation){.kind = OPERATION_RANGE, .range = counted};
    assert_non_null(strstr(run(&s, ops, MANY + 3),
                           "range{[0 0 0 2] 0 60000} delete{[0 0 0 2] 30000} "
                           "range{[0 0 0 2] 0 30000}}"));
    txn_mutations(s.txn, &n, &wrote);
    assert_int_equal(n, MANY / 2);
    assert_string_equal(store_range(&s, &all),
                        "range{[c1 3e 2 2] k030000=v(2 2 1 0) 1 30000}");
    run(&s, ops, MANY);
    assert_non_null(strstr(store_range(&s, &counted), " 60000}"));

    /* A reader in a hurry gives up in time. */
    chain_init(&c);
    assert_int_equal(mvcc_read_begin(s.mvcc, &reader), T4_OK);
    assert_int_equal(range_read(&reader, &all, 3, &header, 100, &too_long, &c), ETCD_OK);
    assert_true(too_long);
    assert_int_equal(c.length, 0);
    all.range_end = S("k000100");
    assert_int_equal(range_read(&reader, &all, 3, &header, 100, &too_long, &c), ETCD_OK);
    assert_false(too_long);
    assert_true(c.length > 0);
    chain_free(&c);
    mvcc_read_end(&reader);

    assert_string_equal(
        store_delete(&s,
                     &(struct delete_range_request){.key = S("k"), .range_end = S("l")}),
        "delete{[c1 3e 2 4] 60000}");
    assert_string_equal(store_range(&s, &counted), "range{[c1 3e 2 4] 0 0}");
    store_close(&s);
    mem_free(ops);
}

/* The header's place is kept before it is known which revision it tells. */
static void
headers_where_the_revision_grows_a_byte(void **state)
{
    struct operation ops[2] = {get_op("no", S("")), delete_op("no", S(""))};
    struct store s;

    (void)state;
    store_open(&s);
    while (s.revision < 127)
        put(&s, "a", "", 0);
    assert_string_equal(run(&s, ops, 2), "txn{[c1 3e 2 127] 1 range{[0 0 0 127] 0 0} "
                                         "delete{[0 0 0 127] 0}}");
    ops[1] = put_op("b", "");
    assert_string_equal(run(&s, ops, 2), "txn{[c1 3e 2 128] 1 range{[0 0 0 127] 0 0} "
                                         "put{[0 0 0 128]}}");
    store_close(&s);
}

/* --- by chance ---------------------------------------------------------------------- */

struct pool {
    uint8_t bytes[1 << 16];
    size_t used;
};

static void *
take(struct pool *p, size_t n)
{
    void *out = p->bytes + p->used;

    p->used += (n + 15) & ~(size_t)15;
    assert_true(p->used <= sizeof p->bytes);
    return memset(out, 0, n);
}

static bool
one_in(struct chance *c, uint64_t n)
{
    return chance_below(c, n) == 0;
}

static struct t4_slice
some_key(struct chance *c)
{
    return model_key[chance_below(c, MODEL_KEYS)];
}

static struct t4_slice
some_bound(struct chance *c)
{
    static uint8_t longer[KEY_BYTES_MAX + 2];
    static const struct t4_slice others[] = {{(const uint8_t *)"a\1", 2},
                                             {(const uint8_t *)"bb", 2},
                                             {(const uint8_t *)"zz", 2},
                                             {(const uint8_t *)"\xff\xff\xff", 3},
                                             {longer, sizeof longer}};

    longer[0] = 'b';
    return one_in(c, 3) ? others[chance_below(c, COUNT(others))] : some_key(c);
}

static struct t4_slice
some_range_end(struct chance *c)
{
    switch (chance_below(c, 5)) {
    case 0:
    case 1: return slice_of(NULL, 0);
    case 2: return S("\0");
    default: return some_bound(c);
    }
}

static struct t4_slice
some_value(struct chance *c)
{
    static uint8_t large[5000] = "large";
    static const struct t4_slice values[] = {{(const uint8_t *)"", 0},
                                             {(const uint8_t *)"1", 1},
                                             {(const uint8_t *)"12", 2},
                                             {(const uint8_t *)"2", 1},
                                             {large, sizeof large}};

    return values[chance_below(c, COUNT(values))];
}

static int64_t
some_revision(struct chance *c, const struct model *m)
{
    if (!one_in(c, 4))
        return 0;
    if (one_in(c, 8))
        return -(int64_t)chance_below(c, 3);
    return m->revision + 1 - (int64_t)chance_below(c, 30);
}

static int64_t
some_lease(struct chance *c)
{
    return one_in(c, 3) ? 1 + (int64_t)chance_below(c, STORE_LEASES - one_in(c, 2)) : 0;
}

static struct range_request
some_range(struct chance *c, const struct model *m)
{
    struct range_request r = {.key = some_bound(c), .range_end = some_range_end(c)};

    if (one_in(c, 3))
        r.limit = (int64_t)chance_below(c, 6) - 1;
    r.revision = some_revision(c, m);
    if (one_in(c, 3)) {
        r.sort_order = (int32_t)chance_below(c, 3);
        r.sort_target = (int32_t)chance_below(c, 5);
    }
    r.keys_only = one_in(c, 6);
    r.count_only = one_in(c, 8);
    if (one_in(c, 5))
        r.min_mod_revision = m->revision - (int64_t)chance_below(c, 20);
    if (one_in(c, 5))
        r.max_mod_revision = m->revision - (int64_t)chance_below(c, 10);
    if (one_in(c, 8))
        r.min_create_revision = m->revision - (int64_t)chance_below(c, 20);
    if (one_in(c, 8))
        r.max_create_revision = m->revision - (int64_t)chance_below(c, 10);
    return r;
}

static struct put_request
some_put(struct chance *c)
{
    struct put_request r = {
        .key = some_key(c), .value = some_value(c), .lease = some_lease(c)};

    r.prev_kv = one_in(c, 2);
    if (one_in(c, 6)) {
        r.ignore_value = true;
        r.value = slice_of(NULL, 0);
    }
    if (one_in(c, 6)) {
        r.ignore_lease = true;
        r.lease = 0;
    }
    return r;
}

static struct delete_range_request
some_delete(struct chance *c)
{
    return (struct delete_range_request){some_bound(c), some_range_end(c), one_in(c, 2)};
}

static struct compare
some_compare(struct chance *c, const struct model *m)
{
    struct compare r = {.result = (int32_t)chance_below(c, 4),
                        .target = (int32_t)chance_below(c, 5),
                        .key = some_bound(c)};

    if (one_in(c, 3))
        r.range_end = some_range_end(c);
    if (r.target == COMPARE_VALUE)
        r.value = some_value(c);
    else if (r.target == COMPARE_VERSION || r.target == COMPARE_LEASE)
        r.number = (int64_t)chance_below(c, 4);
    else
        r.number = one_in(c, 2) ? 0 : m->revision - (int64_t)chance_below(c, 10);
    return r;
}

static struct txn_request some_txn(struct chance *c, const struct model *m,
                                   struct pool *p, int depth);

static const struct operation *
some_operations(struct chance *c, const struct model *m, struct pool *p, int depth,
                uint32_t *n)
{
    struct operation *ops;

    *n = (uint32_t)chance_below(c, 5);
    ops = take(p, *n * sizeof *ops);
    for (uint32_t i = 0; i < *n; i++) {
        switch (chance_below(c, depth < 3 ? 9 : 7)) {
        case 0:
        case 1:
        case 2:
            ops[i].kind = OPERATION_PUT;
            ops[i].put = some_put(c);
            break;
        case 3:
            ops[i].kind = OPERATION_DELETE_RANGE;
            ops[i].delete_range = some_delete(c);
            break;
        case 4:
        case 5:
        case 6:
            ops[i].kind = OPERATION_RANGE;
            ops[i].range = some_range(c, m);
            if (!one_in(c, 4)) /* it would too often make the whole fail */
                ops[i].range.revision = 0;
            break;
        default: ops[i].kind = OPERATION_TXN; ops[i].txn = some_txn(c, m, p, depth + 1);
        }
        if (one_in(c, 200))
            ops[i].kind = OPERATION_NONE;
    }
    return ops;
}

static struct txn_request
some_txn(struct chance *c, const struct model *m, struct pool *p, int depth)
{
    struct txn_request r = {.n_compare = (uint32_t)chance_below(c, 3)};
    struct compare *compare = take(p, r.n_compare * sizeof *compare);

    for (uint32_t i = 0; i < r.n_compare; i++)
        compare[i] = some_compare(c, m);
    r.compare = compare;
    r.success = some_operations(c, m, p, depth, &r.n_success);
    r.failure = some_operations(c, m, p, depth, &r.n_failure);
    return r;
}

struct tally {
    unsigned requests, transactions, refused[ETCD_ERROR_COUNT];
};

static void
both_agree(const char *store, const char *model, const char *what, unsigned n)
{
    if (strcmp(store, model) != 0)
        fail_msg("request %u, %s:\n  is       %s\n  must be  %s", n, what, store, model);
}

static void
some_request(struct store *s, struct model *m, struct chance *c, struct pool *p,
             struct tally *t)
{
    unsigned n = t->requests++;

    p->used = 0;
    switch (chance_below(c, 8)) {
    case 0: {
        struct put_request r = some_put(c);

        both_agree(store_put(s, &r), model_put(m, &r), "put", n);
        break;
    }
    case 1: {
        struct delete_range_request r = some_delete(c);

        both_agree(store_delete(s, &r), model_delete(m, &r), "delete", n);
        break;
    }
    case 2:
    case 3: {
        struct range_request r = some_range(c, m);

        both_agree(store_range(s, &r), model_range(m, &r), "range", n);
        return;
    }
    default: {
        uint32_t max_ops = 3 + (uint32_t)chance_below(c, 12);
        struct txn_request r = some_txn(c, m, p, 0);
        enum etcd_error e = txn_validate_txn(&r, max_ops);

        assert_int_equal(e, model_validate(&r, max_ops));
        t->refused[e]++;
        if (e != ETCD_OK)
            return;
        both_agree(store_txn(s, &r), model_txn(m, &r), "txn", n);
        t->transactions++;
    }
    }
    both_agree(store_effects(s), model_effects(m), "effects", n);
    assert_int_equal(s->revision, m->revision);
}

static void
housekeeping(struct store *s, struct model *m, struct chance *c)
{
    int64_t lease = 1 + (int64_t)chance_below(c, STORE_LEASES);

    if (one_in(c, 10))
        store_flush(s);
    if (one_in(c, 100) && m->revision > m->compacted + 1) {
        int64_t revision = m->revision - (int64_t)chance_below(c, 20);

        if (revision > m->compacted) {
            m->compacted = revision;
            store_compact(s, revision);
        }
    }
    if (!m->lease[lease] && one_in(c, 5)) {
        s->lease[lease] = m->lease[lease] = true;
    } else if (m->lease[lease] && one_in(c, 30)) {
        store_revoke(s, lease);
        model_revoke(m, lease);
        both_agree(store_effects(s), model_effects(m), "revoke", 0);
    }
}

static void
random_requests_match_the_model(void **state)
{
    static struct pool pool;
    struct chance c = {test_seed()};
    struct tally tally = {0};

    (void)state;
    for (int round = 0; round < 20; round++) {
        struct store s;
        struct model m;

        store_open(&s);
        model_open(&m);
        for (int i = 0; i < 1500; i++) {
            some_request(&s, &m, &c, &pool, &tally);
            housekeeping(&s, &m, &c);
        }
        store_close(&s);
        model_close(&m);
    }
    print_message(
        "# %u requests, %u transactions; refused: %u duplicate keys, %u too many\n",
        tally.requests, tally.transactions, tally.refused[ETCD_DUPLICATE_KEY],
        tally.refused[ETCD_TOO_MANY_OPS]);
    assert_true(tally.transactions > 1000);
    assert_true(tally.refused[ETCD_DUPLICATE_KEY] > 1000);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(single_requests),
        cmocka_unit_test(order_of_range_processing),
        cmocka_unit_test(a_transaction_sees_its_own_writes),
        cmocka_unit_test(the_last_of_many_writes_counts),
        cmocka_unit_test(checks_come_before_writes),
        cmocka_unit_test(compares),
        cmocka_unit_test(attachments_follow_the_lease),
        cmocka_unit_test(keys_are_written_once),
        cmocka_unit_test(limits),
        cmocka_unit_test(kinds_of_transactions),
        cmocka_unit_test(many_keys),
        cmocka_unit_test(headers_where_the_revision_grows_a_byte),
        cmocka_unit_test(random_requests_match_the_model),
    };

    return cmocka_run_group_tests_name("txn", tests, NULL, NULL);
}

/*
 * txn.c - transactions, built by calls.
 *
 * Everything a t4_txn is made of lies in its own memory, lists included, which grow by doubling;
 * what was outgrown stays there until the transaction is freed.
 *
 * Threads: a t4_txn belongs to one at a time.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <string.h>

#include "base/memory.h"
#include "base/slice.h"
#include "lib/lib_int.h"

struct operations {
    struct operation *list;
    uint32_t n, capacity;
};

struct t4_txn {
    t4_db *db;
    void *root; /* of memory */
    struct owned *memory;
    struct compare *compare;
    uint32_t n_compare, compare_capacity;
    struct operations branch[2]; /* T4_SUCCESS, T4_FAILURE */
    t4_txn *nested;              /* taken over, by `next` */
    t4_txn *next;
    uint64_t bytes;  /* of the encoded request, about */
    t4_error failed; /* the first mistake; status T4_OK: none */
};

t4_txn *
t4_txn_new(t4_db *db)
{
    t4_txn *t = mem_zalloc(sizeof *t);

    t->db = lib_ref(db);
    t->root = lib_owned_new(0, &t->memory);
    t->bytes = LIB_REQUEST_BASE;
    return t;
}

void
t4_txn_free(t4_txn *t)
{
    if (t == NULL)
        return;
    while (t->nested != NULL) {
        t4_txn *nested = t->nested;

        t->nested = nested->next;
        t4_txn_free(nested);
    }
    lib_unref(t->db);
    t4_free(t->root);
    mem_free(t);
}

/* A list with room for one more. */
static void *
grow(t4_txn *t, void *list, uint32_t n, uint32_t *capacity, size_t size)
{
    void *larger;

    if (n < *capacity)
        return list;
    *capacity = *capacity > 0 ? *capacity * 2 : 8;
    larger = lib_owned_add(t->memory, *capacity * size);
    if (n > 0)
        memcpy(larger, list, n * size);
    return larger;
}

/*
 * Copies; what cannot fit into any request is not copied, the commit refuses it by its size.
 */
static struct t4_slice
keep(t4_txn *t, struct t4_slice bytes)
{
    t->bytes += bytes.len;
    if (t->bytes > t->db->max_request_bytes)
        return slice_of("", 0);
    return lib_owned_copy(t->memory, bytes);
}

static struct compare *
add_compare(t4_txn *t, struct t4_slice key, struct t4_slice end, int32_t target,
            int32_t relation)
{
    struct compare *c;

    if (relation < T4_EQUAL || relation > T4_NOT_EQUAL)
        lib_fail(&t->failed, T4_E_INVALID, "a comparison has an unknown relation",
                 "t4.h lists T4_EQUAL and the others");
    t->compare =
        grow(t, t->compare, t->n_compare, &t->compare_capacity, sizeof *t->compare);
    c = &t->compare[t->n_compare++];
    t->bytes += LIB_REQUEST_BASE;
    *c = (struct compare){.result = relation,
                          .target = target,
                          .key = keep(t, key),
                          .range_end = keep(t, end),
                          .value = slice_of("", 0)};
    return c;
}

void
t4_txn_compare(t4_txn *t, struct t4_slice key, struct t4_slice end, int32_t target,
               int32_t relation, int64_t number)
{
    if (target != T4_COMPARE_VERSION && target != T4_COMPARE_CREATE &&
        target != T4_COMPARE_MOD && target != T4_COMPARE_LEASE)
        lib_fail(&t->failed, T4_E_INVALID, "a comparison has an unknown target",
                 "t4.h lists T4_COMPARE_MOD and the others");
    add_compare(t, key, end, target, relation)->number = number;
}

void
t4_txn_compare_value(t4_txn *t, struct t4_slice key, struct t4_slice end,
                     int32_t relation, struct t4_slice value)
{
    struct t4_slice kept = keep(t, value);

    add_compare(t, key, end, COMPARE_VALUE, relation)->value = kept;
}

/* NULL: there is no such branch. */
static struct operation *
add_operation(t4_txn *t, int32_t branch, enum operation_kind kind)
{
    struct operations *o;

    if (branch != T4_SUCCESS && branch != T4_FAILURE) {
        lib_fail(&t->failed, T4_E_INVALID, "an operation has an unknown branch",
                 "give T4_SUCCESS or T4_FAILURE");
        return NULL;
    }
    o = &t->branch[branch];
    o->list = grow(t, o->list, o->n, &o->capacity, sizeof *o->list);
    t->bytes += LIB_REQUEST_BASE;
    o->list[o->n] = (struct operation){.kind = kind};
    return &o->list[o->n++];
}

void
t4_txn_put(t4_txn *t, int32_t branch, struct t4_slice key, struct t4_slice value,
           const t4_write_options *options)
{
    struct operation *o = add_operation(t, branch, OPERATION_PUT);
    t4_write_options w;

    if (o != NULL && lib_write_options(options, LIB_PUT_FLAGS, &w, &t->failed) == T4_OK)
        lib_put_request(keep(t, key), keep(t, value), &w, &o->put);
}

void
t4_txn_delete(t4_txn *t, int32_t branch, struct t4_slice key, struct t4_slice end,
              const t4_write_options *options)
{
    struct operation *o = add_operation(t, branch, OPERATION_DELETE_RANGE);
    t4_write_options w;

    if (o != NULL &&
        lib_write_options(options, LIB_DELETE_FLAGS, &w, &t->failed) == T4_OK)
        lib_delete_request(keep(t, key), keep(t, end), &w, &o->delete_range);
}

void
t4_txn_range(t4_txn *t, int32_t branch, struct t4_slice key, struct t4_slice end,
             const t4_read_options *options)
{
    struct operation *o = add_operation(t, branch, OPERATION_RANGE);
    t4_read_options r;

    if (o != NULL && lib_read_options(options, LIB_RANGE_FLAGS, &r, &t->failed) == T4_OK)
        lib_range_request(keep(t, key), keep(t, end), &r, &o->range);
}

static struct txn_request
request_of(const t4_txn *t)
{
    return (struct txn_request){
        .compare = t->compare,
        .success = t->branch[T4_SUCCESS].list,
        .failure = t->branch[T4_FAILURE].list,
        .n_compare = t->n_compare,
        .n_success = t->branch[T4_SUCCESS].n,
        .n_failure = t->branch[T4_FAILURE].n,
    };
}

void
t4_txn_nest(t4_txn *t, int32_t branch, t4_txn *nested)
{
    struct operation *o = add_operation(t, branch, OPERATION_TXN);

    if (nested->failed.status != T4_OK)
        t->failed = nested->failed;
    t->bytes += nested->bytes;
    nested->next = t->nested;
    t->nested = nested;
    if (o != NULL)
        o->txn = request_of(nested);
}

/* --- carrying out ------------------------------------------------------------------------------ */

static t4_status
prepare(t4_txn *t, struct lib_write *w, uint32_t flags, t4_error *error)
{
    t4_status st = lib_check_flags(flags, T4_OBJECT_DURABLE, error);

    if (st != T4_OK)
        return st;
    if (t->failed.status != T4_OK) {
        if (error != NULL)
            *error = t->failed;
        return t->failed.status;
    }
    w->kind = T4_RESULT_TXN;
    w->request.op = NODE_TXN;
    w->request.txn = request_of(t);
    lib_write_prepare(t->db, w, t->bytes, flags); /* its size first: see keep() */
    if (w->wrong == ETCD_OK)
        w->wrong = txn_validate_txn(&w->request.txn, t->db->max_txn_ops);
    return T4_OK;
}

/* One that only reads does not go through the log. */
static t4_status
read_only(t4_txn *t, const struct lib_write *w, t4_result **result, t4_error *error)
{
    struct read_gate g = {.db = t->db};
    struct chain message;
    bool again = true;
    enum etcd_error e = w->wrong;
    t4_result *answer;

    chain_init(&message);
    while (e == ETCD_OK && again) {
        chain_free(&message);
        e = lib_read_ready(&g, NULL, &w->request.txn);
        if (e == ETCD_OK)
            e = node_txn_read_only(t->db->node, &w->request.txn, &message);
        again = lib_read_again(&g, &e);
    }
    if (e != ETCD_OK) {
        chain_free(&message);
        return lib_fail_request(error, e);
    }
    answer = lib_answer(T4_RESULT_TXN, &message);
    if (answer == NULL)
        return lib_fail(error, T4_E_INTERNAL, "the answer cannot be read", "");
    if (result != NULL)
        *result = answer;
    else
        t4_free(answer);
    return T4_OK;
}

t4_status
t4_txn_commit(t4_txn *t, uint32_t flags, t4_result **result, t4_error *error)
{
    struct lib_write w = {0};
    struct lib_call c;
    t4_status st;

    if (result != NULL)
        *result = NULL;
    st = lib_enter(&c, t->db, error);
    if (st != T4_OK)
        return st;
    st = prepare(t, &w, flags, error);
    if (st == T4_OK)
        st = txn_is_read_only(&w.request.txn) && (flags & T4_OBJECT_DURABLE) == 0
                 ? read_only(t, &w, result, error)
                 : lib_write_do(t->db, &w, result, error);
    return lib_leave(&c, st);
}

t4_status
t4_txn_commit_async(t4_txn *t, uint32_t flags, t4_done_fn *done, void *arg,
                    t4_error *error)
{
    struct async *a;
    struct lib_call c;
    t4_status st;

    st = lib_enter(&c, t->db, error);
    if (st != T4_OK) {
        t4_txn_free(t);
        return st;
    }
    a = lib_async_new(t->db, done, arg);
    a->txn = t;
    st = prepare(t, &a->write, flags, error);
    if (st == T4_OK)
        st = lib_async_submit(a, error);
    else
        lib_async_free(a);
    return lib_leave(&c, st);
}

/*
 * write.c - requests that go through the node's queue: put, delete, compact, leases, barrier.
 *
 * Each becomes a struct lib_write, which is either waited for or, asynchronous, held until its
 * answer is given to the user's function on the callback thread.
 *
 * Any thread.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <string.h>

#include "base/memory.h"
#include "base/slice.h"
#include "lib/lib_int.h"

#define ASYNC_MAX 65536u /* answers that may wait for a slow user function */

/* --- what users hand in ------------------------------------------------------------------------ */

t4_status
lib_take_struct(const void *given, size_t minimum, void *out, size_t n, t4_error *error)
{
    size_t size;

    memset(out, 0, n);
    if (given == NULL)
        return T4_OK;
    memcpy(&size, given, sizeof size);
    if (size < minimum)
        return lib_fail(error, T4_E_INVALID, "the member size of a struct is not set",
                        "set it to sizeof the struct, or use the T4_*_INIT macro");
    memcpy(out, given, size < n ? size : n);
    return T4_OK;
}

t4_status
lib_check_flags(uint32_t flags, uint32_t allowed, t4_error *error)
{
    if ((flags & ~allowed) == 0)
        return T4_OK;
    return lib_fail(error, T4_E_INVALID, "a flag means nothing to this function",
                    "t4.h says which flags it takes");
}

t4_status
lib_write_options(const t4_write_options *given, uint32_t allowed, t4_write_options *out,
                  t4_error *error)
{
    t4_status st = lib_take_struct(given, sizeof *given, out, sizeof *out, error);

    return st == T4_OK ? lib_check_flags(out->flags, allowed, error) : st;
}

void
lib_put_request(struct t4_slice key, struct t4_slice value, const t4_write_options *o,
                struct put_request *out)
{
    *out = (struct put_request){
        .key = key,
        .value = value,
        .lease = o->lease,
        .prev_kv = (o->flags & T4_PREV_KV) != 0,
        .ignore_value = (o->flags & T4_IGNORE_VALUE) != 0,
        .ignore_lease = (o->flags & T4_IGNORE_LEASE) != 0,
    };
}

void
lib_delete_request(struct t4_slice key, struct t4_slice end, const t4_write_options *o,
                   struct delete_range_request *out)
{
    *out = (struct delete_range_request){
        .key = key, .range_end = end, .prev_kv = (o->flags & T4_PREV_KV) != 0};
}

/* --- one request ------------------------------------------------------------------------------- */

void
lib_write_prepare(t4_db *db, struct lib_write *w, uint64_t bytes, uint32_t flags)
{
    struct node_request *r = &w->request;

    if (w->wrong == ETCD_OK && bytes > db->max_request_bytes)
        w->wrong = ETCD_REQUEST_TOO_LARGE;
    r->bytes = (uint32_t)bytes;
    r->object_durable = (flags & T4_OBJECT_DURABLE) != 0;
    if (w->wrong == ETCD_OK && r->object_durable && !node_has_store(db->node))
        w->wrong = ETCD_DURABILITY_UNREACHABLE;
}

static void
wake_waiter(struct node_request *r)
{
    lib_signal_set(&container_of(r, struct lib_write, request)->answered);
}

/* The answer decoded, or the error in words. */
static t4_status
take_answer(struct lib_write *w, t4_result **result, t4_error *error)
{
    struct node_request *r = &w->request;

    if (r->error != ETCD_OK) {
        chain_free(&r->response);
        return lib_fail_request(error, r->error);
    }
    if (result == NULL) {
        chain_free(&r->response);
        return T4_OK;
    }
    *result = lib_answer(w->kind, &r->response);
    return *result != NULL
               ? T4_OK
               : lib_fail(error, T4_E_INTERNAL, "the answer cannot be read", "");
}

t4_status
lib_write_do(t4_db *db, struct lib_write *w, t4_result **result, t4_error *error)
{
    if (w->wrong != ETCD_OK)
        return lib_fail_request(error, w->wrong);
    lib_signal_init(&w->answered);
    w->request.done = wake_waiter;
    lib_submit(db, &w->request);
    lib_signal_wait(&w->answered);
    return take_answer(w, result, error);
}

/* --- asynchronous ones ------------------------------------------------------------------------- */

void
lib_async_free(struct async *a)
{
    t4_free(a->result);
    if (a->txn != NULL)
        t4_txn_free(a->txn);
    mem_free(a);
}

static void
tell_done(struct lib_callback *c)
{
    struct async *a = container_of(c, struct async, callback);
    t4_db *db = c->db;
    t4_result *result = NULL;
    t4_error error = {0};
    t4_status status = take_answer(&a->write, &result, &error);

    if ((status == T4_E_CLOSED || status == T4_E_UNKNOWN) && atomic_load(&db->broken)) {
        lib_fail_internal(&error, &db->why);
        error.status = status = status == T4_E_CLOSED ? db->why.status : status;
    }
    a->done(a->arg, status, result, &error);
    lib_async_free(a);
    atomic_fetch_sub(&db->asynchronous, 1);
}

static void
async_answered(struct node_request *r)
{
    struct lib_write *w = container_of(r, struct lib_write, request);

    lib_call_back(&container_of(w, struct async, write)->callback);
}

struct async *
lib_async_new(t4_db *db, t4_done_fn *done, void *arg)
{
    struct async *a = mem_zalloc(sizeof *a);

    a->callback.db = db;
    a->callback.run = tell_done;
    a->done = done;
    a->arg = arg;
    a->result = lib_owned_new(0, &a->memory);
    return a;
}

t4_status
lib_async_submit(struct async *a, t4_error *error)
{
    t4_db *db = a->callback.db;
    t4_status st = T4_OK;

    if (a->write.wrong != ETCD_OK) {
        st = lib_fail_request(error, a->write.wrong);
    } else if (atomic_fetch_add(&db->asynchronous, 1) >= ASYNC_MAX) {
        atomic_fetch_sub(&db->asynchronous, 1);
        st = lib_fail(error, T4_E_BUSY, "65,536 answers wait for the callback thread",
                      "try again when callbacks were called");
    }
    if (st != T4_OK) {
        lib_async_free(a);
        return st;
    }
    a->write.request.done = async_answered;
    lib_submit(db, &a->write.request);
    return T4_OK;
}

/* --- put and delete ---------------------------------------------------------------------------- */

static void
prepare_put(t4_db *db, struct lib_write *w, struct t4_slice key, struct t4_slice value,
            const t4_write_options *o)
{
    w->kind = T4_RESULT_PUT;
    w->request.op = NODE_PUT;
    lib_put_request(key, value, o, &w->request.put);
    w->wrong = txn_validate_put(&w->request.put);
    lib_write_prepare(db, w, (uint64_t)LIB_REQUEST_BASE + key.len + value.len, o->flags);
}

static void
prepare_delete(t4_db *db, struct lib_write *w, struct t4_slice key, struct t4_slice end,
               const t4_write_options *o)
{
    w->kind = T4_RESULT_DELETE;
    w->request.op = NODE_DELETE_RANGE;
    lib_delete_request(key, end, o, &w->request.delete_range);
    w->wrong = txn_validate_delete_range(&w->request.delete_range);
    lib_write_prepare(db, w, (uint64_t)LIB_REQUEST_BASE + key.len + end.len, o->flags);
}

typedef void prepare_fn(t4_db *, struct lib_write *, struct t4_slice, struct t4_slice,
                        const t4_write_options *);

static t4_status
write_now(t4_db *db, prepare_fn *prepare, uint32_t allowed, struct t4_slice a,
          struct t4_slice b, const t4_write_options *given, t4_result **result,
          t4_error *error)
{
    struct lib_write w = {0};
    t4_write_options o;
    struct lib_call c;
    t4_status st;

    if (result != NULL)
        *result = NULL;
    st = lib_enter(&c, db, error);
    if (st != T4_OK)
        return st;
    st = lib_write_options(given, allowed, &o, error);
    if (st == T4_OK) {
        prepare(db, &w, a, b, &o);
        st = lib_write_do(db, &w, result, error);
    }
    return lib_leave(&c, st);
}

static t4_status
write_later(t4_db *db, prepare_fn *prepare, uint32_t allowed, struct t4_slice a,
            struct t4_slice b, const t4_write_options *given, t4_done_fn *done, void *arg,
            t4_error *error)
{
    struct async *async;
    t4_write_options o;
    struct lib_call c;
    t4_status st;

    st = lib_enter(&c, db, error);
    if (st != T4_OK)
        return st;
    st = lib_write_options(given, allowed, &o, error);
    if (st == T4_OK) {
        async = lib_async_new(db, done, arg);
        /* What is too large is not copied: it is refused. */
        if (a.len <= db->max_request_bytes && b.len <= db->max_request_bytes) {
            a = lib_owned_copy(async->memory, a);
            b = lib_owned_copy(async->memory, b);
        }
        prepare(db, &async->write, a, b, &o);
        st = lib_async_submit(async, error);
    }
    return lib_leave(&c, st);
}

t4_status
t4_put(t4_db *db, struct t4_slice key, struct t4_slice value,
       const t4_write_options *options, t4_result **result, t4_error *error)
{
    return write_now(db, prepare_put, LIB_PUT_FLAGS, key, value, options, result, error);
}

t4_status
t4_delete(t4_db *db, struct t4_slice key, struct t4_slice end,
          const t4_write_options *options, t4_result **result, t4_error *error)
{
    return write_now(db, prepare_delete, LIB_DELETE_FLAGS, key, end, options, result,
                     error);
}

t4_status
t4_put_async(t4_db *db, struct t4_slice key, struct t4_slice value,
             const t4_write_options *options, t4_done_fn *done, void *arg,
             t4_error *error)
{
    return write_later(db, prepare_put, LIB_PUT_FLAGS, key, value, options, done, arg,
                       error);
}

t4_status
t4_delete_async(t4_db *db, struct t4_slice key, struct t4_slice end,
                const t4_write_options *options, t4_done_fn *done, void *arg,
                t4_error *error)
{
    return write_later(db, prepare_delete, LIB_DELETE_FLAGS, key, end, options, done, arg,
                       error);
}

/* --- what has no keys ---------------------------------------------------------------------------- */

/* Carries out w->request, of which only the members of its op are set. */
static t4_status
request_now(t4_db *db, struct lib_write *w, uint32_t flags, t4_result **result,
            t4_error *error)
{
    struct lib_call c;
    t4_status st = lib_enter(&c, db, error);

    if (st != T4_OK)
        return st;
    lib_write_prepare(db, w, LIB_REQUEST_BASE, flags);
    return lib_leave(&c, lib_write_do(db, w, result, error));
}

t4_status
t4_barrier(t4_db *db, uint32_t flags, t4_error *error)
{
    struct lib_write w = {.request = {.op = NODE_BARRIER}};
    t4_status st = lib_check_flags(flags, T4_OBJECT_DURABLE, error);

    return st == T4_OK ? request_now(db, &w, flags, NULL, error) : st;
}

t4_status
t4_compact(t4_db *db, int64_t revision, uint32_t flags, t4_error *error)
{
    struct lib_write w = {.request = {.op = NODE_COMPACT}};
    t4_status st = lib_check_flags(flags, T4_PHYSICAL, error);

    w.request.compact.revision = revision;
    w.request.compact.physical = (flags & T4_PHYSICAL) != 0;
    return st == T4_OK ? request_now(db, &w, 0, NULL, error) : st;
}

t4_status
t4_defragment(t4_db *db, t4_error *error)
{
    struct lib_write w = {.request = {.op = NODE_DEFRAGMENT}};

    return request_now(db, &w, 0, NULL, error);
}

/* --- leases -------------------------------------------------------------------------------------- */

t4_status
t4_lease_grant(t4_db *db, int64_t ttl, int64_t *lease, int64_t *granted_ttl,
               t4_error *error)
{
    struct lib_write w = {.kind = T4_RESULT_LEASE, .request = {.op = NODE_LEASE_GRANT}};
    t4_result *result;
    t4_status st;

    w.request.lease_grant.id = *lease;
    w.request.lease_grant.ttl = ttl;
    st = request_now(db, &w, 0, &result, error);
    if (st != T4_OK)
        return st;
    *lease = result->lease;
    if (granted_ttl != NULL)
        *granted_ttl = result->ttl;
    t4_free(result);
    return T4_OK;
}

t4_status
t4_lease_keep_alive(t4_db *db, int64_t lease, int64_t *ttl, t4_error *error)
{
    struct lib_write w = {.kind = T4_RESULT_LEASE,
                          .request = {.op = NODE_LEASE_KEEPALIVE}};
    t4_result *result;
    int64_t left;
    t4_status st;

    w.request.lease.id = lease;
    st = request_now(db, &w, 0, &result, error);
    if (st != T4_OK)
        return st;
    left = result->ttl;
    t4_free(result);
    if (left <= 0) /* etcd's way of saying that it is over */
        return lib_fail_request(error, ETCD_LEASE_NOT_FOUND);
    if (ttl != NULL)
        *ttl = left;
    return T4_OK;
}

t4_status
t4_lease_revoke(t4_db *db, int64_t lease, t4_error *error)
{
    struct lib_write w = {.request = {.op = NODE_LEASE_REVOKE}};

    w.request.lease.id = lease;
    return request_now(db, &w, 0, NULL, error);
}

t4_status
t4_lease_time_to_live(t4_db *db, int64_t lease, t4_result **out, t4_error *error)
{
    struct lib_write w = {.kind = T4_RESULT_LEASE,
                          .request = {.op = NODE_LEASE_TIME_TO_LIVE}};
    t4_status st;

    *out = NULL;
    w.request.lease.id = lease;
    w.request.lease.keys = true;
    st = request_now(db, &w, 0, out, error);
    if (st != T4_OK || (*out)->ttl >= 0)
        return st;
    t4_free(*out);
    *out = NULL;
    return lib_fail_request(error, ETCD_LEASE_NOT_FOUND);
}

t4_status
t4_lease_list(t4_db *db, t4_result **out, t4_error *error)
{
    struct lib_write w = {.kind = T4_RESULT_LEASE, .request = {.op = NODE_LEASE_LEASES}};

    *out = NULL;
    return request_now(db, &w, 0, out, error);
}

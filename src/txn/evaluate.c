/*
 * evaluate.c - turns a validated request into writes and its response.
 *
 * A transaction goes in three steps, as in etcd: the compares of all levels on the taken path,
 * all on the state before the request; the checks of what that path will do (leases, needed
 * keys, revisions), on the same state; then the operations in order, each seeing the writes
 * before it.  An error of the first two steps leaves nothing behind; in the third only the
 * storage engine can fail.
 *
 * Headers of nested responses carry a revision only, that of a nested transaction nothing.
 *
 * Runs in the commit role, or on any thread for a read-only transaction.  Recursion is bounded
 * by TXN_DEPTH_MAX.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "base/memory.h"
#include "txn/txn_int.h"

/* Fields of ResponseOp, TxnResponse. */
#define FIELD_RESPONSE_RANGE 1
#define FIELD_RESPONSE_PUT 2
#define FIELD_RESPONSE_DELETE_RANGE 3
#define FIELD_RESPONSE_TXN 4
#define FIELD_RESPONSES 3

/* An operation's response up to this size is copied into the whole, a larger one linked. */
#define COPY_MAX 1024u

/* Any failure leaves neither writes nor a response. */
static enum etcd_error
give_up(struct txn *t, enum etcd_error e, struct chain *out)
{
    txn_drop_writes(t);
    chain_free(out);
    return e;
}

static bool
lease_exists(const struct txn *t, int64_t lease)
{
    return t->leases->exists(t->leases->arg, lease);
}

/* --- operations; each appends a whole response with the given header ---------------- */

static enum etcd_error
do_put(struct txn *t, const struct put_request *r, const struct response_header *header,
       struct chain *out)
{
    struct mutation m = {
        .space = SPACE_KEYS, .key = r->key, .value = r->value, .lease = r->lease};
    struct version old;
    bool live;
    int64_t write;
    enum etcd_error e = txn_look(t, r->key, &old, &live, &write);

    if (e != ETCD_OK)
        return e;
    if (!live && (r->ignore_value || r->ignore_lease))
        return ETCD_KEY_NOT_FOUND;
    if (r->ignore_value)
        m.value = txn_keep(t, old.value);
    if (r->ignore_lease)
        m.lease = old.lease;
    m.version = live ? old.version + 1 : 1;
    m.create_revision = live ? old.create_revision : txn_next_revision(t);
    txn_add_write(t, &m, &old, live, write);
    wire_header_field(out, 1, header);
    if (r->prev_kv && live) {
        struct key_value kv = key_value_of(r->key, &old, txn_next_revision(t));

        wire_key_value_field(out, 2, &kv);
    }
    return ETCD_OK;
}

static void
delete_key(struct txn *t, struct t4_slice key, const struct version *old, int64_t write)
{
    struct mutation m = {.space = SPACE_KEYS, .flags = MUTATION_TOMBSTONE, .key = key};

    txn_add_write(t, &m, old, true, write);
}

/* Deletes what is in the range; with `previous` appends DeleteRangeResponse.prev_kvs. */
static enum etcd_error
delete_walk(struct txn *t, const struct delete_range_request *r, struct chain *previous,
            int64_t *deleted)
{
    struct range_source source;
    struct mvcc_walk walk;
    struct key_range k;
    struct t4_slice ikey;
    struct version v;
    t4_status status = T4_E_NOTFOUND;

    key_range_init(&k, r->key, r->range_end);
    if (k.empty)
        goto done;
    txn_walk_begin(t);
    source = txn_source(t); /* before the writes that the walk itself adds */
    mvcc_walk_begin(&walk, t->reader, k.lo.s, k.hi.s, source.stamp);
    while ((status = mvcc_walk_next(&walk, &ikey, &v)) == T4_OK) {
        struct t4_slice key = txn_keep(t, slice_of(ikey.data + 1, ikey.len - 1));
        bool own = v.stamp > (uint64_t)t->revision;

        if (r->prev_kv) {
            struct key_value kv = key_value_of(key, &v, source.newest);

            wire_key_value_field(previous, 3, &kv);
        }
        delete_key(t, key, &v, own ? txn_find_write(t, key) : -1);
        ++*deleted;
    }
    mvcc_walk_end(&walk);
    txn_walk_end(t);
done:
    key_range_free(&k);
    return etcd_read_error(status);
}

static enum etcd_error
delete_single(struct txn *t, const struct delete_range_request *r, struct chain *previous,
              int64_t *deleted)
{
    struct version old;
    bool live;
    int64_t write;
    enum etcd_error e = txn_look(t, r->key, &old, &live, &write);

    if (e != ETCD_OK || !live)
        return e;
    if (r->prev_kv) {
        struct key_value kv = key_value_of(r->key, &old, txn_next_revision(t));

        wire_key_value_field(previous, 3, &kv);
    }
    delete_key(t, r->key, &old, write);
    *deleted = 1;
    return ETCD_OK;
}

static enum etcd_error
do_delete_range(struct txn *t, const struct delete_range_request *r,
                struct response_header *header, struct chain *out)
{
    struct chain previous;
    int64_t deleted = 0;
    enum etcd_error e;

    chain_init(&previous);
    if (range_is_single(r->range_end))
        e = delete_single(t, r, &previous, &deleted);
    else
        e = delete_walk(t, r, &previous, &deleted);
    if (e == ETCD_OK) {
        header->revision = txn_seen_revision(t);
        wire_header_field(out, 1, header);
        wire_varint_field(out, 2, (uint64_t)deleted);
        chain_splice(out, &previous);
    }
    chain_free(&previous);
    return e;
}

static enum etcd_error
do_range(struct txn *t, const struct range_request *r,
         const struct response_header *header, struct chain *out)
{
    struct range_source source = txn_source(t);
    struct key_value kv;
    struct version v;
    bool live;
    int64_t write;
    enum etcd_error e;

    /* At a revision of the past: none of the request's writes is there. */
    if (r->revision > 0)
        source.stamp = (uint64_t)r->revision;
    if (!range_is_single(r->range_end)) {
        txn_walk_begin(t);
        e = range_encode(&source, r, header, 0, NULL, out);
        txn_walk_end(t);
        return e;
    }
    if (r->revision > 0)
        e = key_read(t->reader, r->key, source.stamp, &v, &live);
    else
        e = txn_look(t, r->key, &v, &live, &write);
    if (e != ETCD_OK)
        return e;
    if (live)
        kv = key_value_of(r->key, &v, source.newest);
    range_encode_single(r, live ? &kv : NULL, header, out);
    return ETCD_OK;
}

/* --- transactions ------------------------------------------------------------------- */

static const struct operation *
branch_of(const struct txn_request *r, bool taken, uint32_t *n)
{
    *n = taken ? r->n_success : r->n_failure;
    return taken ? r->success : r->failure;
}

/* Decides the branch of this transaction and of those on the branch taken. */
static enum etcd_error
decide_path(struct txn *t, const struct txn_request *r)
{
    const struct operation *ops;
    uint32_t n;
    bool taken;
    enum etcd_error e = txn_compares_hold(t, r->compare, r->n_compare, &taken);

    if (t->n_path == t->path_capacity) {
        t->path_capacity = t->path_capacity == 0 ? 16 : t->path_capacity * 2;
        t->path = mem_realloc(t->path, t->path_capacity * sizeof *t->path);
    }
    t->path[t->n_path++] = taken;
    ops = branch_of(r, taken, &n);
    for (uint32_t i = 0; i < n && e == ETCD_OK; i++)
        if (ops[i].kind == OPERATION_TXN)
            e = decide_path(t, &ops[i].txn);
    return e;
}

/* In a transaction the needed key is looked for before the lease; alone the other way round. */
static enum etcd_error
check_put(struct txn *t, const struct put_request *r)
{
    if (r->ignore_value || r->ignore_lease) {
        struct version old;
        bool live;
        enum etcd_error e =
            key_read(t->reader, r->key, (uint64_t)t->revision, &old, &live);

        if (e != ETCD_OK)
            return e;
        if (!live)
            return ETCD_KEY_NOT_FOUND;
    }
    if (r->lease != 0 && !lease_exists(t, r->lease))
        return ETCD_LEASE_NOT_FOUND;
    return ETCD_OK;
}

static enum etcd_error
check_range(const struct txn *t, const struct range_request *r)
{
    if (r->revision > t->revision)
        return ETCD_FUTURE_REVISION;
    /* A negative revision, harmless elsewhere, is below what is compacted here. */
    if (r->revision != 0 && r->revision < t->compacted)
        return ETCD_COMPACTED;
    return ETCD_OK;
}

static enum etcd_error
check_path(struct txn *t, const struct txn_request *r, size_t *at)
{
    enum etcd_error e = ETCD_OK;
    uint32_t n;
    const struct operation *ops = branch_of(r, t->path[(*at)++], &n);

    for (uint32_t i = 0; i < n && e == ETCD_OK; i++) {
        if (ops[i].kind == OPERATION_RANGE)
            e = check_range(t, &ops[i].range);
        else if (ops[i].kind == OPERATION_PUT)
            e = check_put(t, &ops[i].put);
        else if (ops[i].kind == OPERATION_TXN)
            e = check_path(t, &ops[i].txn, at);
    }
    return e;
}

/* Adds `body` as a ResponseOp to TxnResponse.responses; body is left empty. */
static void
add_response(struct chain *out, uint32_t field, struct chain *body)
{
    wire_message_head(out, FIELD_RESPONSES, 1 + varint_size(body->length) + body->length);
    wire_message_head(out, field, body->length);
    if (body->length > COPY_MAX) {
        chain_splice(out, body);
        return;
    }
    for (uint32_t i = 0; i < body->n_links; i++) {
        const struct link *l = &body->links[i];

        chain_append(out, l->block->data + l->start, l->length);
    }
    chain_clear(body);
}

static enum etcd_error execute(struct txn *t, const struct txn_request *r, size_t *at,
                               struct chain *out);

static enum etcd_error
execute_nested(struct txn *t, const struct txn_request *r, size_t *at, struct chain *out)
{
    struct chain body;
    enum etcd_error e;

    chain_init(&body);
    wire_message_head(&body, 1, 0);
    wire_varint_field(&body, 2, t->path[*at]);
    e = execute(t, r, at, &body);
    if (e == ETCD_OK)
        add_response(out, FIELD_RESPONSE_TXN, &body);
    chain_free(&body);
    return e;
}

/* Executes the branch taken and appends its responses; at: number of its outcome in path. */
static enum etcd_error
execute(struct txn *t, const struct txn_request *r, size_t *at, struct chain *out)
{
    struct chain *body = &t->scratch;
    enum etcd_error e = ETCD_OK;
    uint32_t n;
    const struct operation *ops = branch_of(r, t->path[(*at)++], &n);

    for (uint32_t i = 0; i < n && e == ETCD_OK; i++) {
        struct response_header header = {.revision = txn_seen_revision(t)};

        switch (ops[i].kind) {
        case OPERATION_RANGE:
            e = do_range(t, &ops[i].range, &header, body);
            if (e == ETCD_OK)
                add_response(out, FIELD_RESPONSE_RANGE, body);
            break;
        case OPERATION_PUT:
            header.revision = txn_next_revision(t);
            e = do_put(t, &ops[i].put, &header, body);
            if (e == ETCD_OK)
                add_response(out, FIELD_RESPONSE_PUT, body);
            break;
        case OPERATION_DELETE_RANGE:
            e = do_delete_range(t, &ops[i].delete_range, &header, body);
            if (e == ETCD_OK)
                add_response(out, FIELD_RESPONSE_DELETE_RANGE, body);
            break;
        case OPERATION_TXN: e = execute_nested(t, &ops[i].txn, at, out); break;
        case OPERATION_NONE: /* refused by txn_validate_txn() */ break;
        }
    }
    if (e != ETCD_OK)
        chain_free(body);
    return e;
}

/*
 * The header stands first but says at the end which revision it is: space is left for the
 * longer one.  Only when the revision's length in bytes would change by one, and nothing was
 * written, does the message have to be put together anew.
 */
static void
fill_header(struct txn *t, uint8_t *place, size_t size, struct chain *out)
{
    struct response_header header = t->header;
    struct chain rest;

    header.revision = txn_seen_revision(t);
    if (wire_header_field_size(&header) == size) {
        wire_header_field_write(place, 1, &header);
        return;
    }
    chain_init(&rest);
    chain_splice(&rest, out);
    wire_header_field(out, 1, &header);
    for (uint32_t i = 0; i < rest.n_links; i++) {
        const struct link *l = &rest.links[i];
        uint32_t skip = i == 0 ? (uint32_t)size : 0;

        chain_append_block(out, l->block, l->start + skip, l->length - skip);
    }
    chain_free(&rest);
}

/* --- entry points ------------------------------------------------------------------- */

enum etcd_error
txn_put(struct txn *t, const struct put_request *r, struct chain *out)
{
    struct response_header header = t->header;
    enum etcd_error e;

    if (r->lease != 0 && !lease_exists(t, r->lease))
        return give_up(t, ETCD_LEASE_NOT_FOUND, out);
    header.revision = txn_next_revision(t);
    e = do_put(t, r, &header, out);
    return e == ETCD_OK ? e : give_up(t, e, out);
}

enum etcd_error
txn_delete_range(struct txn *t, const struct delete_range_request *r, struct chain *out)
{
    struct response_header header = t->header;
    enum etcd_error e = do_delete_range(t, r, &header, out);

    return e == ETCD_OK ? e : give_up(t, e, out);
}

enum etcd_error
txn_txn(struct txn *t, const struct txn_request *r, struct chain *out)
{
    struct response_header longest = t->header;
    size_t at = 0, size;
    uint8_t *place;
    enum etcd_error e = decide_path(t, r);

    if (e == ETCD_OK)
        e = check_path(t, r, &at);
    if (e != ETCD_OK)
        return give_up(t, e, out);
    longest.revision = txn_next_revision(t);
    size = wire_header_field_size(&longest);
    place = chain_reserve(out, size);
    chain_commit(out, size);
    wire_varint_field(out, 2, t->path[0]);
    at = 0;
    e = execute(t, r, &at, out);
    if (e != ETCD_OK)
        return give_up(t, e, out);
    fill_header(t, place, size, out);
    return ETCD_OK;
}

/* Keys attached to the lease: user keys, in the arena, in `keys`, which the caller frees. */
static enum etcd_error
attached_keys(struct txn *t, int64_t lease, struct t4_slice **keys, size_t *n)
{
    uint8_t lo[9] = {SPACE_ATTACHMENTS}, hi[9] = {SPACE_ATTACHMENTS};
    struct mvcc_walk walk;
    struct t4_slice ikey;
    struct version v;
    size_t capacity = 0;
    t4_status status;

    *keys = NULL;
    *n = 0;
    put_u64be(lo + 1, (uint64_t)lease);
    put_u64be(hi + 1, (uint64_t)lease + 1);
    mvcc_walk_begin(&walk, t->reader, slice_of(lo, sizeof lo),
                    slice_of(hi, lease == -1 ? 0 : sizeof hi), STAMP_NEWEST);
    while ((status = mvcc_walk_next(&walk, &ikey, &v)) == T4_OK) {
        if (*n == capacity) {
            capacity = capacity == 0 ? 16 : capacity * 2;
            *keys = mem_realloc(*keys, capacity * sizeof **keys);
        }
        (*keys)[(*n)++] =
            txn_keep(t, slice_of(ikey.data + sizeof lo, ikey.len - sizeof lo));
    }
    mvcc_walk_end(&walk);
    return etcd_read_error(status);
}

enum etcd_error
txn_revoke(struct txn *t, int64_t lease)
{
    struct t4_slice *keys;
    size_t n;
    enum etcd_error e = attached_keys(t, lease, &keys, &n);

    for (size_t i = 0; i < n && e == ETCD_OK; i++) {
        struct version old;
        bool live;

        e = key_read(t->reader, keys[i], (uint64_t)t->revision, &old, &live);
        if (e == ETCD_OK && live && old.lease == lease)
            delete_key(t, keys[i], &old, -1);
    }
    mem_free(keys);
    if (e != ETCD_OK)
        txn_drop_writes(t);
    return e;
}

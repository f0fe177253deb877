/*
 * decode.c - a request's bytes become a struct *_request.
 *
 * Three steps: wire_scan() bounds depth and number of items (protobuf-c recurses on the
 * machine's stack, and a few bytes of wire may unpack to hundreds), protobuf-c unpacks into
 * an arena, and the message is turned into the transport-free request, which borrows its
 * bytes.  Ranges of values are not judged here: that is txn_validate_*()'s business.
 *
 * Entry points: arena_*(), decode_*(), check_metadata().  Any thread; an arena belongs to one
 * at a time.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <string.h>

#include "api/grpc/grpc_int.h"
#include "base/encode.h"
#include "base/memory.h"
#include "pb/etcd/rpc.pb-c.h"

/* --- arena ------------------------------------------------------------------------------ */

struct arena_block {
    struct arena_block *next;
    _Alignas(16) uint8_t data[];
};

#define ARENA_BLOCK 8192u

static void *
protobuf_alloc(void *arena, size_t n)
{
    return arena_alloc(arena, n);
}

static void
protobuf_free(void *arena, void *p)
{
    (void)arena;
    (void)p;
}

void
arena_init(struct arena *a)
{
    a->allocator.alloc = protobuf_alloc;
    a->allocator.free = protobuf_free;
    a->allocator.allocator_data = a;
    a->blocks = NULL;
    a->next = a->first;
    a->end = a->first + ARENA_FIRST;
}

void *
arena_alloc(struct arena *a, size_t n)
{
    void *p;

    n = (n + 15) & ~(size_t)15;
    if ((size_t)(a->end - a->next) < n) {
        /* A large piece gets a block of its own, and what is left of the last one stays. */
        size_t size = n > ARENA_BLOCK / 2 ? n : ARENA_BLOCK;
        struct arena_block *b = mem_alloc(sizeof *b + size);

        b->next = a->blocks;
        a->blocks = b;
        if (size == n)
            return b->data;
        a->next = b->data;
        a->end = b->data + size;
    }
    p = a->next;
    a->next += n;
    return p;
}

void
arena_reset(struct arena *a)
{
    while (a->blocks != NULL) {
        struct arena_block *b = a->blocks;

        a->blocks = b->next;
        mem_free(b);
    }
    a->next = a->first;
    a->end = a->first + ARENA_FIRST;
}

/* --- messages ----------------------------------------------------------------------------- */

enum decode_result
decode_message(const struct method *method, struct t4_slice bytes, uint32_t max_txn_ops,
               struct arena *arena, ProtobufCMessage **out)
{
    uint32_t items = FLAT_ITEMS_MAX;

    if (method->schema == wire_schema_txn)
        items = max_txn_ops < UINT32_MAX / TXN_ITEMS_PER_OP
                    ? max_txn_ops * TXN_ITEMS_PER_OP
                    : UINT32_MAX;
    /* A level of a transaction is two levels of messages: RequestOp and what is in it. */
    switch (wire_scan(bytes, method->schema, 2 * TXN_DEPTH_MAX, items)) {
    case WIRE_SCAN_OK: break;
    case WIRE_SCAN_TOO_DEEP: return DECODE_TOO_DEEP;
    case WIRE_SCAN_TOO_MANY: return DECODE_TOO_MANY;
    case WIRE_SCAN_MALFORMED: return DECODE_MALFORMED;
    }
    *out =
        protobuf_c_message_unpack(method->type, &arena->allocator, bytes.len, bytes.data);
    return *out != NULL ? DECODE_OK : DECODE_MALFORMED;
}

static struct t4_slice
slice_of_binary(ProtobufCBinaryData b)
{
    return slice_of(b.data, b.len);
}

void
decode_range(const ProtobufCMessage *message, struct range_request *out)
{
    const Etcdserverpb__RangeRequest *m = (const void *)message;

    *out = (struct range_request){
        .key = slice_of_binary(m->key),
        .range_end = slice_of_binary(m->range_end),
        .limit = m->limit,
        .revision = m->revision,
        .sort_order = (int32_t)m->sort_order,
        .sort_target = (int32_t)m->sort_target,
        .serializable = m->serializable,
        .keys_only = m->keys_only,
        .count_only = m->count_only,
        .min_mod_revision = m->min_mod_revision,
        .max_mod_revision = m->max_mod_revision,
        .min_create_revision = m->min_create_revision,
        .max_create_revision = m->max_create_revision,
    };
}

void
decode_put(const ProtobufCMessage *message, struct put_request *out)
{
    const Etcdserverpb__PutRequest *m = (const void *)message;

    *out = (struct put_request){
        .key = slice_of_binary(m->key),
        .value = slice_of_binary(m->value),
        .lease = m->lease,
        .prev_kv = m->prev_kv,
        .ignore_value = m->ignore_value,
        .ignore_lease = m->ignore_lease,
    };
}

void
decode_delete_range(const ProtobufCMessage *message, struct delete_range_request *out)
{
    const Etcdserverpb__DeleteRangeRequest *m = (const void *)message;

    *out = (struct delete_range_request){
        .key = slice_of_binary(m->key),
        .range_end = slice_of_binary(m->range_end),
        .prev_kv = m->prev_kv,
    };
}

static void
decode_compare(const Etcdserverpb__Compare *m, struct compare *out)
{
    *out = (struct compare){
        .result = (int32_t)m->result,
        .target = (int32_t)m->target,
        .key = slice_of_binary(m->key),
        .range_end = slice_of_binary(m->range_end),
        .value = slice_of("", 0),
    };
    /* A union member of another target than the one compared counts as absent. */
    switch (m->target_union_case) {
    case ETCDSERVERPB__COMPARE__TARGET_UNION_VERSION:
        if (out->target == COMPARE_VERSION)
            out->number = m->version;
        break;
    case ETCDSERVERPB__COMPARE__TARGET_UNION_CREATE_REVISION:
        if (out->target == COMPARE_CREATE)
            out->number = m->create_revision;
        break;
    case ETCDSERVERPB__COMPARE__TARGET_UNION_MOD_REVISION:
        if (out->target == COMPARE_MOD)
            out->number = m->mod_revision;
        break;
    case ETCDSERVERPB__COMPARE__TARGET_UNION_VALUE:
        if (out->target == COMPARE_VALUE)
            out->value = slice_of_binary(m->value);
        break;
    case ETCDSERVERPB__COMPARE__TARGET_UNION_LEASE:
        if (out->target == COMPARE_LEASE)
            out->number = m->lease;
        break;
    default: break;
    }
}

static const struct operation *
decode_operations(Etcdserverpb__RequestOp *const *in, size_t n, struct arena *arena)
{
    struct operation *out = arena_alloc(arena, n * sizeof *out);

    memset(out, 0, n * sizeof *out);
    for (size_t i = 0; i < n; i++) {
        switch (in[i]->request_case) {
        case ETCDSERVERPB__REQUEST_OP__REQUEST_REQUEST_RANGE:
            out[i].kind = OPERATION_RANGE;
            decode_range(&in[i]->request_range->base, &out[i].range);
            break;
        case ETCDSERVERPB__REQUEST_OP__REQUEST_REQUEST_PUT:
            out[i].kind = OPERATION_PUT;
            decode_put(&in[i]->request_put->base, &out[i].put);
            break;
        case ETCDSERVERPB__REQUEST_OP__REQUEST_REQUEST_DELETE_RANGE:
            out[i].kind = OPERATION_DELETE_RANGE;
            decode_delete_range(&in[i]->request_delete_range->base, &out[i].delete_range);
            break;
        case ETCDSERVERPB__REQUEST_OP__REQUEST_REQUEST_TXN:
            out[i].kind = OPERATION_TXN;
            decode_txn(&in[i]->request_txn->base, arena, &out[i].txn);
            break;
        default: out[i].kind = OPERATION_NONE; break;
        }
    }
    return out;
}

/* Recursion: as deep as decode_message() let through. */
void
decode_txn(const ProtobufCMessage *message, struct arena *arena, struct txn_request *out)
{
    const Etcdserverpb__TxnRequest *m = (const void *)message;
    struct compare *compare = arena_alloc(arena, m->n_compare * sizeof *compare);

    for (size_t i = 0; i < m->n_compare; i++)
        decode_compare(m->compare[i], &compare[i]);
    *out = (struct txn_request){
        .compare = compare,
        .success = decode_operations(m->success, m->n_success, arena),
        .failure = decode_operations(m->failure, m->n_failure, arena),
        .n_compare = (uint32_t)m->n_compare,
        .n_success = (uint32_t)m->n_success,
        .n_failure = (uint32_t)m->n_failure,
    };
}

/* --- metadata ------------------------------------------------------------------------------- */

static struct t4_slice
slice_of_core(const grpc_slice *s)
{
    return slice_of(GRPC_SLICE_START_PTR(*s), GRPC_SLICE_LENGTH(*s));
}

/*
 * "hasleader" needs no look: a single node always leads.  "token" and "authorization" mean
 * nothing while there is no authentication.  Only the first client-api-version counts.
 */
enum etcd_error
check_metadata(const grpc_metadata_array *metadata, struct queue *q, bool is_stream,
               bool *object_durable)
{
    struct t4_slice version = {0};
    enum etcd_error error = ETCD_OK;

    for (size_t i = 0; i < metadata->count; i++) {
        struct t4_slice key = slice_of_core(&metadata->metadata[i].key);
        struct t4_slice value = slice_of_core(&metadata->metadata[i].value);

        if (slice_equal(key, slice_str("t4-durability"))) {
            bool object = slice_equal(value, slice_str("object"));

            if (!object && !slice_equal(value, slice_str("local")))
                error = ETCD_DURABILITY_UNKNOWN;
            else if (object && !node_has_store(q->api->node))
                error = ETCD_DURABILITY_UNREACHABLE;
            if (object_durable != NULL)
                *object_durable = object;
        } else if (version.data == NULL &&
                   slice_equal(key, slice_str("client-api-version"))) {
            version = value;
            if (!utf8_valid(value))
                error = ETCD_INVALID_CLIENT_VERSION;
        }
    }
    count_version(q, is_stream, version);
    return error;
}

/*
 * grpc_decode_test.c - from a request's bytes to the request, and from a chain to the bytes
 * that the client gets.
 *
 * Requests are packed by protobuf-c's generated code or written by hand where that code would
 * not write them so (unpacked lists, nesting without end).
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>

#include "api/grpc/grpc_int.h"
#include "base/buffer.h"
#include "base/memory.h"
#include "pb/etcd/rpc.pb-c.h"

#define MAX_OPS 128

static const struct method *
method_of(const char *path)
{
    for (uint32_t i = 0; i < n_methods; i++)
        if (strcmp(methods[i].path, path) == 0)
            return &methods[i];
    fail_msg("there is no method %s", path);
    return NULL;
}

static enum decode_result
decode(const char *path, struct t4_slice bytes, struct arena *arena,
       ProtobufCMessage **out)
{
    return decode_message(method_of(path), bytes, MAX_OPS, arena, out);
}

static void
pack(const ProtobufCMessage *m, struct buffer *out)
{
    buffer_clear(out);
    out->len = protobuf_c_message_pack(
        m, buffer_reserve(out, protobuf_c_message_get_packed_size(m)));
}

static void
assert_text(struct t4_slice got, const char *want)
{
    assert_true(slice_equal(got, slice_str(want)));
}

static ProtobufCBinaryData
binary(const char *text)
{
    return (ProtobufCBinaryData){strlen(text), (uint8_t *)(uintptr_t)text};
}

/* --- arena -------------------------------------------------------------------------------- */

static void
test_arena_pieces_do_not_overlap(void **state)
{
    static struct arena a;
    uint8_t *piece[400];
    size_t size[400];

    (void)state;
    arena_init(&a);
    for (int round = 0; round < 2; round++) {
        for (size_t i = 0; i < 400; i++) {
            size[i] = i % 50 == 49 ? 20000 : i * 7 % 300;
            piece[i] = arena_alloc(&a, size[i]);
            assert_int_equal((uintptr_t)piece[i] % 16, 0);
            memset(piece[i], (int)i, size[i]);
        }
        for (size_t i = 0; i < 400; i++)
            for (size_t j = 0; j < size[i]; j++)
                assert_int_equal(piece[i][j], (uint8_t)i);
        arena_reset(&a);
    }
}

/* --- requests ------------------------------------------------------------------------------- */

static void
test_range_keeps_every_field(void **state)
{
    Etcdserverpb__RangeRequest m = ETCDSERVERPB__RANGE_REQUEST__INIT;
    static struct arena a;
    struct buffer bytes = {0};
    struct range_request r;
    ProtobufCMessage *out;

    (void)state;
    m.key = binary("a");
    m.range_end = binary("b");
    m.limit = 3;
    m.revision = -4;
    m.sort_order = 77; /* an unknown number is validation's business, not lost here */
    m.sort_target = ETCDSERVERPB__RANGE_REQUEST__SORT_TARGET__VALUE;
    m.serializable = m.keys_only = true;
    m.min_mod_revision = 10;
    m.max_mod_revision = 11;
    m.min_create_revision = 12;
    m.max_create_revision = INT64_MIN;
    pack(&m.base, &bytes);
    arena_init(&a);
    assert_int_equal(decode("/etcdserverpb.KV/Range", buffer_slice(&bytes), &a, &out),
                     DECODE_OK);
    memset(bytes.data, 0xee, bytes.len); /* the message must not refer to the bytes */
    decode_range(out, &r);
    assert_text(r.key, "a");
    assert_text(r.range_end, "b");
    assert_int_equal(r.limit, 3);
    assert_int_equal(r.revision, -4);
    assert_int_equal(r.sort_order, 77);
    assert_int_equal(r.sort_target, SORT_VALUE);
    assert_true(r.serializable && r.keys_only && !r.count_only);
    assert_int_equal(r.min_mod_revision, 10);
    assert_int_equal(r.max_mod_revision, 11);
    assert_int_equal(r.min_create_revision, 12);
    assert_int_equal(r.max_create_revision, INT64_MIN);
    arena_reset(&a);
    buffer_free(&bytes);
}

static void
test_txn_keeps_its_tree(void **state)
{
    Etcdserverpb__Compare c[3] = {ETCDSERVERPB__COMPARE__INIT,
                                  ETCDSERVERPB__COMPARE__INIT,
                                  ETCDSERVERPB__COMPARE__INIT};
    Etcdserverpb__Compare *compare[3] = {&c[0], &c[1], &c[2]};
    Etcdserverpb__RequestOp o[4] = {
        ETCDSERVERPB__REQUEST_OP__INIT, ETCDSERVERPB__REQUEST_OP__INIT,
        ETCDSERVERPB__REQUEST_OP__INIT, ETCDSERVERPB__REQUEST_OP__INIT};
    Etcdserverpb__RequestOp *success[3] = {&o[0], &o[1], &o[2]}, *inner[1] = {&o[3]};
    Etcdserverpb__PutRequest put = ETCDSERVERPB__PUT_REQUEST__INIT;
    Etcdserverpb__DeleteRangeRequest del = ETCDSERVERPB__DELETE_RANGE_REQUEST__INIT;
    Etcdserverpb__TxnRequest top = ETCDSERVERPB__TXN_REQUEST__INIT, nested = top;
    static struct arena a;
    struct buffer bytes = {0};
    struct txn_request r;
    ProtobufCMessage *out;

    (void)state;
    c[0].key = binary("k");
    c[0].result = ETCDSERVERPB__COMPARE__COMPARE_RESULT__NOT_EQUAL;
    c[0].target = ETCDSERVERPB__COMPARE__COMPARE_TARGET__MOD;
    c[0].target_union_case = ETCDSERVERPB__COMPARE__TARGET_UNION_MOD_REVISION;
    c[0].mod_revision = 9;
    c[1].key = binary("v");
    c[1].range_end = binary("w");
    c[1].target = ETCDSERVERPB__COMPARE__COMPARE_TARGET__VALUE;
    c[1].target_union_case = ETCDSERVERPB__COMPARE__TARGET_UNION_VALUE;
    c[1].value = binary("text");
    c[2].key = binary("x"); /* compares the lease, but gives a version: counts as 0 */
    c[2].target = ETCDSERVERPB__COMPARE__COMPARE_TARGET__LEASE;
    c[2].target_union_case = ETCDSERVERPB__COMPARE__TARGET_UNION_VERSION;
    c[2].version = 5;
    put.key = binary("p");
    put.value = binary("value");
    put.lease = 8;
    put.prev_kv = true;
    del.key = binary("d");
    del.range_end = binary("e");
    o[0].request_case = ETCDSERVERPB__REQUEST_OP__REQUEST_REQUEST_PUT;
    o[0].request_put = &put;
    o[1].request_case = ETCDSERVERPB__REQUEST_OP__REQUEST_REQUEST_TXN;
    o[1].request_txn = &nested;
    o[3].request_case = ETCDSERVERPB__REQUEST_OP__REQUEST_REQUEST_DELETE_RANGE;
    o[3].request_delete_range = &del;
    nested.n_failure = 1;
    nested.failure = inner;
    top.n_compare = 3;
    top.compare = compare;
    top.n_success = 3; /* the third has no request in it */
    top.success = success;
    pack(&top.base, &bytes);

    arena_init(&a);
    assert_int_equal(decode("/etcdserverpb.KV/Txn", buffer_slice(&bytes), &a, &out),
                     DECODE_OK);
    decode_txn(out, &a, &r);
    assert_int_equal(r.n_compare, 3);
    assert_int_equal(r.compare[0].result, COMPARE_NOT_EQUAL);
    assert_int_equal(r.compare[0].target, COMPARE_MOD);
    assert_int_equal(r.compare[0].number, 9);
    assert_text(r.compare[1].range_end, "w");
    assert_text(r.compare[1].value, "text");
    assert_int_equal(r.compare[2].number, 0);
    assert_int_equal(r.n_success, 3);
    assert_int_equal(r.n_failure, 0);
    assert_int_equal(r.success[0].kind, OPERATION_PUT);
    assert_text(r.success[0].put.value, "value");
    assert_int_equal(r.success[0].put.lease, 8);
    assert_true(r.success[0].put.prev_kv);
    assert_int_equal(r.success[1].kind, OPERATION_TXN);
    assert_int_equal(r.success[1].txn.n_failure, 1);
    assert_int_equal(r.success[1].txn.failure[0].kind, OPERATION_DELETE_RANGE);
    assert_text(r.success[1].txn.failure[0].delete_range.range_end, "e");
    assert_int_equal(r.success[2].kind, OPERATION_NONE);
    arena_reset(&a);
    buffer_free(&bytes);
}

/* A Txn that holds one in its only operation, and so on: `levels` transactions. */
static void
nest(struct buffer *out, unsigned levels)
{
    struct buffer inner = {0};

    buffer_clear(out);
    for (unsigned i = 1; i < levels; i++) {
        buffer_clear(&inner);
        buffer_append_u8(&inner, 4 << 3 | 2); /* RequestOp.request_txn */
        buffer_append_varint(&inner, out->len);
        buffer_append(&inner, out->data, out->len);
        buffer_clear(out);
        buffer_append_u8(out, 2 << 3 | 2); /* TxnRequest.success */
        buffer_append_varint(out, inner.len);
        buffer_append(out, inner.data, inner.len);
    }
    buffer_free(&inner);
}

static void
test_nesting_is_bounded(void **state)
{
    static struct arena a;
    struct buffer bytes = {0};
    ProtobufCMessage *out;

    (void)state;
    arena_init(&a);
    nest(&bytes, TXN_DEPTH_MAX);
    assert_int_equal(decode("/etcdserverpb.KV/Txn", buffer_slice(&bytes), &a, &out),
                     DECODE_OK);
    nest(&bytes, 10000); /* would overflow the stack if it were unpacked */
    assert_int_equal(decode("/etcdserverpb.KV/Txn", buffer_slice(&bytes), &a, &out),
                     DECODE_TOO_DEEP);
    arena_reset(&a);
    buffer_free(&bytes);
}

static void
test_empty_operations_are_bounded(void **state)
{
    static struct arena a;
    struct buffer bytes = {0};
    ProtobufCMessage *out;

    (void)state;
    arena_init(&a);
    for (unsigned i = 0; i < 1u << 20; i++)
        buffer_append(&bytes, "\x12\x00", 2);
    assert_int_equal(decode("/etcdserverpb.KV/Txn", buffer_slice(&bytes), &a, &out),
                     DECODE_TOO_MANY);
    assert_null(a.blocks); /* nothing was unpacked */
    bytes.len = 2 * 129; /* one more than allowed is seen by validation, which says so */
    assert_int_equal(decode("/etcdserverpb.KV/Txn", buffer_slice(&bytes), &a, &out),
                     DECODE_OK);
    arena_reset(&a);
    bytes.len = 0;
    for (unsigned i = 0; i < 100000; i++)
        buffer_append(&bytes, "\x18\x01", 2); /* the same field again and again */
    assert_int_equal(decode("/etcdserverpb.KV/Range", buffer_slice(&bytes), &a, &out),
                     DECODE_TOO_MANY);
    buffer_free(&bytes);
}

static void
test_malformed_is_refused(void **state)
{
    static const struct {
        const char *bytes;
        size_t n;
    } bad[] = {
        {"\x0a\x05"
         "ab",
         4},             /* key longer than the message */
        {"\x0a", 1},     /* no length */
        {"\x07", 1},     /* wire type 7 */
        {"\x02\x00", 2}, /* field 0 */
        {"\x08\x01", 2}, /* key as a number */
        {"\x18\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 12}, /* 11 byte varint */
    };
    static struct arena a;
    ProtobufCMessage *out;

    (void)state;
    arena_init(&a);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_int_equal(
            decode("/etcdserverpb.KV/Range", slice_of(bad[i].bytes, bad[i].n), &a, &out),
            DECODE_MALFORMED);
    /* An unknown field is skipped. */
    assert_int_equal(
        decode("/etcdserverpb.KV/Range", slice_of("\xf8\x01\x05\x0a\x01k", 6), &a, &out),
        DECODE_OK);
    assert_int_equal(((Etcdserverpb__RangeRequest *)out)->key.len, 1);
    arena_reset(&a);
}

/* proto3 packs `filters`; older clients do not. */
static void
test_filters_packed_or_not(void **state)
{
    static const struct {
        const char *bytes;
        size_t n;
    } form[] = {
        {"\x0a\x07\x0a\x01k\x2a\x02\x01\x00", 9},
        {"\x0a\x07\x0a\x01k\x28\x01\x28\x00", 9},
    };
    static struct arena a;
    ProtobufCMessage *out;

    (void)state;
    arena_init(&a);
    for (size_t i = 0; i < 2; i++) {
        const Etcdserverpb__WatchRequest *m;

        assert_int_equal(decode("/etcdserverpb.Watch/Watch",
                                slice_of(form[i].bytes, form[i].n), &a, &out),
                         DECODE_OK);
        m = (const void *)out;
        assert_int_equal(m->request_union_case,
                         ETCDSERVERPB__WATCH_REQUEST__REQUEST_UNION_CREATE_REQUEST);
        assert_int_equal(m->create_request->n_filters, 2);
        assert_int_equal(m->create_request->filters[0], 1);
        assert_int_equal(m->create_request->filters[1], 0);
        arena_reset(&a);
    }
}

/* --- metadata --------------------------------------------------------------------------------- */

static struct grpc_api api;
static struct queue queue = {
    .api = &api, .versions = {{VERSION_OTHER, {0}}}, .n_versions = 1};

static enum etcd_error
check_one(const char *key, const char *value)
{
    grpc_metadata m = {.key = grpc_slice_from_static_string(key),
                       .value = grpc_slice_from_static_string(value)};
    grpc_metadata_array list = {1, 1, &m};

    return check_metadata(&list, &queue, false, NULL);
}

/* A client may say anything: labels stay few, short and printable. */
static void
test_versions(void **state)
{
    char version[16];
    uint64_t others = atomic_load(&queue.versions[0].n[0]);

    (void)state;
    check_one("client-api-version", "3.6.4");
    check_one("client-api-version", "3.6.4");
    check_one("user-agent", "x");
    assert_int_equal(queue.n_versions, 3);
    assert_string_equal(queue.versions[1].name, "3.6.4");
    assert_int_equal(queue.versions[1].n[0], 2);
    assert_string_equal(queue.versions[2].name, "unknown");
    check_one("client-api-version", "3.6\"} 1\n");
    check_one("client-api-version", "a-version-of-twenty-four");
    check_one("client-api-version", "");
    assert_int_equal(queue.n_versions, 3);
    for (int i = 0; i < 30; i++) {
        snprintf(version, sizeof version, "4.%d", i);
        check_one("client-api-version", version);
    }
    assert_int_equal(queue.n_versions, VERSIONS_MAX);
    assert_int_equal(queue.versions[0].n[0], others + 3 + 30 - (VERSIONS_MAX - 3));
}

static void
test_metadata(void **state)
{
    static const char *const bad[] = {
        "\xff", "3.\xc0\x80", "\xed\xa0\x80", "\xf4\x90\x80\x80", "\xe2\x82",
        "\x80", "\xc3(",      "\xe0\x80\x80", "\xf0\x80\x80\x80", "\xf8\x88\x80\x80\x80"};
    static const char *const good[] = {"",
                                       "3.6.4",
                                       "\xc3\xa4",
                                       "\xe2\x82\xac",
                                       "\xf0\x9f\x98\x80",
                                       "\xef\xbf\xbf",
                                       "\xf4\x8f\xbf\xbf",
                                       "\xed\x9f\xbf"};

    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_int_equal(check_one("client-api-version", bad[i]),
                         ETCD_INVALID_CLIENT_VERSION);
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++)
        assert_int_equal(check_one("client-api-version", good[i]), ETCD_OK);
    assert_int_equal(check_one("t4-durability", "local"), ETCD_OK);
    assert_int_equal(check_one("t4-durability", "object"), ETCD_DURABILITY_UNREACHABLE);
    assert_int_equal(check_one("t4-durability", ""), ETCD_DURABILITY_UNKNOWN);
    assert_int_equal(check_one("hasleader", "true"), ETCD_OK);
    assert_int_equal(check_one("token", "\xff"), ETCD_OK);
}

/* --- outgoing messages --------------------------------------------------------------------------- */

/* Every way a piece can go out: within the slice, copied in several, by reference. */
static void
test_message_takes_a_chain(void **state)
{
    static const size_t size[] = {1,
                                  GRPC_SLICE_INLINED_SIZE,
                                  GRPC_SLICE_INLINED_SIZE + 1,
                                  69,
                                  70,
                                  71,
                                  500,
                                  5000,
                                  70000,
                                  300000};
    static uint8_t want[500000];
    size_t n = sizeof size / sizeof size[0], length = 0;
    struct block *shared = block_new(200, NULL);
    grpc_byte_buffer b;
    struct chain c;
    struct t4_slice got;
    void *copy;

    (void)state;
    grpc_init();
    memset(shared->data, 's', 200);
    chain_init(&c);
    for (size_t i = 0; i < n; i++) {
        memset(want + length, 'a' + (int)i, size[i]);
        chain_append(&c, want + length, size[i]);
        length += size[i];
        chain_append_block(&c, shared, 10, i % 2 == 0 ? 20 : 150);
        memset(want + length, 's', i % 2 == 0 ? 20 : 150);
        length += i % 2 == 0 ? 20 : 150;
    }
    message_init(&b);
    message_take(&b, &c);
    assert_int_equal(c.length, 0);
    assert_int_equal(grpc_byte_buffer_length(&b), length);
    got = message_bytes(&b, &copy);
    assert_true(slice_equal(got, slice_of(want, length)));
    mem_free(copy);
    assert_int_equal(atomic_load(&shared->references), 1 + 5); /* the five of 150 bytes */
    message_clear(&b);
    assert_int_equal(atomic_load(&shared->references), 1);
    block_unref(shared);
    chain_free(&c);
    grpc_shutdown_blocking();
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_arena_pieces_do_not_overlap),
        cmocka_unit_test(test_range_keeps_every_field),
        cmocka_unit_test(test_txn_keeps_its_tree),
        cmocka_unit_test(test_nesting_is_bounded),
        cmocka_unit_test(test_empty_operations_are_bounded),
        cmocka_unit_test(test_malformed_is_refused),
        cmocka_unit_test(test_filters_packed_or_not),
        cmocka_unit_test(test_versions),
        cmocka_unit_test(test_metadata),
        cmocka_unit_test(test_message_takes_a_chain),
    };

    return cmocka_run_group_tests_name("grpc_decode", tests, NULL, NULL);
}

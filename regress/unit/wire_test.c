/*
 * wire_test.c - what a client reads of hand-encoded messages, and what the look at requests
 * lets pass.
 *
 * Messages are read back by protobuf-c's generated code; chains are compared with a flat copy
 * that a second, plain implementation keeps.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/buffer.h"
#include "base/memory.h"
#include "engine_bed.h"
#include "pb/etcd/rpc.pb-c.h"
#include "wire/encode.h"
#include "wire/etcd_error.h"

static struct t4_slice
flat(const struct chain *c)
{
    static uint8_t bytes[4 << 20];

    assert_true(c->length <= sizeof bytes);
    chain_copy(c, bytes);
    return slice_of(bytes, c->length);
}

/* --- chains ------------------------------------------------------------------------- */

static void
check_equal(const struct chain *c, const struct buffer *expected)
{
    size_t sum = 0;

    for (uint32_t i = 0; i < c->n_links; i++)
        sum += c->links[i].length;
    assert_int_equal(sum, c->length);
    assert_true(slice_equal(flat(c), buffer_slice(expected)));
}

static void
fill(uint8_t *p, size_t n, struct chance *c)
{
    uint8_t first = (uint8_t)chance_next(c);

    for (size_t i = 0; i < n; i++)
        p[i] = (uint8_t)(first + i);
}

static size_t
some_size(struct chance *c)
{
    static const size_t limit[] = {8, 100, 600, 5000, 70000, 200000};

    return (size_t)chance_below(c, limit[chance_below(c, 6)]);
}

/* Adds something to the chain and the same to its reference; b: bytes to take from. */
static void
grow_some(struct chain *chain, struct buffer *reference, struct chance *c)
{
    static uint8_t bytes[200000];
    size_t n = some_size(c), part;

    fill(bytes, n, c);
    if (n <= CHAIN_BLOCK_MAX && chance_below(c, 2) == 0) {
        part = n == 0 ? 0 : (size_t)chance_below(c, n + 1);
        memcpy(chain_reserve(chain, n), bytes, part);
        chain_commit(chain, part);
        buffer_append(reference, bytes, part);
    } else {
        chain_append(chain, bytes, n);
        buffer_append(reference, bytes, n);
    }
}

static void
chains_hold_what_is_put_in(void **state)
{
    struct chance c = {test_seed()};

    (void)state;
    for (int round = 0; round < 300; round++) {
        struct chain a, b;
        struct buffer ra = {0}, rb = {0};

        chain_init(&a);
        chain_init(&b);
        for (uint64_t steps = chance_below(&c, 12); steps > 0; steps--) {
            switch (chance_below(&c, 8)) {
            case 0: /* the tail goes over, and the chain goes on behind it */
                grow_some(&b, &rb, &c);
                chain_splice(&a, &b);
                buffer_append_slice(&ra, buffer_slice(&rb));
                buffer_clear(&rb);
                assert_int_equal(b.length, 0);
                break;
            case 1:
                chain_clear(&b);
                buffer_clear(&rb);
                break;
            case 2: /* a part of what b holds is shared */
                grow_some(&b, &rb, &c);
                if (b.n_links > 0 && b.links[0].length > 0) {
                    struct link *l = &b.links[0];
                    uint32_t from = (uint32_t)chance_below(&c, l->length);

                    chain_append_block(&a, l->block, l->start + from, l->length - from);
                    buffer_append(&ra, l->block->data + l->start + from,
                                  l->length - from);
                }
                break;
            case 3: grow_some(&b, &rb, &c); break;
            default: grow_some(&a, &ra, &c);
            }
        }
        check_equal(&a, &ra);
        check_equal(&b, &rb);
        chain_free(&b); /* a's shared blocks outlive it */
        check_equal(&a, &ra);
        chain_free(&a);
        buffer_free(&ra);
        buffer_free(&rb);
    }
}

static void
a_cleared_chain_leaves_shared_bytes_alone(void **state)
{
    struct chain source, watcher;
    const void *kept;

    (void)state;
    chain_init(&source);
    chain_init(&watcher);
    chain_append(&source, "event", 5);
    chain_append_block(&watcher, source.links[0].block, 0, 5);
    chain_clear(&source);
    chain_append(&source, "other", 5);
    assert_memory_equal(flat(&watcher).data, "event", 5);
    kept = source.links[0].block;
    chain_clear(&source); /* nobody shares this one: used again */
    chain_append(&source, "third", 5);
    assert_ptr_equal(source.links[0].block, kept);
    assert_memory_equal(flat(&source).data, "third", 5);
    chain_free(&source);
    chain_free(&watcher);
}

static void
a_small_message_is_one_block(void **state)
{
    static uint8_t large[300000];
    struct chain c;

    (void)state;
    chain_init(&c);
    for (int i = 0; i < 50; i++)
        chain_append(&c, "1234567", 7);
    assert_int_equal(c.n_links, 1);
    assert_true(c.links[0].block->capacity + sizeof(struct block) <= 512);
    chain_append(&c, large, sizeof large);
    assert_int_equal(c.n_links,
                     2); /* what was left of the first, then a block of its own */
    chain_free(&c);
}

/* --- messages ----------------------------------------------------------------------- */

static const int64_t numbers[] = {0,         1, 127, 128, 16383, 16384, INT64_C(1) << 35,
                                  INT64_MAX, -1};
#define NUMBERS (sizeof numbers / sizeof numbers[0])

static void
check_key_value(const Mvccpb__KeyValue *got, const struct key_value *kv)
{
    assert_non_null(got);
    assert_true(slice_equal(slice_of(got->key.data, got->key.len), kv->key));
    assert_true(slice_equal(slice_of(got->value.data, got->value.len), kv->value));
    assert_int_equal(got->create_revision, kv->create_revision);
    assert_int_equal(got->mod_revision, kv->mod_revision);
    assert_int_equal(got->version, kv->version);
    assert_int_equal(got->lease, kv->lease);
}

static void
headers_and_key_values(void **state)
{
    static const size_t sizes[] = {0, 1, 127, 128, 300, 4000, 4100, 65536, 200000};
    static uint8_t bytes[200000];
    struct chance chance = {test_seed()};

    (void)state;
    fill(bytes, sizeof bytes, &chance);
    for (int round = 0; round < 500; round++) {
        struct key_value kv[5];
        struct response_header h = {(uint64_t)numbers[chance_below(&chance, NUMBERS)],
                                    (uint64_t)numbers[chance_below(&chance, NUMBERS)],
                                    (uint64_t)numbers[chance_below(&chance, NUMBERS)],
                                    numbers[chance_below(&chance, NUMBERS)]};
        Etcdserverpb__RangeResponse *got;
        struct chain c;
        size_t before;

        chain_init(&c);
        wire_header_field(&c, 1, &h);
        assert_int_equal(c.length, wire_header_field_size(&h));
        for (int i = 0; i < 5; i++) {
            kv[i] = (struct key_value){
                slice_of(bytes, sizes[chance_below(&chance, 6)]),
                slice_of(bytes, sizes[chance_below(&chance, 9)]),
                numbers[chance_below(&chance, NUMBERS)],
                numbers[chance_below(&chance, NUMBERS)],
                numbers[chance_below(&chance, NUMBERS)],
                numbers[chance_below(&chance, NUMBERS)],
            };
            before = c.length;
            wire_key_value_field(&c, 2, &kv[i]);
            assert_int_equal(c.length - before,
                             1 + varint_size(wire_key_value_size(&kv[i])) +
                                 wire_key_value_size(&kv[i]));
        }
        wire_varint_field(&c, 3, 1);
        wire_varint_field(&c, 4, (uint64_t)numbers[round % NUMBERS]);
        got = etcdserverpb__range_response__unpack(NULL, c.length, flat(&c).data);
        assert_non_null(got);
        assert_true(got->header->cluster_id == h.cluster_id);
        assert_true(got->header->member_id == h.member_id);
        assert_true(got->header->raft_term == h.raft_term);
        assert_int_equal(got->header->revision, h.revision);
        assert_int_equal(got->n_kvs, 5);
        for (int i = 0; i < 5; i++)
            check_key_value(got->kvs[i], &kv[i]);
        assert_true(got->more);
        assert_int_equal(got->count, numbers[round % NUMBERS]);
        /* Not one byte more than the shortest form. */
        assert_int_equal(etcdserverpb__range_response__get_packed_size(got), c.length);
        etcdserverpb__range_response__free_unpacked(got, NULL);
        chain_free(&c);
    }
}

static void
events(void **state)
{
    static uint8_t large[9000];
    const struct key_value kv = {slice_str("key"), slice_str("new"), 2, 300, 4, 5};
    const struct key_value gone = {.key = slice_str("gone"), .mod_revision = 300};
    const struct key_value prev = {
        slice_str("gone"), slice_of(large, sizeof large), 7, 8, 9, 0};
    Etcdserverpb__WatchResponse *got;
    struct chain c;

    (void)state;
    chain_init(&c);
    wire_event_field(&c, WIRE_EVENT_PUT, &kv, NULL);
    wire_event_field(&c, WIRE_EVENT_DELETE, &gone, &prev);
    wire_event_field(&c, WIRE_EVENT_PUT, &kv, &kv);
    got = etcdserverpb__watch_response__unpack(NULL, c.length, flat(&c).data);
    assert_non_null(got);
    assert_int_equal(got->n_events, 3);
    assert_int_equal(got->events[0]->type, MVCCPB__EVENT__EVENT_TYPE__PUT);
    check_key_value(got->events[0]->kv, &kv);
    assert_null(got->events[0]->prev_kv);
    assert_int_equal(got->events[1]->type, MVCCPB__EVENT__EVENT_TYPE__DELETE);
    check_key_value(got->events[1]->kv, &gone);
    check_key_value(got->events[1]->prev_kv, &prev);
    check_key_value(got->events[2]->prev_kv, &kv);
    assert_int_equal(etcdserverpb__watch_response__get_packed_size(got), c.length);
    etcdserverpb__watch_response__free_unpacked(got, NULL);
    chain_free(&c);
}

static void
embedded_messages_and_defaults(void **state)
{
    const struct response_header none = {0};
    Etcdserverpb__PutResponse *got;
    struct chain c, inner;

    (void)state;
    chain_init(&c);
    chain_init(&inner);
    wire_varint_field(&c, 1, 0);
    wire_bytes_field(&c, 2, slice_of(NULL, 0));
    assert_int_equal(c.length, 0);
    wire_header_field(&c, 1, &none); /* present though empty */
    wire_bytes_field(&inner, 1, slice_str("k"));
    wire_message_field(&c, 2, &inner);
    assert_int_equal(inner.length, 0);
    got = etcdserverpb__put_response__unpack(NULL, c.length, flat(&c).data);
    assert_non_null(got);
    assert_non_null(got->header);
    assert_int_equal(got->prev_kv->key.len, 1);
    etcdserverpb__put_response__free_unpacked(got, NULL);
    chain_free(&c);
}

/* --- the look at a request ---------------------------------------------------------- */

static enum wire_scan_result
scan_bytes(const struct wire_schema *schema, size_t n, const char *bytes)
{
    uint8_t *exact = mem_alloc(n + 1); /* a read past the end is found by ASan */
    enum wire_scan_result r;

    exact = mem_realloc(exact, n > 0 ? n : 1);
    memcpy(exact, bytes, n);
    r = wire_scan(slice_of(exact, n), schema, 64, 1000);
    mem_free(exact);
    return r;
}

static void
malformed_messages_are_refused(void **state)
{
    static const struct {
        const char *bytes;
        size_t n;
        enum wire_scan_result expected;
    } cases[] = {
        {"", 0, WIRE_SCAN_OK},
        {"\x08\x01", 2, WIRE_SCAN_OK},
        {"\x08", 1, WIRE_SCAN_MALFORMED},     /* no value */
        {"\x08\xff", 2, WIRE_SCAN_MALFORMED}, /* cut off */
        {"\x88", 1, WIRE_SCAN_MALFORMED},     /* tag cut off */
        {"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 11, WIRE_SCAN_OK},
        {"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02", 11, WIRE_SCAN_MALFORMED},
        {"\x08\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01", 12, WIRE_SCAN_MALFORMED},
        {"\x88\x80\x80\x80\x80\x80\x01\x01", 8, WIRE_SCAN_MALFORMED}, /* overlong tag */
        {"\x00\x01", 2, WIRE_SCAN_MALFORMED},                         /* field 0 */
        {"\x0b\x0c", 2, WIRE_SCAN_MALFORMED},                         /* a group */
        {"\x0e\x01", 2, WIRE_SCAN_MALFORMED},                         /* wire type 6 */
        {"\x0f\x01", 2, WIRE_SCAN_MALFORMED},                         /* wire type 7 */
        {"\x09"
         "12345678",
         9, WIRE_SCAN_OK},
        {"\x09"
         "1234567",
         8, WIRE_SCAN_MALFORMED},
        {"\x0d"
         "1234",
         5, WIRE_SCAN_OK},
        {"\x0d"
         "123",
         4, WIRE_SCAN_MALFORMED},
        {"\x12\x03"
         "abc",
         5, WIRE_SCAN_OK},
        {"\x12\x04"
         "abc",
         5, WIRE_SCAN_MALFORMED},
        {"\x12\xff\xff\xff\xff\x0f"
         "abc",
         9, WIRE_SCAN_MALFORMED},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        if (scan_bytes(wire_schema_flat, cases[i].n, cases[i].bytes) != cases[i].expected)
            fail_msg("case %zu", i);
    /* The same bytes are opaque as a string and looked into as a message. */
    assert_int_equal(scan_bytes(wire_schema_flat, 4, "\x12\x02\x08\xff"), WIRE_SCAN_OK);
    assert_int_equal(scan_bytes(wire_schema_txn, 4, "\x12\x02\x08\xff"),
                     WIRE_SCAN_MALFORMED);
    assert_int_equal(scan_bytes(wire_schema_txn, 2, "\x10\x01"), WIRE_SCAN_MALFORMED);
    /* An inner message does not reach past the outer one. */
    assert_int_equal(scan_bytes(wire_schema_txn, 6, "\x12\x02\x12\x02\x08\x01"),
                     WIRE_SCAN_MALFORMED);
}

/* TxnRequest nested `levels` deep: success { request_txn { success { ... } } }, bottom up. */
static struct t4_slice
nested_txn(struct buffer *b, uint32_t levels)
{
    struct buffer inner = {0};

    buffer_clear(b);
    while (levels-- > 1) {
        buffer_clear(&inner);
        buffer_append_u8(&inner, 0x22);
        buffer_append_varint(&inner, b->len);
        buffer_append_slice(&inner, buffer_slice(b));
        buffer_clear(b);
        buffer_append_u8(b, 0x12);
        buffer_append_varint(b, inner.len);
        buffer_append_slice(b, buffer_slice(&inner));
    }
    buffer_free(&inner);
    return buffer_slice(b);
}

static void
depth_and_number_are_bounded(void **state)
{
    struct buffer b = {0};

    (void)state;
    assert_int_equal(wire_scan(nested_txn(&b, 32), wire_schema_txn, 64, 1000),
                     WIRE_SCAN_OK);
    assert_int_equal(wire_scan(nested_txn(&b, 33), wire_schema_txn, 64, 1000),
                     WIRE_SCAN_OK);
    assert_int_equal(wire_scan(nested_txn(&b, 34), wire_schema_txn, 64, 1000),
                     WIRE_SCAN_TOO_DEEP);
    assert_int_equal(wire_scan(nested_txn(&b, 34), wire_schema_txn, 1000, 1000),
                     WIRE_SCAN_TOO_DEEP); /* the stack has its end, whatever is asked */
    assert_int_equal(wire_scan(nested_txn(&b, 10000), wire_schema_txn, 64, 100000),
                     WIRE_SCAN_TOO_DEEP);
    assert_int_equal(wire_scan(nested_txn(&b, 3), wire_schema_txn, 4, 4), WIRE_SCAN_OK);
    assert_int_equal(wire_scan(nested_txn(&b, 3), wire_schema_txn, 3, 4),
                     WIRE_SCAN_TOO_DEEP);
    assert_int_equal(wire_scan(nested_txn(&b, 3), wire_schema_txn, 4, 3),
                     WIRE_SCAN_TOO_MANY);

    /* 1 M empty operations in 2 MiB. */
    buffer_clear(&b);
    while (b.len < 2u << 20)
        buffer_append(&b, "\x12\x00", 2);
    assert_int_equal(wire_scan(buffer_slice(&b), wire_schema_txn, 64, 100000),
                     WIRE_SCAN_TOO_MANY);
    assert_int_equal(wire_scan(buffer_slice(&b), wire_schema_txn, 64, 1u << 20),
                     WIRE_SCAN_OK);

    /* Repeated and unknown fields count in flat messages as well. */
    assert_int_equal(
        wire_scan(slice_of("\x08\x01\x08\x01\x08\x01", 6), wire_schema_flat, 64, 2),
        WIRE_SCAN_OK);
    assert_int_equal(
        wire_scan(slice_of("\x08\x01\x08\x01\x08\x01", 6), wire_schema_flat, 64, 1),
        WIRE_SCAN_TOO_MANY);
    assert_int_equal(
        wire_scan(slice_of("\x82\x04\x00\x8a\x04\x00", 6), wire_schema_flat, 64, 1),
        WIRE_SCAN_OK); /* fields 64 and 65 */
    assert_int_equal(
        wire_scan(slice_of("\x8a\x04\x00\x92\x04\x00", 6), wire_schema_flat, 64, 1),
        WIRE_SCAN_TOO_MANY);
    buffer_free(&b);
}

static void
ordinary_requests_pass(void **state)
{
    Etcdserverpb__TxnRequest txn = ETCDSERVERPB__TXN_REQUEST__INIT;
    Etcdserverpb__Compare compare = ETCDSERVERPB__COMPARE__INIT, *compares[] = {&compare};
    Etcdserverpb__RequestOp op = ETCDSERVERPB__REQUEST_OP__INIT, *ops[] = {&op, &op};
    Etcdserverpb__PutRequest put = ETCDSERVERPB__PUT_REQUEST__INIT;
    Etcdserverpb__WatchRequest watch = ETCDSERVERPB__WATCH_REQUEST__INIT;
    Etcdserverpb__WatchCreateRequest create = ETCDSERVERPB__WATCH_CREATE_REQUEST__INIT;
    uint8_t bytes[256];

    (void)state;
    compare.key.data = put.key.data = create.key.data = (uint8_t *)"key";
    compare.key.len = put.key.len = create.key.len = 3;
    compare.range_end = compare.key;
    compare.target_union_case = ETCDSERVERPB__COMPARE__TARGET_UNION_LEASE;
    compare.lease = -1;
    txn.compare = compares;
    txn.n_compare = 1;
    op.request_case = ETCDSERVERPB__REQUEST_OP__REQUEST_REQUEST_PUT;
    op.request_put = &put;
    put.lease = INT64_MAX;
    txn.success = txn.failure = ops;
    txn.n_success = txn.n_failure = 2;
    /* One item for the compare, two for each operation. */
    assert_int_equal(
        wire_scan(slice_of(bytes, etcdserverpb__txn_request__pack(&txn, bytes)),
                  wire_schema_txn, 2, 9),
        WIRE_SCAN_OK);
    watch.request_union_case = ETCDSERVERPB__WATCH_REQUEST__REQUEST_UNION_CREATE_REQUEST;
    watch.create_request = &create;
    assert_int_equal(
        wire_scan(slice_of(bytes, etcdserverpb__watch_request__pack(&watch, bytes)),
                  wire_schema_watch, 1, 1),
        WIRE_SCAN_OK);
}

static void
errors_have_etcds_code_and_text(void **state)
{
    (void)state;
    assert_int_equal(etcd_error_code(ETCD_OK), 0);
    assert_string_equal(etcd_error_text(ETCD_OK), "");
    assert_int_equal(etcd_error_code(ETCD_COMPACTED), 11);
    assert_string_equal(etcd_error_text(ETCD_COMPACTED),
                        "etcdserver: mvcc: required revision has been compacted");
    for (int e = 1; e < ETCD_ERROR_COUNT; e++) {
        const char *text = etcd_error_text((enum etcd_error)e);

        assert_in_range(etcd_error_code((enum etcd_error)e), 1, 16);
        assert_true(strlen(text) > 0 && strlen(text) < 256);
        for (int other = 1; other < e; other++) /* clients tell errors apart by it */
            assert_string_not_equal(text, etcd_error_text((enum etcd_error)other));
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(chains_hold_what_is_put_in),
        cmocka_unit_test(a_cleared_chain_leaves_shared_bytes_alone),
        cmocka_unit_test(a_small_message_is_one_block),
        cmocka_unit_test(headers_and_key_values),
        cmocka_unit_test(events),
        cmocka_unit_test(embedded_messages_and_defaults),
        cmocka_unit_test(malformed_messages_are_refused),
        cmocka_unit_test(depth_and_number_are_bounded),
        cmocka_unit_test(ordinary_requests_pass),
        cmocka_unit_test(errors_have_etcds_code_and_text),
    };

    return cmocka_run_group_tests_name("wire", tests, NULL, NULL);
}

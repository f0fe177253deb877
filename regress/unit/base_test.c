/*
 * base_test.c - checksums, buffers, and the byte formats of entries and records.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <setjmp.h>

#include <cmocka.h>

#include "base/crc32c.h"
#include "base/encode.h"
#include "base/memory.h"
#include "fmt/entry.h"
#include "fmt/record.h"

static uint64_t
chance(void)
{
    static uint64_t state = 1;

    state = state * 6364136223846793005u + 1442695040888963407u;
    return state >> 20;
}

/* --- CRC-32C --- */

static void
crc_vectors_of_rfc_3720(void **state)
{
    static const uint8_t read_command[48] = {
        0x01, 0xc0, 0, 0, 0, 0, 0, 0, 0,    0, 0, 0,    0, 0, 0, 0,
        0x14, 0,    0, 0, 0, 0, 4, 0, 0,    0, 0, 0x14, 0, 0, 0, 0x18,
        0x28, 0,    0, 0, 0, 0, 0, 0, 0x02, 0, 0, 0,    0, 0, 0, 0,
    };
    uint8_t data[5][32];
    static const uint32_t expected[5] = {0x8a9136aa, 0x62a8ab43, 0x46dd794e, 0x113fdb5c};

    (void)state;
    for (unsigned i = 0; i < 32; i++) {
        data[0][i] = 0;
        data[1][i] = 0xff;
        data[2][i] = (uint8_t)i;
        data[3][i] = (uint8_t)(31 - i);
    }
    for (unsigned i = 0; i < 4; i++) {
        assert_int_equal(crc32c(0, data[i], 32), expected[i]);
        assert_int_equal(crc32c_portable(0, data[i], 32), expected[i]);
    }
    assert_int_equal(crc32c(0, read_command, 48), 0xd9963a56);
    assert_int_equal(crc32c_portable(0, read_command, 48), 0xd9963a56);
    assert_int_equal(crc32c(0, "", 0), 0);
}

static void
crc_forms_agree_and_continue(void **state)
{
    uint8_t data[300];

    (void)state;
    for (unsigned i = 0; i < sizeof data; i++)
        data[i] = (uint8_t)chance();
    for (size_t n = 0; n <= sizeof data; n++) {
        uint32_t whole = crc32c(0, data, n);
        size_t cut = n > 0 ? chance() % n : 0;

        assert_int_equal(whole, crc32c_portable(0, data, n));
        assert_int_equal(whole, crc32c(crc32c(0, data, cut), data + cut, n - cut));
    }
}

/* --- buffers --- */

static void
buffer_numbers_round_trip(void **state)
{
    struct buffer b = {0};
    struct byte_reader r;

    (void)state;
    for (unsigned i = 0; i < 64; i++) {
        buffer_append_varint(&b, (uint64_t)1 << i);
        buffer_append_varint(&b, ((uint64_t)1 << i) - 1);
    }
    buffer_append_varint(&b, UINT64_MAX);
    buffer_append_u8(&b, 7);
    buffer_append_u32(&b, 0xdeadbeef);
    buffer_append_u64(&b, 0x0123456789abcdefu);
    r = reader_of(buffer_slice(&b));
    for (unsigned i = 0; i < 64; i++) {
        assert_true(reader_varint(&r) == (uint64_t)1 << i);
        assert_true(reader_varint(&r) == ((uint64_t)1 << i) - 1);
    }
    assert_true(reader_varint(&r) == UINT64_MAX);
    assert_int_equal(reader_u8(&r), 7);
    assert_int_equal(reader_u32(&r), 0xdeadbeef);
    assert_true(reader_u64(&r) == 0x0123456789abcdefu);
    assert_false(r.bad);
    assert_int_equal(reader_left(&r), 0);
    buffer_free(&b);
}

static void
reader_stays_bad(void **state)
{
    static const uint8_t overlong[] = {0x80, 0x80, 0x80, 0x80, 0x80, 0x80,
                                       0x80, 0x80, 0x80, 0x02, 1,    1};
    static const uint8_t counted[] = {5, 'a', 'b'};
    struct byte_reader r = reader_of(slice_of(overlong, sizeof overlong));

    (void)state;
    assert_int_equal(reader_varint(&r), 0); /* more than 64 bits */
    assert_true(r.bad);
    assert_int_equal(reader_u8(&r), 0);
    assert_int_equal(reader_left(&r), 0);
    r = reader_of(slice_of(counted, sizeof counted));
    assert_int_equal(reader_counted(&r).len, 0); /* says 5, has 2 */
    assert_true(r.bad);
    r = reader_of(slice_of(counted, 3));
    reader_u32(&r);
    assert_true(r.bad);
}

/* --- entries --- */

static void
random_bytes(struct buffer *b, size_t n)
{
    buffer_clear(b);
    while (n-- > 0)
        buffer_append_u8(b, (uint8_t)(chance() % 5 == 0 ? 0 : chance()));
}

static void
make_entry(struct buffer *out, struct entry *e, struct mutation *m, struct buffer *keys,
           struct buffer *values)
{
    *e = (struct entry){.index = chance(),
                        .term = chance() % 100,
                        .revision = (int64_t)chance(),
                        .time_ms = chance(),
                        .kind = chance() % 4 == 0 ? ENTRY_COMPACTION : ENTRY_NORMAL,
                        .mutations = (uint32_t)(chance() % 6)};
    if (e->kind == ENTRY_COMPACTION)
        e->compact_revision = (int64_t)chance();
    entry_encode_head(out, e);
    for (uint32_t i = 0; i < e->mutations; i++) {
        size_t before = out->len;

        random_bytes(&keys[i], 1 + chance() % 40);
        random_bytes(&values[i], chance() % 200);
        m[i] = (struct mutation){.space = (uint8_t) "ksl"[chance() % 3],
                                 .flags = chance() % 3 == 0 ? MUTATION_TOMBSTONE : 0,
                                 .key = buffer_slice(&keys[i])};
        if (m[i].flags == 0) {
            m[i].value = buffer_slice(&values[i]);
            if (m[i].space == SPACE_KEYS) {
                m[i].create_revision = (int64_t)chance();
                m[i].version = (int64_t)chance();
                m[i].lease = -(int64_t)chance(); /* any 64 bits */
            }
        }
        entry_add(out, &m[i]);
        assert_true(out->len - before <= entry_mutation_bound(&m[i]));
    }
}

static void
entry_round_trip(void **state)
{
    struct buffer out = {0}, keys[6] = {0}, values[6] = {0};

    (void)state;
    for (unsigned round = 0; round < 500; round++) {
        struct mutation m[6], n;
        struct byte_reader r;
        struct entry e, f;

        buffer_clear(&out);
        make_entry(&out, &e, m, keys, values);
        r = reader_of(buffer_slice(&out));
        assert_true(entry_decode_head(&r, &f));
        assert_memory_equal(&e, &f, sizeof e);
        for (uint32_t i = 0; i < e.mutations; i++) {
            assert_true(entry_next(&r, &n));
            assert_true(n.space == m[i].space && n.flags == m[i].flags);
            assert_true(slice_equal(n.key, m[i].key) && slice_equal(n.value, m[i].value));
            assert_true(n.create_revision == m[i].create_revision &&
                        n.version == m[i].version && n.lease == m[i].lease);
        }
        assert_true(entry_end(&r));
    }
    for (unsigned i = 0; i < 6; i++) {
        buffer_free(&keys[i]);
        buffer_free(&values[i]);
    }
    buffer_free(&out);
}

/* Decodes everything; true: accepted.  The copy has no byte to spare behind it. */
static bool
decodes(const uint8_t *data, size_t n)
{
    uint8_t *copy = memcpy(mem_alloc(n), data, n);
    struct byte_reader r = reader_of(slice_of(copy, n));
    struct mutation m;
    struct entry e;
    bool ok = entry_decode_head(&r, &e);

    for (uint32_t i = 0; ok && i < e.mutations; i++)
        ok = entry_next(&r, &m);
    ok = ok && entry_end(&r);
    mem_free(copy);
    return ok;
}

static void
damaged_entries(void **state)
{
    struct buffer out = {0}, keys[6] = {0}, values[6] = {0};

    (void)state;
    for (unsigned round = 0; round < 300; round++) {
        struct mutation m[6];
        struct entry e;

        buffer_clear(&out);
        make_entry(&out, &e, m, keys, values);
        assert_true(decodes(out.data, out.len));
        for (size_t n = 0; n < out.len; n++) /* cut off anywhere */
            assert_false(decodes(out.data, n));
        buffer_append_u8(&out, 0); /* something behind */
        assert_false(decodes(out.data, out.len));
        out.len--;
        out.data[0] = 2; /* another format */
        assert_false(decodes(out.data, out.len));
        for (unsigned i = 0; i < 50;
             i++) { /* must not read outside, whatever comes out */
            out.data[chance() % out.len] ^= (uint8_t)(1u << chance() % 8);
            decodes(out.data, out.len);
        }
    }
    for (unsigned i = 0; i < 6; i++) {
        buffer_free(&keys[i]);
        buffer_free(&values[i]);
    }
    buffer_free(&out);
}

/* --- records --- */

static int
sign(int v)
{
    return (v > 0) - (v < 0);
}

/* Short keys of few different bytes, so that prefixes and zeros are frequent. */
static void
random_ikey(struct buffer *b)
{
    static const uint8_t bytes[] = {0, 1, 2, 0x7f, 0xfe, 0xff};

    buffer_clear(b);
    buffer_append_u8(b, (uint8_t) "ksl"[chance() % 3]);
    for (size_t n = chance() % 5; n > 0; n--)
        buffer_append_u8(b, bytes[chance() % sizeof bytes]);
}

static void
record_key_order(void **state)
{
    struct buffer a = {0}, b = {0}, x = {0}, y = {0}, end = {0}, scratch = {0};

    (void)state;
    for (unsigned round = 0; round < 20000; round++) {
        uint64_t p = chance() % 3 == 0 ? STAMP_NEWEST : chance() % 300,
                 q = chance() % 300, stamp;
        struct t4_slice ikey;
        int order;

        random_ikey(&a);
        random_ikey(&b);
        buffer_clear(&x);
        buffer_clear(&y);
        buffer_clear(&end);
        record_key_encode(&x, buffer_slice(&a), p);
        record_key_encode(&y, buffer_slice(&b), q);
        record_key_end(&end, buffer_slice(&a));
        /* by key, then newer first */
        order = slice_compare(buffer_slice(&a), buffer_slice(&b));
        if (order == 0)
            order = p > q ? -1 : p < q;
        assert_int_equal(sign(slice_compare(buffer_slice(&x), buffer_slice(&y))),
                         sign(order));
        /* the end is above all versions of its key and below every greater key */
        assert_true(slice_compare(buffer_slice(&x), buffer_slice(&end)) < 0);
        order = slice_compare(buffer_slice(&b), buffer_slice(&a));
        assert_int_equal(slice_compare(buffer_slice(&y), buffer_slice(&end)) < 0,
                         order <= 0);

        assert_int_equal(record_key_size(buffer_slice(&a)), x.len);
        assert_true(record_key_decode(buffer_slice(&x), &scratch, &ikey, &stamp));
        assert_true(slice_equal(ikey, buffer_slice(&a)) && stamp == p);
    }
    buffer_free(&a);
    buffer_free(&b);
    buffer_free(&x);
    buffer_free(&y);
    buffer_free(&end);
    buffer_free(&scratch);
}

static void
damaged_record_keys(void **state)
{
    struct buffer a = {0}, x = {0}, scratch = {0};

    (void)state;
    for (unsigned round = 0; round < 20000; round++) {
        struct t4_slice ikey, whole;
        struct buffer again = {0};
        uint64_t stamp;
        uint8_t *copy;
        size_t n;

        random_ikey(&a);
        buffer_clear(&x);
        record_key_encode(&x, buffer_slice(&a), chance());
        n = chance() % 4 == 0 ? chance() % (x.len + 1) : x.len;
        copy = memcpy(mem_alloc(n), x.data, n);
        if (n > 0)
            copy[chance() % n] ^= (uint8_t)(1u << chance() % 8);
        whole = slice_of(copy, n);
        /* What is accepted is the encoding of what comes out. */
        if (record_key_decode(whole, &scratch, &ikey, &stamp)) {
            record_key_encode(&again, ikey, stamp);
            assert_true(slice_equal(buffer_slice(&again), whole));
        }
        buffer_free(&again);
        mem_free(copy);
    }
    buffer_free(&a);
    buffer_free(&x);
    buffer_free(&scratch);
}

static void
record_value_round_trip(void **state)
{
    struct buffer key = {0}, other = {0}, value = {0}, bytes = {0};

    (void)state;
    for (unsigned round = 0; round < 2000; round++) {
        struct version v = {.sub = (uint32_t)chance(),
                            .flags = chance() % 4 == 0 ? VERSION_TOMBSTONE : 0},
                       d;
        size_t at;

        random_ikey(&other);
        buffer_clear(&key);
        record_key_encode(&key, buffer_slice(&other), chance());
        random_bytes(&bytes, chance() % 100);
        if (v.flags == 0) {
            v.create_revision = (int64_t)chance();
            v.version = (int64_t)chance();
            v.lease = -(int64_t)chance();
            v.value = buffer_slice(&bytes);
        }
        buffer_clear(&value);
        record_value_encode(&value, buffer_slice(&key), &v);
        assert_true(record_verify(buffer_slice(&key), buffer_slice(&value)));
        assert_true(record_value_decode(buffer_slice(&value), &d));
        assert_true(d.sub == v.sub && d.flags == v.flags && d.version == v.version &&
                    d.create_revision == v.create_revision && d.lease == v.lease);
        assert_true(slice_equal(d.value, v.value));

        /* One bit anywhere, also in the key, is noticed. */
        at = chance() % (value.len + key.len);
        if (at < value.len)
            value.data[at] ^= (uint8_t)(1u << chance() % 8);
        else
            key.data[at - value.len] ^= (uint8_t)(1u << chance() % 8);
        assert_false(record_verify(buffer_slice(&key), buffer_slice(&value)));
        for (size_t n = 0; n < value.len; n++) {
            uint8_t *copy = memcpy(mem_alloc(n), value.data, n);

            record_value_decode(slice_of(copy, n), &d);
            record_verify(buffer_slice(&key), slice_of(copy, n));
            mem_free(copy);
        }
    }
    buffer_free(&key);
    buffer_free(&other);
    buffer_free(&value);
    buffer_free(&bytes);
}

static void
base64_vectors_of_rfc_4648(void **state)
{
    static const char *const pairs[][2] = {
        {"", ""},        {"f", "Zg=="},        {"fo", "Zm8="},
        {"foo", "Zm9v"}, {"foob", "Zm9vYg=="}, {"\xfb\xff", "+/8="}};

    (void)state;
    for (size_t i = 0; i < sizeof pairs / sizeof pairs[0]; i++) {
        struct buffer b = {0};

        base64_append(&b, slice_str(pairs[i][0]));
        buffer_append_u8(&b, '\0');
        assert_string_equal((char *)b.data, pairs[i][1]);
        buffer_free(&b);
    }
}

static void
utf8_is_told_from_other_bytes(void **state)
{
    static const char *const good[] = {"",
                                       "a\x7f",
                                       "\xc2\x80",
                                       "\xdf\xbf\xe0\xa0\x80",
                                       "\xed\x9f\xbf\xee\x80\x80",
                                       "\xf0\x90\x80\x80",
                                       "\xf4\x8f\xbf\xbf"};
    static const char *const bad[] = {"\x80",
                                      "\xc1\x81",
                                      "\xc2",
                                      "\xc2\x41",
                                      "\xe0\x9f\xbf",
                                      "\xed\xa0\x80",
                                      "\xf0\x8f\xbf\xbf",
                                      "\xf4\x90\x80\x80",
                                      "\xf5\x80\x80\x80",
                                      "ok\xe2\x82"};

    (void)state;
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++)
        assert_true(utf8_valid(slice_str(good[i])));
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_false(utf8_valid(slice_str(bad[i])));
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(crc_vectors_of_rfc_3720),
        cmocka_unit_test(crc_forms_agree_and_continue),
        cmocka_unit_test(buffer_numbers_round_trip),
        cmocka_unit_test(reader_stays_bad),
        cmocka_unit_test(entry_round_trip),
        cmocka_unit_test(damaged_entries),
        cmocka_unit_test(record_key_order),
        cmocka_unit_test(damaged_record_keys),
        cmocka_unit_test(record_value_round_trip),
        cmocka_unit_test(base64_vectors_of_rfc_4648),
        cmocka_unit_test(utf8_is_told_from_other_bytes),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

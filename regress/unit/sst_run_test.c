/*
 * sst_run_test.c - run indexes: round trips, lookups, filters, damage; keys of objects.
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

#include "base/crc32c.h"
#include "base/memory.h"
#include "sst_bed.h"

/* A run of n files with bounds of few bytes (or `long_keys`), and a filter over the bounds. */
static void
make_run(struct run_index *run, size_t n, bool long_keys, struct chance *c)
{
    struct sst_filter_builder filter = {0};
    struct buffer first = {0}, last = {0};

    *run = (struct run_index){.first_index = chance_below(c, 100),
                              .last_index = 100 + chance_below(c, 100),
                              .last_revision = (int64_t)chance_below(c, 1000),
                              .compacted = (int64_t)chance_below(c, 1000),
                              .is_base = chance_below(c, 2) == 0};
    for (size_t i = 0; i < n; i++) {
        struct sst_info info = {.object_bytes = 101 + chance_below(c, 1000),
                                .raw_bytes = 100000,
                                .records = 1 + chance_below(c, 1000),
                                .min_stamp = chance_below(c, 50),
                                .max_stamp = 50 + chance_below(c, 50)};

        for (size_t j = 0; j < SHA256_BYTES; j++) {
            info.sha256[j] = (uint8_t)chance_next(c);
            info.content[j] = (uint8_t)chance_next(c);
        }
        buffer_clear(&first);
        buffer_append(&first, "k\0", 2);
        buffer_append_u8(&first, (uint8_t)(4 * i));
        if (long_keys) {
            memset(buffer_reserve(&first, 16384), 'x', 16384);
            first.len += 16384;
        }
        buffer_clear(&last);
        buffer_append_slice(&last, buffer_slice(&first));
        if (chance_below(c, 3) > 0) /* else a file of one key */
            last.data[2] = (uint8_t)(4 * i + chance_below(c, 3) + 1);
        info.first = buffer_slice(&first);
        info.last = buffer_slice(&last);
        sst_filter_add(&filter, sst_hash(info.first));
        sst_filter_add(&filter, sst_hash(info.last));
        assert_int_equal(run_index_add(run, &info, chance_below(c, 9), i, NULL), T4_OK);
    }
    if (chance_below(c, 2) == 0)
        sst_filter_build(&filter, &run->filter);
    if (chance_below(c, 2) == 0)
        buffer_append(&run->system, "system records", 14);
    sst_filter_builder_free(&filter);
    buffer_free(&first);
    buffer_free(&last);
}

static void
assert_same_run(const struct run_index *a, const struct run_index *b)
{
    assert_true(slice_equal(buffer_slice(&a->system), buffer_slice(&b->system)));
    assert_int_equal(a->first_index, b->first_index);
    assert_int_equal(a->last_index, b->last_index);
    assert_int_equal(a->last_revision, b->last_revision);
    assert_int_equal(a->compacted, b->compacted);
    assert_int_equal(a->is_base, b->is_base);
    assert_int_equal(a->filter.keys, b->filter.keys);
    assert_true(
        slice_equal(buffer_slice(&a->filter.bits), buffer_slice(&b->filter.bits)));
    assert_int_equal(a->n, b->n);
    for (size_t i = 0; i < a->n; i++) {
        const struct sst_info *x = &a->sst[i].info, *y = &b->sst[i].info;

        assert_int_equal(a->sst[i].term, b->sst[i].term);
        assert_int_equal(a->sst[i].index, b->sst[i].index);
        assert_memory_equal(x->sha256, y->sha256, SHA256_BYTES);
        assert_memory_equal(x->content, y->content, SHA256_BYTES);
        assert_int_equal(x->object_bytes, y->object_bytes);
        assert_int_equal(x->raw_bytes, y->raw_bytes);
        assert_int_equal(x->records, y->records);
        assert_int_equal(x->min_stamp, y->min_stamp);
        assert_int_equal(x->max_stamp, y->max_stamp);
        assert_true(slice_equal(x->first, y->first));
        assert_true(slice_equal(x->last, y->last));
    }
}

static void
test_round_trip(void **unused)
{
    struct chance c = {test_seed()};

    (void)unused;
    for (int round = 0; round < 200; round++) {
        struct run_index run, got;
        struct buffer object = {0}, again = {0};

        make_run(&run, (size_t)chance_below(&c, 60), round % 10 == 0, &c);
        run_index_encode(&object, &run);
        assert_int_equal(run_index_decode(buffer_slice(&object), &got, NULL), T4_OK);
        assert_same_run(&run, &got);
        run_index_encode(&again, &got);
        assert_true(slice_equal(buffer_slice(&object), buffer_slice(&again)));
        run_index_free(&got);
        run_index_free(&run);
        buffer_free(&object);
        buffer_free(&again);
    }
}

/* Nothing in it: no file, no filter. */
static void
test_empty_run(void **unused)
{
    struct run_index run = {.last_index = 7, .last_revision = 1}, got;
    struct buffer object = {0};
    size_t from, to;

    (void)unused;
    run_index_encode(&object, &run);
    assert_int_equal(object.len, 100);
    assert_int_equal(run_index_decode(buffer_slice(&object), &got, NULL), T4_OK);
    assert_same_run(&run, &got);
    run_find(&got, slice_str("k"), slice_str("z"), &from, &to);
    assert_int_equal(from, to);
    assert_false(run_may_hold(&got, slice_str("ka")));
    run_index_free(&got);
    buffer_free(&object);
}

static void
test_add_refuses(void **unused)
{
    struct run_index run = {0};
    struct sst_info info = {
        .records = 1, .first = slice_str("kb"), .last = slice_str("kc")};
    struct error error = {0};

    (void)unused;
    assert_int_equal(run_index_add(&run, &info, 1, 1, NULL), T4_OK);
    info.first = info.last; /* shares a key with the one before */
    assert_int_equal(run_index_add(&run, &info, 1, 1, &error), T4_E_INVALID);
    assert_non_null(strstr(error.message, "file 1"));
    info.first = info.last = slice_str("ka");
    assert_int_equal(run_index_add(&run, &info, 1, 1, &error), T4_E_INVALID);
    info.first = slice_str("kf");
    info.last = slice_str("ke");
    assert_int_equal(run_index_add(&run, &info, 1, 1, &error), T4_E_INVALID);
    run_index_free(&run);
    info.first = info.last = slice_of("", 0);
    assert_int_equal(run_index_add(&run, &info, 1, 1, &error), T4_E_INVALID);
    info.first = info.last = slice_str("ka");
    assert_int_equal(run_index_add(&run, &info, 1, 1, &error), T4_OK);
    info.first = info.last = slice_str("kb");
    info.records = 0;
    assert_int_equal(run_index_add(&run, &info, 1, 1, &error), T4_E_INVALID);
    assert_int_equal(run.n, 1);
    run_index_free(&run);
}

/* --- lookups ------------------------------------------------------------------------------- */

static struct t4_slice
short_key(uint8_t key[3], struct chance *c)
{
    key[0] = chance_below(c, 20) == 0 ? (uint8_t)chance_next(c) : 'k';
    key[1] = chance_below(c, 20) == 0;
    key[2] = (uint8_t)chance_below(c, 250);
    return slice_of(key, 1 + (size_t)chance_below(c, 3));
}

static void
test_find(void **unused)
{
    struct chance c = {test_seed()};
    struct run_index run;
    uint8_t a[3], b[3];

    (void)unused;
    make_run(&run, 60, false, &c);
    for (int round = 0; round < 5000; round++) {
        struct t4_slice lo = short_key(a, &c),
                        hi = chance_below(&c, 4) == 0 ? lo : short_key(b, &c);
        size_t from, to;

        run_find(&run, lo, hi, &from, &to);
        assert_true(from <= to && to <= run.n);
        if (slice_compare(lo, hi) > 0)
            continue;
        for (size_t i = 0; i < run.n; i++) {
            bool meets = slice_compare(run.sst[i].info.first, hi) <= 0 &&
                         slice_compare(run.sst[i].info.last, lo) >= 0;

            assert_int_equal(meets, i >= from && i < to);
        }
    }
    run_index_free(&run);
}

/* A range end is included, and so is a key that stands alone between two files: in none. */
static void
test_files_of_a_run_answer(void **unused)
{
    struct chance c = {4711};
    struct records set = {0};
    struct files f;
    size_t passed = 0;
    char key[64];

    (void)unused;
    records_bulk(&set, 20000, 600, &c);
    files_write(&f, &set);
    assert_true(f.run.n >= 3);
    assert_int_equal(f.run.filter.keys, set.n);
    for (size_t i = 0; i < set.n; i++) {
        struct t4_slice ikey = buffer_slice(&set.r[i].ikey);
        size_t from, to;

        assert_true(run_may_hold(&f.run, ikey));
        run_find(&f.run, ikey, ikey, &from, &to);
        assert_int_equal(to - from, 1);
        snprintf(key, sizeof key, "k/registry/pods/%08zu", i * 10 + 5);
        passed += run_may_hold(&f.run, slice_str(key));
    }
    assert_true(passed < set.n / 50); /* 2 %; 1 % is expected */
    assert_true(passed > 0);
    files_free(&f);
    records_free(&set);
}

/* --- the filter ---------------------------------------------------------------------------- */

/* Constants of the format: computed by other means. */
static void
test_hash_is_what_it_was(void **unused)
{
    (void)unused;
    assert_int_equal(sst_hash(slice_str("k")), 0x2ba437a975bf0065u);
    assert_int_equal(sst_hash(slice_str("kfoobar")), 0x9699d1ee2aefd5e1u);
    assert_int_equal(sst_hash(slice_of("s\0\xff", 3)), 0xebc07a529bdda64du);
}

static void
test_filter(void **unused)
{
    struct sst_filter_builder a = {0}, b = {0};
    struct sst_filter f = {0}, g = {0};
    uint8_t digest[SHA256_BYTES];
    char key[32], hex[2 * SHA256_BYTES + 1];
    size_t passed = 0;
    const int n = 5000;

    (void)unused;
    assert_false(sst_filter_excludes(&f, slice_str("ka"))); /* none excludes nothing */
    for (int i = 0; i < n; i++) {
        snprintf(key, sizeof key, "k%d", i);
        sst_filter_add(&a, sst_hash(slice_str(key)));
        sst_filter_add(&a, sst_hash(slice_str(key))); /* another version */
        snprintf(key, sizeof key, "k%d", n - 1 - i);
        sst_filter_add(&b, sst_hash(slice_str(key)));
    }
    sst_filter_build(&a, &f);
    sst_filter_build(&b, &g);
    assert_int_equal(f.keys, n);
    assert_int_equal(f.bits.len, (5000 * 10 + 63) / 64 * 8);
    assert_true(slice_equal(buffer_slice(&f.bits), buffer_slice(&g.bits)));
    sha256(buffer_slice(&f.bits), digest);
    sha256_hex(digest, hex);
    assert_string_equal(
        hex, "a2523555e4c69323ef68c5786d7cd2e17e249fb77342d3301e62de20d0fc5a59");
    for (int i = 0; i < n; i++) {
        snprintf(key, sizeof key, "k%d", i);
        assert_false(sst_filter_excludes(&f, slice_str(key)));
        snprintf(key, sizeof key, "l%d", i);
        passed += !sst_filter_excludes(&f, slice_str(key));
    }
    assert_in_range(passed, 1, 2 * n / 100);
    sst_filter_build(&a, &f); /* of nothing */
    assert_int_equal(f.bits.len, 0);
    sst_filter_free(&f);
    sst_filter_free(&g);
}

/* --- damage -------------------------------------------------------------------------------- */

static void
assert_corrupt(struct t4_slice object)
{
    struct run_index run;
    struct error error = {0};

    assert_int_equal(run_index_decode(object, &run, &error), T4_E_CORRUPT);
    assert_true(error.message[0] != '\0' && error.hint[0] != '\0');
    assert_null(run.sst);
}

static void
small_run(struct buffer *object)
{
    struct chance c = {4711};
    struct run_index run;

    do
        make_run(&run, 3, false, &c);
    while (run.filter.keys == 0);
    run_index_encode(object, &run);
    run_index_free(&run);
}

static void
test_every_flip_and_length_is_noticed(void **unused)
{
    struct buffer object = {0};

    (void)unused;
    small_run(&object);
    for (size_t i = 0; i < object.len * 8; i++) {
        object.data[i / 8] ^= (uint8_t)(1u << i % 8);
        assert_corrupt(buffer_slice(&object));
        object.data[i / 8] ^= (uint8_t)(1u << i % 8);
    }
    for (size_t n = 0; n < object.len; n++) {
        uint8_t *copy = mem_alloc(n);

        memcpy(copy, object.data, n);
        assert_corrupt(slice_of(copy, n));
        mem_free(copy);
    }
    buffer_append_u8(&object, 0);
    assert_corrupt(buffer_slice(&object));
    buffer_free(&object);
}

/* Fields of the small run that are changed, with the checksum made right again. */
static void
test_lies_are_noticed(void **unused)
{
    enum { HEAD = 96, FILE = 120 };
    static const struct {
        size_t at, bytes;
        uint64_t value;
    } lie[] = {
        {16, 1, 2},                      /* unknown flag */
        {17, 1, 2},                      /* unknown packing */
        {18, 1, 1},                      /* not zero */
        {20, 4, 2},                      /* fewer files */
        {20, 4, 4},                      /* more files */
        {20, 4, UINT32_MAX},             /* far more */
        {24, 8, UINT64_MAX},             /* first index above the last */
        {40, 8, UINT64_MAX},             /* negative revision */
        {48, 8, UINT64_MAX},             /* negative compacted revision */
        {56, 8, 99},                     /* filter of more keys */
        {56, 8, UINT64_MAX / 5 + 1},     /* so many that the size overflows */
        {64, 8, 0},                      /* no filter */
        {64, 8, UINT64_MAX},             /* a filter beyond everything */
        {72, 8, UINT64_C(1) << 40},      /* bounds that unpack to a terabyte */
        {72, 8, 3},                      /* to less than they are */
        {80, 8, UINT64_MAX},             /* bounds beyond everything */
        {88, 8, UINT64_MAX},             /* system records beyond everything */
        {HEAD + 80, 8, 100},             /* an object of a footer only */
        {HEAD + 88, 8, 10},              /* too few bytes for the records */
        {HEAD + 96, 8, 0},               /* no records */
        {HEAD + 104, 8, 1000},           /* smallest stamp above the largest */
        {HEAD + 3 * FILE + 1, 1, 'z'},   /* first key above the last */
        {HEAD + 3 * FILE, 1, 0},         /* an empty key */
        {HEAD + 3 * FILE, 1, 0x7f},      /* a key that is too long */
        {HEAD + 3 * FILE + 8 + 3, 1, 1}, /* a file that begins within the one before */
    };
    struct buffer object = {0};

    (void)unused;
    for (size_t i = 0; i < sizeof lie / sizeof lie[0]; i++) {
        buffer_clear(&object);
        small_run(&object);
        assert_int_equal(object.data[17], 0); /* so few bounds are not packed */
        for (size_t b = 0; b < lie[i].bytes; b++)
            object.data[lie[i].at + b] = (uint8_t)(lie[i].value >> 8 * b);
        put_u32le(object.data + object.len - 4, crc32c(0, object.data, object.len - 4));
        assert_corrupt(buffer_slice(&object));
    }
    buffer_free(&object);
}

/* A number of files whose sizes wrap around to what the object has. */
static void
test_sums_that_wrap_around(void **unused)
{
    struct buffer object = {0};
    const uint64_t files = UINT32_MAX;
    uint64_t rest;

    (void)unused;
    small_run(&object);
    rest = object.len - 4 - 96 - files * 120 - get_u64le(object.data + 64) -
           get_u64le(object.data + 88);
    put_u32le(object.data + 20, (uint32_t)files);
    put_u64le(object.data + 72, rest);
    put_u64le(object.data + 80, rest);
    put_u32le(object.data + object.len - 4, crc32c(0, object.data, object.len - 4));
    assert_corrupt(buffer_slice(&object));
    buffer_free(&object);
}

/* The same of bounds that are packed. */
static void
test_packed_bounds_are_bounded(void **unused)
{
    static const int64_t lie[] = {1, -1, INT64_C(1) << 30, INT64_C(1) << 40};
    struct chance c = {4711};
    struct buffer object = {0};
    struct run_index run;
    uint64_t raw;

    (void)unused;
    make_run(&run, 60, false, &c);
    run_index_encode(&object, &run);
    assert_int_equal(object.data[17], 1);
    raw = get_u64le(object.data + 72);
    for (size_t i = 0; i < sizeof lie / sizeof lie[0]; i++) {
        put_u64le(object.data + 72, raw + (uint64_t)lie[i]);
        put_u32le(object.data + object.len - 4, crc32c(0, object.data, object.len - 4));
        assert_corrupt(buffer_slice(&object));
    }
    run_index_free(&run);
    buffer_free(&object);
}

static void
test_newer_formats_are_told_apart(void **unused)
{
    struct buffer object = {0};
    struct run_index run;
    struct error error = {0};

    (void)unused;
    for (size_t at = 8; at <= 12; at += 4) {
        buffer_clear(&object);
        small_run(&object);
        object.data[at] = 2;
        put_u32le(object.data + object.len - 4, crc32c(0, object.data, object.len - 4));
        assert_int_equal(run_index_decode(buffer_slice(&object), &run, &error),
                         T4_E_UNSUPPORTED);
        assert_non_null(strstr(error.hint, "newer version"));
    }
    buffer_free(&object);
}

/* --- keys of objects ------------------------------------------------------------------------ */

#define HEX "00ff0102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e"

static void
test_object_keys(void **unused)
{
    static const char *const bad[] = {
        "",
        "sst/",
        "run/" HEX "-0000000007-00000000000000000042",
        "sst/" HEX,
        "sst/" HEX "-0000000007",
        "sst/" HEX "-0000000007-",
        "sst/" HEX "-0000000007-0000000000000000042",   /* 19 digits */
        "sst/" HEX "-000000007-00000000000000000042",   /* 9 digits */
        "sst/" HEX "-00000000007-00000000000000000042", /* 11 with a zero */
        "sst/" HEX "-0000000007-99999999999999999999",
        "sst/" HEX "-0000000007-00000000000000000042x",
        "sst/" HEX "-0000000007-0000000000000000004x",
        "sst/" HEX "_0000000007-00000000000000000042",
        "sst/0" HEX "-0000000007-00000000000000000042",
        "sst/X0ff0102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e"
        "-0000000007-00000000000000000042",
        "sst/A0ff0102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e"
        "-0000000007-00000000000000000042",
    };
    static const uint64_t numbers[] = {0, 7, 9999999999u, 10000000000u, UINT64_MAX};
    uint8_t hash[SHA256_BYTES] = {0, 0xff, 1, 2, 3}, got[SHA256_BYTES];
    char key[SST_KEY_BYTES];
    uint64_t term, index;

    (void)unused;
    for (size_t i = 2; i < SHA256_BYTES; i++)
        hash[i] = (uint8_t)(i - 1);
    sst_key(key, hash, 7, 42);
    assert_string_equal(key, "sst/" HEX "-0000000007-00000000000000000042");
    run_key(key, hash, 7, 42);
    assert_string_equal(key, "run/" HEX "-0000000007-00000000000000000042");
    assert_true(run_key_parse(slice_str(key), got, &term, &index));
    assert_false(sst_key_parse(slice_str(key), got, &term, &index));
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        sst_key(key, hash, numbers[i], UINT64_MAX - numbers[i]);
        assert_true(sst_key_parse(slice_str(key), got, &term, &index));
        assert_memory_equal(got, hash, SHA256_BYTES);
        assert_int_equal(term, numbers[i]);
        assert_int_equal(index, UINT64_MAX - numbers[i]);
    }
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        if (sst_key_parse(slice_str(bad[i]), got, &term, &index))
            fail_msg("\"%s\" is taken for a key", bad[i]);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_empty_run),
        cmocka_unit_test(test_add_refuses),
        cmocka_unit_test(test_find),
        cmocka_unit_test(test_files_of_a_run_answer),
        cmocka_unit_test(test_hash_is_what_it_was),
        cmocka_unit_test(test_filter),
        cmocka_unit_test(test_every_flip_and_length_is_noticed),
        cmocka_unit_test(test_lies_are_noticed),
        cmocka_unit_test(test_sums_that_wrap_around),
        cmocka_unit_test(test_packed_bounds_are_bounded),
        cmocka_unit_test(test_newer_formats_are_told_apart),
        cmocka_unit_test(test_object_keys),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

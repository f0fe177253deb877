/*
 * bolt_test.c - bbolt files written and read again, and damaged ones; sorting on disk.
 *
 * (That real tools read what is written, and that what they write is read: 435_snapshot.t,
 * 436_from_snapshot.t.)
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

#include "../fuzz/bolt_fuzz.c"
#include "base/memory.h"
#include "scratch.h"
#include "sort/sort.h"

/* --- there and back ------------------------------------------------------------------------ */

static size_t
size_of(unsigned long i, unsigned long most)
{
    return most == 0 ? 0 : (size_t)(i * 2654435761u % most);
}

static void
write_and_read(unsigned long n, unsigned long most)
{
    uint8_t *value = mem_zalloc(most + 1);
    struct bolt_reader *r;
    struct bolt_writer *w;
    struct memory_file m;
    struct t4_slice k, v;
    struct error error;
    uint64_t size;
    char key[32];

    memory_file_init(&m);
    w = bolt_writer_new(&m.env, memory_file_of(&m));
    for (char b = 'c'; b >= 'a'; b--) { /* names in any order */
        assert_int_equal(bolt_writer_bucket(w, slice_of(&b, 1), &error), T4_OK);
        for (unsigned long i = 0; b != 'b' && i < n; i++) {
            snprintf(key, sizeof key, "%c%08lu", b, i);
            assert_int_equal(bolt_writer_put(w, slice_str(key),
                                             slice_of(value, size_of(i, most)), &error),
                             T4_OK);
        }
    }
    assert_int_equal(bolt_writer_finish(w, &size, &error), T4_OK);
    bolt_writer_free(w);
    assert_int_equal(size, m.bytes.len);
    assert_int_equal(bolt_reader_open(&m.env, memory_file_of(&m), size, &r, &error),
                     T4_OK);
    assert_int_equal(bolt_reader_bytes(r), size);
    assert_int_equal(bolt_reader_bucket(r, "d", &error), T4_E_NOTFOUND);
    for (char b = 'a'; b <= 'c'; b++) {
        char name[2] = {b, 0};

        assert_int_equal(bolt_reader_bucket(r, name, &error), T4_OK);
        for (unsigned long i = 0; b != 'b' && i < n; i++) {
            snprintf(key, sizeof key, "%c%08lu", b, i);
            assert_int_equal(bolt_reader_next(r, &k, &v, &error), T4_OK);
            assert_true(slice_equal(k, slice_str(key)));
            assert_int_equal(v.len, size_of(i, most));
        }
        assert_int_equal(bolt_reader_next(r, &k, &v, &error), T4_E_NOTFOUND);
        assert_int_equal(bolt_reader_next(r, &k, &v, &error), T4_E_NOTFOUND);
    }
    bolt_reader_close(r);
    memory_file_free(&m);
    mem_free(value);
}

static void
there_and_back(void **state)
{
    (void)state;
    write_and_read(0, 0);
    write_and_read(1, 0);
    write_and_read(3, 400); /* inline or not */
    write_and_read(30, 400);
    write_and_read(20000, 200); /* two levels of branches */
    write_and_read(300, 20000); /* pages that overflow */
}

static void
contract(void **state)
{
    struct bolt_writer *w;
    struct memory_file m;
    struct error error;

    (void)state;
    memory_file_init(&m);
    w = bolt_writer_new(&m.env, memory_file_of(&m));
    assert_int_equal(bolt_writer_put(w, slice_str("a"), slice_str(""), &error),
                     T4_E_INVALID);
    assert_int_equal(bolt_writer_bucket(w, slice_str(""), &error), T4_E_INVALID);
    assert_int_equal(bolt_writer_bucket(w, slice_str("b"), &error), T4_OK);
    assert_int_equal(bolt_writer_put(w, slice_str(""), slice_str(""), &error),
                     T4_E_INVALID);
    assert_int_equal(bolt_writer_put(w, slice_str("b"), slice_str(""), &error), T4_OK);
    assert_int_equal(bolt_writer_put(w, slice_str("b"), slice_str(""), &error),
                     T4_E_INVALID);
    assert_int_equal(bolt_writer_put(w, slice_str("a"), slice_str(""), &error),
                     T4_E_INVALID);
    bolt_writer_free(w);
    memory_file_free(&m);
}

/* --- damage -------------------------------------------------------------------------------- */

static uint64_t
records_of(struct snapshot_file *f, uint64_t *sum)
{
    struct snapshot_restored about;
    struct t4_slice key, value;
    struct sst_source source;
    struct error error;
    struct load *l;
    uint64_t n = 0;

    *sum = 0;
    if (load_new(f, scratch_parent(), &l, &error) != T4_OK)
        return UINT64_MAX;
    load_describe(l, &about);
    source = load_source(l);
    while (source.next(source.state, &key, &value, &error) == T4_OK) {
        *sum = *sum * 31 + sst_hash(key) + sst_hash(value);
        n++;
    }
    load_free(l);
    return n;
}

/*
 * Every bit of what is used, one of each 16 bytes of what is not: with its hash the file is
 * refused; without looking at it, it is refused, or the same, or another state, and nothing else happens.
 */
static void
flipped_bits(void **state)
{
    uint8_t digest[SHA256_BYTES];
    struct memory_file m;
    struct snapshot_file *f;
    struct error error;
    uint64_t wanted, records, sum, same = 0, refused = 0;

    (void)state;
    chance_state = 7;
    memory_file_init(&m);
    while (m.bytes.len < 6 * 4096) {
        buffer_clear(&m.bytes);
        make_file(&m);
    }
    sha256(buffer_slice(&m.bytes), digest);
    buffer_append(&m.bytes, digest, sizeof digest);
    assert_int_equal(snapshot_open(&m.env, "file", false, &f, &error), T4_OK);
    records = records_of(f, &wanted);
    assert_int_not_equal(records, UINT64_MAX);
    snapshot_close(f);
    for (size_t i = 0; i < m.bytes.len * 8; i++) {
        bool used = m.bytes.data[i / 8] != 0 && m.bytes.data[i / 8] != 'v';

        if (!used && i % 128 != 0)
            continue;
        m.bytes.data[i / 8] ^= (uint8_t)(1u << i % 8);
        if (snapshot_open(&m.env, "file", false, &f, &error) == T4_OK)
            fail_msg("bit %zu: taken", i);
        if (snapshot_open(&m.env, "file", true, &f, &error) == T4_OK) {
            uint64_t n = records_of(f, &sum);

            refused += n == UINT64_MAX;
            same += n == records && sum == wanted;
            snapshot_close(f);
        } else {
            refused++;
        }
        m.bytes.data[i / 8] ^= (uint8_t)(1u << i % 8);
    }
    assert_true(refused > 100 && same > 100);
    memory_file_free(&m);
}

static void
any_bytes(void **state)
{
    (void)state;
    assert_int_equal(bolt_fuzz(3000, 4711), 0);
}

/* --- sorting ------------------------------------------------------------------------------- */

static void
sorted(size_t n, size_t memory)
{
    struct sort *s = sort_new(env_posix(), scratch_parent(), memory);
    struct t4_slice key, value;
    struct error error;
    uint8_t k[8], last[8] = {0};
    uint64_t sum = 0;

    for (size_t i = 0; i < n; i++) {
        uint64_t x = (i * UINT64_C(0x9e3779b97f4a7c15)) >> 40;

        put_u64be(k, x);
        sum += x;
        assert_int_equal(sort_add(s, slice_of(k, 8), slice_of(k, x % 9), &error), T4_OK);
    }
    for (size_t i = 0; i < n; i++) {
        uint64_t x;

        assert_int_equal(sort_next(s, &key, &value, &error), T4_OK);
        assert_int_equal(key.len, 8);
        x = get_u64be(key.data);
        assert_true(memcmp(last, key.data, 8) <= 0);
        assert_true(value.len == x % 9 && memcmp(value.data, key.data, value.len) == 0);
        memcpy(last, key.data, 8);
        sum -= x;
    }
    assert_int_equal(sum, 0);
    assert_int_equal(sort_next(s, &key, &value, &error), T4_E_NOTFOUND);
    sort_free(s);
}

static void
sorting(void **state)
{
    (void)state;
    sorted(0, 0);
    sorted(1000, 0);
    sorted(1000, 1 << 15);
    sorted(150000, 1 << 15); /* more parts than are merged at once */
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(there_and_back), cmocka_unit_test(contract),
        cmocka_unit_test(flipped_bits),   cmocka_unit_test(any_bytes),
        cmocka_unit_test(sorting),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

/*
 * sst_merge_test.c - merging sources of records and reducing them, against plain arrays.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/memory.h"
#include "sst_bed.h"

#define SOURCES_MAX 20

/* --- merging ------------------------------------------------------------------------------- */

/* Each record goes to one source or to several. */
static void
deal(const struct records *all, struct records *part, size_t n, struct chance *c)
{
    for (size_t i = 0; i < all->n; i++)
        do
            records_copy(&part[chance_below(c, n)], &all->r[i]);
        while (chance_below(c, 3) == 0);
    for (size_t i = 0; i < n; i++)
        records_sort(&part[i]);
}

static void
test_merge_gives_everything_once(void **unused)
{
    struct chance c = {test_seed()};

    (void)unused;
    for (int round = 0; round < 60; round++) {
        struct records all = {0}, part[SOURCES_MAX] = {{0}};
        struct array_source array[SOURCES_MAX];
        struct sst_source source[SOURCES_MAX];
        size_t n = (size_t)chance_below(&c, SOURCES_MAX + 1);
        struct sst_merge *m;

        if (n > 0)
            records_random(&all, (size_t)chance_below(&c, 1000), &c);
        deal(&all, part, n, &c);
        for (size_t i = 0; i < n; i++)
            source[i] = array_source(&array[i], &part[i]);
        m = sst_merge_new(source, n);
        assert_source_gives(sst_merge_source(m), &all);
        sst_merge_free(m);
        for (size_t i = 0; i < n; i++) {
            assert_int_equal(array[i].asked_at_end, 1);
            records_free(&part[i]);
        }
        records_free(&all);
    }
}

/* Cursors give memory that changes with each call on them. */
static void
test_merge_of_files(void **unused)
{
    struct chance c = {test_seed()};
    struct records all = {0}, part[5] = {{0}};
    struct buffer object[5] = {{0}};
    struct sst *sst[5];
    struct sst_cursor cursor[5];
    struct sst_source source[5];
    struct sst_info info;
    struct sst_merge *m;

    (void)unused;
    records_random(&all, 10000, &c);
    deal(&all, part, 5, &c);
    for (size_t i = 0; i < 5; i++) {
        file_write(&object[i], &info, &part[i]);
        assert_int_equal(sst_open(buffer_slice(&object[i]), &sst[i], NULL), T4_OK);
        sst_cursor_init(&cursor[i], sst[i]);
        source[i] = sst_cursor_source(&cursor[i]);
    }
    m = sst_merge_new(source, 5);
    assert_source_gives(sst_merge_source(m), &all);
    sst_merge_free(m);
    for (size_t i = 0; i < 5; i++) {
        sst_cursor_free(&cursor[i]);
        sst_close(sst[i]);
        buffer_free(&object[i]);
        records_free(&part[i]);
    }
    records_free(&all);
}

static t4_status
drain(struct sst_source source, struct records *out, struct error *error)
{
    struct t4_slice key, value;
    t4_status status;

    while ((status = source.next(source.state, &key, &value, error)) == T4_OK) {
        struct record r = {.key = {.data = (uint8_t *)key.data, .len = key.len},
                           .value = {.data = (uint8_t *)value.data, .len = value.len}};

        if (out != NULL)
            records_copy(out, &r);
    }
    return status;
}

static void
test_merge_refuses(void **unused)
{
    struct records a = {0}, b = {0};
    struct array_source array[2];
    struct sst_source source[2];
    struct error error = {0};
    struct sst_merge *m;

    (void)unused;
    records_add(&a, slice_str("ka"), 7, false, slice_str("one"));
    records_add(&a, slice_str("kb"), 7, false, slice_str("one"));
    records_add(&b, slice_str("kb"), 7, false, slice_str("two"));
    source[0] = array_source(&array[0], &a);
    source[1] = array_source(&array[1], &b);
    m = sst_merge_new(source, 2);
    assert_int_equal(drain(sst_merge_source(m), NULL, &error), T4_E_CORRUPT);
    assert_non_null(strstr(error.message,
                           "two versions equal in (space, key, stamp) with "
                           "different bytes: \"b\" (space 0x6b, stamp 7)"));
    sst_merge_free(m);

    records_add(&a, slice_str("kaa"), 7, false, slice_str("one"));
    source[0] = array_source(&array[0], &a);
    m = sst_merge_new(source, 1);
    assert_int_equal(drain(sst_merge_source(m), NULL, &error), T4_E_CORRUPT);
    assert_non_null(strstr(error.message, "not in order: \"aa\""));
    sst_merge_free(m);
    records_free(&a);
    records_free(&b);
}

struct failing_source {
    struct array_source array;
    size_t left;
};

static t4_status
failing_next(void *state, struct t4_slice *key, struct t4_slice *value,
             struct error *error)
{
    struct failing_source *f = state;
    struct sst_source all = array_source(&f->array, f->array.set);

    f->array.next = 10 - f->left;
    if (f->left-- == 0)
        return error_set(error, T4_E_IO, "no answer");
    return all.next(all.state, key, value, error);
}

/* A source that fails is never taken for one that ended. */
static void
test_failures_get_through(void **unused)
{
    struct chance c = {test_seed()};
    struct records all = {0}, other = {0};

    (void)unused;
    records_random(&all, 200, &c);
    records_random(&other, 200, &c);
    for (size_t left = 0; left <= 10; left++) {
        struct failing_source f = {{&all, 0, 0}, left};
        struct array_source array;
        struct sst_source source[2] = {{failing_next, &f}, array_source(&array, &other)};
        struct sst_merge *m = sst_merge_new(source, 2);
        struct sst_reduce r = {.source = sst_merge_source(m), .compacted = 50};
        struct error error = {0};

        f.array.next = 0;
        assert_int_equal(drain(sst_reduce_source(&r), NULL, &error), T4_E_IO);
        assert_string_equal(error.message, "no answer");
        sst_reduce_free(&r);
        sst_merge_free(m);
    }
    records_free(&all);
    records_free(&other);
}

/* --- reducing ------------------------------------------------------------------------------ */

/* The rules, record by record, each looking at all others. */
static bool
stays(const struct records *all, size_t i, int64_t compacted, bool is_base)
{
    const struct record *r = &all->r[i];
    bool keys = r->ikey.data[0] == 'k';

    for (size_t j = 0; j < all->n; j++)
        if (all->r[j].stamp > r->stamp &&
            (!keys || all->r[j].stamp <= (uint64_t)compacted) &&
            slice_equal(buffer_slice(&all->r[j].ikey), buffer_slice(&r->ikey)))
            return false;
    return !(r->tombstone && is_base && (!keys || r->stamp < (uint64_t)compacted));
}

static void
reduce_plainly(const struct records *all, int64_t compacted, bool is_base,
               struct records *out)
{
    for (size_t i = 0; i < all->n; i++)
        if (stays(all, i, compacted, is_base))
            records_copy(out, &all->r[i]);
}

static void
test_reduce_keeps_what_it_must(void **unused)
{
    struct chance c = {test_seed()};

    (void)unused;
    for (int round = 0; round < 100; round++) {
        struct records all = {0}, expected = {0};
        struct array_source array;
        size_t n = 1 + (size_t)chance_below(&c, 400);
        struct sst_reduce r = {.compacted = (int64_t)chance_below(&c, n + 2),
                               .is_base = chance_below(&c, 2) == 0};

        records_random(&all, n, &c);
        reduce_plainly(&all, r.compacted, r.is_base, &expected);
        r.source = array_source(&array, &all);
        assert_source_gives(sst_reduce_source(&r), &expected);
        assert_int_equal(r.seen, all.n);
        assert_int_equal(r.kept, expected.n);
        sst_reduce_free(&r);
        records_free(&all);
        records_free(&expected);
    }
}

/*
 * A base and an upper run, each reduced by the compacted revision of its time and then folded,
 * are what reducing everything at once would give.
 */
static void
test_folding_is_reducing_everything(void **unused)
{
    struct chance c = {test_seed()};

    (void)unused;
    for (int round = 0; round < 60; round++) {
        struct records all = {0}, part[2] = {{0}}, reduced[2] = {{0}}, expected = {0};
        struct array_source array[2];
        struct sst_source source[2];
        struct sst_reduce r;
        struct sst_merge *m;
        size_t n = 20 + (size_t)chance_below(&c, 400);
        uint64_t border = chance_below(&c, n); /* stamps of the base end here */
        int64_t compacted = 0, last;

        records_random(&all, n, &c);
        for (size_t i = 0; i < all.n; i++)
            records_copy(&part[all.r[i].stamp > border], &all.r[i]);
        for (size_t i = 0; i < 2; i++) {
            compacted += (int64_t)chance_below(&c, 1 + (i == 0 ? border : n));
            r = (struct sst_reduce){.source = array_source(&array[i], &part[i]),
                                    .compacted = compacted,
                                    .is_base = i == 0};
            assert_int_equal(drain(sst_reduce_source(&r), &reduced[i], NULL),
                             T4_E_NOTFOUND);
            sst_reduce_free(&r);
        }
        last = compacted + (int64_t)chance_below(&c, n);
        reduce_plainly(&all, last, true, &expected);
        source[0] = array_source(&array[1], &reduced[1]);
        source[1] = array_source(&array[0], &reduced[0]);
        m = sst_merge_new(source, 2);
        r = (struct sst_reduce){
            .source = sst_merge_source(m), .compacted = last, .is_base = true};
        assert_source_gives(sst_reduce_source(&r), &expected);
        sst_reduce_free(&r);
        sst_merge_free(m);
        for (size_t i = 0; i < 2; i++) {
            records_free(&part[i]);
            records_free(&reduced[i]);
        }
        records_free(&all);
        records_free(&expected);
    }
}

static void
test_reduce_refuses(void **unused)
{
    struct records good = {0}, space = {0};
    struct array_source array;
    struct sst_reduce r = {.compacted = 5};
    struct error error = {0};

    (void)unused;
    records_add(&good, slice_str("ka"), 7, false, slice_str("one"));
    good.r[0].value.data[good.r[0].value.len - 5] ^= 1; /* of the value itself */
    r.source = array_source(&array, &good);
    assert_int_equal(drain(sst_reduce_source(&r), NULL, &error), T4_E_CORRUPT);
    assert_non_null(strstr(error.message, "\"a\" (space 0x6b, stamp 7)"));
    records_add(&space, slice_str("za"), 7, false, slice_str("one"));
    r.source = array_source(&array, &space);
    assert_int_equal(drain(sst_reduce_source(&r), NULL, &error), T4_E_CORRUPT);
    assert_non_null(strstr(error.message, "space 0x7a"));
    sst_reduce_free(&r);
    records_free(&good);
    records_free(&space);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_merge_gives_everything_once),
        cmocka_unit_test(test_merge_of_files),
        cmocka_unit_test(test_merge_refuses),
        cmocka_unit_test(test_failures_get_through),
        cmocka_unit_test(test_reduce_keeps_what_it_must),
        cmocka_unit_test(test_folding_is_reducing_everything),
        cmocka_unit_test(test_reduce_refuses),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

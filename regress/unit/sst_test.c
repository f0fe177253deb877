/*
 * sst_test.c - sorted files: written, read, cut, and damaged.
 *
 * The reference is a sorted array; bytes are compared with a second implementation of the
 * format (sst_bed.c), which also makes files whose checksums are right and whose content is not.
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

/* --- round trips --------------------------------------------------------------------------- */

static void
check_info(const struct sst *s, const struct sst_info *written, const struct records *set)
{
    struct sst_info info;
    uint64_t min = UINT64_MAX, max = 0;

    sst_get_info(s, &info);
    assert_memory_equal(info.sha256, written->sha256, SHA256_BYTES);
    assert_memory_equal(info.content, written->content, SHA256_BYTES);
    assert_int_equal(info.object_bytes, written->object_bytes);
    assert_int_equal(info.raw_bytes, written->raw_bytes);
    assert_int_equal(info.records, set->n);
    assert_int_equal(written->records, set->n);
    for (size_t i = 0; i < set->n; i++)
        if (set->r[i].ikey.data[0] == 'k') {
            min = set->r[i].stamp < min ? set->r[i].stamp : min;
            max = set->r[i].stamp > max ? set->r[i].stamp : max;
        }
    assert_int_equal(info.min_stamp, max == 0 ? 0 : min);
    assert_int_equal(info.max_stamp, max);
    assert_int_equal(written->min_stamp, info.min_stamp);
    assert_int_equal(written->max_stamp, info.max_stamp);
    assert_true(slice_equal(info.first, buffer_slice(&set->r[0].ikey)));
    assert_true(slice_equal(info.last, buffer_slice(&set->r[set->n - 1].ikey)));
}

/* What a seek must find: the first record at or above `at`, by looking at all of them. */
static void
check_seek(struct sst_cursor *c, struct t4_slice at, const struct records *set)
{
    struct t4_slice key, value;
    size_t i = 0;
    t4_status status = sst_cursor_seek(c, at, &key, &value, NULL);

    while (i < set->n && slice_compare(buffer_slice(&set->r[i].key), at) < 0)
        i++;
    for (int steps = 0; steps < 3; steps++, i++) {
        assert_int_equal(status, i < set->n ? T4_OK : T4_E_NOTFOUND);
        if (status != T4_OK)
            return;
        assert_true(slice_equal(key, buffer_slice(&set->r[i].key)));
        assert_true(slice_equal(value, buffer_slice(&set->r[i].value)));
        status = sst_cursor_next(c, &key, &value, NULL);
    }
}

static void
check_seeks(struct sst_cursor *c, const struct records *set, struct chance *chance)
{
    struct buffer at = {0};

    for (int i = 0; i < 100; i++) {
        const struct record *r = &set->r[chance_below(chance, set->n)];

        buffer_clear(&at);
        buffer_append_slice(&at, buffer_slice(&r->key));
        switch (chance_below(chance, 4)) {
        case 0: break;
        case 1: at.len = (size_t)chance_below(chance, at.len); break;
        case 2: buffer_append_u8(&at, 0); break;
        default: at.data[chance_below(chance, at.len)] = (uint8_t)chance_next(chance);
        }
        check_seek(c, buffer_slice(&at), set);
    }
    buffer_free(&at);
}

static void
check_file(const struct records *set, struct chance *chance)
{
    struct buffer object = {0}, plain = {0};
    struct plain_file p;
    struct sst_info info;
    struct sst_cursor c;
    struct sst *s;

    file_write(&object, &info, set);
    plain_make(&p, set);
    plain_seal(&p, &plain);
    assert_true(slice_equal(buffer_slice(&object), buffer_slice(&plain)));
    assert_int_equal(sst_check_object(buffer_slice(&object), &info, NULL), T4_OK);
    assert_int_equal(sst_open(buffer_slice(&object), &s, NULL), T4_OK);
    assert_int_equal(sst_verify(s, NULL), T4_OK);
    check_info(s, &info, set);
    sst_cursor_init(&c, s);
    assert_source_gives(sst_cursor_source(&c), set);
    check_seeks(&c, set, chance);
    sst_cursor_free(&c);
    sst_close(s);
    plain_free(&p);
    buffer_free(&plain);
    buffer_free(&object);
}

static void
test_random_records(void **unused)
{
    struct chance c = {test_seed()};

    (void)unused;
    for (int round = 0; round < 40; round++) {
        struct records set = {0};

        records_random(&set, 1 + (size_t)chance_below(&c, 4000), &c);
        check_file(&set, &c);
        records_free(&set);
    }
}

static void
test_odd_records(void **unused)
{
    struct chance c = {test_seed()};
    struct records set = {0};
    size_t big = 3u << 20;
    uint8_t *bytes = mem_zalloc(big);

    (void)unused;
    records_add(&set, slice_str("k"), 5, false, slice_of("", 0));
    records_add(&set, slice_str("k"), 4, true, slice_of("", 0));
    records_add(&set, slice_of("k\0", 2), 5, false, slice_of(bytes, 70000));
    records_add(&set, slice_of("k\0\0", 3), 5, false, slice_str("x"));
    records_add(&set, slice_of("k\0\xff", 3), 5, false, slice_str("x"));
    records_add(&set, slice_of("k\0\1", 3), 5, false, slice_str("x"));
    records_add(&set, slice_str("ka"), STAMP_NEWEST, false, slice_of(bytes, big));
    bytes[0] = 'k';
    records_add(&set, slice_of(bytes, 16384), 1, false, slice_str("zeros"));
    memset(bytes, 0xff, 16384);
    bytes[0] = 'k';
    records_add(&set, slice_of(bytes, 16384), 1, false, slice_str("ones"));
    for (size_t i = 0; i + 8 <= big; i += 8)
        put_u64le(bytes + i, chance_next(&c));
    records_add(&set, slice_str("s"), 9, false, slice_of(bytes, big));
    records_add(&set, slice_str("l"), 9, true, slice_of("", 0));
    records_sort(&set);
    assert_int_equal(set.n, 11);
    check_file(&set, &c);
    mem_free(bytes);
    records_free(&set);
}

static void
test_same_records_same_bytes(void **unused)
{
    struct chance c = {test_seed()};
    struct records set = {0}, other = {0};
    struct sst_writer *w = sst_writer_new(NULL);
    struct buffer object = {0}, again = {0};
    struct sst_info info, info_again;

    (void)unused;
    records_random(&set, 3000, &c);
    records_bulk(&other, 500, 1000, &c);
    file_write(&object, &info, &set);
    for (size_t i = 0; i < other.n;
         i++) /* a writer that has written another file before */
        assert_int_equal(sst_writer_add(w, buffer_slice(&other.r[i].key),
                                        buffer_slice(&other.r[i].value), NULL),
                         T4_OK);
    assert_int_equal(sst_writer_finish(w, &again, &info_again, NULL), T4_OK);
    for (size_t i = 0; i < set.n; i++)
        assert_int_equal(sst_writer_add(w, buffer_slice(&set.r[i].key),
                                        buffer_slice(&set.r[i].value), NULL),
                         T4_OK);
    assert_int_equal(sst_writer_finish(w, &again, &info_again, NULL), T4_OK);
    assert_true(slice_equal(buffer_slice(&object), buffer_slice(&again)));
    assert_memory_equal(info.sha256, info_again.sha256, SHA256_BYTES);
    sst_writer_free(w);
    buffer_free(&object);
    buffer_free(&again);
    records_free(&set);
    records_free(&other);
}

static void
test_writer_refuses(void **unused)
{
    struct records set = {0};
    struct buffer object = {0}, huge = {0};
    struct sst_info info;
    struct error error;
    struct sst_writer *w = sst_writer_new(NULL);
    uint8_t zero = 0;

    (void)unused;
    assert_int_equal(sst_writer_finish(w, &object, &info, &error), T4_E_INVALID);
    records_add(&set, slice_str("kb"), 5, false, slice_str("x"));
    records_add(&set, slice_str("ka"), 5, false, slice_str("x"));
    records_add(&set, slice_str("kb"), 6, false, slice_str("x"));
    records_add(&set, slice_str("kc"), 5, false, slice_str("x"));
    assert_int_equal(sst_writer_add(w, buffer_slice(&set.r[0].key),
                                    buffer_slice(&set.r[0].value), &error),
                     T4_OK);
    for (size_t i = 0; i < 3; i++) { /* again, a smaller key, a newer version */
        assert_int_equal(sst_writer_add(w, buffer_slice(&set.r[i].key),
                                        buffer_slice(&set.r[i].value), &error),
                         T4_E_INVALID);
        assert_non_null(strstr(error.message, "does not come after"));
    }
    assert_int_equal(sst_writer_add(w, buffer_slice(&set.r[3].key),
                                    buffer_slice(&set.r[0].value), &error),
                     T4_E_CORRUPT); /* the value of another key */
    assert_non_null(strstr(error.message, "\"c\" (space 0x6b, stamp 5)"));
    buffer_append(&huge, "kc", 2);
    put_u32le(huge.data, crc32c(0, huge.data, 2));
    huge.len = 4;
    assert_int_equal(sst_writer_add(w, slice_str("kc"), buffer_slice(&huge), &error),
                     T4_E_CORRUPT); /* no key, whatever the checksum says */
    buffer_clear(&huge);
    memset(buffer_reserve(&huge, SST_BLOCK_MAX), zero, SST_BLOCK_MAX);
    huge.len = SST_BLOCK_MAX;
    records_add(&set, slice_str("kd"), 5, false, buffer_slice(&huge));
    assert_int_equal(sst_writer_add(w, buffer_slice(&set.r[4].key),
                                    buffer_slice(&set.r[4].value), &error),
                     T4_E_INVALID);
    assert_non_null(strstr(error.message, "larger"));
    sst_writer_free(w);
    buffer_free(&huge);
    buffer_free(&object);
    records_free(&set);
}

/* --- cuts ---------------------------------------------------------------------------------- */

/* Sizes of the files of about `total` bytes of records with values of `mean` bytes. */
static void
check_cut_sizes(size_t mean, struct chance *c)
{
    struct records set = {0};
    struct files f;
    uint64_t total = 0;

    records_bulk(&set, (40u << 20) / (mean + 60), mean, c);
    files_write(&f, &set);
    for (size_t i = 0; i < f.run.n; i++) {
        uint64_t raw = f.run.sst[i].info.raw_bytes;

        total += raw;
        assert_true(raw >= SST_RAW_MIN || i == f.run.n - 1);
        assert_true(raw <= SST_RAW_MAX + 2 * mean + 100);
        assert_int_equal(file_check(buffer_slice(&f.object[i]), NULL), T4_OK);
    }
    assert_in_range(total / f.run.n, 2 * SST_RAW_MEAN / 3, 3 * SST_RAW_MEAN / 2);
    files_free(&f);
    records_free(&set);
}

static void
test_cut_sizes(void **unused)
{
    struct chance c = {4711};

    (void)unused;
    check_cut_sizes(60, &c);
    check_cut_sizes(1000, &c);
    check_cut_sizes(40000, &c);
}

/* Keys that never ask for a cut. */
static void
test_no_place_to_cut(void **unused)
{
    struct records set = {0};
    struct files f;
    uint8_t *value = mem_zalloc(8192);
    char key[32];

    (void)unused;
    for (int i = 0; set.n < 4000; i++) {
        snprintf(key, sizeof key, "k%08d", i);
        if (sst_hash(slice_str(key)) >> 63)
            records_add(&set, slice_str(key), 5, false, slice_of(value, 8192));
    }
    files_write(&f, &set);
    assert_int_equal(f.run.n, 3); /* of 31 MiB */
    for (size_t i = 0; i < 2; i++)
        assert_in_range(f.run.sst[i].info.raw_bytes, SST_RAW_MAX, SST_RAW_MAX + 9000);
    files_free(&f);
    records_free(&set);
    mem_free(value);
}

static void
test_versions_stay_together(void **unused)
{
    struct chance c = {4711};
    struct records set = {0};
    uint8_t *value = mem_alloc(65536);
    struct files f;
    size_t most = 0;

    (void)unused;
    for (size_t i = 0; i < 65536; i += 8)
        put_u64le(value + i, chance_next(&c));
    for (uint64_t i = 0; i < 300; i++) /* 20 MB of one key, some of its neighbours */
        records_add(&set, slice_str("khot"), 1000 + i, false, slice_of(value, 65536));
    for (char key[8] = "kh0"; key[2] <= '9'; key[2]++)
        records_add(&set, slice_str(key), 3, false, slice_of(value, 65536));
    records_add(&set, slice_str("khot0"), 3, false, slice_str("next"));
    records_sort(&set);
    files_write(&f, &set); /* which refuses files that share a key */
    for (size_t i = 0; i < f.run.n; i++)
        if (f.run.sst[i].info.records > most)
            most = (size_t)f.run.sst[i].info.records;
    assert_in_range(most, 300, 310);
    assert_int_equal(f.run.sst[f.run.n - 1].info.records, 1); /* cut right behind it */
    files_free(&f);
    records_free(&set);
    mem_free(value);
}

/* A key that is as large as a file is cut off behind. */
static void
test_large_keys_end_files(void **unused)
{
    struct records set = {0};
    struct files f;
    uint8_t *value = mem_zalloc(1u << 20);
    char key[8];

    (void)unused;
    for (uint64_t i = 0; i < 40; i++) { /* 3 to 4 MiB each */
        snprintf(key, sizeof key, "k%03d", (int)(i / 4));
        records_add(&set, slice_str(key), 9 - i % 4, false,
                    slice_of(value, (1u << 20) - i * 1000));
    }
    records_sort(&set);
    files_write(&f, &set);
    assert_int_equal(f.run.n, 10);
    files_free(&f);
    records_free(&set);
    mem_free(value);
}

/* How many files of `old` are not among those of `new`. */
static size_t
files_lost(const struct files *old, const struct files *new)
{
    size_t lost = 0;

    for (size_t i = 0; i < old->run.n; i++) {
        bool found = false;

        for (size_t j = 0; j < new->run.n && !found; j++)
            found = memcmp(old->run.sst[i].info.sha256, new->run.sst[j].info.sha256,
                           SHA256_BYTES) == 0;
        lost += !found;
    }
    return lost;
}

static void
test_changes_in_one_place_touch_few_files(void **unused)
{
    struct chance c = {4711};
    struct records set = {0};
    struct files before, after;
    size_t lost = 0;
    const int rounds = 12;

    (void)unused;
    records_bulk(&set, 40000, 1000, &c);
    files_write(&before, &set);
    assert_true(before.run.n >= 10);
    for (int round = 0; round < rounds; round++) {
        struct records changed = {0};
        size_t at = (size_t)chance_below(&c, set.n - 100);
        char key[64];

        for (size_t i = 0; i < set.n; i++)
            if (i < at || i >= at + 50) /* 50 keys go, 200 come */
                records_copy(&changed, &set.r[i]);
        for (size_t i = 0; i < 200; i++) {
            snprintf(key, sizeof key, "k/registry/pods/%08zu",
                     (at + i / 4) * 10 + i % 4 + 1);
            records_add(&changed, slice_str(key), 50000 + i, false, slice_str("new"));
        }
        records_sort(&changed);
        files_write(&after, &changed);
        assert_true(files_lost(&before, &after) >= 1);
        lost += files_lost(&before, &after);
        files_free(&after);
        records_free(&changed);
    }
    assert_true(lost <= 2 * (size_t)rounds); /* of more than ten files each time */
    files_free(&before);
    records_free(&set);
}

/* --- damage -------------------------------------------------------------------------------- */

/* Two blocks and a few records, in few bytes. */
static void
small_set(struct records *set)
{
    static uint8_t zeros[40000];

    records_add(set, slice_str("ka"), 7, false, slice_of(zeros, sizeof zeros));
    records_add(set, slice_str("ka"), 3, true, slice_of("", 0));
    records_add(set, slice_of("kb\0c", 4), 6, false, slice_str("value"));
    records_add(set, slice_str("kd"), 2, false, slice_of(zeros, sizeof zeros));
    records_add(set, slice_str("l12345678x"), 9, false, slice_of("", 0));
    records_add(set, slice_str("sleases"), 9, false, slice_str("value"));
    records_sort(set);
}

static void
assert_corrupt(struct t4_slice object)
{
    struct error error = {0};

    assert_int_equal(file_check(object, &error), T4_E_CORRUPT);
    assert_int_equal(error.status, T4_E_CORRUPT);
    assert_true(error.message[0] != '\0' && error.hint[0] != '\0');
}

static void
test_every_flip_is_noticed(void **unused)
{
    struct records set = {0};
    struct buffer object = {0};
    struct sst_info info;
    struct sst *s;
    size_t index_at;

    (void)unused;
    small_set(&set);
    file_write(&object, &info, &set);
    index_at = (size_t)get_u64le(object.data + object.len - 36);
    assert_int_equal(file_check(buffer_slice(&object), NULL), T4_OK);
    assert_true(object.len < 1000);
    for (size_t i = 0; i < object.len * 8; i++) {
        object.data[i / 8] ^= (uint8_t)(1u << i % 8);
        assert_corrupt(buffer_slice(&object));
        if (i / 8 >= index_at) /* blocks are looked at when they are read */
            assert_int_equal(sst_open(buffer_slice(&object), &s, NULL), T4_E_CORRUPT);
        assert_int_equal(sst_check_object(buffer_slice(&object), &info, NULL),
                         T4_E_CORRUPT);
        object.data[i / 8] ^= (uint8_t)(1u << i % 8);
    }
    buffer_free(&object);
    records_free(&set);
}

static void
test_every_length_is_noticed(void **unused)
{
    struct records set = {0};
    struct buffer object = {0};
    struct sst_info info;
    struct error error;

    (void)unused;
    small_set(&set);
    file_write(&object, &info, &set);
    for (size_t n = 0; n < object.len; n++) { /* the front, the back; exact allocations */
        uint8_t *copy = mem_alloc(n);

        memcpy(copy, object.data, n);
        assert_corrupt(slice_of(copy, n));
        assert_int_equal(sst_check_object(slice_of(copy, n), &info, &error),
                         T4_E_CORRUPT);
        assert_non_null(strstr(error.message, "bytes instead of"));
        memcpy(copy, object.data + object.len - n, n);
        assert_corrupt(slice_of(copy, n));
        mem_free(copy);
    }
    buffer_append_u8(&object, 0);
    assert_corrupt(buffer_slice(&object));
    buffer_free(&object);
    records_free(&set);
}

/* --- lies under good checksums ------------------------------------------------------------- */

struct lie {
    const char *message; /* what the error must say */
    void (*tell)(struct plain_file *p);
};

static void
records_claimed(struct plain_file *p)
{
    p->records++;
}

static void
too_many_records(struct plain_file *p)
{
    p->records = 1u << 20;
}

static void
stamps_claimed(struct plain_file *p)
{
    p->min_stamp--;
}

static void
stamps_crossed(struct plain_file *p)
{
    p->min_stamp = p->max_stamp + 1;
}

static void
content_claimed(struct plain_file *p)
{
    p->wrong_content = true;
}

static void
another_size(struct plain_file *p)
{
    p->raw_claim = 1;
}

static void
a_bomb(struct plain_file *p)
{
    p->raw_claim = 60u << 20; /* below 64 MiB, beyond what zstd can do */
}

static void
a_huge_block(struct plain_file *p)
{
    uint8_t noise[8];

    for (uint64_t i = 0; i < 500; i++) { /* so that zstd could make it of them */
        put_u64le(noise, (i + 1) * 0x9e3779b97f4a7c15u);
        buffer_append(&p->block[0].raw, noise, sizeof noise);
    }
    p->raw_claim = 70u << 20;
}

static void
no_blocks(struct plain_file *p)
{
    for (; p->blocks > 0; p->blocks--) {
        buffer_free(&p->block[p->blocks - 1].first);
        buffer_free(&p->block[p->blocks - 1].raw);
    }
}

static void
last_below(struct plain_file *p)
{
    p->last.data[0] = 'a';
}

static void
last_above(struct plain_file *p)
{
    p->last.data[p->last.len - 1] ^= 1;
}

static void
last_no_key(struct plain_file *p)
{
    p->last.data[p->last.len - 9] = 0x7f;
}

static void
first_above(struct plain_file *p)
{
    p->block[0].first.data[p->block[0].first.len - 1] ^= 1;
}

static void
blocks_swapped(struct plain_file *p)
{
    struct plain_block b = p->block[0];

    p->block[0] = p->block[1];
    p->block[1] = b;
}

static void
blocks_twice(struct plain_file *p)
{
    buffer_clear(&p->block[1].raw);
    buffer_append_slice(&p->block[1].raw, buffer_slice(&p->block[0].raw));
    buffer_clear(&p->block[1].first);
    buffer_append_slice(&p->block[1].first, buffer_slice(&p->block[0].first));
}

static void
value_changed(struct plain_file *p)
{
    p->block[1].raw.data[p->block[1].raw.len - 1] ^= 1;
}

static void
a_record_cut(struct plain_file *p)
{
    p->block[1].raw.len--;
}

/* The first record of block 0 once more, as its last one. */
static void
a_record_twice(struct plain_file *p)
{
    struct buffer *raw = &p->block[0].raw;
    struct byte_reader r = reader_of(buffer_slice(raw));
    struct buffer copy = {0};

    reader_counted(&r);
    reader_counted(&r);
    buffer_append(&copy, raw->data, (size_t)(r.next - raw->data));
    buffer_append_slice(raw, buffer_slice(&copy));
    buffer_free(&copy);
}

/* All records of block 1 behind those of block 0, too. */
static void
a_block_too_long(struct plain_file *p)
{
    buffer_append_slice(&p->block[0].raw, buffer_slice(&p->block[1].raw));
}

static const struct lie lies[] = {
    {"numbers in the footer are not", records_claimed},
    {"contradict", too_many_records},
    {"numbers in the footer are not", stamps_claimed},
    {"contradict", stamps_crossed},
    {"SHA-256", content_claimed},
    {"does not decompress", another_size},
    {"index entry of block 0", a_bomb},
    {"index entry of block 0", a_huge_block},
    {"0 blocks", no_blocks},
    {"end of the index", last_below},
    {"last key of block 1", last_above},
    {"first or last key", last_no_key},
    {"keys of block 0 are not in order", first_above},
    {"block 1 does not come after", blocks_swapped},
    {"block 1 does not come after", blocks_twice},
    {"the record of", value_changed},
    {"records of block 1 are damaged", a_record_cut},
    {"keys of block 0 are not in order", a_record_twice},
    {"last key of block 0 is not in order", a_block_too_long},
};

static void
test_lies_are_noticed(void **unused)
{
    struct records set = {0};
    struct buffer object = {0};

    (void)unused;
    small_set(&set);
    for (size_t i = 0; i < sizeof lies / sizeof lies[0]; i++) {
        struct plain_file p;
        struct error error = {0};

        plain_make(&p, &set);
        assert_int_equal(p.blocks, 2);
        lies[i].tell(&p);
        plain_seal(&p, &object);
        assert_int_equal(file_check(buffer_slice(&object), &error), T4_E_CORRUPT);
        if (strstr(error.message, lies[i].message) == NULL)
            fail_msg("lie %zu: \"%s\" instead of \"%s\"", i, error.message,
                     lies[i].message);
        plain_free(&p);
    }
    buffer_free(&object);
    records_free(&set);
}

static void
test_newer_formats_are_told_apart(void **unused)
{
    struct records set = {0};
    struct buffer object = {0};

    (void)unused;
    small_set(&set);
    for (int i = 0; i < 2; i++) {
        struct plain_file p;
        struct error error = {0};

        plain_make(&p, &set);
        *(i == 0 ? &p.format : &p.codec) = 2;
        plain_seal(&p, &object);
        assert_int_equal(file_check(buffer_slice(&object), &error), T4_E_UNSUPPORTED);
        assert_non_null(strstr(error.message,
                               i == 0 ? "format 2 and codec 1" : "format 1 and codec 2"));
        plain_free(&p);
    }
    buffer_free(&object);
    records_free(&set);
}

/* A cursor that met damage answers with it again, and can be used elsewhere in the file. */
static void
test_cursor_after_damage(void **unused)
{
    struct records set = {0};
    struct buffer object = {0};
    struct plain_file p;
    struct sst *s;
    struct sst_cursor c;
    struct t4_slice key, value;
    t4_status status;

    (void)unused;
    small_set(&set);
    plain_make(&p, &set);
    a_record_cut(&p);
    plain_seal(&p, &object);
    assert_int_equal(sst_open(buffer_slice(&object), &s, NULL), T4_OK);
    sst_cursor_init(&c, s);
    for (size_t i = 0; i < set.n - 1; i++)
        assert_int_equal(sst_cursor_next(&c, &key, &value, NULL), T4_OK);
    for (int i = 0; i < 3; i++)
        assert_int_equal(sst_cursor_next(&c, &key, &value, NULL), T4_E_CORRUPT);
    assert_int_equal(sst_cursor_seek(&c, buffer_slice(&set.r[1].key), &key, &value, NULL),
                     T4_OK);
    assert_true(slice_equal(key, buffer_slice(&set.r[1].key)));
    object.data[0] ^= 1; /* the first block */
    for (int i = 0; i < 3; i++)
        assert_int_equal(sst_cursor_seek(&c, slice_of("", 0), &key, &value, NULL),
                         T4_E_CORRUPT);
    assert_int_equal(sst_cursor_next(&c, &key, &value, NULL), T4_E_CORRUPT);
    sst_cursor_free(&c);
    sst_close(s);
    plain_free(&p);

    plain_make(&p, &set); /* a record that stands there twice is not passed over */
    a_record_twice(&p);
    plain_seal(&p, &object);
    assert_int_equal(sst_open(buffer_slice(&object), &s, NULL), T4_OK);
    sst_cursor_init(&c, s);
    do
        status = sst_cursor_next(&c, &key, &value, NULL);
    while (status == T4_OK);
    for (int i = 0; i < 3; i++, status = sst_cursor_next(&c, &key, &value, NULL))
        assert_int_equal(status, T4_E_CORRUPT);
    sst_cursor_free(&c);
    sst_close(s);
    plain_free(&p);
    buffer_free(&object);
    records_free(&set);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_random_records),
        cmocka_unit_test(test_odd_records),
        cmocka_unit_test(test_same_records_same_bytes),
        cmocka_unit_test(test_writer_refuses),
        cmocka_unit_test(test_cut_sizes),
        cmocka_unit_test(test_no_place_to_cut),
        cmocka_unit_test(test_versions_stay_together),
        cmocka_unit_test(test_large_keys_end_files),
        cmocka_unit_test(test_changes_in_one_place_touch_few_files),
        cmocka_unit_test(test_every_flip_is_noticed),
        cmocka_unit_test(test_every_length_is_noticed),
        cmocka_unit_test(test_lies_are_noticed),
        cmocka_unit_test(test_newer_formats_are_told_apart),
        cmocka_unit_test(test_cursor_after_damage),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

/*
 * sst_fuzz.c - sorted files and run indexes of any bytes.
 *
 * Says: opening and reading ends and reads nothing outside of the bytes; what is refused is
 * CORRUPT or UNSUPPORTED; what a cursor gives ascends; a file that verifies is one that the
 * writer makes of its records, but for where its blocks end; a run index that is accepted
 * encodes to one that says the same.  Every input is tried as it is and with its checksums made right.
 *
 * libFuzzer:   clang -fsanitize=fuzzer,address ... sst_fuzz.c <objects of sst, fmt, codec, base>
 * alone:       gcc -DFUZZ_ALONE ...; then sst_fuzz [rounds [seed]] mutates valid objects of its
 *              own making.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/crc32c.h"
#include "chance.h"
#include "fmt/record.h"
#include "sst/sst.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

#define FOOTER 100u
#define RAW_MAX                                                                          \
    (8u << 20) /* what an input may claim to unpack to, so that a run stays quick */

static void
stop_at(const char *what)
{
    fprintf(stderr, "sst_fuzz: %s\n", what);
    abort();
}

static void
only_damage(t4_status status)
{
    if (status != T4_E_CORRUPT && status != T4_E_UNSUPPORTED)
        stop_at("bytes are refused in another way");
}

/* --- a file -------------------------------------------------------------------------------- */

/* All records through a merge and a reduction. */
static void
read_all(const struct sst *s)
{
    struct sst_cursor c;
    struct sst_source source;
    struct sst_merge *m;
    struct sst_reduce r = {.compacted = 5, .is_base = true};
    struct t4_slice key, value;
    t4_status status;

    sst_cursor_init(&c, s);
    source = sst_cursor_source(&c);
    m = sst_merge_new(&source, 1);
    r.source = sst_merge_source(m);
    do
        status = sst_reduce_next(&r, &key, &value, NULL);
    while (status == T4_OK);
    if (status != T4_E_NOTFOUND)
        only_damage(status);
    sst_reduce_free(&r);
    sst_merge_free(m);
    sst_cursor_free(&c);
}

/* Plain reading: keys ascend, whatever the bytes are.  And seeks land where they should. */
static void
read_in_order(const struct sst *s)
{
    struct sst_cursor c, other;
    struct buffer last = {0};
    struct t4_slice key, value, found;
    t4_status status;

    sst_cursor_init(&c, s);
    sst_cursor_init(&other, s);
    for (int i = 0; (status = sst_cursor_next(&c, &key, &value, NULL)) == T4_OK; i++) {
        if (i > 0 && slice_compare(buffer_slice(&last), key) >= 0)
            stop_at("keys do not ascend");
        buffer_clear(&last);
        buffer_append_slice(&last, key);
        if (i % 16 == 0 && sst_cursor_seek(&other, key, &found, &value, NULL) == T4_OK &&
            !slice_equal(found, key))
            stop_at("a seek does not find what a walk found");
    }
    if (status != T4_E_NOTFOUND)
        only_damage(status);
    buffer_free(&last);
    sst_cursor_free(&c);
    sst_cursor_free(&other);
}

static void
write_again(const struct sst *s)
{
    struct sst_writer *w = sst_writer_new(NULL);
    struct buffer object = {0};
    struct sst_info info, again;
    struct sst_cursor c;
    struct t4_slice key, value;

    sst_get_info(s, &info);
    sst_cursor_init(&c, s);
    while (sst_cursor_next(&c, &key, &value, NULL) == T4_OK)
        if (sst_writer_add(w, key, value, NULL) != T4_OK)
            stop_at("a record that is verified cannot be written");
    if (sst_writer_finish(w, &object, &again, NULL) != T4_OK ||
        memcmp(info.content, again.content, sizeof info.content) != 0 ||
        info.raw_bytes != again.raw_bytes || info.records != again.records ||
        info.min_stamp != again.min_stamp || info.max_stamp != again.max_stamp ||
        !slice_equal(info.first, again.first) || !slice_equal(info.last, again.last))
        stop_at("a file that is verified is not what the writer makes of its records");
    sst_cursor_free(&c);
    sst_writer_free(w);
    buffer_free(&object);
}

static void
try_file(struct t4_slice object)
{
    struct sst_info info;
    struct sst *s;
    t4_status status = sst_open(object, &s, NULL);

    if (status != T4_OK) {
        only_damage(status);
        return;
    }
    sst_get_info(s, &info);
    if (info.raw_bytes <= RAW_MAX) {
        read_in_order(s);
        status = sst_verify(s, NULL);
        read_all(s);
        if (status == T4_OK)
            write_again(s);
        else
            only_damage(status);
    }
    sst_close(s);
}

/* Makes the checksums of blocks, index and footer right, as far as the index can be read. */
static void
mend_file(struct buffer *b)
{
    uint8_t *footer;
    struct byte_reader r;
    uint64_t index_at, at = 0;

    if (b->len < FOOTER)
        return;
    footer = b->data + b->len - FOOTER;
    index_at = get_u64le(footer + 64);
    if (index_at <= b->len - FOOTER) {
        r = reader_of(slice_of(b->data + index_at, b->len - FOOTER - (size_t)index_at));
        for (uint32_t i = get_u32le(footer + 72); i > 0 && !r.bad; i--) {
            uint64_t packed;
            uint32_t crc;

            reader_counted(&r);
            packed = reader_varint(&r);
            reader_varint(&r);
            reader_u32(&r);
            if (r.bad || packed > index_at - at)
                break;
            crc = crc32c(0, b->data + at, (size_t)packed);
            put_u32le(b->data + (r.next - b->data) - 4, crc);
            at += packed;
        }
        put_u32le(footer + 76,
                  crc32c(0, b->data + index_at, b->len - FOOTER - (size_t)index_at));
    }
    put_u32le(footer + 88, crc32c(0, footer, 88));
}

/* --- a run index --------------------------------------------------------------------------- */

static bool
same_run(const struct run_index *a, const struct run_index *b)
{
    if (a->first_index != b->first_index || a->last_index != b->last_index ||
        a->last_revision != b->last_revision || a->compacted != b->compacted ||
        a->is_base != b->is_base || a->n != b->n || a->filter.keys != b->filter.keys ||
        !slice_equal(buffer_slice(&a->filter.bits), buffer_slice(&b->filter.bits)) ||
        !slice_equal(buffer_slice(&a->system), buffer_slice(&b->system)))
        return false;
    for (size_t i = 0; i < a->n; i++)
        if (memcmp(a->sst[i].info.sha256, b->sst[i].info.sha256, SHA256_BYTES) != 0 ||
            a->sst[i].info.records != b->sst[i].info.records ||
            !slice_equal(a->sst[i].info.first, b->sst[i].info.first) ||
            !slice_equal(a->sst[i].info.last, b->sst[i].info.last))
            return false;
    return true;
}

static void
try_run(struct t4_slice object)
{
    struct run_index run, again;
    struct buffer encoded = {0};
    t4_status status = run_index_decode(object, &run, NULL);

    if (status != T4_OK) {
        only_damage(status);
        return;
    }
    for (size_t i = 0; i < run.n; i++) {
        size_t from, to;

        run_find(&run, run.sst[i].info.first, run.sst[i].info.last, &from, &to);
        if (from != i || to != i + 1)
            stop_at("a file of a run is not found by its bounds");
        run_may_hold(&run, run.sst[i].info.first);
    }
    run_index_encode(&encoded, &run);
    if (run_index_decode(buffer_slice(&encoded), &again, NULL) != T4_OK ||
        !same_run(&run, &again))
        stop_at("a run index that is accepted does not survive its encoding");
    run_index_free(&again);
    run_index_free(&run);
    buffer_free(&encoded);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct buffer copy = {0};
    uint8_t hash[SHA256_BYTES];
    uint64_t term, index;

    try_file(slice_of(data, n));
    try_run(slice_of(data, n));
    sst_key_parse(slice_of(data, n), hash, &term, &index);
    buffer_append(&copy, data, n);
    mend_file(&copy);
    try_file(buffer_slice(&copy));
    if (n >= 4) {
        buffer_clear(&copy);
        buffer_append(&copy, data, n);
        put_u32le(copy.data + n - 4, crc32c(0, copy.data, n - 4));
        try_run(buffer_slice(&copy));
    }
    buffer_free(&copy);
    return 0;
}

/* --- alone ------------------------------------------------------------------------------- */

/* A few records, now and then enough for a second block. */
static void
make_file(struct buffer *out, struct sst_info *info)
{
    static uint8_t bytes[40000];
    struct sst_writer *w = sst_writer_new(NULL);
    struct buffer key = {0}, value = {0};
    uint64_t n = chance(6) + 1;

    for (uint64_t i = 0; i < n; i++) {
        uint8_t ikey[3] = {(uint8_t) "kls"[i * 3 / n], 0, (uint8_t)(i / 2)};
        struct version v = {.flags = chance(4) == 0 ? VERSION_TOMBSTONE : 0};

        v.value = slice_of(bytes, chance(8) == 0 ? sizeof bytes : (size_t)chance(30));
        buffer_clear(&key);
        buffer_clear(&value);
        record_key_encode(&key, slice_of(ikey, sizeof ikey), 10 - i);
        record_value_encode(&value, buffer_slice(&key), &v);
        if (sst_writer_add(w, buffer_slice(&key), buffer_slice(&value), NULL) != T4_OK)
            stop_at("a record is refused");
    }
    if (sst_writer_finish(w, out, info, NULL) != T4_OK)
        stop_at("a file is refused");
    info->first = slice_str("ka"); /* for whoever puts it into a run */
    info->last = slice_str("kb");
    sst_writer_free(w);
    buffer_free(&key);
    buffer_free(&value);
}

static void
make_run(struct buffer *out)
{
    struct sst_filter_builder filter = {0};
    struct run_index run = {.last_index = chance(99), .is_base = chance(2) == 0};
    uint64_t n = chance(2) == 0 ? chance(3) : chance(30);

    for (uint64_t i = 0; i < n; i++) {
        char first[32], last[32];
        struct sst_info info = {.object_bytes = 500, .raw_bytes = 900, .records = 3};

        snprintf(first, sizeof first, "k/some/prefix/%02ua", (unsigned)i);
        snprintf(last, sizeof last, "k/some/prefix/%02uz", (unsigned)i);
        info.first = slice_str(first);
        info.last = slice_str(last);
        info.sha256[0] = (uint8_t)chance(256);
        sst_filter_add(&filter, sst_hash(info.first));
        if (run_index_add(&run, &info, 1, i, NULL) != T4_OK)
            stop_at("a file is refused by a run");
    }
    if (chance(2) == 0)
        sst_filter_build(&filter, &run.filter);
    if (chance(2) == 0)
        buffer_append(&run.system, "system records", chance(14));
    sst_filter_builder_free(&filter);
    run_index_encode(out, &run);
    run_index_free(&run);
}

static void
mutate(struct buffer *b)
{
    for (uint64_t k = chance(4); k > 0 && b->len > 0; k--) {
        /* Mostly at the end, where the numbers of a file stand, or anywhere. */
        size_t from = chance(2) == 0 && b->len > 160 ? b->len - 160 : 0;
        size_t at = from + (size_t)chance(b->len - from);

        switch (chance(5)) {
        case 0: b->data[at] ^= (uint8_t)(1u << chance(8)); break;
        case 1: b->data[at] = (uint8_t)chance(256); break;
        case 2: b->data[at] = (uint8_t)(b->data[at] + 1); break;
        case 3: b->len = at; break;
        default: buffer_append_u8(b, (uint8_t)chance(256)); break;
        }
    }
}

int sst_fuzz(unsigned long rounds, uint64_t seed);

int
sst_fuzz(unsigned long rounds, uint64_t seed)
{
    struct buffer b = {0};
    struct sst_info info;

    chance_state = seed;
    for (unsigned long i = 0; i < rounds; i++) {
        buffer_clear(&b);
        if (chance(3) > 0)
            make_file(&b, &info);
        else
            make_run(&b);
        LLVMFuzzerTestOneInput(b.data, b.len);
        mutate(&b);
        LLVMFuzzerTestOneInput(b.data, b.len);
    }
    buffer_free(&b);
    return 0;
}

#ifdef FUZZ_ALONE
int
main(int argc, char **argv)
{
    return sst_fuzz(argc > 1 ? strtoul(argv[1], NULL, 10) : 1000000,
                    argc > 2 ? strtoull(argv[2], NULL, 10) : 1);
}
#endif

/*
 * bolt_fuzz.c - bbolt files, and etcd's databases in them, of any bytes.
 *
 * Says: opening and reading ends, whatever the pages point to, and reads nothing outside of them;
 * what is refused is CORRUPT or INVALID; keys ascend; what is read of etcd's buckets gives records
 * in the order of a checkpoint, each with its checksum.  Every input is tried as it is and with the
 * checksums of its metas made right.
 *
 * libFuzzer:   clang -fsanitize=fuzzer,address ... bolt_fuzz.c <the core's objects, memory_file and
 *              scratch of regress/unit> and cmocka
 * alone:       gcc -DFUZZ_ALONE ...; then bolt_fuzz [rounds [seed]] mutates files of its own making.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bolt/layout.h"
#include "chance.h"
#include "fmt/record.h"
#include "memory_file.h"
#include "scratch.h"
#include "snapshot/restore_int.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void
stop_at(const char *what)
{
    fprintf(stderr, "bolt_fuzz: %s\n", what);
    abort();
}

static void
only_damage(t4_status status)
{
    if (status != T4_E_CORRUPT && status != T4_E_INVALID)
        stop_at("bytes are refused in another way");
}

static void
read_bucket(struct bolt_reader *r, const char *name)
{
    struct buffer last = {0};
    struct t4_slice key, value;
    struct error error;
    t4_status status = bolt_reader_bucket(r, name, &error);
    bool any = false;

    while (status == T4_OK) {
        status = bolt_reader_next(r, &key, &value, &error);
        if (status != T4_OK)
            break;
        if (any && slice_compare(buffer_slice(&last), key) >= 0)
            stop_at("keys do not ascend");
        any = true;
        buffer_clear(&last);
        buffer_append_slice(&last, key);
    }
    if (status != T4_E_NOTFOUND)
        only_damage(status);
    buffer_free(&last);
}

static void
load_all(struct snapshot_file *f)
{
    struct buffer last = {0};
    struct snapshot_restored about;
    struct snapshot_status sum;
    struct sst_source source;
    struct t4_slice key, value;
    struct error error;
    struct load *l;
    t4_status status = snapshot_status(f, scratch_parent(), &sum, &error);

    if (status != T4_OK)
        only_damage(status);
    status = load_new(f, scratch_parent(), &l, &error);
    if (status != T4_OK) {
        only_damage(status);
        return;
    }
    load_describe(l, &about);
    if (about.revision < about.compacted || about.revision < 1)
        stop_at("a revision that cannot be");
    source = load_source(l);
    while ((status = source.next(source.state, &key, &value, &error)) == T4_OK) {
        if (last.len > 0 && slice_compare(buffer_slice(&last), key) > 0)
            stop_at("records do not ascend");
        if (!record_verify(key, value))
            stop_at("a record without its checksum");
        buffer_clear(&last);
        buffer_append_slice(&last, key);
    }
    if (status != T4_E_NOTFOUND)
        stop_at("what was read cannot be given");
    load_free(l);
    buffer_free(&last);
}

static void
try_file(struct memory_file *m)
{
    struct snapshot_file f = {
        .env = &m->env, .file = memory_file_of(m), .bytes = m->bytes.len};
    struct error error;
    t4_status status = bolt_reader_open(&m->env, f.file, f.bytes, &f.reader, &error);

    if (status != T4_OK) {
        only_damage(status);
        return;
    }
    read_bucket(f.reader, NULL);
    read_bucket(f.reader, "key");
    read_bucket(f.reader, "meta");
    load_all(&f);
    bolt_reader_close(f.reader);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct memory_file m;

    memory_file_init(&m);
    buffer_append(&m.bytes, data, n);
    try_file(&m);
    for (size_t at = 0; at + 4096 <= n && at < 8192; at += 4096)
        put_u64le(m.bytes.data + at + PAGE_HEAD + META_CHECKSUM,
                  bolt_checksum(m.bytes.data + at + PAGE_HEAD));
    if (n >= 8192)
        try_file(&m);
    memory_file_free(&m);
    return 0;
}

/* --- alone ------------------------------------------------------------------------------- */

static void
put(struct bolt_writer *w, const void *key, size_t key_len, const void *value, size_t n)
{
    if (bolt_writer_put(w, slice_of(key, key_len), slice_of(value, n), NULL) != T4_OK)
        stop_at("a record is refused");
}

static void
bucket(struct bolt_writer *w, const char *name)
{
    if (bolt_writer_bucket(w, slice_str(name), NULL) != T4_OK)
        stop_at("a bucket is refused");
}

/* {1 key, 2 create, 3 mod, 4 version, 5 value, 6 lease}, all numbers below 128. */
static size_t
key_value(uint8_t *out, uint8_t key, uint8_t revision, size_t value)
{
    const uint8_t head[] = {0x0a,
                            1,
                            key,
                            0x10,
                            revision,
                            0x18,
                            revision,
                            0x20,
                            1,
                            0x30,
                            (uint8_t)(revision % 3 == 0),
                            0x2a};
    size_t n = sizeof head;

    memcpy(out, head, n);
    for (size_t v = value; v >= 0x80; v >>= 7)
        out[n++] = (uint8_t)(v | 0x80);
    out[n++] = (uint8_t)(value >= 16384 ? value >> 14
                         : value >= 128 ? value >> 7
                                        : value);
    memset(out + n, 'v', value);
    return n + value;
}

/* Few records, or so many that there are branches; now and then a page that overflows. */
static void
make_file(struct memory_file *m)
{
    static uint8_t value[32768];
    struct bolt_writer *w = bolt_writer_new(&m->env, memory_file_of(m));
    uint64_t n = chance(3) == 0 ? chance(100) : chance(6), size;
    uint8_t key[18] = {0}, lease[8] = {0, 0, 0, 0, 0, 0, 0, 1}, enabled = 0;

    bucket(w, "auth");
    put(w, "authEnabled", 11, &enabled, 1);
    bucket(w, "key");
    key[8] = '_';
    key[17] = 't';
    for (uint64_t i = 2; i < n + 2; i++) {
        bool tombstone = chance(5) == 0;

        key[7] = (uint8_t)i;
        if (tombstone)
            put(w, key, 18,
                "\x0a\x01"
                "a",
                3);
        else
            put(w, key, 17, value,
                key_value(value, (uint8_t)('a' + chance(4)), (uint8_t)i,
                          chance(20) == 0 ? 9000 : (size_t)chance(300)));
    }
    bucket(w, "lease");
    put(w, lease, 8, "\x08\x01\x10\x64", 4);
    bucket(w, "meta");
    key[7] = (uint8_t)chance(n + 1);
    if (key[7] > 0)
        put(w, "finishedCompactRev", 18, key, 17);
    put(w, "storageVersion", 14, "3.6.0", 5);
    if (bolt_writer_finish(w, &size, NULL) != T4_OK || size != m->bytes.len)
        stop_at("a file is refused");
    bolt_writer_free(w);
}

static void
mutate(struct buffer *b)
{
    for (uint64_t k = chance(4); k > 0 && b->len > 0; k--) {
        /* Mostly at the beginning of a page, where its numbers stand. */
        size_t page = (size_t)chance(b->len / 4096) * 4096;
        size_t at = chance(4) > 0 ? page + (size_t)chance(120) : (size_t)chance(b->len);

        switch (chance(5)) {
        case 0: b->data[at] ^= (uint8_t)(1u << chance(8)); break;
        case 1: b->data[at] = (uint8_t)chance(256); break;
        case 2: b->data[at] = (uint8_t)(b->data[at] + 1); break;
        case 3: b->data[at] = (uint8_t)chance(4); break;
        default:
            if (chance(8) == 0)
                b->len = at;
            break;
        }
        if (b->len < 4096)
            return;
    }
}

int bolt_fuzz(unsigned long rounds, uint64_t seed);

int
bolt_fuzz(unsigned long rounds, uint64_t seed)
{
    struct memory_file m;

    chance_state = seed;
    memory_file_init(&m);
    for (unsigned long i = 0; i < rounds; i++) {
        buffer_clear(&m.bytes);
        make_file(&m);
        LLVMFuzzerTestOneInput(m.bytes.data, m.bytes.len);
        mutate(&m.bytes);
        LLVMFuzzerTestOneInput(m.bytes.data, m.bytes.len);
    }
    memory_file_free(&m);
    return 0;
}

#ifdef FUZZ_ALONE
int
main(int argc, char **argv)
{
    return bolt_fuzz(argc > 1 ? strtoul(argv[1], NULL, 10) : 1000000,
                     argc > 2 ? strtoull(argv[2], NULL, 10) : 1);
}
#endif

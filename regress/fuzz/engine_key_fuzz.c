/*
 * engine_key_fuzz.c - storage engines with keys of 1 byte to 64 KiB, which the LMDB plugin stores in
 * pieces of 480, against a sorted array.
 *
 * Says of the memory engine and of lmdb, after each write: gets, seeks and steps either way are
 * those of the array, also in a snapshot from before; a deleted key is gone, whatever shares its
 * beginning; after defragmenting and reopening all is as it was; when all keys are deleted no record
 * is left, and no page but a few.
 *
 * Input: operations of 4 bytes: what to do, the key's length (one of those around the pieces'
 * ends), what it is filled with, its last byte.
 * libFuzzer:   clang -fsanitize=fuzzer,address ... engine_key_fuzz.c <objects of the core> and cmocka
 * alone:       gcc -DFUZZ_ALONE ...; then engine_key_fuzz [rounds [seed]]; each round is up to 64
 *              operations on two engines: one for a thousand rounds of other decoders.
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
#include <string.h>
#include <unistd.h>

#include "base/slice.h"
#include "chance.h"
#include "engine_bed.h"
#include "must.h"

#define OPS 64u
#define PIECE 480u
#define LONGEST 65536u
#define PAGES_LEFT (128u << 10) /* bytes in use of an engine without keys */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static const char *kind; /* the engine under test */

/* --- keys ------------------------------------------------------------------------------------ */

/* Of all lengths where a piece, a link or a key ends, and one beside them. */
static size_t
length_of(uint8_t choice)
{
    static const uint32_t edge[] = {1,         2,         PIECE,     2 * PIECE, 3 * PIECE,
                                    4 * PIECE, 7 * PIECE, 511,       16384,     32768,
                                    LONGEST,   LONGEST,   9 * PIECE, 8,         100};
    size_t n = edge[choice % 15];
    int off = choice / 15 % 5 - 2;

    if (off < 0 && n <= 2)
        off = 0;
    n = (size_t)((int)n + off);
    return n > LONGEST ? LONGEST : n;
}

/* The key of an operation; its bytes are valid until the next call. */
static struct t4_slice
key_of(const uint8_t *op)
{
    static const uint8_t fill[] = {0, 'a', 0xff, 1};
    static uint8_t bytes[LONGEST];
    size_t n = length_of(op[1]);

    memset(bytes, fill[op[2] & 3], n);
    /* A byte that differs somewhere in the middle: keys part there. */
    if (op[2] >> 2 != 0)
        bytes[(size_t)(op[2] >> 2) * n / 64] ^= 0x11;
    bytes[n - 1] = op[3];
    return slice_of(bytes, n);
}

/* --- the array ------------------------------------------------------------------------------- */

struct pair {
    uint8_t *key;
    size_t len;
    uint64_t number; /* the value: value_make() */
};

static struct pair array[OPS];
static size_t n_pairs;

static size_t
lower_bound(struct t4_slice key)
{
    size_t i = 0;

    while (i < n_pairs && slice_compare(slice_of(array[i].key, array[i].len), key) < 0)
        i++;
    return i;
}

static bool
is_at(size_t i, struct t4_slice key)
{
    return i < n_pairs && slice_equal(slice_of(array[i].key, array[i].len), key);
}

static void
array_put(struct t4_slice key, uint64_t number)
{
    size_t i = lower_bound(key);

    if (!is_at(i, key)) {
        memmove(&array[i + 1], &array[i], (n_pairs++ - i) * sizeof array[0]);
        array[i].key = malloc(key.len);
        memcpy(array[i].key, key.data, key.len);
        array[i].len = key.len;
    }
    array[i].number = number;
}

static void
array_delete(struct t4_slice key)
{
    size_t i = lower_bound(key);

    if (!is_at(i, key))
        return;
    free(array[i].key);
    memmove(&array[i], &array[i + 1], (--n_pairs - i) * sizeof array[0]);
}

/* --- comparing ------------------------------------------------------------------------------- */

static void
same_pair(size_t i, struct t4_slice key, struct t4_slice value)
{
    MUST(i < n_pairs);
    MUST(slice_equal(key, slice_of(array[i].key, array[i].len)));
    MUST(slice_equal(value, value_make(array[i].number)));
}

/* Everything in order, forward and back; then gets and a seek of every operation's key. */
static void
same(struct bed *b, struct t4_snap *s, const uint8_t *ops, size_t n_ops)
{
    struct t4_slice key, value;
    struct t4_iter *it;

    MUST(engine_iter(b->engine, s, &it) == T4_OK);
    for (size_t i = 0; i <= n_pairs; i++) {
        t4_status status = i == 0
                               ? engine_seek(b->engine, it, slice_str(""), &key, &value)
                               : engine_next(b->engine, it, &key, &value);

        MUST(status == (i < n_pairs ? T4_OK : T4_E_NOTFOUND));
        if (status == T4_OK)
            same_pair(i, key, value);
    }
    for (size_t o = 0; o < n_ops; o++) {
        struct t4_slice sought = key_of(ops + 4 * o);
        size_t i = lower_bound(sought);
        t4_status status = engine_get(b->engine, s, sought, &value);

        MUST(status == (is_at(i, sought) ? T4_OK : T4_E_NOTFOUND));
        if (status == T4_OK)
            MUST(slice_equal(value, value_make(array[i].number)));
        status = engine_seek(b->engine, it, sought, &key, &value);
        MUST(status == (i < n_pairs ? T4_OK : T4_E_NOTFOUND));
        if (status != T4_OK)
            continue;
        same_pair(i, key, value);
        status = engine_prev(b->engine, it, &key, &value);
        MUST(status == (i > 0 ? T4_OK : T4_E_NOTFOUND));
        if (status == T4_OK)
            same_pair(i - 1, key, value);
    }
    engine_iter_end(b->engine, it);
}

static void
same_now(struct bed *b, const uint8_t *ops, size_t n_ops)
{
    struct t4_snap *s;

    MUST(engine_snap(b->engine, &s) == T4_OK);
    same(b, s, ops, n_ops);
    engine_snap_end(b->engine, s);
}

/* --- one input ------------------------------------------------------------------------------- */

static void
write_one(struct bed *b, uint32_t what, struct t4_slice key, uint64_t number)
{
    struct t4_op op = {.kind = what, .key = key, .value = value_make(number)};
    struct error error;

    if (what == T4_OP_DELETE)
        op.value = slice_of(NULL, 0);
    MUST(engine_write(b->engine, &op, 1, number, &error) == T4_OK);
    if (what == T4_OP_PUT)
        array_put(key, number);
    else
        array_delete(key);
}

/* The state of a snapshot is that of before the last writes: those are taken back in the array. */
static void
old_snapshot(struct bed *b, const uint8_t *op, uint64_t number, const uint8_t *ops,
             size_t n_ops)
{
    bool there = is_at(lower_bound(key_of(op)), key_of(op));
    uint64_t was = there ? array[lower_bound(key_of(op))].number : 0;
    struct t4_snap *s;

    MUST(engine_snap(b->engine, &s) == T4_OK);
    write_one(b, there ? T4_OP_DELETE : T4_OP_PUT, key_of(op), number);
    if (there)
        array_put(key_of(op), was);
    else
        array_delete(key_of(op));
    same(b, s, ops, n_ops);
    engine_snap_end(b->engine, s);
    if (there)
        array_delete(key_of(op));
    else
        array_put(key_of(op), number);
}

static void
run(struct bed *b, const uint8_t *ops, size_t n_ops)
{
    struct t4_engine_stats stats;
    struct error error;
    uint64_t number;
    bool more = true;

    kind = b->kind;
    MUST(engine_flushed(b->engine, &number) == T4_OK);
    for (size_t o = 0; o < n_ops; o++) {
        const uint8_t *op = ops + 4 * o;

        number++;
        switch (op[0] % 16) {
        case 0: old_snapshot(b, op, number, ops, n_ops); break;
        case 1: MUST(engine_defragment(b->engine, &more, &error) == T4_OK); break;
        case 2:
        case 3:
        case 4:
        case 5: write_one(b, T4_OP_DELETE, key_of(op), number); break;
        default: write_one(b, T4_OP_PUT, key_of(op), number); break;
        }
    }
    same_now(b, ops, n_ops);
    while (more)
        MUST(engine_defragment(b->engine, &more, &error) == T4_OK);
    if (strcmp(kind, "memory") != 0) { /* which forgets */
        bed_close(b);
        bed_open(b);
    }
    same_now(b, ops, n_ops);
    while (n_pairs > 0) {
        size_t i = n_pairs * n_ops / 100 % n_pairs;
        uint8_t *key = malloc(array[i].len);
        size_t len = array[i].len;

        memcpy(key, array[i].key, len);
        write_one(b, T4_OP_DELETE, slice_of(key, len), ++number);
        free(key);
    }
    MUST(engine_stats(b->engine, &stats) == T4_OK);
    MUST(stats.records == 0);
    MUST(strcmp(kind, "memory") == 0 || stats.in_use_bytes <= PAGES_LEFT);
}

static struct bed beds[2];

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    size_t n_ops = n / 4 < OPS ? n / 4 : OPS;

    if (beds[0].kind == NULL) {
        if (access("/dev/shm", W_OK) == 0) /* syncs are not what is tested here */
            setenv("TMPDIR", "/dev/shm", 0);
        for (int i = 0; i < 2; i++) {
            bed_init(&beds[i], i == 0 ? "memory" : "lmdb", NULL);
            bed_open(&beds[i]);
        }
    }
    for (int i = 0; i < 2; i++)
        run(&beds[i], data, n_ops);
    return 0;
}

int engine_key_fuzz(unsigned long rounds, uint64_t seed);

int
engine_key_fuzz(unsigned long rounds, uint64_t seed)
{
    uint8_t input[4 * OPS];

    chance_state = seed;
    for (unsigned long i = 0; i < rounds; i++) {
        size_t n = 4 * chance(OPS + 1);
        uint8_t family =
            (uint8_t)chance(256); /* so that many keys share their beginning */

        for (size_t k = 0; k < n; k += 4) {
            input[k] = (uint8_t)chance(256);
            input[k + 1] = (uint8_t)chance(256);
            input[k + 2] = chance(3) > 0 ? family : (uint8_t)chance(256);
            input[k + 3] = (uint8_t)(chance(4) == 0 ? chance(256) : 'a' + chance(3));
        }
        LLVMFuzzerTestOneInput(input, n);
    }
    for (int i = 0; i < 2 && beds[i].kind != NULL; i++)
        bed_destroy(&beds[i]);
    return 0;
}

#ifdef FUZZ_ALONE
int
main(int argc, char **argv)
{
    return engine_key_fuzz((argc > 1 ? strtoul(argv[1], NULL, 10) : 5000000) / 1000,
                           argc > 2 ? strtoull(argv[2], NULL, 10) : 1);
}
#endif

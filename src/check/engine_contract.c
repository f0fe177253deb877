/*
 * engine_contract.c - what the contract of a storage engine says of writes, sizes and numbers.
 *
 * Entry point: engine_contract().  Runs on: the thread of the part.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <string.h>

#include "base/memory.h"
#include "base/slice.h"
#include "check/engine_int.h"

#define LEAST_MAX_KEY                                                                    \
    32780 /* t4 run refuses less: a key of 16 KiB, escaped, and a revision */
#define LARGE_VALUE ((size_t)64 << 20)

static void
check_empty(struct bench *b)
{
    struct t4_snap *s = bench_snap(b);
    struct t4_iter *it = s != NULL ? bench_iter(b, s) : NULL;
    struct t4_slice key, value;

    bench_flushed(b, 0);
    if (it != NULL) {
        bench_status(b, engine_next(b->engine, it, &key, &value), T4_E_NOTFOUND,
                     "next()");
        bench_status(b, engine_prev(b->engine, it, &key, &value), T4_E_NOTFOUND,
                     "prev()");
        bench_status(b, engine_seek(b->engine, it, slice_str("a"), &key, &value),
                     T4_E_NOTFOUND, "seek()");
        bench_get(b, s, slice_str("a"), slice_of(NULL, 0));
    }
    engine_iter_end(b->engine, it);
    engine_snap_end(b->engine, s);
    bench_line(b, "a new engine is empty, and flushed() is 0");
}

static void
check_order_of_ops(struct bench *b)
{
    struct t4_slice a = slice_str("a"), c = slice_str("c");
    const struct t4_op ops[] = {
        put_op(a, slice_str("1")),       delete_op(a),
        put_op(a, slice_str("2")),       put_op(c, slice_of("", 0)),
        delete_op(slice_str("missing")), put_op(slice_str("d"), slice_str("3")),
        delete_op(slice_str("d")),
    };
    struct t4_snap *s;

    bench_write(b, ops, sizeof ops / sizeof ops[0], 41, true);
    bench_flushed(b, 41);
    s = bench_snap(b);
    if (s != NULL) {
        bench_get(b, s, a, slice_str("2"));
        bench_get(b, s, c, slice_of("", 0));
        bench_get(b, s, slice_str("d"), slice_of(NULL, 0));
        bench_get(b, s, slice_str("b"), slice_of(NULL, 0));
        bench_get(b, s, slice_str("aa"), slice_of(NULL, 0));
        bench_get(b, s, slice_of("", 0), slice_of(NULL, 0));
    }
    engine_snap_end(b->engine, s);
    bench_line(b,
               "write() applies its operations in order; deleting a missing key is OK");
}

static void
check_flushed(struct bench *b)
{
    static const uint64_t numbers[] = {42, UINT64_MAX, 0, 7};

    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        bench_write(b, NULL, 0, numbers[i], false);
        bench_flushed(b, numbers[i]);
    }
    bench_line(b,
               "flushed() is the number of the last write, whatever it is, also of one "
               "without operations");
}

/* The engine may not keep what it was lent. */
static void
check_lent(struct bench *b)
{
    uint8_t key[] = "lent", value[] = "bytes";
    struct t4_op op = put_op(slice_of(key, 4), slice_of(value, 5));
    struct t4_snap *s;

    bench_write(b, &op, 1, 1, false);
    memset(key, 'x', sizeof key);
    memset(value, 'x', sizeof value);
    memset(&op, 0, sizeof op);
    s = bench_snap(b);
    if (s != NULL) {
        bench_get(b, s, slice_str("lent"), slice_str("bytes"));
        bench_get(b, s, slice_str("xxxx"), slice_of(NULL, 0));
    }
    engine_snap_end(b->engine, s);
    bench_line(b, "write() has copied keys and values when it returns");
}

/* Both ends of what is allowed, and neighbours that differ in the last byte only. */
static void
check_keys_of_all_lengths(struct bench *b)
{
    size_t most = (size_t)b->ops.max_key, lengths[] = {1, 2, 255, 511, 4096, 0, 0};
    enum { LENGTHS = sizeof lengths / sizeof lengths[0] };
    uint8_t *bytes[LENGTHS];
    struct t4_snap *s;

    if (!check_ok(b->check, most >= LEAST_MAX_KEY,
                  "max_key is at least %d bytes, which a server needs", LEAST_MAX_KEY))
        return;
    if (most > (size_t)1 << 20)
        most = (size_t)1 << 20;
    lengths[LENGTHS - 2] = most - 1;
    lengths[LENGTHS - 1] = most;
    for (size_t i = 0; i < LENGTHS; i++) {
        bytes[i] = mem_alloc(lengths[i]);
        memset(bytes[i], 'k', lengths[i]);
        for (unsigned last = 0; last < 3; last++) {
            static const uint8_t ends[] = {0x00, 'k', 0xff};
            struct t4_op op;

            bytes[i][lengths[i] - 1] = ends[last];
            op = put_op(slice_of(bytes[i], lengths[i]), slice_of(&ends[last], 1));
            bench_write(b, &op, 1, 1, false);
        }
    }
    s = bench_snap(b);
    for (size_t i = 0; i < LENGTHS; i++) {
        for (unsigned last = 0; s != NULL && last < 3; last++) {
            static const uint8_t ends[] = {0x00, 'k', 0xff};

            bytes[i][lengths[i] - 1] = ends[last];
            bench_get(b, s, slice_of(bytes[i], lengths[i]), slice_of(&ends[last], 1));
        }
        mem_free(bytes[i]);
    }
    engine_snap_end(b->engine, s);
    bench_line(b, "keys of 1 byte to %zu bytes, neighbours that differ in the last byte",
               most);
}

static void
check_large_values(struct bench *b)
{
    uint8_t *bytes = mem_alloc(LARGE_VALUE);
    size_t lengths[] = {0, 1, 4095, 4096, 65537, 1 << 20, LARGE_VALUE};
    enum { LENGTHS = sizeof lengths / sizeof lengths[0] };
    struct t4_snap *s;
    char key[32];

    for (size_t i = 0; i < LARGE_VALUE; i++)
        bytes[i] = (uint8_t)(i * 2654435761u >> 13);
    for (size_t i = 0; i < LENGTHS; i++) {
        struct t4_op op;

        snprintf(key, sizeof key, "value%zu", i);
        op = put_op(slice_str(key), slice_of(bytes, lengths[i]));
        bench_write(b, &op, 1, i, true);
    }
    s = bench_snap(b);
    for (size_t i = 0; s != NULL && i < LENGTHS; i++) {
        snprintf(key, sizeof key, "value%zu", i);
        bench_get(b, s, slice_str(key), slice_of(bytes, lengths[i]));
    }
    engine_snap_end(b->engine, s);
    for (size_t i = 0; i < LENGTHS; i++) {
        struct t4_op op;

        snprintf(key, sizeof key, "value%zu", i);
        op = delete_op(slice_str(key));
        bench_write(b, &op, 1, i, false);
    }
    mem_free(bytes);
    bench_line(b, "values of 0 bytes to 64 MiB");
}

static void
check_stats(struct bench *b)
{
    struct t4_engine_stats before, after;
    struct t4_op ops[] = {
        put_op(slice_str("s1"), slice_str("1")), put_op(slice_str("s2"), slice_str("2")),
        put_op(slice_str("s2"), slice_str("3")), delete_op(slice_str("s9"))};
    t4_status st = engine_stats(b->engine, &before);

    if (st == T4_E_UNSUPPORTED) {
        check_note(b->check, "the engine has no stats()");
        return;
    }
    bench_status(b, st, T4_OK, "stats()");
    bench_write(b, ops, 4, 1, false);
    bench_status(b, engine_stats(b->engine, &after), T4_OK, "stats()");
    if (after.records != before.records + 2)
        bench_complain(b, "%llu records, 2 new keys: %llu records",
                       (unsigned long long)before.records,
                       (unsigned long long)after.records);
    if (after.file_bytes > 0 && after.in_use_bytes > after.file_bytes)
        bench_complain(b, "%llu bytes in use of %llu",
                       (unsigned long long)after.in_use_bytes,
                       (unsigned long long)after.file_bytes);
    if (b->durable && after.file_bytes == 0)
        bench_complain(b, "a durable engine that occupies no disk");
    bench_line(b, "stats() counts records, and has no more in use than it occupies");
}

/* The same snapshot content before and after; defragment() need not be there. */
static void
check_defragment(struct bench *b)
{
    struct t4_op ops[2];
    struct t4_snap *old, *s;
    char key[16];

    for (unsigned i = 0; i < 1000; i++) {
        snprintf(key, sizeof key, "thin%u", i);
        ops[0] = put_op(slice_str(key), slice_str(key));
        ops[1] = delete_op(slice_str(key));
        bench_write(b, ops, i % 10 == 0 ? 1 : 2, 9, false);
    }
    old = bench_snap(b);
    bench_defragment(b);
    s = bench_snap(b);
    for (unsigned i = 0; s != NULL && old != NULL && i < 1000; i++) {
        struct t4_slice due;

        snprintf(key, sizeof key, "thin%u", i);
        due = i % 10 == 0 ? slice_str(key) : slice_of(NULL, 0);
        bench_get(b, old, slice_str(key), due);
        bench_get(b, s, slice_str(key), due);
    }
    engine_snap_end(b->engine, old);
    engine_snap_end(b->engine, s);
    bench_flushed(b, 9);
    bench_line(b, "defragment(), if it is there, ends and changes nothing that is seen");
}

static void
check_reopened(struct bench *b)
{
    struct t4_op op = put_op(slice_str("kept"), slice_str("yes"));
    struct t4_snap *s;

    bench_write(b, &op, 1, 12345, true);
    for (int i = 0; i < 2; i++) {
        bench_close(b);
        if (!bench_open(b))
            return;
        bench_flushed(b, b->durable ? 12345 : 0);
        s = bench_snap(b);
        if (s != NULL)
            bench_get(b, s, op.key, b->durable ? op.value : slice_of(NULL, 0));
        engine_snap_end(b->engine, s);
    }
    bench_line(b, b->durable ? "what was synced is there after close() and open()"
                             : "an engine that is not durable is empty after open()");
}

void
engine_contract(struct bench *b)
{
    if (!bench_load(b) || !bench_open(b))
        return;
    check_empty(b);
    check_order_of_ops(b);
    check_flushed(b);
    check_lent(b);
    check_keys_of_all_lengths(b);
    check_large_values(b);
    check_stats(b);
    check_defragment(b);
    check_reopened(b);
    bench_close(b);
}

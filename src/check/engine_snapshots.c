/*
 * engine_snapshots.c - snapshots that do not change, iterators that know their ends, slices
 * that stay.
 *
 * Entry points: engine_snapshots(), engine_iterators().  Runs on: the thread of the part, and
 * one more that a snapshot is handed to.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <string.h>

#include "base/memory.h"
#include "base/slice.h"
#include "check/engine_int.h"
#include "env/thread.h"

#define HELD 64 /* snapshots at once */

/* --- snapshots ---------------------------------------------------------------------- */

/* Number i of the snapshots sees the keys 0 to i, with the value i. */
static void
check_many(struct bench *b)
{
    struct t4_snap *held[HELD] = {0};
    uint8_t keys[HELD];

    for (unsigned i = 0; i < HELD; i++) {
        struct t4_op ops[HELD];
        uint8_t value = (uint8_t)i;

        for (unsigned k = 0; k <= i; k++) {
            keys[k] = (uint8_t)k;
            ops[k] = put_op(slice_of(&keys[k], 1), slice_of(&value, 1));
        }
        bench_write(b, ops, i + 1, i, false);
        held[i] = bench_snap(b);
    }
    for (unsigned n = 0; n < HELD; n++) { /* ended in another order than begun */
        unsigned i = (n * 37 + 11) % HELD;
        uint8_t value = (uint8_t)i;

        for (unsigned k = 0; held[i] != NULL && k < HELD; k++) {
            uint8_t key = (uint8_t)k;

            bench_get(b, held[i], slice_of(&key, 1),
                      k <= i ? slice_of(&value, 1) : slice_of(NULL, 0));
        }
        engine_snap_end(b->engine, held[i]);
    }
    bench_line(b, "%d snapshots of as many states at once", HELD);
}

/* Overwritten, deleted and added to while a snapshot, an iterator and slices are held. */
static void
check_immutable(struct bench *b)
{
    struct t4_op ops[] = {put_op(slice_str("i1"), slice_str("old")),
                          put_op(slice_str("i2"), slice_str("old")),
                          put_op(slice_str("i3"), slice_str("old"))};
    struct t4_slice key, value = {0}, got = {0};
    struct t4_iter *it = NULL, *later = NULL;
    struct t4_snap *s;

    bench_write(b, ops, 3, 1, false);
    s = bench_snap(b);
    if (s != NULL && (it = bench_iter(b, s)) != NULL) {
        bench_status(b, engine_seek(b->engine, it, slice_str("i1"), &key, &value), T4_OK,
                     "seek()");
        bench_status(b, engine_get(b->engine, s, slice_str("i2"), &got), T4_OK, "get()");
    }
    ops[0].value = slice_str("NEW");
    ops[1] = delete_op(slice_str("i2"));
    ops[2] = put_op(slice_str("i15"), slice_str("NEW"));
    for (unsigned i = 0; i < 200; i++)
        bench_write(b, ops, 3, i, i == 0);
    bench_defragment(b);
    if (it != NULL && b->complaint[0] == '\0') {
        if (!slice_equal(value, slice_str("old")) || !slice_equal(got, slice_str("old")))
            bench_complain(b, "a slice changed while its snapshot lived");
        bench_status(b, engine_next(b->engine, it, &key, &value), T4_OK, "next()");
        if (!slice_equal(key, slice_str("i2")))
            bench_complain(b, "an iterator that stood there sees a later write");
        bench_get(b, s, slice_str("i1"), slice_str("old"));
        bench_get(b, s, slice_str("i2"), slice_str("old"));
        bench_get(b, s, slice_str("i15"), slice_of(NULL, 0));
        if ((later = bench_iter(b, s)) != NULL)
            bench_status(b, engine_seek(b->engine, later, slice_str("i15"), &key, &value),
                         T4_OK, "seek()");
        if (!slice_equal(key, slice_str("i2")))
            bench_complain(b, "an iterator made later sees a later write");
    }
    engine_iter_end(b->engine, later);
    engine_iter_end(b->engine, it);
    engine_snap_end(b->engine, s);
    bench_line(b, "a snapshot does not change, nor do iterators and slices of it");
}

struct handed {
    struct bench *bench;
    struct t4_snap *snap;
};

static void *
other_thread(void *arg)
{
    struct handed *h = arg;

    bench_get(h->bench, h->snap, slice_str("i1"), slice_str("NEW"));
    engine_snap_end(h->bench->engine, h->snap);
    return NULL;
}

static void
check_handed_on(struct bench *b)
{
    struct handed h = {b, bench_snap(b)};
    struct thread thread;

    if (h.snap != NULL) {
        bench_get(b, h.snap, slice_str("i1"), slice_str("NEW"));
        thread_start(&thread, "check-other", other_thread, &h);
        thread_join(&thread);
    }
    bench_line(b, "a snapshot is handed on to another thread, which reads and ends it");
}

void
engine_snapshots(struct bench *b)
{
    if (!bench_load(b) || !bench_open(b))
        return;
    check_many(b);
    check_immutable(b);
    check_handed_on(b);
    bench_close(b);
}

/* --- iterators ---------------------------------------------------------------------- */

/*
 * A script of steps over the keys b, bb and d: '>' next, '<' prev, '/' seek to what follows
 * up to the next blank; each with what is due, "-" for NOTFOUND.
 */
static const struct {
    const char *script, *due;
} walks[] = {
    {"> > > > > < < < < <", "b bb d - - d bb b - -"},
    {"< < > >", "- - b bb"},
    {"/ > <", "b bb b"},
    {"/a <", "b -"},
    {"/b > < < >", "b bb b - b"},
    {"/ba > <", "bb d bb"},
    {"/bb /bb <", "bb bb b"},
    {"/bbb < < >", "d bb b bb"},
    {"/c < >", "d bb d"},
    {"/d > > < <", "d - - d bb"},
    {"/da < <", "- d bb"},
    {"/z > < > > <", "- - d - - d"},
    {"/z /b < < >", "- b - - b"},
    {"> /z < /a >", "b - d b bb"},
};

static bool
walk(struct bench *b, struct t4_iter *it, const char *script, const char *due)
{
    const char *whole = script;

    while (*script != '\0') {
        size_t word = strcspn(script, " "), due_length = strcspn(due, " ");
        struct t4_slice key = {0}, value = {0};
        t4_status st = script[0] == '>' ? engine_next(b->engine, it, &key, &value)
                       : script[0] == '<'
                           ? engine_prev(b->engine, it, &key, &value)
                           : engine_seek(b->engine, it, slice_of(script + 1, word - 1),
                                         &key, &value);
        bool found = due[0] != '-';

        if (st != (found ? T4_OK : T4_E_NOTFOUND) ||
            (found &&
             (!slice_equal(key, slice_of(due, due_length)) || !slice_equal(value, key))))
            return bench_complain(
                b, "in \"%s\" step \"%.*s\" gives %s \"%.*s\", not \"%.*s\"", whole,
                (int)word, script, status_text(st), st == T4_OK ? (int)key.len : 0,
                (const char *)key.data, (int)due_length, due);
        script += word + strspn(script + word, " ");
        due += due_length + strspn(due + due_length, " ");
    }
    return true;
}

static void
check_ends(struct bench *b, const char *what)
{
    struct t4_snap *s = bench_snap(b);

    for (size_t i = 0; s != NULL && i < sizeof walks / sizeof walks[0]; i++) {
        struct t4_iter *it = bench_iter(b, s);

        if (it != NULL)
            walk(b, it, walks[i].script, walks[i].due);
        engine_iter_end(b->engine, it);
    }
    engine_snap_end(b->engine, s);
    bench_line(b, "seek, next and prev inside and at both ends, %s", what);
}

/* Long keys, so that what an engine copies, it copies. */
static void
check_slices(struct bench *b)
{
    enum { KEYS = 40, SHORTEST = 480 };
    struct t4_slice key, other_key = {0}, values[KEYS], got = {0};
    struct t4_iter *one = NULL, *two = NULL;
    uint8_t bytes[SHORTEST + KEYS], value[3000];
    struct t4_snap *s;

    memset(bytes, 'k', sizeof bytes);
    for (unsigned i = 0; i < KEYS; i++) {
        struct t4_op op =
            put_op(slice_of(bytes, SHORTEST + i), slice_of(value, sizeof value));

        memset(value, '0' + (int)i, sizeof value);
        bench_write(b, &op, 1, i, false);
    }
    s = bench_snap(b);
    if (s == NULL || (one = bench_iter(b, s)) == NULL || (two = bench_iter(b, s)) == NULL)
        goto done;
    bench_status(
        b, engine_seek(b->engine, two, slice_of(bytes, SHORTEST + 2), &other_key, &got),
        T4_OK, "seek()");
    bench_status(b,
                 engine_seek(b->engine, one, slice_of(bytes, SHORTEST), &key, &values[0]),
                 T4_OK, "seek()");
    for (unsigned i = 1; i < KEYS && b->complaint[0] == '\0'; i++) {
        bench_status(b, engine_next(b->engine, one, &key, &values[i]), T4_OK, "next()");
        if (key.len != SHORTEST + i)
            bench_complain(b, "a key of %zu bytes where one of %u is due", key.len,
                           SHORTEST + i);
    }
    bench_defragment(b);
    if (b->complaint[0] == '\0' && !slice_equal(other_key, slice_of(bytes, SHORTEST + 2)))
        bench_complain(b, "an iterator's key changed when another iterator moved");
    engine_iter_end(b->engine, one);
    one = NULL;
    for (unsigned i = 0; i < KEYS && b->complaint[0] == '\0'; i++) {
        memset(value, '0' + (int)i, sizeof value);
        if (!slice_equal(values[i], slice_of(value, sizeof value)))
            bench_complain(b, "value %u of the iterator changed when it moved or ended",
                           i);
    }
    if (b->complaint[0] == '\0' && !slice_equal(got, values[2]))
        bench_complain(b, "two iterators give different values");
done:
    engine_iter_end(b->engine, one);
    engine_iter_end(b->engine, two);
    engine_snap_end(b->engine, s);
    bench_line(b, "values stay until snap_end(), an iterator's key until it moves");
}

void
engine_iterators(struct bench *b)
{
    const struct t4_op ops[] = {put_op(slice_str("b"), slice_str("b")),
                                put_op(slice_str("bb"), slice_str("bb")),
                                put_op(slice_str("d"), slice_str("d"))};

    if (!bench_load(b) || !bench_open(b))
        return;
    for (size_t i = 3; i > 0; i--) /* not in their order */
        bench_write(b, &ops[i - 1], 1, 1, true);
    check_ends(b, "just written");
    if (b->durable) {
        bench_close(b);
        if (!bench_open(b))
            return;
        check_ends(b, "reopened");
    }
    check_slices(b);
    bench_close(b);
}

/*
 * engine_model.c - a seeded history of writes, snapshots, walks, defragmentation and
 * reopening, compared with a sorted array (reference.h) after each write.
 *
 * Entry points: engine_model(), bench_scan().  Runs on: the thread of the part.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <string.h>

#include "base/memory.h"
#include "base/slice.h"
#include "check/engine_int.h"

#define MODEL_KEYS 1500
#define SNAPS 6
#define OPS 40

/* --- comparing ---------------------------------------------------------------------- */

static bool
same_pair(struct bench *b, const struct keys *k, const uint64_t *state, size_t at,
          struct t4_slice key, struct t4_slice value)
{
    if (!slice_equal(key, k->key[at]))
        return bench_complain(
            b,
            "a key of %zu bytes stands where number %zu of %zu bytes is "
            "due",
            key.len, at, k->key[at].len);
    if (!slice_equal(value, value_make(state[at])))
        return bench_complain(b, "key number %zu (%zu bytes) has the wrong value", at,
                              key.len);
    return true;
}

/* The present key after (by 1) or before (-1) position `at`; -1 or n: there is none. */
static long
step(const struct keys *k, const uint64_t *state, long at, int by)
{
    do {
        at += by;
    } while (at >= 0 && at < (long)k->n && state[at] == 0);
    return at;
}

/* One step; `at` is where it must lead. */
static bool
same_step(struct bench *b, struct t4_iter *it, const struct keys *k,
          const uint64_t *state, bool forward, long at)
{
    struct t4_slice key, value;
    t4_status st = forward ? engine_next(b->engine, it, &key, &value)
                           : engine_prev(b->engine, it, &key, &value);
    bool end = at < 0 || at >= (long)k->n;

    return bench_status(b, st, end ? T4_E_NOTFOUND : T4_OK,
                        forward ? "next()" : "prev()") &&
           (end || same_pair(b, k, state, (size_t)at, key, value));
}

size_t
bench_scan(struct bench *b, struct t4_snap *s, const struct keys *k,
           const uint64_t *state)
{
    struct t4_iter *it = bench_iter(b, s);
    size_t count = 0;
    bool good = it != NULL;
    long at = -1;

    while (good && (at = step(k, state, at, 1)) < (long)k->n) {
        good = same_step(b, it, k, state, true, at);
        count++;
    }
    good = good && same_step(b, it, k, state, true, at) &&
           same_step(b, it, k, state, true, at);
    while (good && (at = step(k, state, at, -1)) >= 0)
        good = same_step(b, it, k, state, false, at);
    good = good && same_step(b, it, k, state, false, at) &&
           same_step(b, it, k, state, false, at);
    engine_iter_end(b->engine, it);
    return count;
}

/* --- the history -------------------------------------------------------------------- */

struct held {
    struct t4_snap *snap;
    uint64_t *state;
};

struct model {
    struct bench *bench;
    struct keys keys;
    uint64_t *state;
    struct held held[SNAPS];
    size_t n_held, snaps, ops, records, steps, reopened, defragmented;
    uint64_t flushed;
};

/* Seeks to keys that are there and others, gets, and walks to and fro. */
static void
compare_walks(struct model *m, struct t4_snap *s)
{
    struct bench *b = m->bench;
    struct chance *c = &b->chance;
    const struct keys *k = &m->keys;
    struct t4_iter *it = bench_iter(b, s);

    for (unsigned i = 0; it != NULL && i < 15 && b->complaint[0] == '\0'; i++) {
        struct t4_slice key, value,
            target =
                chance_below(c, 2) == 0 ? k->key[chance_below(c, k->n)] : key_make(c);
        size_t bound = keys_lower_bound(k, target), walks = chance_below(c, 12);
        bool present =
            bound < k->n && m->state[bound] != 0 && slice_equal(k->key[bound], target);
        long at = step(k, m->state, (long)bound - 1, 1);

        bench_get(b, s, target,
                  present ? value_make(m->state[bound]) : slice_of(NULL, 0));
        if (bench_status(b, engine_seek(b->engine, it, target, &key, &value),
                         at < (long)k->n ? T4_OK : T4_E_NOTFOUND, "seek()") &&
            at < (long)k->n)
            same_pair(b, k, m->state, (size_t)at, key, value);
        for (size_t n = 0; n < walks && b->complaint[0] == '\0'; n++) {
            bool forward = chance_below(c, 2) == 0;

            if (!(forward ? at == (long)k->n : at == -1))
                at = step(k, m->state, at, forward ? 1 : -1);
            same_step(b, it, k, m->state, forward, at);
        }
        m->steps += walks + 1;
    }
    engine_iter_end(b->engine, it);
}

static void
model_write(struct model *m, bool growing)
{
    struct chance *c = &m->bench->chance;
    struct t4_op ops[OPS];
    uint8_t *values[OPS] = {0};
    size_t n = 1 + chance_below(c, OPS);

    for (size_t i = 0; i < n; i++) {
        size_t k = chance_below(c, m->keys.n);

        if ((chance_below(c, 4) != 0) == growing) {
            struct t4_slice value;

            m->state[k] = chance_next(c) | 1;
            value = value_make(m->state[k]);
            values[i] = mem_alloc(value.len);
            ops[i] =
                put_op(m->keys.key[k],
                       slice_of(memcpy(values[i], value.data, value.len), value.len));
        } else {
            m->state[k] = 0;
            ops[i] = delete_op(m->keys.key[k]);
        }
    }
    bench_write(m->bench, ops, n, ++m->flushed, chance_below(c, 2) == 0);
    m->ops += n;
    for (size_t i = 0; i < n; i++)
        mem_free(values[i]);
}

static void
model_hold(struct model *m)
{
    struct t4_snap *s = bench_snap(m->bench);
    struct held *h = &m->held[m->n_held];

    if (s == NULL)
        return;
    h->snap = s;
    h->state = mem_alloc(m->keys.n * sizeof *h->state);
    memcpy(h->state, m->state, m->keys.n * sizeof *h->state);
    m->n_held++;
    m->snaps++;
}

static void
model_release(struct model *m, size_t i)
{
    struct held *h = &m->held[i];

    m->records += bench_scan(m->bench, h->snap, &m->keys, h->state);
    engine_snap_end(m->bench->engine, h->snap);
    mem_free(h->state);
    *h = m->held[--m->n_held];
}

static void
model_compare(struct model *m, bool all)
{
    struct bench *b = m->bench;
    struct t4_snap *s = bench_snap(b);
    struct t4_engine_stats stats;
    uint64_t present = 0;

    if (s == NULL)
        return;
    compare_walks(m, s);
    if (all) {
        m->records += bench_scan(b, s, &m->keys, m->state);
        for (size_t i = 0; i < m->keys.n; i++)
            present += m->state[i] != 0;
        if (engine_stats(b->engine, &stats) == T4_OK && stats.records != present)
            bench_complain(b, "stats() counts %llu records of %llu",
                           (unsigned long long)stats.records,
                           (unsigned long long)present);
    }
    bench_flushed(b, m->flushed);
    engine_snap_end(b->engine, s);
}

/* False: it does not open, which has been reported. */
static bool
model_reopen(struct model *m)
{
    while (m->n_held > 0)
        model_release(m, m->n_held - 1);
    if (engine_sync(m->bench->engine, NULL) != T4_OK)
        bench_complain(m->bench, "sync() fails");
    bench_close(m->bench);
    m->reopened++;
    return bench_open(m->bench);
}

/* One write and what is looked at behind it. */
static bool
model_round(struct model *m, unsigned round)
{
    struct bench *b = m->bench;
    bool more = true;

    model_write(m, round / 60 % 2 == 0);
    if (round % 8 != 0 &&
        bench_status(b, engine_defragment(b->engine, &more, NULL), T4_OK, "defragment()"))
        m->defragmented += !more;
    if (m->n_held < SNAPS && chance_below(&b->chance, 3) == 0)
        model_hold(m);
    if (m->n_held > 0 && chance_below(&b->chance, 5) == 0)
        model_release(m, chance_below(&b->chance, m->n_held));
    if (b->durable && round % 40 == 0 && !model_reopen(m))
        return false;
    model_compare(m, round % 20 == 0);
    if (b->complaint[0] != '\0')
        check_note(b->check, "after write %u of the history:", round);
    return b->complaint[0] == '\0';
}

void
engine_model(struct bench *b)
{
    unsigned rounds = 6 * b->check->options->rounds, round = 0;
    struct model m = {.bench = b};

    if (!bench_load(b) || !bench_open(b))
        return;
    keys_make(&m.keys, MODEL_KEYS, &b->chance);
    m.state = mem_zalloc(m.keys.n * sizeof *m.state);
    while (round < rounds && model_round(&m, round + 1))
        round++;
    for (size_t k = 0; k < m.keys.n && round == rounds; k++) {
        struct t4_op op = delete_op(m.keys.key[k]);

        m.state[k] = 0;
        bench_write(b, &op, 1, ++m.flushed, false);
        if (k % 100 == 0)
            model_compare(&m, true);
    }
    if (b->engine == NULL)
        return;
    while (m.n_held > 0)
        model_release(&m, m.n_held - 1);
    if (round == rounds)
        model_compare(&m, true);
    bench_line(
        b,
        "%u writes of %zu operations on %zu keys, %zu held snapshots, %zu steps, %zu "
        "records scanned, %zu times reopened",
        round, m.ops, m.keys.n, m.snaps, m.steps, m.records, m.reopened);
    bench_close(b);
    mem_free(m.state);
    keys_free(&m.keys);
}

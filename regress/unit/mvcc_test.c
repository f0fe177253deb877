/*
 * mvcc_test.c - versions read at every revision against a reference, on both engines.
 *
 * A seeded history of entries goes into memtables; flush slices, compactions and re-openings
 * come at random moments.  The reference keeps every version of every key.  Checked: point
 * reads and whole walks at random and, at the end, at all uncompacted revisions; scans of all
 * versions, left and taken up while all of that goes on, and beside an engine thread; that a
 * finished compaction leaves exactly the versions that the rule keeps; that a reader's view
 * does not change under it; memtable chains with many versions.
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

#include "base/memory.h"
#include "engine_bed.h"
#include "env/thread.h"
#include "fmt/entry.h"
#include "mvcc/memtable.h"
#include "mvcc/mvcc.h"

#define SLICE 40 /* operations of a slice */
#define KEYS 220
#define ENTRIES 3000

struct past {
    int64_t revision;
    uint64_t number; /* of the value; 0: deleted */
};

struct model {
    struct bed bed;
    struct mvcc *mvcc;
    struct keys keys;
    struct past *history[KEYS + 64];
    size_t versions[KEYS + 64], capacity[KEYS + 64];
    struct chance chance;
    int64_t revision, compacted;
    uint64_t gets, walks, scanned, flushes, compactions;
    uint64_t flushed_at_open;
};

static struct t4_slice
ikey_of(struct buffer *b, struct t4_slice key)
{
    buffer_clear(b);
    buffer_append_u8(b, SPACE_KEYS);
    buffer_append_slice(b, key);
    return buffer_slice(b);
}

static void
model_open(struct model *m, struct mvcc_state *state)
{
    struct mvcc_options o = {.engine = m->bed.engine,
                             .cluster_id = 7,
                             .lineage = 9,
                             .memtable_bytes = 60000,
                             .flush_slice = SLICE};
    struct error error;

    if (mvcc_open(&o, &m->mvcc, state, &error) != T4_OK)
        fail_msg("mvcc_open: %s", error.message);
}

static void
insert(struct model *m, size_t k, int64_t revision, uint64_t number)
{
    struct buffer b = {0};
    struct version v = {.stamp = (uint64_t)revision,
                        .sub = (uint32_t)k,
                        .flags = number == 0 ? VERSION_TOMBSTONE : 0,
                        .create_revision = number != 0,
                        .version = (int64_t)number,
                        .value = number != 0 ? value_make(number) : slice_of(NULL, 0)};

    mvcc_insert(m->mvcc, ikey_of(&b, m->keys.key[k]), &v);
    buffer_free(&b);
}

/* The number in force at a revision; 0: none. */
static uint64_t
expected(struct model *m, size_t k, int64_t revision)
{
    uint64_t number = 0;

    for (size_t i = 0; i < m->versions[k] && m->history[k][i].revision <= revision; i++)
        number = m->history[k][i].number;
    return number;
}

static void
entry(struct model *m)
{
    unsigned n = 1 + (unsigned)chance_below(&m->chance, 3);
    size_t hot = chance_below(&m->chance, 8);
    bool used[KEYS + 64] = {false};

    m->revision++;
    while (n-- > 0) {
        size_t k =
            chance_below(&m->chance, 3) == 0 ? hot : chance_below(&m->chance, m->keys.n);
        uint64_t number =
            chance_below(&m->chance, 5) == 0 ? 0 : 1 + chance_next(&m->chance) % 1000000;

        if (used[k])
            continue;
        used[k] = true;
        if (chance_below(&m->chance, 10) == 0) /* replaced within its transaction */
            insert(m, k, m->revision, number + 1);
        insert(m, k, m->revision, number);
        if (m->versions[k] == m->capacity[k]) {
            m->capacity[k] = 2 * m->capacity[k] + 8;
            m->history[k] =
                mem_realloc(m->history[k], m->capacity[k] * sizeof(struct past));
        }
        m->history[k][m->versions[k]++] = (struct past){m->revision, number};
    }
    mvcc_entry_done(m->mvcc, (uint64_t)m->revision, m->revision, 0);
    mvcc_publish(m->mvcc, (uint64_t)m->revision, m->compacted);
}

/*
 * The engine's own write, but one in `every` of those finds no memory that have fewer operations
 * than a whole slice, or of all.  (One test at a time.)
 */
static struct {
    __typeof__(((struct t4_engine_ops *)NULL)->write) write;
    unsigned calls, every;
    size_t below;
} starved;

static t4_status
starved_write(struct t4_engine *e, struct t4_call *call, const struct t4_op *ops,
              size_t n, uint64_t flushed)
{
    if (n < starved.below && ++starved.calls % starved.every == 0)
        return T4_E_NOMEM;
    return starved.write(e, call, ops, n, flushed);
}

static void
starve(struct bed *b, unsigned every, size_t below)
{
    starved.write = b->ops.write;
    starved.calls = 0;
    starved.every = every;
    starved.below = below;
    b->ops.write = starved_write;
}

static void
work(struct model *m, unsigned slices)
{
    struct error error;
    uint64_t pause;

    while (slices-- > 0) {
        t4_status status = mvcc_work(m->mvcc, &pause, &error);

        if (status == T4_E_NOTFOUND)
            return;
        if (status == T4_E_NOMEM) /* the engine thread asks again, too */
            continue;
        if (status != T4_OK)
            fail_msg("mvcc_work: %s", error.message);
        m->flushes++;
    }
}

static void
check_get(struct model *m, struct mvcc_reader *r, size_t k, int64_t revision)
{
    struct buffer b = {0};
    struct version v;
    uint64_t number = expected(m, k, revision);
    t4_status status = mvcc_get(r, ikey_of(&b, m->keys.key[k]), (uint64_t)revision, &v);

    if (number == 0) {
        assert_true(status == T4_E_NOTFOUND ||
                    (status == T4_OK && (v.flags & VERSION_TOMBSTONE)));
    } else {
        assert_int_equal(status, T4_OK);
        assert_int_equal(v.version, (int64_t)number);
        assert_true(slice_equal(v.value, value_make(number)));
    }
    m->gets++;
    buffer_free(&b);
}

static void
check_walk(struct model *m, struct mvcc_reader *r, size_t lo, size_t hi, int64_t revision)
{
    struct buffer from = {0}, to = {0};
    struct mvcc_walk w;
    struct t4_slice ikey;
    struct version v;
    t4_status status;

    ikey_of(&from, m->keys.key[lo]);
    if (hi < m->keys.n)
        ikey_of(&to, m->keys.key[hi]);
    mvcc_walk_begin(&w, r, buffer_slice(&from), buffer_slice(&to), (uint64_t)revision);
    for (size_t k = lo; k < hi; k++) {
        uint64_t number = expected(m, k, revision);

        if (number == 0)
            continue;
        assert_int_equal(mvcc_walk_next(&w, &ikey, &v), T4_OK);
        assert_true(slice_equal(slice_of(ikey.data + 1, ikey.len - 1), m->keys.key[k]));
        assert_int_equal(v.version, (int64_t)number);
        assert_true(slice_equal(v.value, value_make(number)));
    }
    status = mvcc_walk_next(&w, &ikey, &v);
    assert_int_equal(status, T4_E_NOTFOUND);
    mvcc_walk_end(&w);
    buffer_free(&from);
    buffer_free(&to);
    m->walks++;
}

/* --- scans ------------------------------------------------------------------------------- */

/* A scan that is left and taken up again, and what it has to give next. */
struct scanning {
    struct model *m;
    size_t lo, hi, key; /* keys [lo, hi); the one it is at */
    size_t left;        /* versions of it not yet given: the newest of them is left - 1 */
    int64_t from, to;   /* revisions */
    struct buffer at;   /* where it goes on, */
    uint64_t stamp;     /* at this stamp or below */
    bool over;
};

static void
scanning_begin(struct scanning *s, struct model *m, size_t lo, size_t hi, int64_t from,
               int64_t to)
{
    *s = (struct scanning){.m = m, .lo = lo, .hi = hi, .key = lo, .from = from, .to = to};
    s->stamp = STAMP_NEWEST;
    s->left = m->versions[lo];
    if (lo < m->keys.n)
        ikey_of(&s->at, m->keys.key[lo]);
    else
        s->over = true;
}

/* The next version that is due; NULL: none is. */
static const struct past *
scanning_due(struct scanning *s)
{
    struct model *m = s->m;

    for (; s->key < s->hi; s->left = m->versions[++s->key])
        for (; s->left > 0; s->left--) {
            const struct past *p = &m->history[s->key][s->left - 1];

            if (p->revision >= s->from && p->revision <= s->to)
                return p;
        }
    return NULL;
}

static void
scanning_check(struct scanning *s, struct t4_slice ikey, const struct version *v)
{
    const struct past *p = scanning_due(s);

    assert_non_null(p);
    assert_true(
        slice_equal(slice_of(ikey.data + 1, ikey.len - 1), s->m->keys.key[s->key]));
    assert_int_equal(v->stamp, p->revision);
    assert_int_equal(v->sub, s->key);
    assert_int_equal(v->flags & VERSION_TOMBSTONE, p->number == 0);
    if (p->number != 0) {
        assert_int_equal(v->version, (int64_t)p->number);
        assert_true(slice_equal(v->value, value_make(p->number)));
    }
    s->left--;
    s->m->scanned++;
}

/* Goes on with a reader of its own for so many keys and versions. */
static void
scanning_go(struct scanning *s, uint64_t steps)
{
    struct mvcc_reader r;
    struct mvcc_scan scan;
    struct buffer hi = {0};
    struct t4_slice ikey;
    struct version v;

    if (s->hi < s->m->keys.n)
        ikey_of(&hi, s->m->keys.key[s->hi]);
    assert_int_equal(mvcc_read_begin(s->m->mvcc, &r), T4_OK);
    mvcc_scan_begin(&scan, &r, buffer_slice(&s->at), s->stamp, buffer_slice(&hi),
                    (uint64_t)s->from, (uint64_t)s->to);
    while (!s->over && steps > 0) {
        t4_status status = mvcc_scan_key(&scan, &ikey);

        s->over = status == T4_E_NOTFOUND;
        if (s->over)
            break;
        assert_int_equal(status, T4_OK);
        for (steps--; steps > 0; steps--) {
            status = mvcc_scan_version(&scan, &v);
            if (status == T4_E_NOTFOUND)
                break;
            assert_int_equal(status, T4_OK);
            scanning_check(s, ikey, &v);
        }
        if (chance_below(&s->m->chance, 30) == 0 && s->to > s->from) {
            s->to--; /* as a caller that wants no more than it can keep */
            scan.to = (uint64_t)s->to;
        }
    }
    mvcc_scan_position(&scan, &s->at, &s->stamp);
    mvcc_scan_end(&scan);
    mvcc_read_end(&r);
    buffer_free(&hi);
}

static void
scanning_end(struct scanning *s)
{
    if (s->over)
        assert_null(scanning_due(s));
    buffer_free(&s->at);
}

static void
scanning_restart(struct scanning *s, struct model *m)
{
    size_t lo = chance_below(&m->chance, m->keys.n);
    int64_t from = m->compacted > 1 ? m->compacted : 1, to;

    scanning_end(s);
    from += chance_below(&m->chance, 2) == 0
                ? 0
                : (int64_t)chance_below(&m->chance, (uint64_t)(m->revision - from + 1));
    to = from + (int64_t)chance_below(&m->chance, (uint64_t)(m->revision - from + 1));
    scanning_begin(s, m, lo, lo + chance_below(&m->chance, m->keys.n - lo + 1), from, to);
}

static int64_t
some_revision(struct model *m)
{
    int64_t lowest = m->compacted > 1 ? m->compacted : 1;

    return lowest +
           (int64_t)chance_below(&m->chance, (uint64_t)(m->revision - lowest + 1));
}

static void
check_some(struct model *m)
{
    struct mvcc_reader r;
    size_t lo = chance_below(&m->chance, m->keys.n);

    assert_int_equal(mvcc_read_begin(m->mvcc, &r), T4_OK);
    for (int i = 0; i < 20; i++)
        check_get(m, &r, chance_below(&m->chance, m->keys.n), some_revision(m));
    check_walk(m, &r, lo, lo + chance_below(&m->chance, m->keys.n - lo + 1),
               some_revision(m));
    mvcc_read_end(&r);
}

/* Drops what compaction at m->compacted drops from the reference. */
static uint64_t
surviving_versions(struct model *m)
{
    uint64_t n = 0;

    for (size_t k = 0; k < m->keys.n; k++)
        for (size_t i = 0; i < m->versions[k]; i++) {
            bool superseded =
                i + 1 < m->versions[k] && m->history[k][i + 1].revision <= m->compacted;
            bool dead =
                m->history[k][i].number == 0 && m->history[k][i].revision < m->compacted;

            n += !superseded && !dead;
        }
    return n;
}

static uint64_t
records_in_engine(struct model *m)
{
    struct t4_snap *s;
    struct t4_iter *it;
    struct t4_slice key, value;
    uint64_t n = 0;
    t4_status status;

    assert_int_equal(engine_snap(m->bed.engine, &s), T4_OK);
    assert_int_equal(engine_iter(m->bed.engine, s, &it), T4_OK);
    status = engine_seek(m->bed.engine, it, slice_str("k"), &key, &value);
    for (; status == T4_OK; n++) {
        assert_true(record_verify(key, value));
        status = engine_next(m->bed.engine, it, &key, &value);
    }
    engine_iter_end(m->bed.engine, it);
    engine_snap_end(m->bed.engine, s);
    return n;
}

/* The newest revision up to this one that deleted a key. */
static int64_t
newest_deletion(struct model *m, int64_t revision)
{
    int64_t newest = 0;

    for (size_t k = 0; k < m->keys.n; k++)
        for (size_t i = 0; i < m->versions[k]; i++) {
            const struct past *p = &m->history[k][i];

            if (p->number == 0 && p->revision <= revision && p->revision > newest)
                newest = p->revision;
        }
    assert_true(newest > m->compacted);
    return newest;
}

static void
reopen(struct model *m)
{
    struct mvcc_state state;

    mvcc_free(m->mvcc);
    bed_close(&m->bed);
    bed_open(&m->bed);
    model_open(m, &state);
    m->flushed_at_open += state.flushed;
    for (int64_t revision = (int64_t)state.flushed + 1; revision <= m->revision;
         revision++) {
        for (size_t k = 0; k < m->keys.n; k++)
            for (size_t i = 0; i < m->versions[k]; i++)
                if (m->history[k][i].revision == revision)
                    insert(m, k, revision, m->history[k][i].number);
        mvcc_publish(m->mvcc, (uint64_t)revision, m->compacted);
        mvcc_entry_done(m->mvcc, (uint64_t)revision, revision, 0);
        if (mvcc_frozen_count(m->mvcc) > 4)
            work(m, 1000);
    }
    mvcc_publish(m->mvcc, (uint64_t)m->revision, m->compacted);
    mvcc_compact(m->mvcc, m->compacted);
}

static void
history(const char *kind)
{
    struct model *m = mem_zalloc(sizeof *m);
    struct mvcc_state state;
    struct mvcc_reader r, old;
    struct scanning scan = {0};
    int64_t old_revision;

    m->chance.state = test_seed();
    keys_make(&m->keys, KEYS, &m->chance);
    assert_true(m->keys.n <= KEYS + 64);
    bed_init(&m->bed, kind, NULL);
    starve(&m->bed, 10, SIZE_MAX);
    bed_open(&m->bed);
    model_open(m, &state);
    assert_int_equal(state.flushed, 0);
    m->revision = 1;
    m->compacted = -1;
    for (int i = 0; i < ENTRIES; i++) {
        entry(m);
        if (chance_below(&m->chance, 4) == 0 || mvcc_frozen_count(m->mvcc) > 6)
            work(m, 1 + (unsigned)chance_below(&m->chance, 6));
        if (chance_below(&m->chance, 8) == 0)
            check_some(m);
        if (scan.over || scan.m == NULL || scan.from < m->compacted)
            scanning_restart(&scan, m);
        scanning_go(&scan, 1 + chance_below(&m->chance, 60));
        if (chance_below(&m->chance, 150) == 0) {
            int64_t to = some_revision(m);

            if (to > m->compacted) {
                m->compacted = to;
                m->compactions++;
                mvcc_publish(m->mvcc, (uint64_t)m->revision, m->compacted);
                mvcc_compact(m->mvcc, m->compacted);
            }
        }
        if (strcmp(kind, "lmdb") == 0 && chance_below(&m->chance, 600) == 0)
            reopen(m);
    }
    /* A reader holds what it saw while everything is flushed and compacted under it. */
    assert_int_equal(mvcc_read_begin(m->mvcc, &old), T4_OK);
    old_revision = m->revision;
    for (int64_t revision = m->compacted > 1 ? m->compacted : 1; revision <= m->revision;
         revision += 1 + (m->revision - m->compacted) / 400)
        check_walk(m, &old, 0, m->keys.n, revision);
    entry(m);
    m->compacted = newest_deletion(m, m->revision - 20);
    mvcc_publish(m->mvcc, (uint64_t)m->revision, m->compacted);
    mvcc_compact(m->mvcc, m->compacted);
    mvcc_freeze(m->mvcc);
    work(m, 1000000);
    assert_int_equal(mvcc_compacted_physically(m->mvcc), m->compacted);
    assert_false(mvcc_has_work(m->mvcc));
    check_walk(m, &old, 0, m->keys.n, old_revision - 15);
    mvcc_read_end(&old);
    scanning_end(&scan); /* from the compacted revision itself, with its deletion */
    scanning_begin(&scan, m, 0, m->keys.n, m->compacted, m->revision);
    scanning_go(&scan, UINT64_MAX);
    assert_true(scan.over);
    scanning_end(&scan);
    assert_int_equal(mvcc_read_begin(m->mvcc, &r), T4_OK);
    for (int64_t revision = m->compacted; revision <= m->revision; revision++)
        check_walk(m, &r, 0, m->keys.n, revision);
    mvcc_read_end(&r);
    assert_int_equal(records_in_engine(m), surviving_versions(m));
    print_message("# %s: %d entries, %llu gets, %llu walks, %llu versions scanned, %llu "
                  "slices, %llu compactions\n",
                  kind, ENTRIES, (unsigned long long)m->gets,
                  (unsigned long long)m->walks, (unsigned long long)m->scanned,
                  (unsigned long long)m->flushes, (unsigned long long)m->compactions);
    assert_true(m->scanned > 1000);
    if (strcmp(kind, "lmdb") == 0)
        assert_true(m->flushed_at_open > 0);
    mvcc_free(m->mvcc);
    bed_close(&m->bed);
    bed_destroy(&m->bed);
    for (size_t k = 0; k < m->keys.n; k++)
        mem_free(m->history[k]);
    keys_free(&m->keys);
    mem_free(m);
}

static void
test_memory(void **unused)
{
    (void)unused;
    history("memory");
}

static void
test_lmdb(void **unused)
{
    (void)unused;
    history("lmdb");
}

/* --- scans beside the engine thread ----------------------------------------------------- */

#define RACES 6

struct engine_thread {
    struct thread thread;
    struct mvcc *mvcc;
    _Atomic bool stop;
    t4_status failed;
};

static void *
engine_main(void *arg)
{
    struct engine_thread *t = arg;
    struct error error;
    uint64_t pause;

    while (t->failed == T4_OK && (!atomic_load(&t->stop) || mvcc_has_work(t->mvcc))) {
        t4_status status = mvcc_work(t->mvcc, &pause, &error);

        if (status != T4_OK && status != T4_E_NOTFOUND)
            t->failed = status;
    }
    return NULL;
}

/* Whole scans while memtables are flushed and what is below `from` is compacted. */
static void
race(const char *kind)
{
    struct model *m = mem_zalloc(sizeof *m);
    struct engine_thread t = {0};
    struct mvcc_state state;
    struct scanning scan;

    m->chance.state = test_seed();
    keys_make(&m->keys, KEYS, &m->chance);
    bed_init(&m->bed, kind, NULL);
    bed_open(&m->bed);
    model_open(m, &state);
    m->revision = 1;
    m->compacted = -1;
    t.mvcc = m->mvcc;
    thread_start(&t.thread, "engine", engine_main, &t);
    for (int i = 0; i < RACES; i++) {
        for (int k = 0; k < 250; k++)
            entry(m);
        m->compacted = newest_deletion(m, m->revision - 100);
        mvcc_publish(m->mvcc, (uint64_t)m->revision, m->compacted);
        mvcc_compact(m->mvcc, m->compacted);
        mvcc_freeze(m->mvcc);
        for (int k = 0; k < 4; k++) {
            scanning_begin(&scan, m, 0, m->keys.n, m->compacted, m->revision);
            while (!scan.over)
                scanning_go(&scan, k == 0 ? UINT64_MAX : 50);
            scanning_end(&scan);
        }
    }
    atomic_store(&t.stop, true);
    thread_join(&t.thread);
    assert_int_equal(t.failed, T4_OK);
    assert_true(mvcc_flushed_index(m->mvcc) > 0);
    mvcc_free(m->mvcc);
    bed_close(&m->bed);
    bed_destroy(&m->bed);
    for (size_t k = 0; k < m->keys.n; k++)
        mem_free(m->history[k]);
    keys_free(&m->keys);
    mem_free(m);
}

static void
test_scans_race_memory(void **unused)
{
    (void)unused;
    race("memory");
}

static void
test_scans_race_lmdb(void **unused)
{
    (void)unused;
    race("lmdb");
}

/* Whatever lies where: by stamp, and what both hold once. */
static void
test_scan_merges_by_stamp(void **unused)
{
    static const uint64_t in_engine[] = {60, 10, 80}, in_memory[] = {20, 60, 70};
    static const uint64_t expected_stamps[] = {80, 70, 60, 20, 10};
    struct model *m = mem_zalloc(sizeof *m);
    struct mvcc_state state;
    struct mvcc_reader r;
    struct mvcc_scan scan;
    struct t4_slice ikey;
    struct version v = {.value = slice_str("x")};
    struct error error;

    (void)unused;
    bed_init(&m->bed, "memory", NULL);
    bed_open(&m->bed);
    for (int i = 0; i < 3; i++) {
        struct buffer key = {0}, value = {0};
        struct t4_op op = {.kind = T4_OP_PUT};

        v.stamp = in_engine[i];
        record_key_encode(&key, slice_str("kone"), v.stamp);
        record_value_encode(&value, buffer_slice(&key), &v);
        op.key = buffer_slice(&key);
        op.value = buffer_slice(&value);
        assert_int_equal(engine_write(m->bed.engine, &op, 1, 0, &error), T4_OK);
        buffer_free(&key);
        buffer_free(&value);
    }
    model_open(m, &state);
    for (int i = 0; i < 3; i++) {
        v.stamp = in_memory[i];
        mvcc_insert(m->mvcc, slice_str("kone"), &v);
    }
    assert_int_equal(mvcc_read_begin(m->mvcc, &r), T4_OK);
    mvcc_scan_begin(&scan, &r, slice_str("k"), STAMP_NEWEST, slice_of(NULL, 0), 0,
                    STAMP_NEWEST);
    assert_int_equal(mvcc_scan_key(&scan, &ikey), T4_OK);
    assert_true(slice_equal(ikey, slice_str("kone")));
    for (int i = 0; i < 5; i++) {
        assert_int_equal(mvcc_scan_version(&scan, &v), T4_OK);
        assert_int_equal(v.stamp, expected_stamps[i]);
    }
    assert_int_equal(mvcc_scan_version(&scan, &v), T4_E_NOTFOUND);
    assert_int_equal(mvcc_scan_key(&scan, &ikey), T4_E_NOTFOUND);
    assert_int_equal(mvcc_scan_key(&scan, &ikey), T4_E_NOTFOUND);
    mvcc_scan_end(&scan);
    mvcc_read_end(&r);
    mvcc_free(m->mvcc);
    bed_close(&m->bed);
    bed_destroy(&m->bed);
    mem_free(m);
}

static void
test_many_versions_of_one_key(void **unused)
{
    struct memtable *t = memtable_new(1u << 20, 42);
    struct version v = {0};

    (void)unused;
    for (uint64_t stamp = 10; stamp <= 20000; stamp += 10) {
        v.stamp = stamp;
        v.version = (int64_t)stamp;
        memtable_insert(t, slice_str("khot"), &v);
    }
    assert_false(memtable_get(t, slice_str("khot"), 9, &v));
    for (uint64_t stamp = 10; stamp <= 20009; stamp++) {
        assert_true(memtable_get(t, slice_str("khot"), stamp, &v));
        assert_int_equal(v.stamp, stamp > 20000 ? 20000 : stamp / 10 * 10);
    }
    /* the same stamp again replaces it (two writes of one transaction) */
    v.stamp = 20000;
    v.version = -1;
    memtable_insert(t, slice_str("khot"), &v);
    assert_true(memtable_get(t, slice_str("khot"), STAMP_NEWEST, &v));
    assert_int_equal(v.version, -1);
    memtable_reset(t);
    assert_false(memtable_get(t, slice_str("khot"), STAMP_NEWEST, &v));
    memtable_delete(t);
}

/* Spaces 's' and 'l': the engine holds one version per key, and none of a deleted one. */
static void
test_system_space_keeps_the_newest_only(void **unused)
{
    struct model *m = mem_zalloc(sizeof *m);
    struct mvcc_state state;
    struct mvcc_reader r;
    struct version v = {.version = 0};

    (void)unused;
    bed_init(&m->bed, "memory", NULL);
    bed_open(&m->bed);
    model_open(m, &state);
    for (uint64_t index = 1; index <= 40; index++) {
        v.stamp = index;
        v.flags = index >= 31 && index % 2 == 1 ? VERSION_TOMBSTONE : 0;
        v.value = slice_str("x");
        mvcc_insert(m->mvcc, slice_str(index % 2 == 1 ? "lodd" : "seven"), &v);
        mvcc_publish(m->mvcc, index, -1);
        mvcc_entry_done(m->mvcc, index, 1, 0);
        if (index % 7 == 0) {
            mvcc_freeze(m->mvcc);
            work(m, 100);
            assert_true(records_in_engine(m) <= 2);
        }
    }
    mvcc_freeze(m->mvcc);
    work(m, 100);
    assert_int_equal(mvcc_read_begin(m->mvcc, &r), T4_OK);
    assert_int_equal(mvcc_get(&r, slice_str("seven"), STAMP_NEWEST, &v), T4_OK);
    assert_int_equal(v.stamp, 40);
    assert_int_equal(mvcc_get(&r, slice_str("lodd"), STAMP_NEWEST, &v), T4_E_NOTFOUND);
    mvcc_read_end(&r);
    mvcc_free(m->mvcc);
    bed_close(&m->bed);
    bed_destroy(&m->bed);
    mem_free(m);
}

static void
test_engine_of_another_cluster_is_refused(void **unused)
{
    struct model *m = mem_zalloc(sizeof *m);
    struct mvcc_options o = {.cluster_id = 8, .lineage = 9, .memtable_bytes = 60000};
    struct mvcc_state state;
    struct error error;

    (void)unused;
    m->chance.state = 1;
    keys_make(&m->keys, 8, &m->chance);
    bed_init(&m->bed, "memory", NULL);
    bed_open(&m->bed);
    model_open(m, &state);
    m->revision = 1;
    m->compacted = -1;
    entry(m);
    mvcc_freeze(m->mvcc);
    work(m, 100);
    mvcc_free(m->mvcc);
    o.engine = m->bed.engine;
    assert_int_equal(mvcc_open(&o, &m->mvcc, &state, &error), T4_E_INVALID);
    assert_non_null(strstr(error.message, "cluster"));
    assert_non_null(strstr(error.hint, "delete"));
    bed_close(&m->bed);
    bed_destroy(&m->bed);
    for (size_t k = 0; k < m->keys.n; k++)
        mem_free(m->history[k]);
    keys_free(&m->keys);
    mem_free(m);
}

/* More records than a slice looks at; what is written at its end fails: nothing is passed over. */
static void
test_compaction_repeats_what_failed(void **unused)
{
    struct model *m = mem_zalloc(sizeof *m);
    struct mvcc_state state;
    unsigned slices = 0;
    struct error error;
    t4_status status;
    uint64_t pause;

    (void)unused;
    m->chance.state = 1;
    keys_make(&m->keys, 100, &m->chance);
    bed_init(&m->bed, "memory", NULL);
    starve(&m->bed, 2, SLICE);
    bed_open(&m->bed);
    model_open(m, &state);
    for (m->revision = 1; m->revision < 50000; m->revision++) {
        insert(m, (size_t)m->revision % m->keys.n, m->revision, 1);
        mvcc_publish(m->mvcc, (uint64_t)m->revision, -1);
        mvcc_entry_done(m->mvcc, (uint64_t)m->revision, m->revision, 0);
        work(m, 1);
    }
    mvcc_freeze(m->mvcc);
    mvcc_publish(m->mvcc, (uint64_t)m->revision, m->revision);
    mvcc_compact(m->mvcc, m->revision - 1);
    do
        status = mvcc_work(m->mvcc, &pause, &error);
    while (status != T4_E_NOTFOUND && ++slices < 100000);
    assert_int_equal(status, T4_E_NOTFOUND);
    assert_int_equal(records_in_engine(m), m->keys.n);
    mvcc_free(m->mvcc);
    bed_close(&m->bed);
    bed_destroy(&m->bed);
    keys_free(&m->keys);
    mem_free(m);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_many_versions_of_one_key),
        cmocka_unit_test(test_system_space_keeps_the_newest_only),
        cmocka_unit_test(test_engine_of_another_cluster_is_refused),
        cmocka_unit_test(test_scan_merges_by_stamp),
        cmocka_unit_test(test_compaction_repeats_what_failed),
        cmocka_unit_test(test_memory),
        cmocka_unit_test(test_lmdb),
        cmocka_unit_test(test_scans_race_memory),
        cmocka_unit_test(test_scans_race_lmdb),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

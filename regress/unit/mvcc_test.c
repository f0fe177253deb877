/*
 * mvcc_test.c - versions read at every revision against a reference, on both engines.
 *
 * A seeded history of entries goes into memtables; flush slices, compactions and re-openings
 * come at random moments.  The reference keeps every version of every key.  Checked: point
 * reads and whole walks at random and, at the end, at all uncompacted revisions; that a
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
#include "fmt/entry.h"
#include "mvcc/memtable.h"
#include "mvcc/mvcc.h"

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
    uint64_t gets, walks, flushes, compactions;
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
                             .flush_slice = 40};
    struct error error;

    if (mvcc_open(&o, &m->mvcc, state, &error) != T4_OK)
        fail_msg("mvcc_open: %s", error.message);
}

static void
insert(struct model *m, size_t k, int64_t revision, uint64_t number)
{
    struct buffer b = {0};
    struct version v = {.stamp = (uint64_t)revision,
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
        size_t k = chance_below(&m->chance, 3) == 0 ? hot
                                                    : chance_below(&m->chance, m->keys.n);
        uint64_t number =
            chance_below(&m->chance, 5) == 0 ? 0 : 1 + chance_next(&m->chance) % 1000000;

        if (used[k])
            continue;
        used[k] = true;
        insert(m, k, m->revision, number);
        if (m->versions[k] == m->capacity[k]) {
            m->capacity[k] = 2 * m->capacity[k] + 8;
            m->history[k] = mem_realloc(m->history[k], m->capacity[k] * sizeof(struct past));
        }
        m->history[k][m->versions[k]++] = (struct past){m->revision, number};
    }
    mvcc_entry_done(m->mvcc, (uint64_t)m->revision, m->revision, 0);
    mvcc_publish(m->mvcc, (uint64_t)m->revision, m->compacted);
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

static int64_t
some_revision(struct model *m)
{
    int64_t lowest = m->compacted > 1 ? m->compacted : 1;

    return lowest + (int64_t)chance_below(&m->chance, (uint64_t)(m->revision - lowest + 1));
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
            bool superseded = i + 1 < m->versions[k] &&
                              m->history[k][i + 1].revision <= m->compacted;
            bool dead = m->history[k][i].number == 0 &&
                        m->history[k][i].revision <= m->compacted;

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

static void
reopen(struct model *m)
{
    struct mvcc_state state;

    mvcc_free(m->mvcc);
    bed_close(&m->bed);
    bed_open(&m->bed);
    model_open(m, &state);
    m->flushed_at_open += state.flushed;
    for (int64_t revision = (int64_t)state.flushed + 1; revision <= m->revision; revision++) {
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
    int64_t old_revision;

    m->chance.state = test_seed();
    keys_make(&m->keys, KEYS, &m->chance);
    assert_true(m->keys.n <= KEYS + 64);
    bed_init(&m->bed, kind, NULL);
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
    m->compacted = m->revision - 20;
    mvcc_publish(m->mvcc, (uint64_t)m->revision, m->compacted);
    mvcc_compact(m->mvcc, m->compacted);
    mvcc_freeze(m->mvcc);
    work(m, 1000000);
    assert_int_equal(mvcc_compacted_physically(m->mvcc), m->compacted);
    assert_false(mvcc_has_work(m->mvcc));
    check_walk(m, &old, 0, m->keys.n, old_revision - 15);
    mvcc_read_end(&old);
    assert_int_equal(mvcc_read_begin(m->mvcc, &r), T4_OK);
    for (int64_t revision = m->compacted; revision <= m->revision; revision++)
        check_walk(m, &r, 0, m->keys.n, revision);
    mvcc_read_end(&r);
    assert_int_equal(records_in_engine(m), surviving_versions(m));
    print_message("# %s: %d entries, %llu gets, %llu walks, %llu slices, %llu compactions\n",
                  kind, ENTRIES, (unsigned long long)m->gets, (unsigned long long)m->walks,
                  (unsigned long long)m->flushes, (unsigned long long)m->compactions);
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

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_many_versions_of_one_key),
        cmocka_unit_test(test_system_space_keeps_the_newest_only),
        cmocka_unit_test(test_engine_of_another_cluster_is_refused),
        cmocka_unit_test(test_memory),
        cmocka_unit_test(test_lmdb),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

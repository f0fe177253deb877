/*
 * install_test.c - an engine that is filled from a checkpoint while the log goes on above it.
 *
 * Seeding; pieces whose slices come between flushes; in the spaces of which only the newest version
 * counts an older one must not come back, also when the log deleted the key meanwhile; the
 * mark stands and falls with the last slice; compaction waits.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "engine_bed.h"
#include "fmt/entry.h"
#include "mvcc/mvcc.h"

struct world {
    struct bed bed;
    struct mvcc *mvcc;
    struct mvcc_state state;
    bool holds;
    unsigned done;
    uint64_t index;
};

static void
world_open(struct world *w)
{
    struct mvcc_options o = {.engine = w->bed.engine,
                             .cluster_id = 7,
                             .lineage = 9,
                             .memtable_bytes = 60000,
                             .flush_slice = 3};
    struct error error;

    if (mvcc_open(&o, &w->mvcc, &w->state, &error) != T4_OK)
        fail_msg("mvcc_open: %s", error.message);
}

static void
add(struct mvcc_piece *p, const char *ikey, uint64_t stamp, const char *value)
{
    struct buffer key = {0}, record = {0};
    struct version v = {.stamp = stamp, .value = slice_str(value)};

    record_key_encode(&key, slice_str(ikey), stamp);
    record_value_encode(&record, buffer_slice(&key), &v);
    mvcc_piece_add(p, buffer_slice(&key), buffer_slice(&record));
    buffer_free(&key);
    buffer_free(&record);
}

/* value NULL: a tombstone */
static void
log_entry(struct world *w, const char *ikey, const char *value)
{
    struct version v = {.stamp = ++w->index,
                        .flags = value == NULL ? VERSION_TOMBSTONE : 0};

    if (value != NULL)
        v.value = slice_str(value);
    mvcc_insert(w->mvcc, slice_str(ikey), &v);
    mvcc_entry_done(w->mvcc, w->index, (int64_t)w->index, 0);
    mvcc_publish(w->mvcc, w->index, -1);
}

static void
work(struct world *w)
{
    struct error error;
    uint64_t pause;
    t4_status status;

    while ((status = mvcc_work(w->mvcc, &pause, &error)) == T4_OK)
        ;
    if (status != T4_E_NOTFOUND)
        fail_msg("mvcc_work: %s", error.message);
}

/* "" for a tombstone, NULL for nothing */
static void
expect(struct world *w, const char *ikey, uint64_t stamp, const char *value)
{
    struct mvcc_reader r;
    struct version v;
    t4_status status;

    assert_int_equal(mvcc_read_begin(w->mvcc, &r), T4_OK);
    status = mvcc_get(&r, slice_str(ikey), stamp, &v);
    if (value == NULL) {
        assert_int_equal(status, T4_E_NOTFOUND);
    } else {
        assert_int_equal(status, T4_OK);
        assert_int_equal(v.flags, value[0] == '\0' ? VERSION_TOMBSTONE : 0);
        assert_true(slice_equal(v.value, slice_str(value)));
    }
    mvcc_read_end(&r);
}

static bool
holds(void *arg, struct t4_slice ikey)
{
    return ikey.data[0] == SPACE_SYSTEM || ((struct world *)arg)->holds;
}

static struct world *world_now;

static enum mvcc_mark
mark_two(struct mvcc_piece *p, struct buffer *value)
{
    (void)p;
    buffer_append(value, "two", 3);
    return MVCC_MARK_PUT;
}

static enum mvcc_mark
mark_gone(struct mvcc_piece *p, struct buffer *value)
{
    (void)p;
    (void)value;
    return MVCC_MARK_DELETE;
}

static void
piece_done(struct mvcc_piece *p)
{
    (void)p;
    world_now->done++;
    world_now->holds = true;
}

static void
expect_mark(struct world *w, const char *mark)
{
    struct buffer b = {0};
    t4_status status = mvcc_read_mark(w->mvcc, &b, NULL);

    assert_int_equal(status, mark != NULL ? T4_OK : T4_E_NOTFOUND);
    if (mark != NULL)
        assert_true(slice_equal(buffer_slice(&b), slice_str(mark)));
    buffer_free(&b);
}

static void
run(const char *engine, bool durable)
{
    struct world w = {.index = 100};
    struct mvcc_piece seed = {0}, first = {.mark = mark_two, .done = piece_done},
                      last = {.mark = mark_gone, .done = piece_done};
    struct mvcc_state state = {.flushed = 100, .revision = 100, .time_ms = 5};

    world_now = &w;
    bed_init(&w.bed, engine, NULL);
    bed_open(&w.bed);
    world_open(&w);
    assert_int_equal(w.state.flushed, 0);
    for (char k[] = "sa"; k[1] <= 'h'; k[1]++)
        add(&seed, k, 50, "system");
    assert_int_equal(mvcc_seed(w.mvcc, &state, &seed, slice_str("one"), NULL), T4_OK);
    mvcc_hydrate(w.mvcc, holds, &w);

    /* The log goes on: keys that the checkpoint has, too, are changed and deleted. */
    log_entry(&w, "ka", "new");
    log_entry(&w, "la", NULL);
    log_entry(&w, "lb", "new");
    log_entry(&w, "sa", NULL);
    mvcc_freeze(w.mvcc);
    mvcc_compact(w.mvcc, 101);
    work(&w);
    assert_int_equal(mvcc_flushed_index(w.mvcc), 104);
    assert_int_equal(mvcc_compacted_physically(w.mvcc), 0); /* not yet */
    expect_mark(&w, "one");

    /* What was open is known again after a restart. */
    mvcc_free(w.mvcc);
    world_open(&w);
    assert_int_equal(w.state.flushed, 104);
    expect_mark(&w, "one");
    mvcc_hydrate(w.mvcc, holds, &w);

    add(&first, "ka", 90, "old");
    add(&first, "ka", 80, "older");
    add(&first, "kb", 70, "only");
    add(&first, "la", 60, "old");
    add(&first, "lb", 60, "old");
    add(&first, "lc", 60, "only");
    mvcc_install(w.mvcc, &first);
    assert_true(mvcc_has_work(w.mvcc));
    work(&w);
    assert_int_equal(w.done, 1);
    expect_mark(&w, "two");
    add(&last, "kz", 40, "z");
    mvcc_install(w.mvcc, &last);
    mvcc_hydrated(w.mvcc);
    mvcc_compact(w.mvcc, 101);
    work(&w);
    assert_int_equal(w.done, 2);
    expect_mark(&w, NULL);
    assert_int_equal(mvcc_compacted_physically(w.mvcc), 101);

    for (unsigned again = 0; again < 2; again++) {
        expect(&w, "ka", 101, "new");
        expect(&w, "ka", 100, NULL); /* compacted */
        expect(&w, "kb", 100, "only");
        expect(&w, "kz", 100, "z");
        expect(&w, "la", STAMP_NEWEST, "");
        expect(&w, "lb", STAMP_NEWEST, "new");
        expect(&w, "lc", STAMP_NEWEST, "only");
        expect(&w, "sa", STAMP_NEWEST, NULL);
        expect(&w, "sb", STAMP_NEWEST, "system");
        expect(&w, "sh", STAMP_NEWEST, "system");
        mvcc_free(w.mvcc);
        bed_close(&w.bed);
        if (!durable)
            break; /* the memory engine forgets */
        bed_open(&w.bed);
        world_open(&w);
    }
    if (durable) {
        mvcc_free(w.mvcc);
        bed_close(&w.bed);
    }
    bed_destroy(&w.bed);
    buffer_free(&seed.records);
    buffer_free(&first.records);
    buffer_free(&last.records);
}

static void
test_memory(void **unused)
{
    (void)unused;
    run("memory", false);
}

static void
test_lmdb(void **unused)
{
    (void)unused;
    run("lmdb", true);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_memory),
        cmocka_unit_test(test_lmdb),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

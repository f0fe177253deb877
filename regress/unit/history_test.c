/*
 * history_test.c - the history in order of revisions, against a model, on both engines.
 *
 * A seeded history goes into memtables; flushes and compactions come between the slices of the
 * reading, as do entries above its revision.  What is given must be what the model's rule keeps at
 * the compacted revision in the end, in order, and the hash the one that etcd's rule gives, worked out from
 * plain arrays.  A compaction above the revision must be noticed.
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
#include "engine_bed.h"
#include "fmt/entry.h"
#include "scratch.h"
#include "snapshot/snapshot.h"

#define KEYS 60
#define VERSIONS 20000

struct past {
    int64_t revision;
    uint32_t sub, key;
    bool tombstone;
    int64_t next; /* revision of the key's next version; 0: none */
};

struct world {
    struct bed bed;
    struct mvcc *mvcc;
    struct chance chance;
    int64_t revision, compacted;
    struct past past[VERSIONS]; /* in order */
    size_t n;
    size_t last[KEYS];  /* of each key, its newest version's place + 1; 0: none */
    int busy;           /* what may happen between slices: 0 nothing */
    int64_t compact_to; /* at most */
    uint64_t slices;
};

static struct t4_slice
key_of(char text[16], uint32_t key)
{
    int n = snprintf(text, 16, "%s%03u", key % 3 == 0 ? "a/" : "b/", key);

    if (key % 7 == 0)
        text[1] = '\0'; /* zeros are keys' bytes, too */
    return slice_of(text, (size_t)n);
}

static void
work(struct world *w)
{
    struct error error;
    uint64_t pause;

    while (mvcc_work(w->mvcc, &pause, &error) == T4_OK)
        ;
}

static void
entry(struct world *w)
{
    uint32_t n = 1 + (uint32_t)chance_below(&w->chance, 4);
    uint32_t first = (uint32_t)chance_below(&w->chance, KEYS);

    if (w->n + n > VERSIONS)
        return;
    w->revision++;
    for (uint32_t sub = 0; sub < n; sub++) {
        struct past p = {w->revision, sub, (first + 7 * sub) % KEYS,
                         chance_below(&w->chance, 4) == 0, 0};
        struct buffer ikey = {0};
        char text[16];
        struct version v = {.stamp = (uint64_t)w->revision,
                            .sub = sub,
                            .flags = p.tombstone ? VERSION_TOMBSTONE : 0};

        if (!p.tombstone) {
            v.create_revision = 1;
            v.version = sub + 1;
            v.value = slice_str("value");
        }
        buffer_append_u8(&ikey, SPACE_KEYS);
        buffer_append_slice(&ikey, key_of(text, p.key));
        mvcc_insert(w->mvcc, buffer_slice(&ikey), &v);
        buffer_free(&ikey);
        if (w->last[p.key] > 0)
            w->past[w->last[p.key] - 1].next = p.revision;
        w->past[w->n++] = p;
        w->last[p.key] = w->n;
    }
    mvcc_entry_done(w->mvcc, (uint64_t)w->revision, w->revision, 0);
    mvcc_publish(w->mvcc, (uint64_t)w->revision, w->compacted);
}

static void
compact(struct world *w, int64_t revision)
{
    w->compacted = revision;
    mvcc_publish(w->mvcc, (uint64_t)w->revision, w->compacted);
    mvcc_freeze(w->mvcc);
    mvcc_compact(w->mvcc, revision);
    work(w);
    assert_int_equal(mvcc_compacted_physically(w->mvcc), revision);
}

/* Asked before each slice: what comes between two. */
static bool
between(void *arg)
{
    struct world *w = arg;
    uint64_t what = chance_below(&w->chance, 60);

    w->slices++;
    if (w->busy == 0)
        return false;
    if (what < 4) {
        entry(w);
    } else if (what == 4) {
        mvcc_freeze(w->mvcc);
        work(w);
    } else if (what == 5 && w->compacted < w->compact_to) {
        compact(w, w->compacted + 1 +
                       (int64_t)chance_below(&w->chance,
                                             (uint64_t)(w->compact_to - w->compacted)));
    }
    return false;
}

/* Of past version i: the revision that superseded it up to `to`; 0: none. */
static int64_t
superseded(const struct world *w, size_t i, int64_t to)
{
    return w->past[i].next <= to ? w->past[i].next : 0;
}

static bool
any_alive(const struct world *w, int64_t to)
{
    for (size_t i = 0; i < w->n && w->past[i].revision <= to; i++)
        if (!w->past[i].tombstone && superseded(w, i, to) == 0)
            return true;
    return false;
}

static bool
is_kept(const struct world *w, size_t i, int64_t to, int64_t compacted)
{
    int64_t by = superseded(w, i, to);

    if (w->past[i].revision > compacted)
        return true;
    if (by != 0 && by <= compacted)
        return false;
    return !w->past[i].tombstone || w->past[i].revision == compacted;
}

static struct history *
read_history(struct world *w, int64_t to, uint32_t slice, t4_status wanted)
{
    struct history_options options = {.env = env_posix(),
                                      .dir = scratch_parent(),
                                      .mvcc = w->mvcc,
                                      .memory = 4096,
                                      .slice = slice,
                                      .stop = between,
                                      .arg = w};
    struct history *h = NULL;
    struct error error = {0};

    assert_int_equal(history_open(&options, to, &h, &error), wanted);
    return h;
}

static void
check_records(struct world *w, int64_t to, uint32_t slice)
{
    struct history *h = read_history(w, to, slice, T4_OK);
    int64_t compacted = history_compacted(h);
    struct history_record r;
    struct error error;
    char text[16];

    assert_int_equal(compacted, w->compacted);
    for (size_t i = 0; i < w->n && w->past[i].revision <= to; i++) {
        if (!is_kept(w, i, to, compacted))
            continue;
        assert_int_equal(history_next(h, &r, &error), T4_OK);
        assert_int_equal(r.kv.mod_revision, w->past[i].revision);
        assert_int_equal(r.sub, w->past[i].sub);
        assert_int_equal(r.tombstone, w->past[i].tombstone);
        assert_int_equal(r.superseded, superseded(w, i, to));
        assert_true(slice_equal(r.kv.key, key_of(text, w->past[i].key)));
        assert_int_equal(r.kv.version, r.tombstone ? 0 : w->past[i].sub + 1);
        assert_true(r.tombstone || slice_equal(r.kv.value, slice_str("value")));
    }
    assert_int_equal(history_next(h, &r, &error), T4_E_NOTFOUND);
    history_free(h);
}

static void
check_hash(struct world *w, int64_t to, uint32_t slice)
{
    struct history *h = read_history(w, to, slice, T4_OK);
    struct buffer key = {0}, value = {0};
    uint32_t got, want = crc32c(0, "key", 3);
    int64_t c = history_compacted(h);
    bool alive = any_alive(w, to);
    struct error error;
    char text[16];

    for (size_t i = 0; i < w->n && w->past[i].revision <= to; i++) {
        const struct past *p = &w->past[i];
        struct history_record r = {.sub = p->sub, .tombstone = p->tombstone};

        if (!is_kept(w, i, to, c) || (p->tombstone && p->revision == c) ||
            (p->revision <= c && superseded(w, i, to) != 0 && alive))
            continue;
        r.kv =
            (struct key_value){.key = key_of(text, p->key), .mod_revision = p->revision};
        if (!p->tombstone) {
            r.kv.value = slice_str("value");
            r.kv.create_revision = 1;
            r.kv.version = p->sub + 1;
        }
        history_etcd_record(&r, &key, &value);
        assert_int_equal(key.len, 17 + p->tombstone);
        want = crc32c(crc32c(want, key.data, key.len), value.data, value.len);
    }
    assert_int_equal(history_hash(h, &got, &error), T4_OK);
    assert_int_equal(got, want);
    history_free(h);
    buffer_free(&key);
    buffer_free(&value);
}

static void
open_world(struct world *w, const char *kind)
{
    struct mvcc_options o = {
        .cluster_id = 7, .lineage = 9, .memtable_bytes = 20000, .flush_slice = 40};
    struct mvcc_state state;
    struct error error;

    memset(w, 0, sizeof *w);
    w->chance.state = test_seed();
    w->revision = 1;
    w->compacted = -1;
    bed_init(&w->bed, kind, NULL);
    bed_open(&w->bed);
    o.engine = w->bed.engine;
    assert_int_equal(mvcc_open(&o, &w->mvcc, &state, &error), T4_OK);
}

static void
close_world(struct world *w)
{
    mvcc_free(w->mvcc);
    bed_close(&w->bed);
    bed_destroy(&w->bed);
}

static void
histories(void **state)
{
    static struct world w;

    open_world(&w, *state);
    for (int round = 0; round < 12; round++) {
        static const uint32_t slices[] = {3, 7, 20, 50, 4096};
        uint32_t slice = slices[round % 5];

        for (int i = 0; i < 40; i++)
            entry(&w);
        w.busy = round % 3;
        w.compact_to = w.revision - (int64_t)chance_below(&w.chance, 60);
        check_records(&w, w.revision, slice);
        w.compact_to = w.revision - 20;
        check_hash(&w, w.revision, slice);
        w.compact_to = 0; /* what is read next is older */
        check_hash(&w, w.compacted > 0 ? w.compacted : 1, slice);
        check_hash(&w, w.compacted > 0 ? w.compacted + 5 : 5, slice);
    }
    assert_true(w.compacted > 300 && w.slices > 1000);
    close_world(&w);
}

static void
overtaken(void **state)
{
    static struct world w;
    struct history *h;

    open_world(&w, *state);
    for (int i = 0; i < 200; i++)
        entry(&w);
    compact(&w, w.revision - 1);
    h = read_history(&w, w.revision - 2, 7, T4_E_PRECONDITION);
    assert_null(h);
    check_records(&w, w.revision, 7);
    close_world(&w);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_prestate(histories, "memory"),
        cmocka_unit_test_prestate(histories, "lmdb"),
        cmocka_unit_test_prestate(overtaken, "memory"),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

/*
 * hydrate_test.c - an engine that is filled from a checkpoint while it is read and written.
 *
 * A seeded history of versions is cut into runs and put into a directory store.  Then an empty
 * engine begins from it: random keys and ranges are asked for, awaited and compared with the history,
 * while the log goes on above; the process ends in the middle and resumes; at the end every
 * version is there.  Objects are removed and damaged: their ranges fail, by name, and
 * nothing else does.  A point read fetches only files that may hold its key.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>

#include "base/memory.h"
#include "engine_bed.h"
#include "env/thread.h"
#include "fmt/entry.h"
#include "hydrate/hydrate.h"
#include "scratch.h"
#include "sst/sst.h"

#define KEYS 4000
#define REVISIONS 12000
#define RUNS 3

struct past {
    int64_t revision;
    bool deleted;
    uint32_t size;
};

struct world {
    struct bed bed;
    char folder[SCRATCH_ROOM], log[SCRATCH_ROOM + 8];
    struct object_store *store;
    struct metrics metrics;
    struct past *history[KEYS]; /* ascending */
    size_t n[KEYS];
    struct checkpoint_object checkpoint;
    struct run_index run[RUNS]; /* newest first */
    struct chance chance;

    struct mvcc *mvcc;
    struct hydration *hydration;
    struct thread engine_thread;
    struct mutex lock;
    struct condition wake;
    bool stop, poked, completed; /* [lock] */
};

/* Even numbers exist. */
static struct t4_slice
ikey_of(struct buffer *b, unsigned key)
{
    char text[40];

    snprintf(text, sizeof text, "k/registry/%06u", key);
    buffer_clear(b);
    buffer_append(b, text, strlen(text));
    return buffer_slice(b);
}

static struct t4_slice
value_of(int64_t revision, uint32_t size)
{
    static uint8_t value[4096];
    struct chance c = {(uint64_t)revision * 77 + 1};

    for (uint32_t i = 0; i < size; i++)
        value[i] = (uint8_t)chance_next(&c);
    return slice_of(value, size);
}

/* --- the store ------------------------------------------------------------------------------ */

static void
put(struct world *w, const char *key, struct t4_slice body)
{
    struct t4_put p = {
        .size = sizeof p, .condition = T4_PUT_ANY, .key = slice_str(key), .body = body};
    struct error e;

    if (object_put(w->store, &p, 0, NULL, &e) != T4_OK)
        fail_msg("%s", e.message);
}

static void
put_file(struct world *w, struct sst_writer *writer, struct run_index *run)
{
    struct buffer object = {0};
    struct sst_info info;
    char key[SST_KEY_BYTES];

    assert_int_equal(sst_writer_finish(writer, &object, &info, NULL), T4_OK);
    assert_int_equal(run_index_add(run, &info, 3, 9, NULL), T4_OK);
    sst_key(key, info.sha256, 3, 9);
    put(w, key, buffer_slice(&object));
    buffer_free(&object);
}

/* Versions with first < revision <= last, as a run. */
static void
put_run(struct world *w, unsigned number, int64_t first, int64_t last)
{
    struct run_index *run = &w->run[number];
    struct checkpoint_run *name = &w->checkpoint.run[number];
    struct sst_filter_builder filter = {0};
    struct sst_writer *writer = sst_writer_new(&filter), *system = sst_writer_new(NULL);
    struct buffer ikey = {0}, key = {0}, value = {0}, object = {0};
    struct sst_info info;
    char text[SST_KEY_BYTES];
    struct version lease = {.stamp = (uint64_t)last, .value = slice_str("lease")};

    *run = (struct run_index){.first_index = (uint64_t)first,
                              .last_index = (uint64_t)last,
                              .last_revision = last,
                              .is_base = number == RUNS - 1};
    for (unsigned k = 0; k < KEYS; k++)
        for (size_t i = w->n[k]; i-- > 0;) {
            const struct past *p = &w->history[k][i];
            struct version v = {.stamp = (uint64_t)p->revision,
                                .flags = p->deleted ? VERSION_TOMBSTONE : 0,
                                .create_revision = 1,
                                .version = 1,
                                .value = value_of(p->revision, p->size)};

            if (p->revision <= first || p->revision > last)
                continue;
            buffer_clear(&key);
            buffer_clear(&value);
            record_key_encode(&key, ikey_of(&ikey, 2 * k), v.stamp);
            record_value_encode(&value, buffer_slice(&key), &v);
            if (sst_writer_records(writer) > 0 &&
                sst_cut_here(writer, buffer_slice(&key)))
                put_file(w, writer, run);
            assert_int_equal(
                sst_writer_add(writer, buffer_slice(&key), buffer_slice(&value), NULL),
                T4_OK);
        }
    put_file(w, writer, run);
    sst_filter_build(&filter, &run->filter);
    buffer_clear(&key);
    buffer_clear(&value);
    record_key_encode(&key, slice_str("slease"), lease.stamp);
    record_value_encode(&value, buffer_slice(&key), &lease);
    assert_int_equal(
        sst_writer_add(system, buffer_slice(&key), buffer_slice(&value), NULL), T4_OK);
    assert_int_equal(sst_writer_finish(system, &run->system, &info, NULL), T4_OK);
    run_index_encode(&object, run);
    sha256(buffer_slice(&object), name->sha256);
    name->term = 3;
    name->index = 9;
    name->is_base = run->is_base;
    run_key(text, name->sha256, 3, 9);
    put(w, text, buffer_slice(&object));
    sst_writer_free(writer);
    sst_writer_free(system);
    sst_filter_builder_free(&filter);
    buffer_free(&ikey);
    buffer_free(&key);
    buffer_free(&value);
    buffer_free(&object);
}

static void
open_store(struct world *w)
{
    char url[SCRATCH_ROOM + 32];
    struct plugin_setting setting[] = {{"fault.log", w->log}};
    struct object_options o = {.env = env_posix(),
                               .plugin_dir = build_folder("plugins"),
                               .settings = setting,
                               .n_settings = 1};
    struct error e;

    snprintf(url, sizeof url, "fault+file://%s/store", w->folder);
    if (object_open(url, &o, &w->store, &e) != T4_OK)
        fail_msg("%s (%s)", e.message, e.hint);
}

static struct world *
world_new(const char *engine)
{
    struct world *w = mem_zalloc(sizeof *w);

    w->chance.state = test_seed();
    mutex_init(&w->lock);
    condition_init(&w->wake);
    scratch_make(w->folder, sizeof w->folder, "t4-hydrate");
    snprintf(w->log, sizeof w->log, "%s/log", w->folder);
    open_store(w);
    for (int64_t revision = 2; revision <= REVISIONS; revision++) {
        unsigned k = (unsigned)chance_below(&w->chance, KEYS);

        if (w->n[k] % 8 == 0)
            w->history[k] =
                mem_realloc(w->history[k], (w->n[k] + 8) * sizeof(struct past));
        w->history[k][w->n[k]++] =
            (struct past){revision, w->n[k] > 0 && chance_below(&w->chance, 6) == 0,
                          (uint32_t)chance_below(&w->chance, 3000)};
    }
    w->checkpoint = (struct checkpoint_object){.cluster_id = 7,
                                               .lineage = 9,
                                               .term = 3,
                                               .index = REVISIONS,
                                               .revision = REVISIONS,
                                               .compacted = -1,
                                               .n_runs = RUNS};
    put_run(w, 2, 0, REVISIONS / 2);
    put_run(w, 1, REVISIONS / 2, REVISIONS * 5 / 6);
    put_run(w, 0, REVISIONS * 5 / 6, REVISIONS);
    bed_init(&w->bed, engine, NULL);
    return w;
}

static void
world_free(struct world *w)
{
    for (unsigned k = 0; k < KEYS; k++)
        mem_free(w->history[k]);
    for (unsigned r = 0; r < RUNS; r++)
        run_index_free(&w->run[r]);
    bed_destroy(&w->bed);
    object_close(w->store);
    scratch_remove(w->folder);
    condition_destroy(&w->wake);
    mutex_destroy(&w->lock);
    mem_free(w);
}

/* --- a server's parts ----------------------------------------------------------------------------- */

static void
poke(void *arg)
{
    struct world *w = arg;

    mutex_lock(&w->lock);
    w->poked = true;
    condition_broadcast(&w->wake);
    mutex_unlock(&w->lock);
}

static void
complete(void *arg)
{
    struct world *w = arg;

    mutex_lock(&w->lock);
    w->completed = true;
    condition_broadcast(&w->wake);
    mutex_unlock(&w->lock);
}

static void *
engine_main(void *arg)
{
    struct world *w = arg;
    struct error error;
    uint64_t pause;

    mutex_lock(&w->lock);
    while (!w->stop) {
        t4_status status;

        w->poked = false;
        mutex_unlock(&w->lock);
        while ((status = mvcc_work(w->mvcc, &pause, &error)) == T4_OK)
            ;
        if (status != T4_E_NOTFOUND)
            fail_msg("mvcc_work: %s", error.message);
        mutex_lock(&w->lock);
        while (!w->stop && !w->poked)
            condition_wait(&w->wake, &w->lock);
    }
    mutex_unlock(&w->lock);
    return NULL;
}

/* Opens the engine; begins, or resumes, as a server does. */
static void
begin(struct world *w, bool only_asked)
{
    struct mvcc_options o = {.engine = NULL,
                             .cluster_id = 7,
                             .lineage = 9,
                             .memtable_bytes = 1u << 20,
                             .flush_slice = 400};
    struct hydration_options h = {.env = env_posix(),
                                  .store = w->store,
                                  .threads = 4,
                                  .only_asked = only_asked,
                                  .metrics = &w->metrics,
                                  .arg = w,
                                  .poke = poke,
                                  .complete = complete};
    struct mvcc_state state;
    struct buffer mark = {0};
    struct error error;
    t4_status status;

    bed_open(&w->bed);
    o.engine = w->bed.engine;
    if (mvcc_open(&o, &w->mvcc, &state, &error) != T4_OK)
        fail_msg("%s", error.message);
    h.mvcc = w->mvcc;
    status = mvcc_read_mark(w->mvcc, &mark, &error);
    assert_int_equal(status == T4_OK, state.flushed > 0);
    status = status == T4_OK
                 ? hydration_resume(&h, buffer_slice(&mark), &w->hydration, &error)
                 : hydration_begin(&h, &w->checkpoint, &w->hydration, &error);
    if (status != T4_OK)
        fail_msg("%s", error.message);
    buffer_free(&mark);
    w->stop = w->completed = false;
    thread_start(&w->engine_thread, "engine", engine_main, w);
    hydration_start(w->hydration);
}

static void
finish(struct world *w)
{
    mutex_lock(&w->lock);
    w->stop = true;
    condition_broadcast(&w->wake);
    mutex_unlock(&w->lock);
    thread_join(&w->engine_thread);
    hydration_stop(w->hydration);
    hydration_free(w->hydration);
    mvcc_free(w->mvcc);
    bed_close(&w->bed);
}

/* --- reading ---------------------------------------------------------------------------------------- */

struct waiting {
    struct hydration_wait wait;
    struct world *w;
    t4_status status;
    bool over; /* [w->lock] */
};

static void
came(struct hydration_wait *wait, t4_status status)
{
    struct waiting *x = container_of(wait, struct waiting, wait);
    struct world *w = x->w;

    mutex_lock(&w->lock);
    x->status = status;
    x->over = true;
    condition_broadcast(&w->wake);
    mutex_unlock(&w->lock);
}

/* Until it is ready, or its failure. */
static t4_status
await(struct world *w, struct t4_slice lo, struct t4_slice hi)
{
    for (;;) {
        struct waiting x = {.wait = {.done = came}, .w = w};

        hydration_wait_begin(&x.wait);
        hydration_ask(w->hydration, &x.wait, lo, hi);
        switch (hydration_wait_end(w->hydration, &x.wait, UINT64_C(60000000000))) {
        case HYDRATION_READY: return T4_OK;
        case HYDRATION_REFUSED: return x.wait.status;
        default: break;
        }
        mutex_lock(&w->lock);
        while (!x.over)
            condition_wait(&w->wake, &w->lock);
        mutex_unlock(&w->lock);
        if (x.status != T4_OK)
            return x.status;
    }
}

static const struct past *
past_at(const struct world *w, unsigned k, int64_t revision)
{
    const struct past *found = NULL;

    for (size_t i = 0; i < w->n[k] && w->history[k][i].revision <= revision; i++)
        found = &w->history[k][i];
    return found;
}

static void
check_key(struct world *w, unsigned key, int64_t revision)
{
    const struct past *p = key % 2 == 0 ? past_at(w, key / 2, revision) : NULL;
    struct buffer ikey = {0};
    struct mvcc_reader r;
    struct version v;
    t4_status status;

    assert_int_equal(mvcc_read_begin(w->mvcc, &r), T4_OK);
    status = mvcc_get(&r, ikey_of(&ikey, key), (uint64_t)revision, &v);
    if (p == NULL || p->deleted) { /* a tombstone may be folded away */
        assert_true(status == T4_E_NOTFOUND || (v.flags & VERSION_TOMBSTONE));
    } else {
        assert_int_equal(status, T4_OK);
        assert_int_equal(v.stamp, p->revision);
        assert_true(slice_equal(v.value, value_of(p->revision, p->size)));
    }
    mvcc_read_end(&r);
    buffer_free(&ikey);
}

static void
check_range(struct world *w, unsigned from, unsigned to, int64_t revision)
{
    struct buffer lo = {0}, hi = {0}, at = {0};
    struct mvcc_reader r;
    struct mvcc_walk walk;
    struct t4_slice ikey;
    struct version v;

    assert_int_equal(mvcc_read_begin(w->mvcc, &r), T4_OK);
    mvcc_walk_begin(&walk, &r, ikey_of(&lo, from), ikey_of(&hi, to), (uint64_t)revision);
    for (unsigned k = (from + 1) / 2; k < (to + 1) / 2; k++) {
        const struct past *p = past_at(w, k, revision);

        if (p == NULL || p->deleted)
            continue;
        assert_int_equal(mvcc_walk_next(&walk, &ikey, &v), T4_OK);
        assert_true(slice_equal(ikey, ikey_of(&at, 2 * k)));
        assert_int_equal(v.stamp, p->revision);
    }
    assert_int_equal(mvcc_walk_next(&walk, &ikey, &v), T4_E_NOTFOUND);
    mvcc_walk_end(&walk);
    mvcc_read_end(&r);
    buffer_free(&lo);
    buffer_free(&hi);
    buffer_free(&at);
}

static void
random_reads(struct world *w, unsigned count)
{
    struct buffer lo = {0}, hi = {0};

    while (count-- > 0) {
        unsigned key = (unsigned)chance_below(&w->chance, 2 * KEYS), to = key;
        int64_t revision = 1 + (int64_t)chance_below(&w->chance, REVISIONS);

        if (chance_below(&w->chance, 4) > 0) {
            assert_int_equal(await(w, ikey_of(&lo, key), slice_of(NULL, 0)), T4_OK);
            check_key(w, key, revision);
            continue;
        }
        to += (unsigned)chance_below(&w->chance,
                                     chance_below(&w->chance, 10) == 0 ? KEYS : 50);
        if (to > 2 * KEYS)
            to = 2 * KEYS;
        assert_int_equal(await(w, ikey_of(&lo, key), ikey_of(&hi, to)), T4_OK);
        check_range(w, key, to, revision);
    }
    buffer_free(&lo);
    buffer_free(&hi);
}

/* The log goes on: keys that are changed above the checkpoint are not part of the history. */
static void
write_above(struct world *w, uint64_t index)
{
    struct version v = {.stamp = index, .value = slice_str("above")};

    mvcc_insert(w->mvcc, slice_str("k/other"), &v);
    mvcc_entry_done(w->mvcc, index, (int64_t)index, 0);
    mvcc_publish(w->mvcc, index, -1);
    mvcc_freeze(w->mvcc);
    poke(w);
}

static void
wait_complete(struct world *w)
{
    mutex_lock(&w->lock);
    while (!w->completed)
        condition_wait(&w->wake, &w->lock);
    mutex_unlock(&w->lock);
    assert_true(hydration_is_complete(w->hydration));
}

static void
run(const char *engine, bool durable)
{
    struct world *w = world_new(engine);
    struct hydration_view view;
    struct mvcc_reader r;
    struct version v;
    unsigned lives = durable ? 5 : 1;

    assert_true(w->run[2].n > 2); /* several files, or it shows nothing */
    for (unsigned life = 0; life < lives; life++) {
        begin(w, life + 1 < lives);
        random_reads(w, 40);
        write_above(w, REVISIONS + life + 1);
        random_reads(w, 20);
        if (life + 1 < lives)
            finish(w);
    }
    wait_complete(w);
    hydration_look(w->hydration, &view);
    assert_true(view.complete && view.units == view.units_done && view.failed == 0);
    assert_int_equal(view.bytes, view.bytes_done);
    assert_int_equal(mvcc_read_mark(w->mvcc, &(struct buffer){0}, NULL), T4_E_NOTFOUND);
    random_reads(w, 300);
    for (int64_t revision = 1; revision <= REVISIONS; revision += REVISIONS / 30)
        check_range(w, 0, 2 * KEYS, revision);
    assert_int_equal(mvcc_read_begin(w->mvcc, &r), T4_OK);
    assert_int_equal(mvcc_get(&r, slice_str("slease"), STAMP_NEWEST, &v), T4_OK);
    assert_int_equal(v.stamp, REVISIONS);
    mvcc_read_end(&r);
    finish(w);
    world_free(w);
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

/* --- what is fetched ---------------------------------------------------------------------------- */

static unsigned
files_fetched(const struct world *w)
{
    FILE *log = fopen(w->log, "r");
    char line[1024];
    unsigned n = 0;

    assert_non_null(log);
    while (fgets(line, sizeof line, log) != NULL)
        n += strstr(line, "get") != NULL && strstr(line, "sst/") != NULL;
    fclose(log);
    return n;
}

static void
test_a_key_fetches_its_files_only(void **unused)
{
    struct world *w = world_new("memory");
    struct buffer b = {0};
    unsigned before, expected = 0, key = 2 * 1234;

    (void)unused;
    begin(w, true);
    assert_int_equal(files_fetched(w), 0); /* begun without one */
    ikey_of(&b, key);
    for (unsigned r = 0; r < RUNS; r++)
        expected += run_may_hold(&w->run[r], buffer_slice(&b));
    assert_in_range(expected, 1, RUNS);
    assert_int_equal(await(w, buffer_slice(&b), slice_of(NULL, 0)), T4_OK);
    check_key(w, key, REVISIONS);
    assert_int_equal(files_fetched(w), expected);
    before = files_fetched(w);
    assert_int_equal(await(w, buffer_slice(&b), slice_of(NULL, 0)), T4_OK);
    assert_int_equal(await(w, slice_str("k/above/all"), slice_of(NULL, 0)), T4_OK);
    assert_int_equal(await(w, slice_str("kz"), slice_str("kzz")), T4_OK);
    assert_int_equal(files_fetched(w), before); /* ready, or nobody can hold it */
    finish(w);
    buffer_free(&b);
    world_free(w);
}

/* --- damage ----------------------------------------------------------------------------------------- */

/* The first file of the base is taken away, or changed. */
static void
damage(bool removed)
{
    struct world *w = world_new("memory");
    struct run_index *base = &w->run[RUNS - 1];
    const struct sst_info *first = &base->sst[0].info,
                          *last = &base->sst[base->n - 1].info;
    struct hydration_view view;
    char key[SST_KEY_BYTES];
    struct t4_slice name;

    sst_key(key, first->sha256, 3, 9);
    name = slice_str(key);
    if (removed)
        assert_int_equal(object_remove(w->store, &name, 1, 0, NULL), T4_OK);
    else
        put(w, key, slice_str("something else"));
    begin(w, false);
    assert_int_equal(await(w, first->first, slice_of(NULL, 0)), T4_E_CORRUPT);
    hydration_look(w->hydration, &view);
    assert_non_null(strstr(view.why, key));
    assert_non_null(strstr(view.why, removed ? "missing" : "damaged"));
    assert_int_equal(await(w, last->last, slice_of(NULL, 0)), T4_OK);
    assert_int_equal(await(w, last->first, slice_str("kz")), T4_OK);
    assert_int_equal(await(w, first->first, slice_str("kz")), T4_E_CORRUPT);
    assert_false(hydration_is_complete(w->hydration));
    finish(w);
    world_free(w);
}

static void
test_a_missing_file(void **unused)
{
    (void)unused;
    damage(true);
}

static void
test_a_damaged_file(void **unused)
{
    (void)unused;
    damage(false);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_key_fetches_its_files_only),
        cmocka_unit_test(test_memory),
        cmocka_unit_test(test_lmdb),
        cmocka_unit_test(test_a_missing_file),
        cmocka_unit_test(test_a_damaged_file),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

/*
 * checkpoint_test.c - checkpoints, folds, archives and removal, against a model of the log.
 *
 * The walk of chance does pieces of the work in any order, in a store that fails now and then,
 * with leaders that take over from each other, and looks after each that everything which the
 * manifest lists can be read and holds what the model says.  The other tests fix single cases.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <sched.h>
#include <stdio.h>

#include "base/memory.h"
#include "checkpoint_bed.h"

static const struct manifest_object *
manifest(const struct lead *l)
{
    return objectlog_manifest(l->checkpointer->log);
}

static void
upload(struct lead *l, uint64_t last)
{
    struct error error = {0};

    if (lead_upload(l, last, &error) != T4_OK)
        fail_msg("%s", error.message);
}

static void
take(struct lead *l)
{
    struct error error = {0};

    if (lead_take(l, &error) != T4_OK)
        fail_msg("%s (%s)", error.message, error.hint);
}

/* --- the walk ---------------------------------------------------------------------------------- */

static t4_status
walk_step(struct lead *l, struct chance *c, struct error *error)
{
    struct log_model *m = l->model;
    t4_status status = T4_OK;

    switch (chance_below(c, 12)) {
    case 0: return lead_work(l, WORK_CHECKPOINT, error);
    case 1: return lead_work(l, WORK_FOLD, error);
    case 2: return lead_work(l, WORK_CHECKPOINT | WORK_FOLD, error);
    case 3: return lead_work(l, WORK_ARCHIVE, error);
    case 4: return lead_work(l, WORK_COLLECT, error);
    case 5: return lead_work(l, WORK_COLLECT | WORK_CHECKPOINT | WORK_COLLECT, error);
    case 6: return lead_take(l, error); /* an empty term leaves a fence */
    default: break;
    }
    for (uint64_t n = chance_below(c, 9) + 1; n > 0 && status == T4_OK; n--) {
        uint64_t first = l->uploaded, more = chance_below(c, 6) + 1;

        while (m->n < first + more)
            log_model_entry(m, c);
        status = lead_upload(l, first + more, error);
    }
    return status;
}

/* Puts bytes over whatever stands under the key. */
static void
overwrite(struct object_store *s, const char *key, struct t4_slice body)
{
    struct t4_object_info info = {.size = sizeof info};
    struct error e = {0};
    struct t4_put put = {
        .size = sizeof put, .condition = T4_PUT_ANY, .key = slice_str(key), .body = body};

    assert_int_equal(object_put(s, &put, 0, &info, &e), T4_OK);
}

static void
flip(struct object_store *s, const char *key, size_t at)
{
    struct t4_object_info info = {.size = sizeof info};
    struct buffer b = {0};
    struct error e = {0};

    assert_int_equal(
        object_get(s, slice_str(key), 0, T4_TO_THE_END, 1 << 20, 0, &b, &info, &e),
        T4_OK);
    b.data[at % b.len] ^= 1;
    overwrite(s, key, buffer_slice(&b));
    buffer_free(&b);
}

/* Any file of the newest checkpoint; false: it has none. */
static bool
any_file(struct lead *l, struct chance *c, struct run_index *run, size_t *which)
{
    const struct checkpoint_object *newest = &manifest(l)->newest;
    struct error error = {0};

    if (newest->n_runs == 0)
        return false;
    *which = (size_t)chance_below(c, newest->n_runs);
    assert_int_equal(run_fetch(l->checkpointer->log, &newest->run[*which], run, &error),
                     T4_OK);
    if (run->n == 0) {
        run_index_free(run);
        return false;
    }
    *which = (size_t)chance_below(c, run->n);
    return true;
}

/*
 * Takes a file away, or damages it, and makes it again; counts those for which the store has not
 * kept what it takes, and puts them back.
 */
static void
lose_and_rebuild(struct lead *l, struct chance *c, unsigned *made, unsigned *gone)
{
    struct buffer before = {0}, after = {0};
    char key[SST_KEY_BYTES];
    struct error error = {0};
    struct run_index run;
    struct t4_slice name;
    size_t which;

    if (!any_file(l, c, &run, &which))
        return;
    sst_key(key, run.sst[which].info.sha256, run.sst[which].term, run.sst[which].index);
    name = slice_str(key);
    assert_int_equal(
        objectlog_fetch(l->checkpointer->log, key, SST_OBJECT_MAX, &before, &error),
        T4_OK);
    if (chance_below(c, 2) == 0)
        assert_int_equal(object_remove(l->store, &name, 1, 0, &error), T4_OK);
    else
        flip(l->store, key, (size_t)chance_below(c, 1u << 20));
    if (rebuild_file(l->checkpointer->log, &run, which, &after, &error) == T4_OK) {
        assert_true(slice_equal(buffer_slice(&before), buffer_slice(&after)));
        ++*made;
    } else {
        overwrite(l->store, key, buffer_slice(&before));
        ++*gone;
    }
    run_index_free(&run);
    buffer_free(&before);
    buffer_free(&after);
}

static void
walk(const char *name, const char *seed, uint64_t chance_seed, unsigned steps)
{
    struct log_model model = {.keys = 40, .value_bytes = 30};
    struct chance c = {chance_seed};
    unsigned made = 0, gone = 0;
    struct lead l;

    lead_init(&l, name, seed, &model, 5);
    l.check.build_bytes = 300; /* several runs of most intervals */
    l.check.retention_ns = 400 * SECOND;
    while (lead_take(&l, &(struct error){0}) != T4_OK)
        ;
    for (unsigned i = 0; i < steps; i++) {
        struct error error = {0};
        t4_status status = walk_step(&l, &c, &error);

        if (status == T4_E_CORRUPT || status == T4_E_INVALID)
            fail_msg("step %u: %s (%s)", i, error.message, error.hint);
        /* Failed: begin again, as the thread does; the chain is not positioned any more. */
        while (status != T4_OK)
            status = lead_take(&l, &error);
        if (seed == NULL && i % 4 == 0 && l.checkpointer->log != NULL)
            lose_and_rebuild(&l, &c, &made, &gone);
        if (i % 8 == 0) {
            struct lead other = l;

            other.store = lead_store(name, NULL, "/nowhere");
            other.options.store = other.store;
            assert_store_is_whole(&other);
            object_close(other.store);
        }
    }
    print_message(
        "# %s: %llu entries, %u checkpoints kept, archive from slot %llu, floor %llu; "
        "%u files made again, %u could not be\n",
        name, (unsigned long long)l.uploaded,
        l.checkpointer->log != NULL ? manifest(&l)->n_checkpoints : 0,
        (unsigned long long)objectlog_manifest(l.chain)->archive.next_slot,
        (unsigned long long)objectlog_manifest(l.chain)->floor.next_slot, made, gone);
    if (seed == NULL)
        assert_true(made > gone);
    lead_free(&l);
    log_model_free(&model);
}

static void
test_walk(void **unused)
{
    (void)unused;
    walk("walk", NULL, test_seed(), 400);
}

static void
test_walk_with_faults(void **unused)
{
    uint64_t seed = test_seed() % 100000 + 1;
    char text[24];

    (void)unused;
    snprintf(text, sizeof text, "%llu", (unsigned long long)seed);
    walk("walk-faults", text, seed + 1, 250);
}

/* --- the same interval, the same objects ---------------------------------------------------------- */

static void
upload_all(struct lead *l, uint64_t group)
{
    while (l->uploaded < l->model->n)
        upload(l, l->uploaded + group < l->model->n ? l->uploaded + group : l->model->n);
}

static struct wal *
make_wal(const struct log_model *m, const char *name, uint64_t group)
{
    char dir[SCRATCH_ROOM + 64];
    struct wal_options o = {.env = env_posix(),
                            .dir = dir,
                            .cluster_id = 77,
                            .lineage = 88,
                            .segment_bytes = 1 << 20};
    struct wal_recovered recovered;
    struct wal_group g = {0};
    struct error e = {0};
    struct wal *w;

    snprintf(dir, sizeof dir, "%s/%s", lead_folder(), name);
    assert_int_equal(wal_open(&o, 0, NULL, NULL, &w, &recovered, &e), T4_OK);
    assert_int_equal(wal_start(w, 1, 2, &e), T4_OK);
    for (uint64_t i = 0; i < m->n; i++) {
        wal_group_add(&g, i + 1, m->revision[i], buffer_slice(&m->entry[i]));
        if (g.entries < group && i + 1 < m->n)
            continue;
        assert_int_equal(wal_reserve(w, g.frames.len, true), T4_OK);
        assert_int_equal(wal_write(w, &g, &e), T4_OK);
        wal_group_clear(&g);
    }
    assert_int_equal(wal_sync(w, NULL, &e), T4_OK);
    wal_group_free(&g);
    return w;
}

static void
test_same_interval_same_objects(void **unused)
{
    struct log_model model = {.keys = 3000, .value_bytes = 600, .random_values = true};
    struct chance c = {test_seed()};
    struct lead a, b;
    struct wal *wal;

    (void)unused;
    for (int i = 0; i < 6000; i++)
        log_model_entry(&model, &c);
    lead_init(&a, "same-a", NULL, &model, 5);
    lead_init(&b, "same-b", NULL, &model, 6);
    a.check.build_bytes = b.check.build_bytes = 1u << 20;
    a.check.wal = NULL; /* from the chain */
    b.check.wal = wal = make_wal(&model, "same-wal", 7);
    take(&a);
    take(&b);
    upload_all(&a, 3000); /* segments, too, are grouped in another way */
    upload_all(&b, 111);
    lead_do(&a, WORK_CHECKPOINT | WORK_FOLD);
    lead_do(&b, WORK_CHECKPOINT | WORK_FOLD);
    assert_true(manifest(&a)->newest.n_runs >= 3);
    assert_int_equal(manifest(&a)->newest.n_runs, manifest(&b)->newest.n_runs);
    assert_memory_equal(manifest(&a)->newest.run, manifest(&b)->newest.run,
                        sizeof manifest(&a)->newest.run);
    assert_true(a.checkpointer->has_fold && b.checkpointer->has_fold);
    assert_memory_equal(a.checkpointer->fold.sha256, b.checkpointer->fold.sha256,
                        HASH_BYTES);
    assert_store_is_whole(&a);
    lead_free(&a);
    lead_free(&b);
    wal_close(wal);
    log_model_free(&model);
}

/* --- folding ------------------------------------------------------------------------------------------ */

static uint64_t
in_order(struct log_model *m, struct chance *c, unsigned from, unsigned to)
{
    uint8_t value[2000];
    char key[16];

    for (unsigned i = from; i < to; i++) {
        struct entry e = {.kind = ENTRY_NORMAL,
                          .revision = m->n > 0 ? m->revision[m->n - 1] + 1 : 2};
        struct mutation u = {.space = SPACE_KEYS, .value = slice_of(value, sizeof value)};

        for (size_t k = 0; k < sizeof value; k++)
            value[k] = (uint8_t)chance_next(c);
        snprintf(key, sizeof key, "%08u", i);
        u.key = slice_str(key);
        log_model_add(m, &e, &u, 1);
    }
    return m->n;
}

static void
test_a_fold_keeps_files(void **unused)
{
    struct log_model model = {.keys = 1, .value_bytes = 1};
    struct chance c = {test_seed()};
    struct file_set before = {0};
    struct run_index run;
    struct error error = {0};
    char key[SST_KEY_BYTES];
    struct t4_slice name;
    size_t kept = 0;
    struct lead l;

    (void)unused;
    lead_init(&l, "fold", NULL, &model, 5);
    take(&l);
    upload(&l, in_order(&model, &c, 0, 15000));
    lead_do(&l, WORK_CHECKPOINT);
    assert_int_equal(manifest(&l)->newest.n_runs, 1);
    assert_true(manifest(&l)->newest.run[0].is_base);
    assert_int_equal(
        run_fetch(l.checkpointer->log, &manifest(&l)->newest.run[0], &run, &error),
        T4_OK);
    assert_true(run.n > 4);
    for (size_t i = 0; i < run.n; i++)
        file_set_add(&before, run.sst[i].info.sha256, run.sst[i].term, run.sst[i].index);
    file_set_sort(&before);
    sst_key(key, run.sst[2].info.sha256, run.sst[2].term, run.sst[2].index);
    name = slice_str(key);
    run_index_free(&run);
    upload(&l, in_order(&model, &c, 14000, 14100)); /* one place of the keys */
    lead_do(&l, WORK_CHECKPOINT);
    assert_int_equal(object_remove(l.store, &name, 1, 0, &error), T4_OK);
    lead_do(&l, WORK_FOLD); /* which needs it, and makes it again */
    assert_int_equal(manifest(&l)->newest.n_runs, 2);
    upload(&l, in_order(&model, &c, 20000, 20001));
    lead_do(&l, WORK_CHECKPOINT);
    /* The two are one now, and the newest stands above it. */
    assert_int_equal(manifest(&l)->newest.n_runs, 2);
    assert_int_equal(
        run_fetch(l.checkpointer->log, &manifest(&l)->newest.run[1], &run, &error),
        T4_OK);
    for (size_t i = 0; i < run.n; i++)
        kept += file_set_has(&before, run.sst[i].info.sha256, run.sst[i].term,
                             run.sst[i].index);
    assert_true(kept + 3 >= run.n && kept > 2);
    run_index_free(&run);
    assert_store_is_whole(&l);
    file_set_free(&before);
    lead_free(&l);
    log_model_free(&model);
}

static void
test_when_to_fold(void **unused)
{
    struct checkpoint_run r[20] = {{.bytes = 10, .index = 30},
                                   {.bytes = 19, .index = 20},
                                   {.bytes = 100, .index = 10, .is_base = true}};

    (void)unused;
    assert_false(fold_is_due(&r[2], 1, 16));
    assert_false(fold_is_due(r, 3, 16)); /* 10 + 19, and 10 more to come */
    r[0].bytes = 16;
    assert_true(fold_is_due(r, 3, 16));
    assert_false(fold_is_due(&r[1], 2, 16));
    assert_true(fold_is_due(&r[1], 2, 2));
    r[0].bytes = 6;
    r[1].bytes = 10;
    assert_false(fold_is_due(r, 3, 16));
    r[1].index = r[0].index; /* the newest checkpoint has made two: as much is to come */
    r[1].bytes = 19;
    assert_true(fold_is_due(r, 3, 16));
}

/*
 * Everything deleted and compacted, which takes a revision that changes no key (as of a reset): a
 * checkpoint without runs is one, too.
 */
static void
test_nothing_is_left(void **unused)
{
    struct log_model model = {.keys = 1, .value_bytes = 1};
    struct mutation gone = {
        .space = SPACE_KEYS, .flags = MUTATION_TOMBSTONE, .key = slice_str("a")};
    struct mutation none = {
        .space = SPACE_SYSTEM, .key = slice_str("x"), .flags = MUTATION_TOMBSTONE};
    struct entry e = {.kind = ENTRY_NORMAL, .revision = 3};
    struct entry compact = {
        .kind = ENTRY_COMPACTION, .revision = 4, .compact_revision = 4};
    struct lead l;

    (void)unused;
    lead_init(&l, "nothing", NULL, &model, 5);
    take(&l);
    log_model_put(&model, "a", "b");
    upload(&l, model.n);
    lead_do(&l, WORK_CHECKPOINT);
    log_model_add(&model, &e, &gone, 1);
    log_model_add(&model, &compact, &none, 1);
    upload(&l, model.n);
    lead_do(&l, WORK_CHECKPOINT | WORK_FOLD);
    assert_int_equal(manifest(&l)->newest.n_runs, 2);
    assert_true(l.checkpointer->has_fold && l.checkpointer->fold_is_empty);
    log_model_add(&model, &(struct entry){.kind = ENTRY_NORMAL, .revision = 4}, &none, 1);
    upload(&l, model.n);
    lead_do(&l, WORK_CHECKPOINT);
    assert_int_equal(manifest(&l)->newest.n_runs, 1); /* the tombstone of "x" */
    assert_store_is_whole(&l);
    lead_free(&l);
    log_model_free(&model);
}

/* --- archives -------------------------------------------------------------------------------------------- */

struct moving {
    struct lead *l;
    const struct log_model *m;
    uint64_t next, at;
};

/* At entry `at` the archives are made and the raw segments deleted under the reader. */
static t4_status
move_floor(void *arg, uint64_t index, struct t4_slice entry,
           const struct segment *segment, struct error *error)
{
    struct moving *v = arg;

    (void)segment;
    (void)error;
    assert_int_equal(index, v->next++);
    assert_true(slice_equal(entry, buffer_slice(&v->m->entry[index - 1])));
    if (index == v->at) {
        lead_do(v->l, WORK_ARCHIVE);
        lead_do(v->l, WORK_COLLECT);
    }
    return T4_OK;
}

static void
test_the_floor_moves_under_a_reader(void **unused)
{
    struct log_model model = {.keys = 20, .value_bytes = 20};
    struct chance c = {test_seed()};
    struct objectlog *reader;
    enum objectlog_found found;
    struct error error = {0};
    struct lead l;

    (void)unused;
    lead_init(&l, "moving", NULL, &model, 5);
    take(&l);
    for (uint64_t round = 0; round < 6; round++) {
        struct moving v = {.l = &l, .m = &model, .next = 1};
        struct objectlog_tail tail;

        for (int i = 0; i < 10; i++) {
            while (model.n < l.uploaded + 2)
                log_model_entry(&model, &c);
            upload(&l, model.n);
        }
        v.at = l.uploaded - 20 + 4 * round + 1; /* first, middle, last of the raw ones */
        if (v.at >= l.uploaded)
            v.at = l.uploaded - 1;
        assert_int_equal(objectlog_open(&l.options, &reader, &found, &error), T4_OK);
        if (objectlog_read(reader, move_floor, &v, &tail, &error) != T4_OK)
            fail_msg("%s", error.message);
        assert_int_equal(tail.last_index, l.uploaded);
        assert_int_equal(v.next, l.uploaded + 1);
        objectlog_close(reader);
        assert_true(count_objects(l.store, "wal/") < 3); /* the fence, perhaps the last */
    }
    assert_true(count_objects(l.store, "log/") == 6);
    assert_store_is_whole(&l);
    lead_free(&l);
    log_model_free(&model);
}

static t4_status
count_entry(void *arg, uint64_t index, struct t4_slice entry,
            const struct segment *segment, struct error *error)
{
    (void)entry;
    (void)segment;
    (void)error;
    *(uint64_t *)arg = index;
    return T4_OK;
}

static void
test_flipped_bits_are_noticed(void **unused)
{
    struct log_model model = {.keys = 20, .value_bytes = 20};
    struct chance c = {test_seed()};
    char key[ARCHIVE_KEY_BYTES];
    struct error error = {0};
    struct lead l;

    (void)unused;
    lead_init(&l, "flips", NULL, &model, 5);
    take(&l);
    for (int i = 0; i < 20; i++)
        log_model_entry(&model, &c);
    upload_all(&l, 2);
    lead_do(&l, WORK_ARCHIVE);
    lead_do(&l, WORK_COLLECT);
    archive_key(key, 0, 10); /* slot 0 is the fence */
    for (int i = 0; i < 200; i++) {
        size_t at = (size_t)chance_below(&c, 1u << 30);
        struct objectlog_tail tail;
        enum objectlog_found found;
        struct objectlog *log;
        uint64_t last = 0;

        flip(l.store, key, at);
        assert_int_equal(objectlog_open(&l.options, &log, &found, &error), T4_OK);
        /* UNSUPPORTED: it looks as if it were written by a newer version. */
        switch (objectlog_read(log, count_entry, &last, &tail, &error)) {
        case T4_E_CORRUPT: break;
        case T4_E_UNSUPPORTED: break;
        default: fail_msg("a flipped bit at %zu is not noticed", at);
        }
        assert_non_null(strstr(error.message, key));
        objectlog_close(log);
        flip(l.store, key, at);
    }
    assert_store_is_whole(&l);
    lead_free(&l);
    log_model_free(&model);
}

/* Another leader cut the same stretch, with other bytes under that name: another one is made. */
static void
test_a_name_that_is_taken(void **unused)
{
    struct log_model model = {.keys = 20, .value_bytes = 20};
    struct chance c = {test_seed()};
    struct t4_object_info info = {.size = sizeof info};
    struct error error = {0};
    char key[ARCHIVE_KEY_BYTES];
    struct t4_put put = {
        .size = sizeof put, .condition = T4_PUT_ANY, .body = slice_str("other")};
    struct lead l;

    (void)unused;
    lead_init(&l, "taken", NULL, &model, 5);
    take(&l);
    for (int i = 0; i < 20; i++)
        log_model_entry(&model, &c);
    upload_all(&l, 2);
    archive_key(key, 0, 10);
    put.key = slice_str(key);
    assert_int_equal(object_put(l.store, &put, 0, &info, &error), T4_OK);
    lead_do(&l, WORK_ARCHIVE);
    assert_int_equal(manifest(&l)->floor.next_slot, 10);
    lead_free(&l);
    log_model_free(&model);
}

/* --- removal ----------------------------------------------------------------------------------------------- */

/* Checkpoints that follow each other, the last two kept. */
static void
some_history(struct lead *l, struct chance *c, int checkpoints)
{
    for (int i = 0; i < checkpoints; i++) {
        for (int k = 0; k < 10; k++)
            log_model_entry(l->model, c);
        upload(l, l->model->n);
        lead_do(l, WORK_CHECKPOINT | WORK_FOLD | WORK_ARCHIVE);
    }
}

static bool
still_filling(void *arg)
{
    (void)arg;
    return true;
}

static void
test_only_what_is_needed_stays(void **unused)
{
    struct log_model model = {.keys = 20, .value_bytes = 20};
    struct chance c = {test_seed()};
    struct lead l;

    (void)unused;
    lead_init(&l, "needed", NULL, &model, 5);
    take(&l);
    some_history(&l, &c, 12);
    assert_int_equal(manifest(&l)->n_checkpoints, 12);
    l.checkpointer->options.filling = still_filling;
    lead_do(&l, WORK_COLLECT); /* an engine is being filled from one of them */
    assert_int_equal(manifest(&l)->n_checkpoints, 12);
    l.checkpointer->options.filling = NULL;
    lead_do(&l, WORK_COLLECT); /* takes off */
    assert_int_equal(manifest(&l)->n_checkpoints, 2);
    assert_int_equal(count_objects(l.store, "checkpoint/"), 12);
    lead_do(&l, WORK_COLLECT); /* deletes */
    assert_int_equal(count_objects(l.store, "checkpoint/"), 2);
    assert_true(count_objects(l.store, "run/") <= 6);
    assert_int_equal(count_objects(l.store, "log/"), 1);
    assert_true(count_objects(l.store, "wal/") <= 2);
    assert_int_equal(count_objects(l.store, "wal/00000000000000000000"),
                     1); /* the fence */
    assert_true(manifest(&l)->archive.next_slot > 0);
    assert_store_is_whole(&l);
    lead_free(&l);
    log_model_free(&model);
}

/* A segment that a fenced leader had on its way: passed over, recorded, and never deleted (I6). */
static void
test_leftovers_stay(void **unused)
{
    struct log_model model = {.keys = 20, .value_bytes = 20};
    struct chance c = {test_seed()};
    struct segment s = {.cluster_id = 77,
                        .lineage = 88,
                        .generation = 1,
                        .writer = 5,
                        .rule = RULE_OBJECT,
                        .first_index = 3,
                        .last_index = 3};
    struct t4_object_info info = {.size = sizeof info};
    struct t4_put put = {.size = sizeof put, .condition = T4_PUT_IF_ABSENT};
    struct buffer raw = {0}, packed = {0}, object = {0};
    char key[SLOT_KEY_BYTES];
    struct error error = {0};
    struct chain_floor place;
    struct lead l;

    (void)unused;
    lead_init(&l, "leftovers", NULL, &model, 5);
    take(&l);
    some_history(&l, &c, 2);
    s.term = l.term;
    take(&l);
    segment_entry_append(&raw, slice_str("whatever"));
    compress_append(&packed, buffer_slice(&raw));
    s.payload = buffer_slice(&packed);
    s.raw_bytes = (uint32_t)raw.len;
    segment_encode(&object, &s);
    objectlog_place(l.chain, &place);
    slot_key(key, place.next_slot);
    put.key = slice_str(key);
    put.body = buffer_slice(&object);
    assert_int_equal(object_put(l.store, &put, 0, &info, &error), T4_OK);
    some_history(&l, &c, 4);
    for (int i = 0; i < 3; i++)
        lead_do(&l, WORK_COLLECT);
    assert_int_equal(count_objects(l.store, key), 1);
    slot_key(key, place.next_slot - 1);
    assert_int_equal(count_objects(l.store, key), 1); /* its fence */
    assert_int_equal(count_objects(l.store, "wal/"), 3);
    assert_true(manifest(&l)->floor.next_slot > place.next_slot);
    assert_store_is_whole(&l);
    buffer_free(&raw);
    buffer_free(&packed);
    buffer_free(&object);
    lead_free(&l);
    log_model_free(&model);
}

/* A pin of any kind: nothing goes. */
static void
test_pins_count(void **unused)
{
    struct log_model model = {.keys = 20, .value_bytes = 20};
    struct chance c = {test_seed()};
    struct t4_object_info info = {.size = sizeof info};
    struct t4_put put = {.size = sizeof put,
                         .condition = T4_PUT_ANY,
                         .key = slice_str("branches/b"),
                         .body = slice_str("pin")};
    struct buffer before = {0}, after = {0};
    struct error error = {0};
    struct lead l;

    (void)unused;
    lead_init(&l, "pins", NULL, &model, 5);
    take(&l);
    some_history(&l, &c, 6);
    lead_do(&l, WORK_COLLECT);
    assert_int_equal(object_put(l.store, &put, 0, &info, &error), T4_OK);
    list_objects(l.store, "", &before);
    lead_do(&l, WORK_COLLECT);
    assert_true(l.checkpointer->collector.result.pinned);
    list_objects(l.store, "", &after);
    assert_true(slice_equal(buffer_slice(&before), buffer_slice(&after)));
    buffer_free(&before);
    buffer_free(&after);
    lead_free(&l);
    log_model_free(&model);
}

/* What says what is needed cannot be read, or a listing fails: nothing goes (I8). */
static void
test_nothing_goes_on_half_an_answer(void **unused)
{
    static const char *const lines[] = {
        "fail list checkpoint/ 100 before\n", "fail list run/ 100 before\n",
        "fail list sst/ 100 before\n",        "fail list log/ 100 before\n",
        "fail list wal/ 100 before\n",        "fail list branches/ 100 before\n",
        "fail get checkpoint/ 100 before\n",  "fail get run/ 100 before\n",
        "fail get log/ 100 before\n",         "fail get manifest/ 100 before\n",
        "fail get checkpoint/ 100 denied\n",
    };
    struct log_model model = {.keys = 20, .value_bytes = 20};
    struct chance c = {test_seed()};
    struct lead l;

    (void)unused;
    lead_init(&l, "half", NULL, &model, 5);
    take(&l);
    some_history(&l, &c, 6);
    lead_do(&l, WORK_COLLECT);
    take(&l); /* knows nothing of runs and slots any more */
    for (size_t i = 0; i < sizeof lines / sizeof lines[0]; i++) {
        struct buffer before = {0}, after = {0};
        struct error error = {0};

        lead_control(&l, "");
        if (l.checkpointer->log == NULL)
            assert_int_equal(lead_work(&l, WORK_OPEN, &error), T4_OK);
        collector_free(&l.checkpointer->collector);
        l.checkpointer->collector.log = l.checkpointer->log;
        l.checkpointer->collector.term = l.term;
        list_objects(l.store, "", &before);
        lead_control(&l, lines[i]);
        assert_int_not_equal(lead_work(&l, WORK_COLLECT, &error), T4_OK);
        lead_control(&l, "");
        list_objects(l.store, "", &after);
        assert_true(slice_equal(buffer_slice(&before), buffer_slice(&after)));
        buffer_free(&before);
        buffer_free(&after);
    }
    lead_control(&l, "");
    lead_do(&l, WORK_COLLECT);
    lead_do(&l, WORK_COLLECT);
    assert_true(count_objects(l.store, "checkpoint/") <= 3);
    assert_store_is_whole(&l);
    lead_free(&l);
    log_model_free(&model);
}

/* Called before each removal is asked for. */
static void
on_removing(void *arg, const char *key, uint64_t bytes)
{
    struct lead *l = arg;

    (void)key;
    (void)bytes;
    atomic_store(&l->removing, true);
}

static void *
collect_main(void *arg)
{
    struct lead *l = arg;
    struct error error = {0};

    lead_work(l, WORK_COLLECT, &error); /* whatever comes of it */
    return NULL;
}

/*
 * A round that stalls right before it deletes, and goes on when another leader has long made new
 * checkpoints, of the same content among others: harmless (pin.pml, design-review F5).
 */
static void
test_a_stalled_round_is_harmless(void **unused)
{
    struct log_model model = {.keys = 20, .value_bytes = 20};
    struct chance c = {test_seed()};
    struct buffer names = {0};
    struct thread thread;
    struct lead a, b;

    (void)unused;
    lead_init(&a, "stalled", NULL, &model, 5);
    lead_init(&b, "stalled", NULL, &model, 6);
    take(&a);
    some_history(&a, &c, 8);
    lead_do(&a, WORK_COLLECT);
    lead_control(&a, "hold remove *\n");
    a.checkpointer->collector.removing = on_removing;
    a.checkpointer->collector.arg = &a;
    thread_start(&thread, "collect", collect_main, &a);
    while (!atomic_load(&a.removing))
        sched_yield();
    take(&b);
    some_history(&b, &c, 3);
    lead_do(&b, WORK_COLLECT);
    lead_do(&b, WORK_COLLECT);
    some_history(&b, &c, 3);
    lead_control(&a, "");
    thread_join(&thread);
    assert_store_is_whole(&b);
    lead_do(&b, WORK_COLLECT);
    lead_do(&b, WORK_COLLECT);
    assert_store_is_whole(&b);
    buffer_free(&names);
    lead_free(&a);
    lead_free(&b);
    log_model_free(&model);
}

/* By hand: orphans of a lower term and of failed attempts go, nothing else. */
static void
test_by_hand(void **unused)
{
    struct log_model model = {.keys = 20, .value_bytes = 20};
    struct chance c = {test_seed()};
    struct gc_result result;
    struct error error = {0};
    struct gc_options o;
    size_t before;
    struct lead l;

    (void)unused;
    lead_init(&l, "hand", NULL, &model, 5);
    o = (struct gc_options){
        .env = env_posix(), .store = l.store, .timeout_ns = 20 * SECOND};
    assert_int_equal(checkpoint_gc(&o, &result, &error), T4_E_NOTFOUND);
    take(&l);
    some_history(&l, &c, 4);
    lead_do(&l, WORK_COLLECT);
    /* A fold of this term that no checkpoint names yet must survive. */
    for (int k = 0; k < 30; k++)
        log_model_entry(&model, &c);
    upload(&l, model.n);
    lead_do(&l, WORK_CHECKPOINT | WORK_FOLD);
    before = count_objects(l.store, "");
    o.dry_run = true;
    assert_int_equal(checkpoint_gc(&o, &result, &error), T4_OK);
    assert_true(result.objects > 0);
    assert_int_equal(count_objects(l.store, ""), before);
    o.dry_run = false;
    assert_int_equal(checkpoint_gc(&o, &result, &error), T4_OK);
    assert_int_equal(count_objects(l.store, ""), before - result.objects);
    assert_store_is_whole(&l);
    log_model_entry(&model, &c);
    upload(&l, model.n);
    lead_do(&l, WORK_CHECKPOINT);
    assert_store_is_whole(&l);
    lead_free(&l);
    log_model_free(&model);
}

/* --- the list ------------------------------------------------------------------------------------------------ */

static void
test_the_list(void **unused)
{
    struct manifest_object m = {.term = 1};
    struct checkpoint_object o = {.term = 1};
    uint8_t hash[SHA256_BYTES] = {0};

    (void)unused;
    for (uint64_t i = 1; i <= 400; i++) {
        o.index = i;
        o.time_ms = i * 1000;
        list_add(&m, &o, hash);
        assert_true(m.n_checkpoints <= MANIFEST_CHECKPOINTS_MAX);
        assert_int_equal(m.checkpoint[0].index, i);
        assert_int_equal(m.newest.index, i);
        if (i > 1)
            assert_int_equal(m.checkpoint[1].index, i - 1);
        assert_int_equal(m.checkpoint[m.n_checkpoints - 1].index, 1);
        for (uint32_t k = 1; k < m.n_checkpoints; k++)
            assert_true(m.checkpoint[k].index < m.checkpoint[k - 1].index);
    }
    /* Thinned evenly: no gap is much longer than the others. */
    for (uint32_t k = 3; k < m.n_checkpoints; k++)
        assert_true(m.checkpoint[k - 1].time_ms - m.checkpoint[k].time_ms <= 9000);
}

static void
test_what_comes_off_the_list(void **unused)
{
    struct manifest_object m = {.term = 1};
    struct checkpoint_object o = {.term = 1};
    uint8_t hash[SHA256_BYTES] = {0};

    (void)unused;
    for (uint64_t i = 1; i <= 20; i++) {
        o.index = i;
        o.time_ms = i * 1000;
        list_add(&m, &o, hash);
    }
    assert_false(
        list_retire(&m, 20000, 19000)); /* the oldest is the base of the window */
    assert_true(list_oldest_serves(&m, 20000, 19000));
    assert_false(list_oldest_serves(&m, 20000, 19001));
    assert_true(list_retire(&m, 20500, 18500));
    assert_int_equal(m.checkpoint[m.n_checkpoints - 1].index, 2);
    /* A jump of the clock: a quarter of the window at a time. */
    assert_true(list_retire(&m, UINT64_MAX / 2, 8000));
    assert_int_equal(m.checkpoint[m.n_checkpoints - 1].index, 4);
    assert_true(list_retire(&m, UINT64_MAX / 2, 8000));
    assert_int_equal(m.checkpoint[m.n_checkpoints - 1].index, 6);
    assert_true(list_retire(&m, 20000, 0)); /* no window: two */
    assert_int_equal(m.n_checkpoints, 2);
    assert_false(list_retire(&m, UINT64_MAX, 0));
}

/* --- the thread ------------------------------------------------------------------------------------------------ */

struct told {
    struct mutex lock;
    struct condition changed;
    uint64_t covered;
    bool deposed;
};

static void
on_covered(void *arg, uint64_t index)
{
    struct told *t = arg;

    mutex_lock(&t->lock);
    t->covered = index;
    condition_broadcast(&t->changed);
    mutex_unlock(&t->lock);
}

static void
on_deposed(void *arg, const struct error *why)
{
    struct told *t = arg;

    (void)why;
    mutex_lock(&t->lock);
    t->deposed = true;
    condition_broadcast(&t->changed);
    mutex_unlock(&t->lock);
}

static void
test_the_thread(void **unused)
{
    struct log_model model = {.keys = 20, .value_bytes = 20};
    struct chance c = {test_seed()};
    struct told told = {.covered = 0};
    struct checkpoint_mark mark;
    struct buffer raw = {0};
    struct error error = {0};
    struct checkpoint_view view;
    struct lead l, other;

    (void)unused;
    mutex_init(&told.lock);
    condition_init(&told.changed);
    lead_init(&l, "thread", NULL, &model, 5);
    lead_init(&other, "thread", NULL, &model, 6);
    l.check.retention_ns = 1000000 * SECOND; /* nothing goes while it is looked at */
    l.check.arg = &told;
    l.check.covered = on_covered;
    l.check.deposed = on_deposed;
    take(&l);
    mark = l.checkpointer->mark;
    checkpointer_start(l.checkpointer, &mark);
    for (int i = 0; i < 5; i++) {
        for (int k = 0; k < 50; k++)
            log_model_entry(&model, &c);
        upload_all(&l, 1); /* 250 slots: archives, too */
        mutex_lock(&told.lock);
        while (told.covered < l.uploaded)
            condition_wait(&told.changed, &told.lock);
        mutex_unlock(&told.lock);
    }
    checkpointer_look(l.checkpointer, &view);
    assert_int_equal(view.index, l.uploaded);
    assert_false(view.failing);
    assert_store_is_whole(&l);
    /* Its next manifest is refused: another one leads. */
    log_model_put(&model, "k", "v");
    segment_entry_append(&raw, buffer_slice(&model.entry[model.n - 1]));
    assert_int_equal(
        objectlog_append(l.chain, model.n, model.n, model.n, buffer_slice(&raw), &error),
        T4_OK);
    l.uploaded = model.n;
    mark = (struct checkpoint_mark){.index = model.n, .bytes = raw.len};
    objectlog_place(l.chain, &mark.place);
    take(&other);
    checkpointer_mark(l.checkpointer, &mark);
    mutex_lock(&told.lock);
    while (!told.deposed)
        condition_wait(&told.changed, &told.lock);
    mutex_unlock(&told.lock);
    assert_true(told.covered < l.uploaded);
    assert_store_is_whole(&l);
    buffer_free(&raw);
    lead_free(&l);
    lead_free(&other);
    condition_destroy(&told.changed);
    mutex_destroy(&told.lock);
    log_model_free(&model);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_when_to_fold),
        cmocka_unit_test(test_the_list),
        cmocka_unit_test(test_what_comes_off_the_list),
        cmocka_unit_test(test_walk),
        cmocka_unit_test(test_walk_with_faults),
        cmocka_unit_test(test_same_interval_same_objects),
        cmocka_unit_test(test_a_fold_keeps_files),
        cmocka_unit_test(test_nothing_is_left),
        cmocka_unit_test(test_the_floor_moves_under_a_reader),
        cmocka_unit_test(test_flipped_bits_are_noticed),
        cmocka_unit_test(test_a_name_that_is_taken),
        cmocka_unit_test(test_only_what_is_needed_stays),
        cmocka_unit_test(test_leftovers_stay),
        cmocka_unit_test(test_pins_count),
        cmocka_unit_test(test_nothing_goes_on_half_an_answer),
        cmocka_unit_test(test_a_stalled_round_is_harmless),
        cmocka_unit_test(test_by_hand),
        cmocka_unit_test(test_the_thread),
    };
    int failed = cmocka_run_group_tests_name("checkpoint", tests, NULL, NULL);

    scratch_remove(lead_folder());
    return failed;
}

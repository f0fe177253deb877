/*
 * checkpoint_cost.c - what checkpoints upload, and what a restore would read, for a kind of load.
 *
 *   checkpoint_cost FOLDER uniform|hot|kept ENTRIES INTERVAL_MIB
 *
 * uniform: puts of random keys out of a quarter of ENTRIES, values of 100 to 500 bytes that are half
 * random, and what is superseded is compacted at each checkpoint; hot: the same, but nine of ten
 * puts go to 2,000 keys, as Kubernetes' updates of leases and pods; kept: as uniform, and nothing
 * is compacted.  The log is cut into intervals, each is made a
 * checkpoint as the leader makes it, in a store in FOLDER (which must not exist).
 *
 * Prints a line for each checkpoint, then the sums:
 *   upload: bytes put for runs and folds / bytes of the log's segments as they were put, and
 *     / bytes of the runs alone, which have of each key what is not superseded
 *   restore: bytes of all runs / bytes of a base with the same content (mean, most)
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/memory.h"
#include "checkpoint/checkpoint_int.h"
#include "env/env.h"
#include "fmt/entry.h"

struct load {
    bool hot, compacts;
    uint64_t entries, keys, chance;
    uint64_t index;
    int64_t revision;
    struct buffer entry;
};

struct leader {
    struct objectlog *chain;
    struct checkpointer *checkpointer;
    struct metrics metrics;
    uint64_t term, log_bytes;
};

static void
fail(const struct error *e)
{
    fprintf(stderr, "checkpoint_cost: %s (%s)\n", e->message, e->hint);
    exit(1);
}

static uint64_t
chance(struct load *l, uint64_t n)
{
    l->chance = l->chance * 6364136223846793005u + 1442695040888963407u;
    return (l->chance >> 33) % n;
}

static void
next_entry(struct load *l, bool compact)
{
    struct entry e = {.kind = compact ? ENTRY_COMPACTION : ENTRY_NORMAL,
                      .index = ++l->index,
                      .term = 1,
                      .revision = compact ? l->revision : ++l->revision,
                      .time_ms = 1700000000000u + l->index,
                      .compact_revision = compact ? l->revision : 0,
                      .mutations = 1};
    uint64_t which = l->hot && chance(l, 10) > 0 ? chance(l, 2000) : chance(l, l->keys);
    uint8_t value[500];
    char key[48];
    struct buffer number = {0};
    struct mutation m = {.space = SPACE_KEYS, .create_revision = 1, .version = 1};

    snprintf(key, sizeof key, "/registry/pods/namespace-%03u/%08u",
             (unsigned)(which % 100), (unsigned)which);
    m.key = slice_str(key);
    m.value = slice_of(value, 100 + (size_t)chance(l, 401));
    for (size_t i = 0; i < m.value.len; i++)
        value[i] =
            i % 2 ? (uint8_t)chance(l, 256) : (uint8_t) "{\"metadata\":"[i / 2 % 12];
    if (compact) {
        buffer_append_varint(&number, (uint64_t)l->revision);
        m = (struct mutation){.space = SPACE_SYSTEM,
                              .key = slice_str("compacted"),
                              .value = buffer_slice(&number)};
    }
    buffer_clear(&l->entry);
    entry_encode_head(&l->entry, &e);
    entry_add(&l->entry, &m);
    buffer_free(&number);
}

static t4_status
none(void *arg, uint64_t index, struct t4_slice entry, const struct segment *segment,
     struct error *error)
{
    (void)arg;
    (void)index;
    (void)entry;
    (void)segment;
    (void)error;
    return T4_OK;
}

static void
begin(struct leader *l, struct objectlog_options *options, uint64_t interval)
{
    struct checkpointer_options c = {.env = options->env,
                                     .store = options->store,
                                     .incarnation = 1,
                                     .address = "",
                                     .timeout_ns = options->timeout_ns,
                                     .generation = 1,
                                     .interval_ns = 1,
                                     .interval_bytes = interval,
                                     .metrics = &l->metrics};
    enum objectlog_found found;
    struct objectlog_tail tail;
    struct error error = {0};

    if (objectlog_open(options, &l->chain, &found, &error) != T4_OK ||
        objectlog_bootstrap(l->chain, 1, 2, RULE_OBJECT, &error) != T4_OK ||
        objectlog_take_over(l->chain, &l->term, &error) != T4_OK ||
        objectlog_read(l->chain, none, NULL, &tail, &error) != T4_OK)
        fail(&error);
    c.term = l->term;
    l->checkpointer = checkpointer_new(&c);
    if (checkpointer_do(l->checkpointer, WORK_OPEN, &error) != T4_OK)
        fail(&error);
}

/* Entries until the interval is full, in segments of 4 MiB. */
static bool
upload(struct leader *l, struct load *load, uint64_t interval)
{
    struct buffer raw = {0}, packed = {0};
    struct error error = {0};
    uint64_t bytes = 0, first = load->index + 1;
    bool more = true;

    while (more) {
        struct checkpoint_mark mark;

        more = load->index < load->entries && bytes < interval;
        next_entry(load, load->compacts && !more);
        segment_entry_append(&raw, buffer_slice(&load->entry));
        if (raw.len < 4u << 20 && more)
            continue;
        if (objectlog_append(l->chain, first, load->index, load->index,
                             buffer_slice(&raw), &error) != T4_OK)
            fail(&error);
        compress_append(&packed, buffer_slice(&raw));
        l->log_bytes += packed.len;
        buffer_clear(&packed);
        mark = (struct checkpoint_mark){.index = load->index, .bytes = raw.len};
        objectlog_place(l->chain, &mark.place);
        checkpointer_mark(l->checkpointer, &mark);
        bytes += raw.len;
        first = load->index + 1;
        buffer_clear(&raw);
    }
    buffer_free(&raw);
    buffer_free(&packed);
    return load->index < load->entries;
}

static uint64_t
runs_bytes(const struct checkpoint_object *o)
{
    uint64_t bytes = 0;

    for (uint32_t i = 0; i < o->n_runs; i++)
        bytes += o->run[i].bytes;
    return bytes;
}

/*
 * What is read at a restore, over what would be if all runs were one: both as they lie in the store.
 * The base that is made to see that is an orphan.
 */
static double
amplification(struct leader *l, const struct checkpoint_object *newest)
{
    struct run_target target = {
        .log = l->checkpointer->log, .term = l->term, .index = newest->index + 1};
    struct checkpoint_run base;
    struct error error = {0};

    if (newest->n_runs < 2)
        return 1;
    if (fold_runs(&target, newest->run, newest->n_runs, &base, &error) != T4_OK)
        fail(&error);
    return (double)runs_bytes(newest) / (double)base.bytes;
}

int
main(int argc, char **argv)
{
    struct object_options options = {.env = env_posix(),
                                     .plugin_dir = getenv("T4_PLUGIN_DIR")};
    struct objectlog_options log = {
        .env = env_posix(), .incarnation = 1, .address = "", .timeout_ns = 60 * SECOND};
    struct load load = {.chance = 1, .revision = 1};
    struct leader l = {.term = 0};
    uint64_t interval, records = 0, uploaded = 0;
    double ratio, most = 0, sum = 0;
    unsigned checkpoints = 0;
    struct error error = {0};
    char url[600];
    bool more = true;

    if (argc < 5) {
        fputs("usage: checkpoint_cost FOLDER uniform|hot|kept ENTRIES INTERVAL_MIB\n",
              stderr);
        return 2;
    }
    load.hot = strcmp(argv[2], "hot") == 0;
    load.compacts = strcmp(argv[2], "kept") != 0;
    load.entries = strtoull(argv[3], NULL, 10);
    load.keys = load.entries / 4 + 1;
    interval = strtoull(argv[4], NULL, 10) << 20;
    snprintf(url, sizeof url, "file://%s", argv[1]);
    if (object_open(url, &options, &log.store, &error) != T4_OK)
        fail(&error);
    begin(&l, &log, interval);
    while (more) {
        const struct checkpoint_object *newest =
            &objectlog_manifest(l.checkpointer->log)->newest;
        uint64_t before = (uint64_t)metric_get(&l.metrics, METRIC_CHECKPOINT_UPLOADED),
                 now;

        more = upload(&l, &load, interval);
        if (checkpointer_do(l.checkpointer, WORK_CHECKPOINT, &error) != T4_OK)
            fail(&error);
        now = (uint64_t)metric_get(&l.metrics, METRIC_CHECKPOINT_UPLOADED);
        records += now - before; /* once each: what the log itself has put in */
        uploaded += now - before;
        ratio = amplification(&l, newest);
        if (++checkpoints > 1) {
            sum += ratio;
            most = ratio > most ? ratio : most;
        }
        printf("checkpoint %u: %" PRIu32 " runs, %" PRIu64 " bytes, %.2f of one base\n",
               checkpoints, newest->n_runs, runs_bytes(newest), ratio);
        if (fold_is_due(newest->run, newest->n_runs, FOLD_RUNS)) {
            before = now;
            if (checkpointer_do(l.checkpointer, WORK_FOLD, &error) != T4_OK)
                fail(&error);
            now = (uint64_t)metric_get(&l.metrics, METRIC_CHECKPOINT_UPLOADED);
            uploaded += now - before;
            printf("fold: %" PRIu64 " bytes put, %" PRId64 " kept so far\n", now - before,
                   metric_get(&l.metrics, METRIC_CHECKPOINT_REUSED));
        }
    }
    printf("upload %.2f times the log (%.2f times the runs), restore %.2f mean, %.2f "
           "most, of a base with the same content\n",
           (double)uploaded / (double)l.log_bytes, (double)uploaded / (double)records,
           checkpoints > 1 ? sum / (checkpoints - 1) : 1, most);
    checkpointer_free(l.checkpointer);
    objectlog_close(l.chain);
    object_close(log.store);
    buffer_free(&load.entry);
    return 0;
}

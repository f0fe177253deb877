/*
 * watch_scan_test.c - watches that begin below the log: found among the versions of keys.
 *
 * Beside watch_test.c, whose random histories lose their log now and then: what a scan costs,
 * who shares one, who waits; windows of one revision and revisions larger than a window;
 * clients that stall in the middle; compactions that overtake; an engine that is not complete.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "watch_bed.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

static void
publish(struct watch_bed *b)
{
    bed_write(b);
    bed_publish(b);
}

/* n puts of one key, each an entry. */
static void
puts_of(struct watch_bed *b, int key, int n, size_t bytes)
{
    for (int i = 0; i < n; i++) {
        bed_entry(b, &(struct change){key, false, bytes}, 1);
        if (i % 50 == 49)
            bed_write(b);
    }
    publish(b);
}

static int64_t
scans(struct watch_bed *b)
{
    return metric_get(&b->metrics, METRIC_WATCH_SCANS);
}

static int64_t
looked_at(struct watch_bed *b)
{
    return metric_get(&b->metrics, METRIC_WATCH_SCANNED);
}

/* --- what comes ------------------------------------------------------------------------------- */

static void
test_from_both(void **unused)
{
    const struct watch_create previous = {.start_revision = 2, .prev_kv = true},
                              puts = {.start_revision = 2, .no_delete = true},
                              deletes = {.start_revision = 2, .no_put = true},
                              pieces = {.start_revision = 2, .fragment = true};
    const struct change change[] = {{7, false, 20}, {3, true, 0}, {5, false, 900}};
    struct watch_bed *b = watch_bed_new();
    struct watched *w[8], *live;
    struct client *c;

    (void)unused;
    b->options.fragment_bytes = 500;
    watch_bed_start(b);
    for (int i = 0; i < 30; i++) { /* revisions 2 to 61 */
        bed_put(b, 3, 10);
        bed_entry(b, change, 3);
        publish(b);
        if (i == 20)
            bed_flush(b);
    }
    bed_lose_log(b);
    c = client_open(b, true);
    live = client_watch(c, "k00 *", NULL);
    client_settle(c);
    puts_of(b, 3, 10, 10); /* to 71 */
    w[0] = client_watch(c, "k00 *", FROM(2));
    w[1] = client_watch(c, "k03", FROM(30));
    w[2] = client_watch(c, "k00 k06", &previous);
    w[3] = client_watch(c, "k00 *", &puts);
    w[4] = client_watch(c, "k00 *", &deletes);
    w[5] = client_watch(c, "k00 *", &pieces);
    w[6] = client_watch(c, "k20 *", FROM(2)); /* nothing to get */
    w[7] = client_watch(c, "k03", FROM(61));  /* the last one below the log */
    client_settle(c);
    puts_of(b, 3, 5, 10);
    client_settle(c);
    client_progress(c);
    client_barrier(c);
    assert_int_equal(b->failures, 0);
    assert_int_equal(live->events, 15);
    assert_int_equal(w[0]->events, 4 * 30 + 15);
    assert_int_equal(w[1]->events, 32 + 15);
    assert_int_equal(w[2]->events, 3 * 30 + 15);
    assert_int_equal(w[2]->without_prev, 30 + 1 + 1); /* k03 each time, once k05 */
    assert_int_equal(w[3]->events, 3 * 30 + 15);
    assert_int_equal(w[4]->events, 30);
    assert_int_equal(w[5]->events, 4 * 30 + 15);
    assert_true(w[5]->fragments > 0);
    assert_int_equal(w[6]->events, 0);
    assert_int_equal(w[7]->events, 1 + 15);
    assert_int_equal(c->n_progress, 1);
    client_close(c);
    watch_bed_free(b);
}

/* A window that holds less than one revision takes it nevertheless, whole. */
static void
test_large_revisions(void **unused)
{
    struct watch_bed *b = watch_bed_new();
    struct change change[BED_KEYS];
    struct watched *w;
    struct client *c;

    (void)unused;
    b->options.scan_bytes = 100;
    b->options.scan_records = 2;
    b->options.stream_backlog_bytes = 4096;
    watch_bed_start(b);
    for (int i = 0; i < 6; i++) {
        for (int k = 0; k < BED_KEYS; k++) /* not in the order of keys */
            change[k] = (struct change){(k * 5 + i) % BED_KEYS, i % 3 == 2, 200};
        bed_entry(b, change, BED_KEYS);
        bed_put(b, 9, 10);
    }
    bed_lose_log(b);
    c = client_open(b, true);
    w = client_watch(c, "k00 *", FROM(1));
    client_settle(c);
    assert_int_equal(w->events, 6 * (BED_KEYS + 1));
    assert_int_equal(scans(b), 12); /* one for each revision */
    client_close(c);
    watch_bed_free(b);
}

/* --- what it costs ---------------------------------------------------------------------------- */

/* A watch of one key does not look at others. */
static void
test_one_key_is_a_seek(void **unused)
{
    struct watch_bed *b = watch_bed_new();
    struct watched *w;
    struct client *c;

    (void)unused;
    watch_bed_start(b);
    for (int k = 0; k < BED_KEYS; k++)
        puts_of(b, k, 20, 10);
    bed_flush(b);
    bed_lose_log(b);
    c = client_open(b, true);
    w = client_watch(c, "k17", FROM(2));
    client_settle(c);
    assert_int_equal(w->events, 20);
    assert_int_equal(scans(b), 1);
    assert_int_equal(looked_at(b), 21);
    client_close(c);
    watch_bed_free(b);
}

/* Many that watch the same, or parts of it, share the scan of the first. */
static void
test_sharing(void **unused)
{
    enum { WATCHES = 200 };
    struct watch_bed *b = watch_bed_new();
    struct watched *w[WATCHES];
    struct client *c;

    (void)unused;
    watch_bed_start(b);
    for (int i = 0; i < 20; i++)
        for (int k = 0; k < BED_KEYS; k++)
            bed_entry(b, &(struct change){k, false, 10}, 1);
    publish(b);
    bed_lose_log(b);
    c = client_open(b, true);
    for (int i = 0; i < WATCHES; i++)
        w[i] = client_watch(c,
                            i == 0  ? "k00 *"
                            : i % 2 ? "k01 k09"
                                    : "k00 *",
                            FROM(2 + i));
    client_settle(c);
    for (int i = 0; i < WATCHES; i++)
        assert_true(w[i]->events > 0);
    assert_true(scans(b) < WATCHES / 10);
    client_close(c);
    watch_bed_free(b);
}

/* Those that cannot share wait for each other, and all have their turn. */
static void
test_waiting(void **unused)
{
    enum { CLIENTS = 40 };
    struct watch_bed *b = watch_bed_new();
    struct client *c[CLIENTS];
    struct watched *w[CLIENTS];
    char range[16];

    (void)unused;
    b->options.scan_bytes = 1500; /* about 20 events */
    b->options.scan_records = 30;
    watch_bed_start(b);
    for (int k = 0; k < BED_KEYS; k++)
        puts_of(b, k, 20, 10);
    bed_lose_log(b);
    for (int i = 0; i < CLIENTS; i++) {
        snprintf(range, sizeof range, "k%02d k%02d", i, i + 4);
        c[i] = client_open(b, true);
        w[i] = client_watch(c[i], range, FROM(2));
    }
    puts_of(b, 20, 20, 10);
    for (int i = 0; i < CLIENTS; i++) {
        client_settle(c[i]);
        assert_int_equal(w[i]->events, 80 + (i > 16 && i <= 20 ? 20 : 0));
        client_close(c[i]);
    }
    assert_true(scans(b) >= CLIENTS);
    watch_bed_free(b);
}

static bool
holds_message(void *arg)
{
    return ((struct client *)arg)->owes;
}

/*
 * A client that takes what it has room for, and that again and again: what was found is kept
 * for it, the range is not searched each time.
 */
static void
test_slow_client_costs_one_scan(void **unused)
{
    struct watch_bed *b = watch_bed_new();
    struct watched *w;
    struct client *c;

    (void)unused;
    b->options.stream_backlog_bytes = 2048;
    watch_bed_start(b);
    puts_of(b, 5, 1500, 300);
    bed_lose_log(b);
    c = client_open(b, true);
    client_watch(c, "b", NULL);
    client_settle(c);
    client_stop_reading(c);
    w = client_watch(c, "k00 *", FROM(2));
    while (w->events < 1500) {
        bed_wait(b, "a message", holds_message, c);
        client_report(c);
    }
    client_read(c);
    client_settle(c);
    assert_int_equal(w->events, 1500);
    assert_true(w->messages > 100);
    assert_int_equal(scans(b), 1);
    client_close(c);
    watch_bed_free(b);
}

/* --- compactions, ends ------------------------------------------------------------------------- */

static bool
is_over(void *arg)
{
    return ((struct watched *)arg)->state == WATCHED_COMPACTED;
}

/* It has stalled in the middle; what it got before it keeps.  Another one is far enough. */
static void
test_compaction_overtakes(void **unused)
{
    struct watch_bed *b = watch_bed_new();
    struct watched *slow, *at, *below;
    struct client *c, *other;

    (void)unused;
    b->options.stream_backlog_bytes = 4096;
    watch_bed_start(b);
    puts_of(b, 7, 1000, 50);
    bed_lose_log(b);
    c = client_open(b, true);
    client_watch(c, "b", NULL);
    client_settle(c);
    client_stop_reading(c);
    slow = client_watch(c, "k07", FROM(2));
    bed_wait(b, "a message", holds_message, c); /* created */
    client_report(c);
    bed_wait(b, "a message", holds_message, c); /* events */
    bed_compaction(b, 900);
    publish(b);
    bed_flush(b);
    other = client_open(b, true);
    below = client_watch(other, "k07", FROM(899));
    at = client_watch(other, "k07", FROM(900));
    client_settle(other);
    bed_wait(b, "the cancel", is_over, below);
    client_read(c);
    bed_wait(b, "the cancel", is_over, slow);
    assert_true(slow->events > 0 && slow->newest < 900);
    assert_int_equal(at->events, 1001 - 899);
    client_close(c);
    client_close(other);
    watch_bed_free(b);
}

/* Deletions at the compacted revision and above are there, also when they were carried out. */
static void
test_deletions_at_the_compacted_revision(void **unused)
{
    struct watch_bed *b = watch_bed_new();
    struct watched *w;
    struct client *c;

    (void)unused;
    watch_bed_start(b);
    for (int k = 0; k < 10; k++) /* puts: 2, 4, ..., deletions: 3, 5, ..., 21 */
        for (int i = 0; i < 2; i++) {
            bed_entry(b, &(struct change){k, i == 1, 20}, 1);
            publish(b);
        }
    bed_compaction(b, 11);
    publish(b);
    bed_flush(b);
    bed_lose_log(b);
    c = client_open(b, true);
    w = client_watch(c, "k00 *", FROM(11));
    client_settle(c);
    assert_int_equal(w->events, 11);
    client_close(c);
    watch_bed_free(b);
}

/*
 * Versions go as soon as mvcc knows of a compaction; the hub may hear of it later.  Whoever
 * began before, or begins now, must not be given what is left as if it were all.
 */
static void
test_compaction_before_the_hub_knows(void **unused)
{
    struct watch_bed *b = watch_bed_new();
    struct watched *parked, *low, *high;
    struct client *c, *other;

    (void)unused;
    b->options.stream_backlog_bytes = 4096;
    watch_bed_start(b);
    puts_of(b, 7, 1000, 50);
    bed_flush(b);
    bed_lose_log(b);
    c = client_open(b, true);
    client_watch(c, "b", NULL);
    client_settle(c);
    client_stop_reading(c);
    parked = client_watch(c, "k07", FROM(2));
    bed_wait(b, "a message", holds_message, c); /* created */
    client_report(c);
    bed_wait(b, "a message", holds_message, c); /* events, and it has stalled */
    bed_compaction(b, 900);
    bed_write(b);
    mutex_lock(&b->lock);
    b->compacted = 900;
    mutex_unlock(&b->lock);
    mvcc_publish(b->mvcc, b->written_index, 900);
    bed_flush(b);
    client_read(c);
    bed_wait(b, "the cancel", is_over, parked);
    assert_true(parked->events > 0 && parked->newest < 900);
    other = client_open(b, true);
    low = client_watch(other, "k07", FROM(500));
    high = client_watch(other, "k07", FROM(950));
    bed_wait(b, "the cancel", is_over, low);
    client_settle(other);
    assert_int_equal(low->events, 0);
    assert_int_equal(high->events, 1001 - 949);
    publish(b);
    client_close(c);
    client_close(other);
    watch_bed_free(b);
}

/* A compaction while the range is searched, a few records a turn. */
static void
test_compaction_during_a_search(void **unused)
{
    struct watch_bed *b = watch_bed_new();
    struct watched *low, *high;
    struct client *c;

    (void)unused;
    b->options.scan_records = 2;
    watch_bed_start(b);
    for (int i = 0; i < 40; i++)
        for (int k = 0; k < BED_KEYS; k++)
            bed_entry(b, &(struct change){k, i % 7 == 3, 10}, 1);
    publish(b);
    bed_flush(b);
    bed_lose_log(b);
    c = client_open(b, true);
    low = client_watch(c, "k00 *", FROM(2));
    high = client_watch(c, "k00 *", FROM(1500));
    bed_compaction(b, 1000);
    publish(b);
    bed_flush(b);
    client_settle(c);
    assert_true(low->state == WATCHED_COMPACTED || low->events > 0);
    assert_int_equal(high->events, b->revision - 1499);
    client_close(c);
    watch_bed_free(b);
}

static void
test_cancels_and_closes(void **unused)
{
    struct watch_bed *b = watch_bed_new();
    struct client *c[8];

    (void)unused;
    b->options.scan_records = 3;
    b->options.stream_backlog_bytes = 2048;
    watch_bed_start(b);
    puts_of(b, 1, 500, 100);
    bed_lose_log(b);
    for (int round = 0; round < 20; round++) {
        for (int i = 0; i < 8; i++) {
            c[i] = client_open(b, i % 2 == 0);
            client_watch(c[i], i % 4 < 2 ? "k00 *" : "k01", FROM(2 + 50 * i));
            client_barrier(c[0]);
            if (i % 3 == 0)
                client_watch(c[i], "k00 k30", FROM(2));
        }
        client_cancel(c[0], c[0]->watched);
        bed_put(b, 1, 1);
        for (int i = 0; i < 8; i++)
            client_close(c[i]);
    }
    c[0] = client_open(b, true);
    client_watch(c[0], "k00 *", FROM(2));
    c[1] = client_open(b, false);
    client_watch(c[1], "k00 *", FROM(3));
    watch_hub_stop(b->hub, ETCD_STOPPED); /* in the middle of it */
    client_close(c[0]);
    client_close(c[1]);
    watch_bed_free(b);
}

/* --- an engine that fails ----------------------------------------------------------------------- */

static _Atomic int64_t seeks_left; /* then they fail */

static t4_status
failing_seek(struct t4_iter *it, struct t4_slice key, struct t4_slice *out_key,
             struct t4_slice *out_value)
{
    if (atomic_fetch_sub(&seeks_left, 1) <= 0)
        return T4_E_IO;
    return engine_memory_ops()->seek(it, key, out_key, out_value);
}

static bool
has_ended(void *arg)
{
    return ((struct client *)arg)->ended != 0;
}

static bool
has_failed(void *arg)
{
    return ((struct watch_bed *)arg)->failures > 0;
}

/* Whichever call it is: the streams end, with nothing wrong or left out before. */
static void
test_engine_that_fails(void **unused)
{
    (void)unused;
    for (int64_t good = 0; good < 40; good++) {
        struct watch_bed *b = watch_bed_new();
        struct client *c;

        b->engine.ops.seek = failing_seek;
        b->options.stream_backlog_bytes = 2048;
        b->options.scan_records = 20;
        atomic_store(&seeks_left, INT64_MAX);
        watch_bed_start(b);
        for (int i = 0; i < 2; i++)
            for (int k = 0; k < BED_KEYS; k++)
                bed_entry(b, &(struct change){k, false, 100}, 1);
        publish(b);
        bed_flush(b);
        bed_lose_log(b);
        atomic_store(&seeks_left, good);
        c = client_open(b, true);
        client_watch(c, "k00 *", FROM(2));
        client_watch(c, "k00 k20", FROM(2));
        bed_wait(b, "the end", has_ended, c);
        bed_wait(b, "the report", has_failed, b);
        assert_int_equal(c->ended, ETCD_READ_FAILED);
        assert_int_equal(b->failures, 1);
        client_close(c);
        watch_bed_free(b);
    }
}

/* --- an engine that is being filled ------------------------------------------------------------- */

static bool
holds_nothing(void *arg, struct t4_slice ikey)
{
    (void)arg;
    (void)ikey;
    return false;
}

static void
test_waits_for_a_complete_engine(void **unused)
{
    struct watch_bed *b = watch_bed_new();
    struct watched *past, *live;
    struct client *c;

    (void)unused;
    watch_bed_start(b);
    puts_of(b, 1, 100, 10);
    bed_lose_log(b);
    mvcc_hydrate(b->mvcc, holds_nothing, NULL);
    c = client_open(b, true);
    past = client_watch(c, "k00 *", FROM(2));
    live = client_watch(c, "k00 *", NULL);
    client_barrier(c);
    puts_of(b, 1, 10, 10);
    client_barrier(c);
    bed_put(b, 1, 10);
    client_barrier(c);
    assert_int_equal(live->events, 11);
    assert_int_equal(past->events, 0);
    mvcc_hydrated(b->mvcc);
    watch_hub_wake(b->hub);
    client_settle(c);
    assert_int_equal(past->events, 111);
    client_close(c);
    watch_bed_free(b);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_from_both),
        cmocka_unit_test(test_large_revisions),
        cmocka_unit_test(test_one_key_is_a_seek),
        cmocka_unit_test(test_sharing),
        cmocka_unit_test(test_waiting),
        cmocka_unit_test(test_slow_client_costs_one_scan),
        cmocka_unit_test(test_compaction_overtakes),
        cmocka_unit_test(test_deletions_at_the_compacted_revision),
        cmocka_unit_test(test_compaction_before_the_hub_knows),
        cmocka_unit_test(test_compaction_during_a_search),
        cmocka_unit_test(test_cancels_and_closes),
        cmocka_unit_test(test_engine_that_fails),
        cmocka_unit_test(test_waits_for_a_complete_engine),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

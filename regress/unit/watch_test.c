/*
 * watch_test.c - the watch hub over a real log and real versions: what each client gets is
 * compared with a reference, message by message (watch_bed.h).
 *
 * Answers as etcd gives them; a long random history with watches from the past, from now on
 * and from the future, clients that stop and go on reading, cancels and compactions, the same
 * with logs that do not reach back to where watches begin; bounds of what waits; progress;
 * fragments; many threads; stops; a damaged log.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "watch_bed.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/memory.h"

#define ID(n) (&(struct watch_create){.watch_id = (n)})

/* --- answers ---------------------------------------------------------------------------------- */

static struct watched *
refused(struct client *c, const char *key, const char *end,
        const struct watch_create *options, const char *reason)
{
    return client_watch_range(c, slice_str(key), slice_str(end), options, reason);
}

static void
test_answers(void **unused)
{
    static const char duplicate[] =
        "mvcc: duplicate watch ID provided on the WatchStream";
    static const char empty[] = "mvcc: watcher range is empty";
    struct watch_bed *b = watch_bed_new();
    struct client *c, *other;
    struct watched *first, *second, *third, *fourth;
    char *key = mem_zalloc(16387);

    (void)unused;
    b->options.watchers_per_stream = 5;
    watch_bed_start(b);
    c = client_open(b, true);
    first = client_watch(c, "k01", NULL);
    client_watch(c, "k01", ID(1));
    second = client_watch(c, "k01", NULL);
    third = client_watch(c, "", ID(-1));
    refused(c, "k01", "", ID(1), duplicate);
    refused(c, "k02", "k01", NULL, empty);
    refused(c, "k02", "k02", NULL, empty);
    refused(c, "k02", "", FROM(-1),
            "etcdserver: mvcc: required revision has been compacted");
    memset(key, 'k', 16386);
    refused(c, key, "", NULL,
            "t4: key or range_end of the watch is too long: at most 16385 bytes, as no "
            "key is "
            "longer than 16384");
    fourth = client_watch(c, "k00 *", NULL);
    refused(c, "k01", "", NULL, "t4: too many watchers on this stream; open another one");
    client_settle(c);
    assert_int_equal(first->id, 0);
    assert_int_equal(second->id, 2); /* 1 is in use */
    assert_int_equal(third->id, -1);
    assert_int_equal(fourth->id, 3);

    watch_stream_cancel(c->stream, 77); /* no answer */
    client_cancel(c, second);
    bed_put(b, 1, 10);
    client_settle(c);
    assert_int_equal(second->state, WATCHED_CANCELED);
    assert_int_equal(first->events, 1);
    client_watch(c, "k01", ID(2)); /* free again */
    client_settle(c);

    other = client_open(b, true); /* ids are per stream */
    first = client_watch(other, "k01", NULL);
    client_settle(other);
    assert_int_equal(first->id, 0);
    client_close(other);
    client_close(c);
    mem_free(key);
    watch_bed_free(b);
}

static void
test_ranges_and_filters(void **unused)
{
    struct watch_bed *b = watch_bed_new();
    const struct watch_create puts = {.no_delete = true}, deletes = {.no_put = true},
                              none = {.no_put = true, .no_delete = true},
                              previous = {.prev_kv = true};
    const struct change delete = {5, true, 0};
    struct watched *w[8];
    struct client *c;

    (void)unused;
    watch_bed_start(b);
    c = client_open(b, true);
    w[0] = client_watch(c, "k05", NULL);
    w[1] = client_watch(c, "k05 k06", NULL);
    w[2] = client_watch(c, "k06 *", NULL);
    w[3] = client_watch(c, " *", NULL); /* everything */
    w[4] = client_watch(c, "k", NULL);  /* one key, which is no prefix */
    w[5] = client_watch(c, "k05", &puts);
    w[6] = client_watch(c, "k05", &deletes);
    w[7] = client_watch(c, "k00 k99", &none);
    client_watch(c, "k05", &previous);
    client_settle(c);
    bed_put(b, 5, 10);
    bed_put(b, 6, 10);
    bed_entry(b, &delete, 1);
    bed_entry(b, NULL, 0);
    bed_write(b);
    bed_publish(b);
    client_settle(c);
    assert_int_equal(w[0]->events, 2);
    assert_int_equal(w[1]->events, 2);
    assert_int_equal(w[2]->events, 1);
    assert_int_equal(w[3]->events, 3);
    assert_int_equal(w[4]->events, 0);
    assert_int_equal(w[5]->events, 1);
    assert_int_equal(w[6]->events, 1);
    assert_int_equal(w[7]->messages, 0);
    client_close(c);
    watch_bed_free(b);
}

/* Nothing of the log is seen before it is published, however long it has been there. */
static void
test_only_what_is_published(void **unused)
{
    struct watch_bed *b = watch_bed_new();
    const struct change change = {3, false, 20};
    struct watched *w, *past;
    struct client *c;

    (void)unused;
    watch_bed_start(b);
    bed_put(b, 3, 20);
    c = client_open(b, true);
    w = client_watch(c, "k03", NULL);
    past = client_watch(c, "k03", FROM(1));
    client_settle(c);
    for (int i = 0; i < 5; i++)
        bed_entry(b, &change, 1);
    bed_write(b);
    client_watch(c, "k03", FROM(1)); /* reads the log to where it may */
    client_settle(c);
    client_barrier(c);
    assert_int_equal(w->events, 0);
    assert_int_equal(past->events, 1);
    bed_publish(b);
    client_settle(c);
    assert_int_equal(w->events, 5);
    assert_int_equal(past->events, 6);
    client_close(c);
    watch_bed_free(b);
}

static void
test_compacted(void **unused)
{
    struct watch_bed *b = watch_bed_new();
    struct watched *below, *at, *now;
    struct client *c;

    (void)unused;
    watch_bed_start(b);
    for (int i = 0; i < 20; i++)
        bed_put(b, i % 4, 30);
    c = client_open(b, true);
    now = client_watch(c, "k00 *", NULL);
    bed_compaction(b, 10);
    bed_write(b);
    bed_publish(b);
    below = client_watch(c, "k40", FROM(9)); /* also if it has nothing to get */
    at = client_watch(c, "k00 *",
                      &(struct watch_create){.start_revision = 10, .prev_kv = true});
    client_settle(c);
    client_barrier(c);
    bed_put(b, 0, 1);
    client_settle(c);
    client_barrier(c);
    assert_int_equal(below->state, WATCHED_COMPACTED);
    assert_int_equal(at->state, WATCHED_CREATED);
    assert_int_equal(at->events, 21 - 8);
    assert_int_equal(at->without_prev, 1); /* of revision 10: revision 9 is gone */
    assert_int_equal(now->state, WATCHED_CREATED);
    assert_int_equal(now->events, 1);
    /* the id of a watch that was canceled may be used again */
    client_watch(c, "k40", ID(below->id));
    client_settle(c);
    client_close(c);
    watch_bed_free(b);
}

/* Previous values come from the engine as well as from memory. */
static void
test_previous_values(void **unused)
{
    struct watch_bed *b = watch_bed_new();
    const struct watch_create previous = {.start_revision = 40, .prev_kv = true};
    struct watched *w;
    struct client *c;

    (void)unused;
    watch_bed_start(b);
    for (int i = 0; i < 100; i++)
        bed_put(b, i % 5, (size_t)i);
    bed_compaction(b, 40);
    bed_write(b);
    bed_publish(b);
    bed_flush(b);
    for (int i = 0; i < 20; i++)
        bed_put(b, i % 5, (size_t)i);
    c = client_open(b, true);
    w = client_watch(c, "k00 *", &previous);
    client_settle(c);
    assert_int_equal(w->with_prev, 121 - 40);
    assert_int_equal(w->without_prev, 1);
    client_close(c);
    watch_bed_free(b);
}

/* --- what waits is bounded -------------------------------------------------------------------- */

static bool
has_unsynced(void *arg)
{
    struct watch_bed *b = arg;

    return metric_get(&b->metrics, METRIC_WATCHERS_UNSYNCED) == 3;
}

static bool
holds_message(void *arg)
{
    return ((struct client *)arg)->owes;
}

static void
test_client_that_does_not_read(void **unused)
{
    struct watch_bed *b = watch_bed_new();
    struct watched *w[3];
    struct client *c, *reader;
    struct watched *live;
    int64_t backlog, most = 0;
    uint64_t messages;

    (void)unused;
    b->options.stream_backlog_bytes = 32 * 1024;
    watch_bed_start(b);
    reader = client_open(b, true);
    live = client_watch(reader, "k00 *", NULL);
    c = client_open(b, true);
    for (int i = 0; i < 3; i++)
        w[i] = client_watch(c, i == 0 ? "k07" : "k00 *", NULL);
    client_settle(c);
    client_stop_reading(c);
    messages = c->messages;
    for (int i = 0; i < 4000; i++) {
        bed_put(b, 7, (size_t)i % 200);
        backlog = metric_get(&b->metrics, METRIC_WATCH_BACKLOG);
        most = backlog > most ? backlog : most;
    }
    client_settle(reader); /* is not kept waiting by the other */
    assert_int_equal(live->events, 4000);
    bed_wait(b, "all watchers of the client to be unsynced", has_unsynced, b);
    bed_wait(b, "a message", holds_message, c);
    assert_int_equal(c->messages, messages + 1);
    /* Two streams, and each may be over its bound by one revision. */
    assert_true(most > 0 && most <= 2 * (32 * 1024 + b->largest));
    for (int i = 0; i < 3; i++)
        assert_true(w[i]->events < 2000);

    client_read(c);
    client_settle(c);
    bed_put(b, 7, 1);
    client_settle(c);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(w[i]->events, 4001);
        assert_true(w[i]->messages < 4001 / 10); /* folded */
    }
    client_close(c);
    client_close(reader);
    watch_bed_free(b);
}

static bool
is_over(void *arg)
{
    return ((struct watched *)arg)->state == WATCHED_COMPACTED;
}

/* A compaction cancels who is behind it, but what it was given before still comes. */
static void
test_compaction_overtakes(void **unused)
{
    struct watch_bed *b = watch_bed_new();
    struct watched *slow, *other;
    struct client *c;

    (void)unused;
    b->options.stream_backlog_bytes = 8 * 1024;
    watch_bed_start(b);
    c = client_open(b, true);
    slow = client_watch(c, "k07", NULL);
    other = client_watch(c, "k08", NULL);
    client_settle(c);
    client_stop_reading(c);
    for (int i = 0; i < 1000; i++)
        bed_put(b, 7, 50);
    bed_compaction(b, 1001);
    bed_write(b);
    bed_publish(b);
    client_read(c);
    client_settle(c);
    bed_wait(b, "the cancel", is_over, slow);
    assert_int_equal(slow->state, WATCHED_COMPACTED);
    assert_true(slow->events > 0 && slow->newest < 1001);
    assert_int_equal(other->state, WATCHED_CREATED);
    client_close(c);
    watch_bed_free(b);
}

static bool
has_ended(void *arg)
{
    return ((struct client *)arg)->ended != 0;
}

static void
test_floods(void **unused)
{
    struct watch_bed *b = watch_bed_new();
    struct client *c, *quiet;

    (void)unused;
    b->options.watchers_per_stream = 10;
    watch_bed_start(b);
    quiet = client_open(b, true);
    client_watch(quiet, "k00 *", NULL);
    client_settle(quiet);
    /* answers that are not read */
    c = client_open(b, false);
    c->unchecked = true;
    for (int i = 0; i < 10000; i++)
        watch_stream_create(c->stream, &(struct watch_create){.start_revision = -1});
    bed_wait(b, "the end of the stream", has_ended, c);
    assert_int_equal(c->ended, ETCD_TOO_MANY_REQUESTS);
    watch_stream_progress(c->stream);
    client_close(c);
    bed_put(b, 1, 1);
    client_settle(quiet);
    client_close(quiet);
    watch_bed_free(b);
}

/* --- fragments -------------------------------------------------------------------------------- */

static void
test_fragments(void **unused)
{
    struct watch_bed *b = watch_bed_new();
    const struct watch_create in_pieces = {.fragment = true};
    struct change changes[BED_KEYS];
    struct watched *whole, *pieces, *one;
    struct client *c;

    (void)unused;
    b->options.fragment_bytes = 2000;
    watch_bed_start(b);
    for (int i = 0; i < BED_KEYS; i++)
        changes[i] = (struct change){i, false, i == 7 ? 5000 : 300};
    c = client_open(b, true);
    whole = client_watch(c, "k00 *", NULL);
    pieces = client_watch(c, "k00 *", &in_pieces);
    one = client_watch(c, "k07", &in_pieces);
    client_settle(c);
    client_stop_reading(c);
    for (int i = 0; i < 6; i++) {
        bed_entry(b, changes, BED_KEYS);
        bed_write(b);
        bed_publish(b);
        client_progress(c);
        client_watch(c, "k01", NULL);
    }
    client_read(c);
    client_settle(c);
    client_barrier(c);
    assert_int_equal(pieces->events, 6 * BED_KEYS);
    assert_true(pieces->fragments >= 6 * 8); /* of at most 6 events */
    assert_int_equal(whole->fragments, 0);
    assert_true(one->messages == one->events || one->fragments > 0);
    assert_int_equal(c->n_progress, 6);
    /* A cancel in the middle of a revision lets it come to its end: see queue.c. */
    client_stop_reading(c);
    bed_entry(b, changes, BED_KEYS);
    bed_write(b);
    bed_publish(b);
    bed_wait(b, "a message", holds_message, c);
    while (c->open_fragment != pieces) {
        client_report(c);
        bed_wait(b, "a message", holds_message, c);
    }
    client_cancel(c, pieces);
    client_read(c);
    client_settle(c);
    assert_int_equal(pieces->events, 7 * BED_KEYS);
    client_close(c);
    watch_bed_free(b);
}

/* --- progress --------------------------------------------------------------------------------- */

static void
test_progress(void **unused)
{
    struct watch_bed *b = watch_bed_new();
    struct watched *w;
    struct client *c;

    (void)unused;
    b->options.stream_backlog_bytes = 16 * 1024;
    watch_bed_start(b);
    c = client_open(b, true);
    client_progress(c); /* no watcher: no answer */
    client_barrier(c);
    assert_int_equal(c->n_progress, 0);
    mutex_lock(&b->lock);
    c->n_asked = 0;
    mutex_unlock(&b->lock);

    w = client_watch(c, "k01", NULL);
    client_progress(c);
    client_barrier(c);
    assert_int_equal(c->n_progress, 1);
    bed_put(b, 2, 1); /* of a key that nobody watches */
    client_progress(c);
    client_barrier(c);
    assert_int_equal(c->n_progress, 2);
    assert_int_equal(c->progress_newest, 2);

    /* Events that wait go first, those that come later do not get in between. */
    client_stop_reading(c);
    for (int i = 0; i < 20; i++)
        bed_put(b, 1, 10);
    client_progress(c);
    for (int i = 0; i < 20; i++)
        bed_put(b, 1, 10);
    client_progress(c);
    client_read(c);
    client_barrier(c);
    client_settle(c);
    assert_int_equal(c->n_progress, 4);
    assert_int_equal(w->events, 40);

    /* A watcher in the future: no answer until its revision has come. */
    client_watch(c, "k01", FROM(b->revision + 2));
    client_progress(c);
    client_barrier(c);
    assert_int_equal(c->n_progress, 4);
    bed_put(b, 3, 1);
    bed_put(b, 3, 1);
    mutex_lock(&b->lock);
    c->n_asked = c->n_progress;
    mutex_unlock(&b->lock);
    client_progress(c);
    client_barrier(c);
    assert_int_equal(c->n_progress, 5);

    /* Behind: no answer. */
    client_stop_reading(c);
    for (int i = 0; i < 500; i++)
        bed_put(b, 1, 100);
    client_progress(c);
    bed_wait(b, "a message", holds_message, c);
    while (metric_get(&b->metrics, METRIC_WATCHERS_UNSYNCED) == 0)
        client_progress(c); /* the hub may not have come to all of them */
    client_progress(c);
    client_read(c);
    client_settle(c);
    client_barrier(c);
    assert_true(c->n_progress < c->n_asked);
    client_close(c);
    watch_bed_free(b);
}

static bool
was_notified_twice(void *arg)
{
    return ((struct watched *)arg)->notices >= 2;
}

static void
test_progress_notify(void **unused)
{
    struct watch_bed *b = watch_bed_new();
    const struct watch_create notify = {.progress_notify = true},
                              later = {.progress_notify = true, .start_revision = 1000};
    struct watched *w, *quiet, *future;
    struct client *c;

    (void)unused;
    b->options.progress_interval_ns = 1000000;
    watch_bed_start(b);
    c = client_open(b, true);
    w = client_watch(c, "k01", &notify);
    quiet = client_watch(c, "k01", NULL);
    future = client_watch(c, "k01", &later);
    bed_wait(b, "notifications", was_notified_twice, w);
    bed_put(b, 1, 1);
    client_settle(c);
    assert_int_equal(quiet->notices, 0);
    assert_int_equal(future->notices, 0);
    client_stop_reading(c); /* one waits, no more */
    bed_put(b, 2, 1);
    bed_wait(b, "a message", holds_message, c);
    client_read(c);
    client_cancel(c, w);
    client_settle(c);
    client_close(c);
    watch_bed_free(b);
}

/* --- a long history --------------------------------------------------------------------------- */

#define CLIENTS 6

/* From `start`; 0: from somewhere, or now. */
static void
random_watch(struct watch_bed *b, struct client *c, int64_t start, uint64_t *unique)
{
    struct chance *r = &b->chance;
    int lo = (int)chance_below(r, BED_KEYS), hi = (int)chance_below(r, BED_KEYS);
    struct watch_create o = {
        .prev_kv = chance_below(r, 2),
        .fragment = chance_below(r, 3) == 0,
        .no_put = chance_below(r, 6) == 0,
        .no_delete = chance_below(r, 6) == 0,
        .watch_id = chance_below(r, 4) == 0 ? 100000 + (int64_t)++ * unique : 0,
        .start_revision = start,
    };
    char range[32];

    switch (chance_below(r, 4)) {
    case 0: snprintf(range, sizeof range, "k%02d", lo); break;
    case 1: snprintf(range, sizeof range, "k%02d *", lo); break;
    default:
        snprintf(range, sizeof range, "k%02d k%02d", lo < hi ? lo : hi,
                 (lo < hi ? hi : lo) + 1);
        break;
    }
    switch (start > 0 ? 3 : chance_below(r, 4)) {
    case 0: o.start_revision = b->published + (int64_t)chance_below(r, 30); break;
    case 1:
        o.start_revision = 1 + (int64_t)chance_below(r, (uint64_t)b->published);
        break;
    default: break;
    }
    client_watch(c, range, &o);
}

static struct watched *
pick_watch(struct watch_bed *b, struct client *c)
{
    struct watched *picked = NULL;
    uint64_t n = 0;

    mutex_lock(&b->lock);
    for (struct watched *w = c->watched; w != NULL; w = w->next)
        if (w->state == WATCHED_CREATED && !w->cancel_asked &&
            chance_below(&b->chance, ++n) == 0)
            picked = w;
    mutex_unlock(&b->lock);
    return picked;
}

static void
step(struct watch_bed *b, struct client *c, uint64_t *unique)
{
    struct chance *r = &b->chance;
    struct watched *w;
    uint64_t n;

    switch (chance_below(r, 16)) {
    case 0: random_watch(b, c, 0, unique); break;
    case 1:
        w = pick_watch(b, c);
        if (w != NULL)
            client_cancel(c, w);
        break;
    case 2: client_stop_reading(c); break;
    case 3: client_read(c); break;
    case 4: client_report(c); break;
    case 5:
        if (c->n_asked < 256)
            client_progress(c);
        break;
    case 6:
        if (chance_below(r, 20) == 0 && b->published > b->next_compacted + 20)
            bed_compaction(b, b->next_compacted +
                                  (int64_t)chance_below(
                                      r, (uint64_t)(b->published - b->next_compacted)));
        break;
    case 7: bed_write(b); break;
    case 8:
        if (chance_below(r, 30) == 0)
            bed_flush(b);
        break;
    default:
        for (n = chance_below(r, 5); n > 0; n--)
            bed_random_entry(b, r);
        bed_write(b);
        if (chance_below(r, 5) > 0)
            bed_publish(b);
        break;
    }
}

struct history {
    uint32_t backlog, fragment, scan_bytes, scan_records;
    size_t memory; /* of all streams; 0: enough */
    int steps;
    int lose_every; /* so many steps the log is lost; 0: never */
    /* what came out */
    uint64_t events, fragments, compacted, answered;
};

/* Adds up what its watches were given. */
static void
leave(struct history *h, struct client *c)
{
    mutex_lock(&c->bed->lock);
    for (struct watched *w = c->watched; w != NULL; w = w->next) {
        h->events += w->events;
        h->fragments += w->fragments;
        h->compacted += w->state == WATCHED_COMPACTED;
    }
    h->answered += c->n_progress;
    mutex_unlock(&c->bed->lock);
    client_close(c);
}

static void
settle_all(struct watch_bed *b, struct client **c)
{
    bed_write(b);
    bed_publish(b);
    for (int k = 0; k < CLIENTS; k++)
        client_read(c[k]);
    for (int k = 0; k < CLIENTS; k++)
        client_settle(c[k]);
}

/* All come back, and begin at what is not compacted, mostly below the log. */
static void
lose_log(struct watch_bed *b, struct history *h, struct client **c, uint64_t *unique)
{
    uint64_t past;

    for (int k = 0; k < CLIENTS; k++)
        leave(h, c[k]);
    bed_lose_log(b);
    past = (uint64_t)(b->published - b->compacted);
    for (int k = 0; k < CLIENTS; k++) {
        c[k] = client_open(b, true);
        for (int i = 0; i < 4; i++)
            random_watch(b, c[k], b->compacted + (int64_t)chance_below(&b->chance, past),
                         unique);
    }
}

static void
history(struct history h)
{
    struct watch_bed *b = watch_bed_new();
    struct client *c[CLIENTS];
    uint64_t unique = 0;

    b->options.stream_backlog_bytes = h.backlog;
    b->options.fragment_bytes = h.fragment;
    if (h.memory > 0)
        b->options.memory_bytes = h.memory;
    if (h.scan_bytes > 0)
        b->options.scan_bytes = h.scan_bytes;
    if (h.scan_records > 0)
        b->options.scan_records = h.scan_records;
    watch_bed_start(b);
    for (int i = 0; i < CLIENTS; i++)
        c[i] = client_open(b, true);
    for (int i = 0; i < h.steps; i++) {
        int left = (int)chance_below(&b->chance, CLIENTS);

        step(b, c[chance_below(&b->chance, CLIENTS)], &unique);
        if (i % 400 == 399)
            settle_all(b, c);
        if (h.lose_every > 0 && i % h.lose_every == h.lose_every - 1) {
            bed_write(b);
            bed_publish(b);
            lose_log(b, &h, c, &unique);
        }
        if (h.lose_every > 0 && i % 50 == 49)
            bed_drop_segments(b);
        /* Now and then somebody leaves in the middle, and comes back. */
        if (chance_below(&b->chance, 150) == 0) {
            leave(&h, c[left]);
            c[left] = client_open(b, true);
        }
    }
    settle_all(b, c);
    for (int k = 0; k < CLIENTS; k++)
        leave(&h, c[k]);
    watch_bed_check(b);
    print_message(
        "# seed %llu, backlog %u: %lld revisions, %llu events sent in %llu "
        "fragments more, %llu watches compacted, %llu progress messages, backlog "
        "%lld at most, %lld scans of %lld records\n",
        (unsigned long long)test_seed(), h.backlog, (long long)b->revision,
        (unsigned long long)h.events, (unsigned long long)h.fragments,
        (unsigned long long)h.compacted, (unsigned long long)h.answered,
        (long long)b->most_backlog,
        (long long)metric_get(&b->metrics, METRIC_WATCH_SCANS),
        (long long)metric_get(&b->metrics, METRIC_WATCH_SCANNED));
    assert_true(b->most_backlog <= CLIENTS * (h.backlog + b->largest));
    assert_true(b->saw_unsynced && h.events > 10000 && h.answered > 10);
    assert_int_equal(metric_get(&b->metrics, METRIC_WATCH_SCANS) > 0, h.lose_every > 0);
    watch_bed_free(b);
}

static void
test_history(void **unused)
{
    (void)unused;
    history((struct history){.backlog = 20 * 1024, .fragment = 1500, .steps = 6000});
}

static void
test_history_with_a_large_backlog(void **unused)
{
    (void)unused;
    history((struct history){.backlog = 1 << 20, .fragment = 100 * 1024, .steps = 6000});
}

/* One revision at a time, most of it, for each of the streams. */
static void
test_history_with_little_memory(void **unused)
{
    (void)unused;
    history((struct history){.backlog = 1 << 20,
                             .fragment = 1500,
                             .memory = 1,
                             .steps = 4000,
                             .lose_every = 1300});
}

/* Whoever begins below the log gets the same as from the log. */
static void
test_history_of_lost_logs(void **unused)
{
    (void)unused;
    history((struct history){
        .backlog = 1 << 20, .fragment = 100 * 1024, .steps = 6000, .lose_every = 700});
}

static void
test_history_of_lost_logs_in_small_steps(void **unused)
{
    (void)unused;
    history((struct history){.backlog = 20 * 1024,
                             .fragment = 1500,
                             .scan_bytes = 3000, /* some 40 events */
                             .scan_records = 50,
                             .steps = 6000,
                             .lose_every = 450});
}

/* --- threads ---------------------------------------------------------------------------------- */

#define WATCHING 4

struct watching {
    struct watch_bed *b;
    struct thread thread;
    uint64_t seed;
};

static void *
watch_in_thread(void *arg)
{
    struct watching *t = arg;
    struct chance r = {t->seed};

    for (int i = 0; i < 25; i++) {
        struct client *c = client_open(t->b, chance_below(&r, 2));
        struct watched *two;

        client_watch(c, "k00 *", FROM(1));
        two = client_watch(c, "k01", ID(2));
        client_progress(c);
        for (int k = 0; k < 50; k++)
            client_report(c);
        if (chance_below(&r, 3) == 0) {
            mutex_lock(&t->b->lock);
            two->id = 2;
            mutex_unlock(&t->b->lock);
            client_cancel(c, two);
        }
        client_read(c);
        while (chance_below(&r, 4) > 0)
            client_progress(c);
        if (chance_below(&r, 3) == 0)
            client_settle(c);
        client_close(c); /* or in the middle of whatever */
    }
    return NULL;
}

static void
test_threads(void **unused)
{
    struct watch_bed *b = watch_bed_new();
    struct watching t[WATCHING];
    struct watched *w;
    struct client *c;

    (void)unused;
    b->options.stream_backlog_bytes = 16 * 1024;
    watch_bed_start(b);
    c = client_open(b, true);
    w = client_watch(c, "k00 *", NULL);
    client_settle(c);
    for (int i = 0; i < WATCHING; i++) {
        t[i].b = b;
        t[i].seed = test_seed() + (uint64_t)i;
        thread_start(&t[i].thread, "watching", watch_in_thread, &t[i]);
    }
    for (int i = 0; i < 1500; i++) {
        bed_random_entry(b, &b->chance);
        if (i % 3 == 0)
            continue;
        bed_write(b);
        bed_publish(b);
    }
    bed_write(b);
    bed_publish(b);
    for (int i = 0; i < WATCHING; i++)
        thread_join(&t[i].thread);
    client_settle(c);
    assert_true(w->events > 1000);
    client_close(c);
    watch_bed_free(b);
}

/* --- ends ------------------------------------------------------------------------------------- */

static void
test_stop(void **unused)
{
    struct watch_bed *b = watch_bed_new();
    struct client *c[4];

    (void)unused;
    b->options.stream_backlog_bytes = 8 * 1024;
    watch_bed_start(b);
    for (int i = 0; i < 500; i++)
        bed_put(b, 1, 100);
    for (int i = 0; i < 3; i++) {
        c[i] = client_open(b, i == 0);
        client_watch(c[i], "k00 *", i < 2 ? FROM(1) : NULL);
        client_watch(c[i], "k00 k10", FROM(300));
    }
    client_settle(c[0]);
    bed_put(b, 1, 100);
    watch_hub_stop(b->hub, ETCD_STOPPED);
    for (int i = 0; i < 3; i++)
        assert_int_equal(c[i]->ended, ETCD_STOPPED);
    /* Nothing that comes later does harm, or anything. */
    bed_put(b, 1, 100);
    c[3] = client_open(b, true);
    for (int i = 0; i < 4; i++) {
        watch_stream_create(c[i]->stream, &(struct watch_create){0});
        watch_stream_progress(c[i]->stream);
        client_read(c[i]);
        watch_stream_cancel(c[i]->stream, 0);
        bed_wait(b, "the end", has_ended, c[i]);
        client_close(c[i]);
    }
    watch_bed_free(b);
}

static bool
has_failed(void *arg)
{
    return ((struct watch_bed *)arg)->failures > 0;
}

/* Damages the oldest segment: names sort by number. */
static void
keep_smallest(void *arg, const char *name)
{
    char *smallest = arg;

    if (strcmp(name, ".") > 0 && (smallest[0] == '\0' || strcmp(name, smallest) < 0))
        snprintf(smallest, 256, "%s", name);
}

static void
damage(struct watch_bed *b)
{
    struct env *env = b->options.env;
    char path[PATH_MAX + 260], name[256] = "";
    struct env_file *file;
    struct error error;
    uint8_t bytes[64];

    env->list(env->state, b->dir, keep_smallest, name, &error);
    snprintf(path, sizeof path, "%s/%s", b->dir, name);
    memset(bytes, 0xa5, sizeof bytes);
    assert_int_equal(env->open(env->state, path, 0, &file, &error), T4_OK);
    assert_int_equal(env->pwrite(env->state, file, bytes, sizeof bytes, 50000, &error),
                     T4_OK);
    env->close(env->state, file);
}

/* Who reads it is told, the streams end; no wrong or missing event is passed over. */
static void
test_damaged_log(void **unused)
{
    struct watch_bed *b = watch_bed_new();
    struct client *c, *past, *late;

    (void)unused;
    watch_bed_start(b);
    c = client_open(b, true);
    client_watch(c, "k00 *", NULL);
    for (int i = 0; i < 1500; i++)
        bed_put(b, 1, 300);
    client_settle(c);
    damage(b);
    past = client_open(b, true);
    client_watch(past, "k00 *", FROM(1));
    bed_wait(b, "the report", has_failed, b);
    bed_wait(b, "the end", has_ended, past);
    bed_wait(b, "the end", has_ended, c);
    assert_int_equal(past->ended, ETCD_READ_FAILED);
    late = client_open(b, true);
    bed_wait(b, "the end", has_ended, late);
    assert_int_equal(b->failures, 1);
    client_close(c);
    client_close(past);
    client_close(late);
    watch_bed_free(b);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_answers),
        cmocka_unit_test(test_ranges_and_filters),
        cmocka_unit_test(test_only_what_is_published),
        cmocka_unit_test(test_compacted),
        cmocka_unit_test(test_previous_values),
        cmocka_unit_test(test_client_that_does_not_read),
        cmocka_unit_test(test_compaction_overtakes),
        cmocka_unit_test(test_floods),
        cmocka_unit_test(test_fragments),
        cmocka_unit_test(test_progress),
        cmocka_unit_test(test_progress_notify),
        cmocka_unit_test(test_history),
        cmocka_unit_test(test_history_with_a_large_backlog),
        cmocka_unit_test(test_history_with_little_memory),
        cmocka_unit_test(test_history_of_lost_logs),
        cmocka_unit_test(test_history_of_lost_logs_in_small_steps),
        cmocka_unit_test(test_threads),
        cmocka_unit_test(test_stop),
        cmocka_unit_test(test_damaged_log),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

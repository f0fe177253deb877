/*
 * watch_hub_test.c - the watch hub under what an unfriendly load does to it.
 *
 * Beside watch_test.c, which checks every message of an ordinary random history: the index
 * against a linear list; what one revision may take beyond the bound of a stream that many
 * watchers share; ten thousand watchers on one stream and a thousand streams; catching up
 * while the log grows at every turn; a compaction in the middle of that; progress with
 * watchers of the future; a hub that has failed, which must sleep.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/memory.h"
#include "watch/watch_int.h"
#include "watch_bed.h"

/* --- the index --------------------------------------------------------------------------- */

#define INDEXED 400
#define INDEX_STEPS 6000

/* 1 to 3 bytes of few kinds, so that ends, beginnings and single keys meet; 0xff and 0 too. */
static size_t
index_key(struct chance *c, uint8_t key[3])
{
    static const uint8_t letters[] = {0, 1, 'a', 'b', 'c', 0xfe, 0xff};
    size_t n = 1 + chance_below(c, 3);

    for (size_t i = 0; i < n; i++)
        key[i] = letters[chance_below(c, sizeof letters)];
    return n;
}

static struct watcher *
index_watcher(struct chance *c)
{
    uint8_t key[3], end[3];
    size_t key_len = index_key(c, key), end_len = index_key(c, end);
    struct watcher *w = mem_zalloc(sizeof *w + 6);

    memcpy(w->bytes, key, key_len);
    memcpy(w->bytes + 3, end, end_len);
    w->key = slice_of(w->bytes, key_len);
    w->end = slice_of(w->bytes + 3, 0);
    switch (chance_below(c, 6)) {
    case 0: w->open = true; break;
    case 1:
    case 2: break; /* a single key */
    default:
        if (slice_compare(w->key, slice_of(w->bytes + 3, end_len)) < 0)
            w->end = slice_of(w->bytes + 3, end_len);
        break;
    }
    return w;
}

static bool
covers(const struct watcher *w, struct t4_slice key)
{
    if (w->open)
        return slice_compare(w->key, key) <= 0;
    if (w->end.len == 0)
        return slice_equal(w->key, key);
    return slice_compare(w->key, key) <= 0 && slice_compare(key, w->end) < 0;
}

static void
mark(struct watcher *w, void *arg)
{
    (*(size_t *)arg)++;
    w->id++;
}

static void
test_index(void **unused)
{
    struct chance c = {test_seed()};
    struct watcher *w[INDEXED] = {0};
    struct watch_index ix;
    size_t matches = 0;

    (void)unused;
    watch_index_init(&ix, chance_next(&c));
    assert_true(watch_index_empty(&ix));
    for (int step = 0; step < INDEX_STEPS; step++) {
        size_t i = chance_below(&c, INDEXED), expected = 0, found = 0;
        uint8_t key[3];
        struct t4_slice s = slice_of(key, index_key(&c, key));

        if (w[i] != NULL) {
            watch_index_remove(&ix, w[i]);
            mem_free(w[i]);
            w[i] = NULL;
        } else {
            w[i] = index_watcher(&c);
            watch_index_add(&ix, w[i]);
        }
        watch_index_match(&ix, s, mark, &found);
        for (i = 0; i < INDEXED; i++)
            if (w[i] != NULL) {
                bool match = covers(w[i], s);

                assert_int_equal(w[i]->id, match);
                w[i]->id = 0;
                expected += match;
            }
        assert_int_equal(found, expected); /* and nobody who has left */
        matches += found;
    }
    assert_true(matches > INDEX_STEPS);
    for (int i = 0; i < INDEXED; i++)
        if (w[i] != NULL) {
            watch_index_remove(&ix, w[i]);
            mem_free(w[i]);
        }
    assert_true(watch_index_empty(&ix));
    watch_index_free(&ix);
}

/* --- many watchers of one stream, one large revision -------------------------------------- */

static void
put_all(struct watch_bed *b, size_t bytes)
{
    struct change change[BED_KEYS];

    for (int i = 0; i < BED_KEYS; i++)
        change[i] = (struct change){i, false, bytes};
    bed_entry(b, change, BED_KEYS);
    bed_write(b);
    bed_publish(b);
}

/*
 * A client that does not read may hold the bound and what one watcher needs of one revision;
 * not that of all watchers that found room for its first event.
 */
static void
test_one_revision_for_many(void **unused)
{
    enum { WATCHERS = 300, ROUNDS = 12 };
    struct watch_bed *b = watch_bed_new();
    struct client *reader, *c;
    struct watched *w[WATCHERS], *live;
    int64_t backlog, most = 0;

    (void)unused;
    b->options.stream_backlog_bytes = 16 * 1024;
    watch_bed_start(b);
    reader = client_open(b, true);
    live = client_watch(reader, "k00 *", NULL);
    c = client_open(b, true);
    for (int i = 0; i < WATCHERS; i++)
        w[i] = client_watch(c, i % 3 == 0 ? "k00 *" : "k00 k30",
                            &(struct watch_create){.prev_kv = i % 2 != 0});
    client_settle(c);
    client_stop_reading(c);
    for (int i = 0; i < ROUNDS; i++) {
        put_all(b, 300 + (size_t)i);
        client_settle(reader);
        backlog = metric_get(&b->metrics, METRIC_WATCH_BACKLOG);
        most = backlog > most ? backlog : most;
    }
    /* largest: with previous values and what an event takes around it, more than enough */
    print_message(
        "# %d watchers of one stream: %lld bytes waited, largest revision %lld\n",
        WATCHERS, (long long)most, (long long)b->largest);
    assert_true(most >= 16 * 1024);
    assert_true(most <= 16 * 1024 + b->largest);
    client_read(c);
    client_settle(c);
    assert_int_equal(live->events, ROUNDS * BED_KEYS);
    for (int i = 0; i < WATCHERS; i++)
        assert_int_equal(w[i]->events, ROUNDS * (i % 3 == 0 ? BED_KEYS : 30));
    client_close(c);
    client_close(reader);
    watch_bed_free(b);
}

/* The same with chance: whoever has to give back what it was given misses nothing of it. */
static void
test_small_bound(void **unused)
{
    enum { CLIENTS = 3, WATCHERS = 40, STEPS = 1500 };
    struct watch_bed *b = watch_bed_new();
    struct client *c[CLIENTS];
    struct chance *r = &b->chance;

    (void)unused;
    b->options.stream_backlog_bytes = 4096;
    b->options.fragment_bytes = 900;
    watch_bed_start(b);
    for (int k = 0; k < CLIENTS; k++) {
        c[k] = client_open(b, true);
        for (int i = 0; i < WATCHERS; i++) {
            int lo = (int)chance_below(r, BED_KEYS - 1);
            int hi = lo + 1 + (int)chance_below(r, (uint64_t)(BED_KEYS - lo));
            char range[16];

            snprintf(range, sizeof range, "k%02d k%02d", lo, hi);
            client_watch(c[k], range,
                         &(struct watch_create){.prev_kv = chance_below(r, 2),
                                                .fragment = chance_below(r, 3) == 0,
                                                .no_put = chance_below(r, 8) == 0,
                                                .no_delete = chance_below(r, 8) == 0});
        }
    }
    for (int i = 0; i < STEPS; i++) {
        struct client *one = c[chance_below(r, CLIENTS)];

        switch (chance_below(r, 5)) {
        case 0: client_stop_reading(one); break;
        case 1: client_read(one); break;
        case 2: client_report(one); break;
        default:
            bed_random_entry(b, r);
            if (chance_below(r, 2) == 0)
                bed_random_entry(b, r);
            bed_write(b);
            bed_publish(b);
            break;
        }
    }
    for (int k = 0; k < CLIENTS; k++)
        client_read(c[k]);
    for (int k = 0; k < CLIENTS; k++) {
        client_settle(c[k]);
        client_close(c[k]);
    }
    assert_true(b->saw_unsynced);
    watch_bed_free(b);
}

/*
 * Clients that do not read, each of a key of its own, so that they share nothing: together they
 * hold no more than all streams may, and the one that reads has everything meanwhile.
 */
static void
test_memory_of_all_streams(void **unused)
{
    enum { STREAMS = 40, ROUNDS = 60, VALUE = 2000 };
    struct watch_bed *b = watch_bed_new();
    struct client *reader, *c[STREAMS];
    struct watched *live, *w[STREAMS];
    int64_t memory, most = 0, revision;

    (void)unused;
    b->options.memory_bytes = 256 * 1024;
    watch_bed_start(b);
    reader = client_open(b, true);
    live = client_watch(reader, "k00 *", NULL);
    for (int i = 0; i < STREAMS; i++) {
        char key[16];

        snprintf(key, sizeof key, "k%02d", i);
        c[i] = client_open(b, true);
        w[i] = client_watch(c[i], key, NULL);
        client_settle(c[i]);
        client_stop_reading(c[i]);
    }
    for (int n = 0; n < ROUNDS; n++)
        for (int i = 0; i < STREAMS; i++) {
            bed_put(b, i, VALUE);
            memory = metric_get(&b->metrics, METRIC_WATCH_MEMORY);
            most = memory > most ? memory : most;
        }
    client_settle(reader);
    assert_int_equal(live->events, STREAMS * ROUNDS);
    revision = b->largest + 1024; /* with what is around it */
    print_message("# %d streams held %lld bytes at most\n", STREAMS, (long long)most);
    assert_true(most > 128 * 1024);
    assert_true(most <= 256 * 1024 + STREAMS * ((int64_t)WATCH_STREAM_SHARE + revision));
    for (int i = 0; i < STREAMS; i++) {
        client_read(c[i]);
        client_settle(c[i]);
        assert_int_equal(w[i]->events, ROUNDS);
        client_close(c[i]);
    }
    client_barrier(reader);
    assert_int_equal(metric_get(&b->metrics, METRIC_WATCH_MEMORY), 0);
    client_close(reader);
    watch_bed_free(b);
}

/* --- counters: clients that only count ------------------------------------------------------ */

struct counter {
    struct watch_stream *stream;
    struct watch_bed *bed;
    int64_t created, canceled, events, newest, messages; /* [bed's lock] */
    int64_t compacted;                                   /* [bed's lock] of a cancel */
    int64_t last_id;                 /* [bed's lock] of the newest answer */
    bool in_order, closed;           /* [bed's lock] answers by rising id */
    int64_t wanted, *of;             /* what counter_wait() waits for */
    void (*each)(struct counter *c); /* on the hub's thread, or NULL */
};

static void
counter_send(void *arg, struct chain *message, bool more)
{
    struct counter *c = arg;
    uint8_t *bytes = mem_alloc(message->length);
    Etcdserverpb__WatchResponse *r;

    (void)more;
    chain_copy(message, bytes);
    r = etcdserverpb__watch_response__unpack(NULL, message->length, bytes);
    chain_free(message);
    mem_free(bytes);
    mutex_lock(&c->bed->lock);
    if (r->created || r->canceled) {
        c->in_order &= r->watch_id > c->last_id;
        c->last_id = r->watch_id;
    }
    c->created += r->created;
    c->canceled += r->canceled;
    c->compacted += r->compact_revision;
    c->messages++;
    c->events += (int64_t)r->n_events;
    if (r->n_events > 0)
        c->newest = r->events[r->n_events - 1]->kv->mod_revision;
    condition_broadcast(&c->bed->changed);
    mutex_unlock(&c->bed->lock);
    etcdserverpb__watch_response__free_unpacked(r, NULL);
    if (c->each != NULL)
        c->each(c);
    watch_stream_sent(c->stream);
}

static void
counter_end(void *arg, int error)
{
    (void)arg;
    (void)error;
}

static void
counter_closed(void *arg)
{
    struct counter *c = arg;

    mutex_lock(&c->bed->lock);
    c->closed = true;
    condition_broadcast(&c->bed->changed);
    mutex_unlock(&c->bed->lock);
}

static void
counter_open(struct watch_bed *b, struct counter *c)
{
    static const struct watch_transport transport = {counter_send, counter_end,
                                                     counter_closed};

    *c = (struct counter){.bed = b, .last_id = -1, .in_order = true};
    c->stream = watch_stream_open(b->hub, &transport, c);
}

static bool
counter_has(void *arg)
{
    struct counter *c = arg;

    return *c->of >= c->wanted;
}

static void
counter_wait(struct counter *c, int64_t *of, int64_t wanted)
{
    c->of = of;
    c->wanted = wanted;
    bed_wait(c->bed, "a counter", counter_has, c);
}

static bool
counter_is_closed(void *arg)
{
    return ((struct counter *)arg)->closed;
}

static void
counter_close(struct counter *c)
{
    watch_stream_close(c->stream);
    bed_wait(c->bed, "closed()", counter_is_closed, c);
}

/* 0: all of one key; 1: ranges, from the past; 2: ranges, with ids of the client's. */
static void
many_watchers(struct watch_bed *b, int64_t n, int round)
{
    int64_t first_id = round == 2 ? 1000000 : 0, events = round == 1 ? 2 * n : n;
    struct counter c;

    counter_open(b, &c);
    for (int64_t i = 0; i < n; i++) {
        struct watch_create o = {.key = slice_str("k01"),
                                 .start_revision = round == 1 ? b->revision : 0,
                                 .watch_id = round == 2 ? first_id + i : 0};

        if (round > 0)
            o.range_end = i % 2 ? slice_of("", 1) : slice_str("k02");
        watch_stream_create(c.stream, &o);
    }
    counter_wait(&c, &c.created, n);
    assert_true(c.in_order);
    watch_stream_create(c.stream, &(struct watch_create){.key = slice_str("k01")});
    counter_wait(&c, &c.canceled, 1); /* one too many */
    assert_int_equal(c.last_id, -1);
    bed_put(b, 1, 10);
    counter_wait(&c, &c.events, events);
    mutex_lock(&b->lock);
    c.in_order = true;
    mutex_unlock(&b->lock);
    for (int64_t i = 0; i < n; i++)
        watch_stream_cancel(c.stream, first_id + i);
    counter_wait(&c, &c.canceled, n + 1);
    assert_true(c.in_order);
    assert_int_equal(metric_get(&b->metrics, METRIC_WATCHERS), 0);
    bed_put(b, 1, 10);
    counter_close(&c);
    assert_int_equal(c.events, events);
}

static void
test_many_watchers_of_a_stream(void **unused)
{
    struct watch_bed *b = watch_bed_new();

    (void)unused;
    b->options.watchers_per_stream = 10000;
    watch_bed_start(b);
    bed_put(b, 1, 10);
    for (int round = 0; round < 3; round++)
        many_watchers(b, 10000, round);
    watch_bed_free(b);
}

static void
test_many_streams(void **unused)
{
    enum { STREAMS = 1000 };
    struct watch_bed *b = watch_bed_new();
    struct counter *c = mem_alloc(STREAMS * sizeof *c);

    (void)unused;
    watch_bed_start(b);
    for (int i = 0; i < 100; i++)
        bed_put(b, 1, 10);
    for (int i = 0; i < STREAMS; i++) {
        counter_open(b, &c[i]);
        watch_stream_create(c[i].stream,
                            &(struct watch_create){.key = slice_str("k01"),
                                                   .start_revision = i % 2 ? 2 : 0});
    }
    for (int i = 0; i < STREAMS; i++)
        counter_wait(&c[i], &c[i].created, 1);
    bed_put(b, 1, 10);
    for (int i = 0; i < STREAMS; i++)
        counter_wait(&c[i], &c[i].events, i % 2 ? 101 : 1);
    for (int i = 0; i < STREAMS; i++)
        watch_stream_close(c[i].stream);
    for (int i = 0; i < STREAMS; i++)
        bed_wait(b, "closed()", counter_is_closed, &c[i]);
    for (int i = 0; i < STREAMS; i++)
        assert_int_equal(c[i].events, i % 2 ? 101 : 1);
    mem_free(c);
    watch_bed_free(b);
}

/* --- catching up while the log grows at every turn ------------------------------------------- */

#define BEHIND 20000
#define GROWTH 600
#define ROUNDS_MAX 120

static struct {
    struct counter live, behind;
    int rounds;
    bool over; /* [bed's lock] */
} load;

/* The hub's thread: whenever it is at the end of the log, the log grows by some slices. */
static void
grow(struct counter *c)
{
    struct watch_bed *b = c->bed;
    bool go;

    mutex_lock(&b->lock);
    go = c->newest == b->published && !load.over;
    /* the second has been given all, but for what came since it was */
    if (go &&
        (load.behind.newest > b->published - 3 * GROWTH || load.rounds == ROUNDS_MAX)) {
        load.over = true;
        go = false;
        condition_broadcast(&b->changed);
    }
    mutex_unlock(&b->lock);
    if (!go)
        return;
    load.rounds++;
    for (int i = 0; i < GROWTH; i++) {
        bed_entry(b, &(struct change){1, false, 20}, 1);
        if (i % 50 == 49)
            bed_write(b);
    }
    bed_publish(b);
}

static bool
load_is_over(void *arg)
{
    (void)arg;
    return load.over;
}

static void
test_catches_up_under_load(void **unused)
{
    struct watch_bed *b = watch_bed_new();

    (void)unused;
    memset(&load, 0, sizeof load);
    watch_bed_start(b);
    for (int i = 0; i < BEHIND; i++) {
        bed_entry(b, &(struct change){2, false, 20}, 1);
        if (i % 50 == 49)
            bed_write(b);
    }
    bed_publish(b);
    counter_open(b, &load.live);
    counter_open(b, &load.behind);
    watch_stream_create(load.live.stream,
                        &(struct watch_create){.key = slice_str("k01")});
    counter_wait(&load.live, &load.live.created, 1);
    watch_stream_create(load.behind.stream,
                        &(struct watch_create){.key = slice_str("k00"),
                                               .range_end = slice_of("", 1),
                                               .start_revision = 2});
    counter_wait(&load.behind, &load.behind.created, 1);
    load.live.each = grow;
    bed_put(b, 1, 20);
    bed_wait(b, "the end of the load", load_is_over, NULL);
    print_message("# caught up with %d entries in %d rounds of %d more\n", BEHIND,
                  load.rounds, GROWTH);
    assert_true(load.rounds < ROUNDS_MAX);
    counter_wait(&load.behind, &load.behind.events, BEHIND + 1 + load.rounds * GROWTH);
    counter_close(&load.live);
    counter_close(&load.behind);
    assert_int_equal(load.behind.events, BEHIND + 1 + load.rounds * GROWTH);
    watch_bed_free(b);
}

/* --- a compaction in the middle of a pass ----------------------------------------------------- */

static struct {
    struct counter first, second;
} overtaken;

/* The hub's thread, on the first watcher's messages: created, a slice, another slice... */
static void
compact_behind(struct counter *c)
{
    struct watch_create o = {.key = slice_str("k02"), .start_revision = 3000};
    struct watch_bed *b = c->bed;

    if (c->messages == 2) /* it joins the pass, which is not far behind its start */
        watch_stream_create(overtaken.second.stream, &o);
    if (c->messages == 3) {
        bed_compaction(b, 2500);
        bed_write(b);
        bed_publish(b);
    }
}

static void
test_compaction_overtakes_a_pass(void **unused)
{
    struct watch_bed *b = watch_bed_new();
    struct counter *first = &overtaken.first, *second = &overtaken.second;

    (void)unused;
    watch_bed_start(b);
    for (int i = 0; i < 6000; i++) { /* revisions 2 to 6001 */
        bed_entry(b, &(struct change){2, false, 20}, 1);
        if (i % 50 == 49)
            bed_write(b);
    }
    bed_publish(b);
    counter_open(b, second);
    counter_open(b, first);
    first->each = compact_behind;
    watch_stream_create(first->stream, &(struct watch_create){.key = slice_str("k02"),
                                                              .start_revision = 2});
    counter_wait(first, &first->canceled, 1);
    counter_wait(second, &second->events, 3002);
    bed_put(b, 2, 1);
    counter_wait(second, &second->events, 3003);
    assert_int_equal(first->compacted, 2500);
    assert_true(first->events > 0 && first->newest < 2500);
    counter_close(first);
    counter_close(second);
    assert_int_equal(first->canceled, 1);
    assert_int_equal(second->canceled, 0);
    assert_int_equal(second->events, 3003);
    watch_bed_free(b);
}

/* --- progress and watchers of the future ------------------------------------------------------- */

/* No answer while a watcher has not reached its start; one as soon as none is left. */
static void
test_progress_with_future(void **unused)
{
    struct watch_bed *b = watch_bed_new();
    struct watched *far, *farther, *near;
    struct client *c;

    (void)unused;
    watch_bed_start(b);
    c = client_open(b, true);
    client_watch(c, "k01", NULL);
    far = client_watch(c, "k01", FROM(1000));
    farther = client_watch(c, "k02", FROM(2000));
    near = client_watch(c, "k01", FROM(5));
    client_settle(c);
    watch_stream_progress(c->stream);
    client_cancel(c, farther);
    watch_stream_progress(c->stream);
    client_cancel(c, far);
    watch_stream_progress(c->stream);
    client_barrier(c);
    assert_int_equal(c->n_progress, 0);
    for (int i = 0; i < 4; i++) /* to revision 5 */
        bed_put(b, 1, 1);
    client_settle(c);
    assert_int_equal(near->events, 1);
    client_progress(c);
    client_barrier(c);
    assert_int_equal(c->n_progress, 1);
    far = client_watch(c, "k01", FROM(7));
    client_settle(c);
    watch_stream_progress(c->stream);
    client_barrier(c);
    assert_int_equal(c->n_progress, 1);
    client_cancel(c, far);
    client_progress(c);
    client_barrier(c);
    assert_int_equal(c->n_progress, 2);
    client_close(c);
    watch_bed_free(b);
}

/* --- a hub that has failed ------------------------------------------------------------------------ */

static _Atomic uint64_t clock_reads;

static uint64_t
counted_boot_ns(void *state)
{
    atomic_fetch_add(&clock_reads, 1);
    return env_posix()->boot_ns(state);
}

static bool
has_failed(void *arg)
{
    return ((struct watch_bed *)arg)->failures > 0;
}

static bool
has_ended(void *arg)
{
    return ((struct client *)arg)->ended != 0;
}

/* It waits to be stopped, and does not look at its clock all the time because of timers. */
static void
test_failed_hub_sleeps(void **unused)
{
    struct watch_bed *b = watch_bed_new();
    struct env env = *env_posix();
    struct wal_group group = {0};
    struct buffer bytes = {0};
    struct error error;
    struct client *c;
    uint64_t synced, reads;

    (void)unused;
    env.boot_ns = counted_boot_ns;
    b->options.env = &env;
    b->options.progress_interval_ns = 1000000;
    watch_bed_start(b);
    c = client_open(b, true);
    client_watch(c, "k01", &(struct watch_create){.progress_notify = true});
    bed_put(b, 1, 1);
    client_settle(c);
    /* A whole frame; but what should be a change is none. */
    entry_encode_head(&bytes, &(struct entry){.index = b->index + 1,
                                              .term = 1,
                                              .revision = b->revision + 1,
                                              .kind = ENTRY_NORMAL,
                                              .mutations = 1});
    buffer_append(&bytes, "\xff\xff\xff\xff\xff\xff\xff\xff", 8);
    wal_group_add(&group, b->index + 1, b->revision + 1, buffer_slice(&bytes));
    buffer_free(&bytes);
    if (wal_write(b->wal, &group, &error) != T4_OK)
        fail_msg("%s", error.message);
    assert_int_equal(wal_sync(b->wal, &synced, &error), T4_OK);
    wal_group_free(&group);
    watch_hub_publish(b->hub, b->index + 1, b->revision + 1, 0);
    bed_wait(b, "the report", has_failed, b);
    bed_wait(b, "the end", has_ended, c);
    assert_int_equal(c->ended, ETCD_READ_FAILED);
    client_close(c); /* by now the turn of the failure is over */
    reads = atomic_load(&clock_reads);
    for (int i = 0; i < 500; i++) {
        c = client_open(b, true);
        bed_wait(b, "the end", has_ended, c);
        client_close(c);
    }
    assert_int_equal(atomic_load(&clock_reads), reads);
    watch_bed_free(b);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_index),
        cmocka_unit_test(test_one_revision_for_many),
        cmocka_unit_test(test_small_bound),
        cmocka_unit_test(test_memory_of_all_streams),
        cmocka_unit_test(test_many_watchers_of_a_stream),
        cmocka_unit_test(test_many_streams),
        cmocka_unit_test(test_catches_up_under_load),
        cmocka_unit_test(test_compaction_overtakes_a_pass),
        cmocka_unit_test(test_progress_with_future),
        cmocka_unit_test(test_failed_hub_sleeps),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

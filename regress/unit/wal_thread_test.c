/*
 * wal_thread_test.c - the log used by several threads at once, on real files.
 *
 * One thread writes and syncs, one prepares segments, several read: some follow from the
 * beginning, some open again and again at a recent revision.  Meant to be run under
 * ThreadSanitizer, too.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <setjmp.h>

#include <cmocka.h>

#include "env/thread.h"
#include "scratch.h"
#include "wal_world.h"

#define ENTRIES 3000u
#define FOLLOWERS 2u
#define OPENERS 2u

struct shared {
    struct wal *wal;
    struct mutex lock;
    struct condition changed;
    uint64_t committed; /* [lock] */
    bool wants;         /* [lock] the segment ahead was used up */
    bool done;          /* [lock] */
    _Atomic unsigned wrong;
};

static size_t
size_of(uint64_t index)
{
    return 1 + index * 131 % 1500;
}

static void
check_entry(struct shared *s, uint64_t index, struct t4_slice entry)
{
    struct buffer expected = {0};

    world_entry(&expected, index, index, size_of(index));
    if (!slice_equal(entry, buffer_slice(&expected)))
        s->wrong++;
    buffer_free(&expected);
}

static void *
write_entries(void *arg)
{
    struct shared *s = arg;
    struct wal_group g = {0};
    struct buffer entry = {0};
    uint64_t index = 0, synced;

    while (index < ENTRIES) {
        wal_group_clear(&g);
        for (unsigned n = 0; n < 1 + index % 20 && index < ENTRIES; n++) {
            index++;
            buffer_clear(&entry);
            world_entry(&entry, index, index, size_of(index));
            if (wal_reserve(s->wal, wal_frame_size(entry.len), false) != T4_OK)
                s->wrong++;
            wal_group_add(&g, index, world_revision(index), buffer_slice(&entry));
        }
        if (wal_write(s->wal, &g, NULL) != T4_OK ||
            wal_sync(s->wal, &synced, NULL) != T4_OK || synced != index)
            s->wrong++;
        if (index % 7 == 0 && wal_mark(s->wal, NULL) != T4_OK)
            s->wrong++;
        mutex_lock(&s->lock);
        s->committed = synced;
        s->wants = wal_wants_segment(s->wal);
        condition_broadcast(&s->changed);
        mutex_unlock(&s->lock);
    }
    mutex_lock(&s->lock);
    s->done = true;
    condition_broadcast(&s->changed);
    mutex_unlock(&s->lock);
    wal_group_free(&g);
    buffer_free(&entry);
    return NULL;
}

static void *
prepare_segments(void *arg)
{
    struct shared *s = arg;
    bool done = false;

    while (!done) {
        mutex_lock(&s->lock);
        while (!s->wants && !s->done)
            condition_wait(&s->changed, &s->lock);
        s->wants = false;
        done = s->done;
        mutex_unlock(&s->lock);
        if (wal_wants_segment(s->wal) && wal_prepare(s->wal, NULL) != T4_OK)
            s->wrong++;
        wal_segments(s->wal);
    }
    return NULL;
}

static uint64_t
wait_for(struct shared *s, uint64_t above)
{
    uint64_t committed;

    mutex_lock(&s->lock);
    while (s->committed <= above && !s->done)
        condition_wait(&s->changed, &s->lock);
    committed = s->committed;
    mutex_unlock(&s->lock);
    return committed;
}

static void *
follow(void *arg)
{
    struct shared *s = arg;
    struct wal_reader *r;
    uint64_t next = 1;

    if (wal_reader_open(s->wal, 1, &r, NULL) != T4_OK) {
        s->wrong++;
        return NULL;
    }
    while (next <= ENTRIES) {
        uint64_t limit = wait_for(s, next - 1), index;
        struct t4_slice entry;

        for (; next <= limit; next++) {
            if (wal_reader_next(r, limit, &index, &entry, NULL) != T4_OK ||
                index != next) {
                s->wrong++;
                goto out;
            }
            check_entry(s, index, entry);
        }
        if (wal_reader_next(r, limit, &index, &entry, NULL) != T4_E_NOTFOUND)
            s->wrong++;
    }
out:
    wal_reader_close(r);
    return NULL;
}

static void *
open_recent(void *arg)
{
    struct shared *s = arg;
    uint64_t seen = 0;

    while (seen < ENTRIES) {
        uint64_t limit = wait_for(s, seen), index;
        int64_t revision = world_revision(limit > 30 ? limit - 30 : 1);
        struct wal_reader *r;
        struct t4_slice entry;
        struct error error;

        seen = limit;
        if (wal_reader_open(s->wal, revision, &r, &error) != T4_OK) {
            s->wrong++;
            continue;
        }
        if (wal_reader_next(r, limit, &index, &entry, &error) != T4_OK ||
            world_revision(index) != revision)
            s->wrong++;
        else
            check_entry(s, index, entry);
        wal_reader_close(r);
    }
    return NULL;
}

static t4_status
count(void *arg, uint64_t index, struct t4_slice entry, struct error *error)
{
    uint64_t *n = arg;

    (void)entry;
    (void)error;
    assert_int_equal(index, ++*n);
    return T4_OK;
}

static void
many_threads(void **state)
{
    struct thread threads[2 + FOLLOWERS + OPENERS];
    char dir[SCRATCH_ROOM], log[SCRATCH_ROOM + 8];
    struct wal_options options = {.env = env_posix(),
                                  .dir = log,
                                  .cluster_id = 1,
                                  .lineage = 1,
                                  .segment_bytes = 65536,
                                  .reserve_bytes = 100000};
    struct wal_recovered recovered;
    struct shared s = {0};
    struct error error = {0};
    unsigned n = 0;
    uint64_t replayed = 0;

    (void)state;
    scratch_make(dir, sizeof dir, "t4-wal-test");
    snprintf(log, sizeof log, "%s/wal", dir);
    mutex_init(&s.lock);
    condition_init(&s.changed);
    assert_int_equal(wal_open(&options, 0, NULL, NULL, &s.wal, &recovered, &error),
                     T4_OK);
    assert_int_equal(wal_start(s.wal, 1, 1, &error), T4_OK);
    assert_int_equal(wal_prepare(s.wal, &error), T4_OK);
    thread_start(&threads[n++], "writer", write_entries, &s);
    thread_start(&threads[n++], "prepare", prepare_segments, &s);
    for (unsigned i = 0; i < FOLLOWERS; i++)
        thread_start(&threads[n++], "follower", follow, &s);
    for (unsigned i = 0; i < OPENERS; i++)
        thread_start(&threads[n++], "opener", open_recent, &s);
    while (n > 0)
        thread_join(&threads[--n]);
    assert_int_equal(s.wrong, 0);
    assert_true(wal_segments(s.wal) > 20);
    wal_close(s.wal);

    assert_int_equal(wal_open(&options, 0, count, &replayed, &s.wal, &recovered, &error),
                     T4_OK);
    assert_int_equal(replayed, ENTRIES);
    assert_int_equal(recovered.last_index, ENTRIES);
    assert_false(recovered.torn);
    wal_close(s.wal);
    condition_destroy(&s.changed);
    mutex_destroy(&s.lock);
    scratch_remove(dir);
}

int
main(void)
{
    /* More than once: threads meet in other places each time. */
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(many_threads),
        cmocka_unit_test(many_threads),
        cmocka_unit_test(many_threads),
        cmocka_unit_test(many_threads),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

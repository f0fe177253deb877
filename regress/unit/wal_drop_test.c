/*
 * wal_drop_test.c - dropping the oldest segments of the log.
 *
 * A crash at every operation of it, on a simulated disk, leaves a log that opens at the flushed
 * index and goes on; a reader keeps what it has still to read; what the engine has not flushed is
 * never dropped.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>

#include "wal_world.h"

#define SEGMENTS 7

/* A log of some segments, three entries in each. */
static void
fill(struct world *w)
{
    world_init(w, simdisk_new(1));
    assert_int_equal(world_boot(w, 0), T4_OK);
    while (wal_segments(w->wal) < SEGMENTS) {
        assert_int_equal(world_write(w, SIZES(19000, 19000, 19000)), T4_OK);
        assert_int_equal(world_sync(w), T4_OK);
    }
}

static t4_status
drop(struct world *w, uint64_t index, uint64_t keep)
{
    simdisk_phase(w->disk, "drop");
    return wal_drop_below(w->wal, index, keep, &w->error);
}

static void
drops_what_it_may(void **state)
{
    struct wal_reader *r;
    struct world w;
    uint64_t before;

    (void)state;
    fill(&w);
    assert_int_equal(drop(&w, 0, 0), T4_OK);
    assert_int_equal(wal_segments(w.wal), SEGMENTS);
    assert_int_equal(drop(&w, w.count, UINT64_MAX), T4_OK);
    assert_int_equal(wal_segments(w.wal), SEGMENTS);
    assert_int_equal(drop(&w, w.count, 4 * WORLD_SEGMENT), T4_OK);
    assert_int_equal(wal_segments(w.wal), 4);
    assert_int_equal(wal_reader_open_at(w.wal, 1, &r, &w.error), T4_E_NOTFOUND);
    assert_int_equal(wal_reader_open(w.wal, 1, &r, &w.error), T4_E_NOTFOUND);
    /* The one with an entry above the index stays, and all behind it. */
    assert_int_equal(drop(&w, w.count - 7, 0), T4_OK);
    before = wal_segments(w.wal);
    assert_true(before >= 3);
    assert_int_equal(world_open(&w, w.count - 7), T4_OK);
    assert_string_equal(w.why, "");
    world_free(&w);
}

static void
goes_on_after_dropping(void **state)
{
    struct world w;

    (void)state;
    fill(&w);
    assert_int_equal(drop(&w, w.count, 0), T4_OK);
    assert_int_equal(wal_segments(w.wal), 1);
    for (unsigned i = 0; i < 5; i++) {
        assert_int_equal(world_prepare(&w), T4_OK);
        assert_int_equal(world_write(&w, SIZES(30000, 30000, 500)), T4_OK);
        assert_int_equal(world_sync(&w), T4_OK);
    }
    assert_int_equal(drop(&w, w.count - 4, 0), T4_OK);
    assert_int_equal(world_boot(&w, w.count - 4), T4_OK);
    assert_int_equal(world_write(&w, SIZES(30000, 30000, 500)), T4_OK);
    assert_int_equal(world_sync(&w), T4_OK);
    assert_int_equal(drop(&w, w.count - 2, 0), T4_OK);
    assert_int_equal(world_open(&w, w.count - 2), T4_OK);
    assert_string_equal(w.why, "");
    world_free(&w);
}

static void
readers_keep_what_they_read(void **state)
{
    struct wal_reader *r, *other;
    struct world w;
    struct t4_slice entry;
    uint64_t index, at = 1;

    (void)state;
    fill(&w);
    assert_int_equal(wal_reader_open(w.wal, 1, &r, &w.error), T4_OK);
    assert_int_equal(wal_reader_open_at(w.wal, w.count, &other, &w.error), T4_OK);
    while (wal_reader_next(r, UINT64_MAX, &index, &entry, &w.error) == T4_OK) {
        assert_int_equal(index, at++);
        assert_true(slice_equal(entry, buffer_slice(&w.entries[index - 1])));
        assert_int_equal(drop(&w, w.count, 0), T4_OK);
        assert_true(wal_segments(w.wal) >= SEGMENTS - (index - 1) / 3);
    }
    assert_int_equal(at, w.count + 1);
    wal_reader_close(r);
    wal_reader_close(other);
    assert_int_equal(drop(&w, w.count, 0), T4_OK);
    assert_int_equal(wal_segments(w.wal), 1);
    world_free(&w);
}

/* Also when the segment it stands in is full, and the one behind it has none yet. */
static void
the_newest_entry_stays(void **state)
{
    struct wal_reader *r;
    struct world w;

    (void)state;
    fill(&w);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(world_boot(&w, 0), T4_OK);
        assert_int_equal(wal_start(w.wal, 9, 100 + (uint64_t)i, &w.error), T4_OK);
    }
    assert_int_equal(drop(&w, w.count, 0), T4_OK);
    assert_int_equal(wal_reader_open_at(w.wal, w.count, &r, &w.error), T4_OK);
    wal_reader_close(r);
    assert_int_equal(world_open(&w, w.count - 1), T4_OK);
    assert_string_equal(w.why, "");
    world_free(&w);
}

/* Crashes at every operation of dropping, with every image that may be left. */
static bool
survives(const char *ignored, char *why, uint64_t *images)
{
    bool done = false;

    for (uint64_t n = 1; !done && why[0] == '\0'; n++) {
        struct world w;
        unsigned count;

        fill(&w);
        simdisk_ignore(w.disk, ignored);
        simdisk_crash_at(w.disk, simdisk_operations(w.disk) + n);
        done = drop(&w, w.count - 2, 0) == T4_OK;
        count = simdisk_images(w.disk);
        for (unsigned i = 0; i <= count && why[0] == '\0'; i++, (*images)++) {
            struct world r;

            world_clone(&r, &w,
                        i < count ? simdisk_image(w.disk, i) : simdisk_kill(w.disk));
            simdisk_crash_at(r.disk, 0);
            if (world_boot(&r, w.count - 2) == T4_OK &&
                world_write(&r, SIZES(30000, 30000, 500)) == T4_OK &&
                world_sync(&r) == T4_OK && drop(&r, r.count, 0) == T4_OK)
                world_open(&r, r.count);
            snprintf(why, 1200, "%s", r.why);
            world_free(&r);
        }
        world_free(&w);
    }
    return why[0] == '\0';
}

static void
survives_every_crash(void **state)
{
    char why[1200] = "";
    uint64_t images = 0;

    (void)state;
    if (!survives(NULL, why, &images))
        fail_msg("%s", why);
    assert_true(images > 20);
}

/* Without the directory's sync between two deletions a hole may be left. */
static void
needs_its_syncs(void **state)
{
    char why[1200] = "";
    uint64_t images = 0;
    struct world w;
    bool met = false;

    (void)state;
    fill(&w);
    assert_int_equal(drop(&w, w.count - 2, 0), T4_OK);
    for (size_t i = 0; i < simdisk_sites(w.disk); i++) {
        const char *site = simdisk_site(w.disk, i);

        if (strncmp(site, "drop:", 5) != 0)
            continue;
        met = true;
        assert_false(survives(site, why, &images));
    }
    assert_true(met);
    world_free(&w);
}

static void
a_failed_deletion_stops_it(void **state)
{
    struct world w;

    (void)state;
    fill(&w);
    simdisk_fail_at(w.disk, simdisk_operations(w.disk) + 3, T4_E_IO);
    assert_int_equal(drop(&w, w.count, 0), T4_E_IO);
    assert_int_equal(wal_segments(w.wal), SEGMENTS - 1);
    assert_int_equal(drop(&w, w.count, 0), T4_OK);
    assert_int_equal(wal_segments(w.wal), 1);
    assert_int_equal(world_boot(&w, w.count), T4_OK);
    assert_string_equal(w.why, "");
    world_free(&w);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(drops_what_it_may),
        cmocka_unit_test(goes_on_after_dropping),
        cmocka_unit_test(readers_keep_what_they_read),
        cmocka_unit_test(the_newest_entry_stays),
        cmocka_unit_test(survives_every_crash),
        cmocka_unit_test(needs_its_syncs),
        cmocka_unit_test(a_failed_deletion_stops_it),
    };

    return cmocka_run_group_tests_name("wal_drop", tests, NULL, NULL);
}

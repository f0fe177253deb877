/*
 * wal_crash_test.c - the log survives a crash at every operation, in every way a disk may
 * have taken the operations that were not synced.
 *
 * One script uses everything the log does.  It is run once for each of its operations,
 * which is then the last one; each image of the disk that may be left behind is
 * recovered, checked and used on, with a second crash at a random operation.  The same
 * again with each sync of the script ignored in turn: that must be noticed, so no sync
 * can be dropped by accident (and none is there without need).
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

#include "base/memory.h"
#include "wal_world.h"

/* --- the script --- */

#define STEPS 24

/* One step.  Anything but OK ends it; after NOSPACE it may be run again. */
static t4_status
step(struct world *w, unsigned n)
{
    t4_status status = T4_OK;

#define DO(call)                                                                         \
    do {                                                                                 \
        if ((status = (call)) != T4_OK)                                                  \
            return status;                                                               \
    } while (0)

    switch (n) {
    case 0: DO(world_boot(w, 0)); break;
    case 1: DO(world_prepare(w)); break;
    case 2:
        DO(world_write(w, SIZES(40, 100, 300)));
        DO(world_sync(w));
        break;
    case 3:
        DO(world_write(w, SIZES(1000, 10, 5000, 10, 10)));
        DO(world_sync(w));
        break;
    case 4: DO(world_mark(w)); break;
    case 5: /* into the prepared segment and one that is created at once */
        DO(world_write(w, SIZES(20000, 20000, 20000, 20000, 20000, 20000)));
        break;
    case 6: DO(world_sync(w)); break;
    case 7: DO(world_prepare(w)); break;
    case 8: /* kill -9: unsynced frames in two segments, in the page cache only */
        DO(world_write(w, SIZES(70, 20000, 20000, 20000, 70)));
        DO(world_reboot(w, simdisk_kill(w->disk)));
        break;
    case 9:
        DO(world_prepare(w));
        wal_roll(w->wal);
        DO(world_write(w, SIZES(200)));
        DO(world_sync(w));
        break;
    case 10: DO(world_prepare(w)); break;
    case 11: /* bigger than a segment: the prepared one is replaced */
        DO(world_write(w, SIZES(100, 100000, 100)));
        DO(world_sync(w));
        break;
    case 12: DO(world_prepare(w)); break;
    case 13: /* the disk is full in the middle of writing: nothing of it may come back */
        simdisk_fail_next_write(w->disk);
        w->full_from = simdisk_operations(w->disk);
        status = world_write(w, SIZES(300, 300, 300, 300, 3000));
        w->full_to = simdisk_operations(w->disk);
        if (status != T4_E_NOSPACE)
            return status;
        DO(world_write(w, SIZES(300)));
        DO(world_sync(w));
        break;
    case 14: /* torn */
        DO(world_write(w, SIZES(500, 600, 700, 800)));
        DO(world_reboot(w, simdisk_image_torn(w->disk, 5)));
        break;
    case 15: /* frames of the same sizes as those that were left behind */
        DO(world_write(w, SIZES(500, 600, 700, 800)));
        DO(world_sync(w));
        DO(world_prepare(w));
        break;
    case 16: /* the spare segment holds frames, but its start frame is lost */
        DO(world_write(w, SIZES(20000, 20000, 20000, 20000)));
        DO(world_reboot(w, simdisk_image_last(w->disk, 1)));
        break;
    case 17: /* two power cuts in a row */
        DO(world_write(w, SIZES(800, 700)));
        DO(world_reboot(w, simdisk_image_torn(w->disk, 3)));
        DO(world_write(w, SIZES(800, 700)));
        DO(world_reboot(w, simdisk_image_torn(w->disk, 8)));
        break;
    case 18: /* again a spare segment with frames, replaced ahead of need this time */
        DO(world_prepare(w));
        DO(world_write(w, SIZES(20000, 20000, 20000, 20000)));
        DO(world_reboot(w, simdisk_image_last(w->disk, 1)));
        DO(world_prepare(w));
        break;
    case 19:
        DO(world_write(w, SIZES(15000, 15000, 15000, 15000, 15000)));
        DO(world_sync(w));
        break;
    case 20: /* unsynced frames in two segments, the first lost */
        DO(world_prepare(w));
        DO(world_write(w, SIZES(15000, 15000, 15000, 15000, 15000)));
        DO(world_reboot(w, simdisk_image_last(w->disk, 2)));
        break;
    case 21:
        DO(world_write(w, SIZES(15000, 15000, 400)));
        DO(world_sync(w));
        break;
    case 22: DO(world_mark(w)); break;
    case 23:
        DO(world_prepare(w));
        DO(world_write(w, SIZES(10, 20)));
        DO(world_sync(w));
        break;
    }
#undef DO
    return status;
}

/* Runs the script to its end or to the crash. */
static t4_status
run_script(struct world *w)
{
    t4_status status = T4_OK;

    for (unsigned n = 0; n < STEPS && status == T4_OK; n++)
        for (int attempt = 0; attempt < 4; attempt++) {
            status = step(w, n);
            if (status != T4_E_NOSPACE)
                break;
        }
    return status;
}

/* --- checking what is left --- */

/* One flipped bit in the newest entry that a mark covers must be corruption. */
static void
check_mark(struct world *w, const struct simdisk *image)
{
    const struct buffer *entry;
    struct world r;
    char path[64];
    uint8_t *data, *at = NULL;
    size_t size;

    if (w->marked == 0)
        return;
    entry = &w->entries[w->marked - 1];
    world_clone(&r, w, simdisk_kill(image));
    for (unsigned n = 1; n < 64 && at == NULL; n++) {
        snprintf(path, sizeof path, WORLD_DIR "/%016x.wal", n);
        data = simdisk_file(r.disk, path, &size);
        if (data != NULL)
            at = memmem(data, size, entry->data, entry->len);
    }
    if (at != NULL) {
        at[entry->len - 1] ^= 4;
        r.durable = 0;
        if (world_open(&r, 0) != T4_E_CORRUPT ||
            strstr(r.why, "is damaged at offset") == NULL)
            at = NULL;
    }
    if (at == NULL)
        snprintf(w->why, sizeof w->why,
                 "entry %llu was marked durable, but its damage is taken for a torn tail",
                 (unsigned long long)w->marked);
    world_free(&r);
}

/* Uses a recovered log on, up to a crash at an operation (0: none), and once more. */
static void
use_on(struct world *r, uint64_t crash_in, uint64_t random)
{
    struct simdisk *image;

    simdisk_crash_at(r->disk, crash_in > 0 ? simdisk_operations(r->disk) + crash_in : 0);
    if (world_boot(r, 0) == T4_OK && world_prepare(r) == T4_OK &&
        world_write(r, SIZES(50, 30000)) == T4_OK && world_sync(r) == T4_OK &&
        world_write(r, SIZES(30000, 500)) == T4_OK)
        world_sync(r);
    if (r->why[0] != '\0')
        return;
    image = simdisk_image(r->disk, (unsigned)random % simdisk_images(r->disk));
    simdisk_crash_at(image, 0);
    if (world_reboot(r, image) == T4_OK && world_write(r, SIZES(10, 400)) == T4_OK &&
        world_sync(r) == T4_OK && world_reboot(r, simdisk_image(r->disk, 0)) == T4_OK)
        world_read_all(r);
}

/* The image is taken.  False: w->why says what is wrong. */
static bool
check_image(struct world *w, struct simdisk *image, const char *name, uint64_t random)
{
    struct world r;

    world_clone(&r, w, image);
    if (world_open(&r, random % 3 == 0 ? w->durable : 0) == T4_OK) {
        struct world on;

        check_mark(w, image);
        world_clone(&on, &r, simdisk_kill(image));
        use_on(&on, 1 + random % 16, random >> 8);
        if (on.why[0] != '\0')
            snprintf(r.why, sizeof r.why, "used on: %.1000s", on.why);
        world_free(&on);
    }
    if (r.why[0] != '\0' && w->why[0] == '\0')
        snprintf(w->why, sizeof w->why, "crash at operation %llu, %s: %.1000s",
                 (unsigned long long)simdisk_operations(w->disk), name, r.why);
    world_free(&r);
    return w->why[0] == '\0';
}

/*
 * kill -9 at the crash point, then a power cut: what was recovered in between must stay,
 * and what was acknowledged after it.
 */
static bool
check_kill(struct world *w, uint64_t random)
{
    struct world r;

    world_clone(&r, w, simdisk_kill(w->disk));
    if (world_open(&r, 0) == T4_OK)
        world_reboot(&r,
                     simdisk_image(r.disk, (unsigned)random % simdisk_images(r.disk)));
    if (r.why[0] == '\0')
        check_image(&r, simdisk_kill(r.disk), "killed, then a power cut", random);
    if (r.why[0] == '\0') {
        world_free(&r);
        world_clone(&r, w, simdisk_kill(w->disk));
        use_on(&r, 0, 0);
    }
    if (r.why[0] != '\0' && w->why[0] == '\0')
        snprintf(w->why, sizeof w->why, "crash at operation %llu, killed: %.1000s",
                 (unsigned long long)simdisk_operations(w->disk), r.why);
    world_free(&r);
    return w->why[0] == '\0';
}

struct tally {
    uint64_t points, images;
};

/* All images of a stopped world. */
static bool
check_images(struct world *w, struct tally *tally)
{
    unsigned n = simdisk_images(w->disk);
    uint64_t random = simdisk_operations(w->disk) * 2654435761u;

    tally->points++;
    for (unsigned i = 0; i < n && w->why[0] == '\0'; i++) {
        tally->images++;
        check_image(w, simdisk_image(w->disk, i), simdisk_image_name(w->disk, i),
                    random + i);
    }
    tally->images++;
    return w->why[0] == '\0' && check_kill(w, random);
}

/* --- every crash point --- */

/* There is one thread here: under ThreadSanitizer, 20 times as slow, a part will do. */
#ifdef __SANITIZE_THREAD__
#define STRIDE 13
#else
#define STRIDE 1
#endif

/* False: a violation, described in `why` (1200 bytes). */
static bool
every_crash_point(const char *ignored, struct tally *tally, char *why)
{
    bool done = false;

    for (uint64_t n = 1; !done; n += STRIDE) {
        struct world w;
        bool fine;

        world_init(&w, simdisk_new(1));
        simdisk_ignore(w.disk, ignored);
        simdisk_crash_at(w.disk, n);
        done = run_script(&w) == T4_OK;
        if (!done && !simdisk_crashed(w.disk) && w.why[0] == '\0')
            snprintf(w.why, sizeof w.why, "the script ended early: %s", w.error.message);
        fine = w.why[0] == '\0' && check_images(&w, tally);
        if (!fine)
            snprintf(why, 1200, "%s", w.why);
        world_free(&w);
        if (!fine)
            return false;
    }
    return true;
}

static void
survives_every_crash(void **state)
{
    struct tally tally = {0};
    char why[1200] = "";
    bool fine = every_crash_point(NULL, &tally, why);

    (void)state;
    print_message("# %llu crash points, %llu images\n", (unsigned long long)tally.points,
                  (unsigned long long)tally.images);
    if (!fine)
        fail_msg("%s", why);
    assert_true(tally.points > 100 / STRIDE && tally.images > 1000 / STRIDE);
}

static void
script_tears(void **state)
{
    struct world w;

    (void)state;
    world_init(&w, simdisk_new(1));
    assert_int_equal(run_script(&w), T4_OK);
    assert_true(w.torn_boots >= 3);
    assert_true(wal_segments(w.wal) > 6);
    assert_true(world_read_all(&w));
    world_free(&w);
}

#if STRIDE == 1
/* A sync that is left out is noticed. */
static void
needs_every_sync(void **state)
{
    struct world all;
    size_t missed = 0, n;

    (void)state;
    world_init(&all, simdisk_new(1));
    assert_int_equal(run_script(&all), T4_OK);
    n = simdisk_sites(all.disk);
    for (size_t i = 0; i < n; i++) {
        const char *site = simdisk_site(all.disk, i);
        struct tally tally = {0};
        char why[1200] = "";
        bool survived = every_crash_point(site, &tally, why);

        if (survived)
            print_message("# NOT NOTICED without %s\n", site);
        else
            print_message("# without %s: %.160s\n", site, why);
        missed += survived;
    }
    world_free(&all);
    assert_int_equal(missed, 0);
    assert_true(n >= 10);
}
#endif

/* --- failing operations --- */

/* A full disk at any operation refuses, and the log goes on afterwards. */
static void
survives_nospace(void **state)
{
    struct tally tally = {0};
    uint64_t n, last;
    struct world w;

    (void)state;
    world_init(&w, simdisk_new(1));
    assert_int_equal(run_script(&w), T4_OK);
    last = simdisk_operations(w.disk);
    for (n = 1; n <= last; n += STRIDE) {
        struct world v;
        char kind = simdisk_kind(w.disk, n);

        if (kind != 'w' && kind != 'n')
            continue;
        world_init(&v, simdisk_new(1));
        simdisk_fail_at(v.disk, n, T4_E_NOSPACE);
        if (n > w.full_from && n <= w.full_to) {
            /* Already undoing what a full disk left: now the file is in doubt. */
            assert_int_equal(run_script(&v), T4_E_IO);
            assert_int_equal(world_sync(&v), T4_E_IO);
        } else {
            if (run_script(&v) != T4_OK)
                fail_msg("no space at operation %llu: %s", (unsigned long long)n,
                         v.why[0] != '\0' ? v.why : v.error.message);
            assert_int_equal(world_prepare(&v), T4_OK);
            assert_false(wal_nospace(v.wal));
            assert_true(world_read_all(&v));
        }
        if (!check_images(&v, &tally))
            fail_msg("no space at operation %llu: %s", (unsigned long long)n, v.why);
        world_free(&v);
    }
    world_free(&w);
    print_message("# no space at %llu operations\n", (unsigned long long)tally.points);
}

/* An I/O error of a write or a sync ends the log; what was acknowledged stays. */
static void
survives_io_errors(void **state)
{
    struct tally tally = {0};
    uint64_t n, last;
    struct world w;

    (void)state;
    world_init(&w, simdisk_new(1));
    assert_int_equal(run_script(&w), T4_OK);
    last = simdisk_operations(w.disk);
    for (n = 1; n <= last; n += STRIDE) {
        struct world v;

        world_init(&v, simdisk_new(1));
        simdisk_fail_at(v.disk, n, T4_E_IO);
        if (run_script(&v) != T4_E_IO)
            fail_msg("I/O error at operation %llu (%c) went unnoticed: %s",
                     (unsigned long long)n, simdisk_kind(w.disk, n), v.why);
        if (v.wal != NULL && simdisk_kind(w.disk, n) != 'n') {
            assert_int_equal(world_write(&v, SIZES(10)), T4_E_IO);
            assert_int_equal(world_sync(&v), T4_E_IO);
            assert_int_equal(world_mark(&v), T4_E_IO);
            assert_int_equal(wal_prepare(v.wal, NULL), T4_E_IO);
        }
        if (v.why[0] != '\0' || !check_images(&v, &tally))
            fail_msg("I/O error at operation %llu: %s", (unsigned long long)n, v.why);
        world_free(&v);
    }
    world_free(&w);
    print_message("# I/O errors at %llu operations\n", (unsigned long long)tally.points);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(script_tears),
        cmocka_unit_test(survives_every_crash),
#if STRIDE == 1
        cmocka_unit_test(needs_every_sync),
#endif
        cmocka_unit_test(survives_nospace),
        cmocka_unit_test(survives_io_errors),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

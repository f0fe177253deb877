/*
 * wal_test.c - what users of the log rely on: reading back, refusing damage, a full disk.
 *
 * Crashes: wal_crash_test.c.  Threads: wal_thread_test.c.
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
#include "wal/wal_int.h"
#include "wal_world.h"

static void
set_up(struct world *w)
{
    world_init(w, simdisk_new(42));
    assert_int_equal(world_boot(w, 0), T4_OK);
    assert_int_equal(world_prepare(w), T4_OK);
}

static void
put(struct world *w, size_t bytes)
{
    assert_int_equal(world_write(w, SIZES(bytes)), T4_OK);
    assert_int_equal(world_sync(w), T4_OK);
    assert_int_equal(world_prepare(w), T4_OK);
}

/* The same disk after a restart; the log is not started. */
static t4_status
reopen(struct world *w, uint64_t flushed)
{
    w->why[0] = '\0';
    return world_open(w, flushed);
}

static uint8_t *
segment(struct world *w, unsigned number, size_t *size)
{
    char path[64];
    uint8_t *data;

    snprintf(path, sizeof path, WORLD_DIR "/%016x.wal", number);
    data = simdisk_file(w->disk, path, size);
    assert_non_null(data);
    return data;
}

/* Where the bytes of an entry are in a segment; NULL: not there. */
static uint8_t *
find_entry(struct world *w, unsigned number, uint64_t index)
{
    size_t size;
    uint8_t *data = segment(w, number, &size);

    return memmem(data, size, w->entries[index - 1].data, w->entries[index - 1].len);
}

static void
assert_says(const struct world *w, const char *text)
{
    if (strstr(w->error.message, text) == NULL)
        fail_msg("\"%s\" does not say \"%s\"", w->error.message, text);
}

/* --- reading back --- */

/* A reader at each revision begins with the first entry that has it, and goes on. */
static void
check_readers(struct world *w, int64_t step)
{
    int64_t last = world_revision(w->count);

    for (int64_t revision = 1; revision <= last; revision += step) {
        struct wal_reader *r;
        struct t4_slice entry;
        uint64_t index, expected = 1;

        while (world_revision(expected) < revision)
            expected++;
        assert_int_equal(wal_reader_open(w->wal, revision, &r, &w->error), T4_OK);
        for (unsigned n = 0; n < 40 && expected <= w->count; n++, expected++) {
            assert_int_equal(wal_reader_next(r, w->count, &index, &entry, &w->error),
                             T4_OK);
            assert_int_equal(index, expected);
            assert_true(slice_equal(entry, buffer_slice(&w->entries[index - 1])));
        }
        if (expected > w->count)
            assert_int_equal(wal_reader_next(r, w->count, &index, &entry, NULL),
                             T4_E_NOTFOUND);
        wal_reader_close(r);
    }
}

static void
reads_back_by_revision(void **state)
{
    struct world w;

    (void)state;
    set_up(&w);
    for (unsigned i = 0; i < 300; i++)
        put(&w, 50 + i * 37 % 3000);
    assert_true(wal_segments(w.wal) > 5);
    check_readers(&w, 1);
    /* From here on the older segments are known by header and first frame only. */
    assert_int_equal(reopen(&w, w.count), T4_OK);
    check_readers(&w, 7);
    assert_true(world_read_all(&w));
    world_free(&w);
}

static void
reader_follows_the_writer(void **state)
{
    struct wal_reader *r;
    struct t4_slice entry;
    uint64_t index;
    struct world w;

    (void)state;
    set_up(&w);
    assert_int_equal(wal_reader_open(w.wal, 1, &r, &w.error), T4_OK);
    assert_int_equal(wal_reader_next(r, 0, &index, &entry, &w.error), T4_E_NOTFOUND);
    for (unsigned i = 1; i <= 200; i++) {
        assert_int_equal(world_write(&w, SIZES(1000 + i)), T4_OK);
        /* Written, but not committed: the limit holds it back. */
        assert_int_equal(wal_reader_next(r, i - 1, &index, &entry, &w.error),
                         T4_E_NOTFOUND);
        assert_int_equal(world_sync(&w), T4_OK);
        if (i % 3 == 0)
            assert_int_equal(world_mark(&w), T4_OK);
        assert_int_equal(wal_reader_next(r, UINT64_MAX, &index, &entry, &w.error), T4_OK);
        assert_int_equal(index, i);
        assert_true(slice_equal(entry, buffer_slice(&w.entries[i - 1])));
    }
    wal_reader_close(r);
    world_free(&w);
}

static void
opening_at_a_recent_revision_is_cheap(void **state)
{
    struct wal_reader *r;
    struct t4_slice entry;
    uint64_t index, before;
    struct world w;

    (void)state;
    world_init(&w, simdisk_new(42));
    w.options.segment_bytes = 4u << 20;
    assert_int_equal(world_boot(&w, 0), T4_OK);
    for (unsigned i = 0; i < 3000; i++)
        assert_int_equal(world_write(&w, SIZES(1000)), T4_OK);
    assert_int_equal(world_sync(&w), T4_OK);
    before = simdisk_bytes_read(w.disk);
    assert_int_equal(wal_reader_open(w.wal, world_revision(2500), &r, &w.error), T4_OK);
    assert_int_equal(wal_reader_next(r, w.count, &index, &entry, &w.error), T4_OK);
    assert_int_equal(world_revision(index), world_revision(2500));
    assert_true(simdisk_bytes_read(w.disk) - before <= 256 * 1024);
    wal_reader_close(r);
    world_free(&w);
}

static void
old_segments_are_not_read_at_start(void **state)
{
    uint64_t before;
    struct world w;

    (void)state;
    set_up(&w);
    for (unsigned i = 0; i < 1000; i++) {
        wal_roll(w.wal);
        put(&w, 100);
    }
    assert_int_equal(wal_segments(w.wal), 1001);
    before = simdisk_bytes_read(w.disk);
    assert_int_equal(reopen(&w, w.count - 3), T4_OK);
    /* Header and start frame of each; the last four and the spare one whole, twice. */
    assert_true(simdisk_bytes_read(w.disk) - before < 1001 * 4500 + 10 * WORLD_SEGMENT);
    assert_true(world_read_all(&w));
    world_free(&w);
}

static void
entry_bigger_than_a_segment(void **state)
{
    size_t size;
    struct world w;

    (void)state;
    set_up(&w);
    put(&w, 10);
    put(&w, 3 * WORLD_SEGMENT);
    put(&w, 10);
    segment(&w, 2, &size);
    assert_true(size > 3 * WORLD_SEGMENT);
    assert_int_equal(reopen(&w, 0), T4_OK);
    assert_int_equal(w.recovered.last_index, 3);
    assert_true(world_read_all(&w));
    world_free(&w);
}

static void
recovery_tells_where_it_is(void **state)
{
    uint64_t operations;
    struct world w;

    (void)state;
    set_up(&w);
    for (unsigned i = 0; i < 9; i++)
        put(&w, 10);
    assert_int_equal(world_mark(&w), T4_OK);
    operations = simdisk_operations(w.disk);
    assert_int_equal(world_mark(&w), T4_OK);
    assert_int_equal(simdisk_operations(w.disk), operations); /* nothing new to say */
    w.tried_term = 100;
    assert_int_equal(world_boot(&w, 0), T4_OK);
    assert_int_equal(reopen(&w, 0), T4_OK);
    assert_int_equal(w.recovered.last_index, 9);
    assert_int_equal(w.recovered.last_revision, world_revision(9));
    assert_int_equal(w.recovered.last_term, 101);
    assert_int_equal(w.recovered.generation, 50);
    assert_false(w.recovered.torn);
    world_free(&w);
}

static void
group_must_follow_the_log(void **state)
{
    struct buffer entry = {0};
    struct wal_group g = {0};
    struct world w;

    (void)state;
    set_up(&w);
    put(&w, 10);
    world_entry(&entry, 3, 1, 10);
    wal_group_add(&g, 3, world_revision(3), buffer_slice(&entry));
    assert_int_equal(wal_write(w.wal, &g, &w.error), T4_E_INVALID);
    wal_group_free(&g);
    buffer_free(&entry);
    put(&w, 10);
    assert_true(world_read_all(&w));
    world_free(&w);
}

/* --- the engine is ahead of the log --- */

static void
begins_behind_what_the_engine_holds(void **state)
{
    struct wal_reader *r;
    struct t4_slice entry;
    struct wal_group g = {0};
    struct buffer bytes = {0};
    uint64_t index;
    struct world w;

    (void)state;
    set_up(&w);
    put(&w, 10);
    put(&w, 10);
    wal_close(w.wal);
    w.wal = NULL;

    /* The engine says 10, the log ends at 2: it goes on at 11. */
    assert_int_equal(wal_open(&w.options, 10, NULL, NULL, &w.wal, &w.recovered, &w.error),
                     T4_OK);
    assert_int_equal(w.recovered.last_index, 2);
    assert_int_equal(wal_start(w.wal, 1, 9, &w.error), T4_OK);
    assert_int_equal(wal_reader_open(w.wal, 1, &r, &w.error), T4_E_NOTFOUND);
    for (uint64_t i = 11; i <= 13; i++) {
        buffer_clear(&bytes);
        world_entry(&bytes, i, i, 10);
        wal_group_add(&g, i, world_revision(i), buffer_slice(&bytes));
    }
    assert_int_equal(wal_write(w.wal, &g, &w.error), T4_OK);
    assert_int_equal(wal_sync(w.wal, &index, &w.error), T4_OK);
    assert_int_equal(index, 13);

    for (int round = 0; round < 2; round++) {
        /* What came before the gap must not be taken for what came before the rest. */
        assert_int_equal(wal_reader_open(w.wal, 1, &r, &w.error), T4_E_NOTFOUND);
        assert_int_equal(wal_reader_open(w.wal, world_revision(12), &r, &w.error), T4_OK);
        assert_int_equal(wal_reader_next(r, 13, &index, &entry, &w.error), T4_OK);
        assert_int_equal(index, 12);
        wal_reader_close(r);
        wal_close(w.wal);
        assert_int_equal(
            wal_open(&w.options, 13, NULL, NULL, &w.wal, &w.recovered, &w.error), T4_OK);
        assert_int_equal(w.recovered.last_index, 13);
    }
    wal_close(w.wal);
    w.wal = NULL;

    /* Without the engine the gap cannot be filled: refuse, do not skip it. */
    assert_int_equal(wal_open(&w.options, 0, NULL, NULL, &w.wal, &w.recovered, &w.error),
                     T4_E_CORRUPT);
    assert_says(&w, "entries 3 to 10 are missing");
    wal_group_free(&g);
    buffer_free(&bytes);
    world_free(&w);
}

/* --- damage --- */

static void
remove_file(struct world *w, const char *path)
{
    struct env *env = simdisk_env(w->disk);

    assert_int_equal(env->unlink(env->state, path, NULL), T4_OK);
}

static void
missing_segments_are_named(void **state)
{
    struct world w;

    (void)state;
    set_up(&w);
    for (unsigned i = 0; i < 20; i++)
        put(&w, 20000);
    remove_file(&w, WORLD_DIR "/0000000000000003.wal");
    assert_int_equal(reopen(&w, 0), T4_E_CORRUPT);
    assert_says(&w, WORLD_DIR "/0000000000000003.wal");
    assert_non_null(strstr(w.error.hint, "do not delete"));
    assert_int_equal(reopen(&w, w.count), T4_E_CORRUPT);

    remove_file(&w, WORLD_DIR "/0000000000000002.wal");
    remove_file(&w, WORLD_DIR "/0000000000000001.wal");
    assert_int_equal(reopen(&w, 0), T4_E_CORRUPT);
    assert_says(&w, "entries 1 to 9 are missing");
    assert_int_equal(reopen(&w, w.count), T4_OK);
    world_free(&w);
}

static void
foreign_files_are_refused(void **state)
{
    struct env *env;
    size_t size;
    struct world w;

    (void)state;
    set_up(&w);
    put(&w, 10);
    w.options.cluster_id++;
    assert_int_equal(reopen(&w, 0), T4_E_INVALID);
    assert_says(&w, "1122334455667788");
    w.options.cluster_id--;
    w.options.lineage++;
    assert_int_equal(reopen(&w, 0), T4_E_INVALID);
    w.options.lineage--;

    env = simdisk_env(w.disk);
    assert_int_equal(env->rename(env->state, WORLD_DIR "/0000000000000002.wal",
                                 WORLD_DIR "/0000000000000001.wal", NULL),
                     T4_OK);
    assert_int_equal(reopen(&w, 0), T4_E_CORRUPT);
    assert_says(&w, "renamed");
    segment(&w, 1, &size)[100] ^= 1;
    assert_int_equal(reopen(&w, 0), T4_E_CORRUPT);
    assert_says(&w, "header");
    world_free(&w);
}

static void
shortened_file_is_refused(void **state)
{
    struct env_file *file;
    struct env *env;
    struct world w;

    (void)state;
    set_up(&w);
    put(&w, 10);
    env = simdisk_env(w.disk);
    assert_int_equal(
        env->open(env->state, WORLD_DIR "/0000000000000001.wal", 0, &file, NULL), T4_OK);
    assert_int_equal(env->truncate(env->state, file, 5000, NULL), T4_OK);
    env->close(env->state, file);
    assert_int_equal(reopen(&w, 0), T4_E_CORRUPT);
    assert_says(&w, "5000 bytes long");
    world_free(&w);
}

/* Any bit flipped: refused, or (behind the end) everything is still there. */
static void
every_flipped_bit_is_noticed(void **state)
{
    uint64_t random = 99, refused = 0;
    struct world w;

    (void)state;
    set_up(&w);
    for (unsigned i = 0; i < 75; i++) {
        assert_int_equal(world_write(&w, SIZES(i * 53 % 3000 + 1, 77)), T4_OK);
        assert_int_equal(world_sync(&w), T4_OK);
    }
    assert_int_equal(world_mark(&w), T4_OK);
    assert_int_equal(wal_segments(w.wal), 2);
    for (unsigned n = 0; n < 3000; n++) {
        struct world r;
        size_t size, at;
        uint8_t *data;

        world_clone(&r, &w, simdisk_kill(w.disk));
        random = random * 6364136223846793005u + 1442695040888963407u;
        data = segment(&r, 1 + n % 2, &size);
        at = (random >> 33) % (n < 300 ? 4200 : size);
        data[at] ^= (uint8_t)(1u << (random >> 20 & 7));
        if (world_open(&r, 0) == T4_OK) {
            assert_int_equal(r.recovered.last_index, w.count);
        } else {
            assert_int_equal(r.error.status, T4_E_CORRUPT);
            assert_says(&r, n % 2 == 0 ? "0000000000000001.wal" : "0000000000000002.wal");
            assert_says(&r, "offset");
            refused++;
        }
        world_free(&r);
    }
    assert_true(refused > 2500);
    world_free(&w);
}

static void
damage_says_where(void **state)
{
    struct world w;
    uint8_t *at, *base;
    char text[64];
    size_t size;

    (void)state;
    set_up(&w);
    for (unsigned i = 0; i < 10; i++)
        put(&w, 100);
    at = find_entry(&w, 1, 4);
    base = segment(&w, 1, &size);
    at[7] ^= 0x80;
    snprintf(text, sizeof text, "at offset %zu:", (size_t)(at - base) - 25);
    assert_int_equal(reopen(&w, 0), T4_E_CORRUPT);
    assert_says(&w, text);
    assert_says(&w, "entry 4 ");
    /* The engine holds entry 4, but the frames behind it cannot be followed: the same. */
    assert_int_equal(reopen(&w, 6), T4_E_CORRUPT);
    world_free(&w);
}

/* A frame that never reached the disk, with acknowledged ones behind it. */
static void
hole_of_zeros_is_damage(void **state)
{
    struct world w;
    uint8_t *at;

    (void)state;
    set_up(&w);
    for (unsigned i = 0; i < 10; i++)
        put(&w, 100);
    at = find_entry(&w, 1, 4);
    memset(at - 25, 0, wal_frame_size(w.entries[3].len));
    assert_int_equal(reopen(&w, 0), T4_E_CORRUPT);
    assert_says(&w, "entry 4 ");
    world_free(&w);
}

/* The whole rest of a segment is lost, the next one says that there was more. */
static void
lost_end_of_a_segment_is_damage(void **state)
{
    struct world w;
    uint8_t *at, *base;
    size_t size;

    (void)state;
    set_up(&w);
    for (unsigned i = 0; i < 6; i++)
        put(&w, 20000);
    base = segment(&w, 1, &size);
    at = find_entry(&w, 1, 3);
    assert_non_null(at);
    memset(at - 25, 0, (size_t)(base + size - (at - 25)));
    assert_int_equal(reopen(&w, 0), T4_E_CORRUPT);
    assert_says(&w, "0000000000000001.wal");
    assert_says(&w, "entry 3 ");
    world_free(&w);
}

static void
old_damage_is_found_when_read(void **state)
{
    struct wal_reader *r;
    struct world w;

    (void)state;
    set_up(&w);
    for (unsigned i = 0; i < 12; i++)
        put(&w, 20000);
    find_entry(&w, 1, 2)[5000] ^= 1;
    assert_int_equal(reopen(&w, w.count), T4_OK); /* not looked at */
    assert_int_equal(wal_reader_open(w.wal, 1, &r, &w.error), T4_E_CORRUPT);
    assert_says(&w, "0000000000000001.wal");
    assert_says(&w, "entry 2 ");
    assert_int_equal(wal_reader_open(w.wal, world_revision(w.count), &r, &w.error),
                     T4_OK);
    wal_reader_close(r);
    world_free(&w);
}

/* Entry 4's own frame was damaged, and nothing behind it says that it was durable. */
static void
what_the_engine_holds_was_durable(void **state)
{
    struct world w;

    (void)state;
    set_up(&w);
    put(&w, 10);
    assert_int_equal(world_write(&w, SIZES(100, 100, 100, 100, 100)), T4_OK);
    assert_int_equal(world_sync(&w), T4_OK);
    find_entry(&w, 1, 4)[20] ^= 1;
    assert_int_equal(reopen(&w, 4), T4_E_CORRUPT);
    assert_says(&w, "entry 4 ");
    assert_int_equal(reopen(&w, 5), T4_E_CORRUPT);
    world_free(&w);
}

/*
 * A group is torn: its first frame is lost, the others are there.  A new entry of just
 * the right size would end where they begin; they must not come back to life behind it.
 */
static void
torn_frames_stay_dead(void **state)
{
    struct world w;

    (void)state;
    for (size_t start = 0; start <= 72; start += 72) {
        uint8_t *at;

        set_up(&w);
        put(&w, 10);
        assert_int_equal(world_write(&w, SIZES(500, 100, 100)), T4_OK);
        at = find_entry(&w, 1, 2);
        memset(at - 25, 0, wal_frame_size(w.entries[1].len));
        assert_int_equal(world_boot(&w, 0), T4_OK);
        assert_true(w.recovered.torn);
        assert_int_equal(w.recovered.last_index, 1);
        put(&w, 500 - start);
        assert_int_equal(world_boot(&w, 0), T4_OK);
        assert_int_equal(w.recovered.last_index, 2);
        assert_true(world_read_all(&w));
        world_free(&w);
    }
}

static void
frames_are_bound_to_their_place(void **state)
{
    struct buffer entry = {0}, frame = {0};
    struct frame f;

    (void)state;
    world_entry(&entry, 9, 1, 100);
    frame_append_entry(&frame, buffer_slice(&entry));
    frame_finish(frame.data, 77, 8192, 8, 5);
    assert_true(frame_parse(frame.data, frame.len, 77, 8192, &f));
    assert_int_equal(f.index, 9);
    assert_int_equal(f.synced_through, 8);
    assert_int_equal(f.object_frontier, 5);
    assert_true(slice_equal(f.entry, buffer_slice(&entry)));
    assert_false(
        frame_parse(frame.data, frame.len, 78, 8192, &f)); /* another segment's */
    assert_false(frame_parse(frame.data, frame.len, 77, 8200, &f)); /* another place */
    assert_false(frame_parse(frame.data, frame.len - 8, 77, 8192, &f));
    for (size_t bit = 0; bit < frame.len * 8; bit++) {
        frame.data[bit / 8] ^= (uint8_t)(1u << bit % 8);
        assert_false(frame_parse(frame.data, frame.len, 77, 8192, &f));
        frame.data[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
    /* It cannot have been written when it was durable already. */
    frame_finish(frame.data, 77, 8192, 9, 5);
    assert_false(frame_parse(frame.data, frame.len, 77, 8192, &f));
    buffer_free(&entry);
    buffer_free(&frame);
}

/* --- a full disk --- */

static void
full_disk_refuses_and_recovers(void **state)
{
    const size_t frame = wal_frame_size(1100);
    unsigned deletes = 0;
    struct world w;

    (void)state;
    world_init(&w, simdisk_new(42));
    w.options.reserve_bytes = 2 * WORLD_SEGMENT;
    simdisk_capacity(w.disk, 5 * WORLD_SEGMENT);
    assert_int_equal(world_boot(&w, 0), T4_OK);
    assert_true(wal_wants_segment(w.wal));
    assert_int_equal(world_prepare(&w), T4_OK);
    assert_false(wal_wants_segment(w.wal));
    assert_int_equal(simdisk_used(w.disk), 4 * WORLD_SEGMENT); /* two segments, reserve */

    /* Ordinary writes until the next segment cannot be created. */
    while (wal_reserve(w.wal, frame, false) == T4_OK) {
        assert_int_equal(world_write(&w, SIZES(1000)), T4_OK);
        assert_int_equal(world_sync(&w), T4_OK);
        if (wal_wants_segment(w.wal) && world_prepare(&w) == T4_E_NOSPACE)
            assert_non_null(strstr(w.error.hint, "free space"));
    }
    assert_true(wal_nospace(w.wal));
    assert_true(w.count > 60);
    /* The reserve was given up: there is room on the disk for the engine. */
    assert_true(simdisk_used(w.disk) <= 3 * WORLD_SEGMENT);

    /* Deletes go on for what is left, then are refused, too. */
    while (wal_reserve(w.wal, frame, true) == T4_OK) {
        assert_int_equal(world_write(&w, SIZES(1000)), T4_OK);
        assert_int_equal(world_sync(&w), T4_OK);
        deletes++;
    }
    assert_true(deletes > 30);
    assert_int_equal(wal_reserve(w.wal, frame, true), T4_E_NOSPACE);

    /* The reserve's room makes a segment, but the reserve must be back, too. */
    assert_int_equal(world_prepare(&w), T4_E_NOSPACE);
    assert_true(wal_nospace(w.wal));
    assert_int_equal(wal_reserve(w.wal, frame, false), T4_E_NOSPACE);
    assert_int_equal(wal_reserve(w.wal, frame, true), T4_OK);
    wal_release(w.wal, frame);

    simdisk_capacity(w.disk, 8 * WORLD_SEGMENT);
    assert_int_equal(world_prepare(&w), T4_OK);
    assert_false(wal_nospace(w.wal));
    assert_int_equal(wal_reserve(w.wal, frame, false), T4_OK);
    put(&w, 1000);
    assert_int_equal(reopen(&w, 0), T4_OK);
    assert_int_equal(w.recovered.last_index, w.count);
    world_free(&w);
}

/* What was promised is written, although the disk is full by then. */
static void
promises_are_kept(void **state)
{
    struct world w;

    (void)state;
    world_init(&w, simdisk_new(42));
    w.options.reserve_bytes = WORLD_SEGMENT;
    assert_int_equal(world_boot(&w, 0), T4_OK);
    assert_int_equal(world_prepare(&w), T4_OK);
    simdisk_capacity(w.disk, simdisk_used(w.disk));
    assert_int_equal(wal_reserve(w.wal, 6 * wal_frame_size(20100), false), T4_OK);
    assert_int_equal(world_write(&w, SIZES(20000, 20000, 20000, 20000, 20000, 20000)),
                     T4_OK);
    assert_int_equal(world_write(&w, SIZES(20000)), T4_OK); /* the reserve's room */
    assert_true(wal_nospace(w.wal));
    assert_int_equal(world_write(&w, SIZES(20000, 20000, 20000)), T4_E_NOSPACE);
    assert_int_equal(world_write(&w, SIZES(300)), T4_OK); /* the rest of the segment */
    assert_int_equal(world_sync(&w), T4_OK);
    assert_int_equal(reopen(&w, 0), T4_OK);
    assert_int_equal(w.recovered.last_index, w.count);
    assert_true(world_read_all(&w));
    world_free(&w);
}

static void
promises_are_counted(void **state)
{
    size_t room;
    struct world w;

    (void)state;
    set_up(&w);
    assert_int_equal(world_write(&w, SIZES(50000)), T4_OK);
    assert_int_equal(world_write(&w, SIZES(50000)),
                     T4_OK); /* in the second segment now */
    simdisk_capacity(w.disk, simdisk_used(w.disk));
    assert_int_equal(world_prepare(&w), T4_E_NOSPACE);
    room = WORLD_SEGMENT - 4096 - 72 - 32 - wal_frame_size(w.entries[1].len);
    assert_int_equal(wal_reserve(w.wal, room + 1, true), T4_E_NOSPACE);
    assert_int_equal(wal_reserve(w.wal, room - 800, true), T4_OK);
    assert_int_equal(wal_reserve(w.wal, 801, true), T4_E_NOSPACE);
    assert_int_equal(wal_reserve(w.wal, 800, true), T4_OK);
    wal_release(w.wal, room);
    assert_int_equal(wal_reserve(w.wal, room, true), T4_OK);
    world_free(&w);
}

/* A frame that does not fit the rest of a segment leaves it empty: not promised. */
static void
promises_allow_for_the_end_of_a_segment(void **state)
{
    static const size_t sizes[] = {20000, 20000, 20000, 14000};
    size_t granted[4], n = 0;
    struct world w;

    (void)state;
    world_init(&w, simdisk_new(42));
    w.options.reserve_bytes = WORLD_SEGMENT;
    assert_int_equal(world_boot(&w, 0), T4_OK);
    assert_int_equal(world_prepare(&w), T4_OK);
    assert_int_equal(world_write(&w, SIZES(46000)), T4_OK);
    simdisk_capacity(w.disk, 2 * WORLD_SEGMENT);
    assert_int_equal(world_write(&w, SIZES(46000)), T4_OK);
    assert_int_equal(world_prepare(&w), T4_E_NOSPACE);
    simdisk_capacity(w.disk, 3 * WORLD_SEGMENT);
    assert_int_equal(world_prepare(&w), T4_E_NOSPACE); /* a segment, but no reserve */
    assert_true(wal_nospace(w.wal));
    assert_int_equal(wal_segments(w.wal), 3);
    for (size_t i = 0; i < 4; i++)
        if (wal_reserve(w.wal, wal_frame_size(sizes[i] + 100), true) == T4_OK)
            granted[n++] = sizes[i];
    assert_true(n >= 2);
    for (size_t i = 0; i < n; i++)
        assert_int_equal(world_write(&w, SIZES(granted[i])), T4_OK);
    world_free(&w);
}

static void
options_are_checked(void **state)
{
    struct world w;

    (void)state;
    world_init(&w, simdisk_new(42));
    w.options.segment_bytes = 1000;
    assert_int_equal(reopen(&w, 0), T4_E_INVALID);
    assert_says(&w, "64 KiB");
    world_free(&w);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_back_by_revision),
        cmocka_unit_test(reader_follows_the_writer),
        cmocka_unit_test(opening_at_a_recent_revision_is_cheap),
        cmocka_unit_test(old_segments_are_not_read_at_start),
        cmocka_unit_test(entry_bigger_than_a_segment),
        cmocka_unit_test(recovery_tells_where_it_is),
        cmocka_unit_test(group_must_follow_the_log),
        cmocka_unit_test(begins_behind_what_the_engine_holds),
        cmocka_unit_test(missing_segments_are_named),
        cmocka_unit_test(foreign_files_are_refused),
        cmocka_unit_test(shortened_file_is_refused),
        cmocka_unit_test(every_flipped_bit_is_noticed),
        cmocka_unit_test(damage_says_where),
        cmocka_unit_test(hole_of_zeros_is_damage),
        cmocka_unit_test(lost_end_of_a_segment_is_damage),
        cmocka_unit_test(old_damage_is_found_when_read),
        cmocka_unit_test(what_the_engine_holds_was_durable),
        cmocka_unit_test(torn_frames_stay_dead),
        cmocka_unit_test(frames_are_bound_to_their_place),
        cmocka_unit_test(full_disk_refuses_and_recovers),
        cmocka_unit_test(promises_are_kept),
        cmocka_unit_test(promises_are_counted),
        cmocka_unit_test(promises_allow_for_the_end_of_a_segment),
        cmocka_unit_test(options_are_checked),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

/*
 * wal_inspect_test.c - a look at a log: agrees with recovery, names damage, writes nothing.
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

/* What an inspection gave. */
struct seen {
    struct world *w;
    uint64_t indexes[400];
    unsigned entries, wrong; /* wrong: not the bytes that were written */
    unsigned damage, notes;
    char said[8192]; /* all remarks */
    struct wal_inspection found;
    struct error error;
};

static t4_status
take(void *arg, uint64_t index, struct t4_slice entry, struct error *error)
{
    struct seen *s = arg;

    (void)error;
    assert_true(s->entries < 400);
    s->indexes[s->entries++] = index;
    if (index > s->w->count ||
        !slice_equal(entry, buffer_slice(&s->w->entries[index - 1])))
        s->wrong++;
    return T4_OK;
}

static void
remark(void *arg, bool damage, const struct error *what)
{
    struct seen *s = arg;
    size_t n = strlen(s->said);

    if (damage)
        s->damage++;
    else
        s->notes++;
    snprintf(s->said + n, sizeof s->said - n, "%s\n", what->message);
}

/* Looks, and checks that nothing was written. */
static t4_status
inspect(struct seen *s, struct world *w, uint64_t from, uint64_t to)
{
    uint64_t operations = simdisk_operations(w->disk);
    t4_status status;

    *s = (struct seen){.w = w};
    status = wal_inspect(simdisk_env(w->disk), WORLD_DIR, from, to, take, remark, s,
                         &s->found, &s->error);
    assert_int_equal(simdisk_operations(w->disk), operations);
    assert_int_equal(s->found.damaged, s->damage);
    return status;
}

static void
gives(struct seen *s, struct world *w, uint64_t from, uint64_t to, unsigned entries)
{
    assert_int_equal(inspect(s, w, from, to), T4_OK);
    if (s->entries != entries || s->wrong != 0)
        fail_msg("%u entries, %u of them wrong, not %u; %s", s->entries, s->wrong,
                 entries, s->said);
}

static void
says(const struct seen *s, const char *text)
{
    if (strstr(s->said, text) == NULL)
        fail_msg("\"%s\" does not say \"%s\"", s->said, text);
}

static void
set_up(struct world *w, unsigned entries, size_t bytes)
{
    world_init(w, simdisk_new(42));
    assert_int_equal(world_boot(w, 0), T4_OK);
    assert_int_equal(world_prepare(w), T4_OK);
    for (unsigned i = 0; i < entries; i++) {
        assert_int_equal(world_write(w, SIZES(bytes)), T4_OK);
        assert_int_equal(world_sync(w), T4_OK);
        assert_int_equal(world_prepare(w), T4_OK);
    }
}

/* Where the frame of an entry begins, in any segment that has it. */
static uint8_t *
frame_of(struct world *w, uint64_t index, unsigned *number, size_t *offset)
{
    for (*number = 1; *number < 100; (*number)++) {
        char path[64];
        size_t size;
        uint8_t *data, *at;

        snprintf(path, sizeof path, WORLD_DIR "/%016x.wal", *number);
        data = simdisk_file(w->disk, path, &size);
        if (data == NULL)
            continue;
        at = memmem(data, size, w->entries[index - 1].data, w->entries[index - 1].len);
        if (at == NULL)
            continue;
        *offset = (size_t)(at - data) - FRAME_HEADER_BYTES - 1;
        return data + *offset;
    }
    fail_msg("entry %llu is in no segment", (unsigned long long)index);
    return NULL;
}

/* Returns the byte that was changed: x ^= RUIN mends it. */
#define RUIN 0x40
static uint8_t *
ruin(struct world *w, uint64_t index, char *place, size_t n)
{
    unsigned number = 0;
    size_t offset = 0;
    uint8_t *at = frame_of(w, index, &number, &offset) + 30;

    *at ^= RUIN;
    snprintf(place, n, "%016x.wal of the log is damaged at offset %zu", number, offset);
    return at;
}

static void
gives_what_was_written(void **state)
{
    struct seen s;
    struct world w;

    (void)state;
    set_up(&w, 100, 3000);
    assert_true(wal_segments(w.wal) > 4);
    gives(&s, &w, 1, UINT64_MAX, 100); /* beside the writer */
    assert_int_equal(s.found.first_index, 1);
    assert_int_equal(s.found.last_index, 100);
    assert_int_equal(s.damage + s.notes, 0);
    gives(&s, &w, 20, 29, 10);
    assert_int_equal(s.indexes[0], 20);
    gives(&s, &w, 101, UINT64_MAX, 0);
    w.options.cluster_id++; /* whose log it is does not matter */
    gives(&s, &w, 1, UINT64_MAX, 100);
    world_free(&w);
}

/* Who has the entries up to `above` from elsewhere gets the others, and hears of nothing below. */
static void
gives_above(struct seen *s, struct world *w, uint64_t above, unsigned entries)
{
    uint64_t operations = simdisk_operations(w->disk);

    *s = (struct seen){.w = w};
    assert_int_equal(wal_inspect_above(simdisk_env(w->disk), WORLD_DIR, above, take,
                                       remark, s, &s->found, &s->error),
                     T4_OK);
    assert_int_equal(simdisk_operations(w->disk), operations);
    if (s->entries != entries || s->wrong != 0)
        fail_msg("above %u: %u entries, %u of them wrong, not %u; %s", (unsigned)above,
                 s->entries, s->wrong, entries, s->said);
    for (unsigned i = 0; i < entries; i++)
        assert_int_equal(s->indexes[i], above + 1 + i);
}

static void
above_is_what_an_engine_lacks(void **state)
{
    char place[128];
    struct seen s;
    struct world w;

    (void)state;
    set_up(&w, 100, 3000);
    for (unsigned above = 0; above <= 100; above++) {
        gives_above(&s, &w, above, 100 - above);
        assert_int_equal(s.damage + s.notes, 0);
        assert_int_equal(s.found.last_index, 100);
        assert_int_equal(s.found.segments, wal_segments(w.wal));
    }
    gives_above(&s, &w, 200, 0);
    ruin(&w, 7, place, sizeof place);
    gives_above(&s, &w, 90, 10); /* a segment that need not be read */
    assert_int_equal(s.damage, 0);
    gives_above(&s, &w, 7, 93); /* one that must: it is told, whether it matters or not */
    says(&s, place);
    world_free(&w);
}

static void
no_log_is_an_error(void **state)
{
    struct seen s;
    struct world w;
    struct env *env;

    (void)state;
    world_init(&w, simdisk_new(1));
    assert_int_equal(inspect(&s, &w, 1, UINT64_MAX), T4_E_NOTFOUND);
    env = simdisk_env(w.disk);
    assert_int_equal(env->mkdir(env->state, WORLD_DIR, NULL), T4_OK);
    gives(&s, &w, 1, UINT64_MAX, 0);
    assert_int_equal(s.found.last_index, 0);
    world_free(&w);
}

static void
damage_is_named_and_passed_over(void **state)
{
    char first[128], second[128];
    struct seen s;
    struct world w;

    (void)state;
    set_up(&w, 100, 3000);
    ruin(&w, 7, first, sizeof first);
    ruin(&w, 8, second, sizeof second);
    ruin(&w, 60, second, sizeof second);
    gives(&s, &w, 1, UINT64_MAX, 97);
    assert_int_equal(s.damage, 2);
    says(&s, first);
    says(&s, "entries 7 to 8 cannot be read");
    says(&s, second);
    says(&s, "entries 60 to 60 cannot be read");
    assert_int_equal(s.found.last_index, 100);
    world_free(&w);
}

static void
files_that_are_gone_or_damaged(void **state)
{
    struct env *env;
    struct seen s;
    struct world w;
    size_t size;

    (void)state;
    set_up(&w, 100, 3000);
    env = simdisk_env(w.disk);
    assert_int_equal(env->unlink(env->state, WORLD_DIR "/0000000000000002.wal", NULL),
                     T4_OK);
    simdisk_file(w.disk, WORLD_DIR "/0000000000000004.wal", &size)[100] ^= 1;
    assert_int_equal(inspect(&s, &w, 1, UINT64_MAX), T4_OK);
    assert_int_equal(s.damage, 4); /* each file, and the entries that it held */
    says(&s, WORLD_DIR "/0000000000000002.wal of the log is missing");
    says(&s, WORLD_DIR "/0000000000000004.wal of the log: the header");
    says(&s,
         "are missing before offset 4096 of segment " WORLD_DIR "/0000000000000003.wal");
    assert_true(s.entries > 40 && s.entries < 80);
    assert_int_equal(s.wrong, 0);
    assert_int_equal(s.indexes[s.entries - 1], 100);
    world_free(&w);
}

/* The newest frame: nothing says that it was acknowledged, until a mark does. */
static void
torn_tail_is_no_damage(void **state)
{
    char place[128];
    struct seen s;
    struct world w;
    uint8_t *at;

    (void)state;
    set_up(&w, 10, 100);
    at = ruin(&w, 10, place, sizeof place);
    gives(&s, &w, 1, UINT64_MAX, 9);
    assert_int_equal(s.damage, 0);
    assert_int_equal(s.notes, 1);
    assert_int_equal(s.found.last_index, 9);
    says(&s, "the log ends with entry 9");
    *at ^= RUIN;
    assert_int_equal(world_mark(&w), T4_OK);
    ruin(&w, 10, place, sizeof place);
    gives(&s, &w, 1, UINT64_MAX, 9);
    assert_int_equal(s.damage, 1);
    says(&s, place);
    world_free(&w);
}

/* A tail that was cut stays in the files and is not given. */
static void
void_entries_are_left_out(void **state)
{
    struct seen s;
    struct world w;

    (void)state;
    set_up(&w, 10, 100);
    wal_close(w.wal);
    assert_int_equal(wal_open(&w.options, 0, NULL, NULL, &w.wal, &w.recovered, &w.error),
                     T4_OK);
    assert_int_equal(wal_cut(w.wal, 6, &w.error), T4_OK);
    assert_int_equal(wal_start(w.wal, 1, 9, &w.error), T4_OK);
    w.count = 6; /* the four entries' memory is taken over by their successors */
    for (unsigned i = 6; i < 10; i++)
        buffer_free(&w.entries[i]);
    gives(&s, &w, 1, UINT64_MAX, 6);
    gives_above(&s, &w, 4, 2);
    gives_above(&s, &w, 8,
                0); /* void, and the segment that it was in is not begun with */
    assert_int_equal(world_write(&w, SIZES(50, 50)), T4_OK);
    gives_above(&s, &w, 7, 1);
    gives_above(&s, &w, 3, 5);
    gives(&s, &w, 1, UINT64_MAX, 8);
    assert_int_equal(s.damage + s.notes, 0);
    assert_int_equal(s.found.last_index, 8);
    world_free(&w);
}

static void
gap_is_told(void **state)
{
    struct wal_group g = {0};
    struct buffer bytes = {0};
    struct seen s;
    struct world w;

    (void)state;
    set_up(&w, 2, 10);
    wal_close(w.wal);
    assert_int_equal(wal_open(&w.options, 10, NULL, NULL, &w.wal, &w.recovered, &w.error),
                     T4_OK);
    assert_int_equal(wal_start(w.wal, 1, 9, &w.error), T4_OK);
    world_entry(&bytes, 11, 11, 10);
    wal_group_add(&g, 11, world_revision(11), buffer_slice(&bytes));
    assert_int_equal(wal_write(w.wal, &g, &w.error), T4_OK);
    assert_int_equal(inspect(&s, &w, 1, UINT64_MAX), T4_OK);
    assert_int_equal(s.entries, 3);
    assert_int_equal(s.indexes[2], 11);
    assert_int_equal(s.damage, 0);
    says(&s, "entries 3 to 10 are not in this log");
    wal_group_free(&g);
    buffer_free(&bytes);
    world_free(&w);
}

/* Whatever a crash leaves: the same entries that recovery finds, and no damage. */
static void
agrees_with_recovery(void **state)
{
    unsigned torn = 0, images;
    struct world w;

    (void)state;
    set_up(&w, 20, 3000); /* into the second segment */
    assert_int_equal(world_write(&w, SIZES(2000, 40, 9000, 300)), T4_OK);
    assert_int_equal(world_write(&w, SIZES(30000, 50)), T4_OK);
    images = simdisk_images(w.disk);
    for (unsigned n = 0; n < images + 200; n++) {
        struct world r;
        struct seen s;

        world_clone(&r, &w,
                    n < images ? simdisk_image(w.disk, n)
                               : simdisk_image_torn(w.disk, n));
        assert_int_equal(inspect(&s, &r, 1, UINT64_MAX), T4_OK);
        assert_int_equal(s.wrong + s.damage, 0);
        assert_int_equal(s.entries, s.found.last_index);
        torn += s.notes;
        assert_int_equal(world_open(&r, 0), T4_OK);
        assert_int_equal(r.recovered.last_index, s.found.last_index);
        assert_int_equal(r.recovered.torn, s.notes != 0);
        world_free(&r);
    }
    assert_true(torn > 20);
    world_free(&w);
}

/* Any bit flipped: what is given is right, and whatever is missing was named. */
static void
every_flipped_bit_is_named(void **state)
{
    uint64_t random = 7;
    struct world w;

    (void)state;
    set_up(&w, 40, 2000);
    assert_int_equal(world_mark(&w), T4_OK);
    for (unsigned n = 0; n < 1000; n++) {
        struct world r;
        struct seen s;
        char path[64];
        size_t size, at;
        uint8_t *data;

        world_clone(&r, &w, simdisk_kill(w.disk));
        random = random * 6364136223846793005u + 1442695040888963407u;
        snprintf(path, sizeof path, WORLD_DIR "/%016x.wal", 1 + n % 2);
        data = simdisk_file(r.disk, path, &size);
        at = (random >> 33) % (n < 300 ? 4200 : size);
        data[at] ^= (uint8_t)(1u << (random >> 20 & 7));
        assert_int_equal(inspect(&s, &r, 1, UINT64_MAX), T4_OK);
        assert_int_equal(s.wrong, 0);
        if (s.entries != r.count)
            assert_true(s.damage > 0);
        if (world_open(&r, 0) != T4_OK)
            assert_true(s.damage > 0);
        world_free(&r);
    }
    world_free(&w);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gives_what_was_written),
        cmocka_unit_test(above_is_what_an_engine_lacks),
        cmocka_unit_test(no_log_is_an_error),
        cmocka_unit_test(damage_is_named_and_passed_over),
        cmocka_unit_test(files_that_are_gone_or_damaged),
        cmocka_unit_test(torn_tail_is_no_damage),
        cmocka_unit_test(void_entries_are_left_out),
        cmocka_unit_test(gap_is_told),
        cmocka_unit_test(agrees_with_recovery),
        cmocka_unit_test(every_flipped_bit_is_named),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

/*
 * engine_test.c - what is more than the storage engines' contract: bounds and words of the
 * facade, space that comes back, and for LMDB defragmentation, a full map, a full disk and
 * the files.  The contract itself is checked by the conformance kit (src/check, 600_engines.t),
 * what a power failure leaves by the crash test of the whole server (210_engine_crash.t).
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/memory.h"
#include "base/slice.h"
#include "engine_bed.h"
#include "env/thread.h"

static int
setup(void **state)
{
    struct bed *b = mem_alloc(sizeof *b);

    bed_init(b, *state, NULL);
    bed_open(b);
    *state = b;
    return 0;
}

static int
teardown(void **state)
{
    bed_destroy(*state);
    mem_free(*state);
    return 0;
}

static struct t4_op
put_op(struct t4_slice key, struct t4_slice value)
{
    return (struct t4_op){.kind = T4_OP_PUT, .key = key, .value = value};
}

static struct t4_op
delete_op(struct t4_slice key)
{
    return (struct t4_op){.kind = T4_OP_DELETE, .key = key};
}

static void
write_ok(struct bed *b, const struct t4_op *ops, size_t n, uint64_t flushed)
{
    struct error error = {0};

    if (engine_write(b->engine, ops, n, flushed, &error) != T4_OK ||
        engine_sync(b->engine, &error) != T4_OK)
        fail_msg("%s (%s)", error.message, error.hint);
}

static struct t4_snap *
snap(struct bed *b)
{
    struct t4_snap *s;

    assert_int_equal(engine_snap(b->engine, &s), T4_OK);
    return s;
}

static void
assert_value(struct bed *b, struct t4_snap *s, struct t4_slice key, const char *expected)
{
    struct t4_slice value;

    assert_int_equal(engine_get(b->engine, s, key, &value), T4_OK);
    assert_true(slice_equal(value, slice_str(expected)));
}

/* --- single rules ------------------------------------------------------------------- */

static void
test_bounds_of_keys(void **state)
{
    struct bed *b = *state;
    size_t most = engine_max_key(b->engine);
    uint8_t *bytes = mem_zalloc(most + 1);
    struct t4_op op = put_op(slice_of(bytes, most), slice_str("longest"));
    struct error error = {0};
    struct t4_snap *s;

    assert_true(most >= 65536);
    write_ok(b, &op, 1, 1);
    s = snap(b);
    assert_value(b, s, op.key, "longest");
    engine_snap_end(b->engine, s);

    op.key.len = most + 1;
    assert_int_equal(engine_write(b->engine, &op, 1, 2, &error), T4_E_INVALID);
    assert_non_null(
        strstr(error.message, "operation 0 has a key of 65537 bytes; 1 to 65536"));
    op.key.len = 0;
    assert_int_equal(engine_write(b->engine, &op, 1, 2, &error), T4_E_INVALID);
    op.kind = 7;
    assert_int_equal(engine_write(b->engine, &op, 1, 2, &error), T4_E_INVALID);
    assert_non_null(strstr(error.message, "operation 0 is of unknown kind 7"));
    mem_free(bytes);
}

static uint64_t
in_use(struct bed *b, uint64_t *records)
{
    struct t4_engine_stats stats;

    assert_int_equal(engine_stats(b->engine, &stats), T4_OK);
    *records = stats.records;
    return stats.in_use_bytes;
}

/* True: there are more steps. */
static bool
defragment_step(struct bed *b)
{
    struct error error;
    bool more;

    if (engine_defragment(b->engine, &more, &error) != T4_OK)
        fail_msg("%s", error.message);
    return more;
}

/* Long keys leave no links and layers behind: space comes back. */
static void
test_deleting_gives_space_back(void **state)
{
    enum { KEYS = 2000, BATCH = 250, LEN = 1500 };
    struct bed *b = *state;
    uint8_t *bytes = mem_alloc((size_t)KEYS * LEN);
    struct t4_op ops[BATCH];
    uint64_t records, before, full, after;
    struct chance c = {1};

    before = in_use(b, &records);
    assert_int_equal(records, 0);
    for (size_t i = 0; i < (size_t)KEYS * LEN; i++)
        bytes[i] = (uint8_t)chance_next(&c);
    for (int deleting = 0; deleting < 2; deleting++) {
        for (size_t i = 0; i < KEYS; i++) {
            struct t4_slice key = slice_of(bytes + i * LEN, LEN);

            ops[i % BATCH] = deleting ? delete_op(key) : put_op(key, slice_str("v"));
            if (i % BATCH == BATCH - 1)
                write_ok(b, ops, BATCH, i);
        }
        after = in_use(b, &records);
        assert_int_equal(records, deleting ? 0 : KEYS);
        if (!deleting)
            full = after;
    }
    assert_true(full > before + (size_t)KEYS * LEN);
    assert_true(after <= before + 64 * 1024);
    mem_free(bytes);
}

/* Keys that come in order, the worst case of a tree that does not balance itself. */
static void
test_keys_in_order(void **state)
{
    enum { KEYS = 6000, BATCH = 500 };
    struct bed *b = *state;
    uint8_t(*bytes)[4] = mem_alloc(KEYS * sizeof *bytes);
    struct t4_slice key, value;
    struct t4_op ops[BATCH];
    struct t4_iter *it;
    struct t4_snap *s;

    for (size_t i = 0; i < KEYS; i++) { /* half of them upwards, half downwards */
        size_t k = i < KEYS / 2 ? i : KEYS - 1 - (i - KEYS / 2);

        bytes[k][0] = (uint8_t)(k >> 16);
        bytes[k][1] = (uint8_t)(k >> 8);
        bytes[k][2] = (uint8_t)k;
        ops[i % BATCH] = put_op(slice_of(bytes[k], 3), slice_of(bytes[k], 3));
        if (i % BATCH == BATCH - 1)
            write_ok(b, ops, BATCH, i);
    }
    for (size_t i = 0; i < KEYS / 2; i++) { /* every other one away */
        ops[i % BATCH] = delete_op(slice_of(bytes[2 * i], 3));
        if (i % BATCH == BATCH - 1)
            write_ok(b, ops, BATCH, i);
    }
    s = snap(b);
    assert_int_equal(engine_iter(b->engine, s, &it), T4_OK);
    for (size_t i = 1; i < KEYS; i += 2) {
        assert_int_equal(engine_next(b->engine, it, &key, &value), T4_OK);
        assert_true(slice_equal(key, slice_of(bytes[i], 3)) && slice_equal(value, key));
    }
    assert_int_equal(engine_next(b->engine, it, &key, &value), T4_E_NOTFOUND);
    engine_iter_end(b->engine, it);
    engine_snap_end(b->engine, s);
    mem_free(bytes);
}

/* --- defragmentation ---------------------------------------------------------------- */

static uint64_t
file_size(struct bed *b)
{
    struct t4_engine_stats stats;

    assert_int_equal(engine_stats(b->engine, &stats), T4_OK);
    return stats.file_bytes;
}

/* 4,000 records of which every tenth stays; `turn` is its value. */
static void
fill_and_thin_out(struct bed *b, uint64_t turn)
{
    enum { KEYS = 4000, BATCH = 500 };
    uint8_t value[1024] = {0};
    struct t4_op ops[BATCH];
    char key[BATCH][16];

    memcpy(value, &turn, sizeof turn);
    for (unsigned deleting = 0; deleting < 2; deleting++)
        for (unsigned i = 0; i < KEYS; i++) {
            snprintf(key[i % BATCH], sizeof key[0], "key%06u", i);
            ops[i % BATCH] =
                deleting && i % 10 != 0
                    ? delete_op(slice_str(key[i % BATCH]))
                    : put_op(slice_str(key[i % BATCH]), slice_of(value, sizeof value));
            if (i % BATCH == BATCH - 1)
                write_ok(b, ops, BATCH, turn);
        }
}

static unsigned
count_records(struct bed *b, struct t4_snap *s, uint64_t turn)
{
    struct t4_slice key, value;
    struct t4_iter *it;
    unsigned n = 0;

    assert_int_equal(engine_iter(b->engine, s, &it), T4_OK);
    while (engine_next(b->engine, it, &key, &value) == T4_OK) {
        assert_memory_equal(value.data, &turn, sizeof turn);
        n++;
    }
    engine_iter_end(b->engine, it);
    return n;
}

/* The file gets as small as what it holds; an older snapshot goes on with the older file. */
static void
test_defragmentation(void **unused)
{
    struct t4_snap *old, *new;
    uint64_t before, records, flushed, turn = 1;
    struct bed b;
    char path[PATH_MAX + 32];

    (void)unused;
    bed_init(&b, "lmdb", NULL);
    bed_open(&b);
    for (; turn < 4; turn++) {
        fill_and_thin_out(&b, turn);
        before = file_size(&b);
        old = snap(&b);
        while (defragment_step(&b))
            continue;
        assert_true(file_size(&b) < before / 4);
        assert_true(file_size(&b) <= in_use(&b, &records) + 65536);
        assert_int_equal(records, 400);
        new = snap(&b);
        assert_int_equal(count_records(&b, old, turn), 400);
        assert_int_equal(count_records(&b, new, turn), 400);
        engine_snap_end(b.engine, new);
        engine_snap_end(b.engine, old);
    }
    before = file_size(&b);
    fill_and_thin_out(&b, turn);
    assert_true(defragment_step(&b)); /* and is left half-way */
    bed_close(&b);
    bed_open(&b);
    assert_int_equal(engine_flushed(b.engine, &flushed), T4_OK);
    assert_int_equal(flushed, turn);
    snprintf(path, sizeof path, "%s/data.mdb.new", b.dir);
    assert_int_not_equal(access(path, F_OK), 0);
    while (defragment_step(&b))
        continue;
    assert_true(file_size(&b) <= before + 65536);
    old = snap(&b);
    assert_int_equal(count_records(&b, old, turn), 400);
    engine_snap_end(b.engine, old);
    bed_close(&b);
    bed_destroy(&b);
}

/* Writers who always write more than a step copies, and behind it, do not keep it from its end. */
static void
test_defragmentation_ends(void **unused)
{
    static uint8_t value[100 * 1024];
    uint64_t records;
    unsigned steps = 0;
    struct bed b;

    (void)unused;
    bed_init(&b, "lmdb", NULL);
    bed_open(&b);
    fill_and_thin_out(&b, 1);
    do {
        char key[16];
        struct t4_op op;

        snprintf(key, sizeof key, "later%06u", steps);
        op = put_op(slice_str(key), slice_of(value, sizeof value));
        write_ok(&b, &op, 1, 1);
        assert_true(++steps < 100);
    } while (defragment_step(&b));
    in_use(&b, &records);
    assert_int_equal(records, 400 + steps);
    bed_close(&b);
    bed_destroy(&b);
}

/* A copy that finds no room is given up; writes go on. */
static void
test_defragmentation_without_room(void **unused)
{
    struct rlimit limit, old_limit;
    uint64_t flushed, records;
    struct t4_op op = put_op(slice_str("key000000x"), slice_str("v"));
    t4_status status = T4_OK;
    struct error error;
    struct bed b;
    bool more = true;

    (void)unused;
    bed_init(&b, "lmdb", NULL);
    bed_open(&b);
    fill_and_thin_out(&b, 1);
    signal(SIGXFSZ, SIG_IGN);
    getrlimit(RLIMIT_FSIZE, &old_limit);
    limit = old_limit;
    limit.rlim_cur = 320 * 1024; /* there is room for the lock file */
    setrlimit(RLIMIT_FSIZE, &limit);
    while (status == T4_OK) {
        status = engine_defragment(b.engine, &more, &error);
        assert_true(more || status != T4_OK);
    }
    setrlimit(RLIMIT_FSIZE, &old_limit);
    assert_int_equal(status, T4_E_NOSPACE);
    assert_non_null(strstr(error.message, "cannot write a copy"));
    write_ok(&b, &op, 1, 7);
    assert_int_equal(engine_flushed(b.engine, &flushed), T4_OK);
    assert_int_equal(flushed, 7);
    while (defragment_step(&b))
        continue;
    in_use(&b, &records);
    assert_int_equal(records, 401);
    bed_close(&b);
    bed_destroy(&b);
}

/* --- the facade --------------------------------------------------------------------- */

static t4_status
failing_write(struct t4_engine *e, struct t4_call *call, const struct t4_op *ops,
              size_t n, uint64_t flushed)
{
    (void)e;
    (void)call;
    (void)ops;
    (void)n;
    return flushed == 1 ? T4_E_IO : flushed == 2 ? -1000 : 5;
}

static t4_status
handleless_open(void *plugin, struct t4_call *call, struct t4_slice dir,
                struct t4_engine **out)
{
    (void)plugin;
    (void)call;
    (void)dir;
    (void)out;
    return T4_OK;
}

static void
test_facade_refuses_incomplete_tables(void **state)
{
    static const size_t members[] = {
        offsetof(struct t4_engine_ops, open),  offsetof(struct t4_engine_ops, close),
        offsetof(struct t4_engine_ops, write), offsetof(struct t4_engine_ops, flushed),
        offsetof(struct t4_engine_ops, snap),  offsetof(struct t4_engine_ops, snap_end),
        offsetof(struct t4_engine_ops, get),   offsetof(struct t4_engine_ops, iter),
        offsetof(struct t4_engine_ops, seek),  offsetof(struct t4_engine_ops, next),
        offsetof(struct t4_engine_ops, prev),  offsetof(struct t4_engine_ops, iter_end),
    };
    static const char *const names[] = {"open", "close",    "write", "flushed",
                                        "snap", "snap_end", "get",   "iter",
                                        "seek", "next",     "prev",  "iter_end"};
    struct error error = {0};
    struct engine *e;
    char text[64];

    (void)state;
    for (size_t i = 0; i < sizeof members / sizeof members[0]; i++) {
        struct t4_engine_ops ops = *engine_memory_ops();

        memset((char *)&ops + members[i], 0, sizeof(void (*)(void)));
        assert_int_equal(engine_open(&ops, NULL, "broken", "", &e, &error), T4_E_INVALID);
        assert_null(e);
        snprintf(text, sizeof text, "lacks the function \"%s\"", names[i]);
        assert_non_null(strstr(error.message, text));
        assert_non_null(strstr(error.message, "\"broken\""));
    }
}

static void
test_facade_adopts_shorter_tables(void **state)
{
    struct t4_engine_ops ops = *engine_memory_ops();
    struct t4_engine_stats stats;
    struct error error = {0};
    struct engine *e;
    bool more = true;

    (void)state;
    ops.size =
        offsetof(struct t4_engine_ops, stats); /* what lies behind is not looked at */
    ops.sync = NULL;
    assert_int_equal(engine_open(&ops, NULL, "short", "", &e, &error), T4_OK);
    assert_int_equal(engine_sync(e, &error), T4_OK);
    assert_int_equal(engine_stats(e, &stats), T4_E_UNSUPPORTED);
    assert_int_equal(engine_defragment(e, &more, &error), T4_OK);
    assert_false(more);
    engine_close(e);

    ops.size = offsetof(struct t4_engine_ops, prev);
    assert_int_equal(engine_open(&ops, NULL, "short", "", &e, &error), T4_E_INVALID);
    assert_non_null(strstr(error.message, "lacks the function \"prev\""));
    ops.size = 8;
    assert_int_equal(engine_open(&ops, NULL, "short", "", &e, &error), T4_E_INVALID);
    assert_non_null(strstr(error.message, "8 bytes long, too short"));

    ops = *engine_memory_ops();
    ops.caps = T4_ENGINE_DURABLE; /* then sync is not optional */
    ops.sync = NULL;
    assert_int_equal(engine_open(&ops, NULL, "short", "", &e, &error), T4_E_INVALID);
    ops = *engine_memory_ops();
    ops.min_minor = T4_ABI_MINOR + 1;
    assert_int_equal(engine_open(&ops, NULL, "short", "", &e, &error), T4_E_UNSUPPORTED);
    assert_non_null(strstr(error.message, "needs ABI 1."));
}

static void
test_facade_completes_errors(void **state)
{
    struct t4_engine_ops ops = *engine_memory_ops();
    struct error error = {0};
    struct engine *e;

    (void)state;
    ops.write = failing_write;
    assert_int_equal(engine_open(&ops, NULL, "odd", "", &e, &error), T4_OK);
    assert_int_equal(engine_write(e, NULL, 0, 1, &error), T4_E_IO);
    assert_string_equal(error.message,
                        "storage engine \"odd\": cannot write: input/output error");
    assert_int_equal(engine_write(e, NULL, 0, 2, &error), T4_E_INTERNAL);
    assert_int_equal(engine_write(e, NULL, 0, 3, &error), T4_E_INTERNAL);
    assert_int_equal(engine_write(e, NULL, 0, 1, NULL), T4_E_IO);
    engine_close(e);
    ops.open = handleless_open;
    assert_int_equal(engine_open(&ops, NULL, "odd", "", &e, &error), T4_E_INTERNAL);
    assert_non_null(strstr(error.message, "gave no handle"));
}

/* --- LMDB: bounds, files --------------------------------------------------- */

/* Writes until there is no room, then checks that everything before can be read. */
static void
fill(struct bed *b, const char *message, const char *hint)
{
    static uint8_t value[20000];
    struct error error = {0};
    t4_status st = T4_OK;
    struct t4_snap *s;
    uint64_t n = 0, flushed;

    for (n = 0; n < 10000 && st == T4_OK; n++) {
        struct t4_op op = put_op(slice_of(&n, sizeof n), slice_of(value, sizeof value));

        st = engine_write(b->engine, &op, 1, n + 1, &error);
    }
    n--;
    assert_int_equal(st, T4_E_NOSPACE);
    if (strstr(error.message, message) == NULL)
        fail_msg("%s", error.message);
    assert_non_null(strstr(error.message, b->dir));
    assert_non_null(strstr(error.hint, hint));
    assert_in_range(n, 10, 9999);
    assert_int_equal(engine_flushed(b->engine, &flushed), T4_OK);
    assert_int_equal(flushed, n);
    s = snap(b);
    for (uint64_t i = 0; i <= n; i++) {
        struct t4_slice got;

        assert_int_equal(engine_get(b->engine, s, slice_of(&i, sizeof i), &got),
                         i < n ? T4_OK : T4_E_NOTFOUND);
    }
    engine_snap_end(b->engine, s);
}

static void
test_full_map(void **unused)
{
    struct t4_op op = delete_op(slice_of("\0\0\0\0\0\0\0", 8));
    struct bed b;

    (void)unused;
    bed_init(&b, "lmdb", "1 MB");
    bed_open(&b);
    fill(&b, "the map of 1048576 bytes (lmdb.map_size) is full", "raise the setting");
    (void)op;
    bed_destroy(&b);
    bed_init(&b, "lmdb", "4 MB");
    bed_open(&b);
    fill(&b, "the map of 4194304 bytes", "lmdb.map_size");
    write_ok(&b, &op, 1, 5); /* deleting makes room as long as its pages fit */
    bed_destroy(&b);
}

/* A limit on the file's size fails as a full disk does: a write is cut short. */
static void
test_full_disk(void **unused)
{
    struct rlimit before, limit;
    struct bed b;

    (void)unused;
    bed_init(&b, "lmdb", NULL);
    bed_open(&b);
    signal(SIGXFSZ, SIG_IGN);
    getrlimit(RLIMIT_FSIZE, &before);
    limit = (struct rlimit){(2 << 20) + 1000, before.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
    fill(&b, "cannot commit: ", "make room on that file system");
    setrlimit(RLIMIT_FSIZE, &before);
    write_ok(&b, NULL, 0, 7); /* and goes on once there is room */
    bed_close(&b);
    bed_open(&b);
    bed_destroy(&b);
}

static void
data_path(const struct bed *b, char path[PATH_MAX + 16])
{
    snprintf(path, PATH_MAX + 16, "%s/data.mdb", b->dir);
}

static void
test_files_are_private(void **unused)
{
    char path[PATH_MAX + 16];
    struct stat st;
    struct bed b;

    (void)unused;
    bed_init(&b, "lmdb", NULL);
    bed_open(&b);
    data_path(&b, path);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0600);
    assert_int_equal(stat(b.dir, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0700);
    bed_destroy(&b);
}

/* Creation cut short leaves a file that is begun again; anything else is not touched. */
static void
test_unfinished_file(void **unused)
{
    static const uint8_t zero[4096];
    char path[PATH_MAX + 16], junk[9000];
    struct error error = {0};
    struct t4_op op = put_op(slice_str("k"), slice_str("v"));
    struct t4_snap *s;
    uint64_t flushed;
    struct bed b;
    int fd;

    (void)unused;
    bed_init(&b, "lmdb", NULL);
    data_path(&b, path);
    for (int image = 0; image < 5; image++) {
        bed_open(&b);
        bed_close(&b);
        fd = open(path, O_RDWR);
        assert_true(fd >= 0);
        if (image < 4) /* the second meta page, that of the first transaction, is lost */
            assert_int_equal(pwrite(fd, zero, sizeof zero, 4096), sizeof zero);
        if (image == 1 || image == 2)
            assert_int_equal(ftruncate(fd, image == 1 ? 4096 : 100), 0);
        if (image == 3)
            assert_int_equal(pwrite(fd, zero, sizeof zero, 0), sizeof zero);
        close(fd);
        bed_open(&b); /* image 4: nothing lost */
        assert_int_equal(engine_flushed(b.engine, &flushed), T4_OK);
        assert_int_equal(flushed, 0);
        write_ok(&b, &op, 1, 3);
        bed_close(&b);
        bed_open(&b);
        s = snap(&b);
        assert_value(&b, s, op.key, "v");
        engine_snap_end(b.engine, s);
        bed_close(&b);
        unlink(path);
    }

    memset(junk, 'j', sizeof junk);
    fd = open(path, O_RDWR | O_CREAT, 0600);
    assert_int_equal(write(fd, junk, sizeof junk), sizeof junk);
    assert_int_equal(
        engine_open(&b.ops, plugin_state(b.plugin), "lmdb", b.dir, &b.engine, &error),
        T4_E_CORRUPT);
    assert_non_null(strstr(error.message, "storage engine \"lmdb\": cannot open: "));
    assert_non_null(strstr(error.message, b.dir));
    assert_non_null(strstr(error.hint, "remove that folder"));
    assert_int_equal(lseek(fd, 0, SEEK_END), sizeof junk);
    close(fd);
    bed_destroy(&b);
}

/* A damaged page that a transaction has relied on is not taken for an unfinished file. */
static void
test_used_file_is_not_begun_again(void **unused)
{
    static const uint8_t zero[4096];
    struct t4_op op = put_op(slice_str("k"), slice_str("v"));
    char path[PATH_MAX + 16];
    struct error error = {0};
    struct stat before, after;
    struct bed b;
    int fd;

    (void)unused;
    bed_init(&b, "lmdb", NULL);
    bed_open(&b);
    write_ok(&b, &op, 1, 1);
    bed_close(&b);
    data_path(&b, path);
    fd = open(path, O_RDWR);
    assert_int_equal(pwrite(fd, zero, sizeof zero, 0), sizeof zero);
    fstat(fd, &before);
    assert_int_equal(
        engine_open(&b.ops, plugin_state(b.plugin), "lmdb", b.dir, &b.engine, &error),
        T4_E_CORRUPT);
    fstat(fd, &after);
    assert_int_equal(before.st_size, after.st_size);
    close(fd);
    bed_destroy(&b);
}

static void
test_folder_cannot_be_made(void **unused)
{
    struct error error = {0};
    struct engine *e;
    struct bed b;

    (void)unused;
    bed_init(&b, "lmdb", NULL);
    assert_int_equal(engine_open(&b.ops, plugin_state(b.plugin), "lmdb",
                                 "/proc/no/such/place", &e, &error),
                     T4_E_IO);
    assert_null(e);
    assert_non_null(
        strstr(error.message, "/proc/no/such/place: cannot create the folder"));
    bed_destroy(&b);
}

#define BESIDE_KEYS 300u

/* Every key of one look has the value of one write; 0: it is whole. */
static int
look_from_outside(struct bed *b)
{
    struct t4_slice key, value, first = {0};
    struct error error = {0};
    struct engine *e;
    struct t4_snap *s;
    struct t4_iter *it;
    unsigned n = 0;

    if (engine_open_reading(&b->ops, plugin_state(b->plugin), "lmdb", b->dir, &e,
                            &error) != T4_OK ||
        engine_snap(e, &s) != T4_OK || engine_iter(e, s, &it) != T4_OK)
        return 1;
    for (; engine_next(e, it, &key, &value) == T4_OK; n++) {
        if (n == 0)
            first = value;
        if (!slice_equal(value, first))
            return 2;
        if (n % 50 == 0)
            usleep(2000); /* time for the writer to use pages again */
    }
    engine_iter_end(e, it);
    engine_snap_end(e, s);
    engine_close(e);
    return n == BESIDE_KEYS ? 0 : 3;
}

/* The file and its lock file are replaced while other processes open and read them. */
static void
test_defragmentation_beside_readers(void **unused)
{
    static uint8_t value[1024];
    char key[BESIDE_KEYS][16];
    struct t4_op ops[BESIDE_KEYS];
    unsigned turns = 0, done = 0;
    int status = 0, ready[2];
    struct bed b;
    pid_t pid;

    (void)unused;
    bed_init(&b, "lmdb", NULL);
    assert_int_equal(pipe2(ready, O_CLOEXEC), 0);
    pid = fork(); /* before the environment is open here: LMDB's must not be inherited */
    if (pid == 0) {
        int wrong = read(ready[0], &status, 1) != 1;

        for (int i = 0; i < 60 && wrong == 0; i++)
            wrong = look_from_outside(&b);
        _exit(wrong);
    }
    bed_open(&b);
    for (unsigned i = 0; i < BESIDE_KEYS; i++) {
        snprintf(key[i], sizeof key[i], "key%06u", i);
        ops[i] = put_op(slice_str(key[i]), slice_of(value, sizeof value));
    }
    while (waitpid(pid, &status, WNOHANG) == 0) {
        turns++;
        memcpy(value, &turns, sizeof turns);
        write_ok(&b, ops, BESIDE_KEYS, turns);
        if (turns % 16 < 4) /* in between pages are used again */
            done += !defragment_step(&b);
        if (turns == 1)
            assert_int_equal(write(ready[1], "", 1), 1);
    }
    printf("# %u writes, %u times defragmented, beside another process\n", turns, done);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
    assert_true(done > 0);
    close(ready[0]);
    close(ready[1]);
    bed_close(&b);
    bed_destroy(&b);
}

/* A look at what another process has written; beside it: regress/t/552_inspect.t. */
static void
test_open_reading(void **unused)
{
    struct t4_engine_stats stats = {.size = sizeof stats};
    struct t4_op op = put_op(slice_str("k"), slice_str("v"));
    char path[PATH_MAX + 16];
    struct error error = {0};
    struct engine *e;
    struct t4_snap *s;
    struct stat st;
    struct bed b;

    (void)unused;
    bed_init(&b, "lmdb", NULL);
    data_path(&b, path);
    assert_int_equal(
        engine_open_reading(&b.ops, plugin_state(b.plugin), "lmdb", b.dir, &e, &error),
        T4_E_NOTFOUND);
    assert_int_equal(stat(path, &st), -1); /* nothing was made */
    bed_open(&b);
    write_ok(&b, &op, 1, 7);
    bed_close(&b);
    assert_int_equal(engine_open_reading(&b.ops, plugin_state(b.plugin), "lmdb", b.dir,
                                         &b.engine, &error),
                     T4_OK);
    s = snap(&b);
    assert_value(&b, s, op.key, "v");
    engine_snap_end(b.engine, s);
    assert_int_equal(engine_stats(b.engine, &stats), T4_OK);
    assert_int_equal(stats.records, 1);
    bed_close(&b);
    bed_destroy(&b);
    assert_int_equal(
        engine_open_reading(engine_memory_ops(), NULL, "memory", "", &e, &error),
        T4_E_UNSUPPORTED);
    assert_non_null(strstr(error.message, "\"memory\" cannot be read beside a server"));
}

#define BOTH(fn)                                                                         \
    {#fn " memory", fn, setup, teardown, (void *)(uintptr_t) "memory"},                  \
    {                                                                                    \
#fn " lmdb", fn, setup, teardown, (void *)(uintptr_t) "lmdb"                     \
    }

int
main(void)
{
    const struct CMUnitTest tests[] = {
        BOTH(test_bounds_of_keys),
        BOTH(test_deleting_gives_space_back),
        BOTH(test_keys_in_order),
        cmocka_unit_test(test_facade_refuses_incomplete_tables),
        cmocka_unit_test(test_facade_adopts_shorter_tables),
        cmocka_unit_test(test_facade_completes_errors),
        cmocka_unit_test(test_defragmentation),
        cmocka_unit_test(test_defragmentation_ends),
        cmocka_unit_test(test_defragmentation_without_room),
        cmocka_unit_test(test_full_map),
        cmocka_unit_test(test_full_disk),
        cmocka_unit_test(test_files_are_private),
        cmocka_unit_test(test_unfinished_file),
        cmocka_unit_test(test_used_file_is_not_begun_again),
        cmocka_unit_test(test_folder_cannot_be_made),
        cmocka_unit_test(test_open_reading),
        cmocka_unit_test(test_defragmentation_beside_readers),
    };

    setvbuf(stdout, NULL, _IOLBF, 0);
    return cmocka_run_group_tests(tests, NULL, NULL);
}

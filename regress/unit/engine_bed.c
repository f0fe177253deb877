/*
 * engine_bed.c - a place to run storage engines in, and a reference.  See engine_bed.h.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "engine_bed.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/memory.h"
#include "base/slice.h"

/* --- an engine in a folder of its own ----------------------------------------------- */

const char *
build_folder(const char *folder)
{
    static char path[PATH_MAX];
    const char *build = getenv("T4_BUILD_DIR");
    char program[PATH_MAX];
    ssize_t n;

    if (build == NULL) { /* <build>/regress/unit/<program> */
        n = readlink("/proc/self/exe", program, sizeof program - 1);
        assert_true(n > 0);
        program[n] = '\0';
        for (int i = 0; i < 3 && strrchr(program, '/') != NULL; i++)
            *strrchr(program, '/') = '\0';
        build = program;
    }
    assert_true(snprintf(path, sizeof path, "%s/%s", build, folder) < (int)sizeof path);
    return path;
}

void
bed_init(struct bed *b, const char *kind, const char *map_size)
{
    const struct plugin_setting setting[] = {
        {"map_size", map_size != NULL ? map_size : "1 GB"},
        {"copy_step", "64 kB"}, /* many steps to a small file */
    };
    const char *tmp = getenv("TMPDIR");
    struct error error = {0};

    memset(b, 0, sizeof *b);
    b->kind = kind;
    snprintf(b->dir, sizeof b->dir, "%s/t4-engine-XXXXXX", tmp != NULL ? tmp : "/tmp");
    assert_non_null(mkdtemp(b->dir));
    assert_true(strlen(b->dir) + sizeof "/engine" < sizeof b->dir);
    strcat(b->dir, "/engine");
    if (strcmp(kind, "memory") == 0) {
        b->ops = *engine_memory_ops();
        return;
    }
    setenv("T4_PLUGIN_DIR", build_folder("plugins"), 0);
    if (plugin_load(NULL, kind, setting, 2, &b->plugin, &error) != T4_OK)
        fail_msg("%s (%s)", error.message, error.hint);
    assert_int_equal(
        plugin_role(b->plugin, T4_ROLE_ENGINE, kind, &b->ops, sizeof b->ops, &error),
        T4_OK);
}

void
bed_open(struct bed *b)
{
    struct error error = {0};
    void *state = b->plugin != NULL ? plugin_state(b->plugin) : NULL;

    if (engine_open(&b->ops, state, b->kind, b->dir, &b->engine, &error) != T4_OK)
        fail_msg("%s (%s)", error.message, error.hint);
}

void
bed_close(struct bed *b)
{
    engine_close(b->engine);
    b->engine = NULL;
}

void
bed_destroy(struct bed *b)
{
    static const char *const files[] = {"data.mdb", "lock.mdb"};
    char path[PATH_MAX + 16];

    bed_close(b);
    plugin_unload(b->plugin);
    for (int i = 0; i < 2; i++) {
        snprintf(path, sizeof path, "%s/%s", b->dir, files[i]);
        unlink(path);
    }
    rmdir(b->dir);
    *strrchr(b->dir, '/') = '\0';
    rmdir(b->dir);
}

/* --- chance ------------------------------------------------------------------------- */

uint64_t
chance_next(struct chance *c)
{
    uint64_t z = c->state += 0x9e3779b97f4a7c15u;

    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

uint64_t
chance_below(struct chance *c, uint64_t n)
{
    return chance_next(c) % n;
}

uint64_t
test_seed(void)
{
    const char *text = getenv("T4_TEST_SEED");

    return text != NULL ? strtoull(text, NULL, 10) : 20240229;
}

/* --- keys --------------------------------------------------------------------------- */

#define LONGEST 16384

struct t4_slice
key_make(struct chance *c)
{
    static const uint16_t shared[] = {1,   239, 478, 479, 480, 481,  482,
                                      600, 959, 960, 961, 962, 1440, 1441};
    static const uint8_t alphabet[] = {0x00, 0xff, 'a', 'b', 0x01, 0xfe};
    static uint8_t key[LONGEST];
    uint64_t kind = chance_below(c, 100), family = chance_below(c, 4);
    struct chance body = {family};
    size_t prefix, n;

    if (kind < 25)
        prefix = 0;
    else if (kind < 97)
        prefix = shared[chance_below(c, sizeof shared / sizeof shared[0])];
    else
        prefix = 1500 + chance_below(c, LONGEST - 1500 - 320);
    n = prefix + (prefix == 0 ? 1 : 0) + chance_below(c, 4);
    if (kind % 10 == 0)
        n += chance_below(c, 300);
    for (size_t i = 0; i < n; i++) {
        if (i >= prefix)
            key[i] = alphabet[chance_below(c, sizeof alphabet)];
        else if (family < 2)
            key[i] = family == 0 ? 0x00 : 0xff;
        else
            key[i] = (uint8_t)chance_next(&body);
    }
    return slice_of(key, n);
}

static int
compare_keys(const void *a, const void *b)
{
    return slice_compare(*(const struct t4_slice *)a, *(const struct t4_slice *)b);
}

void
keys_make(struct keys *k, size_t n, struct chance *c)
{
    size_t different = 0;

    k->key = mem_alloc(n * sizeof *k->key);
    for (size_t i = 0; i < n; i++) {
        struct t4_slice key = key_make(c);

        k->key[i] = slice_of(memcpy(mem_alloc(key.len), key.data, key.len), key.len);
    }
    qsort(k->key, n, sizeof *k->key, compare_keys);
    for (size_t i = 0; i < n; i++) {
        if (different > 0 && slice_equal(k->key[different - 1], k->key[i]))
            mem_free((void *)(uintptr_t)k->key[i].data);
        else
            k->key[different++] = k->key[i];
    }
    k->n = different;
}

void
keys_free(struct keys *k)
{
    for (size_t i = 0; i < k->n; i++)
        mem_free((void *)(uintptr_t)k->key[i].data);
    mem_free(k->key);
}

size_t
keys_lower_bound(const struct keys *k, struct t4_slice key)
{
    size_t low = 0, high = k->n;

    while (low < high) {
        size_t middle = (low + high) / 2;

        if (slice_compare(k->key[middle], key) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

struct t4_slice
value_make(uint64_t number)
{
    static uint8_t value[9000];
    struct chance c = {number};
    uint64_t kind = chance_below(&c, 20);
    size_t n = kind == 0   ? 0
               : kind == 1 ? chance_below(&c, sizeof value)
                           : chance_below(&c, 90);

    for (size_t i = 0; i < n; i += 8) {
        uint64_t word = chance_next(&c);

        memcpy(value + i, &word, n - i < 8 ? n - i : 8);
    }
    return slice_of(value, n);
}

/* --- comparing ---------------------------------------------------------------------- */

static void
check_pair(const struct keys *k, const uint64_t *state, size_t at, struct t4_slice key,
           struct t4_slice value)
{
    if (!slice_equal(key, k->key[at]))
        fail_msg("a key of %zu bytes stands where number %zu of %zu bytes is due",
                 key.len, at, k->key[at].len);
    if (!slice_equal(value, value_make(state[at])))
        fail_msg("key number %zu (%zu bytes) has the wrong value", at, key.len);
}

/* The present key after (step 1) or before (-1) position `at`; -1 or n: there is none. */
static long
step(const struct keys *k, const uint64_t *state, long at, int by)
{
    do {
        at += by;
    } while (at >= 0 && at < (long)k->n && state[at] == 0);
    return at;
}

size_t
check_scan(struct engine *e, struct t4_snap *s, const struct keys *k,
           const uint64_t *state)
{
    struct t4_slice key, value;
    struct t4_iter *it;
    size_t count = 0;
    long at = -1;

    assert_int_equal(engine_iter(e, s, &it), T4_OK);
    while ((at = step(k, state, at, 1)) < (long)k->n) {
        assert_int_equal(engine_next(e, it, &key, &value), T4_OK);
        check_pair(k, state, (size_t)at, key, value);
        count++;
    }
    assert_int_equal(engine_next(e, it, &key, &value), T4_E_NOTFOUND);
    assert_int_equal(engine_next(e, it, &key, &value), T4_E_NOTFOUND);
    while ((at = step(k, state, at, -1)) >= 0) {
        assert_int_equal(engine_prev(e, it, &key, &value), T4_OK);
        check_pair(k, state, (size_t)at, key, value);
    }
    assert_int_equal(engine_prev(e, it, &key, &value), T4_E_NOTFOUND);
    assert_int_equal(engine_prev(e, it, &key, &value), T4_E_NOTFOUND);
    engine_iter_end(e, it);
    return count;
}

static size_t
check_walk(struct engine *e, struct t4_iter *it, const struct keys *k,
           const uint64_t *state, struct chance *c, long at)
{
    size_t steps = chance_below(c, 12);

    for (size_t i = 0; i < steps; i++) {
        bool forward = chance_below(c, 2) == 0;
        struct t4_slice key, value;
        t4_status st =
            forward ? engine_next(e, it, &key, &value) : engine_prev(e, it, &key, &value);

        if (!(forward ? at == (long)k->n : at == -1))
            at = step(k, state, at, forward ? 1 : -1);
        if (at == -1 || at == (long)k->n) {
            assert_int_equal(st, T4_E_NOTFOUND);
        } else {
            assert_int_equal(st, T4_OK);
            check_pair(k, state, (size_t)at, key, value);
        }
    }
    return steps + 1;
}

size_t
check_walks(struct engine *e, struct t4_snap *s, const struct keys *k,
            const uint64_t *state, struct chance *c, unsigned seeks)
{
    struct t4_slice key, value;
    struct t4_iter *it;
    size_t steps = 0;

    assert_int_equal(engine_iter(e, s, &it), T4_OK);
    for (unsigned i = 0; i < seeks; i++) {
        struct t4_slice target =
            chance_below(c, 2) == 0 ? k->key[chance_below(c, k->n)] : key_make(c);
        size_t bound = keys_lower_bound(k, target);
        bool present =
            bound < k->n && state[bound] != 0 && slice_equal(k->key[bound], target);
        long at = step(k, state, (long)bound - 1, 1);
        t4_status st = engine_get(e, s, target, &value);

        assert_int_equal(st, present ? T4_OK : T4_E_NOTFOUND);
        if (present)
            check_pair(k, state, bound, target, value);
        st = engine_seek(e, it, target, &key, &value);
        assert_int_equal(st, at < (long)k->n ? T4_OK : T4_E_NOTFOUND);
        if (st == T4_OK)
            check_pair(k, state, (size_t)at, key, value);
        steps += check_walk(e, it, k, state, c, at);
    }
    engine_iter_end(e, it);
    return steps;
}

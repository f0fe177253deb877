/*
 * env_test.c - files through struct env on the real machine: results, modes, locks,
 * errors.
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

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "env/env.h"
#include "scratch.h"

static char dir[SCRATCH_ROOM];
static struct env *env;

static const char *
in_dir(const char *name)
{
    static char path[SCRATCH_ROOM + 64];

    snprintf(path, sizeof path, "%s/%s", dir, name);
    return path;
}

static int
set_up(void **state)
{
    (void)state;
    env = env_posix();
    scratch_make(dir, sizeof dir, "t4-env-test");
    return 0;
}

static int
tear_down(void **state)
{
    (void)state;
    scratch_remove(dir);
    return 0;
}

static void
reads_what_was_written(void **state)
{
    struct env_file *f;
    struct env_stat st;
    char data[32];
    size_t got;

    (void)state;
    assert_int_equal(env->open(NULL, in_dir("a"), ENV_CREATE | ENV_EXCLUSIVE, &f, NULL),
                     T4_OK);
    assert_int_equal(env->pwrite(NULL, f, "hello world", 11, 5, NULL), T4_OK);
    assert_int_equal(env->datasync(NULL, f, NULL), T4_OK);
    assert_int_equal(env->sync(NULL, f, NULL), T4_OK);
    assert_int_equal(env->sync_dir(NULL, dir, NULL), T4_OK);
    assert_int_equal(env->pread(NULL, f, data, sizeof data, 3, &got, NULL), T4_OK);
    assert_int_equal(got, 13); /* short at the end only */
    assert_memory_equal(data, "\0\0hello world", 13);
    assert_int_equal(env->truncate(NULL, f, 7, NULL), T4_OK);
    env->close(NULL, f);
    assert_int_equal(env->stat(NULL, in_dir("a"), &st, NULL), T4_OK);
    assert_int_equal(st.size, 7);
    assert_true(st.inode != 0 && st.device != 0);
}

static void
count_name(void *arg, const char *name)
{
    unsigned *seen = arg;

    if (strcmp(name, "b") == 0)
        *seen |= 1;
    else if (strcmp(name, "sub") == 0)
        *seen |= 2;
    else
        *seen |= 4;
}

/* Open files below dir that a child process would inherit. */
static unsigned
descriptors_left_to_children(void)
{
    unsigned n = 0, found = 0;

    for (int fd = 3; fd < 256; fd++) {
        char link[64], path[256] = "";

        snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
        if (readlink(link, path, sizeof path - 1) <= 0 ||
            strncmp(path, dir, strlen(dir)) != 0)
            continue;
        found++;
        n += (fcntl(fd, F_GETFD) & FD_CLOEXEC) == 0;
    }
    assert_true(found > 0);
    return n;
}

static void
names(void **state)
{
    struct env_file *f;
    struct stat st;
    unsigned seen = 0;
    char to[128];

    (void)state;
    assert_int_equal(env->open(NULL, in_dir("a"), ENV_CREATE, &f, NULL), T4_OK);
    assert_int_equal(descriptors_left_to_children(), 0);
    env->close(NULL, f);
    stat(in_dir("a"), &st);
    assert_int_equal(st.st_mode & 0777, 0600);
    assert_int_equal(env->open(NULL, in_dir("a"), ENV_CREATE | ENV_EXCLUSIVE, &f, NULL),
                     T4_E_EXISTS);
    strcpy(to, in_dir("b"));
    assert_int_equal(env->rename(NULL, in_dir("a"), to, NULL), T4_OK);
    assert_int_equal(env->mkdir(NULL, in_dir("sub"), NULL), T4_OK);
    assert_int_equal(env->mkdir(NULL, in_dir("sub"), NULL), T4_OK);
    stat(in_dir("sub"), &st);
    assert_int_equal(st.st_mode & 0777, 0700);
    assert_int_equal(env->list(NULL, dir, count_name, &seen, NULL), T4_OK);
    assert_int_equal(seen, 3);
    assert_int_equal(env->unlink(NULL, in_dir("b"), NULL), T4_OK);
    assert_int_equal(env->unlink(NULL, in_dir("b"), NULL), T4_E_NOTFOUND);
}

static void
errors_name_the_file(void **state)
{
    struct error error;
    struct env_file *f;
    struct env_stat st;

    (void)state;
    assert_int_equal(env->open(NULL, in_dir("none"), 0, &f, &error), T4_E_NOTFOUND);
    assert_non_null(strstr(error.message, in_dir("none")));
    assert_int_equal(env->stat(NULL, in_dir("none"), &st, &error), T4_E_NOTFOUND);
    assert_int_equal(env->list(NULL, in_dir("none"), count_name, NULL, &error),
                     T4_E_NOTFOUND);
    assert_int_equal(env->sync_dir(NULL, in_dir("none"), &error), T4_E_NOTFOUND);
    assert_int_equal(env->open(NULL, in_dir("file"), ENV_CREATE, &f, &error), T4_OK);
    env->close(NULL, f);
    assert_int_equal(env->mkdir(NULL, in_dir("file"), &error), T4_E_IO);
    assert_non_null(strstr(error.message, "a file is in its place"));
    assert_int_equal(env->open(NULL, in_dir("file"), ENV_READONLY, &f, &error), T4_OK);
    assert_int_equal(env->pwrite(NULL, f, "x", 1, 0, &error), T4_E_IO);
    env->close(NULL, f);
}

static void
full_disk_is_nospace(void **state)
{
    struct error error;
    struct env_file *f;

    (void)state;
    assert_int_equal(env->open(NULL, "/dev/full", 0, &f, &error), T4_OK);
    assert_int_equal(env->pwrite(NULL, f, "x", 1, 0, &error), T4_E_NOSPACE);
    assert_non_null(strstr(error.message, "/dev/full"));
    env->close(NULL, f);
}

static void
lock_is_exclusive(void **state)
{
    struct env_file *a, *b;
    struct error error;

    (void)state;
    assert_int_equal(env->open(NULL, in_dir("lock"), ENV_CREATE, &a, NULL), T4_OK);
    assert_int_equal(env->open(NULL, in_dir("lock"), ENV_CREATE, &b, NULL), T4_OK);
    assert_int_equal(env->lock(NULL, a, &error), T4_OK);
    assert_int_equal(env->lock(NULL, b, &error), T4_E_BUSY);
    assert_non_null(strstr(error.message, "another process"));
    env->close(NULL, a);
    assert_int_equal(env->lock(NULL, b, &error), T4_OK);
    env->close(NULL, b);
}

static void
space_clocks_and_chance(void **state)
{
    uint64_t a = env->boot_ns(NULL), b = env->boot_ns(NULL), bytes;
    uint8_t x[16], y[16];

    (void)state;
    assert_true(b >= a);
    assert_int_equal(env->free_space(NULL, dir, &bytes, NULL), T4_OK);
    assert_true(bytes > 0);
    assert_true(env->wall_ns(NULL) > 1600000000u * 1000000000u);
    env->random(NULL, x, sizeof x);
    env->random(NULL, y, sizeof y);
    assert_memory_not_equal(x, y, sizeof x);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(reads_what_was_written, set_up, tear_down),
        cmocka_unit_test_setup_teardown(names, set_up, tear_down),
        cmocka_unit_test_setup_teardown(errors_name_the_file, set_up, tear_down),
        cmocka_unit_test_setup_teardown(full_disk_is_nospace, set_up, tear_down),
        cmocka_unit_test_setup_teardown(lock_is_exclusive, set_up, tear_down),
        cmocka_unit_test_setup_teardown(space_clocks_and_chance, set_up, tear_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

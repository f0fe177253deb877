/*
 * engine_hygiene.c - opening, using and closing leaves nothing behind, and nothing is written
 * outside of the engine's folder.
 *
 * Entry point: engine_hygiene().  Runs on: the thread of the part.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <dirent.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/slice.h"
#include "check/engine_int.h"

#define CYCLES 30
#define WARM_UP 3 /* libraries begin things of their own at first use */

/* The first file besides standard output that is open for writing and not below the folder. */
static void
check_open_files(struct bench *b)
{
    DIR *list = opendir("/proc/self/fd");
    struct dirent *entry;
    size_t n = strlen(b->dir);

    while (list != NULL && (entry = readdir(list)) != NULL) {
        char target[PATH_MAX];
        int fd = atoi(entry->d_name), flags = fd > 2 ? fcntl(fd, F_GETFL) : -1;
        ssize_t length =
            readlinkat(dirfd(list), entry->d_name, target, sizeof target - 1);
        struct stat st;

        if (flags < 0 || (flags & O_ACCMODE) == O_RDONLY || length < 0 ||
            fstat(fd, &st) != 0 || !S_ISREG(st.st_mode))
            continue;
        target[length] = '\0';
        if (strncmp(target, b->dir, n) != 0 || target[n] != '/')
            bench_complain(b, "it writes to %.200s", target);
    }
    if (list != NULL)
        closedir(list);
}

/* One call of each kind; what they give is checked elsewhere. */
static void
use(struct bench *b, uint64_t n)
{
    struct t4_op op = put_op(slice_of(&n, sizeof n), slice_str("value"));
    struct t4_slice key, value;
    struct t4_iter *it = NULL;
    struct t4_snap *s;

    bench_write(b, &op, 1, n, true);
    s = bench_snap(b);
    if (s != NULL) {
        bench_get(b, s, op.key, op.value);
        it = bench_iter(b, s);
        if (it != NULL)
            engine_seek(b->engine, it, slice_of("", 0), &key, &value);
    }
    engine_iter_end(b->engine, it);
    engine_snap_end(b->engine, s);
    bench_defragment(b);
}

/* True: it could be opened each time. */
static bool
check_cycles_of(struct bench *b)
{
    unsigned fds = 0, threads = 0, fds_after, threads_after;
    size_t allocations = 0, left = 0;

    for (int i = 0; i < WARM_UP + CYCLES; i++) {
        if (i == WARM_UP) {
            fds = check_entries("/proc/self/fd");
            threads = check_entries("/proc/self/task");
            allocations = b->plugin != NULL ? plugin_allocations(b->plugin) : 0;
        }
        if (!bench_open(b))
            return false;
        use(b, (uint64_t)i);
        if (i == WARM_UP)
            check_open_files(b);
        bench_close(b);
    }
    bench_line(b,
               "%d times open, use and close: no call fails, and only files below the "
               "engine's folder are open for writing",
               CYCLES);
    if (b->plugin != NULL) {
        left = plugin_allocations(b->plugin) - allocations;
        if (!check_ok(b->check, left == 0, "no memory of host->alloc() is left"))
            check_note(b->check, "%zu allocations are left", left);
    }
    fds_after = check_entries("/proc/self/fd");
    if (!check_ok(b->check, fds_after <= fds, "no file is left open"))
        check_note(b->check, "%u before, %u after", fds, fds_after);
    threads_after = check_threads_at_most(threads);
    if (!check_ok(b->check, threads_after <= threads, "no thread is left running"))
        check_note(b->check, "%u before, %u after", threads, threads_after);
    return true;
}

void
engine_hygiene(struct bench *b)
{
    char elsewhere[PATH_MAX];
    unsigned files, before;
    size_t left;

    /* Whoever writes to the working directory or to TMPDIR writes here. */
    snprintf(elsewhere, sizeof elsewhere, "%s/elsewhere", b->scratch);
    if (mkdir(elsewhere, 0700) != 0 || !bench_load(b) || chdir(elsewhere) != 0)
        return;
    setenv("TMPDIR", elsewhere, 1);
    before = check_entries(b->scratch);
    if (!check_cycles_of(b))
        return;
    files = check_entries(elsewhere);
    check_ok(b->check, files == 2 && check_entries(b->scratch) <= before + 1,
             "nothing is written outside of the engine's folder");
    if (b->plugin != NULL) {
        left = plugin_unload(b->plugin);
        if (!check_ok(b->check, left == 0, "unload() gives all memory back"))
            check_note(b->check, "%zu allocations are left", left);
    }
    if (chdir("/") != 0)
        return;
}

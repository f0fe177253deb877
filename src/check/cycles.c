/*
 * cycles.c - opening and closing leaves nothing behind: memory, files, threads.
 *
 * Entry points: check_cycles(); the counters.  Runs on: the thread of the check, when no store is open.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <dirent.h>
#include <string.h>
#include <time.h>

#include "check/check_int.h"

#define CYCLES 100
#define WARM_UP 3 /* libraries begin things of their own at first use */

unsigned
check_entries(const char *path)
{
    DIR *dir = opendir(path);
    unsigned n = 0;

    if (dir == NULL)
        return 0;
    while (readdir(dir) != NULL)
        n++;
    closedir(dir);
    return n;
}

/* A thread that was joined may be listed for a moment longer. */
unsigned
check_threads_at_most(unsigned expected)
{
    unsigned n = 0;

    for (int i = 0; i < 200; i++) {
        n = check_entries("/proc/self/task");
        if (n <= expected)
            break;
        nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
    }
    return n;
}

static t4_status
ignore(void *arg, struct t4_slice key, const struct t4_object_info *info)
{
    (void)arg;
    (void)key;
    (void)info;
    return T4_OK;
}

/* One call of each kind; what they give is checked elsewhere. */
static void
use(struct object_store *s)
{
    struct t4_slice key = slice_str("t4-check-cycle");
    struct t4_put put = {.size = sizeof put, .key = key, .body = slice_str("x")};
    struct t4_object_info info;
    struct buffer body = {0};

    object_put(s, &put, 0, NULL, NULL);
    put.condition = T4_PUT_IF_ABSENT;
    object_put(s, &put, 0, NULL, NULL);
    object_get(s, key, 0, T4_TO_THE_END, 100, 0, &body, NULL, NULL);
    object_head(s, key, 0, &info, NULL);
    object_list(s, key, slice_of(NULL, 0), 10, 0, ignore, NULL, NULL);
    object_remove(s, &key, 1, 0, NULL);
    object_head(s, key, 0, &info, NULL);
    buffer_free(&body);
}

void
check_cycles(struct check *c, const char *url)
{
    const struct check_options *o = c->options;
    const struct object_options options = {.env = o->env,
                                           .plugin_dir = o->plugin_dir,
                                           .settings = o->settings,
                                           .n_settings = o->n_settings};
    unsigned fds = 0, threads = 0, fds_after, threads_after;
    size_t left = 0;

    for (int i = 0; i < WARM_UP + CYCLES; i++) {
        struct object_store *s;
        struct error error = {0};

        if (i == WARM_UP) {
            fds = check_entries("/proc/self/fd");
            threads = check_entries("/proc/self/task");
        }
        if (object_open(url, &options, &s, &error) != T4_OK) {
            check_ok(c, false, "%s opens for the %dth time", url, i + 1);
            check_note(c, "%s; %s", error.message, error.hint);
            return;
        }
        if (i % 10 == 0)
            use(s);
        left += object_close(s);
    }
    check_ok(c, left == 0, "%d times open and close: no memory of host->alloc() is left",
             CYCLES);
    fds_after = check_entries("/proc/self/fd");
    if (!check_ok(c, fds_after <= fds, "no file is left open"))
        check_note(c, "%u before, %u after", fds, fds_after);
    threads_after = check_threads_at_most(threads);
    if (!check_ok(c, threads_after <= threads, "no thread is left running"))
        check_note(c, "%u before, %u after", threads, threads_after);
}

/*
 * scratch.c - folders for tests to work in.  See scratch.h.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "scratch.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <ftw.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define FILLED_IN "XXXXXX" /* by mkdtemp(), with what makes the name new */
#define DESCRIPTORS 16     /* open at once: removing what is deeper only takes longer */

const char *
scratch_parent(void)
{
    static char path[PATH_MAX];
    const char *tmp = getenv("TMPDIR");

    if (tmp == NULL || tmp[0] == '\0')
        tmp = "/tmp";
    if (realpath(tmp, path) == NULL)
        fail_msg("no folder for temporary files: %s: %s", tmp, strerror(errno));
    return path;
}

static void
make_below(const char *parent, char *folder, size_t room, const char *name)
{
    int n = snprintf(folder, room, "%s/%s-" FILLED_IN, parent, name);

    if (n >= (int)room)
        n = snprintf(folder, room, "/tmp/%s-" FILLED_IN, name);
    if (n >= (int)room)
        fail_msg("no room for the name of a folder %s", name);
    if (mkdtemp(folder) == NULL)
        fail_msg("cannot make a folder like %s: %s", folder, strerror(errno));
}

void
scratch_make(char *folder, size_t room, const char *name)
{
    make_below(scratch_parent(), folder, room, name);
}

void
scratch_make_in_memory(char *folder, size_t room, const char *name)
{
    const char *memory = "/dev/shm";

    make_below(access(memory, W_OK) == 0 ? memory : scratch_parent(), folder, room, name);
}

/* --- removal -------------------------------------------------------------------------- */

static int
remove_one(const char *path, const struct stat *st, int type, struct FTW *place)
{
    (void)st;
    (void)type;
    (void)place;
    if (remove(path) != 0 && errno != ENOENT)
        fail_msg("cannot remove %s: %s", path, strerror(errno));
    return 0;
}

void
scratch_remove(const char *folder)
{
    if (nftw(folder, remove_one, DESCRIPTORS, FTW_DEPTH | FTW_PHYS) != 0 &&
        errno != ENOENT)
        fail_msg("cannot remove %s: %s", folder, strerror(errno));
}

/*
 * scratch.h - folders for tests to work in: made where temporary files belong, removed with all
 * that is in them.  Failures end the test.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef SCRATCH_H
#define SCRATCH_H

#include <stddef.h>

#define SCRATCH_ROOM 256 /* for the name of a folder */

/*
 * Makes <parent>/<name>-<something new>.  In /tmp where a name below the parent has no room:
 * callers with sockets in the folder have little, as a socket's name ends before 108 bytes.
 */
void scratch_make(char *folder, size_t room, const char *name);
/* Where there is such a place, in memory: for what depends on no disk but syncs often. */
void scratch_make_in_memory(char *folder, size_t room, const char *name);
/* A folder that is not there is fine. */
void scratch_remove(const char *folder);

/* TMPDIR, else /tmp: without symbolic links, as file:// URLs and /proc have it. */
const char *scratch_parent(void);

#endif

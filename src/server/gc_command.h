/*
 * gc_command.h - t4 gc: deletes from an object store what nothing needs any more.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef SERVER_GC_COMMAND_H
#define SERVER_GC_COMMAND_H

#include <stdio.h>

/* The words after `t4 gc`; the exit status. */
int gc_command(int argc, char *const *argv, char *const *environment);
void gc_command_help(FILE *out);

#endif

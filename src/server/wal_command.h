/*
 * wal_command.h - t4 wal: the log in a data directory, shown.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef SERVER_WAL_COMMAND_H
#define SERVER_WAL_COMMAND_H

#include <stdio.h>

/* The words after `t4 wal`; the exit status. */
int wal_command(int argc, char *const *argv, char *const *environment);
void wal_command_help(FILE *out);

#endif

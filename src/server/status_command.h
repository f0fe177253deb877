/*
 * status_command.h - t4 status: an object store, or a live server, looked at.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef SERVER_STATUS_COMMAND_H
#define SERVER_STATUS_COMMAND_H

#include <stdio.h>

/* The words after `t4 status`; the exit status. */
int status_command(int argc, char *const *argv, char *const *environment);
void status_command_help(FILE *out);

#endif

/*
 * verify_command.h - t4 verify: what an object store holds, proved.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef SERVER_VERIFY_COMMAND_H
#define SERVER_VERIFY_COMMAND_H

#include <stdio.h>

/* The words after `t4 verify`; the exit status. */
int verify_command(int argc, char *const *argv, char *const *environment);
void verify_command_help(FILE *out);

#endif

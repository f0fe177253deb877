/*
 * store_command.h - t4 store: what is done to an object store as a whole.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef SERVER_STORE_COMMAND_H
#define SERVER_STORE_COMMAND_H

#include <stdio.h>

/* The words after `t4 store`; the exit status. */
int store_command(int argc, char *const *argv, char *const *environment);
void store_command_help(FILE *out);

#endif

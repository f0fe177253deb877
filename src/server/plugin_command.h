/*
 * plugin_command.h - t4 plugin: what plugins there are, and whether one keeps its contract.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef SERVER_PLUGIN_COMMAND_H
#define SERVER_PLUGIN_COMMAND_H

#include <stdio.h>

/* argv: the words behind "t4 plugin".  Returns the exit status (server/run.h). */
int plugin_command(int argc, char *const *argv, char *const *environment);
void plugin_command_help(FILE *out);

#endif

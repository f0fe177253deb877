/*
 * run.h - `t4 run`: one server from start to stop.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef SERVER_RUN_H
#define SERVER_RUN_H

#define EXIT_OK 0     /* stopped by a signal, or what was asked for is printed */
#define EXIT_FAILED 1 /* the server could not start, or had to stop */
#define EXIT_USAGE 2  /* a flag or variable is wrong */

/* The words after `t4 run`.  Returns the exit status.  Main thread, before any other. */
int server_run(int argc, char *const *argv, char *const *environment);

#endif

/*
 * snapshot_status.h - t4 snapshot status: what a snapshot file of t4 or etcd holds.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef SERVER_SNAPSHOT_STATUS_H
#define SERVER_SNAPSHOT_STATUS_H

/* The words after `t4 snapshot status`; the exit status. */
int snapshot_status_command(int argc, char *const *argv, char *const *environment);

#endif

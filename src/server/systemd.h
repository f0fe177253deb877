/*
 * systemd.h - the two protocols between systemd and a service: sockets that it hands over, and
 * what the service says of itself.  Without systemd nothing of it has an effect.
 *
 * Main thread.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef SERVER_SYSTEMD_H
#define SERVER_SYSTEMD_H

#include "server/values.h"

#define SYSTEMD_MAX 16

struct systemd_socket {
    char name[64]; /* FileDescriptorName= of the socket unit */
    struct address address;
};

/*
 * The sockets handed to this process (LISTEN_PID, LISTEN_FDS, LISTEN_FDNAMES).  NULL, or why
 * one of them cannot be served.
 */
const char *systemd_sockets(char *const *environment, struct systemd_socket *out,
                            size_t *n);

/* Sends lines such as "READY=1" or "STATUS=..." to $NOTIFY_SOCKET.  Any thread. */
void systemd_notify(const char *state);
/* How often systemd wants to hear WATCHDOG=1: half of WatchdogSec=; 0: never. */
uint64_t systemd_watchdog_ns(void);

#endif

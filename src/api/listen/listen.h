/*
 * listen.h - the addresses that clients and probes connect to, and every connection until it is
 * known who serves it.
 *
 * One port serves gRPC and HTTP/1.1, as etcd's does: what a connection says first decides.  A
 * connection that says nothing, or nothing sensible, never reaches either of the two libraries.
 * README.md has the picture.
 *
 * Threads: one of its own, t4-accept; the functions here may be called from any other.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef API_LISTEN_LISTEN_H
#define API_LISTEN_LISTEN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buffer.h"
#include "base/error.h"

struct listen;

/* Whom an address is for, and so what its connections may say. */
enum listen_for {
    LISTEN_FOR_CLIENTS, /* gRPC and HTTP/1.1 */
    LISTEN_FOR_PROBES,  /* HTTP/1.1 alone: metrics and health */
    LISTEN_FOR_COUNT
};

struct listen_address {
    const char *host; /* name or number, IPv6 without brackets; or a unix socket's path */
    const char *port; /* decimal; "" for a unix socket */
    int fd;           /* a socket that listens already (systemd's), or -1 */
};

struct listen_options {
    uint32_t max_connections;   /* open ones, all kinds together */
    uint64_t greeting_ns;       /* how long one may take to say what it wants */
    uint64_t silence_ns;        /* after which the server speaks first, in HTTP/2; less */
    uint32_t unix_mode;         /* permissions of a unix socket */
    uint64_t unacknowledged_ns; /* a peer that takes sent bytes for so long is gone */
};

/* Takes the connection over: it is closed by whoever has it.  On the thread t4-accept. */
typedef void listen_take(void *arg, enum listen_for which, int fd);

t4_status listen_start(const struct listen_options *o, struct listen **out,
                       struct error *error);
/* Who serves what; before the first address that leads to it is opened. */
void listen_serve_http(struct listen *l, listen_take *take, void *arg);
void listen_serve_grpc(struct listen *l, listen_take *take, void *arg);

/*
 * Opens an address and serves it at once.  A name is opened at all its addresses; 0.0.0.0 and
 * :: mean IPv4 and IPv6.  A unix socket's file that nobody listens on is replaced.  `flag`
 * is the setting that errors name.  Errors: BUSY (somebody listens there), INVALID (no address
 * of this machine, or a file that is no socket), DENIED, IO; the message names the address.
 */
t4_status listen_open(struct listen *l, enum listen_for which,
                      const struct listen_address *a, const char *flag,
                      struct error *error);
/*
 * Closes the addresses of one kind, and the connections there that nobody serves yet.  When it
 * returns, no connection of them is handed over any more.
 */
void listen_close(struct listen *l, enum listen_for which);
/* Closes all, ends the thread, frees.  NULL does nothing. */
void listen_stop(struct listen *l);

/* Appends the metrics t4_connections*.  (The type is that of http_add_metrics().) */
void listen_render_metrics(void *l, struct buffer *out);

#endif

/*
 * http.h - metrics and health over HTTP, on an address of its own.
 *
 * Up from the first moment of the process, before the log is recovered, so that whoever
 * supervises the server can tell "starting" from "dead".  Answers GET (and HEAD) of
 *
 *   /metrics            Prometheus' text format
 *   /healthz, /livez    200 while the process lives
 *   /readyz             200 while requests are served, else 503 and the reason
 *   /health, /version   as etcd's, in JSON
 *   /status             who leads, what is durable where, what a lost disk would lose; in JSON,
 *                       or with ?format=text in lines
 *
 * Threads: one of the library's serves all connections; the functions here may be called
 * from any thread, start and stop from one.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef API_HTTP_HTTP_H
#define API_HTTP_HTTP_H

#include "base/error.h"

struct http_server;
struct node;

enum http_state {
    HTTP_STARTING,
    HTTP_READY,
    HTTP_DEGRADED, /* serving, but something does not work: the reason says what */
    HTTP_STOPPING,
    HTTP_NOT_LEADING, /* only what is committed already can be read */
};

struct http_options {
    const char *host; /* name or number, IPv6 without brackets */
    const char *port; /* decimal */
};

/*
 * Listens and serves, in the state HTTP_STARTING.  Errors: INVALID (the host name is not
 * known), BUSY (the address is taken), DENIED, IO; the message names the address.
 */
t4_status http_start(const struct http_options *options, struct http_server **out,
                     struct error *error);
void http_set_state(struct http_server *s, enum http_state state, const char *reason);
/*
 * From now on the node's metrics and alarms are shown.  NULL: no more; when this returns, no
 * request uses the node that was set before.
 */
void http_set_node(struct http_server *s, struct node *node);
/* Ends all connections and frees.  NULL does nothing. */
void http_stop(struct http_server *s);

/* Version of the HTTP library, for `t4 version`. */
const char *http_library_version(void);

#endif

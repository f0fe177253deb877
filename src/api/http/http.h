/*
 * http.h - metrics and health over HTTP/1.1.
 *
 * Up from the first moment of the process, before the log is recovered, so that whoever
 * supervises the server can tell "starting" from "dead".  Connections come from api/listen: from
 * an address of their own, and from the clients' addresses, where etcd has these pages, too.
 *
 *   /metrics            Prometheus' text format
 *   /healthz            200 while the process lives
 *   /livez, /readyz     etcd's probes, with ?verbose, ?exclude= and a page for each check
 *   /health, /version   as etcd's, in JSON
 *   /status             who leads, what is durable where, what a lost disk would lose; in JSON,
 *                       or with ?format=text in lines
 *
 * Threads: two of the library's serve all connections, one for each kind, so that clients do not
 * hold up probes; the functions here may be called from any thread, start and stop from one.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef API_HTTP_HTTP_H
#define API_HTTP_HTTP_H

#include "base/buffer.h"
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

/* Serves, in the state HTTP_STARTING, the connections that it is given.  Errors: IO. */
t4_status http_start(struct http_server **out, struct error *error);
/* Takes the connection over; closes it when there are too many.  Does not block. */
void http_add_connection(struct http_server *s, bool of_client, int fd);
void http_set_state(struct http_server *s, enum http_state state, const char *reason);
/*
 * From now on the node's metrics and alarms are shown.  NULL: no more; when this returns, no
 * request uses the node that was set before.
 */
void http_set_node(struct http_server *s, struct node *node);
/*
 * More metrics for /metrics: render() appends them, on one of the library's threads.  Up to 4.
 * http_remove_metrics(): when it returns, no request calls it any more.
 */
typedef void http_render(void *arg, struct buffer *out);
void http_add_metrics(struct http_server *s, http_render *render, void *arg);
void http_remove_metrics(struct http_server *s, http_render *render);
/* Ends all connections and frees.  NULL does nothing. */
void http_stop(struct http_server *s);

/* Version of the HTTP library, for `t4 version`. */
const char *http_library_version(void);

#endif

/*
 * grpc.h - the etcd v3 API over gRPC: one server on one node.
 *
 * The only header of this folder for others.  README.md has the picture: threads, the life of
 * a call and of a stream, what bounds what.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef API_GRPC_GRPC_H
#define API_GRPC_GRPC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buffer.h"
#include "base/error.h"

struct grpc_api;
struct node;

struct grpc_api_options {
    struct node *node; /* stays the caller's; outlives the API */
    uint32_t threads;  /* polling threads, each with a completion queue; 1 to 64 */

    uint32_t max_request_bytes; /* of a write, as etcd counts it */
    uint32_t max_txn_ops;       /* of one list of a transaction */
    bool serializable_reads;    /* reads that ask for linearizable get serializable */

    /* HTTP/2 keepalive; what etcd's --grpc-keepalive-* flags set */
    uint64_t keepalive_min_time_ns; /* a client that pings more often is cut off */
    uint64_t keepalive_interval_ns; /* the server pings a silent connection; 0: never */
    uint64_t keepalive_timeout_ns;  /* and closes it when no answer came by then */
    bool permit_without_stream;     /* clients may ping without an open stream */

    bool extensive_metrics; /* measure the time of each call */

    uint32_t
        max_concurrent_streams; /* of one connection, told to clients; UINT32_MAX: any */

    /* Bounds over all connections; beyond them a call gets "too many requests" */
    uint32_t max_calls;          /* unary calls at work */
    uint32_t max_streams;        /* open watch and keepalive streams */
    uint32_t max_worker_jobs;    /* long reads that wait for a worker or have one */
    uint64_t max_response_bytes; /* of responses that clients have not taken yet */
    /*
     * What the core may hold: connections (an idle one counts with 12 KiB), open calls (12 KiB),
     * messages that are not complete.  Beyond it streams are reset with ENHANCE_YOUR_CALM, and
     * idle connections are ended.
     */
    uint64_t memory_bytes;
};

/* Fills in the defaults (etcd's where etcd has one); node is left to the caller. */
void grpc_api_options_default(struct grpc_api_options *o);

/* Serves the connections that it is given. */
struct grpc_api *grpc_api_start(const struct grpc_api_options *o);

/*
 * Takes over a connection on which the client has begun to speak HTTP/2, and of which nothing
 * has been read.  Not after grpc_api_stop() has been called.  Any thread.
 */
void grpc_api_connect(struct grpc_api *api, int fd);

/* Appends the metrics of calls.  (The type is that of http_add_metrics().) */
void grpc_api_render_metrics(void *api, struct buffer *out);

/*
 * Polite stop: no new connections and calls; open streams end with "etcdserver: server
 * stopped" (14); running calls have grace_ns to finish, then they are cancelled.  Returns when
 * all clients are gone or the time is over; requests that are with the node may still be
 * there.  Afterwards node_stop() answers those, then grpc_api_free() takes the rest down.
 * One thread, not a polling one.
 */
void grpc_api_stop(struct grpc_api *api, uint64_t grace_ns);

/*
 * Waits for the last request that the node or a worker holds, then frees everything.  After
 * grpc_api_stop() (else it stops without grace) and before node_close().
 */
void grpc_api_free(struct grpc_api *api);

#endif

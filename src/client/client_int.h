/*
 * client_int.h - what the files of this folder share.
 *
 * client.c  queue, connections, calls
 * stream.c  streams
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef CLIENT_CLIENT_INT_H
#define CLIENT_CLIENT_INT_H

#include "client/client.h"

/* What somebody waits for: a tag of the core, unless it is a call (client.c). */
struct operation {
    bool done;
    bool good;
    struct client_stream *receiver; /* it is this stream's wait for a message */
};

struct client {
    struct client_queue *queue;
    char *endpoint;
    grpc_channel *channel;
};

grpc_completion_queue *queue_core(struct client_queue *q);
/* Waits until op->done; false: timeout_ns is over. */
bool queue_wait(struct client_queue *q, const struct operation *op, uint64_t timeout_ns);

gpr_timespec deadline_in(uint64_t timeout_ns);
/* Packs a message; the caller destroys it. */
grpc_byte_buffer *pack(const void *message);
/* Unpacks; NULL: it is not one. */
void *unpack(grpc_byte_buffer *bytes, const ProtobufCMessageDescriptor *descriptor);
/* Fills *error for a code and the server's words; returns the code. */
int failure(const struct client *c, grpc_status_code code, grpc_slice details,
            struct error *error);

#endif

/*
 * client.h - calls to a server of the etcd v3 API: gRPC's C core and protobuf-c, nothing else.
 *
 * A queue is where answers arrive; any number of connections, calls and streams hang on it.
 * Whoever wants one call after the other uses client_ask() and the functions of streams; who
 * wants many at a time starts client_call's and takes them off the queue as they end.
 *
 * Codes are gRPC's (0 is OK).  A failure is told as such a code, with its text in *error, whose
 * status is the nearest T4_E_*.
 *
 * Threads: a queue and all that hangs on it belong to one thread.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef CLIENT_CLIENT_H
#define CLIENT_CLIENT_H

#include <grpc/grpc.h>
#include <protobuf-c/protobuf-c.h>
#include <stdbool.h>

#include "base/buffer.h"
#include "base/error.h"

struct client_queue;
struct client;
struct client_stream;

struct client_queue *client_queue_new(void);
void client_queue_free(struct client_queue *q); /* nothing hangs on it any more */

/* --- connections ------------------------------------------------------------------------- */

#define CLIENT_DEFAULT_ENDPOINT "127.0.0.1:3379"

/*
 * endpoint: "host:port", "http://host:port", "[v6]:port", "unix:path" or "unix:///path".  The
 * connection is made at the first call.  INVALID: it is none of these.
 */
t4_status client_make(struct client_queue *q, const char *endpoint, struct client **out,
                      struct error *error);
void client_free(struct client *c); /* its calls have ended, its streams are closed */
const char *client_endpoint(const struct client *c); /* as it was given */
/* Is the connection up, or comes it up within that time? */
bool client_connect(struct client *c, uint64_t timeout_ns);

/* --- one call after the other -------------------------------------------------------------- */

#define CLIENT_FOREVER UINT64_MAX /* a timeout */
/* gRPC's code for "no answer within that time". */
#define CLIENT_TIMEOUT 4

/*
 * Sends `request` to `method` ("/etcdserverpb.KV/Range") and waits for the answer, an `answer`;
 * *out is freed with protobuf_c_message_free_unpacked(*out, NULL).
 */
int client_ask(struct client *c, const char *method, const void *request,
               const ProtobufCMessageDescriptor *answer, uint64_t timeout_ns, void *out,
               struct error *error);

/* --- streams ---------------------------------------------------------------------------------- */

int client_stream_open(struct client *c, const char *method, uint64_t timeout_ns,
                       struct client_stream **out, struct error *error);
int client_stream_send(struct client_stream *s, const void *request, struct error *error);
/* Says that no more requests come. */
int client_stream_send_end(struct client_stream *s, struct error *error);
/*
 * The next message.  0 with *out NULL: the server has ended the stream, all is well.
 * CLIENT_TIMEOUT with *out NULL and error->status T4_E_TIMEOUT: none came within timeout_ns, ask
 * again; the stream goes on unless client_stream_ended().
 */
int client_stream_receive(struct client_stream *s,
                          const ProtobufCMessageDescriptor *answer, uint64_t timeout_ns,
                          void *out, struct error *error);
bool client_stream_ended(const struct client_stream *s);
void client_stream_close(struct client_stream *s); /* cancels what is under way */

/*
 * Many streams at a time, messages as bytes: each that was asked with client_stream_ask() comes
 * off the queue once, when it has a message or has ended; NULL: none did within timeout_ns.  Nothing
 * else may be waited for meanwhile: a stream that comes off the queue then is not told.
 */
void client_stream_ask(struct client_stream *s, void *tag);
struct client_stream *client_queue_next_stream(struct client_queue *q,
                                               uint64_t timeout_ns);
void *client_stream_tag(const struct client_stream *s); /* as it was asked last */
/* Its message, the caller's to destroy; NULL: the stream has ended. */
grpc_byte_buffer *client_stream_take(struct client_stream *s);

/* --- many calls at a time ------------------------------------------------------------------- */

/* One call under way; its memory is the caller's until it was taken off the queue and ended. */
struct client_call {
    void *tag; /* the caller's */
    int code;  /* once it has come back */
    grpc_byte_buffer *answer;
    /* the client's */
    bool done;
    grpc_call *call;
    grpc_byte_buffer *request;
    grpc_metadata_array initial, trailing;
    grpc_status_code status;
    grpc_slice details;
    const char *error_text;
};

/* The core's handle of a method: good for every call of this connection. */
void *client_method(struct client *c, const char *method);
void client_call_start(struct client *c, void *method, struct t4_slice message,
                       uint64_t timeout_ns, struct client_call *call);
/* The next call that has come back, or NULL: none did within timeout_ns. */
struct client_call *client_queue_next(struct client_queue *q, uint64_t timeout_ns);
/* What the server said of a call that failed; returns its code. */
int client_call_code(const struct client_call *call, struct error *error);
void client_call_end(struct client_call *call);

#endif

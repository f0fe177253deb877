/*
 * listen_int.h - what the files of api/listen share.
 *
 *   listen.c    the accepting thread: connections, their first bytes, the bound on their number
 *   open.c      sockets that listen: addresses, names, unix sockets, and why not
 *   greeting.c  what the first bytes of a connection say
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef API_LISTEN_LISTEN_INT_H
#define API_LISTEN_LISTEN_INT_H

#include "api/listen/listen.h"

/* --- greeting.c ---------------------------------------------------------------------------- */

/* HTTP/2's preface and the head of the frame that must follow it. */
#define GREETING_BYTES 33

enum greeting {
    GREETING_MORE, /* too few bytes to tell */
    GREETING_HTTP1,
    GREETING_HTTP2,
    GREETING_NONE, /* neither */
};
enum greeting greeting_of(const uint8_t *bytes, size_t n);

/* --- open.c -------------------------------------------------------------------------------- */

#define OPEN_MAX 16 /* sockets that one address may have */

/* A socket that listens, and what must be removed with it. */
struct opened {
    int fd;
    char *path;        /* of a unix socket that is ours to remove, or NULL */
    uint64_t dev, ino; /* of the path, as it was made */
};
/* OK: out[0..*n) are open, close-on-exec, non-blocking. */
t4_status open_address(const struct listen_options *o, const struct listen_address *a,
                       const char *flag, struct opened *out, size_t *n,
                       struct error *error);
void open_close(struct opened *o);

#endif

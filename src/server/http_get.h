/*
 * http_get.h - one GET of a page of a running server, for the commands that ask one.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef SERVER_HTTP_GET_H
#define SERVER_HTTP_GET_H

#include "base/buffer.h"
#include "base/error.h"

/*
 * endpoint: "127.0.0.1:3381", "http://host:port".  Appends the body of a 200, at most 64 KiB,
 * within 5 s.  INVALID: no such endpoint, or no t4 there; UNAVAILABLE: no answer.
 */
t4_status http_get(const char *endpoint, const char *path, struct buffer *body,
                   struct error *error);

#endif

/*
 * status.h - what a server says of itself at /status: t4 status shows it.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef API_HTTP_STATUS_H
#define API_HTTP_STATUS_H

#include "base/buffer.h"

struct node;

/* Appends the JSON object, or the lines for people.  Any thread. */
void status_render(struct node *node, bool text, struct buffer *out);

#endif

/*
 * greeting.c - tells HTTP/2 from HTTP/1.1 by the first bytes of a connection.
 *
 * HTTP/2 without TLS begins with a fixed preface and a SETTINGS frame.  HTTP/1.1 begins with a
 * method, which is in capital letters, and none begins with "PRI ".  Anything else, such as the
 * hello of TLS, is for nobody.  Pure; any thread.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <string.h>

#include "api/listen/listen_int.h"

#define PREFACE "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
#define PREFACE_BYTES (sizeof PREFACE - 1)
#define RESERVED 4      /* of these, "PRI ", no method of HTTP/1.1 may consist */
#define FRAME_TYPE 3    /* in the head of a frame, behind three bytes of length */
#define TYPE_SETTINGS 4 /* RFC 9113, section 6.5 */

_Static_assert(GREETING_BYTES == PREFACE_BYTES + 9, "a frame's head has 9 bytes");

enum greeting
greeting_of(const uint8_t *bytes, size_t n)
{
    size_t same = 0;

    while (same < n && same < PREFACE_BYTES && bytes[same] == (uint8_t)PREFACE[same])
        same++;
    if (same < n && same < PREFACE_BYTES)
        return same < RESERVED && bytes[0] >= 'A' && bytes[0] <= 'Z' ? GREETING_HTTP1
                                                                     : GREETING_NONE;
    if (n < GREETING_BYTES)
        return GREETING_MORE;
    return bytes[PREFACE_BYTES + FRAME_TYPE] == TYPE_SETTINGS ? GREETING_HTTP2
                                                              : GREETING_NONE;
}

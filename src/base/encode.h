/*
 * encode.h - bytes as text: UTF-8 or not, base64, JSON strings.
 *
 * Pure functions; any thread.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef BASE_ENCODE_H
#define BASE_ENCODE_H

#include "base/buffer.h"

/* Length (1 to 4) of the well-formed UTF-8 sequence that the n bytes at p (n >= 1) begin
 * with, 0 if there is none: no overlong forms, no surrogates, nothing past U+10FFFF. */
size_t utf8_length(const uint8_t *p, size_t n);
bool utf8_valid(struct t4_slice s);

/* With the alphabet of RFC 4648, section 4, and padding. */
void base64_append(struct buffer *out, struct t4_slice s);
/* A JSON string with its quotes; s is valid UTF-8, which is left as it is. */
void json_string_append(struct buffer *out, struct t4_slice s);

#endif

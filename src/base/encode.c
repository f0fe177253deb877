/*
 * encode.c - bytes as text.  See encode.h.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "base/encode.h"

#include <stdio.h>

size_t
utf8_length(const uint8_t *p, size_t n)
{
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    size_t length = p[0] < 0x80   ? 1
                    : p[0] < 0xc2 ? 0
                    : p[0] < 0xe0 ? 2
                    : p[0] < 0xf0 ? 3
                                  : 4;
    uint32_t c = p[0];

    if (length <= 1)
        return length;
    if (length > n || p[0] > 0xf4)
        return 0;
    c &= 0xffu >> (length + 1);
    for (size_t i = 1; i < length; i++) {
        if ((p[i] & 0xc0) != 0x80)
            return 0;
        c = c << 6 | (p[i] & 0x3f);
    }
    return c < least[length] || c > 0x10ffff || (c >= 0xd800 && c < 0xe000) ? 0 : length;
}

bool
utf8_valid(struct t4_slice s)
{
    for (size_t i = 0; i < s.len;) {
        size_t n = utf8_length(s.data + i, s.len - i);

        if (n == 0)
            return false;
        i += n;
    }
    return true;
}

void
base64_append(struct buffer *out, struct t4_slice s)
{
    static const char digits[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

    for (size_t i = 0; i < s.len; i += 3) {
        size_t n = s.len - i < 3 ? s.len - i : 3;
        uint32_t v = 0;

        for (size_t k = 0; k < 3; k++)
            v = v << 8 | (k < n ? s.data[i + k] : 0u);
        for (size_t k = 0; k < 4; k++)
            buffer_append_u8(out, k <= n ? (uint8_t)digits[v >> (18 - 6 * k) & 63]
                                         : (uint8_t)'=');
    }
}

void
json_string_append(struct buffer *out, struct t4_slice s)
{
    buffer_append_u8(out, '"');
    for (size_t i = 0; i < s.len; i++) {
        uint8_t c = s.data[i];
        char escaped[8];

        if (c == '"' || c == '\\') {
            buffer_append_u8(out, '\\');
            buffer_append_u8(out, c);
        } else if (c < ' ' || c == 0x7f) {
            snprintf(escaped, sizeof escaped, "\\u%04x", c);
            buffer_append(out, escaped, strlen(escaped));
        } else {
            buffer_append_u8(out, c);
        }
    }
    buffer_append_u8(out, '"');
}

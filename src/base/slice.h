/*
 * slice.h - borrowed bytes: construction and comparison of struct t4_slice.
 *
 * All functions are pure and may be called from any thread.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef BASE_SLICE_H
#define BASE_SLICE_H

#include <stdbool.h>
#include <string.h>

#include "include/t4_plugin.h"

static inline struct t4_slice
slice_of(const void *data, size_t len)
{
    return (struct t4_slice){data, len};
}

/* Of a NUL-terminated string, without the terminator. */
static inline struct t4_slice
slice_str(const char *text)
{
    return (struct t4_slice){(const uint8_t *)text, strlen(text)};
}

/* Unsigned bytewise order, a prefix before its extensions: < 0, 0, > 0. */
static inline int
slice_compare(struct t4_slice a, struct t4_slice b)
{
    size_t n = a.len < b.len ? a.len : b.len;
    int r = n > 0 ? memcmp(a.data, b.data, n) : 0;

    if (r != 0)
        return r;
    return a.len < b.len ? -1 : a.len > b.len;
}

static inline bool
slice_equal(struct t4_slice a, struct t4_slice b)
{
    return a.len == b.len && (a.len == 0 || memcmp(a.data, b.data, a.len) == 0);
}

static inline bool
slice_has_prefix(struct t4_slice s, struct t4_slice prefix)
{
    return s.len >= prefix.len &&
           (prefix.len == 0 || memcmp(s.data, prefix.data, prefix.len) == 0);
}

#endif

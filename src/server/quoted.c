/*
 * quoted.c - texts in quotes.  See quoted.h.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "server/quoted.h"

#include <ctype.h>
#include <stdlib.h>

static void
append_utf8(struct buffer *out, uint32_t c)
{
    if (c < 0x80) {
        buffer_append_u8(out, (uint8_t)c);
    } else if (c < 0x800) {
        buffer_append_u8(out, (uint8_t)(0xc0 | c >> 6));
        buffer_append_u8(out, (uint8_t)(0x80 | (c & 63)));
    } else if (c < 0x10000) {
        buffer_append_u8(out, (uint8_t)(0xe0 | c >> 12));
        buffer_append_u8(out, (uint8_t)(0x80 | (c >> 6 & 63)));
        buffer_append_u8(out, (uint8_t)(0x80 | (c & 63)));
    } else {
        buffer_append_u8(out, (uint8_t)(0xf0 | c >> 18));
        buffer_append_u8(out, (uint8_t)(0x80 | (c >> 12 & 63)));
        buffer_append_u8(out, (uint8_t)(0x80 | (c >> 6 & 63)));
        buffer_append_u8(out, (uint8_t)(0x80 | (c & 63)));
    }
}

/* n digits of that base at p; false: they are not there. */
static bool
digits(const char *p, int n, int base, uint32_t *out)
{
    *out = 0;
    for (int i = 0; i < n; i++) {
        int c = tolower((unsigned char)p[i]), d = isdigit(c) ? c - '0' : c - 'a' + 10;

        if (!isxdigit(c) || d >= base)
            return false;
        *out = *out * (uint32_t)base + (uint32_t)d;
    }
    return true;
}

/* The escape behind a backslash at p; returns where it ends, NULL: it is none. */
static const char *
escape(struct buffer *out, const char *p)
{
    static const char names[] = "abfnrtv\\\"", values[] = "\a\b\f\n\r\t\v\\\"";
    const char *name = *p == '\0' ? NULL : strchr(names, *p);
    uint32_t c;

    if (name != NULL) {
        buffer_append_u8(out, (uint8_t)values[name - names]);
        return p + 1;
    }
    if (*p == 'x' && digits(p + 1, 2, 16, &c)) {
        buffer_append_u8(out, (uint8_t)c);
        return p + 3;
    }
    if (digits(p, 3, 8, &c) && c < 256) {
        buffer_append_u8(out, (uint8_t)c);
        return p + 3;
    }
    if ((*p == 'u' && digits(p + 1, 4, 16, &c)) ||
        (*p == 'U' && digits(p + 1, 8, 16, &c))) {
        if (c > 0x10ffff || (c >= 0xd800 && c < 0xe000))
            return NULL;
        append_utf8(out, c);
        return p + (*p == 'u' ? 5 : 9);
    }
    return NULL;
}

bool
quoted_append(struct buffer *out, const char **p)
{
    const char *at = *p, *end;

    if (*at == '`') {
        end = strchr(at + 1, '`');
        if (end == NULL)
            return false;
        buffer_append(out, at + 1, (size_t)(end - at - 1));
        *p = end + 1;
        return true;
    }
    if (*at != '"')
        return false;
    at++;
    while (*at != '"') {
        if (*at == '\0')
            return false;
        if (*at != '\\') {
            buffer_append_u8(out, (uint8_t)*at++);
            continue;
        }
        at = escape(out, at + 1);
        if (at == NULL)
            return false;
    }
    *p = at + 1;
    return true;
}

/* The end of the "..." or '...' at p, behind the closing quote; NULL: it is not closed. */
static const char *
closing(const char *p)
{
    const char *end = p + 1;

    if (*p == '\'') {
        end = strchr(end, '\'');
        return end == NULL ? NULL : end + 1;
    }
    for (; *end != '\0'; end++) {
        if (*end == '"')
            return end + 1;
        if (*end == '\\' && end[1] != '\0')
            end++;
    }
    return NULL;
}

static bool
is_blank(char c)
{
    return strchr(" \t\n\r\v\f", c) != NULL; /* NUL, too */
}

bool
quoted_split(struct pool *pool, const char *line, char ***words, int *n)
{
    const char *p = line;

    *words = pool_alloc(pool, (strlen(line) + 1) * sizeof **words);
    *n = 0;
    while (*p != '\0') {
        bool quote = *p == '"' || *p == '\'';
        const char *end = quote ? closing(p) : p;
        struct buffer text = {0};
        bool good = true;

        if (end == NULL || (!quote && is_blank(*p))) {
            p++; /* a blank, or a quote that nothing closes: etcdctl passes it over */
            continue;
        }
        while (!quote && !is_blank(*end))
            end++;
        if (*p == '"')
            good = quoted_append(&text, &p);
        else
            buffer_append(&text, p + quote, (size_t)(end - p) - 2 * (size_t)quote);
        p = end;
        (*words)[*n] = pool_alloc(pool, text.len + 1);
        if (text.len > 0)
            memcpy((*words)[*n], text.data, text.len);
        good = good && strlen((*words)[*n]) == text.len;
        ++*n;
        buffer_free(&text);
        if (!good)
            return false;
    }
    return true;
}

/*
 * http_text.c - bytes that grow, percent-encoding, dates: pure text work, any thread.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "http_common/http_client.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

static bool
reserve(struct http_bytes *b, size_t n)
{
    size_t capacity = b->capacity > 0 ? b->capacity : 256;
    char *data;

    if (n >= SIZE_MAX / 4 - b->len)
        return false;
    if (b->len + n + 1 <= b->capacity)
        return true;
    while (capacity < b->len + n + 1)
        capacity *= 2;
    data = malloc(capacity);
    if (data == NULL)
        return false;
    if (b->len > 0)
        memcpy(data, b->data, b->len);
    data[b->len] = '\0';
    /* Not realloc(): what it leaves behind may be a secret. */
    if (b->data != NULL)
        explicit_bzero(b->data, b->capacity);
    free(b->data);
    b->data = data;
    b->capacity = capacity;
    return true;
}

bool
http_bytes_add(struct http_bytes *b, const void *data, size_t n)
{
    if (!reserve(b, n))
        return false;
    if (n > 0)
        memcpy(b->data + b->len, data, n);
    b->len += n;
    b->data[b->len] = '\0';
    return true;
}

bool
http_bytes_text(struct http_bytes *b, const char *text)
{
    return http_bytes_add(b, text, strlen(text));
}

bool
http_bytes_format(struct http_bytes *b, const char *format, ...)
{
    va_list args;
    int n;

    va_start(args, format);
    n = vsnprintf(NULL, 0, format, args);
    va_end(args);
    if (n < 0 || !reserve(b, (size_t)n))
        return false;
    va_start(args, format);
    vsnprintf(b->data + b->len, (size_t)n + 1, format, args);
    va_end(args);
    b->len += (size_t)n;
    return true;
}

bool
http_bytes_encoded(struct http_bytes *b, struct t4_slice text, bool keep_slash)
{
    static const char hex[] = "0123456789ABCDEF";

    if (text.len > SIZE_MAX / 16 || !reserve(b, 3 * text.len))
        return false;
    for (size_t i = 0; i < text.len; i++) {
        unsigned char c = text.data[i];
        bool plain = (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') ||
                     (c >= '0' && c <= '9') || c == '-' || c == '.' || c == '_' ||
                     c == '~' || (c == '/' && keep_slash);

        if (plain) {
            b->data[b->len++] = (char)c;
        } else {
            b->data[b->len++] = '%';
            b->data[b->len++] = hex[c >> 4];
            b->data[b->len++] = hex[c & 15];
        }
    }
    b->data[b->len] = '\0';
    return true;
}

void
http_bytes_wipe(struct http_bytes *b)
{
    if (b->data != NULL)
        explicit_bzero(b->data, b->capacity);
    http_bytes_free(b);
}

void
http_bytes_free(struct http_bytes *b)
{
    free(b->data);
    *b = (struct http_bytes){0};
}

/* --- dates -------------------------------------------------------------------------- */

struct scan {
    const char *next, *end;
    bool bad;
};

/* Exactly n digits. */
static int
digits(struct scan *s, int n)
{
    int v = 0;

    for (; n > 0; n--) {
        if (s->bad || s->next == s->end || *s->next < '0' || *s->next > '9') {
            s->bad = true;
            return 0;
        }
        v = 10 * v + (*s->next++ - '0');
    }
    return v;
}

static void
expect(struct scan *s, char c)
{
    if (s->bad || s->next == s->end || *s->next != c)
        s->bad = true;
    else
        s->next++;
}

/* Days from 1970-01-01 to a day of the Gregorian calendar. */
static int64_t
days_of(int year, int month, int day)
{
    static const int before[] = {0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334};
    int leaps = year - (month <= 2); /* years whose 29 February may lie before the day */

    return 365 * (int64_t)(year - 1970) + (leaps / 4 - leaps / 100 + leaps / 400) -
           (1969 / 4 - 1969 / 100 + 1969 / 400) + before[month - 1] + day - 1;
}

static int64_t
milliseconds(int year, int month, int day, int hour, int minute, int second)
{
    if (year < 1970 || month < 1 || month > 12 || day < 1 || day > 31 || hour > 23 ||
        minute > 59 || second > 60)
        return 0;
    return 1000 *
           (86400 * days_of(year, month, day) + 3600 * hour + 60 * minute + second);
}

int64_t
http_parse_date(struct t4_slice text)
{
    static const char months[] = "JanFebMarAprMayJunJulAugSepOctNovDec";
    struct scan s = {(const char *)text.data, (const char *)text.data + text.len, false};
    int year, month = 0, day, hour, minute, second;

    if (text.len != 29)
        return 0;
    s.next += 5; /* "Sun, " */
    day = digits(&s, 2);
    expect(&s, ' ');
    for (int i = 0; i < 12; i++)
        if (strncasecmp(s.next, months + 3 * (size_t)i, 3) == 0)
            month = i + 1;
    s.next += 3;
    expect(&s, ' ');
    year = digits(&s, 4);
    expect(&s, ' ');
    hour = digits(&s, 2);
    expect(&s, ':');
    minute = digits(&s, 2);
    expect(&s, ':');
    second = digits(&s, 2);
    return s.bad ? 0 : milliseconds(year, month, day, hour, minute, second);
}

int64_t
http_parse_timestamp(struct t4_slice text)
{
    struct scan s = {(const char *)text.data, (const char *)text.data + text.len, false};
    int year, month, day, hour, minute, second, sign = 0, zone = 0;
    int64_t ms, fraction = 0;

    if (text.len == 0)
        return 0;
    year = digits(&s, 4);
    expect(&s, '-');
    month = digits(&s, 2);
    expect(&s, '-');
    day = digits(&s, 2);
    expect(&s, 'T');
    hour = digits(&s, 2);
    expect(&s, ':');
    minute = digits(&s, 2);
    expect(&s, ':');
    second = digits(&s, 2);
    if (!s.bad && s.next < s.end && *s.next == '.') {
        int factor = 100;

        s.next++;
        for (; s.next < s.end && *s.next >= '0' && *s.next <= '9'; s.next++) {
            fraction += factor * (*s.next - '0');
            factor /= 10;
        }
    }
    if (!s.bad && s.next < s.end && (*s.next == '+' || *s.next == '-')) {
        sign = *s.next++ == '+' ? 1 : -1;
        zone = 60 * digits(&s, 2);
        expect(&s, ':');
        zone += digits(&s, 2);
    } else {
        expect(&s, 'Z');
    }
    if (s.bad || s.next != s.end)
        return 0;
    ms = milliseconds(year, month, day, hour, minute, second);
    return ms == 0 ? 0 : ms + fraction - sign * zone * (int64_t)60000;
}

void
http_printable(struct t4_slice text, char *out, size_t size)
{
    size_t n = 0;
    bool space = true; /* none at the beginning, and one for many */

    for (size_t i = 0; i < text.len && n + 1 < size; i++) {
        unsigned char c = text.data[i];

        if (c <= ' ' || c == 0x7f) {
            if (!space)
                out[n++] = ' ';
            space = true;
        } else {
            out[n++] = (char)c;
            space = false;
        }
    }
    while (n > 0 && out[n - 1] == ' ')
        n--;
    out[n] = '\0';
}

/*
 * text.c - texts of the S3 protocol: a growing string, names, dates, heads of answers.
 *
 * Settings files and JSON are in files.c.  Entry points: see text.h.  Pure; any thread.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "text.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#include "http_common/http_client.h"

/* --- a growing string ---------------------------------------------------------------- */

static bool
str_reserve(struct str *s, size_t n)
{
    size_t room = s->room > 0 ? s->room : 128;
    char *data;

    if (s->failed)
        return false;
    if (n < s->room - s->length)
        return true;
    if (n > SIZE_MAX / 4 - s->length) {
        s->failed = true;
        return false;
    }
    while (room <= s->length + n)
        room *= 2;
    /* Not realloc(): what moves may be a secret, and the old place is overwritten. */
    data = malloc(room);
    if (data == NULL) {
        s->failed = true;
        return false;
    }
    if (s->data != NULL) {
        memcpy(data, s->data, s->length + 1);
        explicit_bzero(s->data, s->room);
        free(s->data);
    }
    s->data = data;
    s->room = room;
    return true;
}

void
str_add(struct str *s, const char *data, size_t n)
{
    if (!str_reserve(s, n))
        return;
    if (n > 0)
        memcpy(s->data + s->length, data, n);
    s->length += n;
    s->data[s->length] = '\0';
}

void
str_addz(struct str *s, const char *text)
{
    str_add(s, text, strlen(text));
}

void
str_addf(struct str *s, const char *format, ...)
{
    va_list args;
    int n;

    va_start(args, format);
    n = vsnprintf(NULL, 0, format, args);
    va_end(args);
    if (n < 0 || !str_reserve(s, (size_t)n))
        return;
    va_start(args, format);
    vsnprintf(s->data + s->length, (size_t)n + 1, format, args);
    va_end(args);
    s->length += (size_t)n;
}

static bool
is_unreserved(char c)
{
    return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') ||
           c == '-' || c == '.' || c == '_' || c == '~';
}

void
str_encode(struct str *s, const char *data, size_t n, bool keep_slash)
{
    static const char digit[] = "0123456789ABCDEF";

    for (size_t i = 0; i < n; i++) {
        uint8_t c = (uint8_t)data[i];
        char hex[3] = {'%', digit[c >> 4], digit[c & 15]};

        if (is_unreserved(data[i]) || (keep_slash && c == '/'))
            str_add(s, data + i, 1);
        else
            str_add(s, hex, 3);
    }
}

const char *
str_text(const struct str *s)
{
    return s->data != NULL ? s->data : "";
}

void
str_free(struct str *s)
{
    free(s->data);
    *s = (struct str){0};
}

void
str_wipe(struct str *s)
{
    if (s->data != NULL)
        explicit_bzero(s->data, s->room);
    str_free(s);
}

/* --- names and numbers --------------------------------------------------------------- */

/* Bytes of the UTF-8 character at p, 0 if there is none. */
static size_t
character(const uint8_t *p, size_t n)
{
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    size_t more = *p < 0x80       ? 0
                  : *p >> 5 == 6  ? 1
                  : *p >> 4 == 14 ? 2
                  : *p >> 3 == 30 ? 3
                                  : 9;
    uint32_t code;

    if (more > 3 || more >= n)
        return 0;
    if (more == 0)
        return 1;
    code = *p & (0x3fu >> more);
    for (size_t i = 1; i <= more; i++) {
        if (p[i] >> 6 != 2)
            return 0;
        code = code << 6 | (p[i] & 0x3f);
    }
    if (code < least[more + 1] || code > 0x10ffff || (code >= 0xd800 && code < 0xe000))
        return 0;
    return more + 1;
}

bool
text_is_plain(struct t4_slice s)
{
    for (size_t at = 0, n; at < s.len; at += n) {
        if (s.data[at] < 0x20 || s.data[at] == 0x7f)
            return false;
        n = character(s.data + at, s.len - at);
        if (n == 0)
            return false;
    }
    return true;
}

bool
text_is_header(const char *s, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if ((uint8_t)s[i] < 0x20 || s[i] == 0x7f)
            return false;
    return true;
}

static int
hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return -1;
}

size_t
text_decode(char *s, size_t n)
{
    size_t to = 0;

    for (size_t i = 0; i < n; i++) {
        if (s[i] == '%') {
            if (n - i < 3 || hex_digit(s[i + 1]) < 0 || hex_digit(s[i + 2]) < 0)
                return SIZE_MAX;
            s[to++] = (char)(hex_digit(s[i + 1]) << 4 | hex_digit(s[i + 2]));
            i += 2;
        } else {
            s[to++] = s[i] == '+' ? ' ' : s[i];
        }
    }
    return to;
}

bool
text_copy(struct t4_slice s, char *out, size_t room)
{
    if (s.len >= room || (s.len > 0 && memchr(s.data, 0, s.len) != NULL))
        return false;
    if (s.len > 0)
        memcpy(out, s.data, s.len);
    out[s.len] = '\0';
    return true;
}

bool
text_number(struct t4_slice s, uint64_t *out)
{
    uint64_t v = 0;

    if (s.len == 0 || s.len > 19)
        return false;
    for (size_t i = 0; i < s.len; i++) {
        if (s.data[i] < '0' || s.data[i] > '9')
            return false;
        v = v * 10 + (uint64_t)(s.data[i] - '0');
    }
    *out = v;
    return true;
}

/* --- dates --------------------------------------------------------------------------- */

bool
text_http_date(struct t4_slice s, int64_t *ms)
{
    *ms = http_parse_date(s);
    return *ms != 0;
}

bool
text_iso_date(struct t4_slice s, int64_t *ms)
{
    *ms = http_parse_timestamp(s);
    return *ms != 0;
}

void
text_amz_date(int64_t ms, char out[17])
{
    time_t seconds = (time_t)(ms / 1000);
    struct tm tm;

    gmtime_r(&seconds, &tm);
    strftime(out, 17, "%Y%m%dT%H%M%SZ", &tm);
}

/* --- the head of an answer ----------------------------------------------------------- */

static struct t4_slice
trim(const uint8_t *p, const uint8_t *end)
{
    while (p < end && (*p == ' ' || *p == '\t'))
        p++;
    while (end > p &&
           (end[-1] == ' ' || end[-1] == '\t' || end[-1] == '\r' || end[-1] == '\n'))
        end--;
    return (struct t4_slice){p, (size_t)(end - p)};
}

/* "bytes 0-9/100" and "bytes * /100" (without the space). */
static void
content_range(struct text_head *h, struct t4_slice v)
{
    const uint8_t *end = v.data + v.len, *slash, *dash;

    if (v.len < 6 || strncasecmp((const char *)v.data, "bytes ", 6) != 0)
        return;
    v.data += 6;
    v.len -= 6;
    slash = memchr(v.data, '/', v.len);
    if (slash == NULL)
        return;
    h->has_total = text_number(trim(slash + 1, end), &h->total);
    dash = memchr(v.data, '-', (size_t)(slash - v.data));
    h->has_range = dash != NULL && text_number(trim(v.data, dash), &h->first) &&
                   text_number(trim(dash + 1, slash), &h->last) && h->first <= h->last;
}

static void
head_line(struct text_head *h, struct t4_slice line)
{
    const uint8_t *end = line.data + line.len, *colon;
    struct t4_slice name, value;

    colon = line.len > 0 ? memchr(line.data, ':', line.len) : NULL;
    if (colon == NULL)
        return;
    name = trim(line.data, colon);
    value = trim(colon + 1, end);
#define IS(text)                                                                         \
    (name.len == sizeof(text) - 1 &&                                                     \
     strncasecmp((const char *)name.data, text, sizeof(text) - 1) == 0)
    if (IS("etag")) {
        if (value.len > T4_TAG_MAX ||
            !text_is_header((const char *)value.data, value.len) ||
            !text_copy(value, h->tag, sizeof h->tag))
            h->tag[0] = '\0';
    } else if (IS("last-modified")) {
        if (!text_http_date(value, &h->modified_ms))
            h->modified_ms = 0;
    } else if (IS("content-range")) {
        content_range(h, value);
    } else if (IS("x-amz-bucket-region")) {
        if (!text_is_plain(value) || !text_copy(value, h->region, sizeof h->region))
            h->region[0] = '\0';
    } else if (IS("x-amz-request-id")) {
        if (!text_is_plain(value) ||
            !text_copy(value, h->request_id, sizeof h->request_id))
            h->request_id[0] = '\0';
    }
#undef IS
}

void
text_head(struct text_head *h, struct t4_slice lines)
{
    const uint8_t *p = lines.data, *end = p + lines.len, *eol;

    memset(h, 0, sizeof *h);
    for (; p < end; p = eol + 1) {
        eol = memchr(p, '\n', (size_t)(end - p));
        if (eol == NULL)
            break;
        head_line(h, (struct t4_slice){p, (size_t)(eol - p)});
    }
}

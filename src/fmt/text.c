/*
 * text.c - records as lines of text.  See text.h.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "fmt/text.h"

#include <inttypes.h>
#include <stdio.h>

#include "base/crc32c.h"

#define CRC_LINE 13 /* "crc 01234567\n" */

static void
line(struct buffer *out, const char *name, const char *value)
{
    buffer_append(out, name, strlen(name));
    buffer_append_u8(out, ' ');
    buffer_append(out, value, strlen(value));
    buffer_append_u8(out, '\n');
}

void
text_begin(struct buffer *out, const char *kind, unsigned format)
{
    char value[16];

    buffer_clear(out);
    snprintf(value, sizeof value, "%u", format);
    line(out, kind, value);
}

void
text_u64(struct buffer *out, const char *name, uint64_t v)
{
    char value[24];

    snprintf(value, sizeof value, "%" PRIu64, v);
    line(out, name, value);
}

void
text_hex(struct buffer *out, const char *name, uint64_t v)
{
    char value[24];

    snprintf(value, sizeof value, "%016" PRIx64, v);
    line(out, name, value);
}

void
text_bytes(struct buffer *out, const char *name, const uint8_t *data, size_t n)
{
    static const char digits[] = "0123456789abcdef";

    buffer_append(out, name, strlen(name));
    buffer_append_u8(out, ' ');
    for (size_t i = 0; i < n; i++) {
        buffer_append_u8(out, (uint8_t)digits[data[i] >> 4]);
        buffer_append_u8(out, (uint8_t)digits[data[i] & 15]);
    }
    buffer_append_u8(out, '\n');
}

void
text_string(struct buffer *out, const char *name, const char *value)
{
    buffer_append(out, name, strlen(name));
    buffer_append_u8(out, ' ');
    for (; *value != '\0'; value++)
        if ((unsigned char)*value >= ' ' && *value != 0x7f)
            buffer_append_u8(out, (uint8_t)*value);
    buffer_append_u8(out, '\n');
}

void
text_end(struct buffer *out)
{
    char value[16];

    snprintf(value, sizeof value, "%08x", crc32c(0, out->data, out->len));
    line(out, "crc", value);
}

static int
digit_of(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* n hexadecimal digits; false: something else stands there. */
static bool
parse_hex(const char *p, size_t n, uint64_t *v)
{
    *v = 0;
    for (size_t i = 0; i < n; i++) {
        if (digit_of(p[i]) < 0)
            return false;
        *v = *v << 4 | (uint64_t)digit_of(p[i]);
    }
    return true;
}

/* The value of the next line, which must have this name. */
static struct t4_slice
take(struct text_reader *r, const char *name)
{
    size_t length = strlen(name), left = (size_t)(r->end - r->next);
    const char *start = r->next, *stop = left > 0 ? memchr(start, '\n', left) : NULL;

    if (r->bad || stop == NULL || (size_t)(stop - start) < length + 1 ||
        memcmp(start, name, length) != 0 || start[length] != ' ') {
        r->bad = true;
        return slice_of(NULL, 0);
    }
    r->next = stop + 1;
    return slice_of(start + length + 1, (size_t)(stop - start) - length - 1);
}

static uint64_t
decimal(struct text_reader *r, struct t4_slice s)
{
    uint64_t v = 0;

    if (s.len == 0 || s.len > 20)
        r->bad = true;
    for (size_t i = 0; i < s.len && !r->bad; i++) {
        uint64_t d = (uint64_t)s.data[i] - '0';

        if (d > 9 || v > (UINT64_MAX - d) / 10)
            r->bad = true;
        v = v * 10 + d;
    }
    return r->bad ? 0 : v;
}

bool
text_open(struct text_reader *r, struct t4_slice text, const char *kind, unsigned *format)
{
    const char *crc_line;
    uint64_t crc;

    *r = (struct text_reader){.bad = true};
    *format = 0;
    if (text.len < CRC_LINE)
        return false;
    crc_line = (const char *)text.data + text.len - CRC_LINE;
    *r = (struct text_reader){(const char *)text.data, crc_line, false};
    *format = (unsigned)decimal(r, take(r, kind));
    if (memcmp(crc_line, "crc ", 4) != 0 || !parse_hex(crc_line + 4, 8, &crc) ||
        crc_line[12] != '\n' || crc32c(0, text.data, text.len - CRC_LINE) != crc)
        r->bad = true;
    return !r->bad;
}

uint64_t
text_read_u64(struct text_reader *r, const char *name)
{
    return decimal(r, take(r, name));
}

uint64_t
text_read_hex(struct text_reader *r, const char *name)
{
    struct t4_slice s = take(r, name);
    uint64_t v = 0;

    if (s.len != 16 || !parse_hex((const char *)s.data, 16, &v))
        r->bad = true;
    return r->bad ? 0 : v;
}

void
text_read_bytes(struct text_reader *r, const char *name, uint8_t *data, size_t n)
{
    struct t4_slice s = take(r, name);

    memset(data, 0, n);
    if (s.len != 2 * n)
        r->bad = true;
    for (size_t i = 0; i < n && !r->bad; i++) {
        uint64_t v;

        if (!parse_hex((const char *)s.data + 2 * i, 2, &v))
            r->bad = true;
        else
            data[i] = (uint8_t)v;
    }
}

void
text_read_string(struct text_reader *r, const char *name, char *value, size_t size)
{
    struct t4_slice s = take(r, name);

    value[0] = '\0';
    if (s.len >= size || (s.len > 0 && memchr(s.data, '\0', s.len) != NULL)) {
        r->bad = true;
        return;
    }
    if (s.len > 0)
        memcpy(value, s.data, s.len);
    value[s.len] = '\0';
}

bool
text_close(struct text_reader *r)
{
    return !r->bad && r->next == r->end;
}

/* --- tables of lines ---------------------------------------------------------------- */

static uint64_t
load_number(const uint8_t *member, size_t size)
{
    uint64_t u64;
    uint32_t u32;

    if (size == sizeof(bool))
        return *member;
    if (size == sizeof u32) {
        memcpy(&u32, member, sizeof u32);
        return u32;
    }
    memcpy(&u64, member, sizeof u64);
    return u64;
}

/* False: it does not fit. */
static bool
store_number(uint8_t *member, size_t size, uint64_t v)
{
    uint32_t u32 = (uint32_t)v;

    if (size == sizeof v)
        memcpy(member, &v, sizeof v);
    else if (size == sizeof u32)
        memcpy(member, &u32, sizeof u32);
    else
        *member = v != 0;
    return size == sizeof v || v == (size == sizeof u32 ? u32 : *member);
}

void
text_lines(struct buffer *out, const struct text_line *lines, size_t n,
           const void *object)
{
    for (const struct text_line *l = lines; l < lines + n; l++) {
        const uint8_t *member = (const uint8_t *)object + l->offset;

        switch (l->form) {
        case TEXT_NUMBER: text_u64(out, l->name, load_number(member, l->size)); break;
        case TEXT_ID: text_hex(out, l->name, load_number(member, l->size)); break;
        case TEXT_DIGEST: text_bytes(out, l->name, member, l->size); break;
        case TEXT_SENTENCE: text_string(out, l->name, (const char *)member); break;
        }
    }
}

void
text_read_lines(struct text_reader *r, const struct text_line *lines, size_t n,
                void *object)
{
    for (const struct text_line *l = lines; l < lines + n; l++) {
        uint8_t *member = (uint8_t *)object + l->offset;
        bool fits = true;

        switch (l->form) {
        case TEXT_NUMBER:
            fits = store_number(member, l->size, text_read_u64(r, l->name));
            break;
        case TEXT_ID:
            fits = store_number(member, l->size, text_read_hex(r, l->name));
            break;
        case TEXT_DIGEST: text_read_bytes(r, l->name, member, l->size); break;
        case TEXT_SENTENCE: text_read_string(r, l->name, (char *)member, l->size); break;
        }
        if (!fits)
            r->bad = true;
    }
}

/*
 * report.c - facts as aligned lines and as JSON.  See report.h.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "base/report.h"

#include <inttypes.h>
#include <stdio.h>

#define LABEL_COLUMNS 22

static void
add(struct buffer *b, const char *text)
{
    buffer_append(b, text, strlen(text));
}

void
report_json_string(struct buffer *b, const char *text)
{
    add(b, "\"");
    for (; *text != '\0'; text++) {
        unsigned char c = (unsigned char)*text;
        char escaped[8];

        if (c == '"' || c == '\\')
            snprintf(escaped, sizeof escaped, "\\%c", c);
        else if (c < ' ' || c > '~')
            snprintf(escaped, sizeof escaped, "\\u%04x", c);
        else
            snprintf(escaped, sizeof escaped, "%c", c);
        add(b, escaped);
    }
    add(b, "\"");
}

static void
key_of(struct report *r, const char *key)
{
    add(&r->json, r->json.len == 0 ? "{" : ",");
    report_json_string(&r->json, key);
    add(&r->json, ":");
}

static void
line(struct report *r, const char *label, const char *value)
{
    char start[LABEL_COLUMNS + 64];

    if (label == NULL)
        return;
    snprintf(start, sizeof start, "%-*s", LABEL_COLUMNS, label);
    add(&r->lines, start);
    for (; *value != '\0'; value++)
        buffer_append_u8(&r->lines, *value < ' ' || *value > '~' ? '?' : (uint8_t)*value);
    add(&r->lines, "\n");
}

void
report_text(struct report *r, const char *key, const char *label, const char *value)
{
    key_of(r, key);
    report_json_string(&r->json, value);
    line(r, label, value);
}

static void
bare(struct report *r, const char *key, const char *label, const char *value)
{
    key_of(r, key);
    add(&r->json, value);
    line(r, label, value);
}

void
report_json(struct report *r, const char *key, struct t4_slice value)
{
    key_of(r, key);
    buffer_append_slice(&r->json, value);
}

void
report_u64(struct report *r, const char *key, const char *label, uint64_t value)
{
    char text[24];

    snprintf(text, sizeof text, "%" PRIu64, value);
    bare(r, key, label, text);
}

void
report_i64(struct report *r, const char *key, const char *label, int64_t value)
{
    char text[24];

    snprintf(text, sizeof text, "%" PRId64, value);
    bare(r, key, label, text);
}

void
report_hex(struct report *r, const char *key, const char *label, uint64_t value)
{
    char text[24];

    snprintf(text, sizeof text, "%016" PRIx64, value);
    report_text(r, key, label, text);
}

void
report_bool(struct report *r, const char *key, const char *label, bool value)
{
    key_of(r, key);
    add(&r->json, value ? "true" : "false");
    line(r, label, value ? "yes" : "no");
}

void
report_line(struct report *r, const char *text)
{
    add(&r->lines, text);
    add(&r->lines, "\n");
}

void
report_end(struct report *r)
{
    add(&r->json, r->json.len == 0 ? "{}\n" : "}\n");
}

void
report_free(struct report *r)
{
    buffer_free(&r->lines);
    buffer_free(&r->json);
}

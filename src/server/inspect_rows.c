/*
 * inspect_rows.c - rows of `t4 inspect`.  See inspect_rows.h.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "server/inspect_rows.h"

#include <inttypes.h>
#include <stdio.h>

#include "base/encode.h"

#define BATCH_ROWS 200
#define BATCH_BYTES (256u * 1024)
#define SHOWN_BYTES 64 /* of a key or value in the table */
#define WIDTH_MAX 80   /* a wider cell shifts its own row only */

/* --- bytes ----------------------------------------------------------------------------------- */

/* UTF-8 without control characters. */
static bool
is_printable(struct t4_slice s)
{
    for (size_t i = 0; i < s.len;) {
        size_t n = utf8_length(s.data + i, s.len - i);

        if (n == 0 || s.data[i] < ' ' || s.data[i] == 0x7f ||
            (n == 2 && s.data[i] == 0xc2 && s.data[i + 1] < 0xa0))
            return false;
        i += n;
    }
    return true;
}

static void
add(struct buffer *b, const char *text)
{
    buffer_append(b, text, strlen(text));
}

void
json_bytes_append(struct buffer *out, const char *name, struct t4_slice bytes)
{
    if (is_printable(bytes)) {
        add(out, "\"");
        add(out, name);
        add(out, "\":");
        json_string_append(out, bytes);
        add(out, ",");
    }
    add(out, "\"");
    add(out, name);
    add(out, "_base64\":\"");
    base64_append(out, bytes);
    add(out, "\"");
}

static void
json_number(struct buffer *out, const char *name, int64_t value)
{
    char text[64];

    snprintf(text, sizeof text, ",\"%s\":%" PRId64, name, value);
    add(out, text);
}

static void
write_line(struct buffer *b)
{
    fwrite(b->data, 1, b->len, stdout);
    buffer_free(b);
}

/* --- the table ----------------------------------------------------------------------------------- */

/* Columns that a text takes on a terminal, nearly: characters. */
static size_t
width_of(const char *text)
{
    size_t n = 0;

    for (; *text != '\0'; text++)
        n += ((unsigned char)*text & 0xc0) != 0x80;
    return n;
}

static void
print_row(const struct rows *r, const char **cell)
{
    for (size_t c = 0; c < r->columns; c++) {
        size_t n = width_of(*cell);

        fputs(*cell, stdout);
        for (; c + 1 < r->columns && n < r->width[c] + 2; n++)
            putchar(' ');
        if (c + 1 < r->columns && n > r->width[c] + 2)
            putchar(' ');
        *cell += strlen(*cell) + 1;
    }
    putchar('\n');
}

static void
print_heading(struct rows *r)
{
    struct buffer line = {0};
    const char *cell;

    for (size_t c = 0; c < r->columns; c++)
        buffer_append(&line, r->heading[c], strlen(r->heading[c]) + 1);
    cell = (const char *)line.data;
    print_row(r, &cell);
    buffer_free(&line);
    r->headed = true;
}

void
rows_end(struct rows *r)
{
    const char *cell = (const char *)r->cells.data;

    if (!r->json && !r->headed)
        print_heading(r);
    for (size_t i = 0; i < r->batch; i++)
        print_row(r, &cell);
    buffer_free(&r->cells);
    r->batch = 0;
}

static void
begin(struct rows *r, bool json, const char *const *heading)
{
    *r = (struct rows){.json = json, .heading = heading};
    for (; heading[r->columns] != NULL; r->columns++)
        r->width[r->columns] = strlen(heading[r->columns]);
}

static void
cell_end(struct rows *r, size_t column, size_t start)
{
    size_t width;

    buffer_append_u8(&r->cells, 0);
    width = width_of((const char *)r->cells.data + start);
    if (width > WIDTH_MAX)
        width = WIDTH_MAX;
    if (width > r->width[column])
        r->width[column] = width;
}

static void
cell_text(struct rows *r, size_t column, const char *text)
{
    size_t start = r->cells.len;

    add(&r->cells, text);
    cell_end(r, column, start);
}

static void
cell_number(struct rows *r, size_t column, int64_t value)
{
    char text[32];

    snprintf(text, sizeof text, "%" PRId64, value);
    cell_text(r, column, text);
}

/* A lease, "-" if there is none. */
static void
cell_lease(struct rows *r, size_t column, int64_t lease)
{
    char text[32];

    snprintf(text, sizeof text, "%" PRIx64, (uint64_t)lease);
    cell_text(r, column, lease == 0 ? "-" : text);
}

/* As it is, if it can be mistaken for nothing else; else in quotes with escapes. */
static void
cell_bytes(struct rows *r, size_t column, struct t4_slice s)
{
    size_t start = r->cells.len, shown = s.len < SHOWN_BYTES ? s.len : SHOWN_BYTES;
    bool plain;

    while (shown < s.len && shown > 0 && (s.data[shown] & 0xc0) == 0x80)
        shown--; /* no character is cut */
    plain = s.len > 0 && is_printable(slice_of(s.data, shown)) &&
            memchr(s.data, '"', shown) == NULL && s.data[0] != ' ' && s.data[0] != '-' &&
            s.data[shown - 1] != ' ';
    if (plain)
        buffer_append(&r->cells, s.data, shown);
    else
        buffer_append_u8(&r->cells, '"');
    for (size_t i = 0; !plain && i < shown;) {
        size_t n = utf8_length(s.data + i, shown - i);
        char escaped[8];

        if (n > 0 && is_printable(slice_of(s.data + i, n))) {
            if (s.data[i] == '"' || s.data[i] == '\\')
                buffer_append_u8(&r->cells, '\\');
            buffer_append(&r->cells, s.data + i, n);
            i += n;
        } else {
            snprintf(escaped, sizeof escaped, "\\x%02x", s.data[i++]);
            add(&r->cells, escaped);
        }
    }
    if (!plain)
        buffer_append_u8(&r->cells, '"');
    if (shown < s.len) {
        char rest[48];

        snprintf(rest, sizeof rest, "... (%zu bytes)", s.len);
        add(&r->cells, rest);
    }
    cell_end(r, column, start);
}

static void
row_end(struct rows *r)
{
    r->count++;
    r->batch++;
    if (r->batch == BATCH_ROWS || r->cells.len >= BATCH_BYTES)
        rows_end(r);
}

/* --- versions ------------------------------------------------------------------------------------- */

static void
version_json(struct rows *r, const struct inspected_version *v)
{
    struct buffer b = {0};

    add(&b, "{");
    json_bytes_append(&b, "key", v->key);
    json_number(&b, "revision", v->revision);
    if (v->deleted) {
        add(&b, ",\"op\":\"delete\"}\n");
    } else {
        add(&b, ",\"op\":\"put\"");
        json_number(&b, "create_revision", v->create_revision);
        json_number(&b, "version", v->version);
        json_number(&b, "lease", v->lease);
        add(&b, ",");
        json_bytes_append(&b, "value", v->value);
        add(&b, "}\n");
    }
    write_line(&b);
    r->count++;
}

void
rows_begin_versions(struct rows *r, bool json)
{
    static const char *const heading[] = {"KEY",   "REVISION", "CREATED", "VERSION",
                                          "LEASE", "VALUE",    NULL};

    begin(r, json, heading);
}

void
rows_version(struct rows *r, const struct inspected_version *v)
{
    if (r->json) {
        version_json(r, v);
        return;
    }
    cell_bytes(r, 0, v->key);
    cell_number(r, 1, v->revision);
    cell_number(r, 2, v->create_revision);
    cell_number(r, 3, v->version);
    cell_lease(r, 4, v->lease);
    cell_bytes(r, 5, v->value);
    row_end(r);
}

void
rows_begin_history(struct rows *r, bool json)
{
    static const char *const heading[] = {"REVISION", "OP",    "VERSION",
                                          "LEASE",    "VALUE", NULL};

    begin(r, json, heading);
}

void
rows_history(struct rows *r, const struct inspected_version *v)
{
    if (r->json) {
        version_json(r, v);
        return;
    }
    cell_number(r, 0, v->revision);
    cell_text(r, 1, v->deleted ? "delete" : "put");
    if (v->deleted) {
        for (size_t c = 2; c < 5; c++)
            cell_text(r, c, "-");
    } else {
        cell_number(r, 2, v->version);
        cell_lease(r, 3, v->lease);
        cell_bytes(r, 4, v->value);
    }
    row_end(r);
}

/* --- changes -------------------------------------------------------------------------------------- */

void
rows_begin_changes(struct rows *r, bool json)
{
    static const char *const heading[] = {"KEY", "TYPE",   "FIRST_REV", "LAST_REV",
                                          "OPS", "BEFORE", "AFTER",     NULL};

    begin(r, json, heading);
}

static void
change_json(struct rows *r, const struct inspected_change *c)
{
    struct buffer b = {0};

    add(&b, "{");
    json_bytes_append(&b, "key", c->key);
    add(&b, ",\"type\":\"");
    add(&b, change_kind_name(change_kind(c)));
    add(&b, "\"");
    json_number(&b, "first_revision", c->first);
    json_number(&b, "last_revision", c->last);
    json_number(&b, "operations", (int64_t)c->operations);
    if (c->was) {
        add(&b, ",");
        json_bytes_append(&b, "before", c->before);
    }
    if (c->is) {
        add(&b, ",");
        json_bytes_append(&b, "after", c->after);
    }
    add(&b, "}\n");
    write_line(&b);
    r->count++;
}

void
rows_change(struct rows *r, const struct inspected_change *c)
{
    if (r->json) {
        change_json(r, c);
        return;
    }
    cell_bytes(r, 0, c->key);
    cell_text(r, 1, change_kind_name(change_kind(c)));
    cell_number(r, 2, c->first);
    cell_number(r, 3, c->last);
    cell_number(r, 4, (int64_t)c->operations);
    if (c->was)
        cell_bytes(r, 5, c->before);
    else
        cell_text(r, 5, "-");
    if (c->is)
        cell_bytes(r, 6, c->after);
    else
        cell_text(r, 6, "-");
    row_end(r);
}

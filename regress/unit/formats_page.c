/*
 * formats_page.c - reading the examples of the page.  See formats_page.h.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <setjmp.h>

#include <cmocka.h>

#include "fmt/entry.h"
#include "formats_page.h"

static struct buffer page;

/* --- the page ----------------------------------------------------------------------- */

int
formats_page_open(void **state)
{
    const char *root = getenv("T4_SRC_DIR");
    char path[4096];
    FILE *in;
    size_t n;

    (void)state;
    snprintf(path, sizeof path, "%s/sql-like-docs/internals/formats.md",
             root != NULL ? root : "..");
    in = fopen(path, "r");
    if (in == NULL)
        return -1;
    do {
        n = fread(buffer_reserve(&page, 65536), 1, 65536, in);
        page.len += n;
    } while (n > 0);
    fclose(in);
    buffer_append_u8(&page, '\0');
    return 0;
}

int
formats_page_close(void **state)
{
    (void)state;
    buffer_free(&page);
    return 0;
}

struct t4_slice
formats_text(const char *head)
{
    char *at = strstr((char *)page.data, head), *end;

    if (at == NULL || (end = strstr(at, "\n```")) == NULL)
        fail_msg("formats.md has no block %s", head);
    return slice_of(at, (size_t)(end + 1 - at));
}

static int
hex_digit(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static void
append_bytes(struct buffer *out, const char *name)
{
    char head[64];
    struct t4_slice text;
    const char *p, *end;

    snprintf(head, sizeof head, "```bytes %s\n", name);
    text = formats_text(head);
    p = (const char *)text.data + strlen(head);
    end = (const char *)text.data + text.len;
    for (; p < end; p = strchr(p, '\n') + 1) {
        if (*p == '@') {
            char other[32] = "";

            sscanf(p + 1, "%31[a-z-]", other);
            append_bytes(out, other);
            continue;
        }
        for (; hex_digit(p[0]) >= 0 && hex_digit(p[1]) >= 0; p += p[2] == ' ' ? 3 : 2)
            buffer_append_u8(out, (uint8_t)(hex_digit(p[0]) << 4 | hex_digit(p[1])));
    }
}

struct buffer
formats_bytes(const char *name)
{
    struct buffer b = {0};

    append_bytes(&b, name);
    return b;
}

static void
print_hex(const char *what, struct t4_slice s)
{
    fprintf(stderr, "%s", what);
    for (size_t i = 0; i < s.len; i++)
        fprintf(stderr, " %02x", s.data[i]);
    fprintf(stderr, "\n");
}

void
formats_same(struct buffer *made, const char *name)
{
    struct buffer shown = formats_bytes(name);

    if (!slice_equal(buffer_slice(made), buffer_slice(&shown))) {
        print_hex("the page has: ", buffer_slice(&shown));
        print_hex("the code makes:", buffer_slice(made));
        fail_msg("formats.md: bytes %s", name);
    }
    buffer_free(&shown);
    buffer_free(made);
}

/* --- what the examples are of -------------------------------------------------------------- */

void
formats_entry(struct buffer *out)
{
    const struct entry e = {.index = INDEX,
                            .term = TERM,
                            .revision = REVISION,
                            .time_ms = TIME_MS,
                            .kind = ENTRY_NORMAL,
                            .mutations = 2};
    const struct mutation put = {.space = SPACE_KEYS,
                                 .key = slice_str("greeting"),
                                 .value = slice_str("hello"),
                                 .create_revision = REVISION,
                                 .version = 1,
                                 .lease = LEASE};
    const struct mutation attach = {.space = SPACE_ATTACHMENTS,
                                    .key = slice_of("\0\0\0\0\0\0\0\7greeting", 16)};

    entry_encode_head(out, &e);
    entry_add(out, &put);
    entry_add(out, &attach);
}

void
formats_record(struct buffer *key, struct buffer *value)
{
    const struct version v = {.stamp = REVISION,
                              .create_revision = REVISION,
                              .version = 1,
                              .lease = LEASE,
                              .value = slice_str("hello")};

    record_key_encode(key, slice_str("kgreeting"), REVISION);
    record_value_encode(value, buffer_slice(key), &v);
}

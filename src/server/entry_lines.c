/*
 * entry_lines.c - log entries as JSON lines, or as name=value.  See entry_lines.h.
 *
 * The names are those of sql-like-docs/ref/t4-wal.md; programs read them, so they stay.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "server/entry_lines.h"

#include <inttypes.h>
#include <stdio.h>
#include <time.h>

#include "base/encode.h"
#include "fmt/entry.h"

struct line {
    struct buffer *out;
    const struct entry_style *style;
    bool begun;
};

static void
add(struct line *l, const char *text)
{
    buffer_append(l->out, text, strlen(text));
}

static void
name(struct line *l, const char *text, const char *suffix)
{
    const char *quote = l->style->json ? "\"" : "";

    if (l->begun)
        add(l, l->style->json ? "," : " ");
    else if (l->style->json)
        add(l, "{");
    l->begun = true;
    add(l, quote);
    add(l, text);
    add(l, suffix);
    add(l, quote);
    add(l, l->style->json ? ":" : "=");
}

static void
end(struct line *l)
{
    add(l, l->style->json ? "}\n" : "\n");
    l->begun = false;
}

static void
u64(struct line *l, const char *what, uint64_t value)
{
    char text[24];

    snprintf(text, sizeof text, "%" PRIu64, value);
    name(l, what, "");
    add(l, text);
}

static void
i64(struct line *l, const char *what, int64_t value)
{
    char text[24];

    snprintf(text, sizeof text, "%" PRId64, value);
    name(l, what, "");
    add(l, text);
}

/* One of our own words: needs no escapes. */
static void
word(struct line *l, const char *what, const char *value)
{
    const char *quote = l->style->json ? "\"" : "";

    name(l, what, "");
    add(l, quote);
    add(l, value);
    add(l, quote);
}

/* Any bytes: a string where they are `text`, else under another name in base64. */
static void
bytes(struct line *l, const char *what, struct t4_slice value, bool text)
{
    if (text && !l->style->base64 && utf8_valid(value)) {
        name(l, what, "");
        json_string_append(l->out, value);
        return;
    }
    name(l, what, "_base64");
    if (l->style->json)
        add(l, "\"");
    base64_append(l->out, value);
    if (l->style->json)
        add(l, "\"");
}

static void
moment(struct line *l, uint64_t ms)
{
    time_t seconds = (time_t)(ms / 1000);
    char text[64], whole[80];
    struct tm tm;

    if (ms / 1000 > INT64_MAX / 1000 || gmtime_r(&seconds, &tm) == NULL ||
        strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%S", &tm) == 0)
        snprintf(text, sizeof text, "-");
    snprintf(whole, sizeof whole, "%s.%03uZ", text, (unsigned)(ms % 1000));
    word(l, "time", text[0] == '-' ? "" : whole);
}

static void
head(struct line *l, const struct entry *e)
{
    u64(l, "index", e->index);
    u64(l, "term", e->term);
    i64(l, "revision", e->revision);
    moment(l, e->time_ms);
    word(l, "kind",
         e->kind == ENTRY_NORMAL       ? "normal"
         : e->kind == ENTRY_COMPACTION ? "compaction"
                                       : "reset");
    if (e->kind != ENTRY_NORMAL)
        i64(l, "compact_revision", e->compact_revision);
    if (e->kind == ENTRY_RESET) {
        u64(l, "generation", e->reset.generation);
        u64(l, "base_index", e->reset.base_index);
        i64(l, "base_revision", e->reset.base_revision);
    }
}

static void
mutation(struct line *l, const struct mutation *m)
{
    bool put = !(m->flags & MUTATION_TOMBSTONE);

    word(l, "space",
         m->space == SPACE_KEYS     ? "keys"
         : m->space == SPACE_SYSTEM ? "system"
                                    : "attachments");
    word(l, "op", put ? "put" : "delete");
    if (m->space == SPACE_ATTACHMENTS && m->key.len >= 8) {
        i64(l, "lease", (int64_t)get_u64be(m->key.data));
        bytes(l, "key", slice_of(m->key.data + 8, m->key.len - 8), true);
    } else {
        bytes(l, "key", m->key, true);
    }
    if (put && m->space == SPACE_KEYS) {
        i64(l, "create_revision", m->create_revision);
        i64(l, "version", m->version);
        i64(l, "lease", m->lease);
    }
    if (put)
        bytes(l, "value", m->value, m->space == SPACE_KEYS); /* others are numbers */
}

bool
entry_lines_append(struct buffer *out, struct t4_slice entry,
                   const struct entry_style *style)
{
    struct line l = {.out = out, .style = style};
    struct byte_reader r = reader_of(entry);
    struct mutation m;
    struct entry e;

    if (!entry_decode_head(&r, &e))
        return false;
    for (uint32_t i = 0; i < e.mutations; i++) {
        if (!entry_next(&r, &m))
            return false;
        head(&l, &e);
        mutation(&l, &m);
        end(&l);
    }
    if (e.mutations == 0) {
        head(&l, &e);
        end(&l);
    }
    return entry_end(&r);
}

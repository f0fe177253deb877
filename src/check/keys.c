/*
 * keys.c - awkward keys: each legal one is a key of its own.
 *
 * Keys that look alike to a file system, to a URL or to XML must not be taken for one
 * another, and must come back from a listing as they went in.
 *
 * Entry point: check_keys().  Runs on: the thread of the check.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "check/check_int.h"

static const char *const awkward[] = {
    "a",
    "a/b",
    "a/b/c",
    "A",
    "A/b",
    "a/",
    "a//b",
    "a/b/",
    "/a",
    "/",
    "//",
    "///",
    ".",
    "..",
    "../x",
    "./x",
    "a/../b",
    "a/./b",
    "a/.",
    "a/..",
    ".hidden",
    "...",
    " ",
    " leading",
    "trailing ",
    "in the middle",
    "dot.",
    "a+b",
    "a%2fb",
    "a%2Fb",
    "%",
    "%41",
    "%25",
    "%zz",
    "+",
    "~",
    "a+",
    "a~",
    "a=b&c=d",
    "q?x",
    "q#x",
    "semi;colon",
    "co:lon",
    "comma,",
    "at@",
    "dollar$",
    "star*",
    "(round)",
    "[square]",
    "{curly}",
    "back\\slash",
    "pipe|",
    "caret^",
    "tick`",
    "quote'",
    "double\"",
    "<xml>&amp;",
    "&lt;",
    "]]>",
    "\xc3\xa4",
    "a\xcc\x88",
    "\xc3\x84",
    "\xe6\x97\xa5\xe6\x9c\xac",
    "\xf0\x9f\x90\x98",
    "\xef\xbf\xbd",
    "\xc2\xa0",
    "\xe2\x80\xa8",
    "con",
    "nul.txt",
    "-rf",
    "--",
    "index.html",
    "a.tmp",
    "t4object",
};
#define N_AWKWARD (sizeof awkward / sizeof awkward[0])
#define N_LONG 6

struct key {
    char *name;
    bool there;
};

static char *
repeated(char c, size_t n, const char *tail)
{
    char *text = mem_alloc(n + strlen(tail) + 1);

    memset(text, c, n);
    strcpy(text + n, tail);
    return text;
}

static void
make_keys(const struct world *w, struct key *keys)
{
    size_t most = CHECK_KEY_MAX - strlen(w->prefix);

    for (size_t i = 0; i < N_AWKWARD; i++)
        keys[i].name = mem_strdup(awkward[i]);
    keys += N_AWKWARD;
    keys[0].name = repeated('x', 254, "");
    keys[1].name = repeated('x', 254, "y"); /* around the longest name of a file */
    keys[2].name = repeated('x', 254, "yz");
    keys[3].name = repeated('X', 300, "/tail");
    keys[4].name = repeated('%', most - 1, "%"); /* the longest key */
    keys[5].name = repeated('/', most - 1, "e");
}

static int
order(const void *a, const void *b)
{
    return strcmp(((const struct key *)a)->name, ((const struct key *)b)->name);
}

/* The name as it may stand in a line of TAP. */
static const char *
shown(const char *name, char out[64])
{
    size_t n = 0;

    for (; *name != '\0' && n < 48; name++) {
        if (*name > 0x20 && *name < 0x7f)
            out[n++] = *name;
        else
            n += (size_t)snprintf(out + n, 64 - n, "\\x%02x", (unsigned char)*name);
    }
    snprintf(out + n, 64 - n, "%s", *name != '\0' ? "..." : "");
    return out;
}

static void
write_keys(struct world *w, struct key *keys, size_t n)
{
    struct answer a = {0};
    char text[64];

    for (size_t i = 0; i < n; i++) {
        world_create(w, &a, keys[i].name, keys[i].name);
        keys[i].there = a.status == T4_OK;
        if (!keys[i].there && a.status != T4_E_PRECONDITION &&
            w->check->options->allow_refused_keys)
            check_note(w->check, "the store refuses the key %s: %s; %s",
                       shown(keys[i].name, text), status_text(a.status), a.error.message);
        else
            world_answer(w, &a, T4_OK, "key %s of %zu bytes", shown(keys[i].name, text),
                         strlen(w->prefix) + strlen(keys[i].name));
    }
}

static void
read_keys(struct world *w, struct key *keys, size_t n)
{
    struct answer a = {0};
    unsigned wrong = 0;
    char text[64];

    for (size_t i = 0; i < n; i++) {
        world_get(w, &a, keys[i].name);
        if (keys[i].there ? a.status == T4_OK && slice_equal(buffer_slice(&a.body),
                                                             slice_str(keys[i].name))
                          : a.status != T4_OK)
            continue;
        if (wrong++ < 5)
            check_note(w->check, "key %s: %s; %s", shown(keys[i].name, text),
                       status_text(a.status), a.error.message);
    }
    check_ok(w->check, wrong == 0, "each key has its own bytes");
    check_answer_free(&a);
}

static void
list_keys(struct world *w, struct key *keys, size_t n, const char *what)
{
    struct buffer want = {0}, got = {0};
    struct answer a = {0};
    size_t count, at = 0;

    for (size_t i = 0; i < n; i++) {
        if (!keys[i].there)
            continue;
        buffer_append(&want, keys[i].name, strlen(keys[i].name));
        buffer_append_u8(&want, '\n');
    }
    world_answer(w, (world_list_names(w, &a, "", NULL, 10000, &got, &count), &a), T4_OK,
                 "%s", what);
    while (at < want.len && at < got.len && want.data[at] == got.data[at])
        at++;
    if (!check_ok(w->check, at == want.len && at == got.len,
                  "gives them as they are, in bytewise order")) {
        while (at > 0 && want.data[at - 1] != '\n')
            at--;
        check_note(w->check, "expected \"%.*s\", got \"%.*s\"",
                   (int)(want.len - at < 80 ? want.len - at : 80),
                   (const char *)want.data + at,
                   (int)(got.len > at ? got.len - at < 80 ? got.len - at : 80 : 0),
                   got.len > at ? (const char *)got.data + at : "");
    }
    buffer_free(&want);
    buffer_free(&got);
}

/* Every second one goes; the others, though they look alike, stay. */
static void
remove_keys(struct world *w, struct key *keys, size_t n)
{
    struct answer a = {0};
    unsigned wrong = 0;
    char text[64];

    for (size_t i = 0; i < n; i += 2) {
        if (!keys[i].there)
            continue;
        if (world_remove_one(w, &a, keys[i].name) != T4_OK && wrong++ < 5)
            check_note(w->check, "key %s: %s; %s", shown(keys[i].name, text),
                       status_text(a.status), a.error.message);
        keys[i].there = false;
    }
    check_ok(w->check, wrong == 0, "every second one is removed");
}

void
check_keys(struct world *w)
{
    struct key keys[N_AWKWARD + N_LONG] = {0};
    size_t n = N_AWKWARD + N_LONG;

    if (!check_ok(w->check, world_clear(w), "the prefix is empty"))
        return;
    make_keys(w, keys);
    write_keys(w, keys, n);
    qsort(keys, n, sizeof keys[0], order);
    read_keys(w, keys, n);
    list_keys(w, keys, n, "a listing of awkward keys");
    remove_keys(w, keys, n);
    read_keys(w, keys, n);
    list_keys(w, keys, n, "a listing of the rest");
    check_ok(w->check, world_clear(w), "all of them are removed in one call");
    for (size_t i = 0; i < n; i++)
        mem_free(keys[i].name);
}

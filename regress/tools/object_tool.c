/*
 * object_tool.c - an object store by hand: commands on standard input, one answer each.
 *
 *   object_tool URL [PLUGIN.SETTING=VALUE ...]
 *
 *   put any|absent|match:TAG KEY SIZE SEED   a body of SIZE bytes that SEED decides
 *   get KEY OFFSET LENGTH                    LENGTH "end": all the rest
 *   head KEY           remove KEY ...        list PREFIX|- AFTER|- MAX
 *   sum SIZE SEED OFFSET LENGTH              the checksum that such a get must show
 *   probe PREFIX|-     timeout MILLISECONDS  for the calls that follow; 0: the default
 *
 * Keys are percent-encoded.  An answer is a line "STATUS words", STATUS being OK, NOTFOUND, ...
 * and the words key=value pairs, or for a failure the store's message and hint; list writes a
 * line "KEY tag=... length=..." per object before it.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/crc32c.h"
#include "base/memory.h"
#include "base/slice.h"
#include "object/object.h"

#define MAX_WORDS 64
#define MAX_SETTINGS 16

static uint64_t timeout_ns;

static const char *
name_of(t4_status st)
{
    static const char *const names[] = {
        "OK",        "NOTFOUND", "EXISTS",      "PRECONDITION", "BUSY",    "TIMEOUT",
        "CANCELLED", "UNKNOWN",  "UNAVAILABLE", "DENIED",       "INVALID", "CORRUPT",
        "NOSPACE",   "NOMEM",    "UNSUPPORTED", "INTERNAL",     "IO"};

    return st <= 0 && -st < (t4_status)(sizeof names / sizeof names[0]) ? names[-st]
                                                                        : "?";
}

static void
failed(t4_status st, const struct error *error)
{
    printf("%s %s%s%s\n", name_of(st), error->message,
           error->hint[0] != '\0' ? " | " : "", error->hint);
}

static void
print_info(const struct t4_object_info *info)
{
    printf("tag=%.*s length=%" PRIu64 " modified=%" PRId64 " date=%" PRId64,
           (int)info->tag_length, info->tag, info->length, info->modified_ms,
           info->date_ms);
}

/* Decodes %xx in place. */
static struct t4_slice
decoded(char *text)
{
    size_t n = 0;

    if (strcmp(text, "-") == 0)
        return slice_of(text, 0);
    for (size_t i = 0; text[i] != '\0'; i++) {
        unsigned byte;

        if (text[i] == '%' && sscanf(text + i + 1, "%2x", &byte) == 1) {
            text[n++] = (char)byte;
            i += 2;
        } else {
            text[n++] = text[i];
        }
    }
    return slice_of(text, n);
}

static struct t4_slice
body_of(uint64_t size, uint64_t seed)
{
    uint8_t *data = mem_alloc(size + 1);

    for (uint64_t i = 0; i < size; i++)
        data[i] = (uint8_t)((i * 2654435761u + seed * 40503u) >> 13);
    return slice_of(data, size);
}

/* --- commands ----------------------------------------------------------------------- */

static void
do_put(struct object_store *s, char **word)
{
    struct t4_put put = {.size = sizeof put, .condition = T4_PUT_ANY};
    struct t4_object_info info = {.size = sizeof info};
    struct error error = {0};
    t4_status st;

    if (strcmp(word[1], "absent") == 0)
        put.condition = T4_PUT_IF_ABSENT;
    if (strncmp(word[1], "match:", 6) == 0) {
        put.condition = T4_PUT_IF_MATCH;
        put.if_match = slice_str(word[1] + 6);
    }
    put.key = decoded(word[2]);
    put.body = body_of(strtoull(word[3], NULL, 10), strtoull(word[4], NULL, 10));
    st = object_put(s, &put, timeout_ns, &info, &error);
    if (st == T4_OK) {
        printf("OK ");
        print_info(&info);
        printf("\n");
    } else {
        failed(st, &error);
    }
    mem_free((void *)(uintptr_t)put.body.data);
}

static void
do_get(struct object_store *s, char **word)
{
    uint64_t length =
        strcmp(word[3], "end") == 0 ? T4_TO_THE_END : strtoull(word[3], NULL, 10);
    struct t4_object_info info = {.size = sizeof info};
    struct error error = {0};
    struct buffer out = {0};
    t4_status st;

    st = object_get(s, decoded(word[1]), strtoull(word[2], NULL, 10), length,
                    (size_t)1 << 30, timeout_ns, &out, &info, &error);
    if (st == T4_OK) {
        printf("OK ");
        print_info(&info);
        printf(" got=%zu sum=%08x\n", out.len, crc32c(0, out.data, out.len));
    } else {
        failed(st, &error);
    }
    buffer_free(&out);
}

static void
do_sum(char **word)
{
    uint64_t size = strtoull(word[1], NULL, 10), offset = strtoull(word[3], NULL, 10),
             length = strtoull(word[4], NULL, 10);
    struct t4_slice body = body_of(size, strtoull(word[2], NULL, 10));

    if (offset > size)
        offset = size;
    if (length > size - offset)
        length = size - offset;
    printf("OK sum=%08x\n", crc32c(0, body.data + offset, length));
    mem_free((void *)(uintptr_t)body.data);
}

static void
do_head(struct object_store *s, char **word)
{
    struct t4_object_info info = {.size = sizeof info};
    struct error error = {0};
    t4_status st = object_head(s, decoded(word[1]), timeout_ns, &info, &error);

    if (st == T4_OK) {
        printf("OK ");
        print_info(&info);
        printf("\n");
    } else {
        failed(st, &error);
    }
}

static void
do_remove(struct object_store *s, char **word, size_t n)
{
    struct t4_slice keys[MAX_WORDS];
    struct error error = {0};
    t4_status st;

    for (size_t i = 1; i < n; i++)
        keys[i - 1] = decoded(word[i]);
    st = object_remove(s, keys, n - 1, timeout_ns, &error);
    if (st == T4_OK)
        printf("OK\n");
    else
        failed(st, &error);
}

static t4_status
list_line(void *arg, struct t4_slice key, const struct t4_object_info *info)
{
    ++*(uint64_t *)arg;
    for (size_t i = 0; i < key.len; i++)
        printf(key.data[i] > ' ' && key.data[i] < 0x7f && key.data[i] != '%' ? "%c"
                                                                             : "%%%02X",
               key.data[i]);
    printf(" ");
    print_info(info);
    printf("\n");
    return T4_OK;
}

static void
do_list(struct object_store *s, char **word)
{
    struct error error = {0};
    uint64_t n = 0;
    t4_status st = object_list(s, decoded(word[1]), decoded(word[2]),
                               (uint32_t)strtoul(word[3], NULL, 10), timeout_ns,
                               list_line, &n, &error);

    if (st == T4_OK)
        printf("OK count=%" PRIu64 "\n", n);
    else
        failed(st, &error);
}

static void
do_probe(struct object_store *s, char **word)
{
    struct error error = {0};
    t4_status st = object_probe(s, decoded(word[1]), &error);

    if (st == T4_OK)
        printf("OK\n");
    else
        failed(st, &error);
}

static void
run_line(struct object_store *s, char *line)
{
    char *word[MAX_WORDS], *at = NULL;
    size_t n = 0;

    for (char *w = strtok_r(line, " \n", &at); w != NULL && n < MAX_WORDS;
         w = strtok_r(NULL, " \n", &at))
        word[n++] = w;
    if (n == 0)
        return;
    if (n == 5 && strcmp(word[0], "put") == 0)
        do_put(s, word);
    else if (n == 4 && strcmp(word[0], "get") == 0)
        do_get(s, word);
    else if (n == 5 && strcmp(word[0], "sum") == 0)
        do_sum(word);
    else if (n == 2 && strcmp(word[0], "head") == 0)
        do_head(s, word);
    else if (n >= 2 && strcmp(word[0], "remove") == 0)
        do_remove(s, word, n);
    else if (n == 4 && strcmp(word[0], "list") == 0)
        do_list(s, word);
    else if (n == 2 && strcmp(word[0], "probe") == 0)
        do_probe(s, word);
    else if (n == 2 && strcmp(word[0], "timeout") == 0)
        printf("OK timeout=%" PRIu64 "\n",
               (timeout_ns = strtoull(word[1], NULL, 10) * 1000000) / 1000000);
    else
        printf("? no such command: %s\n", word[0]);
    fflush(stdout);
}

int
main(int argc, char **argv)
{
    struct plugin_setting settings[MAX_SETTINGS];
    struct object_options options = {.env = env_posix(), .settings = settings};
    struct error error = {0};
    struct object_store *s;
    char *line = NULL;
    size_t room = 0;
    t4_status st;

    if (argc < 2) {
        fprintf(stderr, "usage: object_tool URL [PLUGIN.SETTING=VALUE ...]\n");
        return 2;
    }
    for (int i = 2; i < argc && options.n_settings < MAX_SETTINGS; i++) {
        char *equals = strchr(argv[i], '=');

        if (equals == NULL)
            return 2;
        *equals = '\0';
        settings[options.n_settings++] =
            (struct plugin_setting){.name = argv[i], .value = equals + 1};
    }
    st = object_open(argv[1], &options, &s, &error);
    if (st != T4_OK) {
        failed(st, &error);
        return 1;
    }
    printf("OK %s\n", object_url(s));
    fflush(stdout);
    while (getline(&line, &room, stdin) > 0)
        run_line(s, line);
    free(line);
    if (object_close(s) != 0) {
        printf("LEAK\n");
        return 1;
    }
    return 0;
}

/*
 * words.c - flags between words.  See words.h.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "server/words.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "server/values.h"

void *
pool_alloc(struct pool *p, size_t n)
{
    if (p->n % 16 == 0)
        p->piece = mem_realloc(p->piece, (p->n + 16) * sizeof *p->piece);
    p->piece[p->n] = mem_zalloc(n);
    return p->piece[p->n++];
}

void
pool_free(struct pool *p)
{
    for (size_t i = 0; i < p->n; i++)
        mem_free(p->piece[i]);
    mem_free(p->piece);
    *p = (struct pool){0};
}

bool
word_parse_id(const char *text, int64_t *out)
{
    const char *digits = text + (text[0] == '-' || text[0] == '+');
    char *end;

    if (digits[0] == '\0' || digits[strspn(digits, "0123456789abcdefABCDEF")] != '\0')
        return false;
    errno = 0;
    *out = strtoll(text, &end, 16);
    return errno == 0 && *end == '\0';
}

/* --- flags ------------------------------------------------------------------------------------ */

/* The flag that a word names; *value: what stands behind its name in the same word, or NULL. */
static const struct word_flag *
find(const struct word_flag *flags, size_t n, const char *word, const char **value)
{
    *value = NULL;
    for (size_t i = 0; i < n; i++) {
        size_t length = strlen(flags[i].name);

        if (word[1] == '-' && strncmp(word + 2, flags[i].name, length) == 0 &&
            (word[2 + length] == '\0' || word[2 + length] == '=')) {
            *value = word[2 + length] == '=' ? word + 3 + length : NULL;
            return &flags[i];
        }
        if (word[1] != '-' && word[1] == flags[i].letter) {
            *value = word[2] == '\0' ? NULL : word + 2 + (word[2] == '=');
            return &flags[i];
        }
    }
    return NULL;
}

static t4_status
unknown(const struct word_flag *flags, size_t n, const char *word, struct error *error)
{
    char list[400] = "";

    for (size_t i = 0; i < n; i++) {
        size_t used = strlen(list);

        snprintf(list + used, sizeof list - used, " --%s", flags[i].name);
    }
    error_set(error, T4_E_INVALID, "there is no flag \"%.128s\"", word);
    return error_hint(error,
                      "the flags are%s; what begins with a dash and is none stands "
                      "behind --",
                      list);
}

static t4_status
set(const struct word_flag *f, const char *value, struct error *error)
{
    static const char *const wanted[] = {"true or false", "a number",
                                         "hexadecimal digits",
                                         "a duration such as 500ms or 5s", "a text"};
    int64_t truth = 0;
    bool good = true;

    switch (f->type) {
    case WORD_SWITCH:
        good = value_parse_bool(value, &truth);
        *(bool *)f->out = truth != 0;
        break;
    case WORD_INT: good = value_parse_int(value, f->out); break;
    case WORD_ID: good = word_parse_id(value, f->out); break;
    case WORD_DURATION: good = value_parse_duration(value, f->out); break;
    case WORD_TEXT: *(const char **)f->out = value; break;
    }
    if (good)
        return T4_OK;
    error_set(error, T4_E_INVALID, "--%s takes no \"%.128s\"", f->name, value);
    return error_hint(error, "it takes %s", wanted[f->type]);
}

t4_status
words_parse(const struct word_flag *flags, size_t n_flags, int argc, char *const *argv,
            struct pool *pool, struct words *out, struct error *error)
{
    bool only_words = false;

    out->word = pool_alloc(pool, ((size_t)argc + 1) * sizeof *out->word);
    out->n = 0;
    for (int i = 0; i < argc; i++) {
        const struct word_flag *f;
        const char *value;
        t4_status status;

        if (only_words || argv[i][0] != '-' || argv[i][1] == '\0') {
            out->word[out->n++] = argv[i];
            continue;
        }
        if (strcmp(argv[i], "--") == 0) {
            only_words = true;
            continue;
        }
        f = find(flags, n_flags, argv[i], &value);
        if (f == NULL)
            return unknown(flags, n_flags, argv[i], error);
        if (value == NULL && f->type == WORD_SWITCH)
            value = "true";
        if (value == NULL && i + 1 == argc) {
            error_set(error, T4_E_INVALID, "a value is missing behind --%s", f->name);
            return error_hint(error, "write --%s=VALUE", f->name);
        }
        if (value == NULL)
            value = argv[++i];
        status = set(f, value, error);
        if (status != T4_OK)
            return status;
    }
    return T4_OK;
}

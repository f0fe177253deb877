/*
 * words.h - the words of a command line: flags anywhere between them, as etcdctl takes them.
 *
 * --name=value, --name value, -n value, -nvalue; of a switch --name, --name=false.  Behind "--"
 * nothing is a flag any more.  Main thread only.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef SERVER_WORDS_H
#define SERVER_WORDS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"

enum word_type {
    WORD_SWITCH,   /* bool */
    WORD_INT,      /* int64_t */
    WORD_ID,       /* int64_t, written in hexadecimal: a lease */
    WORD_DURATION, /* int64_t, nanoseconds; written as in Go */
    WORD_TEXT,     /* const char *, into argv */
};

struct word_flag {
    const char *name; /* without dashes */
    char letter;      /* or 0 */
    enum word_type type;
    void *out;
};

/* Small pieces of memory that end together. */
struct pool {
    void **piece;
    size_t n;
};
void *pool_alloc(struct pool *p, size_t n); /* zeroed */
void pool_free(struct pool *p);

struct words {
    const char **word; /* those that are no flags; of the pool */
    int n;
};

/* INVALID: what is wrong, and the flags there are. */
t4_status words_parse(const struct word_flag *flags, size_t n_flags, int argc,
                      char *const *argv, struct pool *pool, struct words *out,
                      struct error *error);

/* All of `text` is a lease's id in hexadecimal, as strconv.ParseInt(text, 16, 64) takes it. */
bool word_parse_id(const char *text, int64_t *out);

#endif

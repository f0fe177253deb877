/*
 * memory.c - allocation that aborts when memory is exhausted.  See memory.h.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "base/memory.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void *
checked(void *p, size_t n)
{
    if (p == NULL) {
        fprintf(stderr, "t4: out of memory (%zu bytes); stopping\n", n);
        abort();
    }
    return p;
}

void *
mem_alloc(size_t n)
{
    return checked(malloc(n > 0 ? n : 1), n);
}

void *
mem_zalloc(size_t n)
{
    return checked(calloc(1, n > 0 ? n : 1), n);
}

void *
mem_realloc(void *p, size_t n)
{
    return checked(realloc(p, n > 0 ? n : 1), n);
}

char *
mem_strdup(const char *text)
{
    size_t n = strlen(text) + 1;

    return memcpy(mem_alloc(n), text, n);
}

void
mem_free(void *p)
{
    free(p);
}

/*
 * memory.h - allocation for state that the server cannot run without.
 *
 * These never return NULL: when memory is exhausted they write one line to stderr and
 * abort, which is a crash that the log recovers from (I4).  Whatever a client can make large
 * is bounded before it is allocated.  Any thread.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef BASE_MEMORY_H
#define BASE_MEMORY_H

#include <stddef.h>

void *mem_alloc(size_t n) __attribute__((malloc, returns_nonnull));
void *mem_zalloc(size_t n) __attribute__((malloc, returns_nonnull));
void *mem_realloc(void *p, size_t n) __attribute__((returns_nonnull));
char *mem_strdup(const char *text) __attribute__((malloc, returns_nonnull));
void mem_free(void *p);

/* The struct that contains the member that `pointer` points to. */
#define container_of(pointer, type, member)                                              \
    ((type *)((char *)(pointer)-offsetof(type, member)))

#endif

/*
 * owned.c - the memory of results: one t4_free() for a struct and all that it points to.
 *
 * Each piece is an allocation of its own, linked to the first, which stands right before what
 * the user holds.  Also the small functions about bytes and ranges.
 *
 * Invariant: a pointer that t4_free() is given came from lib_owned_new().
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <string.h>

#include "base/memory.h"
#include "base/slice.h"
#include "lib/lib_int.h"

struct piece {
    struct piece *next;
    _Alignas(16) uint8_t data[];
};

struct owned {
    struct piece *pieces;
    _Alignas(16) uint8_t data[];
};

void *
lib_owned_new(size_t n, struct owned **out)
{
    struct owned *o = mem_zalloc(sizeof *o + n);

    if (out != NULL)
        *out = o;
    return o->data;
}

void *
lib_owned_add(struct owned *o, size_t n)
{
    struct piece *p = mem_zalloc(sizeof *p + n);

    p->next = o->pieces;
    o->pieces = p;
    return p->data;
}

struct t4_slice
lib_owned_copy(struct owned *o, struct t4_slice bytes)
{
    uint8_t *copy = lib_owned_add(o, bytes.len + 1);

    if (bytes.len > 0)
        memcpy(copy, bytes.data, bytes.len);
    return slice_of(copy, bytes.len);
}

void
t4_free(void *result)
{
    struct owned *o;

    if (result == NULL)
        return;
    o = (struct owned *)((uint8_t *)result - offsetof(struct owned, data));
    while (o->pieces != NULL) {
        struct piece *p = o->pieces;

        o->pieces = p->next;
        mem_free(p);
    }
    mem_free(o);
}

const char *
t4_version(void)
{
    return T4_VERSION;
}

struct t4_slice
t4_text(const char *text)
{
    return slice_str(text);
}

struct t4_slice
t4_bytes(const void *data, size_t len)
{
    return slice_of(data, len);
}

void
t4_all_keys(struct t4_slice *key, struct t4_slice *end)
{
    *key = *end = T4_END; /* one zero byte: the first key there can be */
}

struct t4_slice
t4_prefix_end(struct t4_slice prefix, void *room)
{
    uint8_t *end = room;
    size_t n = prefix.len;

    while (n > 0 && prefix.data[n - 1] == 0xff)
        n--;
    if (n == 0) { /* nothing is behind it: no upper bound */
        end[0] = 0;
        return slice_of(end, 1);
    }
    memcpy(end, prefix.data, n);
    end[n - 1]++;
    return slice_of(end, n);
}

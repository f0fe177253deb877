/*
 * reference.c - chance, awkward keys and the values that belong to numbers.  See reference.h.
 *
 * Entry points: everything in reference.h.  Runs on: one thread at a time, but for chance_*().
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "check/reference.h"

#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "base/slice.h"

/* --- chance ------------------------------------------------------------------------- */

uint64_t
chance_next(struct chance *c)
{
    uint64_t z = c->state += 0x9e3779b97f4a7c15u;

    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

uint64_t
chance_below(struct chance *c, uint64_t n)
{
    return chance_next(c) % n;
}

/* --- keys --------------------------------------------------------------------------- */

#define LONGEST 16384

struct t4_slice
key_make(struct chance *c)
{
    static const uint16_t shared[] = {1,   239, 478, 479, 480, 481,  482,
                                      600, 959, 960, 961, 962, 1440, 1441};
    static const uint8_t alphabet[] = {0x00, 0xff, 'a', 'b', 0x01, 0xfe};
    static uint8_t key[LONGEST];
    uint64_t kind = chance_below(c, 100), family = chance_below(c, 4);
    struct chance body = {family};
    size_t prefix, n;

    if (kind < 25)
        prefix = 0;
    else if (kind < 97)
        prefix = shared[chance_below(c, sizeof shared / sizeof shared[0])];
    else
        prefix = 1500 + chance_below(c, LONGEST - 1500 - 320);
    n = prefix + (prefix == 0 ? 1 : 0) + chance_below(c, 4);
    if (kind % 10 == 0)
        n += chance_below(c, 300);
    for (size_t i = 0; i < n; i++) {
        if (i >= prefix)
            key[i] = alphabet[chance_below(c, sizeof alphabet)];
        else if (family < 2)
            key[i] = family == 0 ? 0x00 : 0xff;
        else
            key[i] = (uint8_t)chance_next(&body);
    }
    return slice_of(key, n);
}

static int
compare_keys(const void *a, const void *b)
{
    return slice_compare(*(const struct t4_slice *)a, *(const struct t4_slice *)b);
}

void
keys_make(struct keys *k, size_t n, struct chance *c)
{
    size_t different = 0;

    k->key = mem_alloc(n * sizeof *k->key);
    for (size_t i = 0; i < n; i++) {
        struct t4_slice key = key_make(c);

        k->key[i] = slice_of(memcpy(mem_alloc(key.len), key.data, key.len), key.len);
    }
    qsort(k->key, n, sizeof *k->key, compare_keys);
    for (size_t i = 0; i < n; i++) {
        if (different > 0 && slice_equal(k->key[different - 1], k->key[i]))
            mem_free((void *)(uintptr_t)k->key[i].data);
        else
            k->key[different++] = k->key[i];
    }
    k->n = different;
}

void
keys_free(struct keys *k)
{
    for (size_t i = 0; i < k->n; i++)
        mem_free((void *)(uintptr_t)k->key[i].data);
    mem_free(k->key);
}

size_t
keys_lower_bound(const struct keys *k, struct t4_slice key)
{
    size_t low = 0, high = k->n;

    while (low < high) {
        size_t middle = (low + high) / 2;

        if (slice_compare(k->key[middle], key) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

struct t4_slice
value_make(uint64_t number)
{
    static uint8_t value[9000];
    struct chance c = {number};
    uint64_t kind = chance_below(&c, 20);
    size_t n = kind == 0   ? 0
               : kind == 1 ? chance_below(&c, sizeof value)
                           : chance_below(&c, 90);

    for (size_t i = 0; i < n; i += 8) {
        uint64_t word = chance_next(&c);

        memcpy(value + i, &word, n - i < 8 ? n - i : 8);
    }
    return slice_of(value, n);
}

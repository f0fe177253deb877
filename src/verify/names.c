/*
 * names.c - sets of the names of files and run indexes.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "base/memory.h"
#include "verify/verify_int.h"

static bool
is_it(const struct name *n, const uint8_t sha256[SHA256_BYTES], uint64_t term,
      uint64_t index)
{
    return n->term == term && n->index == index &&
           memcmp(n->sha256, sha256, SHA256_BYTES) == 0;
}

/* Where the name is, or where it would go.  There is always a free place. */
static struct name *
place_of(const struct name_set *s, const uint8_t sha256[SHA256_BYTES], uint64_t term,
         uint64_t index)
{
    size_t i = (size_t)get_u64le(sha256) & (s->capacity - 1); /* a hash already */

    while (s->at[i].used && !is_it(&s->at[i], sha256, term, index))
        i = (i + 1) & (s->capacity - 1);
    return &s->at[i];
}

static void
grow(struct name_set *s)
{
    struct name_set old = *s;

    s->capacity = old.capacity > 0 ? 2 * old.capacity : 64;
    s->at = mem_zalloc(s->capacity * sizeof *s->at);
    for (size_t i = 0; i < old.capacity; i++)
        if (old.at[i].used)
            *place_of(s, old.at[i].sha256, old.at[i].term, old.at[i].index) = old.at[i];
    mem_free(old.at);
}

struct name *
name_set_put(struct name_set *s, const uint8_t sha256[SHA256_BYTES], uint64_t term,
             uint64_t index, bool *fresh)
{
    struct name *n;

    if (2 * (s->n + 1) > s->capacity)
        grow(s);
    n = place_of(s, sha256, term, index);
    *fresh = !n->used;
    if (*fresh) {
        *n = (struct name){.term = term, .index = index, .used = true};
        memcpy(n->sha256, sha256, SHA256_BYTES);
        s->n++;
    }
    return n;
}

const struct name *
name_set_find(const struct name_set *s, const uint8_t sha256[SHA256_BYTES], uint64_t term,
              uint64_t index)
{
    const struct name *n;

    if (s->capacity == 0)
        return NULL;
    n = place_of(s, sha256, term, index);
    return n->used ? n : NULL;
}

void
name_set_free(struct name_set *s)
{
    mem_free(s->at);
    *s = (struct name_set){0};
}

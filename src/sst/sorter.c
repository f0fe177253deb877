/*
 * sorter.c - changes of the log, or records of any kind, sorted in memory: where a run begins.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <stdlib.h>

#include "base/memory.h"
#include "fmt/entry.h"
#include "fmt/record.h"
#include "sst/sst_int.h"

/* `key` is an offset into the arena until all are there; the value follows the key. */
struct sorter_record {
    union {
        size_t at;
        const uint8_t *key;
    };
    uint32_t key_len, value_len;
};

/* Of what was appended to the arena from `at` on. */
static void
add_record(struct sst_sorter *s, size_t at, size_t key_len)
{
    struct sorter_record *r;

    if (s->n == s->capacity) {
        s->capacity = s->capacity * 2 + 1024;
        s->record = mem_realloc(s->record, s->capacity * sizeof *s->record);
    }
    r = &s->record[s->n++];
    r->at = at;
    r->key_len = (uint32_t)key_len;
    r->value_len = (uint32_t)(s->arena.len - at - key_len);
}

void
sst_sorter_add(struct sst_sorter *s, const struct entry *e, const struct mutation *m,
               uint32_t *sub)
{
    struct version v;
    size_t at = s->arena.len, key_len;

    mutation_version(e, m, sub, &s->ikey, &v);
    record_key_encode(&s->arena, buffer_slice(&s->ikey), v.stamp);
    key_len = s->arena.len - at;
    /* The value's bytes may move the arena, of which the key is a part: room for both first. */
    buffer_reserve(&s->arena, v.value.len + 64);
    record_value_encode(&s->arena, slice_of(s->arena.data + at, key_len), &v);
    add_record(s, at, key_len);
}

void
sst_sorter_put(struct sst_sorter *s, struct t4_slice key, struct t4_slice value)
{
    size_t at = s->arena.len;

    buffer_append_slice(&s->arena, key);
    buffer_append_slice(&s->arena, value);
    add_record(s, at, key.len);
}

size_t
sst_sorter_bytes(const struct sst_sorter *s)
{
    return s->arena.len + s->n * sizeof *s->record;
}

static int
by_key(const void *a, const void *b)
{
    const struct sorter_record *x = a, *y = b;

    return slice_compare(slice_of(x->key, x->key_len), slice_of(y->key, y->key_len));
}

static t4_status
next_sorted(void *state, struct t4_slice *key, struct t4_slice *value,
            struct error *error)
{
    struct sst_sorter *s = state;
    const struct sorter_record *r = &s->record[s->next];

    (void)error;
    if (s->next == s->n)
        return T4_E_NOTFOUND;
    s->next++;
    *key = slice_of(r->key, r->key_len);
    *value = slice_of(r->key + r->key_len, r->value_len);
    return T4_OK;
}

struct sst_source
sst_sorter_source(struct sst_sorter *s)
{
    for (size_t i = 0; i < s->n; i++)
        s->record[i].key = s->arena.data + s->record[i].at;
    if (s->n > 0)
        qsort(s->record, s->n, sizeof *s->record, by_key);
    s->next = 0;
    return (struct sst_source){next_sorted, s};
}

void
sst_sorter_clear(struct sst_sorter *s)
{
    s->n = 0;
    buffer_clear(&s->arena);
}

void
sst_sorter_free(struct sst_sorter *s)
{
    buffer_free(&s->arena);
    buffer_free(&s->ikey);
    mem_free(s->record);
    *s = (struct sst_sorter){0};
}

/*
 * merge.c - several sources of records as one, and what of them is left when it is reduced.
 *
 * A heap of the sources by their current key; sources of equal keys by their number.  The source
 * whose record was given last stands outside of the heap until the next call, because the
 * record lives in its memory.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "base/memory.h"
#include "fmt/entry.h"
#include "fmt/record.h"
#include "sst/sst_int.h"

struct input {
    struct sst_source source;
    struct t4_slice key, value; /* its current record */
};

struct sst_merge {
    struct input *input;
    size_t
        *heap; /* numbers of inputs, the smallest first; all but `given` and ended ones */
    size_t in_heap;
    size_t inputs, started; /* the first `started` of them have been asked */
    struct input *given;
    struct buffer last; /* key given last */
    bool any;           /* there is one */
};

struct sst_merge *
sst_merge_new(const struct sst_source *sources, size_t n)
{
    struct sst_merge *m = mem_zalloc(sizeof *m);

    m->input = mem_zalloc(n * sizeof *m->input);
    m->heap = mem_alloc(n * sizeof *m->heap);
    m->inputs = n;
    for (size_t i = 0; i < n; i++)
        m->input[i].source = sources[i];
    return m;
}

void
sst_merge_free(struct sst_merge *m)
{
    if (m == NULL)
        return;
    mem_free(m->input);
    mem_free(m->heap);
    buffer_free(&m->last);
    mem_free(m);
}

static bool
before(const struct sst_merge *m, size_t a, size_t b)
{
    int order = slice_compare(m->input[a].key, m->input[b].key);

    return order != 0 ? order < 0 : a < b;
}

static void
heap_push(struct sst_merge *m, size_t input)
{
    size_t at = m->in_heap++;

    for (; at > 0 && before(m, input, m->heap[(at - 1) / 2]); at = (at - 1) / 2)
        m->heap[at] = m->heap[(at - 1) / 2];
    m->heap[at] = input;
}

static size_t
heap_pop(struct sst_merge *m)
{
    size_t top = m->heap[0], moved = m->heap[--m->in_heap], at = 0;

    for (size_t child = 1; child < m->in_heap; child = 2 * at + 1) {
        if (child + 1 < m->in_heap && before(m, m->heap[child + 1], m->heap[child]))
            child++;
        if (!before(m, m->heap[child], moved))
            break;
        m->heap[at] = m->heap[child];
        at = child;
    }
    m->heap[at] = moved;
    return top;
}

/* Takes the next record of an input and puts it into the heap, unless the input ended. */
static t4_status
advance(struct sst_merge *m, struct input *input, struct error *error)
{
    t4_status status =
        input->source.next(input->source.state, &input->key, &input->value, error);

    if (status == T4_E_NOTFOUND)
        return T4_OK;
    if (status == T4_OK)
        heap_push(m, (size_t)(input - m->input));
    return status;
}

/* Passes over the records of other inputs with the key of the one to be given. */
static t4_status
skip_equal(struct sst_merge *m, struct error *error)
{
    t4_status status = T4_OK;
    char text[KEY_TEXT_BYTES];

    while (status == T4_OK && m->in_heap > 0 &&
           slice_equal(m->input[m->heap[0]].key, m->given->key)) {
        struct input *other = &m->input[m->heap[0]];

        if (!slice_equal(other->value, m->given->value)) {
            sst_key_text(text, other->key);
            return sst_damaged(
                error,
                "two versions equal in (space, key, stamp) with different bytes: %s",
                text);
        }
        heap_pop(m);
        status = advance(m, other, error);
    }
    return status;
}

t4_status
sst_merge_next(struct sst_merge *m, struct t4_slice *key, struct t4_slice *value,
               struct error *error)
{
    char text[KEY_TEXT_BYTES];
    t4_status status = T4_OK;

    if (m->given != NULL)
        status = advance(m, m->given, error);
    m->given = NULL;
    for (; status == T4_OK && m->started < m->inputs; m->started++)
        status = advance(m, &m->input[m->started], error);
    if (status != T4_OK)
        return status;
    if (m->in_heap == 0)
        return T4_E_NOTFOUND;
    m->given = &m->input[heap_pop(m)];
    if (m->any && slice_compare(m->given->key, buffer_slice(&m->last)) <= 0) {
        sst_key_text(text, m->given->key);
        return sst_damaged(error, "a source of records is not in order: %s", text);
    }
    status = skip_equal(m, error);
    if (status != T4_OK)
        return status;
    *key = m->given->key;
    *value = m->given->value;
    buffer_clear(&m->last);
    buffer_append_slice(&m->last, *key);
    m->any = true;
    return T4_OK;
}

static t4_status
merge_source_next(void *state, struct t4_slice *key, struct t4_slice *value,
                  struct error *error)
{
    return sst_merge_next(state, key, value, error);
}

struct sst_source
sst_merge_source(struct sst_merge *m)
{
    return (struct sst_source){merge_source_next, m};
}

/* --- reducing ------------------------------------------------------------------------------ */

/*
 * Versions of one key come newest first.  The first one that every reader of the past ends at
 * settles the key: what is older goes.  A watch may begin at the compacted revision itself.
 */
static bool
keep(struct sst_reduce *r, uint8_t space, uint64_t stamp, bool tombstone)
{
    if (r->settled)
        return false;
    if (space == SPACE_KEYS && stamp > (uint64_t)r->compacted)
        return true;
    r->settled = true;
    if (space == SPACE_KEYS && stamp == (uint64_t)r->compacted)
        return true;
    return !(tombstone && r->is_base);
}

static t4_status
check_record(struct t4_slice key, struct t4_slice value, struct version *v,
             struct error *error)
{
    char text[KEY_TEXT_BYTES];

    if (key.len >= RECORD_KEY_MIN && record_verify(key, value) &&
        record_value_decode(value, v) &&
        (key.data[0] == SPACE_KEYS || key.data[0] == SPACE_SYSTEM ||
         key.data[0] == SPACE_ATTACHMENTS))
        return T4_OK;
    sst_key_text(text, key);
    return sst_damaged(error, "the record of %s is damaged or of no known space", text);
}

t4_status
sst_reduce_next(struct sst_reduce *r, struct t4_slice *key, struct t4_slice *value,
                struct error *error)
{
    for (;;) {
        t4_status status = r->source.next(r->source.state, key, value, error);
        struct version v;

        if (status == T4_OK)
            status = check_record(*key, *value, &v, error);
        if (status != T4_OK)
            return status;
        r->seen++;
        if (!slice_equal(key_without_stamp(*key), buffer_slice(&r->current))) {
            buffer_clear(&r->current);
            buffer_append_slice(&r->current, key_without_stamp(*key));
            r->settled = false;
        }
        if (keep(r, key->data[0], key_stamp(*key), v.flags & VERSION_TOMBSTONE)) {
            r->kept++;
            return T4_OK;
        }
    }
}

static t4_status
reduce_source_next(void *state, struct t4_slice *key, struct t4_slice *value,
                   struct error *error)
{
    return sst_reduce_next(state, key, value, error);
}

struct sst_source
sst_reduce_source(struct sst_reduce *r)
{
    return (struct sst_source){reduce_source_next, r};
}

void
sst_reduce_free(struct sst_reduce *r)
{
    buffer_free(&r->current);
}

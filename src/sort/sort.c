/*
 * sort.c - records sorted on disk.
 *
 * Parts of `memory` bytes are sorted in memory (sst/sorter.c) and written one behind the other
 * into one temporary file; reading merges them by a heap.  When there are PARTS_MAX they become
 * one, in a new file.
 *
 * A record on disk: u32 CRC-32C of the rest · u32 length of the key · u32 length of the value ·
 * key · value.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "sort/sort.h"

#include "base/crc32c.h"
#include "base/memory.h"

#define PARTS_MAX 64u
#define HEAD_BYTES 12u
#define READ_BYTES (256u << 10) /* at a time, of each part */
#define WRITE_BYTES (1u << 20)

/* A sorted stretch of the file, with the record it stands on. */
struct part {
    uint64_t next, end; /* of the file: not read yet */
    struct buffer raw;  /* read; from `at` on not given yet */
    size_t at;
    struct t4_slice key, value; /* of raw */
};

struct sort {
    struct env *env;
    char *dir;
    size_t memory;
    struct sst_sorter sorter; /* the part at hand */
    struct sst_source in_memory;
    struct env_file *file; /* NULL: everything is in memory */
    uint64_t file_end;
    struct buffer out; /* not written yet */
    struct part part[PARTS_MAX];
    uint32_t n_parts;
    struct part *heap[PARTS_MAX]; /* smallest key first */
    uint32_t n_heap;
    bool reading, moved; /* moved: heap[0] was given, and is to go on */
};

struct sort *
sort_new(struct env *env, const char *dir, size_t memory)
{
    struct sort *s = mem_zalloc(sizeof *s);

    s->env = env;
    s->dir = mem_strdup(dir);
    s->memory = memory > 0 ? memory : SORT_MEMORY;
    return s;
}

void
sort_free(struct sort *s)
{
    if (s == NULL)
        return;
    for (uint32_t i = 0; i < PARTS_MAX; i++)
        buffer_free(&s->part[i].raw);
    if (s->file != NULL)
        s->env->close(s->env->state, s->file);
    sst_sorter_free(&s->sorter);
    buffer_free(&s->out);
    mem_free(s->dir);
    mem_free(s);
}

/* --- writing ------------------------------------------------------------------------------ */

static t4_status
flush(struct sort *s, struct env_file *file, uint64_t *end, struct error *error)
{
    t4_status status =
        s->env->pwrite(s->env->state, file, s->out.data, s->out.len, *end, error);

    if (status != T4_OK) {
        error_wrap(error, "a temporary file in %s", s->dir);
        return status;
    }
    *end += s->out.len;
    buffer_clear(&s->out);
    return T4_OK;
}

/* Appends everything that the source gives to the file. */
static t4_status
write_all(struct sort *s, struct sst_source source, struct env_file *file, uint64_t *end,
          struct error *error)
{
    struct t4_slice key, value;
    t4_status status;

    while ((status = source.next(source.state, &key, &value, error)) == T4_OK) {
        size_t at = s->out.len;

        buffer_append_u32(&s->out, 0);
        buffer_append_u32(&s->out, (uint32_t)key.len);
        buffer_append_u32(&s->out, (uint32_t)value.len);
        buffer_append_slice(&s->out, key);
        buffer_append_slice(&s->out, value);
        put_u32le(s->out.data + at, crc32c(0, s->out.data + at + 4, s->out.len - at - 4));
        if (s->out.len >= WRITE_BYTES && (status = flush(s, file, end, error)) != T4_OK)
            return status;
    }
    if (status != T4_E_NOTFOUND)
        return status;
    return s->out.len > 0 ? flush(s, file, end, error) : T4_OK;
}

static t4_status merge_next(void *state, struct t4_slice *key, struct t4_slice *value,
                            struct error *error);
static t4_status begin_merge(struct sort *s, struct error *error);

/* All parts become one, in another file. */
static t4_status
merge_parts(struct sort *s, struct error *error)
{
    struct env_file *file;
    uint64_t end = 0;
    t4_status status = temporary_open(s->env, s->dir, &file, error);

    if (status == T4_OK)
        status = begin_merge(s, error);
    if (status == T4_OK)
        status = write_all(s, (struct sst_source){merge_next, s}, file, &end, error);
    if (status != T4_OK) {
        if (file != NULL)
            s->env->close(s->env->state, file);
        return status;
    }
    s->env->close(s->env->state, s->file);
    s->file = file;
    s->file_end = end;
    s->n_parts = 1;
    s->part[0].next = 0;
    s->part[0].end = end;
    return T4_OK;
}

static t4_status
end_part(struct sort *s, struct error *error)
{
    uint64_t begin;
    t4_status status = T4_OK;

    if (s->file == NULL)
        status = temporary_open(s->env, s->dir, &s->file, error);
    if (status == T4_OK && s->n_parts == PARTS_MAX)
        status = merge_parts(s, error);
    if (status != T4_OK)
        return status;
    begin = s->file_end;
    status = write_all(s, sst_sorter_source(&s->sorter), s->file, &s->file_end, error);
    if (status != T4_OK)
        return status;
    s->part[s->n_parts].next = begin;
    s->part[s->n_parts++].end = s->file_end;
    sst_sorter_clear(&s->sorter);
    return T4_OK;
}

t4_status
sort_add(struct sort *s, struct t4_slice key, struct t4_slice value, struct error *error)
{
    if (key.len + value.len > SORT_RECORD_MAX)
        return error_set(error, T4_E_INVALID, "a record of %zu bytes is too large",
                         key.len + value.len);
    sst_sorter_put(&s->sorter, key, value);
    return sst_sorter_bytes(&s->sorter) >= s->memory ? end_part(s, error) : T4_OK;
}

/* --- reading ------------------------------------------------------------------------------ */

static t4_status
changed(struct sort *s, struct error *error)
{
    return error_set(error, T4_E_IO,
                     "a temporary file in %s does not give back what was written to it",
                     s->dir);
}

/* At least n bytes of the part behind `at`, if it is that long. */
static t4_status
fill(struct sort *s, struct part *p, size_t n, struct error *error)
{
    size_t left = p->raw.len - p->at, want, got;
    t4_status status;

    if (left >= n)
        return T4_OK;
    if (left > 0)
        memmove(p->raw.data, p->raw.data + p->at, left);
    p->raw.len = left;
    p->at = 0;
    want = n - left > READ_BYTES ? n - left : READ_BYTES;
    if (want > p->end - p->next)
        want = (size_t)(p->end - p->next);
    if (left + want < n)
        return changed(s, error);
    status = s->env->pread(s->env->state, s->file, buffer_reserve(&p->raw, want), want,
                           p->next, &got, error);
    if (status != T4_OK)
        return status;
    if (got != want)
        return changed(s, error);
    p->raw.len += got;
    p->next += got;
    return T4_OK;
}

/* Moves the part to its next record.  NOTFOUND: it has none. */
static t4_status
part_next(struct sort *s, struct part *p, struct error *error)
{
    const uint8_t *head;
    size_t key_len, value_len, size;
    t4_status status;

    if (p->at == p->raw.len && p->next == p->end)
        return T4_E_NOTFOUND;
    status = fill(s, p, HEAD_BYTES, error);
    if (status != T4_OK)
        return status;
    head = p->raw.data + p->at;
    key_len = get_u32le(head + 4);
    value_len = get_u32le(head + 8);
    size = HEAD_BYTES + key_len + value_len;
    if (size > HEAD_BYTES + SORT_RECORD_MAX)
        return changed(s, error);
    status = fill(s, p, size, error);
    if (status != T4_OK)
        return status;
    head = p->raw.data + p->at;
    if (crc32c(0, head + 4, size - 4) != get_u32le(head))
        return changed(s, error);
    p->key = slice_of(head + HEAD_BYTES, key_len);
    p->value = slice_of(head + HEAD_BYTES + key_len, value_len);
    p->at += size;
    return T4_OK;
}

/* The part at place i of the heap goes down to where it belongs. */
static void
sift(struct sort *s, uint32_t i)
{
    struct part *p = s->heap[i];

    for (uint32_t child; (child = 2 * i + 1) < s->n_heap; i = child) {
        if (child + 1 < s->n_heap &&
            slice_compare(s->heap[child + 1]->key, s->heap[child]->key) < 0)
            child++;
        if (slice_compare(p->key, s->heap[child]->key) <= 0)
            break;
        s->heap[i] = s->heap[child];
    }
    s->heap[i] = p;
}

static t4_status
begin_merge(struct sort *s, struct error *error)
{
    s->n_heap = 0;
    s->moved = false;
    for (uint32_t i = 0; i < s->n_parts; i++) {
        t4_status status;

        s->part[i].at = s->part[i].raw.len = 0;
        status = part_next(s, &s->part[i], error);
        if (status == T4_OK)
            s->heap[s->n_heap++] = &s->part[i];
        else if (status != T4_E_NOTFOUND)
            return status;
    }
    for (uint32_t i = s->n_heap / 2; i-- > 0;)
        sift(s, i);
    return T4_OK;
}

static t4_status
merge_next(void *state, struct t4_slice *key, struct t4_slice *value, struct error *error)
{
    struct sort *s = state;

    if (s->moved) {
        t4_status status = part_next(s, s->heap[0], error);

        if (status == T4_E_NOTFOUND)
            s->heap[0] = s->heap[--s->n_heap];
        else if (status != T4_OK)
            return status;
        if (s->n_heap > 0)
            sift(s, 0);
        s->moved = false;
    }
    if (s->n_heap == 0)
        return T4_E_NOTFOUND;
    *key = s->heap[0]->key;
    *value = s->heap[0]->value;
    s->moved = true;
    return T4_OK;
}

static t4_status
begin_reading(struct sort *s, struct error *error)
{
    t4_status status = T4_OK;

    s->reading = true;
    if (s->file == NULL) {
        s->in_memory = sst_sorter_source(&s->sorter);
        return T4_OK;
    }
    if (s->sorter.n > 0)
        status = end_part(s, error);
    return status == T4_OK ? begin_merge(s, error) : status;
}

static t4_status
next(void *state, struct t4_slice *key, struct t4_slice *value, struct error *error)
{
    struct sort *s = state;

    if (!s->reading) {
        t4_status status = begin_reading(s, error);

        if (status != T4_OK)
            return status;
    }
    return s->file == NULL ? s->in_memory.next(s->in_memory.state, key, value, error)
                           : merge_next(s, key, value, error);
}

t4_status
sort_next(struct sort *s, struct t4_slice *key, struct t4_slice *value,
          struct error *error)
{
    return next(s, key, value, error);
}

struct sst_source
sort_source(struct sort *s)
{
    return (struct sst_source){next, s};
}

/*
 * sst_bed.c - records, files made of them, and the format once more.  See sst_bed.h.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/crc32c.h"
#include "base/memory.h"
#include "sst_bed.h"

/* --- records ------------------------------------------------------------------------------- */

static struct record *
new_record(struct records *set)
{
    if (set->n == set->capacity) {
        set->capacity = set->capacity > 0 ? 2 * set->capacity : 64;
        set->r = mem_realloc(set->r, set->capacity * sizeof *set->r);
    }
    set->r[set->n] = (struct record){0};
    return &set->r[set->n++];
}

void
records_add(struct records *set, struct t4_slice ikey, uint64_t stamp, bool tombstone,
            struct t4_slice value)
{
    struct record *r = new_record(set);
    struct version v = {.stamp = stamp,
                        .sub = (uint32_t)stamp % 5,
                        .flags = tombstone ? VERSION_TOMBSTONE : 0,
                        .create_revision = 3,
                        .version = 1,
                        .value = value};

    r->stamp = stamp;
    r->tombstone = tombstone;
    buffer_append_slice(&r->ikey, ikey);
    record_key_encode(&r->key, ikey, stamp);
    record_value_encode(&r->value, buffer_slice(&r->key), &v);
}

void
records_copy(struct records *set, const struct record *from)
{
    struct record *r = new_record(set);

    r->stamp = from->stamp;
    r->tombstone = from->tombstone;
    buffer_append_slice(&r->ikey, buffer_slice(&from->ikey));
    buffer_append_slice(&r->key, buffer_slice(&from->key));
    buffer_append_slice(&r->value, buffer_slice(&from->value));
}

static void
record_free(struct record *r)
{
    buffer_free(&r->key);
    buffer_free(&r->value);
    buffer_free(&r->ikey);
}

static int
compare_records(const void *a, const void *b)
{
    return slice_compare(buffer_slice(&((const struct record *)a)->key),
                         buffer_slice(&((const struct record *)b)->key));
}

void
records_sort(struct records *set)
{
    size_t kept = 0;

    if (set->n > 0)
        qsort(set->r, set->n, sizeof *set->r, compare_records);
    for (size_t i = 0; i < set->n; i++)
        if (kept > 0 && compare_records(&set->r[kept - 1], &set->r[i]) == 0)
            record_free(&set->r[i]);
        else
            set->r[kept++] = set->r[i];
    set->n = kept;
}

void
records_random(struct records *set, size_t n, struct chance *c)
{
    static const uint8_t odd[] = {0, 0, 1, 0xff, 'a', 'b'};
    uint8_t key[8], value[40];

    for (size_t i = 0; i < n; i++) {
        size_t bytes = 1 + (size_t)chance_below(c, 4);
        uint64_t stamp = 1 + chance_below(c, n);

        key[0] = (uint8_t) "kkksl"[chance_below(c, 5)];
        for (size_t j = 1; j < bytes; j++)
            key[j] = odd[chance_below(c, sizeof odd)];
        /* All else follows from key and stamp: the same record twice is the same. */
        memset(value, (int)(stamp & 0xff), sizeof value);
        records_add(set, slice_of(key, bytes), stamp, (stamp * 7 + bytes) % 4 == 0,
                    slice_of(value, stamp % sizeof value));
    }
    records_sort(set);
}

void
records_bulk(struct records *set, size_t n, size_t mean, struct chance *c)
{
    uint8_t *value = mem_zalloc(2 * mean + 8);
    char key[64];

    for (size_t i = 0; i < n; i++) {
        size_t bytes = 1 + (size_t)chance_below(c, 2 * mean);

        for (size_t j = 0; j < bytes / 2; j += 8)
            put_u64le(value + j, chance_next(c));
        snprintf(key, sizeof key, "k/registry/pods/%08zu", i * 10);
        records_add(set, slice_str(key), i + 2, false, slice_of(value, bytes));
    }
    records_sort(set);
    mem_free(value);
}

void
records_free(struct records *set)
{
    for (size_t i = 0; i < set->n; i++)
        record_free(&set->r[i]);
    mem_free(set->r);
    *set = (struct records){0};
}

/* --- files --------------------------------------------------------------------------------- */

static void
file_end(struct files *f, struct sst_writer *w)
{
    struct sst_info info;

    f->object = mem_realloc(f->object, (f->run.n + 1) * sizeof *f->object);
    f->object[f->run.n] = (struct buffer){0};
    assert_int_equal(sst_writer_finish(w, &f->object[f->run.n], &info, NULL), T4_OK);
    assert_int_equal(run_index_add(&f->run, &info, 1, 2, NULL), T4_OK);
}

void
files_write(struct files *f, const struct records *set)
{
    struct sst_filter_builder filter = {0};
    struct sst_writer *w = sst_writer_new(&filter);

    *f = (struct files){.run = {.last_index = 2, .last_revision = 9, .compacted = 4}};
    for (size_t i = 0; i < set->n; i++) {
        if (sst_cut_here(w, buffer_slice(&set->r[i].key)))
            file_end(f, w);
        assert_int_equal(sst_writer_add(w, buffer_slice(&set->r[i].key),
                                        buffer_slice(&set->r[i].value), NULL),
                         T4_OK);
    }
    if (sst_writer_records(w) > 0)
        file_end(f, w);
    sst_writer_free(w);
    sst_filter_build(&filter, &f->run.filter);
}

void
files_free(struct files *f)
{
    for (size_t i = 0; i < f->run.n; i++)
        buffer_free(&f->object[i]);
    mem_free(f->object);
    run_index_free(&f->run);
}

void
file_write(struct buffer *object, struct sst_info *info, const struct records *set)
{
    struct sst_writer *w = sst_writer_new(NULL);

    for (size_t i = 0; i < set->n; i++)
        assert_int_equal(sst_writer_add(w, buffer_slice(&set->r[i].key),
                                        buffer_slice(&set->r[i].value), NULL),
                         T4_OK);
    assert_int_equal(sst_writer_finish(w, object, info, NULL), T4_OK);
    assert_true(slice_equal(info->first, buffer_slice(&set->r[0].ikey)));
    assert_true(slice_equal(info->last, buffer_slice(&set->r[set->n - 1].ikey)));
    info->first = buffer_slice(&set->r[0].ikey);
    info->last = buffer_slice(&set->r[set->n - 1].ikey);
    sst_writer_free(w);
}

/* --- the format once more ------------------------------------------------------------------ */

static void
counted(struct buffer *b, struct t4_slice s)
{
    buffer_append_varint(b, s.len);
    buffer_append_slice(b, s);
}

void
plain_make(struct plain_file *p, const struct records *set)
{
    struct buffer one = {0};

    *p = (struct plain_file){.records = set->n, .format = 1, .codec = 1};
    for (size_t i = 0; i < set->n; i++) {
        const struct record *r = &set->r[i];
        struct plain_block *b = p->blocks > 0 ? &p->block[p->blocks - 1] : NULL;

        buffer_clear(&one);
        counted(&one, buffer_slice(&r->key));
        counted(&one, buffer_slice(&r->value));
        if (b == NULL || b->raw.len + one.len > 65536) {
            p->block = mem_realloc(p->block, (p->blocks + 1) * sizeof *p->block);
            b = &p->block[p->blocks++];
            *b = (struct plain_block){0};
            buffer_append_slice(&b->first, buffer_slice(&r->key));
        }
        buffer_append_slice(&b->raw, buffer_slice(&one));
        if (r->ikey.data[0] == 'k') {
            p->min_stamp =
                p->min_stamp == 0 || r->stamp < p->min_stamp ? r->stamp : p->min_stamp;
            p->max_stamp = r->stamp > p->max_stamp ? r->stamp : p->max_stamp;
        }
    }
    buffer_append_slice(&p->last, buffer_slice(&set->r[set->n - 1].key));
    buffer_free(&one);
}

void
plain_seal(const struct plain_file *p, struct buffer *object)
{
    struct buffer index = {0}, all = {0};
    uint8_t content[SHA256_BYTES];
    uint64_t raw = 0, index_at;

    buffer_clear(object);
    for (uint32_t i = 0; i < p->blocks; i++) {
        const struct plain_block *b = &p->block[i];
        size_t at = object->len, claim = b->raw.len + (i == 0 ? p->raw_claim : 0);

        compress_append(object, buffer_slice(&b->raw));
        counted(&index, buffer_slice(&b->first));
        buffer_append_varint(&index, object->len - at);
        buffer_append_varint(&index, claim);
        buffer_append_u32(&index, crc32c(0, object->data + at, object->len - at));
        buffer_append_slice(&all, buffer_slice(&b->raw));
        raw += claim;
    }
    counted(&index, buffer_slice(&p->last));
    sha256(buffer_slice(&all), content);
    content[0] ^= p->wrong_content;
    index_at = object->len;
    buffer_append_slice(object, buffer_slice(&index));
    buffer_append_u64(object, p->records);
    buffer_append_u64(object, raw);
    buffer_append_u64(object, p->min_stamp);
    buffer_append_u64(object, p->max_stamp);
    buffer_append(object, content, sizeof content);
    buffer_append_u64(object, index_at);
    buffer_append_u32(object, p->blocks);
    buffer_append_u32(object, crc32c(0, index.data, index.len));
    buffer_append_u32(object, p->codec);
    buffer_append_u32(object, p->format);
    buffer_append_u32(object, crc32c(0, object->data + object->len - 88, 88));
    buffer_append(object, "t4sst\r\n\032", 8);
    buffer_free(&index);
    buffer_free(&all);
}

void
plain_free(struct plain_file *p)
{
    for (uint32_t i = 0; i < p->blocks; i++) {
        buffer_free(&p->block[i].first);
        buffer_free(&p->block[i].raw);
    }
    mem_free(p->block);
    buffer_free(&p->last);
}

/* --- reading ------------------------------------------------------------------------------- */

t4_status
file_check(struct t4_slice object, struct error *error)
{
    struct sst *s;
    t4_status status = sst_open(object, &s, error);

    if (status != T4_OK) {
        assert_null(s);
        return status;
    }
    status = sst_verify(s, error);
    sst_close(s);
    return status;
}

void
assert_source_gives(struct sst_source source, const struct records *set)
{
    struct t4_slice key, value;
    struct error error = {0};

    for (size_t i = 0; i < set->n; i++) {
        assert_int_equal(source.next(source.state, &key, &value, &error), T4_OK);
        assert_true(slice_equal(key, buffer_slice(&set->r[i].key)));
        assert_true(slice_equal(value, buffer_slice(&set->r[i].value)));
    }
    for (int i = 0; i < 2; i++) /* the end stays the end */
        assert_int_equal(source.next(source.state, &key, &value, &error), T4_E_NOTFOUND);
}

static t4_status
array_next(void *state, struct t4_slice *key, struct t4_slice *value, struct error *error)
{
    struct array_source *a = state;

    (void)error;
    if (a->next == a->set->n) {
        a->asked_at_end++;
        return T4_E_NOTFOUND;
    }
    *key = buffer_slice(&a->set->r[a->next].key);
    *value = buffer_slice(&a->set->r[a->next].value);
    a->next++;
    return T4_OK;
}

struct sst_source
array_source(struct array_source *a, const struct records *set)
{
    *a = (struct array_source){set, 0, 0};
    return (struct sst_source){array_next, a};
}

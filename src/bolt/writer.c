/*
 * writer.c - a bbolt file out of sorted records, from the leaves up.
 *
 * Format: pages of one size.  Pages 0 and 1 hold the meta of two transactions, the higher one
 * counts.  It names the root page of a B+tree whose keys are the buckets' names, each with the
 * root page of a tree of its own, or, if that is small, with its only page inline.  A leaf holds
 * keys and values, a branch the first key of each of its children; a page that does not suffice
 * overflows into those behind it.  Numbers: layout.h.
 *
 * Pages are written once, in order: a leaf when the next record does not fit, a branch when the
 * next child does not.  What is held is one page of each level.  Metas come last, so that a file
 * that was cut short is none.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <stdlib.h>

#include "base/memory.h"
#include "bolt/bolt.h"
#include "bolt/layout.h"

#define PAGE_BYTES 4096u
#define INLINE_MAX (PAGE_BYTES / 4) /* as bbolt itself has it */
#define LEVELS_MAX 24u
#define WRITE_BYTES (1u << 20)
#define TXID UINT64_C(2)

/* A page in the making: elements, and behind them what they point to. */
struct page {
    uint32_t flags;
    uint32_t count;
    struct buffer elements, data;
};

struct bucket {
    struct buffer name;
    struct buffer value; /* head, and the page if it is inline */
};

struct bolt_writer {
    struct env *env;
    struct env_file *file;
    uint64_t next_page; /* of what is written, or in `out` */
    uint64_t out_offset;
    struct buffer out;
    struct page level[LEVELS_MAX]; /* of the tree at hand; 0: its leaves */
    uint32_t levels;
    bool in_bucket;
    struct buffer last; /* key */
    struct bucket *bucket;
    size_t n_buckets;
};

struct bolt_writer *
bolt_writer_new(struct env *env, struct env_file *file)
{
    struct bolt_writer *w = mem_zalloc(sizeof *w);

    w->env = env;
    w->file = file;
    w->next_page = 2;
    w->out_offset = 2 * PAGE_BYTES;
    return w;
}

void
bolt_writer_free(struct bolt_writer *w)
{
    if (w == NULL)
        return;
    for (uint32_t i = 0; i < LEVELS_MAX; i++) {
        buffer_free(&w->level[i].elements);
        buffer_free(&w->level[i].data);
    }
    for (size_t i = 0; i < w->n_buckets; i++) {
        buffer_free(&w->bucket[i].name);
        buffer_free(&w->bucket[i].value);
    }
    mem_free(w->bucket);
    buffer_free(&w->last);
    buffer_free(&w->out);
    mem_free(w);
}

/* --- pages -------------------------------------------------------------------------------- */

static size_t
page_size(const struct page *p)
{
    return PAGE_HEAD + p->elements.len + p->data.len;
}

static void
page_clear(struct page *p, uint32_t flags)
{
    p->flags = flags;
    p->count = 0;
    buffer_clear(&p->elements);
    buffer_clear(&p->data);
}

/* Appends the page's bytes, its elements pointing to where their data is now. */
static void
page_encode(const struct page *p, uint64_t id, uint32_t overflow, struct buffer *out)
{
    size_t at = out->len, pos_at = p->flags == PAGE_LEAF ? 4 : 0;
    uint8_t *head = buffer_reserve(out, PAGE_HEAD);

    put_u64le(head, id);
    put_u16le(head + PAGE_FLAGS, p->flags);
    put_u16le(head + PAGE_COUNT, p->count);
    put_u32le(head + PAGE_OVERFLOW, overflow);
    out->len += PAGE_HEAD;
    buffer_append_slice(out, buffer_slice(&p->elements));
    buffer_append_slice(out, buffer_slice(&p->data));
    for (uint32_t i = 0; i < p->count; i++) {
        uint8_t *pos = out->data + at + PAGE_HEAD + i * ELEMENT + pos_at;

        /* it was the place within the data */
        put_u32le(pos, get_u32le(pos) + (p->count - i) * ELEMENT);
    }
}

static t4_status
write_out(struct bolt_writer *w, struct error *error)
{
    t4_status status = w->env->pwrite(w->env->state, w->file, w->out.data, w->out.len,
                                      w->out_offset, error);

    w->out_offset += w->out.len;
    buffer_clear(&w->out);
    return status;
}

/* Writes the page; *id: where. */
static t4_status
page_write(struct bolt_writer *w, struct page *p, uint64_t *id, struct error *error)
{
    uint64_t pages = (page_size(p) + PAGE_BYTES - 1) / PAGE_BYTES;
    size_t end = w->out.len + (size_t)pages * PAGE_BYTES, gap;

    *id = w->next_page;
    w->next_page += pages;
    page_encode(p, *id, (uint32_t)(pages - 1), &w->out);
    gap = end - w->out.len;
    memset(buffer_reserve(&w->out, gap), 0, gap);
    w->out.len = end;
    page_clear(p, p->flags);
    return w->out.len >= WRITE_BYTES ? write_out(w, error) : T4_OK;
}

/* --- trees -------------------------------------------------------------------------------- */

static t4_status add_child(struct bolt_writer *w, uint32_t level, struct t4_slice key,
                           uint64_t page, struct error *error);

/* The full page of a level is written and becomes a child of the next. */
static t4_status
end_page(struct bolt_writer *w, uint32_t level, struct error *error)
{
    struct page *p = &w->level[level];
    struct buffer first = {0};
    uint64_t id;
    t4_status status;

    /* Its first key stands at the beginning of its data. */
    buffer_append(&first, p->data.data,
                  get_u32le(p->elements.data + (p->flags == PAGE_LEAF ? 8 : 4)));
    status = page_write(w, p, &id, error);
    if (status == T4_OK)
        status = add_child(w, level + 1, buffer_slice(&first), id, error);
    buffer_free(&first);
    return status;
}

/* Makes room in the page of a level for an element with n bytes of data. */
static t4_status
make_room(struct bolt_writer *w, uint32_t level, size_t n, struct error *error)
{
    struct page *p = &w->level[level];

    return p->count > 0 && page_size(p) + ELEMENT + n > PAGE_BYTES
               ? end_page(w, level, error)
               : T4_OK;
}

static uint8_t *
add_element(struct page *p)
{
    uint8_t *e = buffer_reserve(&p->elements, ELEMENT);

    p->elements.len += ELEMENT;
    p->count++;
    return e;
}

static t4_status
add_child(struct bolt_writer *w, uint32_t level, struct t4_slice key, uint64_t page,
          struct error *error)
{
    struct page *p = &w->level[level];
    t4_status status;
    uint8_t *e;

    if (level >= LEVELS_MAX - 1)
        return error_set(error, T4_E_INVALID, "a tree of too many pages");
    if (level == w->levels) {
        w->levels++;
        page_clear(p, PAGE_BRANCH);
    }
    status = make_room(w, level, key.len, error);
    if (status != T4_OK)
        return status;
    e = add_element(p);
    put_u32le(e, (uint32_t)p->data.len);
    put_u32le(e + 4, (uint32_t)key.len);
    put_u64le(e + 8, page);
    buffer_append_slice(&p->data, key);
    return T4_OK;
}

static void
add_record(struct page *p, uint32_t flags, struct t4_slice key, struct t4_slice value)
{
    uint8_t *e = add_element(p);

    put_u32le(e, flags);
    put_u32le(e + 4, (uint32_t)p->data.len);
    put_u32le(e + 8, (uint32_t)key.len);
    put_u32le(e + 12, (uint32_t)value.len);
    buffer_append_slice(&p->data, key);
    buffer_append_slice(&p->data, value);
}

static void
begin_tree(struct bolt_writer *w)
{
    page_clear(&w->level[0], PAGE_LEAF);
    w->levels = 1;
    buffer_clear(&w->last);
}

/* Writes what is left of each level; *root: the page at the top. */
static t4_status
end_tree(struct bolt_writer *w, uint64_t *root, struct error *error)
{
    uint32_t level = 0;

    for (; level + 1 < w->levels; level++) {
        t4_status status = end_page(w, level, error);

        if (status != T4_OK)
            return status;
    }
    return page_write(w, &w->level[level], root, error);
}

/* --- buckets ------------------------------------------------------------------------------ */

static t4_status
end_bucket(struct bolt_writer *w, struct error *error)
{
    struct bucket *b;
    uint64_t root = 0;
    t4_status status = T4_OK;
    bool small = w->levels == 1 && page_size(&w->level[0]) <= INLINE_MAX;

    if (!w->in_bucket)
        return T4_OK;
    w->in_bucket = false;
    b = &w->bucket[w->n_buckets - 1];
    if (!small)
        status = end_tree(w, &root, error);
    buffer_append_u64(&b->value, root);
    buffer_append_u64(&b->value, 0);
    if (small)
        page_encode(&w->level[0], 0, 0, &b->value);
    return status;
}

t4_status
bolt_writer_bucket(struct bolt_writer *w, struct t4_slice name, struct error *error)
{
    t4_status status = end_bucket(w, error);

    if (status != T4_OK)
        return status;
    if (name.len == 0 || name.len > BOLT_NAME_MAX)
        return error_set(error, T4_E_INVALID, "a bucket's name of %zu bytes", name.len);
    w->bucket = mem_realloc(w->bucket, (w->n_buckets + 1) * sizeof *w->bucket);
    w->bucket[w->n_buckets] = (struct bucket){0};
    buffer_append_slice(&w->bucket[w->n_buckets++].name, name);
    begin_tree(w);
    w->in_bucket = true;
    return T4_OK;
}

t4_status
bolt_writer_put(struct bolt_writer *w, struct t4_slice key, struct t4_slice value,
                struct error *error)
{
    t4_status status;

    if (!w->in_bucket || key.len == 0 || key.len > BOLT_KEY_MAX ||
        value.len > BOLT_PAGE_MAX / 2)
        return error_set(error, T4_E_INVALID, "a record that no bucket takes");
    if (w->last.len > 0 && slice_compare(buffer_slice(&w->last), key) >= 0)
        return error_set(error, T4_E_INVALID, "a record out of order");
    buffer_clear(&w->last);
    buffer_append_slice(&w->last, key);
    status = make_room(w, 0, key.len + value.len, error);
    if (status == T4_OK)
        add_record(&w->level[0], 0, key, value);
    return status;
}

/* --- the whole ---------------------------------------------------------------------------- */

static int
by_name(const void *a, const void *b)
{
    const struct bucket *x = a, *y = b;

    return slice_compare(buffer_slice(&x->name), buffer_slice(&y->name));
}

static t4_status
write_root(struct bolt_writer *w, uint64_t *root, struct error *error)
{
    begin_tree(w);
    if (w->n_buckets > 0)
        qsort(w->bucket, w->n_buckets, sizeof *w->bucket, by_name);
    for (size_t i = 0; i < w->n_buckets; i++) {
        struct bucket *b = &w->bucket[i];
        t4_status status = make_room(w, 0, b->name.len + b->value.len, error);

        if (status != T4_OK)
            return status;
        add_record(&w->level[0], ELEMENT_BUCKET, buffer_slice(&b->name),
                   buffer_slice(&b->value));
    }
    return end_tree(w, root, error);
}

static void
encode_meta(const struct bolt_writer *w, uint8_t *page, uint64_t id, uint64_t root,
            uint64_t freelist)
{
    uint8_t *meta = page + PAGE_HEAD;

    put_u64le(page, id);
    put_u16le(page + PAGE_FLAGS, PAGE_META);
    put_u32le(meta, BOLT_MAGIC);
    put_u32le(meta + 4, BOLT_VERSION);
    put_u32le(meta + META_PAGE_SIZE, PAGE_BYTES);
    put_u64le(meta + META_ROOT, root);
    put_u64le(meta + META_FREELIST, freelist);
    put_u64le(meta + META_PAGES, w->next_page);
    put_u64le(meta + META_TXID, TXID + id);
    put_u64le(meta + META_CHECKSUM, bolt_checksum(meta));
}

t4_status
bolt_writer_finish(struct bolt_writer *w, uint64_t *size, struct error *error)
{
    uint8_t metas[2 * PAGE_BYTES] = {0};
    struct page none = {.flags = PAGE_FREELIST};
    uint64_t root, freelist;
    t4_status status = end_bucket(w, error);

    if (status == T4_OK)
        status = write_root(w, &root, error);
    if (status == T4_OK)
        status = page_write(w, &none, &freelist, error);
    if (status == T4_OK && w->out.len > 0)
        status = write_out(w, error);
    if (status != T4_OK)
        return status;
    encode_meta(w, metas, 0, root, freelist);
    encode_meta(w, metas + PAGE_BYTES, 1, root, freelist);
    *size = w->next_page * PAGE_BYTES;
    return w->env->pwrite(w->env->state, w->file, metas, sizeof metas, 0, error);
}

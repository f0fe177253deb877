/*
 * reader.c - a bbolt file read in the order of its keys, and nothing in it believed.
 *
 * Every number is compared with what is there before it is used.  Keys must ascend over a whole
 * bucket, children must lie where their branch says, and no more pages are read than there are:
 * so a walk ends whatever the pages point to.  (Pages have no checksum: a value that was
 * changed cannot be told here.)
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <inttypes.h>
#include <stdio.h>

#include "base/memory.h"
#include "bolt/bolt.h"
#include "bolt/layout.h"

#define DEPTH_MAX 32u
#define PAGE_SIZE_MIN 512u
#define PAGE_SIZE_MAX 65536u

/* A page on the way from the root to where the walk is. */
struct frame {
    struct buffer raw;
    uint64_t id; /* 0: inline */
    bool leaf;
    uint32_t count, next; /* elements; the one that comes next */
};

struct bolt_reader {
    struct env *env;
    struct env_file *file;
    uint32_t page_size;
    uint64_t pages, root, txid;

    struct buffer bucket; /* name with a terminator, for messages; "" for the list */
    bool in_list;
    struct frame frame[DEPTH_MAX];
    uint32_t depth;   /* frames in use; 0: the walk is over */
    uint64_t visited; /* pages of this walk */
    struct buffer last;
    bool has_last;
};

/* --- opening ------------------------------------------------------------------------------ */

enum meta { META_FINE, META_NONE, META_DAMAGED };

static enum meta
read_meta(struct bolt_reader *r, uint64_t offset, uint64_t size)
{
    uint8_t page[PAGE_HEAD + META_BYTES];
    const uint8_t *meta = page + PAGE_HEAD;
    uint32_t page_size;
    uint64_t txid;
    size_t got = 0;

    if (size < sizeof page || offset > size - sizeof page ||
        r->env->pread(r->env->state, r->file, page, sizeof page, offset, &got, NULL) !=
            T4_OK ||
        got < sizeof page || get_u32le(meta) != BOLT_MAGIC)
        return META_NONE;
    page_size = get_u32le(meta + META_PAGE_SIZE);
    if (get_u32le(meta + 4) != BOLT_VERSION ||
        get_u64le(meta + META_CHECKSUM) != bolt_checksum(meta) ||
        get_u16le(page + PAGE_FLAGS) != PAGE_META || page_size < PAGE_SIZE_MIN ||
        page_size > PAGE_SIZE_MAX || (page_size & (page_size - 1)) != 0)
        return META_DAMAGED;
    txid = get_u64le(meta + META_TXID);
    if (r->page_size == 0 || txid > r->txid) {
        r->page_size = page_size;
        r->txid = txid;
        r->root = get_u64le(meta + META_ROOT);
        r->pages = get_u64le(meta + META_PAGES);
    }
    return META_FINE;
}

static t4_status
no_meta(bool damaged, struct error *error)
{
    if (damaged)
        return error_set(error, T4_E_CORRUPT, "both meta pages (0 and 1) are damaged");
    return error_set(error, T4_E_INVALID, "it is no bbolt database");
}

static t4_status
find_meta(struct bolt_reader *r, uint64_t size, struct error *error)
{
    enum meta first = read_meta(r, 0, size), second = META_NONE;

    if (first == META_FINE)
        read_meta(r, r->page_size, size);
    for (uint32_t at = PAGE_SIZE_MIN;
         first != META_FINE && second != META_FINE && at <= PAGE_SIZE_MAX; at *= 2) {
        enum meta found = read_meta(r, at, size);

        if (found != META_NONE)
            second = found;
    }
    if (r->page_size == 0)
        return no_meta(first == META_DAMAGED || second == META_DAMAGED, error);
    if (r->pages < 3 || r->pages > size / r->page_size)
        return error_set(error, T4_E_CORRUPT,
                         "the file has %" PRIu64
                         " bytes, but its meta page speaks of %" PRIu64
                         " pages of %" PRIu32 ": it was cut short, or is damaged",
                         size, r->pages, r->page_size);
    return T4_OK;
}

t4_status
bolt_reader_open(struct env *env, struct env_file *file, uint64_t size,
                 struct bolt_reader **out, struct error *error)
{
    struct bolt_reader *r = mem_zalloc(sizeof *r);
    t4_status status;

    r->env = env;
    r->file = file;
    *out = NULL;
    status = find_meta(r, size, error);
    if (status == T4_OK)
        *out = r;
    else
        bolt_reader_close(r);
    return status;
}

void
bolt_reader_close(struct bolt_reader *r)
{
    if (r == NULL)
        return;
    for (uint32_t i = 0; i < DEPTH_MAX; i++)
        buffer_free(&r->frame[i].raw);
    buffer_free(&r->bucket);
    buffer_free(&r->last);
    mem_free(r);
}

uint64_t
bolt_reader_bytes(const struct bolt_reader *r)
{
    return r->pages * r->page_size;
}

/* --- pages -------------------------------------------------------------------------------- */

static t4_status
damaged(const struct bolt_reader *r, uint64_t page, const char *what, struct error *error)
{
    if (r->in_list)
        return error_set(error, T4_E_CORRUPT,
                         "page %" PRIu64 " (of the list of buckets) %s", page, what);
    return error_set(error, T4_E_CORRUPT, "page %" PRIu64 " (of the bucket %s) %s", page,
                     (const char *)r->bucket.data, what);
}

/* What a frame's bytes say of themselves. */
static t4_status
frame_check(struct bolt_reader *r, struct frame *f, struct error *error)
{
    const uint8_t *head = f->raw.data;
    uint32_t flags = get_u16le(head + PAGE_FLAGS);

    f->leaf = flags == PAGE_LEAF;
    f->count = get_u16le(head + PAGE_COUNT);
    f->next = 0;
    if (!f->leaf && (flags != PAGE_BRANCH || f->id == 0))
        return damaged(r, f->id, "is neither a leaf nor a branch", error);
    if (PAGE_HEAD + (size_t)f->count * ELEMENT > f->raw.len)
        return damaged(r, f->id, "has more elements than it has room for", error);
    return T4_OK;
}

static t4_status
load(struct bolt_reader *r, uint64_t id, uint64_t offset, size_t n, struct buffer *out,
     struct error *error)
{
    size_t got;
    t4_status status = r->env->pread(r->env->state, r->file, buffer_reserve(out, n), n,
                                     offset, &got, error);

    if (status == T4_OK && got < n)
        return damaged(r, id, "ends with the file", error);
    if (status == T4_OK)
        out->len += got;
    return status;
}

/* Puts the page on top of the stack. */
static t4_status
push_page(struct bolt_reader *r, uint64_t id, struct error *error)
{
    struct frame *f = &r->frame[r->depth];
    uint64_t overflow, offset = id * r->page_size;
    t4_status status;

    if (r->depth == DEPTH_MAX)
        return damaged(r, id, "lies too deep in the tree", error);
    if (id < 2 || id >= r->pages)
        return damaged(r, id, "is none of the pages in use", error);
    f->id = id;
    buffer_clear(&f->raw);
    status = load(r, id, offset, r->page_size, &f->raw, error);
    if (status != T4_OK)
        return status;
    if (get_u64le(f->raw.data) != id)
        return damaged(r, id, "bears another number", error);
    overflow = get_u32le(f->raw.data + PAGE_OVERFLOW);
    if (overflow >= r->pages - id || (overflow + 1) * r->page_size > BOLT_PAGE_MAX)
        return damaged(r, id, "overflows too far", error);
    r->visited += overflow + 1;
    if (r->visited > r->pages)
        return damaged(r, id, "is reached twice", error);
    if (overflow > 0)
        status = load(r, id, offset + r->page_size, (size_t)overflow * r->page_size,
                      &f->raw, error);
    if (status == T4_OK)
        status = frame_check(r, f, error);
    if (status == T4_OK)
        r->depth++;
    return status;
}

/* The bytes that element i of a frame points to: key and, in a leaf, value. */
static t4_status
element(struct bolt_reader *r, const struct frame *f, uint32_t i, struct t4_slice *key,
        struct t4_slice *value, struct error *error)
{
    size_t at = PAGE_HEAD + (size_t)i * ELEMENT;
    const uint8_t *e = f->raw.data + at;
    uint64_t pos = get_u32le(e + (f->leaf ? 4 : 0));
    uint64_t key_len = get_u32le(e + (f->leaf ? 8 : 4));
    uint64_t value_len = f->leaf ? get_u32le(e + 12) : 0;

    if (pos < (uint64_t)(f->count - i) * ELEMENT ||
        pos + key_len + value_len > f->raw.len - at)
        return damaged(r, f->id, "has an element that points out of it", error);
    if (key_len == 0 || key_len > BOLT_KEY_MAX)
        return damaged(r, f->id, "has a key of a length that is none", error);
    *key = slice_of(e + pos, (size_t)key_len);
    *value = slice_of(e + pos + key_len, (size_t)value_len);
    return T4_OK;
}

/* --- walks -------------------------------------------------------------------------------- */

static t4_status
begin_walk(struct bolt_reader *r, const char *name, uint64_t root, struct error *error)
{
    buffer_clear(&r->bucket);
    r->in_list = name == NULL;
    if (name != NULL)
        buffer_append(&r->bucket, name, strlen(name) + 1);
    r->depth = 0;
    r->visited = 0;
    r->has_last = false;
    return root == 0 ? T4_OK : push_page(r, root, error);
}

/* The bucket's only page stands behind its head in the list. */
static t4_status
push_inline(struct bolt_reader *r, struct t4_slice page, struct error *error)
{
    struct frame *f = &r->frame[0];
    t4_status status;

    f->id = 0;
    if (page.len < PAGE_HEAD)
        return damaged(r, 0, "stands inline, and is too short for a page", error);
    buffer_clear(&f->raw);
    buffer_append_slice(&f->raw, page);
    status = frame_check(r, f, error);
    if (status == T4_OK)
        r->depth = 1;
    return status;
}

static t4_status
enter_bucket(struct bolt_reader *r, const char *name, struct t4_slice value,
             struct error *error)
{
    struct buffer page = {0};
    uint64_t root;
    t4_status status;

    if (value.len < BUCKET_HEAD)
        return damaged(r, r->frame[r->depth - 1].id, "has a bucket without its head",
                       error);
    root = get_u64le(value.data);
    buffer_append(&page, value.data + BUCKET_HEAD, value.len - BUCKET_HEAD);
    status = begin_walk(r, name, root, error);
    if (status == T4_OK && root == 0)
        status = push_inline(r, buffer_slice(&page), error);
    buffer_free(&page);
    return status;
}

t4_status
bolt_reader_bucket(struct bolt_reader *r, const char *name, struct error *error)
{
    struct t4_slice key, value;
    t4_status status = begin_walk(r, NULL, r->root, error);

    if (name == NULL)
        return status;
    while (status == T4_OK) {
        status = bolt_reader_next(r, &key, &value, error);
        if (status == T4_OK && slice_equal(key, slice_str(name)))
            return enter_bucket(r, name, value, error);
    }
    return status;
}

/* Keys ascend; a branch's key is not below what came before, and its child does not begin below it. */
static t4_status
check_order(struct bolt_reader *r, const struct frame *f, struct t4_slice key,
            struct error *error)
{
    int order = r->has_last ? slice_compare(key, buffer_slice(&r->last)) : 1;

    return order <= 0 ? damaged(r, f->id, "has a key out of order", error) : T4_OK;
}

static t4_status
enter_child(struct bolt_reader *r, struct frame *f, struct error *error)
{
    const uint8_t *e = f->raw.data + PAGE_HEAD + (size_t)f->next * ELEMENT;
    struct t4_slice key, none, first;
    t4_status status = element(r, f, f->next, &key, &none, error);

    if (status == T4_OK)
        status = check_order(r, f, key, error);
    if (status == T4_OK)
        status = push_page(r, get_u64le(e + 8), error);
    if (status != T4_OK)
        return status;
    f->next++;
    f = &r->frame[r->depth - 1];
    if (f->count == 0)
        return T4_OK;
    status = element(r, f, 0, &first, &none, error);
    if (status == T4_OK && slice_compare(first, key) < 0)
        return damaged(r, f->id, "begins below what its branch says", error);
    return status;
}

static t4_status
give(struct bolt_reader *r, struct frame *f, struct t4_slice *key, struct t4_slice *value,
     struct error *error)
{
    const uint8_t *e = f->raw.data + PAGE_HEAD + (size_t)f->next * ELEMENT;
    t4_status status = element(r, f, f->next, key, value, error);

    if (status == T4_OK)
        status = check_order(r, f, *key, error);
    if (status != T4_OK)
        return status;
    if (get_u32le(e) != (r->in_list ? ELEMENT_BUCKET : 0))
        return damaged(r, f->id,
                       r->in_list ? "has a key beside the buckets"
                                  : "has a bucket within a bucket",
                       error);
    f->next++;
    buffer_clear(&r->last);
    buffer_append_slice(&r->last, *key);
    r->has_last = true;
    return T4_OK;
}

t4_status
bolt_reader_next(struct bolt_reader *r, struct t4_slice *key, struct t4_slice *value,
                 struct error *error)
{
    while (r->depth > 0) {
        struct frame *f = &r->frame[r->depth - 1];
        t4_status status = T4_OK;

        if (f->next == f->count)
            r->depth--;
        else if (f->leaf)
            return give(r, f, key, value, error);
        else
            status = enter_child(r, f, error);
        if (status != T4_OK)
            return status;
    }
    return T4_E_NOTFOUND;
}

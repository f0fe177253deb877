/*
 * range.c - reading keys and ranges, encoded as RangeResponse.
 *
 * Order of processing, as in etcd: keys of the range in key order at the revision; filters by
 * revision; sort; limit; keys_only.  Without a sort each key goes straight from the walk into
 * the chain.  When etcd need not see all keys (order NONE, no filter) it fetches limit + 1 of
 * them and sorts only these, whatever the target; so do we.
 *
 * Entry points: range_read(), range_read_chunk() from any thread; range_encode() for evaluation.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <stdlib.h>

#include "base/memory.h"
#include "txn/txn_int.h"

/* --- internal keys ------------------------------------------------------------------ */

static void
ikey_init(struct ikey *k, struct t4_slice key)
{
    uint8_t *p = k->small;

    k->large = NULL;
    if (1 + key.len > sizeof k->small)
        p = k->large = mem_alloc(1 + key.len);
    p[0] = SPACE_KEYS;
    if (key.len > 0)
        memcpy(p + 1, key.data, key.len);
    k->s = slice_of(p, 1 + key.len);
}

/*
 * The same for a bound, which may be longer than the longest key: such a bound parts the keys
 * as does the first shorter string above it.  False: no key is above it.
 */
static bool
ikey_init_bound(struct ikey *k, struct t4_slice bound)
{
    uint8_t *p;

    if (bound.len <= KEY_BYTES_MAX) {
        ikey_init(k, bound);
        return true;
    }
    ikey_init(k, slice_of(bound.data, KEY_BYTES_MAX));
    while (k->s.len > 1 && k->s.data[k->s.len - 1] == 0xff)
        k->s.len--;
    p = k->large != NULL ? k->large : k->small;
    p[k->s.len - 1]++;
    return k->s.len > 1;
}

void
key_range_init(struct key_range *k, struct t4_slice key, struct t4_slice range_end)
{
    bool open = range_is_open(range_end);

    k->empty = !ikey_init_bound(&k->lo, key);
    if (open || !ikey_init_bound(&k->hi, range_end)) {
        if (open)
            k->hi.large = NULL;
        k->hi.s = slice_of(NULL, 0);
    } else if (slice_compare(key, range_end) >= 0) {
        k->empty = true;
    }
}

void
key_range_free(struct key_range *k)
{
    mem_free(k->lo.large);
    mem_free(k->hi.large);
}

enum etcd_error
key_read(struct mvcc_reader *reader, struct t4_slice key, uint64_t stamp,
         struct version *v, bool *live)
{
    struct ikey k;
    t4_status status;

    *live = false;
    if (key.len > KEY_BYTES_MAX)
        return ETCD_OK; /* nothing so long is stored */
    ikey_init(&k, key);
    status = mvcc_get(reader, k.s, stamp, v);
    mem_free(k.large);
    if (status != T4_OK)
        return etcd_read_error(status);
    *live = !(v->flags & VERSION_TOMBSTONE);
    return ETCD_OK;
}

/* --- filters and sorting ------------------------------------------------------------ */

static bool
has_filters(const struct range_request *r)
{
    return r->min_mod_revision != 0 || r->max_mod_revision != 0 ||
           r->min_create_revision != 0 || r->max_create_revision != 0;
}

static bool
passes_filters(const struct range_request *r, const struct key_value *kv)
{
    if (r->max_mod_revision != 0 && kv->mod_revision > r->max_mod_revision)
        return false;
    if (r->min_mod_revision != 0 && kv->mod_revision < r->min_mod_revision)
        return false;
    if (r->max_create_revision != 0 && kv->create_revision > r->max_create_revision)
        return false;
    return r->min_create_revision == 0 || kv->create_revision >= r->min_create_revision;
}

static bool
needs_sort(const struct range_request *r)
{
    return r->sort_target != SORT_KEY || r->sort_order == SORT_DESCEND;
}

/* A key that waits to be sorted; its bytes stand in found_keys.bytes. */
struct found {
    struct key_value kv; /* without key */
    size_t key_at, key_length;
    int64_t number; /* what is sorted by, unless it is key or value */
};

struct found_keys {
    struct found *found;
    size_t n, capacity;
    struct buffer bytes;
};

static void
found_add(struct found_keys *f, const struct key_value *kv, int32_t target)
{
    struct found *new;

    if (f->n == f->capacity) {
        f->capacity = f->capacity == 0 ? 64 : f->capacity * 2;
        f->found = mem_realloc(f->found, f->capacity * sizeof *f->found);
    }
    new = &f->found[f->n++];
    new->kv = *kv;
    new->key_at = f->bytes.len;
    new->key_length = kv->key.len;
    new->number = target == SORT_VERSION  ? kv->version
                  : target == SORT_CREATE ? kv->create_revision
                                          : kv->mod_revision;
    buffer_append_slice(&f->bytes, kv->key);
}

/* Equal ones stay in key order, also when descending. */
static int
by_position(const struct found *a, const struct found *b)
{
    return a->key_at < b->key_at ? -1 : a->key_at > b->key_at;
}

static int
ascending_number(const void *x, const void *y)
{
    const struct found *a = x, *b = y;

    if (a->number != b->number)
        return a->number < b->number ? -1 : 1;
    return by_position(a, b);
}

static int
descending_number(const void *x, const void *y)
{
    const struct found *a = x, *b = y;

    if (a->number != b->number)
        return a->number > b->number ? -1 : 1;
    return by_position(a, b);
}

static int
ascending_value(const void *x, const void *y)
{
    const struct found *a = x, *b = y;
    int c = slice_compare(a->kv.value, b->kv.value);

    return c != 0 ? c : by_position(a, b);
}

static int
descending_value(const void *x, const void *y)
{
    const struct found *a = x, *b = y;
    int c = slice_compare(b->kv.value, a->kv.value);

    return c != 0 ? c : by_position(a, b);
}

static int
descending_key(const void *x, const void *y)
{
    return by_position(y, x);
}

static void
found_sort(struct found_keys *f, const struct range_request *r)
{
    bool descend = r->sort_order == SORT_DESCEND;

    if (f->n < 2)
        return;
    if (r->sort_target == SORT_KEY)
        qsort(f->found, f->n, sizeof *f->found, descending_key);
    else if (r->sort_target == SORT_VALUE)
        qsort(f->found, f->n, sizeof *f->found,
              descend ? descending_value : ascending_value);
    else
        qsort(f->found, f->n, sizeof *f->found,
              descend ? descending_number : ascending_number);
}

static void
add_key_value(const struct range_request *r, const struct key_value *kv,
              struct chain *out)
{
    struct key_value bare;

    if (!r->keys_only) {
        wire_key_value_field(out, 2, kv);
        return;
    }
    bare = *kv;
    bare.value = slice_of(NULL, 0);
    wire_key_value_field(out, 2, &bare);
}

static void
found_encode(const struct found_keys *f, const struct range_request *r, struct chain *out)
{
    for (size_t i = 0; i < f->n; i++) {
        struct key_value kv = f->found[i].kv;

        if (r->limit > 0 && i == (uint64_t)r->limit)
            break;
        kv.key = slice_of(f->bytes.data + f->found[i].key_at, f->found[i].key_length);
        add_key_value(r, &kv, out);
    }
}

/* --- ranges ------------------------------------------------------------------------- */

/*
 * Goes through the range: counts all keys; the ones that pass the filters are encoded at once
 * or, if `found` is not NULL, collected.  *matched stops at limit + 1 where that is enough.
 */
static enum etcd_error
pass(const struct range_source *source, const struct range_request *r,
     struct mvcc_walk *walk, uint32_t max_keys, struct found_keys *found,
     struct chain *out, int64_t *count, int64_t *matched)
{
    bool limited = r->limit > 0 &&
                   (found == NULL || (r->sort_order == SORT_NONE && !has_filters(r)));
    struct t4_slice ikey;
    struct version v;
    t4_status status;

    *count = *matched = 0;
    while ((status = mvcc_walk_next(walk, &ikey, &v)) == T4_OK) {
        struct key_value kv;

        ++*count;
        if (max_keys > 0 && *count > max_keys)
            return ETCD_OK;
        if (r->count_only || (limited && *matched > r->limit))
            continue;
        kv = key_value_of(slice_of(ikey.data + 1, ikey.len - 1), &v, source->newest);
        if (!passes_filters(r, &kv))
            continue;
        ++*matched;
        if (found != NULL)
            found_add(found, &kv, r->sort_target);
        else if (!limited || *matched <= r->limit)
            add_key_value(r, &kv, out);
    }
    return etcd_read_error(status);
}

enum etcd_error
range_encode(const struct range_source *source, const struct range_request *r,
             const struct response_header *header, uint32_t max_keys, bool *too_long,
             struct chain *out)
{
    struct found_keys found = {0};
    bool sort = needs_sort(r) && !r->count_only;
    int64_t count = 0, matched = 0;
    enum etcd_error e = ETCD_OK;
    struct mvcc_walk walk;
    struct key_range k;

    key_range_init(&k, r->key, r->range_end);
    wire_header_field(out, 1, header);
    if (!k.empty) {
        mvcc_walk_begin(&walk, source->reader, k.lo.s, k.hi.s, source->stamp);
        e = pass(source, r, &walk, max_keys, sort ? &found : NULL, out, &count, &matched);
        mvcc_walk_end(&walk);
    }
    key_range_free(&k);
    if (e == ETCD_OK && max_keys > 0 && count > max_keys) {
        *too_long = true;
        chain_free(out);
    } else if (e == ETCD_OK) {
        found_sort(&found, r);
        found_encode(&found, r, out);
        wire_varint_field(out, 3, r->limit > 0 && matched > r->limit);
        wire_varint_field(out, 4, (uint64_t)count);
    } else {
        chain_free(out);
    }
    mem_free(found.found);
    buffer_free(&found.bytes);
    return e;
}

void
range_encode_single(const struct range_request *r, const struct key_value *kv,
                    const struct response_header *header, struct chain *out)
{
    wire_header_field(out, 1, header);
    if (kv == NULL)
        return;
    if (!r->count_only && passes_filters(r, kv))
        add_key_value(r, kv, out);
    wire_varint_field(out, 4, 1);
}

enum etcd_error
range_read(struct mvcc_reader *reader, const struct range_request *r, int64_t latest,
           const struct response_header *header, uint32_t max_keys, bool *too_long,
           struct chain *out)
{
    int64_t revision = r->revision > 0 ? r->revision : latest;
    struct range_source source = {reader, (uint64_t)revision, revision};
    struct key_value kv;
    struct version v;
    enum etcd_error e;
    bool live;

    if (too_long != NULL)
        *too_long = false;
    if (revision > latest)
        return ETCD_FUTURE_REVISION;
    /* The reader has its snapshot: what is compacted from now on is still in it. */
    if (revision < mvcc_compacted(reader->mvcc))
        return ETCD_COMPACTED;
    if (!range_is_single(r->range_end))
        return range_encode(&source, r, header, max_keys, too_long, out);
    e = key_read(reader, r->key, source.stamp, &v, &live);
    if (e != ETCD_OK)
        return e;
    if (live)
        kv = key_value_of(r->key, &v, revision);
    range_encode_single(r, live ? &kv : NULL, header, out);
    return ETCD_OK;
}

/* --- chunks ------------------------------------------------------------------------- */

static void
chunk_key(const struct range_request *r, const struct key_value *kv,
          struct range_progress *p, struct chain *out)
{
    p->count++;
    if (r->count_only)
        return;
    if (r->limit > 0 && p->given == r->limit) {
        p->more = true;
        return;
    }
    p->given++;
    add_key_value(r, kv, out);
}

static enum etcd_error
chunk_walk(struct mvcc_walk *walk, const struct range_request *r, size_t max_bytes,
           uint32_t max_keys, struct range_progress *p, struct chain *out)
{
    struct t4_slice ikey, key;
    struct version v;
    t4_status status;

    while ((status = mvcc_walk_next(walk, &ikey, &v)) == T4_OK) {
        struct key_value kv;

        key = slice_of(ikey.data + 1, ikey.len - 1);
        kv = key_value_of(key, &v, p->revision);
        chunk_key(r, &kv, p, out);
        if (out->length >= max_bytes || --max_keys == 0) {
            buffer_clear(&p->next);
            buffer_append_slice(&p->next, key);
            buffer_append_u8(&p->next, 0);
            return ETCD_OK;
        }
    }
    p->done = true;
    return etcd_read_error(status);
}

enum etcd_error
range_read_chunk(struct mvcc_reader *reader, const struct range_request *r,
                 size_t max_bytes, uint32_t max_keys, struct range_progress *p,
                 struct chain *out)
{
    enum etcd_error e = ETCD_OK;
    struct mvcc_walk walk;
    struct key_range k;

    if (p->revision < mvcc_compacted(reader->mvcc))
        return ETCD_COMPACTED;
    if (range_is_single(r->range_end)) {
        struct key_value kv;
        struct version v;
        bool live;

        e = key_read(reader, r->key, (uint64_t)p->revision, &v, &live);
        if (e == ETCD_OK && live) {
            kv = key_value_of(r->key, &v, p->revision);
            chunk_key(r, &kv, p, out);
        }
        p->done = true;
        return e;
    }
    key_range_init(&k, p->next.len > 0 ? buffer_slice(&p->next) : r->key, r->range_end);
    if (k.empty) {
        p->done = true;
    } else {
        mvcc_walk_begin(&walk, reader, k.lo.s, k.hi.s, (uint64_t)p->revision);
        e = chunk_walk(&walk, r, max_bytes, max_keys, p, out);
        mvcc_walk_end(&walk);
    }
    key_range_free(&k);
    if (e != ETCD_OK)
        chain_free(out);
    return e;
}

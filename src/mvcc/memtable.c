/*
 * memtable.c - arena skip list of keys, hash, version lists.  See memtable.h.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "mvcc/memtable.h"

#include "base/hash.h"
#include "base/memory.h"

#define CHUNK_BYTES (256u * 1024)

struct arena_chunk {
    struct arena_chunk *older;
    size_t used, capacity;
    uint8_t data[];
};

static void *
arena_alloc(struct memtable *t, size_t n)
{
    struct arena_chunk *c = t->chunks;
    void *p;

    n = (n + 7) & ~(size_t)7;
    if (c == NULL || c->capacity - c->used < n) {
        size_t capacity = n > CHUNK_BYTES / 4 ? n : CHUNK_BYTES;

        /* A small memtable (a transaction's overlay) must not cost a large chunk. */
        if (c == NULL && t->hash_mask < 1024 && n < 4096)
            capacity = 4096;
        c = mem_alloc(sizeof *c + capacity);
        c->used = 0;
        c->capacity = capacity;
        if (capacity == n &&
            t->chunks != NULL) { /* full: what is left of the current one stays */
            c->older = t->chunks->older;
            t->chunks->older = c;
        } else {
            c->older = t->chunks;
            t->chunks = c;
        }
    }
    p = c->data + c->used;
    c->used += n;
    atomic_fetch_add_explicit(&t->bytes, n, memory_order_relaxed);
    return p;
}

static struct memtable_key *
key_new(struct memtable *t, struct t4_slice ikey, uint32_t height)
{
    size_t fixed = sizeof(struct memtable_key) + height * sizeof(struct memtable_key *);
    struct memtable_key *k = arena_alloc(t, fixed + ikey.len);
    uint8_t *data = (uint8_t *)k + fixed;

    if (ikey.len > 0)
        memcpy(data, ikey.data, ikey.len);
    atomic_init(&k->newest, NULL);
    atomic_init(&k->hash_next, NULL);
    k->data = data;
    k->length = (uint32_t)ikey.len;
    k->height = height;
    for (uint32_t i = 0; i < height; i++)
        atomic_init(&k->next[i], NULL);
    return k;
}

struct memtable *
memtable_new(uint64_t bytes_hint, uint64_t hash_seed)
{
    struct memtable *t = mem_zalloc(sizeof *t);
    uint64_t buckets = 64;

    /* One bucket per 256 bytes: about one key each, and never rehashed. */
    while (buckets < bytes_hint / 256 && buckets < 1u << 24)
        buckets *= 2;
    t->bucket = mem_zalloc(buckets * sizeof *t->bucket);
    t->hash_mask = buckets - 1;
    t->hash_seed = hash_seed;
    t->random = hash_seed | 1;
    atomic_init(&t->references, 1);
    t->head = key_new(t, slice_of(NULL, 0), MEMTABLE_HEIGHT_MAX);
    return t;
}

static void
chunks_free(struct memtable *t)
{
    while (t->chunks != NULL) {
        struct arena_chunk *older = t->chunks->older;

        mem_free(t->chunks);
        t->chunks = older;
    }
}

void
memtable_delete(struct memtable *t)
{
    if (t == NULL)
        return;
    chunks_free(t);
    mem_free(t->bucket);
    mem_free(t);
}

void
memtable_reset(struct memtable *t)
{
    if (atomic_load_explicit(&t->keys, memory_order_relaxed) == 0)
        return;
    memset(t->bucket, 0, (t->hash_mask + 1) * sizeof *t->bucket);
    if (t->chunks->older == NULL)
        t->chunks->used = 0;
    else
        chunks_free(t);
    atomic_store_explicit(&t->bytes, 0, memory_order_relaxed);
    atomic_store_explicit(&t->keys, 0, memory_order_relaxed);
    t->head = key_new(t, slice_of(NULL, 0), MEMTABLE_HEIGHT_MAX);
}

uint64_t
memtable_bytes(const struct memtable *t)
{
    return atomic_load_explicit(&t->bytes, memory_order_relaxed);
}

/*
 * Last key < ikey on each level, into before[] (if not NULL); returns the first key >= ikey.
 */
static struct memtable_key *
search(const struct memtable *t, struct t4_slice ikey, struct memtable_key **before)
{
    struct memtable_key *at = t->head, *next = NULL;

    for (int level = MEMTABLE_HEIGHT_MAX - 1; level >= 0; level--) {
        struct memtable_key *bound = next; /* already known to be >= ikey */

        for (;;) {
            next = atomic_load_explicit(&at->next[level], memory_order_acquire);
            if (next == NULL || next == bound ||
                slice_compare(memtable_key_slice(next), ikey) >= 0)
                break;
            at = next;
        }
        if (before != NULL)
            before[level] = at;
    }
    return next;
}

static _Atomic(struct memtable_key *) *
bucket_of(const struct memtable *t, struct t4_slice ikey)
{
    return &t->bucket[hash_bytes(t->hash_seed, ikey.data, ikey.len) & t->hash_mask];
}

const struct memtable_key *
memtable_find(const struct memtable *t, struct t4_slice ikey)
{
    struct memtable_key *k;

    /* an overlay grown far beyond its hash */
    if (atomic_load_explicit(&t->keys, memory_order_relaxed) > 8 * (t->hash_mask + 1)) {
        k = search(t, ikey, NULL);
        return k != NULL && slice_equal(memtable_key_slice(k), ikey) ? k : NULL;
    }
    k = atomic_load_explicit(bucket_of(t, ikey), memory_order_acquire);
    while (k != NULL && !slice_equal(memtable_key_slice(k), ikey))
        k = atomic_load_explicit(&k->hash_next, memory_order_acquire);
    return k;
}

static uint32_t
random_height(struct memtable *t)
{
    uint32_t height = 1;

    t->random = hash_u64(t->random);
    for (uint64_t r = t->random; (r & 3) == 0 && height < MEMTABLE_HEIGHT_MAX; r >>= 2)
        height++;
    return height;
}

static void
link_key(struct memtable *t, struct memtable_key *k)
{
    struct memtable_key *before[MEMTABLE_HEIGHT_MAX];
    _Atomic(struct memtable_key *) *bucket = bucket_of(t, memtable_key_slice(k));

    search(t, memtable_key_slice(k), before);
    for (uint32_t i = 0; i < k->height; i++) {
        atomic_store_explicit(
            &k->next[i], atomic_load_explicit(&before[i]->next[i], memory_order_relaxed),
            memory_order_relaxed);
        atomic_store_explicit(&before[i]->next[i], k, memory_order_release);
    }
    atomic_store_explicit(&k->hash_next,
                          atomic_load_explicit(bucket, memory_order_relaxed),
                          memory_order_relaxed);
    atomic_store_explicit(bucket, k, memory_order_release);
    atomic_fetch_add_explicit(&t->keys, 1, memory_order_relaxed);
}

void
memtable_insert(struct memtable *t, struct t4_slice ikey, const struct version *v)
{
    struct memtable_key *k = (struct memtable_key *)memtable_find(t, ikey);
    struct memtable_version *n = arena_alloc(t, sizeof *n + v->value.len), *older = NULL;
    uint8_t *value = (uint8_t *)(n + 1);

    if (k != NULL)
        older = atomic_load_explicit(&k->newest, memory_order_relaxed);
    if (v->value.len > 0)
        memcpy(value, v->value.data, v->value.len);
    n->v = *v;
    n->v.value = slice_of(value, v->value.len);
    n->older = older;
    n->jump = older;
    n->depth = 0;
    if (older != NULL) {
        n->depth = older->depth + 1;
        /* Two equal jumps below merge into one of double length (plus one). */
        if (older->jump != NULL && older->jump->jump != NULL &&
            older->depth - older->jump->depth ==
                older->jump->depth - older->jump->jump->depth)
            n->jump = older->jump->jump;
    }
    if (k != NULL) {
        atomic_store_explicit(&k->newest, n, memory_order_release);
        return;
    }
    k = key_new(t, ikey, random_height(t));
    atomic_store_explicit(&k->newest, n, memory_order_relaxed);
    link_key(t, k);
}

const struct memtable_version *
memtable_version_from(const struct memtable_version *v, uint64_t stamp)
{
    while (v != NULL && v->v.stamp > stamp)
        v = v->jump != NULL && v->jump->v.stamp > stamp ? v->jump : v->older;
    return v;
}

bool
memtable_get(const struct memtable *t, struct t4_slice ikey, uint64_t stamp,
             struct version *out)
{
    const struct memtable_key *k = memtable_find(t, ikey);
    const struct memtable_version *v = k != NULL ? memtable_version_at(k, stamp) : NULL;

    if (v == NULL)
        return false;
    *out = v->v;
    return true;
}

const struct memtable_key *
memtable_seek(const struct memtable *t, struct t4_slice ikey)
{
    return search(t, ikey, NULL);
}

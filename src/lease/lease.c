/*
 * lease.c - the table of leases: a hash by id and a heap by expiry.  See lease.h.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "lease/lease.h"

#include <stdlib.h>

#include "base/hash.h"
#include "base/memory.h"

#define SECOND 1000000000u
#define RECORD_FORMAT 1

struct lease_table {
    uint64_t hash_seed;
    struct lease **bucket;
    uint64_t buckets;    /* power of two */
    struct lease **heap; /* heap[0] expires first */
    uint64_t n, heap_capacity;
};

struct lease_table *
lease_table_new(uint64_t hash_seed)
{
    struct lease_table *t = mem_zalloc(sizeof *t);

    t->hash_seed = hash_seed;
    t->buckets = 64;
    t->bucket = mem_zalloc(t->buckets * sizeof *t->bucket);
    return t;
}

void
lease_table_free(struct lease_table *t)
{
    if (t == NULL)
        return;
    for (uint64_t i = 0; i < t->n; i++)
        mem_free(t->heap[i]);
    mem_free(t->heap);
    mem_free(t->bucket);
    mem_free(t);
}

uint64_t
lease_table_count(const struct lease_table *t)
{
    return t->n;
}

static struct lease **
bucket_of(struct lease_table *t, int64_t id)
{
    return &t->bucket[hash_u64((uint64_t)id ^ t->hash_seed) & (t->buckets - 1)];
}

struct lease *
lease_find(struct lease_table *t, int64_t id)
{
    struct lease *l = *bucket_of(t, id);

    while (l != NULL && l->id != id)
        l = l->hash_next;
    return l;
}

/* --- heap ------------------------------------------------------------------------------- */

static void
heap_set(struct lease_table *t, uint64_t i, struct lease *l)
{
    t->heap[i] = l;
    l->heap_index = (uint32_t)i;
}

static void
heap_up(struct lease_table *t, uint64_t i)
{
    struct lease *l = t->heap[i];

    while (i > 0 && t->heap[(i - 1) / 2]->expires_ns > l->expires_ns) {
        heap_set(t, i, t->heap[(i - 1) / 2]);
        i = (i - 1) / 2;
    }
    heap_set(t, i, l);
}

static void
heap_down(struct lease_table *t, uint64_t i)
{
    struct lease *l = t->heap[i];

    for (;;) {
        uint64_t child = 2 * i + 1;

        if (child >= t->n)
            break;
        if (child + 1 < t->n &&
            t->heap[child + 1]->expires_ns < t->heap[child]->expires_ns)
            child++;
        if (t->heap[child]->expires_ns >= l->expires_ns)
            break;
        heap_set(t, i, t->heap[child]);
        i = child;
    }
    heap_set(t, i, l);
}

static void
heap_moved(struct lease_table *t, struct lease *l)
{
    heap_up(t, l->heap_index);
    heap_down(t, l->heap_index);
}

/* --- table -------------------------------------------------------------------------------- */

static void
grow(struct lease_table *t)
{
    t->buckets *= 2;
    t->bucket = mem_realloc(t->bucket, t->buckets * sizeof *t->bucket);
    memset(t->bucket, 0, t->buckets * sizeof *t->bucket);
    for (uint64_t i = 0; i < t->n; i++) {
        struct lease **b = bucket_of(t, t->heap[i]->id);

        t->heap[i]->hash_next = *b;
        *b = t->heap[i];
    }
}

static uint64_t
expiry(uint64_t now_ns, int64_t seconds)
{
    /* LEASE_TTL_MAX seconds in nanoseconds still leave room for any uptime */
    return now_ns + (uint64_t)seconds * SECOND;
}

struct lease *
lease_add(struct lease_table *t, int64_t id, int64_t ttl, int64_t remaining,
          uint64_t now_ns)
{
    struct lease *l = mem_zalloc(sizeof *l), **b;

    if (t->n >= t->buckets)
        grow(t);
    if (t->n == t->heap_capacity) {
        t->heap_capacity = t->heap_capacity > 0 ? 2 * t->heap_capacity : 64;
        t->heap = mem_realloc(t->heap, t->heap_capacity * sizeof *t->heap);
    }
    l->id = id;
    l->ttl = ttl;
    l->logged_remaining = remaining;
    l->expires_ns = expiry(now_ns, remaining);
    b = bucket_of(t, id);
    l->hash_next = *b;
    *b = l;
    t->n++;
    heap_set(t, t->n - 1, l);
    heap_up(t, t->n - 1);
    return l;
}

void
lease_remove(struct lease_table *t, struct lease *l)
{
    struct lease **link = bucket_of(t, l->id), *last = t->heap[t->n - 1];

    while (*link != l)
        link = &(*link)->hash_next;
    *link = l->hash_next;
    t->n--;
    if (last != l) {
        heap_set(t, l->heap_index, last);
        heap_moved(t, last);
    }
    mem_free(l);
}

void
lease_renew(struct lease_table *t, struct lease *l, uint64_t now_ns)
{
    l->expires_ns = expiry(now_ns, l->ttl);
    heap_moved(t, l);
}

void
lease_extend(struct lease_table *t, struct lease *l, uint64_t from_ns)
{
    if (expiry(from_ns, l->ttl) > l->expires_ns)
        lease_renew(t, l, from_ns);
}

void
lease_restart_all(struct lease_table *t, uint64_t now_ns)
{
    for (uint64_t i = 0; i < t->n; i++)
        t->heap[i]->expires_ns = expiry(now_ns, t->heap[i]->logged_remaining);
    for (uint64_t i = t->n; i-- > 0;)
        heap_down(t, i);
}

void
lease_renew_all(struct lease_table *t, uint64_t now_ns)
{
    for (uint64_t i = 0; i < t->n; i++)
        t->heap[i]->expires_ns = expiry(now_ns, t->heap[i]->ttl);
    for (uint64_t i = t->n; i-- > 0;)
        heap_down(t, i);
}

void
lease_shift_all(struct lease_table *t, uint64_t ns)
{
    if (ns == 0)
        return;
    for (uint64_t i = 0; i < t->n; i++) /* all by the same: their order stays */
        t->heap[i]->expires_ns += ns;
}

int64_t
lease_remaining(const struct lease *l, uint64_t now_ns)
{
    return l->expires_ns <= now_ns ? 0 : (int64_t)((l->expires_ns - now_ns) / SECOND);
}

int64_t
lease_remaining_up(const struct lease *l, uint64_t now_ns)
{
    int64_t left = lease_remaining(l, now_ns);

    return expiry(now_ns, left) < l->expires_ns ? left + 1 : left;
}

struct lease *
lease_first(struct lease_table *t)
{
    return t->n > 0 ? t->heap[0] : NULL;
}

static int
by_expiry(const void *a, const void *b)
{
    const struct lease *x = *(struct lease *const *)a, *y = *(struct lease *const *)b;

    if (x->expires_ns != y->expires_ns)
        return x->expires_ns < y->expires_ns ? -1 : 1;
    return x->id < y->id ? -1 : x->id > y->id;
}

int64_t *
lease_ids_by_expiry(const struct lease_table *t, uint64_t *n)
{
    struct lease **copy = mem_alloc(t->n * sizeof(struct lease *));
    int64_t *ids = mem_alloc(t->n * sizeof *ids);

    if (t->n > 0) {
        memcpy(copy, t->heap, t->n * sizeof(struct lease *));
        qsort(copy, t->n, sizeof(struct lease *), by_expiry);
    }
    for (uint64_t i = 0; i < t->n; i++)
        ids[i] = copy[i]->id;
    mem_free(copy);
    *n = t->n;
    return ids;
}

struct lease **
lease_due_remainders(struct lease_table *t, uint64_t now_ns, uint64_t *n)
{
    struct lease **due = mem_alloc(t->n * sizeof(struct lease *));

    *n = 0;
    for (uint64_t i = 0; i < t->n; i++) {
        struct lease *l = t->heap[i];
        int64_t left = lease_remaining_up(l, now_ns);

        if (l->ttl > LEASE_REMAINDER_MIN && left > 0 && left < l->logged_remaining &&
            l->logged_remaining - left >= l->logged_remaining / 4)
            due[(*n)++] = l;
    }
    return due;
}

/* --- the record ------------------------------------------------------------------------------ */

void
lease_key_encode(uint8_t key[LEASE_KEY_BYTES], int64_t id)
{
    memcpy(key, "lease/", 6);
    put_u64be(key + 6, (uint64_t)id);
}

bool
lease_key_decode(struct t4_slice key, int64_t *id)
{
    if (key.len != LEASE_KEY_BYTES || memcmp(key.data, "lease/", 6) != 0)
        return false;
    *id = (int64_t)get_u64be(key.data + 6);
    return true;
}

void
lease_value_encode(struct buffer *out, int64_t ttl, int64_t remaining)
{
    buffer_append_u8(out, RECORD_FORMAT);
    buffer_append_varint(out, (uint64_t)ttl);
    buffer_append_varint(out, (uint64_t)remaining);
}

bool
lease_value_decode(struct t4_slice value, int64_t *ttl, int64_t *remaining)
{
    struct byte_reader r = reader_of(value);

    if (reader_u8(&r) != RECORD_FORMAT)
        r.bad = true;
    *ttl = (int64_t)reader_varint(&r);
    *remaining = (int64_t)reader_varint(&r);
    return !r.bad && reader_left(&r) == 0 && *ttl >= 1 && *ttl <= LEASE_TTL_MAX &&
           *remaining >= 0 && *remaining <= *ttl;
}

/*
 * index.c - which watchers match a key.
 *
 * A watcher of a single key stands in a hash, whose buckets are lists in both directions:
 * thousands may watch one key, and each can leave at once.  Ranges stand in a treap ordered by
 * (key, address) in which every node knows the largest end of its subtree, so that a key
 * visits matching watchers and O(log n) others.  The depth of the recursions is that of the
 * treap: its priorities are hashed with a random seed, so no client can make it deep.
 *
 * Entry points: watch_index_add(), watch_index_remove(), watch_index_match().
 * Runs on the hub's thread.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "base/hash.h"
#include "base/memory.h"
#include "watch/watch_int.h"

void
watch_index_init(struct watch_index *ix, uint64_t seed)
{
    *ix = (struct watch_index){.seed = seed, .buckets = 64};
    ix->bucket = mem_zalloc(ix->buckets * sizeof(struct watcher *));
}

void
watch_index_free(struct watch_index *ix)
{
    mem_free(ix->bucket);
    *ix = (struct watch_index){0};
}

bool
watch_index_empty(const struct watch_index *ix)
{
    return ix->root == NULL && ix->singles == 0;
}

static bool
is_single(const struct watcher *w)
{
    return !w->open && w->end.len == 0;
}

/* --- single keys ------------------------------------------------------------------------- */

static struct watcher **
bucket_of(struct watch_index *ix, struct t4_slice key)
{
    return &ix->bucket[hash_bytes(ix->seed, key.data, key.len) & (ix->buckets - 1)];
}

static void
bucket_add(struct watch_index *ix, struct watcher *w)
{
    struct watcher **b = bucket_of(ix, w->key);

    w->left = *b;
    w->right = NULL;
    if (w->left != NULL)
        w->left->right = w;
    *b = w;
}

static void
bucket_remove(struct watch_index *ix, struct watcher *w)
{
    if (w->right != NULL)
        w->right->left = w->left;
    else
        *bucket_of(ix, w->key) = w->left;
    if (w->left != NULL)
        w->left->right = w->right;
}

static void
grow(struct watch_index *ix)
{
    struct watcher **old = ix->bucket;
    uint64_t n = ix->buckets;

    ix->buckets *= 2;
    ix->bucket = mem_zalloc(ix->buckets * sizeof(struct watcher *));
    for (uint64_t i = 0; i < n; i++)
        for (struct watcher *w = old[i], *next; w != NULL; w = next) {
            next = w->left;
            bucket_add(ix, w);
        }
    mem_free(old);
}

/* --- ranges -------------------------------------------------------------------------------- */

static int
order(const struct watcher *a, const struct watcher *b)
{
    int c = slice_compare(a->key, b->key);

    return c != 0 ? c : (a > b) - (a < b);
}

static void
include_end(struct watcher *w, const struct watcher *child)
{
    if (child == NULL || w->max_open)
        return;
    if (child->max_open)
        w->max_open = true;
    else if (slice_compare(child->max_end, w->max_end) > 0)
        w->max_end = child->max_end;
}

static struct watcher *
update(struct watcher *w)
{
    w->max_open = w->open;
    w->max_end = w->end;
    include_end(w, w->left);
    include_end(w, w->right);
    return w;
}

/* Everything in a is before everything in b. */
static struct watcher *
join(struct watcher *a, struct watcher *b)
{
    if (a == NULL || b == NULL)
        return a != NULL ? a : b;
    if (a->priority > b->priority) {
        a->right = join(a->right, b);
        return update(a);
    }
    b->left = join(a, b->left);
    return update(b);
}

/* Splits t into what is before w and what is behind it. */
static void
split(struct watcher *t, const struct watcher *w, struct watcher **before,
      struct watcher **behind)
{
    if (t == NULL) {
        *before = *behind = NULL;
    } else if (order(t, w) < 0) {
        split(t->right, w, &t->right, behind);
        *before = update(t);
    } else {
        split(t->left, w, before, &t->left);
        *behind = update(t);
    }
}

static struct watcher *
insert(struct watcher *t, struct watcher *w)
{
    if (t == NULL || w->priority > t->priority) {
        split(t, w, &w->left, &w->right);
        return update(w);
    }
    if (order(w, t) < 0)
        t->left = insert(t->left, w);
    else
        t->right = insert(t->right, w);
    return update(t);
}

static struct watcher *
take_out(struct watcher *t, const struct watcher *w)
{
    if (t == w)
        return join(t->left, t->right);
    if (order(w, t) < 0)
        t->left = take_out(t->left, w);
    else
        t->right = take_out(t->right, w);
    return update(t);
}

static void
match(struct watcher *t, struct t4_slice key, void (*fn)(struct watcher *, void *),
      void *arg)
{
    while (t != NULL && (t->max_open || slice_compare(t->max_end, key) > 0)) {
        match(t->left, key, fn, arg);
        if (slice_compare(t->key, key) > 0)
            return; /* it and all to its right begin behind the key */
        if (t->open || slice_compare(t->end, key) > 0)
            fn(t, arg);
        t = t->right;
    }
}

/* --- both ------------------------------------------------------------------------------------ */

void
watch_index_add(struct watch_index *ix, struct watcher *w)
{
    if (!is_single(w)) {
        w->left = w->right = NULL;
        w->priority = (uint32_t)hash_u64((uintptr_t)w ^ ix->seed);
        ix->root = insert(ix->root, w);
        return;
    }
    if (ix->singles++ >= ix->buckets)
        grow(ix);
    bucket_add(ix, w);
}

void
watch_index_remove(struct watch_index *ix, struct watcher *w)
{
    if (!is_single(w)) {
        ix->root = take_out(ix->root, w);
        return;
    }
    bucket_remove(ix, w);
    ix->singles--;
}

void
watch_index_match(struct watch_index *ix, struct t4_slice key,
                  void (*fn)(struct watcher *w, void *arg), void *arg)
{
    if (ix->singles > 0)
        for (struct watcher *w = *bucket_of(ix, key), *next; w != NULL; w = next) {
            next = w->left;
            if (slice_equal(w->key, key))
                fn(w, arg);
        }
    match(ix->root, key, fn, arg);
}

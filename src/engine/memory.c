/*
 * memory.c - the built-in storage engine: an ordered map in memory.
 *
 * It stands behind the same table as any plugin, for servers that keep nothing and for
 * tests.  The map is a persistent AVL tree: a write copies the path to what it changes
 * and shares the rest with the trees before it, so a snapshot is one reference to a root
 * and readers need no lock.  Nodes made by the write in progress are seen by nobody else
 * and changed in place.
 *
 * Entry point: engine_memory_ops().
 * Runs on: write() on one thread at a time, snapshots on any.
 *
 * Invariants:
 *  (1) a node reachable from `root` or a snapshot never changes, but for its count
 *  (2) node->write == t->write only for nodes that the write in progress has made
 *  (3) heights of siblings differ by at most one, so 64 levels are never reached
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <stdatomic.h>
#include <string.h>

#include "base/memory.h"
#include "base/slice.h"
#include "engine/engine.h"
#include "env/thread.h"

#define MAX_KEY 65536
#define MAX_HEIGHT 64

/* A key with its value; shared by all trees that have it. */
struct pair {
    _Atomic uint32_t count;
    uint32_t key_len;
    size_t value_len;
    uint8_t bytes[]; /* key, then value */
};

struct node {
    _Atomic uint32_t count; /* parents and roots that point here */
    uint32_t height;        /* of a leaf: 1 */
    uint64_t write;         /* the write that made it */
    struct node *left, *right;
    struct pair *pair;
};

struct t4_engine {
    struct mutex lock;
    struct node *root;   /* [lock] counted; NULL: empty */
    uint64_t records;    /* [lock] */
    uint64_t bytes;      /* [lock] of keys and values */
    uint64_t flushed;    /* [lock] of the last write */
    uint64_t last_write; /* [writer] */
};

struct t4_snap {
    struct node *root; /* counted */
};

/*
 * Position: the nodes from the root to the current one.  Empty path: before the first key
 * or, if `behind`, after the last.
 */
struct t4_iter {
    const struct t4_snap *snap;
    bool behind;
    unsigned depth;
    const struct node *path[MAX_HEIGHT];
};

/* A write in progress. */
struct tree {
    struct node *root; /* counted */
    uint64_t write, records, bytes;
};

/* --- counted nodes ------------------------------------------------------------------ */

static struct t4_slice
pair_key(const struct pair *p)
{
    return slice_of(p->bytes, p->key_len);
}

static struct t4_slice
pair_value(const struct pair *p)
{
    return slice_of(p->bytes + p->key_len, p->value_len);
}

static struct pair *
pair_new(struct t4_slice key, struct t4_slice value)
{
    struct pair *p = mem_alloc(sizeof *p + key.len + value.len);

    atomic_init(&p->count, 1);
    p->key_len = (uint32_t)key.len;
    p->value_len = value.len;
    memcpy(p->bytes, key.data, key.len);
    if (value.len > 0)
        memcpy(p->bytes + key.len, value.data, value.len);
    return p;
}

static void
pair_drop(struct pair *p)
{
    if (atomic_fetch_sub_explicit(&p->count, 1, memory_order_acq_rel) == 1)
        mem_free(p);
}

static struct node *
node_hold(struct node *n)
{
    if (n != NULL)
        atomic_fetch_add_explicit(&n->count, 1, memory_order_relaxed);
    return n;
}

/* Recursion on one side only: as deep as the tree is high (3). */
static void
node_drop(struct node *n)
{
    while (n != NULL &&
           atomic_fetch_sub_explicit(&n->count, 1, memory_order_acq_rel) == 1) {
        struct node *right = n->right;

        node_drop(n->left);
        pair_drop(n->pair);
        mem_free(n);
        n = right;
    }
}

/* --- changing a tree: functions take over the reference to n and return one --------- */

static struct node *
own(struct tree *t, struct node *n)
{
    struct node *copy;

    if (n->write == t->write)
        return n;
    copy = mem_alloc(sizeof *copy);
    atomic_init(&copy->count, 1);
    copy->height = n->height;
    copy->write = t->write;
    copy->left = node_hold(n->left);
    copy->right = node_hold(n->right);
    atomic_fetch_add_explicit(&n->pair->count, 1, memory_order_relaxed);
    copy->pair = n->pair;
    node_drop(n);
    return copy;
}

static unsigned
height(const struct node *n)
{
    return n == NULL ? 0 : n->height;
}

static void
measure(struct node *n)
{
    unsigned l = height(n->left), r = height(n->right);

    n->height = 1 + (l > r ? l : r);
}

static struct node *
rotate_right(struct tree *t, struct node *n)
{
    struct node *top = own(t, n->left);

    n->left = top->right;
    measure(n);
    top->right = n;
    measure(top);
    return top;
}

static struct node *
rotate_left(struct tree *t, struct node *n)
{
    struct node *top = own(t, n->right);

    n->right = top->left;
    measure(n);
    top->left = n;
    measure(top);
    return top;
}

/* n is owned and its subtrees differ in height by at most two. */
static struct node *
balance(struct tree *t, struct node *n)
{
    if (height(n->left) > height(n->right) + 1) {
        n->left = own(t, n->left);
        if (height(n->left->left) < height(n->left->right))
            n->left = rotate_left(t, n->left);
        return rotate_right(t, n);
    }
    if (height(n->right) > height(n->left) + 1) {
        n->right = own(t, n->right);
        if (height(n->right->right) < height(n->right->left))
            n->right = rotate_right(t, n->right);
        return rotate_left(t, n);
    }
    measure(n);
    return n;
}

static struct node *
insert(struct tree *t, struct node *n, struct pair *pair)
{
    int order;

    if (n == NULL) {
        n = mem_zalloc(sizeof *n);
        atomic_init(&n->count, 1);
        n->height = 1;
        n->write = t->write;
        n->pair = pair;
        t->records++;
        t->bytes += pair->key_len + pair->value_len;
        return n;
    }
    n = own(t, n);
    order = slice_compare(pair_key(pair), pair_key(n->pair));
    if (order < 0) {
        n->left = insert(t, n->left, pair);
    } else if (order > 0) {
        n->right = insert(t, n->right, pair);
    } else {
        t->bytes = t->bytes + pair->value_len - n->pair->value_len;
        pair_drop(n->pair);
        n->pair = pair;
        return n;
    }
    return balance(t, n);
}

/* Takes the leftmost node out; its pair, with the reference, goes to *out. */
static struct node *
take_first(struct tree *t, struct node *n, struct pair **out)
{
    struct node *right;

    n = own(t, n);
    if (n->left != NULL) {
        n->left = take_first(t, n->left, out);
        return balance(t, n);
    }
    *out = n->pair;
    right = n->right;
    mem_free(n); /* owned: nobody else has it */
    return right;
}

/* The key is there. */
static struct node *
erase(struct tree *t, struct node *n, struct t4_slice key)
{
    int order;
    struct node *only;

    n = own(t, n);
    order = slice_compare(key, pair_key(n->pair));
    if (order < 0) {
        n->left = erase(t, n->left, key);
        return balance(t, n);
    }
    if (order > 0) {
        n->right = erase(t, n->right, key);
        return balance(t, n);
    }
    t->records--;
    t->bytes -= n->pair->key_len + n->pair->value_len;
    pair_drop(n->pair);
    if (n->left != NULL && n->right != NULL) {
        n->right = take_first(t, n->right, &n->pair);
        return balance(t, n);
    }
    only = n->left != NULL ? n->left : n->right;
    mem_free(n);
    return only;
}

static const struct node *
find(const struct node *n, struct t4_slice key)
{
    while (n != NULL) {
        int order = slice_compare(key, pair_key(n->pair));

        if (order == 0)
            break;
        n = order < 0 ? n->left : n->right;
    }
    return n;
}

/* --- the table: engine -------------------------------------------------------------- */

static t4_status
memory_open(void *plugin, struct t4_call *call, struct t4_slice dir,
            struct t4_engine **out)
{
    struct t4_engine *e = mem_zalloc(sizeof *e);

    (void)plugin;
    (void)call;
    (void)dir;
    mutex_init(&e->lock);
    *out = e;
    return T4_OK;
}

static void
memory_close(struct t4_engine *e)
{
    node_drop(e->root);
    mutex_destroy(&e->lock);
    mem_free(e);
}

static t4_status
memory_write(struct t4_engine *e, struct t4_call *call, const struct t4_op *ops, size_t n,
             uint64_t flushed)
{
    struct tree t = {.write = ++e->last_write};
    struct node *before;

    (void)call; /* the facade has checked the operations: nothing here can fail */
    mutex_lock(&e->lock);
    t.root = node_hold(e->root);
    t.records = e->records;
    t.bytes = e->bytes;
    mutex_unlock(&e->lock);

    for (size_t i = 0; i < n; i++) {
        if (ops[i].kind == T4_OP_PUT)
            t.root = insert(&t, t.root, pair_new(ops[i].key, ops[i].value));
        else if (find(t.root, ops[i].key) != NULL)
            t.root = erase(&t, t.root, ops[i].key);
    }

    mutex_lock(&e->lock);
    before = e->root;
    e->root = t.root;
    e->records = t.records;
    e->bytes = t.bytes;
    e->flushed = flushed;
    mutex_unlock(&e->lock);
    node_drop(before);
    return T4_OK;
}

static t4_status
memory_sync(struct t4_engine *e, struct t4_call *call)
{
    (void)e;
    (void)call;
    return T4_OK;
}

static t4_status
memory_flushed(struct t4_engine *e, uint64_t *out)
{
    mutex_lock(&e->lock);
    *out = e->flushed;
    mutex_unlock(&e->lock);
    return T4_OK;
}

static t4_status
memory_stats(struct t4_engine *e, struct t4_engine_stats *out)
{
    mutex_lock(&e->lock);
    out->records = e->records;
    out->file_bytes = 0;
    out->in_use_bytes = e->bytes;
    mutex_unlock(&e->lock);
    return T4_OK;
}

/* --- the table: snapshots ----------------------------------------------------------- */

static t4_status
memory_snap(struct t4_engine *e, struct t4_snap **out)
{
    struct t4_snap *s = mem_alloc(sizeof *s);

    mutex_lock(&e->lock);
    s->root = node_hold(e->root);
    mutex_unlock(&e->lock);
    *out = s;
    return T4_OK;
}

static void
memory_snap_end(struct t4_snap *s)
{
    node_drop(s->root);
    mem_free(s);
}

static t4_status
memory_get(struct t4_snap *s, struct t4_slice key, struct t4_slice *value)
{
    const struct node *n = find(s->root, key);

    if (n == NULL)
        return T4_E_NOTFOUND;
    *value = pair_value(n->pair);
    return T4_OK;
}

static t4_status
memory_iter(struct t4_snap *s, struct t4_iter **out)
{
    struct t4_iter *it = mem_alloc(sizeof *it);

    it->snap = s;
    it->behind = false;
    it->depth = 0;
    *out = it;
    return T4_OK;
}

static void
memory_iter_end(struct t4_iter *it)
{
    mem_free(it);
}

static t4_status
settle(struct t4_iter *it, bool behind, struct t4_slice *key, struct t4_slice *value)
{
    const struct node *n;

    if (it->depth == 0) {
        it->behind = behind;
        return T4_E_NOTFOUND;
    }
    n = it->path[it->depth - 1];
    *key = pair_key(n->pair);
    *value = pair_value(n->pair);
    return T4_OK;
}

/* Appends n and then always the left (right) child. */
static void
down(struct t4_iter *it, const struct node *n, bool left)
{
    for (; n != NULL; n = left ? n->left : n->right)
        it->path[it->depth++] = n;
}

/* Drops nodes until one whose left (right) child was left behind is the current one. */
static void
up_from(struct t4_iter *it, bool left)
{
    const struct node *child;

    do {
        child = it->path[--it->depth];
    } while (it->depth > 0 && (left ? it->path[it->depth - 1]->left
                                    : it->path[it->depth - 1]->right) != child);
}

static t4_status
memory_seek(struct t4_iter *it, struct t4_slice key, struct t4_slice *out_key,
            struct t4_slice *out_value)
{
    unsigned found = 0; /* length of the path to the smallest key >= `key` so far */

    it->depth = 0;
    for (const struct node *n = it->snap->root; n != NULL;) {
        int order = slice_compare(key, pair_key(n->pair));

        it->path[it->depth++] = n;
        if (order <= 0)
            found = it->depth;
        if (order == 0)
            break;
        n = order < 0 ? n->left : n->right;
    }
    it->depth = found;
    return settle(it, true, out_key, out_value);
}

static t4_status
memory_next(struct t4_iter *it, struct t4_slice *key, struct t4_slice *value)
{
    if (it->depth > 0 && it->path[it->depth - 1]->right != NULL)
        down(it, it->path[it->depth - 1]->right, true);
    else if (it->depth > 0)
        up_from(it, true);
    else if (!it->behind)
        down(it, it->snap->root, true);
    return settle(it, true, key, value);
}

static t4_status
memory_prev(struct t4_iter *it, struct t4_slice *key, struct t4_slice *value)
{
    if (it->depth > 0 && it->path[it->depth - 1]->left != NULL)
        down(it, it->path[it->depth - 1]->left, false);
    else if (it->depth > 0)
        up_from(it, false);
    else if (it->behind)
        down(it, it->snap->root, false);
    return settle(it, false, key, value);
}

const struct t4_engine_ops *
engine_memory_ops(void)
{
    static const struct t4_engine_ops ops = {
        .size = sizeof ops,
        .caps = 0,
        .max_key = MAX_KEY,
        .open = memory_open,
        .close = memory_close,
        .write = memory_write,
        .sync = memory_sync,
        .flushed = memory_flushed,
        .snap = memory_snap,
        .snap_end = memory_snap_end,
        .get = memory_get,
        .iter = memory_iter,
        .seek = memory_seek,
        .next = memory_next,
        .prev = memory_prev,
        .iter_end = memory_iter_end,
        .stats = memory_stats,
    };

    return &ops;
}

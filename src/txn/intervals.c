/*
 * intervals.c - the rule that a transaction writes no key twice, as etcd applies it.
 *
 * Of one list of operations (a branch), level by level:
 *   - this level's deletes count from the start;
 *   - then each nested transaction in turn: both its branches are checked by themselves; its
 *     puts must not be among the puts of the operations before, nor inside any delete that
 *     counts so far (the same key put in both of its branches is fine: only one is taken);
 *     then its own deletes count as well;
 *   - then this level's puts: not among the puts so far, not twice, not inside any delete.
 * So a nested put before a later sibling's nested delete passes, and so does a delete to the
 * end of the key space (range_end "\0") around a put: etcd takes that interval as empty.
 *
 * A level gets from those below two lists sorted by key, puts and deletes, and adds its own.
 * Every item carries the number of the operation group it came from, which says when it
 * counts; one sweep over both lists then finds a conflict: among the deletes that are open at
 * a put's key only the one that counts first matters (a heap).  n items cost O(n log n) per
 * level of nesting.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "base/memory.h"
#include "txn/txn_int.h"

/* Groups: this level's deletes, nested transactions from 1 on, this level's puts. */
#define GROUP_OWN_DELETES 0u
#define GROUP_OWN_PUTS UINT32_MAX

struct item {
    struct t4_slice key;
    struct t4_slice end; /* of a delete; data NULL: the key alone */
    uint32_t group;
};

struct items {
    struct item *item;
    size_t n, capacity;
};

/* Puts and deletes of the levels in work; each level owns the tail from its start on. */
struct level_lists {
    struct items puts, deletes;
    struct items scratch; /* merging, and the heap */
};

static struct item *
items_reserve(struct items *l, size_t n)
{
    if (l->capacity < n) {
        l->capacity = n < 16 ? 16 : n + n / 2;
        l->item = mem_realloc(l->item, l->capacity * sizeof *l->item);
    }
    return l->item;
}

static void
items_add(struct items *l, struct item item)
{
    items_reserve(l, l->n + 1)[l->n] = item;
    l->n++;
}

/* End of the ascending run that begins at `from`. */
static size_t
run_end(const struct item *item, size_t from, size_t n)
{
    for (from++; from < n; from++)
        if (slice_compare(item[from - 1].key, item[from].key) > 0)
            break;
    return from < n ? from : n;
}

static void
merge(const struct item *a, const struct item *a_end, const struct item *b,
      const struct item *b_end, struct item *out)
{
    while (a < a_end && b < b_end)
        *out++ = slice_compare(a->key, b->key) <= 0 ? *a++ : *b++;
    while (a < a_end)
        *out++ = *a++;
    while (b < b_end)
        *out++ = *b++;
}

/*
 * Stable sort by key of the items from `start`; takes advantage of what is sorted already (the
 * lists from below are).
 */
static void
sort_items(struct items *l, size_t start, struct items *scratch)
{
    size_t n = l->n - start;
    struct item *from = l->item + start, *to;

    if (n < 2)
        return;
    to = items_reserve(scratch, n);
    while (run_end(from, 0, n) < n) {
        struct item *swap;

        for (size_t a = 0; a < n;) {
            size_t b = run_end(from, a, n), end = b < n ? run_end(from, b, n) : n;

            merge(from + a, from + b, from + b, from + end, to + a);
            a = end;
        }
        swap = from;
        from = to;
        to = swap;
    }
    if (from != l->item + start)
        memcpy(l->item + start, from, n * sizeof *from);
}

/* Drops repeated puts of one nested transaction; true: a key is put twice. */
static bool
merge_equal_puts(struct items *puts, size_t start)
{
    size_t out = start;

    for (size_t i = start; i < puts->n; i++) {
        struct item *last = out > start ? &puts->item[out - 1] : NULL;

        if (last == NULL || !slice_equal(last->key, puts->item[i].key))
            puts->item[out++] = puts->item[i];
        else if (last->group != puts->item[i].group || last->group == GROUP_OWN_PUTS)
            return true;
    }
    puts->n = out;
    return false;
}

/* --- heap of open deletes, the one that counts first on top ------------------------- */

static void
heap_push(struct items *heap, struct item item)
{
    size_t i = heap->n;

    items_add(heap, item);
    while (i > 0 && heap->item[(i - 1) / 2].group > item.group) {
        heap->item[i] = heap->item[(i - 1) / 2];
        i = (i - 1) / 2;
    }
    heap->item[i] = item;
}

static void
heap_pop(struct items *heap)
{
    struct item last = heap->item[--heap->n];
    size_t i = 0, child;

    while ((child = 2 * i + 1) < heap->n) {
        if (child + 1 < heap->n && heap->item[child + 1].group < heap->item[child].group)
            child++;
        if (heap->item[child].group >= last.group)
            break;
        heap->item[i] = heap->item[child];
        i = child;
    }
    heap->item[i] = last;
}

static bool
is_over(const struct item *delete, struct t4_slice key)
{
    if (delete->end.data == NULL)
        return !slice_equal(delete->key, key);
    return slice_compare(delete->end, key) <= 0;
}

/* True if a put lies inside a delete that counts before it. */
static bool
put_inside_delete(const struct level_lists *l, size_t puts_start, size_t deletes_start,
                  struct items *heap)
{
    size_t d = deletes_start;

    heap->n = 0;
    for (size_t i = puts_start; i < l->puts.n; i++) {
        const struct item *put = &l->puts.item[i];

        for (; d < l->deletes.n && slice_compare(l->deletes.item[d].key, put->key) <= 0;
             d++)
            heap_push(heap, l->deletes.item[d]);
        while (heap->n > 0 && is_over(&heap->item[0], put->key))
            heap_pop(heap);
        if (heap->n > 0 && heap->item[0].group < put->group)
            return true;
    }
    return false;
}

/* --- levels ------------------------------------------------------------------------- */

static bool check_level(struct level_lists *l, const struct operation *ops, uint32_t n);

/* A nested transaction; what it adds to the lists gets the group. */
static bool
check_nested(struct level_lists *l, const struct txn_request *r, uint32_t group)
{
    size_t puts = l->puts.n, deletes = l->deletes.n;

    if (check_level(l, r->success, r->n_success) ||
        check_level(l, r->failure, r->n_failure))
        return true;
    for (size_t i = puts; i < l->puts.n; i++)
        l->puts.item[i].group = group;
    for (size_t i = deletes; i < l->deletes.n; i++)
        l->deletes.item[i].group = group;
    return false;
}

static void
add_delete(struct items *deletes, const struct delete_range_request *r)
{
    struct item item = {r->key, slice_of(NULL, 0), GROUP_OWN_DELETES};

    if (!range_is_single(r->range_end)) {
        /* Nothing lies in it; for etcd that is also so for the end "\0". */
        if (slice_compare(r->key, r->range_end) >= 0)
            return;
        item.end = r->range_end;
    }
    items_add(deletes, item);
}

static bool
check_level(struct level_lists *l, const struct operation *ops, uint32_t n)
{
    size_t puts = l->puts.n, deletes = l->deletes.n;
    uint32_t nested = 0;

    for (uint32_t i = 0; i < n; i++)
        if (ops[i].kind == OPERATION_DELETE_RANGE)
            add_delete(&l->deletes, &ops[i].delete_range);
    for (uint32_t i = 0; i < n; i++)
        if (ops[i].kind == OPERATION_TXN && check_nested(l, &ops[i].txn, ++nested))
            return true;
    for (uint32_t i = 0; i < n; i++)
        if (ops[i].kind == OPERATION_PUT)
            items_add(&l->puts,
                      (struct item){ops[i].put.key, slice_of(NULL, 0), GROUP_OWN_PUTS});
    sort_items(&l->puts, puts, &l->scratch);
    sort_items(&l->deletes, deletes, &l->scratch);
    return merge_equal_puts(&l->puts, puts) ||
           put_inside_delete(l, puts, deletes, &l->scratch);
}

bool
txn_writes_twice(const struct operation *ops, uint32_t n)
{
    struct level_lists l = {0};
    bool twice = false;

    if (n > 1 || (n == 1 && ops[0].kind == OPERATION_TXN))
        twice = check_level(&l, ops, n);
    mem_free(l.puts.item);
    mem_free(l.deletes.item);
    mem_free(l.scratch.item);
    return twice;
}

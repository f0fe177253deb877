/*
 * walk.c - both listings in step.
 *
 * Listings come in bytewise order, a page at a time; the two are merged, so that each key is
 * seen once with what either place knows of it, however many there are.
 *
 * Entry points: move_walk(), move_is_special().  Runs on: the caller's thread.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "base/memory.h"
#include "move/move_int.h"

/* One place, a page of it at a time. */
struct cursor {
    struct object_store *store;
    struct page page;
    size_t at; /* in the page */
    bool begun;
    struct buffer after;
};

static struct t4_slice
key_at(const struct cursor *c, size_t i)
{
    return slice_of(c->page.keys.data + c->page.item[i].offset, c->page.item[i].length);
}

static bool
at_end(const struct cursor *c)
{
    return c->at == c->page.n;
}

/* Afterwards it is at an object, unless there are no more. */
static t4_status
fill(struct move *m, struct cursor *c, struct error *error)
{
    if (!at_end(c) || (c->begun && c->page.n < MOVE_PAGE))
        return T4_OK;
    buffer_clear(&c->after);
    if (c->begun)
        buffer_append_slice(&c->after, key_at(c, c->page.n - 1));
    c->begun = true;
    c->at = 0;
    return move_list(m, c->store, buffer_slice(&c->after), &c->page, error);
}

static t4_status
walk(struct move *m, struct cursor *source, struct cursor *target, move_pair_fn *fn,
     void *arg, struct error *error)
{
    for (;;) {
        struct pair p = {0};
        t4_status status = fill(m, source, error);
        int order;

        if (status == T4_OK)
            status = fill(m, target, error);
        if (status != T4_OK || (at_end(source) && at_end(target)))
            return status;
        order = at_end(source)   ? 1
                : at_end(target) ? -1
                                 : slice_compare(key_at(source, source->at),
                                                 key_at(target, target->at));
        p.key = order <= 0 ? key_at(source, source->at) : key_at(target, target->at);
        p.at_source = order <= 0;
        p.at_target = order >= 0;
        if (p.at_source)
            p.source_bytes = source->page.item[source->at++].bytes;
        if (p.at_target)
            p.target_bytes = target->page.item[target->at++].bytes;
        if (!slice_has_prefix(p.key, slice_str(PROBE_PREFIX)))
            status = fn(arg, &p, error);
        if (status != T4_OK)
            return status;
    }
}

t4_status
move_walk(struct move *m, move_pair_fn *fn, void *arg, struct error *error)
{
    struct cursor *c = mem_zalloc(2 * sizeof *c);
    t4_status status;

    c[0].store = m->options.source;
    c[1].store = m->options.target;
    status = walk(m, &c[0], &c[1], fn, arg, error);
    for (int i = 0; i < 2; i++) {
        buffer_free(&c[i].page.keys);
        buffer_free(&c[i].after);
    }
    mem_free(c);
    return status;
}

bool
move_is_special(struct t4_slice key)
{
    static const char *const special[] = {LOCK_KEY, MANIFEST_KEY, CLUSTER_KEY,
                                          MOVING_KEY};

    for (size_t i = 0; i < sizeof special / sizeof special[0]; i++)
        if (slice_equal(key, slice_str(special[i])))
            return true;
    return false;
}

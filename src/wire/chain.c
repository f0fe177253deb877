/*
 * chain.c - encoded messages as chains of shared blocks.  See chain.h.
 *
 * Invariants
 *  (1) room > 0 only while the last link ends where its block's used part ends, and no other
 *      chain writes behind it
 *  (2) bytes inside a link never change once they are committed
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "wire/chain.h"

#include "base/memory.h"

/* Sizes of the allocations, head of the block included. */
#define BLOCK_FIRST 512u
#define BLOCK_SECOND 4096u
/* chain_clear() keeps no larger block than this. */
#define BLOCK_KEPT BLOCK_SECOND

struct block_account *
block_account_open(void)
{
    struct block_account *a = mem_alloc(sizeof *a);

    atomic_init(&a->bytes, 1);
    return a;
}

/* The bytes are its references: whoever takes the last of them frees it. */
static void
account_take(struct block_account *a, size_t n)
{
    if (atomic_fetch_sub_explicit(&a->bytes, n, memory_order_acq_rel) == n)
        mem_free(a);
}

void
block_account_close(struct block_account *a)
{
    account_take(a, 1);
}

struct block *
block_new(uint32_t n, struct block_account *account)
{
    struct block *b = mem_alloc(sizeof *b + n);

    atomic_init(&b->references, 1);
    b->capacity = n;
    b->account = account;
    if (account != NULL)
        atomic_fetch_add_explicit(&account->bytes, sizeof *b + n, memory_order_relaxed);
    return b;
}

struct block *
block_ref(struct block *b)
{
    atomic_fetch_add_explicit(&b->references, 1, memory_order_relaxed);
    return b;
}

void
block_unref(struct block *b)
{
    if (atomic_fetch_sub_explicit(&b->references, 1, memory_order_acq_rel) != 1)
        return;
    if (b->account != NULL)
        account_take(b->account, sizeof *b + b->capacity);
    mem_free(b);
}

static void
make_empty(struct chain *c)
{
    c->links = c->inline_links;
    c->n_links = 0;
    c->links_capacity = CHAIN_INLINE;
    c->room = 0;
    c->length = 0;
}

void
chain_init(struct chain *c)
{
    make_empty(c);
    c->account = NULL;
}

void
chain_free(struct chain *c)
{
    for (uint32_t i = 0; i < c->n_links; i++)
        block_unref(c->links[i].block);
    if (c->links != c->inline_links)
        mem_free(c->links);
    make_empty(c);
}

void
chain_clear(struct chain *c)
{
    struct block *kept = c->n_links > 0 ? c->links[0].block : NULL;

    /* Another holder of the block may read it: then it is not ours to write over. */
    if (kept == NULL || kept->capacity > BLOCK_KEPT ||
        atomic_load_explicit(&kept->references, memory_order_acquire) != 1) {
        chain_free(c);
        return;
    }
    block_ref(kept);
    chain_free(c);
    c->links[0] = (struct link){kept, 0, 0};
    c->n_links = 1;
    c->room = kept->capacity;
}

static void
add_link(struct chain *c, struct block *b, uint32_t start, uint32_t length)
{
    if (c->n_links == c->links_capacity) {
        uint32_t capacity = c->links_capacity * 4;

        if (c->links == c->inline_links) {
            c->links = mem_alloc(capacity * sizeof *c->links);
            memcpy(c->links, c->inline_links, sizeof c->inline_links);
        } else {
            c->links = mem_realloc(c->links, capacity * sizeof *c->links);
        }
        c->links_capacity = capacity;
    }
    c->links[c->n_links++] = (struct link){b, start, length};
}

/* A new last block with room for n bytes or, by the growing rule, more. */
static void
grow(struct chain *c, size_t n)
{
    size_t size = c->length == 0             ? BLOCK_FIRST
                  : c->length < BLOCK_SECOND ? BLOCK_SECOND
                                             : CHAIN_BLOCK_MAX;
    struct block *b;

    if (size < n + sizeof *b)
        size = n + sizeof *b <= BLOCK_SECOND      ? BLOCK_SECOND
               : n + sizeof *b <= CHAIN_BLOCK_MAX ? CHAIN_BLOCK_MAX
                                                  : n + sizeof *b;
    b = block_new((uint32_t)(size - sizeof *b), c->account);
    add_link(c, b, 0, 0);
    c->room = b->capacity;
}

uint8_t *
chain_reserve(struct chain *c, size_t n)
{
    const struct link *last;

    if (c->room < n || c->n_links == 0)
        grow(c, n);
    last = &c->links[c->n_links - 1];
    return last->block->data + last->start + last->length;
}

void
chain_commit(struct chain *c, size_t n)
{
    c->links[c->n_links - 1].length += (uint32_t)n;
    c->room -= (uint32_t)n;
    c->length += n;
}

void
chain_append(struct chain *c, const void *data, size_t n)
{
    const uint8_t *p = data;

    /* What is left of the last block is filled first, so that no piece leaves a hole. */
    if (c->room > 0 && n > 0) {
        size_t part = n < c->room ? n : c->room;

        memcpy(chain_reserve(c, part), p, part);
        chain_commit(c, part);
        p += part;
        n -= part;
    }
    while (n > 0) { /* once, but for a piece of 1 GiB and more */
        size_t part = n < (1u << 30) ? n : 1u << 30;

        memcpy(chain_reserve(c, part), p, part);
        chain_commit(c, part);
        p += part;
        n -= part;
    }
}

void
chain_append_block(struct chain *c, struct block *b, uint32_t start, uint32_t length)
{
    if (length == 0)
        return;
    add_link(c, block_ref(b), start, length);
    c->room = 0;
    c->length += length;
}

void
chain_splice(struct chain *c, struct chain *tail)
{
    uint32_t room = tail->room;

    if (tail->length == 0) {
        chain_free(tail);
        return;
    }
    if (tail->n_links == 1 && tail->length <= c->room) {
        const struct link *l = tail->links;

        chain_append(c, l->block->data + l->start, l->length);
        chain_free(tail);
        return;
    }
    for (uint32_t i = 0; i < tail->n_links; i++) {
        const struct link *l = &tail->links[i];

        add_link(c, l->block, l->start, l->length); /* takes over the reference */
    }
    c->length += tail->length;
    c->room = room;
    tail->n_links = 0;
    chain_free(tail);
}

void
chain_cut(struct chain *c, uint32_t n_links)
{
    while (c->n_links > n_links) {
        struct link *last = &c->links[--c->n_links];

        c->length -= last->length;
        block_unref(last->block);
    }
    c->room = 0;
}

void
chain_copy(const struct chain *c, uint8_t *out)
{
    for (uint32_t i = 0; i < c->n_links; i++) {
        const struct link *l = &c->links[i];

        if (l->length > 0)
            memcpy(out, l->block->data + l->start, l->length);
        out += l->length;
    }
}

/*
 * chain.h - an encoded message as a chain of shared blocks.
 *
 * Responses are encoded by hand straight from the iterator into a chain (measured: 1,000 keys
 * in 7 us against 80-121 us by protobuf-c) and handed to the transport without a copy.  A
 * block is reference-counted, so that one encoded event can stand in many watchers' messages;
 * its bytes never change once it is shared.
 *
 * A chain belongs to one thread at a time; block_ref/unref may be called from any.  It points
 * into itself, so it is moved by chain_splice(), never by assignment.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef WIRE_CHAIN_H
#define WIRE_CHAIN_H

#include <stdatomic.h>
#include <stdint.h>

#include "base/slice.h"

/*
 * How many bytes the blocks take that were made for it, wherever they are held: one that many
 * chains share counts once, and until the last of them has let go of it.  Any thread.
 */
struct block_account {
    _Atomic size_t bytes; /* 1 more while the account is open */
};

struct block_account *block_account_open(void);
/* Frees it, or leaves that to the last of its blocks. */
void block_account_close(struct block_account *a);
static inline size_t
block_account_bytes(const struct block_account *a)
{
    return atomic_load_explicit(&a->bytes, memory_order_relaxed) - 1;
}

struct block {
    _Atomic uint32_t references;
    uint32_t capacity;
    struct block_account *account; /* NULL: not counted */
    uint8_t data[];
};

/*
 * A block for n bytes with one reference; it is filled before it is shared.  account: where its
 * bytes are counted, or NULL.
 */
struct block *block_new(uint32_t n, struct block_account *account);
struct block *block_ref(struct block *b);
void block_unref(struct block *b);

/* Bytes [start, start + length) of a block, which the link holds one reference of. */
struct link {
    struct block *block;
    uint32_t start, length;
};

#define CHAIN_INLINE 4
struct chain {
    struct link *links; /* inline_links until there are more */
    uint32_t n_links, links_capacity;
    uint32_t room;                 /* bytes free behind the last link, if it is ours */
    size_t length;                 /* bytes in all */
    struct block_account *account; /* of the blocks that it makes; NULL: not counted */
    struct link inline_links[CHAIN_INLINE];
};

/* Blocks grow 512 B, 4 KiB, 64 KiB; a larger single piece gets a block of its own. */
#define CHAIN_BLOCK_MAX (64u * 1024)

void chain_init(struct chain *c);
/* Empties it; its account stays. */
void chain_free(struct chain *c);
/* Empties it and keeps a first block of its own for the next use; chain_free() ends that. */
void chain_clear(struct chain *c);
/* A place for n contiguous bytes, n <= CHAIN_BLOCK_MAX; chain_commit() then adds them. */
uint8_t *chain_reserve(struct chain *c, size_t n);
void chain_commit(struct chain *c, size_t n);
void chain_append(struct chain *c, const void *data, size_t n);
/* Adds bytes of a shared block; takes a reference of its own. */
void chain_append_block(struct chain *c, struct block *b, uint32_t start,
                        uint32_t length);
/* Moves all of `tail` to the end of c; tail is left empty. */
void chain_splice(struct chain *c, struct chain *tail);
/* Keeps the first n links; it must consist of shared blocks only. */
void chain_cut(struct chain *c, uint32_t n_links);
/* Copies everything to `out`, which has room for c->length bytes. */
void chain_copy(const struct chain *c, uint8_t *out);

#endif

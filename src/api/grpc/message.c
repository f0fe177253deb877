/*
 * message.c - bytes out of and into the core's buffers.
 *
 * Incoming: the core hands over a message as slices of what it read; one slice is used in
 * place.  Outgoing: a chain's blocks become slices that hold the block's reference, so that
 * nothing large is copied; small pieces are copied into the slice structures themselves,
 * which costs less than the allocation of a reference count.  The buffer that the core is
 * given is part of the call: SEND_MESSAGE only swaps the slices out of it.
 *
 * Entry points: message_bytes(), message_init(), message_take(), message_clear().  Any
 * thread; a buffer belongs to one at a time.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <string.h>

#include "api/grpc/grpc_int.h"
#include "base/memory.h"

/* A piece up to this size is copied: three of the core's inlined slices. */
#define COPY_MAX ((size_t)3 * GRPC_SLICE_INLINED_SIZE)

struct t4_slice
message_bytes(const grpc_byte_buffer *b, void **copy)
{
    const grpc_slice_buffer *in = &b->data.raw.slice_buffer;
    uint8_t *p;

    *copy = NULL;
    if (in->count == 0)
        return slice_of("", 0);
    if (in->count == 1)
        return slice_of(GRPC_SLICE_START_PTR(in->slices[0]), in->length);
    p = *copy = mem_alloc(in->length);
    for (size_t i = 0; i < in->count; i++) {
        memcpy(p, GRPC_SLICE_START_PTR(in->slices[i]), GRPC_SLICE_LENGTH(in->slices[i]));
        p += GRPC_SLICE_LENGTH(in->slices[i]);
    }
    return slice_of(*copy, in->length);
}

void
message_init(grpc_byte_buffer *b)
{
    memset(b, 0, sizeof *b);
    b->type = GRPC_BB_RAW;
    b->data.raw.compression = GRPC_COMPRESS_NONE;
    grpc_slice_buffer_init(&b->data.raw.slice_buffer);
}

static void
drop_block(void *block)
{
    block_unref(block);
}

static void
add_copied(grpc_slice_buffer *out, const uint8_t *p, size_t n)
{
    while (n > 0) {
        size_t piece = n < GRPC_SLICE_INLINED_SIZE ? n : GRPC_SLICE_INLINED_SIZE;

        grpc_slice_buffer_add(out, grpc_slice_from_copied_buffer((const char *)p, piece));
        p += piece;
        n -= piece;
    }
}

void
message_take(grpc_byte_buffer *b, struct chain *c)
{
    grpc_slice_buffer *out = &b->data.raw.slice_buffer;

    for (uint32_t i = 0; i < c->n_links; i++) {
        struct link *l = &c->links[i];
        uint8_t *p = l->block->data + l->start;

        if (l->length <= COPY_MAX) {
            add_copied(out, p, l->length);
            block_unref(l->block);
        } else {
            /* The link's reference goes over to the slice. */
            grpc_slice_buffer_add(
                out, grpc_slice_new_with_user_data(p, l->length, drop_block, l->block));
        }
    }
    c->n_links = 0;
    c->room = 0;
    c->length = 0;
    chain_free(c);
}

void
message_clear(grpc_byte_buffer *b)
{
    /* Not reset: that keeps the array, which a message of many slices has made large. */
    grpc_slice_buffer_destroy(&b->data.raw.slice_buffer);
    grpc_slice_buffer_init(&b->data.raw.slice_buffer);
}

/*
 * message.c - see message.h.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "message.h"

#include <grpc/byte_buffer_reader.h>

void
append_varint_field(struct buffer *b, uint32_t field, uint64_t v)
{
    buffer_append_varint(b, field << 3);
    buffer_append_varint(b, v);
}

void
append_bytes_field(struct buffer *b, uint32_t field, struct t4_slice s)
{
    buffer_append_varint(b, field << 3 | 2);
    buffer_append_varint(b, s.len);
    buffer_append_slice(b, s);
}

bool
next_field(struct byte_reader *r, struct field *f)
{
    uint64_t tag;

    if (reader_left(r) == 0)
        return false;
    tag = reader_varint(r);
    *f = (struct field){.number = (uint32_t)(tag >> 3)};
    if ((tag & 7) == 0)
        f->varint = reader_varint(r);
    else if ((tag & 7) == 2)
        f->bytes = reader_counted(r);
    else
        r->bad = true; /* nothing in etcd's messages is of another kind */
    return !r->bad;
}

uint64_t
varint_of(struct t4_slice message, uint32_t number)
{
    struct byte_reader r = reader_of(message);
    struct field f;
    uint64_t v = 0;

    while (next_field(&r, &f))
        if (f.number == number)
            v = f.varint;
    return v;
}

grpc_slice
message_bytes(grpc_byte_buffer *message)
{
    grpc_byte_buffer_reader reader;
    grpc_slice all;

    if (message == NULL || !grpc_byte_buffer_reader_init(&reader, message))
        return grpc_empty_slice();
    all = grpc_byte_buffer_reader_readall(&reader);
    grpc_byte_buffer_reader_destroy(&reader);
    return all;
}

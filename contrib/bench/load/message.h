/*
 * message.h - protobuf messages by hand: fields written into a buffer, and read from bytes.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef LOAD_MESSAGE_H
#define LOAD_MESSAGE_H

#include <grpc/byte_buffer.h>
#include <grpc/slice.h>

#include "base/buffer.h"

void append_varint_field(struct buffer *b, uint32_t field, uint64_t v);
void append_bytes_field(struct buffer *b, uint32_t field, struct t4_slice s);

struct field {
    uint32_t number;
    uint64_t varint;       /* 0 if it is none */
    struct t4_slice bytes; /* of a string or an embedded message */
};

/* The next field; false: there is none, or r->bad. */
bool next_field(struct byte_reader *r, struct field *f);
/* The last value of a number's field, 0 if it is not there. */
uint64_t varint_of(struct t4_slice message, uint32_t number);
/* All of a message in one piece; the caller unrefs it. */
grpc_slice message_bytes(grpc_byte_buffer *message);
static inline struct t4_slice
slice_of_core(const grpc_slice *s)
{
    return slice_of(GRPC_SLICE_START_PTR(*s), GRPC_SLICE_LENGTH(*s));
}

#endif

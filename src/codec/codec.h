/*
 * codec.h - hashing and compression for what goes into the object store.
 *
 * Thin over OpenSSL (SHA-256 with the processor's instructions) and zstd.  Any thread.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef CODEC_CODEC_H
#define CODEC_CODEC_H

#include <stdbool.h>

#include "base/buffer.h"

#define SHA256_BYTES 32
#define CODEC_VERSION 1 /* of the compressed form; stands in every object that has one */

void sha256(struct t4_slice data, uint8_t digest[SHA256_BYTES]);
bool sha256_is(struct t4_slice data, const uint8_t digest[SHA256_BYTES]);
/* 64 lower case hexadecimal digits and a terminator. */
void sha256_hex(const uint8_t digest[SHA256_BYTES], char text[2 * SHA256_BYTES + 1]);
bool sha256_parse(const char *text, uint8_t digest[SHA256_BYTES]);

/* SHA-256 of bytes that come in pieces.  A stream belongs to one thread at a time. */
struct sha256_stream;
struct sha256_stream *sha256_stream_new(void);
void sha256_stream_free(struct sha256_stream *s); /* NULL is fine */
void sha256_add(struct sha256_stream *s, struct t4_slice data);
/* Of everything added since the last one; the stream begins anew. */
void sha256_end(struct sha256_stream *s, uint8_t digest[SHA256_BYTES]);

/* Appends the compressed form of `data` (zstd level 1). */
void compress_append(struct buffer *out, struct t4_slice data);
/*
 * Appends the `size` bytes that `data` decompresses to.  False: damaged, or it is not that
 * size; `out` is as before.  The caller bounds `size` before.
 */
bool decompress_append(struct buffer *out, struct t4_slice data, size_t size);

#endif

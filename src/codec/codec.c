/*
 * codec.c - SHA-256 and zstd.  See codec.h.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "codec/codec.h"

#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <zstd.h>

#include "base/memory.h"

#define LEVEL 1 /* level 3 costs 30-80 % more time for 0-2 % size */

static void
stop(const char *what)
{
    fprintf(stderr, "t4: %s failed; stopping\n", what);
    abort();
}

void
sha256(struct t4_slice data, uint8_t digest[SHA256_BYTES])
{
    if (EVP_Digest(data.data, data.len, digest, NULL, EVP_sha256(), NULL) != 1)
        stop("SHA-256");
}

struct sha256_stream {
    EVP_MD_CTX *context;
};

static void
stream_begin(struct sha256_stream *s)
{
    if (EVP_DigestInit_ex(s->context, EVP_sha256(), NULL) != 1)
        stop("SHA-256");
}

struct sha256_stream *
sha256_stream_new(void)
{
    struct sha256_stream *s = mem_alloc(sizeof *s);

    s->context = EVP_MD_CTX_new();
    if (s->context == NULL)
        stop("SHA-256");
    stream_begin(s);
    return s;
}

void
sha256_stream_free(struct sha256_stream *s)
{
    if (s == NULL)
        return;
    EVP_MD_CTX_free(s->context);
    mem_free(s);
}

void
sha256_add(struct sha256_stream *s, struct t4_slice data)
{
    if (EVP_DigestUpdate(s->context, data.data, data.len) != 1)
        stop("SHA-256");
}

void
sha256_end(struct sha256_stream *s, uint8_t digest[SHA256_BYTES])
{
    if (EVP_DigestFinal_ex(s->context, digest, NULL) != 1)
        stop("SHA-256");
    stream_begin(s);
}

bool
sha256_is(struct t4_slice data, const uint8_t digest[SHA256_BYTES])
{
    uint8_t own[SHA256_BYTES];

    sha256(data, own);
    return memcmp(own, digest, sizeof own) == 0;
}

void
sha256_hex(const uint8_t digest[SHA256_BYTES], char text[2 * SHA256_BYTES + 1])
{
    static const char digits[] = "0123456789abcdef";

    for (int i = 0; i < SHA256_BYTES; i++) {
        text[2 * i] = digits[digest[i] >> 4];
        text[2 * i + 1] = digits[digest[i] & 15];
    }
    text[2 * SHA256_BYTES] = '\0';
}

static int
digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

bool
sha256_parse(const char *text, uint8_t digest[SHA256_BYTES])
{
    for (int i = 0; i < SHA256_BYTES; i++) {
        int high = digit(text[2 * i]), low = high < 0 ? -1 : digit(text[2 * i + 1]);

        if (low < 0)
            return false;
        digest[i] = (uint8_t)(high << 4 | low);
    }
    return text[2 * SHA256_BYTES] == '\0';
}

void
compress_append(struct buffer *out, struct t4_slice data)
{
    size_t bound = ZSTD_compressBound(data.len), n;
    uint8_t *p = buffer_reserve(out, bound);

    n = ZSTD_compress(p, bound, data.data, data.len, LEVEL);
    if (ZSTD_isError(n))
        stop("compression");
    out->len += n;
}

bool
decompress_append(struct buffer *out, struct t4_slice data, size_t size)
{
    uint8_t *p = buffer_reserve(out, size);
    size_t n = ZSTD_decompress(p, size, data.data, data.len);

    if (ZSTD_isError(n) || n != size)
        return false;
    out->len += size;
    return true;
}

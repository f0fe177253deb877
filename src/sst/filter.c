/*
 * filter.c - the filter of a run, and the hash behind it and behind the cuts.
 *
 * Hash: FNV-1a of 64 bits over the internal key (space byte, raw key), then the finalizer of
 * MurmurHash3:
 *     h = 0xcbf29ce484222325; for each byte: h = (h ^ byte) * 0x100000001b3
 *     h ^= h >> 33; h *= 0xff51afd7ed558ccd; h ^= h >> 33; h *= 0xc4ceb9fe1a85ec53; h ^= h >> 33
 * base/hash.h is not used: it promises nothing for files.
 *
 * Filter: of n keys, 10 n bits rounded up to a multiple of 64; m bits in all; bit i is bit i % 8
 * of byte i / 8.  A key with hash h has 7 bits, those at ((h + j * d) mod 2^64) * m / 2^64 for j
 * = 0 to 6, d being finalizer(h ^ 0x9e3779b97f4a7c15).  About 1 % of the keys that are not there
 * pass.  n = 0: no bits, nothing is excluded.  The order in which keys come
 * changes nothing.
 *
 * Whoever chooses keys can aim them at one bit or one place to cut.  All it wins is a filter that
 * excludes less, or files of SST_RAW_MIN or SST_RAW_MAX.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "base/memory.h"
#include "sst/sst_int.h"

#define BITS_PER_KEY 10u
#define PROBES 7u

static uint64_t
finalize(uint64_t h)
{
    h ^= h >> 33;
    h *= 0xff51afd7ed558ccdu;
    h ^= h >> 33;
    h *= 0xc4ceb9fe1a85ec53u;
    return h ^ h >> 33;
}

uint64_t
sst_hash(struct t4_slice ikey)
{
    uint64_t h = 0xcbf29ce484222325u;

    for (size_t i = 0; i < ikey.len; i++)
        h = (h ^ ikey.data[i]) * 0x100000001b3u;
    return finalize(h);
}

/* The place of probe j among `bits`. */
static uint64_t
probe(uint64_t hash, uint64_t step, uint64_t j, uint64_t bits)
{
    return (uint64_t)((__uint128_t)(hash + j * step) * bits >> 64);
}

static uint64_t
step_of(uint64_t hash)
{
    return finalize(hash ^ 0x9e3779b97f4a7c15u);
}

void
sst_filter_add(struct sst_filter_builder *b, uint64_t hash)
{
    if (b->n > 0 && b->hash[b->n - 1] == hash)
        return;
    if (b->n == b->capacity) {
        b->capacity = b->capacity > 0 ? 2 * b->capacity : 1024;
        b->hash = mem_realloc(b->hash, b->capacity * sizeof *b->hash);
    }
    b->hash[b->n++] = hash;
}

/* `keys` at most 2^56: no overflow. */
static uint64_t
filter_bytes(uint64_t keys)
{
    return (keys * BITS_PER_KEY + 63) / 64 * 8;
}

bool
sst_filter_size_valid(uint64_t keys, uint64_t bytes)
{
    return keys <= UINT64_C(1) << 56 && bytes == filter_bytes(keys);
}

void
sst_filter_build(struct sst_filter_builder *b, struct sst_filter *f)
{
    size_t bytes = (size_t)filter_bytes(b->n);
    uint64_t bits = (uint64_t)bytes * 8;

    f->keys = b->n;
    buffer_clear(&f->bits);
    if (bytes > 0)
        memset(buffer_reserve(&f->bits, bytes), 0, bytes);
    f->bits.len = bytes;
    for (size_t i = 0; i < b->n; i++) {
        uint64_t step = step_of(b->hash[i]);

        for (uint64_t j = 0; j < PROBES; j++) {
            uint64_t at = probe(b->hash[i], step, j, bits);

            f->bits.data[at / 8] |= (uint8_t)(1u << at % 8);
        }
    }
    sst_filter_builder_free(b);
}

void
sst_filter_builder_free(struct sst_filter_builder *b)
{
    mem_free(b->hash);
    *b = (struct sst_filter_builder){0};
}

bool
sst_filter_excludes(const struct sst_filter *f, struct t4_slice ikey)
{
    uint64_t bits = (uint64_t)f->bits.len * 8, hash, step;

    if (bits == 0)
        return false;
    hash = sst_hash(ikey);
    step = step_of(hash);
    for (uint64_t j = 0; j < PROBES; j++) {
        uint64_t at = probe(hash, step, j, bits);

        if (!(f->bits.data[at / 8] & 1u << at % 8))
            return true;
    }
    return false;
}

void
sst_filter_free(struct sst_filter *f)
{
    buffer_free(&f->bits);
    f->keys = 0;
}

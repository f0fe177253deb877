/*
 * hash.h - a fast 64-bit hash for tables in memory (not for files, not cryptographic).
 *
 * Tables whose keys come from clients use a random seed, so that nobody can aim keys at one
 * bucket.  Any thread.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef BASE_HASH_H
#define BASE_HASH_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

static inline uint64_t
hash_mix(uint64_t a, uint64_t b)
{
    __uint128_t m = (__uint128_t)a * b;

    return (uint64_t)m ^ (uint64_t)(m >> 64);
}

static inline uint64_t
hash_bytes(uint64_t seed, const void *data, size_t n)
{
    const uint8_t *p = data;
    uint64_t h = seed ^ (n * 0x9e3779b97f4a7c15u), word;

    for (; n >= 8; n -= 8, p += 8) {
        memcpy(&word, p, 8);
        h = hash_mix(h ^ word, 0xd6e8feb86659fd93u);
    }
    word = 0;
    if (n > 0)
        memcpy(&word, p, n);
    h = hash_mix(h ^ word, 0xa0761d6478bd642fu);
    return hash_mix(h, 0xe7037ed1a0b428dbu);
}

static inline uint64_t
hash_u64(uint64_t v)
{
    return hash_mix(v ^ 0x9e3779b97f4a7c15u, 0xd6e8feb86659fd93u);
}

#endif

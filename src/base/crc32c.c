/*
 * crc32c.c - CRC-32C by the SSE 4.2 instruction or by table.  See crc32c.h.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "base/crc32c.h"

#include <string.h>

#define POLYNOMIAL 0x82f63b78u /* reflected */

static uint32_t table[256];

__attribute__((constructor)) static void
fill_table(void)
{
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t c = i;

        for (int k = 0; k < 8; k++)
            c = c & 1 ? c >> 1 ^ POLYNOMIAL : c >> 1;
        table[i] = c;
    }
}

uint32_t
crc32c_portable(uint32_t seed, const void *data, size_t n)
{
    const uint8_t *p = data;
    uint32_t c = ~seed;

    while (n-- > 0)
        c = table[(c ^ *p++) & 0xff] ^ c >> 8;
    return ~c;
}

#if defined(__x86_64__)
__attribute__((target("sse4.2"))) static uint32_t
crc32c_sse(uint32_t seed, const void *data, size_t n)
{
    const uint8_t *p = data;
    uint64_t c = ~seed;

    for (; n >= 8; n -= 8, p += 8) {
        uint64_t word;

        memcpy(&word, p, 8);
        c = __builtin_ia32_crc32di(c, word);
    }
    while (n-- > 0)
        c = __builtin_ia32_crc32qi((uint32_t)c, *p++);
    return ~(uint32_t)c;
}
#endif

uint32_t
crc32c(uint32_t seed, const void *data, size_t n)
{
#if defined(__x86_64__)
    if (__builtin_cpu_supports("sse4.2"))
        return crc32c_sse(seed, data, n);
#endif
    return crc32c_portable(seed, data, n);
}

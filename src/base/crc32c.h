/*
 * crc32c.h - CRC-32C (Castagnoli), as in RFC 3720 appendix B.4.
 *
 * crc32c(0, data, n) is the standard checksum; crc32c(crc32c(seed, a), b) equals that of a
 * and b concatenated.  Uses the processor's instruction where there is one.  Any thread.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef BASE_CRC32C_H
#define BASE_CRC32C_H

#include <stddef.h>
#include <stdint.h>

uint32_t crc32c(uint32_t seed, const void *data, size_t n);
/* The portable form, for the test that compares the two. */
uint32_t crc32c_portable(uint32_t seed, const void *data, size_t n);

#endif

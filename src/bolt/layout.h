/*
 * layout.h - where the numbers of a bbolt page stand.
 *
 * All of them little endian (bbolt writes those of its machine).
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef BOLT_LAYOUT_H
#define BOLT_LAYOUT_H

#include "base/buffer.h"

#define BOLT_MAGIC UINT32_C(0xED0CDAED)
#define BOLT_VERSION 2u

/* Page: u64 id, u16 flags, u16 count, u32 overflow (pages that follow and belong to it). */
#define PAGE_HEAD 16u
#define PAGE_FLAGS 8u
#define PAGE_COUNT 10u
#define PAGE_OVERFLOW 12u
#define PAGE_BRANCH 0x01u
#define PAGE_LEAF 0x02u
#define PAGE_META 0x04u
#define PAGE_FREELIST 0x10u

/*
 * Leaf: u32 flags, u32 pos, u32 key size, u32 value size.  Branch: u32 pos, u32 key size, u64
 * page.  pos counts from the element's own first byte.
 */
#define ELEMENT 16u
#define ELEMENT_BUCKET 1u

/*
 * Meta, behind the page's head: u32 magic, u32 version, u32 page size, u32 flags, u64 root page of
 * the list of buckets, u64 its sequence, u64 page of the freelist, u64 pages in use, u64 transaction,
 * u64 FNV-1a of everything before.
 */
#define META_PAGE_SIZE 8u
#define META_ROOT 16u
#define META_FREELIST 32u
#define META_PAGES 40u
#define META_TXID 48u
#define META_CHECKSUM 56u
#define META_BYTES 64u

/* Bucket, the value of an element with ELEMENT_BUCKET: u64 root page (0: a page follows), u64. */
#define BUCKET_HEAD 16u

static inline void
put_u16le(uint8_t *p, uint32_t v)
{
    p[0] = (uint8_t)v;
    p[1] = (uint8_t)(v >> 8);
}

static inline uint32_t
get_u16le(const uint8_t *p)
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8;
}

static inline uint64_t
bolt_checksum(const uint8_t *meta)
{
    uint64_t h = UINT64_C(0xcbf29ce484222325);

    for (size_t i = 0; i < META_CHECKSUM; i++)
        h = (h ^ meta[i]) * UINT64_C(0x100000001b3);
    return h;
}

#endif

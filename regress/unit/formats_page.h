/*
 * formats_page.h - the examples of sql-like-docs/internals/formats.md, for the tests that compare
 * them with the code.
 *
 * In a block of that page that begins with ```bytes NAME each line holds bytes in hexadecimal, two
 * blanks, and what they are; @OTHER stands for the bytes of another block.  Blocks that begin with
 * ```text are text records.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef FORMATS_PAGE_H
#define FORMATS_PAGE_H

#include "base/buffer.h"

/* What all examples are of. */
#define CLUSTER UINT64_C(0x5d0c9ee0ba3c4d1f)
#define LINEAGE UINT64_C(0x17b6a3f0c2d94e85)
#define WRITER UINT64_C(0x9f0e1d2c3b4a5968)
#define GENERATION 1
#define TERM 2
#define INDEX 3
#define REVISION 2
#define TIME_MS UINT64_C(1767225600000) /* 2026-01-01 */
#define LEASE 7

/* Setup and teardown of the group; the page is that of T4_SRC_DIR. */
int formats_page_open(void **state);
int formats_page_close(void **state);
/* The text of the block that begins with `head`, up to its end; borrowed.  Fails if there is none. */
struct t4_slice formats_text(const char *head);
/* The bytes of the block of that name; the caller's to free. */
struct buffer formats_bytes(const char *name);
/* Fails unless both are the same; frees `made`. */
void formats_same(struct buffer *made, const char *name);

/* The entry and the record that the examples are of. */
void formats_entry(struct buffer *out);
void formats_record(struct buffer *key, struct buffer *value);

#endif

/*
 * quoted.h - texts in quotes, as Go writes them, and lines made of words: the language of
 * `t4 txn`.
 *
 * Pure; main thread.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef SERVER_QUOTED_H
#define SERVER_QUOTED_H

#include <stdbool.h>

#include "base/buffer.h"
#include "server/words.h"

/*
 * Appends the text that stands in "..." (with Go's escapes) or `...` at *p, which is moved behind
 * the closing quote.  False: there is none, or an escape is malformed.
 */
bool quoted_append(struct buffer *out, const char **p);

/*
 * Splits a line as etcdctl does: words are "..." with escapes, '...' as it stands, or whatever
 * has no blank in it.  Words are of the pool and end with NUL.  False: an escape is malformed,
 * or makes a NUL, which a word cannot hold.
 */
bool quoted_split(struct pool *pool, const char *line, char ***words, int *n);

#endif

/*
 * entry_lines.h - a log entry as lines for people and programs.
 *
 * Pure functions; any thread.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef SERVER_ENTRY_LINES_H
#define SERVER_ENTRY_LINES_H

#include "base/buffer.h"

struct entry_style {
    bool json;   /* an object per line; else name=value, the same names */
    bool base64; /* all keys and values; else only those that are not UTF-8 */
};

/*
 * Appends a line for each mutation of an encoded entry, or one for the entry if it has none.
 * False: it is damaged; the lines of what could be decoded before that are there.
 */
bool entry_lines_append(struct buffer *out, struct t4_slice entry,
                        const struct entry_style *style);

#endif

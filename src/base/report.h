/*
 * report.h - facts, said twice: as aligned lines for people and as one flat JSON object.
 *
 * Whoever reports adds each fact once; both forms grow together.  A report belongs to one
 * thread.  Strings may hold any bytes: what is not printable ASCII is escaped in JSON and shown
 * as ? in the lines.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef BASE_REPORT_H
#define BASE_REPORT_H

#include "base/buffer.h"

struct report {
    struct buffer lines, json;
};

/* key: of the JSON object, [a-z_]+; label: of the line, or NULL: JSON only. */
void report_text(struct report *r, const char *key, const char *label, const char *value);
void report_u64(struct report *r, const char *key, const char *label, uint64_t value);
void report_i64(struct report *r, const char *key, const char *label, int64_t value);
void report_hex(struct report *r, const char *key, const char *label, uint64_t value);
void report_bool(struct report *r, const char *key, const char *label, bool value);
/* JSON only: a value that is JSON already. */
void report_json(struct report *r, const char *key, struct t4_slice value);
/* The same escaping for who makes such a value. */
void report_json_string(struct buffer *out, const char *text);
/* A line only: a heading or a sentence. */
void report_line(struct report *r, const char *text);
/* Closes the JSON object, with a line break.  Nothing may be added any more. */
void report_end(struct report *r);
void report_free(struct report *r);

#endif

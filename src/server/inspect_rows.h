/*
 * inspect_rows.h - versions and changes as a table for people, or as JSON lines.
 *
 * The table's columns are aligned by batches of rows, so that nothing is held that grows with the
 * database.  Keys and values that are not printable are quoted and escaped, long ones are cut;
 * JSON has all of them: as text where they are printable UTF-8, and in base64 always.
 *
 * Main thread only.  Writes to standard output.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef SERVER_INSPECT_ROWS_H
#define SERVER_INSPECT_ROWS_H

#include "base/buffer.h"
#include "inspect/inspect.h"

#define ROWS_COLUMNS_MAX 8

struct rows {
    bool json;
    const char *const *heading; /* ended by NULL; of the table */
    uint64_t count;             /* rows given so far */
    /* the rest is the table's */
    struct buffer cells; /* of the batch: each ends with NUL */
    size_t batch, columns;
    size_t width[ROWS_COLUMNS_MAX];
    bool headed;
};

/* KEY REVISION CREATED VERSION LEASE VALUE */
void rows_begin_versions(struct rows *r, bool json);
void rows_version(struct rows *r, const struct inspected_version *v);
/* REVISION OP VERSION LEASE VALUE: of one key */
void rows_begin_history(struct rows *r, bool json);
void rows_history(struct rows *r, const struct inspected_version *v);
/* KEY TYPE FIRST_REV LAST_REV OPS BEFORE AFTER */
void rows_begin_changes(struct rows *r, bool json);
void rows_change(struct rows *r, const struct inspected_change *c);
/* Prints what is left of the last batch. */
void rows_end(struct rows *r);

/* "name":"text","name_base64":"..." (the first only if it is printable UTF-8). */
void json_bytes_append(struct buffer *out, const char *name, struct t4_slice bytes);

#endif

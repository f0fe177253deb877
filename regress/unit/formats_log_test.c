/*
 * formats_log_test.c - the examples of sql-like-docs/internals/formats.md: what lies in a data
 * directory is what the code writes.  The store's: formats_test.c.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <setjmp.h>

#include <cmocka.h>

#include "formats_page.h"
#include "mvcc/mvcc_int.h"
#include "wal/wal_int.h"

#define SALT UINT64_C(0x0123456789abcdef)
#define START_AT 4096

static void
entries_and_records(void **state)
{
    struct buffer entry = {0}, key = {0}, value = {0}, zero = {0};

    (void)state;
    formats_entry(&entry);
    formats_same(&entry, "entry");
    formats_record(&key, &value);
    formats_same(&key, "record-key");
    formats_same(&value, "record-value");
    record_key_encode(&zero, slice_of("ka\0b", 4), REVISION);
    formats_same(&zero, "record-key-with-zero");
}

static void
segment_files(void **state)
{
    const struct segment_header h = {.cluster_id = CLUSTER,
                                     .lineage = LINEAGE,
                                     .number = 1,
                                     .salt = SALT,
                                     .bytes = 64 << 20};
    const struct frame start = {.generation = GENERATION,
                                .term = TERM,
                                .log_end = INDEX - 1,
                                .first_index = INDEX,
                                .revision = REVISION - 1};
    struct buffer block = {0}, frame = {0}, entry = {0};
    struct frame f;

    (void)state;
    header_encode(buffer_reserve(&block, SEGMENT_HEADER_BYTES), &h);
    block.len = 56; /* the rest is zeros */
    formats_same(&block, "log-header");
    frame_append_start(&frame, &start);
    frame_finish(frame.data, SALT, START_AT, INDEX - 1, 0);
    formats_same(&frame, "start-frame");
    formats_entry(&entry);
    frame_append_entry(&frame, buffer_slice(&entry));
    frame_finish(frame.data, SALT, START_AT + START_FRAME_BYTES, INDEX - 1, 0);
    formats_same(&frame, "entry-frame");
    frame = formats_bytes("entry-frame");
    assert_true(
        frame_parse(frame.data, frame.len, SALT, START_AT + START_FRAME_BYTES, &f));
    assert_false(
        frame_parse(frame.data, frame.len, SALT, START_AT, &f)); /* another place */
    buffer_free(&frame);
    buffer_free(&entry);
}

static void
state_record(void **state)
{
    struct mvcc m = {.options = {.cluster_id = CLUSTER, .lineage = LINEAGE}};
    struct buffer record = {0};

    (void)state;
    mvcc_state_encode(&record, &m, INDEX, REVISION, TIME_MS);
    formats_same(&record, "engine-state");
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(entries_and_records),
        cmocka_unit_test(segment_files),
        cmocka_unit_test(state_record),
    };

    return cmocka_run_group_tests(tests, formats_page_open, formats_page_close);
}

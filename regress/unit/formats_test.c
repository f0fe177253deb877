/*
 * formats_test.c - the examples of sql-like-docs/internals/formats.md: objects of the store and
 * text records are what the code writes and reads.  Where the bytes depend on zstd they are only
 * decoded.  The log's: formats_log_test.c.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <setjmp.h>
#include <unistd.h>

#include <cmocka.h>

#include "codec/codec.h"
#include "env/env.h"
#include "fmt/archive.h"
#include "formats_page.h"
#include "node/node.h"
#include "scratch.h"
#include "sst/sst.h"

static void
put_id(uint8_t id[PUT_ID_BYTES])
{
    for (uint8_t i = 0; i < PUT_ID_BYTES; i++)
        id[i] = (uint8_t)(0xa0 + i);
}

static void
chain_objects(void **state)
{
    struct segment fence = {.cluster_id = CLUSTER,
                            .lineage = LINEAGE,
                            .generation = GENERATION,
                            .term = TERM,
                            .writer = WRITER,
                            .fence = true};
    struct buffer object = {0}, raw = {0}, entry = {0};
    struct t4_slice taken;
    struct byte_reader r;
    struct segment s;

    (void)state;
    put_id(fence.put_id);
    segment_encode(&object, &fence);
    formats_same(&object, "fence");

    object = formats_bytes("data-segment");
    assert_int_equal(segment_decode(buffer_slice(&object), &s), T4_OK);
    assert_int_equal(s.rule, RULE_OBJECT);
    assert_int_equal(s.first_index, INDEX);
    assert_int_equal(s.last_index, INDEX);
    assert_int_equal(s.committed, INDEX - 1);
    assert_true(decompress_append(&raw, s.payload, s.raw_bytes));
    r = reader_of(buffer_slice(&raw));
    formats_entry(&entry);
    assert_true(segment_entry_next(&r, &taken));
    assert_true(slice_equal(taken, buffer_slice(&entry)));
    assert_false(segment_entry_next(&r, &taken));
    buffer_free(&object);
    buffer_free(&raw);
    buffer_free(&entry);
}

/* The fence in slot 0, the segment in slot 1. */
static void
archives(void **state)
{
    struct archive a = {.cluster_id = CLUSTER, .lineage = LINEAGE}, again;
    struct archive_slot skipped = {.slot = 0, .term = TERM},
                        kept = {.slot = 1,
                                .term = TERM,
                                .first_index = INDEX,
                                .first_revision = REVISION};
    struct buffer fence = formats_bytes("fence"), segment = formats_bytes("data-segment"),
                  object = {0};

    (void)state;
    sha256(buffer_slice(&fence), skipped.hash);
    sha256(buffer_slice(&segment), kept.hash);
    a.begin.last_index = INDEX - 1;
    a.end = (struct chain_floor){.next_slot = 2, .term = TERM, .last_index = INDEX};
    memcpy(a.end.hash, kept.hash, HASH_BYTES);
    archive_begin(&object, &a);
    archive_add_skipped(&a, &skipped);
    archive_add_segment(&object, &a, &kept, buffer_slice(&segment));
    archive_end(&object, &a);
    assert_int_equal(archive_decode(buffer_slice(&object), &again), T4_OK);
    formats_same(&object, "archive");
    archive_free(&again);
    archive_free(&a);
    buffer_free(&fence);
    buffer_free(&segment);
}

static void
runs(void **state)
{
    struct buffer key = {0}, value = {0}, file = formats_bytes("sorted-file"),
                  index = {0};
    struct sst_filter_builder filter = {0};
    struct run_index run = {.first_index = 0,
                            .last_index = INDEX,
                            .last_revision = REVISION,
                            .is_base = true};
    struct sst_cursor cursor;
    struct sst_info info;
    struct error error = {0};
    struct t4_slice k, v;
    struct sst *sst;

    (void)state;
    formats_record(&key, &value);
    if (sst_open(buffer_slice(&file), &sst, &error) != T4_OK)
        fail_msg("formats.md: bytes sorted-file: %s", error.message);
    assert_int_equal(sst_verify(sst, &error), T4_OK);
    sst_cursor_init(&cursor, sst);
    assert_int_equal(sst_cursor_next(&cursor, &k, &v, &error), T4_OK);
    assert_true(slice_equal(k, buffer_slice(&key)) &&
                slice_equal(v, buffer_slice(&value)));
    assert_int_equal(sst_cursor_next(&cursor, &k, &v, &error), T4_E_NOTFOUND);
    sst_get_info(sst, &info);
    assert_int_equal(run_index_add(&run, &info, TERM, INDEX, &error), T4_OK);
    sst_filter_add(&filter, sst_hash(slice_str("kgreeting")));
    sst_filter_build(&filter, &run.filter);
    run_index_encode(&index, &run);
    formats_same(&index, "run-index");
    run_index_free(&run);
    sst_cursor_free(&cursor);
    sst_close(sst);
    buffer_free(&key);
    buffer_free(&value);
    buffer_free(&file);
}

/* --- text records -------------------------------------------------------------------------- */

/* Frees `made`. */
static void
same_text(struct buffer *made, struct t4_slice shown)
{
    if (!slice_equal(buffer_slice(made), shown))
        fail_msg("formats.md has:\n%.*sthe code makes:\n%.*s", (int)shown.len,
                 (const char *)shown.data, (int)made->len, (const char *)made->data);
    buffer_free(made);
}

#define TEXT(name, kind, type)                                                           \
    static void name##_text(void **state)                                                \
    {                                                                                    \
        struct t4_slice shown = formats_text(kind);                                      \
        struct type o;                                                                   \
        struct buffer again = {0};                                                       \
                                                                                         \
        (void)state;                                                                     \
        assert_int_equal(name##_decode(shown, &o), T4_OK);                               \
        name##_encode(&again, &o);                                                       \
        same_text(&again, shown);                                                        \
    }
TEXT(cluster, "t4-cluster 1\n", cluster_object)
TEXT(lock, "t4-lock 1\n", lock_object)
TEXT(manifest, "t4-manifest 3\n", manifest_object)
TEXT(checkpoint, "t4-checkpoint 1\n", checkpoint_object)
TEXT(moving, "t4-moving 1\n", moving_object)
TEXT(restoring, "t4-restoring 1\n", restoring_object)

static void
put_file(const char *dir, const char *name, struct t4_slice text)
{
    char path[4096];
    FILE *out;

    snprintf(path, sizeof path, "%s/%s", dir, name);
    out = fopen(path, "w");
    assert_non_null(out);
    assert_int_equal(fwrite(text.data, 1, text.len, out), text.len);
    fclose(out);
}

static void
texts_of_the_data_directory(void **state)
{
    char dir[SCRATCH_ROOM], path[SCRATCH_ROOM + 16];
    struct node_directory_view view;
    struct error error = {0};

    (void)state;
    scratch_make(dir, sizeof dir, "t4-formats");
    put_file(dir, "identity", formats_text("t4-identity 2\n"));
    put_file(dir, "store-memory", formats_text("t4-store-memory 2\n"));
    if (node_directory_look(env_posix(), dir, &view, &error) != T4_OK)
        fail_msg("%s", error.message);
    assert_int_equal(view.cluster_id, CLUSTER);
    assert_int_equal(view.incarnation, WRITER);
    assert_true(view.copied); /* its inode is another one */
    assert_string_equal(view.memory.url, "s3://bucket/prefix");
    assert_int_equal(view.memory.rule, RULE_OBJECT);
    snprintf(path, sizeof path, "%s/identity", dir);
    unlink(path);
    snprintf(path, sizeof path, "%s/store-memory", dir);
    unlink(path);
    assert_int_equal(rmdir(dir), 0); /* nothing was written by looking */
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(chain_objects),
        cmocka_unit_test(archives),
        cmocka_unit_test(runs),
        cmocka_unit_test(cluster_text),
        cmocka_unit_test(lock_text),
        cmocka_unit_test(manifest_text),
        cmocka_unit_test(checkpoint_text),
        cmocka_unit_test(moving_text),
        cmocka_unit_test(restoring_text),
        cmocka_unit_test(texts_of_the_data_directory),
    };

    return cmocka_run_group_tests(tests, formats_page_open, formats_page_close);
}

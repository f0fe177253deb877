/*
 * wal_command_test.c - t4 wal export: its flags, and how entries become lines.
 *
 * The server's folder is not part of the library that tests are linked with, so the command's
 * files are compiled in here.  The command as a whole: regress/t/345_wal_export.t.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "server/entry_lines.c"
#include "server/values.c"
#include "server/wal_command.c"

static struct words words;
static struct error failure;

/* Words separated by single spaces, as after `t4 wal export`. */
static t4_status
parse(const char *variable, const char *text)
{
    static char copy[256];
    char *argv[16], *environment[] = {(char *)(uintptr_t)variable, NULL}, *rest = copy;
    int argc = 0;

    snprintf(copy, sizeof copy, "%s", text);
    while (*text != '\0' && rest != NULL)
        argv[argc++] = strsep(&rest, " ");
    failure = (struct error){0};
    return read_words(&words, argc, argv, environment, &failure);
}

static void
flags_are_taken(void **state)
{
    (void)state;
    assert_int_equal(parse(NULL, "--data-dir=/d"), T4_OK);
    assert_string_equal(words.data_dir, "/d");
    assert_null(words.file);
    assert_true(words.from == 1 && words.to == UINT64_MAX);
    assert_true(words.style.json && !words.style.base64);
    assert_int_equal(parse(NULL,
                           "--data-dir d --from 3 --to=3 --format text --keys=base64 "
                           "--file divergent-1-2.log"),
                     T4_OK);
    assert_string_equal(words.data_dir, "d");
    assert_string_equal(words.file, "divergent-1-2.log");
    assert_true(words.from == 3 && words.to == 3);
    assert_true(!words.style.json && words.style.base64);
    assert_int_equal(parse("T4_DATA_DIR=/v", "--format=json --keys=utf8"), T4_OK);
    assert_string_equal(words.data_dir, "/v");
    assert_true(words.style.json && !words.style.base64);
    assert_int_equal(parse("T4_DATA_DIR=/v", "--data-dir=/d"), T4_OK);
    assert_string_equal(words.data_dir, "/d");
    assert_int_equal(parse(NULL, "--file=./f"), T4_OK);
    assert_int_equal(parse(NULL, "--help"), T4_OK);
    assert_true(words.help);
}

/* Each is refused with all of the words (separated by |) in message and hint. */
static void
wrong_flags_are_refused(void **state)
{
    static const struct {
        const char *text, *words;
    } cases[] = {
        {"", "of which data directory?|--data-dir=DIR"},
        {"--file=divergent-1-2.log", "of which data directory?|./divergent"},
        {"--data-dir", "missing behind --data-dir|data directory of a server"},
        {"--data-dir=", "missing behind --data-dir"},
        {"--file", "missing behind --file|divergent-FIRST-LAST.log"},
        {"--data-dir=d --from=0", "--from takes no \"0\"|1 or more"},
        {"--data-dir=d --from=-1", "--from takes no \"-1\""},
        {"--data-dir=d --from=x", "--from takes no \"x\""},
        {"--data-dir=d --from", "missing behind --from"},
        {"--data-dir=d --to=1.5", "--to takes no \"1.5\""},
        {"--data-dir=d --to=9223372036854775808", "--to takes no"},
        {"--data-dir=d --from=5 --to=4", "--from=5 is above --to=4|smaller one"},
        {"--data-dir=d --format=xml", "--format takes no \"xml\"|json or text"},
        {"--data-dir=d --format", "missing behind --format|json or text"},
        {"--data-dir=d --keys=hex", "--keys takes no \"hex\"|utf8 or base64"},
        {"--data-dir=d --frob", "no flag \"--frob\"|t4 wal --help"},
        {"--data-dir=d --fromage=1", "no flag \"--fromage=1\""},
        {"--data-dir=d more", "a word too many, \"more\""},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char whole[1100], copy[256], *rest = copy, *word;

        if (parse(NULL, cases[i].text) != T4_E_INVALID)
            fail_msg("accepted: %s", cases[i].text);
        snprintf(whole, sizeof whole, "%s (%s)", failure.message, failure.hint);
        assert_true(failure.hint[0] != '\0');
        snprintf(copy, sizeof copy, "%s", cases[i].words);
        while ((word = strsep(&rest, "|")) != NULL) {
            if (strstr(whole, word) == NULL)
                fail_msg("%s: '%s' is not in: %s", cases[i].text, word, whole);
        }
    }
}

/* --- lines ---------------------------------------------------------------------------- */

static void
says(const struct buffer *entry, struct entry_style style, const char *expected)
{
    struct buffer out = {0};

    assert_true(entry_lines_append(&out, buffer_slice(entry), &style));
    buffer_append_u8(&out, '\0');
    assert_string_equal((char *)out.data, expected);
    buffer_free(&out);
}

#define JSON ((struct entry_style){.json = true})
#define JSON_BASE64 ((struct entry_style){.json = true, .base64 = true})
#define TEXT ((struct entry_style){0})

static void
entries_become_lines(void **state)
{
    const struct entry head = {.index = 7,
                               .term = 2,
                               .revision = 9,
                               .time_ms = 1700000000123u,
                               .kind = ENTRY_NORMAL,
                               .mutations = 3};
    const struct mutation put = {.space = SPACE_KEYS,
                                 .key = slice_str("k\"\n\xc3\xbc"),
                                 .value = slice_str("\xff\xfe!"),
                                 .create_revision = 3,
                                 .version = 4,
                                 .lease = -5};
    const struct mutation gone = {
        .space = SPACE_KEYS, .flags = MUTATION_TOMBSTONE, .key = slice_str("g")};
    const struct mutation attached = {.space = SPACE_ATTACHMENTS,
                                      .key = slice_of("\0\0\0\0\0\0\1\2user", 12)};
    struct buffer e = {0};

    (void)state;
    entry_encode_head(&e, &head);
    entry_add(&e, &put);
    entry_add(&e, &gone);
    entry_add(&e, &attached);
#define HEAD                                                                             \
    "{\"index\":7,\"term\":2,\"revision\":9,\"time\":\"2023-11-14T22:13:20.123Z\","      \
    "\"kind\":\"normal\","
    says(&e, JSON,
         HEAD "\"space\":\"keys\",\"op\":\"put\",\"key\":\"k\\\"\\u000a\xc3\xbc\","
              "\"create_revision\":3,\"version\":4,\"lease\":-5,\"value_base64\":"
              "\"//4h\"}\n" HEAD
              "\"space\":\"keys\",\"op\":\"delete\",\"key\":\"g\"}\n" HEAD
              "\"space\":\"attachments\",\"op\":\"put\",\"lease\":258,\"key\":\"user\","
              "\"value_base64\":\"\"}\n");
    says(&e, JSON_BASE64,
         HEAD "\"space\":\"keys\",\"op\":\"put\",\"key_base64\":\"ayIKw7w=\","
              "\"create_revision\":3,\"version\":4,\"lease\":-5,\"value_base64\":"
              "\"//4h\"}\n" HEAD
              "\"space\":\"keys\",\"op\":\"delete\",\"key_base64\":\"Zw==\"}\n" HEAD
              "\"space\":\"attachments\",\"op\":\"put\",\"lease\":258,"
              "\"key_base64\":\"dXNlcg==\",\"value_base64\":\"\"}\n");
#undef HEAD
#define HEAD "index=7 term=2 revision=9 time=2023-11-14T22:13:20.123Z kind=normal "
    says(&e, TEXT,
         HEAD
         "space=keys op=put key=\"k\\\"\\u000a\xc3\xbc\" create_revision=3 version=4 "
         "lease=-5 value_base64=//4h\n" HEAD "space=keys op=delete key=\"g\"\n" HEAD
         "space=attachments op=put lease=258 key=\"user\" value_base64=\n");
    buffer_free(&e);
}

static void
entries_of_other_kinds(void **state)
{
    struct entry head = {.index = 1,
                         .revision = 5,
                         .kind = ENTRY_COMPACTION,
                         .compact_revision = 4,
                         .mutations = 1};
    const struct mutation m = {
        .space = SPACE_SYSTEM, .key = slice_str("compacted"), .value = slice_str("\4")};
    struct buffer e = {0};

    (void)state;
    entry_encode_head(&e, &head);
    entry_add(&e, &m);
    says(&e, JSON,
         "{\"index\":1,\"term\":0,\"revision\":5,\"time\":\"1970-01-01T00:00:00.000Z\","
         "\"kind\":\"compaction\",\"compact_revision\":4,\"space\":\"system\",\"op\":"
         "\"put\",\"key\":\"compacted\",\"value_base64\":\"BA==\"}\n");
    buffer_clear(&e);
    head.kind = ENTRY_RESET;
    head.reset = (struct entry_reset){2, 3, 4};
    head.mutations = 0;
    head.time_ms = UINT64_MAX;
    entry_encode_head(&e, &head);
    says(&e, TEXT,
         "index=1 term=0 revision=5 time= kind=reset compact_revision=4 generation=2 "
         "base_index=3 base_revision=4\n");
    buffer_free(&e);
}

/* Cut at any byte: false, and no line of what is not there. */
static void
damaged_entries_are_noticed(void **state)
{
    const struct entry head = {
        .index = 1, .revision = 2, .kind = ENTRY_NORMAL, .mutations = 1};
    const struct mutation m = {
        .space = SPACE_KEYS, .key = slice_str("key"), .value = slice_str("value")};
    struct buffer e = {0}, out = {0};

    (void)state;
    entry_encode_head(&e, &head);
    entry_add(&e, &m);
    for (size_t n = 0; n < e.len; n++) {
        assert_false(entry_lines_append(&out, slice_of(e.data, n), &JSON));
        assert_int_equal(out.len, 0);
    }
    buffer_append_u8(&e, 0);
    assert_false(entry_lines_append(&out, buffer_slice(&e), &JSON));
    buffer_free(&e);
    buffer_free(&out);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(flags_are_taken),
        cmocka_unit_test(wrong_flags_are_refused),
        cmocka_unit_test(entries_become_lines),
        cmocka_unit_test(entries_of_other_kinds),
        cmocka_unit_test(damaged_entries_are_noticed),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

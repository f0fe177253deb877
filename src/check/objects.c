/*
 * objects.c - single calls on an object store: what comes back, ranges, conditions.
 *
 * Entry point: check_objects().  Runs on: the thread of the check.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "check/check_int.h"

#define DAY_MS (24 * 3600 * (int64_t)1000)

/* --- what is said of an object ------------------------------------------------------ */

static void
check_info(struct world *w)
{
    struct answer put_answer = {0}, a = {0};
    struct check *c = w->check;

    if (!world_answer(w, (world_put(w, &put_answer, "info", "hello"), &put_answer), T4_OK,
                      "put of a new object"))
        return;
    check_ok(c,
             put_answer.info.tag_length > 0 && put_answer.info.tag_length <= T4_TAG_MAX,
             "put gives a tag of 1 to %d bytes", T4_TAG_MAX);
    world_body(w, "info", "hello", "get gives the bytes of the put");
    world_answer(w, (world_get(w, &a, "info"), &a), T4_OK, "get");
    check_ok(c, a.info.length == 5, "get says how long the object is");
    check_ok(c, check_same_tag(&a.info, &put_answer.info),
             "get gives the tag of the put");
    if (a.info.date_ms == 0)
        check_note(c, "the store does not tell its clock (date_ms)");
    else
        check_ok(c, llabs(a.info.modified_ms - a.info.date_ms) < DAY_MS,
                 "the object is from today by the store's clock");
    check_answer_free(&a);
    world_answer(w, (world_head(w, &a, "info"), &a), T4_OK, "head");
    check_ok(c, a.info.length == 5 && check_same_tag(&a.info, &put_answer.info),
             "head gives length and tag");

    world_answer(w, (world_put(w, &a, "info", "world"), &a), T4_OK, "put replaces");
    check_ok(c, !check_same_tag(&a.info, &put_answer.info), "and the tag changes");
    world_body(w, "info", "world", "get gives the new bytes");

    world_answer(w, (world_get(w, &a, "absent"), &a), T4_E_NOTFOUND,
                 "get of an absent key");
    check_ok(c, a.body.len == 0, "gives no bytes");
    world_answer(w, (world_head(w, &a, "absent"), &a), T4_E_NOTFOUND,
                 "head of an absent key");
    world_answer(w, (world_remove_one(w, &a, "info"), &a), T4_OK, "remove");
    world_answer(w, (world_get(w, &a, "info"), &a), T4_E_NOTFOUND, "get after it");
    world_answer(w, (world_head(w, &a, "info"), &a), T4_E_NOTFOUND, "head after it");
    world_answer(w, (world_remove_one(w, &a, "info"), &a), T4_OK,
                 "remove of an absent key");
    check_answer_free(&a);
}

static void
check_empty(struct world *w)
{
    struct answer a = {0};

    world_answer(w, (world_create(w, &a, "empty", ""), &a), T4_OK,
                 "put of an empty body");
    world_body(w, "empty", "", "get of an empty body");
    world_answer(w, (world_get_range(w, &a, "empty", 0, 10), &a), T4_OK,
                 "a range of an empty object");
    check_ok(w->check, a.body.len == 0 && a.info.length == 0, "gives nothing");
    world_answer(w, (world_head(w, &a, "empty"), &a), T4_OK, "head of an empty body");
    check_ok(w->check, a.info.length == 0, "says 0 bytes");
    world_answer(w, (world_create(w, &a, "empty", ""), &a), T4_E_PRECONDITION,
                 "an empty object counts as present");
    check_answer_free(&a);
}

/* Bytes of every value, zero among them. */
static void
check_ranges(struct world *w)
{
    enum { LENGTH = 100000 };
    static const struct {
        uint64_t offset, length;
    } ranges[] = {{0, T4_TO_THE_END},
                  {0, LENGTH},
                  {0, 1},
                  {0, 0},
                  {5, 0},
                  {1, 1},
                  {LENGTH - 1, 1},
                  {LENGTH - 1, 100},
                  {LENGTH - 1, T4_TO_THE_END},
                  {50000, 12345},
                  {50000, T4_TO_THE_END},
                  {LENGTH, 1},
                  {LENGTH, T4_TO_THE_END},
                  {LENGTH + 100, 7},
                  {(uint64_t)1 << 40, T4_TO_THE_END}};
    uint8_t *bytes = mem_alloc(LENGTH);
    struct answer a = {0};

    for (size_t i = 0; i < LENGTH; i++)
        bytes[i] = (uint8_t)(i * 7 + i / 256);
    world_answer(w,
                 (world_put_if(w, &a, "range", slice_of(bytes, LENGTH), T4_PUT_ANY,
                               slice_of(NULL, 0)),
                  &a),
                 T4_OK, "put of %d binary bytes", LENGTH);
    for (size_t i = 0; i < sizeof ranges / sizeof ranges[0]; i++) {
        uint64_t offset = ranges[i].offset, length = ranges[i].length;
        uint64_t expected = offset < LENGTH ? LENGTH - offset : 0;
        bool good;

        expected = expected < length ? expected : length;
        world_get_range(w, &a, "range", offset, length);
        good = a.status == T4_OK && a.body.len == expected && a.info.length == LENGTH &&
               (expected == 0 || memcmp(a.body.data, bytes + offset, expected) == 0);
        if (length == T4_TO_THE_END)
            check_ok(w->check, good, "range from %llu to the end gives %llu of %d",
                     (unsigned long long)offset, (unsigned long long)expected, LENGTH);
        else
            check_ok(w->check, good, "range of %llu bytes from %llu gives %llu of %d",
                     (unsigned long long)length, (unsigned long long)offset,
                     (unsigned long long)expected, LENGTH);
        if (!good)
            check_note(w->check, "%s; %s; %zu bytes, info->length %llu",
                       status_text(a.status), a.error.message, a.body.len,
                       (unsigned long long)a.info.length);
    }
    world_answer(w, (world_get_range(w, &a, "absent", 5, 5), &a), T4_E_NOTFOUND,
                 "a range of an absent key");
    check_answer_free(&a);
    mem_free(bytes);
}

/* --- conditions --------------------------------------------------------------------- */

static void
check_create(struct world *w)
{
    struct answer a = {0};

    world_answer(w, (world_create(w, &a, "create", "one"), &a), T4_OK,
                 "create-if-absent");
    world_answer(w, (world_create(w, &a, "create", "two"), &a), T4_E_PRECONDITION,
                 "create-if-absent, the second time");
    world_answer(w, (world_create(w, &a, "create", "one"), &a), T4_E_PRECONDITION,
                 "create-if-absent with the same bytes again");
    world_body(w, "create", "one", "the first one's bytes stay");
    world_answer(w, (world_remove_one(w, &a, "create"), &a), T4_OK, "it is removed");
    world_answer(w, (world_create(w, &a, "create", "three"), &a), T4_OK,
                 "create-if-absent after that");
    world_body(w, "create", "three", "has written");
}

static void
check_match(struct world *w)
{
    static const char foreign[] = "\"00000000000000000000000000000000\"";
    struct answer first = {0}, second = {0}, a = {0};

    world_answer(
        w,
        (world_replace(w, &a, "match", "x",
                       &(struct t4_object_info){.tag_length = sizeof foreign - 1,
                                                .tag = "\"0000000000000000000000000"
                                                       "0000000\""}),
         &a),
        T4_E_PRECONDITION, "if-match on an absent key");
    world_answer(w, (world_get(w, &a, "match"), &a), T4_E_NOTFOUND,
                 "has created nothing");
    world_answer(w, (world_create(w, &first, "match", "one"), &first), T4_OK,
                 "an object to match");
    world_answer(w, (world_replace(w, &second, "match", "two", &first.info), &second),
                 T4_OK, "if-match with the tag of the put");
    check_ok(w->check, !check_same_tag(&first.info, &second.info), "the tag changes");
    world_body(w, "match", "two", "has written");
    world_answer(w, (world_replace(w, &a, "match", "three", &first.info), &a),
                 T4_E_PRECONDITION, "if-match with a stale tag");
    world_body(w, "match", "two", "has not written");
    world_answer(w, (world_get(w, &a, "match"), &a), T4_OK, "the object is read");
    world_answer(w, (world_replace(w, &a, "match", "four", &a.info), &a), T4_OK,
                 "if-match with the tag of a get");
    world_answer(w, (world_head(w, &a, "match"), &a), T4_OK, "its head is read");
    world_answer(w, (world_replace(w, &a, "match", "five", &a.info), &a), T4_OK,
                 "if-match with the tag of a head");
    world_body(w, "match", "five", "has written");
    first = a;
    world_answer(w, (world_put(w, &a, "match", "six"), &a), T4_OK,
                 "a put without a condition");
    world_answer(w, (world_replace(w, &second, "match", "seven", &first.info), &second),
                 T4_E_PRECONDITION, "makes the tag before it stale");
    world_answer(w, (world_remove_one(w, &second, "match"), &second), T4_OK,
                 "it is removed");
    world_answer(w, (world_replace(w, &second, "match", "eight", &a.info), &second),
                 T4_E_PRECONDITION, "if-match with the last tag of a removed object");
    world_answer(w, (world_get(w, &second, "match"), &second), T4_E_NOTFOUND,
                 "has not brought it back");
    check_answer_free(&second);
    check_answer_free(&a);
}

static void
check_caps(struct world *w)
{
    check_ok(w->check, (w->ops->caps & T4_OBJECT_IF_ABSENT) != 0,
             "caps claims T4_OBJECT_IF_ABSENT");
    check_ok(w->check, (w->ops->caps & T4_OBJECT_IF_MATCH) != 0,
             "caps claims T4_OBJECT_IF_MATCH");
}

void
check_objects(struct world *w)
{
    check_caps(w);
    check_info(w);
    check_empty(w);
    check_ranges(w);
    check_create(w);
    check_match(w);
}

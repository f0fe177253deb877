/*
 * compactor_test.c - when history is compacted by itself: etcd's rules, on a clock of the test.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "node/compactor.h"

#define SECOND UINT64_C(1000000000)
#define MINUTE (60 * SECOND)
#define HOUR (60 * MINUTE)
#define START (7 * HOUR) /* of the clock */

/* One revision each second: what is to be compacted at the time. */
static int64_t
revision_at(uint64_t ns)
{
    return 1 + (int64_t)((ns - START) / SECOND);
}

/* Looks every ten seconds until `until`, expects nothing, then what happens at `until`. */
static int64_t
run(struct compactor *c, uint64_t *now, uint64_t until, bool leading)
{
    int64_t to = 0;

    while (*now < until) {
        assert_int_equal(to, 0);
        *now += 10 * SECOND;
        to = compactor_tick(c, *now, revision_at(*now), leading);
    }
    return to;
}

/* The oldest sample: the first time of one period ago, then of one pause more, as etcd's is. */
static int64_t
oldest(uint64_t now, uint64_t period, uint64_t pause)
{
    return revision_at(now - period == START ? START : now - period - pause);
}

/* First after a whole period, then in each interval. */
static void
compacts(uint64_t period, uint64_t interval, uint64_t until)
{
    struct compactor c;
    uint64_t now = START;

    compactor_init(&c, COMPACTOR_PERIODIC, period, now, 1);
    for (uint64_t at = START + period; at < START + until; at += interval) {
        int64_t to = oldest(at, period, interval / 10);

        assert_int_equal(run(&c, &now, at, true), to);
        compactor_done(&c, now, to);
    }
    compactor_free(&c);
}

static void
test_short_period(void **state)
{
    (void)state;
    compacts(10 * MINUTE, 10 * MINUTE, 2 * HOUR);
}

static void
test_long_period(void **state)
{
    (void)state;
    compacts(5 * HOUR, HOUR, 20 * HOUR);
}

/* A failure is tried again at the next sample, with what is old enough by then. */
static void
test_failure(void **state)
{
    struct compactor c;
    uint64_t now = START, at = START + 10 * MINUTE;

    (void)state;
    compactor_init(&c, COMPACTOR_PERIODIC, 10 * MINUTE, now, 1);
    assert_int_equal(run(&c, &now, at, true), 1);
    assert_int_equal(run(&c, &now, at + MINUTE, true), 1);
    assert_int_equal(run(&c, &now, at + 2 * MINUTE, true), revision_at(START + MINUTE));
    compactor_done(&c, now, revision_at(START + MINUTE));
    assert_int_equal(run(&c, &now, at + 12 * MINUTE, true), revision_at(at + MINUTE));
    compactor_free(&c);
}

/* Who does not lead looks on, and compacts at once when it has come to lead. */
static void
test_not_leading(void **state)
{
    struct compactor c;
    uint64_t now = START;

    (void)state;
    compactor_init(&c, COMPACTOR_PERIODIC, HOUR, now, 1);
    assert_int_equal(run(&c, &now, START + 3 * HOUR, false), 0);
    assert_int_equal(run(&c, &now, START + 3 * HOUR + 6 * MINUTE, true),
                     revision_at(START + 2 * HOUR));
    compactor_free(&c);
}

/* Nothing was written: nothing to do. */
static void
test_idle(void **state)
{
    struct compactor c;
    uint64_t now = START;
    unsigned compactions = 0;

    (void)state;
    compactor_init(&c, COMPACTOR_PERIODIC, 10 * MINUTE, now, 17);
    for (; now < START + 5 * HOUR; now += 10 * SECOND) {
        int64_t to = compactor_tick(&c, now, 17, true);

        if (to == 0)
            continue;
        assert_int_equal(to, 17);
        compactor_done(&c, now, to);
        compactions++;
    }
    assert_int_equal(compactions, 1);
    compactor_free(&c);
}

static void
test_revisions(void **state)
{
    struct compactor c;
    uint64_t now = START;

    (void)state;
    compactor_init(&c, COMPACTOR_REVISION, 400, now, 1);
    assert_int_equal(run(&c, &now, START + 5 * MINUTE, true), 0); /* there are 301 */
    assert_int_equal(run(&c, &now, START + 10 * MINUTE, true), 601 - 400);
    compactor_done(&c, now, 201);
    assert_int_equal(run(&c, &now, START + 15 * MINUTE, false), 0);
    assert_int_equal(run(&c, &now, START + 20 * MINUTE, true), 1201 - 400);
    assert_int_equal(run(&c, &now, START + 25 * MINUTE, true), 1501 - 400); /* failed */
    compactor_done(&c, now, 1101);
    assert_int_equal(compactor_tick(&c, now + 5 * MINUTE, 1501, true),
                     0); /* nothing new */
    compactor_free(&c);
}

static void
test_off(void **state)
{
    struct compactor c;
    uint64_t now = START;

    (void)state;
    compactor_init(&c, COMPACTOR_PERIODIC, 0, now, 1);
    assert_int_equal(c.mode, COMPACTOR_OFF);
    assert_int_equal(run(&c, &now, START + 5 * HOUR, true), 0);
    compactor_free(&c);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_short_period), cmocka_unit_test(test_long_period),
        cmocka_unit_test(test_failure),      cmocka_unit_test(test_not_leading),
        cmocka_unit_test(test_idle),         cmocka_unit_test(test_revisions),
        cmocka_unit_test(test_off),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

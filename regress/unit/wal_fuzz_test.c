/*
 * wal_fuzz_test.c - the seeded mutations of regress/fuzz/wal_frame_fuzz.c as a test.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <setjmp.h>

#include <cmocka.h>

#define WAL_FRAME_FUZZ_NO_MAIN
#include "../fuzz/wal_frame_fuzz.c"

static void
recovery_takes_any_bytes(void **state)
{
    (void)state;
    assert_int_equal(wal_frame_fuzz(6000, 1), 0);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(recovery_takes_any_bytes)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}

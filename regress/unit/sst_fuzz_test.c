/*
 * sst_fuzz_test.c - regress/fuzz/sst_fuzz.c, briefly.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "../fuzz/sst_fuzz.c"

static void
decoding_takes_any_bytes(void **state)
{
    (void)state;
    assert_int_equal(sst_fuzz(10000, 4711), 0);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(decoding_takes_any_bytes)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}

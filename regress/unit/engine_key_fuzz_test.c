/*
 * engine_key_fuzz_test.c - regress/fuzz/engine_key_fuzz.c, briefly.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "../fuzz/engine_key_fuzz.c"

static void
long_keys_are_keys(void **state)
{
    (void)state;
    assert_int_equal(engine_key_fuzz(60, 4711), 0);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(long_keys_are_keys)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}

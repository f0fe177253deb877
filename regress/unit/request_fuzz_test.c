/*
 * request_fuzz_test.c - regress/fuzz/request_fuzz.c, briefly.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "../fuzz/request_fuzz.c"

static void
decoding_takes_any_bytes(void **state)
{
    (void)state;
    assert_int_equal(request_fuzz(8000, 4711), 0);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(decoding_takes_any_bytes)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}

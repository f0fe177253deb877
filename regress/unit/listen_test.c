/*
 * listen_test.c - what the first bytes of a connection say, for every length.
 *
 * The rest of api/listen is tested with a whole server: regress/t/540_http.t and 541_listen.t.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "api/listen/listen_int.h"

#define PREFACE "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

static enum greeting
of(const char *bytes, size_t n)
{
    return greeting_of((const uint8_t *)bytes, n);
}

static void
http2_needs_all_of_it(void **state)
{
    static const char whole[] = PREFACE "\0\0\0\4\0\0\0\0\0";

    (void)state;
    for (size_t n = 0; n < GREETING_BYTES; n++)
        assert_int_equal(of(whole, n), GREETING_MORE);
    assert_int_equal(of(whole, GREETING_BYTES), GREETING_HTTP2);
    assert_int_equal(of(PREFACE "\0\0\0\0\0\0\0\0\0", GREETING_BYTES), GREETING_NONE);
    assert_int_equal(of(PREFACE "GET / HTTP", GREETING_BYTES), GREETING_NONE);
}

static void
a_wrong_byte_is_seen_at_once(void **state)
{
    char bytes[] = PREFACE;

    (void)state;
    for (size_t i = 4; i < strlen(PREFACE); i++) {
        memcpy(bytes, PREFACE, sizeof bytes);
        bytes[i] ^= 1;
        assert_int_equal(of(bytes, i + 1), GREETING_NONE);
        assert_int_equal(of(bytes, i), GREETING_MORE);
    }
}

static void
http1_by_its_method(void **state)
{
    (void)state;
    assert_int_equal(of("G", 1), GREETING_HTTP1);
    assert_int_equal(of("P", 1), GREETING_MORE);
    assert_int_equal(of("PO", 2), GREETING_HTTP1);
    assert_int_equal(of("PRO", 3), GREETING_HTTP1);
    assert_int_equal(of("PRIV", 4), GREETING_HTTP1);
    assert_int_equal(of("PRI ", 4), GREETING_MORE);
    assert_int_equal(of("PRI / HTTP/1.1", 14), GREETING_NONE);
    assert_int_equal(of("get / HTTP/1.1", 14), GREETING_NONE);
    assert_int_equal(of("\x16\x03\x01", 3), GREETING_NONE); /* TLS */
    assert_int_equal(of("\r\n", 2), GREETING_NONE);
    assert_int_equal(of("\0", 1), GREETING_NONE);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(http2_needs_all_of_it),
        cmocka_unit_test(a_wrong_byte_is_seen_at_once),
        cmocka_unit_test(http1_by_its_method),
    };

    return cmocka_run_group_tests_name("listen", tests, NULL, NULL);
}

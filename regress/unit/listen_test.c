/*
 * listen_test.c - what the first bytes of a connection say, for every length; connections that
 * are closed behind the back of the table; a process without descriptors.
 *
 * The rest of api/listen is tested with a whole server: regress/t/540_http.t, 542_limits.t to
 * 544_listen.t.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <fcntl.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "api/listen/listen_int.h"
#include "base/metrics.h"
#include "scratch.h"

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

/* --- a listener in a folder of its own ------------------------------------------------ */

#define SECONDS 20

static struct listen *listening;
static struct sockaddr_un where = {.sun_family = AF_UNIX};
static char folder[sizeof where.sun_path - sizeof "/s" + 1]; /* of the socket */
static _Atomic int taken; /* connections that a server was given */
static _Atomic bool replaced;

/* A server that closes at once; its descriptor becomes something else at the same moment. */
static void
close_and_reuse(void *arg, enum listen_for which, int fd)
{
    int other = open("/dev/null", O_RDONLY | O_CLOEXEC);

    (void)arg;
    (void)which;
    if (atomic_load(&replaced))
        dup2(other, fd);
    else
        close(fd);
    close(other);
    atomic_fetch_add(&taken, 1);
}

static int
start(void **state)
{
    const struct listen_options o = {.max_connections = 100,
                                     .greeting_ns = UINT64_C(1000000000) * SECONDS,
                                     .silence_ns = UINT64_C(1000000000),
                                     .unix_mode = 0600};
    struct listen_address a = {where.sun_path, "", -1};

    (void)state;
    atomic_store(&taken, 0);
    scratch_make(folder, sizeof folder, "t4-listen");
    if (listen_start(&o, &listening, NULL) != T4_OK)
        return -1;
    snprintf(where.sun_path, sizeof where.sun_path, "%s/s", folder);
    listen_serve_http(listening, close_and_reuse, NULL);
    return listen_open(listening, LISTEN_FOR_PROBES, &a, "listen", NULL) == T4_OK ? 0
                                                                                  : -1;
}

static int
stop(void **state)
{
    (void)state;
    listen_stop(listening);
    return rmdir(folder); /* the socket's file is gone */
}

static void
connect_one(int fd)
{
    assert_int_equal(connect(fd, (struct sockaddr *)&where, sizeof where), 0);
}

static void
wait_taken(int n)
{
    for (int i = 0; i < SECONDS * 100 && atomic_load(&taken) < n; i++)
        poll(NULL, 0, 10);
    assert_int_equal(atomic_load(&taken), n);
}

static bool
metrics_say(const char *line)
{
    struct buffer out = {0};
    bool found;

    listen_render_metrics(listening, &out);
    buffer_append_u8(&out, '\0');
    found = strstr((const char *)out.data, line) != NULL;
    buffer_free(&out);
    return found;
}

/* The server closes without a word; the descriptor may be another file's by then. */
static void
closed_connections_are_forgotten(void **state)
{
    (void)state;
    for (int round = 0; round < 2; round++) {
        atomic_store(&replaced, round == 1);
        atomic_store(&taken, 0);
        for (int i = 0; i < 20; i++) {
            int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

            connect_one(fd);
            close(fd);
        }
        wait_taken(20);
        assert_true(metrics_say("\nt4_connections 0\n"));
    }
    atomic_store(&replaced, false);
    assert_true(metrics_say("\nt4_connections_accepted_total 40\n"));
}

/* Nothing is lost when there is no descriptor for a while, and nobody spins. */
static void
without_descriptors_they_wait(void **state)
{
    struct rlimit before, none;
    struct timespec cpu[2];
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    (void)state;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
    none = (struct rlimit){(rlim_t)fd + 1, before.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
    for (int one = 0; (one = dup(fd)) >= 0;) /* holes below */
        fcntl(one, F_SETFD, FD_CLOEXEC);
    connect_one(fd);
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &cpu[0]);
    poll(NULL, 0, 500); /* five times the pause */
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &cpu[1]);
    assert_int_equal(atomic_load(&taken), 0);
    assert_true((cpu[1].tv_sec - cpu[0].tv_sec) * 1000 +
                    (cpu[1].tv_nsec - cpu[0].tv_nsec) / 1000000 <
                25);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
    wait_taken(1);
    close(fd);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(http2_needs_all_of_it),
        cmocka_unit_test(a_wrong_byte_is_seen_at_once),
        cmocka_unit_test(http1_by_its_method),
        cmocka_unit_test_setup_teardown(closed_connections_are_forgotten, start, stop),
        cmocka_unit_test_setup_teardown(without_descriptors_they_wait, start, stop),
    };

    return cmocka_run_group_tests_name("listen", tests, NULL, NULL);
}

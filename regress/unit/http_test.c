/*
 * http_test.c - health pages of api/http for states that a whole server reaches rarely.
 *
 * http.c is compiled in here over a node of our own, whose alarm the test raises; requests go
 * through real sockets.  The pages of a real server: regress/t/030_server.t.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <netinet/in.h>
#include <stdlib.h>

#include "api/http/http.c"

/* --- a node whose alarm can be raised ----------------------------------------------- */

struct node {
    struct metrics metrics;
    _Atomic bool nospace;
};

void
node_status(struct node *n, struct node_status *out)
{
    *out = (struct node_status){.nospace = n->nospace};
}

void
node_refresh_metrics(struct node *n)
{
    metric_set(&n->metrics, METRIC_REVISION, 4711);
}

struct metrics *
node_metrics(struct node *n)
{
    return &n->metrics;
}

/* --- requests ----------------------------------------------------------------------- */

static struct http_server *server;
static struct node *node;
static char port[8];

static int
connect_to_server(void)
{
    struct sockaddr_in a = {.sin_family = AF_INET,
                            .sin_port = htons((uint16_t)atoi(port)),
                            .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct timeval limit = {.tv_sec = 20};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    assert_true(fd >= 0);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    assert_int_equal(connect(fd, (struct sockaddr *)&a, sizeof a), 0);
    return fd;
}

/* Sends a request that closes the connection; the whole answer stays until the next call. */
static const char *
exchange(int fd, const char *path)
{
    static char answer_text[65536];
    char request[256];
    size_t len = 0;
    ssize_t n;

    snprintf(request, sizeof request,
             "GET %s HTTP/1.1\r\nHost: t4\r\nConnection: close\r\n\r\n", path);
    assert_int_equal(write(fd, request, strlen(request)), strlen(request));
    while ((n = read(fd, answer_text + len, sizeof answer_text - 1 - len)) > 0)
        len += (size_t)n;
    close(fd);
    answer_text[len] = '\0';
    return answer_text;
}

static void
expect(const char *path, int status, const char *body)
{
    const char *text = exchange(connect_to_server(), path),
               *end = strstr(text, "\r\n\r\n");

    assert_non_null(end);
    assert_int_equal(atoi(text + strlen("HTTP/1.1 ")), status);
    if (body != NULL)
        assert_string_equal(end + 4, body);
}

static int
start_server(void **state)
{
    struct http_options options = {"127.0.0.1", port};
    struct sockaddr_in a = {.sin_family = AF_INET,
                            .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t n = sizeof a;
    int fd = socket(AF_INET, SOCK_STREAM, 0);

    (void)state;
    if (bind(fd, (struct sockaddr *)&a, sizeof a) != 0 ||
        getsockname(fd, (struct sockaddr *)&a, &n) != 0)
        return -1;
    close(fd);
    snprintf(port, sizeof port, "%d", ntohs(a.sin_port));
    node = calloc(1, sizeof *node);
    return http_start(&options, &server, NULL) == T4_OK ? 0 : -1;
}

static int
stop_server(void **state)
{
    (void)state;
    http_stop(server);
    free(node);
    return 0;
}

/* --- tests -------------------------------------------------------------------------- */

static void
states(void **state)
{
    (void)state;
    expect("/readyz", 503, "starting\n");
    http_set_state(server, HTTP_STARTING, "recovering the log");
    expect("/readyz", 503, "starting: recovering the log\n");
    expect("/health", 503,
           "{\"health\":\"false\",\"reason\":\"starting: recovering the log\"}\n");
    http_set_state(server, HTTP_READY, "");
    expect("/readyz", 200, "ok\n");
    expect("/health", 200, "{\"health\":\"true\",\"reason\":\"\"}\n");
    http_set_state(server, HTTP_DEGRADED, "the \"store\" is out of reach");
    expect("/readyz", 200, "degraded: the \"store\" is out of reach\n");
    expect("/health", 200, "{\"health\":\"true\",\"reason\":\"\"}\n");
    http_set_state(server, HTTP_STOPPING, "a \"quoted\" reason");
    expect("/readyz", 503, "stopping: a \"quoted\" reason\n");
    expect("/health", 503,
           "{\"health\":\"false\",\"reason\":\"stopping: a \\\"quoted\\\" reason\"}\n");
    expect("/healthz", 200, "ok\n");
}

/* A full disk: reads are served, so clients are still sent here, but it is not healthy. */
static void
alarm_degrades(void **state)
{
    (void)state;
    http_set_node(server, node);
    http_set_state(server, HTTP_READY, "");
    expect("/readyz", 200, "ok\n");
    node->nospace = true;
    expect(
        "/readyz", 200,
        "degraded: NOSPACE: the disk is full, writes are refused until there is room\n");
    expect("/health", 503, "{\"health\":\"false\",\"reason\":\"ALARM NOSPACE\"}\n");
    expect("/health?exclude=NOSPACE", 200, "{\"health\":\"true\",\"reason\":\"\"}\n");
    expect("/health?exclude=CORRUPT", 503, NULL);
    assert_non_null(strstr(exchange(connect_to_server(), "/metrics"), "\nt4_ready 1\n"));
    http_set_state(server, HTTP_STOPPING, "");
    expect("/readyz", 503, "stopping\n");
}

static void
metrics_need_the_node(void **state)
{
    (void)state;
    assert_null(strstr(exchange(connect_to_server(), "/metrics"), "t4_revision"));
    http_set_node(server, node);
    assert_non_null(
        strstr(exchange(connect_to_server(), "/metrics"), "\nt4_revision 4711\n"));
    http_set_node(server, NULL);
    assert_null(strstr(exchange(connect_to_server(), "/metrics"), "t4_revision"));
    assert_non_null(strstr(exchange(connect_to_server(), "/metrics"), "\nt4_ready 0\n"));
}

/* Connections beyond the bound wait or are turned away; when there is room it goes on. */
static void
connections_are_bounded(void **state)
{
    int fd[MAX_CONNECTIONS + BACKLOG / 2];
    const union MHD_DaemonInfo *info;

    (void)state;
    for (size_t i = 0; i < sizeof fd / sizeof fd[0]; i++)
        fd[i] = connect_to_server();
    assert_non_null(strstr(exchange(fd[0], "/healthz"), "200 OK"));
    info = MHD_get_daemon_info(server->daemon, MHD_DAEMON_INFO_CURRENT_CONNECTIONS);
    assert_non_null(info);
    assert_true(info->num_connections <= MAX_CONNECTIONS);
    for (size_t i = 1; i < sizeof fd / sizeof fd[0]; i++)
        close(fd[i]);
    expect("/healthz", 200, "ok\n");
}

static void
start_errors(void **state)
{
    struct http_options taken = {"127.0.0.1", port};
    struct http_options nowhere = {"192.0.2.1", "3381"}; /* of documentation: nobody's */
    struct http_server *other;
    struct error error;

    (void)state;
    assert_int_equal(http_start(&taken, &other, &error), T4_E_BUSY);
    assert_null(other);
    assert_non_null(strstr(error.message, port));
    assert_non_null(strstr(error.hint, "--metrics-addr"));
    assert_int_equal(http_start(&nowhere, &other, &error), T4_E_IO);
    assert_non_null(strstr(error.message, "192.0.2.1:3381"));
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(states, start_server, stop_server),
        cmocka_unit_test_setup_teardown(alarm_degrades, start_server, stop_server),
        cmocka_unit_test_setup_teardown(metrics_need_the_node, start_server, stop_server),
        cmocka_unit_test_setup_teardown(connections_are_bounded, start_server,
                                        stop_server),
        cmocka_unit_test_setup_teardown(start_errors, start_server, stop_server),
    };

    return cmocka_run_group_tests_name("http", tests, NULL, NULL);
}

/*
 * http_test.c - health pages of api/http for states that a whole server reaches rarely.
 *
 * http.c is compiled in here over a node of our own, whose alarm the test raises; requests go
 * through socket pairs.  The pages of a real server: regress/t/030_server.t and 540_http.t,
 * which also shows that etcd's words with alarms are these.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <unistd.h>

#include "api/http/http.c"

/* --- a node whose alarm can be raised ----------------------------------------------- */

struct node {
    struct metrics metrics;
    _Atomic bool nospace, disk_full;
};

void
node_status(struct node *n, struct node_status *out)
{
    *out = (struct node_status){.nospace = n->nospace, .disk_full = n->disk_full};
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
static bool of_probe; /* what the next connections are */

static int
connect_to_server(void)
{
    struct timeval limit = {.tv_sec = 20};
    int fd[2];

    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fd), 0);
    setsockopt(fd[0], SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    http_add_connection(server, !of_probe, fd[1]);
    return fd[0];
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
    assert_int_equal(send(fd, request, strlen(request), MSG_NOSIGNAL), strlen(request));
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
    (void)state;
    node = calloc(1, sizeof *node);
    return http_start(&server, NULL) == T4_OK ? 0 : -1;
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

static bool
excludes_nothing(void *arg, const char *name)
{
    (void)arg;
    (void)name;
    return false;
}

static void
states(void **state)
{
    (void)state;
#define FAILS(check, why) "[-]" check " failed: " why "\n"
    expect("/readyz", 503,
           "[+]data_corruption ok\n" FAILS("serializable_read", "starting")
               FAILS("linearizable_read", "starting") "[+]non_learner ok\n\n");
    http_set_state(server, HTTP_STARTING, "recovering the log");
    expect("/readyz/serializable_read", 503,
           FAILS("serializable_read", "starting: recovering the log") "\n");
    expect("/readyz?exclude=serializable_read&exclude=linearizable_read", 200, "ok\n");
    expect("/health", 503,
           "{\"health\":\"false\",\"reason\":\"starting: recovering the log\"}\n");
    expect("/livez", 200, "ok\n");
    http_set_state(server, HTTP_READY, "");
    expect("/readyz", 200, "ok\n");
    expect("/health", 200, "{\"health\":\"true\",\"reason\":\"\"}");
    http_set_state(server, HTTP_DEGRADED, "the \"store\" is out of reach");
    expect("/readyz", 200, "degraded: the \"store\" is out of reach\n");
    expect("/health", 200, "{\"health\":\"true\",\"reason\":\"\"}");
    http_set_state(server, HTTP_NOT_LEADING, "another leads");
    expect("/readyz/linearizable_read", 503,
           FAILS("linearizable_read", "not leading: another leads") "\n");
    expect("/readyz/serializable_read", 200, "ok\n");
    expect("/health", 503, "{\"health\":\"false\",\"reason\":\"RAFT NO LEADER\"}\n");
    expect("/health?serializable=true", 200, "{\"health\":\"true\",\"reason\":\"\"}");
    expect("/livez", 200, "ok\n");
    http_set_state(server, HTTP_STOPPING, "a \"quoted\" reason");
    expect("/readyz/serializable_read", 503,
           FAILS("serializable_read", "stopping: a \"quoted\" reason") "\n");
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
    expect("/readyz", 200,
           "degraded: NOSPACE: writes are refused until the alarm is taken down\n");
    node->disk_full = true;
    expect(
        "/readyz", 200,
        "degraded: NOSPACE: the disk is full, writes are refused until there is room\n");
    expect("/health", 503, "{\"health\":\"false\",\"reason\":\"ALARM NOSPACE\"}\n");
    expect("/health?exclude=NOSPACE", 200, "{\"health\":\"true\",\"reason\":\"\"}");
    expect("/health?exclude=CORRUPT&exclude=NOSPACE", 200, NULL);
    expect("/health?exclude=CORRUPT", 503, NULL);
    assert_non_null(strstr(exchange(connect_to_server(), "/metrics"), "\nt4_ready 1\n"));
}

/* The words that etcd gives with the alarm CORRUPT. */
static void
corruption_is_told(void **state)
{
    const struct probe_view v = {.state = HTTP_READY, .reason = "", .corrupt = true};
    const struct probe_query q = {.excludes = excludes_nothing};
    struct probe_counts *counts = probe_counts_new();
    struct buffer out = {0};

    (void)state;
    assert_int_equal(probe_answer("/readyz/data_corruption", &v, &q, counts, &out), 503);
    buffer_append_u8(&out, 0);
    assert_string_equal((char *)out.data,
                        FAILS("data_corruption", "alarm activated: CORRUPT") "\n");
    buffer_clear(&out);
    assert_int_equal(probe_answer("/health", &v, &q, counts, &out), 503);
    buffer_append_u8(&out, 0);
    assert_string_equal((char *)out.data,
                        "{\"health\":\"false\",\"reason\":\"ALARM CORRUPT\"}\n");
    buffer_free(&out);
    probe_counts_free(counts);
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

static uint32_t
open_connections(void)
{
    const union MHD_DaemonInfo *info = MHD_get_daemon_info(
        server->of_clients.daemon, MHD_DAEMON_INFO_CURRENT_CONNECTIONS);

    assert_non_null(info);
    return info->num_connections;
}

/* Connections beyond the bound are closed; when there is room it goes on. */
static void
connections_are_bounded(void **state)
{
    int fd[MAX_CONNECTIONS + 32];

    (void)state;
    for (size_t i = 0; i < sizeof fd / sizeof fd[0]; i++)
        fd[i] = connect_to_server();
    assert_non_null(strstr(exchange(fd[0], "/healthz"), "200 OK"));
    assert_true(open_connections() <= MAX_CONNECTIONS);
    assert_int_equal(read(fd[MAX_CONNECTIONS + 31], &(char){0}, 1), 0);
    of_probe = true;
    expect("/healthz", 200, "ok\n"); /* clients do not keep probes out */
    of_probe = false;
    for (size_t i = 1; i < sizeof fd / sizeof fd[0]; i++)
        close(fd[i]);
    /* The server's thread learns of that when it comes to it. */
    for (int tries = 0; open_connections() == MAX_CONNECTIONS; tries++) {
        assert_true(tries < 20000);
        usleep(1000);
    }
    expect("/healthz", 200, "ok\n");
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(states, start_server, stop_server),
        cmocka_unit_test_setup_teardown(alarm_degrades, start_server, stop_server),
        cmocka_unit_test(corruption_is_told),
        cmocka_unit_test_setup_teardown(metrics_need_the_node, start_server, stop_server),
        cmocka_unit_test_setup_teardown(connections_are_bounded, start_server,
                                        stop_server),
    };

    return cmocka_run_group_tests_name("http", tests, NULL, NULL);
}

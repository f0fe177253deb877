/*
 * log_metrics_test.c - what an operator sees of base/log.c and base/metrics.c.
 *
 * Log lines are read back from a pipe in place of stderr; metrics are compared as text.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "base/metrics.h"
#include "scratch.h"

static int real_stderr = -1, pipe_out = -1;

static void
capture(void)
{
    int ends[2];

    assert_int_equal(pipe(ends), 0);
    real_stderr = dup(STDERR_FILENO);
    assert_true(real_stderr >= 0);
    assert_true(dup2(ends[1], STDERR_FILENO) >= 0);
    close(ends[1]);
    pipe_out = ends[0];
}

/* Ends the capture; the text stays until the next call. */
static const char *
captured(void)
{
    static char text[65536];
    size_t len = 0;
    ssize_t n;

    assert_true(dup2(real_stderr, STDERR_FILENO) >= 0);
    close(real_stderr);
    while ((n = read(pipe_out, text + len, sizeof text - 1 - len)) > 0)
        len += (size_t)n;
    close(pipe_out);
    text[len] = '\0';
    return text;
}

/* The line without its time, whose form is checked. */
static const char *
without_time(const char *line)
{
    static const char form[] = "0000-00-00T00:00:00.000Z ";

    for (size_t i = 0; form[i] != '\0'; i++) {
        if (form[i] == '0')
            assert_in_range(line[i], '0', '9');
        else
            assert_int_equal(line[i], form[i]);
    }
    return line + sizeof form - 1;
}

#define TEXT_LINE(expected, ...)                                                         \
    do {                                                                                 \
        capture();                                                                       \
        log_write(LOG_LEVEL_INFO, __VA_ARGS__);                                          \
        assert_string_equal(without_time(captured()), "INFO " expected "\n");            \
    } while (0)

static void
text_lines(void **state)
{
    const char *no_value = NULL;

    (void)state;
    log_configure(LOG_LEVEL_INFO, LOG_FORMAT_TEXT);
    TEXT_LINE("ready", "ready", NULL);
    TEXT_LINE("ready revision=17 dir=/var/lib/t4", "ready", "revision", "17", "dir",
              "/var/lib/t4", NULL);
    TEXT_LINE("m a=\"two words\" b=\"\"", "m", "a", "two words", "b", "", NULL);
    TEXT_LINE("m a=\"x=y\" b=\"say \\\"hi\\\"\" c=\"back\\\\slash\"", "m", "a", "x=y",
              "b", "say \"hi\"", "c", "back\\slash", NULL);
    TEXT_LINE("m a=\"one\\nERROR two\" b=\"\\x1b[31m\" c=\"\\xff\"", "m", "a",
              "one\nERROR two", "b", "\x1b[31m", "c", "\xff", NULL);
    TEXT_LINE("m a=Stra\xc3\x9f"
              "e b=\"\"",
              "m", "a",
              "Stra\xc3\x9f"
              "e",
              "b", no_value, NULL);
    TEXT_LINE("first\\nsecond", "first\nsecond", NULL);
}

static void
json_lines(void **state)
{
    static const char head[] = "{\"time\":\"",
                      middle[] = "\",\"level\":\"warn\",\"message\":";
    const char *text;

    (void)state;
    log_configure(LOG_LEVEL_INFO, LOG_FORMAT_JSON);
    capture();
    log_write(LOG_LEVEL_WARN, "a \"b\" \\ \n\t\x01", "key", "v\xff\xc3\xa4\x7f", "empty",
              "", "cut", "\xe2\x82", NULL);
    text = captured();
    assert_memory_equal(text, head, sizeof head - 1);
    text += sizeof head - 1 + strlen("2026-11-21T01:23:45.678Z");
    assert_memory_equal(text, middle, sizeof middle - 1);
    text += sizeof middle - 1;
    assert_string_equal(text, "\"a \\\"b\\\" \\\\ \\n\\t\\u0001\","
                              "\"key\":\"v\xef\xbf\xbd\xc3\xa4\\u007f\",\"empty\":\"\","
                              "\"cut\":\"\xef\xbf\xbd\xef\xbf\xbd\"}\n");
}

static void
levels(void **state)
{
    (void)state;
    log_configure(LOG_LEVEL_WARN, LOG_FORMAT_TEXT);
    capture();
    LOG_INFO("hidden", NULL);
    LOG_DEBUG("hidden", NULL);
    log_printf(LOG_LEVEL_INFO, "hidden %d", 1);
    LOG_WARN("shown", NULL);
    log_printf(LOG_LEVEL_ERROR, "shown %d", 2);
    const char *text = captured();

    assert_null(strstr(text, "hidden"));
    assert_non_null(strstr(text, " WARN shown\n"));
    assert_non_null(strstr(text, " ERROR shown 2\n"));
    assert_true(log_enabled(LOG_LEVEL_ERROR));
    assert_false(log_enabled(LOG_LEVEL_INFO));
}

/* A line never exceeds what a pipe takes whole, and stays well-formed where it is cut. */
static void
long_lines_are_cut(void **state)
{
    static const char fill[] = {'x', '"', '\n', '\x01'};
    char value[9000], expected_end[8];
    const char *text;

    (void)state;
    for (int format = 0; format < 2; format++) {
        log_configure(LOG_LEVEL_INFO, format ? LOG_FORMAT_JSON : LOG_FORMAT_TEXT);
        for (size_t f = 0; f < sizeof fill; f++) {
            for (size_t n = 3900; n < sizeof value; n += n < 4100 ? 1 : 1000) {
                memset(value, fill[f], n);
                value[n] = '\0';
                capture();
                log_write(LOG_LEVEL_INFO, "m", "k", value, "next", "v", NULL);
                text = captured();
                assert_in_range(strlen(text), 3000, 4096);
                assert_ptr_equal(strchr(text, '\n'), text + strlen(text) - 1);
                if (n > 4090) {
                    snprintf(expected_end, sizeof expected_end, "%s",
                             format   ? "...\"}\n"
                             : f == 0 ? "...\n"
                                      : "...\"\n");
                    assert_string_equal(text + strlen(text) - strlen(expected_end),
                                        expected_end);
                } else if (format) {
                    assert_string_equal(text + strlen(text) - 3, "\"}\n");
                }
            }
        }
    }
    value[8000] = '\0';
    log_configure(LOG_LEVEL_INFO, LOG_FORMAT_JSON);
    capture();
    log_write(LOG_LEVEL_INFO, value, "k", "v", NULL);
    text = captured();
    assert_string_equal(text + strlen(text) - 6, "...\"}\n");
}

#define THREADS 4
#define LINES 200

static void *
write_lines(void *arg)
{
    for (int i = 0; i < LINES; i++)
        log_write(LOG_LEVEL_INFO, "line", "from", arg, "again", arg, NULL);
    return NULL;
}

/* A file opened for appending stands for the terminal or journal: lines do not mix. */
static void
threads_do_not_mix(void **state)
{
    static char names[THREADS][64];
    char folder[SCRATCH_ROOM], path[SCRATCH_ROOM + 8], line[512], from[128], again[128];
    pthread_t thread[THREADS];
    int fd, lines = 0;
    FILE *in;

    (void)state;
    scratch_make(folder, sizeof folder, "t4-log-test");
    snprintf(path, sizeof path, "%s/log", folder);
    fd = open(path, O_WRONLY | O_APPEND | O_CREAT, 0600);
    assert_true(fd >= 0);
    real_stderr = dup(STDERR_FILENO);
    assert_true(dup2(fd, STDERR_FILENO) >= 0);
    close(fd);
    log_configure(LOG_LEVEL_INFO, LOG_FORMAT_TEXT);
    for (int i = 0; i < THREADS; i++) {
        memset(names[i], 'a' + i, sizeof names[i] - 1);
        pthread_create(&thread[i], NULL, write_lines, names[i]);
    }
    for (int i = 0; i < THREADS; i++)
        pthread_join(thread[i], NULL);
    dup2(real_stderr, STDERR_FILENO);
    close(real_stderr);
    in = fopen(path, "r");
    assert_non_null(in);
    while (fgets(line, sizeof line, in) != NULL) {
        assert_int_equal(
            sscanf(without_time(line), "INFO line from=%127s again=%127s", from, again),
            2);
        assert_string_equal(from, again);
        lines++;
    }
    fclose(in);
    scratch_remove(folder);
    assert_int_equal(lines, THREADS * LINES);
}

static struct metrics *
new_metrics(void)
{
    struct metrics *m = calloc(1, sizeof *m);

    assert_non_null(m);
    return m;
}

static char *
render(const struct metrics *m)
{
    struct buffer b = {0};

    metrics_render(m, &b);
    buffer_append_u8(&b, 0);
    return (char *)b.data;
}

static int
count_of(const char *text, const char *what)
{
    int n = 0;

    for (const char *p = text; (p = strstr(p, what)) != NULL; p++)
        n++;
    return n;
}

static void
every_metric_is_rendered(void **state)
{
    static const struct {
        const char *name, *kind;
    } all[] = {
#define METRIC(id, kind, name, labels, help) {name, #kind},
#define ALIAS METRIC
#include "base/metrics.tbl"
#undef METRIC
#undef ALIAS
    };
    struct metrics *m = new_metrics();
    char *text = render(m), line[256];

    (void)state;
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        snprintf(line, sizeof line, "# HELP %s ", all[i].name);
        assert_int_equal(count_of(text, line), 1);
        snprintf(line, sizeof line, "# TYPE %s %.*s\n", all[i].name,
                 (int)strcspn(all[i].kind, "_"), all[i].kind);
        assert_int_equal(count_of(text, line), 1);
    }
    assert_int_equal(text[strlen(text) - 1], '\n');
    free(text);
    free(m);
}

static void
values_and_labels(void **state)
{
    struct metrics *m = new_metrics();
    char *text;

    (void)state;
    metric_add(m, METRIC_REQUESTS_PUT, 3);
    metric_add(m, METRIC_REQUESTS_PUT, 4);
    metric_set(m, METRIC_REVISION, 9000000000000000000);
    metric_set(m, METRIC_WATCHERS, -1);
    text = render(m);
    assert_non_null(strstr(text, "\nt4_requests_total{op=\"put\"} 7\n"));
    assert_non_null(strstr(text, "\nt4_requests_total{op=\"range\"} 0\n"));
    assert_non_null(strstr(text, "\nt4_revision 9000000000000000000\n"));
    assert_non_null(strstr(text, "\nt4_watchers -1\n"));
    free(text);
    free(m);
}

static void
histograms(void **state)
{
    struct metrics *m = new_metrics();
    char *text;

    (void)state;
    metric_observe(m, METRIC_WAL_FSYNC, 0);
    metric_observe(m, METRIC_WAL_FSYNC, 1000000);              /* 1 ms: still the first */
    metric_observe(m, METRIC_WAL_FSYNC, 1000001);              /* the second */
    metric_observe(m, METRIC_WAL_FSYNC, UINT64_C(8192000000)); /* the last finite one */
    metric_observe(m, METRIC_WAL_FSYNC, UINT64_C(60000000000));
    text = render(m);
    assert_non_null(strstr(text, "\nt4_wal_fsync_seconds_bucket{le=\"0.001\"} 2\n"
                                 "t4_wal_fsync_seconds_bucket{le=\"0.002\"} 3\n"
                                 "t4_wal_fsync_seconds_bucket{le=\"0.004\"} 3\n"));
    assert_non_null(strstr(text, "\nt4_wal_fsync_seconds_bucket{le=\"4.096\"} 3\n"
                                 "t4_wal_fsync_seconds_bucket{le=\"8.192\"} 4\n"
                                 "t4_wal_fsync_seconds_bucket{le=\"+Inf\"} 5\n"
                                 "t4_wal_fsync_seconds_sum 68.194000001\n"
                                 "t4_wal_fsync_seconds_count 5\n"));
    assert_int_equal(count_of(text, "t4_wal_fsync_seconds_bucket{"),
                     HISTOGRAM_BUCKETS + 1);
    free(text);
    free(m);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(text_lines),
        cmocka_unit_test(json_lines),
        cmocka_unit_test(levels),
        cmocka_unit_test(long_lines_are_cut),
        cmocka_unit_test(threads_do_not_mix),
        cmocka_unit_test(every_metric_is_rendered),
        cmocka_unit_test(values_and_labels),
        cmocka_unit_test(histograms),
    };

    return cmocka_run_group_tests_name("log_metrics", tests, NULL, NULL);
}

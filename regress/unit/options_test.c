/*
 * options_test.c - every flag of `t4 run`: good and bad values, variables, precedence, refusals.
 *
 * The server's folder is not part of the library that tests are linked with, so its three
 * files about options are compiled in here; they call nothing of the rest of that folder.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "server/option_table.c"
#undef NS_PER_S
#undef AT
#include "server/options.c"
#include "server/store_options.c"
#include "server/systemd.c"
#undef KI
#include "server/values.c"

#define S INT64_C(1000000000)

static struct run_options options;
static struct error failure;
static char *no_environment[] = {NULL};

/* Parses up to four words and one variable; the options are freed by the next call. */
static t4_status
parse(const char *variable, const char *a, const char *b, const char *c, const char *d)
{
    char *argv[] = {(char *)(uintptr_t)a, (char *)(uintptr_t)b, (char *)(uintptr_t)c,
                    (char *)(uintptr_t)d, NULL};
    char *environment[] = {(char *)(uintptr_t)variable, NULL};
    int argc = 0;

    while (argv[argc] != NULL)
        argc++;
    run_options_free(&options);
    failure = (struct error){0};
    return run_options_parse(argc, argv, environment, &options, &failure);
}

static void
accepts(const char *variable, const char *a)
{
    if (parse(variable, a, NULL, NULL, NULL) != T4_OK)
        fail_msg("%s %s: %s", variable != NULL ? variable : "", a != NULL ? a : "",
                 failure.message);
}

/* The message and the hint together hold all the words, separated by |. */
static void
refuses(const char *variable, const char *a, const char *words)
{
    char whole[2048], copy[512], *rest = copy, *word;

    if (parse(variable, a, NULL, NULL, NULL) == T4_OK)
        fail_msg("accepted: %s %s", variable != NULL ? variable : "", a != NULL ? a : "");
    assert_int_equal(failure.status, T4_E_INVALID);
    snprintf(whole, sizeof whole, "%s (%s)", failure.message, failure.hint);
    assert_true(failure.hint[0] != '\0');
    snprintf(copy, sizeof copy, "%s", words);
    while ((word = strsep(&rest, "|")) != NULL) {
        if (strstr(whole, word) == NULL)
            fail_msg("'%s' is not in: %s", word, whole);
    }
}

/* --- values ------------------------------------------------------------------------- */

static void
sizes_and_durations(void **state)
{
    static const struct {
        const char *text;
        int64_t size, duration; /* -1: malformed */
    } cases[] = {
        {"0", 0, 0},
        {"1572864", 1572864, -1},
        {"512KiB", 524288, -1},
        {"1.5MiB", 1572864, -1},
        {"1.5M", 1572864, -1},
        {"2kB", 2048, -1},
        {"8GB", INT64_C(8) << 30, -1},
        {"1TiB", INT64_C(1) << 40, -1},
        {"7B", 7, -1},
        {"10s", -1, 10 * S},
        {"1h30m", -1, 5400 * S},
        {"1.5h", -1, 5400 * S},
        {"300ms", -1, 300000000},
        {"2us", -1, 2000},
        {"2\xc2\xb5s", -1, 2000},
        {"1m0.5s", -1, 60 * S + S / 2},
        {"5ns", -1, 5},
        {"5m", -1, 300 * S}, /* as a size: five of nothing known */
        {"", -1, -1},
        {"-1", -1, -1},
        {"-1s", -1, -1},
        {"1 s", -1, -1},
        {" 1s", -1, -1},
        {"1s ", -1, -1},
        {"1d", -1, -1},
        {".", -1, -1},
        {"s", -1, -1},
        {".5s", -1, S / 2},
        {"1e3", -1, -1},
        {"0x10", -1, -1},
        {"1kib", -1, -1},
        {"99999999999999999999", -1, -1},
        {"9223372036854775807", INT64_MAX, -1},
        {"9223372036854775808", -1, -1},
        {"9000000TiB", -1, -1},
        {"9223372036s", -1, INT64_C(9223372036000000000)},
        {"9223372037s", -1, -1},
        {"2562047h60m", -1, -1},
    };
    int64_t v;

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        v = -1;
        if (value_parse_size(cases[i].text, &v) != (cases[i].size >= 0) ||
            v != cases[i].size)
            fail_msg("size %s: %lld", cases[i].text, (long long)v);
        v = -1;
        if (value_parse_duration(cases[i].text, &v) != (cases[i].duration >= 0) ||
            v != cases[i].duration)
            fail_msg("duration %s: %lld", cases[i].text, (long long)v);
    }
}

static void
addresses(void **state)
{
    static const struct {
        const char *text, *formatted; /* NULL: refused */
        bool is_private, is_wildcard;
    } cases[] = {
        {"127.0.0.1:3379", "127.0.0.1:3379", true, false},
        {"127.8.0.1:1", "127.8.0.1:1", true, false},
        {"localhost:65535", "localhost:65535", true, false},
        {"[::1]:3379", "[::1]:3379", true, false},
        {"[::ffff:127.0.0.1]:1", "[::ffff:127.0.0.1]:1", true, false},
        {"unix:/run/t4.sock", "unix:/run/t4.sock", true, false},
        {"unix:///run/t4.sock", "unix:/run/t4.sock", true, false},
        {"0.0.0.0:3379", "0.0.0.0:3379", false, true},
        {":3379", "0.0.0.0:3379", false, true},
        {"[::]:3379", "[::]:3379", false, true},
        {"10.0.0.7:3379", "10.0.0.7:3379", false, false},
        {"db-1.example.org:03379", "db-1.example.org:3379", false, false},
        {"[fe80::1]:9", "[fe80::1]:9", false, false},
        {"", NULL, false, false},
        {"3379", NULL, false, false},
        {"127.0.0.1", NULL, false, false},
        {"127.0.0.1:", NULL, false, false},
        {"127.0.0.1:0", NULL, false, false},
        {"127.0.0.1:65536", NULL, false, false},
        {"127.0.0.1:-1", NULL, false, false},
        {"127.0.0.1:http", NULL, false, false},
        {"127.0.0.1:1x", NULL, false, false},
        {"127.0.0.256:1", NULL, false, false},
        {"127.1:1", NULL, false, false},
        {"::1:3379", NULL, false, false},
        {"[::1]", NULL, false, false},
        {"[::1]3379", NULL, false, false},
        {"[127.0.0.1]:1", NULL, false, false},
        {"[::1", NULL, false, false},
        {"a b:1", NULL, false, false},
        {"http://127.0.0.1:3379", "127.0.0.1:3379", true, false},
        {"http://[::1]:3379", "[::1]:3379", true, false},
        {"https://127.0.0.1:3379", NULL, false, false},
        {"http://127.0.0.1:3379/", NULL, false, false},
        {"http://", NULL, false, false},
        {"unix:", NULL, false, false},
        {"unix://", NULL, false, false},
        {"h\xc3\xb6st:1", NULL, false, false},
    };
    struct address a;
    char text[ADDRESS_TEXT_BYTES], longest[400];

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const char *why = address_parse(cases[i].text, &a);

        if ((why == NULL) != (cases[i].formatted != NULL))
            fail_msg("%s: %s", cases[i].text, why != NULL ? why : "accepted");
        if (why != NULL)
            continue;
        address_format(&a, text, sizeof text);
        assert_string_equal(text, cases[i].formatted);
        assert_int_equal(a.is_private, cases[i].is_private);
        assert_int_equal(a.is_wildcard, cases[i].is_wildcard);
    }
    memset(longest, 'a', sizeof longest);
    snprintf(longest + 300, 10, ":1");
    assert_non_null(address_parse(longest, &a));
    memcpy(longest, "unix:/", 6);
    longest[200] = '\0';
    assert_non_null(address_parse(longest, &a));
    longest[5 + 107] = '\0';
    assert_null(address_parse(longest, &a));
}

static void
formats(void **state)
{
    char text[32];

    (void)state;
    value_format_size(1572864, text, sizeof text);
    assert_string_equal(text, "1536KiB");
    value_format_size(0, text, sizeof text);
    assert_string_equal(text, "0");
    value_format_size(INT64_C(64) << 20, text, sizeof text);
    assert_string_equal(text, "64MiB");
    value_format_duration(90 * S, text, sizeof text);
    assert_string_equal(text, "90s");
    value_format_duration(86400 * S, text, sizeof text);
    assert_string_equal(text, "24h");
    value_format_duration(S / 10, text, sizeof text);
    assert_string_equal(text, "100ms");
}

/* --- flags -------------------------------------------------------------------------- */

static void
defaults(void **state)
{
    (void)state;
    accepts(NULL, NULL);
    assert_string_equal(options.data_dir, "/var/lib/t4");
    assert_string_equal(options.storage_engine, "lmdb");
    assert_null(options.plugin_dir);
    assert_int_equal(options.n_listen, 1);
    assert_string_equal(options.listen[0].host, "127.0.0.1");
    assert_string_equal(options.listen[0].port, "3379");
    assert_string_equal(options.advertise_client_urls, "http://127.0.0.1:3379");
    assert_true(strlen(options.node_id) > 0);
    assert_int_equal(options.read_consistency, 0);
    assert_int_equal(options.log_level, 2);
    assert_int_equal(options.log_format, 0);
    assert_false(options.metrics_off);
    assert_string_equal(options.metrics[0].port, "3381");
    assert_int_equal(options.max_request_bytes, 1572864);
    assert_int_equal(options.max_txn_ops, 128);
    assert_int_equal(options.keepalive_min_time_ns, 5 * S);
    assert_int_equal(options.keepalive_interval_ns, 7200 * S);
    assert_int_equal(options.keepalive_timeout_ns, 20 * S);
    assert_int_equal(options.keepalive_permit_without_stream, 1);
    assert_int_equal(options.segment_max_size_mb, 16);
    assert_int_equal(options.segment_max_age_sec, 0);
    assert_int_equal(options.watch_progress_ns, 600 * S);
    assert_int_equal(options.shutdown_grace_ns, 5 * S);
    assert_int_equal(options.threads, 1);
    assert_int_equal(options.moved, 0);
    assert_int_equal(options.n_settings, 0);
    assert_int_equal(options.n_warnings, 0);
    assert_string_equal(options.changed, "");
    assert_false(options.help);
}

/* For each flag: a value that is taken, and values that are not. */
static const struct {
    const char *name, *good, *bad[5];
} flags[] = {
    {"data-dir", "/srv/t4", {""}},
    {"storage-engine", "memory", {"", "../x", "LMDB", "a-b", "x.so"}},
    {"plugin-dir", "/opt/plugins", {""}},
    {"plugin-option",
     "lmdb.map_size=8GB",
     {"", "map_size=8GB", "lmdb.map_size", "lmdb.=1", "rbac.x=1"}},
    {"segment-max-size-mb", "1024", {"0", "1025", "-1", "16MB", ""}},
    {"segment-max-age-sec", "10", {"-1", "31536001", "10s", "x"}},
    {"moved", "true", {"maybe", "2", ""}},
    {"from-snapshot", "/backup/etcd.db", {""}},
    {"skip-hash-check", "true", {"maybe"}},
    {"object-store", "s3://bucket/some/prefix", {"", "bucket"}},
    {"wal-sync-upload", "false", {"maybe", ""}},
    {"upload-max-age", "10ms", {"9ms", "2h", "10"}},
    {"upload-window", "4", {"0", "5", "1.5", "-1"}},
    {"upload-segment-size", "64KiB", {"65535", "9MiB", "-1", "x"}},
    {"checkpoint-interval", "90s", {"90ms", "25h", "soon", ""}},
    {"checkpoint-bytes", "1MiB", {"1KiB", "2TiB", ""}},
    {"history-retention", "0s", {"-1s", "90000h", ""}},
    {"wal-keep-bytes", "64MiB", {"-1", "64TiB", ""}},
    {"take-over-now", "true", {"2"}},
    {"discard-divergent-tail", "true", {"2"}},
    {"leadership-lease", "500ms", {"499ms", "11m", "6"}},
    {"object-store-timeout", "1s", {"999ms", "11m", "20"}},
    {"object-store-unsafe", "true", {"2"}},
    {"s3-bucket", "bucket", {""}},
    {"s3-prefix", NULL, {"without-a-bucket"}},
    {"s3-endpoint", "http://127.0.0.1:9000", {""}},
    {"s3-region", "eu-central-1", {""}},
    {"s3-profile", "ops", {""}},
    {"s3-access-key-id", "AKIA", {""}},
    {"s3-secret-access-key", NULL, {NULL}},
    {"s3-session-token", NULL, {NULL}},
    {"s3-ca-bundle", "/etc/ca.pem", {""}},
    {"gcs-credentials-file", "/etc/key.json", {""}},
    {"gcs-endpoint", "http://127.0.0.1:9000", {""}},
    {"listen",
     "127.0.0.1:1,[::1]:2,unix:/x",
     {"", "127.0.0.1", "127.0.0.1:1,", "127.0.0.1:1,127.0.0.1:01",
      "https://127.0.0.1:1"}},
    {"unix-socket-mode", "0660", {"", "600", "0500", "1777", "0688"}},
    {"advertise-client-urls",
     "http://10.0.0.1:1,unix:///x",
     {"", "10.0.0.1:1", "http://10.0.0.1", "http://10.0.0.1:1/", "ftp://10.0.0.1:1"}},
    {"node-id", "node-7", {"", "a b", "h\xc3\xb6", "\x01"}},
    {"read-consistency",
     "serializable",
     {"", "eventual", "linear", "linearizable|serializable", "Linearizable"}},
    {"max-request-bytes", "8MiB", {"1023", "65MiB", "x", "-1", "1.5"}},
    {"max-txn-ops", "65536", {"0", "65537", "1k", "99999999999999999999"}},
    {"quota-backend-bytes", "-1", {"", "x", "-1k", "--1", "9999999TB"}},
    {"auto-compaction-mode", "revision", {"", "periodical", "1"}},
    {"auto-compaction-retention", "72", {"", "-1", "x", "-5m", "87601"}},
    {"max-concurrent-streams", "4294967295", {"0", "4294967296", "-1"}},
    {"max-request-memory", "64MiB", {"63MiB", "2TiB", "-1", "x"}},
    {"max-connections", "1000", {"-1", "10000001", "1k"}},
    {"watch-progress-notify-interval", "100ms", {"99ms", "25h", "10", ""}},
    {"threads", "64", {"0", "65", "1.5"}},
    {"grpc-keepalive-min-time", "0", {"25h", "5", "-5s"}},
    {"grpc-keepalive-interval", "720h", {"721h", "2", "x"}},
    {"grpc-keepalive-timeout", "100ms", {"0", "61m", "20"}},
    {"grpc-keepalive-permit-without-stream", "false", {"ja", ""}},
    {"log-level", "debug", {"", "trace", "INFO", "war", "debugx"}},
    {"log-format", "json", {"", "xml", "text|json"}},
    {"metrics-addr", "off", {"", "OFF", "9090", "127.0.0.1:1,off", "127.0.0.1:0"}},
    {"metrics", "extensive", {"", "all", "none"}},
    {"shutdown-grace", "0", {"601s", "5", "-1s"}},
};

static void
every_flag(void **state)
{
    char flag[512], variable[512], name[OPTION_NAME_BYTES], range[160], words[512];

    (void)state;
    assert_int_equal(sizeof flags / sizeof flags[0], option_count);
    for (size_t i = 0; i < sizeof flags / sizeof flags[0]; i++) {
        const struct option_row *row = option_find(flags[i].name, strlen(flags[i].name));

        if (row == NULL) {
            fail_msg("no row for %s", flags[i].name);
            return;
        }
        option_variable(row->name, name, sizeof name);
        option_range(row, range, sizeof range);
        if (flags[i].good != NULL) {
            snprintf(flag, sizeof flag, "--%s=%s", flags[i].name, flags[i].good);
            snprintf(variable, sizeof variable, "%s=%s", name, flags[i].good);
            accepts(NULL, flag);
            accepts(variable, NULL);
        }
        if (flags[i].good != NULL && row->type != OPTION_BOOL) {
            snprintf(flag, sizeof flag, "--%s", flags[i].name);
            assert_int_equal(parse(NULL, flag, flags[i].good, NULL, NULL), T4_OK);
            refuses(NULL, flag, "value is missing");
        }
        for (size_t j = 0; j < 5 && flags[i].bad[j] != NULL; j++) {
            snprintf(flag, sizeof flag, "--%s=%s", flags[i].name, flags[i].bad[j]);
            if (row->type == OPTION_SETTINGS) {
                refuses(NULL, flag, "--plugin-option");
                continue;
            }
            snprintf(words, sizeof words, "--%s|\"%s\"|%s", flags[i].name,
                     flags[i].bad[j], strchr(flags[i].bad[j], '|') != NULL ? "" : range);
            refuses(NULL, flag,
                    strchr(flags[i].bad[j], '|') != NULL ? flags[i].name : words);
            snprintf(variable, sizeof variable, "%s=%s", name, flags[i].bad[j]);
            snprintf(words, sizeof words, "%s:", name);
            if (flags[i].bad[j][0] == '\0')
                accepts(variable, NULL); /* an empty variable is not set */
            else
                refuses(variable, NULL, words);
        }
    }
}

static void
values_arrive(void **state)
{
    (void)state;
    accepts(NULL, "--listen=127.0.0.1:1,[::1]:2,unix:/x");
    assert_int_equal(options.n_listen, 3);
    assert_true(options.listen[2].is_unix);
    assert_string_equal(options.listen[2].host, "/x");
    assert_string_equal(options.advertise_client_urls,
                        "http://127.0.0.1:1,http://[::1]:2,unix:///x");
    accepts(NULL, "--log-level=error");
    assert_int_equal(options.log_level, 0);
    accepts("T4_LOG_FORMAT=json", NULL);
    assert_int_equal(options.log_format, 1);
    accepts("T4_READ_CONSISTENCY=serializable", NULL);
    assert_int_equal(options.read_consistency, 1);
    accepts(NULL, "--moved");
    assert_int_equal(options.moved, 1);
    accepts(NULL, "--metrics-addr=off");
    assert_true(options.metrics_off);
    accepts(NULL, "--metrics-addr=[::1]:9");
    assert_string_equal(options.metrics[0].host, "::1");
    accepts(NULL, "--metrics-addr=http://127.0.0.1:9,unix:/m");
    assert_int_equal(options.n_metrics, 2);
    assert_string_equal(options.metrics[1].host, "/m");
    accepts(NULL, "--unix-socket-mode=0660");
    assert_int_equal(options.unix_socket_mode, 0660);
    accepts(NULL, "--max-request-bytes=2MiB");
    assert_int_equal(options.max_request_bytes, 2 << 20);
    assert_string_equal(options.changed, "--max-request-bytes=2MiB");
    accepts(NULL, "--node-id=a");
    assert_string_equal(options.node_id, "a");
    accepts(NULL, "--quota-backend-bytes=8GB");
    assert_int_equal(options.quota_backend_bytes, INT64_C(8) << 30);
    accepts(NULL, "--quota-backend-bytes=-3");
    assert_int_equal(options.quota_backend_bytes, -3);
}

/* As etcd reads it: without a unit hours, or revisions. */
static void
auto_compaction(void **state)
{
    (void)state;
    accepts(NULL, NULL);
    assert_int_equal(options.auto_compaction_retention, 0);
    accepts(NULL, "--auto-compaction-retention=2");
    assert_int_equal(options.auto_compaction_retention, 7200 * S);
    accepts(NULL, "--auto-compaction-retention=1h30m");
    assert_int_equal(options.auto_compaction_retention, 5400 * S);
    accepts("T4_AUTO_COMPACTION_MODE=revision", "--auto-compaction-retention=1000");
    assert_int_equal(options.auto_compaction_mode, 1);
    assert_int_equal(options.auto_compaction_retention, 1000);
    refuses("T4_AUTO_COMPACTION_MODE=revision", "--auto-compaction-retention=10m",
            "number of revisions");
}

/* A runbook for etcd goes on working where the words mean the same. */
static void
names_of_etcd(void **state)
{
    (void)state;
    accepts(NULL, "--listen-client-urls=http://127.0.0.1:1,http://[::1]:2,unix:///x");
    assert_int_equal(options.n_listen, 3);
    assert_string_equal(options.listen[0].host, "127.0.0.1");
    assert_string_equal(options.changed,
                        "--listen=http://127.0.0.1:1,http://[::1]:2,unix:///x");
    accepts(NULL, "--listen-metrics-urls=http://127.0.0.1:9");
    assert_string_equal(options.metrics[0].port, "9");
    accepts(NULL, "--name=n1");
    assert_string_equal(options.node_id, "n1");
    accepts("T4_NAME=n2", NULL);
    assert_string_equal(options.node_id, "n2");
    accepts("T4_LISTEN_CLIENT_URLS=http://127.0.0.1:7", NULL);
    assert_string_equal(options.listen[0].port, "7");
    accepts(NULL, "--log-format=console");
    assert_int_not_equal(options.log_format, 1);
    refuses(NULL, "--listen-client-urls=https://127.0.0.1:1", "no TLS");
    refuses(NULL, "--listen=0.0.0.0:1,[::]:1", "both 0.0.0.0 and [::]");
    accepts(NULL, "--listen=0.0.0.0:1,[::]:2");
}

/* Nobody can connect to 0.0.0.0: a client is told a name. */
static void
wildcards_are_not_advertised(void **state)
{
    (void)state;
    accepts(NULL, "--listen=0.0.0.0:3379,[::]:3380");
    assert_null(strstr(options.advertise_client_urls, "0.0.0.0"));
    assert_null(strstr(options.advertise_client_urls, "[::]"));
    assert_memory_equal(options.advertise_client_urls, "http://", 7);
}

static void
precedence(void **state)
{
    (void)state;
    assert_int_equal(parse("T4_MAX_TXN_OPS=7", "--max-txn-ops", "9", NULL, NULL), T4_OK);
    assert_int_equal(options.max_txn_ops, 9);
    assert_int_equal(parse("T4_MAX_TXN_OPS=x", "--max-txn-ops", "9", NULL, NULL), T4_OK);
    accepts("T4_MAX_TXN_OPS=7", NULL);
    assert_int_equal(options.max_txn_ops, 7);
    accepts("T4_MAX_TXN_OPS=", NULL);
    assert_int_equal(options.max_txn_ops, 128);
    assert_int_equal(parse(NULL, "--max-txn-ops=1", "--max-txn-ops=2", NULL, NULL),
                     T4_OK);
    assert_int_equal(options.max_txn_ops, 2);
    assert_int_equal(parse("T4_MOVED=true", "--moved=false", NULL, NULL, NULL), T4_OK);
    assert_int_equal(options.moved, 0);
}

static void
plugin_settings(void **state)
{
    (void)state;
    assert_int_equal(parse(NULL, "--plugin-option=lmdb.map_size=8GB", "--plugin-option",
                           "lmdb.a=b=c,d", NULL),
                     T4_OK);
    assert_int_equal(options.n_settings, 2);
    assert_string_equal(options.settings[0].name, "map_size");
    assert_string_equal(options.settings[0].value, "8GB");
    assert_string_equal(options.settings[1].name, "a");
    assert_string_equal(options.settings[1].value, "b=c,d");
    accepts("T4_PLUGIN_OPTION=lmdb.a=1,lmdb.b=2", NULL);
    assert_int_equal(options.n_settings, 2);
    assert_string_equal(options.settings[1].name, "b");
    assert_string_equal(options.settings[1].value, "2");
    assert_int_equal(
        parse("T4_PLUGIN_OPTION=lmdb.a=1", "--plugin-option=lmdb.z=3", NULL, NULL, NULL),
        T4_OK);
    assert_int_equal(options.n_settings, 1);
    assert_string_equal(options.settings[0].name, "z");
    assert_int_equal(
        parse(NULL, "--storage-engine=memory", "--plugin-option=lmdb.a=1", NULL, NULL),
        T4_E_INVALID);
    assert_non_null(strstr(failure.message, "memory"));
    refuses(NULL, "--plugin-option=rbac.x=1", "no plugin rbac");
}

/* Values of plugins' settings may be secrets. */
static void
secrets_are_not_repeated(void **state)
{
    (void)state;
    accepts(NULL, "--plugin-option=lmdb.password=hunter2");
    assert_string_equal(options.changed, "--plugin-option=lmdb.password");
    assert_int_equal(parse(NULL, "--plugin-option=hunter2", NULL, NULL, NULL),
                     T4_E_INVALID);
    assert_null(strstr(failure.message, "hunter2"));
    assert_int_equal(parse(NULL, "--plugin-option=rbac.key=hunter2", NULL, NULL, NULL),
                     T4_E_INVALID);
    assert_null(strstr(failure.message, "hunter2"));
}

static void
unknown_flags(void **state)
{
    (void)state;
    refuses(NULL, "--datadir=/x", "--datadir|--data-dir");
    refuses(NULL, "--max-txn-op=1", "--max-txn-ops");
    refuses(NULL, "--metric-addr=off", "--metrics-addr");
    refuses(NULL, "--zzz", "there is no flag --zzz|t4 help run");
    refuses(NULL, "-data-dir", "two dashes|--data-dir");
    refuses(NULL, "--", "is no flag");
    refuses(NULL, "now", "\"now\" is no flag");
    refuses(NULL, "--=x", "there is no flag");
    assert_int_equal(parse(NULL, "--moved", "true", NULL, NULL), T4_E_INVALID);
    assert_non_null(strstr(failure.hint, "--moved=true"));
}

/* Flags of later versions and of etcd: refused with the reason, also as variables. */
static void
later_flags(void **state)
{
    static const struct {
        const char *name, *reason;
    } cases[] = {
        {"client-tls-cert", "TLS"},
        {"client-tls-key", "TLS"},
        {"client-tls-ca", "TLS"},
        {"peer-tls-cert", "TLS"},
        {"cert-file", "TLS"},
        {"auth-enabled", "users and roles"},
        {"token-ttl", "users and roles"},
        {"auth-token", "users and roles"},
        {"peer-listen", "cluster"},
        {"advertise-peer", "cluster"},
        {"follower-wait-mode", "cluster"},
        {"follower-max-retries", "cluster"},
        {"leader-watch-interval-sec", "cluster"},
        {"initial-cluster", "cluster"},
        {"branch-prefix", "branches"},
        {"branch-checkpoint", "branches"},
        {"checkpoint-interval-min", "checkpoints"},
        {"checkpoint-entries", "checkpoints"},
    };
    char text[128], words[256], name[OPTION_NAME_BYTES];

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        snprintf(text, sizeof text, "--%s=x", cases[i].name);
        snprintf(words, sizeof words, "--%s needs|%s|this version does not have|leave",
                 cases[i].name, cases[i].reason);
        refuses(NULL, text, words);
        text[strlen(text) - 2] = '\0';
        refuses(NULL, text, cases[i].reason);
        option_variable(cases[i].name, name, sizeof name);
        snprintf(text, sizeof text, "%s=x", name);
        snprintf(words, sizeof words, "%s needs|%s|unset %s", name, cases[i].reason,
                 name);
        refuses(text, NULL, words);
        text[strlen(text) - 1] = '\0';
        accepts(text, NULL); /* empty: not set */
    }
}

/* Secrets come by the variable, and go nowhere but to the plugin. */
static void
secrets(void **state)
{
    (void)state;
    refuses(NULL, "--s3-secret-access-key=hunter2",
            "T4_S3_SECRET_ACCESS_KEY|command line");
    assert_null(strstr(failure.message, "hunter2"));
    refuses(NULL, "--s3-session-token=hunter2", "T4_S3_SESSION_TOKEN");
    accepts("T4_S3_SECRET_ACCESS_KEY=hunter2", "--s3-bucket=b");
    assert_string_equal(options.object_store, "s3://b");
    assert_int_equal(options.n_store_settings, 1);
    assert_string_equal(options.store_settings[0].name, "s3.secret_access_key");
    assert_string_equal(options.store_settings[0].value, "hunter2");
    assert_null(strstr(options.changed, "hunter2"));
}

static void
store_urls(void **state)
{
    (void)state;
    assert_int_equal(parse("T4_S3_PREFIX=p/q/", "--s3-bucket=b", NULL, NULL, NULL),
                     T4_OK);
    assert_string_equal(options.object_store, "s3://b/p/q");
    refuses("T4_S3_BUCKET=b", "--object-store=file:///x", "--object-store|one of them");
    accepts("T4_PLUGIN_OPTION=fault.seed=3,dir.x=1", "--object-store=fault+file:///x");
    assert_int_equal(options.n_store_settings, 2);
    assert_string_equal(options.store_settings[0].name, "fault.seed");
    refuses("T4_PLUGIN_OPTION=s3.region=x", "--object-store=file:///x", "no plugin s3");
}

static void
other_variables(void **state)
{
    static const char *const links[] = {
        "T4_SERVICE_HOST=10.0.0.1",      "T4_SERVICE_PORT=3379",
        "T4_PORT=tcp://10.0.0.1:3379",   "T4_PORT_3379_TCP_ADDR=10.0.0.1",
        "T4_PEER_SERVICE_HOST=10.0.0.2", "T4_PEER_PORT=tcp://10.0.0.2:3380",
        "T4_TEST_HOLD_SYNC=1",           "HOME=/root",
    };

    (void)state;
    accepts("T4_DATADIR=/x", NULL);
    assert_int_equal(options.n_warnings, 1);
    assert_non_null(strstr(options.warnings[0], "T4_DATADIR"));
    assert_non_null(strstr(options.warnings[0], "T4_DATA_DIR"));
    accepts("T4_SOMETHING_ELSE=1", NULL);
    assert_int_equal(options.n_warnings, 1);
    for (size_t i = 0; i < sizeof links / sizeof links[0]; i++) {
        accepts(links[i], NULL);
        assert_int_equal(options.n_warnings, 0);
    }
}

static void
help_is_asked_for(void **state)
{
    (void)state;
    accepts(NULL, "--help");
    assert_true(options.help);
    accepts(NULL, "-h");
    assert_true(options.help);
    accepts("T4_MAX_TXN_OPS=x", "--help"); /* help works while a variable is wrong */
    assert_true(options.help);
}

static void
help_text(void **state)
{
    char *text = NULL, words[128], name[OPTION_NAME_BYTES];
    size_t n = 0;
    FILE *out = open_memstream(&text, &n);

    (void)state;
    run_options_help(out);
    fclose(out);
    for (size_t i = 0; i < option_count; i++) {
        snprintf(words, sizeof words, "\n  --%s", option_table[i].name);
        assert_non_null(strstr(text, words));
        option_variable(option_table[i].name, name, sizeof name);
        snprintf(words, sizeof words, "[%s;", name);
        assert_non_null(strstr(text, words));
    }
    for (char *line = text, *end; (end = strchr(line, '\n')) != NULL; line = end + 1)
        assert_true(end - line <= 90);
    free(text);
}

static void
bounds(void **state)
{
    char *argv[MAX_SETTINGS + 2], listen[512] = "--listen=127.0.0.1:1";

    (void)state;
    for (int i = 0; i <= MAX_SETTINGS; i++)
        argv[i] = (char *)(uintptr_t) "--plugin-option=lmdb.a=1";
    run_options_free(&options);
    assert_int_equal(
        run_options_parse(MAX_SETTINGS, argv, no_environment, &options, &failure), T4_OK);
    run_options_free(&options);
    assert_int_equal(
        run_options_parse(MAX_SETTINGS + 1, argv, no_environment, &options, &failure),
        T4_E_INVALID);
    for (int i = 2; i <= MAX_LISTEN; i++)
        snprintf(listen + strlen(listen), 32, ",127.0.0.1:%d", i);
    accepts(NULL, listen);
    snprintf(listen + strlen(listen), 32, ",127.0.0.1:99");
    refuses(NULL, listen, "more than 16");
}

static int
tear_down(void **state)
{
    (void)state;
    run_options_free(&options);
    return 0;
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sizes_and_durations),
        cmocka_unit_test(addresses),
        cmocka_unit_test(formats),
        cmocka_unit_test(defaults),
        cmocka_unit_test(every_flag),
        cmocka_unit_test(values_arrive),
        cmocka_unit_test(names_of_etcd),
        cmocka_unit_test(wildcards_are_not_advertised),
        cmocka_unit_test(auto_compaction),
        cmocka_unit_test(precedence),
        cmocka_unit_test(plugin_settings),
        cmocka_unit_test(secrets_are_not_repeated),
        cmocka_unit_test(unknown_flags),
        cmocka_unit_test(later_flags),
        cmocka_unit_test(secrets),
        cmocka_unit_test(store_urls),
        cmocka_unit_test(other_variables),
        cmocka_unit_test(help_is_asked_for),
        cmocka_unit_test(help_text),
        cmocka_unit_test(bounds),
    };

    return cmocka_run_group_tests_name("options", tests, NULL, tear_down);
}

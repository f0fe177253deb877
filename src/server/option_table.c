/*
 * option_table.c - the flags of `t4 run`, each once, and the texts made of them.
 *
 * A flag is added here and nowhere else; sql-like-docs/ref/t4-run.md must then say so, too
 * (a test compares them).  Also the flags of etcd, and of later versions of t4, that are
 * refused with a reason rather than as unknown.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "fmt/objects.h"
#include "server/options.h"

#include <stddef.h>
#include <string.h>

#define NS_PER_S INT64_C(1000000000)
#define AT(member) offsetof(struct run_options, member)

const char *const option_group_title[GROUP_COUNT] = {
    "Data", "Object store", "Clients", "Limits", "Keepalive of connections", "Operation",
};

const struct option_row option_table[] = {
    {"data-dir", OPTION_TEXT, GROUP_DATA, AT(data_dir), "DIR", "/var/lib/t4", 0, 0,
     "a path of 1 to 3900 bytes",
     "Directory of the log, the storage engine and the server's identity; made if "
     "need be. One server at a time uses it."},
    {"storage-engine", OPTION_TEXT, GROUP_DATA, AT(storage_engine), "NAME", "lmdb", 0, 0,
     "lmdb, memory, or the name of a plugin with a storage engine",
     "Engine that holds what the log says, as a cache; memory is built in and "
     "refilled from the log at each start."},
    {"plugin-dir", OPTION_TEXT, GROUP_DATA, AT(plugin_dir), "DIR", NULL, 0, 0,
     "a path of 1 to 3900 bytes",
     "Folder of the plugins' files. Default: plugins beside the program if it is "
     "there, else the installed folder."},
    {"plugin-option", OPTION_SETTINGS, GROUP_DATA, 0, "PLUGIN.NAME=VALUE", NULL, 0, 0,
     "PLUGIN.NAME=VALUE, such as lmdb.map_size=64GB",
     "Setting of the storage engine's plugin; may be repeated. In the variable, "
     "commas separate several. Default: none."},
    {"segment-max-size-mb", OPTION_INT, GROUP_DATA, AT(segment_max_size_mb), "N", "16", 1,
     1024, NULL,
     "Size of a segment of the log in MiB; segments are filled with zeros ahead of "
     "need."},
    {"segment-max-age-sec", OPTION_INT, GROUP_DATA, AT(segment_max_age_sec), "SECONDS",
     "0", 0, 31536000, NULL,
     "Age at which a segment is closed although it is not full; 0: never."},
    {"moved", OPTION_BOOL, GROUP_DATA, AT(moved), NULL, "false", 0, 1, NULL,
     "Says that the data directory was moved here and the original is gone. Without "
     "it a copied directory is refused."},

    {"from-snapshot", OPTION_TEXT, GROUP_DATA, AT(from_snapshot), "FILE", NULL, 0, 0,
     "a path of 1 to 3900 bytes",
     "Begins with the state of a snapshot of t4 or of etcd 3.4 to 3.6, on an empty data "
     "directory and, with --object-store, an empty store. Default: none."},
    {"skip-hash-check", OPTION_BOOL, GROUP_DATA, AT(skip_hash_check), NULL, "false", 0, 1,
     NULL,
     "Takes a file for --from-snapshot that has no hash at its end, or another one: the "
     "database file of an etcd member."},

    {"object-store", OPTION_TEXT, GROUP_STORE, AT(object_store), "URL", NULL, 0, 0,
     "s3://bucket/prefix, gs://bucket/prefix or file:///path",
     "Where the log is kept besides the disk, so that the disk can be lost. Default: the "
     "built-in store, a folder of the data directory."},
    {"wal-sync-upload", OPTION_BOOL, GROUP_STORE, AT(wal_sync_upload), NULL, "true", 0, 1,
     NULL,
     "true: a write is acknowledged when it is in the object store. false: when it is on "
     "this "
     "disk; it is uploaded later, and a lost disk loses what was not."},
    {"upload-max-age", OPTION_DURATION, GROUP_STORE, AT(upload_max_age_ns), "DURATION",
     "10s", NS_PER_S / 100, 3600 * NS_PER_S, NULL,
     "With --wal-sync-upload=false, or the built-in store: longest time that a write "
     "waits for its upload."},
    {"upload-window", OPTION_INT, GROUP_STORE, AT(upload_window), "N", "2", 1, WINDOW_MAX,
     NULL,
     "Segments of the log on their way into the store at once. More: writes wait less "
     "for "
     "each other's uploads; fewer: fewer requests to pay."},
    {"upload-segment-size", OPTION_SIZE, GROUP_STORE, AT(upload_segment_bytes), "SIZE",
     "4MiB", 64 << 10, 8 << 20, NULL,
     "Entries that a segment in the store holds, before compression, when more of them "
     "wait than go into one."},
    {"checkpoint-interval", OPTION_DURATION, GROUP_STORE, AT(checkpoint_interval_ns),
     "DURATION", "15m", NS_PER_S / 10, 86400 * NS_PER_S, NULL,
     "Longest time that a write waits until a checkpoint in the store holds it; none is "
     "made "
     "while nothing is written."},
    {"checkpoint-bytes", OPTION_SIZE, GROUP_STORE, AT(checkpoint_bytes), "SIZE", "64MiB",
     65536, INT64_C(1) << 40, NULL,
     "A checkpoint is made after so much log, at most one a minute (or one in each "
     "interval, "
     "if "
     "that is shorter)."},
    {"history-retention", OPTION_DURATION, GROUP_STORE, AT(history_retention_ns),
     "DURATION", "24h", 0, 3650 * 86400 * NS_PER_S, NULL,
     "How far back the store keeps checkpoints and the log; at least two checkpoints are "
     "kept. The built-in store keeps no more than these unless this is given."},
    {"wal-keep-bytes", OPTION_SIZE, GROUP_DATA, AT(wal_keep_bytes), "SIZE", "1GiB", 0,
     INT64_C(1) << 44, NULL,
     "So much of the log stays on the disk for watches that begin in the past, when a "
     "checkpoint "
     "and the storage engine hold it."},
    {"take-over-now", OPTION_BOOL, GROUP_STORE, AT(take_over_now), NULL, "false", 0, 1,
     NULL,
     "Takes the store over from whoever leads it, without waiting: for when that server "
     "and its "
     "disk are gone. If it uploaded asynchronously, what it had not uploaded is lost."},
    {"discard-divergent-tail", OPTION_BOOL, GROUP_STORE, AT(discard_divergent_tail), NULL,
     "false", 0, 1, NULL,
     "Writes acknowledged by this disk that the store's history does not contain are "
     "saved to a "
     "file and given up, instead of refusing to start."},
    {"leadership-lease", OPTION_DURATION, GROUP_STORE, AT(leadership_lease_ns),
     "DURATION", "6s", NS_PER_S / 2, 600 * NS_PER_S, NULL,
     "How long one renewal in the store proves leadership to linearizable reads and "
     "keepalives; "
     "renewed while they come."},
    {"object-store-timeout", OPTION_DURATION, GROUP_STORE, AT(store_timeout_ns),
     "DURATION", "20s", NS_PER_S, 600 * NS_PER_S, NULL,
     "How long one request to the store may take before it counts as not answered."},
    {"object-store-unsafe", OPTION_BOOL, GROUP_STORE, AT(object_store_unsafe), NULL,
     "false", 0, 1, NULL,
     "Uses a store that failed the start-up probe. For experiments: two servers on it "
     "destroy "
     "each other's log."},
    {"s3-bucket", OPTION_TEXT, GROUP_STORE, AT(s3_bucket), "NAME", NULL, 0, 0,
     "the name of a bucket",
     "With --s3-prefix another way to write --object-store=s3://..."},
    {"s3-prefix", OPTION_TEXT, GROUP_STORE, AT(s3_prefix), "PREFIX", NULL, 0, 0,
     "a prefix of keys", "See --s3-bucket."},
    {"s3-endpoint", OPTION_TEXT, GROUP_STORE, AT(s3_endpoint), "URL", NULL, 0, 0,
     "http://host:port or https://host", "A service other than Amazon's."},
    {"s3-region", OPTION_TEXT, GROUP_STORE, AT(s3_region), "REGION", NULL, 0, 0,
     "a region such as eu-central-1",
     "The bucket's region. Default: as AWS's tools find it."},
    {"s3-profile", OPTION_TEXT, GROUP_STORE, AT(s3_profile), "NAME", NULL, 0, 0,
     "a profile of AWS's shared files", "Whose credentials are used."},
    {"s3-access-key-id", OPTION_TEXT, GROUP_STORE, AT(s3_access_key_id), "ID", NULL, 0, 0,
     "an access key", "With the secret access key: credentials before all others."},
    {"s3-secret-access-key", OPTION_SECRET, GROUP_STORE, AT(s3_secret_access_key),
     "SECRET", NULL, 0, 0, "a secret",
     "By the variable only, as the command line can be seen."},
    {"s3-session-token", OPTION_SECRET, GROUP_STORE, AT(s3_session_token), "TOKEN", NULL,
     0, 0, "a token", "Of temporary credentials. By the variable only."},
    {"s3-ca-bundle", OPTION_TEXT, GROUP_STORE, AT(s3_ca_bundle), "FILE", NULL, 0, 0,
     "a file of PEM certificates", "What the service's certificate is checked against."},
    {"gcs-credentials-file", OPTION_TEXT, GROUP_STORE, AT(gcs_credentials_file), "FILE",
     NULL, 0, 0, "a service account's key file", "Credentials for gs://; see the guide."},
    {"gcs-endpoint", OPTION_TEXT, GROUP_STORE, AT(gcs_endpoint), "URL", NULL, 0, 0,
     "http://host:port or https://host", "A service other than Google's."},

    {"listen", OPTION_TEXT, GROUP_CLIENTS, AT(listen_text), "ADDRESS[,ADDRESS...]",
     "127.0.0.1:3379", 0, 0, "up to 16 of host:port, [IPv6]:port, unix:/path",
     "Where clients connect, by gRPC and by HTTP/1.1. An empty host means 0.0.0.0. There "
     "is "
     "neither TLS nor authentication: whoever reaches the address may do everything."},
    {"unix-socket-mode", OPTION_TEXT, GROUP_CLIENTS, AT(unix_socket_mode_text), "MODE",
     "0600", 0, 0, "four octal digits from 0600 to 0777",
     "Permissions of the unix sockets of --listen and --metrics-addr."},
    {"advertise-client-urls", OPTION_TEXT, GROUP_CLIENTS, AT(advertise_client_urls),
     "URL[,URL...]", NULL, 0, 0, "http://host:port, https://host:port or unix://path",
     "URLs that clients are told in the list of members. Default: made of --listen; "
     "0.0.0.0 and [::] become the host's name."},
    {"node-id", OPTION_TEXT, GROUP_CLIENTS, AT(node_id), "NAME", NULL, 0, 0,
     "1 to 255 printable ASCII characters without blanks",
     "Name of this server in the list of members. Default: the host's name."},
    {"read-consistency", OPTION_CHOICE, GROUP_CLIENTS, AT(read_consistency), "LEVEL",
     "linearizable", 0, 0, "linearizable|serializable",
     "How reads are answered that do not ask for serializable themselves. With one "
     "server both show the newest committed state."},

    {"max-request-bytes", OPTION_SIZE, GROUP_LIMITS, AT(max_request_bytes), "SIZE",
     "1.5MiB", 1024, INT64_C(64) << 20, NULL,
     "Largest request that writes; a larger one gets \"request is too large\"."},
    {"max-txn-ops", OPTION_INT, GROUP_LIMITS, AT(max_txn_ops), "N", "128", 1, 65536, NULL,
     "Most operations in one list of a transaction."},
    {"quota-backend-bytes", OPTION_SIZE, GROUP_LIMITS, AT(quota_backend_bytes), "SIZE",
     "0", INT64_MIN, INT64_MAX, "a size; 0: 2GiB; a negative number: no quota",
     "Bytes that the storage engine may hold. A write that would exceed them raises the "
     "alarm NOSPACE, under which puts and grants are refused until it is taken down."},
    {"auto-compaction-mode", OPTION_CHOICE, GROUP_OPERATION, AT(auto_compaction_mode),
     "MODE", "periodic", 0, 0, "periodic|revision",
     "What --auto-compaction-retention counts: time or revisions."},
    {"auto-compaction-retention", OPTION_TEXT, GROUP_OPERATION,
     AT(auto_compaction_retention_text), "RETENTION", "0", 0, 0,
     "hours or a duration such as 10m; with mode revision a number of revisions; 0: off",
     "How much history is kept; what is older is compacted by the server itself."},
    {"max-concurrent-streams", OPTION_INT, GROUP_LIMITS, AT(max_concurrent_streams), "N",
     "4294967295", 1, UINT32_MAX, NULL,
     "Most calls that one connection may have open at a time, watches included; clients "
     "are told and wait."},
    {"max-connections", OPTION_INT, GROUP_LIMITS, AT(max_connections), "N", "0", 0,
     10000000, NULL,
     "Most open connections; more are closed at once. 0: as many as the limit of open "
     "files leaves room for, at most 65536."},
    {"max-request-memory", OPTION_SIZE, GROUP_LIMITS, AT(max_request_memory), "SIZE",
     "1GiB", INT64_C(64) << 20, INT64_C(1) << 40, NULL,
     "Memory for requests that are not complete yet and for open streams, of all "
     "connections; beyond it streams are cut off."},
    {"watch-progress-notify-interval", OPTION_DURATION, GROUP_LIMITS,
     AT(watch_progress_ns), "DURATION", "10m", NS_PER_S / 10, 86400 * NS_PER_S, NULL,
     "How often an idle watch that asked for it is told the current revision."},
    {"threads", OPTION_INT, GROUP_LIMITS, AT(threads), "N", "1", 1, 64, NULL,
     "Threads that serve connections. One is best on up to 4 cores; more cost CPU for "
     "each request."},

    {"grpc-keepalive-min-time", OPTION_DURATION, GROUP_KEEPALIVE,
     AT(keepalive_min_time_ns), "DURATION", "5s", 0, 86400 * NS_PER_S, NULL,
     "Least time between two pings of a client; one that pings more often is cut off."},
    {"grpc-keepalive-interval", OPTION_DURATION, GROUP_KEEPALIVE,
     AT(keepalive_interval_ns), "DURATION", "2h", 0, 30 * 86400 * NS_PER_S, NULL,
     "How long a connection may be silent before the server pings it; 0: no pings."},
    {"grpc-keepalive-timeout", OPTION_DURATION, GROUP_KEEPALIVE, AT(keepalive_timeout_ns),
     "DURATION", "20s", NS_PER_S / 10, 3600 * NS_PER_S, NULL,
     "How long the server waits for the answer to its ping before it closes the "
     "connection."},
    {"grpc-keepalive-permit-without-stream", OPTION_BOOL, GROUP_KEEPALIVE,
     AT(keepalive_permit_without_stream), NULL, "true", 0, 1, NULL,
     "Whether a client may ping while it has no stream open."},

    {"log-level", OPTION_CHOICE, GROUP_OPERATION, AT(log_level), "LEVEL", "info", 0, 0,
     "error|warn|info|debug", "How much is logged on standard error."},
    {"log-format", OPTION_CHOICE, GROUP_OPERATION, AT(log_format), "FORMAT", "text", 0, 0,
     "text|json|console",
     "One line of text or one JSON object per event; console is etcd's word for text."},
    {"metrics-addr", OPTION_TEXT, GROUP_OPERATION, AT(metrics_text),
     "ADDRESS[,ADDRESS...]", "127.0.0.1:3381", 0, 0,
     "off, or up to 16 of host:port, [IPv6]:port, unix:/path",
     "Where /metrics, /livez and /readyz are served, from the first moment of the start; "
     "off: on the addresses of --listen only, once clients are served."},
    {"metrics", OPTION_CHOICE, GROUP_OPERATION, AT(extensive_metrics), "LEVEL", "basic",
     0, 0, "basic|extensive",
     "extensive: /metrics has the time of each gRPC call, too; costs two looks at the "
     "clock "
     "per call."},
    {"shutdown-grace", OPTION_DURATION, GROUP_OPERATION, AT(shutdown_grace_ns),
     "DURATION", "5s", 0, 600 * NS_PER_S, NULL,
     "Longest time that a stop waits for requests that are being answered."},
};

_Static_assert(sizeof option_table / sizeof option_table[0] <= OPTION_MAX_ROWS,
               "parsing has an array of this size");
const size_t option_count = sizeof option_table / sizeof option_table[0];

/* --- refused flags ------------------------------------------------------------------ */

#define ABSENT ", which this version does not have: "
#define NO_TLS                                                                           \
    "TLS" ABSENT "listen on loopback or on a unix socket, or put a TLS proxy in front"
#define NO_AUTH                                                                          \
    "users and roles" ABSENT "limit who can connect, by loopback, a unix socket or a "   \
    "firewall"
#define NO_CLUSTER "a cluster" ABSENT "it serves alone, from one data directory"
#define NO_BRANCH "branches" ABSENT "a data directory has one history"
#define NO_CHECKPOINT                                                                    \
    "this setting of checkpoints" ABSENT                                                 \
    "--checkpoint-interval and --checkpoint-bytes say when they are made"

/* In the order in which they are looked at; a star at the end stands for anything. */
static const struct {
    const char *name, *needs;
} refused[] = {
    {"client-tls-*", NO_TLS},
    {"peer-tls-*", NO_TLS},
    {"tls-*", NO_TLS},
    {"cert-file", NO_TLS},
    {"key-file", NO_TLS},
    {"trusted-ca-file", NO_TLS},
    {"client-cert-auth", NO_TLS},
    {"auto-tls", NO_TLS},
    {"auth", NO_AUTH},
    {"auth-*", NO_AUTH},
    {"token-ttl", NO_AUTH},
    {"peer-*", NO_CLUSTER},
    {"advertise-peer", NO_CLUSTER},
    {"leader-watch-interval-sec", NO_CLUSTER},
    {"follower-*", NO_CLUSTER},
    {"initial-*", NO_CLUSTER},
    {"listen-peer-urls", NO_CLUSTER},
    {"branch-*", NO_BRANCH},
    {"clone", NO_BRANCH},
    {"checkpoint-*", NO_CHECKPOINT},
};

const char *
option_refusal(const char *name)
{
    for (size_t i = 0; i < sizeof refused / sizeof refused[0]; i++) {
        size_t n = strlen(refused[i].name);

        if (refused[i].name[n - 1] == '*' ? strncmp(name, refused[i].name, n - 1) == 0
                                          : strcmp(name, refused[i].name) == 0)
            return refused[i].needs;
    }
    return NULL;
}

/* etcd's names of flags that mean the same here: they are the flag. */
static const char *const alias[][2] = {
    {"name", "node-id"},
    {"listen-client-urls", "listen"},
    {"listen-metrics-urls", "metrics-addr"},
};

const char *
option_alias(const struct option_row *row)
{
    for (size_t i = 0; i < sizeof alias / sizeof alias[0]; i++)
        if (strcmp(row->name, alias[i][1]) == 0)
            return alias[i][0];
    return NULL;
}

const struct option_row *
option_find(const char *name, size_t n)
{
    for (size_t i = 0; i < option_count; i++) {
        const char *other = option_alias(&option_table[i]);

        if ((strlen(option_table[i].name) == n &&
             memcmp(option_table[i].name, name, n) == 0) ||
            (other != NULL && strlen(other) == n && memcmp(other, name, n) == 0))
            return &option_table[i];
    }
    return NULL;
}

/* --- texts -------------------------------------------------------------------------- */

void
option_variable(const char *name, char *out, size_t n)
{
    snprintf(out, n, "T4_%s", name);
    for (char *p = out; *p != '\0'; p++)
        *p = *p == '-' ? '_' : *p >= 'a' && *p <= 'z' ? (char)(*p - 'a' + 'A') : *p;
}

/* "a|b|c" to "a, b or c". */
static void
format_choices(const char *choices, char *out, size_t n)
{
    size_t used = 0;

    for (const char *p = choices; *p != '\0' && used + 4 < n; p++) {
        const char *between = strchr(p + 1, '|') != NULL ? ", " : " or ";

        if (*p == '|')
            used += (size_t)snprintf(out + used, n - used, "%s", between);
        else
            out[used++] = *p;
    }
    out[used] = '\0';
}

void
option_range(const struct option_row *row, char *out, size_t n)
{
    char least[32], most[32];

    switch (row->type) {
    case OPTION_TEXT:
    case OPTION_SECRET:
    case OPTION_SETTINGS: snprintf(out, n, "%s", row->choices); return;
    case OPTION_CHOICE: format_choices(row->choices, out, n); return;
    case OPTION_BOOL: snprintf(out, n, "true or false"); return;
    case OPTION_INT:
        snprintf(least, sizeof least, "%lld", (long long)row->min);
        snprintf(most, sizeof most, "%lld", (long long)row->max);
        break;
    case OPTION_SIZE:
        if (row->choices != NULL) { /* numbers with a meaning of their own */
            snprintf(out, n, "%s", row->choices);
            return;
        }
        value_format_size(row->min, least, sizeof least);
        value_format_size(row->max, most, sizeof most);
        break;
    case OPTION_DURATION:
        value_format_duration(row->min, least, sizeof least);
        value_format_duration(row->max, most, sizeof most);
        break;
    }
    snprintf(out, n, "%s to %s", least, most);
}

/* Words of `text` in lines of at most 80 columns, indented. */
static void
print_wrapped(FILE *out, const char *text)
{
    size_t column = 0;

    while (*text != '\0') {
        size_t n = strcspn(text, " ");

        if (column == 0 || column + 1 + n > 80)
            column = (size_t)fprintf(out, "%s        ", column == 0 ? "" : "\n") -
                     (column != 0);
        else
            column += (size_t)fprintf(out, " ");
        column += (size_t)fprintf(out, "%.*s", (int)n, text);
        text += n;
        text += strspn(text, " ");
    }
    fprintf(out, "\n");
}

static void
print_option(FILE *out, const struct option_row *row)
{
    char variable[OPTION_NAME_BYTES], range[160];
    char tail[512];

    fprintf(out, "  --%s", row->name);
    if (row->placeholder != NULL)
        fprintf(out, "=%s", row->placeholder);
    fprintf(out, "\n");
    print_wrapped(out, row->help);
    if (option_alias(row) != NULL)
        fprintf(out, "        As in etcd: --%s\n", option_alias(row));
    option_variable(row->name, variable, sizeof variable);
    option_range(row, range, sizeof range);
    if (row->default_text != NULL)
        snprintf(tail, sizeof tail, "[%s; default %s; valid: %s]", variable,
                 row->default_text, range);
    else
        snprintf(tail, sizeof tail, "[%s; valid: %s]", variable, range);
    print_wrapped(out, tail);
}

void
run_options_help(FILE *out)
{
    fprintf(
        out,
        "t4 run - serves one data directory to etcd clients, until SIGTERM or SIGINT\n"
        "\n"
        "Usage: t4 run [--FLAG=VALUE | --FLAG VALUE]...\n"
        "\n"
        "Each flag has an environment variable. The flag goes before the variable, the\n"
        "variable before the default; an empty variable counts as not set. Sizes are\n"
        "written 512KiB, 1.5MiB, 2GiB; durations 500ms, 10s, 5m, 1h30m.\n");
    for (int group = 0; group < GROUP_COUNT; group++) {
        fprintf(out, "\n%s\n", option_group_title[group]);
        for (size_t i = 0; i < option_count; i++) {
            if ((int)option_table[i].group == group)
                print_option(out, &option_table[i]);
        }
    }
    fprintf(out,
            "\nThe status is 0 after a stop by signal, 1 after a failure, 2 when the\n"
            "command line or a variable is wrong.\n");
}

void
run_options_table(FILE *out)
{
    char variable[OPTION_NAME_BYTES], range[160];

    for (size_t i = 0; i < option_count; i++) {
        const struct option_row *row = &option_table[i];

        option_variable(row->name, variable, sizeof variable);
        option_range(row, range, sizeof range);
        fprintf(out, "--%s\t%s\t%s\t%s\t%s\t%s\n", row->name, variable,
                row->default_text != NULL ? row->default_text : "", range,
                option_alias(row) != NULL ? option_alias(row) : "", row->help);
    }
}

/*
 * run.c - `t4 run`: starts the parts in order, waits for a signal, stops them in order.
 *
 * Start: options -> log -> metrics and health -> storage engine's plugin -> store -> snapshot
 * (with --from-snapshot) -> node (locks the data directory, recovers) -> gRPC.  Stop: not
 * ready any more -> gRPC (polite, within --shutdown-grace) -> node -> plugin -> metrics and
 * health.
 *
 * Signals reach the main thread only; all other threads are started with them blocked.
 *   while starting   SIGTERM, SIGINT, SIGHUP end the process at once: nothing was
 *                    acknowledged, and recovery may be cut off anywhere (I4)
 *   while serving    they begin the stop
 *   while stopping   another one ends the process at once, with a failure
 *   SIGUSR1, SIGUSR2 with T4_TEST_HOLD_SYNC=1 in the environment: hold and release the
 *                    log's sync thread, for tests; else ignored
 *
 * Invariant: after a fatal report of the node nothing is written any more; the process ends
 * where it stands (I2).
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "server/run.h"

#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "api/grpc/grpc.h"
#include "api/http/http.h"
#include "api/listen/listen.h"
#include "backends/backends.h"
#include "base/log.h"
#include "env/env.h"
#include "node/node.h"
#include "server/descriptors.h"
#include "server/from_snapshot.h"
#include "server/options.h"
#include "server/systemd.h"

/*
 * Twice the library's.  A flush rewrites the page of each key that was written, so the more versions of
 * a key it takes at once, the cheaper is each: 2.2 us of 20 per put for 10,000 keys written all the time.
 */
#define MEMTABLE_BYTES ((uint64_t)32 << 20)
#define NS_PER_S UINT64_C(1000000000)
/* A connection that has not said by then what it wants is closed. */
#define GREETING_NS (10 * NS_PER_S)
/* Who is silent for so long is sent settings of HTTP/2: it may wait for them. */
#define SILENCE_NS (1 * NS_PER_S)
/* What an idle connection counts in the core's memory, and something more. */
#define CONNECTION_BYTES 16384u
#define MIB UINT64_C(1048576)

struct server {
    struct run_options options;
    struct listen *listen;
    uint32_t max_connections;
    struct http_server *http;
    struct backends backends;
    struct node *node;
    struct grpc_api *api;
};

static void
report(const struct error *e)
{
    if (e->hint[0] != '\0')
        LOG_ERROR(e->message, "hint", e->hint, NULL);
    else
        LOG_ERROR(e->message, NULL);
}

/* --- signals ------------------------------------------------------------------------ */

/* What a signal does that interrupts the main thread; set before it is unblocked. */
static volatile sig_atomic_t exit_status_on_signal;
static const char *volatile words_on_signal;

static void
exit_at_once(int number)
{
    const char *words = words_on_signal;
    ssize_t ignored;

    (void)number;
    ignored = write(STDERR_FILENO, words, strlen(words));
    (void)ignored;
    _exit(exit_status_on_signal);
}

/* The gRPC library calls abort() without a word when malloc() fails. */
static void
say_abort(int ignored)
{
    static const char words[] =
        "t4: ended by abort(): the line above says why; if none does, "
        "a library found no memory\n";

    (void)ignored;
    if (write(STDERR_FILENO, words, sizeof words - 1) < 0)
        return; /* and abort() ends the process */
}

static void
set_of_stop_signals(sigset_t *set)
{
    sigemptyset(set);
    sigaddset(set, SIGTERM);
    sigaddset(set, SIGINT);
    sigaddset(set, SIGHUP);
}

static bool
test_hold_enabled(void)
{
    const char *value = getenv("T4_TEST_HOLD_SYNC");

    return value != NULL && strcmp(value, "1") == 0;
}

/* Called before any other thread exists, so that all of them inherit the mask. */
static void
prepare_signals(void)
{
    const int stop[] = {SIGTERM, SIGINT, SIGHUP};
    struct sigaction action = {.sa_handler = exit_at_once}, old;
    sigset_t set;

    for (size_t i = 0; i < sizeof stop / sizeof stop[0]; i++) {
        /* A hangup that nohup(1) has had ignored stays ignored. */
        if (stop[i] == SIGHUP && sigaction(SIGHUP, NULL, &old) == 0 &&
            old.sa_handler == SIG_IGN)
            continue;
        sigaction(stop[i], &action, NULL);
    }
    signal(SIGPIPE, SIG_IGN);
    signal(SIGABRT, say_abort);
    set_of_stop_signals(&set);
    if (test_hold_enabled()) {
        sigaddset(&set, SIGUSR1);
        sigaddset(&set, SIGUSR2);
    } else {
        signal(SIGUSR1, SIG_IGN);
        signal(SIGUSR2, SIG_IGN);
    }
    pthread_sigmask(SIG_BLOCK, &set, NULL);
}

/* From here on a stop signal ends the process.  Log lines of its own kind, without a time. */
static void
let_signals_exit(const struct run_options *o, int status, const char *text,
                 const char *json)
{
    sigset_t set;

    exit_status_on_signal = status;
    words_on_signal = o->log_format == 1 ? json : text;
    set_of_stop_signals(&set);
    pthread_sigmask(SIG_UNBLOCK, &set, NULL);
}

static void
hold_signals(void)
{
    sigset_t set;

    set_of_stop_signals(&set);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
}

/*
 * The next signal.  Meanwhile a watchdog that systemd has set is told that the server lives,
 * which is so if its state can be read: the locks of the commit pipeline are free.
 */
static int
next_signal(struct server *s, const sigset_t *set)
{
    uint64_t every = systemd_watchdog_ns();
    const struct timespec wait = {(time_t)(every / NS_PER_S), (long)(every % NS_PER_S)};
    struct node_status status;
    int number;

    for (;;) {
        if (every > 0) {
            node_status(s->node, &status);
            systemd_notify("WATCHDOG=1");
        }
        number = every > 0 ? sigtimedwait(set, NULL, &wait) : sigwaitinfo(set, NULL);
        if (number > 0)
            return number;
    }
}

/* Returns when the server shall stop. */
static void
wait_for_stop(struct server *s)
{
    bool hold = test_hold_enabled();
    sigset_t set;
    int number;

    set_of_stop_signals(&set);
    if (hold) {
        sigaddset(&set, SIGUSR1);
        sigaddset(&set, SIGUSR2);
    }
    for (;;) {
        number = next_signal(s, &set);
        if (number == SIGUSR1 || number == SIGUSR2) {
            node_hold_sync(s->node, number == SIGUSR1);
            LOG_WARN(number == SIGUSR1 ? "test: the log's sync is held"
                                       : "test: the log's sync is released",
                     NULL);
            continue;
        }
        LOG_INFO("stopping", "signal", sigabbrev_np(number), NULL);
        return;
    }
}

/* --- starting ----------------------------------------------------------------------- */

/* On any thread. */
static void
fatal(void *arg, const struct error *error)
{
    (void)arg;
    report(error);
    _exit(EXIT_FAILED);
}

/* Another server leads.  This one stays, so that somebody sees why. */
static void
deposed(void *arg, const struct error *why)
{
    (void)arg;
    LOG_ERROR(
        "deposed: nothing is acknowledged any more; only old state can be read here",
        "reason", why->message, "hint", why->hint, NULL);
}

static void
set_state(struct server *s, enum http_state state, const char *reason)
{
    char status[300];

    if (s->http != NULL)
        http_set_state(s->http, state, reason);
    if (state == HTTP_STARTING) {
        snprintf(status, sizeof status, "STATUS=Starting: %s", reason);
        systemd_notify(status);
    }
}

/* Whoever reaches the address may do everything: say so, for each address. */
static void
warn_of_exposure(const struct run_options *o)
{
    char text[ADDRESS_TEXT_BYTES];

    for (size_t i = 0; i < o->n_listen; i++) {
        if (o->listen[i].is_private)
            continue;
        address_format(&o->listen[i], text, sizeof text);
        LOG_WARN(
            "listening beyond this machine without TLS and without authentication",
            "address", text, "risk",
            "whoever reaches this address can read, change and delete everything, and "
            "the traffic can be read on its way",
            "remedy",
            "listen on 127.0.0.1 or unix:/path, or let a firewall or a TLS proxy decide "
            "who may connect",
            NULL);
    }
}

/* On the accepting thread. */
static void
take_http(void *arg, enum listen_for which, int fd)
{
    struct server *s = arg;

    http_add_connection(s->http, which == LISTEN_FOR_CLIENTS, fd);
}

static void
take_grpc(void *arg, enum listen_for which, int fd)
{
    struct server *s = arg;

    (void)which;
    grpc_api_connect(s->api, fd);
}

static t4_status
open_addresses(struct server *s, enum listen_for which, const struct address *addresses,
               size_t n, const char *flag, struct error *error)
{
    t4_status st = T4_OK;

    for (size_t i = 0; i < n && st == T4_OK; i++) {
        const struct listen_address a = {addresses[i].host, addresses[i].port,
                                         addresses[i].fd};

        st = listen_open(s->listen, which, &a, flag, error);
    }
    return st;
}

static t4_status
start_http(struct server *s, struct error *error)
{
    const struct run_options *o = &s->options;
    struct listen_options options = {.greeting_ns = GREETING_NS,
                                     .silence_ns = SILENCE_NS,
                                     .unix_mode = o->unix_socket_mode,
                                     .unacknowledged_ns =
                                         (uint64_t)o->keepalive_timeout_ns};
    t4_status st = descriptors_plan(o->max_connections, &s->max_connections, error);

    options.max_connections = s->max_connections;
    if (st == T4_OK)
        st = listen_start(&options, &s->listen, error);
    if (st == T4_OK)
        st = http_start(&s->http, error);
    if (st != T4_OK)
        return st;
    http_add_metrics(s->http, listen_render_metrics, s->listen);
    listen_serve_http(s->listen, take_http, s);
    return open_addresses(s, LISTEN_FOR_PROBES, o->metrics, o->n_metrics, "metrics-addr",
                          error);
}

static t4_status
open_backends(struct server *s, struct error *error)
{
    const struct run_options *o = &s->options;
    struct backends_options options = {
        .data_dir = o->data_dir,
        .plugin_dir = o->plugin_dir,
        .storage_engine = o->storage_engine,
        .engine_settings = o->settings,
        .n_engine_settings = o->n_settings,
        .object_store = o->object_store,
        .store_settings = o->store_settings,
        .n_store_settings = o->n_store_settings,
    };
    t4_status st;

    set_state(s, HTTP_STARTING, "loading the storage engine's plugin");
    st = backends_load_engine(&s->backends, &options, error);
    if (st != T4_OK)
        return st;
    set_state(s, HTTP_STARTING, "opening the object store");
    return backends_open_store(&s->backends, &options, error);
}

static t4_status
open_node(struct server *s, struct error *error)
{
    const struct run_options *o = &s->options;
    struct node_options options;
    t4_status st;

    node_options_default(&options);
    options.memtable_bytes = MEMTABLE_BYTES;
    options.env = env_posix();
    options.data_dir = o->data_dir;
    options.name = o->node_id;
    options.advertise_urls = o->advertise_client_urls;
    options.engine_name = o->storage_engine;
    if (s->backends.engine_plugin != NULL) {
        options.engine_ops = &s->backends.engine_ops;
        options.engine_plugin = plugin_state(s->backends.engine_plugin);
    }
    options.moved = o->moved != 0;
    options.segment_bytes = (uint64_t)o->segment_max_size_mb * MIB;
    options.segment_age_ns = (uint64_t)o->segment_max_age_sec * NS_PER_S;
    options.max_request_bytes = (uint32_t)o->max_request_bytes;
    options.max_txn_ops = (uint32_t)o->max_txn_ops;
    options.watch_progress_ns = (uint64_t)o->watch_progress_ns;
    if (o->quota_backend_bytes != 0)
        options.quota_bytes = o->quota_backend_bytes;
    options.auto_compaction =
        o->auto_compaction_mode == 0 ? COMPACTOR_PERIODIC : COMPACTOR_REVISION;
    options.auto_compaction_retention = (uint64_t)o->auto_compaction_retention;
    options.fatal = fatal;
    options.fatal_arg = s;
    options.store = s->backends.store;
    options.store_is_built_in = o->object_store == NULL;
    options.commit_rule =
        o->wal_sync_upload && !options.store_is_built_in ? RULE_OBJECT : RULE_LOCAL;
    options.take_over_now = o->take_over_now != 0;
    options.discard_divergent_tail = o->discard_divergent_tail != 0;
    options.unsafe_store = o->object_store_unsafe != 0;
    options.lease_ms = (uint64_t)o->leadership_lease_ns / (NS_PER_S / 1000);
    options.upload_age_ns = (uint64_t)o->upload_max_age_ns;
    options.upload_window = (uint32_t)o->upload_window;
    options.upload_segment_bytes = (uint32_t)o->upload_segment_bytes;
    options.store_timeout_ns = (uint64_t)o->store_timeout_ns;
    options.checkpoint_interval_ns = (uint64_t)o->checkpoint_interval_ns;
    options.checkpoint_bytes = (uint64_t)o->checkpoint_bytes;
    options.history_retention_ns = (uint64_t)o->history_retention_ns;
    options.wal_keep_bytes = (uint64_t)o->wal_keep_bytes;
    options.deposed = deposed;
    options.deposed_arg = s;
    set_state(s, HTTP_STARTING,
              "recovering the log and joining it with the object store");
    st = node_open(&options, &s->node, error);
    if (st == T4_OK && s->http != NULL)
        http_set_node(s->http, s->node);
    return st;
}

static t4_status
start_grpc(struct server *s, struct error *error)
{
    const struct run_options *o = &s->options;
    struct grpc_api_options options;

    grpc_api_options_default(&options);
    options.node = s->node;
    options.threads = (uint32_t)o->threads;
    options.max_request_bytes = (uint32_t)o->max_request_bytes;
    options.max_txn_ops = (uint32_t)o->max_txn_ops;
    options.serializable_reads = o->read_consistency == 1;
    options.keepalive_min_time_ns = (uint64_t)o->keepalive_min_time_ns;
    options.keepalive_interval_ns = (uint64_t)o->keepalive_interval_ns;
    options.keepalive_timeout_ns = (uint64_t)o->keepalive_timeout_ns;
    options.permit_without_stream = o->keepalive_permit_without_stream != 0;
    options.max_concurrent_streams = (uint32_t)o->max_concurrent_streams;
    options.memory_bytes =
        (uint64_t)o->max_request_memory + s->max_connections * (uint64_t)CONNECTION_BYTES;
    set_state(s, HTTP_STARTING, "opening the clients' addresses");
    options.extensive_metrics = o->extensive_metrics == 1;
    s->api = grpc_api_start(&options);
    http_add_metrics(s->http, grpc_api_render_metrics, s->api);
    listen_serve_grpc(s->listen, take_grpc, s);
    return open_addresses(s, LISTEN_FOR_CLIENTS, o->listen, o->n_listen, "listen", error);
}

/* "127.0.0.1:3379,unix:/path" */
static void
append_addresses(struct buffer *out, const struct address *addresses, size_t n)
{
    char text[ADDRESS_TEXT_BYTES];

    for (size_t i = 0; i < n; i++) {
        address_format(&addresses[i], text, sizeof text);
        if (i > 0)
            buffer_append_u8(out, ',');
        buffer_append(out, text, strlen(text));
    }
    buffer_append_u8(out, '\0');
}

/* One line that says where to connect and what is there. */
static void
say_ready(struct server *s)
{
    const struct run_options *o = &s->options;
    struct buffer endpoints = {0}, metrics = {0};
    struct node_status status;
    char revision[24], ready[600];

    append_addresses(&endpoints, o->listen, o->n_listen);
    append_addresses(&metrics, o->metrics, o->n_metrics);
    node_status(s->node, &status);
    snprintf(revision, sizeof revision, "%" PRId64, status.revision);
    set_state(s, HTTP_READY, "");
    LOG_INFO("ready", "endpoints", (const char *)endpoints.data, "revision", revision,
             "data_dir", o->data_dir, "engine", status.engine_name, "metrics",
             o->n_metrics > 0 ? (const char *)metrics.data : "off", NULL);
    snprintf(ready, sizeof ready, "READY=1\nSTATUS=Serving %s",
             (const char *)endpoints.data);
    systemd_notify(ready);
    buffer_free(&endpoints);
    buffer_free(&metrics);
}

/* --- stopping ----------------------------------------------------------------------- */

/* Takes down what is there, also after a start that failed half-way. */
static void
stop(struct server *s)
{
    set_state(s, HTTP_STOPPING, "connections are being ended");
    systemd_notify("STOPPING=1\nSTATUS=Stopping");
    if (s->listen != NULL)
        listen_close(s->listen, LISTEN_FOR_CLIENTS);
    if (s->api != NULL)
        grpc_api_stop(s->api, (uint64_t)s->options.shutdown_grace_ns);
    if (s->node != NULL && test_hold_enabled())
        node_hold_sync(s->node, false);
    if (s->node != NULL)
        node_stop(s->node);
    if (s->api != NULL) {
        http_remove_metrics(s->http, grpc_api_render_metrics);
        grpc_api_free(s->api);
    }
    if (s->http != NULL)
        http_set_node(s->http, NULL);
    if (s->node != NULL)
        node_close(s->node);
    backends_close(&s->backends);
    if (s->http != NULL)
        http_remove_metrics(s->http, listen_render_metrics);
    listen_stop(s->listen);
    http_stop(s->http);
}

static t4_status
start(struct server *s, struct error *error)
{
    t4_status st = start_http(s, error);

    if (st != T4_OK)
        return st;
    let_signals_exit(&s->options, EXIT_OK, "stopped while starting\n",
                     "{\"level\":\"info\",\"message\":\"stopped while starting\"}\n");
    st = open_backends(s, error);
    if (st == T4_OK && s->options.from_snapshot != NULL) {
        set_state(s, HTTP_STARTING, "restoring the snapshot");
        st = from_snapshot(&s->options, s->backends.store, error);
    }
    if (st == T4_OK)
        st = open_node(s, error);
    hold_signals();
    if (st == T4_OK)
        st = start_grpc(s, error);
    return st;
}

static int
serve(struct server *s)
{
    struct error error = {0};
    t4_status st = start(s, &error);

    if (st == T4_OK) {
        say_ready(s);
        wait_for_stop(s);
    } else {
        report(&error);
    }
    let_signals_exit(&s->options, EXIT_FAILED, "stopped by a second signal\n",
                     "{\"level\":\"warn\",\"message\":\"stopped by a second signal\"}\n");
    stop(s);
    if (st == T4_OK)
        LOG_INFO("stopped", NULL);
    return st == T4_OK ? EXIT_OK : EXIT_FAILED;
}

int
server_run(int argc, char *const *argv, char *const *environment)
{
    struct server s = {0};
    struct run_options *o = &s.options;
    struct error error = {0};
    int status = EXIT_OK;

    if (run_options_parse(argc, argv, environment, o, &error) != T4_OK) {
        fprintf(stderr, "t4 run: %s\n", error.message);
        if (error.hint[0] != '\0')
            fprintf(stderr, "  %s\n", error.hint);
        run_options_free(o);
        return EXIT_USAGE;
    }
    if (o->help) {
        run_options_help(stdout);
        run_options_free(o);
        return EXIT_OK;
    }
    log_configure((enum log_level)(LOG_LEVEL_ERROR + o->log_level),
                  o->log_format == 1 ? LOG_FORMAT_JSON : LOG_FORMAT_TEXT);
    umask(077);
    prepare_signals();
    LOG_INFO("starting", "version", T4_VERSION, "settings", o->changed, NULL);
    for (size_t i = 0; i < o->n_warnings; i++)
        LOG_WARN(o->warnings[i], NULL);
    warn_of_exposure(o);
    status = serve(&s);
    run_options_free(o);
    return status;
}

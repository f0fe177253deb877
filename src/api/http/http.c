/*
 * http.c - the HTTP server for metrics and health, over libmicrohttpd.  See http.h.
 *
 * One table lists the paths.  A page is a function that fills a buffer and gives a status;
 * pages are short and hold the lock while they look at the node, which is what lets
 * http_set_node(NULL) promise that nobody uses the node any more.
 *
 * Runs on: the library's thread (answer() and what it calls), callers of http_*().
 *
 * Bounds: connections, bytes of a request's head (the library answers 431 or closes), idle
 * time.  A request with a body is refused: no page takes one.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "api/http/http.h"

#include <errno.h>
#include <inttypes.h>
#include <microhttpd.h>
#include <netinet/in.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "api/http/probes.h"
#include "api/http/process.h"
#include "api/http/status.h"
#include "base/buffer.h"
#include "base/log.h"
#include "base/memory.h"
#include "env/thread.h"
#include "node/node.h"

#define MAX_CONNECTIONS 64u
#define CONNECTION_BYTES ((size_t)16 << 10) /* head of the request and of the answer */
#define IDLE_SECONDS 10u
#define REASON_BYTES 256
#define MORE_METRICS 4

/*
 * Connections of one kind.  Their number is bounded here: libmicrohttpd 0.9.75 locks itself up
 * when a connection that it is given exceeds its own limit.
 */
struct pool {
    struct MHD_Daemon *daemon;
    _Atomic uint32_t n;
};

struct http_server {
    struct pool of_probes, of_clients;
    struct mutex lock;
    enum http_state state;       /* [lock] */
    char reason[REASON_BYTES];   /* [lock] */
    char shown[600];             /* [lock] a reason made of the node's state */
    struct node *node;           /* [lock] may be NULL */
    struct probe_counts *counts; /* [lock] */
    struct {
        http_render *render;
        void *arg;
    } more[MORE_METRICS]; /* [lock] */
};

static void
append(struct buffer *out, const char *text)
{
    buffer_append(out, text, strlen(text));
}

/* --- pages -------------------------------------------------------------------------- */

/* The state that a client is told, with the lock held: alarms of the node degrade it. */
static enum http_state
state_now(struct http_server *s, const char **reason, bool *nospace)
{
    struct node_status status;

    *reason = s->reason;
    *nospace = false;
    if (s->node == NULL)
        return s->state;
    node_status(s->node, &status);
    *nospace = status.nospace;
    if (s->state == HTTP_READY && status.has_store &&
        (status.leadership.state != LEADERSHIP_LEADING || status.leadership.degraded)) {
        snprintf(s->shown, sizeof s->shown, "%s%.*s",
                 status.leadership.state == LEADERSHIP_LEADING   ? "object store: "
                 : status.leadership.state == LEADERSHIP_DEPOSED ? "deposed, "
                                                                 : "",
                 (int)sizeof status.leadership.why, status.leadership.why);
        *reason = s->shown;
        return status.leadership.state == LEADERSHIP_LEADING ? HTTP_DEGRADED
                                                             : HTTP_NOT_LEADING;
    }
    if (s->state == HTTP_READY && status.nospace) {
        *reason =
            status.disk_full
                ? "NOSPACE: the disk is full, writes are refused until there is room"
                : "NOSPACE: writes are refused until the alarm is taken down";
        return HTTP_DEGRADED;
    }
    return s->state;
}

static unsigned
page_alive(struct http_server *s, struct MHD_Connection *c, struct buffer *out)
{
    (void)s;
    (void)c;
    append(out, "ok\n");
    return MHD_HTTP_OK;
}

struct exclusion {
    const char *name;
    bool found;
};

static enum MHD_Result
look_for_exclusion(void *arg, enum MHD_ValueKind kind, const char *key, const char *value)
{
    struct exclusion *e = arg;

    (void)kind;
    e->found = e->found || (strcmp(key, "exclude") == 0 && value != NULL &&
                            strcmp(value, e->name) == 0);
    return e->found ? MHD_NO : MHD_YES;
}

static bool
is_excluded(void *connection, const char *name)
{
    struct exclusion e = {name, false};

    MHD_get_connection_values(connection, MHD_GET_ARGUMENT_KIND, look_for_exclusion, &e);
    return e.found;
}

static enum MHD_Result
look_for_verbose(void *arg, enum MHD_ValueKind kind, const char *key, const char *value)
{
    (void)kind;
    (void)value; /* ?verbose has none */
    if (strcmp(key, "verbose") == 0)
        *(bool *)arg = true;
    return MHD_YES;
}

/* With the lock held. */
static bool
is_corrupt(struct http_server *s)
{
    struct node_status status = {0};

    if (s->node != NULL)
        node_status(s->node, &status);
    return status.corrupt;
}

/* With the lock held. */
static unsigned
answer_probe(struct http_server *s, struct MHD_Connection *c, const char *path,
             struct buffer *out)
{
    const char *serializable =
        MHD_lookup_connection_value(c, MHD_GET_ARGUMENT_KIND, "serializable");
    struct probe_query query = {.serializable = serializable != NULL &&
                                                strcmp(serializable, "true") == 0,
                                .excludes = is_excluded,
                                .arg = c};
    struct probe_view view = {0};

    MHD_get_connection_values(c, MHD_GET_ARGUMENT_KIND, look_for_verbose, &query.verbose);
    view.state = state_now(s, &view.reason, &view.nospace);
    view.corrupt = is_corrupt(s);
    return probe_answer(path, &view, &query, s->counts, out);
}

static unsigned
page_version(struct http_server *s, struct MHD_Connection *c, struct buffer *out)
{
    (void)s;
    (void)c;
    append(out, "{\"etcdserver\":\"" NODE_ETCD_VERSION "\",\"etcdcluster\":\"3.6.0\","
                "\"storage\":\"3.6.0\"}");
    return MHD_HTTP_OK;
}

/* What etcd says as labels of metrics that are always 1. */
static void
render_identity(struct node *node, struct buffer *out)
{
    struct node_status status;

    node_status(node, &status);
    metrics_head(out, "etcd_server_id", "gauge", "This server's member id, as a label");
    metrics_append(out, "etcd_server_id{server_id=\"%" PRIx64 "\"} 1\n",
                   status.member_id);
    metrics_head(out, "etcd_server_version", "gauge",
                 "The etcd that is followed, as a label");
    metrics_append(out,
                   "etcd_server_version{server_version=\"" NODE_ETCD_VERSION "\"} 1\n");
    metrics_head(out, "etcd_cluster_version", "gauge",
                 "Its version as a cluster, as a label");
    metrics_append(out, "etcd_cluster_version{cluster_version=\"3.6\"} 1\n");
}

static unsigned
page_metrics(struct http_server *s, struct MHD_Connection *c, struct buffer *out)
{
    const char *reason;
    bool nospace;
    enum http_state state = state_now(s, &reason, &nospace);

    (void)c;
    append(out,
           "# HELP t4_build_info Version of the server, as a label\n"
           "# TYPE t4_build_info gauge\n"
           "t4_build_info{version=\"" T4_VERSION "\",etcd=\"" NODE_ETCD_VERSION "\"} 1\n"
           "# HELP t4_ready 1 while requests are served (as /readyz)\n"
           "# TYPE t4_ready gauge\n");
    append(out, state == HTTP_READY || state == HTTP_DEGRADED ? "t4_ready 1\n"
                                                              : "t4_ready 0\n");
    process_render(out);
    probe_render_metrics(s->counts, out);
    for (size_t i = 0; i < MORE_METRICS; i++)
        if (s->more[i].render != NULL)
            s->more[i].render(s->more[i].arg, out);
    if (s->node != NULL) {
        render_identity(s->node, out);
        node_refresh_metrics(s->node);
        metrics_render(node_metrics(s->node), out);
    }
    return MHD_HTTP_OK;
}

static unsigned
page_status(struct http_server *s, struct MHD_Connection *c, struct buffer *out)
{
    const char *format = MHD_lookup_connection_value(c, MHD_GET_ARGUMENT_KIND, "format");
    bool text = format != NULL && strcmp(format, "text") == 0;

    if (s->node != NULL) {
        status_render(s->node, text, out);
        return MHD_HTTP_OK;
    }
    append(out,
           text ? "starting or stopping\n" : "{\"state\":\"starting or stopping\"}\n");
    return MHD_HTTP_OK;
}

#define TEXT "text/plain; charset=utf-8"
#define JSON "application/json"

/* The probes of etcd (probes.c) are not in the table. */
static const struct page {
    const char *path, *type;
    unsigned (*render)(struct http_server *, struct MHD_Connection *, struct buffer *);
    bool is_etcds; /* answers GET alone, as there */
} pages[] = {
    {"/metrics", "text/plain; version=0.0.4; charset=utf-8", page_metrics, false},
    {"/healthz", TEXT, page_alive, false},
    {"/version", JSON, page_version, true},
    {"/status", JSON, page_status, false},
};

static const struct page *
page_of(const char *path)
{
    for (size_t i = 0; i < sizeof pages / sizeof pages[0]; i++)
        if (strcmp(path, pages[i].path) == 0)
            return &pages[i];
    return NULL;
}

/* --- requests ----------------------------------------------------------------------- */

static enum MHD_Result
respond(struct MHD_Connection *c, unsigned status, const char *type, const char *allow,
        const void *data, size_t n)
{
    /* The library copies the bytes; the cast is its lack of const. */
    struct MHD_Response *r = MHD_create_response_from_buffer(n, (void *)(uintptr_t)data,
                                                             MHD_RESPMEM_MUST_COPY);
    enum MHD_Result result;

    if (r == NULL)
        return MHD_NO;
    MHD_add_response_header(r, MHD_HTTP_HEADER_CONTENT_TYPE, type);
    MHD_add_response_header(r, MHD_HTTP_HEADER_CACHE_CONTROL, "no-store");
    MHD_add_response_header(r, "X-Content-Type-Options", "nosniff");
    if (allow != NULL)
        MHD_add_response_header(r, MHD_HTTP_HEADER_ALLOW, allow);
    result = MHD_queue_response(c, status, r);
    MHD_destroy_response(r);
    return result;
}

static enum MHD_Result
respond_text(struct MHD_Connection *c, unsigned status, const char *allow,
             const char *text)
{
    return respond(c, status, TEXT, allow, text, strlen(text));
}

static enum MHD_Result
respond_not_found(struct MHD_Connection *c)
{
    struct buffer text = {0};
    enum MHD_Result result;

    append(&text, "404 page not found; there are:");
    for (size_t i = 0; i < sizeof pages / sizeof pages[0]; i++) {
        append(&text, " ");
        append(&text, pages[i].path);
    }
    append(&text, " /health /livez /readyz\n");
    result = respond(c, MHD_HTTP_NOT_FOUND, TEXT, NULL, text.data, text.len);
    buffer_free(&text);
    return result;
}

/* What is wrong with the request's head is said at once, before any body is read. */
static enum MHD_Result
check_head(struct MHD_Connection *c, const char *path, const char *method, bool *answered)
{
    const struct page *page = page_of(path);
    bool etcds = page == NULL || page->is_etcds;
    const char *length =
        MHD_lookup_connection_value(c, MHD_HEADER_KIND, MHD_HTTP_HEADER_CONTENT_LENGTH);
    const char *coding = MHD_lookup_connection_value(c, MHD_HEADER_KIND,
                                                     MHD_HTTP_HEADER_TRANSFER_ENCODING);

    *answered = true;
    if (page == NULL && !probe_is_path(path))
        return respond_not_found(c);
    if (strcmp(method, MHD_HTTP_METHOD_GET) != 0 &&
        (etcds || strcmp(method, MHD_HTTP_METHOD_HEAD) != 0))
        return respond_text(c, MHD_HTTP_METHOD_NOT_ALLOWED, etcds ? "GET" : "GET, HEAD",
                            "Method Not Allowed\n");
    if (coding != NULL || (length != NULL && strcmp(length, "0") != 0)) {
        return respond_text(c, MHD_HTTP_BAD_REQUEST, NULL,
                            "400 bad request: no page here takes a body\n");
    }
    *answered = false;
    return MHD_YES;
}

/*
 * Called once when the head is there and again when the request is complete.  Answering only
 * then keeps the connection open for the next request.
 */
static enum MHD_Result
answer(void *arg, struct MHD_Connection *c, const char *url, const char *method,
       const char *version, const char *body, size_t *body_bytes, void **request)
{
    static int seen;
    struct http_server *s = arg;
    const struct page *page = page_of(url);
    struct buffer out = {0};
    enum MHD_Result result;
    unsigned status;

    (void)version;
    (void)body;
    if (*request == NULL) {
        bool answered;

        *request = &seen;
        result = check_head(c, url, method, &answered);
        if (answered || result == MHD_NO)
            return result;
        return MHD_YES;
    }
    if (*body_bytes != 0)
        return MHD_NO; /* a body that the head did not announce: close */
    mutex_lock(&s->lock);
    status = page != NULL ? page->render(s, c, &out) : answer_probe(s, c, url, &out);
    mutex_unlock(&s->lock);
    result =
        respond(c, status, page != NULL ? page->type : TEXT, NULL, out.data, out.len);
    buffer_free(&out);
    return result;
}

/* --- start and stop ----------------------------------------------------------------- */

static void library_log(void *arg, const char *format, va_list ap)
    __attribute__((format(printf, 2, 0)));

/* The library speaks of clients that went away and the like. */
static void
library_log(void *arg, const char *format, va_list ap)
{
    char text[512];
    size_t n;

    (void)arg;
    vsnprintf(text, sizeof text, format, ap);
    n = strlen(text);
    while (n > 0 && text[n - 1] == '\n')
        text[--n] = '\0';
    LOG_DEBUG("metrics and health", "library", text, NULL);
}

static void
on_connection(void *pool, struct MHD_Connection *c, void **context,
              enum MHD_ConnectionNotificationCode what)
{
    (void)c;
    (void)context;
    if (what == MHD_CONNECTION_NOTIFY_CLOSED)
        atomic_fetch_sub(&((struct pool *)pool)->n, 1);
}

static void
start_pool(struct http_server *s, struct pool *pool)
{
    pool->daemon = MHD_start_daemon(
        MHD_USE_EPOLL_INTERNAL_THREAD | MHD_USE_ITC | MHD_USE_ERROR_LOG |
            MHD_USE_NO_LISTEN_SOCKET,
        0, NULL, NULL, answer, s, MHD_OPTION_EXTERNAL_LOGGER, library_log, NULL,
        MHD_OPTION_CONNECTION_LIMIT, 2 * MAX_CONNECTIONS, MHD_OPTION_NOTIFY_CONNECTION,
        on_connection, pool, MHD_OPTION_CONNECTION_MEMORY_LIMIT, CONNECTION_BYTES,
        MHD_OPTION_CONNECTION_TIMEOUT, IDLE_SECONDS, MHD_OPTION_END);
}

t4_status
http_start(struct http_server **out, struct error *error)
{
    struct http_server *s = mem_zalloc(sizeof *s);

    *out = NULL;
    mutex_init(&s->lock);
    s->counts = probe_counts_new();
    start_pool(s, &s->of_probes);
    start_pool(s, &s->of_clients);
    if (s->of_probes.daemon == NULL || s->of_clients.daemon == NULL) {
        error_set(error, T4_E_IO, "the HTTP library does not start: %s", strerror(errno));
        http_stop(s);
        return error_hint(error, "raise the limit of open files or of threads");
    }
    *out = s;
    return T4_OK;
}

void
http_add_connection(struct http_server *s, bool of_client, int fd)
{
    struct pool *pool = of_client ? &s->of_clients : &s->of_probes;
    struct sockaddr_storage peer = {0};
    socklen_t n = sizeof peer;

    if (atomic_fetch_add(&pool->n, 1) >= MAX_CONNECTIONS) {
        atomic_fetch_sub(&pool->n, 1);
        close(fd);
        return;
    }

    /* A unix socket has no address, and the library wants one. */
    if (getpeername(fd, (struct sockaddr *)&peer, &n) != 0 || peer.ss_family == AF_UNIX) {
        peer.ss_family = AF_INET;
        n = sizeof(struct sockaddr_in);
    }
    if (MHD_add_connection(pool->daemon, fd, (struct sockaddr *)&peer, n) != MHD_YES)
        atomic_fetch_sub(&pool->n, 1); /* it is closed */
}

void
http_set_state(struct http_server *s, enum http_state state, const char *reason)
{
    mutex_lock(&s->lock);
    s->state = state;
    snprintf(s->reason, sizeof s->reason, "%s", reason);
    mutex_unlock(&s->lock);
}

void
http_set_node(struct http_server *s, struct node *node)
{
    mutex_lock(&s->lock);
    s->node = node;
    mutex_unlock(&s->lock);
}

void
http_add_metrics(struct http_server *s, http_render *render, void *arg)
{
    mutex_lock(&s->lock);
    for (size_t i = 0; i < MORE_METRICS; i++) {
        if (s->more[i].render == NULL) {
            s->more[i].render = render;
            s->more[i].arg = arg;
            break;
        }
    }
    mutex_unlock(&s->lock);
}

void
http_remove_metrics(struct http_server *s, http_render *render)
{
    mutex_lock(&s->lock);
    for (size_t i = 0; i < MORE_METRICS; i++)
        if (s->more[i].render == render)
            s->more[i].render = NULL;
    mutex_unlock(&s->lock);
}

void
http_stop(struct http_server *s)
{
    if (s == NULL)
        return;
    if (s->of_clients.daemon != NULL)
        MHD_stop_daemon(s->of_clients.daemon);
    if (s->of_probes.daemon != NULL)
        MHD_stop_daemon(s->of_probes.daemon);
    probe_counts_free(s->counts);
    mutex_destroy(&s->lock);
    mem_free(s);
}

const char *
http_library_version(void)
{
    return MHD_get_version();
}

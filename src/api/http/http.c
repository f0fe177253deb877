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
#include <microhttpd.h>
#include <netdb.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

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
#define BACKLOG 64
#define REASON_BYTES 256

struct http_server {
    struct MHD_Daemon *daemon;
    struct mutex lock;
    enum http_state state;     /* [lock] */
    char reason[REASON_BYTES]; /* [lock] */
    char shown[600];           /* [lock] a reason made of the node's state */
    struct node *node;         /* [lock] may be NULL */
};

static const char *const state_text[] = {"starting", "ready", "degraded", "stopping",
                                         "not leading"};

static void
append(struct buffer *out, const char *text)
{
    buffer_append(out, text, strlen(text));
}

/* A JSON string; reasons are our own words, so only what JSON itself asks for is escaped. */
static void
append_json(struct buffer *out, const char *text)
{
    append(out, "\"");
    for (; *text != '\0'; text++) {
        if (*text == '"' || *text == '\\')
            buffer_append_u8(out, '\\');
        buffer_append_u8(out, (unsigned char)*text < ' ' ? ' ' : (uint8_t)*text);
    }
    append(out, "\"");
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
        *reason = "NOSPACE: the disk is full, writes are refused until there is room";
        return HTTP_DEGRADED;
    }
    return s->state;
}

static unsigned
page_live(struct http_server *s, struct MHD_Connection *c, struct buffer *out)
{
    (void)s;
    (void)c;
    append(out, "ok\n");
    return MHD_HTTP_OK;
}

static unsigned
page_ready(struct http_server *s, struct MHD_Connection *c, struct buffer *out)
{
    const char *reason;
    bool nospace;
    enum http_state state = state_now(s, &reason, &nospace);

    (void)c;
    if (state == HTTP_READY) {
        append(out, "ok\n");
        return MHD_HTTP_OK;
    }
    append(out, state_text[state]);
    if (reason[0] != '\0') {
        append(out, ": ");
        append(out, reason);
    }
    append(out, "\n");
    return state == HTTP_DEGRADED ? MHD_HTTP_OK : MHD_HTTP_SERVICE_UNAVAILABLE;
}

/* etcd's: an alarm makes it unhealthy unless ?exclude= names it. */
static unsigned
page_health(struct http_server *s, struct MHD_Connection *c, struct buffer *out)
{
    const char *exclude =
        MHD_lookup_connection_value(c, MHD_GET_ARGUMENT_KIND, "exclude");
    const char *reason;
    bool nospace;
    enum http_state state = state_now(s, &reason, &nospace);
    char text[REASON_BYTES + 32];

    text[0] = '\0';
    if (state == HTTP_STARTING || state == HTTP_STOPPING || state == HTTP_NOT_LEADING)
        snprintf(text, sizeof text, "%s: %s", state_text[state], reason);
    else if (nospace && (exclude == NULL || strcmp(exclude, "NOSPACE") != 0))
        snprintf(text, sizeof text, "ALARM NOSPACE");
    append(out, text[0] == '\0' ? "{\"health\":\"true\",\"reason\":"
                                : "{\"health\":\"false\",\"reason\":");
    append_json(out, text);
    append(out, "}\n");
    return text[0] == '\0' ? MHD_HTTP_OK : MHD_HTTP_SERVICE_UNAVAILABLE;
}

static unsigned
page_version(struct http_server *s, struct MHD_Connection *c, struct buffer *out)
{
    (void)s;
    (void)c;
    append(out, "{\"etcdserver\":\"" NODE_ETCD_VERSION "\",\"etcdcluster\":\"3.6.0\","
                "\"storage\":\"3.6.0\"}\n");
    return MHD_HTTP_OK;
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
    if (s->node != NULL) {
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

static const struct page {
    const char *path, *type;
    unsigned (*render)(struct http_server *, struct MHD_Connection *, struct buffer *);
} pages[] = {
    {"/metrics", "text/plain; version=0.0.4; charset=utf-8", page_metrics},
    {"/healthz", TEXT, page_live},
    {"/livez", TEXT, page_live},
    {"/readyz", TEXT, page_ready},
    {"/health", JSON, page_health},
    {"/version", JSON, page_version},
    {"/status", JSON, page_status},
};

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

/* What is wrong with the request's head is said at once, before any body is read. */
static enum MHD_Result
check_head(struct MHD_Connection *c, const char *method, bool *answered)
{
    const char *length =
        MHD_lookup_connection_value(c, MHD_HEADER_KIND, MHD_HTTP_HEADER_CONTENT_LENGTH);
    const char *coding = MHD_lookup_connection_value(c, MHD_HEADER_KIND,
                                                     MHD_HTTP_HEADER_TRANSFER_ENCODING);

    *answered = true;
    if (strcmp(method, MHD_HTTP_METHOD_GET) != 0 &&
        strcmp(method, MHD_HTTP_METHOD_HEAD) != 0) {
        return respond_text(
            c, MHD_HTTP_METHOD_NOT_ALLOWED, "GET, HEAD",
            "405 method not allowed: only GET and HEAD are answered here\n");
    }
    if (coding != NULL || (length != NULL && strcmp(length, "0") != 0)) {
        return respond_text(c, MHD_HTTP_BAD_REQUEST, NULL,
                            "400 bad request: no page here takes a body\n");
    }
    *answered = false;
    return MHD_YES;
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
    append(&text, "\n");
    result = respond(c, MHD_HTTP_NOT_FOUND, TEXT, NULL, text.data, text.len);
    buffer_free(&text);
    return result;
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
    struct buffer out = {0};
    enum MHD_Result result;
    unsigned status;

    (void)version;
    (void)body;
    if (*request == NULL) {
        bool answered;

        *request = &seen;
        result = check_head(c, method, &answered);
        if (answered || result == MHD_NO)
            return result;
        return MHD_YES;
    }
    if (*body_bytes != 0)
        return MHD_NO; /* a body that the head did not announce: close */
    for (size_t i = 0; i < sizeof pages / sizeof pages[0]; i++) {
        if (strcmp(url, pages[i].path) != 0)
            continue;
        mutex_lock(&s->lock);
        status = pages[i].render(s, c, &out);
        mutex_unlock(&s->lock);
        result = respond(c, status, pages[i].type, NULL, out.data, out.len);
        buffer_free(&out);
        return result;
    }
    return respond_not_found(c);
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

static t4_status
listen_failed(const struct http_options *o, const char *what, int error_number,
              struct error *error)
{
    t4_status status = error_number == EADDRINUSE ? T4_E_BUSY
                       : error_number == EACCES   ? T4_E_DENIED
                                                  : T4_E_IO;

    error_set(error, status, "cannot listen on %s%s%s:%s for metrics and health: %s: %s",
              strchr(o->host, ':') != NULL ? "[" : "", o->host,
              strchr(o->host, ':') != NULL ? "]" : "", o->port, what,
              strerror(error_number));
    return error_hint(error,
                      "choose a free address of this machine with --metrics-addr, or "
                      "switch it off with --metrics-addr=off");
}

static t4_status
listen_on(const struct http_options *o, int *out, struct error *error)
{
    const struct addrinfo hints = {.ai_socktype = SOCK_STREAM,
                                   .ai_flags = AI_PASSIVE | AI_NUMERICSERV};
    struct addrinfo *found;
    int r = getaddrinfo(o->host, o->port, &hints, &found), fd, on = 1, error_number;
    const char *what = "socket";

    if (r != 0) {
        error_set(error, T4_E_INVALID,
                  "cannot listen on %s:%s for metrics and health: %s", o->host, o->port,
                  gai_strerror(r));
        return error_hint(error,
                          "give --metrics-addr an address of this machine, or \"off\"");
    }
    fd = socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        goto fail_found;
    what = "bind";
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(fd, found->ai_addr, found->ai_addrlen) != 0)
        goto fail_socket;
    what = "listen";
    if (listen(fd, BACKLOG) != 0)
        goto fail_socket;
    freeaddrinfo(found);
    *out = fd;
    return T4_OK;

fail_socket:
    error_number = errno;
    close(fd);
    errno = error_number;
fail_found:
    error_number = errno;
    freeaddrinfo(found);
    return listen_failed(o, what, error_number, error);
}

t4_status
http_start(const struct http_options *options, struct http_server **out,
           struct error *error)
{
    struct http_server *s;
    t4_status status;
    int fd = -1;

    *out = NULL;
    status = listen_on(options, &fd, error);
    if (status != T4_OK)
        return status;
    s = mem_zalloc(sizeof *s);
    mutex_init(&s->lock);
    s->daemon = MHD_start_daemon(
        MHD_USE_EPOLL_INTERNAL_THREAD | MHD_USE_ITC | MHD_USE_ERROR_LOG, 0, NULL, NULL,
        answer, s, MHD_OPTION_EXTERNAL_LOGGER, library_log, NULL,
        MHD_OPTION_LISTEN_SOCKET, fd, MHD_OPTION_CONNECTION_LIMIT, MAX_CONNECTIONS,
        MHD_OPTION_CONNECTION_MEMORY_LIMIT, CONNECTION_BYTES,
        MHD_OPTION_CONNECTION_TIMEOUT, IDLE_SECONDS, MHD_OPTION_END);
    if (s->daemon == NULL) {
        close(fd);
        mutex_destroy(&s->lock);
        mem_free(s);
        error_set(error, T4_E_IO, "the HTTP library does not start: %s", strerror(errno));
        return error_hint(error,
                          "free descriptors or threads, or use --metrics-addr=off");
    }
    *out = s;
    return T4_OK;
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
http_stop(struct http_server *s)
{
    if (s == NULL)
        return;
    MHD_stop_daemon(s->daemon); /* closes the listening socket, too */
    mutex_destroy(&s->lock);
    mem_free(s);
}

const char *
http_library_version(void)
{
    return MHD_get_version();
}

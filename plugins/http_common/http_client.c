/*
 * http_client.c - requests by libcurl: the pool of connections, one request, its answer.
 *
 * Each entry of the pool is a transfer handle with a driver of its own, which keeps the
 * connections; a request takes one out, drives it on the caller's thread and puts it back.
 * Driving it here, not by curl_easy_perform(), is what lets a cancellation end the request
 * within a tenth of a second instead of one second.
 *
 * Invariants:
 *  (1) response->sent is true as soon as one byte of the request went out: libcurl's count of
 *      the bytes of the request, over all its attempts.
 *  (2) A request with `once` goes out at most once.  libcurl itself sends a request again when
 *      a kept connection turns out to be dead without an answer; if any of the body went out
 *      that needs a rewind, which our seek callback refuses, and without the body the server
 *      cannot have carried the request out.  A request without a body gets a new connection.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "http_common/http_client.h"

#include <curl/curl.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define TICK_NS 50000000u /* how often deadline and cancellation are looked at */
#define CONNECT_TIMEOUT_MS 10000L
#define KEEP_DEFAULT 64
#define MAX_AGENT 64
#define MAX_PATH 4096

struct connection {
    struct connection *next; /* in the pool */
    CURL *easy;
    CURLM *multi;
};

struct http_client {
    const struct t4_host *host; /* [const] */
    char agent[MAX_AGENT];      /* [const] */
    char ca_bundle[MAX_PATH];   /* [const] "" = the system's */
    unsigned keep;              /* [const] */
    pthread_mutex_t lock;
    struct connection *idle; /* [lock] the one used last comes first */
    unsigned n_idle;         /* [lock] */
};

/* One request under way. */
struct transfer {
    const struct http_client *client;
    const struct http_request *request;
    struct http_response *out;
    t4_status st;    /* why a callback ended it */
    bool begun;      /* the head of the final answer is complete */
    bool stopped;    /* ended by us with all that is needed */
    size_t part, at; /* what of the body has been handed out */
    char why[128];   /* what a callback did not like; libcurl has its own words */
    char error[CURL_ERROR_SIZE];
};

t4_status
http_global_init(void)
{
    return curl_global_init(CURL_GLOBAL_DEFAULT) == CURLE_OK ? T4_OK : T4_E_NOMEM;
}

void
http_global_done(void)
{
    curl_global_cleanup();
}

/* --- the pool ----------------------------------------------------------------------- */

static void
connection_close(const struct http_client *c, struct connection *connection)
{
    if (connection->easy != NULL)
        curl_easy_cleanup(connection->easy);
    if (connection->multi != NULL)
        curl_multi_cleanup(connection->multi);
    c->host->free(c->host, connection);
}

static struct connection *
connection_take(struct http_client *c)
{
    struct connection *connection;

    pthread_mutex_lock(&c->lock);
    connection = c->idle;
    if (connection != NULL) {
        c->idle = connection->next;
        c->n_idle--;
    }
    pthread_mutex_unlock(&c->lock);
    if (connection != NULL)
        return connection;
    connection = c->host->alloc(c->host, sizeof *connection);
    if (connection == NULL)
        return NULL;
    *connection =
        (struct connection){.easy = curl_easy_init(), .multi = curl_multi_init()};
    if (connection->easy == NULL || connection->multi == NULL) {
        connection_close(c, connection);
        return NULL;
    }
    curl_multi_setopt(connection->multi, CURLMOPT_MAXCONNECTS, 4L);
    return connection;
}

static void
connection_give(struct http_client *c, struct connection *connection)
{
    bool keep;

    curl_easy_reset(connection->easy); /* nothing of the request stays behind */
    pthread_mutex_lock(&c->lock);
    keep = c->n_idle < c->keep;
    if (keep) {
        connection->next = c->idle;
        c->idle = connection;
        c->n_idle++;
    }
    pthread_mutex_unlock(&c->lock);
    if (!keep)
        connection_close(c, connection);
}

t4_status
http_client_open(const struct t4_host *host, const struct http_client_options *options,
                 struct http_client **out)
{
    struct http_client *c = host->alloc(host, sizeof *c);

    *out = NULL;
    if (c == NULL)
        return T4_E_NOMEM;
    memset(c, 0, sizeof *c);
    c->host = host;
    c->keep = options->keep > 0 ? options->keep : KEEP_DEFAULT;
    snprintf(c->agent, sizeof c->agent, "%s", options->agent);
    if (options->ca_bundle != NULL)
        snprintf(c->ca_bundle, sizeof c->ca_bundle, "%s", options->ca_bundle);
    pthread_mutex_init(&c->lock, NULL);
    *out = c;
    return T4_OK;
}

void
http_client_close(struct http_client *c)
{
    if (c == NULL)
        return;
    for (struct connection *i = c->idle, *next; i != NULL; i = next) {
        next = i->next;
        connection_close(c, i);
    }
    pthread_mutex_destroy(&c->lock);
    c->host->free(c->host, c);
}

/* --- the answer --------------------------------------------------------------------- */

const char *
http_header(const struct http_response *r, const char *name, char *value, size_t size)
{
    size_t n = strlen(name);
    const char *line = r->head.data, *end;

    for (; line != NULL && *line != '\0'; line = end + 1) {
        end = strchr(line, '\n');
        if (end == NULL)
            break;
        if ((size_t)(end - line) <= n || line[n] != ':' ||
            strncasecmp(line, name, n) != 0)
            continue;
        line += n + 1;
        while (line < end && (*line == ' ' || *line == '\t'))
            line++;
        snprintf(value, size, "%.*s", (int)(end - line), line);
        return value;
    }
    return NULL;
}

static t4_status
head_complete(struct transfer *t)
{
    struct http_response *r = t->out;
    char text[64];

    t->begun = true;
    if (http_header(r, "Date", text, sizeof text) != NULL)
        r->date_ms =
            http_parse_date((struct t4_slice){(const uint8_t *)text, strlen(text)});
    r->length = -1;
    if (http_header(r, "Content-Length", text, sizeof text) != NULL && text[0] >= '0' &&
        text[0] <= '9' && strlen(text) <= 18)
        r->length = strtoll(text, NULL, 10);
    if (r->status / 100 == 2 && t->request->begin != NULL)
        return t->request->begin(t->request->arg, r);
    return T4_OK;
}

static size_t
on_header(char *data, size_t one, size_t n, void *arg)
{
    struct transfer *t = arg;
    struct http_response *r = t->out;
    size_t length = n * one;

    while (length > 0 && (data[length - 1] == '\n' || data[length - 1] == '\r'))
        length--;
    if (memchr(data, '\0', length) != NULL ||
        r->head.len + length > HTTP_MAX_ANSWER_HEAD) {
        t->st = T4_E_CORRUPT;
        snprintf(t->error, sizeof t->error,
                 "the head of the answer is too long or no text");
        return 0;
    }
    if (t->begun) /* a trailer */
        return n * one;
    if (length > 5 && strncasecmp(data, "HTTP/", 5) == 0) {
        const char *space = memchr(data, ' ', length);

        r->head.len = 0; /* of an interim answer */
        r->status = 0;
        if (space != NULL && data + length - space >= 4)
            for (int i = 1; i <= 3 && space[i] >= '0' && space[i] <= '9'; i++)
                r->status = 10 * r->status + (space[i] - '0');
        return n * one;
    }
    if (length > 0) {
        if (!http_bytes_add(&r->head, data, length) || !http_bytes_add(&r->head, "\n", 1))
            t->st = T4_E_NOMEM;
    } else if (r->status >= 200) {
        t->st = head_complete(t);
    }
    return t->st == T4_OK ? n * one : 0;
}

static size_t
on_body(char *data, size_t one, size_t n, void *arg)
{
    struct transfer *t = arg;
    struct http_response *r = t->out;
    size_t limit = t->request->limit > 0 ? t->request->limit : HTTP_DEFAULT_LIMIT;
    size_t length = n * one, room = limit - r->body.len;
    bool good = r->status / 100 == 2;

    if (good && t->request->sink != NULL) {
        t->st = t->request->sink(t->request->arg,
                                 (struct t4_slice){(const uint8_t *)data, length});
        return t->st == T4_OK ? length : 0;
    }
    if (length > room && good) {
        t->st = T4_E_CORRUPT;
        snprintf(t->why, sizeof t->why, "the answer is longer than %zu bytes", limit);
        return 0;
    }
    if (!http_bytes_add(&r->body, data, length < room ? length : room))
        t->st = T4_E_NOMEM;
    if (length > room)
        r->truncated = t->stopped = true;
    return t->st == T4_OK && !t->stopped ? length : 0;
}

/* --- the request -------------------------------------------------------------------- */

static size_t
on_read(char *buffer, size_t one, size_t n, void *arg)
{
    struct transfer *t = arg;
    size_t room = n * one, got = 0;

    while (got < room && t->part < HTTP_MAX_BODY_PARTS) {
        struct t4_slice part = t->request->body[t->part];
        size_t some = part.len - t->at < room - got ? part.len - t->at : room - got;

        if (some > 0)
            memcpy(buffer + got, part.data + t->at, some);
        got += some;
        t->at += some;
        if (t->at == part.len) {
            t->part++;
            t->at = 0;
        }
    }
    return got;
}

static int
on_seek(void *arg, curl_off_t offset, int origin)
{
    struct transfer *t = arg;

    if (offset != 0 || origin != SEEK_SET)
        return CURL_SEEKFUNC_FAIL;
    /*
     * A request that failed can leave its handle with the wish to rewind, which the next one
     * on it meets before its first byte.
     */
    if (t->request->once && (t->part > 0 || t->at > 0))
        return CURL_SEEKFUNC_FAIL;
    t->part = t->at = 0;
    return CURL_SEEKFUNC_OK;
}

static size_t
body_length(const struct http_request *request)
{
    size_t n = 0;

    for (size_t i = 0; i < HTTP_MAX_BODY_PARTS; i++)
        n += request->body[i].len;
    return n;
}

/* "Expect:" takes away the wait for 100 Continue that libcurl would ask for. */
static struct curl_slist *
header_list(const struct http_request *request)
{
    struct curl_slist *list = curl_slist_append(NULL, "Expect:"), *longer;

    for (size_t i = 0; i < request->n_headers && list != NULL; i++) {
        longer = curl_slist_append(list, request->headers[i]);
        if (longer == NULL)
            curl_slist_free_all(list);
        list = longer;
    }
    return list;
}

static void
set_up(CURL *easy, struct transfer *t, struct curl_slist *headers)
{
    const struct http_request *request = t->request;
    const struct http_client *c = t->client;

    curl_easy_setopt(easy, CURLOPT_URL, request->url);
    curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(easy, CURLOPT_PATH_AS_IS, 1L); /* keys may hold ".." */
    curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
    curl_easy_setopt(easy, CURLOPT_HTTPHEADER, headers);
    curl_easy_setopt(easy, CURLOPT_USERAGENT, c->agent);
    curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, t->error);
    curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(easy, CURLOPT_QUICK_EXIT, 1L); /* no waiting for a stuck resolver */
    curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, CONNECT_TIMEOUT_MS);
    curl_easy_setopt(easy, CURLOPT_TCP_KEEPALIVE, 1L);
    curl_easy_setopt(easy, CURLOPT_SUPPRESS_CONNECT_HEADERS, 1L);
    curl_easy_setopt(easy, CURLOPT_UPLOAD_BUFFERSIZE, 262144L);
    curl_easy_setopt(easy, CURLOPT_BUFFERSIZE, 131072L);
    if (c->ca_bundle[0] != '\0')
        curl_easy_setopt(easy, CURLOPT_CAINFO, c->ca_bundle);
    if (request->direct)
        curl_easy_setopt(easy, CURLOPT_PROXY, "");

    curl_easy_setopt(easy, CURLOPT_HEADERFUNCTION, on_header);
    curl_easy_setopt(easy, CURLOPT_HEADERDATA, t);
    curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, on_body);
    curl_easy_setopt(easy, CURLOPT_WRITEDATA, t);
    if (strcmp(request->method, "HEAD") == 0)
        curl_easy_setopt(easy, CURLOPT_NOBODY, 1L);
    else if (request->has_body)
        curl_easy_setopt(easy, CURLOPT_UPLOAD, 1L);
    curl_easy_setopt(easy, CURLOPT_CUSTOMREQUEST, request->method);
    if (request->has_body) {
        size_t n = body_length(request);

        curl_easy_setopt(easy, CURLOPT_INFILESIZE_LARGE, (curl_off_t)n);
        curl_easy_setopt(easy, CURLOPT_READFUNCTION, on_read);
        curl_easy_setopt(easy, CURLOPT_READDATA, t);
        curl_easy_setopt(easy, CURLOPT_SEEKFUNCTION, on_seek);
        curl_easy_setopt(easy, CURLOPT_SEEKDATA, t);
    }
    if (request->once && body_length(request) == 0)
        curl_easy_setopt(easy, CURLOPT_FRESH_CONNECT, 1L);
}

/* The call's deadline, or the request's if that is earlier; UINT64_MAX: none.  call NULL: one
 * that has no deadline and is never cancelled. */
static uint64_t
end_of(const struct t4_host *host, const struct t4_call *call, uint64_t timeout_ns)
{
    uint64_t end = call != NULL ? host->deadline_ns(call) : 0;

    if (end == 0)
        end = UINT64_MAX;
    if (timeout_ns > 0 && host->now_ns() + timeout_ns < end)
        end = host->now_ns() + timeout_ns;
    return end;
}

static t4_status
check_call(const struct t4_host *host, const struct t4_call *call, uint64_t end)
{
    if (call != NULL && host->cancelled(call))
        return T4_E_CANCELLED;
    return host->now_ns() >= end ? T4_E_TIMEOUT : T4_OK;
}

t4_status
http_wait(const struct t4_host *host, struct t4_call *call, uint64_t ns)
{
    uint64_t now = host->now_ns(), until = now + ns, end = end_of(host, call, 0);
    t4_status st;

    for (; (st = check_call(host, call, end)) == T4_OK && now < until;
         now = host->now_ns()) {
        uint64_t step = until - now < TICK_NS ? until - now : TICK_NS;

        poll(NULL, 0, (int)(step / 1000000 + 1));
    }
    return st;
}

static t4_status
status_of(CURLcode code)
{
    switch (code) {
    case CURLE_OK: return T4_OK;
    case CURLE_URL_MALFORMAT:
    case CURLE_UNSUPPORTED_PROTOCOL:
    case CURLE_SSL_CACERT_BADFILE: return T4_E_INVALID;
    case CURLE_OUT_OF_MEMORY: return T4_E_NOMEM;
    case CURLE_WEIRD_SERVER_REPLY: return T4_E_CORRUPT;
    default: return T4_E_UNAVAILABLE;
    }
}

/* Drives the transfer to its end; *code is libcurl's word unless deadline or caller ended it. */
static t4_status
drive(struct connection *connection, const struct t4_host *host, struct t4_call *call,
      uint64_t end, CURLcode *code)
{
    int running = 1, left;
    t4_status st;
    CURLMsg *message;

    for (;;) {
        uint64_t now, step = TICK_NS;

        if (curl_multi_perform(connection->multi, &running) != CURLM_OK)
            return T4_E_NOMEM;
        if (running == 0)
            break;
        st = check_call(host, call, end);
        if (st != T4_OK)
            return st;
        now = host->now_ns();
        if (end - now < step && end > now)
            step = end - now;
        curl_multi_poll(connection->multi, NULL, 0, (int)(step / 1000000 + 1), NULL);
    }
    *code = CURLE_FAILED_INIT;
    while ((message = curl_multi_info_read(connection->multi, &left)) != NULL)
        if (message->msg == CURLMSG_DONE)
            *code = message->data.result;
    return T4_OK;
}

static t4_status
give_reason(struct http_response *out, t4_status st, const char *text)
{
    http_printable((struct t4_slice){(const uint8_t *)text, strlen(text)}, out->reason,
                   sizeof out->reason);
    return st;
}

/* What became of the transfer. */
static t4_status
conclude(struct transfer *t, t4_status st, CURLcode code)
{
    struct http_response *out = t->out;

    if (t->st != T4_OK) /* a callback ended it */
        return give_reason(out, t->st, t->st == T4_E_NOMEM ? "no memory" : t->why);
    if (t->stopped)
        return T4_OK;
    if (st == T4_E_TIMEOUT || st == T4_E_CANCELLED)
        return give_reason(out, st,
                           st == T4_E_CANCELLED ? "cancelled"
                           : out->sent          ? "no answer in time"
                                                : "not connected in time");
    if (st == T4_OK)
        st = status_of(code);
    if (st == T4_E_UNAVAILABLE && t->begun && out->status >= 300) {
        out->truncated = true; /* its status says all that matters */
        return T4_OK;
    }
    if (st == T4_OK && !t->begun) {
        st = T4_E_CORRUPT;
        snprintf(t->error, sizeof t->error, "the answer is not HTTP");
    }
    if (st == T4_OK)
        return st;
    out->untrusted = code == CURLE_PEER_FAILED_VERIFICATION;
    return give_reason(out, st,
                       t->error[0] != '\0' ? t->error : curl_easy_strerror(code));
}

t4_status
http_perform(struct http_client *c, struct t4_call *call,
             const struct http_request *request, struct http_response *out)
{
    struct transfer t = {.client = c, .request = request, .out = out};
    uint64_t end;
    struct connection *connection;
    struct curl_slist *headers;
    CURLcode code = CURLE_OK;
    long sent = 0;
    t4_status st;

    *out = (struct http_response){.length = -1};
    if (request->detached)
        call = NULL;
    end = end_of(c->host, call, request->timeout_ns);
    st = check_call(c->host, call, end);
    if (st != T4_OK)
        return conclude(&t, st, code);
    headers = header_list(request);
    connection = headers != NULL ? connection_take(c) : NULL;
    if (connection == NULL) {
        curl_slist_free_all(headers);
        return give_reason(out, T4_E_NOMEM, "no memory");
    }
    set_up(connection->easy, &t, headers);
    if (curl_multi_add_handle(connection->multi, connection->easy) == CURLM_OK) {
        st = drive(connection, c->host, call, end, &code);
        curl_easy_getinfo(connection->easy, CURLINFO_REQUEST_SIZE, &sent);
        curl_multi_remove_handle(connection->multi, connection->easy);
    } else {
        st = T4_E_NOMEM;
    }
    out->sent = sent > 0;
    st = conclude(&t, st, code);
    connection_give(c, connection);
    curl_slist_free_all(headers);
    return st;
}

void
http_response_free(struct http_response *r)
{
    http_bytes_wipe(&r->body); /* it may be a token */
    http_bytes_free(&r->head);
}

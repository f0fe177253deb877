/*
 * http_client.h - HTTP for the plugins that speak it: requests over kept connections, with the
 * call's deadline and cancellation, bounded answers, and word whether anything was sent.
 *
 * This folder has no .so of its own: the Makefile compiles it into s3 and gcs.  Include it as
 * "http_common/http_client.h".
 *
 * A client may be used by any number of threads at once; each request takes a connection from
 * its pool, or makes one.  HTTP/1.1, TLS verified, redirects not followed.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef HTTP_COMMON_HTTP_CLIENT_H
#define HTTP_COMMON_HTTP_CLIENT_H

#include <stdbool.h>

#include "t4_plugin.h"

struct http_client;

#define HTTP_MAX_HEADERS 24        /* of a request */
#define HTTP_MAX_BODY_PARTS 3      /* of a request */
#define HTTP_MAX_ANSWER_HEAD 65536 /* bytes of an answer's header lines */
#define HTTP_DEFAULT_LIMIT                                                               \
    (64u << 10) /* of an answer's body, unless the request says more */

struct http_client_options {
    const char *ca_bundle; /* file of PEM certificates; NULL or "": the system's */
    const char *agent;     /* User-Agent, "t4-s3" */
    unsigned keep;         /* most idle connections kept; 0: 64 */
};

/* Any memory that grows.  Freed by http_bytes_free(). */
struct http_bytes {
    char *data; /* NUL behind the last byte; NULL while empty */
    size_t len, capacity;
};

struct http_response {
    int status; /* 200, 404, ...; 0: no answer came */
    bool sent;  /* bytes of the request left this machine: it may have been carried out */
    bool truncated; /* not 2xx, and the body was cut or longer than the limit */
    bool
        untrusted; /* the server's certificate was not accepted: think of the CA bundle */
    int64_t date_ms;        /* the Date header, since 1970; 0: none */
    int64_t length;         /* Content-Length; -1: none */
    struct http_bytes head; /* header lines, "Name: value\n" */
    struct http_bytes body; /* what did not go to the sink */
    char reason
        [320]; /* why there is no answer; no secret, no path; "": sink or begin said so */
};

struct http_request {
    const char *method; /* "GET", "HEAD", "PUT", "POST", "DELETE" */
    const char *url;    /* http or https, path encoded as it shall travel */
    const char *headers[HTTP_MAX_HEADERS]; /* "Name: value"; n_headers of them */
    size_t n_headers;
    /* The body, sent with Content-Length; without has_body there is none. */
    struct t4_slice body[HTTP_MAX_BODY_PARTS];
    bool has_body;
    /*
     * Never sent twice: a kept connection that turns out to be dead ends the request instead of
     * having it repeated.  Set it for every conditional write.
     */
    bool once;
    bool direct; /* no proxy, whatever the environment says */
    bool
        detached; /* cleaning up: whatever the call's deadline and cancellation, only timeout_ns */
    size_t limit; /* bytes of the answer's body that are kept; 0: HTTP_DEFAULT_LIMIT */
    uint64_t timeout_ns; /* beside the call's deadline; 0: none */
    /*
     * Where the body of a 2xx goes instead of response->body, and what is asked before its
     * first byte (may be NULL): anything but T4_OK ends the request with that status.
     */
    t4_sink_fn *sink;
    t4_status (*begin)(void *arg, const struct http_response *);
    void *arg;
};

/* Once per process and plugin, from load() and unload(): serial. */
t4_status http_global_init(void);
void http_global_done(void);

/* NOMEM */
t4_status http_client_open(const struct t4_host *host,
                           const struct http_client_options *options,
                           struct http_client **out);
/* No request may be under way.  NULL is nothing. */
void http_client_close(struct http_client *c);

/*
 * Sends the request and waits for the answer.  *out is filled in every case and has to be
 * freed by http_response_free().  OK: a whole answer came, whatever its status.  Else, with
 * out->reason: TIMEOUT, CANCELLED (the call's); UNAVAILABLE (name, connection, TLS, cut
 * answer); INVALID (a URL that is none, a CA bundle that cannot be read); CORRUPT (a 2xx
 * longer than the limit, or no HTTP); NOMEM; what sink or begin returned.  None of these says
 * by itself that a write was not carried out: see http_write_status().
 */
t4_status http_perform(struct http_client *c, struct t4_call *call,
                       const struct http_request *request, struct http_response *out);
void http_response_free(struct http_response *r);

/* What http_perform()'s failure means for a write: UNKNOWN if anything had been sent. */
static inline t4_status
http_write_status(t4_status st, const struct http_response *r)
{
    return st != T4_OK && r->sent ? T4_E_UNKNOWN : st;
}

/* The value of a header of the answer (name without regard to case), or NULL; copied to
 * `value`, cut to its size. */
const char *http_header(const struct http_response *r, const char *name, char *value,
                        size_t size);

/* Waits until ns have passed, the deadline is over (TIMEOUT) or the call is CANCELLED. */
t4_status http_wait(const struct t4_host *host, struct t4_call *call, uint64_t ns);

/* --- text: http_text.c ---------------------------------------------------------------- */

/* Appends; false: no memory. */
bool http_bytes_add(struct http_bytes *b, const void *data, size_t n);
bool http_bytes_text(struct http_bytes *b, const char *text);
bool http_bytes_format(struct http_bytes *b, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
/* Appends percent-encoded: all but A-Z a-z 0-9 - . _ ~ and, if keep_slash, '/'. */
bool http_bytes_encoded(struct http_bytes *b, struct t4_slice text, bool keep_slash);
/* Overwrites what it holds, then frees it. */
void http_bytes_wipe(struct http_bytes *b);
void http_bytes_free(struct http_bytes *b);

/* "Sun, 06 Nov 1994 08:49:37 GMT" and "1994-11-06T08:49:37.123Z" (or +hh:mm): ms since 1970;
 * 0: not of this form. */
int64_t http_parse_date(struct t4_slice text);
int64_t http_parse_timestamp(struct t4_slice text);
/* Copies printable text of a server into a message: no control characters, cut to size. */
void http_printable(struct t4_slice text, char *out, size_t size);

#endif

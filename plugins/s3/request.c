/*
 * request.c - one signed request: from key, parameters and body to an answer and its meaning.
 *
 * Invariants:
 *  (1) What is signed is what is sent: path, query and headers are made once, for both.
 *  (2) A request whose effect is EXPLAIN_PUT goes out at most once, and every failure after
 *      that is UNKNOWN unless the answer excludes it (explain.c).
 *  (3) Neither secret key nor session token gets into a report, even if the server sends them
 *      back: they are struck out of its answer first.
 *  (4) No request names a key that a store might take for another one.
 *
 * Entry points: request_run(), request_fail(), request_end().  Any thread.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "store.h"

#define SECRET_LEAST 8u   /* bytes: anything shorter is none, and occurs in plain words */
#define ERROR_MOST 65536u /* bytes of an answer that is no success, or should be empty */

/*
 * (4)  Gateways to files, proxies and some stores take "a//b", "./a/b" and "a/b/" for "a/b",
 * one object under several names; S3 itself warns of such keys and refuses some.
 */
static bool
is_tidy(struct t4_slice key, bool folder)
{
    const char *p = (const char *)key.data, *end = p + key.len;

    for (;;) {
        const char *slash = memchr(p, '/', (size_t)(end - p));
        size_t n = (size_t)((slash != NULL ? slash : end) - p);

        if (n == 0 && folder && p == end && key.len > 1)
            return true;
        if (n == 0 || (n == 1 && p[0] == '.') || (n == 2 && p[0] == '.' && p[1] == '.'))
            return false;
        if (slash == NULL)
            return true;
        p = slash + 1;
    }
}

t4_status
request_check_key(struct t4_store *s, struct t4_call *call, struct t4_slice key,
                  bool folder)
{
    char detail[96];

    if (key.len == 0 || !text_is_plain(key))
        return s->host->fail(call, T4_E_INVALID,
                             "a key is empty, not UTF-8 or holds control characters",
                             NULL, NULL);
    if (key.len > ADDRESS_KEY_MOST - s->address.root_length) {
        snprintf(detail, sizeof detail, "%zu bytes with the prefix, S3 allows %u",
                 key.len + s->address.root_length, ADDRESS_KEY_MOST);
        return s->host->fail(call, T4_E_INVALID, "a key is too long", detail,
                             "use a shorter prefix");
    }
    if (!is_tidy(key, folder))
        return s->host->fail(
            call, T4_E_INVALID, "a key has an empty part, or one that is . or ..", NULL,
            "stores and proxies take such keys for others: use plain ones");
    return T4_OK;
}

/* --- words --------------------------------------------------------------------------- */

/* "PUT s3://bucket/prefix/key" */
static size_t
describe(const struct t4_store *s, const struct request *r, char *out, size_t room)
{
    int n = snprintf(out, room, "%s s3://%s/%s%.*s", r->method, s->address.bucket,
                     s->address.root, (int)r->key.len,
                     r->key.len > 0 ? (const char *)r->key.data : "");

    return n < 0 ? 0 : (size_t)n < room ? (size_t)n : room - 1;
}

/* (3) */
static void
strike_out(struct http_bytes *body, const char *secret)
{
    size_t n = strlen(secret);
    char *p = body->data, *end = p + body->len;

    if (n < SECRET_LEAST || body->len < n)
        return;
    while ((p = memmem(p, (size_t)(end - p), secret, n)) != NULL) {
        memset(p, '*', n);
        p += n;
    }
}

static int64_t
wall_ms(void)
{
    struct timespec t;

    clock_gettime(CLOCK_REALTIME, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* An answer that is not 2xx. */
static t4_status
refused(struct t4_store *s, const struct request *r, struct reply *reply)
{
    const struct text_head *head = &reply->head;
    int64_t date_ms = reply->http.date_ms;
    struct xml_error *e = &reply->error;
    struct explain_case c = {
        .http_status = reply->http.status,
        .permission = r->permission,
        .bucket = s->address.bucket,
        .region = s->region,
        .credentials = credentials_words(s->keeper),
        .skew_ms = date_ms != 0 ? wall_ms() - date_ms : 0,
    };
    size_t n = describe(s, r, reply->message, sizeof reply->message);

    c.code = e->code;
    c.region_told = head->region[0] != '\0' ? head->region : e->region;
    snprintf(reply->message + n, sizeof reply->message - n, ": %s%sHTTP %d%s%s%s%s",
             e->code, e->code[0] != '\0' ? ", " : "", reply->http.status,
             e->message[0] != '\0' ? ": " : "", e->message,
             head->request_id[0] != '\0' ? ", request " : "", head->request_id);
    explain_hint(&c, reply->hint, sizeof reply->hint);
    reply->has_words = true;
    return explain_status(reply->http.status, e->code, r->effect);
}

/* No answer, or not all of it. */
static t4_status
broken(struct t4_store *s, const struct request *r, struct reply *reply, t4_status st)
{
    size_t n;

    if (reply->http.reason[0] == '\0')
        return st; /* the sink's */
    n = describe(s, r, reply->message, sizeof reply->message);
    snprintf(reply->message + n, sizeof reply->message - n, ": %s", reply->http.reason);
    if (reply->http.untrusted)
        snprintf(
            reply->hint, sizeof reply->hint,
            "if the store's certificate is from an authority of your own, name its file "
            "in s3.ca_bundle");
    else if (!reply->http.sent && st == T4_E_UNAVAILABLE)
        snprintf(reply->hint, sizeof reply->hint,
                 "check s3.endpoint (%.300s) and the way there", s->address.origin);
    reply->has_words = true;
    return r->effect == EXPLAIN_PUT && reply->http.sent ? T4_E_UNKNOWN : st; /* (2) */
}

t4_status
request_fail(struct t4_store *s, struct t4_call *call, t4_status status,
             const struct reply *reply)
{
    if (!reply->has_words)
        return status; /* reported already, or the sink's */
    return s->host->fail(call, status, reply->message, NULL,
                         reply->hint[0] != '\0' ? reply->hint : NULL);
}

void
request_end(struct reply *reply)
{
    http_response_free(&reply->http);
}

/* --- the request --------------------------------------------------------------------- */

/* What is made for one request, in the form that signing and libcurl want it. */
struct form {
    struct str path, url, query, header;
    char date[17], hash[SIGN_HEX];
    struct sign_field field[REQUEST_FIELDS + 4];
    size_t n_field;
    struct str line[REQUEST_FIELDS + 4]; /* "name: value" of each field */
};

static void
form_free(struct form *f)
{
    for (size_t i = 0; i < f->n_field; i++)
        str_wipe(&f->line[i]);
    str_free(&f->path);
    str_free(&f->url);
    str_free(&f->query);
    str_free(&f->header);
}

static void
add_field(struct form *f, const char *name, const char *value)
{
    f->field[f->n_field++] = (struct sign_field){name, value};
}

static bool
form_make(struct form *f, const struct t4_store *s, const struct request *r,
          const struct credentials *c)
{
    const struct address *a = &s->address;
    struct sign_request sign = {
        .method = r->method,
        .header = f->field,
        .payload_hash = f->hash,
        .date = f->date,
        .region = s->region,
        .service = "s3",
        .access_key_id = c->id,
        .secret_access_key = c->secret,
    };
    struct sign_field query[REQUEST_FIELDS];
    bool ok;

    str_encode(&f->path, a->path, strlen(a->path), true);
    if (r->key.len > 0) {
        str_addz(&f->path, "/");
        str_encode(&f->path, a->root, a->root_length, true);
        str_encode(&f->path, (const char *)r->key.data, r->key.len, true);
    } else if (f->path.length == 0) {
        str_addz(&f->path, "/");
    }
    memcpy(query, r->query, sizeof query);
    sign_query(query, r->n_query, &f->query);
    str_addf(&f->url, "%s%s%s%s", a->origin, str_text(&f->path),
             r->n_query > 0 ? "?" : "", str_text(&f->query));

    text_amz_date(wall_ms(), f->date);
    if (f->path.failed || f->query.failed || f->url.failed ||
        !sign_hash(r->body, f->hash))
        return false;
    add_field(f, "host", a->authority);
    add_field(f, "x-amz-content-sha256", f->hash);
    add_field(f, "x-amz-date", f->date);
    if (c->token[0] != '\0')
        add_field(f, "x-amz-security-token", c->token);
    for (size_t i = 0; i < r->n_header; i++)
        add_field(f, r->header[i].name, r->header[i].value);
    sign.path = str_text(&f->path);
    sign.query = str_text(&f->query);
    sign.n_header = f->n_field;
    str_addz(&f->header, "Authorization: ");
    ok = sign_authorization(&sign, &f->header);
    for (size_t i = 0; i < f->n_field; i++) {
        str_addf(&f->line[i], "%s: %s", f->field[i].name, f->field[i].value);
        ok = ok && !f->line[i].failed;
    }
    return ok;
}

/* The store's words, without secrets; credentials that it does not take are given up. */
static void
read_error(struct t4_store *s, const struct credentials *c, struct reply *reply)
{
    static const char *const worn_out[] = {"ExpiredToken", "TokenRefreshRequired",
                                           "InvalidToken", "InvalidAccessKeyId",
                                           "SignatureDoesNotMatch"};

    strike_out(&reply->http.body, c->secret);
    strike_out(&reply->http.body, c->token);
    xml_error(reply_body(reply), &reply->error);
    for (size_t i = 0; i < sizeof worn_out / sizeof worn_out[0]; i++)
        if (strcmp(reply->error.code, worn_out[i]) == 0)
            credentials_refused(s->keeper, c->id);
}

t4_status
request_run(struct t4_store *s, struct t4_call *call, const struct request *r,
            struct reply *reply)
{
    struct form form = {.n_field = 0};
    struct credentials c;
    struct http_request http = {
        .method = r->method,
        .body = {r->body},
        .has_body = r->has_body,
        .once = r->effect == EXPLAIN_PUT,
        .limit = r->limit > ERROR_MOST ? r->limit : ERROR_MOST,
        .sink = r->sink,
        .begin = r->begin,
        .arg = r->sink_arg,
        .detached = r->detached_ms > 0,
        .timeout_ns = r->detached_ms * 1000000,
    };
    t4_status st;

    memset(reply, 0, sizeof *reply);
    st = credentials_get(s->keeper, call, &c);
    if (st != T4_OK)
        return st;
    if (form_make(&form, s, r, &c)) {
        http.url = form.url.data;
        for (size_t i = 0; i < form.n_field; i++)
            http.headers[http.n_headers++] = form.line[i].data;
        http.headers[http.n_headers++] = form.header.data;
        st = http_perform(s->client, call, &http, &reply->http);
        text_head(&reply->head, text_slice(reply->http.head.data, reply->http.head.len));
        if (st == T4_OK && reply->http.status / 100 != 2)
            read_error(s, &c, reply);
    } else {
        st = T4_E_NOMEM;
        snprintf(reply->http.reason, sizeof reply->http.reason,
                 "no memory for the request");
    }
    form_free(&form);
    explicit_bzero(&c, sizeof c);
    if (st != T4_OK)
        return broken(s, r, reply, st);
    return reply->http.status / 100 == 2 ? T4_OK : refused(s, r, reply);
}

/*
 * put.c - writing objects, each by requests that are sent once.
 *
 * Up to 8 MiB: one request with the bytes ("media").  Above: a resumable session, opened with
 * the condition, then filled piece by piece; the object appears, by the condition, with the
 * last byte.  A session that breaks is not taken up again, since after a lost answer it cannot
 * be told from one that ended: the host sends the object anew.
 *
 * Invariants:
 *  (1) A request that can create the object is sent once (http_request.once).  The one
 *      exception is a 401, which says that it was not looked at (gcs_perform()).
 *  (2) Before the session's last piece was sent nothing can have been written; if the session
 *      vanishes (404, 410), whatever the piece, the outcome is UNKNOWN.
 *  (3) A refusal of a condition after the last piece had been sent twice, because the server
 *      kept only a part of it, is UNKNOWN.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "gcs.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define SINGLE_MAX (8u << 20)
#define MAX_LENGTH (5ull << 30)
#define MAX_STALLS 4 /* pieces in a row of which the server kept nothing */
#define CONTENT_TYPE "Content-Type: application/octet-stream"

/* <endpoint>/upload/...?uploadType=<type>&name=<name>[&ifGenerationMatch=<tag>] */
static t4_status
upload_url(const struct gcs_op *op, const struct t4_put *put, const char *type,
           struct http_bytes *url)
{
    struct http_bytes name = {0};
    t4_status st = gcs_name(op, &name);

    if (st == T4_OK &&
        !(gcs_url(op->store, "/upload", NULL, url) &&
          http_bytes_format(url,
                            "uploadType=%s&fields=generation,size,updated&name=", type) &&
          http_bytes_encoded(url, gcs_slice(&name), false)))
        st = T4_E_NOMEM;
    if (st == T4_OK && put->condition == T4_PUT_IF_ABSENT &&
        !http_bytes_text(url, "&ifGenerationMatch=0"))
        st = T4_E_NOMEM;
    if (st == T4_OK && put->condition == T4_PUT_IF_MATCH &&
        !(http_bytes_text(url, "&ifGenerationMatch=") &&
          http_bytes_add(url, put->if_match.data, put->if_match.len)))
        st = T4_E_NOMEM;
    http_bytes_free(&name);
    return st;
}

/* The object is written: what is it? */
static t4_status
written(const struct gcs_op *op, const struct t4_put *put, const struct http_response *r,
        struct t4_object_info *info)
{
    if (!json_object_info(gcs_slice(&r->body), info))
        return gcs_fail(op, T4_E_UNKNOWN, "the answer is not an object's metadata", NULL);
    if (info->length != put->body.len)
        return gcs_fail(op, T4_E_UNKNOWN, "the server stored another number of bytes",
                        NULL);
    info->date_ms = r->date_ms;
    return T4_OK;
}

static t4_status
put_single(const struct gcs_op *op, const struct t4_put *put, struct t4_object_info *info)
{
    struct http_request request = {.method = "POST",
                                   .headers = {CONTENT_TYPE},
                                   .n_headers = 1,
                                   .body = {put->body},
                                   .has_body = true,
                                   .once = true};
    struct http_response r = {0};
    struct http_bytes url = {0};
    t4_status st = upload_url(op, put, "media", &url);

    if (st == T4_OK) {
        request.url = url.data;
        st = gcs_perform(op, &request, &r);
    }
    if (st == T4_OK)
        st = r.status == 200 || r.status == 201 ? written(op, put, &r, info)
                                                : gcs_refused(op, &r);
    http_response_free(&r);
    http_bytes_free(&url);
    return st;
}

/* --- a resumable session ------------------------------------------------------------ */

/* The session's address has to be the server's own: credentials go there. */
static bool
is_of_endpoint(const struct gcs *g, const char *url)
{
    size_t n = strlen(g->endpoint);

    return strncmp(url, g->endpoint, n) == 0 && url[n] == '/' && strlen(url) < 8192;
}

/* Opens the session; nothing can have been written however it ends. */
static t4_status
open_session(const struct gcs_op *op, const struct t4_put *put,
             struct http_bytes *session)
{
    struct gcs_op opening = *op;
    struct http_request request = {.method = "POST", .has_body = true};
    struct http_response r = {0};
    struct http_bytes url = {0};
    char length[64], location[8192];
    t4_status st = upload_url(op, put, "resumable", &url);

    opening.effect = GCS_READ;
    opening.key.len = 0; /* a 404 is the bucket's */
    snprintf(length, sizeof length, "X-Upload-Content-Length: %zu", put->body.len);
    request.headers[request.n_headers++] = length;
    request.headers[request.n_headers++] =
        "X-Upload-Content-Type: application/octet-stream";
    if (st == T4_OK) {
        request.url = url.data;
        st = gcs_perform(&opening, &request, &r);
    }
    if (st == T4_OK && r.status != 200 && r.status != 201)
        st = gcs_refused(&opening, &r);
    else if (st == T4_OK &&
             (http_header(&r, "Location", location, sizeof location) == NULL ||
              !is_of_endpoint(op->store->gcs, location)))
        st = gcs_fail(op, T4_E_UNAVAILABLE,
                      "the session of the upload has no address at this server", NULL);
    else if (st == T4_OK && !http_bytes_text(session, location))
        st = T4_E_NOMEM;
    http_response_free(&r);
    http_bytes_free(&url);
    return st;
}

/* After a 308: how many bytes the server has, at most `sent`; false: it says nonsense. */
static bool
kept_bytes(const struct http_response *r, uint64_t sent, uint64_t *kept)
{
    char text[64];
    uint64_t last;

    *kept = 0;
    if (http_header(r, "Range", text, sizeof text) == NULL)
        return true; /* nothing */
    if (sscanf(text, "bytes=0-%19" SCNu64, &last) != 1 || last >= sent)
        return false;
    *kept = last + 1;
    return true;
}

struct session {
    const char *url;
    uint64_t at; /* bytes that the server has */
    unsigned stalls;
    bool last_sent; /* all bytes have been sent at least once */
    bool done;
};

/* Sends the next piece; done: the object is written. */
static t4_status
send_piece(const struct gcs_op *op, const struct t4_put *put, struct session *u,
           struct t4_object_info *info)
{
    uint64_t left = put->body.len - u->at, chunk = op->store->gcs->upload_chunk;
    size_t n = (size_t)(left < chunk ? left : chunk);
    bool last = n == left, was_sent = u->last_sent;
    struct gcs_op sending = *op;
    struct http_request request = {.method = "PUT",
                                   .url = u->url,
                                   .headers = {CONTENT_TYPE},
                                   .n_headers = 1,
                                   .body = {{put->body.data + u->at, n}},
                                   .has_body = true,
                                   .once = true};
    struct http_response r;
    uint64_t kept;
    char range[128];
    t4_status st;

    snprintf(range, sizeof range, "Content-Range: bytes %" PRIu64 "-%" PRIu64 "/%zu",
             u->at, u->at + n - 1, put->body.len);
    request.headers[request.n_headers++] = range;
    u->last_sent = last || was_sent;
    sending.effect = u->last_sent ? GCS_WRITE : GCS_READ;
    st = gcs_perform(&sending, &request, &r);
    if (st != T4_OK)
        goto done;
    if (r.status == 200 || r.status == 201) {
        u->done = true;
        st = last ? written(op, put, &r, info)
                  : gcs_fail(op, T4_E_UNKNOWN, "the upload ended before its last byte",
                             NULL);
    } else if (r.status == 308) {
        if (!kept_bytes(&r, u->at + n, &kept) || kept < u->at)
            st = gcs_fail(&sending, T4_E_UNKNOWN, "the session of the upload lost bytes",
                          NULL);
        else if (kept == u->at && ++u->stalls == MAX_STALLS)
            st = gcs_fail(op, T4_E_UNKNOWN, "the upload makes no progress", NULL);
        else if (kept > u->at)
            u->stalls = 0;
        u->at = kept;
        /* Nothing is left to be sent, and yet it is not written. */
        if (st == T4_OK && kept == put->body.len)
            st = gcs_fail(op, T4_E_UNKNOWN, "the upload does not come to its end", NULL);
    } else if (r.status == 404 || r.status == 410 || r.status == 499) {
        st = gcs_fail(op, T4_E_UNKNOWN, "the session of the upload was lost", NULL);
    } else {
        st = gcs_refused(&sending, &r);
        if (st == T4_E_PRECONDITION && was_sent)
            st = gcs_fail(op, T4_E_UNKNOWN,
                          "the condition failed after the upload had been continued",
                          NULL);
    }
done:
    http_response_free(&r);
    return st;
}

static t4_status
put_session(const struct gcs_op *op, const struct t4_put *put,
            struct t4_object_info *info)
{
    struct http_bytes address = {0};
    struct session u = {0};
    t4_status st = open_session(op, put, &address);

    u.url = address.data;
    while (st == T4_OK && !u.done)
        st = send_piece(op, put, &u, info);
    http_bytes_wipe(&address); /* who knows it may write the object */
    return st;
}

t4_status
gcs_put(struct t4_store *s, struct t4_call *call, const struct t4_put *put,
        struct t4_object_info *info)
{
    struct gcs_op op = {s, call, put->key, GCS_WRITE};

    if (put->condition > T4_PUT_IF_MATCH)
        return gcs_fail(&op, T4_E_UNSUPPORTED, "unknown condition", NULL);
    if (put->body.len > MAX_LENGTH)
        return gcs_fail(&op, T4_E_INVALID, "an object has at most 5 GiB", NULL);
    /* What is no generation is the tag of no object; 0 would even mean that there is none. */
    if (put->condition == T4_PUT_IF_MATCH && !json_is_generation(put->if_match))
        return gcs_fail(&op, T4_E_PRECONDITION, "no object has this tag", NULL);
    return put->body.len > SINGLE_MAX ? put_session(&op, put, info)
                                      : put_single(&op, put, info);
}

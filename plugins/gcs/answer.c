/*
 * answer.c - requests with credentials, and what the answers mean.
 *
 * Invariants:
 *  (1) A write whose fate is not certain is UNKNOWN: no whole answer after a byte went out,
 *      5xx, 408, 409.  Certainly not carried out: 412 and 304 (PRECONDITION), 429 and the rate
 *      limits among the 403 (BUSY), other 4xx and redirects.
 *  (2) NOTFOUND means that the object is not there.  The same status for a missing bucket is
 *      INVALID: the words of the answer decide, and where they do not, the bucket is asked.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "gcs.h"

#include <stdio.h>
#include <string.h>

#define MAX_MESSAGE 400 /* the host's texts hold 512 */

t4_status
gcs_fail(const struct gcs_op *op, t4_status st, const char *detail, const char *hint)
{
    char message[300];

    snprintf(message, sizeof message, "gs://%s", op->store->bucket);
    return op->store->gcs->host->fail(op->call, st, message, detail, hint);
}

static t4_status
no_answer(const struct gcs_op *op, t4_status st, const struct http_response *r)
{
    if (r->reason[0] == '\0') /* our own callbacks ended it and know why */
        return st;
    if (op->effect == GCS_WRITE)
        st = http_write_status(st, r);
    return gcs_fail(op, st, r->reason,
                    r->untrusted ? "for a CA of your own set gcs.ca_bundle" : NULL);
}

t4_status
gcs_perform(const struct gcs_op *op, struct http_request *request,
            struct http_response *out)
{
    const struct gcs *g = op->store->gcs;
    struct http_bytes header = {0};
    size_t n = request->n_headers;
    uint64_t serial = 0;
    t4_status st;

    *out = (struct http_response){.length = -1};
    for (int attempt = 0;; attempt++) {
        if (g->auth != NULL) {
            header.len = 0;
            st = gcs_auth_header(g->auth, op->call, serial, &header, &serial);
            if (st != T4_OK) /* reported; nothing was sent, or it was refused by a 401 */
                break;
            request->headers[n] = header.data;
            request->n_headers = n + 1;
        }
        st = http_perform(g->http, op->call, request, out);
        if (st != T4_OK) {
            st = no_answer(op, st, out);
            break;
        }
        if (out->status != 401 || attempt > 0 || g->auth == NULL)
            break;
        http_response_free(out);
    }
    request->n_headers = n;
    http_bytes_wipe(&header);
    return st;
}

/* --- refusals ----------------------------------------------------------------------- */

static bool
is_any(const char *word, const char *const *words)
{
    for (; *words != NULL; words++)
        if (strcmp(word, *words) == 0)
            return true;
    return false;
}

static t4_status
forbidden(const char *reason)
{
    static const char *const rates[] = {"rateLimitExceeded", "userRateLimitExceeded",
                                        "dailyLimitExceeded", "RESOURCE_EXHAUSTED", NULL};
    static const char *const quotas[] = {"quotaExceeded", "storageQuotaExceeded", NULL};

    if (is_any(reason, rates))
        return T4_E_BUSY;
    return is_any(reason, quotas) ? T4_E_NOSPACE : T4_E_DENIED;
}

static t4_status
status_of(int http, const char *reason, enum gcs_effect effect)
{
    t4_status uncertain = effect == GCS_WRITE ? T4_E_UNKNOWN : T4_E_UNAVAILABLE;

    switch (http) {
    case 304:
    case 412: return T4_E_PRECONDITION;
    case 401: return T4_E_DENIED;
    case 403: return forbidden(reason);
    case 404: return T4_E_NOTFOUND;
    case 408:
    case 409: return uncertain;
    case 429: return T4_E_BUSY;
    }
    if (http >= 300 && http < 500)
        return T4_E_INVALID;
    return uncertain; /* 5xx, and a 2xx that was not expected */
}

static const char *
hint_of(int http, t4_status st, const char *reason)
{
    if (strcmp(reason, "userProjectMissing") == 0 ||
        strcmp(reason, "required") == 0) /* "requester pays" */
        return "name the project that pays in gcs.user_project";
    if (http == 401)
        return "the credentials are not accepted; see gcs.credentials_file";
    if (st == T4_E_DENIED)
        return "give the account the role Storage Object Admin "
               "(roles/storage.objectAdmin) on the bucket";
    if (http >= 300 && http < 400)
        return "no Cloud Storage answers there; check gcs.endpoint";
    return NULL;
}

/* Is the bucket there?  OK; NOTFOUND; other errors: it could not be asked. */
static t4_status
ask_for_bucket(const struct gcs_op *op)
{
    struct http_request request = {.method = "GET", .limit = 1u << 20};
    struct http_response r = {0};
    struct http_bytes url = {0};
    t4_status st = T4_E_NOMEM;

    if (gcs_url(op->store, "", NULL, &url) &&
        http_bytes_text(&url, "maxResults=1&fields=kind")) {
        request.url = url.data;
        st = gcs_perform(op, &request, &r);
        if (st == T4_OK && r.status != 200)
            st = r.status == 404
                     ? T4_E_NOTFOUND
                     : gcs_fail(op, T4_E_UNAVAILABLE,
                                "not found, and the bucket could not be asked", NULL);
        http_response_free(&r);
    }
    http_bytes_free(&url);
    return st;
}

/* A 404: is it the object's or the bucket's? */
static t4_status
not_found(const struct gcs_op *op, const struct gcs_refusal *why)
{
    t4_status st =
        T4_E_NOTFOUND; /* of the bucket: nothing else is looked for by the others */

    if (op->effect == GCS_READ && op->key.len > 0) {
        if (strncmp(why->message, "No such object", 14) != 0)
            st = ask_for_bucket(op);
        else
            st = T4_OK;
        if (st == T4_OK)
            return gcs_fail(op, T4_E_NOTFOUND, "no such object", NULL);
    }
    if (st != T4_E_NOTFOUND)
        return st;
    return gcs_fail(op, T4_E_INVALID, "the bucket does not exist",
                    "create it, or correct the URL of the object store");
}

t4_status
gcs_refused(const struct gcs_op *op, const struct http_response *r)
{
    struct gcs_refusal why;
    char detail[MAX_MESSAGE];
    t4_status st;

    json_refusal(gcs_slice(&r->body), &why);
    if (r->status == 404)
        return not_found(op, &why);
    st = status_of(r->status, why.reason, op->effect);
    snprintf(detail, sizeof detail, "HTTP %d%s%s%s%s", r->status,
             why.reason[0] != '\0' ? ", " : "", why.reason,
             why.message[0] != '\0' ? ": " : "", why.message);
    return gcs_fail(op, st, detail, hint_of(r->status, st, why.reason));
}

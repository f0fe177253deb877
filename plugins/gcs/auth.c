/*
 * auth.c - access tokens: where they come from, how long they are used.
 *
 * Sources: a service account's key file (a signed JWT is exchanged), a user's refresh token as
 * gcloud keeps it, the metadata server of a machine at Google.  A credentials file is read
 * again for every token, so a key that is replaced in its place takes effect.
 *
 * One thread fetches a token, the others go on with the one there is, or wait if there is none.
 * A token is replaced ahead of its end; if that fails and it is still valid, it is used on.
 *
 * Invariants:
 *  (1) no token, key or refresh token goes into a message or the log
 *  (2) they travel by https, or by http on this machine or to the metadata server
 *  (3) `refreshing` is set by the one thread that fetches, which holds no lock meanwhile
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "gcs.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define SECOND 1000000000ull
#define AHEAD_NS (225 * SECOND) /* before its end a token is replaced (metadata: 240 s) */
#define AGAIN_NS (10 * SECOND)  /* after a refresh failed and the old one still serves */
#define FETCH_TIMEOUT_NS (10 * SECOND)
#define AHEAD_TIMEOUT_NS (3 * SECOND) /* while the old token still serves */
#define WAIT_NS 50000000u
#define MAX_FILE 65536
#define METADATA_HOST "169.254.169.254"
#define METADATA_PATH "/computeMetadata/v1/instance/service-accounts/default/token"

struct gcs_auth {
    const struct t4_host *host; /* [const] */
    struct http_client *http;   /* [const] */
    char file[4096];            /* [const] "" = the metadata server */
    char metadata[GCS_MAX_URL]; /* [const] URL of its tokens */
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool refreshing;         /* [lock] */
    struct http_bytes token; /* [lock] */
    uint64_t serial;         /* [lock] of the token; 1 is the first */
    uint64_t refresh_ns;     /* [lock] when to fetch the next one */
    uint64_t end_ns;         /* [lock] when it is not valid any more */
};

/* --- sources ------------------------------------------------------------------------ */

static t4_status
read_credentials(const struct gcs_auth *a, struct t4_call *call,
                 struct gcs_credentials *out)
{
    struct http_bytes text = {0};
    const char *why = NULL;
    char message[4608];
    t4_status st = T4_OK;
    FILE *f = fopen(a->file, "rbe");
    char part[4096];
    size_t n;

    snprintf(message, sizeof message, "credentials file %s", a->file);
    if (f == NULL)
        return a->host->fail(
            call, errno == EACCES ? T4_E_DENIED : T4_E_INVALID, message, strerror(errno),
            "gcs.credentials_file and GOOGLE_APPLICATION_CREDENTIALS name it");
    while (st == T4_OK && (n = fread(part, 1, sizeof part, f)) > 0) {
        if (text.len + n > MAX_FILE) {
            st = T4_E_INVALID;
            why = "it is longer than 64 KiB";
        } else if (!http_bytes_add(&text, part, n)) {
            st = T4_E_NOMEM;
        }
    }
    if (st == T4_OK && ferror(f)) {
        st = T4_E_INVALID;
        why = "it cannot be read";
    }
    fclose(f);
    if (st == T4_OK)
        st = json_credentials(gcs_slice(&text), out, &why);
    if (st == T4_OK && strncmp(out->token_uri.data, "https://", 8) != 0 &&
        !gcs_url_is_private(out->token_uri.data)) {
        st = T4_E_INVALID;
        why = "its token_uri is not https";
        gcs_credentials_wipe(out);
    }
    explicit_bzero(part, sizeof part);
    http_bytes_wipe(&text);
    return st == T4_OK ? st
                       : a->host->fail(call, st, message, why,
                                       "use the key file of a service account as Google "
                                       "Cloud gave it (JSON)");
}

/* The form that is posted to the token server. */
static t4_status
token_form(const struct gcs_auth *a, struct t4_call *call,
           const struct gcs_credentials *c, struct http_bytes *form)
{
    const struct http_bytes *fields[] = {&c->client_id, &c->client_secret,
                                         &c->refresh_token};
    static const char *const names[] = {
        "&client_id=", "&client_secret=", "&refresh_token="};

    if (c->type == GCS_SERVICE_ACCOUNT) {
        if (!http_bytes_text(form, "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type"
                                   "%3Ajwt-bearer&assertion="))
            return T4_E_NOMEM;
        if (gcs_jwt(c, (int64_t)time(NULL), form) == T4_OK)
            return T4_OK;
        return a->host->fail(call, T4_E_INVALID,
                             "credentials file: its private_key cannot sign", NULL,
                             "use the key file of a service account as it was given");
    }
    if (!http_bytes_text(form, "grant_type=refresh_token"))
        return T4_E_NOMEM;
    for (size_t i = 0; i < 3; i++)
        if (!http_bytes_text(form, names[i]) ||
            !http_bytes_encoded(form, gcs_slice(fields[i]), false))
            return T4_E_NOMEM;
    return T4_OK;
}

/* --- one fetch ---------------------------------------------------------------------- */

/* What the token server's refusal means. */
static t4_status
refused(const struct gcs_auth *a, struct t4_call *call, const struct http_response *r)
{
    struct gcs_refusal why;
    char detail[384];
    t4_status st = T4_E_DENIED;
    const char *hint = a->file[0] != '\0'
                           ? "is the key revoked, or this machine's clock wrong?"
                           : "give this machine a service account, or set "
                             "gcs.credentials_file";

    json_refusal(gcs_slice(&r->body), &why);
    snprintf(detail, sizeof detail, "HTTP %d%s%s%s%s", r->status,
             why.reason[0] != '\0' ? ", " : "", why.reason,
             why.message[0] != '\0' ? ": " : "", why.message);
    if (r->status == 429)
        st = T4_E_BUSY;
    else if (r->status >= 500 || r->status == 408)
        st = T4_E_UNAVAILABLE;
    return a->host->fail(call, st,
                         a->file[0] != '\0' ? "no access token from the token server"
                                            : "no access token from the metadata server",
                         detail, st == T4_E_DENIED ? hint : NULL);
}

static t4_status
no_answer(const struct gcs_auth *a, struct t4_call *call, t4_status st,
          const struct http_response *r)
{
    const char *hint =
        "is this machine at Google Cloud?  If not, set gcs.credentials_file, or "
        "gcs.anonymous for a server without credentials";

    /* Only a deadline of the call's own is one; ours says that the server does not answer. */
    if (st == T4_E_TIMEOUT && (a->host->deadline_ns(call) == 0 ||
                               a->host->now_ns() < a->host->deadline_ns(call)))
        st = T4_E_UNAVAILABLE;
    if (a->file[0] != '\0')
        hint = r->untrusted ? "for a CA of your own set gcs.ca_bundle" : NULL;
    return a->host->fail(call, st,
                         a->file[0] != '\0' ? "no answer from the token server"
                                            : "no answer from the metadata server",
                         r->reason, hint);
}

/* Fetches a token; *seconds is how long it is valid. */
static t4_status
fetch(struct gcs_auth *a, struct t4_call *call, uint64_t timeout_ns,
      struct http_bytes *token, int64_t *seconds)
{
    struct gcs_credentials credentials = {0};
    struct http_bytes form = {0};
    struct http_request request = {.timeout_ns = timeout_ns};
    struct http_response r = {0};
    t4_status st = T4_OK;

    if (a->file[0] != '\0') {
        st = read_credentials(a, call, &credentials);
        if (st != T4_OK)
            return st;
        st = token_form(a, call, &credentials, &form);
        if (st != T4_OK)
            goto done;
        request.method = "POST";
        request.url = credentials.token_uri.data;
        request.headers[request.n_headers++] =
            "Content-Type: application/x-www-form-urlencoded";
        request.body[0] = gcs_slice(&form);
        request.has_body = true;
    } else {
        request.method = "GET";
        request.url = a->metadata;
        request.headers[request.n_headers++] = "Metadata-Flavor: Google";
        request.direct = true;
    }
    st = http_perform(a->http, call, &request, &r);
    if (st != T4_OK)
        st = no_answer(a, call, st, &r);
    else if (r.status != 200)
        st = refused(a, call, &r);
    else if (!json_access_token(gcs_slice(&r.body), token, seconds))
        st = a->host->fail(call, T4_E_UNAVAILABLE,
                           "the token server's answer holds no access token", NULL, NULL);
done:
    http_response_free(&r);
    http_bytes_wipe(&form);
    gcs_credentials_wipe(&credentials);
    return st;
}

/* --- the cache ---------------------------------------------------------------------- */

/* [lock], released meanwhile.  A failure while the old token is valid changes nothing. */
static t4_status
refresh(struct gcs_auth *a, struct t4_call *call, bool valid)
{
    struct http_bytes token = {0};
    uint64_t now, life;
    int64_t seconds = 0;
    t4_status st;

    a->refreshing = true;
    pthread_mutex_unlock(&a->lock);
    now = a->host->now_ns(); /* before the request: it is valid at least that long */
    st = fetch(a, call, valid ? AHEAD_TIMEOUT_NS : FETCH_TIMEOUT_NS, &token, &seconds);
    pthread_mutex_lock(&a->lock);
    a->refreshing = false;
    pthread_cond_broadcast(&a->changed);
    if (st == T4_OK) {
        life = (uint64_t)seconds * SECOND;
        http_bytes_wipe(&a->token);
        a->token = token;
        a->serial++;
        a->end_ns = now + life;
        a->refresh_ns = a->end_ns - (life / 2 < AHEAD_NS ? life / 2 : AHEAD_NS);
        return T4_OK;
    }
    http_bytes_wipe(&token);
    if (valid) {
        a->refresh_ns = a->host->now_ns() + AGAIN_NS;
        a->host->log(
            a->host, T4_LOG_WARN,
            "the access token could not be renewed; the one at hand is still valid");
    }
    return st;
}

/* [lock], released meanwhile: until another thread's refresh is done, or a moment. */
static t4_status
wait_for_other(struct gcs_auth *a, struct t4_call *call)
{
    uint64_t end = a->host->deadline_ns(call);
    struct timespec until;

    if (a->host->cancelled(call))
        return a->host->fail(call, T4_E_CANCELLED, "cancelled", NULL, NULL);
    if (end != 0 && a->host->now_ns() >= end)
        return a->host->fail(call, T4_E_TIMEOUT, "no access token in time", NULL, NULL);
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_nsec += WAIT_NS;
    if (until.tv_nsec >= (long)SECOND) {
        until.tv_nsec -= (long)SECOND;
        until.tv_sec++;
    }
    pthread_cond_timedwait(&a->changed, &a->lock, &until);
    return T4_OK;
}

t4_status
gcs_auth_header(struct gcs_auth *a, struct t4_call *call, uint64_t refused_serial,
                struct http_bytes *header, uint64_t *serial)
{
    t4_status st = T4_OK;

    pthread_mutex_lock(&a->lock);
    if (refused_serial != 0 && refused_serial == a->serial)
        a->end_ns = a->refresh_ns = 0;
    while (st == T4_OK) {
        uint64_t now = a->host->now_ns();
        bool valid = a->token.len > 0 && now < a->end_ns;

        if (valid && (now < a->refresh_ns || a->refreshing))
            break;
        st = a->refreshing ? wait_for_other(a, call) : refresh(a, call, valid);
        if (valid)
            st = T4_OK;
    }
    if (st == T4_OK && !(http_bytes_text(header, "Authorization: Bearer ") &&
                         http_bytes_add(header, a->token.data, a->token.len)))
        st = T4_E_NOMEM;
    *serial = a->serial;
    pthread_mutex_unlock(&a->lock);
    return st;
}

/* --- open and close ----------------------------------------------------------------- */

/* gcloud's own file, if there is one. */
static void
find_well_known(char *path, size_t size)
{
    const char *folder = getenv("CLOUDSDK_CONFIG"), *home = getenv("HOME");
    FILE *f;

    path[0] = '\0';
    if (folder != NULL && folder[0] != '\0')
        snprintf(path, size, "%s/application_default_credentials.json", folder);
    else if (home != NULL && home[0] != '\0')
        snprintf(path, size, "%s/.config/gcloud/application_default_credentials.json",
                 home);
    f = path[0] != '\0' ? fopen(path, "rbe") : NULL;
    if (f != NULL)
        fclose(f);
    else
        path[0] = '\0';
}

t4_status
gcs_auth_open(const struct t4_host *host, struct http_client *http, struct t4_call *call,
              const char *credentials_file, struct gcs_auth **out)
{
    const char *named = getenv("GOOGLE_APPLICATION_CREDENTIALS");
    const char *metadata = getenv("GCE_METADATA_HOST");
    struct gcs_credentials credentials = {0};
    pthread_condattr_t attributes;
    struct gcs_auth *a;
    t4_status st;

    a = host->alloc(host, sizeof *a);
    if (a == NULL)
        return T4_E_NOMEM;
    memset(a, 0, sizeof *a);
    a->host = host;
    a->http = http;
    pthread_mutex_init(&a->lock, NULL);
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&a->changed, &attributes);
    pthread_condattr_destroy(&attributes);

    if (credentials_file[0] != '\0')
        snprintf(a->file, sizeof a->file, "%s", credentials_file);
    else if (named != NULL && named[0] != '\0')
        snprintf(a->file, sizeof a->file, "%s", named);
    else if (metadata == NULL || metadata[0] == '\0')
        find_well_known(a->file, sizeof a->file);
    snprintf(a->metadata, sizeof a->metadata, "http://%s" METADATA_PATH,
             metadata != NULL && metadata[0] != '\0' ? metadata : METADATA_HOST);
    if (a->file[0] != '\0') { /* what is wrong with it is better said now */
        struct http_bytes form = {0};

        st = read_credentials(a, call, &credentials);
        if (st == T4_OK)
            st = token_form(a, call, &credentials, &form);
        http_bytes_wipe(&form);
        gcs_credentials_wipe(&credentials);
        if (st != T4_OK)
            goto fail_auth;
    }
    *out = a;
    return T4_OK;

fail_auth:
    gcs_auth_close(a);
    return st;
}

void
gcs_auth_close(struct gcs_auth *a)
{
    if (a == NULL)
        return;
    http_bytes_wipe(&a->token);
    pthread_cond_destroy(&a->changed);
    pthread_mutex_destroy(&a->lock);
    a->host->free(a->host, a);
}

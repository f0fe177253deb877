/*
 * gcs.h - the plugin's own interfaces (private to this folder).
 *
 *   gcs.c      descriptor, settings, open and close, URLs
 *   answer.c   what a status of HTTP means; texts of failures
 *   object.c   get, head, remove, list
 *   put.c      put: one request up to 8 MiB, a resumable session above
 *   auth.c     access tokens: sources, cache, refresh;  jwt.c  signing
 *   json.c     reading JSON
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef GCS_GCS_H
#define GCS_GCS_H

#include "http_common/http_client.h"
#include "json.h"

#define GCS_MAX_NAME 1024 /* bytes of an object's name: prefix and key */
#define GCS_MAX_URL 2048  /* of the endpoint and of other servers' addresses */

struct gcs_auth;
struct gcs_op;

static inline struct t4_slice
gcs_slice(const struct http_bytes *b)
{
    return (struct t4_slice){(const uint8_t *)b->data, b->len};
}

struct gcs { /* the plugin's state: what load() gives; constant after that */
    const struct t4_host *host;
    struct http_client *http;
    struct gcs_auth *auth; /* NULL: requests carry no credentials */
    char endpoint[GCS_MAX_URL];
    char user_project[256]; /* "" = none */
    uint64_t upload_chunk;  /* bytes of one request of a resumable upload */
};

struct t4_store { /* constant */
    const struct gcs *gcs;
    char bucket[256];
    char prefix[GCS_MAX_NAME + 2]; /* "" or "some/prefix/" */
    size_t prefix_length;
};

/* --- gcs.c ---------------------------------------------------------------------------- */

/* http on this machine only: a token must not travel in the open. */
bool gcs_url_is_private(const char *url);
/* Appends prefix and key to *name; INVALID if there cannot be such an object, reported. */
t4_status gcs_name(const struct gcs_op *op, struct http_bytes *name);
/* <endpoint>[/upload]/storage/v1/b/<bucket>/o[/<name>]?[userProject=...&]; name NULL: none. */
bool gcs_url(const struct t4_store *s, const char *upload, const struct http_bytes *name,
             struct http_bytes *url);

/* --- answer.c ------------------------------------------------------------------------- */

enum gcs_effect {
    GCS_READ,  /* may be asked again by anyone */
    GCS_WRITE, /* whatever is not certain becomes UNKNOWN */
};
/* What is being done, for reports and for the meaning of failures. */
struct gcs_op {
    struct t4_store *store;
    struct t4_call *call;
    struct t4_slice key; /* may be empty */
    enum gcs_effect effect;
};

/*
 * http_perform() with credentials; a 401 fetches a new token and asks once more (a request that
 * was refused was not carried out).  OK: an answer came, of whatever status.  Else the failure
 * has been reported and means what the contract says.  Uses one more header of the request.
 */
t4_status gcs_perform(const struct gcs_op *op, struct http_request *request,
                      struct http_response *out);
/* Reports an answer that is not the wanted one. */
t4_status gcs_refused(const struct gcs_op *op, const struct http_response *r);
t4_status gcs_fail(const struct gcs_op *op, t4_status st, const char *detail,
                   const char *hint);

/* --- object.c, put.c ------------------------------------------------------------------ */

t4_status gcs_get(struct t4_store *s, struct t4_call *call, struct t4_slice key,
                  uint64_t offset, uint64_t length, t4_sink_fn *sink, void *arg,
                  struct t4_object_info *info);
t4_status gcs_head(struct t4_store *s, struct t4_call *call, struct t4_slice key,
                   struct t4_object_info *info);
t4_status gcs_remove(struct t4_store *s, struct t4_call *call,
                     const struct t4_slice *keys, size_t n);
t4_status gcs_list(struct t4_store *s, struct t4_call *call, struct t4_slice prefix,
                   struct t4_slice after, uint32_t max, t4_list_fn *fn, void *arg);
t4_status gcs_put(struct t4_store *s, struct t4_call *call, const struct t4_put *put,
                  struct t4_object_info *info);

/* --- auth.c, jwt.c -------------------------------------------------------------------- */

/* credentials_file "": the environment's, gcloud's, else the metadata server.  INVALID, NOMEM
 * with a report. */
t4_status gcs_auth_open(const struct t4_host *host, struct http_client *http,
                        struct t4_call *call, const char *credentials_file,
                        struct gcs_auth **out);
void gcs_auth_close(struct gcs_auth *a);
/*
 * Appends the line "Authorization: Bearer ..." with a token that is valid now.  *serial tells
 * tokens apart; `refused` is the serial of one that the server did not take, or 0.  Errors are
 * those of no write: DENIED, UNAVAILABLE, BUSY, TIMEOUT, CANCELLED, NOMEM, INVALID; reported.
 */
t4_status gcs_auth_header(struct gcs_auth *a, struct t4_call *call, uint64_t refused,
                          struct http_bytes *header, uint64_t *serial);

/* Appends a signed JWT for the token server, valid for an hour from `now` (seconds since 1970).
 * INVALID: the private key is none; NOMEM. */
t4_status gcs_jwt(const struct gcs_credentials *c, int64_t now, struct http_bytes *out);

#endif

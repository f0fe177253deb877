/*
 * json.h - what the JSON texts of Google's servers say: objects, listings, errors, tokens,
 * credentials files.
 *
 * Pure functions over bytes from outside; any thread.  Target of regress/fuzz/gcs_json_fuzz.c.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef GCS_JSON_H
#define GCS_JSON_H

#include "http_common/http_client.h"

#define GCS_MAX_TAG 19          /* digits of a generation, which has 63 bits */
#define GCS_MAX_TOKEN 16384     /* bytes of an access token */
#define GCS_MAX_PAGE_TOKEN 4096 /* bytes of the mark where the next page begins */
#define GCS_MAX_FIELD 16384     /* bytes of a field of a credentials file */

/* Is it a generation that an object can have: decimal, above 0, within 63 bits? */
bool json_is_generation(struct t4_slice text);

/* An object's metadata; false: generation or size are missing or no numbers. */
bool json_object_info(struct t4_slice text, struct t4_object_info *info);

/*
 * One page of a listing.  Each item goes to fn, whose error ends the call; next_page (empty at
 * first) gets the mark of the next page.  CORRUPT: not a page; NOMEM.
 */
t4_status json_list_page(struct t4_slice text, t4_list_fn *fn, void *arg,
                         struct http_bytes *next_page);

/* Why a request was refused: fields are empty where the text does not say. */
struct gcs_refusal {
    char reason[64];   /* "conditionNotMet", "rateLimitExceeded", "invalid_grant" */
    char message[256]; /* printable */
};
/* A body of an error, JSON or plain text, of the storage or of the token server. */
void json_refusal(struct t4_slice text, struct gcs_refusal *out);

/* The answer of a token server: appends the token; false: there is none to use. */
bool json_access_token(struct t4_slice text, struct http_bytes *token, int64_t *seconds);

enum gcs_credentials_type {
    GCS_SERVICE_ACCOUNT = 1,
    GCS_AUTHORIZED_USER = 2,
};
struct gcs_credentials {
    enum gcs_credentials_type type;
    struct http_bytes token_uri;
    struct http_bytes client_email, private_key_id, private_key; /* SERVICE_ACCOUNT */
    struct http_bytes client_id, client_secret, refresh_token;   /* AUTHORIZED_USER */
};
/* INVALID with *why set to a static text: what is wrong with the file; NOMEM. */
t4_status json_credentials(struct t4_slice text, struct gcs_credentials *out,
                           const char **why);
void gcs_credentials_wipe(struct gcs_credentials *c);

#endif

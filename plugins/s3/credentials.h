/*
 * credentials.h - whose requests these are: sources of credentials, kept fresh (private to the
 * plugin).
 *
 * Sources, the first that is configured: the settings s3.access_key_id and
 * s3.secret_access_key (with s3.session_token); s3.profile; AWS_ACCESS_KEY_ID and its kin; a
 * web-identity token (AWS_WEB_IDENTITY_TOKEN_FILE, AWS_ROLE_ARN); the shared files; the
 * instance's metadata.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef S3_CREDENTIALS_H
#define S3_CREDENTIALS_H

#include "http_common/http_client.h"
#include "text.h"

#define CREDENTIALS_ID_ROOM 256
#define CREDENTIALS_SECRET_ROOM 512
#define CREDENTIALS_TOKEN_ROOM 8192

struct credentials {
    char id[CREDENTIALS_ID_ROOM];
    char secret[CREDENTIALS_SECRET_ROOM];
    char token[CREDENTIALS_TOKEN_ROOM]; /* "" with permanent keys */
    int64_t expires_ms;                 /* 0: not known or never */
};

enum credentials_kind {
    CREDENTIALS_FIXED,    /* given at open: settings or environment */
    CREDENTIALS_FILES,    /* a profile of the shared files */
    CREDENTIALS_IDENTITY, /* STS for a token in a file */
    CREDENTIALS_METADATA  /* of the instance */
};

#define CREDENTIALS_PATH_ROOM 1024
/* Where to ask.  Filled by credentials_choose(), constant afterwards. */
struct credentials_source {
    enum credentials_kind kind;
    char words[160]; /* "the environment", for messages */
    struct credentials fixed;
    char credentials_file[CREDENTIALS_PATH_ROOM], config_file[CREDENTIALS_PATH_ROOM];
    char profile[128];
    char token_file[CREDENTIALS_PATH_ROOM]; /* web identity */
    char role[512], session[128];
    char sts_url[512], metadata_url[512];
};

/* What the settings say; "" is not set. */
struct credentials_settings {
    const char *access_key_id, *secret_access_key, *session_token, *profile;
};

/*
 * Chooses the source and, from the profile, what else it sets: `region` and `endpoint` are
 * filled if they are "" and the profile has them.  INVALID: half of a pair, a profile that is
 * not there or cannot be used.
 */
t4_status credentials_choose(const struct t4_host *host, struct t4_call *call,
                             const struct credentials_settings *settings,
                             struct credentials_source *out, char *region,
                             size_t region_room, char *endpoint, size_t endpoint_room);
/* After the region is known. */
void credentials_choose_sts(struct credentials_source *source, const char *region);

/* Fetches from the source, once.  Errors are reported; no secret is in the words. */
t4_status credentials_fetch(const struct t4_host *host, struct http_client *client,
                            struct t4_call *call, const struct credentials_source *source,
                            struct credentials *out);

/* The current credentials of a store; any thread. */
struct credentials_keeper;
struct credentials_keeper *credentials_keep(const struct t4_host *host,
                                            struct http_client *client,
                                            const struct credentials_source *source);
void credentials_forget(struct credentials_keeper *keeper); /* frees; wipes */
/*
 * Copies credentials that are valid now, fetching them if need be; renews them in time.  The
 * caller wipes *out.  TIMEOUT, CANCELLED, or what fetching said: nothing was sent to the store.
 */
t4_status credentials_get(struct credentials_keeper *keeper, struct t4_call *call,
                          struct credentials *out);
/* The store refused the credentials with this id: fetch new ones next time. */
void credentials_refused(struct credentials_keeper *keeper, const char *id);
const char *credentials_words(const struct credentials_keeper *keeper);

#endif

/*
 * store.h - what the files of the S3 plugin share (private).
 *
 *   s3.c        descriptor, settings, open and close
 *   object.c    put, get, head        multipart.c  put of large bodies
 *   bulk.c      remove, list
 *   request.c   one signed request, its answer's meaning
 *   keeper.c, sources.c  credentials
 *   pure: sign.c address.c explain.c xml.c text.c files.c
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef S3_STORE_H
#define S3_STORE_H

#include <stdatomic.h>

#include "address.h"
#include "credentials.h"
#include "explain.h"
#include "sign.h"
#include "xml.h"

struct t4_store {
    const struct t4_host *host;        /* [const] */
    struct address address;            /* [const] */
    char region[64];                   /* [const] */
    struct credentials_source source;  /* [const] */
    struct http_client *client;        /* [const] */
    struct credentials_keeper *keeper; /* [const] */
    _Atomic bool no_bulk_remove;       /* the store has no DeleteObjects */
};

/* --- request.c ------------------------------------------------------------------------ */

#define REQUEST_FIELDS 8
struct request {
    const char *method;
    const char *permission; /* s3:PutObject, for the hints */
    struct t4_slice key;    /* of the host; empty: the bucket itself */
    struct sign_field query[REQUEST_FIELDS];
    struct sign_field header[REQUEST_FIELDS]; /* lower case */
    size_t n_query, n_header;
    struct t4_slice body;
    bool has_body;
    enum explain_effect effect;
    size_t limit; /* bytes of a 2xx body that are taken, unless there is a sink; 0: few */
    t4_sink_fn *sink;
    void *sink_arg;
    t4_status (*begin)(void *sink_arg,
                       const struct http_response *); /* before the sink */
    uint64_t
        detached_ms; /* cleaning up: this long, whatever the call's deadline; else 0 */
};

struct reply {
    struct http_response http;
    struct text_head head;
    struct xml_error error; /* of an answer that is not 2xx */
    char message[1600], hint[512];
    bool has_words; /* for request_fail() */
};

/*
 * Sends a request.  T4_OK: the answer is 2xx and complete.  Else the contract's status, and the
 * words are in the reply; the sink's own status comes back as it is.  The caller ends the reply
 * in any case.
 */
t4_status request_run(struct t4_store *s, struct t4_call *call, const struct request *r,
                      struct reply *reply);
/* Reports the reply's words. */
t4_status request_fail(struct t4_store *s, struct t4_call *call, t4_status status,
                       const struct reply *reply);
void request_end(struct reply *reply);

/*
 * INVALID, reported: not a key, too long with the prefix, or one that a store might take for
 * another.  folder: "a/" is none of those; consoles make such objects, and they can be removed.
 */
t4_status request_check_key(struct t4_store *s, struct t4_call *call, struct t4_slice key,
                            bool folder);
static inline struct t4_slice
reply_body(const struct reply *reply)
{
    return text_slice(reply->http.body.data != NULL ? reply->http.body.data : "",
                      reply->http.body.len);
}

/* --- object.c, multipart.c, bulk.c ----------------------------------------------------- */

/* Copies as much of `from` as *to has room for; to may be NULL. */
void object_info_give(struct t4_object_info *to, const struct t4_object_info *from);
/* Adds the header of the put's condition. */
void object_condition(struct request *r, const struct t4_put *put,
                      char tag[T4_TAG_MAX + 1]);

#define MULTIPART_ABOVE ((size_t)64 << 20) /* larger bodies go in parts */
t4_status multipart_put(struct t4_store *s, struct t4_call *call,
                        const struct t4_put *put, struct t4_object_info *info);

t4_status store_put(struct t4_store *s, struct t4_call *call, const struct t4_put *put,
                    struct t4_object_info *info);
t4_status store_get(struct t4_store *s, struct t4_call *call, struct t4_slice key,
                    uint64_t offset, uint64_t length, t4_sink_fn *sink, void *arg,
                    struct t4_object_info *info);
t4_status store_head(struct t4_store *s, struct t4_call *call, struct t4_slice key,
                     struct t4_object_info *info);
t4_status store_remove(struct t4_store *s, struct t4_call *call,
                       const struct t4_slice *keys, size_t n);
t4_status store_list(struct t4_store *s, struct t4_call *call, struct t4_slice prefix,
                     struct t4_slice after, uint32_t max, t4_list_fn *fn, void *arg);

#endif

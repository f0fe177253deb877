/*
 * multipart.c - put of a body above 64 MiB: in parts, made an object by one request.
 *
 * Until CompleteMultipartUpload nothing is to be seen under the key, so every failure before
 * it means that the put was certainly not carried out, and parts may be sent again.  The
 * condition travels with that last request, which like any put goes out at most once.
 *
 * An upload that is not completed is aborted, or its parts would be kept (and charged) for
 * ever.  What a crash, or an outage that outlasts the call, leaves is for a lifecycle rule of
 * the bucket.
 *
 * Entry point: multipart_put().  Any thread.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "store.h"

#define PART ((size_t)16 << 20) /* S3 takes 5 MiB to 5 GiB, at most 10,000 of them */
#define PART_TRIES 3
#define UPLOAD_ID_ROOM 2048
#define ABORT_MS 5000u
#define ABORT_LATE_MS 500u /* when the call's time is over already */

struct tag {
    char text[TEXT_TAG_ROOM];
};

static t4_status
begin(struct t4_store *s, struct t4_call *call, struct t4_slice key, char *id)
{
    struct request r = {
        .method = "POST",
        .permission = "s3:PutObject",
        .key = key,
        .query = {{"uploads", ""}},
        .n_query = 1,
        .has_body = true,
    };
    struct xml_want want = {"InitiateMultipartUploadResult/UploadId", id, UPLOAD_ID_ROOM,
                            false};
    struct reply reply;
    t4_status st = request_run(s, call, &r, &reply);

    if (st != T4_OK)
        st = request_fail(s, call, st, &reply);
    else if (!xml_texts(reply_body(&reply), &want, 1) || !want.found || id[0] == '\0')
        st = s->host->fail(call, T4_E_UNSUPPORTED,
                           "the store's answer to CreateMultipartUpload cannot be read",
                           NULL, "bodies above 64 MiB need multipart uploads");
    request_end(&reply);
    return st;
}

static t4_status
send_part(struct t4_store *s, struct t4_call *call, const struct t4_put *put,
          const char *id, size_t i, struct tag *tag)
{
    char number[24];
    size_t at = i * PART;
    struct request r = {
        .method = "PUT",
        .permission = "s3:PutObject",
        .key = put->key,
        .query = {{"partNumber", number}, {"uploadId", id}},
        .n_query = 2,
        .body = {put->body.data + at,
                 put->body.len - at < PART ? put->body.len - at : PART},
        .has_body = true,
    };
    struct reply reply;
    t4_status st;

    snprintf(number, sizeof number, "%zu", i + 1);
    for (int tries = 1;; tries++) {
        st = request_run(s, call, &r, &reply);
        if (st != T4_E_UNAVAILABLE || tries == PART_TRIES)
            break;
        request_end(&reply);
    }
    if (st != T4_OK)
        st = request_fail(s, call, st, &reply);
    else if (reply.head.tag[0] == '\0')
        st = s->host->fail(call, T4_E_UNSUPPORTED,
                           "the store gave no usable ETag for a part", NULL,
                           "bodies above 64 MiB need multipart uploads");
    else
        memcpy(tag->text, reply.head.tag, sizeof tag->text);
    request_end(&reply);
    return st;
}

/* An answer of 200 may still be an error: S3 begins to answer before it knows. */
static t4_status
completed(struct t4_store *s, struct t4_call *call, struct reply *reply, char *tag)
{
    struct xml_want want = {"CompleteMultipartUploadResult/ETag", tag, TEXT_TAG_ROOM,
                            false};
    struct xml_error e;
    char message[700];

    if (xml_texts(reply_body(reply), &want, 1) && want.found && tag[0] != '\0')
        return T4_OK;
    if (!xml_error(reply_body(reply), &e))
        return s->host->fail(
            call, T4_E_UNKNOWN,
            "the store's answer to CompleteMultipartUpload cannot be read", NULL, NULL);
    snprintf(message, sizeof message, "CompleteMultipartUpload: %s: %s", e.code,
             e.message);
    return s->host->fail(call,
                         strcmp(e.code, "PreconditionFailed") == 0 ? T4_E_PRECONDITION
                                                                   : T4_E_UNKNOWN,
                         message, NULL, NULL);
}

static bool
list_parts(const struct tag *tags, size_t n, struct str *body)
{
    bool ok = true;

    str_addz(body, "<CompleteMultipartUpload "
                   "xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">");
    for (size_t i = 0; i < n && ok; i++) {
        str_addf(body, "<Part><PartNumber>%zu</PartNumber><ETag>", i + 1);
        ok = xml_escape(body, text_slice(tags[i].text, strlen(tags[i].text)));
        str_addz(body, "</ETag></Part>");
    }
    str_addz(body, "</CompleteMultipartUpload>");
    return ok && !body->failed;
}

static t4_status
complete(struct t4_store *s, struct t4_call *call, const struct t4_put *put,
         const char *id, const struct tag *tags, size_t n, struct t4_object_info *info)
{
    struct request r = {
        .method = "POST",
        .permission = "s3:PutObject",
        .key = put->key,
        .query = {{"uploadId", id}},
        .n_query = 1,
        .has_body = true,
        .effect = EXPLAIN_PUT,
    };
    struct t4_object_info made = {.size = sizeof made, .length = put->body.len};
    char condition[T4_TAG_MAX + 1], tag[TEXT_TAG_ROOM];
    struct str body = {0};
    struct reply reply;
    t4_status st;

    if (!list_parts(tags, n, &body)) {
        str_free(&body);
        return s->host->fail(call, T4_E_NOMEM, "no memory for the list of parts", NULL,
                             NULL);
    }
    r.body = text_slice(body.data, body.length);
    object_condition(&r, put, condition);
    st = request_run(s, call, &r, &reply);
    if (st != T4_OK)
        st = request_fail(s, call, st, &reply);
    else
        st = completed(s, call, &reply, tag);
    if (st == T4_OK) {
        made.date_ms = reply.http.date_ms;
        made.tag_length = (uint32_t)strlen(tag);
        memcpy(made.tag, tag, made.tag_length);
        object_info_give(info, &made);
    }
    request_end(&reply);
    str_free(&body);
    return st;
}

/* Best effort; says nothing, so that the words of the failure before it stay. */
static void
abandon(struct t4_store *s, struct t4_call *call, struct t4_slice key, const char *id)
{
    uint64_t deadline = s->host->deadline_ns(call);
    bool late = s->host->cancelled(call) ||
                (deadline != 0 && s->host->now_ns() + ABORT_MS * 1000000ull >= deadline);
    struct request r = {
        .method = "DELETE",
        .permission = "s3:AbortMultipartUpload",
        .key = key,
        .query = {{"uploadId", id}},
        .n_query = 1,
        .detached_ms = late ? ABORT_LATE_MS : ABORT_MS,
    };
    struct reply reply;

    request_run(s, call, &r, &reply);
    request_end(&reply);
}

t4_status
multipart_put(struct t4_store *s, struct t4_call *call, const struct t4_put *put,
              struct t4_object_info *info)
{
    size_t n = (put->body.len + PART - 1) / PART;
    char id[UPLOAD_ID_ROOM];
    struct tag *tags = calloc(n, sizeof *tags);
    t4_status st;

    if (tags == NULL)
        return s->host->fail(call, T4_E_NOMEM, "no memory for the list of parts", NULL,
                             NULL);
    st = begin(s, call, put->key, id);
    if (st == T4_OK) {
        for (size_t i = 0; i < n && st == T4_OK; i++)
            st = send_part(s, call, put, id, i, &tags[i]);
        if (st == T4_OK)
            st = complete(s, call, put, id, tags, n, info);
        if (st != T4_OK)
            abandon(s, call, put->key, id);
    }
    free(tags);
    return st;
}

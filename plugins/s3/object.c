/*
 * object.c - put, get and head of one object.
 *
 * Invariants:
 *  (1) A put is one request, or for large bodies one request that makes the object appear
 *      (multipart.c); it is never repeated here.
 *  (2) get() passes on exactly the bytes that were asked for, checked against the range and
 *      the length that the store names; anything else is CORRUPT, not a short object.
 *  (3) The answer to HEAD has no body, and so not the reason of a failure: the reason is asked
 *      for by a GET of one byte.  Without it a missing bucket would look like a missing key.
 *
 *
 * Entry points: store_put(), store_get(), store_head().  Any thread.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <stdio.h>
#include <string.h>

#include "store.h"

#define BODY_MOST ((uint64_t)5 << 30)
#define TRIES 3 /* of reads that meet an object in the moment of its change */

void
object_info_give(struct t4_object_info *to, const struct t4_object_info *from)
{
    uint32_t size;

    if (to == NULL)
        return;
    size = to->size < sizeof *to ? to->size : (uint32_t)sizeof *to;
    if (size < sizeof to->size)
        return;
    memcpy(to, from, size);
    to->size = size;
}

static void
info_of_reply(struct t4_object_info *info, const struct reply *reply, uint64_t length)
{
    const struct text_head *head = &reply->head;

    *info = (struct t4_object_info){
        .size = sizeof *info,
        .tag_length = (uint32_t)strlen(head->tag),
        .length = length,
        .modified_ms = head->modified_ms,
        .date_ms = reply->http.date_ms,
    };
    memcpy(info->tag, head->tag, info->tag_length);
}

/* --- put ----------------------------------------------------------------------------- */

static t4_status
check_put(struct t4_store *s, struct t4_call *call, const struct t4_put *put)
{
    t4_status st = request_check_key(s, call, put->key, false);

    if (st != T4_OK)
        return st;
    if (put->condition > T4_PUT_IF_MATCH)
        return s->host->fail(call, T4_E_UNSUPPORTED, "a put's condition is unknown", NULL,
                             NULL);
    if (put->condition == T4_PUT_IF_MATCH &&
        (put->if_match.len == 0 || put->if_match.len > T4_TAG_MAX ||
         !text_is_header((const char *)put->if_match.data, put->if_match.len)))
        return s->host->fail(call, T4_E_INVALID, "a put's tag is none of S3's", NULL,
                             NULL);
    if (put->body.len > BODY_MOST)
        return s->host->fail(call, T4_E_INVALID, "a body is larger than 5 GiB", NULL,
                             NULL);
    return T4_OK;
}

void
object_condition(struct request *r, const struct t4_put *put, char tag[T4_TAG_MAX + 1])
{
    if (put->condition == T4_PUT_IF_ABSENT)
        r->header[r->n_header++] = (struct sign_field){"if-none-match", "*"};
    if (put->condition == T4_PUT_IF_MATCH &&
        text_copy(put->if_match, tag, T4_TAG_MAX + 1))
        r->header[r->n_header++] = (struct sign_field){"if-match", tag};
}

t4_status
store_put(struct t4_store *s, struct t4_call *call, const struct t4_put *put,
          struct t4_object_info *info)
{
    struct request r = {
        .method = "PUT",
        .permission = "s3:PutObject",
        .key = put->key,
        .body = put->body,
        .has_body = true,
        .effect = EXPLAIN_PUT,
    };
    struct t4_object_info made;
    char tag[T4_TAG_MAX + 1];
    struct reply reply;
    t4_status st = check_put(s, call, put);

    if (st != T4_OK)
        return st;
    if (put->body.len > MULTIPART_ABOVE)
        return multipart_put(s, call, put, info);
    object_condition(&r, put, tag);
    st = request_run(s, call, &r, &reply);
    if (st != T4_OK) {
        st = request_fail(s, call, st, &reply);
    } else if (reply.head.tag[0] == '\0') {
        st = s->host->fail(call, T4_E_UNKNOWN, "the store gave no usable ETag for a put",
                           NULL,
                           "it cannot be used with t4 unless it gives ETags of at most "
                           "128 bytes");
    } else {
        info_of_reply(&made, &reply, put->body.len);
        object_info_give(info, &made);
    }
    request_end(&reply);
    return st;
}

/* --- head ---------------------------------------------------------------------------- */

/* Why HEAD answered as it did (3).  T4_OK: the object is there after all. */
static t4_status
ask_reason(struct t4_store *s, struct t4_call *call, struct t4_slice key)
{
    struct request r = {
        .method = "GET",
        .permission = "s3:GetObject",
        .key = key,
        .header = {{"range", "bytes=0-0"}},
        .n_header = 1,
    };
    struct reply reply;
    t4_status st = request_run(s, call, &r, &reply);

    if (st != T4_OK && reply.http.status != 416) /* that one: it is empty */
        st = request_fail(s, call, st, &reply);
    else
        st = T4_OK;
    request_end(&reply);
    return st;
}

/* The answer to HEAD that is a success, or the reason of its failure, reported. */
static t4_status
head_object(struct t4_store *s, struct t4_call *call, struct t4_slice key,
            struct t4_object_info *info)
{
    struct request r = {.method = "HEAD", .permission = "s3:GetObject", .key = key};
    struct reply reply;
    t4_status st = T4_OK;

    for (int i = 0; i < TRIES && st == T4_OK; i++) {
        int status;

        st = request_run(s, call, &r, &reply);
        status = reply.http.status;
        if (st == T4_OK && (reply.head.tag[0] == '\0' || reply.http.length < 0)) {
            request_end(&reply);
            return s->host->fail(call, T4_E_UNSUPPORTED,
                                 "the store answers HEAD without ETag or Content-Length",
                                 NULL, NULL);
        }
        if (st == T4_OK) {
            info_of_reply(info, &reply, (uint64_t)reply.http.length);
            request_end(&reply);
            return T4_OK;
        }
        if (reply.has_words && status >= 300 && status < 500 && status != 429)
            st = ask_reason(s, call, key);
        else
            st = request_fail(s, call, st, &reply);
        request_end(&reply);
    }
    if (st == T4_OK) /* HEAD and GET contradict each other */
        st =
            s->host->fail(call, T4_E_UNAVAILABLE, "an object comes and goes", NULL, NULL);
    return st;
}

t4_status
store_head(struct t4_store *s, struct t4_call *call, struct t4_slice key,
           struct t4_object_info *info)
{
    struct t4_object_info found;
    t4_status st = request_check_key(s, call, key, false);

    if (st == T4_OK)
        st = head_object(s, call, key, &found);
    if (st == T4_OK)
        object_info_give(info, &found);
    return st;
}

/* --- get ----------------------------------------------------------------------------- */

struct getting {
    bool whole;              /* the answer is 200: the object from its beginning */
    int64_t told;            /* Content-Length of the answer; -1: none */
    uint64_t offset, length; /* that are wanted */
    uint64_t seen;           /* bytes of the answer's body */
    uint64_t passed;         /* of these, on to the sink */
    bool enough;             /* all there is to pass on; the rest of the answer is not */
    t4_sink_fn *sink;
    void *arg;
};

static t4_status
on_begin(void *arg, const struct http_response *r)
{
    struct getting *g = arg;

    g->whole = r->status != 206;
    g->told = r->length;
    g->seen = g->passed = 0; /* libcurl may ask a second time before a byte has come */
    return T4_OK;
}

static t4_status
on_part(void *arg, struct t4_slice part)
{
    struct getting *g = arg;
    uint64_t skip = 0;
    t4_status st;

    /* A store that does not know ranges answers 200 with everything. */
    if (g->whole && g->seen < g->offset)
        skip = g->offset - g->seen < part.len ? g->offset - g->seen : part.len;
    g->seen += part.len;
    part.data += skip;
    part.len -= (size_t)skip;
    if (part.len > g->length - g->passed) {
        part.len = (size_t)(g->length - g->passed);
        g->enough = true;
    }
    if (part.len > 0) {
        st = g->sink(g->arg, part);
        if (st != T4_OK) {
            g->enough = false;
            return st;
        }
    }
    g->passed += part.len;
    return g->enough && g->told >= 0 ? T4_E_CANCELLED : T4_OK;
}

/* (2)  *total: the length of the whole object. */
static bool
is_what_was_wanted(const struct getting *g, const struct text_head *h, uint64_t *total)
{
    uint64_t left;

    if (!g->whole) {
        if (!h->has_range || !h->has_total || h->first != g->offset ||
            h->last >= h->total)
            return false;
        *total = h->total;
    } else {
        *total = g->told >= 0 ? (uint64_t)g->told : g->seen;
    }
    left = *total > g->offset ? *total - g->offset : 0;
    return g->passed == (left < g->length ? left : g->length);
}

static t4_status
get_once(struct t4_store *s, struct t4_call *call, struct t4_slice key, struct getting *g,
         struct t4_object_info *info, bool *behind_end)
{
    struct request r = {
        .method = "GET",
        .permission = "s3:GetObject",
        .key = key,
        .sink = on_part,
        .sink_arg = g,
        .begin = on_begin,
    };
    struct reply reply;
    uint64_t total;
    char range[64];
    t4_status st;

    if (g->length <= INT64_MAX - g->offset)
        snprintf(range, sizeof range, "bytes=%llu-%llu", (unsigned long long)g->offset,
                 (unsigned long long)(g->offset + g->length - 1));
    else
        snprintf(range, sizeof range, "bytes=%llu-", (unsigned long long)g->offset);
    if (g->offset > 0 || g->length <= INT64_MAX)
        r.header[r.n_header++] = (struct sign_field){"range", range};
    st = request_run(s, call, &r, &reply);
    *behind_end = st != T4_OK && reply.http.status == 416 && reply.has_words;
    if (st != T4_OK && !g->enough) {
        st = request_fail(s, call, st, &reply);
    } else if (reply.head.tag[0] == '\0') {
        st = s->host->fail(
            call, T4_E_UNSUPPORTED, "the store gave no usable ETag", NULL,
            "it cannot be used with t4 unless it gives ETags of at most 128 "
            "bytes");
    } else if (!is_what_was_wanted(g, &reply.head, &total)) {
        st = s->host->fail(
            call, T4_E_CORRUPT, "the store sent other bytes than those asked for", NULL,
            "a proxy or cache between here and the store may be the cause");
    } else {
        info_of_reply(info, &reply, total);
        st = T4_OK;
    }
    request_end(&reply);
    return st;
}

t4_status
store_get(struct t4_store *s, struct t4_call *call, struct t4_slice key, uint64_t offset,
          uint64_t length, t4_sink_fn *sink, void *arg, struct t4_object_info *info)
{
    struct getting g = {.offset = offset, .length = length, .sink = sink, .arg = arg};
    struct t4_object_info found;
    bool behind_end = true;
    t4_status st = request_check_key(s, call, key, false);

    for (int i = 0; i < TRIES && st == T4_OK && behind_end; i++) {
        /* Nothing can be there: what remains is what head() says. */
        behind_end = length == 0 || offset > INT64_MAX;
        if (!behind_end)
            st = get_once(s, call, key, &g, &found, &behind_end);
        if (!behind_end)
            break;
        st = head_object(s, call, key, &found);
        if (st == T4_OK && (found.length <= offset || length == 0))
            break;
        if (st == T4_OK && i + 1 == TRIES) /* it has grown each time */
            st = s->host->fail(call, T4_E_UNAVAILABLE, "an object changes too fast", NULL,
                               NULL);
    }
    if (st == T4_OK)
        object_info_give(info, &found);
    return st;
}

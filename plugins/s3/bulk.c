/*
 * bulk.c - remove and list: requests about many objects.
 *
 * Invariants:
 *  (1) list() gives what was asked for whatever the server makes of the request: keys outside
 *      the prefix and at or before `after` are left out, keys out of order refuse the store.
 *  (2) A page is read whole before its first key is passed on.
 *  (3) An absent key is removed successfully.
 *
 * Entry points: store_remove(), store_list().  Any thread.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "store.h"

#define REMOVE_MOST 1000u /* keys in one DeleteObjects */
#define PAGE_MOST 1000u   /* keys in one page of a list */
#define ANSWER_MOST ((size_t)16 << 20)

/* --- remove -------------------------------------------------------------------------- */

static t4_status
remove_one(struct t4_store *s, struct t4_call *call, struct t4_slice key)
{
    struct request r = {.method = "DELETE", .permission = "s3:DeleteObject", .key = key};
    struct reply reply;
    t4_status st = request_run(s, call, &r, &reply);

    if (st == T4_E_NOTFOUND)
        st = T4_OK; /* (3) */
    if (st != T4_OK)
        st = request_fail(s, call, st, &reply);
    request_end(&reply);
    return st;
}

/* False: a key that XML cannot hold, or no memory. */
static bool
list_keys(const struct t4_store *s, const struct t4_slice *keys, size_t n,
          struct str *body)
{
    bool ok = true;

    str_addz(body, "<Delete xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">"
                   "<Quiet>true</Quiet>");
    for (size_t i = 0; i < n && ok; i++) {
        str_addz(body, "<Object><Key>");
        ok = xml_escape(body, text_slice(s->address.root, s->address.root_length)) &&
             xml_escape(body, keys[i]);
        str_addz(body, "</Key></Object>");
    }
    str_addz(body, "</Delete>");
    return ok && !body->failed;
}

/* DeleteObjects wants a checksum; MD5 every server knows, but not every OpenSSL has it. */
static bool
add_checksum(struct request *r, char base64[64])
{
    uint8_t hash[EVP_MAX_MD_SIZE];
    unsigned n = 0;
    const char *name = "content-md5";

    if (EVP_Digest(r->body.data, r->body.len, hash, &n, EVP_md5(), NULL) != 1) {
        name = "x-amz-checksum-sha256";
        if (EVP_Digest(r->body.data, r->body.len, hash, &n, EVP_sha256(), NULL) != 1)
            return false;
    }
    EVP_EncodeBlock((uint8_t *)base64, hash, (int)n);
    r->header[r->n_header++] = (struct sign_field){name, base64};
    return true;
}

/* The answer of 200, in which each key may have failed for itself. */
static t4_status
removed(struct t4_store *s, struct t4_call *call, const struct reply *reply)
{
    struct xml_removed *result = malloc(sizeof *result);
    struct explain_case c = {
        .http_status = 400,
        .permission = "s3:DeleteObject",
        .bucket = s->address.bucket,
        .region = s->region,
        .region_told = "",
        .credentials = credentials_words(s->keeper),
    };
    char message[1900], hint[512];
    t4_status st = T4_OK;

    if (result == NULL)
        return s->host->fail(call, T4_E_NOMEM, "no memory for an answer", NULL, NULL);
    if (!xml_removed(reply_body(reply), result)) {
        st = s->host->fail(call, T4_E_UNAVAILABLE,
                           "the store's answer to DeleteObjects cannot be read", NULL,
                           NULL);
    } else if (result->failed > 0) {
        c.code = result->error.code;
        snprintf(message, sizeof message,
                 "DeleteObjects left %zu keys, the first %s: %s: %s", result->failed,
                 result->key, result->error.code, result->error.message);
        explain_hint(&c, hint, sizeof hint);
        st = s->host->fail(call, explain_status(400, result->error.code, EXPLAIN_NONE),
                           message, NULL, hint[0] != '\0' ? hint : NULL);
    }
    free(result);
    return st;
}

static t4_status
remove_each(struct t4_store *s, struct t4_call *call, const struct t4_slice *keys,
            size_t n)
{
    t4_status st = T4_OK;

    for (size_t i = 0; i < n && st == T4_OK; i++)
        st = remove_one(s, call, keys[i]);
    return st;
}

static t4_status
remove_some(struct t4_store *s, struct t4_call *call, const struct t4_slice *keys,
            size_t n)
{
    struct request r = {
        .method = "POST",
        .permission = "s3:DeleteObject",
        .query = {{"delete", ""}},
        .n_query = 1,
        .has_body = true,
        .limit = ANSWER_MOST,
    };
    struct str body = {0};
    struct reply reply;
    char checksum[64];
    t4_status st;

    if (!list_keys(s, keys, n, &body)) {
        st = body.failed
                 ? s->host->fail(call, T4_E_NOMEM, "no memory for the keys", NULL, NULL)
                 : remove_each(s, call, keys, n);
        str_free(&body);
        return st;
    }
    r.body = text_slice(body.data, body.length);
    if (!add_checksum(&r, checksum)) {
        str_free(&body);
        return s->host->fail(call, T4_E_INTERNAL, "OpenSSL computes no checksum", NULL,
                             NULL);
    }
    st = request_run(s, call, &r, &reply);
    if (st == T4_OK) {
        st = removed(s, call, &reply);
    } else if (reply.has_words && (st == T4_E_UNSUPPORTED || reply.http.status == 405 ||
                                   reply.http.status == 501)) {
        atomic_store(&s->no_bulk_remove, true);
        s->host->log(
            s->host, T4_LOG_INFO,
            "s3: the store has no DeleteObjects; objects are removed one by one");
        st = remove_each(s, call, keys, n);
    } else {
        st = request_fail(s, call, st, &reply);
    }
    request_end(&reply);
    str_free(&body);
    return st;
}

t4_status
store_remove(struct t4_store *s, struct t4_call *call, const struct t4_slice *keys,
             size_t n)
{
    t4_status st = T4_OK;

    for (size_t i = 0; i < n && st == T4_OK; i++)
        st = request_check_key(s, call, keys[i], true);
    for (size_t part; n > 0 && st == T4_OK; keys += part, n -= part) {
        part = n < REMOVE_MOST ? n : REMOVE_MOST;
        if (part == 1 || atomic_load(&s->no_bulk_remove))
            st = remove_each(s, call, keys, part);
        else
            st = remove_some(s, call, keys, part);
    }
    return st;
}

/* --- list ---------------------------------------------------------------------------- */

struct listing {
    struct str prefix, after; /* of the bucket: with the root */
    struct str last;          /* the key passed on or left out last */
    struct str token;         /* to go on with, if `length` */
    uint32_t left;            /* keys still wanted */
    bool more;                /* the store has more */
    t4_list_fn *fn;
    void *arg;
};

static int
compare(const struct str *a, const char *key, size_t n)
{
    size_t common = a->length < n ? a->length : n;
    int r = common > 0 ? memcmp(a->data, key, common) : 0;

    return r != 0 ? r : a->length < n ? -1 : a->length > n;
}

/* One object of a page; (1). */
static t4_status
pass_on(struct t4_store *s, struct t4_call *call, struct listing *l,
        const struct xml_list *page, const struct xml_object *o, int64_t date_ms)
{
    struct t4_object_info info = {
        .size = sizeof info,
        .tag_length = (uint32_t)strlen(o->tag),
        .length = o->length,
        .modified_ms = o->modified_ms,
        .date_ms = date_ms,
    };
    const char *key = page->keys.data + o->key;
    size_t root = s->address.root_length;

    if (l->last.length > 0 && compare(&l->last, key, o->key_length) >= 0)
        return s->host->fail(
            call, T4_E_UNSUPPORTED, "the store lists keys out of order, or twice", NULL,
            "directory buckets (S3 Express) do; use one of general purpose");
    l->last.length = 0;
    str_add(&l->last, key, o->key_length);
    if (l->last.failed)
        return s->host->fail(call, T4_E_NOMEM, "no memory for a list", NULL, NULL);
    if (o->key_length < l->prefix.length ||
        memcmp(key, str_text(&l->prefix), l->prefix.length) != 0 ||
        o->key_length == root ||
        (l->after.length > root && compare(&l->after, key, o->key_length) >= 0))
        return T4_OK;
    if (l->left == 0) {
        l->more = false;
        return T4_OK;
    }
    l->left--;
    memcpy(info.tag, o->tag, info.tag_length);
    return l->fn(l->arg, text_slice(key + root, o->key_length - root), &info);
}

static t4_status
list_page(struct t4_store *s, struct t4_call *call, struct listing *l)
{
    char most[16];
    struct request r = {
        .method = "GET",
        .permission = "s3:ListBucket",
        .query = {{"list-type", "2"}, {"encoding-type", "url"}, {"max-keys", most}},
        .n_query = 3,
        .limit = ANSWER_MOST,
    };
    struct xml_list page;
    struct reply reply;
    t4_status st;

    snprintf(most, sizeof most, "%u", l->left < PAGE_MOST ? l->left : PAGE_MOST);
    if (l->prefix.length > 0)
        r.query[r.n_query++] = (struct sign_field){"prefix", l->prefix.data};
    if (l->token.length > 0)
        r.query[r.n_query++] = (struct sign_field){"continuation-token", l->token.data};
    else if (l->last.length > 0)
        r.query[r.n_query++] = (struct sign_field){"start-after", l->last.data};
    else if (l->after.length > s->address.root_length)
        r.query[r.n_query++] = (struct sign_field){"start-after", l->after.data};
    st = request_run(s, call, &r, &reply);
    if (st != T4_OK) {
        st = request_fail(s, call, st, &reply);
        request_end(&reply);
        return st == T4_E_NOTFOUND ? T4_E_INVALID : st; /* no list says so of a key */
    }
    st = xml_list(reply_body(&reply), &page);
    if (st != T4_OK)
        st = s->host->fail(call, st,
                           st == T4_E_NOMEM ? "no memory for a list"
                                            : "the store's list cannot be read",
                           NULL, NULL);
    l->more = page.truncated;
    if (page.truncated && page.n == 0 && page.token.length == 0 && st == T4_OK)
        st = s->host->fail(call, T4_E_CORRUPT,
                           "the store's list does not say how to go on", NULL, NULL);
    for (size_t i = 0; i < page.n && st == T4_OK; i++)
        st = pass_on(s, call, l, &page, &page.object[i], reply.http.date_ms);
    str_free(&l->token);
    l->token = page.token;
    page.token = (struct str){0};
    xml_list_free(&page);
    request_end(&reply);
    return st;
}

t4_status
store_list(struct t4_store *s, struct t4_call *call, struct t4_slice prefix,
           struct t4_slice after, uint32_t max, t4_list_fn *fn, void *arg)
{
    struct listing l = {.left = max, .more = true, .fn = fn, .arg = arg};
    t4_status st = T4_OK;

    if (!text_is_plain(prefix) || !text_is_plain(after) ||
        prefix.len > ADDRESS_KEY_MOST || after.len > ADDRESS_KEY_MOST)
        return s->host->fail(call, T4_E_INVALID,
                             "a list's bounds are not UTF-8, or too long", NULL, NULL);
    str_add(&l.prefix, s->address.root, s->address.root_length);
    str_add(&l.prefix, (const char *)prefix.data, prefix.len);
    str_add(&l.after, s->address.root, s->address.root_length);
    str_add(&l.after, (const char *)after.data, after.len);
    if (l.prefix.failed || l.after.failed)
        st = s->host->fail(call, T4_E_NOMEM, "no memory for a list", NULL, NULL);
    while (st == T4_OK && l.left > 0 && l.more)
        st = list_page(s, call, &l);
    str_free(&l.prefix);
    str_free(&l.after);
    str_free(&l.last);
    str_free(&l.token);
    return st;
}

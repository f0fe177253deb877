/*
 * object.c - reading, deleting and listing objects.
 *
 * get asks for a range by the Range header and takes tag and length from the answer's own
 * headers, so bytes, tag and length belong to one generation.  A range behind the end is
 * refused by the server (416): then the metadata decide, and if they show an object that has
 * grown meanwhile, the read begins again.
 *
 * list begins at `after`, which the server includes: that one is skipped.  Order and prefix of
 * what comes are checked: a listing out of order would lose keys without a word.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "gcs.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PAGE 1000u             /* the most that the server gives */
#define PAGE_LIMIT (16u << 20) /* bytes of a page */
#define MAX_PAGES 4294967u     /* as many as `max` allows, and no more than that */
#define MAX_TRIES 8            /* reads of an object that changes all the time */

/* --- get ---------------------------------------------------------------------------- */

struct reading {
    const struct gcs_op *op;
    uint64_t offset, length; /* what was asked for */
    bool ranged;
    t4_sink_fn *sink;
    void *arg;
    struct t4_object_info *info;
    uint64_t expected, got; /* bytes of the answer's body */
    t4_status st;           /* why begin or the sink ended it */
};

/* "<first>-<last>/<total>" behind "bytes ". */
static bool
parse_range(const char *text, uint64_t *first, uint64_t *last, uint64_t *total)
{
    return sscanf(text, "bytes %19" SCNu64 "-%19" SCNu64 "/%19" SCNu64, first, last,
                  total) == 3 &&
           *first <= *last && *last < *total;
}

/* Tag and time of what is being read, from the head of the answer. */
static bool
read_head(const struct http_response *r, struct t4_object_info *info)
{
    char text[64];
    size_t n;

    *info = (struct t4_object_info){.size = sizeof *info, .date_ms = r->date_ms};
    if (http_header(r, "X-Goog-Generation", text, sizeof text) == NULL)
        return false;
    n = strlen(text);
    if (!json_is_generation((struct t4_slice){(const uint8_t *)text, n}))
        return false;
    memcpy(info->tag, text, n);
    info->tag_length = (uint32_t)n;
    if (http_header(r, "Last-Modified", text, sizeof text) != NULL)
        info->modified_ms =
            http_parse_date((struct t4_slice){(const uint8_t *)text, strlen(text)});
    return true;
}

static t4_status
reading_begin(void *arg, const struct http_response *r)
{
    struct reading *g = arg;
    uint64_t first, last, total;
    char text[80];

    if (!read_head(r, g->info))
        return g->st =
                   gcs_fail(g->op, T4_E_CORRUPT,
                            "the answer has no usable X-Goog-Generation header", NULL);
    if (r->status == 206) {
        if (!g->ranged || http_header(r, "Content-Range", text, sizeof text) == NULL ||
            !parse_range(text, &first, &last, &total) || first != g->offset ||
            last - first >= g->length)
            return g->st = gcs_fail(g->op, T4_E_CORRUPT,
                                    "the answer holds another range than was asked for",
                                    NULL);
        g->info->length = total;
        g->expected = last - first + 1;
        return T4_OK;
    }
    /* The whole object, also where its beginning was asked for and that is all of it. */
    if (r->status != 200 || r->length < 0 || g->offset > 0 ||
        (uint64_t)r->length > g->length)
        return g->st =
                   gcs_fail(g->op, T4_E_CORRUPT,
                            "the answer holds another range than was asked for", NULL);
    g->info->length = g->expected = (uint64_t)r->length;
    return T4_OK;
}

static t4_status
reading_part(void *arg, struct t4_slice part)
{
    struct reading *g = arg;

    if (part.len > g->expected - g->got)
        return g->st = gcs_fail(g->op, T4_E_CORRUPT, "the answer is longer than it said",
                                NULL);
    g->got += part.len;
    g->st = g->sink(g->arg, part);
    return g->st;
}

/* One attempt; *again: the range lies behind the end. */
static t4_status
get_once(struct reading *g, const char *url, bool *again)
{
    struct http_request request = {.method = "GET",
                                   .url = url,
                                   .sink = reading_part,
                                   .begin = reading_begin,
                                   .arg = g};
    struct http_response r;
    char range[80];
    t4_status st;

    if (g->ranged) {
        if (g->length > INT64_MAX - g->offset)
            snprintf(range, sizeof range, "Range: bytes=%" PRIu64 "-", g->offset);
        else
            snprintf(range, sizeof range, "Range: bytes=%" PRIu64 "-%" PRIu64, g->offset,
                     g->offset + g->length - 1);
        request.headers[request.n_headers++] = range;
    }
    g->got = g->expected = 0;
    st = gcs_perform(g->op, &request, &r);
    *again = st == T4_OK && r.status == 416 && g->ranged;
    if (st == T4_OK && !*again) {
        if (r.status != 200 && r.status != 206)
            st = gcs_refused(g->op, &r);
        else if (g->got != g->expected)
            st = gcs_fail(g->op, T4_E_UNAVAILABLE, "the answer is shorter than it said",
                          NULL);
    }
    http_response_free(&r);
    return st;
}

t4_status
gcs_get(struct t4_store *s, struct t4_call *call, struct t4_slice key, uint64_t offset,
        uint64_t length, t4_sink_fn *sink, void *arg, struct t4_object_info *info)
{
    struct gcs_op op = {s, call, key, GCS_READ};
    struct reading g = {.op = &op,
                        .offset = offset,
                        .length = length,
                        .ranged = offset > 0 || length != T4_TO_THE_END,
                        .sink = sink,
                        .arg = arg,
                        .info = info};
    struct http_bytes name = {0}, url = {0};
    bool again = true;
    t4_status st;

    /* Nothing to read, or an offset that no object reaches: what remains is its length. */
    if (length == 0 || offset >= INT64_MAX)
        return gcs_head(s, call, key, info);
    st = gcs_name(&op, &name);
    if (st == T4_OK &&
        !(gcs_url(s, "", &name, &url) && http_bytes_text(&url, "alt=media")))
        st = T4_E_NOMEM;
    for (int i = 0; st == T4_OK && again && i < MAX_TRIES; i++) {
        st = get_once(&g, url.data, &again);
        if (st == T4_OK && again)
            st = gcs_head(s, call, key, info);
        if (st == T4_OK && again && info->length <= offset)
            break;
        if (st == T4_OK && again && i == MAX_TRIES - 1)
            st = gcs_fail(&op, T4_E_UNAVAILABLE, "the object changes all the time", NULL);
    }
    http_bytes_free(&url);
    http_bytes_free(&name);
    return st;
}

/* --- head and remove ---------------------------------------------------------------- */

t4_status
gcs_head(struct t4_store *s, struct t4_call *call, struct t4_slice key,
         struct t4_object_info *info)
{
    struct gcs_op op = {s, call, key, GCS_READ};
    struct http_request request = {.method = "GET"};
    struct http_bytes name = {0}, url = {0};
    struct http_response r = {0};
    t4_status st = gcs_name(&op, &name);

    if (st == T4_OK && !(gcs_url(s, "", &name, &url) &&
                         http_bytes_text(&url, "fields=generation,size,updated")))
        st = T4_E_NOMEM;
    if (st == T4_OK) {
        request.url = url.data;
        st = gcs_perform(&op, &request, &r);
    }
    if (st == T4_OK && r.status != 200)
        st = gcs_refused(&op, &r);
    else if (st == T4_OK && !json_object_info(gcs_slice(&r.body), info))
        st = gcs_fail(&op, T4_E_CORRUPT, "the answer is not an object's metadata", NULL);
    if (st == T4_OK)
        info->date_ms = r.date_ms;
    http_response_free(&r);
    http_bytes_free(&url);
    http_bytes_free(&name);
    return st;
}

static t4_status
remove_one(struct t4_store *s, struct t4_call *call, struct t4_slice key)
{
    struct gcs_op op = {s, call, key, GCS_READ};
    struct http_request request = {.method = "DELETE"};
    struct http_bytes name = {0}, url = {0};
    struct http_response r = {0};
    t4_status st = gcs_name(&op, &name);

    if (st == T4_OK && !gcs_url(s, "", &name, &url))
        st = T4_E_NOMEM;
    if (st == T4_OK) {
        request.url = url.data;
        st = gcs_perform(&op, &request, &r);
    }
    if (st == T4_OK && r.status / 100 != 2) {
        st = gcs_refused(&op, &r);
        if (st == T4_E_NOTFOUND) /* the object's, not the bucket's */
            st = T4_OK;
    }
    http_response_free(&r);
    http_bytes_free(&url);
    http_bytes_free(&name);
    return st;
}

t4_status
gcs_remove(struct t4_store *s, struct t4_call *call, const struct t4_slice *keys,
           size_t n)
{
    t4_status st = T4_OK;

    for (size_t i = 0; i < n && st == T4_OK; i++)
        st = remove_one(s, call, keys[i]);
    return st;
}

/* --- list --------------------------------------------------------------------------- */

struct listing {
    const struct gcs_op *op;
    struct t4_slice prefix, after; /* of the call: without the store's own prefix */
    uint32_t left;                 /* how many more are wanted */
    int64_t date_ms;
    t4_list_fn *fn;
    void *arg;
    struct http_bytes last; /* the name before: names have to grow */
    t4_status st;
};

static int
compare(struct t4_slice a, struct t4_slice b)
{
    size_t n = a.len < b.len ? a.len : b.len;
    int r = n > 0 ? memcmp(a.data, b.data, n) : 0;

    return r != 0 ? r : (a.len > b.len) - (a.len < b.len);
}

static t4_status
listing_item(void *arg, struct t4_slice name, const struct t4_object_info *found)
{
    struct listing *l = arg;
    const struct t4_store *s = l->op->store;
    struct t4_object_info info = *found;
    struct t4_slice key;

    if (l->left == 0)
        return T4_OK;
    if (name.len < s->prefix_length ||
        memcmp(name.data, s->prefix, s->prefix_length) != 0)
        return l->st = gcs_fail(l->op, T4_E_CORRUPT,
                                "the listing holds names without the prefix", NULL);
    if (l->last.len > 0 && compare(name, gcs_slice(&l->last)) <= 0)
        return l->st = gcs_fail(l->op, T4_E_CORRUPT, "the listing is not in order", NULL);
    l->last.len = 0;
    if (!http_bytes_add(&l->last, name.data, name.len))
        return l->st = T4_E_NOMEM;
    key = (struct t4_slice){name.data + s->prefix_length, name.len - s->prefix_length};
    if (key.len < l->prefix.len ||
        (l->prefix.len > 0 && memcmp(key.data, l->prefix.data, l->prefix.len) != 0))
        return l->st = gcs_fail(l->op, T4_E_CORRUPT,
                                "the listing holds names without the prefix", NULL);
    /* The prefix itself can be an object ("folders" made by other tools), and no key of ours. */
    if (key.len == 0 || compare(key, l->after) <= 0)
        return T4_OK;
    l->left--;
    info.date_ms = l->date_ms;
    l->st = l->fn(l->arg, key, &info);
    return l->st;
}

static bool
add_query(struct http_bytes *url, const char *name, const char *store_prefix,
          struct t4_slice value)
{
    struct t4_slice prefix = {(const uint8_t *)store_prefix, strlen(store_prefix)};

    return http_bytes_text(url, name) && http_bytes_encoded(url, prefix, false) &&
           http_bytes_encoded(url, value, false);
}

/* One page; next_page holds the mark of this page before and that of the next one after. */
static t4_status
list_page(struct listing *l, struct http_bytes *next_page)
{
    const struct t4_store *s = l->op->store;
    struct http_request request = {.method = "GET", .limit = PAGE_LIMIT};
    struct http_bytes url = {0};
    struct http_response r = {0};
    t4_status st = T4_E_NOMEM;
    /* One more for `after` itself. */
    uint32_t want = l->left < PAGE - 1 ? l->left + 1 : PAGE;

    if (gcs_url(s, "", NULL, &url) &&
        http_bytes_format(&url,
                          "fields=nextPageToken,items(name,generation,size,updated)"
                          "&prettyPrint=false&maxResults=%" PRIu32,
                          want) &&
        add_query(&url, "&prefix=", s->prefix, l->prefix) &&
        (l->after.len == 0 || add_query(&url, "&startOffset=", s->prefix, l->after)) &&
        (next_page->len == 0 ||
         add_query(&url, "&pageToken=", "", gcs_slice(next_page)))) {
        request.url = url.data;
        st = gcs_perform(l->op, &request, &r);
    }
    next_page->len = 0;
    if (st == T4_OK && r.status != 200) {
        st = gcs_refused(l->op, &r);
    } else if (st == T4_OK) {
        l->date_ms = r.date_ms;
        st = json_list_page(gcs_slice(&r.body), listing_item, l, next_page);
        if (st == T4_E_CORRUPT && l->st == T4_OK)
            st = gcs_fail(l->op, st, "the answer is not a listing", NULL);
    }
    http_response_free(&r);
    http_bytes_free(&url);
    return st;
}

t4_status
gcs_list(struct t4_store *s, struct t4_call *call, struct t4_slice prefix,
         struct t4_slice after, uint32_t max, t4_list_fn *fn, void *arg)
{
    struct gcs_op op = {s, call, {0}, GCS_READ}; /* a 404 is the bucket's */
    struct listing l = {
        .op = &op, .prefix = prefix, .after = after, .left = max, .fn = fn, .arg = arg};
    struct http_bytes next_page = {0};
    t4_status st = T4_OK;
    uint32_t pages = 0;

    /* A page may be empty and yet not be the last: only the missing mark says that. */
    while (st == T4_OK && l.left > 0) {
        st = list_page(&l, &next_page);
        if (st != T4_OK || next_page.len == 0)
            break;
        if (++pages == MAX_PAGES)
            st = gcs_fail(&op, T4_E_CORRUPT, "the listing does not end", NULL);
    }
    http_bytes_free(&next_page);
    http_bytes_free(&l.last);
    return st;
}

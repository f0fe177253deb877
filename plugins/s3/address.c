/*
 * address.c - from s3://bucket/prefix and an endpoint to hosts and paths.
 *
 * Entry point: address_parse().  Pure; any thread.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "address.h"

#include <stdio.h>
#include <string.h>

#define SCHEME "s3://"

static bool
is_bucket(const char *name, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        char c = name[i];
        bool alphanumeric =
            (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');

        /* AWS allows less; other stores have older names */
        if (!alphanumeric && (i == 0 || (c != '-' && c != '.' && c != '_')))
            return false;
    }
    return n >= 3 && n <= 255;
}

static const char *
parse_url(struct t4_slice url, struct address *out, const char **hint)
{
    const char *p = (const char *)url.data + sizeof SCHEME - 1;
    const char *end = (const char *)url.data + url.len, *slash;

    *hint = "write s3://bucket/prefix";
    if (url.len < sizeof SCHEME - 1 || memcmp(url.data, SCHEME, sizeof SCHEME - 1) != 0)
        return "not a URL of an S3 store";
    slash = memchr(p, '/', (size_t)(end - p));
    if (slash == NULL)
        slash = end;
    if (!is_bucket(p, (size_t)(slash - p)))
        return "the name of the bucket is not valid";
    text_copy(text_slice(p, (size_t)(slash - p)), out->bucket, sizeof out->bucket);
    p = slash;
    while (p < end && *p == '/')
        p++;
    while (end > p && end[-1] == '/')
        end--;
    if (!text_is_plain(text_slice(p, (size_t)(end - p))))
        return "the prefix is not UTF-8, or holds control characters";
    if (memchr(p, '?', (size_t)(end - p)) != NULL ||
        memchr(p, '#', (size_t)(end - p)) != NULL) {
        *hint = "settings are given as s3.region and so on, not in the URL";
        return "the prefix holds '?' or '#'";
    }
    *hint = "use a shorter prefix: it counts towards the 1,024 bytes of a key";
    if ((size_t)(end - p) > ADDRESS_KEY_MOST / 2)
        return "the prefix is longer than 512 bytes";
    if (end > p)
        snprintf(out->root, sizeof out->root, "%.*s/", (int)(end - p), p);
    out->root_length = strlen(out->root);
    return NULL;
}

/* Letters, digits and what hosts and ports are written with. */
static bool
is_authority(const char *s, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        char c = s[i];

        if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
              (c >= '0' && c <= '9') || strchr("-._:[]", c) != NULL))
            return false;
    }
    return n > 0 && n < 200;
}

static bool
ends_with(const char *s, size_t n, const char *tail)
{
    size_t m = strlen(tail);

    return n > m && memcmp(s + n - m, tail, m) == 0;
}

static const char *
parse_endpoint(const char *endpoint, struct address *out, char authority[256],
               const char **hint)
{
    const char *p = endpoint, *end;
    size_t n, path;

    *hint = "write s3.endpoint as https://host or http://host:port";
    if (strncmp(p, "https://", 8) == 0) {
        out->encrypted = true;
        p += 8;
    } else if (strncmp(p, "http://", 7) == 0) {
        p += 7;
    } else {
        return "the endpoint does not begin with https:// or http://";
    }
    if (strchr(p, '@') != NULL)
        return "the endpoint holds a user name";
    n = strcspn(p, "/");
    if (!is_authority(p, n))
        return "the endpoint has no valid host";
    end = p + n;
    for (path = strlen(end); path > 0 && end[path - 1] == '/';)
        path--;
    if (path > 200 || strpbrk(end, "?# %") != NULL ||
        !text_is_plain(text_slice(end, path)))
        return "the endpoint has a path that cannot be used";
    snprintf(out->path, sizeof out->path, "%.*s", (int)path, end);
    /* As the Host header has it: without the port that goes without saying. */
    if (ends_with(p, n, out->encrypted ? ":443" : ":80"))
        n -= out->encrypted ? 4 : 3;
    snprintf(authority, 256, "%.*s", (int)n, p);
    out->loopback = strncmp(authority, "127.", 4) == 0 ||
                    strncmp(authority, "localhost", 9) == 0 ||
                    strncmp(authority, "[::1]", 5) == 0;
    return NULL;
}

const char *
address_parse(struct t4_slice url, const char *endpoint, const char *region,
              enum address_style style, struct address *out, const char **hint)
{
    char authority[256];
    size_t used;
    const char *wrong;

    memset(out, 0, sizeof *out);
    wrong = parse_url(url, out, hint);
    if (wrong != NULL)
        return wrong;
    *hint = "for example us-east-1";
    if (strlen(region) > 63 || !is_bucket(region, strlen(region)))
        return "s3.region is not the name of a region";
    if (endpoint[0] != '\0') {
        wrong = parse_endpoint(endpoint, out, authority, hint);
        if (wrong != NULL)
            return wrong;
    } else {
        out->encrypted = true;
        snprintf(authority, sizeof authority, "s3.%s.amazonaws.com%s", region,
                 strncmp(region, "cn-", 3) == 0 ? ".cn" : "");
    }
    /* A certificate for *.host does not cover a bucket with dots in its name. */
    if (style == ADDRESS_AUTO)
        style = endpoint[0] != '\0' || strchr(out->bucket, '.') != NULL ? ADDRESS_PATH
                                                                        : ADDRESS_HOST;
    used = strlen(out->path);
    if (style == ADDRESS_PATH)
        snprintf(out->path + used, sizeof out->path - used, "/%s", out->bucket);
    snprintf(out->authority, sizeof out->authority, "%s%s%s",
             style == ADDRESS_HOST ? out->bucket : "", style == ADDRESS_HOST ? "." : "",
             authority);
    snprintf(out->origin, sizeof out->origin, "%s://%s",
             out->encrypted ? "https" : "http", out->authority);
    *hint = NULL;
    return NULL;
}

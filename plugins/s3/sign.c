/*
 * sign.c - AWS Signature Version 4.
 *
 *   canonical request  method LF path LF query LF {header ":" value LF}... LF names LF hash
 *   string to sign     "AWS4-HMAC-SHA256" LF date LF scope LF SHA-256(canonical request)
 *   scope              day "/" region "/" service "/aws4_request"
 *   key                HMAC over day, region, service, "aws4_request", from "AWS4" secret
 *
 * S3 encodes a path once and does not tidy it ("//" and "." stay).  Headers are all of the
 * request's own, so that nothing on the way can drop a condition unnoticed.
 *
 * Entry points: sign_query(), sign_authorization(), sign_hash().  Any thread.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "sign.h"

#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <stdlib.h>
#include <string.h>

#define HASH_SIZE 32

static void
to_hex(const uint8_t hash[HASH_SIZE], char hex[SIGN_HEX])
{
    static const char digit[] = "0123456789abcdef";

    for (int i = 0; i < HASH_SIZE; i++) {
        hex[2 * i] = digit[hash[i] >> 4];
        hex[2 * i + 1] = digit[hash[i] & 15];
    }
    hex[2 * HASH_SIZE] = '\0';
}

bool
sign_hash(struct t4_slice data, char hex[SIGN_HEX])
{
    uint8_t hash[EVP_MAX_MD_SIZE];

    if (EVP_Digest(data.len > 0 ? data.data : (const uint8_t *)"", data.len, hash, NULL,
                   EVP_sha256(), NULL) != 1)
        return false;
    to_hex(hash, hex);
    return true;
}

static bool
hmac(uint8_t key[EVP_MAX_MD_SIZE], size_t *key_length, const char *text, size_t n)
{
    uint8_t out[EVP_MAX_MD_SIZE];
    unsigned length;

    if (HMAC(EVP_sha256(), key, (int)*key_length, (const uint8_t *)text, n, out,
             &length) == NULL)
        return false;
    memcpy(key, out, length);
    *key_length = length;
    explicit_bzero(out, sizeof out);
    return true;
}

static int
compare_fields(const void *a, const void *b)
{
    const struct sign_field *x = a, *y = b;

    return strcmp(x->name, y->name);
}

void
sign_query(struct sign_field *parameter, size_t n, struct str *out)
{
    /* Ours are plain names, whose order encoding does not change. */
    if (n > 1)
        qsort(parameter, n, sizeof *parameter, compare_fields);
    for (size_t i = 0; i < n; i++) {
        if (i > 0)
            str_addz(out, "&");
        str_encode(out, parameter[i].name, strlen(parameter[i].name), false);
        str_addz(out, "=");
        str_encode(out, parameter[i].value, strlen(parameter[i].value), false);
    }
}

static void
add_names(const struct sign_request *r, struct str *out)
{
    for (size_t i = 0; i < r->n_header; i++)
        str_addf(out, "%s%s", i > 0 ? ";" : "", r->header[i].name);
}

/* A value without blanks at its ends, and runs of them as one. */
static void
add_value(const char *value, struct str *out)
{
    bool pending = false, started = false;

    for (; *value != '\0'; value++) {
        if (*value == ' ') {
            pending = started;
            continue;
        }
        if (pending)
            str_add(out, " ", 1);
        str_add(out, value, 1);
        pending = false;
        started = true;
    }
}

static bool
hash_canonical(const struct sign_request *r, char hex[SIGN_HEX])
{
    struct str s = {0};
    bool ok;

    str_addf(&s, "%s\n%s\n%s\n", r->method, r->path, r->query);
    for (size_t i = 0; i < r->n_header; i++) {
        str_addf(&s, "%s:", r->header[i].name);
        add_value(r->header[i].value, &s);
        str_addz(&s, "\n");
    }
    str_addz(&s, "\n");
    add_names(r, &s);
    str_addf(&s, "\n%s", r->payload_hash);
    ok = !s.failed && sign_hash(text_slice(s.data, s.length), hex);
    str_wipe(&s); /* may hold a session token */
    return ok;
}

static bool
sign_text(const struct sign_request *r, const struct str *text, char hex[SIGN_HEX])
{
    uint8_t key[EVP_MAX_MD_SIZE];
    size_t length;
    struct str secret = {0};
    bool ok;

    str_addf(&secret, "AWS4%s", r->secret_access_key);
    ok = !secret.failed;
    if (ok) {
        unsigned n;

        ok = HMAC(EVP_sha256(), secret.data, (int)secret.length, (const uint8_t *)r->date,
                  8, key, &n) != NULL;
        length = n;
    }
    ok = ok && hmac(key, &length, r->region, strlen(r->region)) &&
         hmac(key, &length, r->service, strlen(r->service)) &&
         hmac(key, &length, "aws4_request", 12) &&
         hmac(key, &length, text->data, text->length);
    if (ok)
        to_hex(key, hex);
    explicit_bzero(key, sizeof key);
    str_wipe(&secret);
    return ok;
}

bool
sign_authorization(const struct sign_request *r, struct str *out)
{
    char hash[SIGN_HEX], signature[SIGN_HEX];
    struct str text = {0};
    bool ok;

    qsort(r->header, r->n_header, sizeof *r->header, compare_fields);
    if (!hash_canonical(r, hash))
        return false;
    str_addf(&text, "AWS4-HMAC-SHA256\n%s\n%.8s/%s/%s/aws4_request\n%s", r->date, r->date,
             r->region, r->service, hash);
    ok = !text.failed && sign_text(r, &text, signature);
    str_free(&text);
    if (!ok)
        return false;
    str_addf(out,
             "AWS4-HMAC-SHA256 Credential=%s/%.8s/%s/%s/aws4_request, SignedHeaders=",
             r->access_key_id, r->date, r->region, r->service);
    add_names(r, out);
    str_addf(out, ", Signature=%s", signature);
    return !out->failed;
}

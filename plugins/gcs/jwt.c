/*
 * jwt.c - the signed statement by which a service account asks for an access token: a JSON Web
 * Token, RS256.
 *
 * Entry point: gcs_jwt().  Runs on: any thread.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "gcs.h"

#include <jansson.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <stdlib.h>
#include <string.h>

#define SCOPE "https://www.googleapis.com/auth/devstorage.read_write"
#define LIFE_SECONDS 3600 /* the longest that is allowed */

/* Appends base64 with '-' and '_' and without padding. */
static bool
add_base64url(struct http_bytes *out, const void *data, size_t n)
{
    unsigned char *text = malloc(4 * (n / 3 + 1) + 1);
    bool good;
    int length;

    if (text == NULL)
        return false;
    length = EVP_EncodeBlock(text, data, (int)n);
    while (length > 0 && text[length - 1] == '=')
        length--;
    for (int i = 0; i < length; i++)
        text[i] = text[i] == '+' ? '-' : text[i] == '/' ? '_' : text[i];
    good = http_bytes_add(out, text, (size_t)length);
    free(text);
    return good;
}

/* Appends an object of JSON, encoded; takes the reference. */
static bool
add_part(struct http_bytes *out, json_t *object)
{
    char *text =
        object != NULL ? json_dumps(object, JSON_COMPACT | JSON_SORT_KEYS) : NULL;
    bool good = text != NULL && add_base64url(out, text, strlen(text));

    free(text);
    json_decref(object);
    return good;
}

/* No pass phrase: a service account's key has none, and nobody is there to be asked. */
static int
no_phrase(char *buffer, int size, int writing, void *arg)
{
    (void)buffer;
    (void)size;
    (void)writing;
    (void)arg;
    return -1;
}

static EVP_PKEY *
load_key(const struct http_bytes *pem)
{
    BIO *bio = BIO_new_mem_buf(pem->data, (int)pem->len);
    EVP_PKEY *key =
        bio != NULL ? PEM_read_bio_PrivateKey(bio, NULL, no_phrase, NULL) : NULL;

    BIO_free(bio);
    if (key != NULL && EVP_PKEY_get_base_id(key) != EVP_PKEY_RSA) {
        EVP_PKEY_free(key);
        key = NULL;
    }
    return key;
}

static t4_status
add_signature(EVP_PKEY *key, struct http_bytes *out)
{
    EVP_MD_CTX *context = EVP_MD_CTX_new();
    unsigned char *signature = NULL;
    t4_status st = T4_E_NOMEM;
    size_t n = 0;

    if (context == NULL)
        return T4_E_NOMEM;
    if (EVP_DigestSignInit(context, NULL, EVP_sha256(), NULL, key) == 1 &&
        EVP_DigestSign(context, NULL, &n, (unsigned char *)out->data, out->len) == 1)
        signature = malloc(n);
    if (signature != NULL) {
        if (EVP_DigestSign(context, signature, &n, (unsigned char *)out->data,
                           out->len) != 1)
            st = T4_E_INVALID;
        else if (http_bytes_text(out, ".") && add_base64url(out, signature, n))
            st = T4_OK;
    }
    free(signature);
    EVP_MD_CTX_free(context);
    return st;
}

t4_status
gcs_jwt(const struct gcs_credentials *c, int64_t now, struct http_bytes *out)
{
    struct http_bytes token = {0};
    EVP_PKEY *key = load_key(&c->private_key);
    t4_status st = T4_E_INVALID;

    if (key != NULL) {
        st = T4_E_NOMEM;
        if (add_part(&token, json_pack("{s:s, s:s, s:s}", "alg", "RS256", "typ", "JWT",
                                       "kid", c->private_key_id.data)) &&
            http_bytes_text(&token, ".") &&
            add_part(&token,
                     json_pack("{s:s, s:s, s:s, s:I, s:I}", "iss", c->client_email.data,
                               "scope", SCOPE, "aud", c->token_uri.data, "iat",
                               (json_int_t)now, "exp", (json_int_t)now + LIFE_SECONDS)))
            st = add_signature(key, &token);
    }
    if (st == T4_OK && !http_bytes_add(out, token.data, token.len))
        st = T4_E_NOMEM;
    EVP_PKEY_free(key);
    ERR_clear_error(); /* of this thread; nobody else reads what is left there */
    http_bytes_wipe(&token);
    return st;
}

/*
 * sign.h - AWS Signature Version 4 (private to the plugin).
 *
 * Pure but for OpenSSL's HMAC and SHA-256.  Any thread.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef S3_SIGN_H
#define S3_SIGN_H

#include "text.h"

#define SIGN_HEX 65 /* a SHA-256 in hexadecimal, with its NUL */

/* A header (its name in lower case) or a parameter of the query (not encoded). */
struct sign_field {
    const char *name, *value;
};

struct sign_request {
    const char *method;
    const char *path;          /* percent-encoded, begins with '/' */
    const char *query;         /* from sign_query() */
    struct sign_field *header; /* all that are signed; they are sorted here */
    size_t n_header;
    const char *payload_hash;
    const char *date; /* x-amz-date, 20130524T000000Z */
    const char *region, *service;
    const char *access_key_id, *secret_access_key;
};

/* Sorts the parameters and adds them to *out, encoded as in the canonical request. */
void sign_query(struct sign_field *parameter, size_t n, struct str *out);
/* Adds the value of the Authorization header to *out; false: no memory, or OpenSSL failed. */
bool sign_authorization(const struct sign_request *r, struct str *out);
bool sign_hash(struct t4_slice data, char hex[SIGN_HEX]);

#endif

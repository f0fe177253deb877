/*
 * explain.c - what an answer that is no success means, and what to do.
 *
 * Invariants:
 *  (1) An answer to a put that leaves any doubt is UNKNOWN: 5xx, 409, 408, and whatever S3
 *      itself did not write.  The host then sends the same bytes again, which is harmless; to
 *      say PRECONDITION or UNAVAILABLE wrongly is not.
 *  (2) Of a 5xx only the codes by which S3 says that it did not begin are believed.
 *  (3) NOTFOUND is said only on S3's word NoSuchKey: a proxy's 404 page, a wrong endpoint or a
 *      missing bucket must not look like an empty store.
 *
 * Entry points: explain_status(), explain_hint().  Pure; any thread.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "explain.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum advice {
    ADVICE_NONE,
    ADVICE_PERMISSION,
    ADVICE_KEY_ID,
    ADVICE_SECRET,
    ADVICE_CLOCK,
    ADVICE_EXPIRED,
    ADVICE_TOKEN,
    ADVICE_KMS,
    ADVICE_BUCKET,
    ADVICE_REGION,
    ADVICE_THROTTLED,
    ADVICE_QUOTA,
    ADVICE_KEY_LENGTH,
    ADVICE_FILES,
    ADVICE_NOT_S3,
};

/* S3 decides these before it begins with the request, but for those that are UNAVAILABLE. */
static const struct rule {
    const char *code;
    t4_status status;
    enum advice advice;
} rules[] = {
    {"AccessDenied", T4_E_DENIED, ADVICE_PERMISSION},
    {"AllAccessDisabled", T4_E_DENIED, ADVICE_PERMISSION},
    {"AccountProblem", T4_E_DENIED, ADVICE_PERMISSION},
    {"InvalidAccessKeyId", T4_E_DENIED, ADVICE_KEY_ID},
    {"InvalidClientTokenId", T4_E_DENIED, ADVICE_KEY_ID},
    {"XAdminUserNotFound", T4_E_DENIED, ADVICE_KEY_ID}, /* versitygw */
    {"NotSignedUp", T4_E_DENIED, ADVICE_KEY_ID},
    {"SignatureDoesNotMatch", T4_E_DENIED, ADVICE_SECRET},
    {"RequestTimeTooSkewed", T4_E_DENIED, ADVICE_CLOCK},
    {"RequestExpired", T4_E_DENIED, ADVICE_CLOCK},
    {"ExpiredToken", T4_E_DENIED, ADVICE_EXPIRED},
    {"ExpiredTokenException", T4_E_DENIED, ADVICE_EXPIRED},
    {"TokenRefreshRequired", T4_E_DENIED, ADVICE_EXPIRED},
    {"InvalidToken", T4_E_DENIED, ADVICE_TOKEN},
    {"InvalidSecurity", T4_E_DENIED, ADVICE_TOKEN},
    {"SlowDown", T4_E_BUSY, ADVICE_THROTTLED},
    {"Throttling", T4_E_BUSY, ADVICE_THROTTLED},
    {"ThrottlingException", T4_E_BUSY, ADVICE_THROTTLED},
    {"RequestLimitExceeded", T4_E_BUSY, ADVICE_THROTTLED},
    {"TooManyRequests", T4_E_BUSY, ADVICE_THROTTLED},
    {"BandwidthLimitExceeded", T4_E_BUSY, ADVICE_THROTTLED},
    {"QuotaExceeded", T4_E_NOSPACE, ADVICE_QUOTA},
    {"InsufficientStorage", T4_E_NOSPACE, ADVICE_QUOTA},
    {"XMinioStorageFull", T4_E_NOSPACE, ADVICE_QUOTA},
    {"NotImplemented", T4_E_UNSUPPORTED, ADVICE_NONE},
    {"MethodNotAllowed", T4_E_UNSUPPORTED, ADVICE_NONE},
    {"InternalError", T4_E_UNAVAILABLE, ADVICE_NONE},
    {"ServiceUnavailable", T4_E_UNAVAILABLE, ADVICE_NONE},
    {"RequestTimeout", T4_E_UNAVAILABLE, ADVICE_NONE},
    {"OperationAborted", T4_E_UNAVAILABLE, ADVICE_NONE},
    {"NoSuchBucket", T4_E_INVALID, ADVICE_BUCKET},
    {"InvalidBucketName", T4_E_INVALID, ADVICE_BUCKET},
    {"PermanentRedirect", T4_E_INVALID, ADVICE_REGION},
    {"TemporaryRedirect", T4_E_INVALID, ADVICE_REGION},
    {"AuthorizationHeaderMalformed", T4_E_INVALID, ADVICE_REGION},
    {"AuthorizationQueryParametersError", T4_E_INVALID, ADVICE_REGION},
    {"IllegalLocationConstraintException", T4_E_INVALID, ADVICE_REGION},
    {"IncorrectEndpoint", T4_E_INVALID, ADVICE_REGION},
    {"ObjectParentIsFile", T4_E_INVALID, ADVICE_FILES},
    {"ExistingObjectIsDirectory", T4_E_INVALID, ADVICE_FILES},
    {"DirectoryObjectContainsData", T4_E_INVALID, ADVICE_FILES},
    {"KeyTooLongError", T4_E_INVALID, ADVICE_KEY_LENGTH},
};

static const struct rule *
find_rule(const char *code)
{
    static const struct rule kms = {"KMS.", T4_E_DENIED, ADVICE_KMS};

    for (size_t i = 0; i < sizeof rules / sizeof rules[0]; i++)
        if (strcmp(rules[i].code, code) == 0)
            return &rules[i];
    return strncmp(code, "KMS.", 4) == 0 ? &kms : NULL;
}

/* May a code in an answer of 5xx be believed?  (2) */
static bool
says_not_begun(const struct rule *rule)
{
    return rule->status == T4_E_BUSY || rule->status == T4_E_NOSPACE ||
           strcmp(rule->code, "NotImplemented") == 0;
}

t4_status
explain_status(int http_status, const char *code, enum explain_effect effect)
{
    t4_status doubt = effect == EXPLAIN_PUT ? T4_E_UNKNOWN : T4_E_UNAVAILABLE;
    const struct rule *rule = find_rule(code);
    bool is_s3 = code[0] != '\0';

    if (http_status < 300 || http_status >= 500) {
        if (http_status >= 500 && rule != NULL && says_not_begun(rule))
            return rule->status;
        return doubt;
    }
    switch (http_status) {
    case 404:
        if (strcmp(code, "NoSuchKey") == 0) /* of a put: the object to be replaced */
            return effect == EXPLAIN_PUT ? T4_E_PRECONDITION : T4_E_NOTFOUND;
        return rule != NULL && rule->status != T4_E_UNAVAILABLE ? rule->status
                                                                : doubt; /* (3) */
    case 409: /* somebody else is at the same key; or what gateways to files say */
        return rule != NULL && rule->status == T4_E_INVALID ? rule->status : doubt;
    case 408: return doubt; /* the body was slow */
    case 412: return T4_E_PRECONDITION;
    case 429: return T4_E_BUSY;
    case 507: return T4_E_NOSPACE;
    }
    if (rule != NULL)
        return rule->status == T4_E_UNAVAILABLE ? doubt : rule->status;
    if (http_status == 401 || http_status == 403 || http_status == 407)
        return T4_E_DENIED;
    return is_s3 || http_status < 400 || http_status == 400 ? T4_E_INVALID : doubt;
}

static enum advice
advice_of(const struct explain_case *c)
{
    const struct rule *rule = find_rule(c->code);

    if (rule != NULL)
        return rule->advice;
    if (c->code[0] == '\0' && c->http_status == 404)
        return ADVICE_NOT_S3;
    if (c->http_status >= 300 && c->http_status < 400)
        return ADVICE_REGION;
    if (c->region_told[0] != '\0' && c->http_status == 400 &&
        strcmp(c->region, c->region_told) != 0)
        return ADVICE_REGION;
    if (c->http_status == 401 || c->http_status == 403)
        return ADVICE_PERMISSION;
    return ADVICE_NONE;
}

void
explain_hint(const struct explain_case *c, char *out, size_t room)
{
    long long skew = (long long)(c->skew_ms / 1000);

    out[0] = '\0';
    switch (advice_of(c)) {
    case ADVICE_NONE: break;
    case ADVICE_PERMISSION:
        snprintf(out, room, "the credentials (%s) need the permission %s on bucket %s",
                 c->credentials, c->permission, c->bucket);
        break;
    case ADVICE_KEY_ID:
        snprintf(out, room,
                 "the store does not know this access key id (%s); check it, and that it "
                 "belongs to this endpoint",
                 c->credentials);
        break;
    case ADVICE_SECRET:
        snprintf(
            out, room,
            "the secret access key does not belong to the access key id (%s), or a proxy "
            "changes the requests",
            c->credentials);
        break;
    case ADVICE_CLOCK:
        if (skew != 0)
            snprintf(out, room, "set this machine's clock: it is %lld s %s the store's",
                     llabs(skew), skew > 0 ? "ahead of" : "behind");
        else
            snprintf(out, room, "set this machine's clock: it differs from the store's");
        break;
    case ADVICE_EXPIRED:
        snprintf(out, room,
                 "the session token (%s) has expired: get new temporary credentials",
                 c->credentials);
        break;
    case ADVICE_TOKEN:
        snprintf(
            out, room,
            "the session token (%s) is not valid; it must belong to the access key id, "
            "and permanent keys need none",
            c->credentials);
        break;
    case ADVICE_KMS:
        snprintf(out, room,
                 "the bucket is encrypted with a KMS key: the credentials (%s) need "
                 "kms:GenerateDataKey and kms:Decrypt on it, and it must be enabled",
                 c->credentials);
        break;
    case ADVICE_BUCKET:
        snprintf(
            out, room,
            "create the bucket %s, or correct the URL and s3.endpoint; t4 creates no "
            "buckets",
            c->bucket);
        break;
    case ADVICE_REGION:
        if (c->region_told[0] != '\0' && strcmp(c->region, c->region_told) != 0)
            snprintf(out, room, "the bucket is in region %s, not %s: set s3.region to it",
                     c->region_told, c->region);
        else
            snprintf(out, room,
                     "set s3.region (now %s) and s3.endpoint to those of the bucket",
                     c->region);
        break;
    case ADVICE_THROTTLED:
        snprintf(out, room,
                 "the store asks for fewer requests; they are sent again later");
        break;
    case ADVICE_QUOTA:
        snprintf(out, room, "raise the quota of bucket %s", c->bucket);
        break;
    case ADVICE_KEY_LENGTH:
        snprintf(out, room,
                 "use a shorter prefix: it counts towards the 1,024 bytes of a key");
        break;
    case ADVICE_FILES:
        snprintf(
            out, room,
            "the store keeps objects as files, so \"a\" and \"a/b\" cannot both be keys");
        break;
    case ADVICE_NOT_S3:
        snprintf(out, room, "this is no answer of an S3 store: check s3.endpoint");
        break;
    }
}

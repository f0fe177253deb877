/*
 * explain.h - what an answer that is no success means, and what to do (private to the plugin).
 *
 * Pure; any thread.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef S3_EXPLAIN_H
#define S3_EXPLAIN_H

#include "t4_plugin.h"

/* What a request does to the store if its answer is lost. */
enum explain_effect {
    EXPLAIN_NONE, /* nothing, or nothing that a repetition does not do again */
    EXPLAIN_PUT   /* it makes an object appear: doubt is UNKNOWN */
};

/*
 * The status of an HTTP answer that is not 2xx, with S3's error code ("" if the answer is not
 * one of S3's).  Never T4_OK.
 */
t4_status explain_status(int http_status, const char *code, enum explain_effect effect);

struct explain_case {
    int http_status;
    const char *code;
    const char *permission; /* s3:PutObject: what the request needs */
    const char *bucket;
    const char *region;      /* that was signed for */
    const char *region_told; /* the one the store names; "" if none */
    const char *credentials; /* where they came from, in words */
    int64_t skew_ms;         /* this machine's clock minus the store's; 0: not known */
};
/* The way out; leaves "" where there is nothing to say. */
void explain_hint(const struct explain_case *c, char *out, size_t room);

#endif

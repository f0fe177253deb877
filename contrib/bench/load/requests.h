/*
 * requests.h - the requests of the load: their bytes, and whether an answer is right.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef LOAD_REQUESTS_H
#define LOAD_REQUESTS_H

#include "base/buffer.h"
#include "base/error.h"
#include "settings.h"

enum request {
    REQUEST_PUT,
    REQUEST_GET,
    REQUEST_RANGE, /* of range_keys keys from that one on */
    REQUEST_COUNT, /* of all keys of the key space */
    REQUEST_CAS,
    REQUEST_GRANT,
    REQUEST_REVOKE,
    REQUESTS
};

enum outcome { OUTCOME_DONE, OUTCOME_LOST /* a race */, OUTCOME_WRONG };

struct requests;

struct requests *requests_new(const struct settings *s);
void requests_free(struct requests *q);

/* A number below n, drawn with a fixed seed. */
uint64_t requests_draw(struct requests *q, uint64_t n);
const char *request_method(enum request kind);
/* The request for key or lease `number`, replacing what `out` holds. */
void request_encode(struct requests *q, enum request kind, uint64_t number,
                    struct buffer *out);
/* Looks at the answer to it; WRONG: *error says why. */
enum outcome request_check(struct requests *q, enum request kind, uint64_t number,
                           struct t4_slice answer, struct error *error);

/* Keys found by the last REQUEST_COUNT. */
uint64_t requests_counted(const struct requests *q);
/* The id of a lease by its number, and back: UINT64_MAX if it is none of ours. */
uint64_t lease_id(const struct requests *q, uint64_t number);
uint64_t lease_number(const struct requests *q, uint64_t id);
/* The first key and the one behind the last, that is the prefix' end. */
void key_space(const struct settings *s, struct buffer *first, struct buffer *end);

#endif

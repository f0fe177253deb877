/*
 * requests.c - see requests.h.
 *
 * Requests are encoded by hand, and of answers only what is checked is read: the client shares
 * the machine with what it measures.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "requests.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/memory.h"
#include "message.h"

#define VALUE_POOL (16u << 20) /* random values are pieces of so many bytes */
#define LEASE_SECONDS 3600u    /* nobody's lease expires in a run */

struct requests {
    const struct settings *settings;
    uint64_t random;     /* state of the generator */
    struct buffer value; /* what values are pieces of */
    struct buffer key, inner, inner2, inner3;
    uint64_t *revision; /* of each key when it was last seen, for txn-cas; or NULL */
    uint64_t counted;
    uint64_t first_lease;
};

static const char *const method[REQUESTS] = {
    [REQUEST_PUT] = "/etcdserverpb.KV/Put",
    [REQUEST_GET] = "/etcdserverpb.KV/Range",
    [REQUEST_RANGE] = "/etcdserverpb.KV/Range",
    [REQUEST_COUNT] = "/etcdserverpb.KV/Range",
    [REQUEST_CAS] = "/etcdserverpb.KV/Txn",
    [REQUEST_GRANT] = "/etcdserverpb.Lease/LeaseGrant",
    [REQUEST_REVOKE] = "/etcdserverpb.Lease/LeaseRevoke",
};

struct requests *
requests_new(const struct settings *s)
{
    struct requests *q = mem_zalloc(sizeof *q);
    size_t n = s->value_size + (s->random_values ? VALUE_POOL : 0);
    struct timespec now;

    q->settings = s;
    q->random = 1;
    memset(buffer_reserve(&q->value, n), 'v', n);
    q->value.len = n;
    for (size_t i = 0; s->random_values && i < n; i++)
        q->value.data[i] = (uint8_t)requests_draw(q, 256);
    if (s->mode == MODE_TXN_CAS)
        q->revision = mem_zalloc(s->keys * sizeof *q->revision);
    /* Not those of an earlier run that was killed. */
    clock_gettime(CLOCK_REALTIME, &now);
    q->first_lease = (uint64_t)now.tv_sec << 28 | ((uint64_t)now.tv_nsec >> 2);
    return q;
}

void
requests_free(struct requests *q)
{
    buffer_free(&q->value);
    buffer_free(&q->key);
    buffer_free(&q->inner);
    buffer_free(&q->inner2);
    buffer_free(&q->inner3);
    mem_free(q->revision);
    mem_free(q);
}

uint64_t
requests_draw(struct requests *q, uint64_t n)
{
    /* splitmix64 */
    uint64_t z = q->random += 0x9e3779b97f4a7c15u;

    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return (z ^ z >> 31) % n;
}

const char *
request_method(enum request kind)
{
    return method[kind];
}

uint64_t
requests_counted(const struct requests *q)
{
    return q->counted;
}

uint64_t
lease_id(const struct requests *q, uint64_t number)
{
    return q->first_lease + number;
}

uint64_t
lease_number(const struct requests *q, uint64_t id)
{
    return id >= q->first_lease && id - q->first_lease < q->settings->leases
               ? id - q->first_lease
               : UINT64_MAX;
}

/* --- requests ------------------------------------------------------------------------------ */

/* The prefix, then the number in decimal with leading zeros up to the key's size. */
static struct t4_slice
key(struct requests *q, uint64_t number)
{
    const struct settings *s = q->settings;
    size_t prefix = strlen(s->prefix), digits = s->key_size - prefix;
    uint8_t *p;

    buffer_clear(&q->key);
    p = buffer_reserve(&q->key, s->key_size);
    memcpy(p, s->prefix, prefix);
    for (size_t i = digits; i > 0; i--, number /= 10)
        p[prefix + i - 1] = (uint8_t)('0' + number % 10);
    return slice_of(p, s->key_size);
}

void
key_space(const struct settings *s, struct buffer *first, struct buffer *end)
{
    buffer_clear(first);
    buffer_append(first, s->prefix, strlen(s->prefix));
    buffer_append_u8(first, '0');
    buffer_clear(end);
    buffer_append(end, s->prefix, strlen(s->prefix));
    buffer_append_u8(end, '9' + 1);
}

static void
encode_put(struct requests *q, uint64_t number, struct buffer *out)
{
    const struct settings *s = q->settings;
    size_t at = s->random_values ? (size_t)requests_draw(q, VALUE_POOL) : 0;

    append_bytes_field(out, 1, key(q, number));
    append_bytes_field(out, 2, slice_of(q->value.data + at, s->value_size));
}

/* If mod_revision(key) = the revision seen last, puts it, else reads it. */
static void
encode_cas(struct requests *q, uint64_t number, struct buffer *out)
{
    enum { MOD = 2 }; /* CompareTarget; the result asked for, EQUAL, is 0 */
    struct buffer *compare = &q->inner, *operation = &q->inner2, *inner = &q->inner3;

    buffer_clear(compare);
    append_varint_field(compare, 2, MOD);
    append_bytes_field(compare, 3, key(q, number));
    append_varint_field(compare, 6, q->revision[number]);
    append_bytes_field(out, 1, buffer_slice(compare));

    buffer_clear(inner);
    encode_put(q, number, inner);
    buffer_clear(operation);
    append_bytes_field(operation, 2, buffer_slice(inner));
    append_bytes_field(out, 2, buffer_slice(operation));

    buffer_clear(inner);
    append_bytes_field(inner, 1, key(q, number));
    buffer_clear(operation);
    append_bytes_field(operation, 1, buffer_slice(inner));
    append_bytes_field(out, 3, buffer_slice(operation));
}

void
request_encode(struct requests *q, enum request kind, uint64_t number, struct buffer *out)
{
    buffer_clear(out);
    switch (kind) {
    case REQUEST_PUT: encode_put(q, number, out); break;
    case REQUEST_CAS: encode_cas(q, number, out); break;
    case REQUEST_GET: append_bytes_field(out, 1, key(q, number)); break;
    case REQUEST_RANGE:
        append_bytes_field(out, 1, key(q, number));
        append_bytes_field(out, 2, key(q, number + q->settings->range_keys));
        break;
    case REQUEST_COUNT:
        append_bytes_field(out, 1, key(q, 0));
        append_bytes_field(out, 2, key(q, q->settings->keys));
        append_varint_field(out, 9, 1); /* count_only */
        break;
    case REQUEST_GRANT:
        append_varint_field(out, 1, LEASE_SECONDS);
        append_varint_field(out, 2, lease_id(q, number));
        break;
    case REQUEST_REVOKE: append_varint_field(out, 1, lease_id(q, number)); break;
    case REQUESTS: break;
    }
}

/* --- answers --------------------------------------------------------------------------------- */

struct found {
    uint64_t kvs, count, mod_revision; /* the latter: of the last one */
    bool more, bad;
};

static struct found
read_range(struct t4_slice answer, bool inside)
{
    struct byte_reader r = reader_of(answer);
    struct found found = {0};
    struct field f;

    while (next_field(&r, &f)) {
        if (f.number == 2) {
            found.kvs++;
            if (inside)
                found.mod_revision = varint_of(f.bytes, 3);
        } else if (f.number == 3) {
            found.more = f.varint != 0;
        } else if (f.number == 4) {
            found.count = f.varint;
        }
    }
    found.bad = r.bad;
    return found;
}

static enum outcome
check_range(struct requests *q, enum request kind, uint64_t number,
            struct t4_slice answer, struct error *error)
{
    uint64_t wanted = kind == REQUEST_GET ? 1 : q->settings->range_keys;
    struct found found = read_range(answer, q->revision != NULL);

    if (!found.bad && !found.more && found.kvs == wanted && found.count == wanted) {
        if (q->revision != NULL)
            q->revision[number] = found.mod_revision;
        return OUTCOME_DONE;
    }
    error_set(error, T4_E_CORRUPT,
              "a read of %" PRIu64 " keys from key %" PRIu64 " on has %" PRIu64
              ", and counts %" PRIu64,
              wanted, number, found.kvs, found.count);
    return OUTCOME_WRONG;
}

/* The answer of a transaction: the put's revision, or what the key's is instead. */
static enum outcome
check_cas(struct requests *q, uint64_t number, struct t4_slice answer,
          struct error *error)
{
    struct byte_reader r = reader_of(answer);
    uint64_t revision = 0, operations = 0;
    bool succeeded = false;
    struct field f;

    while (next_field(&r, &f)) {
        if (f.number == 1)
            revision = varint_of(f.bytes, 3);
        else if (f.number == 2)
            succeeded = f.varint != 0;
        else if (f.number == 3 && ++operations == 1 && !succeeded) {
            struct byte_reader inner = reader_of(f.bytes);
            struct found found = {0};

            if (next_field(&inner, &f) && f.number == 1)
                found = read_range(f.bytes, true);
            revision = found.kvs == 1 ? found.mod_revision : 0;
        }
    }
    if (r.bad || operations != 1 || revision == 0) {
        error_set(error, T4_E_CORRUPT,
                  "a transaction on key %" PRIu64 " neither puts it nor reads it",
                  number);
        return OUTCOME_WRONG;
    }
    if (revision > q->revision[number]) /* answers may come in another order */
        q->revision[number] = revision;
    return succeeded ? OUTCOME_DONE : OUTCOME_LOST;
}

enum outcome
request_check(struct requests *q, enum request kind, uint64_t number,
              struct t4_slice answer, struct error *error)
{
    switch (kind) {
    case REQUEST_GET:
    case REQUEST_RANGE: return check_range(q, kind, number, answer, error);
    case REQUEST_COUNT: q->counted = varint_of(answer, 4); return OUTCOME_DONE;
    case REQUEST_CAS: return check_cas(q, number, answer, error);
    case REQUEST_GRANT:
        if (varint_of(answer, 2) == lease_id(q, number))
            return OUTCOME_DONE;
        error_set(error, T4_E_CORRUPT, "a lease was granted with another id");
        return OUTCOME_WRONG;
    default: return OUTCOME_DONE;
    }
}

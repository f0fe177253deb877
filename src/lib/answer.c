/*
 * answer.c - the node's encoded answers become the structs of t4.h.
 *
 * The one place that reads them.  The fields are those of proto/etcd; the bytes come from this
 * process (wire/encode.h), yet are read with bounds: what does not fit is an error.  A message is
 * copied once, into the result, and everything points into that copy.
 *
 * Any thread.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "base/memory.h"
#include "base/slice.h"
#include "lib/lib_int.h"

struct field {
    uint32_t number;
    uint64_t v;            /* a varint */
    struct t4_slice bytes; /* text, bytes, message */
};

/* False: the end, or r->bad. */
static bool
next_field(struct byte_reader *r, struct field *f)
{
    uint64_t tag;

    if (reader_left(r) == 0)
        return false;
    tag = reader_varint(r);
    *f = (struct field){.number = (uint32_t)(tag >> 3)};
    switch (tag & 7) {
    case 0: f->v = reader_varint(r); break;
    case 2: f->bytes = reader_counted(r); break;
    default: r->bad = true; /* etcd's messages have no others */
    }
    return !r->bad;
}

static size_t
count_field(struct t4_slice message, uint32_t number)
{
    struct byte_reader r = reader_of(message);
    struct field f;
    size_t n = 0;

    while (next_field(&r, &f))
        n += f.number == number;
    return n;
}

static bool
read_kv(struct t4_slice message, t4_kv *kv)
{
    struct byte_reader r = reader_of(message);
    struct field f;

    kv->key = kv->value = slice_of("", 0);
    while (next_field(&r, &f)) {
        switch (f.number) {
        case 1: kv->key = f.bytes; break;
        case 2: kv->create_revision = (int64_t)f.v; break;
        case 3: kv->mod_revision = (int64_t)f.v; break;
        case 4: kv->version = (int64_t)f.v; break;
        case 5: kv->value = f.bytes; break;
        case 6: kv->lease = (int64_t)f.v; break;
        default: break;
        }
    }
    return !r.bad;
}

static bool
read_kvs(struct owned *o, struct t4_slice message, uint32_t number, const t4_kv **out,
         size_t *n)
{
    size_t count = count_field(message, number), i = 0;
    struct byte_reader r = reader_of(message);
    bool good = true;
    struct field f;
    t4_kv *kvs;

    *n = count;
    *out = NULL;
    if (count == 0)
        return true;
    *out = kvs = lib_owned_add(o, count * sizeof *kvs);
    while (next_field(&r, &f))
        if (f.number == number)
            good &= read_kv(f.bytes, &kvs[i++]);
    return good && !r.bad;
}

bool
lib_answer_kvs(struct owned *o, struct t4_slice message, const t4_kv **kvs, size_t *n)
{
    return read_kvs(o, message, 2, kvs, n);
}

static int64_t
header_revision(struct t4_slice header)
{
    struct byte_reader r = reader_of(header);
    struct field f;
    int64_t revision = 0;

    while (next_field(&r, &f))
        if (f.number == 3)
            revision = (int64_t)f.v;
    return revision;
}

static bool read_result(struct owned *o, int32_t kind, struct t4_slice message,
                        t4_result *out);

/* ResponseOp: one of four members, whose numbers are the kinds. */
static bool
read_operation(struct owned *o, struct t4_slice message, t4_result *out)
{
    struct byte_reader r = reader_of(message);
    struct field f;

    return next_field(&r, &f) && f.number >= T4_RESULT_RANGE &&
           f.number <= T4_RESULT_TXN && read_result(o, (int32_t)f.number, f.bytes, out);
}

static bool
read_operations(struct owned *o, struct t4_slice message, t4_result *out)
{
    struct byte_reader r = reader_of(message);
    bool good = true;
    struct field f;
    t4_result *results;
    size_t i = 0;

    out->n_results = count_field(message, 3);
    if (out->n_results == 0)
        return true;
    out->results = results = lib_owned_add(o, out->n_results * sizeof *results);
    while (good && next_field(&r, &f))
        if (f.number == 3)
            good = read_operation(o, f.bytes, &results[i++]);
    return good;
}

/* Keys (5) of a LeaseTimeToLive, leases (2) of a LeaseLeases. */
static bool
read_lease_lists(struct owned *o, struct t4_slice message, t4_result *out)
{
    struct byte_reader r = reader_of(message);
    size_t i = 0;
    struct field f, id;
    t4_kv *kvs;

    out->n_kvs = 0;
    while (next_field(&r, &f))
        out->n_kvs += f.number == 5 || (f.number == 2 && f.bytes.data != NULL);
    if (out->n_kvs == 0)
        return !r.bad;
    out->kvs = kvs = lib_owned_add(o, out->n_kvs * sizeof *kvs);
    r = reader_of(message);
    while (next_field(&r, &f)) {
        struct byte_reader status = reader_of(f.bytes);

        if (f.number == 5) {
            kvs[i].value = slice_of("", 0);
            kvs[i++].key = f.bytes;
        } else if (f.number == 2 && f.bytes.data != NULL) {
            kvs[i].key = kvs[i].value = slice_of("", 0);
            while (next_field(&status, &id))
                if (id.number == 1)
                    kvs[i].lease = (int64_t)id.v;
            i++;
        }
    }
    return !r.bad;
}

/* Fields other than the header's, by the kind of message. */
static void
read_number(int32_t kind, const struct field *f, t4_result *out)
{
    int64_t v = (int64_t)f->v;

    switch (kind << 8 | (int32_t)f->number) {
    case T4_RESULT_RANGE << 8 | 3: out->more = v != 0; break;
    case T4_RESULT_RANGE << 8 | 4: out->count = v; break;
    case T4_RESULT_DELETE << 8 | 2: out->count = v; break;
    case T4_RESULT_TXN << 8 | 2: out->succeeded = v != 0; break;
    case T4_RESULT_LEASE << 8 | 2: out->lease = v; break;
    case T4_RESULT_LEASE << 8 | 3: out->ttl = v; break;
    case T4_RESULT_LEASE << 8 | 4: out->granted_ttl = v; break;
    default: break;
    }
}

static bool
read_result(struct owned *o, int32_t kind, struct t4_slice message, t4_result *out)
{
    struct byte_reader r = reader_of(message);
    struct field f;

    out->kind = kind;
    while (next_field(&r, &f)) {
        if (f.number == 1)
            out->revision = header_revision(f.bytes);
        else
            read_number(kind, &f, out);
    }
    if (r.bad)
        return false;
    switch (kind) {
    case T4_RESULT_RANGE:
    case T4_RESULT_PUT: return read_kvs(o, message, 2, &out->kvs, &out->n_kvs);
    case T4_RESULT_DELETE: return read_kvs(o, message, 3, &out->kvs, &out->n_kvs);
    case T4_RESULT_TXN: return read_operations(o, message, out);
    default: return read_lease_lists(o, message, out);
    }
}

static struct t4_slice
flatten(struct owned *o, struct chain *message)
{
    size_t n = message->length;
    uint8_t *bytes = lib_owned_add(o, n + 1);

    chain_copy(message, bytes);
    chain_free(message);
    return slice_of(bytes, n);
}

t4_result *
lib_answer(int32_t kind, struct chain *message)
{
    struct owned *o;
    t4_result *result = lib_owned_new(sizeof *result, &o);

    if (read_result(o, kind, flatten(o, message), result))
        return result;
    t4_free(result);
    return NULL;
}

static bool
read_event(struct owned *o, struct t4_slice message, t4_event *event)
{
    struct byte_reader r = reader_of(message);
    bool good = true;
    struct field f;
    t4_kv *prev;

    while (good && next_field(&r, &f)) {
        if (f.number == 1) {
            event->type = f.v == WIRE_EVENT_DELETE ? T4_EVENT_DELETE : T4_EVENT_PUT;
        } else if (f.number == 2) {
            good = read_kv(f.bytes, &event->kv);
        } else if (f.number == 3) {
            event->prev = prev = lib_owned_add(o, sizeof *prev);
            good = read_kv(f.bytes, prev);
        }
    }
    return good && !r.bad;
}

bool
lib_answer_watch(struct chain *message, struct watch_answer *out)
{
    struct owned *o;
    t4_events *events = lib_owned_new(sizeof *events, &o);
    struct t4_slice bytes = flatten(o, message);
    struct byte_reader r = reader_of(bytes);
    size_t n = count_field(bytes, 11), i = 0;
    t4_event *event = n > 0 ? lib_owned_add(o, n * sizeof *event) : NULL;
    bool good = true;
    struct field f;

    *out = (struct watch_answer){.events = events, .reason = slice_of("", 0)};
    events->n_events = n;
    events->events = event;
    while (good && next_field(&r, &f)) {
        switch (f.number) {
        case 1: events->revision = header_revision(f.bytes); break;
        case 3: out->created = f.v != 0; break;
        case 4: out->canceled = f.v != 0; break;
        case 5: out->compact_revision = (int64_t)f.v; break;
        case 6: out->reason = f.bytes; break;
        case 11: good = read_event(o, f.bytes, &event[i++]); break;
        default: break;
        }
    }
    if (good && !r.bad)
        return true;
    t4_free(events);
    out->events = NULL;
    return false;
}

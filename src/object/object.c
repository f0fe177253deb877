/*
 * object.c - calls into an object store: bounds before, the contract after.
 *
 * The plugin is trusted with the bytes, not with the protocol: a listing out of order, a
 * short read without an error or a status that does not say whether a put happened would
 * each break the chain without a sound, so they are turned into what the callers know how
 * to deal with (CORRUPT, UNKNOWN).
 *
 * Entry points: everything in object.h but open, close and probe.  Runs on: any thread; the
 * store has no state that changes but `cancelled`.
 *
 * Invariants:
 *  (1) a put that is not OK, not UNKNOWN had no effect and will have none
 *  (2) a get that is OK gave exactly the bytes of the range
 *  (3) a list that is OK gave keys in strictly ascending order, all with the prefix and
 *      behind `after`
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <stdbool.h>
#include <string.h>

#include "base/encode.h"
#include "base/memory.h"
#include "base/slice.h"
#include "object/object_int.h"

#define MAX_KEY 1024
#define MAX_BODY ((uint64_t)5 << 30)

uint64_t
object_now_ns(void)
{
    struct env *env = env_posix();

    return env->boot_ns(env->state);
}

const char *
object_url(const struct object_store *s)
{
    return s->url;
}

void
object_cancel(struct object_store *s)
{
    __atomic_store_n(&s->cancelled, 1, __ATOMIC_RELEASE);
}

const struct t4_object_ops *
object_table(const struct object_store *s, struct t4_store **handle)
{
    *handle = s->layers[0].handle;
    return &s->layers[0].ops;
}

struct plugin *
object_plugin(const struct object_store *s, size_t i)
{
    return i < s->n_layers ? s->layers[i].plugin : NULL;
}

/* --- a call ------------------------------------------------------------------------- */

static struct t4_call
call_of(struct object_store *s, uint64_t timeout_ns, struct error *error)
{
    if (error != NULL) {
        error->status = T4_OK;
        error->message[0] = error->hint[0] = '\0';
    }
    if (timeout_ns == 0)
        timeout_ns = OBJECT_DEFAULT_TIMEOUT_NS;
    return (struct t4_call){.error = error,
                            .deadline_ns = object_now_ns() + timeout_ns,
                            .cancelled = &s->cancelled};
}

static t4_status
known(t4_status status)
{
    return status <= T4_OK && status >= T4_E_IO ? status : T4_E_INTERNAL;
}

/* The plugin's words, or the status in words, behind what was attempted. */
static t4_status
report(const struct object_store *s, struct error *error, t4_status status,
       const char *what, struct t4_slice key)
{
    if (error == NULL)
        return status;
    if (error->message[0] == '\0')
        error_set(error, status, "%s", status_text(status));
    error->status = status;
    return error_wrap(error, "object store \"%s\": cannot %s \"%.*s%s\"",
                      s->layers[0].scheme, what, (int)(key.len < 160 ? key.len : 160),
                      (const char *)key.data, key.len > 160 ? "..." : "");
}

/* --- bounds ------------------------------------------------------------------------- */

/* `part`: a prefix or an `after`, which may be empty and end amid a character. */
static t4_status
check_key(struct t4_slice key, bool part, struct error *error)
{
    if ((key.len == 0 && !part) || key.len > MAX_KEY)
        return error_set(error, T4_E_INVALID,
                         "its key has %zu bytes; 1 to %d are possible", key.len, MAX_KEY);
    for (size_t i = 0; i < key.len;) {
        size_t n = utf8_length(key.data + i, key.len - i);

        if (n == 0 && part)
            return T4_OK;
        if (n == 0)
            return error_set(error, T4_E_INVALID, "its key is not UTF-8 at byte %zu", i);
        if (key.data[i] < 0x20 || key.data[i] == 0x7f)
            return error_set(error, T4_E_INVALID,
                             "its key has a control character at byte %zu", i);
        i += n;
    }
    return T4_OK;
}

static t4_status
check_put(const struct object_store *s, const struct t4_put *put, struct error *error)
{
    t4_status st = check_key(put->key, false, error);

    if (st != T4_OK)
        return st;
    if (put->body.len > MAX_BODY)
        return error_set(error, T4_E_INVALID,
                         "its body of %zu bytes is larger than 5 GiB", put->body.len);
    switch (put->condition) {
    case T4_PUT_ANY: return T4_OK;
    case T4_PUT_IF_ABSENT:
        if (!(s->caps & T4_OBJECT_IF_ABSENT))
            return error_set(error, T4_E_UNSUPPORTED,
                             "the store does not offer create-if-absent");
        return T4_OK;
    case T4_PUT_IF_MATCH:
        if (!(s->caps & T4_OBJECT_IF_MATCH))
            return error_set(error, T4_E_UNSUPPORTED,
                             "the store does not offer if-match");
        if (put->if_match.len == 0 || put->if_match.len > T4_TAG_MAX)
            return error_set(error, T4_E_INVALID,
                             "a tag of %zu bytes; 1 to %d are possible",
                             put->if_match.len, T4_TAG_MAX);
        return T4_OK;
    }
    return error_set(error, T4_E_INVALID, "condition %u is unknown", put->condition);
}

/* What a plugin said of an object; a tag out of bounds could not be given back. */
static bool
info_is_good(const struct t4_object_info *info)
{
    return info->tag_length > 0 && info->tag_length <= T4_TAG_MAX;
}

static void
info_init(struct t4_object_info *info)
{
    memset(info, 0, sizeof *info);
    info->size = sizeof *info;
}

/* --- put ---------------------------------------------------------------------------- */

/* Invariant (1). */
static t4_status
put_status(t4_status st)
{
    switch (known(st)) {
    case T4_OK:
    case T4_E_PRECONDITION:
    case T4_E_BUSY:
    case T4_E_TIMEOUT:
    case T4_E_CANCELLED:
    case T4_E_UNAVAILABLE:
    case T4_E_DENIED:
    case T4_E_INVALID:
    case T4_E_NOSPACE:
    case T4_E_UNSUPPORTED: return st;
    }
    return T4_E_UNKNOWN;
}

t4_status
object_put(struct object_store *s, const struct t4_put *put, uint64_t timeout_ns,
           struct t4_object_info *info, struct error *error)
{
    struct t4_call call = call_of(s, timeout_ns, error);
    struct layer *l = &s->layers[0];
    struct t4_object_info own;
    t4_status st = check_put(s, put, error);

    if (st != T4_OK)
        return report(s, error, st, "put", put->key);
    info_init(&own);
    st = put_status(l->ops.put(l->handle, &call, put, &own));
    if (st == T4_OK && !info_is_good(&own))
        st = error_set(error, T4_E_UNKNOWN, "the answer had a tag of %u bytes",
                       own.tag_length);
    if (st != T4_OK)
        return report(s, error, st, "put", put->key);
    if (info != NULL)
        *info = own;
    return T4_OK;
}

/* --- get and head ------------------------------------------------------------------- */

struct collector {
    struct buffer *out;
    size_t start, limit;
    bool overflow;
};

static t4_status
collect(void *arg, struct t4_slice part)
{
    struct collector *c = arg;

    if (part.len > c->limit - (c->out->len - c->start)) {
        c->overflow = true;
        return T4_E_CORRUPT;
    }
    buffer_append_slice(c->out, part);
    return T4_OK;
}

t4_status
object_get(struct object_store *s, struct t4_slice key, uint64_t offset, uint64_t length,
           size_t limit, uint64_t timeout_ns, struct buffer *out,
           struct t4_object_info *info, struct error *error)
{
    if (offset == 0 && length == T4_TO_THE_END && ahead_take(s, key, limit, out, info))
        return T4_OK;
    return object_get_now(s, key, offset, length, limit, timeout_ns, out, info, error);
}

t4_status
object_get_now(struct object_store *s, struct t4_slice key, uint64_t offset,
               uint64_t length, size_t limit, uint64_t timeout_ns, struct buffer *out,
               struct t4_object_info *info, struct error *error)
{
    struct t4_call call = call_of(s, timeout_ns, error);
    struct collector c = {.out = out, .start = out->len, .limit = limit};
    struct layer *l = &s->layers[0];
    struct t4_object_info own;
    uint64_t expected;
    t4_status st = check_key(key, false, error);

    if (st != T4_OK)
        return report(s, error, st, "get", key);
    info_init(&own);
    st = known(l->ops.get(l->handle, &call, key, offset, length, collect, &c, &own));
    if (c.overflow)
        st = error_set(error, T4_E_CORRUPT, "it is larger than the %zu bytes expected",
                       limit);
    if (st == T4_OK && !info_is_good(&own))
        st = error_set(error, T4_E_INTERNAL, "the answer had a tag of %u bytes",
                       own.tag_length);
    expected = offset < own.length ? own.length - offset : 0;
    if (expected > length)
        expected = length;
    if (st == T4_OK && out->len - c.start != expected) /* invariant (2) */
        st = error_set(error, T4_E_CORRUPT, "%zu bytes came instead of %llu",
                       out->len - c.start, (unsigned long long)expected);
    if (st != T4_OK) {
        out->len = c.start;
        return report(s, error, st, "get", key);
    }
    if (info != NULL)
        *info = own;
    return T4_OK;
}

t4_status
object_head(struct object_store *s, struct t4_slice key, uint64_t timeout_ns,
            struct t4_object_info *info, struct error *error)
{
    struct t4_call call = call_of(s, timeout_ns, error);
    struct layer *l = &s->layers[0];
    struct t4_object_info own;
    t4_status st = check_key(key, false, error);

    if (st != T4_OK)
        return report(s, error, st, "examine", key);
    info_init(&own);
    st = known(l->ops.head(l->handle, &call, key, &own));
    if (st == T4_OK && !info_is_good(&own))
        st = error_set(error, T4_E_INTERNAL, "the answer had a tag of %u bytes",
                       own.tag_length);
    if (st != T4_OK)
        return report(s, error, st, "examine", key);
    *info = own;
    return T4_OK;
}

/* --- remove and list ---------------------------------------------------------------- */

t4_status
object_remove(struct object_store *s, const struct t4_slice *keys, size_t n,
              uint64_t timeout_ns, struct error *error)
{
    struct t4_call call = call_of(s, timeout_ns, error);
    struct layer *l = &s->layers[0];
    t4_status st;

    for (size_t i = 0; i < n; i++) {
        st = check_key(keys[i], false, error);
        if (st != T4_OK)
            return report(s, error, st, "remove", keys[i]);
    }
    if (n == 0)
        return T4_OK;
    st = known(l->ops.remove(l->handle, &call, keys, n));
    return st == T4_OK ? T4_OK : report(s, error, st, "remove", keys[0]);
}

struct listing {
    struct t4_slice prefix, after;
    uint32_t left;
    t4_list_fn *fn;
    void *arg;
    uint8_t last[MAX_KEY];
    size_t last_length;
    const char *wrong; /* how the plugin broke the contract */
};

/* Invariant (3). */
static t4_status
check_listed(void *arg, struct t4_slice key, const struct t4_object_info *info)
{
    struct listing *g = arg;

    if (key.len == 0 || key.len > MAX_KEY)
        g->wrong = "a key of impossible length";
    else if (!slice_has_prefix(key, g->prefix))
        g->wrong = "a key without the prefix";
    else if (slice_compare(key, slice_of(g->last, g->last_length)) <= 0)
        g->wrong = "keys out of order";
    else if (g->left == 0)
        g->wrong = "more keys than it was asked for";
    else if (!info_is_good(info))
        g->wrong = "an object without a tag";
    if (g->wrong != NULL)
        return T4_E_CORRUPT;
    memcpy(g->last, key.data, key.len);
    g->last_length = key.len;
    g->left--;
    return g->fn(g->arg, key, info);
}

t4_status
object_list(struct object_store *s, struct t4_slice prefix, struct t4_slice after,
            uint32_t max, uint64_t timeout_ns, t4_list_fn *fn, void *arg,
            struct error *error)
{
    struct t4_call call = call_of(s, timeout_ns, error);
    struct listing g = {
        .prefix = prefix, .after = after, .left = max, .fn = fn, .arg = arg};
    struct layer *l = &s->layers[0];
    t4_status st = check_key(prefix, true, error);

    if (st == T4_OK)
        st = check_key(after, true, error);
    if (st != T4_OK)
        return report(s, error, st, "list", prefix);
    if (max == 0)
        return T4_OK;
    if (after.len > 0)
        memcpy(g.last, after.data, after.len);
    g.last_length = after.len;
    st = known(l->ops.list(l->handle, &call, prefix, after, max, check_listed, &g));
    if (g.wrong != NULL)
        st = error_set(error, T4_E_CORRUPT, "the store gave %s", g.wrong);
    return st == T4_OK ? T4_OK : report(s, error, st, "list", prefix);
}

/*
 * probe.c - the start-up probe: does this store honour what the protocol rests on?  (I9)
 *
 * There are stores that accept If-None-Match and If-Match and ignore them in silence; with
 * such a one two servers would overwrite each other's log.  So before the first conditional
 * write every condition is tried once in both directions on a scratch object.  What was not
 * honoured is named; an error that says nothing about it (no answer, no permission) is
 * passed on.
 *
 * Entry point: object_probe().  Runs on: any thread.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <stdio.h>
#include <string.h>

#include "base/memory.h"
#include "base/slice.h"
#include "object/object_int.h"

#define ATTEMPTS 4 /* an ambiguous answer begins again with another object */

struct probe {
    struct object_store *store;
    struct error *error;
    struct t4_slice key;
    char tag[T4_TAG_MAX]; /* the object's present tag */
    size_t tag_length;
    char old_tag[T4_TAG_MAX];
    size_t old_tag_length;
};

static t4_status
refuse(struct probe *p, const char *what)
{
    error_set(p->error, T4_E_UNSUPPORTED,
              "object store %s does not honour conditions: %s", object_url(p->store),
              what);
    error_hint(p->error, "such a store cannot keep two servers apart; use one with "
                         "conditional writes (If-None-Match and If-Match), or a newer "
                         "version of this one");
    return T4_E_UNSUPPORTED;
}

static t4_status
failed(struct probe *p, t4_status st, const char *what)
{
    if (p->error != NULL)
        p->error->status = st;
    error_wrap(p->error, "probing %s: %s", object_url(p->store), what);
    return st;
}

static t4_status
put(struct probe *p, uint32_t condition, const char *body, const char *tag, size_t n)
{
    const struct t4_put request = {.size = sizeof request,
                                   .condition = condition,
                                   .key = p->key,
                                   .body = slice_str(body),
                                   .if_match = slice_of(tag, n)};
    struct t4_object_info info;
    t4_status st = object_put(p->store, &request, 0, &info, p->error);

    if (st == T4_OK) {
        memcpy(p->old_tag, p->tag, p->tag_length);
        p->old_tag_length = p->tag_length;
        memcpy(p->tag, info.tag, info.tag_length);
        p->tag_length = info.tag_length;
    }
    return st;
}

/* OK: the object has this body.  UNSUPPORTED: it has not, and `otherwise` says what of it. */
static t4_status
expect_body(struct probe *p, const char *body, const char *otherwise)
{
    struct t4_object_info info;
    struct buffer got = {0};
    t4_status st =
        object_get(p->store, p->key, 0, T4_TO_THE_END, 4096, 0, &got, &info, p->error);

    if (st == T4_E_NOTFOUND || st == T4_E_CORRUPT ||
        (st == T4_OK && !slice_equal(buffer_slice(&got), slice_str(body))))
        st = refuse(p, otherwise);
    else if (st != T4_OK)
        st = failed(p, st, "reading the scratch object");
    else { /* the next If-Match uses the tag as it is read */
        memcpy(p->tag, info.tag, info.tag_length);
        p->tag_length = info.tag_length;
    }
    buffer_free(&got);
    return st;
}

/* A put that must lose. */
static t4_status
expect_loss(struct probe *p, uint32_t condition, const char *tag, size_t n,
            const char *attempt, const char *otherwise)
{
    t4_status st = put(p, condition, "intruder", tag, n);

    if (st == T4_E_PRECONDITION)
        return T4_OK;
    return st == T4_OK ? refuse(p, otherwise) : failed(p, st, attempt);
}

static t4_status
probe_create(struct probe *p)
{
    t4_status st = expect_loss(p, T4_PUT_IF_MATCH, "\"0123456789abcdef\"", 18,
                               "if-match on an absent object",
                               "if-match (If-Match) on an object that is not there "
                               "succeeded");

    if (st != T4_OK)
        return st;
    st = put(p, T4_PUT_IF_ABSENT, "one", NULL, 0);
    if (st == T4_E_PRECONDITION)
        return refuse(p,
                      "create-if-absent (If-None-Match: *) of a new object was refused");
    if (st != T4_OK)
        return failed(p, st, "create-if-absent");
    st =
        expect_loss(p, T4_PUT_IF_ABSENT, NULL, 0, "create-if-absent, the second time",
                    "create-if-absent (If-None-Match: *) succeeded twice for one object");
    if (st != T4_OK)
        return st;
    return expect_body(p, "one",
                       "an object was not readable as written right after "
                       "create-if-absent (read-after-write)");
}

static t4_status
probe_match(struct probe *p)
{
    t4_status st = put(p, T4_PUT_IF_MATCH, "two", p->tag, p->tag_length);

    if (st == T4_E_PRECONDITION)
        return refuse(p, "if-match (If-Match) with the object's current tag was refused");
    if (st != T4_OK)
        return failed(p, st, "if-match with a fresh tag");
    if (p->old_tag_length == p->tag_length &&
        memcmp(p->old_tag, p->tag, p->tag_length) == 0)
        return refuse(p, "the tag stayed the same when the object changed");
    st = expect_loss(p, T4_PUT_IF_MATCH, p->old_tag, p->old_tag_length,
                     "if-match with a stale tag",
                     "if-match (If-Match) with a stale tag succeeded");
    if (st != T4_OK)
        return st;
    return expect_body(p, "two",
                       "a replaced object was not readable as written right "
                       "after if-match (read-after-write)");
}

struct seen {
    struct t4_slice key;
    unsigned times;
};

static t4_status
note(void *arg, struct t4_slice key, const struct t4_object_info *info)
{
    struct seen *s = arg;

    (void)info;
    s->times += slice_equal(key, s->key);
    return T4_OK;
}

static t4_status
expect_listed(struct probe *p, const char *otherwise)
{
    struct seen seen = {.key = p->key};
    t4_status st =
        object_list(p->store, p->key, slice_of(NULL, 0), 10, 0, note, &seen, p->error);

    if (st != T4_OK)
        return failed(p, st, "listing");
    return seen.times == 1 ? T4_OK : refuse(p, otherwise);
}

static t4_status
probe_once(struct probe *p)
{
    t4_status st = probe_create(p);

    if (st == T4_OK)
        st = probe_match(p);
    if (st == T4_OK)
        st = expect_listed(p, "an object was not listed right after it was written "
                              "(list-after-write)");
    if (st != T4_OK)
        return st;
    st = object_remove(p->store, &p->key, 1, 0, p->error);
    return st == T4_OK ? T4_OK : failed(p, st, "removing the scratch object");
}

t4_status
object_probe(struct object_store *s, struct t4_slice prefix, struct error *error)
{
    struct buffer key = {0};
    t4_status st = T4_E_UNKNOWN;

    for (int i = 0; i < ATTEMPTS && (st == T4_E_UNKNOWN || st == T4_E_BUSY); i++) {
        struct probe p = {.store = s, .error = error};
        char name[48];
        uint8_t id[16];
        size_t n;

        s->env->random(s->env->state, id, sizeof id);
        n = (size_t)snprintf(name, sizeof name, "probe-");
        for (size_t k = 0; k < sizeof id; k++)
            n += (size_t)snprintf(name + n, sizeof name - n, "%02x", id[k]);
        buffer_clear(&key);
        buffer_append_slice(&key, prefix);
        buffer_append(&key, name, n);
        p.key = buffer_slice(&key);
        st = probe_once(&p);
        if (st != T4_OK)
            object_remove(s, &p.key, 1, 0, NULL); /* the verdict stands either way */
    }
    buffer_free(&key);
    return st;
}

/*
 * store.c - requests with their retries, and the two conditional writes.
 *
 * The rule for ambiguous answers (I7), in one place: send the identical request again until
 * the store says that it is stored, or that the condition is lost and then the put id in the
 * object that is there says whose it is.  A read alone settles nothing: the lost request may
 * still arrive.  (chain.pml -DASSUME shows the loss.)
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <stdio.h>

#include "base/memory.h"
#include "objectlog/objectlog_int.h"

#define FIRST_PAUSE_NS 50000000u
#define LONGEST_PAUSE_NS 5000000000u
#define PAGE_KEYS 1000u /* of a listing */
#define KEY_BYTES 1024  /* longest key that a store has */
#define TRIES 5 /* of a request that certainly had no effect, with persistence TRY */

/* The request certainly had no effect, and more of the same will not help soon. */
static bool
is_certain(t4_status status)
{
    return status != T4_E_UNKNOWN && status != T4_E_IO;
}

/*
 * The store is degraded from a request's first failure until one is answered while none is
 * being repeated.  note_lock is held in the callback: what it is told last is what is so.
 */
static void
note_failure(struct objectlog *c, unsigned tries, const struct error *error)
{
    mutex_lock(&c->note_lock);
    c->repeated += tries == 1;
    if (c->options.degraded != NULL)
        c->options.degraded(c->options.arg, error->message);
    c->is_degraded = true;
    mutex_unlock(&c->note_lock);
}

/*
 * A request has ended, after so many tries.  One that was answered after failures ends the pauses
 * of the others: after an outage a segment is not to wait seconds longer than the lease.
 */
static void
note_end(struct objectlog *c, unsigned tries, bool answered)
{
    mutex_lock(&c->note_lock);
    c->repeated -= tries > 1;
    if (answered && c->is_degraded && c->repeated == 0) {
        if (c->options.degraded != NULL)
            c->options.degraded(c->options.arg, NULL);
        c->is_degraded = false;
    }
    mutex_unlock(&c->note_lock);
    if (answered && tries > 1) {
        mutex_lock(&c->lock);
        condition_broadcast(&c->wake);
        mutex_unlock(&c->lock);
    }
}

/* Waits before try number `tries`; CANCELLED: told to stop. */
static t4_status
pause_before(struct objectlog *c, unsigned tries, struct error *error)
{
    uint64_t ns = c->options.first_pause_ns, jitter;
    bool stop;

    if (ns == 0)
        ns = FIRST_PAUSE_NS;
    while (tries-- > 1 && ns < LONGEST_PAUSE_NS)
        ns *= 2;
    if (ns > LONGEST_PAUSE_NS)
        ns = LONGEST_PAUSE_NS;
    c->options.env->random(c->options.env->state, &jitter, sizeof jitter);
    ns = ns / 2 + jitter % (ns / 2 + 1);
    mutex_lock(&c->lock);
    if (!c->stop)
        condition_wait_for(&c->wake, &c->lock, ns);
    stop = c->stop;
    mutex_unlock(&c->lock);
    return stop ? error_set(error, T4_E_CANCELLED,
                            "stopped while the store did not answer")
                : T4_OK;
}

/*
 * After a failed try: OK means try again.  `open`: an earlier try may have had an effect, so
 * giving up would be guessing.
 */
static t4_status
after_failure(struct objectlog *c, enum persistence how, t4_status status, bool open,
              unsigned tries, struct error *error)
{
    note_failure(c, tries, error);
    if (how == TRY && !open && is_certain(status) &&
        (tries >= TRIES || status == T4_E_INVALID || status == T4_E_DENIED))
        return status;
    return pause_before(c, tries, error);
}

/*
 * After try number `tries` of what may be done twice without harm, so that nothing is left open by
 * an answer that was lost.  True: once more; else *status is how it ended.
 */
static bool
is_to_repeat(struct objectlog *c, t4_status *status, unsigned tries, struct error *error)
{
    t4_status next;

    if (*status == T4_OK) {
        note_end(c, tries, true);
        return false;
    }
    next = after_failure(c, TRY, *status == T4_E_UNKNOWN ? T4_E_UNAVAILABLE : *status,
                         false, tries, error);
    if (next == T4_OK)
        return true;
    note_end(c, tries + 1, false);
    *status = next;
    return false;
}

static void
keep_tag(struct tag *tag, const struct t4_object_info *info)
{
    if (tag == NULL)
        return;
    tag->length = info->tag_length <= T4_TAG_MAX ? info->tag_length : 0;
    memcpy(tag->bytes, info->tag, tag->length);
}

t4_status
objectlog_get(struct objectlog *c, const char *key, size_t limit, struct buffer *out,
              struct tag *tag, enum persistence how, struct error *error)
{
    for (unsigned tries = 1;; tries++) {
        struct t4_object_info info = {.size = sizeof info};
        t4_status status, next;

        buffer_clear(out);
        status = object_get(c->options.store, slice_str(key), 0, T4_TO_THE_END, limit,
                            c->options.timeout_ns, out, &info, error);
        if (status == T4_OK || status == T4_E_NOTFOUND || status == T4_E_CORRUPT) {
            keep_tag(tag, &info);
            note_end(c, tries, status != T4_E_CORRUPT);
            return status;
        }
        next = after_failure(c, how, status, false, tries, error);
        if (next != T4_OK) {
            note_end(c, tries + 1, false);
            return next;
        }
    }
}

static t4_status
put_until_decided(struct objectlog *c, const char *key, struct t4_slice body,
                  const struct tag *tag, bool (*mine)(struct t4_slice object, void *arg),
                  void *arg, enum persistence how, struct buffer *current,
                  struct tag *new_tag, unsigned *tries, struct error *error)
{
    struct t4_put put = {
        .size = sizeof put,
        .condition = tag != NULL ? T4_PUT_IF_MATCH : T4_PUT_IF_ABSENT,
        .key = slice_str(key),
        .body = body,
        .if_match = tag != NULL ? slice_of(tag->bytes, tag->length) : slice_of(NULL, 0),
    };
    unsigned gone = 0;
    bool open = false; /* some try may have had, or may yet have, its effect */

    for (*tries = 1;; ++*tries) {
        struct t4_object_info info = {.size = sizeof info};
        t4_status status = object_put(c->options.store, &put, c->options.timeout_ns,
                                      &info, error),
                  next;

        if (status == T4_OK) {
            keep_tag(new_tag, &info);
            return T4_OK;
        }
        if (status == T4_E_PRECONDITION) {
            status = objectlog_get(c, key, ARCHIVE_OBJECT_MAX, current, new_tag,
                                   open ? SETTLE : how, error);
            if (status == T4_OK && mine(buffer_slice(current), arg))
                return T4_OK;
            if (status == T4_OK)
                return T4_E_PRECONDITION;
            if (status != T4_E_NOTFOUND)
                return status;
            if (tag != NULL && ++gone >= TRIES) {
                error_set(error, T4_E_CORRUPT, "the object %s is gone from %s", key,
                          object_url(c->options.store));
                return error_hint(error,
                                  "somebody deleted it: restore it; it is never made "
                                  "anew");
            }
            /* lost against something that is not there: ask again */
            error_set(error, T4_E_UNKNOWN,
                      "%s: the condition is lost, but there is no object", key);
        }
        open |= !is_certain(status) || status == T4_E_NOTFOUND;
        next = after_failure(c, how, status, open, *tries, error);
        if (next != T4_OK) {
            ++*tries;
            return next;
        }
    }
}

t4_status
objectlog_put(struct objectlog *c, const char *key, struct t4_slice body,
              const struct tag *tag, bool (*mine)(struct t4_slice object, void *arg),
              void *arg, enum persistence how, struct buffer *current,
              struct tag *new_tag, struct error *error)
{
    unsigned tries;
    t4_status status = put_until_decided(c, key, body, tag, mine, arg, how, current,
                                         new_tag, &tries, error);

    note_end(c, tries, status == T4_OK || status == T4_E_PRECONDITION);
    return status;
}

t4_status
objectlog_list(struct objectlog *c, const char *prefix, const char *after, uint32_t max,
               t4_list_fn *fn, void *arg, struct error *error)
{
    for (unsigned tries = 1;; tries++) {
        t4_status status =
            object_list(c->options.store, slice_str(prefix), slice_str(after), max,
                        c->options.timeout_ns, fn, arg, error);

        if (!is_to_repeat(c, &status, tries, error))
            return status;
    }
}

/* --- objects that are written once --------------------------------------------------------- */

t4_status
objectlog_fetch(struct objectlog *c, const char *key, size_t limit, struct buffer *out,
                struct error *error)
{
    t4_status status = objectlog_get(c, key, limit, out, NULL, TRY, error);

    if (status == T4_E_NOTFOUND)
        error_set(error, status, "the object %s is not in %s", key,
                  object_url(c->options.store));
    return status;
}

t4_status
objectlog_fetch_checkpoint(struct objectlog *c, const struct checkpoint_name *name,
                           struct checkpoint_object *out, struct error *error)
{
    struct buffer object = {0};
    char key[CHECKPOINT_KEY_BYTES];
    t4_status status;

    checkpoint_key(key, name->term, name->revision, name->index);
    status = objectlog_fetch(c, key, OBJECT_TEXT_MAX, &object, error);
    if (status == T4_OK) {
        status = sha256_is(buffer_slice(&object), name->sha256)
                     ? checkpoint_decode(buffer_slice(&object), out)
                     : T4_E_CORRUPT;
        if (status != T4_OK)
            error_set(error, status,
                      "the object %s is not the one that the manifest lists", key);
    } else if (status == T4_E_NOTFOUND) {
        status = error_set(error, T4_E_CORRUPT,
                           "the object %s is gone, although the manifest lists it", key);
    }
    if (status == T4_E_CORRUPT)
        error_hint(error, "restore it from a version or a copy that the store keeps");
    buffer_free(&object);
    return status;
}

static bool
is_same_body(struct t4_slice object, void *arg)
{
    const struct t4_slice *body = arg;

    return slice_equal(object, *body);
}

t4_status
objectlog_create(struct objectlog *c, const char *key, struct t4_slice body,
                 struct error *error)
{
    t4_status status = objectlog_put(c, key, body, NULL, is_same_body, &body, TRY,
                                     &c->object, NULL, error);

    if (status == T4_E_PRECONDITION)
        return error_set(error, T4_E_EXISTS,
                         "the object %s is in %s already, with other bytes", key,
                         object_url(c->options.store));
    return status;
}

t4_status
objectlog_replace(struct objectlog *c, const char *key, struct t4_slice body,
                  struct error *error)
{
    struct t4_put put = {
        .size = sizeof put, .condition = T4_PUT_ANY, .key = slice_str(key), .body = body};

    for (unsigned tries = 1;; tries++) {
        struct t4_object_info info = {.size = sizeof info};
        t4_status status =
            object_put(c->options.store, &put, c->options.timeout_ns, &info, error);

        if (!is_to_repeat(c, &status, tries, error))
            return status;
    }
}

/* A page of a listing, which may be told twice when it is asked for again. */
struct page {
    t4_list_fn *fn;
    void *arg;
    char last[KEY_BYTES + 1]; /* key given last */
    uint32_t given;           /* of this page */
};

static t4_status
take_listed(void *arg, struct t4_slice key, const struct t4_object_info *info)
{
    struct page *p = arg;

    if (key.len > KEY_BYTES)
        return T4_E_CORRUPT;
    if (slice_compare(key, slice_str(p->last)) <= 0)
        return T4_OK;
    memcpy(p->last, key.data, key.len);
    p->last[key.len] = '\0';
    p->given++;
    return p->fn(p->arg, key, info);
}

t4_status
objectlog_walk(struct objectlog *c, const char *prefix, const char *after, t4_list_fn *fn,
               void *arg, struct error *error)
{
    struct page p = {fn, arg, "", 0};
    t4_status status;

    snprintf(p.last, sizeof p.last, "%s", after != NULL ? after : "");
    do {
        char from[sizeof p.last];

        memcpy(from, p.last, sizeof from);
        p.given = 0;
        status = objectlog_list(c, prefix, from, PAGE_KEYS, take_listed, &p, error);
    } while (status == T4_OK && p.given >= PAGE_KEYS);
    return status;
}

t4_status
objectlog_remove(struct objectlog *c, const struct t4_slice *keys, size_t n,
                 struct error *error)
{
    for (unsigned tries = 1;; tries++) {
        t4_status status =
            object_remove(c->options.store, keys, n, c->options.timeout_ns, error);

        if (!is_to_repeat(c, &status, tries, error))
            return status;
    }
}

/* --- whose body is it? ----------------------------------------------------------------------- */

bool
objectlog_is_my_lock(struct t4_slice object, void *put_id)
{
    struct lock_object l;

    return lock_decode(object, &l) == T4_OK &&
           memcmp(l.put_id, put_id, PUT_ID_BYTES) == 0;
}

bool
objectlog_is_my_manifest(struct t4_slice object, void *put_id)
{
    struct manifest_object m;

    return manifest_decode(object, &m) == T4_OK &&
           memcmp(m.put_id, put_id, PUT_ID_BYTES) == 0;
}

bool
objectlog_is_my_segment(struct t4_slice object, void *put_id)
{
    struct segment s;

    return segment_decode(object, &s) == T4_OK &&
           memcmp(s.put_id, put_id, PUT_ID_BYTES) == 0;
}

void
objectlog_new_put_id(struct objectlog *c, uint8_t id[PUT_ID_BYTES])
{
    c->options.env->random(c->options.env->state, id, PUT_ID_BYTES);
}

void
objectlog_stop(struct objectlog *c)
{
    mutex_lock(&c->lock);
    c->stop = true;
    condition_broadcast(&c->wake);
    condition_broadcast(&c->work);
    mutex_unlock(&c->lock);
}

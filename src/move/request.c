/*
 * request.c - single requests of a move, repeated while the store does not answer.
 *
 * Everything a move puts at the target is created, never replaced, and the same bytes are put
 * when the move goes on after an interruption.  So an answer that is none may be given up after
 * some tries: whatever the request still does, it is what the next run would do.  (The source's
 * lock is the exception; objectlog/ settles it.)
 *
 * Runs on: any thread.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "base/log.h"
#include "move/move_int.h"

#define TRIES 8
#define FIRST_PAUSE_NS UINT64_C(100000000)
#define LONGEST_PAUSE_NS UINT64_C(5000000000)
#define TRIES_BEFORE_WORDS 3

/* After try number `tries`: shall there be another?  Waits before it. */
static bool
again(struct move *m, t4_status status, unsigned tries, const struct error *error)
{
    uint64_t ns = FIRST_PAUSE_NS << (tries - 1);
    bool stop;

    if (status != T4_E_UNAVAILABLE && status != T4_E_BUSY && status != T4_E_TIMEOUT &&
        status != T4_E_UNKNOWN && status != T4_E_IO)
        return false;
    if (tries >= TRIES)
        return false;
    if (tries == TRIES_BEFORE_WORDS)
        LOG_WARN("the object store does not answer as it should; trying again", "reason",
                 error != NULL ? error->message : status_text(status), NULL);
    mutex_lock(&m->lock);
    if (!m->stop)
        condition_wait_for(&m->wake, &m->lock,
                           ns < LONGEST_PAUSE_NS ? ns : LONGEST_PAUSE_NS);
    stop = m->stop;
    mutex_unlock(&m->lock);
    return !stop;
}

t4_status
move_get(struct move *m, struct object_store *s, struct t4_slice key, uint64_t limit,
         struct buffer *out, struct error *error)
{
    t4_status status;
    unsigned tries = 0;

    do {
        struct t4_object_info info = {.size = sizeof info};

        buffer_clear(out);
        status = object_get(s, key, 0, T4_TO_THE_END, (size_t)limit,
                            m->options.timeout_ns, out, &info, error);
    } while (status != T4_OK && again(m, status, ++tries, error));
    return status;
}

static t4_status
compare(struct move *m, struct t4_slice key, struct t4_slice body, struct buffer *scratch,
        struct error *error)
{
    t4_status status =
        move_get(m, m->options.target, key, MOVE_OBJECT_MAX, scratch, error);

    if (status != T4_OK || slice_equal(buffer_slice(scratch), body))
        return status;
    error_set(error, T4_E_PRECONDITION,
              "%s has an object %.*s already, with other bytes than the source",
              object_url(m->options.target), (int)key.len, (const char *)key.data);
    return error_hint(error, "somebody else writes there: take the move back with "
                             "--abort, then move to an empty prefix");
}

t4_status
move_create(struct move *m, struct t4_slice key, struct t4_slice body, bool there,
            struct buffer *scratch, struct error *error)
{
    struct t4_put put = {
        .size = sizeof put, .condition = T4_PUT_IF_ABSENT, .key = key, .body = body};
    t4_status status = there ? T4_E_PRECONDITION : T4_OK;
    unsigned tries = 0;

    if (!there) {
        do {
            struct t4_object_info info = {.size = sizeof info};

            status =
                object_put(m->options.target, &put, m->options.timeout_ns, &info, error);
        } while (status != T4_OK && again(m, status, ++tries, error));
    }
    return status == T4_E_PRECONDITION ? compare(m, key, body, scratch, error) : status;
}

t4_status
move_remove(struct move *m, const struct t4_slice *keys, size_t n, struct error *error)
{
    t4_status status;
    unsigned tries = 0;

    do
        status = object_remove(m->options.target, keys, n, m->options.timeout_ns, error);
    while (status != T4_OK && again(m, status, ++tries, error));
    return status;
}

static t4_status
take(void *arg, struct t4_slice key, const struct t4_object_info *info)
{
    struct page *p = arg;

    if (p->n == MOVE_PAGE)
        return T4_E_INTERNAL;
    p->item[p->n].offset = p->keys.len;
    p->item[p->n].length = key.len;
    p->item[p->n++].bytes = info->length;
    buffer_append_slice(&p->keys, key);
    return T4_OK;
}

t4_status
move_list(struct move *m, struct object_store *s, struct t4_slice after, struct page *out,
          struct error *error)
{
    t4_status status;
    unsigned tries = 0;

    do {
        out->n = 0;
        buffer_clear(&out->keys);
        status = object_list(s, slice_of(NULL, 0), after, MOVE_PAGE,
                             m->options.timeout_ns, take, out, error);
    } while (status != T4_OK && again(m, status, ++tries, error));
    return status;
}

t4_status
move_get_moving(struct move *m, struct moving_object *out, struct error *error)
{
    struct buffer text = {0};
    t4_status status = move_get(m, m->options.target, slice_str(MOVING_KEY),
                                OBJECT_TEXT_MAX, &text, error);

    if (status == T4_OK) {
        status = moving_decode(buffer_slice(&text), out);
        if (status != T4_OK) {
            error_set(error, status, "the object %s of %s is damaged, or of a newer t4",
                      MOVING_KEY, object_url(m->options.target));
            error_hint(error, "move to an empty prefix");
        }
    }
    buffer_free(&text);
    return status;
}

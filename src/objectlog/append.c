/*
 * append.c - appending to the chain, several segments in flight.
 *
 * Each segment carries the hash of the one before it, so its bytes are made when that one's are
 * known, and they never change: a try that is repeated, also in another slot, sends the same.
 * Sent beside each other, segments must end up in the order they were made in.  A segment leaves
 * its slot for the next one only if somebody of a lower term was faster there, so a later one is
 * sent beside it only from the slot `settled` on, where nobody of a lower term can be
 * (take.c: settled_from; chain.pml: ATONCE, SHORT).  In the first slots of a term they go one by one.
 *
 * A place in the ring of flights has a thread of its own, which makes blocking calls.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <inttypes.h>

#include "objectlog/objectlog_int.h"

/* --- the threads ------------------------------------------------------------------------------ */

/* False: a later segment is in flight, which must come behind this one. */
static bool
move_to_next_slot(struct objectlog *c, struct flight *f)
{
    bool is_newest;

    mutex_lock(&c->lock);
    is_newest = f == &c->flights[(c->oldest + c->n_flights - 1) % WINDOW_MAX];
    if (is_newest) {
        f->slot++;
        c->end.next_slot = f->slot + 1;
    }
    mutex_unlock(&c->lock);
    return is_newest;
}

/*
 * Puts the same bytes into the slot, or the next one that no lower term holds.  (chain.pml: what
 * has become of the oldest)
 */
static t4_status
put_segment(struct objectlog *c, struct flight *f, struct error *error)
{
    for (;;) {
        char key[SLOT_KEY_BYTES];
        struct segment there;
        bool barrier;
        t4_status status;

        slot_key(key, f->slot);
        status =
            objectlog_put(c, key, buffer_slice(&f->body), NULL, objectlog_is_my_segment,
                          f->put_id, SETTLE, &f->there, NULL, error);
        if (status != T4_E_PRECONDITION)
            return status;
        status = segment_decode(buffer_slice(&f->there), &there);
        if (status != T4_OK)
            return objectlog_damaged(key, status, error);
        if (there.term > c->term)
            return objectlog_led_by(key, there.term, error);
        barrier = there.fence && there.writer == c->options.incarnation;
        if (there.term == c->term && !barrier) /* ours: see take.c, put_barrier() */
            return objectlog_broken(key, error, "another server writes with our term");
        if (!move_to_next_slot(c, f))
            return objectlog_broken(
                key, error,
                "an older leader wrote where it cannot, and a segment that continues "
                "another one has been sent behind it");
    }
}

static void *
flight_main(void *arg)
{
    struct flight *f = arg;
    struct objectlog *c = f->chain;

    mutex_lock(&c->lock);
    for (;;) {
        while (!f->is_queued && !c->stop)
            condition_wait(&c->work, &c->lock);
        if (!f->is_queued)
            break;
        mutex_unlock(&c->lock);
        f->status = put_segment(c, f, &f->error);
        mutex_lock(&c->lock);
        f->is_queued = false;
        f->is_decided = true;
        condition_broadcast(&c->decision);
        if (f == &c->flights[c->oldest] && c->options.decided != NULL) {
            mutex_unlock(&c->lock);
            c->options.decided(c->options.arg);
            mutex_lock(&c->lock);
        }
    }
    mutex_unlock(&c->lock);
    return NULL;
}

void
objectlog_end_flights(struct objectlog *c)
{
    objectlog_stop(c);
    for (unsigned i = 0; i < WINDOW_MAX; i++) {
        struct flight *f = &c->flights[i];

        if (f->has_thread)
            thread_join(&f->thread);
        buffer_free(&f->body);
        buffer_free(&f->there);
    }
}

/* --- the caller ---------------------------------------------------------------------------------- */

/* [lock] */
static bool
fits(const struct objectlog *c)
{
    uint32_t window = c->options.window < c->cluster.window_max ? c->options.window
                                                                : c->cluster.window_max;

    if (c->n_flights == 0)
        return true;
    for (unsigned i = 0; i < c->n_flights; i++) {
        const struct flight *f = &c->flights[(c->oldest + i) % WINDOW_MAX];

        if (f->is_decided && f->status != T4_OK) /* nothing goes behind it */
            return false;
    }
    return c->n_flights < window && c->n_flights < WINDOW_MAX &&
           c->flights[c->oldest].slot >= c->settled;
}

bool
objectlog_append_fits(struct objectlog *c)
{
    bool yes;

    mutex_lock(&c->lock);
    yes = fits(c);
    mutex_unlock(&c->lock);
    return yes;
}

/* Makes the object; c->end becomes the end behind it, but for the slot. */
static void
encode(struct objectlog *c, struct flight *f, struct segment *s, struct t4_slice raw)
{
    memcpy(s->previous, c->end.hash, HASH_BYTES);
    objectlog_new_put_id(c, s->put_id);
    buffer_clear(&c->raw);
    compress_append(&c->raw, raw);
    s->payload = buffer_slice(&c->raw);
    buffer_clear(&f->body);
    segment_encode(&f->body, s);
    memcpy(f->put_id, s->put_id, PUT_ID_BYTES);
    sha256(buffer_slice(&f->body), f->hash);
    f->last = s->last_index;
    memcpy(c->end.hash, f->hash, HASH_BYTES);
    c->end.last_index = f->last;
}

/* The first place in the ring that is free; NULL: no room. */
static struct flight *
free_flight(struct objectlog *c)
{
    struct flight *f = NULL;

    mutex_lock(&c->lock);
    if (fits(c))
        f = &c->flights[(c->oldest + c->n_flights) % WINDOW_MAX];
    mutex_unlock(&c->lock);
    return f;
}

t4_status
objectlog_append_begin(struct objectlog *c, uint64_t first, uint64_t last,
                       uint64_t committed, struct t4_slice raw, struct error *error)
{
    struct segment s = {.cluster_id = c->leader.cluster_id,
                        .lineage = c->leader.lineage,
                        .generation = c->manifest.generation,
                        .term = c->term,
                        .writer = c->options.incarnation,
                        .rule = c->leader.rule,
                        .first_index = first,
                        .last_index = last,
                        .committed = committed,
                        .raw_bytes = (uint32_t)raw.len};
    struct flight *f = free_flight(c);

    if (f == NULL || !c->positioned || first != c->end.last_index + 1 || last < first ||
        raw.len > SEGMENT_RAW_MAX)
        return error_set(error, T4_E_INVALID,
                         "entries %" PRIu64 " to %" PRIu64
                         " (%zu bytes) cannot follow entry %" PRIu64 " of the chain",
                         first, last, raw.len, c->end.last_index);
    encode(c, f, &s, raw);
    mutex_lock(&c->lock);
    f->slot = c->end.next_slot++;
    f->is_decided = false;
    f->is_queued = true;
    c->n_flights++;
    condition_broadcast(&c->work);
    mutex_unlock(&c->lock);
    if (!f->has_thread) {
        f->chain = c;
        f->has_thread = true;
        thread_start(&f->thread, "t4-chain", flight_main, f);
    }
    return T4_OK;
}

bool
objectlog_append_is_decided(struct objectlog *c)
{
    bool yes;

    mutex_lock(&c->lock);
    yes = c->n_flights > 0 && c->flights[c->oldest].is_decided;
    mutex_unlock(&c->lock);
    return yes;
}

t4_status
objectlog_append_wait(struct objectlog *c, uint64_t *last, struct error *error)
{
    struct flight *f;
    t4_status status;

    mutex_lock(&c->lock);
    if (!c->positioned || c->n_flights == 0) {
        mutex_unlock(&c->lock);
        return error_set(error, T4_E_INVALID, "no segment is on its way into the chain");
    }
    f = &c->flights[c->oldest];
    while (!f->is_decided)
        condition_wait(&c->decision, &c->lock);
    status = f->status;
    if (status == T4_OK) {
        c->place.next_slot = f->slot + 1;
        c->place.last_index = f->last;
        memcpy(c->place.hash, f->hash, HASH_BYTES);
        *last = f->last;
        c->oldest = (c->oldest + 1) % WINDOW_MAX;
        c->n_flights--;
    }
    mutex_unlock(&c->lock);
    if (status != T4_OK) { /* deposed, broken, or stopped with the outcome open */
        *error = f->error;
        c->positioned = false;
        objectlog_stop(c);
    }
    return status;
}

t4_status
objectlog_append(struct objectlog *c, uint64_t first, uint64_t last, uint64_t committed,
                 struct t4_slice raw, struct error *error)
{
    t4_status status = objectlog_append_begin(c, first, last, committed, raw, error);

    return status == T4_OK ? objectlog_append_wait(c, &last, error) : status;
}

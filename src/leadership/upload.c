/*
 * upload.c - the leader's loop: segments, rule, lease, watch over the lock, release.
 *
 * Under OBJECT a segment goes as soon as something is synced and the window of the chain lets it;
 * what gathers meanwhile goes with the next.  When the segment that was stored last held several
 * entries the loop waits a moment (two fifths of a PUT, 12 ms, at most) for their clients to come
 * back, so that a group of clients does not split into ever more that share the window.  Under
 * LOCAL a segment goes when it is full, old enough, or somebody waits for it; what came meanwhile
 * waits for its own reason.
 *
 * The loop never waits for a segment: the chain's threads put it, and wake the loop.
 *
 * Entries are read back from the local log, also the newest: one way for catching up and for
 * keeping up, and nothing is uploaded that recovery would not find.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <inttypes.h>
#include <stdio.h>

#include "base/log.h"
#include "base/memory.h"
#include "fmt/entry.h"
#include "leadership/leadership_int.h"

#define LINGER_MAX_NS (12 * MILLISECOND)
#define LEASE_UNUSED_NS (60 * SECOND)
#define POLL_NS (200 * SECOND) /* 432 GETs a day */
#define MEMORY_NS (60 * SECOND)

enum work {
    WORK_UPLOAD = 1,
    WORK_RENEW = 2,
    WORK_POLL = 4,
    WORK_STOP = 8,
    WORK_DECIDED = 16 /* the oldest segment in flight is */
};

static uint64_t
now_ns(const struct leadership *l)
{
    return l->options.env->boot_ns(l->options.env->state);
}

static bool
is_local(const struct leadership *l)
{
    return l->options.rule == RULE_LOCAL;
}

/* --- waiting for something to do --------------------------------------------------------------- */

/*
 * [lock] Until when to wait for the clients that were answered last.  With one segment under way
 * at a time they may be two groups that wait for each other's PUT, and are to become one.
 */
static uint64_t
linger_until(const struct leadership *l)
{
    uint64_t most = l->put_ns * 2 / 5 < LINGER_MAX_NS ? l->put_ns * 2 / 5 : LINGER_MAX_NS;
    uint64_t expected =
        l->last_entries + (l->options.window == 1 ? l->entries_before : 0);
    uint64_t from = l->answered_ns, quiet_from;

    if (l->last_entries <= 1 || l->synced - l->sent >= expected ||
        l->unsent_bytes >= l->options.segment_bytes)
        return 0;
    if (l->unsent_since_ns > from + most)
        return 0; /* it is none of them that came */
    if (l->unsent_since_ns > from)
        from = l->unsent_since_ns;
    quiet_from = l->synced_ns > from ? l->synced_ns : from;
    if (quiet_from + most / 2 < from + most) /* no more of them seem to come */
        return quiet_from + most / 2;
    return from + most;
}

/* [lock] When the next segment is to be sent. */
static uint64_t
send_at(const struct leadership *l, uint64_t now)
{
    uint64_t at = l->unsent_since_ns + l->options.upload_age_ns;

    if (!is_local(l))
        return linger_until(l);
    if ((l->hurry_to > l->sent || l->unsent_bytes >= l->options.segment_bytes) &&
        l->retry_ns <= now)
        return now;
    return at < l->retry_ns ? l->retry_ns : at;
}

/* [lock] What is due, or how long nothing is. */
static unsigned
due(const struct leadership *l, uint64_t now, uint64_t *sleep_ns)
{
    unsigned work = 0;
    uint64_t next = l->polled_ns + POLL_NS;

    if (l->stopping || l->finish)
        return WORK_STOP;
    if (objectlog_append_is_decided(l->chain))
        work |= WORK_DECIDED;
    if (l->synced > l->sent && objectlog_append_fits(l->chain)) {
        uint64_t at = send_at(l, now);

        if (at <= now)
            work |= WORK_UPLOAD;
        else if (at < next)
            next = at;
    }
    if (!is_local(l)) {
        uint64_t unused = l->renewed_ns + LEASE_UNUSED_NS;

        if (atomic_load(&l->renew_wanted))
            work |= WORK_RENEW;
        else if (objectlog_lock(l->chain)->lease_ms > 0) {
            if (unused <= now)
                work |= WORK_RENEW;
            else if (unused < next)
                next = unused;
        }
    }
    if (l->polled_ns + POLL_NS <= now && !l->options.built_in)
        work |= WORK_POLL;
    else if (l->options.built_in && next == l->polled_ns + POLL_NS)
        next = now + POLL_NS; /* nobody to look for */
    *sleep_ns = next > now ? next - now : 0;
    return work;
}

static unsigned
wait_for_work(struct leadership *l)
{
    unsigned work;
    uint64_t sleep_ns;

    mutex_lock(&l->lock);
    while ((work = due(l, now_ns(l), &sleep_ns)) == 0) {
        l->sleeping = true;
        l->woken = false;
        condition_wait_for(&l->wake, &l->lock, sleep_ns);
        l->sleeping = false;
    }
    mutex_unlock(&l->lock);
    return work;
}

/* --- segments ----------------------------------------------------------------------------------------- */

static uint64_t
synced_now(struct leadership *l)
{
    uint64_t synced;

    mutex_lock(&l->lock);
    synced = l->synced;
    mutex_unlock(&l->lock);
    return synced;
}

/* Takes entries up to `limit` into l->raw, until the segment is full. */
static t4_status
gather(struct leadership *l, struct batch *b, uint64_t limit, struct error *error)
{
    if (l->reader == NULL) {
        t4_status status = wal_reader_open_at(l->wal, l->sent + 1, &l->reader, error);

        if (status != T4_OK)
            return error_wrap(error, "reading the log for the upload"), status;
    }
    while (l->raw.len < l->options.segment_bytes && b->last < limit) {
        struct byte_reader r;
        struct t4_slice bytes;
        struct entry e;
        uint64_t index;
        t4_status status = wal_reader_next(l->reader, limit, &index, &bytes, error);

        if (status == T4_E_NOTFOUND)
            return T4_OK;
        if (status != T4_OK)
            return status;
        r = reader_of(bytes);
        if (index != b->last + 1 || !entry_decode_head(&r, &e))
            return error_set(error, T4_E_CORRUPT,
                             "entry %" PRIu64 " of the local log cannot be uploaded",
                             b->last + 1);
        segment_entry_append(&l->raw, bytes);
        b->last = index;
        b->entries++;
        b->bytes += wal_frame_size(bytes.len);
        b->revision = e.revision;
        if (e.kind != ENTRY_NORMAL)
            b->compacted = e.compact_revision;
    }
    return T4_OK;
}

void
upload_from(struct leadership *l, uint64_t uploaded)
{
    wal_reader_close(l->reader);
    l->reader = NULL;
    l->uploaded = l->sent = uploaded;
    l->n_flights = 0;
}

/* The batch behind the newest in flight, still empty. */
static struct batch
next_batch(const struct leadership *l)
{
    struct batch b = {.first = l->sent + 1,
                      .last = l->sent,
                      .revision = l->revision,
                      .compacted = l->compacted};

    if (l->n_flights > 0) {
        const struct batch *newest =
            &l->flights[(l->oldest + l->n_flights - 1) % WINDOW_MAX];

        b.revision = newest->revision;
        b.compacted = newest->compacted;
    }
    return b;
}

/* `limit`: how far the log was looked at. */
static void
note_sent(struct leadership *l, const struct batch *b, uint64_t limit)
{
    l->sent = b->last;
    mutex_lock(&l->lock);
    l->unsent_bytes -= b->bytes < l->unsent_bytes ? b->bytes : l->unsent_bytes;
    if (l->synced <= b->last) {
        l->unsent_bytes = l->unsent_since_ns = 0;
    } else if (b->last >= limit) {
        l->unsent_since_ns =
            b->began_ns; /* else the segment is full, and the next one due */
    }
    mutex_unlock(&l->lock);
    l->flights[(l->oldest + l->n_flights++) % WINDOW_MAX] = *b;
}

/* Sends what the log holds up to `limit`, as much as a segment takes; there is room for one. */
static t4_status
send(struct leadership *l, uint64_t limit, struct error *error)
{
    struct batch b = next_batch(l);
    t4_status status;

    buffer_clear(&l->raw);
    status = gather(l, &b, limit, error);
    if (status != T4_OK || b.entries == 0)
        return status;
    b.raw_bytes = (uint32_t)l->raw.len;
    b.began_ns = now_ns(l);
    status = objectlog_append_begin(l->chain, b.first, b.last, b.last,
                                    buffer_slice(&l->raw), error);
    if (status == T4_OK)
        note_sent(l, &b, limit);
    return status;
}

static void
note_uploaded(struct leadership *l, const struct batch *b)
{
    uint64_t now = now_ns(l);

    mutex_lock(&l->lock);
    l->object_index = b->last;
    l->object_revision = b->revision;
    l->waiting_bytes -= b->bytes < l->waiting_bytes ? b->bytes : l->waiting_bytes;
    /* Less than was counted is left if the log was ahead of the store at the start. */
    if (l->synced <= b->last)
        l->waiting_since_ns = l->waiting_bytes = 0;
    else /* what is left came after the segment was gathered */
        l->waiting_since_ns = b->began_ns;
    mutex_unlock(&l->lock);
    l->uploaded = b->last;
    l->revision = b->revision;
    l->compacted = b->compacted;
    l->entries_before = l->last_entries;
    l->last_entries = b->entries;
    l->put_ns = now - b->began_ns;
    metric_observe(l->options.metrics, METRIC_STORE_PUT, l->put_ns);
    metric_add(l->options.metrics, METRIC_STORE_SEGMENTS, 1);
    metric_add(l->options.metrics, METRIC_STORE_UPLOADED, (int64_t)b->raw_bytes);
    metric_set(l->options.metrics, METRIC_OBJECT_INDEX, (int64_t)b->last);
    metric_set(l->options.metrics, METRIC_OBJECT_REVISION, b->revision);
    wal_set_object_frontier(l->wal, b->last);
    objectlog_place(l->chain, &l->memory.place);
}

/* Waits until the oldest segment in flight is stored. */
static t4_status
collect(struct leadership *l, struct batch *b, struct error *error)
{
    uint64_t last;
    t4_status status = objectlog_append_wait(l->chain, &last, error);

    if (status != T4_OK) {
        upload_from(l,
                    l->uploaded); /* nothing of what is in flight is known to be stored */
        return status;
    }
    *b = l->flights[l->oldest];
    l->oldest = (l->oldest + 1) % WINDOW_MAX;
    l->n_flights--;
    note_uploaded(l, b);
    return T4_OK;
}

/*
 * While this server leads its memory only spares the next start some reading, so a full disk does
 * not end the lead: it is written again with a later segment.
 */
static t4_status
remember(struct leadership *l, struct error *error)
{
    t4_status status = memory_write(l, error);

    if (status != T4_E_NOSPACE)
        return status;
    atomic_store(&l->remember, true);
    return T4_OK;
}

/* Accepted in the chain, and only now told (chain.pml -DEARLY shows the loss). */
static t4_status
collect_and_tell(struct leadership *l, struct error *error)
{
    struct batch b;
    t4_status status = collect(l, &b, error);

    if (status != T4_OK)
        return status;
    l->options.uploaded(l->options.arg, b.last, b.revision, b.compacted);
    l->answered_ns = now_ns(l);
    if (atomic_exchange(&l->remember, false) || now_ns(l) - l->stored_ns > MEMORY_NS)
        status = remember(l, error);
    l->options.accepted(l->options.arg, b.last, b.raw_bytes, &l->memory.place);
    return status;
}

t4_status
upload_all(struct leadership *l, uint64_t last, struct error *error)
{
    t4_status status = T4_OK;
    struct batch b;

    while (status == T4_OK && l->uploaded < last)
        status = l->sent < last && objectlog_append_fits(l->chain)
                     ? send(l, last, error)
                     : collect(l, &b, error);
    return status;
}

static t4_status
upload(struct leadership *l, struct error *error)
{
    t4_status status = l->options.built_in ? built_in_take(l, error) : T4_OK;

    return status == T4_OK ? send(l, synced_now(l), error) : status;
}

/* --- rule and lease -------------------------------------------------------------------------------------- */

/* LOCAL to OBJECT, once everything from the LOCAL time is in the chain. */
static t4_status
settle(struct leadership *l, struct error *error)
{
    t4_status status = T4_OK;

    if (is_local(l) || l->uploaded < l->local_end)
        return T4_OK;
    if (objectlog_lock(l->chain)->rule != RULE_OBJECT)
        status = objectlog_change_rule(l->chain, RULE_OBJECT, error);
    if (status == T4_OK && l->memory.rule != RULE_OBJECT) {
        l->memory.rule = RULE_OBJECT;
        status = remember(l, error);
    }
    return status;
}

static void
answer_waits(struct leadership *l, bool proven)
{
    struct leadership_wait *w;

    mutex_lock(&l->lock);
    w = l->waits;
    l->waits = NULL;
    l->n_waits = 0;
    mutex_unlock(&l->lock);
    while (w != NULL) {
        struct leadership_wait *next = w->next;

        w->done(w, proven);
        w = next;
    }
}

/* lease.pml: the lease counts from before the request was sent. */
static t4_status
renew(struct leadership *l, struct error *error)
{
    uint64_t sent = now_ns(l), since;
    bool wanted = atomic_exchange(&l->renew_wanted, false);
    t4_status status = objectlog_renew(l->chain, wanted ? l->options.lease_ms : 0, error);

    if (status != T4_OK)
        return status;
    l->renewed_ns = l->polled_ns = sent;
    metric_add(l->options.metrics, METRIC_STORE_RENEWALS, 1);
    if (!wanted) {
        atomic_store(&l->lease_until_ns, 0);
        return T4_OK;
    }
    /* The swap found the lock as we had left it: nobody led in between, however long it took. */
    since = atomic_exchange(&l->unproven_since_ns, 0);
    if (since != 0)
        l->options.unproven(l->options.arg, now_ns(l) - since);
    atomic_store(&l->lease_until_ns, sent + l->options.lease_ms * MILLISECOND);
    answer_waits(l, true);
    return T4_OK;
}

static t4_status
poll(struct leadership *l, struct error *error)
{
    t4_status status = objectlog_look_at_lock(l->chain, error);

    l->polled_ns = now_ns(l);
    if (status == T4_E_NOTFOUND) {
        error_set(error, T4_E_CORRUPT, "the lock of %s is gone",
                  object_url(l->options.store));
        return error_hint(error,
                          "somebody deleted it: restore it; it is never made anew");
    }
    /* No answer: nothing is known, and nothing is lost.  A damaged lock is. */
    return status == T4_E_PRECONDITION || status == T4_E_CORRUPT ||
                   status == T4_E_CANCELLED
               ? status
               : T4_OK;
}

/* --- the end ------------------------------------------------------------------------------------------------ */

/* Uploads everything, and tells. */
static t4_status
drain(struct leadership *l, struct error *error)
{
    uint64_t last = synced_now(l);
    t4_status status = T4_OK;

    while (status == T4_OK && l->uploaded < last)
        status = l->sent < last && objectlog_append_fits(l->chain)
                     ? upload(l, error)
                     : collect_and_tell(l, error);
    return status;
}

static t4_status
finish(struct leadership *l, struct error *error)
{
    t4_status status = drain(l, error);

    if (l->options.built_in && l->uploaded == synced_now(l))
        l->memory.led_term = 0; /* the store holds everything: see built_in.c */
    if (l->options.built_in &&
        !l->taken) /* nothing was written, or its disk takes nothing */
        return l->memory.led_term == 0 ? remember(l, error) : T4_OK;
    if (status == T4_OK)
        status = settle(l, error);
    if (status == T4_OK)
        status = objectlog_release(l->chain, l->uploaded, l->revision, error);
    if (status == T4_OK) {
        l->memory.lock_counter = objectlog_lock(l->chain)->counter;
        status = remember(l, error);
    }
    return status;
}

/* What is due, what a client waits for first; no step of it waits for a segment. */
static t4_status
do_work(struct leadership *l, unsigned work, struct error *error)
{
    t4_status status = T4_OK;

    if (work & WORK_DECIDED) {
        status = collect_and_tell(l, error);
        if (status == T4_OK)
            status = settle(l, error);
    }
    if (status == T4_OK && (work & WORK_UPLOAD)) {
        status = upload(l, error);
        if (status == T4_E_BUSY && l->options.built_in)
            status = T4_OK; /* again at l->retry_ns */
    }
    if (status == T4_OK && (work & WORK_RENEW))
        status = renew(l, error);
    if (status == T4_OK && (work & WORK_POLL))
        status = poll(l, error);
    return status;
}

t4_status
lead(struct leadership *l, struct error *error)
{
    t4_status status = settle(l, error);

    l->polled_ns = now_ns(l);
    while (status == T4_OK) {
        unsigned work = wait_for_work(l);

        if (work & WORK_STOP) {
            status = finish(l, error);
            break;
        }
        status = do_work(l, work, error);
    }
    answer_waits(l, false);
    return status;
}

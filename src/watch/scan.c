/*
 * scan.c - catching up below the kept log: events out of the versions of keys.
 *
 * The log is ordered by revision, the versions that mvcc holds are ordered by key.  So a scan
 * goes over all keys of a watcher's range and keeps the versions with the smallest revisions
 * above what the watcher has (the *window*: so many bytes of keys, no values), then gives them
 * out in the order (revision, sub) in which the log had them, reading each value when an event
 * is encoded.  What did not fit is left to the watcher's next scan, unless the log reaches back
 * far enough by then.
 *
 * A scan is a pass (follow.c) with another source: waiting watchers whose range lies within its
 * own share it, and who has no room stalls.  Few scans run at once; the other watchers wait in
 * the order in which they came, and come back behind them for their next window.
 *
 * Each turn has a slice of work, with a reader of its own: nothing of the engine is held in
 * between.  What is written meanwhile is above the scan's target revision.  A compaction may take
 * versions away while they are searched: so each slice that is given out first looks whether one
 * has overtaken it, with its reader begun.
 *
 * Entry points: scans_take(), scans_run(), scans_overtaken(), scan_left(), scans_close().
 * Runs on the hub's thread.
 *
 * Invariants
 *  (1) the window holds every version of the range with done < revision <= to that was passed
 *      so far (COLLECTS), or all of them (GIVES)
 *  (2) the window ends between two revisions: it grows beyond its bound only by one revision
 *  (3) a scan without members gives and waits for those that stalled, or it is not in use
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <stdlib.h>

#include "base/memory.h"
#include "watch/watch_int.h"

#define EVENT_COST 4 /* of giving out an event, in records looked at */
#define LOOK 1024    /* so many of those that wait are looked at, to share a scan */
#define LOOK_COST 16 /* so many of them cost a record looked at */
#define FOUND_COST                                                                       \
    (sizeof(struct found) + 8) /* its place in the window, its allocation */

struct found_key {
    uint32_t sub;
    uint32_t length; /* of the user key */
    bool deleted;
    uint8_t bytes[];
};

static size_t
found_bytes(const struct found *f)
{
    return sizeof *f->key + f->key->length + FOUND_COST;
}

/* --- the window: a heap with the newest revision on top, later sorted ----------------------- */

static void
heap_push(struct scan *s, struct found f)
{
    size_t at = s->n++;

    for (size_t up; at > 0 && s->window[up = (at - 1) / 2].revision < f.revision; at = up)
        s->window[at] = s->window[up];
    s->window[at] = f;
}

static struct found
heap_pop(struct scan *s)
{
    struct found top = s->window[0], last = s->window[--s->n];
    size_t at = 0;

    for (size_t child; (child = 2 * at + 1) < s->n; at = child) {
        if (child + 1 < s->n && s->window[child + 1].revision > s->window[child].revision)
            child++;
        if (s->window[child].revision <= last.revision)
            break;
        s->window[at] = s->window[child];
    }
    s->window[at] = last;
    return top;
}

/* Gives up the newest revision of the window, for the next scan. */
static void
cut_newest(struct scan *s)
{
    int64_t revision = s->window[0].revision;

    while (s->n > 0 && s->window[0].revision == revision) {
        struct found f = heap_pop(s);

        s->bytes -= found_bytes(&f);
        mem_free(f.key);
    }
    s->to = revision - 1;
}

static void
window_add(struct scan *s, struct t4_slice key, const struct version *v, size_t bound)
{
    struct found f = {(int64_t)v->stamp, mem_alloc(sizeof *f.key + key.len)};

    f.key->sub = v->sub;
    f.key->length = (uint32_t)key.len;
    f.key->deleted = v->flags & VERSION_TOMBSTONE;
    if (key.len > 0)
        memcpy(f.key->bytes, key.data, key.len);
    if (s->n == s->capacity) {
        s->capacity = s->capacity > 0 ? 2 * s->capacity : 64;
        s->window = mem_realloc(s->window, s->capacity * sizeof *s->window);
    }
    heap_push(s, f);
    s->bytes += found_bytes(&f);
    if (f.revision < s->lowest)
        s->lowest = f.revision;
    while (s->bytes > bound && s->window[0].revision > s->lowest)
        cut_newest(s);
}

static int
in_log_order(const void *left, const void *right)
{
    const struct found *a = left, *b = right;

    if (a->revision != b->revision)
        return a->revision < b->revision ? -1 : 1;
    return (a->key->sub > b->key->sub) - (a->key->sub < b->key->sub);
}

/* --- scans and their members ------------------------------------------------------------------ */

static void
release(struct scan *s)
{
    for (size_t i = s->given; i < s->n; i++)
        mem_free(s->window[i].key);
    mem_free(s->window);
    s->window = NULL;
    s->n = s->capacity = s->given = s->bytes = 0;
    s->state = SCAN_UNUSED;
}

void
scan_left(struct watch_hub *h, struct scan *s)
{
    /* Who stalled may come back for the rest: to find it again costs all of the range. */
    if (s->state == SCAN_GIVES && s->given < s->n && s->bytes <= h->options.scan_bytes)
        s->parked = h->n_parked++;
    else
        release(s);
}

static struct t4_slice
user_key(const struct buffer *ikey)
{
    return slice_of(ikey->data + 1, ikey->len - 1);
}

/* Whether all that the watcher watches lies within the scan's range. */
static bool
covers(const struct scan *s, const struct watcher *w)
{
    if (slice_compare(w->key, user_key(&s->lo)) < 0)
        return false;
    if (s->hi.len == 0 || w->open)
        return s->hi.len == 0;
    if (w->end.len == 0)
        return slice_compare(w->key, user_key(&s->hi)) < 0;
    return slice_compare(w->end, user_key(&s->hi)) <= 0;
}

void
scans_take(struct watch_hub *h, struct watcher *w)
{
    for (int i = 0; i < SCANS; i++) {
        struct scan *s = &h->scan[i];
        int64_t done = s->pass.done;

        if (s->state != SCAN_UNUSED && done < w->next &&
            w->next <= (s->state == SCAN_GIVES ? s->to : done + NEAR) && covers(s, w)) {
            follow_join(h, w, &s->pass);
            return;
        }
    }
    follow_move(h, w, PLACE_BELOW);
}

/* The internal keys of a watcher's range; *hi empty: to the end of the space. */
static void
range_of(const struct watcher *w, struct buffer *lo, struct buffer *hi)
{
    buffer_clear(lo);
    buffer_append_u8(lo, SPACE_KEYS);
    buffer_append_slice(lo, w->key);
    buffer_clear(hi);
    if (w->open)
        return;
    buffer_append_u8(hi, SPACE_KEYS);
    buffer_append_slice(hi, w->end.len > 0 ? w->end : w->key);
    if (w->end.len == 0)
        buffer_append_u8(hi, 0);
}

/*
 * Is everything in the engine that the first of those that wait will read?  The others wait behind
 * it: that is how long the store needs for its range.
 */
static bool
first_is_ready(struct watch_hub *h)
{
    struct buffer lo = {0}, hi = {0};
    bool ready;

    if (mvcc_is_complete(h->options.mvcc))
        return true;
    if (h->options.range_ready == NULL)
        return false;
    range_of(h->below, &lo, &hi);
    if (h->below->open)
        buffer_append_u8(&hi, SPACE_KEYS + 1);
    ready = h->options.range_ready(h->options.fetch_arg, buffer_slice(&lo),
                                   buffer_slice(&hi));
    buffer_free(&lo);
    buffer_free(&hi);
    if (ready)
        events_end_slice(h); /* begun before all of it was there, perhaps */
    return ready;
}

/*
 * Begins a scan for the first of those that wait, with others that it covers and that are about
 * as far behind.  Returns what that cost.
 */
static uint64_t
begin(struct watch_hub *h, struct scan *s)
{
    const struct watcher *first = h->below;
    int64_t wanted = first->next;
    uint64_t looked = 0;

    range_of(first, &s->lo, &s->hi);
    buffer_clear(&s->position);
    buffer_append_slice(&s->position, buffer_slice(&s->lo));
    s->position_stamp = STAMP_NEWEST;
    s->state = SCAN_COLLECTS;
    s->pass.done = wanted - 1;
    s->to = h->revision;
    s->lowest = INT64_MAX;
    for (struct watcher *w = h->below, *next; w != NULL && looked < LOOK; w = next) {
        next = w->place_next;
        looked++;
        if (w->next > wanted + NEAR || w->next < wanted - NEAR || !covers(s, w))
            continue;
        if (w->next <= s->pass.done)
            s->pass.done = w->next - 1;
        follow_join(h, w, &s->pass);
    }
    metric_add(h->options.metrics, METRIC_WATCH_SCANS, 1);
    return looked / LOOK_COST;
}

/* The members have everything up to this revision: each goes to where it gets the rest. */
static void
dismiss(struct watch_hub *h, struct scan *s, int64_t done)
{
    while (s->pass.members != NULL) {
        struct watcher *w = s->pass.members;

        if (w->next <= done)
            w->next = done + 1;
        follow_move(h, w, w->next > h->done ? PLACE_SYNCED : PLACE_WAITING);
    }
    release(s);
}

/* A compaction has overtaken what the scan has to give next: see cancel_overtaken(). */
static void
overtaken(struct watch_hub *h, struct scan *s, int64_t compacted)
{
    for (struct watcher *w = s->pass.members, *next; w != NULL; w = next) {
        next = w->place_next;
        if (w->next < compacted)
            watcher_compacted(w, compacted);
    }
    dismiss(h, s, s->pass.done);
}

void
scans_overtaken(struct watch_hub *h)
{
    for (struct watcher *w = h->below, *next; w != NULL; w = next) {
        next = w->place_next;
        if (w->next < h->compacted)
            watcher_compacted(w, h->compacted);
    }
    for (int i = 0; i < SCANS; i++)
        if (h->scan[i].state != SCAN_UNUSED && h->scan[i].pass.done + 1 < h->compacted)
            overtaken(h, &h->scan[i], h->compacted);
}

/* --- slices ------------------------------------------------------------------------------------- */

/*
 * Puts a slice of the range's versions into the window.  NOTFOUND: the range is at its end;
 * *looked: at how many keys and versions.
 */
static t4_status
collect_slice(struct watch_hub *h, struct scan *s, struct mvcc_reader *reader,
              uint64_t budget, uint64_t *looked)
{
    struct mvcc_scan scan;
    struct t4_slice ikey;
    struct version v;
    t4_status status = T4_OK;

    mvcc_scan_begin(&scan, reader, buffer_slice(&s->position), s->position_stamp,
                    buffer_slice(&s->hi), (uint64_t)s->pass.done + 1, (uint64_t)s->to);
    while (*looked < budget) {
        status = mvcc_scan_key(&scan, &ikey);
        if (status != T4_OK)
            break;
        for (++*looked; *looked < budget; ++*looked) {
            status = mvcc_scan_version(&scan, &v);
            if (status != T4_OK)
                break;
            window_add(s, slice_of(ikey.data + 1, ikey.len - 1), &v,
                       h->options.scan_bytes);
            scan.to = (uint64_t)s->to;
        }
        if (status != T4_OK && status != T4_E_NOTFOUND)
            break;
        status = T4_OK;
    }
    mvcc_scan_position(&scan, &s->position, &s->position_stamp);
    mvcc_scan_end(&scan);
    return status;
}

static uint64_t
collect(struct watch_hub *h, struct scan *s, uint64_t budget)
{
    struct mvcc_reader reader;
    struct error error;
    uint64_t looked = 0;
    t4_status status = mvcc_read_begin(h->options.mvcc, &reader);

    if (status == T4_OK) {
        status = collect_slice(h, s, &reader, budget, &looked);
        mvcc_read_end(&reader);
    }
    metric_add(h->options.metrics, METRIC_WATCH_SCANNED, (int64_t)looked);
    if (status == T4_E_NOTFOUND) {
        if (s->n > 0)
            qsort(s->window, s->n, sizeof *s->window, in_log_order);
        s->state = SCAN_GIVES;
    } else if (status != T4_OK) {
        error_set(&error, status, "a watch cannot read the versions of keys: %s",
                  status_text(status));
        follow_failed(h, &error);
    }
    return looked + 1;
}

/* The next revision of the window to all members that have room for it. */
static t4_status
give_revision(struct watch_hub *h, struct scan *s, struct error *error)
{
    int64_t revision = s->window[s->given].revision;
    size_t next = s->given;
    t4_status status = T4_OK;

    h->entries++;
    for (; status == T4_OK && next < s->n && s->window[next].revision == revision;
         next++) {
        const struct found_key *key = s->window[next].key;

        status = events_of_version(h, &s->pass.index, slice_of(key->bytes, key->length),
                                   revision, key->deleted, error);
    }
    follow_stall_refused(h);
    /* Nobody had room: it is given to whom comes back. */
    if (status != T4_OK || s->pass.members == NULL)
        return status;
    for (; s->given < next; s->given++) {
        s->bytes -= found_bytes(&s->window[s->given]);
        mem_free(s->window[s->given].key);
    }
    s->pass.done = revision;
    return T4_OK;
}

static uint64_t
give(struct watch_hub *h, struct scan *s, uint64_t budget)
{
    struct error error;
    uint64_t cost = 0, bytes = h->bytes_read;
    t4_status status = events_begin_slice(h, &error);
    int64_t compacted = mvcc_compacted(h->options.mvcc);

    if (status == T4_OK && s->pass.done + 1 < compacted)
        overtaken(h, s, compacted);
    while (status == T4_OK && s->pass.members != NULL && s->given < s->n &&
           cost < budget && h->bytes_read - bytes < SLICE_BYTES) {
        size_t before = s->given;

        status = give_revision(h, s, &error);
        cost += EVENT_COST * (s->given - before + 1);
    }
    events_end_slice(h);
    if (status != T4_OK)
        follow_failed(h, &error);
    else if (s->pass.members != NULL && s->given == s->n)
        dismiss(h, s, s->to);
    return cost + 1;
}

/* --- turns -------------------------------------------------------------------------------------- */

/* One that is not in use, or else the one that has waited longest for who stalled; or NULL. */
static struct scan *
free_scan(struct watch_hub *h)
{
    struct scan *oldest = NULL;

    for (int i = 0; i < SCANS; i++) {
        struct scan *s = &h->scan[i];

        if (s->state == SCAN_UNUSED)
            return s;
        if (s->pass.members == NULL && (oldest == NULL || s->parked < oldest->parked))
            oldest = s;
    }
    if (oldest != NULL)
        release(oldest);
    return oldest;
}

static struct scan *
next_scan(struct watch_hub *h)
{
    for (int i = 0; i < SCANS; i++) {
        struct scan *s = &h->scan[h->next_scan++ % SCANS];

        if (s->pass.members != NULL)
            return s;
    }
    return NULL;
}

bool
scans_have_work(struct watch_hub *h)
{
    for (int i = 0; i < SCANS; i++)
        if (h->scan[i].pass.members != NULL)
            return true;
    return h->below != NULL && first_is_ready(h);
}

void
scans_run(struct watch_hub *h)
{
    /* A share of the time also where the tail has much to give. */
    uint64_t budget = h->options.scan_records + h->tail_entries, used = 0;

    if (h->n_unsynced == 0)
        scans_close(h);
    if (!scans_have_work(h))
        return;
    while (used < budget && !h->ended) {
        struct scan *s;
        uint64_t left;

        while (h->below != NULL && first_is_ready(h) && (s = free_scan(h)) != NULL)
            used += begin(h, s);
        s = next_scan(h);
        if (s == NULL)
            break;
        /* 2: a key and a version of it, or it would not get anywhere */
        left = used + 2 < budget ? budget - used : 2;
        used += s->state == SCAN_COLLECTS ? collect(h, s, left) : give(h, s, left);
        queues_pump(h);
    }
}

void
scans_close(struct watch_hub *h)
{
    for (int i = 0; i < SCANS; i++) {
        struct scan *s = &h->scan[i];

        release(s);
        buffer_free(&s->lo);
        buffer_free(&s->hi);
        buffer_free(&s->position);
    }
}

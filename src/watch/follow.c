/*
 * follow.c - reading the log for the watchers: its tail for the synced ones, passes over older
 * parts for the others.
 *
 * One tail reader serves all synced watchers; while there are none it is closed.  An unsynced
 * watcher is in one of three places: stalled at its stream while that has no room, waiting for
 * a pass, or in a pass.  A pass reads from the lowest revision that somebody waits for, a slice
 * at a time, for all its members; who waits for a revision not far ahead of it joins it.  When
 * a pass has read everything up to the tail's position its members are synced.  To whom the log
 * does not reach back a scan of the versions of keys (scan.c) comes first.
 *
 * Entry points: follow_tail(), follow_passes(); follow_place(), follow_displace() for watchers
 * that come and go, follow_move() and follow_join() for others.  Runs on the hub's thread.
 *
 * Invariants
 *  (1) a synced watcher was given every event it asked for up to hub.done; a member of a pass
 *      up to pass.done; nobody is in two places
 *  (2) members become synced only when the pass has read up to hub.limit in a turn in which
 *      the tail has, too: no entry is between the two
 *  (3) between turns the tail reader, if open, stands behind entry hub.done_index, or before
 *      it at entries that change no keys
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "watch/watch_int.h"
#include "wire/etcd_error.h"

#define SLICE_ENTRIES 256

/* --- places of watchers --------------------------------------------------------------------- */

static void
list_in(struct watcher **list, struct watcher *w)
{
    w->place_next = *list;
    w->place_link = list;
    if (*list != NULL)
        (*list)->place_link = &w->place_next;
    *list = w;
}

static void
list_out(struct watcher *w)
{
    *w->place_link = w->place_next;
    if (w->place_next != NULL)
        w->place_next->place_link = w->place_link;
}

static void
close_reader(struct wal_reader **r)
{
    if (*r != NULL)
        wal_reader_close(*r);
    *r = NULL;
}

void
follow_displace(struct watch_hub *h, struct watcher *w)
{
    if (w->place == PLACE_SYNCED) {
        watch_index_remove(&h->synced, w);
        return;
    }
    if (w->place == PLACE_BELOW && h->below_end == &w->place_next)
        h->below_end = w->place_link;
    list_out(w);
    h->n_unsynced--;
    w->stream->n_unsynced--;
    if (w->place == PLACE_PASS) {
        struct pass *p = w->pass;

        w->pass = NULL;
        watch_index_remove(&p->index, w);
        if (p->members == NULL && p->scan != NULL)
            scan_left(h, p->scan);
        else if (p->members == NULL)
            close_reader(&p->reader);
    }
}

void
follow_join(struct watch_hub *h, struct watcher *w, struct pass *p)
{
    follow_displace(h, w);
    w->place = PLACE_PASS;
    w->pass = p;
    list_in(&p->members, w);
    watch_index_add(&p->index, w);
    h->n_unsynced++;
    w->stream->n_unsynced++;
}

void
follow_place(struct watch_hub *h, struct watcher *w, enum watcher_place place)
{
    w->place = (uint8_t)place;
    if (place == PLACE_SYNCED) {
        watch_index_add(&h->synced, w);
        return;
    }
    if (place == PLACE_BELOW) { /* in the order in which they come */
        list_in(h->below_end, w);
        h->below_end = &w->place_next;
    } else {
        list_in(place == PLACE_STALLED ? &w->stream->stalled : &h->waiting, w);
    }
    h->n_unsynced++;
    w->stream->n_unsynced++;
}

void
follow_move(struct watch_hub *h, struct watcher *w, enum watcher_place place)
{
    follow_displace(h, w);
    follow_place(h, w, place);
}

void
follow_unstall(struct watch_stream *s)
{
    while (s->stalled != NULL)
        follow_move(s->hub, s->stalled, PLACE_WAITING);
}

void
follow_stall_refused(struct watch_hub *h)
{
    while (h->refused != NULL) {
        struct watcher *w = h->refused;

        h->refused = w->refused_next;
        w->refused = false;
        follow_move(h, w, PLACE_STALLED);
    }
}

/* --- reading the log ------------------------------------------------------------------------ */

void
follow_failed(struct watch_hub *h, const struct error *error)
{
    if (h->ended)
        return;
    streams_end(h, etcd_read_error(error->status));
    h->options.failed(h->options.failed_arg, error);
}

/*
 * Gives out a slice of entries with index <= hub.limit; *done is the revision reached.  True:
 * everything up to the limit was given to every watcher of the index.
 */
static bool
read_slice(struct watch_hub *h, struct wal_reader *r, struct watch_index *ix,
           int64_t *done)
{
    struct error error;
    t4_status status = T4_OK;
    size_t bytes = 0;

    for (uint32_t i = 0; i < SLICE_ENTRIES && bytes < SLICE_BYTES; i++) {
        struct t4_slice entry;
        uint64_t index;

        status = wal_reader_next(r, h->limit, &index, &entry, &error);
        if (status == T4_OK)
            status = events_of_entry(h, ix, entry, done, &error);
        if (status != T4_OK || h->refused != NULL)
            break;
        bytes += entry.len;
    }
    events_end_slice(h);
    follow_stall_refused(h);
    if (status != T4_OK && status != T4_E_NOTFOUND)
        follow_failed(h, &error);
    return status == T4_E_NOTFOUND;
}

void
follow_tail(struct watch_hub *h)
{
    bool more = h->done < h->revision && !watch_index_empty(&h->synced);
    uint64_t before = h->entries;
    struct error error;

    if (more && h->tail_reader == NULL &&
        wal_reader_open_at(h->options.wal, h->done_index + 1, &h->tail_reader, &error) !=
            T4_OK) {
        h->tail_reader = NULL;
        follow_failed(h, &error);
    }
    while (more && !h->ended) {
        more = !read_slice(h, h->tail_reader, &h->synced, &h->done) &&
               !watch_index_empty(&h->synced);
        queues_pump(h);
    }
    /*
     * Nobody is synced, perhaps since the middle of this: whoever will be has everything up
     * to here, and must not be given again what the reader has not read.
     */
    if (watch_index_empty(&h->synced))
        close_reader(&h->tail_reader);
    h->done = h->revision;
    h->done_index = h->limit;
    h->tail_entries = h->entries - before;
}

/* --- passes --------------------------------------------------------------------------------- */

/* The pass that comes to the watcher's revision next, or NULL; *unused: one without reader. */
static struct pass *
find_pass(struct watch_hub *h, const struct watcher *w, struct pass **unused)
{
    struct pass *best = NULL;

    *unused = NULL;
    for (int i = 0; i < PASSES; i++) {
        struct pass *p = &h->pass[i];

        if (p->reader == NULL)
            *unused = p;
        else if (p->done < w->next && (best == NULL || p->done > best->done))
            best = p;
    }
    return best;
}

/* Begins a pass at the watcher's revision; false: the log does not reach back to it. */
static bool
begin_pass(struct watch_hub *h, struct pass *p, const struct watcher *w)
{
    struct error error;
    t4_status status = wal_reader_open(h->options.wal, w->next, &p->reader, &error);

    p->done = w->next - 1;
    if (status == T4_OK)
        return true;
    p->reader = NULL;
    if (status != T4_E_NOTFOUND)
        follow_failed(h, &error);
    return false;
}

/*
 * Lets waiting watchers into passes, and begins passes for those that no pass will come to; those
 * that the log does not reach back to wait for a scan.
 */
static void
gather(struct watch_hub *h)
{
    struct pass *unused = NULL;
    struct watcher *lowest = NULL;

    do {
        if (lowest != NULL && !begin_pass(h, unused, lowest) && !h->ended)
            h->log_missing = lowest->next;
        lowest = NULL;
        for (struct watcher *w = h->waiting, *next; w != NULL; w = next) {
            struct pass *p = find_pass(h, w, &unused);

            next = w->place_next;
            if (w->next < h->compacted) {
                watcher_compacted(w, h->compacted);
            } else if (w->next <= h->log_missing) {
                scans_take(h, w);
            } else if (p != NULL && (unused == NULL || w->next - p->done <= NEAR)) {
                follow_join(h, w, p);
            } else if (lowest == NULL || w->next < lowest->next) {
                lowest = w;
            }
        }
    } while (lowest != NULL && unused != NULL && !h->ended);
}

/* A compaction has overtaken members of a pass: as in etcd, they are canceled. */
static void
cancel_overtaken(struct watch_hub *h)
{
    for (int i = 0; i < PASSES; i++)
        for (struct watcher *w = h->pass[i].members, *next; w != NULL; w = next) {
            next = w->place_next;
            if (h->pass[i].done + 1 < h->compacted && w->next < h->compacted)
                watcher_compacted(w, h->compacted);
        }
    scans_overtaken(h);
    h->passes_compacted = h->compacted;
}

static uint32_t
passes_running(const struct watch_hub *h)
{
    uint32_t n = 0;

    for (int i = 0; i < PASSES; i++)
        n += h->pass[i].reader != NULL;
    return n;
}

bool
follow_has_passes(struct watch_hub *h)
{
    return h->waiting != NULL || passes_running(h) > 0 || scans_have_work(h);
}

static void
one_slice(struct watch_hub *h)
{
    struct pass *p;

    do
        p = &h->pass[h->next_pass++ % PASSES];
    while (p->reader == NULL);
    if (read_slice(h, p->reader, &p->index, &p->done))
        while (p->members != NULL)
            follow_move(h, p->members, PLACE_SYNCED);
}

void
follow_passes(struct watch_hub *h)
{
    uint64_t before;
    uint32_t running;

    if (h->passes_compacted != h->compacted)
        cancel_overtaken(h);
    if (h->waiting != NULL)
        gather(h);
    before = h->entries;
    /*
     * A slice of one, but of each at least twice as much as the log has grown by: under a load
     * of writes they would never reach its end else.
     */
    while (!h->ended && (running = passes_running(h)) > 0) {
        one_slice(h);
        queues_pump(h);
        if (h->entries - before >= 2 * running * h->tail_entries)
            break;
    }
    if (!h->ended)
        scans_run(h);
}

void
follow_close(struct watch_hub *h)
{
    close_reader(&h->tail_reader);
    for (int i = 0; i < PASSES; i++)
        close_reader(&h->pass[i].reader);
    scans_close(h);
}

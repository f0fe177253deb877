/*
 * stream.c - streams and their watchers: what requests do.
 *
 * Answers and their order are etcd's (3.6): a watcher that starts below the compacted revision
 * is created first and canceled then; a create that is refused is answered as created and
 * canceled at once with id -1; a cancel of an unknown id has no answer; a progress request has
 * none unless every watcher of the stream is synced.
 *
 * What a client can make pile up is bounded: watchers by an option; requests that the hub has
 * not come to and answers that the client does not read by limits here, beyond which the
 * stream is ended; events by the stream's backlog (queue.c).
 *
 * Entry points: stream_command(), streams_notify(), streams_end().  Runs on the hub's thread.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "base/hash.h"
#include "base/memory.h"
#include "watch/watch_int.h"
#include "wire/etcd_error.h"

/* The longest key that can be stored, and the zero byte that makes "just behind it". */
#define KEY_MAX (16 * 1024 + 1)
#define ANSWERS_SPARE 4096 /* unread answers beyond one for each watcher */
#define PROGRESS_MAX 128   /* unanswered progress requests; the next ones are dropped */

/* --- watchers by id --------------------------------------------------------------------------- */

static struct watcher **
id_bucket(struct watch_hub *h, const struct watch_stream *s, int64_t id)
{
    return &h->ids[hash_u64(hash_u64((uintptr_t)s ^ h->seed) ^ (uint64_t)id) &
                   (h->id_buckets - 1)];
}

static void
id_add(struct watch_hub *h, struct watcher *w)
{
    struct watcher **bucket;

    if (h->n_watchers >= h->id_buckets) {
        struct watcher **old = h->ids;
        uint64_t n = h->id_buckets;

        h->id_buckets = n > 0 ? 2 * n : 64;
        h->ids = mem_zalloc(h->id_buckets * sizeof(struct watcher *));
        for (uint64_t i = 0; i < n; i++)
            for (struct watcher *each = old[i], *next; each != NULL; each = next) {
                next = each->id_next;
                bucket = id_bucket(h, each->stream, each->id);
                each->id_next = *bucket;
                *bucket = each;
            }
        mem_free(old);
    }
    bucket = id_bucket(h, w->stream, w->id);
    w->id_next = *bucket;
    *bucket = w;
}

static void
id_remove(struct watch_hub *h, struct watcher *w)
{
    struct watcher **link = id_bucket(h, w->stream, w->id);

    while (*link != w)
        link = &(*link)->id_next;
    *link = w->id_next;
}

static struct watcher *
find_watcher(struct watch_stream *s, int64_t id)
{
    struct watcher *w = s->hub->id_buckets > 0 ? *id_bucket(s->hub, s, id) : NULL;

    while (w != NULL && (w->stream != s || w->id != id))
        w = w->id_next;
    return w;
}

/* --- watchers --------------------------------------------------------------------------------- */

/* Its batches must have been dropped or orphaned. */
static void
watcher_free(struct watcher *w)
{
    struct watch_stream *s = w->stream;
    struct watch_hub *h = s->hub;

    follow_displace(h, w);
    id_remove(h, w);
    *w->stream_link = w->stream_next;
    if (w->stream_next != NULL)
        w->stream_next->stream_link = w->stream_link;
    s->latest_left |= w->start == s->latest_start;
    s->n_watchers--;
    h->n_watchers--;
    h->n_notified -= w->progress_notify;
    mem_free(w);
}

void
watcher_compacted(struct watcher *w, int64_t compacted)
{
    /* etcd leaves the header's revision zero here. */
    struct item *i = queue_answer(w->stream, ITEM_COMPACTED, w->id, 0);

    i->compacted = compacted;
    queue_orphan(w);
    watcher_free(w);
}

static bool
is_open_end(struct t4_slice end)
{
    return end.len == 1 && end.data[0] == 0;
}

static struct watcher *
watcher_new(struct watch_stream *s, const struct watch_create *c, int64_t id)
{
    static const uint8_t first_key[1] = {0};
    struct t4_slice key = c->key.len > 0 ? c->key : slice_of(first_key, 1);
    bool open = is_open_end(c->range_end);
    size_t end = open ? 0 : c->range_end.len;
    struct watch_hub *h = s->hub;
    struct watcher *w = mem_zalloc(sizeof *w + key.len + end);

    memcpy(w->bytes, key.data, key.len);
    w->key = slice_of(w->bytes, key.len);
    if (end > 0)
        memcpy(w->bytes + key.len, c->range_end.data, end);
    w->end = slice_of(w->bytes + key.len, end);
    w->open = open;
    w->id = id;
    w->start = c->start_revision;
    w->progress_notify = c->progress_notify;
    w->prev_kv = c->prev_kv;
    w->fragment = c->fragment;
    w->no_put = c->no_put;
    w->no_delete = c->no_delete;
    w->idle_since_ns = h->options.env->boot_ns(h->options.env->state);

    w->stream = s;
    w->stream_next = s->watchers;
    w->stream_link = &s->watchers;
    if (s->watchers != NULL)
        s->watchers->stream_link = &w->stream_next;
    s->watchers = w;
    if (w->start > s->latest_start) {
        s->latest_start = w->start;
        s->latest_left = false;
    }
    id_add(h, w);
    s->n_watchers++;
    h->n_watchers++;
    h->n_notified += w->progress_notify;
    return w;
}

/* --- requests --------------------------------------------------------------------------------- */

/* Why a create is refused, in etcd's words where etcd has some; NULL: it is not. */
static const char *
refusal(struct watch_stream *s, const struct watch_create *c)
{
    if (c->start_revision < 0)
        return etcd_error_text(ETCD_COMPACTED);
    if (c->range_end.len > 0 && !is_open_end(c->range_end) &&
        slice_compare(c->key, c->range_end) >= 0)
        return "mvcc: watcher range is empty";
    if (c->key.len > KEY_MAX || c->range_end.len > KEY_MAX)
        return "t4: key or range_end of the watch is too long: at most 16385 bytes, as "
               "no key "
               "is longer than 16384";
    if (s->n_watchers >= s->hub->options.watchers_per_stream)
        return "t4: too many watchers on this stream; open another one";
    if (c->watch_id != 0 && find_watcher(s, c->watch_id) != NULL)
        return "mvcc: duplicate watch ID provided on the WatchStream";
    return NULL;
}

static void
create(struct watch_stream *s, const struct watch_create *c)
{
    struct watch_hub *h = s->hub;
    const char *reason = refusal(s, c);
    int64_t now = h->done, id = c->watch_id;
    struct watcher *w;

    if (reason != NULL) {
        queue_answer(s, ITEM_REFUSED, -1, now)->reason = reason;
        return;
    }
    if (id == 0) {
        while (find_watcher(s, s->next_id) != NULL)
            s->next_id++;
        id = s->next_id++;
    }
    w = watcher_new(s, c, id);
    w->next = w->start > 0 ? w->start : now + 1;
    queue_answer(s, ITEM_CREATED, id, now);
    follow_place(h, w, w->next > now ? PLACE_SYNCED : PLACE_WAITING);
}

static void
cancel(struct watch_stream *s, int64_t id)
{
    struct watcher *w = find_watcher(s, id);

    if (w == NULL)
        return;
    queue_drop(w);
    watcher_free(w);
    queue_answer(s, ITEM_CANCELED, id, s->hub->done);
}

static bool
is_synced(const struct watcher *w, int64_t now)
{
    return w->place == PLACE_SYNCED && w->start <= now;
}

/* True if a watcher has not reached its start; looks at all of them only if it must. */
static bool
has_future(struct watch_stream *s, int64_t now)
{
    if (s->latest_start > now && s->latest_left) {
        s->latest_start = 0;
        s->latest_left = false;
        for (const struct watcher *w = s->watchers; w != NULL; w = w->stream_next)
            if (w->start > s->latest_start)
                s->latest_start = w->start;
    }
    return s->latest_start > now;
}

/*
 * The message speaks of this moment's revision: what is given to the watchers from now on is
 * newer, and goes into batches behind it.
 */
static void
progress(struct watch_stream *s)
{
    int64_t now = s->hub->done;

    if (s->watchers == NULL || s->n_progress >= PROGRESS_MAX || s->n_unsynced > 0 ||
        has_future(s, now))
        return;
    queue_answer(s, ITEM_PROGRESS, -1, now);
    s->seal++;
}

void
streams_notify(struct watch_hub *h, uint64_t now_ns)
{
    uint64_t interval = h->options.progress_interval_ns;

    for (struct watch_stream *s = h->streams; s != NULL; s = s->next)
        for (struct watcher *w = s->watchers; w != NULL; w = w->stream_next) {
            bool in_pieces = s->pieces != NULL && s->pieces->watcher == w;

            if (!w->progress_notify || !is_synced(w, h->done) || w->last != NULL ||
                in_pieces || w->notice != NULL || now_ns - w->idle_since_ns < interval)
                continue;
            w->idle_since_ns = now_ns;
            w->notice = queue_answer(s, ITEM_NOTICE, w->id, h->done);
            w->notice->watcher = w;
        }
}

/* --- life ------------------------------------------------------------------------------------- */

static void
let_go(struct watch_stream *s)
{
    while (s->watchers != NULL) {
        queue_drop(s->watchers);
        watcher_free(s->watchers);
    }
    queue_free(s);
}

static void
end(struct watch_stream *s, int error)
{
    if (s->ended)
        return;
    s->ended = true;
    let_go(s);
    s->transport->end(s->arg, error);
}

void
streams_end(struct watch_hub *h, int error)
{
    h->ended = error;
    for (struct watch_stream *s = h->streams; s != NULL; s = s->next)
        end(s, error);
}

void
stream_open(struct watch_stream *s)
{
    struct watch_hub *h = s->hub;

    s->next = h->streams;
    s->link = &h->streams;
    if (s->next != NULL)
        s->next->link = &s->next;
    h->streams = s;
    h->n_streams++;
    if (h->ended)
        end(s, h->ended);
}

void
stream_free(struct watch_stream *s)
{
    struct watch_hub *h = s->hub;

    let_go(s);
    for (struct watch_stream **link = &h->dirty; s->dirty; link = &(*link)->dirty_next)
        if (*link == s) {
            *link = s->dirty_next;
            break;
        }
    *s->link = s->next;
    if (s->next != NULL)
        s->next->link = s->link;
    h->n_streams--;
    mem_free(s);
}

void
stream_command(struct watch_hub *h, struct command *c)
{
    struct watch_stream *s = c->stream;

    switch (c->kind) {
    case COMMAND_OPEN: stream_open(s); return;
    case COMMAND_SENT:
        atomic_store(&s->sent_queued, false); /* from here on c may be queued again */
        queue_mark_dirty(s);
        return;
    case COMMAND_CLOSE:
        let_go(s);
        s->transport->closed(s->arg);
        stream_free(s);
        return;
    case COMMAND_FLOOD: end(s, ETCD_TOO_MANY_REQUESTS); return;
    case COMMAND_CREATE:
        if (!s->ended)
            create(s, &c->create);
        break;
    case COMMAND_CANCEL:
        if (!s->ended)
            cancel(s, c->watch_id);
        break;
    case COMMAND_PROGRESS:
        if (!s->ended)
            progress(s);
        break;
    }
    if (s->n_answers > h->options.watchers_per_stream + ANSWERS_SPARE)
        end(s, ETCD_TOO_MANY_REQUESTS);
}

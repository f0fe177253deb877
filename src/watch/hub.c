/*
 * hub.c - the hub's thread: commands, the tail of the log, catching up, timers.
 *
 * One turn: look at what is published -> bring the synced watchers up to it from the tail
 * reader -> carry out the requests that came before -> a slice of the pass for unsynced
 * watchers -> send.  A request is carried out behind the tail, so that "now" is at least what
 * its client can have seen.
 *
 * Catching up: one pass at a time reads the log from the lowest revision that a waiting
 * watcher needs, for all waiting watchers whose streams have room; watchers that need only
 * what is ahead of the pass join it.  When it has reached the tail its members are synced.  A
 * member whose stream is full drops out and waits for a later pass.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "base/log.h"
#include "base/memory.h"
#include "watch/watch_int.h"

#define SLICE_ENTRIES 256
#define NEVER UINT64_MAX

/* --- places of watchers ---------------------------------------------------------------------- */

static void
queue_in(struct watcher **list, struct watcher *w)
{
    w->queue_next = *list;
    w->queue_link = list;
    if (*list != NULL)
        (*list)->queue_link = &w->queue_next;
    *list = w;
}

static void
queue_out(struct watcher *w)
{
    *w->queue_link = w->queue_next;
    if (w->queue_next != NULL)
        w->queue_next->queue_link = w->queue_link;
}

static void
close_reader(struct wal_reader **r)
{
    if (*r != NULL)
        wal_reader_close(*r);
    *r = NULL;
}

void
hub_displace(struct watch_hub *h, struct watcher *w)
{
    if (w->place == PLACE_SYNCED) {
        watch_index_remove(&h->synced, w);
        return;
    }
    queue_out(w);
    h->n_unsynced--;
    if (w->place == PLACE_PASS) {
        watch_index_remove(&h->pass.index, w);
        if (h->pass.members == NULL)
            close_reader(&h->pass.reader);
    }
}

void
hub_place(struct watch_hub *h, struct watcher *w, enum watcher_place place)
{
    w->place = place;
    switch (place) {
    case PLACE_SYNCED:
        watch_index_add(&h->synced, w);
        return;
    case PLACE_WAITING:
        queue_in(&h->waiting, w);
        break;
    case PLACE_PASS:
        queue_in(&h->pass.members, w);
        watch_index_add(&h->pass.index, w);
        break;
    }
    h->n_unsynced++;
}

static void
move(struct watch_hub *h, struct watcher *w, enum watcher_place place)
{
    hub_displace(h, w);
    hub_place(h, w, place);
}

/* Those that had no room for the entry just read. */
static void
move_refused(struct watch_hub *h)
{
    while (h->overflow != NULL) {
        struct watcher *w = h->overflow;

        h->overflow = w->overflow_next;
        w->refused = false;
        move(h, w, PLACE_WAITING);
    }
}

/* --- reading the log ---------------------------------------------------------------------------- */

static void
failed(struct watch_hub *h, const struct error *error)
{
    if (!h->failed)
        h->options.failed(h->options.failed_arg, error);
    h->failed = true;
}

/*
 * Reads up to SLICE_ENTRIES entries with index <= limit for the watchers of an index; *done is
 * the revision reached.  False: nothing more up to the limit.
 */
static bool
read_slice(struct watch_hub *h, struct wal_reader *r, struct watch_index *ix, uint64_t limit,
           int64_t *done)
{
    struct error error;
    t4_status status = T4_OK;

    for (uint32_t i = 0; i < SLICE_ENTRIES && status == T4_OK; i++) {
        struct t4_slice entry;
        uint64_t index;

        status = wal_reader_next(r, limit, &index, &entry, &error);
        if (status != T4_OK)
            break;
        if (!events_of_entry(h, ix, entry, done)) {
            status = error_set(&error, T4_E_CORRUPT, "log entry %llu cannot be decoded",
                               (unsigned long long)index);
            break;
        }
        if (h->overflow != NULL)
            break; /* the caller moves them before the next entry */
        if (index == limit)
            status = T4_E_NOTFOUND;
    }
    events_end_batch(h);
    if (status != T4_OK && status != T4_E_NOTFOUND)
        failed(h, &error);
    return status == T4_OK;
}

static bool
open_reader(struct watch_hub *h, int64_t revision, struct wal_reader **out)
{
    struct error error;
    t4_status status = wal_reader_open(h->options.wal, revision, out, &error);

    if (status != T4_OK) {
        *out = NULL;
        failed(h, &error);
    }
    return status == T4_OK;
}

/* Synced watchers get everything up to the published index. */
static void
follow_tail(struct watch_hub *h, uint64_t limit)
{
    int64_t revision = h->revision;
    bool more = h->synced.root != NULL || h->synced.singles > 0;
    int64_t done = h->done;

    if (!more || h->failed)
        close_reader(&h->tail_reader);
    else if (h->tail_reader == NULL && done < revision)
        more = open_reader(h, done + 1, &h->tail_reader);
    while (more && done < revision && !h->failed) {
        more = read_slice(h, h->tail_reader, &h->synced, limit, &done);
        h->done = done;
        move_refused(h);
        streams_pump(h);
    }
    h->done = revision;
}

/* --- the pass ---------------------------------------------------------------------------------------- */

static bool
may_catch_up(const struct watcher *w)
{
    return stream_has_room(w->stream) && !w->stream->ended;
}

/* Lets waiting watchers into the running pass, or begins one. */
static void
gather(struct watch_hub *h)
{
    int64_t lowest = INT64_MAX;
    struct watcher *w, *next;

    for (w = h->waiting; w != NULL; w = next) {
        next = w->queue_next;
        if (!may_catch_up(w))
            continue;
        if (w->next < h->compacted)
            watcher_compacted(w, h->compacted);
        else if (w->next < lowest)
            lowest = w->next;
    }
    if (h->pass.reader == NULL) {
        if (lowest == INT64_MAX || !open_reader(h, lowest, &h->pass.reader))
            return;
        h->pass.done = lowest - 1;
    }
    for (w = h->waiting; w != NULL; w = next) {
        next = w->queue_next;
        if (may_catch_up(w) && w->next > h->pass.done)
            move(h, w, PLACE_PASS);
    }
}

static void
catch_up(struct watch_hub *h, uint64_t limit)
{
    bool more;

    if (h->waiting != NULL && !h->failed)
        gather(h);
    if (h->pass.reader == NULL || h->failed)
        return;
    more = read_slice(h, h->pass.reader, &h->pass.index, limit, &h->pass.done);
    /* at the limit, and nobody was left behind by the last entry: that is the tail */
    more |= h->overflow != NULL;
    move_refused(h);
    while (!more && h->pass.members != NULL)
        move(h, h->pass.members, PLACE_SYNCED);
    if (h->pass.members == NULL)
        close_reader(&h->pass.reader);
}

/* True if a slice of a pass can be done now. */
static bool
can_catch_up(const struct watch_hub *h)
{
    if (h->failed)
        return false;
    if (h->pass.reader != NULL)
        return true;
    for (const struct watcher *w = h->waiting; w != NULL; w = w->queue_next)
        if (may_catch_up(w))
            return true;
    return false;
}

/* --- the thread ----------------------------------------------------------------------------------------- */

static uint64_t
boot_ns(const struct watch_hub *h)
{
    return h->options.env->boot_ns(h->options.env->state);
}

static void
tick(struct watch_hub *h)
{
    uint64_t now = boot_ns(h);

    if (h->n_notified == 0) {
        h->next_tick_ns = NEVER;
    } else if (h->next_tick_ns == NEVER || now >= h->next_tick_ns) {
        streams_notify(h, now);
        h->next_tick_ns = now + h->options.progress_interval_ns / 10 + 1;
    }
}

/* Waits for something to do and takes the commands; *published before *commands. */
static bool
wait_for_work(struct watch_hub *h, uint64_t seen, struct command **commands)
{
    bool stop;

    mutex_lock(&h->lock);
    while (h->head == NULL && !h->stopping && !can_catch_up(h) &&
           !(h->n_watchers > 0 && atomic_load(&h->index) != seen)) {
        bool timed_out = false;

        h->sleeping = true;
        if (h->next_tick_ns == NEVER) {
            condition_wait(&h->wake, &h->lock);
        } else {
            uint64_t now = boot_ns(h);

            timed_out = now >= h->next_tick_ns ||
                        !condition_wait_for(&h->wake, &h->lock, h->next_tick_ns - now);
        }
        h->sleeping = false;
        if (timed_out)
            break;
    }
    *commands = h->head;
    h->head = NULL;
    h->tail = &h->head;
    stop = h->stopping;
    mutex_unlock(&h->lock);
    return !stop;
}

static void *
hub_main(void *arg)
{
    struct watch_hub *h = arg;
    struct command *c = NULL;
    uint64_t seen = atomic_load(&h->index);

    while (wait_for_work(h, seen, &c)) {
        mutex_lock(&h->published_lock);
        seen = h->published.index;
        h->revision = h->published.revision;
        h->compacted = h->published.compacted;
        mutex_unlock(&h->published_lock);
        follow_tail(h, seen);
        while (c != NULL) {
            struct command *next = c->next;

            stream_command(h, c);
            mem_free(c);
            c = next;
        }
        catch_up(h, seen);
        tick(h);
        streams_pump(h);
        atomic_store(&h->interested, h->n_watchers > 0);
        metric_set(h->options.metrics, METRIC_WATCHERS_UNSYNCED, (int64_t)h->n_unsynced);
    }
    while (c != NULL) {
        struct command *next = c->next;

        if (c->kind == COMMAND_OPEN || c->kind == COMMAND_CLOSE)
            stream_command(h, c);
        mem_free(c);
        c = next;
    }
    streams_end(h, h->stop_error);
    close_reader(&h->tail_reader);
    close_reader(&h->pass.reader);
    return NULL;
}

/* --- interface ---------------------------------------------------------------------------------------------- */

struct watch_hub *
watch_hub_new(const struct watch_hub_options *options)
{
    struct watch_hub *h = mem_zalloc(sizeof *h);

    h->options = *options;
    options->env->random(options->env->state, &h->seed, sizeof h->seed);
    mutex_init(&h->lock);
    mutex_init(&h->published_lock);
    condition_init(&h->wake);
    h->tail = &h->head;
    watch_index_init(&h->synced, h->seed);
    watch_index_init(&h->pass.index, h->seed);
    h->next_tick_ns = NEVER;
    return h;
}

void
watch_hub_start(struct watch_hub *h)
{
    h->done = h->revision = h->published.revision;
    thread_start(&h->thread, "t4-watch", hub_main, h);
}

void
watch_hub_stop(struct watch_hub *h, int error)
{
    mutex_lock(&h->lock);
    h->stopping = true;
    h->stop_error = error;
    condition_signal(&h->wake);
    mutex_unlock(&h->lock);
    thread_join(&h->thread);

    mutex_lock(&h->lock);
    h->stopped = true;
    while (h->head != NULL) { /* came after the thread's last look */
        struct command *c = h->head;

        h->head = c->next;
        mutex_unlock(&h->lock);
        if (c->kind == COMMAND_OPEN || c->kind == COMMAND_CLOSE)
            stream_command(h, c);
        mem_free(c);
        mutex_lock(&h->lock);
    }
    mutex_unlock(&h->lock);
    streams_end(h, error);
}

void
watch_hub_free(struct watch_hub *h)
{
    while (h->streams != NULL)
        stream_free(h->streams);
    watch_index_free(&h->synced);
    watch_index_free(&h->pass.index);
    condition_destroy(&h->wake);
    mutex_destroy(&h->published_lock);
    mutex_destroy(&h->lock);
    mem_free(h);
}

void
watch_hub_publish(struct watch_hub *h, uint64_t index, int64_t revision, int64_t compacted)
{
    mutex_lock(&h->published_lock);
    h->published.index = index;
    h->published.revision = revision;
    h->published.compacted = compacted;
    mutex_unlock(&h->published_lock);
    atomic_store(&h->index, index);
    if (!atomic_load(&h->interested))
        return;
    mutex_lock(&h->lock);
    if (h->sleeping)
        condition_signal(&h->wake);
    mutex_unlock(&h->lock);
}

static struct command *
new_command(struct watch_stream *s, int kind, size_t bytes)
{
    struct command *c = mem_zalloc(sizeof *c + bytes);

    c->kind = (__typeof__(c->kind))kind;
    c->stream = s;
    return c;
}

/* Queues it; after the hub's end only OPEN and CLOSE mean anything, and are done here. */
static void
command(struct command *c)
{
    struct watch_hub *h = c->stream->hub;
    bool stopped;

    mutex_lock(&h->lock);
    stopped = h->stopped;
    if (stopped) {
        if (c->kind == COMMAND_OPEN || c->kind == COMMAND_CLOSE)
            stream_command(h, c);
    } else {
        *h->tail = c;
        h->tail = &c->next;
        if (h->sleeping)
            condition_signal(&h->wake);
    }
    mutex_unlock(&h->lock);
    if (stopped)
        mem_free(c);
}

struct watch_stream *
watch_stream_open(struct watch_hub *h, const struct watch_transport *transport, void *arg)
{
    struct watch_stream *s = mem_zalloc(sizeof *s);

    s->hub = h;
    s->transport = transport;
    s->arg = arg;
    s->control_tail = &s->control;
    s->ready_tail = &s->ready;
    metric_add(h->options.metrics, METRIC_WATCH_STREAMS, 1);
    command(new_command(s, COMMAND_OPEN, 0));
    return s;
}

void
watch_stream_sent(struct watch_stream *s)
{
    if (atomic_exchange(&s->state, STREAM_IDLE) == STREAM_BUSY_MORE)
        command(new_command(s, COMMAND_SENT, 0));
}

void
watch_stream_close(struct watch_stream *s)
{
    command(new_command(s, COMMAND_CLOSE, 0));
}

void
watch_stream_create(struct watch_stream *s, const struct watch_create *request)
{
    struct command *c =
        new_command(s, COMMAND_CREATE, request->key.len + request->range_end.len);

    c->create = *request;
    if (request->key.len > 0)
        memcpy(c->bytes, request->key.data, request->key.len);
    if (request->range_end.len > 0)
        memcpy(c->bytes + request->key.len, request->range_end.data, request->range_end.len);
    c->create.key.data = c->bytes;
    c->create.range_end.data = c->bytes + request->key.len;
    command(c);
}

void
watch_stream_cancel(struct watch_stream *s, int64_t watch_id)
{
    struct command *c = new_command(s, COMMAND_CANCEL, 0);

    c->watch_id = watch_id;
    command(c);
}

void
watch_stream_progress(struct watch_stream *s)
{
    command(new_command(s, COMMAND_PROGRESS, 0));
}

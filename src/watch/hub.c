/*
 * hub.c - the hub's thread, its commands, and the interface of this folder (watch.h).
 *
 * One turn: look at what is published -> give the synced watchers everything up to it ->
 * carry out the requests that were queued -> one slice of a pass, and of scans, for unsynced
 * watchers -> send.  Requests are carried out behind the tail, so that "now" is never older than what
 * their client can have seen.
 *
 * Locks: hub.lock guards the queue of commands, hub.published_lock the published state; both
 * are leaves, held for a few instructions, and never while a transport, the log or the engine
 * is called.
 *
 * After the stop, or when the log cannot be read, the thread goes on only to end streams that
 * are still opened and to let go of those that are closed.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "base/memory.h"
#include "watch/watch_int.h"

#define NEVER UINT64_MAX
/* Requests of one stream that the hub has not come to; beyond that the stream is ended. */
#define REQUESTS_SPARE 4096 /* besides one for each watcher it may have */
#define REQUEST_BYTES_MAX (64u << 20)

/* --- the thread ------------------------------------------------------------------------------- */

static uint64_t
boot_ns(const struct watch_hub *h)
{
    return h->options.env->boot_ns(h->options.env->state);
}

/* Looks for idle watchers ten times in the interval of progress_notify. */
static void
tick(struct watch_hub *h)
{
    uint64_t now;

    if (h->n_notified == 0 || h->options.progress_interval_ns == 0) {
        h->next_tick_ns = NEVER;
        return;
    }
    now = boot_ns(h);
    if (h->next_tick_ns == NEVER || now >= h->next_tick_ns) {
        streams_notify(h, now);
        h->next_tick_ns = now + h->options.progress_interval_ns / 10 + 1;
    }
}

/* [lock] */
static bool
has_work(struct watch_hub *h)
{
    if (h->head != NULL || (h->stopping && !h->stopped) || h->exiting)
        return true;
    if (h->ended)
        return false;
    return follow_has_passes(h) ||
           (h->n_watchers > 0 && atomic_load(&h->index) != h->limit);
}

/* Waits for something to do and takes the commands. */
static struct command *
wait_for_work(struct watch_hub *h, bool *stopping, bool *exiting)
{
    struct command *commands;
    bool time_over = false;

    mutex_lock(&h->lock);
    h->sleeping = true;
    while (!has_work(h) && !time_over) {
        uint64_t now;

        if (h->next_tick_ns == NEVER || h->ended) {
            condition_wait(&h->wake, &h->lock);
            continue;
        }
        now = boot_ns(h);
        time_over = now >= h->next_tick_ns ||
                    !condition_wait_for(&h->wake, &h->lock, h->next_tick_ns - now);
    }
    h->sleeping = false;
    commands = h->head;
    h->head = NULL;
    h->tail = &h->head;
    *stopping = h->stopping && !h->stopped;
    *exiting = h->exiting;
    mutex_unlock(&h->lock);
    return commands;
}

static void
look_at_published(struct watch_hub *h)
{
    mutex_lock(&h->published_lock);
    h->limit = h->published.index;
    h->revision = h->published.revision;
    h->compacted = h->published.compacted;
    mutex_unlock(&h->published_lock);
}

static void
carry_out(struct watch_hub *h, struct command *c)
{
    while (c != NULL) {
        struct command *next = c->next;
        struct watch_stream *s = c->stream;
        size_t size = c->size;

        if (size > 0) {
            atomic_fetch_sub(&s->requests, 1);
            atomic_fetch_sub(&s->request_bytes, size);
        }
        stream_command(h, c); /* a close frees the stream, and c with it */
        if (size > 0)
            mem_free(c);
        c = next;
    }
}

static void
stop(struct watch_hub *h)
{
    streams_end(h, h->stop_error);
    follow_close(h);
    h->next_tick_ns = NEVER;
    atomic_store(&h->interested, false);
    mutex_lock(&h->lock);
    h->stopped = true;
    condition_broadcast(&h->over);
    mutex_unlock(&h->lock);
}

static void *
hub_main(void *arg)
{
    struct watch_hub *h = arg;
    bool stopping = false, exiting = false;

    while (!exiting) {
        struct command *commands = wait_for_work(h, &stopping, &exiting);

        if (!h->ended) {
            look_at_published(h);
            follow_tail(h);
        }
        carry_out(h, commands);
        if (!h->ended) {
            follow_passes(h);
            tick(h);
            queues_pump(h);
            atomic_store(&h->interested, h->n_watchers > 0);
        }
        queues_tell(h);
        if (stopping)
            stop(h);
    }
    return NULL;
}

/* --- the hub ---------------------------------------------------------------------------------- */

void
watch_hub_set_term(struct watch_hub *h, uint64_t term)
{
    atomic_store_explicit(&h->term, term, memory_order_relaxed);
}

struct watch_hub *
watch_hub_new(const struct watch_hub_options *options)
{
    struct watch_hub *h = mem_zalloc(sizeof *h);

    h->options = *options;
    atomic_store(&h->term, options->header.raft_term);
    options->env->random(options->env->state, &h->seed, sizeof h->seed);
    mutex_init(&h->lock);
    mutex_init(&h->published_lock);
    condition_init(&h->wake);
    condition_init(&h->over);
    h->tail = &h->head;
    watch_index_init(&h->synced, h->seed);
    for (int i = 0; i < PASSES; i++)
        watch_index_init(&h->pass[i].index, h->seed);
    for (int i = 0; i < SCANS; i++) {
        watch_index_init(&h->scan[i].pass.index, h->seed);
        h->scan[i].pass.scan = &h->scan[i];
    }
    h->below_end = &h->below;
    chain_init(&h->scratch);
    h->memory = block_account_open();
    h->next_tick_ns = NEVER;
    return h;
}

void
watch_hub_start(struct watch_hub *h)
{
    look_at_published(h);
    h->done = h->revision;
    h->done_index = h->limit;
    h->started = true;
    thread_start(&h->thread, "t4-watch", hub_main, h);
}

void
watch_hub_stop(struct watch_hub *h, int error)
{
    if (!h->started)
        return;
    mutex_lock(&h->lock);
    h->stop_error = error;
    h->stopping = true;
    condition_signal(&h->wake);
    while (!h->stopped)
        condition_wait(&h->over, &h->lock);
    mutex_unlock(&h->lock);
}

void
watch_hub_free(struct watch_hub *h)
{
    if (h->started) {
        mutex_lock(&h->lock);
        h->exiting = true;
        condition_signal(&h->wake);
        mutex_unlock(&h->lock);
        thread_join(&h->thread);
    }
    while (h->streams != NULL)
        stream_free(h->streams);
    follow_close(h);
    watch_index_free(&h->synced);
    for (int i = 0; i < PASSES; i++)
        watch_index_free(&h->pass[i].index);
    for (int i = 0; i < SCANS; i++)
        watch_index_free(&h->scan[i].pass.index);
    chain_free(&h->scratch);
    block_account_close(h->memory);
    buffer_free(&h->ikey);
    mem_free(h->ids);
    condition_destroy(&h->over);
    condition_destroy(&h->wake);
    mutex_destroy(&h->published_lock);
    mutex_destroy(&h->lock);
    mem_free(h);
}

void
watch_hub_wake(struct watch_hub *h)
{
    mutex_lock(&h->lock);
    if (h->sleeping)
        condition_signal(&h->wake);
    mutex_unlock(&h->lock);
}

void
watch_hub_publish(struct watch_hub *h, uint64_t index, int64_t revision,
                  int64_t compacted)
{
    mutex_lock(&h->published_lock);
    h->published.index = index;
    h->published.revision = revision;
    h->published.compacted = compacted;
    mutex_unlock(&h->published_lock);
    atomic_store(&h->index, index);
    /* The hub sets it before it looks at the index for the last time and sleeps. */
    if (atomic_load(&h->interested))
        watch_hub_wake(h);
}

/* --- streams ---------------------------------------------------------------------------------- */

static void
enqueue(struct command *c, int kind, struct watch_stream *s)
{
    struct watch_hub *h = s->hub;

    c->kind = (__typeof__(c->kind))kind;
    c->stream = s;
    c->next = NULL;
    mutex_lock(&h->lock);
    *h->tail = c;
    h->tail = &c->next;
    if (h->sleeping)
        condition_signal(&h->wake);
    mutex_unlock(&h->lock); /* behind it, a close may already have ended the hub */
}

/* Room for a request with so many bytes behind it; NULL: too many are queued already. */
static struct command *
request_new(struct watch_stream *s, size_t bytes)
{
    size_t size = sizeof(struct command) + bytes;
    struct command *c;

    if (atomic_fetch_add(&s->requests, 1) >=
            s->hub->options.watchers_per_stream + REQUESTS_SPARE ||
        atomic_fetch_add(&s->request_bytes, size) > REQUEST_BYTES_MAX) {
        if (!atomic_exchange(&s->flood_queued, true))
            enqueue(&s->flood, COMMAND_FLOOD, s);
        return NULL;
    }
    c = mem_zalloc(size);
    c->size = size;
    return c;
}

struct watch_stream *
watch_stream_open(struct watch_hub *h, const struct watch_transport *transport, void *arg)
{
    struct watch_stream *s = mem_zalloc(sizeof *s);

    s->hub = h;
    s->transport = transport;
    s->arg = arg;
    s->queue_end = &s->queue;
    enqueue(&s->open, COMMAND_OPEN, s);
    return s;
}

void
watch_stream_sent(struct watch_stream *s)
{
    if (atomic_exchange(&s->state, STREAM_IDLE) == STREAM_BUSY_MORE &&
        !atomic_exchange(&s->sent_queued, true))
        enqueue(&s->sent, COMMAND_SENT, s);
}

void
watch_stream_close(struct watch_stream *s)
{
    enqueue(&s->close, COMMAND_CLOSE, s);
}

void
watch_stream_create(struct watch_stream *s, const struct watch_create *request)
{
    size_t key = request->key.len, end = request->range_end.len;
    struct command *c = request_new(s, key + end);

    if (c == NULL)
        return;
    c->create = *request;
    if (key > 0)
        memcpy(c->bytes, request->key.data, key);
    if (end > 0)
        memcpy(c->bytes + key, request->range_end.data, end);
    c->create.key.data = c->bytes;
    c->create.range_end.data = c->bytes + key;
    enqueue(c, COMMAND_CREATE, s);
}

void
watch_stream_cancel(struct watch_stream *s, int64_t watch_id)
{
    struct command *c = request_new(s, 0);

    if (c == NULL)
        return;
    c->watch_id = watch_id;
    enqueue(c, COMMAND_CANCEL, s);
}

void
watch_stream_progress(struct watch_stream *s)
{
    struct command *c = request_new(s, 0);

    if (c != NULL)
        enqueue(c, COMMAND_PROGRESS, s);
}

/*
 * stream.c - streams and their watchers: requests, what waits to be sent, sending.
 *
 * A stream sends in this order: what is left of a message in pieces, answers to requests, a
 * progress message when nothing it speaks for is waiting, then the events of the watchers that
 * have some, in turn.  All pending events of a watcher go in one message (folded: a busy stream
 * gets several revisions per message).
 *
 * Runs on the hub's thread.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "base/hash.h"
#include "base/memory.h"
#include "watch/watch_int.h"

#define COPY_BELOW 1024 /* smaller events are copied, larger ones shared */

/* --- what waits ------------------------------------------------------------------------------ */

void
stream_mark_dirty(struct watch_stream *s)
{
    if (s->dirty)
        return;
    s->dirty = true;
    s->dirty_next = s->hub->dirty;
    s->hub->dirty = s;
}

bool
stream_has_room(const struct watch_stream *s)
{
    return s->backlog < s->hub->options.stream_backlog_bytes;
}

static void
note_length(struct watcher *w, size_t n)
{
    if (w->n_lengths == w->lengths_capacity) {
        w->lengths_capacity = 2 * w->lengths_capacity + 8;
        w->length = mem_realloc(w->length, w->lengths_capacity * sizeof *w->length);
    }
    w->length[w->n_lengths++] = (uint32_t)n;
}

void
watcher_pend(struct watcher *w, int64_t revision, const struct chain *event)
{
    struct watch_stream *s = w->stream;

    for (uint32_t i = 0; i < event->n_links; i++) {
        const struct link *l = &event->links[i];

        if (event->length < COPY_BELOW)
            chain_append(&w->pending, l->block->data + l->start, l->length);
        else
            chain_append_block(&w->pending, l->block, l->start, l->length);
    }
    if (w->fragment)
        note_length(w, event->length);
    w->queued = revision;
    s->backlog += event->length;
    metric_add(s->hub->options.metrics, METRIC_WATCH_EVENTS, 1);
    if (!w->ready) {
        w->ready = true;
        w->ready_next = NULL;
        *s->ready_tail = w;
        s->ready_tail = &w->ready_next;
    }
    stream_mark_dirty(s);
}

static struct response_header
header_of(const struct watch_hub *h, int64_t revision)
{
    struct response_header header = h->options.header;

    header.revision = revision;
    return header;
}

/* A message without events, in the stream's list of answers. */
static struct message *
answer(struct watch_stream *s, int64_t revision, int64_t watch_id)
{
    struct message *m = mem_zalloc(sizeof *m);
    struct response_header header = header_of(s->hub, revision);

    chain_init(&m->chain);
    wire_header_field(&m->chain, 1, &header);
    wire_varint_field(&m->chain, 2, (uint64_t)watch_id);
    *s->control_tail = m;
    s->control_tail = &m->next;
    stream_mark_dirty(s);
    return m;
}

/* --- watchers --------------------------------------------------------------------------------- */

static void
leave_ready_list(struct watcher *w)
{
    struct watch_stream *s = w->stream;
    struct watcher **link = &s->ready;

    if (!w->ready)
        return;
    while (*link != w)
        link = &(*link)->ready_next;
    *link = w->ready_next;
    if (s->ready_tail == &w->ready_next)
        s->ready_tail = link;
    w->ready = false;
}

static void
settle_progress(struct watcher *w)
{
    if (w->owes_progress)
        w->stream->owing--;
    w->owes_progress = false;
}

static void
watcher_free(struct watcher *w)
{
    struct watch_stream *s = w->stream;
    struct watch_hub *h = s->hub;

    hub_displace(h, w);
    leave_ready_list(w);
    settle_progress(w);
    s->backlog -= w->pending.length;
    chain_free(&w->pending);
    *w->stream_link = w->stream_next;
    if (w->stream_next != NULL)
        w->stream_next->stream_link = w->stream_link;
    s->n_watchers--;
    h->n_watchers--;
    h->n_notified -= w->progress_notify;
    metric_add(h->options.metrics, METRIC_WATCHERS, -1);
    mem_free(w->length);
    mem_free(w);
}

void
watcher_compacted(struct watcher *w, int64_t compacted)
{
    /* etcd leaves the header's revision zero here */
    struct message *m = answer(w->stream, 0, w->id);

    wire_varint_field(&m->chain, 4, 1);
    wire_varint_field(&m->chain, 5, (uint64_t)compacted);
    watcher_free(w);
}

static struct watcher *
find_watcher(struct watch_stream *s, int64_t id)
{
    struct watcher *w = s->watchers;

    while (w != NULL && w->id != id)
        w = w->stream_next;
    return w;
}

static struct watcher *
new_watcher(struct watch_stream *s, const struct watch_create *c)
{
    static const uint8_t first_key[1] = {0};
    struct t4_slice key = c->key.len > 0 ? c->key : slice_of(first_key, 1);
    struct watch_hub *h = s->hub;
    struct watcher *w = mem_zalloc(sizeof *w + key.len + c->range_end.len);

    w->stream = s;
    memcpy(w->bytes, key.data, key.len);
    w->key = slice_of(w->bytes, key.len);
    w->open = c->range_end.len == 1 && c->range_end.data[0] == 0;
    if (c->range_end.len > 0 && !w->open) {
        memcpy(w->bytes + key.len, c->range_end.data, c->range_end.len);
        w->end = slice_of(w->bytes + key.len, c->range_end.len);
    }
    chain_init(&w->pending);
    w->priority = hash_u64((uintptr_t)w ^ h->seed);
    w->start = c->start_revision;
    w->progress_notify = c->progress_notify;
    w->prev_kv = c->prev_kv;
    w->fragment = c->fragment;
    w->no_put = c->no_put;
    w->no_delete = c->no_delete;
    w->idle_since_ns = h->options.env->boot_ns(h->options.env->state);
    return w;
}

static void
refuse(struct watch_stream *s, int64_t revision, const char *why)
{
    struct message *m = answer(s, revision, -1);

    wire_varint_field(&m->chain, 3, 1);
    wire_varint_field(&m->chain, 4, 1);
    wire_bytes_field(&m->chain, 6, slice_str(why));
}

static void
create(struct watch_stream *s, const struct watch_create *c)
{
    struct watch_hub *h = s->hub;
    int64_t now = h->done, id = c->watch_id;
    bool open = c->range_end.len == 1 && c->range_end.data[0] == 0;
    struct watcher *w;

    if (c->start_revision < 0) {
        refuse(s, now, "etcdserver: mvcc: required revision has been compacted");
        return;
    }
    if (c->range_end.len > 0 && !open && slice_compare(c->key, c->range_end) >= 0) {
        refuse(s, now, "mvcc: watcher range is empty");
        return;
    }
    if (s->n_watchers >= h->options.watchers_per_stream) {
        refuse(s, now, "t4: too many watchers on one stream: open another stream");
        return;
    }
    if (id != 0 && find_watcher(s, id) != NULL) {
        refuse(s, now, "mvcc: duplicate watch ID provided on the WatchStream");
        return;
    }
    s->chosen_ids |= id != 0;
    while (id == 0 && s->chosen_ids && find_watcher(s, s->next_id) != NULL)
        s->next_id++;
    if (c->watch_id == 0)
        id = s->next_id++;

    w = new_watcher(s, c);
    w->id = id;
    w->stream_next = s->watchers;
    w->stream_link = &s->watchers;
    if (s->watchers != NULL)
        s->watchers->stream_link = &w->stream_next;
    s->watchers = w;
    s->n_watchers++;
    h->n_watchers++;
    h->n_notified += w->progress_notify;
    metric_add(h->options.metrics, METRIC_WATCHERS, 1);
    wire_varint_field(&answer(s, now, id)->chain, 3, 1);
    w->next = w->start > 0 ? w->start : now + 1;
    hub_place(h, w, w->next > now ? PLACE_SYNCED : PLACE_WAITING);
}

static void
cancel(struct watch_stream *s, int64_t id)
{
    struct watcher *w = find_watcher(s, id);

    if (w == NULL)
        return; /* as etcd: no answer */
    if (s->fragments.n > 0 && s->fragments.watch_id == id)
        s->fragments.n = 0;
    watcher_free(w);
    wire_varint_field(&answer(s, s->hub->done, id)->chain, 4, 1);
}

/*
 * Answered only if every watcher of the stream is synced; the message goes when the events
 * that were waiting at this moment are sent, and speaks of this moment's revision.
 */
static void
progress(struct watch_stream *s)
{
    int64_t now = s->hub->done;

    if (s->watchers == NULL)
        return;
    for (struct watcher *w = s->watchers; w != NULL; w = w->stream_next)
        if (w->place != PLACE_SYNCED || w->start > now)
            return;
    for (struct watcher *w = s->ready; w != NULL; w = w->ready_next)
        if (!w->owes_progress) {
            w->owes_progress = true;
            s->owing++;
        }
    s->progress_wanted++;
    s->progress_revision = now;
    stream_mark_dirty(s);
}

/* --- sending ------------------------------------------------------------------------------------ */

static bool
has_message(const struct watch_stream *s)
{
    return s->fragments.n > 0 || s->control != NULL ||
           (s->progress_wanted > 0 && s->owing == 0) || s->ready != NULL;
}

static void
event_head(struct watch_stream *s, int64_t id, bool fragment, struct chain *out)
{
    struct response_header header = header_of(s->hub, s->hub->revision);

    wire_header_field(out, 1, &header);
    wire_varint_field(out, 2, (uint64_t)id);
    wire_varint_field(out, 7, fragment);
}

static void
next_fragment(struct watch_stream *s, struct chain *out)
{
    uint32_t limit = s->hub->options.fragment_bytes;
    size_t n = 0;

    do {
        n += s->fragments.length[s->fragments.i++];
    } while (s->fragments.i < s->fragments.n &&
             n + s->fragments.length[s->fragments.i] <= limit);
    event_head(s, s->fragments.watch_id, s->fragments.i < s->fragments.n, out);
    chain_append(out, s->fragments.bytes.data + s->fragments.at, n);
    s->fragments.at += n;
    if (s->fragments.i == s->fragments.n) {
        s->fragments.n = 0;
        buffer_free(&s->fragments.bytes);
    }
}

/* The watcher's events are larger than a message of one that asked for fragments. */
static void
begin_fragments(struct watch_stream *s, struct watcher *w)
{
    buffer_clear(&s->fragments.bytes);
    chain_copy(&w->pending, buffer_reserve(&s->fragments.bytes, w->pending.length));
    s->fragments.bytes.len = w->pending.length;
    s->fragments.watch_id = w->id;
    s->fragments.at = s->fragments.i = 0;
    s->fragments.n = w->n_lengths;
    mem_free(s->fragments.length);
    s->fragments.length = w->length;
    w->length = NULL;
    w->lengths_capacity = 0;
}

static void
next_events(struct watch_stream *s, struct chain *out)
{
    struct watcher *w = s->ready;
    size_t length = w->pending.length;

    leave_ready_list(w);
    settle_progress(w);
    s->backlog -= length;
    w->idle_since_ns = s->hub->options.env->boot_ns(s->hub->options.env->state);
    if (w->fragment && length > s->hub->options.fragment_bytes && w->n_lengths > 1) {
        begin_fragments(s, w);
        chain_free(&w->pending);
        next_fragment(s, out);
    } else {
        event_head(s, w->id, false, out);
        chain_splice(out, &w->pending);
    }
    w->n_lengths = 0;
}

static void
next_message(struct watch_stream *s, struct chain *out)
{
    struct response_header header;
    struct message *m = s->control;

    if (s->fragments.n > 0) {
        next_fragment(s, out);
    } else if (m != NULL) {
        s->control = m->next;
        if (s->control == NULL)
            s->control_tail = &s->control;
        chain_splice(out, &m->chain);
        mem_free(m);
    } else if (s->progress_wanted > 0 && s->owing == 0) {
        s->progress_wanted--;
        header = header_of(s->hub, s->progress_revision);
        wire_header_field(out, 1, &header);
        wire_varint_field(out, 2, (uint64_t)-1);
    } else {
        next_events(s, out);
    }
}

static void
pump(struct watch_stream *s)
{
    while (!s->ended && has_message(s)) {
        int busy = STREAM_BUSY;
        struct chain out;

        if (atomic_load(&s->state) != STREAM_IDLE) {
            /* Sent in the meantime?  Then there is nobody to tell us: send ourselves. */
            if (atomic_compare_exchange_strong(&s->state, &busy, STREAM_BUSY_MORE) ||
                busy == STREAM_BUSY_MORE)
                return;
            continue;
        }
        atomic_store(&s->state, STREAM_BUSY);
        chain_init(&out);
        next_message(s, &out);
        s->transport->send(s->arg, &out, has_message(s));
        chain_free(&out);
    }
}

void
streams_pump(struct watch_hub *h)
{
    while (h->dirty != NULL) {
        struct watch_stream *s = h->dirty;

        h->dirty = s->dirty_next;
        s->dirty = false;
        pump(s);
    }
}

void
streams_notify(struct watch_hub *h, uint64_t now_ns)
{
    for (struct watch_stream *s = h->streams; s != NULL; s = s->next)
        for (struct watcher *w = s->watchers; w != NULL; w = w->stream_next)
            if (w->progress_notify && w->place == PLACE_SYNCED && !w->ready &&
                w->start <= h->done &&
                now_ns - w->idle_since_ns >= h->options.progress_interval_ns) {
                w->idle_since_ns = now_ns;
                answer(s, h->done, w->id);
            }
}

/* --- life ------------------------------------------------------------------------------------------ */

void
streams_end(struct watch_hub *h, int error)
{
    for (struct watch_stream *s = h->streams; s != NULL; s = s->next) {
        if (!s->ended)
            s->transport->end(s->arg, error);
        s->ended = true;
    }
}

void
stream_free(struct watch_stream *s)
{
    struct watch_hub *h = s->hub;

    while (s->watchers != NULL)
        watcher_free(s->watchers);
    while (s->control != NULL) {
        struct message *m = s->control;

        s->control = m->next;
        chain_free(&m->chain);
        mem_free(m);
    }
    if (s->dirty) {
        struct watch_stream **link = &h->dirty;

        while (*link != s)
            link = &(*link)->dirty_next;
        *link = s->dirty_next;
    }
    if (s->link != NULL) {
        *s->link = s->next;
        if (s->next != NULL)
            s->next->link = s->link;
    }
    buffer_free(&s->fragments.bytes);
    mem_free(s->fragments.length);
    metric_add(h->options.metrics, METRIC_WATCH_STREAMS, -1);
    mem_free(s);
}

void
stream_command(struct watch_hub *h, const struct command *c)
{
    struct watch_stream *s = c->stream;
    const struct watch_transport *transport = s->transport;
    void *arg = s->arg;

    switch (c->kind) {
    case COMMAND_OPEN:
        s->next = h->streams;
        s->link = &h->streams;
        if (s->next != NULL)
            s->next->link = &s->next;
        h->streams = s;
        break;
    case COMMAND_CREATE:
        create(s, &c->create);
        break;
    case COMMAND_CANCEL:
        cancel(s, c->watch_id);
        break;
    case COMMAND_PROGRESS:
        progress(s);
        break;
    case COMMAND_SENT:
        stream_mark_dirty(s);
        break;
    case COMMAND_CLOSE:
        stream_free(s);
        transport->closed(arg);
        break;
    }
}

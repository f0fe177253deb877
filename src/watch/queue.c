/*
 * queue.c - what waits to be sent on a stream, and sending it.
 *
 * One queue per stream holds answers and batches of events in the order in which they became
 * due, and everything that is promised about order follows from that: a watcher is created
 * before it is given events, a progress message stands behind the events it speaks for.  A
 * batch in the queue takes further revisions of its watcher (so a busy stream gets several in
 * one message) until it is large, or a progress message comes behind it.
 *
 * Events are encoded once into blocks that all batches refer to.  When a message is made, small
 * events are copied into it, so that the transport need not handle many little pieces, and
 * large ones are passed on as they are.
 *
 * Entry points: queue_answer(), queue_event(), queues_pump().  Runs on the hub's thread.
 *
 * Invariants
 *  (1) the events of a revision stand in one batch
 *  (2) a batch sent in fragments is sent to its end before anything else: clients put
 *      fragments together without looking at what comes between
 *  (3) backlog = sum of the charges of the batches in queue and pieces
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "base/memory.h"
#include "watch/watch_int.h"

#define BATCH_BYTES (64u * 1024) /* a batch of this size takes no further revision */
#define BATCH_REVISIONS 1000
#define COPY_BELOW 1024 /* events of this size on average are not copied */
#define COPY_MAX (64u * 1024 * 1024)
#define EVENT_CHARGE 64  /* of a link and the heads of its block, besides the bytes */
#define FRAGMENT_BYTES 2 /* of the field that says "fragment" */

/* --- the queue -------------------------------------------------------------------------------- */

void
queue_mark_dirty(struct watch_stream *s)
{
    if (s->dirty)
        return;
    s->dirty = true;
    s->dirty_next = s->hub->dirty;
    s->hub->dirty = s;
}

static void
put(struct watch_stream *s, struct item *i)
{
    i->next = NULL;
    i->link = s->queue_end;
    *s->queue_end = i;
    s->queue_end = &i->next;
    queue_mark_dirty(s);
}

static void
take(struct watch_stream *s, struct item *i)
{
    *i->link = i->next;
    if (i->next != NULL)
        i->next->link = i->link;
    else
        s->queue_end = i->link;
    if (i->kind != ITEM_EVENTS)
        s->n_answers--;
    if (i->kind == ITEM_PROGRESS)
        s->n_progress--;
}

static struct batch *
batch_of(struct item *i)
{
    return container_of(i, struct batch, item);
}

static void
charge(struct watch_stream *s, struct batch *b, size_t n)
{
    b->charge += n;
    s->backlog += n;
    s->hub->backlog += n;
}

static void
discharge(struct watch_stream *s, struct batch *b, size_t n)
{
    b->charge -= n;
    s->backlog -= n;
    s->hub->backlog -= n;
}

static void
batch_free(struct watch_stream *s, struct batch *b)
{
    discharge(s, b, b->charge);
    s->hub->n_events -= b->events.n_links;
    chain_free(&b->events);
    mem_free(b);
}

struct item *
queue_answer(struct watch_stream *s, enum item_kind kind, int64_t watch_id,
             int64_t revision)
{
    struct item *i = mem_zalloc(sizeof *i);

    i->kind = kind;
    i->watch_id = watch_id;
    i->revision = revision;
    s->n_answers++;
    s->n_progress += kind == ITEM_PROGRESS;
    put(s, i);
    return i;
}

/* Streams take so much that those whose client does not read get less. */
static bool
is_tight(const struct watch_hub *h)
{
    return block_account_bytes(h->memory) >= h->options.memory_bytes / 2;
}

/*
 * How much may wait for the stream.  Who reads has no message with the transport when the events
 * of a turn come, mostly, and is not hurt by those who do not.  Once all streams together have
 * reached the bound each has one revision at a time: that must be, or it would get no further.
 */
static size_t
room_of(const struct watch_stream *s)
{
    const struct watch_hub *h = s->hub;
    size_t all = h->options.memory_bytes + h->n_streams * WATCH_STREAM_SHARE;
    size_t room = h->options.stream_backlog_bytes;

    if (!is_tight(h))
        return room;
    if (block_account_bytes(h->memory) >= all)
        return 1;
    return room > WATCH_STREAM_SHARE && atomic_load(&s->state) != STREAM_IDLE
               ? WATCH_STREAM_SHARE
               : room;
}

bool
queue_has_room(const struct watch_stream *s)
{
    return s->backlog < room_of(s);
}

bool
queue_has_revision(const struct watcher *w, int64_t revision)
{
    return w->last != NULL && w->last->item.revision == revision;
}

static struct batch *
batch_new(struct watcher *w)
{
    struct watch_stream *s = w->stream;
    struct batch *b = mem_zalloc(sizeof *b);

    b->item.kind = ITEM_EVENTS;
    b->item.watch_id = w->id;
    b->watcher = w;
    b->fragment = w->fragment;
    b->seal = s->seal;
    chain_init(&b->events);
    if (w->last != NULL)
        w->last->next = b;
    else
        w->first = b;
    w->last = b;
    charge(s, b, sizeof *b);
    put(s, &b->item);
    return b;
}

void
queue_event(struct watcher *w, int64_t revision, struct block *event)
{
    struct watch_stream *s = w->stream;
    struct batch *b = w->last;

    if (!queue_has_revision(w, revision)) {
        size_t full = is_tight(s->hub) ? WATCH_STREAM_SHARE : BATCH_BYTES;

        if (b == NULL || b->seal != s->seal || b->events.length >= full ||
            b->revisions >= BATCH_REVISIONS)
            b = batch_new(w);
        b->links_before = b->events.n_links;
        b->revision_before = b->item.revision;
        b->charge_before = b->charge;
        b->item.revision = revision;
        b->revisions++;
    }
    chain_append_block(&b->events, event, 0, event->capacity);
    charge(s, b, event->capacity + EVENT_CHARGE);
    s->hub->n_events++;
}

void
queue_undo(struct watcher *w)
{
    struct watch_stream *s = w->stream;
    struct batch *b = w->last, **link = &w->first;

    s->hub->n_events -= b->events.n_links - b->links_before;
    chain_cut(&b->events, b->links_before);
    discharge(s, b, b->charge - b->charge_before);
    b->item.revision = b->revision_before;
    queue_mark_dirty(s);
    if (--b->revisions > 0)
        return;
    for (w->last = NULL; *link != b; link = &(*link)->next)
        w->last = *link;
    *link = NULL;
    take(s, &b->item);
    batch_free(s, b);
}

void
queue_orphan(struct watcher *w)
{
    struct batch *pieces = w->stream->pieces;

    for (struct batch *b = w->first; b != NULL; b = b->next)
        b->watcher = NULL;
    w->first = w->last = NULL;
    if (pieces != NULL && pieces->watcher == w)
        pieces->watcher = NULL;
    if (w->notice != NULL)
        w->notice->watcher = NULL;
    w->notice = NULL;
}

void
queue_drop(struct watcher *w)
{
    struct watch_stream *s = w->stream;

    if (s->pieces != NULL && s->pieces->watcher == w)
        s->pieces->watcher = NULL; /* invariant 2 */
    while (w->first != NULL) {
        struct batch *b = w->first;

        w->first = b->next;
        take(s, &b->item);
        batch_free(s, b);
    }
    w->last = NULL;
    if (w->notice != NULL) {
        take(s, w->notice);
        mem_free(w->notice);
        w->notice = NULL;
    }
    queue_mark_dirty(s); /* there is room again */
}

void
queue_free(struct watch_stream *s)
{
    if (s->pieces != NULL)
        batch_free(s, s->pieces);
    s->pieces = NULL;
    while (s->queue != NULL) {
        struct item *i = s->queue;

        take(s, i);
        if (i->kind == ITEM_EVENTS)
            batch_free(s, batch_of(i));
        else
            mem_free(i);
    }
}

/* --- messages --------------------------------------------------------------------------------- */

static void
message_head(struct watch_stream *s, int64_t revision, int64_t watch_id,
             struct chain *out)
{
    struct response_header header = s->hub->options.header;

    header.raft_term = atomic_load_explicit(&s->hub->term, memory_order_relaxed);
    header.revision = revision;
    wire_header_field(out, 1, &header);
    wire_varint_field(out, 2, (uint64_t)watch_id);
}

static void
answer_message(struct watch_stream *s, struct item *i, struct chain *out)
{
    bool canceled =
        i->kind == ITEM_REFUSED || i->kind == ITEM_CANCELED || i->kind == ITEM_COMPACTED;

    message_head(s, i->revision, i->watch_id, out);
    wire_varint_field(out, 3, i->kind == ITEM_CREATED || i->kind == ITEM_REFUSED);
    wire_varint_field(out, 4, canceled);
    wire_varint_field(out, 5, (uint64_t)i->compacted);
    if (i->kind == ITEM_REFUSED)
        wire_bytes_field(out, 6, slice_str(i->reason));
    if (i->kind == ITEM_NOTICE && i->watcher != NULL)
        i->watcher->notice = NULL;
    mem_free(i);
}

/*
 * A message of events [from, to) of a batch, which take so many bytes, behind its head.  Small
 * events are copied, into one block with the head: one piece is cheapest to send.
 */
static void
assemble(struct chain *out, const struct chain *head, const struct batch *b,
         uint32_t from, uint32_t to, size_t length)
{
    size_t all = head->length + length;
    struct block *whole;
    uint8_t *p;

    if (length / (to - from) >= COPY_BELOW || all > COPY_MAX) {
        chain_copy(head, chain_reserve(out, head->length));
        chain_commit(out, head->length);
        for (uint32_t i = from; i < to; i++) {
            const struct link *l = &b->events.links[i];

            chain_append_block(out, l->block, l->start, l->length);
        }
        return;
    }
    whole = block_new((uint32_t)all, out->account);
    chain_copy(head, whole->data);
    p = whole->data + head->length;
    for (uint32_t i = from; i < to; i++) {
        const struct link *l = &b->events.links[i];

        memcpy(p, l->block->data + l->start, l->length);
        p += l->length;
    }
    chain_append_block(out, whole, 0, (uint32_t)all);
    block_unref(whole);
}

/*
 * A client may take the header's revision as what it has seen of the watcher: so it is the
 * store's only if nothing of the watcher stands behind this batch.
 */
static int64_t
events_revision(const struct watch_stream *s, const struct batch *b)
{
    const struct watcher *w = b->watcher;

    if (w == NULL || w->place != PLACE_SYNCED || w->last != NULL ||
        s->hub->done < b->item.revision)
        return b->item.revision;
    return s->hub->done;
}

/* The next message of s->pieces: all of it, unless it is large and may be split. */
static void
events_message(struct watch_stream *s, struct chain *out)
{
    struct chain *head = &s->hub->scratch;
    struct batch *b = s->pieces;
    uint32_t from = s->piece, to = from, n = b->events.n_links;
    uint32_t limit = s->hub->options.fragment_bytes;
    size_t length = 0;
    bool whole;

    out->account = s->hub->memory; /* copies of events are counted, too */
    chain_clear(head);
    message_head(s, events_revision(s, b), b->item.watch_id, head);
    /* etcd's rule: smaller than the limit, or in pieces that are, of at least one event each. */
    whole = !b->fragment || (from == 0 && head->length + b->events.length < limit);
    do
        length += b->events.links[to++].length;
    while (to < n &&
           (whole ||
            head->length + FRAGMENT_BYTES + length + b->events.links[to].length < limit));
    wire_varint_field(head, 7, to < n);
    assemble(out, head, b, from, to, length);
    s->hub->n_sent += to - from;
    s->piece = to;
    if (to == n) {
        s->pieces = NULL;
        batch_free(s, b);
    }
}

static void
begin_events(struct watch_stream *s, struct batch *b)
{
    struct watcher *w = b->watcher;

    s->pieces = b;
    s->piece = 0;
    if (w == NULL)
        return;
    w->first = b->next;
    if (w->first == NULL)
        w->last = NULL;
    if (w->progress_notify)
        w->idle_since_ns = s->hub->options.env->boot_ns(s->hub->options.env->state);
}

static void
next_message(struct watch_stream *s, struct chain *out)
{
    if (s->pieces == NULL) {
        struct item *i = s->queue;

        take(s, i);
        if (i->kind != ITEM_EVENTS) {
            answer_message(s, i, out);
            return;
        }
        begin_events(s, batch_of(i));
    }
    events_message(s, out);
}

/* --- sending ---------------------------------------------------------------------------------- */

static bool
has_message(const struct watch_stream *s)
{
    return s->pieces != NULL || s->queue != NULL;
}

/* True: the transport can take a message.  False: it will say when. */
static bool
transport_ready(struct watch_stream *s)
{
    int state = atomic_load(&s->state);

    while (state != STREAM_IDLE)
        if (state == STREAM_BUSY_MORE ||
            atomic_compare_exchange_strong(&s->state, &state, STREAM_BUSY_MORE))
            return false;
    return true;
}

static void
pump(struct watch_stream *s)
{
    while (!s->ended && has_message(s) && transport_ready(s)) {
        struct chain out;

        atomic_store(&s->state, STREAM_BUSY);
        chain_init(&out);
        next_message(s, &out);
        queues_tell(s->hub); /* before the client can know more */
        s->transport->send(s->arg, &out, has_message(s));
        chain_free(&out);
    }
    /* Not before much of it is gone: each way back costs a search in the log. */
    if (s->stalled != NULL && s->backlog <= room_of(s) / 2)
        follow_unstall(s);
}

void
queues_tell(struct watch_hub *h)
{
    struct metrics *m = h->options.metrics;

    metric_set(m, METRIC_WATCH_STREAMS, (int64_t)h->n_streams);
    metric_set(m, METRIC_ETCD_WATCH_STREAMS, (int64_t)h->n_streams);
    metric_set(m, METRIC_WATCHERS, (int64_t)h->n_watchers);
    metric_set(m, METRIC_ETCD_WATCHERS, (int64_t)h->n_watchers);
    metric_set(m, METRIC_WATCHERS_UNSYNCED, (int64_t)h->n_unsynced);
    metric_set(m, METRIC_ETCD_SLOW_WATCHERS, (int64_t)h->n_unsynced);
    metric_set(m, METRIC_WATCH_EVENTS, (int64_t)h->n_sent);
    metric_set(m, METRIC_ETCD_EVENTS, (int64_t)h->n_sent);
    metric_set(m, METRIC_ETCD_PENDING_EVENTS, (int64_t)h->n_events);
    metric_set(m, METRIC_WATCH_BACKLOG, (int64_t)h->backlog);
    metric_set(m, METRIC_WATCH_MEMORY, (int64_t)block_account_bytes(h->memory));
}

void
queues_pump(struct watch_hub *h)
{
    while (h->dirty != NULL) {
        struct watch_stream *s = h->dirty;

        h->dirty = s->dirty_next;
        s->dirty = false;
        pump(s);
    }
}

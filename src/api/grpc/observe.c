/*
 * observe.c - Election/Observe: the leader's announcement, then each later one, whoever leads.
 *
 *   look for the oldest key -> tell it -> follow it until it is deleted -> look
 *   none is there: the first key that is put is told
 *
 * One message is under way at a time: the next event is looked at when it has gone out, and
 * the hub gives its next message after the last event.  A client that does not read therefore
 * costs two messages here, and what the hub keeps for a stream.
 *
 * Threads: see recipe.h; observe_sent() on the polling thread, which is then at work.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "api/grpc/recipe.h"
#include "base/memory.h"
#include "pb/etcd/election.pb-c.h"

struct observe {
    struct recipe recipe;
    struct buffer prefix, prefix_end, key;
    int64_t told; /* revision of the first message about the key */
    const Etcdserverpb__WatchResponse
        *m;      /* what the hub said, NULL: it was asked for nothing */
    size_t next; /* event of it */
};

static struct observe *
observe_of(struct recipe *r)
{
    return container_of(r, struct observe, recipe);
}

static void look(struct observe *o);

/* What comes next is observe_sent()'s business, which may have begun when this returns. */
static void
tell(struct observe *o, const struct response_header *header, const Mvccpb__KeyValue *m)
{
    struct key_value kv = recipe_key_value(m);
    struct chain out;

    chain_init(&out);
    wire_header_field(&out, 1, header);
    wire_key_value_field(&out, 2, &kv);
    stream_send(&o->recipe.stream, &out, false);
}

/* The first message about a key. */
static void
tell_leader(struct observe *o, const struct response_header *header,
            const Mvccpb__KeyValue *kv)
{
    buffer_clear(&o->key);
    buffer_append(&o->key, kv->key.data, kv->key.len);
    o->told = header->revision;
    o->m = NULL;
    tell(o, header, kv);
}

/* The next event of what the hub said; with none left, more of it. */
static void
tell_next(struct observe *o)
{
    struct response_header header = recipe_header(o->m->header);
    const Mvccpb__Event *event;

    if (o->next == o->m->n_events) {
        recipe_rest(&o->recipe);
        return;
    }
    event = o->m->events[o->next++];
    if (event->type == MVCCPB__EVENT__EVENT_TYPE__DELETE)
        look(o);
    else
        tell(o, &header, event->kv);
}

static bool
changed(struct recipe *r, const Etcdserverpb__WatchResponse *m)
{
    struct observe *o = observe_of(r);

    if (m->canceled) { /* overtaken by a compaction */
        look(o);
        return true;
    }
    o->m = m;
    o->next = 0;
    tell_next(o);
    return true;
}

static void
follow(struct observe *o)
{
    struct watch_create watch = {
        .key = buffer_slice(&o->key),
        .start_revision = o->told + 1,
    };

    recipe_watch(&o->recipe, &watch, changed);
}

static bool
first_put(struct recipe *r, const Etcdserverpb__WatchResponse *m)
{
    struct response_header header;

    if (m->canceled) {
        look(observe_of(r));
        return true;
    }
    for (size_t i = 0; i < m->n_events; i++)
        if (m->events[i]->type == MVCCPB__EVENT__EVENT_TYPE__PUT) {
            header = recipe_header(m->header);
            header.revision = m->events[i]->kv->mod_revision;
            tell_leader(observe_of(r), &header, m->events[i]->kv);
            return true;
        }
    return false;
}

static void
looked(struct recipe *r)
{
    const Etcdserverpb__RangeResponse *m = (const void *)r->answer;
    struct observe *o = observe_of(r);
    struct response_header header = recipe_header(m->header);
    struct watch_create watch = {
        .key = buffer_slice(&o->prefix),
        .range_end = buffer_slice(&o->prefix_end),
        .start_revision = header.revision + 1,
    };

    if (m->n_kvs > 0)
        tell_leader(o, &header, m->kvs[0]);
    else
        recipe_watch(r, &watch, first_put);
}

static void
look(struct observe *o)
{
    recipe_oldest(&o->recipe.range, buffer_slice(&o->prefix),
                  buffer_slice(&o->prefix_end));
    recipe_read(&o->recipe, true, looked);
}

static void
observe_sent(struct stream *s)
{
    struct observe *o = container_of(s, struct observe, recipe.stream);

    if (o->m == NULL)
        follow(o);
    else
        tell_next(o);
}

static bool
observe_message(struct stream *s, const ProtobufCMessage *message)
{
    const V3electionpb__LeaderRequest *m = (const void *)message;
    struct observe *o = container_of(s, struct observe, recipe.stream);

    recipe_prefix(slice_of(m->name.data, m->name.len), &o->prefix, &o->prefix_end);
    look(o);
    return false;
}

static void
observe_release(struct stream *s)
{
    struct observe *o = container_of(s, struct observe, recipe.stream);

    recipe_release(&o->recipe);
    buffer_free(&o->prefix);
    buffer_free(&o->prefix_end);
    buffer_free(&o->key);
}

const struct stream_kind election_observe_kind = {
    .grpc_type = "server_stream",
    .size = sizeof(struct observe),
    .start = recipe_start,
    .message = observe_message,
    .half_closed = stream_no_request,
    .sent = observe_sent,
    .end = recipe_end,
    .release = observe_release,
};

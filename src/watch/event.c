/*
 * event.c - an entry of the log -> events, each encoded at most once per variant and shared.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "base/memory.h"
#include "watch/watch_int.h"

/* One change of a key on its way to the watchers that match it. */
struct event {
    struct watch_hub *hub;
    int type;
    struct key_value kv;
    struct chain encoded[2]; /* without and with the previous key value; empty: not yet */
};

/* The value before this revision; false: there was none, or it has been compacted. */
static bool
previous(struct watch_hub *h, const struct key_value *kv, struct buffer *ikey,
         struct key_value *prev)
{
    struct version v;

    if (!h->reading) {
        if (mvcc_read_begin(h->options.mvcc, &h->reader) != T4_OK)
            return false;
        h->reading = true;
    }
    if (kv->mod_revision - 1 < mvcc_compacted(h->options.mvcc))
        return false;
    buffer_append_u8(ikey, SPACE_KEYS);
    buffer_append_slice(ikey, kv->key);
    if (mvcc_get(&h->reader, buffer_slice(ikey), (uint64_t)kv->mod_revision - 1, &v) != T4_OK ||
        (v.flags & VERSION_TOMBSTONE))
        return false;
    *prev = (struct key_value){.key = kv->key,
                               .value = v.value,
                               .create_revision = v.create_revision,
                               .mod_revision = (int64_t)v.stamp,
                               .version = v.version,
                               .lease = v.lease};
    return true;
}

static const struct chain *
encoded(struct event *e, bool with_previous)
{
    struct chain *c = &e->encoded[with_previous];
    struct buffer ikey = {0};
    struct key_value prev;
    bool has = false;

    if (c->length > 0)
        return c;
    /* a key's first version has nothing before it, without looking */
    if (with_previous && (e->type == WIRE_EVENT_DELETE || e->kv.version > 1))
        has = previous(e->hub, &e->kv, &ikey, &prev);
    wire_event_field(c, e->type, &e->kv, has ? &prev : NULL);
    buffer_free(&ikey);
    return c;
}

static void
give(struct watcher *w, void *arg)
{
    struct event *e = arg;

    if (e->kv.mod_revision < w->next || (e->type == WIRE_EVENT_PUT ? w->no_put : w->no_delete))
        return;
    if (w->refused)
        return;
    /*
     * A revision is given whole or not at all: whoever has no room at its first event becomes
     * unsynced from this revision on.  The index must not change under its walk, so the hub
     * moves it behind this entry.
     */
    if (w->queued != e->kv.mod_revision && !stream_has_room(w->stream)) {
        w->refused = true;
        w->next = e->kv.mod_revision;
        w->overflow_next = e->hub->overflow;
        e->hub->overflow = w;
        return;
    }
    watcher_pend(w, e->kv.mod_revision, encoded(e, w->prev_kv));
}

bool
events_of_entry(struct watch_hub *h, struct watch_index *ix, struct t4_slice bytes,
                int64_t *revision)
{
    struct byte_reader r = reader_of(bytes);
    struct entry entry;
    struct mutation m;

    if (!entry_decode_head(&r, &entry))
        return false;
    *revision = entry.revision;
    for (uint32_t i = 0; i < entry.mutations; i++) {
        struct event e = {.hub = h};

        if (!entry_next(&r, &m))
            return false;
        if (m.space != SPACE_KEYS)
            continue;
        e.type = m.flags & MUTATION_TOMBSTONE ? WIRE_EVENT_DELETE : WIRE_EVENT_PUT;
        e.kv = (struct key_value){.key = m.key,
                                  .value = m.value,
                                  .create_revision = m.create_revision,
                                  .mod_revision = entry.revision,
                                  .version = m.version,
                                  .lease = m.lease};
        chain_init(&e.encoded[0]);
        chain_init(&e.encoded[1]);
        watch_index_match(ix, m.key, give, &e);
        chain_free(&e.encoded[0]);
        chain_free(&e.encoded[1]);
    }
    return true;
}

void
events_end_batch(struct watch_hub *h)
{
    if (h->reading)
        mvcc_read_end(&h->reader);
    h->reading = false;
}

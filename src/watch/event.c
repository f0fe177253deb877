/*
 * event.c - an entry of the log -> events, each encoded at most once per variant and shared.
 *
 * There are two variants, with and without the previous key value; each is encoded when the
 * first watcher asks for it, into a block of its exact size that all of them refer to.
 * Previous values are read at mod_revision - 1 by a reader that lives for one slice of
 * entries: a held reader would keep the engine from reusing space.
 *
 * Entry points: events_of_entry(), events_end_slice().  Runs on the hub's thread.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "watch/watch_int.h"

/* One change of a key on its way to the watchers that match it. */
struct event {
    struct watch_hub *hub;
    int type;
    struct key_value kv;
    struct block *encoded[2]; /* without and with the previous key value; NULL: not yet */
    t4_status status;         /* of reading the previous value */
};

/*
 * The key's value before this revision; NOTFOUND: there was none, or it has been compacted.
 * A compaction that is published only behind the check can at most take the value away: what
 * it leaves of a key at or below its revision is the newest, which is not older than that.
 */
static t4_status
previous(struct watch_hub *h, const struct key_value *kv, struct key_value *prev)
{
    struct version v;
    t4_status status;

    if (!h->reading) {
        status = mvcc_read_begin(h->options.mvcc, &h->reader);
        if (status != T4_OK)
            return status;
        h->reading = true;
    }
    if (kv->mod_revision - 1 < mvcc_compacted(h->options.mvcc))
        return T4_E_NOTFOUND;
    buffer_clear(&h->ikey);
    buffer_append_u8(&h->ikey, SPACE_KEYS);
    buffer_append_slice(&h->ikey, kv->key);
    status =
        mvcc_get(&h->reader, buffer_slice(&h->ikey), (uint64_t)kv->mod_revision - 1, &v);
    if (status != T4_OK)
        return status;
    if (v.flags & VERSION_TOMBSTONE)
        return T4_E_NOTFOUND;
    *prev = (struct key_value){.key = kv->key,
                               .value = v.value,
                               .create_revision = v.create_revision,
                               .mod_revision = (int64_t)v.stamp,
                               .version = v.version,
                               .lease = v.lease};
    return T4_OK;
}

/* Whether the key was there before, told without looking for it. */
static bool
may_have_previous(const struct event *e)
{
    return e->type == WIRE_EVENT_DELETE || e->kv.create_revision != e->kv.mod_revision;
}

static struct block *
encoded(struct event *e, bool with_previous)
{
    struct chain *scratch = &e->hub->scratch;
    struct block **b;
    struct key_value prev;
    bool has = false;

    with_previous = with_previous && may_have_previous(e);
    b = &e->encoded[with_previous];
    if (*b != NULL)
        return *b;
    if (with_previous) {
        t4_status status = previous(e->hub, &e->kv, &prev);

        has = status == T4_OK;
        if (status != T4_OK && status != T4_E_NOTFOUND)
            e->status = status;
    }
    chain_clear(scratch);
    wire_event_field(scratch, e->type, &e->kv, has ? &prev : NULL);
    *b = block_new((uint32_t)scratch->length);
    chain_copy(scratch, (*b)->data);
    return *b;
}

static void
give(struct watcher *w, void *arg)
{
    struct watch_stream *s = w->stream;
    struct event *e = arg;
    int64_t revision = e->kv.mod_revision;
    bool begun;

    if (w->refused || revision < w->next ||
        (e->type == WIRE_EVENT_PUT ? w->no_put : w->no_delete))
        return;
    /*
     * A revision is given whole or not at all: who has no room becomes unsynced from this
     * revision on.  Only one watcher of a stream may go over the bound with it: else thousands
     * that all find room for the first key of a large delete would each be given all of it.
     * The index must not change under its walk, so they are moved behind this entry.
     */
    begun = queue_has_revision(w, revision);
    if (!queue_has_room(s) &&
        !(begun && s->owner == w && s->owner_entry == e->hub->entries)) {
        if (begun)
            queue_undo(w);
        w->refused = true;
        w->next = revision;
        w->refused_next = e->hub->refused;
        e->hub->refused = w;
        return;
    }
    if (s->owner_entry != e->hub->entries) {
        s->owner = w;
        s->owner_entry = e->hub->entries;
    }
    queue_event(w, revision, encoded(e, w->prev_kv));
}

t4_status
events_of_entry(struct watch_hub *h, struct watch_index *ix, struct t4_slice bytes,
                int64_t *revision, struct error *error)
{
    struct byte_reader r = reader_of(bytes);
    struct entry entry;
    struct mutation m;

    if (!entry_decode_head(&r, &entry))
        return error_set(error, T4_E_CORRUPT, "an entry of the log cannot be decoded");
    h->entries++;
    *revision = entry.revision;
    for (uint32_t i = 0; i < entry.mutations; i++) {
        struct event e = {.hub = h, .status = T4_OK};

        if (!entry_next(&r, &m))
            return error_set(error, T4_E_CORRUPT,
                             "entry %llu of the log cannot be decoded",
                             (unsigned long long)entry.index);
        if (m.space != SPACE_KEYS)
            continue;
        e.type = m.flags & MUTATION_TOMBSTONE ? WIRE_EVENT_DELETE : WIRE_EVENT_PUT;
        e.kv = (struct key_value){.key = m.key,
                                  .value = m.value,
                                  .create_revision = m.create_revision,
                                  .mod_revision = entry.revision,
                                  .version = m.version,
                                  .lease = m.lease};
        watch_index_match(ix, m.key, give, &e);
        for (int k = 0; k < 2; k++)
            if (e.encoded[k] != NULL)
                block_unref(e.encoded[k]);
        if (e.status != T4_OK)
            return error_set(error, e.status,
                             "a watch cannot read a key's value before revision %lld: %s",
                             (long long)entry.revision, status_text(e.status));
    }
    return T4_OK;
}

void
events_end_slice(struct watch_hub *h)
{
    if (h->reading)
        mvcc_read_end(&h->reader);
    h->reading = false;
    chain_clear(
        &h->scratch); /* an event may be large: no more than a first block is kept */
}

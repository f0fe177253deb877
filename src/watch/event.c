/*
 * event.c - an entry of the log, or a version of a key, -> events, each encoded at most once per
 * variant and shared.
 *
 * There are two variants, with and without the previous key value; each is encoded when the
 * first watcher asks for it, into a block of its exact size that all of them refer to.
 * Previous values are read at mod_revision - 1, and the value of a version when it is needed, by
 * a reader that lives for one slice of entries: a held reader would keep the engine from reusing
 * space.
 *
 * Entry points: events_of_entry(), events_of_version(), events_end_slice().  Runs on the hub's thread.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "watch/watch_int.h"

/* One change of a key on its way to the watchers that match it. */
struct event {
    struct watch_hub *hub;
    int type;
    struct key_value kv;
    bool unread;              /* of kv only key and mod_revision are known */
    struct block *encoded[2]; /* without and with the previous key value; NULL: not yet */
    t4_status status;         /* of reading values */
};

t4_status
events_begin_slice(struct watch_hub *h, struct error *error)
{
    t4_status status = T4_OK;

    if (!h->reading) {
        h->reads_all = mvcc_is_complete(h->options.mvcc);
        status = mvcc_read_begin(h->options.mvcc, &h->reader);
    }
    if (status != T4_OK)
        return error_set(error, status, "a watch cannot read the storage engine: %s",
                         status_text(status));
    h->reading = true;
    return T4_OK;
}

/* The key's newest version at or below the revision. */
static t4_status
read_version(struct watch_hub *h, struct t4_slice key, int64_t revision,
             struct version *v)
{
    struct error error;
    t4_status status = events_begin_slice(h, &error);

    if (status != T4_OK)
        return status;
    buffer_clear(&h->ikey);
    buffer_append_u8(&h->ikey, SPACE_KEYS);
    buffer_append_slice(&h->ikey, key);
    return mvcc_get(&h->reader, buffer_slice(&h->ikey), (uint64_t)revision, v);
}

static void
set_version(struct key_value *kv, const struct version *v)
{
    kv->value = v->value;
    kv->create_revision = v->create_revision;
    kv->mod_revision = (int64_t)v->stamp;
    kv->version = v->version;
    kv->lease = v->lease;
}

/* The key's value before this revision; NOTFOUND: there was none, or it has been compacted. */
static t4_status
previous(struct watch_hub *h, const struct key_value *kv, struct key_value *prev)
{
    struct version v;
    t4_status status;

    if (!(h->reading && h->reads_all) && h->options.fetch != NULL &&
        !mvcc_is_complete(h->options.mvcc))
        h->options.fetch(h->options.fetch_arg, kv->key, kv->mod_revision - 1);
    if (h->reading && !h->reads_all)
        events_end_slice(h); /* begun before what was fetched came */
    status = read_version(h, kv->key, kv->mod_revision - 1, &v);
    if (status != T4_OK)
        return status;
    if (kv->mod_revision - 1 < mvcc_compacted(h->options.mvcc) ||
        v.flags & VERSION_TOMBSTONE)
        return T4_E_NOTFOUND;
    prev->key = kv->key;
    set_version(prev, &v);
    return T4_OK;
}

/* Reads the value of a version that was found to be there, and cannot have gone (scan.c). */
static t4_status
read_value(struct event *e)
{
    struct key_value *kv = &e->kv;
    struct version v;
    t4_status status = read_version(e->hub, kv->key, kv->mod_revision, &v);

    e->unread = false;
    if (status == T4_E_NOTFOUND ||
        (status == T4_OK &&
         (v.stamp != (uint64_t)kv->mod_revision || v.flags & VERSION_TOMBSTONE)))
        return T4_E_CORRUPT;
    if (status != T4_OK)
        return status;
    set_version(kv, &v);
    e->hub->bytes_read += v.value.len;
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

    if (e->unread)
        e->status = read_value(e);
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
    *b = block_new((uint32_t)scratch->length, e->hub->memory);
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

/* To all that match it. */
static t4_status
give_out(struct event *e, struct watch_index *ix, struct error *error)
{
    watch_index_match(ix, e->kv.key, give, e);
    for (int k = 0; k < 2; k++)
        if (e->encoded[k] != NULL)
            block_unref(e->encoded[k]);
    if (e->status == T4_OK)
        return T4_OK;
    return error_set(
        error, e->status,
        "a watch cannot read a key's value at revision %lld, or before it: %s",
        (long long)e->kv.mod_revision, status_text(e->status));
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
        t4_status status;

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
        status = give_out(&e, ix, error);
        if (status != T4_OK)
            return status;
    }
    return T4_OK;
}

t4_status
events_of_version(struct watch_hub *h, struct watch_index *ix, struct t4_slice key,
                  int64_t revision, bool deleted, struct error *error)
{
    struct event e = {.hub = h,
                      .type = deleted ? WIRE_EVENT_DELETE : WIRE_EVENT_PUT,
                      .kv = {.key = key, .mod_revision = revision},
                      .unread = !deleted,
                      .status = T4_OK};

    return give_out(&e, ix, error);
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

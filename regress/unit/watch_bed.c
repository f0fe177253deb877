/*
 * watch_bed.c - a store to watch and clients that check.  See watch_bed.h.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "watch_bed.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/memory.h"
#include "fmt/entry.h"
#include "scratch.h"

#define PATIENCE_NS 60000000000u /* of a wait: then the test fails instead of hanging */

static void wrong(struct watch_bed *b, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* [lock] */
static void
wrong(struct watch_bed *b, const char *format, ...)
{
    va_list ap;

    if (b->why[0] != '\0')
        return;
    va_start(ap, format);
    vsnprintf(b->why, sizeof b->why, format, ap);
    va_end(ap);
    condition_broadcast(&b->changed);
}

void
watch_bed_check(struct watch_bed *b)
{
    char why[sizeof b->why];

    mutex_lock(&b->lock);
    memcpy(why, b->why, sizeof why);
    mutex_unlock(&b->lock);
    if (why[0] != '\0')
        fail_msg("%s", why);
}

void
bed_wait(struct watch_bed *b, const char *what, bool (*condition)(void *), void *arg)
{
    bool met, patient = true;

    mutex_lock(&b->lock);
    while (!(met = condition(arg)) && b->why[0] == '\0' && patient)
        patient = condition_wait_for(&b->changed, &b->lock, PATIENCE_NS);
    mutex_unlock(&b->lock);
    watch_bed_check(b);
    if (!met)
        fail_msg("waited in vain for %s", what);
}

/* --- the store -------------------------------------------------------------------------------- */

static t4_status
no_replay(void *arg, uint64_t index, struct t4_slice entry, struct error *error)
{
    (void)arg;
    (void)index;
    (void)entry;
    return error_set(error, T4_E_INTERNAL, "a new log has entries");
}

static void
hub_failed(void *arg, const struct error *error)
{
    struct watch_bed *b = arg;

    (void)error;
    mutex_lock(&b->lock);
    b->failures++;
    condition_broadcast(&b->changed);
    mutex_unlock(&b->lock);
}

struct watch_bed *
watch_bed_new(void)
{
    struct watch_bed *b = mem_zalloc(sizeof *b);

    b->chance.state = test_seed();
    bed_init(&b->engine, "memory", NULL);
    mutex_init(&b->lock);
    condition_init(&b->changed);
    b->past = mem_zalloc(BED_EVENTS * sizeof *b->past);
    b->revision = b->written = b->published = b->told = 1;
    b->options = (struct watch_hub_options){
        .header = {BED_CLUSTER, BED_MEMBER, BED_TERM, 0},
        .progress_interval_ns = 600000000000u,
        .fragment_bytes = 2u << 20,
        .watchers_per_stream = 1000,
        .stream_backlog_bytes = 1u << 20,
        .memory_bytes = 64u << 20,
        .scan_bytes = 4u << 20,
        .scan_records = 2000,
        .env = env_posix(),
        .metrics = &b->metrics,
        .failed = hub_failed,
        .failed_arg = b,
    };
    return b;
}

/* Log and hub; the log's entries come behind those that there are. */
static void
start_watching(struct watch_bed *b)
{
    struct wal_recovered recovered;
    struct error error;
    struct wal_options wal = {.env = b->options.env,
                              .dir = b->dir,
                              .cluster_id = BED_CLUSTER,
                              .lineage = 1,
                              .segment_bytes = 256 * 1024,
                              .metrics = &b->metrics};

    if (wal_open(&wal, b->index, no_replay, NULL, &b->wal, &recovered, &error) != T4_OK ||
        wal_start(b->wal, 1, 1, &error) != T4_OK)
        fail_msg("%s (%s)", error.message, error.hint);
    b->options.wal = b->wal;
    b->options.mvcc = b->mvcc;
    b->hub = watch_hub_new(&b->options);
    watch_hub_publish(b->hub, b->index, b->revision, b->compacted);
    watch_hub_start(b->hub);
}

static void
stop_watching(struct watch_bed *b)
{
    watch_hub_stop(b->hub, ETCD_STOPPED);
    watch_hub_free(b->hub);
    watch_bed_check(b);
    assert_int_equal(metric_get(&b->metrics, METRIC_WATCHERS), 0);
    assert_int_equal(metric_get(&b->metrics, METRIC_WATCH_STREAMS), 0);
    assert_int_equal(metric_get(&b->metrics, METRIC_WATCH_BACKLOG), 0);
    wal_close(b->wal);
    scratch_remove(b->dir);
}

void
watch_bed_start(struct watch_bed *b)
{
    struct mvcc_state state;
    struct error error;

    bed_open(&b->engine);
    assert_true((size_t)snprintf(b->dir, sizeof b->dir, "%s-wal", b->engine.dir) <
                sizeof b->dir);
    struct mvcc_options mvcc = {.engine = b->engine.engine,
                                .cluster_id = BED_CLUSTER,
                                .lineage = 1,
                                .memtable_bytes = 256 * 1024,
                                .flush_slice = 500,
                                .metrics = &b->metrics};

    if (mvcc_open(&mvcc, &b->mvcc, &state, &error) != T4_OK)
        fail_msg("%s (%s)", error.message, error.hint);
    start_watching(b);
}

void
bed_lose_log(struct watch_bed *b)
{
    assert_true(b->published == b->revision && b->written_index == b->index);
    stop_watching(b);
    start_watching(b);
}

void
bed_drop_segments(struct watch_bed *b)
{
    struct error error;

    if (wal_drop_below(b->wal, b->written_index, 0, &error) != T4_OK)
        fail_msg("%s", error.message);
}

void
watch_bed_free(struct watch_bed *b)
{
    stop_watching(b);
    mvcc_free(b->mvcc);
    bed_close(&b->engine);
    bed_destroy(&b->engine);
    for (size_t i = 0; i < b->n_past; i++)
        mem_free((void *)(uintptr_t)b->past[i].value.data);
    mem_free(b->past);
    wal_group_free(&b->group);
    condition_destroy(&b->changed);
    mutex_destroy(&b->lock);
    mem_free(b);
}

static struct t4_slice
key_name(int key)
{
    static _Thread_local char name[8];

    snprintf(name, sizeof name, "k%02d", key);
    return slice_str(name);
}

static const struct past *
model_change(struct watch_bed *b, const struct change *change)
{
    const struct past *before = b->now[change->key];
    struct past *p = &b->past[b->n_past];
    bool there = before != NULL && !before->deleted;

    assert_true(b->n_past < BED_EVENTS);
    *p = (struct past){.revision = b->revision, .key = change->key, .before = before};
    if (change->delete) {
        p->deleted = true;
    } else {
        uint8_t *value = mem_alloc(change->bytes);

        for (size_t i = 0; i < change->bytes; i++)
            value[i] = (uint8_t)(b->n_past + i * 7);
        p->value = slice_of(value, change->bytes);
        p->create_revision = there ? before->create_revision : b->revision;
        p->version = there ? before->version + 1 : 1;
        p->lease = change->bytes % 3 == 1 ? (int64_t)change->bytes + 5 : 0;
    }
    b->now[change->key] = p;
    b->n_past++;
    return p;
}

/* Returns what the event counts in a backlog, at most (with its previous value). */
static int64_t
add_change(struct watch_bed *b, const struct past *p, size_t sub, struct buffer *entry)
{
    struct mutation m = {.space = SPACE_KEYS,
                         .flags = p->deleted ? MUTATION_TOMBSTONE : 0,
                         .key = key_name(p->key),
                         .value = p->value,
                         .create_revision = p->create_revision,
                         .version = p->version,
                         .lease = p->lease};
    struct version v = {.stamp = (uint64_t)p->revision,
                        .sub = (uint32_t)sub,
                        .flags = p->deleted ? VERSION_TOMBSTONE : 0,
                        .create_revision = p->create_revision,
                        .version = p->version,
                        .lease = p->lease,
                        .value = p->value};
    struct buffer ikey = {0};

    buffer_append_u8(&ikey, SPACE_KEYS);
    buffer_append_slice(&ikey, m.key);
    mvcc_insert(b->mvcc, buffer_slice(&ikey), &v);
    buffer_free(&ikey);
    entry_add(entry, &m);
    return (int64_t)(p->value.len + (p->before != NULL ? p->before->value.len : 0) + 400);
}

static void
add_entry(struct watch_bed *b, const struct entry *e, struct buffer *bytes)
{
    wal_group_add(&b->group, e->index, e->revision, buffer_slice(bytes));
    buffer_free(bytes);
    mvcc_entry_done(b->mvcc, e->index, e->revision, e->time_ms);
}

void
bed_entry(struct watch_bed *b, const struct change *changes, size_t n)
{
    struct buffer bytes = {0};
    int64_t size = 400;
    struct entry e;

    mutex_lock(&b->lock);
    b->index++;
    b->revision += n > 0;
    e = (struct entry){.index = b->index,
                       .term = 1,
                       .revision = b->revision,
                       .time_ms = 1700000000000u + b->index,
                       .kind = ENTRY_NORMAL,
                       .mutations = n > 0 ? (uint32_t)n : 1};
    entry_encode_head(&bytes, &e);
    for (size_t i = 0; i < n; i++)
        size += add_change(b, model_change(b, &changes[i]), i, &bytes);
    if (n == 0) {
        /* A key's name in the space of leases must not be taken for the key. */
        struct mutation m = {
            .space = SPACE_SYSTEM, .key = slice_str("k01"), .value = slice_str("lease")};

        entry_add(&bytes, &m);
    }
    if (size > b->largest)
        b->largest = size;
    mutex_unlock(&b->lock);
    add_entry(b, &e, &bytes);
}

void
bed_compaction(struct watch_bed *b, int64_t revision)
{
    struct buffer bytes = {0};
    struct entry e;

    mutex_lock(&b->lock);
    b->index++;
    e = (struct entry){.index = b->index,
                       .term = 1,
                       .revision = b->revision,
                       .kind = ENTRY_COMPACTION,
                       .compact_revision = revision};
    b->next_compacted = revision;
    mutex_unlock(&b->lock);
    entry_encode_head(&bytes, &e);
    add_entry(b, &e, &bytes);
}

void
bed_write(struct watch_bed *b)
{
    struct error error = {0};
    uint64_t synced;

    if (wal_wants_segment(b->wal) && wal_prepare(b->wal, &error) != T4_OK)
        fail_msg("%s", error.message);
    if (b->group.last_index == 0)
        return;
    if (wal_write(b->wal, &b->group, &error) != T4_OK ||
        wal_sync(b->wal, &synced, &error) != T4_OK)
        fail_msg("%s", error.message);
    wal_group_clear(&b->group);
    mutex_lock(&b->lock);
    b->written = b->revision;
    b->written_index = b->index;
    mutex_unlock(&b->lock);
}

void
bed_publish(struct watch_bed *b)
{
    uint64_t index;
    int64_t revision, compacted;

    mutex_lock(&b->lock);
    index = b->written_index;
    revision = b->published = b->written;
    compacted = b->compacted = b->next_compacted;
    mutex_unlock(&b->lock);
    mvcc_publish(b->mvcc, index, compacted);
    watch_hub_publish(b->hub, index, revision, compacted);
    mutex_lock(&b->lock);
    b->told = revision;
    mutex_unlock(&b->lock);
}

void
bed_put(struct watch_bed *b, int key, size_t bytes)
{
    struct change change = {key, false, bytes};

    bed_entry(b, &change, 1);
    bed_write(b);
    bed_publish(b);
}

void
bed_random_entry(struct watch_bed *b, struct chance *c)
{
    struct change changes[BED_KEYS];
    size_t n = 0, want = chance_below(c, 12);
    int first = (int)chance_below(c, BED_KEYS);

    want = want == 0 ? 0 : want == 1 ? BED_KEYS : want < 8 ? 1 : want - 6;
    for (; n < want; n++)
        changes[n] = (struct change){
            .key = (first + (int)n) % BED_KEYS,
            .delete = chance_below(c, 4) == 0,
            .bytes = chance_below(c, 20) == 0 ? 6000 : chance_below(c, 300),
        };
    bed_entry(b, changes, n);
}

void
bed_flush(struct watch_bed *b)
{
    struct error error = {0};
    uint64_t pause;
    t4_status status;

    mvcc_freeze(b->mvcc);
    mvcc_compact(b->mvcc, b->compacted);
    do
        status = mvcc_work(b->mvcc, &pause, &error);
    while (status == T4_OK);
    if (status != T4_E_NOTFOUND)
        fail_msg("%s", error.message);
}

/* --- what a watch must get -------------------------------------------------------------------- */

static bool
wants(const struct watched *w, const struct past *p)
{
    struct t4_slice key = key_name(p->key);
    bool open = w->end.len == 1 && w->end.data[0] == 0;

    if (p->revision < w->from || (p->deleted ? w->request.no_delete : w->request.no_put))
        return false;
    if (w->end.len == 0)
        return slice_equal(key, w->key);
    return slice_compare(key, w->key) >= 0 && (open || slice_compare(key, w->end) < 0);
}

/* [lock] The next event that it has to get, or NULL. */
static const struct past *
due(struct watch_bed *b, struct watched *w)
{
    while (w->at < b->n_past && !wants(w, &b->past[w->at]))
        w->at++;
    return w->at < b->n_past ? &b->past[w->at] : NULL;
}

static bool
has_all(struct watch_bed *b, struct watched *w, int64_t revision)
{
    const struct past *p = due(b, w);

    return p == NULL || p->revision > revision;
}

static bool
same_key_value(const Mvccpb__KeyValue *kv, const struct past *p)
{
    return kv != NULL &&
           slice_equal(slice_of(kv->key.data, kv->key.len), key_name(p->key)) &&
           slice_equal(slice_of(kv->value.data, kv->value.len), p->value) &&
           kv->mod_revision == p->revision && kv->create_revision == p->create_revision &&
           kv->version == p->version && kv->lease == p->lease;
}

static void
check_event(struct client *c, struct watched *w, const Mvccpb__Event *e)
{
    struct watch_bed *b = c->bed;
    const struct past *p = due(b, w);
    const struct past *before =
        p != NULL && !(p->before == NULL || p->before->deleted) ? p->before : NULL;

    if (p == NULL || !same_key_value(e->kv, p) ||
        (e->type == MVCCPB__EVENT__EVENT_TYPE__DELETE) != p->deleted) {
        wrong(b, "watch %lld: got %.*s at revision %lld, due was key %d at %lld",
              (long long)w->id, e->kv != NULL ? (int)e->kv->key.len : 0,
              e->kv != NULL ? (const char *)e->kv->key.data : "",
              e->kv != NULL ? (long long)e->kv->mod_revision : 0, p != NULL ? p->key : -1,
              p != NULL ? (long long)p->revision : 0);
        return;
    }
    if (p->revision > b->published)
        wrong(b, "revision %lld was sent before it was published",
              (long long)p->revision);
    if (p->revision <= w->progress)
        wrong(b, "revision %lld came behind progress %lld", (long long)p->revision,
              (long long)w->progress);
    if (e->prev_kv != NULL &&
        (!w->request.prev_kv || before == NULL || !same_key_value(e->prev_kv, before)))
        wrong(b, "watch %lld: wrong prev_kv at revision %lld", (long long)w->id,
              (long long)p->revision);
    if (e->prev_kv == NULL && w->request.prev_kv && before != NULL &&
        p->revision - 1 >= b->next_compacted)
        wrong(b, "watch %lld: no prev_kv at revision %lld", (long long)w->id,
              (long long)p->revision);
    w->with_prev += e->prev_kv != NULL;
    w->without_prev += e->prev_kv == NULL;
    w->newest = p->revision;
    w->events++;
    w->at++;
}

/* --- messages --------------------------------------------------------------------------------- */

static struct watched *
find(struct client *c, int64_t id)
{
    for (struct watched *w = c->watched; w != NULL; w = w->next)
        if (w->state == WATCHED_CREATED && w->id == id)
            return w;
    wrong(c->bed, "a message for %lld, which is no watch", (long long)id);
    return NULL;
}

static void
on_created(struct client *c, const Etcdserverpb__WatchResponse *r)
{
    struct watch_bed *b = c->bed;
    struct watched *w = c->watched;

    while (w != NULL && w->state != WATCHED_ASKED)
        w = w->next;
    if (w == NULL) {
        wrong(b, "created, but nothing was asked for");
        return;
    }
    if (w->refusal != NULL) {
        if (!r->canceled || r->watch_id != -1 ||
            strcmp(r->cancel_reason, w->refusal) != 0)
            wrong(b, "expected to be refused (%s), got id %lld and \"%s\"", w->refusal,
                  (long long)r->watch_id, r->cancel_reason);
        w->state = WATCHED_REFUSED;
        return;
    }
    if (r->canceled || r->n_events > 0)
        wrong(b, "refused: %s", r->cancel_reason);
    if (w->request.watch_id != 0 && r->watch_id != w->request.watch_id)
        wrong(b, "asked for id %lld, got %lld", (long long)w->request.watch_id,
              (long long)r->watch_id);
    if (r->header->revision < w->asked_at || r->header->revision > b->published)
        wrong(b, "created at revision %lld, asked at %lld",
              (long long)r->header->revision, (long long)w->asked_at);
    for (struct watched *other = c->watched; other != NULL; other = other->next)
        if (other->state == WATCHED_CREATED && other->id == r->watch_id)
            wrong(b, "id %lld is used twice", (long long)r->watch_id);
    w->id = r->watch_id;
    w->from = w->request.start_revision > 0 ? w->request.start_revision
                                            : r->header->revision + 1;
    w->state = WATCHED_CREATED;
}

static void
on_canceled(struct client *c, const Etcdserverpb__WatchResponse *r)
{
    struct watch_bed *b = c->bed;
    struct watched *w = find(c, r->watch_id);

    if (w == NULL)
        return;
    if (r->n_events > 0)
        wrong(b, "a canceled message with events");
    if (c->open_fragment != NULL)
        wrong(b, "canceled in the middle of a revision");
    if (r->compact_revision == 0) {
        if (!w->cancel_asked)
            wrong(b, "watch %lld was canceled by nobody", (long long)w->id);
        w->state = WATCHED_CANCELED;
        return;
    }
    /* What it was sent before, it keeps; it must not have had what comes behind. */
    if (r->header->revision != 0 || r->compact_revision > b->next_compacted ||
        w->newest >= r->compact_revision || w->from >= r->compact_revision)
        wrong(b, "watch %lld from %lld, sent up to %lld, canceled at %lld",
              (long long)w->id, (long long)w->from, (long long)w->newest,
              (long long)r->compact_revision);
    w->state = WATCHED_COMPACTED;
}

static void
on_events(struct client *c, const Etcdserverpb__WatchResponse *r)
{
    struct watch_bed *b = c->bed;
    struct watched *w = find(c, r->watch_id);
    int64_t revision = r->header->revision;

    if (w == NULL)
        return;
    for (size_t i = 0; i < r->n_events; i++)
        check_event(c, w, r->events[i]);
    w->messages++;
    c->open_fragment = NULL;
    if (revision < w->newest || revision > b->published)
        wrong(b, "header at %lld, event at %lld, published %lld", (long long)revision,
              (long long)w->newest, (long long)b->published);
    if (r->fragment) {
        if (!w->request.fragment)
            wrong(b, "a fragment for a watch that did not ask for them");
        w->fragments++;
        c->open_fragment = w;
    } else if (!has_all(b, w, revision)) {
        wrong(b, "watch %lld: events up to %lld, header at %lld, but %lld is missing",
              (long long)w->id, (long long)w->newest, (long long)revision,
              (long long)due(b, w)->revision);
    }
}

static void
on_progress(struct client *c, const Etcdserverpb__WatchResponse *r)
{
    struct watch_bed *b = c->bed;
    int64_t revision = r->header->revision;
    bool of_one = r->watch_id != -1;

    if (revision > b->published || revision < c->progress_newest)
        wrong(b, "progress %lld behind %lld", (long long)revision,
              (long long)c->progress_newest);
    if (!of_one) {
        if (c->n_progress >= c->n_asked ||
            revision < c->progress_asked[c->n_progress % 256])
            wrong(b, "progress %lld that was not asked for", (long long)revision);
        c->n_progress++;
        c->progress_newest = revision;
    }
    for (struct watched *w = c->watched; w != NULL; w = w->next) {
        if (w->state != WATCHED_CREATED || w->cancel_asked ||
            (of_one && w->id != r->watch_id))
            continue;
        w->notices += of_one;
        w->progress = revision;
        if (w->newest > revision)
            wrong(b, "watch %lld: progress %lld behind an event of %lld",
                  (long long)w->id, (long long)revision, (long long)w->newest);
        if (!has_all(b, w, revision) || w->request.start_revision > revision ||
            (of_one && !w->request.progress_notify))
            wrong(b, "watch %lld: progress %lld, but it waits for %lld", (long long)w->id,
                  (long long)revision,
                  (long long)(due(b, w) != NULL ? due(b, w)->revision : w->from));
    }
}

static void
on_message(struct client *c, const Etcdserverpb__WatchResponse *r)
{
    struct watch_bed *b = c->bed;
    const Etcdserverpb__ResponseHeader *h = r->header;

    c->messages++;
    if (h == NULL || h->cluster_id != BED_CLUSTER || h->member_id != BED_MEMBER ||
        h->raft_term != BED_TERM)
        wrong(b, "the header names another server");
    else if (c->owes || c->ended != 0 || c->closed)
        wrong(b, "the transport was given a message that it cannot take");
    else if (c->open_fragment != NULL && r->watch_id != c->open_fragment->id)
        wrong(b, "a message of %lld among the fragments of %lld", (long long)r->watch_id,
              (long long)c->open_fragment->id);
    else if (r->created)
        on_created(c, r);
    else if (r->canceled)
        on_canceled(c, r);
    else if (r->n_events > 0)
        on_events(c, r);
    else
        on_progress(c, r);
}

static void
client_send(void *arg, struct chain *message, bool more)
{
    struct client *c = arg;
    struct watch_bed *b = c->bed;
    uint8_t *bytes = mem_alloc(message->length);
    Etcdserverpb__WatchResponse *r;
    int64_t backlog = metric_get(&b->metrics, METRIC_WATCH_BACKLOG);
    bool sent;

    (void)more;
    chain_copy(message, bytes);
    r = etcdserverpb__watch_response__unpack(NULL, message->length, bytes);
    chain_free(message);
    mem_free(bytes);
    mutex_lock(&b->lock);
    if (r == NULL)
        wrong(b, "a message that cannot be decoded");
    else if (!c->unchecked)
        on_message(c, r);
    if (backlog > b->most_backlog)
        b->most_backlog = backlog;
    b->saw_unsynced |= metric_get(&b->metrics, METRIC_WATCHERS_UNSYNCED) > 0;
    c->owes = true;
    sent = c->reading;
    if (sent)
        c->owes = false;
    condition_broadcast(&b->changed);
    mutex_unlock(&b->lock);
    if (r != NULL)
        etcdserverpb__watch_response__free_unpacked(r, NULL);
    if (sent)
        watch_stream_sent(c->stream);
}

static void
client_end(void *arg, int error)
{
    struct client *c = arg;

    mutex_lock(&c->bed->lock);
    if (c->ended != 0)
        wrong(c->bed, "a stream was ended twice");
    c->ended = error;
    condition_broadcast(&c->bed->changed);
    mutex_unlock(&c->bed->lock);
}

static void
client_closed(void *arg)
{
    struct client *c = arg;

    mutex_lock(&c->bed->lock);
    c->closed = true;
    condition_broadcast(&c->bed->changed);
    mutex_unlock(&c->bed->lock);
}

/* --- what a client does ----------------------------------------------------------------------- */

struct client *
client_open(struct watch_bed *b, bool reading)
{
    static const struct watch_transport transport = {client_send, client_end,
                                                     client_closed};
    struct client *c = mem_zalloc(sizeof *c);

    c->bed = b;
    c->reading = reading;
    c->end = &c->watched;
    c->stream = watch_stream_open(b->hub, &transport, c);
    return c;
}

static struct t4_slice
copy(struct t4_slice s)
{
    return slice_of(s.len > 0 ? memcpy(mem_alloc(s.len), s.data, s.len) : NULL, s.len);
}

struct watched *
client_watch_range(struct client *c, struct t4_slice key, struct t4_slice end,
                   const struct watch_create *options, const char *refusal)
{
    struct watched *w = mem_zalloc(sizeof *w);

    if (options != NULL)
        w->request = *options;
    w->key = copy(key);
    w->end = copy(end);
    w->request.key = w->key;
    w->request.range_end = w->end;
    w->refusal = refusal;
    mutex_lock(&c->bed->lock);
    w->asked_at = c->bed->told;
    *c->end = w;
    c->end = &w->next;
    mutex_unlock(&c->bed->lock);
    watch_stream_create(c->stream, &w->request);
    return w;
}

struct watched *
client_watch(struct client *c, const char *range, const struct watch_create *options)
{
    const char *space = strchr(range, ' ');
    struct t4_slice key =
        slice_of(range, space != NULL ? (size_t)(space - range) : strlen(range));
    struct t4_slice end = space == NULL         ? slice_of(NULL, 0)
                          : strcmp(space, " *") ? slice_str(space + 1)
                                                : slice_of("", 1);

    return client_watch_range(c, key, end, options, NULL);
}

void
client_cancel(struct client *c, struct watched *w)
{
    int64_t id;

    mutex_lock(&c->bed->lock);
    w->cancel_asked = true;
    id = w->id;
    mutex_unlock(&c->bed->lock);
    watch_stream_cancel(c->stream, id);
}

void
client_progress(struct client *c)
{
    mutex_lock(&c->bed->lock);
    c->progress_asked[c->n_asked++ % 256] = c->bed->told;
    mutex_unlock(&c->bed->lock);
    watch_stream_progress(c->stream);
}

void
client_stop_reading(struct client *c)
{
    mutex_lock(&c->bed->lock);
    c->reading = false;
    mutex_unlock(&c->bed->lock);
}

void
client_report(struct client *c)
{
    bool sent;

    mutex_lock(&c->bed->lock);
    sent = c->owes && !c->closed;
    c->owes = false;
    mutex_unlock(&c->bed->lock);
    if (sent)
        watch_stream_sent(c->stream);
}

void
client_read(struct client *c)
{
    mutex_lock(&c->bed->lock);
    c->reading = true;
    mutex_unlock(&c->bed->lock);
    client_report(c);
}

static bool
is_settled(void *arg)
{
    struct client *c = arg;

    if (c->ended != 0)
        return true;
    for (struct watched *w = c->watched; w != NULL; w = w->next)
        if (w->state == WATCHED_ASKED ||
            (w->state == WATCHED_CREATED &&
             (w->cancel_asked || !has_all(c->bed, w, c->bed->published))))
            return false;
    return true;
}

void
client_settle(struct client *c)
{
    bed_wait(c->bed, "a client to get everything", is_settled, c);
}

static bool
is_answered(void *arg)
{
    return ((struct watched *)arg)->state != WATCHED_ASKED;
}

void
client_barrier(struct client *c)
{
    struct watched *w = client_watch_range(c, slice_str("b"), slice_str("a"), NULL,
                                           "mvcc: watcher range is empty");

    bed_wait(c->bed, "the answer to a refused create", is_answered, w);
}

static bool
is_closed(void *arg)
{
    return ((struct client *)arg)->closed;
}

void
client_close(struct client *c)
{
    watch_stream_close(c->stream);
    bed_wait(c->bed, "closed()", is_closed, c);
    for (struct watched *w = c->watched, *next; w != NULL; w = next) {
        next = w->next;
        mem_free((void *)(uintptr_t)w->key.data);
        mem_free((void *)(uintptr_t)w->end.data);
        mem_free(w);
    }
    mem_free(c);
}

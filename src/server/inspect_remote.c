/*
 * inspect_remote.c - t4 inspect --endpoint: keys by pages of Range, changes by a watch.
 *
 * A watch from one revision to another: it is created with the first, and ends with the first
 * event behind the second, or when the server answers a request for progress with a revision at
 * or above it.  Such a request may go unanswered while the watch catches up, so it is sent again
 * whenever nothing came for a moment.
 *
 * Entry points: inspect_remote.h.  Runs on: the main thread.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "server/inspect_remote.h"

#include <stdlib.h>

#include "base/hash.h"
#include "base/memory.h"

#define ASK_AGAIN_NS UINT64_C(100000000)
#define HELD_BYTES ((uint64_t)256 << 20)
#define PAGE_BYTES ((uint64_t)4 << 20) /* what a page should come to */
#define PAGE_KEYS_MAX 1000

static uint8_t zero[1] = {0}; /* as a key the smallest, as an end none */

static ProtobufCBinaryData
data_of(struct t4_slice s)
{
    return (ProtobufCBinaryData){s.len, (uint8_t *)(uintptr_t)s.data};
}

static struct t4_slice
slice_of_data(const ProtobufCBinaryData *d)
{
    return slice_of(d->data, d->len);
}

/* [lo, hi) as the API has it. */
static void
set_range(struct t4_slice lo, struct t4_slice hi, ProtobufCBinaryData *key,
          ProtobufCBinaryData *end)
{
    *key = lo.len > 0 ? data_of(lo) : (ProtobufCBinaryData){1, zero};
    *end = hi.len > 0 ? data_of(hi) : (ProtobufCBinaryData){1, zero};
}

static struct inspected_version
inspected(const Mvccpb__KeyValue *kv, bool deleted)
{
    return (struct inspected_version){
        .key = slice_of_data(&kv->key),
        .value = slice_of_data(&kv->value),
        .revision = kv->mod_revision,
        .create_revision = kv->create_revision,
        .version = kv->version,
        .lease = kv->lease,
        .deleted = deleted,
    };
}

static t4_status
too_much(struct error *error)
{
    error_set(error, T4_E_NOSPACE, "what changed is more than %llu MiB",
              (unsigned long long)(HELD_BYTES >> 20));
    return error_hint(error, "ask for less: --prefix, --from-rev and --to-rev, --limit");
}

/* --- Range ------------------------------------------------------------------------------------- */

static Etcdserverpb__RangeResponse *
range(struct remote *r, const Etcdserverpb__RangeRequest *request, struct error *error)
{
    Etcdserverpb__RangeResponse *answer;

    client_ask(r->client, "/etcdserverpb.KV/Range", request,
               &etcdserverpb__range_response__descriptor, r->timeout_ns, &answer, error);
    return answer;
}

static void
free_message(void *message)
{
    protobuf_c_message_free_unpacked(message, NULL);
}

t4_status
remote_count(struct remote *r, struct t4_slice lo, struct t4_slice hi, int64_t revision,
             uint64_t *count, struct error *error)
{
    Etcdserverpb__RangeRequest request = ETCDSERVERPB__RANGE_REQUEST__INIT;
    Etcdserverpb__RangeResponse *answer;

    set_range(lo, hi, &request.key, &request.range_end);
    request.revision = revision;
    request.count_only = 1;
    answer = range(r, &request, error);
    if (answer == NULL)
        return error->status;
    *count = (uint64_t)answer->count;
    free_message(answer);
    return T4_OK;
}

/* How many keys the next page should have. */
static int64_t
page_of(const Etcdserverpb__RangeResponse *last)
{
    uint64_t bytes = 1, n = last->n_kvs > 0 ? last->n_kvs : 1;

    for (size_t i = 0; i < last->n_kvs; i++)
        bytes += last->kvs[i]->key.len + last->kvs[i]->value.len;
    n = n * PAGE_BYTES / bytes;
    return n < 1 ? 1 : n > PAGE_KEYS_MAX ? PAGE_KEYS_MAX : (int64_t)n;
}

t4_status
remote_keys(struct remote *r, struct t4_slice lo, struct t4_slice hi, int64_t revision,
            inspect_version_fn *give, void *arg, struct error *error)
{
    Etcdserverpb__RangeRequest request = ETCDSERVERPB__RANGE_REQUEST__INIT;
    struct buffer next = {0};
    t4_status status = T4_OK;
    bool more = true;

    set_range(lo, hi, &request.key, &request.range_end);
    request.revision = revision;
    request.limit = 4; /* values may be large; then it is known how large they are */
    while (more) {
        Etcdserverpb__RangeResponse *answer = range(r, &request, error);

        if (answer == NULL) {
            status = error->status;
            break;
        }
        more = answer->more && answer->n_kvs > 0;
        for (size_t i = 0; i < answer->n_kvs; i++) {
            struct inspected_version v = inspected(answer->kvs[i], false);

            if (!give(arg, &v)) {
                more = false;
                break;
            }
        }
        if (more) {
            buffer_clear(&next);
            buffer_append_slice(&next,
                                slice_of_data(&answer->kvs[answer->n_kvs - 1]->key));
            buffer_append_u8(&next, 0);
            request.key = (ProtobufCBinaryData){next.len, next.data};
            request.limit = page_of(answer);
        }
        free_message(answer);
    }
    buffer_free(&next);
    return status;
}

/* --- a watch from one revision to another ----------------------------------------------------- */

/* false: enough. */
typedef bool event_fn(void *arg, const Mvccpb__Event *e);

struct reading {
    int64_t to;
    event_fn *take;
    void *arg;
    int64_t compacted; /* out: of a watch that the server refused for that */
    bool created, done;
};

static t4_status
take_answer(struct reading *w, const Etcdserverpb__WatchResponse *a, struct error *error)
{
    if (a->canceled) {
        w->compacted = a->compact_revision;
        error_set(error, T4_E_INVALID, "the server ended the watch: %s",
                  a->compact_revision > 0 ? "compacted" : a->cancel_reason);
        return error_hint(error,
                          "the history was compacted meanwhile: ask for later revisions");
    }
    if (a->created) {
        w->created = true;
        return T4_OK;
    }
    for (size_t i = 0; i < a->n_events && !w->done; i++) {
        const Mvccpb__Event *e = a->events[i];

        if (e->kv == NULL)
            continue;
        w->done = e->kv->mod_revision > w->to || !w->take(w->arg, e);
    }
    if (a->n_events == 0 && a->header != NULL && a->header->revision >= w->to)
        w->done = true;
    return T4_OK;
}

static t4_status
ask_for_progress(struct client_stream *stream, struct error *error)
{
    Etcdserverpb__WatchRequest request = ETCDSERVERPB__WATCH_REQUEST__INIT;
    Etcdserverpb__WatchProgressRequest progress =
        ETCDSERVERPB__WATCH_PROGRESS_REQUEST__INIT;

    request.request_union_case =
        ETCDSERVERPB__WATCH_REQUEST__REQUEST_UNION_PROGRESS_REQUEST;
    request.progress_request = &progress;
    return client_stream_send(stream, &request, error) == 0 ? T4_OK : error->status;
}

static t4_status
follow(struct reading *w, struct client_stream *stream, uint64_t timeout_ns,
       struct error *error)
{
    uint64_t silent_ns = 0;
    t4_status status = T4_OK;

    while (status == T4_OK && !w->done) {
        Etcdserverpb__WatchResponse *a;
        int code = client_stream_receive(
            stream, &etcdserverpb__watch_response__descriptor, ASK_AGAIN_NS, &a, error);

        if (a != NULL) {
            bool before = w->created;

            silent_ns = 0;
            status = take_answer(w, a, error);
            free_message(a);
            if (status == T4_OK && !before && w->created)
                status = ask_for_progress(stream, error);
        } else if (code == CLIENT_TIMEOUT && !client_stream_ended(stream)) {
            silent_ns += ASK_AGAIN_NS;
            if (silent_ns >= timeout_ns)
                return error->status; /* nothing came in time */
            if (w->created)
                status = ask_for_progress(stream, error);
        } else {
            if (code == 0)
                error_set(error, T4_E_UNAVAILABLE, "the server ended the stream");
            return error->status;
        }
    }
    return status;
}

/* Events of [lo, hi) (hi.data NULL: of lo) behind `from`, up to w->to. */
static t4_status
read_events(struct remote *r, struct t4_slice lo, struct t4_slice hi, int64_t from,
            struct reading *w, struct error *error)
{
    Etcdserverpb__WatchRequest request = ETCDSERVERPB__WATCH_REQUEST__INIT;
    Etcdserverpb__WatchCreateRequest create = ETCDSERVERPB__WATCH_CREATE_REQUEST__INIT;
    struct client_stream *stream;
    t4_status status = T4_OK;

    if (from >= w->to)
        return T4_OK;
    set_range(lo, hi, &create.key, &create.range_end);
    if (hi.data == NULL)
        create.range_end = (ProtobufCBinaryData){0, NULL};
    create.start_revision = from + 1;
    create.prev_kv = 1;
    create.fragment = 1;
    request.request_union_case =
        ETCDSERVERPB__WATCH_REQUEST__REQUEST_UNION_CREATE_REQUEST;
    request.create_request = &create;
    if (client_stream_open(r->client, "/etcdserverpb.Watch/Watch", CLIENT_FOREVER,
                           &stream, error) != 0)
        return error->status;
    if (client_stream_send(stream, &request, error) != 0)
        status = error->status;
    else
        status = follow(w, stream, r->timeout_ns, error);
    client_stream_close(stream);
    return status;
}

/* --- the beginning ------------------------------------------------------------------------------ */

static bool
enough(void *arg, const Mvccpb__Event *e)
{
    (void)arg;
    (void)e;
    return false;
}

/* A watch from revision 1 is refused with the compacted revision, if there is one. */
static t4_status
find_compacted(struct remote *r, struct error *error)
{
    struct reading w = {.to = r->revision, .take = enough};
    t4_status status = read_events(r, slice_of(NULL, 0), slice_of("", 0), 0, &w, error);

    r->compacted = -1;
    if (status == T4_E_INVALID && w.compacted > 0) {
        r->compacted = w.compacted;
        *error = (struct error){0};
        return T4_OK;
    }
    return status;
}

t4_status
remote_begin(struct remote *r, struct error *error)
{
    Etcdserverpb__StatusRequest request = ETCDSERVERPB__STATUS_REQUEST__INIT;
    Etcdserverpb__RangeRequest ask = ETCDSERVERPB__RANGE_REQUEST__INIT;
    Etcdserverpb__RangeResponse *answer;

    if (client_ask(r->client, "/etcdserverpb.Maintenance/Status", &request,
                   &etcdserverpb__status_response__descriptor, r->timeout_ns, &r->status,
                   error) != 0)
        return error->status;
    ask.key = (ProtobufCBinaryData){1, zero};
    ask.count_only = 1;
    answer = range(r, &ask, error); /* linearizable: its revision is the newest */
    if (answer == NULL)
        return error->status;
    r->revision = answer->header != NULL ? answer->header->revision : 0;
    free_message(answer);
    return find_compacted(r, error);
}

void
remote_end(struct remote *r)
{
    free_message(r->status);
    r->status = NULL;
}

/* --- history ------------------------------------------------------------------------------------- */

/* A version with its own copy of the value. */
struct kept {
    struct inspected_version v;
    uint8_t *value;
};

struct history {
    struct kept *kept; /* a ring once there are `limit` of them */
    uint64_t limit, n, first, capacity;
    uint64_t bytes;
    bool too_much;
};

static void
history_add(struct history *h, const struct inspected_version *v)
{
    struct kept *k;

    if (h->limit > 0 && h->n == h->limit) {
        k = &h->kept[h->first]; /* the oldest one goes */
        h->first = (h->first + 1) % h->limit;
        h->bytes -= k->v.value.len;
        mem_free(k->value);
    } else {
        if (h->n == h->capacity) {
            h->capacity = h->capacity * 2 + 16;
            h->kept = mem_realloc(h->kept, h->capacity * sizeof *h->kept);
        }
        k = &h->kept[h->n++];
    }
    k->v = *v;
    k->value = mem_alloc(v->value.len + 1);
    if (v->value.len > 0)
        memcpy(k->value, v->value.data, v->value.len);
    k->v.value.data = k->value;
    h->bytes += v->value.len;
    h->too_much = h->bytes + h->n * sizeof *k > HELD_BYTES;
}

static bool
history_event(void *arg, const Mvccpb__Event *e)
{
    struct history *h = arg;
    struct inspected_version v =
        inspected(e->kv, e->type == MVCCPB__EVENT__EVENT_TYPE__DELETE);

    history_add(h, &v);
    return !h->too_much;
}

static bool
history_first(void *arg, const struct inspected_version *v)
{
    history_add(arg, v);
    return false;
}

static struct t4_slice
behind(struct buffer *b, struct t4_slice key)
{
    buffer_append_slice(b, key);
    buffer_append_u8(b, 0);
    return buffer_slice(b);
}

t4_status
remote_history(struct remote *r, struct t4_slice key, uint64_t limit,
               inspect_version_fn *give, void *arg, struct error *error)
{
    struct history h = {.limit = limit};
    struct reading w = {.to = r->revision, .take = history_event, .arg = &h};
    struct buffer end = {0};
    t4_status status = T4_OK;
    bool more = true;

    if (r->compacted > 0)
        status = remote_keys(r, key, behind(&end, key), r->compacted, history_first, &h,
                             error);
    if (status == T4_OK)
        status = read_events(r, key, slice_of(NULL, 0),
                             r->compacted > 0 ? r->compacted : 0, &w, error);
    if (status == T4_OK && h.too_much)
        status = too_much(error);
    for (uint64_t i = h.n; i-- > 0;) {
        struct kept *k = &h.kept[(h.first + i) % h.n];

        k->v.key = key;
        if (status == T4_OK && more)
            more = give(arg, &k->v);
        mem_free(k->value);
    }
    mem_free(h.kept);
    buffer_free(&end);
    return status;
}

/* --- differences ----------------------------------------------------------------------------------- */

/* A key that changed; key, before and after are its own. */
struct changed {
    struct inspected_change c;
    struct changed *next; /* with the same hash */
};

struct diff {
    struct changed **bucket;
    uint64_t mask, n;
    uint64_t bytes;
    bool too_much;
};

static struct t4_slice
copy_of(struct diff *d, const ProtobufCBinaryData *s)
{
    uint8_t *copy = mem_alloc(s->len + 1);

    if (s->len > 0)
        memcpy(copy, s->data, s->len);
    d->bytes += s->len;
    return slice_of(copy, s->len);
}

static void
drop(struct diff *d, struct t4_slice *s)
{
    d->bytes -= s->len;
    mem_free((void *)(uintptr_t)s->data);
    *s = slice_of(NULL, 0);
}

static void
grow(struct diff *d)
{
    uint64_t mask = d->mask * 4 + 3;
    struct changed **bucket = mem_zalloc((mask + 1) * sizeof(struct changed *));

    for (uint64_t i = 0; d->bucket != NULL && i <= d->mask; i++)
        for (struct changed *c = d->bucket[i], *next; c != NULL; c = next) {
            struct changed **to =
                &bucket[hash_bytes(1, c->c.key.data, c->c.key.len) & mask];

            next = c->next;
            c->next = *to;
            *to = c;
        }
    mem_free(d->bucket);
    d->bucket = bucket;
    d->mask = mask;
}

static struct changed *
find_or_add(struct diff *d, const Mvccpb__Event *e)
{
    struct t4_slice key = slice_of_data(&e->kv->key);
    struct changed **at, *c;

    if (d->bucket == NULL || d->n > d->mask)
        grow(d);
    at = &d->bucket[hash_bytes(1, key.data, key.len) & d->mask];
    for (c = *at; c != NULL; c = c->next)
        if (slice_equal(c->c.key, key))
            return c;
    c = mem_zalloc(sizeof *c);
    c->next = *at;
    *at = c;
    c->c.key = copy_of(d, &e->kv->key);
    c->c.first = e->kv->mod_revision;
    if (e->prev_kv != NULL) {
        c->c.was = true;
        c->c.was_created = e->prev_kv->create_revision;
        c->c.before = copy_of(d, &e->prev_kv->value);
    }
    d->n++;
    d->bytes += sizeof *c + 2 * sizeof(struct changed *);
    return c;
}

static bool
diff_event(void *arg, const Mvccpb__Event *e)
{
    struct diff *d = arg;
    struct changed *c = find_or_add(d, e);

    drop(d, &c->c.after);
    c->c.operations++;
    c->c.last = e->kv->mod_revision;
    c->c.is = e->type != MVCCPB__EVENT__EVENT_TYPE__DELETE;
    c->c.is_created = e->kv->create_revision;
    if (c->c.is)
        c->c.after = copy_of(d, &e->kv->value);
    d->too_much = d->bytes > HELD_BYTES;
    return !d->too_much;
}

static int
by_key(const void *a, const void *b)
{
    const struct changed *const *x = a, *const *y = b;

    return slice_compare((*x)->c.key, (*y)->c.key);
}

/* In order, and frees them. */
static void
give_changes(struct diff *d, bool wanted, inspect_change_fn *give, void *arg)
{
    struct changed **all = mem_alloc((d->n + 1) * sizeof(struct changed *));
    uint64_t n = 0;

    for (uint64_t i = 0; d->bucket != NULL && i <= d->mask; i++)
        for (struct changed *c = d->bucket[i]; c != NULL; c = c->next)
            all[n++] = c;
    qsort(all, n, sizeof(struct changed *), by_key);
    for (uint64_t i = 0; i < n; i++) {
        if (wanted)
            wanted = give(arg, &all[i]->c);
        drop(d, &all[i]->c.key);
        drop(d, &all[i]->c.before);
        drop(d, &all[i]->c.after);
        mem_free(all[i]);
    }
    mem_free(all);
    mem_free(d->bucket);
}

t4_status
remote_diff(struct remote *r, struct t4_slice lo, struct t4_slice hi, int64_t from,
            int64_t to, inspect_change_fn *give, void *arg, struct error *error)
{
    struct diff d = {0};
    struct reading w = {.to = to, .take = diff_event, .arg = &d};
    t4_status status =
        read_events(r, lo, hi.data != NULL ? hi : slice_of("", 0), from, &w, error);

    if (status == T4_OK && d.too_much)
        status = too_much(error);
    give_changes(&d, status == T4_OK, give, arg);
    return status;
}

/*
 * node_test.c - a whole database against a tiny reference, on both engines.
 *
 * A seeded history of puts, deletes, range deletes, transactions and compactions goes through
 * node_submit(); in between the node is closed and opened again, with and without its engine's
 * folder.  The reference keeps every version.  Checked: Range at every uncompacted revision,
 * field by field; every watch gets exactly the events of its range, once and in order; I1 -
 * with the sync thread held nothing of a held write is visible to anybody.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/memory.h"
#include "engine_bed.h"
#include "env/thread.h"
#include "node/node.h"
#include "pb/etcd/rpc.pb-c.h"
#include "scratch.h"
#include "txn/txn.h"

#define KEYS 90
#define KEYS_MAX (KEYS + 64)
#define STEPS 900
#define WATCHES 12

struct past {
    int64_t revision, create_revision, version;
    uint64_t number; /* of the value; 0: deleted */
};

struct watch;
struct model {
    struct node *node;
    struct bed *bed;
    struct node_options options;
    struct keys keys;
    struct past *history[KEYS_MAX];
    size_t versions[KEYS_MAX];
    struct chance chance;
    int64_t revision, compacted;
    struct watch *watch[WATCHES];
    unsigned long ranges, events, reopened;
};

/* --- calls ------------------------------------------------------------------------------------ */

struct call {
    struct node_request request;
    struct mutex lock;
    struct condition changed;
    bool done;
};

static void
call_done(struct node_request *r)
{
    struct call *c = container_of(r, struct call, request);

    mutex_lock(&c->lock);
    c->done = true;
    condition_signal(&c->changed);
    mutex_unlock(&c->lock);
}

static void
call_start(struct node *n, struct call *c)
{
    mutex_init(&c->lock);
    condition_init(&c->changed);
    c->request.done = call_done;
    c->request.bytes = 100;
    node_submit(n, &c->request);
}

static bool
call_is_done(struct call *c)
{
    bool done;

    mutex_lock(&c->lock);
    done = c->done;
    mutex_unlock(&c->lock);
    return done;
}

static enum etcd_error
call_wait(struct call *c)
{
    mutex_lock(&c->lock);
    while (!c->done)
        condition_wait(&c->changed, &c->lock);
    mutex_unlock(&c->lock);
    condition_destroy(&c->changed);
    mutex_destroy(&c->lock);
    return c->request.error;
}

static void *
unpack(const ProtobufCMessageDescriptor *type, struct chain *chain)
{
    uint8_t *bytes = mem_alloc(chain->length);
    void *message;

    chain_copy(chain, bytes);
    message = protobuf_c_message_unpack(type, NULL, chain->length, bytes);
    chain_free(chain);
    mem_free(bytes);
    assert_non_null(message);
    return message;
}

static void
discard(void *message)
{
    protobuf_c_message_free_unpacked(message, NULL);
}

/* --- watches -------------------------------------------------------------------------------------- */

struct seen {
    int64_t revision;
    struct t4_slice key; /* of the model */
    uint64_t number;
};

struct watch {
    struct watch_stream *stream;
    struct model *model;
    size_t lo, hi; /* indexes of keys */
    int64_t from;
    struct mutex lock;
    struct condition changed;
    struct seen *seen;    /* [lock] */
    size_t n;             /* [lock] */
    bool created, closed; /* [lock] */
};

static void
watch_message(struct watch *w, Etcdserverpb__WatchResponse *r)
{
    assert_false(r->canceled);
    w->created |= r->created;
    for (size_t i = 0; i < r->n_events; i++) {
        Mvccpb__KeyValue *kv = r->events[i]->kv;
        struct t4_slice key = slice_of(kv->key.data, kv->key.len);
        size_t k = keys_lower_bound(&w->model->keys, key);

        assert_true(w->created);
        w->seen = mem_realloc(w->seen, (w->n + 1) * sizeof *w->seen);
        assert_true(slice_equal(w->model->keys.key[k], key));
        w->seen[w->n++] =
            (struct seen){kv->mod_revision, w->model->keys.key[k],
                          r->events[i]->type == MVCCPB__EVENT__EVENT_TYPE__DELETE
                              ? 0
                              : strtoull((char *)kv->value.data, NULL, 10)};
    }
}

static void
watch_send(void *arg, struct chain *message, bool more)
{
    struct watch *w = arg;
    Etcdserverpb__WatchResponse *r =
        unpack(&etcdserverpb__watch_response__descriptor, message);

    (void)more;
    mutex_lock(&w->lock);
    watch_message(w, r);
    condition_signal(&w->changed);
    mutex_unlock(&w->lock);
    discard(r);
    watch_stream_sent(w->stream);
}

static void
watch_end(void *arg, int error)
{
    (void)arg;
    (void)error;
}

static void
watch_closed(void *arg)
{
    struct watch *w = arg;

    mutex_lock(&w->lock);
    w->closed = true;
    condition_signal(&w->changed);
    mutex_unlock(&w->lock);
}

static const struct watch_transport transport = {watch_send, watch_end, watch_closed};

static struct t4_slice
range_end_of(struct model *m, size_t hi)
{
    return hi < m->keys.n ? m->keys.key[hi] : slice_of("", 1);
}

static struct watch *
watch_open(struct model *m, size_t lo, size_t hi, int64_t from)
{
    struct watch *w = mem_zalloc(sizeof *w);
    struct watch_create create = {
        .key = m->keys.key[lo], .range_end = range_end_of(m, hi), .start_revision = from};

    w->model = m;
    w->lo = lo;
    w->hi = hi;
    w->from = from;
    mutex_init(&w->lock);
    condition_init(&w->changed);
    w->stream = watch_stream_open(node_watch_hub(m->node), &transport, w);
    watch_stream_create(w->stream, &create);
    return w;
}

/* Compares with the reference up to the model's revision, then closes. */
static void
watch_check(struct watch *w)
{
    struct model *m = w->model;
    size_t want = 0, i = 0;

    for (size_t k = w->lo; k < w->hi; k++)
        for (size_t j = 0; j < m->versions[k]; j++)
            want += m->history[k][j].revision >= w->from;
    mutex_lock(&w->lock);
    while (w->n < want || !w->created)
        condition_wait(&w->changed, &w->lock);
    assert_int_equal(w->n, want);
    for (i = 0; i < w->n; i++) {
        size_t k = keys_lower_bound(&m->keys, w->seen[i].key);
        bool known = false;

        assert_true(i == 0 || w->seen[i - 1].revision <= w->seen[i].revision);
        for (size_t j = 0; j < m->versions[k]; j++)
            known |= m->history[k][j].revision == w->seen[i].revision &&
                     m->history[k][j].number == w->seen[i].number;
        assert_true(known);
        /* with n right, all known and no key twice in a revision, nothing is missing */
        for (size_t j = i; j-- > 0 && w->seen[j].revision == w->seen[i].revision;)
            assert_false(slice_equal(w->seen[j].key, w->seen[i].key));
    }
    m->events += w->n;
    mutex_unlock(&w->lock);
    watch_stream_close(w->stream);
    mutex_lock(&w->lock);
    while (!w->closed)
        condition_wait(&w->changed, &w->lock);
    mutex_unlock(&w->lock);
    condition_destroy(&w->changed);
    mutex_destroy(&w->lock);
    mem_free(w->seen);
    mem_free(w);
}

/* --- the reference ------------------------------------------------------------------------------------ */

static const struct past *
in_force(struct model *m, size_t k, int64_t revision)
{
    const struct past *p = NULL;

    for (size_t i = 0; i < m->versions[k] && m->history[k][i].revision <= revision; i++)
        p = &m->history[k][i];
    return p != NULL && p->number != 0 ? p : NULL;
}

static void
remember(struct model *m, size_t k, int64_t revision, uint64_t number)
{
    const struct past *before = in_force(m, k, revision - 1);
    struct past now = {revision, before != NULL ? before->create_revision : revision,
                       before != NULL ? before->version + 1 : 1, number};

    if (number == 0)
        now.create_revision = now.version = 0;
    m->history[k] = mem_realloc(m->history[k], (m->versions[k] + 1) * sizeof now);
    m->history[k][m->versions[k]++] = now;
}

/* "number" and padding: long enough to move memtables and segments. */
static struct t4_slice
value_of(uint64_t number, char *space)
{
    int n = snprintf(space, 32, "%llu ", (unsigned long long)number);
    size_t length = (size_t)n + number % 700;

    memset(space + n, 'x', length - (size_t)n);
    return slice_of(space, length);
}

/* --- the history ------------------------------------------------------------------------------------------ */

static void
fatal(void *arg, const struct error *error)
{
    (void)arg;
    fprintf(stderr, "# fatal: %s\n",
            error->message); /* not the main thread: no fail_msg() */
    abort();
}

static void
model_open(struct model *m)
{
    struct error error;

    if (node_open(&m->options, &m->node, &error) != T4_OK)
        fail_msg("node_open: %s (%s)", error.message, error.hint);
}

static void
model_close(struct model *m)
{
    node_stop(m->node);
    node_close(m->node);
}

static void
step_put(struct model *m)
{
    size_t k = chance_below(&m->chance, m->keys.n);
    uint64_t number = 1 + chance_next(&m->chance) % 100000;
    char space[1024];
    struct call c = {.request.op = NODE_PUT};

    c.request.put.key = m->keys.key[k];
    c.request.put.value = value_of(number, space);
    call_start(m->node, &c);
    assert_int_equal(call_wait(&c), ETCD_OK);
    chain_free(&c.request.response);
    remember(m, k, ++m->revision, number);
}

static void
step_delete(struct model *m)
{
    size_t lo = chance_below(&m->chance, m->keys.n), hi = lo + 1;
    struct call c = {.request.op = NODE_DELETE_RANGE};
    Etcdserverpb__DeleteRangeResponse *r;
    int64_t deleted = 0;

    if (chance_below(&m->chance, 3) == 0)
        hi += chance_below(&m->chance, 4);
    hi = hi < m->keys.n ? hi : m->keys.n;
    c.request.delete_range.key = m->keys.key[lo];
    if (hi > lo + 1)
        c.request.delete_range.range_end = range_end_of(m, hi);
    call_start(m->node, &c);
    assert_int_equal(call_wait(&c), ETCD_OK);
    r = unpack(&etcdserverpb__delete_range_response__descriptor, &c.request.response);
    for (size_t k = lo; k < hi; k++)
        if (in_force(m, k, m->revision) != NULL) {
            remember(m, k, m->revision + 1, 0);
            deleted++;
        }
    m->revision += deleted > 0;
    assert_int_equal(r->deleted, deleted);
    assert_int_equal(r->header->revision, m->revision);
    discard(r);
}

static void
step_txn(struct model *m)
{
    struct operation op[3] = {0};
    struct compare compare = {.result = COMPARE_GREATER, .target = COMPARE_VERSION};
    struct call c = {.request.op = NODE_TXN};
    char space[3][1024];
    size_t first = chance_below(&m->chance, m->keys.n - 3);
    Etcdserverpb__TxnResponse *r;
    bool holds = in_force(m, first, m->revision) != NULL;

    for (size_t i = 0; i < 3; i++) {
        op[i].kind = OPERATION_PUT;
        op[i].put.key = m->keys.key[first + i];
        op[i].put.value = value_of(50 + i, space[i]);
    }
    compare.key = m->keys.key[first];
    c.request.txn = (struct txn_request){
        .compare = &compare, .n_compare = 1, .success = op, .n_success = 3};
    assert_int_equal(txn_validate_txn(&c.request.txn, 128), ETCD_OK);
    call_start(m->node, &c);
    assert_int_equal(call_wait(&c), ETCD_OK);
    r = unpack(&etcdserverpb__txn_response__descriptor, &c.request.response);
    assert_int_equal(r->succeeded, holds);
    if (holds) {
        m->revision++;
        for (size_t i = 0; i < 3; i++)
            remember(m, first + i, m->revision, 50 + i);
    }
    assert_int_equal(r->header->revision, m->revision);
    discard(r);
}

static void
close_watches(struct model *m)
{
    for (size_t i = 0; i < WATCHES; i++)
        if (m->watch[i] != NULL) {
            watch_check(m->watch[i]);
            m->watch[i] = NULL;
        }
}

static void
step_compact(struct model *m, bool physical)
{
    struct call c = {.request.op = NODE_COMPACT};
    int64_t to = m->revision - (int64_t)chance_below(&m->chance, 60);

    close_watches(m); /* one that has not caught up would rightly be cancelled */
    c.request.compact.revision = to;
    c.request.compact.physical = physical;
    call_start(m->node, &c);
    assert_int_equal(call_wait(&c), to <= m->compacted ? ETCD_COMPACTED : ETCD_OK);
    chain_free(&c.request.response);
    m->compacted = to > m->compacted ? to : m->compacted;
}

static void
check_range(struct model *m, size_t lo, size_t hi, int64_t revision, int64_t limit)
{
    struct range_request q = {.key = m->keys.key[lo],
                              .range_end = range_end_of(m, hi),
                              .revision = revision,
                              .limit = limit};
    struct chain out;
    bool too_long = false;
    size_t count = 0, sent = 0;
    Etcdserverpb__RangeResponse *r;

    chain_init(&out);
    assert_int_equal(node_range(m->node, &q, 0, &too_long, &out), ETCD_OK);
    r = unpack(&etcdserverpb__range_response__descriptor, &out);
    assert_int_equal(r->header->revision, m->revision);
    for (size_t k = lo; k < hi; k++) {
        const struct past *p = in_force(m, k, revision);
        char space[1024];
        struct t4_slice value;
        Mvccpb__KeyValue *kv;

        if (p == NULL)
            continue;
        if (limit > 0 && (int64_t)count++ >= limit)
            continue;
        count += limit == 0;
        assert_true(sent < r->n_kvs);
        kv = r->kvs[sent++];
        value = value_of(p->number, space);
        assert_true(slice_equal(slice_of(kv->key.data, kv->key.len), m->keys.key[k]));
        assert_true(slice_equal(slice_of(kv->value.data, kv->value.len), value));
        assert_int_equal(kv->mod_revision, p->revision);
        assert_int_equal(kv->create_revision, p->create_revision);
        assert_int_equal(kv->version, p->version);
    }
    assert_int_equal(r->n_kvs, sent);
    assert_int_equal(r->count, count);
    assert_int_equal(r->more, count > sent);
    m->ranges++;
    discard(r);
}

static void
reopen(struct model *m)
{
    char path[PATH_MAX + 32];

    close_watches(m);
    model_close(m);
    if (chance_below(&m->chance, 2) == 0) {
        snprintf(path, sizeof path, "%s/engine", m->options.data_dir);
        scratch_remove(path);
    }
    model_open(m);
    m->reopened++;
}

static void
step(struct model *m)
{
    switch (chance_below(&m->chance, 12)) {
    case 0:
    case 1: step_delete(m); break;
    case 2:
    case 3: step_txn(m); break;
    case 4:
        if (chance_below(&m->chance, 10) == 0)
            step_compact(m, chance_below(&m->chance, 2) == 0);
        break;
    case 5: {
        size_t i = chance_below(&m->chance, WATCHES), lo, hi;

        if (m->watch[i] != NULL)
            watch_check(m->watch[i]);
        lo = chance_below(&m->chance, m->keys.n);
        hi = lo + 1 + chance_below(&m->chance, m->keys.n - lo);
        m->watch[i] = watch_open(
            m, lo, hi,
            m->revision + 1 -
                (int64_t)chance_below(
                    &m->chance,
                    (uint64_t)(m->revision + 1 - (m->compacted > 0 ? m->compacted : 1))));
        break;
    }
    default: step_put(m); break;
    }
}

static void
history(const char *kind)
{
    struct model *m = mem_zalloc(sizeof *m);
    struct bed bed;
    bool lmdb = strcmp(kind, "lmdb") == 0;
    int64_t lowest;

    m->chance.state = test_seed();
    keys_make(&m->keys, KEYS, &m->chance);
    assert_true(m->keys.n <= KEYS_MAX);
    bed_init(&bed, kind, NULL); /* for its folder and plugin only */
    node_options_default(&m->options);
    m->options.env = env_posix();
    m->options.data_dir = bed.dir;
    m->options.engine_ops = lmdb ? &bed.ops : NULL;
    m->options.engine_plugin = lmdb ? plugin_state(bed.plugin) : NULL;
    m->options.engine_name = kind;
    m->options.fatal = fatal;
    m->options.memtable_bytes = 100000;
    m->options.segment_bytes = 1u << 20;
    m->options.reserve_bytes = 0;
    m->compacted = -1;
    m->revision = 1;
    model_open(m);
    for (int i = 0; i < STEPS; i++) {
        step(m);
        if (i % 150 == 149)
            reopen(m);
    }
    lowest = m->compacted > 1 ? m->compacted : 1;
    for (int64_t revision = lowest; revision <= m->revision; revision++) {
        size_t lo = chance_below(&m->chance, m->keys.n);

        check_range(m, 0, m->keys.n, revision, 0);
        check_range(m, lo, m->keys.n, revision, 1 + (int64_t)chance_below(&m->chance, 9));
    }
    reopen(m);
    check_range(m, 0, m->keys.n, m->revision, 0);
    print_message("# %s: revision %lld, %lu ranges at every revision, %lu watch events, "
                  "opened again %lu times\n",
                  kind, (long long)m->revision, m->ranges, m->events, m->reopened);
    model_close(m);
    bed_destroy(&bed);
    for (size_t k = 0; k < m->keys.n; k++)
        mem_free(m->history[k]);
    keys_free(&m->keys);
    mem_free(m);
}

static void
test_history_memory(void **unused)
{
    (void)unused;
    history("memory");
}

static void
test_history_lmdb(void **unused)
{
    (void)unused;
    history("lmdb");
}

/* --- I1 -------------------------------------------------------------------------------------------------------- */

static int64_t
count_of(struct node *n, const char *key)
{
    struct range_request q = {.key = slice_str(key)};
    Etcdserverpb__RangeResponse *r;
    struct chain out;
    bool too_long = false;
    int64_t count;

    chain_init(&out);
    assert_int_equal(node_range(n, &q, 0, &too_long, &out), ETCD_OK);
    r = unpack(&etcdserverpb__range_response__descriptor, &out);
    count = r->count;
    discard(r);
    return count;
}

static void
test_nothing_shows_before_it_is_durable(void **unused)
{
    struct model *m = mem_zalloc(sizeof *m);
    struct bed bed;
    struct call put = {.request.op = NODE_PUT}, lost = {.request.op = NODE_TXN};
    struct call empty = {.request.op = NODE_DELETE_RANGE};
    struct call grant = {.request.op = NODE_LEASE_GRANT};
    struct call alive = {.request.op = NODE_LEASE_KEEPALIVE};
    struct call late = {.request.op = NODE_COMPACT};
    struct compare compare = {
        .result = COMPARE_EQUAL, .target = COMPARE_VERSION, .key = slice_str("a")};
    struct t4_slice only = slice_str("a");
    struct call *all[] = {&put, &lost, &empty, &grant, &alive, &late};
    Etcdserverpb__TxnResponse *r;
    struct watch *w;

    (void)unused;
    m->keys = (struct keys){&only, 1};
    bed_init(&bed, "memory", NULL);
    node_options_default(&m->options);
    m->options.env = env_posix();
    m->options.data_dir = bed.dir;
    m->options.fatal = fatal;
    m->options.segment_bytes = 1u << 20;
    m->options.reserve_bytes = 0;
    model_open(m);
    w = watch_open(m, 0, 1, 1);
    mutex_lock(&w->lock);
    while (!w->created)
        condition_wait(&w->changed, &w->lock);
    mutex_unlock(&w->lock);

    node_hold_sync(m->node, true);
    put.request.put.key = slice_str("a");
    put.request.put.value = slice_str("7");
    call_start(m->node, &put);
    lost.request.txn = (struct txn_request){.compare = &compare, .n_compare = 1};
    call_start(m->node, &lost); /* version(a) = 0: fails because of the held put */
    empty.request.delete_range.key = slice_str("nothing");
    call_start(m->node, &empty);
    grant.request.lease_grant.id = 77;
    grant.request.lease_grant.ttl = 100;
    call_start(m->node, &grant);
    alive.request.lease.id = 77;
    call_start(m->node, &alive);
    late.request.compact.revision =
        99; /* an error: it, too, waits for what it has seen */
    call_start(m->node, &late);
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        assert_false(call_is_done(all[i]));
    assert_int_equal(count_of(m->node, "a"), 0);
    mutex_lock(&w->lock);
    assert_int_equal(w->n, 0);
    mutex_unlock(&w->lock);

    node_hold_sync(m->node, false);
    assert_int_equal(call_wait(&put), ETCD_OK);
    assert_int_equal(count_of(m->node, "a"), 1);
    assert_int_equal(call_wait(&lost), ETCD_OK);
    r = unpack(&etcdserverpb__txn_response__descriptor, &lost.request.response);
    assert_false(r->succeeded);
    discard(r);
    assert_int_equal(call_wait(&empty), ETCD_OK);
    assert_int_equal(call_wait(&grant), ETCD_OK);
    assert_int_equal(call_wait(&alive), ETCD_OK);
    assert_int_equal(call_wait(&late), ETCD_FUTURE_REVISION);
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        chain_free(&all[i]->request.response);
    m->revision = 1;
    remember(m, 0, ++m->revision, 7);
    watch_check(w);
    model_close(m);
    bed_destroy(&bed);
    mem_free(m->history[0]);
    mem_free(m);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_nothing_shows_before_it_is_durable),
        cmocka_unit_test(test_history_memory),
        cmocka_unit_test(test_history_lmdb),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

/*
 * node_edge_test.c - a database where it is hard pressed: a slow or full engine, a failed log,
 * a clock that jumps, a quota, compaction by itself, a stop in the middle of everything.
 *
 * Underneath are an engine whose writes the test holds up or fails, and an environment whose
 * boot clock it moves and whose syncs it fails; the rest is real.  Checked: what clients are
 * told, and what is there afterwards.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <unistd.h>

#include "base/log.h"
#include "base/memory.h"
#include "engine_bed.h"
#include "env/thread.h"
#include "node/node.h"
#include "pb/etcd/rpc.pb-c.h"
#include "scratch.h"

#define SECOND ((uint64_t)1000000000)
#define KIB 1024u

/* --- an engine that can be held up and be full ------------------------------------------------- */

enum gate { GATE_OPEN, GATE_CLOSED, GATE_FULL };

static struct {
    struct mutex lock;
    struct condition changed;
    enum gate gate; /* [lock] */
    t4_status (*write)(struct t4_engine *, struct t4_call *, const struct t4_op *, size_t,
                       uint64_t);
} engine_gate;

static void
gate_set(enum gate gate)
{
    mutex_lock(&engine_gate.lock);
    engine_gate.gate = gate;
    condition_broadcast(&engine_gate.changed);
    mutex_unlock(&engine_gate.lock);
}

static t4_status
gated_write(struct t4_engine *e, struct t4_call *call, const struct t4_op *ops, size_t n,
            uint64_t flushed)
{
    bool full;

    mutex_lock(&engine_gate.lock);
    while (engine_gate.gate == GATE_CLOSED)
        condition_wait(&engine_gate.changed, &engine_gate.lock);
    full = engine_gate.gate == GATE_FULL;
    mutex_unlock(&engine_gate.lock);
    return full ? T4_E_NOSPACE : engine_gate.write(e, call, ops, n, flushed);
}

/* --- an environment whose clock and syncs are the test's ------------------------------------------ */

static _Atomic uint64_t clock_ahead;
static _Atomic bool syncs_fail;
static struct env test_env;

static uint64_t
test_boot_ns(void *state)
{
    return env_posix()->boot_ns(state) + atomic_load(&clock_ahead);
}

static t4_status
test_datasync(void *state, struct env_file *file, struct error *error)
{
    if (atomic_load(&syncs_fail))
        return error_set(error, T4_E_IO, "the test's disk has failed");
    return env_posix()->datasync(state, file, error);
}

/* --- a node in a folder of its own ------------------------------------------------------------------- */

struct place {
    struct bed bed;
    struct t4_engine_ops ops;
    struct node_options options;
    struct node *node;
    _Atomic unsigned fatals;
};

static void
fatal_is_wrong(void *arg, const struct error *error)
{
    (void)arg;
    fail_msg("fatal: %s", error->message);
}

static void
fatal_is_counted(void *arg, const struct error *error)
{
    struct place *p = arg;

    (void)error;
    atomic_fetch_add(&p->fatals, 1);
}

static void
place_init_sized(struct place *p, const char *kind, const char *map_size)
{
    *p = (struct place){0};
    bed_init(&p->bed, kind, map_size);
    p->ops = p->bed.ops;
    engine_gate.write = p->ops.write;
    p->ops.write = gated_write;
    gate_set(GATE_OPEN);
    atomic_store(&clock_ahead, 0);
    atomic_store(&syncs_fail, false);
    test_env = *env_posix();
    test_env.boot_ns = test_boot_ns;
    test_env.datasync = test_datasync;
    node_options_default(&p->options);
    p->options.env = &test_env;
    p->options.data_dir = p->bed.dir;
    p->options.engine_ops = &p->ops;
    p->options.engine_plugin = p->bed.plugin != NULL ? plugin_state(p->bed.plugin) : NULL;
    p->options.engine_name = kind;
    p->options.fatal = fatal_is_wrong;
    p->options.fatal_arg = p;
    p->options.memtable_bytes = 64 * KIB;
    p->options.segment_bytes = 1024 * KIB;
    p->options.reserve_bytes = 0;
}

static void
place_init(struct place *p, const char *kind)
{
    place_init_sized(p, kind, NULL);
}

static void
place_open(struct place *p)
{
    struct error error = {0};

    if (node_open(&p->options, &p->node, &error) != T4_OK)
        fail_msg("%s (%s)", error.message, error.hint);
}

static void
place_close(struct place *p)
{
    node_stop(p->node);
    node_close(p->node);
    p->node = NULL;
}

static void
place_remove(struct place *p, const char *what)
{
    char path[PATH_MAX + 32];

    snprintf(path, sizeof path, "%s%s", p->bed.dir, what);
    scratch_remove(path);
}

static void
place_destroy(struct place *p)
{
    if (p->node != NULL)
        place_close(p);
    bed_destroy(&p->bed);
}

static int64_t
metric(struct place *p, enum metric id)
{
    node_refresh_metrics(p->node);
    return metric_get(node_metrics(p->node), id);
}

/* --- calls ------------------------------------------------------------------------------------------------ */

struct call {
    struct node_request request;
    char key[32];
    char *value;
    struct mutex lock;
    struct condition changed;
    unsigned answers;
};

static void
call_done(struct node_request *r)
{
    struct call *c = container_of(r, struct call, request);

    mutex_lock(&c->lock);
    c->answers++;
    condition_signal(&c->changed);
    mutex_unlock(&c->lock);
}

static void
call_start(struct place *p, struct call *c)
{
    mutex_init(&c->lock);
    condition_init(&c->changed);
    c->request.done = call_done;
    if (c->request.bytes == 0)
        c->request.bytes = 64;
    node_submit(p->node, &c->request);
}

static bool
call_is_done(struct call *c)
{
    bool done;

    mutex_lock(&c->lock);
    done = c->answers > 0;
    mutex_unlock(&c->lock);
    return done;
}

static enum etcd_error
call_wait(struct call *c)
{
    mutex_lock(&c->lock);
    while (c->answers == 0)
        condition_wait(&c->changed, &c->lock);
    assert_int_equal(c->answers, 1);
    mutex_unlock(&c->lock);
    return c->request.error;
}

static void
call_free(struct call *c)
{
    condition_destroy(&c->changed);
    mutex_destroy(&c->lock);
    chain_free(&c->request.response);
    mem_free(c->value);
}

static enum etcd_error
call_now(struct place *p, struct call *c)
{
    call_start(p, c);
    return call_wait(c);
}

static void
put_prepare(struct call *c, unsigned key, size_t bytes)
{
    *c = (struct call){.request.op = NODE_PUT};
    snprintf(c->key, sizeof c->key, "key%06u", key);
    c->value = mem_zalloc(bytes);
    c->request.put.key = slice_str(c->key);
    c->request.put.value = slice_of(c->value, bytes);
    c->request.bytes = (uint32_t)bytes + 16;
}

static enum etcd_error
put(struct place *p, unsigned key, size_t bytes, int64_t lease)
{
    enum etcd_error error;
    struct call c;

    put_prepare(&c, key, bytes);
    c.request.put.lease = lease;
    error = call_now(p, &c);
    call_free(&c);
    return error;
}

static void
compact_prepare(struct call *c, int64_t revision)
{
    *c = (struct call){.request.op = NODE_COMPACT};
    c->request.compact.revision = revision;
    c->request.compact.physical = true;
}

static enum etcd_error
compact(struct place *p, int64_t revision)
{
    enum etcd_error error;
    struct call c;

    compact_prepare(&c, revision);
    error = call_now(p, &c);
    call_free(&c);
    return error;
}

static void *
unpack(const ProtobufCMessageDescriptor *type, struct chain *chain)
{
    uint8_t *bytes = mem_alloc(chain->length);
    void *message;

    chain_copy(chain, bytes);
    message = protobuf_c_message_unpack(type, NULL, chain->length, bytes);
    mem_free(bytes);
    assert_non_null(message);
    return message;
}

static enum etcd_error
grant(struct place *p, int64_t id, int64_t ttl)
{
    struct call c = {.request.op = NODE_LEASE_GRANT};
    enum etcd_error error;

    c.request.lease_grant.id = id;
    c.request.lease_grant.ttl = ttl;
    error = call_now(p, &c);
    call_free(&c);
    return error;
}

static int64_t
keepalive_answer(struct call *c)
{
    Etcdserverpb__LeaseKeepAliveResponse *r;
    int64_t ttl;

    assert_int_equal(call_wait(c), ETCD_OK);
    r = unpack(&etcdserverpb__lease_keep_alive_response__descriptor,
               &c->request.response);
    ttl = r->ttl;
    protobuf_c_message_free_unpacked(&r->base, NULL);
    call_free(c);
    return ttl;
}

static int64_t
keepalive(struct place *p, int64_t id)
{
    struct call c = {.request.op = NODE_LEASE_KEEPALIVE};

    c.request.lease.id = id;
    call_start(p, &c);
    return keepalive_answer(&c);
}

static int64_t
time_to_live(struct place *p, int64_t id)
{
    struct call c = {.request.op = NODE_LEASE_TIME_TO_LIVE};
    Etcdserverpb__LeaseTimeToLiveResponse *r;
    int64_t ttl;

    c.request.lease.id = id;
    assert_int_equal(call_now(p, &c), ETCD_OK);
    r = unpack(&etcdserverpb__lease_time_to_live_response__descriptor,
               &c.request.response);
    ttl = r->ttl;
    protobuf_c_message_free_unpacked(&r->base, NULL);
    call_free(&c);
    return ttl;
}

static int64_t
count_all(struct place *p)
{
    struct range_request q = {
        .key = slice_of("", 1), .range_end = slice_of("", 1), .count_only = true};
    Etcdserverpb__RangeResponse *r;
    struct chain out;
    bool too_long = false;
    int64_t count;

    chain_init(&out);
    assert_int_equal(node_range(p->node, &q, 0, &too_long, &out), ETCD_OK);
    r = unpack(&etcdserverpb__range_response__descriptor, &out);
    chain_free(&out);
    count = r->count;
    protobuf_c_message_free_unpacked(&r->base, NULL);
    return count;
}

static bool
nospace(struct place *p)
{
    struct node_status status;

    node_status(p->node, &status);
    return status.nospace;
}

/* --- a slow engine, a full engine ----------------------------------------------------------------------- */

/* While the flush is held up memory is bounded, reads go on, and writers wait: none is refused. */
static void
test_writers_wait_for_the_flush(void **unused)
{
    enum { PUTS = 800 };
    struct call *c = mem_zalloc(PUTS * sizeof *c);
    struct place p;
    unsigned waiting = 0;

    (void)unused;
    place_init(&p, "memory");
    place_open(&p);
    gate_set(GATE_CLOSED);
    for (unsigned i = 0; i < PUTS; i++) {
        put_prepare(&c[i], i, KIB);
        call_start(&p, &c[i]);
        assert_true(metric(&p, METRIC_MEMTABLE_BYTES) <= 7 * 64 * (int64_t)KIB);
        assert_true(count_all(&p) <= (int64_t)i + 1);
    }
    for (unsigned i = 0; i < PUTS; i++)
        waiting += !call_is_done(&c[i]);
    assert_true(waiting > PUTS / 4);
    gate_set(GATE_OPEN);
    for (unsigned i = 0; i < PUTS; i++) {
        assert_int_equal(call_wait(&c[i]), ETCD_OK);
        call_free(&c[i]);
    }
    assert_int_equal(count_all(&p), PUTS);
    place_destroy(&p);
    mem_free(c);
}

/* Those who wait for a flush that finds no space are told so, and deletes go through. */
static void
test_a_full_engine_sets_the_waiting_going(void **unused)
{
    enum { PUTS = 600 };
    struct call *c = mem_zalloc((PUTS + 1) * sizeof *c), *delete = &c[PUTS];
    struct place p;
    unsigned refused = 0;

    (void)unused;
    place_init(&p, "memory");
    place_open(&p);
    gate_set(GATE_CLOSED);
    for (unsigned i = 0; i < PUTS; i++) {
        put_prepare(&c[i], i, KIB);
        call_start(&p, &c[i]);
    }
    delete->request.op = NODE_DELETE_RANGE;
    delete->request.delete_range.key = slice_str("key000000");
    call_start(&p, delete);
    assert_false(call_is_done(delete));
    gate_set(GATE_FULL);
    for (unsigned i = 0; i < PUTS; i++) {
        enum etcd_error error = call_wait(&c[i]);

        assert_true(error == ETCD_OK || error == ETCD_NO_SPACE);
        refused += error == ETCD_NO_SPACE;
        call_free(&c[i]);
    }
    assert_true(refused > 0);
    assert_int_equal(call_wait(delete), ETCD_OK);
    call_free(delete);
    assert_true(nospace(&p));
    gate_set(GATE_OPEN);
    while (nospace(&p))
        sched_yield(); /* the alarm clears by itself */
    assert_int_equal(put(&p, 0, 10, 0), ETCD_OK);
    assert_int_equal(count_all(&p), PUTS - refused);
    place_destroy(&p);
    mem_free(c);
}

/* More physical compactions than memtables can be frozen: all end when there is space. */
static void
test_every_physical_compaction_ends(void **unused)
{
    enum { COMPACTIONS = 24 };
    struct call c[COMPACTIONS], delete;
    struct place p;

    (void)unused;
    place_init(&p, "memory");
    place_open(&p);
    for (unsigned i = 0; i < COMPACTIONS; i++)
        assert_int_equal(put(&p, i, 10, 0), ETCD_OK);
    gate_set(GATE_FULL);
    for (unsigned i = 0; i < COMPACTIONS; i++) { /* each at the newest revision */
        delete = (struct call){.request.op = NODE_DELETE_RANGE};
        snprintf(delete.key, sizeof delete.key, "key%06u", i);
        delete.request.delete_range.key = slice_str(delete.key);
        assert_int_equal(call_now(&p, &delete), ETCD_OK);
        call_free(&delete);
        compact_prepare(&c[i], 2 + COMPACTIONS + i);
        call_start(&p, &c[i]);
        while (i == 0 && !nospace(&p))
            sched_yield(); /* from here on nothing waits for the flush */
    }
    for (unsigned i = 0; i < COMPACTIONS; i++)
        assert_false(call_is_done(&c[i]));
    gate_set(GATE_OPEN);
    for (unsigned i = 0; i < COMPACTIONS; i++) {
        assert_int_equal(call_wait(&c[i]), ETCD_OK);
        call_free(&c[i]);
    }
    place_destroy(&p);
}

/* A server whose disk was full when it stopped starts on the full disk and serves. */
static void
test_start_on_a_full_disk(void **unused)
{
    enum { PUTS = 400 };
    struct call *c = mem_zalloc(PUTS * sizeof *c);
    struct place p;
    unsigned acknowledged = 0;

    (void)unused;
    place_init(&p, "lmdb");
    place_open(&p);
    gate_set(GATE_CLOSED);
    for (unsigned i = 0; i < PUTS; i++) {
        put_prepare(&c[i], i, KIB);
        call_start(&p, &c[i]);
    }
    gate_set(GATE_FULL);
    for (unsigned i = 0; i < PUTS; i++) {
        acknowledged += call_wait(&c[i]) == ETCD_OK;
        call_free(&c[i]);
    }
    assert_true(acknowledged > 4 * 64 * 3 / 4);
    place_close(&p);
    place_open(&p);
    assert_int_equal(count_all(&p), acknowledged);
    while (!nospace(&p))
        sched_yield();
    assert_int_equal(put(&p, 0, 10, 0), ETCD_NO_SPACE);
    gate_set(GATE_OPEN);
    while (nospace(&p))
        sched_yield();
    assert_int_equal(put(&p, 0, 10, 0), ETCD_OK);
    place_destroy(&p);
    mem_free(c);
}

/* An engine at the end of its map: compaction makes room, and writing goes on. */
static void
test_compaction_makes_room_in_a_full_engine(void **unused)
{
    struct node_status status;
    struct place p;
    struct call c;
    unsigned n = 0;

    (void)unused;
    place_init_sized(&p, "lmdb", "24 MB");
    p.options.memtable_bytes = 9 * 1024 * KIB; /* a flush of several slices */
    place_open(&p);
    while (put(&p, n % 10, KIB, 0) == ETCD_OK)
        n++;
    assert_true(n > 1000);
    assert_true(nospace(&p));
    node_status(p.node, &status);
    compact_prepare(&c, status.revision);
    assert_int_equal(call_now(&p, &c), ETCD_OK);
    call_free(&c);
    while (nospace(&p))
        sched_yield();
    for (unsigned i = 0; i < 500; i++)
        assert_int_equal(put(&p, i % 10, KIB, 0), ETCD_OK);
    assert_int_equal(count_all(&p), 10);
    place_destroy(&p);
}

/* A compaction that a stop cut short is not called done, and ends after the restart. */
static void
test_a_compaction_survives_a_restart(void **unused)
{
    struct place p;
    struct call c;

    (void)unused;
    place_init(&p, "lmdb");
    place_open(&p);
    for (unsigned i = 0; i < 100; i++)
        assert_int_equal(put(&p, 1, 10, 0), ETCD_OK);
    assert_int_equal(compact(&p, 2), ETCD_OK); /* all of it is in the engine */
    gate_set(GATE_FULL);
    compact_prepare(&c, 90);
    call_start(&p, &c);
    while (!nospace(&p))
        sched_yield();
    place_close(&p);
    assert_int_equal(call_wait(&c), ETCD_UNKNOWN_OUTCOME);
    call_free(&c);
    gate_set(GATE_OPEN);
    place_open(&p);
    while (metric(&p, METRIC_COMPACTED_VERSIONS) < 88)
        sched_yield();
    assert_int_equal(metric(&p, METRIC_COMPACTED_REVISION), 90);
    assert_int_equal(compact(&p, 90), ETCD_COMPACTED);
    assert_int_equal(count_all(&p), 1);
    place_destroy(&p);
}

/* --- stopping ----------------------------------------------------------------------------------------------- */

/* What the sync thread releases during the stop is answered, too. */
static void
test_stop_answers_a_compaction_on_its_way(void **unused)
{
    struct place p;
    struct call c, held;

    (void)unused;
    place_init(&p, "memory");
    place_open(&p);
    assert_int_equal(put(&p, 1, 10, 0), ETCD_OK);
    node_hold_sync(p.node, true);
    put_prepare(&held, 2, 10);
    call_start(&p, &held);
    compact_prepare(&c, 2);
    call_start(&p, &c);
    assert_false(call_is_done(&c));
    node_stop(p.node);
    assert_true(call_is_done(&held));
    assert_int_equal(call_wait(&held), ETCD_OK);
    assert_true(call_is_done(&c));
    assert_int_equal(call_wait(&c), ETCD_UNKNOWN_OUTCOME);
    node_close(p.node);
    p.node = NULL;
    call_free(&held);
    call_free(&c);
    place_destroy(&p);
}

struct client {
    struct place *place;
    struct thread thread;
    unsigned number, puts;
    struct mutex lock;
    struct condition changed;
    unsigned in_flight, sent, answered; /* [lock] */
    bool stopped;                       /* [lock] */
};

struct load {
    struct node_request request;
    struct client *client;
    char key[32];
};

static void
load_done(struct node_request *r)
{
    struct load *l = container_of(r, struct load, request);
    struct client *c = l->client;

    assert_true(r->error == ETCD_OK || r->error == ETCD_STOPPED ||
                r->error == ETCD_UNKNOWN_OUTCOME || r->error == ETCD_LEASE_EXISTS ||
                r->error == ETCD_COMPACTED || r->error == ETCD_FUTURE_REVISION);
    mutex_lock(&c->lock);
    c->puts += r->op == NODE_PUT && r->error == ETCD_OK;
    c->stopped |= r->error == ETCD_STOPPED;
    c->in_flight--;
    c->answered++;
    condition_signal(&c->changed);
    mutex_unlock(&c->lock);
    chain_free(&r->response);
    mem_free(l);
}

/* All kinds of requests, 32 at a time, until the node says that it stops. */
static void *
client_main(void *arg)
{
    struct client *c = arg;

    for (unsigned i = 0;; i++) {
        struct load *l = mem_zalloc(sizeof *l);
        bool stopped;

        snprintf(l->key, sizeof l->key, "%u/%u", c->number, i);
        l->client = c;
        l->request.done = load_done;
        l->request.bytes = 100;
        switch (i % 16) {
        case 3: /* goes to a worker */
            l->request.op = NODE_DELETE_RANGE;
            l->request.delete_range.key = slice_str("x");
            l->request.delete_range.range_end = slice_str("y");
            break;
        case 7:
            l->request.op = NODE_COMPACT;
            l->request.compact.revision = i;
            l->request.compact.physical = true;
            break;
        case 9:
            l->request.op = NODE_LEASE_GRANT;
            l->request.lease_grant.id = (int64_t)(i % 5) + 1;
            l->request.lease_grant.ttl = 2;
            break;
        case 11:
            l->request.op = NODE_LEASE_KEEPALIVE;
            l->request.lease.id = (int64_t)(i % 5) + 1;
            break;
        default:
            l->request.op = NODE_PUT;
            l->request.put.key = slice_str(l->key);
            l->request.put.value = slice_str("value");
            break;
        }
        mutex_lock(&c->lock);
        while (c->in_flight >= 32)
            condition_wait(&c->changed, &c->lock);
        c->in_flight++;
        c->sent++;
        stopped = c->stopped;
        mutex_unlock(&c->lock);
        node_submit(c->place->node, &l->request);
        if (stopped)
            break;
        if (i % 64 == 0)
            atomic_fetch_add(&clock_ahead, SECOND); /* leases expire all the time */
    }
    mutex_lock(&c->lock);
    while (c->in_flight > 0)
        condition_wait(&c->changed, &c->lock);
    mutex_unlock(&c->lock);
    return NULL;
}

static void
client_free(struct client *c)
{
    condition_destroy(&c->changed);
    mutex_destroy(&c->lock);
}

/* Every request gets one answer, and what was acknowledged is there afterwards. */
static void
test_stop_under_load(void **unused)
{
    enum { ROUNDS = 12, CLIENTS = 3 };
    struct client client[CLIENTS];
    unsigned puts = 0, sent = 0;
    struct place p;

    (void)unused;
    place_init(&p, "lmdb");
    p.options.memtable_bytes = 16 * KIB;
    for (unsigned round = 0; round < ROUNDS; round++) {
        place_open(&p);
        for (unsigned i = 0; i < CLIENTS; i++) {
            client[i] = (struct client){.place = &p, .number = round * CLIENTS + i};
            mutex_init(&client[i].lock);
            condition_init(&client[i].changed);
            thread_start(&client[i].thread, "client", client_main, &client[i]);
        }
        for (unsigned want = 100 + 60 * round, got = 0; got < want;) {
            mutex_lock(&client[0].lock);
            got = client[0].answered;
            mutex_unlock(&client[0].lock);
            sched_yield();
        }
        node_stop(p.node);
        for (unsigned i = 0; i < CLIENTS; i++) {
            thread_join(&client[i].thread);
            assert_int_equal(client[i].sent, client[i].answered);
            puts += client[i].puts;
            sent += client[i].sent;
            client_free(&client[i]);
        }
        node_close(p.node);
        place_open(&p);
        assert_int_equal(count_all(&p), puts);
        place_close(&p);
    }
    print_message("# %u requests, %u puts acknowledged, stopped %d times\n", sent, puts,
                  ROUNDS);
    place_destroy(&p);
}

/* --- leases -------------------------------------------------------------------------------------------------- */

/* A lease's time begins when its grant is published, however long the disk took. */
static void
test_a_lease_does_not_expire_before_it_is_known(void **unused)
{
    struct call first = {.request.op = NODE_LEASE_GRANT}, second = first;
    struct call alive = {.request.op = NODE_LEASE_KEEPALIVE};
    struct place p;

    (void)unused;
    place_init(&p, "memory");
    place_open(&p);
    node_hold_sync(p.node, true);
    first.request.lease_grant.id = 1;
    first.request.lease_grant.ttl = 5;
    call_start(&p, &first);
    atomic_fetch_add(&clock_ahead, 10 * SECOND); /* beyond its time */
    alive.request.lease.id = 1;
    call_start(&p, &alive);
    second.request.lease_grant.id = 2;
    second.request.lease_grant.ttl = 5;
    call_start(&p, &second);
    atomic_fetch_add(&clock_ahead, 4 * SECOND); /* within its time */
    assert_false(call_is_done(&first));
    node_hold_sync(p.node, false);
    assert_int_equal(call_wait(&first), ETCD_OK);
    assert_int_equal(keepalive_answer(&alive), 5);
    assert_int_equal(call_wait(&second), ETCD_OK);
    atomic_fetch_add(&clock_ahead,
                     3 * SECOND); /* 7 s after the evaluation, 3 after the answer */
    assert_int_equal(put(&p, 1, 10, 1), ETCD_OK);
    assert_int_equal(keepalive(&p, 2), 5);
    atomic_fetch_add(&clock_ahead, 6 * SECOND);
    assert_int_equal(keepalive(&p, 2), 0);
    while (count_all(&p) > 0)
        sched_yield();
    call_free(&first);
    call_free(&second);
    place_destroy(&p);
}

/* What was logged of a lease's rest never gives it less than it had. */
static void
test_remainders_never_shorten_a_lease(void **unused)
{
    struct node_status before, after;
    struct place p;
    int64_t ttl;

    (void)unused;
    place_init(&p, "memory");
    place_open(&p);
    assert_int_equal(grant(&p, 1, 400), ETCD_OK);
    assert_int_equal(grant(&p, 2, 250), ETCD_OK); /* too short for that */
    node_status(p.node, &before);
    atomic_fetch_add(&clock_ahead, 100 * SECOND + SECOND / 10);
    do {
        node_status(p.node, &after);
        sched_yield();
    } while (after.index == before.index);
    ttl = time_to_live(&p, 1);
    assert_in_range(ttl, 250, 299);
    place_close(&p);
    place_open(&p);
    assert_true(time_to_live(&p, 1) >= ttl);
    assert_true(time_to_live(&p, 1) <= 300);
    assert_int_equal(time_to_live(&p, 2), 249);
    /* A client that keeps it alive is promised all of its time again, also by the next life. */
    assert_int_equal(keepalive(&p, 1), 400);
    place_close(&p);
    place_open(&p);
    assert_int_equal(time_to_live(&p, 1), 399);
    place_destroy(&p);
}

static void
test_extreme_leases(void **unused)
{
    static const int64_t ids[] = {1, -1, INT64_MAX, INT64_MIN};
    struct place p;

    (void)unused;
    place_init(&p, "memory");
    place_open(&p);
    for (unsigned i = 0; i < 4; i++) {
        assert_int_equal(grant(&p, ids[i], i == 0 ? 9000000000 : 100), ETCD_OK);
        assert_int_equal(grant(&p, ids[i], 5), ETCD_LEASE_EXISTS);
        assert_int_equal(put(&p, i, 10, ids[i]), ETCD_OK);
    }
    assert_int_equal(grant(&p, 5, 9000000001), ETCD_LEASE_TTL_TOO_LARGE);
    assert_int_equal(grant(&p, 5, INT64_MAX), ETCD_LEASE_TTL_TOO_LARGE);
    assert_int_equal(grant(&p, 5, INT64_MIN), ETCD_OK);
    assert_int_equal(keepalive(&p, 5), 2);
    assert_int_equal(keepalive(&p, 0), 0);
    assert_int_equal(time_to_live(&p, 0), -1);
    place_close(&p);
    place_open(&p);
    atomic_fetch_add(&clock_ahead, 200 * SECOND);
    while (count_all(&p) > 1)
        sched_yield();
    assert_int_equal(keepalive(&p, 1), 9000000000);
    for (unsigned i = 1; i < 4; i++)
        assert_int_equal(time_to_live(&p, ids[i]), -1);
    place_destroy(&p);
}

/* Thousands at once: all go, others are served meanwhile, the metrics tell them apart. */
static void
test_many_leases_expire_at_once(void **unused)
{
    enum { LEASES = 3000 };
    struct place p;
    unsigned between = 0;

    (void)unused;
    place_init(&p, "memory");
    place_open(&p);
    for (unsigned i = 0; i < LEASES; i++) {
        struct call *c = mem_zalloc(2 * sizeof *c);

        c[0].request.op = NODE_LEASE_GRANT;
        c[0].request.lease_grant.id = i + 1;
        c[0].request.lease_grant.ttl = 60;
        call_start(&p, &c[0]);
        put_prepare(&c[1], i, 1);
        c[1].request.put.lease = i + 1;
        call_start(&p, &c[1]);
        for (unsigned j = 0; j < 2; j++) {
            assert_int_equal(call_wait(&c[j]), ETCD_OK);
            call_free(&c[j]);
        }
        mem_free(c);
    }
    assert_int_equal(metric(&p, METRIC_REQUESTS_LEASE), LEASES);
    assert_int_equal(metric(&p, METRIC_LEASES), LEASES);
    place_close(&p);
    place_open(&p);
    assert_int_equal(metric(&p, METRIC_LEASES), LEASES);
    atomic_fetch_add(&clock_ahead, 100 * SECOND);
    while (metric(&p, METRIC_LEASES) > 0) {
        assert_int_equal(put(&p, LEASES, 1, 0), ETCD_OK);
        between += metric(&p, METRIC_LEASES) > 0;
    }
    assert_true(between > 1);
    assert_int_equal(metric(&p, METRIC_LEASES_EXPIRED), LEASES);
    assert_int_equal(metric(&p, METRIC_REQUESTS_LEASE), 0);
    assert_int_equal(put(&p, LEASES, 1, 0), ETCD_OK); /* behind the last one */
    assert_int_equal(count_all(&p), 1);
    place_destroy(&p);
}

/* --- workers ------------------------------------------------------------------------------------------------- */

struct long_read {
    struct job job;
    struct mutex lock;
    struct condition changed;
    bool end; /* [lock] */
};

static void
read_for_long(struct job *job)
{
    struct long_read *l = container_of(job, struct long_read, job);

    mutex_lock(&l->lock);
    while (!l->end)
        condition_wait(&l->changed, &l->lock);
    mutex_unlock(&l->lock);
}

/* Long reads on all workers do not keep heavy writes, and all behind them, waiting. */
static void
test_long_reads_do_not_stop_writes(void **unused)
{
    struct long_read reads[2] = {0};
    struct call c = {.request.op = NODE_DELETE_RANGE};
    struct place p;

    (void)unused;
    place_init(&p, "memory");
    place_open(&p);
    for (unsigned i = 0; i < 2; i++) {
        mutex_init(&reads[i].lock);
        condition_init(&reads[i].changed);
        reads[i].job.run = read_for_long;
        workers_submit(node_workers(p.node), &reads[i].job);
    }
    c.request.delete_range.key = slice_str("a");
    c.request.delete_range.range_end = slice_str("z");
    assert_int_equal(call_now(&p, &c), ETCD_OK);
    call_free(&c);
    assert_int_equal(put(&p, 1, 10, 0), ETCD_OK);
    for (unsigned i = 0; i < 2; i++) {
        mutex_lock(&reads[i].lock);
        reads[i].end = true;
        condition_signal(&reads[i].changed);
        mutex_unlock(&reads[i].lock);
    }
    place_destroy(&p);
    for (unsigned i = 0; i < 2; i++) {
        condition_destroy(&reads[i].changed);
        mutex_destroy(&reads[i].lock);
    }
}

/* --- errors and metrics --------------------------------------------------------------------------------------- */

/* A failed log is not a full disk: no alarm, no "space exceeded". */
static void
test_a_failed_log_is_not_a_full_disk(void **unused)
{
    struct place p;
    struct call lost;
    enum etcd_error error;

    (void)unused;
    place_init(&p, "memory");
    p.options.fatal = fatal_is_counted;
    place_open(&p);
    assert_int_equal(put(&p, 1, 10, 0), ETCD_OK);
    atomic_store(&syncs_fail, true);
    put_prepare(&lost, 2, 10);
    call_start(&p, &lost);
    while (atomic_load(&p.fatals) == 0)
        sched_yield();
    assert_false(call_is_done(&lost));
    assert_int_equal(count_all(&p), 1); /* nothing of it shows */
    {
        struct call late;

        put_prepare(&late, 3, 10);
        call_start(&p, &late);
        assert_false(nospace(&p));
        node_stop(p.node);
        error = call_wait(&late);
        assert_true(error == ETCD_STOPPED || error == ETCD_UNKNOWN_OUTCOME);
        call_free(&late);
    }
    assert_int_equal(call_wait(&lost), ETCD_UNKNOWN_OUTCOME);
    call_free(&lost);
    node_close(p.node);
    p.node = NULL;
    assert_int_equal(p.fatals, 1);
    place_destroy(&p);
}

/* Without its log the engine alone is not served as if nothing were missing. */
static void
test_a_lost_log_is_noticed(void **unused)
{
    struct error error = {0};
    struct place p;

    (void)unused;
    place_init(&p, "lmdb");
    place_open(&p);
    assert_int_equal(put(&p, 1, 10, 0), ETCD_OK);
    assert_int_equal(compact(&p, 2), ETCD_OK); /* all of it is in the engine */
    place_close(&p);
    place_remove(&p, "/wal");
    assert_int_equal(node_open(&p.options, &p.node, &error), T4_E_CORRUPT);
    assert_non_null(strstr(error.message, "segments of the log are missing"));
    assert_non_null(strstr(error.hint, "engine's folder"));
    place_remove(&p, "/engine");
    place_open(&p);
    assert_int_equal(count_all(&p), 0);
    place_destroy(&p);
}

/* A range that is handed on to a worker is one request. */
static void
test_a_long_range_counts_once(void **unused)
{
    struct range_request q = {.key = slice_of("", 1), .range_end = slice_of("", 1)};
    struct place p;
    struct chain out;
    bool too_long = false;
    int64_t before;

    (void)unused;
    place_init(&p, "memory");
    place_open(&p);
    for (unsigned i = 0; i < 20; i++)
        assert_int_equal(put(&p, i, 10, 0), ETCD_OK);
    before = metric(&p, METRIC_REQUESTS_RANGE);
    chain_init(&out);
    assert_int_equal(node_range(p.node, &q, 10, &too_long, &out), ETCD_OK);
    assert_true(too_long);
    chain_free(&out);
    assert_int_equal(node_range(p.node, &q, 0, &too_long, &out), ETCD_OK);
    assert_false(too_long);
    chain_free(&out);
    assert_int_equal(metric(&p, METRIC_REQUESTS_RANGE), before + 1);
    place_destroy(&p);
}

/* --- compaction by itself, and what is left in the engine ------------------------------------------------- */

#define MODEL_KEYS 60
#define MODEL_REVISIONS 3000

/* What was done at each revision: a key was put, or deleted. */
struct history {
    struct {
        unsigned key;
        bool deleted;
    } at[MODEL_REVISIONS + 1];
    int64_t revision;
};

static void
history_grow(struct place *p, struct history *h, struct chance *c, int64_t until)
{
    bool there[MODEL_KEYS] = {false};

    for (int64_t r = 2; r <= h->revision; r++)
        there[h->at[r].key] = !h->at[r].deleted;
    while (h->revision < until) {
        unsigned key = (unsigned)chance_below(c, MODEL_KEYS);
        bool deleted = there[key] && chance_below(c, 3) == 0;

        if (deleted) {
            struct call call = {.request.op = NODE_DELETE_RANGE};

            snprintf(call.key, sizeof call.key, "key%06u", key);
            call.request.delete_range.key = slice_str(call.key);
            assert_int_equal(call_now(p, &call), ETCD_OK);
            call_free(&call);
        } else {
            assert_int_equal(put(p, key, 1 + chance_below(c, 500), 0), ETCD_OK);
        }
        there[key] = !deleted;
        h->revision++;
        h->at[h->revision].key = key;
        h->at[h->revision].deleted = deleted;
    }
}

/*
 * Versions that are left when all is compacted to `to`: those above it, and of each key the
 * newest at or below it, unless that is a tombstone older than it.
 */
static uint64_t
history_versions(const struct history *h, int64_t to)
{
    bool covered[MODEL_KEYS] = {false};
    uint64_t n = 0;

    for (int64_t r = h->revision; r >= 2; r--) {
        if (r > to) {
            n++;
        } else if (!covered[h->at[r].key]) {
            covered[h->at[r].key] = true;
            n += !h->at[r].deleted || r == to;
        }
    }
    return n;
}

static enum etcd_error
defragment(struct place *p)
{
    struct call c = {.request.op = NODE_DEFRAGMENT};
    enum etcd_error error = call_now(p, &c);

    call_free(&c);
    return error;
}

static void
test_automatic_compaction(void **kind)
{
    enum { KEEP = 500, OWN = 2 /* the state, and the compacted revision */ };
    struct history *h = mem_zalloc(sizeof *h);
    struct chance c = {test_seed()};
    struct node_status status;
    struct place p;

    place_init(&p, *kind);
    p.options.auto_compaction = COMPACTOR_REVISION;
    p.options.auto_compaction_retention = KEEP;
    place_open(&p);
    h->revision = 1;
    for (int64_t round = 1; round <= 3; round++) {
        history_grow(&p, h, &c, round * MODEL_REVISIONS / 3);
        assert_int_equal(count_all(&p), history_versions(h, h->revision) -
                                            (uint64_t)h->at[h->revision].deleted);
        if (round == 2) { /* the engine begins anew, from the log */
            place_close(&p);
            place_remove(&p, "/engine");
            place_open(&p);
        }
        atomic_fetch_add(&clock_ahead, 300 * SECOND);
        do {
            sched_yield();
            node_status(p.node, &status);
        } while (status.compacted_revision != h->revision - KEEP);
        assert_int_equal(defragment(&p),
                         ETCD_OK); /* all is in the engine, and compacted */
        node_status(p.node, &status);
        assert_int_equal(status.db_records,
                         history_versions(h, h->revision - KEEP) + OWN);
        assert_true(status.db_bytes <= status.db_in_use_bytes + 131072);
    }
    place_destroy(&p);
    mem_free(h);
}

/* --- the quota -------------------------------------------------------------------------------------------- */

static enum etcd_error
alarm_call(struct place *p, enum node_alarm_action action, int32_t kind)
{
    struct call c = {.request.op = NODE_ALARM};
    struct node_status status;
    enum etcd_error error;

    node_status(p->node, &status);
    c.request.alarm.action = action;
    c.request.alarm.member = status.member_id;
    c.request.alarm.kind = kind;
    error = call_now(p, &c);
    call_free(&c);
    return error;
}

/* The engine thread, about to measure the engine: looks at the quota just before. */
static struct {
    t4_status (*stats)(struct t4_engine *e, struct t4_engine_stats *out);
    struct node *_Atomic node;
    _Atomic uint64_t put;     /* bytes of values acknowledged */
    _Atomic unsigned n_looks; /* with something put */
    _Atomic bool too_low;     /* used was once less than was put */
} quota_look;

static t4_status
looking_stats(struct t4_engine *e, struct t4_engine_stats *out)
{
    static _Thread_local bool looking;
    struct node *n = atomic_load(&quota_look.node);

    if (n != NULL && !looking) {
        uint64_t put = atomic_load(&quota_look.put); /* before the look */
        struct node_status status;

        looking = true; /* the look asks for statistics, too */
        node_status(n, &status);
        looking = false;
        if (status.quota_used_bytes < put)
            atomic_store(&quota_look.too_low, true);
        if (put > 0)
            atomic_fetch_add(&quota_look.n_looks, 1);
    }
    return quota_look.stats(e, out);
}

/* A memtable counts until the engine was measured with it: nothing put is in neither. */
static void
test_quota_misses_no_memtable(void **kind)
{
    struct place p;

    place_init(&p, *kind);
    quota_look.stats = p.ops.stats;
    p.ops.stats = looking_stats;
    place_open(&p);
    atomic_store(&quota_look.node, p.node);
    for (unsigned n = 0; n < 100; n++) {
        assert_int_equal(put(&p, n, 10 * KIB, 0), ETCD_OK);
        atomic_fetch_add(&quota_look.put, 10 * KIB);
    }
    assert_int_equal(compact(&p, 2), ETCD_OK); /* all of them are flushed */
    atomic_store(&quota_look.node, NULL);
    assert_true(atomic_load(&quota_look.n_looks) > 0);
    assert_false(atomic_load(&quota_look.too_low));
    atomic_store(&quota_look.put, 0);
    atomic_store(&quota_look.n_looks, 0);
    place_destroy(&p);
}

/* Noticed before a memtable is flushed; and what a checkpoint or the log bring back counts. */
static void
test_quota(void **kind)
{
    struct node_status status;
    struct call delete = {.request.op = NODE_DELETE_RANGE};
    struct place p;
    unsigned n = 0;

    place_init(&p, *kind);
    p.options.quota_bytes = 1024 * KIB;
    place_open(&p);
    while (put(&p, n, 10 * KIB, 0) == ETCD_OK) {
        node_status(p.node, &status);
        assert_true(status.quota_used_bytes < 1024 * KIB + 64 * KIB);
        n++;
    }
    assert_in_range(n, 40, 103);
    node_status(p.node, &status);
    assert_true(status.nospace && !status.disk_full);
    assert_int_equal(status.n_alarms, 1);
    assert_int_equal(put(&p, 0, 1, 0), ETCD_NO_SPACE);
    assert_int_equal(grant(&p, 1, 100), ETCD_NO_SPACE);
    assert_int_equal(count_all(&p), n);
    place_close(&p);
    place_open(&p);
    assert_true(nospace(&p));
    assert_int_equal(put(&p, 0, 1, 0), ETCD_NO_SPACE);

    /* Taken down without making room it is up again with the next write. */
    assert_int_equal(alarm_call(&p, NODE_ALARM_DEACTIVATE, ALARM_NOSPACE), ETCD_OK);
    assert_false(nospace(&p));
    /* (Once flushed, the same keys may take a little less: 20 KiB fit in neither.) */
    assert_int_equal(put(&p, 0, 20 * KIB, 0), ETCD_NO_SPACE);
    assert_true(nospace(&p));

    delete.request.delete_range.key = slice_of("", 1);
    delete.request.delete_range.range_end = slice_of("", 1);
    assert_int_equal(call_now(&p, &delete), ETCD_OK);
    call_free(&delete);
    assert_int_equal(compact(&p, (int64_t)n + 2), ETCD_OK);
    assert_int_equal(put(&p, 0, 1, 0), ETCD_NO_SPACE); /* room alone does not clear it */
    assert_int_equal(alarm_call(&p, NODE_ALARM_DEACTIVATE, ALARM_NOSPACE), ETCD_OK);
    for (unsigned i = 0; i < n / 2; i++)
        assert_int_equal(put(&p, i, 10 * KIB, 0), ETCD_OK);
    assert_false(nospace(&p));
    place_destroy(&p);
}

int
main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_writers_wait_for_the_flush),
        cmocka_unit_test(test_a_full_engine_sets_the_waiting_going),
        cmocka_unit_test(test_every_physical_compaction_ends),
        cmocka_unit_test(test_start_on_a_full_disk),
        cmocka_unit_test(test_compaction_makes_room_in_a_full_engine),
        cmocka_unit_test(test_a_compaction_survives_a_restart),
        cmocka_unit_test(test_stop_answers_a_compaction_on_its_way),
        cmocka_unit_test(test_stop_under_load),
        cmocka_unit_test(test_a_lease_does_not_expire_before_it_is_known),
        cmocka_unit_test(test_remainders_never_shorten_a_lease),
        cmocka_unit_test(test_extreme_leases),
        cmocka_unit_test(test_many_leases_expire_at_once),
        cmocka_unit_test(test_long_reads_do_not_stop_writes),
        cmocka_unit_test(test_a_failed_log_is_not_a_full_disk),
        cmocka_unit_test(test_a_lost_log_is_noticed),
        cmocka_unit_test(test_a_long_range_counts_once),
        cmocka_unit_test_prestate(test_automatic_compaction, "memory"),
        cmocka_unit_test_prestate(test_automatic_compaction, "lmdb"),
        cmocka_unit_test_prestate(test_quota_misses_no_memtable, "memory"),
        cmocka_unit_test_prestate(test_quota_misses_no_memtable, "lmdb"),
        cmocka_unit_test_prestate(test_quota, "memory"),
        cmocka_unit_test_prestate(test_quota, "lmdb"),
    };

    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    log_configure((enum log_level)0, LOG_FORMAT_TEXT); /* alarms are expected here */
    alarm(300); /* a request without an answer must not hang the suite */
    mutex_init(&engine_gate.lock);
    condition_init(&engine_gate.changed);
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/*
 * base.c - the checkpoint that the storage engine began with: beginning, resuming, and what a
 * request must wait for while parts of it are missing.
 *
 * What a request reads is asked for before it is evaluated (or read): ready once is ready for ever,
 * so nothing needs to be looked at again under the commit role.  A key whose newest version
 * below the revision that is read is newer than the checkpoint needs nothing of it.
 *
 * Threads: base_begin() on the store thread (or the main thread before it), under the role;
 * the questions from any.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "base/log.h"
#include "base/memory.h"
#include "fmt/entry.h"
#include "node/node_int.h"

#include <inttypes.h>
#include <stdio.h>

#define WAIT_NS UINT64_C(20000000000)
#define THREADS 8u

/* --- life ---------------------------------------------------------------------------------- */

static void
poke(void *arg)
{
    background_poke_engine(arg);
}

static void
complete(void *arg)
{
    struct node *n = arg;

    background_poke_engine(n); /* a compaction may have waited for it, */
    if (n->hub != NULL)        /* and watches that begin below the log */
        watch_hub_wake(n->hub);
}

static t4_status
rebuild(void *arg, const struct run_index *run, size_t which, struct buffer *object,
        struct error *error)
{
    struct node *n = arg;
    struct rebuild_options options = {.env = n->options.env,
                                      .store = n->options.store,
                                      .incarnation = n->identity.incarnation,
                                      .timeout_ns = n->options.store_timeout_ns};

    return checkpoint_rebuild(&options, run, which, object, error);
}

static struct hydration_options
options_of(struct node *n)
{
    return (struct hydration_options){.env = n->options.env,
                                      .store = n->options.store,
                                      .mvcc = n->mvcc,
                                      .timeout_ns = n->options.store_timeout_ns,
                                      .threads = THREADS,
                                      .metrics = &n->metrics,
                                      .arg = n,
                                      .poke = poke,
                                      .complete = complete,
                                      .rebuild = rebuild};
}

t4_status
base_begin(struct node *n, const struct checkpoint_object *c, struct error *error)
{
    struct hydration_options options;
    char revision[24], index[24];
    t4_status status;

    base_free(n);
    status = recover_without_engine(n, error);
    if (status != T4_OK)
        return status;
    options = options_of(n);
    status = hydration_begin(&options, c, &n->hydration, error);
    if (status == T4_OK)
        status = recover_at_checkpoint(n, c, error);
    if (status != T4_OK)
        return status;
    snprintf(revision, sizeof revision, "%" PRId64, c->revision);
    snprintf(index, sizeof index, "%" PRIu64, c->index);
    LOG_INFO("beginning from a checkpoint", "revision", revision, "index", index, NULL);
    return T4_OK;
}

t4_status
base_resume(struct node *n, struct error *error)
{
    struct hydration_options options = options_of(n);
    struct buffer mark = {0};
    t4_status status = mvcc_read_mark(n->mvcc, &mark, error);

    if (status == T4_OK && n->options.store == NULL) {
        error_set(error, T4_E_INVALID,
                  "the storage engine in %s is not complete: the rest is in the object "
                  "store",
                  n->data_dir);
        error_hint(error, "start with the store it was begun with");
        status = T4_E_INVALID;
    } else if (status == T4_OK) {
        status = hydration_resume(&options, buffer_slice(&mark), &n->hydration, error);
    } else if (status == T4_E_NOTFOUND) {
        status = T4_OK;
    }
    buffer_free(&mark);
    return status;
}

void
base_start(struct node *n)
{
    if (n->hydration != NULL)
        hydration_start(n->hydration);
}

void
base_stop(struct node *n)
{
    if (n->hydration != NULL)
        hydration_stop(n->hydration);
}

void
base_free(struct node *n)
{
    hydration_free(n->hydration);
    n->hydration = NULL;
}

/* --- what is read ------------------------------------------------------------------------------ */

/* One question: everything a request reads. */
struct question {
    struct node *n;
    struct hydration_wait *wait;
    struct mvcc_reader reader;
    struct buffer lo, hi;
};

static bool
begin(struct question *q, struct node *n, struct hydration_wait *w)
{
    *q = (struct question){.n = n, .wait = w};
    hydration_wait_begin(w);
    return mvcc_read_begin(n->mvcc, &q->reader) == T4_OK;
}

static enum hydration_answer
end(struct question *q)
{
    mvcc_read_end(&q->reader);
    buffer_free(&q->lo);
    buffer_free(&q->hi);
    return hydration_wait_end(q->n->hydration, q->wait, WAIT_NS);
}

static void
ask_key(struct question *q, struct t4_slice key, int64_t revision)
{
    struct version v;

    buffer_clear(&q->lo);
    buffer_append_u8(&q->lo, SPACE_KEYS);
    buffer_append_slice(&q->lo, key);
    if (mvcc_get(&q->reader, buffer_slice(&q->lo),
                 revision > 0 ? (uint64_t)revision : STAMP_NEWEST, &v) == T4_OK &&
        v.stamp > (uint64_t)hydration_checkpoint(q->n->hydration)->revision)
        return;
    hydration_ask(q->n->hydration, q->wait, buffer_slice(&q->lo), slice_of(NULL, 0));
}

static void
ask_range(struct question *q, struct t4_slice key, struct t4_slice range_end,
          int64_t revision)
{
    if (range_is_single(range_end)) {
        ask_key(q, key, revision);
        return;
    }
    buffer_clear(&q->lo);
    buffer_clear(&q->hi);
    buffer_append_u8(&q->lo, SPACE_KEYS);
    if (!(key.len == 1 && key.data[0] == 0)) /* "from the first key on" */
        buffer_append_slice(&q->lo, key);
    buffer_append_u8(&q->hi, range_is_open(range_end) ? SPACE_KEYS + 1 : SPACE_KEYS);
    if (!range_is_open(range_end))
        buffer_append_slice(&q->hi, range_end);
    hydration_ask(q->n->hydration, q->wait, buffer_slice(&q->lo), buffer_slice(&q->hi));
}

static void ask_txn(struct question *q, const struct txn_request *txn);

static void
ask_operation(struct question *q, const struct operation *o)
{
    switch (o->kind) {
    case OPERATION_RANGE:
        ask_range(q, o->range.key, o->range.range_end, o->range.revision);
        break;
    case OPERATION_PUT: ask_key(q, o->put.key, 0); break;
    case OPERATION_DELETE_RANGE:
        ask_range(q, o->delete_range.key, o->delete_range.range_end, 0);
        break;
    case OPERATION_TXN: ask_txn(q, &o->txn); break;
    default: break;
    }
}

static void
ask_txn(struct question *q, const struct txn_request *txn)
{
    for (uint32_t i = 0; i < txn->n_compare; i++)
        ask_range(q, txn->compare[i].key, txn->compare[i].range_end, 0);
    for (uint32_t i = 0; i < txn->n_success; i++)
        ask_operation(q, &txn->success[i]);
    for (uint32_t i = 0; i < txn->n_failure; i++)
        ask_operation(q, &txn->failure[i]);
}

/* The keys of a lease; those that `q` can see already are asked for as well. */
static void
ask_lease(struct question *q, int64_t id, bool keys)
{
    uint8_t lo[9] = {SPACE_ATTACHMENTS}, hi[9] = {SPACE_ATTACHMENTS};
    struct t4_slice end = slice_of(hi, 9), ikey;
    struct mvcc_walk walk;
    struct version v;

    put_u64be(lo + 1, (uint64_t)id);
    put_u64be(hi + 1, (uint64_t)id + 1);
    if ((uint64_t)id == UINT64_MAX) { /* to the end of the space */
        hi[0]++;
        end.len = 1;
    }
    hydration_ask(q->n->hydration, q->wait, slice_of(lo, 9), end);
    if (!keys)
        return;
    mvcc_walk_begin(&walk, &q->reader, slice_of(lo, 9), end, STAMP_NEWEST);
    while (mvcc_walk_next(&walk, &ikey, &v) == T4_OK)
        ask_key(q, slice_of(ikey.data + 9, ikey.len - 9), 0);
    mvcc_walk_end(&walk);
}

static bool
is_complete(struct node *n)
{
    return n->hydration == NULL || hydration_is_complete(n->hydration);
}

enum hydration_answer
node_range_ready(struct node *n, const struct range_request *r, struct hydration_wait *w)
{
    struct question q;

    if (is_complete(n))
        return HYDRATION_READY;
    if (begin(&q, n, w))
        ask_range(&q, r->key, r->range_end, r->revision);
    return end(&q);
}

enum hydration_answer
node_txn_ready(struct node *n, const struct txn_request *r, struct hydration_wait *w)
{
    struct question q;

    if (is_complete(n))
        return HYDRATION_READY;
    if (begin(&q, n, w))
        ask_txn(&q, r);
    return end(&q);
}

enum hydration_answer
base_request_ready(struct node *n, struct node_request *r)
{
    struct question q;

    if (is_complete(n))
        return HYDRATION_READY;
    if (begin(&q, n, &r->hydration))
        switch ((int)r->op) {
        case NODE_PUT: ask_key(&q, r->put.key, 0); break;
        case NODE_DELETE_RANGE:
            ask_range(&q, r->delete_range.key, r->delete_range.range_end, 0);
            break;
        case NODE_TXN: ask_txn(&q, &r->txn); break;
        case NODE_LEASE_REVOKE: ask_lease(&q, r->lease.id, true); break;
        case NODE_LEASE_TIME_TO_LIVE:
            if (r->lease.keys)
                ask_lease(&q, r->lease.id, false);
            break;
        default: break;
        }
    return end(&q);
}

static void
nobody_waits(struct hydration_wait *w, t4_status status)
{
    (void)status;
    mem_free(w);
}

bool
base_lease_ready(struct node *n, int64_t id)
{
    struct hydration_wait *w;
    struct question q;
    enum hydration_answer answer;

    if (is_complete(n))
        return true;
    w = mem_zalloc(sizeof *w);
    w->done = nobody_waits;
    if (begin(&q, n, w))
        ask_lease(&q, id, true);
    answer = end(&q);
    if (answer != HYDRATION_WAITS)
        mem_free(w);
    return answer == HYDRATION_READY;
}

/* --- what watches read below the log ----------------------------------------------------------- */

#define HUB_PAUSE_NS UINT64_C(1000000000)

struct range_wait {
    struct hydration_wait wait;
    struct node *n;
};

static void
pause_hub(struct node *n)
{
    atomic_store(&n->hub_pause_ns,
                 n->options.env->boot_ns(n->options.env->state) + HUB_PAUSE_NS);
}

static void
range_came(struct hydration_wait *w, t4_status status)
{
    struct range_wait *r = container_of(w, struct range_wait, wait);
    struct node *n = r->n;

    mem_free(r);
    if (status != T4_OK)
        pause_hub(n);
    atomic_store(&n->hub_waits, false);
    if (status == T4_OK)
        watch_hub_wake(n->hub);
}

bool
base_range_ready(void *arg, struct t4_slice lo, struct t4_slice hi)
{
    struct node *n = arg;
    struct range_wait *r;
    enum hydration_answer answer;

    if (is_complete(n))
        return true;
    if (atomic_load(&n->hub_waits) ||
        n->options.env->boot_ns(n->options.env->state) < atomic_load(&n->hub_pause_ns))
        return false;
    atomic_store(&n->hub_waits, true);
    r = mem_zalloc(sizeof *r);
    r->n = n;
    r->wait.done = range_came;
    hydration_wait_begin(&r->wait);
    hydration_ask(n->hydration, &r->wait, lo, hi);
    answer = hydration_wait_end(n->hydration, &r->wait, WAIT_NS);
    if (answer == HYDRATION_WAITS)
        return false;
    mem_free(r);
    if (answer == HYDRATION_REFUSED)
        pause_hub(n);
    atomic_store(&n->hub_waits, false);
    return answer == HYDRATION_READY;
}

struct fetching {
    struct hydration_wait wait;
    struct mutex lock;
    struct condition over;
    bool is_over; /* [lock] */
    t4_status status;
};

static void
fetched(struct hydration_wait *w, t4_status status)
{
    struct fetching *f = container_of(w, struct fetching, wait);

    mutex_lock(&f->lock);
    f->status = status;
    f->is_over = true;
    condition_signal(&f->over);
    mutex_unlock(&f->lock);
}

/* Waits until what the range reads is here: as often as it must, or once. */
static t4_status
fetch(struct node *n, struct t4_slice key, struct t4_slice range_end, int64_t revision,
      bool once)
{
    struct fetching f = {.wait = {.done = fetched}};
    t4_status status = T4_OK;

    mutex_init(&f.lock);
    condition_init(&f.over);
    while (status != T4_E_CORRUPT && status != T4_E_CANCELLED && !is_complete(n)) {
        enum hydration_answer answer;
        struct question q;

        if (once && status != T4_OK)
            break;
        if (begin(&q, n, &f.wait))
            ask_range(&q, key, range_end, revision);
        answer = end(&q);
        status = answer == HYDRATION_REFUSED ? f.wait.status : T4_OK;
        if (answer != HYDRATION_WAITS)
            break;
        mutex_lock(&f.lock);
        while (!f.is_over)
            condition_wait(&f.over, &f.lock);
        f.is_over = false;
        mutex_unlock(&f.lock);
        status = f.status;
    }
    condition_destroy(&f.over);
    mutex_destroy(&f.lock);
    return status;
}

void
base_fetch(void *arg, struct t4_slice key, int64_t revision)
{
    fetch(arg, key, slice_of(NULL, 0), revision, false);
}

t4_status
base_fetch_all(struct node *n)
{
    /* from the first key on: "\0" to "\0" */
    return fetch(n, slice_of("", 1), slice_of("", 1), 0, true);
}

enum etcd_error
node_hydration_error(t4_status status)
{
    return status == T4_E_CORRUPT ? ETCD_DATA_MISSING : ETCD_NOT_HYDRATED;
}

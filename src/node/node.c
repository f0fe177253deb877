/*
 * node.c - assembly of a database, reads at the published state, status.
 *
 * Order of starting: identity and lock -> engine -> recovery -> store thread (with a store) ->
 * watch hub -> sync thread -> engine and keeper threads.  Stopping goes the other way round.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "node/node.h"

#include <stdio.h>

#include "base/log.h"
#include "base/memory.h"
#include "node/node_int.h"

#define MIB (1024u * 1024)

void
node_options_default(struct node_options *o)
{
    *o = (struct node_options){
        .name = "t4",
        .advertise_urls = "http://127.0.0.1:3379",
        .segment_bytes = 16 * MIB,
        .memtable_bytes = 16 * MIB,
        .reserve_bytes = 64 * MIB,
        .backlog_bytes = 256 * (uint64_t)MIB,
        .quota_bytes = NODE_QUOTA_BYTES,
        .max_request_bytes = 1572864,
        .max_txn_ops = 128,
        .workers = 2,
        .watch_progress_ns = 600 * (uint64_t)1000000000,
        .commit_rule = RULE_OBJECT,
        .lease_ms = 6000,
        .upload_age_ns = 10 * (uint64_t)1000000000,
        .upload_window = 2,
        .upload_segment_bytes = 4 * MIB,
        .store_timeout_ns = 20 * (uint64_t)1000000000,
        .checkpoint_interval_ns = 900 * (uint64_t)1000000000,
        .checkpoint_bytes = 64 * (uint64_t)MIB,
        .history_retention_ns = 86400 * (uint64_t)1000000000,
        .wal_keep_bytes = 1024 * (uint64_t)MIB,
        .store_grace_ns = 5 * (uint64_t)1000000000,
    };
}

static void
hub_failed(void *arg, const struct error *error)
{
    node_fatal(arg, error);
}

static void
start_hub(struct node *n)
{
    struct snapshot now = n->publish.now;
    struct watch_hub_options options = {
        .wal = n->wal,
        .mvcc = n->mvcc,
        .header = {n->identity.cluster_id, n->identity.member_id, n->term, 0},
        .progress_interval_ns = n->options.watch_progress_ns,
        .fragment_bytes = n->options.max_request_bytes + 512 * 1024,
        .watchers_per_stream = 100000,
        .stream_backlog_bytes = 1 * MIB,
        .memory_bytes = 64 * MIB,
        .scan_bytes = 4 * MIB,
        .scan_records = 2000,
        .env = n->options.env,
        .metrics = &n->metrics,
        .fetch = base_fetch,
        .range_ready = base_range_ready,
        .fetch_arg = n,
        .failed = hub_failed,
        .failed_arg = n,
    };

    n->hub = watch_hub_new(&options);
    watch_hub_publish(n->hub, now.index, now.revision, now.compacted);
    watch_hub_start(n->hub);
}

static void
release(struct node *n)
{
    if (n->hub != NULL)
        watch_hub_free(n->hub);
    checkpointer_free(n->checkpoints); /* its thread asks base and lead */
    base_free(n);
    leadership_free(n->lead);
    if (n->wal != NULL)
        wal_close(n->wal);
    mvcc_free(n->mvcc);
    if (n->engine != NULL)
        engine_close(n->engine);
    identity_close(n);
    txn_delete(n->txn);
    lease_table_free(n->leases);
    buffer_free(&n->entry);
    commit_free(n);
    alarm_free(n);
    defragment_free(n);
    condition_destroy(&n->engine_work.flushed);
    condition_destroy(&n->engine_work.wake);
    mutex_destroy(&n->engine_work.lock);
    condition_destroy(&n->keeper_work.wake);
    mutex_destroy(&n->keeper_work.lock);
    mutex_destroy(&n->compact.lock);
    mutex_destroy(&n->lead_change.lock);
    mem_free(n->temporary_dir);
    mem_free(n->advertise_urls);
    mem_free(n->name);
    mem_free(n->data_dir);
    mem_free(n);
}

/* The bound of the wall clock, see entry_time_ms(). */
static void
start_clock(struct node *n)
{
    struct env *env = n->options.env;

    n->clock_start_boot_ns = env->boot_ns(env->state);
    n->clock_start_wall_ms = env->wall_ns(env->state) / 1000000;
}

t4_status
node_open(const struct node_options *o, struct node **out, struct error *error)
{
    struct node *n = mem_zalloc(sizeof *n);
    struct env *env = o->env;
    uint64_t seed;
    t4_status status;

    *out = NULL;
    n->options = *o;
    n->data_dir = mem_strdup(o->data_dir);
    n->name = mem_strdup(o->name);
    n->advertise_urls = mem_strdup(o->advertise_urls);
    env->random(env->state, &seed, sizeof seed);
    n->leases = lease_table_new(seed);
    n->txn = txn_new(seed);
    commit_init(n);
    alarm_init(n);
    defragment_init(n);
    mutex_init(&n->compact.lock);
    mutex_init(&n->lead_change.lock);
    mutex_init(&n->engine_work.lock);
    condition_init(&n->engine_work.wake);
    condition_init(&n->engine_work.flushed);
    mutex_init(&n->keeper_work.lock);
    condition_init(&n->keeper_work.wake);

    status = identity_open(n, error);
    if (status == T4_OK)
        state_open(n);
    if (status == T4_OK && o->store != NULL)
        status = lead_identify(n, error);
    else if (status == T4_OK && n->identity.fresh)
        status = identity_write(n, error);
    if (status == T4_OK)
        status = node_open_engine(
            n, o->store != NULL && (o->discard_divergent_tail || n->identity.copied),
            error);
    if (status == T4_OK)
        status = node_recover(n, error);
    if (status == T4_OK) {
        start_clock(n);
        atomic_store(&n->leading, n->lead == NULL);
        metric_set(&n->metrics, METRIC_LEADER_CHANGES, n->lead == NULL);
    }
    if (status == T4_OK && n->lead != NULL)
        status = lead_start(n, error);
    if (status == T4_OK)
        status = identity_upgrade(n, error);
    if (status != T4_OK) {
        lead_stop(n);
        release(n);
        return status;
    }
    n->workers = workers_new("t4-worker", o->workers);
    n->role_worker = workers_new("t4-role", 1);
    n->state_worker = workers_new("t4-state", 1);
    mutex_lock(&n->role); /* a late joining of log and store waits here */
    evaluate_leases_changed(n);
    alarm_measure(n);
    start_hub(n);
    commit_start(n);
    background_start(n);
    base_start(n);
    mutex_unlock(&n->role);
    *out = n;
    return T4_OK;
}

void
node_stop(struct node *n)
{
    atomic_store(&n->stopping, true);
    mutex_lock(&n->queue.lock);
    n->queue.closed = true;
    mutex_unlock(&n->queue.lock);
    background_stop(n);
    commit_stop(n);
    lead_stop(n);
    base_stop(n);
    commit_refuse(n);
    defragment_refuse(n);
    background_refuse_compactions(n); /* the sync thread may just have released some */
    if (!atomic_exchange(&n->hub_stopped, true))
        watch_hub_stop(n->hub, ETCD_STOPPED);
    workers_free(n->role_worker);
    workers_free(n->state_worker);
    workers_free(n->workers);
    n->workers = n->role_worker = n->state_worker = NULL;
}

void
node_close(struct node *n)
{
    release(n);
}

/* --- who leads ------------------------------------------------------------------------------ */

void
node_set_leading(struct node *n, bool leading)
{
    mutex_lock(&n->lead_change.lock);
    atomic_store(&n->leading, leading);
    metric_add(&n->metrics, METRIC_LEADER_CHANGES, 1);
    if (n->lead_change.fn != NULL)
        n->lead_change.fn(n->lead_change.arg);
    mutex_unlock(&n->lead_change.lock);
}

void
node_on_lead_change(struct node *n, void (*fn)(void *arg), void *arg)
{
    mutex_lock(&n->lead_change.lock);
    n->lead_change.fn = fn;
    n->lead_change.arg = arg;
    mutex_unlock(&n->lead_change.lock);
}

bool
node_leads(const struct node *n)
{
    return atomic_load(&n->leading);
}

/* --- reads at the published state ----------------------------------------------------------- */

static struct response_header
header_at(const struct node *n, int64_t revision)
{
    return (struct response_header){n->identity.cluster_id, n->identity.member_id,
                                    n->term, revision};
}

/*
 * The revision is taken before the data: who lists and then watches from the header's
 * revision + 1 misses nothing.  Should a compaction above that revision be published in
 * between, the read begins again.
 */
static t4_status
begin_read(struct node *n, struct snapshot *now, struct response_header *header,
           struct mvcc_reader *reader)
{
    for (;;) {
        t4_status status;

        *now = commit_published(n);
        *header = header_at(n, now->revision);
        status = mvcc_read_begin(n->mvcc, reader);
        if (status != T4_OK || mvcc_compacted(n->mvcc) <= now->revision)
            return status;
        mvcc_read_end(reader);
    }
}

enum etcd_error
node_range(struct node *n, const struct range_request *r, uint32_t max_keys,
           bool *too_long, struct chain *out)
{
    struct snapshot now;
    struct response_header header;
    struct mvcc_reader reader;
    enum etcd_error error;

    do {
        t4_status status = begin_read(n, &now, &header, &reader);

        if (status != T4_OK)
            return etcd_read_error(status);
        error = range_read(&reader, r, now.revision, &header, max_keys, too_long, out);
        mvcc_read_end(&reader);
        /* the newest revision is never compacted: a compaction overtook this read */
    } while (error == ETCD_COMPACTED && r->revision <= 0);
    if (too_long != NULL && *too_long)
        return error; /* counted when it is repeated */
    metric_add(&n->metrics, METRIC_REQUESTS_RANGE, 1);
    if (error != ETCD_OK)
        metric_add(&n->metrics, METRIC_REQUESTS_FAILED, 1);
    return error;
}

/* False: a compaction overtook a read of the newest revision, which is never compacted. */
static bool
chunk_stands(const struct range_request *r, const struct range_progress *p,
             enum etcd_error e)
{
    return e != ETCD_COMPACTED || r->revision > 0 || p->count > 0;
}

enum etcd_error
node_range_chunk(struct node *n, const struct range_request *r, size_t max_bytes,
                 uint32_t max_keys, struct range_progress *p,
                 struct response_header *header, struct chain *out)
{
    struct response_header now_header;
    struct mvcc_reader reader;
    struct snapshot now;
    enum etcd_error e;

    do {
        bool first = p->count == 0;
        t4_status status = begin_read(n, &now, &now_header, &reader);

        if (status != T4_OK)
            return etcd_read_error(status);
        if (first) {
            *header = now_header;
            p->revision = r->revision > 0 ? r->revision : now.revision;
            metric_add(&n->metrics, METRIC_REQUESTS_RANGE, 1);
        }
        e = p->revision > now.revision
                ? ETCD_FUTURE_REVISION
                : range_read_chunk(&reader, r, max_bytes, max_keys, p, out);
        mvcc_read_end(&reader);
    } while (!chunk_stands(r, p, e));
    if (e != ETCD_OK)
        metric_add(&n->metrics, METRIC_REQUESTS_FAILED, 1);
    return e;
}

static bool
no_lease(void *arg, int64_t id)
{
    (void)arg;
    (void)id;
    return false; /* a read-only transaction never asks */
}

enum etcd_error
node_txn_read_only(struct node *n, const struct txn_request *r, struct chain *out)
{
    struct txn_leases leases = {no_lease, NULL};
    struct response_header header;
    struct mvcc_reader reader;
    struct snapshot now;
    struct txn *txn;
    enum etcd_error error;
    t4_status status;

    metric_add(&n->metrics, METRIC_REQUESTS_TXN, 1);
    if (atomic_load_explicit(&n->alarm_corrupt, memory_order_relaxed) &&
        txn_is_nested(r)) { /* etcd does not look into it and takes it for a write */
        metric_add(&n->metrics, METRIC_REQUESTS_FAILED, 1);
        return ETCD_CORRUPT;
    }
    status = begin_read(n, &now, &header, &reader);
    if (status != T4_OK)
        return etcd_read_error(status);
    txn = txn_new(now.index);
    txn_begin(txn, &reader, &leases, now.revision, mvcc_compacted(n->mvcc), &header);
    error = txn_txn(txn, r, out);
    txn_delete(txn);
    mvcc_read_end(&reader);
    if (error != ETCD_OK) {
        chain_free(out);
        metric_add(&n->metrics, METRIC_REQUESTS_FAILED, 1);
    }
    return error;
}

/* --- views for the transports -------------------------------------------------------------------- */

struct env *
node_env(struct node *n)
{
    return n->options.env;
}

struct workers *
node_workers(struct node *n)
{
    return n->workers;
}

struct watch_hub *
node_watch_hub(struct node *n)
{
    return n->hub;
}

struct metrics *
node_metrics(struct node *n)
{
    return &n->metrics;
}

void
node_header(struct node *n, struct response_header *out)
{
    *out = header_at(n, commit_published(n).revision);
}

/* An engine in memory has no file: then it is what it holds. */
static uint64_t
db_bytes(const struct t4_engine_stats *stats)
{
    return stats->file_bytes > 0 ? stats->file_bytes : stats->in_use_bytes;
}

void
node_status(struct node *n, struct node_status *out)
{
    struct snapshot now = commit_published(n);
    struct t4_engine_stats stats = {.size = sizeof stats};

    if (engine_stats(n->engine, &stats) != T4_OK)
        stats = (struct t4_engine_stats){0};
    *out = (struct node_status){
        .cluster_id = n->identity.cluster_id,
        .member_id = n->identity.member_id,
        .term = n->term,
        .index = now.index,
        .applied_index = now.index,
        .revision = now.revision,
        .compacted_revision = now.compacted,
        .db_bytes = db_bytes(&stats),
        .db_in_use_bytes = stats.in_use_bytes,
        .db_records = stats.records,
        .nospace = atomic_load(&n->alarm_nospace) || atomic_load(&n->disk_full),
        .disk_full = atomic_load(&n->disk_full),
        .corrupt = atomic_load(&n->alarm_corrupt),
        .quota_bytes = n->options.quota_bytes,
        .quota_used_bytes = alarm_quota_used(n),
        .stopping = atomic_load(&n->stopping),
        .name = n->name,
        .advertise_urls = n->advertise_urls,
        .engine_name = engine_name(n->engine),
        .has_store = n->lead != NULL,
        .store_is_built_in = n->options.store_is_built_in,
    };
    out->n_alarms = alarm_look(n, now.index, out->alarm);
    if (n->lead != NULL)
        leadership_look(n->lead, &out->leadership);
    out->began_from_checkpoint = n->hydration != NULL;
    if (n->hydration != NULL)
        hydration_look(n->hydration, &out->hydration);
    if (atomic_load(&n->checkpoints) != NULL)
        checkpointer_look(n->checkpoints, &out->checkpoint);
}

bool
node_has_store(const struct node *n)
{
    return n != NULL && n->lead != NULL && !n->options.store_is_built_in;
}

bool
node_is_proven(struct node *n)
{
    return n->lead == NULL || leadership_is_proven(n->lead);
}

bool
node_when_proven(struct node *n, struct leadership_wait *w)
{
    return n->lead != NULL && leadership_when_proven(n->lead, w);
}

/* Returns how many entries wait to be acknowledged until the store has them. */
static int64_t
refresh_store_metrics(struct node *n)
{
    struct leadership_view v;
    struct metrics *m = &n->metrics;

    leadership_look(n->lead, &v);
    metric_set(m, METRIC_STORE_LEADING, v.state == LEADERSHIP_LEADING);
    metric_set(
        m, METRIC_STORE_LAG,
        v.synced_index > v.object_index ? (int64_t)(v.synced_index - v.object_index) : 0);
    metric_set(m, METRIC_STORE_LAG_BYTES, (int64_t)v.waiting_bytes);
    metric_set(m, METRIC_STORE_LAG_MS, (int64_t)(v.waiting_ns / 1000000));
    return n->options.commit_rule == RULE_OBJECT ? metric_get(m, METRIC_STORE_LAG) : 0;
}

void
node_refresh_metrics(struct node *n)
{
    struct snapshot now = commit_published(n);
    struct metrics *m = &n->metrics;
    struct t4_engine_stats stats = {.size = sizeof stats};
    int64_t waiting = 0;
    uint32_t queued;

    mutex_lock(&n->queue.lock);
    queued = n->queue.n;
    mutex_unlock(&n->queue.lock);
    metric_set(m, METRIC_REVISION, now.revision);
    metric_set(m, METRIC_COMPACTED_REVISION, now.compacted > 0 ? now.compacted : 0);
    metric_set(m, METRIC_INDEX, (int64_t)now.index);
    metric_set(m, METRIC_FLUSHED_INDEX, (int64_t)mvcc_flushed_index(n->mvcc));
    if (n->lead != NULL)
        waiting = refresh_store_metrics(n);
    if (engine_stats(n->engine, &stats) == T4_OK) {
        metric_set(m, METRIC_DB_BYTES, (int64_t)db_bytes(&stats));
        metric_set(m, METRIC_DB_IN_USE, (int64_t)stats.in_use_bytes);
    }
    metric_set(m, METRIC_HAS_LEADER, atomic_load(&n->leading));
    metric_set(m, METRIC_QUOTA, n->options.quota_bytes);
    metric_set(m, METRIC_PENDING, queued + waiting);
    metric_set(m, METRIC_TERM, (int64_t)n->term);
    metric_set(m, METRIC_WAL_SEGMENTS, (int64_t)wal_segments(n->wal));
    metric_set(m, METRIC_COMMIT_QUEUE, queued);
    metric_set(m, METRIC_MEMTABLES_FROZEN, mvcc_frozen_count(n->mvcc));
    metric_set(m, METRIC_MEMTABLE_BYTES, (int64_t)mvcc_held_bytes(n->mvcc));
}

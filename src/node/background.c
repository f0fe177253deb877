/*
 * background.c - the engine thread and the keeper thread.
 *
 * The engine thread does flush and compaction, one slice after the other, paced so that the
 * log's fdatasync does not suffer; when frozen memtables pile up it stops pausing.  The keeper
 * creates log segments ahead of need, retries when the disk was full, and starts the expiry of
 * leases, the logging of remainders and automatic compactions as requests through the same
 * queue as everything else.  Only the role may freeze a memtable, so that a physical
 * compaction which finds its revision still in the active one asks for that in the same way.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "base/log.h"
#include "base/memory.h"
#include "node/node_int.h"

#include <inttypes.h>
#include <stdio.h>

#define SECOND 1000000000u
#define REMAINDERS_NS (60u * (uint64_t)SECOND)
#define FROZEN_HURRY 2u /* frozen memtables from which on flushes do not pause */

#define EXPIRE_PENDING 1u
#define REMAINDERS_PENDING 2u
#define FREEZE_PENDING 4u
#define COMPACT_PENDING 8u

/* Submits an internal request unless the one before is still on its way. */
static void
submit_internal(struct node *n, struct node_request *r, int op, uint32_t bit,
                void (*done)(struct node_request *))
{
    if (atomic_fetch_or(&n->internal_pending, bit) & bit)
        return;
    r->op = (enum node_op)op;
    r->done = done;
    r->bytes = 0;
    node_submit(n, r);
}

/* --- the alarm of a full disk ---------------------------------------------------------------------- */

void
background_space(struct node *n)
{
    bool full = atomic_load(&n->wal_full) || atomic_load(&n->engine_full);

    if (atomic_exchange(&n->disk_full, full) == full)
        return;
    alarm_show(n);
    if (full)
        LOG_ERROR(
            "no space left on the device: alarm NOSPACE raised, puts and grants are "
            "refused; reads, watches, deletes and compaction go on. Free space: the "
            "alarm clears by itself",
            "data_dir", n->data_dir, NULL);
    else
        LOG_INFO("there is space again: alarm NOSPACE cleared", NULL);
}

/* --- the engine thread ------------------------------------------------------------------------ */

void
background_poke_engine(struct node *n)
{
    mutex_lock(&n->engine_work.lock);
    n->engine_work.poked = true;
    if (n->engine_work.idle) /* a pause between slices is not cut short */
        condition_signal(&n->engine_work.wake);
    mutex_unlock(&n->engine_work.lock);
}

void
background_wait_flush(struct node *n)
{
    background_poke_engine(n);
    mutex_lock(&n->engine_work.lock);
    if (!n->engine_work.stop)
        condition_wait_for(&n->engine_work.flushed, &n->engine_work.lock, SECOND / 100);
    mutex_unlock(&n->engine_work.lock);
}

void
background_wait_compaction(struct node *n, struct node_request *r)
{
    mutex_lock(&n->compact.lock);
    r->next = n->compact.waiting;
    n->compact.waiting = r;
    mutex_unlock(&n->compact.lock);
    background_poke_engine(n);
}

/*
 * Answers the physical compactions that are done; `all`: the others, too, that nobody will do
 * any more.  Returns how many still wait.
 */
static unsigned
answer_compactions(struct node *n, bool all)
{
    struct node_request *done = NULL, *r, **link;
    int64_t physically = mvcc_compacted_physically(n->mvcc);
    unsigned waiting = 0;

    mutex_lock(&n->compact.lock);
    for (link = &n->compact.waiting; (r = *link) != NULL;) {
        if (r->compact.revision > physically) {
            if (!all) {
                link = &r->next;
                waiting++;
                continue;
            }
            chain_free(&r->response);
            r->error = ETCD_UNKNOWN_OUTCOME; /* logged, but not done as was asked */
        }
        *link = r->next;
        r->next = done;
        done = r;
    }
    mutex_unlock(&n->compact.lock);
    while (done != NULL) {
        r = done->next;
        done->done(done);
        done = r;
    }
    return waiting;
}

static void
freeze_done(struct node_request *r)
{
    struct node *n = container_of(r, struct node, freeze_request);

    chain_free(&r->response);
    atomic_fetch_and(&n->internal_pending, ~FREEZE_PENDING);
    background_poke_engine(n);
}

/* Sleeps until poked, or for ns (0: without limit).  False: stop. */
static bool
engine_sleep(struct node *n, uint64_t ns)
{
    bool stop;

    mutex_lock(&n->engine_work.lock);
    if (ns > 0) {
        if (!n->engine_work.stop)
            condition_wait_for(&n->engine_work.wake, &n->engine_work.lock, ns);
    } else {
        n->engine_work.idle = true;
        while (!n->engine_work.poked && !n->engine_work.stop)
            condition_wait(&n->engine_work.wake, &n->engine_work.lock);
        n->engine_work.idle = false;
        n->engine_work.poked = false;
    }
    stop = n->engine_work.stop;
    mutex_unlock(&n->engine_work.lock);
    return !stop;
}

static void *
engine_main(void *arg)
{
    struct node *n = arg;
    struct error error;
    unsigned waiting;
    t4_status before = T4_OK;
    bool go_on = true, defragmented, starved;

    while (go_on) {
        uint64_t pause = 0;
        t4_status status = mvcc_work(n->mvcc, &pause, &error);

        starved = before == T4_E_NOMEM;
        before = status;
        waiting = answer_compactions(n, false);
        defragmented =
            defragment_step(n, status == T4_OK || status == T4_E_NOTFOUND, &waiting);
        switch (status) {
        case T4_OK:
            if (!mvcc_flush_is_stuck(n->mvcc) && atomic_exchange(&n->engine_full, false))
                background_space(n);
            alarm_measure(n);
            commit_resume(n);
            condition_signal(&n->engine_work.flushed);
            if (pause > 0 && mvcc_frozen_count(n->mvcc) < FROZEN_HURRY)
                go_on = engine_sleep(n, pause);
            break;
        case T4_E_NOTFOUND:
            if (defragmented)
                break;
            /* Nothing frozen, yet somebody waits for that: the freezing found no room then. */
            if (waiting > 0 && mvcc_frozen_count(n->mvcc) == 0)
                submit_internal(n, &n->freeze_request, NODE_INTERNAL_FREEZE,
                                FREEZE_PENDING, freeze_done);
            go_on = engine_sleep(n, 0);
            break;
        case T4_E_NOSPACE:
            if (!atomic_exchange(&n->engine_full, true))
                wal_give_up_reserve(n->wal);
            background_space(n);
            commit_resume(n);
            if (!defragmented)
                go_on = engine_sleep(n, SECOND);
            break;
        case T4_E_NOMEM: /* nothing was changed; what piles up meanwhile is bounded */
            if (!starved)
                LOG_ERROR("the storage engine has no memory to write; it is tried again",
                          "reason", error.message, "hint", error.hint, NULL);
            go_on = engine_sleep(n, SECOND / 10);
            break;
        default:
            error_wrap(&error, "the storage engine failed");
            node_fatal(n, &error);
            go_on = false;
            break;
        }
        if (go_on) {
            mutex_lock(&n->engine_work.lock);
            go_on = !n->engine_work.stop;
            mutex_unlock(&n->engine_work.lock);
        }
    }
    return NULL;
}

/* --- the keeper thread -------------------------------------------------------------------------- */

static void
expire_done(struct node_request *r)
{
    struct node *n = container_of(r, struct node, expire_request);

    chain_free(&r->response);
    atomic_store(&n->expire_failed, r->error != ETCD_OK);
    atomic_fetch_and(&n->internal_pending, ~EXPIRE_PENDING);
}

static void
remainders_done(struct node_request *r)
{
    struct node *n = container_of(r, struct node, remainders_request);

    chain_free(&r->response);
    atomic_fetch_and(&n->internal_pending, ~REMAINDERS_PENDING);
}

/*
 * The oldest segments of the log go when neither recovery nor, within the bound, a watch needs
 * them.  The engine in memory begins with the log's first entry each time.
 */
static void
drop_segments(struct node *n)
{
    uint64_t index = atomic_load(&n->covered), flushed = mvcc_flushed_index(n->mvcc);
    struct error error;

    if (n->options.engine_ops == NULL || index == 0)
        return;
    if (wal_drop_below(n->wal, index < flushed ? index : flushed,
                       n->options.wal_keep_bytes, &error) != T4_OK)
        LOG_WARN("an old segment of the log cannot be deleted", "reason", error.message,
                 NULL);
}

static void
compact_done(struct node_request *r)
{
    struct node *n = container_of(r, struct node, compact_request);

    chain_free(&r->response);
    if (r->error == ETCD_OK || r->error == ETCD_COMPACTED)
        atomic_store(&n->compacted_to, r->compact.revision);
    else
        LOG_WARN("an automatic compaction failed; it is tried again", "reason",
                 etcd_error_text(r->error), NULL);
    atomic_fetch_and(&n->internal_pending, ~COMPACT_PENDING);
}

/* History that is old enough goes, if this server leads. */
static void
compact_by_itself(struct node *n, uint64_t now)
{
    int64_t done = atomic_exchange(&n->compacted_to, 0), to;
    char text[24];

    if (n->compactor.mode == COMPACTOR_OFF)
        return;
    if (done > 0)
        compactor_done(&n->compactor, now, done);
    if (atomic_load(&n->internal_pending) & COMPACT_PENDING)
        return;
    to = compactor_tick(&n->compactor, now, commit_published(n).revision,
                        atomic_load(&n->leading));
    if (to == 0)
        return;
    snprintf(text, sizeof text, "%" PRId64, to);
    LOG_INFO("compacting automatically", "revision", text, "mode",
             n->compactor.mode == COMPACTOR_PERIODIC ? "periodic" : "revision", NULL);
    n->compact_request.compact.revision = to;
    n->compact_request.compact.physical = false;
    submit_internal(n, &n->compact_request, NODE_COMPACT, COMPACT_PENDING, compact_done);
}

/* What is due now; returns how long to sleep afterwards. */
static uint64_t
keep(struct node *n)
{
    uint64_t now = n->options.env->boot_ns(n->options.env->state);
    uint64_t expiry = atomic_load_explicit(&n->next_expiry_ns, memory_order_relaxed);
    struct error error;

    if (n->lead != NULL)
        leadership_tick(n->lead);
    if (n->hydration != NULL)
        hydration_tick(n->hydration);
    if (n->hydration != NULL && !hydration_is_complete(n->hydration)) {
        uint64_t last = wal_last_index(n->wal);

        mvcc_install_gently(n->mvcc, last != n->last_index_seen);
        n->last_index_seen = last;
        if (n->hub != NULL) /* it may have to ask again */
            watch_hub_wake(n->hub);
    }
    compact_by_itself(n, now);
    if (!atomic_load(&n->leading))
        return SECOND / 4; /* the log may not be started, and no lease expires here */

    if (wal_wants_segment(n->wal)) {
        t4_status status = wal_prepare(n->wal, &error);

        if (status != T4_OK && status != T4_E_NOSPACE) {
            error_wrap(&error, "cannot prepare a segment of the log");
            node_fatal(n, &error);
        }
    }
    drop_segments(n);
    /* Each time: whoever else sets a cause may have raced with somebody that cleared one. */
    atomic_store(&n->wal_full, wal_nospace(n->wal));
    background_space(n);
    if (expiry != 0 && expiry <= now && !node_is_proven(n))
        expiry = now + SECOND / 8; /* asked for: look again soon */
    if (expiry != 0 && expiry <= now)
        submit_internal(n, &n->expire_request, NODE_INTERNAL_EXPIRE, EXPIRE_PENDING,
                        expire_done);
    if (now - n->last_remainders_ns >= REMAINDERS_NS && expiry != 0) {
        n->last_remainders_ns = now;
        submit_internal(n, &n->remainders_request, NODE_INTERNAL_REMAINDERS,
                        REMAINDERS_PENDING, remainders_done);
    }
    if (expiry != 0 && expiry <= now && !atomic_load(&n->expire_failed))
        return 2000000; /* more may be due: come back when these are decided */
    if (expiry > now && expiry - now < SECOND / 4)
        return expiry - now + 1000000;
    return SECOND / 4;
}

static void *
keeper_main(void *arg)
{
    struct node *n = arg;
    bool stop = false;

    while (!stop) {
        uint64_t ns = keep(n);

        mutex_lock(&n->keeper_work.lock);
        if (!n->keeper_work.stop)
            condition_wait_for(&n->keeper_work.wake, &n->keeper_work.lock, ns);
        stop = n->keeper_work.stop;
        mutex_unlock(&n->keeper_work.lock);
    }
    return NULL;
}

/* --- life ------------------------------------------------------------------------------------------ */

void
background_start(struct node *n)
{
    n->last_remainders_ns = n->options.env->boot_ns(n->options.env->state);
    compactor_init(&n->compactor, n->options.auto_compaction,
                   n->options.auto_compaction_retention, n->last_remainders_ns,
                   commit_published(n).revision);
    atomic_store(&n->threads_run, true);
    thread_start(&n->engine_thread, "t4-engine", engine_main, n);
    thread_start(&n->keeper_thread, "t4-keeper", keeper_main, n);
}

void
background_stop(struct node *n)
{
    mutex_lock(&n->keeper_work.lock);
    n->keeper_work.stop = true;
    condition_signal(&n->keeper_work.wake);
    mutex_unlock(&n->keeper_work.lock);
    thread_join(&n->keeper_thread);
    compactor_free(&n->compactor);

    mutex_lock(&n->engine_work.lock);
    n->engine_work.stop = true;
    condition_signal(&n->engine_work.wake);
    mutex_unlock(&n->engine_work.lock);
    thread_join(&n->engine_thread);
}

void
background_refuse_compactions(struct node *n)
{
    answer_compactions(n, true);
}

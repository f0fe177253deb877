/*
 * commit.c - the commit pipeline: queue, commit role, sync thread, publication, answers.
 *
 *   node_submit -> queue -> [role] evaluate -> log buffer, memtable
 *                                  |
 *   sync thread: take the buffer -> write -> fdatasync -> publish -> answer
 *
 * With the commit rule OBJECT (lead.c) the sync thread only tells the store thread, and that
 * one publishes what it has uploaded.
 *
 * The commit role is exclusive but no thread's property: who enqueues tries the role's lock
 * and, holding it, drains the queue; who does not get it returns at once, because the holder
 * looks at the queue again after unlocking.  So a polling thread never waits for it, and no
 * thread is woken per request (measured: 0.02 wake-ups per put against 0.4-0.7 with a commit
 * thread of its own).  The next group is evaluated while this one is on its way to the disk;
 * there are no timers: the first write goes at once, a group is what gathered meanwhile.
 *
 * Invariants
 *  (1) an answer is sent only after the published index has reached the request's
 *      release_index, the newest entry evaluated before it (I1)
 *  (2) publish -> take the answers off the list -> unlock -> send: an answer never precedes
 *      the publication of its entry
 *  (3) the order of evaluation is the order of entries and of answers
 *  (4) a request is on the answer list before its entry can reach the sync thread
 *  (5) no evaluation while FROZEN_STALL memtables wait for their flush: requests wait in the
 *      queue (whose bytes are bounded), and the engine thread sets them going again
 *  (6) the time of a lease counts from the publication of its grant or keepalive: until then
 *      it cannot expire (evaluate.c), and a late publication is noted for the role
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "base/log.h"
#include "base/memory.h"
#include "node/node_int.h"

#define TURN_REQUESTS 256
#define TURN_NS 1000000u
#define FROZEN_STALL 4u        /* frozen memtables from which on nothing is evaluated */
#define REQUEST_BYTES 512u     /* what a waiting request takes beyond its encoded size */
#define LEASE_LAG_NS 10000000u /* a publication later than this moves a lease's expiry */
#define QUIET_NS 1000000000u   /* after this the log's end is marked (I3) */

/* --- publication ---------------------------------------------------------------------------- */

struct snapshot
commit_published(struct node *n)
{
    struct snapshot s;

    mutex_lock(&n->publish.lock);
    s = n->publish.now;
    mutex_unlock(&n->publish.lock);
    return s;
}

/* A physical compaction is answered when it is done physically, and so on. */
static void
finish(struct node *n, struct node_request *r)
{
    if (r->op == NODE_COMPACT && r->compact.physical && r->error == ETCD_OK)
        background_wait_compaction(n, r);
    else if (r->op == NODE_DEFRAGMENT && r->error == ETCD_OK)
        defragment_wait(n, r);
    else
        r->done(r);
}

/* [publish.lock] Committed; does the request ask for the store, too?  Then it goes on there. */
static bool
waits_for_store(struct node *n, struct node_request *r)
{
    if (!r->object_durable || atomic_load(&n->object_index) >= r->release_index)
        return false;
    r->next = NULL;
    *n->publish.durable_tail = r;
    n->publish.durable_tail = &r->next;
    return true;
}

void
commit_answer(struct node *n, struct node_request *r, enum etcd_error error)
{
    uint64_t index = n->index;
    bool now, hurry = false;

    r->error = error;
    r->release_index = index;
    r->next = NULL;
    mutex_lock(&n->publish.lock);
    now = n->publish.now.index >= r->release_index && n->publish.head == NULL;
    if (n->publish.deposed) {
        if (error == ETCD_OK)
            r->error = ETCD_UNKNOWN_OUTCOME;
        now = true;
    } else if (!now) {
        *n->publish.tail = r;
        n->publish.tail = &r->next;
    } else if (waits_for_store(n, r)) {
        now = false;
        hurry = true;
    }
    mutex_unlock(&n->publish.lock);
    if (now)
        finish(n, r);
    if (hurry)
        leadership_hurry(n->lead, index);
}

/* The answer that grants or renews a lease leaves now: its time begins.  [publish.lock] */
static void
note_lease(struct node *n, const struct node_request *r, uint64_t now_ns)
{
    int64_t id;

    if (r->error != ETCD_OK ||
        (r->op != NODE_LEASE_GRANT && r->op != NODE_LEASE_KEEPALIVE) ||
        now_ns - r->evaluated_ns < LEASE_LAG_NS)
        return;
    id = r->op == NODE_LEASE_GRANT ? r->lease_grant.id : r->lease.id;
    if (n->publish.n_late == n->publish.late_capacity) {
        n->publish.late_capacity = n->publish.late_capacity * 2 + 16;
        n->publish.late = mem_realloc(n->publish.late,
                                      n->publish.late_capacity * sizeof *n->publish.late);
    }
    n->publish.late[n->publish.n_late++] = (struct late_lease){id, now_ns};
}

struct late_lease *
commit_late_leases(struct node *n, uint64_t *published, size_t *count)
{
    struct late_lease *late;

    mutex_lock(&n->publish.lock);
    *published = n->publish.now.index;
    late = n->publish.late;
    *count = n->publish.n_late;
    n->publish.late = NULL;
    n->publish.n_late = n->publish.late_capacity = 0;
    mutex_unlock(&n->publish.lock);
    return late;
}

/* Takes the answers up to `index` off the list that begins at *head.  [publish.lock] */
static struct node_request *
take_released(struct node_request **head, struct node_request ***tail, uint64_t index)
{
    struct node_request *released = *head, **end = head;

    while (*end != NULL && (*end)->release_index <= index)
        end = &(*end)->next;
    if (end == head)
        return NULL;
    *head = *end;
    *end = NULL;
    if (*head == NULL)
        *tail = head;
    return released;
}

/* The released answers that need not wait for the store, too.  [publish.lock] */
static struct node_request *
leave_durable(struct node *n, struct node_request *released, bool *hurry)
{
    struct node_request *go = NULL, **end = &go;

    while (released != NULL) {
        struct node_request *r = released;

        released = r->next;
        if (waits_for_store(n, r)) {
            *hurry = true;
            continue;
        }
        *end = r;
        end = &r->next;
    }
    *end = NULL;
    return go;
}

static void
finish_all(struct node *n, struct node_request *released)
{
    while (released != NULL) {
        struct node_request *next = released->next;

        finish(n, released);
        released = next;
    }
}

void
commit_publish(struct node *n, uint64_t index, int64_t revision, int64_t compacted)
{
    uint64_t now_ns = n->options.env->boot_ns(n->options.env->state);
    struct node_request *released = NULL;
    bool moved, hurry = false;

    mutex_lock(&n->publish.lock);
    if (n->publish.deposed || index <= n->publish.now.index) {
        mutex_unlock(&n->publish.lock);
        return;
    }
    if (compacted < n->publish.now.compacted)
        compacted = n->publish.now.compacted;
    moved = compacted > n->publish.now.compacted;
    n->publish.now = (struct snapshot){index, revision, compacted};
    mvcc_publish(n->mvcc, index, compacted);
    released = take_released(&n->publish.head, &n->publish.tail, index);
    for (struct node_request *r = released; r != NULL; r = r->next)
        note_lease(n, r, now_ns);
    if (n->lead != NULL)
        released = leave_durable(n, released, &hurry);
    mutex_unlock(&n->publish.lock);
    if (n->hub != NULL)
        watch_hub_publish(n->hub, index, revision, compacted);
    if (moved)
        mvcc_compact(n->mvcc, compacted);
    finish_all(n, released);
    if (hurry)
        leadership_hurry(n->lead, index);
    if (moved || mvcc_frozen_count(n->mvcc) > 0)
        background_poke_engine(n);
}

void
commit_uploaded(struct node *n, uint64_t index)
{
    struct node_request *released;

    mutex_lock(&n->publish.lock);
    atomic_store(&n->object_index, index);
    released = take_released(&n->publish.durable, &n->publish.durable_tail, index);
    mutex_unlock(&n->publish.lock);
    finish_all(n, released);
}

/* --- the log buffer ------------------------------------------------------------------------- */

void
commit_append(struct node *n)
{
    struct commit_group *g;
    size_t bytes = wal_frame_size(n->entry.len);

    atomic_fetch_add(&n->unsynced_bytes, bytes);
    mutex_lock(&n->log.lock);
    g = n->log.filling;
    wal_group_add(&g->wal, n->index, n->revision, buffer_slice(&n->entry));
    g->revision = n->revision;
    g->compacted = n->compacted;
    g->bytes += bytes;
    mutex_unlock(&n->log.lock);
}

/* Wakes the sync thread if it sleeps and there is something to write. */
static void
kick_sync(struct node *n)
{
    mutex_lock(&n->log.lock);
    if (n->log.sleeping && n->log.filling->wal.entries > 0 && !n->log.hold) {
        n->log.sleeping = false;
        metric_add(&n->metrics, METRIC_COMMIT_WAKEUPS, 1);
        condition_signal(&n->log.filled);
    }
    mutex_unlock(&n->log.lock);
}

/* --- the role -------------------------------------------------------------------------------- */

static uint64_t
cost_of(const struct node_request *r)
{
    return r->bytes + REQUEST_BYTES;
}

/*
 * True while the flush must catch up first.  Not when the engine is full: then it may take
 * for ever, and evaluation has to refuse puts and to let deletes through.
 */
static bool
must_wait(struct node *n)
{
    return (mvcc_frozen_count(n->mvcc) >= FROZEN_STALL ||
            mvcc_frozen_bytes(n->mvcc) > n->options.backlog_bytes / 2) &&
           !atomic_load(&n->engine_full);
}

static struct node_request *
queue_take(struct node *n, bool worker, bool *heavy)
{
    struct node_request *r;

    mutex_lock(&n->queue.lock);
    r = n->queue.head;
    *heavy = r != NULL && !worker && evaluate_is_heavy(r);
    if (*heavy)
        r = NULL;
    if (r != NULL) {
        n->queue.head = r->next;
        if (n->queue.head == NULL)
            n->queue.tail = &n->queue.head;
        n->queue.n--;
        n->queue.bytes -= cost_of(r);
    }
    mutex_unlock(&n->queue.lock);
    return r;
}

static bool
queue_is_empty(struct node *n)
{
    bool empty;

    mutex_lock(&n->queue.lock);
    empty = n->queue.head == NULL;
    mutex_unlock(&n->queue.lock);
    return empty;
}

/*
 * Hands the queue over to a worker.  Under the queue's lock, where commit_stop() empties the
 * queue: with a request in it the workers are still there.
 */
static void
wake_worker(struct node *n)
{
    mutex_lock(&n->queue.lock);
    if (n->queue.head != NULL && !atomic_exchange(&n->drain_queued, true)) {
        metric_add(&n->metrics, METRIC_COMMIT_WAKEUPS, 1);
        workers_submit(n->role_worker, &n->drain);
    }
    mutex_unlock(&n->queue.lock);
}

void
commit_resume(struct node *n)
{
    if (!must_wait(n) && atomic_exchange(&n->stalled, false))
        wake_worker(n);
}

static void
drain_job(struct job *job)
{
    struct node *n = container_of(job, struct node, drain);

    atomic_store(&n->drain_queued, false);
    commit_drain(n, true);
}

/*
 * One turn of the role's holder.  True: what is left is a worker's.  A worker's turn ends in
 * time, too, so that what it has evaluated goes to the disk.
 */
static bool
turn(struct node *n, bool worker)
{
    struct env *env = n->options.env;
    uint64_t until = 0;
    bool heavy;

    for (uint32_t i = 0; i < TURN_REQUESTS; i++) {
        struct node_request *r;

        if (must_wait(n))
            return false;
        r = queue_take(n, worker, &heavy);
        if (r == NULL)
            return heavy;
        evaluate(n, r);
        if (i == 0)
            until = env->boot_ns(env->state) + TURN_NS;
        else if (env->boot_ns(env->state) > until)
            return true;
    }
    return true;
}

void
commit_drain(struct node *n, bool worker)
{
    bool handed_over;

    while (mutex_try_lock(&n->role)) {
        handed_over = turn(n, worker);
        mutex_unlock(&n->role);
        kick_sync(n);
        /* Somebody may have enqueued and failed to get the role meanwhile: look again. */
        if (queue_is_empty(n))
            return;
        if (must_wait(n)) { /* whoever ends the reason looks at the mark afterwards */
            atomic_store(&n->stalled, true);
            if (must_wait(n))
                return;
        }
        if (handed_over && !worker) {
            wake_worker(n);
            return;
        }
    }
}

/* I5: what these answer is only true while this server leads. */
static bool
needs_proof(const struct node_request *r)
{
    return r->op == NODE_LEASE_KEEPALIVE || r->op == NODE_LEASE_TIME_TO_LIVE ||
           r->op == NODE_LEASE_LEASES ||
           (r->op == NODE_ALARM && r->alarm.action == NODE_ALARM_GET);
}

static void
refuse(struct node *n, struct node_request *r, enum etcd_error error)
{
    metric_add(&n->metrics, METRIC_REQUESTS_FAILED, 1);
    r->error = error;
    r->done(r);
}

static void
proof_came(struct leadership_wait *w, bool proven)
{
    struct node_request *r = container_of(w, struct node_request, wait);

    if (proven)
        node_submit(r->node, r);
    else
        refuse(r->node, r, ETCD_NO_LEADER);
}

static void
wait_for_proof(struct node *n, struct node_request *r)
{
    r->node = n;
    r->wait.done = proof_came;
    if (!leadership_when_proven(n->lead, &r->wait))
        refuse(n, r, ETCD_NO_LEADER);
}

static void
range_came(struct hydration_wait *w, t4_status status)
{
    struct node_request *r = container_of(w, struct node_request, hydration);

    if (status == T4_OK)
        node_submit(r->node, r);
    else
        refuse(r->node, r, node_hydration_error(status));
}

/* True: the request waits for a part of the checkpoint, or was refused. */
static bool
must_hydrate(struct node *n, struct node_request *r)
{
    enum hydration_answer answer;

    r->node = n;
    r->hydration.done = range_came;
    answer = base_request_ready(n, r);
    if (answer == HYDRATION_REFUSED)
        refuse(n, r, node_hydration_error(r->hydration.status));
    return answer != HYDRATION_READY;
}

void
node_submit(struct node *n, struct node_request *r)
{
    enum etcd_error refused = ETCD_OK;
    bool leading = true;

    r->next = NULL;
    chain_init(&r->response);
    if (n->hydration != NULL && must_hydrate(n, r))
        return;
    if (n->lead != NULL && needs_proof(r) && !leadership_is_proven(n->lead)) {
        wait_for_proof(n, r);
        return;
    }
    mutex_lock(&n->queue.lock);
    if (n->queue.closed)
        refused = ETCD_STOPPED;
    else if (!atomic_load_explicit(&n->leading, memory_order_relaxed))
        leading = false;
    else if ((int)r->op < NODE_INTERNAL && /* of those there are few */
             n->queue.bytes + cost_of(r) + atomic_load(&n->unsynced_bytes) +
                     mvcc_held_bytes(n->mvcc) >
                 n->options.backlog_bytes + n->options.memtable_bytes)
        refused = ETCD_BACKLOG_FULL;
    if (!leading)
        refused = ETCD_NO_LEADER;
    if (refused ==
        ETCD_OK) { /* from here on it is the evaluator's, and may soon be gone */
        *n->queue.tail = r;
        n->queue.tail = &r->next;
        n->queue.n++;
        n->queue.bytes += cost_of(r);
    }
    mutex_unlock(&n->queue.lock);
    if (refused == ETCD_OK) {
        commit_drain(n, false);
        return;
    }
    if (!leading && r->op == NODE_DEFRAGMENT) /* the engine is this server's own */
        defragment_wait(n, r);
    else
        refuse(n, r, refused);
}

/* --- the sync thread -------------------------------------------------------------------------- */

void
node_fatal(struct node *n, const struct error *error)
{
    if (!atomic_exchange(&n->dead, true) && n->options.fatal != NULL)
        n->options.fatal(n->options.fatal_arg, error);
}

/* Waits for a group; NULL: stopping and nothing is left. */
static struct commit_group *
take_group(struct node *n, bool *mark)
{
    struct commit_group *g = NULL;
    bool quiet = false;

    mutex_lock(&n->log.lock);
    while (n->log.filling->wal.entries == 0 || n->log.hold) {
        if (n->log.stop && n->log.filling->wal.entries == 0)
            break;
        if (quiet && *mark)
            break; /* the caller marks the end of the log, then comes back */
        n->log.sleeping = true;
        if (*mark && !n->log.hold)
            quiet = !condition_wait_for(&n->log.filled, &n->log.lock, QUIET_NS);
        else
            condition_wait(&n->log.filled, &n->log.lock);
        n->log.sleeping = false;
    }
    if (n->log.filling->wal.entries > 0 && !n->log.hold) {
        g = n->log.filling;
        n->log.filling = n->log.writing;
        n->log.writing = g;
    }
    mutex_unlock(&n->log.lock);
    return g;
}

/*
 * Writes one group and makes it durable.  NOSPACE leaves nothing unknown: the group waits for
 * space as long as the process lives (it was evaluated, so it cannot be refused any more).
 */
static t4_status
write_group(struct node *n, struct commit_group *g, struct error *error)
{
    uint64_t boot_ns = n->options.env->boot_ns(n->options.env->state), synced;
    t4_status status;

    if (n->options.segment_age_ns > 0 &&
        boot_ns - n->segment_began_ns >= n->options.segment_age_ns) {
        n->segment_began_ns = boot_ns;
        wal_roll(n->wal);
    }
    while ((status = wal_write(n->wal, &g->wal, error)) == T4_E_NOSPACE) {
        bool stop;

        atomic_store(&n->wal_full, true);
        background_space(n);
        mutex_lock(&n->log.lock);
        stop = n->log.stop;
        if (!stop)
            condition_wait_for(&n->log.filled, &n->log.lock, QUIET_NS);
        mutex_unlock(&n->log.lock);
        if (stop || wal_prepare(n->wal, NULL) == T4_E_IO)
            break;
    }
    if (status == T4_OK)
        status = wal_sync(n->wal, &synced, error);
    return status;
}

static void *
sync_main(void *arg)
{
    struct node *n = arg;
    struct error error;
    bool mark = false;

    for (;;) {
        struct commit_group *g = take_group(n, &mark);
        t4_status status;

        if (g == NULL && !mark)
            break;
        if (g == NULL) {
            bool stop;

            mark = false;
            status = wal_mark(n->wal, &error);
            if (status ==
                T4_E_NOSPACE) /* the mark helps recovery, nothing depends on it */
                status = T4_OK;
            mutex_lock(&n->log.lock);
            stop = n->log.stop && n->log.filling->wal.entries == 0;
            mutex_unlock(&n->log.lock);
            if (status == T4_OK && !stop)
                continue;
        } else {
            status = write_group(n, g, &error);
            mark = true;
        }
        if (status == T4_OK && g != NULL) {
            atomic_fetch_sub(&n->unsynced_bytes, g->bytes);
            if (n->lead == NULL || n->options.commit_rule == RULE_LOCAL)
                commit_publish(n, g->wal.last_index, g->revision, g->compacted);
            if (n->lead != NULL)
                leadership_synced(n->lead, g->wal.last_index, g->bytes);
            g->bytes = 0;
            wal_group_clear(&g->wal);
        } else if (status != T4_OK) {
            /* I2: nothing about the file is known any more.  The process must stop. */
            error_wrap(&error, "cannot write the log");
            node_fatal(n, &error);
            break;
        } else {
            break;
        }
    }
    return NULL;
}

/* --- life -------------------------------------------------------------------------------------- */

void
commit_init(struct node *n)
{
    mutex_init(&n->queue.lock);
    n->queue.tail = &n->queue.head;
    mutex_init(&n->role);
    n->drain.run = drain_job;
    mutex_init(&n->log.lock);
    condition_init(&n->log.filled);
    n->log.filling = mem_zalloc(sizeof *n->log.filling);
    n->log.writing = mem_zalloc(sizeof *n->log.writing);
    mutex_init(&n->publish.lock);
    n->publish.tail = &n->publish.head;
    n->publish.durable_tail = &n->publish.durable;
}

void
commit_start(struct node *n)
{
    n->segment_began_ns = n->options.env->boot_ns(n->options.env->state);
    thread_start(&n->sync_thread, "t4-sync", sync_main, n);
}

void
node_hold_sync(struct node *n, bool hold)
{
    mutex_lock(&n->log.lock);
    n->log.hold = hold;
    condition_signal(&n->log.filled);
    mutex_unlock(&n->log.lock);
}

/* Answers everything on a list with `error`. */
static void
refuse_all(struct node *n, struct node_request *r, enum etcd_error error)
{
    while (r != NULL) {
        struct node_request *next = r->next;

        if (error == ETCD_UNKNOWN_OUTCOME)
            metric_add(&n->metrics, METRIC_PROPOSALS_FAILED, 1);
        chain_free(&r->response);
        r->error = error;
        r->done(r);
        r = next;
    }
}

void
commit_stop(struct node *n)
{
    struct node_request *queued;

    /* The queue is closed, so nothing is evaluated any more once the role was free. */
    mutex_lock(&n->role);
    mutex_lock(&n->queue.lock);
    queued = n->queue.head;
    n->queue.head = NULL;
    n->queue.tail = &n->queue.head;
    n->queue.n = 0;
    n->queue.bytes = 0;
    mutex_unlock(&n->queue.lock);
    mutex_unlock(&n->role);

    mutex_lock(&n->log.lock);
    n->log.stop = true;
    n->log.hold = false;
    condition_signal(&n->log.filled);
    mutex_unlock(&n->log.lock);
    thread_join(&n->sync_thread);
    refuse_all(n, queued, ETCD_STOPPED); /* certainly not applied */
}

/* Everything that waits, whatever for.  [publish.lock] */
static struct node_request *
take_all_waiting(struct node *n)
{
    struct node_request *all;

    *n->publish.durable_tail = n->publish.head;
    all = n->publish.durable;
    n->publish.head = n->publish.durable = NULL;
    n->publish.tail = &n->publish.head;
    n->publish.durable_tail = &n->publish.durable;
    return all;
}

void
commit_refuse(struct node *n)
{
    struct node_request *waiting;

    mutex_lock(&n->publish.lock);
    waiting = take_all_waiting(n);
    mutex_unlock(&n->publish.lock);
    refuse_all(n, waiting, ETCD_UNKNOWN_OUTCOME); /* evaluated, but log or store failed */
}

void
commit_depose(struct node *n)
{
    struct node_request *waiting;

    mutex_lock(&n->publish.lock);
    n->publish.deposed = true;
    waiting = take_all_waiting(n);
    mutex_unlock(&n->publish.lock);
    refuse_all(n, waiting, ETCD_UNKNOWN_OUTCOME);
}

void
commit_free(struct node *n)
{
    wal_group_free(&n->log.filling->wal);
    wal_group_free(&n->log.writing->wal);
    mem_free(n->publish.late);
    mem_free(n->log.filling);
    mem_free(n->log.writing);
    condition_destroy(&n->log.filled);
    mutex_destroy(&n->log.lock);
    mutex_destroy(&n->publish.lock);
    mutex_destroy(&n->queue.lock);
    mutex_destroy(&n->role);
}

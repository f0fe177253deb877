/*
 * lead.c - the node and its object store: identity from it, the log as joined with it, commits
 * by upload, being deposed.
 *
 * The store thread (leadership/) does the talking; what it reports is carried out here.  When
 * a start reaches the store, all of it happens before anything is served.  When it does not,
 * what is known to be committed is served (serializable reads, watches), and the same steps
 * happen later, under the commit role, which nobody else takes before this server leads.
 *
 * Runs on: the main thread (identify, start, stop), the store thread (all events).
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <inttypes.h>
#include <stdio.h>

#include "base/log.h"
#include "base/memory.h"
#include "node/node_int.h"

#define STOP_NS UINT64_C(10000000000)

/* --- events ------------------------------------------------------------------------------- */

static t4_status
take_the_log(struct node *n, const struct leadership_acquired *a, struct error *error)
{
    uint64_t last = wal_last_index(n->wal);
    bool local = n->options.commit_rule == RULE_LOCAL;
    uint64_t commit = local ? last : a->object_frontier, now;
    struct snapshot committed = commit_published(n);
    t4_status status = T4_OK;

    if (a->generation != n->identity.generation) {
        n->identity.generation = a->generation;
        status = identity_write(n, error);
    }
    /* In two steps, so that the state that may be published is known in between. */
    if (status == T4_OK)
        status = recover_more(n, commit, commit, error);
    committed = (struct snapshot){n->index, n->revision, n->compacted};
    if (status == T4_OK)
        status = recover_more(n, last, commit, error);
    if (status != T4_OK)
        return status;
    now = n->options.env->boot_ns(n->options.env->state);
    if (a->all_leases_full)
        lease_renew_all(n->leases, now);
    else
        lease_restart_all(n->leases, now);
    evaluate_leases_changed(n);
    if (n->compacted > 0)
        mvcc_compact(n->mvcc, n->compacted);
    if (n->time_ms > n->clock_start_wall_ms)
        n->clock_start_wall_ms = n->time_ms;
    atomic_store(&n->term, a->term);
    atomic_store(&n->object_index, a->object_frontier);
    atomic_store(&n->object_revision, a->object_revision);
    if (n->hub != NULL)
        watch_hub_set_term(n->hub, a->term);
    if (committed.index > commit_published(n).index)
        commit_publish(n, committed.index, committed.revision, committed.compacted);
    return T4_OK;
}

/* Readers of what this server has now cannot be given another engine under their feet. */
static t4_status
on_rebase(void *arg, const struct checkpoint_object *c, struct error *error)
{
    struct node *n = arg;
    t4_status status;

    mutex_lock(&n->role);
    if (n->hub == NULL) {
        status = base_begin(n, c, error);
    } else {
        status =
            error_set(error, T4_E_INTERNAL,
                      "the object store has gone on so far without this server that it "
                      "begins from the checkpoint at revision %" PRId64,
                      c->revision);
        error_hint(error, "start it again: it does so then");
    }
    mutex_unlock(&n->role);
    return status;
}

/* --- checkpoints --------------------------------------------------------------------------- */

/* What a checkpoint holds need not be kept on this disk: the keeper drops it. */
static void
on_covered(void *arg, uint64_t index)
{
    struct node *n = arg;

    atomic_store(&n->covered, index);
    /* Before the log below it may go: see on_remembered(). */
    leadership_remember(n->lead);
}

static uint64_t
on_remembered(void *arg)
{
    struct node *n = arg;

    return leadership_remembered(n->lead);
}

static bool
on_filling(void *arg)
{
    struct node *n = arg;

    return n->hydration != NULL && !hydration_is_complete(n->hydration);
}

/* Leadership finds out by itself. */
static void
on_manifest_taken(void *arg, const struct error *why)
{
    (void)arg;
    LOG_WARN("no more checkpoints are made here", "reason", why->message, NULL);
}

/* [store thread] */
static void
start_checkpoints(struct node *n, uint64_t term, const struct checkpoint_mark *mark)
{
    const struct node_options *o = &n->options;
    struct checkpointer_options options = {
        .env = o->env,
        .store = o->store,
        .incarnation = n->identity.incarnation,
        .address = n->advertise_urls,
        .timeout_ns = o->store_timeout_ns,
        .term = term,
        .generation = n->identity.generation,
        .wal = n->wal,
        .interval_ns = o->checkpoint_interval_ns,
        .interval_bytes = o->checkpoint_bytes,
        .retention_ns = o->history_retention_ns,
        .metrics = &n->metrics,
        .arg = n,
        .covered = on_covered,
        .remembered = on_remembered,
        .filling = on_filling,
        .deposed = on_manifest_taken,
    };
    struct checkpointer *c;

    if (o->checkpoint_interval_ns == 0) /* none are wanted */
        return;
    c = checkpointer_new(&options);
    checkpointer_start(c, mark);
    atomic_store(&n->checkpoints, c);
}

/* Tells its thread; checkpointer_free() waits for it. */
static void
stop_checkpoints(struct node *n)
{
    struct checkpointer *c = atomic_load(&n->checkpoints);

    if (c != NULL)
        checkpointer_stop(c);
}

static void
on_accepted(void *arg, uint64_t index, uint64_t bytes, const struct chain_floor *place)
{
    struct node *n = arg;
    struct checkpoint_mark mark = {index, bytes, *place};
    struct checkpointer *c = atomic_load(&n->checkpoints);

    if (c != NULL)
        checkpointer_mark(c, &mark);
    else if (!atomic_load(&n->stopping))
        /* the built-in store: its term was taken for this segment */
        start_checkpoints(n, atomic_load(&n->term), &mark);
}

/* --- events, continued ---------------------------------------------------------------------- */

static t4_status
on_acquired(void *arg, const struct leadership_acquired *a, struct error *error)
{
    struct node *n = arg;
    char term[24], revision[24];
    bool behind_reset;
    t4_status status;

    mutex_lock(&n->role);
    status = take_the_log(n, a, error);
    if (status == T4_OK)
        node_set_leading(n, true);
    behind_reset = evaluate_store_is_behind(n);
    mutex_unlock(&n->role);
    if (status != T4_OK)
        return status;
    /* Behind a reset that is not in the built-in store yet writes would be refused. */
    if (behind_reset)
        leadership_hurry(n->lead, wal_last_index(n->wal));
    if (!n->options.store_is_built_in) {
        struct checkpoint_mark mark = {a->object_frontier, 0, a->place};

        start_checkpoints(n, a->term, &mark);
    }
    snprintf(term, sizeof term, "%" PRIu64, a->term);
    snprintf(revision, sizeof revision, "%" PRId64, commit_published(n).revision);
    LOG_INFO("leading", "store", object_url(n->options.store), "term", term, "revision",
             revision, "commit_rule",
             n->options.store_is_built_in           ? "local (built-in store)"
             : n->options.commit_rule == RULE_LOCAL ? "local (asynchronous upload)"
                                                    : "object",
             NULL);
    return T4_OK;
}

static void
on_uploaded(void *arg, uint64_t index, int64_t revision, int64_t compacted)
{
    struct node *n = arg;

    atomic_store(&n->object_revision, revision);
    if (n->options.commit_rule == RULE_OBJECT)
        commit_publish(n, index, revision, compacted);
    commit_uploaded(n, index);
}

static void
on_deposed(void *arg, const struct error *why)
{
    struct node *n = arg;

    node_set_leading(n, false);
    stop_checkpoints(n);
    commit_depose(n);
    if (n->hub != NULL && !atomic_exchange(&n->hub_stopped, true))
        watch_hub_stop(n->hub, ETCD_NO_LEADER);
    if (n->options.deposed != NULL)
        n->options.deposed(n->options.deposed_arg, why);
}

/* Before the start is over node_open() returns the failure itself. */
static void
on_failed(void *arg, const struct error *error)
{
    struct node *n = arg;

    if (atomic_load(&n->lead_reports))
        node_fatal(n, error);
}

static void
on_unproven(void *arg, uint64_t ns)
{
    struct node *n = arg;

    atomic_fetch_add(&n->unproven_ns, ns);
}

/* --- starting ------------------------------------------------------------------------------- */

t4_status
lead_identify(struct node *n, struct error *error)
{
    const struct node_options *o = &n->options;
    struct identity *id = &n->identity;
    struct leadership_options options = {
        .env = o->env,
        .store = o->store,
        .data_dir = n->data_dir,
        .address = n->advertise_urls,
        .rule = o->commit_rule,
        .incarnation = id->incarnation,
        .lease_ms = o->lease_ms,
        .upload_age_ns = o->upload_age_ns,
        .window = o->upload_window,
        .segment_bytes = o->upload_segment_bytes,
        .timeout_ns = o->store_timeout_ns,
        .take_over_now = o->take_over_now,
        .discard_divergent_tail = o->discard_divergent_tail,
        .unsafe_store = o->unsafe_store,
        .built_in = o->store_is_built_in,
        .metrics = &n->metrics,
        .arg = n,
        .rebase = on_rebase,
        .acquired = on_acquired,
        .uploaded = on_uploaded,
        .accepted = on_accepted,
        .deposed = on_deposed,
        .failed = on_failed,
        .unproven = on_unproven,
    };
    struct leadership_ids ids = {true, id->cluster_id, id->lineage, id->generation};
    t4_status status = leadership_new(&options, &n->lead, error);

    if (status != T4_OK)
        return status;
    if (id->fresh) {
        struct leadership_ids there;

        status = leadership_identify(n->lead, &there, error);
        if (status != T4_OK)
            return status;
        if (there.found) {
            ids = there;
            id->cluster_id = there.cluster_id;
            id->lineage = there.lineage;
            id->generation = there.generation;
        }
        n->was_fresh = true;
        status = identity_write(n, error);
    }
    leadership_set_ids(n->lead, &ids, id->incarnation);
    return status;
}

t4_status
lead_start(struct node *n, struct error *error)
{
    struct error why = {0};
    uint64_t wait_ns =
        n->was_fresh || n->needs_base ? UINT64_MAX / 4 : n->options.store_grace_ns;

    if (n->needs_base)
        leadership_need_base(n->lead, n->recovered.begins);
    if (n->hydration != NULL)
        leadership_set_base(n->lead, hydration_checkpoint(n->hydration));
    leadership_start(n->lead, n->wal, &n->recovered, !n->log_was_short);
    n->lead_started = true;
    leadership_wait(n->lead, wait_ns, NULL);
    atomic_store(&n->lead_reports, true); /* what fails from here on, on_failed() tells */
    switch (leadership_wait(n->lead, 0, &why)) {
    case LEADERSHIP_LEADING: return T4_OK;
    case LEADERSHIP_SEEKING:
        LOG_WARN("serving what is known to be committed until this server leads: "
                 "serializable reads and watches only",
                 "waiting_for",
                 why.message[0] != '\0' ? why.message : "an answer of the object store",
                 NULL);
        return T4_OK;
    default: break;
    }
    if (why.status == T4_OK)
        error_set(&why, T4_E_CANCELLED, "stopped");
    *error = why;
    return error->status;
}

void
lead_stop(struct node *n)
{
    stop_checkpoints(n);
    if (n->lead_started)
        leadership_stop(n->lead,
                        STOP_NS); /* and cancels what is under way in the store */
    n->lead_started = false;
    stop_checkpoints(n); /* the store thread may just have started them */
}

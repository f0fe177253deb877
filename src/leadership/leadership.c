/*
 * leadership.c - the handle: making it, its thread, waits for proven leadership, views.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "leadership/leadership.h"

#include <inttypes.h>
#include <stdio.h>

#include "base/log.h"
#include "base/memory.h"
#include "leadership/leadership_int.h"

#define IDENTIFY_TRIES 10u
#define IDENTIFY_PAUSE_NS (SECOND / 2)
#define WAITS_MAX 65536u
#define WAIT_NS (5 * SECOND) /* as etcd's own limit of a request */

static uint64_t
now_ns(const struct leadership *l)
{
    return l->options.env->boot_ns(l->options.env->state);
}

t4_status
leadership_new(const struct leadership_options *options, struct leadership **out,
               struct error *error)
{
    struct leadership *l = mem_zalloc(sizeof *l);
    t4_status status;

    *out = NULL;
    l->options = *options;
    l->data_dir = mem_strdup(options->data_dir);
    l->address = mem_strdup(options->address);
    mutex_init(&l->lock);
    condition_init(&l->wake);
    condition_init(&l->changed);
    status = memory_read(l, error);
    if (status != T4_OK) {
        leadership_free(l);
        return status;
    }
    *out = l;
    return T4_OK;
}

void
leadership_free(struct leadership *l)
{
    if (l == NULL)
        return;
    acquire_probe_result(l, NULL);
    wal_reader_close(l->reader);
    objectlog_close(l->chain);
    buffer_free(&l->raw);
    condition_destroy(&l->changed);
    condition_destroy(&l->wake);
    mutex_destroy(&l->lock);
    mem_free(l->address);
    mem_free(l->data_dir);
    mem_free(l);
}

t4_status
leadership_identify(struct leadership *l, struct leadership_ids *ids, struct error *error)
{
    t4_status status = T4_E_UNAVAILABLE;

    *ids = (struct leadership_ids){0};
    for (unsigned tries = 0; tries < IDENTIFY_TRIES; tries++) {
        if (tries > 0 && leadership_pause(l, IDENTIFY_PAUSE_NS, error) != T4_OK)
            return T4_E_CANCELLED;
        status = acquire_open(l, error);
        if (status == T4_OK && l->found == OBJECTLOG_EMPTY)
            status =
                acquire_probe_result(l, error); /* it, too, may find no answer once */
        if (!acquire_is_passing(status) || status == T4_E_DENIED)
            break;
    }
    if (status != T4_OK || l->found == OBJECTLOG_EMPTY)
        return status;
    l->opened = true;
    ids->found = true;
    ids->cluster_id = objectlog_lock(l->chain)->cluster_id;
    ids->lineage = objectlog_lock(l->chain)->lineage;
    ids->generation =
        l->found == OBJECTLOG_COMPLETE ? objectlog_manifest(l->chain)->generation : 1;
    return T4_OK;
}

void
leadership_set_ids(struct leadership *l, const struct leadership_ids *ids,
                   uint64_t incarnation)
{
    l->ids = *ids;
    l->options.incarnation = incarnation;
}

enum commit_rule
leadership_last_rule(const struct leadership *l)
{
    return (enum commit_rule)l->memory.rule;
}

/* --- the store thread --------------------------------------------------------------------- */

static void
set_state(struct leadership *l, enum leadership_state state, const struct error *why)
{
    mutex_lock(&l->lock);
    l->state = state;
    l->why = why != NULL ? *why : (struct error){0};
    condition_broadcast(&l->changed);
    mutex_unlock(&l->lock);
}

static void
count_lost(struct leadership *l, struct error *error)
{
    uint64_t synced;

    mutex_lock(&l->lock);
    synced = l->synced;
    mutex_unlock(&l->lock);
    if (l->options.rule == RULE_LOCAL && synced > l->uploaded)
        error_hint(error,
                   "entries %" PRIu64 " to %" PRIu64
                   " were acknowledged here and are on this disk only",
                   l->uploaded + 1, synced);
    else
        error_hint(error, "stop this server, or start it again to take the lead back");
}

static t4_status
begin(struct leadership *l, const struct leadership_acquired *a, struct error *error)
{
    t4_status status;

    mutex_lock(&l->lock);
    l->object_index = l->uploaded;
    l->object_revision = l->revision;
    l->synced = l->local_end;
    l->waiting_since_ns = l->synced > l->uploaded ? now_ns(l) : 0;
    l->unsent_since_ns = l->waiting_since_ns;
    l->term_shown = a->term;
    mutex_unlock(&l->lock);
    metric_set(l->options.metrics, METRIC_OBJECT_INDEX, (int64_t)l->uploaded);
    metric_set(l->options.metrics, METRIC_OBJECT_REVISION, l->revision);
    status = l->options.acquired(l->options.arg, a, error);
    if (status != T4_OK)
        return status;
    atomic_store(&l->leads, true);
    set_state(l, LEADERSHIP_LEADING, NULL);
    return T4_OK;
}

static void *
store_main(void *arg)
{
    struct leadership *l = arg;
    struct leadership_acquired a;
    struct error error = {0};
    t4_status status = acquire(l, &a, &error);

    if (status == T4_OK)
        status = begin(l, &a, &error);
    if (status == T4_OK)
        status = lead(l, &error);
    atomic_store(&l->leads, false);
    atomic_store(&l->lease_until_ns, 0);
    if (status == T4_E_PRECONDITION) {
        count_lost(l, &error);
        set_state(l, LEADERSHIP_DEPOSED, &error);
        l->options.deposed(l->options.arg, &error);
    } else if (status == T4_OK || status == T4_E_CANCELLED) {
        set_state(l, LEADERSHIP_ENDED, NULL);
    } else {
        set_state(l, LEADERSHIP_ENDED, &error);
        l->options.failed(l->options.arg, &error);
    }
    mutex_lock(&l->lock);
    l->thread_ended = true;
    condition_broadcast(&l->changed);
    mutex_unlock(&l->lock);
    return NULL;
}

void
leadership_set_base(struct leadership *l, const struct checkpoint_object *c)
{
    l->base_term = c->term;
    l->base_index = c->index;
}

void
leadership_need_base(struct leadership *l, uint64_t begins)
{
    l->log_begins = begins;
}

void
leadership_start(struct leadership *l, struct wal *wal,
                 const struct wal_recovered *recovered, bool whole)
{
    l->wal = wal;
    l->local_end = recovered->last_index;
    l->recovered_term = recovered->last_term;
    /* A log that was started in the last term we led in, and reaches what we had uploaded. */
    l->log_is_whole = whole && recovered->last_term >= l->memory.led_term &&
                      recovered->last_index >= l->memory.place.last_index;
    l->started = true;
    thread_start(&l->thread, "t4-store", store_main, l);
}

enum leadership_state
leadership_wait(struct leadership *l, uint64_t ns, struct error *why)
{
    uint64_t until = now_ns(l) + ns, now;
    enum leadership_state state;

    mutex_lock(&l->lock);
    while (l->state == LEADERSHIP_SEEKING && (now = now_ns(l)) < until)
        condition_wait_for(&l->changed, &l->lock, until - now);
    state = l->state;
    if (why != NULL)
        *why = l->why;
    mutex_unlock(&l->lock);
    return state;
}

enum leadership_state
leadership_state(struct leadership *l)
{
    enum leadership_state state;

    mutex_lock(&l->lock);
    state = l->state;
    mutex_unlock(&l->lock);
    return state;
}

/* --- the log grows -------------------------------------------------------------------------- */

/* [lock] */
static void
wake(struct leadership *l)
{
    if (l->sleeping && !l->woken) {
        l->woken = true;
        condition_signal(&l->wake);
    }
}

void
leadership_wake(void *arg)
{
    struct leadership *l = arg;

    mutex_lock(&l->lock);
    wake(l);
    mutex_unlock(&l->lock);
}

void
leadership_synced(struct leadership *l, uint64_t index, size_t bytes)
{
    uint64_t now = now_ns(l);
    bool first;

    mutex_lock(&l->lock);
    first = l->unsent_since_ns == 0;
    l->synced = index;
    l->synced_ns = now;
    l->waiting_bytes += bytes;
    l->unsent_bytes += bytes;
    if (l->waiting_since_ns == 0)
        l->waiting_since_ns = now;
    if (first)
        l->unsent_since_ns = now;
    /* Under LOCAL the thread knows when it must look; only the first entry changes that. */
    if (l->options.rule == RULE_OBJECT || first || l->hurry_to > l->object_index ||
        l->unsent_bytes >= l->options.segment_bytes)
        wake(l);
    mutex_unlock(&l->lock);
}

uint64_t
leadership_remembered(struct leadership *l)
{
    return atomic_load(&l->remembered);
}

void
leadership_remember(struct leadership *l)
{
    atomic_store(&l->remember, true);
}

void
leadership_hurry(struct leadership *l, uint64_t index)
{
    mutex_lock(&l->lock);
    if (l->hurry_to < index)
        l->hurry_to = index;
    wake(l);
    mutex_unlock(&l->lock);
}

/* --- proven leadership ------------------------------------------------------------------------ */

bool
leadership_is_proven(struct leadership *l)
{
    uint64_t now, until, none = 0;

    if (!atomic_load_explicit(&l->leads, memory_order_relaxed))
        return false;
    if (l->options.rule ==
        RULE_LOCAL) /* nobody takes it without being told to (design, 6) */
        return true;
    until = atomic_load(&l->lease_until_ns);
    now = now_ns(l);
    if (now + l->options.lease_ms * MILLISECOND * 2 / 3 > until &&
        !atomic_load_explicit(&l->renew_wanted, memory_order_relaxed) &&
        !atomic_exchange(&l->renew_wanted, true)) {
        mutex_lock(&l->lock);
        wake(l);
        mutex_unlock(&l->lock);
    }
    if (now < until)
        return true;
    atomic_compare_exchange_strong(&l->unproven_since_ns, &none, now);
    return false;
}

bool
leadership_when_proven(struct leadership *l, struct leadership_wait *w)
{
    bool taken;

    leadership_is_proven(l); /* asks for a renewal */
    w->until_ns = now_ns(l) + WAIT_NS;
    mutex_lock(&l->lock);
    taken = l->state == LEADERSHIP_LEADING && l->n_waits < WAITS_MAX && !l->thread_ended;
    if (taken) {
        w->next = l->waits;
        l->waits = w;
        l->n_waits++;
        /* Also when it was renewed this very moment: whoever did has looked at the list before. */
        atomic_store(&l->renew_wanted, true);
        wake(l);
    }
    mutex_unlock(&l->lock);
    return taken;
}

void
leadership_tick(struct leadership *l)
{
    struct leadership_wait *over = NULL, **link, *w;
    uint64_t now = now_ns(l);

    mutex_lock(&l->lock);
    for (link = &l->waits; (w = *link) != NULL;) {
        if (w->until_ns > now && l->state == LEADERSHIP_LEADING) {
            link = &w->next;
            continue;
        }
        *link = w->next;
        l->n_waits--;
        w->next = over;
        over = w;
    }
    mutex_unlock(&l->lock);
    while (over != NULL) {
        w = over->next;
        over->done(over, false);
        over = w;
    }
}

/* --- the end ------------------------------------------------------------------------------------ */

void
leadership_stop(struct leadership *l, uint64_t timeout_ns)
{
    uint64_t until = now_ns(l) + timeout_ns, now;

    if (!l->started)
        return;
    mutex_lock(&l->lock);
    l->finish = true;
    condition_broadcast(&l->wake);
    while (!l->thread_ended && (now = now_ns(l)) < until)
        condition_wait_for(&l->changed, &l->lock, until - now);
    l->stopping = true;
    condition_broadcast(&l->wake);
    if (!l->thread_ended)
        LOG_WARN("the object store does not answer: the lock is not given back", NULL);
    if (l->chain != NULL)
        objectlog_stop(l->chain);
    mutex_unlock(&l->lock);
    object_cancel(l->options.store);
    thread_join(&l->thread);
    l->started = false;
    leadership_tick(l);
}

void
leadership_look(struct leadership *l, struct leadership_view *out)
{
    uint64_t now = now_ns(l);

    *out = (struct leadership_view){.rule = l->options.rule};
    snprintf(out->url, sizeof out->url, "%s", object_url(l->options.store));
    mutex_lock(&l->lock);
    out->state = l->state;
    out->term = l->term_shown;
    out->synced_index = l->synced;
    out->object_index = l->object_index;
    out->object_revision = l->object_revision;
    out->waiting_bytes = l->synced > l->object_index ? l->waiting_bytes : 0;
    out->waiting_ns = l->synced > l->object_index && l->waiting_since_ns != 0
                          ? now - l->waiting_since_ns
                          : 0;
    out->degraded = l->degraded;
    snprintf(out->why, sizeof out->why, "%s",
             l->state != LEADERSHIP_LEADING ? l->why.message
             : l->degraded                  ? l->degraded_why
                                            : "");
    mutex_unlock(&l->lock);
}

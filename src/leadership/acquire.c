/*
 * acquire.c - from a store to a term of our own: probe, bootstrap, whose turn it is, take-over.
 *
 * Whether the term may be taken is decided here (design, I5), how it is taken in objectlog/.
 * A lock of rule LOCAL is never taken by waiting: its holder may have acknowledged what exists
 * on its disk only.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <inttypes.h>
#include <stdio.h>

#include "base/log.h"
#include "leadership/leadership_int.h"
#include "sst/sst.h"

#define RETRY_NS (2 * SECOND)
#define RETRY_MAX_NS (60 * SECOND)
#define LOOK_NS SECOND
#define BOOTSTRAP_WAIT_NS (15 * SECOND)

void
leadership_seek(struct leadership *l, const char *why)
{
    bool news;

    mutex_lock(&l->lock);
    news = strncmp(l->why.message, why, sizeof l->why.message - 1) != 0;
    snprintf(l->why.message, sizeof l->why.message, "%s", why);
    condition_broadcast(&l->changed);
    mutex_unlock(&l->lock);
    if (news)
        LOG_WARN("not leading yet", "reason", why, NULL);
}

t4_status
leadership_pause(struct leadership *l, uint64_t ns, struct error *error)
{
    bool stop;

    mutex_lock(&l->lock);
    if (!l->stopping && !l->finish)
        condition_wait_for(&l->wake, &l->lock, ns);
    stop = l->stopping || l->finish;
    mutex_unlock(&l->lock);
    return stop ? error_set(error, T4_E_CANCELLED, "stopped before it led") : T4_OK;
}

/* --- opening ------------------------------------------------------------------------------ */

void
leadership_note_degraded(struct leadership *l, const char *why)
{
    bool before;

    mutex_lock(&l->lock);
    before = l->degraded;
    l->degraded = why != NULL;
    snprintf(l->degraded_why, sizeof l->degraded_why, "%s", why != NULL ? why : "");
    condition_broadcast(&l->changed);
    mutex_unlock(&l->lock);
    metric_set(l->options.metrics, METRIC_STORE_DEGRADED, why != NULL);
    if (before == (why != NULL))
        return; /* /status shows the newest reason; the log has the first */
    if (why != NULL)
        LOG_WARN("the object store does not answer as it should; going on trying",
                 "reason", why, NULL);
    else
        LOG_INFO("the object store answers again", NULL);
}

static void
on_degraded(void *arg, const char *why)
{
    leadership_note_degraded(arg, why);
}

static void *
probe_main(void *arg)
{
    struct leadership *l = arg;

    l->probe_status =
        object_probe(l->options.store, slice_str(PROBE_PREFIX), &l->probe_error);
    return NULL;
}

static void
begin_probe(struct leadership *l)
{
    if (l->probe_runs || l->options.built_in || l->probed ||
        (l->memory.probed && strcmp(l->memory.url, object_url(l->options.store)) == 0))
        return;
    l->probe_runs = true;
    thread_start(&l->probing, "t4-probe", probe_main, l);
}

t4_status
acquire_probe_result(struct leadership *l, struct error *error)
{
    t4_status status;

    if (!l->probe_runs)
        return T4_OK;
    thread_join(&l->probing);
    l->probe_runs = false;
    status = l->probe_status;
    if (status != T4_OK && error != NULL)
        *error = l->probe_error;
    if (status == T4_E_UNSUPPORTED && l->options.unsafe_store) {
        LOG_WARN(
            "the store does not honour conditions; going on, as --object-store-unsafe "
            "says: two servers on it would destroy each other's log",
            "found", l->probe_error.message, NULL);
        status = T4_OK;
    }
    l->probed = status == T4_OK;
    /* Wrong keys of a server that never led are a mistake; of another one they may come back. */
    return status == T4_E_DENIED && l->memory.led_term == 0 ? T4_E_INVALID : status;
}

t4_status
acquire_open(struct leadership *l, struct error *error)
{
    struct objectlog_options options = {
        .env = l->options.env,
        .store = l->options.store,
        .incarnation = l->options.incarnation,
        .address = l->address,
        .timeout_ns = l->options.timeout_ns,
        .window = l->options.window,
        .arg = l,
        .degraded = on_degraded,
        .decided = leadership_wake,
    };
    struct objectlog *old, *chain;
    bool degraded;
    t4_status status;

    mutex_lock(&l->lock);
    old = l->chain;
    l->chain = NULL;
    mutex_unlock(&l->lock);
    objectlog_close(old);
    begin_probe(l);
    status = objectlog_open(&options, &chain, &l->found, error);
    if (status != T4_OK)
        return status;
    mutex_lock(&l->lock); /* leadership_stop() looks for it */
    l->chain = chain;
    if (l->stopping)
        objectlog_stop(chain);
    degraded = l->degraded;
    mutex_unlock(&l->lock);
    if (degraded) /* noted by the handle before this one */
        on_degraded(l, NULL);
    return T4_OK;
}

bool
acquire_is_passing(t4_status status)
{
    return status == T4_E_UNAVAILABLE || status == T4_E_TIMEOUT ||
           status == T4_E_UNKNOWN || status == T4_E_BUSY || status == T4_E_IO ||
           status == T4_E_DENIED;
}

/* --- is this store the one we know? --------------------------------------------------------- */

/* As the directory remembers it: the built-in one moves with the directory. */
static const char *
store_name(const struct leadership *l)
{
    return l->options.built_in ? BUILT_IN_URL : object_url(l->options.store);
}

static t4_status
set_back(struct leadership *l, const char *what, uint64_t seen, uint64_t there,
         struct error *error)
{
    error_set(error, T4_E_INVALID,
              "the store %s is older than this data directory knows it: %s is %" PRIu64
              ", but was %" PRIu64,
              object_url(l->options.store), what, there, seen);
    return error_hint(
        error, "it was set back to an older copy, or emptied: restore it; or give the "
               "server an empty --data-dir to go on with what the store holds");
}

static t4_status
other_store(struct leadership *l, struct error *error)
{
    error_set(error, T4_E_INVALID,
              "the data directory %s keeps its log in the store %s; %s is empty",
              l->data_dir, l->memory.url, object_url(l->options.store));
    return error_hint(error, "start with the store it belongs to%s",
                      l->options.built_in ? ": give it with --object-store" : "");
}

t4_status
acquire_check_store(struct leadership *l, struct error *error)
{
    const struct lock_object *lock = objectlog_lock(l->chain);
    const struct manifest_object *manifest = objectlog_manifest(l->chain);
    const struct memory *m = &l->memory;
    bool known = m->lock_counter > 0 && m->cluster_id == l->ids.cluster_id &&
                 m->lineage == l->ids.lineage;

    if (l->found == OBJECTLOG_EMPTY && known && strcmp(m->url, store_name(l)) != 0)
        return other_store(l, error);
    if (l->found == OBJECTLOG_EMPTY && known)
        return set_back(l, "the lock's counter", m->lock_counter, 0, error);
    if (l->found == OBJECTLOG_EMPTY)
        return T4_OK;
    if (lock->cluster_id != l->ids.cluster_id || lock->lineage != l->ids.lineage) {
        error_set(error, T4_E_INVALID,
                  "the data directory %s belongs to cluster %016" PRIx64
                  " (lineage %016" PRIx64 "), the store %s to cluster %016" PRIx64
                  " (lineage %016" PRIx64 ")",
                  l->data_dir, l->ids.cluster_id, l->ids.lineage,
                  object_url(l->options.store), lock->cluster_id, lock->lineage);
        return error_hint(error,
                          "give the directory and the store that belong together, or "
                          "an empty --data-dir to begin with what the store holds");
    }
    if (known && lock->counter < m->lock_counter)
        return set_back(l, "the lock's counter", m->lock_counter, lock->counter, error);
    if (known && l->found == OBJECTLOG_COMPLETE &&
        manifest->counter < m->manifest_counter)
        return set_back(l, "the manifest's counter", m->manifest_counter,
                        manifest->counter, error);
    return T4_OK;
}

t4_status
acquire_note_counters(struct leadership *l, struct error *error)
{
    const char *url = store_name(l);

    l->memory.probed = l->probed || (l->memory.probed && strcmp(l->memory.url, url) == 0);
    snprintf(l->memory.url, sizeof l->memory.url, "%s", url);
    l->memory.incarnation = l->options.incarnation;
    l->memory.cluster_id = l->ids.cluster_id;
    l->memory.lineage = l->ids.lineage;
    if (objectlog_lock(l->chain)->counter > l->memory.lock_counter)
        l->memory.lock_counter = objectlog_lock(l->chain)->counter;
    if (objectlog_manifest(l->chain)->counter > l->memory.manifest_counter)
        l->memory.manifest_counter = objectlog_manifest(l->chain)->counter;
    return memory_write(l, error);
}

/* --- an empty prefix --------------------------------------------------------------------------- */

/* Makes `leader-lock`, the manifest and `cluster`; somebody else's half-made ones are waited for. */
static t4_status
bootstrap(struct leadership *l, struct error *error)
{
    uint64_t until = l->options.env->boot_ns(l->options.env->state) + BOOTSTRAP_WAIT_NS;
    t4_status status;

    for (;;) {
        if (l->found == OBJECTLOG_COMPLETE)
            return T4_OK;
        if (l->found == OBJECTLOG_EMPTY ||
            objectlog_lock(l->chain)->holder == l->options.incarnation) {
            /* The tail of an older local log goes up under the rule it was written by. */
            status = objectlog_bootstrap(l->chain, l->ids.cluster_id, l->ids.lineage,
                                         l->options.rule, error);
            if (status == T4_OK) {
                l->found = OBJECTLOG_COMPLETE;
                status = acquire_note_counters(l, error);
            }
            if (status != T4_E_PRECONDITION)
                return status;
        } else if (l->options.env->boot_ns(l->options.env->state) > until) {
            error_set(error, T4_E_INVALID,
                      "the store %s was begun by another data directory (%s) and never "
                      "finished",
                      object_url(l->options.store), objectlog_lock(l->chain)->address);
            return error_hint(
                error, "start the server that began it; if it is gone for good, nothing "
                       "was acknowledged there: delete all objects of the prefix");
        }
        leadership_seek(l, "another server is setting up the store");
        status = leadership_pause(l, LOOK_NS, error);
        if (status == T4_OK)
            status = acquire_open(l, error);
        if (status == T4_OK)
            status = acquire_check_store(l, error);
        if (status != T4_OK)
            return status;
    }
}

/* --- whose turn it is -------------------------------------------------------------------------- */

static bool
is_ours(const struct leadership *l)
{
    const struct lock_object *lock = objectlog_lock(l->chain);

    /*
     * The term asked for last, or led last if asking came to nothing; or our own bootstrap,
     * before any term was asked for.
     */
    return lock->holder == l->options.incarnation &&
           (lock->term == l->memory.term || lock->term == l->memory.led_term ||
            (lock->term == 1 && lock->counter == 1));
}

static t4_status
refuse_local(struct leadership *l, struct error *error)
{
    const struct lock_object *lock = objectlog_lock(l->chain);

    error_set(error, T4_E_INVALID,
              "the store %s is led by the data directory of %s (term %" PRIu64
              ") with asynchronous upload: its newest writes may be on that disk only",
              object_url(l->options.store),
              lock->address[0] != '\0' ? lock->address : "an unnamed server", lock->term);
    return error_hint(
        error, "stop that server (it gives the lock back), or start it again on its own "
               "data directory; if that disk is lost, start with --take-over-now: "
               "writes it had not uploaded are lost then");
}

/* A live holder shows itself by changing the lock within its lease. */
static t4_status
wait_for_turn(struct leadership *l, struct error *error)
{
    struct env *env = l->options.env;
    uint64_t counter = 0, since = 0;
    t4_status status;

    for (;;) {
        const struct lock_object *lock = objectlog_lock(l->chain);
        uint64_t now = env->boot_ns(env->state);
        char text[400];

        if (lock->released || is_ours(l) || l->options.take_over_now)
            return T4_OK;
        if (lock->rule == RULE_LOCAL)
            return refuse_local(l, error);
        if (lock->lease_ms == 0)
            return T4_OK;
        if (lock->counter != counter) {
            counter = lock->counter;
            since = now;
        } else if (now - since >= lock->lease_ms * MILLISECOND * 5 / 4) {
            return T4_OK; /* lease.pml: WAIT = 1.25 times what stands in the lock */
        }
        snprintf(text, sizeof text,
                 "%.200s leads (term %" PRIu64 "); waiting until its lease of %" PRIu64
                 " ms has run out",
                 lock->address[0] != '\0' ? lock->address : "another server", lock->term,
                 lock->lease_ms);
        leadership_seek(l, text);
        status = leadership_pause(l, LOOK_NS / 4, error);
        if (status == T4_OK)
            status = objectlog_look_at_lock(l->chain, error);
        if (status != T4_OK)
            return status;
    }
}

/* --- the whole ------------------------------------------------------------------------------------ */

/* Whoever has nothing will begin from the newest checkpoint: its run indexes, while the term is taken. */
static void
look_ahead(struct leadership *l)
{
    const struct manifest_object *m = objectlog_manifest(l->chain);
    char key[SST_KEY_BYTES];

    if (l->found != OBJECTLOG_COMPLETE || l->local_end > 0 || m->n_checkpoints == 0)
        return;
    for (uint32_t i = 0; i < m->newest.n_runs; i++) {
        const struct checkpoint_run *run = &m->newest.run[i];

        run_key(key, run->sha256, run->term, run->index);
        object_ahead(l->options.store, slice_str(key), RUN_OBJECT_MAX);
    }
}

/* One attempt, from looking at the store to a joined log. */
static t4_status
attempt(struct leadership *l, struct leadership_acquired *out, struct error *error)
{
    struct joint j = {0};
    const struct lock_object *lock;
    uint64_t term = 0;
    t4_status status = l->opened ? T4_OK : acquire_open(l, error);

    l->opened = false;
    if (status == T4_OK)
        status = acquire_check_store(l, error);
    if (status == T4_OK && l->found != OBJECTLOG_COMPLETE)
        status = acquire_probe_result(l, error);
    if (status == T4_OK)
        status = bootstrap(l, error);
    if (status == T4_OK)
        status = wait_for_turn(l, error);
    if (status != T4_OK)
        return status;
    status = check_tail(l, error);
    if (status != T4_OK)
        return status;
    look_ahead(l);
    status = acquire_probe_result(l, error);
    if (status != T4_OK)
        return status;
    lock = objectlog_lock(l->chain);
    /*
     * An attempt of ours that failed behind its CAS has left a lock that names us and says
     * nothing of whom it was taken from: what stood there before counts until a join is complete.
     */
    if (!l->memory.joining || !is_ours(l))
        l->memory.taken = (struct joint){.was_ours = is_ours(l),
                                         .released = lock->released,
                                         .released_index = lock->released_index,
                                         .rule = lock->rule};
    l->memory.joining = true;
    j = l->memory.taken;
    l->memory.term = lock->term + 1;
    status = acquire_note_counters(l, error);
    if (status == T4_OK)
        status = objectlog_take_over(l->chain, &term, error);
    if (status == T4_OK)
        status = acquire_note_counters(l, error);
    if (status == T4_OK)
        status = join_logs(l, &j, term, out, error);
    return status == T4_E_IO ? T4_E_INTERNAL
                             : status; /* of the local disk: not to be retried */
}

t4_status
acquire(struct leadership *l, struct leadership_acquired *out, struct error *error)
{
    uint64_t pause_ns = RETRY_NS;

    for (;;) {
        uint64_t asked = l->memory.term;
        t4_status status = l->options.built_in ? acquire_built_in(l, out, error)
                                               : attempt(l, out, error);

        if (status != T4_E_PRECONDITION && !acquire_is_passing(status))
            return status;
        leadership_seek(l, error->message);
        /* An attempt that took a term has left a fence, which stays for ever. */
        if (l->memory.term == asked)
            pause_ns = RETRY_NS;
        else if (pause_ns < RETRY_MAX_NS)
            pause_ns *= 2;
        if (leadership_pause(l, pause_ns, error) != T4_OK)
            return T4_E_CANCELLED;
    }
}

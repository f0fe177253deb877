/*
 * built_in.c - the store that is a folder of the data directory itself.
 *
 * Nobody else can reach it while this process holds the directory's lock, so the lead is proven
 * by that and need not be asked for (design, section 1): a start only reads the store, joins the
 * logs and leads.  The term is taken from the store (lock, manifest, fence: the same steps as in
 * any store) before the first segment of this process is put there, so that a server that nobody
 * writes to writes nothing, and a full disk does not keep one from starting.
 *
 * What proves that the local log is whole is the directory's memory: it names the last term
 * that the log was started with, and the directory (its incarnation) that wrote it.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <inttypes.h>
#include <stdio.h>

#include "base/log.h"
#include "leadership/leadership_int.h"

#define RETRY_NS (10 * SECOND)

/* Higher than any that the log or the store has seen; etcd's first term is 2. */
static uint64_t
next_term(const struct leadership *l)
{
    uint64_t term = 1;

    if (l->found != OBJECTLOG_EMPTY && objectlog_lock(l->chain)->term > term)
        term = objectlog_lock(l->chain)->term;
    if (l->memory.term > term)
        term = l->memory.term;
    if (l->memory.led_term > term)
        term = l->memory.led_term;
    if (l->recovered_term > term)
        term = l->recovered_term;
    return term + 1;
}

/*
 * Was the local log, if it is whole, all that was acknowledged here?  Else a copied directory,
 * or one that lost its log, may go on without a reset only where the lock was given back.
 */
static void
look_at_past(const struct leadership *l, struct joint *j)
{
    const struct memory *m = &l->memory;
    const struct lock_object *lock;

    if (l->found == OBJECTLOG_EMPTY) {
        j->was_ours = m->incarnation == 0 || m->incarnation == l->options.incarnation;
        return;
    }
    lock = objectlog_lock(l->chain);
    j->was_ours = m->incarnation == l->options.incarnation ||
                  (m->incarnation == 0 && lock->holder == l->options.incarnation &&
                   l->recovered_term >= lock->term); /* the memory was deleted */
    /* The lock is not taken before the first upload: the memory says whether it was led. */
    j->released = lock->released && m->led_term == 0;
    j->released_index = lock->released_index;
}

t4_status
acquire_built_in(struct leadership *l, struct leadership_acquired *out,
                 struct error *error)
{
    struct joint j = {.rule = RULE_LOCAL};
    t4_status status = acquire_open(l, error);

    if (status == T4_OK)
        status = acquire_check_store(l, error);
    if (status != T4_OK)
        return status;
    look_at_past(l, &j);
    l->built_in_term = next_term(l);
    status = join_logs(l, &j, l->built_in_term, out, error);
    return status == T4_E_IO ? T4_E_INTERNAL : status; /* the disk's: not to be retried */
}

/* The chain ends where it ended when the logs were joined: nobody else may write here. */
static t4_status
no_more(void *arg, uint64_t index, struct t4_slice entry, const struct segment *segment,
        struct error *error)
{
    (void)arg;
    (void)entry;
    error_set(error, T4_E_PRECONDITION,
              "entry %" PRIu64 " was put into the built-in store by another server "
              "(term %" PRIu64 ")",
              index, segment->term);
    return error_hint(error, "the folder belongs to one data directory: a server that "
                             "shares a store is given it with --object-store");
}

static t4_status
take(struct leadership *l, struct error *error)
{
    struct objectlog_tail tail;
    uint64_t term = l->built_in_term;
    t4_status status = T4_OK;

    if (l->found != OBJECTLOG_COMPLETE)
        status = objectlog_bootstrap(l->chain, l->ids.cluster_id, l->ids.lineage,
                                     RULE_LOCAL, error);
    if (status == T4_OK)
        l->found = OBJECTLOG_COMPLETE;
    l->memory.term = term;
    if (status == T4_OK)
        status = acquire_note_counters(l, error);
    if (status == T4_OK)
        status = objectlog_take_over(l->chain, &term, error);
    if (status == T4_OK)
        status = acquire_note_counters(l, error);
    if (status != T4_OK)
        return status;
    objectlog_begin_at(l->chain, &l->memory.place);
    status = objectlog_read(l->chain, no_more, NULL, &tail, error);
    if (status == T4_OK && objectlog_lock(l->chain)->rule != RULE_LOCAL)
        status = objectlog_change_rule(l->chain, RULE_LOCAL, error);
    return status;
}

t4_status
built_in_take(struct leadership *l, struct error *error)
{
    struct error why = {0};
    t4_status status;

    if (l->taken)
        return T4_OK;
    status = take(l, &why);
    l->taken = status == T4_OK;
    if (status == T4_E_NOSPACE || acquire_is_passing(status)) {
        /* Its disk is full or fails.  Nothing depends on this store but the next start's speed. */
        leadership_note_degraded(l, why.message);
        l->retry_ns = l->options.env->boot_ns(l->options.env->state) + RETRY_NS;
        return T4_E_BUSY;
    }
    if (status != T4_OK)
        *error = why;
    else if (l->retry_ns != 0)
        leadership_note_degraded(l, NULL);
    return status;
}

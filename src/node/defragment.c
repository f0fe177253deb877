/*
 * defragment.c - makes the storage engine's file as small as what it holds, while all goes on.
 *
 * First what was asked for before must be in the engine: the memtables are flushed and the
 * compaction is done, for only then does the file hold what the client believes.  Then the
 * engine thread takes the engine's steps, one after each piece of flush or compaction; while
 * memtables pile up the flush has three pieces for each of them, so that writers do not wait.
 *
 * Requests that come while it is under way wait for the next time.
 *
 * Runs on: the engine thread; defragment_wait() on any.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <inttypes.h>
#include <stdio.h>

#include "base/log.h"
#include "node/node_int.h"

#define FROZEN_FIRST 2u     /* frozen memtables from which on the flush goes first ... */
#define FLUSHES_PER_STEP 4u /* ... in all but one of so many turns */

void
defragment_init(struct node *n)
{
    mutex_init(&n->defragment.lock);
}

void
defragment_free(struct node *n)
{
    mutex_destroy(&n->defragment.lock);
}

void
defragment_wait(struct node *n, struct node_request *r)
{
    mutex_lock(&n->defragment.lock);
    r->next = n->defragment.waiting;
    n->defragment.waiting = r;
    mutex_unlock(&n->defragment.lock);
    background_poke_engine(n);
}

static struct node_request *
take_waiting(struct node *n)
{
    struct node_request *r;

    mutex_lock(&n->defragment.lock);
    r = n->defragment.waiting;
    n->defragment.waiting = NULL;
    mutex_unlock(&n->defragment.lock);
    return r;
}

static void
answer_all(struct node_request *r, enum etcd_error error)
{
    while (r != NULL) {
        struct node_request *next = r->next;

        r->error = error;
        r->done(r);
        r = next;
    }
}

void
defragment_refuse(struct node *n)
{
    answer_all(n->defragment.served, ETCD_STOPPED);
    n->defragment.served = NULL;
    answer_all(take_waiting(n), ETCD_STOPPED);
}

static uint64_t
now_ns(struct node *n)
{
    return n->options.env->boot_ns(n->options.env->state);
}

static uint64_t
file_bytes(struct node *n)
{
    struct t4_engine_stats stats = {.size = sizeof stats};

    return engine_stats(n->engine, &stats) == T4_OK ? stats.file_bytes : 0;
}

/* The requests that wait are served together.  False: there are none. */
static bool
take_requests(struct node *n)
{
    struct node_request *r = take_waiting(n);

    if (r == NULL)
        return false;
    n->defragment.served = r;
    n->defragment.index = 0;
    n->defragment.compacted = mvcc_is_complete(n->mvcc) ? mvcc_compacted(n->mvcc) : 0;
    for (; r != NULL; r = r->next)
        if (r->release_index > n->defragment.index)
            n->defragment.index = r->release_index;
    return true;
}

static bool
is_settled(struct node *n)
{
    return mvcc_flushed_index(n->mvcc) >= n->defragment.index &&
           mvcc_compacted_physically(n->mvcc) >= n->defragment.compacted;
}

static void
finish(struct node *n, t4_status status, const struct error *error)
{
    uint64_t ns = now_ns(n) - n->defragment.began_ns;
    char before[24], after[24], ms[24];

    n->defragment.running = false;
    snprintf(before, sizeof before, "%" PRIu64, n->defragment.bytes_before);
    snprintf(after, sizeof after, "%" PRIu64, file_bytes(n));
    snprintf(ms, sizeof ms, "%" PRIu64, ns / 1000000);
    if (status == T4_OK) {
        metric_observe(&n->metrics, METRIC_DEFRAGMENT_SECONDS, ns);
        alarm_measure(n);
        LOG_INFO("the storage engine was defragmented", "bytes_before", before,
                 "bytes_after", after, "milliseconds", ms, NULL);
    } else {
        LOG_ERROR("the storage engine could not be defragmented; it is as it was",
                  "reason", error->message, "hint", error->hint, NULL);
    }
    answer_all(n->defragment.served, status == T4_OK          ? ETCD_OK
                                     : status == T4_E_NOSPACE ? ETCD_DEFRAGMENT_NO_SPACE
                                     : status == T4_E_NOMEM   ? ETCD_ENGINE_NO_MEMORY
                                                              : ETCD_DEFRAGMENT_FAILED);
    n->defragment.served = NULL;
}

bool
defragment_step(struct node *n, bool well, unsigned *waiting)
{
    struct error error;
    t4_status status;
    bool more;

    if (n->defragment.served == NULL && !take_requests(n))
        return false;
    if (!n->defragment.running) {
        /* On a full disk nothing more gets into the engine: then what it holds must do. */
        if (well && !is_settled(n)) {
            ++*waiting;
            return false;
        }
        n->defragment.running = true;
        n->defragment.began_ns = now_ns(n);
        n->defragment.bytes_before = file_bytes(n);
    }
    if (mvcc_frozen_count(n->mvcc) >= FROZEN_FIRST &&
        ++n->defragment.turn % FLUSHES_PER_STEP != 0)
        return false;
    status = engine_defragment(n->engine, &more, &error);
    if (status == T4_E_IO) /* it is of no use any more */
        node_fatal(n, &error);
    if (status != T4_OK || !more)
        finish(n, status, &error);
    return true;
}

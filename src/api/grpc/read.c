/*
 * read.c - what a read waits for: a part of the checkpoint before it, proof of leadership after.
 *
 * I5: a linearizable read is true if this server leads *after* it was made; else it is made
 * again once that is proven.
 *
 * Threads: any; a struct read_wait belongs to one read, which waits for one thing at a time.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "api/grpc/grpc_int.h"
#include "base/memory.h"

void
read_wait_init(struct read_wait *w, struct node *node, void (*again)(struct read_wait *w),
               void (*refused)(struct read_wait *w, enum etcd_error error))
{
    w->node = node;
    w->again = again;
    w->refused = refused;
    w->repeated = 0;
}

static void
range_came(struct hydration_wait *h, t4_status status)
{
    struct read_wait *w = container_of(h, struct read_wait, hydration);

    if (status == T4_OK)
        w->again(w);
    else
        w->refused(w, node_hydration_error(status));
}

bool
read_is_ready(struct read_wait *w, const struct range_request *range,
              const struct txn_request *txn)
{
    enum hydration_answer answer;

    w->hydration.done = range_came;
    answer = range != NULL ? node_range_ready(w->node, range, &w->hydration)
                           : node_txn_ready(w->node, txn, &w->hydration);
    if (answer == HYDRATION_REFUSED)
        w->refused(w, node_hydration_error(w->hydration.status));
    return answer == HYDRATION_READY;
}

static void
refuse_unproven(struct read_wait *w)
{
    metric_add(node_metrics(w->node), METRIC_READS_UNPROVEN, 1);
    w->refused(w, ETCD_NO_LEADER);
}

static void
proof_came(struct leadership_wait *l, bool proven)
{
    struct read_wait *w = container_of(l, struct read_wait, proof);

    if (proven)
        w->again(w);
    else
        refuse_unproven(w);
}

bool
read_is_proven(struct read_wait *w, struct chain *out)
{
    if (node_is_proven(w->node))
        return true;
    chain_free(out);
    metric_add(node_metrics(w->node), METRIC_READS_WAITED, 1);
    w->proof.done = proof_came;
    if (w->repeated++ >= READ_REPEATS_MAX || !node_when_proven(w->node, &w->proof))
        refuse_unproven(w);
    return false;
}

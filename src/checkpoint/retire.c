/*
 * retire.c - the manifest's list of checkpoints: what is put on it and what comes off.  Pure.
 *
 * Coming off the list is for good: what only that checkpoint reached may be deleted from then on
 * (pin.pml, mark = not listed).
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "checkpoint/checkpoint_int.h"

#define KEPT_LEAST 2u

static void
take_off(struct manifest_object *m, uint32_t i)
{
    memmove(&m->checkpoint[i], &m->checkpoint[i + 1],
            (m->n_checkpoints - i - 1) * sizeof m->checkpoint[0]);
    m->n_checkpoints--;
    memset(&m->checkpoint[m->n_checkpoints], 0, sizeof m->checkpoint[0]);
}

/*
 * One that lies between two of almost the same time.  The newest two stay, for they are what
 * recovery needs, and the oldest, for it is how far back one can go.
 */
static void
make_room(struct manifest_object *m)
{
    uint32_t best = KEPT_LEAST;
    uint64_t least = UINT64_MAX;

    for (uint32_t i = KEPT_LEAST; i + 1 < m->n_checkpoints; i++) {
        uint64_t newer = m->checkpoint[i - 1].time_ms,
                 older = m->checkpoint[i + 1].time_ms;
        uint64_t gap = newer > older ? newer - older : 0;

        if (gap < least) {
            least = gap;
            best = i;
        }
    }
    take_off(m, best);
}

void
list_begin_at(struct manifest_object *m, uint32_t i, const struct checkpoint_object *o)
{
    while (i-- > 0)
        take_off(m, 0);
    m->newest = *o;
}

void
list_add(struct manifest_object *m, const struct checkpoint_object *newest,
         const uint8_t sha256[SHA256_BYTES])
{
    struct checkpoint_name *name = &m->checkpoint[0];

    if (m->n_checkpoints == MANIFEST_CHECKPOINTS_MAX)
        make_room(m);
    memmove(&m->checkpoint[1], &m->checkpoint[0],
            m->n_checkpoints * sizeof m->checkpoint[0]);
    m->n_checkpoints++;
    m->newest = *newest;
    *name = (struct checkpoint_name){.term = newest->term,
                                     .index = newest->index,
                                     .time_ms = newest->time_ms,
                                     .revision = newest->revision};
    memcpy(name->sha256, sha256, SHA256_BYTES);
}

bool
list_retire(struct manifest_object *m, uint64_t now_ms, uint64_t retention_ms)
{
    uint64_t begin = now_ms > retention_ms ? now_ms - retention_ms : 0;
    bool changed = false;

    /* A clock that jumped must not empty the window in one round (I8). */
    if (retention_ms > 0 && m->n_checkpoints > 0) {
        uint64_t oldest = m->checkpoint[m->n_checkpoints - 1].time_ms;

        if (begin > oldest + retention_ms / 4)
            begin = oldest + retention_ms / 4;
    }
    /* The oldest goes while the one above it is as old as the window, and serves for it. */
    while (m->n_checkpoints > KEPT_LEAST &&
           m->checkpoint[m->n_checkpoints - 2].time_ms <= begin) {
        take_off(m, m->n_checkpoints - 1);
        changed = true;
    }
    return changed;
}

bool
list_oldest_serves(const struct manifest_object *m, uint64_t now_ms,
                   uint64_t retention_ms)
{
    return m->n_checkpoints >= KEPT_LEAST &&
           m->checkpoint[m->n_checkpoints - 1].time_ms + retention_ms <= now_ms;
}

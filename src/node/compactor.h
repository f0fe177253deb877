/*
 * compactor.h - when history is compacted by itself, and up to which revision: etcd's rules.
 *
 * A pure machine: whoever owns it tells it the time and the newest revision, and is told what
 * to compact.  Periodic: the revision is sampled ten times in each period (or hour, if that is
 * shorter); first after a whole period, then each period or hour, all is compacted to what was
 * the newest at the oldest sample, one period ago, or one and one pause.  By revision: every
 * five minutes all but the newest so many.
 *
 * Times are nanoseconds of the boot clock.  One thread at a time.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef NODE_COMPACTOR_H
#define NODE_COMPACTOR_H

#include <stdbool.h>
#include <stdint.h>

enum compactor_mode { COMPACTOR_OFF, COMPACTOR_PERIODIC, COMPACTOR_REVISION };

struct compactor {
    enum compactor_mode mode;
    uint64_t period_ns; /* PERIODIC */
    int64_t keep;       /* REVISION */
    uint64_t due_ns;    /* of the next look */
    uint64_t success_ns;
    bool once;       /* it has compacted: from now on each interval */
    int64_t done_to; /* newest revision compacted to */
    int64_t *sample; /* PERIODIC: a ring, the oldest at `first` */
    uint32_t samples, capacity, first;
};

/* Begins at now_ns with the newest revision.  `retention`: nanoseconds or revisions; 0: off. */
void compactor_init(struct compactor *c, enum compactor_mode mode, uint64_t retention,
                    uint64_t now_ns, int64_t revision);
void compactor_free(struct compactor *c);
/*
 * The revision to compact to now, or 0.  To be called often; `leading` false: only looks on, so
 * that it is up to date when it has to.
 */
int64_t compactor_tick(struct compactor *c, uint64_t now_ns, int64_t revision,
                       bool leading);
/* That compaction is done, or had been done already.  After a failure the next look asks again. */
void compactor_done(struct compactor *c, uint64_t now_ns, int64_t revision);

#endif

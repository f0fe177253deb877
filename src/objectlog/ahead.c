/*
 * ahead.c - slots asked for some at a time.
 *
 * One after the other would be slower than a leader with several puts under way fills them.  A
 * request that fails is made again by the caller's own thread, with its tries and words.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "base/memory.h"
#include "env/workers.h"
#include "objectlog/objectlog_int.h"

#define AHEAD 16u

struct fetch {
    struct job job;
    struct ahead *ahead;
    uint64_t slot;
    struct buffer object;
    t4_status status;
};

struct ahead {
    struct objectlog *c;
    struct workers *workers;
    struct mutex lock;
    struct condition done;
    unsigned under_way; /* [lock] */
    struct fetch fetch[AHEAD];
    unsigned n, next; /* fetch[next] is the next one to be taken */
};

static void
fetch_slot(struct job *job)
{
    struct fetch *f = container_of(job, struct fetch, job);
    struct ahead *p = f->ahead;
    struct t4_object_info info = {.size = sizeof info};
    char key[SLOT_KEY_BYTES];

    slot_key(key, f->slot);
    buffer_clear(&f->object);
    f->status =
        object_get(p->c->options.store, slice_str(key), 0, T4_TO_THE_END,
                   SEGMENT_OBJECT_MAX, p->c->options.timeout_ns, &f->object, &info, NULL);
    mutex_lock(&p->lock);
    if (--p->under_way == 0)
        condition_signal(&p->done);
    mutex_unlock(&p->lock);
}

struct ahead *
ahead_new(struct objectlog *c)
{
    struct ahead *p = mem_zalloc(sizeof *p);

    p->c = c;
    p->workers = workers_new("t4-fetch", AHEAD);
    mutex_init(&p->lock);
    condition_init(&p->done);
    return p;
}

void
ahead_free(struct ahead *p)
{
    workers_free(p->workers);
    for (unsigned i = 0; i < AHEAD; i++)
        buffer_free(&p->fetch[i].object);
    condition_destroy(&p->done);
    mutex_destroy(&p->lock);
    mem_free(p);
}

static void
fetch_more(struct ahead *p, uint64_t slot, unsigned n)
{
    p->n = n;
    p->next = 0;
    p->under_way = n;
    for (unsigned i = 0; i < n; i++) {
        p->fetch[i].ahead = p;
        p->fetch[i].slot = slot + i;
        p->fetch[i].job.run = fetch_slot;
        workers_submit(p->workers, &p->fetch[i].job);
    }
    mutex_lock(&p->lock);
    while (p->under_way > 0)
        condition_wait(&p->done, &p->lock);
    mutex_unlock(&p->lock);
}

t4_status
ahead_get(struct ahead *p, const char *key, uint64_t slot, uint64_t most,
          struct error *error)
{
    struct objectlog *c = p->c;
    struct fetch *f;

    if (p->next == p->n || p->fetch[p->next].slot != slot)
        fetch_more(p, slot, most < AHEAD ? (unsigned)most : AHEAD);
    f = &p->fetch[p->next++];
    if (f->status != T4_OK)
        return objectlog_get(c, key, SEGMENT_OBJECT_MAX, &c->object, NULL, TRY, error);
    buffer_clear(&c->object);
    buffer_append_slice(&c->object, buffer_slice(&f->object));
    return T4_OK;
}

/*
 * workers.c - a pool of threads over one queue.  See workers.h.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "env/workers.h"

#include "base/memory.h"
#include "env/thread.h"

struct workers {
    struct mutex lock;
    struct condition work;    /* [lock] a job is queued, or stopping */
    struct job *head, **tail; /* [lock] */
    uint32_t idle;            /* [lock] threads that wait */
    bool stopping;            /* [lock] */
    uint32_t n;
    struct thread thread[];
};

static void *
worker_main(void *arg)
{
    struct workers *w = arg;

    mutex_lock(&w->lock);
    for (;;) {
        struct job *job = w->head;

        if (job == NULL) {
            if (w->stopping)
                break;
            w->idle++;
            condition_wait(&w->work, &w->lock);
            w->idle--;
            continue;
        }
        w->head = job->next;
        if (w->head == NULL)
            w->tail = &w->head;
        mutex_unlock(&w->lock);
        job->run(job);
        mutex_lock(&w->lock);
    }
    mutex_unlock(&w->lock);
    return NULL;
}

struct workers *
workers_new(const char *name, uint32_t n)
{
    struct workers *w = mem_zalloc(sizeof *w + n * sizeof w->thread[0]);

    mutex_init(&w->lock);
    condition_init(&w->work);
    w->tail = &w->head;
    w->n = n;
    for (uint32_t i = 0; i < n; i++)
        thread_start(&w->thread[i], name, worker_main, w);
    return w;
}

void
workers_submit(struct workers *w, struct job *job)
{
    job->next = NULL;
    mutex_lock(&w->lock);
    *w->tail = job;
    w->tail = &job->next;
    if (w->idle > 0)
        condition_signal(&w->work);
    mutex_unlock(&w->lock);
}

void
workers_free(struct workers *w)
{
    mutex_lock(&w->lock);
    w->stopping = true;
    condition_broadcast(&w->work);
    mutex_unlock(&w->lock);
    for (uint32_t i = 0; i < w->n; i++)
        thread_join(&w->thread[i]);
    condition_destroy(&w->work);
    mutex_destroy(&w->lock);
    mem_free(w);
}

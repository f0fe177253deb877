/*
 * thread.c - threads, mutexes and condition variables over pthread.  See thread.h.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* pthread_setname_np */
#endif
#include "env/thread.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "base/memory.h"

static void
check(int rc, const char *what)
{
    if (rc != 0) {
        fprintf(stderr, "t4: %s: %s; stopping\n", what, strerror(rc));
        abort();
    }
}

void
mutex_init(struct mutex *m)
{
    check(pthread_mutex_init(&m->m, NULL), "cannot create a mutex");
}

void
mutex_destroy(struct mutex *m)
{
    pthread_mutex_destroy(&m->m);
}

void
condition_init(struct condition *c)
{
    pthread_condattr_t attr;

    check(pthread_condattr_init(&attr), "cannot create a condition variable");
    check(pthread_condattr_setclock(&attr, CLOCK_MONOTONIC), "cannot set a clock");
    check(pthread_cond_init(&c->c, &attr), "cannot create a condition variable");
    pthread_condattr_destroy(&attr);
}

void
condition_destroy(struct condition *c)
{
    pthread_cond_destroy(&c->c);
}

bool
condition_wait_for(struct condition *c, struct mutex *m, uint64_t ns)
{
    struct timespec until;

    clock_gettime(CLOCK_MONOTONIC, &until);
    ns += (uint64_t)until.tv_nsec;
    until.tv_sec += (time_t)(ns / 1000000000u);
    until.tv_nsec = (long)(ns % 1000000000u);
    return pthread_cond_timedwait(&c->c, &m->m, &until) != ETIMEDOUT;
}

struct start {
    void *(*fn)(void *);
    void *arg;
    const struct log_sink *sink; /* of whoever started it */
};

static void *
thread_main(void *arg)
{
    struct start s = *(struct start *)arg;

    mem_free(arg);
    log_set_sink(s.sink);
    return s.fn(s.arg);
}

void
thread_start(struct thread *t, const char *name, void *(*fn)(void *), void *arg)
{
    struct start *s = mem_alloc(sizeof *s);
    sigset_t all, before;

    *s = (struct start){fn, arg, log_get_sink()};

    /* Signals are the main thread's business; a thread inherits the mask. */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    check(pthread_create(&t->t, NULL, thread_main, s), "cannot create a thread");
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_setname_np(t->t, name);
}

void
thread_join(struct thread *t)
{
    check(pthread_join(t->t, NULL), "cannot join a thread");
}

void
thread_yield_to_others(void)
{
    /* On Linux this is of the thread alone.  Where it is refused things go on as they are. */
    setpriority(PRIO_PROCESS, (id_t)gettid(), 15);
}

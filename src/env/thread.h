/*
 * thread.h - threads, mutexes and condition variables.
 *
 * Thin on purpose: pthread underneath, failures of which (they mean a bug or an exhausted
 * machine) stop the process with a message.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef ENV_THREAD_H
#define ENV_THREAD_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

struct mutex {
    pthread_mutex_t m;
};
struct condition {
    pthread_cond_t c; /* on CLOCK_MONOTONIC */
};
struct thread {
    pthread_t t;
};

void mutex_init(struct mutex *m);
void mutex_destroy(struct mutex *m);
void condition_init(struct condition *c);
void condition_destroy(struct condition *c);
/* Waits at most `ns` nanoseconds (of CLOCK_MONOTONIC); false: the time is over. */
bool condition_wait_for(struct condition *c, struct mutex *m, uint64_t ns);
/*
 * Starts a thread with all signals blocked and the caller's log sink; name: at most 15
 * characters (shown by ps -L).
 */
void thread_start(struct thread *t, const char *name, void *(*fn)(void *), void *arg);
void thread_join(struct thread *t);
/* The calling thread gives way to others where the system allows it: for work nobody waits for. */
void thread_yield_to_others(void);

static inline void
mutex_lock(struct mutex *m)
{
    pthread_mutex_lock(&m->m);
}

static inline bool
mutex_try_lock(struct mutex *m)
{
    return pthread_mutex_trylock(&m->m) == 0;
}

static inline void
mutex_unlock(struct mutex *m)
{
    pthread_mutex_unlock(&m->m);
}

static inline void
condition_wait(struct condition *c, struct mutex *m)
{
    pthread_cond_wait(&c->c, &m->m);
}

static inline void
condition_signal(struct condition *c)
{
    pthread_cond_signal(&c->c);
}

static inline void
condition_broadcast(struct condition *c)
{
    pthread_cond_broadcast(&c->c);
}

#endif

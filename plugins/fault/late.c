/*
 * late.c - requests that are carried out long after their caller was told UNKNOWN.
 *
 * A thread of the store does them in the order of their coming when they are due, unless a
 * line "hold late PREFIX" of the control file holds them back.  Each is sent to the inner
 * store with its own condition, as a request that was stuck in the network would be.
 *
 * Entry points: fault_put_later(), fault_remove_later(), fault_drain(), fault_stop().  Runs
 * on: any thread; the requests on the store's own thread, which is begun with the first.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <signal.h>
#include <string.h>
#include <time.h>

#include "fault.h"

#define POLL_MS 5 /* how often a held request looks at the control file */

struct fault_job {
    struct fault_job *next;
    uint64_t due_ns;
    bool is_put;
    struct t4_put put;
    size_t n_keys;
    struct t4_slice *keys;
    uint8_t bytes[];
};

static void
wait_changed(struct t4_store *s, unsigned ms)
{
    struct timespec until;

    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_nsec += (long)ms * 1000000;
    until.tv_sec += until.tv_nsec / 1000000000;
    until.tv_nsec %= 1000000000;
    pthread_cond_timedwait(&s->changed, &s->mutex, &until);
}

static void
apply(struct t4_store *s, struct fault_job *job)
{
    struct t4_object_info info = {.size = sizeof info};
    t4_status st;

    if (job->is_put)
        st = s->inner_ops->put(s->inner, NULL, &job->put, &info);
    else
        st = s->inner_ops->remove(s->inner, NULL, job->keys, job->n_keys);
    fault_log(s, job->is_put ? "late-put" : "late-remove",
              job->is_put ? job->put.key : job->keys[0], st);
}

/* The first job that is due and not held, taken off the list; mutex held. */
static struct fault_job *
take_due(struct t4_store *s, const struct fault_script *script)
{
    uint64_t now = s->host->now_ns();

    for (struct fault_job **at = &s->jobs; *at != NULL; at = &(*at)->next) {
        struct fault_job *job = *at;
        struct t4_slice key = job->is_put ? job->put.key : job->keys[0];
        bool held = false;

        for (unsigned i = 0; i < script->n_rules; i++) {
            const struct fault_rule *r = &script->rules[i];
            size_t n = strlen(r->prefix);

            held |= r->kind == RULE_HOLD && (r->calls & FAULT_LATE) && key.len >= n &&
                    memcmp(key.data, r->prefix, n) == 0;
        }
        if (held || (job->due_ns > now && !script->drain))
            continue;
        *at = job->next;
        return job;
    }
    return NULL;
}

static void *
late_main(void *arg)
{
    struct t4_store *s = arg;
    struct fault_script *script = s->host->alloc(s->host, sizeof *script);

    pthread_mutex_lock(&s->mutex);
    while (!s->stopping && script != NULL) {
        struct fault_job *job;
        t4_status st;

        if (s->jobs == NULL) {
            pthread_cond_wait(&s->changed, &s->mutex);
            continue;
        }
        pthread_mutex_unlock(&s->mutex);
        st = fault_read_script(s, NULL, script);
        pthread_mutex_lock(&s->mutex);
        job = st == T4_OK && !s->stopping ? take_due(s, script) : NULL;
        if (job == NULL) {
            if (!s->stopping)
                wait_changed(s, POLL_MS);
            continue;
        }
        s->applying = true;
        pthread_mutex_unlock(&s->mutex);
        apply(s, job);
        s->host->free(s->host, job);
        pthread_mutex_lock(&s->mutex);
        s->applying = false;
        pthread_cond_broadcast(&s->changed);
    }
    pthread_mutex_unlock(&s->mutex);
    s->host->free(s->host, script);
    return NULL;
}

static t4_status
enqueue(struct t4_store *s, struct fault_job *job, int64_t ms)
{
    struct fault_job **at = &s->jobs;
    sigset_t all, before;
    int failed = 0;

    job->next = NULL;
    job->due_ns = s->host->now_ns() + (uint64_t)ms * 1000000;
    pthread_mutex_lock(&s->mutex);
    if (!s->started) { /* signals are the server's business */
        sigfillset(&all);
        pthread_sigmask(SIG_SETMASK, &all, &before);
        failed = pthread_create(&s->thread, NULL, late_main, s);
        pthread_sigmask(SIG_SETMASK, &before, NULL);
        s->started = failed == 0;
    }
    if (!failed) {
        while (*at != NULL)
            at = &(*at)->next;
        *at = job;
    }
    pthread_cond_broadcast(&s->changed);
    pthread_mutex_unlock(&s->mutex);
    if (failed)
        s->host->free(s->host, job);
    return failed ? T4_E_NOMEM : T4_OK;
}

static struct t4_slice
copy(uint8_t **at, struct t4_slice from)
{
    struct t4_slice to = {*at, from.len};

    if (from.len > 0)
        memcpy(*at, from.data, from.len);
    *at += from.len;
    return to;
}

t4_status
fault_put_later(struct t4_store *s, const struct t4_put *put, int64_t ms)
{
    struct fault_job *job = s->host->alloc(
        s->host, sizeof *job + put->key.len + put->body.len + put->if_match.len);
    uint8_t *at;

    if (job == NULL)
        return T4_E_NOMEM;
    memset(job, 0, sizeof *job);
    at = job->bytes;
    job->is_put = true;
    job->put = *put;
    job->put.key = copy(&at, put->key);
    job->put.if_match = copy(&at, put->if_match);
    job->put.body = copy(&at, put->body);
    return enqueue(s, job, ms);
}

t4_status
fault_remove_later(struct t4_store *s, const struct t4_slice *keys, size_t n, int64_t ms)
{
    size_t bytes = n * sizeof *keys;
    struct fault_job *job;
    uint8_t *at;

    for (size_t i = 0; i < n; i++)
        bytes += keys[i].len;
    job = s->host->alloc(s->host, sizeof *job + bytes);
    if (job == NULL)
        return T4_E_NOMEM;
    memset(job, 0, sizeof *job);
    job->n_keys = n;
    job->keys = (struct t4_slice *)(void *)job->bytes;
    at = job->bytes + n * sizeof *keys;
    for (size_t i = 0; i < n; i++)
        job->keys[i] = copy(&at, keys[i]);
    return enqueue(s, job, ms);
}

t4_status
fault_drain(struct t4_store *s, struct t4_call *call)
{
    t4_status st = T4_OK;

    pthread_mutex_lock(&s->mutex);
    while (st == T4_OK && (s->jobs != NULL || s->applying)) {
        uint64_t deadline = s->host->deadline_ns(call);

        if (s->host->cancelled(call))
            st = T4_E_CANCELLED;
        else if (deadline != 0 && s->host->now_ns() >= deadline)
            st = T4_E_TIMEOUT;
        else
            wait_changed(s, 2 * POLL_MS);
    }
    pthread_mutex_unlock(&s->mutex);
    return st;
}

void
fault_stop(struct t4_store *s)
{
    struct fault_job *next;

    pthread_mutex_lock(&s->mutex);
    s->stopping = true;
    pthread_cond_broadcast(&s->changed);
    pthread_mutex_unlock(&s->mutex);
    if (s->started)
        pthread_join(s->thread, NULL);
    for (struct fault_job *job = s->jobs; job != NULL; job = next) {
        next = job->next;
        s->host->free(s->host, job);
    }
}

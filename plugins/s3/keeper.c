/*
 * keeper.c - the credentials of a store, kept fresh.
 *
 * Temporary credentials are renewed RENEW_AHEAD before they expire, by the call that comes
 * then; other calls go on with the old ones meanwhile, and wait only if these are used up.  A
 * renewal that fails while the old ones are valid is logged and tried again after RETRY.
 *
 * Invariant: at most one fetch is under way (`fetching`), and it holds no lock.
 *
 * Entry points: credentials_keep(), credentials_get(), credentials_refused(),
 * credentials_forget().  Any thread; keep and forget: serial.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <pthread.h>
#include <string.h>
#include <time.h>

#include "credentials.h"

#define RENEW_AHEAD_MS (5 * 60 * 1000)
#define USABLE_MS (10 * 1000)         /* left of their life, or they are used up */
#define READ_AGAIN_MS (5 * 60 * 1000) /* files do not say when they expire */
#define RETRY_MS (20 * 1000)
#define WAIT_STEP_MS 200

struct credentials_keeper {
    const struct t4_host *host;              /* [const] */
    struct http_client *client;              /* [const] */
    const struct credentials_source *source; /* [const] */
    pthread_mutex_t lock;
    pthread_cond_t changed;     /* `fetching` is over */
    bool fetching, have;        /* [lock] */
    int64_t renew_ms;           /* [lock] by the wall clock */
    struct credentials current; /* [lock] */
};

static int64_t
wall_ms(void)
{
    struct timespec t;

    clock_gettime(CLOCK_REALTIME, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

struct credentials_keeper *
credentials_keep(const struct t4_host *host, struct http_client *client,
                 const struct credentials_source *source)
{
    struct credentials_keeper *k = host->alloc(host, sizeof *k);
    pthread_condattr_t attributes;

    if (k == NULL)
        return NULL;
    memset(k, 0, sizeof *k);
    k->host = host;
    k->client = client;
    k->source = source;
    pthread_mutex_init(&k->lock, NULL);
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&k->changed, &attributes);
    pthread_condattr_destroy(&attributes);
    return k;
}

void
credentials_forget(struct credentials_keeper *k)
{
    const struct t4_host *host = k->host;

    pthread_cond_destroy(&k->changed);
    pthread_mutex_destroy(&k->lock);
    explicit_bzero(k, sizeof *k);
    host->free(host, k);
}

const char *
credentials_words(const struct credentials_keeper *k)
{
    return k->source->words;
}

void
credentials_refused(struct credentials_keeper *k, const char *id)
{
    pthread_mutex_lock(&k->lock);
    if (k->have && k->source->kind != CREDENTIALS_FIXED && strcmp(k->current.id, id) == 0)
        k->have = false;
    pthread_mutex_unlock(&k->lock);
}

static bool
usable(const struct credentials_keeper *k, int64_t now)
{
    return k->have &&
           (k->current.expires_ms == 0 || now < k->current.expires_ms - USABLE_MS);
}

/* Lock held.  Waits a little for the end of the fetch that is under way. */
static t4_status
wait_a_little(struct credentials_keeper *k, struct t4_call *call)
{
    const struct t4_host *host = k->host;
    uint64_t deadline = host->deadline_ns(call);
    struct timespec until;

    if (host->cancelled(call))
        return host->fail(call, T4_E_CANCELLED, "cancelled while waiting for credentials",
                          NULL, NULL);
    if (deadline != 0 && host->now_ns() >= deadline)
        return host->fail(call, T4_E_TIMEOUT, "no credentials within the deadline", NULL,
                          NULL);
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_nsec += WAIT_STEP_MS * 1000000L;
    if (until.tv_nsec >= 1000000000L) {
        until.tv_sec++;
        until.tv_nsec -= 1000000000L;
    }
    pthread_cond_timedwait(&k->changed, &k->lock, &until);
    return T4_OK;
}

/* When to ask again for credentials that came at `now`. */
static int64_t
renewal(const struct credentials_source *source, const struct credentials *c, int64_t now)
{
    int64_t ahead = RENEW_AHEAD_MS;

    if (source->kind == CREDENTIALS_FIXED)
        return INT64_MAX;
    if (c->expires_ms == 0)
        return now + READ_AGAIN_MS;
    if (c->expires_ms - now < 2 * ahead) /* short-lived: at the middle of their life */
        ahead = (c->expires_ms - now) / 2;
    return c->expires_ms - ahead;
}

/* Lock held, `fetching` set; the lock is let go meanwhile. */
static t4_status
fetch(struct credentials_keeper *k, struct t4_call *call)
{
    struct credentials fresh;
    t4_status st;
    int64_t now;

    pthread_mutex_unlock(&k->lock);
    memset(&fresh, 0, sizeof fresh);
    st = credentials_fetch(k->host, k->client, call, k->source, &fresh);
    now = wall_ms();
    pthread_mutex_lock(&k->lock);
    if (st == T4_OK) {
        k->current = fresh;
        k->have = true;
        k->renew_ms = renewal(k->source, &fresh, now);
    } else if (usable(k, now)) {
        k->host->log(
            k->host, T4_LOG_WARN,
            "s3: the credentials could not be renewed; going on with those that are "
            "still valid");
        k->renew_ms = now + RETRY_MS;
        st = T4_OK;
    }
    k->fetching = false;
    pthread_cond_broadcast(&k->changed);
    explicit_bzero(&fresh, sizeof fresh);
    return st;
}

t4_status
credentials_get(struct credentials_keeper *k, struct t4_call *call,
                struct credentials *out)
{
    t4_status st = T4_OK;

    pthread_mutex_lock(&k->lock);
    for (;;) {
        int64_t now = wall_ms();

        if (usable(k, now) && (now < k->renew_ms || k->fetching))
            break;
        if (k->fetching) {
            st = wait_a_little(k, call);
        } else {
            k->fetching = true;
            st = fetch(k, call);
            /* What comes with a short life, or expired, is still the best there is. */
            if (st == T4_OK)
                break;
        }
        if (st != T4_OK)
            break;
    }
    if (st == T4_OK)
        *out = k->current;
    pthread_mutex_unlock(&k->lock);
    return st;
}

/*
 * watch.c - watches of a program: events by a callback, or taken when a descriptor says so.
 *
 * Each t4_watch is a stream of the hub (watch/watch.h) with one watcher.  It holds one message
 * that nobody has taken yet; the hub is asked for the next when that is taken, and keeps what
 * waits behind it within its own bounds.
 *
 * Locks: watch.lock guards everything of one watch, and is held while the hub is told something
 * (which only queues work); the hub's thread takes it in send(), end() and closed(), and never
 * waits for a user's function.  db.lock guards the list of watches; it is taken before a
 * watch's, never after.
 *
 * Invariants
 *  (1) `stream` is not used after watch_stream_close(), nor after closed()
 *  (2) the descriptor is readable while there is a message or the watch has ended
 *  (3) a callback job is queued only while there is something to take, one at a time
 *  (4) after t4_watch_close() the user's function is not running and is not called again
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <errno.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/memory.h"
#include "base/slice.h"
#include "lib/lib_int.h"

struct t4_watch {
    t4_db *db;
    _Atomic uint32_t references; /* the user's, the hub's, a queued job's, the list's */
    int fd;                      /* [const] eventfd; -1 with a callback */
    t4_watch_fn *function;       /* [const] NULL: taken with t4_watch_next() */
    void *arg;
    struct lib_callback callback;

    struct mutex lock;
    struct condition changed;
    struct watch_stream *stream; /* NULL: closed, or being closed */
    bool gone;                   /* the hub has let go of it */
    bool created;                /* the hub has answered the create */
    bool has_message;
    struct chain message; /* if has_message */
    bool ended;           /* nothing comes any more but what is held; `why` says why */
    bool last_given;      /* the user knows that it has ended */
    t4_error why;
    bool queued;                        /* a job is on its way, or running */
    bool running;                       /* the user's function is being called */
    bool closed;                        /* t4_watch_close() was called */
    struct t4_watch *next_open, **link; /* [db.lock] link NULL: not on the list */
};

static void
watch_unref(struct t4_watch *w)
{
    if (atomic_fetch_sub(&w->references, 1) > 1)
        return;
    if (w->has_message)
        chain_free(&w->message);
    if (w->fd >= 0)
        close(w->fd);
    condition_destroy(&w->changed);
    mutex_destroy(&w->lock);
    lib_unref(w->db);
    mem_free(w);
}

/* --- what can be taken  [watch.lock] ------------------------------------------------------------ */

static bool
has_news(const struct t4_watch *w)
{
    return w->has_message || (w->ended && !w->last_given);
}

static void run_watch(struct lib_callback *c);

/* Tells whoever waits; has the user's function called. */
static void
announce(struct t4_watch *w)
{
    const uint64_t one = 1;

    if (w->fd >= 0) {
        while (write(w->fd, &one, sizeof one) < 0 && errno == EINTR)
            ;
    } else if (w->function != NULL && w->created && !w->queued && !w->closed) {
        w->queued = true;
        atomic_fetch_add(&w->references, 1);
        w->callback.db = w->db;
        w->callback.run = run_watch;
        lib_call_back(&w->callback);
    }
    condition_broadcast(&w->changed);
}

/* Nothing is left to be taken: the descriptor is not readable any more. */
static void
calm(struct t4_watch *w)
{
    uint64_t count;

    if (w->fd >= 0 && !w->has_message && !w->ended)
        while (read(w->fd, &count, sizeof count) < 0 && errno == EINTR)
            ;
}

static void
set_ended(struct t4_watch *w, t4_status status, const char *message, const char *hint)
{
    if (w->ended)
        return;
    w->ended = true;
    lib_fail(&w->why, status, message, hint);
}

static t4_status
fail_compacted(t4_error *error, int64_t compacted)
{
    char text[120];

    snprintf(text, sizeof text,
             "the revision to watch from was compacted: the compacted revision is %lld",
             (long long)compacted);
    return lib_fail(error, T4_E_COMPACTED, text,
                    "read the keys anew and watch from the revision behind that");
}

/* A message of the hub that says that the watcher is over. */
static void
set_canceled(struct t4_watch *w, const struct watch_answer *answer)
{
    char text[200];

    if (answer->compact_revision > 0) {
        snprintf(
            text, sizeof text,
            "the revision to watch from was compacted: the compacted revision is %lld",
            (long long)answer->compact_revision);
        set_ended(w, T4_E_COMPACTED, text,
                  "read the keys anew and watch from the revision behind that");
    } else {
        snprintf(text, sizeof text, "%.*s", (int)answer->reason.len,
                 (const char *)answer->reason.data);
        set_ended(w, T4_E_INVALID, text, "");
    }
}

/* --- the hub's transport (hub's thread) --------------------------------------------------- */

/* The first message is the answer to the create. */
static void
take_created(struct t4_watch *w, struct chain *message)
{
    struct watch_answer answer;

    if (!lib_answer_watch(message, &answer))
        set_ended(w, T4_E_INTERNAL, "a message of the watch cannot be read", "");
    else if (answer.canceled || !answer.created)
        set_canceled(w, &answer);
    t4_free(answer.events);
    w->created = true;
    if (w->stream != NULL)
        watch_stream_sent(w->stream);
}

static void
hub_send(void *arg, struct chain *message, bool more)
{
    struct t4_watch *w = arg;

    (void)more;
    mutex_lock(&w->lock);
    if (!w->created) {
        take_created(w, message);
        condition_broadcast(&w->changed);
    } else {
        w->has_message = true;
        chain_splice(&w->message, message);
        announce(w);
    }
    mutex_unlock(&w->lock);
}

static void
hub_end(void *arg, int error)
{
    struct t4_watch *w = arg;
    t4_error why;

    lib_fail_request(&why, (enum etcd_error)error);
    if (atomic_load(&w->db->broken))
        lib_fail_internal(&why, &w->db->why);
    mutex_lock(&w->lock);
    set_ended(w, why.status, why.message, why.hint);
    announce(w);
    mutex_unlock(&w->lock);
}

static void
hub_closed(void *arg)
{
    struct t4_watch *w = arg;

    mutex_lock(&w->lock);
    w->gone = true;
    condition_broadcast(&w->changed);
    mutex_unlock(&w->lock);
    watch_unref(w);
}

static const struct watch_transport transport = {hub_send, hub_end, hub_closed};

/* --- taking ---------------------------------------------------------------------------------- */

/*
 * What is to be taken: T4_OK and *out, or the end of the watch.  T4_E_TIMEOUT: nothing.  The lock
 * is held before and after, and let go of while a message is decoded.
 */
static t4_status
take(struct t4_watch *w, t4_events **out, t4_error *error)
{
    struct watch_answer answer;
    struct chain message;
    bool good;

    if (!w->has_message) {
        if (!w->ended)
            return T4_E_TIMEOUT;
        w->last_given = true;
        *error = w->why;
        return w->why.status;
    }
    chain_init(&message);
    chain_splice(&message, &w->message);
    w->has_message = false;
    calm(w);
    mutex_unlock(&w->lock);
    good = lib_answer_watch(&message, &answer);
    mutex_lock(&w->lock);
    if (!good)
        set_ended(w, T4_E_INTERNAL, "a message of the watch cannot be read", "");
    else if (answer.canceled)
        set_canceled(w, &answer);
    if (!good || answer.canceled) {
        t4_free(answer.events);
        announce(w);
        return take(w, out, error);
    }
    if (w->stream != NULL)
        watch_stream_sent(w->stream);
    *out = answer.events;
    return T4_OK;
}

/* On the callback thread. */
static void
run_watch(struct lib_callback *c)
{
    struct t4_watch *w = container_of(c, struct t4_watch, callback);

    mutex_lock(&w->lock);
    while (!w->closed && has_news(w)) {
        t4_events *events = NULL;
        t4_error error;
        t4_status status = take(w, &events, &error);

        if (w->closed) { /* meanwhile */
            t4_free(events);
            break;
        }
        w->running = true;
        mutex_unlock(&w->lock);
        w->function(w->arg, status, events, &error);
        mutex_lock(&w->lock);
        w->running = false;
        condition_broadcast(&w->changed);
        if (status == T4_OK && has_news(w) && !w->closed) { /* others come first */
            atomic_fetch_add(&w->references, 1);
            lib_call_back(&w->callback);
            mutex_unlock(&w->lock);
            watch_unref(w);
            return;
        }
    }
    w->queued = false;
    mutex_unlock(&w->lock);
    watch_unref(w);
}

/* --- the life of a watch ----------------------------------------------------------------------- */

/* The hub lets go of it; more than once is possible, and on several threads. */
static void
detach(struct t4_watch *w)
{
    mutex_lock(&w->lock);
    if (w->stream != NULL)
        watch_stream_close(w->stream);
    w->stream = NULL;
    while (!w->gone)
        condition_wait(&w->changed, &w->lock);
    mutex_unlock(&w->lock);
}

/* Takes it off the list; false: it is not there.  [db.lock] */
static bool
unlist(struct t4_watch *w)
{
    if (w->link == NULL)
        return false;
    *w->link = w->next_open;
    if (w->next_open != NULL)
        w->next_open->link = w->link;
    w->link = NULL;
    return true;
}

static void
list(struct t4_watch *w)
{
    t4_db *db = w->db;

    mutex_lock(&db->lock);
    w->next_open = db->watches;
    if (w->next_open != NULL)
        w->next_open->link = &w->next_open;
    w->link = &db->watches;
    db->watches = w;
    mutex_unlock(&db->lock);
}

void
lib_watches_end(t4_db *db)
{
    struct t4_watch *w;

    mutex_lock(&db->lock);
    while ((w = db->watches) != NULL) {
        unlist(w);
        mutex_unlock(&db->lock);
        mutex_lock(&w->lock);
        set_ended(w, T4_E_CLOSED, "the database is closed", "");
        announce(w);
        mutex_unlock(&w->lock);
        detach(w);
        watch_unref(w); /* the list's */
        mutex_lock(&db->lock);
    }
    mutex_unlock(&db->lock);
}

/* Within a call: the node is there. */
static t4_status
open_watch(struct t4_watch *w, const struct watch_create *create, t4_error *error)
{
    t4_status status = T4_OK;

    atomic_store(&w->references, 3); /* the user's, the hub's, the list's */
    mutex_lock(&w->lock);
    w->stream = watch_stream_open(node_watch_hub(w->db->node), &transport, w);
    watch_stream_create(w->stream, create);
    mutex_unlock(&w->lock);
    list(w);
    mutex_lock(&w->lock);
    while (!w->created && !w->ended)
        condition_wait(&w->changed, &w->lock);
    if (w->ended) {
        if (error != NULL)
            *error = w->why;
        status = w->why.status;
    }
    mutex_unlock(&w->lock);
    return status;
}

/*
 * The hub answers the create of such a watch, too, and tells the end afterwards; a compaction from
 * now on ends the watch in that way.
 */
static t4_status
check_start(t4_db *db, int64_t start, t4_error *error)
{
    struct node_status now;

    node_status(db->node, &now);
    return start < now.compacted_revision ? fail_compacted(error, now.compacted_revision)
                                          : T4_OK;
}

t4_status
t4_watch_open(t4_db *db, struct t4_slice key, struct t4_slice end,
              const t4_watch_options *options, t4_watch **out, t4_error *error)
{
    const uint32_t allowed = T4_PREV_KV | T4_NO_PUT | T4_NO_DELETE | T4_PROGRESS;
    struct watch_create create;
    struct t4_watch *w;
    t4_watch_options o;
    struct lib_call c;
    t4_status st;

    *out = NULL;
    st = lib_enter(&c, db, error);
    if (st != T4_OK)
        return st;
    st = lib_take_struct(options, sizeof o, &o, sizeof o, error);
    if (st == T4_OK)
        st = lib_check_flags(o.flags, allowed, error);
    if (st == T4_OK && key.len == 0)
        st = lib_fail_request(error, ETCD_EMPTY_KEY);
    if (st == T4_OK && o.start_revision < 0)
        st = lib_fail(error, T4_E_INVALID, "the start revision is negative",
                      "0: what is written from now on");
    if (st == T4_OK && o.start_revision > 0)
        st = check_start(db, o.start_revision, error);
    if (st != T4_OK)
        return lib_leave(&c, st);

    w = mem_zalloc(sizeof *w);
    w->db = lib_ref(db);
    mutex_init(&w->lock);
    condition_init(&w->changed);
    chain_init(&w->message);
    w->function = o.callback;
    w->arg = o.callback_arg;
    w->fd = o.callback != NULL ? -1 : eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (o.callback == NULL && w->fd < 0) {
        atomic_store(&w->references, 1);
        watch_unref(w);
        return lib_leave(&c, lib_fail(error, T4_E_IO,
                                      "no file descriptor is left for the watch",
                                      "raise the process's limit (ulimit -n)"));
    }
    create = (struct watch_create){
        .key = key,
        .range_end = end,
        .start_revision = o.start_revision,
        .progress_notify = (o.flags & T4_PROGRESS) != 0,
        .prev_kv = (o.flags & T4_PREV_KV) != 0,
        .no_put = (o.flags & T4_NO_PUT) != 0,
        .no_delete = (o.flags & T4_NO_DELETE) != 0,
    };
    st = open_watch(w, &create, error);
    if (st == T4_OK)
        *out = w;
    else
        t4_watch_close(w);
    return lib_leave(&c, st);
}

int
t4_watch_fd(const t4_watch *w)
{
    return w->fd;
}

t4_status
t4_watch_next(t4_watch *w, int timeout_ms, t4_events **out, t4_error *error)
{
    struct t4_error why;
    t4_status st;

    *out = NULL;
    if (!lib_is_of_this_process(w->db))
        return lib_refuse_forked(error);
    if (w->function != NULL)
        return lib_fail(error, T4_E_INVALID,
                        "the events of this watch go to its callback",
                        "open it without one");
    mutex_lock(&w->lock);
    if (!w->has_message && !w->ended && timeout_ms < 0)
        while (!w->has_message && !w->ended)
            condition_wait(&w->changed, &w->lock);
    else if (!w->has_message && !w->ended && timeout_ms > 0)
        while (!w->has_message && !w->ended &&
               condition_wait_for(&w->changed, &w->lock, (uint64_t)timeout_ms * 1000000))
            ;
    st = take(w, out, &why);
    mutex_unlock(&w->lock);
    if (st != T4_OK && st != T4_E_TIMEOUT && error != NULL)
        *error = why;
    return st;
}

t4_status
t4_watch_progress(t4_watch *w, t4_error *error)
{
    struct lib_call c;
    t4_status st = lib_enter(&c, w->db, error);

    if (st != T4_OK)
        return st;
    mutex_lock(&w->lock);
    if (w->stream != NULL)
        watch_stream_progress(w->stream);
    mutex_unlock(&w->lock);
    return lib_leave(&c, T4_OK);
}

void
t4_watch_close(t4_watch *w)
{
    t4_db *db;
    bool listed;

    if (w == NULL || !lib_is_of_this_process(w->db))
        return;
    db = lib_ref(w->db);
    mutex_lock(&w->lock);
    w->closed = true;
    mutex_unlock(&w->lock);
    mutex_lock(&db->lock);
    listed = unlist(w);
    mutex_unlock(&db->lock);
    detach(w);
    mutex_lock(&w->lock);
    while (w->running && !lib_is_calling_back(db))
        condition_wait(&w->changed, &w->lock);
    mutex_unlock(&w->lock);
    if (listed)
        watch_unref(w);
    watch_unref(w);
    lib_unref(db);
}

/*
 * hydrate.c - the handle: beginning and resuming, threads, asks and waits, progress.
 *
 * A task is a key, a range within a unit, or a unit.  Its life: queued -> fetched and merged by
 * one of the threads -> handed to the engine thread as a piece -> installed: what hangs on it is
 * answered.  Tasks that somebody waits for go before the background, which takes one unit
 * after the other with half of the threads.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "hydrate/hydrate.h"

#include <inttypes.h>
#include <stdio.h>

#include "base/log.h"
#include "base/memory.h"
#include "fmt/entry.h"
#include "hydrate/hydrate_int.h"

#define SECOND UINT64_C(1000000000)
#define TASKS_MAX 4096u            /* that somebody waits for */
#define INSTALLING_MAX (16u << 20) /* records on their way to the engine thread */
#define INTERVALS_MAX 4096u        /* in one unit, then all of it is fetched */
#define RETRY_NS (SECOND / 2)
#define AGAIN_NS (60 * SECOND)
#define TELL_NS (5 * SECOND)

static uint64_t
now_ns(const struct hydration *h)
{
    return h->options.env->boot_ns(h->options.env->state);
}

/* --- waits --------------------------------------------------------------------------------- */

/* Takes one off; true: it was the last and done() is due.  [lock] */
static bool
settle(struct hydration_wait *w, t4_status status)
{
    if (status != T4_OK)
        w->status = status;
    return --w->pending == 0;
}

/* Answers everything on a list of links, which is freed.  Those that are over: a list by next. */
static void
answer(struct hydration *h, struct wait_link *links, t4_status status)
{
    struct wait_link *over = NULL;

    mutex_lock(&h->lock);
    while (links != NULL) {
        struct wait_link *next = links->next;

        if (settle(links->wait, status)) {
            links->next = over;
            over = links;
        } else {
            mem_free(links);
        }
        links = next;
    }
    mutex_unlock(&h->lock);
    while (over != NULL) {
        struct wait_link *next = over->next;
        struct hydration_wait *w = over->wait;

        mem_free(over);
        w->done(w, w->status);
        over = next;
    }
}

/* [lock] */
static void
hang_on(struct wait_link **list, struct hydration_wait *w)
{
    struct wait_link *link = mem_alloc(sizeof *link);

    link->wait = w;
    link->next = *list;
    *list = link;
    w->pending++;
}

/* Takes the links of waits that are over off a list; they go to *out.  [lock] */
static void
take_late(struct wait_link **list, uint64_t now, struct wait_link **out)
{
    while (*list != NULL) {
        struct wait_link *link = *list;

        if (link->wait->until_ns == 0 || link->wait->until_ns > now) {
            list = &link->next;
            continue;
        }
        *list = link->next;
        link->next = *out;
        *out = link;
    }
}

void
hydration_tick(struct hydration *h)
{
    struct wait_link *late = NULL;
    uint64_t now = now_ns(h);

    mutex_lock(&h->lock);
    take_late(&h->loading_waits, now, &late);
    for (struct task *t = h->all; t != NULL; t = t->all_next)
        take_late(&t->waits, now, &late);
    mutex_unlock(&h->lock);
    answer(h, late, T4_E_TIMEOUT);
}

/* --- tasks ----------------------------------------------------------------------------------- */

static enum mvcc_mark mark_of_piece(struct mvcc_piece *p, struct buffer *value);
static void piece_done(struct mvcc_piece *p);

/* [lock] */
static struct task *
new_task(struct hydration *h, uint32_t unit, struct t4_slice lo, struct t4_slice hi)
{
    struct task *t = mem_zalloc(sizeof *t);

    t->h = h;
    t->unit = unit;
    t->piece.mark = mark_of_piece;
    t->piece.done = piece_done;
    t->point = hi.len == 0;
    buffer_append_slice(&t->lo, lo);
    buffer_append_slice(&t->hi, hi);
    t->all_next = h->all;
    t->all_link = &h->all;
    if (h->all != NULL)
        h->all->all_link = &t->all_next;
    h->all = t;
    h->n_tasks++;
    return t;
}

static struct task *
new_unit_task(struct hydration *h, uint32_t unit)
{
    struct unit *u = &h->unit[unit];
    struct task *t = new_task(h, unit, buffer_slice(&u->lo), map_unit_end(h, unit));

    t->whole = true;
    u->task = t;
    return t;
}

/* Takes the task out of everything but its queue, where it is not; returns who waits.  [lock] */
static struct wait_link *
end_task(struct hydration *h, struct task *t)
{
    struct wait_link *links = t->waits;

    *t->all_link = t->all_next;
    if (t->all_next != NULL)
        t->all_next->all_link = t->all_link;
    h->n_tasks--;
    if (t->whole)
        h->unit[t->unit].task = NULL;
    if (t->background)
        h->n_background--;
    buffer_free(&t->piece.records);
    buffer_free(&t->lo);
    buffer_free(&t->hi);
    mem_free(t);
    return links;
}

/* [lock] */
static void
queue(struct hydration *h, struct task *t)
{
    t->next = NULL;
    *h->urgent_end = t;
    h->urgent_end = &t->next;
    condition_signal(&h->work);
}

/* --- asking ---------------------------------------------------------------------------------- */

static struct task *
find_task(struct hydration *h, uint32_t unit, struct t4_slice lo, struct t4_slice hi)
{
    for (struct task *t = h->all; t != NULL; t = t->all_next)
        if (t->unit == unit && !t->whole && slice_equal(buffer_slice(&t->lo), lo) &&
            slice_equal(buffer_slice(&t->hi), hi))
            return t;
    return NULL;
}

/* A part of one unit; hi.len 0: one key.  [lock] */
static void
ask_part(struct hydration *h, struct hydration_wait *w, uint32_t unit, struct t4_slice lo,
         struct t4_slice hi)
{
    struct unit *u = &h->unit[unit];
    struct task *t = u->task;

    if (u->done || map_covers(u, lo, hi) || !fetch_may_hold(h, lo, hi))
        return;
    if (t == NULL)
        t = find_task(h, unit, lo, hi);
    if (t == NULL && h->n_tasks >= TASKS_MAX) {
        w->status = T4_E_BUSY;
        return;
    }
    if (t == NULL) {
        t = u->n >= INTERVALS_MAX ? new_unit_task(h, unit) : new_task(h, unit, lo, hi);
        queue(h, t);
    }
    hang_on(&t->waits, w);
}

/* A range over several units: those it ends in are fetched whole.  [lock] */
static void
ask_units(struct hydration *h, struct hydration_wait *w, struct t4_slice lo,
          struct t4_slice hi)
{
    uint32_t unit = map_unit_of(h, lo);

    for (; unit < h->n_units; unit++) {
        struct unit *u = &h->unit[unit];
        struct t4_slice begin = buffer_slice(&u->lo), end = map_unit_end(h, unit);

        if (slice_compare(begin, hi) >= 0)
            break;
        if (slice_compare(lo, begin) >= 0 && slice_compare(hi, end) <= 0) {
            ask_part(h, w, unit, lo, hi);
            break;
        }
        if (u->done || !fetch_may_hold(h, slice_compare(lo, begin) > 0 ? lo : begin,
                                       slice_compare(hi, end) < 0 ? hi : end))
            continue;
        if (u->task == NULL)
            queue(h, new_unit_task(h, unit));
        hang_on(&u->task->waits, w);
    }
}

void
hydration_ask(struct hydration *h, struct hydration_wait *w, struct t4_slice lo,
              struct t4_slice hi)
{
    if (hydration_is_complete(h) || lo.data[0] == SPACE_SYSTEM)
        return;
    mutex_lock(&h->lock);
    if (h->stopping)
        w->status = T4_E_CANCELLED;
    else if (!h->loaded)
        hang_on(&h->loading_waits, w);
    else if (hi.len == 0)
        ask_part(h, w, map_unit_of(h, lo), lo, hi);
    else if (slice_compare(lo, hi) < 0)
        ask_units(h, w, lo, hi);
    mutex_unlock(&h->lock);
}

enum hydration_answer
hydration_wait_end(struct hydration *h, struct hydration_wait *w, uint64_t ns)
{
    bool last;

    mutex_lock(&h->lock);
    w->until_ns = now_ns(h) + ns;
    last = settle(w, T4_OK);
    mutex_unlock(&h->lock);
    if (!last)
        return HYDRATION_WAITS;
    return w->status == T4_OK ? HYDRATION_READY : HYDRATION_REFUSED;
}

bool
hydration_is_complete(struct hydration *h)
{
    return atomic_load_explicit(&h->complete, memory_order_acquire);
}

/* --- the engine thread ------------------------------------------------------------------------ */

static enum mvcc_mark
mark_of_piece(struct mvcc_piece *p, struct buffer *value)
{
    struct task *t = container_of(p, struct task, piece);
    struct hydration *h = t->h;
    enum mvcc_mark what = MVCC_MARK_KEEP;

    mutex_lock(&h->lock);
    if (t->whole && h->n_done + 1 == h->n_units)
        what = MVCC_MARK_DELETE;
    else if (t->whole)
        what = MVCC_MARK_PUT;
    if (what == MVCC_MARK_PUT)
        mark_encode(h, t->unit, value);
    mutex_unlock(&h->lock);
    return what;
}

/* [lock] */
static void
view(const struct hydration *h, struct hydration_view *v)
{
    *v = (struct hydration_view){.units = h->n_units,
                                 .units_done = h->n_done,
                                 .bytes = h->bytes,
                                 .bytes_done = h->bytes_done,
                                 .fetched = h->fetched,
                                 .elapsed_ns = now_ns(h) - h->began_ns};
}

/* [lock] A line every few seconds. */
static bool
is_news(struct hydration *h)
{
    uint64_t now = now_ns(h);

    if (h->n_done < h->n_units && now - h->told_ns < TELL_NS)
        return false;
    h->told_ns = now;
    return true;
}

static void
tell(const struct hydration_view *v)
{
    char percent[24], bytes[24], fetched[24], seconds[24], left[24];

    snprintf(percent, sizeof percent, "%" PRIu64,
             v->bytes > 0 ? v->bytes_done * 100 / v->bytes : 100);
    snprintf(bytes, sizeof bytes, "%" PRIu64, v->bytes_done);
    snprintf(fetched, sizeof fetched, "%" PRIu64, v->fetched);
    snprintf(seconds, sizeof seconds, "%.1f", (double)v->elapsed_ns / 1e9);
    snprintf(left, sizeof left, "%.1f",
             v->bytes_done > 0
                 ? (double)v->elapsed_ns / 1e9 * (double)(v->bytes - v->bytes_done) /
                       (double)v->bytes_done
                 : 0.0);
    LOG_INFO(v->units_done == v->units
                 ? "the storage engine holds everything of the checkpoint"
                 : "filling the storage engine from the checkpoint",
             "percent", percent, "bytes", bytes, "fetched_bytes", fetched, "seconds",
             seconds, "seconds_left", left, NULL);
}

static void
piece_done(struct mvcc_piece *p)
{
    struct task *t = container_of(p, struct task, piece);
    struct hydration *h = t->h;
    struct hydration_view now;
    struct wait_link *links;
    bool complete, news = false;

    mutex_lock(&h->lock);
    h->installing -= p->records.len;
    if (t->whole) {
        map_unit_done(h, t->unit);
        if (h->n_done == h->n_units)
            h->why[0] = '\0';
        news = is_news(h);
        view(h, &now);
        metric_set(h->options.metrics, METRIC_HYDRATION_DONE, (int64_t)h->bytes_done);
    } else {
        map_add_interval(&h->unit[t->unit], buffer_slice(&t->lo), buffer_slice(&t->hi));
    }
    links = end_task(h, t);
    complete = h->n_done == h->n_units;
    condition_broadcast(&h->work);
    mutex_unlock(&h->lock);
    if (news)
        tell(&now);
    if (complete && !atomic_load(&h->complete)) {
        mvcc_hydrated(h->options.mvcc);
        atomic_store_explicit(&h->complete, true, memory_order_release);
        h->options.complete(h->options.arg);
    }
    answer(h, links, T4_OK);
}

/* Is this key where everything was installed?  Engine thread. */
static bool
holds(void *arg, struct t4_slice ikey)
{
    struct hydration *h = arg;
    bool held = true;

    if (hydration_is_complete(h) || ikey.data[0] == SPACE_SYSTEM)
        return true;
    mutex_lock(&h->lock);
    held = h->loaded && h->unit[map_unit_of(h, ikey)].done;
    mutex_unlock(&h->lock);
    return held;
}

/* --- the threads --------------------------------------------------------------------------------- */

static bool
is_passing(t4_status status)
{
    return status != T4_E_CORRUPT && status != T4_E_CANCELLED &&
           status != T4_E_UNSUPPORTED;
}

/* Says so when it is new.  [lock], which it gives up meanwhile */
static void
note_failure(struct hydration *h, const struct error *error, bool passing)
{
    bool news = strncmp(h->why, error->message, sizeof h->why - 1) != 0;

    if (!news)
        return;
    snprintf(h->why, sizeof h->why, "%s", error->message);
    h->why_passes = passing;
    mutex_unlock(&h->lock);
    if (passing)
        LOG_WARN("the checkpoint cannot be read; going on trying", "reason",
                 error->message, NULL);
    else
        LOG_ERROR("a range of keys cannot be read", "reason", error->message, "hint",
                  error->hint, NULL);
    mutex_lock(&h->lock);
}

/* [lock], given up meanwhile */
static void
load(struct hydration *h)
{
    struct wait_link *links;
    struct error error = {0};
    t4_status status;

    h->loading = true;
    mutex_unlock(&h->lock);
    status = fetch_runs(h, &error);
    mutex_lock(&h->lock);
    if (status == T4_OK && !map_build(h)) {
        status = error_set(&error, T4_E_CORRUPT,
                           "the storage engine's mark does not fit its checkpoint");
        map_free(h);
        fetch_free(h);
    }
    h->loading = false;
    h->loaded = status == T4_OK;
    if (status != T4_OK) {
        note_failure(h, &error, is_passing(status));
        if (!h->stopping)
            condition_wait_for(&h->work, &h->lock,
                               is_passing(status) ? RETRY_NS : AGAIN_NS);
        return;
    }
    metric_set(h->options.metrics, METRIC_HYDRATION_BYTES, (int64_t)h->bytes);
    links = h->loading_waits;
    h->loading_waits = NULL;
    condition_broadcast(&h->work);
    mutex_unlock(&h->lock);
    answer(h, links, T4_OK);
    mutex_lock(&h->lock);
}

/* The next unit that nobody has asked for.  [lock] */
static struct task *
background_task(struct hydration *h)
{
    if (h->n_background >= (h->n_threads + 1) / 2 || h->installing > INSTALLING_MAX ||
        h->options.only_asked)
        return NULL;
    for (; h->next < h->n_units; h->next++) {
        struct unit *u = &h->unit[h->next];

        if (!u->done && u->task == NULL) {
            struct task *t = new_unit_task(h, h->next++);

            t->background = true;
            h->n_background++;
            return t;
        }
    }
    return NULL;
}

/* [lock] */
static struct task *
next_task(struct hydration *h)
{
    struct task *t = h->urgent;

    if (t == NULL)
        return background_task(h);
    h->urgent = t->next;
    if (h->urgent == NULL)
        h->urgent_end = &h->urgent;
    return t;
}

/*
 * The task is over without a piece: its range has failed (and nothing else), or (OK) somebody
 * else was faster.  [lock], given up meanwhile
 */
static void
drop_task(struct hydration *h, struct task *t, t4_status status)
{
    struct wait_link *links;

    if (t->whole && status != T4_OK)
        h->unit[t->unit].failed = true;
    links = end_task(h, t);
    mutex_unlock(&h->lock);
    answer(h, links, status);
    mutex_lock(&h->lock);
}

/*
 * Nothing goes to the engine thread once its unit is done: the pieces queued by then are
 * installed before the compaction that completion allows, later ones might bring back what it
 * has removed.  [lock], given up meanwhile
 */
static void
run_task(struct hydration *h, struct task *t)
{
    struct error error = {0};
    t4_status status = T4_OK;

    if (!h->unit[t->unit].done) {
        mutex_unlock(&h->lock);
        status = fetch_task(h, t, &error);
        mutex_lock(&h->lock);
    }
    if (status == T4_OK && h->unit[t->unit].done) {
        drop_task(h, t, T4_OK);
        return;
    }
    if (status == T4_OK) {
        if (h->why_passes) /* damage stays until it is made good */
            h->why[0] = '\0';
        h->installing += t->piece.records.len;
        mvcc_install(h->options.mvcc, &t->piece);
        mutex_unlock(&h->lock);
        h->options.poke(h->options.arg);
        mutex_lock(&h->lock);
        return;
    }
    if (h->stopping || status == T4_E_CANCELLED) {
        drop_task(h, t, T4_E_CANCELLED);
        return;
    }
    note_failure(h, &error, is_passing(status));
    if (!is_passing(status)) {
        drop_task(h, t, status);
        return;
    }
    condition_wait_for(&h->work, &h->lock, RETRY_NS);
    queue(h, t);
}

static void *
thread_main(void *arg)
{
    struct hydration *h = arg;

    mutex_lock(&h->lock);
    while (!h->stopping && !(atomic_load(&h->complete) && h->urgent == NULL)) {
        struct task *t;

        if (!h->loaded && !h->loading)
            load(h);
        else if (h->loaded && h->n_prefetch > 0)
            fetch_prefetched(h);
        else if (h->loaded && (t = next_task(h)) != NULL)
            run_task(h, t);
        else if (!condition_wait_for(&h->work, &h->lock, AGAIN_NS))
            h->next = 0; /* what has failed, once more */
    }
    mutex_unlock(&h->lock);
    return NULL;
}

/* --- life ------------------------------------------------------------------------------------------ */

static struct hydration *
hydration_new(const struct hydration_options *options)
{
    struct hydration *h = mem_zalloc(sizeof *h);

    h->options = *options;
    h->urgent_end = &h->urgent;
    mutex_init(&h->lock);
    condition_init(&h->work);
    condition_init(&h->came);
    h->began_ns = h->told_ns = now_ns(h);
    return h;
}

t4_status
hydration_begin(const struct hydration_options *options,
                const struct checkpoint_object *c, struct hydration **out,
                struct error *error)
{
    struct hydration *h = hydration_new(options);
    struct mvcc_state state = {c->index, c->revision, c->time_ms};
    struct mvcc_piece system = {0};
    struct buffer mark = {0};
    t4_status status;

    *out = NULL;
    h->checkpoint = *c;
    status = fetch_runs(h, error);
    if (status == T4_OK)
        status = fetch_system(h, &system, error);
    if (status == T4_OK) {
        map_build(h);
        h->loaded = true;
        metric_set(options->metrics, METRIC_HYDRATION_BYTES, (int64_t)h->bytes);
        mark_encode(h, UINT32_MAX, &mark);
        status = mvcc_seed(options->mvcc, &state, &system, buffer_slice(&mark), error);
    }
    buffer_free(&mark);
    buffer_free(&system.records);
    if (status != T4_OK) {
        hydration_free(h);
        return status;
    }
    mvcc_hydrate(options->mvcc, holds, h);
    *out = h;
    return T4_OK;
}

t4_status
hydration_resume(const struct hydration_options *options, struct t4_slice mark,
                 struct hydration **out, struct error *error)
{
    struct hydration *h = hydration_new(options);

    *out = NULL;
    if (!mark_decode(h, mark)) {
        hydration_free(h);
        error_set(error, T4_E_CORRUPT,
                  "the storage engine's mark of hydration is damaged");
        return error_hint(error,
                          "stop the server and delete the engine's folder: log and "
                          "object store bring everything back");
    }
    mvcc_hydrate(options->mvcc, holds, h);
    *out = h;
    return T4_OK;
}

const struct checkpoint_object *
hydration_checkpoint(const struct hydration *h)
{
    return &h->checkpoint;
}

void
hydration_start(struct hydration *h)
{
    h->n_threads = h->options.threads > 0 ? h->options.threads : 1;
    h->thread = mem_zalloc(h->n_threads * sizeof *h->thread);
    for (uint32_t i = 0; i < h->n_threads; i++)
        thread_start(&h->thread[i], "t4-hydrate", thread_main, h);
}

void
hydration_stop(struct hydration *h)
{
    struct wait_link *links = NULL, **end = &links;

    mutex_lock(&h->lock);
    h->stopping = true;
    condition_broadcast(&h->work);
    condition_broadcast(&h->came);
    mutex_unlock(&h->lock);
    for (uint32_t i = 0; i < h->n_threads; i++)
        thread_join(&h->thread[i]);
    mem_free(h->thread);
    h->thread = NULL;
    h->n_threads = 0;
    mutex_lock(&h->lock);
    *end = h->loading_waits;
    h->loading_waits = NULL;
    for (struct task *t = h->all; t != NULL; t = t->all_next) {
        while (*end != NULL)
            end = &(*end)->next;
        *end = t->waits;
        t->waits = NULL;
    }
    mutex_unlock(&h->lock);
    answer(h, links, T4_E_CANCELLED);
}

void
hydration_free(struct hydration *h)
{
    if (h == NULL)
        return;
    if (h->thread != NULL)
        hydration_stop(h);
    mvcc_take_pieces(h->options.mvcc); /* they are tasks */
    while (h->all != NULL)
        end_task(h, h->all);
    fetch_free(h);
    map_free(h);
    buffer_free(&h->mark_bits);
    condition_destroy(&h->came);
    condition_destroy(&h->work);
    mutex_destroy(&h->lock);
    mem_free(h);
}

void
hydration_look(struct hydration *h, struct hydration_view *out)
{
    mutex_lock(&h->lock);
    view(h, out);
    out->complete = atomic_load(&h->complete);
    out->loaded = h->loaded;
    for (uint32_t i = 0; i < h->n_units; i++)
        out->failed += h->unit[i].failed;
    snprintf(out->why, sizeof out->why, "%s", h->why);
    mutex_unlock(&h->lock);
}

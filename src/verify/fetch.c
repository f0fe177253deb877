/*
 * fetch.c - requests with their retries, many at once but taken in order, the listing.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <stdio.h>
#include <stdlib.h>

#include "base/memory.h"
#include "verify/verify_int.h"

#define TRIES 5
#define FIRST_PAUSE_NS UINT64_C(100000000) /* doubled each time */
#define PAGE_KEYS 1000u

/* --- one object --------------------------------------------------------------------------- */

static bool
is_answer(t4_status status)
{
    return status == T4_OK || status == T4_E_NOTFOUND || status == T4_E_CORRUPT;
}

/* False: no more tries. */
static bool
pause_before_next(struct verify *v, unsigned tries, t4_status status)
{
    if (tries >= TRIES || status == T4_E_DENIED || status == T4_E_INVALID ||
        status == T4_E_CANCELLED || status == T4_E_CORRUPT)
        return false;
    mutex_lock(&v->lock);
    condition_wait_for(&v->wake, &v->lock, FIRST_PAUSE_NS << (tries - 1));
    mutex_unlock(&v->lock);
    return true;
}

t4_status
fetch_object(struct verify *v, const char *key, size_t limit, struct buffer *out,
             struct error *error)
{
    t4_status status;

    for (unsigned tries = 1;; tries++) {
        struct t4_object_info info = {.size = sizeof info};

        buffer_clear(out);
        status = object_get(v->options->store, slice_str(key), 0, T4_TO_THE_END, limit,
                            v->options->timeout_ns, out, &info, error);
        if (is_answer(status) || !pause_before_next(v, tries, status))
            break;
    }
    if (!is_answer(status))
        return error_wrap(error, "the object %s", key), status;
    if (status == T4_OK) {
        mutex_lock(&v->lock);
        v->result->objects++;
        v->result->bytes += out->len;
        mutex_unlock(&v->lock);
    }
    return status;
}

/* --- many --------------------------------------------------------------------------------- */

/*
 * Each thread takes the next number, fetches and looks, then waits for its turn to have it taken.
 * So at most as many objects are in memory as there are threads.
 */
struct crew {
    struct verify *v;
    const struct fetch_plan *plan;
    struct mutex lock;
    struct condition turned;
    size_t next, turn; /* [lock] next to be fetched, to be taken */
    bool over;         /* [lock] */
    t4_status status;  /* [lock] */
    struct error *error;
};

/* The turn of f: take() without the lock, for nobody else has the turn. */
static void
take_in_turn(struct crew *c, struct fetched *f)
{
    struct error error = {0};
    t4_status status = T4_E_CANCELLED;
    bool over;

    mutex_lock(&c->lock);
    while (c->turn != f->i)
        condition_wait(&c->turned, &c->lock);
    over = c->over;
    mutex_unlock(&c->lock);
    if (!over && !is_answer(f->status)) {
        status = f->status;
        error = f->error;
    } else if (!over) {
        status = c->plan->take(c->plan->arg, f, &error);
        verify_progress(c->v, c->plan->phase, f->i + 1, c->plan->n);
    }
    mutex_lock(&c->lock);
    if (!over && status != T4_OK) {
        c->over = true;
        c->status = status;
        *c->error = error;
    }
    c->turn++;
    condition_broadcast(&c->turned);
    mutex_unlock(&c->lock);
}

static void *
crew_main(void *arg)
{
    struct crew *c = arg;
    struct fetched *f = mem_zalloc(sizeof *f);

    for (;;) {
        bool over;

        mutex_lock(&c->lock);
        over = c->over || c->next == c->plan->n;
        f->i = over ? 0 : c->next++;
        mutex_unlock(&c->lock);
        if (over)
            break;
        f->error = (struct error){0};
        c->plan->name(c->plan->arg, f);
        f->status = fetch_object(c->v, f->key, f->limit, &f->object, &f->error);
        if (f->status == T4_OK && c->plan->look != NULL)
            c->plan->look(c->plan->arg, f);
        take_in_turn(c, f);
    }
    buffer_free(&f->object);
    mem_free(f);
    return NULL;
}

t4_status
fetch_all(struct verify *v, const struct fetch_plan *plan, struct error *error)
{
    struct thread thread[VERIFY_PARALLEL_MAX];
    struct crew c = {.v = v, .plan = plan, .error = error};
    size_t n = v->options->parallel < plan->n ? v->options->parallel : plan->n;

    mutex_init(&c.lock);
    condition_init(&c.turned);
    for (size_t i = 0; i < n; i++)
        thread_start(&thread[i], "t4-verify", crew_main, &c);
    for (size_t i = 0; i < n; i++)
        thread_join(&thread[i]);
    condition_destroy(&c.turned);
    mutex_destroy(&c.lock);
    return c.status;
}

/* --- listing ---------------------------------------------------------------------------------- */

/* A walk over all keys with a prefix.  A page that is asked for again is not told twice. */
struct pages {
    struct verify *v;
    struct listing *out;
    char last[KEY_BYTES];
    uint32_t given; /* of this page */
    uint64_t told_unknown;
};

static void *
grown(void *at, size_t n, size_t *capacity, size_t size)
{
    if (n < *capacity)
        return at;
    *capacity = *capacity > 0 ? 2 * *capacity : 256;
    return mem_realloc(at, *capacity * size);
}

static void
add_object(struct listing *l, const struct listed *o)
{
    l->object = grown(l->object, l->n, &l->capacity, sizeof *l->object);
    l->object[l->n++] = *o;
}

#define UNKNOWN_TOLD 10u /* by name */

static void
take_unknown(struct pages *p, struct t4_slice key)
{
    if (slice_equal(key, slice_str("cluster")) ||
        slice_equal(key, slice_str("leader-lock")) ||
        slice_equal(key, slice_str(MANIFEST_KEY)) ||
        slice_has_prefix(key, slice_str("probe/"))) /* of a start-up probe under way */
        return;
    p->v->result->unknown++;
    if (p->told_unknown++ < UNKNOWN_TOLD)
        verify_note(p->v, "%s is no object that this version of t4 makes", p->last);
}

static t4_status
take_key(void *arg, struct t4_slice key, const struct t4_object_info *info)
{
    struct pages *p = arg;
    struct listing *l = p->out;
    struct listed o = {.bytes = info->length};
    struct listed_archive a = {.bytes = info->length};
    uint64_t slot;

    if (key.len >= sizeof p->last)
        return T4_E_CORRUPT;
    if (slice_compare(key, slice_str(p->last)) <= 0)
        return T4_OK;
    memcpy(p->last, key.data, key.len);
    p->last[key.len] = '\0';
    p->given++;
    l->all++;
    if (slot_key_parse(key, &slot)) {
        l->slot = grown(l->slot, l->n_slots, &l->slot_capacity, sizeof *l->slot);
        l->slot[l->n_slots++] = slot;
    } else if (archive_key_parse(key, &a.first, &a.last)) {
        l->archive =
            grown(l->archive, l->n_archives, &l->archive_capacity, sizeof *l->archive);
        l->archive[l->n_archives++] = a;
    } else if (sst_key_parse(key, o.sha256, &o.term, &o.index)) {
        o.kind = KIND_FILE;
        add_object(l, &o);
    } else if (run_key_parse(key, o.sha256, &o.term, &o.index)) {
        o.kind = KIND_RUN;
        add_object(l, &o);
    } else if (checkpoint_key_parse(key, &o.term, &o.revision, &o.index)) {
        o.kind = KIND_CHECKPOINT;
        add_object(l, &o);
    } else {
        take_unknown(p, key);
    }
    return T4_OK;
}

static int
by_first(const void *a, const void *b)
{
    const struct listed_archive *x = a, *y = b;

    if (x->first != y->first)
        return x->first < y->first ? -1 : 1;
    return x->last > y->last ? -1 : x->last < y->last;
}

static t4_status
list(struct verify *v, const char *prefix, struct listing *out, struct error *error)
{
    struct pages p = {.v = v, .out = out};
    unsigned tries = 0;
    t4_status status;

    for (;;) {
        char after[sizeof p.last];

        memcpy(after, p.last, sizeof after);
        p.given = 0;
        status = object_list(v->options->store, slice_str(prefix), slice_str(after),
                             PAGE_KEYS, v->options->timeout_ns, take_key, &p, error);
        if (status == T4_OK) {
            tries = 0;
            verify_progress(v, "listing", out->all, 0);
            if (p.given < PAGE_KEYS)
                break;
        } else if (!pause_before_next(v, ++tries, status)) {
            return error_wrap(error, "listing %s", object_url(v->options->store)), status;
        }
    }
    if (out->n_archives > 0)
        qsort(out->archive, out->n_archives, sizeof *out->archive, by_first);
    if (p.told_unknown > UNKNOWN_TOLD)
        verify_note(v, "and %llu more keys like that",
                    (unsigned long long)(p.told_unknown - UNKNOWN_TOLD));
    return T4_OK;
}

t4_status
fetch_listing(struct verify *v, struct error *error)
{
    return list(v, "", &v->listing, error);
}

t4_status
fetch_archives(struct verify *v, struct listing *out, struct error *error)
{
    return list(v, "log/", out, error);
}

void
listing_free(struct listing *l)
{
    mem_free(l->object);
    mem_free(l->archive);
    mem_free(l->slot);
    *l = (struct listing){0};
}

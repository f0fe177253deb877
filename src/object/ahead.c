/*
 * ahead.c - objects that are fetched before they are asked for.
 *
 * Who knows which objects it will want one after the other names them; they are fetched at the same
 * time, and object_get() of the whole object finds the answer, or waits for it.  Only for objects that
 * never change once they are there.  What is not there, or failed, is asked for again by
 * object_get() itself, so a hint is never wrong.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "base/memory.h"
#include "object/object_int.h"

#define ITEMS_MAX 32u

struct ahead_item {
    struct object_store *store;
    struct buffer key, object;
    size_t limit;
    struct t4_object_info info;
    t4_status status;
    bool done; /* [lock] */
    struct thread thread;
    struct ahead_item *next;
};

void
ahead_init(struct ahead *a)
{
    mutex_init(&a->lock);
    condition_init(&a->came);
}

static void *
fetch(void *arg)
{
    struct ahead_item *i = arg;
    struct ahead *a = &i->store->ahead;

    i->info.size = sizeof i->info;
    i->status = object_get_now(i->store, buffer_slice(&i->key), 0, T4_TO_THE_END,
                               i->limit, 0, &i->object, &i->info, NULL);
    mutex_lock(&a->lock);
    i->done = true;
    condition_broadcast(&a->came);
    mutex_unlock(&a->lock);
    return NULL;
}

static void
free_item(struct ahead_item *i)
{
    thread_join(&i->thread);
    buffer_free(&i->key);
    buffer_free(&i->object);
    mem_free(i);
}

/* [lock] */
static struct ahead_item **
find(struct ahead *a, struct t4_slice key)
{
    struct ahead_item **link = &a->items;

    while (*link != NULL && !slice_equal(buffer_slice(&(*link)->key), key))
        link = &(*link)->next;
    return link;
}

void
object_ahead(struct object_store *s, struct t4_slice key, size_t limit)
{
    struct ahead *a = &s->ahead;
    struct ahead_item *i;

    mutex_lock(&a->lock);
    if (a->n < ITEMS_MAX && *find(a, key) == NULL) {
        i = mem_zalloc(sizeof *i);
        i->store = s;
        i->limit = limit;
        buffer_append_slice(&i->key, key);
        i->next = a->items;
        a->items = i;
        a->n++;
        thread_start(&i->thread, "t4-ahead", fetch, i);
    }
    mutex_unlock(&a->lock);
}

bool
ahead_take(struct object_store *s, struct t4_slice key, size_t limit, struct buffer *out,
           struct t4_object_info *info)
{
    struct ahead *a = &s->ahead;
    struct ahead_item **link, *i = NULL;
    bool good;

    mutex_lock(&a->lock);
    while (a->n > 0 && *(link = find(a, key)) != NULL) {
        i = *link;
        if (i->done) {
            *link = i->next;
            a->n--;
            break;
        }
        i = NULL;
        condition_wait(&a->came, &a->lock);
    }
    mutex_unlock(&a->lock);
    if (i == NULL)
        return false;
    good = i->status == T4_OK && i->object.len <= limit;
    if (good) {
        buffer_append_slice(out, buffer_slice(&i->object));
        if (info != NULL)
            *info = i->info;
    }
    free_item(i);
    return good;
}

void
object_ahead_end(struct object_store *s)
{
    struct ahead *a = &s->ahead;
    struct ahead_item *all;

    mutex_lock(&a->lock);
    all = a->items;
    a->items = NULL;
    a->n = 0;
    mutex_unlock(&a->lock);
    while (all != NULL) {
        struct ahead_item *next = all->next;

        free_item(all);
        all = next;
    }
}

void
ahead_free(struct object_store *s)
{
    object_ahead_end(s);
    condition_destroy(&s->ahead.came);
    mutex_destroy(&s->ahead.lock);
}

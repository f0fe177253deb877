/*
 * hello_store.c - a complete object store for t4 in one file: objects in memory.
 *
 * It is an example to begin from, built outside of t4's tree with nothing but t4_plugin.h
 * (see Makefile, and "Writing an object store" in the documentation).  The URL is
 * hello_store://anything; what is stored is gone when the store is closed.
 *
 * One lock guards a sorted array.  The lock is what makes the conditions atomic: look and
 * change happen under it.  The tag is a number that is never used twice.
 *
 * Entry point: t4_plugin_v1().  Runs on: any thread of the host, many at once.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "t4_plugin.h"

struct object {
    struct t4_slice key, body; /* both lie behind the struct */
    struct t4_object_info info;
    unsigned readers; /* calls that are giving out the body */
    bool removed;     /* free it with its last reader */
    uint8_t bytes[];
};

struct hello { /* what load() makes: the plugin */
    const struct t4_host *host;
    uint64_t max_bytes;
};

struct t4_store { /* what open() makes: one store */
    const struct t4_host *host;
    uint64_t max_bytes;
    pthread_mutex_t lock;
    struct object **objects; /* [lock] in the order of their keys */
    size_t n, capacity;      /* [lock] */
    uint64_t bytes;          /* [lock] of all bodies */
    uint64_t last_tag;       /* [lock] */
};

/* --- helpers ------------------------------------------------------------------------ */

static int64_t
wall_ms(void)
{
    struct timespec t;

    clock_gettime(CLOCK_REALTIME, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* Each call begins with this: what is too late must have no effect. */
static t4_status
check_call(const struct t4_store *s, struct t4_call *call)
{
    uint64_t deadline = s->host->deadline_ns(call);

    if (s->host->cancelled(call))
        return T4_E_CANCELLED;
    if (deadline != 0 && s->host->now_ns() >= deadline)
        return T4_E_TIMEOUT;
    return T4_OK;
}

static int
compare(struct t4_slice a, struct t4_slice b)
{
    size_t n = a.len < b.len ? a.len : b.len;
    int r = n > 0 ? memcmp(a.data, b.data, n) : 0;

    return r != 0 ? r : a.len < b.len ? -1 : a.len > b.len;
}

/* Index of the first object whose key is not below `key`; lock held. */
static size_t
lower_bound(const struct t4_store *s, struct t4_slice key)
{
    size_t low = 0, high = s->n;

    while (low < high) {
        size_t middle = low + (high - low) / 2;

        if (compare(s->objects[middle]->key, key) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* The object of a key, NULL: none; *at: where it is or belongs; lock held. */
static struct object *
find(const struct t4_store *s, struct t4_slice key, size_t *at)
{
    *at = lower_bound(s, key);
    if (*at < s->n && compare(s->objects[*at]->key, key) == 0)
        return s->objects[*at];
    return NULL;
}

/* Off the array already; lock held. */
static void
drop(struct t4_store *s, struct object *o)
{
    s->bytes -= o->body.len;
    o->removed = true;
    if (o->readers == 0)
        s->host->free(s->host, o);
}

/* --- put ---------------------------------------------------------------------------- */

static struct object *
make_object(struct t4_store *s, const struct t4_put *put)
{
    struct object *o = s->host->alloc(s->host, sizeof *o + put->key.len + put->body.len);

    if (o == NULL)
        return NULL;
    memset(o, 0, sizeof *o);
    o->key = (struct t4_slice){o->bytes, put->key.len};
    o->body = (struct t4_slice){o->bytes + put->key.len, put->body.len};
    memcpy(o->bytes, put->key.data, put->key.len);
    if (put->body.len > 0)
        memcpy(o->bytes + put->key.len, put->body.data, put->body.len);
    o->info.size = sizeof o->info;
    o->info.length = put->body.len;
    o->info.modified_ms = wall_ms();
    return o;
}

/* Whether the put's condition holds for what is there; lock held. */
static t4_status
check_condition(const struct t4_put *put, const struct object *there)
{
    switch (put->condition) {
    case T4_PUT_ANY: return T4_OK;
    case T4_PUT_IF_ABSENT: return there == NULL ? T4_OK : T4_E_PRECONDITION;
    case T4_PUT_IF_MATCH:
        if (there == NULL || put->if_match.len != there->info.tag_length ||
            memcmp(put->if_match.data, there->info.tag, put->if_match.len) != 0)
            return T4_E_PRECONDITION;
        return T4_OK;
    }
    return T4_E_UNSUPPORTED;
}

/* Room for one more; lock held. */
static t4_status
grow(struct t4_store *s)
{
    size_t capacity = s->capacity > 0 ? 2 * s->capacity : 64;
    struct object **more;

    if (s->n < s->capacity)
        return T4_OK;
    more = s->host->alloc(s->host, capacity * sizeof(struct object *));
    if (more == NULL)
        return T4_E_NOMEM;
    if (s->n > 0)
        memcpy(more, s->objects, s->n * sizeof(struct object *));
    s->host->free(s->host, s->objects);
    s->objects = more;
    s->capacity = capacity;
    return T4_OK;
}

static t4_status
hello_put(struct t4_store *s, struct t4_call *call, const struct t4_put *put,
          struct t4_object_info *info)
{
    t4_status st = check_call(s, call);
    struct object *o, *there;
    size_t at;

    if (st != T4_OK)
        return st;
    o = make_object(s, put);
    if (o == NULL)
        return T4_E_NOMEM;
    pthread_mutex_lock(&s->lock);
    there = find(s, put->key, &at);
    st = check_condition(put, there);
    if (st == T4_OK && s->bytes + put->body.len > s->max_bytes)
        st = s->host->fail(call, T4_E_NOSPACE, "the store is full", NULL,
                           "raise hello_store.max_bytes or remove something");
    if (st == T4_OK)
        st = grow(s);
    if (st == T4_OK) {
        o->info.tag_length =
            (uint32_t)snprintf(o->info.tag, sizeof o->info.tag, "\"%llu\"",
                               (unsigned long long)++s->last_tag);
        if (there != NULL) {
            drop(s, there);
        } else {
            memmove(s->objects + at + 1, s->objects + at,
                    (s->n - at) * sizeof(struct object *));
            s->n++;
        }
        s->objects[at] = o;
        s->bytes += put->body.len;
        *info = o->info;
        info->date_ms = wall_ms();
    }
    pthread_mutex_unlock(&s->lock);
    if (st != T4_OK)
        s->host->free(s->host, o);
    return st;
}

/* --- get, head ---------------------------------------------------------------------- */

static t4_status
hello_get(struct t4_store *s, struct t4_call *call, struct t4_slice key, uint64_t offset,
          uint64_t length, t4_sink_fn *sink, void *arg, struct t4_object_info *info)
{
    t4_status st = check_call(s, call);
    struct object *o;
    size_t at;

    if (st != T4_OK)
        return st;
    pthread_mutex_lock(&s->lock);
    o = find(s, key, &at);
    if (o != NULL)
        o->readers++;
    pthread_mutex_unlock(&s->lock);
    if (o == NULL)
        return T4_E_NOTFOUND;
    *info = o->info;
    info->date_ms = wall_ms();
    /* The sink is called without the lock: it may take its time. */
    if (offset < o->body.len && length > 0) {
        uint64_t left = o->body.len - offset;

        if (length < left)
            left = length;
        st = sink(arg, (struct t4_slice){o->body.data + offset, (size_t)left});
    }
    pthread_mutex_lock(&s->lock);
    o->readers--;
    if (o->removed && o->readers == 0)
        s->host->free(s->host, o);
    pthread_mutex_unlock(&s->lock);
    return st;
}

static t4_status
hello_head(struct t4_store *s, struct t4_call *call, struct t4_slice key,
           struct t4_object_info *info)
{
    t4_status st = check_call(s, call);
    struct object *o;
    size_t at;

    if (st != T4_OK)
        return st;
    pthread_mutex_lock(&s->lock);
    o = find(s, key, &at);
    if (o != NULL) {
        *info = o->info;
        info->date_ms = wall_ms();
    }
    pthread_mutex_unlock(&s->lock);
    return o != NULL ? T4_OK : T4_E_NOTFOUND;
}

/* --- remove, list ------------------------------------------------------------------- */

static t4_status
hello_remove(struct t4_store *s, struct t4_call *call, const struct t4_slice *keys,
             size_t n)
{
    t4_status st = check_call(s, call);

    for (size_t i = 0; i < n && st == T4_OK; i++) {
        struct object *o;
        size_t at;

        pthread_mutex_lock(&s->lock);
        o = find(s, keys[i], &at);
        if (o != NULL) {
            memmove(s->objects + at, s->objects + at + 1,
                    (s->n - at - 1) * sizeof(struct object *));
            s->n--;
            drop(s, o);
        }
        pthread_mutex_unlock(&s->lock);
    }
    return st;
}

/*
 * The callback is called without the lock, so each object is found anew by the key before
 * it, which has been copied.
 */
static t4_status
hello_list(struct t4_store *s, struct t4_call *call, struct t4_slice prefix,
           struct t4_slice after, uint32_t max, t4_list_fn *fn, void *arg)
{
    t4_status st = check_call(s, call);
    uint8_t last[1024], next[1024];

    if (after.len > sizeof last)
        return T4_E_INVALID;
    for (uint32_t given = 0; given < max && st == T4_OK; given++) {
        struct t4_slice key = {0};
        struct t4_object_info info;
        size_t at;

        pthread_mutex_lock(&s->lock);
        at = lower_bound(s, compare(after, prefix) < 0 ? prefix : after);
        if (at < s->n && after.len > 0 && compare(s->objects[at]->key, after) == 0)
            at++;
        if (at < s->n && s->objects[at]->key.len >= prefix.len &&
            (prefix.len == 0 ||
             memcmp(s->objects[at]->key.data, prefix.data, prefix.len) == 0)) {
            key = (struct t4_slice){next, s->objects[at]->key.len};
            memcpy(next, s->objects[at]->key.data, key.len);
            info = s->objects[at]->info;
            info.date_ms = wall_ms();
        }
        pthread_mutex_unlock(&s->lock);
        if (key.data == NULL)
            break;
        st = fn(arg, key, &info);
        memcpy(last, next, key.len);
        after = (struct t4_slice){last, key.len};
        if (st == T4_OK)
            st = check_call(s, call);
    }
    return st;
}

/* --- open, close -------------------------------------------------------------------- */

static t4_status
hello_open(void *plugin, struct t4_call *call, const struct t4_store_open *arguments,
           struct t4_store **out)
{
    struct hello *hello = plugin;
    struct t4_store *s = hello->host->alloc(hello->host, sizeof *s);

    (void)call;
    (void)arguments; /* ->url is what the user wrote; here it means nothing */
    *out = s;
    if (s == NULL)
        return T4_E_NOMEM;
    memset(s, 0, sizeof *s);
    s->host = hello->host;
    s->max_bytes = hello->max_bytes;
    pthread_mutex_init(&s->lock, NULL);
    return T4_OK;
}

static void
hello_close(struct t4_store *s)
{
    const struct t4_host *host = s->host;

    for (size_t i = 0; i < s->n; i++)
        host->free(host, s->objects[i]);
    host->free(host, s->objects);
    pthread_mutex_destroy(&s->lock);
    host->free(host, s);
}

/* --- the plugin --------------------------------------------------------------------- */

enum { MAX_BYTES };
static const struct t4_option options[] = {
    [MAX_BYTES] = {"max_bytes", T4_OPTION_SIZE, 0, "1 GB", "1 MB", "1 TB",
                   "most bytes of all bodies together"},
};

static t4_status
load(const struct t4_host *host, struct t4_call *call, const struct t4_values *values,
     void **plugin)
{
    struct hello *hello = host->alloc(host, sizeof *hello);

    (void)call;
    if (hello == NULL)
        return T4_E_NOMEM;
    hello->host = host;
    hello->max_bytes = (uint64_t)values->value[MAX_BYTES].number;
    *plugin = hello;
    return T4_OK;
}

static void
unload(void *plugin)
{
    struct hello *hello = plugin;

    hello->host->free(hello->host, hello);
}

static const struct t4_object_ops ops = {
    .size = sizeof ops,
    .caps = T4_OBJECT_IF_ABSENT | T4_OBJECT_IF_MATCH,
    .open = hello_open,
    .close = hello_close,
    .put = hello_put,
    .get = hello_get,
    .head = hello_head,
    .remove = hello_remove,
    .list = hello_list,
};

static const struct t4_role roles[] = {
    {.kind = T4_ROLE_OBJECT, .name = "hello_store", .ops = &ops},
};

const struct t4_plugin *
t4_plugin_v1(void)
{
    static const struct t4_plugin plugin = {
        T4_PLUGIN_HEAD("hello_store", "0.1", 0),
        .license = "Apache-2.0",
        .summary = "an example: object store in memory (hello_store://x)",
        .options = options,
        .n_options = sizeof options / sizeof options[0],
        .roles = roles,
        .n_roles = sizeof roles / sizeof roles[0],
        .load = load,
        .unload = unload,
    };

    return &plugin;
}

/*
 * test_engine.c - a storage engine that breaks the contract, one rule at a time.
 *
 * It is contrib/hello_engine, of which the setting test_engine.fault spoils something; then
 * `t4 plugin check` must fail at the line that 600_engines.t names.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

#include "t4_plugin.h"

static ssize_t test_pwrite(int fd, const void *bytes, size_t n, off_t at);
static const struct t4_plugin *hello_plugin_v1(void) __attribute__((unused));
#define pwrite test_pwrite
#define t4_plugin_v1 hello_plugin_v1
#include "../../contrib/hello_engine/hello_engine.c"
#undef pwrite
#undef t4_plugin_v1

static char fault[64];

static bool
has(const char *name)
{
    return strcmp(fault, name) == 0;
}

/* --- files -------------------------------------------------------------------------- */

/* What the fault "forgetful sync" keeps in memory until close(). */
static struct {
    uint8_t *bytes;
    size_t n;
    off_t at;
} kept;

static ssize_t
test_pwrite(int fd, const void *bytes, size_t n, off_t at)
{
    if (!has("forgetful sync"))
        return pwrite(fd, bytes, n, at);
    if (kept.n == 0)
        kept.at = at;
    kept.bytes = realloc(kept.bytes, kept.n + n);
    memcpy(kept.bytes + kept.n, bytes, n);
    kept.n += n;
    return (ssize_t)n;
}

static void
keep_no_longer(int fd)
{
    if (kept.n > 0 && pwrite(fd, kept.bytes, kept.n, kept.at) != (ssize_t)kept.n)
        abort();
    free(kept.bytes);
    memset(&kept, 0, sizeof kept);
}

/* --- open, close -------------------------------------------------------------------- */

static void *
idle(void *arg)
{
    (void)arg;
    for (;;)
        pause();
    return NULL;
}

static t4_status
test_open(void *plugin, struct t4_call *call, struct t4_slice dir, struct t4_engine **out)
{
    const struct t4_host *host = plugin;
    t4_status st = hello_open(plugin, call, dir, out);
    pthread_t thread;

    if (st != T4_OK)
        return st;
    if (has("leak"))
        host->alloc(host, 100);
    if (has("leaves a file open") && dup((*out)->file) < 0)
        return T4_E_IO;
    if (has("leaves a thread"))
        pthread_create(&thread, NULL, idle, NULL);
    if (has("writes elsewhere")) {
        int fd = open("stray", O_WRONLY | O_CREAT, 0600);

        close(fd);
    }
    return T4_OK;
}

static void
test_close(struct t4_engine *e)
{
    keep_no_longer(e->file);
    hello_close(e);
}

/* --- write -------------------------------------------------------------------------- */

static _Atomic unsigned snapshots; /* taken so far */
static _Atomic pthread_t reader;   /* who took the last one */

/* Waits until a reader on another thread, if there is one, has a snapshot of what is there. */
static void
let_see(void)
{
    const struct timespec moment = {.tv_nsec = 100000};
    unsigned before = atomic_load(&snapshots);

    if (pthread_equal(atomic_load(&reader), pthread_self()))
        return;
    for (int i = 0; i < 50 && atomic_load(&snapshots) == before; i++)
        nanosleep(&moment, NULL);
}

static t4_status
test_write(struct t4_engine *e, struct t4_call *call, const struct t4_op *ops, size_t n,
           uint64_t flushed)
{
    t4_status st = T4_OK;

    if (has("two halves") && n > 1) { /* each of them is whole */
        st = hello_write(e, call, ops, n / 2, e->flushed);
        let_see();
        ops += n / 2;
        n -= n / 2;
    }
    if (has("empty write") && n == 0)
        return T4_OK;
    if (has("wrong flushed") && flushed > INT64_MAX)
        flushed = INT64_MAX;
    return st == T4_OK ? hello_write(e, call, ops, n, flushed) : st;
}

/* --- read --------------------------------------------------------------------------- */

static t4_status
test_snap(struct t4_engine *e, struct t4_snap **out)
{
    t4_status st = hello_snap(e, out);

    atomic_store(&reader, pthread_self());
    atomic_fetch_add(&snapshots, 1);
    if (has("crash without memory"))
        (*out)->engine = e;
    return st;
}

/* The snapshot sees what is newest. */
static void
refresh(struct t4_snap *s)
{
    struct t4_engine *e = s->engine;

    if (!has("living snapshot"))
        return;
    pthread_mutex_lock(&e->lock);
    e->newest->holders++;
    drop_array(e->host, s->array);
    s->array = e->newest;
    pthread_mutex_unlock(&e->lock);
}

static t4_status
test_get(struct t4_snap *s, struct t4_slice key, struct t4_slice *value)
{
    refresh(s);
    return hello_get(s, key, value);
}

/* An engine with one buffer for values, which the next one overwrites. */
static t4_status
lend(t4_status st, struct t4_slice *value)
{
    static __thread uint8_t buffer[1 << 20];

    if (st == T4_OK && has("value moves") && value->len <= sizeof buffer) {
        memcpy(buffer, value->data, value->len);
        value->data = buffer;
    }
    return st;
}

static t4_status
test_seek(struct t4_iter *it, struct t4_slice target, struct t4_slice *key,
          struct t4_slice *value)
{
    t4_status st = hello_seek(it, target, key, value);

    if (has("seek behind") && st == T4_OK && compare(*key, target) == 0)
        return hello_next(it, key, value);
    return lend(st, value);
}

static t4_status
test_next(struct t4_iter *it, struct t4_slice *key, struct t4_slice *value)
{
    t4_status st = hello_next(it, key, value);

    /* The first two records change places. */
    if (has("unordered") && st == T4_OK && it->at <= 2 && it->snap->array->n >= 2) {
        const struct record *r = it->snap->array->record[2 - it->at];

        *key = r->key;
        *value = r->value;
    }
    return lend(st, value);
}

static t4_status
test_prev(struct t4_iter *it, struct t4_slice *key, struct t4_slice *value)
{
    if (has("end is final") && it->at > it->snap->array->n)
        return T4_E_NOTFOUND;
    return lend(hello_prev(it, key, value), value);
}

static t4_status
test_stats(struct t4_engine *e, struct t4_engine_stats *out)
{
    t4_status st = hello_stats(e, out);

    if (has("miscounts"))
        out->records *= 2;
    return st;
}

/* --- the plugin --------------------------------------------------------------------- */

static struct t4_engine_ops test_ops;

static t4_status
test_load(const struct t4_host *host, struct t4_call *call,
          const struct t4_values *values, void **plugin)
{
    size_t n = values->value[0].text.len;

    memcpy(fault, values->value[0].text.data, n < sizeof fault ? n : sizeof fault - 1);
    test_ops.open_reading = has("reading creates") ? test_open : NULL;
    if (has("load"))
        return host->fail(call, T4_E_UNAVAILABLE, "the library has a cold", NULL,
                          "wait a week");
    return load(host, call, values, plugin);
}

static const struct t4_option test_options[] = {
    {"fault", T4_OPTION_STRING, 0, "", NULL, NULL, "the rule that is broken"},
};

T4_PLUGIN_EXPORT const struct t4_plugin *
t4_plugin_v1(void)
{
    static const struct t4_role test_roles[] = {
        {.kind = T4_ROLE_ENGINE, .name = "test_engine", .ops = &test_ops},
    };
    static const struct t4_plugin plugin = {
        T4_PLUGIN_HEAD("test_engine", "1", 0),
        .license = "Apache-2.0",
        .summary = "an engine with a fault",
        .options = test_options,
        .n_options = 1,
        .roles = test_roles,
        .n_roles = 1,
        .load = test_load,
    };

    test_ops = hello_ops;
    test_ops.open = test_open;
    test_ops.close = test_close;
    test_ops.write = test_write;
    test_ops.snap = test_snap;
    test_ops.get = test_get;
    test_ops.seek = test_seek;
    test_ops.next = test_next;
    test_ops.prev = test_prev;
    test_ops.stats = test_stats;
    return &plugin;
}

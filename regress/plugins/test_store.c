/*
 * test_store.c - a wrapper that breaks the contract of object stores, one rule at a time.
 *
 * The setting test_store.fault names the rule; the facade must notice, the start-up probe
 * must refuse, or `t4 plugin check` must fail, each as its test says.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <stdbool.h>
#include <string.h>

#include "t4_plugin.h"

struct t4_store {
    const struct t4_host *host;
    const struct t4_object_ops *inner_ops;
    struct t4_store *inner;
    const char *fault;
};

struct plugin {
    const struct t4_host *host;
    const char *fault;
};

static bool
has(const struct t4_store *s, const char *fault)
{
    return strcmp(s->fault, fault) == 0;
}

static t4_status
test_open(void *plugin, struct t4_call *call, const struct t4_store_open *arguments,
          struct t4_store **out)
{
    struct plugin *p = plugin;
    struct t4_store *s;

    if (strcmp(p->fault, "open") == 0)
        return p->host->fail(call, T4_E_DENIED, "the door is shut", "no key", "knock");
    if (strcmp(p->fault, "open odd") == 0)
        return 17;
    if (strcmp(p->fault, "open nothing") == 0)
        return T4_OK;
    s = p->host->alloc(p->host, sizeof *s);
    *s = (struct t4_store){.host = p->host,
                           .inner_ops = arguments->inner_ops,
                           .inner = arguments->inner,
                           .fault = p->fault};
    *out = s;
    return T4_OK;
}

static void
test_close(struct t4_store *s)
{
    if (!has(s, "leak"))
        s->host->free(s->host, s);
}

static t4_status
test_put(struct t4_store *s, struct t4_call *call, const struct t4_put *put,
         struct t4_object_info *info)
{
    struct t4_put own = *put;
    t4_status st;

    if (has(s, "put io"))
        return T4_E_IO;
    if (has(s, "put odd"))
        return 17;
    if (has(s, "put not found"))
        return T4_E_NOTFOUND;
    if (has(s, "put busy"))
        return s->host->fail(call, T4_E_BUSY, "slow down", NULL, NULL);
    if (has(s, "put without a word"))
        return T4_E_DENIED;
    if (has(s, "ignore absent") && put->condition == T4_PUT_IF_ABSENT)
        own.condition = T4_PUT_ANY;
    if (has(s, "ignore match") && put->condition == T4_PUT_IF_MATCH)
        own.condition = T4_PUT_ANY;
    if (has(s, "ignore stale") && put->condition == T4_PUT_IF_MATCH) {
        struct t4_object_info now = {.size = sizeof now};

        if (s->inner_ops->head(s->inner, call, put->key, &now) == T4_OK)
            own.condition = T4_PUT_ANY; /* but not for an absent key */
    }
    if (has(s, "refuse match") && put->condition == T4_PUT_IF_MATCH)
        return T4_E_PRECONDITION;
    if (has(s, "refuse create") && put->condition == T4_PUT_IF_ABSENT)
        return T4_E_PRECONDITION;
    if (has(s, "retry")) /* the second try loses against the first */
        s->inner_ops->put(s->inner, call, &own, info);
    st = s->inner_ops->put(s->inner, call, &own, info);
    if (has(s, "no tag"))
        info->tag_length = 0;
    if (has(s, "long tag"))
        info->tag_length = T4_TAG_MAX + 1;
    if (has(s, "same tag"))
        memset(info->tag, 'x', info->tag_length);
    if (has(s, "timeout after") && call != NULL && s->host->deadline_ns(call) != 0 &&
        put->body.len > 1000000)
        return T4_E_TIMEOUT;
    return st;
}

struct cut {
    t4_sink_fn *sink;
    void *arg;
    uint64_t left;
};

static t4_status
cut(void *arg, struct t4_slice part)
{
    struct cut *c = arg;

    if (part.len > c->left)
        part.len = (size_t)c->left;
    c->left -= part.len;
    return c->sink(c->arg, part);
}

static t4_status
test_get(struct t4_store *s, struct t4_call *call, struct t4_slice key, uint64_t offset,
         uint64_t length, t4_sink_fn *sink, void *arg, struct t4_object_info *info)
{
    struct cut c = {.sink = sink, .arg = arg, .left = 2};
    t4_status st;

    if (has(s, "stale read"))
        return T4_E_NOTFOUND;
    if (has(s, "short get"))
        return s->inner_ops->get(s->inner, call, key, offset, length, cut, &c, info);
    if (has(s, "long get"))
        return s->inner_ops->get(s->inner, call, key, 0, T4_TO_THE_END, sink, arg, info);
    st = s->inner_ops->get(s->inner, call, key, offset, length, sink, arg, info);
    if (has(s, "same tag"))
        memset(info->tag, 'x', info->tag_length);
    return st;
}

static t4_status
test_head(struct t4_store *s, struct t4_call *call, struct t4_slice key,
          struct t4_object_info *info)
{
    return s->inner_ops->head(s->inner, call, key, info);
}

static t4_status
test_remove(struct t4_store *s, struct t4_call *call, const struct t4_slice *keys,
            size_t n)
{
    if (has(s, "remove one"))
        n = n > 1 ? 1 : n;
    return s->inner_ops->remove(s->inner, call, keys, n);
}

struct listing {
    struct t4_store *store;
    t4_list_fn *fn;
    void *arg;
    uint32_t n;
};

static t4_status
give(void *arg, struct t4_slice key, const struct t4_object_info *info)
{
    struct listing *l = arg;
    t4_status st;

    if (has(l->store, "list skips") && ++l->n % 5 == 0)
        return T4_OK;
    if (has(l->store, "list prefix")) {
        key.data++;
        key.len--;
    }
    st = l->fn(l->arg, key, info);
    if (st == T4_OK && has(l->store, "list twice"))
        st = l->fn(l->arg, key, info);
    return st;
}

static t4_status
test_list(struct t4_store *s, struct t4_call *call, struct t4_slice prefix,
          struct t4_slice after, uint32_t max, t4_list_fn *fn, void *arg)
{
    struct listing l = {.store = s, .fn = fn, .arg = arg};

    if (has(s, "stale list"))
        return T4_OK;
    if (has(s, "list more"))
        max = max < 1000 ? max + 1 : max;
    if (has(s, "list from the start"))
        after.len = 0;
    return s->inner_ops->list(s->inner, call, prefix, after, max, give, &l);
}

static t4_status
load(const struct t4_host *host, struct t4_call *call, const struct t4_values *values,
     void **plugin)
{
    struct plugin *p = host->alloc(host, sizeof *p);

    (void)call;
    *p = (struct plugin){.host = host, .fault = (const char *)values->value[0].text.data};
    *plugin = p;
    return T4_OK;
}

static void
unload(void *plugin)
{
    struct plugin *p = plugin;

    p->host->free(p->host, p);
}

static const struct t4_option options[] = {
    {"fault", T4_OPTION_STRING, 0, "none", NULL, NULL, "the rule that is broken"},
};
static const struct t4_object_ops ops = {
    .size = sizeof ops,
    .caps = T4_OBJECT_IF_ABSENT | T4_OBJECT_IF_MATCH | T4_OBJECT_WRAPS,
    .open = test_open,
    .close = test_close,
    .put = test_put,
    .get = test_get,
    .head = test_head,
    .remove = test_remove,
    .list = test_list,
};
static const struct t4_role roles[] = {
    {.kind = T4_ROLE_OBJECT, .name = "test_store", .ops = &ops},
};

const struct t4_plugin *
t4_plugin_v1(void)
{
    static const struct t4_plugin plugin = {
        T4_PLUGIN_HEAD("test_store", "0.1", 0),
        .license = "Apache-2.0",
        .summary = "breaks the contract of object stores",
        .options = options,
        .n_options = 1,
        .roles = roles,
        .n_roles = 1,
        .load = load,
        .unload = unload,
    };

    return &plugin;
}

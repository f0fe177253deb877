/*
 * backends.c - loads a storage engine, opens an object store.  See backends.h.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "backends/backends.h"

#include <string.h>

#include "backends/built_in_store.h"

t4_status
backends_load_engine(struct backends *b, const struct backends_options *o,
                     struct error *error)
{
    t4_status st;

    if (strcmp(o->storage_engine, "memory") == 0)
        return T4_OK;
    st = plugin_load(o->plugin_dir, o->storage_engine, o->engine_settings,
                     o->n_engine_settings, &b->engine_plugin, error);
    if (st != T4_OK)
        return st;
    return plugin_role(b->engine_plugin, T4_ROLE_ENGINE, o->storage_engine,
                       &b->engine_ops, sizeof b->engine_ops, error);
}

static t4_status
open_built_in(struct backends *b, const struct backends_options *o,
              const struct object_options *options, struct error *error)
{
    struct env *env = options->env;
    struct buffer url = {0};
    t4_status st = env->mkdir(env->state, o->data_dir, error);

    if (st != T4_OK)
        return error_hint(error, "create the directory or give another data directory");
    st = built_in_store_url(o->data_dir, &url, error);
    if (st == T4_OK)
        st = object_open((const char *)url.data, options, &b->store, error);
    buffer_free(&url);
    return st;
}

t4_status
backends_open_store(struct backends *b, const struct backends_options *o,
                    struct error *error)
{
    struct object_options options = {.env = env_posix(),
                                     .plugin_dir = o->plugin_dir,
                                     .settings = o->store_settings,
                                     .n_settings = o->n_store_settings};

    if (o->object_store == NULL)
        return open_built_in(b, o, &options, error);
    return object_open(o->object_store, &options, &b->store, error);
}

void
backends_close(struct backends *b)
{
    if (b->store != NULL)
        object_close(b->store);
    if (b->engine_plugin != NULL)
        plugin_unload(b->engine_plugin);
    *b = (struct backends){0};
}

/*
 * backends.h - the storage engine and the object store that a database is opened on, from
 * their names.
 *
 * Shared by the server and the library.  Main thread of a server; in the library the thread
 * that opens or closes the database.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef BACKENDS_BACKENDS_H
#define BACKENDS_BACKENDS_H

#include "object/object.h"
#include "plugin/plugin.h"

struct backends_options {
    const char *data_dir;
    const char *plugin_dir;                       /* NULL: see plugin_load() */
    const char *storage_engine;                   /* "memory", or a plugin's name */
    const struct plugin_setting *engine_settings; /* of that plugin: "map_size" */
    size_t n_engine_settings;
    const char *object_store; /* a URL; NULL: the built-in store, <data_dir>/store */
    const struct plugin_setting *store_settings; /* of all plugins: "s3.region" */
    size_t n_store_settings;
};

struct backends {
    struct plugin *engine_plugin; /* NULL: the memory engine */
    struct t4_engine_ops engine_ops;
    struct object_store *store; /* NULL: not open */
};

/* Each fills its part of *b, which began as zeroes; errors are the plugin's. */
t4_status backends_load_engine(struct backends *b, const struct backends_options *o,
                               struct error *error);
/* Makes the data directory if the store is built in. */
t4_status backends_open_store(struct backends *b, const struct backends_options *o,
                              struct error *error);
/* Takes down what is there; no database uses it any more. */
void backends_close(struct backends *b);

#endif

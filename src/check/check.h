/*
 * check.h - the conformance kit: does a plugin keep the contract of t4_plugin.h?
 *
 * Writes TAP.  Runs on: the caller's thread, and on threads and processes of its own.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef CHECK_CHECK_H
#define CHECK_CHECK_H

#include <stdbool.h>
#include <stdio.h>

#include "env/env.h"
#include "plugin/plugin.h"

struct check_options {
    struct env *env;
    FILE *out;
    const char *plugin_dir; /* may be NULL */
    const struct plugin_setting *settings;
    size_t n_settings;
    unsigned rounds;         /* of each race; an engine's history and kills follow it */
    const char *dir;         /* for the files of storage engines; NULL: TMPDIR or /tmp */
    uint64_t seed;           /* of an engine's history */
    bool allow_refused_keys; /* a store may refuse awkward keys, if it says so */
};

/*
 * An object store by its URL, a plugin by its name (descriptor, roles, and all of each storage
 * engine), or the built-in engine.  True: everything held.  An object store is used below a
 * random prefix "t4-check-.../", which is empty again at the end; an engine in a folder
 * t4-check-... that is removed.  The last two fork: the caller is the only thread.
 */
bool check_object_store(const char *url, const struct check_options *options);
bool check_plugin(const char *name, const struct check_options *options);
bool check_memory_engine(const struct check_options *options);

#endif

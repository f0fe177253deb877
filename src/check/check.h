/*
 * check.h - the conformance kit: does a plugin keep the contract of t4_plugin.h?
 *
 * Writes TAP.  Runs on: the caller's thread, and on threads of its own during a check.
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
    unsigned rounds;         /* of each race */
    bool allow_refused_keys; /* a store may refuse awkward keys, if it says so */
};

/*
 * An object store by its URL, or a plugin by its name (of which descriptor and roles are
 * looked at).  True: everything held.  An object store is used below a random prefix
 * "t4-check-.../", which is empty again at the end.
 */
bool check_object_store(const char *url, const struct check_options *options);
bool check_plugin(const char *name, const struct check_options *options);

#endif

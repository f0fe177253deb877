/*
 * plugin.h - finding, checking, loading and unloading plugins (ABI: include/t4_plugin.h).
 *
 * A refusal names the field, option or file that is wrong and what to do.  Loading and
 * unloading happen on the main thread; lookups from any thread after that.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef PLUGIN_PLUGIN_H
#define PLUGIN_PLUGIN_H

#include "base/error.h"
#include "include/t4_plugin.h"

struct plugin; /* a loaded plugin, owned by the caller of plugin_load() */

/* One setting for a plugin, "map_size" = "64 GB". */
struct plugin_setting {
    const char *name, *value;
};

/*
 * Loads <dir>/<name>.so.  Name: [a-z][a-z0-9_]*, at most 32 characters.  dir NULL: the
 * environment variable T4_PLUGIN_DIR, else "plugins" beside the running program if it is
 * there (a build tree), else the installed directory.  The file must belong to root or to
 * the server's user and not be writable by others.
 */
t4_status plugin_load(const char *dir, const char *name,
                      const struct plugin_setting *settings, size_t n_settings,
                      struct plugin **out, struct error *error);
/* The folder that plugin_load() would use for `dir`; may be `dir`, `buffer` or static. */
const char *plugin_folder(const char *dir, char *buffer, size_t n);
/* As plugin_load(), but without settings and without load(): to look at the descriptor. */
t4_status plugin_describe(const char *dir, const char *name, struct plugin **out,
                          struct error *error);
/* Gives how many of its allocations the plugin had not freed: 0 for a faultless one. */
size_t plugin_unload(struct plugin *p);
/* Allocations that it holds at the moment.  Any thread. */
size_t plugin_allocations(struct plugin *p);
/*
 * For checks: the nth allocation from now (0: none) finds no memory.  Gives how many were
 * still to come before the failure that was asked for last; 0: it has happened.
 */
size_t plugin_fail_allocation(struct plugin *p, size_t nth);
const struct t4_plugin *plugin_descriptor(const struct plugin *p);
void *plugin_state(const struct plugin *p); /* what load() gave */

/*
 * Copies the role's table into `table` (of table_size bytes, zeroed first), so that members
 * the plugin does not have are NULL.  NOTFOUND: no such role; UNSUPPORTED: it needs a newer
 * host.
 */
t4_status plugin_role(const struct plugin *p, uint32_t kind, const char *role_name,
                      void *table, size_t table_size, struct error *error);

/* A call context for calls into a plugin: where host->fail() leaves its words. */
struct t4_call {
    struct error *error;      /* may be NULL */
    uint64_t deadline_ns;     /* on the boot clock; 0 = none */
    const int32_t *cancelled; /* may be NULL */
};

#endif

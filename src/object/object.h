/*
 * object.h - an object store as the server sees it: any plugin's table, adopted, counted,
 * probed, with the rules for ambiguous answers.
 *
 * Calls block; whoever must not wait runs them on workers.  Every function may be called from
 * any thread, many at once on one store.  Errors: those of the contract in
 * include/t4_plugin.h, with the store's words in *error (which may be NULL).
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef OBJECT_OBJECT_H
#define OBJECT_OBJECT_H

#include "base/buffer.h"
#include "base/error.h"
#include "env/env.h"
#include "plugin/plugin.h"

struct object_store;

struct object_options {
    struct env *env;
    const char *plugin_dir;                /* looked in first; NULL: see plugin_load() */
    const struct plugin_setting *settings; /* "s3.region": of all plugins, by prefix */
    size_t n_settings;
};

/*
 * Opens "file:///path", "s3://bucket/prefix", "gs://bucket/prefix", or a wrapper before any of
 * them ("fault+file:///path"): loads the plugins that the schemes name (file: dir, gs: gcs,
 * else the scheme) and opens the stores from the inside out.
 */
t4_status object_open(const char *url, const struct object_options *options,
                      struct object_store **out, struct error *error);
/* No call may be under way.  Gives how many allocations the plugins left behind (0). */
size_t object_close(struct object_store *s);
const char *object_url(const struct object_store *s); /* without secrets */
/* From now on every call, also those under way, ends with CANCELLED as soon as it can. */
void object_cancel(struct object_store *s);
/* The outermost table and its handle, and the plugins (0: outermost; NULL: no more). */
const struct t4_object_ops *object_table(const struct object_store *s,
                                         struct t4_store **handle);
struct plugin *object_plugin(const struct object_store *s, size_t i);

/*
 * timeout_ns 0: the default of 60 s.  A put is either done (OK), certainly not done
 * (PRECONDITION, BUSY, TIMEOUT, CANCELLED, UNAVAILABLE, DENIED, INVALID, NOSPACE,
 * UNSUPPORTED), or UNKNOWN: whatever else a plugin says is turned into that.
 */
t4_status object_put(struct object_store *s, const struct t4_put *put,
                     uint64_t timeout_ns, struct t4_object_info *info,
                     struct error *error);
/* Appends the bytes to *out; at most `limit` of them, more is CORRUPT. */
t4_status object_get(struct object_store *s, struct t4_slice key, uint64_t offset,
                     uint64_t length, size_t limit, uint64_t timeout_ns,
                     struct buffer *out, struct t4_object_info *info,
                     struct error *error);
/*
 * Says that the whole object will be asked for soon: it is fetched meanwhile (up to 32 are).  Only
 * for objects that never change.  end: what nobody has asked for is given up.
 */
void object_ahead(struct object_store *s, struct t4_slice key, size_t limit);
void object_ahead_end(struct object_store *s);
t4_status object_head(struct object_store *s, struct t4_slice key, uint64_t timeout_ns,
                      struct t4_object_info *info, struct error *error);
t4_status object_remove(struct object_store *s, const struct t4_slice *keys, size_t n,
                        uint64_t timeout_ns, struct error *error);
t4_status object_list(struct object_store *s, struct t4_slice prefix,
                      struct t4_slice after, uint32_t max, uint64_t timeout_ns,
                      t4_list_fn *fn, void *arg, struct error *error);

#define PROBE_PREFIX "probe/" /* of its scratch objects, in a server's store */
/*
 * The start-up probe (I9) under a random scratch key below `prefix`: create-if-absent twice,
 * fresh and stale If-Match, read-after-write, list-after-write.  OK, or UNSUPPORTED with what
 * failed; other errors: the store could not be asked.
 */
t4_status object_probe(struct object_store *s, struct t4_slice prefix,
                       struct error *error);

#endif

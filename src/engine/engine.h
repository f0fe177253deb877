/*
 * engine.h - a storage engine as the server sees it: any plugin's table or the built-in
 * memory engine, adopted and counted.
 *
 * The contract of each call is in include/t4_plugin.h.  Writes come from one thread at a time
 * (the engine thread); snapshots and iterators from any.  An adopted table has every member
 * set: members that an older plugin lacks are replaced by fallbacks or refused at open.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef ENGINE_ENGINE_H
#define ENGINE_ENGINE_H

#include <stdbool.h>

#include "base/error.h"
#include "include/t4_plugin.h"

struct engine; /* an open engine */

/*
 * Opens `ops` (of a loaded plugin, or engine_memory_ops()) on directory `dir`, which is
 * created by the engine if need be.  `plugin` is what its load() gave.  *out is NULL on
 * failure and *error says why, with the plugin's own words.
 */
t4_status engine_open(const struct t4_engine_ops *ops, void *plugin, const char *name,
                      const char *dir, struct engine **out, struct error *error);
/*
 * For looking at the engine of a server that may be running: only snapshots, reading and
 * engine_stats().  NOTFOUND: there is none in dir; UNSUPPORTED: this engine cannot do that.
 */
t4_status engine_open_reading(const struct t4_engine_ops *ops, void *plugin,
                              const char *name, const char *dir, struct engine **out,
                              struct error *error);
void engine_close(struct engine *e);
const char *engine_name(const struct engine *e);
uint64_t engine_max_key(const struct engine *e);

t4_status engine_write(struct engine *e, const struct t4_op *ops, size_t n,
                       uint64_t flushed, struct error *error);
t4_status engine_sync(struct engine *e, struct error *error);
/* One step; an engine that cannot has nothing to do.  Writer's thread. */
t4_status engine_defragment(struct engine *e, bool *more, struct error *error);
t4_status engine_flushed(struct engine *e, uint64_t *out);
t4_status engine_snap(struct engine *e, struct t4_snap **out);
void engine_snap_end(struct engine *e, struct t4_snap *snap);
t4_status engine_get(struct engine *e, struct t4_snap *snap, struct t4_slice key,
                     struct t4_slice *value);
t4_status engine_iter(struct engine *e, struct t4_snap *snap, struct t4_iter **out);
t4_status engine_seek(struct engine *e, struct t4_iter *it, struct t4_slice key,
                      struct t4_slice *out_key, struct t4_slice *out_value);
t4_status engine_next(struct engine *e, struct t4_iter *it, struct t4_slice *out_key,
                      struct t4_slice *out_value);
t4_status engine_prev(struct engine *e, struct t4_iter *it, struct t4_slice *out_key,
                      struct t4_slice *out_value);
void engine_iter_end(struct engine *e, struct t4_iter *it);
t4_status engine_stats(struct engine *e, struct t4_engine_stats *out);

/* The built-in engine: ordered map in memory with snapshots; not durable, `dir` is unused. */
const struct t4_engine_ops *engine_memory_ops(void);

#endif

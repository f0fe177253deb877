/*
 * engine.c - adopting a storage engine's table and calling through it.
 *
 * A table comes from a plugin that may be older or newer than the server, so it is copied
 * into one of our own size first: what the plugin does not have is NULL there, and either
 * has a fallback (sync of an engine that keeps nothing, stats, defragment) or is refused by
 * name at open.  After that a call is one indirect call; only its failure costs more, since
 * the plugin's words are then completed with what the caller should know.  The memory
 * engine: memory.c.
 *
 * Entry points: engine_open(), then everything in engine.h.  Runs on: any thread as
 * engine.h says; there is no state of its own after engine_open().
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "engine/engine.h"

#include <stddef.h>
#include <string.h>

#include "base/memory.h"
#include "base/slice.h"
#include "plugin/plugin.h"

#define MAX_VALUE ((size_t)1 << 30)

struct engine {
    struct t4_engine_ops ops; /* [const after open] adopted: every member is set */
    struct t4_engine *handle; /* [const after open] */
    char *name;               /* [const after open] */
};

/* Statuses are an open enumeration: one that this server does not know is INTERNAL. */
static t4_status
known(t4_status status)
{
    return status <= T4_OK && status >= T4_E_IO ? status : T4_E_INTERNAL;
}

/* --- adopting a table --------------------------------------------------------------- */

static t4_status
nothing_to_sync(struct t4_engine *handle, struct t4_call *call)
{
    (void)handle;
    (void)call;
    return T4_OK;
}

static t4_status
no_stats(struct t4_engine *handle, struct t4_engine_stats *out)
{
    (void)handle;
    (void)out;
    return T4_E_UNSUPPORTED;
}

static t4_status
nothing_to_defragment(struct t4_engine *handle, struct t4_call *call, int32_t *more)
{
    (void)handle;
    (void)call;
    *more = 0;
    return T4_OK;
}

#define MEMBER(m)                                                                        \
    {                                                                                    \
#m, offsetof(struct t4_engine_ops, m)                                            \
    }
static const struct {
    const char *name;
    size_t offset;
} required[] = {
    MEMBER(open), MEMBER(close),    MEMBER(write),    MEMBER(sync), MEMBER(flushed),
    MEMBER(snap), MEMBER(snap_end), MEMBER(get),      MEMBER(iter), MEMBER(seek),
    MEMBER(next), MEMBER(prev),     MEMBER(iter_end),
};
#undef MEMBER

static t4_status
adopt(const struct t4_engine_ops *ops, const char *name, struct t4_engine_ops *own,
      struct error *error)
{
    memset(own, 0, sizeof *own);
    if (ops->size < offsetof(struct t4_engine_ops, open)) {
        error_set(
            error, T4_E_INVALID,
            "storage engine \"%s\": its table says it is %u bytes long, too short even "
            "for its head",
            name, ops->size);
        goto hint;
    }
    memcpy(own, ops, ops->size < sizeof *own ? ops->size : sizeof *own);
    if (own->min_minor > T4_ABI_MINOR) {
        error_set(error, T4_E_UNSUPPORTED,
                  "storage engine \"%s\" needs ABI %d.%u, the server has %d.%d", name,
                  T4_ABI_MAJOR, own->min_minor, T4_ABI_MAJOR, T4_ABI_MINOR);
        error_hint(error, "use a newer server or an older build of the plugin");
        return T4_E_UNSUPPORTED;
    }
    if (own->stats == NULL)
        own->stats = no_stats;
    if (own->defragment == NULL)
        own->defragment = nothing_to_defragment;
    if (own->sync == NULL && !(own->caps & T4_ENGINE_DURABLE))
        own->sync = nothing_to_sync;
    for (size_t i = 0; i < sizeof required / sizeof required[0]; i++) {
        void (*member)(void);

        memcpy(&member, (const char *)own + required[i].offset, sizeof member);
        if (member == NULL) {
            error_set(
                error, T4_E_INVALID,
                "storage engine \"%s\": its table (%u bytes) lacks the function \"%s\"",
                name, ops->size, required[i].name);
            goto hint;
        }
    }
    if (own->max_key == 0) {
        error_set(error, T4_E_INVALID, "storage engine \"%s\": its max_key is 0", name);
        goto hint;
    }
    own->size = sizeof *own;
    return T4_OK;

hint:
    error_hint(error,
               "the plugin is faulty or incomplete: build it against this server's "
               "t4_plugin.h");
    return T4_E_INVALID;
}

/*
 * Completes the report of a failed call: the plugin's own words if it had any, else the
 * status in words; before them what was attempted.
 */
static t4_status
report(const char *name, struct error *error, t4_status status, const char *what)
{
    status = known(status);
    if (error == NULL)
        return status;
    if (error->message[0] == '\0')
        error_set(error, status, "%s", status_text(status));
    error->status = status;
    return error_wrap(error, "storage engine \"%s\": %s", name, what);
}

static struct t4_call
call_of(struct error *error)
{
    if (error != NULL) {
        error->status = T4_OK;
        error->message[0] = error->hint[0] = '\0';
    }
    return (struct t4_call){.error = error};
}

/* --- life --------------------------------------------------------------------------- */

static t4_status
open_one(const struct t4_engine_ops *ops, bool reading, void *plugin, const char *name,
         const char *dir, struct engine **out, struct error *error)
{
    struct t4_call call = call_of(error);
    struct t4_engine_ops own;
    struct t4_engine *handle = NULL;
    struct engine *e;
    t4_status st;

    *out = NULL;
    st = adopt(ops, name, &own, error);
    if (st != T4_OK)
        return st;
    if (reading && own.open_reading == NULL)
        return error_set(error, T4_E_UNSUPPORTED,
                         "storage engine \"%s\" cannot be read beside a server", name);
    st = (reading ? own.open_reading : own.open)(plugin, &call, slice_str(dir), &handle);
    if (st == T4_OK && handle == NULL)
        st = error_set(error, T4_E_INTERNAL, "open() said OK but gave no handle");
    if (st != T4_OK)
        return report(name, error, st, "cannot open");

    e = mem_zalloc(sizeof *e);
    e->ops = own;
    e->handle = handle;
    e->name = mem_strdup(name);
    *out = e;
    return T4_OK;
}

t4_status
engine_open(const struct t4_engine_ops *ops, void *plugin, const char *name,
            const char *dir, struct engine **out, struct error *error)
{
    return open_one(ops, false, plugin, name, dir, out, error);
}

t4_status
engine_open_reading(const struct t4_engine_ops *ops, void *plugin, const char *name,
                    const char *dir, struct engine **out, struct error *error)
{
    return open_one(ops, true, plugin, name, dir, out, error);
}

void
engine_close(struct engine *e)
{
    if (e == NULL)
        return;
    e->ops.close(e->handle);
    mem_free(e->name);
    mem_free(e);
}

const char *
engine_name(const struct engine *e)
{
    return e->name;
}

uint64_t
engine_max_key(const struct engine *e)
{
    return e->ops.max_key;
}

/* --- writing ------------------------------------------------------------------------ */

/* The contract's bounds, so that no plugin has to defend itself (I12). */
static t4_status
check_ops(const struct engine *e, const struct t4_op *ops, size_t n, struct error *error)
{
    for (size_t i = 0; i < n; i++) {
        const struct t4_op *op = &ops[i];

        if (op->kind != T4_OP_PUT && op->kind != T4_OP_DELETE)
            return error_set(error, T4_E_INVALID, "operation %zu is of unknown kind %u",
                             i, op->kind);
        if (op->key.len == 0 || op->key.len > e->ops.max_key)
            return error_set(
                error, T4_E_INVALID,
                "operation %zu has a key of %zu bytes; 1 to %llu are possible", i,
                op->key.len, (unsigned long long)e->ops.max_key);
        if (op->kind == T4_OP_PUT && op->value.len > MAX_VALUE)
            return error_set(error, T4_E_INVALID,
                             "operation %zu has a value of %zu bytes; %zu are possible",
                             i, op->value.len, MAX_VALUE);
    }
    return T4_OK;
}

t4_status
engine_write(struct engine *e, const struct t4_op *ops, size_t n, uint64_t flushed,
             struct error *error)
{
    struct t4_call call = call_of(error);
    t4_status st = check_ops(e, ops, n, error);

    if (st == T4_OK)
        st = e->ops.write(e->handle, &call, ops, n, flushed);
    return st == T4_OK ? T4_OK : report(e->name, error, st, "cannot write");
}

t4_status
engine_sync(struct engine *e, struct error *error)
{
    struct t4_call call = call_of(error);
    t4_status st = e->ops.sync(e->handle, &call);

    return st == T4_OK ? T4_OK : report(e->name, error, st, "cannot sync");
}

t4_status
engine_defragment(struct engine *e, bool *more, struct error *error)
{
    struct t4_call call = call_of(error);
    int32_t again = 0;
    t4_status st = e->ops.defragment(e->handle, &call, &again);

    *more = st == T4_OK && again != 0;
    return st == T4_OK ? T4_OK : report(e->name, error, st, "cannot defragment");
}

/* --- reading ------------------------------------------------------------------------ */

t4_status
engine_flushed(struct engine *e, uint64_t *out)
{
    t4_status st = e->ops.flushed(e->handle, out);

    return st == T4_OK ? T4_OK : known(st);
}

t4_status
engine_snap(struct engine *e, struct t4_snap **out)
{
    t4_status st = e->ops.snap(e->handle, out);

    if (st == T4_OK)
        return T4_OK;
    *out = NULL;
    return known(st);
}

void
engine_snap_end(struct engine *e, struct t4_snap *snap)
{
    if (snap != NULL)
        e->ops.snap_end(snap);
}

t4_status
engine_get(struct engine *e, struct t4_snap *snap, struct t4_slice key,
           struct t4_slice *value)
{
    t4_status st = e->ops.get(snap, key, value);

    return st == T4_OK ? T4_OK : known(st);
}

t4_status
engine_iter(struct engine *e, struct t4_snap *snap, struct t4_iter **out)
{
    t4_status st = e->ops.iter(snap, out);

    if (st == T4_OK)
        return T4_OK;
    *out = NULL;
    return known(st);
}

t4_status
engine_seek(struct engine *e, struct t4_iter *it, struct t4_slice key,
            struct t4_slice *out_key, struct t4_slice *out_value)
{
    t4_status st = e->ops.seek(it, key, out_key, out_value);

    return st == T4_OK ? T4_OK : known(st);
}

t4_status
engine_next(struct engine *e, struct t4_iter *it, struct t4_slice *out_key,
            struct t4_slice *out_value)
{
    t4_status st = e->ops.next(it, out_key, out_value);

    return st == T4_OK ? T4_OK : known(st);
}

t4_status
engine_prev(struct engine *e, struct t4_iter *it, struct t4_slice *out_key,
            struct t4_slice *out_value)
{
    t4_status st = e->ops.prev(it, out_key, out_value);

    return st == T4_OK ? T4_OK : known(st);
}

void
engine_iter_end(struct engine *e, struct t4_iter *it)
{
    if (it != NULL)
        e->ops.iter_end(it);
}

t4_status
engine_stats(struct engine *e, struct t4_engine_stats *out)
{
    t4_status st;

    memset(out, 0, sizeof *out);
    out->size = sizeof *out;
    st = e->ops.stats(e->handle, out);
    return st == T4_OK ? T4_OK : known(st);
}

/*
 * engine.c - the storage engine's folder: opening it, and giving it up when it is damaged.
 *
 * The engine is a cache: everything in it stands in the log and, below that, in the newest
 * checkpoint of the object store.  So one that is damaged is emptied, and filled again while the
 * server serves (base.c).  Damage that a read or compaction finds ends the process, for what else
 * is damaged nobody knows; the next start empties the folder.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "base/memory.h"
#include "env/file.h"
#include "node/node_int.h"
#include "txn/request.h"

struct wipe {
    struct env *env;
    const char *dir;
};

static void
wipe_file(void *arg, const char *name)
{
    struct wipe *w = arg;
    size_t size = strlen(w->dir) + strlen(name) + 2;
    char *path = mem_alloc(size);

    snprintf(path, size, "%s/%s", w->dir, name);
    w->env->unlink(w->env->state, path, NULL);
    mem_free(path);
}

/*
 * The mark of an engine that must not be used again: a file of the data directory.  Made when damage is
 * found, gone when the folder is empty.
 */
#define DOOMED "engine-damaged"

static void
doom_text(void *arg, const struct env_stat *st, struct buffer *out)
{
    (void)arg;
    (void)st;
    buffer_append_slice(out, slice_str("The next start deletes the folder engine.\n"));
}

static void
doom(struct node *n)
{
    struct error error;

    /* Should this fail as well, the next start finds the damage again. */
    env_replace_file(n->options.env, n->data_dir, DOOMED, doom_text, NULL, &error);
}

/*
 * Found by a read or by compaction.  Nobody knows what else is damaged: the engine, a cache of log and
 * object store, is given up as a whole.  The next start does that, in a second.
 */
void
node_engine_damaged(void *arg)
{
    struct node *n = arg;
    struct error error = {0};

    doom(n);
    error_set(&error, T4_E_CORRUPT, "a record of the storage engine in %s is damaged",
              n->data_dir);
    error_hint(&error,
               "start the server again: it begins without the engine, which log and "
               "object store fill again; have the disk checked");
    node_fatal(n, &error);
}

static bool
is_doomed(struct node *n)
{
    char *path = env_path(n->data_dir, DOOMED);
    struct env *env = n->options.env;
    struct env_file *file;
    bool doomed = env->open(env->state, path, ENV_READONLY, &file, NULL) == T4_OK;

    if (doomed)
        env->close(env->state, file);
    mem_free(path);
    return doomed;
}

static void
wipe_engine(struct node *n, const char *dir)
{
    struct env *env = n->options.env;
    struct wipe w = {env, dir};
    char *path = env_path(n->data_dir, DOOMED);

    env->list(env->state, dir, wipe_file, &w, NULL);
    if (env->sync_dir(env->state, dir, NULL) == T4_OK)
        env->unlink(env->state, path, NULL);
    mem_free(path);
}

static t4_status
open_engine(struct node *n, const char *dir, struct error *error)
{
    const struct t4_engine_ops *ops = n->options.engine_ops;

    return engine_open(ops != NULL ? ops : engine_memory_ops(), n->options.engine_plugin,
                       ops != NULL ? n->options.engine_name : "memory", dir, &n->engine,
                       error);
}

t4_status
node_open_engine(struct node *n, bool drop, struct error *error)
{
    char *dir = env_path(n->data_dir, "engine");
    bool doomed = is_doomed(n);
    t4_status status;

    if (n->engine != NULL)
        engine_close(n->engine);
    n->engine = NULL;
    if (doomed)
        LOG_WARN("the storage engine was found damaged; beginning without it: log and "
                 "object store bring everything back",
                 NULL);
    if (drop || doomed)
        wipe_engine(n, dir);
    status = open_engine(n, dir, error);
    if (status == T4_E_CORRUPT && n->options.store != NULL) {
        LOG_ERROR("the storage engine is damaged; beginning without it: log and object "
                  "store bring everything back",
                  "reason", error->message, NULL);
        wipe_engine(n, dir);
        status = open_engine(n, dir, error);
    }
    if (status == T4_OK && engine_max_key(n->engine) < 2 * (KEY_BYTES_MAX + 1) + 10) {
        status = error_set(error, T4_E_INVALID,
                           "the storage engine %s takes keys of %llu bytes, t4 needs %u",
                           engine_name(n->engine),
                           (unsigned long long)engine_max_key(n->engine),
                           2 * (KEY_BYTES_MAX + 1) + 10);
        error_hint(error, "use another --storage-engine");
    }
    mem_free(dir);
    return status;
}

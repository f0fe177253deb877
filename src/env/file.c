/*
 * file.c - small files that are written as a whole: crash-safe replacement.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "env/file.h"

#include <stdio.h>
#include <string.h>

#include "base/memory.h"

char *
env_path(const char *dir, const char *name)
{
    size_t size = strlen(dir) + strlen(name) + 2;
    char *path = mem_alloc(size);

    snprintf(path, size, "%s/%s", dir, name);
    return path;
}

/* The new file, complete and synced. */
static t4_status
write_new(struct env *env, const char *path, env_fill_fn *fill, void *arg,
          struct error *error)
{
    struct buffer text = {0};
    struct env_file *file = NULL;
    struct env_stat st;
    t4_status status;

    env->unlink(env->state, path, NULL); /* of a crash, if any */
    status = env->open(env->state, path, ENV_CREATE | ENV_EXCLUSIVE, &file, error);
    if (status == T4_OK)
        status = env->stat(env->state, path, &st, error);
    if (status == T4_OK) {
        fill(arg, &st, &text);
        status = env->pwrite(env->state, file, text.data, text.len, 0, error);
    }
    if (status == T4_OK)
        status = env->sync(env->state, file, error);
    if (file != NULL)
        env->close(env->state, file);
    buffer_free(&text);
    return status;
}

t4_status
env_replace_file(struct env *env, const char *dir, const char *name, env_fill_fn *fill,
                 void *arg, struct error *error)
{
    char *path = env_path(dir, name), *temporary, fresh[256];
    t4_status status;

    snprintf(fresh, sizeof fresh, "%s.new", name);
    temporary = env_path(dir, fresh);
    status = write_new(env, temporary, fill, arg, error);
    if (status == T4_OK)
        status = env->rename(env->state, temporary, path, error);
    if (status == T4_OK)
        status = env->sync_dir(env->state, dir, error);
    mem_free(temporary);
    mem_free(path);
    return status;
}

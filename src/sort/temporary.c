/*
 * temporary.c - files without a name.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <inttypes.h>
#include <stdio.h>

#include "base/memory.h"
#include "env/file.h"
#include "sort/sort.h"

#define PREFIX "tmp-"

t4_status
temporary_open(struct env *env, const char *dir, struct env_file **out,
               struct error *error)
{
    char name[sizeof PREFIX + 16];
    uint64_t number;
    char *path;
    t4_status status;

    *out = NULL;
    env->random(env->state, &number, sizeof number);
    snprintf(name, sizeof name, PREFIX "%016" PRIx64, number);
    path = env_path(dir, name);
    status = env->open(env->state, path, ENV_CREATE | ENV_EXCLUSIVE, out, error);
    if (status == T4_OK) {
        status = env->unlink(env->state, path, error);
        if (status != T4_OK) {
            env->close(env->state, *out);
            *out = NULL;
        }
    }
    mem_free(path);
    return status;
}

struct cleaning {
    struct env *env;
    const char *dir;
};

static void
remove_leftover(void *arg, const char *name)
{
    struct cleaning *c = arg;
    char *path;

    if (!slice_has_prefix(slice_str(name), slice_str(PREFIX)))
        return;
    path = env_path(c->dir, name);
    c->env->unlink(c->env->state, path, NULL);
    mem_free(path);
}

t4_status
temporary_clean(struct env *env, const char *dir, struct error *error)
{
    struct cleaning c = {env, dir};
    t4_status status = env->mkdir(env->state, dir, error);

    return status == T4_OK ? env->list(env->state, dir, remove_leftover, &c, error)
                           : status;
}

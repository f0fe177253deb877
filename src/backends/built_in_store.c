/*
 * built_in_store.c - where the built-in store of a data directory is.
 *
 * Without --object-store the plugin dir keeps the log's objects in <data>/store.
 *
 * Entry points: built_in_store_url(), built_in_store_find().  Main thread.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "backends/built_in_store.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "env/env.h"

#define FOLDER "/store"

/* Everything that has a meaning in a URL, or may not stand in one, as %xx. */
static void
append_path(struct buffer *url, const char *path)
{
    static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                "0123456789-._~/";

    for (; *path != '\0'; path++) {
        char escaped[4];

        if (strchr(plain, *path) != NULL) {
            buffer_append_u8(url, (uint8_t)*path);
        } else {
            snprintf(escaped, sizeof escaped, "%%%02X", (unsigned char)*path);
            buffer_append(url, escaped, 3);
        }
    }
}

t4_status
built_in_store_url(const char *data_dir, struct buffer *url, struct error *error)
{
    char here[4096];

    buffer_append(url, "file://", 7);
    if (data_dir[0] != '/') { /* the plugin wants an absolute path */
        if (getcwd(here, sizeof here) == NULL)
            return error_set(error, T4_E_IO, "the working directory cannot be told: %s",
                             strerror(errno));
        append_path(url, strcmp(here, "/") == 0 ? "" : here);
        buffer_append_u8(url, '/');
    }
    append_path(url, data_dir);
    append_path(url, FOLDER);
    buffer_append_u8(url, '\0');
    return T4_OK;
}

t4_status
built_in_store_find(const char *data_dir, struct buffer *url, struct error *error)
{
    struct env *env = env_posix();
    struct buffer folder = {0};
    struct env_stat st;
    t4_status status = T4_OK;

    buffer_append(&folder, data_dir, strlen(data_dir));
    buffer_append(&folder, FOLDER, sizeof FOLDER);
    if (env->stat(env->state, (const char *)folder.data, &st, NULL) != T4_OK) {
        error_set(error, T4_E_NOTFOUND, "there is no store in %s",
                  (const char *)folder.data);
        status = error_hint(error, "give --data-dir=DIR for a built-in store, or "
                                   "--object-store=URL for another one");
    }
    buffer_free(&folder);
    return status == T4_OK ? built_in_store_url(data_dir, url, error) : status;
}

/*
 * file.h - small files that are written as a whole.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef ENV_FILE_H
#define ENV_FILE_H

#include "base/buffer.h"
#include "env/env.h"

/*
 * Replaces the file `name` of `dir`: the text goes to <name>.new, synced, which is then renamed, and
 * the directory synced; a crash leaves the old file or the new one.  `fill` appends the text; it is
 * told what the new file's inode is (which a rename keeps).  Errors: env.h's.
 */
typedef void env_fill_fn(void *arg, const struct env_stat *st, struct buffer *text);
t4_status env_replace_file(struct env *env, const char *dir, const char *name,
                           env_fill_fn *fill, void *arg, struct error *error);

/* dir/name; the caller's to mem_free(). */
char *env_path(const char *dir, const char *name);

#endif

/*
 * memory_file.h - an env whose files are buffers: for decoders that read files, tried often.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef MEMORY_FILE_H
#define MEMORY_FILE_H

#include "base/buffer.h"
#include "env/env.h"

struct memory_file {
    struct env
        env; /* whatever is opened through it is `bytes`; the rest is env_posix()'s */
    struct buffer bytes;
};

void memory_file_init(struct memory_file *m);
void memory_file_free(struct memory_file *m);
static inline struct env_file *
memory_file_of(struct memory_file *m)
{
    return (struct env_file *)m;
}

#endif

/*
 * memory_file.c - an env whose files are buffers.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "memory_file.h"

static t4_status
open_it(void *state, const char *path, unsigned flags, struct env_file **out,
        struct error *error)
{
    (void)path;
    (void)flags;
    (void)error;
    *out = state;
    return T4_OK;
}

static void
close_it(void *state, struct env_file *file)
{
    (void)state;
    (void)file;
}

static t4_status
stat_it(void *state, const char *path, struct env_stat *st, struct error *error)
{
    struct memory_file *m = state;

    (void)path;
    (void)error;
    *st = (struct env_stat){.size = m->bytes.len};
    return T4_OK;
}

static t4_status
pread_it(void *state, struct env_file *file, void *data, size_t n, uint64_t offset,
         size_t *got, struct error *error)
{
    struct memory_file *m = (struct memory_file *)file;

    (void)state;
    (void)error;
    *got = 0;
    if (offset < m->bytes.len) {
        *got = n < m->bytes.len - offset ? n : m->bytes.len - (size_t)offset;
        memcpy(data, m->bytes.data + offset, *got);
    }
    return T4_OK;
}

static t4_status
pwrite_it(void *state, struct env_file *file, const void *data, size_t n, uint64_t offset,
          struct error *error)
{
    struct memory_file *m = (struct memory_file *)file;

    (void)state;
    (void)error;
    if (offset + n > m->bytes.len) {
        size_t more = (size_t)(offset + n) - m->bytes.len;

        memset(buffer_reserve(&m->bytes, more), 0, more);
        m->bytes.len += more;
    }
    memcpy(m->bytes.data + offset, data, n);
    return T4_OK;
}

static t4_status
unlink_it(void *state, const char *path, struct error *error)
{
    (void)state;
    (void)path;
    (void)error;
    return T4_OK;
}

void
memory_file_init(struct memory_file *m)
{
    *m = (struct memory_file){.env = *env_posix()};
    m->env.state = m;
    m->env.open = open_it;
    m->env.close = close_it;
    m->env.stat = stat_it;
    m->env.pread = pread_it;
    m->env.pwrite = pwrite_it;
    m->env.unlink = unlink_it;
}

void
memory_file_free(struct memory_file *m)
{
    buffer_free(&m->bytes);
}

/*
 * read.c - get and head of the directory store.
 *
 * A file never changes once it has its name: a put makes a new file and gives it the name.
 * So an open file is one version of the object, whole, whatever happens to the name.
 *
 * Entry points: dir_get(), dir_head(), dir_read_info().  Runs on: any thread.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "dir.h"

#define PIECE 262144

/* Returns how many bytes there were, -1 and errno for an error. */
static ssize_t
read_at(int fd, void *data, size_t n, uint64_t offset)
{
    size_t got = 0;

    while (got < n) {
        ssize_t r = pread(fd, (char *)data + got, n - got, (off_t)(offset + got));

        if (r == 0)
            break;
        if (r > 0)
            got += (size_t)r;
        else if (errno != EINTR)
            return -1;
    }
    return (ssize_t)got;
}

t4_status
dir_read_info(const struct t4_store *s, struct t4_call *call, int fd, struct t4_slice key,
              struct t4_object_info *info)
{
    static const char hex[] = "0123456789abcdef";
    uint8_t trailer[DIR_TRAILER];
    uint64_t length = 0, body;
    struct stat st;
    ssize_t got = 0;

    if (fstat(fd, &st) != 0)
        return dir_fail(s, call, errno, T4_E_IO, "examine", key);
    if (S_ISREG(st.st_mode) && st.st_size >= DIR_TRAILER) {
        got = read_at(fd, trailer, sizeof trailer, (uint64_t)st.st_size - DIR_TRAILER);
        if (got < 0)
            return dir_fail(s, call, errno, T4_E_IO, "read", key);
    }
    body = (uint64_t)st.st_size - DIR_TRAILER;
    for (int i = 7; i >= 0 && got == DIR_TRAILER; i--)
        length = length << 8 | trailer[8 + i];
    if (got != DIR_TRAILER || memcmp(trailer, "t4object", 8) != 0 || length != body) {
        char message[512];

        snprintf(message, sizeof message, "%s: the file of %.*s", s->path,
                 (int)(key.len < 200 ? key.len : 200), (const char *)key.data);
        return s->host->fail(call, T4_E_CORRUPT, message,
                             "it is no object, or a damaged one",
                             "files of others must not be put into the directory; "
                             "restore a damaged one from a copy");
    }
    info->length = body;
    info->modified_ms = (int64_t)st.st_mtim.tv_sec * 1000 + st.st_mtim.tv_nsec / 1000000;
    info->date_ms = dir_wall_ms();
    info->tag_length = DIR_TAG;
    for (int i = 0; i < 16; i++) {
        info->tag[2 * i] = hex[trailer[16 + i] >> 4];
        info->tag[2 * i + 1] = hex[trailer[16 + i] & 15];
    }
    return T4_OK;
}

static t4_status
open_object(struct t4_store *s, struct t4_call *call, struct t4_slice key, int *out,
            struct t4_object_info *info)
{
    t4_status st = dir_check_call(s, call);
    char path[DIR_MAX_NAME];
    int fd;

    if (st != T4_OK)
        return st;
    if (!dir_path_of(key, path))
        return s->host->fail(call, T4_E_INVALID, "a key has 1 to 1024 bytes", NULL, NULL);
    fd = openat(s->fd, path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd < 0 && errno == ENOENT) {
        st = dir_check_root(s, call);
        return st == T4_OK ? T4_E_NOTFOUND : st;
    }
    if (fd < 0)
        return dir_fail(s, call, errno, T4_E_IO, "open", key);
    st = dir_read_info(s, call, fd, key, info);
    if (st != T4_OK)
        close(fd);
    else
        *out = fd;
    return st;
}

static t4_status
send_range(struct t4_store *s, struct t4_call *call, struct t4_slice key, int fd,
           uint64_t offset, uint64_t end, t4_sink_fn *sink, void *arg)
{
    size_t most = end - offset < PIECE ? (size_t)(end - offset) : PIECE;
    uint8_t *piece = s->host->alloc(s->host, most);
    t4_status st = piece != NULL ? T4_OK : T4_E_NOMEM;

    while (st == T4_OK && offset < end) {
        size_t n = end - offset < most ? (size_t)(end - offset) : most;
        ssize_t got = read_at(fd, piece, n, offset);

        if (got < 0)
            st = dir_fail(s, call, errno, T4_E_IO, "read", key);
        else if ((size_t)got < n)
            st = s->host->fail(call, T4_E_CORRUPT, s->path,
                               "a file became shorter while it was read", NULL);
        else
            st = sink(arg, (struct t4_slice){piece, n});
        offset += n;
        if (st == T4_OK && offset < end)
            st = dir_check_call(s, call);
    }
    s->host->free(s->host, piece);
    return st;
}

t4_status
dir_get(struct t4_store *s, struct t4_call *call, struct t4_slice key, uint64_t offset,
        uint64_t length, t4_sink_fn *sink, void *arg, struct t4_object_info *info)
{
    uint64_t end;
    t4_status st;
    int fd;

    st = open_object(s, call, key, &fd, info);
    if (st != T4_OK)
        return st;
    if (offset < info->length) {
        end = length < info->length - offset ? offset + length : info->length;
        if (offset < end)
            st = send_range(s, call, key, fd, offset, end, sink, arg);
    }
    close(fd);
    return st;
}

t4_status
dir_head(struct t4_store *s, struct t4_call *call, struct t4_slice key,
         struct t4_object_info *info)
{
    t4_status st;
    int fd;

    st = open_object(s, call, key, &fd, info);
    if (st == T4_OK)
        close(fd);
    return st;
}

/*
 * posix.c - struct env on the real machine: files, clocks and randomness.
 *
 * Error mapping, the part that matters: ENOSPC and EDQUOT of a write are NOSPACE (nothing
 * is in doubt), but of a sync they are IO like everything else, because a failed sync
 * leaves pages in a state that nobody knows.
 *
 * Entry point: env_posix().  Any thread.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

#include "base/memory.h"
#include "env/env.h"

struct env_file {
    int fd;
    char path[]; /* for messages */
};

/* `what` and `path` make the message: "cannot write /data/wal/1.wal: No space left". */
static t4_status
fail(struct error *error, int number, const char *what, const char *path)
{
    t4_status status = T4_E_IO;
    char text[128];

    switch (number) {
    case ENOENT: status = T4_E_NOTFOUND; break;
    case EEXIST: status = T4_E_EXISTS; break;
    case ENOSPC:
    case EDQUOT: status = T4_E_NOSPACE; break;
    }
    return error_set(error, status, "cannot %s %s: %s", what, path,
                     strerror_r(number, text, sizeof text));
}

static t4_status
posix_open(void *state, const char *path, unsigned flags, struct env_file **out,
           struct error *error)
{
    size_t n = strlen(path) + 1;
    struct env_file *f;
    int mode = O_CLOEXEC | O_NOCTTY, fd;

    (void)state;
    mode |= flags & ENV_READONLY ? O_RDONLY : O_RDWR;
    if (flags & ENV_CREATE)
        mode |= O_CREAT;
    if (flags & ENV_EXCLUSIVE)
        mode |= O_EXCL;
    do
        fd = open(path, mode, 0600);
    while (fd < 0 && errno == EINTR);
    if (fd < 0)
        return fail(error, errno, flags & ENV_CREATE ? "create" : "open", path);
    f = mem_alloc(sizeof *f + n);
    f->fd = fd;
    memcpy(f->path, path, n);
    *out = f;
    return T4_OK;
}

static void
posix_close(void *state, struct env_file *f)
{
    (void)state;
    close(f->fd); /* what matters was synced, so its result tells nothing */
    mem_free(f);
}

static t4_status
posix_pread(void *state, struct env_file *f, void *data, size_t n, uint64_t offset,
            size_t *got, struct error *error)
{
    (void)state;
    *got = 0;
    while (*got < n) {
        ssize_t r = pread(f->fd, (char *)data + *got, n - *got, (off_t)(offset + *got));

        if (r == 0)
            break;
        if (r > 0)
            *got += (size_t)r;
        else if (errno != EINTR)
            return fail(error, errno, "read", f->path);
    }
    return T4_OK;
}

static t4_status
posix_pwrite(void *state, struct env_file *f, const void *data, size_t n, uint64_t offset,
             struct error *error)
{
    size_t done = 0;

    (void)state;
    while (done < n) {
        ssize_t r =
            pwrite(f->fd, (const char *)data + done, n - done, (off_t)(offset + done));

        if (r > 0)
            done += (size_t)r;
        else if (r == 0)
            return fail(error, EIO, "write", f->path);
        else if (errno != EINTR)
            return fail(error, errno, "write", f->path);
    }
    return T4_OK;
}

static t4_status
sync_fd(int (*sync)(int), int fd, const char *path, struct error *error)
{
    int r;

    do
        r = sync(fd);
    while (r < 0 && errno == EINTR);
    if (r == 0)
        return T4_OK;
    fail(error, errno, "sync", path);
    if (error != NULL)
        error->status = T4_E_IO;
    return T4_E_IO;
}

static t4_status
posix_datasync(void *state, struct env_file *f, struct error *error)
{
    (void)state;
    return sync_fd(fdatasync, f->fd, f->path, error);
}

static t4_status
posix_sync(void *state, struct env_file *f, struct error *error)
{
    (void)state;
    return sync_fd(fsync, f->fd, f->path, error);
}

static t4_status
posix_truncate(void *state, struct env_file *f, uint64_t size, struct error *error)
{
    int r;

    (void)state;
    do
        r = ftruncate(f->fd, (off_t)size);
    while (r < 0 && errno == EINTR);
    return r == 0 ? T4_OK : fail(error, errno, "set the size of", f->path);
}

static t4_status
posix_stat(void *state, const char *path, struct env_stat *out, struct error *error)
{
    struct stat st;
    struct statvfs fs;

    (void)state;
    if (stat(path, &st) != 0 || statvfs(path, &fs) != 0)
        return fail(error, errno, "examine", path);
    *out = (struct env_stat){
        .size = (uint64_t)st.st_size,
        .inode = (uint64_t)st.st_ino,
        /* device numbers may change when the machine starts, ids of file systems do not */
        .device = fs.f_fsid != 0 ? (uint64_t)fs.f_fsid : (uint64_t)st.st_dev,
    };
    return T4_OK;
}

static t4_status
posix_lock(void *state, struct env_file *f, struct error *error)
{
    int r;

    (void)state;
    do
        r = flock(f->fd, LOCK_EX | LOCK_NB);
    while (r < 0 && errno == EINTR);
    if (r == 0)
        return T4_OK;
    if (errno == EWOULDBLOCK)
        return error_set(error, T4_E_BUSY, "%s is locked by another process", f->path);
    return fail(error, errno, "lock", f->path);
}

static t4_status
posix_rename(void *state, const char *from, const char *to, struct error *error)
{
    (void)state;
    return rename(from, to) == 0 ? T4_OK : fail(error, errno, "rename", from);
}

static t4_status
posix_unlink(void *state, const char *path, struct error *error)
{
    (void)state;
    return unlink(path) == 0 ? T4_OK : fail(error, errno, "remove", path);
}

static t4_status
posix_mkdir(void *state, const char *path, struct error *error)
{
    struct stat st;
    int number;

    (void)state;
    if (mkdir(path, 0700) == 0)
        return T4_OK;
    number = errno;
    if (number == EEXIST && stat(path, &st) == 0) {
        if (S_ISDIR(st.st_mode))
            return T4_OK;
        return error_set(error, T4_E_IO,
                         "cannot create directory %s: a file is in its place", path);
    }
    return fail(error, number, "create directory", path);
}

static t4_status
posix_sync_dir(void *state, const char *path, struct error *error)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    t4_status status;

    (void)state;
    if (fd < 0)
        return fail(error, errno, "open directory", path);
    status = sync_fd(fsync, fd, path, error);
    close(fd);
    return status;
}

static t4_status
posix_list(void *state, const char *path, void (*fn)(void *arg, const char *name),
           void *arg, struct error *error)
{
    DIR *dir = opendir(path);
    struct dirent *e;
    int number;

    (void)state;
    if (dir == NULL)
        return fail(error, errno, "open directory", path);
    while (errno = 0, (e = readdir(dir)) != NULL)
        if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0)
            fn(arg, e->d_name);
    number = errno;
    closedir(dir);
    return number == 0 ? T4_OK : fail(error, number, "read directory", path);
}

static t4_status
posix_free_space(void *state, const char *path, uint64_t *bytes, struct error *error)
{
    struct statvfs st;
    int r;

    (void)state;
    do
        r = statvfs(path, &st);
    while (r < 0 && errno == EINTR);
    if (r < 0)
        return fail(error, errno, "examine the file system of", path);
    *bytes = (uint64_t)st.f_bavail * st.f_frsize;
    return T4_OK;
}

static uint64_t
now(clockid_t clock)
{
    struct timespec t;

    clock_gettime(clock, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static uint64_t
posix_wall_ns(void *state)
{
    (void)state;
    return now(CLOCK_REALTIME);
}

static uint64_t
posix_boot_ns(void *state)
{
    (void)state;
    return now(CLOCK_BOOTTIME);
}

/* Identities rest on this: without random numbers the process must not go on. */
static void
posix_random(void *state, void *buffer, size_t n)
{
    size_t done = 0;

    (void)state;
    while (done < n) {
        ssize_t r = getrandom((char *)buffer + done, n - done, 0);

        if (r > 0) {
            done += (size_t)r;
        } else if (errno != EINTR) {
            fprintf(stderr, "t4: cannot get random numbers: %s; stopping\n",
                    strerror(errno));
            abort();
        }
    }
}

struct env *
env_posix(void)
{
    static struct env posix = {
        .open = posix_open,
        .close = posix_close,
        .pread = posix_pread,
        .pwrite = posix_pwrite,
        .datasync = posix_datasync,
        .sync = posix_sync,
        .truncate = posix_truncate,
        .stat = posix_stat,
        .lock = posix_lock,
        .rename = posix_rename,
        .unlink = posix_unlink,
        .mkdir = posix_mkdir,
        .sync_dir = posix_sync_dir,
        .list = posix_list,
        .free_space = posix_free_space,
        .wall_ns = posix_wall_ns,
        .boot_ns = posix_boot_ns,
        .random = posix_random,
    };

    return &posix;
}

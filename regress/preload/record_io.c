/*
 * record_io.c - LD_PRELOAD: records what a program does to the files of one folder.
 *
 * T4_RECORD_DIR names the folder (absolute, no trailing slash), T4_RECORD_LOG the file that the
 * records are appended to (record_io.h).  A call is recorded after it succeeded and under one
 * lock, so the record's order is an order in which the kernel can have seen them.  Calls on
 * other files pass through.  T4_RECORD_IGNORE=sync drops the records of syncs, =dsync the
 * synchronous flag of writes: with either the crash test must fail.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "record_io.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#define FILES_MAX 64
#define FDS_MAX 1024

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int log_fd = -1;
static char *file_path[FILES_MAX];
static uint32_t files;
static int fd_file[FDS_MAX]; /* number of the file + 1; 0: not recorded */
static bool fd_synchronous[FDS_MAX];

#define REAL(name) ((__typeof__(&name))real(#name))

static void *
real(const char *name)
{
    void *p = dlsym(RTLD_NEXT, name);

    if (p == NULL)
        abort();
    return p;
}

static bool
ignored(const char *what)
{
    const char *ignore = getenv("T4_RECORD_IGNORE");

    return ignore != NULL && strcmp(ignore, what) == 0;
}

static void
append(const struct record *head, const void *data)
{
    struct iovec v[2] = {{(void *)(uintptr_t)head, sizeof *head},
                         {(void *)(uintptr_t)data, data != NULL ? head->length : 0}};

    if (log_fd < 0) {
        const char *path = getenv("T4_RECORD_LOG");

        log_fd = REAL(open)(path != NULL ? path : "/dev/null",
                            O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    }
    if (REAL(writev)(log_fd, v, 2) != (ssize_t)(v[0].iov_len + v[1].iov_len))
        abort();
}

static void
opened(int fd, const char *path, int flags)
{
    const char *dir = getenv("T4_RECORD_DIR");
    char whole[PATH_MAX];
    struct stat st;
    uint32_t i;

    if (fd < 0 || fd >= FDS_MAX || dir == NULL || realpath(path, whole) == NULL ||
        strncmp(whole, dir, strlen(dir)) != 0 || stat(whole, &st) != 0 ||
        !S_ISREG(st.st_mode))
        return;
    pthread_mutex_lock(&lock);
    for (i = 0; i < files && strcmp(file_path[i], whole) != 0; i++)
        ;
    if (i == files && files < FILES_MAX) {
        struct record r = {.kind = RECORD_OPEN,
                           .file = files,
                           .length = strlen(whole) - strlen(dir) - 1};

        file_path[files++] = strdup(whole);
        append(&r, whole + strlen(dir) + 1);
    }
    fd_file[fd] = (int)i + 1;
    fd_synchronous[fd] = (flags & (O_DSYNC | O_SYNC)) != 0 && !ignored("dsync");
    pthread_mutex_unlock(&lock);
}

static bool
recorded(int fd)
{
    return fd >= 0 && fd < FDS_MAX && fd_file[fd] != 0;
}

#define OPEN_BODY(call, ...)                                                             \
    mode_t mode = 0;                                                                     \
    int fd;                                                                              \
    if (flags & O_CREAT) {                                                               \
        va_list ap;                                                                      \
        va_start(ap, flags);                                                             \
        mode = va_arg(ap, mode_t);                                                       \
        va_end(ap);                                                                      \
    }                                                                                    \
    fd = REAL(call)(__VA_ARGS__, flags, mode);                                           \
    opened(fd, path, flags);                                                             \
    return fd

int
open(const char *path, int flags, ...)
{
    OPEN_BODY(open, path);
}

int
open64(const char *path, int flags, ...)
{
    OPEN_BODY(open64, path);
}

int
openat(int at, const char *path, int flags, ...)
{
    OPEN_BODY(openat, at, path);
}

int
close(int fd)
{
    if (recorded(fd))
        fd_file[fd] = 0;
    return REAL(close)(fd);
}

static ssize_t
wrote(int fd, const struct iovec *v, int n, off_t offset, ssize_t result)
{
    int saved = errno;
    struct record r = {.kind = RECORD_WRITE,
                       .file = (uint32_t)fd_file[fd] - 1,
                       .flags = fd_synchronous[fd] ? RECORD_SYNCED : 0,
                       .offset = (uint64_t)offset};
    size_t left = result > 0 ? (size_t)result : 0;

    for (int i = 0; i < n && left > 0; i++) {
        r.length = v[i].iov_len < left ? v[i].iov_len : left;
        append(&r, v[i].iov_base);
        r.offset += r.length;
        left -= r.length;
    }
    errno = saved;
    return result;
}

ssize_t
pwrite(int fd, const void *data, size_t n, off_t offset)
{
    struct iovec v = {(void *)(uintptr_t)data, n};
    ssize_t result;

    if (!recorded(fd))
        return REAL(pwrite)(fd, data, n, offset);
    pthread_mutex_lock(&lock);
    result = wrote(fd, &v, 1, offset, REAL(pwrite)(fd, data, n, offset));
    pthread_mutex_unlock(&lock);
    return result;
}

ssize_t
pwrite64(int fd, const void *data, size_t n, off64_t offset)
{
    return pwrite(fd, data, n, offset);
}

ssize_t
pwritev(int fd, const struct iovec *v, int n, off_t offset)
{
    ssize_t result;

    if (!recorded(fd))
        return REAL(pwritev)(fd, v, n, offset);
    pthread_mutex_lock(&lock);
    result = wrote(fd, v, n, offset, REAL(pwritev)(fd, v, n, offset));
    pthread_mutex_unlock(&lock);
    return result;
}

ssize_t
pwritev64(int fd, const struct iovec *v, int n, off64_t offset)
{
    return pwritev(fd, v, n, offset);
}

ssize_t
write(int fd, const void *data, size_t n)
{
    struct iovec v = {(void *)(uintptr_t)data, n};
    ssize_t result;
    off_t at;

    if (!recorded(fd))
        return REAL(write)(fd, data, n);
    pthread_mutex_lock(&lock);
    at = lseek(fd, 0, SEEK_CUR);
    result = wrote(fd, &v, 1, at, REAL(write)(fd, data, n));
    pthread_mutex_unlock(&lock);
    return result;
}

ssize_t
writev(int fd, const struct iovec *v, int n)
{
    ssize_t result;
    off_t at;

    if (!recorded(fd))
        return REAL(writev)(fd, v, n);
    pthread_mutex_lock(&lock);
    at = lseek(fd, 0, SEEK_CUR);
    result = wrote(fd, v, n, at, REAL(writev)(fd, v, n));
    pthread_mutex_unlock(&lock);
    return result;
}

static int
synced(int fd, int (*call)(int))
{
    struct record r = {.kind = RECORD_SYNC};
    int result;

    if (!recorded(fd))
        return call(fd);
    pthread_mutex_lock(&lock);
    result = call(fd);
    r.file = (uint32_t)fd_file[fd] - 1;
    if (result == 0 && !ignored("sync"))
        append(&r, NULL);
    pthread_mutex_unlock(&lock);
    return result;
}

int
fdatasync(int fd)
{
    return synced(fd, REAL(fdatasync));
}

int
fsync(int fd)
{
    return synced(fd, REAL(fsync));
}

/* A mapping written to would escape the record: no engine of ours may do that. */
int
msync(void *address, size_t n, int flags)
{
    (void)address;
    (void)n;
    (void)flags;
    fprintf(stderr, "record_io: msync() cannot be recorded\n");
    abort();
}

int
ftruncate(int fd, off_t size)
{
    struct record r = {.kind = RECORD_TRUNCATE, .offset = (uint64_t)size};
    int result;

    if (!recorded(fd))
        return REAL(ftruncate)(fd, size);
    pthread_mutex_lock(&lock);
    result = REAL(ftruncate)(fd, size);
    r.file = (uint32_t)fd_file[fd] - 1;
    if (result == 0)
        append(&r, NULL);
    pthread_mutex_unlock(&lock);
    return result;
}

int
ftruncate64(int fd, off64_t size)
{
    return ftruncate(fd, size);
}

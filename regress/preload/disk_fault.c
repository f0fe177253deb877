/*
 * disk_fault.c - LD_PRELOAD: a full or failing disk for the files of one folder.
 *
 * T4_FAULT_DIR names the folder, T4_FAULT_CONTROL a file that says what is wrong now; it is read
 * before each call and may change at any time:
 *   no such file, or empty   nothing is wrong
 *   free N                   N bytes are free: a write that makes a file longer takes them and
 *                            fails with ENOSPC when there are too few; removing a file gives
 *                            its bytes back.  Writes into what a file already has always work,
 *                            as on a file system that does not copy on write.
 *   eio                      fdatasync, fsync and writes through O_DSYNC fail with EIO
 *   once                     so does the first of them; the next ones say that all is well, though
 *                            what the first was about is lost to the kernel
 *   write                    writes fail with EIO
 *   read                     reads fail with EIO (not those of mapped memory)
 *   readonly                 whatever would change the folder fails with EROFS
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int64_t used;          /* since the control file last changed */
static unsigned failed;       /* syncs, since then */
static struct timespec since; /* its time of change */

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

enum fault {
    FAULT_NONE,
    FAULT_FULL,
    FAULT_EIO,
    FAULT_ONCE,
    FAULT_WRITE,
    FAULT_READ,
    FAULT_READONLY
};
static const struct {
    const char *word;
    enum fault fault;
} words[] = {{"eio", FAULT_EIO},
             {"once", FAULT_ONCE},
             {"write", FAULT_WRITE},
             {"readonly", FAULT_READONLY}, /* before its beginning */
             {"read", FAULT_READ}};

/* What is wrong now; *left: bytes free. */
static enum fault
fault(int64_t *left)
{
    const char *path = getenv("T4_FAULT_CONTROL");
    char text[64] = "";
    struct stat st;
    long long n;
    int fd = path != NULL ? REAL(open)(path, O_RDONLY | O_CLOEXEC) : -1;
    bool known = fd >= 0 && fstat(fd, &st) == 0;

    if (fd >= 0) {
        if (REAL(read)(fd, text, sizeof text - 1) < 0)
            text[0] = '\0';
        close(fd);
    }
    if (!known)
        return FAULT_NONE;
    if (memcmp(&since, &st.st_mtim, sizeof since) != 0) {
        since = st.st_mtim;
        used = 0;
        failed = 0;
    }
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++)
        if (strncmp(text, words[i].word, strlen(words[i].word)) == 0)
            return words[i].fault;
    if (sscanf(text, "free %lld", &n) != 1)
        return FAULT_NONE;
    *left = n - used;
    return FAULT_FULL;
}

/* Does a sync fail now?  Under the lock. */
static bool
sync_fails(enum fault f)
{
    return f == FAULT_EIO || (f == FAULT_ONCE && failed++ == 0);
}

static bool
is_below(const char *path)
{
    const char *dir = getenv("T4_FAULT_DIR");

    return dir != NULL && strncmp(path, dir, strlen(dir)) == 0;
}

static bool
ours(int fd)
{
    const char *dir = getenv("T4_FAULT_DIR");
    char link[64], path[PATH_MAX];
    ssize_t n;

    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    n = readlink(link, path, sizeof path - 1);
    if (dir == NULL || n <= 0)
        return false;
    path[n] = '\0';
    return strncmp(path, dir, strlen(dir)) == 0;
}

/* 0, or the errno of a write of n bytes at `at`. */
static int
refuse_write(int fd, off_t at, size_t n)
{
    int64_t left, longer;
    enum fault f;
    struct stat st;
    int result = 0;

    if (!ours(fd) || fstat(fd, &st) != 0 || !S_ISREG(st.st_mode))
        return 0;
    pthread_mutex_lock(&lock);
    switch (f = fault(&left)) {
    case FAULT_EIO:
    case FAULT_ONCE:
        if ((fcntl(fd, F_GETFL) & (O_DSYNC | O_SYNC)) && sync_fails(f))
            result = EIO;
        break;
    case FAULT_WRITE: result = EIO; break;
    case FAULT_READONLY: result = EROFS; break;
    case FAULT_FULL:
        longer = (int64_t)at + (int64_t)n - (int64_t)st.st_size;
        if (longer > 0 && longer > left)
            result = ENOSPC;
        else if (longer > 0)
            used += longer;
        break;
    default: break;
    }
    pthread_mutex_unlock(&lock);
    return result;
}

static size_t
bytes_of(const struct iovec *v, int n)
{
    size_t sum = 0;

    for (int i = 0; i < n; i++)
        sum += v[i].iov_len;
    return sum;
}

#define WRITE_BODY(at, n, call)                                                          \
    int refused = refuse_write(fd, at, n);                                               \
    if (refused != 0) {                                                                  \
        errno = refused;                                                                 \
        return -1;                                                                       \
    }                                                                                    \
    return call

ssize_t
pwrite(int fd, const void *data, size_t n, off_t at)
{
    WRITE_BODY(at, n, REAL(pwrite)(fd, data, n, at));
}

ssize_t
pwrite64(int fd, const void *data, size_t n, off64_t at)
{
    WRITE_BODY(at, n, REAL(pwrite64)(fd, data, n, at));
}

ssize_t
pwritev(int fd, const struct iovec *v, int n, off_t at)
{
    WRITE_BODY(at, bytes_of(v, n), REAL(pwritev)(fd, v, n, at));
}

ssize_t
writev(int fd, const struct iovec *v, int n)
{
    WRITE_BODY(lseek(fd, 0, SEEK_CUR), bytes_of(v, n), REAL(writev)(fd, v, n));
}

ssize_t
write(int fd, const void *data, size_t n)
{
    WRITE_BODY(lseek(fd, 0, SEEK_CUR), n, REAL(write)(fd, data, n));
}

static int
sync_call(int fd, int (*call)(int))
{
    int64_t left;
    bool fails;

    pthread_mutex_lock(&lock);
    fails = ours(fd) && sync_fails(fault(&left));
    pthread_mutex_unlock(&lock);
    if (!fails)
        return call(fd);
    errno = EIO;
    return -1;
}

int
fdatasync(int fd)
{
    return sync_call(fd, REAL(fdatasync));
}

int
fsync(int fd)
{
    return sync_call(fd, REAL(fsync));
}

static bool
fault_is(enum fault wanted)
{
    int64_t left;
    bool is;

    pthread_mutex_lock(&lock);
    is = fault(&left) == wanted;
    pthread_mutex_unlock(&lock);
    return is;
}

/* --- reads ----------------------------------------------------------------------------------- */

#define READ_BODY(call)                                                                  \
    if (ours(fd) && fault_is(FAULT_READ)) {                                              \
        errno = EIO;                                                                     \
        return -1;                                                                       \
    }                                                                                    \
    return call

ssize_t
pread(int fd, void *data, size_t n, off_t at)
{
    READ_BODY(REAL(pread)(fd, data, n, at));
}

ssize_t
pread64(int fd, void *data, size_t n, off64_t at)
{
    READ_BODY(REAL(pread64)(fd, data, n, at));
}

ssize_t
read(int fd, void *data, size_t n)
{
    READ_BODY(REAL(read)(fd, data, n));
}

/* --- a folder that cannot be changed --------------------------------------------------------- */

static bool
is_readonly(const char *path)
{
    if (!is_below(path) || !fault_is(FAULT_READONLY))
        return false;
    errno = EROFS;
    return true;
}

#define OPEN_BODY(path, call)                                                            \
    va_list rest;                                                                        \
    mode_t mode = 0;                                                                     \
                                                                                         \
    va_start(rest, flags);                                                               \
    if (flags & (O_CREAT | O_TMPFILE))                                                   \
        mode = va_arg(rest, mode_t);                                                     \
    va_end(rest);                                                                        \
    if ((flags & (O_WRONLY | O_RDWR | O_CREAT | O_TRUNC)) && is_readonly(path))          \
        return -1;                                                                       \
    return call

int
open(const char *path, int flags, ...)
{
    OPEN_BODY(path, REAL(open)(path, flags, mode));
}

int
open64(const char *path, int flags, ...)
{
    OPEN_BODY(path, REAL(open64)(path, flags, mode));
}

int
mkdir(const char *path, mode_t mode)
{
    return is_readonly(path) ? -1 : REAL(mkdir)(path, mode);
}

int
rename(const char *from, const char *to)
{
    return is_readonly(to) ? -1 : REAL(rename)(from, to);
}

int
ftruncate(int fd, off_t size)
{
    if (ours(fd) && fault_is(FAULT_READONLY)) {
        errno = EROFS;
        return -1;
    }
    return REAL(ftruncate)(fd, size);
}

int
unlink(const char *path)
{
    struct stat st;
    bool gives = is_below(path) && stat(path, &st) == 0;
    int64_t left;
    int result;

    if (is_readonly(path))
        return -1;
    pthread_mutex_lock(&lock);
    if (fault(&left) == FAULT_FULL && gives)
        used -= st.st_size;
    result = REAL(unlink)(path);
    pthread_mutex_unlock(&lock);
    return result;
}

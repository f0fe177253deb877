/*
 * trace_io.c - LD_PRELOAD: the order of syncs, links, renames and removals.
 *
 * Appends a line for each call that succeeded to the file T4_TRACE_IO, "thread call path":
 *   sync PATH          fsync of a file or folder
 *   name FROM TO       linkat, renameat
 *   unlink PATH        unlinkat
 * Paths below a folder's descriptor are written whole.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <dlfcn.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

static void
trace(const char *line, int n)
{
    const char *path = getenv("T4_TRACE_IO");
    int fd =
        path != NULL ? open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600) : -1;

    if (fd < 0)
        return;
    if (write(fd, line, (size_t)n) != n)
        abort(); /* a trace with a gap would prove nothing */
    close(fd);
}

static const char *
path_of(int fd, char out[PATH_MAX])
{
    char link[64];
    ssize_t n;

    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    n = readlink(link, out, PATH_MAX - 1);
    out[n > 0 ? n : 0] = '\0';
    return out;
}

static int
named(int from_fd, const char *from, int to_fd, const char *to)
{
    char line[4 * PATH_MAX], a[PATH_MAX], b[PATH_MAX];

    trace(line, snprintf(line, sizeof line, "%ld name %s/%s %s/%s\n", syscall(SYS_gettid),
                         path_of(from_fd, a), from, path_of(to_fd, b), to));
    return 0;
}

int
fsync(int fd)
{
    char line[PATH_MAX + 64], path[PATH_MAX];
    int r = REAL(fsync)(fd);

    if (r == 0)
        trace(line, snprintf(line, sizeof line, "%ld sync %s\n", syscall(SYS_gettid),
                             path_of(fd, path)));
    return r;
}

int
linkat(int from_fd, const char *from, int to_fd, const char *to, int flags)
{
    int r = REAL(linkat)(from_fd, from, to_fd, to, flags);

    return r == 0 ? named(from_fd, from, to_fd, to) : r;
}

int
renameat(int from_fd, const char *from, int to_fd, const char *to)
{
    int r = REAL(renameat)(from_fd, from, to_fd, to);

    return r == 0 ? named(from_fd, from, to_fd, to) : r;
}

int
unlinkat(int fd, const char *name, int flags)
{
    char line[2 * PATH_MAX + 64], path[PATH_MAX];
    int r = REAL(unlinkat)(fd, name, flags);

    if (r == 0 && !(flags & AT_REMOVEDIR))
        trace(line, snprintf(line, sizeof line, "%ld unlink %s/%s\n", syscall(SYS_gettid),
                             path_of(fd, path), name));
    return r;
}

/*
 * open.c - makes the sockets of one address, or says why it cannot be listened on.
 *
 * What accepted connections inherit is set here once: no delay of small messages, probes of
 * silent peers by the kernel, and how long sent bytes may stay unacknowledged.
 *
 * Unix sockets: bind() leaves a file behind that a crash does not remove.  If nobody listens
 * on it, it is replaced; a file that is no socket is not touched.
 *
 * Entry points: open_address(), open_close().  Runs on: callers of listen_*().
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "api/listen/listen_int.h"
#include "base/memory.h"

#define BACKLOG 4096      /* the kernel's net.core.somaxconn may lower it */
#define SILENT_SECONDS 30 /* as etcd: a silent peer is asked whether it is there */
#define NS_PER_MS 1000000

struct opening {
    const struct listen_options *options;
    const struct listen_address *address;
    const char *flag;
    struct error *error;
};

static t4_status
refuse(const struct opening *o, int reason)
{
    const struct listen_address *a = o->address;
    t4_status status = T4_E_IO;
    char hint[160];
    bool v6 = strchr(a->host, ':') != NULL;

    snprintf(hint, sizeof hint, "choose another address with --%s", o->flag);
    switch (reason) {
    case EADDRINUSE:
        status = T4_E_BUSY;
        snprintf(hint, sizeof hint,
                 "another program listens there: stop it, or choose another address or "
                 "port with --%s",
                 o->flag);
        break;
    case EADDRNOTAVAIL:
    case EAFNOSUPPORT:
        status = T4_E_INVALID;
        snprintf(hint, sizeof hint,
                 "this is no address of this machine: give --%s one of its own, or "
                 "127.0.0.1",
                 o->flag);
        break;
    case EACCES:
        status = T4_E_DENIED;
        snprintf(hint, sizeof hint, "%s",
                 a->port[0] == '\0'
                     ? "the server's user must be allowed to write to the folder"
                     : "ports below 1024 need a privilege: choose a higher one");
        break;
    default: break;
    }
    if (a->port[0] == '\0')
        error_set(o->error, status, "cannot listen on unix:%s: %s", a->host,
                  strerror(reason));
    else
        error_set(o->error, status, "cannot listen on %s%s%s:%s: %s", v6 ? "[" : "",
                  a->host, v6 ? "]" : "", a->port, strerror(reason));
    return error_hint(o->error, "%s", hint);
}

/* --- TCP ----------------------------------------------------------------------------------- */

static void
set_inherited(const struct opening *o, int fd)
{
    int on = 1, silent = SILENT_SECONDS;
    unsigned ms = (unsigned)(o->options->unacknowledged_ns / NS_PER_MS);

    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &silent, sizeof silent);
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &silent, sizeof silent);
    setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &ms, sizeof ms);
}

/* 0 and *out, or the errno. */
static int
open_tcp(const struct opening *o, const struct sockaddr *address, socklen_t n, int *out)
{
    int fd = socket(address->sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    int on = 1, off = 0, reason;
    static const struct in6_addr every = IN6ADDR_ANY_INIT;

    if (fd < 0)
        return errno;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (address->sa_family == AF_INET6) {
        bool wildcard = memcmp(&((const struct sockaddr_in6 *)address)->sin6_addr, &every,
                               sizeof every) == 0;

        setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, wildcard ? &off : &on, sizeof on);
    }
    set_inherited(o, fd);
    if (bind(fd, address, n) == 0 && listen(fd, BACKLOG) == 0) {
        *out = fd;
        return 0;
    }
    reason = errno;
    close(fd);
    return reason;
}

/* 0.0.0.0 is opened as ::, for both families, where the machine has IPv6. */
static bool
open_everything(const struct opening *o, struct opened *out, int *reason)
{
    struct sockaddr_in6 every = {.sin6_family = AF_INET6};
    int port;

    if (strcmp(o->address->host, "0.0.0.0") != 0)
        return false;
    sscanf(o->address->port, "%d", &port);
    every.sin6_port = htons((uint16_t)port);
    *reason = open_tcp(o, (struct sockaddr *)&every, sizeof every, &out->fd);
    return *reason != EAFNOSUPPORT && *reason != EADDRNOTAVAIL;
}

/* One of a name's addresses that can be had is enough; one that is taken is an error. */
static t4_status
open_host(const struct opening *o, struct opened *out, size_t *n)
{
    const struct addrinfo hints = {.ai_socktype = SOCK_STREAM,
                                   .ai_flags = AI_PASSIVE | AI_NUMERICSERV};
    struct addrinfo *list;
    int reason = getaddrinfo(o->address->host, o->address->port, &hints, &list);
    int last = EADDRNOTAVAIL;
    bool taken = false;

    if (reason != 0) {
        error_set(o->error, T4_E_INVALID, "cannot listen on %s:%s: %s", o->address->host,
                  o->address->port, gai_strerror(reason));
        return error_hint(o->error, "give --%s an address of this machine", o->flag);
    }
    for (const struct addrinfo *a = list; a != NULL && *n < OPEN_MAX; a = a->ai_next) {
        reason = open_tcp(o, a->ai_addr, a->ai_addrlen, &out[*n].fd);
        if (reason == 0)
            ++*n;
        else
            last = reason;
        taken = taken || reason == EADDRINUSE;
    }
    freeaddrinfo(list);
    if (*n > 0 && !taken)
        return T4_OK;
    while (*n > 0)
        open_close(&out[--*n]);
    return refuse(o, taken ? EADDRINUSE : last);
}

/* --- unix sockets -------------------------------------------------------------------------- */

static struct sockaddr_un
unix_address(const char *path)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};

    snprintf(a.sun_path, sizeof a.sun_path, "%s", path);
    return a;
}

/* True: the path is free, or what a server that is gone left there is removed. */
static bool
clear_path(const struct opening *o, t4_status *status)
{
    const char *path = o->address->host;
    struct sockaddr_un a = unix_address(path);
    struct stat found;
    int fd, r, reason;

    if (lstat(path, &found) != 0)
        return true;
    if (!S_ISSOCK(found.st_mode)) {
        *status = error_set(o->error, T4_E_INVALID,
                            "cannot listen on unix:%s: there is a file that is no socket",
                            path);
        error_hint(o->error, "remove it, or choose another path with --%s", o->flag);
        return false;
    }
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    r = fd < 0 ? -1 : connect(fd, (struct sockaddr *)&a, sizeof a);
    reason = r == 0 ? EADDRINUSE : errno;
    if (fd >= 0)
        close(fd);
    if (reason == ECONNREFUSED && unlink(path) != 0)
        reason = errno;
    if (reason == ECONNREFUSED || reason == ENOENT)
        return true;
    /* A full queue: somebody is there, and slow. */
    *status = refuse(o, reason == EAGAIN ? EADDRINUSE : reason);
    return false;
}

static t4_status
open_unix(const struct opening *o, struct opened *out, size_t *n)
{
    const char *path = o->address->host;
    struct sockaddr_un a = unix_address(path);
    struct stat made;
    t4_status status;
    int fd, reason;

    if (!clear_path(o, &status))
        return status;
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return refuse(o, errno);
    /* Nobody can connect before listen(), and by then the permissions are right. */
    if (bind(fd, (struct sockaddr *)&a, sizeof a) == 0) {
        if (chmod(path, o->options->unix_mode) == 0 && listen(fd, BACKLOG) == 0 &&
            stat(path, &made) == 0) {
            out[(*n)++] = (struct opened){fd, mem_strdup(path), made.st_dev, made.st_ino};
            return T4_OK;
        }
        reason = errno;
        unlink(path);
    } else {
        reason = errno;
    }
    close(fd);
    return refuse(o, reason);
}

/* --- all ----------------------------------------------------------------------------------- */

t4_status
open_address(const struct listen_options *options, const struct listen_address *a,
             const char *flag, struct opened *out, size_t *n, struct error *error)
{
    const struct opening o = {options, a, flag, error};
    int reason;

    *n = 0;
    memset(out, 0, OPEN_MAX * sizeof *out);
    if (a->fd >= 0) {
        fcntl(a->fd, F_SETFD, FD_CLOEXEC);
        fcntl(a->fd, F_SETFL, fcntl(a->fd, F_GETFL) | O_NONBLOCK);
        if (a->port[0] != '\0')
            set_inherited(&o, a->fd);
        out[(*n)++].fd = a->fd; /* its file, if it has one, is its maker's to remove */
        return T4_OK;
    }
    if (a->port[0] == '\0')
        return open_unix(&o, out, n);
    if (open_everything(&o, out, &reason)) {
        *n = reason == 0;
        return reason == 0 ? T4_OK : refuse(&o, reason);
    }
    return open_host(&o, out, n);
}

void
open_close(struct opened *o)
{
    struct stat now;

    close(o->fd);
    if (o->path == NULL)
        return;
    if (stat(o->path, &now) == 0 && now.st_dev == o->dev && now.st_ino == o->ino)
        unlink(o->path);
    mem_free(o->path);
}

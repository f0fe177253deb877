/*
 * systemd.c - socket activation and notification, by the documented protocols alone
 * (sd_listen_fds(3), sd_notify(3)): environment variables and one datagram socket.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "server/systemd.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/log.h"

#define FIRST_DESCRIPTOR 3

/* --- sockets -------------------------------------------------------------------------- */

static const char *
describe_tcp(const struct sockaddr_storage *a, struct address *out)
{
    const struct sockaddr_in *v4 = (const void *)a;
    const struct sockaddr_in6 *v6 = (const void *)a;
    char host[INET6_ADDRSTRLEN], text[ADDRESS_TEXT_BYTES];

    if (a->ss_family == AF_INET) {
        inet_ntop(AF_INET, &v4->sin_addr, host, sizeof host);
        snprintf(text, sizeof text, "%s:%d", host, ntohs(v4->sin_port));
    } else {
        inet_ntop(AF_INET6, &v6->sin6_addr, host, sizeof host);
        snprintf(text, sizeof text, "[%s]:%d", host, ntohs(v6->sin6_port));
    }
    return address_parse(text, out);
}

/* The address of a socket that listens. */
static const char *
describe(int fd, struct address *out)
{
    struct sockaddr_storage a = {0};
    socklen_t n = sizeof a, m = sizeof(int);
    int listens = 0, type = 0;
    const char *why;

    *out = (struct address){.fd = fd};
    if (getsockname(fd, (struct sockaddr *)&a, &n) != 0)
        return "is no socket";
    if (getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &m) != 0 || !listens ||
        getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &m) != 0 || type != SOCK_STREAM)
        return "is no stream socket that listens: write ListenStream= and Accept=no";
    if (a.ss_family == AF_UNIX) {
        const char *path = ((const struct sockaddr_un *)&a)->sun_path;

        snprintf(out->host, sizeof out->host, "%s%s", path[0] == '\0' ? "@" : "",
                 path[0] == '\0' ? path + 1 : path);
        out->is_unix = out->is_private = true;
        return NULL;
    }
    if (a.ss_family != AF_INET && a.ss_family != AF_INET6)
        return "has neither an IP address nor a path";
    why = describe_tcp(&a, out);
    out->fd = fd;
    return why;
}

const char *
systemd_sockets(char *const *environment, struct systemd_socket *out, size_t *n)
{
    const char *pid = environment_value(environment, "LISTEN_PID");
    const char *count = environment_value(environment, "LISTEN_FDS");
    const char *names = environment_value(environment, "LISTEN_FDNAMES"), *why = NULL;
    int64_t to, number;

    *n = 0;
    if (pid == NULL || count == NULL || !value_parse_int(pid, &to) || to != getpid() ||
        !value_parse_int(count, &number) || number < 1)
        return NULL;
    if (number > SYSTEMD_MAX)
        return "are more than 16";
    for (; why == NULL && *n < (size_t)number; ++*n) {
        struct systemd_socket *s = &out[*n];
        size_t length = names != NULL ? strcspn(names, ":") : 0;

        snprintf(s->name, sizeof s->name, "%.*s", (int)length,
                 names != NULL ? names : "");
        if (names != NULL)
            names += length + (names[length] == ':');
        why = describe(FIRST_DESCRIPTOR + (int)*n, &s->address);
    }
    return why;
}

/* --- notification --------------------------------------------------------------------- */

void
systemd_notify(const char *state)
{
    const char *path = getenv("NOTIFY_SOCKET");
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    size_t n = path != NULL ? strlen(path) : 0;
    int fd;

    if (n < 2 || n >= sizeof a.sun_path || (path[0] != '/' && path[0] != '@'))
        return;
    memcpy(a.sun_path, path, n);
    if (path[0] == '@')
        a.sun_path[0] = '\0';
    fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return;
    if (sendto(fd, state, strlen(state), MSG_NOSIGNAL, (struct sockaddr *)&a,
               (socklen_t)(offsetof(struct sockaddr_un, sun_path) + n)) < 0)
        LOG_WARN("the service manager cannot be told", "socket", path, "reason",
                 strerror(errno), NULL);
    close(fd);
}

uint64_t
systemd_watchdog_ns(void)
{
    const char *usec = getenv("WATCHDOG_USEC"), *pid = getenv("WATCHDOG_PID");
    int64_t n, to;

    if (usec == NULL || !value_parse_int(usec, &n) || n <= 0)
        return 0;
    if (pid != NULL && (!value_parse_int(pid, &to) || to != getpid()))
        return 0;
    return (uint64_t)n * 1000 / 2;
}

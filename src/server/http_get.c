/*
 * http_get.c - a GET over a socket: enough for the pages of a t4 server, nothing more.
 *
 * HTTP/1.0 on purpose: the answer ends with the connection.  Runs on the main thread.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "server/http_get.h"

#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "server/values.h"

#define LIMIT ((size_t)64 * 1024)
#define SECONDS 5

static t4_status
unreachable(const char *endpoint, const char *why, struct error *error)
{
    error_set(error, T4_E_UNAVAILABLE, "no answer from %.256s: %s", endpoint, why);
    return error_hint(error, "is the server running, and is this the address of its "
                             "--metrics-addr?");
}

static int
connect_to(const struct address *a)
{
    const struct addrinfo hints = {.ai_socktype = SOCK_STREAM};
    const struct timeval limit = {.tv_sec = SECONDS};
    struct addrinfo *list, *i;
    int fd = -1;

    if (getaddrinfo(a->host, a->port, &hints, &list) != 0) {
        errno = EADDRNOTAVAIL;
        return -1;
    }
    for (i = list; i != NULL && fd < 0; i = i->ai_next) {
        fd = socket(i->ai_family, i->ai_socktype | SOCK_CLOEXEC, i->ai_protocol);
        if (fd < 0)
            continue;
        setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
        setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
        if (connect(fd, i->ai_addr, i->ai_addrlen) != 0) {
            int kept = errno;

            close(fd);
            errno = kept;
            fd = -1;
        }
    }
    freeaddrinfo(list);
    return fd;
}

/* Sends the request and takes all of the answer; false: errno says why not. */
static bool
exchange(int fd, const char *request, struct buffer *answer)
{
    size_t n = strlen(request);

    if (send(fd, request, n, MSG_NOSIGNAL) != (ssize_t)n)
        return false;
    while (answer->len < LIMIT) {
        ssize_t got = recv(fd, buffer_reserve(answer, 4096), 4096, 0);

        if (got < 0)
            return false;
        if (got == 0)
            return true;
        answer->len += (size_t)got;
    }
    errno = EMSGSIZE;
    return false;
}

static t4_status
take_body(const char *endpoint, const struct buffer *answer, struct buffer *body,
          struct error *error)
{
    const char *text = (const char *)answer->data, *rest;
    bool http = answer->len > 12 && memcmp(text, "HTTP/1.", 7) == 0;

    if (!http || memcmp(text + 9, "200", 3) != 0 ||
        (rest = memmem(text, answer->len, "\r\n\r\n", 4)) == NULL) {
        error_set(error, T4_E_INVALID, "%.256s answers, but not as a t4 server's%s%.3s",
                  endpoint, http ? ": status " : " HTTP", http ? text + 9 : "");
        return error_hint(error,
                          "give the address of --metrics-addr of a t4 of this version");
    }
    rest += 4;
    buffer_append(body, rest, answer->len - (size_t)(rest - text));
    return T4_OK;
}

t4_status
http_get(const char *endpoint, const char *path, struct buffer *body, struct error *error)
{
    const char *name = strncmp(endpoint, "http://", 7) == 0 ? endpoint + 7 : endpoint;
    char plain[300], request[512];
    struct buffer answer = {0};
    struct address a;
    size_t n = strcspn(name, "/");
    const char *why;
    t4_status status;
    int fd;

    snprintf(plain, sizeof plain, "%.*s", n < 256 ? (int)n : 256, name);
    why = address_parse(plain, &a);
    if (why != NULL || a.is_unix || strncmp(endpoint, "https://", 8) == 0) {
        error_set(error, T4_E_INVALID, "--endpoint: \"%.128s\" %s", endpoint,
                  why != NULL ? why : "is no http://host:port");
        return error_hint(error, "write for example --endpoint=127.0.0.1:3381");
    }
    snprintf(request, sizeof request, "GET %s HTTP/1.0\r\nHost: %s\r\n\r\n", path, plain);
    fd = connect_to(&a);
    if (fd < 0)
        return unreachable(endpoint, strerror(errno), error);
    status = exchange(fd, request, &answer)
                 ? take_body(endpoint, &answer, body, error)
                 : unreachable(endpoint, strerror(errno), error);
    close(fd);
    buffer_free(&answer);
    return status;
}

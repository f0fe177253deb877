/*
 * server.c - see server.h.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "server.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "base/buffer.h"
#include "base/memory.h"
#include "loop.h"

/* Both servers have it; t4 under its own name, too. */
#define SYNCS "etcd_disk_wal_fsync_duration_seconds_count"
#define PAGE_MOST ((size_t)16 << 20)
#define SETTLE_SECONDS 300
#define IDLE_MARGIN 0.005 /* of one CPU */

struct thread_wakeups {
    uint64_t id, wakeups;
};

/* --- the process --------------------------------------------------------------------------- */

uint64_t
server_cpu_ns(uint64_t pid)
{
    struct timespec t;
    clockid_t clock;

    if (clock_getcpuclockid((pid_t)pid, &clock) != 0 || clock_gettime(clock, &t) != 0)
        give_up("there is no process %" PRIu64 " (any more)", pid);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* The number behind `name` in a file of lines "name: number"; 0: it is not there. */
static uint64_t
number_of(const char *path, const char *name)
{
    FILE *f = fopen(path, "r");
    char line[256];
    uint64_t n = 0;
    size_t length = strlen(name);

    if (f == NULL)
        return 0;
    while (fgets(line, sizeof line, f) != NULL)
        if (strncmp(line, name, length) == 0 && line[length] == ':')
            n = strtoull(line + length + 1, NULL, 10);
    fclose(f);
    return n;
}

struct server_usage
server_usage(uint64_t pid)
{
    struct server_usage u = {.at_ns = now_ns(), .cpu_ns = server_cpu_ns(pid)};
    char path[64 + 256];
    struct dirent *entry;
    DIR *dir;

    snprintf(path, sizeof path, "/proc/%" PRIu64 "/task", pid);
    dir = opendir(path);
    if (dir == NULL)
        give_up("%s: %s", path, strerror(errno));
    while ((entry = readdir(dir)) != NULL) {
        if (entry->d_name[0] == '.')
            continue;
        snprintf(path, sizeof path, "/proc/%" PRIu64 "/task/%s/status", pid,
                 entry->d_name);
        u.threads = mem_realloc(u.threads, (u.n_threads + 1) * sizeof *u.threads);
        u.threads[u.n_threads++] =
            (struct thread_wakeups){strtoull(entry->d_name, NULL, 10),
                                    number_of(path, "voluntary_ctxt_switches")};
    }
    closedir(dir);
    return u;
}

void
server_usage_free(struct server_usage *u)
{
    mem_free(u->threads);
    u->threads = NULL;
}

static const struct thread_wakeups *
find(const struct server_usage *u, uint64_t id)
{
    for (uint64_t i = 0; i < u->n_threads; i++)
        if (u->threads[i].id == id)
            return &u->threads[i];
    return NULL;
}

uint64_t
server_wakeups(const struct server_usage *before, const struct server_usage *after,
               uint64_t *ended)
{
    uint64_t sum = 0;

    *ended = 0;
    for (uint64_t i = 0; i < after->n_threads; i++) {
        const struct thread_wakeups *then = find(before, after->threads[i].id);

        sum += after->threads[i].wakeups - (then != NULL ? then->wakeups : 0);
    }
    for (uint64_t i = 0; i < before->n_threads; i++)
        *ended += find(after, before->threads[i].id) == NULL;
    return sum;
}

struct server_memory
server_memory(uint64_t pid)
{
    char path[64];

    snprintf(path, sizeof path, "/proc/%" PRIu64 "/status", pid);
    return (struct server_memory){number_of(path, "VmRSS") * 1024,
                                  number_of(path, "RssAnon") * 1024};
}

/* What it uses in the coming seconds, as part of one CPU. */
static double
cpu_in(uint64_t pid, uint64_t seconds)
{
    const struct timespec pause = {.tv_sec = (time_t)seconds};
    uint64_t cpu = server_cpu_ns(pid), began = now_ns();

    nanosleep(&pause, NULL);
    return (double)(server_cpu_ns(pid) - cpu) / (double)(now_ns() - began);
}

double
server_idle_cpu(uint64_t pid)
{
    double before = cpu_in(pid, 1);

    for (int i = 0; i < SETTLE_SECONDS; i++) {
        double used = cpu_in(pid, 1);

        if (used - before <= IDLE_MARGIN && before - used <= IDLE_MARGIN)
            return used < before ? used : before;
        before = used;
    }
    give_up("the server is busy before there is any load");
}

bool
server_settle(uint64_t pid, double idle, uint64_t seconds)
{
    uint64_t began = now_ns();

    while (cpu_in(pid, seconds) > idle + IDLE_MARGIN)
        if (now_ns() - began > SETTLE_SECONDS * UINT64_C(1000000000))
            return false;
    return true;
}

/* --- the page of metrics ----------------------------------------------------------------------- */

static int
connect_to(const char *url, const char *host, const char *port)
{
    const struct addrinfo hints = {.ai_socktype = SOCK_STREAM};
    struct addrinfo *list, *i;
    int fd = -1;

    if (getaddrinfo(host, port, &hints, &list) != 0)
        give_up("--metrics: there is no such host as in %s", url);
    for (i = list; i != NULL && fd < 0; i = i->ai_next) {
        fd = socket(i->ai_family, i->ai_socktype | SOCK_CLOEXEC, i->ai_protocol);
        if (fd >= 0 && connect(fd, i->ai_addr, i->ai_addrlen) != 0) {
            close(fd);
            fd = -1;
        }
    }
    freeaddrinfo(list);
    if (fd < 0)
        give_up("--metrics: nobody answers at %s: %s", url, strerror(errno));
    return fd;
}

/* HTTP/1.0 on purpose: the answer ends with the connection. */
static void
get_page(const char *url, struct buffer *page)
{
    char host[256], port[16], request[768];
    const char *path = url + strlen("http://");
    ssize_t n;
    int fd, length;

    if (sscanf(path, "%255[^:/]:%15[0-9]", host, port) != 2)
        give_up("--metrics: \"%s\" is not http://HOST:PORT/PATH", url);
    path = strchr(path, '/');
    fd = connect_to(url, host, port);
    length = snprintf(request, sizeof request, "GET %.500s HTTP/1.0\r\nHost: %s\r\n\r\n",
                      path != NULL ? path : "/metrics", host);
    if (send(fd, request, (size_t)length, MSG_NOSIGNAL) != length)
        give_up("--metrics: %s takes no request: %s", url, strerror(errno));
    while (page->len < PAGE_MOST &&
           (n = recv(fd, buffer_reserve(page, 65536), 65536, 0)) > 0)
        page->len += (size_t)n;
    close(fd);
}

uint64_t
server_syncs(const char *metrics)
{
    struct buffer page = {0};
    uint64_t syncs;
    char *line;

    get_page(metrics, &page);
    buffer_append_u8(&page, 0);
    line = strstr((char *)page.data, "\n" SYNCS " ");
    if (line == NULL)
        give_up("--metrics: %s has no " SYNCS, metrics);
    syncs = (uint64_t)strtod(line + strlen("\n" SYNCS " "), NULL);
    buffer_free(&page);
    return syncs;
}

/*
 * dir.c - the directory object store: descriptor, open, close, the gate, error texts.
 *
 * An object is a file; see README.md for the format and for what is asked of the file
 * system.  The gate serialises what reads before it changes (if-match, replacing, removing)
 * between all threads and processes: within a store by a flag, between stores and processes
 * by flock() on the file .lock, which the kernel drops when a process dies.
 *
 * Entry point: t4_plugin_v1().  Runs on: open and close: one thread of the host at a time;
 * the rest: any.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "dir.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define MAX_PATH 3900

/* --- errors ------------------------------------------------------------------------- */

static t4_status
status_of(int number, t4_status otherwise)
{
    switch (number) {
    case ENOSPC:
    case EDQUOT:
    case EFBIG: return T4_E_NOSPACE;
    case EACCES:
    case EPERM:
    case EROFS: return T4_E_DENIED;
    case ENOMEM: return T4_E_NOMEM;
    }
    return otherwise;
}

t4_status
dir_fail(const struct t4_store *s, struct t4_call *call, int number, t4_status otherwise,
         const char *what, struct t4_slice key)
{
    t4_status st = status_of(number, otherwise);
    char message[512], reason[128];
    const char *hint = NULL;

    switch (st) {
    case T4_E_NOSPACE: hint = "make room on that file system or raise its quota"; break;
    case T4_E_DENIED:
        hint = "the directory and all in it must belong to the server's user, on a file "
               "system that is mounted for writing";
        break;
    default:
        if (number == EMFILE || number == ENFILE)
            hint = "raise the limit of open files (ulimit -n)";
        break;
    }
    if (key.len > 0)
        snprintf(message, sizeof message, "%s: cannot %s the file of %.*s", s->path, what,
                 (int)(key.len < 200 ? key.len : 200), (const char *)key.data);
    else
        snprintf(message, sizeof message, "%s: cannot %s", s->path, what);
    return s->host->fail(call, st, message, strerror_r(number, reason, sizeof reason),
                         hint);
}

t4_status
dir_check_call(const struct t4_store *s, struct t4_call *call)
{
    uint64_t deadline = s->host->deadline_ns(call);

    if (s->host->cancelled(call))
        return T4_E_CANCELLED;
    return deadline != 0 && s->host->now_ns() >= deadline ? T4_E_TIMEOUT : T4_OK;
}

t4_status
dir_check_root(const struct t4_store *s, struct t4_call *call)
{
    struct stat st;

    if (fstat(s->fd, &st) != 0)
        return dir_fail(s, call, errno, T4_E_UNAVAILABLE, "examine the directory",
                        (struct t4_slice){0});
    if (st.st_nlink > 0)
        return T4_OK;
    return s->host->fail(call, T4_E_UNAVAILABLE, s->path, "the directory was removed",
                         "put it back and start again");
}

int64_t
dir_wall_ms(void)
{
    struct timespec t;

    clock_gettime(CLOCK_REALTIME, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* --- the gate ----------------------------------------------------------------------- */

static void
wait_a_little(struct t4_store *s, unsigned ms)
{
    struct timespec until;

    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_nsec += (long)ms * 1000000;
    until.tv_sec += until.tv_nsec / 1000000000;
    until.tv_nsec %= 1000000000;
    pthread_cond_timedwait(&s->freed, &s->mutex, &until);
}

static void
give_up_turn(struct t4_store *s)
{
    pthread_mutex_lock(&s->mutex);
    s->taken = false;
    pthread_cond_signal(&s->freed);
    pthread_mutex_unlock(&s->mutex);
}

t4_status
dir_enter(struct t4_store *s, struct t4_call *call, int *out)
{
    unsigned pause_ms = 1;
    t4_status st;
    int fd;

    pthread_mutex_lock(&s->mutex);
    while ((st = dir_check_call(s, call)) == T4_OK && s->taken)
        wait_a_little(s, 50);
    s->taken = s->taken || st == T4_OK;
    pthread_mutex_unlock(&s->mutex);
    if (st != T4_OK)
        return st;

    /* Opened each time: a lock belongs to the open file, and a dead one is soon noticed. */
    fd = openat(s->fd, ".lock", O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0) {
        st = dir_fail(s, call, errno, T4_E_UNAVAILABLE, "open the file .lock",
                      (struct t4_slice){0});
        goto fail_turn;
    }
    while (flock(fd, LOCK_EX | LOCK_NB) != 0) { /* another process has it */
        if (errno != EWOULDBLOCK && errno != EINTR) {
            st = dir_fail(s, call, errno, T4_E_UNAVAILABLE, "lock the file .lock",
                          (struct t4_slice){0});
            goto fail_file;
        }
        st = dir_check_call(s, call);
        if (st != T4_OK)
            goto fail_file;
        nanosleep(&(struct timespec){.tv_nsec = (long)pause_ms * 1000000}, NULL);
        pause_ms = pause_ms < 16 ? 2 * pause_ms : 16;
    }
    *out = fd;
    return T4_OK;

fail_file:
    close(fd);
fail_turn:
    give_up_turn(s);
    return st;
}

void
dir_leave(struct t4_store *s, int lock)
{
    close(lock);
    give_up_turn(s);
}

/* --- open and close ----------------------------------------------------------------- */

static int
unhex(uint8_t c)
{
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
}

/* The path in "file:///path" or "file://localhost/path", %xx decoded; NULL: all is well. */
static const char *
path_in(struct t4_slice url, char out[MAX_PATH + 1])
{
    static const char scheme[] = "file://", host[] = "localhost";
    const uint8_t *p = url.data, *end = url.data + url.len;
    size_t n = 0;

    if (url.len < sizeof scheme - 1 || memcmp(p, scheme, sizeof scheme - 1) != 0)
        return "the URL does not begin with file://";
    p += sizeof scheme - 1;
    if ((size_t)(end - p) > sizeof host - 1 && memcmp(p, host, sizeof host - 1) == 0)
        p += sizeof host - 1;
    if (p == end || *p != '/')
        return "the path is not absolute";
    for (; p < end; p++) {
        uint8_t c = *p;

        if (c == '?' || c == '#')
            return "? and # have no meaning in it";
        if (c == '%') {
            if (end - p < 3 || unhex(p[1]) < 0 || unhex(p[2]) < 0)
                return "% is not followed by two hexadecimal digits";
            c = (uint8_t)(unhex(p[1]) << 4 | unhex(p[2]));
            p += 2;
        }
        if (c == '\0' || n == MAX_PATH)
            return "the path is too long or has a zero byte";
        out[n++] = (char)c;
    }
    while (n > 1 && out[n - 1] == '/')
        n--;
    out[n] = '\0';
    return NULL;
}

/*
 * Makes the last folder of the path only: if more is missing, then a file system is not
 * mounted or the path is wrong, and beginning an empty store there would be the worst answer.
 */
static t4_status
open_root(struct t4_store *s, struct t4_call *call)
{
    char parent[MAX_PATH + 2], *slash;
    int fd, number = 0;

    if (mkdir(s->path, 0700) == 0) {
        snprintf(parent, sizeof parent, "%s", s->path);
        slash = strrchr(parent, '/');
        slash[slash == parent] = '\0';
        fd = open(parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (fd < 0 || fsync(fd) != 0)
            number = errno;
        if (fd >= 0)
            close(fd);
        if (number != 0)
            return dir_fail(s, call, number, T4_E_IO, "sync the folder above it",
                            (struct t4_slice){0});
    } else if (errno == ENOENT)
        return s->host->fail(call, T4_E_NOTFOUND, s->path,
                             "the folder above it is missing",
                             "mount the file system or create that folder; only the last "
                             "folder of the path is made by itself");
    s->fd = open(s->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (s->fd < 0)
        return dir_fail(s, call, errno, T4_E_IO, "open the directory",
                        (struct t4_slice){0});
    return T4_OK;
}

static void
dir_close(struct t4_store *s)
{
    const struct t4_host *host = s->host;

    if (s->fd >= 0)
        close(s->fd);
    pthread_mutex_destroy(&s->mutex);
    pthread_cond_destroy(&s->freed);
    host->free(host, s->path);
    host->free(host, s);
}

static t4_status
dir_open(void *plugin, struct t4_call *call, const struct t4_store_open *arguments,
         struct t4_store **out)
{
    const struct t4_host *host = ((struct dir_plugin *)plugin)->host;
    char path[MAX_PATH + 1];
    const char *wrong = path_in(arguments->url, path);
    pthread_condattr_t attributes;
    struct t4_store *s;
    t4_status st;

    *out = NULL;
    if (wrong != NULL)
        return host->fail(call, T4_E_INVALID, "the URL of a directory store", wrong,
                          "it is written file:///absolute/path");
    s = host->alloc(host, sizeof *s);
    if (s == NULL)
        return T4_E_NOMEM;
    *s = (struct t4_store){.host = host, .fd = -1};
    pthread_mutex_init(&s->mutex, NULL);
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&s->freed, &attributes);
    pthread_condattr_destroy(&attributes);
    s->path = host->alloc(host, strlen(path) + 1);
    if (s->path == NULL) {
        st = T4_E_NOMEM;
        goto fail_store;
    }
    strcpy(s->path, path);
    st = open_root(s, call);
    if (st == T4_OK)
        st = dir_clean(s, call);
    if (st != T4_OK)
        goto fail_store;
    *out = s;
    return T4_OK;

fail_store:
    dir_close(s);
    return st;
}

/* --- the plugin --------------------------------------------------------------------- */

static t4_status
load(const struct t4_host *host, struct t4_call *call, const struct t4_values *values,
     void **plugin)
{
    struct dir_plugin *p = host->alloc(host, sizeof *p);

    (void)call;
    (void)values;
    if (p == NULL)
        return T4_E_NOMEM;
    p->host = host;
    *plugin = p;
    return T4_OK;
}

static void
unload(void *plugin)
{
    struct dir_plugin *p = plugin;

    p->host->free(p->host, p);
}

static const struct t4_object_ops ops = {
    .size = sizeof ops,
    .caps = T4_OBJECT_IF_ABSENT | T4_OBJECT_IF_MATCH,
    .open = dir_open,
    .close = dir_close,
    .put = dir_put,
    .get = dir_get,
    .head = dir_head,
    .remove = dir_remove,
    .list = dir_list,
};

const struct t4_plugin *
t4_plugin_v1(void)
{
    static const struct t4_role roles[] = {
        {.kind = T4_ROLE_OBJECT, .name = "file", .ops = &ops}};
    static const struct t4_plugin plugin = {
        T4_PLUGIN_HEAD("dir", "0.1.0", 0),
        .license = "Apache-2.0",
        .summary = "object store in a local directory or on NFS (file:///path)",
        .roles = roles,
        .n_roles = 1,
        .load = load,
        .unload = unload,
    };

    return &plugin;
}

/*
 * listen.c - the accepting thread: takes connections, waits for what they say first, hands them
 * to who serves that, and keeps their number within the bound.
 *
 * One table, by descriptor, holds everything: sockets that listen, connections that have said
 * nothing yet, and those that were handed over.  The latter are closed by others, who do not say
 * so; the table has the inode of each, and a look at the descriptors (sweep) finds out which are
 * gone.  That is done when the bound seems to be reached and when metrics are read, and costs
 * nothing in between.
 *
 * Waiting connections are watched edge-triggered, so that a few bytes of a greeting wake the
 * thread once and not for ever.  They stand in a list in the order of their deadlines, which is
 * the order in which they came.
 *
 * A client of gRPC that gets to run seldom may wait for the server's settings before it sends
 * anything (the C core does so when nobody polls it).  So who is silent for a second is sent
 * empty settings; the core sends its own after the hand-over, which HTTP/2 allows at any time.
 *
 * Entry points: listen_*().
 *
 * Invariants
 *  (1) n_connections >= connections that are open: it is corrected downwards only by sweep, by an
 *      end seen here, and by a descriptor that comes again
 *  (2) handing over happens under the lock: after listen_close() there is none
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "api/listen/listen.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "api/listen/listen_int.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/metrics.h"
#include "env/thread.h"

#define EVENTS 256
#define ACCEPTS 64 /* of one address before others get their turn */
#define NS_PER_MS UINT64_C(1000000)
#define NS_PER_S (1000 * NS_PER_MS)
#define SWEEP_NS (100 * NS_PER_MS) /* at most so often while the bound is reached */
#define PAUSE_NS                                                                         \
    (100 * NS_PER_MS) /* without accepting, when there is no descriptor left */
#define COMPLAIN_NS (10 * NS_PER_S)
#define NONE (-1)

enum slot_state { SLOT_FREE, SLOT_LISTENS, SLOT_WAITS, SLOT_TAKEN };

struct slot {
    enum slot_state state;
    enum listen_for which;
    int next, previous; /* WAITS: descriptors, or NONE */
    uint64_t deadline;  /* WAITS */
    bool spoken_to;     /* WAITS: it has got settings, and can only be HTTP/2 */
    uint64_t inode;     /* TAKEN */
};

struct taker {
    listen_take *take;
    void *arg;
};

struct listen {
    struct listen_options options;
    struct thread thread;
    int epoll, wake;

    struct mutex lock; /* all below */
    struct taker http, grpc;
    bool stopping, paused;
    struct slot *slots; /* by descriptor */
    int n_slots;
    int first, last; /* of those that wait, oldest first; NONE */
    int unspoken;    /* the first of them that was not spoken to; NONE */
    struct opened opened[LISTEN_FOR_COUNT][OPEN_MAX * 16];
    size_t n_opened[LISTEN_FOR_COUNT];
    uint32_t n_connections;
    uint64_t accepted, refused, silent;
    uint64_t swept_at, complained_at, paused_until;
};

static uint64_t
monotonic_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * NS_PER_S + (uint64_t)now.tv_nsec;
}

/* --- the table ----------------------------------------------------------------------------- */

static void
unlink_waiting(struct listen *l, int fd)
{
    struct slot *s = &l->slots[fd];

    if (l->unspoken == fd)
        l->unspoken = s->next;
    if (s->previous != NONE)
        l->slots[s->previous].next = s->next;
    else
        l->first = s->next;
    if (s->next != NONE)
        l->slots[s->next].previous = s->previous;
    else
        l->last = s->previous;
}

/* The slot of a descriptor that is new to us: whoever had it before is gone. */
static struct slot *
fresh_slot(struct listen *l, int fd)
{
    struct slot *s;

    if (fd >= l->n_slots) {
        int n = l->n_slots > 0 ? l->n_slots : 64;

        while (n <= fd)
            n *= 2;
        l->slots = mem_realloc(l->slots, (size_t)n * sizeof *l->slots);
        memset(l->slots + l->n_slots, 0, (size_t)(n - l->n_slots) * sizeof *l->slots);
        l->n_slots = n;
    }
    s = &l->slots[fd];
    if (s->state == SLOT_TAKEN)
        l->n_connections--;
    *s = (struct slot){.next = NONE, .previous = NONE};
    return s;
}

/* Closes a connection that nobody serves. */
static void
drop_waiting(struct listen *l, int fd)
{
    unlink_waiting(l, fd);
    l->slots[fd].state = SLOT_FREE;
    l->n_connections--;
    close(fd);
}

/* Forgets the connections that their servers have closed. */
static void
sweep(struct listen *l, uint64_t now)
{
    struct stat found;

    l->swept_at = now;
    for (int fd = 0; fd < l->n_slots; fd++) {
        struct slot *s = &l->slots[fd];

        if (s->state != SLOT_TAKEN ||
            (fstat(fd, &found) == 0 && found.st_ino == s->inode))
            continue;
        s->state = SLOT_FREE;
        l->n_connections--;
    }
}

/* --- one connection ------------------------------------------------------------------------ */

static void
hand_over(struct listen *l, int fd, const struct taker *to)
{
    struct slot *s = &l->slots[fd];
    enum listen_for which = s->which;
    struct stat found;

    if (s->state == SLOT_WAITS) {
        unlink_waiting(l, fd);
        epoll_ctl(l->epoll, EPOLL_CTL_DEL, fd, NULL);
    }
    s->state = SLOT_TAKEN;
    s->inode = fstat(fd, &found) == 0 ? found.st_ino : 0;
    to->take(to->arg, which, fd);
}

/* Looks at what has come; false: not enough yet. */
static bool
look_at(struct listen *l, int fd)
{
    uint8_t bytes[GREETING_BYTES];
    ssize_t n = recv(fd, bytes, sizeof bytes, MSG_PEEK | MSG_DONTWAIT);

    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return false;
    switch (n <= 0 ? GREETING_NONE : greeting_of(bytes, (size_t)n)) {
    case GREETING_MORE: return false;
    case GREETING_HTTP1:
        if (l->slots[fd].spoken_to)
            drop_waiting(l, fd);
        else
            hand_over(l, fd, &l->http);
        return true;
    case GREETING_HTTP2: hand_over(l, fd, &l->grpc); return true;
    default: drop_waiting(l, fd); return true;
    }
}

/* There is no room for one more; the one that has been silent longest makes it. */
static bool
make_room(struct listen *l, uint64_t now)
{
    char most[16];

    if (l->n_connections < l->options.max_connections)
        return true;
    if (now - l->swept_at >= SWEEP_NS)
        sweep(l, now);
    if (l->n_connections < l->options.max_connections)
        return true;
    if (now - l->complained_at >= COMPLAIN_NS) {
        l->complained_at = now;
        snprintf(most, sizeof most, "%" PRIu32, l->options.max_connections);
        LOG_WARN(
            "connections are refused: there are as many as may be", "connections", most,
            "remedy",
            "find out who opens so many; or raise --max-connections, and the limit of "
            "open files with it (ulimit -n, LimitNOFILE=)",
            NULL);
    }
    if (l->first == NONE)
        return false;
    l->silent++;
    drop_waiting(l, l->first);
    return true;
}

static void
begin_connection(struct listen *l, enum listen_for which, int fd, uint64_t now)
{
    struct epoll_event event = {.events = EPOLLIN | EPOLLRDHUP | EPOLLET, .data.fd = fd};
    struct slot *s = fresh_slot(l, fd);

    if (!make_room(l, now)) {
        l->refused++;
        close(fd);
        return;
    }
    s = &l->slots[fd];
    s->which = which;
    l->n_connections++;
    l->accepted++;
    if (which == LISTEN_FOR_PROBES) { /* its library has bounds of its own */
        hand_over(l, fd, &l->http);
        return;
    }
    s->state = SLOT_WAITS;
    s->deadline = now + l->options.greeting_ns;
    s->previous = l->last;
    if (l->last != NONE)
        l->slots[l->last].next = fd;
    else
        l->first = fd;
    l->last = fd;
    if (l->unspoken == NONE)
        l->unspoken = fd;
    if (look_at(l, fd))
        return;
    if (epoll_ctl(l->epoll, EPOLL_CTL_ADD, fd, &event) != 0)
        drop_waiting(l, fd);
    else
        look_at(l, fd); /* what came in between makes no edge */
}

/* --- accepting ----------------------------------------------------------------------------- */

static void
watch_listeners(struct listen *l, bool on)
{
    for (int which = 0; which < LISTEN_FOR_COUNT; which++) {
        for (size_t i = 0; i < l->n_opened[which]; i++) {
            struct epoll_event event = {.events = on ? EPOLLIN : 0,
                                        .data.fd = l->opened[which][i].fd};

            epoll_ctl(l->epoll, EPOLL_CTL_MOD, l->opened[which][i].fd, &event);
        }
    }
}

static void
pause_accepting(struct listen *l, int reason, uint64_t now)
{
    l->paused = true;
    l->paused_until = now + PAUSE_NS;
    watch_listeners(l, false);
    if (now - l->complained_at < COMPLAIN_NS)
        return;
    l->complained_at = now;
    LOG_WARN("connections wait: the system does not give a descriptor", "reason",
             strerror(reason), "remedy",
             "raise the limit of open files (ulimit -n, LimitNOFILE=), or lower "
             "--max-connections",
             NULL);
}

static void
accept_some(struct listen *l, int listener, uint64_t now)
{
    enum listen_for which = l->slots[listener].which;

    for (int i = 0; i < ACCEPTS; i++) {
        int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

        if (fd >= 0) {
            begin_connection(l, which, fd, now);
        } else if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS ||
                   errno == ENOMEM) {
            pause_accepting(l, errno, now);
            return;
        } else if (errno == EAGAIN || errno == EBADF || errno == EINVAL) {
            return;
        } /* else that connection is gone already */
    }
}

/* --- the thread ---------------------------------------------------------------------------- */

/* When the silence of a waiting connection becomes too long. */
static uint64_t
silence_ends(const struct listen *l, int fd)
{
    return l->slots[fd].deadline - l->options.greeting_ns + l->options.silence_ns;
}

static void
speak_first(struct listen *l, uint64_t now)
{
    static const uint8_t settings[9] = {0, 0, 0, 4}; /* empty, of stream 0 */

    while (l->unspoken != NONE && silence_ends(l, l->unspoken) <= now) {
        int fd = l->unspoken;

        l->slots[fd].spoken_to = true;
        l->unspoken = l->slots[fd].next;
        if (send(fd, settings, sizeof settings, MSG_DONTWAIT | MSG_NOSIGNAL) < 0)
            drop_waiting(l, fd); /* it is gone */
    }
}

static void
expire(struct listen *l, uint64_t now)
{
    while (l->first != NONE && l->slots[l->first].deadline <= now) {
        l->silent++;
        drop_waiting(l, l->first);
    }
    if (l->paused && l->paused_until <= now) {
        l->paused = false;
        watch_listeners(l, true);
    }
}

/* Milliseconds to the next thing to do by the clock; -1: none. */
static int
time_to_wait(const struct listen *l, uint64_t now)
{
    uint64_t next = UINT64_MAX;

    if (l->first != NONE)
        next = l->slots[l->first].deadline;
    if (l->unspoken != NONE && silence_ends(l, l->unspoken) < next)
        next = silence_ends(l, l->unspoken);
    if (l->paused && l->paused_until < next)
        next = l->paused_until;
    if (next == UINT64_MAX)
        return -1;
    return next <= now ? 0 : (int)((next - now) / NS_PER_MS) + 1;
}

/* Nothing more comes from there. */
static bool
is_gone(int fd)
{
    struct pollfd p = {.fd = fd, .events = POLLRDHUP};

    return poll(&p, 1, 0) > 0;
}

/* An event may be of a descriptor that has become another one meanwhile: looking is harmless. */
static void
on_event(struct listen *l, int fd, uint64_t now)
{
    if (fd >= l->n_slots)
        return;
    if (l->slots[fd].state == SLOT_LISTENS)
        accept_some(l, fd, now);
    else if (l->slots[fd].state == SLOT_WAITS && !look_at(l, fd) && is_gone(fd))
        drop_waiting(l, fd); /* what it began to say has no end */
}

static void *
accept_main(void *arg)
{
    struct listen *l = arg;
    struct epoll_event events[EVENTS];
    int wait = -1;

    for (;;) {
        int n = epoll_wait(l->epoll, events, EVENTS, wait);
        uint64_t now = monotonic_ns();

        mutex_lock(&l->lock);
        if (l->stopping) {
            mutex_unlock(&l->lock);
            return NULL;
        }
        for (int i = 0; i < n; i++)
            on_event(l, events[i].data.fd, now);
        speak_first(l, now);
        expire(l, now);
        wait = time_to_wait(l, now);
        mutex_unlock(&l->lock);
    }
}

/* --- for others ---------------------------------------------------------------------------- */

t4_status
listen_start(const struct listen_options *o, struct listen **out, struct error *error)
{
    struct listen *l = mem_zalloc(sizeof *l);
    struct epoll_event event = {.events = EPOLLIN};

    *out = NULL;
    l->options = *o;
    l->first = l->last = l->unspoken = NONE;
    l->epoll = epoll_create1(EPOLL_CLOEXEC);
    l->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    event.data.fd = l->wake;
    if (l->epoll < 0 || l->wake < 0 ||
        epoll_ctl(l->epoll, EPOLL_CTL_ADD, l->wake, &event) != 0) {
        error_set(error, T4_E_IO, "cannot wait for connections: %s", strerror(errno));
        if (l->epoll >= 0)
            close(l->epoll);
        if (l->wake >= 0)
            close(l->wake);
        mem_free(l);
        return error_hint(error, "raise the limit of open files (ulimit -n)");
    }
    mutex_init(&l->lock);
    thread_start(&l->thread, "t4-accept", accept_main, l);
    *out = l;
    return T4_OK;
}

void
listen_serve_http(struct listen *l, listen_take *take, void *arg)
{
    mutex_lock(&l->lock);
    l->http = (struct taker){take, arg};
    mutex_unlock(&l->lock);
}

void
listen_serve_grpc(struct listen *l, listen_take *take, void *arg)
{
    mutex_lock(&l->lock);
    l->grpc = (struct taker){take, arg};
    mutex_unlock(&l->lock);
}

t4_status
listen_open(struct listen *l, enum listen_for which, const struct listen_address *a,
            const char *flag, struct error *error)
{
    struct opened opened[OPEN_MAX];
    size_t n;
    t4_status status = open_address(&l->options, a, flag, opened, &n, error);

    if (status != T4_OK)
        return status;
    mutex_lock(&l->lock);
    for (size_t i = 0; i < n; i++) {
        struct epoll_event event = {.events = EPOLLIN, .data.fd = opened[i].fd};
        struct slot *s;

        if (l->n_opened[which] == sizeof l->opened[0] / sizeof l->opened[0][0]) {
            open_close(&opened[i]);
            continue;
        }
        s = fresh_slot(l, opened[i].fd);
        s->state = SLOT_LISTENS;
        s->which = which;
        l->opened[which][l->n_opened[which]++] = opened[i];
        epoll_ctl(l->epoll, EPOLL_CTL_ADD, opened[i].fd, &event);
    }
    mutex_unlock(&l->lock);
    return T4_OK;
}

void
listen_close(struct listen *l, enum listen_for which)
{
    mutex_lock(&l->lock);
    for (size_t i = 0; i < l->n_opened[which]; i++) {
        l->slots[l->opened[which][i].fd].state = SLOT_FREE;
        open_close(&l->opened[which][i]);
    }
    l->n_opened[which] = 0;
    for (int fd = l->first, next; fd != NONE; fd = next) {
        next = l->slots[fd].next;
        if (l->slots[fd].which == which)
            drop_waiting(l, fd);
    }
    mutex_unlock(&l->lock);
}

void
listen_stop(struct listen *l)
{
    const uint64_t one = 1;
    ssize_t ignored;

    if (l == NULL)
        return;
    for (int which = 0; which < LISTEN_FOR_COUNT; which++)
        listen_close(l, (enum listen_for)which);
    mutex_lock(&l->lock);
    l->stopping = true;
    mutex_unlock(&l->lock);
    ignored = write(l->wake, &one, sizeof one);
    (void)ignored;
    thread_join(&l->thread);
    close(l->epoll);
    close(l->wake);
    mutex_destroy(&l->lock);
    mem_free(l->slots);
    mem_free(l);
}

void
listen_render_metrics(void *arg, struct buffer *out)
{
    struct listen *l = arg;

    mutex_lock(&l->lock);
    sweep(l, monotonic_ns());
    metrics_head(out, "t4_connections", "gauge",
                 "Open connections, of clients and probes");
    metrics_append(out, "t4_connections %" PRIu32 "\n", l->n_connections);
    metrics_head(out, "t4_connections_max", "gauge", "How many there may be");
    metrics_append(out, "t4_connections_max %" PRIu32 "\n", l->options.max_connections);
    metrics_head(out, "t4_connections_accepted_total", "counter",
                 "Connections that were taken");
    metrics_append(out, "t4_connections_accepted_total %" PRIu64 "\n", l->accepted);
    metrics_head(out, "t4_connections_refused_total", "counter",
                 "Connections closed because there were as many as may be");
    metrics_append(out, "t4_connections_refused_total %" PRIu64 "\n", l->refused);
    metrics_head(out, "t4_connections_silent_total", "counter",
                 "Connections closed because they did not say in time what they want");
    metrics_append(out, "t4_connections_silent_total %" PRIu64 "\n", l->silent);
    mutex_unlock(&l->lock);
}

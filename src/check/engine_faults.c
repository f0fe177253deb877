/*
 * engine_faults.c - no memory, a folder that cannot be written, a full disk: errors, and
 * nothing lost.
 *
 * Entry point: engine_faults().  Runs on: the thread of the part, which gives up its rights
 * and changes its limits.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/memory.h"
#include "base/slice.h"
#include "check/engine_int.h"

#define NOBODY 65534
#define DISK_BYTES ((rlim_t)2 << 20)
#define DISK_VALUE 20000

/* --- no memory ---------------------------------------------------------------------- */

enum { OPEN, WRITE, SYNC, DEFRAGMENT, SNAP, GET, ITER, SEEK, NEXT, PREV, CALLS };
static const char *const call_names[] = {"open()", "write()", "sync()", "defragment()",
                                         "snap()", "get()",   "iter()", "seek()",
                                         "next()", "prev()"};

struct handles {
    struct t4_snap *snap;
    struct t4_iter *iter;
};

/* What each call gives is known, since round n writes it. */
static t4_status
do_call(struct bench *b, struct handles *h, int call, uint64_t n)
{
    const struct t4_op ops[] = {put_op(slice_str("m1"), slice_of(&n, sizeof n)),
                                put_op(slice_str("m2"), slice_of(&n, sizeof n))};
    struct t4_slice key, value;
    bool more;
    t4_status st;

    switch (call) {
    case OPEN: return bench_try_open(b, NULL);
    case WRITE: return engine_write(b->engine, ops, 2, n, NULL);
    case SYNC: return engine_sync(b->engine, NULL);
    case DEFRAGMENT: return engine_defragment(b->engine, &more, NULL);
    case SNAP: return engine_snap(b->engine, &h->snap);
    case ITER: return engine_iter(b->engine, h->snap, &h->iter);
    case GET: st = engine_get(b->engine, h->snap, ops[0].key, &value); break;
    case SEEK: st = engine_seek(b->engine, h->iter, ops[0].key, &key, &value); break;
    case NEXT: st = engine_next(b->engine, h->iter, &key, &value); break;
    case PREV: st = engine_prev(b->engine, h->iter, &key, &value); break;
    default: return T4_E_INTERNAL;
    }
    if (st == T4_OK && !slice_equal(value, slice_of(&n, sizeof n)))
        bench_complain(b, "%s gives a value of another write", call_names[call]);
    return st;
}

/* Every call once, the nth allocation fails; false: there were fewer. */
static bool
lack_memory(struct bench *b, uint64_t n)
{
    struct handles h = {0};
    size_t before = plugin_allocations(b->plugin), left;
    bool happened;

    /* A new folder: what an engine allocates may grow with what it has. */
    snprintf(b->dir, sizeof b->dir, "%s/%llu", b->scratch, (unsigned long long)n);
    plugin_fail_allocation(b->plugin, n);
    for (int call = 0; call < CALLS && b->complaint[0] == '\0'; call++) {
        t4_status st = do_call(b, &h, call, n);

        if (st == T4_OK)
            continue;
        if (st != T4_E_NOMEM)
            bench_complain(b, "allocation %llu fails: %s gives %s, not %s",
                           (unsigned long long)n, call_names[call], status_text(st),
                           status_text(T4_E_NOMEM));
        else if ((st = do_call(b, &h, call, n)) != T4_OK)
            bench_complain(b, "allocation %llu failed: %s, again, gives %s",
                           (unsigned long long)n, call_names[call], status_text(st));
    }
    happened = plugin_fail_allocation(b->plugin, 0) == 0;
    if (b->engine == NULL)
        return false;
    engine_iter_end(b->engine, h.iter);
    engine_snap_end(b->engine, h.snap);
    bench_close(b);
    left = plugin_allocations(b->plugin);
    if (left != before)
        bench_complain(b, "allocation %llu failed: %zu allocations are left behind",
                       (unsigned long long)n, left - before);
    return happened;
}

static void
check_memory(struct bench *b)
{
    uint64_t n = 0;

    do
        n++;
    while (n < 10000 && lack_memory(b, n) && b->complaint[0] == '\0');
    bench_line(
        b,
        "each of %llu allocations of the host fails once: NOMEM, and the call works "
        "when it is repeated",
        (unsigned long long)n - 1);
}

/* --- folders ------------------------------------------------------------------------ */

static void
must_not_open(struct bench *b, const char *what)
{
    struct error error = {0};

    if (bench_try_open(b, &error) == T4_OK) {
        bench_complain(b, "it opens");
        bench_close(b);
    } else if (strstr(error.message, b->dir) == NULL &&
               strstr(error.hint, b->dir) == NULL) {
        bench_complain(b, "the message does not name it: %.150s", error.message);
    }
    bench_line(b, "a folder that %s is refused by its name", what);
}

/* Below a file; and one of somebody else, for which root becomes nobody. */
static void
check_folders(struct bench *b)
{
    char path[PATH_MAX - 32];
    int fd;

    snprintf(path, sizeof path, "%s/file", b->scratch);
    fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    if (fd >= 0)
        close(fd);
    snprintf(b->dir, sizeof b->dir, "%s/engine", path);
    must_not_open(b, "cannot be made");

    snprintf(path, sizeof path, "%s/locked", b->scratch);
    snprintf(b->dir, sizeof b->dir, "%s/engine", path);
    if (mkdir(path, 0755) != 0 || mkdir(b->dir, 0755) != 0 || chmod(b->dir, 0555) != 0)
        bench_complain(b, "a folder for the check cannot be made");
    if (geteuid() == 0 && (setegid(NOBODY) != 0 || seteuid(NOBODY) != 0))
        bench_complain(b, "cannot give up the rights of root");
    must_not_open(b, "cannot be written");
}

/* --- a full disk -------------------------------------------------------------------- */

static t4_status
write_value(struct bench *b, uint64_t n, struct error *error)
{
    static uint8_t value[DISK_VALUE];
    struct t4_op op = put_op(slice_of(&n, sizeof n), slice_of(value, sizeof value));
    t4_status st;

    for (size_t i = 0; i < sizeof value; i++)
        value[i] = (uint8_t)(n * 31 + i);
    st = engine_write(b->engine, &op, 1, n, error);
    return st == T4_OK ? engine_sync(b->engine, error) : st;
}

/* The writes 1 to n are there, the next one not, or only if `maybe`. */
static void
check_values(struct bench *b, uint64_t n, bool maybe)
{
    struct t4_snap *s = bench_snap(b);
    struct t4_slice value;
    uint64_t flushed = 0;

    bench_status(b, engine_flushed(b->engine, &flushed), T4_OK, "flushed()");
    if (flushed != n && !(maybe && flushed == n + 1))
        bench_complain(b, "%llu writes came back OK, flushed() is %llu",
                       (unsigned long long)n, (unsigned long long)flushed);
    for (uint64_t i = 1; s != NULL && i <= n + 1; i++) {
        t4_status st = engine_get(b->engine, s, slice_of(&i, sizeof i), &value);

        if (st != (i <= flushed ? T4_OK : T4_E_NOTFOUND))
            bench_complain(b, "get() of write %llu of %llu gives %s",
                           (unsigned long long)i, (unsigned long long)flushed,
                           status_text(st));
        else if (st == T4_OK &&
                 (value.len != DISK_VALUE || value.data[77] != (uint8_t)(i * 31 + 77)))
            bench_complain(b, "write %llu has another value", (unsigned long long)i);
    }
    engine_snap_end(b->engine, s);
}

/* A limit on the size of files fails as a full disk does: a write is cut short. */
static void
check_full_disk(struct bench *b)
{
    struct rlimit before, limit;
    struct error error = {0};
    t4_status st = T4_OK;
    uint64_t n = 0;

    signal(SIGXFSZ, SIG_IGN);
    getrlimit(RLIMIT_FSIZE, &before);
    limit = (struct rlimit){DISK_BYTES + 1000, before.rlim_max};
    setrlimit(RLIMIT_FSIZE, &limit);
    while (n < 2000 && (st = write_value(b, n + 1, &error)) == T4_OK)
        n++;
    setrlimit(RLIMIT_FSIZE, &before);
    if (st == T4_OK) {
        check_note(b->check, "its files never grow to 2 MiB: no full disk was seen");
        return;
    }
    if (st != T4_E_NOSPACE && st != T4_E_IO)
        bench_complain(b, "it gives %s: %.150s", status_text(st), error.message);
    bench_line(b, "a full disk: an error (%s) after %llu writes", status_text(st),
               (unsigned long long)n);
    check_values(b, n, true);
    bench_line(b, "everything written before is read");
    bench_close(b);
    if (!bench_open(b))
        return;
    check_values(b, n, true);
    if (engine_flushed(b->engine, &n) == T4_OK)
        bench_status(b, write_value(b, n + 1, NULL), T4_OK, "write() and sync()");
    check_values(b, n + 1, false);
    bench_close(b);
    bench_line(b, "with room again it opens, has what was synced, and takes writes");
}

void
engine_faults(struct bench *b)
{
    if (!bench_load(b))
        return;
    if (b->plugin != NULL)
        check_memory(b);
    if (!b->durable)
        return;
    snprintf(b->dir, sizeof b->dir, "%s/full", b->scratch);
    if (bench_open(b))
        check_full_disk(b);
    check_folders(b); /* last: the rights are gone afterwards */
}

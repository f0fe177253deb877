/*
 * engine_crash.c - a process that writes is killed, again and again; then what is there is a
 * prefix of its writes with everything before the last sync().
 *
 * SIGKILL leaves what was given to the operating system, so this finds what an engine keeps
 * back in its process, torn files and what cannot be opened again.  It does not find a
 * missing fsync(): only a power failure does.
 *
 * Write i follows from i and the seed.  The writer says in shared memory how far it came.
 *
 * Entry point: engine_crash().  Runs on: the check's first process, which never loads the
 * plugin; writer and looker are children.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>

#include "base/memory.h"
#include "base/slice.h"
#include "check/engine_int.h"

#define CRASH_KEYS 300
#define CRASH_OPS 20
#define DEADLINE_S 120

/* What write number i does to the keys. */
static size_t
ops_of(const struct keys *k, uint64_t seed, uint64_t i, uint64_t *state,
       struct t4_op *ops)
{
    struct chance c = {seed ^ i * 0x9e3779b97f4a7c15u};
    size_t n = 1 + chance_below(&c, CRASH_OPS);

    for (size_t o = 0; o < n; o++) {
        size_t at = chance_below(&c, k->n);
        bool deletes = chance_below(&c, 3) == 0;

        /* The array holds a key's last value; earlier ones in a write do not matter. */
        state[at] = deletes ? 0 : i;
        ops[o] = deletes ? delete_op(k->key[at])
                         : put_op(k->key[at], slice_of(&state[at], sizeof state[at]));
    }
    return n;
}

static void
make_keys(struct bench *b, struct keys *k)
{
    struct chance c = {b->check->options->seed};

    keys_make(k, CRASH_KEYS, &c);
}

/* In the child that is killed. */
static void
writer_part(struct bench *b)
{
    struct shared *sh = b->shared;
    uint64_t *state = mem_zalloc(CRASH_KEYS * sizeof *state);
    uint64_t first = sh->flushed;
    struct t4_op ops[CRASH_OPS];
    struct keys keys;

    make_keys(b, &keys);
    if (!bench_load(b) || !bench_open(b))
        return;
    for (uint64_t i = 1;; i++) {
        struct error error = {0};
        size_t n = ops_of(&keys, b->check->options->seed, i, state, ops);
        bool more;

        if (i <= first)
            continue;
        if (engine_write(b->engine, ops, n, i, &error) != T4_OK)
            break;
        atomic_store(&sh->written, i);
        if (i % 7 == 0 && engine_defragment(b->engine, &more, &error) != T4_OK)
            break;
        if (chance_below(&b->chance, 4) == 0) {
            if (engine_sync(b->engine, &error) != T4_OK)
                break;
            atomic_store(&sh->synced, i);
        }
    }
}

/* In a child of its own: a later one loads the plugin anew, too. */
static void
looker_part(struct bench *b)
{
    struct shared *sh = b->shared;
    uint64_t *state = mem_zalloc(CRASH_KEYS * sizeof *state);
    uint64_t written = atomic_load(&sh->written), synced = atomic_load(&sh->synced);
    struct t4_slice key, value;
    struct t4_op ops[CRASH_OPS];
    struct t4_iter *it = NULL;
    struct t4_snap *s = NULL;
    struct error error = {0};
    struct keys k;
    size_t at = 0;

    make_keys(b, &k);
    if (!bench_load(b))
        return;
    if (bench_try_open(b, &error) != T4_OK)
        bench_complain(b, "it does not open: %.200s", error.message);
    else if ((s = bench_snap(b)) != NULL && (it = bench_iter(b, s)) != NULL)
        bench_status(b, engine_flushed(b->engine, &sh->flushed), T4_OK, "flushed()");
    if (sh->flushed < synced || sh->flushed > written + 1)
        bench_complain(b, "write %llu was synced, %llu came back, flushed() is %llu",
                       (unsigned long long)synced, (unsigned long long)written,
                       (unsigned long long)sh->flushed);
    for (uint64_t i = 1; i <= sh->flushed; i++)
        ops_of(&k, b->check->options->seed, i, state, ops);
    while (b->complaint[0] == '\0' && engine_next(b->engine, it, &key, &value) == T4_OK) {
        while (at < k.n && state[at] == 0)
            at++;
        if (at >= k.n || !slice_equal(key, k.key[at]) ||
            !slice_equal(value, slice_of(&state[at], sizeof state[at])))
            bench_complain(b,
                           "flushed() is %llu, but key %zu is not as that write left it",
                           (unsigned long long)sh->flushed, at);
        at++;
    }
    while (at < k.n && state[at] == 0)
        at++;
    if (at < k.n)
        bench_complain(b, "flushed() is %llu, but key %zu is missing",
                       (unsigned long long)sh->flushed, at);
    memcpy(sh->complaint, b->complaint, sizeof sh->complaint);
    if (b->engine != NULL) {
        engine_iter_end(b->engine, it);
        engine_snap_end(b->engine, s);
        bench_close(b);
    }
}

/* Until the writer has come to `target`; false: it ended before, or is too slow. */
static bool
wait_for_writer(struct bench *b, int pid, uint64_t target)
{
    uint64_t end = check_now_ns() + DEADLINE_S * NS_PER_S;
    int status;

    while (atomic_load(&b->shared->written) < target) {
        if (waitpid(pid, &status, WNOHANG) == pid)
            return bench_complain(b, "the writer ended by itself");
        if (check_now_ns() > end)
            break;
        nanosleep(&(struct timespec){.tv_nsec = 20000}, NULL);
    }
    /* Not always right behind a write. */
    nanosleep(&(struct timespec){.tv_nsec = (long)chance_below(&b->chance, 3000000)},
              NULL);
    kill(pid, SIGKILL);
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        continue;
    return atomic_load(&b->shared->written) >= target ||
           bench_complain(b, "the writer has not come to write %llu in %d s",
                          (unsigned long long)target, DEADLINE_S);
}

void
engine_crash(struct bench *b)
{
    unsigned kills = 4 + b->check->options->rounds / 6, done = 0;
    struct shared *sh = b->shared;
    int killed;

    sh->flushed = 0;
    sh->complaint[0] = '\0';
    atomic_store(&sh->written, 0);
    atomic_store(&sh->synced, 0);
    if (!sh->durable) { /* as a part before this one found */
        check_note(b->check, "the engine does not claim to be durable: nothing to see");
        return;
    }
    while (done < kills && b->complaint[0] == '\0') {
        uint64_t target = sh->flushed + 1 + chance_below(&b->chance, 40);
        int pid = bench_child_start(b, writer_part);

        if (pid < 0 || !wait_for_writer(b, pid, target))
            break;
        if (!bench_child(b, looker_part, &killed))
            bench_complain(b, "the process that looked was ended by signal %d", killed);
        if (b->complaint[0] == '\0')
            memcpy(b->complaint, sh->complaint, sizeof b->complaint);
        atomic_store(&sh->written, sh->flushed);
        atomic_store(&sh->synced, sh->flushed);
        done++;
    }
    bench_line(
        b,
        "killed %u times: a prefix of the writes is there (%llu in the end) with all "
        "before the last sync()",
        done, (unsigned long long)sh->flushed);
}

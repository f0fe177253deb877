/*
 * engine_races.c - snapshots taken and read on many threads beside one writer, and in another
 * process than the writer's.
 *
 * Write number g deletes every third key, starting with g % 3, and gives the others the
 * value of g; the key "turn" says what g is.  So one look tells whether a snapshot is whole,
 * and a second one whether it has changed.
 *
 * Entry points: engine_races(), engine_reading().  Runs on: the thread of the part, which
 * writes, and READERS; engine_reading() in the check's first process and two children.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>

#include "base/memory.h"
#include "base/slice.h"
#include "check/engine_int.h"
#include "env/thread.h"

#define READERS 4
#define RACE_KEYS 200
#define TURN_KEY slice_str("\x80turn")

struct race {
    struct bench *bench;
    struct keys keys;
    _Atomic bool done;
};

struct reader {
    struct race *race;
    struct thread thread;
    uint64_t snapshots, turn; /* of the last snapshot */
    char wrong[128];
};

/* Reads it all; *turn: what it says of itself. */
static bool
is_whole(struct race *r, struct t4_snap *s, uint64_t *turn)
{
    struct engine *e = r->bench->engine;
    struct t4_slice key, value;
    struct t4_iter *it;
    bool good = true;
    size_t at = 0;

    if (engine_get(e, s, TURN_KEY, &value) != T4_OK || value.len != 8 ||
        engine_iter(e, s, &it) != T4_OK)
        return false;
    memcpy(turn, value.data, 8);
    while (good && engine_next(e, it, &key, &value) == T4_OK) {
        if (slice_equal(key, TURN_KEY))
            continue;
        at += at % 3 == *turn % 3;
        good = at < r->keys.n && slice_equal(key, r->keys.key[at]) && value.len == 8 &&
               memcmp(value.data, turn, 8) == 0;
        at++;
    }
    at += at % 3 == *turn % 3;
    engine_iter_end(e, it);
    return good && at >= r->keys.n;
}

static void *
reader_main(void *arg)
{
    struct reader *r = arg;
    struct race *race = r->race;

    while ((!atomic_load(&race->done) || r->snapshots == 0) && r->wrong[0] == '\0') {
        uint64_t turn = 0, again = 0;
        struct t4_snap *s;

        if (engine_snap(race->bench->engine, &s) != T4_OK) {
            snprintf(r->wrong, sizeof r->wrong, "no snapshot");
            break;
        }
        if (!is_whole(race, s, &turn) || !is_whole(race, s, &again) || turn != again)
            snprintf(r->wrong, sizeof r->wrong, "a snapshot of write %llu is not whole",
                     (unsigned long long)turn);
        else if (turn < r->turn)
            snprintf(r->wrong, sizeof r->wrong, "write %llu is seen after write %llu",
                     (unsigned long long)turn, (unsigned long long)r->turn);
        r->turn = turn;
        engine_snap_end(race->bench->engine, s);
        r->snapshots++;
    }
    return NULL;
}

static void
write_turn(struct race *r, struct t4_op *ops, uint64_t turn)
{
    struct t4_slice value = slice_of(&turn, sizeof turn);
    bool more;

    for (size_t i = 0; i < r->keys.n; i++)
        ops[i] =
            i % 3 == turn % 3 ? delete_op(r->keys.key[i]) : put_op(r->keys.key[i], value);
    ops[r->keys.n] = put_op(TURN_KEY, value);
    bench_write(r->bench, ops, r->keys.n + 1, turn, turn % 4 == 0);
    engine_defragment(r->bench->engine, &more, NULL);
}

void
engine_races(struct bench *b)
{
    uint64_t turns = 4 * (uint64_t)b->check->options->rounds, snapshots = 0;
    struct reader readers[READERS] = {0};
    struct race r = {.bench = b};
    struct t4_op *ops;

    if (!bench_load(b) || !bench_open(b))
        return;
    keys_make(&r.keys, RACE_KEYS, &b->chance);
    ops = mem_alloc((r.keys.n + 1) * sizeof *ops);
    write_turn(&r, ops, 1);
    for (int i = 0; i < READERS; i++) {
        readers[i].race = &r;
        thread_start(&readers[i].thread, "check-reader", reader_main, &readers[i]);
    }
    for (uint64_t turn = 2; turn <= turns && b->complaint[0] == '\0'; turn++)
        write_turn(&r, ops, turn);
    atomic_store(&r.done, true);
    for (int i = 0; i < READERS; i++) {
        thread_join(&readers[i].thread);
        snapshots += readers[i].snapshots;
        if (readers[i].wrong[0] != '\0')
            bench_complain(b, "%s", readers[i].wrong);
    }
    bench_line(b,
               "%d readers beside a writer of %llu writes: %llu snapshots, each whole, "
               "unchanged, and none older than the one before",
               READERS, (unsigned long long)turns, (unsigned long long)snapshots);
    bench_close(b);
    mem_free(ops);
    keys_free(&r.keys);
}

/* --- another process ---------------------------------------------------------------- */

/* Writes until it is killed. */
static void
writer_part(struct bench *b)
{
    struct race r = {.bench = b};
    struct t4_op *ops;

    if (!bench_load(b) || !bench_open(b))
        return;
    keys_make(&r.keys, RACE_KEYS, &b->chance);
    ops = mem_alloc((r.keys.n + 1) * sizeof *ops);
    for (uint64_t turn = 1; b->complaint[0] == '\0'; turn++) {
        write_turn(&r, ops, turn);
        atomic_store(&b->shared->written, turn);
    }
}

/* Until the writer has come further than that; for want of it, for a minute. */
static void
wait_for_writes(struct shared *sh, uint64_t known)
{
    uint64_t end = check_now_ns() + 60 * NS_PER_S;

    while (atomic_load(&sh->written) <= known && check_now_ns() < end)
        thread_yield_to_others();
}

/* Sees whole writes: what came back before it opened, and nothing older than it has seen. */
static void
reading_part(struct bench *b)
{
    struct shared *sh = b->shared;
    struct race r = {.bench = b};
    uint64_t turn = 0, snapshots = 0;
    char dir[PATH_MAX + 8];
    struct error error = {0};
    struct engine *e;

    if (!bench_load(b))
        return;
    keys_make(&r.keys, RACE_KEYS, &b->chance);
    snprintf(dir, sizeof dir, "%s/none", b->dir);
    bench_status(
        b, engine_open_reading(&b->ops, bench_state(b), b->engine_name, dir, &e, &error),
        T4_E_NOTFOUND, "open_reading() of a folder that is not there");
    wait_for_writes(sh, 0);
    for (unsigned i = 0; i < 10 && b->complaint[0] == '\0'; i++) {
        uint64_t least = atomic_load(&sh->written);

        if (engine_open_reading(&b->ops, bench_state(b), b->engine_name, b->dir,
                                &b->engine, &error) != T4_OK) {
            bench_complain(b, "%.200s", error.message);
            break;
        }
        for (unsigned k = 0; k < 20 && b->complaint[0] == '\0'; k++) {
            uint64_t known = atomic_load(&sh->written);
            struct t4_snap *s = bench_snap(b);

            if (s != NULL && !is_whole(&r, s, &turn))
                bench_complain(b, "a snapshot of write %llu is not whole",
                               (unsigned long long)turn);
            else if (turn < least)
                bench_complain(b, "write %llu had come back or was seen, %llu is seen",
                               (unsigned long long)least, (unsigned long long)turn);
            least = turn;
            engine_snap_end(b->engine, s);
            snapshots++;
            if (k % 5 == 0)
                wait_for_writes(sh, known);
        }
        bench_close(b);
    }
    bench_line(
        b,
        "open_reading() beside a process that writes: %llu snapshots, each whole and "
        "new",
        (unsigned long long)snapshots);
}

void
engine_reading(struct bench *b)
{
    int killed, writer, status;

    if (!b->shared->reads) {
        check_note(b->check, "the engine has no open_reading()");
        return;
    }
    atomic_store(&b->shared->written, 0);
    writer = bench_child_start(b, writer_part);
    if (!bench_child(b, reading_part, &killed))
        check_ok(b->check, false, "open_reading(): the engine goes through it");
    if (writer < 0)
        return;
    kill(writer, SIGKILL);
    while (waitpid(writer, &status, 0) < 0 && errno == EINTR)
        continue;
}

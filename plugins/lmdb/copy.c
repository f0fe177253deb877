/*
 * copy.c - defragmentation: everything goes into a new file, which takes the old one's place.
 *
 * Step by step, so that writes go on between two steps and reads all the time.  A step copies
 * records in the order of keys from a snapshot, up to lmdb.copy_step bytes, in one synced transaction,
 * and notes the last key.  What is written in between goes into the old file and, as far as it
 * is at or below that key, into the new one; what is above it is met by a later step, which
 * copies twice of what was written since, lest the end runs away from it.  The last
 * step renames the new file to data.mdb; snapshots of the old one finish on that, and with the
 * last of them its space is free.
 *
 * Keys come in ascending order, so LMDB fills the pages of `keys` (MDB_APPEND).
 *
 * A crash leaves the old file, and a part of the new one under another name, which the next
 * start removes; or, after the rename, the new one.  Both hold the same.
 *
 * LMDB keeps a lock file for each environment, found by name, with the slots of its readers.
 * It goes with its file, and first: who opens both in between (store_open_reading(), in another
 * process) reads the old file, which is not written to any more, so that no slot is needed.
 *
 * Entry points: store_defragment(), copy_follow(), copy_drop(): the writer's thread;
 * copy_clean(): open.
 *
 * Invariants
 *  (1) the new file holds exactly the current records with keys at or below `position`
 *  (2) a failure of the new file never fails a write; the next step tells it
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "store.h"

#include <errno.h>
#include <stdio.h>
#include <sys/statvfs.h>
#include <unistd.h>

#define ROOM_LEFT ((uint64_t)32 << 20) /* of the file system, for the log and others */
#define COPY_NAME "data.mdb.new"
#define LOCK_NAME COPY_NAME "-lock" /* LMDB's choice */
#define PATH_BYTES 4200

struct copy {
    struct environment *to;
    struct state state; /* of the new file */
    int failed;         /* number of what failed in copy_follow() */
    uint64_t written;   /* bytes of operations since the last step */
    size_t position_len;
    uint8_t position[MAX_KEY]; /* the last key copied */
};

/* --- files -------------------------------------------------------------------------- */

static void
path_of(const char *dir, const char *name, char out[PATH_BYTES])
{
    snprintf(out, PATH_BYTES, "%s/%s", dir, name);
}

int
copy_clean(const char *dir)
{
    static const char *const name[] = {COPY_NAME, LOCK_NAME};
    char path[PATH_BYTES];

    for (size_t i = 0; i < sizeof name / sizeof name[0]; i++) {
        path_of(dir, name[i], path);
        if (unlink(path) != 0 && errno != ENOENT)
            return errno;
    }
    return 0;
}

void
copy_drop(struct t4_engine *e)
{
    const struct t4_host *host = e->store->host;
    struct copy *c = e->copy;

    if (c == NULL)
        return;
    if (c->to != NULL)
        environment_close(e->store, c->to);
    copy_clean(e->dir); /* what it cannot remove, the next start does */
    host->free(host, c);
    e->copy = NULL;
}

/*
 * Is there room for what is still to be copied?  Asked before each step: a copy that fills the
 * disk would stop the log, which is worse than a large file.
 */
static t4_status
check_room(struct t4_engine *e, struct t4_call *call, uint64_t copied)
{
    const struct t4_host *host = e->store->host;
    uint64_t file, in_use, records, free_bytes;
    struct statvfs fs;
    char why[200];
    int rc = environment_stats(e->current, &file, &in_use, &records);

    if (rc == 0 && statvfs(e->dir, &fs) != 0)
        rc = errno;
    if (rc != 0)
        return store_fail(e, e->current, call, rc, "cannot see how much room there is");
    free_bytes = (uint64_t)fs.f_bavail * fs.f_frsize;
    in_use = in_use > copied ? in_use - copied : 0;
    if (free_bytes >= in_use + ROOM_LEFT)
        return T4_OK;
    snprintf(why, sizeof why,
             "%llu MiB are still to be copied, and %llu MiB kept free for the log; %llu "
             "MiB are free",
             (unsigned long long)(in_use >> 20), (unsigned long long)(ROOM_LEFT >> 20),
             (unsigned long long)(free_bytes >> 20));
    return host->fail(call, T4_E_NOSPACE, "no room for a smaller copy of data.mdb", why,
                      "make room on that file system, then defragment again; until then "
                      "free pages within the file are used again");
}

/* --- the copy ----------------------------------------------------------------------- */

static int
compare(struct t4_slice a, struct t4_slice b)
{
    size_t n = a.len < b.len ? a.len : b.len;
    int order = n > 0 ? memcmp(a.data, b.data, n) : 0;

    return order != 0 ? order : a.len < b.len ? -1 : a.len > b.len;
}

static bool
is_copied(const struct copy *c, struct t4_slice key)
{
    return compare(key, (struct t4_slice){c->position, c->position_len}) <= 0;
}

void
copy_follow(struct t4_engine *e, const struct t4_op *ops, size_t n)
{
    struct copy *c = e->copy;
    struct writer w = {0};
    int rc = 0;

    for (size_t i = 0; i < n && rc == 0 && c->failed == 0; i++) {
        c->written += ops[i].key.len + ops[i].value.len;
        if (!is_copied(c, ops[i].key))
            continue;
        if (w.txn == NULL)
            rc = writer_begin(&w, c->to, &c->state);
        if (rc == 0)
            rc = ops[i].kind == T4_OP_PUT ? writer_put(&w, ops[i].key, ops[i].value)
                                          : writer_delete(&w, ops[i].key);
    }
    if (w.txn == NULL && rc == 0)
        return;
    if (rc != 0)
        writer_abort(&w);
    else
        rc = writer_commit(&w);
    if (rc == 0)
        c->state = w.state;
    else
        c->failed = rc; /* (2) */
}

static t4_status
begin(struct t4_engine *e, struct t4_call *call)
{
    const struct t4_host *host = e->store->host;
    char path[PATH_BYTES];
    t4_status st = check_room(e, call, 0);
    int rc;

    if (st != T4_OK)
        return st;
    e->copy = host->alloc(host, sizeof *e->copy);
    if (e->copy == NULL)
        return T4_E_NOMEM;
    memset(e->copy, 0, sizeof *e->copy);
    path_of(e->dir, COPY_NAME, path);
    rc = copy_clean(e->dir);
    if (rc == 0)
        rc =
            environment_open(e->store, path, MDB_NOSUBDIR, &e->copy->to, &e->copy->state);
    return rc == 0
               ? T4_OK
               : store_fail(e, e->current, call, rc, "cannot begin a copy of data.mdb");
}

/* Copies from the position on; NOTFOUND of *st: that was the last record. */
static int
copy_records(struct copy *c, struct t4_iter *it, struct writer *w, uint64_t most,
             t4_status *st)
{
    struct t4_slice from = {c->position, c->position_len}, key, value;
    uint64_t bytes = 0;
    int rc = 0;

    *st = store_seek(it, from, &key, &value);
    if (*st == T4_OK && compare(key, from) == 0)
        *st = store_next(it, &key, &value);
    while (*st == T4_OK && bytes < most) {
        if (key.len > MAX_KEY)
            return MDB_CORRUPTED;
        rc = writer_put(w, key, value);
        if (rc != 0)
            return rc;
        bytes += key.len + value.len;
        memcpy(c->position, key.data, key.len);
        c->position_len = key.len;
        *st = store_next(it, &key, &value);
    }
    return 0;
}

static t4_status
step(struct t4_engine *e, struct t4_call *call, bool *end)
{
    struct copy *c = e->copy;
    struct environment *from = e->current;
    uint64_t most = e->store->copy_step;
    struct t4_snap *snap;
    struct t4_iter *it;
    struct writer w;
    t4_status st = store_snap(e, &snap), read = T4_OK;
    int rc;

    if (st != T4_OK)
        return st;
    st = store_iter(snap, &it);
    if (st != T4_OK) {
        store_snap_end(snap);
        return st;
    }
    rc = writer_begin(&w, c->to, &c->state);
    if (rc == 0) {
        w.append = MDB_APPEND;
        most = most > 2 * c->written ? most : 2 * c->written;
        rc = copy_records(c, it, &w, most, &read);
        c->written = 0;
        w.state.flushed = e->committed.flushed;
        if (rc == 0 && (read == T4_OK || read == T4_E_NOTFOUND))
            rc = writer_commit(&w);
        else
            writer_abort(&w);
    }
    store_iter_end(it);
    store_snap_end(snap);
    if (rc != 0)
        return store_fail(e, c->to, call, rc, "cannot write a copy of data.mdb");
    if (read != T4_OK && read != T4_E_NOTFOUND)
        return store_fail(e, from, call, MDB_CORRUPTED, "cannot read data.mdb");
    c->state = w.state;
    *end = read == T4_E_NOTFOUND;
    return T4_OK;
}

/* The new file takes the old one's place. */
static t4_status
take_over(struct t4_engine *e, struct t4_call *call)
{
    const struct t4_host *host = e->store->host;
    struct copy *c = e->copy;
    struct environment *old = e->current;
    struct t4_snap *idle;
    char from[PATH_BYTES], to[PATH_BYTES];
    int rc;

    path_of(e->dir, LOCK_NAME, from);
    path_of(e->dir, "lock.mdb", to);
    if (rename(from, to) != 0)
        return store_fail(e, c->to, call, errno, "cannot rename the copy's lock file");
    /*
     * From here on a failure is the end: the old file has lost its lock file's name, and a
     * crash may show either file, of which only one is written to.
     */
    path_of(e->dir, COPY_NAME, from);
    path_of(e->dir, "data.mdb", to);
    rc = rename(from, to) != 0 ? errno : sync_folder(e->dir);
    if (rc != 0)
        return host->fail(call, T4_E_IO, "cannot give the copy of data.mdb its name",
                          mdb_strerror(rc),
                          "check the disk; start again once it is well");
    e->committed = c->state;
    pthread_mutex_lock(&e->lock);
    e->current = c->to;
    idle = e->idle;
    e->idle = NULL;
    e->n_idle = 0;
    pthread_mutex_unlock(&e->lock);
    store_snaps_close(idle);
    environment_release(e, old);
    c->to = NULL;
    copy_drop(e);
    return T4_OK;
}

t4_status
store_defragment(struct t4_engine *e, struct t4_call *call, int32_t *more)
{
    bool end = false;
    uint64_t file = 0, in_use = 0, records;
    t4_status st = T4_OK;

    *more = 0;
    if (e->copy == NULL)
        st = begin(e, call);
    if (st == T4_OK && e->copy->failed != 0)
        st = store_fail(e, e->copy->to, call, e->copy->failed,
                        "cannot write a copy of data.mdb");
    if (st == T4_OK && environment_stats(e->copy->to, &file, &in_use, &records) == 0)
        st = check_room(e, call, in_use);
    if (st == T4_OK)
        st = step(e, call, &end);
    if (st == T4_OK && end)
        st = take_over(e, call);
    if (st != T4_OK)
        copy_drop(e);
    *more = st == T4_OK && !end;
    return st;
}

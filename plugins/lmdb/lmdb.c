/*
 * lmdb.c - the LMDB storage engine: descriptor, open, close, stats, error texts.
 *
 * The environment is dir/data.mdb with dir/lock.mdb; the host guarantees one process for
 * each.  Creating it cannot be atomic with LMDB's own calls: the two meta pages are
 * written first and synced with the first transaction.  A file that a crash left before
 * that point holds nothing and is begun again; see file_is_unfinished().
 *
 * Entry point: t4_plugin_v1().  Runs on: load, open, close: the host's main thread;
 * stats: any.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "store.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#define MAX_READERS 4096 /* 64 bytes each in the lock file */
#define MAX_PATH 4096

/* --- errors ------------------------------------------------------------------------- */

t4_status
store_status(int rc)
{
    switch (rc) {
    case 0: return T4_OK;
    case MDB_NOTFOUND: return T4_E_NOTFOUND;
    case MDB_MAP_FULL:
    case ENOSPC:
    case EDQUOT:
    case EFBIG: return T4_E_NOSPACE;
    case MDB_CORRUPTED:
    case MDB_PAGE_NOTFOUND:
    case MDB_INVALID: return T4_E_CORRUPT;
    case MDB_VERSION_MISMATCH: return T4_E_UNSUPPORTED;
    case MDB_BAD_VALSIZE: return T4_E_INVALID;
    case MDB_READERS_FULL: return T4_E_BUSY;
    case ENOMEM: return T4_E_NOMEM;
    case EACCES:
    case EPERM: return T4_E_DENIED;
    }
    return rc > 0 || rc == MDB_PANIC ? T4_E_IO : T4_E_INTERNAL;
}

/*
 * LMDB reports a write that was cut short as EIO.  On a full disk, or at the process's
 * limit for file sizes, that is what it was.
 */
static int
explain_eio(const struct environment *environment)
{
    struct statvfs fs;
    struct rlimit limit;
    struct stat st;
    int fd;

    if (environment == NULL || mdb_env_get_fd(environment->env, &fd) != 0)
        return EIO;
    if (fstatvfs(fd, &fs) == 0 && (uint64_t)fs.f_bavail * fs.f_frsize < (1u << 20))
        return ENOSPC;
    if (fstat(fd, &st) == 0 && getrlimit(RLIMIT_FSIZE, &limit) == 0 &&
        limit.rlim_cur != RLIM_INFINITY && (uint64_t)st.st_size >= limit.rlim_cur)
        return EFBIG;
    return EIO;
}

t4_status
store_fail(const struct t4_engine *e, const struct environment *environment,
           struct t4_call *call, int rc, const char *what)
{
    const char *hint = NULL;
    char message[1024], full[256];

    if (rc == EIO)
        rc = explain_eio(environment);
    switch (store_status(rc)) {
    case T4_E_NOSPACE:
        hint = rc == MDB_MAP_FULL
                   ? "raise the setting lmdb.map_size and start again; reading goes on"
                   : "make room on that file system; reading goes on";
        break;
    case T4_E_CORRUPT:
    case T4_E_UNSUPPORTED:
        hint = "it is a cache: with the server stopped, remove that folder; the server "
               "builds "
               "it again from its log";
        break;
    case T4_E_NOMEM:
        hint = "lower the setting lmdb.map_size or raise the limit of address space "
               "(ulimit -v)";
        break;
    case T4_E_DENIED:
        hint = "the folder and its files must belong to the server's user";
        break;
    case T4_E_IO:
        if (rc == EIO || rc == MDB_PANIC)
            hint = "check the disk; start again once it is well";
        break;
    default: break;
    }
    full[0] = '\0';
    if (rc == MDB_MAP_FULL)
        snprintf(full, sizeof full, "the map of %llu bytes (lmdb.map_size) is full",
                 (unsigned long long)e->store->map_size);
    snprintf(message, sizeof message, "%s: %s", e->dir, what);
    return e->store->host->fail(call, store_status(rc), message,
                                full[0] != '\0' ? full : mdb_strerror(rc), hint);
}

/* --- the files ---------------------------------------------------------------------- */

int
sync_folder(const char *path)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC), rc = 0;

    if (fd < 0)
        return errno;
    if (fsync(fd) != 0)
        rc = errno;
    close(fd);
    return rc;
}

static int
make_folder(const char *path)
{
    char parent[MAX_PATH + 8];
    char *slash;

    if (mkdir(path, 0700) != 0)
        return errno == EEXIST ? 0 : errno;
    snprintf(parent, sizeof parent, "%s", path);
    for (size_t n = strlen(parent); n > 1 && parent[n - 1] == '/'; n--)
        parent[n - 1] = '\0';
    slash = strrchr(parent, '/');
    if (slash == NULL)
        return sync_folder(".");
    slash[slash == parent] = '\0';
    return sync_folder(parent);
}

/* The first n bytes of the file, or all there are; the rest of `data` stays as it is. */
static int
read_start(int fd, uint8_t *data, size_t n)
{
    size_t got = 0;
    ssize_t r;

    while (got < n && (r = pread(fd, data + got, n - got, (off_t)got)) != 0) {
        if (r > 0)
            got += (size_t)r;
        else if (errno != EINTR)
            return errno;
    }
    return 0;
}

/*
 * *unfinished: the file holds nothing because a crash came before its first transaction.
 * Of LMDB's format this uses: a meta page is a head of 16 bytes, then magic number (4
 * bytes) ... and, last of 136 bytes, the number of the transaction it belongs to; the
 * rest of the page is zero.  The first transaction, number 1, is valid only when both
 * meta pages and all of its own pages have been synced.  So without a meta page of number
 * >= 1 nothing was ever stored; and a file in which anything else stands in these pages
 * is not ours to begin again.  Nor is one that cannot be read: then the reason is returned.
 */
static int
file_is_unfinished(int fd, size_t page, bool *unfinished)
{
    enum { MAGIC_AT = 16, NUMBER_AT = 16 + 128, META_END = 16 + 136 };
    static const uint8_t magic[4] = {0xde, 0xc0, 0xef, 0xbe};
    uint8_t *data = calloc(2, page);
    struct stat st;
    int rc = data == NULL ? ENOMEM : fstat(fd, &st) != 0 ? errno : 0;

    *unfinished = rc == 0 && (uint64_t)st.st_size <= 32 * page;
    if (*unfinished)
        rc = read_start(fd, data, 2 * page);
    for (int i = 0; i < 2 && rc == 0 && *unfinished; i++) {
        const uint8_t *p = data + (size_t)i * page;

        if (memcmp(p + MAGIC_AT, magic, 4) == 0 && load_u64(p + NUMBER_AT) > 0)
            *unfinished = false;
        for (size_t at = META_END; at < page && *unfinished; at++)
            *unfinished = p[at] == 0;
    }
    free(data);
    return rc;
}

static int
begin_again_if_unfinished(const char *dir)
{
    char path[MAX_PATH + 16];
    bool unfinished;
    int fd, rc;

    snprintf(path, sizeof path, "%s/data.mdb", dir);
    fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0)
        return errno == ENOENT ? 0 : errno;
    rc = file_is_unfinished(fd, (size_t)sysconf(_SC_PAGESIZE), &unfinished);
    if (rc == 0 && unfinished && (ftruncate(fd, 0) != 0 || fsync(fd) != 0))
        rc = errno;
    close(fd);
    return rc;
}

/* --- open and close ----------------------------------------------------------------- */

/* MDB_RDONLY: beside a server; the map is as large as the file says then. */
static int
open_file(const struct store *store, const char *path, unsigned flags, MDB_env *env)
{
    int dead, rc = 0;

    if (!(flags & MDB_RDONLY))
        rc = mdb_env_set_mapsize(env, store->map_size);
    if (rc == 0)
        rc = mdb_env_set_maxreaders(env, MAX_READERS);
    if (rc == 0)
        rc = mdb_env_set_maxdbs(env, 3);
    if (rc == 0)
        rc = mdb_env_open(env, path, MDB_NOTLS | flags, 0600);
    if (rc == 0 && !(flags & MDB_RDONLY))
        rc = mdb_reader_check(env, &dead);
    return rc;
}

static int
open_tables(struct environment *environment, MDB_txn *txn, unsigned flags)
{
    int rc = mdb_dbi_open(txn, "keys", flags, &environment->keys);

    if (rc == 0)
        rc = mdb_dbi_open(txn, "layers", flags, &environment->layers);
    if (rc == 0)
        rc = mdb_dbi_open(txn, "state", flags, &environment->state);
    return rc;
}

/* The tables of an environment without any; MDB_INVALID: it holds something else. */
static int
create_tables(struct environment *environment, MDB_txn *txn)
{
    struct state s = {.format = STATE_FORMAT, .next_layer = 1};
    MDB_stat st;
    MDB_dbi root;
    int rc = mdb_dbi_open(txn, NULL, 0, &root);

    if (rc == 0)
        rc = mdb_stat(txn, root, &st);
    if (rc == 0 && st.ms_entries > 0)
        rc = MDB_INVALID;
    if (rc == 0)
        rc = open_tables(environment, txn, MDB_CREATE);
    return rc == 0 ? state_save(environment, txn, &s) : rc;
}

static int
load_tables(struct environment *environment, bool reading, struct state *state)
{
    MDB_txn *txn;
    int rc = mdb_txn_begin(environment->env, NULL, reading ? MDB_RDONLY : 0, &txn);

    if (rc != 0)
        return rc;
    rc = open_tables(environment, txn, 0);
    if (rc == MDB_NOTFOUND && !reading)
        rc = create_tables(environment, txn);
    if (rc == 0)
        rc = state_load(environment, txn, state);
    if (rc == MDB_NOTFOUND)
        rc = MDB_INVALID;
    if (rc == 0 && state->format != STATE_FORMAT)
        rc = MDB_VERSION_MISMATCH;
    if (rc != 0) {
        mdb_txn_abort(txn);
        return rc;
    }
    return mdb_txn_commit(txn);
}

int
environment_open(const struct store *store, const char *path, unsigned flags,
                 struct environment **out, struct state *state)
{
    const struct t4_host *host = store->host;
    struct environment *environment = host->alloc(host, sizeof *environment);
    int rc;

    *out = NULL;
    if (environment == NULL)
        return ENOMEM;
    *environment = (struct environment){.references = 1};
    rc = mdb_env_create(&environment->env);
    if (rc != 0) {
        host->free(host, environment);
        return rc;
    }
    rc = open_file(store, path, flags, environment->env);
    if (rc == 0)
        rc = load_tables(environment, (flags & MDB_RDONLY) != 0, state);
    if (rc != 0) {
        environment_close(store, environment);
        return rc;
    }
    *out = environment;
    return 0;
}

void
environment_close(const struct store *store, struct environment *environment)
{
    mdb_env_close(environment->env);
    store->host->free(store->host, environment);
}

struct environment *
environment_hold(struct t4_engine *e)
{
    struct environment *environment;

    pthread_mutex_lock(&e->lock);
    environment = e->current;
    environment->references++;
    pthread_mutex_unlock(&e->lock);
    return environment;
}

void
environment_release(struct t4_engine *e, struct environment *environment)
{
    bool last;

    pthread_mutex_lock(&e->lock);
    last = --environment->references == 0;
    pthread_mutex_unlock(&e->lock);
    if (last)
        environment_close(e->store, environment);
}

static void
store_close(struct t4_engine *e)
{
    const struct t4_host *host = e->store->host;

    copy_drop(e);
    store_snaps_close(e->idle);
    if (e->current != NULL)
        environment_release(e, e->current);
    pthread_mutex_destroy(&e->lock);
    host->free(host, e->dir);
    host->free(host, e);
}

/* A handle without an environment; NULL and *st: why not. */
static struct t4_engine *
handle_new(const struct store *store, struct t4_call *call, struct t4_slice dir,
           t4_status *st)
{
    const struct t4_host *host = store->host;
    struct t4_engine *e;

    if (dir.len == 0 || dir.len >= MAX_PATH || memchr(dir.data, 0, dir.len) != NULL) {
        *st = host->fail(call, T4_E_INVALID, "the engine's folder has no usable name",
                         NULL, NULL);
        return NULL;
    }
    *st = T4_E_NOMEM;
    e = host->alloc(host, sizeof *e);
    if (e == NULL)
        return NULL;
    memset(e, 0, sizeof *e);
    e->store = store;
    pthread_mutex_init(&e->lock, NULL);
    e->dir = host->alloc(host, dir.len + 1);
    if (e->dir == NULL) {
        store_close(e);
        return NULL;
    }
    memcpy(e->dir, dir.data, dir.len);
    e->dir[dir.len] = '\0';
    *st = T4_OK;
    return e;
}

/* Closes what could not be opened whole, or gives it. */
static t4_status
opened(struct t4_engine *e, struct t4_call *call, int rc, const char *what,
       struct t4_engine **out)
{
    t4_status st;

    if (rc == 0) {
        atomic_init(&e->flushed, e->committed.flushed);
        *out = e;
        return T4_OK;
    }
    st = store_fail(e, e->current, call, rc, what);
    store_close(e);
    return st;
}

static t4_status
store_open(void *plugin, struct t4_call *call, struct t4_slice dir,
           struct t4_engine **out)
{
    const char *what = "cannot create the folder";
    t4_status st;
    struct t4_engine *e = handle_new(plugin, call, dir, &st);
    int rc;

    if (e == NULL)
        return st;
    rc = make_folder(e->dir);
    if (rc == 0) {
        what = "cannot look into data.mdb";
        rc = begin_again_if_unfinished(e->dir);
    }
    if (rc == 0) {
        what = "cannot remove an unfinished copy";
        rc = copy_clean(e->dir);
    }
    if (rc == 0) {
        what = "cannot open data.mdb as a store of this format";
        rc = environment_open(e->store, e->dir, 0, &e->current, &e->committed);
    }
    if (rc == 0) {
        what = "cannot sync the folder";
        rc = sync_folder(e->dir);
    }
    return opened(e, call, rc, what, out);
}

/* LMDB makes the file if there is none: root must not keep the server's user from it. */
static int
give_lock_away(const struct t4_engine *e, const struct stat *data)
{
    char path[MAX_PATH + 16];

    snprintf(path, sizeof path, "%s/lock.mdb", e->dir);
    return chown(path, data->st_uid, data->st_gid) == 0 || errno == EROFS ? 0 : errno;
}

/* data.mdb, and lock.mdb, whose inode is 0 if there is none. */
static int
look_at_files(const struct t4_engine *e, struct stat found[2])
{
    char path[MAX_PATH + 16];

    snprintf(path, sizeof path, "%s/data.mdb", e->dir);
    if (stat(path, &found[0]) != 0)
        return errno;
    snprintf(path, sizeof path, "%s/lock.mdb", e->dir);
    if (stat(path, &found[1]) != 0)
        found[1].st_ino = 0;
    return 0;
}

/*
 * A reader takes a slot in lock.mdb, as each of the server's own snapshots does, so that pages it
 * sees are not used again; no other lock is held meanwhile.  What it may leave there when it is
 * killed the server clears away (write.c).
 *
 * A defragmentation replaces both files (copy.c), and the slot must be in the lock file of the data
 * file that is read: if either was replaced while they were opened, they are opened again.
 */
static t4_status
store_open_reading(void *plugin, struct t4_call *call, struct t4_slice dir,
                   struct t4_engine **out)
{
    const char *what = "cannot open the environment for reading";
    struct stat before[2], after[2];
    t4_status st;
    struct t4_engine *e = handle_new(plugin, call, dir, &st);
    int rc;

    if (e == NULL)
        return st;
    do {
        if (e->current != NULL)
            environment_release(e, e->current);
        e->current = NULL;
        rc = look_at_files(e, before);
        if (rc == ENOENT || rc == ENOTDIR) {
            store_close(e);
            return T4_E_NOTFOUND;
        }
        if (rc == 0)
            rc = environment_open(e->store, e->dir, MDB_RDONLY, &e->current,
                                  &e->committed);
        if (rc == 0)
            rc = look_at_files(e, after);
        /* A lock file that was not there was made by this. */
    } while (rc == 0 && (before[0].st_ino != after[0].st_ino ||
                         (before[1].st_ino != 0 && before[1].st_ino != after[1].st_ino)));
    if (rc == 0 && geteuid() == 0) {
        what = "cannot give lock.mdb to whom data.mdb belongs";
        rc = give_lock_away(e, &after[0]);
    }
    return opened(e, call, rc, what, out);
}

/* --- small calls -------------------------------------------------------------------- */

static t4_status
store_sync(struct t4_engine *e, struct t4_call *call)
{
    (void)e; /* write() has synced */
    (void)call;
    return T4_OK;
}

static t4_status
store_flushed(struct t4_engine *e, uint64_t *out)
{
    *out = atomic_load_explicit(&e->flushed, memory_order_acquire);
    return T4_OK;
}

/* Pages of a table; *records is increased by what it holds. */
static int
count_table(MDB_txn *txn, MDB_dbi dbi, uint64_t *pages, uint64_t *records, uint64_t *page)
{
    MDB_stat st;
    int rc = mdb_stat(txn, dbi, &st);

    if (rc != 0)
        return rc;
    *pages += st.ms_branch_pages + st.ms_leaf_pages + st.ms_overflow_pages;
    *records += st.ms_entries;
    *page = st.ms_psize;
    return 0;
}

int
environment_stats(struct environment *environment, uint64_t *file, uint64_t *in_use,
                  uint64_t *records)
{
    /* LMDB's own tables are 0, the free pages, and 1, the names of ours. */
    const MDB_dbi tables[] = {environment->keys, environment->layers, 0, 1,
                              environment->state};
    uint64_t pages = 2, page = 0, all = 0, other = 0;
    struct state state;
    struct stat st;
    MDB_txn *txn;
    int fd, rc;

    rc = mdb_txn_begin(environment->env, NULL, MDB_RDONLY, &txn);
    if (rc != 0)
        return rc;
    rc = state_load(environment, txn, &state);
    for (size_t i = 0; i < sizeof tables / sizeof tables[0] && rc == 0; i++)
        rc = count_table(txn, tables[i], &pages, i < 2 ? &all : &other, &page);
    mdb_txn_abort(txn);
    if (rc == 0)
        rc = mdb_env_get_fd(environment->env, &fd);
    if (rc == 0 && fstat(fd, &st) != 0)
        rc = errno;
    if (rc != 0)
        return rc;
    *records = all - state.layers; /* links are no records of the host's */
    *file = (uint64_t)st.st_size;
    *in_use = pages * page;
    return 0;
}

static t4_status
store_stats(struct t4_engine *e, struct t4_engine_stats *out)
{
    struct environment *environment = environment_hold(e);
    int rc = environment_stats(environment, &out->file_bytes, &out->in_use_bytes,
                               &out->records);

    environment_release(e, environment);
    return store_status(rc);
}

/* --- the descriptor ----------------------------------------------------------------- */

static t4_status
load(const struct t4_host *host, struct t4_call *call, const struct t4_values *values,
     void **plugin)
{
    struct store *s = host->alloc(host, sizeof *s);

    (void)call;
    if (s == NULL)
        return T4_E_NOMEM;
    s->host = host;
    s->map_size = (uint64_t)values->value[0].number;
    s->copy_step = (uint64_t)values->value[1].number;
    *plugin = s;
    return T4_OK;
}

static void
unload(void *plugin)
{
    struct store *s = plugin;

    s->host->free(s->host, s);
}

static const struct t4_engine_ops ops = {
    .size = sizeof ops,
    .caps = T4_ENGINE_DURABLE,
    .max_key = MAX_KEY,
    .open = store_open,
    .close = store_close,
    .write = store_write,
    .sync = store_sync,
    .flushed = store_flushed,
    .snap = store_snap,
    .snap_end = store_snap_end,
    .get = store_get,
    .iter = store_iter,
    .seek = store_seek,
    .next = store_next,
    .prev = store_prev,
    .iter_end = store_iter_end,
    .stats = store_stats,
    .open_reading = store_open_reading,
    .defragment = store_defragment,
};

static const struct t4_option options[] = {
    {
        .name = "map_size",
        .type = T4_OPTION_SIZE,
        .default_value = "128 GB",
        .min = "1 MB",
        .max = "64 TB",
        .doc = "address space reserved for the data file, which cannot grow beyond it",
    },
    {
        .name = "copy_step",
        .type = T4_OPTION_SIZE,
        .default_value = "4 MB",
        .min = "1 kB",
        .max = "64 MB",
        .doc = "bytes that a defragmentation copies at a time, between writes",
    },
};

static const struct t4_role roles[] = {
    {.kind = T4_ROLE_ENGINE, .name = "lmdb", .ops = &ops},
};

const struct t4_plugin *
t4_plugin_v1(void)
{
    static const struct t4_plugin plugin = {
        T4_PLUGIN_HEAD("lmdb", "1.0", 0),
        .license = "Apache-2.0",
        .summary = "storage engine on LMDB",
        .options = options,
        .n_options = sizeof options / sizeof options[0],
        .roles = roles,
        .n_roles = sizeof roles / sizeof roles[0],
        .load = load,
        .unload = unload,
    };

    return &plugin;
}

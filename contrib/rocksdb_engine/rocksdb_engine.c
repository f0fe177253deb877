/*
 * rocksdb_engine.c - a storage engine for t4 on RocksDB, by RocksDB's C API.
 *
 * Built outside of t4's tree with the installed t4_plugin.h (see Makefile and README.md).
 *
 * Durability: each write() is one write batch, which RocksDB appends to its write-ahead log
 * before it is seen; sync() writes that log to the disk.  There is one column family, so one
 * log, and it is recovered up to the first record that is not whole: what a crash leaves is a
 * prefix of the batches, with all before the last sync().  Writing without that log and
 * flushing memtables in sync() would give the same promise, but t4 syncs every few hundred
 * kilobytes, and each time that would make a table file of its own.
 *
 * The state - the `flushed` number and how many records there are - is the value of the empty
 * key, which is no key of t4's: it travels in the same batch, so it is never torn from it.  The
 * empty key sorts before all others, so an iterator has to step over it in front only.  To
 * count records a write has to look whether each of its keys is there.
 *
 * RocksDB's iterators lend a value until they move, the contract wants it until snap_end(): it
 * is copied to the snapshot's memory.  get() keeps RocksDB's own block pinned instead.
 *
 * Entry point: t4_plugin_v1().  Runs on: write() and sync() on one thread at a time,
 * snapshots on any; RocksDB's threads in the background.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <rocksdb/c.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "t4_plugin.h"

#define MAX_KEY 65536
#define STATE_BYTES 16
#define CHUNK_BYTES 65536
#define POINT_IN_TIME_RECOVERY 2 /* rocksdb::WALRecoveryMode */
#define LOG_ERRORS_ONLY 3        /* rocksdb::InfoLogLevel */

struct rocks { /* what load() makes: the plugin */
    const struct t4_host *host;
    uint64_t write_buffer, block_cache;
};

struct state {
    uint64_t flushed, records;
};

struct t4_engine { /* what open() makes */
    const struct t4_host *host;
    rocksdb_t *db;
    rocksdb_options_t *options;
    rocksdb_writeoptions_t *unsynced;
    rocksdb_readoptions_t *newest;
    char dir[4096];
    pthread_mutex_t lock;
    struct state state; /* [lock]; changed by the writer */
};

/* Memory of a snapshot that lives as long as it does. */
struct chunk {
    struct chunk *next;
    size_t used, size;
    _Alignas(16) uint8_t bytes[];
};

struct pin {
    struct pin *next;
    rocksdb_pinnableslice_t *slice;
};

struct t4_snap { /* used by one thread at a time, with its iterators */
    struct t4_engine *engine;
    const rocksdb_snapshot_t *snapshot;
    rocksdb_readoptions_t *options;
    struct chunk *chunks; /* the newest first */
    struct pin *pins;
};

enum place { BEFORE, ON, BEHIND };
struct t4_iter {
    struct t4_snap *snap;
    rocksdb_iterator_t *it;
    enum place place; /* ON: `it` is valid and stands on a key of t4's */
};

/* --- errors ------------------------------------------------------------------------- */

/* Takes RocksDB's message over; `call` may be NULL. */
static t4_status
say(struct t4_engine *e, struct t4_call *call, const char *what, char *message)
{
    t4_status status = T4_E_IO;
    const char *hint = NULL;
    char text[8192];

    if (strstr(message, "No space left") != NULL ||
        strstr(message, "File too large") != NULL ||
        strstr(message, "Disk quota exceeded") != NULL) {
        status = T4_E_NOSPACE;
        hint = "make room on that file system, then start the server again";
    } else if (strncmp(message, "Corruption", 10) == 0) {
        status = T4_E_CORRUPT;
        hint = "stop the server and remove that folder; it is filled again from the log";
    }
    snprintf(text, sizeof text, "%s: %s", e->dir, message);
    rocksdb_free(message);
    return e->host->fail(call, status, what, text, hint);
}

/* --- the state ---------------------------------------------------------------------- */

static void
store_u64(char *p, uint64_t v)
{
    for (int i = 0; i < 8; i++)
        p[i] = (char)(v >> 8 * i);
}

static uint64_t
load_u64(const char *p)
{
    uint64_t v = 0;

    for (int i = 0; i < 8; i++)
        v |= (uint64_t)(unsigned char)p[i] << 8 * i;
    return v;
}

static t4_status
read_state(struct t4_engine *e, struct t4_call *call)
{
    char *error = NULL, *value;
    t4_status st = T4_OK;
    size_t n = 0;

    value = rocksdb_get(e->db, e->newest, "", 0, &n, &error);
    if (error != NULL)
        return say(e, call, "cannot read its state", error);
    if (value == NULL)
        return T4_OK; /* nothing was ever written */
    if (n == STATE_BYTES)
        e->state = (struct state){load_u64(value), load_u64(value + 8)};
    else
        st = e->host->fail(call, T4_E_CORRUPT, "its state is damaged", e->dir,
                           "stop the server and remove that folder");
    rocksdb_free(value);
    return st;
}

/* --- open and close ----------------------------------------------------------------- */

static void
rocks_close(struct t4_engine *e)
{
    const struct t4_host *host = e->host;

    if (e->db != NULL)
        rocksdb_close(e->db);
    if (e->options != NULL)
        rocksdb_options_destroy(e->options);
    if (e->unsynced != NULL)
        rocksdb_writeoptions_destroy(e->unsynced);
    if (e->newest != NULL)
        rocksdb_readoptions_destroy(e->newest);
    pthread_mutex_destroy(&e->lock);
    host->free(host, e);
}

static void
set_options(struct t4_engine *e, const struct rocks *plugin)
{
    rocksdb_block_based_table_options_t *table = rocksdb_block_based_options_create();
    rocksdb_cache_t *cache = rocksdb_cache_create_lru(plugin->block_cache);
    rocksdb_options_t *o = e->options = rocksdb_options_create();

    rocksdb_options_set_create_if_missing(o, 1);
    rocksdb_options_set_paranoid_checks(o, 1);
    rocksdb_options_set_wal_recovery_mode(o, POINT_IN_TIME_RECOVERY);
    rocksdb_options_set_write_buffer_size(o, plugin->write_buffer);
    rocksdb_options_set_max_background_jobs(o, 2);
    rocksdb_options_set_compression(o, rocksdb_no_compression);
    rocksdb_options_set_keep_log_file_num(o, 2);
    rocksdb_options_set_info_log_level(o, LOG_ERRORS_ONLY);
    rocksdb_options_set_stats_dump_period_sec(o, 0);
    rocksdb_options_set_stats_persist_period_sec(o, 0);
    rocksdb_block_based_options_set_block_cache(table, cache);
    rocksdb_block_based_options_set_filter_policy(table,
                                                  rocksdb_filterpolicy_create_bloom(10));
    rocksdb_options_set_block_based_table_factory(o, table);
    rocksdb_block_based_options_destroy(table);
    rocksdb_cache_destroy(cache);
    e->unsynced = rocksdb_writeoptions_create();
    e->newest = rocksdb_readoptions_create();
}

static t4_status
rocks_open(void *state, struct t4_call *call, struct t4_slice dir, struct t4_engine **out)
{
    const struct rocks *plugin = state;
    struct t4_engine *e = plugin->host->alloc(plugin->host, sizeof *e);
    char *error = NULL;
    t4_status st;

    if (e == NULL)
        return T4_E_NOMEM;
    memset(e, 0, sizeof *e);
    e->host = plugin->host;
    pthread_mutex_init(&e->lock, NULL);
    if (dir.len >= sizeof e->dir) {
        rocks_close(e);
        return T4_E_INVALID;
    }
    memcpy(e->dir, dir.data, dir.len);
    if (mkdir(e->dir, 0700) != 0 && errno != EEXIST) {
        char text[8192];

        snprintf(text, sizeof text, "%s: %s", e->dir, strerror(errno));
        st = e->host->fail(call, T4_E_IO, "cannot create the folder", text, NULL);
        rocks_close(e);
        return st;
    }
    set_options(e, plugin);
    e->db = rocksdb_open(e->options, e->dir, &error);
    if (error != NULL) {
        e->db = NULL;
        st = say(e, call, "RocksDB does not open", error);
    } else {
        st = read_state(e, call);
    }
    if (st == T4_OK)
        *out = e;
    else
        rocks_close(e);
    return st;
}

/* --- writing ------------------------------------------------------------------------ */

/* Whether the key is there, as the operations before it in the batch have left it. */
static bool
is_there(struct t4_engine *e, rocksdb_writebatch_wi_t *batch, struct t4_slice key,
         char **error)
{
    size_t n;
    char *value = rocksdb_writebatch_wi_get_from_batch_and_db(
        batch, e->db, e->newest, (const char *)key.data, key.len, &n, error);

    rocksdb_free(value);
    return value != NULL;
}

static t4_status
rocks_write(struct t4_engine *e, struct t4_call *call, const struct t4_op *ops, size_t n,
            uint64_t flushed)
{
    rocksdb_writebatch_wi_t *batch = rocksdb_writebatch_wi_create(0, 1);
    struct state next = {flushed, e->state.records};
    char bytes[STATE_BYTES], *error = NULL;

    for (size_t i = 0; i < n && error == NULL; i++) {
        const char *key = (const char *)ops[i].key.data;
        bool there = is_there(e, batch, ops[i].key, &error);

        if (ops[i].kind == T4_OP_PUT) {
            rocksdb_writebatch_wi_put(batch, key, ops[i].key.len,
                                      (const char *)ops[i].value.data, ops[i].value.len);
            next.records += !there;
        } else if (there) {
            rocksdb_writebatch_wi_delete(batch, key, ops[i].key.len);
            next.records--;
        }
    }
    store_u64(bytes, next.flushed);
    store_u64(bytes + 8, next.records);
    rocksdb_writebatch_wi_put(batch, "", 0, bytes, sizeof bytes);
    if (error == NULL)
        rocksdb_write_writebatch_wi(e->db, e->unsynced, batch, &error);
    rocksdb_writebatch_wi_destroy(batch);
    if (error != NULL)
        return say(e, call, "RocksDB does not write", error);
    pthread_mutex_lock(&e->lock);
    e->state = next;
    pthread_mutex_unlock(&e->lock);
    return T4_OK;
}

static t4_status
rocks_sync(struct t4_engine *e, struct t4_call *call)
{
    char *error = NULL;

    rocksdb_flush_wal(e->db, 1, &error);
    return error == NULL ? T4_OK : say(e, call, "RocksDB does not sync its log", error);
}

static t4_status
rocks_flushed(struct t4_engine *e, uint64_t *out)
{
    pthread_mutex_lock(&e->lock);
    *out = e->state.flushed;
    pthread_mutex_unlock(&e->lock);
    return T4_OK;
}

/* --- snapshots ---------------------------------------------------------------------- */

static t4_status
rocks_snap(struct t4_engine *e, struct t4_snap **out)
{
    struct t4_snap *s = e->host->alloc(e->host, sizeof *s);

    if (s == NULL)
        return T4_E_NOMEM;
    memset(s, 0, sizeof *s);
    s->engine = e;
    s->snapshot = rocksdb_create_snapshot(e->db);
    s->options = rocksdb_readoptions_create();
    rocksdb_readoptions_set_snapshot(s->options, s->snapshot);
    *out = s;
    return T4_OK;
}

static void
rocks_snap_end(struct t4_snap *s)
{
    const struct t4_host *host = s->engine->host;

    for (struct pin *p = s->pins; p != NULL; p = p->next) /* the pins lie in chunks */
        rocksdb_pinnableslice_destroy(p->slice);
    for (struct chunk *c = s->chunks, *next; c != NULL; c = next) {
        next = c->next;
        host->free(host, c);
    }
    rocksdb_readoptions_destroy(s->options);
    rocksdb_release_snapshot(s->engine->db, s->snapshot);
    host->free(host, s);
}

/* n bytes that live as long as the snapshot, or NULL. */
static void *
snap_alloc(struct t4_snap *s, size_t n)
{
    const struct t4_host *host = s->engine->host;
    struct chunk *c = s->chunks;
    void *p;

    n = (n + 15) & ~(size_t)15;
    if (c == NULL || c->size - c->used < n) {
        size_t size = n > CHUNK_BYTES ? n : CHUNK_BYTES;

        c = host->alloc(host, sizeof *c + size);
        if (c == NULL)
            return NULL;
        c->next = s->chunks;
        c->used = 0;
        c->size = size;
        s->chunks = c;
    }
    p = c->bytes + c->used;
    c->used += n;
    return p;
}

static t4_status
rocks_get(struct t4_snap *s, struct t4_slice key, struct t4_slice *value)
{
    struct t4_engine *e = s->engine;
    rocksdb_pinnableslice_t *slice;
    char *error = NULL;
    struct pin *pin;

    if (key.len == 0) /* that is the state */
        return T4_E_NOTFOUND;
    slice =
        rocksdb_get_pinned(e->db, s->options, (const char *)key.data, key.len, &error);
    if (error != NULL)
        return say(e, NULL, "RocksDB does not read", error);
    if (slice == NULL)
        return T4_E_NOTFOUND;
    pin = snap_alloc(s, sizeof *pin);
    if (pin == NULL) {
        rocksdb_pinnableslice_destroy(slice);
        return T4_E_NOMEM;
    }
    *pin = (struct pin){s->pins, slice};
    s->pins = pin;
    value->data = (const uint8_t *)rocksdb_pinnableslice_value(slice, &value->len);
    return T4_OK;
}

/* --- iterators ---------------------------------------------------------------------- */

static t4_status
rocks_iter(struct t4_snap *s, struct t4_iter **out)
{
    struct t4_engine *e = s->engine;
    struct t4_iter *it = e->host->alloc(e->host, sizeof *it);

    if (it == NULL)
        return T4_E_NOMEM;
    *it = (struct t4_iter){
        .snap = s, .it = rocksdb_create_iterator(e->db, s->options), .place = BEFORE};
    *out = it;
    return T4_OK;
}

static void
rocks_iter_end(struct t4_iter *it)
{
    const struct t4_host *host = it->snap->engine->host;

    rocksdb_iter_destroy(it->it);
    host->free(host, it);
}

/* Where RocksDB's iterator has come to; the state's key counts as "before the first". */
static enum place
place_of(const struct t4_iter *it, enum place end)
{
    size_t n;

    if (!rocksdb_iter_valid(it->it))
        return end;
    rocksdb_iter_key(it->it, &n);
    return n > 0 ? ON : BEFORE;
}

/* To the first key >= `key`, which is not empty. */
static void
go_to(struct t4_iter *it, struct t4_slice key)
{
    if (key.len == 0)
        rocksdb_iter_seek(it->it, "", 1); /* one zero byte: the first key there may be */
    else
        rocksdb_iter_seek(it->it, (const char *)key.data, key.len);
    it->place = place_of(it, BEHIND);
}

static void
go_next(struct t4_iter *it)
{
    if (it->place == BEFORE) {
        go_to(it, (struct t4_slice){0});
    } else if (it->place == ON) {
        rocksdb_iter_next(it->it);
        it->place = place_of(it, BEHIND);
    }
}

static void
go_prev(struct t4_iter *it)
{
    if (it->place == BEHIND)
        rocksdb_iter_seek_to_last(it->it);
    else if (it->place == ON)
        rocksdb_iter_prev(it->it);
    if (it->place != BEFORE)
        it->place = place_of(it, BEFORE);
}

/* What it stands on.  NOMEM, too, leaves it there: the caller steps back. */
static t4_status
here(struct t4_iter *it, struct t4_slice *key, struct t4_slice *value)
{
    struct t4_engine *e = it->snap->engine;
    char *error = NULL;
    const char *bytes;
    uint8_t *copy;
    size_t n;

    if (it->place != ON) {
        rocksdb_iter_get_error(it->it, &error);
        return error == NULL ? T4_E_NOTFOUND
                             : say(e, NULL, "RocksDB does not read", error);
    }
    bytes = rocksdb_iter_value(it->it, &n);
    copy = snap_alloc(it->snap, n);
    if (copy == NULL)
        return T4_E_NOMEM;
    if (n > 0)
        memcpy(copy, bytes, n);
    *value = (struct t4_slice){copy, n};
    key->data = (const uint8_t *)rocksdb_iter_key(it->it, &key->len);
    return T4_OK;
}

static t4_status
rocks_seek(struct t4_iter *it, struct t4_slice target, struct t4_slice *key,
           struct t4_slice *value)
{
    go_to(it, target);
    return here(it, key, value);
}

static t4_status
rocks_next(struct t4_iter *it, struct t4_slice *key, struct t4_slice *value)
{
    t4_status st;

    go_next(it);
    st = here(it, key, value);
    if (st == T4_E_NOMEM)
        go_prev(it);
    return st;
}

static t4_status
rocks_prev(struct t4_iter *it, struct t4_slice *key, struct t4_slice *value)
{
    t4_status st;

    go_prev(it);
    st = here(it, key, value);
    if (st == T4_E_NOMEM)
        go_next(it);
    return st;
}

/* --- stats -------------------------------------------------------------------------- */

static uint64_t
bytes_on_disk(const char *dir)
{
    DIR *list = opendir(dir);
    struct dirent *entry;
    uint64_t sum = 0;

    while (list != NULL && (entry = readdir(list)) != NULL) {
        struct stat st;

        if (fstatat(dirfd(list), entry->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
            S_ISREG(st.st_mode))
            sum += (uint64_t)st.st_size;
    }
    if (list != NULL)
        closedir(list);
    return sum;
}

static t4_status
rocks_stats(struct t4_engine *e, struct t4_engine_stats *out)
{
    uint64_t tables = 0, live = 0;

    pthread_mutex_lock(&e->lock);
    out->records = e->state.records;
    pthread_mutex_unlock(&e->lock);
    out->file_bytes = out->in_use_bytes = bytes_on_disk(e->dir);
    /* What a compaction would free of the tables; all else is in use. */
    if (rocksdb_property_int(e->db, "rocksdb.total-sst-files-size", &tables) == 0 &&
        rocksdb_property_int(e->db, "rocksdb.estimate-live-data-size", &live) == 0 &&
        live < tables && tables - live < out->file_bytes)
        out->in_use_bytes -= tables - live;
    return T4_OK;
}

/* --- the plugin --------------------------------------------------------------------- */

enum { WRITE_BUFFER, BLOCK_CACHE };
static const struct t4_option options[] = {
    [WRITE_BUFFER] = {"write_buffer", T4_OPTION_SIZE, 0, "16 MB", "64 kB", "1 GB",
                      "bytes in memory before a table file is written"},
    [BLOCK_CACHE] = {"block_cache", T4_OPTION_SIZE, 0, "64 MB", "1 MB", "1 TB",
                     "memory for blocks of table files that are read"},
};

static t4_status
load(const struct t4_host *host, struct t4_call *call, const struct t4_values *values,
     void **plugin)
{
    struct rocks *rocks = host->alloc(host, sizeof *rocks);

    (void)call;
    if (rocks == NULL)
        return T4_E_NOMEM;
    rocks->host = host;
    rocks->write_buffer = (uint64_t)values->value[WRITE_BUFFER].number;
    rocks->block_cache = (uint64_t)values->value[BLOCK_CACHE].number;
    *plugin = rocks;
    return T4_OK;
}

static void
unload(void *plugin)
{
    struct rocks *rocks = plugin;

    rocks->host->free(rocks->host, rocks);
}

/* No defragment(): RocksDB compacts in the background. */
static const struct t4_engine_ops ops = {
    .size = sizeof ops,
    .caps = T4_ENGINE_DURABLE,
    .max_key = MAX_KEY,
    .open = rocks_open,
    .close = rocks_close,
    .write = rocks_write,
    .sync = rocks_sync,
    .flushed = rocks_flushed,
    .snap = rocks_snap,
    .snap_end = rocks_snap_end,
    .get = rocks_get,
    .iter = rocks_iter,
    .seek = rocks_seek,
    .next = rocks_next,
    .prev = rocks_prev,
    .iter_end = rocks_iter_end,
    .stats = rocks_stats,
};

static const struct t4_role roles[] = {
    {.kind = T4_ROLE_ENGINE, .name = "rocksdb", .ops = &ops},
};

const struct t4_plugin *
t4_plugin_v1(void)
{
    static const struct t4_plugin plugin = {
        T4_PLUGIN_HEAD("rocksdb", "0.1", 0),
        .license = "Apache-2.0",
        .summary = "storage engine on RocksDB",
        .options = options,
        .n_options = sizeof options / sizeof options[0],
        .roles = roles,
        .n_roles = sizeof roles / sizeof roles[0],
        .load = load,
        .unload = unload,
    };

    return &plugin;
}

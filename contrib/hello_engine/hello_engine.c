/*
 * hello_engine.c - a complete storage engine for t4 in one file.
 *
 * It is an example to begin from, built outside of t4's tree with nothing but t4_plugin.h
 * (see Makefile, and "A storage plugin in an afternoon" in the documentation).
 *
 * All records are in memory, in a sorted array.  A write makes a new array that shares the
 * records with the one before; a snapshot keeps the array that was the newest.  So nothing
 * that a reader sees ever changes, and readers wait for nobody.  What was written is also
 * appended to one file, DIR/log, that open() reads: a number, a checksum and the operations of
 * each write.  The file is never made smaller, and each write copies the array: good enough
 * to learn from, not for a large store.
 *
 * Entry point: t4_plugin_v1().  Runs on: write() and sync() on one thread at a time,
 * snapshots on any.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "t4_plugin.h"

#define MAX_KEY 65536

/* One key with its value; shared by all arrays that hold it, never changed. */
struct record {
    uint64_t arrays; /* [lock] how many hold it */
    struct t4_slice key, value;
    uint8_t bytes[];
};

/* What the store was after one write. */
struct array {
    uint64_t holders; /* [lock] the engine, while it is the newest, and snapshots */
    size_t n;
    struct record *record[];
};

struct t4_engine { /* what open() makes */
    const struct t4_host *host;
    int file;
    uint64_t length; /* [writer] of the file */
    bool torn;       /* [writer] the file may have bytes behind `length` */
    pthread_mutex_t lock;
    struct array *newest; /* [lock] */
    uint64_t flushed;     /* [lock] the number of the last write */
};

struct t4_snap {
    struct t4_engine *engine;
    struct array *array; /* held */
};

/* Stands at record[at - 1]: 0 is before the first, n + 1 behind the last. */
struct t4_iter {
    const struct t4_snap *snap;
    size_t at;
};

/* --- records and arrays ------------------------------------------------------------- */

static int
compare(struct t4_slice a, struct t4_slice b)
{
    size_t n = a.len < b.len ? a.len : b.len;
    int r = n > 0 ? memcmp(a.data, b.data, n) : 0;

    return r != 0 ? r : a.len < b.len ? -1 : a.len > b.len;
}

/* Index of the first record whose key is not below `key`. */
static size_t
lower_bound(const struct array *a, struct t4_slice key)
{
    size_t low = 0, high = a->n;

    while (low < high) {
        size_t middle = low + (high - low) / 2;

        if (compare(a->record[middle]->key, key) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static struct record *
make_record(const struct t4_host *host, const struct t4_op *op)
{
    struct record *r = host->alloc(host, sizeof *r + op->key.len + op->value.len);

    if (r == NULL)
        return NULL;
    r->arrays = 0;
    r->key = (struct t4_slice){r->bytes, op->key.len};
    r->value = (struct t4_slice){r->bytes + op->key.len, op->value.len};
    memcpy(r->bytes, op->key.data, op->key.len);
    if (op->value.len > 0)
        memcpy(r->bytes + op->key.len, op->value.data, op->value.len);
    return r;
}

/* A holder less; lock held. */
static void
drop_array(const struct t4_host *host, struct array *a)
{
    if (a == NULL || --a->holders > 0)
        return;
    for (size_t i = 0; i < a->n; i++)
        if (--a->record[i]->arrays == 0)
            host->free(host, a->record[i]);
    host->free(host, a);
}

/* Puts the record at its place, or (NULL) takes away what has this key. */
static void
apply(const struct t4_host *host, struct array *a, struct t4_slice key, struct record *r)
{
    size_t at = lower_bound(a, key);
    bool there = at < a->n && compare(a->record[at]->key, key) == 0;

    if (there && --a->record[at]->arrays == 0)
        host->free(host, a->record[at]);
    if (there && r == NULL) {
        a->n--;
        memmove(a->record + at, a->record + at + 1, (a->n - at) * sizeof a->record[0]);
    }
    if (r == NULL)
        return;
    if (!there) {
        memmove(a->record + at + 1, a->record + at, (a->n - at) * sizeof a->record[0]);
        a->n++;
    }
    r->arrays++;
    a->record[at] = r;
}

/*
 * The array after a write; NULL: no memory.  Lock held: it counts in records that snapshots
 * hold, too.
 */
static struct array *
next_array(struct t4_engine *e, const struct t4_op *ops, size_t n)
{
    const struct t4_host *host = e->host;
    const struct array *old = e->newest;
    struct array *a = host->alloc(host, sizeof *a + (old->n + n) * sizeof a->record[0]);

    if (a == NULL)
        return NULL;
    a->holders = 1;
    a->n = old->n;
    for (size_t i = 0; i < old->n; i++) {
        a->record[i] = old->record[i];
        a->record[i]->arrays++;
    }
    for (size_t i = 0; i < n; i++) {
        struct record *r = NULL;

        if (ops[i].kind == T4_OP_PUT && (r = make_record(host, &ops[i])) == NULL) {
            drop_array(host, a);
            return NULL;
        }
        apply(host, a, ops[i].key, r);
    }
    return a;
}

/* --- the file ----------------------------------------------------------------------- */

/*
 * One write in the file: this head, then for each operation its kind and the two lengths (3
 * times 8 bytes), key and value.
 */
struct head {
    uint64_t sum;   /* of what follows */
    uint64_t bytes; /* of the whole */
    uint64_t flushed, n;
};

/* FNV-1a: enough to tell a write that is whole from one that a crash cut short. */
static uint64_t
sum_of(const uint8_t *p, size_t n)
{
    uint64_t sum = 0xcbf29ce484222325u;

    for (size_t i = 0; i < n; i++)
        sum = (sum ^ p[i]) * 0x100000001b3u;
    return sum;
}

static t4_status
say_errno(struct t4_engine *e, struct t4_call *call, const char *what, const char *where)
{
    t4_status status =
        errno == ENOSPC || errno == EDQUOT || errno == EFBIG ? T4_E_NOSPACE : T4_E_IO;
    char text[4096];

    snprintf(text, sizeof text, "%s: %s", where, strerror(errno));
    return e->host->fail(call, status, what, text, NULL);
}

/* The bytes of a write, from host->alloc(); NULL: no memory. */
static uint8_t *
encode(const struct t4_host *host, const struct t4_op *ops, size_t n, uint64_t flushed,
       size_t *length)
{
    struct head head = {.bytes = sizeof head, .flushed = flushed, .n = n};
    uint8_t *bytes, *p;

    for (size_t i = 0; i < n; i++)
        head.bytes +=
            24 + ops[i].key.len + (ops[i].kind == T4_OP_PUT ? ops[i].value.len : 0);
    bytes = p = host->alloc(host, head.bytes);
    if (bytes == NULL)
        return NULL;
    p += sizeof head;
    for (size_t i = 0; i < n; i++) {
        size_t value_len = ops[i].kind == T4_OP_PUT ? ops[i].value.len : 0;
        uint64_t lengths[3] = {ops[i].kind, ops[i].key.len, value_len};

        memcpy(p, lengths, 24);
        memcpy(p + 24, ops[i].key.data, ops[i].key.len);
        if (value_len > 0)
            memcpy(p + 24 + ops[i].key.len, ops[i].value.data, value_len);
        p += 24 + ops[i].key.len + value_len;
    }
    memcpy(bytes, &head, sizeof head);
    head.sum = sum_of(bytes + sizeof head.sum, head.bytes - sizeof head.sum);
    memcpy(bytes, &head, sizeof head);
    *length = head.bytes;
    return bytes;
}

/* Behind an error the file is cut back first: no write may follow a torn one. */
static t4_status
append(struct t4_engine *e, struct t4_call *call, const uint8_t *bytes, size_t n)
{
    size_t done = 0;

    if (e->torn && ftruncate(e->file, (off_t)e->length) != 0)
        return say_errno(e, call, "cannot cut off a torn write", "log");
    e->torn = true;
    while (done < n) {
        ssize_t part = pwrite(e->file, bytes + done, n - done, (off_t)(e->length + done));

        if (part < 0 && errno == EINTR)
            continue;
        if (part < 0)
            return say_errno(e, call, "cannot write", "log");
        done += (size_t)part;
    }
    e->torn = false;
    e->length += n;
    return T4_OK;
}

/* Applies the operations of one write that open() has read. */
static t4_status
replay(struct t4_engine *e, const uint8_t *bytes, const struct head *head)
{
    const uint8_t *p = bytes + sizeof *head;
    struct array *a;
    struct t4_op *ops = e->host->alloc(e->host, (head->n + 1) * sizeof *ops);

    if (ops == NULL)
        return T4_E_NOMEM;
    for (size_t i = 0; i < head->n; i++) {
        uint64_t lengths[3];

        memcpy(lengths, p, 24);
        ops[i] = (struct t4_op){.kind = (uint32_t)lengths[0],
                                .key = {p + 24, lengths[1]},
                                .value = {p + 24 + lengths[1], lengths[2]}};
        p += 24 + lengths[1] + lengths[2];
    }
    a = next_array(e, ops, head->n);
    e->host->free(e->host, ops);
    if (a == NULL)
        return T4_E_NOMEM;
    drop_array(e->host, e->newest);
    e->newest = a;
    e->flushed = head->flushed;
    return T4_OK;
}

/* Reads all writes that are whole, and cuts off what is behind them. */
static t4_status
read_log(struct t4_engine *e, struct t4_call *call)
{
    t4_status st = T4_OK;
    struct head head;
    struct stat file;

    if (fstat(e->file, &file) != 0)
        return say_errno(e, call, "cannot read", "log");
    while (st == T4_OK &&
           pread(e->file, &head, sizeof head, (off_t)e->length) == sizeof head &&
           head.bytes >= sizeof head &&
           head.bytes <= (uint64_t)file.st_size - e->length) {
        uint8_t *bytes = e->host->alloc(e->host, head.bytes);
        bool whole;

        if (bytes == NULL)
            return T4_E_NOMEM;
        whole =
            pread(e->file, bytes, head.bytes, (off_t)e->length) == (ssize_t)head.bytes &&
            sum_of(bytes + sizeof head.sum, head.bytes - sizeof head.sum) == head.sum;
        if (whole)
            st = replay(e, bytes, &head);
        e->host->free(e->host, bytes);
        if (!whole)
            break;
        e->length += head.bytes;
    }
    if (st == T4_OK && ftruncate(e->file, (off_t)e->length) != 0)
        st = say_errno(e, call, "cannot cut off a torn write", "log");
    return st;
}

/* --- open and close ----------------------------------------------------------------- */

static void
hello_close(struct t4_engine *e)
{
    const struct t4_host *host = e->host;

    drop_array(host, e->newest);
    if (e->file >= 0)
        close(e->file);
    pthread_mutex_destroy(&e->lock);
    host->free(host, e);
}

/* Makes folder and file; a new name is only safe once its folder is synced. */
static t4_status
open_file(struct t4_engine *e, struct t4_call *call, struct t4_slice dir)
{
    char path[4096];
    int folder;

    if (dir.len + sizeof "/log" > sizeof path)
        return T4_E_INVALID;
    memcpy(path, dir.data, dir.len);
    path[dir.len] = '\0';
    if (mkdir(path, 0700) != 0 && errno != EEXIST)
        return say_errno(e, call, "cannot create the folder", path);
    folder = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (folder < 0)
        return say_errno(e, call, "cannot open the folder", path);
    memcpy(path + dir.len, "/log", sizeof "/log");
    e->file = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (e->file < 0 || fsync(folder) != 0) {
        close(folder);
        return say_errno(e, call, "cannot open", path);
    }
    close(folder);
    return T4_OK;
}

static t4_status
hello_open(void *plugin, struct t4_call *call, struct t4_slice dir,
           struct t4_engine **out)
{
    const struct t4_host *host = plugin;
    struct t4_engine *e = host->alloc(host, sizeof *e);
    t4_status st = T4_OK;

    if (e == NULL)
        return T4_E_NOMEM;
    memset(e, 0, sizeof *e);
    e->host = host;
    e->file = -1;
    pthread_mutex_init(&e->lock, NULL);
    e->newest = host->alloc(host, sizeof *e->newest);
    if (e->newest == NULL)
        st = T4_E_NOMEM;
    else
        *e->newest = (struct array){.holders = 1};
    if (st == T4_OK)
        st = open_file(e, call, dir);
    if (st == T4_OK)
        st = read_log(e, call);
    if (st == T4_OK)
        *out = e;
    else
        hello_close(e);
    return st;
}

/* --- writing ------------------------------------------------------------------------ */

static t4_status
hello_write(struct t4_engine *e, struct t4_call *call, const struct t4_op *ops, size_t n,
            uint64_t flushed)
{
    struct array *a;
    uint8_t *bytes;
    size_t length;
    t4_status st;

    pthread_mutex_lock(&e->lock);
    a = next_array(e, ops, n);
    pthread_mutex_unlock(&e->lock);
    if (a == NULL)
        return T4_E_NOMEM;
    bytes = encode(e->host, ops, n, flushed, &length);
    st = bytes != NULL ? append(e, call, bytes, length) : T4_E_NOMEM;
    e->host->free(e->host, bytes);
    pthread_mutex_lock(&e->lock);
    if (st == T4_OK) { /* only now does anybody see it */
        drop_array(e->host, e->newest);
        e->newest = a;
        e->flushed = flushed;
    } else {
        drop_array(e->host, a);
    }
    pthread_mutex_unlock(&e->lock);
    return st;
}

static t4_status
hello_sync(struct t4_engine *e, struct t4_call *call)
{
    return fdatasync(e->file) == 0 ? T4_OK : say_errno(e, call, "cannot sync", "log");
}

static t4_status
hello_flushed(struct t4_engine *e, uint64_t *out)
{
    pthread_mutex_lock(&e->lock);
    *out = e->flushed;
    pthread_mutex_unlock(&e->lock);
    return T4_OK;
}

/* --- reading ------------------------------------------------------------------------ */

static t4_status
hello_snap(struct t4_engine *e, struct t4_snap **out)
{
    struct t4_snap *s = e->host->alloc(e->host, sizeof *s);

    if (s == NULL)
        return T4_E_NOMEM;
    s->engine = e;
    pthread_mutex_lock(&e->lock);
    s->array = e->newest;
    s->array->holders++;
    pthread_mutex_unlock(&e->lock);
    *out = s;
    return T4_OK;
}

static void
hello_snap_end(struct t4_snap *s)
{
    struct t4_engine *e = s->engine;

    pthread_mutex_lock(&e->lock);
    drop_array(e->host, s->array);
    pthread_mutex_unlock(&e->lock);
    e->host->free(e->host, s);
}

static t4_status
hello_get(struct t4_snap *s, struct t4_slice key, struct t4_slice *value)
{
    size_t at = lower_bound(s->array, key);

    if (at == s->array->n || compare(s->array->record[at]->key, key) != 0)
        return T4_E_NOTFOUND;
    *value = s->array->record[at]->value;
    return T4_OK;
}

static t4_status
hello_iter(struct t4_snap *s, struct t4_iter **out)
{
    struct t4_iter *it = s->engine->host->alloc(s->engine->host, sizeof *it);

    if (it == NULL)
        return T4_E_NOMEM;
    *it = (struct t4_iter){.snap = s};
    *out = it;
    return T4_OK;
}

static void
hello_iter_end(struct t4_iter *it)
{
    const struct t4_host *host = it->snap->engine->host;

    host->free(host, it);
}

/* What the iterator stands at. */
static t4_status
here(const struct t4_iter *it, struct t4_slice *key, struct t4_slice *value)
{
    const struct array *a = it->snap->array;

    if (it->at == 0 || it->at > a->n)
        return T4_E_NOTFOUND;
    *key = a->record[it->at - 1]->key;
    *value = a->record[it->at - 1]->value;
    return T4_OK;
}

static t4_status
hello_seek(struct t4_iter *it, struct t4_slice target, struct t4_slice *key,
           struct t4_slice *value)
{
    it->at = lower_bound(it->snap->array, target) + 1;
    return here(it, key, value);
}

static t4_status
hello_next(struct t4_iter *it, struct t4_slice *key, struct t4_slice *value)
{
    if (it->at <= it->snap->array->n)
        it->at++;
    return here(it, key, value);
}

static t4_status
hello_prev(struct t4_iter *it, struct t4_slice *key, struct t4_slice *value)
{
    if (it->at > 0)
        it->at--;
    return here(it, key, value);
}

static t4_status
hello_stats(struct t4_engine *e, struct t4_engine_stats *out)
{
    struct stat file;

    if (fstat(e->file, &file) != 0)
        return T4_E_IO;
    pthread_mutex_lock(&e->lock);
    out->records = e->newest->n;
    pthread_mutex_unlock(&e->lock);
    out->file_bytes = out->in_use_bytes = (uint64_t)file.st_size;
    return T4_OK;
}

/* --- the plugin --------------------------------------------------------------------- */

static t4_status
load(const struct t4_host *host, struct t4_call *call, const struct t4_values *values,
     void **plugin)
{
    (void)call;
    (void)values; /* there are no settings */
    *plugin = (void *)(uintptr_t)host;
    return T4_OK;
}

static const struct t4_engine_ops hello_ops = {
    .size = sizeof hello_ops,
    .caps = T4_ENGINE_DURABLE,
    .max_key = MAX_KEY,
    .open = hello_open,
    .close = hello_close,
    .write = hello_write,
    .sync = hello_sync,
    .flushed = hello_flushed,
    .snap = hello_snap,
    .snap_end = hello_snap_end,
    .get = hello_get,
    .iter = hello_iter,
    .seek = hello_seek,
    .next = hello_next,
    .prev = hello_prev,
    .iter_end = hello_iter_end,
    .stats = hello_stats,
};

static const struct t4_role roles[] = {
    {.kind = T4_ROLE_ENGINE, .name = "hello_engine", .ops = &hello_ops},
};

const struct t4_plugin *
t4_plugin_v1(void)
{
    static const struct t4_plugin plugin = {
        T4_PLUGIN_HEAD("hello_engine", "0.1", 0),
        .license = "Apache-2.0",
        .summary = "an example: storage engine of one array and one file",
        .roles = roles,
        .n_roles = sizeof roles / sizeof roles[0],
        .load = load,
    };

    return &plugin;
}

/*
 * simdisk.c - the simulated disk of the tests.  See simdisk.h.
 *
 * A file is an inode: `data` is what a running system sees; `synced` is what the disk
 * holds, NULL while both are the same.  Names stand in two lists, seen and durable, of
 * (path, inode).
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "simdisk.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "env/thread.h"

#define SECTOR 512u
#define NONE SIZE_MAX
#define MAX_SITES 64

struct inode {
    uint8_t *data, *synced;
    size_t size, synced_size;
    bool directory, locked;
};

struct names {
    struct name {
        char *path;
        size_t inode; /* NONE: free */
    } * at;
    size_t count;
};

enum pending_kind { PENDING_WRITE, PENDING_TRUNCATE, PENDING_NAME };

struct pending {
    enum pending_kind kind;
    size_t inode; /* write, truncate; name: what `path` is from now on, NONE: nothing */
    uint64_t offset; /* write; truncate: the size */
    uint8_t *data;   /* write */
    size_t n;
    char *path, *gone; /* name: set, and what is removed with it (rename), or NULL */
};

struct env_file {
    size_t inode;
    bool readonly;
    char *path;
};

struct simdisk {
    struct env env;
    struct mutex lock;
    struct inode *inodes;
    size_t inode_count;
    struct names seen, durable;
    struct pending *pending;
    size_t pending_count, pending_capacity;

    uint64_t operations, crash_at, fail_at;
    t4_status fail_status;
    bool crashed, fail_write;
    uint8_t *kinds; /* by operation */
    uint64_t capacity, bytes_read, clock, random;

    const char *phase;
    char *sites[MAX_SITES];
    size_t site_count;
    char *ignored;
    char image_name[80];
};

static uint64_t
next_random(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15u;

    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

/* --- names and inodes --- */

static size_t
lookup(const struct names *names, const char *path)
{
    for (size_t i = 0; i < names->count; i++)
        if (names->at[i].inode != NONE && strcmp(names->at[i].path, path) == 0)
            return names->at[i].inode;
    return NONE;
}

static void
set_name(struct names *names, const char *path, size_t inode)
{
    size_t i = 0;

    while (i < names->count && strcmp(names->at[i].path, path) != 0)
        i++;
    if (i == names->count) {
        names->at = mem_realloc(names->at, (i + 1) * sizeof *names->at);
        names->at[i].path = mem_strdup(path);
        names->count++;
    }
    names->at[i].inode = inode;
}

/* The directory a path is in, into `parent`. */
static void
parent_of(const char *path, char *parent, size_t room)
{
    const char *slash = strrchr(path, '/');
    size_t n = slash == NULL || slash == path ? 1 : (size_t)(slash - path);

    snprintf(parent, room, "%.*s", (int)n, slash == NULL ? "." : path);
}

static bool
is_directory(const struct simdisk *d, const struct names *names, const char *path)
{
    size_t i;

    if (strcmp(path, "/") == 0 || strcmp(path, ".") == 0)
        return true;
    i = lookup(names, path);
    return i != NONE && d->inodes[i].directory;
}

static size_t
new_inode(struct simdisk *d, bool directory)
{
    d->inodes = mem_realloc(d->inodes, (d->inode_count + 1) * sizeof *d->inodes);
    d->inodes[d->inode_count] = (struct inode){.directory = directory};
    return d->inode_count++;
}

static struct pending *
add_pending(struct simdisk *d, enum pending_kind kind, size_t inode)
{
    struct pending *p;

    if (d->pending_count == d->pending_capacity) {
        d->pending_capacity = d->pending_capacity * 2 + 16;
        d->pending = mem_realloc(d->pending, d->pending_capacity * sizeof *d->pending);
    }
    p = &d->pending[d->pending_count++];
    *p = (struct pending){.kind = kind, .inode = inode};
    return p;
}

static void
free_pending(struct pending *p)
{
    mem_free(p->data);
    mem_free(p->path);
    mem_free(p->gone);
}

static void
change_name(struct simdisk *d, const char *path, size_t inode, const char *gone)
{
    struct pending *p = add_pending(d, PENDING_NAME, inode);

    p->path = mem_strdup(path);
    p->gone = gone != NULL ? mem_strdup(gone) : NULL;
    set_name(&d->seen, path, inode);
    if (gone != NULL)
        set_name(&d->seen, gone, NONE);
}

/* Before `data` begins to differ from what the disk holds. */
static void
keep_synced(struct inode *f)
{
    if (f->synced != NULL)
        return;
    f->synced =
        memcpy(mem_alloc(f->size), f->size > 0 ? f->data : (uint8_t *)"", f->size);
    f->synced_size = f->size;
}

static void
resize(uint8_t **data, size_t *size, size_t to)
{
    if (to > *size || to == 0) {
        *data = mem_realloc(*data, to);
        if (to > *size)
            memset(*data + *size, 0, to - *size);
    }
    *size = to;
}

static void
put(uint8_t **data, size_t *size, uint64_t offset, const uint8_t *from, size_t n)
{
    if (n == 0)
        return;
    if (offset + n > *size)
        resize(data, size, (size_t)offset + n);
    memcpy(*data + offset, from, n);
}

/* --- operations: numbering, faults, crash --- */

enum verdict { GO_ON, FAIL, LAST };

/* Numbers an operation.  LAST: the crash comes with it. */
static enum verdict
operation(struct simdisk *d, char kind, t4_status *status, struct error *error)
{
    if (d->crashed) {
        *status = error_set(error, T4_E_IO, "the simulated disk is gone");
        return FAIL;
    }
    d->operations++;
    d->kinds = mem_realloc(d->kinds, d->operations + 1);
    d->kinds[d->operations] = (uint8_t)kind;
    if (d->operations == d->crash_at) {
        d->crashed = true;
        *status = error_set(error, T4_E_IO, "the simulated disk crashes here");
        return LAST;
    }
    *status = T4_OK;
    if (d->operations == d->fail_at) {
        *status = error_set(error, d->fail_status, "simulated: %s",
                            status_text(d->fail_status));
        return FAIL;
    }
    return GO_ON;
}

static t4_status
gone(const struct simdisk *d, struct error *error)
{
    return d->crashed ? error_set(error, T4_E_IO, "the simulated disk is gone") : T4_OK;
}

static uint64_t
used(const struct simdisk *d)
{
    uint64_t n = 0;

    for (size_t i = 0; i < d->seen.count; i++)
        if (d->seen.at[i].inode != NONE)
            n += d->inodes[d->seen.at[i].inode].size;
    return n;
}

static bool
has_suffix(const char *text, const char *suffix)
{
    size_t n = strlen(text), m = strlen(suffix);

    return n >= m && strcmp(text + n - m, suffix) == 0;
}

/* Remembers the site of a sync; true: it is to be ignored. */
static bool
at_site(struct simdisk *d, const char *kind, const char *path)
{
    const char *object;
    char final[256], site[128];
    size_t i;

    if (has_suffix(path, ".wal")) {
        object = "a segment";
    } else if (has_suffix(path, ".wal.tmp")) {
        snprintf(final, sizeof final, "%.*s", (int)(strlen(path) - 4), path);
        object = lookup(&d->seen, final) != NONE ? "a replaced segment" : "a new segment";
    } else if (has_suffix(path, "/reserve.tmp")) {
        object = "the reserve file";
    } else {
        object = strcmp(path, "/") == 0 ? "the parent directory" : "the directory";
    }
    snprintf(site, sizeof site, "%s: %s of %s", d->phase, kind, object);
    for (i = 0; i < d->site_count; i++)
        if (strcmp(d->sites[i], site) == 0)
            break;
    if (i == d->site_count && i < MAX_SITES)
        d->sites[d->site_count++] = mem_strdup(site);
    return d->ignored != NULL && strcmp(d->ignored, site) == 0;
}

/* --- struct env --- */

static t4_status
sim_open(void *state, const char *path, unsigned flags, struct env_file **out,
         struct error *error)
{
    struct simdisk *d = state;
    char parent[256];
    t4_status status;
    size_t i;

    mutex_lock(&d->lock);
    status = gone(d, error);
    i = lookup(&d->seen, path);
    parent_of(path, parent, sizeof parent);
    if (status != T4_OK) {
    } else if (!is_directory(d, &d->seen, parent) ||
               (i == NONE && !(flags & ENV_CREATE))) {
        status = error_set(error, T4_E_NOTFOUND, "cannot open %s: no such file", path);
    } else if (i != NONE && (flags & ENV_CREATE) && (flags & ENV_EXCLUSIVE)) {
        status = error_set(error, T4_E_EXISTS, "cannot create %s: it exists", path);
    } else if (i == NONE) {
        enum verdict v = operation(d, 'n', &status, error);

        if (v != FAIL)
            change_name(d, path, i = new_inode(d, false), NULL);
    }
    if (status == T4_OK) {
        *out = mem_zalloc(sizeof **out);
        (*out)->inode = i;
        (*out)->readonly = flags & ENV_READONLY;
        (*out)->path = mem_strdup(path);
    }
    mutex_unlock(&d->lock);
    return status;
}

static void
sim_close(void *state, struct env_file *file)
{
    struct simdisk *d = state;

    mutex_lock(&d->lock);
    d->inodes[file->inode].locked = false;
    mutex_unlock(&d->lock);
    mem_free(file->path);
    mem_free(file);
}

static t4_status
sim_pread(void *state, struct env_file *file, void *data, size_t n, uint64_t offset,
          size_t *got, struct error *error)
{
    struct simdisk *d = state;
    t4_status status;

    mutex_lock(&d->lock);
    *got = 0;
    status = gone(d, error);
    if (status == T4_OK) {
        const struct inode *f = &d->inodes[file->inode];

        if (offset < f->size)
            *got = f->size - offset < n ? (size_t)(f->size - offset) : n;
        if (*got > 0)
            memcpy(data, f->data + offset, *got);
        d->bytes_read += *got;
    }
    mutex_unlock(&d->lock);
    return status;
}

static void
write_to(struct simdisk *d, size_t inode, const void *data, size_t n, uint64_t offset)
{
    struct inode *f = &d->inodes[inode];
    struct pending *p = add_pending(d, PENDING_WRITE, inode);

    p->offset = offset;
    p->data = memcpy(mem_alloc(n), data, n);
    p->n = n;
    keep_synced(f);
    put(&f->data, &f->size, offset, data, n);
}

/* A file that was opened under another name has the newest one. */
static const char *
newest_name(const struct simdisk *d, const struct env_file *file)
{
    for (size_t i = 0; i < d->seen.count; i++)
        if (d->seen.at[i].inode == file->inode)
            return d->seen.at[i].path;
    return file->path;
}

static t4_status
sim_pwrite(void *state, struct env_file *file, const void *data, size_t n,
           uint64_t offset, struct error *error)
{
    struct simdisk *d = state;
    t4_status status;
    enum verdict v;
    uint64_t size;

    mutex_lock(&d->lock);
    v = operation(d, 'w', &status, error);
    size = d->inodes[file->inode].size;
    if (v == GO_ON && file->readonly) {
        v = FAIL;
        status =
            error_set(error, T4_E_IO, "cannot write %s: opened for reading", file->path);
    }
    if (v == GO_ON && d->fail_write && has_suffix(newest_name(d, file), ".wal")) {
        d->fail_write = false;
        v = FAIL;
        status = error_set(error, T4_E_NOSPACE, "cannot write %s: no space", file->path);
    }
    if (v == GO_ON && d->capacity > 0 && offset + n > size &&
        used(d) + offset + n - size > d->capacity) {
        v = FAIL;
        n = 0;
        status = error_set(error, T4_E_NOSPACE, "cannot write %s: no space", file->path);
    }
    if (v == FAIL)
        n = d->crashed || file->readonly ? 0 : n / 2 / 8 * 8;
    if (n > 0)
        write_to(d, file->inode, data, n, offset);
    mutex_unlock(&d->lock);
    return status;
}

static t4_status
sim_truncate(void *state, struct env_file *file, uint64_t size, struct error *error)
{
    struct simdisk *d = state;
    struct inode *f;
    t4_status status;

    mutex_lock(&d->lock);
    if (operation(d, 'w', &status, error) != FAIL) {
        f = &d->inodes[file->inode];
        add_pending(d, PENDING_TRUNCATE, file->inode)->offset = size;
        keep_synced(f);
        resize(&f->data, &f->size, (size_t)size);
    }
    mutex_unlock(&d->lock);
    return status;
}

static t4_status
sync_inode(struct simdisk *d, struct env_file *file, const char *kind,
           struct error *error)
{
    size_t kept = 0;
    t4_status status;
    bool ignored;

    mutex_lock(&d->lock);
    ignored = at_site(d, kind, newest_name(d, file));
    if (operation(d, 's', &status, error) == GO_ON && !ignored) {
        struct inode *f = &d->inodes[file->inode];

        mem_free(f->synced);
        f->synced = NULL;
        for (size_t i = 0; i < d->pending_count; i++) {
            struct pending *p = &d->pending[i];

            if (p->kind != PENDING_NAME && p->inode == file->inode)
                free_pending(p);
            else
                d->pending[kept++] = *p;
        }
        d->pending_count = kept;
    }
    mutex_unlock(&d->lock);
    return status;
}

static t4_status
sim_datasync(void *state, struct env_file *file, struct error *error)
{
    return sync_inode(state, file, "fdatasync", error);
}

static t4_status
sim_sync(void *state, struct env_file *file, struct error *error)
{
    return sync_inode(state, file, "fsync", error);
}

static void
apply_name(struct names *names, const struct pending *p)
{
    set_name(names, p->path, p->inode);
    if (p->gone != NULL)
        set_name(names, p->gone, NONE);
}

static t4_status
sim_sync_dir(void *state, const char *path, struct error *error)
{
    struct simdisk *d = state;
    size_t kept = 0;
    t4_status status;
    bool ignored;

    mutex_lock(&d->lock);
    ignored = at_site(d, "fsync", path);
    if (operation(d, 'd', &status, error) == GO_ON && !ignored) {
        for (size_t i = 0; i < d->pending_count; i++) {
            struct pending *p = &d->pending[i];
            char parent[256] = "";

            if (p->kind == PENDING_NAME)
                parent_of(p->path, parent, sizeof parent);
            if (p->kind == PENDING_NAME && strcmp(parent, path) == 0) {
                apply_name(&d->durable, p);
                free_pending(p);
            } else {
                d->pending[kept++] = *p;
            }
        }
        d->pending_count = kept;
    }
    mutex_unlock(&d->lock);
    return status;
}

static t4_status
sim_stat(void *state, const char *path, struct env_stat *out, struct error *error)
{
    struct simdisk *d = state;
    t4_status status;

    mutex_lock(&d->lock);
    status = gone(d, error);
    if (status == T4_OK) {
        size_t i = lookup(&d->seen, path);

        if (i == NONE)
            status =
                error_set(error, T4_E_NOTFOUND, "cannot examine %s: no such file", path);
        else
            *out = (struct env_stat){d->inodes[i].size, i + 1, 1};
    }
    mutex_unlock(&d->lock);
    return status;
}

static t4_status
sim_lock(void *state, struct env_file *file, struct error *error)
{
    struct simdisk *d = state;
    t4_status status;

    mutex_lock(&d->lock);
    status = gone(d, error);
    if (status == T4_OK && d->inodes[file->inode].locked)
        status = error_set(error, T4_E_BUSY, "%s is locked", file->path);
    else if (status == T4_OK)
        d->inodes[file->inode].locked = true;
    mutex_unlock(&d->lock);
    return status;
}

static t4_status
sim_rename(void *state, const char *from, const char *to, struct error *error)
{
    struct simdisk *d = state;
    t4_status status;
    size_t i;

    mutex_lock(&d->lock);
    i = lookup(&d->seen, from);
    if (i == NONE)
        status = error_set(error, T4_E_NOTFOUND, "cannot rename %s: no such file", from);
    else if (operation(d, 'n', &status, error) != FAIL)
        change_name(d, to, i, from);
    mutex_unlock(&d->lock);
    return status;
}

static t4_status
sim_unlink(void *state, const char *path, struct error *error)
{
    struct simdisk *d = state;
    t4_status status;

    mutex_lock(&d->lock);
    if (lookup(&d->seen, path) == NONE)
        status = error_set(error, T4_E_NOTFOUND, "cannot remove %s: no such file", path);
    else if (operation(d, 'n', &status, error) != FAIL)
        change_name(d, path, NONE, NULL);
    mutex_unlock(&d->lock);
    return status;
}

static t4_status
sim_mkdir(void *state, const char *path, struct error *error)
{
    struct simdisk *d = state;
    t4_status status;

    mutex_lock(&d->lock);
    status = gone(d, error);
    if (status == T4_OK && !is_directory(d, &d->seen, path) &&
        operation(d, 'n', &status, error) != FAIL)
        change_name(d, path, new_inode(d, true), NULL);
    mutex_unlock(&d->lock);
    return status;
}

static t4_status
sim_list(void *state, const char *path, void (*fn)(void *arg, const char *name),
         void *arg, struct error *error)
{
    struct simdisk *d = state;
    char parent[256];
    t4_status status;

    mutex_lock(&d->lock);
    status = gone(d, error);
    if (status == T4_OK && !is_directory(d, &d->seen, path))
        status = error_set(error, T4_E_NOTFOUND, "cannot open directory %s", path);
    for (size_t i = 0; i < d->seen.count && status == T4_OK; i++) {
        const struct name *n = &d->seen.at[i];

        parent_of(n->path, parent, sizeof parent);
        if (n->inode != NONE && strcmp(parent, path) == 0)
            fn(arg, strrchr(n->path, '/') + 1);
    }
    mutex_unlock(&d->lock);
    return status;
}

static t4_status
sim_free_space(void *state, const char *path, uint64_t *bytes, struct error *error)
{
    struct simdisk *d = state;
    t4_status status;

    (void)path;
    mutex_lock(&d->lock);
    status = gone(d, error);
    *bytes = UINT64_MAX / 2;
    if (d->capacity > 0)
        *bytes = d->capacity > used(d) ? d->capacity - used(d) : 0;
    mutex_unlock(&d->lock);
    return status;
}

static uint64_t
sim_clock(void *state)
{
    struct simdisk *d = state;
    uint64_t now;

    mutex_lock(&d->lock);
    now = d->clock += 1000;
    mutex_unlock(&d->lock);
    return now;
}

static void
sim_random(void *state, void *buffer, size_t n)
{
    struct simdisk *d = state;
    uint8_t *p = buffer;

    mutex_lock(&d->lock);
    for (size_t i = 0; i < n; i++)
        p[i] = (uint8_t)(next_random(&d->random) >> 32);
    mutex_unlock(&d->lock);
}

/* --- making and copying disks --- */

static struct simdisk *
make(void)
{
    struct simdisk *d = mem_zalloc(sizeof *d);

    mutex_init(&d->lock);
    d->phase = "";
    d->env = (struct env){
        .state = d,
        .open = sim_open,
        .close = sim_close,
        .pread = sim_pread,
        .pwrite = sim_pwrite,
        .datasync = sim_datasync,
        .sync = sim_sync,
        .truncate = sim_truncate,
        .stat = sim_stat,
        .lock = sim_lock,
        .rename = sim_rename,
        .unlink = sim_unlink,
        .mkdir = sim_mkdir,
        .sync_dir = sim_sync_dir,
        .list = sim_list,
        .free_space = sim_free_space,
        .wall_ns = sim_clock,
        .boot_ns = sim_clock,
        .random = sim_random,
    };
    return d;
}

struct simdisk *
simdisk_new(uint64_t seed)
{
    struct simdisk *d = make();

    d->random = seed;
    return d;
}

static void
free_names(struct names *names)
{
    for (size_t i = 0; i < names->count; i++)
        mem_free(names->at[i].path);
    mem_free(names->at);
}

void
simdisk_free(struct simdisk *d)
{
    if (d == NULL)
        return;
    for (size_t i = 0; i < d->inode_count; i++) {
        mem_free(d->inodes[i].data);
        mem_free(d->inodes[i].synced);
    }
    for (size_t i = 0; i < d->pending_count; i++)
        free_pending(&d->pending[i]);
    for (size_t i = 0; i < d->site_count; i++)
        mem_free(d->sites[i]);
    mem_free(d->inodes);
    mem_free(d->pending);
    mem_free(d->kinds);
    mem_free(d->ignored);
    free_names(&d->seen);
    free_names(&d->durable);
    mutex_destroy(&d->lock);
    mem_free(d);
}

static uint8_t *
copy_bytes(const uint8_t *data, size_t n)
{
    return data == NULL ? NULL : memcpy(mem_alloc(n), data, n);
}

static void
copy_names(struct names *to, const struct names *from)
{
    for (size_t i = 0; i < from->count; i++)
        if (from->at[i].inode != NONE)
            set_name(to, from->at[i].path, from->at[i].inode);
}

/* Everything but names, inodes and pending operations. */
static struct simdisk *
successor(const struct simdisk *d)
{
    struct simdisk *n = make();

    n->operations = d->operations;
    n->kinds = copy_bytes(d->kinds, d->operations + 1);
    n->crash_at = d->crash_at;
    n->fail_at = d->fail_at;
    n->fail_status = d->fail_status;
    n->capacity = d->capacity;
    n->clock = d->clock;
    n->random = d->random ^ 0x5deece66du;
    n->phase = d->phase;
    simdisk_ignore(n, d->ignored);
    for (size_t i = 0; i < d->site_count; i++)
        n->sites[n->site_count++] = mem_strdup(d->sites[i]);
    return n;
}

struct simdisk *
simdisk_kill(const struct simdisk *d)
{
    struct simdisk *n = successor(d);

    n->inode_count = d->inode_count;
    n->inodes = mem_alloc(d->inode_count * sizeof *d->inodes);
    for (size_t i = 0; i < d->inode_count; i++) {
        n->inodes[i] = d->inodes[i];
        n->inodes[i].data = copy_bytes(d->inodes[i].data, d->inodes[i].size);
        n->inodes[i].synced = copy_bytes(d->inodes[i].synced, d->inodes[i].synced_size);
        n->inodes[i].locked = false;
    }
    copy_names(&n->seen, &d->seen);
    copy_names(&n->durable, &d->durable);
    for (size_t i = 0; i < d->pending_count; i++) {
        const struct pending *p = &d->pending[i];
        struct pending *q = add_pending(n, p->kind, p->inode);

        *q = *p;
        q->data = copy_bytes(p->data, p->n);
        q->path = p->path != NULL ? mem_strdup(p->path) : NULL;
        q->gone = p->gone != NULL ? mem_strdup(p->gone) : NULL;
    }
    return n;
}

/* --- images --- */

enum selection {
    SELECT_NONE,
    SELECT_ALL,
    SELECT_PREFIX,
    SELECT_SUFFIX,
    SELECT_RANDOM,
    SELECT_TORN
};

#define MAX_CUTS 8u /* of prefixes, and of suffixes */
#define RANDOM_IMAGES 5u
#define TORN_IMAGES 5u

static bool
selected(enum selection s, size_t i, uint64_t parameter, uint64_t *random)
{
    switch (s) {
    case SELECT_NONE: return false;
    case SELECT_ALL: return true;
    case SELECT_PREFIX: return i < parameter;
    case SELECT_SUFFIX: return i >= parameter;
    case SELECT_RANDOM: return next_random(random) & 1;
    case SELECT_TORN: return true;
    }
    return false;
}

static void
apply_write(struct inode *f, const struct pending *p, bool torn, uint64_t *random)
{
    uint64_t at = p->offset, end = p->offset + p->n;

    while (at < end) {
        uint64_t next = torn ? (at / SECTOR + 1) * SECTOR : end;

        if (next > end)
            next = end;
        if (!torn || next_random(random) & 1)
            put(&f->data, &f->size, at, p->data + (at - p->offset), (size_t)(next - at));
        at = next;
    }
}

static struct simdisk *
image(const struct simdisk *d, enum selection s, uint64_t parameter)
{
    struct simdisk *n = successor(d);
    struct names names = {0};
    uint64_t random = parameter * 7919 + 17;

    n->inode_count = d->inode_count;
    n->inodes = mem_zalloc(d->inode_count * sizeof *d->inodes);
    for (size_t i = 0; i < d->inode_count; i++) {
        const struct inode *f = &d->inodes[i];

        n->inodes[i].directory = f->directory;
        n->inodes[i].size = f->synced != NULL ? f->synced_size : f->size;
        n->inodes[i].data =
            copy_bytes(f->synced != NULL ? f->synced : f->data, n->inodes[i].size);
    }
    copy_names(&names, &d->durable);
    for (size_t i = 0; i < d->pending_count; i++) {
        const struct pending *p = &d->pending[i];
        bool torn = s == SELECT_TORN && p->kind == PENDING_WRITE;

        if (!selected(s, i, parameter, &random))
            continue;
        if (p->kind == PENDING_NAME)
            apply_name(&names, p);
        else if (p->kind == PENDING_TRUNCATE)
            resize(&n->inodes[p->inode].data, &n->inodes[p->inode].size,
                   (size_t)p->offset);
        else
            apply_write(&n->inodes[p->inode], p, torn, &random);
    }
    for (size_t i = 0; i < names.count; i++) {
        char parent[256];

        parent_of(names.at[i].path, parent, sizeof parent);
        if (names.at[i].inode != NONE && is_directory(d, &names, parent)) {
            set_name(&n->seen, names.at[i].path, names.at[i].inode);
            set_name(&n->durable, names.at[i].path, names.at[i].inode);
        }
    }
    free_names(&names);
    return n;
}

static unsigned
cuts(const struct simdisk *d)
{
    if (d->pending_count < 2)
        return 0;
    return d->pending_count - 1 < MAX_CUTS ? (unsigned)d->pending_count - 1 : MAX_CUTS;
}

unsigned
simdisk_images(const struct simdisk *d)
{
    if (d->pending_count == 0)
        return 1;
    return 2 + 2 * cuts(d) + (d->pending_count > 1 ? RANDOM_IMAGES : 0) + TORN_IMAGES;
}

static enum selection
image_case(const struct simdisk *d, unsigned n, uint64_t *parameter)
{
    unsigned c = cuts(d);

    *parameter = 0;
    if (n == 0)
        return SELECT_NONE;
    if (n == 1)
        return SELECT_ALL;
    n -= 2;
    if (n < 2 * c) {
        /* Of more than MAX_CUTS the newest: older ones had their turn before. */
        *parameter = d->pending_count - 1 - n % c;
        return n < c ? SELECT_PREFIX : SELECT_SUFFIX;
    }
    n -= 2 * c;
    *parameter = d->operations * 64 + n;
    return n < RANDOM_IMAGES && d->pending_count > 1 ? SELECT_RANDOM : SELECT_TORN;
}

struct simdisk *
simdisk_image(const struct simdisk *d, unsigned n)
{
    uint64_t parameter;
    enum selection s = image_case(d, n, &parameter);

    return image(d, s, parameter);
}

struct simdisk *
simdisk_image_last(const struct simdisk *d, size_t n)
{
    return image(d, SELECT_SUFFIX, d->pending_count > n ? d->pending_count - n : 0);
}

struct simdisk *
simdisk_image_torn(const struct simdisk *d, uint64_t seed)
{
    return image(d, SELECT_TORN, seed);
}

const char *
simdisk_image_name(const struct simdisk *d, unsigned n)
{
    static const char *const names[] = {"unsynced operations lost", "all kept",
                                        "the first kept",           "the last kept",
                                        "a random subset kept",     "torn in sectors"};
    uint64_t parameter;
    enum selection s = image_case(d, n, &parameter);

    snprintf(((struct simdisk *)d)->image_name, sizeof d->image_name, "%s (%llu of %zu)",
             names[s], (unsigned long long)parameter, d->pending_count);
    return d->image_name;
}

/* --- the rest of the interface --- */

struct env *
simdisk_env(struct simdisk *d)
{
    return &d->env;
}

uint64_t
simdisk_operations(const struct simdisk *d)
{
    return d->operations;
}

char
simdisk_kind(const struct simdisk *d, uint64_t operation_number)
{
    return operation_number <= d->operations ? (char)d->kinds[operation_number] : '\0';
}

void
simdisk_crash_at(struct simdisk *d, uint64_t n)
{
    d->crash_at = n;
}

bool
simdisk_crashed(const struct simdisk *d)
{
    return d->crashed;
}

void
simdisk_fail_at(struct simdisk *d, uint64_t n, t4_status status)
{
    d->fail_at = n;
    d->fail_status = status;
}

void
simdisk_fail_next_write(struct simdisk *d)
{
    d->fail_write = true;
}

void
simdisk_capacity(struct simdisk *d, uint64_t bytes)
{
    d->capacity = bytes;
}

uint64_t
simdisk_used(struct simdisk *d)
{
    return used(d);
}

void
simdisk_phase(struct simdisk *d, const char *phase)
{
    d->phase = phase;
}

size_t
simdisk_sites(const struct simdisk *d)
{
    return d->site_count;
}

const char *
simdisk_site(const struct simdisk *d, size_t i)
{
    return d->sites[i];
}

void
simdisk_ignore(struct simdisk *d, const char *site)
{
    mem_free(d->ignored);
    d->ignored = site != NULL ? mem_strdup(site) : NULL;
}

uint8_t *
simdisk_file(struct simdisk *d, const char *path, size_t *size)
{
    size_t i = lookup(&d->seen, path);

    if (i == NONE)
        return NULL;
    *size = d->inodes[i].size;
    return d->inodes[i].data;
}

uint64_t
simdisk_bytes_read(const struct simdisk *d)
{
    return d->bytes_read;
}

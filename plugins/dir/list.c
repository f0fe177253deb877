/*
 * list.c - listing of the directory store.
 *
 * The names of one directory are read at once, inside the gate, because some file systems
 * may leave out of readdir() a name whose file is being replaced; then they are sorted by
 * the bytes of the key that they stand for, and folders are gone into one after the other.
 * Folders that cannot hold a key of the page are not read.
 *
 * Entry point: dir_list().  Runs on: any thread.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "dir.h"

#define MAX_DEPTH (DIR_MAX_KEY + 32)

/* A name of a directory: the bytes of the key that it adds, then the name itself. */
struct entry {
    bool folder;
    uint16_t n;
    char *name;
    char bytes[];
};

struct folder {
    struct entry **entries;
    size_t n, capacity;
};

struct walk {
    struct t4_store *store;
    struct t4_call *call;
    struct t4_slice prefix, after;
    uint32_t left;
    t4_list_fn *fn;
    void *arg;
    char key[DIR_MAX_KEY + 256]; /* of the folder that is being read */
    char path[DIR_MAX_NAME + 256];
};

/* --- which names matter ------------------------------------------------------------- */

static int
compare(const char *a, size_t a_length, struct t4_slice b)
{
    size_t n = a_length < b.len ? a_length : b.len;
    int r = n > 0 ? memcmp(a, b.data, n) : 0;

    return r != 0 ? r : a_length < b.len ? -1 : a_length > b.len;
}

static bool
begins(const char *key, size_t n, struct t4_slice prefix)
{
    return n >= prefix.len &&
           (prefix.len == 0 || memcmp(key, prefix.data, prefix.len) == 0);
}

static bool
begins_with(struct t4_slice text, const char *key, size_t n)
{
    return text.len >= n && memcmp(text.data, key, n) == 0;
}

/* Whether the object, or anything in the folder, belongs to the page. */
static bool
matters(const struct walk *w, const char *key, size_t n, bool folder)
{
    if (!begins(key, n, w->prefix) && !(folder && begins_with(w->prefix, key, n)))
        return false;
    return compare(key, n, w->after) > 0 || (folder && begins_with(w->after, key, n));
}

/* --- one directory ------------------------------------------------------------------ */

static void
folder_free(const struct t4_host *host, struct folder *f)
{
    for (size_t i = 0; i < f->n; i++)
        host->free(host, f->entries[i]);
    host->free(host, f->entries);
}

static t4_status
add(const struct t4_host *host, struct folder *f, const char *name, const char *bytes,
    size_t n, bool is_folder)
{
    struct entry *e;

    if (f->n == f->capacity) {
        size_t capacity = f->capacity > 0 ? 2 * f->capacity : 64;
        struct entry **more = host->alloc(host, capacity * sizeof(struct entry *));

        if (more == NULL)
            return T4_E_NOMEM;
        if (f->n > 0)
            memcpy(more, f->entries, f->n * sizeof(struct entry *));
        host->free(host, f->entries);
        f->entries = more;
        f->capacity = capacity;
    }
    e = host->alloc(host, sizeof *e + n + strlen(name) + 1);
    if (e == NULL)
        return T4_E_NOMEM;
    e->folder = is_folder;
    e->n = (uint16_t)n;
    memcpy(e->bytes, bytes, n);
    e->name = e->bytes + n;
    strcpy(e->name, name);
    f->entries[f->n++] = e;
    return T4_OK;
}

static int
order(const void *a, const void *b)
{
    const struct entry *x = *(struct entry *const *)a, *y = *(struct entry *const *)b;

    return compare(x->bytes, x->n, (struct t4_slice){(const uint8_t *)y->bytes, y->n});
}

static t4_status
read_names(struct walk *w, DIR *dir, size_t key_length, struct folder *out)
{
    const struct t4_host *host = w->store->host;
    struct dirent *entry;
    t4_status st = T4_OK;
    bool is_folder;
    char bytes[256];

    while (st == T4_OK && (errno = 0, entry = readdir(dir)) != NULL) {
        int n = dir_part_of(entry->d_name, bytes, &is_folder);

        if (n < 0 || key_length + (size_t)n > DIR_MAX_KEY)
            continue;
        memcpy(w->key + key_length, bytes, (size_t)n);
        if (matters(w, w->key, key_length + (size_t)n, is_folder))
            st = add(host, out, entry->d_name, bytes, (size_t)n, is_folder);
    }
    if (st == T4_OK && errno != 0)
        st = dir_fail(w->store, w->call, errno, T4_E_IO, "read a folder",
                      (struct t4_slice){0});
    return st;
}

/* The names below w->path, sorted; a folder that is gone has none. */
static t4_status
read_folder(struct walk *w, size_t key_length, struct folder *out)
{
    struct t4_store *s = w->store;
    int fd, lock = -1;
    t4_status st;
    DIR *dir;

    *out = (struct folder){0};
    st = dir_enter(s, w->call, &lock);
    if (st == T4_E_DENIED)
        lock = -1; /* a store that nobody here can change: nothing to wait for */
    else if (st != T4_OK)
        return st;
    fd = openat(s->fd, w->path[0] != '\0' ? w->path : ".",
                O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    dir = fd >= 0 ? fdopendir(fd) : NULL;
    if (dir != NULL) {
        st = read_names(w, dir, key_length, out);
        closedir(dir);
    } else {
        st = fd < 0 && errno == ENOENT ? T4_OK
                                       : dir_fail(s, w->call, errno, T4_E_IO,
                                                  "open a folder", (struct t4_slice){0});
        if (fd >= 0)
            close(fd);
    }
    if (lock >= 0)
        dir_leave(s, lock);
    if (st == T4_OK && out->n > 1)
        qsort(out->entries, out->n, sizeof(struct entry *), order);
    if (st != T4_OK)
        folder_free(s->host, out);
    return st;
}

/* --- the walk ----------------------------------------------------------------------- */

static t4_status
give(struct walk *w, size_t key_length)
{
    struct t4_slice key = {(const uint8_t *)w->key, key_length};
    struct t4_object_info info = {.size = sizeof info};
    int fd =
        openat(w->store->fd, w->path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    t4_status st;

    if (fd < 0 && errno == ENOENT)
        return T4_OK; /* removed meanwhile */
    if (fd < 0)
        return dir_fail(w->store, w->call, errno, T4_E_IO, "open", key);
    st = dir_read_info(w->store, w->call, fd, key, &info);
    close(fd);
    if (st != T4_OK)
        return st;
    w->left--;
    return w->fn(w->arg, key, &info);
}

static t4_status
walk_folder(struct walk *w, size_t key_length, size_t path_length, unsigned depth)
{
    struct folder f;
    t4_status st;

    if (depth > MAX_DEPTH)
        return T4_OK; /* deeper than any key */
    st = read_folder(w, key_length, &f);
    if (st != T4_OK)
        return st;
    for (size_t i = 0; i < f.n && st == T4_OK && w->left > 0; i++) {
        const struct entry *e = f.entries[i];
        size_t name_length = strlen(e->name);

        if (path_length + name_length + 2 > sizeof w->path)
            continue; /* longer than any key's path */
        memcpy(w->key + key_length, e->bytes, e->n);
        memcpy(w->path + path_length, e->name, name_length + 1);
        st = dir_check_call(w->store, w->call);
        if (st != T4_OK)
            break;
        if (!e->folder)
            st = give(w, key_length + e->n);
        else {
            strcpy(w->path + path_length + name_length, "/");
            st = walk_folder(w, key_length + e->n, path_length + name_length + 1,
                             depth + 1);
        }
    }
    folder_free(w->store->host, &f);
    return st;
}

t4_status
dir_list(struct t4_store *s, struct t4_call *call, struct t4_slice prefix,
         struct t4_slice after, uint32_t max, t4_list_fn *fn, void *arg)
{
    t4_status st = dir_check_call(s, call);
    struct walk *w;

    if (st == T4_OK)
        st = dir_check_root(s, call);
    if (st != T4_OK)
        return st;
    w = s->host->alloc(s->host, sizeof *w);
    if (w == NULL)
        return T4_E_NOMEM;
    *w = (struct walk){.store = s,
                       .call = call,
                       .prefix = prefix,
                       .after = after,
                       .left = max,
                       .fn = fn,
                       .arg = arg};
    st = walk_folder(w, 0, 0, 0);
    s->host->free(s->host, w);
    return st;
}

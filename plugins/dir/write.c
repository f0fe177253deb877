/*
 * write.c - put and remove of the directory store.
 *
 * A put writes and syncs a temporary file, then gives it its name: by link(), which fails
 * if the name is there (create-if-absent), or by rename() inside the gate.  Only then are
 * the folders synced, and only then is the put answered.  Everything before the name is
 * given has certainly no effect; from then on an error means UNKNOWN.
 *
 * A temporary file is locked as long as its writer lives, so whoever finds one that is not
 * locked may remove it.  Folders that became empty are removed, with no lock: who finds that
 * a folder went away under him makes it again.
 *
 * Entry points: dir_put(), dir_remove(), dir_clean().  Runs on: any thread.
 *
 * Invariants:
 *  (1) the file behind a name is complete and synced before it has the name
 *  (2) a name's file is replaced or removed inside the gate only; created outside of it too
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "dir.h"

#define TEMPORARY ".tmp"
#define PIECE ((size_t)1 << 20)
#define TRIES 100

static const struct t4_slice no_key;

/* --- temporary files ---------------------------------------------------------------- */

static void
remove_if_dead(int folder, const char *name)
{
    int fd = openat(folder, name, O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);

    if (fd < 0)
        return;
    if (flock(fd, LOCK_EX | LOCK_NB) == 0)
        unlinkat(folder, name, 0); /* inside the lock: see open_temporary() */
    close(fd);
}

t4_status
dir_clean(struct t4_store *s, struct t4_call *call)
{
    struct dirent *entry;
    DIR *dir;
    int fd;

    if (mkdirat(s->fd, TEMPORARY, 0700) != 0 && errno != EEXIST && errno != EROFS &&
        errno != EACCES) /* a store that may only be read is one, too */
        return dir_fail(s, call, errno, T4_E_IO, "create the folder " TEMPORARY, no_key);
    fd = openat(s->fd, TEMPORARY, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0 && errno == ENOENT)
        return T4_OK;
    dir = fd >= 0 ? fdopendir(fd) : NULL;
    if (dir == NULL) {
        t4_status st =
            dir_fail(s, call, errno, T4_E_IO, "open the folder " TEMPORARY, no_key);

        if (fd >= 0)
            close(fd);
        return st;
    }
    while ((entry = readdir(dir)) != NULL)
        if (entry->d_name[0] != '.')
            remove_if_dead(fd, entry->d_name);
    closedir(dir);
    return T4_OK;
}

/* A new locked file; -1 and errno.  `name` is its path below the root. */
static int
open_temporary(struct t4_store *s, char name[64])
{
    for (int i = 0; i < TRIES; i++) {
        uint8_t random[12];
        struct stat st;
        size_t n;
        int fd;

        s->host->random(random, sizeof random);
        n = (size_t)snprintf(name, 64, TEMPORARY "/");
        for (size_t k = 0; k < sizeof random; k++)
            n += (size_t)snprintf(name + n, 64 - n, "%02x", random[k]);
        fd = openat(s->fd, name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
        if (fd < 0 && errno == ENOENT && mkdirat(s->fd, TEMPORARY, 0700) == 0)
            continue; /* somebody tidied up */
        if (fd < 0)
            return -1;
        /* Somebody who cleans may have come between: then it is not ours any more. */
        if (flock(fd, LOCK_EX | LOCK_NB) == 0 && fstat(fd, &st) == 0 && st.st_nlink > 0)
            return fd;
        unlinkat(s->fd, name, 0);
        close(fd);
    }
    errno = EAGAIN;
    return -1;
}

static int
write_all(int fd, const void *data, size_t n)
{
    size_t done = 0;

    while (done < n) {
        ssize_t r = write(fd, (const char *)data + done, n - done);

        if (r > 0)
            done += (size_t)r;
        else if (r == 0)
            return EIO;
        else if (errno != EINTR)
            return errno;
    }
    return 0;
}

/* Body and trailer, synced.  The tag is a random number: no two versions share one. */
static t4_status
fill(struct t4_store *s, struct t4_call *call, const struct t4_put *put, int fd)
{
    uint8_t trailer[DIR_TRAILER] = "t4object";
    uint64_t length = put->body.len;
    int number = 0;
    t4_status st;

    for (size_t at = 0; at < put->body.len && number == 0; at += PIECE) {
        size_t n = put->body.len - at < PIECE ? put->body.len - at : PIECE;

        st = dir_check_call(s, call);
        if (st != T4_OK)
            return st;
        number = write_all(fd, put->body.data + at, n);
    }
    for (int i = 0; i < 8; i++)
        trailer[8 + i] = (uint8_t)(length >> (8 * i));
    s->host->random(trailer + 16, 16);
    if (number == 0)
        number = write_all(fd, trailer, sizeof trailer);
    if (number == 0 && fsync(fd) != 0)
        number = errno;
    if (number != 0)
        return dir_fail(s, call, number, T4_E_UNAVAILABLE, "write", put->key);
    return dir_check_call(s, call);
}

/* --- folders ------------------------------------------------------------------------ */

/* Makes every folder of the path; 0 or errno. */
static int
make_folders(int root, const char *path)
{
    char part[DIR_MAX_NAME];
    size_t n = strlen(path);

    memcpy(part, path, n + 1);
    for (size_t i = 1; i < n; i++) {
        if (part[i] != '/')
            continue;
        part[i] = '\0';
        if (mkdirat(root, part, 0700) != 0 && errno != EEXIST)
            return errno;
        part[i] = '/';
    }
    return 0;
}

static int
sync_folder(int root, const char *path)
{
    int fd = openat(root, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC), number = 0;

    if (fd < 0)
        return errno;
    if (fsync(fd) != 0)
        number = errno;
    close(fd);
    return number;
}

/*
 * The folder of the file and all above it: another writer may have made one of them and
 * not have synced it yet.  A folder that is gone again held nothing of ours.
 */
static int
sync_folders(int root, const char *path)
{
    char part[DIR_MAX_NAME];
    char *slash;
    int number;

    strcpy(part, path);
    while ((slash = strrchr(part, '/')) != NULL) {
        *slash = '\0';
        number = sync_folder(root, part);
        if (number != 0 && number != ENOENT)
            return number;
    }
    return fsync(root) == 0 ? 0 : errno;
}

/* --- put ---------------------------------------------------------------------------- */

/* Whether the object's present tag is the one that the put asks for. */
static t4_status
check_match(struct t4_store *s, struct t4_call *call, const struct t4_put *put,
            const char *path)
{
    struct t4_object_info info = {.size = sizeof info};
    int fd = openat(s->fd, path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    t4_status st;

    if (fd < 0 && errno == ENOENT) {
        st = dir_check_root(s, call);
        return st == T4_OK ? T4_E_PRECONDITION : st;
    }
    if (fd < 0)
        return dir_fail(s, call, errno, T4_E_UNAVAILABLE, "open", put->key);
    st = dir_read_info(s, call, fd, put->key, &info);
    close(fd);
    if (st != T4_OK) /* nothing was done to it */
        return st == T4_E_IO ? T4_E_UNAVAILABLE : st;
    if (put->if_match.len != info.tag_length ||
        memcmp(put->if_match.data, info.tag, info.tag_length) != 0)
        return T4_E_PRECONDITION;
    return T4_OK;
}

/*
 * link() over NFS may be carried out and its answer lost; the repeated call then finds the
 * name taken, by this very file.
 */
static bool
is_linked(int fd)
{
    struct stat st;

    return fstat(fd, &st) == 0 && st.st_nlink == 2;
}

/* Gives the file its name; 0 or errno.  ENOENT: a folder went away. */
static int
give_name(struct t4_store *s, const struct t4_put *put, int fd, const char *temporary,
          const char *path)
{
    if (put->condition != T4_PUT_IF_ABSENT)
        return renameat(s->fd, temporary, s->fd, path) == 0 ? 0 : errno;
    if (linkat(s->fd, temporary, s->fd, path, 0) == 0)
        return 0;
    return errno == EEXIST && is_linked(fd) ? 0 : errno;
}

static t4_status
publish(struct t4_store *s, struct t4_call *call, const struct t4_put *put, int fd,
        const char *temporary, const char *path)
{
    int number, lock = -1;
    t4_status st = T4_OK;

    if (put->condition != T4_PUT_IF_ABSENT) /* (2) */
        st = dir_enter(s, call, &lock);
    if (st == T4_OK && put->condition == T4_PUT_IF_MATCH)
        st = check_match(s, call, put, path);
    if (st != T4_OK)
        goto leave;
    for (int i = 0; i < TRIES; i++) {
        number = make_folders(s->fd, path);
        if (number == 0)
            number = give_name(s, put, fd, temporary, path);
        if (number != ENOENT)
            break;
        st = dir_check_root(s, call);
        if (st != T4_OK)
            goto leave;
    }
    if (number == EEXIST)
        st = T4_E_PRECONDITION;
    else if (number != 0)
        st = dir_fail(s, call, number, number == ENOENT ? T4_E_UNAVAILABLE : T4_E_UNKNOWN,
                      "give its name to", put->key);
leave:
    if (lock >= 0)
        dir_leave(s, lock);
    return st;
}

t4_status
dir_put(struct t4_store *s, struct t4_call *call, const struct t4_put *put,
        struct t4_object_info *info)
{
    char path[DIR_MAX_NAME], temporary[64];
    t4_status st = dir_check_call(s, call);
    int fd, number;

    if (st != T4_OK)
        return st;
    if (!dir_path_of(put->key, path))
        return s->host->fail(call, T4_E_INVALID, "a key has 1 to 1024 bytes", NULL, NULL);
    if (put->condition > T4_PUT_IF_MATCH)
        return s->host->fail(call, T4_E_UNSUPPORTED, "unknown condition", NULL, NULL);
    fd = open_temporary(s, temporary);
    if (fd < 0) {
        number = errno;
        st = dir_check_root(s, call);
        return st != T4_OK ? st
                           : dir_fail(s, call, number, T4_E_UNAVAILABLE,
                                      "create a temporary file", no_key);
    }
    st = fill(s, call, put, fd); /* (1) */
    if (st == T4_OK)
        st = publish(s, call, put, fd, temporary, path);
    if (st == T4_OK) {
        number = sync_folders(s->fd, path);
        if (number != 0) {
            dir_fail(s, call, number, T4_E_UNKNOWN, "sync the folder of", put->key);
            st = T4_E_UNKNOWN;
        }
    }
    if (st == T4_OK)
        st = dir_read_info(s, call, fd, put->key, info);
    unlinkat(s->fd, temporary, 0); /* gone already if it was renamed */
    close(fd);
    return st;
}

/* --- remove ------------------------------------------------------------------------- */

static void
remove_empty_folders(int root, char *path)
{
    char *slash;

    while ((slash = strrchr(path, '/')) != NULL) {
        *slash = '\0';
        if (unlinkat(root, path, AT_REMOVEDIR) != 0)
            return;
    }
}

static t4_status
remove_one(struct t4_store *s, struct t4_call *call, struct t4_slice key, char *path)
{
    t4_status st;
    int lock, number;

    st = dir_enter(s, call, &lock); /* (2) */
    if (st != T4_OK)
        return st;
    number = unlinkat(s->fd, path, 0) == 0 ? 0 : errno;
    dir_leave(s, lock);
    if (number == ENOENT)
        return dir_check_root(s, call);
    return number == 0 ? T4_OK : dir_fail(s, call, number, T4_E_IO, "remove", key);
}

/* Keys usually come in order, so each folder is synced once for a run of its keys. */
t4_status
dir_remove(struct t4_store *s, struct t4_call *call, const struct t4_slice *keys,
           size_t n)
{
    char path[DIR_MAX_NAME], next[DIR_MAX_NAME];
    t4_status st = dir_check_call(s, call);
    int number;

    for (size_t i = 0; i < n && st == T4_OK; i++) {
        char *slash, *next_slash;

        if (!dir_path_of(keys[i], path))
            return s->host->fail(call, T4_E_INVALID, "a key has 1 to 1024 bytes", NULL,
                                 NULL);
        st = remove_one(s, call, keys[i], path);
        if (st != T4_OK)
            break;
        slash = strrchr(path, '/');
        if (i + 1 < n && dir_path_of(keys[i + 1], next)) {
            next_slash = strrchr(next, '/');
            if ((slash == NULL) == (next_slash == NULL) &&
                (slash == NULL || (slash - path == next_slash - next &&
                                   memcmp(path, next, (size_t)(slash - path)) == 0)))
                continue;
        }
        number = sync_folders(s->fd, path);
        if (number != 0)
            st = dir_fail(s, call, number, T4_E_IO, "sync the folder of", keys[i]);
        remove_empty_folders(s->fd, path);
    }
    return st;
}

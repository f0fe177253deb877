/*
 * dir.h - what the files of the directory store share.
 *
 * The format is in README.md.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef DIR_DIR_H
#define DIR_DIR_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "t4_plugin.h"

#define DIR_MAX_KEY 1024
/* A key as a path: at most 3 bytes for each of the key, 2 more for each 200 of these. */
#define DIR_MAX_NAME (3 * DIR_MAX_KEY + 64)
#define DIR_CUT 200 /* an encoded part of this length goes on in a folder of its own */

#define DIR_FOLDER '+' /* last byte of the name of a folder: a '/' follows in the key */
#define DIR_MORE '~'   /* ... of a folder: the same part of the key goes on in it */

#define DIR_TRAILER 32 /* bytes behind the body of each object's file */
#define DIR_TAG 32     /* length of a tag: 16 bytes in hexadecimal */

struct dir_plugin {
    const struct t4_host *host;
};

struct t4_store {
    const struct t4_host *host; /* [const] */
    char *path;                 /* [const] for messages */
    int fd;                     /* [const] the directory */
    pthread_mutex_t mutex;
    pthread_cond_t freed; /* the gate is free again; CLOCK_MONOTONIC */
    bool taken;           /* [mutex] a thread of this store has the gate */
};

/* --- names.c ------------------------------------------------------------------------ */

/* Writes the path of a key's file below the root; false: the key is out of bounds. */
bool dir_path_of(struct t4_slice key, char out[DIR_MAX_NAME]);
/*
 * Reads one name of a directory: the bytes of the key that it stands for go to out (and a
 * '/' at the end for a folder).  Returns their number, -1 for a name that no key gives.
 * *folder: whether there are names below it.
 */
int dir_part_of(const char *name, char out[256], bool *folder);

/* --- dir.c -------------------------------------------------------------------------- */

/* Reports errno `number` of doing `what` to the file of `key` (or to the directory). */
t4_status dir_fail(const struct t4_store *s, struct t4_call *call, int number,
                   t4_status otherwise, const char *what, struct t4_slice key);
/* TIMEOUT or CANCELLED, if the call has come to that. */
t4_status dir_check_call(const struct t4_store *s, struct t4_call *call);
/* OK if the directory is still there: before "not found" is said. */
t4_status dir_check_root(const struct t4_store *s, struct t4_call *call);
int64_t dir_wall_ms(void);

/*
 * The gate: held by at most one thread of all processes that use the directory.  *out is
 * for dir_leave().  BUSY, TIMEOUT, CANCELLED, DENIED: not held.
 */
t4_status dir_enter(struct t4_store *s, struct t4_call *call, int *out);
void dir_leave(struct t4_store *s, int lock);

/* --- read.c ------------------------------------------------------------------------- */

/* Reads the trailer of an open file; NOTFOUND never, CORRUPT: it has none. */
t4_status dir_read_info(const struct t4_store *s, struct t4_call *call, int fd,
                        struct t4_slice key, struct t4_object_info *info);
t4_status dir_get(struct t4_store *s, struct t4_call *call, struct t4_slice key,
                  uint64_t offset, uint64_t length, t4_sink_fn *sink, void *arg,
                  struct t4_object_info *info);
t4_status dir_head(struct t4_store *s, struct t4_call *call, struct t4_slice key,
                   struct t4_object_info *info);

/* --- write.c ------------------------------------------------------------------------ */

/* Makes the folder of temporary files, removes what dead writers left in it. */
t4_status dir_clean(struct t4_store *s, struct t4_call *call);
t4_status dir_put(struct t4_store *s, struct t4_call *call, const struct t4_put *put,
                  struct t4_object_info *info);
t4_status dir_remove(struct t4_store *s, struct t4_call *call,
                     const struct t4_slice *keys, size_t n);

/* --- list.c ------------------------------------------------------------------------- */

t4_status dir_list(struct t4_store *s, struct t4_call *call, struct t4_slice prefix,
                   struct t4_slice after, uint32_t max, t4_list_fn *fn, void *arg);

#endif

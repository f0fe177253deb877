/*
 * env.h - the only way to files, clocks and randomness.
 *
 * All file access of log, identity and other metadata goes through struct env, so that a
 * test can put a simulated disk (one that loses, tears and reorders what was not synced)
 * and its own clock underneath.  env_posix() is the real one.  (Storage plugins do their
 * own I/O.)
 *
 * Every function may be called from any thread; one file's pwrite and sync may overlap
 * with pread.  Errors come back as t4_status with the reason in *error (which may be
 * NULL): NOTFOUND, EXISTS, NOSPACE (ENOSPC, EDQUOT: nothing about the file is in doubt),
 * BUSY (lock held elsewhere), IO (everything else; for a sync: nothing about the file is
 * known any more).
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef ENV_ENV_H
#define ENV_ENV_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

struct env_file; /* opaque, owned by whoever opened it */

#define ENV_CREATE 1u /* create; with EXCLUSIVE: fail with EXISTS if it is there */
#define ENV_EXCLUSIVE 2u
#define ENV_READONLY 4u

struct env_stat {
    uint64_t size, inode;
    uint64_t device; /* id of the file system, where it has one that stays the same */
};

struct env {
    void *state; /* of the implementation, first argument of each function */

    t4_status (*open)(void *, const char *path, unsigned flags, struct env_file **,
                      struct error *); /* created with mode 0600 */
    void (*close)(void *, struct env_file *);
    t4_status (*pread)(void *, struct env_file *, void *data, size_t n, uint64_t offset,
                       size_t *got,
                       struct error *); /* short only at the end of the file */
    t4_status (*pwrite)(void *, struct env_file *, const void *data, size_t n,
                        uint64_t offset, struct error *); /* all of it or an error */
    t4_status (*datasync)(void *, struct env_file *, struct error *); /* fdatasync */
    t4_status (*sync)(void *, struct env_file *, struct error *);     /* fsync */
    t4_status (*truncate)(void *, struct env_file *, uint64_t size, struct error *);
    t4_status (*stat)(void *, const char *path, struct env_stat *, struct error *);
    t4_status (*lock)(void *, struct env_file *,
                      struct error *); /* exclusive, BUSY if held */
    t4_status (*rename)(void *, const char *from, const char *to, struct error *);
    t4_status (*unlink)(void *, const char *path, struct error *);
    t4_status (*mkdir)(void *, const char *path, struct error *); /* 0700; EXISTS is OK */
    t4_status (*sync_dir)(void *, const char *path, struct error *);
    /* Calls fn for each entry of a directory, in no order, without . and .. */
    t4_status (*list)(void *, const char *path, void (*fn)(void *arg, const char *name),
                      void *arg, struct error *);

    /* Bytes that can still be written to the file system of `path` (quotas not counted). */
    t4_status (*free_space)(void *, const char *path, uint64_t *bytes, struct error *);

    uint64_t (*wall_ns)(void *); /* CLOCK_REALTIME */
    uint64_t (*boot_ns)(void *); /* CLOCK_BOOTTIME: never goes back, counts suspend */
    void (*random)(void *, void *buffer, size_t n);
};

/* The real one; static, never freed. */
struct env *env_posix(void);

#endif

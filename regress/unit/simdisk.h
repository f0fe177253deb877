/*
 * simdisk.h - a disk in memory that loses, tears and reorders what was not synced.
 *
 * Implements struct env.  For each file it keeps what a running system sees (the page
 * cache) and what is on the disk, and between them the list of pending operations: writes
 * that no sync covered, and creations, renames and removals that no sync of their
 * directory covered. At a crash any subset of the pending operations may have reached the
 * disk; simdisk_image() makes the disk that one such subset leaves.  Stricter than real
 * file systems: a file's own sync does not make its name durable, and operations on names
 * may be lost in any order.
 *
 * All operations that change something are numbered from 1.  One lock, any thread.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef SIMDISK_H
#define SIMDISK_H

#include "env/env.h"

struct simdisk;

struct simdisk *simdisk_new(uint64_t seed);
void simdisk_free(struct simdisk *d);
struct env *simdisk_env(struct simdisk *d);

/* --- operations --- */
uint64_t simdisk_operations(const struct simdisk *d);
/* 'w' write or truncate, 'n' a name, 's' sync of a file, 'd' sync of a directory. */
char simdisk_kind(const struct simdisk *d, uint64_t operation);

/* --- crashes --- */
/* Operation n happens at most in the page cache; then every call fails.  0: never */
void simdisk_crash_at(struct simdisk *d, uint64_t n);
bool simdisk_crashed(const struct simdisk *d);
/* The process was killed, the machine runs on: page cache and pending operations stay. */
struct simdisk *simdisk_kill(const struct simdisk *d);
/*
 * The power was cut: the disk of case n of simdisk_images(), with nothing pending.  Both
 * new disks go on with the numbering, crash point, faults and phase of the old one.
 */
unsigned simdisk_images(const struct simdisk *d);
struct simdisk *simdisk_image(const struct simdisk *d, unsigned n);
/* What case n is; valid until the next call. */
const char *simdisk_image_name(const struct simdisk *d, unsigned n);
/* Only the last n pending operations reached the disk. */
struct simdisk *simdisk_image_last(const struct simdisk *d, size_t n);
/* The last group torn: the unsynced writes, each in sectors chosen by the seed. */
struct simdisk *simdisk_image_torn(const struct simdisk *d, uint64_t seed);

/* --- faults --- */
/* Operation n fails with this status; a write may leave its first half. */
void simdisk_fail_at(struct simdisk *d, uint64_t n, t4_status status);
/* The next write to a segment of the log leaves its first half, then NOSPACE. */
void simdisk_fail_next_write(struct simdisk *d);
/* No file may grow when all files together would exceed this.  0: no bound */
void simdisk_capacity(struct simdisk *d, uint64_t bytes);
uint64_t simdisk_used(struct simdisk *d);

/*
 * --- syncs by site --- A site is "phase: kind object", for example "prepare: fsync of a
 * new segment".  Every site that was met is remembered in order; a sync at the ignored
 * site answers OK and does nothing.
 */
void simdisk_phase(struct simdisk *d, const char *phase); /* a literal */
size_t simdisk_sites(const struct simdisk *d);
const char *simdisk_site(const struct simdisk *d, size_t i);
void simdisk_ignore(struct simdisk *d, const char *site); /* NULL: none */

/* --- looking inside --- */
/* Content of a file as a running system sees it; NULL: no such file.  May be changed. */
uint8_t *simdisk_file(struct simdisk *d, const char *path, size_t *size);
uint64_t simdisk_bytes_read(const struct simdisk *d);

#endif

/*
 * bolt.h - files of bbolt, the embedded database that etcd keeps its state in: one file of
 * pages, in it named buckets of sorted keys.
 *
 * Only what snapshots need: a file is written from beginning to end out of sorted records, and
 * read from beginning to end, both in bounded memory.  Nothing here knows what etcd puts into
 * it.  The format stands at the top of writer.c; a page's bytes are layout.h's.
 *
 * A writer or reader belongs to one thread at a time; the env_file stays the caller's.
 *
 * Errors: CORRUPT names page and bucket; INVALID: the caller broke the contract, or (opening)
 * this is no such file; else env's.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef BOLT_BOLT_H
#define BOLT_BOLT_H

#include "base/buffer.h"
#include "env/env.h"

#define BOLT_NAME_MAX 255 /* bytes of a bucket's name */
#define BOLT_KEY_MAX 32768u
#define BOLT_PAGE_MAX (256u << 20) /* a page with what it overflows into */

/* --- writing (writer.c) ------------------------------------------------------------------ */

struct bolt_writer;

/* Into an empty file, in pages of 4 KiB. */
struct bolt_writer *bolt_writer_new(struct env *env, struct env_file *file);
void bolt_writer_free(struct bolt_writer *w); /* NULL is fine */
/* The records that follow go into this bucket; names in any order, none twice. */
t4_status bolt_writer_bucket(struct bolt_writer *w, struct t4_slice name,
                             struct error *error);
/* Keys ascend within a bucket, and have 1 to BOLT_KEY_MAX bytes.  Everything is copied. */
t4_status bolt_writer_put(struct bolt_writer *w, struct t4_slice key,
                          struct t4_slice value, struct error *error);
/* Completes the file, which is not synced.  *size: its bytes.  Only free is left then. */
t4_status bolt_writer_finish(struct bolt_writer *w, uint64_t *size, struct error *error);

/* --- reading (reader.c) ------------------------------------------------------------------ */

struct bolt_reader;

/*
 * Opens the first `size` bytes of a file as of its newest valid transaction.  INVALID: it is no
 * such file (or of another version, or of a machine with another order of bytes).
 */
t4_status bolt_reader_open(struct env *env, struct env_file *file, uint64_t size,
                           struct bolt_reader **out, struct error *error);
void bolt_reader_close(struct bolt_reader *r);           /* NULL is fine */
uint64_t bolt_reader_bytes(const struct bolt_reader *r); /* up to its last used page */

/*
 * Begins at the first record of a bucket, NULL: of the list of buckets.  NOTFOUND: there is no
 * such bucket.
 */
t4_status bolt_reader_bucket(struct bolt_reader *r, const char *name,
                             struct error *error);
/*
 * The next record: keys ascend, and each page is read once at most, whatever the file says.  NOTFOUND
 * at the end.  Key and value are valid until the next call.  In the list of buckets the key is the
 * name, and the value of no use.
 */
t4_status bolt_reader_next(struct bolt_reader *r, struct t4_slice *key,
                           struct t4_slice *value, struct error *error);

#endif

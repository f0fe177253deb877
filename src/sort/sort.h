/*
 * sort.h - records sorted on disk, in bounded memory.
 *
 * Records are added in any order and given back in the order of their keys' bytes; equal keys
 * come one after the other.  What does not fit into memory goes to a temporary file, whose name
 * is removed at once: whatever becomes of the process, nothing stays behind.
 *
 * A sort belongs to one thread at a time.  Errors: env's, with the folder named; IO if a
 * temporary file does not give back what was written.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef SORT_SORT_H
#define SORT_SORT_H

#include "env/env.h"
#include "sst/sst.h"

#define SORT_MEMORY (32u << 20)
#define SORT_RECORD_MAX (128u << 20) /* key and value together */

struct sort;

/* dir: for temporary files; copied.  memory: bytes sorted at a time; 0: SORT_MEMORY. */
struct sort *sort_new(struct env *env, const char *dir, size_t memory);
void sort_free(struct sort *s); /* NULL is fine */
/* Everything is copied.  INVALID: above SORT_RECORD_MAX. */
t4_status sort_add(struct sort *s, struct t4_slice key, struct t4_slice value,
                   struct error *error);
/*
 * What was added, in order; afterwards nothing can be added.  NOTFOUND at the end.  Key and value
 * are valid until the next call.
 */
t4_status sort_next(struct sort *s, struct t4_slice *key, struct t4_slice *value,
                    struct error *error);
struct sst_source sort_source(struct sort *s);

/*
 * A new temporary file below dir, already without a name.  What a crash in between leaves is
 * called "tmp-...": temporary_clean() removes it.
 */
t4_status temporary_open(struct env *env, const char *dir, struct env_file **out,
                         struct error *error);
/* Makes the folder, if it is not there, and empties it. */
t4_status temporary_clean(struct env *env, const char *dir, struct error *error);

#endif

/*
 * built_in_store.h - where the built-in store of a data directory is.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef BACKENDS_BUILT_IN_STORE_H
#define BACKENDS_BUILT_IN_STORE_H

#include "base/buffer.h"
#include "base/error.h"

/*
 * Appends file://<absolute path of data_dir>/store and a terminator.  IO: there is no working
 * directory to make the path absolute by.
 */
t4_status built_in_store_url(const char *data_dir, struct buffer *url,
                             struct error *error);
/*
 * The same, of a store that is there.  NOTFOUND: a server that has written nothing yet, or runs
 * with --object-store, has no such folder.
 */
t4_status built_in_store_find(const char *data_dir, struct buffer *url,
                              struct error *error);

#endif

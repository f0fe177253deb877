/*
 * from_snapshot.h - `t4 run --from-snapshot`.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef SERVER_FROM_SNAPSHOT_H
#define SERVER_FROM_SNAPSHOT_H

#include "object/object.h"
#include "server/options.h"

/*
 * Fills the empty store with the state of the snapshot that the options name, before the node is
 * opened on an empty data directory.  A directory that was begun from the same snapshot is left as it
 * is.  INVALID: directory or store are not empty, or it is no file for this.
 */
t4_status from_snapshot(const struct run_options *o, struct object_store *store,
                        struct error *error);

#endif

/*
 * inspect_remote.h - what t4 inspect asks of a server: the same as of a directory (inspect.h), by
 * etcd's API alone, so it works with every server that speaks it.
 *
 * The state is that of one revision, the current one when remote_begin() was called, whatever
 * happens meanwhile.  Main thread only.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef SERVER_INSPECT_REMOTE_H
#define SERVER_INSPECT_REMOTE_H

#include "client/client.h"
#include "inspect/inspect.h"
#include "pb/etcd/rpc.pb-c.h"

struct remote {
    struct client *client;       /* the caller's */
    uint64_t timeout_ns;         /* of one call */
    int64_t revision, compacted; /* compacted -1: never */
    Etcdserverpb__StatusResponse *status;
};

/* Errors, here and below: the server's. */
t4_status remote_begin(struct remote *r, struct error *error);
void remote_end(struct remote *r);

t4_status remote_keys(struct remote *r, struct t4_slice lo, struct t4_slice hi,
                      int64_t revision, inspect_version_fn *give, void *arg,
                      struct error *error);
t4_status remote_count(struct remote *r, struct t4_slice lo, struct t4_slice hi,
                       int64_t revision, uint64_t *count, struct error *error);
/*
 * Both read the changes in the order they were made, by a watch, so what is shown is gathered
 * first: the newest `limit` versions (0: all), or every key that changed.  NOSPACE: that is more
 * than 256 MiB.
 */
t4_status remote_history(struct remote *r, struct t4_slice key, uint64_t limit,
                         inspect_version_fn *give, void *arg, struct error *error);
t4_status remote_diff(struct remote *r, struct t4_slice lo, struct t4_slice hi,
                      int64_t from, int64_t to, inspect_change_fn *give, void *arg,
                      struct error *error);

#endif

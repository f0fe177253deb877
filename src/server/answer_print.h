/*
 * answer_print.h - answers of a server as etcdctl 3.6 prints them: "simple" and JSON.
 *
 * The bytes are the same as etcdctl's (regress/t/551_etcdctl_alike.t compares them).  All write to
 * standard output.  Main thread only.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef SERVER_ANSWER_PRINT_H
#define SERVER_ANSWER_PRINT_H

#include "base/buffer.h"
#include "pb/etcd/rpc.pb-c.h"

struct answer_style {
    bool json;
    bool hex;        /* simple: keys and values as \x61\x62 */
    bool value_only; /* simple: values without their keys */
};

/*
 * Appends a message as Go's encoding/json writes etcd's generated structs: fields in their
 * order, defaults left out, numbers as numbers, bytes in base64.
 */
void message_json_append(struct buffer *out, const ProtobufCMessage *message);
/* The same, on a line of its own, of a message with nothing special about it. */
void print_message(const void *message);

void print_range(const struct answer_style *style,
                 const Etcdserverpb__RangeResponse *answer);
void print_put(const struct answer_style *style, const Etcdserverpb__PutResponse *answer);
void print_delete(const struct answer_style *style,
                  const Etcdserverpb__DeleteRangeResponse *answer);
void print_txn(const struct answer_style *style, const Etcdserverpb__TxnResponse *answer);
void print_watch(const struct answer_style *style,
                 const Etcdserverpb__WatchResponse *answer);
void print_lease_grant(const struct answer_style *style,
                       const Etcdserverpb__LeaseGrantResponse *answer);
void print_lease_keep_alive(const struct answer_style *style,
                            const Etcdserverpb__LeaseKeepAliveResponse *answer);
void print_lease_time(const struct answer_style *style, bool keys,
                      const Etcdserverpb__LeaseTimeToLiveResponse *answer);
void print_leases(const struct answer_style *style,
                  const Etcdserverpb__LeaseLeasesResponse *answer);

#endif

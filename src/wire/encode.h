/*
 * encode.h - etcd's response messages, encoded by hand into chains.
 *
 * Field numbers are those of proto/etcd; fields with their default value are left
 * out, as proto3 does.  Responses are complete messages, header included, ready for any
 * transport.  Pure functions, any thread.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef WIRE_ENCODE_H
#define WIRE_ENCODE_H

#include <stdbool.h>

#include "wire/chain.h"

#define ETCD_STORAGE_VERSION "3.6.0" /* of the database format that is reproduced */

/* mvccpb.KeyValue */
struct key_value {
    struct t4_slice key, value;
    int64_t create_revision, mod_revision, version, lease;
};

/* etcdserverpb.ResponseHeader; in nested responses of a Txn only revision is set */
struct response_header {
    uint64_t cluster_id, member_id, raft_term;
    int64_t revision;
};

static inline size_t
varint_size(uint64_t v)
{
    return 1 + (size_t)(63 - __builtin_clzll(v | 1)) / 7;
}

/* Single fields; a zero integer, an empty slice and false write nothing. */
void wire_varint_field(struct chain *c, uint32_t field, uint64_t v);
void wire_bytes_field(struct chain *c, uint32_t field, struct t4_slice s);
/* Tag and length of an embedded message of `length` bytes that the caller writes next. */
void wire_message_head(struct chain *c, uint32_t field, size_t length);
/* An embedded message encoded before in its own chain; inner is left empty. */
void wire_message_field(struct chain *c, uint32_t field, struct chain *inner);

void wire_header_field(struct chain *c, uint32_t field, const struct response_header *h);
/* Size of the header with tag and length, and the same written to `p`; returns its end. */
size_t wire_header_field_size(const struct response_header *h);
uint8_t *wire_header_field_write(uint8_t *p, uint32_t field,
                                 const struct response_header *h);
/* Size of a KeyValue message without tag and length. */
size_t wire_key_value_size(const struct key_value *kv);
/* The same, written to `p`, which has room for it; returns its end. */
uint8_t *wire_key_value_write(uint8_t *p, const struct key_value *kv);
/* A KeyValue as field `field` (RangeResponse.kvs 2, PutResponse.prev_kv 2, prev_kvs 3). */
void wire_key_value_field(struct chain *c, uint32_t field, const struct key_value *kv);

#define WIRE_EVENT_PUT 0
#define WIRE_EVENT_DELETE 1
/* One WatchResponse.events (field 11); prev may be NULL. */
void wire_event_field(struct chain *c, int type, const struct key_value *kv,
                      const struct key_value *prev);

/*
 * Bounded look at a message before protobuf-c unpacks it: walks the bytes without recursion
 * on the machine's stack and checks the nesting depth and the number of items.  `schema` says
 * which fields are messages.
 *
 * max_depth: how many messages may stand one in another below the outermost, at most
 * WIRE_SCAN_DEPTH_MAX (a Txn nested n levels with a plain operation at the bottom has 2 n).
 * max_items: embedded messages, plus fields that repeat (number not above that of the field
 * before) and fields numbered above 64, which etcd has none of: everything that costs
 * protobuf-c memory out of proportion to its bytes.
 */
#define WIRE_SCAN_DEPTH_MAX 64u
enum wire_scan_result {
    WIRE_SCAN_OK,
    WIRE_SCAN_MALFORMED,
    WIRE_SCAN_TOO_DEEP,
    WIRE_SCAN_TOO_MANY
};

/* Field numbers of a message type that hold messages, and their types; ends with field 0. */
struct wire_schema {
    uint32_t field;
    const struct wire_schema *type;
};

/* For etcdserverpb.TxnRequest, WatchRequest, and for messages without embedded ones. */
extern const struct wire_schema wire_schema_txn[];
extern const struct wire_schema wire_schema_watch[];
extern const struct wire_schema wire_schema_flat[];
/* With a message in field 1 (a LeaderKey), 2 (a Permission) or 3 (options of a user). */
extern const struct wire_schema wire_schema_leader[];
extern const struct wire_schema wire_schema_permission[];
extern const struct wire_schema wire_schema_user[];

enum wire_scan_result wire_scan(struct t4_slice message, const struct wire_schema *schema,
                                uint32_t max_depth, uint32_t max_items);

#endif

/*
 * info.c - calls that are answered from the node's status: Maintenance.
 *
 * Threads: polling threads; nothing here blocks.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <inttypes.h>
#include <stdio.h>

#include "api/grpc/grpc_int.h"
#include "pb/etcd/rpc.pb-c.h"

/* As Go prints the message. */
static void
describe_alarm(const struct node_alarm *a, char *out, size_t n)
{
    static const char *const name[] = {"", "NOSPACE", "CORRUPT"};
    char member[40] = "", kind[24] = "";

    if (a->member_id != 0)
        snprintf(member, sizeof member, "memberID:%" PRIu64 " ", a->member_id);
    if (a->kind == ALARM_NOSPACE || a->kind == ALARM_CORRUPT)
        snprintf(kind, sizeof kind, "alarm:%s ", name[a->kind]);
    else if (a->kind != ALARM_NONE)
        snprintf(kind, sizeof kind, "alarm:%" PRId32 " ", a->kind);
    snprintf(out, n, "%s%s", member, kind);
}

void
maintenance_status(struct call *c, const ProtobufCMessage *m)
{
    struct node *node = c->queue->api->node;
    struct response_header header;
    struct node_status status;
    struct chain out;
    char alarm[80];

    (void)m;
    node_status(node, &status);
    node_header(node, &header);
    chain_init(&out);
    wire_header_field(&out, 1, &header);
    wire_bytes_field(&out, 2, slice_str(NODE_ETCD_VERSION));
    wire_varint_field(&out, 3, status.db_bytes);
    wire_varint_field(&out, 4, status.member_id);
    wire_varint_field(&out, 5, status.index);
    wire_varint_field(&out, 6, status.term);
    wire_varint_field(&out, 7, status.applied_index);
    for (uint32_t i = 0; i < status.n_alarms; i++) {
        describe_alarm(&status.alarm[i], alarm, sizeof alarm);
        wire_bytes_field(&out, 8, slice_str(alarm));
    }
    wire_varint_field(&out, 9, status.db_in_use_bytes);
    wire_bytes_field(&out, 11, slice_str(ETCD_STORAGE_VERSION));
    wire_varint_field(&out, 12, (uint64_t)status.quota_bytes);
    wire_message_head(&out, 13, 0); /* downgradeInfo: there, and nothing going on */
    call_reply(c, ETCD_OK, &out);
}

/*
 * info.c - calls that are answered from the node's status: Maintenance.
 *
 * Threads: polling threads; nothing here blocks.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "api/grpc/grpc_int.h"
#include "pb/etcd/rpc.pb-c.h"

/* What etcd 3.6 reports as its storage's format. */
#define STORAGE_VERSION "3.6.0"

void
maintenance_status(struct call *c, const ProtobufCMessage *m)
{
    struct node *node = c->queue->api->node;
    struct response_header header;
    struct node_status status;
    struct chain out;
    char alarm[64];

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
    if (status.nospace) {
        snprintf(alarm, sizeof alarm, "memberID:%" PRIu64 " alarm:NOSPACE ",
                 status.member_id);
        wire_bytes_field(&out, 8, slice_str(alarm));
    }
    wire_varint_field(&out, 9, status.db_in_use_bytes);
    wire_bytes_field(&out, 11, slice_str(STORAGE_VERSION));
    wire_varint_field(&out, 12, NODE_QUOTA_BYTES);
    wire_message_head(&out, 13, 0); /* downgradeInfo: there, and nothing going on */
    call_reply(c, ETCD_OK, &out);
}

void
maintenance_alarm(struct call *c, const ProtobufCMessage *message)
{
    const Etcdserverpb__AlarmRequest *m = (const void *)message;
    struct node *node = c->queue->api->node;
    struct response_header header;
    struct node_status status;
    struct chain out, member;

    if (m->action != ETCDSERVERPB__ALARM_REQUEST__ALARM_ACTION__GET &&
        m->action != ETCDSERVERPB__ALARM_REQUEST__ALARM_ACTION__DEACTIVATE) {
        call_refuse(
            c, GRPC_STATUS_UNIMPLEMENTED,
            "t4: only the server raises alarms; of the actions GET and DEACTIVATE "
            "are offered");
        return;
    }
    node_status(node, &status);
    node_header(node, &header);
    chain_init(&out);
    wire_header_field(&out, 1, &header);
    /*
     * Listed are the alarms that are up; DEACTIVATE lists those it took down, and there are
     * none: a full disk's alarm goes when there is room again, not before.
     */
    if (m->action == ETCDSERVERPB__ALARM_REQUEST__ALARM_ACTION__GET && status.nospace &&
        (m->memberid == 0 || m->memberid == status.member_id) &&
        (m->alarm == ETCDSERVERPB__ALARM_TYPE__NONE ||
         m->alarm == ETCDSERVERPB__ALARM_TYPE__NOSPACE)) {
        chain_init(&member);
        wire_varint_field(&member, 1, status.member_id);
        wire_varint_field(&member, 2, ETCDSERVERPB__ALARM_TYPE__NOSPACE);
        wire_message_field(&out, 2, &member);
    }
    call_reply(c, ETCD_OK, &out);
}

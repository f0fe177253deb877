/*
 * info.c - calls that are answered from the node's status: Maintenance, Cluster, Health.
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
#include "pb/grpc/health.pb-c.h"

/* What etcd 3.6 reports: its storage's format, and the quota it has by default. */
#define STORAGE_VERSION "3.6.0"
#define QUOTA_BYTES 2147483648u
/* A single node has no peers; etcd's own default, which clients print and never dial. */
#define PEER_URL "http://localhost:2380"

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
    wire_varint_field(&out, 12, QUOTA_BYTES);
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

void
cluster_member_list(struct call *c, const ProtobufCMessage *m)
{
    struct node *node = c->queue->api->node;
    struct response_header header;
    struct node_status status;
    struct chain out, member;
    const char *url, *end;

    (void)m;
    node_status(node, &status);
    node_header(node, &header);
    header.revision = 0; /* the Cluster service's headers have none */
    chain_init(&out);
    chain_init(&member);
    wire_varint_field(&member, 1, status.member_id);
    wire_bytes_field(&member, 2, slice_str(status.name));
    wire_bytes_field(&member, 3, slice_str(PEER_URL));
    for (url = status.advertise_urls; url != NULL && *url != 0; url = end) {
        end = strchr(url, ',');
        wire_bytes_field(&member, 4,
                         slice_of(url, end != NULL ? (size_t)(end - url) : strlen(url)));
        end = end != NULL ? end + 1 : url + strlen(url);
    }
    wire_header_field(&out, 1, &header);
    wire_message_field(&out, 2, &member);
    call_reply(c, ETCD_OK, &out);
}

void
health_check(struct call *c, const ProtobufCMessage *message)
{
    const Grpc__Health__V1__HealthCheckRequest *m = (const void *)message;
    struct chain out;

    if (m->service != NULL && m->service[0] != 0) {
        call_refuse(c, GRPC_STATUS_NOT_FOUND, "unknown service");
        return;
    }
    chain_init(&out);
    wire_varint_field(&out, 1,
                      GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__SERVING);
    call_reply(c, ETCD_OK, &out);
}

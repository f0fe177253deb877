/*
 * methods.c - every method that is served, once.  Any other path ends in unknown.c.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "api/grpc/grpc_int.h"
#include "pb/etcd/rpc.pb-c.h"
#include "pb/grpc/health.pb-c.h"

#define UNARY(path_, slots_, write_, type_, schema_, handle_)                            \
    {                                                                                    \
        .path = path_, .slots = slots_, .write = write_, .type = &type_##__descriptor,   \
        .schema = wire_schema_##schema_, .handle = handle_                               \
    }
#define STREAM(path_, slots_, type_, schema_, kind_)                                     \
    {                                                                                    \
        .path = path_, .slots = slots_, .type = &type_##__descriptor,                    \
        .schema = wire_schema_##schema_, .kind = &kind_                                  \
    }

/* clang-format off */
const struct method methods[] = {
    UNARY("/etcdserverpb.KV/Range", 64, false,
          etcdserverpb__range_request, flat, kv_range),
    UNARY("/etcdserverpb.KV/Put", 64, true,
          etcdserverpb__put_request, flat, kv_put),
    UNARY("/etcdserverpb.KV/Txn", 64, true,
          etcdserverpb__txn_request, txn, kv_txn),
    UNARY("/etcdserverpb.KV/DeleteRange", 16, true,
          etcdserverpb__delete_range_request, flat, kv_delete_range),
    UNARY("/etcdserverpb.KV/Compact", 4, true,
          etcdserverpb__compaction_request, flat, kv_compact),
    UNARY("/etcdserverpb.Lease/LeaseGrant", 8, true,
          etcdserverpb__lease_grant_request, flat, lease_grant),
    UNARY("/etcdserverpb.Lease/LeaseRevoke", 8, true,
          etcdserverpb__lease_revoke_request, flat, lease_revoke),
    UNARY("/etcdserverpb.Lease/LeaseTimeToLive", 4, false,
          etcdserverpb__lease_time_to_live_request, flat, lease_time_to_live),
    UNARY("/etcdserverpb.Lease/LeaseLeases", 4, false,
          etcdserverpb__lease_leases_request, flat, lease_leases),
    UNARY("/etcdserverpb.Maintenance/Status", 4, false,
          etcdserverpb__status_request, flat, maintenance_status),
    UNARY("/etcdserverpb.Maintenance/Alarm", 4, false,
          etcdserverpb__alarm_request, flat, maintenance_alarm),
    UNARY("/etcdserverpb.Cluster/MemberList", 4, false,
          etcdserverpb__member_list_request, flat, cluster_member_list),
    UNARY("/grpc.health.v1.Health/Check", 4, false,
          grpc__health__v1__health_check_request, flat, health_check),
    STREAM("/etcdserverpb.Watch/Watch", 16,
           etcdserverpb__watch_request, watch, watch_stream_kind),
    STREAM("/etcdserverpb.Lease/LeaseKeepAlive", 8,
           etcdserverpb__lease_keep_alive_request, flat, keepalive_stream_kind),
};
/* clang-format on */

const uint32_t n_methods = sizeof methods / sizeof methods[0];
_Static_assert(sizeof methods / sizeof methods[0] <= METHODS_MAX, "raise METHODS_MAX");

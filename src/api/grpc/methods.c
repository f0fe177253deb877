/*
 * methods.c - every method that is served, once.  Any other path ends in unknown.c.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "api/grpc/grpc_int.h"
#include "pb/etcd/election.pb-c.h"
#include "pb/etcd/lock.pb-c.h"
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
    UNARY("/etcdserverpb.Maintenance/Defragment", 2, false,
          etcdserverpb__defragment_request, flat, maintenance_defragment),
    UNARY("/etcdserverpb.Maintenance/Hash", 2, false,
          etcdserverpb__hash_request, flat, maintenance_hash),
    UNARY("/etcdserverpb.Maintenance/HashKV", 2, false,
          etcdserverpb__hash_kvrequest, flat, maintenance_hash_kv),
    UNARY("/etcdserverpb.Cluster/MemberList", 4, false,
          etcdserverpb__member_list_request, flat, cluster_member_list),
    UNARY("/grpc.health.v1.Health/Check", 4, false,
          grpc__health__v1__health_check_request, flat, health_check),
    UNARY("/etcdserverpb.Maintenance/MoveLeader", 2, false,
          etcdserverpb__move_leader_request, flat, maintenance_move_leader),
    UNARY("/etcdserverpb.Maintenance/Downgrade", 2, false,
          etcdserverpb__downgrade_request, flat, maintenance_downgrade),
    UNARY("/etcdserverpb.Cluster/MemberAdd", 2, false,
          etcdserverpb__member_add_request, flat, cluster_member_add),
    UNARY("/etcdserverpb.Cluster/MemberRemove", 2, false,
          etcdserverpb__member_remove_request, flat, cluster_member_remove),
    UNARY("/etcdserverpb.Cluster/MemberUpdate", 2, false,
          etcdserverpb__member_update_request, flat, cluster_member_update),
    UNARY("/etcdserverpb.Cluster/MemberPromote", 2, false,
          etcdserverpb__member_promote_request, flat, cluster_member_promote),
    UNARY("/etcdserverpb.Auth/AuthEnable", 2, false,
          etcdserverpb__auth_enable_request, flat, auth_enable),
    UNARY("/etcdserverpb.Auth/AuthDisable", 2, false,
          etcdserverpb__auth_disable_request, flat, auth_disable),
    UNARY("/etcdserverpb.Auth/AuthStatus", 2, false,
          etcdserverpb__auth_status_request, flat, auth_status),
    UNARY("/etcdserverpb.Auth/Authenticate", 2, false,
          etcdserverpb__authenticate_request, flat, auth_authenticate),
    UNARY("/etcdserverpb.Auth/UserAdd", 2, false,
          etcdserverpb__auth_user_add_request, user, auth_user_add),
    UNARY("/etcdserverpb.Auth/UserGet", 2, false,
          etcdserverpb__auth_user_get_request, flat, auth_user_missing),
    UNARY("/etcdserverpb.Auth/UserList", 2, false,
          etcdserverpb__auth_user_list_request, flat, auth_list),
    UNARY("/etcdserverpb.Auth/UserDelete", 2, false,
          etcdserverpb__auth_user_delete_request, flat, auth_user_missing),
    UNARY("/etcdserverpb.Auth/UserChangePassword", 2, false,
          etcdserverpb__auth_user_change_password_request, flat, auth_user_change_password),
    UNARY("/etcdserverpb.Auth/UserGrantRole", 2, false,
          etcdserverpb__auth_user_grant_role_request, flat, auth_user_missing),
    UNARY("/etcdserverpb.Auth/UserRevokeRole", 2, false,
          etcdserverpb__auth_user_revoke_role_request, flat, auth_user_missing),
    UNARY("/etcdserverpb.Auth/RoleAdd", 2, false,
          etcdserverpb__auth_role_add_request, flat, auth_role_add),
    UNARY("/etcdserverpb.Auth/RoleGet", 2, false,
          etcdserverpb__auth_role_get_request, flat, auth_role_missing),
    UNARY("/etcdserverpb.Auth/RoleList", 2, false,
          etcdserverpb__auth_role_list_request, flat, auth_list),
    UNARY("/etcdserverpb.Auth/RoleDelete", 2, false,
          etcdserverpb__auth_role_delete_request, flat, auth_role_missing),
    UNARY("/etcdserverpb.Auth/RoleGrantPermission", 2, false,
          etcdserverpb__auth_role_grant_permission_request, permission, auth_role_grant),
    UNARY("/etcdserverpb.Auth/RoleRevokePermission", 2, false,
          etcdserverpb__auth_role_revoke_permission_request, flat, auth_role_missing),
    UNARY("/grpc.health.v1.Health/List", 2, false,
          grpc__health__v1__health_list_request, flat, health_list),
    STREAM("/etcdserverpb.Watch/Watch", 16,
           etcdserverpb__watch_request, watch, watch_stream_kind),
    STREAM("/etcdserverpb.Lease/LeaseKeepAlive", 8,
           etcdserverpb__lease_keep_alive_request, flat, keepalive_stream_kind),
    STREAM("/etcdserverpb.KV/RangeStream", 4,
           etcdserverpb__range_request, flat, range_stream_kind),
    STREAM("/grpc.health.v1.Health/Watch", 2,
           grpc__health__v1__health_check_request, flat, health_stream_kind),
    STREAM("/v3lockpb.Lock/Lock", 16,
           v3lockpb__lock_request, flat, lock_lock_kind),
    STREAM("/v3lockpb.Lock/Unlock", 8,
           v3lockpb__unlock_request, flat, lock_unlock_kind),
    STREAM("/v3electionpb.Election/Campaign", 16,
           v3electionpb__campaign_request, flat, election_campaign_kind),
    STREAM("/v3electionpb.Election/Proclaim", 4,
           v3electionpb__proclaim_request, leader, election_proclaim_kind),
    STREAM("/v3electionpb.Election/Leader", 4,
           v3electionpb__leader_request, flat, election_leader_kind),
    STREAM("/v3electionpb.Election/Resign", 4,
           v3electionpb__resign_request, leader, election_resign_kind),
    STREAM("/v3electionpb.Election/Observe", 4,
           v3electionpb__leader_request, flat, election_observe_kind),
    STREAM("/etcdserverpb.Maintenance/Snapshot", 2,
           etcdserverpb__snapshot_request, flat, snapshot_stream_kind),
};
/* clang-format on */

const uint32_t n_methods = sizeof methods / sizeof methods[0];
_Static_assert(sizeof methods / sizeof methods[0] <= METHODS_MAX, "raise METHODS_MAX");

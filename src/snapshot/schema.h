/*
 * schema.h - what etcd 3.6 keeps in its database: names of buckets and keys.
 *
 *   key              u64 revision, '_', u64 sub, for a tombstone 't' -> mvccpb.KeyValue
 *   lease            u64 id -> leasepb.Lease {1 ID, 2 TTL, 3 RemainingTTL}
 *   meta             consistent_index, term (u64); confState (JSON); storageVersion;
 *                    scheduledCompactRev, finishedCompactRev (17 bytes, as in key)
 *   members          id in hexadecimal -> JSON
 *   cluster          clusterVersion; downgrade (JSON)
 *   auth             authEnabled (1 byte), authRevision (u64)
 *   authUsers, authRoles, alarm, members_removed
 *
 * Numbers of keys are big endian.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef SNAPSHOT_SCHEMA_H
#define SNAPSHOT_SCHEMA_H

#include "base/buffer.h"

#define BUCKET_ALARM "alarm"
#define BUCKET_AUTH "auth"
#define BUCKET_AUTH_ROLES "authRoles"
#define BUCKET_AUTH_USERS "authUsers"
#define BUCKET_CLUSTER "cluster"
#define BUCKET_KEY "key"
#define BUCKET_LEASE "lease"
#define BUCKET_MEMBERS "members"
#define BUCKET_MEMBERS_REMOVED "members_removed"
#define BUCKET_META "meta"

#define META_CONF_STATE "confState"
#define META_CONSISTENT_INDEX "consistent_index"
#define META_FINISHED_COMPACT "finishedCompactRev"
#define META_SCHEDULED_COMPACT "scheduledCompactRev"
#define META_STORAGE_VERSION "storageVersion"
#define META_TERM "term"

#define REVISION_BYTES 17u
#define REVISION_TOMBSTONE 't'

static inline void
revision_encode(struct buffer *out, int64_t revision, uint64_t sub, bool tombstone)
{
    uint8_t b[REVISION_BYTES + 1];

    put_u64be(b, (uint64_t)revision);
    b[8] = '_';
    put_u64be(b + 9, sub);
    b[REVISION_BYTES] = REVISION_TOMBSTONE;
    buffer_append(out, b, REVISION_BYTES + tombstone);
}

#endif

/*
 * auth.c - the Auth service of a server with authentication off, and without users and roles.
 *
 * Everything that etcd would answer in that state is answered so, in its order of checks; to
 * add the first user or role is refused in words of our own.  Nothing here depends on the
 * state of the store, so nothing waits for it.
 *
 * Threads: polling threads.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <string.h>

#include "api/grpc/grpc_int.h"
#include "base/memory.h"
#include "pb/etcd/rpc.pb-c.h"

/* Of a store of users that was never written to. */
#define AUTH_REVISION 1
/* What bcrypt hashes; etcd does that before anything else. */
#define PASSWORD_MAX 72

/* An answer of nothing but a header. */
static void
reply_header(struct call *c)
{
    struct response_header header;
    struct chain out;

    node_header(c->queue->api->node, &header);
    chain_init(&out);
    wire_header_field(&out, 1, &header);
    call_reply(c, ETCD_OK, &out);
}

/* Errors of requests that etcd sends through its log, which has a limit. */
static void
refuse(struct call *c, enum etcd_error error)
{
    call_fail(c, call_is_too_large(c) ? ETCD_REQUEST_TOO_LARGE : error);
}

static bool
is_empty(const char *s)
{
    return s == NULL || s[0] == 0;
}

void
auth_enable(struct call *c, const ProtobufCMessage *m)
{
    (void)m;
    refuse(c, ETCD_ROOT_USER_MISSING);
}

void
auth_disable(struct call *c, const ProtobufCMessage *m)
{
    (void)m;
    reply_header(c); /* it is off */
}

void
auth_status(struct call *c, const ProtobufCMessage *m)
{
    struct response_header header;
    struct chain out;

    (void)m;
    node_header(c->queue->api->node, &header);
    chain_init(&out);
    wire_header_field(&out, 1, &header);
    wire_varint_field(&out, 3, AUTH_REVISION);
    call_reply(c, ETCD_OK, &out);
}

void
auth_authenticate(struct call *c, const ProtobufCMessage *m)
{
    (void)m;
    call_fail(c, ETCD_AUTH_NOT_ENABLED);
}

/* UserList, RoleList: there are none. */
void
auth_list(struct call *c, const ProtobufCMessage *m)
{
    (void)m;
    reply_header(c);
}

void
auth_user_add(struct call *c, const ProtobufCMessage *message)
{
    const Etcdserverpb__AuthUserAddRequest *m = (const void *)message;
    bool no_password = m->options != NULL && m->options->no_password;

    if (!no_password && m->password != NULL && strlen(m->password) > PASSWORD_MAX)
        call_fail(c, ETCD_PASSWORD_TOO_LONG);
    else
        refuse(c, is_empty(m->name) ? ETCD_USER_EMPTY : ETCD_NO_USERS);
}

void
auth_user_change_password(struct call *c, const ProtobufCMessage *message)
{
    const Etcdserverpb__AuthUserChangePasswordRequest *m = (const void *)message;

    if (m->password != NULL && strlen(m->password) > PASSWORD_MAX)
        call_fail(c, ETCD_PASSWORD_TOO_LONG);
    else
        refuse(c, ETCD_USER_NOT_FOUND);
}

/* UserGet, UserDelete, UserGrantRole, UserRevokeRole. */
void
auth_user_missing(struct call *c, const ProtobufCMessage *m)
{
    (void)m;
    refuse(c, ETCD_USER_NOT_FOUND);
}

void
auth_role_add(struct call *c, const ProtobufCMessage *message)
{
    const Etcdserverpb__AuthRoleAddRequest *m = (const void *)message;

    refuse(c, is_empty(m->name) ? ETCD_ROLE_EMPTY : ETCD_NO_USERS);
}

void
auth_role_grant(struct call *c, const ProtobufCMessage *message)
{
    const Etcdserverpb__AuthRoleGrantPermissionRequest *m = (const void *)message;
    struct t4_slice key, end;

    if (m->perm == NULL) {
        refuse(c, ETCD_PERMISSION_NOT_GIVEN);
        return;
    }
    key = slice_of(m->perm->key.data, m->perm->key.len);
    end = slice_of(m->perm->range_end.data, m->perm->range_end.len);
    if (key.len == 0 ||
        (end.len > 0 && !range_is_open(end) && slice_compare(key, end) >= 0))
        refuse(c, ETCD_INVALID_AUTH_MANAGEMENT);
    else
        refuse(c, ETCD_ROLE_NOT_FOUND);
}

/* RoleGet, RoleDelete, RoleRevokePermission. */
void
auth_role_missing(struct call *c, const ProtobufCMessage *m)
{
    (void)m;
    refuse(c, ETCD_ROLE_NOT_FOUND);
}

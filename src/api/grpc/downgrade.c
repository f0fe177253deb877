/*
 * downgrade.c - MoveLeader and Downgrade, as the single member of a cluster answers them.
 *
 * VALIDATE judges the version as etcd does.  ENABLE is refused: it prepares a cluster for etcd
 * servers of the version below, and none of them can read this server's data.  So no downgrade
 * is ever under way, and CANCEL answers as etcd does then.
 *
 * Threads: polling threads.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <string.h>

#include "api/grpc/grpc_int.h"
#include "pb/etcd/rpc.pb-c.h"

/* The cluster's version, as shown, and the only one that it can be downgraded to. */
#define CLUSTER_VERSION "3.6"
#define TARGET_MAJOR 3
#define TARGET_MINOR 5

void
maintenance_move_leader(struct call *c, const ProtobufCMessage *message)
{
    const Etcdserverpb__MoveLeaderRequest *m = (const void *)message;
    struct node *node = c->queue->api->node;
    struct node_status status;
    struct chain out;

    node_status(node, &status);
    if (!node_leads(node)) {
        call_fail(c, ETCD_NOT_LEADER);
    } else if (m->targetid != status.member_id) {
        call_fail(c, ETCD_BAD_TRANSFEREE);
    } else {
        chain_init(&out); /* done already; the answer has no header in etcd either */
        call_reply(c, ETCD_OK, &out);
    }
}

/* --- versions ------------------------------------------------------------------------- */

/* Digits, as many as fit an int64; moves *p behind them. */
static bool
take_number(const char **p, const char *end, int64_t *out)
{
    const char *s = *p;
    int64_t n = 0;

    for (; s < end && *s >= '0' && *s <= '9'; s++)
        if (__builtin_mul_overflow(n, 10, &n) || __builtin_add_overflow(n, *s - '0', &n))
            return false;
    if (s == *p)
        return false;
    *p = s;
    *out = n;
    return true;
}

/* What stands behind "-" or "+": dotted words of letters, digits and "-", or nothing. */
static bool
is_identifier(const char *s, const char *end)
{
    bool word = false;

    if (s == end)
        return true;
    for (; s < end; s++) {
        bool letter = (*s >= '0' && *s <= '9') || (*s >= 'A' && *s <= 'Z') ||
                      (*s >= 'a' && *s <= 'z') || *s == '-';

        if (!letter && (*s != '.' || !word))
            return false;
        word = letter;
    }
    return word;
}

static const char *
find(const char *s, const char *end, char c)
{
    const char *found = memchr(s, c, (size_t)(end - s));

    return found != NULL ? found : end;
}

/*
 * MAJOR.MINOR.PATCH[-PRERELEASE][+METADATA], or MAJOR.MINOR alone: etcd tries the text, then
 * the text with ".0" behind it.
 */
static bool
parse_version(const char *text, int64_t *major, int64_t *minor)
{
    const char *end = text + strlen(text), *s = text;
    const char *metadata = find(text, end, '+'), *release = find(text, metadata, '-');
    int64_t patch;

    if (metadata < end && !is_identifier(metadata + 1, end))
        return false;
    if (release < metadata && !is_identifier(release + 1, metadata))
        return false;
    if (!take_number(&s, release, major) || s == release || *s++ != '.')
        return false;
    if (!take_number(&s, release, minor))
        return false;
    if (s == release)
        return release ==
               end; /* MAJOR.MINOR; with anything behind it, ".0" does not help */
    return *s++ == '.' && take_number(&s, release, &patch) && s == release;
}

static enum etcd_error
judge(const char *version)
{
    int64_t major, minor;

    if (version == NULL || !parse_version(version, &major, &minor))
        return ETCD_DOWNGRADE_FORMAT;
    return major == TARGET_MAJOR && minor == TARGET_MINOR ? ETCD_OK
                                                          : ETCD_DOWNGRADE_TARGET;
}

void
maintenance_downgrade(struct call *c, const ProtobufCMessage *message)
{
    const Etcdserverpb__DowngradeRequest *m = (const void *)message;
    struct response_header header;
    enum etcd_error error = ETCD_OK;
    struct chain out;

    switch (m->action) {
    case ETCDSERVERPB__DOWNGRADE_REQUEST__DOWNGRADE_ACTION__VALIDATE:
        error = judge(m->version);
        break;
    case ETCDSERVERPB__DOWNGRADE_REQUEST__DOWNGRADE_ACTION__ENABLE:
        error = judge(m->version);
        if (error == ETCD_OK)
            error = ETCD_NO_DOWNGRADE;
        break;
    case ETCDSERVERPB__DOWNGRADE_REQUEST__DOWNGRADE_ACTION__CANCEL: break;
    default: error = ETCD_UNKNOWN_METHOD; break;
    }
    if (error != ETCD_OK) {
        call_fail(c, error);
        return;
    }
    node_header(c->queue->api->node, &header);
    chain_init(&out);
    wire_header_field(&out, 1, &header);
    wire_bytes_field(&out, 2, slice_str(CLUSTER_VERSION));
    call_reply(c, ETCD_OK, &out);
}

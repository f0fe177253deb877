/*
 * cluster.c - the Cluster service of a cluster that has one member and cannot get another.
 *
 * The list tells the true client URLs.  Nobody listens on the peer URL that stands in it:
 * clients print it, some take it for what tells members apart, and none dials it.
 *
 * Changes are judged in etcd's order; what etcd would carry out (and so, for an added member,
 * lose its quorum until that one has started) is refused with the reason.
 *
 * Threads: polling threads; list_again() and list_refused() any.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <stdio.h>
#include <string.h>

#include "api/grpc/grpc_int.h"
#include "base/memory.h"
#include "pb/etcd/rpc.pb-c.h"

/* etcd's port for peers. */
#define PEER_PORT "2380"
#define PEER_URL_BYTES 300

/* --- the member ----------------------------------------------------------------------- */

/* http://HOST:2380 with the host of the first client URL; localhost for a socket's path. */
static void
peer_url(const char *client_urls, char *out)
{
    const char *host = strstr(client_urls, "://"), *end;
    int n;

    host = host != NULL ? host + 3 : "";
    end = host + strcspn(host, ",/");
    for (const char *p = host; p < end; p++)
        if (*p == ':' && memchr(p, ']', (size_t)(end - p)) == NULL)
            end = p;
    n = (int)(end - host);
    if (n == 0 || n > PEER_URL_BYTES - 20 || strncmp(client_urls, "unix", 4) == 0)
        snprintf(out, PEER_URL_BYTES, "http://localhost:" PEER_PORT);
    else
        snprintf(out, PEER_URL_BYTES, "http://%.*s:" PEER_PORT, n, host);
}

static void
add_member(struct chain *out, uint32_t field, const struct node_status *status)
{
    char peer[PEER_URL_BYTES];
    struct chain member;
    const char *url, *end;

    peer_url(status->advertise_urls, peer);
    chain_init(&member);
    wire_varint_field(&member, 1, status->member_id);
    wire_bytes_field(&member, 2, slice_str(status->name));
    wire_bytes_field(&member, 3, slice_str(peer));
    for (url = status->advertise_urls; *url != 0; url = end) {
        end = url + strcspn(url, ",");
        wire_bytes_field(&member, 4, slice_of(url, (size_t)(end - url)));
        end += *end == ',';
    }
    wire_message_field(out, field, &member);
}

/* MemberListResponse, MemberUpdateResponse. */
static void
reply_members(struct call *c)
{
    struct node *node = c->queue->api->node;
    struct response_header header;
    struct node_status status;
    struct chain out;

    node_status(node, &status);
    node_header(node, &header);
    header.revision = 0; /* the Cluster service's headers have none */
    chain_init(&out);
    wire_header_field(&out, 1, &header);
    add_member(&out, 2, &status);
    call_reply(c, ETCD_OK, &out);
}

static void
list_again(struct read_wait *w)
{
    reply_members(container_of(w, struct call, reading));
}

static void
list_refused(struct read_wait *w, enum etcd_error error)
{
    call_fail(container_of(w, struct call, reading), error);
}

void
cluster_member_list(struct call *c, const ProtobufCMessage *message)
{
    const Etcdserverpb__MemberListRequest *m = (const void *)message;
    struct chain nothing;

    chain_init(&nothing);
    read_wait_init(&c->reading, c->queue->api->node, list_again, list_refused);
    if (!m->linearizable || read_is_proven(&c->reading, &nothing))
        reply_members(c);
}

/* --- peer URLs, as Go's net/url and etcd take them ------------------------------------------ */

static bool
is_escaped_well(struct t4_slice s)
{
    for (size_t i = 0; i < s.len; i++)
        if (s.data[i] == '%' &&
            (i + 2 >= s.len || !strchr("0123456789abcdefABCDEF", s.data[i + 1]) ||
             !strchr("0123456789abcdefABCDEF", s.data[i + 2])))
            return false;
    return true;
}

static bool
is_letter(uint8_t c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

static bool
is_digit(uint8_t c)
{
    return c >= '0' && c <= '9';
}

static size_t
index_of(struct t4_slice s, char c)
{
    const uint8_t *found = s.len > 0 ? memchr(s.data, c, s.len) : NULL;

    return found != NULL ? (size_t)(found - s.data) : s.len;
}

static struct t4_slice
rest_of(struct t4_slice s, size_t from)
{
    return slice_of(s.data + from, s.len - from);
}

/* "host:port" with digits, or nothing, for a port; or without a port. */
static bool
is_host(struct t4_slice s, bool needs_port)
{
    size_t colon, close = 0;

    for (size_t i = 0; i < s.len; i++)
        if (!is_letter(s.data[i]) && !is_digit(s.data[i]) && s.data[i] < 0x80 &&
            !strchr("-_.~!$&'()*+,;=:[]<>\"", s.data[i]))
            return false;
    if (s.len > 0 && s.data[0] == '[') {
        close = index_of(s, ']');
        colon = close + 1;
    } else {
        colon = index_of(s, ':');
    }
    if (colon >= s.len)
        return !needs_port && colon == s.len;
    if (s.data[colon] != ':')
        return false;
    for (size_t i = colon + 1; i < s.len; i++)
        if (!is_digit(s.data[i]))
            return false;
    for (size_t i = close == 0 ? 0 : 1; i < colon; i++)
        if (i != close && (s.data[i] == '[' || s.data[i] == ']'))
            return false;
    return true;
}

/* [user@]host[:port] */
static bool
is_authority(struct t4_slice s, bool needs_port)
{
    struct t4_slice user;
    size_t n = s.len;

    while (n > 0 && s.data[n - 1] != '@')
        n--;
    user = slice_of(s.data, n > 0 ? n - 1 : 0);
    for (size_t i = 0; i < user.len; i++)
        if (!is_letter(user.data[i]) && !is_digit(user.data[i]) &&
            !strchr("-._:~!$&'()*+,;=%@", user.data[i]))
            return false;
    return is_escaped_well(user) && is_host(rest_of(s, n), needs_port);
}

/* What stands behind the scheme; http: it must be a host with a port, and nothing else. */
static bool
is_address(struct t4_slice s, bool http)
{
    struct t4_slice fragment = rest_of(s, index_of(s, '#')), path;
    bool has_host;

    s.len -= fragment.len;
    s.len = index_of(s, '?');
    if (!is_escaped_well(fragment))
        return false;
    if (s.len == 0 || s.data[0] != '/')
        return !http;
    has_host = s.len >= 2 && s.data[1] == '/';
    s = rest_of(s, has_host ? 2 : 0);
    path = rest_of(s, has_host ? index_of(s, '/') : 0);
    s.len -= path.len;
    if (has_host && !is_authority(s, http))
        return false;
    return http ? has_host && path.len == 0 : is_escaped_well(path);
}

static struct t4_slice
trimmed(const char *text)
{
    struct t4_slice s = slice_str(text);

    while (s.len > 0 && strchr(" \t\n\v\f\r", s.data[0]) != NULL)
        s = rest_of(s, 1);
    while (s.len > 0 && strchr(" \t\n\v\f\r", s.data[s.len - 1]) != NULL)
        s.len--;
    return s;
}

/* *address: what stands behind the scheme's colon. */
static bool
has_scheme(struct t4_slice url, const char *scheme, struct t4_slice *address)
{
    size_t n = strlen(scheme);

    if (url.len <= n || url.data[n] != ':')
        return false;
    for (size_t i = 0; i < n; i++)
        if ((url.data[i] | 0x20) != (uint8_t)scheme[i])
            return false;
    *address = rest_of(url, n + 1);
    return true;
}

static bool
is_peer_url(struct t4_slice url)
{
    struct t4_slice address;

    for (size_t i = 0; i < url.len; i++)
        if (url.data[i] < 0x20 || url.data[i] == 0x7f)
            return false;
    if (has_scheme(url, "http", &address) || has_scheme(url, "https", &address))
        return is_address(address, true);
    return (has_scheme(url, "unix", &address) || has_scheme(url, "unixs", &address)) &&
           is_address(address, false);
}

/* Is it `peer`?  Their schemes may be written differently. */
static bool
is_same_url(struct t4_slice url, const char *peer)
{
    struct t4_slice address, own = slice_str(peer);

    return has_scheme(url, "http", &address) &&
           slice_equal(address, rest_of(own, strlen("http:")));
}

/* --- changes --------------------------------------------------------------------------- */

static void
own_peer_url(struct call *c, struct node_status *status, char *peer)
{
    node_status(c->queue->api->node, status);
    peer_url(status->advertise_urls, peer);
}

void
cluster_member_add(struct call *c, const ProtobufCMessage *message)
{
    const Etcdserverpb__MemberAddRequest *m = (const void *)message;
    enum etcd_error error = m->n_peerurls == 0 ? ETCD_MEMBER_URLS : ETCD_CANNOT_GROW;
    struct node_status status;
    char peer[PEER_URL_BYTES];

    own_peer_url(c, &status, peer);
    for (size_t i = 0; i < m->n_peerurls; i++) {
        struct t4_slice url = trimmed(m->peerurls[i]);

        if (!is_peer_url(url)) {
            call_fail(c, ETCD_MEMBER_URLS);
            return;
        }
        if (is_same_url(url, peer))
            error = ETCD_PEER_URL_EXISTS;
    }
    call_fail(c, error);
}

void
cluster_member_remove(struct call *c, const ProtobufCMessage *message)
{
    const Etcdserverpb__MemberRemoveRequest *m = (const void *)message;
    struct node_status status;

    node_status(c->queue->api->node, &status);
    call_fail(c, m->id == status.member_id ? ETCD_NOT_ENOUGH_MEMBERS
                                           : ETCD_MEMBER_NOT_FOUND);
}

/* To what it is already: done.  etcd takes anything for a URL here. */
void
cluster_member_update(struct call *c, const ProtobufCMessage *message)
{
    const Etcdserverpb__MemberUpdateRequest *m = (const void *)message;
    struct node_status status;
    char peer[PEER_URL_BYTES];

    own_peer_url(c, &status, peer);
    if (m->id != status.member_id)
        call_fail(c, ETCD_MEMBER_NOT_FOUND);
    else if (m->n_peerurls == 1 && is_same_url(slice_str(m->peerurls[0]), peer))
        reply_members(c);
    else
        call_fail(c, ETCD_NO_PEER_URL);
}

void
cluster_member_promote(struct call *c, const ProtobufCMessage *message)
{
    const Etcdserverpb__MemberPromoteRequest *m = (const void *)message;
    struct node_status status;

    node_status(c->queue->api->node, &status);
    call_fail(c, m->id == status.member_id ? ETCD_NOT_A_LEARNER : ETCD_MEMBER_NOT_FOUND);
}

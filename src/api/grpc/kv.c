/*
 * kv.c - the KV and Lease calls, and those of Maintenance that end at the node: from the
 * unpacked message to the node.
 *
 * Each handler makes the transport-free request, validates it in etcd's order, and either
 * reads at once (short reads on the polling thread, long ones on a worker) or submits it to
 * the node, whose callback answers from whatever thread committed it.
 *
 * Threads: handlers run on a polling thread and do not block; done() and jobs on any.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "api/grpc/grpc_int.h"
#include "base/memory.h"
#include "pb/etcd/rpc.pb-c.h"
#include "txn/txn.h"

/* --- what goes through the node's queue --------------------------------------------------- */

static void
on_done(struct node_request *r)
{
    struct call *c = container_of(r, struct call, node);

    call_reply(c, r->error, &r->response);
}

static void
submit(struct call *c, enum node_op op)
{
    struct grpc_api *api = c->queue->api;

    if (c->method->write && call_is_too_large(c)) {
        call_fail(c, ETCD_REQUEST_TOO_LARGE);
        return;
    }
    c->node.op = op;
    c->node.bytes = c->message_bytes;
    c->node.done = on_done;
    c->node.error = ETCD_OK;
    c->node.object_durable = c->object_durable;
    chain_init(&c->node.response);
    node_submit(api->node, &c->node);
}

/* --- reads ---------------------------------------------------------------------------------- */

/*
 * Both kinds of read end here.  I5: a linearizable read is true if this server leads *after*
 * it was made; else it is made again once that is proven.  One that asks for object durability
 * is answered when the store holds everything it has seen.
 */
static void
barrier_done(struct node_request *r)
{
    struct call *c = container_of(r, struct call, node);

    chain_free(&r->response);
    call_reply(c, r->error, &c->held);
}

static void
read_again(struct read_wait *w)
{
    struct call *c = container_of(w, struct call, reading);

    call_on_worker(c, c->repeat);
}

static void
read_refused(struct read_wait *w, enum etcd_error error)
{
    call_fail(container_of(w, struct call, reading), error);
}

static void
begin_read(struct call *c)
{
    read_wait_init(&c->reading, c->queue->api->node, read_again, read_refused);
}

static void
finish_read(struct call *c, enum etcd_error e, struct chain *out, bool serializable,
            void (*repeat)(struct job *job))
{
    c->repeat = repeat;
    if (!serializable && !read_is_proven(&c->reading, out))
        return;
    if (e == ETCD_OK && c->object_durable) {
        c->held = *out;
        c->node.op = NODE_BARRIER;
        c->node.bytes = 0;
        c->node.done = barrier_done;
        c->node.object_durable = true;
        node_submit(c->queue->api->node, &c->node);
    } else {
        call_reply(c, e, out);
    }
}

/* True: the call waits for a part of the checkpoint (and is made again then), or was refused. */
static bool
must_wait(struct call *c, const struct range_request *range,
          const struct txn_request *txn, void (*repeat)(struct job *job))
{
    c->repeat = repeat;
    return !read_is_ready(&c->reading, range, txn);
}

static void
range_on_worker(struct job *job)
{
    struct call *c = call_of_job(job);
    struct chain out;
    bool too_long;
    enum etcd_error e;

    if (must_wait(c, &c->range, NULL, range_on_worker))
        return;
    chain_init(&out);
    e = node_range(c->queue->api->node, &c->range, 0, &too_long, &out);
    finish_read(c, e, &out, c->range.serializable, range_on_worker);
}

void
kv_range(struct call *c, const ProtobufCMessage *m)
{
    struct chain out;
    bool too_long = false;
    enum etcd_error e;

    decode_range(m, &c->range);
    e = txn_validate_range(&c->range);
    if (e != ETCD_OK) {
        call_fail(c, e);
        return;
    }
    c->range.serializable |= c->queue->api->options.serializable_reads;
    begin_read(c);
    if (must_wait(c, &c->range, NULL, range_on_worker))
        return;
    chain_init(&out);
    e = node_range(c->queue->api->node, &c->range, INLINE_KEYS, &too_long, &out);
    if (too_long) {
        chain_free(&out);
        call_on_worker(c, range_on_worker);
        return;
    }
    finish_read(c, e, &out, c->range.serializable, range_on_worker);
}

static void read_txn_on_worker(struct job *job);

static void
read_txn(struct call *c)
{
    struct chain out;
    enum etcd_error e;

    if (must_wait(c, NULL, &c->node.txn, read_txn_on_worker))
        return;
    chain_init(&out);
    e = node_txn_read_only(c->queue->api->node, &c->node.txn, &out);
    finish_read(c, e, &out,
                c->queue->api->options.serializable_reads ||
                    txn_is_serializable(&c->node.txn),
                read_txn_on_worker);
}

static void
read_txn_on_worker(struct job *job)
{
    read_txn(call_of_job(job));
}

static void
begin_read_txn(struct call *c)
{
    begin_read(c);
    if (txn_is_heavy(&c->node.txn))
        call_on_worker(c, read_txn_on_worker);
    else
        read_txn(c);
}

/* --- KV --------------------------------------------------------------------------------------- */

void
kv_put(struct call *c, const ProtobufCMessage *m)
{
    enum etcd_error e;

    decode_put(m, &c->node.put);
    e = txn_validate_put(&c->node.put);
    if (e != ETCD_OK)
        call_fail(c, e);
    else
        submit(c, NODE_PUT);
}

void
kv_delete_range(struct call *c, const ProtobufCMessage *m)
{
    enum etcd_error e;

    decode_delete_range(m, &c->node.delete_range);
    e = txn_validate_delete_range(&c->node.delete_range);
    if (e != ETCD_OK)
        call_fail(c, e);
    else
        submit(c, NODE_DELETE_RANGE);
}

void
kv_txn(struct call *c, const ProtobufCMessage *m)
{
    struct txn_request *txn = &c->node.txn;
    enum etcd_error e;

    decode_txn(m, &c->arena, txn);
    e = txn_validate_txn(txn, c->queue->api->options.max_txn_ops);
    if (e != ETCD_OK)
        call_fail(c, e);
    else if (!txn_is_read_only(txn))
        submit(c, NODE_TXN);
    else
        begin_read_txn(c);
}

void
kv_compact(struct call *c, const ProtobufCMessage *message)
{
    const Etcdserverpb__CompactionRequest *m = (const void *)message;

    c->node.compact.revision = m->revision;
    c->node.compact.physical = m->physical;
    submit(c, NODE_COMPACT);
}

/* --- Maintenance ------------------------------------------------------------------------------ */

void
maintenance_alarm(struct call *c, const ProtobufCMessage *message)
{
    const Etcdserverpb__AlarmRequest *m = (const void *)message;

    if ((unsigned)m->action > NODE_ALARM_DEACTIVATE) { /* etcd ends with a panic */
        call_refuse(c, GRPC_STATUS_INVALID_ARGUMENT,
                    "t4: no such action on alarms; there are GET, ACTIVATE, DEACTIVATE");
        return;
    }
    c->node.alarm.action = (enum node_alarm_action)m->action;
    c->node.alarm.member = m->memberid;
    c->node.alarm.kind = (int32_t)m->alarm;
    submit(c, NODE_ALARM);
}

void
maintenance_defragment(struct call *c, const ProtobufCMessage *m)
{
    (void)m;
    submit(c, NODE_DEFRAGMENT);
}

/* --- Lease ------------------------------------------------------------------------------------ */

void
lease_grant(struct call *c, const ProtobufCMessage *message)
{
    const Etcdserverpb__LeaseGrantRequest *m = (const void *)message;

    c->node.lease_grant.id = m->id;
    c->node.lease_grant.ttl = m->ttl;
    submit(c, NODE_LEASE_GRANT);
}

void
lease_revoke(struct call *c, const ProtobufCMessage *message)
{
    const Etcdserverpb__LeaseRevokeRequest *m = (const void *)message;

    c->node.lease.id = m->id;
    c->node.lease.keys = false;
    submit(c, NODE_LEASE_REVOKE);
}

void
lease_time_to_live(struct call *c, const ProtobufCMessage *message)
{
    const Etcdserverpb__LeaseTimeToLiveRequest *m = (const void *)message;

    c->node.lease.id = m->id;
    c->node.lease.keys = m->keys;
    submit(c, NODE_LEASE_TIME_TO_LIVE);
}

void
lease_leases(struct call *c, const ProtobufCMessage *m)
{
    (void)m;
    submit(c, NODE_LEASE_LEASES);
}

/*
 * recipe.c - the steps of a recipe.  recipe.h has the rules.
 *
 * Locks: recipe.lock is held while a watch is asked for and while a read is given to a worker,
 * so that neither happens once the stream has ended: the hub and the workers are still there
 * then.  The hub's calls come without a lock.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "api/grpc/recipe.h"
#include "base/memory.h"
#include "txn/txn.h"

#define LEASE_SECONDS 60

static struct recipe *
recipe_of(struct stream *s)
{
    return container_of(s, struct recipe, stream);
}

/* --- ends ----------------------------------------------------------------------------- */

static void
undo(struct recipe *r)
{
    r->undoing = true;
    if (r->undo != NULL)
        r->undo(r);
}

/* True: the stream is over, and what was done is being undone. */
static bool
gave_up(struct recipe *r)
{
    bool over;

    mutex_lock(&r->lock);
    over = r->over;
    mutex_unlock(&r->lock);
    if (over)
        undo(r);
    return over;
}

static void
finish(struct recipe *r, enum etcd_error error)
{
    grpc_status_code code = (grpc_status_code)etcd_error_code(error);

    if (code != GRPC_STATUS_UNAVAILABLE && code != GRPC_STATUS_DATA_LOSS &&
        error != ETCD_TOO_MANY_REQUESTS)
        code = GRPC_STATUS_UNKNOWN;
    metric_add(r->stream.queue->api->metrics, METRIC_REQUESTS_FAILED, 1);
    stream_finish(&r->stream, code, etcd_error_text(error));
}

void
recipe_fail(struct recipe *r, enum etcd_error error)
{
    finish(r, error);
    undo(r);
}

void
recipe_reply(struct recipe *r, struct chain *message)
{
    if (stream_send(&r->stream, message, false))
        stream_finish(&r->stream, GRPC_STATUS_OK, "");
    else
        undo(r);
}

void
recipe_reply_header(struct recipe *r, const Etcdserverpb__ResponseHeader *h)
{
    struct response_header header = recipe_header(h);
    struct chain out;

    chain_init(&out);
    wire_header_field(&out, 1, &header);
    recipe_reply(r, &out);
}

/* --- requests to the node --------------------------------------------------------------------- */

/* Takes over what `response` holds. */
static void
step_done(struct recipe *r, enum etcd_error error, struct chain *response)
{
    uint8_t *bytes;

    arena_reset(&r->memory);
    r->answer = NULL;
    if (error == ETCD_OK && !r->undoing) {
        bytes = arena_alloc(&r->memory, response->length + 1);
        chain_copy(response, bytes);
        r->answer = protobuf_c_message_unpack(r->type, &r->memory.allocator,
                                              response->length, bytes);
        if (r->answer == NULL) /* our own encoder's fault */
            error = ETCD_READ_FAILED;
    }
    chain_free(response);
    if (!r->undoing && error != ETCD_OK)
        recipe_fail(r, error);
    else if (!r->undoing)
        r->then(r);
    stream_unref(&r->stream); /* the step's */
}

static void
request_done(struct node_request *request)
{
    step_done(container_of(request, struct recipe, request), request->error,
              &request->response);
}

static void
submit(struct recipe *r)
{
    r->request.done = request_done;
    r->request.error = ETCD_OK;
    r->request.object_durable = r->stream.object_durable;
    chain_init(&r->request.response);
    stream_ref(&r->stream);
    node_submit(r->stream.queue->api->node, &r->request);
}

void
recipe_submit(struct recipe *r, const ProtobufCMessageDescriptor *type,
              void (*then)(struct recipe *r))
{
    if (gave_up(r))
        return;
    r->type = type;
    r->then = then;
    submit(r);
}

static void
make_transaction(struct recipe *r)
{
    struct operation *done_else = &r->done_else;

    r->request.op = NODE_TXN;
    r->request.txn = (struct txn_request){
        .compare = &r->compare,
        .n_compare = 1,
        .success = &r->done_if,
        .n_success = 1,
        .failure = done_else,
        .n_failure = done_else->kind != OPERATION_NONE,
    };
    r->request.bytes = (uint32_t)(sizeof *r + 3 * r->compare.key.len);
    if (r->done_if.kind == OPERATION_PUT)
        r->request.bytes += (uint32_t)r->done_if.put.value.len;
}

void
recipe_transact(struct recipe *r, void (*then)(struct recipe *r))
{
    const struct grpc_api_options *o = &r->stream.queue->api->options;
    enum etcd_error error;

    make_transaction(r);
    error = txn_validate_txn(&r->request.txn, o->max_txn_ops);
    if (error == ETCD_OK && r->request.bytes - sizeof *r > o->max_request_bytes)
        error = ETCD_REQUEST_TOO_LARGE;
    if (error != ETCD_OK)
        recipe_fail(r, error);
    else
        recipe_submit(r, &etcdserverpb__txn_response__descriptor, then);
}

void
recipe_undo_transact(struct recipe *r)
{
    make_transaction(r);
    submit(r);
}

void
recipe_grant(struct recipe *r, void (*then)(struct recipe *r))
{
    r->request.op = NODE_LEASE_GRANT;
    r->request.lease_grant.id = 0;
    r->request.lease_grant.ttl = LEASE_SECONDS;
    r->request.bytes = (uint32_t)sizeof *r;
    recipe_submit(r, &etcdserverpb__lease_grant_response__descriptor, then);
}

/* --- reads ------------------------------------------------------------------------------------ */

/* Not counted among the long reads: each recipe has one job at most, and they are bounded. */
static void
give_to_worker(struct recipe *r)
{
    bool over;

    mutex_lock(&r->lock);
    over = r->over;
    if (!over)
        workers_submit(node_workers(r->stream.queue->api->node), &r->job);
    mutex_unlock(&r->lock);
    if (over) {
        undo(r);
        stream_unref(&r->stream);
    }
}

static void
read_again(struct read_wait *w)
{
    give_to_worker(container_of(w, struct recipe, wait));
}

static void
read_refused(struct read_wait *w, enum etcd_error error)
{
    struct chain nothing;

    chain_init(&nothing);
    step_done(container_of(w, struct recipe, wait), error, &nothing);
}

static void
read_on_worker(struct job *job)
{
    struct recipe *r = container_of(job, struct recipe, job);
    enum etcd_error error;
    struct chain out;

    if (!read_is_ready(&r->wait, &r->range, NULL))
        return;
    chain_init(&out);
    error = node_range(r->stream.queue->api->node, &r->range, 0, NULL, &out);
    if (!r->linearizable || read_is_proven(&r->wait, &out))
        step_done(r, error, &out);
}

void
recipe_read(struct recipe *r, bool linearizable, void (*then)(struct recipe *r))
{
    enum etcd_error error = txn_validate_range(&r->range);

    if (error != ETCD_OK) {
        recipe_fail(r, error);
        return;
    }
    r->linearizable = linearizable;
    r->type = &etcdserverpb__range_response__descriptor;
    r->then = then;
    r->job.run = read_on_worker;
    read_wait_init(&r->wait, r->stream.queue->api->node, read_again, read_refused);
    stream_ref(&r->stream); /* the step's */
    give_to_worker(r);
}

/* --- the watch hub -------------------------------------------------------------------------------- */

/* [lock] False: the stream is over. */
static bool
rest(struct recipe *r)
{
    if (r->over)
        return false;
    arena_reset(&r->memory); /* it may rest for long */
    if (r->hub_owed)
        watch_stream_sent(r->hub);
    r->hub_owed = false;
    r->running = false;
    return true;
}

void
recipe_rest(struct recipe *r)
{
    bool rests;

    mutex_lock(&r->lock);
    rests = rest(r);
    mutex_unlock(&r->lock);
    if (!rests)
        undo(r);
}

static void
hub_send(void *arg, struct chain *message, bool more)
{
    struct recipe *r = arg;
    const Etcdserverpb__WatchResponse *m;
    uint8_t *bytes;
    bool mine;

    (void)more;
    mutex_lock(&r->lock);
    mine = !r->over;
    r->running |= mine;
    r->hub_owed = mine;
    mutex_unlock(&r->lock);
    if (!mine) { /* the hub has been told */
        chain_free(message);
        return;
    }
    arena_reset(&r->memory);
    bytes = arena_alloc(&r->memory, message->length + 1);
    chain_copy(message, bytes);
    m = etcdserverpb__watch_response__unpack(&r->memory.allocator, message->length,
                                             bytes);
    chain_free(message);
    if (m == NULL) /* our own encoder's fault */
        recipe_fail(r, ETCD_READ_FAILED);
    else if (m->watch_id != r->watch_id || (m->n_events == 0 && !m->canceled) ||
             !r->event(r, m))
        recipe_rest(r);
}

static void
hub_end(void *arg, int error)
{
    finish(arg, (enum etcd_error)error);
}

static void
hub_closed(void *arg)
{
    struct recipe *r = arg;

    stream_unref(&r->stream);
}

static const struct watch_transport transport = {hub_send, hub_end, hub_closed};

void
recipe_watch(struct recipe *r, struct watch_create *watch,
             bool (*event)(struct recipe *r, const Etcdserverpb__WatchResponse *m))
{
    bool rests;

    r->event = event;
    mutex_lock(&r->lock); /* to the end: the hub answers at once */
    if (!r->over) {
        if (r->hub != NULL) {
            watch_stream_cancel(r->hub, r->watch_id);
        } else {
            stream_ref(&r->stream); /* the hub's, until closed() */
            r->hub = watch_stream_open(node_watch_hub(r->stream.queue->api->node),
                                       &transport, r);
        }
        watch->watch_id = ++r->watch_id;
        watch_stream_create(r->hub, watch);
    }
    rests = rest(r);
    mutex_unlock(&r->lock);
    if (!rests)
        undo(r);
}

/* --- the stream ----------------------------------------------------------------------------------- */

void
recipe_start(struct stream *s)
{
    struct recipe *r = recipe_of(s);

    mutex_init(&r->lock);
    arena_init(&r->memory);
    r->running = true; /* until the request has come there is nothing to do */
}

void
recipe_sent(struct stream *s)
{
    (void)s;
}

void
recipe_end(struct stream *s)
{
    struct recipe *r = recipe_of(s);
    bool mine;

    stream_ref(s); /* closed() may come from within, and would free what is locked */
    mutex_lock(&r->lock);
    r->over = true;
    mine = !r->running;
    r->running = true;
    if (r->hub != NULL)
        watch_stream_close(r->hub);
    r->hub = NULL;
    mutex_unlock(&r->lock);
    if (mine)
        undo(r);
    stream_unref(s);
}

void
recipe_release(struct recipe *r)
{
    arena_reset(&r->memory);
    mutex_destroy(&r->lock);
}

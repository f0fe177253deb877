/*
 * lock.c - etcd's lock service: a lock belongs to the oldest key below its name.
 *
 * Threads: see recipe.h.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "api/grpc/recipe.h"
#include "base/memory.h"
#include "pb/etcd/lock.pb-c.h"
#include "txn/txn.h"

/* --- Lock ------------------------------------------------------------------------------- */

static void
locked(struct contender *c)
{
    struct chain out;

    chain_init(&out);
    wire_header_field(&out, 1, &c->header);
    wire_bytes_field(&out, 2, buffer_slice(&c->key));
    recipe_reply(&c->recipe, &out);
}

static bool
lock_message(struct stream *s, const ProtobufCMessage *message)
{
    const V3lockpb__LockRequest *m = (const void *)message;
    struct contender *c = container_of(s, struct contender, recipe.stream);

    c->lease = m->lease;
    c->won = locked;
    contend(c, slice_of(m->name.data, m->name.len));
    return false;
}

const struct stream_kind lock_lock_kind =
    RECIPE_KIND(struct contender, lock_message, contender_release);

/* --- Unlock ----------------------------------------------------------------------------- */

struct unlock {
    struct recipe recipe;
    struct buffer key;
};

static void
unlocked(struct recipe *r)
{
    const Etcdserverpb__DeleteRangeResponse *m = (const void *)r->answer;

    recipe_reply_header(r, m->header);
}

static bool
unlock_message(struct stream *s, const ProtobufCMessage *message)
{
    const V3lockpb__UnlockRequest *m = (const void *)message;
    struct unlock *u = container_of(s, struct unlock, recipe.stream);
    struct node_request *request = &u->recipe.request;
    enum etcd_error error;

    buffer_append(&u->key, m->key.data, m->key.len);
    request->op = NODE_DELETE_RANGE;
    request->delete_range = (struct delete_range_request){.key = buffer_slice(&u->key)};
    request->bytes = (uint32_t)(sizeof *u + u->key.len);
    error = txn_validate_delete_range(&request->delete_range);
    if (error != ETCD_OK)
        recipe_fail(&u->recipe, error);
    else
        recipe_submit(&u->recipe, &etcdserverpb__delete_range_response__descriptor,
                      unlocked);
    return false;
}

static void
unlock_release(struct stream *s)
{
    struct unlock *u = container_of(s, struct unlock, recipe.stream);

    recipe_release(&u->recipe);
    buffer_free(&u->key);
}

const struct stream_kind lock_unlock_kind =
    RECIPE_KIND(struct unlock, unlock_message, unlock_release);

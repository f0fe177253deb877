/*
 * election.c - etcd's election service: the leader is whose key below the election's name is
 * the oldest; its value is what the leader has to say.  Observe: observe.c.
 *
 * Threads: see recipe.h.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "api/grpc/recipe.h"
#include "base/memory.h"
#include "pb/etcd/election.pb-c.h"

static struct t4_slice
slice_of_bytes(ProtobufCBinaryData b)
{
    return slice_of(b.data, b.len);
}

/* --- Campaign --------------------------------------------------------------------------- */

static void
elected(struct contender *c)
{
    struct chain out, leader;

    chain_init(&out);
    chain_init(&leader);
    wire_header_field(&out, 1, &c->header);
    wire_bytes_field(&leader, 1, slice_of(c->prefix.data, c->prefix.len - 1));
    wire_bytes_field(&leader, 2, buffer_slice(&c->key));
    wire_varint_field(&leader, 3, (uint64_t)c->revision);
    wire_varint_field(&leader, 4, (uint64_t)c->lease);
    wire_message_field(&out, 2, &leader);
    recipe_reply(&c->recipe, &out);
}

static bool
campaign_message(struct stream *s, const ProtobufCMessage *message)
{
    const V3electionpb__CampaignRequest *m = (const void *)message;
    struct contender *c = container_of(s, struct contender, recipe.stream);

    c->lease = m->lease;
    buffer_append_slice(&c->value, slice_of_bytes(m->value));
    c->is_campaign = true;
    c->won = elected;
    contend(c, slice_of_bytes(m->name));
    return false;
}

const struct stream_kind election_campaign_kind =
    RECIPE_KIND(struct contender, campaign_message, contender_release);

/* --- Proclaim, Resign ------------------------------------------------------------------- */

/* What a leader does with the key that it leads by. */
struct reign {
    struct recipe recipe;
    struct buffer key, value;
    int64_t revision, lease;
};

static void
resigned(struct recipe *r)
{
    const Etcdserverpb__TxnResponse *m = (const void *)r->answer;

    recipe_reply_header(r, m->header); /* who does not lead has resigned, too */
}

/* False: the request has no leader in it, and was refused. */
static bool
begin_reign(struct reign *l, const V3electionpb__LeaderKey *key)
{
    if (key == NULL) {
        recipe_fail(&l->recipe, ETCD_LEADER_MISSING);
        return false;
    }
    buffer_append_slice(&l->key, slice_of_bytes(key->key));
    l->revision = key->rev;
    l->lease = key->lease;
    l->recipe.compare = (struct compare){
        .result = COMPARE_EQUAL,
        .target = COMPARE_CREATE,
        .key = buffer_slice(&l->key),
        .number = l->revision,
    };
    return true;
}

static void
proclaimed(struct recipe *r)
{
    const Etcdserverpb__TxnResponse *m = (const void *)r->answer;

    if (m->succeeded)
        recipe_reply_header(r, m->header);
    else
        recipe_fail(r, ETCD_ELECTION_NOT_LEADER);
}

static void
proclaim(struct reign *l)
{
    l->recipe.done_if = (struct operation){
        .kind = OPERATION_PUT,
        .put = {.key = buffer_slice(&l->key),
                .value = buffer_slice(&l->value),
                .lease = l->lease},
    };
    recipe_transact(&l->recipe, proclaimed);
}

static void
proclaim_granted(struct recipe *r)
{
    const Etcdserverpb__LeaseGrantResponse *m = (const void *)r->answer;
    struct reign *l = container_of(r, struct reign, recipe);

    l->lease = m->id;
    proclaim(l);
}

static bool
proclaim_message(struct stream *s, const ProtobufCMessage *message)
{
    const V3electionpb__ProclaimRequest *m = (const void *)message;
    struct reign *l = container_of(s, struct reign, recipe.stream);

    if (!begin_reign(l, m->leader))
        return false;
    buffer_append_slice(&l->value, slice_of_bytes(m->value));
    if (l->lease == 0)
        recipe_grant(&l->recipe, proclaim_granted);
    else
        proclaim(l);
    return false;
}

static bool
resign_message(struct stream *s, const ProtobufCMessage *message)
{
    const V3electionpb__ResignRequest *m = (const void *)message;
    struct reign *l = container_of(s, struct reign, recipe.stream);

    if (!begin_reign(l, m->leader))
        return false;
    l->recipe.done_if = (struct operation){
        .kind = OPERATION_DELETE_RANGE,
        .delete_range = {.key = buffer_slice(&l->key)},
    };
    recipe_transact(&l->recipe, resigned);
    return false;
}

static void
reign_release(struct stream *s)
{
    struct reign *l = container_of(s, struct reign, recipe.stream);

    recipe_release(&l->recipe);
    buffer_free(&l->key);
    buffer_free(&l->value);
}

const struct stream_kind election_proclaim_kind =
    RECIPE_KIND(struct reign, proclaim_message, reign_release);

const struct stream_kind election_resign_kind =
    RECIPE_KIND(struct reign, resign_message, reign_release);

/* --- Leader ----------------------------------------------------------------------------- */

struct leader {
    struct recipe recipe;
    struct buffer prefix, prefix_end;
};

static void
found(struct recipe *r)
{
    const Etcdserverpb__RangeResponse *m = (const void *)r->answer;
    struct response_header header;
    struct key_value kv;
    struct chain out;

    if (m->n_kvs == 0) {
        recipe_fail(r, ETCD_ELECTION_NO_LEADER);
        return;
    }
    header = recipe_header(m->header);
    kv = recipe_key_value(m->kvs[0]);
    chain_init(&out);
    wire_header_field(&out, 1, &header);
    wire_key_value_field(&out, 2, &kv);
    recipe_reply(r, &out);
}

static bool
leader_message(struct stream *s, const ProtobufCMessage *message)
{
    const V3electionpb__LeaderRequest *m = (const void *)message;
    struct leader *l = container_of(s, struct leader, recipe.stream);

    recipe_prefix(slice_of_bytes(m->name), &l->prefix, &l->prefix_end);
    recipe_oldest(&l->recipe.range, buffer_slice(&l->prefix),
                  buffer_slice(&l->prefix_end));
    recipe_read(&l->recipe, true, found);
    return false;
}

static void
leader_release(struct stream *s)
{
    struct leader *l = container_of(s, struct leader, recipe.stream);

    recipe_release(&l->recipe);
    buffer_free(&l->prefix);
    buffer_free(&l->prefix_end);
}

const struct stream_kind election_leader_kind =
    RECIPE_KIND(struct leader, leader_message, leader_release);

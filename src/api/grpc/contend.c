/*
 * contend.c - what Lock and Campaign have in common: a key of one's own, bound to a lease, and
 * waiting until all older keys of the name are gone.
 *
 *   grant (without a lease) -> enrol -> look for the next older key -> wait for its end -> look
 *
 * Each contender waits for the one before it alone, so that an end wakes one of them and not
 * all.  "No older key" stays true once it is: keys made later have higher revisions.  It is
 * therefore read without proof of leadership.  That one's own key is still there is not so:
 * after a wait this is read last, and linearizably.
 *
 * A contender whose client is gone, or that fails, takes its key down.
 *
 * Threads: see recipe.h.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <inttypes.h>
#include <stdio.h>

#include "api/grpc/recipe.h"
#include "base/memory.h"

static struct contender *
contender_of(struct recipe *r)
{
    return container_of(r, struct contender, recipe);
}

/* --- names and answers ------------------------------------------------------------------ */

void
recipe_prefix(struct t4_slice name, struct buffer *prefix, struct buffer *end)
{
    buffer_append_slice(prefix, name);
    buffer_append_u8(prefix, RECIPE_SEPARATOR);
    buffer_append_slice(end, name);
    buffer_append_u8(end, RECIPE_SEPARATOR + 1);
}

void
recipe_oldest(struct range_request *out, struct t4_slice prefix,
              struct t4_slice prefix_end)
{
    *out = (struct range_request){
        .key = prefix,
        .range_end = prefix_end,
        .limit = 1,
        .sort_order = SORT_ASCEND,
        .sort_target = SORT_CREATE,
    };
}

struct response_header
recipe_header(const Etcdserverpb__ResponseHeader *h)
{
    return (struct response_header){
        .cluster_id = h->cluster_id,
        .member_id = h->member_id,
        .raft_term = h->raft_term,
        .revision = h->revision,
    };
}

struct key_value
recipe_key_value(const Mvccpb__KeyValue *kv)
{
    return (struct key_value){
        .key = slice_of(kv->key.data, kv->key.len),
        .value = slice_of(kv->value.data, kv->value.len),
        .create_revision = kv->create_revision,
        .mod_revision = kv->mod_revision,
        .version = kv->version,
        .lease = kv->lease,
    };
}

/* --- steps ------------------------------------------------------------------------------ */

static void
compare_creation(struct contender *c)
{
    c->recipe.compare = (struct compare){
        .result = COMPARE_EQUAL,
        .target = COMPARE_CREATE,
        .key = buffer_slice(&c->key),
        .number = c->revision,
    };
}

static void
put_own_key(struct contender *c)
{
    c->recipe.done_if = (struct operation){
        .kind = OPERATION_PUT,
        .put = {.key = buffer_slice(&c->key),
                .value = buffer_slice(&c->value),
                .lease = c->lease},
    };
}

static void
take_down(struct recipe *r)
{
    struct contender *c = contender_of(r);

    if (c->revision == 0)
        return;
    compare_creation(c);
    r->done_if = (struct operation){
        .kind = OPERATION_DELETE_RANGE,
        .delete_range = {.key = buffer_slice(&c->key)},
    };
    r->done_else = (struct operation){.kind = OPERATION_NONE};
    recipe_undo_transact(r);
}

static void
checked(struct recipe *r)
{
    const Etcdserverpb__RangeResponse *m = (const void *)r->answer;
    struct contender *c = contender_of(r);

    if (m->n_kvs == 0 || m->kvs[0]->create_revision != c->revision) {
        recipe_fail(r, c->is_campaign ? ETCD_ELECTION_SESSION_EXPIRED
                                      : ETCD_SESSION_EXPIRED);
        return;
    }
    if (!c->is_campaign)
        c->header = recipe_header(m->header);
    c->won(c);
}

static void
check_own_key(struct contender *c)
{
    c->recipe.range =
        (struct range_request){.key = buffer_slice(&c->key), .keys_only = true};
    recipe_read(&c->recipe, true, checked);
}

static void look(struct contender *c);

static bool
older_ended(struct recipe *r, const Etcdserverpb__WatchResponse *m)
{
    (void)m; /* also when it was overtaken by a compaction: look again */
    look(contender_of(r));
    return true;
}

static void
looked(struct recipe *r)
{
    const Etcdserverpb__RangeResponse *m = (const void *)r->answer;
    struct contender *c = contender_of(r);
    struct watch_create watch = {0};

    if (m->n_kvs == 0) {
        if (c->waited)
            check_own_key(c);
        else
            c->won(c);
        return;
    }
    c->waited = true;
    watch.key = slice_of(m->kvs[0]->key.data, m->kvs[0]->key.len);
    watch.start_revision = m->header->revision + 1;
    watch.no_put = true;
    recipe_watch(r, &watch, older_ended);
}

/* The youngest of the older keys. */
static void
look(struct contender *c)
{
    struct range_request *range = &c->recipe.range;

    recipe_oldest(range, buffer_slice(&c->prefix), buffer_slice(&c->prefix_end));
    range->sort_order = SORT_DESCEND;
    range->max_create_revision = c->revision - 1;
    range->keys_only = true;
    range->serializable = true;
    recipe_read(&c->recipe, false, looked);
}

static void
proclaimed(struct recipe *r)
{
    const Etcdserverpb__TxnResponse *m = (const void *)r->answer;

    if (m->succeeded)
        look(contender_of(r));
    else
        recipe_fail(r, ETCD_ELECTION_NOT_LEADER);
}

/* The key is there already: of an earlier call with the same lease. */
static void
enrolled_before(struct contender *c, const Mvccpb__KeyValue *kv)
{
    c->revision = kv->create_revision;
    if (!c->is_campaign ||
        slice_equal(slice_of(kv->value.data, kv->value.len), buffer_slice(&c->value))) {
        look(c);
        return;
    }
    compare_creation(c);
    put_own_key(c);
    c->recipe.done_else = (struct operation){.kind = OPERATION_NONE};
    recipe_transact(&c->recipe, proclaimed);
}

static void
enrolled(struct recipe *r)
{
    const Etcdserverpb__TxnResponse *m = (const void *)r->answer;
    struct contender *c = contender_of(r);

    c->header = recipe_header(m->header);
    if (m->succeeded) {
        c->revision = m->header->revision;
        look(c);
    } else {
        enrolled_before(c, m->responses[0]->response_range->kvs[0]);
    }
}

static void
enrol(struct contender *c)
{
    char lease[24];
    int n;

    n = c->lease < 0 ? snprintf(lease, sizeof lease, "-%" PRIx64, -(uint64_t)c->lease)
                     : snprintf(lease, sizeof lease, "%" PRIx64, (uint64_t)c->lease);
    buffer_append_slice(&c->key, buffer_slice(&c->prefix));
    buffer_append(&c->key, lease, (size_t)n);
    compare_creation(c); /* revision 0: there is none */
    put_own_key(c);
    c->recipe.done_else = (struct operation){
        .kind = OPERATION_RANGE,
        .range = {.key = buffer_slice(&c->key)},
    };
    recipe_transact(&c->recipe, enrolled);
}

static void
granted(struct recipe *r)
{
    const Etcdserverpb__LeaseGrantResponse *m = (const void *)r->answer;
    struct contender *c = contender_of(r);

    c->lease = m->id;
    enrol(c);
}

void
contend(struct contender *c, struct t4_slice name)
{
    recipe_prefix(name, &c->prefix, &c->prefix_end);
    c->recipe.undo = take_down;
    if (c->lease == 0)
        recipe_grant(&c->recipe, granted);
    else
        enrol(c);
}

void
contender_release(struct stream *s)
{
    struct contender *c = container_of(s, struct contender, recipe.stream);

    recipe_release(&c->recipe);
    buffer_free(&c->prefix);
    buffer_free(&c->prefix_end);
    buffer_free(&c->key);
    buffer_free(&c->value);
}

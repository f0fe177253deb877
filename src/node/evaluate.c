/*
 * evaluate.c - one request within the commit role: check against the newest state, apply.
 *
 * Nothing is applied before everything that can fail has succeeded: the effects are collected
 * (txn/), space in the log is reserved, and only then the entry is built, the versions go
 * into the memtable and the lease table changes.  From there on the entry will be committed
 * unless the process dies.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "base/log.h"
#include "base/memory.h"
#include "node/node_int.h"

#define CLOCK_SLACK_MS                                                                   \
    300000u             /* how far the wall clock may run ahead of the boot clock */
#define EXPIRE_TURN 64u /* leases that one internal request lets expire at most ... */
#define EXPIRE_TURN_NS 1000000u /* ... and for how long: others want the role, too */

/* --- helpers ------------------------------------------------------------------------------ */

static uint64_t
boot_ns(struct node *n)
{
    return n->options.env->boot_ns(n->options.env->state);
}

/*
 * Time of an entry: never decreasing, and a wall clock that jumps ahead is not believed
 * beyond five minutes over what the boot clock says (one jump to 2099 would freeze it).
 */
static uint64_t
entry_time_ms(struct node *n)
{
    uint64_t wall = n->options.env->wall_ns(n->options.env->state) / 1000000;
    uint64_t bound = n->clock_start_wall_ms +
                     (boot_ns(n) - n->clock_start_boot_ns) / 1000000 + CLOCK_SLACK_MS;

    if (wall > bound + 1000 && !n->clock_clamped) {
        n->clock_clamped = true;
        LOG_WARN("the wall clock jumped ahead; entries are stamped with the bounded time",
                 NULL);
    }
    wall = wall < bound ? wall : bound;
    n->time_ms = wall > n->time_ms ? wall : n->time_ms;
    return n->time_ms;
}

static struct response_header
header_of(struct node *n)
{
    return (struct response_header){n->identity.cluster_id, n->identity.member_id,
                                    n->term, n->revision};
}

static bool
lease_exists(void *arg, int64_t id)
{
    return lease_find(arg, id) != NULL;
}

static void
update_next_expiry(struct node *n)
{
    struct lease *first = lease_first(n->leases);

    atomic_store_explicit(&n->next_expiry_ns, first != NULL ? first->expires_ns : 0,
                          memory_order_relaxed);
    metric_set(&n->metrics, METRIC_LEASES, (int64_t)lease_table_count(n->leases));
}

void
evaluate_leases_changed(struct node *n)
{
    update_next_expiry(n);
}

/* What was published late moves expiries back, before any of them is looked at. */
static void
catch_up_leases(struct node *n)
{
    size_t count;
    struct late_lease *late = commit_late_leases(n, &n->leases_index, &count);

    lease_shift_all(n->leases, atomic_exchange(&n->unproven_ns, 0));
    for (size_t i = 0; i < count; i++) {
        struct lease *l = lease_find(n->leases, late[i].id);

        if (l != NULL)
            lease_extend(n->leases, l, late[i].published_ns);
    }
    mem_free(late);
}

/*
 * True if the lease's time is over.  It does not begin before its grant or newest keepalive is
 * published: a client that does not know of its lease yet must not lose it.
 */
static bool
has_expired(struct node *n, struct lease *l, uint64_t now)
{
    if (l->expires_ns <= now && l->release_index > n->leases_index)
        lease_renew(n->leases, l, now);
    return l->expires_ns <= now;
}

/* --- applying effects ----------------------------------------------------------------------- */

static void
insert_versions(struct node *n, const struct entry *e, const struct mutation *m,
                size_t count)
{
    struct buffer ikey = {0};
    uint32_t sub = 0;

    for (size_t i = 0; i < count; i++) {
        struct version v;

        mutation_version(e, &m[i], &sub, &ikey, &v);
        mvcc_insert(n->mvcc, buffer_slice(&ikey), &v);
    }
    buffer_free(&ikey);
}

enum etcd_error
evaluate_apply(struct node *n, const struct effects *f)
{
    struct entry e = {.kind = f->compact_to > 0 ? ENTRY_COMPACTION : ENTRY_NORMAL,
                      .compact_revision = f->compact_to,
                      .index = n->index + 1,
                      .term = n->term,
                      .revision = n->revision + f->new_revision,
                      .time_ms = entry_time_ms(n),
                      .mutations = (uint32_t)(f->n + f->n_extra)};

    buffer_clear(&n->entry);
    entry_encode_head(&n->entry, &e);
    for (size_t i = 0; i < f->n; i++)
        entry_add(&n->entry, &f->mutation[i]);
    for (size_t i = 0; i < f->n_extra; i++)
        entry_add(&n->entry, &f->extra[i]);
    switch (wal_reserve(n->wal, wal_frame_size(n->entry.len), f->urgent)) {
    case T4_OK: break;
    case T4_E_NOSPACE:
        atomic_store(&n->wal_full, true);
        background_space(n);
        return ETCD_NO_SPACE;
    default: /* the log is dead and the process about to end: not a matter of space */
        return ETCD_STOPPED;
    }
    n->index = e.index;
    n->revision = e.revision;
    if (f->compact_to > 0)
        n->compacted = f->compact_to;
    insert_versions(n, &e, f->mutation, f->n);
    insert_versions(n, &e, f->extra, f->n_extra);
    if (mvcc_entry_done(n->mvcc, n->index, n->revision, n->time_ms))
        background_poke_engine(n);
    return ETCD_OK;
}

/* The answer first: once the entry is in the buffer, the request may be gone. */
void
evaluate_answer(struct node *n, struct node_request *r, enum etcd_error error,
                bool logged)
{
    if (error != ETCD_OK) {
        chain_free(&r->response);
        metric_add(&n->metrics, METRIC_REQUESTS_FAILED, 1);
    }
    commit_answer(n, r, error);
    if (logged && error == ETCD_OK)
        commit_append(n);
}

/* --- keys --------------------------------------------------------------------------------------- */

/* [commit role] */
static void
count_mutations(struct node *n, const struct effects *f)
{
    int64_t puts = 0, deletes = 0, bytes = 0;

    for (size_t i = 0; i < f->n; i++) {
        const struct mutation *m = &f->mutation[i];

        if (m->space != SPACE_KEYS)
            continue;
        if (m->flags & MUTATION_TOMBSTONE) {
            deletes++;
            continue;
        }
        puts++;
        bytes += (int64_t)(m->key.len + m->value.len);
    }
    metric_add_alone(&n->metrics, METRIC_PUTS, puts);
    metric_add_alone(&n->metrics, METRIC_PUT_BYTES, bytes);
    metric_add_alone(&n->metrics, METRIC_DELETES, deletes);
}

static void
evaluate_keys(struct node *n, struct node_request *r)
{
    struct response_header header = header_of(n);
    struct txn_leases leases = {lease_exists, n->leases};
    struct effects f = {0};
    struct mvcc_reader reader;
    enum etcd_error error;
    t4_status status = mvcc_read_begin(n->mvcc, &reader);

    if (status != T4_OK) {
        evaluate_answer(n, r, etcd_read_error(status), false);
        return;
    }
    txn_begin(n->txn, &reader, &leases, n->revision, n->compacted, &header);
    switch (r->op) {
    case NODE_PUT:
        metric_add(&n->metrics, METRIC_REQUESTS_PUT, 1);
        error = txn_put(n->txn, &r->put, &r->response);
        break;
    case NODE_DELETE_RANGE:
        metric_add(&n->metrics, METRIC_REQUESTS_DELETE, 1);
        error = txn_delete_range(n->txn, &r->delete_range, &r->response);
        f.urgent = true;
        break;
    default:
        metric_add(&n->metrics, METRIC_REQUESTS_TXN, 1);
        error = txn_txn(n->txn, &r->txn, &r->response);
        f.urgent = !txn_has_put(&r->txn);
        break;
    }
    if (error == ETCD_OK)
        f.mutation = txn_mutations(n->txn, &f.n, &f.new_revision);
    if (error == ETCD_OK && f.new_revision)
        error = evaluate_apply(n, &f);
    if (error == ETCD_OK && f.new_revision)
        count_mutations(n, &f);
    mvcc_read_end(&reader);
    evaluate_answer(n, r, error, f.new_revision);
}

/* --- compaction ------------------------------------------------------------------------------------ */

static void
evaluate_compact(struct node *n, struct node_request *r)
{
    struct response_header header = header_of(n);
    int64_t revision = r->compact.revision;
    struct buffer value = {0};
    struct mutation record = {.space = SPACE_SYSTEM, .key = slice_str(COMPACTED_KEY)};
    struct effects f = {
        .extra = &record, .n_extra = 1, .compact_to = revision, .urgent = true};
    enum etcd_error error = ETCD_OK;
    bool physical = r->compact.physical, logged = revision > 0;

    metric_add(&n->metrics, METRIC_REQUESTS_COMPACT, 1);
    if (revision <= n->compacted)
        error = ETCD_COMPACTED;
    else if (revision > n->revision)
        error = ETCD_FUTURE_REVISION;
    else if (logged) {
        buffer_append_varint(&value, (uint64_t)revision);
        record.value = buffer_slice(&value);
        error = evaluate_apply(n, &f);
    } else {
        n->compacted = revision; /* etcd accepts Compact(0) once; nothing to remember */
    }
    buffer_free(&value);
    if (error == ETCD_OK) {
        wire_header_field(&r->response, 1, &header);
        if (physical || alarm_wants_flush(n))
            mvcc_freeze(
                n->mvcc); /* all of it must reach the engine to be removed there */
    }
    evaluate_answer(n, r, error, logged);
}

/* --- leases ------------------------------------------------------------------------------------------- */

static struct mutation
lease_record(uint8_t key[LEASE_KEY_BYTES], struct buffer *value, int64_t id, int64_t ttl,
             int64_t remaining)
{
    struct mutation m = {.space = SPACE_SYSTEM};

    lease_key_encode(key, id);
    m.key = slice_of(key, LEASE_KEY_BYTES);
    if (value == NULL) {
        m.flags = MUTATION_TOMBSTONE;
        return m;
    }
    lease_value_encode(value, ttl, remaining);
    m.value = buffer_slice(value);
    return m;
}

static int64_t
free_lease_id(struct node *n)
{
    int64_t id;

    do {
        n->options.env->random(n->options.env->state, &id, sizeof id);
        id &= INT64_MAX;
    } while (id == 0 || lease_find(n->leases, id) != NULL);
    return id;
}

static void
evaluate_grant(struct node *n, struct node_request *r)
{
    struct response_header header = header_of(n);
    int64_t id = r->lease_grant.id, ttl = r->lease_grant.ttl;
    uint8_t key[LEASE_KEY_BYTES];
    struct buffer value = {0};
    struct mutation record;
    struct effects f = {.extra = &record, .n_extra = 1};
    enum etcd_error error = ETCD_OK;

    if (id == 0)
        id = free_lease_id(n);
    if (ttl > LEASE_TTL_MAX)
        error = ETCD_LEASE_TTL_TOO_LARGE;
    else if (lease_find(n->leases, id) != NULL)
        error = ETCD_LEASE_EXISTS;
    if (ttl < LEASE_TTL_MIN)
        ttl = LEASE_TTL_MIN;
    if (error == ETCD_OK) {
        record = lease_record(key, &value, id, ttl, ttl);
        error = evaluate_apply(n, &f);
    }
    if (error == ETCD_OK) {
        lease_add(n->leases, id, ttl, ttl, boot_ns(n))->release_index = n->index;
        metric_add_alone(&n->metrics, METRIC_LEASES_GRANTED, 1);
        r->lease_grant.id = id;
        r->evaluated_ns = boot_ns(n);
        wire_header_field(&r->response, 1, &header);
        wire_varint_field(&r->response, 2, (uint64_t)id);
        wire_varint_field(&r->response, 3, (uint64_t)ttl);
    }
    buffer_free(&value);
    evaluate_answer(n, r, error, true);
}

/* Revokes a lease that exists: its keys go in one revision, with its record. */
static enum etcd_error
revoke(struct node *n, struct lease *l)
{
    struct response_header header = header_of(n);
    struct txn_leases leases = {lease_exists, n->leases};
    uint8_t key[LEASE_KEY_BYTES];
    struct mutation record = lease_record(key, NULL, l->id, 0, 0);
    struct effects f = {.extra = &record, .n_extra = 1, .urgent = true};
    struct mvcc_reader reader;
    enum etcd_error error;
    t4_status status;

    if (!base_lease_ready(n, l->id))
        return ETCD_NOT_HYDRATED;
    status = mvcc_read_begin(n->mvcc, &reader);
    if (status != T4_OK)
        return etcd_read_error(status);
    txn_begin(n->txn, &reader, &leases, n->revision, n->compacted, &header);
    error = txn_revoke(n->txn, l->id);
    if (error == ETCD_OK) {
        f.mutation = txn_mutations(n->txn, &f.n, &f.new_revision);
        error = evaluate_apply(n, &f);
    }
    if (error == ETCD_OK)
        count_mutations(n, &f);
    mvcc_read_end(&reader);
    if (error == ETCD_OK) {
        lease_remove(n->leases, l);
        metric_add_alone(&n->metrics, METRIC_LEASES_REVOKED, 1);
    }
    return error;
}

static void
evaluate_revoke(struct node *n, struct node_request *r)
{
    struct lease *l = lease_find(n->leases, r->lease.id);
    enum etcd_error error = l != NULL ? revoke(n, l) : ETCD_LEASE_NOT_FOUND;

    if (error == ETCD_OK) {
        struct response_header header = header_of(n);

        wire_header_field(&r->response, 1, &header);
    }
    evaluate_answer(n, r, error, true);
}

static void
evaluate_keepalive(struct node *n, struct node_request *r)
{
    struct response_header header = header_of(n);
    struct lease *l = lease_find(n->leases, r->lease.id);
    enum etcd_error error = ETCD_OK;
    uint64_t now = boot_ns(n);
    bool logged = false;
    int64_t ttl = 0;

    r->evaluated_ns = now;
    if (!node_is_proven(n)) { /* asked for before it came here, and lost meanwhile */
        evaluate_answer(n, r, ETCD_NO_LEADER, false);
        return;
    }
    if (l != NULL && has_expired(n, l, now)) {
        /* Expired: it is answered only after its end is decided, never revived. */
        error = atomic_load(&n->alarm_corrupt) ? ETCD_CORRUPT : revoke(n, l);
        logged = error == ETCD_OK;
        if (logged)
            metric_add(&n->metrics, METRIC_LEASES_EXPIRED, 1);
        l = NULL;
    } else if (l != NULL && l->logged_remaining < l->ttl) {
        uint8_t key[LEASE_KEY_BYTES];
        struct buffer value = {0};
        struct mutation record = lease_record(key, &value, l->id, l->ttl, l->ttl);
        struct effects f = {.extra = &record, .n_extra = 1, .urgent = true};

        error = evaluate_apply(n, &f);
        logged = error == ETCD_OK;
        if (logged)
            l->logged_remaining = l->ttl;
        buffer_free(&value);
    }
    if (error == ETCD_OK && l != NULL) {
        lease_renew(n->leases, l, now);
        metric_add_alone(&n->metrics, METRIC_LEASES_RENEWED, 1);
        l->release_index = n->index;
        ttl = l->ttl;
    }
    wire_header_field(&r->response, 1, &header);
    wire_varint_field(&r->response, 2, (uint64_t)r->lease.id);
    wire_varint_field(&r->response, 3, (uint64_t)ttl);
    evaluate_answer(n, r, error, logged);
}

static enum etcd_error
attached_keys(struct node *n, int64_t id, struct chain *out)
{
    uint8_t lo[9] = {SPACE_ATTACHMENTS}, hi[9] = {SPACE_ATTACHMENTS};
    struct mvcc_reader reader;
    struct mvcc_walk walk;
    struct t4_slice ikey;
    struct version v;
    t4_status status = mvcc_read_begin(n->mvcc, &reader);

    if (status != T4_OK)
        return etcd_read_error(status);
    put_u64be(lo + 1, (uint64_t)id);
    put_u64be(hi + 1, (uint64_t)id + 1);
    mvcc_walk_begin(&walk, &reader, slice_of(lo, 9),
                    (uint64_t)id == UINT64_MAX ? slice_of(NULL, 0) : slice_of(hi, 9),
                    STAMP_NEWEST);
    while ((status = mvcc_walk_next(&walk, &ikey, &v)) == T4_OK) {
        struct t4_slice key = slice_of(ikey.data + 9, ikey.len - 9);

        wire_message_head(out, 5, key.len); /* a repeated bytes field, possibly empty */
        chain_append(out, key.data, key.len);
    }
    mvcc_walk_end(&walk);
    mvcc_read_end(&reader);
    return etcd_read_error(status);
}

/* The lease table's state was true if this server still led after it was looked at (I5). */
static void
answer_if_proven(struct node *n, struct node_request *r, enum etcd_error error)
{
    evaluate_answer(n, r, node_is_proven(n) ? error : ETCD_NO_LEADER, false);
}

static void
evaluate_time_to_live(struct node *n, struct node_request *r)
{
    struct response_header header = header_of(n);
    struct lease *l = lease_find(n->leases, r->lease.id);
    enum etcd_error error = ETCD_OK;

    wire_header_field(&r->response, 1, &header);
    wire_varint_field(&r->response, 2, (uint64_t)r->lease.id);
    if (l == NULL) {
        wire_varint_field(&r->response, 3, (uint64_t)-1);
    } else {
        wire_varint_field(&r->response, 3, (uint64_t)lease_remaining(l, boot_ns(n)));
        wire_varint_field(&r->response, 4, (uint64_t)l->ttl);
        if (r->lease.keys)
            error = attached_keys(n, l->id, &r->response);
    }
    answer_if_proven(n, r, error);
}

static void
evaluate_leases(struct node *n, struct node_request *r)
{
    struct response_header header = header_of(n);
    uint64_t count;
    int64_t *ids = lease_ids_by_expiry(n->leases, &count);

    wire_header_field(&r->response, 1, &header);
    for (uint64_t i = 0; i < count; i++) {
        wire_message_head(&r->response, 2, 1 + varint_size((uint64_t)ids[i]));
        wire_varint_field(&r->response, 1, (uint64_t)ids[i]);
    }
    mem_free(ids);
    answer_if_proven(n, r, ETCD_OK);
}

/*
 * Leases that have expired, each with an entry of its own, but no more than a turn allows; the
 * keeper comes back while there are more.
 */
static void
evaluate_expire(struct node *n, struct node_request *r)
{
    uint64_t now = boot_ns(n), until = now + EXPIRE_TURN_NS;
    enum etcd_error error = node_is_proven(n) ? ETCD_OK : ETCD_NO_LEADER;
    bool logged = false;

    for (unsigned i = 0;
         error == ETCD_OK && i < EXPIRE_TURN && (i == 0 || boot_ns(n) < until); i++) {
        struct lease *l = lease_first(n->leases);

        if (l == NULL || !has_expired(n, l, now))
            break;
        if (logged)
            commit_append(n); /* of the one before; the last goes after the answer */
        error = revoke(n, l);
        logged = error == ETCD_OK;
        if (!logged)
            break;
        metric_add(&n->metrics, METRIC_LEASES_EXPIRED, 1);
    }
    evaluate_answer(n, r, error, logged);
}

/* Something waits for a memtable that nobody fills up. */
static void
evaluate_freeze(struct node *n, struct node_request *r)
{
    mvcc_freeze(n->mvcc);
    evaluate_answer(n, r, ETCD_OK, false);
}

/* All due remainders in one entry. */
static void
evaluate_remainders(struct node *n, struct node_request *r)
{
    uint64_t count, now = boot_ns(n);
    struct lease **due = lease_due_remainders(n->leases, now, &count);
    struct mutation *record = mem_alloc(count * sizeof *record);
    uint8_t(*key)[LEASE_KEY_BYTES] = mem_alloc(count * sizeof *key);
    struct buffer *value = mem_zalloc(count * sizeof *value);
    struct effects f = {.extra = record, .n_extra = count};
    enum etcd_error error = ETCD_OK;

    for (uint64_t i = 0; i < count; i++)
        record[i] = lease_record(key[i], &value[i], due[i]->id, due[i]->ttl,
                                 lease_remaining_up(due[i], now));
    if (count > 0)
        error = evaluate_apply(n, &f);
    for (uint64_t i = 0; i < count; i++) {
        if (error == ETCD_OK)
            due[i]->logged_remaining = lease_remaining_up(due[i], now);
        buffer_free(&value[i]);
    }
    mem_free(value);
    mem_free(key);
    mem_free(record);
    mem_free(due);
    evaluate_answer(n, r, error, count > 0);
}

/* --- dispatch ---------------------------------------------------------------------------------------------- */

bool
evaluate_is_heavy(const struct node_request *r)
{
    switch ((int)r->op) {
    case NODE_PUT:
    case NODE_COMPACT:
    case NODE_BARRIER:
    case NODE_ALARM:
    case NODE_DEFRAGMENT:
    case NODE_LEASE_GRANT:
    case NODE_LEASE_KEEPALIVE: return false;
    case NODE_DELETE_RANGE: return !range_is_single(r->delete_range.range_end);
    case NODE_TXN: return txn_is_heavy(&r->txn);
    case NODE_LEASE_TIME_TO_LIVE: return r->lease.keys;
    default: return true;
    }
}

bool
evaluate_needs_revision(const struct node_request *r)
{
    return r->op == NODE_PUT || r->op == NODE_DELETE_RANGE || r->op == NODE_TXN ||
           r->op == NODE_LEASE_REVOKE || (int)r->op == NODE_INTERNAL_EXPIRE;
}

bool
evaluate_store_is_behind(struct node *n)
{
    return n->lead != NULL && n->revision - atomic_load_explicit(&n->object_revision,
                                                                 memory_order_relaxed) >=
                                  (INT64_C(1) << 36);
}

void
evaluate(struct node *n, struct node_request *r)
{
    if (!atomic_load_explicit(&n->leading, memory_order_relaxed)) {
        evaluate_answer(n, r, ETCD_NO_LEADER, false);
        return;
    }
    if (evaluate_needs_revision(r) && evaluate_store_is_behind(n)) {
        evaluate_answer(n, r, ETCD_BACKLOG_FULL, false);
        return;
    }
    if (alarm_refuses(n, r))
        return;
    switch ((int)r->op) {
    case NODE_PUT:
    case NODE_DELETE_RANGE:
    case NODE_TXN: evaluate_keys(n, r); return;
    case NODE_COMPACT: evaluate_compact(n, r); return;
    case NODE_INTERNAL_FREEZE: evaluate_freeze(n, r); return;
    case NODE_BARRIER: evaluate_answer(n, r, ETCD_OK, false); return;
    case NODE_ALARM: evaluate_alarm(n, r); return;
    case NODE_DEFRAGMENT: evaluate_freeze(n, r); return; /* and then defragment.c */
    default: break;
    }
    if ((int)r->op < NODE_INTERNAL)
        metric_add(&n->metrics, METRIC_REQUESTS_LEASE, 1);
    catch_up_leases(n);
    switch ((int)r->op) {
    case NODE_LEASE_GRANT: evaluate_grant(n, r); break;
    case NODE_LEASE_REVOKE: evaluate_revoke(n, r); break;
    case NODE_LEASE_KEEPALIVE: evaluate_keepalive(n, r); break;
    case NODE_LEASE_TIME_TO_LIVE: evaluate_time_to_live(n, r); break;
    case NODE_LEASE_LEASES: evaluate_leases(n, r); break;
    case NODE_INTERNAL_EXPIRE: evaluate_expire(n, r); break;
    default: evaluate_remainders(n, r); break;
    }
    update_next_expiry(n);
}

/*
 * alarm.c - alarms, and the quota that raises one of them.
 *
 * An alarm is a pair {member, kind} that stays until somebody takes it down.  It is state of
 * the log, as leases are: a record of space 's' under
 *
 *   "alarm/" · member id, u64 big endian · kind, u32 big endian   ->   u8 format (1)
 *
 * so that it survives a restart and the loss of the disk.  The table here is evaluation state.
 * Kinds other than NOSPACE and CORRUPT are kept and shown, as etcd does, and mean nothing.
 *
 * Of another nature is the alarm of a full disk (background.c): it is this server's, is in no
 * log, comes and goes with its cause, and cannot be taken down.  It is shown as NOSPACE, too.
 *
 * What counts for the quota is what the engine holds that is not free for reuse, and what
 * memtables are about to add to it.  etcd counts the whole file, because what it frees inside
 * stays lost until somebody defragments; LMDB takes its free pages first, so a compaction alone
 * makes room here.  The engine is measured by the engine thread after each piece of work, but
 * not within a flush.  A memtable counts until the engine was measured with all of it: what is
 * kept of a measurement is its difference to the bytes flushed until then (modulo 2^64), so that
 * it and the bytes inserted give a sum without a moment in which a memtable is in neither.
 *
 * Runs on: the commit role, recovery; alarm_measure(): the engine thread; alarm_look(): any.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <inttypes.h>
#include <stdio.h>

#include "base/log.h"
#include "base/memory.h"
#include "node/node_int.h"

#define PREFIX "alarm/"
#define PREFIX_BYTES (sizeof PREFIX - 1)
#define KEY_BYTES (PREFIX_BYTES + 8 + 4)
#define RECORD_FORMAT 1
#define WRITE_OVERHEAD 256u /* of a key in the engine; etcd reckons with the same */

/* --- the table ------------------------------------------------------------------------------ */

static struct alarm *
find(struct node *n, uint64_t member, int32_t kind)
{
    for (uint32_t i = 0; i < n->alarms.n; i++) {
        struct alarm *a = &n->alarms.list[i];

        if (a->member == member && a->kind == kind)
            return a;
    }
    return NULL;
}

static bool
has_kind(const struct node *n, int32_t kind)
{
    for (uint32_t i = 0; i < n->alarms.n; i++)
        if (n->alarms.list[i].kind == kind)
            return true;
    return false;
}

/* Adds it, or takes it away; false: there is no room.  [role, recovery] */
static bool
change(struct node *n, uint64_t member, int32_t kind, bool up)
{
    struct alarm *a;
    bool fits = true;

    mutex_lock(&n->alarms.lock);
    a = find(n, member, kind);
    if (!up && a != NULL) {
        *a = n->alarms.list[--n->alarms.n];
    } else if (up && a == NULL) {
        fits = n->alarms.n < NODE_ALARMS_MAX;
        if (fits)
            n->alarms.list[n->alarms.n++] = (struct alarm){member, kind, n->index};
    }
    atomic_store(&n->alarm_nospace, has_kind(n, ALARM_NOSPACE));
    atomic_store(&n->alarm_corrupt, has_kind(n, ALARM_CORRUPT));
    mutex_unlock(&n->alarms.lock);
    alarm_show(n);
    return fits;
}

void
alarm_init(struct node *n)
{
    mutex_init(&n->alarms.lock);
}

void
alarm_free(struct node *n)
{
    mutex_destroy(&n->alarms.lock);
}

void
alarm_forget(struct node *n)
{
    while (n->alarms.n > 0)
        change(n, n->alarms.list[0].member, n->alarms.list[0].kind, false);
}

void
alarm_show(struct node *n)
{
    metric_set(&n->metrics, METRIC_NOSPACE,
               atomic_load(&n->alarm_nospace) || atomic_load(&n->disk_full));
    metric_set(&n->metrics, METRIC_CORRUPT, atomic_load(&n->alarm_corrupt));
}

uint32_t
alarm_look(struct node *n, uint64_t published, struct node_alarm out[NODE_ALARMS_MAX + 1])
{
    bool full = atomic_load(&n->disk_full);
    uint32_t shown = 0;

    mutex_lock(&n->alarms.lock);
    for (uint32_t i = 0; i < n->alarms.n; i++) {
        const struct alarm *a = &n->alarms.list[i];

        if (a->since > published)
            continue; /* raised, and not yet committed */
        out[shown++] = (struct node_alarm){a->member, a->kind};
        if (a->member == n->identity.member_id && a->kind == ALARM_NOSPACE)
            full = false; /* it is listed once, whatever the causes */
    }
    mutex_unlock(&n->alarms.lock);
    if (full)
        out[shown++] = (struct node_alarm){n->identity.member_id, ALARM_NOSPACE};
    return shown;
}

/* --- records -------------------------------------------------------------------------------- */

static void
encode_key(uint8_t key[KEY_BYTES], uint64_t member, int32_t kind)
{
    memcpy(key, PREFIX, PREFIX_BYTES);
    put_u64be(key + PREFIX_BYTES, member);
    for (int i = 0; i < 4; i++)
        key[PREFIX_BYTES + 8 + (size_t)i] = (uint8_t)((uint32_t)kind >> (24 - 8 * i));
}

bool
alarm_is_key(struct t4_slice key)
{
    return key.len == KEY_BYTES && memcmp(key.data, PREFIX, PREFIX_BYTES) == 0;
}

bool
alarm_record(struct node *n, struct t4_slice key, const struct t4_slice *value)
{
    uint64_t member = get_u64be(key.data + PREFIX_BYTES);
    uint32_t kind = 0;

    for (size_t i = PREFIX_BYTES + 8; i < KEY_BYTES; i++)
        kind = kind << 8 | key.data[i];
    if (value != NULL && (value->len != 1 || value->data[0] != RECORD_FORMAT))
        return false;
    return change(n, member, (int32_t)kind, value != NULL);
}

/* Logs that an alarm is up, or not any more; the caller answers and appends.  [role] */
static enum etcd_error
log_change(struct node *n, uint64_t member, int32_t kind, bool up)
{
    static const uint8_t format = RECORD_FORMAT;
    uint8_t key[KEY_BYTES];
    struct mutation record = {.space = SPACE_SYSTEM};
    struct effects f = {.extra = &record, .n_extra = 1, .urgent = true};
    enum etcd_error error;

    encode_key(key, member, kind);
    record.key = slice_of(key, sizeof key);
    if (up)
        record.value = slice_of(&format, 1);
    else
        record.flags = MUTATION_TOMBSTONE;
    error = evaluate_apply(n, &f);
    if (error == ETCD_OK)
        change(n, member, kind, up);
    return error;
}

/* --- the quota ------------------------------------------------------------------------------ */

void
alarm_measure(struct node *n)
{
    struct t4_engine_stats stats = {.size = sizeof stats};
    uint64_t bytes = 0;

    if (mvcc_is_flushing(n->mvcc))
        return;
    if (engine_stats(n->engine, &stats) == T4_OK)
        bytes = stats.in_use_bytes;
    if (n->hydration != NULL && !hydration_is_complete(n->hydration)) {
        struct hydration_view v;

        /* What is still to come from the checkpoint is there already, for the client. */
        hydration_look(n->hydration, &v);
        bytes += v.bytes > v.bytes_done ? v.bytes - v.bytes_done : 0;
    }
    atomic_store_explicit(&n->engine_measure, bytes - mvcc_flushed_bytes(n->mvcc),
                          memory_order_relaxed);
}

uint64_t
alarm_quota_used(struct node *n)
{
    return atomic_load_explicit(&n->engine_measure, memory_order_relaxed) +
           mvcc_inserted_bytes(n->mvcc);
}

static bool
exceeds_quota(struct node *n, const struct node_request *r)
{
    int64_t quota = n->options.quota_bytes;

    return quota >= 0 &&
           alarm_quota_used(n) + r->bytes + WRITE_OVERHEAD >= (uint64_t)quota;
}

/* Writes that need space are refused under NOSPACE, also if they would not be carried out. */
static bool
needs_space(const struct node_request *r)
{
    return r->op == NODE_PUT || r->op == NODE_LEASE_GRANT ||
           (r->op == NODE_TXN && txn_has_put(&r->txn));
}

/* Reads, keepalives and alarms go on under CORRUPT, as in etcd. */
static bool
changes_data(const struct node_request *r)
{
    return evaluate_needs_revision(r) || r->op == NODE_COMPACT ||
           r->op == NODE_LEASE_GRANT;
}

static void
raise_over_quota(struct node *n, struct node_request *r)
{
    char quota[24], used[24];
    bool logged = log_change(n, n->identity.member_id, ALARM_NOSPACE, true) == ETCD_OK;

    snprintf(quota, sizeof quota, "%" PRId64, n->options.quota_bytes);
    snprintf(used, sizeof used, "%" PRIu64, alarm_quota_used(n));
    LOG_ERROR("the quota is used up: alarm NOSPACE raised, puts and grants are refused; "
              "reads, watches, deletes and compaction go on",
              "quota_bytes", quota, "used_bytes", used, "hint",
              "delete keys, compact, then take the alarm down (etcdctl alarm disarm); or "
              "start with a larger --quota-backend-bytes and take it down then",
              NULL);
    metric_add(&n->metrics, METRIC_REQUESTS_FAILED, 1);
    /* Refused once the alarm is committed: who asks for it then finds it. */
    commit_answer(n, r, ETCD_NO_SPACE);
    if (logged)
        commit_append(n);
}

bool
alarm_refuses(struct node *n, struct node_request *r)
{
    if (atomic_load_explicit(&n->alarm_corrupt, memory_order_relaxed) &&
        changes_data(r)) {
        evaluate_answer(n, r, ETCD_CORRUPT, false);
        return true;
    }
    if (!needs_space(r))
        return false;
    if (atomic_load_explicit(&n->alarm_nospace, memory_order_relaxed) ||
        atomic_load_explicit(&n->disk_full, memory_order_relaxed)) {
        evaluate_answer(n, r, ETCD_NO_SPACE, false);
        return true;
    }
    if (!exceeds_quota(n, r))
        return false;
    raise_over_quota(n, r);
    return true;
}

bool
alarm_wants_flush(struct node *n)
{
    return atomic_load_explicit(&n->alarm_nospace, memory_order_relaxed);
}

/* --- the request ---------------------------------------------------------------------------- */

static void
list_alarm(struct chain *out, uint64_t member, int32_t kind)
{
    struct chain one;

    chain_init(&one);
    wire_varint_field(&one, 1, member);
    wire_varint_field(&one, 2, (uint64_t)(int64_t)kind);
    wire_message_field(out, 2, &one);
}

static void
log_request(uint64_t member, int32_t kind, bool up)
{
    char id[24], text[16];

    snprintf(id, sizeof id, "%" PRIx64, member);
    snprintf(text, sizeof text, "%" PRId32, kind);
    LOG_WARN(up ? "an alarm was raised by request" : "an alarm was taken down by request",
             "member", id, "alarm",
             kind == ALARM_NOSPACE   ? "NOSPACE"
             : kind == ALARM_CORRUPT ? "CORRUPT"
                                     : text,
             NULL);
}

void
evaluate_alarm(struct node *n, struct node_request *r)
{
    struct response_header header = {n->identity.cluster_id, n->identity.member_id,
                                     n->term, n->revision};
    uint64_t member = r->alarm.member;
    int32_t kind = r->alarm.kind;
    bool there = find(n, member, kind) != NULL, logged = false;
    enum etcd_error error = ETCD_OK;

    wire_header_field(&r->response, 1, &header);
    switch (r->alarm.action) {
    case NODE_ALARM_GET: {
        struct node_alarm up[NODE_ALARMS_MAX + 1];
        uint32_t count = alarm_look(n, UINT64_MAX, up);

        if (!node_is_proven(n)) /* I5, as for leases */
            error = ETCD_NO_LEADER;
        for (uint32_t i = 0; i < count; i++) /* of all members, as in etcd */
            if (kind == ALARM_NONE || up[i].kind == kind)
                list_alarm(&r->response, up[i].member_id, up[i].kind);
        break;
    }
    case NODE_ALARM_ACTIVATE:
        if (kind == ALARM_NONE)
            break;
        if (!there && n->alarms.n == NODE_ALARMS_MAX)
            error = ETCD_TOO_MANY_ALARMS;
        else if (!there)
            error = log_change(n, member, kind, true);
        logged = !there && error == ETCD_OK;
        list_alarm(&r->response, member, kind);
        break;
    case NODE_ALARM_DEACTIVATE:
        if (!there)
            break; /* also the alarm of a full disk: it goes when there is room */
        error = log_change(n, member, kind, false);
        logged = error == ETCD_OK;
        list_alarm(&r->response, member, kind);
        break;
    }
    if (logged)
        log_request(member, kind, r->alarm.action == NODE_ALARM_ACTIVATE);
    evaluate_answer(n, r, error, logged);
}

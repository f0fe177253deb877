/*
 * survey.c - reading an interval of the log, and what it is worth.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <inttypes.h>

#include "checkpoint/checkpoint_int.h"
#include "fmt/entry.h"
#include "lease/lease.h"

/* --- reading ------------------------------------------------------------------------------ */

/* Entries of the chain, of which only an interval is wanted. */
struct part {
    log_entry_fn *fn;
    void *arg;
    uint64_t after, last, given;
};

static t4_status
take_part(void *arg, uint64_t index, struct t4_slice entry, const struct segment *segment,
          struct error *error)
{
    struct part *p = arg;

    (void)segment;
    if (index > p->last) /* read_chain() knows */
        return T4_E_CANCELLED;
    if (index <= p->after)
        return T4_OK;
    p->given = index;
    return p->fn(p->arg, index, entry, error);
}

static t4_status
read_chain(struct objectlog *log, const struct chain_floor *place, struct part *p,
           struct error *error)
{
    struct objectlog_tail tail;
    t4_status status;

    objectlog_begin_at(log, place);
    status = objectlog_read(log, take_part, p, &tail, error);
    if (status == T4_E_CANCELLED && p->given == p->last)
        return T4_OK; /* the rest of the chain is not wanted */
    if (status == T4_OK && p->given != p->last)
        status = error_set(error, T4_E_CORRUPT,
                           "the chain ends before entry %" PRIu64 ", which was accepted",
                           p->last);
    return status;
}

t4_status
log_read(struct objectlog *log, struct wal *wal, const struct chain_floor *place,
         uint64_t after, uint64_t last, log_entry_fn *fn, void *arg, struct error *error)
{
    struct part p = {fn, arg, after, last, 0};
    struct wal_reader *probe;
    t4_status status = T4_E_NOTFOUND;

    if (last <= after)
        return T4_OK;
    if (wal != NULL)
        status = wal_reader_open_at(wal, after + 1, &probe, error);
    if (status == T4_OK) { /* held until the replay has one of its own */
        status = wal_replay(wal, after, last, fn, arg, error);
        wal_reader_close(probe);
        return status;
    }
    /* A fresh disk whose log begins above the newest checkpoint. */
    return status == T4_E_NOTFOUND ? read_chain(log, place, &p, error) : status;
}

/* --- what it is worth ------------------------------------------------------------------------ */

/*
 * A record of a lease that is below its full time: its remainder, logged from time to time
 * without anybody having written.
 */
static bool
is_remainder(const struct mutation *m)
{
    int64_t id, ttl, remaining;

    return m->space == SPACE_SYSTEM && !(m->flags & MUTATION_TOMBSTONE) &&
           lease_key_decode(m->key, &id) &&
           lease_value_decode(m->value, &ttl, &remaining) && remaining < ttl;
}

t4_status
survey_entry(void *arg, uint64_t index, struct t4_slice bytes, struct error *error)
{
    struct survey *s = arg;
    struct byte_reader r = reader_of(bytes);
    bool worthy = false;
    struct mutation m;
    struct entry e;

    if (!entry_decode_head(&r, &e))
        return error_set(error, T4_E_CORRUPT, "log entry %" PRIu64 " cannot be decoded",
                         index);
    for (uint32_t i = 0; i < e.mutations && !worthy && entry_next(&r, &m); i++)
        worthy = !is_remainder(&m);
    s->worthy |= (worthy && e.kind == ENTRY_NORMAL) || e.kind == ENTRY_RESET;
    if (s->bytes == 0)
        s->first_time_ms = e.time_ms;
    s->bytes += bytes.len;
    s->index = index;
    s->revision = e.revision;
    s->time_ms = e.time_ms;
    if (e.kind != ENTRY_NORMAL)
        s->compacted = e.compact_revision;
    return T4_OK;
}

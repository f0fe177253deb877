/*
 * read.c - reads on the caller's thread: one key, a range, an iterator, a snapshot; and what
 * the database says of itself.
 *
 * I5: a linearizable read is true if this database leads *after* it was made; else it is made
 * again once that is proven.  With the built-in store that is always so.
 *
 * Any thread; an iterator belongs to one at a time.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <string.h>

#include "base/memory.h"
#include "base/metrics.h"
#include "base/slice.h"
#include "lib/lib_int.h"

#define READ_REPEATS_MAX 3u
#define PIECE_BYTES (256u * 1024) /* of an iterator: one value may go over it */
#define PIECE_KEYS 10000u

/* --- waiting ---------------------------------------------------------------------------------- */

struct hydration_waiter {
    struct hydration_wait wait;
    struct lib_signal over;
    t4_status status;
};

static void
range_came(struct hydration_wait *w, t4_status status)
{
    struct hydration_waiter *h = container_of(w, struct hydration_waiter, wait);

    h->status = status;
    lib_signal_set(&h->over);
}

enum etcd_error
lib_read_ready(const struct read_gate *g, const struct range_request *range,
               const struct txn_request *txn)
{
    for (;;) {
        struct hydration_waiter h = {.wait = {.done = range_came}};
        enum hydration_answer answer;

        lib_signal_init(&h.over);
        answer = range != NULL ? node_range_ready(g->db->node, range, &h.wait)
                               : node_txn_ready(g->db->node, txn, &h.wait);
        if (answer != HYDRATION_WAITS) {
            lib_signal_set(&h.over);
            h.status = answer == HYDRATION_READY ? T4_OK : h.wait.status;
        }
        lib_signal_wait(&h.over);
        if (answer == HYDRATION_READY)
            return ETCD_OK;
        if (answer == HYDRATION_REFUSED || h.status != T4_OK)
            return node_hydration_error(h.status);
    }
}

struct proof_waiter {
    struct leadership_wait wait;
    struct lib_signal over;
    bool proven;
};

static void
proof_came(struct leadership_wait *w, bool proven)
{
    struct proof_waiter *p = container_of(w, struct proof_waiter, wait);

    p->proven = proven;
    lib_signal_set(&p->over);
}

bool
lib_read_again(struct read_gate *g, enum etcd_error *e)
{
    struct proof_waiter p = {.wait = {.done = proof_came}};

    if (node_is_proven(g->db->node))
        return false;
    if (g->repeated++ < READ_REPEATS_MAX) {
        lib_signal_init(&p.over);
        if (!node_when_proven(g->db->node, &p.wait))
            lib_signal_set(&p.over);
        lib_signal_wait(&p.over);
    }
    *e = p.proven ? ETCD_OK : ETCD_NO_LEADER;
    return p.proven;
}

/* --- requests ---------------------------------------------------------------------------------- */

struct t4_snapshot {
    t4_db *db;
    int64_t revision;
};

t4_status
lib_read_options(const t4_read_options *given, uint32_t allowed, t4_read_options *out,
                 t4_error *error)
{
    t4_status st = lib_take_struct(given, sizeof *given, out, sizeof *out, error);

    if (st == T4_OK)
        st = lib_check_flags(out->flags, allowed, error);
    if (st == T4_OK && out->snapshot != NULL)
        out->revision = out->snapshot->revision;
    return st;
}

void
lib_range_request(struct t4_slice key, struct t4_slice end, const t4_read_options *o,
                  struct range_request *out)
{
    bool descend = (o->flags & T4_DESCEND) != 0;

    *out = (struct range_request){
        .key = key,
        .range_end = end,
        .limit = o->limit,
        .revision = o->revision,
        .sort_target = o->sort_by,
        .sort_order = descend                     ? SORT_DESCEND
                      : o->sort_by != T4_SORT_KEY ? SORT_ASCEND
                                                  : SORT_NONE,
        .serializable = (o->flags & T4_SERIALIZABLE) != 0,
        .keys_only = (o->flags & T4_KEYS_ONLY) != 0,
        .count_only = (o->flags & T4_COUNT_ONLY) != 0,
        .min_mod_revision = o->min_mod_revision,
        .max_mod_revision = o->max_mod_revision,
        .min_create_revision = o->min_create_revision,
        .max_create_revision = o->max_create_revision,
    };
}

/* Within a call. */
static t4_status
read_range(t4_db *db, const struct range_request *r, t4_result **out, t4_error *error)
{
    struct read_gate g = {.db = db};
    bool again = true;
    struct chain message;
    enum etcd_error e = txn_validate_range(r);

    chain_init(&message);
    while (e == ETCD_OK && again) {
        chain_free(&message);
        e = lib_read_ready(&g, r, NULL);
        if (e == ETCD_OK)
            e = node_range(db->node, r, 0, NULL, &message);
        again = !r->serializable && lib_read_again(&g, &e);
    }
    if (e != ETCD_OK) {
        chain_free(&message);
        return lib_fail_request(error, e);
    }
    *out = lib_answer(T4_RESULT_RANGE, &message);
    if (*out == NULL)
        return lib_fail(error, T4_E_INTERNAL, "the answer cannot be read", "");
    if (r->revision > 0)
        (*out)->revision = r->revision;
    return T4_OK;
}

t4_status
t4_range(t4_db *db, struct t4_slice key, struct t4_slice end,
         const t4_read_options *options, t4_result **out, t4_error *error)
{
    struct range_request r;
    t4_read_options o;
    struct lib_call c;
    t4_status st;

    *out = NULL;
    st = lib_enter(&c, db, error);
    if (st != T4_OK)
        return st;
    st = lib_read_options(options, LIB_RANGE_FLAGS, &o, error);
    if (st == T4_OK) {
        lib_range_request(key, end, &o, &r);
        st = read_range(db, &r, out, error);
    }
    return lib_leave(&c, st);
}

t4_status
t4_get(t4_db *db, struct t4_slice key, const t4_read_options *options, t4_kv **out,
       t4_error *error)
{
    t4_result *result = NULL;
    struct range_request r;
    struct owned *memory;
    t4_read_options o;
    struct lib_call c;
    t4_status st;

    *out = NULL;
    st = lib_enter(&c, db, error);
    if (st != T4_OK)
        return st;
    st = lib_read_options(options, T4_KEYS_ONLY | T4_SERIALIZABLE, &o, error);
    if (st == T4_OK) {
        lib_range_request(key, slice_of("", 0), &o, &r);
        st = read_range(db, &r, &result, error);
    }
    if (st == T4_OK && result->n_kvs == 0) {
        st = T4_E_NOTFOUND;
    } else if (st == T4_OK) {
        *out = lib_owned_new(sizeof **out, &memory);
        **out = result->kvs[0];
        (*out)->key = lib_owned_copy(memory, result->kvs[0].key);
        (*out)->value = lib_owned_copy(memory, result->kvs[0].value);
    }
    t4_free(result);
    return lib_leave(&c, st);
}

/* --- snapshots --------------------------------------------------------------------------------- */

t4_status
t4_snapshot_open(t4_db *db, int64_t revision, t4_snapshot **out, t4_error *error)
{
    /* The smallest read there is: proves who leads, and that the revision is there. */
    struct range_request r = {
        .key = slice_of("", 1), .revision = revision, .count_only = true};
    t4_result *result = NULL;
    struct lib_call c;
    t4_status st;

    *out = NULL;
    st = lib_enter(&c, db, error);
    if (st != T4_OK)
        return st;
    st = read_range(db, &r, &result, error);
    if (st == T4_OK) {
        *out = mem_zalloc(sizeof **out);
        (*out)->db = lib_ref(db);
        (*out)->revision = result->revision;
    }
    t4_free(result);
    return lib_leave(&c, st);
}

int64_t
t4_snapshot_revision(const t4_snapshot *snapshot)
{
    return snapshot->revision;
}

void
t4_snapshot_close(t4_snapshot *snapshot)
{
    if (snapshot == NULL)
        return;
    lib_unref(snapshot->db);
    mem_free(snapshot);
}

/* --- iterators --------------------------------------------------------------------------------- */

struct t4_iterator {
    t4_db *db;
    struct buffer bytes; /* of key and end */
    struct range_request request;
    struct range_progress progress;
    struct response_header header;
    void *piece; /* memory of kvs; NULL: none */
    const t4_kv *kvs;
    size_t n, next;
    t4_error failed; /* status T4_OK: it can go on */
};

static bool
is_done(const t4_iterator *it)
{
    return it->progress.done ||
           (it->request.limit > 0 && it->progress.given >= it->request.limit);
}

/* The next keys, none if there are no more.  Within a call. */
static enum etcd_error
read_piece(t4_iterator *it, struct chain *message)
{
    struct read_gate g = {.db = it->db};
    struct range_progress before = it->progress;
    /* What a revision holds does not change: the first piece is proven, or was not asked to be. */
    bool first = it->progress.count == 0, again = true;
    enum etcd_error e = ETCD_OK;

    while (e == ETCD_OK && again) {
        e = lib_read_ready(&g, &it->request, NULL);
        if (e == ETCD_OK)
            e = node_range_chunk(it->db->node, &it->request, PIECE_BYTES, PIECE_KEYS,
                                 &it->progress, &it->header, message);
        again = first && !it->request.serializable && lib_read_again(&g, &e);
        if (again) {
            buffer_free(&it->progress.next);
            it->progress = before;
            chain_free(message);
        }
    }
    return e;
}

static t4_status
fetch(t4_iterator *it, t4_error *error)
{
    struct chain message;
    struct owned *memory;
    enum etcd_error e;
    uint8_t *bytes;
    size_t n;

    t4_free(it->piece);
    it->piece = NULL;
    it->n = it->next = 0;
    chain_init(&message);
    e = read_piece(it, &message);
    if (e != ETCD_OK) {
        chain_free(&message);
        return lib_fail_request(error, e);
    }
    n = message.length;
    it->piece = lib_owned_new(0, &memory);
    bytes = lib_owned_add(memory, n + 1);
    chain_copy(&message, bytes);
    chain_free(&message);
    if (!lib_answer_kvs(memory, slice_of(bytes, n), &it->kvs, &it->n))
        return lib_fail(error, T4_E_INTERNAL, "the answer cannot be read", "");
    return T4_OK;
}

static t4_status
open_iterator(t4_db *db, struct t4_slice key, struct t4_slice end,
              const t4_read_options *options, t4_iterator **out, t4_error *error)
{
    t4_iterator *it;
    t4_read_options o;
    enum etcd_error e;
    t4_status st = lib_read_options(options, T4_KEYS_ONLY | T4_SERIALIZABLE, &o, error);

    if (st != T4_OK)
        return st;
    it = mem_zalloc(sizeof *it);
    it->db = lib_ref(db);
    buffer_append_slice(&it->bytes, key);
    buffer_append_slice(&it->bytes, end);
    lib_range_request(slice_of(it->bytes.data, key.len),
                      slice_of(it->bytes.data + key.len, end.len), &o, &it->request);
    it->request.sort_target = SORT_KEY;
    it->request.sort_order = SORT_NONE;
    e = txn_validate_range(&it->request);
    st = e == ETCD_OK ? fetch(it, error) : lib_fail_request(error, e);
    if (st == T4_OK)
        *out = it;
    else
        t4_iterator_close(it);
    return st;
}

t4_status
t4_iterator_open(t4_db *db, struct t4_slice key, struct t4_slice end,
                 const t4_read_options *options, t4_iterator **out, t4_error *error)
{
    struct lib_call c;
    t4_status st;

    *out = NULL;
    st = lib_enter(&c, db, error);
    if (st != T4_OK)
        return st;
    return lib_leave(&c, open_iterator(db, key, end, options, out, error));
}

t4_status
t4_iterator_next(t4_iterator *it, const t4_kv **out, t4_error *error)
{
    struct lib_call c;

    *out = NULL;
    if (it->failed.status != T4_OK) {
        if (error != NULL)
            *error = it->failed;
        return it->failed.status;
    }
    while (it->next ==
           it->n) { /* a piece may be empty: others' versions were looked at */
        t4_status st;

        if (is_done(it))
            return T4_DONE;
        st = lib_enter(&c, it->db, &it->failed);
        if (st == T4_OK)
            st = lib_leave(&c, fetch(it, &it->failed));
        if (st != T4_OK) {
            if (error != NULL)
                *error = it->failed;
            return st;
        }
    }
    *out = &it->kvs[it->next++];
    return T4_OK;
}

int64_t
t4_iterator_revision(const t4_iterator *it)
{
    return it->progress.revision;
}

void
t4_iterator_close(t4_iterator *it)
{
    if (it == NULL)
        return;
    t4_free(it->piece);
    buffer_free(&it->progress.next);
    buffer_free(&it->bytes);
    lib_unref(it->db);
    mem_free(it);
}

/* --- what the database says of itself ------------------------------------------------------------ */

t4_status
t4_get_info(t4_db *db, t4_info *info, t4_error *error)
{
    struct node_status s;
    t4_info all;
    struct lib_call c;
    t4_status st = lib_enter(&c, db, error);

    if (st != T4_OK)
        return st;
    if (info->size < sizeof all.size)
        return lib_leave(&c, lib_fail(error, T4_E_INVALID, "info->size is not set",
                                      "set it to sizeof *info"));
    node_status(db->node, &s);
    all = (t4_info){
        .size = info->size,
        .revision = s.revision,
        .compacted_revision = s.compacted_revision > 0 ? s.compacted_revision : 0,
        .cluster_id = s.cluster_id,
        .member_id = s.member_id,
        .db_bytes = s.db_bytes,
        .db_bytes_in_use = s.db_in_use_bytes,
        .leads = node_leads(db->node),
        .no_space = s.nospace,
    };
    memcpy(info, &all, info->size < sizeof all ? info->size : sizeof all);
    return lib_leave(&c, T4_OK);
}

t4_status
t4_get_metrics(t4_db *db, char **text, t4_error *error)
{
    struct buffer b = {0};
    struct lib_call c;
    t4_status st;

    *text = NULL;
    st = lib_enter(&c, db, error);
    if (st != T4_OK)
        return st;
    node_refresh_metrics(db->node);
    metrics_render(node_metrics(db->node), &b);
    *text = lib_owned_new(b.len + 1, NULL);
    memcpy(*text, b.data, b.len);
    buffer_free(&b);
    return lib_leave(&c, T4_OK);
}

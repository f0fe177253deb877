/*
 * move.c - the steps of a move, their order, and where an interrupted one goes on.
 *
 * Nothing is remembered on this machine: the mark in the source's lock says that a move is under
 * way, where to, and whether it is decided; `moving` at the target says whose prefix that is.
 * Everything else is idempotent, so a run that was killed, or one beside another, does what is
 * left to do.
 *
 * Entry points: move_plan(), move_store().  Runs on: the caller's thread.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <inttypes.h>
#include <stdio.h>

#include "base/log.h"
#include "base/memory.h"
#include "fmt/entry.h"
#include "move/move_int.h"

#define MARK_TRIES 5 /* somebody else marks, or takes, the lock at the same moment */

static const struct lock_object *
lock_of(const struct move *m)
{
    return objectlog_lock(m->chain);
}

static const char *
source_url(const struct move *m)
{
    return object_url(m->options.source);
}

/* --- the source -------------------------------------------------------------------------- */

static void
on_degraded(void *arg, const char *why)
{
    (void)arg;
    if (why != NULL)
        LOG_WARN("the object store does not answer as it should; trying again", "reason",
                 why, NULL);
}

void
move_init(struct move *m, const struct move_options *options, struct move_result *result)
{
    *result = (struct move_result){0};
    *m = (struct move){
        .options = *options, .result = result, .location = object_url(options->target)};
    mutex_init(&m->lock);
    condition_init(&m->wake);
}

void
move_destroy(struct move *m)
{
    objectlog_close(m->chain);
    condition_destroy(&m->wake);
    mutex_destroy(&m->lock);
}

t4_status
move_open_source(struct move *m, struct error *error)
{
    struct objectlog_options options = {.env = m->options.env,
                                        .store = m->options.source,
                                        .address = "",
                                        .timeout_ns = m->options.timeout_ns,
                                        .accept_moved = true,
                                        .degraded = on_degraded};
    enum objectlog_found found;
    t4_status status;

    objectlog_close(m->chain);
    m->chain = NULL;
    status = objectlog_open(&options, &m->chain, &found, error);
    if (status != T4_OK || found == OBJECTLOG_COMPLETE)
        return status;
    if (found == OBJECTLOG_EMPTY) {
        error_set(error, T4_E_INVALID, "the store %s is empty: there is nothing to move",
                  source_url(m));
        return error_hint(error, "%s",
                          m->options.built_in
                              ? "start the server with --object-store: what its log "
                                "holds is put there"
                              : "check bucket and prefix");
    }
    error_set(error, T4_E_INVALID, "the store %s was begun and never finished",
              source_url(m));
    return error_hint(error, "start the server that began it, stop it, then move");
}

t4_status
move_check_mark(const struct move *m, struct error *error)
{
    const struct lock_object *lock = lock_of(m);

    if (lock->move == MOVE_NONE || strcmp(lock->moved, m->location) == 0)
        return T4_OK;
    error_set(error, T4_E_INVALID, "the store %s %s to %s", source_url(m),
              lock->move == MOVE_DONE ? "was moved" : "is being moved", lock->moved);
    if (lock->move == MOVE_DONE)
        return error_hint(error, "move it on from there");
    return error_hint(error,
                      "finish that move (--to=%.300s) or take it back (the same with "
                      "--abort)",
                      lock->moved);
}

/* An older copy of the store than the directory knows must not become the new one. */
static t4_status
check_counters(const struct move *m, struct error *error)
{
    if (lock_of(m)->counter >= m->options.lock_counter &&
        objectlog_manifest(m->chain)->counter >= m->options.manifest_counter)
        return T4_OK;
    error_set(error, T4_E_INVALID,
              "the store %s is older than its data directory knows it", source_url(m));
    return error_hint(error, "it was set back to an older copy: restore it");
}

/* Has everything that was acknowledged reached the source, and has its server stopped? */
static t4_status
check_at_rest(const struct move *m, struct error *error)
{
    const struct lock_object *lock = lock_of(m);

    if (m->options.built_in && !m->options.all_in_store) {
        error_set(error, T4_E_INVALID,
                  "the server of the store %s was not stopped in order: its log may hold "
                  "writes that the store does not",
                  source_url(m));
        return error_hint(error, "start the server once and stop it (SIGTERM)");
    }
    if (m->options.built_in)
        return check_counters(m, error);
    if (lock->released)
        return T4_OK;
    error_set(error, T4_E_INVALID,
              "the store %s is led by %.200s (term %" PRIu64
              "), which has not given it back",
              source_url(m),
              lock->address[0] != '\0' ? lock->address : "an unnamed server", lock->term);
    return error_hint(error, "stop that server in order (SIGTERM); if it was killed, "
                             "start it once and stop it");
}

/* --- the target -------------------------------------------------------------------------- */

static t4_status
read_cluster(struct move *m, struct object_store *s, struct buffer *text,
             struct cluster_object *out, struct error *error)
{
    t4_status status =
        move_get(m, s, slice_str(CLUSTER_KEY), OBJECT_TEXT_MAX, text, error);

    if (status == T4_OK && cluster_decode(buffer_slice(text), out) != T4_OK) {
        error_set(error, T4_E_CORRUPT, "the object %s of %s is damaged", CLUSTER_KEY,
                  object_url(s));
        return error_hint(error,
                          "restore it from a version or a copy that the store keeps");
    }
    return status;
}

/* NOTFOUND: the target is no store (yet). */
static t4_status
target_cluster(struct move *m, struct cluster_object *out, struct error *error)
{
    struct buffer text = {0};
    t4_status status = read_cluster(m, m->options.target, &text, out, error);

    buffer_free(&text);
    return status;
}

static bool
is_of_source(const struct move *m, uint64_t cluster_id, uint64_t lineage)
{
    return cluster_id == lock_of(m)->cluster_id && lineage == lock_of(m)->lineage;
}

static t4_status
refuse_moving(const struct move *m, const struct moving_object *moving,
              struct error *error)
{
    if (is_of_source(m, moving->cluster_id, moving->lineage)) {
        error_set(error, T4_E_INVALID,
                  "%s holds what is left of a move of %s that was taken back",
                  m->location, moving->source);
        return error_hint(error, "--abort removes it; then move again");
    }
    error_set(error, T4_E_INVALID, "the move of the store %s to %s is not finished",
              moving->source, m->location);
    return error_hint(error, "move to an empty prefix");
}

/*
 * *ours: `moving` of this very move is there.  INVALID: another one, or a whole store.
 */
static t4_status
look_at_target(struct move *m, bool *ours, struct error *error)
{
    struct cluster_object cluster;
    struct moving_object moving;
    t4_status status = target_cluster(m, &cluster, error);

    *ours = false;
    if (status == T4_OK) {
        error_set(error, T4_E_INVALID, "%s is a store already (cluster %016" PRIx64 ")",
                  m->location, cluster.cluster_id);
        return error_hint(error, "move to an empty prefix");
    }
    if (status == T4_E_NOTFOUND)
        status = move_get_moving(m, &moving, error);
    if (status != T4_OK)
        return status == T4_E_NOTFOUND ? T4_OK : status;
    *ours = lock_of(m)->move == MOVE_BEGUN &&
            memcmp(moving.put_id, lock_of(m)->put_id, PUT_ID_BYTES) == 0 &&
            is_of_source(m, moving.cluster_id, moving.lineage);
    return *ours ? T4_OK : refuse_moving(m, &moving, error);
}

struct count {
    struct move *m;
    bool ours; /* the target's prefix is this move's */
};

static t4_status
count(void *arg, const struct pair *p, struct error *error)
{
    const struct count *c = arg;
    struct move_result *r = c->m->result;

    if (p->at_target && !(c->ours && (p->at_source || move_is_special(p->key)))) {
        error_set(error, T4_E_INVALID, "%s is not empty: it has an object %.*s",
                  c->m->location, (int)p->key.len, (const char *)p->key.data);
        return error_hint(error, "%s",
                          c->ours ? "the source has no such object: take the move back "
                                    "with --abort, then move again"
                                  : "move to an empty prefix");
    }
    if (!p->at_source || move_is_special(p->key))
        return T4_OK;
    if (p->source_bytes > MOVE_OBJECT_MAX) {
        error_set(error, T4_E_INVALID,
                  "the object %.*s of %s has %" PRIu64 " bytes: no object of a store is "
                  "that large",
                  (int)p->key.len, (const char *)p->key.data, source_url(c->m),
                  p->source_bytes);
        return error_hint(error, "it is not t4's: take it away");
    }
    r->objects++;
    r->bytes += p->source_bytes;
    r->there += p->at_target;
    return T4_OK;
}

/* As it was marked, but for the mark: the same bytes in each run. */
static void
encode_target_lock(const struct move *m, struct buffer *text)
{
    struct lock_object lock = *lock_of(m);

    lock.move = MOVE_NONE;
    memset(lock.moved, 0, sizeof lock.moved);
    lock.counter++; /* not below what anybody will see at the source */
    lock_encode(text, &lock);
}

/*
 * A server that begins a store there puts its lock first, and looks for `moving` only then: ours
 * may have come too late for it.
 */
static t4_status
check_target_lock(struct move *m, struct error *error)
{
    struct buffer wanted = {0}, text = {0};
    t4_status status = move_get(m, m->options.target, slice_str(LOCK_KEY),
                                OBJECT_TEXT_MAX, &text, error);

    encode_target_lock(m, &wanted);
    if (status == T4_E_NOTFOUND) {
        status = T4_OK;
    } else if (status == T4_OK &&
               !slice_equal(buffer_slice(&wanted), buffer_slice(&text))) {
        error_set(error, T4_E_INVALID, "%s has a %s that this move has not put there",
                  m->location, LOCK_KEY);
        status = error_hint(error, "move to an empty prefix");
    }
    buffer_free(&wanted);
    buffer_free(&text);
    return status;
}

/* The totals; nothing may lie at the target but what this move has put there. */
static t4_status
count_all(struct move *m, bool ours, struct error *error)
{
    struct count c = {m, ours};
    t4_status status;

    m->result->objects = m->result->bytes = m->result->there = 0;
    status = move_walk(m, count, &c, error);
    return status == T4_OK && ours ? check_target_lock(m, error) : status;
}

/* --- steps 1 and 2: the marks ------------------------------------------------------------ */

struct chain_end {
    uint64_t index;
    int64_t revision;
};

static t4_status
note_entry(void *arg, uint64_t index, struct t4_slice bytes,
           const struct segment *segment, struct error *error)
{
    struct chain_end *end = arg;
    struct byte_reader r = reader_of(bytes);
    struct entry e;

    (void)segment;
    if (!entry_decode_head(&r, &e))
        return error_set(error, T4_E_CORRUPT, "entry %" PRIu64 " of the chain", index);
    *end = (struct chain_end){index, e.revision};
    return T4_OK;
}

/*
 * A server that had nothing to put there before it stopped has not released the lock of its
 * built-in store; the directory's memory said that the store has everything.
 */
static t4_status
release(struct move *m, struct lock_object *next, struct error *error)
{
    const struct manifest_object *manifest = objectlog_manifest(m->chain);
    struct chain_end end = {manifest->floor.last_index,
                            manifest->n_checkpoints > 0 ? manifest->newest.revision : 1};
    struct objectlog_tail tail;
    t4_status status = T4_OK;

    if (next->released)
        return T4_OK;
    status = objectlog_read(m->chain, note_entry, &end, &tail, error);
    next->released = true;
    next->released_index = end.index;
    next->released_revision = end.revision;
    next->lease_ms = 0;
    return status;
}

static t4_status
mark(struct move *m, struct error *error)
{
    struct lock_object next = *lock_of(m);
    t4_status status = release(m, &next, error);

    next.move = MOVE_BEGUN;
    snprintf(next.moved, sizeof next.moved, "%s", m->location);
    return status == T4_OK ? objectlog_write_lock(m->chain, &next, error) : status;
}

static t4_status
unmark(struct move *m, struct error *error)
{
    struct lock_object next = *lock_of(m);

    next.move = MOVE_NONE;
    memset(next.moved, 0, sizeof next.moved);
    return objectlog_write_lock(m->chain, &next, error);
}

static t4_status
put_moving(struct move *m, struct error *error)
{
    struct moving_object moving = {.cluster_id = lock_of(m)->cluster_id,
                                   .lineage = lock_of(m)->lineage};
    struct buffer text = {0}, other = {0};
    t4_status status;

    memcpy(moving.put_id, lock_of(m)->put_id, PUT_ID_BYTES);
    snprintf(moving.source, sizeof moving.source, "%s", source_url(m));
    moving_encode(&text, &moving);
    status =
        move_create(m, slice_str(MOVING_KEY), buffer_slice(&text), false, &other, error);
    buffer_free(&text);
    buffer_free(&other);
    return status;
}

static t4_status
remove_moving(struct move *m, struct error *error)
{
    struct t4_slice key = slice_str(MOVING_KEY);

    return move_remove(m, &key, 1, error);
}

/*
 * Nothing was at the target.  What is there once `moving` is, was put there by this move, or at
 * the same moment by somebody else who may not see `moving`: then this move gives way.
 */
static t4_status
claim(struct move *m, struct error *error)
{
    t4_status status = put_moving(m, error);

    if (status == T4_E_PRECONDITION) {
        error_set(error, status, "another move to %s has begun", m->location);
        return error_hint(error, "move to an empty prefix");
    }
    return status == T4_OK ? count_all(m, true, error) : status;
}

/* After a claim that failed for good: the source is as it was, the target is the other's. */
static void
give_way(struct move *m, t4_status why)
{
    if (why != T4_E_INVALID && why != T4_E_PRECONDITION && why != T4_E_DENIED &&
        why != T4_E_NOSPACE)
        return; /* the store did not answer: the next run goes on from here */
    if (unmark(m, NULL) == T4_OK && why != T4_E_PRECONDITION)
        remove_moving(m, NULL);
}

/* --- steps 3 to 5 ------------------------------------------------------------------------ */

static t4_status
copy_special(struct move *m, const char *key, struct error *error)
{
    struct buffer text = {0}, other = {0};
    t4_status status =
        move_get(m, m->options.source, slice_str(key), OBJECT_TEXT_MAX, &text, error);

    if (status == T4_OK)
        status =
            move_create(m, slice_str(key), buffer_slice(&text), false, &other, error);
    buffer_free(&text);
    buffer_free(&other);
    return status;
}

static t4_status
put_lock(struct move *m, struct error *error)
{
    struct buffer text = {0}, other = {0};
    t4_status status;

    encode_target_lock(m, &text);
    status =
        move_create(m, slice_str(LOCK_KEY), buffer_slice(&text), false, &other, error);
    buffer_free(&text);
    buffer_free(&other);
    return status;
}

static t4_status
compare_pair(void *arg, const struct pair *p, struct error *error)
{
    const struct move *m = arg;
    bool wanted = p->at_source, there = p->at_target;

    if (slice_equal(p->key, slice_str(CLUSTER_KEY)))
        wanted = false;
    if (slice_equal(p->key, slice_str(MOVING_KEY)))
        wanted = true;
    if (wanted == there &&
        (move_is_special(p->key) || p->source_bytes == p->target_bytes))
        return T4_OK;
    error_set(error, T4_E_CORRUPT, "after copying, %s and %s differ in the object %.*s",
              source_url(m), m->location, (int)p->key.len, (const char *)p->key.data);
    return error_hint(error,
                      "somebody writes to one of them: find out who, then give the "
                      "command again");
}

/* --- steps 6 to 8 ------------------------------------------------------------------------ */

static t4_status
decide(struct move *m, struct error *error)
{
    struct lock_object next = *lock_of(m);

    next.move = MOVE_DONE;
    return objectlog_write_lock(m->chain, &next, error);
}

/* The source's lock says that the move is done.  Is it, at the target? */
static t4_status
finish(struct move *m, struct error *error)
{
    struct cluster_object cluster;
    struct moving_object moving;
    t4_status status = target_cluster(m, &cluster, error);

    m->result->was_done = status == T4_OK;
    if (status == T4_OK && !is_of_source(m, cluster.cluster_id, cluster.lineage)) {
        error_set(error, T4_E_INVALID,
                  "%s was moved to %s, but that holds another cluster now (%016" PRIx64
                  ")",
                  source_url(m), m->location, cluster.cluster_id);
        return error_hint(error, "restore what was there");
    }
    if (status == T4_E_NOTFOUND) {
        status = move_get_moving(m, &moving, error);
        if (status == T4_E_NOTFOUND ||
            (status == T4_OK && !is_of_source(m, moving.cluster_id, moving.lineage))) {
            error_set(error, T4_E_CORRUPT, "%s was moved to %s, but is not there",
                      source_url(m), m->location);
            return error_hint(error, "restore what was there");
        }
        if (status == T4_OK)
            status = copy_special(m, CLUSTER_KEY, error);
    }
    return status == T4_OK ? remove_moving(m, error) : status;
}

/* --- the whole --------------------------------------------------------------------------- */

/* The mark may have been taken back, or the move finished by another run. */
static t4_status
check_still_marked(struct move *m, struct error *error)
{
    t4_status status = objectlog_look_at_lock(m->chain, error);

    if (status != T4_OK || memcmp(lock_of(m)->put_id, m->put_id, PUT_ID_BYTES) == 0)
        return status;
    error_set(error, T4_E_INVALID, "the move of %s to %s was taken back while it ran",
              source_url(m), m->location);
    return error_hint(error, "what it has put there meanwhile is in the way of the next "
                             "one: remove it with --abort, or choose another prefix");
}

static t4_status
copy_and_decide(struct move *m, struct error *error)
{
    t4_status status = move_copy(m, error);

    if (status == T4_OK)
        status = check_still_marked(m, error);
    if (status == T4_OK)
        status = copy_special(m, MANIFEST_KEY, error);
    if (status == T4_OK)
        status = put_lock(m, error);
    if (status == T4_OK)
        status = move_walk(m, compare_pair, m, error);
    return status == T4_OK ? decide(m, error) : status;
}

/* Up to step 2.  *again: the lock was changed by somebody else at the moment of the mark. */
static t4_status
prepare(struct move *m, bool *again, struct error *error)
{
    bool was_marked = lock_of(m)->move == MOVE_BEGUN, ours;
    t4_status status = move_check_mark(m, error);

    *again = false;
    if (status == T4_OK && !was_marked)
        status = check_at_rest(m, error);
    if (status == T4_OK)
        status = look_at_target(m, &ours, error);
    if (status == T4_OK)
        status = count_all(m, ours, error);
    if (status != T4_OK || ours)
        return status;
    status = object_probe(m->options.target, slice_str(PROBE_PREFIX), error);
    if (status == T4_OK && !was_marked) {
        status = mark(m, error);
        *again = status == T4_E_PRECONDITION;
    }
    if (status != T4_OK)
        return status;
    status = claim(m, error);
    if (status != T4_OK)
        give_way(m, status);
    return status;
}

/* While it is not decided.  Another run that finished it explains whatever went wrong here. */
static t4_status
advance(struct move *m, struct error *error)
{
    struct error why;
    bool again = true;
    t4_status status = T4_E_PRECONDITION;

    for (int tries = 0; again && tries < MARK_TRIES; tries++) {
        if (lock_of(m)->move == MOVE_DONE)
            return T4_OK;
        status = prepare(m, &again, error);
    }
    if (status != T4_OK)
        return status;
    memcpy(m->put_id, lock_of(m)->put_id, PUT_ID_BYTES);
    status = copy_and_decide(m, error);
    if (status == T4_OK || check_still_marked(m, &why) != T4_E_INVALID)
        return status;
    if (lock_of(m)->move != MOVE_DONE)
        *error = why;
    return lock_of(m)->move == MOVE_DONE ? T4_OK : T4_E_INVALID;
}

static t4_status
run(struct move *m, struct error *error)
{
    t4_status status = move_open_source(m, error);

    if (status == T4_OK)
        status = advance(m, error);
    if (status == T4_OK)
        status = move_check_mark(m, error);
    return status == T4_OK ? finish(m, error) : status;
}

t4_status
move_store(const struct move_options *options, struct move_result *out,
           struct error *error)
{
    struct move m;
    t4_status status;

    move_init(&m, options, out);
    status = run(&m, error);
    move_destroy(&m);
    return status;
}

t4_status
move_plan(const struct move_options *options, struct move_result *out,
          struct error *error)
{
    struct move m;
    bool ours = false;
    t4_status status;

    move_init(&m, options, out);
    status = move_open_source(&m, error);
    if (status == T4_OK)
        status = move_check_mark(&m, error);
    if (status == T4_OK && lock_of(&m)->move == MOVE_DONE) {
        out->was_done = true;
    } else if (status == T4_OK) {
        if (lock_of(&m)->move == MOVE_NONE)
            status = check_at_rest(&m, error);
        if (status == T4_OK)
            status = look_at_target(&m, &ours, error);
        if (status == T4_OK)
            status = count_all(&m, ours, error);
    }
    move_destroy(&m);
    return status;
}

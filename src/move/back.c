/*
 * back.c - a move taken back.
 *
 * First the mark: from that CAS on no run of the move can decide it (decide() in move.c), so what
 * lies at the target never becomes a store, whatever is still put there.  Only then the target:
 * `moving` proves that the prefix was empty when the move began and that no server uses it.
 *
 * Entry point: move_take_back().  Runs on: the caller's thread.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "base/memory.h"
#include "move/move_int.h"

#define MARK_TRIES 5
#define BATCH 100u

static t4_status
take_mark(struct move *m, struct error *error)
{
    t4_status status = T4_OK;

    for (int tries = 0; tries < MARK_TRIES; tries++) {
        struct lock_object next = *objectlog_lock(m->chain);

        if (next.move == MOVE_NONE)
            return T4_OK;
        status = move_check_mark(m, error);
        if (status != T4_OK)
            return status;
        if (next.move == MOVE_DONE) {
            error_set(error, T4_E_INVALID,
                      "the store %s was moved to %s: that cannot be taken back",
                      object_url(m->options.source), m->location);
            return error_hint(error,
                              "start with --object-store=%s; if that says that "
                              "the move is not finished, give the command again "
                              "without --abort",
                              m->location);
        }
        memcpy(m->put_id, next.put_id, PUT_ID_BYTES);
        next.move = MOVE_NONE;
        memset(next.moved, 0, sizeof next.moved);
        status = objectlog_write_lock(m->chain, &next, error);
        m->result->unmarked = status == T4_OK;
        if (status != T4_E_PRECONDITION)
            return status;
    }
    return status;
}

/* --- the target -------------------------------------------------------------------------- */

/*
 * Is what lies there this source's move, and nobody else's?  With a mark that was just taken
 * back, its own; without one, that of an earlier one: none is under way.
 */
static t4_status
is_ours(struct move *m, bool *ours, struct error *error)
{
    const struct lock_object *source = objectlog_lock(m->chain);
    struct moving_object moving;
    struct lock_object lock;
    struct buffer text = {0};
    t4_status status = move_get(m, m->options.target, slice_str(CLUSTER_KEY),
                                OBJECT_TEXT_MAX, &text, error);
    bool is_store = status == T4_OK;

    *ours = false;
    if (status == T4_OK || status == T4_E_NOTFOUND)
        status = move_get_moving(m, &moving, error);
    if (status == T4_OK) {
        *ours = !is_store && moving.cluster_id == source->cluster_id &&
                moving.lineage == source->lineage &&
                (m->result->unmarked
                     ? memcmp(moving.put_id, m->put_id, PUT_ID_BYTES) == 0
                     : strcmp(moving.source, object_url(m->options.source)) == 0);
        status = move_get(m, m->options.target, slice_str(LOCK_KEY), OBJECT_TEXT_MAX,
                          &text, error);
        if (status == T4_OK)
            *ours = *ours && lock_decode(buffer_slice(&text), &lock) == T4_OK &&
                    memcmp(lock.put_id, moving.put_id, PUT_ID_BYTES) == 0;
    }
    buffer_free(&text);
    return status == T4_E_NOTFOUND ? T4_OK : status;
}

/* What a move puts there, as far as this version knows. */
static bool
is_known(struct t4_slice key)
{
    static const char *const folder[] = {"wal/", "log/", "checkpoint/",
                                         "run/", "sst/", "branches/"};

    for (size_t i = 0; i < sizeof folder / sizeof folder[0]; i++)
        if (slice_has_prefix(key, slice_str(folder[i])))
            return true;
    return slice_equal(key, slice_str(LOCK_KEY)) ||
           slice_equal(key, slice_str(MANIFEST_KEY));
}

struct cleaning {
    struct move *m;
    bool ours;
    struct buffer keys;
    size_t length[BATCH];
    size_t n;
};

static t4_status
remove_batch(struct cleaning *c, struct error *error)
{
    struct t4_slice key[BATCH];
    size_t offset = 0;
    t4_status status = T4_OK;

    for (size_t i = 0; i < c->n; i++) {
        key[i] = slice_of(c->keys.data + offset, c->length[i]);
        offset += c->length[i];
    }
    if (c->n > 0)
        status = move_remove(c->m, key, c->n, error);
    if (status == T4_OK)
        c->m->result->removed += c->n;
    c->n = 0;
    buffer_clear(&c->keys);
    return status;
}

static t4_status
clean(void *arg, const struct pair *p, struct error *error)
{
    struct cleaning *c = arg;

    if (!p->at_target || slice_equal(p->key, slice_str(MOVING_KEY)))
        return T4_OK;
    if (!c->ours || !is_known(p->key)) {
        c->m->result->left++;
        return T4_OK;
    }
    buffer_append_slice(&c->keys, p->key);
    c->length[c->n++] = p->key.len;
    return c->n == BATCH ? remove_batch(c, error) : T4_OK;
}

/* `moving` last: until it is gone the rest is known as what it is. */
static t4_status
clean_target(struct move *m, struct error *error)
{
    struct cleaning c = {.m = m};
    struct t4_slice moving = slice_str(MOVING_KEY);
    t4_status status = is_ours(m, &c.ours, error);

    if (status == T4_OK)
        status = move_walk(m, clean, &c, error);
    if (status == T4_OK)
        status = remove_batch(&c, error);
    if (status == T4_OK && c.ours && m->result->left == 0) {
        status = move_remove(m, &moving, 1, error);
        m->result->removed += status == T4_OK;
    }
    buffer_free(&c.keys);
    return status;
}

t4_status
move_take_back(const struct move_options *options, struct move_result *out,
               struct error *error)
{
    struct move m;
    t4_status status;

    move_init(&m, options, out);
    status = move_open_source(&m, error);
    if (status == T4_OK)
        status = take_mark(&m, error);
    if (status == T4_OK)
        status = clean_target(&m, error);
    if (status == T4_OK && !out->unmarked && out->removed == 0) {
        error_set(error, T4_E_INVALID, "no move of %s to %s is under way",
                  object_url(options->source), m.location);
        status = error_hint(error, "there is nothing to take back");
    }
    move_destroy(&m);
    return status;
}

/*
 * checkpoints.c - each kept checkpoint: its object, and what its runs say together.
 *
 * A checkpoint that cannot be read whole and is not listed any more was removed in order; it is
 * noted, not told as damage.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <inttypes.h>

#include "base/memory.h"
#include "verify/verify_int.h"

#define PHASE "checkpoints"

/* --- still needed? -------------------------------------------------------------------------- */

t4_status
still_listed(struct verify *v, uint32_t i, bool *listed, struct error *error)
{
    const struct checkpoint_name *name = &v->manifest.checkpoint[i];
    t4_status status = verify_look_again(v, error);

    *listed = false;
    for (uint32_t k = 0; k < v->now.n_checkpoints; k++)
        *listed |= v->now.checkpoint[k].index == name->index &&
                   v->now.checkpoint[k].term == name->term &&
                   memcmp(v->now.checkpoint[k].sha256, name->sha256, HASH_BYTES) == 0;
    if (status != T4_OK || *listed || v->kept[i].verdict == RETIRED)
        return status;
    v->kept[i].verdict = RETIRED;
    v->result->retired++;
    verify_note(v, "%s came off the list while it was looked at", v->kept[i].key);
    return T4_OK;
}

/* --- the object ------------------------------------------------------------------------------- */

/* What the manifest inlines, against the object. */
static bool
is_inlined(const struct manifest_object *m, const struct checkpoint_object *c)
{
    struct buffer a = {0}, b = {0};
    struct checkpoint_object newest = m->newest;
    bool same;

    newest.generation = c->generation; /* the manifest has one of its own */
    checkpoint_encode(&a, &newest);
    checkpoint_encode(&b, c);
    same = slice_equal(buffer_slice(&a), buffer_slice(&b));
    buffer_free(&a);
    buffer_free(&b);
    return same;
}

/* False: something was wrong, and was told. */
static bool
check_object(struct verify *v, uint32_t i, const struct checkpoint_object *c)
{
    const struct checkpoint_name *name = &v->manifest.checkpoint[i];
    const char *key = v->kept[i].key;

    if (c->cluster_id != v->manifest.cluster_id || c->lineage != v->manifest.lineage)
        verify_bad(v, key, "belongs to another cluster or lineage");
    else if (c->term != name->term || c->index != name->index ||
             c->revision != name->revision || c->time_ms != name->time_ms)
        verify_bad(v, key,
                   "is not the checkpoint that its key and the manifest speak of");
    else if (c->place.last_index != c->index)
        verify_bad(v, key,
                   "is of entry %" PRIu64
                   ", but goes on in the chain behind entry %" PRIu64,
                   c->index, c->place.last_index);
    else if (c->compacted > c->revision || c->place.term > c->term)
        verify_bad(v, key, "says a compacted revision or a term above its own");
    else if (i == 0 && !is_inlined(&v->manifest, c))
        verify_bad(v, MANIFEST_KEY,
                   "inlines a newest checkpoint that is not what %s says", key);
    else
        return true;
    return false;
}

static t4_status
read_object(struct verify *v, uint32_t i, struct error *error)
{
    const struct checkpoint_name *name = &v->manifest.checkpoint[i];
    struct kept *k = &v->kept[i];
    struct buffer object = {0};
    bool listed = true;
    t4_status status = fetch_object(v, k->key, OBJECT_TEXT_MAX, &object, error);

    if (status == T4_E_NOTFOUND) {
        status = still_listed(v, i, &listed, error);
        if (status == T4_OK && listed)
            verify_bad(v, k->key, "is missing, although the manifest lists it");
    } else if (status == T4_E_CORRUPT ||
               (status == T4_OK && !sha256_is(buffer_slice(&object), name->sha256))) {
        verify_bad(v, k->key, "does not have the hash that the manifest has of it");
        status = T4_OK;
    } else if (status == T4_OK) {
        t4_status decoded = checkpoint_decode(buffer_slice(&object), &k->object);

        if (decoded != T4_OK)
            verify_bad(v, k->key,
                       decoded == T4_E_UNSUPPORTED
                           ? "was written by a newer version of t4"
                           : "has the right hash but cannot be decoded");
        else if (check_object(v, i, &k->object))
            k->verdict = FINE;
    }
    buffer_free(&object);
    return status;
}

/* --- its runs together ------------------------------------------------------------------------ */

/* One run of a checkpoint against the one below it (NULL: it is the lowest). */
static const char *
run_misfit(const struct checkpoint_object *c, const struct checkpoint_run *name,
           const struct known_run *run, const struct known_run *below)
{
    if (name->is_base != run->is_base || name->bytes != run->bytes)
        return "is not what the checkpoint says of it (base, bytes)";
    if (run->is_base && (below != NULL || run->first_index != 0))
        return "is a base, but something lies below it";
    if (below != NULL && run->first_index < below->last_index)
        return "overlaps the run below it: both hold the same entries of the log";
    if (run->last_index > c->index || run->last_revision > c->revision)
        return "reaches above the checkpoint";
    if (run->compacted > (c->compacted > 0 ? c->compacted : 0))
        return "was reduced by a higher compacted revision than the checkpoint's";
    if (below != NULL && run->min_stamp != 0 &&
        run->min_stamp <= (uint64_t)below->last_revision)
        return "holds revisions that belong to the run below it";
    if (name->term > c->term || name->index > c->index)
        return "is named by a checkpoint that is older than the run";
    return NULL;
}

/* Runs, newest first, as indexes of v->run. */
static void
check_together(struct verify *v, struct kept *k, const size_t *run)
{
    const struct checkpoint_object *c = &k->object;
    const struct known_run *below = NULL;

    for (uint32_t i = c->n_runs; i-- > 0;) {
        const struct known_run *r = &v->run[run[i]];
        const char *what = run_misfit(c, &c->run[i], r, below);
        char key[SST_KEY_BYTES];

        if (what != NULL) {
            run_key(key, r->name.sha256, r->name.term, r->name.index);
            verify_bad(v, key, "%s (in %s)", what, k->key);
            k->verdict = BAD;
        }
        below = r;
    }
}

static t4_status
check_runs(struct verify *v, uint32_t i, struct error *error)
{
    struct kept *k = &v->kept[i];
    size_t run[CHECKPOINT_RUNS_MAX];

    for (uint32_t r = 0; r < k->object.n_runs; r++) {
        t4_status status = check_run(v, i, &k->object.run[r], &run[r], error);

        if (status != T4_OK)
            return status;
        if (k->verdict == RETIRED)
            return T4_OK;
        if (v->run[run[r]].verdict != FINE)
            k->verdict = BAD;
    }
    if (k->verdict == FINE)
        check_together(v, k, run);
    return T4_OK;
}

t4_status
check_checkpoints(struct verify *v, struct error *error)
{
    uint32_t n = v->manifest.n_checkpoints;

    v->kept = mem_zalloc((n + 1) * sizeof *v->kept);
    for (uint32_t i = 0; i < n; i++) {
        const struct checkpoint_name *name = &v->manifest.checkpoint[i];
        struct kept *k = &v->kept[i];
        t4_status status;

        k->verdict = BAD;
        checkpoint_key(k->key, name->term, name->revision, name->index);
        verify_progress(v, PHASE, i, n);
        status = read_object(v, i, error);
        if (status == T4_OK && k->verdict == FINE)
            status = check_runs(v, i, error);
        if (status != T4_OK)
            return status;
        v->result->checkpoints += k->verdict == FINE;
    }
    return T4_OK;
}

/*
 * verify.c - the order of things; cluster, lock and manifest; what nothing reaches.
 *
 * The manifest is read before the lock and both before the listing, so that whatever they speak of was
 * in the store when it was listed: a term is taken in the lock first, an object is stored before a
 * manifest names it, and slots are filled in order.
 *
 * Entry point: verify_store().
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

#include "base/memory.h"
#include "verify/verify_int.h"

#define CLUSTER_KEY "cluster"
#define LOCK_KEY "leader-lock"

/* --- telling ------------------------------------------------------------------------------ */

void
verify_bad(struct verify *v, const char *object, const char *format, ...)
{
    char what[WHAT_BYTES];
    va_list args;

    va_start(args, format);
    vsnprintf(what, sizeof what, format, args);
    va_end(args);
    v->result->bad++;
    v->options->bad(v->options->arg, object, what);
}

void
verify_note(struct verify *v, const char *format, ...)
{
    char what[WHAT_BYTES + KEY_BYTES];
    va_list args;

    va_start(args, format);
    vsnprintf(what, sizeof what, format, args);
    va_end(args);
    v->options->note(v->options->arg, what);
}

void
verify_progress(struct verify *v, const char *phase, uint64_t done, uint64_t total)
{
    if (v->options->progress != NULL)
        v->options->progress(v->options->arg, phase, done, total);
}

/* --- cluster, lock, manifest -------------------------------------------------------------- */

static const char *
state_of(t4_status status)
{
    return status == T4_E_UNSUPPORTED
               ? "was written by a newer version of t4: use that one"
               : "is damaged";
}

/* A small object.  NOTFOUND, CORRUPT: that it is so was told. */
static t4_status
read_small(struct verify *v, const char *key, struct buffer *out, struct error *error)
{
    t4_status status = fetch_object(v, key, OBJECT_TEXT_MAX, out, error);

    if (status == T4_E_NOTFOUND)
        verify_bad(v, key, "is missing: it is never made anew");
    else if (status == T4_E_CORRUPT)
        verify_bad(v, key, "is longer than it may be");
    return status;
}

static t4_status
judge_small(struct verify *v, const char *key, t4_status decoded)
{
    if (decoded != T4_OK)
        verify_bad(v, key, "%s", state_of(decoded));
    return decoded == T4_OK ? T4_OK : T4_E_CORRUPT;
}

t4_status
verify_look_again(struct verify *v, struct error *error)
{
    struct manifest_object *m = mem_alloc(sizeof *m);
    struct buffer object = {0};
    t4_status status = fetch_object(v, MANIFEST_KEY, OBJECT_TEXT_MAX, &object, error);

    if (status == T4_OK && manifest_decode(buffer_slice(&object), m) == T4_OK)
        v->now = *m;
    buffer_free(&object);
    mem_free(m);
    return status == T4_E_NOTFOUND || status == T4_E_CORRUPT ? T4_OK : status;
}

static void
check_manifest(struct verify *v)
{
    const struct manifest_object *m = &v->manifest;

    if (m->archive.next_slot > m->floor.next_slot)
        verify_bad(v, MANIFEST_KEY,
                   "says that archives begin at slot %" PRIu64
                   ", above the floor, slot %" PRIu64,
                   m->archive.next_slot, m->floor.next_slot);
    for (uint32_t i = 1; i < m->n_checkpoints; i++)
        if (m->checkpoint[i].index >= m->checkpoint[i - 1].index ||
            m->checkpoint[i].revision > m->checkpoint[i - 1].revision ||
            m->checkpoint[i].term > m->checkpoint[i - 1].term)
            verify_bad(v, MANIFEST_KEY,
                       "lists checkpoint %" PRIu32 " (entry %" PRIu64
                       ") out of order: the newest comes first",
                       i, m->checkpoint[i].index);
}

static void
check_ids(struct verify *v, const char *key, uint64_t cluster_id, uint64_t lineage)
{
    if (cluster_id != v->result->cluster_id || lineage != v->result->lineage)
        verify_bad(v, key,
                   "belongs to cluster %016" PRIx64 ", lineage %016" PRIx64
                   ", not to %016" PRIx64 ", %016" PRIx64 " as the manifest",
                   cluster_id, lineage, v->result->cluster_id, v->result->lineage);
}

/* Without a manifest: is there anything at all? */
static t4_status
manifest_missing(struct verify *v, struct error *error)
{
    t4_status status = fetch_listing(v, error);

    if (status != T4_OK)
        return status;
    v->is_empty = v->listing.all == 0;
    if (!v->is_empty)
        verify_bad(v, MANIFEST_KEY, "is missing: it is never made anew");
    return T4_E_NOTFOUND;
}

static t4_status
read_manifest(struct verify *v, struct buffer *object, struct error *error)
{
    t4_status status = fetch_object(v, MANIFEST_KEY, OBJECT_TEXT_MAX, object, error);

    if (status == T4_E_NOTFOUND)
        return manifest_missing(v, error);
    if (status == T4_E_CORRUPT)
        return judge_small(v, MANIFEST_KEY, status);
    if (status == T4_OK)
        status = judge_small(v, MANIFEST_KEY,
                             manifest_decode(buffer_slice(object), &v->manifest));
    if (status != T4_OK)
        return status;
    v->now = v->manifest;
    v->result->cluster_id = v->manifest.cluster_id;
    v->result->lineage = v->manifest.lineage;
    v->result->term = v->manifest.term;
    check_manifest(v);
    return T4_OK;
}

static t4_status
read_lock(struct verify *v, struct buffer *object, struct error *error)
{
    t4_status status = read_small(v, LOCK_KEY, object, error);

    if (status == T4_OK)
        status = judge_small(v, LOCK_KEY, lock_decode(buffer_slice(object), &v->leader));
    if (status != T4_OK)
        return status;
    check_ids(v, LOCK_KEY, v->leader.cluster_id, v->leader.lineage);
    if (v->leader.term < v->manifest.term)
        verify_bad(v, LOCK_KEY,
                   "is of term %" PRIu64 ", the manifest already of term %" PRIu64
                   ": it was set back",
                   v->leader.term, v->manifest.term);
    if (v->leader.moved[0] == '\0')
        return T4_OK;
    error_set(error, T4_E_INVALID, "this store was moved to %s", v->leader.moved);
    return error_hint(error, "verify --object-store=%s", v->leader.moved);
}

static t4_status
read_cluster(struct verify *v, struct buffer *object, struct error *error)
{
    t4_status status = read_small(v, CLUSTER_KEY, object, error);

    if (status == T4_OK)
        status = judge_small(v, CLUSTER_KEY,
                             cluster_decode(buffer_slice(object), &v->cluster));
    if (status != T4_OK)
        return status;
    check_ids(v, CLUSTER_KEY, v->cluster.cluster_id, v->cluster.lineage);
    return T4_OK;
}

static bool
is_told(t4_status status)
{
    return status == T4_E_NOTFOUND || status == T4_E_CORRUPT;
}

/* *go_on: there is a manifest, without which nothing else can be judged. */
static t4_status
check_heads(struct verify *v, bool *go_on, struct error *error)
{
    struct buffer object = {0};
    t4_status status = read_manifest(v, &object, error);

    *go_on = status == T4_OK;
    if (status == T4_OK || is_told(status))
        status = *go_on ? read_lock(v, &object, error) : T4_OK;
    if (status == T4_OK || is_told(status))
        status = *go_on ? read_cluster(v, &object, error) : T4_OK;
    buffer_free(&object);
    return is_told(status) ? T4_OK : status;
}

/* --- what nothing reaches ------------------------------------------------------------------- */

static bool
is_reached(const struct verify *v, const struct listed *o)
{
    if (o->kind == KIND_FILE)
        return name_set_find(&v->files, o->sha256, o->term, o->index) != NULL;
    if (o->kind == KIND_RUN)
        return name_set_find(&v->runs, o->sha256, o->term, o->index) != NULL;
    for (uint32_t i = 0; i < v->manifest.n_checkpoints; i++) {
        const struct checkpoint_name *c = &v->manifest.checkpoint[i];

        if (c->term == o->term && c->index == o->index && c->revision == o->revision)
            return true;
    }
    return false;
}

/* Not of a checkpoint that is being made: whatever that one names is newer than the newest. */
static bool
is_old(const struct manifest_object *m, const struct listed *o)
{
    return o->term < m->term || (m->n_checkpoints > 0 && o->term == m->newest.term &&
                                 o->index <= m->newest.index);
}

/* The listed objects that nothing reaches: the first `n` of listing.object. */
static void
count_orphans(struct verify *v, size_t *n)
{
    struct listing *l = &v->listing;

    *n = 0;
    for (size_t i = 0; i < l->n; i++) {
        if (is_reached(v, &l->object[i]))
            continue;
        if (is_old(&v->manifest, &l->object[i])) {
            v->result->orphans++;
            v->result->orphan_bytes += l->object[i].bytes;
        } else {
            v->result->unfinished++;
            v->result->unfinished_bytes += l->object[i].bytes;
        }
        l->object[(*n)++] = l->object[i];
    }
    for (size_t i = 0; i < l->n_archives; i++)
        if (l->archive[i].last < v->manifest.archive.next_slot) {
            v->result->orphans++;
            v->result->orphan_bytes += l->archive[i].bytes;
        }
}

static void
name_orphan(void *arg, struct fetched *f)
{
    const struct verify *v = arg;
    const struct listed *o = &v->listing.object[f->i];

    f->limit = o->kind == KIND_RUN ? RUN_OBJECT_MAX : FILE_OBJECT_MAX;
    if (o->kind == KIND_CHECKPOINT)
        checkpoint_key(f->key, o->term, o->revision, o->index);
    else if (o->kind == KIND_RUN)
        run_key(f->key, o->sha256, o->term, o->index);
    else
        sst_key(f->key, o->sha256, o->term, o->index);
}

static void
look_at_orphan(void *arg, struct fetched *f)
{
    const struct verify *v = arg;
    const struct listed *o = &v->listing.object[f->i];
    struct checkpoint_object *c;

    if (o->kind != KIND_CHECKPOINT) {
        if (!sha256_is(buffer_slice(&f->object), o->sha256))
            f->status = error_set(&f->error, T4_E_CORRUPT,
                                  "its bytes do not have the hash in its name");
        return;
    }
    c = mem_alloc(sizeof *c);
    f->status = checkpoint_decode(buffer_slice(&f->object), c);
    if (f->status != T4_OK)
        error_set(&f->error, f->status, "it %s", state_of(f->status));
    else if (c->term != o->term || c->index != o->index || c->revision != o->revision)
        f->status = error_set(&f->error, T4_E_CORRUPT, "it is not what its name says");
    mem_free(c);
}

static t4_status
take_orphan(void *arg, struct fetched *f, struct error *error)
{
    struct verify *v = arg;

    (void)error;
    if (f->status == T4_OK || f->status == T4_E_NOTFOUND) /* removed meanwhile */
        return T4_OK;
    verify_bad(v, f->key, "%s (no kept checkpoint needs it)", f->error.message);
    return T4_OK;
}

static t4_status
check_orphans(struct verify *v, struct error *error)
{
    struct fetch_plan plan = {.phase = "objects that nothing reaches",
                              .arg = v,
                              .name = name_orphan,
                              .look = look_at_orphan,
                              .take = take_orphan};
    const struct verify_result *r = v->result;

    count_orphans(v, &plan.n);
    if (r->orphans > 0)
        verify_note(v,
                    "%" PRIu64 " objects (%" PRIu64
                    " bytes) are reached by nothing: garbage collection removes them",
                    r->orphans, r->orphan_bytes);
    if (r->unfinished > 0)
        verify_note(v,
                    "%" PRIu64 " objects (%" PRIu64
                    " bytes) are newer than the newest checkpoint: of one in the making",
                    r->unfinished, r->unfinished_bytes);
    return fetch_all(v, &plan, error);
}

/* --- the whole ----------------------------------------------------------------------------------- */

static t4_status
nothing_there(struct verify *v, struct error *error)
{
    error_set(error, T4_E_NOTFOUND, "the store %s is empty: no server has used it yet",
              object_url(v->options->store));
    return error_hint(error, "check bucket and prefix");
}

static t4_status
find_revision(struct verify *v, struct error *error)
{
    const struct manifest_object *m = &v->manifest;

    for (uint32_t i = 0; i < m->n_checkpoints; i++)
        if (m->checkpoint[i].revision == v->options->revision)
            return T4_OK;
    error_set(error, T4_E_NOTFOUND,
              "the store %s keeps no checkpoint of revision %" PRId64,
              object_url(v->options->store), v->options->revision);
    if (m->n_checkpoints == 0)
        return error_hint(error, "it has no checkpoint at all");
    return error_hint(error, "it keeps %" PRIu32 ", of revisions %" PRId64 " to %" PRId64,
                      m->n_checkpoints, m->checkpoint[m->n_checkpoints - 1].revision,
                      m->checkpoint[0].revision);
}

static t4_status
check_everything(struct verify *v, struct error *error)
{
    t4_status status = check_checkpoints(v, error);

    if (status == T4_OK)
        status = check_log(v, error);
    if (status == T4_OK)
        status = check_orphans(v, error);
    if (status == T4_OK && v->options->deep)
        status = check_deep(v, error);
    return status;
}

static t4_status
run(struct verify *v, struct error *error)
{
    bool go_on;
    t4_status status;

    status = check_heads(v, &go_on, error);
    if (v->is_empty)
        return nothing_there(v, error);
    if (status != T4_OK || !go_on)
        return status;
    status = fetch_listing(v, error);
    if (status != T4_OK)
        return status;
    if (v->options->one_checkpoint)
        status = find_revision(v, error);
    return status == T4_OK ? check_everything(v, error) : status;
}

t4_status
verify_store(const struct verify_options *options, struct verify_result *result,
             struct error *error)
{
    struct verify *v = mem_zalloc(sizeof *v);
    t4_status status;

    *result = (struct verify_result){0};
    v->options = options;
    v->result = result;
    v->log_is_good = true;
    mutex_init(&v->lock);
    condition_init(&v->wake);
    status = options->parallel >= 1 && options->parallel <= VERIFY_PARALLEL_MAX
                 ? run(v, error)
                 : error_set(error, T4_E_INVALID, "1 to %d requests at once are possible",
                             VERIFY_PARALLEL_MAX);
    listing_free(&v->listing);
    mem_free(v->kept);
    mem_free(v->run);
    mem_free(v->mark);
    name_set_free(&v->runs);
    name_set_free(&v->files);
    condition_destroy(&v->wake);
    mutex_destroy(&v->lock);
    mem_free(v);
    return status;
}

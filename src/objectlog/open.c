/*
 * open.c - what stands in the store; bootstrap of an empty prefix.
 *
 * Order of a bootstrap: leader-lock -> manifest/latest -> cluster.  `cluster` is the mark that
 * the prefix is complete: nothing is acknowledged before it exists, and without it the
 * lock's holder resumes.  So every combination that a crash can leave is one of: nothing;
 * lock; lock and manifest; all three.  Anything else was not made by this protocol.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "base/memory.h"
#include "objectlog/objectlog_int.h"

t4_status
objectlog_damaged(const char *key, t4_status status, struct error *error)
{
    if (status == T4_E_UNSUPPORTED) {
        error_set(error, status, "the object %s was written by a newer version of t4",
                  key);
        return error_hint(error, "start that version, or a newer one");
    }
    error_set(error, T4_E_CORRUPT, "the object %s is damaged", key);
    return error_hint(error,
                      "do not delete it: restore it from a version or a copy that the "
                      "store keeps");
}

t4_status
objectlog_read_lock(struct objectlog *c, struct error *error)
{
    t4_status status = objectlog_get(c, LOCK_KEY, OBJECT_TEXT_MAX, &c->object,
                                     &c->leader_tag, TRY, error);

    c->has_leader = status == T4_OK;
    if (status != T4_OK)
        return status;
    status = lock_decode(buffer_slice(&c->object), &c->leader);
    return status == T4_OK ? T4_OK : objectlog_damaged(LOCK_KEY, status, error);
}

t4_status
objectlog_read_manifest(struct objectlog *c, struct error *error)
{
    t4_status status = objectlog_get(c, MANIFEST_KEY, OBJECT_TEXT_MAX, &c->object,
                                     &c->manifest_tag, TRY, error);

    c->has_manifest = status == T4_OK;
    if (status != T4_OK)
        return status;
    status = manifest_decode(buffer_slice(&c->object), &c->manifest);
    return status == T4_OK ? T4_OK : objectlog_damaged(MANIFEST_KEY, status, error);
}

static t4_status
read_cluster(struct objectlog *c, struct error *error)
{
    t4_status status =
        objectlog_get(c, CLUSTER_KEY, OBJECT_TEXT_MAX, &c->object, NULL, TRY, error);

    c->has_cluster = status == T4_OK;
    if (status != T4_OK)
        return status;
    status = cluster_decode(buffer_slice(&c->object), &c->cluster);
    return status == T4_OK ? T4_OK : objectlog_damaged(CLUSTER_KEY, status, error);
}

static t4_status
count_objects(void *arg, struct t4_slice key, const struct t4_object_info *info)
{
    uint32_t *n = arg;

    (void)info;
    *n += !slice_has_prefix(key, slice_str(PROBE_PREFIX));
    return T4_OK;
}

/*
 * Objects, but no lock: whose they are cannot be known.  (A probe may be under way, or have been cut
 * short, which leaves its scratch object.)  The lock is looked for again behind
 * the listing: a bootstrap that began meanwhile makes it first.
 */
static t4_status
check_is_empty(struct objectlog *c, struct error *error)
{
    uint32_t n = 0;
    t4_status status = object_list(c->options.store, slice_of(NULL, 0), slice_of(NULL, 0),
                                   1000, c->options.timeout_ns, count_objects, &n, error);

    if (status != T4_OK || n == 0)
        return status;
    status = objectlog_read_lock(c, error);
    if (status != T4_E_NOTFOUND)
        return status;
    error_set(error, T4_E_CORRUPT, "the store %s holds objects but no %s",
              object_url(c->options.store), LOCK_KEY);
    return error_hint(error,
                      "give an empty prefix, or restore the object that is missing");
}

t4_status
objectlog_refuse_marked(struct objectlog *c, struct error *error)
{
    const char *url = object_url(c->options.store);

    if (c->leader.move == MOVE_NONE)
        return T4_OK;
    if (c->leader.move == MOVE_DONE) {
        error_set(error, T4_E_INVALID, "the store %s was moved to %s", url,
                  c->leader.moved);
        return error_hint(error, "start with --object-store=%s", c->leader.moved);
    }
    error_set(error, T4_E_INVALID, "the store %s is being moved to %s", url,
              c->leader.moved);
    return error_hint(error, "give the command t4 store move again to finish it, or with "
                             "--abort to take it back");
}

/*
 * Without `cluster`: is this prefix the target of a move?  A move looks for a lock after it has
 * put `moving`, a bootstrap looks for `moving` after it has put its lock: one sees the other.
 */
static t4_status
refuse_target(struct objectlog *c, struct error *error)
{
    struct moving_object m;
    t4_status status =
        objectlog_get(c, MOVING_KEY, OBJECT_TEXT_MAX, &c->object, NULL, TRY, error);

    if (status != T4_OK)
        return status == T4_E_NOTFOUND ? T4_OK : status;
    status = moving_decode(buffer_slice(&c->object), &m);
    if (status != T4_OK)
        return objectlog_damaged(MOVING_KEY, status, error);
    error_set(error, T4_E_INVALID, "the move of the store %s to %s is not finished",
              m.source, object_url(c->options.store));
    return error_hint(error, "give the command t4 store move again to finish it, or with "
                             "--abort to take it back");
}

/* The same of a restore. */
static t4_status
refuse_restored(struct objectlog *c, struct error *error)
{
    struct restoring_object r;
    t4_status status =
        objectlog_get(c, RESTORING_KEY, OBJECT_TEXT_MAX, &c->object, NULL, TRY, error);

    if (status != T4_OK)
        return status == T4_E_NOTFOUND ? T4_OK : status;
    status = restoring_decode(buffer_slice(&c->object), &r);
    if (status != T4_OK)
        return objectlog_damaged(RESTORING_KEY, status, error);
    error_set(error, T4_E_INVALID,
              "the restore of the snapshot %s into %s is not finished", r.source,
              object_url(c->options.store));
    return error_hint(error,
                      "start again with --from-snapshot and the same file; nothing "
                      "was served from there yet, so all objects of the prefix may "
                      "be deleted instead");
}

/* Is something else on its way into this prefix?  See there; asked behind the lock's creation. */
static t4_status
refuse_claimed(struct objectlog *c, struct error *error)
{
    t4_status status = refuse_target(c, error);

    return status == T4_OK && !c->options.restoring ? refuse_restored(c, error) : status;
}

static t4_status
check_complete(struct objectlog *c, struct error *error)
{
    const char *missing = !c->has_leader     ? LOCK_KEY
                          : !c->has_manifest ? MANIFEST_KEY
                                             : NULL;

    if (missing != NULL) {
        error_set(error, T4_E_CORRUPT, "the store %s has %s but no %s",
                  object_url(c->options.store), CLUSTER_KEY, missing);
        return error_hint(error,
                          "restore the object that is missing; it is never made anew");
    }
    if (c->leader.cluster_id != c->cluster.cluster_id ||
        c->manifest.cluster_id != c->cluster.cluster_id ||
        c->leader.lineage != c->cluster.lineage ||
        c->manifest.lineage != c->cluster.lineage)
        return error_set(error, T4_E_CORRUPT,
                         "%s, %s and %s in %s do not belong to one cluster and lineage",
                         CLUSTER_KEY, LOCK_KEY, MANIFEST_KEY,
                         object_url(c->options.store));
    return c->options.accept_moved ? T4_OK : objectlog_refuse_marked(c, error);
}

static t4_status
look(struct objectlog *c, enum objectlog_found *found, struct error *error)
{
    t4_status status = read_cluster(c, error);

    if (status == T4_OK || status == T4_E_NOTFOUND)
        status = objectlog_read_lock(c, error);
    if (status == T4_OK || status == T4_E_NOTFOUND)
        status = objectlog_read_manifest(c, error);
    if (status != T4_OK && status != T4_E_NOTFOUND)
        return status;
    if (c->has_cluster) {
        *found = OBJECTLOG_COMPLETE;
        return check_complete(c, error);
    }
    status = refuse_claimed(c, error);
    if (status == T4_OK && !c->has_leader && !c->options.restoring)
        status = check_is_empty(c, error);
    *found = c->has_leader ? OBJECTLOG_UNFINISHED : OBJECTLOG_EMPTY;
    return status;
}

t4_status
objectlog_open(const struct objectlog_options *options, struct objectlog **out,
               enum objectlog_found *found, struct error *error)
{
    struct objectlog *c = mem_zalloc(sizeof *c);
    t4_status status;

    *out = NULL;
    c->options = *options;
    mutex_init(&c->lock);
    mutex_init(&c->note_lock);
    condition_init(&c->wake);
    condition_init(&c->work);
    condition_init(&c->decision);
    status = look(c, found, error);
    if (status != T4_OK) {
        objectlog_close(c);
        return status;
    }
    *out = c;
    return T4_OK;
}

void
objectlog_close(struct objectlog *c)
{
    if (c == NULL)
        return;
    objectlog_end_flights(c);
    buffer_free(&c->scratch);
    buffer_free(&c->object);
    buffer_free(&c->raw);
    condition_destroy(&c->decision);
    condition_destroy(&c->work);
    condition_destroy(&c->wake);
    mutex_destroy(&c->note_lock);
    mutex_destroy(&c->lock);
    mem_free(c);
}

const struct lock_object *
objectlog_lock(const struct objectlog *c)
{
    return &c->leader;
}

const struct manifest_object *
objectlog_manifest(const struct objectlog *c)
{
    return &c->manifest;
}

/* --- bootstrap ------------------------------------------------------------------------------ */

static bool
is_same(struct t4_slice object, void *arg)
{
    return slice_equal(object, buffer_slice(arg));
}

static t4_status
create_lock(struct objectlog *c, const struct lock_object *first, struct error *error)
{
    struct lock_object l = *first;
    t4_status status;

    l.counter = 1;
    objectlog_new_put_id(c, l.put_id);
    strncpy(l.address, c->options.address, sizeof l.address - 1);
    lock_encode(&c->scratch, &l);
    status =
        objectlog_put(c, LOCK_KEY, buffer_slice(&c->scratch), NULL, objectlog_is_my_lock,
                      l.put_id, TRY, &c->object, &c->leader_tag, error);
    if (status != T4_OK)
        return status;
    c->leader = l;
    c->has_leader = true;
    return T4_OK;
}

static t4_status
create_manifest(struct objectlog *c, const struct manifest_object *first,
                struct error *error)
{
    struct manifest_object m = *first;
    t4_status status;

    m.counter = 1;
    objectlog_new_put_id(c, m.put_id);
    manifest_encode(&c->scratch, &m);
    status = objectlog_put(c, MANIFEST_KEY, buffer_slice(&c->scratch), NULL,
                           objectlog_is_my_manifest, m.put_id, TRY, &c->object,
                           &c->manifest_tag, error);
    if (status != T4_OK)
        return status;
    c->manifest = m;
    c->has_manifest = true;
    return T4_OK;
}

static t4_status
create_cluster(struct objectlog *c, struct error *error)
{
    struct cluster_object o = {c->leader.cluster_id, c->leader.lineage, WINDOW_MAX};
    t4_status status;

    cluster_encode(&c->scratch, &o);
    status = objectlog_put(c, CLUSTER_KEY, buffer_slice(&c->scratch), NULL, is_same,
                           &c->scratch, TRY, &c->object, NULL, error);
    if (status != T4_OK)
        return status;
    c->cluster = o;
    c->has_cluster = true;
    return T4_OK;
}

static t4_status
faster(struct error *error)
{
    error_set(error, T4_E_PRECONDITION, "another server is setting up this store");
    return error_hint(error, "start again: what it has made will be found");
}

t4_status
objectlog_bootstrap(struct objectlog *c, uint64_t cluster_id, uint64_t lineage,
                    enum commit_rule rule, struct error *error)
{
    struct lock_object lock = {.cluster_id = cluster_id,
                               .lineage = lineage,
                               .term = 1,
                               .holder = c->options.incarnation,
                               .rule = rule,
                               .lease_ms = c->options.lease_ms};
    struct manifest_object manifest = {
        .cluster_id = c->has_leader ? c->leader.cluster_id : cluster_id,
        .lineage = c->has_leader ? c->leader.lineage : lineage,
        .generation = 1,
        .term = c->has_leader ? c->leader.term : 1};

    return objectlog_bootstrap_as(c, &lock, &manifest, error);
}

t4_status
objectlog_bootstrap_as(struct objectlog *c, const struct lock_object *lock,
                       const struct manifest_object *manifest, struct error *error)
{
    t4_status status = T4_OK;

    if (!c->has_leader) {
        status = create_lock(c, lock, error);
        if (status == T4_OK)
            status = refuse_claimed(c, error);
    } else if (c->leader.holder != lock->holder) {
        status = T4_E_PRECONDITION;
    }
    if (status == T4_OK && !c->has_manifest)
        status = create_manifest(c, manifest, error);
    if (status == T4_OK)
        status = create_cluster(c, error);
    return status == T4_E_PRECONDITION ? faster(error) : status;
}

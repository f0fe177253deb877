/*
 * read.c - keys at a revision, the history of a key, what changed between two revisions.
 *
 * All of it is one walk in the order of the keys over the one reader that open.c began.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "fmt/entry.h"
#include "inspect/inspect_int.h"

enum change_kind
change_kind(const struct inspected_change *c)
{
    if (!c->was)
        return c->is ? CHANGE_CREATED : CHANGE_CREATED_AND_DELETED;
    if (!c->is)
        return CHANGE_DELETED;
    return c->was_created == c->is_created ? CHANGE_UPDATED : CHANGE_RECREATED;
}

const char *
change_kind_name(enum change_kind k)
{
    static const char *const name[] = {"created", "deleted", "updated", "recreated",
                                       "created+deleted"};

    return name[k];
}

t4_status
inspect_check_revision(const char *flag, int64_t current, int64_t compacted,
                       int64_t *revision, struct error *error)
{
    if (*revision <= 0)
        *revision = current;
    if (*revision < compacted) {
        error_set(error, T4_E_INVALID,
                  "revision %lld (%s) is compacted: what it was is not known any more",
                  (long long)*revision, flag);
        return error_hint(error, "the oldest revision there is: %lld",
                          (long long)compacted);
    }
    if (*revision > current) {
        error_set(error, T4_E_INVALID, "revision %lld (%s) is in the future",
                  (long long)*revision, flag);
        return error_hint(error, "the current revision is %lld", (long long)current);
    }
    return T4_OK;
}

/* --- the range -------------------------------------------------------------------------------- */

struct range {
    struct buffer lo, hi;
};

static t4_status
begin(struct inspection *i, struct t4_slice lo, struct t4_slice hi, struct range *r,
      struct error *error)
{
    *r = (struct range){0};
    if (i->facts.hydrating) {
        error_set(error, T4_E_UNAVAILABLE,
                  "the disk is still being filled from the checkpoint of revision %lld: "
                  "%llu of %llu parts are there",
                  (long long)i->facts.checkpoint_revision,
                  (unsigned long long)i->facts.units_done,
                  (unsigned long long)i->facts.units);
        return error_hint(error,
                          "ask the server with --endpoint, which reads from the "
                          "store what is missing; t4 inspect meta shows how far it is");
    }
    buffer_append_u8(&r->lo, SPACE_KEYS);
    buffer_append_slice(&r->lo, lo);
    if (hi.len > 0) {
        buffer_append_u8(&r->hi, SPACE_KEYS);
        buffer_append_slice(&r->hi, hi);
    }
    return T4_OK;
}

/* NOTFOUND is the end of a walk. */
static t4_status
end(struct range *r, t4_status status, struct error *error)
{
    buffer_free(&r->lo);
    buffer_free(&r->hi);
    if (status == T4_E_NOTFOUND || status == T4_OK)
        return T4_OK;
    error_set(error, status, "cannot read the storage engine: %s", status_text(status));
    return error_hint(error, "with the server stopped, delete the folder engine: the log "
                             "and the object store bring it back");
}

static struct t4_slice
user_key(struct t4_slice ikey)
{
    return slice_of(ikey.data + 1, ikey.len - 1);
}

static struct inspected_version
inspected(struct t4_slice key, const struct version *v)
{
    return (struct inspected_version){
        .key = key,
        .value = v->value,
        .revision = (int64_t)v->stamp,
        .create_revision = v->create_revision,
        .version = v->version,
        .lease = v->lease,
        .deleted = (v->flags & VERSION_TOMBSTONE) != 0,
    };
}

/* --- reading ----------------------------------------------------------------------------------- */

t4_status
inspection_keys(struct inspection *i, struct t4_slice lo, struct t4_slice hi,
                int64_t revision, inspect_version_fn *give, void *arg,
                struct error *error)
{
    struct mvcc_walk walk;
    struct t4_slice ikey;
    struct version v;
    struct range r;
    t4_status status = begin(i, lo, hi, &r, error);

    if (status != T4_OK)
        return status;
    mvcc_walk_begin(&walk, &i->reader, buffer_slice(&r.lo), buffer_slice(&r.hi),
                    (uint64_t)revision);
    while ((status = mvcc_walk_next(&walk, &ikey, &v)) == T4_OK) {
        struct inspected_version x = inspected(user_key(ikey), &v);

        if (!give(arg, &x))
            break;
    }
    mvcc_walk_end(&walk);
    return end(&r, status, error);
}

t4_status
inspection_history(struct inspection *i, struct t4_slice key, inspect_version_fn *give,
                   void *arg, struct error *error)
{
    struct buffer after = {0};
    struct mvcc_scan scan;
    struct t4_slice ikey;
    struct version v;
    struct range r;
    bool more = true;
    t4_status status;

    buffer_append_slice(&after, key);
    buffer_append_u8(&after, 0); /* the next key there can be */
    status = begin(i, key, buffer_slice(&after), &r, error);
    buffer_free(&after);
    if (status != T4_OK)
        return status;
    mvcc_scan_begin(&scan, &i->reader, buffer_slice(&r.lo), STAMP_NEWEST,
                    buffer_slice(&r.hi), 1, (uint64_t)i->facts.revision);
    status = mvcc_scan_key(&scan, &ikey);
    while (status == T4_OK && more && (status = mvcc_scan_version(&scan, &v)) == T4_OK) {
        struct inspected_version x = inspected(key, &v);

        /* The last one that counts; a deletion there says what its absence says. */
        more = x.revision > i->facts.compacted;
        if (more || !x.deleted)
            more = give(arg, &x) && more;
    }
    mvcc_scan_end(&scan);
    return end(&r, status, error);
}

/* The versions of a key at or below `to`, newest first, as one change behind `from`. */
static t4_status
sum_up(struct mvcc_scan *scan, int64_t from, struct inspected_change *c)
{
    struct version v;
    t4_status status;

    while ((status = mvcc_scan_version(scan, &v)) == T4_OK) {
        struct inspected_version x = inspected(c->key, &v);

        if (x.revision <= from) {
            c->was = !x.deleted;
            c->was_created = x.create_revision;
            c->before = x.value;
            break;
        }
        if (c->operations++ == 0) {
            c->is = !x.deleted;
            c->is_created = x.create_revision;
            c->after = x.value;
            c->last = x.revision;
        }
        c->first = x.revision;
    }
    return status == T4_E_NOTFOUND ? T4_OK : status;
}

t4_status
inspection_diff(struct inspection *i, struct t4_slice lo, struct t4_slice hi,
                int64_t from, int64_t to, inspect_change_fn *give, void *arg,
                struct error *error)
{
    struct mvcc_scan scan;
    struct t4_slice ikey;
    struct range r;
    t4_status status = begin(i, lo, hi, &r, error);

    if (status != T4_OK)
        return status;
    mvcc_scan_begin(&scan, &i->reader, buffer_slice(&r.lo), STAMP_NEWEST,
                    buffer_slice(&r.hi), 1, (uint64_t)to);
    while ((status = mvcc_scan_key(&scan, &ikey)) == T4_OK) {
        struct inspected_change c = {.key = user_key(ikey)};

        status = sum_up(&scan, from, &c);
        if (status != T4_OK || (c.operations > 0 && !give(arg, &c)))
            break;
    }
    mvcc_scan_end(&scan);
    return end(&r, status, error);
}

t4_status
inspection_count(struct inspection *i, uint64_t *keys, uint64_t *versions,
                 struct error *error)
{
    struct mvcc_scan scan;
    struct t4_slice ikey;
    struct version v;
    struct range r;
    t4_status status = begin(i, slice_of(NULL, 0), slice_of(NULL, 0), &r, error);

    *keys = *versions = 0;
    if (status != T4_OK)
        return status;
    mvcc_scan_begin(&scan, &i->reader, buffer_slice(&r.lo), STAMP_NEWEST,
                    buffer_slice(&r.hi), 1, (uint64_t)i->facts.revision);
    while ((status = mvcc_scan_key(&scan, &ikey)) == T4_OK) {
        bool newest = true;

        while ((status = mvcc_scan_version(&scan, &v)) == T4_OK) {
            if (newest && !(v.flags & VERSION_TOMBSTONE))
                ++*keys;
            newest = false;
            ++*versions;
        }
        if (status != T4_E_NOTFOUND)
            break;
    }
    mvcc_scan_end(&scan);
    return end(&r, status, error);
}

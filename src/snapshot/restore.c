/*
 * restore.c - a snapshot becomes the first checkpoint of an empty store.
 *
 * The mark `restoring` comes first and goes last: while it is there and `cluster` is not, no
 * server uses the store (objectlog/open.c).  It holds whatever of the store to be is not in the
 * snapshot, so an interrupted restore is given again and makes the same objects; nothing of it is
 * ever deleted, so two at a time do no harm.
 *
 *   found                          what is done
 *   nothing                        the mark, then everything
 *   our mark, no `cluster`         everything
 *   our mark and `cluster`         the last steps
 *   `cluster`, and our note        nothing, or the last step
 *   the mark of another snapshot   refused
 *   anything else                  refused
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <inttypes.h>
#include <stdio.h>

#include "objectlog/objectlog.h"
#include "snapshot/restore_int.h"

struct restore {
    struct snapshot_file *f;
    const struct snapshot_restore_options *options;
    struct objectlog *log;
    enum objectlog_found found;
    struct restoring_object mark;
    bool has_mark;
};

static const char *
url_of(const struct restore *r)
{
    return object_url(r->options->store);
}

/* --- what is there ------------------------------------------------------------------------ */

static t4_status
open_log(struct restore *r, struct error *error)
{
    const struct snapshot_restore_options *o = r->options;
    struct objectlog_options options = {.env = o->env,
                                        .store = o->store,
                                        .address = o->address,
                                        .timeout_ns = o->timeout_ns,
                                        .restoring = true};

    objectlog_close(r->log);
    r->log = NULL;
    return objectlog_open(&options, &r->log, &r->found, error);
}

static t4_status
read_mark(struct restore *r, struct error *error)
{
    struct buffer text = {0};
    t4_status status =
        objectlog_fetch(r->log, RESTORING_KEY, OBJECT_TEXT_MAX, &text, error);

    r->has_mark = status == T4_OK;
    if (status == T4_OK && restoring_decode(buffer_slice(&text), &r->mark) != T4_OK) {
        status = error_set(error, T4_E_CORRUPT, "the object %s in %s is damaged",
                           RESTORING_KEY, url_of(r));
        error_hint(error, "nothing was served from there yet: delete all objects of the "
                          "prefix");
    }
    buffer_free(&text);
    return status == T4_E_NOTFOUND ? T4_OK : status;
}

static t4_status
not_empty(const struct restore *r, struct error *error)
{
    error_set(error, T4_E_INVALID,
              "the store %s is not empty: a snapshot is restored into an empty one",
              url_of(r));
    return error_hint(error, "to start with what it holds leave out --from-snapshot; to "
                             "begin from the snapshot give another store");
}

static t4_status
another(const struct restore *r, struct error *error)
{
    error_set(error, T4_E_INVALID,
              "the restore of another snapshot (%s) into %s is not finished",
              r->mark.source, url_of(r));
    return error_hint(error,
                      "give that file again; or, for nothing was served from there "
                      "yet, delete all objects of the prefix");
}

static t4_status
count(void *arg, struct t4_slice key, const struct t4_object_info *info)
{
    uint64_t *n = arg;

    (void)info;
    *n += !slice_has_prefix(key, slice_str(PROBE_PREFIX));
    return T4_OK;
}

/* --- the mark ----------------------------------------------------------------------------- */

static t4_status
put_mark(struct restore *r, struct error *error)
{
    struct env *env = r->options->env;
    struct restoring_object *m = &r->mark;
    struct buffer text = {0};
    uint64_t ids[3] = {0};
    t4_status status;

    while (ids[0] == 0 || ids[1] == 0 || ids[2] == 0)
        env->random(env->state, ids, sizeof ids);
    *m = (struct restoring_object){.cluster_id = ids[0],
                                   .lineage = ids[1],
                                   .holder = ids[2],
                                   .time_ms = env->wall_ns(env->state) / 1000000};
    memcpy(m->sha256, snapshot_sha256(r->f), sizeof m->sha256);
    snprintf(m->source, sizeof m->source, "%s", r->options->source);
    restoring_encode(&text, m);
    status = objectlog_create(r->log, RESTORING_KEY, buffer_slice(&text), error);
    buffer_free(&text);
    if (status == T4_E_EXISTS) {
        error_set(error, T4_E_BUSY, "another server restores a snapshot into %s",
                  url_of(r));
        error_hint(error, "start again: what it has made will be found");
        return T4_E_BUSY;
    }
    /* Behind the mark: a server that began to use the store meanwhile has put its lock. */
    return status == T4_OK ? open_log(r, error) : status;
}

/* Takes the mark that is there, or puts one. */
static t4_status
claim(struct restore *r, struct error *error)
{
    uint64_t objects = 0;
    t4_status status = open_log(r, error);

    if (status == T4_OK)
        status = read_mark(r, error);
    if (status != T4_OK)
        return status;
    if (r->has_mark)
        return memcmp(r->mark.sha256, snapshot_sha256(r->f), SHA256_BYTES) == 0 ? T4_OK
               : r->found == OBJECTLOG_COMPLETE ? not_empty(r, error)
                                                : another(r, error);
    if (r->found == OBJECTLOG_COMPLETE && r->options->noted)
        return T4_OK;
    if (r->found == OBJECTLOG_EMPTY)
        status = objectlog_walk(r->log, "", "", count, &objects, error);
    if (status == T4_OK && (r->found != OBJECTLOG_EMPTY || objects > 0))
        return not_empty(r, error);
    if (status == T4_OK)
        status = put_mark(r, error);
    if (status == T4_OK && r->found != OBJECTLOG_EMPTY)
        return not_empty(r, error);
    return status;
}

static t4_status
remove_mark(struct restore *r, struct error *error)
{
    struct t4_slice key = slice_str(RESTORING_KEY);

    return objectlog_remove(r->log, &key, 1, error);
}

/* --- the whole ---------------------------------------------------------------------------- */

static t4_status
write_state(struct restore *r, struct load *l, struct snapshot_restored *out,
            struct error *error)
{
    struct checkpoint_seed seed = {.cluster_id = r->mark.cluster_id,
                                   .lineage = r->mark.lineage,
                                   .holder = r->mark.holder,
                                   .time_ms = r->mark.time_ms,
                                   .rule = r->options->rule};
    t4_status status;

    load_describe(l, out);
    seed.revision = out->revision;
    seed.compacted = out->compacted;
    status = checkpoint_seed(r->log, &seed, load_source(l), error);
    /* The writer's word for a record that does not come after the one before it. */
    if (status == T4_E_INVALID && error->hint[0] == '\0')
        error_hint(error, "the snapshot has two records of one key and revision");
    return status;
}

t4_status
snapshot_restore(struct snapshot_file *f, const struct snapshot_restore_options *options,
                 struct snapshot_restored *out, struct error *error)
{
    struct restore r = {.f = f, .options = options};
    struct load *l;
    /* All of it first: what the file is refused for must leave nothing in the store. */
    t4_status status = load_new(f, options->dir, &l, error);

    *out = (struct snapshot_restored){.was_stored = false};
    if (status == T4_OK)
        status = claim(&r, error);
    if (status == T4_OK && r.found == OBJECTLOG_COMPLETE)
        out->was_stored = true;
    else if (status == T4_OK)
        status = write_state(&r, l, out, error);
    load_free(l);
    if (status == T4_OK)
        status = options->stored(options->arg, error);
    if (status == T4_OK)
        status = remove_mark(&r, error);
    objectlog_close(r.log);
    return status;
}

/*
 * run_check.c - a run's index against its name, and each of its files against the index.
 *
 * Runs and files that several checkpoints share are read once.  A file is compared with everything
 * that the index says of it: hash, length, bounds, counts, stamps; its records with the filter and
 * with the interval of the run.  Records of space 's' are in the index only.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <inttypes.h>

#include "base/hash.h"
#include "base/memory.h"
#include "verify/verify_int.h"

/* --- one file, on any thread -------------------------------------------------------------------- */

/* A run whose files are looked at. */
struct run_check {
    struct verify *v;
    uint32_t checkpoint;
    const struct run_index *index;
    size_t *todo; /* files that were not looked at before */
    struct known_run *known;
    const char *key;
    uint64_t records;
};

static void
name_file(void *arg, struct fetched *f)
{
    const struct run_check *c = arg;
    const struct run_sst *file = &c->index->sst[c->todo[f->i]];

    sst_key(f->key, file->info.sha256, file->term, file->index);
    f->limit = file->info.object_bytes;
}

/* An open file against what the index says. */
static t4_status
compare_info(const struct sst *sst, const struct sst_info *want, struct error *error)
{
    struct sst_info has;

    sst_get_info(sst, &has);
    if (memcmp(has.content, want->content, SHA256_BYTES) == 0 &&
        has.raw_bytes == want->raw_bytes && has.records == want->records &&
        has.min_stamp == want->min_stamp && has.max_stamp == want->max_stamp &&
        slice_equal(has.first, want->first) && slice_equal(has.last, want->last))
        return T4_OK;
    return error_set(error, T4_E_CORRUPT,
                     "is not what the run's index says of it (content, counts, bounds or "
                     "stamps)");
}

/* Is the stamp one that the run's interval can have? */
static bool
stamp_fits(const struct run_index *run, uint8_t space, uint64_t stamp)
{
    return space == SPACE_KEYS ? stamp <= (uint64_t)run->last_revision
                               : stamp > run->first_index && stamp <= run->last_index;
}

/* Records of a file, or those of space 's' in the index. */
static t4_status
check_records(const struct run_index *run, const struct sst *sst, bool system,
              struct error *error)
{
    struct buffer scratch = {0};
    struct sst_cursor cursor;
    struct t4_slice key, value, ikey;
    uint64_t stamp;
    t4_status status;

    sst_cursor_init(&cursor, sst);
    while ((status = sst_cursor_next(&cursor, &key, &value, error)) == T4_OK) {
        if (!record_key_decode(key, &scratch, &ikey, &stamp) || ikey.len == 0)
            status = error_set(error, T4_E_CORRUPT, "holds a damaged record");
        else if ((ikey.data[0] == SPACE_SYSTEM) != system)
            status = error_set(error, T4_E_CORRUPT,
                               system ? "there are other records among them"
                                      : "holds a system record, which belongs into the "
                                        "run's index");
        else if (!system && sst_filter_excludes(&run->filter, ikey))
            status = error_set(error, T4_E_CORRUPT,
                               "holds a key that the filter in the run's index excludes");
        else if (!stamp_fits(run, ikey.data[0], stamp))
            status = error_set(error, T4_E_CORRUPT,
                               "a record in it is of stamp %" PRIu64
                               ", which is not of the run's interval",
                               stamp);
        if (status != T4_OK)
            break;
    }
    sst_cursor_free(&cursor);
    buffer_free(&scratch);
    return status == T4_E_NOTFOUND ? T4_OK : status;
}

static void
look_at_file(void *arg, struct fetched *f)
{
    const struct run_check *c = arg;
    const struct sst_info *info = &c->index->sst[c->todo[f->i]].info;
    struct t4_slice object = buffer_slice(&f->object);
    struct sst *sst = NULL;

    f->status = sst_check_object(object, info, &f->error);
    if (f->status == T4_OK)
        f->status = sst_open(object, &sst, &f->error);
    if (f->status == T4_OK)
        f->status = sst_verify(sst, &f->error);
    if (f->status == T4_OK)
        f->status = compare_info(sst, info, &f->error);
    if (f->status == T4_OK)
        f->status = check_records(c->index, sst, false, &f->error);
    sst_close(sst);
}

/* What an index says of a file, as a number: two that say the same need one look. */
static uint64_t
facts_of(const struct run_index *run, const struct run_sst *file)
{
    const struct sst_info *i = &file->info;
    uint64_t h = hash_bytes(1, i->content, SHA256_BYTES);

    h = hash_bytes(h, i->first.data, i->first.len);
    h = hash_bytes(h, i->last.data, i->last.len);
    h = hash_mix(h ^ i->object_bytes, hash_u64(i->raw_bytes));
    h = hash_mix(h ^ i->records, hash_u64(i->min_stamp));
    h = hash_mix(h ^ i->max_stamp, hash_u64(file->index));
    /* Its filter and interval are another run's: to be looked at again. */
    if (run->filter.keys != 0 || i->last.data[0] != SPACE_KEYS)
        h = hash_mix(h ^ run->first_index, hash_u64(run->last_index) ^ run->filter.keys);
    return h;
}

static t4_status
take_file(void *arg, struct fetched *f, struct error *error)
{
    struct run_check *c = arg;
    const struct run_sst *file = &c->index->sst[c->todo[f->i]];
    struct name *name;
    bool fresh, listed = true;

    if (f->status == T4_E_NOTFOUND) {
        t4_status status = still_listed(c->v, c->checkpoint, &listed, error);

        if (status != T4_OK)
            return status;
        if (!listed)
            return T4_E_CANCELLED; /* nothing of this run is to be judged */
    }
    name = name_set_put(&c->v->files, file->info.sha256, file->term, file->index, &fresh);
    name->facts = facts_of(c->index, file);
    name->bad = f->status != T4_OK;
    if (!name->bad) {
        c->records += file->info.records;
        c->v->result->files += fresh;
        return T4_OK;
    }
    c->known->verdict = BAD;
    if (f->status == T4_E_NOTFOUND)
        verify_bad(c->v, f->key, "is missing, although %s needs it", c->key);
    else
        verify_bad(c->v, f->key, "%s (in %s)", f->error.message, c->key);
    return T4_OK;
}

/* --- the run ------------------------------------------------------------------------------------------ */

/* What the index says of its files, by itself. */
static bool
check_index(struct run_check *c, const struct checkpoint_run *name)
{
    const struct run_index *run = c->index;
    uint64_t min = UINT64_MAX;
    bool good = true;

    c->known->first_index = run->first_index;
    c->known->last_index = run->last_index;
    c->known->last_revision = run->last_revision;
    c->known->compacted = run->compacted;
    c->known->is_base = run->is_base;
    for (size_t i = 0; i < run->n; i++) {
        const struct run_sst *file = &run->sst[i];

        c->known->bytes += file->info.object_bytes;
        if (file->info.min_stamp != 0 && file->info.min_stamp < min)
            min = file->info.min_stamp;
        if (file->info.max_stamp > (uint64_t)run->last_revision ||
            file->term > name->term || file->index > name->index) {
            verify_bad(c->v, c->key,
                       "says that its file %zu is newer than the run itself", i);
            good = false;
        }
    }
    c->known->min_stamp = min == UINT64_MAX ? 0 : min;
    if ((run->n == 0 && run->system.len == 0) || run->first_index >= run->last_index) {
        verify_bad(c->v, c->key, "holds no records, or no entries of the log");
        good = false;
    }
    return good;
}

/* The system records in the index: an SST of its own, of space 's' only. */
static t4_status
check_system(struct run_check *c, struct error *error)
{
    struct sst_info info;
    struct sst *sst = NULL;
    t4_status status;

    if (c->index->system.len == 0)
        return T4_OK;
    status = sst_open(buffer_slice(&c->index->system), &sst, error);
    if (status == T4_OK)
        status = sst_verify(sst, error);
    if (status == T4_OK)
        status = check_records(c->index, sst, true, error);
    if (status == T4_OK) {
        sst_get_info(sst, &info);
        c->records += info.records;
    }
    sst_close(sst);
    return status;
}

/* Which files are to be looked at; those of others are taken over with what came of them. */
static size_t
choose_files(struct run_check *c)
{
    size_t n = 0;

    for (size_t i = 0; i < c->index->n; i++) {
        const struct run_sst *file = &c->index->sst[i];
        const struct name *name =
            name_set_find(&c->v->files, file->info.sha256, file->term, file->index);

        if (name != NULL && name->bad)
            c->known->verdict = BAD; /* it was told */
        else if (name == NULL || name->facts != facts_of(c->index, file))
            c->todo[n++] = i;
    }
    return n;
}

static t4_status
check_files(struct run_check *c, struct error *error)
{
    struct fetch_plan plan = {.phase = "files of runs",
                              .arg = c,
                              .name = name_file,
                              .look = look_at_file,
                              .take = take_file};
    t4_status status;

    c->todo = mem_alloc((c->index->n + 1) * sizeof *c->todo);
    plan.n = choose_files(c);
    status = fetch_all(c->v, &plan, error);
    mem_free(c->todo);
    return status;
}

static t4_status
look_into(struct run_check *c, const struct checkpoint_run *name, struct t4_slice object,
          struct error *error)
{
    struct run_index index;
    struct error why = {0};
    uint8_t hash[SHA256_BYTES];
    t4_status status;

    sha256(object, hash);
    c->known->verdict = BAD;
    if (memcmp(hash, name->sha256, sizeof hash) != 0) {
        verify_bad(c->v, c->key, "its bytes do not have the hash in its name");
        return T4_OK;
    }
    if (run_index_decode(object, &index, &why) != T4_OK) {
        verify_bad(c->v, c->key, "%s", why.message);
        return T4_OK;
    }
    c->index = &index;
    if (check_index(c, name))
        c->known->verdict = FINE;
    if (check_system(c, &why) != T4_OK) {
        verify_bad(c->v, c->key, "the system records in it: %s", why.message);
        c->known->verdict = BAD;
    }
    status = check_files(c, error);
    run_index_free(&index);
    return status;
}

static t4_status
look_at_run(struct run_check *c, const struct checkpoint_run *name, struct error *error)
{
    struct buffer object = {0};
    bool listed = true;
    t4_status status = fetch_object(c->v, c->key, RUN_OBJECT_MAX, &object, error);

    if (status == T4_E_NOTFOUND) {
        status = still_listed(c->v, c->checkpoint, &listed, error);
        c->known->verdict = listed ? BAD : RETIRED;
        if (status == T4_OK && listed)
            verify_bad(c->v, c->key, "is missing, although %s needs it",
                       c->v->kept[c->checkpoint].key);
    } else if (status == T4_E_CORRUPT) {
        verify_bad(c->v, c->key, "is longer than it may be");
        c->known->verdict = BAD;
        status = T4_OK;
    } else if (status == T4_OK) {
        status = look_into(c, name, buffer_slice(&object), error);
        if (status == T4_E_CANCELLED && c->v->kept[c->checkpoint].verdict == RETIRED) {
            c->known->verdict = RETIRED;
            status = T4_OK;
        }
    }
    buffer_free(&object);
    return status;
}

t4_status
check_run(struct verify *v, uint32_t i, const struct checkpoint_run *name, size_t *out,
          struct error *error)
{
    struct known_run known = {.name = *name, .verdict = FINE};
    struct run_check c = {.v = v, .checkpoint = i, .known = &known};
    char key[SST_KEY_BYTES];
    bool fresh;
    t4_status status;

    for (*out = 0; *out < v->n_runs; (*out)++) {
        const struct checkpoint_run *k = &v->run[*out].name;

        if (memcmp(k->sha256, name->sha256, SHA256_BYTES) == 0 && k->term == name->term &&
            k->index == name->index)
            return T4_OK;
    }
    name_set_put(&v->runs, name->sha256, name->term, name->index, &fresh);
    run_key(key, name->sha256, name->term, name->index);
    c.key = key;
    status = look_at_run(&c, name, error);
    if (status != T4_OK || known.verdict == RETIRED)
        return status;
    if (v->n_runs == v->run_capacity) {
        v->run_capacity = 2 * v->run_capacity + 16;
        v->run = mem_realloc(v->run, v->run_capacity * sizeof *v->run);
    }
    v->run[v->n_runs++] = known;
    v->result->runs += known.verdict == FINE;
    v->result->records += c.records;
    return T4_OK;
}

/*
 * state.c - calls about the whole state: HashKV, Hash, snapshots.
 *
 * They read everything there is, so they have a thread of their own and hold nothing that a write
 * waits for: the engine is read in slices (snapshot/history.c), what is sorted lies in temporary
 * files of <data>/tmp.
 *
 * Threads: node_state_submit() any; the rest on t4-state, which may block.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <inttypes.h>
#include <stdio.h>

#include "base/log.h"
#include "base/memory.h"
#include "env/file.h"
#include "node/node_int.h"
#include "snapshot/snapshot.h"
#include "sort/sort.h"

/* Of the member in a snapshot, for etcd wants one: its default.  A restore names its own. */
#define PEER_URL "http://localhost:2380"
#define JOBS_MAX 8u
#define REPEATS_MAX 8 /* when compactions of the newest revision come all the time */
#define ROOM_LEFT (UINT64_C(64) << 20) /* that is never used */

void
state_open(struct node *n)
{
    struct error error = {0};

    n->temporary_dir = env_path(n->data_dir, "tmp");
    /* A full disk must not keep from starting: the calls will fail, or find room by then. */
    if (temporary_clean(n->options.env, n->temporary_dir, &error) != T4_OK)
        LOG_WARN("the folder of temporary files cannot be made or emptied", "reason",
                 error.message, NULL);
}

bool
node_state_submit(struct node *n, struct node_state_job *job)
{
    if (atomic_fetch_add(&n->state_jobs, 1) >= JOBS_MAX) {
        atomic_fetch_sub(&n->state_jobs, 1);
        return false;
    }
    workers_submit(n->state_worker, &job->job);
    return true;
}

void
node_state_job_over(struct node *n)
{
    atomic_fetch_sub(&n->state_jobs, 1);
}

/* --- one call ----------------------------------------------------------------------------- */

struct work {
    struct node *n;
    struct node_state_job *job;
    struct snapshot now;         /* what is read is the state as of here */
    struct lease_record *leases; /* by id, taken as unsigned */
    size_t n_leases, lease_capacity;
};

static bool
is_over(void *arg)
{
    struct work *w = arg;

    return atomic_load(&w->job->cancelled) || atomic_load(&w->n->stopping);
}

static enum etcd_error
refuse(const struct work *w, const char *what, const struct error *error)
{
    if (error->status == T4_E_CANCELLED)
        return ETCD_STOPPED;
    LOG_ERROR(what, "reason", error->message, "hint", error->hint, NULL);
    metric_add(&w->n->metrics, METRIC_REQUESTS_FAILED, 1);
    if (error->status == T4_E_NOSPACE)
        return ETCD_NO_ROOM_TO_SORT;
    return error->status == T4_E_CORRUPT ? ETCD_READ_FAILED : ETCD_TEMPORARY_FAILED;
}

/* Temporary files as large as what the engine holds, `times` that. */
static t4_status
check_room(struct node *n, uint64_t times, struct error *error)
{
    struct env *env = n->options.env;
    struct t4_engine_stats stats = {.size = sizeof stats};
    uint64_t have, want;
    t4_status status = env->mkdir(env->state, n->temporary_dir, error);

    if (status != T4_OK)
        return status;
    if (engine_stats(n->engine, &stats) != T4_OK ||
        env->free_space(env->state, n->temporary_dir, &have, NULL) != T4_OK)
        return T4_OK; /* it will be seen */
    want = stats.in_use_bytes * times + ROOM_LEFT;
    if (have >= want)
        return T4_OK;
    error_set(error, T4_E_NOSPACE,
              "%s has %" PRIu64 " bytes of room, and temporary files may need %" PRIu64,
              n->temporary_dir, have, want);
    return error_hint(error, "make room, or compact the history");
}

static void
add_lease(struct work *w, int64_t id, const struct version *v)
{
    struct lease_record *l;

    if (w->n_leases == w->lease_capacity) {
        w->lease_capacity = w->lease_capacity * 2 + 64;
        w->leases = mem_realloc(w->leases, w->lease_capacity * sizeof *w->leases);
    }
    l = &w->leases[w->n_leases];
    l->id = id;
    if (lease_value_decode(v->value, &l->ttl, &l->remaining))
        w->n_leases++;
}

/*
 * Of space 's' only the newest versions are kept.  So it is read by a reader that began between
 * two looks at the published state that saw the same: it has everything up to there, and nothing
 * else in the engine.
 */
static t4_status
read_leases(struct work *w, struct error *error)
{
    struct node *n = w->n;
    struct mvcc_reader reader;
    struct mvcc_walk walk;
    struct t4_slice ikey;
    struct version v;
    int64_t id;
    t4_status status;

    for (;;) {
        w->now = commit_published(n);
        status = mvcc_read_begin(n->mvcc, &reader);
        if (status != T4_OK || commit_published(n).index == w->now.index)
            break;
        mvcc_read_end(&reader);
    }
    w->n_leases = 0;
    if (status == T4_OK) {
        mvcc_walk_begin(&walk, &reader, slice_str("s"), slice_of(NULL, 0), w->now.index);
        while ((status = mvcc_walk_next(&walk, &ikey, &v)) == T4_OK)
            if (lease_key_decode(slice_of(ikey.data + 1, ikey.len - 1), &id))
                add_lease(w, id, &v);
        mvcc_walk_end(&walk);
        mvcc_read_end(&reader);
    }
    if (status == T4_E_NOTFOUND)
        return T4_OK;
    return error_set(error, T4_E_CORRUPT, "the storage engine cannot be read: %s",
                     status_text(status));
}

static t4_status
open_history(struct work *w, int64_t revision, struct history **out, struct error *error)
{
    struct history_options options = {
        .env = w->n->options.env,
        .dir = w->n->temporary_dir,
        .mvcc = w->n->mvcc,
        .stop = is_over,
        .arg = w,
    };

    return history_open(&options, revision, out, error);
}

/* The state as of now, or of a moment later if a compaction of the newest revision comes between. */
static t4_status
open_now(struct work *w, struct history **out, struct error *error)
{
    t4_status status = T4_E_PRECONDITION;

    for (int i = 0; i < REPEATS_MAX && status == T4_E_PRECONDITION; i++) {
        status = read_leases(w, error);
        if (status == T4_OK)
            status = open_history(w, w->now.revision, out, error);
    }
    return status;
}

static struct snapshot_facts
facts_of(const struct work *w)
{
    const struct node *n = w->n;

    return (struct snapshot_facts){
        .member_id = n->identity.member_id,
        .index = w->now.index > 0 ? w->now.index : 1,
        .term = n->term,
        .name = n->name,
        .peer_url = PEER_URL,
        .client_urls = n->advertise_urls,
        .lease = w->leases,
        .n_leases = w->n_leases,
    };
}

/* What is to be read must be here; a call that is not wanted any more need not begin. */
static enum etcd_error
begin(struct work *w, struct node *n, struct node_state_job *job)
{
    t4_status status;

    *w = (struct work){.n = n, .job = job};
    if (is_over(w))
        return ETCD_STOPPED;
    status = base_fetch_all(n);
    if (is_over(w))
        return ETCD_STOPPED;
    return status == T4_OK ? ETCD_OK : node_hydration_error(status);
}

/* --- the calls ---------------------------------------------------------------------------- */

static enum etcd_error
hash_kv(struct work *w, int64_t revision, struct node_kv_hash *out)
{
    struct error error = {0};
    struct history *h = NULL;
    t4_status status = check_room(w->n, 1, &error);

    w->now = commit_published(w->n);
    if (revision > 0 && revision < w->now.compacted)
        return ETCD_COMPACTED;
    if (revision > w->now.revision)
        return ETCD_FUTURE_REVISION;
    if (revision < 0) { /* as in etcd: of nothing */
        out->revision = revision;
        out->compacted = w->now.compacted;
        out->hash = history_hash_of_none();
        return ETCD_OK;
    }
    if (status == T4_OK)
        status = revision > 0 ? open_history(w, revision, &h, &error)
                              : open_now(w, &h, &error);
    if (status == T4_E_PRECONDITION)
        return ETCD_COMPACTED;
    if (status == T4_OK) {
        out->revision = history_revision(h);
        out->compacted = history_compacted(h);
        status = history_hash(h, &out->hash, &error);
    }
    history_free(h);
    return status == T4_OK ? ETCD_OK : refuse(w, "HashKV failed", &error);
}

enum etcd_error
node_hash_kv(struct node *n, struct node_state_job *job, int64_t revision,
             struct node_kv_hash *out)
{
    struct work w;
    enum etcd_error e = begin(&w, n, job);

    if (e == ETCD_OK)
        e = hash_kv(&w, revision, out);
    node_header(n, &out->header);
    mem_free(w.leases);
    return e;
}

/* What is made of the state as of now. */
typedef t4_status use_fn(const struct work *w, struct history *h,
                         const struct snapshot_facts *facts, void *out,
                         struct error *error);

/* room: of temporary files, in sizes of the engine.  what: for the log, if it fails. */
static enum etcd_error
with_everything(struct node *n, struct node_state_job *job, uint64_t room,
                const char *what, use_fn *use, void *out)
{
    struct error error = {0};
    struct snapshot_facts facts;
    struct history *h = NULL;
    struct work w;
    enum etcd_error e = begin(&w, n, job);
    t4_status status;

    if (e != ETCD_OK)
        return e;
    status = check_room(n, room, &error);
    if (status == T4_OK)
        status = open_now(&w, &h, &error);
    facts = facts_of(&w);
    if (status == T4_OK)
        status = use(&w, h, &facts, out, &error);
    history_free(h);
    mem_free(w.leases);
    return status == T4_OK ? ETCD_OK : refuse(&w, what, &error);
}

static t4_status
use_for_hash(const struct work *w, struct history *h, const struct snapshot_facts *facts,
             void *out, struct error *error)
{
    struct node_kv_hash *result = out;

    (void)w;
    return snapshot_hash(h, facts, &result->hash, error);
}

enum etcd_error
node_hash(struct node *n, struct node_state_job *job, struct node_kv_hash *out)
{
    enum etcd_error e = with_everything(n, job, 1, "Hash failed", use_for_hash, out);

    node_header(n, &out->header);
    return e;
}

struct snapshot_result {
    struct env_file *file;
    uint64_t size;
};

static t4_status
use_for_snapshot(const struct work *w, struct history *h,
                 const struct snapshot_facts *facts, void *out, struct error *error)
{
    struct snapshot_result *result = out;
    char revision[24], bytes[24];
    t4_status status = snapshot_write(w->n->options.env, w->n->temporary_dir, h, facts,
                                      &result->file, &result->size, error);

    if (status != T4_OK)
        return status;
    snprintf(revision, sizeof revision, "%" PRId64, history_revision(h));
    snprintf(bytes, sizeof bytes, "%" PRIu64, result->size);
    LOG_INFO("a client is sent a snapshot", "revision", revision, "bytes", bytes, NULL);
    return T4_OK;
}

enum etcd_error
node_snapshot(struct node *n, struct node_state_job *job, struct env_file **file,
              uint64_t *size)
{
    struct snapshot_result result = {NULL, 0};
    enum etcd_error e =
        with_everything(n, job, 2, "a snapshot failed", use_for_snapshot, &result);

    *file = result.file;
    *size = result.size;
    return e;
}

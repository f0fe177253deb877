/*
 * replay.c - deep: from checkpoint to checkpoint along the log.
 *
 * A checkpoint and the log up to the next one must make the state that the next one holds, record by
 * record, reduced by the compacted revision in force there.  The oldest is made from the log alone if
 * that is kept from the first entry on; above the newest the chain's tail is replayed, which gives the
 * newest state.
 *
 * Both sides are merged from sorted sources, with one file of each run in memory.  Runs that both
 * checkpoints have are left out on both sides when the older one has no others: what is left is the
 * log between them against the runs that were made of it, so the cost is that of the log.
 * (Leaving equal records out does not change whether the rest is equal: reducing the merge of two
 * reduced parts gives what reducing the merge of the parts themselves gives.)
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <inttypes.h>
#include <stdio.h>

#include "base/memory.h"
#include "verify/verify_int.h"

#define SOURCES_MAX (2 * CHECKPOINT_RUNS_MAX + 1)

/* --- the records of runs ------------------------------------------------------------------- */

struct run_input {
    struct verify *v;
    struct run_index index;
    struct file_walk files;
    struct sst *system; /* the records in the index; NULL: none */
    struct sst_cursor cursor;
};

/* Sorted sources of one side, with what they need. */
struct side {
    struct run_input *run;
    uint32_t n_runs;
    struct sst_source source[SOURCES_MAX];
    size_t n;
};

static t4_status
gone(const char *key, t4_status status, struct error *error)
{
    return status == T4_E_NOTFOUND
               ? error_set(error, T4_E_CORRUPT, "the object %s is missing", key)
               : status;
}

static t4_status
load_file(void *arg, size_t i, struct buffer *object, struct error *error)
{
    const struct run_input *in = arg;
    const struct run_sst *file = &in->index.sst[i];
    char key[SST_KEY_BYTES];
    t4_status status;

    if (i == in->index.n)
        return T4_E_NOTFOUND;
    sst_key(key, file->info.sha256, file->term, file->index);
    status = gone(key, fetch_object(in->v, key, FILE_OBJECT_MAX, object, error), error);
    if (status == T4_OK)
        status = sst_check_object(buffer_slice(object), &file->info, error);
    return status;
}

static t4_status
open_run(struct run_input *in, const struct checkpoint_run *name, struct side *s,
         struct error *error)
{
    struct buffer object = {0};
    char key[SST_KEY_BYTES];
    t4_status status;

    run_key(key, name->sha256, name->term, name->index);
    status = gone(key, fetch_object(in->v, key, RUN_OBJECT_MAX, &object, error), error);
    if (status == T4_OK)
        status = run_index_decode(buffer_slice(&object), &in->index, error);
    buffer_free(&object);
    if (status != T4_OK)
        return status;
    sst_filter_free(&in->index.filter);
    in->files = (struct file_walk){.load = load_file, .arg = in};
    s->source[s->n++] = file_walk_source(&in->files);
    if (in->index.system.len == 0)
        return T4_OK;
    status = sst_open(buffer_slice(&in->index.system), &in->system, error);
    if (status == T4_OK) {
        sst_cursor_init(&in->cursor, in->system);
        s->source[s->n++] = sst_cursor_source(&in->cursor);
    }
    return status;
}

static void
side_close(struct side *s)
{
    for (uint32_t i = 0; i < s->n_runs; i++) {
        struct run_input *in = &s->run[i];

        file_walk_close(&in->files);
        if (in->system != NULL) {
            sst_cursor_free(&in->cursor);
            sst_close(in->system);
        }
        run_index_free(&in->index);
    }
    mem_free(s->run);
    mem_free(s);
}

/* The first n runs of a checkpoint; closed by side_close() also on failure. */
static t4_status
side_open(struct verify *v, const struct checkpoint_object *c, uint32_t n,
          struct side **out, struct error *error)
{
    struct side *s = mem_zalloc(sizeof *s);
    t4_status status = T4_OK;

    *out = s;
    s->run = mem_zalloc((n + 1) * sizeof *s->run);
    for (uint32_t i = 0; i < n && status == T4_OK; i++) {
        s->run[i].v = v;
        s->n_runs++;
        status = open_run(&s->run[i], &c->run[i], s, error);
    }
    return status;
}

/* --- comparing -------------------------------------------------------------------------------- */

/* Merged and reduced. */
struct reading {
    struct sst_merge *merge;
    struct sst_reduce reduce;
    struct t4_slice key, value;
    bool over;
};

static void
reading_begin(struct reading *r, const struct side *s, int64_t compacted, bool is_base)
{
    *r = (struct reading){.merge = sst_merge_new(s->source, s->n)};
    r->reduce.source = sst_merge_source(r->merge);
    r->reduce.compacted = compacted > 0 ? compacted : 0;
    r->reduce.is_base = is_base;
}

static t4_status
reading_next(struct reading *r, struct error *error)
{
    t4_status status = sst_reduce_next(&r->reduce, &r->key, &r->value, error);

    r->over = status == T4_E_NOTFOUND;
    return r->over ? T4_OK : status;
}

static void
reading_end(struct reading *r)
{
    sst_reduce_free(&r->reduce);
    sst_merge_free(r->merge);
}

/* A record for messages: its space, key and stamp, printable and cut if long. */
static void
record_text(char *text, size_t n, struct t4_slice key)
{
    struct buffer scratch = {0};
    struct t4_slice ikey;
    uint64_t stamp = 0;
    size_t at;

    if (!record_key_decode(key, &scratch, &ikey, &stamp) || ikey.len == 0)
        ikey = slice_str("?");
    at = (size_t)snprintf(text, n, "(space %c, stamp %" PRIu64 ") ", ikey.data[0], stamp);
    for (size_t i = 1; i < ikey.len && at + 8 < n; i++) {
        uint8_t c = ikey.data[i];

        at += (size_t)snprintf(text + at, n - at,
                               c > ' ' && c <= '~' && c != '\\' ? "%c" : "\\x%02x", c);
    }
    buffer_free(&scratch);
}

/* Tells the first difference. */
static t4_status
compare(struct verify *v, const char *key, struct reading *is, struct reading *must,
        struct error *error)
{
    char text[200];

    for (;;) {
        t4_status status = reading_next(is, error);
        int order;

        if (status == T4_OK)
            status = reading_next(must, error);
        if (status != T4_OK)
            return status;
        if (is->over && must->over)
            return T4_OK;
        order = is->over ? 1 : must->over ? -1 : slice_compare(is->key, must->key);
        record_text(text, sizeof text, order < 0 ? is->key : must->key);
        if (order == 0 && slice_equal(is->value, must->value)) {
            v->result->compared++;
            continue;
        }
        verify_bad(v, key, "%s the log says: record %s",
                   order < 0   ? "holds a record that is not what"
                   : order > 0 ? "lacks a record that"
                               : "holds a record with another value than",
                   text);
        return T4_E_CANCELLED; /* told */
    }
}

/* --- the log between ---------------------------------------------------------------------------- */

struct between {
    struct spill *spill;
    bool any;
    uint64_t index, time_ms;
    int64_t revision, compacted;
};

static t4_status
take_entry(void *arg, const struct entry *e, struct t4_slice bytes, struct error *error)
{
    struct between *b = arg;

    b->any = true;
    b->index = e->index;
    b->time_ms = e->time_ms;
    b->revision = e->revision;
    if (e->kind != ENTRY_NORMAL)
        b->compacted = e->compact_revision;
    return spill_entry(b->spill, e, bytes, error);
}

/* A stretch: from a kept checkpoint (or nothing) to the next newer one, or the chain's end. */
struct stretch {
    struct verify *v;
    const struct kept *from, *to; /* NULL: nothing; NULL: the end */
    uint32_t n_from, n_to;        /* their runs that are not in both */
    bool is_base;                 /* nothing lies below those */
};

/* Runs are listed newest first: what both have is at the end. */
static void
leave_shared_out(struct stretch *s)
{
    const struct checkpoint_object *a = s->from != NULL ? &s->from->object : NULL;
    const struct checkpoint_object *b = s->to != NULL ? &s->to->object : NULL;

    s->n_from = a != NULL ? a->n_runs : 0;
    s->n_to = b != NULL ? b->n_runs : 0;
    s->is_base = true;
    if (a == NULL || b == NULL || a->n_runs == 0 || a->n_runs > b->n_runs ||
        memcmp(a->run, b->run + (b->n_runs - a->n_runs), a->n_runs * sizeof *a->run) != 0)
        return;
    s->n_from = 0;
    s->n_to = b->n_runs - a->n_runs;
    s->is_base = false;
}

static t4_status
compare_stretch(const struct stretch *s, struct side *must, int64_t compacted,
                struct error *error)
{
    struct reading is, want;
    struct side *side;
    t4_status status = side_open(s->v, &s->to->object, s->n_to, &side, error);

    if (status == T4_OK) {
        reading_begin(&is, side, compacted, s->is_base);
        reading_begin(&want, must, compacted, s->is_base);
        status = compare(s->v, s->to->key, &is, &want, error);
        reading_end(&is);
        reading_end(&want);
    }
    side_close(side);
    return status;
}

/* What the log's last entry says, against the checkpoint. */
static t4_status
compare_heads(const struct stretch *s, const struct between *b)
{
    const struct checkpoint_object *o = &s->to->object;

    if (b->index == o->index && b->revision == o->revision &&
        b->compacted == o->compacted && b->time_ms == o->time_ms)
        return T4_OK;
    verify_bad(s->v, s->to->key,
               "says index %" PRIu64 ", revision %" PRId64 ", compacted %" PRId64
               ", but the log there has %" PRIu64 ", %" PRId64 ", %" PRId64,
               o->index, o->revision, o->compacted, b->index, b->revision, b->compacted);
    return T4_E_CANCELLED;
}

/* The newest state: how many keys it has. */
static t4_status
count_final(const struct stretch *s, struct side *all, const struct between *b,
            struct error *error)
{
    struct verify_result *result = s->v->result;
    struct buffer last = {0};
    struct reading r;
    t4_status status;

    reading_begin(&r, all, b->compacted, true);
    while ((status = reading_next(&r, error)) == T4_OK && !r.over) {
        struct t4_slice key = slice_of(r.key.data, r.key.len - 8); /* without the stamp */
        struct version v;

        if (r.key.data[0] != SPACE_KEYS || slice_equal(key, buffer_slice(&last)))
            continue;
        buffer_clear(&last);
        buffer_append_slice(&last, key);
        if (record_value_decode(r.value, &v) && !(v.flags & VERSION_TOMBSTONE))
            result->final_keys++;
    }
    reading_end(&r);
    buffer_free(&last);
    result->final_index = b->index;
    result->final_revision = b->revision;
    result->has_final = status == T4_OK;
    return status;
}

/* CANCELLED: something was told. */
static t4_status
replay(const struct stretch *s, struct between *b, struct error *error)
{
    static const struct checkpoint_object nothing = {.compacted = -1, .revision = 1};
    const struct checkpoint_object *from = s->from != NULL ? &s->from->object : &nothing;
    const struct chain_floor *to = s->to != NULL ? &s->to->object.place : &s->v->tail;
    struct side *side = NULL;
    t4_status status = read_log(s->v, &from->place, to, take_entry, b, error);

    if (status == T4_OK && s->to != NULL)
        status = compare_heads(s, b);
    if (status == T4_OK)
        status = side_open(s->v, from, s->n_from, &side, error);
    if (status == T4_OK) {
        side->source[side->n++] = spill_source(b->spill);
        status = s->to != NULL ? compare_stretch(s, side, b->compacted, error)
                               : count_final(s, side, b, error);
    }
    if (side != NULL)
        side_close(side);
    return status;
}

/* --- which stretches ------------------------------------------------------------------------------ */

static const char *
name_of(const struct kept *k, const char *none)
{
    return k != NULL ? k->key : none;
}

/* Numbers in manifest.checkpoint; UINT32_MAX: nothing, or the end. */
static t4_status
still_kept(struct verify *v, uint32_t i, bool *kept, struct error *error)
{
    *kept = true;
    return i != UINT32_MAX ? still_listed(v, i, kept, error) : T4_OK;
}

/* A failure on the way: removed in order meanwhile, told before, or damage. */
static t4_status
judge(const struct stretch *s, uint32_t from, uint32_t to, t4_status status,
      struct error *error)
{
    struct error look = {0};
    bool a = true, b = true;
    t4_status asked;

    if (status == T4_OK || status == T4_E_CANCELLED)
        return T4_OK;
    if (status != T4_E_CORRUPT && status != T4_E_NOTFOUND)
        return status;
    asked = still_kept(s->v, from, &a, &look);
    if (asked == T4_OK)
        asked = still_kept(s->v, to, &b, &look);
    if (asked != T4_OK) {
        *error = look;
        return asked;
    }
    if (!a || !b)
        return T4_OK;
    if (status == T4_E_NOTFOUND || !s->v->log_is_good)
        verify_note(s->v, "from %s to %s cannot be replayed: %s",
                    name_of(s->from, "the first entry"), name_of(s->to, "the end"),
                    error->message);
    else
        verify_bad(s->v, name_of(s->to, name_of(s->from, "wal/")),
                   "cannot be compared with the log: %s", error->message);
    return T4_OK;
}

static t4_status
replay_stretch(struct verify *v, uint32_t from, uint32_t to, struct error *error)
{
    struct stretch s = {.v = v,
                        .from = from != UINT32_MAX ? &v->kept[from] : NULL,
                        .to = to != UINT32_MAX ? &v->kept[to] : NULL};
    struct between b = {.revision = 1, .compacted = -1};
    t4_status status;

    if ((s.from != NULL && s.from->verdict != FINE) ||
        (s.to != NULL && s.to->verdict != FINE)) {
        verify_note(v, "from %s to %s is not replayed: see above",
                    name_of(s.from, "the first entry"), name_of(s.to, "the end"));
        return T4_OK;
    }
    if (s.from != NULL)
        b = (struct between){.index = s.from->object.index,
                             .time_ms = s.from->object.time_ms,
                             .revision = s.from->object.revision,
                             .compacted = s.from->object.compacted};
    leave_shared_out(&s);
    b.spill = spill_new(v);
    status = replay(&s, &b, error);
    spill_free(b.spill);
    v->result->replayed += status == T4_OK && s.to != NULL;
    return judge(&s, from, to, status, error);
}

static bool
is_wanted(const struct verify *v, uint32_t from)
{
    return !v->options->one_checkpoint ||
           (from != UINT32_MAX &&
            v->manifest.checkpoint[from].revision == v->options->revision);
}

t4_status
check_deep(struct verify *v, struct error *error)
{
    uint32_t n = v->manifest.n_checkpoints;
    const struct chain_floor *begin = &v->manifest.archive;
    /* The log is kept from its beginning, and it began with nothing. */
    bool whole = begin->next_slot == 0 && begin->last_index == 0;
    t4_status status = spill_check(v, error);

    if (status == T4_OK && whole && is_wanted(v, UINT32_MAX))
        status = replay_stretch(v, UINT32_MAX, n > 0 ? n - 1 : UINT32_MAX, error);
    for (uint32_t i = n; i-- > 0 && status == T4_OK;) {
        verify_progress(v, "replaying", n - i, n);
        if (is_wanted(v, i))
            status = replay_stretch(v, i, i > 0 ? i - 1 : UINT32_MAX, error);
    }
    return status;
}

/*
 * checkpoint_bed.c - a leader, its checkpointer, a model of both.  See checkpoint_bed.h.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "checkpoint_bed.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>
#include <stdio.h>

#include "base/memory.h"
#include "lease/lease.h"

/* --- the model ---------------------------------------------------------------------------- */

void
log_model_add(struct log_model *m, struct entry *e, const struct mutation *mutation,
              size_t n)
{
    int64_t compacted = m->n > 0 ? m->compacted[m->n - 1] : -1;
    struct buffer *bytes;
    uint32_t sub = 0;

    if (m->n == m->capacity) {
        m->capacity = m->capacity * 2 + 64;
        m->entry = mem_realloc(m->entry, m->capacity * sizeof *m->entry);
        m->revision = mem_realloc(m->revision, m->capacity * sizeof *m->revision);
        m->compacted = mem_realloc(m->compacted, m->capacity * sizeof *m->compacted);
        m->time_ms = mem_realloc(m->time_ms, m->capacity * sizeof *m->time_ms);
        m->records = mem_realloc(m->records, m->capacity * sizeof *m->records);
    }
    e->index = m->n + 1;
    e->term = 1;
    if (e->time_ms == 0)
        e->time_ms = 1700000000000u + e->index * 1000;
    e->mutations = (uint32_t)n;
    bytes = &m->entry[m->n];
    *bytes = (struct buffer){0};
    entry_encode_head(bytes, e);
    for (size_t i = 0; i < n; i++) {
        const struct mutation *u = &mutation[i];
        struct buffer ikey = {0};
        struct record r = {.stamp = u->space == 'k' ? (uint64_t)e->revision : e->index,
                           .tombstone = u->flags != 0};
        struct version v = {.stamp = r.stamp,
                            .sub = u->space == 'k' ? sub++ : 0,
                            .flags = u->flags,
                            .create_revision = u->create_revision,
                            .version = u->version,
                            .lease = u->lease,
                            .value = u->value};

        entry_add(bytes, u);
        buffer_append_u8(&ikey, u->space);
        buffer_append_slice(&ikey, u->key);
        r.ikey = ikey;
        record_key_encode(&r.key, buffer_slice(&ikey), r.stamp);
        record_value_encode(&r.value, buffer_slice(&r.key), &v);
        records_copy(&m->all, &r);
        buffer_free(&r.key);
        buffer_free(&r.value);
        buffer_free(&ikey);
    }
    m->revision[m->n] = e->revision;
    m->time_ms[m->n] = e->time_ms;
    m->compacted[m->n] = e->kind == ENTRY_NORMAL ? compacted : e->compact_revision;
    m->records[m->n] = m->all.n;
    m->n++;
}

static int64_t
newest_revision(const struct log_model *m)
{
    return m->n > 0 ? m->revision[m->n - 1] : 1;
}

void
log_model_put(struct log_model *m, const char *key, const char *value)
{
    struct entry e = {.kind = ENTRY_NORMAL, .revision = newest_revision(m) + 1};
    struct mutation u = {.space = SPACE_KEYS,
                         .key = slice_str(key),
                         .value = slice_str(value),
                         .create_revision = e.revision,
                         .version = 1};

    log_model_add(m, &e, &u, 1);
}

static void
compaction(struct log_model *m, struct chance *c)
{
    struct entry e = {.kind = ENTRY_COMPACTION, .revision = newest_revision(m)};
    int64_t before = m->n > 0 ? m->compacted[m->n - 1] : -1;
    struct buffer value = {0};
    struct mutation u = {.space = SPACE_SYSTEM, .key = slice_str("compacted")};

    if (before < 0)
        before = 0;
    e.compact_revision =
        before + (int64_t)chance_below(c, (uint64_t)(e.revision - before) + 1);
    if (e.compact_revision <= before)
        e.compact_revision = before + 1;
    buffer_append_varint(&value, (uint64_t)e.compact_revision);
    u.value = buffer_slice(&value);
    log_model_add(m, &e, &u, 1);
    buffer_free(&value);
}

#define MUTATIONS 6

void
log_model_entry(struct log_model *m, struct chance *c)
{
    struct entry e = {.kind = ENTRY_NORMAL, .revision = newest_revision(m)};
    struct mutation u[MUTATIONS];
    char key[MUTATIONS][32];
    struct buffer value[MUTATIONS] = {{0}};
    size_t n = 1 + (size_t)chance_below(c, 3);
    bool user = false;

    if (chance_below(c, 20) == 0 && newest_revision(m) > 2) {
        compaction(m, c);
        return;
    }
    for (size_t i = 0; i < n; i++) {
        uint64_t kind = chance_below(c, 10), which = chance_below(c, m->keys);

        u[i] =
            (struct mutation){.space = kind == 0   ? SPACE_SYSTEM
                                       : kind == 1 ? SPACE_ATTACHMENTS
                                                   : SPACE_KEYS,
                              .flags = chance_below(c, 4) == 0 ? MUTATION_TOMBSTONE : 0};
        /* Keys of one entry differ. */
        snprintf(key[i], sizeof key[i], "%05u/%zu", (unsigned)which, i);
        u[i].key = slice_str(key[i]);
        user |= u[i].space == SPACE_KEYS;
        for (uint64_t k = chance_below(c, 2 * m->value_bytes) + 1; k > 0; k--)
            buffer_append_u8(&value[i], m->random_values ? (uint8_t)chance_next(c) : 'v');
        if (u[i].flags == 0)
            u[i].value = buffer_slice(&value[i]);
    }
    e.revision += user;
    for (size_t i = 0; i < n; i++)
        if (u[i].space == SPACE_KEYS && u[i].flags == 0) {
            u[i].create_revision = e.revision;
            u[i].version = 1;
        }
    log_model_add(m, &e, u, n);
    for (size_t i = 0; i < n; i++)
        buffer_free(&value[i]);
}

void
log_model_free(struct log_model *m)
{
    for (uint64_t i = 0; i < m->n; i++)
        buffer_free(&m->entry[i]);
    mem_free(m->entry);
    mem_free(m->revision);
    mem_free(m->compacted);
    mem_free(m->time_ms);
    mem_free(m->records);
    records_free(&m->all);
    *m = (struct log_model){0};
}

/* Of one key's versions, newest first, those that somebody may read. */
static void
keep_versions(const struct record *r, size_t n, int64_t compacted, struct records *out)
{
    bool user = r->ikey.data[0] == SPACE_KEYS;
    size_t kept = 0;

    while (kept < n) {
        kept++;
        if (!user || (int64_t)r[kept - 1].stamp <= compacted)
            break;
    }
    if (kept > 0 && r[kept - 1].tombstone &&
        (!user || (int64_t)r[kept - 1].stamp < compacted))
        kept--;
    for (size_t i = 0; i < kept; i++)
        records_copy(out, &r[i]);
}

void
log_model_state(const struct log_model *m, uint64_t index, struct records *out)
{
    struct records sorted = {0};

    for (size_t i = 0; index > 0 && i < m->records[index - 1]; i++)
        records_copy(&sorted, &m->all.r[i]);
    records_sort(&sorted);
    for (size_t i = 0, n; i < sorted.n; i += n) {
        for (n = 1; i + n < sorted.n && slice_equal(buffer_slice(&sorted.r[i + n].ikey),
                                                    buffer_slice(&sorted.r[i].ikey));
             n++)
            ;
        keep_versions(&sorted.r[i], n, m->compacted[index - 1], out);
    }
    records_free(&sorted);
}

/* --- the leader ------------------------------------------------------------------------------ */

const char *
lead_folder(void)
{
    static char folder[SCRATCH_ROOM];

    if (folder[0] == '\0')
        scratch_make(folder, sizeof folder, "t4-checkpoint-test");
    return folder;
}

struct object_store *
lead_store(const char *name, const char *seed, const char *control)
{
    struct plugin_setting setting[] = {
        {"fault.control", control},     {"fault.seed", seed},
        {"fault.error_before", "0.03"}, {"fault.error_after", "0.05"},
        {"fault.lost", "0.03"},         {"fault.late", "0.03"},
        {"fault.late_ms", "2"},         {"fault.throttle", "0.02"},
    };
    struct object_options o = {.env = env_posix(),
                               .plugin_dir = build_folder("plugins"),
                               .settings = setting,
                               .n_settings =
                                   seed == NULL ? 1 : sizeof setting / sizeof setting[0]};
    struct object_store *s;
    struct error e;
    char url[SCRATCH_ROOM + 96];

    snprintf(url, sizeof url, "fault+file://%s/%s", lead_folder(), name);
    if (object_open(url, &o, &s, &e) != T4_OK)
        fail_msg("%s (%s)", e.message, e.hint);
    return s;
}

void
lead_init(struct lead *l, const char *name, const char *seed, struct log_model *model,
          uint64_t incarnation)
{
    *l = (struct lead){.model = model};
    snprintf(l->control, sizeof l->control, "%s/%s-%llu.control", lead_folder(), name,
             (unsigned long long)incarnation);
    l->store = lead_store(name, seed, l->control);
    l->options = (struct objectlog_options){.env = env_posix(),
                                            .store = l->store,
                                            .incarnation = incarnation,
                                            .address = "nowhere",
                                            .first_pause_ns = 20000,
                                            .timeout_ns = 20 * SECOND};
    l->check = (struct checkpointer_options){.env = env_posix(),
                                             .store = l->store,
                                             .incarnation = incarnation,
                                             .address = "nowhere",
                                             .timeout_ns = 20 * SECOND,
                                             .first_pause_ns = 20000,
                                             .generation = 1,
                                             .interval_ns = 1,
                                             .interval_bytes = 1,
                                             .least_interval_ns = 1,
                                             .fold_runs = 4};
}

static t4_status
pass(void *arg, uint64_t index, struct t4_slice entry, const struct segment *segment,
     struct error *error)
{
    (void)arg;
    (void)index;
    (void)entry;
    (void)segment;
    (void)error;
    return T4_OK;
}

static struct checkpoint_mark
mark_of(const struct lead *l, uint64_t bytes)
{
    struct checkpoint_mark mark = {.index = l->uploaded, .bytes = bytes};

    objectlog_place(l->chain, &mark.place);
    return mark;
}

t4_status
lead_take(struct lead *l, struct error *error)
{
    enum objectlog_found found;
    struct objectlog_tail tail;
    struct checkpoint_mark mark;
    t4_status status;

    checkpointer_free(l->checkpointer);
    l->checkpointer = NULL;
    objectlog_close(l->chain);
    l->chain = NULL;
    l->term = 0;
    status = objectlog_open(&l->options, &l->chain, &found, error);
    if (status == T4_OK && found != OBJECTLOG_COMPLETE)
        status = objectlog_bootstrap(l->chain, 77, 88, RULE_OBJECT, error);
    if (status == T4_OK)
        status = objectlog_take_over(l->chain, &l->term, error);
    if (status == T4_OK) {
        objectlog_begin_at(l->chain, &objectlog_manifest(l->chain)->archive);
        status = objectlog_read(l->chain, pass, NULL, &tail, error);
    }
    if (status != T4_OK)
        return status;
    l->uploaded = tail.last_index;
    l->check.term = l->term;
    l->checkpointer = checkpointer_new(&l->check);
    mark = mark_of(l, 0);
    l->checkpointer->mark = mark;
    return T4_OK;
}

t4_status
lead_upload(struct lead *l, uint64_t last, struct error *error)
{
    struct checkpoint_mark mark;
    struct buffer raw = {0};
    t4_status status;

    for (uint64_t i = l->uploaded; i < last; i++)
        segment_entry_append(&raw, buffer_slice(&l->model->entry[i]));
    status = objectlog_append(l->chain, l->uploaded + 1, last, last, buffer_slice(&raw),
                              error);
    if (status == T4_OK) {
        l->uploaded = last;
        mark = mark_of(l, raw.len);
        checkpointer_mark(l->checkpointer, &mark);
    }
    buffer_free(&raw);
    return status;
}

t4_status
lead_work(struct lead *l, unsigned work, struct error *error)
{
    struct checkpointer *c = l->checkpointer;
    t4_status status = T4_OK;

    if (c->log == NULL)
        status = checkpointer_do(c, WORK_OPEN, error);
    if (status == T4_OK && (work & WORK_ARCHIVE))
        status = archive_step(c, error);
    if (status == T4_OK && (work & WORK_CHECKPOINT) &&
        c->mark.index > objectlog_manifest(c->log)->newest.index)
        status = checkpointer_do(c, WORK_CHECKPOINT, error);
    if (status == T4_OK && (work & WORK_FOLD) &&
        objectlog_manifest(c->log)->newest.n_runs > 1 && !c->has_fold)
        status = checkpointer_do(c, WORK_FOLD, error);
    if (status == T4_OK && (work & WORK_COLLECT))
        status = checkpointer_do(c, WORK_COLLECT, error);
    return status;
}

void
lead_do(struct lead *l, unsigned work)
{
    struct error error = {0};

    if (lead_work(l, work, &error) != T4_OK)
        fail_msg("%s (%s)", error.message, error.hint);
}

void
lead_control(const struct lead *l, const char *text)
{
    char other[sizeof l->control + 8];
    FILE *f;

    snprintf(other, sizeof other, "%s.new", l->control);
    f = fopen(other, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
    assert_int_equal(rename(other, l->control), 0);
}

void
lead_free(struct lead *l)
{
    checkpointer_free(l->checkpointer);
    objectlog_close(l->chain);
    object_close(l->store);
    *l = (struct lead){0};
}

/* --- what lies in the store --------------------------------------------------------------------- */

struct listed {
    size_t n;
    struct buffer *out, last;
};

static t4_status
note_key(void *arg, struct t4_slice key, const struct t4_object_info *info)
{
    struct listed *l = arg;

    (void)info;
    l->n++;
    buffer_clear(&l->last);
    buffer_append_slice(&l->last, key);
    if (l->out != NULL) {
        buffer_append_slice(l->out, key);
        buffer_append_u8(l->out, '\n');
    }
    return T4_OK;
}

static size_t
list(struct object_store *s, const char *prefix, struct buffer *out)
{
    struct listed l = {.out = out};
    struct error error = {0};
    size_t before;

    do {
        struct buffer after = {0};

        buffer_append_slice(&after, buffer_slice(&l.last));
        before = l.n;
        while (object_list(s, slice_str(prefix), buffer_slice(&after), 1000, 20 * SECOND,
                           note_key, &l, &error) != T4_OK)
            ;
        buffer_free(&after);
    } while (l.n - before >= 1000);
    buffer_free(&l.last);
    return l.n;
}

size_t
count_objects(struct object_store *s, const char *prefix)
{
    return list(s, prefix, NULL);
}

void
list_objects(struct object_store *s, const char *prefix, struct buffer *out)
{
    list(s, prefix, out);
}

/* --- is everything there? -------------------------------------------------------------------------- */

static void
add_records(struct t4_slice object, struct records *out)
{
    struct t4_slice key, value, ikey;
    struct buffer scratch = {0};
    struct sst_cursor cursor;
    struct error error = {0};
    struct sst *sst;
    t4_status status;

    if (sst_open(object, &sst, &error) != T4_OK)
        fail_msg("%s", error.message);
    sst_cursor_init(&cursor, sst);
    while ((status = sst_cursor_next(&cursor, &key, &value, &error)) == T4_OK) {
        struct record r = {0};

        assert_true(record_verify(key, value));
        assert_true(record_key_decode(key, &scratch, &ikey, &r.stamp));
        buffer_append_slice(&r.key, key);
        buffer_append_slice(&r.value, value);
        buffer_append_slice(&r.ikey, ikey);
        r.tombstone = value.data[0] & VERSION_TOMBSTONE;
        records_copy(out, &r);
        buffer_free(&r.key);
        buffer_free(&r.value);
        buffer_free(&r.ikey);
    }
    assert_int_equal(status, T4_E_NOTFOUND);
    sst_cursor_free(&cursor);
    sst_close(sst);
    buffer_free(&scratch);
}

static void
add_file(struct objectlog *log, const struct run_sst *file, struct records *out)
{
    struct buffer object = {0};
    struct error error = {0};
    char name[SST_KEY_BYTES];

    sst_key(name, file->info.sha256, file->term, file->index);
    if (objectlog_fetch(log, name, SST_OBJECT_MAX, &object, &error) != T4_OK ||
        sst_check_object(buffer_slice(&object), &file->info, &error) != T4_OK)
        fail_msg("%s: %s", name, error.message);
    assert_int_not_equal(file->info.first.data[0], SPACE_SYSTEM);
    add_records(buffer_slice(&object), out);
    buffer_free(&object);
}

/* All runs together, reduced as a reader does it, are the model's state. */
static void
assert_checkpoint(struct objectlog *log, const struct checkpoint_object *o,
                  const struct log_model *m)
{
    struct records all = {0}, want = {0};
    struct array_source array;
    struct sst_reduce reduce = {.compacted = o->compacted > 0 ? o->compacted : 0,
                                .is_base = true};
    struct error error = {0};

    assert_int_equal(o->revision, m->revision[o->index - 1]);
    assert_int_equal(o->compacted, m->compacted[o->index - 1]);
    assert_int_equal(o->time_ms, m->time_ms[o->index - 1]);
    for (uint32_t i = 0; i < o->n_runs; i++) {
        struct run_index run;

        if (run_fetch(log, &o->run[i], &run, &error) != T4_OK)
            fail_msg("%s", error.message);
        for (size_t k = 0; k < run.n; k++)
            add_file(log, &run.sst[k], &all);
        if (run.system.len > 0)
            add_records(buffer_slice(&run.system), &all);
        run_index_free(&run);
    }
    records_sort(&all);
    log_model_state(m, o->index, &want);
    reduce.source = array_source(&array, &all);
    assert_source_gives(sst_reduce_source(&reduce), &want);
    sst_reduce_free(&reduce);
    records_free(&all);
    records_free(&want);
}

struct reading {
    const struct log_model *m;
    uint64_t next;
};

static t4_status
compare_entry(void *arg, uint64_t index, struct t4_slice entry,
              const struct segment *segment, struct error *error)
{
    struct reading *r = arg;

    (void)segment;
    (void)error;
    assert_int_equal(index, r->next);
    assert_true(slice_equal(entry, buffer_slice(&r->m->entry[index - 1])));
    r->next++;
    return T4_OK;
}

static t4_status
read_from(struct lead *l, struct objectlog *log, const struct chain_floor *place)
{
    struct reading r = {l->model, place->last_index + 1};
    struct objectlog_tail tail;
    struct error error = {0};
    t4_status status;

    objectlog_begin_at(log, place);
    status = objectlog_read(log, compare_entry, &r, &tail, &error);
    if (status == T4_OK)
        assert_int_equal(tail.last_index, l->uploaded);
    else if (status != T4_E_INVALID)
        fail_msg("%s (%s)", error.message, error.hint);
    return status;
}

void
assert_store_is_whole(struct lead *l)
{
    struct chain_floor beginning = {0};
    enum objectlog_found found;
    struct objectlog *log;
    struct error error = {0};
    struct manifest_object m;

    if (objectlog_open(&l->options, &log, &found, &error) != T4_OK)
        fail_msg("%s", error.message);
    m = *objectlog_manifest(log);
    for (uint32_t i = 0; i < m.n_checkpoints; i++) {
        struct checkpoint_object o;

        if (objectlog_fetch_checkpoint(log, &m.checkpoint[i], &o, &error) != T4_OK)
            fail_msg("%s", error.message);
        assert_checkpoint(log, &o, l->model);
        assert_int_equal(read_from(l, log, &o.place), T4_OK);
    }
    assert_int_equal(read_from(l, log, &m.archive), T4_OK);
    assert_int_equal(read_from(l, log, &m.floor), T4_OK);
    assert_int_equal(read_from(l, log, &beginning),
                     m.archive.next_slot > 0 ? T4_E_INVALID : T4_OK);
    objectlog_close(log);
}

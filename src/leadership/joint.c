/*
 * joint.c - the local log and the chain become one.
 *
 * The chain is read from the place the directory remembers, or from its beginning.  Entries
 * that both have are compared; the first that differs, or a tail of ours behind which another
 * directory has put its fence, makes our tail *divergent*: history went on without it.  What
 * was never acknowledged is saved aside and cut; what was acknowledged is cut only when told
 * to.  What the chain has and we have not is appended to the local log, so that from here on
 * the local log is the whole story for watches, uploads and recovery alike.
 *
 * Reset (I10): the lock was LOCAL, and we cannot prove to hold everything its holder
 * acknowledged.  It may have given out up to 2^36 revisions that we do not know of, so ours
 * go on above those.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <inttypes.h>
#include <stdio.h>

#include "base/log.h"
#include "base/memory.h"
#include "fmt/entry.h"
#include "leadership/leadership_int.h"

#define APPEND_BYTES (4u << 20)
#define REVISION_GAP (INT64_C(1) << 36)
#define FAR_BEHIND                                                                       \
    200000u /* entries: from there on a checkpoint is faster than the log */

struct join {
    struct leadership *l;
    uint64_t term, generation;
    struct wal_reader *local; /* at the next entry to compare; NULL: not opened */
    bool wal_started;
    struct wal_group group;
    uint64_t appended;
    bool rebased; /* begun from the newest checkpoint */
};

/* --- the local log -------------------------------------------------------------------------- */

static t4_status
start_log(struct join *j, struct error *error)
{
    t4_status status;

    if (j->wal_started)
        return T4_OK;
    status = wal_start(j->l->wal, j->generation, j->term, error);
    j->wal_started = status == T4_OK;
    return status;
}

static t4_status
flush_group(struct join *j, struct error *error)
{
    t4_status status = T4_OK;

    if (j->group.last_index != 0)
        status = wal_reserve(j->l->wal, j->group.frames.len, true);
    if (status == T4_OK && j->group.last_index != 0)
        status = wal_write(j->l->wal, &j->group, error);
    if (status == T4_OK && j->group.last_index != 0)
        status = wal_sync(j->l->wal, NULL, error);
    if (status == T4_OK && j->group.last_index != 0)
        j->l->local_end = j->group.last_index;
    if (status == T4_E_NOSPACE)
        error_set(error, status, "no room in %s for the log as the object store holds it",
                  j->l->data_dir);
    wal_group_clear(&j->group);
    return status;
}

static t4_status
append(struct join *j, uint64_t index, int64_t revision, struct t4_slice entry,
       struct error *error)
{
    t4_status status = start_log(j, error);

    if (status != T4_OK)
        return status;
    wal_group_add(&j->group, index, revision, entry);
    j->appended++;
    return j->group.frames.len >= APPEND_BYTES ? flush_group(j, error) : T4_OK;
}

/* --- a divergent tail ------------------------------------------------------------------------- */

struct tail_facts {
    struct buffer text;
    struct env_file *file;
    struct env *env;
    uint64_t offset;
    int64_t first_revision, last_revision;
    uint64_t first_ms, last_ms;
};

static t4_status
note_tail_entry(void *arg, uint64_t index, struct t4_slice bytes, struct error *error)
{
    struct tail_facts *f = arg;
    struct byte_reader r = reader_of(bytes);
    struct entry e;
    t4_status status;

    (void)index;
    if (!entry_decode_head(&r, &e))
        return error_set(error, T4_E_CORRUPT, "entry %" PRIu64 " cannot be decoded",
                         index);
    if (f->first_revision == 0) {
        f->first_revision = e.revision;
        f->first_ms = e.time_ms;
    }
    f->last_revision = e.revision;
    f->last_ms = e.time_ms;
    buffer_clear(&f->text);
    buffer_append_u32(&f->text, (uint32_t)bytes.len);
    buffer_append_slice(&f->text, bytes);
    if (f->file == NULL)
        return T4_OK;
    status = f->env->pwrite(f->env->state, f->file, f->text.data, f->text.len, f->offset,
                            error);
    f->offset += f->text.len;
    return status;
}

/*
 * Keeps the entries behind `keep` in a file: each with its length before it, u32.
 * `t4 wal export --file` reads it (server/wal_command.c).
 */
static t4_status
save_aside(struct join *j, uint64_t keep, struct tail_facts *f, char *path, size_t size,
           struct error *error)
{
    struct leadership *l = j->l;
    struct env *env = l->options.env;
    t4_status status;

    *f = (struct tail_facts){.env = env};
    snprintf(path, size, "%s/divergent-%" PRIu64 "-%" PRIu64 ".log", l->data_dir,
             keep + 1, l->local_end);
    env->unlink(env->state, path, NULL);
    status = env->open(env->state, path, ENV_CREATE | ENV_EXCLUSIVE, &f->file, error);
    if (status == T4_OK)
        status = wal_replay(l->wal, keep, l->local_end, note_tail_entry, f, error);
    if (status == T4_OK)
        status = env->sync(env->state, f->file, error);
    if (f->file != NULL)
        env->close(env->state, f->file);
    if (status == T4_OK)
        status = env->sync_dir(env->state, l->data_dir, error);
    buffer_free(&f->text);
    return status;
}

static t4_status
refuse_tail(struct join *j, uint64_t keep, struct error *error)
{
    struct leadership *l = j->l;
    struct tail_facts f = {0};
    t4_status status = wal_replay(l->wal, keep, l->local_end, note_tail_entry, &f, error);

    buffer_free(&f.text);
    if (status != T4_OK)
        return status;
    error_set(error, T4_E_INVALID,
              "the disk of %s holds %" PRIu64 " acknowledged writes (revisions %" PRId64
              " to %" PRId64 ", unix times %" PRIu64 " to %" PRIu64
              ") that the history in %s does not contain",
              l->data_dir, l->local_end - keep, f.first_revision, f.last_revision,
              f.first_ms / 1000, f.last_ms / 1000, object_url(l->options.store));
    return error_hint(
        error,
        "another server took over meanwhile.  Keep a copy of the directory if they "
        "matter; --discard-divergent-tail saves them to a file there and goes on "
        "with the store's history.  To see them: t4 wal export --data-dir=%s "
        "--from=%" PRIu64,
        l->data_dir, keep + 1);
}

/* The local log goes on at keep + 1 with what the chain says. */
static t4_status
diverge(struct join *j, uint64_t keep, struct error *error)
{
    struct leadership *l = j->l;
    bool acknowledged = l->memory.rule != RULE_OBJECT;
    struct tail_facts f;
    char path[PATH_MAX_BYTES], count[24];
    t4_status status;

    wal_reader_close(j->local);
    j->local = NULL;
    if (acknowledged && !l->options.discard_divergent_tail)
        return refuse_tail(j, keep, error);
    status = save_aside(j, keep, &f, path, sizeof path, error);
    if (status != T4_OK)
        return status;
    snprintf(count, sizeof count, "%" PRIu64, l->local_end - keep);
    LOG_WARN(acknowledged ? "a divergent tail of acknowledged writes was cut off, as told"
                          : "a divergent tail that was never acknowledged was cut off",
             "entries", count, "saved", path, NULL);
    status = wal_cut(l->wal, keep, error);
    l->local_end = keep;
    return status;
}

/* --- reading the chain ---------------------------------------------------------------------------- */

/* Is this the entry that the local log has at this index? */
static t4_status
compare(struct join *j, uint64_t index, struct t4_slice entry, bool *same,
        struct error *error)
{
    struct t4_slice own;
    uint64_t at;
    t4_status status = T4_OK;

    *same = true;
    if (j->local == NULL) {
        status = wal_reader_open_at(j->l->wal, index, &j->local, error);
        if (status == T4_E_NOTFOUND)
            return T4_OK; /* below what is kept here; later ones decide */
    }
    if (status == T4_OK)
        status = wal_reader_next(j->local, index, &at, &own, error);
    if (status != T4_OK)
        return status;
    *same = at == index && slice_equal(own, entry);
    return T4_OK;
}

static t4_status
on_entry(void *arg, uint64_t index, struct t4_slice entry, const struct segment *segment,
         struct error *error)
{
    struct join *j = arg;
    struct leadership *l = j->l;
    struct byte_reader r = reader_of(entry);
    struct entry e;
    bool same;
    t4_status status;

    if (!entry_decode_head(&r, &e)) /* objectlog has looked at it */
        return error_set(error, T4_E_CORRUPT, "entry %" PRIu64 " of the chain", index);
    if (index <= l->local_end) {
        status = compare(j, index, entry, &same, error);
        if (status == T4_OK && !same)
            status = diverge(j, index - 1, error);
        if (status != T4_OK)
            return status;
    }
    l->revision = e.revision;
    l->time_ms = e.time_ms;
    if (e.kind != ENTRY_NORMAL)
        l->compacted = e.compact_revision;
    if (e.kind == ENTRY_RESET)
        j->generation = e.reset.generation;
    (void)segment;
    return index > l->local_end ? append(j, index, e.revision, entry, error) : T4_OK;
}

struct newest {
    int64_t revision;
    uint64_t time_ms;
};

static t4_status
note_newest(void *arg, uint64_t index, struct t4_slice bytes, struct error *error)
{
    struct newest *newest = arg;
    struct byte_reader r = reader_of(bytes);
    struct entry e;

    if (!entry_decode_head(&r, &e))
        return error_set(error, T4_E_CORRUPT, "entry %" PRIu64 " cannot be decoded",
                         index);
    *newest = (struct newest){e.revision, e.time_ms};
    return T4_OK;
}

/* The state after entry `index`, of the newest checkpoint or of the local log. */
static t4_status
newest_at(struct leadership *l, uint64_t index, struct newest *newest,
          struct error *error)
{
    const struct manifest_object *m = objectlog_manifest(l->chain);

    /* A log that was begun behind the checkpoint does not have the entry. */
    if (m->n_checkpoints > 0 && m->newest.index == index) {
        *newest = (struct newest){m->newest.revision, m->newest.time_ms};
        return T4_OK;
    }
    return wal_replay(l->wal, index - 1, index, note_newest, newest, error);
}

/* --- reset -------------------------------------------------------------------------------------------- */

static t4_status
append_reset(struct join *j, uint64_t tail_end, struct error *error)
{
    struct leadership *l = j->l;
    struct newest base = {l->revision, l->time_ms}; /* of the chain's end ... */
    uint64_t wall_ms = l->options.env->wall_ns(l->options.env->state) / 1000000;
    struct buffer entry = {0}, value = {0};
    struct mutation m = {.space = SPACE_SYSTEM, .key = slice_str(COMPACTED_KEY)};
    struct entry e = {
        .kind = ENTRY_RESET, .index = l->local_end + 1, .term = j->term, .mutations = 1};
    char from[24], to[24];
    int64_t revision;
    t4_status status = T4_OK;

    if (l->local_end > tail_end) /* ... or of our own tail above it */
        status = newest_at(l, l->local_end, &base, error);
    if (status != T4_OK)
        return status;
    revision = base.revision + REVISION_GAP + 2;
    e.revision = e.compact_revision = revision;
    e.time_ms = wall_ms > base.time_ms ? wall_ms : base.time_ms;
    e.reset.generation = ++j->generation;
    e.reset.base_index = l->local_end;
    e.reset.base_revision = base.revision;
    buffer_append_varint(&value, (uint64_t)revision);
    m.value = buffer_slice(&value);
    entry_encode_head(&entry, &e);
    entry_add(&entry, &m);
    status = append(j, e.index, revision, buffer_slice(&entry), error);
    if (status == T4_OK)
        status = flush_group(j, error);
    buffer_free(&entry);
    buffer_free(&value);
    if (status != T4_OK)
        return status;
    snprintf(from, sizeof from, "%" PRId64, base.revision);
    snprintf(to, sizeof to, "%" PRId64, revision);
    LOG_WARN(
        "took over from a server with asynchronous upload: writes it had acknowledged "
        "and "
        "not uploaded are lost; revisions go on above all that it may have given out",
        "newest_kept", from, "revision", to, NULL);
    return T4_OK;
}

/* --- the whole ------------------------------------------------------------------------------------------ */

/* What is in force now, and what this server wants; before anything is acknowledged. */
static t4_status
settle_rule(struct leadership *l, const struct joint *j, struct error *error)
{
    bool all_uploaded = l->local_end <= l->uploaded;
    t4_status status;

    if (l->options.rule == RULE_OBJECT) {
        /* Entries of the LOCAL time, not uploaded yet, stay acknowledged ones: see lead(). */
        if (all_uploaded || (j->rule == RULE_OBJECT && l->memory.rule == RULE_OBJECT))
            l->memory.rule = RULE_OBJECT;
        else
            l->memory.rule = RULE_LOCAL;
        return memory_write(l, error);
    }
    l->memory.rule = RULE_LOCAL;
    status = memory_write(l, error);
    if (status == T4_OK && j->rule != RULE_LOCAL)
        status = objectlog_change_rule(l->chain, RULE_LOCAL, error);
    return status;
}

/*
 * The built-in store: what is synced here is as safe as what is there, so nothing is uploaded
 * now.  A full disk does not keep from starting; should the log be lost as well after that, it
 * would not be noticed.
 */
static t4_status
settle_built_in(struct leadership *l, struct error *error)
{
    t4_status status;

    l->memory.rule = RULE_LOCAL;
    l->memory.incarnation = l->options.incarnation;
    status = memory_write(l, error);
    return status == T4_E_NOSPACE ? T4_OK : status;
}

static t4_status
settle(struct leadership *l, const struct joint *joint, struct error *error)
{
    if (l->options.built_in)
        return settle_built_in(l, error);
    wal_set_object_frontier(l->wal, l->uploaded);
    return settle_rule(l, joint, error);
}

/* Where the directory knows that its log and the chain are the same; zeros: nowhere. */
static struct chain_floor
known_place(const struct leadership *l)
{
    const struct chain_floor *first = &objectlog_manifest(l->chain)->archive;
    struct chain_floor place = {0};

    /* A store that began from a snapshot: its first slot goes on behind the checkpoint. */
    if (first->next_slot == 0 && first->last_index <= l->local_end)
        place = *first;
    if (l->memory.cluster_id == l->ids.cluster_id &&
        l->memory.lineage == l->ids.lineage &&
        l->memory.place.last_index <= l->local_end &&
        l->memory.place.last_index >= place.last_index)
        place = l->memory.place;
    /* Not in the memory before the log stands above it, too. */
    return l->begun.last_index > place.last_index ? l->begun : place;
}

static bool
is_listed(const struct manifest_object *m, uint64_t term, uint64_t index)
{
    for (uint32_t i = 0; i < m->n_checkpoints; i++)
        if (m->checkpoint[i].term == term && m->checkpoint[i].index == index)
            return true;
    return false;
}

/* What the local log is to the store's history. */
enum beginning {
    BEGIN_BY_LOG,        /* read the chain from *place on */
    BEGIN_BY_CHECKPOINT, /* the newest one, and the chain behind it */
    BEGIN_UNPROVEN       /* the same, but a tail of ours cannot be compared any more */
};

static enum beginning
choose_beginning(const struct leadership *l, struct chain_floor *place)
{
    const struct manifest_object *m = objectlog_manifest(l->chain);
    bool behind, clean, readable;

    *place = known_place(l);
    if (m->n_checkpoints == 0)
        return BEGIN_BY_LOG;
    clean = place->last_index == l->local_end; /* nothing of ours above what is known */
    behind = l->local_end < m->newest.index;
    readable = place->next_slot >= m->archive.next_slot;
    if (clean && l->base_index != 0 && !is_listed(m, l->base_term, l->base_index))
        return BEGIN_BY_CHECKPOINT;
    if (clean && behind &&
        (l->local_end == 0 || !readable || m->newest.index - l->local_end > FAR_BEHIND))
        return BEGIN_BY_CHECKPOINT;
    return readable ? BEGIN_BY_LOG : BEGIN_UNPROVEN;
}

static t4_status
look_at_entry(void *arg, uint64_t index, struct t4_slice entry,
              const struct segment *segment, struct error *error)
{
    struct join *j = arg;
    bool same = true;
    t4_status status = T4_OK;

    (void)segment;
    if (index <= j->l->local_end)
        status = compare(j, index, entry, &same, error);
    return status == T4_OK && !same ? refuse_tail(j, index - 1, error) : status;
}

/* A start that is going to be refused must not depose whoever leads. */
t4_status
check_tail(struct leadership *l, struct error *error)
{
    struct join j = {.l = l};
    struct chain_floor place;
    struct objectlog_tail tail;
    t4_status status;

    if (l->memory.rule == RULE_OBJECT || l->options.discard_divergent_tail ||
        l->local_end == 0)
        return T4_OK;
    switch (choose_beginning(l, &place)) {
    case BEGIN_BY_CHECKPOINT: return T4_OK;
    case BEGIN_UNPROVEN: return refuse_tail(&j, place.last_index, error);
    default: break;
    }
    objectlog_begin_at(l->chain, &place);
    status = objectlog_read(l->chain, look_at_entry, &j, &tail, error);
    wal_reader_close(j.local);
    if (status == T4_OK && l->local_end > tail.last_index && tail.foreign_fence)
        status = refuse_tail(&j, tail.last_index, error);
    return status;
}

/*
 * Begins from the newest checkpoint, or, if that is damaged, from the next older one above which
 * the chain is there.  *out is the one it was.
 */
static t4_status
begin_from_checkpoint(struct join *j, struct checkpoint_object *out, struct error *error)
{
    struct leadership *l = j->l;
    const struct manifest_object *m = objectlog_manifest(l->chain);
    struct error other;
    t4_status status;

    *out = m->newest;
    status = l->options.rebase(l->options.arg, out, error);
    for (uint32_t i = 1; i < m->n_checkpoints && status == T4_E_CORRUPT; i++) {
        char revision[24];

        if (objectlog_fetch_checkpoint(l->chain, &m->checkpoint[i], out, &other) !=
                T4_OK ||
            out->place.next_slot < m->archive.next_slot)
            continue;
        snprintf(revision, sizeof revision, "%" PRId64, out->revision);
        LOG_WARN("the newest checkpoint is damaged; beginning from an older one",
                 "reason", error->message, "revision", revision, NULL);
        status = l->options.rebase(l->options.arg, out, &other);
        if (status != T4_OK && status != T4_E_CORRUPT)
            *error = other;
    }
    return status;
}

/*
 * Begins from a checkpoint.  The engine comes first: should the power fail here, the next
 * start finds an engine ahead of its log, or a log without what lies below, never a hole that
 * nothing explains.
 */
static t4_status
rebase(struct join *j, struct error *error)
{
    struct leadership *l = j->l;
    struct checkpoint_object *c = mem_alloc(sizeof *c);
    t4_status status = begin_from_checkpoint(j, c, error);

    if (status == T4_OK) {
        wal_skip(l->wal, c->index);
        l->local_end = c->index;
        l->revision = c->revision;
        l->compacted = c->compacted;
        l->time_ms = c->time_ms;
        j->rebased = true;
        l->begun = c->place;
        l->base_term = c->term;
        l->base_index = c->index;
        objectlog_begin_at(l->chain, &c->place);
    }
    mem_free(c);
    return status;
}

static t4_status
begin_reading(struct join *j, struct error *error)
{
    struct leadership *l = j->l;
    struct chain_floor place;
    t4_status status = T4_OK;

    switch (choose_beginning(l, &place)) {
    case BEGIN_BY_LOG: objectlog_begin_at(l->chain, &place); return T4_OK;
    case BEGIN_UNPROVEN: status = diverge(j, place.last_index, error); break;
    default: break;
    }
    return status == T4_OK ? rebase(j, error) : status;
}

/* The local log is whole from log_begins on; what lies below comes from the newest checkpoint. */
static t4_status
replace_engine(struct join *j, struct error *error)
{
    struct leadership *l = j->l;
    const struct manifest_object *m = objectlog_manifest(l->chain);
    t4_status status;

    if (l->log_begins == 0 || j->rebased)
        return T4_OK;
    if (m->n_checkpoints == 0 || l->log_begins > m->newest.index + 1 ||
        l->local_end < m->newest.index) {
        error_set(
            error, T4_E_CORRUPT,
            "the storage engine of %s is missing, and its log begins at entry %" PRIu64
            ": the store %s has no checkpoint that reaches so far",
            l->data_dir, l->log_begins, object_url(l->options.store));
        return error_hint(error, "put the engine's folder back; or give an empty "
                                 "--data-dir to go on with what the store holds");
    }
    status = l->options.rebase(l->options.arg, &m->newest, error);
    if (status == T4_OK)
        l->log_begins = 0;
    return status;
}

/* Reads the chain into the local log; *tail is where it ends. */
static t4_status
read_chain(struct join *j, struct objectlog_tail *tail, struct error *error)
{
    struct leadership *l = j->l;
    t4_status status;

    *tail = (struct objectlog_tail){0};
    if (l->found == OBJECTLOG_EMPTY || l->found == OBJECTLOG_UNFINISHED)
        return T4_OK; /* the built-in store, before its first segment */
    if (objectlog_manifest(l->chain)->generation > j->generation)
        j->generation = objectlog_manifest(l->chain)->generation;
    status = begin_reading(j, error);
    if (status == T4_OK)
        status = objectlog_read(l->chain, on_entry, j, tail, error);
    if (status == T4_OK)
        status = flush_group(j, error);
    if (status == T4_OK && l->local_end > tail->last_index && tail->foreign_fence)
        status = diverge(j, tail->last_index, error);
    if (status == T4_OK && tail->segments == 0 && tail->last_index > 0 && !j->rebased) {
        struct newest newest = {l->revision, l->time_ms};

        status = newest_at(l, tail->last_index, &newest, error);
        l->revision = newest.revision;
        l->time_ms = newest.time_ms;
    }
    if (status == T4_OK)
        status = replace_engine(j, error);
    if (status == T4_OK)
        objectlog_place(l->chain, &l->memory.place);
    return status;
}

t4_status
join_logs(struct leadership *l, const struct joint *joint, uint64_t term,
          struct leadership_acquired *out, struct error *error)
{
    struct join j = {.l = l, .term = term, .generation = l->ids.generation};
    struct objectlog_tail tail;
    bool whole;
    t4_status status;

    l->revision = 1; /* of an empty store */
    l->compacted = -1;
    status = read_chain(&j, &tail, error);
    whole = joint->rule != RULE_LOCAL || (joint->was_ours && l->log_is_whole) ||
            (joint->released && joint->released_index == tail.last_index);
    if (status == T4_OK && !whole)
        status = append_reset(&j, tail.last_index, error);
    if (status == T4_OK)
        status = start_log(&j, error);
    wal_reader_close(j.local);
    wal_group_free(&j.group);
    if (status != T4_OK)
        return status;
    upload_from(l, tail.last_index);
    /*
     * Our tail goes up before anything is acknowledged.  It may hold a reset entry, ours or one
     * that an earlier start did not get to upload: who takes over next must know of it.
     */
    if (!l->options.built_in)
        status = upload_all(l, l->local_end, error);
    if (status != T4_OK)
        return status;
    l->memory.led_term = term;
    l->memory.joining = false;
    status = settle(l, joint, error);
    if (status == T4_OK && j.appended > 0) {
        char count[24];

        snprintf(count, sizeof count, "%" PRIu64, j.appended);
        LOG_INFO("the log was fetched from the object store", "entries", count, NULL);
    }
    l->ids.generation = j.generation;
    *out = (struct leadership_acquired){.term = term,
                                        .generation = j.generation,
                                        .object_frontier = l->uploaded,
                                        .object_revision = l->revision,
                                        .place = l->memory.place,
                                        .all_leases_full = !whole};
    return status;
}

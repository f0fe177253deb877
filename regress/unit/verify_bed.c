/*
 * verify_bed.c - see verify_bed.h.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <inttypes.h>
#include <stdio.h>

#include "base/memory.h"
#include "codec/codec.h"
#include "verify_bed.h"

#define CLUSTER 7u
#define LINEAGE 9u
#define KEYS 150
#define VALUE_BYTES 9000
/* Segments after which a new leader comes, a checkpoint is made, an archive ends. */
#define NEW_LEADER(i) ((i) == 12 || (i) == 30)
static const size_t checkpoint_after[CHECKPOINTS] = {40, 26, 8}; /* newest first */
#define ARCHIVED_SLOTS 24u                                       /* below the floor */
#define RAW_FROM 14u /* accepted segments below this slot are gone as raw objects */

/* --- objects ------------------------------------------------------------------------------ */

void
stock_put(struct stock *w, const char *key, struct t4_slice body)
{
    struct t4_put p = {
        .size = sizeof p, .condition = T4_PUT_ANY, .key = slice_str(key), .body = body};
    struct error e;

    if (object_put(w->store, &p, 0, NULL, &e) != T4_OK)
        fail_msg("%s: %s", key, e.message);
}

void
stock_get(struct stock *w, const char *key, struct buffer *out)
{
    struct t4_object_info info = {.size = sizeof info};
    struct error e;

    buffer_clear(out);
    if (object_get(w->store, slice_str(key), 0, T4_TO_THE_END, SIZE_MAX, 0, out, &info,
                   &e) != T4_OK)
        fail_msg("%s: %s", key, e.message);
}

void
stock_remove(struct stock *w, const char *key)
{
    struct t4_slice name = slice_str(key);

    assert_int_equal(object_remove(w->store, &name, 1, 0, NULL), T4_OK);
}

static t4_status
take_key(void *arg, struct t4_slice key, const struct t4_object_info *info)
{
    struct buffer *out = arg;

    (void)info;
    buffer_append_slice(out, key);
    buffer_append_u8(out, '\0');
    return T4_OK;
}

void
stock_keys(struct stock *w, struct buffer *out)
{
    buffer_clear(out);
    assert_int_equal(object_list(w->store, slice_str(""), slice_str(""), 100000, 0,
                                 take_key, out, NULL),
                     T4_OK);
}

/* --- entries ------------------------------------------------------------------------------- */

struct state {
    int64_t create, version; /* of each key; version 0: absent */
};

static struct t4_slice
value_for(int64_t revision)
{
    static uint8_t value[VALUE_BYTES];
    struct chance c = {(uint64_t)revision * 77 + 1};

    for (size_t i = 0; i < sizeof value; i++) /* half as random as it could be */
        value[i] = i % 8 < 2 ? (uint8_t)chance_next(&c) : 'v';
    return slice_of(value, 100 + (uint64_t)revision * 1310 % (VALUE_BYTES - 100));
}

static void
note_mutation(struct log_entry *e, const struct mutation *m, uint32_t *sub)
{
    struct buffer ikey = {0}, key = {0}, value = {0};
    struct record r = {0};
    struct version v;

    entry_add(&e->bytes, m);
    mutation_version(&e->head, m, sub, &ikey, &v);
    record_key_encode(&key, buffer_slice(&ikey), v.stamp);
    record_value_encode(&value, buffer_slice(&key), &v);
    r = (struct record){key, value, ikey, v.stamp, v.flags & VERSION_TOMBSTONE};
    records_copy(&e->records, &r);
    buffer_free(&ikey);
    buffer_free(&key);
    buffer_free(&value);
}

/* A put or delete of a key, and in some entries a lease and an attachment. */
static void
make_mutations(struct stock *w, struct log_entry *e, unsigned k, struct state *s,
               bool leased)
{
    bool deletes = s->version > 0 && chance_below(&w->chance, 4) == 0;
    char name[32], lease[32];
    struct mutation m = {.space = SPACE_KEYS};
    uint32_t sub = 0;

    snprintf(name, sizeof name, "/key/%05u", k);
    snprintf(lease, sizeof lease, "lease%u", k % 10);
    m.key = slice_str(name);
    if (deletes) {
        *s = (struct state){0};
        m.flags = MUTATION_TOMBSTONE;
    } else {
        s->create = s->version == 0 ? e->head.revision : s->create;
        s->version++;
        m.create_revision = s->create;
        m.version = s->version;
        m.value = value_for(e->head.revision);
    }
    note_mutation(e, &m, &sub);
    if (!leased)
        return;
    m = (struct mutation){.space = SPACE_SYSTEM, .key = slice_str(lease)};
    m.value = slice_str("600");
    m.flags = k % 7 == 0 ? MUTATION_TOMBSTONE : 0;
    note_mutation(e, &m, &sub);
    m.space = SPACE_ATTACHMENTS;
    m.key = slice_str(name);
    note_mutation(e, &m, &sub);
}

static void
add_entry(struct stock *w, struct state *state, uint64_t term)
{
    int64_t revision = w->n_entries > 0 ? w->entry[w->n_entries - 1].head.revision : 1;
    unsigned k = (unsigned)chance_below(&w->chance, KEYS);
    bool compacts = w->n_entries % 40 == 30, leased = chance_below(&w->chance, 6) == 0;
    struct log_entry *e;

    if (w->n_entries % 64 == 0)
        w->entry = mem_realloc(w->entry, (w->n_entries + 64) * sizeof *w->entry);
    e = &w->entry[w->n_entries++];
    *e = (struct log_entry){.head = {.index = w->n_entries,
                                     .term = term,
                                     .revision = revision,
                                     .time_ms = 1000 * w->n_entries,
                                     .kind = ENTRY_NORMAL,
                                     .mutations = leased ? 3 : 1}};
    if (compacts) {
        e->head.kind = ENTRY_COMPACTION;
        e->head.compact_revision = e->head.revision - 5;
        e->head.mutations = 0;
    } else {
        e->head.revision++;
    }
    entry_encode_head(&e->bytes, &e->head);
    if (!compacts)
        make_mutations(w, e, k, &state[k], leased);
}

/* The entry's bytes again, with a head that lies. */
static void
bend_entry(struct stock *w, struct log_entry *e)
{
    struct byte_reader r = reader_of(buffer_slice(&e->bytes));
    struct entry head;
    struct buffer bytes = {0};

    assert_true(entry_decode_head(&r, &head));
    if (w->lie == LIE_ENTRY_INDEX)
        head.index++;
    if (w->lie == LIE_ENTRY_TERM)
        head.term += 7;
    if (w->lie == LIE_ENTRY_REVISION)
        head.revision -= 2;
    entry_encode_head(&bytes, &head);
    buffer_append(&bytes, r.next, (size_t)(r.end - r.next));
    if (w->lie == LIE_ENTRY_BYTES)
        buffer_append_u8(&bytes, 'x');
    buffer_free(&e->bytes);
    e->bytes = bytes;
}

/* --- segments ------------------------------------------------------------------------------- */

#define LYING_SEGMENT 33u /* above the floor, below the newest checkpoint */

static void
new_slot(struct stock *w, const struct segment *s, bool skipped)
{
    struct log_segment *slot = &w->slot[w->n_slots];
    struct chain_floor *at = &w->place[w->n_slots + 1];
    char key[SLOT_KEY_BYTES];

    segment_encode(&slot->object, s);
    slot->skipped = skipped;
    slot->slot = (struct archive_slot){.skipped = skipped,
                                       .slot = w->n_slots,
                                       .term = s->term,
                                       .first_index = s->first_index};
    sha256(buffer_slice(&slot->object), slot->slot.hash);
    *at = w->place[w->n_slots];
    at->next_slot = ++w->n_slots;
    at->term = s->term > at->term ? s->term : at->term;
    slot->last_entry = w->n_entries;
    if (!skipped) {
        slot->slot.first_revision = w->entry[s->first_index - 1].head.revision;
        memcpy(at->hash, slot->slot.hash, HASH_BYTES);
        at->last_index = s->last_index;
    }
    slot_key(key, slot->slot.slot);
    stock_put(w, key, buffer_slice(&slot->object));
}

static void
put_skipped(struct stock *w, uint64_t term, bool fence, const struct segment *like)
{
    struct segment s = {.cluster_id = CLUSTER,
                        .lineage = LINEAGE,
                        .generation = 1,
                        .term = term,
                        .writer = term,
                        .fence = true};

    if (!fence) {
        s = *like;
        s.term = term;
    }
    s.put_id[0] = (uint8_t)w->n_slots;
    new_slot(w, &s, true);
}

/* Some entries as the next segment; then, at a change of leaders, a fence and a late put. */
static void
add_segment(struct stock *w, size_t number, struct state *state, uint64_t *term)
{
    struct chain_floor at = w->place[w->n_slots];
    bool lies = number == LYING_SEGMENT;
    struct segment s = {.cluster_id = CLUSTER,
                        .lineage = LINEAGE,
                        .generation = 1,
                        .term = *term,
                        .writer = *term,
                        .rule = RULE_OBJECT,
                        .first_index = at.last_index + 1};
    struct buffer raw = {0}, packed = {0};

    for (size_t n = 3 + number % 4; n > 0; n--) {
        add_entry(w, state, *term);
        if (lies && n == 2)
            bend_entry(w, &w->entry[w->n_entries - 1]);
        segment_entry_append(&raw, buffer_slice(&w->entry[w->n_entries - 1].bytes));
    }
    s.last_index = w->n_entries;
    s.put_id[0] = (uint8_t)w->n_slots;
    memcpy(s.previous, at.hash, HASH_BYTES);
    if (lies && w->lie == LIE_SEGMENT_PREVIOUS)
        s.previous[5] ^= 1;
    if (lies && w->lie == LIE_SEGMENT_FIRST)
        s.first_index++;
    if (lies && w->lie == LIE_SEGMENT_COUNT)
        segment_entry_append(&raw, buffer_slice(&w->entry[w->n_entries - 1].bytes));
    if (lies && w->lie == LIE_SEGMENT_LAST)
        s.last_index++;
    if (lies && w->lie == LIE_SEGMENT_CLUSTER)
        s.cluster_id++;
    if (lies && w->lie == LIE_SEGMENT_LINEAGE)
        s.lineage++;
    s.raw_bytes = (uint32_t)raw.len;
    compress_append(&packed, buffer_slice(&raw));
    s.payload = buffer_slice(&packed);
    new_slot(w, &s, false);
    if (NEW_LEADER(number)) {
        put_skipped(w, ++*term, true, NULL);
        put_skipped(w, *term - 1, false, &s);
    }
    buffer_free(&raw);
    buffer_free(&packed);
}

static void
make_log(struct stock *w)
{
    struct state state[KEYS] = {{0, 0}};
    uint64_t term = 1;

    put_skipped(w, term, true, NULL);
    for (size_t i = 0; i < SEGMENTS; i++)
        add_segment(w, i, state, &term);
    for (size_t k = 0; k < KEYS; k++)
        w->keys += state[k].version > 0;
}

/* --- archives --------------------------------------------------------------------------------- */

static void
bend_archive(const struct stock *w, struct archive *a)
{
    struct archive_slot *s = &a->slot[a->n - 2];

    if (w->lie == LIE_ARCHIVE_BESIDE && a->begin.next_slot == 4)
        a->slot[1].hash[3] ^= 1; /* where another archive is walked */
    if (a->begin.next_slot == 0 || a->end.next_slot != ARCHIVED_SLOTS)
        return;
    if (w->lie == LIE_ARCHIVE_HASH)
        s->hash[3] ^= 1;
    if (w->lie == LIE_ARCHIVE_FIRST)
        s->first_revision++;
    if (w->lie == LIE_ARCHIVE_TERM)
        s->term++;
    if (w->lie == LIE_ARCHIVE_BEGIN)
        a->begin.last_index++;
    if (w->lie == LIE_ARCHIVE_END)
        a->end.last_index++;
    if (w->lie == LIE_ARCHIVE_LINEAGE)
        a->lineage++;
    for (size_t i = 0; i < a->n && w->lie == LIE_ARCHIVE_SKIPPED_TERM; i++)
        if (a->slot[i].skipped) {
            a->slot[i].term--; /* of the fence: read as lower than it is */
            break;
        }
}

void
stock_put_archive(struct stock *w, size_t first, size_t end)
{
    struct archive a = {.cluster_id = CLUSTER,
                        .lineage = LINEAGE,
                        .begin = w->place[first],
                        .end = w->place[end]};
    struct buffer bytes = {0};
    char key[ARCHIVE_KEY_BYTES];

    /* Twice: what stands at the beginning is encoded first, and may be bent. */
    for (int turn = 0; turn < 2; turn++) {
        struct archive_slot *bent = a.slot;

        a.slot = NULL;
        a.capacity = 0;
        archive_begin(&bytes, &a);
        for (size_t i = first; i < end; i++) {
            if (w->slot[i].skipped)
                archive_add_skipped(&a, &w->slot[i].slot);
            else
                archive_add_segment(&bytes, &a, &w->slot[i].slot,
                                    buffer_slice(&w->slot[i].object));
            if (bent != NULL)
                a.slot[i - first] = bent[i - first];
        }
        archive_key(key, first, end - 1);
        if (turn == 0)
            bend_archive(w, &a);
        mem_free(bent);
    }
    archive_end(&bytes, &a);
    stock_put(w, key, buffer_slice(&bytes));
    archive_free(&a);
    buffer_free(&bytes);
}

/* Two that recovery reads, one of a deposed leader beside them; raw slots that are gone. */
static void
make_archives(struct stock *w)
{
    char key[SLOT_KEY_BYTES];

    stock_put_archive(w, 0, 9);
    stock_put_archive(w, 4, 13);
    stock_put_archive(w, 9, ARCHIVED_SLOTS);
    for (size_t i = 0; i < RAW_FROM; i++)
        if (!w->slot[i].skipped) {
            slot_key(key, i);
            stock_remove(w, key);
        }
    w->manifest.floor = w->place[ARCHIVED_SLOTS];
}

/* --- runs --------------------------------------------------------------------------------------- */

/* Of sorted records those that can still be read: the rule of sst.h, over an array. */
static void
reduce(const struct records *all, int64_t compacted, bool is_base, struct records *out)
{
    bool settled = false;

    for (size_t i = 0; i < all->n; i++) {
        const struct record *r = &all->r[i];

        if (i == 0 ||
            !slice_equal(buffer_slice(&r->ikey), buffer_slice(&all->r[i - 1].ikey)))
            settled = false;
        if (settled)
            continue;
        settled = r->ikey.data[0] != SPACE_KEYS || (int64_t)r->stamp <= compacted;
        /* A watch may begin at the compacted revision itself. */
        if (!(settled && r->tombstone && is_base) ||
            (r->ikey.data[0] == SPACE_KEYS && (int64_t)r->stamp == compacted))
            records_copy(out, r);
    }
}

static void
change_value(struct record *r)
{
    struct version v;
    struct buffer value = {0};

    assert_true(record_value_decode(buffer_slice(&r->value), &v));
    v.stamp = r->stamp;
    v.lease += 1;
    record_value_encode(&value, buffer_slice(&r->key), &v);
    buffer_free(&r->value);
    r->value = value;
}

static void
drop_record(struct records *set, size_t i)
{
    buffer_free(&set->r[i].key);
    buffer_free(&set->r[i].value);
    buffer_free(&set->r[i].ikey);
    memmove(&set->r[i], &set->r[i + 1], (set->n - i - 1) * sizeof set->r[0]);
    set->n--;
}

/* Of a deletion that nobody can read any more: what it hides below comes back. */
static void
drop_tombstone(struct records *set, int64_t compacted)
{
    size_t i = 0;

    while (i < set->n && !(set->r[i].tombstone && set->r[i].ikey.data[0] == SPACE_KEYS &&
                           (int64_t)set->r[i].stamp < compacted))
        i++;
    assert_true(i < set->n);
    drop_record(set, i);
}

/* Lies that only a replay can show. */
static void
bend_records(struct stock *w, struct records *set, bool upper, bool folded,
             int64_t compacted)
{
    if ((w->lie == LIE_RECORD_LESS && upper) || (w->lie == LIE_FOLDED_LESS && folded) ||
        (w->lie == LIE_FIRST_LESS && !upper && !folded))
        drop_record(set, 2);
    if (w->lie == LIE_TOMBSTONE_LESS && upper)
        drop_tombstone(set, compacted);
    if (w->lie == LIE_RECORD_VALUE && upper)
        change_value(&set->r[2]);
    if (w->lie == LIE_RECORD_MORE && upper)
        records_add(set, slice_str("k/key/00001x"), set->r[0].stamp, false,
                    slice_str("more"));
    records_sort(set);
}

static void
put_file(struct stock *w, struct sst_writer *writer, struct run_index *run,
         const struct checkpoint_run *name)
{
    struct buffer object = {0};
    struct sst_info info;
    char key[SST_KEY_BYTES];

    assert_int_equal(sst_writer_finish(writer, &object, &info, NULL), T4_OK);
    assert_int_equal(run_index_add(run, &info, name->term, name->index, NULL), T4_OK);
    sst_key(key, info.sha256, name->term, name->index);
    stock_put(w, key, buffer_slice(&object));
    buffer_free(&object);
}

static void
put_files(struct stock *w, const struct records *set, struct run_index *run,
          const struct checkpoint_run *name, struct sst_filter_builder *filter)
{
    struct sst_writer *writer = sst_writer_new(filter);

    for (size_t i = 0; i < set->n; i++) {
        struct t4_slice key = buffer_slice(&set->r[i].key);

        if (key.data[0] == SPACE_SYSTEM && w->lie != LIE_FILE_SYSTEM)
            continue; /* in the index */
        if (sst_writer_records(writer) > 0 && sst_cut_here(writer, key))
            put_file(w, writer, run, name);
        assert_int_equal(
            sst_writer_add(writer, key, buffer_slice(&set->r[i].value), NULL), T4_OK);
    }
    put_file(w, writer, run, name);
    sst_writer_free(writer);
}

static void
make_system(struct stock *w, const struct records *set, struct run_index *run, bool lies)
{
    struct records system = {0};
    struct sst_info info;

    for (size_t i = 0; i < set->n; i++)
        if (set->r[i].ikey.data[0] == SPACE_SYSTEM ||
            (lies && w->lie == LIE_RUN_SYSTEM_SPACE))
            records_copy(&system, &set->r[i]);
    if (!run->is_base && w->lie == LIE_SYSTEM_LESS)
        drop_record(&system, 0);
    if (lies && (w->lie == LIE_SYSTEM_MORE || w->lie == LIE_RUN_SYSTEM_STAMP))
        records_add(&system, slice_str("smore"),
                    run->last_index + (w->lie == LIE_RUN_SYSTEM_STAMP), false,
                    slice_str("1"));
    if (system.n > 0) {
        records_sort(&system);
        file_write(&run->system, &info, &system);
    }
    records_free(&system);
}

/* What stands in the index. */
static void
bend_run(struct stock *w, struct run_index *run, bool upper, bool folded)
{
    struct run_sst *file = &run->sst[0];

    switch (w->lie) {
    case LIE_RUN_OVERLAP: run->first_index -= upper; break;
    case LIE_RUN_BASE: run->is_base |= upper; break;
    case LIE_RUN_REVISION: run->last_revision += upper ? 100000 : 0; break;
    case LIE_RUN_COMPACTED: run->compacted += upper ? 1000 : 0; break;
    case LIE_RUN_INTERVAL: run->first_index = upper ? run->last_index : 0; break;
    case LIE_RUN_STAMP: run->last_index -= folded ? 40 : 0; break;
    case LIE_FILE_SHARED:
    case LIE_FILE_COUNT: file->info.records -= folded; break;
    case LIE_FILE_CONTENT: file->info.content[0] ^= folded; break;
    case LIE_FILE_NEWER: file->index += folded ? 1000 : 0; break;
    case LIE_FILE_BOUND:
        if (folded) /* "k/key/00000" to "j/key/00000" */
            ((uint8_t *)(uintptr_t)file->info.first.data)[0]--;
        break;
    default: break;
    }
}

/* The entries from one number to another as a run. */
static void
put_run(struct stock *w, size_t from, size_t to, bool folded, int64_t compacted,
        struct checkpoint_run *name)
{
    struct run_index run = {.first_index = from,
                            .last_index = to,
                            .last_revision = w->entry[to - 1].head.revision,
                            .compacted = compacted > 0 ? compacted : 0,
                            .is_base = from == 0};
    struct records all = {0}, set = {0};
    struct sst_filter_builder filter = {0};
    struct buffer object = {0};
    char key[SST_KEY_BYTES];
    bool upper = from != 0;

    for (size_t i = from; i < to; i++)
        for (size_t k = 0; k < w->entry[i].records.n; k++)
            records_copy(&all, &w->entry[i].records.r[k]);
    records_sort(&all);
    reduce(&all, compacted, run.is_base, &set);
    bend_records(w, &set, upper, folded, compacted);
    put_files(w, &set, &run, name, run.is_base ? NULL : &filter);
    if (upper) {
        if (w->lie == LIE_RUN_FILTER) /* of one other key */
            filter.n = 1;
        sst_filter_build(&filter, &run.filter);
    }
    make_system(w, &set, &run, folded);
    for (size_t i = 0; i < run.n; i++)
        name->bytes += run.sst[i].info.object_bytes;
    bend_run(w, &run, upper, folded);
    name->is_base = from == 0;
    run_index_encode(&object, &run);
    sha256(buffer_slice(&object), name->sha256);
    run_key(key, name->sha256, name->term, name->index);
    stock_put(w, key, buffer_slice(&object));
    run_index_free(&run);
    sst_filter_builder_free(&filter);
    records_free(&all);
    records_free(&set);
    buffer_free(&object);
}

/* --- checkpoints ------------------------------------------------------------------------------- */

static size_t
slot_after(const struct stock *w, size_t segment)
{
    size_t slot = 0;

    for (size_t n = 0; n <= segment; slot++)
        n += !w->slot[slot].skipped;
    return slot;
}

static void
bend_checkpoint(struct stock *w, struct checkpoint_object *c)
{
    switch (w->lie) {
    case LIE_PLACE_HASH: c->place.hash[0] ^= 1; break;
    case LIE_PLACE_SLOT: c->place.next_slot++; break;
    case LIE_PLACE_TERM: c->place.term--; break;
    case LIE_PLACE_INDEX: c->place.last_index--; break;
    case LIE_PLACE_END: c->place.next_slot = 100000; break;
    case LIE_TIME: c->time_ms++; break;
    case LIE_COMPACTED: c->compacted++; break;
    case LIE_CHECKPOINT_CLUSTER: c->cluster_id++; break;
    case LIE_CHECKPOINT_REVISION: c->revision++; break;
    case LIE_RUN_BYTES: c->run[0].bytes++; break;
    default: break;
    }
}

static void
list_checkpoint(struct stock *w, size_t i, const struct checkpoint_object *c)
{
    struct checkpoint_name *name = &w->manifest.checkpoint[i];
    struct buffer object = {0};

    checkpoint_encode(&object, c);
    *name = (struct checkpoint_name){.term = c->term,
                                     .index = c->index,
                                     .time_ms = c->time_ms,
                                     .revision = c->revision};
    sha256(buffer_slice(&object), name->sha256);
    name->sha256[4] ^= w->lie == LIE_CHECKPOINT_HASH && i == 1;
    checkpoint_key(w->checkpoint_at[i], c->term, c->revision, c->index);
    stock_put(w, w->checkpoint_at[i], buffer_slice(&object));
    buffer_free(&object);
}

static int64_t
compacted_at(const struct stock *w, size_t entries)
{
    while (entries > 0 && w->entry[entries - 1].head.kind == ENTRY_NORMAL)
        entries--;
    return entries > 0 ? w->entry[entries - 1].head.compact_revision : -1;
}

/* The oldest has a base, the next one a run on top of it, the newest one a folded base and a run. */
static void
make_checkpoints(struct stock *w)
{
    struct checkpoint_run first = {0};
    size_t older = 0, fold = 0;

    for (size_t i = CHECKPOINTS; i-- > 0;) {
        size_t slot = slot_after(w, checkpoint_after[i]);
        size_t n = w->slot[slot - 1].last_entry;
        struct checkpoint_object *c = &w->checkpoint[i];

        *c = (struct checkpoint_object){.cluster_id = CLUSTER,
                                        .lineage = LINEAGE,
                                        .generation = 1,
                                        .term = w->slot[slot - 1].slot.term,
                                        .index = n,
                                        .revision = w->entry[n - 1].head.revision,
                                        .compacted = compacted_at(w, n),
                                        .time_ms = w->entry[n - 1].head.time_ms,
                                        .place = w->place[slot],
                                        .n_runs = i == CHECKPOINTS - 1 ? 1 : 2};
        for (uint32_t r = 0; r < c->n_runs; r++)
            c->run[r] = (struct checkpoint_run){.term = c->term, .index = n};
        if (i == CHECKPOINTS - 1) {
            first = c->run[0];
            put_run(w, 0, n, false, c->compacted, &first);
            c->run[0].bytes =
                0; /* the same once more, or another index of the same files */
            put_run(w, 0, n, w->lie == LIE_FILE_SHARED, c->compacted, &c->run[0]);
        } else if (i == 1) {
            put_run(w, older, n, false, c->compacted, &c->run[0]);
            c->run[1] = first;
            fold = n;
        } else {
            put_run(w, fold, n, false, c->compacted, &c->run[0]);
            c->run[1].index = fold + 1; /* was made right after the checkpoint before */
            put_run(w, 0, fold, w->lie != LIE_FILE_SHARED, w->checkpoint[1].compacted,
                    &c->run[1]);
        }
        older = n;
        if (i == 0)
            bend_checkpoint(w, c);
        list_checkpoint(w, i, c);
    }
    w->manifest.n_checkpoints = CHECKPOINTS;
    w->manifest.newest = w->checkpoint[0];
}

/* --- the rest ---------------------------------------------------------------------------------------- */

void
stock_put_manifest(struct stock *w)
{
    struct buffer text = {0};

    manifest_encode(&text, &w->manifest);
    stock_put(w, "manifest/latest", buffer_slice(&text));
    buffer_free(&text);
}

static void
bend_heads(struct stock *w, struct cluster_object *cluster)
{
    struct manifest_object *m = &w->manifest;
    struct checkpoint_name name = m->checkpoint[1];

    switch (w->lie) {
    case LIE_INLINED: m->newest.compacted--; break;
    case LIE_ORDER:
        m->checkpoint[1] = m->checkpoint[2];
        m->checkpoint[2] = name;
        break;
    case LIE_FLOOR: m->floor.hash[0] ^= 1; break;
    case LIE_ARCHIVE_ABOVE_FLOOR: m->archive = w->place[ARCHIVED_SLOTS + 1]; break;
    case LIE_LOCK_TERM: w->leader.term--; break;
    case LIE_LOCK_LINEAGE: w->leader.lineage++; break;
    case LIE_LOCK_RELEASED: w->leader.released_index++; break;
    case LIE_CLUSTER_ID: cluster->cluster_id++; break;
    case LIE_MANIFEST_TERM: m->term = w->leader.term = 2; break;
    default: break;
    }
}

static void
make_heads(struct stock *w)
{
    struct cluster_object cluster = {CLUSTER, LINEAGE, WINDOW_MAX};
    struct chain_floor *end = &w->place[w->n_slots];
    struct buffer text = {0};

    w->leader = (struct lock_object){.cluster_id = CLUSTER,
                                     .lineage = LINEAGE,
                                     .counter = 5,
                                     .term = end->term,
                                     .holder = 3,
                                     .rule = RULE_OBJECT,
                                     .released = true,
                                     .released_index = end->last_index,
                                     .released_revision =
                                         w->entry[w->n_entries - 1].head.revision};
    w->manifest.cluster_id = CLUSTER;
    w->manifest.lineage = LINEAGE;
    w->manifest.generation = 1;
    w->manifest.counter = 9;
    w->manifest.term = end->term;
    bend_heads(w, &cluster);
    stock_put_manifest(w);
    cluster_encode(&text, &cluster);
    stock_put(w, "cluster", buffer_slice(&text));
    buffer_clear(&text);
    lock_encode(&text, &w->leader);
    stock_put(w, "leader-lock", buffer_slice(&text));
    buffer_free(&text);
}

/* A checkpoint that was never listed, with a run and a file; and what is no object of t4's. */
static void
make_orphans(struct stock *w)
{
    struct checkpoint_object c = w->checkpoint[1];
    struct buffer object = {0};
    char key[CHECKPOINT_KEY_BYTES];

    c.index++;
    c.revision++;
    checkpoint_encode(&object, &c);
    checkpoint_key(key, c.term, c.revision, c.index);
    stock_put(w, key, buffer_slice(&object));
    put_run(w, 3, 20, false, -1, &(struct checkpoint_run){.term = 1, .index = 20});
    stock_put(w, "notes.txt", slice_str("mine"));
    buffer_free(&object);
}

static void
open_store(struct stock *w)
{
    char url[SCRATCH_ROOM + 32];
    struct object_options o = {.env = env_posix(), .plugin_dir = build_folder("plugins")};
    struct error e;

    snprintf(url, sizeof url, "file://%s/store", w->folder);
    if (object_open(url, &o, &w->store, &e) != T4_OK)
        fail_msg("%s (%s)", e.message, e.hint);
}

struct stock *
stock_new(enum lie lie)
{
    struct stock *w = mem_zalloc(sizeof *w);

    w->chance.state = 2024; /* the same log for every lie */
    w->lie = lie;
    scratch_make_in_memory(w->folder, sizeof w->folder, "t4-verify");
    open_store(w);
    make_log(w);
    make_archives(w);
    make_checkpoints(w);
    make_heads(w);
    w->lie = NO_LIE;
    make_orphans(w);
    w->lie = lie;
    return w;
}

void
stock_free(struct stock *w)
{
    for (size_t i = 0; i < w->n_entries; i++) {
        buffer_free(&w->entry[i].bytes);
        records_free(&w->entry[i].records);
    }
    mem_free(w->entry);
    for (size_t i = 0; i < w->n_slots; i++)
        buffer_free(&w->slot[i].object);
    object_close(w->store);
    scratch_remove(w->folder);
    mem_free(w);
}

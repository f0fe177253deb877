/*
 * verify_test.c - t4 verify names what is wrong in a store, and nothing that is not.
 *
 * A store with everything in it (verify_bed.h) is whole.  Then each of its objects is removed, cut,
 * has a bit flipped, changes places with another of its kind: the object is named, or, where nothing
 * needs it, nothing is.  Then stores that lie under right hashes and checksums.  Then what a live leader
 * does in the middle: checkpoints come off the list, the floor moves, the log is removed.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/memory.h"
#include "objectlog/objectlog.h"
#include "verify_bed.h"

/* --- running it ------------------------------------------------------------------------------ */

struct outcome {
    struct stock *w;
    struct verify_result result;
    struct buffer problems, notes; /* "object what\n" */
    const char *phase;             /* at the first sign of it `act` is called, once */
    void (*act)(struct stock *w);
};

static void
add_line(struct buffer *b, const char *object, const char *what)
{
    buffer_append(b, object, strlen(object));
    buffer_append_u8(b, ' ');
    buffer_append(b, what, strlen(what));
    buffer_append_u8(b, '\n');
}

static void
on_bad(void *arg, const char *object, const char *what)
{
    struct outcome *o = arg;

    add_line(&o->problems, object, what);
}

static void
on_note(void *arg, const char *what)
{
    struct outcome *o = arg;

    add_line(&o->notes, "", what);
}

static void
on_progress(void *arg, const char *phase, uint64_t done, uint64_t total)
{
    struct outcome *o = arg;

    (void)done;
    (void)total;
    if (o->phase == NULL || strcmp(o->phase, phase) != 0)
        return;
    o->phase = NULL;
    o->act(o->w);
}

static t4_status
run(struct stock *w, struct outcome *o, bool deep, uint32_t parallel)
{
    struct verify_options options = {.env = env_posix(),
                                     .store = w->store,
                                     .parallel = parallel,
                                     .deep = deep,
                                     .tmp = w->folder,
                                     .part_bytes = 4000,
                                     .arg = o,
                                     .bad = on_bad,
                                     .note = on_note,
                                     .progress = on_progress};
    struct error error = {0};
    t4_status status;

    o->w = w;
    buffer_clear(&o->problems);
    buffer_clear(&o->notes);
    status = verify_store(&options, &o->result, &error);
    buffer_append_u8(&o->problems, '\0');
    buffer_append_u8(&o->notes, '\0');
    if (status != T4_OK && status != T4_E_NOTFOUND)
        fail_msg("%s", error.message);
    return status;
}

static const char *
problems(const struct outcome *o)
{
    return (const char *)o->problems.data;
}

static void
outcome_free(struct outcome *o)
{
    buffer_free(&o->problems);
    buffer_free(&o->notes);
}

/* Is there a line that begins so and has `phrase` in it? */
static bool
is_told(const char *lines, const char *object, const char *phrase)
{
    for (const char *line = lines; *line != '\0'; line = strchr(line, '\n') + 1) {
        const char *found = strstr(line, phrase);

        if (strncmp(line, object, strlen(object)) == 0 && found != NULL &&
            found < strchr(line, '\n'))
            return true;
    }
    return false;
}

static void
assert_good(struct stock *w, bool deep, const char *name)
{
    struct outcome o = {0};

    assert_int_equal(run(w, &o, deep, 4), T4_OK);
    if (o.result.bad != 0)
        fail_msg("%s: %s", name, problems(&o));
    outcome_free(&o);
}

static void
assert_told(struct stock *w, bool deep, const char *object, const char *phrase,
            const char *name)
{
    struct outcome o = {0};

    assert_int_equal(run(w, &o, deep, 4), T4_OK);
    if (strncmp(object, "run/", 4) == 0 || strncmp(object, "sst/", 4) == 0)
        assert_true(o.result.checkpoints < CHECKPOINTS ||
                    strstr(problems(&o), "(no kept"));
    if (o.result.bad == 0 || !is_told(problems(&o), object, phrase))
        fail_msg("%s: \"%s ... %s\" is not told, but:\n%s%s", name, object, phrase,
                 problems(&o), (const char *)o.notes.data);
    outcome_free(&o);
}

/* --- a store that is whole --------------------------------------------------------------------- */

static void
test_whole(void **state)
{
    struct stock *w = stock_new(NO_LIE);
    const struct entry *last = &w->entry[w->n_entries - 1].head;
    struct buffer before = {0}, after = {0};
    struct outcome o = {0};

    (void)state;
    stock_keys(w, &before);
    for (uint32_t parallel = 1; parallel <= 9; parallel += 4) {
        assert_int_equal(run(w, &o, true, parallel), T4_OK);
        if (o.result.bad != 0)
            fail_msg("%s", problems(&o));
        assert_int_equal(o.result.checkpoints, CHECKPOINTS);
        assert_int_equal(o.result.runs, 4);
        assert_true(o.result.files > o.result.runs);
        assert_int_equal(o.result.archives, 3);
        assert_int_equal(o.result.segments, SEGMENTS);
        assert_int_equal(o.result.skipped, 5);
        assert_int_equal(o.result.entries, w->n_entries);
        assert_int_equal(o.result.first_index, 1);
        assert_int_equal(o.result.last_index, w->n_entries);
        assert_int_equal(o.result.last_revision, last->revision);
        assert_int_equal(o.result.orphans, 4);
        assert_int_equal(o.result.unfinished, 0);
        assert_int_equal(o.result.unknown, 1);
        assert_true(is_told((const char *)o.notes.data, " notes.txt", "no object"));
        assert_int_equal(o.result.replayed, CHECKPOINTS);
        assert_true(o.result.compared > 200);
        assert_int_equal(o.result.final_index, w->n_entries);
        assert_int_equal(o.result.final_revision, last->revision);
        assert_int_equal(o.result.final_keys, w->keys);
    }
    stock_keys(w, &after);
    assert_true(slice_equal(buffer_slice(&before), buffer_slice(&after)));
    buffer_free(&before);
    buffer_free(&after);
    outcome_free(&o);
    stock_free(w);
}

static t4_status
count_entry(void *arg, uint64_t index, struct t4_slice entry,
            const struct segment *segment, struct error *error)
{
    uint64_t *n = arg;

    (void)entry;
    (void)segment;
    (void)error;
    assert_int_equal(index, ++*n);
    return T4_OK;
}

/* The server's code reads the store as it is, and what it archives is as verify wants it. */
static void
test_the_servers_code_agrees(void **state)
{
    struct stock *w = stock_new(NO_LIE);
    struct objectlog_options options = {
        .env = env_posix(), .store = w->store, .address = ""};
    enum objectlog_found found;
    struct objectlog_tail tail;
    struct objectlog *log;
    struct archive a;
    struct error e;
    uint64_t n = 0, bytes;

    (void)state;
    if (objectlog_open(&options, &log, &found, &e) != T4_OK)
        fail_msg("%s", e.message);
    assert_int_equal(found, OBJECTLOG_COMPLETE);
    if (objectlog_read(log, count_entry, &n, &tail, &e) != T4_OK)
        fail_msg("%s", e.message);
    assert_int_equal(n, w->n_entries);
    if (objectlog_archive(log, &w->place[w->n_slots], 15, &a, &bytes, &e) != T4_OK)
        fail_msg("%s", e.message);
    w->manifest.floor = a.end;
    archive_free(&a);
    stock_put_manifest(w);
    assert_good(w, true, "an archive more");
    objectlog_close(log);
    stock_free(w);
}

/* --- each object missing, damaged, swapped --------------------------------------------------------- */

/* What is told when the object is missing: "" nothing. */
static const char *
told_if_missing(const struct stock *w, const char *key)
{
    uint64_t slot, first, end;
    static char last[SLOT_KEY_BYTES];

    slot_key(last, w->n_slots - 1);
    if (strcmp(key, last) == 0)
        return "leader-lock"; /* the only one who knows of it */
    if (slot_key_parse(slice_str(key), &slot))
        return slot < w->manifest.floor.next_slot && !w->slot[slot].skipped ? "" : key;
    if (archive_key_parse(slice_str(key), &first, &end))
        return first == 4 ? "" : "log/"; /* the one beside the others */
    if (strcmp(key, "notes.txt") == 0)
        return "";
    return key;
}

/* Of the checkpoint that was never listed. */
static bool
is_orphan(const struct stock *w, const char *key)
{
    uint8_t hash[32];
    uint64_t term, index;
    int64_t revision;

    if (checkpoint_key_parse(slice_str(key), &term, &revision, &index))
        return index == w->checkpoint[1].index + 1;
    return (run_key_parse(slice_str(key), hash, &term, &index) ||
            sst_key_parse(slice_str(key), hash, &term, &index)) &&
           index == 20;
}

static void
damage_object(struct stock *w, const char *key)
{
    struct buffer good = {0}, bad = {0};
    const char *missing = is_orphan(w, key) ? "" : told_if_missing(w, key);
    char name[200];

    stock_get(w, key, &good);
    snprintf(name, sizeof name, "%s removed", key);
    stock_remove(w, key);
    if (missing[0] != '\0')
        assert_told(w, false, missing, "", name);
    else
        assert_good(w, false, name);
    for (unsigned i = 0; i < 4 && strcmp(key, "notes.txt") != 0; i++) {
        size_t at = (size_t)chance_below(&w->chance, good.len);

        buffer_clear(&bad);
        buffer_append_slice(&bad, buffer_slice(&good));
        if (i == 0)
            bad.len /= 2;
        else
            bad.data[at] ^= (uint8_t)(1u << chance_below(&w->chance, 8));
        snprintf(name, sizeof name, "%s %s %zu", key, i == 0 ? "cut at" : "flipped at",
                 i == 0 ? bad.len : at);
        stock_put(w, key, buffer_slice(&bad));
        assert_told(w, false, key, "", name);
    }
    stock_put(w, key, buffer_slice(&good));
    buffer_free(&good);
    buffer_free(&bad);
}

static void
test_each_object_damaged(void **state)
{
    struct stock *w = stock_new(NO_LIE);
    struct buffer keys = {0};
    size_t n = 0;

    (void)state;
    w->chance.state = test_seed();
    stock_keys(w, &keys);
    for (const char *key = (const char *)keys.data;
         key < (const char *)keys.data + keys.len; key += strlen(key) + 1, n++)
        damage_object(w, key);
    assert_true(n > 50);
    assert_good(w, true, "mended");
    buffer_free(&keys);
    stock_free(w);
}

static bool
is_of_kind(const char *a, const char *b)
{
    size_t n = strcspn(a, "/");

    return a[n] == '/' && strncmp(a, b, n + 1) == 0;
}

/* Data segments only: of a fence and a segment of one term that change places nobody can tell. */
static bool
can_be_swapped(const struct stock *w, const char *key)
{
    uint64_t slot;

    return !slot_key_parse(slice_str(key), &slot) || !w->slot[slot].skipped;
}

static void
test_swapped(void **state)
{
    struct stock *w = stock_new(NO_LIE);
    struct buffer keys = {0}, a = {0}, b = {0};
    const char *last = NULL, *end;
    unsigned n = 0;

    (void)state;
    stock_keys(w, &keys);
    end = (const char *)keys.data + keys.len;
    for (const char *key = (const char *)keys.data; key < end; key += strlen(key) + 1) {
        if (last != NULL && is_of_kind(last, key) && can_be_swapped(w, key) &&
            can_be_swapped(w, last)) {
            stock_get(w, last, &a);
            stock_get(w, key, &b);
            stock_put(w, last, buffer_slice(&b));
            stock_put(w, key, buffer_slice(&a));
            assert_told(w, false, last, "", last);
            stock_put(w, last, buffer_slice(&a));
            stock_put(w, key, buffer_slice(&b));
            n++;
        }
        last = key;
    }
    assert_true(n > 30);
    assert_good(w, false, "swapped back");
    buffer_free(&keys);
    buffer_free(&a);
    buffer_free(&b);
    stock_free(w);
}

/* What follows from damage in the log is told as a note only. */
static void
test_damage_is_told_once(void **state)
{
    struct stock *w = stock_new(NO_LIE);
    struct outcome o = {0};
    char slot[SLOT_KEY_BYTES];

    (void)state;
    slot_key(slot, 40);
    stock_put(w, slot, slice_str("damaged"));
    assert_int_equal(run(w, &o, true, 4), T4_OK);
    assert_int_equal(o.result.bad, 1);
    assert_true(is_told(problems(&o), slot, "is damaged"));
    assert_true(is_told((const char *)o.notes.data, "", "cannot be replayed"));
    assert_int_equal(o.result.replayed, CHECKPOINTS - 1);
    outcome_free(&o);
    stock_free(w);
}

/* A file under another name is another object. */
static void
test_copies_are_orphans(void **state)
{
    struct stock *w = stock_new(NO_LIE);
    struct buffer keys = {0}, object = {0};
    struct outcome o = {0};
    uint64_t term, index, before;
    uint8_t hash[32];
    char copy[SST_KEY_BYTES];

    (void)state;
    assert_int_equal(run(w, &o, false, 4), T4_OK);
    before = o.result.orphans;
    stock_keys(w, &keys);
    for (const char *key = (const char *)keys.data;
         key < (const char *)keys.data + keys.len; key += strlen(key) + 1)
        if (sst_key_parse(slice_str(key), hash, &term, &index) &&
            index == w->checkpoint[2].index) {
            stock_get(w, key, &object);
            sst_key(copy, hash, term, index - 1);
            stock_put(w, copy, buffer_slice(&object));
            break;
        }
    assert_int_equal(run(w, &o, false, 4), T4_OK);
    assert_int_equal(o.result.bad, 0);
    assert_int_equal(o.result.orphans, before + 1);
    buffer_free(&keys);
    buffer_free(&object);
    outcome_free(&o);
    stock_free(w);
}

/* Several things at once are all told. */
static void
test_everything_is_told(void **state)
{
    struct stock *w = stock_new(NO_LIE);
    char slot[SLOT_KEY_BYTES], other[SLOT_KEY_BYTES];
    struct outcome o = {0};

    (void)state;
    slot_key(slot, 28);
    slot_key(other, 40);
    stock_put(w, slot, slice_str("damaged"));
    stock_put(w, other, slice_str("damaged"));
    stock_remove(w, w->checkpoint_at[1]);
    stock_remove(w, "cluster");
    assert_int_equal(run(w, &o, true, 4), T4_OK);
    assert_int_equal(o.result.bad, 4);
    assert_true(is_told(problems(&o), slot, "is damaged"));
    assert_true(is_told(problems(&o), other, "is damaged"));
    assert_true(is_told(problems(&o), w->checkpoint_at[1], "is missing"));
    assert_true(is_told(problems(&o), "cluster", "is missing"));
    assert_int_equal(o.result.checkpoints, 2);
    outcome_free(&o);
    stock_free(w);
}

static void
test_empty(void **state)
{
    struct stock *w = stock_new(NO_LIE);
    struct buffer keys = {0};
    struct outcome o = {0};

    (void)state;
    stock_keys(w, &keys);
    for (const char *key = (const char *)keys.data;
         key < (const char *)keys.data + keys.len; key += strlen(key) + 1)
        stock_remove(w, key);
    assert_int_equal(run(w, &o, false, 1), T4_E_NOTFOUND);
    assert_int_equal(o.result.bad, 0);
    outcome_free(&o);
    buffer_free(&keys);
    stock_free(w);
}

/* --- lies -------------------------------------------------------------------------------------------- */

static const struct {
    enum lie lie;
    const char *object, *phrase;
    bool deep;
} lies[] = {
    {LIE_ENTRY_INDEX, "wal/", "has an index that is not its place", false},
    {LIE_ENTRY_TERM, "wal/", "is of a higher term than its segment", false},
    {LIE_ENTRY_REVISION, "wal/", "revision or term below", false},
    {LIE_ENTRY_BYTES, "wal/", "cannot be decoded", false},
    {LIE_SEGMENT_PREVIOUS, "wal/", "another hash", false},
    {LIE_SEGMENT_FIRST, "wal/", "but the segment before it ends with", false},
    {LIE_SEGMENT_COUNT, "wal/", "in it has an index", false},
    {LIE_SEGMENT_LAST, "wal/", "holds other entries than it says", false},
    {LIE_SEGMENT_LINEAGE, "wal/", "another cluster", false},
    {LIE_SEGMENT_CLUSTER, "wal/", "another cluster", false},
    {LIE_ARCHIVE_HASH, "log/", "hash or term that the archive's index", false},
    {LIE_ARCHIVE_FIRST, "log/", "begins with another entry or revision", false},
    {LIE_ARCHIVE_TERM, "log/", "hash or term that the archive's index", false},
    {LIE_ARCHIVE_SKIPPED_TERM, "log/", "is of term 1, which it is not", false},
    {LIE_ARCHIVE_BEGIN, "log/", "another hash or index than the chain", false},
    {LIE_ARCHIVE_END, "log/", "another hash or index than the chain", false},
    {LIE_ARCHIVE_BESIDE, "log/", "hash or term that the archive's index", false},
    {LIE_ARCHIVE_LINEAGE, "log/", "another cluster or lineage", false},
    {LIE_RUN_OVERLAP, "run/", "overlaps the run below it", false},
    {LIE_RUN_BASE, "run/", "is not what the checkpoint says of it", false},
    {LIE_RUN_BYTES, "run/", "is not what the checkpoint says of it", false},
    {LIE_RUN_REVISION, "run/", "reaches above the checkpoint", false},
    {LIE_RUN_COMPACTED, "run/", "higher compacted revision", false},
    {LIE_RUN_FILTER, "sst/", "the filter in the run's index excludes", false},
    {LIE_RUN_SYSTEM_SPACE, "run/", "other records among them", false},
    {LIE_RUN_SYSTEM_STAMP, "run/", "not of the run's interval", false},
    {LIE_FILE_SYSTEM, "sst/", "belongs into the run's index", false},
    {LIE_RUN_STAMP, "sst/", "not of the run's interval", false},
    {LIE_RUN_INTERVAL, "run/", "no entries of the log", false},
    {LIE_FILE_COUNT, "sst/", "is not what the run's index says", false},
    {LIE_FILE_BOUND, "sst/", "is not what the run's index says", false},
    {LIE_FILE_CONTENT, "sst/", "is not what the run's index says", false},
    {LIE_FILE_NEWER, "run/", "newer than the run itself", false},
    {LIE_FILE_SHARED, "sst/", "is not what the run's index says", false},
    {LIE_PLACE_HASH, "checkpoint/", "another hash or index than the chain", false},
    {LIE_PLACE_SLOT, "checkpoint/", "another hash or index than the chain", false},
    {LIE_PLACE_TERM, "checkpoint/", "another term than the chain", false},
    {LIE_PLACE_INDEX, "checkpoint/", "goes on in the chain behind", false},
    {LIE_PLACE_END, "checkpoint/", "its newest segments are missing", false},
    {LIE_TIME, "checkpoint/", "another revision or time", false},
    {LIE_COMPACTED, "checkpoint/", "another compacted revision", false},
    {LIE_CHECKPOINT_CLUSTER, "checkpoint/", "another cluster", false},
    {LIE_CHECKPOINT_REVISION, "checkpoint/", "another revision or time", false},
    {LIE_CHECKPOINT_HASH, "checkpoint/", "does not have the hash", false},
    {LIE_INLINED, "manifest/latest", "inlines a newest checkpoint", false},
    {LIE_ORDER, "manifest/latest", "out of order", false},
    {LIE_FLOOR, "manifest/latest", "another hash or index than the chain", false},
    {LIE_ARCHIVE_ABOVE_FLOOR, "manifest/latest", "above the floor", false},
    {LIE_LOCK_TERM, "leader-lock", "it was set back", false},
    {LIE_LOCK_LINEAGE, "leader-lock", "belongs to cluster", false},
    {LIE_LOCK_RELEASED, "leader-lock", "its newest segments are missing", false},
    {LIE_CLUSTER_ID, "cluster", "belongs to cluster", false},
    {LIE_MANIFEST_TERM, "manifest/latest", "the chain already of term 3", false},
    {LIE_RECORD_LESS, "checkpoint/", "lacks a record that the log", true},
    {LIE_RECORD_MORE, "checkpoint/", "holds a record that is not what the log", true},
    {LIE_RECORD_VALUE, "checkpoint/", "holds a record with another value", true},
    {LIE_TOMBSTONE_LESS, "checkpoint/", "lacks a record that the log", true},
    {LIE_FOLDED_LESS, "checkpoint/", "lacks a record that the log", true},
    {LIE_FIRST_LESS, "checkpoint/", "lacks a record that the log", true},
    {LIE_SYSTEM_LESS, "checkpoint/", "lacks a record that the log", true},
    {LIE_SYSTEM_MORE, "checkpoint/", "holds a record that is not what", true},
};

static void
test_lies(void **state)
{
    (void)state;
    assert_int_equal(sizeof lies / sizeof lies[0], LIES - 1);
    for (size_t i = 0; i < sizeof lies / sizeof lies[0]; i++) {
        struct stock *w = stock_new(lies[i].lie);
        char name[40];

        snprintf(name, sizeof name, "lie %d", lies[i].lie);
        if (lies[i].deep)
            assert_good(w, false, name);
        /* The checkpoint that the deletion is missing from, not one that was made of it. */
        assert_told(w, lies[i].deep,
                    lies[i].lie == LIE_TOMBSTONE_LESS ? w->checkpoint_at[1]
                                                      : lies[i].object,
                    lies[i].phrase, name);
        stock_free(w);
    }
}

/* --- a leader that goes on meanwhile ---------------------------------------------------------------------- */

/* The oldest checkpoint comes off the list, and what only it has is deleted. */
static void
retire_oldest(struct stock *w)
{
    const struct checkpoint_run *run = &w->checkpoint[2].run[0];
    char key[SST_KEY_BYTES];

    w->manifest.n_checkpoints = 1; /* the second one shares the run */
    stock_put_manifest(w);
    run_key(key, run->sha256, run->term, run->index);
    stock_remove(w, key);
    stock_remove(w, w->checkpoint_at[1]);
    stock_remove(w, w->checkpoint_at[2]);
}

/* Files first: those of a run that was read already. */
static void
retire_files(struct stock *w)
{
    struct buffer keys = {0};
    uint8_t hash[32];
    uint64_t term, index;

    w->manifest.n_checkpoints = 1;
    stock_put_manifest(w);
    stock_keys(w, &keys);
    for (const char *key = (const char *)keys.data;
         key < (const char *)keys.data + keys.len; key += strlen(key) + 1)
        if (sst_key_parse(slice_str(key), hash, &term, &index) &&
            index <= w->checkpoint[1].index)
            stock_remove(w, key);
    buffer_free(&keys);
}

/* The floor moves; the segments below it are deleted, fences and leftovers are not. */
static void
move_floor(struct stock *w)
{
    size_t end = w->n_slots - 3;
    char key[SLOT_KEY_BYTES];

    stock_put_archive(w, w->manifest.floor.next_slot, end);
    w->manifest.floor = w->place[end];
    stock_put_manifest(w);
    for (size_t i = 0; i < end; i++)
        if (!w->slot[i].skipped) {
            slot_key(key, i);
            stock_remove(w, key);
        }
}

/* All of it: nothing raw is left but what is never deleted. */
static void
move_floor_to_the_end(struct stock *w)
{
    char key[SLOT_KEY_BYTES];

    stock_put_archive(w, w->manifest.floor.next_slot, w->n_slots);
    w->manifest.floor = w->place[w->n_slots];
    stock_put_manifest(w);
    for (size_t i = 0; i < w->n_slots; i++)
        if (!w->slot[i].skipped) {
            slot_key(key, i);
            stock_remove(w, key);
        }
}

/* The floor moves, and everything below it is removed at once. */
static void
remove_log_to_the_floor(struct stock *w)
{
    struct buffer keys = {0};
    uint64_t first, last;

    move_floor(w);
    w->manifest.archive = w->manifest.floor;
    w->manifest.n_checkpoints = 1;
    stock_put_manifest(w);
    stock_keys(w, &keys);
    for (const char *key = (const char *)keys.data;
         key < (const char *)keys.data + keys.len; key += strlen(key) + 1)
        if (archive_key_parse(slice_str(key), &first, &last))
            stock_remove(w, key);
    buffer_free(&keys);
}

/* The log is removed, the checkpoints stay. */
static void
remove_log_only(struct stock *w)
{
    struct buffer keys = {0};
    uint64_t first, last;

    w->manifest.archive = w->manifest.floor;
    stock_put_manifest(w);
    stock_keys(w, &keys);
    for (const char *key = (const char *)keys.data;
         key < (const char *)keys.data + keys.len; key += strlen(key) + 1)
        if (archive_key_parse(slice_str(key), &first, &last))
            stock_remove(w, key);
    buffer_free(&keys);
}

/* The time of the log below the second checkpoint is over. */
static void
remove_log(struct stock *w)
{
    char key[ARCHIVE_KEY_BYTES];

    w->manifest.n_checkpoints = 2;
    w->manifest.archive = w->place[9];
    stock_put_manifest(w);
    archive_key(key, 0, 8);
    stock_remove(w, key);
    stock_remove(w, w->checkpoint_at[2]);
}

static void
test_live(void **state)
{
    static const struct {
        const char *name, *phase;
        void (*act)(struct stock *w);
        uint64_t retired;
    } acts[] = {
        {"checkpoints retired", "checkpoints", retire_oldest, 2},
        {"files of retired checkpoints removed", "files of runs", retire_files, 2},
        {"floor moved", "checkpoints", move_floor, 0},
        {"floor moved during the walk", "segments", move_floor, 0},
        {"floor moved to the end", "checkpoints", move_floor_to_the_end, 0},
        {"floor moved to the end during the walk", "segments", move_floor_to_the_end, 0},
        {"log removed", "checkpoints", remove_log, 1},
        {"log removed during the walk", "archives", remove_log, 0},
        {"log removed to the floor", "checkpoints", remove_log_to_the_floor, 0},
        {"log removed to the floor during the walk", "archives", remove_log_to_the_floor,
         0},
        {"log removed while it is replayed", "replaying", remove_log_only, 0},
        {"checkpoints retired while they are replayed", "replaying", retire_files, 0},
        {"the same, in the raw slots", "segments", remove_log_to_the_floor, 0},
    };

    (void)state;
    for (size_t i = 0; i < sizeof acts / sizeof acts[0]; i++)
        for (uint32_t parallel = 1; parallel <= 4; parallel += 3) {
            struct stock *w = stock_new(NO_LIE);
            struct outcome o = {.phase = acts[i].phase, .act = acts[i].act};

            assert_int_equal(run(w, &o, true, parallel), T4_OK);
            assert_null(o.phase);
            if (o.result.bad != 0)
                fail_msg("%s: %s", acts[i].name, problems(&o));
            if (acts[i].retired > 0 && o.result.retired != acts[i].retired)
                fail_msg("%s: %d retired\n%s", acts[i].name, (int)o.result.retired,
                         (const char *)o.notes.data);
            outcome_free(&o);
            stock_free(w);
        }
}

/* Removed without a manifest that says so: no excuse. */
static void
remove_segment(struct stock *w)
{
    char key[SLOT_KEY_BYTES];

    slot_key(key, 42);
    stock_remove(w, key);
}

static void
remove_last_segment(struct stock *w)
{
    char key[SLOT_KEY_BYTES];

    slot_key(key, w->n_slots - 1);
    stock_remove(w, key);
}

static void
remove_checkpoint(struct stock *w)
{
    stock_remove(w, w->checkpoint_at[2]);
}

/* The middle one comes off the list, and a file is lost that the oldest needs, too. */
static void
lose_shared_file(struct stock *w)
{
    struct checkpoint_name last = w->manifest.checkpoint[2];
    struct buffer keys = {0};
    uint8_t hash[32];
    uint64_t term, index;

    w->manifest.checkpoint[1] = last;
    w->manifest.n_checkpoints = 2;
    stock_put_manifest(w);
    stock_keys(w, &keys);
    for (const char *key = (const char *)keys.data;
         key < (const char *)keys.data + keys.len; key += strlen(key) + 1)
        if (sst_key_parse(slice_str(key), hash, &term, &index) &&
            index == w->checkpoint[2].index) {
            stock_remove(w, key);
            break;
        }
    buffer_free(&keys);
}

/* Filled after the listing came by, and before the slots behind them did. */
static void
put_unlisted_segments(struct stock *w)
{
    char key[SLOT_KEY_BYTES];

    for (size_t slot = 42; slot <= 43; slot++) {
        slot_key(key, slot);
        stock_put(w, key, buffer_slice(&w->slot[slot].object));
    }
}

static void
test_slots_that_a_listing_missed(void **state)
{
    (void)state;
    for (uint32_t parallel = 1; parallel <= 4; parallel += 3) {
        struct stock *w = stock_new(NO_LIE);
        struct outcome o = {.phase = "checkpoints", .act = put_unlisted_segments};
        char key[SLOT_KEY_BYTES];

        for (size_t slot = 42; slot <= 43; slot++) {
            slot_key(key, slot);
            stock_remove(w, key);
        }
        assert_int_equal(run(w, &o, true, parallel), T4_OK);
        if (o.result.bad != 0)
            fail_msg("%s", problems(&o));
        outcome_free(&o);
        stock_free(w);
    }
}

static void
test_lost_and_retired(void **state)
{
    (void)state;
    for (uint32_t parallel = 1; parallel <= 4; parallel += 3) {
        struct stock *w = stock_new(NO_LIE);
        struct outcome o = {.phase = "files of runs", .act = lose_shared_file};

        assert_int_equal(run(w, &o, false, parallel), T4_OK);
        assert_int_equal(o.result.retired, 1);
        assert_int_equal(o.result.checkpoints, 1);
        assert_true(is_told(problems(&o), "sst/", "is missing"));
        outcome_free(&o);
        stock_free(w);
    }
}

static void
test_removed_meanwhile(void **state)
{
    static void (*const acts[])(struct stock *) = {remove_segment, remove_last_segment,
                                                   remove_checkpoint};

    (void)state;
    for (size_t i = 0; i < 3; i++) {
        struct stock *w = stock_new(NO_LIE);
        struct outcome o = {.phase = "checkpoints", .act = acts[i]};

        assert_int_equal(run(w, &o, false, 4), T4_OK);
        assert_true(o.result.bad >= 1);
        assert_true(is_told(problems(&o), i < 2 ? "wal/" : w->checkpoint_at[2],
                            i == 1 ? "was listed, but is missing" : "is missing"));
        outcome_free(&o);
        stock_free(w);
    }
}

/* --- things that look odd and are in order ---------------------------------------------------------------- */

static void
test_late_put(void **state)
{
    struct stock *w = stock_new(NO_LIE);
    struct outcome o = {0};
    char key[SLOT_KEY_BYTES];

    (void)state;
    /* A leftover of term 1 arrives in a slot that a segment of term 2 had, which is archived. */
    slot_key(key, 17);
    stock_put(w, key, buffer_slice(&w->slot[15].object));
    assert_int_equal(run(w, &o, false, 4), T4_OK);
    assert_int_equal(o.result.bad, 0);
    assert_int_equal(o.result.late, 1);
    /* In that of a fence, which never was deleted, it is damage. */
    slot_key(key, 14);
    stock_put(w, key, buffer_slice(&w->slot[15].object));
    assert_told(w, false, key, "is not the object", "in the slot of a fence");
    stock_put(w, key, buffer_slice(&w->slot[14].object));
    /* In one of its own term, too. */
    slot_key(key, 5);
    stock_put(w, key, buffer_slice(&w->slot[15].object));
    assert_told(w, false, key, "is not the object", "a segment of the same term");
    outcome_free(&o);
    stock_free(w);
}

static void
test_fence_ahead(void **state)
{
    struct stock *w = stock_new(NO_LIE);
    struct segment fence = {
        .cluster_id = 7, .lineage = 9, .term = 3, .writer = 5, .fence = true};
    struct buffer object = {0};
    struct outcome o = {0};
    char key[SLOT_KEY_BYTES];

    (void)state;
    segment_encode(&object, &fence);
    slot_key(key, w->n_slots + 8);
    stock_put(w, key, buffer_slice(&object));
    assert_int_equal(run(w, &o, true, 4), T4_OK);
    assert_int_equal(o.result.bad, 0);
    assert_true(is_told((const char *)o.notes.data, "", "of a take-over"));
    assert_int_equal(o.result.final_index, w->n_entries);
    /* Entries behind a free slot are another thing. */
    slot_key(key, w->n_slots + 9);
    stock_put(w, key, buffer_slice(&w->slot[w->n_slots - 1].object));
    slot_key(key, w->n_slots);
    assert_told(w, false, key, "is missing", "entries behind a free slot");
    buffer_free(&object);
    outcome_free(&o);
    stock_free(w);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_whole),
        cmocka_unit_test(test_the_servers_code_agrees),
        cmocka_unit_test(test_each_object_damaged),
        cmocka_unit_test(test_swapped),
        cmocka_unit_test(test_everything_is_told),
        cmocka_unit_test(test_empty),
        cmocka_unit_test(test_lies),
        cmocka_unit_test(test_live),
        cmocka_unit_test(test_removed_meanwhile),
        cmocka_unit_test(test_damage_is_told_once),
        cmocka_unit_test(test_copies_are_orphans),
        cmocka_unit_test(test_slots_that_a_listing_missed),
        cmocka_unit_test(test_lost_and_retired),
        cmocka_unit_test(test_late_put),
        cmocka_unit_test(test_fence_ahead),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

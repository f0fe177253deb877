/*
 * objectlog_test.c - the log in the object store: formats, the protocol, leaders that overlap.
 *
 * The store is a directory (plugins/dir) behind plugins/fault, which loses answers, refuses,
 * throttles and carries requests out late.  The seeded test runs several servers at once that
 * take over from each other all the time; every append that was answered must be in the chain
 * in the end, with its bytes, at its index.  The scripted tests fix the interleavings that the
 * models found.
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
#include <unistd.h>

#include "base/memory.h"
#include "objectlog/objectlog.h"
#include "codec/codec.h"
#include "engine_bed.h"
#include "env/thread.h"
#include "fmt/entry.h"

/* --- formats --------------------------------------------------------------------------------- */

static void
test_objects_round_trip(void **unused)
{
    struct buffer b = {0};
    struct lock_object l = {.cluster_id = 1, .lineage = 2, .counter = 3, .term = 4,
                            .holder = 5, .rule = RULE_LOCAL, .lease_ms = 6,
                            .released = true, .released_index = 7, .released_revision = 8},
                       l2;
    struct manifest_object m = {.cluster_id = 9, .lineage = 10, .generation = 11,
                                .counter = 12, .term = 13,
                                .floor = {14, 15, {16}, 17},
                                .archive = {1, 2, {3}, 4}}, m2;
    struct checkpoint_object k = {.cluster_id = 9, .lineage = 10, .generation = 11, .term = 20,
                                  .index = 21, .revision = 22, .compacted = -1, .time_ms = 23,
                                  .place = {24, 25, {26}, 27}, .n_runs = 2,
                                  .run = {{{28}, 1, 2, 3, false}, {{29}, 4, 5, 6, true}}}, k2;
    struct cluster_object c = {18, 19, WINDOW_MAX}, c2;
    struct moving_object v = {20, 21, {22}, "file:///source"}, v2;

    (void)unused;
    snprintf(l.address, sizeof l.address, "http://host:1");
    lock_encode(&b, &l);
    assert_true(slice_has_prefix(buffer_slice(&b), slice_str("t4-lock 1\n")));
    assert_int_equal(lock_decode(buffer_slice(&b), &l2), T4_OK);
    assert_memory_equal(&l, &l2, sizeof l);
    for (l.move = MOVE_BEGUN; l.move <= MOVE_DONE; l.move++) {
        snprintf(l.moved, sizeof l.moved, "s3://elsewhere/prefix");
        lock_encode(&b, &l);
        assert_true(slice_has_prefix(buffer_slice(&b), slice_str("t4-lock 2\n")));
        assert_int_equal(lock_decode(buffer_slice(&b), &l2), T4_OK);
        assert_memory_equal(&l, &l2, sizeof l);
    }
    l.moved[0] = '\0'; /* marked, but nowhere */
    l.move = MOVE_DONE;
    lock_encode(&b, &l);
    assert_int_equal(lock_decode(buffer_slice(&b), &l2), T4_E_CORRUPT);
    moving_encode(&b, &v);
    assert_int_equal(moving_decode(buffer_slice(&b), &v2), T4_OK);
    assert_memory_equal(&v, &v2, sizeof v);
    manifest_encode(&b, &m);
    assert_int_equal(manifest_decode(buffer_slice(&b), &m2), T4_OK);
    assert_memory_equal(&m, &m2, sizeof m);
    checkpoint_encode(&b, &k);
    assert_int_equal(checkpoint_decode(buffer_slice(&b), &k2), T4_OK);
    assert_memory_equal(&k, &k2, sizeof k);
    m.newest = k;
    m.n_checkpoints = 2;
    m.checkpoint[0] = (struct checkpoint_name){k.term, k.index, k.time_ms, k.revision, {30}};
    m.checkpoint[1] = (struct checkpoint_name){31, 32, 33, 34, {35}};
    manifest_encode(&b, &m);
    assert_int_equal(manifest_decode(buffer_slice(&b), &m2), T4_OK);
    assert_memory_equal(&m, &m2, sizeof m);
    cluster_encode(&b, &c);
    assert_int_equal(cluster_decode(buffer_slice(&b), &c2), T4_OK);
    assert_memory_equal(&c, &c2, sizeof c);
    for (size_t i = 0; i < b.len; i++) { /* any changed byte is noticed */
        b.data[i] ^= 1;
        assert_int_not_equal(cluster_decode(buffer_slice(&b), &c2), T4_OK);
        b.data[i] ^= 1;
    }
    assert_int_equal(lock_decode(buffer_slice(&b), &l2), T4_E_CORRUPT);
    buffer_free(&b);
}

static void
test_checkpoint_keys(void **unused)
{
    char key[CHECKPOINT_KEY_BYTES];
    uint64_t term, index;
    int64_t revision;

    (void)unused;
    checkpoint_key(key, 7, 12, 34);
    assert_string_equal(key, "checkpoint/0000000007/00000000000000000012-"
                             "00000000000000000034/manifest");
    assert_true(checkpoint_key_parse(slice_str(key), &term, &revision, &index));
    assert_true(term == 7 && revision == 12 && index == 34);
    assert_false(checkpoint_key_parse(slice_str("checkpoint/7/12-34/manifest"), &term, &revision,
                                      &index));
    key[20] = 'x';
    assert_false(checkpoint_key_parse(slice_str(key), &term, &revision, &index));
}

static void
test_segment_round_trip(void **unused)
{
    struct buffer raw = {0}, packed = {0}, b = {0};
    struct segment s = {.cluster_id = 1, .lineage = 2, .generation = 3, .term = 4,
                        .writer = 5, .rule = RULE_OBJECT, .first_index = 6, .last_index = 7,
                        .committed = 5, .previous = {8}}, got;

    (void)unused;
    segment_entry_append(&raw, slice_str("one"));
    segment_entry_append(&raw, slice_str("two"));
    compress_append(&packed, buffer_slice(&raw));
    s.raw_bytes = (uint32_t)raw.len;
    s.payload = buffer_slice(&packed);
    segment_encode(&b, &s);
    assert_int_equal(segment_decode(buffer_slice(&b), &got), T4_OK);
    assert_int_equal(got.first_index, 6);
    assert_int_equal(got.last_index, 7);
    assert_true(slice_equal(got.payload, s.payload));
    for (size_t i = 0; i < b.len; i++) {
        b.data[i] ^= 0x40;
        assert_int_not_equal(segment_decode(buffer_slice(&b), &got), T4_OK);
        b.data[i] ^= 0x40;
        assert_int_not_equal(segment_decode(slice_of(b.data, i), &got), T4_OK);
    }
    buffer_free(&raw);
    buffer_free(&packed);
    buffer_free(&b);
}

/* --- servers ------------------------------------------------------------------------------------ */

#define ENTRIES_MAX 20000

/* What was acknowledged, of all servers of one test. */
struct record {
    struct mutex lock;
    uint64_t value[ENTRIES_MAX]; /* [index]; 0: never acknowledged */
    uint64_t acknowledged, deposed, terms;
};

struct server {
    struct object_store *store;
    struct objectlog *chain;
    struct objectlog_options options;
    struct record *record;
    struct chance chance;
    struct thread thread;
    struct buffer raw, entry;
    uint64_t next; /* index */
    unsigned rounds;
};

static char folder[64]; /* of all stores of this program */

static struct object_store *
open_store(const char *name, const char *seed)
{
    struct plugin_setting setting[] = {
        {"fault.seed", seed},           {"fault.error_before", "0.07"},
        {"fault.error_after", "0.1"},   {"fault.lost", "0.07"},
        {"fault.late", "0.1"},          {"fault.late_ms", "4"},
        {"fault.throttle", "0.05"},
    };
    struct object_options o = {.env = env_posix(), .plugin_dir = build_folder("plugins"),
                               .settings = setting,
                               .n_settings = sizeof setting / sizeof setting[0]};
    struct object_store *s;
    struct error e;
    char url[128];

    snprintf(url, sizeof url, "%sfile://%s/%s", seed != NULL ? "fault+" : "", folder, name);
    if (seed == NULL)
        o.n_settings = 0;
    if (object_open(url, &o, &s, &e) != T4_OK)
        fail_msg("%s (%s)", e.message, e.hint);
    return s;
}

static void
server_init(struct server *s, const char *name, const char *seed, uint64_t incarnation)
{
    memset(s, 0, sizeof *s);
    s->store = open_store(name, seed);
    s->options = (struct objectlog_options){.env = env_posix(),
                                        .store = s->store,
                                        .incarnation = incarnation,
                                        .address = "nowhere",
                                        .first_pause_ns = 20000,
                                        .timeout_ns = 10000000000u};
}

static void
server_free(struct server *s)
{
    objectlog_close(s->chain);
    object_close(s->store);
    buffer_free(&s->raw);
    buffer_free(&s->entry);
}

static t4_status
check_entry(void *arg, uint64_t index, struct t4_slice entry, const struct segment *segment,
            struct error *error)
{
    struct server *s = arg;
    struct byte_reader r = reader_of(entry);
    struct entry e;
    struct mutation m;

    (void)segment;
    (void)error;
    assert_true(index < ENTRIES_MAX);
    assert_true(entry_decode_head(&r, &e) && entry_next(&r, &m));
    if (s->record != NULL) {
        uint64_t want;

        mutex_lock(&s->record->lock);
        want = s->record->value[index];
        mutex_unlock(&s->record->lock);
        if (want != 0 && want != get_u64le(m.value.data)) {
            fprintf(stderr, "# acknowledged entry %llu has other bytes\n",
                    (unsigned long long)index);
            abort();
        }
    }
    s->next = index + 1;
    return T4_OK;
}

static t4_status
lead(struct server *s, struct error *error)
{
    enum objectlog_found found;
    struct objectlog_tail tail;
    uint64_t term;
    t4_status status;

    objectlog_close(s->chain);
    s->chain = NULL;
    status = objectlog_open(&s->options, &s->chain, &found, error);
    if (status == T4_OK && found != OBJECTLOG_COMPLETE)
        status = objectlog_bootstrap(s->chain, 77, 88, RULE_OBJECT, error);
    if (status == T4_OK)
        status = objectlog_take_over(s->chain, &term, error);
    s->next = 1;
    if (status == T4_OK)
        status = objectlog_read(s->chain, check_entry, s, &tail, error);
    return status;
}

static t4_status
append(struct server *s, unsigned entries, struct error *error)
{
    uint64_t first = s->next, value[8];
    t4_status status;

    buffer_clear(&s->raw);
    for (unsigned i = 0; i < entries; i++) {
        struct entry e = {.kind = ENTRY_NORMAL, .index = first + i, .term = 1, .mutations = 1};
        struct mutation m = {.space = SPACE_KEYS, .key = slice_str("k")};
        uint8_t bytes[8];

        value[i] = chance_next(&s->chance) | 1;
        put_u64le(bytes, value[i]);
        m.value = slice_of(bytes, 8);
        buffer_clear(&s->entry);
        entry_encode_head(&s->entry, &e);
        entry_add(&s->entry, &m);
        segment_entry_append(&s->raw, buffer_slice(&s->entry));
    }
    status = objectlog_append(s->chain, first, first + entries - 1, 0, buffer_slice(&s->raw),
                          error);
    if (status != T4_OK)
        return status;
    s->next += entries;
    mutex_lock(&s->record->lock);
    for (unsigned i = 0; i < entries; i++) {
        uint64_t *slot = &s->record->value[first + i];

        if (*slot != 0) {
            fprintf(stderr, "# entry %llu was acknowledged twice\n",
                    (unsigned long long)(first + i));
            abort();
        }
        *slot = value[i];
    }
    s->record->acknowledged += entries;
    mutex_unlock(&s->record->lock);
    return T4_OK;
}

static void *
server_main(void *arg)
{
    struct server *s = arg;
    struct error error;

    while (s->rounds-- > 0) {
        unsigned appends = 1 + (unsigned)chance_below(&s->chance, 12);
        t4_status status = lead(s, &error);

        mutex_lock(&s->record->lock);
        s->record->terms += status == T4_OK;
        mutex_unlock(&s->record->lock);
        while (status == T4_OK && appends-- > 0)
            status = append(s, 1 + (unsigned)chance_below(&s->chance, 4), &error);
        if (status == T4_E_PRECONDITION) {
            mutex_lock(&s->record->lock);
            s->record->deposed++;
            mutex_unlock(&s->record->lock);
        } else if (status == T4_E_CORRUPT || status == T4_E_INVALID) {
            fprintf(stderr, "# %s\n", error.message);
            abort();
        }
    }
    return NULL;
}

static void
test_leaders_that_overlap(void **unused)
{
    struct server s[4];
    struct record *record = mem_zalloc(sizeof *record);
    struct error error;
    char seed[24];
    uint64_t n = test_seed() % 1000000 + 1, last = 0;
    struct chance chance = {n};

    (void)unused;
    mutex_init(&record->lock);
    snprintf(seed, sizeof seed, "%llu", (unsigned long long)n);
    for (unsigned i = 0; i < 4; i++) {
        server_init(&s[i], "overlap", seed, 100 + i);
        s[i].record = record;
        s[i].rounds = 40;
        s[i].chance.state = chance_next(&chance);
    }
    for (unsigned i = 0; i < 3; i++)
        thread_start(&s[i].thread, "server", server_main, &s[i]);
    for (unsigned i = 0; i < 3; i++)
        thread_join(&s[i].thread);
    for (unsigned tries = 0;; tries++) { /* the last one reads everything */
        t4_status status = lead(&s[3], &error);

        if (status == T4_OK)
            break;
        if (tries > 50)
            fail_msg("%s", error.message);
    }
    for (uint64_t i = 0; i < ENTRIES_MAX; i++)
        if (record->value[i] != 0)
            last = i;
    assert_true(s[3].next > last); /* their bytes were compared while reading */
    print_message("# seed %s: %llu entries acknowledged in %llu terms, deposed %llu times\n",
                  seed, (unsigned long long)record->acknowledged,
                  (unsigned long long)record->terms, (unsigned long long)record->deposed);
    assert_true(record->acknowledged > 20 && record->deposed > 5);
    for (unsigned i = 0; i < 4; i++)
        server_free(&s[i]);
    mutex_destroy(&record->lock);
    mem_free(record);
}

/* --- scripted ------------------------------------------------------------------------------------- */

struct pair {
    struct server a, b;
    struct record *record;
    struct error error;
};

static void
pair_init(struct pair *p, const char *name)
{
    p->record = mem_zalloc(sizeof *p->record);
    mutex_init(&p->record->lock);
    server_init(&p->a, name, NULL, 1);
    server_init(&p->b, name, NULL, 2);
    p->a.record = p->b.record = p->record;
    p->a.chance.state = 1;
    p->b.chance.state = 2;
}

static void
pair_free(struct pair *p)
{
    server_free(&p->a);
    server_free(&p->b);
    mutex_destroy(&p->record->lock);
    mem_free(p->record);
}

static void
test_the_older_leader_stops(void **unused)
{
    struct pair p;

    (void)unused;
    pair_init(&p, "older");
    assert_int_equal(lead(&p.a, &p.error), T4_OK);
    assert_int_equal(append(&p.a, 3, &p.error), T4_OK);
    assert_int_equal(lead(&p.b, &p.error), T4_OK);
    assert_int_equal(p.b.next, 4);
    assert_int_equal(append(&p.a, 1, &p.error), T4_E_PRECONDITION);
    assert_non_null(strstr(p.error.message, "higher term"));
    assert_int_equal(append(&p.b, 2, &p.error), T4_OK);
    assert_int_equal(objectlog_renew(p.a.chain, 0, &p.error), T4_E_PRECONDITION);
    assert_int_equal(lead(&p.a, &p.error), T4_OK);
    assert_int_equal(p.a.next, 6);
    pair_free(&p);
}

/* A leftover of the old leader arrives in the slot that the new one wants: passed over. */
static void
test_a_late_segment_is_passed_over(void **unused)
{
    struct pair p;
    struct buffer object = {0};
    struct t4_object_info info = {.size = sizeof info};
    struct t4_put put = {.size = sizeof put, .condition = T4_PUT_IF_ABSENT};
    struct objectlog_tail tail;
    char key[SLOT_KEY_BYTES];

    (void)unused;
    pair_init(&p, "late");
    assert_int_equal(lead(&p.a, &p.error), T4_OK); /* fence in slot 0 */
    assert_int_equal(append(&p.a, 1, &p.error), T4_OK); /* slot 1 */
    slot_key(key, 1);
    assert_int_equal(object_get(p.a.store, slice_str(key), 0, T4_TO_THE_END, 1u << 20, 0,
                                &object, &info, &p.error), T4_OK);
    assert_int_equal(lead(&p.b, &p.error), T4_OK); /* fence in slot 2 */
    slot_key(key, 3);
    put.key = slice_str(key);
    put.body = buffer_slice(&object); /* of the lower term */
    assert_int_equal(object_put(p.a.store, &put, 0, &info, &p.error), T4_OK);
    assert_int_equal(append(&p.b, 2, &p.error), T4_OK); /* goes to slot 4 */
    assert_int_equal(lead(&p.a, &p.error), T4_OK);
    assert_int_equal(p.a.next, 4);
    assert_int_equal(objectlog_read(p.a.chain, check_entry, &p.a, &tail, &p.error), T4_OK);
    assert_int_equal(tail.segments, 2);
    buffer_free(&object);
    pair_free(&p);
}

static void
test_prefixes_that_are_refused(void **unused)
{
    static const char *const key[] = {"leader-lock", "manifest/latest"};
    struct pair p;
    struct t4_object_info info = {.size = sizeof info};
    struct t4_put put = {.size = sizeof put};
    enum objectlog_found found;
    struct objectlog *c;

    (void)unused;
    for (size_t i = 0; i < 2; i++) {
        struct t4_slice k = slice_str(key[i]);
        char name[16];

        snprintf(name, sizeof name, "refused%zu", i);
        pair_init(&p, name);
        assert_int_equal(lead(&p.a, &p.error), T4_OK);
        assert_int_equal(object_remove(p.a.store, &k, 1, 0, &p.error), T4_OK);
        assert_int_equal(objectlog_open(&p.b.options, &c, &found, &p.error), T4_E_CORRUPT);
        assert_non_null(strstr(p.error.message, key[i]));
        pair_free(&p);
    }
    pair_init(&p, "foreign");
    put.key = slice_str("holiday.jpg");
    assert_int_equal(object_put(p.a.store, &put, 0, &info, &p.error), T4_OK);
    assert_int_equal(objectlog_open(&p.b.options, &c, &found, &p.error), T4_E_CORRUPT);
    assert_non_null(strstr(p.error.hint, "empty prefix"));
    pair_free(&p);
}

static void
test_a_broken_chain_is_named(void **unused)
{
    struct pair p;
    struct t4_slice key = slice_str("wal/00000000000000000002");
    enum objectlog_found found;
    struct objectlog_tail tail;

    (void)unused;
    pair_init(&p, "broken");
    assert_int_equal(lead(&p.a, &p.error), T4_OK);
    for (int i = 0; i < 3; i++)
        assert_int_equal(append(&p.a, 1, &p.error), T4_OK);
    assert_int_equal(object_remove(p.a.store, &key, 1, 0, &p.error), T4_OK);
    /* for who only reads, the missing slot is the tail: nothing behind it is used */
    assert_int_equal(objectlog_open(&p.b.options, &p.b.chain, &found, &p.error), T4_OK);
    assert_int_equal(objectlog_read(p.b.chain, check_entry, &p.b, &tail, &p.error), T4_OK);
    assert_int_equal(tail.last_index, 1);
    pair_free(&p);
}

static void
test_release_is_kept(void **unused)
{
    struct pair p;
    enum objectlog_found found;

    (void)unused;
    pair_init(&p, "release");
    assert_int_equal(lead(&p.a, &p.error), T4_OK);
    assert_int_equal(append(&p.a, 2, &p.error), T4_OK);
    assert_int_equal(objectlog_change_rule(p.a.chain, RULE_LOCAL, &p.error), T4_OK);
    assert_int_equal(objectlog_release(p.a.chain, 2, 9, &p.error), T4_OK);
    assert_int_equal(objectlog_open(&p.b.options, &p.b.chain, &found, &p.error), T4_OK);
    assert_true(objectlog_lock(p.b.chain)->released);
    assert_int_equal(objectlog_lock(p.b.chain)->released_revision, 9);
    assert_int_equal(objectlog_lock(p.b.chain)->rule, RULE_LOCAL);
    pair_free(&p);
}

/* A server that has looked at the lock before it was marked cannot take it afterwards. */
static void
test_a_marked_lock_is_not_taken(void **unused)
{
    struct pair p;
    struct lock_object marked;
    enum objectlog_found found;
    struct objectlog *c;
    uint64_t term = 0;

    (void)unused;
    pair_init(&p, "marked");
    assert_int_equal(lead(&p.a, &p.error), T4_OK);
    assert_int_equal(objectlog_release(p.a.chain, 0, 1, &p.error), T4_OK);
    assert_int_equal(objectlog_open(&p.b.options, &p.b.chain, &found, &p.error), T4_OK);
    marked = *objectlog_lock(p.a.chain);
    marked.move = MOVE_BEGUN;
    snprintf(marked.moved, sizeof marked.moved, "s3://elsewhere/prefix");
    assert_int_equal(objectlog_write_lock(p.a.chain, &marked, &p.error), T4_OK);
    assert_int_equal(objectlog_take_over(p.b.chain, &term, &p.error), T4_E_PRECONDITION);
    assert_int_equal(objectlog_look_at_lock(p.b.chain, &p.error),
                     T4_OK); /* as a waiting one does */
    assert_int_equal(objectlog_take_over(p.b.chain, &term, &p.error), T4_E_INVALID);
    assert_non_null(strstr(p.error.message, "is being moved to s3://elsewhere/prefix"));
    assert_int_equal(objectlog_open(&p.b.options, &c, &found, &p.error), T4_E_INVALID);
    p.b.options.accept_moved = true;
    assert_int_equal(objectlog_open(&p.b.options, &c, &found, &p.error), T4_OK);
    assert_int_equal(objectlog_lock(c)->move, MOVE_BEGUN);
    objectlog_close(c);
    pair_free(&p);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_objects_round_trip),
        cmocka_unit_test(test_checkpoint_keys),
        cmocka_unit_test(test_segment_round_trip),
        cmocka_unit_test(test_the_older_leader_stops),
        cmocka_unit_test(test_a_late_segment_is_passed_over),
        cmocka_unit_test(test_prefixes_that_are_refused),
        cmocka_unit_test(test_a_broken_chain_is_named),
        cmocka_unit_test(test_release_is_kept),
        cmocka_unit_test(test_a_marked_lock_is_not_taken),
        cmocka_unit_test(test_leaders_that_overlap),
    };

    char command[128];
    int failed;

    /* in memory where there is such a folder: nothing here depends on a disk */
    snprintf(folder, sizeof folder, "%s/t4-objectlog-XXXXXX",
             access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
    if (mkdtemp(folder) == NULL)
        return 1;
    failed = cmocka_run_group_tests(tests, NULL, NULL);
    snprintf(command, sizeof command, "rm -rf '%s'", folder);
    return system(command) == 0 ? failed : 1;
}

/*
 * objectlog_test.c - the log in the object store: formats, the protocol, leaders that overlap.
 *
 * The store is a directory (plugins/dir) behind plugins/fault, which loses answers, refuses,
 * throttles and carries requests out late.  The seeded test runs several servers at once that
 * take over from each other all the time; every append that was answered must be in the chain
 * in the end, with its bytes, at its index.  The scripted tests fix the interleavings that the
 * models found: the wrapper's control file holds single requests back.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/memory.h"
#include "codec/codec.h"
#include "engine_bed.h"
#include "env/thread.h"
#include "fmt/entry.h"
#include "objectlog/objectlog.h"
#include "scratch.h"

/* --- formats --------------------------------------------------------------------------------- */

static void
test_objects_round_trip(void **unused)
{
    struct buffer b = {0};
    struct lock_object l = {.cluster_id = 1,
                            .lineage = 2,
                            .counter = 3,
                            .term = 4,
                            .holder = 5,
                            .rule = RULE_LOCAL,
                            .lease_ms = 6,
                            .released = true,
                            .released_index = 7,
                            .released_revision = 8},
                       l2;
    struct manifest_object m = {.cluster_id = 9,
                                .lineage = 10,
                                .generation = 11,
                                .counter = 12,
                                .term = 13,
                                .floor = {14, 15, {16}, 17},
                                .archive = {1, 2, {3}, 4},
                                .barrier = 5},
                           m2;
    struct checkpoint_object k = {.cluster_id = 9,
                                  .lineage = 10,
                                  .generation = 11,
                                  .term = 20,
                                  .index = 21,
                                  .revision = 22,
                                  .compacted = -1,
                                  .time_ms = 23,
                                  .place = {24, 25, {26}, 27},
                                  .n_runs = 2,
                                  .run = {{{28}, 1, 2, 3, false}, {{29}, 4, 5, 6, true}}},
                             k2;
    struct cluster_object c = {18, 19, WINDOW_MAX}, c2;
    struct moving_object v = {20, 21, {22}, "file:///source"}, v2;
    struct restoring_object r = {20, 21, 22, 23, {24}, "some.db"}, r2;

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
    restoring_encode(&b, &r);
    assert_int_equal(restoring_decode(buffer_slice(&b), &r2), T4_OK);
    assert_memory_equal(&r, &r2, sizeof r);
    manifest_encode(&b, &m);
    assert_int_equal(manifest_decode(buffer_slice(&b), &m2), T4_OK);
    assert_memory_equal(&m, &m2, sizeof m);
    checkpoint_encode(&b, &k);
    assert_int_equal(checkpoint_decode(buffer_slice(&b), &k2), T4_OK);
    assert_memory_equal(&k, &k2, sizeof k);
    m.newest = k;
    m.n_checkpoints = 2;
    m.checkpoint[0] =
        (struct checkpoint_name){k.term, k.index, k.time_ms, k.revision, {30}};
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
    assert_false(checkpoint_key_parse(slice_str("checkpoint/7/12-34/manifest"), &term,
                                      &revision, &index));
    key[20] = 'x';
    assert_false(checkpoint_key_parse(slice_str(key), &term, &revision, &index));
}

static void
test_segment_round_trip(void **unused)
{
    struct buffer raw = {0}, packed = {0}, b = {0};
    struct segment s = {.cluster_id = 1,
                        .lineage = 2,
                        .generation = 3,
                        .term = 4,
                        .writer = 5,
                        .rule = RULE_OBJECT,
                        .first_index = 6,
                        .last_index = 7,
                        .committed = 5,
                        .previous = {8}},
                   got;

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

#define ENTRIES_MAX 40000
#define SEGMENT_ENTRIES 8
#define ROUNDS 60 /* terms that each of the servers that overlap tries for */

/* What was acknowledged, of all servers of one test. */
struct record {
    struct mutex turn; /* held over lock, by who leads undisturbed */
    struct mutex lock;
    struct condition changed;
    uint64_t value[ENTRIES_MAX]; /* [index]; 0: never acknowledged */
    uint64_t acknowledged, deposed, terms;
    uint64_t beside;    /* segments that were sent beside another */
    unsigned appending; /* servers that may still acknowledge something */
};

/* A segment that was sent. */
struct sent {
    uint64_t first, value[SEGMENT_ENTRIES];
    unsigned entries;
};

struct server {
    struct object_store *store;
    struct objectlog *chain;
    struct objectlog_options options;
    struct record *record;
    struct chance chance;
    struct thread thread;
    struct buffer raw, entry;
    uint64_t next;                    /* index */
    struct sent sent[WINDOW_MAX + 1]; /* oldest first; and one that does not fit */
    unsigned n_sent;
    t4_status outcome;               /* of a take-over in a thread */
    char control[SCRATCH_ROOM + 64]; /* of its store: the control file */
};

static char folder[SCRATCH_ROOM]; /* of all stores of this program */

/* seed NULL: no chance; control NULL: no control file, and no log of the requests */
static struct object_store *
open_store(const char *name, const char *seed, const char *control, const char *log)
{
    struct plugin_setting scripted[] = {{"fault.control", control}, {"fault.log", log}};
    struct plugin_setting by_chance[] = {
        {"fault.seed", seed},         {"fault.error_before", "0.07"},
        {"fault.error_after", "0.1"}, {"fault.lost", "0.07"},
        {"fault.late", "0.1"},        {"fault.late_ms", "4"},
        {"fault.throttle", "0.05"},
    };
    struct object_options o = {.env = env_posix(), .plugin_dir = build_folder("plugins")};
    struct object_store *s;
    struct error e;
    char url[SCRATCH_ROOM + 64];

    snprintf(url, sizeof url, "%sfile://%s/%s",
             seed != NULL || control != NULL ? "fault+" : "", folder, name);
    o.settings = control != NULL ? scripted : by_chance;
    o.n_settings = control != NULL ? sizeof scripted / sizeof scripted[0]
                   : seed != NULL  ? sizeof by_chance / sizeof by_chance[0]
                                   : 0;
    if (object_open(url, &o, &s, &e) != T4_OK)
        fail_msg("%s (%s)", e.message, e.hint);
    return s;
}

static void
server_init(struct server *s, const char *name, const char *seed, bool scripted,
            uint64_t incarnation)
{
    char log[sizeof s->control + 4];

    memset(s, 0, sizeof *s);
    snprintf(s->control, sizeof s->control, "%s/%s-%llu.control", folder, name,
             (unsigned long long)incarnation);
    snprintf(log, sizeof log, "%s.log", s->control);
    s->store = open_store(name, seed, scripted ? s->control : NULL, log);
    s->options = (struct objectlog_options){.env = env_posix(),
                                            .store = s->store,
                                            .incarnation = incarnation,
                                            .address = "nowhere",
                                            .first_pause_ns = 20000,
                                            .window = WINDOW_MAX,
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
check_entry(void *arg, uint64_t index, struct t4_slice entry,
            const struct segment *segment, struct error *error)
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
    uint64_t term = 0;
    t4_status status;

    objectlog_close(s->chain);
    s->chain = NULL;
    s->n_sent = 0;
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

/* Sends a segment of so many entries. */
static t4_status
append_begin(struct server *s, unsigned entries, struct error *error)
{
    struct sent *sent = &s->sent[s->n_sent];
    t4_status status;

    sent->first = s->next;
    sent->entries = entries;
    buffer_clear(&s->raw);
    for (unsigned i = 0; i < entries; i++) {
        struct entry e = {
            .kind = ENTRY_NORMAL, .index = s->next + i, .term = 1, .mutations = 1};
        struct mutation m = {.space = SPACE_KEYS, .key = slice_str("k")};
        uint8_t bytes[8];

        sent->value[i] = chance_next(&s->chance) | 1;
        put_u64le(bytes, sent->value[i]);
        m.value = slice_of(bytes, 8);
        buffer_clear(&s->entry);
        entry_encode_head(&s->entry, &e);
        entry_add(&s->entry, &m);
        segment_entry_append(&s->raw, buffer_slice(&s->entry));
    }
    status = objectlog_append_begin(s->chain, s->next, s->next + entries - 1, 0,
                                    buffer_slice(&s->raw), error);
    if (status != T4_OK)
        return status;
    s->next += entries;
    s->n_sent++;
    return T4_OK;
}

static void
acknowledge(struct record *record, const struct sent *sent)
{
    mutex_lock(&record->lock);
    for (unsigned i = 0; i < sent->entries; i++) {
        uint64_t *place = &record->value[sent->first + i];

        if (*place != 0) {
            fprintf(stderr, "# entry %llu was acknowledged twice\n",
                    (unsigned long long)(sent->first + i));
            abort();
        }
        *place = sent->value[i];
    }
    record->acknowledged += sent->entries;
    condition_broadcast(&record->changed);
    mutex_unlock(&record->lock);
}

/* Waits for the oldest, which is acknowledged then. */
static t4_status
append_end(struct server *s, struct error *error)
{
    uint64_t last;
    t4_status status = objectlog_append_wait(s->chain, &last, error);

    if (status != T4_OK)
        return status;
    assert_int_equal(last, s->sent[0].first + s->sent[0].entries - 1);
    acknowledge(s->record, &s->sent[0]);
    memmove(s->sent, s->sent + 1, --s->n_sent * sizeof s->sent[0]);
    return T4_OK;
}

static t4_status
append(struct server *s, unsigned entries, struct error *error)
{
    t4_status status = append_begin(s, entries, error);

    return status == T4_OK ? append_end(s, error) : status;
}

/* As many segments, with as many in flight as chance and the window want. */
static t4_status
append_many(struct server *s, unsigned segments, struct error *error)
{
    t4_status status = T4_OK;
    uint64_t beside = 0;

    while (status == T4_OK && (segments > 0 || s->n_sent > 0)) {
        bool fits = segments > 0 && objectlog_append_fits(s->chain);

        if (s->n_sent == 0 || (fits && chance_below(&s->chance, 4) > 0)) {
            beside += s->n_sent > 0;
            segments--;
            status = append_begin(s, 1 + (unsigned)chance_below(&s->chance, 4), error);
        } else {
            status = append_end(s, error);
        }
    }
    mutex_lock(&s->record->lock);
    s->record->beside += beside;
    mutex_unlock(&s->record->lock);
    return status;
}

/* Lets whoever leads get on for a while; not for ever, since nobody may be leading. */
static void
let_others_append(struct server *s)
{
    struct record *r = s->record;
    uint64_t enough = chance_below(&s->chance, 4) > 0 ? chance_below(&s->chance, 120) : 0;

    mutex_lock(&r->lock);
    enough += r->acknowledged;
    while (r->appending > 0 && r->acknowledged < enough)
        condition_wait(&r->changed, &r->lock);
    mutex_unlock(&r->lock);
}

static void
one_round(struct server *s)
{
    struct error error;
    t4_status status = lead(s, &error);

    mutex_lock(&s->record->lock);
    s->record->terms += status == T4_OK;
    s->record->appending += status == T4_OK;
    mutex_unlock(&s->record->lock);
    if (status == T4_OK) {
        status = append_many(s, 1 + (unsigned)chance_below(&s->chance, 60), &error);
        mutex_lock(&s->record->lock);
        s->record->appending--;
        condition_broadcast(&s->record->changed);
        mutex_unlock(&s->record->lock);
    }
    if (status == T4_E_PRECONDITION) {
        mutex_lock(&s->record->lock);
        s->record->deposed++;
        mutex_unlock(&s->record->lock);
    } else if (status == T4_E_CORRUPT || status == T4_E_INVALID) {
        fprintf(stderr, "# %s\n", error.message);
        abort();
    }
}

/* Were two segments once in flight at the same time? */
static bool
were_beside(struct record *r)
{
    bool were;

    mutex_lock(&r->lock);
    were = r->beside > 0;
    mutex_unlock(&r->lock);
    return were;
}

/*
 * Where reading the log takes longer than being deposed, nobody gets as far as two segments: then
 * some more rounds follow that take turns.
 */
static void *
server_main(void *arg)
{
    struct server *s = arg;

    for (unsigned i = 0; i < ROUNDS; i++) {
        let_others_append(s);
        one_round(s);
    }
    for (unsigned i = 0; i < ROUNDS && !were_beside(s->record); i++) {
        mutex_lock(&s->record->turn);
        one_round(s);
        mutex_unlock(&s->record->turn);
    }
    return NULL;
}

static struct record *
record_new(void)
{
    struct record *r = mem_zalloc(sizeof *r);

    mutex_init(&r->turn);
    mutex_init(&r->lock);
    condition_init(&r->changed);
    return r;
}

static void
record_free(struct record *r)
{
    condition_destroy(&r->changed);
    mutex_destroy(&r->lock);
    mutex_destroy(&r->turn);
    mem_free(r);
}

static void
test_leaders_that_overlap(void **unused)
{
    struct server s[4];
    struct record *record = record_new();
    struct error error;
    char seed[24];
    uint64_t n = test_seed() % 1000000 + 1, last = 0;
    struct chance chance = {n};

    (void)unused;
    snprintf(seed, sizeof seed, "%llu", (unsigned long long)n);
    for (unsigned i = 0; i < 4; i++) {
        server_init(&s[i], "overlap", seed, false, 100 + i);
        s[i].options.window = WINDOW_MAX >> i; /* they need not agree on it: 4, 2, 1 */
        s[i].record = record;
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
    print_message(
        "# seed %s: %llu entries acknowledged in %llu terms, deposed %llu times; "
        "%llu segments sent beside others\n",
        seed, (unsigned long long)record->acknowledged, (unsigned long long)record->terms,
        (unsigned long long)record->deposed, (unsigned long long)record->beside);
    assert_true(record->acknowledged > 20 && record->deposed > 5 && record->beside > 0);
    for (unsigned i = 0; i < 4; i++)
        server_free(&s[i]);
    record_free(record);
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
    p->record = record_new();
    server_init(&p->a, name, NULL, true, 1);
    server_init(&p->b, name, NULL, true, 2);
    p->a.record = p->b.record = p->record;
    p->a.chance.state = 1;
    p->b.chance.state = 2;
}

static void
pair_free(struct pair *p)
{
    server_free(&p->a);
    server_free(&p->b);
    record_free(p->record);
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

/* The control file of the server's store. */
static void
control(struct server *s, const char *format, ...)
{
    char other[sizeof s->control + 4];
    va_list args;
    FILE *f;

    snprintf(other, sizeof other, "%s.new", s->control);
    f = fopen(other, "w");
    assert_non_null(f);
    va_start(args, format);
    vfprintf(f, format, args);
    va_end(args);
    assert_int_equal(fclose(f), 0);
    assert_int_equal(rename(other, s->control), 0);
}

static bool
is_there(struct server *s, uint64_t slot)
{
    struct t4_object_info info = {.size = sizeof info};
    struct error error;
    char key[SLOT_KEY_BYTES];

    slot_key(key, slot);
    return object_head(s->store, slice_str(key), 0, &info, &error) == T4_OK;
}

/* Waits for a request that somebody else has sent. */
static void
wait_for_slot(struct server *s, uint64_t slot)
{
    while (!is_there(s, slot))
        sched_yield();
}

/* Waits until the server has had an answer to such a request. */
static void
wait_for_request(struct server *s, const char *request)
{
    char name[sizeof s->control + 4], line[256];
    bool found = false;

    snprintf(name, sizeof name, "%s.log", s->control);
    while (!found) {
        FILE *f = fopen(name, "r");

        while (f != NULL && !found && fgets(line, sizeof line, f) != NULL)
            found = strncmp(line, request, strlen(request)) == 0;
        if (f != NULL)
            fclose(f);
    }
}

static uint64_t
next_slot(struct server *s)
{
    struct chain_floor place;

    objectlog_place(s->chain, &place);
    return place.next_slot;
}

/* Somebody else fills the slot with what stands in another one. */
static void
copy_slot(struct server *s, uint64_t from, uint64_t to)
{
    struct buffer object = {0};
    struct t4_object_info info = {.size = sizeof info};
    struct t4_put put = {.size = sizeof put, .condition = T4_PUT_IF_ABSENT};
    struct error error;
    char key[SLOT_KEY_BYTES];

    slot_key(key, from);
    assert_int_equal(object_get(s->store, slice_str(key), 0, T4_TO_THE_END, 1u << 20, 0,
                                &object, &info, &error),
                     T4_OK);
    slot_key(key, to);
    put.key = slice_str(key);
    put.body = buffer_slice(&object);
    assert_int_equal(object_put(s->store, &put, 0, &info, &error), T4_OK);
    buffer_free(&object);
}

/* Leads, with a fence in slot 0, and fills slots up to the one before `slot`. */
static void
lead_up_to(struct pair *p, uint64_t slot)
{
    assert_int_equal(lead(&p->a, &p->error), T4_OK);
    while (next_slot(&p->a) < slot)
        assert_int_equal(append(&p->a, 1, &p->error), T4_OK);
}

/* Whatever was acknowledged is there, with its bytes, and nothing is broken. */
static void
check_chain(struct pair *p, uint64_t next)
{
    struct server reader;

    server_init(&reader, strrchr(object_url(p->a.store), '/') + 1, NULL, false, 9);
    reader.record = p->record;
    assert_int_equal(lead(&reader, &p->error), T4_OK);
    assert_int_equal(reader.next, next);
    for (uint64_t i = 1; i < next; i++) /* all are compared, none was lost */
        assert_true(p->record->value[i] != 0);
    server_free(&reader);
}

/* Four in flight, from the slot on that no lower term can get into. */
static void
test_the_window_opens(void **unused)
{
    struct pair p;

    (void)unused;
    pair_init(&p, "opens");
    lead_up_to(&p, 1);
    while (next_slot(&p.a) < WINDOW_MAX) {
        assert_int_equal(append_begin(&p.a, 1, &p.error), T4_OK);
        assert_false(objectlog_append_fits(p.a.chain));
        assert_int_equal(append_end(&p.a, &p.error), T4_OK);
    }
    control(&p.a, "hold put wal/%020u\n", WINDOW_MAX);
    for (uint64_t i = 0; i < WINDOW_MAX; i++) {
        assert_true(objectlog_append_fits(p.a.chain));
        assert_int_equal(append_begin(&p.a, 2, &p.error), T4_OK);
        if (i > 0)
            wait_for_slot(&p.b, WINDOW_MAX + i);
    }
    assert_false(objectlog_append_fits(p.a.chain));
    assert_int_equal(append_begin(&p.a, 1, &p.error), T4_E_INVALID);
    assert_false(
        objectlog_append_is_decided(p.a.chain)); /* three are stored: in order only */
    assert_int_equal(next_slot(&p.a), WINDOW_MAX);
    control(&p.a, "");
    for (uint64_t i = 0; i < WINDOW_MAX; i++) {
        assert_int_equal(append_end(&p.a, &p.error), T4_OK);
        assert_int_equal(next_slot(&p.a), WINDOW_MAX + i + 1);
    }
    assert_int_equal(append_end(&p.a, &p.error), T4_E_INVALID); /* nothing is in flight */
    check_chain(&p, p.a.next);
    pair_free(&p);
}

static void
test_answers_that_are_lost_in_the_window(void **unused)
{
    struct pair p;

    (void)unused;
    pair_init(&p, "ambiguous");
    lead_up_to(&p, WINDOW_MAX);
    control(&p.a,
            "fail put wal/%020u 2 after\nfail put wal/%020u 3 lost\n"
            "fail put wal/%020u 1 late 0\nfail put wal/%020u 2 before\n",
            WINDOW_MAX, WINDOW_MAX + 1, WINDOW_MAX + 2, WINDOW_MAX + 3);
    for (uint64_t i = 0; i < WINDOW_MAX; i++)
        assert_int_equal(append_begin(&p.a, 2, &p.error), T4_OK);
    for (uint64_t i = 0; i < WINDOW_MAX; i++)
        assert_int_equal(append_end(&p.a, &p.error), T4_OK);
    assert_int_equal(next_slot(&p.a),
                     2 * WINDOW_MAX); /* each in the slot it was sent to */
    check_chain(&p, p.a.next);
    pair_free(&p);
}

/* What was stored before the higher term's fence is acknowledged, nothing behind it. */
static void
test_deposed_in_the_window(void **unused)
{
    struct pair p;
    uint64_t kept;

    (void)unused;
    pair_init(&p, "deposed");
    lead_up_to(&p, WINDOW_MAX);
    control(&p.a, "hold put wal/%020u\nhold put wal/%020u\n", WINDOW_MAX + 1,
            WINDOW_MAX + 3);
    for (uint64_t i = 0; i < WINDOW_MAX; i++)
        assert_int_equal(append_begin(&p.a, 1, &p.error), T4_OK);
    kept = p.a.sent[1].first;
    wait_for_slot(&p.b, WINDOW_MAX);
    wait_for_slot(&p.b, WINDOW_MAX + 2);
    assert_int_equal(lead(&p.b, &p.error),
                     T4_OK); /* fence in the second slot of the four */
    assert_int_equal(p.b.next, kept);
    control(&p.a, "");
    wait_for_slot(&p.b, WINDOW_MAX + 3); /* a leftover, too */
    assert_int_equal(append_end(&p.a, &p.error), T4_OK);
    assert_int_equal(append_end(&p.a, &p.error), T4_E_PRECONDITION);
    assert_non_null(strstr(p.error.message, "higher term"));
    assert_int_equal(append_end(&p.a, &p.error), T4_E_INVALID);
    assert_false(objectlog_append_fits(p.a.chain));
    assert_int_equal(append(&p.b, 2, &p.error), T4_OK); /* past the leftovers */
    assert_int_equal(next_slot(&p.b), WINDOW_MAX + 5);
    check_chain(&p, p.b.next);
    pair_free(&p);
}

/* No rule allows it; the segment behind may be stored, so nothing more can be appended. */
static void
test_a_lower_term_where_none_can_be(void **unused)
{
    struct pair p;

    (void)unused;
    pair_init(&p, "cannot");
    assert_int_equal(lead(&p.b, &p.error), T4_OK); /* fence in slot 0 */
    assert_int_equal(append(&p.b, 1, &p.error), T4_OK);
    assert_int_equal(lead(&p.a, &p.error), T4_OK); /* fence in slot 2 */
    while (next_slot(&p.a) < 2 + WINDOW_MAX)
        assert_int_equal(append(&p.a, 1, &p.error), T4_OK);
    control(&p.a, "hold put wal/%020u\n", 2 + WINDOW_MAX);
    assert_int_equal(append_begin(&p.a, 1, &p.error), T4_OK);
    assert_int_equal(append_begin(&p.a, 1, &p.error), T4_OK);
    wait_for_slot(&p.b, 3 + WINDOW_MAX);
    copy_slot(&p.b, 1, 2 + WINDOW_MAX);
    control(&p.a, "");
    assert_int_equal(append_end(&p.a, &p.error), T4_E_CORRUPT);
    assert_non_null(strstr(p.error.message, "an older leader wrote where it cannot"));
    assert_int_equal(append_begin(&p.a, 1, &p.error), T4_E_INVALID);
    pair_free(&p);
}

static void
test_stop_with_segments_in_flight(void **unused)
{
    struct pair p;

    (void)unused;
    pair_init(&p, "stop");
    lead_up_to(&p, WINDOW_MAX);
    control(&p.a, "outage\n");
    for (uint64_t i = 0; i < WINDOW_MAX; i++)
        assert_int_equal(append_begin(&p.a, 1, &p.error), T4_OK);
    objectlog_stop(p.a.chain);
    assert_int_equal(append_end(&p.a, &p.error), T4_E_CANCELLED);
    objectlog_close(p.a.chain);
    p.a.chain = NULL;
    control(&p.a, "");
    check_chain(&p, WINDOW_MAX);
    pair_free(&p);
}

static void
tell(void *arg)
{
    struct record *r = arg;

    mutex_lock(&r->lock);
    condition_broadcast(&r->changed);
    mutex_unlock(&r->lock);
}

/* Nobody has to ask: the oldest one's end is told. */
static void
test_the_end_of_the_oldest_is_told(void **unused)
{
    struct pair p;

    (void)unused;
    pair_init(&p, "told");
    p.a.options.arg = p.record;
    p.a.options.decided = tell;
    lead_up_to(&p, WINDOW_MAX);
    for (uint64_t i = 0; i < 8; i++) {
        control(&p.a, "hold put wal/\n");
        assert_int_equal(append_begin(&p.a, 1, &p.error), T4_OK);
        assert_int_equal(append_begin(&p.a, 1, &p.error), T4_OK);
        control(&p.a, "");
        mutex_lock(&p.record->lock);
        while (!objectlog_append_is_decided(p.a.chain))
            condition_wait(&p.record->changed, &p.record->lock);
        mutex_unlock(&p.record->lock);
        assert_int_equal(append_end(&p.a, &p.error), T4_OK);
        assert_int_equal(append_end(&p.a, &p.error), T4_OK);
    }
    pair_free(&p);
}

/* --- take-overs that stall --------------------------------------------------------------------- */

static void *
lead_main(void *arg)
{
    struct server *s = arg;
    struct error error;

    s->outcome = lead(s, &error);
    return NULL;
}

/* Begins to take over; the request that the control file holds is the last. */
static void
lead_beside(struct server *s)
{
    thread_start(&s->thread, "candidate", lead_main, s);
}

static t4_status
outcome_of(struct server *s)
{
    thread_join(&s->thread);
    return s->outcome;
}

/* Waits until a term is in the lock and a barrier is announced in the manifest. */
static void
wait_for(struct server *s, uint64_t term, uint64_t barrier)
{
    bool both = false;

    while (!both) {
        struct objectlog *c;
        enum objectlog_found found;
        struct error error;

        assert_int_equal(objectlog_open(&s->options, &c, &found, &error), T4_OK);
        both =
            objectlog_lock(c)->term >= term && objectlog_manifest(c)->barrier >= barrier;
        objectlog_close(c);
    }
}

/*
 * A candidate lists the slots, stalls, and goes on while a newer leader has several in flight:
 * its fence must not get among them (chain.pml: LISTLATE).
 */
static void
test_a_stalled_candidate_fences_nothing(void **unused)
{
    struct pair p;
    uint64_t next;

    (void)unused;
    pair_init(&p, "stalled");
    lead_up_to(&p, 3);
    control(&p.b, "hold list wal/\n");
    lead_beside(&p.b); /* term 3 */
    wait_for(&p.a, 3, 0);
    lead_up_to(&p, 12); /* term 4; it is in the manifest, and the window is open */
    next = next_slot(&p.a);
    control(&p.b, "");
    assert_int_equal(outcome_of(&p.b), T4_E_PRECONDITION);
    assert_false(is_there(&p.a, next));
    assert_int_equal(append(&p.a, 1, &p.error), T4_OK);
    assert_int_equal(next_slot(&p.a), next + 1);
    check_chain(&p, p.a.next);
    pair_free(&p);
}

/*
 * A candidate stalls before its fence.  When it goes on its slot is free again: a newer leader has
 * moved the floor above it, and what stood there was deleted.  Its fence fences nothing, and
 * only the second look at the manifest says so (chain.pml: NOLOOK).
 */
static void
test_the_second_look(void **unused)
{
    struct pair p;
    struct manifest_object next;
    char key[SLOT_KEY_BYTES];
    struct t4_slice slot;

    (void)unused;
    pair_init(&p, "second-look");
    lead_up_to(&p, 3);
    control(&p.b, "hold put wal/\n");
    lead_beside(&p.b);                       /* term 3 */
    wait_for_request(&p.b, "put manifest/"); /* it has found slot 3 free */
    assert_int_equal(append(&p.a, 1, &p.error), T4_OK);
    assert_int_equal(append(&p.a, 1, &p.error), T4_OK);
    assert_int_equal(lead(&p.a, &p.error), T4_OK); /* term 4, its fence in slot 5 */
    assert_int_equal(append(&p.a, 1, &p.error), T4_OK);
    next = *objectlog_manifest(p.a.chain);
    objectlog_place(p.a.chain, &next.floor);
    next.archive = next.floor;
    assert_int_equal(objectlog_write_manifest(p.a.chain, 4, &next, &p.error), T4_OK);
    for (uint64_t i = 1; i < 5; i++) {
        slot_key(key, i);
        slot = slice_str(key);
        assert_int_equal(object_remove(p.a.store, &slot, 1, 0, &p.error), T4_OK);
    }
    control(&p.b, "");
    assert_int_equal(outcome_of(&p.b), T4_E_PRECONDITION);
    assert_true(is_there(&p.a, 3)); /* it has put its fence */
    assert_int_equal(append(&p.a, 1, &p.error), T4_OK);
    pair_free(&p);
}

/* The candidate finds three slots filled that were free when it listed: it puts a barrier. */
static uint64_t
stall_before_the_barrier(struct pair *p)
{
    lead_up_to(p, 3);
    control(&p->b, "hold put manifest/\n");
    lead_beside(&p->b);                   /* term 3 */
    wait_for_request(&p->b, "list wal/"); /* up to slot 2 */
    for (int i = 0; i < 4; i++)
        assert_int_equal(append(&p->a, 1, &p->error), T4_OK);
    return 7 + 8; /* slots 3 to 6 are filled; eight ahead of the first free one */
}

static void
test_our_own_barrier_is_passed_over(void **unused)
{
    struct pair p;
    uint64_t barrier;

    (void)unused;
    pair_init(&p, "barrier");
    barrier = stall_before_the_barrier(&p);
    control(&p.b, "");
    assert_int_equal(outcome_of(&p.b), T4_OK);
    assert_true(is_there(&p.a, barrier));
    assert_int_equal(append(&p.a, 1, &p.error), T4_E_PRECONDITION);
    while (next_slot(&p.b) <= barrier) { /* one by one, the barrier's slot included */
        assert_int_equal(append_begin(&p.b, 1, &p.error), T4_OK);
        if (next_slot(&p.b) < barrier)
            assert_false(objectlog_append_fits(p.b.chain));
        assert_int_equal(append_end(&p.b, &p.error), T4_OK);
    }
    assert_int_equal(next_slot(&p.b), barrier + 2);
    assert_int_equal(append_begin(&p.b, 1, &p.error), T4_OK);
    assert_true(objectlog_append_fits(p.b.chain));
    assert_int_equal(append_begin(&p.b, 1, &p.error), T4_OK);
    assert_int_equal(append_end(&p.b, &p.error), T4_OK);
    assert_int_equal(append_end(&p.b, &p.error), T4_OK);
    check_chain(&p, p.b.next);
    pair_free(&p);
}

/* A barrier that comes late gets among nobody's segments: it was announced (SILENT). */
static void
test_a_late_barrier(void **unused)
{
    struct pair p;
    uint64_t barrier;

    (void)unused;
    pair_init(&p, "late-barrier");
    barrier = stall_before_the_barrier(&p);
    control(&p.b, "hold put wal/%020llu\n", (unsigned long long)barrier);
    wait_for(&p.a, 3, barrier);
    lead_up_to(&p, barrier); /* term 4 */
    control(&p.a, "hold put wal/%020llu\n", (unsigned long long)barrier);
    assert_int_equal(append_begin(&p.a, 1, &p.error), T4_OK);
    assert_false(objectlog_append_fits(p.a.chain));
    control(&p.b, "");
    assert_int_equal(outcome_of(&p.b), T4_E_PRECONDITION);
    assert_true(is_there(&p.b, barrier));
    control(&p.a, "");
    assert_int_equal(append_end(&p.a, &p.error), T4_OK);
    assert_int_equal(next_slot(&p.a), barrier + 2);
    check_chain(&p, p.a.next);
    pair_free(&p);
}

/* A leftover of the old leader arrives in the slot that the new one wants: passed over. */
static void
test_a_late_segment_is_passed_over(void **unused)
{
    struct pair p;
    struct objectlog_tail tail;

    (void)unused;
    pair_init(&p, "late");
    assert_int_equal(lead(&p.a, &p.error), T4_OK);      /* fence in slot 0 */
    assert_int_equal(append(&p.a, 1, &p.error), T4_OK); /* slot 1 */
    assert_int_equal(lead(&p.b, &p.error), T4_OK);      /* fence in slot 2 */
    control(&p.b, "hold put wal/%020u\n", 3);
    assert_int_equal(append_begin(&p.b, 2, &p.error), T4_OK);
    copy_slot(&p.a, 1, 3); /* of the lower term */
    assert_false(objectlog_append_fits(p.b.chain));
    control(&p.b, "");
    assert_int_equal(append_end(&p.b, &p.error), T4_OK); /* goes to slot 4 */
    assert_int_equal(next_slot(&p.b), 5);
    assert_int_equal(lead(&p.a, &p.error), T4_OK);
    assert_int_equal(p.a.next, 4);
    assert_int_equal(objectlog_read(p.a.chain, check_entry, &p.a, &tail, &p.error),
                     T4_OK);
    assert_int_equal(tail.segments, 2);
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
        assert_int_equal(objectlog_open(&p.b.options, &c, &found, &p.error),
                         T4_E_CORRUPT);
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
    assert_int_equal(objectlog_read(p.b.chain, check_entry, &p.b, &tail, &p.error),
                     T4_OK);
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
        cmocka_unit_test(test_the_window_opens),
        cmocka_unit_test(test_answers_that_are_lost_in_the_window),
        cmocka_unit_test(test_deposed_in_the_window),
        cmocka_unit_test(test_a_lower_term_where_none_can_be),
        cmocka_unit_test(test_stop_with_segments_in_flight),
        cmocka_unit_test(test_the_end_of_the_oldest_is_told),
        cmocka_unit_test(test_a_stalled_candidate_fences_nothing),
        cmocka_unit_test(test_the_second_look),
        cmocka_unit_test(test_our_own_barrier_is_passed_over),
        cmocka_unit_test(test_a_late_barrier),
        cmocka_unit_test(test_a_marked_lock_is_not_taken),
        cmocka_unit_test(test_leaders_that_overlap),
    };

    int failed;

    scratch_make_in_memory(folder, sizeof folder, "t4-objectlog");
    failed = cmocka_run_group_tests(tests, NULL, NULL);
    scratch_remove(folder);
    return failed;
}

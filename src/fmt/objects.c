/*
 * objects.c - encoding of `cluster`, `leader-lock`, `manifest/latest`, `moving` and checkpoints.
 *
 * Lines in this order:
 *   t4-cluster 1 · cluster · lineage · window · crc
 *   t4-lock 1 · cluster · lineage · counter · put-id · term · holder · address · rule
 *     (object, local) · lease-ms · released (no, or yes) · released-index · released-revision ·
 *     moved (empty) · crc
 *   Format 2, of a lock that is marked by a move: moved is the location, and behind it
 *     move (begun, done)
 *   t4-moving 1 · cluster · lineage · put-id · source · crc
 *   t4-checkpoint 1 · cluster · lineage · generation · term · index · revision · compacted ·
 *     time-ms · place-slot · place-term · place-hash · place-index · runs (how many), then for
 *     each, newest first: run-hash · run-term · run-index · run-bytes · run-base (0 or 1) · crc
 *   t4-manifest 3 · cluster · lineage · generation · counter · put-id · term ·
 *     floor-slot · floor-term · floor-hash · floor-index ·
 *     archive-slot · archive-term · archive-hash · archive-index · barrier · checkpoints (how many) ·
 *     if there are any: the lines of the newest checkpoint from index on, then for each, newest
 *     first: checkpoint-term · -index · -revision · -time-ms · -hash · crc
 *   Format 1 of the manifest ended behind floor-index: read as one without checkpoints.  Format 2
 *   had no barrier: read as 0.
 * A revision of -1 is written as 18446744073709551615.  Ids are 16 hexadecimal digits, hashes 64, put ids 32, everything else decimal.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "fmt/objects.h"

#include <inttypes.h>
#include <stdio.h>

#include "fmt/text.h"

#define FORMAT 1
#define MANIFEST_FORMAT 3
#define LOCK_FORMAT 2 /* of a marked lock; an older server must not take it for another */

static const char *const rule_name[] = {"", "object", "local"};
static const char *const move_name[] = {"", "begun", "done"};

static t4_status
verdict(struct text_reader *r, unsigned format, unsigned newest)
{
    if (format > newest)
        return T4_E_UNSUPPORTED;
    return text_close(r) && format >= 1 ? T4_OK : T4_E_CORRUPT;
}

void
cluster_encode(struct buffer *out, const struct cluster_object *c)
{
    text_begin(out, "t4-cluster", FORMAT);
    text_hex(out, "cluster", c->cluster_id);
    text_hex(out, "lineage", c->lineage);
    text_u64(out, "window", c->window_max);
    text_end(out);
}

t4_status
cluster_decode(struct t4_slice text, struct cluster_object *c)
{
    struct text_reader r;
    unsigned format;

    *c = (struct cluster_object){0};
    text_open(&r, text, "t4-cluster", &format);
    c->cluster_id = text_read_hex(&r, "cluster");
    c->lineage = text_read_hex(&r, "lineage");
    c->window_max = (uint32_t)text_read_u64(&r, "window");
    if (c->window_max < 1 || c->window_max > 64)
        r.bad = true;
    return verdict(&r, format, FORMAT);
}

void
lock_encode(struct buffer *out, const struct lock_object *l)
{
    text_begin(out, "t4-lock", l->move != MOVE_NONE ? LOCK_FORMAT : FORMAT);
    text_hex(out, "cluster", l->cluster_id);
    text_hex(out, "lineage", l->lineage);
    text_u64(out, "counter", l->counter);
    text_bytes(out, "put-id", l->put_id, PUT_ID_BYTES);
    text_u64(out, "term", l->term);
    text_hex(out, "holder", l->holder);
    text_string(out, "address", l->address);
    text_string(out, "rule", rule_name[l->rule]);
    text_u64(out, "lease-ms", l->lease_ms);
    text_string(out, "released", l->released ? "yes" : "no");
    text_u64(out, "released-index", l->released_index);
    text_u64(out, "released-revision", (uint64_t)l->released_revision);
    text_string(out, "moved", l->moved);
    if (l->move != MOVE_NONE)
        text_string(out, "move", move_name[l->move]);
    text_end(out);
}

/* A lock of format 1 is not marked; one of format 2 says by what. */
static void
read_move(struct text_reader *r, unsigned format, struct lock_object *l)
{
    char word[16];

    text_read_string(r, "moved", l->moved, sizeof l->moved);
    if (format >= LOCK_FORMAT) {
        text_read_string(r, "move", word, sizeof word);
        if (strcmp(word, move_name[MOVE_BEGUN]) == 0)
            l->move = MOVE_BEGUN;
        else if (strcmp(word, move_name[MOVE_DONE]) == 0)
            l->move = MOVE_DONE;
    }
    if ((l->move != MOVE_NONE) != (format >= LOCK_FORMAT) ||
        (l->move != MOVE_NONE) != (l->moved[0] != '\0'))
        r->bad = true;
}

t4_status
lock_decode(struct t4_slice text, struct lock_object *l)
{
    struct text_reader r;
    unsigned format;
    char word[16];

    memset(l, 0, sizeof *l);
    text_open(&r, text, "t4-lock", &format);
    l->cluster_id = text_read_hex(&r, "cluster");
    l->lineage = text_read_hex(&r, "lineage");
    l->counter = text_read_u64(&r, "counter");
    text_read_bytes(&r, "put-id", l->put_id, PUT_ID_BYTES);
    l->term = text_read_u64(&r, "term");
    l->holder = text_read_hex(&r, "holder");
    text_read_string(&r, "address", l->address, sizeof l->address);
    text_read_string(&r, "rule", word, sizeof word);
    if (strcmp(word, rule_name[RULE_OBJECT]) == 0)
        l->rule = RULE_OBJECT;
    else if (strcmp(word, rule_name[RULE_LOCAL]) == 0)
        l->rule = RULE_LOCAL;
    else
        r.bad = true;
    l->lease_ms = text_read_u64(&r, "lease-ms");
    text_read_string(&r, "released", word, sizeof word);
    l->released = strcmp(word, "yes") == 0;
    if (!l->released && strcmp(word, "no") != 0)
        r.bad = true;
    l->released_index = text_read_u64(&r, "released-index");
    l->released_revision = (int64_t)text_read_u64(&r, "released-revision");
    read_move(&r, format, l);
    return verdict(&r, format, LOCK_FORMAT);
}

/* --- a move ------------------------------------------------------------------------------ */

void
moving_encode(struct buffer *out, const struct moving_object *m)
{
    text_begin(out, "t4-moving", FORMAT);
    text_hex(out, "cluster", m->cluster_id);
    text_hex(out, "lineage", m->lineage);
    text_bytes(out, "put-id", m->put_id, PUT_ID_BYTES);
    text_string(out, "source", m->source);
    text_end(out);
}

t4_status
moving_decode(struct t4_slice text, struct moving_object *m)
{
    struct text_reader r;
    unsigned format;

    memset(m, 0, sizeof *m);
    text_open(&r, text, "t4-moving", &format);
    m->cluster_id = text_read_hex(&r, "cluster");
    m->lineage = text_read_hex(&r, "lineage");
    text_read_bytes(&r, "put-id", m->put_id, PUT_ID_BYTES);
    text_read_string(&r, "source", m->source, sizeof m->source);
    return verdict(&r, format, FORMAT);
}

void
restoring_encode(struct buffer *out, const struct restoring_object *o)
{
    text_begin(out, "t4-restoring", FORMAT);
    text_hex(out, "cluster", o->cluster_id);
    text_hex(out, "lineage", o->lineage);
    text_hex(out, "holder", o->holder);
    text_u64(out, "time-ms", o->time_ms);
    text_bytes(out, "snapshot", o->sha256, HASH_BYTES);
    text_string(out, "source", o->source);
    text_end(out);
}

t4_status
restoring_decode(struct t4_slice text, struct restoring_object *o)
{
    struct text_reader r;
    unsigned format;

    memset(o, 0, sizeof *o);
    text_open(&r, text, "t4-restoring", &format);
    o->cluster_id = text_read_hex(&r, "cluster");
    o->lineage = text_read_hex(&r, "lineage");
    o->holder = text_read_hex(&r, "holder");
    o->time_ms = text_read_u64(&r, "time-ms");
    text_read_bytes(&r, "snapshot", o->sha256, HASH_BYTES);
    text_read_string(&r, "source", o->source, sizeof o->source);
    return verdict(&r, format, FORMAT);
}

/* --- checkpoints ------------------------------------------------------------------------- */

static void
place_text(struct buffer *out, const char *const name[4], const struct chain_floor *f)
{
    text_u64(out, name[0], f->next_slot);
    text_u64(out, name[1], f->term);
    text_bytes(out, name[2], f->hash, HASH_BYTES);
    text_u64(out, name[3], f->last_index);
}

static void
place_read(struct text_reader *r, const char *const name[4], struct chain_floor *f)
{
    f->next_slot = text_read_u64(r, name[0]);
    f->term = text_read_u64(r, name[1]);
    text_read_bytes(r, name[2], f->hash, HASH_BYTES);
    f->last_index = text_read_u64(r, name[3]);
}

static const char *const place_lines[4] = {"place-slot", "place-term", "place-hash",
                                           "place-index"};
static const char *const floor_lines[4] = {"floor-slot", "floor-term", "floor-hash",
                                           "floor-index"};
static const char *const archive_lines[4] = {"archive-slot", "archive-term",
                                             "archive-hash", "archive-index"};

/* What a checkpoint and the manifest that inlines it have in common. */
static void
state_text(struct buffer *out, const struct checkpoint_object *c)
{
    text_u64(out, "index", c->index);
    text_u64(out, "revision", (uint64_t)c->revision);
    text_u64(out, "compacted", (uint64_t)c->compacted);
    text_u64(out, "time-ms", c->time_ms);
    place_text(out, place_lines, &c->place);
    text_u64(out, "runs", c->n_runs);
    for (uint32_t i = 0; i < c->n_runs; i++) {
        text_bytes(out, "run-hash", c->run[i].sha256, HASH_BYTES);
        text_u64(out, "run-term", c->run[i].term);
        text_u64(out, "run-index", c->run[i].index);
        text_u64(out, "run-bytes", c->run[i].bytes);
        text_u64(out, "run-base", c->run[i].is_base);
    }
}

static void
state_read(struct text_reader *r, struct checkpoint_object *c)
{
    uint64_t n, base;

    c->index = text_read_u64(r, "index");
    c->revision = (int64_t)text_read_u64(r, "revision");
    c->compacted = (int64_t)text_read_u64(r, "compacted");
    c->time_ms = text_read_u64(r, "time-ms");
    place_read(r, place_lines, &c->place);
    n = text_read_u64(r, "runs");
    if (n > CHECKPOINT_RUNS_MAX)
        r->bad = true;
    for (; !r->bad && c->n_runs < n; c->n_runs++) {
        struct checkpoint_run *run = &c->run[c->n_runs];

        text_read_bytes(r, "run-hash", run->sha256, HASH_BYTES);
        run->term = text_read_u64(r, "run-term");
        run->index = text_read_u64(r, "run-index");
        run->bytes = text_read_u64(r, "run-bytes");
        base = text_read_u64(r, "run-base");
        run->is_base = base != 0;
        if (base > 1 || (run->is_base && c->n_runs + 1 != n))
            r->bad = true; /* a base hides everything behind it */
    }
}

void
checkpoint_encode(struct buffer *out, const struct checkpoint_object *c)
{
    text_begin(out, "t4-checkpoint", FORMAT);
    text_hex(out, "cluster", c->cluster_id);
    text_hex(out, "lineage", c->lineage);
    text_u64(out, "generation", c->generation);
    text_u64(out, "term", c->term);
    state_text(out, c);
    text_end(out);
}

t4_status
checkpoint_decode(struct t4_slice text, struct checkpoint_object *c)
{
    struct text_reader r;
    unsigned format;

    memset(c, 0, sizeof *c);
    text_open(&r, text, "t4-checkpoint", &format);
    c->cluster_id = text_read_hex(&r, "cluster");
    c->lineage = text_read_hex(&r, "lineage");
    c->generation = text_read_u64(&r, "generation");
    c->term = text_read_u64(&r, "term");
    state_read(&r, c);
    return verdict(&r, format, FORMAT);
}

void
checkpoint_key(char key[CHECKPOINT_KEY_BYTES], uint64_t term, int64_t revision,
               uint64_t index)
{
    snprintf(key, CHECKPOINT_KEY_BYTES,
             "checkpoint/%010" PRIu64 "/%020" PRId64 "-%020" PRIu64 "/manifest", term,
             revision, index);
}

bool
checkpoint_key_parse(struct t4_slice key, uint64_t *term, int64_t *revision,
                     uint64_t *index)
{
    char text[CHECKPOINT_KEY_BYTES], again[CHECKPOINT_KEY_BYTES];

    if (key.len >= sizeof text)
        return false;
    memcpy(text, key.data, key.len);
    text[key.len] = '\0';
    if (sscanf(text, "checkpoint/%" SCNu64 "/%" SCNd64 "-%" SCNu64 "/manifest", term,
               revision, index) != 3)
        return false;
    checkpoint_key(again, *term, *revision, *index);
    return strcmp(text, again) == 0; /* no other spelling */
}

/* --- the manifest -------------------------------------------------------------------------- */

void
manifest_encode(struct buffer *out, const struct manifest_object *m)
{
    text_begin(out, "t4-manifest", MANIFEST_FORMAT);
    text_hex(out, "cluster", m->cluster_id);
    text_hex(out, "lineage", m->lineage);
    text_u64(out, "generation", m->generation);
    text_u64(out, "counter", m->counter);
    text_bytes(out, "put-id", m->put_id, PUT_ID_BYTES);
    text_u64(out, "term", m->term);
    place_text(out, floor_lines, &m->floor);
    place_text(out, archive_lines, &m->archive);
    text_u64(out, "barrier", m->barrier);
    text_u64(out, "checkpoints", m->n_checkpoints);
    if (m->n_checkpoints > 0)
        state_text(out, &m->newest);
    for (uint32_t i = 0; i < m->n_checkpoints; i++) {
        text_u64(out, "checkpoint-term", m->checkpoint[i].term);
        text_u64(out, "checkpoint-index", m->checkpoint[i].index);
        text_u64(out, "checkpoint-revision", (uint64_t)m->checkpoint[i].revision);
        text_u64(out, "checkpoint-time-ms", m->checkpoint[i].time_ms);
        text_bytes(out, "checkpoint-hash", m->checkpoint[i].sha256, HASH_BYTES);
    }
    text_end(out);
}

static void
read_checkpoints(struct text_reader *r, struct manifest_object *m)
{
    uint64_t n = text_read_u64(r, "checkpoints");
    if (n > MANIFEST_CHECKPOINTS_MAX)
        r->bad = true;
    if (n > 0)
        state_read(r, &m->newest);
    for (; !r->bad && m->n_checkpoints < n; m->n_checkpoints++) {
        struct checkpoint_name *name = &m->checkpoint[m->n_checkpoints];

        name->term = text_read_u64(r, "checkpoint-term");
        name->index = text_read_u64(r, "checkpoint-index");
        name->revision = (int64_t)text_read_u64(r, "checkpoint-revision");
        name->time_ms = text_read_u64(r, "checkpoint-time-ms");
        text_read_bytes(r, "checkpoint-hash", name->sha256, HASH_BYTES);
    }
    if (n == 0)
        return;
    if (m->checkpoint[0].index != m->newest.index)
        r->bad = true;
    m->newest.cluster_id = m->cluster_id;
    m->newest.lineage = m->lineage;
    m->newest.generation = m->generation;
    m->newest.term = m->checkpoint[0].term;
}

t4_status
manifest_decode(struct t4_slice text, struct manifest_object *m)
{
    struct text_reader r;
    unsigned format;

    memset(m, 0, sizeof *m);
    text_open(&r, text, "t4-manifest", &format);
    m->cluster_id = text_read_hex(&r, "cluster");
    m->lineage = text_read_hex(&r, "lineage");
    m->generation = text_read_u64(&r, "generation");
    m->counter = text_read_u64(&r, "counter");
    text_read_bytes(&r, "put-id", m->put_id, PUT_ID_BYTES);
    m->term = text_read_u64(&r, "term");
    place_read(&r, floor_lines, &m->floor);
    if (format >= 2)
        place_read(&r, archive_lines, &m->archive);
    if (format >= 3)
        m->barrier = text_read_u64(&r, "barrier");
    if (format >= 2)
        read_checkpoints(&r, m);
    return verdict(&r, format, MANIFEST_FORMAT);
}

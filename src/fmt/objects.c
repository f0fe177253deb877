/*
 * objects.c - encoding of `cluster`, `leader-lock`, `manifest/latest`, `moving`,
 * `restoring` and checkpoints.
 *
 * The tables below are the formats: lines in their order, and between them what is not simply a
 * member of the struct.  sql-like-docs/internals/formats.md says what each line means.
 *
 *   t4-lock        format 2, of a lock that is marked by a move: `moved` is the location, and
 *                  `move` (begun, done) follows
 *   t4-checkpoint  after `runs` the lines of each run, newest first
 *   t4-manifest    after `checkpoints`, if there are any, those of the newest checkpoint from
 *                  `index` on, then the names of all, newest first.  Format 1 ended behind
 *                  floor-index: read as one without checkpoints.  Format 2 had no barrier: read
 *                  as 0
 * A revision of -1 is written as 18446744073709551615.
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

/* Records that are nothing but one table. */
static void
encode(struct buffer *out, const char *kind, const struct text_line *lines, size_t n,
       const void *object)
{
    text_begin(out, kind, FORMAT);
    text_lines(out, lines, n, object);
    text_end(out);
}

static t4_status
decode(struct t4_slice text, const char *kind, const struct text_line *lines, size_t n,
       void *object, size_t size)
{
    struct text_reader r;
    unsigned format;

    memset(object, 0, size);
    text_open(&r, text, kind, &format);
    text_read_lines(&r, lines, n, object);
    return verdict(&r, format, FORMAT);
}

#define COUNT(table) (sizeof(table) / sizeof(table)[0])
#define LINE(form, name, type, member) TEXT_LINE(name, TEXT_##form, struct type, member)

static const struct text_line cluster_lines[] = {
    LINE(ID, "cluster", cluster_object, cluster_id),
    LINE(ID, "lineage", cluster_object, lineage),
    LINE(NUMBER, "window", cluster_object, window_max),
};

void
cluster_encode(struct buffer *out, const struct cluster_object *c)
{
    encode(out, "t4-cluster", cluster_lines, COUNT(cluster_lines), c);
}

t4_status
cluster_decode(struct t4_slice text, struct cluster_object *c)
{
    t4_status status =
        decode(text, "t4-cluster", cluster_lines, COUNT(cluster_lines), c, sizeof *c);

    return status == T4_OK && (c->window_max < 1 || c->window_max > 64) ? T4_E_CORRUPT
                                                                        : status;
}

/* --- the lock ------------------------------------------------------------------------------ */

static const struct text_line lock_lines[] = {
    LINE(ID, "cluster", lock_object, cluster_id),
    LINE(ID, "lineage", lock_object, lineage),
    LINE(NUMBER, "counter", lock_object, counter),
    LINE(DIGEST, "put-id", lock_object, put_id),
    LINE(NUMBER, "term", lock_object, term),
    LINE(ID, "holder", lock_object, holder),
    LINE(SENTENCE, "address", lock_object, address),
};
static const struct text_line release_lines[] = {
    LINE(NUMBER, "released-index", lock_object, released_index),
    LINE(NUMBER, "released-revision", lock_object, released_revision),
    LINE(SENTENCE, "moved", lock_object, moved),
};

void
lock_encode(struct buffer *out, const struct lock_object *l)
{
    text_begin(out, "t4-lock", l->move != MOVE_NONE ? LOCK_FORMAT : FORMAT);
    TEXT_LINES(out, lock_lines, l);
    text_string(out, "rule", rule_name[l->rule]);
    text_u64(out, "lease-ms", l->lease_ms);
    text_string(out, "released", l->released ? "yes" : "no");
    TEXT_LINES(out, release_lines, l);
    if (l->move != MOVE_NONE)
        text_string(out, "move", move_name[l->move]);
    text_end(out);
}

/* A lock of format 1 is not marked; one of format 2 says by what. */
static void
read_move(struct text_reader *r, unsigned format, struct lock_object *l)
{
    char word[16];

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
    TEXT_READ_LINES(&r, lock_lines, l);
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
    TEXT_READ_LINES(&r, release_lines, l);
    read_move(&r, format, l);
    return verdict(&r, format, LOCK_FORMAT);
}

/* --- what is under way in a store that is not complete ------------------------------------ */

static const struct text_line moving_lines[] = {
    LINE(ID, "cluster", moving_object, cluster_id),
    LINE(ID, "lineage", moving_object, lineage),
    LINE(DIGEST, "put-id", moving_object, put_id),
    LINE(SENTENCE, "source", moving_object, source),
};
static const struct text_line restoring_lines[] = {
    LINE(ID, "cluster", restoring_object, cluster_id),
    LINE(ID, "lineage", restoring_object, lineage),
    LINE(ID, "holder", restoring_object, holder),
    LINE(NUMBER, "time-ms", restoring_object, time_ms),
    LINE(DIGEST, "snapshot", restoring_object, sha256),
    LINE(SENTENCE, "source", restoring_object, source),
};

void
moving_encode(struct buffer *out, const struct moving_object *m)
{
    encode(out, "t4-moving", moving_lines, COUNT(moving_lines), m);
}

t4_status
moving_decode(struct t4_slice text, struct moving_object *m)
{
    return decode(text, "t4-moving", moving_lines, COUNT(moving_lines), m, sizeof *m);
}

void
restoring_encode(struct buffer *out, const struct restoring_object *o)
{
    encode(out, "t4-restoring", restoring_lines, COUNT(restoring_lines), o);
}

t4_status
restoring_decode(struct t4_slice text, struct restoring_object *o)
{
    return decode(text, "t4-restoring", restoring_lines, COUNT(restoring_lines), o,
                  sizeof *o);
}

/* --- checkpoints ------------------------------------------------------------------------- */

#define PLACE_LINES(name)                                                                \
    {                                                                                    \
        LINE(NUMBER, name "-slot", chain_floor, next_slot),                              \
            LINE(NUMBER, name "-term", chain_floor, term),                               \
            LINE(DIGEST, name "-hash", chain_floor, hash),                               \
            LINE(NUMBER, name "-index", chain_floor, last_index)                         \
    }
static const struct text_line place_lines[] = PLACE_LINES("place");
static const struct text_line floor_lines[] = PLACE_LINES("floor");
static const struct text_line archive_lines[] = PLACE_LINES("archive");

static const struct text_line checkpoint_lines[] = {
    LINE(ID, "cluster", checkpoint_object, cluster_id),
    LINE(ID, "lineage", checkpoint_object, lineage),
    LINE(NUMBER, "generation", checkpoint_object, generation),
    LINE(NUMBER, "term", checkpoint_object, term),
};
/* What a checkpoint and the manifest that inlines it have in common. */
static const struct text_line state_lines[] = {
    LINE(NUMBER, "index", checkpoint_object, index),
    LINE(NUMBER, "revision", checkpoint_object, revision),
    LINE(NUMBER, "compacted", checkpoint_object, compacted),
    LINE(NUMBER, "time-ms", checkpoint_object, time_ms),
};
static const struct text_line run_lines[] = {
    LINE(DIGEST, "run-hash", checkpoint_run, sha256),
    LINE(NUMBER, "run-term", checkpoint_run, term),
    LINE(NUMBER, "run-index", checkpoint_run, index),
    LINE(NUMBER, "run-bytes", checkpoint_run, bytes),
    LINE(NUMBER, "run-base", checkpoint_run, is_base),
};

static void
state_text(struct buffer *out, const struct checkpoint_object *c)
{
    TEXT_LINES(out, state_lines, c);
    TEXT_LINES(out, place_lines, &c->place);
    text_u64(out, "runs", c->n_runs);
    for (uint32_t i = 0; i < c->n_runs; i++)
        TEXT_LINES(out, run_lines, &c->run[i]);
}

static void
state_read(struct text_reader *r, struct checkpoint_object *c)
{
    uint64_t n;

    TEXT_READ_LINES(r, state_lines, c);
    TEXT_READ_LINES(r, place_lines, &c->place);
    n = text_read_u64(r, "runs");
    if (n > CHECKPOINT_RUNS_MAX)
        r->bad = true;
    for (; !r->bad && c->n_runs < n; c->n_runs++) {
        struct checkpoint_run *run = &c->run[c->n_runs];

        TEXT_READ_LINES(r, run_lines, run);
        if (run->is_base && c->n_runs + 1 != n)
            r->bad = true; /* a base hides everything behind it */
    }
}

void
checkpoint_encode(struct buffer *out, const struct checkpoint_object *c)
{
    text_begin(out, "t4-checkpoint", FORMAT);
    TEXT_LINES(out, checkpoint_lines, c);
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
    TEXT_READ_LINES(&r, checkpoint_lines, c);
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

static const struct text_line manifest_lines[] = {
    LINE(ID, "cluster", manifest_object, cluster_id),
    LINE(ID, "lineage", manifest_object, lineage),
    LINE(NUMBER, "generation", manifest_object, generation),
    LINE(NUMBER, "counter", manifest_object, counter),
    LINE(DIGEST, "put-id", manifest_object, put_id),
    LINE(NUMBER, "term", manifest_object, term),
};
static const struct text_line name_lines[] = {
    LINE(NUMBER, "checkpoint-term", checkpoint_name, term),
    LINE(NUMBER, "checkpoint-index", checkpoint_name, index),
    LINE(NUMBER, "checkpoint-revision", checkpoint_name, revision),
    LINE(NUMBER, "checkpoint-time-ms", checkpoint_name, time_ms),
    LINE(DIGEST, "checkpoint-hash", checkpoint_name, sha256),
};

void
manifest_encode(struct buffer *out, const struct manifest_object *m)
{
    text_begin(out, "t4-manifest", MANIFEST_FORMAT);
    TEXT_LINES(out, manifest_lines, m);
    TEXT_LINES(out, floor_lines, &m->floor);
    TEXT_LINES(out, archive_lines, &m->archive);
    text_u64(out, "barrier", m->barrier);
    text_u64(out, "checkpoints", m->n_checkpoints);
    if (m->n_checkpoints > 0)
        state_text(out, &m->newest);
    for (uint32_t i = 0; i < m->n_checkpoints; i++)
        TEXT_LINES(out, name_lines, &m->checkpoint[i]);
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
    for (; !r->bad && m->n_checkpoints < n; m->n_checkpoints++)
        TEXT_READ_LINES(r, name_lines, &m->checkpoint[m->n_checkpoints]);
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
    TEXT_READ_LINES(&r, manifest_lines, m);
    TEXT_READ_LINES(&r, floor_lines, &m->floor);
    if (format >= 2)
        TEXT_READ_LINES(&r, archive_lines, &m->archive);
    if (format >= 3)
        m->barrier = text_read_u64(&r, "barrier");
    if (format >= 2)
        read_checkpoints(&r, m);
    return verdict(&r, format, MANIFEST_FORMAT);
}

/*
 * chain.c - the rules of the chain, object by object.
 *
 * They are the readers' rules of sql-like-docs/internals/object-log.md, written down a second time:
 * what verify finds must not depend on the code that makes or reads the log for a server.  Unlike
 * a server this one goes on behind something that is wrong: the next segment that decodes is
 * taken at its word, so that everything that is wrong is named, not only the first.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

#include "verify/verify_int.h"

void
walk_free(struct walk *w)
{
    buffer_free(&w->raw);
}

t4_status
walk_wrong(struct walk *w, const char *key, struct error *error, const char *format, ...)
{
    char what[WHAT_BYTES / 2];
    va_list args;

    va_start(args, format);
    vsnprintf(what, sizeof what, format, args);
    va_end(args);
    w->failed = true;
    w->knows_compacted = false; /* a compaction may have been overlooked */
    if (w->quiet)
        return error_set(error, T4_E_CORRUPT, "%s %s", key, what);
    verify_bad(w->v, key, "%s", what);
    return T4_OK;
}

void
walk_pass_marks(struct walk *w)
{
    while (w->next_mark < w->n_marks && w->mark[w->next_mark].slot < w->at.next_slot)
        w->next_mark++;
    if (w->next_mark == w->n_marks || w->mark[w->next_mark].slot != w->at.next_slot)
        return;
    w->mark[w->next_mark] = (struct place_mark){.slot = w->at.next_slot,
                                                .reached = true,
                                                .joined = w->joined,
                                                .place = w->at,
                                                .time_ms = w->time_ms,
                                                .revision = w->revision,
                                                .compacted = w->compacted,
                                                .knows_entry = w->joined && w->has_entry,
                                                .knows_compacted = w->knows_compacted};
}

/* --- entries ------------------------------------------------------------------------------ */

/* NULL, or what is wrong with the entry that follows the one before. */
static const char *
entry_misfit(const struct walk *w, const struct segment *s, const struct entry *e,
             uint64_t index)
{
    if (e->index != index)
        return "has an index that is not its place in the segment";
    if (e->term > s->term)
        return "is of a higher term than its segment";
    if (w->has_entry && (e->revision < w->revision || e->term < w->entry_term))
        return "has a revision or term below the entry before it";
    if (e->kind != ENTRY_NORMAL && e->compact_revision > e->revision)
        return "compacts above its own revision";
    return NULL;
}

static t4_status
take_entry(struct walk *w, const char *key, const struct segment *s,
           struct t4_slice bytes, uint64_t index, bool *good, struct error *error)
{
    struct byte_reader r = reader_of(bytes);
    const char *what = NULL;
    struct mutation m;
    struct entry e;

    *good = entry_decode_head(&r, &e);
    if (*good)
        what = entry_misfit(w, s, &e, index);
    for (uint32_t i = 0; *good && i < e.mutations; i++)
        *good = entry_next(&r, &m);
    if (!*good || !entry_end(&r))
        what = "cannot be decoded";
    *good = what == NULL;
    if (!*good)
        return walk_wrong(w, key, error, "entry %" PRIu64 " in it %s", index, what);
    if (w->first_index == 0)
        w->first_index = index;
    w->has_entry = true;
    w->revision = e.revision;
    w->time_ms = e.time_ms;
    w->entry_term = e.term;
    if (e.kind != ENTRY_NORMAL) {
        w->compacted = e.compact_revision;
        w->knows_compacted = true;
    }
    if (w->counts)
        w->v->result->entries++;
    return w->fn != NULL ? w->fn(w->arg, &e, bytes, error) : T4_OK;
}

static t4_status
take_entries(struct walk *w, const char *key, const struct segment *s,
             struct error *error)
{
    struct byte_reader r;
    struct t4_slice bytes;
    uint64_t index = s->first_index;
    bool good = true;
    t4_status status = T4_OK;

    buffer_clear(&w->raw);
    if (!decompress_append(&w->raw, s->payload, s->raw_bytes))
        return walk_wrong(w, key, error, "holds entries that cannot be decompressed");
    r = reader_of(buffer_slice(&w->raw));
    for (; status == T4_OK && good && segment_entry_next(&r, &bytes); index++)
        status = take_entry(w, key, s, bytes, index, &good, error);
    if (status == T4_OK && good &&
        (r.bad || r.next != r.end || index != s->last_index + 1))
        return walk_wrong(w, key, error,
                          "holds other entries than it says, %" PRIu64 " to %" PRIu64,
                          s->first_index, s->last_index);
    return status;
}

/* --- objects ------------------------------------------------------------------------------- */

static t4_status
take_segment(struct walk *w, const char *key, const struct segment *s,
             struct t4_slice object, struct error *error)
{
    bool failed = w->failed;
    t4_status status = T4_OK;

    if (w->joined && memcmp(s->previous, w->at.hash, HASH_BYTES) != 0)
        status = walk_wrong(w, key, error,
                            "does not continue the segment before it: it carries another "
                            "hash");
    else if (w->joined && s->first_index != w->at.last_index + 1)
        status = walk_wrong(w, key, error,
                            "begins with entry %" PRIu64
                            ", but the segment before it ends with %" PRIu64,
                            s->first_index, w->at.last_index);
    w->failed = false;
    if (status == T4_OK)
        status = take_entries(w, key, s, error);
    w->has_entry &= !w->failed; /* else nobody knows which revision its end is of */
    w->failed |= failed;
    sha256(object, w->at.hash);
    w->at.last_index = s->last_index;
    w->joined = true;
    if (w->counts)
        w->v->result->segments++;
    return status;
}

void
walk_skip(struct walk *w, uint64_t term)
{
    if (term > w->at.term)
        w->at.term = term;
    if (w->counts)
        w->v->result->skipped++;
}

t4_status
walk_object(struct walk *w, const char *key, struct t4_slice object, bool *accepted,
            struct error *error)
{
    struct segment s;
    t4_status status = segment_decode(object, &s);

    *accepted = false;
    if (status != T4_OK) {
        w->joined = false;
        w->at.next_slot++;
        return walk_wrong(w, key, error, "%s",
                          status == T4_E_UNSUPPORTED
                              ? "was written by a newer version of t4: use that one"
                              : "is damaged");
    }
    if (s.cluster_id != w->v->manifest.cluster_id ||
        s.lineage != w->v->manifest.lineage) {
        w->joined = false;
        w->at.next_slot++;
        return walk_wrong(w, key, error, "belongs to another cluster or lineage");
    }
    status = T4_OK;
    if (s.fence || s.term < w->at.term) {
        walk_skip(w, s.term);
    } else {
        *accepted = true;
        w->at.term = s.term;
        status = take_segment(w, key, &s, object, error);
    }
    w->at.next_slot++;
    return status;
}

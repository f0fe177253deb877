/*
 * entry.c - encoding of log entries.
 *
 * Bytes (varint = LEB128, at most 64 bits):
 *
 *   u8 format (1) · u8 kind · varint index · varint term · varint revision · varint time_ms
 *   varint compact_revision (kinds 2 and 3) · kind 3: varint generation · varint base_index ·
 *   varint base_revision · varint number of mutations, then for each:
 *     u8 space ('k', 's', 'l') · u8 flags (1 tombstone) · varint key length · key
 *     without the tombstone flag: varint value length · value
 *     and in space 'k': varint create_revision · varint version · varint lease (as uint64)
 *
 * Valid: every field in bounds, a known space, no unknown flag, nothing behind the last
 * mutation.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "fmt/entry.h"

#define FORMAT 1

void
entry_encode_head(struct buffer *out, const struct entry *e)
{
    buffer_append_u8(out, FORMAT);
    buffer_append_u8(out, (uint8_t)e->kind);
    buffer_append_varint(out, e->index);
    buffer_append_varint(out, e->term);
    buffer_append_varint(out, (uint64_t)e->revision);
    buffer_append_varint(out, e->time_ms);
    if (e->kind != ENTRY_NORMAL)
        buffer_append_varint(out, (uint64_t)e->compact_revision);
    if (e->kind == ENTRY_RESET) {
        buffer_append_varint(out, e->reset.generation);
        buffer_append_varint(out, e->reset.base_index);
        buffer_append_varint(out, (uint64_t)e->reset.base_revision);
    }
    buffer_append_varint(out, e->mutations);
}

void
entry_add(struct buffer *out, const struct mutation *m)
{
    buffer_append_u8(out, m->space);
    buffer_append_u8(out, m->flags);
    buffer_append_varint(out, m->key.len);
    buffer_append_slice(out, m->key);
    if (m->flags & MUTATION_TOMBSTONE)
        return;
    buffer_append_varint(out, m->value.len);
    buffer_append_slice(out, m->value);
    if (m->space == SPACE_KEYS) {
        buffer_append_varint(out, (uint64_t)m->create_revision);
        buffer_append_varint(out, (uint64_t)m->version);
        buffer_append_varint(out, (uint64_t)m->lease);
    }
}

size_t
entry_mutation_bound(const struct mutation *m)
{
    return 2 + 5 * 10 + m->key.len + m->value.len;
}

bool
entry_decode_head(struct byte_reader *r, struct entry *e)
{
    uint64_t mutations;

    *e = (struct entry){0};
    if (reader_u8(r) != FORMAT)
        r->bad = true;
    e->kind = (enum entry_kind)reader_u8(r);
    if (e->kind < ENTRY_NORMAL || e->kind > ENTRY_RESET)
        r->bad = true;
    e->index = reader_varint(r);
    e->term = reader_varint(r);
    e->revision = (int64_t)reader_varint(r);
    e->time_ms = reader_varint(r);
    if (e->kind != ENTRY_NORMAL)
        e->compact_revision = (int64_t)reader_varint(r);
    if (e->kind == ENTRY_RESET) {
        e->reset.generation = reader_varint(r);
        e->reset.base_index = reader_varint(r);
        e->reset.base_revision = (int64_t)reader_varint(r);
    }
    mutations = reader_varint(r);
    if (e->revision < 0 || e->compact_revision < 0 || mutations > reader_left(r))
        r->bad = true;
    e->mutations = (uint32_t)mutations;
    return !r->bad;
}

bool
entry_next(struct byte_reader *r, struct mutation *m)
{
    *m = (struct mutation){0};
    m->space = reader_u8(r);
    m->flags = reader_u8(r);
    m->key = reader_counted(r);
    if (m->space != SPACE_KEYS && m->space != SPACE_SYSTEM &&
        m->space != SPACE_ATTACHMENTS)
        r->bad = true;
    if (m->flags & ~MUTATION_TOMBSTONE)
        r->bad = true;
    if (!(m->flags & MUTATION_TOMBSTONE)) {
        m->value = reader_counted(r);
        if (m->space == SPACE_KEYS) {
            m->create_revision = (int64_t)reader_varint(r);
            m->version = (int64_t)reader_varint(r);
            m->lease = (int64_t)reader_varint(r);
        }
    }
    return !r->bad;
}

bool
entry_end(const struct byte_reader *r)
{
    return !r->bad && r->next == r->end;
}

void
mutation_version(const struct entry *e, const struct mutation *m, uint32_t *sub,
                 struct buffer *ikey, struct version *v)
{
    bool user = m->space == SPACE_KEYS;

    buffer_clear(ikey);
    buffer_append_u8(ikey, m->space);
    buffer_append_slice(ikey, m->key);
    *v = (struct version){.stamp = user ? (uint64_t)e->revision : e->index,
                          .sub = user ? (*sub)++ : 0,
                          .flags = m->flags & MUTATION_TOMBSTONE ? VERSION_TOMBSTONE : 0,
                          .create_revision = m->create_revision,
                          .version = m->version,
                          .lease = m->lease,
                          .value = m->value};
}

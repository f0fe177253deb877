/*
 * objects.c - encoding of `cluster`, `leader-lock` and `manifest/latest`.
 *
 * Lines in this order (format 1 each):
 *   t4-cluster 1 · cluster · lineage · window · crc
 *   t4-lock 1 · cluster · lineage · counter · put-id · term · holder · address · rule
 *     (object, local) · lease-ms · released (no, or yes) · released-index · released-revision ·
 *     moved (empty, or the new location) · crc
 *   t4-manifest 1 · cluster · lineage · generation · counter · put-id · term ·
 *     floor-slot · floor-term · floor-hash · floor-index · crc
 * Ids are 16 hexadecimal digits, hashes 64, put ids 32, everything else decimal.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "fmt/objects.h"

#include "fmt/text.h"

#define FORMAT 1

static const char *const rule_name[] = {"", "object", "local"};

static t4_status
verdict(struct text_reader *r, unsigned format)
{
    if (format > FORMAT)
        return T4_E_UNSUPPORTED;
    return text_close(r) && format == FORMAT ? T4_OK : T4_E_CORRUPT;
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
    return verdict(&r, format);
}

void
lock_encode(struct buffer *out, const struct lock_object *l)
{
    text_begin(out, "t4-lock", FORMAT);
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
    text_end(out);
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
    text_read_string(&r, "moved", l->moved, sizeof l->moved);
    return verdict(&r, format);
}

void
manifest_encode(struct buffer *out, const struct manifest_object *m)
{
    text_begin(out, "t4-manifest", FORMAT);
    text_hex(out, "cluster", m->cluster_id);
    text_hex(out, "lineage", m->lineage);
    text_u64(out, "generation", m->generation);
    text_u64(out, "counter", m->counter);
    text_bytes(out, "put-id", m->put_id, PUT_ID_BYTES);
    text_u64(out, "term", m->term);
    text_u64(out, "floor-slot", m->floor.next_slot);
    text_u64(out, "floor-term", m->floor.term);
    text_bytes(out, "floor-hash", m->floor.hash, HASH_BYTES);
    text_u64(out, "floor-index", m->floor.last_index);
    text_end(out);
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
    m->floor.next_slot = text_read_u64(&r, "floor-slot");
    m->floor.term = text_read_u64(&r, "floor-term");
    text_read_bytes(&r, "floor-hash", m->floor.hash, HASH_BYTES);
    m->floor.last_index = text_read_u64(&r, "floor-index");
    return verdict(&r, format);
}

/*
 * history.c - all versions of user keys, in the order of revisions.
 *
 * The engine is read by key, newest version first, so that each version is known together with
 * the one that superseded it.  That decides later what a compaction takes away: one that comes
 * while the engine is read may have taken a version or not, and it makes no difference, for what
 * it may take is left out in any case (as long as it is not above the history's revision).
 *
 * Record of the sort: u64 revision, u64 sub, big endian -> u8 flags · varint superseded · varint
 * create revision · varint version · varint lease · counted key · value.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "base/crc32c.h"
#include "base/memory.h"
#include "fmt/entry.h"
#include "snapshot/schema.h"
#include "snapshot/snapshot.h"
#include "sort/sort.h"

#define SLICE 4096u
#define ASK 1024u /* records given between two questions whether to stop */

struct history {
    struct history_options options;
    int64_t revision, compacted;
    bool any_alive; /* a key exists at `revision` */
    struct sort *sort;
    uint32_t given;

    /* while it is read */
    struct buffer position;
    uint64_t position_stamp;
    struct buffer key; /* at hand, with its space */
    uint64_t newer;    /* stamp of its version before; 0: none yet */
    struct buffer record;
};

static bool
stopped(const struct history *h)
{
    return h->options.stop != NULL && h->options.stop(h->options.arg);
}

/* --- reading the engine ------------------------------------------------------------------- */

static t4_status
add_version(struct history *h, struct t4_slice ikey, const struct version *v,
            struct error *error)
{
    bool tombstone = v->flags & VERSION_TOMBSTONE;
    struct buffer *b = &h->record;
    uint8_t order[16];

    put_u64be(order, v->stamp);
    put_u64be(order + 8, v->sub);
    buffer_clear(b);
    buffer_append_u8(b, v->flags);
    buffer_append_varint(b, h->newer);
    buffer_append_varint(b, (uint64_t)v->create_revision);
    buffer_append_varint(b, (uint64_t)v->version);
    buffer_append_varint(b, (uint64_t)v->lease);
    buffer_append_varint(b, ikey.len - 1);
    buffer_append(b, ikey.data + 1, ikey.len - 1);
    buffer_append_slice(b, v->value);
    h->any_alive |= h->newer == 0 && !tombstone;
    h->newer = v->stamp;
    return sort_add(h->sort, slice_of(order, sizeof order), buffer_slice(b), error);
}

/* A stretch of the scan.  NOTFOUND: it is at its end. */
static t4_status
read_slice(struct history *h, struct mvcc_reader *reader, struct error *error)
{
    struct mvcc_scan scan;
    struct t4_slice ikey;
    struct version v;
    uint32_t looked = 0;
    t4_status status = T4_OK;

    mvcc_scan_begin(&scan, reader, buffer_slice(&h->position), h->position_stamp,
                    slice_of(NULL, 0), 1, (uint64_t)h->revision);
    while (status == T4_OK && looked < h->options.slice) {
        status = mvcc_scan_key(&scan, &ikey);
        if (status != T4_OK)
            break;
        looked++;
        if (!slice_equal(ikey, buffer_slice(&h->key))) {
            buffer_clear(&h->key);
            buffer_append_slice(&h->key, ikey);
            h->newer = 0;
        }
        for (; status == T4_OK && looked < h->options.slice; looked++) {
            status = mvcc_scan_version(&scan, &v);
            if (status == T4_OK)
                status = add_version(h, ikey, &v, error);
        }
        if (status == T4_E_NOTFOUND) /* the key's end */
            status = T4_OK;
    }
    mvcc_scan_position(&scan, &h->position, &h->position_stamp);
    mvcc_scan_end(&scan);
    return status;
}

static t4_status
read_engine(struct history *h, struct error *error)
{
    t4_status status = T4_OK;

    error->status = T4_OK;
    buffer_append_u8(&h->position, SPACE_KEYS);
    h->position_stamp = STAMP_NEWEST;
    while (status == T4_OK) {
        struct mvcc_reader reader;

        if (stopped(h))
            return error_set(error, T4_E_CANCELLED, "stopped");
        status = mvcc_read_begin(h->options.mvcc, &reader);
        if (status == T4_OK) {
            status = read_slice(h, &reader, error);
            mvcc_read_end(&reader);
        }
    }
    if (status == T4_E_NOTFOUND)
        return T4_OK;
    if (error->status == T4_OK)
        error_set(error, status, "the storage engine cannot be read: %s",
                  status_text(status));
    return status;
}

t4_status
history_open(const struct history_options *options, int64_t revision,
             struct history **out, struct error *error)
{
    struct history *h = mem_zalloc(sizeof *h);
    t4_status status;

    *out = NULL;
    h->options = *options;
    if (h->options.slice <
        2) /* a key and a version of it, or it would not get anywhere */
        h->options.slice = SLICE;
    h->revision = revision;
    h->sort = sort_new(options->env, options->dir, options->memory);
    status = read_engine(h, error);
    /* After the last reader: nothing is taken away before it is published as compacted. */
    h->compacted = mvcc_compacted(options->mvcc);
    if (status == T4_OK && h->compacted > revision)
        status = error_set(error, T4_E_PRECONDITION, "compacted meanwhile");
    if (status == T4_OK)
        *out = h;
    else
        history_free(h);
    return status;
}

void
history_free(struct history *h)
{
    if (h == NULL)
        return;
    sort_free(h->sort);
    buffer_free(&h->position);
    buffer_free(&h->key);
    buffer_free(&h->record);
    mem_free(h);
}

int64_t
history_revision(const struct history *h)
{
    return h->revision;
}

int64_t
history_compacted(const struct history *h)
{
    return h->compacted;
}

/* --- giving ------------------------------------------------------------------------------- */

static void
decode(struct t4_slice order, struct t4_slice record, struct history_record *r)
{
    struct byte_reader in = reader_of(record); /* our own, and checked by the sort */

    *r = (struct history_record){.sub = (uint32_t)get_u64be(order.data + 8)};
    r->kv.mod_revision = (int64_t)get_u64be(order.data);
    r->tombstone = reader_u8(&in) & VERSION_TOMBSTONE;
    r->superseded = (int64_t)reader_varint(&in);
    r->kv.create_revision = (int64_t)reader_varint(&in);
    r->kv.version = (int64_t)reader_varint(&in);
    r->kv.lease = (int64_t)reader_varint(&in);
    r->kv.key = reader_counted(&in);
    r->kv.value = slice_of(in.next, reader_left(&in));
}

static bool
is_compacted(const struct history *h, const struct history_record *r)
{
    if (r->superseded != 0 && r->superseded <= h->compacted)
        return true;
    return r->tombstone && r->kv.mod_revision < h->compacted;
}

t4_status
history_next(struct history *h, struct history_record *r, struct error *error)
{
    struct t4_slice order, record;
    t4_status status;

    do {
        if (h->given++ % ASK == 0 && stopped(h))
            return error_set(error, T4_E_CANCELLED, "stopped");
        status = sort_next(h->sort, &order, &record, error);
        if (status != T4_OK)
            return status;
        decode(order, record, r);
    } while (is_compacted(h, r));
    return T4_OK;
}

void
history_etcd_record(const struct history_record *r, struct buffer *key,
                    struct buffer *value)
{
    struct key_value kv = r->kv;
    uint8_t *p;

    buffer_clear(key);
    revision_encode(key, kv.mod_revision, r->sub, r->tombstone);
    if (r->tombstone)
        kv = (struct key_value){.key = kv.key};
    buffer_clear(value);
    p = buffer_reserve(value, wire_key_value_size(&kv));
    value->len = (size_t)(wire_key_value_write(p, &kv) - p);
}

/* --- the hash ----------------------------------------------------------------------------- */

/*
 * Above the compacted revision everything is hashed.  At and below it a version is only if it is still
 * the newest one at the history's revision; if no key exists there at all, etcd leaves that
 * question out.  A tombstone of the compacted revision itself is not hashed.
 */
static bool
is_hashed(const struct history *h, const struct history_record *r)
{
    if (r->kv.mod_revision > h->compacted)
        return true;
    return !r->tombstone && (r->superseded == 0 || !h->any_alive);
}

uint32_t
history_hash_of_none(void)
{
    return crc32c(0, BUCKET_KEY, strlen(BUCKET_KEY));
}

t4_status
history_hash(struct history *h, uint32_t *hash, struct error *error)
{
    struct buffer key = {0}, value = {0};
    struct history_record r;
    t4_status status;

    *hash = history_hash_of_none();
    while ((status = history_next(h, &r, error)) == T4_OK) {
        if (!is_hashed(h, &r))
            continue;
        history_etcd_record(&r, &key, &value);
        *hash = crc32c(*hash, key.data, key.len);
        *hash = crc32c(*hash, value.data, value.len);
    }
    buffer_free(&key);
    buffer_free(&value);
    return status == T4_E_NOTFOUND ? T4_OK : status;
}

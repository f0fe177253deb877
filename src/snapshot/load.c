/*
 * load.c - etcd's buckets become the records of a checkpoint.
 *
 * The bucket key is in order of revisions, a checkpoint in order of keys: the versions are sorted on
 * disk.  The newest version of a key says whether a lease has it: then it is an attachment (space l),
 * sorted by itself.  Leases and the compacted revision are space s.  All of l and s bears the stamp of
 * the checkpoint's one entry.
 *
 * Nothing of the file is believed: what t4 could not hold or give back is refused, with the
 * revision that it is of.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/memory.h"
#include "fmt/entry.h"
#include "lease/lease.h"
#include "snapshot/restore_int.h"
#include "snapshot/schema.h"
#include "snapshot/snapshot.h"
#include "sort/sort.h"

enum phase { PHASE_KEYS, PHASE_ATTACHMENTS, PHASE_SYSTEM };

struct load {
    struct snapshot_file *f;
    struct sort *keys, *attachments;
    struct lease_record *lease; /* by id, taken as unsigned */
    size_t n_leases, lease_capacity;
    int64_t revision, compacted;
    uint64_t n_records;
    bool had_users;

    enum phase phase;
    struct buffer current; /* internal key of the version given last */
    bool compacted_given;
    size_t next_lease;
    struct buffer scratch, ikey, key, value; /* of the record given */
};

/* --- protobuf ------------------------------------------------------------------------------ */

/* Where a field of a message goes: bytes or a number. */
struct field {
    struct t4_slice *bytes;
    int64_t *number;
};

/* Reads a message of fields 1 to n.  False: damaged, or there is another field. */
static bool
decode(struct t4_slice message, const struct field *fields, uint64_t n)
{
    struct byte_reader r = reader_of(message);

    while (!r.bad && reader_left(&r) > 0) {
        uint64_t tag = reader_varint(&r), number = tag >> 3;
        const struct field *f;

        if (number < 1 || number > n)
            return false;
        f = &fields[number - 1];
        if (f->number != NULL && (tag & 7) == 0)
            *f->number = (int64_t)reader_varint(&r);
        else if (f->bytes != NULL && (tag & 7) == 2)
            *f->bytes = reader_counted(&r);
        else
            return false;
    }
    return !r.bad;
}

bool
load_decode_key_value(struct t4_slice message, struct key_value *kv)
{
    const struct field fields[] = {
        {.bytes = &kv->key},           {.number = &kv->create_revision},
        {.number = &kv->mod_revision}, {.number = &kv->version},
        {.bytes = &kv->value},         {.number = &kv->lease}};

    *kv = (struct key_value){.version = 0};
    return decode(message, fields, sizeof fields / sizeof fields[0]);
}

static bool
decode_lease(struct t4_slice message, struct lease_record *l)
{
    const struct field fields[] = {
        {.number = &l->id}, {.number = &l->ttl}, {.number = &l->remaining}};

    *l = (struct lease_record){.id = 0};
    if (!decode(message, fields, sizeof fields / sizeof fields[0]))
        return false;
    if (l->remaining <= 0 || l->remaining > l->ttl)
        l->remaining = l->ttl;
    return true;
}

/* --- what stands beside the keys ------------------------------------------------------------ */

static t4_status
no_bucket(const char *bucket, struct error *error)
{
    error_set(error, T4_E_INVALID,
              "it is a bbolt database, but has no bucket %s: it is none "
              "of etcd's",
              bucket);
    return error_hint(error, "give a file of etcdctl snapshot save");
}

static t4_status
check_auth(struct load *l, struct error *error)
{
    struct t4_slice key, value;
    struct buffer enabled = {0};
    t4_status status = snapshot_find(l->f, BUCKET_AUTH, "authEnabled", &enabled, error);
    bool is_enabled = status == T4_OK && enabled.len > 0 && enabled.data[0] == 1;

    buffer_free(&enabled);
    if (is_enabled) {
        error_set(error, T4_E_INVALID,
                  "authentication is enabled in it, and this version of t4 has no users "
                  "and roles: everybody could read and change everything");
        return error_hint(error, "if that is wanted, give etcd the command etcdctl auth "
                                 "disable and save another snapshot");
    }
    if (status == T4_OK || status == T4_E_NOTFOUND)
        status = bolt_reader_bucket(l->f->reader, BUCKET_AUTH_USERS, error);
    if (status == T4_OK)
        status = bolt_reader_next(l->f->reader, &key, &value, error);
    l->had_users = status == T4_OK;
    return status == T4_E_NOTFOUND ? T4_OK : status;
}

/* A compaction that was begun and not finished counts: clients were told. */
static t4_status
read_compacted(struct load *l, const char *name, struct error *error)
{
    struct buffer value = {0};
    t4_status status = snapshot_find(l->f, BUCKET_META, name, &value, error);
    int64_t revision = 0;
    uint64_t sub;
    bool tombstone;

    if (status == T4_OK &&
        !snapshot_revision_decode(buffer_slice(&value), &revision, &sub, &tombstone))
        status = error_set(error, T4_E_CORRUPT, "%s in the bucket %s is damaged", name,
                           BUCKET_META);
    else if (status == T4_OK && revision > l->compacted)
        l->compacted = revision;
    buffer_free(&value);
    return status == T4_E_NOTFOUND ? T4_OK : status;
}

static t4_status
read_meta(struct load *l, struct error *error)
{
    struct buffer version = {0};
    t4_status status = bolt_reader_bucket(l->f->reader, BUCKET_META, error);

    l->compacted = -1;
    if (status == T4_E_NOTFOUND)
        return no_bucket(BUCKET_META, error);
    if (status == T4_OK)
        status = read_compacted(l, META_SCHEDULED_COMPACT, error);
    if (status == T4_OK)
        status = read_compacted(l, META_FINISHED_COMPACT, error);
    if (status == T4_OK)
        status = snapshot_find(l->f, BUCKET_META, META_STORAGE_VERSION, &version, error);
    if (status == T4_OK && !slice_has_prefix(buffer_slice(&version), slice_str("3.6"))) {
        error_set(error, T4_E_INVALID,
                  "its storage version is %.*s, and t4 knows those up to 3.6",
                  version.len < 32 ? (int)version.len : 32, (const char *)version.data);
        error_hint(error, "downgrade that etcd to 3.6, or start a newer version of t4");
        status = T4_E_INVALID;
    }
    buffer_free(&version);
    return status == T4_E_NOTFOUND ? T4_OK : status;
}

static t4_status
read_leases(struct load *l, struct error *error)
{
    struct t4_slice key, value;
    t4_status status = bolt_reader_bucket(l->f->reader, BUCKET_LEASE, error);

    while (status == T4_OK) {
        struct lease_record r;

        status = bolt_reader_next(l->f->reader, &key, &value, error);
        if (status != T4_OK)
            break;
        if (key.len != 8 || !decode_lease(value, &r) || r.id == 0 ||
            (uint64_t)r.id != get_u64be(key.data))
            return error_set(error, T4_E_CORRUPT, "a lease in the bucket %s is damaged",
                             BUCKET_LEASE);
        if (r.ttl < 1 || r.ttl > LEASE_TTL_MAX)
            return error_set(error, T4_E_INVALID,
                             "the lease %016" PRIx64 " has a time to live of %" PRId64
                             " s, which is none",
                             (uint64_t)r.id, r.ttl);
        if (l->n_leases == l->lease_capacity) {
            l->lease_capacity = l->lease_capacity * 2 + 64;
            l->lease = mem_realloc(l->lease, l->lease_capacity * sizeof *l->lease);
        }
        l->lease[l->n_leases++] = r;
    }
    return status == T4_E_NOTFOUND ? T4_OK : status;
}

static int
by_id(const void *a, const void *b)
{
    uint64_t x = (uint64_t)((const struct lease_record *)a)->id;
    uint64_t y = (uint64_t)((const struct lease_record *)b)->id;

    return x < y ? -1 : x > y;
}

static bool
lease_exists(const struct load *l, int64_t id)
{
    struct lease_record r = {.id = id};

    return l->n_leases > 0 && bsearch(&r, l->lease, l->n_leases, sizeof r, by_id) != NULL;
}

/* --- versions ------------------------------------------------------------------------------ */

static t4_status
refused(int64_t revision, uint64_t sub, t4_status status, const char *why,
        struct error *error)
{
    return error_set(error, status,
                     "the record of revision %" PRId64 ", %" PRIu64
                     " in the bucket %s %s",
                     revision, sub, BUCKET_KEY, why);
}

static t4_status
check_version(int64_t revision, uint64_t sub, bool tombstone, const struct key_value *kv,
              struct error *error)
{
    if (kv->key.len == 0)
        return refused(revision, sub, T4_E_CORRUPT, "has no key", error);
    if (kv->key.len > KEY_BYTES_MAX)
        return refused(revision, sub, T4_E_INVALID,
                       "has a key that is longer than t4 takes (16 KiB)", error);
    if (kv->value.len + kv->key.len > SST_BLOCK_MAX / 2)
        return refused(revision, sub, T4_E_INVALID,
                       "has a value that is larger than t4 takes (32 MiB)", error);
    if (sub > UINT32_MAX)
        return refused(revision, sub, T4_E_INVALID, "is one of too many", error);
    if (!tombstone && (kv->mod_revision != revision || kv->create_revision < 1 ||
                       kv->create_revision > revision || kv->version < 1))
        return refused(revision, sub, T4_E_CORRUPT, "has revisions that cannot be",
                       error);
    return T4_OK;
}

static t4_status
add_record(struct load *l, struct sort *to, struct t4_slice ikey, const struct version *v,
           struct error *error)
{
    buffer_clear(&l->key);
    record_key_encode(&l->key, ikey, v->stamp);
    buffer_clear(&l->value);
    record_value_encode(&l->value, buffer_slice(&l->key), v);
    return sort_add(to, buffer_slice(&l->key), buffer_slice(&l->value), error);
}

static t4_status
add_version(struct load *l, struct t4_slice key, struct t4_slice value,
            struct error *error)
{
    struct version v = {.flags = 0};
    struct key_value kv;
    int64_t revision;
    bool tombstone;
    uint64_t sub;
    t4_status status;

    if (!snapshot_revision_decode(key, &revision, &sub, &tombstone))
        return error_set(error, T4_E_CORRUPT,
                         "the bucket %s has a key that is none, behind revision %" PRId64,
                         BUCKET_KEY, l->revision);
    if (!load_decode_key_value(value, &kv))
        return refused(revision, sub, T4_E_CORRUPT, "cannot be decoded", error);
    status = check_version(revision, sub, tombstone, &kv, error);
    if (status != T4_OK)
        return status;
    buffer_clear(&l->ikey);
    buffer_append_u8(&l->ikey, SPACE_KEYS);
    buffer_append_slice(&l->ikey, kv.key);
    v.stamp = (uint64_t)revision;
    v.sub = (uint32_t)sub;
    if (tombstone) {
        v.flags = VERSION_TOMBSTONE;
    } else {
        v.create_revision = kv.create_revision;
        v.version = kv.version;
        v.lease = kv.lease;
        v.value = kv.value;
    }
    l->revision = revision;
    l->n_records++;
    return add_record(l, l->keys, buffer_slice(&l->ikey), &v, error);
}

static t4_status
read_keys(struct load *l, struct error *error)
{
    struct t4_slice key, value;
    t4_status status = bolt_reader_bucket(l->f->reader, BUCKET_KEY, error);

    if (status == T4_E_NOTFOUND)
        return no_bucket(BUCKET_KEY, error);
    while (status == T4_OK) {
        status = bolt_reader_next(l->f->reader, &key, &value, error);
        if (status == T4_OK)
            status = add_version(l, key, value, error);
    }
    if (l->revision < l->compacted)
        l->revision = l->compacted;
    if (l->revision < 1)
        l->revision = 1; /* of a store that nothing was written to */
    return status == T4_E_NOTFOUND ? T4_OK : status;
}

t4_status
load_new(struct snapshot_file *f, const char *dir, struct load **out, struct error *error)
{
    struct load *l = mem_zalloc(sizeof *l);
    t4_status status;

    *out = NULL;
    l->f = f;
    l->keys = sort_new(f->env, dir, 0);
    l->attachments = sort_new(f->env, dir, 0);
    status = read_meta(l, error);
    if (status == T4_OK)
        status = check_auth(l, error);
    if (status == T4_OK)
        status = read_leases(l, error);
    if (status == T4_OK)
        status = read_keys(l, error);
    if (status == T4_OK)
        *out = l;
    else
        load_free(l);
    return status;
}

void
load_free(struct load *l)
{
    if (l == NULL)
        return;
    sort_free(l->keys);
    sort_free(l->attachments);
    mem_free(l->lease);
    buffer_free(&l->current);
    buffer_free(&l->scratch);
    buffer_free(&l->ikey);
    buffer_free(&l->key);
    buffer_free(&l->value);
    mem_free(l);
}

void
load_describe(const struct load *l, struct snapshot_restored *out)
{
    *out = (struct snapshot_restored){.revision = l->revision,
                                      .compacted = l->compacted,
                                      .records = l->n_records,
                                      .leases = l->n_leases,
                                      .had_users = l->had_users};
}

/* --- giving -------------------------------------------------------------------------------- */

/* A version that the checkpoint's entry made in space l or s; it is in l->key and l->value. */
static void
encode_beside(struct load *l, struct t4_slice ikey, struct t4_slice value)
{
    struct version v = {.stamp = CHECKPOINT_SEED_INDEX, .value = value};

    buffer_clear(&l->key);
    record_key_encode(&l->key, ikey, v.stamp);
    buffer_clear(&l->value);
    record_value_encode(&l->value, buffer_slice(&l->key), &v);
}

/* A key's newest version: if a lease has it, that is noted. */
static t4_status
note_attachment(struct load *l, struct t4_slice ikey, struct t4_slice value,
                struct error *error)
{
    struct version v;
    uint8_t id[8];

    if (!record_value_decode(value, &v))
        return error_set(error, T4_E_INTERNAL, "a record that was just made is damaged");
    if (v.lease == 0 || (v.flags & VERSION_TOMBSTONE) || !lease_exists(l, v.lease))
        return T4_OK;
    put_u64be(id, (uint64_t)v.lease);
    buffer_clear(&l->ikey);
    buffer_append_u8(&l->ikey, SPACE_ATTACHMENTS);
    buffer_append(&l->ikey, id, sizeof id);
    buffer_append(&l->ikey, ikey.data + 1, ikey.len - 1);
    encode_beside(l, buffer_slice(&l->ikey), slice_of(NULL, 0));
    return sort_add(l->attachments, buffer_slice(&l->key), buffer_slice(&l->value),
                    error);
}

static t4_status
next_version(struct load *l, struct t4_slice *key, struct t4_slice *value,
             struct error *error)
{
    t4_status status = sort_next(l->keys, key, value, error);
    struct t4_slice ikey;
    uint64_t stamp;

    if (status != T4_OK)
        return status;
    if (!record_key_decode(*key, &l->scratch, &ikey, &stamp))
        return error_set(error, T4_E_INTERNAL, "a record that was just made is damaged");
    if (slice_equal(ikey, buffer_slice(&l->current)))
        return T4_OK;
    buffer_clear(&l->current);
    buffer_append_slice(&l->current, ikey);
    return note_attachment(l, ikey, *value, error);
}

/* "compacted", then "lease/..." by id: in order. */
static t4_status
next_system(struct load *l, struct t4_slice *key, struct t4_slice *value)
{
    struct buffer *body = &l->scratch;
    uint8_t id[LEASE_KEY_BYTES];

    buffer_clear(body);
    buffer_clear(&l->ikey);
    buffer_append_u8(&l->ikey, SPACE_SYSTEM);
    if (!l->compacted_given && l->compacted > 0) {
        buffer_append(&l->ikey, COMPACTED_KEY, strlen(COMPACTED_KEY));
        buffer_append_varint(body, (uint64_t)l->compacted);
    } else if (l->next_lease < l->n_leases) {
        const struct lease_record *r = &l->lease[l->next_lease++];

        lease_key_encode(id, r->id);
        buffer_append(&l->ikey, id, sizeof id);
        lease_value_encode(body, r->ttl, r->remaining);
    } else {
        return T4_E_NOTFOUND;
    }
    l->compacted_given = true;
    encode_beside(l, buffer_slice(&l->ikey), buffer_slice(body));
    *key = buffer_slice(&l->key);
    *value = buffer_slice(&l->value);
    return T4_OK;
}

static t4_status
next(void *state, struct t4_slice *key, struct t4_slice *value, struct error *error)
{
    struct load *l = state;

    for (;; l->phase++) {
        t4_status status = l->phase == PHASE_KEYS ? next_version(l, key, value, error)
                           : l->phase == PHASE_ATTACHMENTS
                               ? sort_next(l->attachments, key, value, error)
                               : next_system(l, key, value);

        if (status != T4_E_NOTFOUND || l->phase == PHASE_SYSTEM)
            return status;
    }
}

struct sst_source
load_source(struct load *l)
{
    return (struct sst_source){next, l};
}

/*
 * file.c - a snapshot file opened, its hash checked, and summed up as etcdutl does it.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <inttypes.h>
#include <stdio.h>

#include "base/crc32c.h"
#include "base/memory.h"
#include "fmt/entry.h"
#include "snapshot/restore_int.h"
#include "snapshot/schema.h"
#include "sort/sort.h"

#define SECTOR 512u /* databases are multiples of it; with a hash they are not */
#define READ_BYTES (1u << 20)

/* --- opening ------------------------------------------------------------------------------ */

static t4_status
hash_file(struct snapshot_file *f, struct error *error)
{
    struct sha256_stream *s = sha256_stream_new();
    uint8_t *piece = mem_alloc(READ_BYTES);
    t4_status status = T4_OK;

    for (uint64_t at = 0; at < f->bytes && status == T4_OK;) {
        uint64_t left = f->bytes - at;
        size_t got = 0;

        status =
            f->env->pread(f->env->state, f->file, piece,
                          left < READ_BYTES ? (size_t)left : READ_BYTES, at, &got, error);
        if (status == T4_OK && got == 0)
            status = error_set(error, T4_E_IO, "it became shorter while it was read");
        sha256_add(s, slice_of(piece, got));
        at += got;
    }
    sha256_end(s, f->sha256);
    sha256_stream_free(s);
    mem_free(piece);
    return status;
}

static t4_status
check_hash(struct snapshot_file *f, bool skip, struct error *error)
{
    uint8_t there[SHA256_BYTES];
    size_t got = 0;
    t4_status status;

    if (skip)
        return T4_OK;
    if (!f->has_hash) {
        error_set(
            error, T4_E_INVALID,
            "it has no hash at its end: it was cut short, or is no snapshot but the "
            "database file of a member");
        return error_hint(error,
                          "save it with etcdctl snapshot save; for a copy of a stopped "
                          "member's member/snap/db give --skip-hash-check");
    }
    status =
        f->env->pread(f->env->state, f->file, there, sizeof there, f->bytes, &got, error);
    if (status != T4_OK)
        return status;
    if (got == sizeof there && memcmp(there, f->sha256, sizeof there) == 0)
        return T4_OK;
    error_set(error, T4_E_CORRUPT, "its bytes do not have the hash at its end");
    return error_hint(error, "it is damaged or was cut short: take another copy");
}

t4_status
snapshot_open(struct env *env, const char *path, bool skip_hash_check,
              struct snapshot_file **out, struct error *error)
{
    struct snapshot_file *f = mem_zalloc(sizeof *f);
    struct env_stat st = {0};
    t4_status status = env->open(env->state, path, ENV_READONLY, &f->file, error);

    *out = NULL;
    f->env = env;
    if (status == T4_OK)
        status = env->stat(env->state, path, &st, error);
    f->has_hash = st.size % SECTOR == SHA256_BYTES;
    f->bytes = f->has_hash ? st.size - SHA256_BYTES : st.size;
    /* What it is comes first: who gives another file wants to be told that. */
    if (status == T4_OK)
        status = bolt_reader_open(env, f->file, f->bytes, &f->reader, error);
    if (status == T4_E_INVALID)
        error_hint(error, "give a file of etcdctl snapshot save");
    if (status == T4_OK)
        status = hash_file(f, error);
    if (status == T4_OK)
        status = check_hash(f, skip_hash_check, error);
    if (status == T4_OK)
        *out = f;
    else
        snapshot_close(f);
    return status;
}

void
snapshot_close(struct snapshot_file *f)
{
    if (f == NULL)
        return;
    bolt_reader_close(f->reader);
    if (f->file != NULL)
        f->env->close(f->env->state, f->file);
    mem_free(f);
}

const uint8_t *
snapshot_sha256(const struct snapshot_file *f)
{
    return f->sha256;
}

/* --- single records ------------------------------------------------------------------------ */

t4_status
snapshot_find(struct snapshot_file *f, const char *bucket, const char *key,
              struct buffer *value, struct error *error)
{
    struct t4_slice k, v;
    t4_status status = bolt_reader_bucket(f->reader, bucket, error);

    buffer_clear(value);
    while (status == T4_OK) {
        status = bolt_reader_next(f->reader, &k, &v, error);
        if (status == T4_OK && slice_equal(k, slice_str(key))) {
            buffer_append_slice(value, v);
            return T4_OK;
        }
    }
    return status;
}

bool
snapshot_revision_decode(struct t4_slice key, int64_t *revision, uint64_t *sub,
                         bool *tombstone)
{
    *tombstone =
        key.len == REVISION_BYTES + 1 && key.data[REVISION_BYTES] == REVISION_TOMBSTONE;
    if ((key.len != REVISION_BYTES && !*tombstone) || key.data[8] != '_')
        return false;
    *revision = (int64_t)get_u64be(key.data);
    *sub = get_u64be(key.data + 9);
    return *revision > 0 && *sub <= INT64_MAX;
}

/* --- status ------------------------------------------------------------------------------- */

/* Versions by key, newest first, each with whether it is a tombstone. */
struct versions {
    struct sort *sort;
    struct buffer ikey, order;
};

static t4_status
add_version(struct versions *vs, struct t4_slice key, struct t4_slice value,
            int64_t *revision, struct error *error)
{
    struct key_value kv;
    uint64_t sub;
    bool tombstone;
    uint8_t flag;

    if (!snapshot_revision_decode(key, revision, &sub, &tombstone) ||
        !load_decode_key_value(value, &kv))
        return error_set(error, T4_E_CORRUPT, "the bucket %s has a record that is none",
                         BUCKET_KEY);
    flag = tombstone;
    buffer_clear(&vs->ikey);
    buffer_append_u8(&vs->ikey, SPACE_KEYS);
    buffer_append_slice(&vs->ikey, kv.key);
    buffer_clear(&vs->order);
    record_key_encode(&vs->order, buffer_slice(&vs->ikey), (uint64_t)*revision);
    return sort_add(vs->sort, buffer_slice(&vs->order), slice_of(&flag, 1), error);
}

/* Keys whose newest version is none of their end. */
static t4_status
count_keys(struct versions *vs, uint64_t *keys, struct error *error)
{
    struct t4_slice order, flag, ikey;
    uint64_t stamp;
    t4_status status;

    buffer_clear(&vs->ikey);
    while ((status = sort_next(vs->sort, &order, &flag, error)) == T4_OK) {
        if (!record_key_decode(order, &vs->order, &ikey, &stamp) ||
            slice_equal(ikey, buffer_slice(&vs->ikey)))
            continue;
        *keys += flag.data[0] == 0;
        buffer_clear(&vs->ikey);
        buffer_append_slice(&vs->ikey, ikey);
    }
    return status == T4_E_NOTFOUND ? T4_OK : status;
}

static t4_status
sum_up(struct snapshot_file *f, const char *bucket, struct versions *vs,
       struct snapshot_status *out, struct error *error)
{
    bool in_key = strcmp(bucket, BUCKET_KEY) == 0;
    bool in_meta = strcmp(bucket, BUCKET_META) == 0;
    struct t4_slice key, value;
    t4_status status = bolt_reader_bucket(f->reader, bucket, error);

    out->hash = crc32c(out->hash, bucket, strlen(bucket));
    while (status == T4_OK) {
        status = bolt_reader_next(f->reader, &key, &value, error);
        if (status != T4_OK)
            break;
        out->hash = crc32c(out->hash, key.data, key.len);
        out->hash = crc32c(out->hash, value.data, value.len);
        if (in_key)
            status = add_version(vs, key, value, &out->revision, error);
        if (in_meta && slice_equal(key, slice_str(META_STORAGE_VERSION)))
            snprintf(out->version, sizeof out->version, "%.*s", (int)value.len,
                     (const char *)value.data);
    }
    return status == T4_E_NOTFOUND ? T4_OK : status;
}

#define BUCKETS_MAX 64

t4_status
snapshot_status(struct snapshot_file *f, const char *dir, struct snapshot_status *out,
                struct error *error)
{
    struct versions vs = {.sort = sort_new(f->env, dir, 0)};
    char *name[BUCKETS_MAX];
    size_t n = 0;
    struct t4_slice key, value;
    t4_status status = bolt_reader_bucket(f->reader, NULL, error);

    *out = (struct snapshot_status){.bytes = bolt_reader_bytes(f->reader)};
    while (status == T4_OK && n < BUCKETS_MAX) {
        status = bolt_reader_next(f->reader, &key, &value, error);
        if (status != T4_OK)
            break;
        name[n] = mem_zalloc(key.len + 1);
        memcpy(name[n++], key.data, key.len);
    }
    if (status == T4_E_NOTFOUND)
        status = T4_OK;
    for (size_t i = 0; i < n; i++) {
        if (status == T4_OK)
            status = sum_up(f, name[i], &vs, out, error);
        mem_free(name[i]);
    }
    if (status == T4_OK)
        status = count_keys(&vs, &out->keys, error);
    sort_free(vs.sort);
    buffer_free(&vs.ikey);
    buffer_free(&vs.order);
    return status;
}

/*
 * save.c - the buckets of etcd's database, out of a history and what stands beside it.
 *
 * One order of buckets and keys, two that take them: the file, and the hash of everything.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/crc32c.h"
#include "base/encode.h"
#include "bolt/bolt.h"
#include "snapshot/schema.h"
#include "snapshot/snapshot.h"
#include "sort/sort.h"

/* Who takes buckets, by ascending names, and their records, by ascending keys. */
struct taker {
    t4_status (*bucket)(void *arg, const char *name, struct error *error);
    t4_status (*put)(void *arg, struct t4_slice key, struct t4_slice value,
                     struct error *error);
    void *arg;
};

static t4_status
put_text(const struct taker *t, const char *key, struct t4_slice value,
         struct error *error)
{
    return t->put(t->arg, slice_str(key), value, error);
}

static t4_status
put_number(const struct taker *t, const char *key, uint64_t n, struct error *error)
{
    uint8_t bytes[8];

    put_u64be(bytes, n);
    return put_text(t, key, slice_of(bytes, sizeof bytes), error);
}

/* --- the buckets -------------------------------------------------------------------------- */

static t4_status
put_auth(const struct taker *t, struct error *error)
{
    t4_status status = t->bucket(t->arg, BUCKET_AUTH, error);

    if (status == T4_OK)
        status = put_number(t, "authRevision", 1, error);
    if (status == T4_OK)
        status = t->bucket(t->arg, BUCKET_AUTH_ROLES, error);
    return status == T4_OK ? t->bucket(t->arg, BUCKET_AUTH_USERS, error) : status;
}

static t4_status
put_cluster(const struct taker *t, struct error *error)
{
    t4_status status = t->bucket(t->arg, BUCKET_CLUSTER, error);

    if (status == T4_OK)
        status = put_text(t, "clusterVersion", slice_str(ETCD_STORAGE_VERSION), error);
    if (status == T4_OK)
        status =
            put_text(t, "downgrade",
                     slice_str("{\"target-version\":\"\",\"enabled\":false}"), error);
    return status;
}

static t4_status
put_history(const struct taker *t, struct history *h, struct error *error)
{
    struct buffer key = {0}, value = {0};
    struct history_record r;
    t4_status status = t->bucket(t->arg, BUCKET_KEY, error);

    while (status == T4_OK) {
        status = history_next(h, &r, error);
        if (status != T4_OK)
            break;
        history_etcd_record(&r, &key, &value);
        status = t->put(t->arg, buffer_slice(&key), buffer_slice(&value), error);
    }
    buffer_free(&key);
    buffer_free(&value);
    return status == T4_E_NOTFOUND ? T4_OK : status;
}

static void
append_number_field(struct buffer *out, uint8_t field, int64_t v)
{
    if (v == 0)
        return;
    buffer_append_u8(out, (uint8_t)(field << 3));
    buffer_append_varint(out, (uint64_t)v);
}

static t4_status
put_leases(const struct taker *t, const struct snapshot_facts *facts, struct error *error)
{
    struct buffer value = {0};
    t4_status status = t->bucket(t->arg, BUCKET_LEASE, error);

    for (size_t i = 0; i < facts->n_leases && status == T4_OK; i++) {
        const struct lease_record *l = &facts->lease[i];
        uint8_t key[8];

        put_u64be(key, (uint64_t)l->id);
        buffer_clear(&value);
        append_number_field(&value, 1, l->id);
        append_number_field(&value, 2, l->ttl);
        append_number_field(&value, 3, l->remaining < l->ttl ? l->remaining : 0);
        status = t->put(t->arg, slice_of(key, sizeof key), buffer_slice(&value), error);
    }
    buffer_free(&value);
    return status;
}

static void
append_text(struct buffer *out, const char *text)
{
    buffer_append(out, text, strlen(text));
}

/* A text that may be none in UTF-8, which JSON cannot hold. */
static void
append_string(struct buffer *out, struct t4_slice text)
{
    json_string_append(out, utf8_valid(text) ? text : slice_str("t4"));
}

/* Comma separated -> a list of strings. */
static void
append_list(struct buffer *out, const char *list)
{
    const char *end;

    append_text(out, "[");
    for (const char *at = list; at != NULL && *at != '\0'; at = end) {
        end = strchr(at, ',');
        if (at != list)
            append_text(out, ",");
        append_string(out, slice_of(at, end != NULL ? (size_t)(end - at) : strlen(at)));
        end = end != NULL ? end + 1 : NULL;
    }
    append_text(out, "]");
}

static t4_status
put_members(const struct taker *t, const struct snapshot_facts *facts,
            struct error *error)
{
    struct buffer json = {0};
    char id[24], text[48];
    t4_status status = t->bucket(t->arg, BUCKET_MEMBERS, error);

    snprintf(id, sizeof id, "%" PRIx64, facts->member_id);
    snprintf(text, sizeof text, "{\"id\":%" PRIu64 ",\"peerURLs\":", facts->member_id);
    append_text(&json, text);
    append_list(&json, facts->peer_url);
    append_text(&json, ",\"name\":");
    append_string(&json, slice_str(facts->name));
    append_text(&json, ",\"clientURLs\":");
    append_list(&json, facts->client_urls);
    append_text(&json, "}");
    if (status == T4_OK)
        status = put_text(t, id, buffer_slice(&json), error);
    buffer_free(&json);
    return status == T4_OK ? t->bucket(t->arg, BUCKET_MEMBERS_REMOVED, error) : status;
}

static t4_status
put_revision(const struct taker *t, const char *key, int64_t revision,
             struct error *error)
{
    struct buffer bytes = {0};
    t4_status status;

    revision_encode(&bytes, revision, 0, false);
    status = put_text(t, key, buffer_slice(&bytes), error);
    buffer_free(&bytes);
    return status;
}

static t4_status
put_meta(const struct taker *t, const struct snapshot_facts *facts, int64_t compacted,
         struct error *error)
{
    char conf[64];
    t4_status status = t->bucket(t->arg, BUCKET_META, error);

    snprintf(conf, sizeof conf, "{\"voters\":[%" PRIu64 "],\"auto_leave\":false}",
             facts->member_id);
    if (status == T4_OK)
        status = put_text(t, META_CONF_STATE, slice_str(conf), error);
    if (status == T4_OK)
        status = put_number(t, META_CONSISTENT_INDEX, facts->index, error);
    if (status == T4_OK && compacted > 0)
        status = put_revision(t, META_FINISHED_COMPACT, compacted, error);
    if (status == T4_OK && compacted > 0)
        status = put_revision(t, META_SCHEDULED_COMPACT, compacted, error);
    if (status == T4_OK)
        status =
            put_text(t, META_STORAGE_VERSION, slice_str(ETCD_STORAGE_VERSION), error);
    return status == T4_OK ? put_number(t, META_TERM, facts->term, error) : status;
}

static t4_status
put_all(const struct taker *t, struct history *h, const struct snapshot_facts *facts,
        struct error *error)
{
    t4_status status = t->bucket(t->arg, BUCKET_ALARM, error);

    if (status == T4_OK)
        status = put_auth(t, error);
    if (status == T4_OK)
        status = put_cluster(t, error);
    if (status == T4_OK)
        status = put_history(t, h, error);
    if (status == T4_OK)
        status = put_leases(t, facts, error);
    if (status == T4_OK)
        status = put_members(t, facts, error);
    return status == T4_OK ? put_meta(t, facts, history_compacted(h), error) : status;
}

/* --- into a file -------------------------------------------------------------------------- */

static t4_status
file_bucket(void *arg, const char *name, struct error *error)
{
    return bolt_writer_bucket(arg, slice_str(name), error);
}

static t4_status
file_put(void *arg, struct t4_slice key, struct t4_slice value, struct error *error)
{
    return bolt_writer_put(arg, key, value, error);
}

t4_status
snapshot_write(struct env *env, const char *dir, struct history *h,
               const struct snapshot_facts *facts, struct env_file **out, uint64_t *size,
               struct error *error)
{
    struct taker t = {file_bucket, file_put, NULL};
    struct bolt_writer *w;
    t4_status status = temporary_open(env, dir, out, error);

    if (status != T4_OK)
        return status;
    t.arg = w = bolt_writer_new(env, *out);
    status = put_all(&t, h, facts, error);
    if (status == T4_OK)
        status = bolt_writer_finish(w, size, error);
    bolt_writer_free(w);
    if (status != T4_OK) {
        env->close(env->state, *out);
        *out = NULL;
    }
    return status;
}

/* --- into a hash -------------------------------------------------------------------------- */

struct hashing {
    uint32_t hash;
    bool in_meta;
};

static void
add(struct hashing *h, struct t4_slice s)
{
    h->hash = crc32c(h->hash, s.data, s.len);
}

static t4_status
hash_bucket(void *arg, const char *name, struct error *error)
{
    struct hashing *h = arg;

    (void)error;
    add(h, slice_str(name));
    h->in_meta = strcmp(name, BUCKET_META) == 0;
    return T4_OK;
}

static t4_status
hash_put(void *arg, struct t4_slice key, struct t4_slice value, struct error *error)
{
    struct hashing *h = arg;

    (void)error;
    if (h->in_meta && (slice_equal(key, slice_str(META_CONSISTENT_INDEX)) ||
                       slice_equal(key, slice_str(META_STORAGE_VERSION)) ||
                       slice_equal(key, slice_str(META_TERM))))
        return T4_OK;
    add(h, key);
    add(h, value);
    return T4_OK;
}

t4_status
snapshot_hash(struct history *h, const struct snapshot_facts *facts, uint32_t *hash,
              struct error *error)
{
    struct hashing hashing = {0};
    struct taker t = {hash_bucket, hash_put, &hashing};
    t4_status status = put_all(&t, h, facts, error);

    *hash = hashing.hash;
    return status;
}

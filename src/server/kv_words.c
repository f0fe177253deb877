/*
 * kv_words.c - words as requests.  See kv_words.h.
 *
 * The rules are etcdctl's: what it refuses is refused, what it makes of an empty key with
 * --prefix is made of it.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "server/kv_words.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "base/buffer.h"
#include "base/memory.h"

static uint8_t zero_key[1] = {0}; /* the smallest key, and as an end: no end */

ProtobufCBinaryData
data_of_text(const char *text)
{
    return (ProtobufCBinaryData){strlen(text), (uint8_t *)(uintptr_t)text};
}

void
range_of_prefix(struct pool *pool, ProtobufCBinaryData *key,
                ProtobufCBinaryData *range_end)
{
    size_t n = key->len;
    uint8_t *end;

    while (n > 0 && key->data[n - 1] == 0xff)
        n--;
    if (n == 0) {
        bool empty = key->len == 0;

        *range_end = (ProtobufCBinaryData){1, zero_key};
        if (empty)
            *key = *range_end;
        return;
    }
    end = pool_alloc(pool, n);
    memcpy(end, key->data, n);
    end[n - 1]++;
    *range_end = (ProtobufCBinaryData){n, end};
}

void
range_from_key(ProtobufCBinaryData *key, ProtobufCBinaryData *range_end)
{
    *range_end = (ProtobufCBinaryData){1, zero_key};
    if (key->len == 0)
        *key = *range_end;
}

/* --- put ------------------------------------------------------------------------------------ */

/* All of the standard input. */
static t4_status
read_value(struct pool *pool, ProtobufCBinaryData *out, struct error *error)
{
    struct buffer all = {0};
    uint8_t *copy;
    size_t got;

    do {
        got = fread(buffer_reserve(&all, 65536), 1, 65536, stdin);
        all.len += got;
    } while (got > 0 && all.len < ((size_t)1 << 30));
    if (all.len == 0) {
        error_set(error, T4_E_INVALID, "there is no value");
        error_hint(error, "write it behind the key, or give it on the standard input");
    }
    copy = pool_alloc(pool, all.len + 1);
    if (all.len > 0)
        memcpy(copy, all.data, all.len);
    *out = (ProtobufCBinaryData){all.len, copy};
    buffer_free(&all);
    return out->len > 0 ? T4_OK : T4_E_INVALID;
}

t4_status
put_request_make(const struct put_flags *f, const struct words *w, struct pool *pool,
                 Etcdserverpb__PutRequest *out, struct error *error)
{
    etcdserverpb__put_request__init(out);
    if (w->n == 0) {
        error_set(error, T4_E_INVALID, "there is no key");
        return error_hint(error, "write put KEY VALUE, or put KEY with the value on the "
                                 "standard input");
    }
    if (f->ignore_value && w->n > 1) {
        error_set(error, T4_E_INVALID, "--ignore-value takes no value");
        return error_hint(error, "write put KEY --ignore-value");
    }
    out->key = data_of_text(w->word[0]);
    out->lease = f->lease;
    out->prev_kv = f->prev_kv;
    out->ignore_value = f->ignore_value;
    out->ignore_lease = f->ignore_lease;
    if (f->ignore_value)
        return T4_OK;
    if (w->n == 1)
        return read_value(pool, &out->value, error);
    out->value = data_of_text(w->word[1]);
    return T4_OK;
}

/* --- ranges ----------------------------------------------------------------------------------- */

/* Key, end and flags of a range, for get and del. */
static t4_status
make_range(const char *command, bool prefix, bool from_key, const struct words *w,
           struct pool *pool, ProtobufCBinaryData *key, ProtobufCBinaryData *end,
           struct error *error)
{
    if (w->n == 0) {
        error_set(error, T4_E_INVALID, "there is no key");
        return error_hint(error,
                          "write %s KEY, or %s KEY END for the keys from KEY to "
                          "below END",
                          command, command);
    }
    if (prefix && from_key) {
        error_set(error, T4_E_INVALID, "--prefix and --from-key exclude each other");
        return error_hint(error, "choose one");
    }
    if (w->n > 1 && (prefix || from_key)) {
        error_set(error, T4_E_INVALID, "\"%.64s\" is a word too many", w->word[1]);
        return error_hint(error, "--prefix and --from-key take one key");
    }
    *key = data_of_text(w->word[0]);
    if (w->n > 1)
        *end = data_of_text(w->word[1]);
    if (prefix)
        range_of_prefix(pool, key, end);
    if (from_key)
        range_from_key(key, end);
    return T4_OK;
}

/* Index of `text` in the list, whatever its case; -1: it is none of them. */
static int
choose(const char *text, const char *const *list)
{
    for (int i = 0; list[i] != NULL; i++)
        if (strcasecmp(text, list[i]) == 0)
            return i;
    return -1;
}

static t4_status
refuse_choice(struct error *error, const char *flag, const char *text, const char *valid)
{
    error_set(error, T4_E_INVALID, "--%s takes no \"%.64s\"", flag, text);
    return error_hint(error, "it takes %s", valid);
}

static t4_status
make_sort(const struct get_flags *f, Etcdserverpb__RangeRequest *out, struct error *error)
{
    /* In the order of the API's numbers. */
    static const char *const orders[] = {"", "ASCEND", "DESCEND", NULL};
    static const char *const targets[] = {"KEY",    "VERSION", "CREATE",
                                          "MODIFY", "VALUE",   NULL};
    int order = choose(f->order == NULL ? "" : f->order, orders);
    int target =
        choose(f->sort_by == NULL || f->sort_by[0] == '\0' ? "KEY" : f->sort_by, targets);

    if (order < 0)
        return refuse_choice(error, "order", f->order, "ASCEND or DESCEND");
    if (target < 0)
        return refuse_choice(error, "sort-by", f->sort_by,
                             "CREATE, KEY, MODIFY, VALUE or VERSION");
    if (target == 0 && order == 1)
        order = 0; /* it is what comes anyhow, and saves the server the sorting */
    out->sort_order = (Etcdserverpb__RangeRequest__SortOrder)order;
    out->sort_target = (Etcdserverpb__RangeRequest__SortTarget)target;
    return T4_OK;
}

/* What etcd's clients do not send: a bound that is not above zero. */
static int64_t
bound(int64_t value)
{
    return value > 0 ? value : 0;
}

t4_status
get_request_make(const struct get_flags *f, const struct words *w, struct pool *pool,
                 Etcdserverpb__RangeRequest *out, struct error *error)
{
    static const char *const consistency[] = {"l", "s", NULL};
    int serializable = f->consistency == NULL ? 0 : choose(f->consistency, consistency);
    t4_status status;

    etcdserverpb__range_request__init(out);
    status = make_range("get", f->prefix, f->from_key, w, pool, &out->key,
                        &out->range_end, error);
    if (status == T4_OK)
        status = make_sort(f, out, error);
    if (status != T4_OK)
        return status;
    if (serializable < 0)
        return refuse_choice(error, "consistency", f->consistency,
                             "l (linearizable) or s (serializable)");
    if (f->keys_only && f->count_only) {
        error_set(error, T4_E_INVALID, "--keys-only and --count-only exclude each other");
        return error_hint(error, "choose one");
    }
    if ((f->max_create > 0 && f->min_create > f->max_create) ||
        (f->max_mod > 0 && f->min_mod > f->max_mod)) {
        error_set(error, T4_E_INVALID, "the least revision is above the greatest");
        return error_hint(error, "--min-create-rev, --min-mod-rev take the smaller one");
    }
    out->serializable = serializable == 1;
    out->limit = f->limit;
    out->revision = bound(f->revision);
    out->keys_only = f->keys_only;
    out->count_only = f->count_only;
    out->min_create_revision = bound(f->min_create);
    out->max_create_revision = bound(f->max_create);
    out->min_mod_revision = bound(f->min_mod);
    out->max_mod_revision = bound(f->max_mod);
    return T4_OK;
}

t4_status
del_request_make(const struct del_flags *f, const struct words *w, struct pool *pool,
                 Etcdserverpb__DeleteRangeRequest *out, struct error *error)
{
    etcdserverpb__delete_range_request__init(out);
    out->prev_kv = f->prev_kv;
    if (w->n > 2) {
        error_set(error, T4_E_INVALID, "\"%.64s\" is a word too many", w->word[2]);
        return error_hint(error, "write del KEY, or del KEY END");
    }
    return make_range("del", f->prefix, f->from_key, w, pool, &out->key, &out->range_end,
                      error);
}

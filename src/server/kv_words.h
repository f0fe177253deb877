/*
 * kv_words.h - the words behind put, get and del as requests: for the commands and for txn.
 *
 * Main thread only.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef SERVER_KV_WORDS_H
#define SERVER_KV_WORDS_H

#include "pb/etcd/rpc.pb-c.h"
#include "server/words.h"

struct put_flags {
    int64_t lease;
    bool prev_kv, ignore_value, ignore_lease;
};
#define PUT_FLAGS(f)                                                                     \
    {"lease", 0, WORD_ID, &(f)->lease}, {"prev-kv", 0, WORD_SWITCH, &(f)->prev_kv},      \
        {"ignore-value", 0, WORD_SWITCH, &(f)->ignore_value},                            \
    {                                                                                    \
        "ignore-lease", 0, WORD_SWITCH, &(f)->ignore_lease                               \
    }

struct get_flags {
    const char *consistency, *order, *sort_by;
    int64_t limit, revision;
    bool prefix, from_key, keys_only, count_only, value_only;
    int64_t min_create, max_create, min_mod, max_mod;
};
#define GET_FLAGS(f)                                                                     \
    {"consistency", 0, WORD_TEXT, &(f)->consistency},                                    \
        {"order", 0, WORD_TEXT, &(f)->order}, {"sort-by", 0, WORD_TEXT, &(f)->sort_by},  \
        {"limit", 0, WORD_INT, &(f)->limit}, {"prefix", 0, WORD_SWITCH, &(f)->prefix},   \
        {"from-key", 0, WORD_SWITCH, &(f)->from_key},                                    \
        {"rev", 0, WORD_INT, &(f)->revision},                                            \
        {"keys-only", 0, WORD_SWITCH, &(f)->keys_only},                                  \
        {"count-only", 0, WORD_SWITCH, &(f)->count_only},                                \
        {"print-value-only", 0, WORD_SWITCH, &(f)->value_only},                          \
        {"min-create-rev", 0, WORD_INT, &(f)->min_create},                               \
        {"max-create-rev", 0, WORD_INT, &(f)->max_create},                               \
        {"min-mod-rev", 0, WORD_INT, &(f)->min_mod},                                     \
    {                                                                                    \
        "max-mod-rev", 0, WORD_INT, &(f)->max_mod                                        \
    }

struct del_flags {
    bool prefix, from_key, prev_kv, range;
};
#define DEL_FLAGS(f)                                                                     \
    {"prefix", 0, WORD_SWITCH, &(f)->prefix},                                            \
        {"prev-kv", 0, WORD_SWITCH, &(f)->prev_kv},                                      \
        {"from-key", 0, WORD_SWITCH, &(f)->from_key},                                    \
    {                                                                                    \
        "range", 0, WORD_SWITCH, &(f)->range                                             \
    }

/*
 * Fill in a request.  Keys and values are borrowed from the words, or of the pool.  INVALID:
 * what is wrong.
 */
t4_status put_request_make(const struct put_flags *f, const struct words *w,
                           struct pool *pool, Etcdserverpb__PutRequest *out,
                           struct error *error);
t4_status get_request_make(const struct get_flags *f, const struct words *w,
                           struct pool *pool, Etcdserverpb__RangeRequest *out,
                           struct error *error);
t4_status del_request_make(const struct del_flags *f, const struct words *w,
                           struct pool *pool, Etcdserverpb__DeleteRangeRequest *out,
                           struct error *error);

/*
 * The range that a key stands for with --prefix (or, `from`, with --from-key), as etcd's
 * clients make it.  *key is replaced where it is empty.
 */
void range_of_prefix(struct pool *pool, ProtobufCBinaryData *key,
                     ProtobufCBinaryData *range_end);
void range_from_key(ProtobufCBinaryData *key, ProtobufCBinaryData *range_end);
/* Borrowed. */
ProtobufCBinaryData data_of_text(const char *text);

#endif

/*
 * lib_test.c - the library of t4.h: every function once, its errors, and what it promises of
 * threads, ownership, forks, failures and several databases in one process.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "include/t4.h"
#include "scratch.h"

#define SECONDS 20

static char root[SCRATCH_ROOM];

static const char *
fresh_folder(void)
{
    static char path[SCRATCH_ROOM + 16];
    static int n;

    snprintf(path, sizeof path, "%s/%d", root, n++);
    return path;
}

static t4_db *
open_with(const char *folder, const t4_options *options)
{
    t4_error error = {0};
    t4_db *db;

    if (t4_open(folder, options, &db, &error) != T4_OK)
        fail_msg("%s (%s)", error.message, error.hint);
    return db;
}

static t4_db *
open_fresh(void)
{
    return open_with(fresh_folder(), NULL);
}

static void
put(t4_db *db, const char *key, const char *value)
{
    t4_error error = {0};

    if (t4_put(db, t4_text(key), t4_text(value), NULL, NULL, &error) != T4_OK)
        fail_msg("%s", error.message);
}

static void
assert_slice(struct t4_slice s, const char *text)
{
    assert_int_equal(s.len, strlen(text));
    assert_memory_equal(s.data, text, s.len);
}

static void
expect(t4_db *db, const char *key, const char *value)
{
    t4_kv *kv;
    t4_status st = t4_get(db, t4_text(key), NULL, &kv, NULL);

    if (value == NULL) {
        assert_int_equal(st, T4_E_NOTFOUND);
        assert_null(kv);
        return;
    }
    assert_int_equal(st, T4_OK);
    assert_slice(kv->value, value);
    t4_free(kv);
}

static struct t4_slice
none(void)
{
    return t4_bytes(NULL, 0);
}

/* --- keys -------------------------------------------------------------------------------------- */

static void
keys_are_put_read_and_deleted(void **state)
{
    t4_write_options w = T4_WRITE_OPTIONS_INIT;
    t4_read_options r = T4_READ_OPTIONS_INIT;
    t4_db *db = open_fresh();
    struct t4_slice key, end;
    t4_result *result;
    char room[8];
    t4_error error;
    t4_kv *kv;

    (void)state;
    assert_int_equal(t4_put(db, t4_text("a"), t4_text("1"), NULL, &result, NULL), T4_OK);
    assert_int_equal(result->kind, T4_RESULT_PUT);
    assert_int_equal(result->revision, 2);
    assert_int_equal(result->n_kvs, 0);
    t4_free(result);
    w.flags = T4_PREV_KV;
    assert_int_equal(t4_put(db, t4_text("a"), t4_text("2"), &w, &result, NULL), T4_OK);
    assert_int_equal(result->n_kvs, 1);
    assert_slice(result->kvs[0].value, "1");
    t4_free(result);
    w.flags = T4_IGNORE_VALUE;
    assert_int_equal(t4_put(db, t4_text("none"), none(), &w, NULL, &error),
                     T4_E_NOTFOUND);
    put(db, "b", "");
    put(db, "c", "3");

    assert_int_equal(t4_get(db, t4_text("a"), NULL, &kv, NULL), T4_OK);
    assert_slice(kv->key, "a");
    assert_slice(kv->value, "2");
    assert_int_equal(kv->version, 2);
    assert_int_equal(kv->create_revision, 2);
    assert_int_equal(kv->mod_revision, 3);
    t4_free(kv);
    expect(db, "b", "");
    expect(db, "nothing", NULL);

    t4_all_keys(&key, &end);
    r.flags = T4_DESCEND;
    r.limit = 2;
    assert_int_equal(t4_range(db, key, end, &r, &result, NULL), T4_OK);
    assert_int_equal(result->n_kvs, 2);
    assert_int_equal(result->count, 3);
    assert_true(result->more);
    assert_slice(result->kvs[0].key, "c");
    t4_free(result);
    r = (t4_read_options){.size = sizeof r, .flags = T4_COUNT_ONLY, .revision = 3};
    assert_int_equal(t4_range(db, key, end, &r, &result, NULL), T4_OK);
    assert_int_equal(result->count, 1);
    assert_int_equal(result->revision, 3);
    t4_free(result);

    w.flags = T4_PREV_KV;
    assert_int_equal(
        t4_delete(db, t4_text("a"), t4_prefix_end(t4_text("b"), room), &w, &result, NULL),
        T4_OK);
    assert_int_equal(result->count, 2);
    assert_int_equal(result->n_kvs, 2);
    assert_slice(result->kvs[1].key, "b");
    t4_free(result);
    expect(db, "a", NULL);
    assert_int_equal(t4_barrier(db, 0, NULL), T4_OK);
    assert_int_equal(t4_close(db), T4_OK);
}

static void
prefixes_have_ends(void **state)
{
    uint8_t room[4];

    (void)state;
    assert_slice(t4_prefix_end(t4_text("ab"), room), "ac");
    assert_slice(t4_prefix_end(t4_bytes("a\xff", 2), room), "b");
    assert_int_equal(t4_prefix_end(t4_bytes("\xff\xff", 2), room).len, 1);
    assert_int_equal(room[0], 0);
    assert_int_equal(t4_prefix_end(none(), room).len, 1);
}

static void
mistakes_are_told(void **state)
{
    t4_write_options w = {0};
    t4_db *db = open_fresh(), *other;
    t4_options *options = t4_options_new();
    t4_error error = {0};
    char *large = calloc(1, 2000000);
    int64_t lease = 0;
    t4_kv *kv;

    (void)state;
    assert_int_equal(t4_put(db, none(), none(), NULL, NULL, &error), T4_E_INVALID);
    assert_string_equal(error.message, "the key is empty");
    assert_int_equal(error.status, T4_E_INVALID);
    assert_int_equal(t4_put(db, t4_bytes(large, 16385), none(), NULL, NULL, &error),
                     T4_E_INVALID);
    assert_string_equal(error.message, "the key is too long");
    assert_int_equal(
        t4_put(db, t4_text("a"), t4_bytes(large, 2000000), NULL, NULL, &error),
        T4_E_INVALID);
    assert_string_equal(error.message, "the request is too large");
    assert_int_equal(t4_put(db, t4_text("a"), none(), &w, NULL, &error), T4_E_INVALID);
    w = (t4_write_options){.size = sizeof w, .flags = T4_KEYS_ONLY};
    assert_int_equal(t4_put(db, t4_text("a"), none(), &w, NULL, &error), T4_E_INVALID);
    w = (t4_write_options){.size = sizeof w, .flags = T4_OBJECT_DURABLE};
    assert_int_equal(t4_put(db, t4_text("a"), none(), &w, NULL, &error), T4_E_INVALID);
    assert_string_equal(error.message, "T4_OBJECT_DURABLE without an object store");
    w = (t4_write_options){.size = sizeof w, .lease = 4711};
    assert_int_equal(t4_put(db, t4_text("a"), none(), &w, NULL, &error), T4_E_NOTFOUND);
    assert_int_equal(t4_get(db, none(), NULL, &kv, &error), T4_E_INVALID);
    assert_int_equal(t4_compact(db, 99, 0, &error), T4_E_FUTURE);
    assert_int_equal(t4_lease_grant(db, INT64_C(9000000001), &lease, NULL, &error),
                     T4_E_INVALID);
    assert_int_equal(t4_lease_revoke(db, 1, &error), T4_E_NOTFOUND);
    assert_int_equal(t4_lease_keep_alive(db, 1, NULL, &error), T4_E_NOTFOUND);
    /* and nothing of it was done */
    expect(db, "a", NULL);

    t4_options_set(options, "max_txn_opps", "3");
    assert_int_equal(t4_open(fresh_folder(), options, &other, &error), T4_E_INVALID);
    assert_string_equal(error.message, "there is no option \"max_txn_opps\"");
    assert_non_null(strstr(error.hint, "max_txn_ops"));
    assert_null(other);
    t4_options_free(options);
    options = t4_options_new();
    t4_options_set(options, "max_txn_ops", "many");
    assert_int_equal(t4_open(fresh_folder(), options, &other, &error), T4_E_INVALID);
    assert_string_equal(error.message, "option max_txn_ops: \"many\" is not possible");
    t4_options_set(options, "max_txn_ops", "3");
    t4_options_set(options, "s3.region", "x");
    assert_int_equal(t4_open(fresh_folder(), options, &other, &error), T4_E_INVALID);
    assert_string_equal(error.message,
                        "option \"s3.region\" is of a plugin that is not used");
    t4_options_free(options);
    assert_int_equal(t4_open("", NULL, &other, &error), T4_E_INVALID);
    assert_true(t4_open("/proc/nowhere/x", NULL, &other, &error) < 0);
    assert_non_null(strstr(error.message, "/proc/nowhere"));
    assert_string_equal(t4_status_text(T4_E_COMPACTED), "compacted");
    free(large);
    t4_close(db);
}

/* --- iterators and snapshots ------------------------------------------------------------------- */

static void
fill(t4_db *db, int n, size_t bytes)
{
    char *value = calloc(1, bytes);

    for (int i = 0; i < n;) {
        t4_txn *txn = t4_txn_new(db);
        char key[16];

        for (int end = i + 100; i < n && i < end; i++) {
            snprintf(key, sizeof key, "k%06d", i);
            t4_txn_put(txn, T4_SUCCESS, t4_text(key), t4_bytes(value, bytes), NULL);
        }
        assert_int_equal(t4_txn_commit(txn, 0, NULL, NULL), T4_OK);
        t4_txn_free(txn);
    }
    free(value);
}

static void
iterators_see_one_revision(void **state)
{
    t4_read_options r = T4_READ_OPTIONS_INIT;
    t4_db *db = open_fresh();
    struct t4_slice key, end;
    t4_iterator *it;
    const t4_kv *kv;
    int64_t revision;
    int n = 0;

    (void)state;
    fill(db, 3000, 1000); /* twelve pieces */
    t4_all_keys(&key, &end);
    assert_int_equal(t4_iterator_open(db, key, end, NULL, &it, NULL), T4_OK);
    revision = t4_iterator_revision(it);
    while (t4_iterator_next(it, &kv, NULL) == T4_OK) {
        char want[16];

        snprintf(want, sizeof want, "k%06d", n++);
        assert_slice(kv->key, want);
        assert_int_equal(kv->value.len, 1000);
        assert_true(kv->mod_revision <= revision);
        if (n == 10) { /* what changes behind it is not seen */
            put(db, "k002999", "new");
            assert_int_equal(
                t4_delete(db, t4_text("k001000"), t4_text("k002000"), NULL, NULL, NULL),
                T4_OK);
        }
    }
    assert_null(kv);
    assert_int_equal(n, 3000);
    assert_int_equal(t4_iterator_next(it, &kv, NULL), T4_DONE);
    t4_iterator_close(it);

    r.limit = 7;
    r.flags = T4_KEYS_ONLY;
    assert_int_equal(t4_iterator_open(db, key, end, &r, &it, NULL), T4_OK);
    for (n = 0; t4_iterator_next(it, &kv, NULL) == T4_OK; n++)
        assert_int_equal(kv->value.len, 0);
    assert_int_equal(n, 7);
    t4_iterator_close(it);
    assert_int_equal(t4_iterator_open(db, t4_text("x"), t4_text("y"), NULL, &it, NULL),
                     T4_OK);
    assert_int_equal(t4_iterator_next(it, &kv, NULL), T4_DONE);
    t4_iterator_close(it);
    t4_close(db);
}

static void
snapshots_end_with_compaction(void **state)
{
    t4_read_options r = T4_READ_OPTIONS_INIT;
    t4_db *db = open_fresh();
    t4_info info = {.size = sizeof info};
    struct t4_slice key, end;
    t4_snapshot *snapshot, *late;
    t4_iterator *it;
    const t4_kv *next;
    t4_error error;
    t4_kv *kv;
    t4_status st;
    int n = 0;

    (void)state;
    fill(db, 2000, 1000);
    put(db, "a", "old");
    assert_int_equal(t4_snapshot_open(db, 0, &snapshot, NULL), T4_OK);
    put(db, "a", "new");
    r.snapshot = snapshot;
    assert_int_equal(t4_get(db, t4_text("a"), &r, &kv, NULL), T4_OK);
    assert_slice(kv->value, "old");
    t4_free(kv);
    t4_all_keys(&key, &end);
    assert_int_equal(t4_iterator_open(db, key, end, &r, &it, NULL), T4_OK);
    assert_int_equal(t4_iterator_revision(it), t4_snapshot_revision(snapshot));

    assert_int_equal(
        t4_compact(db, t4_snapshot_revision(snapshot) + 1, T4_PHYSICAL, NULL), T4_OK);
    assert_int_equal(t4_get_info(db, &info, NULL), T4_OK);
    assert_int_equal(info.compacted_revision, t4_snapshot_revision(snapshot) + 1);
    assert_int_equal(info.revision, info.compacted_revision);
    assert_true(info.leads);
    assert_int_equal(t4_get(db, t4_text("a"), &r, &kv, &error), T4_E_COMPACTED);
    while ((st = t4_iterator_next(it, &next, &error)) == T4_OK)
        n++;
    assert_int_equal(st, T4_E_COMPACTED);
    assert_in_range(n, 1, 1999); /* the piece that it had */
    assert_int_equal(t4_iterator_next(it, &next, &error), T4_E_COMPACTED);
    assert_int_equal(t4_snapshot_open(db, 2, &late, &error), T4_E_COMPACTED);
    assert_int_equal(t4_snapshot_open(db, 1000000, &late, &error), T4_E_FUTURE);
    assert_int_equal(t4_compact(db, 2, 0, &error), T4_E_COMPACTED);
    if (t4_defragment(db, &error) != T4_OK)
        fail_msg("%s", error.message);
    expect(db, "a", "new");

    /* handles outlive their database, and say so */
    t4_close(db);
    assert_int_equal(t4_iterator_next(it, &next, &error), T4_E_COMPACTED);
    t4_iterator_close(it);
    t4_snapshot_close(snapshot);
}

/* --- transactions and leases -------------------------------------------------------------------- */

static void
transactions_compare_and_branch(void **state)
{
    t4_db *db = open_fresh();
    t4_result *result;
    t4_error error;
    t4_txn *txn, *nested;

    (void)state;
    put(db, "a", "1");
    txn = t4_txn_new(db);
    t4_txn_compare(txn, t4_text("a"), none(), T4_COMPARE_VERSION, T4_EQUAL, 1);
    t4_txn_compare_value(txn, t4_text("a"), none(), T4_EQUAL, t4_text("1"));
    t4_txn_put(txn, T4_SUCCESS, t4_text("a"), t4_text("2"), NULL);
    t4_txn_range(txn, T4_SUCCESS, t4_text("a"), none(), NULL);
    nested = t4_txn_new(db);
    t4_txn_compare(nested, t4_text("z"), none(), T4_COMPARE_CREATE, T4_GREATER, 0);
    t4_txn_put(nested, T4_FAILURE, t4_text("z"), t4_text("made"), NULL);
    t4_txn_nest(txn, T4_SUCCESS, nested);
    t4_txn_delete(txn, T4_FAILURE, t4_text("a"), none(), NULL);
    assert_int_equal(t4_txn_commit(txn, 0, &result, NULL), T4_OK);
    assert_int_equal(result->kind, T4_RESULT_TXN);
    assert_true(result->succeeded);
    assert_int_equal(result->n_results, 3);
    assert_int_equal(result->results[0].kind, T4_RESULT_PUT);
    assert_slice(result->results[1].kvs[0].value, "2");
    assert_int_equal(result->results[2].kind, T4_RESULT_TXN);
    assert_false(result->results[2].succeeded);
    t4_free(result);
    expect(db, "z", "made");
    /* the same again: the comparison fails now, the other branch deletes */
    assert_int_equal(t4_txn_commit(txn, 0, &result, NULL), T4_OK);
    assert_false(result->succeeded);
    assert_int_equal(result->results[0].count, 1);
    t4_free(result);
    t4_txn_free(txn);
    expect(db, "a", NULL);

    txn = t4_txn_new(db); /* only reads */
    t4_txn_range(txn, T4_SUCCESS, t4_text("z"), none(), NULL);
    assert_int_equal(t4_txn_commit(txn, 0, &result, NULL), T4_OK);
    assert_slice(result->results[0].kvs[0].value, "made");
    t4_free(result);
    t4_txn_free(txn);

    txn = t4_txn_new(db);
    t4_txn_put(txn, T4_SUCCESS, t4_text("d"), none(), NULL);
    t4_txn_put(txn, T4_SUCCESS, t4_text("d"), none(), NULL);
    assert_int_equal(t4_txn_commit(txn, 0, NULL, &error), T4_E_INVALID);
    assert_string_equal(error.message,
                        "a key is put twice in one branch of the transaction");
    t4_txn_free(txn);
    txn = t4_txn_new(db);
    t4_txn_put(txn, 7, t4_text("d"), none(), NULL);
    assert_int_equal(t4_txn_commit(txn, 0, NULL, &error), T4_E_INVALID);
    t4_txn_free(txn);
    txn = t4_txn_new(db);
    for (int i = 0; i < 200; i++) {
        char key[16];

        snprintf(key, sizeof key, "%d", i);
        t4_txn_put(txn, T4_SUCCESS, t4_text(key), none(), NULL);
    }
    assert_int_equal(t4_txn_commit(txn, 0, NULL, &error), T4_E_INVALID);
    assert_non_null(strstr(error.hint, "max_txn_ops"));
    t4_txn_free(txn);
    expect(db, "d", NULL);
    t4_close(db);
}

static void
leases_hold_keys(void **state)
{
    t4_write_options w = T4_WRITE_OPTIONS_INIT;
    int64_t lease = 0, second = 77, ttl;
    t4_db *db = open_fresh();
    t4_result *result;
    t4_kv *kv;

    (void)state;
    assert_int_equal(t4_lease_grant(db, 600, &lease, &ttl, NULL), T4_OK);
    assert_true(lease != 0);
    assert_int_equal(ttl, 600);
    assert_int_equal(t4_lease_grant(db, 60, &second, NULL, NULL), T4_OK);
    assert_int_equal(second, 77);
    assert_int_equal(t4_lease_grant(db, 60, &second, NULL, NULL), T4_E_EXISTS);
    w.lease = lease;
    assert_int_equal(t4_put(db, t4_text("a"), t4_text("1"), &w, NULL, NULL), T4_OK);
    assert_int_equal(t4_get(db, t4_text("a"), NULL, &kv, NULL), T4_OK);
    assert_int_equal(kv->lease, lease);
    t4_free(kv);
    assert_int_equal(t4_lease_time_to_live(db, lease, &result, NULL), T4_OK);
    assert_int_equal(result->granted_ttl, 600);
    assert_in_range(result->ttl, 500, 600);
    assert_int_equal(result->n_kvs, 1);
    assert_slice(result->kvs[0].key, "a");
    t4_free(result);
    assert_int_equal(t4_lease_list(db, &result, NULL), T4_OK);
    assert_int_equal(result->n_kvs, 2);
    assert_true(result->kvs[0].lease == 77 || result->kvs[1].lease == 77);
    t4_free(result);
    assert_int_equal(t4_lease_keep_alive(db, lease, &ttl, NULL), T4_OK);
    assert_int_equal(ttl, 600);
    assert_int_equal(t4_lease_revoke(db, lease, NULL), T4_OK);
    expect(db, "a", NULL);
    assert_int_equal(t4_lease_time_to_live(db, lease, &result, NULL), T4_E_NOTFOUND);
    assert_null(result);
    t4_close(db);
}

/* --- watches ------------------------------------------------------------------------------------ */

/* Something that another thread brings about. */
struct heard {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    int events, calls, ended;
    t4_status status;
    t4_db *db;
    t4_watch *watch;
};

static void
heard_init(struct heard *h)
{
    *h = (struct heard){0};
    pthread_mutex_init(&h->lock, NULL);
    pthread_cond_init(&h->changed, NULL);
}

/* Waits until *what is at least n. */
static void
await(struct heard *h, const int *what, int n)
{
    struct timespec until;

    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += SECONDS;
    pthread_mutex_lock(&h->lock);
    while (*what < n)
        if (pthread_cond_timedwait(&h->changed, &h->lock, &until) != 0)
            fail_msg("%d of %d came", *what, n);
    pthread_mutex_unlock(&h->lock);
}

static void
on_events(void *arg, t4_status status, t4_events *events, const t4_error *error)
{
    struct heard *h = arg;

    pthread_mutex_lock(&h->lock);
    h->calls++;
    if (status == T4_OK) {
        for (size_t i = 0; i < events->n_events; i++)
            assert_true(events->events[i].kv.mod_revision <= events->revision);
        h->events += (int)events->n_events;
        t4_free(events);
    } else {
        assert_int_equal(error->status, status);
        h->status = status;
        h->ended++;
    }
    pthread_cond_broadcast(&h->changed);
    pthread_mutex_unlock(&h->lock);
}

static void
watches_call_back(void **state)
{
    t4_watch_options o = T4_WATCH_OPTIONS_INIT;
    t4_db *db = open_fresh();
    struct t4_slice key, end;
    struct heard heard;
    t4_watch *watch, *none_left;
    t4_events *events;
    t4_error error;

    (void)state;
    heard_init(&heard);
    o.callback = on_events;
    o.callback_arg = &heard;
    t4_all_keys(&key, &end);
    assert_int_equal(t4_watch_open(db, key, end, &o, &watch, NULL), T4_OK);
    assert_int_equal(t4_watch_fd(watch), -1);
    assert_int_equal(t4_watch_next(watch, 0, &events, NULL), T4_E_INVALID);
    fill(db, 5000, 200);
    await(&heard, &heard.events, 5000);
    assert_int_equal(heard.events, 5000);
    t4_watch_close(watch);
    put(db, "more", "");
    assert_int_equal(t4_barrier(db, 0, NULL), T4_OK);

    /* from the past, and ended by the close */
    o.start_revision = 2;
    assert_int_equal(t4_watch_open(db, key, end, &o, &watch, NULL), T4_OK);
    await(&heard, &heard.events, 10001);
    assert_int_equal(heard.events, 10001);
    assert_int_equal(t4_compact(db, 20, 0, NULL), T4_OK);
    assert_int_equal(t4_watch_open(db, key, end, &o, &none_left, &error), T4_E_COMPACTED);
    assert_null(none_left);
    assert_non_null(strstr(error.message, "the compacted revision is 20"));
    assert_int_equal(heard.ended, 0);
    t4_close(db);
    assert_int_equal(heard.ended, 1);
    assert_int_equal(heard.status, T4_E_CLOSED);
    t4_watch_close(watch);
}

static void
expect_readable(t4_watch *watch, bool readable)
{
    struct pollfd p = {.fd = t4_watch_fd(watch), .events = POLLIN};

    assert_int_equal(poll(&p, 1, readable ? SECONDS * 1000 : 0), readable);
}

static void
watches_are_polled(void **state)
{
    t4_watch_options o = T4_WATCH_OPTIONS_INIT;
    t4_db *db = open_fresh();
    t4_events *events;
    t4_watch *watch;
    t4_error error;
    int n = 0;

    (void)state;
    put(db, "a", "0");
    o.flags = T4_PREV_KV;
    assert_int_equal(t4_watch_open(db, t4_text("a"), none(), &o, &watch, NULL), T4_OK);
    expect_readable(watch, false);
    assert_int_equal(t4_watch_next(watch, 0, &events, NULL), T4_E_TIMEOUT);
    assert_int_equal(t4_watch_next(watch, 5, &events, NULL), T4_E_TIMEOUT);
    put(db, "b", "");
    put(db, "a", "1");
    expect_readable(watch, true);
    assert_int_equal(t4_watch_next(watch, 0, &events, NULL), T4_OK);
    assert_int_equal(events->n_events, 1);
    assert_int_equal(events->events[0].type, T4_EVENT_PUT);
    assert_slice(events->events[0].kv.value, "1");
    assert_slice(events->events[0].prev->value, "0");
    assert_int_equal(events->revision, 4);
    t4_free(events);
    expect_readable(watch, false);
    assert_int_equal(t4_delete(db, t4_text("a"), none(), NULL, NULL, NULL), T4_OK);
    assert_int_equal(t4_watch_next(watch, -1, &events, NULL), T4_OK);
    assert_int_equal(events->events[0].type, T4_EVENT_DELETE);
    assert_int_equal(events->events[0].kv.mod_revision, 5);
    t4_free(events);
    put(db, "c", "");
    assert_int_equal(t4_watch_progress(watch, NULL), T4_OK);
    assert_int_equal(t4_watch_next(watch, SECONDS * 1000, &events, NULL), T4_OK);
    assert_int_equal(events->n_events, 0);
    assert_int_equal(events->revision, 6);
    t4_free(events);

    /* 4 MB that nobody takes wait in the log, not in memory */
    for (int i = 0; i < 40; i++) {
        static char value[100000];

        assert_int_equal(
            t4_put(db, t4_text("a"), t4_bytes(value, sizeof value), NULL, NULL, NULL),
            T4_OK);
    }
    while (n < 40) {
        assert_int_equal(t4_watch_next(watch, SECONDS * 1000, &events, NULL), T4_OK);
        n += (int)events->n_events;
        t4_free(events);
    }
    assert_int_equal(n, 40);
    t4_close(db);
    expect_readable(watch, true);
    assert_int_equal(t4_watch_next(watch, -1, &events, &error), T4_E_CLOSED);
    assert_int_equal(t4_watch_next(watch, -1, &events, &error), T4_E_CLOSED);
    assert_int_equal(t4_watch_progress(watch, &error), T4_E_CLOSED);
    t4_watch_close(watch);
}

/* Does in a callback what is allowed there. */
static void
work_in_callback(void *arg, t4_status status, t4_events *events, const t4_error *error)
{
    struct heard *h = arg;

    (void)error;
    assert_int_equal(status, T4_OK);
    put(h->db, "answer", "yes");
    expect(h->db, "answer", "yes");
    assert_int_equal(t4_close(h->db), T4_E_INVALID);
    pthread_mutex_lock(&h->lock);
    t4_watch_close(h->watch);
    h->calls++;
    pthread_cond_broadcast(&h->changed);
    pthread_mutex_unlock(&h->lock);
    t4_free(events);
}

static void
callbacks_may_call(void **state)
{
    t4_watch_options o = T4_WATCH_OPTIONS_INIT;
    struct heard heard;

    (void)state;
    heard_init(&heard);
    heard.db = open_fresh();
    o.callback = work_in_callback;
    o.callback_arg = &heard;
    assert_int_equal(
        t4_watch_open(heard.db, t4_text("q"), none(), &o, &heard.watch, NULL), T4_OK);
    put(heard.db, "q", "1");
    await(&heard, &heard.calls, 1);
    put(heard.db, "q", "2");
    t4_close(heard.db);
    assert_int_equal(heard.calls, 1);
}

/* --- asynchronous writes -------------------------------------------------------------------------- */

static void
on_done(void *arg, t4_status status, t4_result *result, const t4_error *error)
{
    struct heard *h = arg;

    (void)error;
    pthread_mutex_lock(&h->lock);
    h->calls++;
    if (status == T4_OK && result->revision > h->events)
        h->events = (int)result->revision;
    h->ended += status != T4_OK;
    pthread_cond_broadcast(&h->changed);
    pthread_mutex_unlock(&h->lock);
    t4_free(result);
}

static void
writes_are_asynchronous(void **state)
{
    t4_db *db = open_fresh();
    struct heard heard;
    t4_error error;
    t4_txn *txn;

    (void)state;
    heard_init(&heard);
    for (int i = 0; i < 500; i++) {
        char key[] = "key", value[16]; /* copied */

        snprintf(value, sizeof value, "%d", i);
        assert_int_equal(
            t4_put_async(db, t4_text(key), t4_text(value), NULL, on_done, &heard, NULL),
            T4_OK);
    }
    txn = t4_txn_new(db);
    t4_txn_compare_value(txn, t4_text("key"), none(), T4_EQUAL, t4_text("499"));
    t4_txn_put(txn, T4_SUCCESS, t4_text("last"), t4_text("1"), NULL);
    assert_int_equal(t4_txn_commit_async(txn, 0, on_done, &heard, NULL), T4_OK);
    assert_int_equal(
        t4_delete_async(db, t4_text("key"), none(), NULL, on_done, &heard, NULL), T4_OK);
    await(&heard, &heard.calls, 502);
    assert_int_equal(heard.ended, 0);
    assert_int_equal(heard.events, 503); /* 502 revisions from 2 on */
    expect(db, "last", "1");
    expect(db, "key", NULL);
    assert_int_equal(t4_put_async(db, none(), none(), NULL, on_done, &heard, &error),
                     T4_E_INVALID);
    txn = t4_txn_new(db);
    t4_txn_put(txn, 9, none(), none(), NULL);
    assert_int_equal(t4_txn_commit_async(txn, 0, on_done, &heard, &error), T4_E_INVALID);
    /* those under way at the close are called, too */
    for (int i = 0; i < 300; i++)
        assert_int_equal(
            t4_put_async(db, t4_text("x"), none(), NULL, on_done, &heard, NULL), T4_OK);
    t4_close(db);
    assert_int_equal(heard.calls, 802);
}

/* --- threads, processes, several databases ---------------------------------------------------------- */

struct worker {
    pthread_t thread;
    t4_db *db;
    int number, done;
    _Atomic int *stop;
};

static void *
work(void *arg)
{
    struct worker *w = arg;
    t4_error error;
    t4_status st = T4_OK;

    while (st == T4_OK && !atomic_load(w->stop)) {
        struct t4_slice all, end;
        t4_result *result;
        t4_txn *txn = t4_txn_new(w->db);
        char key[16];

        snprintf(key, sizeof key, "w%d", w->number);
        t4_txn_put(txn, T4_SUCCESS, t4_text(key), t4_text("x"), NULL);
        st = t4_txn_commit(txn, 0, NULL, &error);
        t4_txn_free(txn);
        t4_all_keys(&all, &end);
        if (st == T4_OK)
            st = t4_range(w->db, all, end, NULL, &result, &error);
        if (st == T4_OK) {
            w->done++;
            t4_free(result);
        }
    }
    if (st != T4_OK && st != T4_E_CLOSED && st != T4_E_UNKNOWN)
        fail_msg("%s", error.message);
    return NULL;
}

/* Threads in the middle of calls while their database is closed. */
static void
close_ends_calls(void **state)
{
    for (int round = 0; round < 5; round++) {
        t4_watch_options o = T4_WATCH_OPTIONS_INIT;
        struct worker workers[4];
        struct heard heard;
        _Atomic int stop = 0;
        t4_db *db = open_fresh();
        struct t4_slice all, end;
        t4_snapshot *holds;
        t4_watch *watch;

        (void)state;
        heard_init(&heard);
        o.callback = on_events;
        o.callback_arg = &heard;
        t4_all_keys(&all, &end);
        assert_int_equal(t4_watch_open(db, all, end, &o, &watch, NULL), T4_OK);
        /* an open handle keeps the database's memory, so that late calls are refused in order */
        assert_int_equal(t4_snapshot_open(db, 0, &holds, NULL), T4_OK);
        for (int i = 0; i < 4; i++) {
            workers[i] = (struct worker){.db = db, .number = i, .stop = &stop};
            pthread_create(&workers[i].thread, NULL, work, &workers[i]);
        }
        await(&heard, &heard.events, 20);
        atomic_store(&stop, round % 2); /* in every other round they are inside */
        if (round % 2)
            for (int i = 0; i < 4; i++)
                pthread_join(workers[i].thread, NULL);
        t4_close(db);
        if (!(round % 2))
            for (int i = 0; i < 4; i++)
                pthread_join(workers[i].thread, NULL);
        t4_watch_close(watch);
        t4_snapshot_close(holds);
    }
}

struct log {
    _Atomic int lines;
    const char *folder, *other;
    _Atomic int foreign;
};

static void
on_log(void *arg, int32_t level, const char *event)
{
    struct log *log = arg;

    assert_in_range(level, T4_LOG_ERROR, T4_LOG_DEBUG);
    atomic_fetch_add(&log->lines, 1);
    if (strstr(event, log->other) != NULL)
        atomic_fetch_add(&log->foreign, 1);
}

static void
two_databases_in_one_process(void **state)
{
    char folder[2][SCRATCH_ROOM + 16];
    t4_options *options[2] = {t4_options_new(), t4_options_new()};
    t4_error error;
    struct log log[2] = {0};
    t4_db *db[2], *again;
    t4_info info = {.size = sizeof info};
    char *metrics;

    (void)state;
    for (int i = 0; i < 2; i++)
        snprintf(folder[i], sizeof folder[i], "%s", fresh_folder());
    for (int i = 0; i < 2; i++) {
        log[i].folder = folder[i];
        log[i].other = folder[!i];
        t4_options_set_log(options[i], T4_LOG_DEBUG, on_log, &log[i]);
    }
    t4_options_set(options[1], "storage_engine", "memory");
    for (int i = 0; i < 2; i++)
        db[i] = open_with(folder[i], options[i]);
    assert_int_equal(t4_open(folder[0], options[0], &again, &error), T4_E_BUSY);
    for (int i = 0; i < 20; i++)
        put(db[0], "a", "first");
    put(db[1], "a", "second");
    expect(db[0], "a", "first");
    expect(db[1], "a", "second");
    assert_int_equal(t4_get_info(db[1], &info, NULL), T4_OK);
    assert_int_equal(info.revision, 2);
    assert_int_equal(t4_get_metrics(db[1], &metrics, NULL), T4_OK);
    assert_non_null(strstr(metrics, "\n"));
    t4_free(metrics);
    t4_close(db[0]);
    put(db[1], "b", "goes on");
    t4_close(db[1]);
    for (int i = 0; i < 2; i++) {
        assert_true(atomic_load(&log[i].lines) > 0);
        assert_int_equal(atomic_load(&log[i].foreign), 0);
        db[i] = open_with(folder[i], options[i]);
        expect(db[i], "a", i == 0 ? "first" : "second");
        expect(db[i], "b", i == 0 ? NULL : "goes on");
        t4_close(db[i]);
        t4_options_free(options[i]);
    }
}

static void
forks_are_refused(void **state)
{
    t4_db *db = open_fresh();
    int status;
    pid_t child;

    (void)state;
    put(db, "a", "1");
    child = fork();
    if (child == 0) {
        t4_error error;
        t4_kv *kv;

        if (t4_get(db, t4_text("a"), NULL, &kv, &error) != T4_E_INVALID ||
            strstr(error.message, "parent") == NULL || t4_close(db) != T4_E_INVALID)
            _exit(1);
        _exit(0);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    expect(db, "a", "1");
    t4_close(db);
}

static int
make_root(void **state)
{
    (void)state;
    scratch_make(root, sizeof root, "t4-lib");
    return 0;
}

static int
remove_root(void **state)
{
    (void)state;
    scratch_remove(root);
    return 0;
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(keys_are_put_read_and_deleted),
        cmocka_unit_test(prefixes_have_ends),
        cmocka_unit_test(mistakes_are_told),
        cmocka_unit_test(iterators_see_one_revision),
        cmocka_unit_test(snapshots_end_with_compaction),
        cmocka_unit_test(transactions_compare_and_branch),
        cmocka_unit_test(leases_hold_keys),
        cmocka_unit_test(watches_call_back),
        cmocka_unit_test(watches_are_polled),
        cmocka_unit_test(callbacks_may_call),
        cmocka_unit_test(writes_are_asynchronous),
        cmocka_unit_test(close_ends_calls),
        cmocka_unit_test(two_databases_in_one_process),
        cmocka_unit_test(forks_are_refused),
    };

    return cmocka_run_group_tests(tests, make_root, remove_root);
}

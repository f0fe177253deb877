/*
 * embed.c - a program that keeps its state in a t4 database, inside its own process.
 *
 *   embed DIR    counts how often it was run, and shows what a database does on the way
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <t4.h>

/* One place for errors: every call says what went wrong, and the way out. */
static void
check(t4_status status, const t4_error *error, const char *what)
{
    if (status == T4_OK)
        return;
    fprintf(stderr, "embed: %s: %s: %s\n", what, t4_status_text(status), error->message);
    if (error->hint[0] != '\0')
        fprintf(stderr, "embed: hint: %s\n", error->hint);
    exit(1);
}

/* The database logs nothing unless it is told where. */
static void
on_log(void *arg, int32_t level, const char *event)
{
    (void)arg;
    if (level <= T4_LOG_WARN)
        fprintf(stderr, "embed: t4: %s\n", event);
}

static void
print(const char *what, const t4_kv *kv)
{
    printf("%s %.*s = %.*s\n", what, (int)kv->key.len, (const char *)kv->key.data,
           (int)kv->value.len, (const char *)kv->value.data);
}

/*
 * Adds 1 to a number that others may change at the same time: read, then put only if the key is
 * still as it was read; else again.
 */
static long
add_one(t4_db *db, const char *key)
{
    for (;;) {
        struct t4_slice k = t4_text(key);
        t4_result *result;
        t4_error error;
        t4_kv *kv;
        t4_txn *txn;
        t4_status status;
        char text[24];
        long n = 1;
        int succeeded;

        status = t4_get(db, k, NULL, &kv, &error);
        if (status == T4_OK) {
            snprintf(text, sizeof text, "%.*s", (int)kv->value.len,
                     (const char *)kv->value.data);
            n = strtol(text, NULL, 10) + 1;
        } else if (status != T4_E_NOTFOUND) {
            check(status, &error, "get");
        }
        snprintf(text, sizeof text, "%ld", n);

        txn = t4_txn_new(db);
        t4_txn_compare(txn, k, t4_bytes(NULL, 0), T4_COMPARE_MOD, T4_EQUAL,
                       kv != NULL ? kv->mod_revision : 0);
        t4_txn_put(txn, T4_SUCCESS, k, t4_text(text), NULL);
        check(t4_txn_commit(txn, 0, &result, &error), &error, "commit");
        succeeded = result->succeeded;
        t4_free(result);
        t4_txn_free(txn);
        t4_free(kv);
        if (succeeded)
            return n;
    }
}

/* A key that goes away when this program does, at the latest 30 s after it. */
static int64_t
announce(t4_db *db)
{
    t4_write_options options = T4_WRITE_OPTIONS_INIT;
    t4_error error;
    int64_t lease = 0;

    check(t4_lease_grant(db, 30, &lease, NULL, &error), &error, "lease");
    options.lease = lease;
    check(t4_put(db, t4_text("running"), t4_text("yes"), &options, NULL, &error), &error,
          "put");
    return lease;
}

static void
list(t4_db *db, const t4_snapshot *snapshot)
{
    t4_read_options options = T4_READ_OPTIONS_INIT;
    struct t4_slice key, end;
    t4_iterator *iterator;
    const t4_kv *kv;
    t4_error error;
    t4_status status;

    options.snapshot = snapshot;
    t4_all_keys(&key, &end);
    check(t4_iterator_open(db, key, end, &options, &iterator, &error), &error,
          "iterator");
    while ((status = t4_iterator_next(iterator, &kv, &error)) == T4_OK)
        print(snapshot != NULL ? "then:" : "now: ", kv);
    if (status != T4_DONE)
        check(status, &error, "iterator");
    t4_iterator_close(iterator);
}

/* Takes the events of n keys. */
static void
show_events(t4_watch *watch, size_t n)
{
    while (n > 0) {
        t4_events *events;
        t4_error error;

        check(t4_watch_next(watch, -1, &events, &error), &error, "watch");
        for (size_t i = 0; i < events->n_events && n > 0; i++, n--)
            print(events->events[i].type == T4_EVENT_PUT ? "event:" : "event: deleted",
                  &events->events[i].kv);
        t4_free(events);
    }
}

int
main(int argc, char **argv)
{
    t4_options *options;
    struct t4_slice key, end;
    t4_snapshot *snapshot;
    t4_watch *watch;
    t4_error error;
    t4_db *db;
    int64_t lease;
    long runs;

    if (argc != 2) {
        fprintf(stderr, "usage: embed DIR\n");
        return 2;
    }
    options = t4_options_new();
    t4_options_set(options, "lmdb.map_size", "1 GB");
    t4_options_set_log(options, T4_LOG_INFO, on_log, NULL);
    check(t4_open(argv[1], options, &db, &error), &error, "open");
    t4_options_free(options);

    t4_all_keys(&key, &end);
    check(t4_watch_open(db, key, end, NULL, &watch, &error), &error, "watch");

    runs = add_one(db, "runs");
    check(t4_snapshot_open(db, 0, &snapshot, &error), &error, "snapshot");
    lease = announce(db);
    check(t4_put(db, t4_text("greeting"), t4_text("hello"), NULL, NULL, &error), &error,
          "put");
    list(db, NULL);
    list(db, snapshot);
    check(t4_lease_revoke(db, lease, &error), &error, "revoke");
    show_events(watch, 4);

    t4_snapshot_close(snapshot);
    t4_watch_close(watch);
    t4_close(db);
    printf("run %ld is over\n", runs);
    return 0;
}

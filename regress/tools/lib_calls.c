/*
 * lib_calls.c - one call of libt4, in a process that may run out of memory meanwhile.
 *
 *   lib_calls DIR ENGINE CALL WORD
 *
 * Opens the database, prints what it holds, prepares the call, and prints what it holds then;
 * makes the call while regress/preload/no_memory.c is armed (by T4_NOMEM_CONTROL), prints the
 * status and, again, what it holds; closes.  WORD: the value of what the call puts.
 * Lines: "at open: STATE", "before: STATE", "status: NAME", "after: STATE"; STATE is each key=value
 * below k/ and the number of leases.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "t4.h"

#define NONE t4_bytes(NULL, 0)
#define MANY 1000

static t4_db *db;
static t4_error error;
static struct t4_slice word;
static int64_t lease;
static _Atomic uint32_t *armed;

static void
must(t4_status status, const char *what)
{
    if (status != T4_OK) {
        fprintf(stderr, "lib_calls: %s: %s: %s\n", what, t4_status_text(status),
                error.message);
        exit(2);
    }
}

static struct t4_slice
end_of(const char *prefix)
{
    static char room[64];

    return t4_prefix_end(t4_text(prefix), room);
}

static void
print_state(const char *when)
{
    t4_result *r;

    printf("%s:", when);
    must(t4_range(db, t4_text("k/"), end_of("k/"), NULL, &r, &error), "range");
    for (size_t i = 0; i < r->n_kvs; i++)
        printf(" %.*s=%.*s", (int)r->kvs[i].key.len, (const char *)r->kvs[i].key.data,
               (int)r->kvs[i].value.len, (const char *)r->kvs[i].value.data);
    t4_free(r);
    must(t4_lease_list(db, &r, &error), "lease_list");
    printf(" leases=%zu\n", r->n_kvs);
    t4_free(r);
    fflush(stdout);
}

/* --- what must be there first -------------------------------------------------------------- */

static void
nothing(void)
{
}

static void
three(void)
{
    t4_write_options o = T4_WRITE_OPTIONS_INIT;
    char key[16];

    o.lease = lease;
    for (int i = 0; i < 3; i++) {
        snprintf(key, sizeof key, "k/d%d", i);
        must(t4_put(db, t4_text(key), t4_text("x"), &o, NULL, &error), "put");
    }
}

static void
granted(void)
{
    must(t4_lease_grant(db, 3600, &lease, NULL, &error), "lease_grant");
    three();
}

/* --- calls: a wrong answer is INTERNAL ----------------------------------------------------- */

static t4_status
right(t4_status status, int is_right)
{
    return status == T4_OK && !is_right ? T4_E_INTERNAL : status;
}

static t4_status
put(void)
{
    return t4_put(db, t4_text("k/put"), word, NULL, NULL, &error);
}

static t4_status
delete_range(void)
{
    t4_result *r = NULL;
    t4_status status = t4_delete(db, t4_text("k/d"), end_of("k/d"), NULL, &r, &error);

    status = right(status, r != NULL && r->count == 3);
    t4_free(r);
    return status;
}

static t4_status
transaction(void)
{
    t4_txn *txn = t4_txn_new(db), *nested = t4_txn_new(db);
    t4_result *r = NULL;
    t4_status status;

    t4_txn_compare(txn, t4_text("many/0001"), NONE, T4_COMPARE_VERSION, T4_GREATER, 0);
    t4_txn_put(txn, T4_SUCCESS, t4_text("k/t1"), word, NULL);
    t4_txn_put(nested, T4_SUCCESS, t4_text("k/t2"), word, NULL);
    t4_txn_nest(txn, T4_SUCCESS, nested);
    t4_txn_delete(txn, T4_SUCCESS, t4_text("k/d"), end_of("k/d"), NULL);
    status = t4_txn_commit(txn, 0, &r, &error);
    status = right(status, r != NULL && r->succeeded);
    t4_free(r);
    t4_txn_free(txn);
    return status;
}

static t4_status
get(void)
{
    t4_kv *kv = NULL;
    t4_status status = t4_get(db, t4_text("many/0500"), NULL, &kv, &error);

    status = right(status, kv != NULL && kv->value.len == 100);
    t4_free(kv);
    return status;
}

static t4_status
range(void)
{
    t4_result *r = NULL;
    t4_status status = t4_range(db, t4_text("many/"), end_of("many/"), NULL, &r, &error);

    status = right(status, r != NULL && r->n_kvs == MANY);
    t4_free(r);
    return status;
}

static t4_status
iterate(void)
{
    t4_iterator *it = NULL;
    const t4_kv *kv;
    size_t n = 0;
    t4_status status =
        t4_iterator_open(db, t4_text("many/"), end_of("many/"), NULL, &it, &error);

    while (status == T4_OK)
        if ((status = t4_iterator_next(it, &kv, &error)) == T4_OK)
            n++;
    t4_iterator_close(it);
    return status == T4_DONE ? right(T4_OK, n == MANY) : status;
}

static t4_status
compact(void)
{
    t4_info info = {.size = sizeof info};
    t4_status status = t4_get_info(db, &info, &error);

    if (status == T4_OK && info.revision > info.compacted_revision)
        status = t4_compact(db, info.revision, T4_PHYSICAL, &error);
    return status;
}

static t4_status
defragment(void)
{
    return t4_defragment(db, &error);
}

static t4_status
grant(void)
{
    return t4_lease_grant(db, 3600, &lease, NULL, &error);
}

static t4_status
keep_alive(void)
{
    int64_t ttl = 0;
    t4_status status = t4_lease_keep_alive(db, lease, &ttl, &error);

    return right(status, ttl > 0);
}

static t4_status
lease_revoke(void)
{
    return t4_lease_revoke(db, lease, &error);
}

static t4_status
time_to_live(void)
{
    t4_result *r = NULL;
    t4_status status = t4_lease_time_to_live(db, lease, &r, &error);

    status = right(status, r != NULL && r->n_kvs == 3);
    t4_free(r);
    return status;
}

static t4_status
watch(void)
{
    t4_watch *w = NULL;
    t4_events *events = NULL;
    t4_status status = t4_watch_open(db, t4_text("k/w"), NONE, NULL, &w, &error);

    if (status == T4_OK)
        status = t4_put(db, t4_text("k/w"), word, NULL, NULL, &error);
    if (status == T4_OK)
        status = t4_watch_next(w, 20000, &events, &error);
    status = right(status, events != NULL && events->n_events == 1);
    t4_free(events);
    t4_watch_close(w);
    return status;
}

static t4_status
metrics(void)
{
    char *text = NULL;
    t4_status status = t4_get_metrics(db, &text, &error);

    status = right(status, text != NULL && strlen(text) > 1000);
    t4_free(text);
    return status;
}

static const struct {
    const char *name;
    void (*prepare)(void);
    t4_status (*call)(void);
} calls[] = {
    {"put", nothing, put},
    {"delete", three, delete_range},
    {"txn", three, transaction},
    {"get", nothing, get},
    {"range", nothing, range},
    {"iterator", nothing, iterate},
    {"compact", three, compact},
    {"defragment", nothing, defragment},
    {"lease_grant", nothing, grant},
    {"lease_keep_alive", granted, keep_alive},
    {"lease_revoke", granted, lease_revoke},
    {"lease_time_to_live", granted, time_to_live},
    {"watch", nothing, watch},
    {"metrics", nothing, metrics},
};

/* --- the process --------------------------------------------------------------------------- */

static void
open_database(const char *dir, const char *engine)
{
    t4_options *options = t4_options_new();

    t4_options_set(options, "storage_engine", engine);
    must(t4_open(dir, options, &db, &error), "open");
    t4_options_free(options);
}

static void
fill(void)
{
    t4_kv *kv = NULL;
    char key[32], value[101];

    if (t4_get(db, t4_text("many/0999"), NULL, &kv, &error) == T4_OK) {
        t4_free(kv);
        return;
    }
    memset(value, 'v', 100);
    for (int i = 0; i < MANY; i += 100) {
        t4_txn *txn = t4_txn_new(db);

        for (int j = i; j < i + 100; j++) {
            snprintf(key, sizeof key, "many/%04d", j);
            t4_txn_put(txn, T4_SUCCESS, t4_text(key), t4_bytes(value, 100), NULL);
        }
        must(t4_txn_commit(txn, 0, NULL, &error), "fill");
        t4_txn_free(txn);
    }
    must(compact(), "compact");
}

static void
map_control(void)
{
    static _Atomic uint32_t none;
    const char *path = getenv("T4_NOMEM_CONTROL");
    int fd = path != NULL ? open(path, O_RDWR) : -1;
    void *p =
        fd >= 0 ? mmap(NULL, 64, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) : MAP_FAILED;

    armed = p != MAP_FAILED ? p : (void *)&none;
    if (fd >= 0)
        close(fd);
}

int
main(int argc, char **argv)
{
    t4_status status;
    size_t i = 0;

    if (argc != 5)
        return 2;
    while (i < sizeof calls / sizeof calls[0] && strcmp(calls[i].name, argv[3]) != 0)
        i++;
    if (i == sizeof calls / sizeof calls[0])
        return 2;
    word = t4_text(argv[4]);
    map_control();
    open_database(argv[1], argv[2]);
    fill();
    print_state("at open");
    calls[i].prepare();
    print_state("before");
    atomic_store(armed, 1);
    status = calls[i].call();
    atomic_store(armed, 0);
    printf("status: %s\n", t4_status_text(status));
    print_state("after");
    must(t4_close(db), "close");
    return 0;
}

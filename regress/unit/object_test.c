/*
 * object_test.c - the facade of object stores: URLs, settings, what it makes of plugins that
 * break the contract (regress/plugins/test_store.c), the start-up probe; and of the
 * directory store what `t4 plugin check` cannot see: processes that die, files, modes.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/memory.h"
#include "base/slice.h"
#include "engine_bed.h"
#include "object/object.h"
#include "scratch.h"

static char folder[SCRATCH_ROOM];
static unsigned stores;

/* --- opening ------------------------------------------------------------------------ */

/* file:///<folder>/<a new name>, with `wrapper` before it. */
static const char *
new_url(const char *wrapper)
{
    static char url[PATH_MAX];

    snprintf(url, sizeof url, "%sfile://%s/%u", wrapper, folder, ++stores);
    return url;
}

static const char *
root(void)
{
    static char path[PATH_MAX];

    snprintf(path, sizeof path, "%s/%u", folder, stores);
    return path;
}

static t4_status
try_open(const char *url, const struct plugin_setting *settings, size_t n,
         struct object_store **out, struct error *error)
{
    const struct object_options options = {.env = env_posix(),
                                           .plugin_dir = build_folder("regress/plugins"),
                                           .settings = settings,
                                           .n_settings = n};

    return object_open(url, &options, out, error);
}

static struct object_store *
opened(const char *url, const char *name, const char *value)
{
    const struct plugin_setting setting = {name, value};
    struct error error = {0};
    struct object_store *s;

    if (try_open(url, &setting, name != NULL, &s, &error) != T4_OK)
        fail_msg("%s: %s (%s)", url, error.message, error.hint);
    return s;
}

/* A store of its own, in which test_store breaks one rule. */
static struct object_store *
broken(const char *fault)
{
    return opened(new_url("test_store+"), "test_store.fault", fault);
}

static void
refused(const char *url, const char *name, const char *value, t4_status status,
        const char *message, const char *hint)
{
    const struct plugin_setting setting = {name, value};
    struct error error = {0};
    struct object_store *s = (struct object_store *)&error;
    t4_status st = try_open(url, &setting, name != NULL, &s, &error);

    if (st != status || strstr(error.message, message) == NULL ||
        strstr(error.hint, hint) == NULL)
        fail_msg("%s: status %d, \"%s\" (%s) instead of %d, \"%s\" (%s)", url, st,
                 error.message, error.hint, status, message, hint);
    assert_null(s);
    assert_int_equal(try_open(url, &setting, name != NULL, &s, NULL), status);
}

static void
test_urls(void **state)
{
    static const struct {
        const char *url, *message;
    } wrong[] = {
        {"/tmp/x", "has no \"://\""},
        {"", "has no \"://\""},
        {"://x", "has no scheme"},
        {"File:///tmp/x", "does not begin with schemes"},
        {"+file:///tmp/x", "does not begin with schemes"},
        {"fault+://x", "something else than a scheme"},
        {"fault++file:///x", "does not begin with schemes"},
        {"a:b://x", "something else than a scheme"},
        {"s3://key:secret@bucket/x", "has a user or a password in it"},
        {"file:///tmp/\n", "has a control character"},
        {"a+a+a+a+a+a+a+a+file:///x", "has more than 8 schemes"},
        {"abcdefghijklmnopqrstuvwxyz0123456://x", "does not begin with schemes"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++)
        refused(wrong[i].url, NULL, NULL, T4_E_INVALID, wrong[i].message,
                "it is written file:///path, s3://bucket/prefix");
    refused("azure://x", NULL, NULL, T4_E_NOTFOUND, "no plugin for azure://", "");
    refused("fault://x", NULL, NULL, T4_E_INVALID,
            "object store \"fault\" works on another one only", "write fault+URL");
    refused("file+file:///tmp/x", NULL, NULL, T4_E_INVALID,
            "object store \"file\" cannot wrap another one", "leave out");
    refused("lmdb://x", NULL, NULL, T4_E_NOTFOUND, "has no object store named \"lmdb\"",
            "it has: storage engine \"lmdb\"");
    refused(new_url(""), "region", "x", T4_E_INVALID,
            "setting \"region\" names no plugin", "PLUGIN.NAME");
    refused(new_url("fault+"), "fault.latencie", "1", T4_E_INVALID,
            "plugin \"fault\" has no setting \"latencie\"",
            "the nearest is fault.latency");
    refused(new_url("fault+"), "fault.lost", "1.5", T4_E_INVALID, "setting fault.lost",
            "a chance from 0 to 1");
    refused(new_url("test_store+"), "test_store.fault", "open", T4_E_DENIED,
            "object store \"test_store\": cannot open: the door is shut: no key",
            "knock");
    refused(new_url("test_store+"), "test_store.fault", "open odd", T4_E_INTERNAL,
            "open() gave an unknown status", "");
    refused(new_url("test_store+"), "test_store.fault", "open nothing", T4_E_INTERNAL,
            "open() gave OK but no handle", "");
}

static void
test_url_of_a_directory(void **state)
{
    char url[PATH_MAX];

    (void)state;
    refused("file://host/path", NULL, NULL, T4_E_INVALID, "the path is not absolute", "");
    refused("file:///tmp/x?y", NULL, NULL, T4_E_INVALID, "? and # have no meaning", "");
    refused("file:///tmp/%4", NULL, NULL, T4_E_INVALID, "hexadecimal digits", "");
    snprintf(url, sizeof url, "file://%s/no/such/folder", folder);
    refused(url, NULL, NULL, T4_E_NOTFOUND, "the folder above it is missing",
            "mount the file system or create that folder");
    snprintf(url, sizeof url, "file://localhost%s/with%%20a%%2525", folder);
    object_close(opened(url, NULL, NULL));
    snprintf(url, sizeof url, "%s/with a%%25", folder);
    assert_int_equal(access(url, F_OK), 0);
}

/* Settings of other plugins are for others; the wrapper sees the inner URL. */
static void
test_chain(void **state)
{
    struct object_store *s =
        opened(new_url("fault+test_store+fault+"), "lmdb.map_size", "1 GB");
    struct error error = {0};

    (void)state;
    assert_string_equal(plugin_descriptor(object_plugin(s, 0))->name, "fault");
    assert_string_equal(plugin_descriptor(object_plugin(s, 1))->name, "test_store");
    assert_string_equal(plugin_descriptor(object_plugin(s, 3))->name, "dir");
    assert_null(object_plugin(s, 4));
    assert_int_equal(object_probe(s, slice_str("x/"), &error), T4_OK);
    assert_int_equal(object_close(s), 0);
}

/* --- calls -------------------------------------------------------------------------- */

static t4_status
put(struct object_store *s, const char *key, const char *body, uint32_t condition,
    const struct t4_object_info *match, struct t4_object_info *info, struct error *error)
{
    struct t4_put request = {.size = sizeof request,
                             .condition = condition,
                             .key = slice_str(key),
                             .body = slice_str(body)};

    if (match != NULL)
        request.if_match = slice_of(match->tag, match->tag_length);
    return object_put(s, &request, 0, info, error);
}

static void
test_bounds(void **state)
{
    struct object_store *s = opened(new_url(""), NULL, NULL);
    static const char *const keys[] = {"",
                                       "a\nb",
                                       "\x7f",
                                       "\xff",
                                       "\xc0\x80",
                                       "\xed\xa0\x80",
                                       "\xf4\x90\x80\x80",
                                       "\xe6\x97",
                                       "a\x80"};
    struct t4_object_info info = {.tag_length = 0};
    struct error error;
    char longest[1026];

    (void)state;
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
        assert_int_equal(put(s, keys[i], "x", T4_PUT_ANY, NULL, NULL, &error),
                         T4_E_INVALID);
        assert_non_null(strstr(error.message, "its key"));
    }
    memset(longest, 'k', sizeof longest);
    longest[1025] = '\0';
    assert_int_equal(put(s, longest, "x", T4_PUT_ANY, NULL, NULL, &error), T4_E_INVALID);
    longest[1024] = '\0';
    assert_int_equal(put(s, longest, "x", T4_PUT_ANY, NULL, NULL, &error), T4_OK);
    assert_int_equal(put(s, "k", "x", 3, NULL, NULL, &error), T4_E_INVALID);
    assert_int_equal(put(s, "k", "x", T4_PUT_IF_MATCH, &info, NULL, &error),
                     T4_E_INVALID);
    assert_int_equal(object_remove(s, NULL, 0, 0, &error), T4_OK);
    object_close(s);
}

/* A put is done, certainly not done, or UNKNOWN; a plugin cannot say anything else. */
static void
test_statuses_of_put(void **state)
{
    static const struct {
        const char *fault;
        t4_status status;
        const char *message;
    } cases[] = {
        {"put io", T4_E_UNKNOWN, "cannot put \"k\": "},
        {"put odd", T4_E_UNKNOWN, "cannot put \"k\": "},
        {"put not found", T4_E_UNKNOWN, "cannot put \"k\": "},
        {"no tag", T4_E_UNKNOWN, "the answer had a tag of 0 bytes"},
        {"long tag", T4_E_UNKNOWN, "the answer had a tag of 129 bytes"},
        {"put busy", T4_E_BUSY,
         "object store \"test_store\": cannot put \"k\": slow down"},
        {"put without a word", T4_E_DENIED, "cannot put \"k\": denied"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct object_store *s = broken(cases[i].fault);
        struct error error = {0};

        assert_int_equal(put(s, "k", "x", T4_PUT_ANY, NULL, NULL, &error),
                         cases[i].status);
        if (strstr(error.message, cases[i].message) == NULL)
            fail_msg("%s: \"%s\"", cases[i].fault, error.message);
        assert_int_equal(object_close(s), 0);
    }
}

static void
test_wrong_reads(void **state)
{
    static const char *const faults[] = {"short get", "long get"};
    struct error error = {0};

    (void)state;
    for (int i = 0; i < 2; i++) {
        struct object_store *s = broken(faults[i]);
        struct buffer out = {0};

        buffer_append(&out, "before", 6);
        assert_int_equal(put(s, "k", "0123456789", T4_PUT_ANY, NULL, NULL, &error),
                         T4_OK);
        assert_int_equal(object_get(s, slice_str("k"), 1, 5, 100, 0, &out, NULL, &error),
                         T4_E_CORRUPT);
        assert_non_null(strstr(error.message, "bytes came instead of 5"));
        assert_int_equal(out.len, 6); /* nothing of a failed get is left */
        buffer_free(&out);
        object_close(s);
    }
}

static void
test_limit_of_get(void **state)
{
    struct object_store *s = opened(new_url(""), NULL, NULL);
    struct error error = {0};
    struct buffer out = {0};

    (void)state;
    assert_int_equal(put(s, "k", "0123456789", T4_PUT_ANY, NULL, NULL, &error), T4_OK);
    assert_int_equal(
        object_get(s, slice_str("k"), 0, T4_TO_THE_END, 9, 0, &out, NULL, &error),
        T4_E_CORRUPT);
    assert_non_null(strstr(error.message, "larger than the 9 bytes expected"));
    assert_int_equal(out.len, 0);
    assert_int_equal(
        object_get(s, slice_str("k"), 0, T4_TO_THE_END, 10, 0, &out, NULL, &error),
        T4_OK);
    assert_int_equal(out.len, 10);
    buffer_free(&out);
    object_close(s);
}

static t4_status
count(void *arg, struct t4_slice key, const struct t4_object_info *info)
{
    (void)key;
    (void)info;
    ++*(unsigned *)arg;
    return T4_OK;
}

static void
test_wrong_listings(void **state)
{
    static const struct {
        const char *fault, *message;
    } cases[] = {
        {"list twice", "the store gave keys out of order"},
        {"list prefix", "the store gave a key without the prefix"},
        {"list more", "the store gave more keys than it was asked for"},
        {"list from the start", "the store gave keys out of order"},
    };
    struct error error = {0};

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct object_store *s = broken(cases[i].fault);
        unsigned n = 0;

        for (char key[] = "p/1"; key[2] < '5'; key[2]++)
            assert_int_equal(put(s, key, "x", T4_PUT_ANY, NULL, NULL, &error), T4_OK);
        assert_int_equal(
            object_list(s, slice_str("p/"), slice_str("p/2"), 1, 0, count, &n, &error),
            T4_E_CORRUPT);
        if (strstr(error.message, cases[i].message) == NULL)
            fail_msg("%s: \"%s\"", cases[i].fault, error.message);
        object_close(s);
    }
}

static void
test_cancel(void **state)
{
    struct object_store *s = opened(new_url(""), NULL, NULL);
    struct error error = {0};

    (void)state;
    assert_int_equal(put(s, "k", "x", T4_PUT_ANY, NULL, NULL, &error), T4_OK);
    object_cancel(s);
    assert_int_equal(put(s, "k", "y", T4_PUT_ANY, NULL, NULL, &error), T4_E_CANCELLED);
    object_close(s);
}

static void
test_timeout(void **state)
{
    struct object_store *s = opened(new_url("fault+"), "fault.latency", "60000");
    const struct t4_put request = {
        .size = sizeof request, .key = slice_str("k"), .body = slice_str("x")};
    struct error error = {0};

    (void)state;
    assert_int_equal(object_put(s, &request, 5000000, NULL, &error), T4_E_TIMEOUT);
    assert_int_equal(object_close(s), 0);
}

/* --- the probe ---------------------------------------------------------------------- */

static void
test_probe(void **state)
{
    static const struct {
        const char *fault;
        t4_status status;
        const char *message;
    } cases[] = {
        {"none", T4_OK, ""},
        {"ignore absent", T4_E_UNSUPPORTED,
         "create-if-absent (If-None-Match: *) succeeded twice for one object"},
        {"ignore match", T4_E_UNSUPPORTED,
         "if-match (If-Match) on an object that is not there succeeded"},
        {"ignore stale", T4_E_UNSUPPORTED,
         "if-match (If-Match) with a stale tag succeeded"},
        {"refuse match", T4_E_UNSUPPORTED,
         "if-match (If-Match) with the object's current tag was refused"},
        {"refuse create", T4_E_UNSUPPORTED,
         "create-if-absent (If-None-Match: *) of a new object was refused"},
        {"retry", T4_E_UNSUPPORTED,
         "create-if-absent (If-None-Match: *) of a new object was refused"},
        {"stale read", T4_E_UNSUPPORTED, "(read-after-write)"},
        {"stale list", T4_E_UNSUPPORTED, "(list-after-write)"},
        {"put busy", T4_E_BUSY, "probing test_store+file://"},
        {"put without a word", T4_E_DENIED, "probing test_store+file://"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct object_store *s = broken(cases[i].fault);
        struct error error = {0};
        t4_status st = object_probe(s, slice_str("t4/"), &error);

        if (st != cases[i].status || strstr(error.message, cases[i].message) == NULL)
            fail_msg("%s: status %d, \"%s\"", cases[i].fault, st, error.message);
        assert_int_equal(object_probe(s, slice_str("t4/"), NULL), cases[i].status);
        object_close(s);
    }
}

static void
test_probe_leaves_nothing(void **state)
{
    struct object_store *s = opened(new_url(""), NULL, NULL);
    struct error error = {0};
    unsigned n = 0;

    (void)state;
    assert_int_equal(object_probe(s, slice_str("t4/"), &error), T4_OK);
    assert_int_equal(
        object_list(s, slice_of(NULL, 0), slice_of(NULL, 0), 100, 0, count, &n, &error),
        T4_OK);
    assert_int_equal(n, 0);
    object_close(s);
}

/* --- the directory store ------------------------------------------------------------ */

static unsigned
files_in(const char *path)
{
    DIR *dir = opendir(path);
    struct dirent *entry;
    unsigned n = 0;

    assert_non_null(dir);
    while ((entry = readdir(dir)) != NULL)
        n += entry->d_name[0] != '.';
    closedir(dir);
    return n;
}

static void
test_modes(void **state)
{
    struct object_store *s = opened(new_url(""), NULL, NULL);
    char path[PATH_MAX + 32];
    struct error error = {0};
    struct stat st;

    (void)state;
    assert_int_equal(put(s, "wal/1", "x", T4_PUT_IF_ABSENT, NULL, NULL, &error), T4_OK);
    assert_int_equal(stat(root(), &st), 0);
    assert_int_equal(st.st_mode & 07777, 0700);
    snprintf(path, sizeof path, "%s/wal+", root());
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0700);
    snprintf(path, sizeof path, "%s/wal+/1", root());
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0600);
    assert_int_equal(st.st_size, 1 + 32);
    object_close(s);
}

/* What a dead writer leaves is removed; what a live one has is not. */
static void
test_temporary_files(void **state)
{
    struct object_store *s = opened(new_url(""), NULL, NULL), *other;
    char path[PATH_MAX + 32], url[PATH_MAX + 16];
    int alive;

    (void)state;
    snprintf(path, sizeof path, "%s/.tmp/dead", root());
    close(open(path, O_RDWR | O_CREAT, 0600));
    snprintf(path, sizeof path, "%s/.tmp/alive", root());
    alive = open(path, O_RDWR | O_CREAT, 0600);
    assert_int_equal(flock(alive, LOCK_EX), 0); /* as a writer does */
    snprintf(url, sizeof url, "file://%s", root());
    other = opened(url, NULL, NULL);
    snprintf(path, sizeof path, "%s/.tmp", root());
    assert_int_equal(files_in(path), 1);
    object_close(other);
    close(alive);
    object_close(opened(url, NULL, NULL));
    assert_int_equal(files_in(path), 0);
    object_close(s);
}

static void
test_foreign_and_damaged_files(void **state)
{
    struct object_store *s = opened(new_url(""), NULL, NULL);
    char path[PATH_MAX + 32];
    struct error error = {0};
    struct buffer out = {0};
    unsigned n = 0;

    (void)state;
    assert_int_equal(put(s, "a", "hello", T4_PUT_ANY, NULL, NULL, &error), T4_OK);
    snprintf(path, sizeof path, "%s/lost+found", root()); /* no key has this name */
    assert_int_equal(mkdir(path, 0700), 0);
    snprintf(path, sizeof path, "%s/README", root());
    close(open(path, O_RDWR | O_CREAT, 0600));
    assert_int_equal(
        object_list(s, slice_of(NULL, 0), slice_of(NULL, 0), 100, 0, count, &n, &error),
        T4_OK);
    assert_int_equal(n, 1);
    snprintf(path, sizeof path, "%s/a", root());
    assert_int_equal(truncate(path, 20), 0);
    assert_int_equal(
        object_get(s, slice_str("a"), 0, T4_TO_THE_END, 100, 0, &out, NULL, &error),
        T4_E_CORRUPT);
    assert_non_null(strstr(error.message, "a damaged one"));
    assert_int_equal(
        object_list(s, slice_of(NULL, 0), slice_of(NULL, 0), 100, 0, count, &n, &error),
        T4_E_CORRUPT);
    object_close(s);
}

/* An emptied place is not an empty store: nothing may be concluded from it. */
static void
test_directory_that_is_gone(void **state)
{
    struct object_store *s = opened(new_url(""), NULL, NULL);
    struct t4_object_info info;
    struct error error = {0};
    unsigned n = 0;

    (void)state;
    assert_int_equal(put(s, "a/b", "x", T4_PUT_ANY, NULL, NULL, &error), T4_OK);
    scratch_remove(root());
    assert_int_equal(object_head(s, slice_str("a/b"), 0, &info, &error),
                     T4_E_UNAVAILABLE);
    assert_non_null(strstr(error.message, "the directory was removed"));
    assert_int_equal(
        object_list(s, slice_of(NULL, 0), slice_of(NULL, 0), 100, 0, count, &n, &error),
        T4_E_UNAVAILABLE);
    assert_int_equal(put(s, "a/b", "x", T4_PUT_IF_ABSENT, NULL, NULL, &error),
                     T4_E_UNAVAILABLE);
    assert_int_equal(put(s, "a/b", "x", T4_PUT_ANY, NULL, NULL, &error),
                     T4_E_UNAVAILABLE);
    object_close(s);
}

/* --- several processes, some of which die ------------------------------------------- */

#define PROCESSES 4
#define INCREMENTS 40

/* Adds one to the number in "counter"; says so on the pipe when it is told OK. */
static void
increment(struct object_store *s, int report)
{
    struct t4_object_info info;
    struct buffer body = {0};
    char text[32];

    for (;;) {
        t4_status st;

        buffer_clear(&body);
        if (object_get(s, slice_str("counter"), 0, T4_TO_THE_END, 30, 0, &body, &info,
                       NULL) != T4_OK)
            _exit(2);
        buffer_append_u8(&body, 0);
        snprintf(text, sizeof text, "%d", atoi((const char *)body.data) + 1);
        st = put(s, "counter", text, T4_PUT_IF_MATCH, &info, NULL, NULL);
        if (st == T4_OK)
            break;
        if (st != T4_E_PRECONDITION)
            _exit(3);
    }
    if (write(report, "+", 1) != 1)
        _exit(4);
    buffer_free(&body);
}

/*
 * Processes count with if-match while one after the other is killed; the number is that of
 * the increments that were answered, plus at most one for each death.
 */
static void
test_processes_that_die(void **state)
{
    const char *url = new_url("");
    struct object_store *s = opened(url, NULL, NULL);
    struct error error = {0};
    struct buffer body = {0};
    pid_t pids[PROCESSES];
    unsigned answered = 0, deaths = 0, number;
    int pipes[2], status;
    char path[PATH_MAX + 32], byte;

    (void)state;
    assert_int_equal(put(s, "counter", "0", T4_PUT_ANY, NULL, NULL, &error), T4_OK);
    assert_int_equal(pipe(pipes), 0);
    for (int i = 0; i < PROCESSES; i++) {
        pids[i] = fork();
        if (pids[i] == 0) {
            struct object_store *own = opened(url, NULL, NULL);

            for (int k = 0; i < 2 ? k >= 0 : k < INCREMENTS; k++) /* two for ever */
                increment(own, pipes[1]);
            _exit(0);
        }
    }
    close(pipes[1]);
    while (answered < INCREMENTS && read(pipes[0], &byte, 1) == 1)
        answered++;
    kill(pids[0], SIGKILL); /* wherever it is */
    while (answered < 2 * INCREMENTS && read(pipes[0], &byte, 1) == 1)
        answered++;
    kill(pids[1], SIGKILL);
    while (read(pipes[0], &byte, 1) == 1)
        answered++;
    for (int i = 0; i < PROCESSES; i++) {
        assert_int_equal(waitpid(pids[i], &status, 0), pids[i]);
        if (WIFSIGNALED(status))
            deaths++;
        else
            assert_int_equal(WEXITSTATUS(status), 0);
    }
    assert_int_equal(deaths, 2);
    assert_int_equal(
        object_get(s, slice_str("counter"), 0, T4_TO_THE_END, 30, 0, &body, NULL, &error),
        T4_OK);
    buffer_append_u8(&body, 0);
    number = (unsigned)atoi((const char *)body.data);
    if (number < answered || number > answered + deaths)
        fail_msg("counted to %u, %u were answered, %u died", number, answered, deaths);
    buffer_free(&body);
    close(pipes[0]);
    object_close(s);
    object_close(opened(url, NULL, NULL));
    snprintf(path, sizeof path, "%s/.tmp", root());
    assert_int_equal(files_in(path), 0);
}

/* --- the fault wrapper -------------------------------------------------------------- */

/* With the same seed serial calls have the same faults. */
static void
test_seed_of_fault(void **state)
{
    char outcomes[3][101] = {{0}};

    (void)state;
    for (int run = 0; run < 3; run++) {
        const struct plugin_setting settings[] = {{"fault.seed", run < 2 ? "7" : "8"},
                                                  {"fault.error_before", "0.2"},
                                                  {"fault.error_after", "0.2"},
                                                  {"fault.lost", "0.2"}};
        struct error error = {0};
        struct object_store *s;

        assert_int_equal(try_open(new_url("fault+"), settings, 4, &s, &error), T4_OK);
        for (int i = 0; i < 100; i++)
            outcomes[run][i] =
                (char)('a' - put(s, "k", "x", T4_PUT_ANY, NULL, NULL, &error));
        object_close(s);
    }
    assert_string_equal(outcomes[0], outcomes[1]);
    assert_string_not_equal(outcomes[0], outcomes[2]);
    assert_non_null(strchr(outcomes[0], 'a'));
    assert_non_null(strchr(outcomes[0], 'a' - T4_E_UNKNOWN));
    assert_non_null(strchr(outcomes[0], 'a' - T4_E_UNAVAILABLE));
    assert_non_null(strchr(outcomes[0], 'a' - T4_E_BUSY));
}

static void
write_control(const char *path, const char *lines)
{
    char next[PATH_MAX];
    FILE *out;

    snprintf(next, sizeof next, "%s.new", path);
    out = fopen(next, "w");
    assert_non_null(out);
    assert_true(fputs(lines, out) >= 0);
    assert_int_equal(fclose(out), 0);
    assert_int_equal(rename(next, path), 0);
}

static void
test_script_of_fault(void **state)
{
    char path[PATH_MAX];
    struct object_store *s;
    struct error error = {0};
    const struct t4_put request = {
        .size = sizeof request, .key = slice_str("sst/1"), .body = slice_str("x")};

    (void)state;
    snprintf(path, sizeof path, "%s/control", folder);
    s = opened(new_url("fault+"), "fault.control", path); /* not there: nothing to do */
    assert_int_equal(put(s, "wal/1", "x", T4_PUT_ANY, NULL, NULL, &error), T4_OK);
    write_control(path, "# a comment\n\nfail put wal/ 2 lost\nhold put sst/ # held\n");
    assert_int_equal(put(s, "wal/1", "x", T4_PUT_ANY, NULL, NULL, &error), T4_E_UNKNOWN);
    assert_int_equal(put(s, "other", "x", T4_PUT_ANY, NULL, NULL, &error), T4_OK);
    assert_int_equal(put(s, "wal/1", "x", T4_PUT_ANY, NULL, NULL, &error), T4_E_UNKNOWN);
    assert_int_equal(put(s, "wal/1", "x", T4_PUT_ANY, NULL, NULL, &error), T4_OK);
    assert_int_equal(object_put(s, &request, 20000000, NULL, &error), T4_E_TIMEOUT);
    write_control(path, "hold-answer put sst/\n");
    assert_int_equal(object_put(s, &request, 20000000, NULL, &error), T4_E_UNKNOWN);
    write_control(path, "outage\nfrobnicate 7\n");
    assert_int_equal(put(s, "other", "x", T4_PUT_ANY, NULL, NULL, &error), T4_E_INVALID);
    assert_non_null(strstr(error.message, "fault.control, line 2: frobnicate 7"));
    assert_int_equal(object_close(s), 0);
}

static int
make_folder(void **state)
{
    (void)state;
    setenv("T4_PLUGIN_DIR", build_folder("plugins"), 0);
    scratch_make(folder, sizeof folder, "t4-object");
    return 0;
}

static int
remove_folder(void **state)
{
    (void)state;
    scratch_remove(folder);
    return 0;
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_urls),
        cmocka_unit_test(test_url_of_a_directory),
        cmocka_unit_test(test_chain),
        cmocka_unit_test(test_bounds),
        cmocka_unit_test(test_statuses_of_put),
        cmocka_unit_test(test_wrong_reads),
        cmocka_unit_test(test_limit_of_get),
        cmocka_unit_test(test_wrong_listings),
        cmocka_unit_test(test_cancel),
        cmocka_unit_test(test_timeout),
        cmocka_unit_test(test_probe),
        cmocka_unit_test(test_probe_leaves_nothing),
        cmocka_unit_test(test_modes),
        cmocka_unit_test(test_temporary_files),
        cmocka_unit_test(test_foreign_and_damaged_files),
        cmocka_unit_test(test_directory_that_is_gone),
        cmocka_unit_test(test_processes_that_die),
        cmocka_unit_test(test_seed_of_fault),
        cmocka_unit_test(test_script_of_fault),
    };

    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}

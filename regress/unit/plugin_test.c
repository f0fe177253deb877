/*
 * plugin_test.c - loading plugins: every refusal by its words, settings, roles, host
 * services.
 *
 * The plugins are regress/plugins/test_*.c, each fault one that an author could make.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <fcntl.h>
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/slice.h"
#include "engine_bed.h"
#include "plugin/plugin.h"
#include "scratch.h"

static int refusals;

static const char *
test_plugins(void)
{
    return build_folder("regress/plugins");
}

/* Loading fails with this status, these words in the message and in the hint. */
static void
refused(const char *dir, const char *name, const struct plugin_setting *settings,
        size_t n, t4_status status, const char *message, const char *hint)
{
    struct error error = {0};
    struct plugin *p = (struct plugin *)&error;
    t4_status st = plugin_load(dir, name, settings, n, &p, &error);

    if (st != status || error.status != status ||
        strstr(error.message, message) == NULL ||
        strstr(error.hint, hint) == NULL) { /* on stdout: a test may have stderr */
        printf("# status %d, \"%s\" (%s) instead of %d, \"%s\" (%s)\n", st, error.message,
               error.hint, status, message, hint);
        fail();
    }
    assert_null(p);
    assert_int_equal(plugin_load(dir, name, settings, n, &p, NULL), status);
    refusals++;
}

static struct plugin *
loaded(const char *dir, const char *name, const struct plugin_setting *settings, size_t n)
{
    struct error error = {0};
    struct plugin *p;

    if (plugin_load(dir, name, settings, n, &p, &error) != T4_OK)
        fail_msg("%s (%s)", error.message, error.hint);
    return p;
}

/* --- what is on stderr -------------------------------------------------------------- */

static int real_stderr;
static FILE *captured_file;

static void
capture(void)
{
    fflush(stderr);
    real_stderr = dup(STDERR_FILENO);
    captured_file = tmpfile();
    assert_non_null(captured_file);
    assert_true(dup2(fileno(captured_file), STDERR_FILENO) >= 0);
}

static const char *
captured(void)
{
    static char text[8192];
    ssize_t n;

    dup2(real_stderr, STDERR_FILENO);
    close(real_stderr);
    n = pread(fileno(captured_file), text, sizeof text - 1, 0);
    text[n > 0 ? n : 0] = '\0';
    fclose(captured_file);
    return text;
}

/* --- names and files ---------------------------------------------------------------- */

static void
test_names(void **state)
{
    static const char *const names[] = {
        "",        "..",     "../lmdb",
        "Lmdb",    "9lives", "_x",
        "lmdb.so", "a b",    "abcdefghijklmnopqrstuvwxyz1234567"};

    (void)state;
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        refused(test_plugins(), names[i], NULL, 0, T4_E_INVALID,
                "is not the name of a plugin",
                "1 to 32 of a-z, 0-9 and _, a letter first");
    refused(test_plugins(), "test_missing", NULL, 0, T4_E_NOTFOUND,
            "/test_missing.so: No such file or directory",
            "T4_PLUGIN_DIR names another folder");
    refused("/no/such/folder", "test_good", NULL, 0, T4_E_NOTFOUND,
            "plugins' folder /no/such/folder: No such file", "check the plugin's name");
}

static void
test_default_folders(void **state)
{
    (void)state;
    setenv("T4_PLUGIN_DIR", test_plugins(), 1);
    refused(NULL, "test_empty", NULL, 0, T4_E_INVALID, "/regress/plugins/test_empty.so",
            "");
    setenv("T4_PLUGIN_DIR", "/no/such/folder", 1);
    refused(NULL, "test_empty", NULL, 0, T4_E_NOTFOUND, "/no/such/folder", "");
    unsetenv("T4_PLUGIN_DIR"); /* nothing beside this program: the installed folder */
    refused(NULL, "test_empty", NULL, 0, T4_E_NOTFOUND, "", "T4_PLUGIN_DIR");
}

static void
copy_plugin(const char *name, const char *to)
{
    char from[PATH_MAX + 64], data[65536];
    ssize_t n;
    int in, out;

    snprintf(from, sizeof from, "%s/%s.so", test_plugins(), name);
    in = open(from, O_RDONLY);
    out = open(to, O_WRONLY | O_CREAT | O_TRUNC, 0644);
    assert_true(in >= 0 && out >= 0);
    while ((n = read(in, data, sizeof data)) > 0)
        assert_int_equal(write(out, data, (size_t)n), n);
    close(in);
    close(out);
}

static void
test_owner_and_mode(void **state)
{
    const struct plugin_setting needed = {"needed", "x"};
    char dir[SCRATCH_ROOM], path[SCRATCH_ROOM + 64];
    int fd;

    (void)state;
    scratch_make(dir, sizeof dir, "t4-plugin");
    snprintf(path, sizeof path, "%s/test_good.so", dir);
    copy_plugin("test_good", path);
    plugin_unload(loaded(dir, "test_good", &needed, 1));

    chmod(path, 0646);
    refused(dir, "test_good", &needed, 1, T4_E_DENIED,
            "test_good.so may be written by others (mode 0646)", "chmod go-w /");
    chmod(path, 0644);
    chmod(dir, 0777);
    refused(dir, "test_good", &needed, 1, T4_E_DENIED,
            "may be written by others (mode 0777)", "chmod go-w /");
    chmod(dir, 0755);
    if (geteuid() == 0) { /* only root can make files that are not its own */
        assert_int_equal(chown(path, 12345, (gid_t)-1), 0);
        refused(dir, "test_good", &needed, 1, T4_E_DENIED,
                "test_good.so belongs to user 12345, neither root nor", "chown root /");
        assert_int_equal(chown(path, 0, 12345), 0);
        plugin_unload(loaded(dir, "test_good", &needed, 1));
        chmod(path, 0664);
        refused(dir, "test_good", &needed, 1, T4_E_DENIED, "by others (mode 0664)",
                "chmod go-w");
    }
    unlink(path);
    mkdir(path, 0755);
    refused(dir, "test_good", NULL, 0, T4_E_INVALID, "test_good.so is not a regular file",
            "");
    rmdir(path);
    snprintf(path, sizeof path, "%s/test_bad.so",
             dir); /* never loaded from here before */
    fd = open(path, O_WRONLY | O_CREAT, 0644);
    assert_int_equal(write(fd, dir, strlen(dir)), strlen(dir));
    close(fd);
    refused(dir, "test_bad", NULL, 0, T4_E_INVALID, "cannot load /",
            "the file is damaged");
    scratch_remove(dir);
}

/* --- the descriptor ----------------------------------------------------------------- */

static void
test_descriptor(void **state)
{
    static const struct {
        const char *fault;
        t4_status status;
        const char *message, *hint;
    } cases[] = {
        {"null", T4_E_INVALID, "t4_plugin_v1() gave no descriptor", ""},
        {"magic", T4_E_INVALID,
         "plugin \"test_bad\": magic is 0x12345678, not 0x54345047", "T4_PLUGIN_HEAD"},
        {"size", T4_E_INVALID, "size of its descriptor is 24 bytes, at least 96",
         "build it against this server's t4_plugin.h"},
        {"major", T4_E_UNSUPPORTED,
         "abi_major is 2 (it was built for ABI 2.0), the server has 1.0",
         "use a build of the plugin for ABI 1"},
        {"minor", T4_E_UNSUPPORTED,
         "needs_minor is 7 (it needs ABI 1.7), the server has 1.0", "use a newer server"},
        {"option_size", T4_E_INVALID, "option_size is 8 bytes, at least 48",
         "build it against"},
        {"name", T4_E_INVALID,
         "plugin \"test_bad\": its descriptor's name is \"someone_else\"", "<name>.so"},
        {"no options", T4_E_INVALID, "n_options is 1 without options; 0 to 256", ""},
        {"no roles", T4_E_INVALID, "n_roles is 0 with roles; 1 to 16 are possible", ""},
        {"role name", T4_E_INVALID, "role 1 has no name", ""},
        {"role ops", T4_E_INVALID, "role 1 has no ops", ""},
        {"option name", T4_E_INVALID, "option 0 has no name", ""},
        {"option type", T4_E_UNSUPPORTED,
         "option test_bad.count is of a type (99) that this server does not know",
         "use a newer server"},
        {"default", T4_E_INVALID,
         "setting test_bad.count: its own default \"11\" is not possible",
         "it takes a whole number, 1 to 10"},
        {"load", T4_E_UNAVAILABLE,
         "plugin \"test_bad\" refused to load: the library has a cold: temperature 39",
         "wait a week"},
        {"load silently", T4_E_DENIED, "plugin \"test_bad\" refused to load: denied", ""},
        {"load oddly", T4_E_INTERNAL, "refused to load: internal error", ""},
    };

    (void)state;
    refused(test_plugins(), "test_empty", NULL, 0, T4_E_INVALID,
            "test_empty.so does not export t4_plugin_v1()", "it is no plugin of t4");
    capture(); /* what a failing load() leaves behind is logged */
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        setenv("T4_TEST_FAULT", cases[i].fault, 1);
        refused(test_plugins(), "test_bad", NULL, 0, cases[i].status, cases[i].message,
                cases[i].hint);
    }
    unsetenv("T4_TEST_FAULT");
    assert_non_null(strstr(captured(), "left 1 allocations (33 bytes) behind"));
    plugin_unload(loaded(test_plugins(), "test_bad", NULL, 0));
}

/* --- roles -------------------------------------------------------------------------- */

static void
test_roles(void **state)
{
    struct plugin *p = loaded(test_plugins(), "test_bad", NULL, 0);
    struct error error = {0};
    struct t4_engine_ops ops;
    struct engine *e;

    (void)state;
    assert_int_equal(plugin_role(p, T4_ROLE_ENGINE, "lmdb", &ops, sizeof ops, &error),
                     T4_E_NOTFOUND);
    assert_string_equal(error.message,
                        "plugin \"test_bad\" has no storage engine named \"lmdb\"");
    assert_string_equal(error.hint,
                        "it has: storage engine \"tiny\", storage engine \"cut\", "
                        "storage engine \"future\"");
    assert_int_equal(plugin_role(p, T4_ROLE_AUTH, "cut", &ops, sizeof ops, &error),
                     T4_E_NOTFOUND);
    assert_int_equal(plugin_role(p, T4_ROLE_ENGINE, "future", &ops, sizeof ops, &error),
                     T4_E_UNSUPPORTED);
    assert_non_null(strstr(error.message,
                           "role \"future\" has min_minor 9 (it needs ABI 1.9), "
                           "the server has 1.0"));
    assert_int_equal(plugin_role(p, T4_ROLE_ENGINE, "tiny", &ops, sizeof ops, &error),
                     T4_E_INVALID);
    assert_non_null(
        strstr(error.message, "the table of role \"tiny\" says it is 4 bytes long"));

    memset(&ops, 0xff, sizeof ops);
    assert_int_equal(plugin_role(p, T4_ROLE_ENGINE, "cut", &ops, sizeof ops, &error),
                     T4_OK);
    assert_null(ops.get); /* what the plugin does not have is NULL */
    assert_int_equal(engine_open(&ops, plugin_state(p), "cut", "", &e, &error),
                     T4_E_INVALID);
    assert_non_null(strstr(error.message, "storage engine \"cut\": its table"));
    assert_non_null(strstr(error.message, "lacks the function \"open\""));
    plugin_unload(p);
}

/* --- settings ----------------------------------------------------------------------- */

static void
bad_setting(const char *name, const char *value, const char *message, const char *hint)
{
    const struct plugin_setting settings[] = {{"needed", "x"}, {name, value}};

    refused(test_plugins(), "test_good", settings, 2, T4_E_INVALID, message, hint);
}

static void
test_refused_settings(void **state)
{
    const struct plugin_setting map = {"map_sise", "1 GB"};
    char long_name[200];

    (void)state;
    refused(test_plugins(), "test_good", NULL, 0, T4_E_INVALID,
            "setting test_good.needed is missing", "it takes a text; must be set");
    bad_setting("cuont", "7", "plugin \"test_good\" has no setting \"cuont\"",
                "the nearest is test_good.count: a number");
    bad_setting("tim", "7", "has no setting \"tim\"", "the nearest is test_good.time");
    memset(long_name, 'x', sizeof long_name);
    long_name[sizeof long_name - 1] = '\0';
    bad_setting(long_name, "7", "has no setting \"xxx", "the nearest is test_good.");
    bad_setting("needed", "y", "setting test_good.needed is given twice", "keep one");
    bad_setting("count", "101", "setting test_good.count: \"101\" is not possible",
                "it takes a whole number, -5 to 100");
    bad_setting("count", "-6", "\"-6\" is not possible", "-5 to 100");
    bad_setting("count", "9223372036854775808", "is not possible", "-5 to 100");
    bad_setting("count", "", "test_good.count: \"\" is not possible", "a whole number");
    bad_setting("count", "7 MB", "\"7 MB\" is not possible", "a whole number");
    bad_setting("count", "7x", "\"7x\" is not possible", "a whole number");
    bad_setting("space", "4095", "\"4095\" is not possible", "kB, MB, GB, TB");
    bad_setting("space", "3 TB", "\"3 TB\" is not possible", "4 kB to 2 TB");
    bad_setting("space", "-1", "\"-1\" is not possible", "4 kB to 2 TB");
    bad_setting("space", "9999999999 TB", "is not possible", "4 kB to 2 TB");
    bad_setting("space", "1 mb", "\"1 mb\" is not possible", "kB, MB, GB, TB");
    bad_setting("time", "5", "\"5\" is not possible", "ms, s, min, h");
    bad_setting("time", "3 h", "\"3 h\" is not possible", "1 ms to 2 h");
    bad_setting("flag", "maybe", "\"maybe\" is not possible", "it takes true or false");
    bad_setting("password", "hunter2", "password: the given value is not possible",
                "a whole");

    setenv("T4_PLUGIN_DIR", build_folder("plugins"), 0);
    refused(NULL, "lmdb", &map, 1, T4_E_INVALID,
            "plugin \"lmdb\" has no setting \"map_sise\"",
            "the nearest is lmdb.map_size: ");
}

static void
test_values(void **state)
{
    static const struct {
        const char *name, *value;
        size_t at;
        int64_t number;
    } cases[] = {
        {"flag", "true", 1, 1},
        {"flag", "on", 1, 1},
        {"flag", "0", 1, 0},
        {"count", "-5", 2, -5},
        {"count", "100", 2, 100},
        {"space", "4096", 3, 4096},
        {"space", "4kB", 3, 4096},
        {"space", "5000 B", 3, 5000},
        {"space", "3 MB", 3, 3 << 20},
        {"space", "2 TB", 3, (int64_t)2 << 40},
        {"time", "1ms", 4, 1000000},
        {"time", "30 s", 4, (int64_t)30 * 1000000000},
        {"time", "2 min", 4, (int64_t)120 * 1000000000},
        {"time", "2 h", 4, (int64_t)7200 * 1000000000},
        {"password", "42", 5, 42},
    };
    struct plugin_setting settings[2] = {{"needed", "here"}};
    const struct t4_values *v;
    struct plugin *p;

    (void)state;
    p = loaded(test_plugins(), "test_good", settings, 1);
    assert_string_equal(plugin_descriptor(p)->name, "test_good");
    v = plugin_state(p); /* what load() was given */
    assert_int_equal(v->n, plugin_descriptor(p)->n_options);
    assert_true(slice_equal(v->value[0].text, slice_str("default text")));
    assert_int_equal(v->value[1].number, 0);
    assert_int_equal(v->value[2].number, 7);
    assert_int_equal(v->value[3].number, 64 << 20);
    assert_int_equal(v->value[4].number, 1500000000);
    assert_true(slice_equal(v->value[6].text, slice_str("here")));
    assert_null(v->value[7].text.data);
    plugin_unload(p);

    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        settings[1] = (struct plugin_setting){cases[i].name, cases[i].value};
        p = loaded(test_plugins(), "test_good", settings, 2);
        v = plugin_state(p);
        assert_int_equal(v->value[cases[i].at].number, cases[i].number);
        assert_true(slice_equal(v->value[cases[i].at].text, slice_str(cases[i].value)));
        plugin_unload(p);
    }
}

/* --- host services ------------------------------------------------------------------ */

static void
test_host_services(void **state)
{
    const struct plugin_setting settings[] = {{"needed", "x"}, {"talk", "yes"}};
    struct plugin *one, *two;
    const char *text;
    int lines = 0;

    (void)state;
    capture();
    one = loaded(test_plugins(), "test_good", settings, 2);
    two = loaded(test_plugins(), "test_good", settings, 1);
    assert_ptr_not_equal(plugin_state(one), plugin_state(two));
    plugin_unload(one);
    plugin_unload(two);
    text = captured();
    for (const char *p = text; (p = strstr(p, "hello from the plugin")) != NULL; p++) {
        const char *end = strchr(p, '\n');
        const char *name = strstr(p, "test_good");

        assert_true(name != NULL && end != NULL && name < end);
        lines++;
    }
    assert_int_equal(lines, 3); /* error, warning, information; not debug */
    assert_null(strstr(text, "left"));
}

static void
test_leak_is_reported(void **state)
{
    const struct plugin_setting settings[] = {{"needed", "x"}, {"leak", "yes"}};
    struct plugin *p;

    (void)state;
    capture();
    p = loaded(test_plugins(), "test_good", settings, 2);
    plugin_unload(p);
    assert_non_null(strstr(
        captured(), "plugin \"test_good\" left 2 allocations (1100 bytes) behind"));
}

static int
count(void **state)
{
    (void)state;
    printf("# %d refusals compared by their words\n", refusals);
    return 0;
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_default_folders),
        cmocka_unit_test(test_owner_and_mode),
        cmocka_unit_test(test_descriptor),
        cmocka_unit_test(test_roles),
        cmocka_unit_test(test_refused_settings),
        cmocka_unit_test(test_values),
        cmocka_unit_test(test_host_services),
        cmocka_unit_test(test_leak_is_reported),
    };

    setvbuf(stdout, NULL, _IOLBF, 0);
    return cmocka_run_group_tests(tests, NULL, count);
}

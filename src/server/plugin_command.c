/*
 * plugin_command.c - t4 plugin list and t4 plugin check.
 *
 * Entry points: plugin_command(), plugin_command_help().  Runs on: the main thread.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "server/plugin_command.h"

#include <dirent.h>
#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/memory.h"
#include "check/check.h"
#include "env/env.h"
#include "plugin/plugin.h"
#include "server/run.h"
#include "server/values.h"

#define MAX_SETTINGS 256
#define MAX_PLUGINS 1024

static const char usage[] =
    "t4 plugin - the server's plugins\n"
    "\n"
    "Usage: t4 plugin list [--plugin-dir=DIR]\n"
    "       t4 plugin check [--FLAG=VALUE]... URL|NAME|FILE\n"
    "       t4 plugin --help\n"
    "\n"
    "  list           print each plugin with its version, roles and settings\n"
    "  check          check that a plugin keeps the contract of t4_plugin.h; prints TAP\n"
    "\n"
    "Try: t4 plugin check lmdb\n"
    "     t4 plugin check file:///tmp/store\n"
    "     t4 plugin check --help\n";

static const char list_usage[] =
    "t4 plugin list - print the plugins that there are\n"
    "\n"
    "Usage: t4 plugin list [--plugin-dir=DIR]\n"
    "\n"
    "  --plugin-dir=DIR        folder of the plugins (default: T4_PLUGIN_DIR, else "
    "where\n"
    "                          t4 run looks)\n"
    "\n"
    "Prints of each plugin version, ABI, license, roles and settings.  Nothing of a "
    "plugin\n"
    "runs but the function that describes it.  Status: 0, or 1 if a plugin cannot be\n"
    "loaded or there is none, 2 the command is wrong.\n";

static const char check_usage[] =
    "t4 plugin check - check that a plugin keeps the contract of t4_plugin.h\n"
    "\n"
    "Usage: t4 plugin check [--FLAG=VALUE]... URL|NAME|FILE\n"
    "\n"
    "An object store is given by its URL (file:///path, s3://bucket/prefix,\n"
    "gs://bucket/prefix, fault+URL) and is checked as a whole, below a random prefix\n"
    "t4-check-.../ that is empty again at the end.  A plugin is given by its NAME or "
    "its\n"
    "FILE (./name.so); descriptor and exported symbols are checked, and each storage\n"
    "engine in it as a whole, in a folder that is removed at the end.  The NAME memory "
    "is\n"
    "the built-in engine.\n"
    "\n"
    "  --plugin-dir=DIR        folder of the plugin's file; what is not in it is looked\n"
    "                          for where t4 run looks\n"
    "  --set=PLUGIN.NAME=VALUE setting of a plugin; may be repeated.  With @FILE as "
    "VALUE\n"
    "                          the value is the first line of that file (for secrets)\n"
    "  --rounds=N              rounds of each race, 1 to 100000 (default 50); the "
    "length\n"
    "                          of an engine's history and its kills follow it\n"
    "  --dir=DIR               where a storage engine's folder is made (default: "
    "TMPDIR,\n"
    "                          else /tmp)\n"
    "  --seed=N                the history of a storage engine; 0 to 2^63-1 (default:\n"
    "                          another each time, printed)\n"
    "  --allow-refused-keys    an object store may refuse awkward keys, such as an "
    "\"a\"\n"
    "                          beside an \"a/b\", as long as it says so\n"
    "\n"
    "Prints a line of TAP for each rule.  Status: 0 all held, 1 one did not, 2 the\n"
    "command is wrong.\n";

struct words {
    const char *plugin_dir, *target, *dir;
    struct plugin_setting settings[MAX_SETTINGS];
    char *copies[MAX_SETTINGS]; /* names and values, to be freed */
    size_t n_settings;
    unsigned rounds;
    int64_t seed; /* -1: not given */
    bool allow_refused_keys, help;
};

static int
refuse(const char *what, const char *word, const char *hint)
{
    fprintf(stderr, "t4 plugin: %s \"%.128s\"\n  %s\n", what, word, hint);
    return EXIT_USAGE;
}

/* --- flags -------------------------------------------------------------------------- */

/* The first line of a file, so that a secret need not stand on the command line. */
static char *
read_line(const char *path)
{
    char line[65536];
    FILE *in = fopen(path, "r");
    char *text = NULL;

    if (in == NULL)
        return NULL;
    if (fgets(line, sizeof line, in) != NULL) {
        line[strcspn(line, "\r\n")] = '\0';
        text = mem_strdup(line);
    }
    explicit_bzero(line, sizeof line);
    fclose(in);
    return text;
}

static int
add_setting(struct words *w, const char *text)
{
    const char *equals = strchr(text, '='), *dot = strchr(text, '.');
    char *copy;

    if (equals == NULL || dot == NULL || dot > equals || dot == text)
        return refuse("--set takes no", equals == NULL ? text : "that",
                      "it is written --set=PLUGIN.NAME=VALUE, such as "
                      "--set=s3.region=eu-west-1");
    if (w->n_settings == MAX_SETTINGS / 2)
        return refuse("too many settings, from", "--set", "128 are possible");
    copy = mem_strdup(text);
    copy[equals - text] = '\0';
    w->copies[2 * w->n_settings] = copy;
    w->settings[w->n_settings] =
        (struct plugin_setting){copy, copy + (equals - text) + 1};
    if (equals[1] == '@') {
        char *line = read_line(equals + 2);

        if (line == NULL) {
            w->n_settings++;
            return refuse("cannot read the file", equals + 2,
                          "--set=PLUGIN.NAME=@FILE takes the first line of FILE");
        }
        w->copies[2 * w->n_settings + 1] = line;
        w->settings[w->n_settings].value = line;
    }
    w->n_settings++;
    return EXIT_OK;
}

static int
read_words(struct words *w, bool check, int argc, char *const *argv)
{
    for (int i = 0; i < argc; i++) {
        const char *value;
        char *end;

        if ((value = flag_value("--plugin-dir", argc, argv, &i)) != NULL) {
            if (value[0] == '\0')
                return refuse("a folder is missing behind", "--plugin-dir",
                              "write --plugin-dir=DIR");
            w->plugin_dir = value;
        } else if (strcmp(argv[i], "--help") == 0) {
            w->help = true;
        } else if (check && (value = flag_value("--set", argc, argv, &i)) != NULL) {
            int status = add_setting(w, value);

            if (status != EXIT_OK)
                return status;
        } else if (check && (value = flag_value("--rounds", argc, argv, &i)) != NULL) {
            unsigned long n = strtoul(value, &end, 10);

            if (value[0] < '0' || value[0] > '9' || *end != '\0' || n < 1 || n > 100000)
                return refuse("--rounds takes no", value,
                              "it takes a number, 1 to 100000");
            w->rounds = (unsigned)n;
        } else if (check && (value = flag_value("--seed", argc, argv, &i)) != NULL) {
            if (!value_parse_int(value, &w->seed) || w->seed < 0)
                return refuse("--seed takes no", value,
                              "it takes a number, 0 to 9223372036854775807");
        } else if (check && (value = flag_value("--dir", argc, argv, &i)) != NULL) {
            if (value[0] != '/')
                return refuse("--dir takes no", value, "it takes an absolute path");
            w->dir = value;
        } else if (check && strcmp(argv[i], "--allow-refused-keys") == 0) {
            w->allow_refused_keys = true;
        } else if (argv[i][0] == '-') {
            return refuse("there is no flag", argv[i],
                          check ? "t4 plugin check --help lists them"
                                : "t4 plugin --help lists them");
        } else if (!check || w->target != NULL) {
            return refuse("there is a word too many,", argv[i],
                          "t4 plugin --help says what is possible");
        } else {
            w->target = argv[i];
        }
    }
    return EXIT_OK;
}

/* --- t4 plugin list ----------------------------------------------------------------- */

static void
print_roles(const struct t4_plugin *d)
{
    for (size_t i = 0; i < d->n_roles; i++) {
        const struct t4_role *r = &d->roles[i];

        switch (r->kind) {
        case T4_ROLE_OBJECT: {
            struct t4_object_ops ops = {0};
            uint32_t size;

            memcpy(&size, r->ops, sizeof size);
            memcpy(&ops, r->ops, size < sizeof ops ? size : sizeof ops);
            if (ops.caps & T4_OBJECT_WRAPS)
                printf("  object store, a wrapper: %s+URL\n", r->name);
            else
                printf("  object store: %s://...\n", r->name);
            break;
        }
        case T4_ROLE_ENGINE: printf("  storage engine: %s\n", r->name); break;
        default: printf("  role of kind %u: %s\n", r->kind, r->name);
        }
    }
}

static void
print_options(const struct t4_plugin *d)
{
    static const char *const types[] = {"", "TEXT", "BOOL", "NUMBER", "SIZE", "DURATION"};

    for (size_t i = 0; i < d->n_options; i++) {
        const struct t4_option *o = &d->options[i];

        printf("  %s.%s=%s", d->name, o->name, types[o->type <= 5 ? o->type : 0]);
        if (o->flags & T4_OPTION_SECRET)
            fputs(" (secret)", stdout);
        if (o->flags & T4_OPTION_REQUIRED)
            fputs(" (required)", stdout);
        if (o->default_value != NULL && o->default_value[0] != '\0')
            printf(" (default %s)", o->default_value);
        printf("\n      %s\n", o->doc != NULL ? o->doc : "");
    }
}

static int
compare_names(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Names of the .so files; the caller frees each. */
static size_t
find_plugins(const char *dir, char *names[MAX_PLUGINS])
{
    DIR *folder = opendir(dir);
    struct dirent *entry;
    size_t n = 0;

    if (folder == NULL)
        return 0;
    while ((entry = readdir(folder)) != NULL && n < MAX_PLUGINS) {
        size_t length = strlen(entry->d_name);

        if (length <= 3 || strcmp(entry->d_name + length - 3, ".so") != 0)
            continue;
        names[n] = mem_strdup(entry->d_name);
        names[n++][length - 3] = '\0';
    }
    closedir(folder);
    qsort(names, n, sizeof names[0], compare_names);
    return n;
}

/* Settings that a plugin requires cannot be given here, so it is only described then. */
static bool
print_plugin(const char *dir, const char *name)
{
    struct error error = {0};
    struct plugin *p;

    if (plugin_describe(dir, name, &p, &error) != T4_OK) {
        printf("%s: %s\n", name, error.message);
        if (error.hint[0] != '\0')
            printf("  %s\n", error.hint);
        return false;
    }
    printf("%s %s (ABI %u.%u, %s): %s\n", name, plugin_descriptor(p)->version,
           plugin_descriptor(p)->abi_major, plugin_descriptor(p)->abi_minor,
           plugin_descriptor(p)->license, plugin_descriptor(p)->summary);
    print_roles(plugin_descriptor(p));
    print_options(plugin_descriptor(p));
    plugin_unload(p);
    return true;
}

static int
list_plugins(const struct words *w)
{
    char folder[4096];
    const char *dir = plugin_folder(w->plugin_dir, folder, sizeof folder);
    char *names[MAX_PLUGINS];
    size_t n = find_plugins(dir, names);
    int status = EXIT_OK;

    printf("plugins in %s\n", dir);
    if (n == 0) {
        fprintf(stderr,
                "t4 plugin list: no plugin in %s\n  --plugin-dir names another "
                "folder\n",
                dir);
        status = EXIT_FAILED;
    }
    for (size_t i = 0; i < n; i++) {
        if (!print_plugin(dir, names[i]))
            status = EXIT_FAILED;
        mem_free(names[i]);
    }
    return status;
}

/* --- t4 plugin check ---------------------------------------------------------------- */

/*
 * "DIR/NAME.so" or "NAME.so" is a plugin in that folder.  Gives its name and folder, copies
 * that the caller frees; NULL: `target` is no file.
 */
static char *
name_of_file(const char *target, char **dir)
{
    size_t n = strlen(target);
    const char *slash = strrchr(target, '/');
    char *name;

    *dir = NULL;
    if (n <= 3 || strcmp(target + n - 3, ".so") != 0)
        return NULL;
    name = mem_strdup(slash != NULL ? slash + 1 : target);
    name[strlen(name) - 3] = '\0';
    *dir = mem_strdup(slash != NULL ? target : ".");
    if (slash != NULL)
        (*dir)[slash == target ? 1 : slash - target] = '\0';
    return name;
}

static int
check(const struct words *w)
{
    struct env *env = env_posix();
    struct check_options options = {.env = env,
                                    .out = stdout,
                                    .plugin_dir = w->plugin_dir,
                                    .settings = w->settings,
                                    .n_settings = w->n_settings,
                                    .rounds = w->rounds,
                                    .dir = w->dir,
                                    .seed = (uint64_t)w->seed,
                                    .allow_refused_keys = w->allow_refused_keys};
    char *name, *dir;
    bool good;

    if (w->target == NULL)
        return refuse("an object store's URL or a plugin's name is missing behind",
                      "check", "t4 plugin check --help says more");
    if (w->seed < 0) {
        env->random(env->state, &options.seed, sizeof options.seed);
        options.seed >>= 33;
    }
    if (strstr(w->target, "://") != NULL)
        return check_object_store(w->target, &options) ? EXIT_OK : EXIT_FAILED;
    if (strcmp(w->target, "memory") == 0)
        return check_memory_engine(&options) ? EXIT_OK : EXIT_FAILED;
    name = name_of_file(w->target, &dir);
    if (name == NULL && strchr(w->target, '/') != NULL)
        return refuse("no plugin is called", w->target,
                      "a plugin is given by its name, or by its file NAME.so");
    if (name != NULL && w->plugin_dir != NULL) {
        mem_free(name);
        mem_free(dir);
        return refuse("a folder is given twice, by --plugin-dir and by", w->target,
                      "leave one away");
    }
    if (name != NULL)
        options.plugin_dir = dir;
    good = check_plugin(name != NULL ? name : w->target, &options);
    mem_free(name);
    mem_free(dir);
    return good ? EXIT_OK : EXIT_FAILED;
}

void
plugin_command_help(FILE *out)
{
    fputs(usage, out);
}

int
plugin_command(int argc, char *const *argv, char *const *environment)
{
    struct words w = {.rounds = 50, .seed = -1};
    bool checking = argc > 0 && strcmp(argv[0], "check") == 0;
    int status;

    (void)environment; /* plugins read what they need of it by themselves */

    if (argc == 0 || (!checking && strcmp(argv[0], "list") != 0)) {
        if (argc > 0 &&
            (strcmp(argv[0], "--help") == 0 || strcmp(argv[0], "help") == 0)) {
            fputs(usage, stdout);
            return EXIT_OK;
        }
        if (argc > 0)
            return refuse("there is no", argv[0], "t4 plugin list, t4 plugin check");
        fputs(usage, stderr);
        return EXIT_USAGE;
    }
    log_configure(LOG_LEVEL_WARN, LOG_FORMAT_TEXT);
    status = read_words(&w, checking, argc - 1, argv + 1);
    if (status == EXIT_OK && w.help)
        fputs(checking ? check_usage : list_usage, stdout);
    else if (status == EXIT_OK)
        status = checking ? check(&w) : list_plugins(&w);
    for (size_t i = 0; i < MAX_SETTINGS; i++) {
        if (w.copies[i] != NULL && i % 2 == 1)
            explicit_bzero(w.copies[i], strlen(w.copies[i]));
        mem_free(w.copies[i]);
    }
    return status;
}

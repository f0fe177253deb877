/*
 * store_command.c - t4 store move.
 *
 * Reads the words, opens both stores, holds the data directory whose built-in store is moved,
 * and prints how far it has got.  The move itself is move/.
 *
 * The two stores may use one plugin with different credentials: settings given by
 * --to-plugin-option are the only ones that the target's plugin of that name gets, so that
 * nothing of the source's credentials goes to another service.
 *
 * Entry points: store_command(), store_command_help().  Runs on: the main thread.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "server/store_command.h"

#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "backends/built_in_store.h"
#include "base/log.h"
#include "base/memory.h"
#include "move/move.h"
#include "node/node.h"
#include "server/options.h"
#include "server/run.h"

#define MAX_WORDS 256
#define NS_PER_S UINT64_C(1000000000)
#define TO_VARIABLE "T4_TO_PLUGIN_OPTION"

static const char usage[] =
    "t4 store - an object store as a whole\n"
    "\n"
    "Usage: t4 store move --to=URL [--dry-run | --abort] [--FLAG=VALUE]...\n"
    "       t4 store --help\n"
    "\n"
    "  move                  move a store, whose server is stopped, to another place\n"
    "\n"
    "  --data-dir=DIR        move the built-in store of this data directory\n"
    "  --object-store=URL    move this store instead\n"
    "  --to=URL              where to: an empty prefix of a bucket, or directory\n"
    "  --dry-run             say what would be copied, and write nothing\n"
    "  --abort               take back a move that is not done yet\n"
    "  --to-plugin-option=PLUGIN.NAME=VALUE\n"
    "                        setting of the target's plugin, instead of all that are "
    "given\n"
    "                        for both; may be repeated; in the variable "
    "T4_TO_PLUGIN_OPTION,\n"
    "                        commas separate several\n"
    "\n"
    "The flags --s3-*, --gcs-*, --plugin-option and --plugin-dir of t4 run, and their\n"
    "variables, are taken, too, for both stores.  A move that was interrupted goes on "
    "when\n"
    "the same command is given again.\n"
    "\n"
    "Status: 0, 1 when it failed or was refused, 2 when the command is wrong.\n";

struct words {
    const char *to;
    bool dry_run, abort, help;
    const char *to_option[MAX_SETTINGS];
    size_t n_to_options;
    char *rest[MAX_WORDS]; /* for t4 run's options */
    int n_rest;
};

struct command {
    const struct words *words;
    struct run_options options;
    char *to;                  /* without slashes at its end */
    char *texts[MAX_SETTINGS]; /* what settings of the target point into */
    struct plugin_setting settings[MAX_SETTINGS]; /* of the target's plugins */
    size_t n_texts, n_settings;
    struct buffer from; /* URL of the source */
    struct node_directory directory;
    bool is_terminal;
    uint64_t began_ns, told_ns;
};

void
store_command_help(FILE *out)
{
    fputs(usage, out);
}

static int
fail(const struct error *e, int status)
{
    fprintf(stderr, "t4 store move: %s\n", e->message);
    if (e->hint[0] != '\0')
        fprintf(stderr, "  %s\n", e->hint);
    return status;
}

/* --- words ------------------------------------------------------------------------------- */

/* "--name=value", or "--name value", which moves *i on.  NULL: another flag, or no value. */
static const char *
value_of(const char *name, int argc, char *const *argv, int *i)
{
    size_t n = strlen(name);

    if (strncmp(argv[*i], name, n) != 0)
        return NULL;
    if (argv[*i][n] == '=')
        return argv[*i] + n + 1;
    return argv[*i][n] == '\0' && *i + 1 < argc ? argv[++*i] : NULL;
}

static t4_status
read_words(struct words *w, int argc, char *const *argv, struct error *error)
{
    for (int i = 0; i < argc; i++) {
        const char *value;

        if ((value = value_of("--to", argc, argv, &i)) != NULL) {
            w->to = value;
        } else if ((value = value_of("--to-plugin-option", argc, argv, &i)) != NULL) {
            if (w->n_to_options == MAX_SETTINGS)
                return error_set(error, T4_E_INVALID,
                                 "--to-plugin-option: more than %d settings",
                                 MAX_SETTINGS);
            w->to_option[w->n_to_options++] = value;
        } else if (strcmp(argv[i], "--dry-run") == 0) {
            w->dry_run = true;
        } else if (strcmp(argv[i], "--abort") == 0) {
            w->abort = true;
        } else if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0) {
            w->help = true;
        } else if (w->n_rest == MAX_WORDS) {
            return error_set(error, T4_E_INVALID, "more than %d words", MAX_WORDS);
        } else {
            w->rest[w->n_rest++] = argv[i];
        }
    }
    if (w->help)
        return T4_OK;
    if (w->to == NULL || !store_options_is_url(w->to)) {
        error_set(error, T4_E_INVALID, "--to: %s",
                  w->to == NULL ? "the place to move to is missing"
                                : "is no URL of at most 1000 bytes");
        return error_hint(error, "write --to=s3://bucket/prefix, gs://bucket/prefix or "
                                 "file:///path");
    }
    if (w->dry_run && w->abort) {
        error_set(error, T4_E_INVALID, "--dry-run and --abort exclude each other");
        return error_hint(error, "leave one of them out");
    }
    return T4_OK;
}

/* --- the target's settings --------------------------------------------------------------- */

/* "s3.region=x" as a setting.  Values may be secrets: none is repeated (I14). */
static t4_status
add_to_option(struct command *c, const char *text, struct error *error)
{
    char *copy, *equals, *dot;

    if (c->n_texts == MAX_SETTINGS)
        return error_set(error, T4_E_INVALID, "--to-plugin-option: more than %d settings",
                         MAX_SETTINGS);
    copy = c->texts[c->n_texts++] = mem_strdup(text);
    equals = strchr(copy, '=');
    if (equals != NULL)
        *equals = '\0';
    dot = strchr(copy, '.');
    if (equals == NULL || dot == NULL) {
        error_set(error, T4_E_INVALID,
                  "--to-plugin-option: not of the form PLUGIN.NAME=VALUE");
        return error_hint(error,
                          "write for example --to-plugin-option=s3.region=eu-west-1");
    }
    *dot = '\0';
    if (!store_options_url_names(c->to, copy)) {
        error_set(error, T4_E_INVALID, "--to-plugin-option: %s does not use plugin %.64s",
                  c->to, copy);
        return error_hint(error, "settings of the source are given by --plugin-option");
    }
    *dot = '.';
    c->settings[c->n_settings++] = (struct plugin_setting){copy, equals + 1};
    return T4_OK;
}

static t4_status
add_to_variable(struct command *c, char *const *environment, struct error *error)
{
    const size_t n = strlen(TO_VARIABLE);
    char *copy, *rest, *one;
    t4_status status = T4_OK;

    if (c->words->n_to_options > 0)
        return T4_OK; /* flags go before the variable */
    for (; *environment != NULL; environment++)
        if (strncmp(*environment, TO_VARIABLE, n) == 0 && (*environment)[n] == '=' &&
            (*environment)[n + 1] != '\0')
            break;
    if (*environment == NULL)
        return T4_OK;
    copy = rest = mem_strdup(*environment + n + 1);
    while (status == T4_OK && (one = strsep(&rest, ",")) != NULL)
        status = add_to_option(c, one, error);
    explicit_bzero(copy, strlen(copy));
    mem_free(copy);
    return status;
}

/* Has the target settings of its own for the plugin of this one? */
static bool
is_replaced(const struct command *c, const char *name, size_t own)
{
    size_t n = strcspn(name, ".") + 1;

    for (size_t i = 0; i < own; i++)
        if (strncmp(c->settings[i].name, name, n) == 0)
            return true;
    return false;
}

static t4_status
make_target_settings(struct command *c, char *const *environment, struct error *error)
{
    const struct run_options *o = &c->options;
    t4_status status = T4_OK;
    size_t own;

    for (size_t i = 0; status == T4_OK && i < c->words->n_to_options; i++)
        status = add_to_option(c, c->words->to_option[i], error);
    if (status == T4_OK)
        status = add_to_variable(c, environment, error);
    own = c->n_settings;
    for (size_t i = 0; status == T4_OK && i < o->n_store_settings; i++) {
        if (is_replaced(c, o->store_settings[i].name, own))
            continue;
        if (c->n_settings == MAX_SETTINGS)
            return error_set(error, T4_E_INVALID, "more than %d settings", MAX_SETTINGS);
        c->settings[c->n_settings++] = o->store_settings[i];
    }
    return status;
}

/* --- the two places ---------------------------------------------------------------------- */

/* What stands behind the wrappers of a URL. */
static const char *
inner(const char *url)
{
    const char *end = strstr(url, "://"), *p = url;

    while (end != NULL && (p = memchr(url, '+', (size_t)(end - url))) != NULL)
        url = p + 1;
    return url;
}

/*
 * One inside the other would be copied into itself.  With settings of its own the target may be
 * another service's bucket of the same name.
 */
static t4_status
check_places(const struct command *c, struct error *error)
{
    const char *a = inner((const char *)c->from.data), *b = inner(c->to);
    size_t n = strlen(a) < strlen(b) ? strlen(a) : strlen(b);
    const char *longer = strlen(a) > strlen(b) ? a : b;

    if (c->n_texts > 0 || strncmp(a, b, n) != 0 ||
        (longer[n] != '\0' && longer[n] != '/'))
        return T4_OK;
    error_set(error, T4_E_INVALID, "--to: %s is the source, or one is inside the other",
              c->to);
    return error_hint(error, "move to another prefix%s",
                      c->options.object_store != NULL
                          ? "; the source is --object-store, or T4_OBJECT_STORE"
                          : "");
}

static t4_status
open_store(const struct command *c, const char *url,
           const struct plugin_setting *settings, size_t n, struct object_store **out,
           struct error *error)
{
    struct object_options options = {.env = env_posix(),
                                     .plugin_dir = c->options.plugin_dir,
                                     .settings = settings,
                                     .n_settings = n};

    return object_open(url, &options, out, error);
}

/* The URL of what is moved. */
static t4_status
find_source(struct command *c, struct error *error)
{
    const struct run_options *o = &c->options;
    t4_status status = T4_OK;

    if (o->object_store != NULL)
        buffer_append(&c->from, o->object_store, strlen(o->object_store) + 1);
    else
        status = built_in_store_find(o->data_dir, &c->from, error);
    return status == T4_OK ? check_places(c, error) : status;
}

/* Until the end no server uses the data directory whose built-in store is moved. */
static t4_status
hold_source(struct command *c, struct error *error)
{
    t4_status status;

    if (c->options.object_store != NULL)
        return T4_OK;
    status = node_directory_hold(env_posix(), c->options.data_dir, &c->directory, error);
    if (status != T4_E_BUSY)
        return status;
    error_set(error, status,
              "the data directory %s is in use, by a server or another move",
              c->options.data_dir);
    return error_hint(error, "stop the server in order (SIGTERM)");
}

/* --- progress ---------------------------------------------------------------------------- */

static double
mib(uint64_t bytes)
{
    return (double)bytes / (1 << 20);
}

static void
tell(void *arg, const struct move_progress *p)
{
    struct command *c = arg;
    struct env *env = env_posix();
    uint64_t now = env->boot_ns(env->state);
    double seconds, rate;
    char left[32] = "";

    if (c->began_ns == 0)
        c->began_ns = c->told_ns = now;
    if (!c->is_terminal && now - c->told_ns < NS_PER_S)
        return;
    c->told_ns = now;
    seconds = (double)(now - c->began_ns) / (double)NS_PER_S;
    rate = seconds > 0 ? mib(p->bytes) / seconds : 0;
    if (rate > 0 && p->bytes < p->all_bytes) {
        uint64_t s = (uint64_t)(mib(p->all_bytes - p->bytes) / rate);

        snprintf(left, sizeof left, ", %" PRIu64 ":%02" PRIu64 " left", s / 60, s % 60);
    }
    fprintf(stderr,
            "%s%" PRIu64 " of %" PRIu64 " objects, %.1f of %.1f MiB, %.1f MiB/s%s%s",
            c->is_terminal ? "\r\033[K" : "", p->objects, p->all_objects, mib(p->bytes),
            mib(p->all_bytes), rate, left, c->is_terminal ? "" : "\n");
}

/* --- the command ------------------------------------------------------------------------- */

static void
print_moved(const struct command *c, const struct move_result *r)
{
    const char *from = (const char *)c->from.data;

    if (r->was_done)
        printf("%s was moved to %s: nothing is left to do\n", from, c->to);
    else
        printf("moved %" PRIu64 " objects, %.1f MiB, from %s to %s\n", r->objects,
               mib(r->bytes), from, c->to);
    printf("start the server with --object-store=%s\n", c->to);
    if (c->options.object_store == NULL)
        printf("the folder %s/store is not used any more: it may be deleted\n",
               c->options.data_dir);
    else
        printf("%s is not used any more: its objects may be deleted\n", from);
}

static void
print_plan(const struct command *c, const struct move_result *r)
{
    if (r->was_done)
        printf("%s was moved to %s\n", (const char *)c->from.data, c->to);
    else
        printf("would copy %" PRIu64 " objects, %.1f MiB, from %s to %s; %" PRIu64
               " of them are there\n",
               r->objects, mib(r->bytes), (const char *)c->from.data, c->to, r->there);
}

static void
print_taken_back(const struct command *c, const struct move_result *r)
{
    if (r->unmarked)
        printf("%s can be used again\n", (const char *)c->from.data);
    if (r->removed > 0)
        printf("%" PRIu64 " objects were removed from %s\n", r->removed, c->to);
    if (r->left > 0)
        printf("%" PRIu64
               " objects were left at %s: they are not certainly this move's\n",
               r->left, c->to);
}

static t4_status
move(struct command *c, struct object_store *source, struct object_store *target,
     struct error *error)
{
    const struct leadership_recollection *memory = &c->directory.memory;
    struct move_options options = {
        .env = env_posix(),
        .source = source,
        .target = target,
        .timeout_ns = (uint64_t)c->options.store_timeout_ns,
        .built_in = c->options.object_store == NULL,
        .all_in_store = memory->all_in_store,
        .lock_counter = memory->lock_counter,
        .manifest_counter = memory->manifest_counter,
        .progress = tell,
        .arg = c,
    };
    struct move_result result;
    t4_status status;

    if (c->words->dry_run) {
        status = move_plan(&options, &result, error);
        if (status == T4_OK)
            print_plan(c, &result);
    } else if (c->words->abort) {
        status = move_take_back(&options, &result, error);
        print_taken_back(c, &result);
    } else {
        status = move_store(&options, &result, error);
        if (c->is_terminal && c->began_ns != 0)
            fputs("\r\033[K", stderr);
        if (status == T4_OK)
            print_moved(c, &result);
    }
    return status;
}

static int
move_with_options(struct command *c, char *const *environment)
{
    const struct run_options *o = &c->options;
    struct object_store *source = NULL, *target = NULL;
    struct error error = {0};
    t4_status status = make_target_settings(c, environment, &error);

    if (status == T4_OK)
        status = find_source(c, &error);
    if (status != T4_OK)
        return fail(&error, EXIT_USAGE);
    status = hold_source(c, &error);
    if (status == T4_OK)
        status = open_store(c, (const char *)c->from.data, o->store_settings,
                            o->n_store_settings, &source, &error);
    if (status == T4_OK)
        status = open_store(c, c->to, c->settings, c->n_settings, &target, &error);
    if (status == T4_OK)
        status = move(c, source, target, &error);
    object_close(target);
    object_close(source);
    node_directory_release(&c->directory);
    return status == T4_OK ? EXIT_OK : fail(&error, EXIT_FAILED);
}

static void
forget(struct command *c)
{
    for (size_t i = 0; i < c->n_texts; i++) {
        explicit_bzero(c->texts[i], strlen(c->texts[i]));
        mem_free(c->texts[i]);
    }
    run_options_free(&c->options);
    buffer_free(&c->from);
    mem_free(c->to);
}

/* s3://bucket/prefix/ is s3://bucket/prefix; what stands in the lock must be one spelling. */
static void
strip_slashes(char *url)
{
    const char *path = strstr(url, "://") + 3;

    for (char *end = url + strlen(url); end > path + 1 && end[-1] == '/';)
        *--end = '\0';
}

static int
move_command(int argc, char *const *argv, char *const *environment)
{
    struct words words = {0};
    struct command c = {.words = &words, .is_terminal = isatty(STDERR_FILENO) == 1};
    struct error error = {0};
    int status;

    if (read_words(&words, argc, argv, &error) != T4_OK)
        return fail(&error, EXIT_USAGE);
    if (words.help) {
        store_command_help(stdout);
        return EXIT_OK;
    }
    c.to = mem_strdup(words.to);
    strip_slashes(c.to);
    if (run_options_parse_for(c.to, words.n_rest, words.rest, environment, &c.options,
                              &error) != T4_OK) {
        status = fail(&error, EXIT_USAGE);
    } else {
        log_configure(LOG_LEVEL_WARN, LOG_FORMAT_TEXT);
        umask(077);
        status = move_with_options(&c, environment);
    }
    forget(&c);
    return status;
}

int
store_command(int argc, char *const *argv, char *const *environment)
{
    if (argc > 0 && strcmp(argv[0], "move") == 0)
        return move_command(argc - 1, argv + 1, environment);
    if (argc > 0 && (strcmp(argv[0], "--help") == 0 || strcmp(argv[0], "help") == 0)) {
        store_command_help(stdout);
        return EXIT_OK;
    }
    if (argc > 0)
        fprintf(stderr,
                "t4 store: there is no \"%.64s\"\n  t4 store move; t4 store --help "
                "says more\n",
                argv[0]);
    else
        store_command_help(stderr);
    return EXIT_USAGE;
}

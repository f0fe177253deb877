/*
 * verify_command.c - t4 verify.
 *
 * Words, and what is printed; the work is done by verify/.  What is wrong is printed as soon as it is
 * found, the summary at the end; with --json everything is one object at the end.  On a terminal
 * the standard error shows how far it has got.
 *
 * Entry points: verify_command(), verify_command_help().  Runs on: the main thread; callbacks as
 * verify.h says, never two at once.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "server/verify_command.h"

#include <inttypes.h>
#include <string.h>
#include <unistd.h>

#include "backends/built_in_store.h"
#include "base/report.h"
#include "env/env.h"
#include "object/object.h"
#include "server/options.h"
#include "server/run.h"
#include "verify/verify.h"

#define TIMEOUT_NS UINT64_C(60000000000)
#define MAX_WORDS 256
#define PARALLEL 4
#define PROGRESS_NS UINT64_C(200000000) /* between two lines of progress */

static const char usage[] =
    "t4 verify - prove that what an object store holds is whole\n"
    "\n"
    "Usage: t4 verify --object-store=URL [--FLAG=VALUE]... [--deep] [--json]\n"
    "       t4 verify --data-dir=DIR [--deep] [--json]\n"
    "\n"
    "Reads everything, writes nothing; a server may be running on the store.\n"
    "\n"
    "  --object-store=URL     verify this store; the flags --s3-*, --gcs-*, "
    "--plugin-option\n"
    "                         and --plugin-dir of t4 run, and their variables, are "
    "taken, too\n"
    "  --data-dir=DIR         verify the built-in store of this data directory\n"
    "  --deep                 replay the log, too, and compare with each checkpoint\n"
    "  --checkpoint=REVISION  with --deep: only from the checkpoint of this revision to "
    "the\n"
    "                         next one\n"
    "  --tmp=DIR              with --deep: where log is sorted (default: TMPDIR, else "
    "/tmp)\n"
    "  --parallel=N           requests to the store at once, 1 to 64 (default 4)\n"
    "  --json                 print one JSON object\n"
    "\n"
    "Status: 0 when everything is as it must be, 1 when something is missing or wrong or "
    "the\n"
    "store cannot be read, 2 when the command is wrong.\n";

void
verify_command_help(FILE *out)
{
    fputs(usage, out);
}

/* --- words -------------------------------------------------------------------------------- */

struct words {
    bool json, deep, one_checkpoint;
    int64_t revision, parallel;
    const char *tmp;
};

/* *mine: the word is a flag of this command. */
static t4_status
read_word(struct words *w, int argc, char *const *argv, int *i, bool *mine,
          struct error *error)
{
    const char *value;

    *mine = true;
    if (strcmp(argv[*i], "--json") == 0) {
        w->json = true;
    } else if (strcmp(argv[*i], "--deep") == 0) {
        w->deep = true;
    } else if ((value = flag_value("--checkpoint", argc, argv, i)) != NULL) {
        w->one_checkpoint = true;
        if (!value_parse_int(value, &w->revision) || w->revision < 1)
            return flag_refuse(error, "--checkpoint", value,
                               "it takes the revision of a kept checkpoint");
    } else if ((value = flag_value("--parallel", argc, argv, i)) != NULL) {
        if (!value_parse_int(value, &w->parallel) || w->parallel < 1 ||
            w->parallel > VERIFY_PARALLEL_MAX)
            return flag_refuse(error, "--parallel", value, "it takes 1 to 64");
    } else if ((value = flag_value("--tmp", argc, argv, i)) != NULL) {
        w->tmp = value;
        if (value[0] == '\0')
            return flag_refuse(error, "--tmp", value, "it takes a folder");
    } else {
        *mine = false;
    }
    return T4_OK;
}

/* The flags of t4 run are left in `rest`. */
static t4_status
read_words(struct words *w, int argc, char *const *argv, char *const *environment,
           char **rest, int *n, struct error *error)
{
    t4_status status = T4_OK;

    *w = (struct words){.parallel = PARALLEL, .tmp = "/tmp"};
    for (; *environment != NULL; environment++)
        if (strncmp(*environment, "TMPDIR=", 7) == 0 && (*environment)[7] != '\0')
            w->tmp = *environment + 7;
    for (int i = 0; i < argc && status == T4_OK && *n < MAX_WORDS; i++) {
        int at = i;
        bool mine;

        status = read_word(w, argc, argv, &i, &mine, error);
        if (!mine)
            rest[(*n)++] = argv[at];
    }
    if (status == T4_OK && w->one_checkpoint && !w->deep) {
        error_set(error, T4_E_INVALID, "--checkpoint says where --deep is to begin");
        status = error_hint(error, "give --deep, too");
    }
    return status;
}

static int
fail(const struct error *e, int status)
{
    fprintf(stderr, "t4 verify: %s\n", e->message);
    if (e->hint[0] != '\0')
        fprintf(stderr, "  %s\n", e->hint);
    return status;
}

/* --- what is printed ------------------------------------------------------------------------ */

struct printing {
    struct env *env;
    bool json, terminal;
    bool line; /* a line of progress stands there */
    uint64_t shown_ns;
    struct buffer problems, notes; /* for JSON */
};

static void
clear_line(struct printing *p)
{
    if (p->line)
        fputs("\r\033[K", stderr);
    p->line = false;
}

/* Words in one line: what is not printable is shown as "?". */
static void
print_line(const char *kind, const char *object, const char *what)
{
    struct report r = {0};
    char text[2048];

    snprintf(text, sizeof text, "%s%s%s", object, object[0] != '\0' ? " " : "", what);
    report_text(&r, "text", kind, text);
    fwrite(r.lines.data, 1, r.lines.len, stdout);
    fflush(stdout);
    report_free(&r);
}

static void
add_text(struct buffer *b, const char *text)
{
    buffer_append(b, text, strlen(text));
}

static void
on_bad(void *arg, const char *object, const char *what)
{
    struct printing *p = arg;

    clear_line(p);
    if (!p->json) {
        print_line("BAD", object, what);
        return;
    }
    add_text(&p->problems, p->problems.len == 0 ? "{\"object\":" : ",{\"object\":");
    report_json_string(&p->problems, object);
    add_text(&p->problems, ",\"what\":");
    report_json_string(&p->problems, what);
    add_text(&p->problems, "}");
}

static void
on_note(void *arg, const char *what)
{
    struct printing *p = arg;

    clear_line(p);
    if (!p->json) {
        print_line("note", "", what);
        return;
    }
    if (p->notes.len > 0)
        add_text(&p->notes, ",");
    report_json_string(&p->notes, what);
}

static void
on_progress(void *arg, const char *phase, uint64_t done, uint64_t total)
{
    struct printing *p = arg;
    uint64_t now;

    if (!p->terminal)
        return;
    now = p->env->boot_ns(p->env->state);
    if (p->line && now - p->shown_ns < PROGRESS_NS)
        return;
    clear_line(p);
    fprintf(stderr, "%s: %" PRIu64, phase, done);
    if (total > 0)
        fprintf(stderr, " of %" PRIu64, total);
    fflush(stderr);
    p->line = true;
    p->shown_ns = now;
}

static void
report_array(struct report *r, const char *key, const struct buffer *items)
{
    struct buffer all = {0};

    add_text(&all, "[");
    buffer_append_slice(&all, buffer_slice(items));
    add_text(&all, "]");
    report_json(r, key, buffer_slice(&all));
    buffer_free(&all);
}

static void
report_checkpoints(struct report *r, const struct verify_result *x)
{
    report_u64(r, "checkpoints", "good checkpoints", x->checkpoints);
    if (x->retired > 0)
        report_u64(r, "retired", "retired meanwhile", x->retired);
    report_u64(r, "runs", "good runs", x->runs);
    report_u64(r, "ssts", "good SSTs", x->files);
    report_u64(r, "records", "records in them", x->records);
}

static void
report_chain(struct report *r, const struct verify_result *x)
{
    report_u64(r, "archives", "archives", x->archives);
    report_u64(r, "segments", "segments", x->segments);
    report_u64(r, "fences_and_leftovers", "fences, leftovers", x->skipped);
    report_u64(r, "entries", "entries of the log", x->entries);
    report_u64(r, "first_index", "from index", x->first_index);
    report_u64(r, "last_index", "to index", x->last_index);
    report_i64(r, "last_revision", "newest revision", x->last_revision);
}

static void
report_rest(struct report *r, const struct verify_result *x)
{
    report_u64(r, "late_objects", NULL, x->late);
    report_u64(r, "orphan_objects", "orphans", x->orphans);
    report_u64(r, "orphan_bytes", "orphans, bytes", x->orphan_bytes);
    report_u64(r, "unfinished_objects", NULL, x->unfinished);
    report_u64(r, "unfinished_bytes", NULL, x->unfinished_bytes);
    report_u64(r, "unknown_objects", "unknown keys", x->unknown);
    report_u64(r, "objects_read", "objects read", x->objects);
    report_u64(r, "bytes_read", "bytes read", x->bytes);
}

static void
report_deep(struct report *r, const struct verify_result *x)
{
    report_u64(r, "replayed", "checkpoints replayed", x->replayed);
    report_u64(r, "compared", "records compared", x->compared);
    if (!x->has_final)
        return;
    report_u64(r, "final_index", "replayed to index", x->final_index);
    report_i64(r, "final_revision", "replayed to revision", x->final_revision);
    report_u64(r, "final_keys", "keys there", x->final_keys);
}

static void
print_summary(const struct printing *p, const char *url, bool deep,
              const struct verify_result *x)
{
    struct report r = {0};
    const struct buffer *b = p->json ? &r.json : &r.lines;
    char text[200];

    report_text(&r, "object_store", "object store", url);
    report_hex(&r, "cluster_id", "cluster", x->cluster_id);
    report_hex(&r, "lineage", "lineage", x->lineage);
    report_checkpoints(&r, x);
    report_chain(&r, x);
    report_rest(&r, x);
    if (deep)
        report_deep(&r, x);
    report_bool(&r, "good", NULL, x->bad == 0);
    report_array(&r, "problems", &p->problems);
    report_array(&r, "notes", &p->notes);
    if (x->bad > 0)
        snprintf(text, sizeof text,
                 "%" PRIu64 " problems: see the lines BAD above; delete nothing, restore "
                 "these objects from versions or copies that the store keeps",
                 x->bad);
    report_line(&r, x->bad == 0 ? "everything is as it must be" : text);
    report_end(&r);
    fwrite(b->data, 1, b->len, stdout);
    report_free(&r);
}

/* --- the command ------------------------------------------------------------------------------ */

static int
verify_opened(struct object_store *store, const struct words *w)
{
    struct env *env = env_posix();
    struct printing p = {
        .env = env, .json = w->json, .terminal = !w->json && isatty(STDERR_FILENO)};
    struct verify_options options = {.env = env,
                                     .store = store,
                                     .timeout_ns = TIMEOUT_NS,
                                     .parallel = (uint32_t)w->parallel,
                                     .deep = w->deep,
                                     .one_checkpoint = w->one_checkpoint,
                                     .revision = w->revision,
                                     .tmp = w->tmp,
                                     .arg = &p,
                                     .bad = on_bad,
                                     .note = on_note,
                                     .progress = on_progress};
    struct verify_result result;
    struct error error = {0};
    t4_status status = verify_store(&options, &result, &error);

    clear_line(&p);
    if (status == T4_OK)
        print_summary(&p, object_url(store), w->deep, &result);
    buffer_free(&p.problems);
    buffer_free(&p.notes);
    if (status != T4_OK)
        return fail(&error, EXIT_FAILED);
    return result.bad == 0 ? EXIT_OK : EXIT_FAILED;
}

static int
verify_url(const struct run_options *o, const char *url, const struct words *w)
{
    struct object_options options = {.env = env_posix(),
                                     .plugin_dir = o->plugin_dir,
                                     .settings = o->store_settings,
                                     .n_settings = o->n_store_settings};
    struct object_store *store;
    struct error error = {0};
    int result;

    if (object_open(url, &options, &store, &error) != T4_OK)
        return fail(&error, EXIT_FAILED);
    result = verify_opened(store, w);
    object_close(store);
    return result;
}

static int
verify_built_in_store(const struct run_options *o, const struct words *w)
{
    struct buffer url = {0};
    struct error error = {0};
    t4_status status = built_in_store_find(o->data_dir, &url, &error);
    int result;

    if (status == T4_OK)
        result = verify_url(o, (const char *)url.data, w);
    else
        result = fail(&error, status == T4_E_NOTFOUND ? EXIT_USAGE : EXIT_FAILED);
    buffer_free(&url);
    return result;
}

int
verify_command(int argc, char *const *argv, char *const *environment)
{
    char *rest[MAX_WORDS];
    struct run_options options;
    struct error error = {0};
    struct words w;
    int n = 0, status;

    if (read_words(&w, argc, argv, environment, rest, &n, &error) != T4_OK)
        return fail(&error, EXIT_USAGE);
    if (run_options_parse(n, rest, environment, &options, &error) != T4_OK) {
        status = fail(&error, EXIT_USAGE);
    } else if (options.help) {
        verify_command_help(stdout);
        status = EXIT_OK;
    } else if (options.object_store != NULL) {
        status = verify_url(&options, options.object_store, &w);
    } else {
        status = verify_built_in_store(&options, &w);
    }
    run_options_free(&options);
    return status;
}

/*
 * wal_command.c - t4 wal export.
 *
 * Shows the entries of <data>/wal, or of a file divergent-F-L.log that leadership/joint.c has
 * saved aside, one line per mutation.  Nothing is written but standard output and error.
 *
 * The directory's lock is not taken, so this works beside a running server and is never in the
 * way of one that starts.  That is safe: wal_inspect() opens for reading only and believes no
 * frame that is not whole, and nothing that it reads is ever written twice.  Of what the server
 * appends meanwhile the newest may be missing.  A divergent file is written and synced before
 * the log is cut; read earlier than that it ends short, which is said as damage.
 *
 * Entry points: wal_command(), wal_command_help().  Runs on: the main thread.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "server/wal_command.h"

#include <inttypes.h>
#include <string.h>

#include "base/error.h"
#include "base/memory.h"
#include "env/env.h"
#include "fmt/entry.h"
#include "server/entry_lines.h"
#include "server/run.h"
#include "server/values.h"
#include "wal/wal.h"

#define PATH_BYTES 4096
#define LENGTH_BYTES 4u /* before each entry of a divergent file, see joint.c */

static const char usage[] =
    "t4 wal - the log in a data directory\n"
    "\n"
    "Usage: t4 wal export --data-dir=DIR [--FLAG=VALUE]...\n"
    "       t4 wal export --file=FILE [--FLAG=VALUE]...\n"
    "       t4 wal --help\n"
    "\n"
    "Prints what the log's entries changed, one line per change.  Only reads; the server "
    "may\n"
    "be running.\n"
    "\n"
    "  --data-dir=DIR         data directory of a server (T4_DATA_DIR)\n"
    "  --file=FILE            not its log, but entries that were cut off and saved: a "
    "file\n"
    "                         divergent-FIRST-LAST.log in DIR, or a path with a slash\n"
    "  --from=INDEX           first entry to show (default 1)\n"
    "  --to=INDEX             last one (default: the newest)\n"
    "  --format=json|text     an object per line (default), or name=value\n"
    "  --keys=utf8|base64     keys and values as text where they are UTF-8 (default), "
    "or\n"
    "                         all of them in base64\n"
    "\n"
    "Status: 0, 1 when something is damaged or cannot be read (what is readable is "
    "printed\n"
    "all the same), 2 when the command is wrong.\n";

struct words {
    const char *data_dir, *file;
    uint64_t from, to;
    struct entry_style style;
    bool help;
};

/* --- flags ---------------------------------------------------------------------------- */

static t4_status
read_index(const char *flag, const char *text, uint64_t *out, struct error *error)
{
    int64_t n;

    if (!value_parse_int(text, &n) || n < 1)
        return flag_refuse(error, flag, text,
                           "it takes the index of an entry, 1 or more");
    *out = (uint64_t)n;
    return T4_OK;
}

/* One of two words; *second: it is the second. */
static t4_status
read_choice(const char *flag, const char *text, const char *first, const char *other,
            bool *second, struct error *error)
{
    char hint[64];

    if (strcmp(text, first) != 0 && strcmp(text, other) != 0) {
        snprintf(hint, sizeof hint, "it takes %s or %s", first, other);
        return flag_refuse(error, flag, text, hint);
    }
    *second = strcmp(text, other) == 0;
    return T4_OK;
}

static t4_status
read_word(struct words *w, int argc, char *const *argv, int *i, struct error *error)
{
    static const char list[] = "t4 wal --help lists the flags";
    const char *value;
    bool second = false;
    t4_status status = T4_OK;

    if ((value = flag_value("--data-dir", argc, argv, i)) != NULL) {
        w->data_dir = value;
        return value[0] != '\0' ? T4_OK
                                : flag_refuse(error, "--data-dir", value,
                                              "it takes the data directory of a server");
    }
    if ((value = flag_value("--file", argc, argv, i)) != NULL) {
        w->file = value;
        return value[0] != '\0' ? T4_OK
                                : flag_refuse(error, "--file", value,
                                              "it takes a file divergent-FIRST-LAST.log");
    }
    if ((value = flag_value("--from", argc, argv, i)) != NULL)
        return read_index("--from", value, &w->from, error);
    if ((value = flag_value("--to", argc, argv, i)) != NULL)
        return read_index("--to", value, &w->to, error);
    if ((value = flag_value("--format", argc, argv, i)) != NULL) {
        status = read_choice("--format", value, "json", "text", &second, error);
        w->style.json = !second;
        return status;
    }
    if ((value = flag_value("--keys", argc, argv, i)) != NULL)
        return read_choice("--keys", value, "utf8", "base64", &w->style.base64, error);
    if (strcmp(argv[*i], "--help") == 0) {
        w->help = true;
        return T4_OK;
    }
    error_set(error, T4_E_INVALID,
              argv[*i][0] == '-' ? "there is no flag \"%.128s\""
                                 : "there is a word too many, \"%.128s\"",
              argv[*i]);
    return error_hint(error, list);
}

static t4_status
read_words(struct words *w, int argc, char *const *argv, char *const *environment,
           struct error *error)
{
    t4_status status = T4_OK;

    *w = (struct words){.from = 1, .to = UINT64_MAX, .style = {.json = true}};
    for (; *environment != NULL; environment++) {
        if (strncmp(*environment, "T4_DATA_DIR=", 12) == 0 && (*environment)[12] != '\0')
            w->data_dir = *environment + 12;
    }
    for (int i = 0; i < argc && status == T4_OK; i++)
        status = read_word(w, argc, argv, &i, error);
    if (status != T4_OK || w->help)
        return status;
    if (w->from > w->to) {
        error_set(error, T4_E_INVALID, "--from=%" PRIu64 " is above --to=%" PRIu64,
                  w->from, w->to);
        return error_hint(error, "both are indexes, the smaller one comes first");
    }
    if (w->data_dir == NULL && (w->file == NULL || strchr(w->file, '/') == NULL)) {
        error_set(error, T4_E_INVALID, "of which data directory?");
        return error_hint(error, "give --data-dir=DIR, or --file with a path such as "
                                 "./divergent-5-7.log");
    }
    return T4_OK;
}

/* --- showing ---------------------------------------------------------------------------- */

struct printing {
    const struct words *words;
    struct buffer lines;
    uint64_t shown, damaged;
    uint64_t first, last; /* that there are; 0: none */
};

static void
complain(const char *message, const char *hint)
{
    fprintf(stderr, "t4 wal export: %s\n", message);
    if (hint[0] != '\0')
        fprintf(stderr, "  %s\n", hint);
}

static t4_status
show(void *arg, uint64_t index, struct t4_slice entry, struct error *error)
{
    struct printing *x = arg;
    char text[80];

    buffer_clear(&x->lines);
    if (!entry_lines_append(&x->lines, entry, &x->words->style)) {
        snprintf(text, sizeof text, "entry %" PRIu64 " cannot be decoded whole", index);
        complain(text, "");
        x->damaged++;
    }
    x->shown++;
    if (fwrite(x->lines.data, 1, x->lines.len, stdout) == x->lines.len)
        return T4_OK;
    return error_set(error, T4_E_IO, "standard output cannot be written to");
}

static void
remark(void *arg, bool damage, const struct error *what)
{
    struct printing *x = arg;

    x->damaged += damage;
    complain(what->message, "");
}

static t4_status
export_log(struct printing *x, struct env *env, struct error *error)
{
    const struct words *w = x->words;
    struct wal_inspection found;
    char dir[PATH_BYTES];
    t4_status status;

    if (snprintf(dir, sizeof dir, "%s/wal", w->data_dir) >= (int)sizeof dir)
        return error_set(error, T4_E_INVALID,
                         "the path of the data directory is too long");
    status = wal_inspect(env, dir, w->from, w->to, show, remark, x, &found, error);
    if (status == T4_E_NOTFOUND) {
        error_set(error, status, "there is no log in %s: %s is not there", w->data_dir,
                  dir);
        error_hint(error, "--data-dir takes what the server was started with");
    }
    x->first = found.first_index;
    x->last = found.last_index;
    return status;
}

/* --- entries that were saved aside ------------------------------------------------------ */

static void
damaged_file(struct printing *x, const char *path, uint64_t offset, const char *why)
{
    char text[PATH_BYTES + 128];

    snprintf(text, sizeof text, "%s is damaged at offset %" PRIu64 ": %s", path, offset,
             why);
    complain(text, "");
    x->damaged++;
}

/*
 * The entry at *offset, which is moved on.  False: the end, or nothing behind it can be found.
 * There are no checksums, so what can be noticed is what does not decode and what is not in order.
 */
static t4_status
next_saved(struct printing *x, struct env *env, struct env_file *file, const char *path,
           uint64_t size, uint64_t *offset, struct buffer *bytes, struct entry *e,
           bool *more, struct error *error)
{
    uint8_t length[LENGTH_BYTES] = {0};
    struct byte_reader r;
    uint64_t at = *offset;
    size_t got, n;
    t4_status status =
        env->pread(env->state, file, length, sizeof length, at, &got, error);

    *more = false;
    if (status != T4_OK || at == size)
        return status;
    n = get_u32le(length);
    if (got < sizeof length || n == 0 || n > size - at - sizeof length) {
        damaged_file(x, path, at, "no entry of the length that stands there fits");
        return T4_OK;
    }
    buffer_clear(bytes);
    status = env->pread(env->state, file, buffer_reserve(bytes, n), n, at + sizeof length,
                        &got, error);
    bytes->len = got;
    if (status != T4_OK)
        return status;
    r = reader_of(buffer_slice(bytes));
    *more = true;
    *offset = at + sizeof length + n;
    if (!entry_decode_head(&r, e)) {
        damaged_file(x, path, at, "the entry cannot be decoded");
        e->index = 0;
    } else if (x->last != 0 && e->index != x->last + 1) {
        damaged_file(x, path, at, "the entry does not follow the one before it");
    }
    return T4_OK;
}

static t4_status
show_saved(struct printing *x, struct env *env, struct env_file *file, const char *path,
           uint64_t size, struct error *error)
{
    struct buffer bytes = {0};
    uint64_t offset = 0;
    bool more = true;
    t4_status status = T4_OK;

    while (status == T4_OK && more) {
        struct entry e;

        status = next_saved(x, env, file, path, size, &offset, &bytes, &e, &more, error);
        if (status != T4_OK || !more || e.index == 0)
            continue;
        if (x->first == 0)
            x->first = e.index;
        x->last = e.index;
        if (e.index >= x->words->from && e.index <= x->words->to)
            status = show(x, e.index, buffer_slice(&bytes), error);
    }
    buffer_free(&bytes);
    return status;
}

static t4_status
export_file(struct printing *x, struct env *env, struct error *error)
{
    const struct words *w = x->words;
    bool in_dir = strchr(w->file, '/') == NULL;
    struct env_file *file;
    struct env_stat st;
    char path[PATH_BYTES];
    t4_status status;

    if (snprintf(path, sizeof path, "%s%s%s", in_dir ? w->data_dir : "",
                 in_dir ? "/" : "", w->file) >= (int)sizeof path)
        return error_set(error, T4_E_INVALID, "the path of --file is too long");
    status = env->open(env->state, path, ENV_READONLY, &file, error);
    if (status == T4_E_NOTFOUND)
        error_hint(error, "--file without a slash is looked for in --data-dir");
    if (status != T4_OK)
        return status;
    status = env->stat(env->state, path, &st, error);
    if (status == T4_OK)
        status = show_saved(x, env, file, path, st.size, error);
    env->close(env->state, file);
    return status;
}

/* --- the command ------------------------------------------------------------------------- */

static void
nothing_there(const struct printing *x)
{
    char text[160], hint[160] = "";

    snprintf(text, sizeof text, "there is no entry to show");
    if (x->first != 0)
        snprintf(hint, sizeof hint,
                 "the entries there are have the indexes %" PRIu64 " to %" PRIu64,
                 x->first, x->last);
    complain(text, hint);
}

static int
run_export(const struct words *w)
{
    struct printing x = {.words = w};
    struct error error = {0};
    t4_status status = w->file != NULL ? export_file(&x, env_posix(), &error)
                                       : export_log(&x, env_posix(), &error);

    buffer_free(&x.lines);
    if (status != T4_OK)
        complain(error.message, error.hint);
    else if (x.shown == 0)
        nothing_there(&x);
    if (x.damaged > 0)
        complain(
            "not everything could be read; see above",
            "look for a copy of the data directory or, with an object store, for the "
            "entries there; keep these files until you have them");
    return status == T4_OK && x.damaged == 0 ? EXIT_OK : EXIT_FAILED;
}

void
wal_command_help(FILE *out)
{
    fputs(usage, out);
}

int
wal_command(int argc, char *const *argv, char *const *environment)
{
    struct error error = {0};
    struct words w;

    if (argc == 0) {
        fputs(usage, stderr);
        return EXIT_USAGE;
    }
    if (strcmp(argv[0], "--help") == 0 || strcmp(argv[0], "help") == 0) {
        fputs(usage, stdout);
        return EXIT_OK;
    }
    if (strcmp(argv[0], "export") != 0) {
        fprintf(stderr, "t4 wal: there is no \"%.128s\"\n  write t4 wal export\n",
                argv[0]);
        return EXIT_USAGE;
    }
    if (read_words(&w, argc - 1, argv + 1, environment, &error) != T4_OK) {
        complain(error.message, error.hint);
        return EXIT_USAGE;
    }
    if (!w.help)
        return run_export(&w);
    fputs(usage, stdout);
    return EXIT_OK;
}

/*
 * inspect_command.c - t4 inspect meta, list, get, count, history, diff.
 *
 * Of a data directory (inspect/), also while a server has it open, or of a server by its API
 * (inspect_remote.c).  Nothing is written but standard output and error.
 *
 * Runs on: the main thread.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "base/report.h"
#include "inspect/inspect.h"
#include "plugin/plugin.h"
#include "server/client_command.h"
#include "server/inspect_remote.h"
#include "server/inspect_rows.h"
#include "server/kv_words.h"
#include "server/run.h"

static const char usage[] =
    "t4 inspect - look into a data directory, or into a server\n"
    "\n"
    "Usage: t4 inspect meta    SOURCE\n"
    "       t4 inspect list    SOURCE [--prefix=P] [--rev=R] [--limit=N] [PREFIX]\n"
    "       t4 inspect get     SOURCE [--rev=R] KEY\n"
    "       t4 inspect count   SOURCE [--prefix=P] [--rev=R]\n"
    "       t4 inspect history SOURCE [--limit=N] KEY\n"
    "       t4 inspect diff    SOURCE [--prefix=P] [--from-rev=A] [--to-rev=B]\n"
    "\n"
    "SOURCE is one of:\n"
    "  --data-dir=DIR        a data directory; a server may have it open (T4_DATA_DIR)\n"
    "  --endpoint=ENDPOINT   a server: host:port, http://host:port or unix:PATH\n"
    "\n"
    "  --prefix=PREFIX       only keys that begin so\n"
    "  --rev=REVISION        as it was at that revision (default: now)\n"
    "  --from-rev=REVISION   what changed behind that revision (default: the oldest)\n"
    "  --to-rev=REVISION     up to that one (default: now)\n"
    "  --limit=N             at most N rows (default 100; 0: all)\n"
    "  --base64              KEY and PREFIX are written in base64\n"
    "  --json                one JSON object per line instead of a table\n"
    "  --storage-engine=NAME, --plugin-dir=DIR\n"
    "                        as of t4 run\n"
    "  --command-timeout=T   with --endpoint: how long to wait for an answer (default "
    "5s)\n"
    "\n"
    "Status: 0, 1 when there is nothing of that kind or it cannot be read, 2 when the "
    "command\n"
    "is wrong.\n";

void
inspect_command_help(FILE *out)
{
    fputs(usage, out);
}

struct look {
    const char *command; /* "inspect get" */
    const char *data_dir, *endpoint, *engine, *plugin_dir, *prefix;
    int64_t revision, from, to, limit, timeout_ns;
    bool json, base64, help;
    struct pool pool;
    struct words words;

    /* One of the two. */
    struct inspection *inspection;
    struct plugin *plugin;
    struct client_queue *queue;
    struct remote remote;

    int64_t current, compacted;
    struct rows rows;
    bool cut; /* there was more than --limit */
};

static int
complain(const struct look *l, const struct error *error, int status)
{
    fflush(stdout);
    fprintf(stderr, "t4 %s: %s\n", l->command, error->message);
    if (error->hint[0] != '\0')
        fprintf(stderr, "  %s\n", error->hint);
    return status;
}

/* --- words -------------------------------------------------------------------------------------- */

static t4_status
read_words(struct look *l, int argc, char *const *argv, char *const *environment,
           struct error *error)
{
    const struct word_flag flags[] = {
        {"data-dir", 0, WORD_TEXT, &l->data_dir},
        {"endpoint", 0, WORD_TEXT, &l->endpoint},
        {"prefix", 0, WORD_TEXT, &l->prefix},
        {"rev", 0, WORD_INT, &l->revision},
        {"from-rev", 0, WORD_INT, &l->from},
        {"to-rev", 0, WORD_INT, &l->to},
        {"limit", 0, WORD_INT, &l->limit},
        {"base64", 0, WORD_SWITCH, &l->base64},
        {"json", 0, WORD_SWITCH, &l->json},
        {"storage-engine", 0, WORD_TEXT, &l->engine},
        {"plugin-dir", 0, WORD_TEXT, &l->plugin_dir},
        {"command-timeout", 0, WORD_DURATION, &l->timeout_ns},
        {"help", 'h', WORD_SWITCH, &l->help},
    };
    t4_status status = words_parse(flags, sizeof flags / sizeof flags[0], argc, argv,
                                   &l->pool, &l->words, error);

    if (status != T4_OK || l->help)
        return status;
    for (; *environment != NULL && l->data_dir == NULL && l->endpoint == NULL;
         environment++)
        if (strncmp(*environment, "T4_DATA_DIR=", 12) == 0 && (*environment)[12] != '\0')
            l->data_dir = *environment + 12;
    if (l->data_dir == NULL && l->endpoint == NULL) {
        error_set(error, T4_E_INVALID, "of what?");
        return error_hint(error, "give --data-dir=DIR, or --endpoint=HOST:PORT");
    }
    if (l->data_dir != NULL && l->endpoint != NULL) {
        error_set(error, T4_E_INVALID, "--data-dir and --endpoint exclude each other");
        return error_hint(error, "choose one");
    }
    if (l->limit < 0) {
        error_set(error, T4_E_INVALID, "--limit takes no %lld", (long long)l->limit);
        return error_hint(error, "it takes a number of rows, 0 for all");
    }
    return T4_OK;
}

static int
digit_of(char c)
{
    static const char digits[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const char *p = c == '\0' ? NULL : strchr(digits, c);

    return p == NULL ? -1 : (int)(p - digits);
}

/* A key or prefix as it was written; in base64 with --base64.  False: it is none. */
static bool
read_bytes(struct look *l, const char *text, struct t4_slice *out)
{
    size_t n = strlen(text), used = 0;
    uint8_t *bytes;
    uint32_t bits = 0;

    *out = slice_str(text);
    if (!l->base64)
        return true;
    bytes = pool_alloc(&l->pool, n + 1);
    while (n > 0 && text[n - 1] == '=')
        n--;
    for (size_t i = 0; i < n; i++) {
        int d = digit_of(text[i]);

        if (d < 0)
            return false;
        bits = bits << 6 | (uint32_t)d;
        if (i % 4 != 0)
            bytes[used++] = (uint8_t)(bits >> (6 - i % 4 * 2));
    }
    *out = slice_of(bytes, used);
    return n % 4 != 1;
}

/* The one word that a command takes; it stays NULL where it may be missing. */
static t4_status
read_key(struct look *l, const char *what, bool needed, const char **word,
         struct error *error)
{
    if (l->words.n > 1 || (l->words.n == 0 && needed)) {
        if (l->words.n > 1)
            error_set(error, T4_E_INVALID, "\"%.64s\" is a word too many",
                      l->words.word[1]);
        else
            error_set(error, T4_E_INVALID, "of which %s?", what);
        return error_hint(error, "write t4 %s %s", l->command, what);
    }
    if (l->words.n == 1)
        *word = l->words.word[0];
    return T4_OK;
}

static t4_status
no_words(struct look *l, struct error *error)
{
    if (l->words.n == 0)
        return T4_OK;
    error_set(error, T4_E_INVALID, "it takes no \"%.64s\"", l->words.word[0]);
    return error_hint(error, "t4 inspect --help shows the flags");
}

static t4_status
bytes_of(struct look *l, const char *text, struct t4_slice *out, struct error *error)
{
    if (read_bytes(l, text, out))
        return T4_OK;
    error_set(error, T4_E_INVALID, "\"%.64s\" is not base64", text);
    return error_hint(error, "with --base64 keys and prefixes are written so");
}

/* [lo, hi) of --prefix. */
static t4_status
range_of(struct look *l, struct t4_slice *lo, struct t4_slice *hi, struct error *error)
{
    ProtobufCBinaryData key, end;
    t4_status status;

    *lo = *hi = slice_of(NULL, 0);
    if (l->prefix == NULL || l->prefix[0] == '\0')
        return T4_OK;
    status = bytes_of(l, l->prefix, lo, error);
    if (status != T4_OK)
        return status;
    key = (ProtobufCBinaryData){lo->len, (uint8_t *)(uintptr_t)lo->data};
    range_of_prefix(&l->pool, &key, &end);
    if (end.len > 1 || end.data[0] != 0)
        *hi = slice_of(end.data, end.len);
    return T4_OK;
}

/* --- the source ------------------------------------------------------------------------------------ */

static t4_status
open_directory(struct look *l, struct error *error)
{
    struct t4_engine_ops ops;
    struct inspection_options options = {
        .env = env_posix(), .data_dir = l->data_dir, .engine_name = l->engine};
    t4_status status = T4_OK;

    if (strcmp(l->engine, "memory") != 0) {
        status = plugin_load(l->plugin_dir, l->engine, NULL, 0, &l->plugin, error);
        if (status == T4_OK)
            status = plugin_role(l->plugin, T4_ROLE_ENGINE, l->engine, &ops, sizeof ops,
                                 error);
        if (status != T4_OK)
            return status;
        options.engine_ops = &ops;
        options.engine_plugin = plugin_state(l->plugin);
    }
    status = inspection_open(&options, &l->inspection, error);
    if (status == T4_OK) {
        l->current = inspection_facts(l->inspection)->revision;
        l->compacted = inspection_facts(l->inspection)->compacted;
    }
    return status;
}

static t4_status
open_server(struct look *l, struct error *error)
{
    t4_status status;

    l->queue = client_queue_new();
    status = client_make(l->queue, l->endpoint, &l->remote.client, error);
    if (status != T4_OK)
        return status;
    l->remote.timeout_ns = (uint64_t)l->timeout_ns;
    status = remote_begin(&l->remote, error);
    l->current = l->remote.revision;
    l->compacted = l->remote.compacted;
    return status;
}

static t4_status
open_source(struct look *l, struct error *error)
{
    return l->data_dir != NULL ? open_directory(l, error) : open_server(l, error);
}

static void
close_source(struct look *l)
{
    inspection_close(l->inspection);
    if (l->plugin != NULL)
        plugin_unload(l->plugin);
    remote_end(&l->remote);
    client_free(l->remote.client);
    client_queue_free(l->queue);
    pool_free(&l->pool);
}

/* Of a command that takes one KEY: reads it, written as *word, and opens the source. */
static t4_status
begin_with_key(struct look *l, const char **word, struct t4_slice *key,
               struct error *error)
{
    t4_status status = read_key(l, "KEY", true, word, error);

    if (status == T4_OK)
        status = bytes_of(l, *word, key, error);
    return status == T4_OK ? open_source(l, error) : status;
}

/* Of a command that takes no word, and a range by --prefix. */
static t4_status
begin_with_range(struct look *l, struct t4_slice *lo, struct t4_slice *hi,
                 struct error *error)
{
    t4_status status = no_words(l, error);

    if (status == T4_OK)
        status = range_of(l, lo, hi, error);
    return status == T4_OK ? open_source(l, error) : status;
}

/* Entries that others may not have agreed to are shown, but not silently. */
static void
warn_uncommitted(const struct look *l)
{
    const struct inspection_facts *f;

    if (l->inspection == NULL)
        return;
    f = inspection_facts(l->inspection);
    if (f->uncommitted_from > 0)
        fprintf(stderr,
                "t4 %s: log entries %" PRIu64 " to %" PRIu64
                " are included; whether they are committed only the object store knows\n",
                l->command, f->uncommitted_from, f->index);
}

static t4_status
keys(struct look *l, struct t4_slice lo, struct t4_slice hi, inspect_version_fn *give,
     void *arg, struct error *error)
{
    t4_status status =
        inspect_check_revision("--rev", l->current, l->compacted, &l->revision, error);

    if (status != T4_OK)
        return status;
    return l->inspection != NULL
               ? inspection_keys(l->inspection, lo, hi, l->revision, give, arg, error)
               : remote_keys(&l->remote, lo, hi, l->revision, give, arg, error);
}

/* --- list and get ------------------------------------------------------------------------------------- */

/* True: one more may come.  --limit rows, and one more to know that there is more. */
static bool
may_give(struct look *l)
{
    l->cut = l->limit > 0 && l->rows.count == (uint64_t)l->limit;
    return !l->cut && !ferror(stdout);
}

static bool
give_version(void *arg, const struct inspected_version *v)
{
    struct look *l = arg;

    if (!may_give(l))
        return false;
    rows_version(&l->rows, v);
    return true;
}

static void
end_rows(struct look *l)
{
    rows_end(&l->rows);
    fflush(stdout);
    if (l->cut)
        fprintf(stderr, "t4 %s: there is more; --limit=0 shows all\n", l->command);
}

static t4_status
list(struct look *l, struct error *error)
{
    const char *word = NULL;
    struct t4_slice lo, hi;
    t4_status status = read_key(l, "PREFIX", false, &word, error);

    if (status == T4_OK && word != NULL && l->prefix != NULL) {
        error_set(error, T4_E_INVALID, "the prefix is given twice");
        error_hint(error, "leave \"%.64s\" or --prefix out", word);
        status = T4_E_INVALID;
    }
    if (word != NULL)
        l->prefix = word;
    if (status == T4_OK)
        status = range_of(l, &lo, &hi, error);
    if (status == T4_OK)
        status = open_source(l, error);
    if (status != T4_OK)
        return status;
    rows_begin_versions(&l->rows, l->json);
    status = keys(l, lo, hi, give_version, l, error);
    if (status == T4_OK)
        end_rows(l);
    return status;
}

static bool
give_one(void *arg, const struct inspected_version *v)
{
    struct look *l = arg;
    struct report r = {0};
    struct rows row;

    if (l->json) {
        rows_begin_versions(&row, true);
        rows_version(&row, v);
    } else {
        report_i64(&r, "revision", "revision", v->revision);
        report_i64(&r, "create_revision", "create revision", v->create_revision);
        report_i64(&r, "version", "version", v->version);
        report_hex(&r, "lease", "lease", (uint64_t)v->lease);
        report_u64(&r, "bytes", "value's bytes", v->value.len);
        fwrite(r.lines.data, 1, r.lines.len, stdout);
        fputs("value\n", stdout);
        if (v->value.len > 0)
            fwrite(v->value.data, 1, v->value.len, stdout);
        putchar('\n');
        report_free(&r);
    }
    l->rows.count++;
    return false;
}

static t4_status
get(struct look *l, struct error *error)
{
    const char *word = NULL;
    struct buffer end = {0};
    struct t4_slice key;
    t4_status status = begin_with_key(l, &word, &key, error);

    if (status != T4_OK)
        return status;
    buffer_append_slice(&end, key);
    buffer_append_u8(&end, 0);
    status = keys(l, key, buffer_slice(&end), give_one, l, error);
    buffer_free(&end);
    if (status != T4_OK || l->rows.count > 0)
        return status;
    error_set(error, T4_E_NOTFOUND, "at revision %lld there is no key \"%.128s\"",
              (long long)l->revision, word);
    return error_hint(error, "t4 inspect history shows whether it was there");
}

/* --- count --------------------------------------------------------------------------------------------- */

static bool
count_one(void *arg, const struct inspected_version *v)
{
    uint64_t *n = arg;

    (void)v;
    ++*n;
    return true;
}

static t4_status
count(struct look *l, struct error *error)
{
    struct t4_slice lo, hi;
    uint64_t n = 0;
    t4_status status = begin_with_range(l, &lo, &hi, error);

    if (status == T4_OK && l->inspection != NULL)
        status = keys(l, lo, hi, count_one, &n, error);
    else if (status == T4_OK) {
        status = inspect_check_revision("--rev", l->current, l->compacted, &l->revision,
                                        error);
        if (status == T4_OK)
            status = remote_count(&l->remote, lo, hi, l->revision, &n, error);
    }
    if (status == T4_OK)
        printf(l->json ? "{\"count\":%" PRIu64 ",\"revision\":%" PRId64 "}\n"
                       : "%" PRIu64 "\n",
               n, l->revision);
    return status;
}

/* --- history and diff ---------------------------------------------------------------------------------- */

static bool
give_history(void *arg, const struct inspected_version *v)
{
    struct look *l = arg;

    if (!may_give(l))
        return false;
    rows_history(&l->rows, v);
    return true;
}

static t4_status
history(struct look *l, struct error *error)
{
    const char *word = NULL;
    struct t4_slice key;
    t4_status status = begin_with_key(l, &word, &key, error);

    if (status != T4_OK)
        return status;
    rows_begin_history(&l->rows, l->json);
    if (l->inspection != NULL)
        status = inspection_history(l->inspection, key, give_history, l, error);
    else /* one more, to know that there is more */
        status =
            remote_history(&l->remote, key, l->limit == 0 ? 0 : (uint64_t)l->limit + 1,
                           give_history, l, error);
    if (status == T4_OK)
        end_rows(l);
    return status;
}

static bool
give_change(void *arg, const struct inspected_change *c)
{
    struct look *l = arg;

    if (!may_give(l))
        return false;
    rows_change(&l->rows, c);
    return true;
}

static t4_status
diff(struct look *l, struct error *error)
{
    struct t4_slice lo, hi;
    t4_status status = begin_with_range(l, &lo, &hi, error);

    if (status != T4_OK)
        return status;
    if (l->from <= 0)
        l->from = l->compacted > 1 ? l->compacted : 1;
    status =
        inspect_check_revision("--from-rev", l->current, l->compacted, &l->from, error);
    if (status == T4_OK)
        status =
            inspect_check_revision("--to-rev", l->current, l->compacted, &l->to, error);
    if (status == T4_OK && l->from > l->to) {
        error_set(error, T4_E_INVALID, "--from-rev=%lld is above --to-rev=%lld",
                  (long long)l->from, (long long)l->to);
        error_hint(error, "the smaller one comes first");
        status = T4_E_INVALID;
    }
    if (status != T4_OK)
        return status;
    rows_begin_changes(&l->rows, l->json);
    status = l->inspection != NULL
                 ? inspection_diff(l->inspection, lo, hi, l->from, l->to, give_change, l,
                                   error)
                 : remote_diff(&l->remote, lo, hi, l->from, l->to, give_change, l, error);
    if (status == T4_OK)
        end_rows(l);
    return status;
}

/* --- meta ------------------------------------------------------------------------------------------------ */

static t4_status
report_directory(struct look *l, struct report *r, struct error *error)
{
    const struct inspection_facts *f = inspection_facts(l->inspection);
    const struct node_directory_view *d = &f->directory;
    uint64_t n_keys = 0, n_versions = 0;
    t4_status status = T4_OK;

    report_text(r, "data_dir", "data directory", l->data_dir);
    report_hex(r, "cluster_id", "cluster", d->cluster_id);
    report_hex(r, "member_id", "member", d->member_id);
    report_hex(r, "lineage", "lineage", d->lineage);
    report_u64(r, "generation", "generation", f->generation);
    report_bool(r, "copied", d->copied ? "is a copy" : NULL, d->copied);
    report_u64(r, "term", "term", f->term);
    report_u64(r, "index", "index", f->index);
    report_i64(r, "revision", "revision", f->revision);
    report_i64(r, "compacted_revision", "compacted revision",
               f->compacted > 0 ? f->compacted : 0);
    report_bool(r, "complete", f->hydrating ? "complete" : NULL, !f->hydrating);
    if (f->hydrating) {
        report_i64(r, "checkpoint_revision", "checkpoint's revision",
                   f->checkpoint_revision);
        report_u64(r, "parts", "parts of it", f->units);
        report_u64(r, "parts_there", "parts on the disk", f->units_done);
    } else {
        status = inspection_count(l->inspection, &n_keys, &n_versions, error);
        report_u64(r, "keys", "keys", n_keys);
        report_u64(r, "versions", "versions", n_versions);
    }
    if (f->uncommitted_from > 0)
        report_u64(r, "uncommitted_from_index", "perhaps uncommitted from",
                   f->uncommitted_from);
    report_text(r, "engine", "storage engine", l->engine);
    report_u64(r, "engine_index", "engine's index", f->flushed);
    report_u64(r, "engine_bytes", "engine's bytes", f->engine.file_bytes);
    report_u64(r, "engine_bytes_in_use", "engine's bytes in use", f->engine.in_use_bytes);
    report_u64(r, "log_segments", "log segments", f->log_segments);
    report_u64(r, "log_bytes", "log's bytes", f->log_bytes);
    if (d->memory.built_in)
        report_text(r, "object_store", "object store", "built in");
    else
        report_text(r, "object_store", "object store",
                    d->memory.url[0] != '\0' ? d->memory.url : "built in, not used yet");
    return status;
}

static t4_status
report_server(struct look *l, struct report *r, struct error *error)
{
    const Etcdserverpb__StatusResponse *s = l->remote.status;
    const Etcdserverpb__ResponseHeader *h = s->header;
    uint64_t n_keys = 0;
    t4_status status = remote_count(&l->remote, slice_of(NULL, 0), slice_of(NULL, 0),
                                    l->current, &n_keys, error);

    report_text(r, "endpoint", "endpoint", l->endpoint);
    report_text(r, "version", "etcd API", s->version);
    report_hex(r, "cluster_id", "cluster", h != NULL ? h->cluster_id : 0);
    report_hex(r, "member_id", "member", h != NULL ? h->member_id : 0);
    report_hex(r, "leader_id", "leader", s->leader);
    report_u64(r, "term", "term", s->raftterm);
    report_u64(r, "index", "index", s->raftindex);
    report_i64(r, "revision", "revision", l->current);
    report_i64(r, "compacted_revision", "compacted revision",
               l->compacted > 0 ? l->compacted : 0);
    report_u64(r, "keys", "keys", n_keys);
    report_i64(r, "bytes", "bytes", s->dbsize);
    report_i64(r, "bytes_in_use", "bytes in use", s->dbsizeinuse);
    for (size_t i = 0; i < s->n_errors; i++)
        report_text(r, i == 0 ? "error" : "other_error", "error", s->errors[i]);
    return status;
}

static t4_status
meta(struct look *l, struct error *error)
{
    struct report r = {0};
    t4_status status = no_words(l, error);

    if (status == T4_OK)
        status = open_source(l, error);
    if (status == T4_OK)
        status = l->inspection != NULL ? report_directory(l, &r, error)
                                       : report_server(l, &r, error);
    if (status == T4_OK) {
        const struct buffer *b = l->json ? &r.json : &r.lines;

        report_end(&r);
        fwrite(b->data, 1, b->len, stdout);
    }
    report_free(&r);
    return status;
}

/* --- the command ------------------------------------------------------------------------------------------ */

static int
run(const char *command, t4_status (*look)(struct look *, struct error *), int argc,
    char *const *argv, char *const *environment)
{
    struct look l = {.command = command,
                     .engine = "lmdb",
                     .limit = 100,
                     .timeout_ns = INT64_C(5000000000)};
    struct error error = {0};
    int code = EXIT_OK;
    t4_status status = read_words(&l, argc, argv, environment, &error);

    if (status != T4_OK) {
        code = complain(&l, &error, EXIT_USAGE);
    } else if (l.help) {
        fputs(usage, stdout);
    } else {
        status = look(&l, &error);
        /* What is wrong with the words themselves is found before anything was opened. */
        if (status != T4_OK)
            code = complain(&l, &error,
                            l.inspection == NULL && l.remote.client == NULL &&
                                    l.plugin == NULL && status == T4_E_INVALID
                                ? EXIT_USAGE
                                : EXIT_FAILED);
        else
            warn_uncommitted(&l);
    }
    close_source(&l);
    return code;
}

#define SUBCOMMAND(name)                                                                 \
    static int run_##name(int argc, char *const *argv, char *const *environment)         \
    {                                                                                    \
        return run("inspect " #name, name, argc, argv, environment);                     \
    }
SUBCOMMAND(meta)
SUBCOMMAND(list)
SUBCOMMAND(get)
SUBCOMMAND(count)
SUBCOMMAND(history)
SUBCOMMAND(diff)

int
inspect_command(int argc, char *const *argv, char *const *environment)
{
    static const struct subcommand table[] = {
        {"meta", run_meta},   {"list", run_list},       {"get", run_get},
        {"count", run_count}, {"history", run_history}, {"diff", run_diff},
    };

    return run_subcommand("inspect", table, sizeof table / sizeof table[0], usage, argc,
                          argv, environment);
}

/*
 * gc_command.c - t4 gc.
 *
 * The leader removes garbage by itself; this is for what is left where no leader runs, and for
 * looking at what a round would do.  It takes no lock and writes nothing, so it deletes only what
 * the manifest does not reach and what is older than its newest checkpoint or of a lower term: no
 * server, however slow, can come to need that again.
 *
 * Entry points: gc_command(), gc_command_help().  Runs on: the main thread.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "server/gc_command.h"

#include <inttypes.h>
#include <string.h>

#include "backends/built_in_store.h"
#include "checkpoint/checkpoint.h"
#include "env/env.h"
#include "server/options.h"
#include "server/run.h"

#define TIMEOUT_NS UINT64_C(20000000000)
#define MAX_WORDS 256

static const char usage[] =
    "t4 gc - deletes from an object store what nothing needs any more\n"
    "\n"
    "Usage: t4 gc --object-store=URL [--dry-run] [--FLAG=VALUE]...\n"
    "       t4 gc --data-dir=DIR [--dry-run]\n"
    "\n"
    "  --object-store=URL    the store; the flags --s3-*, --gcs-*, --plugin-option and\n"
    "                        --plugin-dir of t4 run, and their variables, are taken, "
    "too\n"
    "  --data-dir=DIR        the built-in store of this data directory\n"
    "  --dry-run             only print what would be deleted, and which checkpoints "
    "the\n"
    "                        leader's next round would take off its list, by\n"
    "                        --history-retention\n"
    "\n"
    "The leader does all this by itself. The command takes no lock, and so never takes "
    "a\n"
    "checkpoint off the list.\n"
    "\n"
    "Status: 0, 1 when the store cannot be read or changed, 2 when the command is "
    "wrong.\n";

void
gc_command_help(FILE *out)
{
    fputs(usage, out);
}

static int
fail(const struct error *e, int status)
{
    fprintf(stderr, "t4 gc: %s\n", e->message);
    if (e->hint[0] != '\0')
        fprintf(stderr, "  %s\n", e->hint);
    return status;
}

/* --- what is printed ---------------------------------------------------------------------- */

static void
print_object(void *arg, const char *key, uint64_t bytes)
{
    const bool *dry_run = arg;

    (void)bytes;
    printf("%s %s\n", *dry_run ? "would delete" : "deleting", key);
}

static void
print_checkpoint(void *arg, const struct checkpoint_name *c)
{
    (void)arg;
    printf("would take off the list: checkpoint at index %" PRIu64 ", revision %" PRId64
           ", unix ms %" PRIu64 "\n",
           c->index, c->revision, c->time_ms);
}

static void
print_result(const struct gc_result *r, bool dry_run)
{
    if (r->pinned) {
        printf("nothing deleted: branches are registered below branches/\n");
        return;
    }
    printf("%s %" PRIu64 " objects, %" PRIu64 " bytes\n",
           dry_run ? "would delete" : "deleted", r->objects, r->bytes);
    printf(
        "left %" PRIu64 " objects, %" PRIu64
        " bytes, of checkpoints, runs, files and archives: needed, or too new to tell\n",
        r->kept, r->kept_bytes);
}

/* --- the command --------------------------------------------------------------------------- */

static int
collect(const struct run_options *o, const char *url, bool dry_run)
{
    struct object_options options = {.env = env_posix(),
                                     .plugin_dir = o->plugin_dir,
                                     .settings = o->store_settings,
                                     .n_settings = o->n_store_settings};
    struct gc_options gc = {.env = env_posix(),
                            .timeout_ns = TIMEOUT_NS,
                            .dry_run = dry_run,
                            .retention_ns = (uint64_t)o->history_retention_ns,
                            .arg = &dry_run,
                            .removing = print_object,
                            .retiring = print_checkpoint};
    struct gc_result result;
    struct error error = {0};
    t4_status status = object_open(url, &options, &gc.store, &error);

    if (status != T4_OK)
        return fail(&error, EXIT_FAILED);
    status = checkpoint_gc(&gc, &result, &error);
    if (status == T4_OK)
        print_result(&result, dry_run);
    object_close(gc.store);
    return status == T4_OK ? EXIT_OK : fail(&error, EXIT_FAILED);
}

static int
collect_built_in(const struct run_options *o, bool dry_run)
{
    struct buffer url = {0};
    struct error error = {0};
    int result;

    if (built_in_store_find(o->data_dir, &url, &error) != T4_OK)
        result = fail(&error, error.status == T4_E_NOTFOUND ? EXIT_USAGE : EXIT_FAILED);
    else
        result = collect(o, (const char *)url.data, dry_run);
    buffer_free(&url);
    return result;
}

int
gc_command(int argc, char *const *argv, char *const *environment)
{
    char *words[MAX_WORDS];
    struct run_options options;
    struct error error = {0};
    bool dry_run = false;
    int n = 0, status;

    for (int i = 0; i < argc && n < MAX_WORDS; i++) {
        if (strcmp(argv[i], "--dry-run") == 0)
            dry_run = true;
        else
            words[n++] = argv[i];
    }
    if (run_options_parse(n, words, environment, &options, &error) != T4_OK) {
        status = fail(&error, EXIT_USAGE);
    } else if (options.help) {
        gc_command_help(stdout);
        status = EXIT_OK;
    } else if (options.object_store != NULL) {
        status = collect(&options, options.object_store, dry_run);
    } else {
        status = collect_built_in(&options, dry_run);
    }
    run_options_free(&options);
    return status;
}

/*
 * snapshot_status.c - t4 snapshot status: what a snapshot file of t4 or etcd holds.
 *
 * Entry point: snapshot_status_command().  Runs on: the main thread.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "server/snapshot_status.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/report.h"
#include "env/env.h"
#include "server/client_command.h"
#include "server/run.h"
#include "snapshot/restore.h"

struct arguments {
    const char *file, *tmp;
    bool json, skip_hash_check;
};

static int
fail(const struct error *e)
{
    fprintf(stderr, "t4 snapshot status: %s\n", e->message);
    if (e->hint[0] != '\0')
        fprintf(stderr, "  %s\n", e->hint);
    return EXIT_FAILED;
}

static int
wrong(const char *what, const char *word)
{
    fprintf(stderr,
            "t4 snapshot status: %s%.64s\n  t4 help snapshot says how it is used\n", what,
            word);
    return EXIT_USAGE;
}

static int
status(const struct arguments *w)
{
    struct snapshot_status sum = {0};
    struct snapshot_file *f;
    struct report r = {0};
    struct error error = {0};
    t4_status st = snapshot_open(env_posix(), w->file, w->skip_hash_check, &f, &error);

    if (st == T4_OK)
        st = snapshot_status(f, w->tmp, &sum, &error);
    snapshot_close(f);
    if (st != T4_OK) {
        error_wrap(&error, "%s", w->file);
        return fail(&error);
    }
    if (!w->json) { /* etcdutl shows it like that to people */
        char hash[16];

        snprintf(hash, sizeof hash, "%08" PRIx32, sum.hash);
        report_text(&r, "hash", "hash", hash);
    } else {
        report_u64(&r, "hash", NULL, sum.hash);
    }
    report_i64(&r, "revision", "revision", sum.revision);
    report_u64(&r, "totalKey", "keys", sum.keys);
    report_u64(&r, "totalSize", "bytes", sum.bytes);
    report_text(&r, "version", "storage version", sum.version);
    report_end(&r);
    fwrite(w->json ? r.json.data : r.lines.data, 1, w->json ? r.json.len : r.lines.len,
           stdout);
    report_free(&r);
    return EXIT_OK;
}

int
snapshot_status_command(int argc, char *const *argv, char *const *environment)
{
    struct arguments w = {.tmp = getenv("TMPDIR")};

    (void)environment;
    if (w.tmp == NULL || w.tmp[0] == '\0')
        w.tmp = "/tmp";
    for (int i = 0; i < argc; i++) {
        if (strcmp(argv[i], "--json") == 0) {
            w.json = true;
        } else if (strcmp(argv[i], "--skip-hash-check") == 0) {
            w.skip_hash_check = true;
        } else if (strncmp(argv[i], "--tmp=", 6) == 0) {
            w.tmp = argv[i] + 6;
        } else if (strcmp(argv[i], "--help") == 0) {
            snapshot_command_help(stdout);
            return EXIT_OK;
        } else if (argv[i][0] == '-') {
            return wrong("there is no flag ", argv[i]);
        } else if (w.file != NULL) {
            return wrong("there is one file too many: ", argv[i]);
        } else {
            w.file = argv[i];
        }
    }
    return w.file != NULL ? status(&w) : wrong("the FILE is missing", "");
}

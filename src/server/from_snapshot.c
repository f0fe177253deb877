/*
 * from_snapshot.c - `t4 run --from-snapshot`: what may be in the data directory, and the note
 * that says what it was begun from.
 *
 * The state goes into the store (snapshot/restore.c); what follows is the start of a server that has
 * lost its disk.  <data>/restored, a text record, is written when the store holds everything: a
 * start that is given the same snapshot again is an ordinary one then.
 *
 * Main thread.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "server/from_snapshot.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "base/memory.h"
#include "env/file.h"
#include "fmt/text.h"
#include "node/node.h"
#include "snapshot/restore.h"
#include "sort/sort.h"

#define NOTE "restored"
#define NOTE_MAX 4096
#define NOTE_FORMAT 1

struct beginning {
    const struct run_options *options;
    struct env *env;
    const uint8_t *sha256; /* of the snapshot given */
    bool has_note;
    uint8_t noted[SHA256_BYTES];
    char other_name[64]; /* first thing in the directory that no restore makes; "" */
};

/* --- the note ----------------------------------------------------------------------------- */

static void
note_text(void *arg, const struct env_stat *st, struct buffer *text)
{
    const struct beginning *b = arg;

    (void)st;
    text_begin(text, "t4-restored", NOTE_FORMAT);
    text_bytes(text, "snapshot", b->sha256, SHA256_BYTES);
    text_string(text, "source", b->options->from_snapshot);
    text_end(text);
}

static t4_status
write_note(void *arg, struct error *error)
{
    struct beginning *b = arg;

    return env_replace_file(b->env, b->options->data_dir, NOTE, note_text, b, error);
}

static void
read_note(struct beginning *b)
{
    char *path = env_path(b->options->data_dir, NOTE);
    char text[NOTE_MAX], source[NOTE_MAX];
    struct env_file *file;
    struct text_reader r;
    unsigned format;
    size_t got = 0;

    if (b->env->open(b->env->state, path, ENV_READONLY, &file, NULL) == T4_OK) {
        b->env->pread(b->env->state, file, text, sizeof text, 0, &got, NULL);
        b->env->close(b->env->state, file);
        text_open(&r, slice_of(text, got), "t4-restored", &format);
        text_read_bytes(&r, "snapshot", b->noted, SHA256_BYTES);
        text_read_string(&r, "source", source, sizeof source);
        b->has_note = text_close(&r);
    }
    mem_free(path);
}

/* --- the data directory -------------------------------------------------------------------- */

static void
look_at_name(void *arg, const char *name)
{
    static const char *const ours[] = {"lock", "store", "tmp", NOTE, NOTE ".new"};
    struct beginning *b = arg;

    for (size_t i = 0; i < sizeof ours / sizeof ours[0]; i++)
        if (strcmp(name, ours[i]) == 0)
            return;
    if (b->other_name[0] == '\0')
        snprintf(b->other_name, sizeof b->other_name, "%s", name);
}

static t4_status
not_empty(const struct beginning *b, struct error *error)
{
    error_set(
        error, T4_E_INVALID,
        "the data directory %s is not empty (%s): a snapshot is restored into an empty "
        "one",
        b->options->data_dir, b->other_name);
    return error_hint(error, "to start with what it holds leave out --from-snapshot; to "
                             "begin from the snapshot give another --data-dir");
}

static t4_status
begun_from_another(const struct beginning *b, struct error *error)
{
    error_set(error, T4_E_INVALID,
              "the data directory %s was begun from another snapshot than %s",
              b->options->data_dir, b->options->from_snapshot);
    return error_hint(error, "to start with what it holds leave out --from-snapshot; to "
                             "begin from this snapshot give another --data-dir");
}

/* --- the restore --------------------------------------------------------------------------- */

static void
say_restored(const struct run_options *o, const struct snapshot_restored *r)
{
    char revision[24], compacted[24], records[24], leases[24];

    snprintf(revision, sizeof revision, "%" PRId64, r->revision);
    snprintf(compacted, sizeof compacted, "%" PRId64, r->compacted);
    snprintf(records, sizeof records, "%" PRIu64, r->records);
    snprintf(leases, sizeof leases, "%" PRIu64, r->leases);
    if (r->was_stored)
        LOG_INFO("an earlier start had restored the snapshot", "snapshot",
                 o->from_snapshot, NULL);
    else
        LOG_INFO("restored the snapshot", "snapshot", o->from_snapshot, "revision",
                 revision, "compacted_revision", compacted, "records", records, "leases",
                 leases, NULL);
    if (r->had_users)
        LOG_WARN(
            "the snapshot has users and roles, not in force; they were not taken over",
            NULL);
}

static t4_status
restore(struct beginning *b, struct snapshot_file *f, struct object_store *store,
        struct error *error)
{
    const struct run_options *o = b->options;
    char *dir = env_path(o->data_dir, "tmp");
    struct snapshot_restore_options options = {
        .env = b->env,
        .store = store,
        .dir = dir,
        .source = o->from_snapshot,
        .address = o->advertise_client_urls,
        .rule = o->object_store != NULL && o->wal_sync_upload ? RULE_OBJECT : RULE_LOCAL,
        .timeout_ns = (uint64_t)o->store_timeout_ns,
        .noted = b->has_note,
        .stored = write_note,
        .arg = b,
    };
    struct snapshot_restored result;
    t4_status status = temporary_clean(b->env, dir, error);

    LOG_INFO("restoring a snapshot", "snapshot", o->from_snapshot, "store",
             object_url(store), NULL);
    if (status == T4_OK)
        status = snapshot_restore(f, &options, &result, error);
    if (status == T4_OK)
        say_restored(o, &result);
    mem_free(dir);
    return status;
}

/* The directory is held; nobody else begins in it. */
static t4_status
begin(struct beginning *b, struct snapshot_file *f, struct object_store *store,
      struct error *error)
{
    const struct run_options *o = b->options;
    t4_status status = b->env->list(b->env->state, o->data_dir, look_at_name, b, error);

    if (status != T4_OK)
        return status;
    read_note(b);
    b->sha256 = f != NULL ? snapshot_sha256(f) : NULL;
    if (!b->has_note && b->other_name[0] != '\0')
        return not_empty(b, error);
    if (!b->has_note && f == NULL)
        return T4_E_NOTFOUND;
    if (b->has_note && f != NULL && memcmp(b->noted, b->sha256, SHA256_BYTES) != 0)
        return begun_from_another(b, error);
    /* Nobody has served from here yet: a restore may have to be finished. */
    if (b->other_name[0] == '\0' && f != NULL)
        return restore(b, f, store, error);
    LOG_WARN("--from-snapshot is ignored: the data directory was begun from it before",
             "snapshot", o->from_snapshot, NULL);
    return T4_OK;
}

t4_status
from_snapshot(const struct run_options *o, struct object_store *store,
              struct error *error)
{
    struct beginning b = {.options = o, .env = env_posix()};
    struct snapshot_file *f;
    struct node_directory directory;
    struct error why = {0};
    t4_status opened =
        snapshot_open(b.env, o->from_snapshot, o->skip_hash_check != 0, &f, &why);
    t4_status status = node_directory_hold(b.env, o->data_dir, &directory, error);

    if (opened != T4_OK)
        error_wrap(&why, "the snapshot %s", o->from_snapshot);
    if (status == T4_OK) {
        status = begin(&b, f, store, error);
        node_directory_release(&directory);
    }
    snapshot_close(f);
    /* Needed, and it cannot be had. */
    if (status == T4_E_NOTFOUND && opened != T4_OK) {
        *error = why;
        return opened;
    }
    return status;
}

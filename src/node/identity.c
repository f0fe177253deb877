/*
 * identity.c - who a data directory is.
 *
 * File <data>/identity, written once: a text record (fmt/text.h).  It names the cluster, the
 * lineage and this directory's own id (the incarnation) together with the file's own inode and
 * file system: a copied directory carries the same text in another inode, so that it is found
 * out before it can pass for the original (design, section 2).  <data>/lock is held by flock for the
 * life of the process: one server per directory, and the proof of leadership of a single
 * node (I5).
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <stdio.h>
#include <stdlib.h>

#include "base/log.h"
#include "base/memory.h"
#include "env/file.h"
#include "fmt/text.h"
#include "node/node_int.h"

/*
 * The format of the whole data directory: raised when an older server would misread what this one
 * may write anywhere in it.  An older directory is read, and raised once the start has succeeded.
 *   1  the first
 *   2  "version" comes first, in this format and in all later ones; alarms in the log
 */
#define FORMAT 2
#define FILE_MAX 1024
#define VERSION_BYTES 64

static t4_status
lock_directory(struct node *n, struct error *error)
{
    struct env *env = n->options.env;
    char *path = env_path(n->data_dir, "lock");
    t4_status status = env->open(env->state, path, ENV_CREATE, &n->lock_file, error);

    if (status == T4_OK) {
        status = env->lock(env->state, n->lock_file, error);
        if (status == T4_E_BUSY) {
            error_set(error, status, "another server uses the data directory %s",
                      n->data_dir);
            error_hint(error, "stop it, or give this one another --data-dir");
        }
    }
    mem_free(path);
    return status;
}

static uint64_t
random_id(struct env *env)
{
    uint64_t id = 0;

    while (id == 0)
        env->random(env->state, &id, sizeof id);
    return id;
}

/* These ids, standing in a file with this inode. */
static void
identity_text(void *arg, const struct env_stat *st, struct buffer *out)
{
    const struct identity *id = arg;

    text_begin(out, "t4-identity", FORMAT);
    text_string(out, "version", T4_VERSION);
    text_hex(out, "cluster", id->cluster_id);
    text_hex(out, "lineage", id->lineage);
    text_u64(out, "generation", id->generation);
    text_hex(out, "incarnation", id->incarnation);
    text_hex(out, "member", id->member_id);
    text_u64(out, "inode", st->inode);
    text_hex(out, "device", st->device);
    text_end(out);
}

t4_status
identity_write(struct node *n, struct error *error)
{
    t4_status status = env_replace_file(n->options.env, n->data_dir, "identity",
                                        identity_text, &n->identity, error);

    if (status != T4_OK)
        return status;
    if (n->identity.format != 0 && n->identity.format < FORMAT)
        LOG_INFO("the data directory has this version's format now; earlier versions "
                 "refuse it",
                 "data_dir", n->data_dir, "version", T4_VERSION, NULL);
    n->identity.format = FORMAT;
    n->identity.fresh = false;
    return T4_OK;
}

t4_status
identity_upgrade(struct node *n, struct error *error)
{
    return n->identity.format < FORMAT ? identity_write(n, error) : T4_OK;
}

/* It says who wrote it, if nothing else. */
static t4_status
refuse_newer(struct node *n, unsigned format, const char *version, struct error *error)
{
    error_set(
        error, T4_E_INVALID,
        "the data directory %s has format %u, written by t4 %s; this is t4 %s, which "
        "reads formats up to %d",
        n->data_dir, format, version, T4_VERSION, FORMAT);
    return error_hint(
        error,
        "start t4 %s or a later one on it; or begin with another --data-dir "
        "from a copy made before the upgrade or from the object store, if "
        "nothing later has written to that",
        version);
}

static t4_status
identity_parse(struct node *n, struct t4_slice text, struct env_stat *written,
               struct error *error)
{
    struct identity *id = &n->identity;
    char version[VERSION_BYTES] = "";
    struct text_reader r;

    text_open(&r, text, "t4-identity", &id->format);
    if (id->format >= 2)
        text_read_string(&r, "version", version, sizeof version);
    if (id->format > FORMAT)
        return refuse_newer(n, id->format, r.bad ? "(not known)" : version, error);
    id->cluster_id = text_read_hex(&r, "cluster");
    id->lineage = text_read_hex(&r, "lineage");
    id->generation = text_read_u64(&r, "generation");
    id->incarnation = text_read_hex(&r, "incarnation");
    id->member_id = text_read_hex(&r, "member");
    written->inode = text_read_u64(&r, "inode");
    written->device = text_read_hex(&r, "device");
    if (text_close(&r))
        return T4_OK;
    error_set(error, T4_E_CORRUPT, "the file %s/identity is damaged", n->data_dir);
    return error_hint(error, "restore it from a copy of the data directory; the ids also "
                             "stand in the headers of the log's segments");
}

/* Reads it, and finds out whether it is a copy. */
static t4_status
identity_look(struct node *n, struct env_file *file, const char *path,
              struct error *error)
{
    struct env *env = n->options.env;
    char text[FILE_MAX];
    struct env_stat now, written = {0};
    size_t got = 0;
    t4_status status = env->pread(env->state, file, text, FILE_MAX, 0, &got, error);

    if (status == T4_OK)
        status = env->stat(env->state, path, &now, error);
    if (status == T4_OK)
        status = identity_parse(n, slice_of(text, got), &written, error);
    if (status == T4_OK)
        n->identity.copied = now.inode != written.inode || now.device != written.device;
    return status;
}

static t4_status
identity_read(struct node *n, struct env_file *file, const char *path,
              struct error *error)
{
    struct env *env = n->options.env;
    t4_status status = identity_look(n, file, path, error);

    if (status != T4_OK || !n->identity.copied)
        return status;
    n->identity.copied = false;
    if (!n->options.moved) {
        error_set(
            error, T4_E_INVALID,
            "the data directory %s is a copy: its identity was written to another file "
            "system or inode",
            n->data_dir);
        return error_hint(
            error, "if the original is gone for good, start once with --moved; two "
                   "servers on copies of one directory would give out the same "
                   "revisions for different writes");
    }
    n->identity.incarnation = random_id(env);
    n->identity.copied = true;
    return identity_write(n, error);
}

t4_status
identity_open(struct node *n, struct error *error)
{
    struct env *env = n->options.env;
    struct env_file *file = NULL;
    char *path;
    t4_status status = env->mkdir(env->state, n->data_dir, error);

    if (status != T4_OK)
        return error_hint(error, "create the directory or give another --data-dir");
    status = lock_directory(n, error);
    if (status != T4_OK)
        return status;
    path = env_path(n->data_dir, "identity");
    status = env->open(env->state, path, ENV_READONLY, &file, NULL);
    if (status == T4_OK) {
        status = identity_read(n, file, path, error);
        env->close(env->state, file);
    } else if (status == T4_E_NOTFOUND) {
        n->identity = (struct identity){.cluster_id = random_id(env),
                                        .lineage = random_id(env),
                                        .generation = 1,
                                        .incarnation = random_id(env),
                                        .member_id = random_id(env),
                                        .fresh = true};
        status = T4_OK;
    } else {
        error_set(error, status, "cannot open %s: %s", path, status_text(status));
    }
    mem_free(path);
    return status;
}

void
identity_close(struct node *n)
{
    if (n->lock_file != NULL)
        n->options.env->close(n->options.env->state, n->lock_file);
    n->lock_file = NULL;
}

/* --- for commands ------------------------------------------------------------------------- */

t4_status
node_directory_hold(struct env *env, const char *data_dir, struct node_directory *out,
                    struct error *error)
{
    struct node *n = mem_zalloc(sizeof *n);
    t4_status status;

    *out = (struct node_directory){.env = env};
    n->options.env = env;
    n->data_dir = mem_strdup(data_dir);
    status = identity_open(n, error);
    out->lock = n->lock_file;
    if (status == T4_OK)
        status = leadership_recall(env, data_dir, &out->memory, error);
    if (status != T4_OK)
        node_directory_release(out);
    mem_free(n->data_dir);
    mem_free(n);
    return status;
}

void
node_directory_release(struct node_directory *d)
{
    if (d->lock != NULL)
        d->env->close(d->env->state, d->lock);
    d->lock = NULL;
}

t4_status
node_directory_look(struct env *env, const char *data_dir,
                    struct node_directory_view *out, struct error *error)
{
    struct node *n = mem_zalloc(sizeof *n);
    char *path = env_path(data_dir, "identity");
    struct env_file *file = NULL;
    struct env_stat st;
    t4_status status;

    *out = (struct node_directory_view){0};
    n->options.env = env;
    n->data_dir = (char *)(uintptr_t)data_dir;
    status = env->open(env->state, path, ENV_READONLY, &file, error);
    if (status == T4_OK) {
        status = identity_look(n, file, path, error);
        env->close(env->state, file);
    } else if (status == T4_E_NOTFOUND) {
        if (env->stat(env->state, data_dir, &st, NULL) == T4_OK)
            error_set(error, status, "%s is no data directory of t4: it has no identity",
                      data_dir);
        else
            error_set(error, status, "there is no directory %s", data_dir);
        error_hint(error, "--data-dir takes what the server was started with");
    }
    if (status == T4_OK)
        status = leadership_recall(env, data_dir, &out->memory, error);
    out->cluster_id = n->identity.cluster_id;
    out->lineage = n->identity.lineage;
    out->generation = n->identity.generation;
    out->incarnation = n->identity.incarnation;
    out->member_id = n->identity.member_id;
    out->copied = n->identity.copied;
    mem_free(path);
    mem_free(n);
    return status;
}

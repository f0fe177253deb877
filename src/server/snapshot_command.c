/*
 * snapshot_command.c - t4 snapshot: save FILE, the database of a server as a file.  (status:
 * snapshot_status.c.)
 *
 * What comes goes to FILE.part, which gets its name only when the SHA-256 at its end is right and
 * everything is on the disk.  So FILE is whole or is not there.
 *
 * Runs on: the main thread.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <libgen.h>
#include <string.h>
#include <unistd.h>

#include "codec/codec.h"
#include "server/client_command.h"
#include "server/run.h"
#include "server/snapshot_status.h"

#define HASH SHA256_BYTES
#define PAGE 512u /* the database's length is a multiple of it; the hash comes behind */

static const char usage[] =
    "t4 snapshot - the database of a server as a file\n"
    "\n"
    "Usage: t4 snapshot save [--FLAG=VALUE]... FILE\n"
    "       t4 snapshot status FILE [--json] [--skip-hash-check] [--tmp=DIR]\n"
    "\n"
    "save writes FILE.part first; FILE appears once all is there and its checksum is "
    "right.\n"
    "--command-timeout is how long nothing may come (default: for ever; a server sorts "
    "its\n"
    "whole history before it sends the first byte).\n"
    "\n"
    "status reads a file of t4 or of etcd 3.4 to 3.6, checks every page, and sums it up; "
    "it\n"
    "needs no server:\n"
    "  --json                one JSON object, as etcdutl snapshot status -w json\n"
    "  --skip-hash-check     the file has no hash at its end, or another one: the "
    "database\n"
    "                        file of an etcd member\n"
    "  --tmp=DIR             for temporary files; default: TMPDIR, else /tmp\n"
    "\n"
    "To begin with the state of a file: t4 run --from-snapshot=FILE.\n" CLIENT_HELP;

void
snapshot_command_help(FILE *out)
{
    fputs(usage, out);
}

struct saving {
    struct client_session *s;
    const char *path;
    char part[4096];
    int fd;
    struct sha256_stream *hash;
    uint8_t tail[HASH]; /* the newest bytes, not hashed yet */
    size_t tail_bytes;
    uint64_t bytes;
    char version[64];
};

static t4_status
system_error(struct error *error, const char *what, const char *path)
{
    return error_set(error, errno == ENOSPC ? T4_E_NOSPACE : T4_E_IO, "cannot %s %s: %s",
                     what, path, strerror(errno));
}

static t4_status
write_all(struct saving *v, const uint8_t *data, size_t n, struct error *error)
{
    while (n > 0) {
        ssize_t done = write(v->fd, data, n);

        if (done < 0 && errno == EINTR)
            continue;
        if (done < 0)
            return system_error(error, "write", v->part);
        data += done;
        n -= (size_t)done;
    }
    return T4_OK;
}

/* Hashes all but the last 32 bytes that came so far. */
static void
hash_but_tail(struct saving *v, const uint8_t *data, size_t n)
{
    size_t all = v->tail_bytes + n, out = all > HASH ? all - HASH : 0;
    size_t of_tail = out < v->tail_bytes ? out : v->tail_bytes;

    sha256_add(v->hash, slice_of(v->tail, of_tail));
    memmove(v->tail, v->tail + of_tail, v->tail_bytes - of_tail);
    v->tail_bytes -= of_tail;
    out -= of_tail;
    sha256_add(v->hash, slice_of(data, out));
    memcpy(v->tail + v->tail_bytes, data + out, n - out);
    v->tail_bytes += n - out;
}

static t4_status
receive(struct saving *v, struct client_stream *stream, struct error *error)
{
    for (;;) {
        Etcdserverpb__SnapshotResponse *r;
        t4_status status;
        uint64_t silence_ns = v->s->settings.timeout_given
                                  ? (uint64_t)v->s->settings.timeout_ns
                                  : CLIENT_FOREVER;
        int code = client_stream_receive(
            stream, &etcdserverpb__snapshot_response__descriptor, silence_ns, &r, error);

        if (r == NULL)
            return code == 0 ? T4_OK : error->status;
        if (r->version[0] != '\0')
            snprintf(v->version, sizeof v->version, "%s", r->version);
        v->bytes += r->blob.len;
        hash_but_tail(v, r->blob.data, r->blob.len);
        status = write_all(v, r->blob.data, r->blob.len, error);
        client_free_answer(r);
        if (status != T4_OK)
            return status;
        if (client_interrupted())
            return error_set(error, T4_E_CANCELLED, "interrupted");
    }
}

static t4_status
check(struct saving *v, struct error *error)
{
    uint8_t found[SHA256_BYTES];

    sha256_end(v->hash, found);
    if (v->bytes % PAGE == HASH && memcmp(found, v->tail, HASH) == 0)
        return T4_OK;
    error_set(error, T4_E_CORRUPT,
              "of the %" PRIu64 " bytes that came the checksum is wrong or missing",
              v->bytes);
    return error_hint(error, "try again; nothing was written to %s", v->path);
}

static t4_status
fetch(struct saving *v, struct error *error)
{
    Etcdserverpb__SnapshotRequest request = ETCDSERVERPB__SNAPSHOT_REQUEST__INIT;
    struct client_stream *stream;
    t4_status status = T4_OK;

    if (client_stream_open(v->s->client, "/etcdserverpb.Maintenance/Snapshot",
                           CLIENT_FOREVER, &stream, error) != 0)
        return error->status;
    if (client_stream_send(stream, &request, error) != 0 ||
        client_stream_send_end(stream, error) != 0)
        status = error->status;
    if (status == T4_OK)
        status = receive(v, stream, error);
    client_stream_close(stream);
    return status == T4_OK ? check(v, error) : status;
}

/* Makes the file durable under its name. */
static t4_status
finish(struct saving *v, struct error *error)
{
    char copy[sizeof v->part];
    t4_status status = T4_OK;
    int dir;

    if (fsync(v->fd) != 0)
        return system_error(error, "sync", v->part);
    if (rename(v->part, v->path) != 0)
        return system_error(error, "rename to its name", v->part);
    snprintf(copy, sizeof copy, "%s", v->path);
    dir = open(dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (dir < 0 || fsync(dir) != 0)
        status = system_error(error, "sync the directory of", v->path);
    if (dir >= 0)
        close(dir);
    return status;
}

static int
save_to(struct saving *v)
{
    struct error error = {0};
    t4_status status;

    if (snprintf(v->part, sizeof v->part, "%s.part", v->path) >= (int)sizeof v->part)
        return client_misused(v->s, "choose a shorter one", "the path is too long");
    client_catch_signals();
    v->fd = open(v->part, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (v->fd < 0) {
        system_error(&error, "create", v->part);
        return client_complain(v->s, &error, EXIT_FAILED);
    }
    v->hash = sha256_stream_new();
    status = fetch(v, &error);
    if (status == T4_OK)
        status = finish(v, &error);
    sha256_stream_free(v->hash);
    close(v->fd);
    if (status == T4_OK) {
        printf("Snapshot saved at %s\n", v->path);
        if (v->version[0] != '\0')
            printf("Server version %s\n", v->version);
        return EXIT_OK;
    }
    unlink(v->part);
    return client_complain(v->s, &error, EXIT_FAILED);
}

static int
save(int argc, char *const *argv, char *const *environment)
{
    struct client_session s;
    struct saving v = {.s = &s, .fd = -1};
    int status =
        client_session_read(&s, "snapshot save", NULL, 0, usage, argc, argv, environment);

    if (status == EXIT_OK && !s.done) {
        if (s.words.n != 1 || s.words.word[0][0] == '\0')
            status = client_misused(&s, "write t4 snapshot save FILE",
                                    "it takes the name of one file");
        else
            status = client_session_connect(&s);
        v.path = s.words.n > 0 ? s.words.word[0] : "";
        if (status == EXIT_OK)
            status = save_to(&v);
    }
    client_session_end(&s);
    return status;
}

int
snapshot_command(int argc, char *const *argv, char *const *environment)
{
    static const struct subcommand table[] = {{"save", save},
                                              {"status", snapshot_status_command}};

    return run_subcommand("snapshot", table, 2, usage, argc, argv, environment);
}

/*
 * status_command.c - t4 status.
 *
 * With --endpoint the live server is asked, at its address for metrics.  Else the object store
 * itself: lock, manifest, a listing, and the newest segments of the chain.  Nothing is written.
 *
 * Entry points: status_command(), status_command_help().  Runs on: the main thread.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "server/status_command.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "backends/built_in_store.h"
#include "base/memory.h"
#include "base/report.h"
#include "codec/codec.h"
#include "env/env.h"
#include "fmt/archive.h"
#include "fmt/entry.h"
#include "object/object.h"
#include "server/http_get.h"
#include "server/options.h"
#include "server/run.h"

#define TIMEOUT_NS UINT64_C(20000000000)
#define MAX_WORDS 256

static const char usage[] =
    "t4 status - what an object store holds, or what a server says of itself\n"
    "\n"
    "Usage: t4 status --object-store=URL [--FLAG=VALUE]... [--json]\n"
    "       t4 status --data-dir=DIR [--json]\n"
    "       t4 status --endpoint=HOST:PORT [--json]\n"
    "\n"
    "  --object-store=URL    look at this store; the flags --s3-*, --gcs-*, "
    "--plugin-option\n"
    "                        and --plugin-dir of t4 run, and their variables, are taken, "
    "too\n"
    "  --data-dir=DIR        look at the built-in store of this data directory\n"
    "  --endpoint=HOST:PORT  ask the server whose --metrics-addr this is\n"
    "  --json                print one JSON object\n"
    "\n"
    "Status: 0, 1 when the store or the server cannot be read, 2 when the command is "
    "wrong.\n";

void
status_command_help(FILE *out)
{
    fputs(usage, out);
}

static int
fail(const struct error *e, int status)
{
    fprintf(stderr, "t4 status: %s\n", e->message);
    if (e->hint[0] != '\0')
        fprintf(stderr, "  %s\n", e->hint);
    return status;
}

/* --- what lies in the store ----------------------------------------------------------- */

/* Kinds of objects, by the beginning of their key; the last one takes the rest. */
static const struct {
    const char *prefix, *key, *label;
} kinds[] = {
    {"cluster", "cluster", "cluster"},
    {"leader-lock", "lock", "lock"},
    {"manifest/", "manifest", "manifest"},
    {"wal/", "segments", "segments"},
    {"log/", "archives", "archives"},
    {"checkpoint/", "checkpoints", "checkpoints"},
    {"run/", "runs", "runs"},
    {"sst/", "ssts", "SSTs"},
    {"branches/", "branches", "branches"},
    {"moving", "moving", "unfinished move"},
    {"", "other", "other"},
};
#define KINDS (sizeof kinds / sizeof kinds[0])
#define MOVING_KIND (KINDS - 2)

struct listing {
    uint64_t objects[KINDS], bytes[KINDS], all;
    uint64_t last_slot, slots;
    uint64_t archive_first, archive_last; /* of the archive that ends last */
    struct buffer last_key;
};

static t4_status
count(void *arg, struct t4_slice key, const struct t4_object_info *info)
{
    struct listing *l = arg;
    uint64_t slot, last;
    size_t k = 0;

    while (strlen(kinds[k].prefix) > key.len ||
           memcmp(kinds[k].prefix, key.data, strlen(kinds[k].prefix)) != 0)
        k++;
    l->objects[k]++;
    l->bytes[k] += info->length;
    l->all++;
    if (slot_key_parse(key, &slot)) {
        l->slots++;
        l->last_slot = slot;
    } else if (archive_key_parse(key, &slot, &last) && last >= l->archive_last) {
        l->archive_first = slot;
        l->archive_last = last;
    }
    buffer_clear(&l->last_key);
    buffer_append_slice(&l->last_key, key);
    return T4_OK;
}

static t4_status
list_all(struct object_store *s, struct listing *l, struct error *error)
{
    t4_status status;
    uint64_t before;

    do {
        struct buffer after = {0};

        buffer_append_slice(&after, buffer_slice(&l->last_key));
        before = l->all;
        status = object_list(s, slice_of(NULL, 0), buffer_slice(&after), 1000, TIMEOUT_NS,
                             count, l, error);
        buffer_free(&after);
    } while (status == T4_OK && l->all - before >= 1000);
    return status;
}

static t4_status
get(struct object_store *s, const char *key, size_t limit, struct buffer *out,
    struct error *error)
{
    struct t4_object_info info = {.size = sizeof info};

    buffer_clear(out);
    return object_get(s, slice_str(key), 0, T4_TO_THE_END, limit, TIMEOUT_NS, out, &info,
                      error);
}

static t4_status
damaged(const char *key, t4_status status, struct error *error)
{
    error_set(error, status, "the object %s %s", key,
              status == T4_E_UNSUPPORTED ? "was written by a newer version of t4"
                                         : "is damaged");
    return error_hint(error, "restore it from a version or a copy that the store keeps");
}

/* --- the chain's end ------------------------------------------------------------------------ */

struct newest {
    uint64_t index, time_ms;
    int64_t revision;
};

/* The last entry of a data segment. */
static bool
last_entry(const struct segment *s, struct newest *out)
{
    struct buffer raw = {0};
    struct byte_reader r;
    struct t4_slice bytes;
    bool found = false;

    if (decompress_append(&raw, s->payload, s->raw_bytes)) {
        r = reader_of(buffer_slice(&raw));
        while (segment_entry_next(&r, &bytes)) {
            struct byte_reader head = reader_of(bytes);
            struct entry e;

            if (!entry_decode_head(&head, &e))
                break;
            *out = (struct newest){e.index, e.time_ms, e.revision};
            found = true;
        }
    }
    buffer_free(&raw);
    return found;
}

/* One slot's segment, looked at on the way back.  True in *done: the newest is settled. */
static t4_status
look_at_slot(struct object_store *s, uint64_t slot, struct buffer *object,
             uint64_t *candidate_term, struct newest *out, bool *done,
             struct error *error)
{
    char key[SLOT_KEY_BYTES];
    struct segment segment;
    t4_status status;

    slot_key(key, slot);
    status = get(s, key, SEGMENT_OBJECT_MAX, object, error);
    if (status != T4_OK)
        return status;
    status = segment_decode(buffer_slice(object), &segment);
    if (status != T4_OK)
        return damaged(key, status, error);
    if (*candidate_term != 0 && segment.term > *candidate_term)
        *candidate_term = 0; /* it was a leftover */
    if (*candidate_term == 0 && !segment.fence && last_entry(&segment, out))
        *candidate_term = segment.term;
    else if (*candidate_term != 0 && !segment.fence)
        *done = true; /* two in a row that agree */
    return T4_OK;
}

/* The last entry of the newest archive. */
static t4_status
look_at_archive(struct object_store *s, const struct listing *l, struct newest *out,
                struct error *error)
{
    struct buffer object = {0};
    char key[ARCHIVE_KEY_BYTES];
    struct segment segment;
    struct archive a = {0};
    t4_status status;

    archive_key(key, l->archive_first, l->archive_last);
    status = get(s, key, ARCHIVE_OBJECT_MAX, &object, error);
    if (status == T4_OK && (status = archive_decode(buffer_slice(&object), &a)) != T4_OK)
        status = damaged(key, status, error);
    if (status == T4_OK) {
        const struct archive_slot *last = &a.slot[a.n - 1]; /* always a segment */

        if (segment_decode(slice_of(object.data + last->offset, (size_t)last->length),
                           &segment) != T4_OK ||
            !last_entry(&segment, out))
            status = damaged(key, T4_E_CORRUPT, error);
    }
    archive_free(&a);
    buffer_free(&object);
    return status;
}

/*
 * From the last slot back to the newest data segment that is accepted: the first one met whose
 * term no earlier slot exceeds.  Leftovers behind a fence are of a lower term than that fence,
 * which is met only afterwards; so the candidate is given up when a higher term shows up.  Below
 * the floor slots may be gone: the newest segment there ends the newest archive.
 */
static t4_status
find_newest(struct object_store *s, const struct listing *l, uint64_t floor,
            struct newest *out, struct error *error)
{
    struct buffer object = {0};
    uint64_t candidate_term = 0, looked = 0, slot = l->last_slot + 1;
    bool done = l->slots == 0;
    t4_status status = T4_OK;

    *out = (struct newest){0};
    for (; status == T4_OK && !done && slot > floor && looked < 1000; looked++)
        status = look_at_slot(s, --slot, &object, &candidate_term, out, &done, error);
    buffer_free(&object);
    if (status == T4_OK && candidate_term == 0 && floor > 0)
        status = look_at_archive(s, l, out, error);
    return status;
}

/* --- the report ------------------------------------------------------------------------------- */

static void
report_lock(struct report *r, const struct lock_object *l)
{
    report_hex(r, "cluster_id", "cluster", l->cluster_id);
    report_hex(r, "lineage", "lineage", l->lineage);
    report_u64(r, "term", "term", l->term);
    report_hex(r, "holder", "holder", l->holder);
    report_text(r, "holder_address", "holder's address", l->address);
    report_text(r, "commit_rule", "commit rule",
                l->rule == RULE_LOCAL ? "local" : "object");
    report_u64(r, "lease_ms", "leadership lease, ms", l->lease_ms);
    report_bool(r, "released", "released", l->released);
    if (l->released) {
        report_u64(r, "released_index", "released at index", l->released_index);
        report_i64(r, "released_revision", "released at revision", l->released_revision);
    }
    if (l->move != MOVE_NONE)
        report_text(r, l->move == MOVE_DONE ? "moved" : "moving",
                    l->move == MOVE_DONE ? "moved to" : "being moved to", l->moved);
}

static void
report_listing(struct report *r, const struct listing *l)
{
    for (size_t k = 0; k < KINDS; k++) {
        char key[40], label[60];

        if (l->objects[k] == 0)
            continue;
        snprintf(key, sizeof key, "%s_objects", kinds[k].key);
        snprintf(label, sizeof label, "%s, objects", kinds[k].label);
        report_u64(r, key, label, l->objects[k]);
        snprintf(key, sizeof key, "%s_bytes", kinds[k].key);
        snprintf(label, sizeof label, "%s, bytes", kinds[k].label);
        report_u64(r, key, label, l->bytes[k]);
    }
}

static void
report_checkpoints(struct report *r, const struct manifest_object *m)
{
    const struct checkpoint_object *c = &m->newest;
    uint64_t bytes = 0;

    report_u64(r, "checkpoints_kept", "checkpoints kept", m->n_checkpoints);
    report_u64(r, "floor_slot", "archived below slot", m->floor.next_slot);
    report_u64(r, "kept_from_index", "log kept above index", m->archive.last_index);
    if (m->n_checkpoints == 0)
        return;
    for (uint32_t i = 0; i < c->n_runs; i++)
        bytes += c->run[i].bytes;
    report_u64(r, "checkpoint_index", "checkpoint, index", c->index);
    report_i64(r, "checkpoint_revision", "checkpoint, revision", c->revision);
    report_u64(r, "checkpoint_unix_ms", "checkpoint, unix ms", c->time_ms);
    report_u64(r, "checkpoint_runs", "checkpoint, runs", c->n_runs);
    report_u64(r, "checkpoint_bytes", "checkpoint, bytes", bytes);
    report_u64(r, "oldest_checkpoint_index", "oldest kept, index",
               m->checkpoint[m->n_checkpoints - 1].index);
    report_u64(r, "oldest_checkpoint_unix_ms", "oldest kept, unix ms",
               m->checkpoint[m->n_checkpoints - 1].time_ms);
}

static void
report_newest(struct report *r, const struct lock_object *l, const struct newest *n)
{
    report_u64(r, "durable_index", "durable index", n->index);
    report_i64(r, "durable_revision", "durable revision",
               n->revision > 0 ? n->revision : 1);
    report_u64(r, "newest_entry_unix_ms", "newest entry, unix ms", n->time_ms);
    if (l->released && l->released_index == n->index)
        report_line(
            r, "the last leader gave the lock back: everything it acknowledged is here");
    else if (l->rule == RULE_LOCAL)
        report_line(
            r, "its leader acknowledges writes before they are here: what is not, that "
               "server's t4 status says");
    else
        report_line(r, "every write that its leader has acknowledged is here");
}

static t4_status
look(struct object_store *s, struct report *r, struct error *error)
{
    struct buffer object = {0};
    struct lock_object lock;
    struct manifest_object manifest;
    struct listing l = {0};
    struct newest newest;
    t4_status status = list_all(s, &l, error);

    if (status == T4_OK && l.all == 0) {
        error_set(error, T4_E_NOTFOUND,
                  "the store %s is empty: no server has used it yet", object_url(s));
        status = error_hint(error, "check bucket and prefix");
    }
    if (status == T4_OK)
        status = get(s, "leader-lock", OBJECT_TEXT_MAX, &object, error);
    if (status == T4_E_NOTFOUND && l.all > 0) {
        error_set(error, T4_E_CORRUPT, "the store %s holds objects but no leader-lock%s",
                  object_url(s),
                  l.objects[MOVING_KIND] > 0 ? ": a move to it is not finished" : "");
        status =
            error_hint(error, "check the prefix; if it is right, restore that object");
    }
    if (status == T4_OK && (status = lock_decode(buffer_slice(&object), &lock)) != T4_OK)
        status = damaged("leader-lock", status, error);
    if (status == T4_OK)
        status = get(s, "manifest/latest", OBJECT_TEXT_MAX, &object, error);
    if (status == T4_OK &&
        (status = manifest_decode(buffer_slice(&object), &manifest)) != T4_OK)
        status = damaged("manifest/latest", status, error);
    if (status == T4_OK)
        status = find_newest(s, &l, manifest.floor.next_slot, &newest, error);
    if (status == T4_OK) {
        report_text(r, "object_store", "object store", object_url(s));
        report_lock(r, &lock);
        report_u64(r, "generation", "generation", manifest.generation);
        report_u64(r, "slots", "slots of the chain", l.slots);
        report_u64(r, "last_slot", "newest slot", l.last_slot);
        report_checkpoints(r, &manifest);
        report_listing(r, &l);
        report_newest(r, &lock, &newest);
    }
    buffer_free(&object);
    buffer_free(&l.last_key);
    return status;
}

/* --- the command --------------------------------------------------------------------------------- */

static int
show_server(const char *endpoint, bool json)
{
    struct buffer body = {0};
    struct error error = {0};
    t4_status status =
        http_get(endpoint, json ? "/status" : "/status?format=text", &body, &error);

    if (status == T4_OK)
        fwrite(body.data, 1, body.len, stdout);
    buffer_free(&body);
    return status == T4_OK          ? EXIT_OK
           : status == T4_E_INVALID ? fail(&error, EXIT_USAGE)
                                    : fail(&error, EXIT_FAILED);
}

static int
show_store(const struct run_options *o, const char *url, bool json)
{
    struct object_options options = {.env = env_posix(),
                                     .plugin_dir = o->plugin_dir,
                                     .settings = o->store_settings,
                                     .n_settings = o->n_store_settings};
    struct object_store *store;
    struct report r = {0};
    struct error error = {0};
    t4_status status = object_open(url, &options, &store, &error);

    if (status != T4_OK)
        return fail(&error, EXIT_FAILED);
    status = look(store, &r, &error);
    if (status == T4_OK) {
        const struct buffer *b = json ? &r.json : &r.lines;

        report_end(&r);
        fwrite(b->data, 1, b->len, stdout);
    }
    report_free(&r);
    object_close(store);
    return status == T4_OK ? EXIT_OK : fail(&error, EXIT_FAILED);
}

static int
show_built_in_store(const struct run_options *o, bool json)
{
    struct buffer url = {0};
    struct error error = {0};
    int result;

    if (built_in_store_find(o->data_dir, &url, &error) != T4_OK) {
        if (error.status == T4_E_NOTFOUND)
            error_hint(&error,
                       "give --data-dir=DIR for a built-in store, --object-store=URL "
                       "for another one, or --endpoint=HOST:PORT for a server");
        result = fail(&error, error.status == T4_E_NOTFOUND ? EXIT_USAGE : EXIT_FAILED);
    } else {
        result = show_store(o, (const char *)url.data, json);
    }
    buffer_free(&url);
    return result;
}

int
status_command(int argc, char *const *argv, char *const *environment)
{
    char *words[MAX_WORDS];
    const char *endpoint = NULL;
    struct run_options options;
    struct error error = {0};
    bool json = false;
    int n = 0, status;

    for (int i = 0; i < argc && n < MAX_WORDS; i++) {
        if (strcmp(argv[i], "--json") == 0)
            json = true;
        else if (strncmp(argv[i], "--endpoint=", 11) == 0)
            endpoint = argv[i] + 11;
        else if (strcmp(argv[i], "--endpoint") == 0 && i + 1 < argc)
            endpoint = argv[++i];
        else
            words[n++] = argv[i];
    }
    if (run_options_parse(n, words, environment, &options, &error) != T4_OK) {
        status = fail(&error, EXIT_USAGE);
    } else if (options.help) {
        status_command_help(stdout);
        status = EXIT_OK;
    } else if (endpoint != NULL) {
        status = show_server(endpoint, json);
    } else if (options.object_store != NULL) {
        status = show_store(&options, options.object_store, json);
    } else {
        status = show_built_in_store(&options, json);
    }
    run_options_free(&options);
    return status;
}

/*
 * watch_command.c - t4 watch: events as they happen, until Ctrl-C.
 *
 * A connection that is lost is made again, and the watch goes on behind the last revision that
 * was seen: nothing is missed, nothing comes twice.  What the server itself ends (history that
 * was compacted) is not begun again.
 *
 * Runs on: the main thread.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <inttypes.h>
#include <time.h>

#include "server/client_command.h"
#include "server/kv_words.h"
#include "server/run.h"

static const char usage[] =
    "t4 watch - show changes of keys as they happen, until Ctrl-C\n"
    "\n"
    "Usage: t4 watch [--FLAG=VALUE]... KEY [END]\n"
    "\n"
    "  --prefix              all keys that begin with KEY\n"
    "  --rev=REVISION        begin with the changes of that revision (default: from "
    "now)\n"
    "  --prev-kv             print what was there before, too\n"
    "  --progress-notify     print how far the watch is when nothing "
    "happens\n" CLIENT_HELP;

void
watch_command_help(FILE *out)
{
    fputs(usage, out);
}

struct watching {
    struct client_session *s;
    Etcdserverpb__WatchCreateRequest create;
    bool created;
};

/* In this case the server sends a number and etcd's clients have the words. */
#define ETCD_COMPACTED "etcdserver: mvcc: required revision has been compacted"

enum outcome { GO_ON, LOST, ENDED };

/* From now on a new watch would begin behind this answer. */
static void
note_revision(struct watching *w, const Etcdserverpb__WatchResponse *r)
{
    int64_t revision = r->header == NULL ? 0 : r->header->revision;

    if (r->created && w->create.start_revision > 0)
        return; /* its history is still to come */
    for (size_t i = 0; i < r->n_events; i++)
        if (r->events[i]->kv != NULL && i + 1 == r->n_events)
            revision = r->events[i]->kv->mod_revision;
    if (revision >= w->create.start_revision)
        w->create.start_revision = revision + 1;
}

static enum outcome
take(struct watching *w, const Etcdserverpb__WatchResponse *r)
{
    if (r->canceled) {
        fprintf(stderr, "watch was canceled (%s)\n",
                r->compact_revision > 0 ? ETCD_COMPACTED : r->cancel_reason);
        if (w->s->style.json)
            print_watch(&w->s->style, r);
        if (r->compact_revision > 0)
            fprintf(stderr, "  the oldest revision to watch from is %" PRId64 "\n",
                    r->compact_revision);
        return ENDED;
    }
    note_revision(w, r);
    if (r->created) {
        w->created = true;
        return GO_ON;
    }
    if (r->n_events == 0)
        printf("progress notify: %" PRId64 "\n",
               r->header == NULL ? 0 : r->header->revision);
    print_watch(&w->s->style, r);
    fflush(stdout);
    return ferror(stdout) ? ENDED : GO_ON;
}

static enum outcome
follow(struct watching *w, struct client_stream *stream, struct error *error)
{
    while (!client_interrupted()) {
        Etcdserverpb__WatchResponse *r;
        enum outcome outcome;
        int code = client_stream_receive(
            stream, &etcdserverpb__watch_response__descriptor, CLIENT_LOOK_NS, &r, error);

        if (code == CLIENT_TIMEOUT && !client_stream_ended(stream))
            continue;
        if (code == 0 && r == NULL)
            error_set(error, T4_E_UNAVAILABLE, "the server ended the stream");
        if (r == NULL)
            return LOST;
        outcome = take(w, r);
        client_free_answer(r);
        if (outcome != GO_ON)
            return outcome;
    }
    return GO_ON;
}

static enum outcome
watch_once(struct watching *w, struct error *error)
{
    Etcdserverpb__WatchRequest request = ETCDSERVERPB__WATCH_REQUEST__INIT;
    struct client_stream *stream;
    enum outcome outcome = LOST;

    request.request_union_case =
        ETCDSERVERPB__WATCH_REQUEST__REQUEST_UNION_CREATE_REQUEST;
    request.create_request = &w->create;
    if (client_stream_open(w->s->client, "/etcdserverpb.Watch/Watch", CLIENT_FOREVER,
                           &stream, error) != 0)
        return LOST;
    if (client_stream_send(stream, &request, error) == 0)
        outcome = follow(w, stream, error);
    client_stream_close(stream);
    return outcome;
}

/* Waits until the server is there again. */
static void
reconnect(struct watching *w)
{
    while (!client_interrupted() && !client_connect(w->s->client, UINT64_C(1000000000))) {
        struct timespec pause = {.tv_nsec = CLIENT_LOOK_NS};

        nanosleep(&pause, NULL);
    }
}

static int
watch(struct watching *w)
{
    struct error error = {0};

    client_catch_signals();
    while (!client_interrupted()) {
        enum outcome outcome = watch_once(w, &error);

        if (outcome == ENDED)
            return EXIT_FAILED;
        if (outcome == GO_ON)
            break;
        /* Refused, or never begun: whoever asked should know. */
        if (!w->created || error.status != T4_E_UNAVAILABLE)
            return client_complain(w->s, &error, EXIT_FAILED);
        fprintf(stderr,
                "t4 watch: the connection was lost (%s); going on at revision %" PRId64
                " when the server is there again\n",
                error.message, w->create.start_revision);
        reconnect(w);
    }
    return EXIT_OK;
}

static int
make_range(struct watching *w, bool prefix)
{
    const struct words *words = &w->s->words;

    if (words->n == 0 || words->n > 2)
        return client_misused(w->s, "write t4 watch KEY, or t4 watch KEY END",
                              "it takes a key, and the end of a range if need be");
    if (words->n == 2 && prefix)
        return client_misused(w->s, "leave one of them out",
                              "--prefix and the end of a range exclude each other");
    w->create.key = data_of_text(words->word[0]);
    if (words->n == 2)
        w->create.range_end = data_of_text(words->word[1]);
    if (prefix)
        range_of_prefix(&w->s->pool, &w->create.key, &w->create.range_end);
    else if (w->create.key.len == 0) /* as clientv3 does */
        range_from_key(&w->create.key, &(ProtobufCBinaryData){0});
    return EXIT_OK;
}

int
watch_command(int argc, char *const *argv, char *const *environment)
{
    bool prefix = false, prev_kv = false, progress = false;
    int64_t revision = 0;
    const struct word_flag flags[] = {
        {"prefix", 0, WORD_SWITCH, &prefix},
        {"rev", 0, WORD_INT, &revision},
        {"prev-kv", 0, WORD_SWITCH, &prev_kv},
        {"progress-notify", 0, WORD_SWITCH, &progress},
    };
    struct client_session s;
    struct watching w = {.s = &s, .create = ETCDSERVERPB__WATCH_CREATE_REQUEST__INIT};
    int status = client_session_read(&s, "watch", flags, sizeof flags / sizeof flags[0],
                                     usage, argc, argv, environment);

    if (status == EXIT_OK && !s.done) {
        w.create.start_revision = revision;
        w.create.prev_kv = prev_kv;
        w.create.progress_notify = progress;
        status = make_range(&w, prefix);
        if (status == EXIT_OK)
            status = client_session_connect(&s);
        if (status == EXIT_OK)
            status = watch(&w);
    }
    client_session_end(&s);
    return status;
}

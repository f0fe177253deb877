/*
 * kv_command.c - t4 put, t4 get, t4 del, t4 compact.
 *
 * Runs on: the main thread.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <inttypes.h>

#include "server/client_command.h"
#include "server/kv_words.h"
#include "server/run.h"
#include "server/values.h"

static const char put_usage[] =
    "t4 put - store a value under a key\n"
    "\n"
    "Usage: t4 put [--FLAG=VALUE]... KEY VALUE\n"
    "       t4 put [--FLAG=VALUE]... KEY          (the value comes from standard input)\n"
    "\n"
    "  --lease=ID            attach the key to this lease (hexadecimal)\n"
    "  --prev-kv             print what was there before, too\n"
    "  --ignore-value        keep the value that is there\n"
    "  --ignore-lease        keep the lease that is there\n" CLIENT_HELP;

static const char get_usage[] =
    "t4 get - read keys\n"
    "\n"
    "Usage: t4 get [--FLAG=VALUE]... KEY [END]\n"
    "\n"
    "  --prefix              all keys that begin with KEY\n"
    "  --from-key            all keys from KEY on\n"
    "  --rev=REVISION        as it was at that revision (default: now)\n"
    "  --limit=N             at most N keys (0: all)\n"
    "  --sort-by=WHAT        KEY, CREATE, MODIFY, VALUE or VERSION\n"
    "  --order=ORDER         ASCEND or DESCEND\n"
    "  --keys-only           without the values\n"
    "  --count-only          only how many there are\n"
    "  --print-value-only    only the values (simple)\n"
    "  --consistency=l|s     l: linearizable (default); s: serializable\n"
    "  --min-mod-rev, --max-mod-rev, --min-create-rev, --max-create-rev=REVISION\n"
    "                        only keys that were changed, made, in these "
    "bounds\n" CLIENT_HELP;

static const char del_usage[] =
    "t4 del - delete keys\n"
    "\n"
    "Usage: t4 del [--FLAG=VALUE]... KEY [END]\n"
    "\n"
    "  --prefix              all keys that begin with KEY\n"
    "  --from-key            all keys from KEY on\n"
    "  --prev-kv             print what was deleted, too\n"
    "  --range               taken as etcdctl takes it; not needed\n" CLIENT_HELP;

static const char compact_usage[] = "t4 compact - forget the history up to a revision\n"
                                    "\n"
                                    "Usage: t4 compact [--FLAG=VALUE]... REVISION\n"
                                    "\n"
                                    "  --physical            return when the old "
                                    "versions are gone from the engine\n" CLIENT_HELP;

void
put_command_help(FILE *out)
{
    fputs(put_usage, out);
}

void
get_command_help(FILE *out)
{
    fputs(get_usage, out);
}

void
del_command_help(FILE *out)
{
    fputs(del_usage, out);
}

void
compact_command_help(FILE *out)
{
    fputs(compact_usage, out);
}

/* Connects if all is well so far. */
static int
go_on(struct client_session *s, t4_status made, const struct error *error)
{
    return made == T4_OK ? client_session_connect(s)
                         : client_complain(s, error, EXIT_USAGE);
}

int
put_command(int argc, char *const *argv, char *const *environment)
{
    struct put_flags f = {0};
    const struct word_flag flags[] = {PUT_FLAGS(&f)};
    Etcdserverpb__PutRequest request;
    Etcdserverpb__PutResponse *answer;
    struct client_session s;
    struct error error = {0};
    int status = client_session_read(&s, "put", flags, sizeof flags / sizeof flags[0],
                                     put_usage, argc, argv, environment);

    if (status == EXIT_OK && !s.done) {
        status =
            go_on(&s, put_request_make(&f, &s.words, &s.pool, &request, &error), &error);
        if (status == EXIT_OK) {
            answer = client_session_ask(&s, "/etcdserverpb.KV/Put", &request,
                                        &etcdserverpb__put_response__descriptor);
            status = answer == NULL ? EXIT_FAILED : EXIT_OK;
            if (answer != NULL)
                print_put(&s.style, answer);
            client_free_answer(answer);
        }
    }
    client_session_end(&s);
    return status;
}

static int
get(struct client_session *s, const struct get_flags *f,
    const Etcdserverpb__RangeRequest *request)
{
    Etcdserverpb__RangeResponse *answer = client_session_ask(
        s, "/etcdserverpb.KV/Range", request, &etcdserverpb__range_response__descriptor);

    if (answer == NULL)
        return EXIT_FAILED;
    s->style.value_only = f->value_only;
    if (f->count_only && !s->style.json)
        printf("%" PRId64 "\n", answer->count);
    else
        print_range(&s->style, answer);
    client_free_answer(answer);
    return EXIT_OK;
}

int
get_command(int argc, char *const *argv, char *const *environment)
{
    struct get_flags f = {0};
    const struct word_flag flags[] = {GET_FLAGS(&f)};
    Etcdserverpb__RangeRequest request;
    struct client_session s;
    struct error error = {0};
    int status = client_session_read(&s, "get", flags, sizeof flags / sizeof flags[0],
                                     get_usage, argc, argv, environment);

    if (status == EXIT_OK && !s.done) {
        if (f.value_only && s.style.json)
            status = client_misused(&s, "leave one of them out",
                                    "--print-value-only is for --write-out=simple");
        else
            status = go_on(&s, get_request_make(&f, &s.words, &s.pool, &request, &error),
                           &error);
        if (status == EXIT_OK)
            status = get(&s, &f, &request);
    }
    client_session_end(&s);
    return status;
}

int
del_command(int argc, char *const *argv, char *const *environment)
{
    struct del_flags f = {0};
    const struct word_flag flags[] = {DEL_FLAGS(&f)};
    Etcdserverpb__DeleteRangeRequest request;
    Etcdserverpb__DeleteRangeResponse *answer;
    struct client_session s;
    struct error error = {0};
    int status = client_session_read(&s, "del", flags, sizeof flags / sizeof flags[0],
                                     del_usage, argc, argv, environment);

    if (status == EXIT_OK && !s.done) {
        status =
            go_on(&s, del_request_make(&f, &s.words, &s.pool, &request, &error), &error);
        if (status == EXIT_OK) {
            answer = client_session_ask(&s, "/etcdserverpb.KV/DeleteRange", &request,
                                        &etcdserverpb__delete_range_response__descriptor);
            status = answer == NULL ? EXIT_FAILED : EXIT_OK;
            if (answer != NULL)
                print_delete(&s.style, answer);
            client_free_answer(answer);
        }
    }
    client_session_end(&s);
    return status;
}

static int
compact(struct client_session *s, const Etcdserverpb__CompactionRequest *request)
{
    Etcdserverpb__CompactionResponse *answer =
        client_session_ask(s, "/etcdserverpb.KV/Compact", request,
                           &etcdserverpb__compaction_response__descriptor);

    if (answer == NULL)
        return EXIT_FAILED;
    if (s->style.json) /* etcdctl prints the line all the same; this is of use */
        print_message(answer);
    else
        printf("compacted revision %" PRId64 "\n", request->revision);
    client_free_answer(answer);
    return EXIT_OK;
}

int
compact_command(int argc, char *const *argv, char *const *environment)
{
    bool physical = false;
    const struct word_flag flags[] = {{"physical", 0, WORD_SWITCH, &physical}};
    Etcdserverpb__CompactionRequest request = ETCDSERVERPB__COMPACTION_REQUEST__INIT;
    struct client_session s;
    int status = client_session_read(&s, "compact", flags, 1, compact_usage, argc, argv,
                                     environment);

    if (status == EXIT_OK && !s.done) {
        if (s.words.n != 1 || !value_parse_int(s.words.word[0], &request.revision))
            status = client_misused(&s, "write t4 compact REVISION",
                                    "it takes one revision, a number");
        else
            status = client_session_connect(&s);
        request.physical = physical;
        if (status == EXIT_OK)
            status = compact(&s, &request);
    }
    client_session_end(&s);
    return status;
}

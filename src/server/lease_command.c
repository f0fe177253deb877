/*
 * lease_command.c - t4 lease grant, revoke, timetolive, keep-alive, list.
 *
 * Runs on: the main thread.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <inttypes.h>
#include <time.h>

#include "server/client_command.h"
#include "server/run.h"
#include "server/values.h"

static const char usage[] =
    "t4 lease - leases: keys that go away when nobody keeps them alive\n"
    "\n"
    "Usage: t4 lease grant TTL               (seconds)\n"
    "       t4 lease revoke ID               (hexadecimal)\n"
    "       t4 lease timetolive ID [--keys]\n"
    "       t4 lease keep-alive ID [--once]\n"
    "       t4 lease list\n"
    "\n"
    "  --keys                the keys that are attached to it, too\n"
    "  --once                once, not until Ctrl-C\n" CLIENT_HELP;

void
lease_command_help(FILE *out)
{
    fputs(usage, out);
}

/* Reads the words of a subcommand that takes one ID, and connects. */
static int
begin(struct client_session *s, const char *command, const struct word_flag *flags,
      size_t n, int64_t *id, int argc, char *const *argv, char *const *environment)
{
    int status =
        client_session_read(s, command, flags, n, usage, argc, argv, environment);

    if (status != EXIT_OK || s->done)
        return status;
    if (s->words.n != 1 || !word_parse_id(s->words.word[0], id))
        return client_misused(s, "t4 lease list shows them",
                              "it takes the ID of one lease, in hexadecimal");
    return client_session_connect(s);
}

static int
grant(int argc, char *const *argv, char *const *environment)
{
    Etcdserverpb__LeaseGrantRequest request = ETCDSERVERPB__LEASE_GRANT_REQUEST__INIT;
    Etcdserverpb__LeaseGrantResponse *answer = NULL;
    struct client_session s;
    int status =
        client_session_read(&s, "lease grant", NULL, 0, usage, argc, argv, environment);

    if (status == EXIT_OK && !s.done) {
        if (s.words.n != 1 || !value_parse_int(s.words.word[0], &request.ttl))
            status = client_misused(&s, "write t4 lease grant SECONDS",
                                    "it takes one TTL, a number of seconds");
        else
            status = client_session_connect(&s);
        if (status == EXIT_OK) {
            answer = client_session_ask(&s, "/etcdserverpb.Lease/LeaseGrant", &request,
                                        &etcdserverpb__lease_grant_response__descriptor);
            status = answer == NULL ? EXIT_FAILED : EXIT_OK;
        }
        if (answer != NULL)
            print_lease_grant(&s.style, answer);
        client_free_answer(answer);
    }
    client_session_end(&s);
    return status;
}

static int
revoke(int argc, char *const *argv, char *const *environment)
{
    Etcdserverpb__LeaseRevokeRequest request = ETCDSERVERPB__LEASE_REVOKE_REQUEST__INIT;
    Etcdserverpb__LeaseRevokeResponse *answer;
    struct client_session s;
    int status = begin(&s, "lease revoke", NULL, 0, &request.id, argc, argv, environment);

    if (status == EXIT_OK && !s.done) {
        answer = client_session_ask(&s, "/etcdserverpb.Lease/LeaseRevoke", &request,
                                    &etcdserverpb__lease_revoke_response__descriptor);
        status = answer == NULL ? EXIT_FAILED : EXIT_OK;
        if (answer != NULL && s.style.json)
            print_message(answer);
        else if (answer != NULL)
            printf("lease %016" PRIx64 " revoked\n", (uint64_t)request.id);
        client_free_answer(answer);
    }
    client_session_end(&s);
    return status;
}

static int
timetolive(int argc, char *const *argv, char *const *environment)
{
    bool keys = false;
    const struct word_flag flags[] = {{"keys", 0, WORD_SWITCH, &keys}};
    Etcdserverpb__LeaseTimeToLiveRequest request =
        ETCDSERVERPB__LEASE_TIME_TO_LIVE_REQUEST__INIT;
    Etcdserverpb__LeaseTimeToLiveResponse *answer;
    struct client_session s;
    int status =
        begin(&s, "lease timetolive", flags, 1, &request.id, argc, argv, environment);

    if (status == EXIT_OK && !s.done) {
        request.keys = keys;
        answer =
            client_session_ask(&s, "/etcdserverpb.Lease/LeaseTimeToLive", &request,
                               &etcdserverpb__lease_time_to_live_response__descriptor);
        status = answer == NULL ? EXIT_FAILED : EXIT_OK;
        if (answer != NULL)
            print_lease_time(&s.style, keys, answer);
        client_free_answer(answer);
    }
    client_session_end(&s);
    return status;
}

static int
list(int argc, char *const *argv, char *const *environment)
{
    Etcdserverpb__LeaseLeasesRequest request = ETCDSERVERPB__LEASE_LEASES_REQUEST__INIT;
    Etcdserverpb__LeaseLeasesResponse *answer;
    struct client_session s;
    int status =
        client_session_read(&s, "lease list", NULL, 0, usage, argc, argv, environment);

    if (status == EXIT_OK && !s.done) {
        status = s.words.n == 0
                     ? client_session_connect(&s)
                     : client_misused(&s, "write t4 lease list", "it takes no \"%.64s\"",
                                      s.words.word[0]);
        if (status == EXIT_OK) {
            answer = client_session_ask(&s, "/etcdserverpb.Lease/LeaseLeases", &request,
                                        &etcdserverpb__lease_leases_response__descriptor);
            status = answer == NULL ? EXIT_FAILED : EXIT_OK;
            if (answer != NULL)
                print_leases(&s.style, answer);
            client_free_answer(answer);
        }
    }
    client_session_end(&s);
    return status;
}

/* --- keep-alive ------------------------------------------------------------------------------ */

/* One request and its answer.  The TTL, or -1: it failed, which was said. */
static int64_t
keep_alive_once(struct client_session *s, struct client_stream *stream, int64_t id,
                bool once)
{
    Etcdserverpb__LeaseKeepAliveRequest request =
        ETCDSERVERPB__LEASE_KEEP_ALIVE_REQUEST__INIT;
    Etcdserverpb__LeaseKeepAliveResponse *answer = NULL;
    struct error error = {0};
    int64_t ttl = -1;
    int code;

    request.id = id;
    code = client_stream_send(stream, &request, &error);
    if (code == 0)
        code = client_stream_receive(stream,
                                     &etcdserverpb__lease_keep_alive_response__descriptor,
                                     (uint64_t)s->settings.timeout_ns, &answer, &error);
    if (code == 0 && answer == NULL)
        error_set(&error, T4_E_UNAVAILABLE, "the server ended the stream");
    if (answer == NULL) {
        client_complain(s, &error, EXIT_FAILED);
        return -1;
    }
    ttl = answer->ttl;
    if (ttl > 0)
        print_lease_keep_alive(&s->style, answer);
    else if (once)
        fprintf(stderr, "t4 lease keep-alive: etcdserver: requested lease not found\n");
    else if (!s->style.json)
        printf("lease %016" PRIx64 " expired or revoked.\n", (uint64_t)id);
    fflush(stdout);
    client_free_answer(answer);
    return ttl;
}

/* A third of the time to live, as etcd's clients do; ends early when interrupted. */
static void
pause_between(int64_t ttl)
{
    uint64_t looks = (uint64_t)ttl * 1000000000u / 3 / CLIENT_LOOK_NS + 1;
    struct timespec pause = {.tv_nsec = CLIENT_LOOK_NS};

    for (uint64_t i = 0; i < looks && !client_interrupted(); i++)
        nanosleep(&pause, NULL);
}

static int
keep_alive(int argc, char *const *argv, char *const *environment)
{
    bool once = false;
    const struct word_flag flags[] = {{"once", 0, WORD_SWITCH, &once}};
    struct client_stream *stream = NULL;
    struct client_session s;
    struct error error = {0};
    int64_t id, ttl = 0;
    int status = begin(&s, "lease keep-alive", flags, 1, &id, argc, argv, environment);

    if (status == EXIT_OK && !s.done) {
        client_catch_signals();
        if (client_stream_open(s.client, "/etcdserverpb.Lease/LeaseKeepAlive",
                               CLIENT_FOREVER, &stream, &error) != 0)
            status = client_complain(&s, &error, EXIT_FAILED);
        while (status == EXIT_OK && !client_interrupted()) {
            ttl = keep_alive_once(&s, stream, id, once);
            if (ttl < 0 || (ttl == 0 && once))
                status = EXIT_FAILED;
            if (once || ttl <= 0)
                break;
            pause_between(ttl);
        }
        client_stream_close(stream);
    }
    client_session_end(&s);
    return status;
}

int
lease_command(int argc, char *const *argv, char *const *environment)
{
    static const struct subcommand table[] = {{"grant", grant},
                                              {"revoke", revoke},
                                              {"timetolive", timetolive},
                                              {"keep-alive", keep_alive},
                                              {"list", list}};

    return run_subcommand("lease", table, sizeof table / sizeof table[0], usage, argc,
                          argv, environment);
}

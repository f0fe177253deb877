/*
 * endpoint_command.c - t4 endpoint status and health, t4 defrag, t4 alarm list and disarm.
 *
 * Runs on: the main thread.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <inttypes.h>
#include <string.h>

#include "base/encode.h"
#include "env/env.h"
#include "server/client_command.h"
#include "server/run.h"

static const char usage[] =
    "t4 endpoint - what servers say of themselves, each of --endpoints by itself\n"
    "\n"
    "Usage: t4 endpoint status [--FLAG=VALUE]...\n"
    "       t4 endpoint health [--FLAG=VALUE]...\n" CLIENT_HELP;

static const char alarm_usage[] =
    "t4 alarm - alarms that are raised\n"
    "\n"
    "Usage: t4 alarm list [--FLAG=VALUE]...\n"
    "       t4 alarm disarm [--FLAG=VALUE]...\n" CLIENT_HELP;

static const char defrag_usage[] =
    "t4 defrag - make the files of servers as small as their content\n"
    "\n"
    "Usage: t4 defrag [--FLAG=VALUE]...\n" CLIENT_HELP;

void
defrag_command_help(FILE *out)
{
    fputs(defrag_usage, out);
}

void
endpoint_command_help(FILE *out)
{
    fputs(usage, out);
}

void
alarm_command_help(FILE *out)
{
    fputs(alarm_usage, out);
}

/* Reads the words of a subcommand that takes none. */
static int
begin(struct client_session *s, const char *command, const char *help, int argc,
      char *const *argv, char *const *environment)
{
    int status = client_session_read(s, command, NULL, 0, help, argc, argv, environment);

    if (status == EXIT_OK && s->words.n > 0)
        status = client_misused(s, "write it without", "it takes no \"%.64s\"",
                                s->words.word[0]);
    return status;
}

/* --- each endpoint by itself -------------------------------------------------------------- */

struct round {
    struct client_session *s;
    bool failed;
    int shown;
    int (*look)(struct round *r, struct client *c, const char *endpoint,
                struct error *error);
};

static bool
look_at(void *arg, const char *endpoint)
{
    struct round *r = arg;
    struct client *c = NULL;
    struct error error = {0};
    int code = 1;

    if (client_make(r->s->queue, endpoint, &c, &error) == T4_OK)
        code = r->look(r, c, endpoint, &error);
    client_free(c);
    if (code != 0)
        r->failed = true;
    if (error.message[0] != '\0' && code != 0)
        client_complain(r->s, &error, EXIT_FAILED);
    return true;
}

typedef int look_fn(struct round *r, struct client *c, const char *endpoint,
                    struct error *error);

static int
look_at_all(struct client_session *s, look_fn *look, bool as_list)
{
    struct round r = {.s = s, .look = look};
    struct error error = {0};

    s->queue = client_queue_new();
    if (as_list)
        fputs("[", stdout);
    if (client_each_endpoint(s, look_at, &r, &error) != T4_OK)
        return client_complain(s, &error, EXIT_USAGE);
    if (as_list)
        puts("]");
    return r.failed ? EXIT_FAILED : EXIT_OK;
}

static int
ask(struct round *r, struct client *c, const char *method, const void *request,
    const ProtobufCMessageDescriptor *answer, void *out, struct error *error)
{
    return client_ask(c, method, request, answer, (uint64_t)r->s->settings.timeout_ns,
                      out, error);
}

/* {"NAME":"ENDPOINT", with a comma before all but the first. */
static void
begin_json(struct round *r, struct buffer *b, const char *name, const char *endpoint)
{
    const char *start = r->shown++ > 0 ? ",{\"" : "{\"";

    buffer_append(b, start, strlen(start));
    buffer_append(b, name, strlen(name));
    buffer_append(b, "\":", 2);
    json_string_append(b, slice_str(endpoint));
}

static void
end_json(struct buffer *b, const char *end)
{
    buffer_append(b, end, strlen(end));
    fwrite(b->data, 1, b->len, stdout);
    buffer_free(b);
}

/* --- status -------------------------------------------------------------------------------- */

/* As the Go library humanize writes bytes: powers of 1,000, two digits at most below 10. */
static void
print_size(uint64_t bytes)
{
    static const char *const units[] = {"B", "kB", "MB", "GB", "TB", "PB", "EB"};
    double value = (double)bytes;
    int unit = 0;

    if (bytes < 10) {
        printf("%" PRIu64 " B", bytes);
        return;
    }
    for (uint64_t rest = bytes; rest >= 1000; rest /= 1000) {
        value /= 1000;
        unit++;
    }
    value = (double)(uint64_t)(value * 10 + 0.5) / 10;
    printf(value < 10 ? "%.1f %s" : "%.0f %s", value, units[unit]);
}

static const char *
boolean(bool b)
{
    return b ? "true" : "false";
}

static void
print_status(const char *endpoint, const Etcdserverpb__StatusResponse *a)
{
    const Etcdserverpb__DowngradeInfo *down = a->downgradeinfo;
    uint64_t member = a->header == NULL ? 0 : a->header->member_id;

    printf("%s, %" PRIx64 ", %s, %s, ", endpoint, member, a->version, a->storageversion);
    print_size((uint64_t)a->dbsize);
    fputs(", ", stdout);
    print_size((uint64_t)a->dbsizeinuse);
    printf(", %d%%, ",
           a->dbsize == 0 ? 0 : (int)(100 - a->dbsizeinuse * 100 / a->dbsize));
    print_size((uint64_t)a->dbsizequota);
    printf(", %s, %s, %" PRIu64 ", %" PRIu64 ", %" PRIu64 ", ",
           boolean(a->leader == member), boolean(a->islearner), a->raftterm, a->raftindex,
           a->raftappliedindex);
    for (size_t i = 0; i < a->n_errors; i++)
        printf("%s%s", i == 0 ? "" : ", ", a->errors[i]);
    printf(", %s, %s\n", down == NULL ? "" : down->targetversion,
           boolean(down != NULL && down->enabled));
}

static int
look_at_status(struct round *r, struct client *c, const char *endpoint,
               struct error *error)
{
    Etcdserverpb__StatusRequest request = ETCDSERVERPB__STATUS_REQUEST__INIT;
    Etcdserverpb__StatusResponse *answer;
    struct buffer b = {0};
    int code = ask(r, c, "/etcdserverpb.Maintenance/Status", &request,
                   &etcdserverpb__status_response__descriptor, &answer, error);

    if (code != 0)
        return code;
    if (r->s->style.json) {
        begin_json(r, &b, "Endpoint", endpoint);
        buffer_append(&b, ",\"Status\":", 10);
        message_json_append(&b, &answer->base);
        end_json(&b, "}");
    } else {
        print_status(endpoint, answer);
    }
    client_free_answer(answer);
    return 0;
}

/* --- health -------------------------------------------------------------------------------- */

static uint64_t
now_ns(void)
{
    return env_posix()->boot_ns(env_posix()->state);
}

/* The names of the alarms, in `text`; empty: there is none. */
static void
name_alarms(const Etcdserverpb__AlarmResponse *a, char *text, size_t size)
{
    text[0] = '\0';
    for (size_t i = 0; i < a->n_alarms; i++) {
        size_t used = strlen(text);
        const char *name =
            a->alarms[i]->alarm == ETCDSERVERPB__ALARM_TYPE__NOSPACE   ? "NOSPACE "
            : a->alarms[i]->alarm == ETCDSERVERPB__ALARM_TYPE__CORRUPT ? "CORRUPT "
                                                                       : "UNKNOWN ";

        snprintf(text + used, size - used, "%s%s", used == 0 ? "Active Alarm(s): " : "",
                 name);
    }
}

/* Reads any key, and the alarms.  *why stays empty if all is well. */
static void
examine(struct round *r, struct client *c, char *why, size_t size)
{
    Etcdserverpb__RangeRequest range = ETCDSERVERPB__RANGE_REQUEST__INIT;
    Etcdserverpb__AlarmRequest alarms = ETCDSERVERPB__ALARM_REQUEST__INIT;
    Etcdserverpb__RangeResponse *answer;
    Etcdserverpb__AlarmResponse *raised;
    struct error error = {0};
    int code;

    range.key = (ProtobufCBinaryData){6, (uint8_t *)(uintptr_t) "health"};
    code = ask(r, c, "/etcdserverpb.KV/Range", &range,
               &etcdserverpb__range_response__descriptor, &answer, &error);
    client_free_answer(answer);
    why[0] = '\0';
    if (code != 0 && error.status != T4_E_DENIED) { /* a refusal is an answer */
        snprintf(why, size, "%s", error.message);
        return;
    }
    if (ask(r, c, "/etcdserverpb.Maintenance/Alarm", &alarms,
            &etcdserverpb__alarm_response__descriptor, &raised, &error) != 0)
        snprintf(why, size, "Unable to fetch the alarm list");
    else
        name_alarms(raised, why, size);
    client_free_answer(raised);
}

static int
look_at_health(struct round *r, struct client *c, const char *endpoint,
               struct error *error)
{
    uint64_t began = now_ns();
    struct buffer b = {0};
    char why[600], took[64];

    (void)error;
    examine(r, c, why, sizeof why);
    snprintf(took, sizeof took, "%.6fms", (double)(now_ns() - began) / 1e6);
    if (r->s->style.json) {
        begin_json(r, &b, "endpoint", endpoint);
        end_json(&b, why[0] == '\0' ? ",\"health\":true" : ",\"health\":false");
        printf(",\"took\":\"%s\"", took);
        if (why[0] != '\0') {
            buffer_append(&b, ",\"error\":", 9);
            json_string_append(&b, slice_str(why));
            end_json(&b, "");
        }
        putchar('}');
    } else if (why[0] == '\0') {
        printf("%s is healthy: successfully committed proposal: took = %s\n", endpoint,
               took);
    } else {
        fprintf(stderr, "%s is unhealthy: failed to commit proposal: %s\n", endpoint,
                why);
    }
    return why[0] != '\0';
}

static int
endpoint_round(const char *command, look_fn *look, int argc, char *const *argv,
               char *const *environment)
{
    struct client_session s;
    int status = begin(&s, command, usage, argc, argv, environment);

    if (status == EXIT_OK && !s.done)
        status = look_at_all(&s, look, s.style.json);
    client_session_end(&s);
    return status;
}

static int
run_status(int argc, char *const *argv, char *const *environment)
{
    return endpoint_round("endpoint status", look_at_status, argc, argv, environment);
}

static int
run_health(int argc, char *const *argv, char *const *environment)
{
    return endpoint_round("endpoint health", look_at_health, argc, argv, environment);
}

int
endpoint_command(int argc, char *const *argv, char *const *environment)
{
    static const struct subcommand table[] = {{"status", run_status},
                                              {"health", run_health}};

    return run_subcommand("endpoint", table, 2, usage, argc, argv, environment);
}

/* --- defragmentation ------------------------------------------------------------------------ */

static int
defragment(struct round *r, struct client *c, const char *endpoint, struct error *error)
{
    Etcdserverpb__DefragmentRequest request = ETCDSERVERPB__DEFRAGMENT_REQUEST__INIT;
    Etcdserverpb__DefragmentResponse *answer;
    uint64_t began = now_ns();
    int code = ask(r, c, "/etcdserverpb.Maintenance/Defragment", &request,
                   &etcdserverpb__defragment_response__descriptor, &answer, error);

    client_free_answer(answer);
    if (code == 0)
        printf("Finished defragmenting etcd member[%s]. took %.6fms\n", endpoint,
               (double)(now_ns() - began) / 1e6);
    else
        fprintf(stderr, "Failed to defragment etcd member[%s] (%s)\n", endpoint,
                error->message);
    error->message[0] = '\0'; /* it is told */
    return code;
}

int
defrag_command(int argc, char *const *argv, char *const *environment)
{
    struct client_session s;
    int status = begin(&s, "defrag", defrag_usage, argc, argv, environment);

    if (status == EXIT_OK && !s.done)
        status = look_at_all(&s, defragment, false);
    client_session_end(&s);
    return status;
}

/* --- alarms --------------------------------------------------------------------------------- */

static Etcdserverpb__AlarmResponse *
ask_alarm(struct client_session *s, Etcdserverpb__AlarmRequest *request)
{
    return client_session_ask(s, "/etcdserverpb.Maintenance/Alarm", request,
                              &etcdserverpb__alarm_response__descriptor);
}

static void
print_alarms(const Etcdserverpb__AlarmResponse *a)
{
    for (size_t i = 0; i < a->n_alarms; i++)
        printf("memberID:%" PRIu64 " alarm:%s \n", a->alarms[i]->memberid,
               a->alarms[i]->alarm == ETCDSERVERPB__ALARM_TYPE__NOSPACE ? "NOSPACE"
                                                                        : "CORRUPT");
}

/* Takes one after the other down, as etcdctl does; what the server says of each is printed. */
static int
disarm_all(struct client_session *s, const Etcdserverpb__AlarmResponse *raised)
{
    for (size_t i = 0; i < raised->n_alarms; i++) {
        Etcdserverpb__AlarmRequest request = ETCDSERVERPB__ALARM_REQUEST__INIT;
        Etcdserverpb__AlarmResponse *answer;

        request.action = ETCDSERVERPB__ALARM_REQUEST__ALARM_ACTION__DEACTIVATE;
        request.memberid = raised->alarms[i]->memberid;
        request.alarm = raised->alarms[i]->alarm;
        answer = ask_alarm(s, &request);
        if (answer == NULL)
            return EXIT_FAILED;
        if (s->style.json)
            print_message(answer);
        else
            print_alarms(answer);
        client_free_answer(answer);
    }
    return EXIT_OK;
}

static int
alarm_round(const char *command, bool disarm, int argc, char *const *argv,
            char *const *environment)
{
    Etcdserverpb__AlarmRequest request = ETCDSERVERPB__ALARM_REQUEST__INIT;
    Etcdserverpb__AlarmResponse *answer;
    struct client_session s;
    int status = begin(&s, command, alarm_usage, argc, argv, environment);

    if (status == EXIT_OK && !s.done)
        status = client_session_connect(&s);
    if (status == EXIT_OK && !s.done) {
        answer = ask_alarm(&s, &request);
        if (answer == NULL)
            status = EXIT_FAILED;
        else if (disarm)
            status = disarm_all(&s, answer);
        else if (s.style.json)
            print_message(answer);
        else
            print_alarms(answer);
        client_free_answer(answer);
    }
    client_session_end(&s);
    return status;
}

static int
run_list(int argc, char *const *argv, char *const *environment)
{
    return alarm_round("alarm list", false, argc, argv, environment);
}

static int
run_disarm(int argc, char *const *argv, char *const *environment)
{
    return alarm_round("alarm disarm", true, argc, argv, environment);
}

int
alarm_command(int argc, char *const *argv, char *const *environment)
{
    static const struct subcommand table[] = {{"list", run_list}, {"disarm", run_disarm}};

    return run_subcommand("alarm", table, 2, alarm_usage, argc, argv, environment);
}

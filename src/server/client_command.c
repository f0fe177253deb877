/*
 * client_command.c - what the commands that are a client share: flags, endpoints, errors.
 *
 * Runs on: the main thread.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "server/client_command.h"

#include <signal.h>
#include <stdarg.h>
#include <string.h>

#include "server/run.h"

#define MAX_FLAGS 24
#define CONNECT_NS UINT64_C(2000000000) /* etcdctl's --dial-timeout */
#define TIMEOUT_NS INT64_C(5000000000)

int
client_complain(const struct client_session *s, const struct error *error, int status)
{
    fprintf(stderr, "t4 %s: %s\n", s->command, error->message);
    if (error->hint[0] != '\0')
        fprintf(stderr, "  %s\n", error->hint);
    return status;
}

int
client_misused(const struct client_session *s, const char *hint, const char *format, ...)
{
    struct error error = {.status = T4_E_INVALID};
    va_list list;

    va_start(list, format);
    vsnprintf(error.message, sizeof error.message, format, list);
    va_end(list);
    snprintf(error.hint, sizeof error.hint, "%s", hint);
    return client_complain(s, &error, EXIT_USAGE);
}

int
client_session_read(struct client_session *s, const char *command,
                    const struct word_flag *own, size_t n, const char *help, int argc,
                    char *const *argv, char *const *environment)
{
    const struct word_flag shared[] = {CLIENT_FLAGS(&s->settings)};
    struct word_flag flags[MAX_FLAGS];
    struct error error = {0};

    *s = (struct client_session){
        .command = command, .settings = CLIENT_SETTINGS, .environment = environment};
    if (n > 0)
        memcpy(flags, own, n * sizeof *own);
    memcpy(flags + n, shared, sizeof shared);
    if (words_parse(flags, n + sizeof shared / sizeof shared[0], argc, argv, &s->pool,
                    &s->words, &error) != T4_OK)
        return client_complain(s, &error, EXIT_USAGE);
    if (s->settings.help) {
        fputs(help, stdout);
        s->done = true;
        return EXIT_OK;
    }
    if (strcmp(s->settings.write_out, "simple") != 0 &&
        strcmp(s->settings.write_out, "json") != 0)
        return client_misused(s, "it takes simple or json",
                              "--write-out takes no \"%.64s\"", s->settings.write_out);
    s->style.json = strcmp(s->settings.write_out, "json") == 0;
    s->style.hex = s->settings.hex;
    s->settings.timeout_given = s->settings.timeout_ns >= 0;
    if (!s->settings.timeout_given)
        s->settings.timeout_ns = TIMEOUT_NS;
    if (s->settings.timeout_ns > 0)
        return EXIT_OK;
    return client_misused(s, "it takes a duration such as 500ms or 5s",
                          "--command-timeout takes no 0");
}

t4_status
client_each_endpoint(const struct client_session *s,
                     bool (*each)(void *arg, const char *endpoint), void *arg,
                     struct error *error)
{
    const char *list = s->settings.endpoints;
    char one[512];

    for (char *const *e = s->environment; list == NULL && *e != NULL; e++)
        if (strncmp(*e, "T4_ENDPOINTS=", 13) == 0 && (*e)[13] != '\0')
            list = *e + 13;
    if (list == NULL)
        list = CLIENT_DEFAULT_ENDPOINT;
    for (const char *end; *list != '\0'; list = end + (*end == ',')) {
        end = strchrnul(list, ',');
        if (end == list || (size_t)(end - list) >= sizeof one)
            break;
        memcpy(one, list, (size_t)(end - list));
        one[end - list] = '\0';
        if (!each(arg, one) || *end == '\0')
            return T4_OK;
    }
    error_set(error, T4_E_INVALID, "the list of endpoints is empty or has a hole");
    return error_hint(error, "--endpoints (T4_ENDPOINTS) takes host:port,host:port");
}

struct connecting {
    struct client_session *s;
    struct error *error;
    t4_status status;
    bool several;
};

static bool
count(void *arg, const char *endpoint)
{
    int *n = arg;

    (void)endpoint;
    ++*n;
    return true;
}

/* The first endpoint that answers stays connected; of all that do not, the last. */
static bool
try_endpoint(void *arg, const char *endpoint)
{
    struct connecting *c = arg;

    client_free(c->s->client);
    c->status = client_make(c->s->queue, endpoint, &c->s->client, c->error);
    return c->status == T4_OK && c->several && !client_connect(c->s->client, CONNECT_NS);
}

int
client_session_connect(struct client_session *s)
{
    struct error error = {0};
    struct connecting c = {.s = s, .error = &error};
    int n = 0;
    t4_status status = client_each_endpoint(s, count, &n, &error);

    c.several = n > 1;
    if (status == T4_OK) {
        s->queue = client_queue_new();
        client_each_endpoint(s, try_endpoint, &c, &error);
        status = c.status;
    }
    return status == T4_OK ? EXIT_OK : client_complain(s, &error, EXIT_USAGE);
}

void
client_session_end(struct client_session *s)
{
    client_free(s->client);
    client_queue_free(s->queue);
    pool_free(&s->pool);
}

static volatile sig_atomic_t interrupted;

static void
interrupt(int number)
{
    (void)number;
    interrupted = 1;
}

void
client_catch_signals(void)
{
    struct sigaction action = {.sa_handler = interrupt};

    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
}

bool
client_interrupted(void)
{
    return interrupted != 0;
}

void *
client_session_ask(struct client_session *s, const char *method, const void *request,
                   const ProtobufCMessageDescriptor *answer)
{
    struct error error = {0};
    void *out;

    if (client_ask(s->client, method, request, answer, (uint64_t)s->settings.timeout_ns,
                   &out, &error) != 0)
        client_complain(s, &error, EXIT_FAILED);
    return out;
}

void
client_free_answer(void *message)
{
    protobuf_c_message_free_unpacked(message, NULL);
}

int
run_subcommand(const char *command, const struct subcommand *table, size_t n,
               const char *help, int argc, char *const *argv, char *const *environment)
{
    if (argc == 0) {
        fputs(help, stderr);
        return EXIT_USAGE;
    }
    if (strcmp(argv[0], "--help") == 0 || strcmp(argv[0], "-h") == 0 ||
        strcmp(argv[0], "help") == 0) {
        fputs(help, stdout);
        return EXIT_OK;
    }
    for (size_t i = 0; i < n; i++)
        if (strcmp(argv[0], table[i].name) == 0)
            return table[i].run(argc - 1, argv + 1, environment);
    fprintf(stderr, "t4 %s: there is no \"%.64s\"\n  write t4 %s and one of:", command,
            argv[0], command);
    for (size_t i = 0; i < n; i++)
        fprintf(stderr, " %s", table[i].name);
    fputs("\n", stderr);
    return EXIT_USAGE;
}

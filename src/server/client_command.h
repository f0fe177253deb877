/*
 * client_command.h - the commands that are a client: what they share, and their entry points.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef SERVER_CLIENT_COMMAND_H
#define SERVER_CLIENT_COMMAND_H

#include <stdio.h>

#include "client/client.h"
#include "server/answer_print.h"
#include "server/words.h"

/* What every one of them takes. */
struct client_settings {
    const char *endpoints; /* NULL: T4_ENDPOINTS, else the default */
    int64_t timeout_ns;    /* of one call */
    bool timeout_given;    /* else it is the default */
    const char *write_out;
    bool hex, help;
};
#define CLIENT_SETTINGS                                                                  \
    {                                                                                    \
        .timeout_ns = -1, .write_out = "simple"                                          \
    }
#define CLIENT_FLAGS(s)                                                                  \
    {"endpoints", 0, WORD_TEXT, &(s)->endpoints},                                        \
        {"command-timeout", 0, WORD_DURATION, &(s)->timeout_ns},                         \
        {"write-out", 'w', WORD_TEXT, &(s)->write_out},                                  \
        {"hex", 0, WORD_SWITCH, &(s)->hex},                                              \
    {                                                                                    \
        "help", 'h', WORD_SWITCH, &(s)->help                                             \
    }
/* The same for people: the end of each command's help. */
#define CLIENT_HELP                                                                      \
    "\n"                                                                                 \
    "  --endpoints=LIST      host:port, http://host:port or unix:PATH, several by "      \
    "commas:\n"                                                                          \
    "                        the first that answers (T4_ENDPOINTS; default "             \
    "127.0.0.1:3379)\n"                                                                  \
    "  --command-timeout=T   how long to wait for the answer (default 5s)\n"             \
    "  -w, --write-out=FORM  simple (default) or json, both as etcdctl writes them\n"    \
    "  --hex                 keys and values as \\x61\\x62 (simple)\n"                   \
    "\n"                                                                                 \
    "Status: 0, 1 when the server refuses or cannot be reached, 2 when the command is "  \
    "wrong.\n"

struct client_session {
    const char *command; /* "get": for what is said on standard error */
    struct client_settings settings;
    struct answer_style style;
    char *const *environment;
    struct pool pool;
    struct words words;
    struct client_queue *queue;
    struct client *client;
    bool done; /* help was asked for and printed: nothing to do */
};

/*
 * Reads the words after the command; flags are those of `own` (n of them) and CLIENT_FLAGS.
 * EXIT_OK, or EXIT_USAGE once it has been said why; client_session_end() in any case.
 */
int client_session_read(struct client_session *s, const char *command,
                        const struct word_flag *own, size_t n, const char *help, int argc,
                        char *const *argv, char *const *environment);
/* Connects.  EXIT_OK, or what to return. */
int client_session_connect(struct client_session *s);
void client_session_end(struct client_session *s);

/* Says what is wrong and returns `status`. */
int client_complain(const struct client_session *s, const struct error *error,
                    int status);
/* The same in words: EXIT_USAGE. */
int client_misused(const struct client_session *s, const char *hint, const char *format,
                   ...) __attribute__((format(printf, 3, 4)));
/* One call; says what is wrong.  NULL: it failed. */
void *client_session_ask(struct client_session *s, const char *method,
                         const void *request, const ProtobufCMessageDescriptor *answer);
void client_free_answer(void *message);

/*
 * From now on Ctrl-C and SIGTERM do not end the program, but make client_interrupted() true; to be
 * looked at every CLIENT_LOOK_NS.
 */
#define CLIENT_LOOK_NS UINT64_C(100000000)
void client_catch_signals(void);
bool client_interrupted(void);

/* The list of endpoints: calls `each` until it returns false.  INVALID: an empty one. */
t4_status client_each_endpoint(const struct client_session *s,
                               bool (*each)(void *arg, const char *endpoint), void *arg,
                               struct error *error);

/* Runs the one that the first word names, or says what there is. */
struct subcommand {
    const char *name;
    int (*run)(int argc, char *const *argv, char *const *environment);
};
int run_subcommand(const char *command, const struct subcommand *table, size_t n,
                   const char *help, int argc, char *const *argv,
                   char *const *environment);

/* --- the commands --------------------------------------------------------------------------- */

#define CLIENT_COMMAND(name)                                                             \
    int name##_command(int argc, char *const *argv, char *const *environment);           \
    void name##_command_help(FILE *out)
CLIENT_COMMAND(put);
CLIENT_COMMAND(get);
CLIENT_COMMAND(del);
CLIENT_COMMAND(txn);
CLIENT_COMMAND(watch);
CLIENT_COMMAND(lease);
CLIENT_COMMAND(compact);
CLIENT_COMMAND(endpoint);
CLIENT_COMMAND(alarm);
CLIENT_COMMAND(defrag);
CLIENT_COMMAND(snapshot);
CLIENT_COMMAND(inspect);

#endif

/*
 * main.c - the program t4: its commands.
 *
 * The table `command` names them, each in a file of its own; t4 version and t4 help are here.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <grpc/grpc.h>
#include <protobuf-c/protobuf-c.h>
#include <stdio.h>
#include <string.h>

#include "api/http/http.h"
#include "include/t4_plugin.h"
#include "node/node.h"
#include "server/client_command.h"
#include "server/gc_command.h"
#include "server/options.h"
#include "server/plugin_command.h"
#include "server/run.h"
#include "server/status_command.h"
#include "server/store_command.h"
#include "server/verify_command.h"
#include "server/wal_command.h"

extern char **environ;

/* Commands with flags of their own; version and help are below. */
static const struct {
    const char *name, *what;
    int (*run)(int argc, char *const *argv, char *const *environment);
    void (*help)(FILE *out);
} command[] = {
    {"run", "serve one data directory to etcd clients", server_run, run_options_help},
    {"put", "store a value under a key", put_command, put_command_help},
    {"get", "read keys", get_command, get_command_help},
    {"del", "delete keys", del_command, del_command_help},
    {"txn", "several conditions and requests as one", txn_command, txn_command_help},
    {"watch", "show changes of keys as they happen", watch_command, watch_command_help},
    {"lease", "grant, revoke, look at, keep alive leases", lease_command,
     lease_command_help},
    {"compact", "forget the history up to a revision", compact_command,
     compact_command_help},
    {"endpoint", "what servers say of themselves (t4 endpoint status, health)",
     endpoint_command, endpoint_command_help},
    {"defrag", "make the files of servers as small as their content", defrag_command,
     defrag_command_help},
    {"alarm", "list or disarm alarms", alarm_command, alarm_command_help},
    {"snapshot", "a server's database as a file (t4 snapshot save, status)",
     snapshot_command, snapshot_command_help},
    {"inspect", "keys, history and differences, of a directory or a server",
     inspect_command, inspect_command_help},
    {"status", "what an object store holds, or a server says of itself", status_command,
     status_command_help},
    {"verify", "prove that what an object store holds is whole", verify_command,
     verify_command_help},
    {"wal", "show what the log in a data directory holds (t4 wal export)", wal_command,
     wal_command_help},
    {"store", "move an object store to another place (t4 store move)", store_command,
     store_command_help},
    {"gc", "delete from an object store what nothing needs any more", gc_command,
     gc_command_help},
    {"plugin", "list plugins, or check one (t4 plugin check)", plugin_command,
     plugin_command_help},
};
#define N_COMMANDS (sizeof command / sizeof command[0])

static void
usage(FILE *out)
{
    fputs("t4 - a key-value database that speaks the etcd v3 API\n"
          "\n"
          "Usage: t4 COMMAND [--FLAG=VALUE]...\n"
          "\n",
          out);
    for (size_t i = 0; i < N_COMMANDS; i++)
        fprintf(out, "  %-14s %s\n", command[i].name, command[i].what);
    fputs(
        "  version        print the version and what this build is made of\n"
        "  help [COMMAND] print this (t4 help), or the flags of a command (t4 help run)\n"
        "\n"
        "Try: t4 run --data-dir=./t4-data\n"
        "     t4 put greeting hello\n",
        out);
}

static int
version(void)
{
    printf("t4 %s\n", T4_VERSION);
    printf("etcd API %s\n", NODE_ETCD_VERSION);
    printf("plugin ABI %d.%d\n", T4_ABI_MAJOR, T4_ABI_MINOR);
    printf("gRPC %s\n", grpc_version_string());
    printf("protobuf-c %s\n", protobuf_c_version());
    printf("libmicrohttpd %s\n", http_library_version());
    printf("compiler %s\n", __VERSION__);
    return EXIT_OK;
}

/* t4 help [run [--table]]: --table is for programs, one flag per line, fields by tabs. */
static int
help(int argc, char *const *argv)
{
    if (argc == 0) {
        usage(stdout);
        return EXIT_OK;
    }
    if (strcmp(argv[0], "run") == 0 && argc == 2 && strcmp(argv[1], "--table") == 0) {
        run_options_table(stdout);
        return EXIT_OK;
    }
    for (size_t i = 0; i < N_COMMANDS; i++)
        if (argc == 1 && strcmp(argv[0], command[i].name) == 0) {
            command[i].help(stdout);
            return EXIT_OK;
        }
    fprintf(
        stderr,
        "t4 help: there is no help about \"%.64s\"\n  write t4 help, or t4 help and one "
        "of:",
        argv[argc - 1]);
    for (size_t i = 0; i < N_COMMANDS; i++)
        fprintf(stderr, " %s", command[i].name);
    fputs("\n", stderr);
    return EXIT_USAGE;
}

static int
refuse_command(const char *word)
{
    if (word[0] == '-')
        fprintf(stderr,
                "t4: \"%.64s\" stands where a command is wanted\n"
                "  to serve, write t4 run %.64s; t4 help lists the commands\n",
                word, word);
    else
        fprintf(stderr, "t4: there is no command %.64s\n  t4 help lists the commands\n",
                word);
    return EXIT_USAGE;
}

static int
no_more_words(const char *name, int argc, char *const *argv)
{
    if (argc == 0)
        return EXIT_OK;
    fprintf(
        stderr,
        "t4 %s: takes no \"%.64s\"\n  write t4 %s alone; t4 help lists the commands\n",
        name, argv[0], name);
    return EXIT_USAGE;
}

static int
dispatch(int argc, char *const *argv)
{
    const char *name = argv[1];
    int rest = argc - 2, status;

    if (argc < 2) {
        usage(stderr);
        return EXIT_USAGE;
    }
    for (size_t i = 0; i < N_COMMANDS; i++)
        if (strcmp(name, command[i].name) == 0)
            return command[i].run(rest, argv + 2, environ);
    if (strcmp(name, "version") == 0 || strcmp(name, "--version") == 0) {
        status = no_more_words("version", rest, argv + 2);
        return status == EXIT_OK ? version() : status;
    }
    if (strcmp(name, "help") == 0 || strcmp(name, "--help") == 0 ||
        strcmp(name, "-h") == 0)
        return help(rest, argv + 2);
    return refuse_command(name);
}

int
main(int argc, char **argv)
{
    int status = dispatch(argc, argv);

    /* A full disk behind the standard output is a failure that scripts must see. */
    if (fflush(stdout) != 0 && status == EXIT_OK) {
        perror("t4: writing to standard output");
        return EXIT_FAILED;
    }
    return status;
}

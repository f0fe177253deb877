/*
 * main.c - the program t4: its commands.
 *
 *   t4 run       serves (run.c)
 *   t4 status    says what a store or a server holds (status_command.c)
 *   t4 wal       shows the local log (wal_command.c)
 *   t4 plugin    lists and checks plugins (plugin_command.c)
 *   t4 version   says what this build is made of
 *   t4 help      says what there is
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
#include "server/options.h"
#include "server/plugin_command.h"
#include "server/run.h"
#include "server/status_command.h"
#include "server/wal_command.h"

extern char **environ;

static const char usage[] =
    "t4 - a key-value database that speaks the etcd v3 API\n"
    "\n"
    "Usage: t4 COMMAND [--FLAG=VALUE]...\n"
    "\n"
    "  run            serve one data directory to etcd clients\n"
    "  status         what an object store holds, or a server says of itself\n"
    "  wal            show what the log in a data directory holds (t4 wal export)\n"
    "  plugin         list plugins, or check one (t4 plugin check)\n"
    "  version        print the version and what this build is made of\n"
    "  help [COMMAND] print this (t4 help), or the flags of a command (t4 help run)\n"
    "\n"
    "Try: t4 run --data-dir=./t4-data\n"
    "     etcdctl --endpoints=127.0.0.1:3379 put greeting hello\n";

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
        fputs(usage, stdout);
        return EXIT_OK;
    }
    if (strcmp(argv[0], "run") == 0 && argc == 1) {
        run_options_help(stdout);
        return EXIT_OK;
    }
    if (strcmp(argv[0], "run") == 0 && argc == 2 && strcmp(argv[1], "--table") == 0) {
        run_options_table(stdout);
        return EXIT_OK;
    }
    if (strcmp(argv[0], "status") == 0 && argc == 1) {
        status_command_help(stdout);
        return EXIT_OK;
    }
    if (strcmp(argv[0], "wal") == 0 && argc == 1) {
        wal_command_help(stdout);
        return EXIT_OK;
    }
    if (strcmp(argv[0], "plugin") == 0 && argc == 1) {
        plugin_command_help(stdout);
        return EXIT_OK;
    }
    fprintf(stderr,
            "t4 help: there is no help about \"%.64s\"\n  write t4 help, t4 help run, "
            "t4 help status, t4 help wal or t4 help plugin\n",
            argv[argc - 1]);
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
no_more_words(const char *command, int argc, char *const *argv)
{
    if (argc == 0)
        return EXIT_OK;
    fprintf(
        stderr,
        "t4 %s: takes no \"%.64s\"\n  write t4 %s alone; t4 help lists the commands\n",
        command, argv[0], command);
    return EXIT_USAGE;
}

static int
dispatch(int argc, char *const *argv)
{
    const char *command = argv[1];
    int rest = argc - 2, status;

    if (argc < 2) {
        fputs(usage, stderr);
        return EXIT_USAGE;
    }
    if (strcmp(command, "run") == 0)
        return server_run(rest, argv + 2, environ);
    if (strcmp(command, "status") == 0)
        return status_command(rest, argv + 2, environ);
    if (strcmp(command, "wal") == 0)
        return wal_command(rest, argv + 2, environ);
    if (strcmp(command, "plugin") == 0)
        return plugin_command(rest, argv + 2);
    if (strcmp(command, "version") == 0 || strcmp(command, "--version") == 0) {
        status = no_more_words("version", rest, argv + 2);
        return status == EXIT_OK ? version() : status;
    }
    if (strcmp(command, "help") == 0 || strcmp(command, "--help") == 0 ||
        strcmp(command, "-h") == 0)
        return help(rest, argv + 2);
    return refuse_command(command);
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

/*
 * settings.c - the command line of t4-bench: its options, their bounds, the help.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "settings.h"

#include <getopt.h>
#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TXN_CAS_KEYS_MOST 100000000u

static const struct {
    const char *name, *text;
    uint64_t operations;
} modes[MODES] = {
    [MODE_FILL] = {"fill", "puts keys 0 to --keys - 1, each once, in order", 0},
    [MODE_SEQ_PUT] = {"seq-put", "puts, one after the other on one connection", 2000},
    [MODE_PAR_PUT] = {"par-put", "puts, --in-flight on each of --connections", 60000},
    [MODE_SEQ_GET] = {"seq-get", "gets, one after the other on one connection", 5000},
    [MODE_PAR_GET] = {"par-get", "gets, --in-flight on each of --connections", 60000},
    [MODE_MIXED] = {"mixed", "gets and puts, half each, by chance", 60000},
    [MODE_TXN_CAS] = {"txn-cas",
                      "a put if the key still has the revision last seen; else reads it: "
                      "a lost race",
                      30000},
    [MODE_RANGE] = {"range", "reads of --range-keys keys with their values", 2000},
    [MODE_WATCH] =
        {"watch",
         "puts, which each of --watchers gets; an operation is an event delivered", 2000},
    [MODE_KEEPALIVE] = {"keepalive",
                        "keepalives of --leases leases, a stream on each connection",
                        60000},
};

enum kind { NUMBER, TEXT, CHOICE, FLAG };

static const struct option_row {
    const char *name, *argument;
    enum kind kind;
    size_t at; /* in struct settings */
    uint64_t least, most;
    const char *text;
} rows[] = {
#define AT(member) offsetof(struct settings, member)
    {"connections", "N", NUMBER, AT(connections), 1, 10000,
     "connections that ask (4; seq-put, seq-get, watch: 1)"},
    {"in-flight", "N", NUMBER, AT(in_flight), 1, 10000,
     "requests under way on each connection (16; seq-put, seq-get, watch: 1)"},
    {"operations", "N", NUMBER, AT(operations), 1, 1000000000,
     "how many to do (watch: puts)"},
    {"seconds", "N", NUMBER, AT(seconds), 1, 86400,
     "goes on for so long, instead of --operations"},
    {"rate", "N", NUMBER, AT(rate), 1, 1000000,
     "begins so many a second at even distances; latency counts from when an operation "
     "was "
     "due if the requests in flight held it up"},
    {"key-size", "BYTES", NUMBER, AT(key_size), 12, 16384, "size of a key (64)"},
    {"value-size", "BYTES", NUMBER, AT(value_size), 0, 1500000, "size of a value (256)"},
    {"keys", "N", NUMBER, AT(keys), 1, 10000000000, "size of the key space (10000)"},
    {"prefix", "TEXT", TEXT, AT(prefix), 0, 0, "what each key begins with (k)"},
    {"values", "same|random", CHOICE, AT(random_values), 0, 0,
     "the same letters, or bytes that do not compress (same)"},
    {"range-keys", "N", NUMBER, AT(range_keys), 1, 100000, "keys of one range (1000)"},
    {"watchers", "N", NUMBER, AT(watchers), 1, 1000000, "watchers (1000)"},
    {"watch-connections", "N", NUMBER, AT(watch_connections), 1, 10000,
     "connections that these share, one stream each (100)"},
    {"leases", "N", NUMBER, AT(leases), 1, 1000000, "leases kept alive (1000)"},
    {"server-pid", "PID", NUMBER, AT(server_pid), 1, INT32_MAX,
     "also prints CPU time, wake-ups and memory of that process"},
    {"settle", "SECONDS", NUMBER, AT(settle), 0, 600,
     "with --server-pid: the server counts as idle when it has used no more CPU for so "
     "long "
     "than before the load (1); 0: the load alone is measured"},
    {"metrics", "URL", TEXT, AT(metrics), 0, 0,
     "page of metrics, http://HOST:PORT/metrics: also prints puts per sync"},
    {"json", NULL, FLAG, AT(json), 0, 0, "one JSON object instead of lines"},
    {"help", NULL, FLAG, 0, 0, 0, "this text"},
#undef AT
};
#define ROWS (sizeof rows / sizeof rows[0])

const char *
mode_name(enum mode mode)
{
    return modes[mode].name;
}

static void
refuse(const char *text)
{
    fprintf(stderr, "t4-bench: %s\nt4-bench: see t4-bench --help\n", text);
    exit(2);
}

/* A paragraph; the first line begins where the cursor is, the others behind `indent` spaces. */
static void
print_wrapped(const char *text, size_t indent)
{
    size_t column = indent;

    while (*text != '\0') {
        size_t word = strcspn(text, " ");

        if (column > indent && column + 1 + word > 88) {
            printf("\n%*s", (int)indent, "");
            column = indent;
        }
        column += (size_t)printf("%s%.*s", column > indent ? " " : "", (int)word, text);
        text += word + strspn(text + word, " ");
    }
    printf("\n");
}

static void
help(void)
{
    printf(
        "t4-bench - puts load on a server of the etcd v3 API and prints what it "
        "costs.\n\n"
        "Usage: t4-bench [--OPTION VALUE | --OPTION=VALUE]... MODE ENDPOINT\n\nModes\n");
    for (int i = 0; i < MODES; i++)
        printf("  %-10s %s\n", modes[i].name, modes[i].text);
    printf("\nOptions, with their defaults\n");
    for (size_t i = 0; i < ROWS; i++) {
        printf("  --%s%s%s\n      ", rows[i].name, rows[i].argument != NULL ? "=" : "",
               rows[i].argument != NULL ? rows[i].argument : "");
        print_wrapped(rows[i].text, 6);
    }
    printf("\n");
    print_wrapped(
        "Keys are the prefix and a number with leading zeros; which one an operation "
        "takes "
        "is drawn with a fixed seed. seq-get, par-get, mixed, txn-cas and range want the "
        "keys "
        "of fill to be there. Every answer is looked at: a get has its key, a range all "
        "of "
        "its keys, a watcher each event once, a lease its time. Exit status 1 if one is "
        "wrong "
        "or a request failed, 2 if the command line is wrong or the load cannot be run.",
        0);
    exit(0);
}

static uint64_t
number(const struct option_row *row, const char *text)
{
    char *end, line[256];
    uint64_t n = strtoull(text, &end, 10);

    if (*text >= '0' && *text <= '9' && *end == '\0' && n >= row->least && n <= row->most)
        return n;
    snprintf(line, sizeof line,
             "--%s must be a number from %" PRIu64 " to %" PRIu64 ", not \"%.60s\"",
             row->name, row->least, row->most, text);
    refuse(line);
    return 0;
}

static void
set_option(struct settings *s, const struct option_row *row, const char *text)
{
    void *at = (char *)s + row->at;
    char line[128];

    switch (row->kind) {
    case NUMBER: *(uint64_t *)at = number(row, text); return;
    case TEXT: *(const char **)at = text; return;
    case FLAG: *(bool *)at = true; return;
    case CHOICE: break;
    }
    if (strcmp(text, "same") != 0 && strcmp(text, "random") != 0) {
        snprintf(line, sizeof line, "--%s must be same or random, not \"%.60s\"",
                 row->name, text);
        refuse(line);
    }
    *(bool *)at = text[0] == 'r';
}

static void
set_mode(struct settings *s, const char *name)
{
    char line[128];

    while (s->mode < MODES && strcmp(modes[s->mode].name, name) != 0)
        s->mode++;
    if (s->mode < MODES)
        return;
    snprintf(line, sizeof line, "there is no mode \"%.60s\"", name);
    refuse(line);
}

/* What was not given, and what does not go together. */
static void
complete(struct settings *s)
{
    bool one_by_one = s->mode == MODE_SEQ_PUT || s->mode == MODE_SEQ_GET;

    if (one_by_one && (s->connections > 1 || s->in_flight > 1))
        refuse("seq-put and seq-get have one connection with one request in flight: "
               "par-put and par-get have more");
    if (s->connections == 0)
        s->connections = one_by_one || s->mode == MODE_WATCH ? 1 : 4;
    if (s->in_flight == 0)
        s->in_flight = one_by_one || s->mode == MODE_WATCH ? 1 : 16;
    if (s->mode == MODE_FILL && (s->operations > 0 || s->seconds > 0))
        refuse("fill puts each of --keys once: it takes neither --operations nor "
               "--seconds");
    if (s->operations > 0 && s->seconds > 0)
        refuse("--operations and --seconds exclude each other");
    if (s->operations == 0 && s->seconds == 0)
        s->operations = s->mode == MODE_FILL ? s->keys : modes[s->mode].operations;
    if (s->mode == MODE_RANGE && s->range_keys > s->keys)
        refuse("--range-keys is more than --keys");
    if (s->mode == MODE_TXN_CAS && s->keys > TXN_CAS_KEYS_MOST)
        refuse("txn-cas remembers a revision for each of --keys: 100000000 at most");
    if (strlen(s->prefix) + 11 > s->key_size)
        refuse("--key-size must be at least 11 more than the length of --prefix");
    if (s->mode == MODE_WATCH && s->watchers < s->watch_connections)
        refuse("--watchers is less than --watch-connections");
    if (s->mode == MODE_KEEPALIVE && s->rate > 0)
        refuse("keepalive takes no --rate");
    if (s->mode == MODE_KEEPALIVE && s->leases < s->connections * s->in_flight)
        refuse(
            "keepalive wants at least --connections x --in-flight --leases: each has one "
            "keepalive under way at most");
    if (s->metrics != NULL && strncmp(s->metrics, "http://", 7) != 0)
        refuse("--metrics must begin with http://");
}

void
settings_read(struct settings *s, int argc, char **argv)
{
    struct option options[ROWS + 1];
    int i;

    *s = (struct settings){.key_size = 64,
                           .value_size = 256,
                           .keys = 10000,
                           .prefix = "k",
                           .range_keys = 1000,
                           .watchers = 1000,
                           .watch_connections = 100,
                           .leases = 1000,
                           .settle = 1};
    memset(options, 0, sizeof options);
    for (i = 0; i < (int)ROWS; i++)
        options[i] = (struct option){rows[i].name, rows[i].argument != NULL, NULL, i};
    while ((i = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (i < 0 || i >= (int)ROWS)
            refuse("the command line is not understood");
        if (strcmp(rows[i].name, "help") == 0)
            help();
        set_option(s, &rows[i], optarg);
    }
    if (argc - optind != 2)
        refuse("a mode and an endpoint are wanted");
    set_mode(s, argv[optind]);
    s->endpoint = argv[optind + 1];
    complete(s);
}

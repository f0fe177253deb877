/*
 * settings.h - what t4-bench is told to do: its command line as a struct.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef LOAD_SETTINGS_H
#define LOAD_SETTINGS_H

#include <stdbool.h>
#include <stdint.h>

enum mode {
    MODE_FILL,
    MODE_SEQ_PUT,
    MODE_PAR_PUT,
    MODE_SEQ_GET,
    MODE_PAR_GET,
    MODE_MIXED,
    MODE_TXN_CAS,
    MODE_RANGE,
    MODE_WATCH,
    MODE_KEEPALIVE,
    MODES
};

struct settings {
    enum mode mode;
    const char *endpoint;
    uint64_t connections, in_flight; /* in_flight: on each connection */
    uint64_t operations;             /* 0: until `seconds` are over */
    uint64_t seconds;
    uint64_t rate; /* operations begun per second over all connections; 0: no bound */
    uint64_t key_size, value_size, keys, range_keys;
    const char *prefix; /* what each key begins with */
    bool random_values;
    uint64_t watchers, watch_connections;
    uint64_t leases;
    uint64_t server_pid; /* 0: not asked for */
    uint64_t settle;     /* seconds, see server_settle(); 0: does not */
    const char *metrics; /* URL; NULL: not asked for */
    bool json;
};

const char *mode_name(enum mode mode);
/* Reads and checks the command line; --help and what is wrong with it end the process. */
void settings_read(struct settings *s, int argc, char **argv);

#endif

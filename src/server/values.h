/*
 * values.h - reading and writing flags' values: numbers, sizes, durations, addresses.
 *
 * Pure functions; any thread.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef SERVER_VALUES_H
#define SERVER_VALUES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

/*
 * The value of the flag `name` ("--name") if argv[*i] is that one: behind its "=", or the next
 * word, to which *i is moved on.  NULL: argv[*i] is another flag; "": the value is missing.
 */
const char *flag_value(const char *name, int argc, char *const *argv, int *i);
/* INVALID: the flag does not take that value, or has none (""). */
t4_status flag_refuse(struct error *error, const char *flag, const char *value,
                      const char *hint);

/* The value of a variable of "NAME=value" entries ended by NULL; NULL: not set, or empty. */
const char *environment_value(char *const *environment, const char *name);

/*
 * Each returns true and sets *out when all of `text` is such a value; false when it is
 * malformed or beyond 63 bits.  Range checks are the caller's.
 */
bool value_parse_int(const char *text, int64_t *out);
/* "512KiB", "1.5MiB", "64k": powers of 1,024; no unit: bytes. */
bool value_parse_size(const char *text, int64_t *out);
/* As in Go: "300ms", "1.5h", "1h30m"; units ns us ms s m h; in nanoseconds.  Not negative. */
bool value_parse_duration(const char *text, int64_t *out);
/* true, false, yes, no, on, off, 1, 0 */
bool value_parse_bool(const char *text, int64_t *out);

/* The shortest exact form, for messages: "1.5MiB" is written "1536KiB". */
void value_format_size(int64_t bytes, char *out, size_t n);
void value_format_duration(int64_t ns, char *out, size_t n);

#define ADDRESS_HOST_BYTES 256

/* Where to listen: a host and a port, or the path of a unix socket. */
struct address {
    char host[ADDRESS_HOST_BYTES]; /* IPv6 without brackets; or the path */
    char port[8];                  /* "" for a unix socket */
    bool is_unix;
    bool is_private;  /* loopback or unix socket: other machines do not reach it */
    bool is_wildcard; /* 0.0.0.0 or :: */
    int fd;           /* of a socket that listens there already, or -1 */
};

/*
 * NULL, or why `text` is no address: a few words that continue "... : ".  The form of a URL,
 * "http://host:port" and "unix://path", is taken, too.
 */
const char *address_parse(const char *text, struct address *out);
/* "host:port", "[v6]:port" or "unix:/path". */
void address_format(const struct address *a, char *out, size_t n);
#define ADDRESS_TEXT_BYTES (ADDRESS_HOST_BYTES + 16)

#endif

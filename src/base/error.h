/*
 * error.h - the report that goes with a failed call: what happened, to which object, and
 * what to do (I13).
 *
 * A function that can fail for a reason that a person must read takes `struct error *` last
 * and returns t4_status.  The caller owns the struct (usually on its stack).
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef BASE_ERROR_H
#define BASE_ERROR_H

#include "include/t4_plugin.h"

struct error {
    t4_status status;
    char message[512]; /* what happened, to which object; no final full stop */
    char hint[512];    /* the way out; may be empty */
};

/* Fills *e (which may be NULL) and returns `status`. */
t4_status error_set(struct error *e, t4_status status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
t4_status error_hint(struct error *e, const char *format, ...)
    __attribute__((format(printf, 2, 3))); /* adds the hint; returns e's status */
/* Puts "context: " before the message; returns e's status. */
t4_status error_wrap(struct error *e, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
/* "not found", "corrupt", ...: never NULL. */
const char *status_text(t4_status status);

#endif

/*
 * error.c - error reports.  See error.h.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "base/error.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

t4_status
error_set(struct error *e, t4_status status, const char *format, ...)
{
    va_list ap;

    if (e == NULL)
        return status;
    e->status = status;
    e->hint[0] = '\0';
    va_start(ap, format);
    vsnprintf(e->message, sizeof e->message, format, ap);
    va_end(ap);
    return status;
}

t4_status
error_hint(struct error *e, const char *format, ...)
{
    va_list ap;

    if (e == NULL)
        return T4_E_INTERNAL;
    va_start(ap, format);
    vsnprintf(e->hint, sizeof e->hint, format, ap);
    va_end(ap);
    return e->status;
}

t4_status
error_wrap(struct error *e, const char *format, ...)
{
    char head[256], whole[sizeof e->message + sizeof head + 2];
    va_list ap;

    if (e == NULL)
        return T4_E_INTERNAL;
    va_start(ap, format);
    vsnprintf(head, sizeof head, format, ap);
    va_end(ap);
    snprintf(whole, sizeof whole, "%s: %s", head, e->message);
    whole[sizeof e->message - 1] = '\0';
    memcpy(e->message, whole, strlen(whole) + 1);
    return e->status;
}

const char *
status_text(t4_status status)
{
    static const char *const text[] = {
        "ok",
        "not found",
        "already exists",
        "precondition failed",
        "busy",
        "timed out",
        "cancelled",
        "outcome unknown",
        "unavailable",
        "denied",
        "invalid",
        "corrupt",
        "no space left",
        "out of memory",
        "unsupported",
        "internal error",
        "input/output error",
    };
    unsigned i = status <= 0 ? 0u - (unsigned)status : sizeof text;

    return i < sizeof text / sizeof text[0] ? text[i] : "internal error";
}

/*
 * log.c - composes one line and hands it to one write(2), or to the thread's sink.  See log.h.
 *
 * Text:  2026-11-21T01:23:45.678Z INFO message key=value key="value with blanks"
 * JSON:  {"time":"2026-11-21T01:23:45.678Z","level":"info","message":"...","key":"value"}
 *
 * Times are UTC.  In text a value is quoted when it is empty or holds a blank, a quote, an
 * equals sign, a backslash or a control character; quoted values and the message escape
 * control characters, so an event is always one line, whatever a client has sent.  JSON strings
 * are valid UTF-8: a byte that is not part of a character becomes U+FFFD.
 *
 * Invariants
 *  (1) a line is at most LINE_MAX_BYTES, which a pipe takes as a whole (PIPE_BUF); what does
 *      not fit is replaced by "...", and the line stays well-formed
 *  (2) nothing is allocated, no lock is taken: logging works when memory is exhausted
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "base/log.h"

#include <errno.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define LINE_MAX_BYTES 4096
#define TAIL_BYTES 16 /* kept for the ellipsis, closing quotes and braces, the newline */

static _Atomic int log_level = LOG_LEVEL_INFO;
static _Atomic int log_format = LOG_FORMAT_TEXT;
static _Thread_local const struct log_sink *thread_sink; /* NULL: the process's log */

struct line {
    char data[LINE_MAX_BYTES];
    size_t len;
    bool full; /* something was left out: nothing but the closing is added any more */
};

void
log_configure(enum log_level level, enum log_format format)
{
    atomic_store(&log_level, level);
    atomic_store(&log_format, format);
}

const struct log_sink *
log_set_sink(const struct log_sink *sink)
{
    const struct log_sink *before = thread_sink;

    thread_sink = sink;
    return before;
}

const struct log_sink *
log_get_sink(void)
{
    return thread_sink;
}

bool
log_enabled(enum log_level level)
{
    if (thread_sink != NULL)
        return thread_sink->write != NULL && level <= thread_sink->level;
    return (int)level <= atomic_load_explicit(&log_level, memory_order_relaxed);
}

/* All n bytes or, when they do not fit, an ellipsis, once. */
static void
put(struct line *l, const char *data, size_t n)
{
    if (l->full)
        return;
    if (l->len + n > LINE_MAX_BYTES - TAIL_BYTES) {
        memcpy(l->data + l->len, "...", 3);
        l->len += 3;
        l->full = true;
        return;
    }
    memcpy(l->data + l->len, data, n);
    l->len += n;
}

static void
put_text(struct line *l, const char *text)
{
    put(l, text, strlen(text));
}

/* What closes a string or the line: TAIL_BYTES leave room for it. */
static void
put_closing(struct line *l, const char *text)
{
    size_t n = strlen(text);

    memcpy(l->data + l->len, text, n);
    l->len += n;
}

/* Length of the UTF-8 character at p (1 to 4), 0 if there is none.  Stops at the NUL. */
static size_t
character_length(const unsigned char *p)
{
    size_t n = p[0] < 0x80                   ? 1
               : p[0] >= 0xc2 && p[0] < 0xe0 ? 2
               : p[0] >= 0xe0 && p[0] < 0xf0 ? 3
               : p[0] >= 0xf0 && p[0] < 0xf5 ? 4
                                             : 0;

    for (size_t i = 1; i < n; i++) {
        if ((p[i] & 0xc0) != 0x80)
            return 0;
    }
    if (n == 3 && ((p[0] == 0xe0 && p[1] < 0xa0) || (p[0] == 0xed && p[1] >= 0xa0)))
        return 0; /* overlong; surrogate */
    if (n == 4 && ((p[0] == 0xf0 && p[1] < 0x90) || (p[0] == 0xf4 && p[1] >= 0x90)))
        return 0; /* overlong; above U+10FFFF */
    return n;
}

/* The inside of a quoted string, or of the message (quotes: false). */
static void
put_escaped(struct line *l, const char *text, bool json, bool quotes)
{
    const unsigned char *p = (const unsigned char *)text;
    char escape[8];
    size_t n;

    while (*p != '\0' && !l->full) {
        n = character_length(p);
        if (n > 1) {
            put(l, (const char *)p, n);
            p += n;
            continue;
        }
        if (n == 0 && json) {
            put_text(l, "\xef\xbf\xbd");
        } else if (n == 0) {
            snprintf(escape, sizeof escape, "\\x%02x", *p);
            put_text(l, escape);
        } else if (*p == '\n' || *p == '\r' || *p == '\t') {
            put_text(l, *p == '\n' ? "\\n" : *p == '\r' ? "\\r" : "\\t");
        } else if (*p < 0x20 || *p == 0x7f) {
            snprintf(escape, sizeof escape, json ? "\\u%04x" : "\\x%02x", *p);
            put_text(l, escape);
        } else if (quotes && (*p == '"' || *p == '\\')) {
            put(l, (char[]){'\\', (char)*p}, 2);
        } else {
            put(l, (const char *)p, 1);
        }
        p++;
    }
}

static bool
needs_quotes(const char *value)
{
    const unsigned char *p = (const unsigned char *)value;

    if (*p == '\0')
        return true;
    while (*p != '\0') {
        size_t n = character_length(p);

        if (n == 0 || *p <= ' ' || *p == 0x7f || *p == '"' || *p == '=' || *p == '\\')
            return true;
        p += n;
    }
    return false;
}

static void
put_json_string(struct line *l, const char *text)
{
    if (l->full)
        return;
    put(l, "\"", 1);
    if (l->full)
        return; /* the ellipsis stands where the string would have: see put_pair() */
    put_escaped(l, text, true, true);
    put_closing(l, "\"");
}

/* A pair is begun only if its name and an ellipsis as its value fit. */
static void
put_pair(struct line *l, bool json, const char *key, const char *value)
{
    /* Every byte of a name may take six in JSON. */
    if (l->full || l->len + 6 * strlen(key) + 8 > LINE_MAX_BYTES - TAIL_BYTES) {
        l->full = true;
        return;
    }
    if (json) {
        put(l, ",", 1);
        put_json_string(l, key);
        put(l, ":", 1);
        put_json_string(l, value);
        return;
    }
    put(l, " ", 1);
    put_escaped(l, key, false, false);
    put(l, "=", 1);
    if (needs_quotes(value)) {
        put(l, "\"", 1);
        put_escaped(l, value, false, true);
        put_closing(l, "\"");
    } else {
        put_escaped(l, value, false, false); /* by characters: cut where it must be */
    }
}

/* A sink takes text, whatever the process's log is. */
static bool
writes_json(void)
{
    return thread_sink == NULL &&
           atomic_load_explicit(&log_format, memory_order_relaxed) == LOG_FORMAT_JSON;
}

static void
begin(struct line *l, bool json, enum log_level level, const char *message)
{
    static const char *const upper[] = {"", "ERROR", "WARN", "INFO", "DEBUG"};
    static const char *const lower[] = {"", "error", "warn", "info", "debug"};
    char stamp[64];
    struct timespec now;
    struct tm tm;

    l->len = 0;
    l->full = false;
    if (thread_sink != NULL) {
        put_escaped(l, message, false, false);
        return;
    }
    clock_gettime(CLOCK_REALTIME, &now);
    gmtime_r(&now.tv_sec, &tm);
    snprintf(stamp, sizeof stamp, "%04d-%02d-%02dT%02d:%02d:%02d.%03dZ",
             tm.tm_year + 1900, tm.tm_mon + 1, tm.tm_mday, tm.tm_hour, tm.tm_min,
             tm.tm_sec, (int)(now.tv_nsec / 1000000));
    if (json) {
        put_text(l, "{\"time\":\"");
        put_text(l, stamp);
        put_text(l, "\",\"level\":\"");
        put_text(l, lower[level]);
        put_text(l, "\",\"message\":");
        put_json_string(l, message);
    } else {
        put_text(l, stamp);
        put(l, " ", 1);
        put_text(l, upper[level]);
        put(l, " ", 1);
        put_escaped(l, message, false, false);
    }
}

/* Nobody can be told that the log cannot be written: what does not go out is dropped. */
static void
finish(struct line *l, bool json, enum log_level level)
{
    const char *p = l->data;
    ssize_t n;

    if (thread_sink != NULL) {
        l->data[l->len] = '\0';
        thread_sink->write(thread_sink->arg, level, l->data);
        return;
    }
    put_closing(l, json ? "}\n" : "\n");
    while (l->len > 0) {
        n = write(STDERR_FILENO, p, l->len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return;
        p += n;
        l->len -= (size_t)n;
    }
}

void
log_write(enum log_level level, const char *message, ...)
{
    bool json = writes_json();
    int saved = errno;
    struct line l;
    const char *key;
    va_list ap;

    if (!log_enabled(level))
        return;
    begin(&l, json, level, message);
    va_start(ap, message);
    while ((key = va_arg(ap, const char *)) != NULL) {
        const char *value = va_arg(ap, const char *);

        put_pair(&l, json, key, value != NULL ? value : "");
    }
    va_end(ap);
    finish(&l, json, level);
    errno = saved;
}

void
log_printf(enum log_level level, const char *format, ...)
{
    bool json = writes_json();
    int saved = errno;
    char message[2048];
    struct line l;
    va_list ap;

    if (!log_enabled(level))
        return;
    va_start(ap, format);
    vsnprintf(message, sizeof message, format, ap);
    va_end(ap);
    begin(&l, json, level, message);
    finish(&l, json, level);
    errno = saved;
}

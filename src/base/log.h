/*
 * log.h - where events are logged: the process's log on stderr, or a thread's own sink.
 *
 * On stderr an event is one line, text or JSON.  Level and format are the only process-wide
 * state besides the plugins' code; they are set once at start, before other threads exist.  A
 * line is written by one write(2), so lines of several threads do not mix.  No secret is ever
 * passed here (I14).  Any thread.
 *
 * A thread with a sink logs there instead, and so do the threads that it starts
 * (thread_start()): two databases in one process have each their own log.
 *
 * Keys and values after the message: LOG_INFO("listening", "address", text, NULL) - pairs of
 * const char *, ended by NULL.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef BASE_LOG_H
#define BASE_LOG_H

#include <stdbool.h>

enum log_level { LOG_LEVEL_ERROR = 1, LOG_LEVEL_WARN, LOG_LEVEL_INFO, LOG_LEVEL_DEBUG };
enum log_format { LOG_FORMAT_TEXT, LOG_FORMAT_JSON };

void log_configure(enum log_level level, enum log_format format);
bool log_enabled(enum log_level level);
void log_write(enum log_level level, const char *message, ...) __attribute__((sentinel));
/* printf-style message without pairs. */
void log_printf(enum log_level level, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

struct log_sink {
    enum log_level level; /* what is less important is not composed */
    /* One event as in a text line, without time, level and line end.  NULL: dropped. */
    void (*write)(void *arg, enum log_level level, const char *event);
    void *arg;
};
/*
 * From now on the calling thread, and threads that it starts, log to `sink`, which outlives
 * them; NULL: to the process's log.  Returns what was there before.
 */
const struct log_sink *log_set_sink(const struct log_sink *sink);
const struct log_sink *log_get_sink(void);

#define LOG_ERROR(...) log_write(LOG_LEVEL_ERROR, __VA_ARGS__)
#define LOG_WARN(...) log_write(LOG_LEVEL_WARN, __VA_ARGS__)
#define LOG_INFO(...) log_write(LOG_LEVEL_INFO, __VA_ARGS__)
#define LOG_DEBUG(...)                                                                   \
    do {                                                                                 \
        if (log_enabled(LOG_LEVEL_DEBUG))                                                \
            log_write(LOG_LEVEL_DEBUG, __VA_ARGS__);                                     \
    } while (0)

#endif

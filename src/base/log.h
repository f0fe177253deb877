/*
 * log.h - the process's log: one line per event on stderr, text or JSON.
 *
 * The only process-wide state besides the plugins' code; level and format are set once at
 * start, before other threads exist.  A line is written by one write(2), so lines of
 * several threads do not mix.  No secret is ever passed here (I14).  Any thread.
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

#define LOG_ERROR(...) log_write(LOG_LEVEL_ERROR, __VA_ARGS__)
#define LOG_WARN(...) log_write(LOG_LEVEL_WARN, __VA_ARGS__)
#define LOG_INFO(...) log_write(LOG_LEVEL_INFO, __VA_ARGS__)
#define LOG_DEBUG(...)                                                                   \
    do {                                                                                 \
        if (log_enabled(LOG_LEVEL_DEBUG))                                                \
            log_write(LOG_LEVEL_DEBUG, __VA_ARGS__);                                     \
    } while (0)

#endif

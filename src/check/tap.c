/*
 * tap.c - the kit's output: the Test Anything Protocol.
 *
 * Entry points: check_ok(), check_note(), check_skip(), check_done().  Runs on: the thread
 * of the check.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <stdarg.h>
#include <string.h>

#include "check/check_int.h"

/* A '#' in a name would begin a directive; a line break a new line. */
static void
write_text(FILE *out, const char *text)
{
    for (; *text != '\0'; text++) {
        if ((unsigned char)*text < 0x20)
            fputc(' ', out);
        else
            fputc(*text == '#' ? ' ' : *text, out);
    }
}

bool
check_ok(struct check *c, bool good, const char *format, ...)
{
    char text[1024];
    va_list args;

    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    c->count++;
    c->failed += !good;
    fprintf(c->options->out, "%sok %u - ", good ? "" : "not ", c->count);
    write_text(c->options->out, text);
    fputc('\n', c->options->out);
    fflush(c->options->out);
    return good;
}

void
check_note(struct check *c, const char *format, ...)
{
    char text[2048];
    va_list args;

    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    fputs("# ", c->options->out);
    write_text(c->options->out, text);
    fputc('\n', c->options->out);
    fflush(c->options->out);
}

void
check_skip(struct check *c, const char *what, const char *why)
{
    c->count++;
    fprintf(c->options->out, "ok %u - ", c->count);
    write_text(c->options->out, what);
    fputs(" # SKIP ", c->options->out);
    write_text(c->options->out, why);
    fputc('\n', c->options->out);
    fflush(c->options->out);
}

bool
check_done(struct check *c)
{
    fprintf(c->options->out, "1..%u\n", c->count);
    if (c->failed > 0)
        check_note(c, "%u of %u failed", c->failed, c->count);
    return c->failed == 0;
}

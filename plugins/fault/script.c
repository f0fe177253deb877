/*
 * script.c - the control file: how the wrapper is told at run time what to do.
 *
 * The file is read for each call, so a line counts from the moment at which it is there.
 * Whoever writes it replaces it as a whole (rename), so no call sees half of it.  A line
 * that cannot be understood fails the call: a test whose script is wrong must not pass.
 *
 * Entry points: fault_read_script(), fault_match(), fault_read_latency().  Runs on: any
 * thread.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fault.h"

#define MAX_FILE 65536
#define MAX_WORDS 24

/* --- latency ------------------------------------------------------------------------ */

/* "28", or "50:28 90:40 99:81": percentile:milliseconds. */
bool
fault_read_latency(const char *text, struct fault_latency *out)
{
    const char *p = text;
    char *end;

    out->n = 0;
    while (*p == ' ')
        p++;
    while (*p != '\0') {
        double percent = 50, ms = strtod(p, &end);

        if (end == p || out->n == FAULT_MAX_POINTS)
            return false;
        if (*end == ':') {
            percent = ms;
            p = end + 1;
            ms = strtod(p, &end);
            if (end == p)
                return false;
        } else if (out->n > 0) {
            return false;
        }
        if (!(percent >= 0 && percent <= 100 && ms >= 0 && ms <= 1e9) ||
            (out->n > 0 && (percent <= out->point[out->n - 1].percent ||
                            ms < out->point[out->n - 1].ms)))
            return false;
        out->point[out->n].percent = percent;
        out->point[out->n++].ms = ms;
        for (p = end; *p == ' ' || *p == ','; p++)
            continue;
    }
    return true;
}

/* Straight lines between the points, level before the first and behind the last. */
double
fault_latency_ms(const struct fault_latency *l, double percent)
{
    if (l->n == 0)
        return 0;
    for (unsigned i = 0; i < l->n; i++) {
        if (percent > l->point[i].percent)
            continue;
        if (i == 0)
            return l->point[0].ms;
        return l->point[i - 1].ms + (l->point[i].ms - l->point[i - 1].ms) *
                                        (percent - l->point[i - 1].percent) /
                                        (l->point[i].percent - l->point[i - 1].percent);
    }
    return l->point[l->n - 1].ms;
}

/* --- lines -------------------------------------------------------------------------- */

static uint64_t
hash(const char *text)
{
    uint64_t h = 14695981039346656037u;

    for (; *text != '\0'; text++)
        h = (h ^ (uint8_t)*text) * 1099511628211u;
    return h;
}

static bool
read_calls(const char *word, unsigned *out)
{
    static const struct {
        const char *name;
        unsigned calls;
    } names[] = {{"put", FAULT_PUT},
                 {"get", FAULT_GET},
                 {"head", FAULT_HEAD},
                 {"remove", FAULT_REMOVE},
                 {"list", FAULT_LIST},
                 {"late", FAULT_LATE},
                 {"write", FAULT_WRITES},
                 {"read", FAULT_GET | FAULT_HEAD | FAULT_LIST},
                 {"any", FAULT_WRITES | FAULT_GET | FAULT_HEAD | FAULT_LIST}};

    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (strcmp(word, names[i].name) == 0) {
            *out = names[i].calls;
            return true;
        }
    return false;
}

static bool
read_mode(const char *word, enum fault_mode *out)
{
    static const struct {
        const char *name;
        enum fault_mode mode;
    } names[] = {{"before", FAULT_BEFORE},  {"busy", FAULT_BUSY},
                 {"after", FAULT_AFTER},    {"lost", FAULT_LOST},
                 {"late", FAULT_LATE_MODE}, {"denied", FAULT_DENIED},
                 {"full", FAULT_NOSPACE}};

    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (strcmp(word, names[i].name) == 0) {
            *out = names[i].mode;
            return true;
        }
    return false;
}

static bool
read_number(const char *word, int64_t *out)
{
    char *end;

    errno = 0;
    *out = strtoll(word, &end, 10);
    return end != word && *end == '\0' && errno == 0;
}

/* hold|hold-answer CALLS PREFIX; fail CALLS PREFIX COUNT MODE [MS] */
static bool
read_rule(char *const *word, unsigned n, struct fault_rule *r)
{
    int64_t number;

    if (n < 3 || !read_calls(word[1], &r->calls) || strlen(word[2]) >= sizeof r->prefix)
        return false;
    strcpy(r->prefix, strcmp(word[2], "*") == 0 ? "" : word[2]);
    r->late_ms = -1;
    if (strcmp(word[0], "hold") == 0) {
        r->kind = RULE_HOLD;
        return n == 3;
    }
    if (strcmp(word[0], "hold-answer") == 0) {
        r->kind = RULE_HOLD_ANSWER;
        return n == 3;
    }
    r->kind = RULE_FAIL;
    if (n < 5 || !read_number(word[3], &number) || number < 1 || number > 1000000 ||
        !read_mode(word[4], &r->mode))
        return false;
    r->count = (unsigned)number;
    if (n == 5)
        return true;
    if (n != 6 || r->mode != FAULT_LATE_MODE || !read_number(word[5], &r->late_ms))
        return false;
    return r->late_ms >= 0;
}

static bool
read_latency_words(char *const *word, unsigned n, struct fault_latency *out)
{
    char text[512] = "";
    size_t used = 0;

    for (unsigned i = 1; i < n && used < sizeof text; i++)
        used += (size_t)snprintf(text + used, sizeof text - used, "%s ", word[i]);
    return used < sizeof text && fault_read_latency(text, out);
}

/* A '#' ends the line; before it, what counts. */
static bool
read_line(char *line, struct fault_script *s)
{
    char *word[MAX_WORDS], *save = NULL;
    uint64_t h = hash(line);
    unsigned n = 0;

    line[strcspn(line, "#")] = '\0';
    for (char *w = strtok_r(line, " \t\r", &save); w != NULL;
         w = strtok_r(NULL, " \t\r", &save)) {
        if (n == MAX_WORDS)
            return false;
        word[n++] = w;
    }
    if (n == 0)
        return true;
    if (strcmp(word[0], "hold") == 0 || strcmp(word[0], "hold-answer") == 0 ||
        strcmp(word[0], "fail") == 0) {
        if (s->n_rules == FAULT_MAX_RULES || !read_rule(word, n, &s->rules[s->n_rules]))
            return false;
        s->rules[s->n_rules++].line = h;
        return true;
    }
    if (strcmp(word[0], "latency") == 0) {
        s->has_latency = true;
        return n >= 2 && read_latency_words(word, n, &s->latency);
    }
    if (strcmp(word[0], "skew") == 0) {
        s->has_skew = true;
        return n == 2 && read_number(word[1], &s->skew_ms);
    }
    if (strcmp(word[0], "drain") == 0) {
        s->drain = true;
        return n == 2 && strcmp(word[1], "late") == 0;
    }
    if (n != 1)
        return false;
    if (strcmp(word[0], "outage") == 0)
        s->outage = true;
    else if (strcmp(word[0], "readonly") == 0)
        s->readonly = true;
    else if (strcmp(word[0], "denied") == 0)
        s->denied = true;
    else if (strcmp(word[0], "full") == 0)
        s->full = true;
    else if (strcmp(word[0], "throttle") == 0)
        s->throttle = true;
    else
        return false;
    return true;
}

/* --- the file ----------------------------------------------------------------------- */

/* Returns the length, 0 without a file, -1 and errno. */
static ssize_t
read_file(const char *path, char *out)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = 0, r;

    if (fd < 0)
        return errno == ENOENT ? 0 : -1;
    while ((r = read(fd, out + n, MAX_FILE - (size_t)n)) > 0 && n + r < MAX_FILE)
        n += r;
    close(fd);
    return n;
}

static void
forget_counters(struct t4_store *s, const struct fault_script *script)
{
    unsigned kept = 0;

    for (unsigned i = 0; i < s->n_counters; i++) {
        bool there = false;

        for (unsigned k = 0; k < script->n_rules; k++)
            there |= script->rules[k].line == s->counters[i].line;
        if (there)
            s->counters[kept++] = s->counters[i];
    }
    s->n_counters = kept;
}

t4_status
fault_read_script(struct t4_store *s, struct t4_call *call, struct fault_script *out)
{
    char *text, *line, message[128], detail[256];
    unsigned number = 0;
    t4_status st = T4_OK;
    ssize_t n;

    memset(out, 0, sizeof *out);
    out->outage = s->plugin->outage;
    if (s->plugin->control[0] == '\0')
        return T4_OK;
    text = s->host->alloc(s->host, MAX_FILE + 1);
    if (text == NULL)
        return T4_E_NOMEM;
    n = read_file(s->plugin->control, text);
    if (n < 0) {
        st = s->host->fail(call, T4_E_INVALID, "fault.control cannot be read",
                           strerror(errno), NULL);
        goto done;
    }
    text[n] = '\0';
    for (char *rest = text; (line = strsep(&rest, "\n")) != NULL;) {
        number++;
        snprintf(detail, sizeof detail, "%s", line);
        if (read_line(line, out))
            continue;
        snprintf(message, sizeof message, "fault.control, line %u", number);
        st = s->host->fail(call, T4_E_INVALID, message, detail,
                           "plugins/fault/README.md has the lines that are known");
        break;
    }
    if (st == T4_OK) {
        pthread_mutex_lock(&s->mutex);
        forget_counters(s, out);
        pthread_mutex_unlock(&s->mutex);
    }
done:
    s->host->free(s->host, text);
    return st;
}

/* Takes one of the calls that a line is good for; false: they are used up. */
static bool
use_up(struct t4_store *s, const struct fault_rule *r)
{
    struct fault_counter *c = NULL;
    bool good = false;

    pthread_mutex_lock(&s->mutex);
    for (unsigned i = 0; i < s->n_counters; i++)
        if (s->counters[i].line == r->line)
            c = &s->counters[i];
    if (c == NULL && s->n_counters < FAULT_MAX_RULES) {
        c = &s->counters[s->n_counters++];
        *c = (struct fault_counter){.line = r->line};
    }
    if (c != NULL && c->used < r->count) {
        c->used++;
        good = true;
    }
    pthread_mutex_unlock(&s->mutex);
    return good;
}

const struct fault_rule *
fault_match(struct t4_store *s, const struct fault_script *script, int kind,
            unsigned call_kind, struct t4_slice key)
{
    for (unsigned i = 0; i < script->n_rules; i++) {
        const struct fault_rule *r = &script->rules[i];
        size_t n = strlen(r->prefix);

        if ((int)r->kind != kind || !(r->calls & call_kind) || key.len < n ||
            (n > 0 && memcmp(key.data, r->prefix, n) != 0)) /* an empty key may be NULL */
            continue;
        if (kind == RULE_FAIL && !use_up(s, r))
            continue;
        return r;
    }
    return NULL;
}

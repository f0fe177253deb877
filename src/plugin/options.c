/*
 * options.c - parsing and range-checking the settings of a plugin.
 *
 * A plugin lists its options as texts (name, type, default, least and greatest value);
 * the host does the reading, so that every plugin's settings are written alike and
 * refused alike.  Default and bounds go through the same reader as the setting.
 *
 * Entry points: options_parse(), options_free().  Runs on: the main thread.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "plugin/options.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "base/distance.h"
#include "base/memory.h"
#include "base/slice.h"

#define MAX_NAME 64
#define MAX_TEXT 65536

/* "setting lmdb." or "option ": what stands before an option's name in words. */
#define BEFORE_NAME(plugin)                                                              \
    (plugin) != NULL ? "setting " : "option ", (plugin) != NULL ? (plugin) : "",         \
        (plugin) != NULL ? "." : ""

struct unit {
    const char *name;
    int64_t factor;
};
static const struct unit size_units[] = {
    {"", 1},
    {"B", 1},
    {"kB", 1024},
    {"MB", (int64_t)1 << 20},
    {"GB", (int64_t)1 << 30},
    {"TB", (int64_t)1 << 40},
    {NULL, 0},
};
static const struct unit duration_units[] = {
    {"ms", 1000000},
    {"s", 1000000000},
    {"min", 60 * (int64_t)1000000000},
    {"h", 3600 * (int64_t)1000000000},
    {NULL, 0},
};
static const struct unit no_units[] = {{"", 1}, {NULL, 0}};

/* --- reading one value -------------------------------------------------------------- */

static const char *
type_form(uint32_t type)
{
    switch (type) {
    case T4_OPTION_STRING: return "a text";
    case T4_OPTION_BOOL: return "true or false";
    case T4_OPTION_INT: return "a whole number";
    case T4_OPTION_SIZE:
        return "a size such as 64 MB (kB, MB, GB, TB; without a unit: bytes)";
    case T4_OPTION_DURATION: return "a duration such as 500 ms (ms, s, min, h)";
    }
    return NULL;
}

/* Digits, spaces, one of the units; false: something else, or beyond 63 bits. */
static bool
read_number(const char *text, bool sign, const struct unit *units, int64_t *out)
{
    bool negative = sign && text[0] == '-';
    const char *p = text + negative;
    int64_t v = 0;

    if (*p < '0' || *p > '9')
        return false;
    for (; *p >= '0' && *p <= '9'; p++)
        if (__builtin_mul_overflow(v, 10, &v) || __builtin_add_overflow(v, *p - '0', &v))
            return false;
    while (*p == ' ')
        p++;
    for (; units->name != NULL; units++)
        if (strcmp(p, units->name) == 0)
            break;
    if (units->name == NULL || __builtin_mul_overflow(v, units->factor, &v))
        return false;
    *out = negative ? -v : v;
    return true;
}

static bool
read_bool(const char *text, int64_t *out)
{
    static const char *const yes[] = {"true", "on", "yes", "1"};
    static const char *const no[] = {"false", "off", "no", "0"};

    for (size_t i = 0; i < sizeof yes / sizeof yes[0]; i++) {
        if (strcmp(text, yes[i]) == 0 || strcmp(text, no[i]) == 0) {
            *out = strcmp(text, yes[i]) == 0;
            return true;
        }
    }
    return false;
}

static bool
read_value(uint32_t type, const char *text, int64_t *out)
{
    *out = 0;
    switch (type) {
    case T4_OPTION_STRING: return true;
    case T4_OPTION_BOOL: return read_bool(text, out);
    case T4_OPTION_INT: return read_number(text, true, no_units, out);
    case T4_OPTION_SIZE: return read_number(text, false, size_units, out);
    case T4_OPTION_DURATION: return read_number(text, false, duration_units, out);
    }
    return false;
}

/* "; 1 MB to 64 TB", as far as there are bounds. */
static const char *
range_text(const struct t4_option *o, char *text, size_t n)
{
    if (o->min != NULL && o->max != NULL)
        snprintf(text, n, ", %s to %s", o->min, o->max);
    else if (o->min != NULL)
        snprintf(text, n, ", at least %s", o->min);
    else if (o->max != NULL)
        snprintf(text, n, ", at most %s", o->max);
    else
        text[0] = '\0';
    return text;
}

/* `text` from a setting, or the default when `given` is false. */
static t4_status
parse_one(const char *plugin, const struct t4_option *o, const char *text, bool given,
          struct t4_value *out, struct error *error)
{
    bool secret = (o->flags & T4_OPTION_SECRET) != 0, good;
    char range[160];
    int64_t bound;

    good = strlen(text) <= MAX_TEXT && read_value(o->type, text, &out->number);
    if (good && o->type != T4_OPTION_STRING && o->type != T4_OPTION_BOOL) {
        if (o->min != NULL &&
            (!read_value(o->type, o->min, &bound) || out->number < bound))
            good = false;
        if (o->max != NULL &&
            (!read_value(o->type, o->max, &bound) || out->number > bound))
            good = false;
    }
    if (!good) {
        error_set(error, T4_E_INVALID, "%s%s%s%s: %s%s%s%s is not possible",
                  BEFORE_NAME(plugin), o->name, given ? "" : "its own default ",
                  secret ? "" : "\"", secret ? "the given value" : text,
                  secret ? "" : "\"");
        error_hint(error, "it takes %s%s", type_form(o->type),
                   range_text(o, range, sizeof range));
        return T4_E_INVALID;
    }
    out->text = slice_of(mem_strdup(text), strlen(text));
    return T4_OK;
}

/* --- finding the option of a setting ------------------------------------------------ */

static t4_status
refuse_unknown(const char *plugin, const struct t4_option *options, size_t n,
               const char *name, struct error *error)
{
    const struct t4_option *nearest = NULL;

    if (plugin == NULL)
        error_set(error, T4_E_INVALID, "there is no option \"%.*s\"", MAX_NAME, name);
    else
        error_set(error, T4_E_INVALID, "plugin \"%s\" has no setting \"%.*s\"", plugin,
                  MAX_NAME, name);
    for (size_t i = 0; i < n; i++)
        if (nearest == NULL ||
            word_distance(name, options[i].name) < word_distance(name, nearest->name))
            nearest = &options[i];
    if (nearest == NULL)
        error_hint(error, "this plugin has no settings at all: leave it out");
    else
        error_hint(error, "the nearest is %s%s%s: %s", plugin != NULL ? plugin : "",
                   plugin != NULL ? "." : "", nearest->name,
                   nearest->doc != NULL ? nearest->doc : type_form(nearest->type));
    return T4_E_INVALID;
}

static const struct plugin_setting *
find_setting(const struct plugin_setting *settings, size_t n, const char *name)
{
    for (size_t i = 0; i < n; i++)
        if (strcmp(settings[i].name, name) == 0)
            return &settings[i];
    return NULL;
}

static t4_status
check_settings(const char *plugin, const struct t4_option *options, size_t n_options,
               const struct plugin_setting *settings, size_t n, struct error *error)
{
    for (size_t i = 0; i < n; i++) {
        size_t o = 0;

        while (o < n_options && strcmp(options[o].name, settings[i].name) != 0)
            o++;
        if (o == n_options)
            return refuse_unknown(plugin, options, n_options, settings[i].name, error);
        if (find_setting(settings, i, settings[i].name) != NULL) {
            error_set(error, T4_E_INVALID, "%s%s%s%s is given twice", BEFORE_NAME(plugin),
                      settings[i].name);
            error_hint(error, "keep one of them");
            return T4_E_INVALID;
        }
    }
    return T4_OK;
}

/* --- all options -------------------------------------------------------------------- */

t4_status
options_parse(const char *plugin, const struct t4_option *options, size_t n_options,
              const struct plugin_setting *settings, size_t n_settings,
              struct t4_values *out, struct error *error)
{
    struct t4_value *value;
    t4_status st;

    *out = (struct t4_values){.size = sizeof *out};
    st = check_settings(plugin, options, n_options, settings, n_settings, error);
    if (st != T4_OK)
        return st;

    value = mem_zalloc(n_options * sizeof *value);
    out->value = value;
    out->n = (uint32_t)n_options;
    for (size_t i = 0; i < n_options; i++) {
        const struct t4_option *o = &options[i];
        const struct plugin_setting *s = find_setting(settings, n_settings, o->name);
        const char *text = s != NULL ? s->value : o->default_value;

        if (type_form(o->type) == NULL) {
            st =
                error_set(error, T4_E_UNSUPPORTED,
                          "option %s.%s is of a type (%u) that this server does not know",
                          plugin, o->name, o->type);
            error_hint(error, "use a newer server or an older build of the plugin");
            goto fail_values;
        }
        if (s == NULL && (o->flags & T4_OPTION_REQUIRED)) {
            st = error_set(error, T4_E_INVALID, "%s%s%s%s is missing",
                           BEFORE_NAME(plugin), o->name);
            error_hint(error, "it takes %s; %s", type_form(o->type),
                       o->doc != NULL ? o->doc : "it has no default");
            goto fail_values;
        }
        if (text == NULL)
            continue; /* optional and without a default: an empty slice without data */
        st = parse_one(plugin, o, text, s != NULL, &value[i], error);
        if (st != T4_OK)
            goto fail_values;
    }
    return T4_OK;

fail_values:
    options_free(out);
    return st;
}

void
options_free(struct t4_values *values)
{
    for (uint32_t i = 0; i < values->n; i++) {
        struct t4_slice text = values->value[i].text;

        if (text.data != NULL)
            explicit_bzero((void *)(uintptr_t)text.data, text.len);
        mem_free((void *)(uintptr_t)text.data);
    }
    mem_free((void *)(uintptr_t)values->value);
    *values = (struct t4_values){.size = sizeof *values};
}

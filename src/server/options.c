/*
 * options.c - reading the settings of `t4 run` from flags, environment and defaults.
 *
 * First every row of the table gets its text and where it came from; then each text is read
 * and checked, so that a malformed value is refused the same way wherever it stands; then what
 * needs more than one value is made (addresses, URLs, settings of the plugin).
 *
 * Values of --plugin-option may be secrets: no message and no log line repeats them (I14).
 *
 * Entry points: run_options_parse(), run_options_free().  Runs on: the main thread.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "server/options.h"

#include <stdarg.h>
#include <string.h>
#include <unistd.h>

#include "base/distance.h"
#include "base/memory.h"
#include "server/systemd.h"

#define NS_PER_S INT64_C(1000000000)
#define RETENTION_MAX_NS (3650 * 86400 * NS_PER_S)
#define MAX_PATH_BYTES 3900 /* leaves room for what stands below it */

enum source { FROM_DEFAULT, FROM_VARIABLE, FROM_FLAG };

/* What was found for one row; the texts are borrowed from argv, environment or table. */
struct found {
    const char *text;
    enum source source;
};

struct reader {
    struct run_options *out;
    char *const *environment;
    struct found found[OPTION_MAX_ROWS];
    const char *settings[MAX_SETTINGS]; /* of --plugin-option, in the order given */
    size_t n_settings;
    struct error *error;
};

/* --- helpers ------------------------------------------------------------------------ */

static void warn(struct run_options *o, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

static void
warn(struct run_options *o, const char *format, ...)
{
    char text[512];
    va_list ap;

    if (o->n_warnings == MAX_WARNINGS)
        return;
    va_start(ap, format);
    vsnprintf(text, sizeof text, format, ap);
    va_end(ap);
    o->warnings[o->n_warnings++] = mem_strdup(text);
}

static size_t
row_index(const struct option_row *row)
{
    return (size_t)(row - option_table);
}

/* The flag that was probably meant, or NULL. */
static const struct option_row *
nearest(const char *name)
{
    const struct option_row *best = NULL;
    size_t least = strlen(name) / 3 + 1;

    if (strlen(name) >= OPTION_NAME_BYTES)
        return NULL;
    for (size_t i = 0; i < option_count; i++) {
        size_t d = word_distance(name, option_table[i].name);

        if (d <= least) {
            best = &option_table[i];
            least = d - (d > 0);
        }
    }
    return best;
}

/* --- finding the texts -------------------------------------------------------------- */

static t4_status
refuse_flag(struct reader *r, const char *name)
{
    const char *needs = option_refusal(name);
    const struct option_row *near = nearest(name);

    if (needs != NULL) {
        error_set(r->error, T4_E_INVALID, "--%.64s needs %s", name, needs);
        return error_hint(r->error, "leave --%.64s out", name);
    }
    error_set(r->error, T4_E_INVALID, "there is no flag --%.64s", name);
    if (near != NULL)
        return error_hint(r->error, "did you mean --%s?  t4 help run lists all flags",
                          near->name);
    return error_hint(r->error, "t4 help run lists all flags");
}

static t4_status
add_setting(struct reader *r, const char *text)
{
    if (r->n_settings == MAX_SETTINGS) {
        error_set(r->error, T4_E_INVALID, "--plugin-option: more than %d settings",
                  MAX_SETTINGS);
        return error_hint(r->error, "give fewer");
    }
    r->settings[r->n_settings++] = text;
    return T4_OK;
}

/* One word that begins with two dashes; *i moves on when its value is the next word. */
static t4_status
read_flag(struct reader *r, int argc, char *const *argv, int *i)
{
    const char *name = argv[*i] + 2, *value = strchr(name, '=');
    size_t n = value != NULL ? (size_t)(value - name) : strlen(name);
    const struct option_row *row = option_find(name, n);

    if (row == NULL) {
        char copy[OPTION_NAME_BYTES + 8];

        snprintf(copy, sizeof copy, "%.*s", (int)(n < sizeof copy ? n : sizeof copy - 1),
                 name);
        return refuse_flag(r, copy);
    }
    if (value != NULL) {
        value++;
    } else if (row->type == OPTION_BOOL) {
        value = "true";
    } else if (*i + 1 < argc) {
        value = argv[++*i];
    } else {
        char range[160];

        option_range(row, range, sizeof range);
        error_set(r->error, T4_E_INVALID, "--%s: the value is missing", row->name);
        return error_hint(r->error, "valid: %s", range);
    }
    if (row->type == OPTION_SETTINGS)
        return add_setting(r, value);
    if (row->type == OPTION_SECRET) {
        char variable[OPTION_NAME_BYTES];

        option_variable(row->name, variable, sizeof variable);
        error_set(
            r->error, T4_E_INVALID,
            "--%s: a secret on the command line can be read by everybody on the machine",
            row->name);
        return error_hint(r->error, "set the variable %s instead", variable);
    }
    r->found[row_index(row)] = (struct found){value, FROM_FLAG};
    return T4_OK;
}

static t4_status
read_flags(struct reader *r, int argc, char *const *argv)
{
    t4_status st;

    for (int i = 0; i < argc; i++) {
        const char *word = argv[i];

        if (strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0) {
            r->out->help = true;
            return T4_OK;
        }
        if (strncmp(word, "--", 2) != 0 || word[2] == '\0') {
            bool dash = word[0] == '-' && word[1] != '\0' && word[1] != '-';

            error_set(r->error, T4_E_INVALID, "\"%.64s\" is no flag", word);
            if (dash)
                return error_hint(r->error, "flags begin with two dashes: --%.64s",
                                  word + 1);
            return error_hint(r->error,
                              "t4 run takes flags only; a yes/no flag takes its "
                              "value as in --moved=true");
        }
        st = read_flag(r, argc, argv, &i);
        if (st != T4_OK)
            return st;
    }
    return T4_OK;
}

/* Orchestrators put T4_SERVICE_HOST, T4_PORT and the like there for a service named t4. */
static bool
is_service_link(const char *name, const char *value)
{
    return strstr(name, "_SERVICE_HOST") != NULL ||
           strstr(name, "_SERVICE_PORT") != NULL || strstr(name, "_PORT_") != NULL ||
           strncmp(value, "tcp://", 6) == 0 || strncmp(value, "udp://", 6) == 0;
}

/* Variables T4_* that are no flag of ours: refused if of a later version, else a warning. */
static t4_status
check_variable(struct reader *r, const char *entry)
{
    const char *equals = strchr(entry, '=');
    char name[OPTION_NAME_BYTES], variable[OPTION_NAME_BYTES + 4];
    const struct option_row *near;
    const char *needs;
    size_t n;

    if (strncmp(entry, "T4_", 3) != 0 || equals == NULL || equals[1] == '\0' ||
        strncmp(entry, "T4_TEST_", 8) == 0 ||
        strncmp(entry, "T4_ENDPOINTS=", 13) == 0) /* of the commands that are a client */
        return T4_OK;
    n = (size_t)(equals - entry) - 3;
    if (n >= sizeof name)
        return T4_OK;
    for (size_t i = 0; i < n; i++) {
        char c = entry[3 + i];

        name[i] = c == '_' ? '-' : c >= 'A' && c <= 'Z' ? (char)(c - 'A' + 'a') : c;
    }
    name[n] = '\0';
    snprintf(variable, sizeof variable, "%.*s", (int)(equals - entry), entry);
    if (option_find(name, n) != NULL || is_service_link(variable, equals + 1))
        return T4_OK;
    needs = option_refusal(name);
    if (needs != NULL) {
        error_set(r->error, T4_E_INVALID, "the variable %s needs %s", variable, needs);
        return error_hint(r->error, "unset %s", variable);
    }
    near = nearest(name);
    if (near != NULL) {
        char meant[OPTION_NAME_BYTES];

        option_variable(near->name, meant, sizeof meant);
        warn(r->out, "the variable %s is not known and has no effect; did you mean %s?",
             variable, meant);
    } else {
        warn(r->out, "the variable %s is not known and has no effect", variable);
    }
    return T4_OK;
}

/* Settings in the variable are separated by commas. */
static t4_status
read_settings_variable(struct reader *r, const char *text)
{
    char *copy = mem_strdup(text), *rest = copy, *one;
    t4_status st = T4_OK;

    r->out->texts[r->out->n_texts++] = copy;
    while (st == T4_OK && (one = strsep(&rest, ",")) != NULL)
        st = add_setting(r, one);
    return st;
}

static t4_status
read_variables(struct reader *r)
{
    char name[OPTION_NAME_BYTES];
    const char *value;
    t4_status st;

    for (char *const *entry = r->environment; *entry != NULL; entry++) {
        st = check_variable(r, *entry);
        if (st != T4_OK)
            return st;
    }
    for (size_t i = 0; i < option_count; i++) {
        struct found *f = &r->found[i];

        if (f->source == FROM_FLAG)
            continue;
        option_variable(option_table[i].name, name, sizeof name);
        value = environment_value(r->environment, name);
        if (value == NULL && option_alias(&option_table[i]) != NULL) {
            option_variable(option_alias(&option_table[i]), name, sizeof name);
            value = environment_value(r->environment, name);
        }
        if (value != NULL && option_table[i].type == OPTION_SETTINGS) {
            st = r->n_settings == 0 ? read_settings_variable(r, value) : T4_OK;
            if (st != T4_OK)
                return st;
        } else {
            *f = value != NULL
                     ? (struct found){value, FROM_VARIABLE}
                     : (struct found){option_table[i].default_text, FROM_DEFAULT};
        }
    }
    return T4_OK;
}

/* --- reading the texts -------------------------------------------------------------- */

/* The message for a value that is not possible: where it stands, why, and what would be. */
static t4_status
refuse_value(struct reader *r, const struct option_row *row, const char *why)
{
    const struct found *f = &r->found[row_index(row)];
    char where[OPTION_NAME_BYTES + 4], range[160];

    if (f->source == FROM_VARIABLE)
        option_variable(row->name, where, sizeof where);
    else
        snprintf(where, sizeof where, "--%s", row->name);
    option_range(row, range, sizeof range);
    error_set(r->error, T4_E_INVALID, "%s: \"%.160s\": %s", where,
              f->text != NULL ? f->text : "", why);
    return error_hint(r->error, "valid: %s%s%s", range,
                      row->default_text != NULL ? "; default " : "",
                      row->default_text != NULL ? row->default_text : "");
}

/* NULL, or why the text is none. */
static const char *
read_number(const struct option_row *row, const char *text, int64_t *out)
{
    switch (row->type) {
    case OPTION_INT:
        if (!value_parse_int(text, out))
            return "is no whole number";
        break;
    case OPTION_SIZE:
        if (row->min < 0 && text[0] == '-' ? !value_parse_int(text, out)
                                           : !value_parse_size(text, out))
            return "is no size such as 1572864, 512KiB or 1.5MiB";
        break;
    case OPTION_DURATION:
        if (!value_parse_duration(text, out))
            return "is no duration such as 500ms, 10s, 5m or 1h30m";
        break;
    default: return value_parse_bool(text, out) ? NULL : "is neither true nor false";
    }
    return *out < row->min ? "is too small" : *out > row->max ? "is too large" : NULL;
}

static const char *
read_choice(const char *choices, const char *text, int64_t *out)
{
    size_t n = strlen(text);

    for (*out = 0;; ++*out) {
        size_t m = strcspn(choices, "|");

        if (n == m && memcmp(text, choices, n) == 0)
            return NULL;
        if (choices[m] == '\0')
            return "is not one of the choices";
        choices += m + 1;
    }
}

static t4_status
read_values(struct reader *r)
{
    for (size_t i = 0; i < option_count; i++) {
        const struct option_row *row = &option_table[i];
        const char *text = r->found[i].text, *why = NULL;
        void *member = (char *)r->out + row->offset;

        if (row->type == OPTION_SETTINGS)
            continue;
        if (row->type == OPTION_TEXT || row->type == OPTION_SECRET)
            *(char **)member = text != NULL ? mem_strdup(text) : NULL;
        else if (row->type == OPTION_CHOICE)
            why = read_choice(row->choices, text, member);
        else
            why = read_number(row, text, member);
        if (why != NULL)
            return refuse_value(r, row, why);
    }
    return T4_OK;
}

/* --- what is made of the values ----------------------------------------------------- */

static t4_status
refuse_named(struct reader *r, const char *name, const char *why)
{
    return refuse_value(r, option_find(name, strlen(name)), why);
}

/* The addresses of a flag, behind those in out[0..*n).  NULL, or what is wrong. */
static const char *
make_addresses(const char *all, struct address *out, size_t *n)
{
    char *copy = mem_strdup(all), *rest = copy, *one;
    char text[ADDRESS_TEXT_BYTES], other[ADDRESS_TEXT_BYTES];
    const char *why = NULL;

    while (why == NULL && (one = strsep(&rest, ",")) != NULL) {
        if (*n == MAX_LISTEN) {
            why = "are more than 16 addresses";
            break;
        }
        why = address_parse(one, &out[*n]);
        if (why != NULL)
            break;
        address_format(&out[*n], text, sizeof text);
        for (size_t i = 0; i < *n; i++) {
            address_format(&out[i], other, sizeof other);
            if (strcmp(text, other) == 0)
                why = "names an address twice";
            else if (out[i].is_wildcard && out[*n].is_wildcard &&
                     strcmp(out[i].port, out[*n].port) == 0)
                why = "names both 0.0.0.0 and [::], and each of them means both";
        }
        ++*n;
    }
    mem_free(copy);
    return why;
}

static bool
is_default(const struct reader *r, const char *name)
{
    return r->found[row_index(option_find(name, strlen(name)))].source == FROM_DEFAULT;
}

/*
 * What systemd hands over is served instead of the defaults, and besides what is given.  A
 * socket unit says by FileDescriptorName=metrics that its sockets are for probes.
 */
static t4_status
make_listen(struct reader *r)
{
    struct run_options *o = r->out;
    struct systemd_socket sockets[SYSTEMD_MAX];
    size_t n;
    const char *why = systemd_sockets(r->environment, sockets, &n);

    if (why != NULL) {
        error_set(r->error, T4_E_INVALID,
                  "of the sockets that systemd hands over, one %s", why);
        return error_hint(r->error, "look at the socket unit of this service");
    }
    for (size_t i = 0; i < n; i++) {
        if (strncmp(sockets[i].name, "metrics", 7) == 0)
            o->metrics[o->n_metrics++] = sockets[i].address;
        else
            o->listen[o->n_listen++] = sockets[i].address;
    }
    if (o->n_listen == 0 || !is_default(r, "listen"))
        why = make_addresses(o->listen_text, o->listen, &o->n_listen);
    if (why != NULL)
        return refuse_named(r, "listen", why);
    o->metrics_off = strcmp(o->metrics_text, "off") == 0;
    if (!o->metrics_off && (o->n_metrics == 0 || !is_default(r, "metrics-addr")))
        why = make_addresses(o->metrics_text, o->metrics, &o->n_metrics);
    return why != NULL ? refuse_named(r, "metrics-addr", why) : T4_OK;
}

static t4_status
make_unix_mode(struct reader *r)
{
    const char *text = r->out->unix_socket_mode_text;
    unsigned mode = 0;

    if (strlen(text) != 4 || text[strspn(text, "01234567")] != '\0' ||
        sscanf(text, "%o", &mode) != 1 || mode < 0600 || mode > 0777)
        return refuse_named(r, "unix-socket-mode", "is no such mode");
    r->out->unix_socket_mode = mode;
    return T4_OK;
}

static const char *
check_url(const char *url)
{
    struct address a;
    const char *rest;

    if (strncmp(url, "unix://", 7) == 0 || strncmp(url, "unixs://", 8) == 0)
        return strchr(url, '/')[2] != '\0' ? NULL : "names no unix socket";
    if (strncmp(url, "http://", 7) == 0)
        rest = url + 7;
    else if (strncmp(url, "https://", 8) == 0)
        rest = url + 8;
    else
        return "a URL begins with http://, https:// or unix://";
    if (strchr(rest, '/') != NULL)
        return "a URL ends with the port, without a path";
    return address_parse(rest, &a);
}

/* The URLs given, checked; or made of the addresses to listen on. */
static t4_status
make_advertise(struct reader *r, const char *host_name)
{
    struct run_options *o = r->out;
    struct buffer b = {0};
    char text[ADDRESS_TEXT_BYTES];

    if (o->advertise_client_urls != NULL) {
        char *copy = mem_strdup(o->advertise_client_urls), *rest = copy, *one;
        const char *why = NULL;

        while (why == NULL && (one = strsep(&rest, ",")) != NULL)
            why = check_url(one);
        mem_free(copy);
        return why != NULL ? refuse_named(r, "advertise-client-urls", why) : T4_OK;
    }
    for (size_t i = 0; i < o->n_listen; i++) {
        struct address a = o->listen[i];

        if (a.is_wildcard)
            snprintf(a.host, sizeof a.host, "%s", host_name);
        address_format(&a, text, sizeof text);
        if (i > 0)
            buffer_append_u8(&b, ',');
        if (a.is_unix) {
            buffer_append(&b, "unix://", 7);
            buffer_append(&b, a.host, strlen(a.host));
        } else {
            buffer_append(&b, "http://", 7);
            buffer_append(&b, text, strlen(text));
        }
    }
    buffer_append_u8(&b, '\0');
    o->advertise_client_urls = (char *)b.data; /* the buffer's memory is ours now */
    return T4_OK;
}

static bool
is_plugin_name(const char *name)
{
    size_t n = strlen(name);

    return n >= 1 && n <= 32 && name[0] >= 'a' && name[0] <= 'z' &&
           name[strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789_")] == '\0';
}

/* "lmdb.map_size=8GB" to a setting of the engine's plugin; values are not repeated (I14). */
static t4_status
make_setting(struct reader *r, const char *text)
{
    struct run_options *o = r->out;
    char *copy = mem_strdup(text), *dot, *equals;

    o->texts[o->n_texts++] = copy;
    equals = strchr(copy, '=');
    if (equals != NULL)
        *equals = '\0';
    dot = strchr(copy, '.');
    if (dot != NULL)
        *dot = '\0';
    if (equals == NULL || dot == NULL || !is_plugin_name(copy) || dot[1] == '\0') {
        error_set(r->error, T4_E_INVALID,
                  "--plugin-option: not of the form "
                  "PLUGIN.NAME=VALUE");
        return error_hint(r->error,
                          "write for example --plugin-option=lmdb.map_size=64GB");
    }
    if (store_options_names_plugin(o, copy) && o->n_store_settings < MAX_SETTINGS) {
        dot[0] = '.';
        o->store_settings[o->n_store_settings++] =
            (struct plugin_setting){copy, equals + 1};
        return T4_OK;
    }
    if (strcmp(o->storage_engine, "memory") == 0) {
        error_set(r->error, T4_E_INVALID,
                  "--plugin-option: %s.%.64s is for a plugin, and "
                  "--storage-engine=memory loads none",
                  copy, dot + 1);
        return error_hint(r->error, "leave it out, or choose another storage engine");
    }
    if (strcmp(copy, o->storage_engine) != 0) {
        error_set(r->error, T4_E_INVALID, "--plugin-option: no plugin %s is loaded",
                  copy);
        return error_hint(r->error, "settings are for the storage engine's plugin, %s",
                          o->storage_engine);
    }
    o->settings[o->n_settings++] = (struct plugin_setting){dot + 1, equals + 1};
    return T4_OK;
}

static t4_status
make_names(struct reader *r, const char *host_name)
{
    struct run_options *o = r->out;

    if (o->data_dir[0] == '\0' || strlen(o->data_dir) > MAX_PATH_BYTES)
        return refuse_named(r, "data-dir", "is empty or too long");
    if (o->plugin_dir != NULL &&
        (o->plugin_dir[0] == '\0' || strlen(o->plugin_dir) > MAX_PATH_BYTES))
        return refuse_named(r, "plugin-dir", "is empty or too long");
    if (o->from_snapshot != NULL &&
        (o->from_snapshot[0] == '\0' || strlen(o->from_snapshot) > MAX_PATH_BYTES))
        return refuse_named(r, "from-snapshot", "is empty or too long");
    if (!is_plugin_name(o->storage_engine))
        return refuse_named(r, "storage-engine",
                            "is not the name of a plugin: small letters, "
                            "digits and _, at most 32");
    if (o->node_id == NULL)
        o->node_id = mem_strdup(host_name);
    for (const char *p = o->node_id; *p != '\0'; p++) {
        if (*p <= ' ' || *p > '~')
            return refuse_named(r, "node-id",
                                "holds a blank or a character beyond ASCII");
    }
    if (o->node_id[0] == '\0' || strlen(o->node_id) > 255)
        return refuse_named(r, "node-id", "is empty or too long");
    return T4_OK;
}

/* For the log: what was set, without the values of plugins' settings (I14). */
static void
make_changed(struct reader *r)
{
    struct buffer b = {0};

    for (size_t i = 0; i < option_count; i++) {
        const struct found *f = &r->found[i];
        const char *name = option_table[i].name;

        if (f->source == FROM_DEFAULT || f->text == NULL)
            continue;
        buffer_append(&b, b.len > 0 ? " --" : "--", b.len > 0 ? 3 : 2);
        buffer_append(&b, name, strlen(name));
        buffer_append(&b, "=", 1);
        if (option_table[i].type == OPTION_SECRET)
            buffer_append(&b, "***", 3);
        else
            buffer_append(&b, f->text, strlen(f->text));
    }
    for (size_t i = 0; i < r->out->n_settings; i++) {
        const char *name = r->out->settings[i].name;

        buffer_append(&b, b.len > 0 ? " --plugin-option=" : "--plugin-option=",
                      b.len > 0 ? 17 : 16);
        buffer_append(&b, r->out->storage_engine, strlen(r->out->storage_engine));
        buffer_append(&b, ".", 1);
        buffer_append(&b, name, strlen(name));
    }
    buffer_append_u8(&b, '\0');
    r->out->changed = (char *)b.data;
}

static t4_status
make_store(struct reader *r)
{
    const char *name, *why;

    for (size_t i = 0; i < option_count; i++)
        if (option_table[i].group == GROUP_STORE && r->found[i].text != NULL &&
            r->found[i].text[0] == '\0')
            return refuse_value(r, &option_table[i], "is empty");
    why = store_options_make(r->out, &name);
    if (why != NULL)
        return refuse_named(r, name, why);
    /* The built-in store is on the disk that it would restore: history there only takes room. */
    if (r->out->object_store == NULL && is_default(r, "history-retention"))
        r->out->history_retention_ns = 0;
    return T4_OK;
}

/* etcd's reading: a plain number is of hours, or of revisions. */
static t4_status
make_auto_compaction(struct reader *r)
{
    struct run_options *o = r->out;
    const char *text = o->auto_compaction_retention_text;
    int64_t *out = &o->auto_compaction_retention;
    bool plain = value_parse_int(text, out);

    if (plain && *out < 0)
        return refuse_named(r, "auto-compaction-retention", "is too small");
    if (o->auto_compaction_mode == 1)
        return plain ? T4_OK
                     : refuse_named(r, "auto-compaction-retention",
                                    "is no number of revisions, which "
                                    "--auto-compaction-mode=revision asks for");
    if (plain ? __builtin_mul_overflow(*out, 3600 * NS_PER_S, out)
              : !value_parse_duration(text, out))
        return refuse_named(r, "auto-compaction-retention",
                            plain ? "is too large" : "is neither hours nor a duration");
    return *out > RETENTION_MAX_NS
               ? refuse_named(r, "auto-compaction-retention", "is too large")
               : T4_OK;
}

static t4_status
make_all(struct reader *r)
{
    char host_name[ADDRESS_HOST_BYTES];
    t4_status st;

    if (gethostname(host_name, sizeof host_name) != 0 || host_name[0] == '\0')
        snprintf(host_name, sizeof host_name, "localhost");
    host_name[sizeof host_name - 1] = '\0';
    st = make_store(r);
    if (st == T4_OK)
        st = make_names(r, host_name);
    if (st == T4_OK)
        st = make_listen(r);
    if (st == T4_OK)
        st = make_advertise(r, host_name);
    if (st == T4_OK)
        st = make_auto_compaction(r);
    if (st == T4_OK)
        st = make_unix_mode(r);
    for (size_t i = 0; st == T4_OK && i < r->n_settings; i++)
        st = make_setting(r, r->settings[i]);
    if (st == T4_OK)
        make_changed(r);
    return st;
}

t4_status
run_options_parse(int argc, char *const *argv, char *const *environment,
                  struct run_options *out, struct error *error)
{
    return run_options_parse_for(NULL, argc, argv, environment, out, error);
}

t4_status
run_options_parse_for(const char *other_store, int argc, char *const *argv,
                      char *const *environment, struct run_options *out,
                      struct error *error)
{
    struct reader r = {.out = out, .environment = environment, .error = error};
    t4_status st;

    *out = (struct run_options){.other_store = other_store};
    st = read_flags(&r, argc, argv);
    if (st != T4_OK || out->help)
        return st;
    st = read_variables(&r);
    if (st == T4_OK)
        st = read_values(&r);
    if (st == T4_OK)
        st = make_all(&r);
    return st;
}

void
run_options_free(struct run_options *o)
{
    for (size_t i = 0; i < option_count; i++) {
        if (option_table[i].type == OPTION_TEXT || option_table[i].type == OPTION_SECRET)
            mem_free(*(char **)((char *)o + option_table[i].offset));
    }
    for (size_t i = 0; i < o->n_warnings; i++)
        mem_free(o->warnings[i]);
    for (size_t i = 0; i < o->n_texts; i++)
        mem_free(o->texts[i]);
    mem_free(o->changed);
    *o = (struct run_options){0};
}

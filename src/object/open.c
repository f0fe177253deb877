/*
 * open.c - from a URL to an open chain of object stores: schemes, plugins, settings.
 *
 * "fault+file:///x" is two layers.  The scheme of each is the name of its role and, but for
 * the two in `bundled`, of its plugin.  Layers are loaded and opened from the inside out, so
 * a wrapper finds its inner store ready, and closed the other way round.  A table comes from
 * a plugin that may be older or newer than the server, so it is copied into one of our own
 * size: what it lacks is NULL there and refused by name.
 *
 * Entry points: object_open(), object_close().  Runs on: the main thread.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "base/memory.h"
#include "base/slice.h"
#include "object/object_int.h"

#define MAX_URL 4096
#define MAX_SETTINGS 256

static const struct {
    const char *scheme, *plugin;
} bundled[] = {{"file", "dir"}, {"gs", "gcs"}};

static const char *
plugin_of(const char *scheme)
{
    for (size_t i = 0; i < sizeof bundled / sizeof bundled[0]; i++)
        if (strcmp(bundled[i].scheme, scheme) == 0)
            return bundled[i].plugin;
    return scheme;
}

/* --- the URL ------------------------------------------------------------------------ */

static t4_status
refuse_url(struct error *error, const char *why)
{
    error_set(error, T4_E_INVALID, "the object store's URL %s", why);
    error_hint(error, "it is written file:///path, s3://bucket/prefix or "
                      "gs://bucket/prefix");
    return T4_E_INVALID;
}

/*
 * Reads the schemes.  What a URL may carry of secrets is refused rather than hidden: it
 * would stand in argument lists already.
 */
static t4_status
read_url(struct object_store *s, const char *url, struct error *error)
{
    const char *rest = strstr(url, "://"), *p = url;

    if (strlen(url) > MAX_URL)
        return refuse_url(error, "is longer than 4096 bytes");
    if (rest == NULL)
        return refuse_url(error, "has no \"://\"");
    for (const char *c = rest; *c != '\0'; c++)
        if ((unsigned char)*c < 0x20 || *c == 0x7f)
            return refuse_url(error, "has a control character");
    if (memchr(rest + 3, '@', strcspn(rest + 3, "/")) != NULL)
        return refuse_url(error, "has a user or a password in it; credentials are given "
                                 "by the plugin's settings or the environment");
    while (p < rest) {
        size_t n = strcspn(p, "+:");
        struct layer *l = &s->layers[s->n_layers];

        if (s->n_layers == OBJECT_MAX_LAYERS)
            return refuse_url(error, "has more than 8 schemes");
        if (n == 0 || n >= sizeof l->scheme || p + n > rest ||
            strspn(p, "abcdefghijklmnopqrstuvwxyz0123456789_") < n)
            return refuse_url(error, "does not begin with schemes of a-z, 0-9 and _, "
                                     "joined by +");
        memcpy(l->scheme, p, n);
        s->n_layers++;
        p += n;
        if (p == rest)
            break;
        if (*p != '+' || ++p == rest)
            return refuse_url(error, "has something else than a scheme before \"://\"");
    }
    return s->n_layers > 0 ? T4_OK : refuse_url(error, "has no scheme");
}

/* --- one layer ---------------------------------------------------------------------- */

/* The settings of one plugin, without its name before them. */
static t4_status
pick_settings(const struct object_options *o, const char *plugin,
              struct plugin_setting *out, size_t *n, struct error *error)
{
    size_t length = strlen(plugin);

    *n = 0;
    for (size_t i = 0; i < o->n_settings; i++) {
        const struct plugin_setting *s = &o->settings[i];

        if (strchr(s->name, '.') == NULL) {
            error_set(error, T4_E_INVALID, "setting \"%.64s\" names no plugin", s->name);
            error_hint(error, "it is written PLUGIN.NAME, such as s3.region");
            return T4_E_INVALID;
        }
        if (strncmp(s->name, plugin, length) != 0 || s->name[length] != '.')
            continue;
        if (*n == MAX_SETTINGS)
            return error_set(error, T4_E_INVALID,
                             "plugin \"%s\" has more than %d settings", plugin,
                             MAX_SETTINGS);
        out[(*n)++] = (struct plugin_setting){s->name + length + 1, s->value};
    }
    return T4_OK;
}

/*
 * A folder of one's own plugins need not hold the bundled ones: what is not there is looked
 * for in the default folder.
 */
static t4_status
load_plugin(struct layer *l, const struct object_options *o, struct error *error)
{
    struct plugin_setting settings[MAX_SETTINGS];
    const char *name = plugin_of(l->scheme);
    size_t n;
    t4_status st = pick_settings(o, name, settings, &n, error);

    if (st != T4_OK)
        return st;
    st = plugin_load(o->plugin_dir, name, settings, n, &l->plugin, error);
    if (st == T4_E_NOTFOUND && o->plugin_dir != NULL) {
        t4_status again = plugin_load(NULL, name, settings, n, &l->plugin, NULL);

        if (again == T4_OK)
            return T4_OK;
        if (again != T4_E_NOTFOUND)
            return plugin_load(NULL, name, settings, n, &l->plugin, error);
    }
    if (st == T4_E_NOTFOUND)
        error_wrap(error, "no plugin for %s://", l->scheme);
    return st;
}

static t4_status
incomplete(const struct layer *l, const char *member, struct error *error)
{
    error_set(error, T4_E_INVALID,
              "object store \"%s\": its table lacks the function \"%s\"", l->scheme,
              member);
    error_hint(error,
               "the plugin is faulty or incomplete: build it against this server's "
               "t4_plugin.h");
    return T4_E_INVALID;
}

static t4_status
adopt(struct layer *l, bool innermost, struct error *error)
{
    t4_status st =
        plugin_role(l->plugin, T4_ROLE_OBJECT, l->scheme, &l->ops, sizeof l->ops, error);
    bool wraps = (l->ops.caps & T4_OBJECT_WRAPS) != 0;

    if (st != T4_OK)
        return st;
#define REQUIRE(m)                                                                       \
    if (l->ops.m == NULL)                                                                \
    return incomplete(l, #m, error)
    REQUIRE(open);
    REQUIRE(close);
    REQUIRE(put);
    REQUIRE(get);
    REQUIRE(remove);
    REQUIRE(head);
    REQUIRE(list);
#undef REQUIRE
    if (wraps && innermost) {
        error_set(error, T4_E_INVALID, "object store \"%s\" works on another one only",
                  l->scheme);
        error_hint(error, "write %s+URL, such as %s+file:///path", l->scheme, l->scheme);
        return T4_E_INVALID;
    }
    if (!wraps && !innermost) {
        error_set(error, T4_E_INVALID, "object store \"%s\" cannot wrap another one",
                  l->scheme);
        error_hint(error, "leave out what stands behind its +, or the scheme itself");
        return T4_E_INVALID;
    }
    return T4_OK;
}

static t4_status
open_layer(struct object_store *s, size_t i, const char *url,
           const struct object_options *o, struct error *error)
{
    struct layer *l = &s->layers[i], *inner = l + 1;
    bool innermost = i + 1 == s->n_layers;
    struct t4_store_open arguments = {.size = sizeof arguments, .url = slice_str(url)};
    struct t4_call call = {.error = error, .cancelled = &s->cancelled};
    struct error own = {0};
    t4_status st = load_plugin(l, o, error);

    if (st == T4_OK)
        st = adopt(l, innermost, error);
    if (st != T4_OK)
        return st;
    if (!innermost) {
        arguments.inner_ops = &inner->ops;
        arguments.inner = inner->handle;
    }
    if (call.error == NULL)
        call.error = &own;
    call.error->message[0] = call.error->hint[0] = '\0';
    call.deadline_ns = object_now_ns() + OBJECT_DEFAULT_TIMEOUT_NS;
    st = l->ops.open(plugin_state(l->plugin), &call, &arguments, &l->handle);
    if (st > T4_OK || st < T4_E_IO || (st == T4_OK && l->handle == NULL))
        st = error_set(call.error, T4_E_INTERNAL, "open() gave %s",
                       st == T4_OK ? "OK but no handle" : "an unknown status");
    if (st != T4_OK) {
        l->handle = NULL;
        if (call.error->message[0] == '\0')
            error_set(call.error, st, "%s", status_text(st));
        call.error->status = st;
        error_wrap(call.error, "object store \"%s\": cannot open", l->scheme);
    }
    return st;
}

/* --- the chain ---------------------------------------------------------------------- */

t4_status
object_open(const char *url, const struct object_options *options,
            struct object_store **out, struct error *error)
{
    struct object_store *s = mem_zalloc(sizeof *s);
    t4_status st;

    *out = NULL;
    ahead_init(&s->ahead);
    s->env = options->env;
    s->caps = T4_OBJECT_IF_ABSENT | T4_OBJECT_IF_MATCH;
    st = read_url(s, url, error);
    if (st != T4_OK)
        goto fail_store;
    s->url = mem_strdup(url);
    s->url[strcspn(url, "?")] = '\0'; /* what a plugin takes there may be secret */
    for (size_t i = s->n_layers; i-- > 0;) {
        const char *inner_url = url;

        /* Everything from its inner layer's scheme on, or its own for the innermost. */
        for (size_t skip = i + 1 == s->n_layers ? i : i + 1; skip > 0; skip--)
            inner_url = strchr(inner_url, '+') + 1;
        st = open_layer(s, i, inner_url, options, error);
        if (st != T4_OK)
            goto fail_store;
        s->caps &= s->layers[i].ops.caps;
    }
    *out = s;
    return T4_OK;

fail_store:
    object_close(s);
    return st;
}

size_t
object_close(struct object_store *s)
{
    size_t left = 0;

    if (s == NULL)
        return 0;
    ahead_free(s);
    for (size_t i = 0; i < s->n_layers; i++)
        if (s->layers[i].handle != NULL)
            s->layers[i].ops.close(s->layers[i].handle);
    for (size_t i = 0; i < s->n_layers; i++)
        left += plugin_unload(s->layers[i].plugin);
    mem_free(s->url);
    mem_free(s);
    return left;
}

/*
 * store_options.c - the object store's URL and settings out of the flags of `t4 run`.
 *
 * --s3-bucket and --s3-prefix are another way to write s3://bucket/prefix; the other --s3-*
 * and --gcs-* become settings of the plugin of that name.
 *
 * Entry points: store_options_make(), store_options_names_plugin().  Main thread.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <string.h>

#include "base/memory.h"
#include "server/options.h"

#define MAX_URL 1000 /* what the lock and the directory's memory have room for */

static const struct {
    const char *scheme, *plugin;
} plugin_of_scheme[] = {{"file", "dir"}, {"gs", "gcs"}};

bool
store_options_url_names(const char *url, const char *plugin)
{
    const char *p = url, *end;

    if (p == NULL || (end = strstr(p, "://")) == NULL)
        return false;
    while (p < end) {
        size_t n = strcspn(p, "+:");
        const char *name = NULL;

        for (size_t i = 0; i < sizeof plugin_of_scheme / sizeof plugin_of_scheme[0]; i++)
            if (strlen(plugin_of_scheme[i].scheme) == n &&
                memcmp(plugin_of_scheme[i].scheme, p, n) == 0)
                name = plugin_of_scheme[i].plugin;
        if (name != NULL ? strcmp(name, plugin) == 0
                         : strlen(plugin) == n && memcmp(plugin, p, n) == 0)
            return true;
        p += n + 1;
    }
    return false;
}

bool
store_options_names_plugin(const struct run_options *o, const char *plugin)
{
    return store_options_url_names(o->object_store, plugin) ||
           store_options_url_names(o->other_store, plugin);
}

static void
add(struct run_options *o, const char *name, const char *value)
{
    if (value != NULL && o->n_store_settings < MAX_SETTINGS)
        o->store_settings[o->n_store_settings++] = (struct plugin_setting){name, value};
}

static const char *
make_url(struct run_options *o, const char **name)
{
    size_t size;

    *name = "s3-bucket";
    if (o->s3_bucket != NULL && o->object_store != NULL)
        return "says the same as --object-store: give one of them";
    *name = "s3-prefix";
    if (o->s3_prefix != NULL && o->s3_bucket == NULL)
        return "needs --s3-bucket; with --object-store the prefix is part of the URL";
    if (o->s3_bucket == NULL)
        return NULL;
    size = strlen(o->s3_bucket) + (o->s3_prefix != NULL ? strlen(o->s3_prefix) : 0) + 8;
    o->object_store = mem_alloc(size);
    snprintf(o->object_store, size, "s3://%s%s%s", o->s3_bucket,
             o->s3_prefix != NULL && o->s3_prefix[0] != '/' ? "/" : "",
             o->s3_prefix != NULL ? o->s3_prefix : "");
    /* A prefix may be written with a slash at its end; keys have one between them, not two. */
    for (size_t n = strlen(o->object_store); o->object_store[n - 1] == '/'; n--)
        o->object_store[n - 1] = '\0';
    return NULL;
}

bool
store_options_is_url(const char *text)
{
    return strstr(text, "://") != NULL && strlen(text) <= MAX_URL;
}

const char *
store_options_make(struct run_options *o, const char **name)
{
    const char *why = make_url(o, name);

    if (why != NULL)
        return why;
    *name = "object-store";
    if (o->object_store != NULL && !store_options_is_url(o->object_store))
        return "is no URL of at most 1000 bytes";
    if (store_options_names_plugin(o, "s3")) {
        add(o, "s3.endpoint", o->s3_endpoint);
        add(o, "s3.region", o->s3_region);
        add(o, "s3.profile", o->s3_profile);
        add(o, "s3.access_key_id", o->s3_access_key_id);
        add(o, "s3.secret_access_key", o->s3_secret_access_key);
        add(o, "s3.session_token", o->s3_session_token);
        add(o, "s3.ca_bundle", o->s3_ca_bundle);
    }
    if (store_options_names_plugin(o, "gcs")) {
        add(o, "gcs.credentials_file", o->gcs_credentials_file);
        add(o, "gcs.endpoint", o->gcs_endpoint);
    }
    return NULL;
}

/*
 * s3.c - the S3 object store: descriptor, settings, open and close.
 *
 * open() reads settings, environment and files, and asks nobody: a server must be able to
 * start in an outage.  What can be wrong without asking is refused here.
 *
 * Entry point: t4_plugin_v1().  Runs on: load, open, close: the host's main thread.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "store.h"

enum {
    OPTION_ENDPOINT,
    OPTION_REGION,
    OPTION_PATH_STYLE,
    OPTION_ACCESS_KEY_ID,
    OPTION_SECRET_ACCESS_KEY,
    OPTION_SESSION_TOKEN,
    OPTION_PROFILE,
    OPTION_CA_BUNDLE,
    OPTIONS
};

static const struct t4_option options[OPTIONS] = {
    {
        .name = "endpoint",
        .type = T4_OPTION_STRING,
        .doc =
            "address of the service, https://host[:port]; default: AWS_ENDPOINT_URL_S3, "
            "AWS_ENDPOINT_URL, the profile's endpoint_url, else AWS's own for the region",
    },
    {
        .name = "region",
        .type = T4_OPTION_STRING,
        .doc =
            "region to sign for; default: AWS_REGION, AWS_DEFAULT_REGION, the profile's "
            "region, else us-east-1",
    },
    {
        .name = "path_style",
        .type = T4_OPTION_STRING,
        .default_value = "auto",
        .doc =
            "true: https://host/bucket/key; false: https://bucket.host/key; auto: true "
            "with an endpoint or a dot in the bucket's name",
    },
    {
        .name = "access_key_id",
        .type = T4_OPTION_STRING,
        .doc =
            "credentials, together with secret_access_key; default: the environment and "
            "the other sources of AWS's tools",
    },
    {
        .name = "secret_access_key",
        .type = T4_OPTION_STRING,
        .flags = T4_OPTION_SECRET,
        .doc = "belongs to access_key_id",
    },
    {
        .name = "session_token",
        .type = T4_OPTION_STRING,
        .flags = T4_OPTION_SECRET,
        .doc = "belongs to temporary credentials",
    },
    {
        .name = "profile",
        .type = T4_OPTION_STRING,
        .doc = "profile of the shared files of AWS's tools; default: AWS_PROFILE, else "
               "default",
    },
    {
        .name = "ca_bundle",
        .type = T4_OPTION_STRING,
        .doc =
            "file of PEM certificates that the store's certificate is checked against; "
            "default: AWS_CA_BUNDLE, else the system's",
    },
};

struct s3_plugin { /* what load() gives */
    const struct t4_host *host;
    enum address_style style;
    char *option[OPTIONS]; /* owned, never NULL */
};

/* --- open and close ------------------------------------------------------------------ */

static const char *
environment(const char *name)
{
    const char *value = getenv(name);

    return value != NULL ? value : "";
}

/* The first that is set of a setting and two variables; "" if none is. */
static const char *
first(const char *setting, const char *variable, const char *other)
{
    if (setting[0] != '\0')
        return setting;
    return environment(variable)[0] != '\0' ? environment(variable) : environment(other);
}

static t4_status
choose_region_and_endpoint(const struct s3_plugin *p, struct t4_call *call,
                           struct t4_store *s, char *endpoint, size_t room)
{
    const char *region =
        first(p->option[OPTION_REGION], "AWS_REGION", "AWS_DEFAULT_REGION");
    const char *url =
        first(p->option[OPTION_ENDPOINT], "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL");

    if (!text_copy(text_slice(region, strlen(region)), s->region, sizeof s->region))
        return p->host->fail(call, T4_E_INVALID, "s3.region is too long", NULL,
                             "for example us-east-1");
    if (!text_copy(text_slice(url, strlen(url)), endpoint, room))
        return p->host->fail(call, T4_E_INVALID, "s3.endpoint is too long", NULL, NULL);
    return T4_OK;
}

static t4_status
choose_source(const struct s3_plugin *p, struct t4_call *call, struct t4_store *s,
              char *endpoint, size_t room)
{
    const struct credentials_settings settings = {
        .access_key_id = p->option[OPTION_ACCESS_KEY_ID],
        .secret_access_key = p->option[OPTION_SECRET_ACCESS_KEY],
        .session_token = p->option[OPTION_SESSION_TOKEN],
        .profile = p->option[OPTION_PROFILE],
    };
    t4_status st = credentials_choose(p->host, call, &settings, &s->source, s->region,
                                      sizeof s->region, endpoint, room);

    if (st == T4_OK && s->region[0] == '\0')
        strcpy(s->region, "us-east-1");
    if (st == T4_OK)
        credentials_choose_sts(&s->source, s->region);
    return st;
}

static t4_status
open_address(const struct s3_plugin *p, struct t4_call *call, struct t4_slice url,
             const char *endpoint, struct t4_store *s)
{
    const char *hint, *wrong;
    char message[1300];

    wrong = address_parse(url, endpoint, s->region, p->style, &s->address, &hint);
    if (wrong != NULL) {
        snprintf(message, sizeof message, "cannot use %.*s", (int)(url.len % 1024),
                 (const char *)url.data);
        return p->host->fail(call, T4_E_INVALID, message, wrong, hint);
    }
    if (!s->address.encrypted && !s->address.loopback) {
        snprintf(
            message, sizeof message,
            "s3: the connection to %s is not encrypted: who is on the way can read and "
            "change what is stored",
            s->address.authority);
        p->host->log(p->host, T4_LOG_WARN, message);
    }
    return T4_OK;
}

static t4_status
open_client(const struct s3_plugin *p, struct t4_call *call, struct t4_store *s)
{
    struct http_client_options how = {.agent = "t4-s3"};
    const char *bundle = first(p->option[OPTION_CA_BUNDLE], "AWS_CA_BUNDLE", "");

    if (bundle[0] != '\0' && access(bundle, R_OK) != 0)
        return p->host->fail(call, T4_E_INVALID,
                             "cannot read the certificates of s3.ca_bundle",
                             strerror(errno), "it must name a file of PEM certificates");
    how.ca_bundle = bundle;
    if (http_client_open(p->host, &how, &s->client) == T4_OK)
        s->keeper = credentials_keep(p->host, s->client, &s->source);
    return s->keeper != NULL ? T4_OK : T4_E_NOMEM;
}

static void
store_close(struct t4_store *s)
{
    const struct t4_host *host = s->host;

    if (s->keeper != NULL)
        credentials_forget(s->keeper);
    http_client_close(s->client);
    explicit_bzero(s, sizeof *s);
    host->free(host, s);
}

static t4_status
store_open(void *plugin, struct t4_call *call, const struct t4_store_open *how,
           struct t4_store **out)
{
    const struct s3_plugin *p = plugin;
    struct t4_store *s = p->host->alloc(p->host, sizeof *s);
    char endpoint[512];
    t4_status st;

    if (s == NULL)
        return T4_E_NOMEM;
    memset(s, 0, sizeof *s);
    s->host = p->host;
    atomic_init(&s->no_bulk_remove, false);
    st = choose_region_and_endpoint(p, call, s, endpoint, sizeof endpoint);
    if (st == T4_OK)
        st = choose_source(p, call, s, endpoint, sizeof endpoint);
    if (st == T4_OK)
        st = open_address(p, call, how->url, endpoint, s);
    if (st == T4_OK)
        st = open_client(p, call, s);
    if (st != T4_OK) {
        store_close(s);
        return st;
    }
    *out = s;
    return T4_OK;
}

/* --- the descriptor ------------------------------------------------------------------ */

static void
unload(void *plugin)
{
    struct s3_plugin *p = plugin;
    const struct t4_host *host = p->host;

    for (int i = 0; i < OPTIONS; i++)
        if (p->option[i] != NULL) {
            explicit_bzero(p->option[i], strlen(p->option[i]));
            host->free(host, p->option[i]);
        }
    host->free(host, p);
    http_global_done();
}

static t4_status
load(const struct t4_host *host, struct t4_call *call, const struct t4_values *values,
     void **plugin)
{
    struct s3_plugin *p = host->alloc(host, sizeof *p);
    const char *style;

    if (p == NULL)
        return T4_E_NOMEM;
    memset(p, 0, sizeof *p);
    p->host = host;
    /* Both count or remember: other plugins may do the same. */
    xml_init();
    if (http_global_init() != T4_OK) {
        host->free(host, p);
        return host->fail(call, T4_E_INTERNAL, "libcurl does not start", NULL, NULL);
    }
    for (int i = 0; i < OPTIONS; i++) {
        struct t4_slice text = values->value[i].text;

        p->option[i] = host->alloc(host, text.len + 1);
        if (p->option[i] == NULL) {
            unload(p);
            return T4_E_NOMEM;
        }
        if (text.len > 0)
            memcpy(p->option[i], text.data, text.len);
        p->option[i][text.len] = '\0';
    }
    style = p->option[OPTION_PATH_STYLE];
    p->style = strcmp(style, "true") == 0    ? ADDRESS_PATH
               : strcmp(style, "false") == 0 ? ADDRESS_HOST
                                             : ADDRESS_AUTO;
    if (p->style == ADDRESS_AUTO && strcmp(style, "auto") != 0) {
        unload(p);
        return host->fail(call, T4_E_INVALID, "s3.path_style is not auto, true or false",
                          NULL, NULL);
    }
    *plugin = p;
    return T4_OK;
}

static const struct t4_object_ops ops = {
    .size = sizeof ops,
    .caps = T4_OBJECT_IF_ABSENT | T4_OBJECT_IF_MATCH,
    .open = store_open,
    .close = store_close,
    .put = store_put,
    .get = store_get,
    .head = store_head,
    .remove = store_remove,
    .list = store_list,
};

static const struct t4_role roles[] = {
    {.kind = T4_ROLE_OBJECT, .name = "s3", .ops = &ops},
};

const struct t4_plugin *
t4_plugin_v1(void)
{
    static const struct t4_plugin plugin = {
        T4_PLUGIN_HEAD("s3", "1.0", 0),
        .license = "Apache-2.0",
        .summary = "object store on Amazon S3 and compatible services",
        .options = options,
        .n_options = OPTIONS,
        .roles = roles,
        .n_roles = sizeof roles / sizeof roles[0],
        .load = load,
        .unload = unload,
    };

    return &plugin;
}

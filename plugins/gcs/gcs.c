/*
 * gcs.c - Google Cloud Storage as an object store, by its JSON API: descriptor, settings, open
 * and close, addresses.
 *
 * An object's tag is its generation in decimal: IF_MATCH is ifGenerationMatch, IF_ABSENT is
 * ifGenerationMatch=0.  Nothing is asked of the server when a store is opened: a start during
 * an outage must be possible.
 *
 * Entry point: t4_plugin_v1().  Runs on: load, unload, open, close: the host's main thread;
 * everything else on many threads at once.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "gcs.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define DEFAULT_ENDPOINT "https://storage.googleapis.com"
#define CHUNK_UNIT 262144u /* requests of a resumable upload hold a multiple of this */

enum option {
    OPTION_CREDENTIALS_FILE,
    OPTION_ENDPOINT,
    OPTION_CA_BUNDLE,
    OPTION_USER_PROJECT,
    OPTION_ANONYMOUS,
    OPTION_UPLOAD_CHUNK,
    N_OPTIONS,
};
static const struct t4_option options[N_OPTIONS] = {
    [OPTION_CREDENTIALS_FILE] =
        {.name = "credentials_file",
         .type = T4_OPTION_STRING,
         .default_value = "",
         .doc = "key file of a service account (JSON); without it "
                "GOOGLE_APPLICATION_CREDENTIALS, gcloud's own file, the metadata server"},
    [OPTION_ENDPOINT] = {.name = "endpoint",
                         .type = T4_OPTION_STRING,
                         .default_value = "",
                         .doc = "URL of the server instead of " DEFAULT_ENDPOINT
                                "; STORAGE_EMULATOR_HOST: one without credentials"},
    [OPTION_CA_BUNDLE] = {.name = "ca_bundle",
                          .type = T4_OPTION_STRING,
                          .default_value = "",
                          .doc = "file of CA certificates (PEM) instead of the system's"},
    [OPTION_USER_PROJECT] = {.name = "user_project",
                             .type = T4_OPTION_STRING,
                             .default_value = "",
                             .doc = "the project that pays for the requests"},
    [OPTION_ANONYMOUS] = {.name = "anonymous",
                          .type = T4_OPTION_BOOL,
                          .default_value = "false",
                          .doc = "send no credentials: for emulators"},
    [OPTION_UPLOAD_CHUNK] = {.name = "upload_chunk",
                             .type = T4_OPTION_SIZE,
                             .default_value = "16 MB",
                             .min = "256 kB",
                             .max = "1 GB",
                             .doc =
                                 "bytes of one request of the upload of an object above "
                                 "8 MB; rounded down to a multiple of 256 kB"},
};

/* --- addresses ---------------------------------------------------------------------- */

bool
gcs_url_is_private(const char *url)
{
    static const char *const hosts[] = {"127.0.0.1", "localhost", "[::1]"};

    if (strncmp(url, "http://", 7) != 0)
        return false;
    url += 7;
    for (size_t i = 0; i < sizeof hosts / sizeof hosts[0]; i++) {
        size_t n = strlen(hosts[i]);

        if (strncasecmp(url, hosts[i], n) == 0 &&
            (url[n] == '\0' || url[n] == ':' || url[n] == '/'))
            return strchr(url, '@') == NULL;
    }
    return false;
}

t4_status
gcs_name(const struct gcs_op *op, struct http_bytes *name)
{
    const struct t4_store *s = op->store;

    if (op->key.len == 0 || s->prefix_length + op->key.len > GCS_MAX_NAME)
        return gcs_fail(op, T4_E_INVALID,
                        "prefix and key have to be 1 to 1,024 bytes long",
                        "a shorter prefix leaves more for the keys");
    return http_bytes_add(name, s->prefix, s->prefix_length) &&
                   http_bytes_add(name, op->key.data, op->key.len)
               ? T4_OK
               : T4_E_NOMEM;
}

bool
gcs_url(const struct t4_store *s, const char *upload, const struct http_bytes *name,
        struct http_bytes *url)
{
    const char *project = s->gcs->user_project;

    if (!http_bytes_format(url, "%s%s/storage/v1/b/%s/o", s->gcs->endpoint, upload,
                           s->bucket))
        return false;
    if (name != NULL &&
        !(http_bytes_text(url, "/") && http_bytes_encoded(url, gcs_slice(name), false)))
        return false;
    if (!http_bytes_text(url, "?"))
        return false;
    return project[0] == '\0' ||
           (http_bytes_text(url, "userProject=") &&
            http_bytes_encoded(
                url, (struct t4_slice){(const uint8_t *)project, strlen(project)},
                false) &&
            http_bytes_text(url, "&"));
}

/* --- a store ------------------------------------------------------------------------ */

static bool
is_bucket(const char *name, size_t n)
{
    if (n < 3 || n > 222)
        return false;
    for (size_t i = 0; i < n; i++)
        if (!((name[i] >= 'a' && name[i] <= 'z') || (name[i] >= '0' && name[i] <= '9') ||
              name[i] == '-' || name[i] == '_' || (name[i] == '.' && i > 0)))
            return false;
    return true;
}

static t4_status
parse_url(struct t4_store *s, struct t4_call *call, struct t4_slice url)
{
    const struct t4_host *host = s->gcs->host;
    const char *text = (const char *)url.data, *end = text + url.len, *slash;
    size_t n;

    if (url.len < 5 || memcmp(text, "gs://", 5) != 0)
        return host->fail(call, T4_E_INVALID, "the URL does not begin with gs://", NULL,
                          "it looks like gs://bucket/prefix");
    text += 5;
    slash = memchr(text, '/', (size_t)(end - text));
    if (slash == NULL)
        slash = end;
    n = (size_t)(slash - text);
    if (!is_bucket(text, n))
        return host->fail(
            call, T4_E_INVALID, "the URL names no bucket", NULL,
            "it looks like gs://bucket/prefix; a bucket's name has 3 to 222 of "
            "a-z, 0-9, '-', '_' and '.'");
    memcpy(s->bucket, text, n);
    while (slash < end && *slash == '/')
        slash++;
    while (slash < end && end[-1] == '/')
        end--;
    n = (size_t)(end - slash);
    if (n == 0)
        return T4_OK;
    for (size_t i = 0; i < n; i++)
        if ((unsigned char)slash[i] < ' ' || slash[i] == 0x7f || slash[i] == '?' ||
            slash[i] == '#')
            n = GCS_MAX_NAME;
    if (n >= GCS_MAX_NAME)
        return host->fail(
            call, T4_E_INVALID,
            "the URL's prefix is too long or has characters "
            "that a prefix cannot have",
            NULL, "use at most 1,000 bytes without '?', '#' and control characters");
    memcpy(s->prefix, slash, n);
    s->prefix[n] = '/';
    s->prefix_length = n + 1;
    return T4_OK;
}

static t4_status
store_open(void *plugin, struct t4_call *call, const struct t4_store_open *open,
           struct t4_store **out)
{
    const struct gcs *g = plugin;
    struct t4_store *s;
    t4_status st;

    *out = NULL;
    s = g->host->alloc(g->host, sizeof *s);
    if (s == NULL)
        return T4_E_NOMEM;
    memset(s, 0, sizeof *s);
    s->gcs = g;
    st = parse_url(s, call, open->url);
    if (st != T4_OK) {
        g->host->free(g->host, s);
        return st;
    }
    *out = s;
    return T4_OK;
}

static void
store_close(struct t4_store *s)
{
    s->gcs->host->free(s->gcs->host, s);
}

/* --- load and unload ---------------------------------------------------------------- */

static t4_status
copy_text(const struct t4_host *host, struct t4_call *call,
          const struct t4_values *values, enum option option, char *out, size_t size)
{
    struct t4_slice text = values->value[option].text;

    if (text.len >= size || (text.len > 0 && memchr(text.data, 0, text.len) != NULL)) {
        char message[128];

        snprintf(message, sizeof message, "gcs.%s is too long", options[option].name);
        return host->fail(call, T4_E_INVALID, message, NULL, NULL);
    }
    if (text.len > 0)
        memcpy(out, text.data, text.len);
    out[text.len] = '\0';
    return T4_OK;
}

/* The server's URL without a '/' at its end; *emulator: it came from the environment. */
static t4_status
find_endpoint(struct gcs *g, struct t4_call *call, bool *emulator)
{
    const char *other = getenv("STORAGE_EMULATOR_HOST");
    size_t n;

    *emulator = g->endpoint[0] == '\0' && other != NULL && other[0] != '\0';
    if (*emulator && (size_t)snprintf(g->endpoint, sizeof g->endpoint, "%s%s",
                                      strstr(other, "://") == NULL ? "http://" : "",
                                      other) >= sizeof g->endpoint)
        return g->host->fail(call, T4_E_INVALID, "STORAGE_EMULATOR_HOST is too long",
                             NULL, NULL);
    if (g->endpoint[0] == '\0')
        snprintf(g->endpoint, sizeof g->endpoint, "%s", DEFAULT_ENDPOINT);
    n = strlen(g->endpoint);
    while (n > 0 && g->endpoint[n - 1] == '/')
        g->endpoint[--n] = '\0';
    if ((strncmp(g->endpoint, "http://", 7) != 0 &&
         strncmp(g->endpoint, "https://", 8) != 0) ||
        strpbrk(g->endpoint, "?#@ ") != NULL)
        return g->host->fail(call, T4_E_INVALID,
                             "gcs.endpoint is not the URL of a server", NULL,
                             "it looks like https://storage.googleapis.com");
    return T4_OK;
}

static void
gcs_unload(void *plugin)
{
    struct gcs *g = plugin;

    gcs_auth_close(g->auth);
    http_client_close(g->http);
    g->host->free(g->host, g);
    http_global_done();
}

static t4_status
gcs_load(const struct t4_host *host, struct t4_call *call, const struct t4_values *values,
         void **plugin)
{
    char credentials[4096], ca_bundle[4096];
    bool emulator = false;
    struct gcs *g;
    t4_status st;

    st = http_global_init();
    if (st != T4_OK)
        return st;
    g = host->alloc(host, sizeof *g);
    if (g == NULL) {
        http_global_done();
        return T4_E_NOMEM;
    }
    memset(g, 0, sizeof *g);
    g->host = host;
    g->upload_chunk =
        (uint64_t)values->value[OPTION_UPLOAD_CHUNK].number / CHUNK_UNIT * CHUNK_UNIT;
    st = copy_text(host, call, values, OPTION_CREDENTIALS_FILE, credentials,
                   sizeof credentials);
    if (st == T4_OK)
        st = copy_text(host, call, values, OPTION_CA_BUNDLE, ca_bundle, sizeof ca_bundle);
    if (st == T4_OK)
        st = copy_text(host, call, values, OPTION_ENDPOINT, g->endpoint,
                       sizeof g->endpoint);
    if (st == T4_OK)
        st = copy_text(host, call, values, OPTION_USER_PROJECT, g->user_project,
                       sizeof g->user_project);
    if (st == T4_OK)
        st = find_endpoint(g, call, &emulator);
    if (st == T4_OK)
        st = http_client_open(
            host,
            &(struct http_client_options){.ca_bundle = ca_bundle, .agent = "t4-gcs"},
            &g->http);
    if (st != T4_OK)
        goto fail_plugin;
    if (!emulator && !values->value[OPTION_ANONYMOUS].number) {
        if (strncmp(g->endpoint, "https://", 8) != 0 &&
            !gcs_url_is_private(g->endpoint)) {
            st =
                host->fail(call, T4_E_INVALID,
                           "gcs.endpoint is http on another machine: access tokens would "
                           "travel in the open",
                           NULL, "use https, or gcs.anonymous=true to send none");
            goto fail_plugin;
        }
        st = gcs_auth_open(host, g->http, call, credentials, &g->auth);
        if (st != T4_OK)
            goto fail_plugin;
    }
    *plugin = g;
    return T4_OK;

fail_plugin:
    gcs_unload(g);
    return st;
}

static const struct t4_object_ops ops = {
    .size = sizeof ops,
    .min_minor = 0,
    .caps = T4_OBJECT_IF_ABSENT | T4_OBJECT_IF_MATCH,
    .open = store_open,
    .close = store_close,
    .put = gcs_put,
    .get = gcs_get,
    .head = gcs_head,
    .remove = gcs_remove,
    .list = gcs_list,
};

static const struct t4_role roles[] = {
    {.kind = T4_ROLE_OBJECT, .name = "gs", .ops = &ops},
};

static const struct t4_plugin descriptor = {
    T4_PLUGIN_HEAD("gcs", "0.1.0", 0),
    .license = "Apache-2.0",
    .summary = "object store on Google Cloud Storage",
    .options = options,
    .n_options = N_OPTIONS,
    .roles = roles,
    .n_roles = sizeof roles / sizeof roles[0],
    .load = gcs_load,
    .unload = gcs_unload,
};

const struct t4_plugin *
t4_plugin_v1(void)
{
    return &descriptor;
}

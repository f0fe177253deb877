/*
 * sources.c - where credentials come from: environment, shared files, STS, instance metadata.
 *
 * The environment and which source it is are read at open, on the host's thread; files and
 * services are asked again for each renewal.
 *
 * Entry points: credentials_choose(), credentials_choose_sts(), credentials_fetch().  Runs on:
 * choose: open; fetch: any.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "credentials.h"
#include "xml.h"

#define FILE_MOST (1u << 20)
#define ANSWER_MOST 65536u
#define STS_NS 10000000000u
#define METADATA_NS 2000000000u

static const char *
environment(const char *name)
{
    const char *value = getenv(name);

    return value != NULL ? value : "";
}

static bool
is_true(const char *value)
{
    return strcmp(value, "true") == 0 || strcmp(value, "True") == 0 ||
           strcmp(value, "1") == 0;
}

static bool
copy(char *out, size_t room, const char *value)
{
    return text_copy(text_slice(value, strlen(value)), out, room);
}

/* --- files --------------------------------------------------------------------------- */

/* The whole file; the caller wipes it.  0 or an error number. */
static int
read_file(const char *path, struct str *out)
{
    char part[4096];
    ssize_t n;
    int rc = 0, fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    struct stat st;

    if (fd < 0)
        return errno;
    if (fstat(fd, &st) != 0)
        rc = errno;
    else if (!S_ISREG(st.st_mode))
        rc = S_ISDIR(st.st_mode) ? EISDIR : EINVAL;
    while (rc == 0 && (n = read(fd, part, sizeof part)) != 0) {
        if (n < 0)
            rc = errno;
        else if (out->length + (size_t)n > FILE_MOST)
            rc = EFBIG;
        else
            str_add(out, part, (size_t)n);
        if (out->failed)
            rc = ENOMEM;
    }
    explicit_bzero(part, sizeof part);
    close(fd);
    return rc;
}

static t4_status
fail_file(const struct t4_host *host, struct t4_call *call, const char *what,
          const char *path, int rc)
{
    char message[CREDENTIALS_PATH_ROOM + 64];

    snprintf(message, sizeof message, "%s %s", what, path);
    return host->fail(call, rc == ENOMEM ? T4_E_NOMEM : T4_E_DENIED, message,
                      strerror(rc),
                      "it must be there and readable for the server's user");
}

/* The profile in both files, as far as it is wanted. */
struct profile {
    char id[CREDENTIALS_ID_ROOM], secret[CREDENTIALS_SECRET_ROOM];
    char token[CREDENTIALS_TOKEN_ROOM];
    char region[64], endpoint[512], token_file[CREDENTIALS_PATH_ROOM], role[512],
        session[128];
    char unusable[32]; /* the name of a way to credentials that is not ours */
};

static t4_status
read_profile_file(const struct t4_host *host, struct t4_call *call, const char *path,
                  const char *name, bool profile_word, struct profile *p)
{
    const struct {
        const char *name;
        char *out;
        size_t room;
    } wanted[] = {
        {"aws_access_key_id", p->id, sizeof p->id},
        {"aws_secret_access_key", p->secret, sizeof p->secret},
        {"aws_session_token", p->token, sizeof p->token},
        {"region", p->region, sizeof p->region},
        {"endpoint_url", p->endpoint, sizeof p->endpoint},
        {"web_identity_token_file", p->token_file, sizeof p->token_file},
        {"role_arn", p->role, sizeof p->role},
        {"role_session_name", p->session, sizeof p->session},
    };
    static const char *const others[] = {"source_profile", "credential_source",
                                         "credential_process", "sso_session",
                                         "sso_start_url"};
    struct str text = {0};
    t4_status st = T4_OK;
    int rc = path[0] != '\0' ? read_file(path, &text) : ENOENT;
    bool set;
    char value[256], message[CREDENTIALS_PATH_ROOM + 160];

    if (rc == ENOENT)
        return T4_OK;
    if (rc != 0)
        st = fail_file(host, call, "cannot read the settings file", path, rc);
    for (size_t i = 0; i < sizeof wanted / sizeof wanted[0] && st == T4_OK; i++) {
        if (wanted[i].out[0] != '\0')
            continue; /* the file of credentials comes first */
        st = text_setting(text_slice(str_text(&text), text.length), name, profile_word,
                          wanted[i].name, wanted[i].out, wanted[i].room, &set);
        if (st == T4_E_INVALID) {
            snprintf(message, sizeof message, "%s: %s of profile %s is too long", path,
                     wanted[i].name, name);
            host->fail(call, st, message, NULL, NULL);
        }
    }
    for (size_t i = 0; i < sizeof others / sizeof others[0] && st == T4_OK; i++)
        if (text_setting(text_slice(str_text(&text), text.length), name, profile_word,
                         others[i], value, sizeof value, &set) == T4_OK &&
            set && p->unusable[0] == '\0')
            snprintf(p->unusable, sizeof p->unusable, "%s", others[i]);
    str_wipe(&text);
    return st == T4_E_NOTFOUND ? T4_OK : st;
}

static t4_status
read_profile(const struct t4_host *host, struct t4_call *call,
             const struct credentials_source *source, struct profile *p)
{
    t4_status st;

    memset(p, 0, sizeof *p);
    st = read_profile_file(host, call, source->credentials_file, source->profile, false,
                           p);
    if (st == T4_OK)
        st = read_profile_file(host, call, source->config_file, source->profile, true, p);
    return st;
}

/* --- choosing ------------------------------------------------------------------------ */

static t4_status
choose_fixed(const struct t4_host *host, struct t4_call *call, const char *id,
             const char *secret, const char *token, const char *words, const char *hint,
             struct credentials_source *out)
{
    char message[160];

    snprintf(out->words, sizeof out->words, "%s", words);
    out->kind = CREDENTIALS_FIXED;
    if (id[0] == '\0' || secret[0] == '\0') {
        snprintf(message, sizeof message, "%s: %s is missing", words,
                 id[0] == '\0' ? "the access key id" : "the secret access key");
        return host->fail(call, T4_E_INVALID, message, NULL, hint);
    }
    if (!copy(out->fixed.id, sizeof out->fixed.id, id) ||
        !copy(out->fixed.secret, sizeof out->fixed.secret, secret) ||
        !copy(out->fixed.token, sizeof out->fixed.token, token) ||
        !text_is_header(id, strlen(id)) || !text_is_header(token, strlen(token)) ||
        !text_is_header(secret, strlen(secret))) {
        snprintf(message, sizeof message,
                 "%s: a value is too long, or holds a line break", words);
        return host->fail(call, T4_E_INVALID, message, NULL, NULL);
    }
    return T4_OK;
}

/* The files and the profile, and whether somebody named it. */
static bool
choose_files(const struct credentials_settings *s, struct credentials_source *out)
{
    const char *home = environment("HOME"), *name = s->profile;
    const char *file = environment("AWS_SHARED_CREDENTIALS_FILE");
    const char *config = environment("AWS_CONFIG_FILE");
    bool named = true;

    if (name[0] == '\0')
        name = environment("AWS_PROFILE");
    if (name[0] == '\0') {
        name = "default";
        named = false;
    }
    copy(out->profile, sizeof out->profile, name);
    if (file[0] != '\0')
        copy(out->credentials_file, sizeof out->credentials_file, file);
    else if (home[0] != '\0')
        snprintf(out->credentials_file, sizeof out->credentials_file,
                 "%s/.aws/credentials", home);
    if (config[0] != '\0')
        copy(out->config_file, sizeof out->config_file, config);
    else if (home[0] != '\0')
        snprintf(out->config_file, sizeof out->config_file, "%s/.aws/config", home);
    return named;
}

static bool
choose_identity(struct credentials_source *out, const char *file, const char *role,
                const char *session, const char *words)
{
    char stamp[32];

    if (file[0] == '\0' || role[0] == '\0')
        return false;
    snprintf(stamp, sizeof stamp, "t4-%ld", (long)getpid());
    out->kind = CREDENTIALS_IDENTITY;
    snprintf(out->words, sizeof out->words, "%s", words);
    return copy(out->token_file, sizeof out->token_file, file) &&
           copy(out->role, sizeof out->role, role) &&
           copy(out->session, sizeof out->session, session[0] != '\0' ? session : stamp);
}

/* *done: the profile gives credentials. */
static t4_status
choose_profile(const struct t4_host *host, struct t4_call *call, const struct profile *p,
               bool named, struct credentials_source *out, bool *done)
{
    char message[256], hint[2 * CREDENTIALS_PATH_ROOM + 64];

    *done = true;
    snprintf(out->words, sizeof out->words, "profile %s", out->profile);
    if (p->id[0] != '\0' && p->secret[0] != '\0') {
        out->kind = CREDENTIALS_FILES;
        return T4_OK;
    }
    if (choose_identity(out, p->token_file, p->role, p->session, out->words))
        return T4_OK;
    snprintf(message, sizeof message, "no credentials in profile %s", out->profile);
    if (p->unusable[0] != '\0') {
        snprintf(
            hint, sizeof hint,
            "%s is not supported: give aws_access_key_id and aws_secret_access_key, or "
            "web_identity_token_file and role_arn",
            p->unusable);
        return host->fail(call, T4_E_INVALID, message, NULL, hint);
    }
    if (named) {
        snprintf(hint, sizeof hint, "looked into %s and %s", out->credentials_file,
                 out->config_file);
        return host->fail(call, T4_E_INVALID, message, NULL, hint);
    }
    *done = false;
    return T4_OK;
}

t4_status
credentials_choose(const struct t4_host *host, struct t4_call *call,
                   const struct credentials_settings *s, struct credentials_source *out,
                   char *region, size_t region_room, char *endpoint, size_t endpoint_room)
{
    const char *id = environment("AWS_ACCESS_KEY_ID"), *service;
    const char *secret = environment("AWS_SECRET_ACCESS_KEY");
    bool named, done;
    struct profile p;
    t4_status st = T4_OK, files;

    memset(out, 0, sizeof *out);
    named = choose_files(s, out);
    service = environment("AWS_EC2_METADATA_SERVICE_ENDPOINT");
    copy(out->metadata_url, sizeof out->metadata_url,
         service[0] != '\0' ? service : "http://169.254.169.254");

    /* Files that cannot be read matter only to who depends on them. */
    files = read_profile(host, call, out, &p);
    if (files == T4_OK && region[0] == '\0')
        copy(region, region_room, p.region);
    if (files == T4_OK && endpoint[0] == '\0')
        copy(endpoint, endpoint_room, p.endpoint);

    if (s->access_key_id[0] != '\0' || s->secret_access_key[0] != '\0') {
        st = choose_fixed(host, call, s->access_key_id, s->secret_access_key,
                          s->session_token,
                          "the settings s3.access_key_id and "
                          "s3.secret_access_key",
                          "give both or none", out);
    } else if (s->profile[0] != '\0') {
        st = files != T4_OK ? files : choose_profile(host, call, &p, true, out, &done);
    } else if (id[0] != '\0' || secret[0] != '\0') {
        st = choose_fixed(
            host, call, id, secret, environment("AWS_SESSION_TOKEN"), "the environment",
            "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or none of them", out);
    } else if (!choose_identity(out, environment("AWS_WEB_IDENTITY_TOKEN_FILE"),
                                environment("AWS_ROLE_ARN"),
                                environment("AWS_ROLE_SESSION_NAME"),
                                "web identity, AWS_ROLE_ARN")) {
        st = files != T4_OK ? files : choose_profile(host, call, &p, named, out, &done);
        if (st == T4_OK && !done) {
            out->kind = CREDENTIALS_METADATA;
            snprintf(out->words, sizeof out->words, "the role of the instance");
            if (is_true(environment("AWS_EC2_METADATA_DISABLED")))
                out->metadata_url[0] = '\0';
        }
    }
    explicit_bzero(&p, sizeof p);
    return st;
}

void
credentials_choose_sts(struct credentials_source *source, const char *region)
{
    const char *url = environment("AWS_ENDPOINT_URL_STS");

    if (url[0] == '\0')
        url = environment("AWS_ENDPOINT_URL");
    if (url[0] != '\0')
        snprintf(source->sts_url, sizeof source->sts_url, "%s%s", url,
                 url[strlen(url) - 1] == '/' ? "" : "/");
    else
        snprintf(source->sts_url, sizeof source->sts_url,
                 "https://sts.%s.amazonaws.com%s/", region,
                 strncmp(region, "cn-", 3) == 0 ? ".cn" : "");
}

/* --- services ------------------------------------------------------------------------ */

/* What a service's silence means for the call: TIMEOUT only if the call's own time is over. */
static t4_status
service_status(const struct t4_host *host, const struct t4_call *call, t4_status st)
{
    uint64_t deadline = host->deadline_ns(call);

    if (st == T4_E_CANCELLED || st == T4_E_NOMEM || st == T4_E_DENIED ||
        (st == T4_E_TIMEOUT && deadline != 0 && host->now_ns() >= deadline))
        return st;
    return T4_E_UNAVAILABLE;
}

static struct t4_slice
answer_body(const struct http_response *answer)
{
    return text_slice(answer->body.data != NULL ? answer->body.data : "",
                      answer->body.len);
}

static t4_status
fetch_files(const struct t4_host *host, struct t4_call *call,
            const struct credentials_source *source, struct credentials *out)
{
    struct profile p;
    t4_status st = read_profile(host, call, source, &p);
    char message[256];

    if (st == T4_OK && (p.id[0] == '\0' || p.secret[0] == '\0')) {
        snprintf(message, sizeof message, "no credentials in profile %s any more",
                 source->profile);
        st = host->fail(call, T4_E_DENIED, message, NULL, "put them back");
    }
    if (st == T4_OK) {
        copy(out->id, sizeof out->id, p.id);
        copy(out->secret, sizeof out->secret, p.secret);
        copy(out->token, sizeof out->token, p.token);
    }
    explicit_bzero(&p, sizeof p);
    return st;
}

static t4_status
fail_sts(const struct t4_host *host, struct t4_call *call,
         const struct credentials_source *source, const struct http_response *answer)
{
    struct xml_error e;
    char message[700], hint[1700];
    t4_status st = answer->status < 500 ? T4_E_DENIED : T4_E_UNAVAILABLE;

    xml_error(answer_body(answer), &e);
    snprintf(message, sizeof message, "STS does not give credentials for %s: %d %s",
             source->role, answer->status, e.code);
    snprintf(hint, sizeof hint,
             "the role must trust the issuer and subject of the token in %s",
             source->token_file);
    /* STS's own words may quote the token: they are left out */
    return host->fail(call, st, message, NULL, st == T4_E_DENIED ? hint : NULL);
}

static t4_status
fetch_identity(const struct t4_host *host, struct http_client *client,
               struct t4_call *call, const struct credentials_source *source,
               struct credentials *out)
{
#define STS_PATH                                                                         \
    "AssumeRoleWithWebIdentityResponse/AssumeRoleWithWebIdentityResult/Credentials/"
    char expiration[64];
    struct xml_want want[] = {
        {STS_PATH "AccessKeyId", out->id, sizeof out->id, false},
        {STS_PATH "SecretAccessKey", out->secret, sizeof out->secret, false},
        {STS_PATH "SessionToken", out->token, sizeof out->token, false},
        {STS_PATH "Expiration", expiration, sizeof expiration, false},
    };
    struct str token = {0}, form = {0};
    struct http_response answer = {.sent = false};
    struct http_request r = {
        .method = "POST",
        .url = source->sts_url,
        .headers = {"Content-Type: application/x-www-form-urlencoded"},
        .n_headers = 1,
        .has_body = true,
        .limit = ANSWER_MOST,
        .timeout_ns = STS_NS,
    };
    char message[700];
    t4_status st;
    int rc = read_file(source->token_file, &token);

    if (rc != 0) {
        st = fail_file(host, call, "cannot read the web-identity token",
                       source->token_file, rc);
        goto done;
    }
    while (token.length > 0 && (uint8_t)token.data[token.length - 1] <= ' ')
        token.length--;
    str_addz(&form, "Action=AssumeRoleWithWebIdentity&Version=2011-06-15&RoleArn=");
    str_encode(&form, source->role, strlen(source->role), false);
    str_addz(&form, "&RoleSessionName=");
    str_encode(&form, source->session, strlen(source->session), false);
    str_addz(&form, "&WebIdentityToken=");
    str_encode(&form, str_text(&token), token.length, false);
    if (form.failed) {
        st = T4_E_NOMEM;
        goto done;
    }
    r.body[0] = text_slice(form.data, form.length);
    st = http_perform(client, call, &r, &answer);
    if (st != T4_OK) {
        snprintf(message, sizeof message, "STS at %s", source->sts_url);
        st = host->fail(call, service_status(host, call, st), message, answer.reason,
                        NULL);
    }
    if (st == T4_OK && answer.status != 200)
        st = fail_sts(host, call, source, &answer);
    else if (st == T4_OK && (!xml_texts(answer_body(&answer), want, 4) ||
                             !want[0].found || !want[1].found || !want[2].found ||
                             !text_iso_date(text_slice(expiration, strlen(expiration)),
                                            &out->expires_ms)))
        st = host->fail(call, T4_E_UNAVAILABLE, "the answer of STS cannot be read",
                        source->sts_url, "check AWS_ENDPOINT_URL_STS");
done:
    str_wipe(&token);
    str_wipe(&form);
    http_response_free(&answer);
    return st;
}

/* One document of the instance's metadata, with the session's token. */
static t4_status
metadata(const struct t4_host *host, struct http_client *client, struct t4_call *call,
         const struct credentials_source *source, const char *method, const char *path,
         const char *header, struct http_response *answer)
{
    static const char hint[] =
        "no credentials were found: set s3.access_key_id and s3.secret_access_key, or "
        "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or s3.profile; or give the "
        "instance a "
        "role";
    struct http_request r = {
        .method = method,
        .headers = {header},
        .n_headers = 1,
        .has_body = strcmp(method, "PUT") == 0,
        .direct = true,
        .limit = ANSWER_MOST,
        .timeout_ns = METADATA_NS,
    };
    char url[1024], message[1200];
    t4_status st;

    snprintf(url, sizeof url, "%s%s", source->metadata_url, path);
    r.url = url;
    st = http_perform(client, call, &r, answer);
    if (st == T4_OK && answer->status == 200)
        return T4_OK;
    snprintf(message, sizeof message, "the instance's metadata (%s)", url);
    if (st == T4_OK) {
        snprintf(answer->reason, sizeof answer->reason, "answered %d", answer->status);
        st = answer->status == 404 ? T4_E_DENIED : T4_E_UNAVAILABLE;
    }
    st = host->fail(call, service_status(host, call, st), message, answer->reason, hint);
    http_response_free(answer);
    return st;
}

static t4_status
fetch_metadata(const struct t4_host *host, struct http_client *client,
               struct t4_call *call, const struct credentials_source *source,
               struct credentials *out)
{
    static const char base[] = "/latest/meta-data/iam/security-credentials/";
    char path[512], header[1024], date[64];
    struct http_response answer;
    struct t4_slice json;
    struct str role = {0};
    size_t length;
    t4_status st;

    if (source->metadata_url[0] == '\0')
        return host->fail(call, T4_E_DENIED, "no credentials were found", NULL,
                          "set s3.access_key_id and s3.secret_access_key, or "
                          "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or s3.profile");
    st = metadata(host, client, call, source, "PUT", "/latest/api/token",
                  "X-aws-ec2-metadata-token-ttl-seconds: 300", &answer);
    if (st != T4_OK)
        return st;
    snprintf(header, sizeof header, "X-aws-ec2-metadata-token: %.900s",
             (const char *)answer_body(&answer).data);
    length = answer.body.len;
    http_response_free(&answer);
    if (length == 0 || length > 900 || !text_is_header(header, strlen(header)))
        goto fail_format;

    st = metadata(host, client, call, source, "GET", base, header, &answer);
    if (st != T4_OK)
        goto done;
    length = strcspn((const char *)answer_body(&answer).data, "\r\n");
    str_encode(&role, (const char *)answer_body(&answer).data, length, false);
    http_response_free(&answer);
    if (role.failed || length == 0 || role.length + sizeof base > sizeof path) {
        str_free(&role);
        goto fail_format;
    }
    snprintf(path, sizeof path, "%s%s", base, role.data);
    str_free(&role);

    st = metadata(host, client, call, source, "GET", path, header, &answer);
    if (st != T4_OK)
        goto done;
    json = answer_body(&answer);
    if (!text_json_string(json, "AccessKeyId", out->id, sizeof out->id) ||
        !text_json_string(json, "SecretAccessKey", out->secret, sizeof out->secret) ||
        !text_json_string(json, "Token", out->token, sizeof out->token) ||
        !text_json_string(json, "Expiration", date, sizeof date) ||
        !text_iso_date(text_slice(date, strlen(date)), &out->expires_ms) ||
        !text_is_header(out->id, strlen(out->id)) ||
        !text_is_header(out->token, strlen(out->token))) {
        http_response_free(&answer);
        goto fail_format;
    }
    http_response_free(&answer);
done:
    explicit_bzero(header, sizeof header);
    return st;

fail_format:
    explicit_bzero(header, sizeof header);
    return host->fail(call, T4_E_UNAVAILABLE, "the instance's metadata cannot be read",
                      source->metadata_url,
                      "check AWS_EC2_METADATA_SERVICE_ENDPOINT, and the instance's role");
}

t4_status
credentials_fetch(const struct t4_host *host, struct http_client *client,
                  struct t4_call *call, const struct credentials_source *source,
                  struct credentials *out)
{
    switch (source->kind) {
    case CREDENTIALS_FIXED: *out = source->fixed; return T4_OK;
    case CREDENTIALS_FILES: return fetch_files(host, call, source, out);
    case CREDENTIALS_IDENTITY: return fetch_identity(host, client, call, source, out);
    case CREDENTIALS_METADATA: return fetch_metadata(host, client, call, source, out);
    }
    return T4_E_INTERNAL;
}

/*
 * json.c - reading the JSON texts of Google's servers.
 *
 * Nothing here trusts its input: numbers are range-checked, texts bounded, and what goes into
 * a header or a message is printable.  Numbers of 64 bits travel as decimal texts.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "json.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

static json_t *
parse(struct t4_slice text)
{
    return json_loadb((const char *)text.data, text.len, 0, NULL);
}

/* A member that is a text; its length may be 0.  The slice lives as long as `object`. */
static bool
text_of(const json_t *object, const char *name, struct t4_slice *out)
{
    const json_t *member = json_object_get(object, name);

    if (!json_is_string(member))
        return false;
    out->data = (const uint8_t *)json_string_value(member);
    out->len = json_string_length(member);
    return true;
}

/* Decimal digits alone, within 63 bits. */
static bool
number_of(struct t4_slice text, uint64_t *out)
{
    uint64_t v = 0;

    if (text.len == 0 || text.len > GCS_MAX_TAG)
        return false;
    for (size_t i = 0; i < text.len; i++) {
        if (text.data[i] < '0' || text.data[i] > '9')
            return false;
        v = 10 * v + (uint64_t)(text.data[i] - '0');
    }
    *out = v;
    return v <= INT64_MAX;
}

bool
json_is_generation(struct t4_slice text)
{
    uint64_t v;

    return number_of(text, &v) && text.data[0] != '0';
}

static bool
info_of(const json_t *object, struct t4_object_info *info)
{
    struct t4_slice text;

    *info = (struct t4_object_info){.size = sizeof *info};
    if (!text_of(object, "generation", &text) || !json_is_generation(text))
        return false;
    memcpy(info->tag, text.data, text.len);
    info->tag_length = (uint32_t)text.len;
    if (!text_of(object, "size", &text) || !number_of(text, &info->length))
        return false;
    if (text_of(object, "updated", &text))
        info->modified_ms = http_parse_timestamp(text);
    return true;
}

bool
json_object_info(struct t4_slice text, struct t4_object_info *info)
{
    json_t *root = parse(text);
    bool good = info_of(root, info);

    json_decref(root);
    return good;
}

t4_status
json_list_page(struct t4_slice text, t4_list_fn *fn, void *arg,
               struct http_bytes *next_page)
{
    json_t *root = parse(text), *items, *item;
    struct t4_object_info info;
    struct t4_slice name;
    t4_status st = T4_OK;
    size_t i;

    if (!json_is_object(root)) {
        json_decref(root);
        return T4_E_CORRUPT;
    }
    items = json_object_get(root, "items"); /* there is none on an empty page */
    if (items != NULL && !json_is_array(items))
        st = T4_E_CORRUPT;
    if (json_object_get(root, "nextPageToken") != NULL) {
        if (!text_of(root, "nextPageToken", &name) || name.len > GCS_MAX_PAGE_TOKEN)
            st = T4_E_CORRUPT;
        else if (!http_bytes_add(next_page, name.data, name.len))
            st = T4_E_NOMEM;
    }
    if (st == T4_OK) {
        json_array_foreach(items, i, item)
        {
            if (!text_of(item, "name", &name) || name.len == 0 || !info_of(item, &info))
                st = T4_E_CORRUPT;
            else
                st = fn(arg, name, &info);
            if (st != T4_OK)
                break;
        }
    }
    json_decref(root);
    return st;
}

void
json_refusal(struct t4_slice text, struct gcs_refusal *out)
{
    json_t *root = parse(text), *error, *list;
    struct t4_slice word;

    *out = (struct gcs_refusal){0};
    error = json_object_get(root, "error");
    if (json_is_object(
            error)) { /* storage: {"error": {"message", "errors": [{"reason"}]}} */
        if (text_of(error, "message", &word))
            http_printable(word, out->message, sizeof out->message);
        list = json_array_get(json_object_get(error, "errors"), 0);
        if (text_of(list, "reason", &word) || text_of(error, "status", &word))
            http_printable(word, out->reason, sizeof out->reason);
    } else if (json_is_string(error)) { /* tokens: {"error", "error_description"} */
        if (text_of(root, "error", &word))
            http_printable(word, out->reason, sizeof out->reason);
        if (text_of(root, "error_description", &word))
            http_printable(word, out->message, sizeof out->message);
    } else if (root == NULL) { /* downloads: plain text */
        http_printable(text, out->message, sizeof out->message);
    }
    json_decref(root);
}

bool
json_access_token(struct t4_slice text, struct http_bytes *token, int64_t *seconds)
{
    json_t *root = parse(text);
    const json_t *expires = json_object_get(root, "expires_in");
    struct t4_slice word;
    bool good = text_of(root, "access_token", &word) && word.len > 0 &&
                word.len <= GCS_MAX_TOKEN && json_is_integer(expires);

    for (size_t i = 0; good && i < word.len; i++) /* it becomes part of a header line */
        good = word.data[i] > ' ' && word.data[i] < 0x7f;
    if (good) {
        *seconds = json_integer_value(expires);
        good = *seconds > 0 && *seconds <= 10 * 86400 &&
               http_bytes_add(token, word.data, word.len);
    }
    json_decref(root);
    return good;
}

/* --- credentials files -------------------------------------------------------------- */

/* Copies a text that must be there, not empty, and no longer than GCS_MAX_FIELD. */
static t4_status
copy_field(const json_t *root, const char *name, struct http_bytes *out)
{
    struct t4_slice word;

    if (!text_of(root, name, &word) || word.len == 0 || word.len > GCS_MAX_FIELD ||
        memchr(word.data, 0, word.len) != NULL)
        return T4_E_INVALID;
    return http_bytes_add(out, word.data, word.len) ? T4_OK : T4_E_NOMEM;
}

static t4_status
copy_fields(const json_t *root, struct gcs_credentials *out, const char **why)
{
    bool account = out->type == GCS_SERVICE_ACCOUNT;
    t4_status st;

    *why = "it has no usable client_email, private_key_id, private_key or token_uri";
    if (!account)
        *why = "it has no usable client_id, client_secret, refresh_token or token_uri";
    st = account ? copy_field(root, "client_email", &out->client_email)
                 : copy_field(root, "client_id", &out->client_id);
    if (st == T4_OK)
        st = account ? copy_field(root, "private_key_id", &out->private_key_id)
                     : copy_field(root, "client_secret", &out->client_secret);
    if (st == T4_OK)
        st = account ? copy_field(root, "private_key", &out->private_key)
                     : copy_field(root, "refresh_token", &out->refresh_token);
    if (st != T4_OK)
        return st;
    if (json_object_get(root, "token_uri") != NULL)
        return copy_field(root, "token_uri", &out->token_uri);
    return http_bytes_text(&out->token_uri, "https://oauth2.googleapis.com/token")
               ? T4_OK
               : T4_E_NOMEM;
}

t4_status
json_credentials(struct t4_slice text, struct gcs_credentials *out, const char **why)
{
    json_t *root = parse(text);
    struct t4_slice type;
    t4_status st = T4_E_INVALID;

    *out = (struct gcs_credentials){0};
    if (!json_is_object(root)) {
        *why = "it is not a JSON object";
    } else if (!text_of(root, "type", &type)) {
        *why = "it has no \"type\"";
    } else {
        const char *name = (const char *)type.data;

        if (strcmp(name, "service_account") == 0)
            out->type = GCS_SERVICE_ACCOUNT;
        else if (strcmp(name, "authorized_user") == 0)
            out->type = GCS_AUTHORIZED_USER;
        *why = "its type is neither service_account nor authorized_user";
        if (out->type != 0)
            st = copy_fields(root, out, why);
    }
    json_decref(root);
    if (st != T4_OK)
        gcs_credentials_wipe(out);
    return st;
}

void
gcs_credentials_wipe(struct gcs_credentials *c)
{
    http_bytes_wipe(&c->token_uri);
    http_bytes_wipe(&c->client_email);
    http_bytes_wipe(&c->private_key_id);
    http_bytes_wipe(&c->private_key);
    http_bytes_wipe(&c->client_id);
    http_bytes_wipe(&c->client_secret);
    http_bytes_wipe(&c->refresh_token);
}

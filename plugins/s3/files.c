/*
 * files.c - what stands in AWS's settings files and in JSON answers.
 *
 * Settings files: lines `name = value` below `[section]`; '#' and ';' begin comments, at the
 * start of a line or after a blank; indented lines belong to the line above and are left out.
 * JSON: only strings of the outermost object are asked for; jansson reads it.
 *
 * Entry points: text_setting(), text_json_string().  Pure; any thread.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <jansson.h>
#include <string.h>
#include <strings.h>

#include "text.h"

/* --- settings files ------------------------------------------------------------------ */

static bool
is_blank(char c)
{
    return c == ' ' || c == '\t' || c == '\r';
}

static struct t4_slice
trim(const char *p, const char *end)
{
    while (p < end && is_blank(*p))
        p++;
    while (end > p && is_blank(end[-1]))
        end--;
    return text_slice(p, (size_t)(end - p));
}

static bool
same(struct t4_slice s, const char *text)
{
    return s.len == strlen(text) && (s.len == 0 || memcmp(s.data, text, s.len) == 0);
}

/* Is "[...]" the section?  In the config file it is [profile x], for "default" both ways. */
static bool
is_section(struct t4_slice line, const char *section, bool profile_word)
{
    const char *p = (const char *)line.data + 1,
               *end = (const char *)line.data + line.len;
    const char *close = memchr(p, ']', (size_t)(end - p));
    struct t4_slice name;

    if (close == NULL)
        return false;
    name = trim(p, close);
    if (!profile_word)
        return same(name, section);
    if (name.len > 8 && memcmp(name.data, "profile", 7) == 0 &&
        is_blank((char)name.data[7]))
        return same(trim((const char *)name.data + 8, (const char *)name.data + name.len),
                    section);
    return strcmp(section, "default") == 0 && same(name, section);
}

/* Up to a comment, which begins at a '#' or ';' after a blank. */
static struct t4_slice
value_of(const char *p, const char *end)
{
    for (const char *q = p; q < end; q++)
        if ((*q == '#' || *q == ';') && q > p && is_blank(q[-1])) {
            end = q;
            break;
        }
    return trim(p, end);
}

t4_status
text_setting(struct t4_slice file, const char *section, bool profile_word,
             const char *name, char *out, size_t room, bool *found)
{
    const char *p = (const char *)file.data, *end = p + file.len;
    bool inside = false, seen = false;

    *found = false;
    while (p < end) {
        const char *eol = memchr(p, '\n', (size_t)(end - p));
        const char *stop = eol != NULL ? eol : end, *equals;
        bool indented = is_blank(*p);
        struct t4_slice line = trim(p, stop), left;

        p = eol != NULL ? eol + 1 : end;
        if (line.len == 0 || line.data[0] == '#' || line.data[0] == ';')
            continue;
        if (line.data[0] == '[') {
            inside = is_section(line, section, profile_word);
            seen = seen || inside;
            continue;
        }
        if (!inside || indented)
            continue;
        equals = memchr(line.data, '=', line.len);
        if (equals == NULL)
            continue;
        left = trim((const char *)line.data, equals);
        if (left.len != strlen(name) ||
            strncasecmp((const char *)left.data, name, left.len) != 0)
            continue;
        if (!text_copy(value_of(equals + 1, (const char *)line.data + line.len), out,
                       room))
            return T4_E_INVALID;
        *found = true;
    }
    return seen ? T4_OK : T4_E_NOTFOUND;
}

/* --- JSON ---------------------------------------------------------------------------- */

bool
text_json_string(struct t4_slice json, const char *name, char *out, size_t room)
{
    json_t *root = json_loadb((const char *)json.data, json.len, 0, NULL);
    json_t *value = json_object_get(root, name); /* NULL of what is no object */
    bool ok = json_is_string(value) &&
              text_copy(text_slice(json_string_value(value), json_string_length(value)),
                        out, room);

    json_decref(root);
    return ok;
}

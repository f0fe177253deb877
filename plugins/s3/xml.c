/*
 * xml.c - the XML documents of the S3 protocol, read with libxml2's SAX parser.
 *
 * walk() gives each element, at its end, with its path of local names and its own text; the
 * readers of the four kinds of documents are built on it.  No tree is made, so memory is what
 * the readers keep.
 *
 * Entry points: see xml.h.  Any thread.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "xml.h"

#include <libxml/parser.h>
#include <stdlib.h>
#include <string.h>

#define MAX_DEPTH 16
#define MAX_PATH 512
#define MAX_TEXT 16384

void
xml_init(void)
{
    xmlInitParser();
}

/* --- walking ------------------------------------------------------------------------- */

typedef bool element_fn(void *arg, const char *path, struct t4_slice text);

struct walk {
    xmlParserCtxtPtr parser;
    element_fn *fn;
    void *arg;
    bool stopped; /* refused by us or by fn */
    unsigned depth;
    size_t path_length[MAX_DEPTH + 1]; /* of the path at each depth */
    size_t text_start[MAX_DEPTH + 1];  /* where the text of the open elements begins */
    char path[MAX_PATH];
    struct str text;
};

static void
stop(struct walk *w)
{
    w->stopped = true;
    xmlStopParser(w->parser);
}

static void
on_start(void *arg, const xmlChar *name, const xmlChar *prefix, const xmlChar *uri,
         int n_namespaces, const xmlChar **namespaces, int n_attributes, int n_defaulted,
         const xmlChar **attributes)
{
    struct walk *w = arg;
    size_t n = strlen((const char *)name), at = w->path_length[w->depth];

    (void)prefix;
    (void)uri;
    (void)n_namespaces;
    (void)namespaces;
    (void)n_attributes;
    (void)n_defaulted;
    (void)attributes;
    if (w->stopped)
        return;
    if (w->depth == MAX_DEPTH || at + n + 2 > sizeof w->path) {
        stop(w);
        return;
    }
    if (w->depth > 0)
        w->path[at++] = '/';
    memcpy(w->path + at, name, n + 1);
    w->depth++;
    w->path_length[w->depth] = at + n;
    w->text_start[w->depth] = w->text.length;
}

static void
on_text(void *arg, const xmlChar *data, int n)
{
    struct walk *w = arg;

    if (w->stopped || w->depth == 0 || n <= 0)
        return;
    if (w->text.length - w->text_start[w->depth] + (size_t)n > MAX_TEXT) {
        stop(w);
        return;
    }
    str_add(&w->text, (const char *)data, (size_t)n);
    if (w->text.failed)
        stop(w);
}

static void
on_end(void *arg, const xmlChar *name, const xmlChar *prefix, const xmlChar *uri)
{
    struct walk *w = arg;
    size_t start;

    (void)name;
    (void)prefix;
    (void)uri;
    if (w->stopped || w->depth == 0)
        return;
    start = w->text_start[w->depth];
    if (!w->fn(w->arg, w->path,
               text_slice(str_text(&w->text) + start, w->text.length - start))) {
        stop(w);
        return;
    }
    w->text.length = start;
    w->depth--;
    w->path[w->path_length[w->depth]] = '\0';
}

/* No document type: nothing to declare entities in. */
static void
on_document_type(void *arg, const xmlChar *name, const xmlChar *id, const xmlChar *system)
{
    (void)name;
    (void)id;
    (void)system;
    stop(arg);
}

static void
on_error(void *arg, xmlErrorPtr error)
{
    (void)arg;
    (void)error;
}

/* T4_OK; CORRUPT: malformed, out of bounds or refused by fn; NOMEM. */
static t4_status
walk(struct t4_slice document, element_fn *fn, void *arg)
{
    xmlSAXHandler sax = {
        .initialized = XML_SAX2_MAGIC,
        .startElementNs = on_start,
        .endElementNs = on_end,
        .characters = on_text,
        .ignorableWhitespace = on_text,
        .cdataBlock = on_text,
        .internalSubset = on_document_type,
        .serror = on_error,
    };
    struct walk w = {.fn = fn, .arg = arg};
    t4_status st = T4_E_CORRUPT;

    if (document.len == 0 || document.len > INT32_MAX)
        return T4_E_CORRUPT;
    w.parser = xmlCreatePushParserCtxt(&sax, &w, NULL, 0, NULL);
    if (w.parser == NULL)
        return T4_E_NOMEM;
    xmlCtxtUseOptions(w.parser,
                      XML_PARSE_NONET | XML_PARSE_NOERROR | XML_PARSE_NOWARNING);
    xmlParseChunk(w.parser, (const char *)document.data, (int)document.len, 1);
    if (w.text.failed)
        st = T4_E_NOMEM;
    else if (!w.stopped && w.parser->wellFormed && w.depth == 0)
        st = T4_OK;
    xmlFreeParserCtxt(w.parser);
    str_wipe(&w.text); /* STS answers hold secrets */
    return st;
}

static bool
is_path(const char *path, const char *wanted)
{
    return strcmp(path, wanted) == 0;
}

/* Takes what fits: for texts that are only shown. */
static void
copy_part(struct t4_slice text, char *out, size_t room)
{
    size_t n = text.len < room - 1 ? text.len : room - 1;

    memcpy(out, text.data, n);
    out[n] = '\0';
    for (size_t i = 0; i < n; i++)
        if ((uint8_t)out[i] < 0x20 || out[i] == 0x7f)
            out[i] = ' ';
    /* not in the middle of a character */
    while (n > 0 && n < text.len && (text.data[n] & 0xc0) == 0x80)
        out[--n] = '\0';
}

/* --- errors -------------------------------------------------------------------------- */

static bool
error_element(void *arg, const char *path, struct t4_slice text)
{
    struct xml_error *e = arg;
    const char *name;

    /* S3 itself; STS and some others put it one level down. */
    if (strncmp(path, "Error/", 6) == 0)
        name = path + 6;
    else if (strncmp(path, "ErrorResponse/Error/", 20) == 0)
        name = path + 20;
    else
        return true;
    if (is_path(name, "Code"))
        copy_part(text, e->code, sizeof e->code);
    else if (is_path(name, "Message"))
        copy_part(text, e->message, sizeof e->message);
    else if (is_path(name, "Region"))
        copy_part(text, e->region, sizeof e->region);
    return true;
}

bool
xml_error(struct t4_slice document, struct xml_error *out)
{
    *out = (struct xml_error){.code = ""};
    if (walk(document, error_element, out) == T4_OK && out->code[0] != '\0')
        return true;
    *out = (struct xml_error){.code = ""};
    return false;
}

/* --- lists --------------------------------------------------------------------------- */

struct list_reader {
    struct xml_list *list;
    bool is_list;
    bool url;    /* <EncodingType>url</EncodingType>: keys are percent-encoded */
    bool failed; /* no memory */
};

/* The entry that is being read: object[n]. */
static struct xml_object *
list_open(struct list_reader *r)
{
    struct xml_list *l = r->list;

    if (l->n >= XML_LIST_MOST)
        return NULL;
    if (l->n == l->room) {
        size_t room = l->room > 0 ? 2 * l->room : 128;
        struct xml_object *object = realloc(l->object, room * sizeof *object);

        if (object == NULL) {
            r->failed = true;
            return NULL;
        }
        memset(object + l->room, 0, (room - l->room) * sizeof *object);
        l->object = object;
        l->room = room;
    }
    return &l->object[l->n];
}

static bool
list_entry(struct list_reader *r, const char *name, struct t4_slice text)
{
    struct xml_object *o = list_open(r);

    if (o == NULL)
        return false;
    if (is_path(name, "Key")) {
        if (o->key_length > 0)
            return false;
        o->key = r->list->keys.length;
        o->key_length = text.len;
        str_add(&r->list->keys, (const char *)text.data, text.len);
        r->failed = r->list->keys.failed;
        return !r->failed && text.len > 0;
    }
    if (is_path(name, "Size"))
        return text_number(text, &o->length);
    if (is_path(name, "ETag"))
        return text_is_header((const char *)text.data, text.len) &&
               text_copy(text, o->tag, sizeof o->tag);
    if (is_path(name, "LastModified") && !text_iso_date(text, &o->modified_ms))
        o->modified_ms = 0;
    return true;
}

static bool
list_element(void *arg, const char *path, struct t4_slice text)
{
    static const char root[] = "ListBucketResult", entry[] = "ListBucketResult/Contents";
    struct list_reader *r = arg;
    struct xml_list *l = r->list;

    if (strncmp(path, root, sizeof root - 1) != 0)
        return true;
    r->is_list = true;
    if (strncmp(path, entry, sizeof entry - 1) == 0) {
        if (path[sizeof entry - 1] == '/')
            return list_entry(r, path + sizeof entry, text);
        if (path[sizeof entry - 1] == '\0') {
            if (list_open(r) == NULL || l->object[l->n].key_length == 0)
                return false; /* an entry without a key */
            l->n++;
        }
        return true;
    }
    path += sizeof root - 1;
    if (is_path(path, "/IsTruncated"))
        l->truncated = text.len == 4 && memcmp(text.data, "true", 4) == 0;
    else if (is_path(path, "/EncodingType"))
        r->url = text.len == 3 && memcmp(text.data, "url", 3) == 0;
    else if (is_path(path, "/NextContinuationToken") && l->token.length == 0)
        str_add(&l->token, (const char *)text.data, text.len);
    r->failed = l->token.failed;
    return !r->failed;
}

t4_status
xml_list(struct t4_slice document, struct xml_list *out)
{
    struct list_reader r = {.list = out};
    t4_status st;

    *out = (struct xml_list){0};
    st = walk(document, list_element, &r);
    if (r.failed)
        return T4_E_NOMEM;
    if (st != T4_OK || !r.is_list)
        return st != T4_OK ? st : T4_E_CORRUPT;
    for (size_t i = 0; i < out->n; i++) {
        struct xml_object *o = &out->object[i];

        /* only now: <EncodingType> may stand behind the keys */
        if (r.url)
            o->key_length = text_decode(out->keys.data + o->key, o->key_length);
        if (o->key_length == SIZE_MAX || o->key_length == 0)
            return T4_E_CORRUPT;
    }
    return T4_OK;
}

void
xml_list_free(struct xml_list *l)
{
    free(l->object);
    str_free(&l->keys);
    str_free(&l->token);
    *l = (struct xml_list){0};
}

/* --- removals ------------------------------------------------------------------------ */

struct removed_reader {
    struct xml_removed *removed;
    struct xml_removed entry;
    bool is_result;
};

static bool
removed_element(void *arg, const char *path, struct t4_slice text)
{
    static const char root[] = "DeleteResult", entry[] = "DeleteResult/Error";
    struct removed_reader *r = arg;

    if (strncmp(path, root, sizeof root - 1) == 0)
        r->is_result = true;
    if (strncmp(path, entry, sizeof entry - 1) != 0)
        return true;
    path += sizeof entry - 1;
    if (is_path(path, "/Key")) {
        copy_part(text, r->entry.key, sizeof r->entry.key);
    } else if (is_path(path, "/Code")) {
        copy_part(text, r->entry.error.code, sizeof r->entry.error.code);
    } else if (is_path(path, "/Message")) {
        copy_part(text, r->entry.error.message, sizeof r->entry.error.message);
    } else if (*path == '\0') {
        /* An absent key is no failure. */
        if (!is_path(r->entry.error.code, "NoSuchKey")) {
            r->entry.failed = r->removed->failed + 1;
            if (r->removed->failed == 0)
                *r->removed = r->entry;
            r->removed->failed = r->entry.failed;
        }
        r->entry = (struct xml_removed){.failed = 0};
    }
    return true;
}

bool
xml_removed(struct t4_slice document, struct xml_removed *out)
{
    struct removed_reader r = {.removed = out};

    *out = (struct xml_removed){.failed = 0};
    return walk(document, removed_element, &r) == T4_OK && r.is_result;
}

/* --- single texts -------------------------------------------------------------------- */

struct texts_reader {
    struct xml_want *want;
    size_t n;
};

static bool
texts_element(void *arg, const char *path, struct t4_slice text)
{
    struct texts_reader *r = arg;

    for (size_t i = 0; i < r->n; i++)
        if (is_path(path, r->want[i].path)) {
            if (!text_is_header((const char *)text.data, text.len) ||
                !text_copy(text, r->want[i].out, r->want[i].room))
                return false;
            r->want[i].found = true;
        }
    return true;
}

bool
xml_texts(struct t4_slice document, struct xml_want *want, size_t n)
{
    struct texts_reader r = {want, n};

    for (size_t i = 0; i < n; i++) {
        want[i].found = false;
        want[i].out[0] = '\0';
    }
    return walk(document, texts_element, &r) == T4_OK;
}

/* --- writing ------------------------------------------------------------------------- */

bool
xml_escape(struct str *out, struct t4_slice data)
{
    if (!text_is_plain(data))
        return false;
    for (size_t i = 0; i < data.len; i++) {
        const uint8_t *p = data.data + i;

        /* U+FFFE and U+FFFF are UTF-8, but no characters to XML */
        if (data.len - i >= 3 && p[0] == 0xef && p[1] == 0xbf && p[2] >= 0xbe)
            return false;
        switch (*p) {
        case '&': str_addz(out, "&amp;"); break;
        case '<': str_addz(out, "&lt;"); break;
        case '>': str_addz(out, "&gt;"); break;
        case '"': str_addz(out, "&quot;"); break;
        case '\'': str_addz(out, "&apos;"); break;
        default: str_add(out, (const char *)p, 1); break;
        }
    }
    return true;
}

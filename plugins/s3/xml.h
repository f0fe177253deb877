/*
 * xml.h - the XML documents of the S3 protocol (private to the plugin).
 *
 * Documents come from the network and may be anything: document types, entities beyond XML's
 * five, nesting past 16 levels and texts past 16 KiB are refused, and nothing is loaded.  The
 * caller bounds the length of the document.  Memory is in proportion to it.  Any thread, after
 * xml_init().
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef S3_XML_H
#define S3_XML_H

#include "text.h"

void xml_init(void); /* once, before any thread calls the rest */

/* What a document of an error says; "" where it says nothing. */
struct xml_error {
    char code[64];
    char message[512];
    char region[64];
};
/* False: not such a document. */
bool xml_error(struct t4_slice document, struct xml_error *out);

#define XML_LIST_MOST 10000u /* objects in one page */
struct xml_object {
    size_t key, key_length; /* in struct xml_list's keys; decoded */
    uint64_t length;
    int64_t modified_ms;
    char tag[T4_TAG_MAX + 1];
};
struct xml_list {
    struct xml_object *object;
    size_t n, room;
    struct str keys;
    bool truncated;
    struct str token; /* to go on with */
};
/* T4_OK, CORRUPT: not a list, or past the bounds, NOMEM.  *out is freed by the caller. */
t4_status xml_list(struct t4_slice document, struct xml_list *out);
void xml_list_free(struct xml_list *l);

/* The answer to DeleteObjects: how many were not removed, and the first of them. */
struct xml_removed {
    size_t failed;
    char key[1025];
    struct xml_error error;
};
bool xml_removed(struct t4_slice document, struct xml_removed *out);

/* One text of a document by its path, "CompleteMultipartUploadResult/ETag". */
struct xml_want {
    const char *path;
    char *out;
    size_t room;
    bool found;
};
/* False: not well-formed, or a text does not fit. */
bool xml_texts(struct t4_slice document, struct xml_want *want, size_t n);

/* Adds `data` with XML's special characters escaped; false: not a text XML can hold. */
bool xml_escape(struct str *out, struct t4_slice data);

#endif

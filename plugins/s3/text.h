/*
 * text.h - texts of the S3 protocol: a growing string, dates, header lines, settings files,
 * JSON answers (private to the plugin).
 *
 * Pure: no file, clock or network.  Input may be anything; nothing is read past its end, and
 * what is malformed is refused or left out.  Any thread.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef S3_TEXT_H
#define S3_TEXT_H

#include <stdbool.h>

#include "t4_plugin.h"

static inline struct t4_slice
text_slice(const char *s, size_t n)
{
    return (struct t4_slice){(const uint8_t *)s, n};
}

/* --- a growing string ------------------------------------------------------------------ */

/*
 * Always NUL-terminated once something was added.  Adding to a string that ran out of memory
 * does nothing; `failed` is asked once, at the end.
 */
struct str {
    char *data; /* NULL: empty */
    size_t length, room;
    bool failed;
};
void str_add(struct str *s, const char *data, size_t n);
void str_addz(struct str *s, const char *text);
void str_addf(struct str *s, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
/* Percent-encoded as RFC 3986 wants it (unreserved characters stay), '/' kept on demand. */
void str_encode(struct str *s, const char *data, size_t n, bool keep_slash);
const char *str_text(const struct str *s); /* never NULL */
void str_free(struct str *s);
void str_wipe(struct str *s); /* overwrites, then frees */

/* --- names and numbers ----------------------------------------------------------------- */

/* UTF-8 without control characters. */
bool text_is_plain(struct t4_slice s);
/* A value for a header line: printable ASCII and above, no line break. */
bool text_is_header(const char *s, size_t n);
/* Decodes %XX in place, '+' to a space; returns the new length, SIZE_MAX if malformed. */
size_t text_decode(char *s, size_t n);
/* Copies into out[room] with a final NUL; false if it does not fit or holds a NUL. */
bool text_copy(struct t4_slice s, char *out, size_t room);
bool text_number(struct t4_slice s, uint64_t *out); /* digits only */

/* Milliseconds since 1970. */
bool text_http_date(struct t4_slice s, int64_t *ms); /* Sun, 06 Nov 1994 08:49:37 GMT */
bool text_iso_date(struct t4_slice s, int64_t *ms);  /* 1994-11-06T08:49:37.123Z */
/* The form of x-amz-date, 19941106T084937Z; out has room for 17. */
void text_amz_date(int64_t ms, char out[17]);

/* --- the head of an answer ------------------------------------------------------------- */

#define TEXT_TAG_ROOM (T4_TAG_MAX + 1)
/* What S3 says there, beside what every answer has. */
struct text_head {
    char tag[TEXT_TAG_ROOM]; /* ETag as it came; "" if there is none or it is too long */
    char region[64];         /* x-amz-bucket-region */
    char request_id[96];     /* x-amz-request-id */
    int64_t modified_ms;
    bool has_range, has_total;
    uint64_t first, last, total; /* Content-Range; first and last if has_range */
};
void text_head(struct text_head *h, struct t4_slice lines); /* "Name: value\n"... */

/* --- settings files and JSON ----------------------------------------------------------- */

/*
 * The last `name = value` in section [section] of the text of an AWS settings file; sections
 * may be written "[profile x]" if `profile_word`.  NOTFOUND: no such section; OK with
 * *found = false: it does not set the name.  INVALID: the value does not fit.
 */
t4_status text_setting(struct t4_slice file, const char *section, bool profile_word,
                       const char *name, char *out, size_t room, bool *found);

/* The string `name` of the outermost JSON object; false: malformed, absent, no fit. */
bool text_json_string(struct t4_slice json, const char *name, char *out, size_t room);

#endif

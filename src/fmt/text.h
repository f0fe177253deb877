/*
 * text.h - small records as lines of text: `name value`, closed by a checksum.
 *
 * For what a person may want to read with cat or curl: the data directory's identity, the
 * lock, the manifest, the cluster object.  First line: kind and format number; last line:
 * `crc` and the CRC-32C of all bytes before that line, 8 hexadecimal digits.  Values have no
 * line breaks.  Order and presence of lines is fixed by the writer; a reader takes them in
 * that order.  Pure functions, any thread.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef FMT_TEXT_H
#define FMT_TEXT_H

#include <stddef.h>

#include "base/buffer.h"

void text_begin(struct buffer *out, const char *kind, unsigned format);
void text_u64(struct buffer *out, const char *name, uint64_t v); /* decimal */
void text_hex(struct buffer *out, const char *name, uint64_t v); /* 16 digits */
void text_bytes(struct buffer *out, const char *name, const uint8_t *data,
                size_t n); /* hex */
/* Control characters in the value are left out. */
void text_string(struct buffer *out, const char *name, const char *value);
void text_end(struct buffer *out);

struct text_reader {
    const char *next, *end;
    bool bad;
};

/*
 * Checks kind and checksum.  False: damaged, or another kind.  *format is what the first line
 * says, also when the rest is not understood.
 */
bool text_open(struct text_reader *r, struct t4_slice text, const char *kind,
               unsigned *format);
/* Each takes the next line, which must have this name; else the reader becomes bad. */
uint64_t text_read_u64(struct text_reader *r, const char *name);
uint64_t text_read_hex(struct text_reader *r, const char *name);
void text_read_bytes(struct text_reader *r, const char *name, uint8_t *data, size_t n);
/* A value longer than size - 1 makes the reader bad. */
void text_read_string(struct text_reader *r, const char *name, char *value, size_t size);
/* True if nothing was bad and no line is left. */
bool text_close(struct text_reader *r);

/*
 * Lines that stand one behind the other in a record and are members of one struct: the table says
 * both how they are written and how they are read.
 */
enum text_form {
    TEXT_NUMBER,  /* decimal; of 1 (bool), 4 or 8 bytes, -1 is the largest */
    TEXT_ID,      /* uint64_t, 16 hexadecimal digits */
    TEXT_DIGEST,  /* bytes, two hexadecimal digits each */
    TEXT_SENTENCE /* char[], ended by a zero */
};
struct text_line {
    const char *name;
    enum text_form form;
    size_t offset, size; /* of the member */
};
#define TEXT_LINE(name_, form_, type, member)                                            \
    {                                                                                    \
        .name = name_, .form = form_, .offset = offsetof(type, member),                  \
        .size = sizeof(((type *)0)->member)                                              \
    }
void text_lines(struct buffer *out, const struct text_line *lines, size_t n,
                const void *object);
/* What does not fit into its member makes the reader bad. */
void text_read_lines(struct text_reader *r, const struct text_line *lines, size_t n,
                     void *object);
/* The same for a table. */
#define TEXT_LINES(out, table, object)                                                   \
    text_lines(out, table, sizeof(table) / sizeof(table)[0], object)
#define TEXT_READ_LINES(r, table, object)                                                \
    text_read_lines(r, table, sizeof(table) / sizeof(table)[0], object)

#endif
